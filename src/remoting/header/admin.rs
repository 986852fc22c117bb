//! Headers of topic, group and broker administration.

use serde::{Deserialize, Serialize};

use crate::model::{Group, Topic};

/// UPDATE_AND_CREATE_TOPIC (17).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateTopicRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// Carried; no effect.
    pub default_topic: Option<Topic>,
    /// Queues that consumers see.
    pub read_queue_nums: i32,
    /// Queues that producers see.
    pub write_queue_nums: i32,
    /// Permission bits.
    pub perm: i32,
    /// `SINGLE_TAG` or `MULTI_TAG`.
    pub topic_filter_type: Option<String>,
    /// Unit bits.
    pub topic_sys_flag: Option<i32>,
    /// True if the name servers keep an order configuration.
    #[serde(default)]
    pub order: bool,
    /// `+key=value,-key`.
    pub attributes: Option<String>,
    /// Carried; no effect.
    #[serde(default)]
    pub force: bool,
}

/// DELETE_TOPIC_IN_BROKER (215).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteTopicRequestHeader {
    /// The topic.
    pub topic: Topic,
}

/// GET_TOPIC_CONFIG (351).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetTopicConfigRequestHeader {
    /// The topic.
    pub topic: Topic,
}

/// GET_ALL_TOPIC_CONFIG (21). Older peers send none of the fields and get everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetAllTopicConfigRequestHeader {
    /// The first topic wanted, counted from 0.
    pub topic_seq: Option<i32>,
    /// DataVersion JSON of the table that the earlier parts came from.
    pub data_version: Option<String>,
    /// Upper bound on topics returned.
    pub max_topic_num: Option<i32>,
}

/// Answer to 21.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetAllTopicConfigResponseHeader {
    /// Topics in the whole table.
    pub total_topic_num: Option<i32>,
}

/// GET_TOPIC_STATS_INFO (202).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetTopicStatsInfoRequestHeader {
    /// The topic.
    pub topic: Topic,
}

/// GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201). Older peers send none of the fields and get everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetAllSubscriptionGroupRequestHeader {
    /// The first group wanted, counted from 0.
    pub group_seq: Option<i32>,
    /// DataVersion JSON of the table that the earlier parts came from.
    pub data_version: Option<String>,
    /// Upper bound on groups returned.
    pub max_group_num: Option<i32>,
}

/// Answer to 201.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetAllSubscriptionGroupResponseHeader {
    /// Groups in the whole table.
    pub total_group_num: i32,
}

/// GET_SUBSCRIPTIONGROUP_CONFIG (352).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetSubscriptionGroupConfigRequestHeader {
    /// The consumer group.
    pub group: Group,
}

/// DELETE_SUBSCRIPTIONGROUP (207).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteSubscriptionGroupRequestHeader {
    /// The group.
    pub group_name: Group,
    /// True removes its offsets too. Clients before 5.0 call it `removeOffset`.
    #[serde(default, alias = "removeOffset")]
    pub clean_offset: bool,
}

/// UPDATE_AND_GET_GROUP_FORBIDDEN (353).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateGroupForbiddenRequestHeader {
    /// The consumer group.
    pub group: Group,
    /// The topic.
    pub topic: Topic,
    /// Absent only asks.
    pub readable: Option<bool>,
}

/// GET_CONSUME_STATS (208).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetConsumeStatsRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
    /// Absent or empty: all topics.
    pub topic: Option<Topic>,
    /// Several topics, separated by `;`.
    pub topic_list: Option<String>,
}

/// GET_BROKER_CONSUME_STATS (317).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetConsumeStatsInBrokerHeader {
    /// True: groups that consume in order only.
    pub is_order: bool,
}

/// GET_CONSUMER_CONNECTION_LIST (203).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetConsumerConnectionListRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
}

/// GET_PRODUCER_CONNECTION_LIST (204).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetProducerConnectionListRequestHeader {
    /// The producer group.
    pub producer_group: Group,
}

/// Answer to GET_BROKER_CONFIG (26).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetBrokerConfigResponseHeader {
    /// DataVersion JSON.
    pub version: String,
}
