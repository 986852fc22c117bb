//! Replication as GET_BROKER_HA_STATUS (907) shows it.

use serde::{Deserialize, Serialize};

/// Answer to 907. Source: RocketMQ `HARuntimeInfo`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaRuntimeInfo {
    /// The slave's side.
    pub ha_client_runtime_info: HaClientRuntimeInfo,
    /// The slaves of a master.
    pub ha_connection_info: Vec<HaConnectionRuntimeInfo>,
    /// Slaves that are close enough to count.
    pub in_sync_slave_nums: i32,
    /// False on a slave.
    pub master: bool,
    /// End of the master's log.
    pub master_commit_log_max_offset: i64,
}

/// A slave, seen by its master.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaConnectionRuntimeInfo {
    /// Its address.
    pub addr: Option<String>,
    /// Bytes that it lacks.
    pub diff: i64,
    /// Close enough to count.
    pub in_sync: bool,
    /// End of its log.
    pub slave_ack_offset: i64,
    /// Where the transfer stands.
    pub transfer_from_where: i64,
    /// Bytes a second to it.
    pub transferred_byte_in_second: i64,
}

/// A slave's connection to its master. Times are milliseconds since 1970.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HaClientRuntimeInfo {
    /// When something came last.
    pub last_read_timestamp: i64,
    /// When it reported last.
    pub last_write_timestamp: i64,
    /// The master.
    pub master_addr: Option<String>,
    /// How far the master's log is on disk.
    pub master_flush_offset: i64,
    /// End of the slave's log.
    pub max_offset: i64,
    /// Bytes a second from the master.
    pub transferred_byte_in_second: i64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::json;

    #[test]
    fn status_of_a_master_is_written_as_java_does() {
        let text = r#"{"haClientRuntimeInfo":{"lastReadTimestamp":0,"lastWriteTimestamp":0,"masterFlushOffset":0,"maxOffset":0,"transferredByteInSecond":0},"haConnectionInfo":[],"inSyncSlaveNums":0,"master":true,"masterCommitLogMaxOffset":12218}"#;
        let info: HaRuntimeInfo = json::from_str(text).unwrap();
        assert!(info.master);
        assert_eq!(json::to_vec(&info), text.as_bytes());
    }
}
