//! How far groups have consumed, and how far delay levels are delivered.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Dirty;
use crate::model::{DataVersion, Group, QueueId, QueueOffset, Topic};
use crate::remoting::body::{ConsumerOffsetSerializeWrapper, DelayOffsetSerializeWrapper};

/// Offsets by group, topic and queue.
///
/// An offset may be noted before it is committed: readers see it, images and files do not hold it.
#[derive(Debug)]
pub struct Offsets {
    table: Mutex<Table>,
    noted: Mutex<Table>,
    version: DataVersion,
    dirty: Dirty,
}

type Table = HashMap<(Topic, Group), BTreeMap<QueueId, QueueOffset>>;

impl Offsets {
    pub(super) fn new(saved: ConsumerOffsetSerializeWrapper) -> Self {
        let version = saved.data_version.unwrap_or_default();
        Self { table: Mutex::new(table_of(saved)), noted: Mutex::default(), version, dirty: Dirty::default() }
    }

    /// Replaces all offsets.
    pub(super) fn replace(&self, saved: ConsumerOffsetSerializeWrapper) {
        *self.lock() = table_of(saved);
        self.lock_noted().clear();
        self.dirty.mark();
    }

    /// Returns a group's next offset in a queue, if it ever committed one.
    pub fn get(&self, group: &Group, topic: &Topic, queue_id: QueueId) -> Option<QueueOffset> {
        let key = (topic.clone(), group.clone());
        let noted = self.lock_noted().get(&key).and_then(|queues| queues.get(&queue_id)).copied();
        noted.or_else(|| self.lock().get(&key)?.get(&queue_id).copied())
    }

    /// Returns a group's offsets in a topic.
    pub fn of_topic(&self, group: &Group, topic: &Topic) -> BTreeMap<QueueId, QueueOffset> {
        let key = (topic.clone(), group.clone());
        let mut queues = self.lock().get(&key).cloned().unwrap_or_default();
        queues.extend(self.lock_noted().get(&key).cloned().unwrap_or_default());
        queues
    }

    /// Notes an offset that is to be committed soon.
    pub(super) fn note(&self, group: &Group, topic: &Topic, queue_id: QueueId, offset: QueueOffset) {
        self.lock_noted().entry((topic.clone(), group.clone())).or_default().insert(queue_id, offset);
    }

    /// Returns what is noted.
    pub(super) fn noted(&self) -> Vec<(Topic, Group, QueueId, QueueOffset)> {
        let noted = self.lock_noted();
        let flat = noted.iter().flat_map(|((topic, group), queues)| {
            queues.iter().map(|(id, offset)| (topic.clone(), group.clone(), *id, *offset))
        });
        flat.collect()
    }

    /// Forgets what is noted, of one queue or everything.
    pub(super) fn forget_noted(&self, only: Option<(&Group, &Topic, QueueId)>) {
        let mut noted = self.lock_noted();
        match only {
            None => noted.clear(),
            Some((group, topic, queue_id)) => {
                let key = (topic.clone(), group.clone());
                if let Some(queues) = noted.get_mut(&key) {
                    queues.remove(&queue_id);
                    if queues.is_empty() {
                        noted.remove(&key);
                    }
                }
            }
        }
    }

    /// Returns the topics in which a group has offsets, by name.
    pub fn topics_of(&self, group: &Group) -> Vec<Topic> {
        let mut topics: Vec<_> =
            self.lock().keys().filter(|(_, g)| g == group).map(|(t, _)| t.clone()).collect();
        topics.sort();
        topics
    }

    /// Returns the groups that have offsets in a topic, by name.
    pub fn groups_of(&self, topic: &Topic) -> Vec<Group> {
        let mut groups: Vec<_> =
            self.lock().keys().filter(|(t, _)| t == topic).map(|(_, g)| g.clone()).collect();
        groups.sort();
        groups
    }

    /// Returns everything in the form of consumerOffset.json.
    pub fn snapshot(&self) -> ConsumerOffsetSerializeWrapper {
        let mut table = self.lock().clone();
        for (key, queues) in self.lock_noted().iter() {
            table.entry(key.clone()).or_default().extend(queues);
        }
        self.wrapper(&table)
    }

    /// Returns what is committed, likewise.
    pub(super) fn committed(&self) -> ConsumerOffsetSerializeWrapper {
        self.wrapper(&self.lock())
    }

    fn wrapper(&self, table: &Table) -> ConsumerOffsetSerializeWrapper {
        let offset_table = table
            .iter()
            .map(|((topic, group), queues)| {
                let queues = queues
                    .iter()
                    .map(|(id, offset)| {
                        (i32::try_from(id.0).unwrap_or(i32::MAX), i64::try_from(offset.0).unwrap_or(i64::MAX))
                    })
                    .collect();
                (format!("{topic}@{group}"), queues)
            })
            .collect();
        ConsumerOffsetSerializeWrapper { data_version: Some(self.version), offset_table }
    }

    pub(super) fn commit(&self, group: &Group, topic: &Topic, queue_id: QueueId, offset: QueueOffset) {
        let key = (topic.clone(), group.clone());
        self.lock().entry(key.clone()).or_default().insert(queue_id, offset);
        self.dirty.mark();
        let noted = self.lock_noted().get(&key).and_then(|queues| queues.get(&queue_id)).copied();
        if noted == Some(offset) {
            self.forget_noted(Some((group, topic, queue_id)));
        }
    }

    pub(super) fn remove_topic(&self, topic: &Topic) {
        self.lock().retain(|(t, _), _| t != topic);
        self.lock_noted().retain(|(t, _), _| t != topic);
        self.dirty.mark();
    }

    pub(super) fn remove_group(&self, group: &Group) {
        self.lock().retain(|(_, g), _| g != group);
        self.lock_noted().retain(|(_, g), _| g != group);
        self.dirty.mark();
    }

    pub(super) fn changed(&self) -> Option<ConsumerOffsetSerializeWrapper> {
        self.dirty.take().then(|| self.committed())
    }

    pub(super) fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_noted(&self) -> MutexGuard<'_, Table> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn table_of(saved: ConsumerOffsetSerializeWrapper) -> Table {
    let mut table = Table::new();
    for (key, queues) in saved.offset_table {
        // Keys without `@`, or with more than one, are not of this form; Java skips them too.
        let Some((topic, group)) = key.split_once('@') else { continue };
        let queues = queues
            .into_iter()
            .filter_map(|(id, offset)| {
                Some((QueueId(u32::try_from(id).ok()?), QueueOffset(u64::try_from(offset).ok()?)))
            })
            .collect();
        table.insert((Topic::new(topic), Group::new(group)), queues);
    }
    table
}

/// Progress by delay level.
#[derive(Debug)]
pub struct DelayOffsets {
    table: Mutex<BTreeMap<u32, QueueOffset>>,
    version: DataVersion,
    dirty: Dirty,
}

impl DelayOffsets {
    pub(super) fn new(saved: DelayOffsetSerializeWrapper) -> Self {
        let version = saved.data_version.unwrap_or_default();
        Self { table: Mutex::new(delays_of(saved)), version, dirty: Dirty::default() }
    }

    /// Replaces the progress of all levels.
    pub(super) fn replace(&self, saved: DelayOffsetSerializeWrapper) {
        *self.lock() = delays_of(saved);
        self.dirty.mark();
    }

    /// Returns the offset of the first message of a level that is not yet delivered.
    pub fn get(&self, level: u32) -> QueueOffset {
        self.lock().get(&level).copied().unwrap_or_default()
    }

    /// Returns everything in the form of delayOffset.json.
    pub fn snapshot(&self) -> DelayOffsetSerializeWrapper {
        let offset_table = self
            .lock()
            .iter()
            .map(|(level, offset)| {
                (i32::try_from(*level).unwrap_or(i32::MAX), i64::try_from(offset.0).unwrap_or(i64::MAX))
            })
            .collect();
        DelayOffsetSerializeWrapper { data_version: Some(self.version), offset_table }
    }

    pub(super) fn commit(&self, level: u32, offset: QueueOffset) {
        self.lock().insert(level, offset);
        self.dirty.mark();
    }

    pub(super) fn changed(&self) -> Option<DelayOffsetSerializeWrapper> {
        self.dirty.take().then(|| self.snapshot())
    }

    pub(super) fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, QueueOffset>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn delays_of(saved: DelayOffsetSerializeWrapper) -> BTreeMap<u32, QueueOffset> {
    saved
        .offset_table
        .into_iter()
        .filter_map(|(level, offset)| {
            Some((u32::try_from(level).ok()?, QueueOffset(u64::try_from(offset).ok()?)))
        })
        .collect()
}
