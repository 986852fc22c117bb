//! The CommitLog: segments of records, one writer, many readers.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;

use super::checkpoint::CheckpointState;
use super::segment::Segment;
use super::{Draft, Error, Result, Store};
use crate::message::{BLANK_MIN, Record, Scanned, scan};
use crate::model::{PhysicalOffset, QueueId, QueueOffset, Topic};

/// The log as readers see it.
///
/// `min <= committed <= written` and `flushed <= written`. Readers get committed bytes only.
#[derive(Debug)]
pub struct CommitLog {
    segments: RwLock<VecDeque<Arc<Segment>>>,
    segment_bytes: u64,
    written: AtomicU64,
    flushed: AtomicU64,
    committed: AtomicU64,
    /// Held while syncing, so that two threads do not sync the same bytes.
    flushing: Mutex<()>,
}

impl CommitLog {
    pub(super) fn new(segments: VecDeque<Arc<Segment>>, segment_bytes: u64) -> Self {
        Self {
            segments: RwLock::new(segments),
            segment_bytes,
            written: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            flushing: Mutex::new(()),
        }
    }

    /// Declares everything below `end` written and committed, and below `flushed` durable. For recovery: what
    /// a killed process wrote is in the page cache, but maybe not on the disk.
    pub(super) fn start_at(&self, end: PhysicalOffset, flushed: PhysicalOffset) {
        self.written.store(end.0, Ordering::Release);
        self.flushed.store(flushed.min(end).0, Ordering::Release);
        self.committed.store(end.0, Ordering::Release);
    }

    /// Declares what is written and durable (`end`, `flushed`) and what of it readers may see.
    pub(super) fn start_entries_at(
        &self,
        end: PhysicalOffset,
        flushed: PhysicalOffset,
        committed: PhysicalOffset,
    ) {
        self.written.store(end.0, Ordering::Release);
        self.flushed.store(flushed.min(end).0, Ordering::Release);
        self.committed.store(committed.0, Ordering::Release);
    }

    pub(super) fn set_written(&self, end: PhysicalOffset) {
        self.written.store(end.0, Ordering::Release);
    }

    /// Takes back what was written behind `to`, which nobody may have seen. The bytes stay.
    pub(super) fn unwrite(&self, to: PhysicalOffset) {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(to >= self.committed(), "what is committed stays");
        self.written.store(to.0, Ordering::Release);
        self.flushed.store(self.flushed().min(to).0, Ordering::Release);
    }

    /// Forgets all segments; the log goes on at `base`.
    fn restart_at(&self, base: PhysicalOffset) -> Vec<Arc<Segment>> {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let segments = self.write_segments().drain(..).collect();
        for position in [&self.written, &self.flushed, &self.committed] {
            position.store(base.0, Ordering::Release);
        }
        segments
    }

    /// Returns the position of the first retained byte.
    pub fn min(&self) -> PhysicalOffset {
        self.read_segments().front().map_or(PhysicalOffset(0), |segment| segment.base())
    }

    /// Returns the end of what readers may see.
    pub fn committed(&self) -> PhysicalOffset {
        PhysicalOffset(self.committed.load(Ordering::Acquire))
    }

    /// Returns the end of what is on the disk for sure.
    pub fn flushed(&self) -> PhysicalOffset {
        PhysicalOffset(self.flushed.load(Ordering::Acquire))
    }

    /// Returns the end of what was written.
    pub fn written(&self) -> PhysicalOffset {
        PhysicalOffset(self.written.load(Ordering::Acquire))
    }

    /// Returns the record that starts at `position`, without a copy.
    ///
    /// `None` if the position is not retained, not committed, or no whole record starts there. May block on the disk.
    pub fn record(&self, position: PhysicalOffset) -> Option<Bytes> {
        let bytes = self.bytes_of(position)?;
        // The position may be a client's, so one without a record is no sign of damage.
        matches!(scan(&bytes, position), Scanned::Record(_)).then_some(bytes)
    }

    /// Like [`CommitLog::record`], without a look at the body.
    pub(super) fn bytes_of(&self, position: PhysicalOffset) -> Option<Bytes> {
        let segment = self.segment(position)?;
        let size = Record::decode(segment.tail(position)).ok()?.total_size;
        self.slice(position, size)
    }

    /// Returns `len` bytes from `position` within one segment, without a copy and without a look at them.
    ///
    /// `None` if they are not retained or not committed.
    pub fn slice(&self, position: PhysicalOffset, len: usize) -> Option<Bytes> {
        // Both may come from a file that is derived from the log, and damaged.
        if position.0.checked_add(len as u64)? > self.committed().0 {
            return None;
        }
        self.segment(position)?.slice(position, len)
    }

    /// Syncs all that is written and returns its end. Blocks on the disk.
    ///
    /// After an error the store must not be used any more: the kernel may have dropped the pages.
    pub(super) fn flush(&self) -> Result<PhysicalOffset> {
        let _one_at_a_time = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = (self.flushed(), self.written());
        if from >= to {
            return Ok(to);
        }
        let dirty: Vec<_> = self
            .read_segments()
            .iter()
            .filter(|segment| segment.base() < to && segment.end() > from)
            .cloned()
            .collect();
        for segment in dirty {
            segment.file().sync_data().map_err(|error| Error::io("sync segment", segment.path(), error))?;
        }
        self.flushed.store(to.0, Ordering::Release);
        Ok(to)
    }

    pub(super) fn commit(&self, end: PhysicalOffset) {
        assert!(end <= self.written(), "only what is written can be committed");
        self.committed.fetch_max(end.0, Ordering::AcqRel);
    }

    pub(super) fn segment(&self, position: PhysicalOffset) -> Option<Arc<Segment>> {
        let segments = self.read_segments();
        let first = segments.front()?.base().0;
        let number = usize::try_from(position.0.checked_sub(first)? / self.segment_bytes).ok()?;
        segments.get(number).cloned()
    }

    /// Returns the segments, oldest first.
    pub(super) fn segments(&self) -> Vec<Arc<Segment>> {
        self.read_segments().iter().cloned().collect()
    }

    /// Removes the oldest segment, if it is not the last one.
    pub(super) fn pop_oldest(&self) -> Option<Arc<Segment>> {
        let mut segments = self.write_segments();
        if segments.len() < 2 { None } else { segments.pop_front() }
    }

    fn read_segments(&self) -> std::sync::RwLockReadGuard<'_, VecDeque<Arc<Segment>>> {
        self.segments.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_segments(&self) -> std::sync::RwLockWriteGuard<'_, VecDeque<Arc<Segment>>> {
        self.segments.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a draft went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// Queue offset of the first record.
    pub queue_offset: QueueOffset,
    /// Position of the first record.
    pub position: PhysicalOffset,
    /// Where each record starts, counted from `position`.
    pub starts: Vec<u32>,
    /// Time of the append, milliseconds since 1970.
    pub store_timestamp: i64,
}

/// The only way to write the log. Assigns offsets as a pure function of what the log holds.
#[derive(Debug)]
pub struct Writer {
    store: Arc<Store>,
    active: Arc<Segment>,
    position: PhysicalOffset,
    store_timestamp: i64,
    next_offsets: HashMap<Topic, Vec<u64>>,
}

impl Writer {
    pub(super) fn new(
        store: Arc<Store>,
        active: Arc<Segment>,
        next_offsets: HashMap<Topic, Vec<u64>>,
        store_timestamp: i64,
    ) -> Self {
        let position = store.log.written();
        Self { store, active, position, store_timestamp, next_offsets }
    }

    /// Assigns offsets to the drafts, in order, and writes them. One result for each draft.
    ///
    /// Written is not flushed, and not visible until the [`super::Committer`] commits it. [`Error::Full`] and
    /// [`Error::TooLarge`] leave no trace of the draft; after another error the store is poisoned.
    pub fn append(&mut self, drafts: &mut [Draft]) -> Vec<Result<Appended>> {
        let mut results = Vec::with_capacity(drafts.len());
        let mut run = 0;
        while run < drafts.len() {
            let count = self.append_run(&mut drafts[run..], &mut results);
            run += count;
        }
        assert!(results.len() == drafts.len(), "every draft has its result");
        results
    }

    /// Forgets the queue offsets of a topic that was deleted; a topic of that name starts at 0 again.
    pub fn forget_topic(&mut self, topic: &Topic) {
        self.next_offsets.remove(topic);
    }

    /// Returns the store that is written.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Appends as many drafts as fit into the active segment, or refuses the first one.
    fn append_run(&mut self, drafts: &mut [Draft], results: &mut Vec<Result<Appended>>) -> usize {
        if let Err(error) = self.make_room(drafts[0].len()) {
            results.push(Err(error));
            return 1;
        }
        self.store_timestamp = self.store_timestamp.max(self.store.clock.now_ms());
        let start = self.position;
        let mut end = start;
        let mut taken = 0;
        let first_result = results.len();
        for draft in drafts.iter_mut() {
            if end.plus((draft.len() + BLANK_MIN) as u64) > self.active.end() {
                break;
            }
            results.push(Ok(self.assign(draft, end)));
            end = end.plus(draft.len() as u64);
            taken += 1;
        }
        let parts: Vec<&[u8]> = drafts[..taken].iter().map(|draft| &draft.bytes[..]).collect();
        match self.write(start, &parts) {
            Ok(()) => {
                self.position = end;
                self.store.log.written.store(end.0, Ordering::Release);
            }
            Err(error) => {
                for draft in drafts[..taken].iter().rev() {
                    self.unassign(draft);
                }
                let reason = error.to_string();
                let full = matches!(error, Error::Full { .. });
                if !full {
                    self.store.poison(&reason);
                }
                for result in &mut results[first_result..] {
                    *result = Err(if full {
                        Error::Full { path: self.active.path().to_owned(), reason: reason.clone() }
                    } else {
                        Error::Poisoned(reason.clone())
                    });
                }
            }
        }
        taken
    }

    fn write(&self, start: PhysicalOffset, parts: &[&[u8]]) -> Result<()> {
        let started = self.store.clock.instant();
        let written = self
            .active
            .file()
            .write_all_vectored_at(parts, start.0 - self.active.base().0)
            .map_err(|error| Error::io("write segment", self.active.path(), error));
        self.store.latencies.write.observe(self.store.clock.elapsed(started));
        written
    }

    fn make_room(&mut self, len: usize) -> Result<()> {
        self.store.check_usable()?;
        let segment_bytes = self.store.config.segment_bytes;
        if (len + BLANK_MIN) as u64 > segment_bytes {
            return Err(Error::TooLarge { bytes: len, segment_bytes });
        }
        if self.store.is_full() {
            let path = self.store.config.commit_log.clone();
            return Err(Error::Full {
                path,
                reason: "the used space is above diskSpaceWarningLevelRatio".into(),
            });
        }
        if self.position.plus((len + BLANK_MIN) as u64) > self.active.end() {
            self.roll()?;
        }
        Ok(())
    }

    /// Starts the next segment. Nothing has changed if that fails.
    fn roll(&mut self) -> Result<()> {
        let next = self.store.ensure_segment(self.active.end())?;
        self.active.fill_from(self.position)?;
        self.position = self.active.end();
        self.active = next;
        self.store.log.written.store(self.position.0, Ordering::Release);
        Ok(())
    }

    fn assign(&mut self, draft: &mut Draft, position: PhysicalOffset) -> Appended {
        let count = draft.count() as u64;
        let first = match self.next_offset(&draft.topic, draft.queue_id) {
            next if draft.queued => std::mem::replace(next, *next + count),
            _ => 0,
        };
        draft.place(QueueOffset(first), position, self.store_timestamp)
    }

    fn unassign(&mut self, draft: &Draft) {
        if draft.queued {
            *self.next_offset(&draft.topic, draft.queue_id) -= draft.count() as u64;
        }
    }

    fn next_offset(&mut self, topic: &Topic, queue_id: QueueId) -> &mut u64 {
        if !self.next_offsets.contains_key(topic) {
            self.next_offsets.insert(topic.clone(), Vec::new());
        }
        let queues = self.next_offsets.get_mut(topic).expect("the topic was just put there");
        let number = queue_id.0 as usize;
        if queues.len() <= number {
            queues.resize(number + 1, 0);
        }
        &mut queues[number]
    }
}

impl Store {
    /// Returns the segment that starts at `base`, which is the end of the last one; makes it if need be.
    pub(super) fn ensure_segment(&self, base: PhysicalOffset) -> Result<Arc<Segment>> {
        let _one_at_a_time = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        self.grow(base)
    }

    /// The caller holds `growing`.
    fn grow(&self, base: PhysicalOffset) -> Result<Arc<Segment>> {
        if let Some(segment) = self.log.segment(base) {
            return Ok(segment);
        }
        let folder = &self.config.commit_log;
        let segment = Arc::new(Segment::create(&self.disk, folder, base.0, self.config.segment_bytes)?);
        self.log.write_segments().push_back(Arc::clone(&segment));
        Ok(segment)
    }

    /// Returns the segment that `position` is in; makes it if it is the next one.
    pub(super) fn ensure_segment_of(&self, position: PhysicalOffset) -> Result<Arc<Segment>> {
        let end = self.segment_end(position).0;
        self.ensure_segment(PhysicalOffset(end - self.config.segment_bytes))
    }

    /// Takes the log back to `to`, durably: nothing behind it can be found again.
    pub(super) fn cut_written(&self, to: PhysicalOffset) -> Result<()> {
        self.log.unwrite(to);
        for segment in self.log.segments() {
            if segment.end() > to {
                segment.zero_from(segment.base().max(to))?;
            }
        }
        Ok(())
    }

    /// Throws away the log and all that is derived from it; it goes on at `base`.
    pub(super) fn restart_at(&self, base: PhysicalOffset) -> Result<()> {
        let _one_at_a_time = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        let _no_checkpoint = self.checkpointing.lock().unwrap_or_else(PoisonError::into_inner);
        self.checkpoint.write(CheckpointState::default())?;
        // A segment that is just being made would come behind the new ones.
        let _no_growth = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        for segment in self.log.restart_at(base) {
            let path = segment.path();
            self.disk.remove(path).map_err(|error| Error::io("remove segment", path, error))?;
        }
        let folder = &self.config.commit_log;
        self.disk.sync_folder(folder).map_err(|error| Error::io("sync folder", folder, error))?;
        self.queues.clear()?;
        self.index.clear()?;
        self.dispatched.store(base.0, Ordering::Release);
        self.grow(base).map(|_| ())
    }

    /// Makes the next segment when the one being written is half full, so that no send waits for it.
    pub(super) fn prepare_segment(&self) -> Result<()> {
        let _one_at_a_time = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.log.written();
        match self.log.segment(written) {
            Some(active) if written.0 - active.base().0 > self.config.segment_bytes / 2 => {
                self.grow(active.end()).map(|_| ())
            }
            _ => Ok(()),
        }
    }
}
