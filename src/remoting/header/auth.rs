//! Headers of users and access lists (3001-3010).

use serde::{Deserialize, Serialize};

/// AUTH_CREATE_USER (3001), AUTH_UPDATE_USER (3002), AUTH_DELETE_USER (3003), AUTH_GET_USER (3004).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserRequestHeader {
    /// The user.
    pub username: String,
}

/// AUTH_LIST_USER (3005).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListUsersRequestHeader {
    /// Part of the names wanted.
    pub filter: Option<String>,
}

/// AUTH_CREATE_ACL (3006), AUTH_UPDATE_ACL (3007), AUTH_GET_ACL (3009).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AclRequestHeader {
    /// The subject, `User:<name>`.
    pub subject: String,
}

/// AUTH_DELETE_ACL (3008).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeleteAclRequestHeader {
    /// The subject, `User:<name>`.
    pub subject: String,
    /// `Custom` or `Default`.
    pub policy_type: Option<String>,
    /// The one resource to delete.
    pub resource: Option<String>,
}

/// AUTH_LIST_ACL (3010).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListAclsRequestHeader {
    /// Part of the subjects wanted.
    pub subject_filter: Option<String>,
    /// Part of the resources wanted.
    pub resource_filter: Option<String>,
}
