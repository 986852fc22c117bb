//! Tables of topics and groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{DataVersion, Group, SubscriptionGroupConfig, Topic, TopicConfig};

/// Names of topics.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicList {
    /// One broker, in the system topic list of a name server.
    pub broker_addr: Option<String>,
    /// The names.
    #[serde(default)]
    pub topic_list: Vec<Topic>,
}

/// Topics of a broker, as in topics.json.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicConfigSerializeWrapper {
    /// Version of the table.
    #[serde(default)]
    pub data_version: DataVersion,
    /// Settings by name.
    #[serde(default)]
    pub topic_config_table: BTreeMap<Topic, TopicConfig>,
}

/// Topics of a broker as it registers them, and answer to GET_ALL_TOPIC_CONFIG (21).
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicConfigAndMappingSerializeWrapper {
    /// Version of the table.
    #[serde(default)]
    pub data_version: DataVersion,
    /// Version of the static topics' table.
    #[serde(default)]
    pub mapping_data_version: DataVersion,
    /// Settings by name.
    #[serde(default)]
    pub topic_config_table: BTreeMap<Topic, TopicConfig>,
    /// Static topics by name.
    #[serde(default)]
    pub topic_queue_mapping_info_map: BTreeMap<Topic, TopicQueueMappingInfo>,
}

/// The queues of a static topic that a broker group has.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicQueueMappingInfo {
    /// The broker group.
    pub bname: Option<String>,
    /// Logical to physical queue.
    #[serde(default)]
    pub curr_id_map: BTreeMap<i32, i32>,
    /// True if it must not be used.
    #[serde(default)]
    pub dirty: bool,
    /// Fences off older tables.
    #[serde(default)]
    pub epoch: i64,
    /// `__global__` or another scope.
    pub scope: Option<String>,
    /// The topic.
    pub topic: Option<Topic>,
    /// Queues of the whole topic.
    #[serde(default)]
    pub total_queues: i32,
}

/// Answer to 201, and what subscriptionGroup.json holds.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionGroupWrapper {
    /// Version of the table.
    #[serde(default)]
    pub data_version: DataVersion,
    /// What groups must not do, in bits.
    #[serde(default)]
    pub forbidden_table: BTreeMap<Group, BTreeMap<Topic, i32>>,
    /// Settings by name.
    #[serde(default)]
    pub subscription_group_table: BTreeMap<Group, SubscriptionGroupConfig>,
}
