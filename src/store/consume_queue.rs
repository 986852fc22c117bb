//! ConsumeQueues: which record is the n-th message of a queue.
//!
//! | field | bytes | at |
//! |---|---|---|
//! | physical offset | 8 | 0 |
//! | size of the record | 4 | 8 |
//! | tagsCode | 8 | 12 |
//!
//! Big-endian; an entry's number is its queue offset. Derived from the log: entries that were not yet written
//! to the file when the process died are made again by recovery. Source: RocketMQ `ConsumeQueue`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::segment::{base_of, path_of};
use super::{Error, Result};
use crate::env::{Disk, File};
use crate::model::{PhysicalOffset, QueueId, QueueOffset, Topic};

/// Bytes of an entry.
pub(super) const ENTRY_BYTES: u64 = 20;
const ENTRY_LEN: usize = ENTRY_BYTES as usize;
/// Entries that may wait in memory before they are written without waiting for the next flush.
const UNWRITTEN_MAX: usize = 4096;
/// Written entries of an active queue that stay in memory, so that readers at its end need no file.
const KEPT: usize = 1024;
/// Size of the entries that Java writes before the first message of a queue that does not start at 0.
const PRE_BLANK_SIZE: u32 = i32::MAX as u32;

/// Where one message of a queue is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueEntry {
    /// Where the record starts.
    pub position: PhysicalOffset,
    /// Length of the record.
    pub size: u32,
    /// Hash of the tag, or the delivery time in the delay topic.
    pub tags_code: i64,
}

impl QueueEntry {
    fn to_bytes(self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..8].copy_from_slice(&self.position.0.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.size.to_be_bytes());
        bytes[12..].copy_from_slice(&self.tags_code.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ENTRY_LEN]) -> Self {
        let (position, rest) = bytes.split_first_chunk().expect("an entry has 20 bytes");
        let (size, tags_code) = rest.split_first_chunk().expect("an entry has 20 bytes");
        Self {
            position: PhysicalOffset(u64::from_be_bytes(*position)),
            size: u32::from_be_bytes(*size),
            tags_code: i64::from_be_bytes(tags_code.try_into().expect("an entry has 20 bytes")),
        }
    }

    /// True for the filler in front of a queue's first message.
    fn is_pre_blank(&self) -> bool {
        self.size == PRE_BLANK_SIZE
    }
}

/// The entries of one queue.
#[derive(Debug)]
pub struct ConsumeQueue {
    folder: PathBuf,
    file_entries: u64,
    disk: Disk,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// First offset whose record is retained.
    min: u64,
    /// Offset of `tail[0]`.
    tail_start: u64,
    tail: VecDeque<QueueEntry>,
    /// Entries below are in the file.
    written: u64,
    /// Entries below are durable.
    synced: u64,
    /// True if files were made, cut or removed since the last sync.
    files_changed: bool,
    /// True if entries came since the last flush.
    active: bool,
    /// Set when the queue's topic is deleted: nothing is written any more.
    deleted: bool,
}

impl State {
    fn max(&self) -> u64 {
        self.tail_start + self.tail.len() as u64
    }

    fn begin_sync(&mut self) -> Unsynced {
        Unsynced { written: self.written, files_changed: std::mem::take(&mut self.files_changed) }
    }

    fn start_at(&mut self, offset: u64) {
        let files_changed = self.files_changed;
        *self = Self {
            min: offset,
            tail_start: offset,
            written: offset,
            synced: offset,
            files_changed,
            ..Self::default()
        };
    }
}

/// What a sync makes durable.
struct Unsynced {
    written: u64,
    files_changed: bool,
}

impl ConsumeQueue {
    fn new(folder: PathBuf, file_entries: u64, disk: Disk) -> Self {
        Self { folder, file_entries, disk, state: Mutex::default() }
    }

    /// Returns the offset of the first retained message.
    pub fn min_offset(&self) -> QueueOffset {
        let state = self.lock();
        QueueOffset(state.min)
    }

    /// Returns the offset behind the last message.
    pub fn max_offset(&self) -> QueueOffset {
        QueueOffset(self.lock().max())
    }

    /// Returns up to `count` entries from `offset`; none if `offset` is outside of min and max.
    ///
    /// May block on the disk for entries that are not at the end of the queue.
    pub fn entries(&self, offset: QueueOffset, count: usize) -> Result<Vec<QueueEntry>> {
        let (from, to) = {
            let state = self.lock();
            if offset.0 < state.min || offset.0 >= state.max() {
                return Ok(Vec::new());
            }
            let to = state.max().min(offset.0 + count as u64);
            if offset.0 >= state.tail_start {
                let at = usize::try_from(offset.0 - state.tail_start).unwrap_or(usize::MAX);
                return Ok(state.tail.iter().skip(at).take(count).copied().collect());
            }
            (offset.0, to.min(state.tail_start))
        };
        self.read_file(from, to)
    }

    /// Returns whether reading from `offset` needs no file.
    pub fn is_in_memory(&self, offset: QueueOffset) -> bool {
        let state = self.lock();
        offset.0 >= state.tail_start || offset.0 < state.min
    }

    /// Returns one entry, or `None` outside of min and max.
    pub fn entry(&self, offset: QueueOffset) -> Result<Option<QueueEntry>> {
        Ok(self.entries(offset, 1)?.first().copied())
    }

    /// Adds the entry of a record whose queue offset is `offset`. Entries that are there already are kept.
    pub(super) fn put(&self, offset: QueueOffset, entry: QueueEntry) -> Result<()> {
        let mut state = self.lock();
        if offset.0 < state.max() {
            let known = self.known(&state, offset.0)?;
            if known.is_none_or(|known| known.position >= entry.position && !known.is_pre_blank()) {
                return Ok(());
            }
            // A later record has an earlier offset: the topic was deleted and made again in between.
            tracing::warn!(folder = %self.folder.display(), %offset, "queue starts again after its deletion");
            self.remove_files()?;
            state.start_at(offset.0);
        } else if offset.0 > state.max() {
            if state.max() > 0 {
                tracing::error!(
                    folder = %self.folder.display(), %offset, max = state.max(),
                    "queue has a hole; reads go on behind it"
                );
                self.remove_files()?;
            }
            state.start_at(offset.0);
        }
        state.tail.push_back(entry);
        state.active = true;
        if state.max() - state.written >= UNWRITTEN_MAX as u64 {
            // A full disk keeps the entries in memory; the next flush tries again.
            let _ = self.write_out(&mut state);
        }
        Ok(())
    }

    /// Writes entries to the files. `true` if there is anything to sync.
    pub(super) fn flush(&self) -> Result<bool> {
        let mut state = self.lock();
        self.write_out(&mut state)?;
        let keep = if std::mem::take(&mut state.active) { KEPT } else { 0 };
        let extra = state.tail.len().saturating_sub(keep);
        state.tail.drain(..extra);
        state.tail_start += extra as u64;
        if state.tail.is_empty() {
            state.tail.shrink_to_fit();
        }
        Ok(state.written > state.synced || state.files_changed)
    }

    /// Syncs what [`ConsumeQueue::flush`] wrote.
    pub(super) fn sync(&self) -> Result<()> {
        let (from, Unsynced { written, files_changed }) = {
            let mut state = self.lock();
            if state.deleted {
                return Ok(());
            }
            (state.synced, state.begin_sync())
        };
        let synced = self.sync_files(from, written, files_changed);
        match synced {
            Ok(()) => self.mark_synced(written),
            Err(_) => self.lock().files_changed |= files_changed,
        }
        synced
    }

    fn sync_files(&self, from: u64, to: u64, files_changed: bool) -> Result<()> {
        let mut at = from;
        // The file that the next entry goes to may have been cut.
        while at < to || (files_changed && at == to) {
            let path = self.path_of(at);
            match self.disk.open(&path, false) {
                Ok(file) => file.sync_all().map_err(|error| Error::io("sync queue file", &path, error))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && at == to => {}
                Err(error) => return Err(Error::io("open queue file", &path, error)),
            }
            at = (at / self.file_entries + 1) * self.file_entries;
        }
        if !files_changed {
            return Ok(());
        }
        // Names of files, of the queue's folder, the topic's, and that of all queues.
        let folders = self.folder.ancestors().take(4);
        for folder in folders {
            match self.disk.sync_folder(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("sync folder", folder, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn mark_synced(&self, to: u64) {
        let mut state = self.lock();
        state.synced = state.synced.max(to.min(state.written));
    }

    /// Returns the end of what a sync that begins now makes durable.
    pub(super) fn begin_sync(&self) -> u64 {
        self.lock().begin_sync().written
    }

    /// Moves min up to the first record at or behind `log_min` and deletes files below it.
    pub(super) fn expire(&self, log_min: PhysicalOffset) -> Result<()> {
        let (min, max) = {
            let state = self.lock();
            (state.min, state.max())
        };
        let first = self.first_at_or_after(min, max, log_min)?;
        self.lock().min = first;
        let keep = first.min(max.saturating_sub(1)) / self.file_entries * self.file_entries;
        for path in self.disk.list(&self.folder).map_err(|e| Error::io("list", &self.folder, e))? {
            if base_of(&path).is_some_and(|base| base / ENTRY_BYTES < keep) {
                self.disk.remove(&path).map_err(|error| Error::io("remove queue file", &path, error))?;
            }
        }
        Ok(())
    }

    /// Returns the first offset whose record starts behind `position`.
    pub(super) fn first_behind(&self, position: PhysicalOffset) -> Result<QueueOffset> {
        let (min, max) = {
            let state = self.lock();
            (state.min, state.max())
        };
        self.first_at_or_after(min, max, position.plus(1)).map(QueueOffset)
    }

    /// Returns the first offset of `from..to` whose record is at or behind `position`.
    fn first_at_or_after(&self, mut from: u64, mut to: u64, position: PhysicalOffset) -> Result<u64> {
        while from < to {
            let middle = from + (to - from) / 2;
            let entry = self.entry_unbounded(middle)?;
            if entry.is_some_and(|entry| entry.is_pre_blank() || entry.position < position) {
                from = middle + 1;
            } else {
                to = middle;
            }
        }
        Ok(from)
    }

    /// Finds the bounds of a queue that is being opened: entries for records below `end` count.
    ///
    /// They are durable and without a hole, so binary search finds their end.
    fn load(&self, end: PhysicalOffset, log_min: PhysicalOffset) -> Result<()> {
        let files: Vec<u64> = self
            .disk
            .list(&self.folder)
            .map_err(|error| Error::io("list", &self.folder, error))?
            .iter()
            .filter_map(|path| base_of(path))
            .map(|base| base / ENTRY_BYTES)
            .collect();
        let Some(first_file) = files.first().copied() else { return Ok(()) };
        // Only files that follow each other without a gap belong to the queue.
        let count =
            files.iter().zip(0u64..).take_while(|(f, n)| **f == first_file + n * self.file_entries).count();
        let (mut from, mut to) = (first_file, first_file + count as u64 * self.file_entries);
        while from < to {
            let middle = from + (to - from) / 2;
            let good = self
                .read_file(middle, middle + 1)?
                .first()
                .is_some_and(|e| e.size > 0 && (e.is_pre_blank() || e.position < end));
            if good { from = middle + 1 } else { to = middle }
        }
        let max = from;
        self.lock().start_at(max);
        // Durable with the next checkpoint, which would make what is cut off count again.
        let cut = self.cut_files(max)?;
        self.lock().files_changed |= cut;
        let min = self.first_at_or_after(first_file, max, log_min)?;
        self.lock().min = min;
        Ok(())
    }

    /// Removes what stands behind `max`, so that it cannot be taken for entries later. Returns whether there was anything.
    fn cut_files(&self, max: u64) -> Result<bool> {
        let mut cut = false;
        for path in self.disk.list(&self.folder).map_err(|e| Error::io("list", &self.folder, e))? {
            let Some(base) = base_of(&path) else { continue };
            let first = base / ENTRY_BYTES;
            if first > max {
                cut = true;
                self.disk.remove(&path).map_err(|error| Error::io("remove queue file", &path, error))?;
            } else if first + self.file_entries > max {
                let file =
                    self.disk.open(&path, false).map_err(|e| Error::io("open queue file", &path, e))?;
                let at = (max - first) * ENTRY_BYTES;
                let size = self.file_entries * ENTRY_BYTES;
                let len = file.len().map_err(|error| Error::io("stat queue file", &path, error))?;
                let used = file.last_used(at).map_err(|error| Error::io("read queue file", &path, error))?;
                if len != size || used.is_some() {
                    cut = true;
                    file.set_len(at)
                        .and_then(|()| file.set_len(size))
                        .map_err(|error| Error::io("cut queue file", &path, error))?;
                }
            }
        }
        Ok(cut)
    }

    fn remove_files(&self) -> Result<()> {
        for path in self.disk.list(&self.folder).map_err(|e| Error::io("list", &self.folder, e))? {
            self.disk.remove(&path).map_err(|error| Error::io("remove queue file", &path, error))?;
        }
        Ok(())
    }

    fn known(&self, state: &State, offset: u64) -> Result<Option<QueueEntry>> {
        match offset.checked_sub(state.tail_start) {
            Some(at) => Ok(usize::try_from(at).ok().and_then(|at| state.tail.get(at)).copied()),
            None if offset < state.min => Ok(None),
            None => Ok(self.read_file(offset, offset + 1)?.first().copied()),
        }
    }

    fn entry_unbounded(&self, offset: u64) -> Result<Option<QueueEntry>> {
        let from_tail = {
            let state = self.lock();
            offset.checked_sub(state.tail_start).map(|at| state.tail.get(usize::try_from(at).ok()?).copied())
        };
        match from_tail {
            Some(entry) => Ok(entry),
            None => Ok(self.read_file(offset, offset + 1)?.first().copied()),
        }
    }

    fn read_file(&self, from: u64, to: u64) -> Result<Vec<QueueEntry>> {
        let to = to.min((from / self.file_entries + 1) * self.file_entries);
        let path = self.path_of(from);
        let file =
            self.disk.open(&path, false).map_err(|error| Error::io("open queue file", &path, error))?;
        let len = usize::try_from((to - from) * ENTRY_BYTES).expect("a file of entries fits into memory");
        let mut bytes = vec![0; len];
        let read = file
            .read_at(&mut bytes, from % self.file_entries * ENTRY_BYTES)
            .map_err(|error| Error::io("read queue file", &path, error))?;
        let (entries, _) = bytes[..read].as_chunks::<ENTRY_LEN>();
        Ok(entries.iter().map(QueueEntry::from_bytes).collect())
    }

    fn write_out(&self, state: &mut State) -> Result<()> {
        if state.deleted {
            return Ok(());
        }
        while state.written < state.max() {
            let from = state.written;
            let to = state.max().min((from / self.file_entries + 1) * self.file_entries);
            let at = usize::try_from(from - state.tail_start).expect("unwritten entries are in the tail");
            let count = usize::try_from(to - from).expect("the tail fits into memory");
            let mut bytes = Vec::with_capacity(count * ENTRY_LEN);
            for entry in state.tail.range(at..at + count) {
                bytes.extend(entry.to_bytes());
            }
            let path = self.path_of(from);
            let failed = |error| Error::io("write queue file", &path, error);
            let file = match self.disk.open(&path, false) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    state.files_changed = true;
                    self.disk.make_folder_unsynced(&self.folder).map_err(failed)?;
                    let file = self.disk.open(&path, true).map_err(failed)?;
                    file.set_len(self.file_entries * ENTRY_BYTES).map_err(failed)?;
                    pre_blank(&file, from % self.file_entries).map_err(failed)?;
                    file
                }
                Err(error) => return Err(failed(error)),
            };
            file.write_all_at(&bytes, from % self.file_entries * ENTRY_BYTES).map_err(failed)?;
            state.written = to;
        }
        Ok(())
    }

    fn path_of(&self, entry: u64) -> PathBuf {
        path_of(&self.folder, entry / self.file_entries * self.file_entries * ENTRY_BYTES)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fills a new file up to the first entry, so that Java's recovery does not take it for empty.
/// Source: RocketMQ `ConsumeQueue.fillPreBlank`.
fn pre_blank(file: &File, entries: u64) -> std::io::Result<()> {
    let blank = QueueEntry { position: PhysicalOffset(0), size: PRE_BLANK_SIZE, tags_code: 0 }.to_bytes();
    let bytes = blank.repeat(usize::try_from(entries).unwrap_or(0));
    file.write_all_at(&bytes, 0)
}

/// All queues of a store, by topic and queue id.
#[derive(Debug)]
pub struct ConsumeQueues {
    folder: PathBuf,
    file_entries: u64,
    disk: Disk,
    topics: RwLock<HashMap<Topic, Vec<Option<Arc<ConsumeQueue>>>>>,
}

impl ConsumeQueues {
    pub(super) fn new(folder: PathBuf, file_entries: u64, disk: Disk) -> Self {
        Self { folder, file_entries, disk, topics: RwLock::default() }
    }

    /// Returns a queue, if a message was ever stored in it.
    pub fn get(&self, topic: &Topic, queue_id: QueueId) -> Option<Arc<ConsumeQueue>> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        topics.get(topic)?.get(queue_id.0 as usize)?.clone()
    }

    /// Returns all queues, in the order of topic and queue id.
    pub fn all(&self) -> Vec<(Topic, QueueId, Arc<ConsumeQueue>)> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = topics
            .iter()
            .flat_map(|(topic, queues)| {
                (0u32..).zip(queues).filter_map(move |(id, q)| Some((topic.clone(), QueueId(id), q.clone()?)))
            })
            .collect();
        all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        all
    }

    /// Returns the names of all topics with messages.
    pub fn topics(&self) -> Vec<Topic> {
        let topics = self.topics.read().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = topics.keys().cloned().collect();
        names.sort();
        names
    }

    pub(super) fn get_or_create(&self, topic: &Topic, queue_id: QueueId) -> Arc<ConsumeQueue> {
        if let Some(queue) = self.get(topic, queue_id) {
            return queue;
        }
        let folder = self.folder.join(topic.as_str()).join(queue_id.to_string());
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let queues = topics.entry(topic.clone()).or_default();
        let number = queue_id.0 as usize;
        if queues.len() <= number {
            queues.resize(number + 1, None);
        }
        Arc::clone(
            queues[number].get_or_insert_with(|| {
                Arc::new(ConsumeQueue::new(folder, self.file_entries, self.disk.clone()))
            }),
        )
    }

    /// Opens every queue below the folder. Entries for records at or behind `end` are cut off.
    pub(super) fn load(&self, end: PhysicalOffset, log_min: PhysicalOffset) -> Result<()> {
        for topic_folder in self.list(&self.folder)? {
            let Some(topic) = name_of(&topic_folder).map(Topic::new) else { continue };
            for queue_folder in self.list(&topic_folder)? {
                let id = name_of(&queue_folder).and_then(|name| name.parse().ok());
                // A folder that is no queue number is not ours.
                let Some(id) = id.filter(|id| has_queue(topic.as_str(), *id)) else { continue };
                self.get_or_create(&topic, QueueId(id)).load(end, log_min)?;
            }
        }
        Ok(())
    }

    /// Cuts off the entries of records at or behind `end`.
    pub(super) fn cut(&self, end: PhysicalOffset) -> Result<()> {
        for (_, _, queue) in self.all() {
            queue.flush()?;
            let min = queue.min_offset().0;
            let max = queue.first_at_or_after(min, queue.max_offset().0, end)?;
            let cut = queue.cut_files(max)?;
            let mut state = queue.lock();
            state.start_at(max);
            state.files_changed |= cut;
            state.min = min.min(max);
        }
        Ok(())
    }

    /// Removes all queues and their files, those that were not loaded too.
    pub(super) fn clear(&self) -> Result<()> {
        let folders = self.list(&self.folder)?;
        let on_disk = folders.iter().filter_map(|folder| name_of(folder)).map(Topic::new);
        let topics: BTreeSet<Topic> = self.topics().into_iter().chain(on_disk).collect();
        topics.iter().try_for_each(|topic| self.remove_topic(topic))
    }

    /// Makes a queue that holds nothing and never did go on at `offset`.
    pub(super) fn seed(&self, topic: &Topic, queue_id: QueueId, offset: QueueOffset) {
        if !has_queue(topic.as_str(), queue_id.0) {
            return;
        }
        let queue = self.get_or_create(topic, queue_id);
        let mut state = queue.lock();
        if state.max() == 0 {
            state.start_at(offset.0);
        }
    }

    /// Removes a topic's queues and their files, durably: they must not come back beside a new topic of that name.
    pub(super) fn remove_topic(&self, topic: &Topic) -> Result<()> {
        if !has_queue(topic.as_str(), 0) {
            return Ok(());
        }
        let removed = self.topics.write().unwrap_or_else(PoisonError::into_inner).remove(topic);
        for queue in removed.into_iter().flatten().flatten() {
            queue.lock().deleted = true;
        }
        let folder = self.folder.join(topic.as_str());
        match self.disk.remove_folder(&folder).and_then(|()| self.disk.sync_folder(&self.folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove queue folder", &folder, error))
            }
            _ => Ok(()),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        self.disk.list(folder).map_err(|error| Error::io("list", folder, error))
    }
}

/// No topic has more queues; bounds the table against a folder with a huge number as its name.
const QUEUES_MAX: u32 = 1 << 20;
/// Longest name of a folder.
const NAME_MAX: usize = 255;

/// Returns whether there can be a queue of that number of that topic. The name of a topic is that of a folder, so one
/// that leads elsewhere has no queues, whoever wrote it into a record or wants it deleted.
pub(super) fn has_queue(topic: &str, queue_id: u32) -> bool {
    let is_name = !matches!(topic, "" | "." | "..") && !topic.contains(['/', '\0']);
    is_name && topic.len() <= NAME_MAX && queue_id < QUEUES_MAX
}

fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}
