//! Single faults of a replica, and what becomes of its group.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::WatchReceiver as _;

use super::super::types::{Snapshot, SnapshotMeta, log_id};
use super::cluster::{Cluster, Shape, eventually};
use crate::env::Clock;
use crate::message::records;
use crate::model::PhysicalOffset;
use crate::store::decode_entry;

const HOUR_MS: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_jump_move_neither_the_leader_nor_store_times_back() {
    let mut cluster = Cluster::new(Shape::default());
    let now = 1000 * HOUR_MS;
    cluster.clocks = (0..3).map(|_| Clock::manual(now)).collect();
    for id in 0..3 {
        cluster.start_node(id).await;
    }
    let (leader, term) = cluster.leader().await;
    cluster.send("before").await.unwrap();
    cluster.clocks[leader].set_ms(now + HOUR_MS);
    cluster.send("an hour later").await.unwrap();
    cluster.clocks[leader].set_ms(now - HOUR_MS);
    cluster.send("an hour earlier").await.unwrap();
    for id in 0..3 {
        cluster.clocks[id].set_ms(now - 24 * HOUR_MS);
    }
    cluster.send("a day earlier").await.unwrap();
    assert_eq!(cluster.leader().await, (leader, term), "terms and leases know nothing of the clock");
    // The next leader's clock is far behind the times in the log.
    cluster.crash(leader).await;
    let (next, _) = cluster.leader().await;
    assert_ne!(next, leader);
    cluster.send("of another leader").await.unwrap();
    cluster.start_node(leader).await;
    cluster.assert_equal().await;
    for id in 0..3 {
        let times = store_times(&cluster, id);
        assert!(times.len() >= 5 && times.is_sorted(), "{times:?}");
        assert_eq!(times.last(), Some(&(now + HOUR_MS)));
    }
    cluster.stop().await;
}

/// The store times of all entries and messages of a replica.
fn store_times(cluster: &Cluster, id: usize) -> Vec<i64> {
    let node = cluster.node(id);
    let log = node.store().log();
    let (mut position, mut times) = (log.min(), Vec::new());
    while position < log.committed() {
        let left = usize::try_from(log.committed().0 - position.0).unwrap();
        let bytes = log.slice(position, left).unwrap();
        let head = decode_entry(&bytes, position).unwrap();
        times.push(head.store_timestamp);
        let messages = records(&bytes[head.record_len..head.len()]);
        times.extend(messages.map(|record| record.unwrap().store_timestamp));
        position = PhysicalOffset(position.0 + head.len() as u64);
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_fails_acknowledges_nothing_more_and_is_replaced() {
    let cluster = Cluster::start().await;
    let (leader, term) = cluster.leader().await;
    cluster.send("before").await.unwrap();
    let broken = cluster.node(leader);
    broken.faults.sync_fails.store(true, Ordering::SeqCst);
    // Its followers may have it: it can be committed, but not by a replica that does not know what it has.
    let answer = broken.send("T", "meanwhile").await;
    eventually("the store fails", || broken.failure().cloned()).await;
    drop(broken);
    // The broker ends its process then.
    cluster.crash(leader).await;
    let (next, later) = cluster.leader().await;
    assert!(next != leader && later > term);
    cluster.send("after").await.unwrap();
    cluster.start_node(leader).await;
    let content = cluster.assert_equal().await;
    let bodies: Vec<_> = content.messages.values().map(|message| message.body.as_str()).collect();
    let expected = ["before", "meanwhile", "after"];
    let meanwhile = bodies.contains(&"meanwhile");
    assert!(meanwhile || answer.is_err(), "acknowledged and lost");
    assert_eq!(
        bodies,
        expected.into_iter().filter(|body| meanwhile || *body != "meanwhile").collect::<Vec<_>>()
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_whose_disk_fails_takes_nothing_from_the_group() {
    let cluster = Cluster::start().await;
    let (leader, term) = cluster.leader().await;
    let follower = (leader + 1) % 3;
    cluster.send("before").await.unwrap();
    let broken = cluster.node(follower);
    broken.faults.sync_fails.store(true, Ordering::SeqCst);
    for number in 0..20 {
        cluster.send(&format!("meanwhile {number}")).await.unwrap();
    }
    eventually("the store fails", || broken.failure().cloned()).await;
    drop(broken);
    assert_eq!(cluster.leader().await, (leader, term));
    cluster.crash(follower).await;
    cluster.start_node(follower).await;
    assert_eq!(cluster.assert_equal().await.messages.len(), 21);
    cluster.stop().await;
}

/// Found by jepsen (`--nemesis files --seed 5`): a queue file that could not be opened ended the process.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_can_open_no_more_files_goes_on_when_it_can() {
    let cluster = Cluster::start().await;
    let (leader, _) = cluster.leader().await;
    cluster.send("before").await.unwrap();
    let poor = cluster.node((leader + 1) % 3);
    poor.faults.no_files.store(true, Ordering::SeqCst);
    // New segments, snapshots, queue files, images, checkpoints.
    let text = "x".repeat(900);
    for _ in 0..200 {
        cluster.send(&text).await.unwrap();
    }
    eventually("it waits for a segment", || poor.store().is_full().then_some(())).await;
    assert_eq!(poor.failure(), None);
    poor.faults.no_files.store(false, Ordering::SeqCst);
    eventually("it has caught up", || (!poor.store().is_full()).then_some(())).await;
    drop(poor);
    cluster.crash(leader).await;
    cluster.send_surely("T", "after").await;
    cluster.start_node(leader).await;
    assert_eq!(cluster.assert_equal().await.messages.len(), 202);
    cluster.stop().await;
}

/// Found by jepsen (`quick --nemesis memory,cpu,kill,leader-minority,files --seed 21`): Raft ended on a leader that had to
/// read old entries for a follower.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_can_open_no_more_files_stays_and_reads_old_entries_when_it_can() {
    let cluster = Cluster::start().await;
    let (leader, term) = cluster.leader().await;
    let late = (leader + 1) % 3;
    cluster.send("before").await.unwrap();
    cluster.crash(late).await;
    for number in 0..20 {
        cluster.send(&format!("meanwhile {number}")).await.unwrap();
    }
    let poor = cluster.node(leader);
    // It keeps in memory where entries are until that is in a file, and a turn longer.
    poor.store().checkpoint_now().unwrap();
    poor.store().checkpoint_now().unwrap();
    poor.faults.no_files.store(true, Ordering::SeqCst);
    cluster.start_node(late).await;
    let refused = || poor.faults.files_refused.load(Ordering::SeqCst);
    eventually("it cannot read", || (refused() > 3).then_some(())).await;
    poor.faults.no_files.store(false, Ordering::SeqCst);
    cluster.send("after").await.unwrap();
    assert_eq!(cluster.assert_equal().await.messages.len(), 22);
    assert_eq!(poor.failure(), None);
    assert_eq!(cluster.leader().await, (leader, term));
    drop(poor);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_raft_ends_by_itself_ends_too() {
    let cluster = Cluster::start().await;
    cluster.send("before").await.unwrap();
    cluster.settled().await;
    let (leader, term) = cluster.leader().await;
    let broken = cluster.node((leader + 1) % 3);
    let raft = broken.group().raft.get().unwrap().clone();
    let (vote, members) = {
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        (metrics.vote, metrics.membership_config.as_ref().clone())
    };
    // Nothing that the role depends on changes before the end.
    let meta = SnapshotMeta { last_log_id: Some(log_id(term.0, 1000)), last_membership: members };
    let snapshot = Snapshot { meta, snapshot: Bytes::from_static(b"no image") };
    assert!(raft.install_full_snapshot(vote, snapshot).await.is_err());
    let reason = eventually("the store is given up", || broken.failure().cloned()).await;
    assert!(reason.contains("Raft stopped"), "{reason}");
    let id = broken.id;
    drop(broken);
    // As the broker ends its process then.
    cluster.crash(id).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_that_restarts_does_not_shorten_the_lease_of_its_leader() {
    let cluster = Cluster::start().await;
    cluster.send("before").await.unwrap();
    let (leader, _) = cluster.leader().await;
    let (voter, candidate) = ((leader + 1) % 3, (leader + 2) % 3);
    // The candidate has not heard of the leader for so long that it wants to be elected.
    cluster.isolate(candidate);
    tokio::time::sleep(Duration::from_millis(cluster.shape.election_ms.1 * 2)).await;
    cluster.heal();
    cluster.isolate(leader);
    cluster.crash(voter).await;
    cluster.start_node(voter).await;
    let old = cluster.node(leader);
    let new = eventually("another leader", || {
        let held = old.replication.holds_lease();
        let new = [voter, candidate]
            .map(|id| cluster.node(id))
            .into_iter()
            .find(|node| node.replication.holds_lease());
        assert!(new.is_none() || !held || !old.replication.holds_lease(), "two replicas hold the lease");
        new
    });
    new.await;
    drop(old);
    cluster.heal();
    cluster.send_surely("T", "after").await;
    cluster.assert_equal().await;
    cluster.stop().await;
}
