//! Tables of offsets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{DataVersion, MessageQueue, Topic};

/// Answer to 43, and what consumerOffset.json holds.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerOffsetSerializeWrapper {
    /// Version of the table.
    pub data_version: Option<DataVersion>,
    /// `topic@group` to queue to offset.
    #[serde(default)]
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Answer to 45, and what delayOffset.json holds.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DelayOffsetSerializeWrapper {
    /// Version of the table.
    pub data_version: Option<DataVersion>,
    /// Delay level to queue offset.
    #[serde(default)]
    pub offset_table: BTreeMap<i32, i64>,
}

/// Body of 220, answer to 222.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetOffsetBody {
    /// The new offsets.
    #[serde(default)]
    pub offset_table: BTreeMap<MessageQueue, i64>,
}

/// Body of 220 for clients in C++.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResetOffsetBodyForC {
    /// The new offsets.
    #[serde(default)]
    pub offset_table: Vec<MessageQueueForC>,
}

/// One new offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageQueueForC {
    /// The broker group.
    pub broker_name: String,
    /// The offset.
    #[serde(default)]
    pub offset: i64,
    /// The queue.
    #[serde(default)]
    pub queue_id: i32,
    /// The topic.
    pub topic: Topic,
}

/// Answer to 308.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueryCorrectionOffsetBody {
    /// Queue to offset.
    #[serde(default)]
    pub correction_offsets: BTreeMap<i32, i64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::json;

    #[test]
    fn offset_tables_are_read_and_written() {
        let text =
            r#"{"dataVersion":{"counter":1,"stateVersion":0,"timestamp":2},"offsetTable":{"T@G":{0:5,1:7}}}"#;
        let table: ConsumerOffsetSerializeWrapper = json::from_str(text).unwrap();
        assert_eq!(table.offset_table["T@G"][&1], 7);
        assert_eq!(json::to_vec(&table), text.as_bytes());
    }

    #[test]
    fn queues_are_keys() {
        let text = r#"{"offsetTable":{{"brokerName":"b","queueId":1,"topic":"T"}:5}}"#;
        let body: ResetOffsetBody = json::from_str(text).unwrap();
        assert_eq!(json::to_vec(&body), text.as_bytes());
        let quoted = r#"{"offsetTable":{"{\"topic\":\"T\",\"queueId\":1,\"brokerName\":\"b\"}":"5"}}"#;
        assert_eq!(json::from_str::<ResetOffsetBody>(quoted).unwrap(), body);
    }
}
