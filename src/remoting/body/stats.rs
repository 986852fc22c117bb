//! What tools ask about queues, groups and traffic.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::SubscriptionData;
use crate::model::{Group, MessageQueue, Topic};

/// Answer to 202.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicStatsTable {
    /// The topic's queues.
    #[serde(default)]
    pub offset_table: BTreeMap<MessageQueue, TopicOffset>,
    /// Messages a second.
    #[serde(default)]
    pub topic_put_tps: f64,
}

/// Bounds of a queue.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicOffset {
    /// Store time of its last message, 0 if none.
    #[serde(default)]
    pub last_update_timestamp: i64,
    /// The end, exclusive.
    #[serde(default)]
    pub max_offset: i64,
    /// The first offset.
    #[serde(default)]
    pub min_offset: i64,
}

/// Answer to 208.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumeStats {
    /// Messages a second.
    #[serde(default)]
    pub consume_tps: f64,
    /// Progress by queue.
    #[serde(default)]
    pub offset_table: BTreeMap<MessageQueue, OffsetWrapper>,
}

/// Progress of a group in a queue.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OffsetWrapper {
    /// The queue's end.
    #[serde(default)]
    pub broker_offset: i64,
    /// What the group committed.
    #[serde(default)]
    pub consumer_offset: i64,
    /// Store time of the last consumed message.
    #[serde(default)]
    pub last_timestamp: i64,
    /// Where it pulled last.
    #[serde(default)]
    pub pull_offset: i64,
}

/// Answer to 317.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumeStatsList {
    /// The broker's address, `host:port`.
    pub broker_addr: Option<String>,
    /// By group.
    #[serde(default)]
    pub consume_stats_list: Vec<BTreeMap<Group, Vec<ConsumeStats>>>,
    /// Messages not consumed.
    #[serde(default)]
    pub total_diff: i64,
    /// Messages pulled and not consumed.
    #[serde(default)]
    pub total_inflight_diff: i64,
}

/// Answer to 315.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStatsData {
    /// The last day.
    #[serde(default)]
    pub stats_day: BrokerStatsItem,
    /// The last hour.
    #[serde(default)]
    pub stats_hour: BrokerStatsItem,
    /// The last minute.
    #[serde(default)]
    pub stats_minute: BrokerStatsItem,
}

/// One period.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerStatsItem {
    /// Average of one event.
    #[serde(default)]
    pub avgpt: f64,
    /// Sum.
    #[serde(default)]
    pub sum: i64,
    /// A second.
    #[serde(default)]
    pub tps: f64,
}

/// Answer to 303.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryConsumeTimeSpanBody {
    /// By queue.
    #[serde(default)]
    pub consume_time_span_set: Vec<QueueTimeSpan>,
}

/// How far behind a group is in a queue; milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueTimeSpan {
    /// Store time of the last consumed message.
    #[serde(default)]
    pub consume_time_stamp: i64,
    /// How long ago that is.
    #[serde(default)]
    pub delay_time: i64,
    /// Store time of the last message.
    #[serde(default)]
    pub max_time_stamp: i64,
    /// The queue.
    pub message_queue: MessageQueue,
    /// Store time of the first message.
    #[serde(default)]
    pub min_time_stamp: i64,
}

/// Answer to 321.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryConsumeQueueResponseBody {
    /// The filter in text.
    pub filter_data: Option<String>,
    /// The queue's end.
    #[serde(default)]
    pub max_queue_index: i64,
    /// The queue's first offset.
    #[serde(default)]
    pub min_queue_index: i64,
    /// The entries.
    #[serde(default)]
    pub queue_data: Vec<ConsumeQueueData>,
    /// The subscription.
    pub subscription_data: Option<SubscriptionData>,
}

/// One entry of a queue.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumeQueueData {
    /// Bloom filter bits.
    pub bit_map: Option<String>,
    /// True if the message matches the filter.
    #[serde(default)]
    pub eval: bool,
    /// What the queue extension holds.
    pub extend_data_json: Option<String>,
    /// Why it could not be evaluated.
    pub msg: Option<String>,
    /// Where the message is.
    #[serde(default)]
    pub physic_offset: i64,
    /// How long it is.
    #[serde(default)]
    pub physic_size: i32,
    /// Hash of its tag.
    #[serde(default)]
    pub tags_code: i64,
}

/// Answer to 300.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupList {
    /// The groups.
    #[serde(default)]
    pub group_list: Vec<Group>,
}

/// Answer to 345.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QuerySubscriptionResponseBody {
    /// The consumer group.
    pub group: Group,
    /// The subscription.
    pub subscription_data: Option<SubscriptionData>,
    /// The topic.
    pub topic: Option<Topic>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::json;

    #[test]
    fn consume_stats_are_read_and_written() {
        let text = r#"{"consumeTps":0.5,"offsetTable":{{"brokerName":"b","queueId":1,"topic":"T"}:{"brokerOffset":9,"consumerOffset":7,"lastTimestamp":1,"pullOffset":8}}}"#;
        let stats: ConsumeStats = json::from_str(text).unwrap();
        assert_eq!(json::to_vec(&stats), text.as_bytes());
    }

    #[test]
    fn topic_stats_are_read_and_written() {
        let text = r#"{"offsetTable":{{"brokerName":"b","queueId":0,"topic":"T"}:{"lastUpdateTimestamp":3,"maxOffset":2,"minOffset":1}},"topicPutTps":0.0}"#;
        let stats: TopicStatsTable = json::from_str(text).unwrap();
        assert_eq!(json::to_vec(&stats), text.as_bytes());
    }
}
