//! Headers of the operations on a Raft group, which are ours.

use serde::{Deserialize, Serialize};

/// RAFT_ADD_PEER (30002).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RaftAddPeerRequestHeader {
    /// The new member's number: 3 for `n3`.
    pub peer_id: u64,
    /// Its Raft port, `host:port`.
    pub peer_address: String,
}

/// RAFT_REMOVE_PEER (30003) and RAFT_REJOIN (30005).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RaftPeerRequestHeader {
    /// The member's number: 3 for `n3`.
    pub peer_id: u64,
}

/// RAFT_TRANSFER_LEADER (30004).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RaftTransferLeaderRequestHeader {
    /// Who shall lead: 3 for `n3`. Absent: the member that is best suited.
    pub peer_id: Option<u64>,
}
