//! A group in a simulation: its replicas, their disks and clocks, the network between them.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::super::cluster::{Node, Shape, within};
use super::disk::{DiskThreads, QUICK, Speed};
use super::net::{End, Net};
use super::observer::Observer;
use super::trace::Trace;
use crate::env::{Clock, Disk, Faults, Threads};
use crate::metadata::Metadata;
use crate::model::Term;
use crate::replication::raft::{Sockets, Start};
use crate::replication::{Error, GroupSettings, Peer, QueueLimits, Replication, Role};
use crate::store::{Event, Listener, Retention, StoreConfig};

/// How long a replica may take to start: it may be waiting until the one before has let go of its store.
const START_LIMIT: Duration = Duration::from_secs(20);

pub(super) struct World {
    pub(super) shape: Shape,
    /// The disk fills: segments go as soon as they may.
    pub(super) retains_little: bool,
    pub(super) net: Arc<Net>,
    pub(super) trace: Trace,
    random: Mutex<fastrand::Rng>,
    clocks: Vec<Clock>,
    replicas: Mutex<Vec<Replica>>,
    pub(super) observer: Mutex<Observer>,
}

/// The place of one replica, over its restarts.
#[derive(Default)]
struct Replica {
    process: Option<Process>,
    /// Counts the starts.
    incarnation: u64,
}

#[derive(Clone)]
struct Process {
    node: Arc<Node>,
    threads: DiskThreads,
}

impl World {
    pub(super) fn new(shape: Shape, retains_little: bool, trace: Trace, mut random: fastrand::Rng) -> Self {
        let nodes = shape.nodes;
        Self {
            shape,
            retains_little,
            net: Net::new(nodes, random.fork(), trace.clone()),
            trace,
            random: Mutex::new(random),
            clocks: (0..nodes).map(|_| Clock::wrong()).collect(),
            replicas: Mutex::new((0..nodes).map(|_| Replica::default()).collect()),
            observer: Mutex::new(Observer::new(nodes)),
        }
    }

    pub(super) fn ids(&self) -> std::ops::Range<usize> {
        0..self.shape.nodes
    }

    /// Relative, so that no path differs from one run to the next.
    pub(super) fn root(&self, id: usize) -> PathBuf {
        Path::new(&format!("n{id}")).join("store")
    }

    fn store_config(&self, id: usize) -> StoreConfig {
        let config = self.shape.store_config(self.root(id));
        // Whatever the hour is.
        let retention = Retention { delete_hours: Vec::new(), ..config.retention };
        StoreConfig { retention, ..config }
    }

    fn settings(&self, id: usize) -> GroupSettings {
        let address = |id| format!("n{id}:7000");
        let peers = self.ids().map(|id| Peer { id: id as u64, address: address(id) });
        GroupSettings {
            group: "sim".into(),
            id: id as u64,
            peers: peers.collect(),
            preferred_leaders: Vec::new(),
            client_address: format!("c{id}:1000"),
            bind_address: format!("n{id}"),
            flush: self.shape.flush,
            heartbeat_ms: self.shape.election_ms.0 / 4,
            election_min_ms: self.shape.election_ms.0,
            election_max_ms: self.shape.election_ms.1,
            entry_bytes_max: 8 << 10,
            in_flight_max: 8,
            offset_commit_interval_ms: 20,
        }
    }

    /// Starts a replica. If its disk dies meanwhile, it does not run.
    pub(super) async fn start(&self, id: usize, dies_after: Option<u64>) {
        let deadline = tokio::time::Instant::now() + START_LIMIT;
        loop {
            match self.try_start(id, dies_after).await {
                Ok(()) => return,
                // Somebody still looks at the store of the process before.
                Err((error, _)) if error.to_string().contains("in use by another broker") => {}
                Err((error, faults)) if faults.is_dead() => {
                    self.trace.line(&format!("n{id} died while it started: {error}"));
                    self.net.end(id, End::Process);
                    return;
                }
                Err((error, _)) => panic!("n{id} does not start: {error}"),
            }
            assert!(tokio::time::Instant::now() < deadline, "n{id}'s store stays in use");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn try_start(&self, id: usize, dies_after: Option<u64>) -> Result<(), (Error, Arc<Faults>)> {
        let faults = Arc::new(Faults::with_power());
        let percent = if self.retains_little { 87 } else { 10 };
        faults.used_percent.store(percent, Ordering::SeqCst);
        if let Some(changes) = dies_after {
            faults.die_after(changes);
        }
        let random = self.random.lock().unwrap().fork();
        let threads = DiskThreads::new(id, random, self.trace.clone());
        let disk =
            Disk::faulty(Arc::clone(&faults)).with_threads(Threads::simulated(Arc::new(threads.clone())));
        let metadata = Metadata::open(&self.root(id).join("config"), disk.clone());
        let metadata = Arc::new(metadata.map_err(|error| (error.into(), Arc::clone(&faults)))?);
        let failure = Arc::new(OnceLock::new());
        let told = Arc::clone(&failure);
        let listener = Listener::new(move |event| {
            if let Event::Failed(reason) = event {
                let _ = told.set(reason.to_owned());
            }
        });
        self.net.start(id);
        let start = Start {
            store: self.store_config(id),
            listener,
            metadata: Arc::clone(&metadata),
            settings: self.settings(id),
            limits: QueueLimits { bytes_max: 1 << 20, wait_max: Duration::from_millis(200) },
            disk,
            clock: self.clocks[id].clone(),
            sockets: Sockets::Simulated(self.net.host(id)),
        };
        let started = Replication::start_replica(start).await;
        let replication = started.map_err(|error| (error, Arc::clone(&faults)))?;
        let node = Arc::new(Node { id, replication, metadata, faults, failure });
        self.hold(|observer| observer.recovered(self, &node));
        let mut replicas = self.lock();
        replicas[id].incarnation += 1;
        replicas[id].process = Some(Process { node, threads });
        Ok(())
    }

    /// Stops a replica in order.
    pub(super) async fn stop(&self, id: usize) {
        let Some(node) = self.node(id) else { return };
        let stopped = within("a replica stops", node.replication.stop()).await;
        if let Err(error) = stopped {
            assert!(self.is_broken(id), "n{id} stops: {error}");
        }
        // Until here it may have written and acknowledged.
        self.look();
        self.lock()[id].process = None;
        self.net.end(id, End::Process);
    }

    /// Kills a replica's process, or takes the power from its host.
    pub(super) async fn crash(&self, id: usize, end: End) -> Option<Arc<Faults>> {
        self.look();
        let process = self.lock()[id].process.take()?;
        process.node.faults.die();
        self.net.end(id, end);
        process.threads.pause(false);
        within("a killed replica ends", process.node.group().crash()).await;
        Some(Arc::clone(&process.node.faults))
    }

    pub(super) fn node(&self, id: usize) -> Option<Arc<Node>> {
        self.lock()[id].process.as_ref().map(|process| Arc::clone(&process.node))
    }

    pub(super) fn is_running(&self, id: usize) -> bool {
        self.lock()[id].process.is_some()
    }

    /// Whether its disk was made to fail.
    pub(super) fn is_broken(&self, id: usize) -> bool {
        self.node(id)
            .is_none_or(|node| node.faults.is_dead() || node.faults.sync_fails.load(Ordering::SeqCst))
    }

    /// Has the invariants checked. Ends the simulation if one does not hold.
    pub(super) fn look(&self) {
        self.hold(|observer| observer.look(self));
    }

    fn hold(&self, look: impl FnOnce(&mut Observer) -> Result<(), String>) {
        if let Err(error) = look(&mut self.observer.lock().unwrap_or_else(PoisonError::into_inner)) {
            panic!("{error}");
        }
    }

    pub(super) fn incarnation(&self, id: usize) -> u64 {
        self.lock()[id].incarnation
    }

    pub(super) fn running(&self) -> Vec<Arc<Node>> {
        self.lock().iter().filter_map(|replica| Some(Arc::clone(&replica.process.as_ref()?.node))).collect()
    }

    /// Returns a replica that says that it leads, of the highest term.
    pub(super) fn leader_now(&self) -> Option<(Arc<Node>, Term)> {
        let leaders = self.running().into_iter().filter_map(|node| {
            let role = node.replication.role().borrow().clone();
            if let Role::Leader(term) = role { Some((node, term)) } else { None }
        });
        leaders.max_by_key(|(_, term)| *term)
    }

    /// Holds a process, or lets it go on.
    pub(super) fn pause(&self, id: usize, paused: bool) {
        self.net.pause(id, paused);
        if let Some(process) = &self.lock()[id].process {
            process.threads.pause(paused);
        }
    }

    pub(super) fn set_speed(&self, id: usize, speed: Speed) {
        if let Some(process) = &self.lock()[id].process {
            process.threads.set_speed(speed);
        }
    }

    pub(super) fn jump_clock(&self, id: usize, by_ms: i64) {
        self.clocks[id].jump_ms(by_ms);
    }

    /// Cuts all ways from and to a host.
    pub(super) fn isolate(&self, id: usize) {
        let others = self.ids().filter(|other| *other != id);
        self.net.cut(others.flat_map(|other| [(id, other), (other, id)]));
    }

    /// Takes away what was done to the network, the hosts and the disks that run.
    pub(super) fn heal(&self) {
        self.net.heal();
        for id in self.ids() {
            self.pause(id, false);
            self.set_speed(id, QUICK);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Replica>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
