//! Headers of requests to a name server.

use serde::{Deserialize, Serialize};

use crate::model::Topic;

/// PUT_KV_CONFIG (100).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PutKvConfigRequestHeader {
    /// The namespace.
    pub namespace: String,
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}

/// GET_KV_CONFIG (101) and DELETE_KV_CONFIG (102).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KvConfigRequestHeader {
    /// The namespace.
    pub namespace: String,
    /// The key.
    pub key: String,
}

/// Answer to 101.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetKvConfigResponseHeader {
    /// The value.
    pub value: Option<String>,
}

/// GET_KVLIST_BY_NAMESPACE (219).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetKvListByNamespaceRequestHeader {
    /// The namespace.
    pub namespace: String,
}

/// REGISTER_BROKER (103).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterBrokerRequestHeader {
    /// The broker group.
    pub broker_name: String,
    /// The broker's address, `host:port`.
    pub broker_addr: String,
    /// The cluster.
    pub cluster_name: String,
    /// Where a master streams its log.
    pub ha_server_addr: Option<String>,
    /// 0 is the master.
    pub broker_id: i64,
    /// After this time without a sign of life the broker is taken out.
    pub heartbeat_timeout_millis: Option<i64>,
    /// Absent for brokers older than 5.0.
    pub enable_acting_master: Option<bool>,
    /// True if the body is a zlib stream.
    #[serde(default)]
    pub compressed: bool,
    /// CRC-32 of the body without its top bit; 0 if unchecked.
    pub body_crc32: Option<i32>,
}

/// Answer to 103.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterBrokerResponseHeader {
    /// Where the master streams its log; for slaves only.
    pub ha_server_addr: Option<String>,
    /// The address of the master; for slaves only.
    pub master_addr: Option<String>,
}

/// UNREGISTER_BROKER (104).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnregisterBrokerRequestHeader {
    /// The broker group.
    pub broker_name: String,
    /// The broker's address, `host:port`.
    pub broker_addr: String,
    /// The cluster.
    pub cluster_name: String,
    /// 0 is the master.
    pub broker_id: i64,
}

/// GET_ROUTEINFO_BY_TOPIC (105).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetRouteInfoRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// True asks for quoted keys.
    #[serde(default)]
    pub accept_standard_json_only: bool,
}

/// WIPE_WRITE_PERM_OF_BROKER (205) and ADD_WRITE_PERM_OF_BROKER (327).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerNameRequestHeader {
    /// The broker group.
    pub broker_name: String,
}

/// Answer to 205.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WipeWritePermOfBrokerResponseHeader {
    /// Topics that lost the permission.
    pub wipe_topic_count: i32,
}

/// Answer to 327.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddWritePermOfBrokerResponseHeader {
    /// Topics that got the permission.
    pub add_topic_count: i32,
}

/// DELETE_TOPIC_IN_NAMESRV (216).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteTopicFromNamesrvRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// Absent: all clusters.
    pub cluster_name: Option<String>,
}

/// REGISTER_TOPIC_IN_NAMESRV (217).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegisterTopicRequestHeader {
    /// The topic.
    pub topic: Topic,
}

/// GET_TOPICS_BY_CLUSTER (224).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetTopicsByClusterRequestHeader {
    /// The cluster.
    pub cluster: String,
}

/// QUERY_DATA_VERSION (322).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryDataVersionRequestHeader {
    /// The broker group.
    pub broker_name: String,
    /// The broker's address, `host:port`.
    pub broker_addr: String,
    /// The cluster.
    pub cluster_name: String,
    /// 0 is the master.
    pub broker_id: i64,
}

/// Answer to 322.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryDataVersionResponseHeader {
    /// False if the name server has the same version.
    pub changed: bool,
}

/// GET_BROKER_MEMBER_GROUP (901).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetBrokerMemberGroupRequestHeader {
    /// The cluster.
    pub cluster_name: String,
    /// The broker group.
    pub broker_name: String,
}

/// BROKER_HEARTBEAT (904). The optional fields are for controllers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerHeartbeatRequestHeader {
    /// The cluster.
    pub cluster_name: String,
    /// The broker's address, `host:port`.
    pub broker_addr: String,
    /// The broker group.
    pub broker_name: String,
    /// 0 is the master.
    pub broker_id: Option<i64>,
    /// The master's epoch.
    pub epoch: Option<i32>,
    /// End of the log.
    pub max_offset: Option<i64>,
    /// Confirmed end of the log.
    pub confirm_offset: Option<i64>,
    /// After this time without a sign of life the broker counts as dead.
    pub heartbeat_timeout_mills: Option<i64>,
    /// The lowest is preferred as master.
    pub election_priority: Option<i32>,
}
