//! Entry records: how a Raft log stands in the CommitLog.
//!
//! A Raft entry is an entry record and behind it the records of its messages, all in one segment. The entry record is
//! an ordinary record of the topic `RMQ_SYS_RAFT_LOG`, queue 0, whose queue offset is the Raft index, so RocketMQ can
//! read such a log. Its body:
//!
//! | field | bytes | at | |
//! |---|---|---|---|
//! | version | 1 | 0 | 1 |
//! | kind | 1 | 1 | 0 blank, 1 messages and changes, 2 membership |
//! | reserved | 2 | 2 | 0 |
//! | index, term | 8 + 8 | 4, 12 | |
//! | position | 8 | 20 | where the entry record starts |
//! | CRC of the entry before | 4 | 28 | 0 in the first entry; the chain shows any difference between two logs |
//! | messages: count, bytes, CRC-32 | 4 + 4 + 4 | 32, 36, 40 | |
//! | forgotten topics | 2 | 44 | how many |
//! | command bytes | 4 | 46 | |
//! | forgotten topics | 1 + n each | 50 | their queues start at 0 behind this entry |
//! | command | n | | for the layer above |
//!
//! Big-endian. The CRC of an entry is that of this body; it is also the record's bodyCRC.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Buf;

use crate::message::{Message, Record, RecordError, Scanned, SysFlag, encode_record, scan};
use crate::model::{LogIndex, PhysicalOffset, Term, Topic, system_topic};

const VERSION: u8 = 1;
/// Bytes of the body in front of the lists.
const FIXED: usize = 50;
/// Longest name of a forgotten topic, in bytes.
pub const FORGOTTEN_MAX: usize = 255;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// Nothing: the first entry of a leader.
    Blank,
    /// Messages, and changes of what the layers above keep.
    Data,
    /// A change of the members.
    Membership,
}

/// The decoded body of an entry record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryHead<'a> {
    /// What it is.
    pub kind: EntryKind,
    /// Its place in the Raft log.
    pub index: LogIndex,
    /// The term of the leader that made it.
    pub term: Term,
    /// Where the entry record starts.
    pub position: PhysicalOffset,
    /// CRC of the entry before.
    pub previous_crc: u32,
    /// CRC of this entry.
    pub crc: u32,
    /// Bytes of the entry record.
    pub record_len: usize,
    /// Number of message records.
    pub count: u32,
    /// Bytes of the message records.
    pub messages_len: usize,
    /// CRC-32 of the message records.
    pub messages_crc: u32,
    /// Topics whose queues start at 0 behind this entry.
    pub forgotten: Vec<&'a str>,
    /// For the layer above.
    pub command: &'a [u8],
    /// Time of the append, milliseconds since 1970.
    pub store_timestamp: i64,
}

impl EntryHead<'_> {
    /// Returns the bytes of the whole entry.
    pub fn len(&self) -> usize {
        self.record_len + self.messages_len
    }

    /// An entry has at least its record.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// Why bytes are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// No whole record stands there.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A filler stands there.
    #[error("a filler stands where an entry is expected")]
    Blank,
    /// A good record that is not part of an entry.
    #[error("a record of topic {0} stands where an entry record is expected")]
    Foreign(String),
    /// The body of the entry record contradicts itself.
    #[error("the entry record is malformed: {0}")]
    Malformed(&'static str),
    /// The message records are not the ones that were appended.
    #[error("the CRC of the entry's messages differs")]
    MessagesCrc,
    /// The entry does not follow the one before.
    #[error("the entry does not follow the one before: {0}")]
    Order(String),
}

/// What is needed to make an entry record.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryParts<'a> {
    pub(super) kind: EntryKind,
    pub(super) index: LogIndex,
    pub(super) term: Term,
    pub(super) position: PhysicalOffset,
    pub(super) previous_crc: u32,
    pub(super) count: u32,
    pub(super) messages_len: usize,
    pub(super) messages_crc: u32,
    pub(super) forgotten: &'a [Topic],
    pub(super) command: &'a [u8],
    pub(super) store_timestamp: i64,
}

/// Returns how long the entry record will be.
pub(super) fn entry_record_len(forgotten: &[Topic], command: &[u8]) -> usize {
    let names: usize = forgotten.iter().map(|topic| 1 + topic.as_str().len()).sum();
    crate::message::RECORD_MIN + system_topic::RAFT_LOG.len() + FIXED + names + command.len()
}

/// Appends the entry record to `out` and returns the entry's CRC.
pub(super) fn encode_entry(parts: &EntryParts<'_>, out: &mut Vec<u8>) -> u32 {
    let mut body = Vec::with_capacity(FIXED + parts.command.len());
    body.push(VERSION);
    body.push(match parts.kind {
        EntryKind::Blank => 0,
        EntryKind::Data => 1,
        EntryKind::Membership => 2,
    });
    body.extend([0; 2]);
    body.extend(parts.index.0.to_be_bytes());
    body.extend(parts.term.0.to_be_bytes());
    body.extend(parts.position.0.to_be_bytes());
    body.extend(parts.previous_crc.to_be_bytes());
    body.extend(parts.count.to_be_bytes());
    body.extend(length(parts.messages_len).to_be_bytes());
    body.extend(parts.messages_crc.to_be_bytes());
    let forgotten = u16::try_from(parts.forgotten.len()).expect("an entry forgets few topics");
    body.extend(forgotten.to_be_bytes());
    body.extend(length(parts.command.len()).to_be_bytes());
    for topic in parts.forgotten {
        assert!(topic.as_str().len() <= FORGOTTEN_MAX, "longer names are refused");
        body.push(u8::try_from(topic.as_str().len()).expect("it was just looked at"));
        body.extend(topic.as_str().as_bytes());
    }
    body.extend(parts.command);
    let host = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let start = out.len();
    let record_len = encode_record(
        &Message {
            topic: system_topic::RAFT_LOG,
            queue_id: 0,
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: parts.store_timestamp,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &body,
            properties: "",
        },
        out,
    )
    .expect("an entry record is far below the limits of a record");
    let queue_offset = crate::model::QueueOffset(parts.index.0);
    crate::message::patch_record(&mut out[start..], queue_offset, parts.position, parts.store_timestamp);
    assert!(
        record_len == entry_record_len(parts.forgotten, parts.command),
        "the room was reckoned with this length"
    );
    crate::message::crc32(&body)
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("an entry is shorter than a segment")
}

/// Decodes and checks the entry that starts at the first byte of `bytes`, which stand at `position` of the log.
///
/// Checks everything but the order of entries: CRCs, lengths, position.
pub fn decode_entry(bytes: &[u8], position: PhysicalOffset) -> Result<EntryHead<'_>, EntryError> {
    let head = decode_head(bytes, position)?;
    let messages = bytes.get(head.record_len..head.len()).ok_or(RecordError::Short)?;
    if crc32fast::hash(messages) != head.messages_crc {
        return Err(EntryError::MessagesCrc);
    }
    Ok(head)
}

/// Decodes and checks an entry record, without a look at the messages behind it.
pub fn decode_head(bytes: &[u8], position: PhysicalOffset) -> Result<EntryHead<'_>, EntryError> {
    let record = match scan(bytes, position) {
        Scanned::Record(record) => record,
        Scanned::Blank(_) => return Err(EntryError::Blank),
        Scanned::End(error) => return Err(error.into()),
    };
    if record.topic != system_topic::RAFT_LOG {
        return Err(EntryError::Foreign(record.topic.to_owned()));
    }
    let head = decode_body(&record).ok_or(EntryError::Malformed("a length does not fit"))??;
    if head.position != position || record.queue_offset.0 != head.index.0 {
        return Err(EntryError::Malformed("index or position differ from the record's"));
    }
    Ok(head)
}

/// Returns what a record of the Raft log's topic says of its entry.
pub(super) fn head_of<'a>(record: &Record<'a>) -> Option<EntryHead<'a>> {
    decode_body(record)?.ok()
}

/// `None`: a length does not fit.
fn decode_body<'a>(record: &Record<'a>) -> Option<Result<EntryHead<'a>, EntryError>> {
    let mut rest = record.body;
    if rest.try_get_u8().ok()? != VERSION {
        return Some(Err(EntryError::Malformed(
            "its version is not known; it was written by a newer broker",
        )));
    }
    let kind = match rest.try_get_u8().ok()? {
        0 => EntryKind::Blank,
        1 => EntryKind::Data,
        2 => EntryKind::Membership,
        _ => return Some(Err(EntryError::Malformed("its kind is not known"))),
    };
    let _reserved = rest.try_get_u16().ok()?;
    let index = LogIndex(rest.try_get_u64().ok()?);
    let term = Term(rest.try_get_u64().ok()?);
    let position = PhysicalOffset(rest.try_get_u64().ok()?);
    let previous_crc = rest.try_get_u32().ok()?;
    let count = rest.try_get_u32().ok()?;
    let messages_len = usize::try_from(rest.try_get_u32().ok()?).ok()?;
    let messages_crc = rest.try_get_u32().ok()?;
    let names = rest.try_get_u16().ok()?;
    let command_len = usize::try_from(rest.try_get_u32().ok()?).ok()?;
    let mut forgotten = Vec::new();
    for _ in 0..names {
        let len = usize::from(rest.try_get_u8().ok()?);
        forgotten.push(std::str::from_utf8(rest.split_off(..len)?).ok()?);
    }
    let command = rest.split_off(..command_len)?;
    if !rest.is_empty() {
        return None;
    }
    Some(Ok(EntryHead {
        kind,
        index,
        term,
        position,
        previous_crc,
        crc: record.body_crc,
        record_len: record.total_size,
        count,
        messages_len,
        messages_crc,
        forgotten,
        command,
        store_timestamp: record.store_timestamp,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(out: &mut Vec<u8>) -> u32 {
        let messages = b"messages";
        let forgotten = [Topic::new("A"), Topic::new("B")];
        let parts = EntryParts {
            kind: EntryKind::Data,
            index: LogIndex(7),
            term: Term(3),
            position: PhysicalOffset(4096),
            previous_crc: 9,
            count: 1,
            messages_len: messages.len(),
            messages_crc: crc32fast::hash(messages),
            forgotten: &forgotten,
            command: b"command",
            store_timestamp: 5,
        };
        let crc = encode_entry(&parts, out);
        out.extend(messages);
        crc
    }

    #[test]
    fn an_entry_is_read_back() {
        let mut bytes = Vec::new();
        let crc = sample(&mut bytes);
        let head = decode_entry(&bytes, PhysicalOffset(4096)).unwrap();
        assert_eq!((head.index, head.term, head.kind), (LogIndex(7), Term(3), EntryKind::Data));
        assert_eq!((head.previous_crc, head.crc, head.count), (9, crc, 1));
        assert_eq!(head.forgotten, ["A", "B"]);
        assert_eq!(head.command, b"command");
        assert_eq!(head.len(), bytes.len());
        assert_eq!(head.store_timestamp, 5);
    }

    #[test]
    fn any_damage_is_found_but_in_fields_that_nobody_reads() {
        let mut bytes = Vec::new();
        sample(&mut bytes);
        let good = decode_entry(&bytes, PhysicalOffset(4096)).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(head) = decode_entry(&damaged, PhysicalOffset(4096)) {
                    // No CRC covers a record's head: flags, times and hosts of an entry record mean nothing.
                    let same = EntryHead { store_timestamp: good.store_timestamp, ..head };
                    assert_eq!(same, good, "byte {at} bit {bit}");
                }
            }
        }
        assert!(decode_entry(&bytes, PhysicalOffset(4097)).is_err());
        assert!(decode_entry(&bytes[..bytes.len() - 1], PhysicalOffset(4096)).is_err());
    }
}
