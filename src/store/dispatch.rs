//! Makes committed records visible: ConsumeQueues, Index, and word to whoever waits for messages.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::consume_queue::has_queue;
use super::entry::head_of;
use super::{QueueEntry, Result, Store};
use crate::message::{PropertiesRef, Record, RecordError, Scanned, key, records, scan, tags_code};
use crate::model::{PhysicalOffset, QueueId, QueueOffset, Topic, system_topic};

/// A message that has become visible.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Its topic.
    pub topic: &'a Topic,
    /// Its queue.
    pub queue_id: QueueId,
    /// Its number in the queue.
    pub queue_offset: QueueOffset,
    /// Hash of its tag.
    pub tags_code: i64,
    /// Its properties.
    pub properties: PropertiesRef<'a>,
    /// Bytes of its record.
    pub size: usize,
}

/// What a store tells the layers above.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// A message can be read.
    Arrival(Arrival<'a>),
    /// The store failed and must not be written any more.
    Failed(&'a str),
}

/// Told of each event, on the thread that causes it: must be quick and must not block.
pub struct Listener(Box<dyn Fn(Event<'_>) + Send + Sync>);

impl Listener {
    /// Takes the function to be called.
    pub fn new(listener: impl Fn(Event<'_>) + Send + Sync + 'static) -> Self {
        Self(Box::new(listener))
    }

    pub(super) fn tell(&self, event: Event<'_>) {
        (self.0)(event);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

/// The only way to make records visible.
#[derive(Debug)]
pub struct Committer {
    store: Arc<Store>,
}

impl Committer {
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Returns the store that is committed to.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Makes the records in `bytes`, which were written at `position`, visible. In the order of the log.
    pub fn commit(&self, position: PhysicalOffset, bytes: &[u8]) -> Result<()> {
        let end = position.plus(bytes.len() as u64);
        self.store.log.commit(end);
        let mut at = position;
        for record in records(bytes) {
            let record = record.map_err(|error| {
                self.store.poison(format!("record at {at} cannot be read back: {error}"));
                super::Error::Poisoned(format!("record at {at}: {error}"))
            })?;
            self.store.dispatch_record(&record, Announce::Yes)?;
            at = at.plus(record.total_size as u64);
        }
        self.store.dispatched.fetch_max(end.0, Ordering::AcqRel);
        Ok(())
    }

    /// Makes queues that hold nothing go on where a snapshot says.
    pub fn seed_queues(&self, seeds: &[super::QueueSeed]) {
        for seed in seeds {
            self.store.queues.seed(&seed.topic, seed.queue_id, seed.offset);
        }
    }

    /// Forgets a topic's queues and their files.
    pub fn forget_topic(&self, topic: &Topic) -> Result<()> {
        // Recovery must not read the topic's records again: without their queue they would seem out of order and end
        // the log, and a new topic of that name starts at offset 0. So the checkpoint comes first.
        self.store.checkpoint_now()?;
        self.store.queues.remove_topic(topic)
    }
}

/// Whether the listener is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Announce {
    Yes,
    No,
}

impl Store {
    /// Adds one record to the files that are derived from the log.
    pub(super) fn dispatch_record(&self, record: &Record<'_>, announce: Announce) -> Result<()> {
        self.dispatched_timestamp.store(record.store_timestamp, Ordering::Relaxed);
        if record.sys_flag.is_queued() && has_queue(record.topic, record.queue_id) {
            let topic = Topic::new(record.topic);
            let queue_id = QueueId(record.queue_id);
            let tags_code = self.tags_code(record);
            let entry = QueueEntry {
                position: record.physical_offset,
                size: u32::try_from(record.total_size).expect("a record has less than 2 GiB"),
                tags_code,
            };
            self.queues.get_or_create(&topic, queue_id).put(record.queue_offset, entry)?;
            if announce == Announce::Yes {
                self.listener.tell(Event::Arrival(Arrival {
                    topic: &topic,
                    queue_id,
                    queue_offset: record.queue_offset,
                    tags_code,
                    properties: record.properties(),
                    size: record.total_size,
                }));
            }
        }
        if self.config.index {
            self.index.put(record)?;
        }
        Ok(())
    }

    /// Returns the third field of a queue entry: a tag's hash, or for delayed messages when they are due, as Java's
    /// `CommitLog.checkMessageAndReturnSize`.
    fn tags_code(&self, record: &Record<'_>) -> i64 {
        if record.topic == system_topic::RAFT_LOG {
            let term = head_of(record).map_or(0, |head| head.term.0);
            return i64::try_from(term).unwrap_or(i64::MAX);
        }
        let properties = record.properties();
        if record.topic == system_topic::SCHEDULE {
            let level: usize = properties.get(key::DELAY).and_then(|level| level.parse().ok()).unwrap_or(0);
            let level = level.min(self.config.delay_levels_ms.len());
            if let Some(delay_ms) =
                level.checked_sub(1).and_then(|index| self.config.delay_levels_ms.get(index))
            {
                return record.store_timestamp.saturating_add(i64::try_from(*delay_ms).unwrap_or(i64::MAX));
            }
        }
        tags_code(properties.get(key::TAGS))
    }

    /// Goes through the log from `from`, which must be the start of a record, to its end.
    ///
    /// Calls `each` with every record, which may refuse it; returns the end of the last good one and why the log
    /// ends there.
    pub(super) fn scan_log(
        &self,
        from: PhysicalOffset,
        mut each: impl FnMut(&Record<'_>) -> Result<std::result::Result<(), RecordError>>,
    ) -> Result<(PhysicalOffset, Option<RecordError>)> {
        let mut position = from;
        for segment in self.log.segments() {
            if segment.end() <= position {
                continue;
            }
            while position < segment.end() {
                match scan(segment.tail(position), position) {
                    Scanned::Record(record) => {
                        if let Err(reason) = each(&record)? {
                            segment.release_memory();
                            return Ok((position, Some(reason)));
                        }
                        position = position.plus(record.total_size as u64);
                    }
                    Scanned::Blank(len) => position = position.plus(len as u64),
                    Scanned::End(reason) => {
                        segment.release_memory();
                        return Ok((position, Some(reason)));
                    }
                }
            }
            segment.release_memory();
        }
        Ok((position, None))
    }
}
