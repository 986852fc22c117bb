//! What clients say of themselves, and what brokers say of their clients.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Group, MessageQueue, Topic};
use crate::remoting::command::Language;

/// Body of HEART_BEAT (34).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeartbeatData {
    /// The client.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// The consumer groups of the client.
    #[serde(default)]
    pub consumer_data_set: Vec<ConsumerData>,
    /// Hash of the subscriptions; 0 if the client speaks V1.
    #[serde(default)]
    pub heartbeat_fingerprint: i32,
    /// The producer groups of the client.
    #[serde(default)]
    pub producer_data_set: Vec<ProducerData>,
    /// True if the subscriptions are left out since they have not changed.
    #[serde(default)]
    pub without_sub: bool,
}

/// One producer group of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerData {
    /// The group.
    pub group_name: Group,
}

/// One consumer group of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerData {
    /// Where a new group starts.
    #[serde(default)]
    pub consume_from_where: ConsumeFromWhere,
    /// How it gets its messages.
    #[serde(default)]
    pub consume_type: ConsumeType,
    /// The group.
    pub group_name: Group,
    /// Who gets a message.
    #[serde(default)]
    pub message_model: MessageModel,
    /// What it subscribes to.
    #[serde(default)]
    pub subscription_data_set: Vec<SubscriptionData>,
    /// Unit mode.
    #[serde(default)]
    pub unit_mode: bool,
}

/// What a group wants of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionData {
    /// Obsolete.
    #[serde(default)]
    pub class_filter_mode: bool,
    /// Java hash codes of the tags.
    #[serde(default)]
    pub code_set: BTreeSet<i32>,
    /// `TAG` (also if absent) or `SQL92`.
    pub expression_type: Option<String>,
    /// The expression; `*` for all.
    pub sub_string: Option<String>,
    /// When it was made, in milliseconds since 1970.
    #[serde(default)]
    pub sub_version: i64,
    /// The tags.
    #[serde(default)]
    pub tags_set: BTreeSet<String>,
    /// The topic.
    pub topic: Topic,
}

/// How a group gets its messages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConsumeType {
    /// The application pulls.
    #[serde(rename = "CONSUME_ACTIVELY")]
    Actively,
    /// The client pulls and pushes to the application.
    #[serde(rename = "CONSUME_PASSIVELY")]
    Passively,
    /// By POP.
    #[serde(rename = "CONSUME_POP")]
    Pop,
    /// A name that RocketMQ 5.5.0 does not know.
    #[serde(other)]
    #[default]
    Unknown,
}

/// Who of a group gets a message.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MessageModel {
    /// Every member.
    #[serde(rename = "BROADCASTING")]
    Broadcasting,
    /// One member.
    #[serde(rename = "CLUSTERING")]
    Clustering,
    /// Lite topics, from 5.5 on.
    #[serde(rename = "LITE_SELECTIVE")]
    LiteSelective,
    /// A name that RocketMQ 5.5.0 does not know.
    #[serde(other)]
    #[default]
    Unknown,
}

/// Where a group starts that has no offset.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConsumeFromWhere {
    /// At the end.
    #[serde(rename = "CONSUME_FROM_LAST_OFFSET")]
    LastOffset,
    /// Deprecated; at the end.
    #[serde(rename = "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST")]
    LastOffsetAndMinWhenBootFirst,
    /// Deprecated; at the end.
    #[serde(rename = "CONSUME_FROM_MIN_OFFSET")]
    MinOffset,
    /// Deprecated; at the end.
    #[serde(rename = "CONSUME_FROM_MAX_OFFSET")]
    MaxOffset,
    /// At the beginning.
    #[serde(rename = "CONSUME_FROM_FIRST_OFFSET")]
    FirstOffset,
    /// At a time.
    #[serde(rename = "CONSUME_FROM_TIMESTAMP")]
    Timestamp,
    /// A name that RocketMQ 5.5.0 does not know.
    #[serde(other)]
    #[default]
    Unknown,
}

/// Body of CHECK_CLIENT_CONFIG (46).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckClientRequestBody {
    /// The client.
    pub client_id: Option<String>,
    /// The consumer group.
    pub group: Group,
    /// The namespace.
    pub namespace: Option<String>,
    /// The subscription.
    pub subscription_data: SubscriptionData,
}

/// Answer to 38.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetConsumerListByGroupResponseBody {
    /// The ids of the clients.
    #[serde(default)]
    pub consumer_id_list: Vec<String>,
}

/// One client of a group. Source: RocketMQ `body.Connection`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientConnection {
    /// Its address, `host:port`.
    pub client_addr: String,
    /// The client.
    pub client_id: String,
    /// What the client is written in.
    pub language: Language,
    /// `MQVersion` ordinal of the client.
    #[serde(default)]
    pub version: i32,
}

/// Answer to 203.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerConnection {
    /// The group's clients.
    #[serde(default)]
    pub connection_set: Vec<ClientConnection>,
    /// Where a new group starts.
    #[serde(default)]
    pub consume_from_where: ConsumeFromWhere,
    /// How it gets its messages.
    #[serde(default)]
    pub consume_type: ConsumeType,
    /// Who gets a message.
    #[serde(default)]
    pub message_model: MessageModel,
    /// What it subscribes to.
    #[serde(default)]
    pub subscription_table: BTreeMap<Topic, SubscriptionData>,
}

/// Answer to 204.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerConnection {
    /// The group's clients.
    #[serde(default)]
    pub connection_set: Vec<ClientConnection>,
}

/// One client of a producer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerInfo {
    /// The client.
    pub client_id: String,
    /// What the client is written in.
    pub language: Language,
    /// Its last heartbeat, in milliseconds since 1970.
    #[serde(default)]
    pub last_update_timestamp: i64,
    /// Its address.
    #[serde(rename = "remoteIP")]
    pub remote_ip: String,
    /// `MQVersion` ordinal of the client.
    #[serde(default)]
    pub version: i32,
}

/// Answer to 328.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProducerTableInfo {
    /// The clients of each group.
    #[serde(default)]
    pub data: BTreeMap<Group, Vec<ProducerInfo>>,
}

/// Answer to 221 and 223.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetConsumerStatusBody {
    /// Offsets by client, in the answer to 223.
    #[serde(default)]
    pub consumer_table: BTreeMap<String, BTreeMap<MessageQueue, i64>>,
    /// Offsets of the one client that answers 221.
    #[serde(default)]
    pub message_queue_table: BTreeMap<MessageQueue, i64>,
}

/// How a direct consumption ended. Source: RocketMQ `CMResult`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConsumeResult {
    /// Consumed.
    #[serde(rename = "CR_SUCCESS")]
    Success,
    /// To be retried.
    #[serde(rename = "CR_LATER")]
    Later,
    /// Rolled back.
    #[serde(rename = "CR_ROLLBACK")]
    Rollback,
    /// Committed.
    #[serde(rename = "CR_COMMIT")]
    Commit,
    /// The listener failed.
    #[serde(rename = "CR_THROW_EXCEPTION")]
    ThrowException,
    /// The listener returned nothing.
    #[serde(rename = "CR_RETURN_NULL")]
    ReturnNull,
    /// A name that RocketMQ 5.5.0 does not know.
    #[serde(other)]
    #[default]
    Unknown,
}

/// Answer to 309.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumeMessageDirectlyResult {
    /// The listener commits by itself.
    #[serde(default)]
    pub auto_commit: bool,
    /// How it ended.
    #[serde(default)]
    pub consume_result: ConsumeResult,
    /// True for an orderly listener.
    #[serde(default)]
    pub order: bool,
    /// A comment.
    pub remark: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(default)]
    pub spent_time_mills: i64,
}

/// Body of QUERY_ASSIGNMENT (400).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryAssignmentRequestBody {
    /// The client.
    pub client_id: String,
    /// The consumer group.
    pub consumer_group: Group,
    /// Who gets a message.
    #[serde(default)]
    pub message_model: MessageModel,
    /// `AVG` or `AVG_BY_CIRCLE`.
    pub strategy_name: Option<String>,
    /// The topic.
    pub topic: Topic,
}

/// Answer to 400.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryAssignmentResponseBody {
    /// The client's share.
    #[serde(default)]
    pub message_queue_assignments: Vec<MessageQueueAssignment>,
}

/// One queue of a client's share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageQueueAssignment {
    /// Free texts.
    pub attachments: Option<BTreeMap<String, String>>,
    /// The queue.
    pub message_queue: MessageQueue,
    /// How to get its messages.
    #[serde(default)]
    pub mode: MessageRequestMode,
}

/// How a client gets the messages of a queue.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MessageRequestMode {
    /// By PULL_MESSAGE.
    #[serde(rename = "PULL")]
    #[default]
    Pull,
    /// By POP_MESSAGE.
    #[serde(rename = "POP")]
    Pop,
    /// A name that RocketMQ 5.5.0 does not know.
    #[serde(other)]
    Unknown,
}

/// Body of SET_MESSAGE_REQUEST_MODE (401).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetMessageRequestModeRequestBody {
    /// The consumer group.
    pub consumer_group: Group,
    /// How to get messages.
    #[serde(default)]
    pub mode: MessageRequestMode,
    /// Clients that share a queue; 0 is all.
    #[serde(default)]
    pub pop_share_queue_num: i32,
    /// The topic.
    pub topic: Topic,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::json;

    #[test]
    fn heartbeat_of_java_is_read_and_written() {
        let text = r#"{"clientID":"10.0.0.9@1234#567","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"G","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[65,66],"expressionType":"TAG","subString":"A||B","subVersion":1700000000000,"tagsSet":["A","B"],"topic":"T"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"P"}],"withoutSub":false}"#;
        let heartbeat: HeartbeatData = json::from_str(text).unwrap();
        assert_eq!(heartbeat.consumer_data_set[0].consume_type, ConsumeType::Passively);
        assert_eq!(json::to_vec(&heartbeat), text.as_bytes());
    }

    #[test]
    fn sparse_heartbeat_is_read() {
        let text = r#"{"clientID":"c","consumerDataSet":null,"producerDataSet":[{"groupName":"P"}],"x":1}"#;
        let heartbeat: HeartbeatData = json::from_str(text).unwrap();
        assert!(heartbeat.consumer_data_set.is_empty());
        let text = r#"{"groupName":"G","messageModel":"NEW_IN_6","subscriptionDataSet":[]}"#;
        let consumer: ConsumerData = json::from_str(text).unwrap();
        assert_eq!(consumer.message_model, MessageModel::Unknown);
    }

    #[test]
    fn connection_list_is_written_as_java_does() {
        let list = ConsumerConnection {
            connection_set: vec![ClientConnection {
                client_addr: "10.0.0.9:4711".into(),
                client_id: "c".into(),
                language: Language::Java,
                version: 513,
            }],
            consume_from_where: ConsumeFromWhere::FirstOffset,
            consume_type: ConsumeType::Pop,
            message_model: MessageModel::Clustering,
            subscription_table: BTreeMap::new(),
        };
        let text = r#"{"connectionSet":[{"clientAddr":"10.0.0.9:4711","clientId":"c","language":"JAVA","version":513}],"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET","consumeType":"CONSUME_POP","messageModel":"CLUSTERING","subscriptionTable":{}}"#;
        assert_eq!(json::to_vec(&list), text.as_bytes());
    }

    #[test]
    fn producer_table_is_read_and_written() {
        let text = r#"{"data":{"P":[{"clientId":"c","language":"GO","lastUpdateTimestamp":5,"remoteIP":"10.0.0.9:1","version":317}]}}"#;
        let table: ProducerTableInfo = json::from_str(text).unwrap();
        assert_eq!(json::to_vec(&table), text.as_bytes());
    }

    #[test]
    fn assignment_is_written_as_java_does() {
        let text = r#"{"messageQueueAssignments":[{"messageQueue":{"brokerName":"b","queueId":1,"topic":"T"},"mode":"PULL"}]}"#;
        let body: QueryAssignmentResponseBody = json::from_str(text).unwrap();
        assert_eq!(json::to_vec(&body), text.as_bytes());
    }
}
