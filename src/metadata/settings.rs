//! The settings that all replicas of a group share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use super::Dirty;

/// Settings by key, as they were updated at run time. What they mean is not known here.
#[derive(Debug)]
pub struct Settings {
    table: RwLock<BTreeMap<String, String>>,
    dirty: Dirty,
    listener: OnceLock<Listener>,
}

/// brokerConfig.json. A file of ours: Java's brokers share no settings.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SavedSettings {
    config_table: BTreeMap<String, String>,
}

/// Called after each change, on the thread that makes it: must be quick and must not block.
struct Listener(Box<dyn Fn() + Send + Sync>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

impl Settings {
    pub(super) fn new(saved: SavedSettings) -> Self {
        Self { table: RwLock::new(saved.config_table), dirty: Dirty::default(), listener: OnceLock::new() }
    }

    /// Returns all settings.
    pub fn all(&self) -> BTreeMap<String, String> {
        self.read().clone()
    }

    /// Has `listener` called after each change; of several listeners the first one counts.
    pub fn on_change(&self, listener: impl Fn() + Send + Sync + 'static) {
        let _ = self.listener.set(Listener(Box::new(listener)));
    }

    /// Replaces all settings.
    pub(super) fn replace(&self, saved: SavedSettings) {
        *self.write() = saved.config_table;
        self.changed_now();
    }

    pub(super) fn put(&self, items: &BTreeMap<String, String>) {
        self.write().extend(items.iter().map(|(key, value)| (key.clone(), value.clone())));
        self.changed_now();
    }

    pub(super) fn snapshot(&self) -> SavedSettings {
        SavedSettings { config_table: self.all() }
    }

    pub(super) fn changed(&self) -> Option<SavedSettings> {
        self.dirty.take().then(|| self.snapshot())
    }

    pub(super) fn dirty(&self) -> &Dirty {
        &self.dirty
    }

    fn changed_now(&self) {
        self.dirty.mark();
        if let Some(Listener(listener)) = self.listener.get() {
            listener();
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<String, String>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<String, String>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}
