//! Headers by which clients and brokers know and notify each other.

use serde::{Deserialize, Serialize};

use crate::model::{Group, Topic};

/// UNREGISTER_CLIENT (35).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnregisterClientRequestHeader {
    /// The client.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// The producer group.
    pub producer_group: Option<Group>,
    /// The consumer group.
    pub consumer_group: Option<Group>,
}

/// GET_CONSUMER_LIST_BY_GROUP (38).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetConsumerListByGroupRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
}

/// NOTIFY_CONSUMER_IDS_CHANGED (40), broker to client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotifyConsumerIdsChangedRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
}

/// INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223) and GET_CONSUMER_STATUS_FROM_CLIENT (221).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetConsumerStatusRequestHeader {
    /// The topic.
    pub topic: Topic,
    /// The consumer group.
    pub group: Group,
    /// The one client to ask.
    pub client_addr: Option<String>,
}

/// GET_CONSUMER_RUNNING_INFO (307).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetConsumerRunningInfoRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
    /// The client.
    pub client_id: String,
    /// True asks for thread stacks too.
    #[serde(default)]
    pub jstack_enable: bool,
}

/// CONSUME_MESSAGE_DIRECTLY (309).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumeMessageDirectlyResultRequestHeader {
    /// The consumer group.
    pub consumer_group: Group,
    /// The client.
    pub client_id: Option<String>,
    /// The message.
    pub msg_id: Option<String>,
    /// The broker group.
    pub broker_name: Option<String>,
    /// The topic.
    pub topic: Option<Topic>,
    /// Unit bits of the topic.
    pub topic_sys_flag: Option<i32>,
    /// Unit bits of the group.
    pub group_sys_flag: Option<i32>,
}
