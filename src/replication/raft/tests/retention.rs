//! Segments that are gone, replicas that need them, replicas that come and go.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::cluster::{Cluster, Node, Shape, draft, eventually, within};
use crate::metadata::MetadataCommand;
use crate::model::{Group, Perm, PhysicalOffset, QueueId, QueueOffset, Topic, TopicConfig};
use crate::replication::{Error, ReplicaState};

/// Segments roll every few messages, and are looked at often.
fn shape() -> Shape {
    Shape { segment_bytes: 16 << 10, checkpoint_ms: 50, clean_ms: 50, ..Shape::default() }
}

/// Makes a node let go of all segments that it may.
fn fill_disk(node: &Node) {
    node.faults.used_percent.store(86, Ordering::Relaxed);
}

fn empty_disk(node: &Node) {
    node.faults.used_percent.store(10, Ordering::Relaxed);
}

async fn make_topic(cluster: &Cluster, topic: &str) {
    let (leader, _) = cluster.leader().await;
    let replication = cluster.node(leader).replication.clone();
    let put = MetadataCommand::PutTopic(TopicConfig::new(Topic::new(topic), 1, Perm::ALL));
    replication.change(replication.permit().unwrap(), put).unwrap().committed().await.unwrap();
}

async fn send_many(cluster: &Cluster, topic: &str, count: usize) {
    for number in 0..count {
        cluster.send_surely(topic, &format!("{number}-{}", "x".repeat(700))).await;
    }
}

/// Waits until a node has let go of all but the last segments.
async fn wait_for_deletion(node: &Node) -> PhysicalOffset {
    let deleted = || {
        let log = node.store().log();
        let min = log.min();
        (min.0 > 0 && log.committed().0 - min.0 < 3 * (16 << 10)).then_some(min)
    };
    eventually("segments are deleted", deleted).await
}

fn max_offset(node: &Node, topic: &str) -> u64 {
    node.store().queues().get(&Topic::new(topic), QueueId(0)).map_or(0, |queue| queue.max_offset().0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_behind_the_first_segment_catches_up_and_queues_without_messages_go_on() {
    let cluster = Cluster::start_with(shape()).await;
    make_topic(&cluster, "Quiet").await;
    for _ in 0..7 {
        cluster.send_surely("Quiet", "m").await;
    }
    let (leader, _) = cluster.leader().await;
    let away = (leader + 1) % 3;
    cluster.settled().await;
    cluster.crash(away).await;
    send_many(&cluster, "T", 100).await;
    fill_disk(&cluster.node(leader));
    let min = wait_for_deletion(&cluster.node(leader)).await;
    assert!(min.0 > 2 * (16 << 10));
    empty_disk(&cluster.node(leader));
    cluster.start_node(away).await;
    cluster.assert_equal().await;
    let node = cluster.node(away);
    assert!(node.store().log().min() >= min, "it installed a snapshot");
    assert_eq!(max_offset(&node, "Quiet"), 7);
    assert_eq!(max_offset(&cluster.node(leader), "Quiet"), 7);
    drop(node);
    // Also after a kill right behind the installation, and when it leads itself.
    cluster.crash(away).await;
    cluster.start_node(away).await;
    cluster.send_surely("Quiet", "m").await;
    cluster.assert_equal().await;
    assert_eq!(max_offset(&cluster.node(away), "Quiet"), 8);
    let (leader, _) = cluster.leader().await;
    if leader != away {
        cluster.node(leader).replication.transfer_leader(Some(away as u64)).await.unwrap();
        eventually("it leads", || cluster.leader_now().filter(|(node, _)| node.id == away)).await;
    }
    cluster.send_surely("Quiet", "m").await;
    cluster.send_surely("New", "m").await;
    cluster.assert_equal().await;
    assert_eq!(max_offset(&cluster.node(away), "Quiet"), 9);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_topic_begins_at_zero_though_a_snapshot_knows_it() {
    let cluster = Cluster::start_with(shape()).await;
    for topic in ["Gone", "Stays"] {
        cluster.send_surely(topic, "m").await;
        cluster.send_surely(topic, "m").await;
    }
    send_many(&cluster, "T", 70).await;
    cluster.settled().await;
    for id in 0..3 {
        fill_disk(&cluster.node(id));
        wait_for_deletion(&cluster.node(id)).await;
        empty_disk(&cluster.node(id));
    }
    let restart = async || {
        cluster.settled().await;
        for id in 0..3 {
            cluster.crash(id).await;
        }
        for id in 0..3 {
            cluster.start_node(id).await;
        }
        cluster.leader().await;
    };
    // Queues without messages go on where they were, whether their topic is in the tables or not.
    restart().await;
    let (leader, _) = cluster.leader().await;
    assert_eq!(max_offset(&cluster.node(leader), "Gone"), 2);
    let replication = cluster.node(leader).replication.clone();
    let delete = MetadataCommand::DeleteTopic(Topic::new("Gone"));
    replication.change(replication.permit().unwrap(), delete).unwrap().committed().await.unwrap();
    drop(replication);
    make_topic(&cluster, "Gone").await;
    restart().await;
    for (topic, next) in [("Gone", 1), ("Stays", 3)] {
        cluster.send_surely(topic, "m").await;
        cluster.settled().await;
        for id in 0..3 {
            assert_eq!(max_offset(&cluster.node(id), topic), next, "{topic} at n{id}");
        }
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_that_crashes_interrupt_is_done_again() {
    let cluster = Cluster::start_with(shape()).await;
    make_topic(&cluster, "Quiet").await;
    cluster.send_surely("Quiet", "m").await;
    let (leader, _) = cluster.leader().await;
    let away = (leader + 1) % 3;
    for changes in [1, 2, 3, 4, 6, 9, 12, 15, 18, 22, 26, 30] {
        cluster.settled().await;
        cluster.crash(away).await;
        send_many(&cluster, "T", 70).await;
        let (leader, _) = cluster.leader().await;
        fill_disk(&cluster.node(leader));
        wait_for_deletion(&cluster.node(leader)).await;
        empty_disk(&cluster.node(leader));
        // It dies somewhere between the first change of the installation and what follows.
        cluster.isolate(away);
        cluster.start_node(away).await;
        let node = cluster.node(away);
        eventually("it takes part", || {
            (node.replication.status()?.state != ReplicaState::Outside).then_some(())
        })
        .await;
        node.faults.die_after(changes);
        cluster.heal();
        eventually("it dies", || node.faults.is_dead().then_some(())).await;
        let faults = Arc::clone(&node.faults);
        drop(node);
        cluster.crash(away).await;
        if changes % 2 == 0 {
            faults.lose_power(|| true).unwrap();
        }
        cluster.start_node(away).await;
        cluster.assert_equal().await;
        assert_eq!(max_offset(&cluster.node(away), "Quiet"), 1, "after {changes} changes");
        assert!(!cluster.root(away).join("raft/install").exists());
        assert!(!cluster.root(away).join("raft/barrier").exists(), "after {changes} changes");
    }
    cluster.stop().await;
}

/// The image of the tables may be older than the first segment.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_starts_when_its_first_segment_is_newer_than_its_image() {
    let cluster = Cluster::start_with(shape()).await;
    let (leader, _) = cluster.leader().await;
    let image = std::process::Command::new("cp")
        .arg(cluster.root(leader).join("raft/image"))
        .arg(cluster.root(leader).join("old"))
        .status();
    // There may be none yet, which is as old as can be.
    let had = image.unwrap().success();
    let permit = cluster.node(leader).replication.permit().unwrap();
    let put = MetadataCommand::PutTopic(TopicConfig::new(Topic::new("N"), 4, Perm::ALL));
    cluster.node(leader).replication.change(permit, put).unwrap().committed().await.unwrap();
    send_many(&cluster, "T", 100).await;
    fill_disk(&cluster.node(leader));
    wait_for_deletion(&cluster.node(leader)).await;
    let other = (leader + 1) % 3;
    cluster.settled().await;
    cluster.crash(leader).await;
    let path = cluster.root(leader).join("raft/image");
    if had {
        let back = std::process::Command::new("cp").arg(cluster.root(leader).join("old")).arg(&path).status();
        assert!(back.unwrap().success());
    }
    cluster.start_node(leader).await;
    cluster.send_surely("T", "last").await;
    cluster.assert_equal().await;
    assert!(cluster.node(leader).metadata.topics().get(&Topic::new("N")).is_some());
    assert_eq!(cluster.node(leader).metadata.image(), cluster.node(other).metadata.image());
    cluster.stop().await;
}

/// After a restart, entries are applied again whose messages are in the queues already.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_stays_as_it_was_when_its_segment_is_applied_again() {
    // No image but the one of an orderly stop.
    let shape = Shape { checkpoint_ms: 3_600_000, ..shape() };
    let cluster = Cluster::start_with(shape).await;
    send_many(&cluster, "T", 60).await;
    cluster.settled().await;
    let id = (cluster.leader().await.0 + 1) % 3;
    let snapshots = || {
        let mut files: Vec<_> = std::fs::read_dir(cluster.root(id).join("raft/snapshot"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_none())
            .collect();
        files.sort();
        files
            .into_iter()
            .map(|path| (path.clone(), crate::env::Disk::real().read(&path).unwrap()))
            .collect::<Vec<_>>()
    };
    let before = snapshots();
    assert!(before.len() > 1);
    cluster.node(id).store().checkpoint_now().unwrap();
    cluster.crash(id).await;
    cluster.start_node(id).await;
    cluster.send_surely("T", "last").await;
    cluster.assert_equal().await;
    let after = snapshots();
    for (path, bytes) in &before {
        let now = after.iter().find(|(other, _)| other == path).map(|(_, bytes)| bytes);
        assert!(now == Some(bytes), "{} changed", path.display());
    }
    cluster.stop().await;
}

/// The leader's own disk is the slowest of three: others commit what it has not yet synced.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_loses_power_before_it_synced_what_it_applied_starts_again() {
    let cluster = Cluster::start_with(Shape { checkpoint_ms: 20, ..Shape::default() }).await;
    let (leader, _) = cluster.leader().await;
    cluster.node(leader).faults.sync_ms.store(1500, Ordering::Relaxed);
    for number in 0..20 {
        cluster.send_surely("T", &format!("m{number}")).await;
    }
    cluster.lose_power(leader, || true).await;
    cluster.leader_but(leader).await;
    cluster.start_node(leader).await;
    cluster.send_surely("T", "last").await;
    let content = cluster.assert_equal().await;
    // Some may be there twice: a leader with such a disk answers late.
    let bodies: HashSet<_> = content.messages.values().map(|stored| &stored.body).collect();
    assert_eq!(bodies.len(), 21);
    assert!(!cluster.root(leader).join("raft/barrier").exists(), "nothing that it acknowledged is lost");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_an_empty_store_waits_until_it_is_taken_back_in() {
    let cluster = Cluster::start_with(shape()).await;
    send_many(&cluster, "T", 60).await;
    let (leader, _) = cluster.leader().await;
    let lost = (leader + 1) % 3;
    let third = (leader + 2) % 3;
    cluster.settled().await;
    cluster.crash(lost).await;
    std::fs::remove_dir_all(cluster.root(lost)).unwrap();
    fill_disk(&cluster.node(leader));
    wait_for_deletion(&cluster.node(leader)).await;
    cluster.start_node(lost).await;
    let node = cluster.node(lost);
    let reason = || node.replication.status()?.outside_reason.filter(|reason| reason.contains("rejoin"));
    eventually("it says what to do", reason).await;
    // It has no vote: with the third one away nothing is committed.
    cluster.crash(third).await;
    let alone = cluster.node(leader);
    let sent = tokio::time::timeout(Duration::from_secs(5), alone.send("T", "alone")).await;
    assert!(!matches!(sent, Ok(Ok(_))), "{sent:?}");
    assert_eq!(node.replication.status().unwrap().state, ReplicaState::Outside);
    cluster.start_node(third).await;
    cluster.send_surely("T", "two").await;
    let (leader, _) = cluster.leader().await;
    within("rejoin", cluster.node(leader).replication.rejoin(lost as u64)).await.unwrap();
    cluster.send_surely("T", "three").await;
    cluster.assert_equal().await;
    // Its vote counts again.
    cluster.crash(third).await;
    cluster.send_surely("T", "four").await;
    let again = cluster.node(cluster.leader().await.0).replication.rejoin(lost as u64).await;
    assert!(matches!(again, Err(Error::Group(_))), "{again:?}");
    drop(node);
    cluster.start_node(third).await;
    cluster.assert_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_go_and_come_under_load() {
    let cluster = Arc::new(Cluster::start_with(Shape { nodes: 5, ..shape() }).await);
    cluster.leader().await;
    let over = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    let load = tokio::spawn({
        let (cluster, over, sent) = (Arc::clone(&cluster), Arc::clone(&over), Arc::clone(&sent));
        async move {
            while !over.load(Ordering::Relaxed) {
                cluster.send_surely("T", &"x".repeat(300)).await;
                sent.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    for round in 0..4 {
        let (leader, _) = cluster.leader().await;
        let id = (leader + 1 + round % 4) % 5;
        let replication = cluster.node(leader).replication.clone();
        within("a member goes", replication.remove_peer(id as u64)).await.unwrap();
        let before = sent.load(Ordering::Relaxed);
        eventually("messages go on", || (sent.load(Ordering::Relaxed) > before + 20).then_some(())).await;
        let (leader, _) = cluster.leader().await;
        let replication = cluster.node(leader).replication.clone();
        let address = &cluster.peers[id].address;
        within("a member comes", replication.add_peer(id as u64, address)).await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    load.await.unwrap();
    let content = cluster.assert_equal().await;
    assert!(content.messages.len() >= sent.load(Ordering::Relaxed));
    let Ok(cluster) = Arc::try_unwrap(cluster) else { panic!("the load has ended") };
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_majority_stops_with_entries_and_notes_on_their_way() {
    let cluster = Cluster::start().await;
    let (leader, _) = cluster.leader().await;
    let node = cluster.node(leader);
    let permit = node.replication.permit().unwrap();
    cluster.isolate(leader);
    let mut pending = Vec::new();
    for number in 0u64..30 {
        pending.push(node.replication.append(permit, draft("T", 0, "m")).await.unwrap());
        let note = MetadataCommand::CommitOffset {
            group: Group::new("G"),
            topic: Topic::new("T"),
            queue_id: QueueId(0),
            offset: QueueOffset(number),
        };
        node.replication.note(permit, note).unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    within("it stops", node.replication.stop()).await.unwrap();
    for pending in pending {
        let answer = within("an answer", pending.committed()).await;
        assert!(matches!(answer, Err(Error::NotLeader | Error::Unconfirmed | Error::Stopped)), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_fails_answers_all_who_wait() {
    let cluster = Cluster::start().await;
    let (leader, _) = cluster.leader().await;
    let node = cluster.node(leader);
    let permit = node.replication.permit().unwrap();
    node.faults.sync_fails.store(true, Ordering::Relaxed);
    let mut pending = Vec::new();
    let refused = async {
        loop {
            match node.replication.append(permit, draft("T", 0, "m")).await {
                Ok(answer) => pending.push(answer),
                Err(_) => return,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("it takes no more", refused).await;
    assert_ne!(pending.len(), 0);
    for pending in pending {
        let _ = within("an answer", pending.committed()).await;
    }
    drop(node);
    cluster.crash(leader).await;
    cluster.send_surely("T", "others").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_changes_and_large_messages_at_once_become_entries_that_fit() {
    let cluster = Cluster::start_with(shape()).await;
    let (leader, _) = cluster.leader().await;
    let node = cluster.node(leader);
    let permit = node.replication.permit().unwrap();
    let mut changes = Vec::new();
    for number in 0u64..2000 {
        let commit = MetadataCommand::CommitOffset {
            group: Group::new(&format!("group-{number}")),
            topic: Topic::new("T"),
            queue_id: QueueId(0),
            offset: QueueOffset(number),
        };
        changes.push(node.replication.change(permit, commit).unwrap());
    }
    let large = "x".repeat(15_500);
    let pending = node.replication.append(permit, draft("T", 0, &large)).await.unwrap();
    for change in changes {
        within("a change is committed", change.committed()).await.unwrap();
    }
    within("a large message is committed", pending.committed()).await.unwrap();
    cluster.assert_equal().await;
    drop(node);
    cluster.stop().await;
}
