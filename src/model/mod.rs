//! The names, numbers and settings that every layer talks about.
//!
//! Plain values: no I/O, no wire format beyond serde derives.

mod data_version;
mod group;
mod name;
mod number;
mod topic;

pub use data_version::DataVersion;
pub use group::{GroupRetryPolicy, SubscriptionGroupConfig};
pub use name::{Group, NameError, Topic};
pub use number::{LogIndex, PhysicalOffset, QueueId, QueueOffset, Term};
pub use topic::{MessageQueue, Perm, TopicConfig, system_topic};
