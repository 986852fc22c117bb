//! Queue locks of orderly consumers: LOCK_BATCH_MQ (41), UNLOCK_BATCH_MQ (42).
//!
//! In memory of the leader only, as in RocketMQ's `RebalanceLockManager`: after a restart or a change of the leader
//! consumers lock again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::response::Error;
use crate::env::Clock;
use crate::model::{Group, MessageQueue};
use crate::remoting::body::{LockBatchRequestBody, LockBatchResponseBody};
use crate::remoting::{Command, ResponseCode};

/// A lock that was not renewed for so long is free (`rocketmq.broker.rebalance.lockMaxLiveTime`).
const LOCK_MS: i64 = 60_000;

/// The locks of all groups.
#[derive(Debug)]
pub(crate) struct Locks {
    table: Mutex<HashMap<Group, HashMap<MessageQueue, Lock>>>,
    clock: Clock,
}

#[derive(Debug)]
struct Lock {
    client_id: String,
    renewed_ms: i64,
}

impl Lock {
    fn is_expired(&self, now_ms: i64) -> bool {
        now_ms - self.renewed_ms > LOCK_MS
    }
}

/// LOCK_BATCH_MQ.
pub(crate) fn lock(locks: &Locks, request: &Command) -> Result<Command, Error> {
    let body: LockBatchRequestBody = request.json()?;
    let locked = locks.lock_batch(&body.consumer_group, &body.client_id, body.mq_set);
    Ok(Command::response(ResponseCode::Success).with_json(&LockBatchResponseBody { lock_ok_mq_set: locked }))
}

/// UNLOCK_BATCH_MQ.
pub(crate) fn unlock(locks: &Locks, request: &Command) -> Result<Command, Error> {
    let body: LockBatchRequestBody = request.json()?;
    locks.unlock_batch(&body.consumer_group, &body.client_id, &body.mq_set);
    Ok(Command::response(ResponseCode::Success))
}

impl Locks {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { table: Mutex::default(), clock }
    }

    /// Locks or renews what is free or the client's own; returns that.
    fn lock_batch(
        &self,
        group: &Group,
        client_id: &str,
        queues: impl IntoIterator<Item = MessageQueue>,
    ) -> Vec<MessageQueue> {
        let now_ms = self.clock.now_ms();
        let mut table = self.lock();
        let of_group = table.entry(group.clone()).or_default();
        let mut locked = Vec::new();
        for queue in queues {
            let lock = of_group
                .entry(queue.clone())
                .or_insert_with(|| Lock { client_id: client_id.into(), renewed_ms: now_ms });
            if lock.client_id == client_id || lock.is_expired(now_ms) {
                *lock = Lock { client_id: client_id.into(), renewed_ms: now_ms };
                locked.push(queue);
            }
        }
        locked
    }

    fn unlock_batch(&self, group: &Group, client_id: &str, queues: &[MessageQueue]) {
        let mut table = self.lock();
        let Some(of_group) = table.get_mut(group) else { return };
        for queue in queues {
            if of_group.get(queue).is_some_and(|lock| lock.client_id == client_id) {
                of_group.remove(queue);
            }
        }
        if of_group.is_empty() {
            table.remove(group);
        }
    }

    /// Returns whether a member of the group holds a lock: the group consumes in order.
    pub(crate) fn is_locked(&self, group: &Group) -> bool {
        let now_ms = self.clock.now_ms();
        self.lock().get(group).is_some_and(|locks| locks.values().any(|lock| !lock.is_expired(now_ms)))
    }

    /// Forgets all: another replica leads, and gives locks.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Group, HashMap<MessageQueue, Lock>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Topic;

    #[test]
    fn a_queue_has_one_holder_until_its_lock_expires() {
        let clock = Clock::manual(0);
        let locks = Locks::new(clock.clone());
        let group = Group::new("g");
        let queue = |id| MessageQueue { broker_name: "b".into(), queue_id: id, topic: Topic::new("T") };
        assert_eq!(locks.lock_batch(&group, "c1", [queue(0), queue(1)]).len(), 2);
        assert_eq!(locks.lock_batch(&group, "c2", [queue(1), queue(2)]), [queue(2)]);
        clock.set_ms(LOCK_MS);
        assert_eq!(locks.lock_batch(&group, "c1", [queue(1)]), [queue(1)]);
        clock.set_ms(LOCK_MS + 1);
        assert_eq!(locks.lock_batch(&group, "c2", [queue(0), queue(1)]), [queue(0)]);
        locks.unlock_batch(&group, "c1", &[queue(0), queue(1)]);
        assert_eq!(locks.lock_batch(&group, "c2", [queue(1)]), [queue(1)]);
        assert!(locks.is_locked(&group));
        clock.set_ms(10 * LOCK_MS);
        assert!(!locks.is_locked(&group));
    }
}
