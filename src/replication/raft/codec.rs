//! Values of the group as bytes: memberships, votes, images.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::types::{LeaderId, LogId, Member, Membership, SnapshotMeta, StoredMembership, Vote, log_id};
use crate::env::{from_binary, to_binary};
use crate::metadata::MetadataImage;
use crate::model::{LogIndex, PhysicalOffset, QueueId, QueueOffset, Term, Topic};
use crate::store::{EntryId, QueueSeed};

const VERSION: u8 = 1;
/// Bytes in front of a value in a file: magic, CRC-32 of the rest.
const HEAD: usize = 12;

/// A log id as bytes have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Id {
    term: u64,
    index: u64,
}

impl From<LogId> for Id {
    fn from(id: LogId) -> Self {
        Self { term: term_of(&id), index: id.index() }
    }
}

impl From<Id> for LogId {
    fn from(id: Id) -> Self {
        log_id(id.term, id.index)
    }
}

/// Returns the term of a log id.
pub(super) fn term_of(id: &LogId) -> u64 {
    **id.committed_leader_id()
}

#[derive(Serialize, Deserialize)]
struct Members {
    version: u8,
    configs: Vec<BTreeSet<u64>>,
    nodes: Vec<(u64, String, u128)>,
}

/// Encodes a membership, as it stands in entries and images.
pub(super) fn membership_to_bytes(membership: &Membership) -> Vec<u8> {
    to_binary(&Members {
        version: VERSION,
        configs: membership.get_joint_config().clone(),
        nodes: membership
            .nodes()
            .map(|(id, member)| (*id, member.raft_address.clone(), member.identity))
            .collect(),
    })
}

/// Decodes what [`membership_to_bytes`] made.
pub(super) fn membership_from_bytes(bytes: &[u8]) -> io::Result<Membership> {
    let members: Members = from_binary(bytes).map_err(malformed)?;
    if members.version != VERSION {
        return Err(malformed(format!("a membership of version {}", members.version)));
    }
    if members.configs.is_empty() && members.nodes.is_empty() {
        return Ok(Membership::default());
    }
    let nodes: BTreeMap<u64, Member> = members
        .nodes
        .into_iter()
        .map(|(id, raft_address, identity)| (id, Member { raft_address, identity }))
        .collect();
    Membership::new(members.configs, nodes).map_err(|error| malformed(error.to_string()))
}

/// A vote as the file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedVote {
    pub(super) term: u64,
    pub(super) node: u64,
    pub(super) committed: bool,
}

impl From<&Vote> for SavedVote {
    fn from(vote: &Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<SavedVote> for Vote {
    fn from(saved: SavedVote) -> Self {
        Self { leader_id: LeaderId { term: saved.term, voted_for: saved.node }, committed: saved.committed }
    }
}

/// What a replica knows behind an entry, without the messages: a snapshot is one that ends with a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StateImage {
    /// The last entry that it covers.
    pub(super) last: Option<Id>,
    /// That entry's CRC.
    pub(super) crc: u32,
    /// Where that entry ends, or for a snapshot where the next segment begins.
    pub(super) position: u64,
    /// Bytes of a segment; the same on all replicas.
    pub(super) segment_bytes: u64,
    membership_id: Option<Id>,
    membership: Vec<u8>,
    pub(super) metadata: MetadataImage,
    /// Next offsets by topic, in the order of the queues.
    queues: Vec<(String, Vec<u64>)>,
    /// Topics that were deleted behind the first segment's snapshot, and where: its offsets of theirs do not count.
    forgotten: Vec<(String, u64)>,
}

impl StateImage {
    pub(super) fn new(
        last: Option<LogId>,
        crc: u32,
        position: PhysicalOffset,
        segment_bytes: u64,
        membership: &StoredMembership,
        metadata: MetadataImage,
    ) -> Self {
        Self {
            last: last.map(Id::from),
            crc,
            position: position.0,
            segment_bytes,
            membership_id: membership.log_id().map(Id::from),
            membership: membership_to_bytes(membership.membership()),
            metadata,
            queues: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    /// Adds which topics were deleted, and where.
    pub(super) fn with_forgotten(mut self, forgotten: &[(Topic, PhysicalOffset)]) -> Self {
        self.forgotten = forgotten.iter().map(|(topic, at)| (topic.as_str().to_owned(), at.0)).collect();
        self
    }

    /// Returns which topics were deleted from `base` on, and where.
    pub(super) fn forgotten_since(&self, base: PhysicalOffset) -> Vec<(Topic, PhysicalOffset)> {
        let since = self.forgotten.iter().filter(|(_, at)| *at >= base.0);
        since.map(|(topic, at)| (Topic::new(topic), PhysicalOffset(*at))).collect()
    }

    /// Adds where the queues stand.
    pub(super) fn with_queues(mut self, queues: Vec<(Topic, Vec<u64>)>) -> Self {
        self.queues =
            queues.into_iter().map(|(topic, offsets)| (topic.as_str().to_owned(), offsets)).collect();
        self
    }

    /// Returns whether it covers entries behind `last`.
    pub(super) fn covers_more_than(&self, last: &EntryId) -> bool {
        self.last.is_some_and(|own| own.index > last.index.0)
    }

    /// Returns the image as if it ended with `last`. Its tables are those of a later entry: applying the entries in
    /// between once more leads to them again.
    pub(super) fn cut_to(mut self, last: &EntryId, end: PhysicalOffset) -> Self {
        self.last = Some(Id { term: last.term.0, index: last.index.0 });
        self.crc = last.crc;
        self.position = end.0;
        self
    }

    /// Returns the entry that it ends with.
    pub(super) fn last_entry(&self) -> Option<EntryId> {
        let last = self.last.as_ref()?;
        Some(EntryId { index: LogIndex(last.index), term: Term(last.term), crc: self.crc })
    }

    pub(super) fn last_log_id(&self) -> Option<LogId> {
        self.last.map(LogId::from)
    }

    pub(super) fn membership(&self) -> io::Result<StoredMembership> {
        let membership = membership_from_bytes(&self.membership)?;
        Ok(StoredMembership::new(self.membership_id.map(LogId::from), membership))
    }

    pub(super) fn meta(&self) -> io::Result<SnapshotMeta> {
        Ok(SnapshotMeta { last_log_id: self.last_log_id(), last_membership: self.membership()? })
    }

    pub(super) fn seeds(&self) -> Vec<QueueSeed> {
        self.queues
            .iter()
            .flat_map(|(topic, offsets)| {
                (0u32..).zip(offsets).filter(|(_, offset)| **offset > 0).map(|(id, offset)| QueueSeed {
                    topic: Topic::new(topic),
                    queue_id: QueueId(id),
                    offset: QueueOffset(*offset),
                })
            })
            .collect()
    }
}

/// Encodes a value for a file, with magic and CRC.
pub(super) fn to_file<T: Serialize>(magic: &[u8; 8], value: &T) -> Vec<u8> {
    let value = to_binary(value);
    let mut bytes = Vec::with_capacity(HEAD + value.len());
    bytes.extend(magic);
    bytes.extend(crc32fast::hash(&value).to_be_bytes());
    bytes.extend(value);
    bytes
}

/// Decodes what [`to_file`] made.
pub(super) fn from_file<T: DeserializeOwned>(magic: &[u8; 8], bytes: &[u8]) -> io::Result<T> {
    let value = bytes.get(HEAD..).ok_or_else(|| malformed("the file is too short".into()))?;
    if bytes[..8] != magic[..] {
        return Err(malformed("the file is of another kind or version".into()));
    }
    if bytes[8..HEAD] != crc32fast::hash(value).to_be_bytes() {
        return Err(malformed("the CRC of the file differs".into()));
    }
    from_binary(value).map_err(malformed)
}

fn malformed(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let nodes: BTreeMap<u64, Member> = [0, 1, 2]
            .map(|id| (id, Member { raft_address: format!("host{id}:40911"), identity: u128::from(id) + 7 }))
            .into();
        Membership::new(vec![BTreeSet::from([0, 1])], nodes).unwrap()
    }

    #[test]
    fn memberships_are_read_back() {
        for membership in [membership(), Membership::default()] {
            let bytes = membership_to_bytes(&membership);
            assert_eq!(membership_from_bytes(&bytes).unwrap(), membership);
        }
        assert!(membership_from_bytes(b"x").is_err());
    }

    #[test]
    fn images_are_read_back_and_damage_is_found() {
        let stored = StoredMembership::new(Some(log_id(1, 2)), membership());
        let image = StateImage::new(
            Some(log_id(3, 40)),
            5,
            PhysicalOffset(1 << 20),
            1 << 20,
            &stored,
            MetadataImage::default(),
        )
        .with_queues(vec![(Topic::new("T"), vec![0, 9])]);
        let bytes = to_file(b"QUORIMG2", &image);
        let read: StateImage = from_file(b"QUORIMG2", &bytes).unwrap();
        assert_eq!(read, image);
        assert_eq!(read.membership().unwrap(), stored);
        assert_eq!(read.last_log_id(), Some(log_id(3, 40)));
        let seed = QueueSeed { topic: Topic::new("T"), queue_id: QueueId(1), offset: QueueOffset(9) };
        assert_eq!(read.seeds(), [seed]);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(from_file::<StateImage>(b"QUORIMG2", &damaged).is_err(), "{at}");
        }
    }
}
