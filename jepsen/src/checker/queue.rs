//! A total queue: what went in comes out.

use std::collections::{HashMap, HashSet};

use super::Findings;
use crate::history::{Kind, Op, Value};

/// A stock producer sends a message once more, twice at most, when an attempt failed.
const ATTEMPTS_MAX: usize = 3;

/// What was counted.
#[derive(Debug, Default, Clone, Copy, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Counts {
    pub(crate) acknowledged: usize,
    pub(crate) unknown: usize,
    pub(crate) recovered: usize,
    pub(crate) consumed: usize,
    /// Messages that are in a queue more often than once, as their producer may have sent them again.
    pub(crate) sent_again: usize,
}

/// `drained` is what all queues hold at the end.
pub(crate) fn check(ops: &[Op], drained: &[u64], findings: &mut Findings) -> Counts {
    let mut counts = Counts::default();
    let mut sent: HashMap<u64, Kind> = HashMap::new();
    let mut consumed = HashSet::new();
    for op in ops {
        let Value::Element(id) = op.value else { continue };
        match op.f {
            "enqueue" => {
                sent.insert(id, op.kind);
            }
            "dequeue" if op.kind == Kind::Ok => {
                consumed.insert(id);
                counts.consumed += 1;
            }
            _ => {}
        }
    }
    let mut there: HashMap<u64, usize> = HashMap::new();
    drained.iter().for_each(|id| *there.entry(*id).or_default() += 1);
    for id in consumed.iter().chain(there.keys()) {
        if !sent.contains_key(id) {
            findings.add("phantom", format!("{id} was never sent"));
        }
    }
    for id in consumed.iter().filter(|id| !there.contains_key(id)) {
        findings.add("aborted read", format!("{id} was consumed and is not there"));
    }
    for (id, count) in there.iter().filter(|(_, count)| **count > 1) {
        if *count > ATTEMPTS_MAX {
            findings.add("duplicate by the broker", format!("{id} is there {count} times"));
        } else {
            counts.sent_again += 1;
        }
    }
    for (id, kind) in &sent {
        match kind {
            Kind::Ok => {
                counts.acknowledged += 1;
                if !there.contains_key(id) {
                    findings.add("lost", format!("{id} was acknowledged"));
                } else if !consumed.contains(id) {
                    findings.add("not delivered", format!("{id} is there, and no consumer got it"));
                }
            }
            _ => {
                counts.unknown += 1;
                counts.recovered += usize::from(there.contains_key(id));
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn op(kind: Kind, f: &'static str, id: u64) -> Op {
        let value = Value::Element(id);
        Op { index: 0, kind, process: Some(0), f, value, time: Duration::ZERO, node: None }
    }

    fn anomalies(ops: &[Op], drained: &[u64]) -> Vec<&'static str> {
        let mut findings = Findings::default();
        check(ops, drained, &mut findings);
        findings.0.into_keys().collect()
    }

    #[test]
    fn what_went_in_comes_out() {
        let ops = [op(Kind::Ok, "enqueue", 1), op(Kind::Info, "enqueue", 2), op(Kind::Ok, "dequeue", 1)];
        assert_eq!(anomalies(&ops, &[1]), Vec::<&str>::new());
        assert_eq!(anomalies(&ops, &[1, 1, 2]), Vec::<&str>::new());
        assert_eq!(anomalies(&ops[..1], &[1]), ["not delivered"]);
        assert_eq!(anomalies(&ops[..2], &[]), ["lost"]);
        assert_eq!(anomalies(&ops, &[]), ["aborted read", "lost"]);
        assert_eq!(anomalies(&ops, &[1, 3]), ["phantom"]);
        assert_eq!(anomalies(&ops, &[1, 1, 1, 1]), ["duplicate by the broker"]);
    }
}
