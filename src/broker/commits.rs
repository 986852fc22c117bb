//! Commits of offsets that come late.
//!
//! A commit that waited at a replica which was paused or cut off must not undo those that were acknowledged meanwhile.
//! So each carries the offset that was in force where it arrived: one that goes back behind an offset which the sender
//! did not know is refused.
//!
//! Offsets that pulls commit at a replica which does not lead are gathered here, and handed to the leader a moment
//! later. Consumers that know that they pull from a slave do not commit with it; those whose route is old do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Broker;
use super::forward::forwarded_in;
use super::roles::changed;
use crate::metadata::{MetadataCommand, Offsets};
use crate::model::{Group, QueueId, QueueOffset, Topic};
use crate::remoting::header::UpdateConsumerOffsetRequestHeader;
use crate::remoting::{Command, RequestCode};

/// How often what was gathered is handed on: consumers commit every five seconds anyway.
const INTERVAL: Duration = Duration::from_millis(500);
/// Queues whose offsets are gathered; far more than one interval brings.
const QUEUES_MAX: usize = 100_000;

/// In a commit: the offset that was in force where it arrived, or -1.
const FOUND: &str = "quorateFoundOffset";

/// What a commit found when it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found(Option<QueueOffset>);

impl Found {
    /// Returns what a commit finds that arrives now.
    pub(crate) fn now(offsets: &Offsets, group: &Group, topic: &Topic, queue_id: QueueId) -> Self {
        Self(offsets.get(group, topic, queue_id))
    }

    /// Returns what a commit found that another replica, or a wait for the leader, may have held up.
    pub(crate) fn of(request: &Command) -> Option<Self> {
        let found: i64 = request.ext_fields.get(FOUND)?.parse().ok()?;
        Some(Self(u64::try_from(found).ok().map(QueueOffset)))
    }

    /// Returns whether `offset` would undo a commit that was not known where this was found; `now` is in force.
    pub(crate) fn is_overtaken(self, offset: QueueOffset, now: Self) -> bool {
        now.0.is_some_and(|now| offset < now) && self != now
    }

    fn put_into(self, request: Command) -> Command {
        let found = self.0.and_then(|offset| i64::try_from(offset.0).ok()).unwrap_or(-1);
        request.with_field(FOUND, found.to_string())
    }
}

/// Marks a commit that just arrived with what it finds, unless the replica that it came from did.
pub(crate) fn marked(offsets: &Offsets, request: Command) -> Command {
    let is_marked = forwarded_in(&request).is_some() && Found::of(&request).is_some();
    let header = request.header::<UpdateConsumerOffsetRequestHeader>();
    let Some(header) = header.ok().filter(|_| !is_marked) else { return request };
    let Ok(queue_id) = u32::try_from(header.queue_id) else { return request };
    Found::now(offsets, &header.consumer_group, &header.topic, QueueId(queue_id)).put_into(request)
}

/// The newest offset of each group in each queue.
#[derive(Debug, Default)]
pub(crate) struct Commits(Mutex<Table>);

type Table = HashMap<(Group, Topic, QueueId), (QueueOffset, Found)>;

impl Commits {
    /// Takes an offset in. Beyond the limit those of further queues are left out; the consumer commits again.
    pub(crate) fn put(
        &self,
        group: &Group,
        topic: &Topic,
        queue_id: QueueId,
        offset: QueueOffset,
        found: Found,
    ) {
        let mut table = self.lock();
        let key = (group.clone(), topic.clone(), queue_id);
        if table.len() < QUEUES_MAX || table.contains_key(&key) {
            table.insert(key, (offset, found));
        }
    }

    fn take(&self) -> Table {
        std::mem::take(&mut *self.lock())
    }

    /// Puts back what could not be handed on, unless something newer came meanwhile.
    fn put_back(&self, commits: impl IntoIterator<Item = ((Group, Topic, QueueId), (QueueOffset, Found))>) {
        let mut table = self.lock();
        for (key, commit) in commits {
            if table.len() < QUEUES_MAX {
                table.entry(key).or_insert(commit);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands on what was gathered until told to stop: every now and then, and at each change of the role.
pub(crate) async fn run(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    let mut role = broker.context.role();
    loop {
        let stopped = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => true,
            () = changed(&mut role) => false,
            () = tokio::time::sleep(INTERVAL) => false,
        };
        hand_on(&broker).await;
        if stopped {
            return;
        }
    }
}

async fn hand_on(broker: &Broker) {
    let mut commits = broker.commits.take().into_iter();
    while let Some(((group, topic, queue_id), commit)) = commits.next() {
        if !hand_on_one(broker, &group, &topic, queue_id, commit).await {
            // No leader: all of it later.
            broker.commits.put_back(commits.chain([((group, topic, queue_id), commit)]));
            return;
        }
    }
}

async fn hand_on_one(
    broker: &Broker,
    group: &Group,
    topic: &Topic,
    queue_id: QueueId,
    (offset, found): (QueueOffset, Found),
) -> bool {
    if let Ok(permit) = broker.context.replication.permit() {
        if found.is_overtaken(offset, Found::now(broker.context.metadata.offsets(), group, topic, queue_id)) {
            return true;
        }
        let (group, topic) = (group.clone(), topic.clone());
        let command = MetadataCommand::CommitOffset { group, topic, queue_id, offset };
        return broker.context.replication.note(permit, command).is_ok();
    }
    let request =
        Command::request(RequestCode::UpdateConsumerOffset).with_header(&UpdateConsumerOffsetRequestHeader {
            consumer_group: group.clone(),
            topic: topic.clone(),
            queue_id: i32::try_from(queue_id.0).unwrap_or(i32::MAX),
            commit_offset: i64::try_from(offset.0).unwrap_or(i64::MAX),
        });
    broker.forward.send(&found.put_into(request)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_of_a_queue_counts() {
        let commits = Commits::default();
        let (group, topic) = (Group::new("g"), Topic::new("T"));
        let found = Found(None);
        commits.put(&group, &topic, QueueId(0), QueueOffset(5), found);
        commits.put(&group, &topic, QueueId(0), QueueOffset(7), found);
        commits.put(&group, &topic, QueueId(1), QueueOffset(1), found);
        let taken = commits.take();
        assert_eq!(taken.len(), 2);
        commits.put(&group, &topic, QueueId(0), QueueOffset(9), found);
        commits.put_back(taken);
        let taken = commits.take();
        assert_eq!(taken[&(group.clone(), topic.clone(), QueueId(0))].0, QueueOffset(9));
        assert_eq!(taken[&(group, topic, QueueId(1))].0, QueueOffset(1));
    }

    #[test]
    fn a_commit_that_was_held_up_does_not_undo_newer_ones() {
        let at = |offset| Found(Some(QueueOffset(offset)));
        // Held up at 7, while others went on to 20.
        assert!(at(7).is_overtaken(QueueOffset(8), at(20)));
        assert!(Found(None).is_overtaken(QueueOffset(8), at(20)));
        // On purpose: who went back knew where the group was.
        assert!(!at(20).is_overtaken(QueueOffset(8), at(20)));
        // Forward is always right.
        assert!(!at(7).is_overtaken(QueueOffset(21), at(20)));
        assert!(!at(7).is_overtaken(QueueOffset(20), at(20)));
        assert!(!at(7).is_overtaken(QueueOffset(8), Found(None)));
    }

    #[test]
    fn what_a_commit_found_goes_with_it() {
        let request = Command::request(RequestCode::UpdateConsumerOffset);
        assert_eq!(Found::of(&request), None);
        for found in [Found(None), Found(Some(QueueOffset(0))), Found(Some(QueueOffset(9)))] {
            assert_eq!(Found::of(&found.put_into(request.clone())), Some(found));
        }
    }
}
