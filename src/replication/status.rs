//! What a replica says about its group.

use crate::model::{LogIndex, PhysicalOffset, Term};

/// What a replica is at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaState {
    /// Takes writes.
    Leader,
    /// Elected, but has not yet applied an entry of its own term, or has not heard from a majority for a while.
    LeaderNotReady,
    /// Follows a leader.
    Follower,
    /// Without a leader, asks for votes.
    Candidate,
    /// Copies the log, has no vote.
    Learner,
    /// Does not take part (yet): the reason.
    Outside,
}

impl ReplicaState {
    /// Returns the name as operators and metrics see it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leader => "LEADER",
            Self::LeaderNotReady => "LEADER_NOT_READY",
            Self::Follower => "FOLLOWER",
            Self::Candidate => "CANDIDATE",
            Self::Learner => "LEARNER",
            Self::Outside => "OUTSIDE",
        }
    }
}

/// A replica's view of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// Name of the group, which is the brokerName.
    pub group: String,
    /// This replica's number: 1 for `n1`.
    pub id: u64,
    /// What it is.
    pub state: ReplicaState,
    /// Why it does not take part, if it does not; what to do.
    pub outside_reason: Option<String>,
    /// Its term.
    pub term: Term,
    /// The leader's number, if it knows one.
    pub leader: Option<u64>,
    /// Where clients reach the leader, `host:port`.
    pub leader_address: Option<String>,
    /// First retained entry.
    pub first_index: LogIndex,
    /// Last entry in the log.
    pub last_index: LogIndex,
    /// Last entry that is known to be committed.
    pub committed_index: LogIndex,
    /// Last entry that is applied: visible to readers.
    pub applied_index: LogIndex,
    /// Last entry of the snapshot, if there is one.
    pub snapshot_index: Option<LogIndex>,
    /// First retained byte of the log.
    pub log_min: PhysicalOffset,
    /// End of the log.
    pub log_end: PhysicalOffset,
    /// Time since a majority last answered, on a leader.
    pub quorum_age_ms: Option<u64>,
    /// Changes of the leader that this replica saw since it started.
    pub leader_changes: u64,
    /// The members, by number.
    pub members: Vec<MemberStatus>,
}

/// A member as this replica knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number.
    pub id: u64,
    /// Where the other replicas reach it.
    pub raft_address: String,
    /// Whether it has a vote; a learner has none.
    pub voter: bool,
    /// The last entry that it is known to have. Known to the leader alone.
    pub matched_index: Option<LogIndex>,
    /// Entries that it lacks. Known to the leader alone.
    pub lag: Option<u64>,
    /// Time since it last answered. Known to the leader alone.
    pub heard_ms: Option<u64>,
}
