//! Terms and routes: one leader a term, and name servers that follow the terms.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Findings;
use crate::history::{Kind, Op, Value};

/// How late a route may be.
const ROUTE_LIMIT: Duration = Duration::from_secs(2);

/// What a replica said of itself at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) time: Duration,
    pub(crate) node: usize,
    pub(crate) term: u64,
    pub(crate) leads: bool,
    pub(crate) committed: u64,
    pub(crate) applied: u64,
    pub(crate) last: u64,
    /// The process, so that a restart is seen.
    pub(crate) pid: u32,
}

/// What was counted.
#[derive(Debug, Default, Clone, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Counts {
    pub(crate) terms: usize,
    pub(crate) leader_changes: usize,
    /// Seconds from when a replica was first seen to lead to when each name server said so.
    pub(crate) route_delays: Vec<f64>,
}

/// Returns who led in each term, by what the replicas printed, and when it was first seen to lead.
pub(crate) fn leaders(
    printed: &[(u64, usize)],
    samples: &[Sample],
) -> BTreeMap<u64, (usize, Option<Duration>)> {
    let mut leaders: BTreeMap<_, _> =
        printed.iter().map(|(term, node)| (*term, (*node, None::<Duration>))).collect();
    for sample in samples.iter().filter(|sample| sample.leads) {
        let (_, since) = leaders.entry(sample.term).or_insert((sample.node, None));
        since.get_or_insert(sample.time);
    }
    leaders
}

/// `printed` is who led in which term, by what the replicas say in their logs.
pub(crate) fn check(
    printed: &[(u64, usize)],
    samples: &[Sample],
    ops: &[Op],
    namesrvs: usize,
    findings: &mut Findings,
) -> Counts {
    let mut by_term: BTreeMap<u64, BTreeSet<usize>> = BTreeMap::new();
    for (term, node) in printed {
        by_term.entry(*term).or_default().insert(*node);
    }
    let mut last: BTreeMap<usize, &Sample> = BTreeMap::new();
    // One that has just started does not say yet.
    for sample in samples.iter().filter(|sample| sample.term > 0) {
        if sample.leads {
            by_term.entry(sample.term).or_default().insert(sample.node);
        }
        if let Some(before) = last.insert(sample.node, sample) {
            if sample.term < before.term {
                let text = format!("n{}: {} after {}", sample.node, sample.term, before.term);
                findings.add("term went back", text);
            }
            if sample.pid == before.pid && sample.committed < before.committed {
                let text = format!("n{}: {} after {}", sample.node, sample.committed, before.committed);
                findings.add("commit went back", text);
            }
        }
        if sample.applied > sample.committed || sample.committed > sample.last {
            findings.add("applied, committed and last entry are not in order", format!("{sample:?}"));
        }
    }
    for (term, nodes) in &by_term {
        if nodes.len() > 1 {
            findings.add("two leaders in one term", format!("term {term}: {nodes:?}"));
        }
    }
    let leaders = leaders(printed, samples);
    let mut counts =
        Counts { terms: leaders.len(), leader_changes: leaders.len().saturating_sub(1), ..Counts::default() };
    for namesrv in 0..namesrvs {
        check_namesrv(&leaders, ops, namesrv, &mut counts, findings);
    }
    counts
}

/// A name server's masters must be the leaders in the order of their terms; some may be left out.
fn check_namesrv(
    leaders: &BTreeMap<u64, (usize, Option<Duration>)>,
    ops: &[Op],
    namesrv: usize,
    counts: &mut Counts,
    findings: &mut Findings,
) {
    let mut known = 0;
    for op in ops.iter().filter(|op| op.kind == Kind::Ok && op.node == u32::try_from(namesrv).ok()) {
        let Value::Element(master) = op.value else { continue };
        let next = leaders.range(known + 1..).find(|(_, (node, _))| *node as u64 == master);
        match next {
            Some((term, (_, since))) => {
                known = *term;
                if let Some(since) = since {
                    counts.route_delays.push(op.time.saturating_sub(*since).as_secs_f64());
                }
            }
            None => findings.add(
                "route went back",
                format!("s{namesrv} says n{master} at {:.1} s, after term {known}", op.time.as_secs_f64()),
            ),
        }
    }
}

/// How late a route may be, in seconds.
pub(crate) fn limit() -> f64 {
    ROUTE_LIMIT.as_secs_f64()
}
