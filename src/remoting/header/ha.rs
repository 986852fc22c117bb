//! Headers between brokers of a group.

use serde::{Deserialize, Serialize};

/// EXCHANGE_BROKER_HA_INFO (906), request and answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExchangeHaInfoHeader {
    /// Where the master streams its log.
    pub master_ha_address: Option<String>,
    /// How far the master's log is on disk.
    pub master_flush_offset: Option<i64>,
    /// Where the master serves clients.
    pub master_address: Option<String>,
}

/// RESET_MASTER_FLUSH_OFFSET (908).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetMasterFlushOffsetHeader {
    /// How far the master's log is on disk.
    pub master_flush_offset: i64,
}

/// NOTIFY_MIN_BROKER_ID_CHANGE (905), name server to broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotifyMinBrokerIdChangeRequestHeader {
    /// The smallest id of the group.
    pub min_broker_id: Option<i64>,
    /// The broker group.
    pub broker_name: Option<String>,
    /// The address of that broker.
    pub min_broker_addr: Option<String>,
    /// The address that went away.
    pub offline_broker_addr: Option<String>,
    /// Where the master streams its log.
    pub ha_broker_addr: Option<String>,
}
