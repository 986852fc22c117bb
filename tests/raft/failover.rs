//! The leader is killed, paused, or cut off under load: another one takes over, nothing acknowledged is lost, and the old
//! one gives no answer of the past when it comes back.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::figures::{self, Times};
use super::group::RaftGroup;
use super::load::Load;
use super::net::{Cut, Net};
use super::verify::Report;
use super::watch::{ReadWatch, RouteWatch};
use super::{alone, files, rounds};

/// How long a leader is paused.
const PAUSE: Duration = Duration::from_secs(3);
/// How long a leader is cut off.
const CUT: Duration = Duration::from_millis(2500);

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Pause,
    Cut(&'static [Cut]),
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_leader_is_killed() {
    let _alone = alone().await;
    survive(RaftGroup::start(&[]).await, Fault::Kill, rounds("QUORATE_KILLS", 5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_leader_is_paused() {
    let _alone = alone().await;
    survive(RaftGroup::start(&[]).await, Fault::Pause, rounds("QUORATE_PAUSES", 2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_leader_is_cut_off() {
    let _alone = alone().await;
    let Some(net) = Net::make() else { return };
    let group = RaftGroup::start_in(Some(net), &[]).await;
    let cuts = &[Cut::FromReplicas, Cut::FromAll, Cut::Refused, Cut::Deaf, Cut::Mute];
    survive(group, Fault::Cut(cuts), rounds("QUORATE_PARTITIONS", 3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_all_replicas_are_killed_at_once() {
    let _alone = alone().await;
    let mut group = RaftGroup::start(&[]).await;
    let load = Load::start(&group).await;
    let (mut first_acks, start) = (Times::default(), Instant::now());
    for _ in 0..rounds("QUORATE_KILLS", 2) {
        load.ledger.grown_by(300).await;
        (0..3).for_each(|replica| group.kill(replica));
        let killed = Instant::now();
        (0..3).for_each(|replica| group.spawn(replica));
        first_acks.push(load.ledger.first_ack_after(killed).await);
        group.healthy().await;
    }
    let pause = load.ledger.longest_pause_since(start);
    let report = finish(&mut group, load).await;
    figures::print("all killed", &first_acks, &Times::default(), pause, &report);
    assert_clean(&report, &group);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_follower_fails_no_send() {
    let _alone = alone().await;
    let mut group = RaftGroup::start(&[]).await;
    let load = Load::start(&group).await;
    let start = Instant::now();
    for _ in 0..rounds("QUORATE_KILLS", 2) {
        let follower = (group.healthy().await + 1) % 3;
        group.kill(follower);
        load.ledger.grown_by(300).await;
        group.restart(follower).await;
    }
    group.healthy().await;
    let pause = load.ledger.longest_pause_since(start);
    let report = finish(&mut group, load).await;
    figures::print("follower killed", &Times::default(), &Times::default(), pause, &report);
    assert_clean(&report, &group);
    assert_eq!(report.failed, 0, "sends failed");
}

async fn survive(mut group: RaftGroup, fault: Fault, rounds: usize) {
    let load = Load::start(&group).await;
    let routes = RouteWatch::start(&group);
    let reads = ReadWatch::start(&group, &load.ledger);
    let mut random = fastrand::Rng::new();
    let (mut first_acks, mut new_routes, mut longest) = (Times::default(), Times::default(), Duration::ZERO);
    for round in 0..rounds {
        group.healthy().await;
        load.ledger.grown_by(50).await;
        // A random moment of the load, not a wait for a condition.
        tokio::time::sleep(Duration::from_millis(random.u64(0..300))).await;
        let leader = group.leader().await;
        let old = group.replicas[leader].address.to_string();
        let mut start = Instant::now();
        match fault {
            Fault::Kill => group.kill(leader),
            Fault::Pause => group.pause(leader),
            Fault::Cut(cuts) => {
                let net = group.net.as_ref().expect("hosts that can be cut off");
                net.cut(leader, cuts[round % cuts.len()]);
                start = Instant::now();
            }
        }
        let first_ack = load.ledger.first_ack_after(start).await;
        let new_route = routes.left(&old, start).await;
        eprintln!(
            "{fault:?} {round}: n{leader}, first ack after {first_ack:?}, new route after {new_route:?}"
        );
        first_acks.push(first_ack);
        new_routes.push(new_route);
        match fault {
            Fault::Kill => group.restart(leader).await,
            Fault::Pause => {
                tokio::time::sleep_until(start + PAUSE).await;
                group.resume(leader);
            }
            Fault::Cut(_) => {
                tokio::time::sleep_until(start + CUT).await;
                group.net.as_ref().expect("hosts that can be cut off").heal(leader);
            }
        }
        longest = longest.max(load.ledger.longest_pause_since(start));
    }
    group.healthy().await;
    reads.end().await;
    let report = finish(&mut group, load).await;
    routes.end(&group.leaders());
    figures::print(&format!("{fault:?}"), &first_acks, &new_routes, longest, &report);
    assert_clean(&report, &group);
}

/// Ends the load, compares ledger and replicas, stops the group, and compares the files.
pub(crate) async fn finish(group: &mut RaftGroup, load: Load) -> Report {
    let ledger = load.stop().await;
    // What was sent to a host that was cut off may still arrive.
    let (report, end) = loop {
        let before = group.settled().await;
        let report = Report::of(group, &ledger).await;
        let end = group.settled().await;
        if end == before {
            break (report, end);
        }
    };
    eprintln!("{:?}", ledger.refusals());
    let running: Vec<_> = (0..group.replicas.len()).filter(|replica| group.is_running(*replica)).collect();
    group.terminate_all().await;
    let stores: Vec<&Path> = running.iter().map(|replica| group.replicas[*replica].store.as_path()).collect();
    files::assert_equal(&stores, end);
    report
}

pub(crate) fn assert_clean(report: &Report, group: &RaftGroup) {
    assert!(report.acked > 0 && report.is_clean(), "{report:#?}");
    let errors = group.errors();
    assert!(errors.is_empty(), "{errors:#?}");
}
