//! The consumer groups of a broker.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Dirty;
use crate::model::{DataVersion, Group, SubscriptionGroupConfig, Topic};
use crate::remoting::body::SubscriptionGroupWrapper;

/// Bit of a forbidden topic that stands for reading. Source: RocketMQ `PermName.INDEX_PERM_READ`.
const READ_BIT: u32 = 2;

/// Groups by name.
#[derive(Debug)]
pub struct Groups {
    table: RwLock<Table>,
    dirty: Dirty,
}

#[derive(Debug)]
struct Table {
    groups: BTreeMap<Group, Arc<SubscriptionGroupConfig>>,
    forbidden: BTreeMap<Group, BTreeMap<Topic, i32>>,
    version: DataVersion,
}

impl Table {
    fn new(saved: SubscriptionGroupWrapper) -> Self {
        let groups = saved
            .subscription_group_table
            .into_iter()
            .map(|(name, mut config)| {
                config.group_name = name.clone();
                (name, Arc::new(config))
            })
            .collect();
        Self { groups, forbidden: saved.forbidden_table, version: saved.data_version }
    }
}

impl Groups {
    pub(super) fn new(saved: SubscriptionGroupWrapper) -> Self {
        Self { table: RwLock::new(Table::new(saved)), dirty: Dirty::default() }
    }

    /// Replaces all groups.
    pub(super) fn replace(&self, saved: SubscriptionGroupWrapper) {
        *self.write() = Table::new(saved);
        self.dirty.mark();
    }

    /// Returns the settings of a group.
    pub fn get(&self, group: &Group) -> Option<Arc<SubscriptionGroupConfig>> {
        self.read().groups.get(group).cloned()
    }

    /// Returns all groups, by name.
    pub fn all(&self) -> Vec<Arc<SubscriptionGroupConfig>> {
        self.read().groups.values().cloned().collect()
    }

    /// Returns whether a group may read a topic.
    pub fn is_readable(&self, group: &Group, topic: &Topic) -> bool {
        let table = self.read();
        table
            .forbidden
            .get(group)
            .and_then(|topics| topics.get(topic))
            .is_none_or(|bits| bits >> READ_BIT & 1 == 0)
    }

    /// Returns all groups with the version that they have together.
    pub fn snapshot(&self) -> SubscriptionGroupWrapper {
        let table = self.read();
        SubscriptionGroupWrapper {
            data_version: table.version,
            forbidden_table: table.forbidden.clone(),
            subscription_group_table: table
                .groups
                .iter()
                .map(|(name, config)| (name.clone(), SubscriptionGroupConfig::clone(config)))
                .collect(),
        }
    }

    pub(super) fn put(&self, config: SubscriptionGroupConfig, now_ms: i64) {
        let mut table = self.write();
        table.groups.insert(config.group_name.clone(), Arc::new(config));
        table.version.advance(now_ms, 0);
        self.dirty.mark();
    }

    pub(super) fn remove(&self, group: &Group, now_ms: i64) {
        let mut table = self.write();
        let known = table.groups.remove(group).is_some();
        if table.forbidden.remove(group).is_some() || known {
            table.version.advance(now_ms, 0);
            self.dirty.mark();
        }
    }

    pub(super) fn set_readable(&self, group: &Group, topic: &Topic, readable: bool, now_ms: i64) {
        let mut table = self.write();
        let topics = table.forbidden.entry(group.clone()).or_default();
        let bits = topics.entry(topic.clone()).or_default();
        *bits = if readable { *bits & !(1 << READ_BIT) } else { *bits | 1 << READ_BIT };
        table.version.advance(now_ms, 0);
        self.dirty.mark();
    }

    pub(super) fn changed(&self) -> Option<SubscriptionGroupWrapper> {
        self.dirty.take().then(|| self.snapshot())
    }

    pub(super) fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}
