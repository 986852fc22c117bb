//! Ordered keys with offsets: sends, polls, and what every replica has at the end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::Findings;
use crate::history::{Kind, Op, Value};
use crate::workload::log::DAMAGED;

/// What a replica has at the end: for each queue offsets and ids.
pub(crate) type Stored = Vec<Vec<(u64, u64)>>;

/// What was counted.
#[derive(Debug, Default, Clone, Copy, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Counts {
    pub(crate) acknowledged: usize,
    /// Sends of which nobody said how they ended.
    pub(crate) unknown: usize,
    pub(crate) refused: usize,
    /// Of the unknown ones, those that are there.
    pub(crate) recovered: usize,
    pub(crate) polled: usize,
    /// Acknowledged, and below what any replica retains.
    pub(crate) expired: usize,
}

pub(crate) fn check(ops: &[Op], replicas: &[(usize, Stored)], findings: &mut Findings) -> Counts {
    let mut counts = Counts::default();
    let mut sent: HashMap<u64, (Kind, u32, Option<u64>)> = HashMap::new();
    for op in ops.iter().filter(|op| op.f == "send") {
        let Value::Send { queue, id, offset } = op.value else { continue };
        sent.insert(id, (op.kind, queue, offset));
    }
    let by_queue = final_values(replicas, findings);
    let mut there: HashMap<u64, usize> = HashMap::new();
    for (queue, values) in by_queue.iter().enumerate() {
        for (offset, id) in values {
            *there.entry(*id).or_default() += 1;
            match sent.get(id) {
                None => findings.add("phantom", format!("queue {queue} offset {offset}: {}", name(*id))),
                Some((Kind::Fail, ..)) => {
                    findings.add("refused and there", format!("queue {queue} offset {offset}: {id}"));
                }
                Some((_, of, _)) if *of as usize != queue => {
                    findings.add("in another queue", format!("{id} of queue {of} is in queue {queue}"));
                }
                Some(_) => {}
            }
        }
    }
    for (id, count) in &there {
        // Every id was sent once.
        if *count > 1 {
            findings.add("duplicate by the broker", format!("{id} is there {count} times"));
        }
    }
    for (id, (kind, queue, offset)) in &sent {
        match kind {
            Kind::Ok => {
                counts.acknowledged += 1;
                let Some(offset) = offset else { continue };
                let values = &by_queue[*queue as usize];
                let is_expired = values.first_key_value().is_some_and(|(first, _)| first > offset);
                match values.get(offset) {
                    Some(found) if found == id => {}
                    // Deleted everywhere, as when all disks were full.
                    None if is_expired => counts.expired += 1,
                    found => {
                        let what = if there.contains_key(id) { "misplaced" } else { "lost" };
                        findings.add(
                            what,
                            format!(
                                "{id} was acknowledged at queue {queue} offset {offset}; there is {found:?}"
                            ),
                        );
                    }
                }
            }
            Kind::Fail => counts.refused += 1,
            Kind::Info | Kind::Invoke => {
                counts.unknown += 1;
                counts.recovered += usize::from(there.contains_key(id));
            }
        }
    }
    check_order(ops, findings);
    counts.polled = check_polls(ops, &by_queue, findings);
    counts
}

/// Returns what stands in each queue; replicas must agree, and there must be no holes.
fn final_values(replicas: &[(usize, Stored)], findings: &mut Findings) -> Vec<BTreeMap<u64, u64>> {
    let queues = replicas.first().map_or(0, |(_, stored)| stored.len());
    let mut all = vec![BTreeMap::new(); queues];
    let mut ends: Vec<HashSet<Option<u64>>> = vec![HashSet::new(); queues];
    for (node, stored) in replicas {
        for (queue, messages) in stored.iter().enumerate() {
            for pair in messages.windows(2) {
                if pair[1].0 != pair[0].0 + 1 {
                    let text = format!("n{node} queue {queue}: {} follows {}", pair[1].0, pair[0].0);
                    findings.add("hole", text);
                }
            }
            for (offset, id) in messages {
                let known = *all[queue].entry(*offset).or_insert(*id);
                if known != *id {
                    let text = format!("n{node} queue {queue} offset {offset}: {id}, elsewhere {known}");
                    findings.add("two values at one offset", text);
                }
            }
            ends[queue].insert(messages.last().map(|(offset, _)| *offset));
        }
    }
    for (queue, ends) in ends.iter().enumerate() {
        if ends.len() > 1 {
            findings.add("replicas end differently", format!("queue {queue}: last offsets {ends:?}"));
        }
    }
    all
}

/// A sender sends one message after the other, so their offsets go up.
fn check_order(ops: &[Op], findings: &mut Findings) {
    let mut last: HashMap<u32, (u64, u64)> = HashMap::new();
    for op in ops.iter().filter(|op| op.f == "send" && op.kind == Kind::Ok) {
        let Value::Send { queue, id, offset: Some(offset) } = op.value else { continue };
        if let Some((before, at)) = last.insert(queue, (id, offset))
            && at >= offset
        {
            findings.add("reordered", format!("{id} at {offset} was sent after {before} at {at}"));
        }
    }
}

/// What was read must be what stands there at the end, and must not have been read before it was sent.
fn check_polls(ops: &[Op], by_queue: &[BTreeMap<u64, u64>], findings: &mut Findings) -> usize {
    let mut polled = 0;
    let mut begun: HashMap<u64, Duration> = HashMap::new();
    let mut last: HashMap<(Option<u32>, u32), u64> = HashMap::new();
    for op in ops {
        if let (Kind::Invoke, Value::Send { id, .. }) = (op.kind, &op.value) {
            begun.insert(*id, op.time);
        }
        let (Kind::Ok, Value::Poll { queue, messages }) = (op.kind, &op.value) else { continue };
        polled += messages.len();
        for (offset, id) in messages {
            if let Some(before) = last.insert((op.node, *queue), *offset)
                && *offset != before + 1
            {
                let text = format!("{:?} queue {queue}: {offset} was read after {before}", op.node);
                findings.add("nonmonotonic poll", text);
            }
            if *id == DAMAGED {
                findings.add("damaged", format!("{:?} queue {queue} offset {offset}", op.node));
            } else if !begun.contains_key(id) {
                findings.add("phantom", format!("queue {queue} offset {offset}: {id} was never sent"));
            }
            let values = &by_queue[*queue as usize];
            match values.get(offset) {
                Some(found) if found == id => {}
                // Deleted since, by its age.
                None if values.first_key_value().is_some_and(|(first, _)| first > offset) => {}
                found => findings.add(
                    "aborted read",
                    format!(
                        "{:?} queue {queue} offset {offset}: {id} was read, in the end {found:?}",
                        op.node
                    ),
                ),
            }
        }
    }
    polled
}

fn name(id: u64) -> String {
    if id == DAMAGED { "a damaged body".into() } else { id.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(index: u64, kind: Kind, f: &'static str, value: Value) -> Op {
        Op { index, kind, process: Some(0), f, value, time: Duration::from_millis(index), node: Some(0) }
    }

    fn send(index: u64, id: u64, kind: Kind, offset: Option<u64>) -> [Op; 2] {
        [
            op(index, Kind::Invoke, "send", Value::Send { queue: 0, id, offset: None }),
            op(index + 1, kind, "send", Value::Send { queue: 0, id, offset }),
        ]
    }

    fn poll(index: u64, messages: &[(u64, u64)]) -> Op {
        op(index, Kind::Ok, "poll", Value::Poll { queue: 0, messages: messages.to_vec() })
    }

    fn anomalies(ops: &[Op], replicas: &[&[(u64, u64)]]) -> Vec<&'static str> {
        let replicas: Vec<_> =
            replicas.iter().enumerate().map(|(node, stored)| (node, vec![stored.to_vec()])).collect();
        let mut findings = Findings::default();
        check(ops, &replicas, &mut findings);
        findings.0.into_keys().collect()
    }

    #[test]
    fn a_good_history_has_no_anomalies() {
        let mut ops = send(0, 8, Kind::Ok, Some(0)).to_vec();
        ops.extend(send(2, 16, Kind::Info, None));
        ops.extend(send(4, 24, Kind::Fail, None));
        ops.extend(send(6, 32, Kind::Ok, Some(2)));
        ops.push(poll(9, &[(0, 8), (1, 16)]));
        ops.push(poll(10, &[(2, 32)]));
        let stored: &[(u64, u64)] = &[(0, 8), (1, 16), (2, 32)];
        assert_eq!(anomalies(&ops, &[stored, stored]), Vec::<&str>::new());
    }

    #[test]
    fn each_anomaly_is_found() {
        let good: &[(u64, u64)] = &[(0, 8), (1, 16)];
        let mut ops = send(0, 8, Kind::Ok, Some(0)).to_vec();
        ops.extend(send(2, 16, Kind::Ok, Some(1)));
        assert_eq!(anomalies(&ops, &[&good[..1], &good[..1]]), ["lost"]);
        assert_eq!(anomalies(&ops, &[good, &good[..1]]), ["replicas end differently"]);
        assert_eq!(anomalies(&ops, &[&[(0, 16), (1, 8)]]), ["misplaced"]);
        assert_eq!(anomalies(&ops, &[&[(0, 8), (1, 16), (2, 16)]]), ["duplicate by the broker"]);
        assert_eq!(anomalies(&ops, &[&[(0, 8), (1, 16), (2, 99)]]), ["phantom"]);
        assert_eq!(anomalies(&ops, &[&[(0, 8), (1, 16), (3, 24)]]), ["hole", "phantom"]);
        assert_eq!(
            anomalies(&[ops.clone(), vec![poll(5, &[(0, 8), (1, 8)])]].concat(), &[good]),
            ["aborted read"]
        );
        assert_eq!(
            anomalies(&[ops.clone(), vec![poll(5, &[(1, 16)]), poll(6, &[(0, 8)])]].concat(), &[good]),
            ["nonmonotonic poll"]
        );
        assert_eq!(
            anomalies(
                &[ops.clone(), send(6, 24, Kind::Fail, None).to_vec()].concat(),
                &[&[(0, 8), (1, 16), (2, 24)]]
            ),
            ["refused and there"]
        );
        let swapped = [send(0, 8, Kind::Ok, Some(1)), send(2, 16, Kind::Ok, Some(0))].concat();
        assert_eq!(anomalies(&swapped, &[&[(0, 16), (1, 8)]]), ["reordered"]);
        assert_eq!(
            anomalies(&ops, &[good, &[(0, 8), (1, 24)]]),
            ["phantom", "two values at one offset"].into_iter().skip(1).collect::<Vec<_>>()
        );
    }
}
