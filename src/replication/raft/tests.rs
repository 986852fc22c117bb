//! Groups of three replicas in one process, over loopback sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::env::{Clock, Disk};
use crate::message::{Message, SysFlag};
use crate::metadata::{Metadata, MetadataCommand};
use crate::model::{Group, Perm, PhysicalOffset, QueueId, QueueOffset, Term, Topic, TopicConfig};
use crate::replication::{Error, FlushMode, GroupSettings, Peer, QueueLimits, Replication, Role};
use crate::store::{Draft, Listener, StoreConfig};

const LIMIT: Duration = Duration::from_secs(20);
const SEGMENT: u64 = 64 << 10;

struct Cluster {
    folders: Vec<TempDir>,
    peers: Vec<Peer>,
    nodes: Vec<Option<Node>>,
}

struct Node {
    replication: Replication,
    metadata: Arc<Metadata>,
}

impl Cluster {
    async fn start() -> Self {
        let peers: Vec<Peer> =
            (0..3).map(|id| Peer { id, address: format!("127.0.0.1:{}", free_port()) }).collect();
        let folders = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
        let mut cluster = Self { folders, peers, nodes: vec![None, None, None] };
        for id in 0..3 {
            cluster.start_node(id).await;
        }
        cluster
    }

    async fn start_node(&mut self, id: usize) {
        let root = self.folders[id].path().to_owned();
        let disk = Disk::real();
        let metadata = Arc::new(Metadata::open(&root.join("config"), disk.clone()).unwrap());
        let settings = GroupSettings {
            group: "g".into(),
            id: id as u64,
            peers: self.peers.clone(),
            preferred_leaders: Vec::new(),
            client_address: format!("127.0.0.1:{}", 1000 + id),
            bind_address: "127.0.0.1".into(),
            flush: FlushMode::Sync,
            heartbeat_ms: 50,
            election_min_ms: 300,
            election_max_ms: 600,
            entry_bytes_max: 16 << 10,
            in_flight_max: 8,
            offset_commit_interval_ms: 20,
        };
        let store = StoreConfig { segment_bytes: SEGMENT, index: false, ..StoreConfig::new(root) };
        let limits = QueueLimits { bytes_max: 1 << 20, wait_max: Duration::from_millis(200) };
        let listener = Listener::new(|_| {});
        let replication = Replication::start_group(
            store,
            listener,
            Arc::clone(&metadata),
            settings,
            limits,
            (disk, Clock::system()),
        )
        .await
        .unwrap();
        self.nodes[id] = Some(Node { replication, metadata });
    }

    async fn stop_node(&mut self, id: usize) {
        if let Some(node) = self.nodes[id].take() {
            node.replication.stop().await.unwrap();
        }
    }

    fn node(&self, id: usize) -> &Node {
        self.nodes[id].as_ref().unwrap()
    }

    async fn leader(&self) -> (usize, Term) {
        let found = async {
            loop {
                for (id, node) in self.nodes.iter().enumerate() {
                    if let Some(node) = node
                        && let Role::Leader(term) = *node.replication.role().borrow()
                    {
                        return (id, term);
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, found).await.expect("a leader")
    }

    async fn send(&self, text: &str) -> Result<u64, Error> {
        let (leader, _) = self.leader().await;
        let replication = &self.node(leader).replication;
        let pending = replication.append(replication.permit()?, draft(text)).await?;
        Ok(pending.committed().await?.queue_offset.0)
    }

    /// Waits until all running replicas have applied the same, and checks that their logs are the same bytes.
    async fn assert_equal(&self) {
        let running: Vec<&Node> = self.nodes.iter().flatten().collect();
        let equal = async {
            loop {
                let applied: Vec<_> =
                    running.iter().map(|node| node.replication.status().unwrap().applied_index).collect();
                let last = running.iter().map(|node| node.replication.status().unwrap().last_index).max();
                if applied.iter().all(|index| Some(*index) == last) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, equal).await.expect("all replicas get to the same entry");
        let first = &running[0].replication;
        for other in &running[1..] {
            let (one, two) = (first.store(), other.replication.store());
            let from = one.log().min().max(two.log().min());
            assert_eq!(one.log().committed(), two.log().committed());
            let mut at = from;
            while at < one.log().committed() {
                let end = PhysicalOffset(((at.0 / SEGMENT + 1) * SEGMENT).min(one.log().committed().0));
                let len = usize::try_from(end.0 - at.0).unwrap();
                assert_eq!(one.log().slice(at, len), two.log().slice(at, len), "log from {at}");
                at = end;
            }
            assert_eq!(running[0].metadata.image(), other.metadata.image());
            for (topic, id, queue) in one.queues().all() {
                let same = two.queues().get(&topic, id).unwrap();
                assert_eq!(queue.max_offset(), same.max_offset(), "{topic} {id}");
                let min = queue.min_offset().max(same.min_offset()).0;
                for offset in min..queue.max_offset().0 {
                    let offset = QueueOffset(offset);
                    assert_eq!(queue.entry(offset).unwrap(), same.entry(offset).unwrap(), "{topic} {offset}");
                }
            }
        }
    }

    async fn stop(mut self) {
        for id in 0..self.nodes.len() {
            self.stop_node(id).await;
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn draft(text: &str) -> Draft {
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Draft::new(&Message {
        topic: "T",
        queue_id: 0,
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: text.as_bytes(),
        properties: "",
    })
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_keep_the_same_log_over_restarts_of_the_leader() {
    let mut cluster = Cluster::start().await;
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
async fn topics_and_offsets_survive_the_leader() {
    let mut cluster = Cluster::start().await;
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
        pending.push(replication.append(permit, draft(&body)).await.unwrap());
    }
    for (number, pending) in (0u64..).zip(pending) {
        assert_eq!(pending.committed().await.unwrap().queue_offset.0, number);
    }
    assert!(replication.store().log().committed().0 > 4 * SEGMENT);
    cluster.assert_equal().await;
    let delete = MetadataCommand::DeleteTopic(Topic::new("T"));
    let deleted = replication.change(permit, delete).unwrap();
    let behind = replication.append(permit, draft("new")).await.unwrap();
    deleted.committed().await.unwrap();
    assert_eq!(behind.committed().await.unwrap().queue_offset.0, 0);
    cluster.assert_equal().await;
    cluster.stop().await;
}
