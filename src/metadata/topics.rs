//! The topics of a broker.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::Dirty;
use crate::model::{DataVersion, Topic, TopicConfig};
use crate::remoting::body::TopicConfigSerializeWrapper;

/// Topics by name. Reading is cheap: settings are shared, not copied.
#[derive(Debug)]
pub struct Topics {
    table: RwLock<Table>,
    dirty: Dirty,
}

#[derive(Debug)]
struct Table {
    topics: BTreeMap<Topic, Arc<TopicConfig>>,
    version: DataVersion,
}

impl Table {
    fn new(saved: TopicConfigSerializeWrapper) -> Self {
        let topics = saved
            .topic_config_table
            .into_iter()
            .map(|(name, mut config)| {
                // Java's files name a topic twice; the key counts.
                config.topic_name = name.clone();
                (name, Arc::new(config))
            })
            .collect();
        Self { topics, version: saved.data_version }
    }
}

impl Topics {
    pub(super) fn new(saved: TopicConfigSerializeWrapper) -> Self {
        Self { table: RwLock::new(Table::new(saved)), dirty: Dirty::default() }
    }

    /// Replaces all topics.
    pub(super) fn replace(&self, saved: TopicConfigSerializeWrapper) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Table::new(saved);
        self.dirty.mark();
    }

    /// Returns the settings of a topic.
    pub fn get(&self, topic: &Topic) -> Option<Arc<TopicConfig>> {
        self.read().topics.get(topic).cloned()
    }

    /// Returns all topics, by name.
    pub fn all(&self) -> Vec<Arc<TopicConfig>> {
        self.read().topics.values().cloned().collect()
    }

    /// Returns the version, which changes with every change.
    pub fn version(&self) -> DataVersion {
        self.read().version
    }

    /// Returns all topics with the version that they have together.
    pub fn snapshot(&self) -> TopicConfigSerializeWrapper {
        let table = self.read();
        TopicConfigSerializeWrapper {
            data_version: table.version,
            topic_config_table: table
                .topics
                .iter()
                .map(|(k, v)| (k.clone(), TopicConfig::clone(v)))
                .collect(),
        }
    }

    pub(super) fn put(&self, config: TopicConfig, now_ms: i64) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.topics.insert(config.topic_name.clone(), Arc::new(config));
        table.version.advance(now_ms, 0);
        self.dirty.mark();
    }

    pub(super) fn remove(&self, topic: &Topic, now_ms: i64) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if table.topics.remove(topic).is_some() {
            table.version.advance(now_ms, 0);
            self.dirty.mark();
        }
    }

    pub(super) fn changed(&self) -> Option<TopicConfigSerializeWrapper> {
        self.dirty.take().then(|| self.snapshot())
    }

    pub(super) fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}
