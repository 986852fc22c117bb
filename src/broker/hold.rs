//! Held pulls: requests that wait for a message. Source of the behaviour: RocketMQ `PullRequestHoldService`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::filter::Filter;
use crate::model::{QueueId, QueueOffset, Topic};
use crate::store::Arrival;

/// All held pulls of a broker.
#[derive(Debug)]
pub(crate) struct Holds {
    table: Mutex<Table>,
    /// How many are held, so that an arrival need not take the lock when there are none.
    count: AtomicUsize,
    max: usize,
}

#[derive(Debug, Default)]
struct Table {
    by_queue: HashMap<(Topic, QueueId), Vec<Held>>,
    next_id: u64,
}

#[derive(Debug)]
struct Held {
    id: u64,
    /// Where the pull wants to begin.
    offset: QueueOffset,
    filter: Filter,
    wake: oneshot::Sender<()>,
}

/// A place among the held pulls; given up when dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    holds: Arc<Holds>,
    key: (Topic, QueueId),
    id: u64,
    woken: oneshot::Receiver<()>,
}

impl Holds {
    pub(crate) fn new(max: usize) -> Self {
        Self { table: Mutex::default(), count: AtomicUsize::new(0), max }
    }

    /// Takes a place for a pull that wants messages from `offset`; `None` if too many are held.
    ///
    /// A message that arrived just before is not noticed: look once more after this returns.
    pub(crate) fn hold(
        self: &Arc<Self>,
        topic: &Topic,
        queue_id: QueueId,
        offset: QueueOffset,
        filter: Filter,
    ) -> Option<Hold> {
        let (wake, woken) = oneshot::channel();
        let mut table = self.lock();
        if self.count.load(Ordering::Relaxed) >= self.max {
            return None;
        }
        let id = table.next_id;
        table.next_id += 1;
        let key = (topic.clone(), queue_id);
        table.by_queue.entry(key.clone()).or_default().push(Held { id, offset, filter, wake });
        self.count.fetch_add(1, Ordering::SeqCst);
        Some(Hold { holds: Arc::clone(self), key, id, woken })
    }

    /// Wakes the pulls that wait for this message.
    pub(crate) fn arrived(&self, arrival: Arrival<'_>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut table = self.lock();
        let key = (arrival.topic.clone(), arrival.queue_id);
        let Some(held) = table.by_queue.get_mut(&key) else { return };
        let mut kept = Vec::new();
        for one in held.drain(..) {
            if one.offset <= arrival.queue_offset && one.filter.wants(arrival.tags_code, arrival.properties) {
                self.count.fetch_sub(1, Ordering::SeqCst);
                // The pull may have timed out at this moment; it reads once more anyway.
                let _ = one.wake.send(());
            } else {
                kept.push(one);
            }
        }
        if kept.is_empty() {
            table.by_queue.remove(&key)
        } else {
            table.by_queue.insert(key, kept)
        };
    }

    /// Wakes all that wait at a queue: after a change that they should not sleep through.
    pub(crate) fn wake(&self, topic: &Topic, queue_id: QueueId) {
        let mut table = self.lock();
        for held in table.by_queue.remove(&(topic.clone(), queue_id)).into_iter().flatten() {
            self.count.fetch_sub(1, Ordering::SeqCst);
            let _ = held.wake.send(());
        }
    }

    /// Wakes all: after a change that they should not sleep through.
    pub(crate) fn wake_all(&self) {
        let mut table = self.lock();
        for held in table.by_queue.drain().flat_map(|(_, held)| held) {
            self.count.fetch_sub(1, Ordering::SeqCst);
            let _ = held.wake.send(());
        }
    }

    fn release(&self, key: &(Topic, QueueId), id: u64) {
        let mut table = self.lock();
        let Some(held) = table.by_queue.get_mut(key) else { return };
        let before = held.len();
        held.retain(|one| one.id != id);
        self.count.fetch_sub(before - held.len(), Ordering::SeqCst);
        if held.is_empty() {
            table.by_queue.remove(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// Waits until a message arrives that the pull wants.
    pub(crate) async fn woken(&mut self) {
        // A sender that is gone has woken us.
        let _ = (&mut self.woken).await;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.release(&self.key, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{PropertiesRef, tags_code};

    fn arrive(holds: &Holds, topic: &Topic, offset: u64, tag: &str) {
        holds.arrived(Arrival {
            topic,
            queue_id: QueueId(0),
            queue_offset: QueueOffset(offset),
            tags_code: tags_code(Some(tag)),
            properties: PropertiesRef(""),
            size: 1,
        });
    }

    #[tokio::test]
    async fn a_pull_is_woken_by_the_first_message_that_it_wants() {
        let holds = Arc::new(Holds::new(2));
        let topic = Topic::new("T");
        let tags = Filter::tags("A").unwrap();
        let mut wanted = holds.hold(&topic, QueueId(0), QueueOffset(5), tags.clone()).unwrap();
        arrive(&holds, &Topic::new("U"), 5, "A");
        arrive(&holds, &topic, 4, "A");
        arrive(&holds, &topic, 5, "B");
        assert!(wanted.woken.try_recv().is_err());
        arrive(&holds, &topic, 6, "A");
        wanted.woken().await;
        assert_eq!(holds.count.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn places_are_bounded_and_given_back() {
        let holds = Arc::new(Holds::new(1));
        let topic = Topic::new("T");
        let first = holds.hold(&topic, QueueId(0), QueueOffset(0), Filter::All);
        assert!(holds.hold(&topic, QueueId(0), QueueOffset(0), Filter::All).is_none());
        drop(first);
        let mut second = holds.hold(&topic, QueueId(0), QueueOffset(0), Filter::All).unwrap();
        holds.wake_all();
        second.woken().await;
    }
}
