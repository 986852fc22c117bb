//! How long puts take: a histogram of the last minute. Source of the ranges: RocketMQ `StoreStatsService`.

use std::array;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Ranges of the histogram: 1 ms wide up to 20 ms, then 2, 5, 10, 50 and 100 ms up to 1 s, 1 s up to 10 s, and all above.
const RANGES: usize = 76;
/// First range, where it starts and its width, both in milliseconds.
const STEPS: [(usize, u64, u64); 7] =
    [(0, 0, 1), (20, 20, 2), (35, 50, 5), (45, 100, 10), (55, 200, 50), (61, 500, 100), (66, 1000, 1000)];
const TOP_MS: u64 = 10_000;
/// Samples of a minute, 10 s apart.
const SAMPLES: usize = 6;

/// Ranges by which tools know the distribution: each name with the end of its range in milliseconds.
const NAMES: [(&str, u64); 13] = [
    ("[<=0ms]", 1),
    ("[0~10ms]", 10),
    ("[10~50ms]", 50),
    ("[50~100ms]", 100),
    ("[100~200ms]", 200),
    ("[200~500ms]", 500),
    ("[500ms~1s]", 1000),
    ("[1~2s]", 2000),
    ("[2~3s]", 3000),
    ("[3~4s]", 4000),
    ("[4~5s]", 5000),
    ("[5~10s]", 10_000),
    ("[10s~]", u64::MAX),
];

/// All latencies so far.
#[derive(Debug)]
pub(super) struct Latencies {
    counts: [AtomicU64; RANGES],
    max_ms: AtomicU64,
    /// The counts at earlier times, oldest first.
    past: Mutex<VecDeque<[u64; RANGES]>>,
}

/// Latencies of a period.
#[derive(Debug)]
pub(super) struct Histogram([u64; RANGES]);

impl Latencies {
    pub(super) fn new() -> Self {
        Self {
            counts: array::from_fn(|_| AtomicU64::new(0)),
            max_ms: AtomicU64::new(0),
            past: Mutex::new(VecDeque::from([[0; RANGES]])),
        }
    }

    pub(super) fn add(&self, elapsed: Duration) {
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.counts[range_of(ms)].fetch_add(1, Ordering::Relaxed);
        if ms > self.max_ms.load(Ordering::Relaxed) {
            self.max_ms.fetch_max(ms, Ordering::Relaxed);
        }
    }

    /// Returns the longest since the start.
    pub(super) fn max_ms(&self) -> u64 {
        self.max_ms.load(Ordering::Relaxed)
    }

    pub(super) fn sample(&self) {
        let now = self.now();
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == SAMPLES {
            past.pop_front();
        }
        past.push_back(now);
    }

    pub(super) fn last_minute(&self) -> Histogram {
        let now = self.now();
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let before = past.front().copied().unwrap_or([0; RANGES]);
        Histogram(array::from_fn(|range| now[range].saturating_sub(before[range])))
    }

    fn now(&self) -> [u64; RANGES] {
        array::from_fn(|range| self.counts[range].load(Ordering::Relaxed))
    }
}

impl Histogram {
    /// Returns `name:count` for each named range, a blank after each.
    pub(super) fn distribution(&self) -> String {
        let mut from_ms = 0;
        NAMES
            .iter()
            .map(|(name, to_ms)| {
                let count: u64 = (0..RANGES)
                    .filter(|range| (from_ms..*to_ms).contains(&start_of(*range)))
                    .map(|range| self.0[range])
                    .sum();
                from_ms = *to_ms;
                format!("{name}:{count} ")
            })
            .collect()
    }

    /// Returns the end of the range, in milliseconds, below which this share of the latencies is.
    pub(super) fn percentile(&self, share: f64) -> u64 {
        let all: u64 = self.0.iter().sum();
        let mut left = (all as f64 * share).ceil() as u64;
        for (range, count) in self.0.iter().enumerate() {
            if left > 0 && *count >= left {
                return if range + 1 < RANGES { start_of(range + 1) } else { TOP_MS };
            }
            left = left.saturating_sub(*count);
        }
        0
    }
}

fn range_of(ms: u64) -> usize {
    if ms >= TOP_MS {
        return RANGES - 1;
    }
    let (first, start, width) =
        STEPS.iter().rfind(|(_, start, _)| *start <= ms).expect("the first starts at 0");
    first + usize::try_from((ms - start) / width).expect("below 76")
}

fn start_of(range: usize) -> u64 {
    let (first, start, width) =
        STEPS.iter().rfind(|(first, ..)| *first <= range).expect("the first is range 0");
    start + (range - first) as u64 * width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_each_other() {
        for ms in 0..TOP_MS {
            let range = range_of(ms);
            assert!(start_of(range) <= ms && ms < start_of(range + 1), "{ms} in {range}");
        }
        assert_eq!(range_of(u64::MAX), RANGES - 1);
        assert_eq!(start_of(RANGES - 1), TOP_MS);
    }

    #[test]
    fn distribution_and_percentiles_are_those_of_the_last_minute() {
        let latencies = Latencies::new();
        assert_eq!(latencies.last_minute().percentile(0.99), 0);
        for ms in [0, 0, 3, 49, 50, 1500, 60_000] {
            latencies.add(Duration::from_millis(ms));
        }
        assert_eq!(
            latencies.last_minute().distribution(),
            "[<=0ms]:2 [0~10ms]:1 [10~50ms]:1 [50~100ms]:1 [100~200ms]:0 [200~500ms]:0 [500ms~1s]:0 \
             [1~2s]:1 [2~3s]:0 [3~4s]:0 [4~5s]:0 [5~10s]:0 [10s~]:1 "
        );
        assert_eq!(latencies.last_minute().percentile(0.5), 50);
        assert_eq!(latencies.last_minute().percentile(0.99), TOP_MS);
        (0..SAMPLES).for_each(|_| latencies.sample());
        assert_eq!(latencies.last_minute().percentile(0.99), 0);
        assert_eq!(latencies.max_ms(), 60_000);
    }
}
