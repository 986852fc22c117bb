//! Committed records that rot on one replica: found, never served, and put back from another.

use super::cluster::{Cluster, Node, READ, eventually};
use crate::env::Disk;
use crate::filter::Filter;
use crate::message::{RECORD_MIN, Record};
use crate::model::{LogIndex, PhysicalOffset, QueueId, QueueOffset, Topic};
use crate::store;

const MESSAGES: u64 = 20;

fn text(number: u64) -> String {
    format!("m{number}-{}", "x".repeat(200))
}

async fn cluster_with_messages() -> Cluster {
    let cluster = Cluster::start().await;
    for number in 0..MESSAGES {
        cluster.send_surely("T", &text(number)).await;
    }
    cluster.settled().await;
    cluster
}

/// Changes a byte of a replica's log in its file.
fn rot(cluster: &Cluster, id: usize, at: PhysicalOffset) {
    let size = cluster.shape.segment_bytes;
    let name = format!("{:020}", at.0 / size * size);
    let file = Disk::real().open(&cluster.root(id).join("commitlog").join(name), false).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at.0 % size).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at.0 % size).unwrap();
}

/// Returns where a message starts, and where it ends.
fn place(node: &Node, number: u64) -> (PhysicalOffset, PhysicalOffset) {
    let queue = node.store().queues().get(&Topic::new("T"), QueueId(0)).unwrap();
    let entry = queue.entry(QueueOffset(number)).unwrap().unwrap();
    (entry.position, entry.position.plus(u64::from(entry.size)))
}

/// Returns where the entry of a message starts.
fn entry_of(node: &Node, number: u64) -> (LogIndex, PhysicalOffset) {
    let entries = &node.group().shared.entries;
    let index = entries.index_at(place(node, number).0).unwrap().unwrap();
    (index, entries.position(index).unwrap().unwrap())
}

/// Reads a message as a consumer does: what it gets is right, or an error.
fn read(node: &Node, number: u64) -> Result<(), store::Error> {
    let read = node.store().read(&Topic::new("T"), QueueId(0), QueueOffset(number), READ, &Filter::All)?;
    assert_ne!(read.records.len(), 0);
    for (bytes, number) in read.records.iter().zip(number..) {
        let record = Record::decode(bytes).unwrap();
        assert_eq!((record.body, record.queue_offset.0), (text(number).as_bytes(), number));
    }
    Ok(())
}

async fn mended(node: &Node) {
    eventually("the damage is mended", || node.store().damages().is_empty().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_rots_is_never_read_and_is_put_back() {
    let cluster = cluster_with_messages().await;
    let (leader, term) = cluster.leader().await;
    for id in [leader, (leader + 1) % 3] {
        let node = cluster.node(id);
        let (start, end) = place(&node, 7);
        let body = end.0 - start.0 - 20;
        // Length, CRC, queue, queue offset, position, body, topic.
        for (number, at) in (7..).zip([3, 9, 15, 27, 35, body, body + 17]) {
            rot(&cluster, id, place(&node, number).0.plus(at));
            let error = read(&node, number).unwrap_err();
            assert!(matches!(error, store::Error::Damaged { .. }), "byte {at}: {error}");
        }
        assert_eq!(node.store().log().record(place(&node, 12).0), None);
        // The messages in front of them can be read.
        read(&node, 5).unwrap();
        for number in 7..14 {
            eventually("it can be read again", || read(&node, number).ok()).await;
        }
        mended(&node).await;
        assert!(node.store().log().record(place(&node, 12).0).is_some());
        assert_eq!(node.failure(), None);
    }
    cluster.assert_equal().await;
    assert_eq!(cluster.leader().await, (leader, term));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rots_while_a_replica_is_stopped_is_found_and_put_back() {
    let cluster = cluster_with_messages().await;
    let (leader, _) = cluster.leader().await;
    for id in [leader, (leader + 1) % 3] {
        let node = cluster.node(id);
        let (_, entry) = entry_of(&node, 3);
        let (start, end) = place(&node, 9);
        drop(node);
        cluster.stop_node(id).await;
        // An entry record, and a part of a message that no CRC of its own covers: a time.
        let places = [entry.plus(RECORD_MIN as u64 + 30), start.plus(43)];
        assert!(places[1] < end);
        let good: Vec<u8> = places.iter().map(|at| byte(&cluster, id, *at)).collect();
        places.iter().for_each(|at| rot(&cluster, id, *at));
        cluster.start_node(id).await;
        let back = || places.iter().map(|at| byte(&cluster, id, *at)).eq(good.iter().copied()).then_some(());
        eventually("the bytes are back", back).await;
        mended(&cluster.node(id)).await;
        cluster.send_surely("U", "m").await;
        cluster.assert_equal().await;
        assert!(!cluster.root(id).join("raft/barrier").exists(), "n{id} lost nothing");
    }
    cluster.stop().await;
}

fn byte(cluster: &Cluster, id: usize, at: PhysicalOffset) -> u8 {
    let size = cluster.shape.segment_bytes;
    let name = format!("{:020}", at.0 / size * size);
    let file = Disk::real().open(&cluster.root(id).join("commitlog").join(name), false).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at.0 % size).unwrap();
    byte[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_last_entry_rotted_gets_it_again_and_then_votes() {
    let cluster = cluster_with_messages().await;
    let (leader, _) = cluster.leader().await;
    let (id, third) = ((leader + 1) % 3, (leader + 2) % 3);
    let node = cluster.node(id);
    let (_, entry) = entry_of(&node, MESSAGES - 1);
    drop(node);
    cluster.stop_node(id).await;
    rot(&cluster, id, entry.plus(RECORD_MIN as u64 + 30));
    cluster.start_node(id).await;
    let barrier = cluster.root(id).join("raft/barrier");
    assert!(barrier.exists(), "it does not vote");
    cluster.assert_equal().await;
    eventually("it votes again", || (!barrier.exists()).then_some(())).await;
    // It takes its vote to commit this.
    cluster.crash(third).await;
    cluster.send_surely("T", &text(MESSAGES)).await;
    cluster.assert_equal().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_a_damaged_entry_goes_on_and_a_follower_that_needs_it_waits_for_it() {
    let cluster = Cluster::start().await;
    cluster.send_surely("T", &text(0)).await;
    let (leader, term) = cluster.leader().await;
    let (away, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.settled().await;
    cluster.crash(away).await;
    for number in 1..MESSAGES {
        cluster.send_surely("T", &text(number)).await;
    }
    cluster.settled().await;
    let node = cluster.node(leader);
    let (index, entry) = entry_of(&node, 7);
    let at = PhysicalOffset(place(&node, 7).1.0 - 20);
    let good = byte(&cluster, leader, at);
    // Nobody has the entry to mend it from.
    rot(&cluster, leader, at);
    rot(&cluster, third, at);
    cluster.start_node(away).await;
    let other = cluster.node(away);
    let got = || {
        let last = other.replication.status()?.last_index;
        (node.store().damages() == [entry] && last.0 + 1 == index.0).then_some(())
    };
    eventually("the entries in front of it arrive", got).await;
    assert_eq!(cluster.leader().await, (leader, term));
    rot(&cluster, third, at);
    cluster.settled().await;
    assert_eq!(cluster.leader().await, (leader, term), "the leader stays");
    mended(&node).await;
    mended(&cluster.node(third)).await;
    assert_eq!([leader, away, third].map(|id| byte(&cluster, id, at)), [good; 3]);
    cluster.send_surely("T", &text(MESSAGES)).await;
    drop((node, other));
    cluster.assert_equal().await;
    cluster.stop().await;
}
