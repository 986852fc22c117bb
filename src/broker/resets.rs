//! Offsets that an operator set for a running group: told to the consumer with its next pull.
//!
//! In memory only, as in RocketMQ's `ConsumerOffsetManager` (`useServerSideResetOffset`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::{Group, QueueId, QueueOffset, Topic};

/// All offsets that no consumer has heard of yet.
#[derive(Debug, Default)]
pub(crate) struct Resets {
    table: Mutex<HashMap<(Topic, Group, QueueId), QueueOffset>>,
    /// So that an ordinary pull need not take the lock.
    count: AtomicUsize,
}

impl Resets {
    /// Sets the offset that the next pull of the group from the queue gets.
    pub(crate) fn put(&self, topic: &Topic, group: &Group, queue_id: QueueId, offset: QueueOffset) {
        let mut table = self.lock();
        table.insert((topic.clone(), group.clone(), queue_id), offset);
        self.count.store(table.len(), Ordering::Release);
    }

    /// Returns whether a consumer still has to hear of a new offset; until then its commits do not count.
    pub(crate) fn is_pending(&self, topic: &Topic, group: &Group, queue_id: QueueId) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.lock().contains_key(&(topic.clone(), group.clone(), queue_id))
    }

    /// Takes the offset that a consumer is about to hear of.
    pub(crate) fn take(&self, topic: &Topic, group: &Group, queue_id: QueueId) -> Option<QueueOffset> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut table = self.lock();
        let offset = table.remove(&(topic.clone(), group.clone(), queue_id));
        self.count.store(table.len(), Ordering::Release);
        offset
    }

    /// Forgets the new offsets in a topic that was deleted.
    pub(crate) fn forget_topic(&self, topic: &Topic) {
        self.forget(|(of, ..)| of == topic);
    }

    /// Forgets the new offsets of a group that was deleted.
    pub(crate) fn forget_group(&self, group: &Group) {
        self.forget(|(_, of, _)| of == group);
    }

    /// Forgets all: another replica leads, and tells consumers.
    pub(crate) fn clear(&self) {
        self.forget(|_| true);
    }

    fn forget(&self, gone: impl Fn(&(Topic, Group, QueueId)) -> bool) {
        let mut table = self.lock();
        table.retain(|key, _| !gone(key));
        self.count.store(table.len(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Topic, Group, QueueId), QueueOffset>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
