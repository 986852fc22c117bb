//! Headers about offsets: commit, query, bounds, search, reset.

use serde::{Deserialize, Serialize};

use crate::model::{Group, Topic};

/// QUERY_CONSUMER_OFFSET (14).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryConsumerOffsetRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: i32,
    /// False: a group that has no offset gets an error instead of 0; absent is true.
    pub set_zero_if_not_found: Option<bool>,
}

/// UPDATE_CONSUMER_OFFSET (15).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateConsumerOffsetRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: i32,
    /// The offset up to which messages are consumed.
    pub commit_offset: i64,
}

/// Answer to 14, 29, 30 and 31.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffsetResponseHeader {
    /// The offset.
    pub offset: i64,
}

/// SEARCH_OFFSET_BY_TIMESTAMP (29).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SearchOffsetRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: i32,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// `lower` (also if absent) or `upper`, in any case: which of several messages of one time.
    pub boundary_type: Option<String>,
    /// The lite topic, from 5.5 on.
    pub lite_topic: Option<String>,
}

/// GET_MAX_OFFSET (30).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetMaxOffsetRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: i32,
    /// Absent is true.
    pub committed: Option<bool>,
}

/// GET_MIN_OFFSET (31) and GET_EARLIEST_MSG_STORETIME (32).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetMinOffsetRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: i32,
}

/// Answer to 32.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetEarliestMsgStoretimeResponseHeader {
    /// When the queue's first message was stored, in milliseconds since 1970; -1 if there is none.
    pub timestamp: i64,
}

/// INVOKE_BROKER_TO_RESET_OFFSET (222) and RESET_CONSUMER_CLIENT_OFFSET (220).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetOffsetRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// The consumer group.
    pub group: Group,
    /// Absent or -1: all queues.
    pub queue_id: Option<i32>,
    /// If there, the offset to take instead of the time's.
    pub offset: Option<i64>,
    /// The time to go back to, -1 for the end.
    pub timestamp: i64,
    /// True also moves offsets forward.
    pub is_force: bool,
}

/// CLONE_GROUP_OFFSET (314).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloneGroupOffsetRequestHeader {
    /// The group whose offsets are taken.
    pub src_group: Group,
    /// The group that gets them.
    pub dest_group: Group,
    /// Absent: all topics.
    pub topic: Option<Topic>,
    /// Carried; no effect.
    #[serde(default)]
    pub offline: bool,
}

/// QUERY_CORRECTION_OFFSET (308).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryCorrectionOffsetHeader {
    /// Groups to look at, separated by commas.
    pub filter_groups: Option<String>,
    /// The group to compare with.
    pub compare_group: Group,
    /// The topic.
    pub topic: Topic,
}
