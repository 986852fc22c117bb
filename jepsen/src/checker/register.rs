//! Linearizability of registers: is there an order of all operations, each at a moment between its begin and its end,
//! in which every read returns what was written last?
//!
//! The search of Wing and Gong with the memory of Lowe, for each key on its own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::Findings;
use crate::history::{Kind, Op, Value};

/// How long the search for one key may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What was counted.
#[derive(Debug, Default, Clone, Copy, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Counts {
    pub(crate) keys: usize,
    pub(crate) reads: usize,
    pub(crate) writes: usize,
    /// Writes of which nobody said how they ended.
    pub(crate) unknown: usize,
    /// Keys for which the search took too long. A run with one of them has not passed.
    pub(crate) undecided: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Write(i64),
    Read(Option<i64>),
}

/// An operation: what, from when to when, in indexes of the history.
#[derive(Debug, Clone, Copy)]
struct Call {
    action: Action,
    begin: u64,
    /// `u64::MAX` if it may still happen.
    end: u64,
}

pub(crate) fn check(ops: &[Op], findings: &mut Findings) -> Counts {
    let mut counts = Counts::default();
    for (key, calls) in calls_by_key(ops) {
        counts.keys += 1;
        for call in &calls {
            match call.action {
                Action::Read(_) => counts.reads += 1,
                Action::Write(_) => counts.writes += 1,
            }
            counts.unknown += usize::from(call.end == u64::MAX);
        }
        match is_linearizable(&calls, LIMIT) {
            Some(true) => {}
            Some(false) => findings.add("not linearizable", format!("key {key}: {calls:?}")),
            None => counts.undecided += 1,
        }
    }
    counts
}

fn calls_by_key(ops: &[Op]) -> BTreeMap<u64, Vec<Call>> {
    let mut open: HashMap<u32, u64> = HashMap::new();
    let mut calls: BTreeMap<u64, Vec<Call>> = BTreeMap::new();
    let mut pending: BTreeMap<u32, (u64, Option<i64>, bool)> = BTreeMap::new();
    for op in ops {
        let (Some(process), Value::Register { key, value }) = (op.process, &op.value) else { continue };
        if op.kind == Kind::Invoke {
            open.insert(process, op.index);
            pending.insert(process, (*key, *value, op.f == "write"));
            continue;
        }
        pending.remove(&process);
        let Some(begin) = open.remove(&process) else { continue };
        let (action, end) = match (op.f, op.kind) {
            ("read", Kind::Ok) => (Action::Read(*value), op.index),
            ("write", Kind::Ok) => (Action::Write(value.unwrap_or(0)), op.index),
            ("write", Kind::Info) => (Action::Write(value.unwrap_or(0)), u64::MAX),
            _ => continue,
        };
        calls.entry(*key).or_default().push(Call { action, begin, end });
    }
    // Those that were cut off by the end of the run may have happened as well.
    for (process, (key, value, is_write)) in pending {
        if let (true, Some(value), Some(begin)) = (is_write, value, open.get(&process)) {
            let call = Call { action: Action::Write(value), begin: *begin, end: u64::MAX };
            calls.entry(key).or_default().push(call);
        }
    }
    calls
}

/// `None` if it took too long.
fn is_linearizable(calls: &[Call], limit: Duration) -> Option<bool> {
    let mut calls = calls.to_vec();
    // An unknown write whose value nobody read has no effect that anybody could tell: it is as if it had not happened.
    let read: HashSet<i64> = calls
        .iter()
        .filter_map(|call| if let Action::Read(value) = call.action { value } else { None })
        .collect();
    calls.retain(|call| match call.action {
        Action::Write(value) => call.end != u64::MAX || read.contains(&value),
        Action::Read(_) => true,
    });
    calls.sort_by_key(|call| call.begin);
    let deadline = Instant::now() + limit;
    let mut done = vec![0u64; calls.len().div_ceil(64)];
    let mut seen: HashSet<(Vec<u64>, Option<i64>)> = HashSet::new();
    // Each level: which call was taken, and the value before it.
    let mut stack: Vec<(usize, Option<i64>)> = Vec::new();
    let (mut state, mut next, mut steps) = (None, 0, 0u32);
    loop {
        if calls.iter().enumerate().all(|(at, call)| has(&done, at) || call.end == u64::MAX) {
            return Some(true);
        }
        steps += 1;
        if steps.is_multiple_of(1024) && Instant::now() > deadline {
            return None;
        }
        match take_next(&calls, &done, state, next) {
            Some((at, after)) => {
                set(&mut done, at, true);
                if seen.insert((done.clone(), after)) {
                    stack.push((at, state));
                    state = after;
                    next = 0;
                } else {
                    set(&mut done, at, false);
                    next = at + 1;
                }
            }
            None => {
                let Some((at, before)) = stack.pop() else { return Some(false) };
                set(&mut done, at, false);
                state = before;
                next = at + 1;
            }
        }
    }
}

/// Returns the first call from `next` on that may come now, and the value after it.
fn take_next(calls: &[Call], done: &[u64], state: Option<i64>, next: usize) -> Option<(usize, Option<i64>)> {
    let open = || calls.iter().enumerate().filter(|(at, _)| !has(done, *at));
    // Whatever ended before another one began comes before it.
    let first_end = open().map(|(_, call)| call.end).min()?;
    let now = || open().take_while(|(_, call)| call.begin < first_end);
    // A write that may never have happened is of use only if it is read at once: else it is as if it had not happened
    // yet. Without this many of them would take for ever.
    let is_read_now = |value| now().any(|(_, call)| call.action == Action::Read(Some(value)));
    now().skip_while(|(at, _)| *at < next).find_map(|(at, call)| match call.action {
        Action::Write(value) => (call.end != u64::MAX || is_read_now(value)).then_some((at, Some(value))),
        Action::Read(value) => (value == state).then_some((at, state)),
    })
}

fn has(bits: &[u64], at: usize) -> bool {
    bits[at / 64] & (1 << (at % 64)) != 0
}

fn set(bits: &mut [u64], at: usize, to: bool) {
    if to {
        bits[at / 64] |= 1 << (at % 64);
    } else {
        bits[at / 64] &= !(1 << (at % 64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOREVER: u64 = u64::MAX;

    fn write(value: i64, begin: u64, end: u64) -> Call {
        Call { action: Action::Write(value), begin, end }
    }

    fn read(value: impl Into<Option<i64>>, begin: u64, end: u64) -> Call {
        Call { action: Action::Read(value.into()), begin, end }
    }

    fn verdict(calls: &[Call]) -> bool {
        is_linearizable(calls, LIMIT).unwrap()
    }

    #[test]
    fn registers_are_judged() {
        assert!(verdict(&[]));
        assert!(verdict(&[read(None, 0, 1), write(1, 2, 3), read(1, 4, 5)]));
        assert!(!verdict(&[write(1, 0, 1), read(None, 2, 3)]), "a stale read");
        assert!(!verdict(&[write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)]), "a stale read");
        assert!(verdict(&[write(1, 0, 10), read(None, 1, 2), read(1, 3, 4)]), "it took effect in between");
        assert!(!verdict(&[write(1, 0, 10), read(1, 1, 2), read(None, 3, 4)]), "it does not go back");
        assert!(verdict(&[write(1, 0, 5), write(2, 1, 6), read(2, 7, 8)]));
        assert!(verdict(&[write(1, 0, 5), write(2, 1, 6), read(1, 7, 8)]));
        assert!(!verdict(&[write(1, 0, 5), write(2, 1, 6), read(1, 7, 8), read(2, 9, 10)]));
        assert!(verdict(&[write(1, 0, FOREVER), write(2, 1, 2), read(2, 3, 4), read(1, 5, 6)]), "late");
        assert!(verdict(&[write(1, 0, FOREVER), write(2, 1, 2), read(2, 3, 4)]), "or never");
        assert!(!verdict(&[write(1, 5, FOREVER), read(1, 1, 2)]), "read before it was written");
    }

    #[test]
    fn many_unknown_writes_are_decided() {
        let mut calls: Vec<_> = (0..40).map(|n| write(n, n as u64, FOREVER)).collect();
        calls.extend((0..40).map(|n| read(n, 100 + 2 * n as u64, 101 + 2 * n as u64)));
        assert!(verdict(&calls));
        calls.push(read(0, 300, 301));
        assert!(!verdict(&calls));
    }
}
