//! A topic's settings, and the names of system topics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Topic;

/// Permission bits of a topic or broker. Source: RocketMQ `PermName`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Perm(pub i32);

impl Perm {
    /// A new topic may take its settings from this one.
    pub const INHERIT: Self = Self(1);
    /// Messages may be sent.
    pub const WRITE: Self = Self(2);
    /// Messages may be read.
    pub const READ: Self = Self(4);
    /// Both.
    pub const READ_WRITE: Self = Self(6);
    /// All that `TBW102` has.
    pub const ALL: Self = Self(7);

    /// True if messages may be read.
    pub fn readable(self) -> bool {
        self.0 & Self::READ.0 != 0
    }

    /// True if messages may be sent.
    pub fn writable(self) -> bool {
        self.0 & Self::WRITE.0 != 0
    }

    /// True if new topics may be made after this one.
    pub fn inheritable(self) -> bool {
        self.0 & Self::INHERIT.0 != 0
    }

    /// Returns these bits without those of `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Settings of a topic, as in topics.json. Source: RocketMQ `TopicConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    /// `message.type`, `queue.type`, `cleanup.policy` and others, without the `+` of the command line.
    pub attributes: BTreeMap<String, String>,
    /// True if the name servers keep an order configuration for it.
    pub order: bool,
    /// What clients may do.
    pub perm: Perm,
    /// Number of queues that consumers see.
    pub read_queue_nums: u32,
    /// `SINGLE_TAG` or `MULTI_TAG`.
    pub topic_filter_type: String,
    /// The topic's name.
    pub topic_name: Topic,
    /// Unit bits; 0 in ordinary use.
    pub topic_sys_flag: i32,
    /// Number of queues that producers see.
    pub write_queue_nums: u32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: Perm::READ_WRITE,
            read_queue_nums: 16,
            topic_filter_type: "SINGLE_TAG".into(),
            topic_name: Topic::new(""),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

impl TopicConfig {
    /// Makes the settings of a topic with `queues` read and write queues.
    pub fn new(topic_name: Topic, queues: u32, perm: Perm) -> Self {
        Self { topic_name, read_queue_nums: queues, write_queue_nums: queues, perm, ..Self::default() }
    }
}

/// One queue of one broker group. Source: RocketMQ `MessageQueue`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageQueue {
    /// The broker group.
    pub broker_name: String,
    /// The queue's number; -1 in requests that mean any queue.
    pub queue_id: i32,
    /// The topic.
    pub topic: Topic,
}

/// Topics that the broker keeps for itself. Source: RocketMQ `TopicValidator`.
pub mod system_topic {
    /// Template for topics that a producer creates by sending.
    pub const AUTO_CREATE: &str = "TBW102";
    /// Holds messages until their delay level is due.
    pub const SCHEDULE: &str = "SCHEDULE_TOPIC_XXXX";
    /// Part of every broker; nobody sends to it.
    pub const SELF_TEST: &str = "SELF_TEST_TOPIC";
    /// Topic of the benchmark programs.
    pub const BENCHMARK: &str = "BenchmarkTest";
    /// Told when a consumer's offset had to move.
    pub const OFFSET_MOVED: &str = "OFFSET_MOVED_EVENT";
    /// Half messages of transactions.
    pub const TRANS_HALF: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
    /// Marks half messages as finished.
    pub const TRANS_OP_HALF: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
    /// Half messages that were checked too often.
    pub const TRANS_CHECK_MAX: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
    /// Message traces.
    pub const TRACE: &str = "RMQ_SYS_TRACE_TOPIC";
    /// Timed messages.
    pub const TIMER: &str = "rmq_sys_wheel_timer";
    /// Raft entry records; hidden from every client.
    pub const RAFT_LOG: &str = "RMQ_SYS_RAFT_LOG";
    /// Prefix of all further system topics.
    pub const PREFIX: &str = "rmq_sys_";

    /// Names that make up the system topic list of every broker.
    pub const ALL: [&str; 9] = [
        AUTO_CREATE,
        SCHEDULE,
        BENCHMARK,
        TRANS_HALF,
        TRACE,
        TRANS_OP_HALF,
        TRANS_CHECK_MAX,
        SELF_TEST,
        OFFSET_MOVED,
    ];

    /// Topics to which clients may not send.
    pub const NOT_ALLOWED_TO_SEND: [&str; 7] =
        [SCHEDULE, TRANS_HALF, TRANS_OP_HALF, TRANS_CHECK_MAX, SELF_TEST, OFFSET_MOVED, RAFT_LOG];

    /// True for the names above and every name with the system prefix.
    pub fn is_system(topic: &str) -> bool {
        ALL.contains(&topic) || topic == RAFT_LOG || topic.starts_with(PREFIX)
    }
}
