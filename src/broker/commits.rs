//! Offsets that pulls commit at a replica which does not lead: gathered, and handed to the leader a moment later.
//!
//! Consumers that know that they pull from a slave do not commit with it; those whose route is old do.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Broker;
use super::roles::changed;
use crate::metadata::MetadataCommand;
use crate::model::{Group, QueueId, QueueOffset, Topic};
use crate::remoting::header::UpdateConsumerOffsetRequestHeader;
use crate::remoting::{Command, RequestCode};

/// How often what was gathered is handed on: consumers commit every five seconds anyway.
const INTERVAL: Duration = Duration::from_millis(500);
/// Queues whose offsets are gathered; far more than one interval brings.
const QUEUES_MAX: usize = 100_000;

/// The newest offset of each group in each queue.
#[derive(Debug, Default)]
pub(crate) struct Commits(Mutex<HashMap<(Group, Topic, QueueId), QueueOffset>>);

impl Commits {
    /// Takes an offset in. Beyond the limit those of further queues are left out; the consumer commits again.
    pub(crate) fn put(&self, group: &Group, topic: &Topic, queue_id: QueueId, offset: QueueOffset) {
        let mut table = self.lock();
        let key = (group.clone(), topic.clone(), queue_id);
        if table.len() < QUEUES_MAX || table.contains_key(&key) {
            table.insert(key, offset);
        }
    }

    fn take(&self) -> HashMap<(Group, Topic, QueueId), QueueOffset> {
        std::mem::take(&mut *self.lock())
    }

    /// Puts back what could not be handed on, unless something newer came meanwhile.
    fn put_back(&self, commits: impl IntoIterator<Item = ((Group, Topic, QueueId), QueueOffset)>) {
        let mut table = self.lock();
        for (key, offset) in commits {
            if table.len() < QUEUES_MAX {
                table.entry(key).or_insert(offset);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Group, Topic, QueueId), QueueOffset>> {
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
    while let Some(((group, topic, queue_id), offset)) = commits.next() {
        if !hand_on_one(broker, &group, &topic, queue_id, offset).await {
            // No leader: all of it later.
            broker.commits.put_back(commits.chain([((group, topic, queue_id), offset)]));
            return;
        }
    }
}

async fn hand_on_one(
    broker: &Broker,
    group: &Group,
    topic: &Topic,
    queue_id: QueueId,
    offset: QueueOffset,
) -> bool {
    if let Ok(permit) = broker.context.replication.permit() {
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
    broker.forward.send(&request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_offset_of_a_queue_counts() {
        let commits = Commits::default();
        let (group, topic) = (Group::new("g"), Topic::new("T"));
        commits.put(&group, &topic, QueueId(0), QueueOffset(5));
        commits.put(&group, &topic, QueueId(0), QueueOffset(7));
        commits.put(&group, &topic, QueueId(1), QueueOffset(1));
        let taken = commits.take();
        assert_eq!(taken.len(), 2);
        commits.put(&group, &topic, QueueId(0), QueueOffset(9));
        commits.put_back(taken);
        let taken = commits.take();
        assert_eq!(taken[&(group.clone(), topic.clone(), QueueId(0))], QueueOffset(9));
        assert_eq!(taken[&(group, topic, QueueId(1))], QueueOffset(1));
    }
}
