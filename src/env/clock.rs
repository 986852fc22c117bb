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

    /// Moves a manual clock, forwards or backwards. Does nothing to the machine's clock.
    pub fn set_ms(&self, now_ms: i64) {
        if let Source::Manual(ms) = &self.0 {
            ms.store(now_ms, Ordering::Relaxed);
        }
    }

    /// Returns milliseconds since 1970. May jump.
    #[expect(clippy::disallowed_methods, reason = "this is where the library gets its time from")]
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)),
            Source::Manual(ms) => ms.load(Ordering::Relaxed),
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
