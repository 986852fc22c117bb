//! Metrics as Prometheus reads them: a page in its text format, and histograms to record into.
//!
//! What is counted, and where, is not known here. Plain counters are the atomics of whoever counts; a page is made of
//! them when it is asked for.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The content type of a page: version 0.0.4 of the text format, which everything that scrapes reads.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name, meaning and kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
}

impl Metric {
    /// A number that only grows. Its name ends with `_total`.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "counter" }
    }

    /// A number that goes up and down.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "gauge" }
    }

    /// Counts by range.
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: "histogram" }
    }

    /// Returns the name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

/// Labels of a sample, written as the format wants them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Labels(String);

impl Labels {
    /// Returns these labels with more behind them. Names are made valid, values are escaped.
    pub fn and(&self, name: &str, value: impl Display) -> Self {
        let mut text = self.0.clone();
        if !text.is_empty() {
            text.push(',');
        }
        for (at, c) in name.chars().enumerate() {
            let valid = c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit());
            text.push(if valid { c } else { '_' });
        }
        text.push_str("=\"");
        for c in value.to_string().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
        text.push('"');
        Self(text)
    }
}

/// A page of metrics. The samples of one metric stand together, whoever added them, as the format wants it.
#[derive(Debug)]
pub struct Page {
    families: BTreeMap<&'static str, Family>,
    samples_max: usize,
}

#[derive(Debug)]
struct Family {
    metric: Metric,
    samples: usize,
    lines: String,
}

impl Page {
    /// Makes a page that takes at most so many samples of each metric; more are left out.
    pub fn new(samples_max: usize) -> Self {
        Self { families: BTreeMap::new(), samples_max }
    }

    /// Adds a sample.
    pub fn sample(&mut self, metric: &Metric, labels: &Labels, value: impl Display) {
        if let Some(lines) = self.lines(metric) {
            write_line(lines, metric.name, "", labels, &value);
        }
    }

    /// Adds a histogram.
    pub fn histogram(&mut self, metric: &Metric, labels: &Labels, counts: &Counts) {
        let Some(lines) = self.lines(metric) else { return };
        let mut sum = 0;
        for (bound, count) in &counts.below {
            sum += count;
            write_line(lines, metric.name, "_bucket", &labels.and("le", bound), &sum);
        }
        let all = sum + counts.above;
        write_line(lines, metric.name, "_bucket", &labels.and("le", "+Inf"), &all);
        write_line(lines, metric.name, "_sum", labels, &counts.sum);
        write_line(lines, metric.name, "_count", labels, &all);
    }

    /// Returns the text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Family { metric: Metric { name, help, kind }, lines, .. } in self.families.values() {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{lines}");
        }
        text
    }

    fn lines(&mut self, metric: &Metric) -> Option<&mut String> {
        let family = self.families.entry(metric.name).or_insert_with(|| Family {
            metric: *metric,
            samples: 0,
            lines: String::new(),
        });
        family.samples += 1;
        (family.samples <= self.samples_max).then_some(&mut family.lines)
    }
}

fn write_line(lines: &mut String, name: &str, suffix: &str, labels: &Labels, value: &dyn Display) {
    let _ = match labels.0.as_str() {
        "" => writeln!(lines, "{name}{suffix} {value}"),
        text => writeln!(lines, "{name}{suffix}{{{text}}} {value}"),
    };
}

/// Ranges of latencies, in nanoseconds: from 100 µs, which a sync of a good disk takes, to 10 s, where clients give up.
const LATENCY_BOUNDS_NS: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
const NS_PER_SECOND: f64 = 1e9;

/// Counts by range, to be recorded into from anywhere: two atomic additions.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [u64],
    /// Recorded numbers to one of the unit that is shown.
    per_unit: f64,
    /// One for each bound, and one for all above.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// What a histogram holds at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Counts {
    /// Upper bounds, included, and how many are in each range.
    below: Vec<(f64, u64)>,
    above: u64,
    sum: f64,
}

impl Histogram {
    /// Makes one of plain numbers. `bounds` grow and are part of the range below them.
    pub fn new(bounds: &'static [u64]) -> Self {
        Self::with_unit(bounds, 1.0)
    }

    /// Makes one of latencies, shown in seconds.
    pub fn of_latencies() -> Self {
        Self::with_unit(&LATENCY_BOUNDS_NS, NS_PER_SECOND)
    }

    fn with_unit(bounds: &'static [u64], per_unit: f64) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, per_unit, counts, sum: AtomicU64::new(0) }
    }

    /// Counts `times` events of this size.
    pub fn record(&self, size: u64, times: u64) {
        let range = self.bounds.partition_point(|bound| *bound < size);
        self.counts[range].fetch_add(times, Ordering::Relaxed);
        self.sum.fetch_add(size.saturating_mul(times), Ordering::Relaxed);
    }

    /// Counts one event that took so long.
    pub fn observe(&self, elapsed: Duration) {
        self.record(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), 1);
    }

    /// Returns what it holds.
    pub fn counts(&self) -> Counts {
        let count = |range: usize| self.counts[range].load(Ordering::Relaxed);
        let bounds = self.bounds.iter().enumerate();
        Counts {
            below: bounds.map(|(range, bound)| (*bound as f64 / self.per_unit, count(range))).collect(),
            above: count(self.bounds.len()),
            sum: self.sum.load(Ordering::Relaxed) as f64 / self.per_unit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Metric = Metric::gauge("size_bytes", "How big");
    const SENT: Metric = Metric::counter("sent_total", "How many");

    #[test]
    fn samples_of_a_metric_stand_together() {
        let mut page = Page::new(10);
        let (a, b) = (Labels::default().and("node_id", "a"), Labels::default().and("node_id", "b"));
        for labels in [&a, &b] {
            page.sample(&SIZE, labels, 1.5);
            page.sample(&SENT, labels, 7);
        }
        page.sample(&SIZE, &Labels::default(), u64::MAX);
        assert_eq!(
            page.text(),
            "# HELP sent_total How many\n# TYPE sent_total counter\n\
             sent_total{node_id=\"a\"} 7\nsent_total{node_id=\"b\"} 7\n\
             # HELP size_bytes How big\n# TYPE size_bytes gauge\n\
             size_bytes{node_id=\"a\"} 1.5\nsize_bytes{node_id=\"b\"} 1.5\nsize_bytes 18446744073709551615\n"
        );
    }

    #[test]
    fn labels_are_escaped_and_their_names_valid() {
        for (name, value, text) in [
            ("topic", "a b", r#"topic="a b""#),
            ("topic", "%RETRY%\"\\\n", r#"topic="%RETRY%\"\\\n""#),
            ("9.env-é", "x", r#"__env__="x""#),
        ] {
            assert_eq!(Labels::default().and(name, value).0, text);
        }
        assert_eq!(Labels::default().and("a", 1).and("b", true).0, r#"a="1",b="true""#);
    }

    #[test]
    fn too_many_samples_are_left_out() {
        let mut page = Page::new(1);
        page.sample(&SIZE, &Labels::default().and("n", 1), 1);
        page.sample(&SIZE, &Labels::default().and("n", 2), 2);
        assert!(page.text().ends_with("size_bytes{n=\"1\"} 1\n"));
    }

    #[test]
    fn histograms_are_cumulative() {
        const SIZES: Metric = Metric::histogram("sizes", "Sizes");
        let histogram = Histogram::new(&[10, 100]);
        for (size, times) in [(1, 2), (10, 1), (11, 1), (1000, 1)] {
            histogram.record(size, times);
        }
        let mut page = Page::new(10);
        page.histogram(&SIZES, &Labels::default().and("t", "x"), &histogram.counts());
        assert_eq!(
            page.text(),
            "# HELP sizes Sizes\n# TYPE sizes histogram\n\
             sizes_bucket{t=\"x\",le=\"10\"} 3\nsizes_bucket{t=\"x\",le=\"100\"} 4\n\
             sizes_bucket{t=\"x\",le=\"+Inf\"} 5\nsizes_sum{t=\"x\"} 1023\nsizes_count{t=\"x\"} 5\n"
        );
    }

    #[test]
    fn latencies_are_in_seconds() {
        let histogram = Histogram::of_latencies();
        histogram.observe(Duration::from_micros(250));
        histogram.observe(Duration::from_secs(60));
        let counts = histogram.counts();
        assert_eq!(counts.below[1], (0.000_25, 1));
        assert_eq!((counts.above, counts.sum), (1, 60.000_25));
    }
}
