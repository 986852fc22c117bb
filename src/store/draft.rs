//! Messages on their way into the log.

use crate::message::{Message, encode_record, patch_record};
use crate::model::{PhysicalOffset, QueueId, QueueOffset, Topic};

use super::{Appended, Result};

/// One or more encoded records for one queue, appended as one piece. Offsets are still blank.
#[derive(Debug, Clone)]
pub struct Draft {
    pub(super) topic: Topic,
    pub(super) queue_id: QueueId,
    pub(super) bytes: Vec<u8>,
    /// Where each record starts in `bytes`.
    pub(super) starts: Vec<u32>,
    /// Whether the records take queue offsets.
    pub(super) queued: bool,
}

impl Draft {
    /// Encodes one message.
    pub fn new(message: &Message<'_>) -> Result<Self> {
        let mut draft = Self {
            topic: Topic::new(message.topic),
            queue_id: QueueId(message.queue_id),
            bytes: Vec::new(),
            starts: Vec::with_capacity(1),
            queued: message.sys_flag.is_queued(),
        };
        draft.push(message)?;
        Ok(draft)
    }

    /// Adds a further message, which must be for the same queue and of the same transaction type.
    pub fn push(&mut self, message: &Message<'_>) -> Result<()> {
        assert!(
            message.topic == self.topic.as_str() && message.queue_id == self.queue_id.0,
            "the records of a draft go to one queue"
        );
        assert!(message.sys_flag.is_queued() == self.queued, "the records of a draft are of one kind");
        let start = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        encode_record(message, &mut self.bytes)?;
        self.starts.push(start);
        Ok(())
    }

    /// Returns the number of bytes that the draft adds to the log.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A draft has at least one record.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Fills in where the records stand: offsets from `first` on in their queue, if they take any.
    pub(super) fn place(
        &mut self,
        first: QueueOffset,
        position: PhysicalOffset,
        store_timestamp: i64,
    ) -> Appended {
        for (number, start) in (0u64..).zip(&self.starts) {
            let queue_offset = if self.queued { first.plus(number) } else { QueueOffset(0) };
            let at = position.plus(u64::from(*start));
            patch_record(&mut self.bytes[*start as usize..], queue_offset, at, store_timestamp);
        }
        Appended { queue_offset: first, position, starts: self.starts.clone(), store_timestamp }
    }

    /// Returns the encoded records. Final once the draft is appended.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the topic.
    pub fn topic(&self) -> &Topic {
        &self.topic
    }

    /// Returns the number of records.
    pub fn count(&self) -> usize {
        self.starts.len()
    }
}
