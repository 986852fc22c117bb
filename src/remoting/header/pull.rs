//! Headers of PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361).

use serde::{Deserialize, Serialize};

use crate::model::{Group, Topic};

/// Source: RocketMQ `PullMessageRequestHeader`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullMessageRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: i32,
    /// Where to read from.
    pub queue_offset: i64,
    /// Upper bound on messages returned; the broker's own limit also applies.
    pub max_msg_nums: i32,
    /// Bit 0: `commit_offset` is valid; 1: may be held; 2: the subscription is in this header; 4: lite pull.
    pub sys_flag: i32,
    /// Committed before reading, if the flag says so.
    pub commit_offset: i64,
    /// How long the broker may hold the request, in milliseconds.
    pub suspend_timeout_millis: i64,
    /// The filter expression.
    pub subscription: Option<String>,
    /// When the client made its subscription, in milliseconds since 1970.
    pub sub_version: i64,
    /// `TAG` or `SQL92`.
    pub expression_type: Option<String>,
    /// Carried by 5.x clients; no bound that Java's broker keeps.
    pub max_msg_bytes: Option<i32>,
    /// -1 or absent for clients, 0 and 1 for proxies.
    pub request_source: Option<i32>,
    /// The client behind a proxy, in Java's spelling.
    pub proxy_froward_client_id: Option<String>,
    /// The lite topic, from 5.5 on.
    pub lite_topic: Option<String>,
}

/// Source: RocketMQ `PullMessageResponseHeader`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PullMessageResponseHeader {
    /// The broker id that the client shall pull from next.
    pub suggest_which_broker_id: i64,
    /// Where the client shall read next.
    pub next_begin_offset: i64,
    /// The queue's first offset.
    pub min_offset: i64,
    /// The queue's end, exclusive.
    pub max_offset: i64,
    /// For static topics.
    pub offset_delta: Option<i64>,
    /// Unit bits of the topic.
    pub topic_sys_flag: Option<i32>,
    /// Unit bits of the group.
    pub group_sys_flag: Option<i32>,
    /// Why code 16 was given: 1 broker, 2 group, 3 topic, 4 broadcast, 5 subscription.
    pub forbidden_type: Option<i32>,
}
