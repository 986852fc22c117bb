//! What a broker keeps: the CommitLog and the files derived from it, in RocketMQ's own formats.
//!
//! Synchronous, with its own threads. Knows neither tokio, nor the wire, nor Raft. Writing needs the
//! [`Writer`] and the [`Committer`], which [`Store::open`] hands out once; `replication` holds them.

mod checkpoint;
mod commit_log;
mod consume_queue;
mod dispatch;
mod draft;
mod entry;
mod entry_log;
mod entry_recovery;
#[cfg(test)]
mod entry_tests;
mod entry_writer;
mod error;
mod index;
mod maintenance;
mod read;
mod recovery;
mod retention;
mod segment;
#[cfg(test)]
mod tests;
#[cfg(feature = "known-bad")]
mod uncommitted;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

pub use commit_log::{Appended, CommitLog, Writer};
pub use consume_queue::{ConsumeQueue, ConsumeQueues, QueueEntry};
pub use dispatch::{Arrival, Committer, Event, Listener};
pub use draft::Draft;
pub use entry::{EntryError, EntryHead, EntryKind, FORGOTTEN_MAX, decode_entry, decode_head};
pub use entry_log::{Check, EntryId, EntryLog, NewEntry, StoredEntry, position_of};
pub use entry_writer::Flushed;
pub use error::Error;
pub use index::{Index, IndexQuery};
pub use maintenance::Threads;
pub use read::{Boundary, Read, ReadLimits, ReadStatus};
pub use recovery::{EntryOptions, Opened, OpenedEntries, QueueSeed};
pub use retention::Retention;

use crate::env::{self, Clock, Disk, Lock};
use crate::metrics::Histogram;
use crate::model::PhysicalOffset;
use checkpoint::Checkpoint;

/// The result of everything in this module.
pub type Result<T> = std::result::Result<T, Error>;

/// Where a store is and how it behaves.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The root folder (`storePathRootDir`).
    pub root: PathBuf,
    /// The CommitLog's folder (`storePathCommitLog`).
    pub commit_log: PathBuf,
    /// Bytes of a CommitLog segment (`mappedFileSizeCommitLog`). Must be the same for the store's whole life.
    pub segment_bytes: u64,
    /// Entries of a ConsumeQueue file (`mappedFileSizeConsumeQueue` / 20).
    pub queue_file_entries: u64,
    /// Build IndexFiles (`messageIndexEnable`).
    pub index: bool,
    /// Hash slots of an IndexFile (`maxHashSlotNum`).
    pub index_slots: u32,
    /// Entries of an IndexFile (`maxIndexNum`).
    pub index_entries: u32,
    /// Check body CRCs while recovering (`checkCRCOnRecover`).
    pub check_crc: bool,
    /// Longest time between two flushes of the CommitLog under ASYNC_FLUSH, in milliseconds
    /// (`flushIntervalCommitLog`).
    pub flush_interval_ms: u64,
    /// Longest time between two checkpoints, in milliseconds. Bounds the log that recovery reads again.
    pub checkpoint_interval_ms: u64,
    /// Most log bytes between two checkpoints. Bounds the log that recovery reads again.
    pub checkpoint_bytes: u64,
    /// Delay of each level of the delay topic, in milliseconds (`messageDelayLevel`); its queue entries carry the
    /// time of delivery instead of the hash of a tag.
    pub delay_levels_ms: Vec<u64>,
    /// When segments are deleted.
    pub retention: Retention,
}

impl StoreConfig {
    /// Returns RocketMQ's default settings for a store under `root`.
    pub fn new(root: PathBuf) -> Self {
        Self {
            commit_log: root.join("commitlog"),
            root,
            segment_bytes: 1 << 30,
            queue_file_entries: 300_000,
            index: true,
            index_slots: 5_000_000,
            index_entries: 20_000_000,
            check_crc: true,
            flush_interval_ms: 500,
            checkpoint_interval_ms: 10_000,
            checkpoint_bytes: 256 << 20,
            delay_levels_ms: Vec::new(),
            retention: Retention::default(),
        }
    }
}

/// How long the disk takes.
#[derive(Debug)]
pub struct Latencies {
    /// One write of records, to the page cache.
    pub write: Histogram,
    /// One sync of all that was written since the last.
    pub sync: Histogram,
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    disk: Disk,
    clock: Clock,
    log: CommitLog,
    queues: ConsumeQueues,
    index: Index,
    checkpoint: Checkpoint,
    /// All records below are in the ConsumeQueues and the Index.
    dispatched: AtomicU64,
    /// Store time of the newest dispatched record.
    dispatched_timestamp: AtomicI64,
    /// When the last checkpoint was made, milliseconds since 1970.
    checkpointed_ms: AtomicI64,
    /// Held while making a checkpoint.
    checkpointing: Mutex<()>,
    /// When segments are deleted; the configuration's at the start.
    retention: RwLock<Retention>,
    /// Held while deleting segments and what belongs to them.
    deleting: Mutex<()>,
    /// Set while the disk is too full to take more.
    full: AtomicBool,
    /// The log consists of Raft entries.
    entries: bool,
    /// How far a Raft log may be deleted.
    wanted_min: AtomicU64,
    /// Held while a segment is made.
    growing: Mutex<()>,
    failure: OnceLock<String>,
    latencies: Latencies,
    /// Positions of committed records that cannot be read back, until they are mended.
    damages: Mutex<BTreeSet<PhysicalOffset>>,
    listener: Listener,
    /// Held so that no other broker opens the same folder.
    _lock: Lock,
}

impl Store {
    /// Returns the log for reading.
    pub fn log(&self) -> &CommitLog {
        &self.log
    }

    /// Returns the queues for reading.
    pub fn queues(&self) -> &ConsumeQueues {
        &self.queues
    }

    /// Returns the index for reading.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Returns the settings that the store was opened with.
    pub fn config(&self) -> &StoreConfig {
        &self.config
    }

    /// Returns the clock that store times come from.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the threads for what blocks on the store's disk.
    pub fn threads(&self) -> &env::Threads {
        self.disk.threads()
    }

    /// Returns how long the disk takes.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }

    /// Changes when segments are deleted, from the next look on. The time between two looks stays.
    pub fn set_retention(&self, retention: Retention) {
        *self.retention.write().unwrap_or_else(PoisonError::into_inner) = retention;
    }

    fn retention(&self) -> Retention {
        self.retention.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the end of what is in the ConsumeQueues.
    pub fn dispatched(&self) -> PhysicalOffset {
        PhysicalOffset(self.dispatched.load(Ordering::Acquire))
    }

    /// Returns whether the disk is too full to take more messages.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Refuses messages until the disk has room again.
    fn set_full(&self) {
        self.full.store(true, Ordering::Relaxed);
    }

    /// Notes that what stands at `position` is damaged, and returns that as an error. Another replica has it.
    fn damaged(&self, position: PhysicalOffset, reason: impl ToString) -> Error {
        let reason = reason.to_string();
        if self.damages.lock().unwrap_or_else(PoisonError::into_inner).insert(position) {
            tracing::error!(phy_offset = %position, reason, "a record is damaged");
        }
        Error::Damaged { position, reason }
    }

    /// Returns the positions of damaged records.
    pub fn damages(&self) -> Vec<PhysicalOffset> {
        self.damages.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Returns why the store must not be written any more: a failed sync or write.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Records that the store must not be written any more. The first reason stays.
    pub fn poison(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.failure.set(reason.clone()).is_ok() {
            tracing::error!(reason, "store failed; the broker must stop");
            self.listener.tell(Event::Failed(&reason));
        }
    }

    fn check_usable(&self) -> Result<()> {
        match self.failure() {
            Some(reason) => Err(Error::Poisoned(reason.into())),
            None => Ok(()),
        }
    }
}
