//! Bodies of LOCK_BATCH_MQ (41) and UNLOCK_BATCH_MQ (42).

use serde::{Deserialize, Serialize};

use crate::model::{Group, MessageQueue};

/// Body of 41 and 42.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockBatchRequestBody {
    /// The client.
    pub client_id: String,
    /// The consumer group.
    pub consumer_group: Group,
    /// The queues.
    #[serde(default)]
    pub mq_set: Vec<MessageQueue>,
    /// True: do not ask the other replicas.
    #[serde(default)]
    pub only_this_broker: bool,
}

/// Answer to 41.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LockBatchResponseBody {
    /// The queues that the client now holds.
    #[serde(default)]
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::json;

    #[test]
    fn lock_bodies_are_read_and_written() {
        let text = r#"{"clientId":"c","consumerGroup":"G","mqSet":[{"brokerName":"b","queueId":1,"topic":"T"}],"onlyThisBroker":false}"#;
        let body: LockBatchRequestBody = json::from_str(text).unwrap();
        assert_eq!(json::to_vec(&body), text.as_bytes());
        let answer = LockBatchResponseBody { lock_ok_mq_set: body.mq_set };
        let text = r#"{"lockOKMQSet":[{"brokerName":"b","queueId":1,"topic":"T"}]}"#;
        assert_eq!(json::to_vec(&answer), text.as_bytes());
    }
}
