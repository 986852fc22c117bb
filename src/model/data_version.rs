//! The version that brokers and name servers compare to see whether topics changed.

use serde::{Deserialize, Serialize};

/// Version of a table. Source: RocketMQ `DataVersion`.
///
/// A name server refuses a registration whose `state_version` is lower than the one that it holds for
/// the same broker id: a Raft group puts its term there.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    /// Number of changes; must stay below `i32::MAX` for 5.4 peers.
    pub counter: i64,
    /// The Raft term, or 0.
    pub state_version: i64,
    /// Wall clock of the last change, in milliseconds.
    pub timestamp: i64,
}

impl DataVersion {
    /// Counts one change, made at `now_ms` under `state_version`.
    pub fn advance(&mut self, now_ms: i64, state_version: i64) {
        self.counter = (self.counter + 1) % i64::from(i32::MAX);
        self.state_version = state_version;
        self.timestamp = now_ms;
    }
}
