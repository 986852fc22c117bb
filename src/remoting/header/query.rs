//! Headers by which tools look at messages and queues.

use serde::{Deserialize, Serialize};

use crate::model::{Group, Topic};

/// QUERY_MESSAGE (12). The field `_UNIQUE_KEY_QUERY`, if `true`, says that the key is a unique key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryMessageRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// The key.
    pub key: String,
    /// Upper bound on messages returned.
    pub max_num: i32,
    /// Milliseconds since 1970.
    pub begin_timestamp: i64,
    /// Milliseconds since 1970.
    pub end_timestamp: i64,
    /// `K` keys, `U` unique keys, `T` tags; from 5.4 on.
    pub index_type: Option<String>,
    /// Where the last answer ended; from 5.4 on.
    pub last_key: Option<String>,
}

/// Answer to 12.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryMessageResponseHeader {
    /// Store time of the last message in the index.
    pub index_last_update_timestamp: i64,
    /// Physical offset of the last message in the index.
    pub index_last_update_phyoffset: i64,
}

/// VIEW_MESSAGE_BY_ID (33).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ViewMessageRequestHeader {
    /// The topic.
    pub topic: Option<Topic>,
    /// The physical offset.
    pub offset: i64,
}

/// QUERY_CONSUME_QUEUE (321).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryConsumeQueueRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: i32,
    /// The first queue offset wanted.
    pub index: i64,
    /// Number of entries wanted.
    pub count: i32,
    /// If there, the entries say whether they match its subscription.
    pub consumer_group: Option<Group>,
}

/// QUERY_CONSUME_TIME_SPAN (303).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryConsumeTimeSpanRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// The consumer group.
    pub group: Group,
}

/// QUERY_TOPIC_CONSUME_BY_WHO (300).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryTopicConsumeByWhoRequestHeader {
    /// The topic.
    pub topic: Topic,
}

/// QUERY_TOPICS_BY_CONSUMER (343).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryTopicsByConsumerRequestHeader {
    /// The consumer group.
    pub group: Group,
}

/// QUERY_SUBSCRIPTION_BY_CONSUMER (345).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuerySubscriptionByConsumerRequestHeader {
    /// The consumer group.
    pub group: Group,
    /// The topic.
    pub topic: Option<Topic>,
}

/// VIEW_BROKER_STATS_DATA (315).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ViewBrokerStatsDataRequestHeader {
    /// Such as `TOPIC_PUT_NUMS`.
    pub stats_name: String,
    /// Such as a topic.
    pub stats_key: String,
}
