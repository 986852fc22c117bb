//! What a simulation knows of its group: every log as it was last seen, and all that was ever committed.

use std::collections::BTreeMap;

use super::super::cluster::{Node, Stored};
use crate::message::Record;
use crate::metadata::{MetadataCommand, decode_commands};
use crate::model::LogIndex;
use crate::store::{Check, decode_entry};

/// An entry, named so that two with the same name are the same, and so are all before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) term: u64,
    pub(super) crc: u32,
    pub(super) position: u64,
    pub(super) end: u64,
}

/// The log of a replica as it was last seen, also while the replica is gone.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    pub(super) entries: BTreeMap<u64, Seen>,
    /// What ends at or below is synced, or without syncs written.
    pub(super) durable: u64,
}

/// What has changed in a log between two looks.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) put: Vec<(u64, Seen)>,
    pub(super) gone: Vec<(u64, Seen)>,
}

impl Shadow {
    /// Looks at the log of a replica.
    pub(super) fn look(&mut self, node: &Node, sync: bool) -> Changes {
        let entries = &node.group().shared.entries;
        let log = node.store().log();
        self.durable = if sync { log.flushed().0 } else { log.written().0 };
        let mut changes = Changes::default();
        let Some(last) = entries.last() else {
            changes.gone.extend(std::mem::take(&mut self.entries));
            return changes;
        };
        let known = |seen: &Seen| (seen.term, seen.crc) == (last.term.0, last.crc);
        if self.entries.last_key_value().is_some_and(|(index, seen)| *index == last.index.0 && known(seen)) {
            return changes;
        }
        changes.gone.extend(self.entries.split_off(&(last.index.0 + 1)));
        for index in (0..=last.index.0).rev() {
            let Ok(Some((id, position, len))) = entries.find(LogIndex(index)) else { break };
            let end = position.plus(len as u64).0;
            let seen = Seen { term: id.term.0, crc: id.crc, position: position.0, end };
            match self.entries.insert(index, seen) {
                Some(before) if before == seen => break,
                before => changes.gone.extend(before.map(|before| (index, before))),
            }
            changes.put.push((index, seen));
        }
        changes.put.reverse();
        changes
    }
}

/// A committed entry.
#[derive(Debug, Clone)]
pub(super) struct Committed {
    pub(super) seen: Seen,
    /// The term of the replica that first knew it to be committed.
    pub(super) known_in: u64,
    /// By position.
    pub(super) messages: Vec<(u64, Stored)>,
    pub(super) commands: Vec<MetadataCommand>,
    pub(super) forgotten: Vec<String>,
}

/// All that was ever committed, in order, without a gap.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) entries: Vec<Committed>,
    /// By position.
    pub(super) messages: BTreeMap<u64, Stored>,
}

impl Ledger {
    pub(super) fn get(&self, index: u64) -> Option<&Committed> {
        self.entries.get(usize::try_from(index).unwrap())
    }

    /// Takes down what a replica knows to be committed. Returns the first new entry's index, if there are any.
    pub(super) fn take(&mut self, node: &Node, shadow: &Shadow, committed: u64, term: u64) -> Option<u64> {
        let first = self.entries.len() as u64;
        for index in first..=committed {
            let Some(seen) = shadow.entries.get(&index).copied() else { break };
            let Some(entry) = committed_entry(node, index, seen, term) else { break };
            self.messages.extend(entry.messages.iter().cloned());
            self.entries.push(entry);
        }
        (first < self.entries.len() as u64).then_some(first)
    }
}

fn committed_entry(node: &Node, index: u64, seen: Seen, known_in: u64) -> Option<Committed> {
    let entries = &node.group().shared.entries;
    let entry = entries.entries(LogIndex(index), LogIndex(index + 1), usize::MAX, Check::Whole).ok()?;
    let entry = entry.into_iter().next()?;
    let head = decode_entry(&entry.bytes, entry.position).expect("an entry is whole");
    let mut rest = &entry.bytes[head.record_len..];
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let record = Record::decode(rest).expect("a message is whole");
        messages.push((record.physical_offset.0, Stored::of(&record)));
        rest = &rest[record.total_size..];
    }
    Some(Committed {
        seen,
        known_in,
        messages,
        commands: decode_commands(head.command).unwrap_or_default(),
        forgotten: head.forgotten.iter().map(|topic| (*topic).to_owned()).collect(),
    })
}
