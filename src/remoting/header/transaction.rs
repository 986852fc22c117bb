//! Headers of transactions and recalls.

use serde::{Deserialize, Serialize};

use crate::model::{Group, Topic};

/// END_TRANSACTION (37).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndTransactionRequestHeader {
    /// The topic.
    pub topic: Option<Topic>,
    /// The producer group.
    pub producer_group: Group,
    /// Queue offset of the half message.
    pub tran_state_table_offset: i64,
    /// Physical offset of the half message.
    pub commit_log_offset: i64,
    /// 8 commit, 12 rollback, 0 unknown.
    pub commit_or_rollback: i32,
    /// True if this answers a check.
    #[serde(default)]
    pub from_transaction_check: bool,
    /// The message.
    pub msg_id: String,
    /// The message's unique key.
    pub transaction_id: Option<String>,
}

/// CHECK_TRANSACTION_STATE (39), broker to client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckTransactionStateRequestHeader {
    /// The topic.
    pub topic: Option<Topic>,
    /// Queue offset of the half message.
    pub tran_state_table_offset: i64,
    /// Physical offset of the half message.
    pub commit_log_offset: i64,
    /// The message.
    pub msg_id: Option<String>,
    /// The message's unique key.
    pub transaction_id: Option<String>,
    /// The message's offset id.
    pub offset_msg_id: Option<String>,
}

/// RESUME_CHECK_HALF_MESSAGE (323).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResumeCheckHalfMessageRequestHeader {
    /// The topic.
    pub topic: Option<Topic>,
    /// The message.
    pub msg_id: Option<String>,
}

/// RECALL_MESSAGE (370).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecallMessageRequestHeader {
    /// The producer group.
    pub producer_group: Option<Group>,
    /// The topic.
    pub topic: Topic,
    /// From the answer to the send.
    pub recall_handle: String,
}

/// Answer to 370.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecallMessageResponseHeader {
    /// The message.
    pub msg_id: String,
}
