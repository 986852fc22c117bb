//! A total queue: what went in comes out.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

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
    /// Those that may have been deleted, as all disks were full.
    pub(crate) expired: usize,
}

/// What all queues hold at the end.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    pub(crate) ids: Vec<u64>,
    /// The first messages of some queue are not there any more.
    pub(crate) shortened: bool,
}

/// A message that was sent: when first, how it ended, and when.
struct Sent {
    begin: Duration,
    kind: Kind,
    end: Duration,
}

pub(crate) fn check(ops: &[Op], drained: &Drained, findings: &mut Findings) -> Counts {
    let mut counts = Counts::default();
    let mut sent: HashMap<u64, Sent> = HashMap::new();
    let mut consumed = HashSet::new();
    for op in ops {
        let Value::Element(id) = op.value else { continue };
        match op.f {
            "enqueue" => {
                let one = sent.entry(id).or_insert(Sent { begin: op.time, kind: op.kind, end: op.time });
                (one.kind, one.end) = (op.kind, op.time);
            }
            "dequeue" if op.kind == Kind::Ok => {
                consumed.insert(id);
                counts.consumed += 1;
            }
            _ => {}
        }
    }
    let mut there: HashMap<u64, usize> = HashMap::new();
    drained.ids.iter().for_each(|id| *there.entry(*id).or_default() += 1);
    // Segments go from the first on, and what was sent after a message was acknowledged stands behind it.
    let acked = there.keys().filter_map(|id| sent.get(id)).filter(|sent| sent.kind == Kind::Ok);
    let retained = acked.map(|sent| sent.end).min();
    let is_expired = |id: &u64| {
        let before = |sent: &Sent| retained.is_none_or(|retained| sent.begin <= retained);
        drained.shortened && sent.get(id).is_some_and(before)
    };
    for id in consumed.iter().chain(there.keys()) {
        if !sent.contains_key(id) {
            findings.add("phantom", format!("{id} was never sent"));
        }
    }
    for id in consumed.iter().filter(|id| !there.contains_key(id) && !is_expired(id)) {
        findings.add("aborted read", format!("{id} was consumed and is not there"));
    }
    for (id, count) in there.iter().filter(|(_, count)| **count > 1) {
        if *count > ATTEMPTS_MAX {
            findings.add("duplicate by the broker", format!("{id} is there {count} times"));
        } else {
            counts.sent_again += 1;
        }
    }
    for (id, message) in &sent {
        match message.kind {
            Kind::Ok => {
                counts.acknowledged += 1;
                if is_expired(id) && !there.contains_key(id) {
                    counts.expired += 1;
                } else if !there.contains_key(id) {
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
    use super::*;

    fn op(kind: Kind, f: &'static str, id: u64) -> Op {
        let value = Value::Element(id);
        Op { index: 0, kind, process: Some(0), f, value, time: Duration::from_secs(id), node: None }
    }

    fn anomalies_of(ops: &[Op], ids: &[u64], shortened: bool) -> Vec<&'static str> {
        let mut findings = Findings::default();
        check(ops, &Drained { ids: ids.to_vec(), shortened }, &mut findings);
        findings.0.into_keys().collect()
    }

    fn anomalies(ops: &[Op], ids: &[u64]) -> Vec<&'static str> {
        anomalies_of(ops, ids, false)
    }

    #[test]
    fn what_full_disks_took_is_not_lost() {
        let ops: Vec<_> =
            (1..6).flat_map(|id| [op(Kind::Ok, "enqueue", id), op(Kind::Ok, "dequeue", id)]).collect();
        assert_eq!(anomalies_of(&ops, &[3, 4, 5], true), Vec::<&str>::new());
        assert_eq!(anomalies_of(&ops, &[3, 5], true), ["aborted read", "lost"]);
        assert_eq!(anomalies_of(&ops, &[3, 4, 5], false), ["aborted read", "lost"]);
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
