//! Bodies of topic, group, user and key-value administration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{Group, SubscriptionGroupConfig, Topic, TopicConfig};

/// Names and values: GET_KVLIST_BY_NAMESPACE (219), GET_BROKER_RUNTIME_INFO (28) and others.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KvTable {
    /// The values by name.
    #[serde(default)]
    pub table: BTreeMap<String, String>,
}

/// Body of UPDATE_AND_CREATE_TOPIC_LIST (18).
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateTopicListRequestBody {
    /// The topics.
    #[serde(default)]
    pub topic_config_list: Vec<TopicConfig>,
}

/// Body of UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST (225).
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubscriptionGroupList {
    /// The groups.
    #[serde(default)]
    pub group_config_list: Vec<SubscriptionGroupConfig>,
}

/// Answer to UPDATE_AND_GET_GROUP_FORBIDDEN (353).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupForbidden {
    /// The consumer group.
    pub group: Group,
    /// False if the group may not read the topic.
    pub readable: Option<bool>,
    /// The topic.
    pub topic: Topic,
}

/// A user: AUTH_CREATE_USER (3001) and others.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserInfo {
    /// The secret key.
    pub password: Option<String>,
    /// `enable` or `disable`.
    pub user_status: Option<String>,
    /// `Super` or `Normal`.
    pub user_type: Option<String>,
    /// The user.
    pub username: Option<String>,
}

/// An access list: AUTH_CREATE_ACL (3006) and others.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AclInfo {
    /// What applies.
    #[serde(default)]
    pub policies: Vec<AclPolicy>,
    /// The subject, `User:<name>`.
    pub subject: Option<String>,
}

/// A policy of an access list. Source: RocketMQ `AclInfo.PolicyInfo`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AclPolicy {
    /// Its rules.
    #[serde(default)]
    pub entries: Vec<AclPolicyEntry>,
    /// `Custom` or `Default`.
    pub policy_type: Option<String>,
}

/// One rule. Source: RocketMQ `AclInfo.PolicyEntryInfo`.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AclPolicyEntry {
    /// `Pub`, `Sub`, `Create` and so on.
    #[serde(default)]
    pub actions: Vec<String>,
    /// `Allow` or `Deny`.
    pub decision: Option<String>,
    /// `Topic:<name or prefix*>` and so on.
    pub resource: Option<String>,
    /// Where the request may come from; absent is anywhere.
    pub source_ips: Option<Vec<String>>,
}
