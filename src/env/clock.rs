//! Wall clock and monotonic clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time. Clones share one clock.
#[derive(Debug, Clone, Default)]
pub struct Clock(Source);

#[derive(Debug, Clone, Default)]
enum Source {
    #[default]
    System,
    /// Milliseconds since 1970; moved by the test that owns it.
    Manual(Arc<AtomicI64>),
    /// Milliseconds by which it differs from the machine's clock; moved by the test that owns it.
    Wrong(Arc<AtomicI64>),
}

impl Clock {
    /// Returns the machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Returns a clock that stands at `now_ms` until [`Clock::set_ms`] moves it.
    pub fn manual(now_ms: i64) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(now_ms))))
    }

    /// Returns a clock that goes as the machine's until [`Clock::jump_ms`] moves it.
    pub fn wrong() -> Self {
        Self(Source::Wrong(Arc::default()))
    }

    /// Moves a manual clock, forwards or backwards. Does nothing to other clocks.
    pub fn set_ms(&self, now_ms: i64) {
        if let Source::Manual(ms) = &self.0 {
            ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Moves a manual or a wrong clock by so much. Does nothing to the machine's clock.
    pub fn jump_ms(&self, by: i64) {
        if let Source::Manual(ms) | Source::Wrong(ms) = &self.0 {
            ms.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Returns milliseconds since 1970. May jump.
    #[expect(clippy::disallowed_methods, reason = "this is where the library gets its time from")]
    pub fn now_ms(&self) -> i64 {
        let system_ms = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
        };
        match &self.0 {
            Source::System => system_ms(),
            Source::Manual(ms) => ms.load(Ordering::Relaxed),
            Source::Wrong(by) => system_ms() + by.load(Ordering::Relaxed),
        }
    }

    /// Returns a monotonic instant, for measuring how long something takes.
    #[expect(clippy::disallowed_methods, reason = "this is where the library gets its time from")]
    pub fn instant(&self) -> Instant {
        Instant::now()
    }

    /// Returns the time since `start`.
    pub fn elapsed(&self, start: Instant) -> Duration {
        self.instant().saturating_duration_since(start)
    }
}
