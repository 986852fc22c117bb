//! Headers of sends (10, 310, 320, 324, 325), their answers, and CONSUMER_SEND_MSG_BACK (36).

use serde::{Deserialize, Serialize};

use crate::model::{Group, Topic};
use crate::remoting::code::RequestCode;
use crate::remoting::command::{Command, HeaderError};

/// SEND_MESSAGE (10) and SEND_REPLY_MESSAGE (324), and what a handler gets for every kind of send.
/// Source: RocketMQ `SendMessageRequestHeader`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SendMessageHeader {
    /// The producer group.
    pub producer_group: Group,
    /// The topic.
    pub topic: Topic,
    /// Template for a topic that does not exist yet, normally `TBW102`.
    pub default_topic: Topic,
    /// Queues that a topic made for this message shall have.
    pub default_topic_queue_nums: i32,
    /// The queue; negative for any.
    pub queue_id: i32,
    /// System flag of the message.
    pub sys_flag: i32,
    /// When the client made the message, in milliseconds since 1970.
    pub born_timestamp: i64,
    /// The user's flag.
    pub flag: i32,
    /// Encoded properties.
    pub properties: Option<String>,
    /// How often the message was redelivered; absent is 0.
    pub reconsume_times: Option<i32>,
    /// Absent is false.
    pub unit_mode: Option<bool>,
    /// True if the body is a batch, whatever the request code says; absent is false.
    pub batch: Option<bool>,
    /// After how many redeliveries the message goes to the dead letter topic.
    pub max_reconsume_times: Option<i32>,
    /// The broker group that is meant.
    #[serde(rename = "bname")]
    pub broker_name: Option<String>,
}

impl SendMessageHeader {
    /// Reads the header of any send request: the codes 310, 320 and 325 have one-letter names, 10 and 324 long ones.
    pub fn of(request: &Command) -> Result<Self, HeaderError> {
        match request.request_code() {
            Some(
                RequestCode::SendMessageV2 | RequestCode::SendBatchMessage | RequestCode::SendReplyMessageV2,
            ) => request.header::<SendMessageHeaderV2>().map(Self::from),
            _ => request.header(),
        }
    }
}

/// SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320) and SEND_REPLY_MESSAGE_V2 (325): the same with short names.
/// Source: RocketMQ `SendMessageRequestHeaderV2`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendMessageHeaderV2 {
    /// The producer group.
    #[serde(rename = "a")]
    pub producer_group: Group,
    /// The topic.
    #[serde(rename = "b")]
    pub topic: Topic,
    /// Template for a topic that does not exist yet.
    #[serde(rename = "c")]
    pub default_topic: Topic,
    /// Queues that a topic made for this message shall have.
    #[serde(rename = "d")]
    pub default_topic_queue_nums: i32,
    /// The queue; negative for any.
    #[serde(rename = "e")]
    pub queue_id: i32,
    /// System flag of the message.
    #[serde(rename = "f")]
    pub sys_flag: i32,
    /// When the client made the message, in milliseconds since 1970.
    #[serde(rename = "g")]
    pub born_timestamp: i64,
    /// The user's flag.
    #[serde(rename = "h")]
    pub flag: i32,
    /// Encoded properties.
    #[serde(rename = "i")]
    pub properties: Option<String>,
    /// How often the message was redelivered.
    #[serde(rename = "j")]
    pub reconsume_times: Option<i32>,
    /// Unit mode.
    #[serde(rename = "k")]
    pub unit_mode: Option<bool>,
    /// After how many redeliveries the message goes to the dead letter topic.
    #[serde(rename = "l")]
    pub max_reconsume_times: Option<i32>,
    /// True if the body is a batch.
    #[serde(rename = "m")]
    pub batch: Option<bool>,
    /// The broker group that is meant.
    #[serde(rename = "n")]
    pub broker_name: Option<String>,
}

impl From<SendMessageHeaderV2> for SendMessageHeader {
    fn from(v2: SendMessageHeaderV2) -> Self {
        Self {
            producer_group: v2.producer_group,
            topic: v2.topic,
            default_topic: v2.default_topic,
            default_topic_queue_nums: v2.default_topic_queue_nums,
            queue_id: v2.queue_id,
            sys_flag: v2.sys_flag,
            born_timestamp: v2.born_timestamp,
            flag: v2.flag,
            properties: v2.properties,
            reconsume_times: v2.reconsume_times,
            unit_mode: v2.unit_mode,
            batch: v2.batch,
            max_reconsume_times: v2.max_reconsume_times,
            broker_name: v2.broker_name,
        }
    }
}

impl From<SendMessageHeader> for SendMessageHeaderV2 {
    fn from(v1: SendMessageHeader) -> Self {
        Self {
            producer_group: v1.producer_group,
            topic: v1.topic,
            default_topic: v1.default_topic,
            default_topic_queue_nums: v1.default_topic_queue_nums,
            queue_id: v1.queue_id,
            sys_flag: v1.sys_flag,
            born_timestamp: v1.born_timestamp,
            flag: v1.flag,
            properties: v1.properties,
            reconsume_times: v1.reconsume_times,
            unit_mode: v1.unit_mode,
            max_reconsume_times: v1.max_reconsume_times,
            batch: v1.batch,
            broker_name: v1.broker_name,
        }
    }
}

/// Answer to every send. Source: RocketMQ `SendMessageResponseHeader`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SendMessageResponseHeader {
    /// Offset message id; for a batch a list separated by commas.
    pub msg_id: String,
    /// The queue in which the message is.
    pub queue_id: i32,
    /// Its offset there; for a batch that of the first message.
    pub queue_offset: i64,
    /// The message's unique key.
    pub transaction_id: Option<String>,
    /// For a batch that is stored as one record.
    pub batch_uniq_id: Option<String>,
    /// For delayed messages.
    pub recall_handle: Option<String>,
}

/// CONSUMER_SEND_MSG_BACK (36). Source: RocketMQ `ConsumerSendMsgBackRequestHeader`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerSendMsgBackRequestHeader {
    /// Physical offset of the message.
    pub offset: i64,
    /// The consumer group.
    pub group: Group,
    /// Negative: dead letter topic at once; 0: the broker chooses; above: that level.
    pub delay_level: i32,
    /// The message's id.
    pub origin_msg_id: Option<String>,
    /// The message's topic.
    pub origin_topic: Option<Topic>,
    /// Unit mode.
    #[serde(default)]
    pub unit_mode: bool,
    /// After how many redeliveries the message goes to the dead letter topic.
    pub max_reconsume_times: Option<i32>,
}

/// PUSH_REPLY_MESSAGE_TO_CLIENT (326), broker to client. Source: RocketMQ `ReplyMessageRequestHeader`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplyMessageRequestHeader {
    /// The producer group.
    pub producer_group: Group,
    /// The reply topic.
    pub topic: Topic,
    /// As in the reply's send.
    pub default_topic: Topic,
    /// As in the reply's send.
    pub default_topic_queue_nums: i32,
    /// As in the reply's send.
    pub queue_id: i32,
    /// System flag of the reply.
    pub sys_flag: i32,
    /// When the reply was made, in milliseconds since 1970.
    pub born_timestamp: i64,
    /// The user's flag.
    pub flag: i32,
    /// Encoded properties.
    pub properties: Option<String>,
    /// How often it was redelivered.
    pub reconsume_times: Option<i32>,
    /// Unit mode.
    #[serde(default)]
    pub unit_mode: bool,
    /// Who replied, `host:port`.
    pub born_host: String,
    /// The broker, `host:port`.
    pub store_host: String,
    /// When the broker got it, in milliseconds since 1970.
    pub store_timestamp: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_send_give_one_header() {
        let long = Command::request(RequestCode::SendMessage)
            .with_field("producerGroup", "g")
            .with_field("topic", "T")
            .with_field("defaultTopic", "TBW102")
            .with_field("defaultTopicQueueNums", "4")
            .with_field("queueId", "-1")
            .with_field("sysFlag", "0")
            .with_field("bornTimestamp", "1700000000000")
            .with_field("flag", "0")
            .with_field("batch", "true")
            .with_field("bname", "b");
        let header = SendMessageHeader::of(&long).unwrap();
        assert_eq!((header.queue_id, header.batch, header.unit_mode), (-1, Some(true), None));
        assert_eq!(header.broker_name.as_deref(), Some("b"));

        let short = Command::request(RequestCode::SendMessageV2)
            .with_header(&SendMessageHeaderV2::from(header.clone()));
        let letters: String = short.ext_fields.iter().map(|(key, _)| key).collect();
        assert_eq!(letters, "abcdefghmn");
        assert_eq!(SendMessageHeader::of(&short).unwrap(), header);
    }

    #[test]
    fn wrong_send_header_names_its_field() {
        let request = Command::request(RequestCode::SendMessageV2).with_field("a", "g").with_field("e", "x");
        let error = SendMessageHeader::of(&request).unwrap_err();
        assert_eq!(error.to_string(), "e=x: expected a whole number of 32 bits");
    }
}
