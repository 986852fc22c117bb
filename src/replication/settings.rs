//! Settings of a Raft group.

use super::FlushMode;

/// What a replica must know to take part in its group. Times are in milliseconds.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// Name of the group (`dLegerGroup`), which is the brokerName.
    pub group: String,
    /// This replica's number (`dLegerSelfId`): 1 for `n1`.
    pub id: u64,
    /// The members of a group that starts for the first time (`dLegerPeers`), this one among them.
    pub peers: Vec<Peer>,
    /// Who should lead, best first (`preferredLeaderIds`). Empty: whoever does.
    pub preferred_leaders: Vec<u64>,
    /// Where clients reach this replica, `host:port`.
    pub client_address: String,
    /// The address that the Raft port is opened on; the port is the one of `peers`.
    pub bind_address: String,
    /// Whether an entry is synced before it counts (`flushDiskType`).
    pub flush: FlushMode,
    /// Time between two heartbeats (`raftHeartbeatIntervalMs`).
    pub heartbeat_ms: u64,
    /// Shortest time without a leader until an election (`raftElectionTimeoutMinMs`).
    pub election_min_ms: u64,
    /// Longest time (`raftElectionTimeoutMaxMs`); also how long a leader counts without hearing from a majority.
    pub election_max_ms: u64,
    /// Most bytes of messages in one entry (`raftEntryBytesMax`).
    pub entry_bytes_max: usize,
    /// Most entries that are proposed and not yet applied (`raftEntriesInFlightMax`).
    pub in_flight_max: usize,
    /// How often progress that nobody waits for is committed (`raftOffsetCommitIntervalMs`).
    pub offset_commit_interval_ms: u64,
}

/// A member of a group that starts for the first time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its number: 1 for `n1`.
    pub id: u64,
    /// Its Raft port, `host:port`; a host name is resolved at each connection.
    pub address: String,
}
