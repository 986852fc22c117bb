//! What was sent and read, by topic and group.

use crate::model::{Group, QueueId, Topic};

/// Counters of a broker.
#[derive(Debug, Default)]
pub(crate) struct Stats {}

impl Stats {
    /// Counts messages that were stored.
    pub(crate) fn put(&self, _topic: &Topic, _queue_id: QueueId, _count: usize, _bytes: usize) {}

    /// Counts messages that a group read.
    pub(crate) fn got(&self, _group: &Group, _topic: &Topic, _queue_id: QueueId, _count: usize, _bytes: u64) {
    }

    /// Counts a message that a group sent back.
    pub(crate) fn sent_back(&self, _group: &Group, _topic: &Topic) {}
}
