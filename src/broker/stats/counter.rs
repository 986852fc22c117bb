//! One counted thing, with its samples of the last minute, hour and day. Source: RocketMQ `StatsItem`.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::remoting::body::{BrokerStatsData, BrokerStatsItem};

/// Samples kept of a minute, 10 s apart, and of an hour, 10 min apart.
const MINUTE_SAMPLES: usize = 6;
const HOUR_SAMPLES: usize = 6;
/// Samples kept of a day, 1 h apart.
const DAY_SAMPLES: usize = 24;
/// Rates are not computed over less, so that the first message of a topic does not look like thousands a second.
const RATE_MS_MIN: i64 = 10_000;

/// Events, the messages in them, and their bytes.
#[derive(Debug)]
pub(super) struct Counter {
    times: AtomicU64,
    nums: AtomicU64,
    bytes: AtomicU64,
    past: Mutex<Past>,
}

/// Which of a counter's numbers a statistic is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    Nums,
    Bytes,
}

/// The longest period that a sample belongs to; it belongs to the shorter ones too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Period {
    Minute,
    Hour,
    Day,
}

/// Samples, oldest first; none is empty.
#[derive(Debug)]
struct Past {
    minute: VecDeque<Sample>,
    hour: VecDeque<Sample>,
    day: VecDeque<Sample>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    at_ms: i64,
    times: u64,
    nums: u64,
    bytes: u64,
}

impl Counter {
    pub(super) fn new(now_ms: i64) -> Self {
        let first = Sample { at_ms: now_ms, times: 0, nums: 0, bytes: 0 };
        let samples = || VecDeque::from([first]);
        let past = Past { minute: samples(), hour: samples(), day: samples() };
        Self {
            times: AtomicU64::new(0),
            nums: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            past: Mutex::new(past),
        }
    }

    pub(super) fn add(&self, nums: u64, bytes: u64) {
        self.times.fetch_add(1, Ordering::Relaxed);
        self.nums.fetch_add(nums, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn nums(&self) -> u64 {
        self.nums.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn sample(&self, now_ms: i64, period: Period) {
        let now = self.at(now_ms);
        let mut past = self.past();
        push(&mut past.minute, now, MINUTE_SAMPLES);
        if period >= Period::Hour {
            push(&mut past.hour, now, HOUR_SAMPLES);
        }
        if period >= Period::Day {
            push(&mut past.day, now, DAY_SAMPLES);
        }
    }

    /// Returns whether nothing was counted for a day.
    pub(super) fn is_idle(&self) -> bool {
        let past = self.past();
        past.day.len() == DAY_SAMPLES
            && past.day.front().is_some_and(|first| first.times == self.times.load(Ordering::Relaxed))
    }

    /// Returns messages a second in the last minute.
    pub(super) fn rate(&self, now_ms: i64) -> f64 {
        item(&self.past().minute, self.at(now_ms), Measure::Nums).tps
    }

    pub(super) fn data(&self, now_ms: i64, measure: Measure) -> BrokerStatsData {
        let now = self.at(now_ms);
        let past = self.past();
        BrokerStatsData {
            stats_minute: item(&past.minute, now, measure),
            stats_hour: item(&past.hour, now, measure),
            stats_day: item(&past.day, now, measure),
        }
    }

    fn at(&self, now_ms: i64) -> Sample {
        Sample {
            at_ms: now_ms,
            times: self.times.load(Ordering::Relaxed),
            nums: self.nums(),
            bytes: self.bytes(),
        }
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push(samples: &mut VecDeque<Sample>, sample: Sample, max: usize) {
    if samples.len() == max {
        samples.pop_front();
    }
    samples.push_back(sample);
}

/// Computes what was counted from the oldest sample to now. Java ends at the newest sample, so that its numbers of an
/// hour and a day stand still for 10 min and 1 h.
fn item(samples: &VecDeque<Sample>, now: Sample, measure: Measure) -> BrokerStatsItem {
    let Some(first) = samples.front() else { return BrokerStatsItem::default() };
    let sum = match measure {
        Measure::Nums => now.nums.saturating_sub(first.nums),
        Measure::Bytes => now.bytes.saturating_sub(first.bytes),
    };
    let times = now.times.saturating_sub(first.times);
    let ms = (now.at_ms - first.at_ms).max(RATE_MS_MIN);
    BrokerStatsItem {
        sum: i64::try_from(sum).unwrap_or(i64::MAX),
        tps: sum as f64 * 1000.0 / ms as f64,
        avgpt: if times == 0 { 0.0 } else { sum as f64 / times as f64 },
    }
}
