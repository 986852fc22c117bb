//! Progress: as long as a majority is well, somebody is acknowledged every few seconds.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Findings;
use crate::history::Kind;
use crate::nemesis::Window;

/// How long nobody may be acknowledged while a majority is well.
pub(crate) const STALL_MAX: f64 = 10.0;

/// Seconds from the begin of each fault that hit the leader to the first acknowledgement of a send that began after it.
pub(crate) fn recovery_times(sends: &[(f64, f64)], windows: &[Window]) -> Vec<(crate::plan::Kind, f64)> {
    let hit = windows.iter().filter(|window| window.hit_leader && window.ineffective.is_none());
    hit.filter_map(|window| {
        let first = sends.iter().filter(|(began, _)| *began >= window.start).map(|(_, acked)| *acked);
        let first = first.min_by(f64::total_cmp)?;
        Some((window.fault.kind, first - window.start))
    })
    .collect()
}

/// Returns when each acknowledged send began and was acknowledged, of sends that ended at a time, took so long and ended
/// so; in seconds.
pub(crate) fn acknowledged(sends: &[(f64, f64, Kind)]) -> Vec<(f64, f64)> {
    let acked = sends.iter().filter(|(.., kind)| *kind == Kind::Ok);
    acked.map(|(at, took, _)| (at - took, *at)).collect()
}

pub(crate) fn check(
    sends: &[(f64, f64)],
    windows: &[Window],
    voters: usize,
    from: Duration,
    to: Duration,
    findings: &mut Findings,
) -> f64 {
    let mut times: Vec<f64> = sends.iter().map(|(_, acked)| *acked).collect();
    times.push(from.as_secs_f64());
    times.push(to.as_secs_f64());
    times.sort_by(f64::total_cmp);
    let mut longest = 0.0;
    for pair in times.windows(2) {
        let (start, stop) = (pair[0], pair[1]);
        if start < from.as_secs_f64() || stop > to.as_secs_f64() {
            continue;
        }
        let well = longest_well(start, stop, windows, voters);
        longest = f64::max(longest, well);
        if well > STALL_MAX {
            let faults: Vec<_> = windows
                .iter()
                .filter(|window| window.start < stop && window.stop > start)
                .map(|window| format!("{} {}", window.fault.kind.name(), window.text))
                .collect();
            findings.add(
                "stalled",
                format!("nobody was acknowledged from {start:.1} to {stop:.1} s: {}", faults.join("; ")),
            );
        }
    }
    longest
}

/// Returns the longest part of a time in which a majority was well throughout.
fn longest_well(start: f64, stop: f64, windows: &[Window], voters: usize) -> f64 {
    let mut borders = vec![start, stop];
    for window in windows {
        borders.extend([window.start, window.stop].into_iter().filter(|at| *at > start && *at < stop));
    }
    borders.sort_by(f64::total_cmp);
    let (mut longest, mut since) = (0.0, None);
    for pair in borders.windows(2) {
        let impaired: BTreeSet<usize> = windows
            .iter()
            .filter(|window| window.start < pair[1] && window.stop > pair[0])
            .flat_map(|window| window.impaired.iter().copied().filter(|node| *node < voters))
            .collect();
        if impaired.len() <= (voters - 1) / 2 {
            let begin = *since.get_or_insert(pair[0]);
            longest = f64::max(longest, pair[1] - begin);
        } else {
            since = None;
        }
    }
    longest
}
