//! The types that openraft is used with.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use openraft::entry::{RaftEntry, RaftPayload};
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;

use super::proposal::Batch;
use crate::model::PhysicalOffset;

/// Names the types of this group for openraft.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Proposal;
    type R = ();
    type NodeId = u64;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::AnyError;
}

/// At most one leader in a term, as Raft has it.
pub(super) type LeaderId = leader_id_std::LeaderId<u64, u64>;
pub(super) type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(super) type LogId = openraft::LogId<CommittedLeaderId>;
pub(super) type Vote = openraft::Vote<LeaderId>;
pub(super) type Membership = openraft::Membership<u64, Member>;
pub(super) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, Member>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, Member>;
pub(super) type Snapshot = openraft::Snapshot<CommittedLeaderId, u64, Member, Image>;
pub(super) type Raft = openraft::Raft<Types, super::machine::Machine>;

/// The content of a snapshot: a metadata image as `codec` writes it.
pub(super) type Image = Bytes;

/// Returns the log id of `index` in `term`.
pub(super) fn log_id(term: u64, index: u64) -> LogId {
    openraft::LogId::new(committed_leader(term), index)
}

pub(super) fn committed_leader(term: u64) -> CommittedLeaderId {
    // Node ids play no part in a committed leader id.
    LeaderId { term, voted_for: 0 }.to_committed()
}

/// A replica as the membership names it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Member {
    /// Where the other replicas reach it, `host:port`.
    pub(super) raft_address: String,
    /// Made with its directory. One that comes back without its directory has another one.
    pub(super) identity: u128,
}

/// What is proposed: the drafts and changes of one turn. Taken out when the log gives it a place.
pub(super) struct Proposal(Mutex<Option<Batch>>);

impl Proposal {
    pub(super) fn new(batch: Batch) -> Self {
        Self(Mutex::new(Some(batch)))
    }

    pub(super) fn take(&self) -> Option<Batch> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proposal")
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("proposal")
    }
}

/// What an entry carries.
#[derive(Debug)]
pub(super) enum Payload {
    /// The first entry of a leader.
    Blank,
    /// On a leader, until the log has made bytes of it.
    Proposal(Proposal),
    /// A change of the members, likewise.
    Membership(Membership),
    /// As it stands in the log: the entry record and its message records.
    Stored(Stored),
}

/// An entry's bytes, final, the same on every replica.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Where the entry record starts.
    pub(super) position: PhysicalOffset,
    /// Entry record and message records.
    pub(super) bytes: Bytes,
    /// The members, if the entry changes them.
    pub(super) membership: Option<Membership>,
}

impl RaftPayload for Payload {
    type D = Proposal;
    type NodeId = u64;
    type Node = Member;

    fn blank() -> Self {
        Self::Blank
    }

    fn with_normal(self, data: Proposal) -> Self {
        Self::Proposal(data)
    }

    fn with_membership(self, membership: Membership) -> Self {
        Self::Membership(membership)
    }

    fn get_membership(&self) -> Option<Membership> {
        match self {
            Self::Membership(membership) => Some(membership.clone()),
            Self::Stored(stored) => stored.membership.clone(),
            Self::Blank | Self::Proposal(_) => None,
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blank => f.write_str("blank"),
            Self::Proposal(proposal) => proposal.fmt(f),
            Self::Membership(membership) => write!(f, "membership {membership}"),
            Self::Stored(stored) => write!(f, "{} bytes at {}", stored.bytes.len(), stored.position),
        }
    }
}

/// One entry of the Raft log.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) log_id: LogId,
    pub(super) payload: Payload,
}

impl RaftEntry for Entry {
    type CommittedLeaderId = CommittedLeaderId;
    type Payload = Payload;

    fn new(log_id: LogId, payload: Payload) -> Self {
        Self { log_id, payload }
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId, u64) {
        (self.log_id.committed_leader_id(), self.log_id.index())
    }

    fn set_log_id(&mut self, new: LogId) {
        self.log_id = new;
    }

    fn get_membership(&self) -> Option<Membership> {
        self.payload.get_membership()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.log_id, self.payload)
    }
}
