//! A consumer group's settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Group;

/// Settings of a consumer group, as in subscriptionGroup.json. Source: RocketMQ `SubscriptionGroupConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubscriptionGroupConfig {
    /// Free attributes.
    pub attributes: BTreeMap<String, String>,
    /// The broker that serves ordinary reads.
    pub broker_id: i64,
    /// False refuses broadcast consumers.
    pub consume_broadcast_enable: bool,
    /// False refuses all pulls of the group.
    pub consume_enable: bool,
    /// Carried for tools; the broker does not act on it.
    pub consume_from_min_enable: bool,
    /// True if the group consumes in order.
    pub consume_message_orderly: bool,
    /// Minutes until a consumer gives up a message that is being consumed.
    pub consume_timeout_minute: i32,
    /// The group's name.
    pub group_name: Group,
    /// How retries are spaced; carried for tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_retry_policy: Option<GroupRetryPolicy>,
    /// Unit bits; 0 in ordinary use.
    pub group_sys_flag: i32,
    /// True if members are told of every join and leave.
    pub notify_consumer_ids_changed_enable: bool,
    /// Redeliveries before a message goes to the dead letter topic.
    pub retry_max_times: i32,
    /// Queues of the retry topic; 0 or less switches retries off.
    pub retry_queue_nums: i32,
    /// The broker that serves reads far behind.
    pub which_broker_when_consume_slowly: i64,
}

/// How the retries of a group are spaced. Source: RocketMQ `GroupRetryPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupRetryPolicy {
    /// `CUSTOMIZED` or `EXPONENTIAL`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Default for GroupRetryPolicy {
    fn default() -> Self {
        Self { kind: "CUSTOMIZED".into() }
    }
}

impl Default for SubscriptionGroupConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            broker_id: 0,
            consume_broadcast_enable: true,
            consume_enable: true,
            consume_from_min_enable: true,
            consume_message_orderly: false,
            consume_timeout_minute: 15,
            group_name: Group::new(""),
            group_retry_policy: Some(GroupRetryPolicy::default()),
            group_sys_flag: 0,
            notify_consumer_ids_changed_enable: true,
            retry_max_times: 16,
            retry_queue_nums: 1,
            which_broker_when_consume_slowly: 1,
        }
    }
}

impl SubscriptionGroupConfig {
    /// Makes the default settings for `group_name`.
    pub fn new(group_name: Group) -> Self {
        Self { group_name, ..Self::default() }
    }
}
