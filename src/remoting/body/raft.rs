//! A Raft group as GET_RAFT_STATUS (30001) shows it.

use serde::{Deserialize, Serialize};

/// Answer to GET_RAFT_STATUS: one replica's view of its group.
///
/// Members are declared in the order of their names, as those of Java's bodies.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RaftStatus {
    /// Last entry that is applied: visible to readers.
    pub applied_index: u64,
    /// Last entry that it knows to be committed.
    pub committed_index: u64,
    /// First retained entry.
    pub first_index: u64,
    /// The group, which is the brokerName.
    pub group: String,
    /// This replica's number: 1 for `n1`.
    pub id: u64,
    /// Last entry in its log.
    pub last_index: u64,
    /// Where clients reach the leader.
    pub leader_address: Option<String>,
    /// Changes of the leader that it saw since it started.
    pub leader_changes: u64,
    /// The leader's number, if it knows one.
    pub leader_id: Option<u64>,
    /// End of its CommitLog.
    pub log_end: u64,
    /// First retained byte of its CommitLog.
    pub log_min: u64,
    /// The members, by number.
    pub members: Vec<RaftMember>,
    /// Why it does not take part, if it does not.
    pub outside_reason: Option<String>,
    /// Milliseconds since a majority last answered. From a leader only.
    pub quorum_age_ms: Option<u64>,
    /// Last entry of its snapshot.
    pub snapshot_index: Option<u64>,
    /// LEADER, LEADER_NOT_READY, FOLLOWER, CANDIDATE, LEARNER or OUTSIDE.
    pub state: String,
    /// Its term.
    pub term: u64,
}

/// A member, as the replica that answers knows it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RaftMember {
    /// Its number.
    pub id: u64,
    /// Entries that it lacks. From the leader only.
    pub lag: Option<u64>,
    /// Last entry that it is known to have. From the leader only.
    pub matched_index: Option<u64>,
    /// Where the other members reach it.
    pub raft_address: String,
    /// False for a learner.
    pub voter: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::json;

    #[test]
    fn unknown_and_missing_members_are_no_error() {
        let text = r#"{"group":"broker-a","id":2,"inventedLater":1,"members":[{"id":1,"voter":true}],"state":"FOLLOWER","term":7}"#;
        let status: RaftStatus = json::from_str(text).unwrap();
        assert_eq!((status.id, status.term, status.leader_id), (2, 7, None));
        assert_eq!(status.members, [RaftMember { id: 1, voter: true, ..RaftMember::default() }]);
        let written = json::to_vec(&status);
        assert_eq!(json::from_str::<RaftStatus>(&String::from_utf8(written).unwrap()).unwrap(), status);
    }
}
