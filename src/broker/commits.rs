//! Commits of offsets that come late.
//!
//! A commit that waited at a replica which was paused or cut off must not undo those that were acknowledged meanwhile.
//! So each carries the offset that was in force where it arrived: one that goes back behind an offset which the sender
//! did not know is refused. What is on the way to the log counts as in force for that: it will be when the commit is
//! applied.
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
use crate::replication;

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
pub(crate) fn marked(commits: &Commits, offsets: &Offsets, request: Command) -> Command {
    let is_marked = forwarded_in(&request).is_some() && Found::of(&request).is_some();
    let header = request.header::<UpdateConsumerOffsetRequestHeader>();
    let Some(header) = header.ok().filter(|_| !is_marked) else { return request };
    let Ok(queue_id) = u32::try_from(header.queue_id) else { return request };
    let key = (header.consumer_group, header.topic, QueueId(queue_id));
    newest(&lock(&commits.on_the_way), offsets, &key).put_into(request)
}

/// A group and a queue that it consumes.
type Key = (Group, Topic, QueueId);

/// The newest offset of each group in each queue.
type Table = HashMap<Key, (QueueOffset, Found)>;

/// Commits that are proposed and not yet applied: the last one for each queue, and how many there are.
type OnTheWay = HashMap<Key, (QueueOffset, usize)>;

/// What becomes of commits before they are in the log.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    gathered: Mutex<Table>,
    on_the_way: Mutex<OnTheWay>,
}

/// A commit that is on the way until this is dropped.
#[derive(Debug)]
pub(crate) struct Proposed {
    commits: Arc<Commits>,
    key: Key,
}

/// Why a commit was not proposed.
#[derive(Debug)]
pub(crate) enum NotProposed {
    /// It would undo one that was not known where it arrived.
    Overtaken,
    /// This replica cannot commit.
    Refused(replication::Error),
}

impl Commits {
    /// Has `propose` put a commit into the log, unless it was overtaken by one that is applied or on the way: proposals
    /// of one leader are applied in their order.
    pub(crate) fn propose<T>(
        self: &Arc<Self>,
        offsets: &Offsets,
        key: Key,
        offset: QueueOffset,
        found: Option<Found>,
        propose: impl FnOnce(MetadataCommand) -> Result<T, replication::Error>,
    ) -> Result<(T, Proposed), NotProposed> {
        let mut on_the_way = lock(&self.on_the_way);
        let now = newest(&on_the_way, offsets, &key);
        if found.is_some_and(|found| found.is_overtaken(offset, now)) {
            return Err(NotProposed::Overtaken);
        }
        let (group, topic, queue_id) = key.clone();
        let command = MetadataCommand::CommitOffset { group, topic, queue_id, offset };
        let proposed = propose(command).map_err(NotProposed::Refused)?;
        let entry = on_the_way.entry(key.clone()).or_insert((offset, 0));
        *entry = (offset, entry.1 + 1);
        Ok((proposed, Proposed { commits: Arc::clone(self), key }))
    }

    /// Takes an offset in. Beyond the limit those of further queues are left out; the consumer commits again.
    pub(crate) fn put(
        &self,
        group: &Group,
        topic: &Topic,
        queue_id: QueueId,
        offset: QueueOffset,
        found: Found,
    ) {
        let mut table = lock(&self.gathered);
        let key = (group.clone(), topic.clone(), queue_id);
        if table.len() < QUEUES_MAX || table.contains_key(&key) {
            table.insert(key, (offset, found));
        }
    }

    fn take(&self) -> Table {
        std::mem::take(&mut *lock(&self.gathered))
    }

    /// Puts back what could not be handed on, unless something newer came meanwhile.
    fn put_back(&self, commits: impl IntoIterator<Item = (Key, (QueueOffset, Found))>) {
        let mut table = lock(&self.gathered);
        for (key, commit) in commits {
            if table.len() < QUEUES_MAX {
                table.entry(key).or_insert(commit);
            }
        }
    }
}

impl Drop for Proposed {
    fn drop(&mut self) {
        let mut on_the_way = lock(&self.commits.on_the_way);
        if let Some((_, count)) = on_the_way.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                on_the_way.remove(&self.key);
            }
        }
    }
}

/// Returns what is in force as soon as all that is proposed is applied.
fn newest(on_the_way: &OnTheWay, offsets: &Offsets, key: &Key) -> Found {
    match on_the_way.get(key) {
        Some((offset, _)) => Found(Some(*offset)),
        None => Found::now(offsets, &key.0, &key.1, key.2),
    }
}

fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
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
        let key = (group.clone(), topic.clone(), queue_id);
        let note = |command| broker.context.replication.note(permit, command);
        let noted = broker.commits.propose(broker.context.metadata.offsets(), key, offset, Some(found), note);
        return !matches!(noted, Err(NotProposed::Refused(_)));
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
    use crate::env::Disk;
    use crate::metadata::Metadata;

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

    /// Found by jepsen (`soak`, clocks, seed 4): a commit that was handed on twice came between the proposal of a newer one
    /// and its application.
    #[test]
    fn what_is_on_the_way_overtakes() {
        let (commits, folder) = (Arc::<Commits>::default(), tempfile::tempdir().unwrap());
        let tables = Metadata::open(folder.path(), Disk::real()).unwrap();
        let (group, topic, queue_id) = (Group::new("g"), Topic::new("T"), QueueId(0));
        let key = (group.clone(), topic.clone(), queue_id);
        tables.apply(&MetadataCommand::CommitOffset { group, topic, queue_id, offset: QueueOffset(16) }, 0);
        let offsets = tables.offsets();
        let at = |offset| Found(Some(QueueOffset(offset)));
        let propose = |offset, found| {
            commits.propose(offsets, key.clone(), QueueOffset(offset), found, |_| Ok(())).map(|((), it)| it)
        };
        let newer = propose(17, Some(at(16))).unwrap();
        assert!(matches!(propose(16, Some(at(15))), Err(NotProposed::Overtaken)));
        // On purpose.
        let back = propose(10, Some(at(17))).unwrap();
        assert!(matches!(propose(9, Some(at(17))), Err(NotProposed::Overtaken)));
        drop(newer);
        assert!(matches!(propose(9, Some(at(17))), Err(NotProposed::Overtaken)));
        drop(back);
        // It was not committed.
        assert!(propose(17, Some(at(15))).is_ok());
        assert!(matches!(propose(15, Some(at(14))), Err(NotProposed::Overtaken)));
        let refused = commits.propose(offsets, key.clone(), QueueOffset(20), None, |_| {
            Err::<(), _>(replication::Error::NotLeader)
        });
        assert!(matches!(refused, Err(NotProposed::Refused(_))));
        assert!(lock(&commits.on_the_way).is_empty());
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
