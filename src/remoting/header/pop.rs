//! Headers of POP: 200050 to 200055.

use serde::{Deserialize, Serialize};

use crate::model::{Group, Topic};

/// POP_MESSAGE (200050).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PopMessageRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
    /// The topic.
    pub topic: Topic,
    /// The queue; -1 for any.
    pub queue_id: i32,
    /// Upper bound on messages returned, at most 32.
    pub max_msg_nums: i32,
    /// How long the messages stay hidden, in milliseconds.
    pub invisible_time: i64,
    /// How long the broker may hold the request, in milliseconds.
    pub poll_time: i64,
    /// When the client sent it, in milliseconds since 1970.
    pub born_time: i64,
    /// Where a new group starts: 0 beginning, 1 end.
    pub init_mode: i32,
    /// `TAG` or `SQL92`.
    pub exp_type: Option<String>,
    /// The filter expression.
    pub exp: Option<String>,
    /// True for orderly consumption.
    #[serde(default)]
    pub order: bool,
    /// Ties a retry of an orderly request to the first attempt.
    pub attempt_id: Option<String>,
}

/// Answer to 200050 and 200052.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PopMessageResponseHeader {
    /// When the messages were taken, in milliseconds since 1970.
    pub pop_time: i64,
    /// How long they stay hidden, in milliseconds.
    pub invisible_time: i64,
    /// Queue of the revive topic.
    pub revive_qid: i32,
    /// Messages that are left.
    pub rest_num: i64,
    /// `retryFlag queueId startOffset;...`
    pub start_offset_info: Option<String>,
    /// `retryFlag queueId offset,offset;...`
    pub msg_offset_info: Option<String>,
    /// `retryFlag queueId count;...`
    pub order_count_info: Option<String>,
}

/// ACK_MESSAGE (200051).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AckMessageRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: i32,
    /// The receipt handle.
    pub extra_info: String,
    /// The offset.
    pub offset: i64,
    /// The lite topic, from 5.5 on.
    pub lite_topic: Option<String>,
}

/// PEEK_MESSAGE (200052).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeekMessageRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: i32,
    /// Upper bound on messages returned.
    pub max_msg_nums: i32,
    /// The consumer group.
    pub consumer_group: Group,
}

/// CHANGE_MESSAGE_INVISIBLETIME (200053).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeInvisibleTimeRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: i32,
    /// The receipt handle.
    pub extra_info: String,
    /// The offset.
    pub offset: i64,
    /// How long the message stays hidden from now on, in milliseconds.
    pub invisible_time: i64,
    /// The lite topic, from 5.5 on.
    pub lite_topic: Option<String>,
    /// For lite topics, from 5.5 on.
    #[serde(default)]
    pub suspend: bool,
}

/// Answer to 200053.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangeInvisibleTimeResponseHeader {
    /// When it was changed, in milliseconds since 1970.
    pub pop_time: i64,
    /// How long it stays hidden, in milliseconds.
    pub invisible_time: i64,
    /// Queue of the revive topic.
    pub revive_qid: i32,
}

/// NOTIFICATION (200054).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
    /// The topic.
    pub topic: Topic,
    /// The queue; -1 for any.
    pub queue_id: i32,
    /// How long the broker may hold the request, in milliseconds.
    pub poll_time: i64,
    /// When the client sent it, in milliseconds since 1970.
    pub born_time: i64,
    /// True for orderly consumption.
    #[serde(default)]
    pub order: bool,
    /// Ties a retry of an orderly request to the first attempt.
    pub attempt_id: Option<String>,
    /// `TAG` or `SQL92`.
    pub exp_type: Option<String>,
    /// The filter expression.
    pub exp: Option<String>,
}

/// Answer to 200054.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotificationResponseHeader {
    /// True if there is something to pop.
    pub has_msg: bool,
    /// True if too many requests are held.
    pub polling_full: bool,
}

/// POLLING_INFO (200055).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PollingInfoRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: i32,
}

/// Answer to 200055.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PollingInfoResponseHeader {
    /// Requests that are held.
    pub polling_num: i32,
}
