//! Changes and whole tables as bytes, for log entries and snapshots.
//!
//! Topics and groups travel as their JSON, which keeps fields that this version does not know.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Metadata, MetadataCommand};
use crate::env::{from_binary, to_binary};
use crate::model::{Group, QueueId, QueueOffset, Topic};
use crate::remoting::json;

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
enum Wire {
    PutTopic(Vec<u8>),
    DeleteTopic(String),
    PutGroup(Vec<u8>),
    DeleteGroup { group: String, clean_offsets: bool },
    SetReadable { group: String, topic: String, readable: bool },
    CommitOffset { group: String, topic: String, queue_id: u32, offset: u64 },
    CommitDelay { level: u32, offset: u64 },
    PutSettings(BTreeMap<String, String>),
}

/// Encodes changes in their order.
pub fn encode_commands(commands: &[MetadataCommand]) -> Vec<u8> {
    if commands.is_empty() {
        return Vec::new();
    }
    let wire: Vec<Wire> = commands.iter().map(to_wire).collect();
    to_binary(&(VERSION, wire))
}

/// Decodes what [`encode_commands`] made.
pub fn decode_commands(bytes: &[u8]) -> Result<Vec<MetadataCommand>, String> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    if bytes[0] != VERSION {
        return Err(format!("changes of version {} were written by a newer broker", bytes[0]));
    }
    let (_, wire): (u8, Vec<Wire>) = from_binary(bytes)?;
    wire.into_iter().map(from_wire).collect()
}

fn to_wire(command: &MetadataCommand) -> Wire {
    match command {
        MetadataCommand::PutTopic(config) => Wire::PutTopic(json::to_vec(config)),
        MetadataCommand::DeleteTopic(topic) => Wire::DeleteTopic(topic.as_str().into()),
        MetadataCommand::PutGroup(config) => Wire::PutGroup(json::to_vec(config)),
        MetadataCommand::DeleteGroup { group, clean_offsets } => {
            Wire::DeleteGroup { group: group.as_str().into(), clean_offsets: *clean_offsets }
        }
        MetadataCommand::SetReadable { group, topic, readable } => Wire::SetReadable {
            group: group.as_str().into(),
            topic: topic.as_str().into(),
            readable: *readable,
        },
        MetadataCommand::CommitOffset { group, topic, queue_id, offset } => Wire::CommitOffset {
            group: group.as_str().into(),
            topic: topic.as_str().into(),
            queue_id: queue_id.0,
            offset: offset.0,
        },
        MetadataCommand::CommitDelay { level, offset } => {
            Wire::CommitDelay { level: *level, offset: offset.0 }
        }
        MetadataCommand::PutSettings(items) => Wire::PutSettings(items.clone()),
    }
}

fn from_wire(wire: Wire) -> Result<MetadataCommand, String> {
    Ok(match wire {
        Wire::PutTopic(text) => {
            MetadataCommand::PutTopic(json::from_slice(&text).map_err(|error| error.to_string())?)
        }
        Wire::DeleteTopic(topic) => MetadataCommand::DeleteTopic(Topic::from(topic)),
        Wire::PutGroup(text) => {
            MetadataCommand::PutGroup(json::from_slice(&text).map_err(|error| error.to_string())?)
        }
        Wire::DeleteGroup { group, clean_offsets } => {
            MetadataCommand::DeleteGroup { group: Group::from(group), clean_offsets }
        }
        Wire::SetReadable { group, topic, readable } => {
            MetadataCommand::SetReadable { group: Group::from(group), topic: Topic::from(topic), readable }
        }
        Wire::CommitOffset { group, topic, queue_id, offset } => MetadataCommand::CommitOffset {
            group: Group::from(group),
            topic: Topic::from(topic),
            queue_id: QueueId(queue_id),
            offset: QueueOffset(offset),
        },
        Wire::CommitDelay { level, offset } => {
            MetadataCommand::CommitDelay { level, offset: QueueOffset(offset) }
        }
        Wire::PutSettings(items) => MetadataCommand::PutSettings(items),
    })
}

/// All tables as bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetadataImage {
    topics: Vec<u8>,
    groups: Vec<u8>,
    offsets: Vec<u8>,
    delay: Vec<u8>,
    settings: Vec<u8>,
}

impl Metadata {
    /// Returns all tables as they are, without what is only noted.
    pub fn image(&self) -> MetadataImage {
        MetadataImage {
            topics: json::to_vec(&self.topics.snapshot()),
            groups: json::to_vec(&self.groups.snapshot()),
            offsets: json::to_vec(&self.offsets.committed()),
            delay: json::to_vec(&self.delay.snapshot()),
            settings: json::to_vec(&self.settings.snapshot()),
        }
    }

    /// Replaces all tables. For `replication` alone.
    pub(crate) fn restore(&self, image: &MetadataImage) -> Result<(), String> {
        self.topics.replace(parse(&image.topics)?);
        self.groups.replace(parse(&image.groups)?);
        self.offsets.replace(parse(&image.offsets)?);
        self.delay.replace(parse(&image.delay)?);
        self.settings.replace(parse(&image.settings)?);
        Ok(())
    }
}

/// An empty table has no bytes.
fn parse<T: serde::de::DeserializeOwned + Default>(bytes: &[u8]) -> Result<T, String> {
    if bytes.is_empty() {
        return Ok(T::default());
    }
    json::from_slice(bytes).map_err(|error| format!("a table of the snapshot cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::env::Disk;
    use crate::model::{Perm, SubscriptionGroupConfig, TopicConfig};

    fn commands() -> Vec<MetadataCommand> {
        let (group, topic) = (Group::new("G"), Topic::new("T"));
        vec![
            MetadataCommand::PutTopic(TopicConfig::new(topic.clone(), 4, Perm::READ_WRITE)),
            MetadataCommand::PutGroup(SubscriptionGroupConfig::new(group.clone())),
            MetadataCommand::SetReadable { group: group.clone(), topic: topic.clone(), readable: false },
            MetadataCommand::CommitOffset {
                group: group.clone(),
                topic: topic.clone(),
                queue_id: QueueId(3),
                offset: QueueOffset(9),
            },
            MetadataCommand::CommitDelay { level: 3, offset: QueueOffset(4) },
            MetadataCommand::DeleteGroup { group: Group::new("H"), clean_offsets: true },
            MetadataCommand::DeleteTopic(Topic::new("U")),
            MetadataCommand::PutSettings(BTreeMap::from([("brokerPermission".into(), "4".into())])),
        ]
    }

    #[test]
    fn changes_are_read_back() {
        let bytes = encode_commands(&commands());
        assert_eq!(decode_commands(&bytes).unwrap(), commands());
        assert_eq!(decode_commands(&encode_commands(&[])).unwrap(), []);
        for len in 1..bytes.len() {
            assert!(decode_commands(&bytes[..len]).is_err());
        }
    }

    #[test]
    fn tables_are_restored_from_an_image() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |folder: &tempfile::TempDir| Metadata::open(folder.path(), Disk::real()).unwrap();
        let (one, two) = (open(&one), open(&two));
        commands().iter().for_each(|command| one.apply(command, 5));
        two.apply(&MetadataCommand::PutTopic(TopicConfig::new(Topic::new("X"), 4, Perm::ALL)), 5);
        let heard = Arc::new(AtomicUsize::new(0));
        let hears = Arc::clone(&heard);
        two.settings().on_change(move || {
            hears.fetch_add(1, Ordering::Relaxed);
        });
        one.note(&Group::new("G"), &Topic::new("T"), QueueId(3), QueueOffset(99));
        two.restore(&one.image()).unwrap();
        assert_eq!(two.image(), one.image());
        assert!(two.topics().get(&Topic::new("X")).is_none());
        assert_eq!(two.settings().all().get("brokerPermission").map(String::as_str), Some("4"));
        assert_eq!(heard.load(Ordering::Relaxed), 1, "who uses the settings hears of it");
        let offset = two.offsets().get(&Group::new("G"), &Topic::new("T"), QueueId(3));
        assert_eq!(offset, Some(QueueOffset(9)), "what was only noted is not in an image");
        two.restore(&MetadataImage::default()).unwrap();
        assert!(two.topics().all().is_empty());
    }
}
