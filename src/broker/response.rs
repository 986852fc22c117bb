//! The one table that turns what went wrong into the code and the remark that a client gets.
//!
//! No handler picks a code by itself.

use crate::model::{Group, NameError, Topic};
use crate::remoting::{Command, HeaderError, ResponseCode, json};
use crate::{config, filter, replication, store};

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The request code means nothing here.
    #[error(" request type {0} not supported")]
    UnknownRequest(i32),
    /// Known to RocketMQ, not built here.
    #[error("{0} is not supported by this version; see Compatibility in README")]
    NotBuilt(String),
    /// The header lacks a field or has a wrong value.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The body is not what the request needs.
    #[error("the body cannot be read: {0}")]
    Body(#[from] json::Error),
    /// The append or change was not committed.
    #[error(transparent)]
    Replication(#[from] replication::Error),
    /// The request is for the leader of the group.
    #[error("this replica does not lead its group; {0}")]
    NotLeading(String),
    /// Reading the store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The settings cannot be changed so.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A topic or group may not be named so.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A value is out of range.
    #[error("{0}")]
    InvalidParameter(String),
    /// The message cannot be stored.
    #[error("{0}")]
    MessageIllegal(String),
    /// Not allowed by a permission.
    #[error("{0}")]
    NoPermission(String),
    /// Not allowed by a permission; pulls say by which.
    #[error("{remark}")]
    PullForbidden {
        /// What is forbidden.
        remark: String,
        /// 1 broker, 2 group, 3 topic, 4 broadcast, 5 subscription.
        forbidden_type: i32,
    },
    /// No topic of that name.
    #[error("topic[{0}] not exist, apply first please! Make it with mqadmin updateTopic")]
    TopicNotExist(Topic),
    /// No group of that name.
    #[error("subscription group not exist, {0}; make it with mqadmin updateSubGroup")]
    GroupNotExist(Group),
    /// No subscription is known.
    #[error("{0}")]
    SubscriptionNotExist(String),
    /// The subscription known is older than the one meant.
    #[error("the consumer's subscription not latest")]
    SubscriptionNotLatest,
    /// The filter expression is wrong.
    #[error("parse the consumer's subscription failed: {0}")]
    SubscriptionParse(#[from] filter::Error),
    /// The expression that a consumer sent with its heartbeat is wrong.
    #[error("the broker's consumer filter data does not exist: {0}")]
    FilterNotExist(filter::Error),
    /// Nothing matches.
    #[error("{0}")]
    QueryNotFound(String),
    /// No client of the group is connected.
    #[error("{0}")]
    ConsumerNotOnline(String),
    /// The client did not answer.
    #[error("{0}")]
    ClientTimeout(String),
    /// Too much to do.
    #[error("{0}")]
    Busy(String),
    /// Not now, or not known whether; every client tries again, elsewhere if it can.
    #[error("{0}")]
    Unavailable(String),
    /// Everything else.
    #[error("{0}")]
    System(String),
}

impl Error {
    /// Returns the code for the wire. Source: RocketMQ's processors, as named beside each handler.
    pub(crate) fn code(&self) -> ResponseCode {
        match self {
            Self::UnknownRequest(_) | Self::NotBuilt(_) => ResponseCode::RequestCodeNotSupported,
            Self::Header(_) | Self::Body(_) | Self::System(_) => ResponseCode::SystemError,
            Self::Replication(error) => match error {
                replication::Error::NotLeader
                | replication::Error::Stopped
                | replication::Error::Full(_)
                | replication::Error::Failed(_) => ResponseCode::ServiceNotAvailable,
                replication::Error::Busy { .. } => ResponseCode::SystemBusy,
                replication::Error::Refused(_) => ResponseCode::MessageIllegal,
                replication::Error::NoGroup => ResponseCode::RequestCodeNotSupported,
                replication::Error::Unconfirmed | replication::Error::Group(_) => ResponseCode::SystemError,
            },
            Self::NotLeading(_) => ResponseCode::ServiceNotAvailable,
            Self::Store(error) => match error {
                store::Error::Full { .. } | store::Error::Poisoned(_) => ResponseCode::ServiceNotAvailable,
                store::Error::TooLarge { .. } | store::Error::Encode(_) => ResponseCode::MessageIllegal,
                store::Error::Io { .. }
                | store::Error::Locked(_)
                | store::Error::Corrupt { .. }
                | store::Error::Damaged { .. } => ResponseCode::SystemError,
            },
            Self::Config(error) => match error {
                config::Error::BlackListed(_) => ResponseCode::NoPermission,
                config::Error::Read { .. } | config::Error::Write { .. } => ResponseCode::SystemError,
                config::Error::Syntax { .. }
                | config::Error::Value { .. }
                | config::Error::NamesrvAddr(_)
                | config::Error::SlaveId
                | config::Error::TwoModes
                | config::Error::UnknownKey { .. } => ResponseCode::InvalidParameter,
            },
            Self::Name(_) | Self::InvalidParameter(_) => ResponseCode::InvalidParameter,
            Self::MessageIllegal(_) => ResponseCode::MessageIllegal,
            Self::NoPermission(_) | Self::PullForbidden { .. } => ResponseCode::NoPermission,
            Self::TopicNotExist(_) => ResponseCode::TopicNotExist,
            Self::GroupNotExist(_) => ResponseCode::SubscriptionGroupNotExist,
            Self::SubscriptionNotExist(_) => ResponseCode::SubscriptionNotExist,
            Self::SubscriptionNotLatest => ResponseCode::SubscriptionNotLatest,
            Self::SubscriptionParse(_) => ResponseCode::SubscriptionParseFailed,
            Self::FilterNotExist(_) => ResponseCode::FilterDataNotExist,
            Self::QueryNotFound(_) => ResponseCode::QueryNotFound,
            Self::ConsumerNotOnline(_) => ResponseCode::ConsumerNotOnline,
            Self::ClientTimeout(_) => ResponseCode::ConsumeMsgTimeout,
            Self::Busy(_) => ResponseCode::SystemBusy,
            Self::Unavailable(_) => ResponseCode::ServiceNotAvailable,
        }
    }

    /// Returns whether nothing was done because this replica does not lead: what the request asks for is not in the log
    /// and will not be, so it may be tried at the leader.
    pub(crate) fn is_not_leader(&self) -> bool {
        matches!(self, Self::Replication(replication::Error::NotLeader))
    }
}

impl From<Error> for Command {
    fn from(error: Error) -> Self {
        let response = Self::response(error.code()).with_remark(error.to_string());
        match error {
            Error::PullForbidden { forbidden_type, .. } => {
                response.with_field("forbiddenType", forbidden_type.to_string())
            }
            _ => response,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from RocketMQ's `ResponseCode` and `RemotingSysResponseCode`.
    #[test]
    fn errors_have_the_codes_of_java() {
        let text = || String::from("x");
        for (error, number) in [
            (Error::UnknownRequest(9), 3),
            (Error::NotBuilt(text()), 3),
            (Error::System(text()), 1),
            (Error::Replication(replication::Error::NotLeader), 14),
            (Error::Replication(replication::Error::Stopped), 14),
            (Error::Replication(replication::Error::Full(text())), 14),
            (Error::Replication(replication::Error::Failed(text())), 14),
            (Error::Replication(replication::Error::Refused(text())), 13),
            (Error::Replication(replication::Error::Unconfirmed), 1),
            (Error::Replication(replication::Error::NoGroup), 3),
            (Error::Replication(replication::Error::Group(text())), 1),
            (
                Error::Replication(replication::Error::Busy {
                    queued_bytes: 1,
                    limit_bytes: 1,
                    waited: std::time::Duration::ZERO,
                }),
                2,
            ),
            (Error::NotLeading(text()), 14),
            (Error::Config(config::Error::BlackListed(text())), 16),
            (Error::Config(config::Error::SlaveId), 29),
            (Error::InvalidParameter(text()), 29),
            (Error::MessageIllegal(text()), 13),
            (Error::NoPermission(text()), 16),
            (Error::PullForbidden { remark: text(), forbidden_type: 2 }, 16),
            (Error::TopicNotExist(Topic::new("T")), 17),
            (Error::GroupNotExist(Group::new("G")), 26),
            (Error::SubscriptionNotExist(text()), 24),
            (Error::SubscriptionNotLatest, 25),
            (Error::SubscriptionParse(filter::Error::NoTag(text())), 23),
            (Error::FilterNotExist(filter::Error::NoTag(text())), 27),
            (Error::QueryNotFound(text()), 22),
            (Error::ConsumerNotOnline(text()), 206),
            (Error::ClientTimeout(text()), 207),
            (Error::Busy(text()), 2),
            (Error::Unavailable(text()), 14),
        ] {
            assert_eq!(error.code().number(), number, "{error:?}");
        }
    }
}
