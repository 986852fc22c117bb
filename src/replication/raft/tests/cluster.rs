//! Groups in one process, over loopback sockets: nodes that stop, crash and lose power, ways between them that are cut.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use super::super::links;
use crate::env::{Clock, Disk, Faults};
use crate::message::{Message, Record};
use crate::metadata::{Metadata, MetadataCommand, decode_commands};
use crate::model::{PhysicalOffset, QueueId, QueueOffset, Term, Topic, system_topic};
use crate::replication::raft::Group;
use crate::replication::{Error, FlushMode, GroupSettings, Mode, Peer, QueueLimits, Replication, Role};
use crate::store::{
    Draft, EntryError, Event, Listener, ReadLimits, Retention, Store, StoreConfig, decode_entry,
};

/// How long anything may take that must come about by itself.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// What all nodes of a group have in common.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) nodes: usize,
    pub(super) segment_bytes: u64,
    pub(super) flush: FlushMode,
    /// Time between two checkpoints and between two images.
    pub(super) checkpoint_ms: u64,
    /// Time between two looks at what may be deleted.
    pub(super) clean_ms: u64,
    pub(super) election_ms: (u64, u64),
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            nodes: 3,
            segment_bytes: 64 << 10,
            flush: FlushMode::Sync,
            checkpoint_ms: 10_000,
            clean_ms: 10_000,
            election_ms: (300, 600),
        }
    }
}

impl Shape {
    pub(super) fn store_config(&self, root: PathBuf) -> StoreConfig {
        StoreConfig {
            segment_bytes: self.segment_bytes,
            queue_file_entries: 50,
            index: false,
            flush_interval_ms: self.checkpoint_ms.min(100),
            checkpoint_interval_ms: self.checkpoint_ms,
            retention: Retention { interval_ms: self.clean_ms, ..Retention::default() },
            ..StoreConfig::new(root)
        }
    }
}

pub(super) struct Cluster {
    pub(super) group: String,
    pub(super) shape: Shape,
    folders: Vec<TempDir>,
    pub(super) peers: Vec<Peer>,
    nodes: Mutex<Vec<Option<Arc<Node>>>>,
    /// What time each replica has, over its restarts.
    pub(super) clocks: Vec<Clock>,
    cut: Mutex<HashSet<(u64, u64)>>,
}

pub(super) struct Node {
    pub(super) id: usize,
    pub(super) replication: Replication,
    pub(super) metadata: Arc<Metadata>,
    pub(super) faults: Arc<Faults>,
    pub(super) failure: Arc<OnceLock<String>>,
}

impl Node {
    pub(super) fn group(&self) -> &Group {
        match &self.replication.mode {
            Mode::Group(group) => group,
            Mode::None(_) => panic!("a group was started"),
        }
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        self.replication.store()
    }

    /// Returns why its store failed, if it did.
    pub(super) fn failure(&self) -> Option<&String> {
        self.failure.get()
    }

    pub(super) async fn send(&self, topic: &str, text: &str) -> Result<u64, Error> {
        let pending = self.replication.append(self.replication.permit()?, draft(topic, 0, text)).await?;
        Ok(pending.committed().await?.queue_offset.0)
    }
}

impl Cluster {
    /// Makes the folders of a group, of which nothing runs.
    pub(super) fn new(shape: Shape) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let port = 10_000 + process % 20_000;
        // Each replica has an address of its own: a port would have to be free whenever it starts again.
        let peers = (0..shape.nodes as u64)
            .map(|id| {
                let [_, _, high, low] = (number * 16 + u32::try_from(id).unwrap()).to_be_bytes();
                let address = Ipv4Addr::new(127, (1 + process % 250) as u8, high, low);
                Peer { id, address: format!("{address}:{port}") }
            })
            .collect();
        Self {
            group: format!("g{number}"),
            folders: (0..shape.nodes).map(|_| tempfile::tempdir().unwrap()).collect(),
            peers,
            nodes: Mutex::new((0..shape.nodes).map(|_| None).collect()),
            clocks: vec![Clock::system(); shape.nodes],
            cut: Mutex::default(),
            shape,
        }
    }

    pub(super) async fn start() -> Self {
        Self::start_with(Shape::default()).await
    }

    pub(super) async fn start_with(shape: Shape) -> Self {
        let cluster = Self::new(shape);
        for id in 0..cluster.shape.nodes {
            cluster.start_node(id).await;
        }
        cluster
    }

    pub(super) fn root(&self, id: usize) -> PathBuf {
        self.folders[id].path().join("store")
    }

    pub(super) fn store_config(&self, id: usize) -> StoreConfig {
        self.shape.store_config(self.root(id))
    }

    pub(super) async fn start_node(&self, id: usize) {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            match self.try_start(id).await {
                Ok(()) => return,
                // Somebody still looks at the store of the node that was there before.
                Err(error) if error.to_string().contains("in use by another broker") => {}
                // So does the port, for a moment, when many groups start and end.
                Err(error) if error.to_string().contains("Address already in use") => {}
                Err(error) => panic!("n{id} does not start: {error}"),
            }
            assert!(tokio::time::Instant::now() < deadline, "n{id}'s store stays in use");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) async fn try_start(&self, id: usize) -> Result<(), Error> {
        let faults = Arc::new(Faults::with_power());
        let disk = Disk::faulty(Arc::clone(&faults));
        let metadata = Arc::new(Metadata::open(&self.root(id).join("config"), disk.clone()).unwrap());
        let bind_address = self.peers[id].address.split(':').next().unwrap().to_owned();
        let settings = GroupSettings {
            group: self.group.clone(),
            id: id as u64,
            peers: self.peers.clone(),
            preferred_leaders: Vec::new(),
            client_address: format!("127.0.0.1:{}", 1000 + id),
            bind_address,
            flush: self.shape.flush,
            heartbeat_ms: 50,
            election_min_ms: self.shape.election_ms.0,
            election_max_ms: self.shape.election_ms.1,
            entry_bytes_max: 16 << 10,
            in_flight_max: 8,
            offset_commit_interval_ms: 20,
        };
        let limits = QueueLimits { bytes_max: 1 << 20, wait_max: Duration::from_millis(200) };
        let failure = Arc::new(OnceLock::new());
        let told = Arc::clone(&failure);
        let listener = Listener::new(move |event| {
            if let Event::Failed(reason) = event {
                let _ = told.set(reason.to_owned());
            }
        });
        let replication = Replication::start_group(
            self.store_config(id),
            listener,
            Arc::clone(&metadata),
            settings,
            limits,
            (disk, self.clocks[id].clone()),
        )
        .await?;
        self.lock()[id] = Some(Arc::new(Node { id, replication, metadata, faults, failure }));
        Ok(())
    }

    /// Stops a node in order. Returns what became of it.
    pub(super) async fn stop_node(&self, id: usize) {
        let node = self.lock()[id].take();
        if let Some(node) = node {
            within("a node stops", node.replication.stop()).await.unwrap();
        }
    }

    /// Kills a node's process.
    pub(super) async fn crash(&self, id: usize) {
        let node = self.lock()[id].take();
        if let Some(node) = node {
            node.faults.die();
            within("a killed node ends", node.group().crash()).await;
        }
    }

    /// Takes the power from a node: what was not synced is lost, as far as `loses` says.
    pub(super) async fn lose_power(&self, id: usize, loses: impl FnMut() -> bool) {
        let Some(faults) = self.lock()[id].as_ref().map(|node| Arc::clone(&node.faults)) else { return };
        self.crash(id).await;
        faults.lose_power(loses).unwrap();
    }

    pub(super) fn node(&self, id: usize) -> Arc<Node> {
        self.lock()[id].clone().unwrap()
    }

    pub(super) fn is_running(&self, id: usize) -> bool {
        self.lock()[id].is_some()
    }

    pub(super) fn running(&self) -> Vec<Arc<Node>> {
        self.lock().iter().flatten().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Arc<Node>>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts these ways, too.
    pub(super) fn cut(&self, ways: impl IntoIterator<Item = (usize, usize)>) {
        let mut cut = self.cut.lock().unwrap();
        cut.extend(ways.into_iter().map(|(from, to)| (from as u64, to as u64)));
        links::cut(&self.group, cut.iter().copied());
    }

    /// Cuts all ways from and to a node.
    pub(super) fn isolate(&self, id: usize) {
        let others = (0..self.shape.nodes).filter(|other| *other != id);
        self.cut(others.flat_map(|other| [(id, other), (other, id)]));
    }

    pub(super) fn heal(&self) {
        self.cut.lock().unwrap().clear();
        links::cut(&self.group, []);
    }

    /// Returns a node that says that it leads, of the highest term.
    pub(super) fn leader_now(&self) -> Option<(Arc<Node>, Term)> {
        let leaders = self.running().into_iter().filter_map(|node| {
            let role = node.replication.role().borrow().clone();
            if let Role::Leader(term) = role { Some((node, term)) } else { None }
        });
        leaders.max_by_key(|(_, term)| *term)
    }

    pub(super) async fn leader(&self) -> (usize, Term) {
        let (node, term) = eventually("a leader", || self.leader_now()).await;
        (node.id, term)
    }

    pub(super) async fn leader_but(&self, id: usize) -> (usize, Term) {
        let other = || self.leader_now().filter(|(node, _)| node.id != id);
        let (node, term) = eventually("another leader", other).await;
        (node.id, term)
    }

    pub(super) async fn send(&self, text: &str) -> Result<u64, Error> {
        let (leader, _) = self.leader().await;
        self.node(leader).send("T", text).await
    }

    /// Sends until it is acknowledged.
    pub(super) async fn send_surely(&self, topic: &str, text: &str) {
        let sent = async {
            loop {
                if let Some((leader, _)) = self.leader_now()
                    && leader.send(topic, text).await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        within("a message is acknowledged", sent).await;
    }

    /// Waits until all running replicas have applied all that any of them has.
    pub(super) async fn settled(&self) {
        let running = self.running();
        let same = || {
            let status: Vec<_> = running.iter().map(|node| node.replication.status().unwrap()).collect();
            let last = status.iter().map(|status| status.last_index).max();
            status.iter().all(|status| Some(status.applied_index) == last).then_some(last)
        };
        let settled = tokio::time::timeout(LIMIT, stays(Duration::from_millis(100), same)).await;
        if settled.is_err() {
            let mut text = String::new();
            for node in &running {
                let status = node.replication.status().unwrap();
                text += &format!("{status:?} failure {:?}\n", node.failure());
            }
            panic!("replicas do not get to the same entry:\n{text}");
        }
        for node in &running {
            assert_eq!(node.failure(), None, "n{}", node.id);
        }
    }

    /// Waits until all running replicas have applied the same, and checks that they hold the same.
    pub(super) async fn assert_equal(&self) -> Content {
        self.settled().await;
        let running = self.running();
        // The one that retains most says what was in the queues of the others.
        let first = running.iter().min_by_key(|node| node.store().log().min()).unwrap();
        let content = Content::of(first);
        for other in running.iter().filter(|node| node.id != first.id) {
            let (one, two) = (first.store(), other.store());
            assert_eq!(one.log().committed(), two.log().committed());
            let size = self.shape.segment_bytes;
            let mut at = one.log().min().max(two.log().min());
            while at < one.log().committed() {
                let end = PhysicalOffset(((at.0 / size + 1) * size).min(one.log().committed().0));
                let len = usize::try_from(end.0 - at.0).unwrap();
                assert_eq!(one.log().slice(at, len), two.log().slice(at, len), "log from {at}");
                at = end;
            }
            assert_eq!(first.metadata.image(), other.metadata.image());
        }
        for node in &running {
            content.check_queues(node);
        }
        content
    }

    pub(super) async fn stop(self) {
        for id in 0..self.shape.nodes {
            self.stop_node(id).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.heal();
    }
}

/// A message as the log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) topic: String,
    pub(super) queue: u32,
    pub(super) offset: u64,
    pub(super) body: String,
}

impl Stored {
    pub(super) fn of(record: &Record<'_>) -> Self {
        Self {
            topic: record.topic.to_owned(),
            queue: record.queue_id,
            offset: record.queue_offset.0,
            body: String::from_utf8(record.body.to_vec()).unwrap(),
        }
    }
}

/// What a log holds, read without a look at what is derived from it.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) min: u64,
    pub(super) messages: BTreeMap<u64, Stored>,
    pub(super) commands: Vec<(MetadataCommand, i64)>,
    /// Positions by queue, with the offset of the first.
    pub(super) queues: BTreeMap<(String, u32), (u64, Vec<u64>)>,
}

impl Content {
    pub(super) fn of(node: &Node) -> Self {
        let log = node.store().log();
        let size = node.store().config().segment_bytes;
        let mut content = Self { min: log.min().0, ..Self::default() };
        let (mut position, end) = (log.min(), log.committed());
        let mut last = None;
        while position < end {
            let stop = PhysicalOffset(((position.0 / size + 1) * size).min(end.0));
            let bytes = log.slice(position, usize::try_from(stop.0 - position.0).unwrap()).unwrap();
            let head = match decode_entry(&bytes, position) {
                Ok(head) => head,
                Err(EntryError::Blank) => {
                    position = stop;
                    continue;
                }
                Err(error) => panic!("n{}: {error} at {position}", node.id),
            };
            if let Some((index, crc)) = last {
                assert_eq!((head.index.0, head.previous_crc), (index + 1, crc), "at {position}");
            }
            last = Some((head.index.0, head.crc));
            content.take(&bytes[head.record_len..head.len()]);
            for topic in &head.forgotten {
                content.queues.retain(|(name, _), _| name != topic);
            }
            let commands = decode_commands(head.command).unwrap_or_default();
            content.commands.extend(commands.into_iter().map(|command| (command, head.store_timestamp)));
            position = position.plus(head.len() as u64);
        }
        content
    }

    fn take(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            let record = Record::decode(rest).unwrap();
            let (position, stored) = (record.physical_offset.0, Stored::of(&record));
            let first = if self.min == 0 { 0 } else { stored.offset };
            let queue = self.queues.entry((stored.topic.clone(), stored.queue));
            let (first, positions) = queue.or_insert((first, Vec::new()));
            assert_eq!(stored.offset, *first + positions.len() as u64, "{stored:?} at {position}");
            positions.push(position);
            self.messages.insert(position, stored);
            rest = &rest[record.total_size..];
        }
    }

    /// Checks that a node's queues are what its log says.
    pub(super) fn check_queues(&self, node: &Node) {
        let store = node.store();
        for ((topic, id), (first, positions)) in &self.queues {
            let queue = store.queues().get(&Topic::new(topic), QueueId(*id));
            let queue = queue.unwrap_or_else(|| panic!("n{} lacks {topic} {id}", node.id));
            let max = first + positions.len() as u64;
            assert_eq!(queue.max_offset().0, max, "n{} {topic} {id}", node.id);
            for (offset, position) in (*first..).zip(positions) {
                if *position < store.log().min().0 {
                    continue;
                }
                let entry = queue.entry(QueueOffset(offset)).unwrap();
                let at = entry.map(|entry| entry.position.0);
                assert_eq!(at, Some(*position), "n{} {topic} {id} {offset}", node.id);
            }
        }
        for (topic, id, queue) in store.queues().all() {
            let known = self.queues.contains_key(&(topic.as_str().to_owned(), id.0));
            let empty = queue.min_offset() == queue.max_offset();
            let own = topic.as_str() == system_topic::RAFT_LOG;
            assert!(known || own || empty, "n{} has {topic} {id}, which is not in the log", node.id);
        }
    }

    /// Checks that a node's tables are what its log, which must be whole, says.
    pub(super) fn check_tables(&self, node: &Node) {
        let folder = tempfile::tempdir().unwrap();
        let tables = Metadata::open(folder.path(), Disk::real()).unwrap();
        self.commands.iter().for_each(|(command, now_ms)| tables.apply(command, *now_ms));
        assert_eq!(node.metadata.image(), tables.image(), "n{}", node.id);
    }
}

/// Reads without limits that matter.
pub(super) const READ: ReadLimits = ReadLimits {
    count_max: 16,
    bytes_max: 1 << 20,
    cold_count_max: 16,
    cold_bytes_max: 1 << 20,
    cold_distance: u64::MAX,
};

pub(super) fn draft(topic: &str, queue_id: u32, text: &str) -> Draft {
    Draft::new(&Message::plain(topic, queue_id, text, "")).unwrap()
}

pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {what}"))
}

/// Waits until there is something.
pub(super) async fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(what, poll(look)).await
}

/// Waits until the same is there for a while: progress that was noted is committed a moment later.
async fn stays<T: PartialEq>(time: Duration, mut look: impl FnMut() -> Option<T>) {
    let mut known = (look(), tokio::time::Instant::now());
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = look();
        if now.is_none() || now != known.0 {
            known = (now, tokio::time::Instant::now());
        } else if known.1.elapsed() >= time {
            return;
        }
    }
}

async fn poll<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
