//! Reading messages: by queue offset, by position, by time.

use bytes::Bytes;

use super::{ConsumeQueue, Result, Store};
use crate::filter::Filter;
use crate::message::{Record, Scanned, scan};
use crate::model::{PhysicalOffset, QueueId, QueueOffset, Topic};

/// Entries looked at in one read, so that a filter that matches nothing cannot keep a thread for long.
/// Java's `maxFilterMessageSize` of 16,000 bytes.
const SCAN_ENTRIES_MAX: usize = 800;

/// How much one read may return. At least one message is returned whatever its size.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Most messages.
    pub count_max: usize,
    /// Most bytes.
    pub bytes_max: u64,
    /// Further limits for messages that are probably not in memory.
    pub cold_count_max: usize,
    /// Likewise, in bytes.
    pub cold_bytes_max: u64,
    /// Distance from the end of the log from which messages count as not in memory, in bytes.
    pub cold_distance: u64,
}

/// What a read found. Source: RocketMQ `GetMessageStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStatus {
    /// There are messages.
    Found,
    /// The filter matches none of the messages looked at; go on at `next`.
    NoMatchedMessage,
    /// The messages are being deleted; go on at `next`.
    MessageWasRemoving,
    /// The offset is behind the end by more than nothing.
    OffsetOverflowBadly,
    /// The offset is the end: there may be a message soon.
    OffsetOverflowOne,
    /// The offset is below min.
    OffsetTooSmall,
    /// The queue exists without a message.
    NoMessageInQueue,
    /// No message was ever stored in the queue.
    NoMatchedLogicQueue,
}

impl ReadStatus {
    /// Returns Java's name of the status, which pulls carry as remark.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "FOUND",
            Self::NoMatchedMessage => "NO_MATCHED_MESSAGE",
            Self::MessageWasRemoving => "MESSAGE_WAS_REMOVING",
            Self::OffsetOverflowBadly => "OFFSET_OVERFLOW_BADLY",
            Self::OffsetOverflowOne => "OFFSET_OVERFLOW_ONE",
            Self::OffsetTooSmall => "OFFSET_TOO_SMALL",
            Self::NoMessageInQueue => "NO_MESSAGE_IN_QUEUE",
            Self::NoMatchedLogicQueue => "NO_MATCHED_LOGIC_QUEUE",
        }
    }
}

/// The result of a read.
#[derive(Debug, Clone)]
pub struct Read {
    /// What was found.
    pub status: ReadStatus,
    /// Where the next read should begin.
    pub next: QueueOffset,
    /// First offset of the queue.
    pub min: QueueOffset,
    /// End of the queue.
    pub max: QueueOffset,
    /// The records, as slices of the log.
    pub records: Vec<Bytes>,
    /// Bytes of all records.
    pub bytes: u64,
    /// True if the last message looked at is so far from the end that it is probably not in memory.
    pub cold: bool,
}

/// Which of several offsets a search by time shall return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boundary {
    /// The first offset stored at or after the time.
    Lower,
    /// The last offset stored at or before the time.
    Upper,
}

impl Store {
    /// Reads messages of a queue from `offset`, those that the filter wants. May block on the disk.
    ///
    /// Source of statuses and limits: RocketMQ `DefaultMessageStore.getMessage`.
    pub fn read(
        &self,
        topic: &Topic,
        queue_id: QueueId,
        offset: QueueOffset,
        limits: ReadLimits,
        filter: &Filter,
    ) -> Result<Read> {
        let zero = QueueOffset(0);
        let mut read = Read {
            status: ReadStatus::NoMatchedLogicQueue,
            next: zero,
            min: zero,
            max: zero,
            records: Vec::new(),
            bytes: 0,
            cold: false,
        };
        let Some(queue) = self.queues.get(topic, queue_id) else { return Ok(read) };
        read.max = queue.max_offset();
        #[cfg(feature = "known-bad")]
        if offset == read.max
            && let Some(bytes) = super::uncommitted::find(topic.as_str(), queue_id.0, offset.0)
        {
            let (next, len) = (QueueOffset(offset.0 + 1), bytes.len() as u64);
            return Ok(Read { status: ReadStatus::Found, next, records: vec![bytes], bytes: len, ..read });
        }
        read.min = queue.min_offset();
        (read.status, read.next) = if read.max == zero {
            (ReadStatus::NoMessageInQueue, zero)
        } else if offset < read.min {
            (ReadStatus::OffsetTooSmall, read.min)
        } else if offset == read.max {
            (ReadStatus::OffsetOverflowOne, offset)
        } else if offset > read.max {
            (ReadStatus::OffsetOverflowBadly, read.max)
        } else {
            (ReadStatus::NoMatchedMessage, offset)
        };
        if read.status == ReadStatus::NoMatchedMessage {
            self.collect((topic, queue_id), &queue, limits, filter, &mut read)?;
        }
        Ok(read)
    }

    fn collect(
        &self,
        (topic, queue_id): (&Topic, QueueId),
        queue: &ConsumeQueue,
        limits: ReadLimits,
        filter: &Filter,
        read: &mut Read,
    ) -> Result<()> {
        let end = self.log.committed();
        let mut scanned = 0;
        while scanned < SCAN_ENTRIES_MAX && read.next < read.max {
            let wanted = (SCAN_ENTRIES_MAX - scanned).min(limits.count_max.max(1) * 2);
            let entries = queue.entries(read.next, wanted)?;
            if entries.is_empty() {
                return Ok(());
            }
            for entry in entries {
                read.cold = end.0.saturating_sub(entry.position.0) > limits.cold_distance;
                if is_full(read, limits, u64::from(entry.size)) {
                    return Ok(());
                }
                scanned += 1;
                read.next = read.next.plus(1);
                if !filter.wants_code(entry.tags_code) {
                    continue;
                }
                match self.log.slice(entry.position, entry.size as usize) {
                    Some(record) => {
                        let offset = QueueOffset(read.next.0 - 1);
                        if self.entries
                            && let Err(error) = self.check(topic, queue_id, offset, entry.position, &record)
                        {
                            // What was read before it is good; the next read begins at this one.
                            read.next = offset;
                            return if read.records.is_empty() { Err(error) } else { Ok(()) };
                        }
                        if let Some(sql) = filter.sql()
                            && Record::decode(&record).is_ok_and(|record| !sql.matches(record.properties()))
                        {
                            continue;
                        }
                        read.bytes += record.len() as u64;
                        read.records.push(record);
                        read.status = ReadStatus::Found;
                    }
                    None if read.records.is_empty() => read.status = ReadStatus::MessageWasRemoving,
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Checks that a record is the one that its queue says; notes the damage if not. No CRC of its own covers times,
    /// flags and properties: only that of its entry does, which is checked by the scrub.
    fn check(
        &self,
        topic: &Topic,
        queue_id: QueueId,
        offset: QueueOffset,
        position: PhysicalOffset,
        bytes: &[u8],
    ) -> Result<()> {
        let reason = match scan(bytes, position) {
            Scanned::Record(record) if record.total_size != bytes.len() => "its length differs".into(),
            Scanned::Record(record) => {
                let place = (record.topic, record.queue_id, record.queue_offset);
                if place == (topic.as_str(), queue_id.0, offset) {
                    return Ok(());
                }
                "it belongs to another place in the queues".into()
            }
            Scanned::Blank(_) => "a filler stands there".into(),
            Scanned::End(error) => error.to_string(),
        };
        Err(self.damaged(position, reason))
    }

    /// Returns the offset that belongs to a time. The queue's min if it has no messages.
    ///
    /// Source: RocketMQ `ConsumeQueue.binarySearchInQueueByTime`. May block on the disk.
    pub fn offset_by_time(
        &self,
        topic: &Topic,
        queue_id: QueueId,
        timestamp: i64,
        boundary: Boundary,
    ) -> Result<QueueOffset> {
        let Some(queue) = self.queues.get(topic, queue_id) else { return Ok(QueueOffset(0)) };
        let (min, max) = (queue.min_offset().0, queue.max_offset().0);
        let limit = match boundary {
            Boundary::Lower => timestamp,
            Boundary::Upper => timestamp.saturating_add(1),
        };
        let (mut from, mut to) = (min, max);
        while from < to {
            let middle = from + (to - from) / 2;
            let stored = queue.entry(QueueOffset(middle))?.and_then(|e| self.store_timestamp(e.position));
            if stored.is_none_or(|stored| stored < limit) { from = middle + 1 } else { to = middle }
        }
        Ok(QueueOffset(match boundary {
            Boundary::Lower => from,
            Boundary::Upper if from > min => from - 1,
            Boundary::Upper => 0,
        }))
    }

    /// Returns when the record at a position was stored, in milliseconds since 1970. May block on the disk.
    pub fn store_timestamp(&self, position: PhysicalOffset) -> Option<i64> {
        let bytes = self.log.bytes_of(position)?;
        Some(Record::decode(&bytes).ok()?.store_timestamp)
    }

    /// Returns when the message at a queue offset was stored. May block on the disk.
    pub fn queue_timestamp(&self, topic: &Topic, queue_id: QueueId, offset: QueueOffset) -> Option<i64> {
        let entry = self.queues.get(topic, queue_id)?.entry(offset).ok()??;
        self.store_timestamp(entry.position)
    }
}

/// As Java's `DefaultMessageStore.isTheBatchFull`.
fn is_full(read: &Read, limits: ReadLimits, next_bytes: u64) -> bool {
    if read.records.is_empty() {
        return false;
    }
    let (count_max, bytes_max) = if read.cold {
        (limits.count_max.min(limits.cold_count_max), limits.bytes_max.min(limits.cold_bytes_max))
    } else {
        (limits.count_max, limits.bytes_max)
    };
    read.records.len() >= count_max || read.bytes + next_bytes > bytes_max
}
