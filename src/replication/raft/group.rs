//! One replica's part in its group: starting, writing, operations, stopping.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::{ChangeMembers, Config, ServerState, SnapshotPolicy, StepDownPolicy};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::codec::StateImage;
use super::files::{Files, ReplicaFile};
use super::log::Log;
use super::machine::{Machine, Shared, blocking};
use super::network::{Connections, Replica, Timing, hello};
use super::proposal::{Batch, batches};
use super::server::{Local, serve};
use super::sockets::Sockets;
use super::types::{Member, Proposal, Raft, Types, committed_leader};
use super::{roles, wire};
use crate::env::{Clock, Disk, Random};
use crate::metadata::{Metadata, MetadataCommand, MetadataImage};
use crate::metrics::Histogram;
use crate::model::{LogIndex, PhysicalOffset, Term};
use crate::replication::pending::{PendingAppend, PendingChange};
use crate::replication::queue::{AppendQueue, encoded_len};
use crate::replication::{
    Error, FlushMode, GroupSettings, GroupStatus, MemberStatus, QueueLimits, ReplicaState, Role,
};
use crate::store::{
    Draft, EntryOptions, FORGOTTEN_MAX, Listener, OpenedEntries, Store, StoreConfig, Threads,
};

/// How long a question to another replica may take.
pub(super) const HELLO_LIMIT: Duration = Duration::from_secs(1);
/// How long a proposal waits for a majority to be heard from again before it is refused.
const LEASE_WAIT: Duration = Duration::from_secs(1);
/// How long a replica that was heard from may take to say whether it can take over.
const SUCCESSOR_LIMIT: Duration = Duration::from_millis(500);
/// A replica that lacks no more entries than this has all that is not just on its way.
const ON_THEIR_WAY: u64 = 64;
/// How long a hand-over of the leadership may take.
const TRANSFER_LIMIT: Duration = Duration::from_secs(5);
/// How long a hand-over waits for noted progress to be committed.
const NOTES_LIMIT: Duration = Duration::from_millis(500);
/// How long a stopping leader tries to hand over.
const STOP_TRANSFER_LIMIT: Duration = Duration::from_secs(1);
/// How long a change of the members may take, the copying of the log to a new one included.
const MEMBERSHIP_LIMIT: Duration = Duration::from_secs(3600);

/// What a replica is started with.
pub(crate) struct Start {
    pub(crate) store: StoreConfig,
    pub(crate) listener: Listener,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) settings: GroupSettings,
    pub(crate) limits: QueueLimits,
    pub(crate) disk: Disk,
    pub(crate) clock: Clock,
    pub(crate) sockets: Sockets,
}

/// One replica of a group.
#[derive(Debug)]
pub(crate) struct Group {
    pub(super) settings: GroupSettings,
    pub(super) shared: Arc<Shared>,
    log: Log,
    pub(super) connections: Connections,
    pub(super) replica: Mutex<ReplicaFile>,
    /// Set when the replica takes part in the group.
    pub(super) raft: OnceLock<Raft>,
    /// Why it does not, and what to do.
    pub(super) outside: Mutex<Option<String>>,
    /// Where clients reach the others.
    pub(super) addresses: watch::Sender<HashMap<u64, String>>,
    pub(super) role: watch::Sender<Role>,
    queue: Arc<AppendQueue>,
    /// Held while noted offsets are queued, or forgotten for one that is queued: a noted one must not come behind it.
    offsets_order: Mutex<()>,
    pub(super) leader_changes: AtomicU64,
    /// How many hand-overs of the leadership are under way.
    handing_over: AtomicU64,
    /// The newest term whose leadership was offered to another replica, which may take it whatever the lease.
    given_up: AtomicU64,
    /// Until when this replica may not vote: before it restarted it may have told a leader that it follows.
    pub(super) quiet_until: Option<Instant>,
    /// This replica is about to stop: nobody shall hand over to it.
    leaving: AtomicBool,
    /// An entry that this replica lost and must have again before it votes.
    pub(super) barrier: Mutex<Option<LogIndex>>,
    /// Handed to openraft when the replica takes part.
    machine: Mutex<Option<Machine>>,
    pub(super) stop: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    maintenance: Mutex<Option<Threads>>,
    /// Set by the first of several calls of `stop`.
    stopped: Mutex<bool>,
}

impl Group {
    /// Opens the store, listens on the Raft port, and takes part in the group as soon as that is safe.
    pub(crate) async fn start(start: Start) -> Result<Arc<Self>, Error> {
        let Start { store, listener, metadata, settings, limits, disk, clock, sockets } = start;
        let own = settings
            .peers
            .iter()
            .find(|peer| peer.id == settings.id)
            .map(|peer| peer.address.clone())
            .ok_or_else(|| Error::Group(format!("dLegerPeers does not name n{}", settings.id)))?;
        let port = own.rsplit(':').next().unwrap_or_default();
        let address = format!("{}:{port}", settings.bind_address);
        let raft_listener = sockets
            .listen(&address)
            .await
            .map_err(|error| Error::Failed(format!("listen on the Raft port {address}: {error}")))?;
        let sync = settings.flush == FlushMode::Sync;
        let (group_name, id) = (settings.group.clone(), settings.id);
        let (meta, clk) = (Arc::clone(&metadata), clock.clone());
        let threads = disk.threads().clone();
        let opened =
            blocking(&threads, move || open(store, listener, &meta, &group_name, id, sync, disk, clk)).await;
        let Opened { opened, files, replica, image, floor } = opened.map_err(failed)?;
        let OpenedEntries { store, log: entries, committer, damaged_below } = opened;
        let barrier = files.barrier().map_err(failed)?.max(damaged_below);
        if let Some(index) = barrier {
            tracing::error!(
                %index, "the log was damaged: this replica does not vote until it has the entries up to this one again"
            );
            files.save_barrier(index).map_err(failed)?;
        }
        // Nobody counts on a replica that never took part.
        let took_part = settings.peers.len() > 1 && files.vote().map_err(failed)?.is_some();
        let quiet_until = took_part.then(|| Instant::now() + Duration::from_millis(settings.election_max_ms));
        let maintenance = Threads::start(&store)?;
        let (files, entries) = (Arc::new(files), Arc::new(entries));
        let shared = Shared::new(
            Arc::clone(&store),
            Arc::clone(&entries),
            metadata,
            Arc::clone(&files),
            clock,
            image.as_ref(),
        );
        let shared = Arc::new(shared.map_err(failed)?);
        let log = Log::new(
            entries,
            store,
            files,
            Arc::clone(&shared.waiting),
            floor.as_ref().and_then(StateImage::last_log_id),
        );
        let log = log.map_err(failed)?;
        let machine = Machine::new(Arc::clone(&shared), committer, log.clone());
        let who = Replica { group: settings.group.clone(), id: settings.id };
        let timing = Timing::new(Duration::from_millis(settings.heartbeat_ms));
        let (stop, stopping) = watch::channel(false);
        let group = Arc::new(Self {
            connections: Connections::new(who.clone(), timing, sockets),
            shared,
            log,
            replica: Mutex::new(replica),
            raft: OnceLock::new(),
            outside: Mutex::new(Some("it has just started".into())),
            addresses: watch::channel(HashMap::new()).0,
            role: watch::channel(Role::Follower { term: Term(0), leader: None }).0,
            queue: Arc::new(AppendQueue::new(limits)),
            offsets_order: Mutex::default(),
            leader_changes: AtomicU64::new(0),
            handing_over: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            quiet_until,
            leaving: AtomicBool::new(false),
            barrier: Mutex::new(barrier),
            machine: Mutex::new(Some(machine)),
            stop,
            tasks: Mutex::default(),
            maintenance: Mutex::new(Some(maintenance)),
            stopped: Mutex::new(false),
            settings,
        });
        let server = serve(raft_listener, who, Arc::<Self>::clone(&group), stopping);
        let joining = tokio::spawn(super::join::run(Arc::clone(&group)));
        group.lock_tasks().extend([server, joining]);
        Ok(group)
    }

    /// Starts openraft, and what needs it.
    pub(super) async fn take_part(self: &Arc<Self>) -> Result<Raft, Error> {
        let machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner).take();
        let machine = machine.ok_or_else(|| Error::Group("the replica takes part already".into()))?;
        let config = Arc::new(config(&self.settings)?);
        // First: openraft looks at entries anywhere in the log, and waits for those that are damaged.
        self.lock_tasks().push(tokio::spawn(super::mend::run(Arc::clone(self))));
        let raft =
            Raft::new(self.settings.id, config, self.connections.clone(), self.log.clone(), machine).await;
        let raft = raft.map_err(|error| Error::Failed(format!("start Raft: {error}")))?;
        self.allow_elections(&raft);
        if let Some(rest) = self.vote_rest() {
            let (group, raft, mut stop) = (Arc::clone(self), raft.clone(), self.stop.subscribe());
            self.lock_tasks().push(tokio::spawn(async move {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => {}
                    () = tokio::time::sleep(rest) => group.allow_elections(&raft),
                }
            }));
        }
        *self.outside.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = self.raft.set(raft.clone());
        self.lock_tasks().extend([
            tokio::spawn(roles::run(Arc::clone(self), raft.clone())),
            tokio::spawn(roles::learn_addresses(Arc::clone(self))),
            tokio::spawn(roles::learn_leader(Arc::clone(self), raft.clone())),
            tokio::spawn(roles::tend(Arc::clone(self), raft.clone())),
            tokio::spawn(propose(Arc::clone(self), raft.clone())),
            tokio::spawn(commit_notes(Arc::clone(self))),
        ]);
        Ok(raft)
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }

    pub(crate) fn role(&self) -> watch::Receiver<Role> {
        self.role.subscribe()
    }

    pub(crate) async fn append(
        &self,
        term: Term,
        draft: Draft,
        command: Option<MetadataCommand>,
    ) -> Result<PendingAppend, Error> {
        let len = self.check_len(draft.len() + command.as_ref().map_or(0, encoded_len))?;
        if self.shared.store.is_full() {
            return Err(Error::Full("the used space of the disk is above diskSpaceWarningLevelRatio".into()));
        }
        self.queue.put(term, draft, command, len).await
    }

    /// Refuses what would not fit into one entry; returns its length.
    fn check_len(&self, len: usize) -> Result<usize, Error> {
        let max = self.shared.entries.draft_max();
        if len <= max {
            return Ok(len);
        }
        Err(Error::Refused(format!(
            "{len} bytes do not fit into a segment; the most is {max}, raise mappedFileSizeCommitLog"
        )))
    }

    pub(crate) fn change(&self, term: Term, command: MetadataCommand) -> Result<PendingChange, Error> {
        let len = self.check_len(encoded_len(&command))?;
        if let MetadataCommand::DeleteTopic(topic) = &command
            && topic.as_str().len() > FORGOTTEN_MAX
        {
            return Err(Error::Refused(format!("no topic's name has {} bytes", topic.as_str().len())));
        }
        let _in_order;
        if let MetadataCommand::CommitOffset { group, topic, queue_id, .. } = &command {
            _in_order = self.offsets_order.lock().unwrap_or_else(PoisonError::into_inner);
            self.shared.metadata.forget_noted(Some((group, topic, *queue_id)));
        }
        self.queue.change(term, command, len)
    }

    pub(crate) fn note(&self, term: Term, command: MetadataCommand) -> Result<(), Error> {
        match command {
            MetadataCommand::CommitOffset { group, topic, queue_id, offset } => {
                self.shared.metadata.note(&group, &topic, queue_id, offset);
                Ok(())
            }
            other => self.change(term, other).map(|_| ()),
        }
    }

    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    pub(super) fn is_handing_over(&self) -> bool {
        self.handing_over.load(Ordering::SeqCst) > 0
    }

    /// Whether a hand-over of this term was begun.
    pub(super) fn has_given_up(&self, term: Term) -> bool {
        self.given_up.load(Ordering::SeqCst) >= term.0
    }

    /// Lets Raft begin elections, or not, as this replica may vote.
    pub(super) fn allow_elections(&self, raft: &Raft) {
        raft.runtime_config().elect(self.barrier().is_none() && self.vote_rest().is_none());
    }

    /// Returns the Raft handle, or why this replica does not take part.
    fn raft_or_reason(&self) -> Result<&Raft, Error> {
        self.raft.get().ok_or_else(|| {
            let outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Error::Group(format!(
                "n{} does not take part in the group: {}",
                self.settings.id,
                outside.unwrap_or_default()
            ))
        })
    }

    /// Returns the Raft handle of a leader.
    fn leading(&self) -> Result<&Raft, Error> {
        let raft = self.raft_or_reason()?;
        if self.role.borrow().is_leader() { Ok(raft) } else { Err(Error::NotLeader) }
    }

    pub(crate) async fn add_peer(&self, id: u64, address: &str) -> Result<(), Error> {
        let raft = self.leading()?;
        if self.shared.membership().get_node(&id).is_some() {
            return Err(Error::Group(format!("n{id} is a member already; removePeer or rejoin it first")));
        }
        self.take_in(raft, id, address).await
    }

    pub(crate) async fn remove_peer(&self, id: u64) -> Result<(), Error> {
        let raft = self.leading()?;
        let membership = self.shared.membership();
        if membership.get_node(&id).is_none() {
            return Err(Error::Group(format!("n{id} is not a member of {}", self.settings.group)));
        }
        if membership.voter_ids().eq([id]) {
            return Err(Error::Group(format!("n{id} is the only voter; add another one first")));
        }
        if id == self.settings.id {
            return Err(Error::Group(format!("n{id} leads; hand over with transferLeader first")));
        }
        self.take_out(raft, id).await
    }

    pub(crate) async fn rejoin(&self, id: u64) -> Result<(), Error> {
        let raft = self.leading()?;
        let membership = self.shared.membership();
        let configured = self.settings.peers.iter().find(|peer| peer.id == id).map(|peer| &peer.address);
        let known = membership.get_node(&id).map(|member| &member.raft_address);
        let address = known.or(configured).cloned().ok_or_else(|| {
            Error::Group(format!("n{id} was never a member and is not in dLegerPeers; use addPeer"))
        })?;
        if id == self.settings.id {
            return Err(Error::Group(format!("n{id} leads this group; it has its log")));
        }
        let identity = self.identity_at(id, &address).await?;
        if membership.get_node(&id).is_some_and(|member| member.identity == identity) {
            return Err(Error::Group(format!("n{id} is a member and did not lose its disk")));
        }
        if known.is_some() {
            self.take_out(raft, id).await?;
        }
        self.take_in(raft, id, &address).await
    }

    /// Asks a replica who it is. An error says why there is no answer.
    pub(super) async fn ask(&self, id: u64, address: &str) -> Result<wire::HelloResponse, String> {
        let replica = Replica { group: self.settings.group.clone(), id: self.settings.id };
        hello(self.connections.sockets(), address, replica.target(id), HELLO_LIMIT).await
    }

    /// Returns the numbers of the other members, and of those that `dLegerPeers` names.
    pub(super) fn others(&self) -> BTreeSet<u64> {
        let members = self.shared.membership();
        let known = members.nodes().map(|(id, _)| *id).chain(self.settings.peers.iter().map(|peer| peer.id));
        known.filter(|id| *id != self.settings.id).collect()
    }

    async fn identity_at(&self, id: u64, address: &str) -> Result<u128, Error> {
        let answer = self
            .ask(id, address)
            .await
            .map_err(|reason| Error::Group(format!("n{id} at {address} cannot be reached: {reason}")))?;
        wire::identity_from_bytes(&answer.identity)
            .map_err(|error| Error::Group(format!("n{id} at {address}: {error}")))
    }

    /// Makes a replica a learner, waits until it has the log, and gives it a vote.
    async fn take_in(&self, raft: &Raft, id: u64, address: &str) -> Result<(), Error> {
        let identity = self.identity_at(id, address).await?;
        let member = Member { raft_address: address.to_owned(), identity };
        tracing::info!(peer = id, address, "a replica is being added as a learner");
        let add = async {
            raft.add_learner(id, member, true).await.map_err(not_changed)?;
            let voters = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
            raft.change_membership(voters, false).await.map_err(not_changed)?;
            Ok(())
        };
        tokio::time::timeout(MEMBERSHIP_LIMIT, add)
            .await
            .unwrap_or_else(|_| Err(Error::Group(format!("n{id} did not catch up; it stays a learner"))))
    }

    async fn take_out(&self, raft: &Raft, id: u64) -> Result<(), Error> {
        tracing::info!(peer = id, "a replica is being removed");
        let ids = BTreeSet::from([id]);
        if self.shared.membership().voter_ids().any(|voter| voter == id) {
            raft.change_membership(ChangeMembers::RemoveVoters(ids.clone()), true)
                .await
                .map_err(not_changed)?;
        }
        raft.change_membership(ChangeMembers::RemoveNodes(ids), false).await.map_err(not_changed)?;
        Ok(())
    }

    pub(crate) async fn transfer_leader(&self, to: Option<u64>) -> Result<(), Error> {
        let raft = self.leading()?;
        let wanted = match to {
            Some(id) if id == self.settings.id => return Ok(()),
            Some(id) if self.shared.membership().voter_ids().any(|voter| voter == id) => id,
            Some(id) => return Err(Error::Group(format!("n{id} has no vote in {}", self.settings.group))),
            None => self
                .successor(raft, Room::Wanted)
                .await
                .ok_or_else(|| Error::Group("no other replica answers and has all of the log".into()))?,
        };
        match self.hand_over(raft, wanted, TRANSFER_LIMIT).await? {
            other if to.is_some_and(|to| to != other) => {
                Err(Error::Group(format!("n{wanted} did not take over; n{other} was elected instead")))
            }
            _ => Ok(()),
        }
    }

    /// Commits what is noted. What is not committed stays noted, as long as this replica leads.
    async fn commit_noted(&self) {
        let Role::Leader(term) = *self.role.borrow() else { return };
        let mut pending = Vec::new();
        {
            let _in_order = self.offsets_order.lock().unwrap_or_else(PoisonError::into_inner);
            for command in self.shared.metadata.noted() {
                let len = encoded_len(&command);
                pending.extend(self.queue.change(term, command, len));
            }
        }
        for change in pending {
            let _ = change.committed().await;
        }
    }

    /// Hands the leadership to `to` and waits until this replica knows who has it: another one is elected if `to` does
    /// not take it in time.
    pub(super) async fn hand_over(&self, raft: &Raft, to: u64, limit: Duration) -> Result<u64, Error> {
        tracing::info!(peer = to, "leadership is handed over");
        // What is only noted would be forgotten.
        let _ = tokio::time::timeout(NOTES_LIMIT, self.commit_noted()).await;
        // The others elect without waiting for the end of the lease.
        let _handing_over = HandingOver::begin(&self.handing_over);
        // For good: `to` may take over whenever it hears of this, also when nobody waits for it any more.
        self.given_up.fetch_max(self.role.borrow().term().0, Ordering::SeqCst);
        raft.trigger().transfer_leader(to).await.map_err(|error| Error::Failed(error.to_string()))?;
        let own = self.settings.id;
        let leads = |leader: Option<u64>| leader.filter(|leader| *leader != own);
        let handed = raft.wait(Some(limit));
        let handed =
            handed.metrics(|metrics| leads(metrics.current_leader).is_some(), "another leader").await;
        handed
            .ok()
            .and_then(|metrics| leads(metrics.current_leader))
            .ok_or_else(|| Error::Group(format!("n{to} did not take over within {} s", limit.as_secs())))
    }

    /// Returns the replica that is best suited to take over, of those that answer.
    pub(super) async fn successor(&self, raft: &Raft, room: Room) -> Option<u64> {
        let candidates = self.candidates(raft);
        let rooms = futures_util::future::join_all(candidates.iter().map(|id| self.has_room(*id))).await;
        let first = |has_room: bool| {
            let mut answers = candidates.iter().zip(&rooms);
            answers.find(|(_, answer)| **answer == Some(has_room)).map(|(id, _)| *id)
        };
        match room {
            Room::Wanted => first(true).or_else(|| first(false)),
            Room::Needed => first(true),
        }
    }

    /// Returns whether the disk of a replica has room; `None` if it does not say so soon, or is about to stop.
    pub(super) async fn has_room(&self, id: u64) -> Option<bool> {
        let address = self.raft_address(id)?;
        let answer = tokio::time::timeout(SUCCESSOR_LIMIT, self.ask(id, &address)).await.ok()?;
        answer.ok().filter(|answer| !answer.leaving).map(|answer| !answer.full)
    }

    /// Returns the voters that were heard from within an election time-out and have all of the log but for what is on
    /// its way. The first one has most of it; among equals, preferred ones come first.
    pub(super) fn candidates(&self, raft: &Raft) -> Vec<u64> {
        let heard = self.connections.heard(term_of(raft));
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        let last = metrics.last_log_index.unwrap_or(0);
        let preferred = |id: u64| {
            let list = &self.settings.preferred_leaders;
            list.iter().position(|preferred| *preferred == id).map_or(0, |at| list.len() - at)
        };
        let mut candidates: Vec<_> = metrics
            .replication
            .iter()
            .flatten()
            .filter(|(id, _)| **id != self.settings.id && voters.contains(id))
            .filter(|(id, _)| heard.get(id).is_some_and(|at| at.elapsed() < self.lease()))
            .filter_map(|(id, matched)| Some((matched.as_ref()?.index(), preferred(*id), *id)))
            .filter(|(matched, ..)| matched + ON_THEIR_WAY > last)
            .collect();
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        candidates.into_iter().map(|(_, _, id)| id).collect()
    }

    pub(crate) async fn read_barrier(&self) -> Result<(), Error> {
        let raft = self.raft_or_reason()?;
        let unconfirmed = |error: String| Error::Group(format!("the read could not be confirmed: {error}"));
        let leader = raft.current_leader().await.ok_or(Error::NotLeader)?;
        if leader == self.settings.id {
            return self.confirm(raft).await.map(|_| ());
        }
        let address = self.raft_address(leader).ok_or(Error::NotLeader)?;
        let read = self.connections.read_index(leader, &address, HELLO_LIMIT).await.map_err(unconfirmed)?;
        let applied = raft.wait(Some(LEASE_WAIT)).applied_index_at_least(Some(read), "a read").await;
        applied.map(|_| ()).map_err(|error| unconfirmed(error.to_string()))
    }

    /// Returns where a replica listens for the others.
    pub(super) fn raft_address(&self, id: u64) -> Option<String> {
        let members = self.shared.membership();
        members.get_node(&id).map(|member| member.raft_address.clone()).or_else(|| {
            self.settings.peers.iter().find(|peer| peer.id == id).map(|peer| peer.address.clone())
        })
    }

    pub(crate) fn commit_latency(&self) -> &Histogram {
        &self.shared.commit_latency
    }

    pub(crate) fn status(&self) -> GroupStatus {
        let log = self.shared.store.log();
        let entries = &self.shared.entries;
        let index = |id: Option<u64>| LogIndex(id.unwrap_or(0));
        let applied = self.shared.applied().map(|id| id.index());
        let mut status = GroupStatus {
            group: self.settings.group.clone(),
            id: self.settings.id,
            state: ReplicaState::Outside,
            outside_reason: self.outside.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            term: self.role.borrow().term(),
            leader: None,
            leader_address: None,
            first_index: entries.first_index().unwrap_or_default(),
            last_index: LogIndex(0),
            committed_index: index(applied),
            applied_index: index(applied),
            snapshot_index: None,
            log_min: log.min(),
            log_end: log.min(),
            quorum_age_ms: None,
            leader_changes: self.leader_changes.load(Ordering::Relaxed),
            members: Vec::new(),
        };
        if let Some(raft) = self.raft.get() {
            self.fill_status(raft, &mut status);
        }
        // Last: what is committed is in the log, also for somebody who asks while entries come in.
        status.last_index = entries.last().map(|last| last.index).unwrap_or_default();
        status.log_end = entries.end();
        status
    }

    fn fill_status(&self, raft: &Raft, status: &mut GroupStatus) {
        // Not while the metrics are borrowed: these borrow them, too.
        let ms = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let heard = self.connections.heard(term_of(raft));
        let followed = self.followed_at(raft, Term(term_of(raft)));
        let metrics = raft.metrics();
        let metrics = metrics.borrow_watched();
        status.state = match metrics.state {
            ServerState::Leader if self.role.borrow().is_leader() => ReplicaState::Leader,
            ServerState::Leader => ReplicaState::LeaderNotReady,
            ServerState::Candidate => ReplicaState::Candidate,
            ServerState::Learner => ReplicaState::Learner,
            _ => ReplicaState::Follower,
        };
        status.term = Term(metrics.current_term);
        status.leader = metrics.current_leader;
        status.leader_address = metrics.current_leader.and_then(|id| self.client_address(id));
        let committed = metrics.local_committed.map(|id| LogIndex(id.index()));
        status.committed_index = committed.unwrap_or_default().max(status.applied_index);
        status.snapshot_index = metrics.snapshot.map(|id| LogIndex(id.index()));
        if metrics.state.is_leader() {
            status.quorum_age_ms = followed.map(|at| ms(at.elapsed()));
        }
        let voters: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
        for (id, member) in metrics.membership_config.nodes() {
            let matched = match &metrics.replication {
                Some(_) if *id == self.settings.id => Some(status.last_index),
                Some(replication) => {
                    replication.get(id).map(|matched| LogIndex(matched.map_or(0, |id| id.index())))
                }
                None => None,
            };
            status.members.push(MemberStatus {
                id: *id,
                raft_address: member.raft_address.clone(),
                voter: voters.contains(id),
                matched_index: matched,
                lag: matched.map(|matched| status.last_index.0.saturating_sub(matched.0)),
                heard_ms: heard.get(id).map(|at| ms(at.elapsed())),
            });
        }
    }

    /// Returns where clients reach a replica, if it is known.
    pub(super) fn client_address(&self, id: u64) -> Option<String> {
        if id == self.settings.id {
            return Some(self.settings.client_address.clone());
        }
        self.addresses.borrow().get(&id).cloned()
    }

    /// Tells the others, as soon as they ask, that this replica is about to stop.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::SeqCst);
    }

    /// Hands over, stops openraft, and closes the store.
    pub(crate) async fn stop(&self) -> Result<(), Error> {
        self.leave();
        if std::mem::replace(&mut *self.stopped.lock().unwrap_or_else(PoisonError::into_inner), true) {
            return Ok(());
        }
        if let Some(raft) = self.raft.get() {
            if self.role.borrow().is_leader()
                && let Some(successor) = self.successor(raft, Room::Wanted).await
                && let Err(error) = self.hand_over(raft, successor, STOP_TRANSFER_LIMIT).await
            {
                tracing::warn!(%error, "stopping without a hand-over; the others elect");
            }
            self.queue.close();
            if let Err(error) = raft.shutdown().await {
                tracing::error!(%error, "Raft ended badly");
            }
        }
        let maintenance = self.end_tasks().await;
        let shared = Arc::clone(&self.shared);
        let closed = blocking(self.shared.threads(), move || {
            shared.entries.stop();
            drop(maintenance);
            shared.save_image()?;
            shared.metadata.save().map_err(io::Error::other)?;
            shared.store.close().map_err(io::Error::other)
        });
        closed.await.map_err(failed)
    }

    /// Ends everything but the threads of the store, which it returns. openraft must have stopped.
    async fn end_tasks(&self) -> Option<Threads> {
        self.queue.close();
        self.stop.send_replace(true);
        self.log.stop();
        // Nothing is committed any more: whoever waits for it would wait for ever.
        self.shared.waiting.unconfirmed();
        let tasks: Vec<_> = self.lock_tasks().drain(..).collect();
        for task in tasks {
            let _ = task.await;
        }
        drop(self.machine.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns whether it holds nothing that could have been acknowledged: no entry, no vote, no sign of lost entries.
    pub(super) fn is_blank(&self) -> bool {
        let shared = &self.shared;
        shared.entries.last().is_none()
            && shared.applied().is_none()
            && self.barrier().is_none()
            && shared.files.committed().is_none()
            // A vote that cannot be read is one.
            && matches!(shared.files.vote(), Ok(None))
    }

    pub(super) fn barrier(&self) -> Option<LogIndex> {
        *self.barrier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends as if the process had been killed: its disk is dead, its ways to the others are cut.
    #[cfg(test)]
    pub(super) async fn crash(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        if let Some(raft) = self.raft.get() {
            let _ = raft.shutdown().await;
        }
        let maintenance = self.end_tasks().await;
        let shared = Arc::clone(&self.shared);
        let _ = blocking(self.shared.threads(), move || {
            shared.entries.stop();
            drop(maintenance);
            Ok(())
        })
        .await;
    }

    fn lock_tasks(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Local for Group {
    fn hello(&self) -> wire::HelloResponse {
        let replica = self.replica.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let membership = match self.raft.get() {
            Some(raft) => raft.metrics().borrow_watched().membership_config.membership().clone(),
            None => self.shared.membership().membership().clone(),
        };
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        wire::HelloResponse {
            identity: wire::identity_to_bytes(replica.identity),
            joined: replica.joined,
            blank: self.is_blank(),
            members: membership
                .nodes()
                .map(|(id, member)| wire::member(*id, member, voters.contains(id)))
                .collect(),
            client_address: self.settings.client_address.clone(),
            full: self.shared.store.is_full(),
            leaving: self.leaving.load(Ordering::SeqCst),
        }
    }

    fn raft(&self) -> Option<Raft> {
        self.raft.get().cloned()
    }

    fn vote_refusal(&self) -> Option<String> {
        if let Some(rest) = self.vote_rest() {
            return Some(format!(
                "n{} has just restarted and votes in {} ms",
                self.settings.id,
                rest.as_millis()
            ));
        }
        let index = self.barrier()?;
        Some(format!(
            "n{} lost entries up to {index} and does not vote until it has them again",
            self.settings.id
        ))
    }

    fn read_index(&self) -> BoxFuture<'_, Result<u64, String>> {
        Box::pin(async {
            let raft = self.raft_or_reason().map_err(|error| error.to_string())?;
            self.confirm(raft).await.map(|index| index.0).map_err(|error| error.to_string())
        })
    }

    fn fetch(&self, first: u64, last: u64) -> BoxFuture<'_, Result<Vec<Bytes>, String>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let fetched = blocking(self.shared.threads(), move || Ok(shared.committed(first, last))).await;
            fetched.unwrap_or_else(|error| Err(error.to_string()))
        })
    }
}

/// What a successor's disk is looked at for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Room {
    /// One with room is better than one without.
    Wanted,
    /// One without room will not do.
    Needed,
}

/// Counts a hand-over of the leadership while it is under way.
struct HandingOver<'a>(&'a AtomicU64);

impl<'a> HandingOver<'a> {
    fn begin(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) struct Opened {
    pub(super) opened: OpenedEntries,
    pub(super) files: Files,
    replica: ReplicaFile,
    pub(super) image: Option<StateImage>,
    /// The snapshot that the first segment follows.
    pub(super) floor: Option<StateImage>,
}

#[expect(clippy::too_many_arguments, reason = "what a store is opened with")]
pub(super) fn open(
    config: StoreConfig,
    listener: Listener,
    metadata: &Metadata,
    group: &str,
    id: u64,
    sync: bool,
    disk: Disk,
    clock: Clock,
) -> io::Result<Opened> {
    disk.make_folder(&config.root)?;
    let files = Files::open(config.root.join("raft"), disk.clone())?;
    let replica = match files.replica()? {
        Some(replica) if replica.group == group && replica.id == id => replica,
        Some(other) => {
            return Err(io::Error::other(format!(
                "{} belongs to n{} of group {}, not to n{id} of {group}; check storePathRootDir and dLegerSelfId",
                files.folder().display(),
                other.id,
                other.group
            )));
        }
        None => {
            let identity = Random::from_machine().next_u128();
            let replica = ReplicaFile { group: group.to_owned(), id, identity, joined: false };
            files.save_replica(&replica)?;
            replica
        }
    };
    let install = files.install()?;
    let restart_at = install.as_ref().map(|image| PhysicalOffset(image.position));
    let min = Store::first_position(&config, &disk).map_err(io::Error::other)?;
    let floor = match &install {
        Some(image) => Some(image.clone()),
        None => files.snapshot(min)?,
    };
    if floor.is_none() && min.0 > 0 {
        return Err(io::Error::other(format!(
            "the log begins at {min}, but the snapshot of that segment is missing below {}; take this replica back in \
             with an empty store and mqadmin rejoin",
            files.folder().display()
        )));
    }
    let image = install.clone().map_or_else(|| files.image(), |image| Ok(Some(image)))?;
    // A crash may come between the deletion of segments and the next image.
    let image = image.filter(|image| image.position >= min.0 || install.is_some()).or_else(|| floor.clone());
    let tables = image.as_ref().map_or_else(MetadataImage::default, |image| image.metadata.clone());
    metadata.restore(&tables).map_err(io::Error::other)?;
    let committed = files.committed();
    let forgotten = image.as_ref().map(|image| image.forgotten_since(min)).unwrap_or_default();
    let options = EntryOptions {
        sync,
        committed: PhysicalOffset(image.as_ref().map_or(0, |image| image.position)),
        // Without syncs a power failure takes committed entries from all replicas: none could vote.
        committed_index: committed.map(|id| LogIndex(id.index())).filter(|_| install.is_none() && sync),
        // A topic that was deleted since begins at 0 again.
        queues: floor
            .iter()
            .flat_map(StateImage::seeds)
            .filter(|seed| forgotten.iter().all(|(topic, _)| *topic != seed.topic))
            .collect(),
        before: floor.as_ref().and_then(StateImage::last_entry),
        restart_at,
    };
    let opened = Store::open_entries(config, options, disk, clock, listener).map_err(io::Error::other)?;
    // The log may be damaged and end before the image: what follows is applied again.
    let (mut opened, mut image) = (opened, image);
    if let (Some(known), Some(last)) = (&image, opened.log.last())
        && known.covers_more_than(&last)
    {
        opened.damaged_below = opened.damaged_below.max(known.last_log_id().map(|id| LogIndex(id.index())));
        image = image.map(|image| image.cut_to(&last, opened.log.end()));
    }
    if let Some(image) = &install {
        files.save_snapshot(image)?;
        files.save_image(image)?;
        opened.store.checkpoint_now().map_err(io::Error::other)?;
        files.remove_install()?;
    }
    Ok(Opened { opened, files, replica, image, floor })
}

fn config(settings: &GroupSettings) -> Result<Config, Error> {
    let config = Config {
        cluster_name: settings.group.clone(),
        heartbeat_interval: settings.heartbeat_ms,
        election_timeout_min: settings.election_min_ms,
        election_timeout_max: settings.election_max_ms,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some((settings.election_max_ms * 3).max(1000)),
        removed_leader_step_down: StepDownPolicy::After(settings.election_max_ms),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 0,
        purge_batch_size: 1,
        replication_lag_threshold: u64::MAX,
        max_payload_entries: 1024,
        install_snapshot_timeout: 10_000,
        // A replica that was damaged may come back with less than it had; it does not vote then (`barrier`).
        allow_log_reversion: Some(true),
        ..Config::default()
    };
    config.validate().map_err(|error| Error::Group(format!("the settings of the group: {error}")))
}

/// Makes entries of what waits in the queue, one for all that came meanwhile, and a bounded number at a time.
async fn propose(group: Arc<Group>, raft: Raft) {
    let in_flight = Arc::new(Semaphore::new(group.settings.in_flight_max.max(1)));
    let bytes_max = group.settings.entry_bytes_max.min(group.shared.entries.draft_max());
    loop {
        // The queue is looked at only when an entry may be proposed: what comes meanwhile goes into that one.
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let mut permit = Some(permit);
        let Some(items) = group.queue.take_async(bytes_max).await else { return };
        for batch in batches(items) {
            let permit = match permit.take() {
                Some(permit) => permit,
                None => match Arc::clone(&in_flight).acquire_owned().await {
                    Ok(permit) => permit,
                    Err(_) => return,
                },
            };
            if let Err(error) = propose_one(&group, &raft, batch, permit).await {
                if !matches!(error, Fatal::Stopped) {
                    tracing::error!(%error, "Raft takes no proposals any more");
                }
                group.queue.refuse();
                return;
            }
        }
    }
}

async fn propose_one(
    group: &Group,
    raft: &Raft,
    mut batch: Batch,
    permit: OwnedSemaphorePermit,
) -> Result<(), Fatal<Types>> {
    match leading_term(group, raft).await {
        Some(term) if term == batch.term() => {
            batch.set_in_flight(permit, group.shared.clock.instant());
            raft.write(Proposal::new(batch)).with_leader(committed_leader(term)).await
        }
        _ => {
            batch.refuse(&Error::NotLeader);
            Ok(())
        }
    }
}

/// Returns the newest term that Raft knows.
fn term_of(raft: &Raft) -> u64 {
    raft.server_metrics().borrow_watched().vote.leader_id.term
}

/// Returns the term in which this replica leads and a majority was heard from; waits for it for a moment.
async fn leading_term(group: &Group, raft: &Raft) -> Option<u64> {
    let deadline = tokio::time::Instant::now() + LEASE_WAIT;
    loop {
        let Role::Leader(term) = *group.role.borrow() else { return None };
        if group.is_followed(raft, term) {
            return Some(term.0);
        }
        if tokio::time::Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(group.settings.heartbeat_ms / 2)).await;
    }
}

/// Commits noted progress every now and then.
async fn commit_notes(group: Arc<Group>) {
    let mut stop = group.stop.subscribe();
    let interval = Duration::from_millis(group.settings.offset_commit_interval_ms.max(1));
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(interval) => {}
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = group.commit_noted() => {}
        }
    }
}

fn failed(error: io::Error) -> Error {
    Error::Failed(error.to_string())
}

/// Found by jepsen (`nightly`, files, seed 105): whoever asked was told of `None, None` to forward to.
fn not_changed(error: RaftError<Types, ClientWriteError<Types>>) -> Error {
    match error.forward_to_leader() {
        // Whether it was done the next leader knows.
        Some(_) => Error::Failed(
            "the leader changed while the group was being changed; look with raftStatus and try again".into(),
        ),
        None => Error::Group(format!("the group refused: {error}")),
    }
}
