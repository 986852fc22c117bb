//! Why a request was refused, and how that looks on the wire: the one table of response codes.

use super::kv;
use super::routes::Refused;
use crate::config;
use crate::model::Topic;
use crate::remoting::body::RegisterBodyError;
use crate::remoting::{Command, HeaderError, ResponseCode, json};

/// Why a request was refused. The texts are Java's where Java has one.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    Header(#[from] HeaderError),
    #[error("decode the body: {0}")]
    Body(#[from] json::Error),
    #[error("Failed to decode RegisterBrokerBody, {0}")]
    Registration(#[from] RegisterBodyError),
    #[error("crc32 not match")]
    Crc,
    #[error("register broker failed")]
    NotRegistered,
    #[error("register broker failed: too many brokers")]
    TooManyBrokers,
    #[error("namespace or key is null")]
    NoNamespaceOrKey,
    #[error("No config item, Namespace: {0} Key: {1}")]
    NoItem(String, String),
    #[error("No config item, Namespace: {0}")]
    NoNamespace(String),
    #[error(
        "No topic route info in name server for the topic: {0}\nSee https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
    )]
    NoRoute(Topic),
    #[error("name server not ready")]
    NotReady,
    #[error("disable")]
    Disabled,
    #[error("{0}")]
    Kv(#[from] kv::Error),
    #[error("{0}")]
    BlackListed(config::Error),
    #[error("string2Properties error")]
    Properties,
    #[error("{0}")]
    Config(config::Error),
}

impl Refusal {
    /// Returns the answer.
    pub(super) fn response(&self) -> Command {
        let code = match self {
            Self::Header(_)
            | Self::Body(_)
            | Self::Registration(_)
            | Self::Crc
            | Self::NotRegistered
            | Self::TooManyBrokers
            | Self::NoNamespaceOrKey
            | Self::NotReady
            | Self::Disabled
            | Self::Kv(_)
            | Self::Properties
            | Self::Config(_) => ResponseCode::SystemError,
            Self::NoItem(..) | Self::NoNamespace(_) => ResponseCode::QueryNotFound,
            Self::NoRoute(_) => ResponseCode::TopicNotExist,
            Self::BlackListed(_) => ResponseCode::NoPermission,
        };
        Command::response(code).with_remark(self.to_string())
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::NotRegistered => Self::NotRegistered,
            Refused::Full => Self::TooManyBrokers,
        }
    }
}

impl From<config::Error> for Refusal {
    fn from(error: config::Error) -> Self {
        match error {
            config::Error::BlackListed(_) => Self::BlackListed(error),
            config::Error::Syntax { .. } => Self::Properties,
            config::Error::Read { .. }
            | config::Error::Write { .. }
            | config::Error::Value { .. }
            | config::Error::NamesrvAddr(_)
            | config::Error::SlaveId
            | config::Error::TwoModes
            | config::Error::UnknownKey { .. } => Self::Config(error),
        }
    }
}
