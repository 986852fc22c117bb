//! What was asked for and what came of it, in the order in which it happened.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Where an operation stands. The names are Jepsen's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Invoke,
    /// It happened.
    Ok,
    /// It certainly did not happen.
    Fail,
    /// It may have happened, or may still happen.
    Info,
}

/// What an operation is about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    None,
    /// Free text.
    Text(String),
    /// An element of a set: the id of a message.
    Element(u64),
    /// A message of a queue, and its offset if it is known.
    Send {
        queue: u32,
        id: u64,
        offset: Option<u64>,
    },
    /// Messages of a queue: offset and id.
    Poll {
        queue: u32,
        messages: Vec<(u64, u64)>,
    },
    /// A register, and its value if it is known.
    Register {
        key: u64,
        value: Option<i64>,
    },
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Op {
    pub(crate) index: u64,
    pub(crate) kind: Kind,
    /// `None` is the nemesis. A client whose operation ended with `info` goes on under another number.
    pub(crate) process: Option<u32>,
    pub(crate) f: &'static str,
    pub(crate) value: Value,
    /// Since the begin of the run.
    pub(crate) time: Duration,
    /// Which server was asked.
    pub(crate) node: Option<u32>,
}

/// The histories of a run, one for each workload, with one order and one clock.
#[derive(Debug)]
pub(crate) struct Histories {
    start: Instant,
    next: AtomicU64,
    next_process: AtomicU64,
    ops: Mutex<Vec<(Workload, Op)>>,
}

/// A workload has a history of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Workload {
    /// Ordered keys with offsets, read from every replica while faults happen.
    Log,
    /// Stock Java producers and push consumers: a total queue.
    Queue,
    /// Topic settings as registers.
    Topics,
    /// kv config of the name server as registers.
    Kv,
    /// Committed offsets of consumers as registers.
    Offsets,
    /// The route to the leader as name servers tell it.
    Routes,
    /// Not a workload: the faults.
    Nemesis,
}

impl Workload {
    /// All that clients do.
    pub(crate) const ALL: [Self; 6] =
        [Self::Log, Self::Queue, Self::Topics, Self::Kv, Self::Offsets, Self::Routes];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Queue => "queue",
            Self::Topics => "topics",
            Self::Kv => "kv",
            Self::Offsets => "offsets",
            Self::Routes => "routes",
            Self::Nemesis => "nemesis",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == text)
    }
}

/// A client that does one thing after the other.
#[derive(Debug)]
pub(crate) struct Process<'a> {
    histories: &'a Histories,
    workload: Workload,
    number: u32,
}

impl Histories {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            next: AtomicU64::new(0),
            next_process: AtomicU64::new(0),
            ops: Mutex::default(),
        }
    }

    /// Returns the time since the begin of the run.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn process(&self, workload: Workload) -> Process<'_> {
        Process { histories: self, workload, number: self.new_process() }
    }

    /// Notes what the nemesis does.
    pub(crate) fn nemesis(&self, f: &'static str, text: String) {
        self.note(Workload::Nemesis, Kind::Info, None, f, Value::Text(text), None);
    }

    /// Returns a workload's operations.
    pub(crate) fn of(&self, workload: Workload) -> Vec<Op> {
        let ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ops: Vec<_> =
            ops.iter().filter(|(of, _)| *of == workload).map(|(_, op)| op.clone()).collect();
        ops.sort_by_key(|op| op.index);
        ops
    }

    /// Writes a workload's history with the faults in between, one EDN map a line.
    pub(crate) fn edn(&self, workload: Workload) -> String {
        let ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ops: Vec<_> =
            ops.iter().filter(|(of, _)| *of == workload || *of == Workload::Nemesis).collect();
        ops.sort_by_key(|(_, op)| op.index);
        let mut text = String::new();
        for (_, op) in ops {
            write_edn(&mut text, op);
        }
        text
    }

    fn new_process(&self) -> u32 {
        u32::try_from(self.next_process.fetch_add(1, Ordering::Relaxed)).expect("few processes")
    }

    fn note(
        &self,
        workload: Workload,
        kind: Kind,
        process: Option<u32>,
        f: &'static str,
        value: Value,
        node: Option<u32>,
    ) {
        // Index and time under one lock: the order of the indexes is that of the times.
        let mut ops = self.ops.lock().unwrap_or_else(PoisonError::into_inner);
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        ops.push((workload, Op { index, kind, process, f, value, time: self.start.elapsed(), node }));
    }
}

impl Process<'_> {
    /// Notes that an operation begins.
    pub(crate) fn invoke(&self, f: &'static str, value: Value, node: Option<u32>) {
        self.histories.note(self.workload, Kind::Invoke, Some(self.number), f, value, node);
    }

    /// Notes how the operation ended that was last begun.
    pub(crate) fn end(&mut self, kind: Kind, f: &'static str, value: Value, node: Option<u32>) {
        self.histories.note(self.workload, kind, Some(self.number), f, value, node);
        if kind == Kind::Info {
            self.number = self.histories.new_process();
        }
    }
}

fn write_edn(text: &mut String, op: &Op) {
    let kind = match op.kind {
        Kind::Invoke => "invoke",
        Kind::Ok => "ok",
        Kind::Fail => "fail",
        Kind::Info => "info",
    };
    let process = op.process.map_or(":nemesis".to_owned(), |number| number.to_string());
    let _ = write!(
        text,
        "{{:index {}, :type :{kind}, :process {process}, :f :{}, :value {}, :time {}",
        op.index,
        op.f,
        edn_value(&op.value),
        op.time.as_nanos()
    );
    if let Some(node) = op.node {
        let _ = write!(text, ", :node \"n{node}\"");
    }
    text.push_str("}\n");
}

fn edn_value(value: &Value) -> String {
    match value {
        Value::None => "nil".into(),
        Value::Text(text) => format!("{text:?}"),
        Value::Element(id) => id.to_string(),
        Value::Send { queue, id, offset: None } => format!("[[:send {queue} {id}]]"),
        Value::Send { queue, id, offset: Some(offset) } => format!("[[:send {queue} [{offset} {id}]]]"),
        Value::Poll { queue, messages } => {
            let messages: Vec<_> = messages.iter().map(|(offset, id)| format!("[{offset} {id}]")).collect();
            format!("[[:poll {{{queue} [{}]}}]]", messages.join(" "))
        }
        Value::Register { key, value } => {
            format!("[{key} {}]", value.map_or("nil".into(), |value| value.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_written_as_jepsen_reads_it() {
        let histories = Histories::new();
        let mut process = histories.process(Workload::Log);
        process.invoke("send", Value::Send { queue: 1, id: 7, offset: None }, Some(2));
        histories.nemesis("kill", "n0".into());
        process.end(Kind::Info, "send", Value::Send { queue: 1, id: 7, offset: None }, Some(2));
        process.invoke("poll", Value::None, None);
        process.end(Kind::Ok, "poll", Value::Poll { queue: 1, messages: vec![(0, 7)] }, None);
        let mut other = histories.process(Workload::Kv);
        other.end(Kind::Ok, "read", Value::Register { key: 1, value: None }, None);
        let text = histories.edn(Workload::Log);
        let lines: Vec<_> = text.lines().map(|line| line.split(", :time").next().unwrap()).collect();
        assert_eq!(
            lines,
            [
                "{:index 0, :type :invoke, :process 0, :f :send, :value [[:send 1 7]]",
                "{:index 1, :type :info, :process :nemesis, :f :kill, :value \"n0\"",
                "{:index 2, :type :info, :process 0, :f :send, :value [[:send 1 7]]",
                "{:index 3, :type :invoke, :process 1, :f :poll, :value nil",
                "{:index 4, :type :ok, :process 1, :f :poll, :value [[:poll {1 [[0 7]]}]]",
            ]
        );
        assert!(text.lines().next().unwrap().ends_with(", :node \"n2\"}"));
    }
}
