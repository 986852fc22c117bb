//! What operators do to a group under load: restarts, transfers of leadership, changes of the members, a lost disk.

use std::process::{Command as Process, Output};
use std::time::Duration;

use quorate::env::Disk;
use tokio::time::Instant;

use super::failover::{assert_clean, finish};
use super::figures::{self, Times};
use super::group::{GROUP, RaftGroup};
use super::load::{Load, TOPIC};
use super::watch::{ReadWatch, RouteWatch};
use super::{alone, rounds};
use crate::harness::{Outgoing, Peer, wait};

/// How long nobody may be acknowledged while the leadership moves because somebody wants it to.
const PLANNED_PAUSE_MAX: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_send() {
    let _alone = alone().await;
    let mut group = RaftGroup::start(&[]).await;
    let load = Load::start(&group).await;
    let routes = RouteWatch::start(&group);
    let reads = ReadWatch::start(&group, &load.ledger);
    let start = Instant::now();
    for round in 0..rounds("QUORATE_ROLLING", 1) {
        for replica in 0..3 {
            let began = Instant::now();
            group.terminate(replica).await;
            let stopped = began.elapsed();
            group.restart(replica).await;
            group.healthy().await;
            load.ledger.grown_by(50).await;
            let pause = load.ledger.longest_pause_since(began);
            eprintln!("round {round}: n{replica} stopped in {stopped:?}, longest pause {pause:?}");
        }
    }
    let pause = load.ledger.longest_pause_since(start);
    reads.end().await;
    let report = finish(&mut group, load).await;
    routes.end(&group.leaders());
    figures::print("rolling restart", &Times::default(), &Times::default(), pause, &report);
    assert_clean(&report, &group);
    assert_eq!(report.failed, 0, "sends failed");
    assert!(pause < PLANNED_PAUSE_MAX, "nobody was acknowledged for {pause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_serves_producers_until_they_know_the_new_one() {
    let mut group = RaftGroup::start(&["raftLeaveWaitMs=60000"]).await;
    let load = Load::start(&group).await;
    load.ledger.grown_by(1).await;
    load.stop().await;
    let old = group.healthy().await;
    // A stock producer: until its next look at the route it knows this address only.
    let producer = Peer::new(group.replicas[old].address);
    let send = async || {
        let message = Outgoing { topic: TOPIC, body: b"by an old route", ..Outgoing::default() };
        producer.call(message.v2()).await.code
    };
    assert_eq!(send().await, 0);
    group.begin_to_terminate(old);
    wait("a new leader", async || {
        assert_eq!(send().await, 0);
        let statuses = group.statuses().await;
        statuses.iter().any(|(replica, status)| *replica != old && status.state == "LEADER").then_some(())
    })
    .await;
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        assert_eq!(send().await, 0);
    }
    let silent = Instant::now();
    group.terminated(old).await;
    assert!(silent.elapsed() < Duration::from_secs(15), "it waits for nobody");
    assert!(group.errors().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_moves_every_second_fails_no_send() {
    let _alone = alone().await;
    let mut group = RaftGroup::start(&[]).await;
    let load = Load::start(&group).await;
    let routes = RouteWatch::start(&group);
    let reads = ReadWatch::start(&group, &load.ledger);
    let start = Instant::now();
    let mut transfers = Times::default();
    for round in 0..rounds("QUORATE_TRANSFERS", 5) {
        let leader = group.healthy().await;
        let to = (leader + 1 + round % 2) % 3;
        let began = Instant::now();
        group.transfer(to).await.unwrap();
        transfers.push(load.ledger.first_ack_after(began).await);
        let pause = load.ledger.longest_pause_since(began);
        eprintln!("{round}: n{leader} to n{to}, handed over in {:?}, pause {pause:?}", began.elapsed());
        tokio::time::sleep_until(began + Duration::from_secs(1)).await;
    }
    let pause = load.ledger.longest_pause_since(start);
    reads.end().await;
    let report = finish(&mut group, load).await;
    routes.end(&group.leaders());
    figures::print("transfer", &transfers, &Times::default(), pause, &report);
    assert_clean(&report, &group);
    assert_eq!(report.failed, 0, "sends failed");
    assert!(pause < PLANNED_PAUSE_MAX, "nobody was acknowledged for {pause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_to_a_replica_that_hangs_costs_no_more_than_an_election() {
    let _alone = alone().await;
    let mut group = RaftGroup::start(&[]).await;
    let load = Load::start(&group).await;
    let leader = group.healthy().await;
    let hanging = (leader + 1) % 3;
    group.pause(hanging);
    let began = Instant::now();
    let answer = group.transfer(hanging).await;
    let pause = load.ledger.longest_pause_since(began);
    load.ledger.grown_by(100).await;
    group.resume(hanging);
    group.healthy().await;
    eprintln!("a transfer to a replica that hangs: {answer:?}, longest pause {pause:?}");
    let report = finish(&mut group, load).await;
    assert_clean(&report, &group);
    assert!(answer.is_err(), "it cannot have taken over");
    assert!(pause < Duration::from_secs(2), "nobody was acknowledged for {pause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_come_and_go_under_load() {
    let _alone = alone().await;
    let mut group = RaftGroup::start(&[]).await;
    let load = Load::start(&group).await;
    let start = Instant::now();
    let new = group.place(3);
    group.restart(new).await;
    outside(&group, new, "mqadmin addPeer -i n3").await;
    let address = group.replicas[new].raft_address.to_string();
    let added = mqadmin(&group, &["addPeer", "-i", "n3", "-p", &address]);
    assert_eq!(text(&added), format!("n3 at {address} is a voter of {GROUP}.\n"));
    group.healthy().await;
    load.ledger.grown_by(100).await;

    let gone = (group.leader().await + 1) % 3;
    let id = format!("n{gone}");
    let removed = mqadmin(&group, &["removePeer", "-i", &id]);
    assert_eq!(text(&removed), format!("{id} is no longer a member of {GROUP}.\n"));
    load.ledger.grown_by(100).await;
    group.terminate(gone).await;
    group.healthy().await;
    let leader = group.leader().await;
    let members = group.status(leader).await.expect("a status").members;
    let voters: Vec<_> = members.iter().filter(|member| member.voter).map(|member| member.id).collect();
    let expected: Vec<_> = (0..4).filter(|id| *id != gone as u64).collect();
    assert_eq!(voters, expected);

    // The new one counts. It leads, and the senders, who do not know it, reach it through the others.
    if leader != new {
        group.transfer(new).await.unwrap();
    }
    load.ledger.grown_by(100).await;
    let moved = load.ledger.longest_pause_since(start);
    assert!(moved < PLANNED_PAUSE_MAX, "nobody was acknowledged for {moved:?}");
    let at = Instant::now();
    group.kill(new);
    let first_ack = load.ledger.first_ack_after(at).await;
    group.restart(new).await;
    group.healthy().await;
    let pause = load.ledger.longest_pause_since(start);
    let report = finish(&mut group, load).await;
    let mut times = Times::default();
    times.push(first_ack);
    figures::print("members changed, then a kill", &times, &Times::default(), pause, &report);
    assert_clean(&report, &group);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lost_its_disk_rejoins_under_load() {
    let _alone = alone().await;
    let mut group = RaftGroup::start(&[]).await;
    let load = Load::start_large(&group).await;
    // Two segments, at least.
    load.ledger.grown_by(800).await;
    let wiped = (group.leader().await + 1) % 3;
    let id = format!("n{wiped}");
    group.kill(wiped);
    Disk::real().remove_folder(&group.replicas[wiped].store).unwrap();
    group.restart(wiped).await;
    outside(&group, wiped, &format!("mqadmin rejoin -i {id}")).await;
    load.ledger.grown_by(100).await;
    let status = group.status(wiped).await.expect("a status");
    assert_eq!((status.state.as_str(), status.last_index), ("OUTSIDE", 0), "it stays outside until told");
    let began = Instant::now();
    let rejoined = mqadmin(&group, &["rejoin", "-i", &id]);
    assert!(
        text(&rejoined).ends_with(&format!("{id} is a voter of {GROUP} again.\n")),
        "{}",
        text(&rejoined)
    );
    eprintln!("{id} took part again after {:?}", began.elapsed());
    group.healthy().await;
    load.ledger.grown_by(100).await;
    let report = finish(&mut group, load).await;
    assert_clean(&report, &group);
    assert_eq!(report.failed, 0, "sends failed");
}

/// Waits until a replica says that it is outside of its group, and how that can be changed.
async fn outside(group: &RaftGroup, replica: usize, advice: &str) {
    wait("a reason to be outside, and what to do", async || {
        let status = group.status(replica).await?;
        let reason = status.outside_reason.unwrap_or_default();
        (status.state == "OUTSIDE" && reason.contains(advice)).then_some(())
    })
    .await;
}

/// Runs a command of `mqadmin` on the group; it must succeed.
fn mqadmin(group: &RaftGroup, arguments: &[&str]) -> Output {
    let output = Process::new(env!("CARGO_BIN_EXE_mqadmin"))
        .args(arguments)
        .args(["-g", GROUP, "-n", &group.namesrv_addr.to_string()])
        .output()
        .expect("mqadmin runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
