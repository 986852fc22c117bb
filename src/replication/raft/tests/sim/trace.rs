//! What happened in a simulation, in order. The same seed gives the same text.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::system;

/// Lines in the report of a failure.
const REPORTED: usize = 150;

/// Clones write into one trace.
#[derive(Debug, Clone, Default)]
pub(in crate::replication::raft) struct Trace(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    /// Numbers of lines that say what was done to the group.
    plan: Vec<usize>,
    digest: crc32fast::Hasher,
    /// Also keep what there is much of.
    verbose: bool,
}

impl Trace {
    pub(super) fn new(verbose: bool) -> Self {
        Self(Arc::new(Mutex::new(Lines { verbose, ..Lines::default() })))
    }

    pub(super) fn line(&self, line: &str) {
        let mut lines = self.lock();
        lines.add(line);
    }

    /// Adds a line that belongs to the plan.
    pub(super) fn plan(&self, line: &str) {
        let mut lines = self.lock();
        let number = lines.lines.len();
        lines.plan.push(number);
        lines.add(line);
    }

    /// Adds numbers that are too many to be lines, unless all is to be kept.
    pub(super) fn numbers(&self, what: &'static str, numbers: &[u64]) {
        let mut lines = self.lock();
        if lines.verbose {
            let line = format!("{what} {numbers:?}");
            lines.lines.push(stamped(&line));
        }
        let ms = u64::try_from(system::now().as_millis()).unwrap();
        lines.digest.update(&ms.to_le_bytes());
        lines.digest.update(what.as_bytes());
        numbers.iter().for_each(|number| lines.digest.update(&number.to_le_bytes()));
    }

    /// Returns a number that stands for all of it.
    pub(super) fn digest(&self) -> u32 {
        self.lock().digest.clone().finalize()
    }

    pub(super) fn text(&self) -> String {
        self.lock().lines.join("\n")
    }

    /// Returns what was done, and the last lines.
    pub(super) fn report(&self) -> String {
        let lines = self.lock();
        let mut text = String::from("plan:\n");
        for number in &lines.plan {
            let _ = writeln!(text, "  {}", lines.lines[*number]);
        }
        text.push_str("the last lines:\n");
        for line in &lines.lines[lines.lines.len().saturating_sub(REPORTED)..] {
            let _ = writeln!(text, "  {line}");
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn add(&mut self, line: &str) {
        let line = stamped(line);
        self.digest.update(line.as_bytes());
        self.lines.push(line);
    }
}

fn stamped(line: &str) -> String {
    format!("{:>6} {line}", system::now().as_millis())
}

/// For log lines.
impl io::Write for Trace {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line(String::from_utf8_lossy(bytes).trim_end());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
