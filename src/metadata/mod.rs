//! Topics, consumer groups, offsets and shared settings: what a broker knows beside its messages.
//!
//! The tables change only by a [`MetadataCommand`] that `replication` applies; everybody else reads. Each table has
//! its JSON file under `config/`, in the form that RocketMQ's `ConfigManager` writes, with the version before as `.bak`.

mod codec;
mod groups;
mod offsets;
mod settings;
mod topics;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use codec::{MetadataImage, decode_commands, encode_commands};
pub use groups::Groups;
pub use offsets::{DelayOffsets, Offsets};
pub use settings::Settings;
pub use topics::Topics;

use crate::env::Disk;
use crate::model::{Group, QueueId, QueueOffset, SubscriptionGroupConfig, Topic, TopicConfig};
use crate::remoting::json;

/// A table could not be read or saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file, and its `.bak` too, is not what it should be.
    #[error("{}: {reason}; mend it, or move it away to start without it", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A change of the tables.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataCommand {
    /// Makes or changes a topic.
    PutTopic(TopicConfig),
    /// Removes a topic, its messages and its offsets.
    DeleteTopic(Topic),
    /// Makes or changes a group.
    PutGroup(SubscriptionGroupConfig),
    /// Removes a group.
    DeleteGroup {
        /// Which.
        group: Group,
        /// Its offsets too.
        clean_offsets: bool,
    },
    /// Allows or forbids that a group reads a topic.
    SetReadable {
        /// The group.
        group: Group,
        /// The topic.
        topic: Topic,
        /// Whether it may.
        readable: bool,
    },
    /// Sets a group's next offset in a queue.
    CommitOffset {
        /// The group.
        group: Group,
        /// The topic.
        topic: Topic,
        /// The queue.
        queue_id: QueueId,
        /// The offset of the first message that is not yet consumed.
        offset: QueueOffset,
    },
    /// Sets how far a delay level is delivered.
    CommitDelay {
        /// The level, from 1.
        level: u32,
        /// The offset of the first message that is not yet delivered.
        offset: QueueOffset,
    },
    /// Sets settings of all replicas of a group, by key.
    PutSettings(BTreeMap<String, String>),
}

impl MetadataCommand {
    /// True for progress, which is saved every few seconds only.
    pub fn is_offsets(&self) -> bool {
        matches!(self, Self::CommitOffset { .. } | Self::CommitDelay { .. })
    }
}

/// All tables.
#[derive(Debug)]
pub struct Metadata {
    topics: Topics,
    groups: Groups,
    offsets: Offsets,
    delay: DelayOffsets,
    settings: Settings,
    files: Files,
    /// Held while saving, so that an older image never replaces a newer one.
    saving: Mutex<()>,
}

impl Metadata {
    /// Reads the tables from the files in `folder`; what is absent is empty.
    pub fn open(folder: &Path, disk: Disk) -> Result<Self, Error> {
        disk.make_folder(folder).map_err(|source| Error::Io {
            action: "make folder",
            path: folder.to_owned(),
            source,
        })?;
        let files = Files { folder: folder.to_owned(), disk };
        Ok(Self {
            topics: Topics::new(files.read(TOPICS)?),
            groups: Groups::new(files.read(GROUPS)?),
            offsets: Offsets::new(files.read(OFFSETS)?),
            delay: DelayOffsets::new(files.read(DELAY)?),
            settings: Settings::new(files.read(SETTINGS)?),
            files,
            saving: Mutex::new(()),
        })
    }

    /// Returns the topics.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Returns the groups.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Returns the consumer offsets.
    pub fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// Returns the progress of the delay levels.
    pub fn delay(&self) -> &DelayOffsets {
        &self.delay
    }

    /// Returns the settings that all replicas of the group share. A broker without replicas has none.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Notes an offset that is to be committed soon: readers see it at once. For `replication` alone.
    pub(crate) fn note(&self, group: &Group, topic: &Topic, queue_id: QueueId, offset: QueueOffset) {
        self.offsets.note(group, topic, queue_id, offset);
    }

    /// Returns the commands that commit what is noted. For `replication` alone.
    pub(crate) fn noted(&self) -> Vec<MetadataCommand> {
        let noted = self.offsets.noted().into_iter();
        noted
            .map(|(topic, group, queue_id, offset)| MetadataCommand::CommitOffset {
                group,
                topic,
                queue_id,
                offset,
            })
            .collect()
    }

    /// Forgets what is noted, of one queue or everything. For `replication` alone.
    pub(crate) fn forget_noted(&self, only: Option<(&Group, &Topic, QueueId)>) {
        self.offsets.forget_noted(only);
    }

    /// Carries a committed change out; `now_ms` is when, in milliseconds since 1970. For `replication` alone.
    pub(crate) fn apply(&self, command: &MetadataCommand, now_ms: i64) {
        match command {
            MetadataCommand::PutTopic(config) => self.topics.put(config.clone(), now_ms),
            MetadataCommand::DeleteTopic(topic) => {
                self.topics.remove(topic, now_ms);
                self.offsets.remove_topic(topic);
            }
            MetadataCommand::PutGroup(config) => self.groups.put(config.clone(), now_ms),
            MetadataCommand::DeleteGroup { group, clean_offsets } => {
                self.groups.remove(group, now_ms);
                if *clean_offsets {
                    self.offsets.remove_group(group);
                }
            }
            MetadataCommand::SetReadable { group, topic, readable } => {
                self.groups.set_readable(group, topic, *readable, now_ms);
            }
            MetadataCommand::CommitOffset { group, topic, queue_id, offset } => {
                self.offsets.commit(group, topic, *queue_id, *offset);
            }
            MetadataCommand::CommitDelay { level, offset } => self.delay.commit(*level, *offset),
            MetadataCommand::PutSettings(items) => self.settings.put(items),
        }
    }

    /// Saves the tables that changed since the last time. Blocks on the disk.
    pub fn save(&self) -> Result<(), Error> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        self.files.save(TOPICS, self.topics.changed(), self.topics.dirty())?;
        self.files.save(GROUPS, self.groups.changed(), self.groups.dirty())?;
        self.files.save(OFFSETS, self.offsets.changed(), self.offsets.dirty())?;
        self.files.save(DELAY, self.delay.changed(), self.delay.dirty())?;
        self.files.save(SETTINGS, self.settings.changed(), self.settings.dirty())
    }
}

const TOPICS: &str = "topics.json";
const GROUPS: &str = "subscriptionGroup.json";
const OFFSETS: &str = "consumerOffset.json";
const DELAY: &str = "delayOffset.json";
const SETTINGS: &str = "brokerConfig.json";

#[derive(Debug)]
struct Files {
    folder: PathBuf,
    disk: Disk,
}

impl Files {
    /// Reads a file; where it cannot be used, the version before it.
    fn read<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, Error> {
        let path = self.folder.join(name);
        match self.read_one(&path) {
            Ok(Some(table)) => Ok(table),
            Ok(None) => Ok(self.read_one(&self.folder.join(format!("{name}.bak")))?.unwrap_or_default()),
            Err(error) => match self.read_one(&self.folder.join(format!("{name}.bak"))) {
                Ok(Some(table)) => {
                    tracing::warn!(%error, "the version before it is used");
                    Ok(table)
                }
                _ => Err(error),
            },
        }
    }

    fn read_one<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, Error> {
        let bytes = match self.disk.read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { action: "read", path: path.to_owned(), source }),
        };
        json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Error::Corrupt { path: path.to_owned(), reason: error.to_string() })
    }

    /// Saves a table; one that could not be saved counts as changed again.
    fn save<T: Serialize>(&self, name: &str, table: Option<T>, dirty: &Dirty) -> Result<(), Error> {
        let Some(table) = table else { return Ok(()) };
        let path = self.folder.join(name);
        let text = json::to_vec_styled(&table, json::Style::Pretty);
        self.disk.replace(&path, &text).map_err(|source| {
            dirty.mark();
            Error::Io { action: "save", path, source }
        })
    }
}

/// A value with a mark that it changed since it was last saved.
#[derive(Debug, Default)]
struct Dirty(std::sync::atomic::AtomicBool);

impl Dirty {
    fn mark(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }

    fn take(&self) -> bool {
        self.0.swap(false, std::sync::atomic::Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Perm;

    fn open(folder: &Path) -> Metadata {
        Metadata::open(folder, Disk::real()).unwrap()
    }

    #[test]
    fn tables_are_kept_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = open(folder.path());
        let (topic, group) = (Topic::new("T"), Group::new("G"));
        for command in [
            MetadataCommand::PutTopic(TopicConfig::new(topic.clone(), 4, Perm::READ_WRITE)),
            MetadataCommand::PutGroup(SubscriptionGroupConfig::new(group.clone())),
            MetadataCommand::CommitOffset {
                group: group.clone(),
                topic: topic.clone(),
                queue_id: QueueId(3),
                offset: QueueOffset(99),
            },
            MetadataCommand::CommitDelay { level: 2, offset: QueueOffset(5) },
            MetadataCommand::SetReadable { group: group.clone(), topic: topic.clone(), readable: false },
            MetadataCommand::PutSettings(BTreeMap::from([
                ("a".into(), "1".into()),
                ("b".into(), "1".into()),
            ])),
            MetadataCommand::PutSettings(BTreeMap::from([("b".into(), "2".into())])),
        ] {
            metadata.apply(&command, 7);
        }
        metadata.save().unwrap();
        let metadata = open(folder.path());
        assert_eq!(metadata.topics().get(&topic).unwrap().read_queue_nums, 4);
        assert_eq!(metadata.offsets().get(&group, &topic, QueueId(3)), Some(QueueOffset(99)));
        assert_eq!(metadata.delay().get(2), QueueOffset(5));
        assert!(!metadata.groups().is_readable(&group, &topic));
        let settings = BTreeMap::from([("a".into(), "1".into()), ("b".into(), "2".into())]);
        assert_eq!(metadata.settings().all(), settings);

        metadata.apply(&MetadataCommand::DeleteTopic(topic.clone()), 7);
        metadata.save().unwrap();
        let metadata = open(folder.path());
        assert!(metadata.topics().get(&topic).is_none());
        assert_eq!(metadata.offsets().get(&group, &topic, QueueId(3)), None);
    }

    #[test]
    fn a_broken_file_is_named_and_the_one_before_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = open(folder.path());
        for name in ["A", "B"] {
            metadata.apply(&MetadataCommand::PutTopic(TopicConfig::new(Topic::new(name), 1, Perm::ALL)), 7);
            metadata.save().unwrap();
        }
        let path = folder.path().join(TOPICS);
        let write = |path: &Path, text: &[u8]| {
            let file = Disk::real().open(path, true).unwrap();
            file.set_len(0).unwrap();
            file.write_all_at(text, 0).unwrap();
        };
        write(&path, b"{\"topicConfigTable\":{");
        let metadata = open(folder.path());
        assert!(metadata.topics().get(&Topic::new("A")).is_some());
        assert!(metadata.topics().get(&Topic::new("B")).is_none());
        write(&folder.path().join("topics.json.bak"), b"x");
        let error = Metadata::open(folder.path(), Disk::real()).unwrap_err().to_string();
        assert!(error.contains("topics.json"), "{error}");
    }
}
