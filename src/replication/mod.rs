//! Turns an append into a committed append, and knows who leads.
//!
//! Everything that changes what a broker keeps goes through here: messages by [`Replication::append`], topics,
//! groups and offsets by [`Replication::change`]. Both answer later, when the change is committed, and both need
//! a [`LeaderPermit`]. Only this module holds the store's `Writer` and `Committer`.
//!
//! `none` is the mode of a broker without replicas: committed means written, or under SYNC_FLUSH synced.

#[cfg(test)]
mod crashes;
mod none;
#[cfg(test)]
mod none_tests;
mod pending;
mod queue;
mod raft;
mod settings;
mod status;

/// Doors for `tests/fuzz`: what reads bytes in here and is not public. No part of the interface.
#[doc(hidden)]
pub mod fuzz {
    pub use super::raft::fuzz::{commands, entry, file, message};
}

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use none::FlushMode;
pub use pending::{PendingAppend, PendingChange};
pub use queue::QueueLimits;
pub use settings::{GroupSettings, Peer};
pub use status::{GroupStatus, MemberStatus, ReplicaState};

use crate::env::{Clock, Disk};
use crate::metadata::{self, Metadata, MetadataCommand};
use crate::metrics::Histogram;
use crate::model::Term;
use crate::store::{self, Draft, Listener, Opened, Store, StoreConfig};

/// Why something was not committed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// This broker does not lead, or no longer in the term of the permit.
    #[error("this broker is not the master of its group")]
    NotLeader,
    /// Too much waits already.
    #[error("{queued_bytes} of {limit_bytes} bytes wait to be written, and no room came within {waited:?}")]
    Busy {
        /// Bytes that wait.
        queued_bytes: usize,
        /// How many may wait (`proposalQueueBytes`).
        limit_bytes: usize,
        /// How long this one waited for room.
        waited: Duration,
    },
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopped,
    /// The disk is too full.
    #[error("{0}")]
    Full(String),
    /// The message cannot be stored, whatever the state of the broker.
    #[error("{0}")]
    Refused(String),
    /// The entry has its place in the log, but no majority confirmed it in time. It may still be committed.
    #[error(
        "no majority of the group confirmed the message in time; it may or may not be stored. Send it again, or look \
         for it first"
    )]
    Unconfirmed,
    /// The store failed; the broker is about to stop.
    #[error("{0}")]
    Failed(String),
    /// The operation is one of a Raft group, and this broker is not in one.
    #[error("this broker is not in a Raft group; enableDLegerCommitLog=true makes one")]
    NoGroup,
    /// The group cannot do that now: the reason, and what to do.
    #[error("{0}")]
    Group(String),
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let text = error.to_string();
        match error {
            store::Error::Full { .. } => Self::Full(text),
            store::Error::TooLarge { .. } | store::Error::Encode(_) => Self::Refused(text),
            store::Error::Io { .. }
            | store::Error::Locked(_)
            | store::Error::Corrupt { .. }
            | store::Error::Damaged { .. }
            | store::Error::Poisoned(_) => Self::Failed(text),
        }
    }
}

impl From<metadata::Error> for Error {
    fn from(error: metadata::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// The right to write, for one term. Given out by [`Replication::permit`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderPermit {
    term: Term,
}

impl LeaderPermit {
    /// Returns the term in which it holds.
    pub fn term(&self) -> Term {
        self.term
    }
}

/// What this broker is in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Takes writes, in this term: everything before it is applied.
    Leader(Term),
    /// Serves reads, and hands writes on.
    Follower {
        /// The newest term that it knows.
        term: Term,
        /// Where clients reach the leader, `host:port`, if there is one that is known.
        leader: Option<String>,
    },
}

impl Role {
    /// Returns the newest term that the broker knows.
    pub fn term(&self) -> Term {
        match self {
            Self::Leader(term) | Self::Follower { term, .. } => *term,
        }
    }

    /// Returns whether the broker takes writes.
    pub fn is_leader(&self) -> bool {
        matches!(self, Self::Leader(_))
    }
}

/// The handle of all who write. Clones share one log.
#[derive(Debug, Clone)]
pub struct Replication {
    mode: Mode,
    role: watch::Receiver<Role>,
}

#[derive(Debug, Clone)]
enum Mode {
    None(Arc<none::NoReplication>),
    Group(Arc<raft::Group>),
}

impl Replication {
    /// Starts the mode without replicas on an opened store.
    pub fn start_none(
        opened: Opened,
        metadata: Arc<Metadata>,
        flush: FlushMode,
        limits: QueueLimits,
    ) -> std::io::Result<Self> {
        let (_, role) = watch::channel(Role::Leader(Term(0)));
        let mode = Arc::new(none::NoReplication::start(opened, metadata, flush, limits)?);
        Ok(Self { mode: Mode::None(mode), role })
    }

    /// Opens the store of a replica of a Raft group and takes part in the group.
    ///
    /// Returns when the store is recovered and the Raft port is open; who leads shows in [`Replication::role`].
    pub async fn start_group(
        store: StoreConfig,
        listener: Listener,
        metadata: Arc<Metadata>,
        settings: GroupSettings,
        limits: QueueLimits,
        (disk, clock): (Disk, Clock),
    ) -> Result<Self, Error> {
        let sockets = raft::Sockets::default();
        let start = raft::Start { store, listener, metadata, settings, limits, disk, clock, sockets };
        Self::start_replica(start).await
    }

    async fn start_replica(start: raft::Start) -> Result<Self, Error> {
        let group = raft::Group::start(start).await?;
        let role = group.role();
        Ok(Self { mode: Mode::Group(group), role })
    }

    /// Returns the right to write, if this broker leads.
    pub fn permit(&self) -> Result<LeaderPermit, Error> {
        match *self.role.borrow() {
            Role::Leader(term) => Ok(LeaderPermit { term }),
            Role::Follower { .. } => Err(Error::NotLeader),
        }
    }

    /// Returns the role, and tells of its changes.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Returns the store, for reading.
    pub fn store(&self) -> &Arc<Store> {
        match &self.mode {
            Mode::None(mode) => mode.store(),
            Mode::Group(group) => group.store(),
        }
    }

    /// Hands in a draft. When this returns, its place in the order of the log is fixed; waits while too much is
    /// queued, and gives up with [`Error::Busy`].
    pub async fn append(&self, permit: LeaderPermit, draft: Draft) -> Result<PendingAppend, Error> {
        self.append_both(permit, draft, None).await
    }

    /// Hands in a draft and a change that are committed together or not at all.
    pub async fn append_with(
        &self,
        permit: LeaderPermit,
        draft: Draft,
        command: MetadataCommand,
    ) -> Result<PendingAppend, Error> {
        self.append_both(permit, draft, Some(command)).await
    }

    async fn append_both(
        &self,
        permit: LeaderPermit,
        draft: Draft,
        command: Option<MetadataCommand>,
    ) -> Result<PendingAppend, Error> {
        self.check(permit)?;
        match &self.mode {
            Mode::None(mode) => mode.append(draft, command).await,
            Mode::Group(group) => group.append(permit.term, draft, command).await,
        }
    }

    /// Hands in a change of topics, groups, offsets or shared settings.
    pub fn change(&self, permit: LeaderPermit, command: MetadataCommand) -> Result<PendingChange, Error> {
        self.check(permit)?;
        match &self.mode {
            Mode::None(mode) => mode.change(command),
            Mode::Group(group) => group.change(permit.term, command),
        }
    }

    /// Notes a group's or a level's progress, which nobody waits for. Readers of this broker see it at once; it is
    /// committed together with later progress a moment later, and what was not yet committed is forgotten when this
    /// broker stops leading.
    pub fn note(&self, permit: LeaderPermit, command: MetadataCommand) -> Result<(), Error> {
        self.check(permit)?;
        match &self.mode {
            Mode::None(mode) => mode.change(command).map(|_| ()),
            Mode::Group(group) => group.note(permit.term, command),
        }
    }

    /// Returns the state of the group, or `None` for a broker without replicas.
    pub fn status(&self) -> Option<GroupStatus> {
        self.group().ok().map(|group| group.status())
    }

    /// Returns how long entries take from their proposal by this replica until they are visible, in a group.
    pub fn commit_latency(&self) -> Option<&Histogram> {
        self.group().ok().map(raft::Group::commit_latency)
    }

    /// Makes another replica a member: a learner first, then a voter. `address` is its Raft port.
    pub async fn add_peer(&self, id: u64, address: &str) -> Result<(), Error> {
        self.group()?.add_peer(id, address).await
    }

    /// Takes a replica out of the group.
    pub async fn remove_peer(&self, id: u64) -> Result<(), Error> {
        self.group()?.remove_peer(id).await
    }

    /// Hands leadership to a replica, or to the one that is best suited, and waits until it leads.
    pub async fn transfer_leader(&self, to: Option<u64>) -> Result<(), Error> {
        self.group()?.transfer_leader(to).await
    }

    /// Takes a replica that lost its disk back into the group, as a learner first.
    pub async fn rejoin(&self, id: u64) -> Result<(), Error> {
        self.group()?.rejoin(id).await
    }

    /// Waits until this replica has applied everything that was committed when this was called.
    pub async fn read_barrier(&self) -> Result<(), Error> {
        match &self.mode {
            Mode::None(_) => Ok(()),
            Mode::Group(group) => group.read_barrier().await,
        }
    }

    /// Returns whether this replica leads and no other one can: a majority heard from it so recently that it follows
    /// nobody else yet. A leader that was paused or cut off may still believe that it leads; what only the leader knows
    /// must not be read from it.
    pub fn holds_lease(&self) -> bool {
        match &self.mode {
            Mode::None(_) => true,
            Mode::Group(group) => group.holds_lease(),
        }
    }

    /// Waits until it is sure that no other replica leads now: slower than [`Replication::holds_lease`], and possible when
    /// this replica has not heard from a majority for a moment.
    pub async fn confirm_leader(&self) -> Result<(), Error> {
        match &self.mode {
            Mode::None(_) => Ok(()),
            Mode::Group(group) => group.confirm_leader().await,
        }
    }

    /// Returns how many bytes wait to be written.
    pub fn queued_bytes(&self) -> usize {
        match &self.mode {
            Mode::None(mode) => mode.queued_bytes(),
            Mode::Group(group) => group.queued_bytes(),
        }
    }

    /// Says that this replica is about to stop, so that no other one hands over to it.
    pub fn leave(&self) {
        if let Mode::Group(group) = &self.mode {
            group.leave();
        }
    }

    /// Hands over, refuses what comes from now on, writes what is queued, and closes the store.
    pub async fn stop(&self) -> Result<(), Error> {
        match &self.mode {
            Mode::None(mode) => {
                let mode = Arc::clone(mode);
                let stopped = tokio::task::spawn_blocking(move || mode.stop()).await;
                stopped.unwrap_or_else(|error| Err(Error::Failed(error.to_string())))
            }
            Mode::Group(group) => group.stop().await,
        }
    }

    fn group(&self) -> Result<&raft::Group, Error> {
        match &self.mode {
            Mode::None(_) => Err(Error::NoGroup),
            Mode::Group(group) => Ok(group),
        }
    }

    fn check(&self, permit: LeaderPermit) -> Result<(), Error> {
        if self.permit()? == permit { Ok(()) } else { Err(Error::NotLeader) }
    }
}
