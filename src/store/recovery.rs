//! Opening a store: finds the end of the log, cuts off what a crash left, and brings the derived files up
//! to date.
//!
//! How a log that was not closed is judged: everything below the checkpoint's `flushed` was found good and is
//! durable. From there, records are checked one by one until one is not whole. What follows it was never
//! acknowledged under SYNC_FLUSH; it is kept aside in `cut/` and made zero before anything is appended, since
//! a stale record behind the end could otherwise follow a new one and be taken for part of the log.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use super::checkpoint::{Checkpoint, CheckpointState};
use super::consume_queue::has_queue;
use super::dispatch::Announce;
use super::entry_log::{EntryId, EntryLog};
use super::segment::{Segment, base_of};
use super::{
    CommitLog, Committer, ConsumeQueues, Error, Index, Listener, Result, Store, StoreConfig, Writer,
};
use crate::env::{Clock, Disk};
use crate::message::{Record, RecordError, Scanned, scan};
use crate::metrics::Histogram;
use crate::model::{LogIndex, PhysicalOffset, QueueId, QueueOffset, Topic};

/// Bytes of a cut tail that are kept for the operator.
const CUT_KEPT_MAX: usize = 64 << 20;
/// Between two lines about the progress of recovery.
const PROGRESS_INTERVAL_MS: i64 = 2000;

/// A store with the two handles that only `replication` may hold.
#[derive(Debug)]
pub struct Opened {
    /// For everybody.
    pub store: Arc<Store>,
    /// Writes the log.
    pub writer: Writer,
    /// Makes what was written visible.
    pub committer: Committer,
}

/// What the layer above knows of a Raft log before it is opened.
#[derive(Debug, Default)]
pub struct EntryOptions {
    /// Whether entries are synced before they count as flushed.
    pub sync: bool,
    /// Entries that end at or below are committed for sure.
    pub committed: PhysicalOffset,
    /// The last entry that this replica knew to be committed, as far as it remembers.
    pub committed_index: Option<LogIndex>,
    /// The entry that the first segment follows, if entries were in the log before it.
    pub before: Option<EntryId>,
    /// Where queues stood when the log began, so that one without a retained message goes on.
    pub queues: Vec<QueueSeed>,
    /// Throw everything away and begin at this position: a snapshot was being installed.
    pub restart_at: Option<PhysicalOffset>,
}

/// The next offset of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSeed {
    /// The topic.
    pub topic: Topic,
    /// The queue.
    pub queue_id: QueueId,
    /// The offset of its next message.
    pub offset: QueueOffset,
}

/// A store whose log is a Raft log, with the handles that only `replication` may hold.
#[derive(Debug)]
pub struct OpenedEntries {
    /// For everybody.
    pub store: Arc<Store>,
    /// The Raft log.
    pub log: EntryLog,
    /// Makes entries visible.
    pub committer: Committer,
    /// Set if the log ends before an entry that was known to be committed: this one.
    pub damaged_below: Option<LogIndex>,
}

impl Store {
    /// Opens or makes the store under `config.root` and recovers it if it was not closed.
    ///
    /// Blocks for as long as recovery takes. `listener` is told of messages that become visible later.
    pub fn open(config: StoreConfig, disk: Disk, clock: Clock, listener: Listener) -> Result<Opened> {
        let store = Self::assemble(config, disk, clock, listener, false)?;
        let abort = store.config.root.join("abort");
        let clean = !exists(&store.disk, &abort)?;
        store.recover(clean)?;
        write_abort(&store.disk, &abort)?;
        store.clean()?;

        let store = Arc::new(store);
        let active = store.active_segment()?;
        let next_offsets = next_offsets(&store.queues);
        let timestamp = store.dispatched_timestamp.load(Ordering::Relaxed);
        let writer = Writer::new(Arc::clone(&store), active, next_offsets, timestamp);
        let committer = Committer::new(Arc::clone(&store));
        Ok(Opened { store, writer, committer })
    }

    /// Opens or makes a store whose log is a Raft log. Entries behind `options.committed` do not become visible.
    ///
    /// Blocks for as long as recovery takes.
    pub fn open_entries(
        config: StoreConfig,
        options: EntryOptions,
        disk: Disk,
        clock: Clock,
        listener: Listener,
    ) -> Result<OpenedEntries> {
        let store = Self::assemble(config, disk, clock, listener, true)?;
        if let Some(base) = options.restart_at {
            store.restart_at(base)?;
        }
        let abort = store.config.root.join("abort");
        let clean = !exists(&store.disk, &abort)?;
        let found = store.recover_entries(clean, &options)?;
        write_abort(&store.disk, &abort)?;
        store.clean()?;
        if options.sync {
            // The killed process may not have synced the last of them, which count as synced from now on.
            store.flush_log()?;
        }
        let store = Arc::new(store);
        let log = EntryLog::start(&store, found.end, found.last, found.tail, options.sync)?;
        let committer = Committer::new(Arc::clone(&store));
        Ok(OpenedEntries { store, log, committer, damaged_below: found.damaged_below })
    }

    /// Returns where the log of a store that is not open begins.
    pub fn first_position(config: &StoreConfig, disk: &Disk) -> Result<PhysicalOffset> {
        let folder = &config.commit_log;
        let paths = disk.list(folder).map_err(|error| Error::io("list", folder, error))?;
        Ok(PhysicalOffset(paths.iter().find_map(|path| base_of(path)).unwrap_or(0)))
    }

    fn assemble(
        config: StoreConfig,
        disk: Disk,
        clock: Clock,
        listener: Listener,
        entries: bool,
    ) -> Result<Self> {
        let root = config.root.clone();
        for folder in [&root, &config.commit_log] {
            disk.make_folder(folder).map_err(|error| Error::io("make folder", folder, error))?;
        }
        let lock = disk.lock(&root.join("lock")).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => Error::Locked(root.clone()),
            _ => Error::io("lock", &root.join("lock"), error),
        })?;
        let checkpoint = Checkpoint::open(root.join("checkpoint"), disk.clone())?;
        let log = CommitLog::new(open_segments(&config, &disk)?, config.segment_bytes);
        let queues = ConsumeQueues::new(root.join("consumequeue"), config.queue_file_entries, disk.clone());
        let index = Index::new(
            root.join("index"),
            disk.clone(),
            clock.clone(),
            config.index_slots,
            config.index_entries,
        );
        Ok(Self {
            retention: RwLock::new(config.retention.clone()),
            config,
            disk,
            clock,
            log,
            queues,
            index,
            checkpoint,
            dispatched: AtomicU64::new(0),
            dispatched_timestamp: AtomicI64::new(0),
            checkpointed_ms: AtomicI64::new(0),
            checkpointing: std::sync::Mutex::new(()),
            deleting: std::sync::Mutex::new(()),
            full: AtomicBool::new(false),
            entries,
            wanted_min: AtomicU64::new(0),
            growing: std::sync::Mutex::new(()),
            failure: OnceLock::new(),
            latencies: super::Latencies { write: Histogram::of_latencies(), sync: Histogram::of_latencies() },
            damages: std::sync::Mutex::default(),
            listener,
            _lock: lock,
        })
    }

    fn recover(&self, clean: bool) -> Result<()> {
        let started = self.clock.instant();
        let state = self.checkpoint.state();
        let plan = self.plan(clean, &state)?;
        if self.config.index {
            self.index.load(plan.dispatch_from)?;
        }
        self.queues.load(plan.dispatch_from, self.log.min())?;
        self.dispatched_timestamp.store(state.log_timestamp, Ordering::Relaxed);

        let mut progress = self.clock.now_ms();
        let mut records = 0u64;
        let (end, reason) = self.scan_log(plan.scan_from, |record| {
            records += 1;
            if records.is_multiple_of(4096) && self.clock.now_ms() - progress > PROGRESS_INTERVAL_MS {
                progress = self.clock.now_ms();
                let last = self.log.segments().last().map_or(0, |segment| segment.end().0);
                tracing::info!(phy_offset = record.physical_offset.0, last, "recovering the log");
            }
            if record.physical_offset < plan.dispatch_from {
                return Ok(Ok(()));
            }
            if plan.strict && !self.follows(record) {
                return Ok(Err(RecordError::Order));
            }
            self.dispatch_record(record, Announce::No).map(Ok)
        })?;
        let closed_here = clean && state.ours.is_some_and(|ours| ours.flushed == end);
        if !closed_here {
            self.cut(end, &reason.map_or_else(String::new, |reason| reason.to_string()))?;
        }
        if end < plan.dispatch_from {
            tracing::error!(%end, dispatched = %plan.dispatch_from, "the log ends before what was dispatched");
            self.queues.cut(end)?;
        }
        self.index.clip(end);
        self.log.start_at(end, plan.scan_from);
        self.dispatched.store(end.0, Ordering::Release);
        if state.ours.is_some_and(|ours| ours.dispatched > end) {
            // When the log has grown past that position again, it would count for records that it never saw.
            self.checkpoint.write(CheckpointState::default())?;
        }
        if !clean || records > 0 {
            let elapsed_ms = self.clock.elapsed(started).as_millis();
            // The flush thread makes the checkpoint: syncing what the killed process left may take long.
            tracing::info!(from = %plan.scan_from, %end, records, elapsed_ms, clean, "recovered the log");
        }
        Ok(())
    }

    /// Decides where to begin.
    pub(super) fn plan(&self, clean: bool, state: &CheckpointState) -> Result<Plan> {
        let segments = self.log.segments();
        let min = self.log.min();
        let last = segments.last().map_or(min, |segment| segment.end());
        let queues_missing = !exists(&self.disk, &self.config.root.join("consumequeue"))?;
        if queues_missing {
            return Ok(Plan { scan_from: min, dispatch_from: min, strict: false });
        }
        if let Some(ours) = state.ours {
            let from = ours.flushed.min(ours.dispatched);
            if from >= min && from <= last && ours.dispatched <= last {
                return Ok(Plan { scan_from: from, dispatch_from: ours.dispatched, strict: true });
            }
            tracing::warn!(%from, %min, "the checkpoint does not fit the log; all of the log is read");
            return Ok(Plan { scan_from: min, dispatch_from: min, strict: false });
        }
        if clean {
            // Java closed the store: its queues hold everything, and it checks the last three files.
            let scan_from = segments
                .iter()
                .rev()
                .nth(2.min(segments.len().saturating_sub(1)))
                .map_or(min, |segment| segment.base());
            return Ok(Plan { scan_from, dispatch_from: self.java_dispatched(scan_from)?, strict: false });
        }
        let scan_from = self.java_scan_start(&segments, state);
        Ok(Plan { scan_from, dispatch_from: scan_from, strict: false })
    }

    /// Returns whether a record has the next offset of its queue. Damage to a record's head shows here: no CRC
    /// covers it.
    fn follows(&self, record: &Record<'_>) -> bool {
        if !record.sys_flag.is_queued() || !has_queue(record.topic, record.queue_id) {
            return true;
        }
        let queue = self.queues.get(&Topic::new(record.topic), QueueId(record.queue_id));
        record.queue_offset == queue.map_or(QueueOffset(0), |queue| queue.max_offset())
    }

    /// Returns the end of what Java had dispatched when it closed the store.
    fn java_dispatched(&self, scan_from: PhysicalOffset) -> Result<PhysicalOffset> {
        let queues = ConsumeQueues::new(
            self.config.root.join("consumequeue"),
            self.config.queue_file_entries,
            self.disk.clone(),
        );
        queues.load(PhysicalOffset(u64::MAX), self.log.min())?;
        let mut end = scan_from;
        for (_, _, queue) in queues.all() {
            let Some(last) = queue.max_offset().0.checked_sub(1) else { continue };
            if let Some(entry) = queue.entry(QueueOffset(last))? {
                end = end.max(PhysicalOffset(entry.position.0.saturating_add(u64::from(entry.size))));
            }
        }
        Ok(end)
    }

    /// Returns the start of the newest segment whose first message is surely in Java's queues and index.
    /// Source: RocketMQ `CommitLog.isMappedFileMatchedRecover`, `StoreCheckpoint.getMinTimestamp`.
    fn java_scan_start(&self, segments: &[Arc<Segment>], state: &CheckpointState) -> PhysicalOffset {
        let stored = state.log_timestamp.min(state.queue_timestamp).min(state.index_timestamp);
        let stored = stored.saturating_sub(3000);
        segments
            .iter()
            .rev()
            .find(|segment| {
                matches!(scan(segment.tail(segment.base()), segment.base()),
                    Scanned::Record(record) if record.store_timestamp <= stored)
            })
            .map_or(self.log.min(), |segment| segment.base())
    }

    /// Makes the log end at `end`, durably. Keeps what is cut off in `cut/`.
    pub(super) fn cut(&self, end: PhysicalOffset, reason: &str) -> Result<()> {
        for segment in self.log.segments() {
            if segment.end() <= end {
                continue;
            }
            let from = segment.base().max(end);
            let at = from.0 - segment.base().0;
            let used = segment
                .file()
                .last_used(at)
                .map_err(|error| Error::io("read the tail of segment", segment.path(), error))?;
            let Some(used) = used.and_then(|used| usize::try_from(used - at).ok()) else { continue };
            tracing::warn!(phy_offset = %from, bytes = used, reason, "cut off the tail of the log");
            self.keep_cut(from, &segment.tail(from)[..used.min(CUT_KEPT_MAX)])?;
            segment.zero_from(from)?;
            segment.release_memory();
        }
        Ok(())
    }

    fn keep_cut(&self, from: PhysicalOffset, bytes: &[u8]) -> Result<()> {
        let folder = self.config.root.join("cut");
        let path = folder.join(format!("{:020}-{}", from.0, self.clock.now_ms()));
        let failed = |error| Error::io("write", &path, error);
        self.disk.make_folder(&folder).map_err(failed)?;
        let file = self.disk.open(&path, true).map_err(failed)?;
        // A full disk must not keep the broker from starting.
        match file.write_all_at(bytes, 0).and_then(|()| file.sync_all()) {
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                tracing::warn!(path = %path.display(), "no room to keep what was cut off");
                Ok(())
            }
            other => other.map_err(failed),
        }
    }

    /// Returns the segment that the next record goes to; makes the first one.
    fn active_segment(&self) -> Result<Arc<Segment>> {
        self.ensure_segment(self.log.written())
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// Start of a record, or the end of the log.
    pub(super) scan_from: PhysicalOffset,
    /// Records below are in the derived files. Not below `scan_from`.
    pub(super) dispatch_from: PhysicalOffset,
    /// True if the queues are known up to `dispatch_from`, so that the offsets from there on can be checked.
    pub(super) strict: bool,
}

fn open_segments(config: &StoreConfig, disk: &Disk) -> Result<VecDeque<Arc<Segment>>> {
    let folder = &config.commit_log;
    let paths = disk.list(folder).map_err(|error| Error::io("list", folder, error))?;
    let files: Vec<(u64, PathBuf)> =
        paths.into_iter().filter_map(|path| Some((base_of(&path)?, path))).collect();
    let mut segments = VecDeque::new();
    for (number, (base, path)) in files.iter().enumerate() {
        let last = number + 1 == files.len();
        let len = disk
            .open(path, false)
            .and_then(|file| file.len())
            .map_err(|error| Error::io("open segment", path, error))?;
        if len != config.segment_bytes {
            if last && is_all_zero(disk, path)? {
                // The process died while it made the file; nothing was ever written to it.
                tracing::warn!(path = %path.display(), bytes = len, "unfinished segment removed");
                disk.remove(path).map_err(|error| Error::io("remove segment", path, error))?;
                break;
            }
            return Err(Error::Corrupt {
                path: path.clone(),
                reason: format!(
                    "has {len} bytes, but mappedFileSizeCommitLog is {}; set it to the size of the files",
                    config.segment_bytes
                ),
            });
        }
        let expected = segments.back().map_or(*base, |segment: &Arc<Segment>| segment.end().0);
        if *base != expected {
            return Err(Error::Corrupt {
                path: path.clone(),
                reason: format!(
                    "the segment {expected:020} before it is missing; put it back or move the later ones away"
                ),
            });
        }
        segments.push_back(Arc::new(Segment::open(disk, path, *base, config.segment_bytes)?));
    }
    Ok(segments)
}

fn is_all_zero(disk: &Disk, path: &Path) -> Result<bool> {
    let failed = |error| Error::io("read segment", path, error);
    let file = disk.open(path, false).map_err(failed)?;
    let len = file.len().map_err(failed)?;
    let mut bytes = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let read = file.read_at(&mut bytes, at).map_err(failed)?;
        if bytes[..read].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += read as u64;
    }
    Ok(true)
}

fn next_offsets(queues: &ConsumeQueues) -> HashMap<Topic, Vec<u64>> {
    let mut next: HashMap<Topic, Vec<u64>> = HashMap::new();
    for (topic, QueueId(id), queue) in queues.all() {
        let offsets = next.entry(topic).or_default();
        offsets.resize(offsets.len().max(id as usize + 1), 0);
        offsets[id as usize] = queue.max_offset().0;
    }
    next
}

pub(super) fn exists(disk: &Disk, path: &Path) -> Result<bool> {
    disk.exists(path).map_err(|error| Error::io("stat", path, error))
}

/// Marks the store as open, as Java does: the process id as text.
fn write_abort(disk: &Disk, path: &Path) -> Result<()> {
    let failed = |error| Error::io("write", path, error);
    let file = disk.open(path, true).map_err(failed)?;
    file.set_len(0).map_err(failed)?;
    file.write_all_at(std::process::id().to_string().as_bytes(), 0).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    match path.parent() {
        Some(folder) => disk.sync_folder(folder).map_err(failed),
        None => Ok(()),
    }
}
