//! Groups of several replicas in one process, over loopback sockets.

mod cluster;
mod crash_points;
mod damage;
mod faults;
mod install;
mod retention;
mod schedules;
pub(super) mod sim;

use cluster::{Cluster, Shape, draft, eventually};

use crate::metadata::MetadataCommand;
use crate::model::{Group, Perm, QueueId, QueueOffset, Topic, TopicConfig};

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_keep_the_same_log_over_restarts_of_the_leader() {
    let cluster = Cluster::start().await;
    for number in 0..20 {
        assert_eq!(cluster.send(&format!("m{number}")).await.unwrap(), number);
    }
    cluster.assert_equal().await;
    let (leader, term) = cluster.leader().await;
    cluster.stop_node(leader).await;
    let (next, later) = cluster.leader().await;
    assert_ne!(next, leader);
    assert!(later > term);
    assert_eq!(cluster.send("after").await.unwrap(), 20);
    cluster.start_node(leader).await;
    cluster.assert_equal().await;
    for id in 0..3 {
        cluster.stop_node(id).await;
    }
    for id in 0..3 {
        cluster.start_node(id).await;
    }
    assert_eq!(cluster.send("again").await.unwrap(), 21);
    cluster.assert_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_that_loses_power_anywhere_is_done_again() {
    let first_start = async |changes| {
        let cluster = Cluster::new(Shape::default());
        for id in [1, 2, 0] {
            cluster.start_node(id).await;
        }
        let node = cluster.node(0);
        node.faults.die_after(changes);
        eventually("it dies", || node.faults.is_dead().then_some(())).await;
        drop(node);
        cluster.lose_power(0, || true).await;
        cluster.start_node(0).await;
        cluster.send_surely("T", "m").await;
        cluster.assert_equal().await;
        cluster.stop().await;
    };
    futures_util::future::join_all((1..=14).map(first_start)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_and_offsets_survive_the_leader() {
    let cluster = Cluster::start().await;
    let (leader, _) = cluster.leader().await;
    let replication = cluster.node(leader).replication.clone();
    let permit = replication.permit().unwrap();
    let topic = Topic::new("N");
    let put = MetadataCommand::PutTopic(TopicConfig::new(topic.clone(), 4, Perm::ALL));
    replication.change(permit, put).unwrap().committed().await.unwrap();
    let commit = MetadataCommand::CommitOffset {
        group: Group::new("G"),
        topic: topic.clone(),
        queue_id: QueueId(1),
        offset: QueueOffset(7),
    };
    replication.change(permit, commit).unwrap().committed().await.unwrap();
    drop(replication);
    cluster.stop_node(leader).await;
    let (next, _) = cluster.leader().await;
    let metadata = &cluster.node(next).metadata;
    assert!(metadata.topics().get(&topic).is_some());
    let offset = metadata.offsets().get(&Group::new("G"), &topic, QueueId(1));
    assert_eq!(offset, Some(QueueOffset(7)));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_senders_fill_segments_and_a_deleted_topic_starts_again() {
    let cluster = Cluster::start().await;
    let (leader, _) = cluster.leader().await;
    let replication = cluster.node(leader).replication.clone();
    let permit = replication.permit().unwrap();
    let body = "x".repeat(1000);
    let mut pending = Vec::new();
    for _ in 0..300 {
        pending.push(replication.append(permit, draft("T", 0, &body)).await.unwrap());
    }
    for (number, pending) in (0u64..).zip(pending) {
        assert_eq!(pending.committed().await.unwrap().queue_offset.0, number);
    }
    assert!(replication.store().log().committed().0 > 4 * cluster.shape.segment_bytes);
    cluster.assert_equal().await;
    let delete = MetadataCommand::DeleteTopic(Topic::new("T"));
    let deleted = replication.change(permit, delete).unwrap();
    let behind = replication.append(permit, draft("T", 0, "new")).await.unwrap();
    deleted.committed().await.unwrap();
    assert_eq!(behind.committed().await.unwrap().queue_offset.0, 0);
    cluster.assert_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leadership_goes_to_a_replica_that_is_there() {
    let cluster = Cluster::start().await;
    cluster.send("before").await.unwrap();
    cluster.settled().await;
    let (leader, _) = cluster.leader().await;
    let (gone, there) = ((leader + 1) % 3, (leader + 2) % 3);
    // One that has just gone, and one that is about to go.
    cluster.crash(gone).await;
    let began = tokio::time::Instant::now();
    cluster.node(leader).replication.transfer_leader(None).await.unwrap();
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(2), "{took:?}");
    assert_eq!(cluster.leader().await.0, there);
    cluster.start_node(gone).await;
    cluster.settled().await;
    cluster.node(leader).replication.leave();
    cluster.node(there).replication.transfer_leader(None).await.unwrap();
    assert_eq!(cluster.leader().await.0, gone);
    cluster.node(there).replication.leave();
    let error = cluster.node(gone).replication.transfer_leader(None).await.unwrap_err().to_string();
    assert!(error.contains("no other replica"), "{error}");
    cluster.stop().await;
}
