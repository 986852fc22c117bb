//! The Raft log over the CommitLog: entries in, entries out.
//!
//! Appending does no I/O on the caller's thread: a place is assigned, the bytes go to the end of the log in memory,
//! where they can be read at once, and to the thread `log-writer`, which writes them; `log-syncer` syncs what was written
//! since its last sync and tells so. Places are a pure function of the log before, so every replica has the same bytes at
//! the same positions. Nothing here is visible to clients; that is [`super::Committer`]'s business.
//!
//! Entries up to the applied one are found through the ConsumeQueue of `RMQ_SYS_RAFT_LOG`, the later ones in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::commit_log::Appended;
use super::consume_queue::has_queue;
use super::entry::{
    EntryHead, EntryKind, EntryParts, decode_entry, decode_head, encode_entry, entry_record_len,
};
use super::entry_writer::{EntryWriter, Flushed, Job};
use super::{Draft, EntryError, Error, QueueEntry, Result, Store};
use crate::env::KnownBad;
use crate::message::{BLANK_MIN, records};
use crate::model::{LogIndex, PhysicalOffset, QueueId, QueueOffset, Term, Topic, system_topic};

/// Bytes of written entries that stay in memory until they are applied.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// An entry's bytes and where they belong.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    /// Its place in the Raft log.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// What it is.
    pub kind: EntryKind,
    /// Where the entry record starts.
    pub position: PhysicalOffset,
    /// Entry record and message records.
    pub bytes: Bytes,
}

/// Names an entry and everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryId {
    /// Its place in the Raft log.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
    /// Its CRC, which covers those of all entries before it.
    pub crc: u32,
}

/// What a leader makes an entry of.
#[derive(Debug)]
pub struct NewEntry<'a> {
    /// Its place in the Raft log.
    pub index: LogIndex,
    /// The leader's term.
    pub term: Term,
    /// What it is.
    pub kind: EntryKind,
    /// For the layer above.
    pub command: &'a [u8],
    /// Topics whose queues start at 0 behind this entry.
    pub forgotten: &'a [Topic],
    /// Messages; offsets are filled in.
    pub drafts: &'a mut [Draft],
}

/// What of an entry is checked when it is read from the file. What is in memory is as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// All of it: others will have it.
    Whole,
    /// The entry record, if the messages are visible already: nobody looks at them again.
    Head,
}

/// The Raft log.
#[derive(Debug)]
pub struct EntryLog {
    store: Arc<Store>,
    state: Mutex<State>,
    writer: EntryWriter,
}

#[derive(Debug)]
struct State {
    /// Where the next entry goes, unless it needs the next segment.
    end: PhysicalOffset,
    last: Option<EntryId>,
    /// The entries behind the applied one.
    tail: VecDeque<TailEntry>,
    /// Bytes that the tail holds.
    kept: usize,
    offsets: Offsets,
    store_timestamp: i64,
}

#[derive(Debug, Clone)]
pub(super) struct TailEntry {
    pub(super) id: EntryId,
    pub(super) kind: EntryKind,
    pub(super) position: PhysicalOffset,
    pub(super) len: usize,
    /// `None` for entries that are read from the file.
    pub(super) bytes: Option<Bytes>,
}

impl EntryLog {
    pub(super) fn start(
        store: &Arc<Store>,
        end: PhysicalOffset,
        last: Option<EntryId>,
        tail: VecDeque<TailEntry>,
        sync: bool,
    ) -> Result<Self> {
        let state = State {
            end,
            last,
            kept: 0,
            // The queues do not know of the entries that are not visible.
            offsets: Offsets { stale: !tail.is_empty(), ..Offsets::default() },
            tail,
            store_timestamp: store.dispatched_timestamp.load(Ordering::Relaxed),
        };
        Ok(Self {
            store: Arc::clone(store),
            state: Mutex::new(state),
            writer: EntryWriter::start(store, sync)?,
        })
    }

    /// Returns the last entry, or `None` if the log has none.
    pub fn last(&self) -> Option<EntryId> {
        self.lock().last
    }

    /// Returns the end of the log, written or not.
    pub fn end(&self) -> PhysicalOffset {
        self.lock().end
    }

    /// Returns the first retained entry's index, or `None` if the log has none.
    pub fn first_index(&self) -> Option<LogIndex> {
        if let Some(queue) = self.queue()
            && queue.min_offset() < queue.max_offset()
        {
            return Some(LogIndex(queue.min_offset().0));
        }
        self.lock().tail.front().map(|entry| entry.id.index)
    }

    /// Returns the longest draft that fits into an entry.
    pub fn draft_max(&self) -> usize {
        let segment = usize::try_from(self.store.config.segment_bytes).unwrap_or(usize::MAX);
        segment.saturating_sub(entry_record_len(&[], &[]) + BLANK_MIN)
    }

    /// Makes an entry and gives it its place. Returns where each draft went.
    ///
    /// The entry can be read when this returns; it is not yet written.
    pub fn append(&self, entry: NewEntry<'_>) -> Result<Vec<Appended>> {
        self.store.check_usable()?;
        let NewEntry { index, term, kind, command, forgotten, drafts } = entry;
        let mut state = self.lock();
        let messages_len: usize = drafts.iter().map(Draft::len).sum();
        let record_len = entry_record_len(forgotten, command);
        let (filler, position) = self.place(state.end, record_len + messages_len)?;
        state.store_timestamp = state.store_timestamp.max(self.store.clock.now_ms());
        let store_timestamp = state.store_timestamp;
        state.refresh_offsets(&self.store)?;
        let mut appended = Vec::with_capacity(drafts.len());
        let mut crc = crc32fast::Hasher::new();
        let mut at = position.plus(record_len as u64);
        let mut count = 0;
        for draft in drafts.iter_mut() {
            appended.push(state.offsets.assign(&self.store, draft, at, store_timestamp));
            crc.update(&draft.bytes);
            at = at.plus(draft.len() as u64);
            count += draft.count();
        }
        forgotten.iter().for_each(|topic| state.offsets.forget(topic));
        let mut bytes = Vec::with_capacity(record_len + messages_len);
        let crc = encode_entry(
            &EntryParts {
                kind,
                index,
                term,
                position,
                previous_crc: state.last.map_or(0, |last| last.crc),
                count: u32::try_from(count).expect("an entry has few messages"),
                messages_len,
                messages_crc: crc.finalize(),
                forgotten,
                command,
                store_timestamp,
            },
            &mut bytes,
        );
        drafts.iter().for_each(|draft| bytes.extend_from_slice(&draft.bytes));
        self.push(&mut state, EntryId { index, term, crc }, kind, position, filler, bytes.into());
        Ok(appended)
    }

    /// Puts an entry of another replica in. It must follow the last one, byte for byte.
    pub fn append_stored(&self, bytes: Bytes) -> Result<()> {
        self.store.check_usable()?;
        let position = position_of(&bytes).ok_or_else(|| self.refused("it is too short"))?;
        let head = decode_entry(&bytes, position).map_err(|error| self.refused(error))?;
        if head.len() != bytes.len() {
            return Err(self.refused("bytes follow behind the entry"));
        }
        let id = EntryId { index: head.index, term: head.term, crc: head.crc };
        let mut state = self.lock();
        let (filler, expected) = self.place(state.end, bytes.len())?;
        follows(&head, state.last.as_ref()).map_err(|error| self.refused(error))?;
        if position != expected {
            return Err(self.refused(format!("it belongs to {position}, the log goes on at {expected}")));
        }
        state.store_timestamp = state.store_timestamp.max(head.store_timestamp);
        // Followers need no queue offsets; a new leader takes them from the queues and from what is not applied yet.
        state.offsets.stale = true;
        let kind = head.kind;
        self.push(&mut state, id, kind, position, filler, bytes);
        Ok(())
    }

    /// Calls `flushed` when everything that was appended before is written, and under SYNC_FLUSH synced.
    pub fn when_flushed(&self, flushed: Flushed) {
        self.writer.put(Job::Flushed(flushed));
    }

    /// Calls `written` when everything that was appended before can be read from the file.
    pub fn when_written(&self, written: Flushed) {
        self.writer.put(Job::Written(written));
    }

    /// Removes all entries behind `last` (all, if it is `None`), durably. `done` is called when it is so.
    ///
    /// Entries that are applied cannot be removed.
    pub fn truncate_after(&self, last: Option<EntryId>, end: PhysicalOffset, done: Flushed) {
        let mut state = self.lock();
        while state.tail.back().is_some_and(|entry| last.is_none_or(|last| entry.id.index > last.index)) {
            let removed = state.tail.pop_back().expect("the tail was just looked at");
            state.kept -= removed.bytes.map_or(0, |bytes| bytes.len());
        }
        tracing::info!(from = %state.end, to = %end, "the end of the log is taken back");
        state.end = end;
        state.last = last;
        state.offsets.stale = true;
        // Under the lock, so that no entry comes in between.
        self.writer.put(Job::Truncate { to: end, done });
    }

    /// Forgets all that the log holds; it goes on behind `last` at `base`. For a snapshot that was installed.
    pub fn restart_at(&self, last: Option<EntryId>, base: PhysicalOffset, done: Flushed) {
        let mut state = self.lock();
        state.tail.clear();
        state.kept = 0;
        state.end = base;
        state.last = last;
        state.offsets = Offsets::default();
        self.writer.put(Job::Restart { base, done });
    }

    /// Tells that the entries up to `index` are visible: they are found through their queue from now on.
    pub fn applied(&self, index: LogIndex) {
        let mut state = self.lock();
        while state.tail.front().is_some_and(|entry| entry.id.index <= index) {
            let removed = state.tail.pop_front().expect("the tail was just looked at");
            state.kept -= removed.bytes.map_or(0, |bytes| bytes.len());
        }
    }

    /// Returns where an entry is, or `None` if the log does not have it.
    pub fn find(&self, index: LogIndex) -> Result<Option<(EntryId, PhysicalOffset, usize)>> {
        if let Some(entry) = self.tail_at(index) {
            return Ok(Some((entry.id, entry.position, entry.len)));
        }
        let Some(entry) = self.file_entry(index, Check::Head)? else { return Ok(None) };
        let head = decode_head(&entry.bytes, entry.position)
            .map_err(|error| self.store.damaged(entry.position, error))?;
        let id = EntryId { index, term: head.term, crc: head.crc };
        Ok(Some((id, entry.position, head.len())))
    }

    /// Returns where an entry starts, without a look at it, or `None` if the log does not have it.
    pub fn position(&self, index: LogIndex) -> Result<Option<PhysicalOffset>> {
        if let Some(entry) = self.tail_at(index) {
            return Ok(Some(entry.position));
        }
        let Some(queue) = self.queue() else { return Ok(None) };
        Ok(queue.entry(QueueOffset(index.0))?.map(|entry| entry.position))
    }

    /// Returns the entries `from..to`, as many as fit into `bytes_max` but at least one.
    ///
    /// Entries that the log does not have are left out at both ends, never in between. A damaged one ends the range; if
    /// it is the first, it is [`Error::Damaged`] until it is mended. May block on the disk.
    pub fn entries(
        &self,
        from: LogIndex,
        to: LogIndex,
        bytes_max: usize,
        check: Check,
    ) -> Result<Vec<StoredEntry>> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let mut index = from;
        while index < to {
            let entry = match self.entry(index, check) {
                Ok(Some(entry)) => entry,
                Ok(None) if entries.is_empty() => {
                    index = LogIndex(index.0 + 1);
                    if self.last().is_none_or(|last| last.index < index) {
                        break;
                    }
                    let Some(first) = self.first_index() else { break };
                    index = index.max(first);
                    continue;
                }
                Ok(None) => break,
                Err(Error::Damaged { .. }) if !entries.is_empty() => break,
                Err(error) => return Err(error),
            };
            if !entries.is_empty() && bytes + entry.bytes.len() > bytes_max {
                break;
            }
            bytes += entry.bytes.len();
            entries.push(entry);
            index = LogIndex(index.0 + 1);
        }
        Ok(entries)
    }

    /// Returns the entry that `position` is in.
    pub fn index_at(&self, position: PhysicalOffset) -> Result<Option<LogIndex>> {
        let in_tail =
            |entry: &&TailEntry| (entry.position..entry.position.plus(entry.len as u64)).contains(&position);
        if let Some(entry) = self.lock().tail.iter().find(in_tail) {
            return Ok(Some(entry.id.index));
        }
        let Some(queue) = self.queue() else { return Ok(None) };
        let behind = queue.first_behind(position)?;
        Ok(behind.0.checked_sub(1).filter(|index| *index >= queue.min_offset().0).map(LogIndex))
    }

    /// Puts the bytes of a committed entry back in their place, durably. They come from another replica and must be the
    /// ones that were there: what is known of the entry, or the one behind it, says so.
    pub fn mend(&self, bytes: &[u8]) -> Result<()> {
        let position = position_of(bytes).ok_or_else(|| self.refused("it is too short"))?;
        let head = decode_entry(bytes, position).map_err(|error| self.refused(error))?;
        let index = head.index;
        if self.position(index)? != Some(position) || head.len() != bytes.len() {
            return Err(self.refused(format!("entry {index} does not belong to {position}")));
        }
        if self.crc_of(index)?.is_some_and(|crc| crc != head.crc) {
            return Err(self.refused(format!("entry {index} is not the one that stood there")));
        }
        let segment = self.store.log.segment(position).ok_or_else(|| self.refused("its segment is gone"))?;
        segment.write(position, bytes)?;
        segment.file().sync_data().map_err(|error| Error::io("sync segment", segment.path(), error))?;
        let end = position.plus(bytes.len() as u64);
        let mut damages = self.store.damages.lock().unwrap_or_else(PoisonError::into_inner);
        damages.retain(|damage| *damage < position || *damage >= end);
        tracing::info!(%index, %position, "a damaged entry is mended");
        Ok(())
    }

    /// Checks applied entries from `from` on, up to `bytes_max` bytes of them, and notes the damaged ones. Returns where
    /// to go on, or `None` at the end. Blocks on the disk.
    pub fn scrub(&self, from: LogIndex, bytes_max: usize) -> Result<Option<LogIndex>> {
        let Some(queue) = self.queue() else { return Ok(None) };
        let mut index = from.0.max(queue.min_offset().0);
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(entry) = queue.entry(QueueOffset(index))? else { return Ok(None) };
            let Some(segment) = self.store.log.segment(entry.position) else { return Ok(None) };
            let checked = decode_entry(segment.tail(entry.position), entry.position);
            bytes += match &checked {
                Ok(head) if head.index.0 == index => head.len(),
                Ok(_) => {
                    self.store.damaged(entry.position, "another entry stands there");
                    entry.size as usize
                }
                Err(error) => {
                    self.store.damaged(entry.position, error);
                    entry.size as usize
                }
            };
            index += 1;
        }
        Ok(Some(LogIndex(index)))
    }

    /// Returns how many bytes wait to be written.
    pub fn unwritten(&self) -> u64 {
        self.end().0.saturating_sub(self.store.log.written().0)
    }

    /// Writes what waits and ends the threads. Blocks.
    pub fn stop(&self) {
        self.writer.stop();
    }

    /// Returns the CRC of an entry, as far as something else than its own bytes says it.
    fn crc_of(&self, index: LogIndex) -> Result<Option<u32>> {
        if let Some(entry) = self.tail_at(index) {
            return Ok(Some(entry.id.crc));
        }
        if let Some(last) = self.last().filter(|last| last.index == index) {
            return Ok(Some(last.crc));
        }
        match self.entry(LogIndex(index.0 + 1), Check::Head) {
            Ok(Some(next)) => Ok(decode_head(&next.bytes, next.position).ok().map(|next| next.previous_crc)),
            // Damaged itself: each of the two is mended without the other's word.
            Ok(None) | Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn entry(&self, index: LogIndex, check: Check) -> Result<Option<StoredEntry>> {
        if let Some(entry) = self.tail_entry(index)? {
            return Ok(Some(entry));
        }
        match self.file_entry(index, check)? {
            Some(entry) => Ok(Some(entry)),
            // It was applied between the two looks, or the log has it not.
            None => self.tail_entry(index),
        }
    }

    fn tail_at(&self, index: LogIndex) -> Option<TailEntry> {
        let state = self.lock();
        let at = index.0.checked_sub(state.tail.front()?.id.index.0)?;
        state.tail.get(usize::try_from(at).ok()?).cloned()
    }

    fn tail_entry(&self, index: LogIndex) -> Result<Option<StoredEntry>> {
        let Some(entry) = self.tail_at(index) else { return Ok(None) };
        let TailEntry { id: EntryId { index, term, crc }, kind, position, .. } = entry;
        let bytes = match entry.bytes {
            Some(bytes) => bytes,
            None => {
                let bytes = self.slice(index, position, entry.len)?;
                match decode_entry(&bytes, position) {
                    Ok(head) if head.crc == crc => {}
                    Ok(_) => return Err(self.store.damaged(position, "another entry stands there")),
                    Err(error) => return Err(self.store.damaged(position, error)),
                }
                bytes
            }
        };
        Ok(Some(StoredEntry { index, term, kind, position, bytes }))
    }

    fn file_entry(&self, index: LogIndex, check: Check) -> Result<Option<StoredEntry>> {
        let Some(queue) = self.queue() else { return Ok(None) };
        let Some(QueueEntry { position, size, .. }) = queue.entry(QueueOffset(index.0))? else {
            return Ok(None);
        };
        let record = self.slice(index, position, size as usize)?;
        let head = decode_head(&record, position).map_err(|error| self.store.damaged(position, error))?;
        if head.index != index {
            return Err(self.outside(index, "its queue entry leads to another entry"));
        }
        let (term, kind) = (head.term, head.kind);
        let bytes = self.slice(index, position, head.len())?;
        if check == Check::Whole {
            decode_entry(&bytes, position).map_err(|error| self.store.damaged(position, error))?;
        }
        Ok(Some(StoredEntry { index, term, kind, position, bytes }))
    }

    fn slice(&self, index: LogIndex, position: PhysicalOffset, len: usize) -> Result<Bytes> {
        self.store
            .log
            .segment(position)
            .and_then(|segment| segment.slice(position, len))
            .ok_or_else(|| self.outside(index, "its place is outside of the log"))
    }

    fn queue(&self) -> Option<Arc<super::ConsumeQueue>> {
        self.store.queues.get(&Topic::new(system_topic::RAFT_LOG), QueueId(0))
    }

    /// Returns where a filler goes, if one is needed, and where an entry of `len` bytes goes.
    fn place(&self, end: PhysicalOffset, len: usize) -> Result<(Option<PhysicalOffset>, PhysicalOffset)> {
        let segment_bytes = self.store.config.segment_bytes;
        if (len + BLANK_MIN) as u64 > segment_bytes {
            return Err(Error::TooLarge { bytes: len, segment_bytes });
        }
        let segment_end = self.store.segment_end(end);
        let place = if end.plus((len + BLANK_MIN) as u64) <= segment_end {
            (None, end)
        } else {
            (Some(end), segment_end)
        };
        Ok(place)
    }

    fn push(
        &self,
        state: &mut State,
        id: EntryId,
        kind: EntryKind,
        position: PhysicalOffset,
        filler: Option<PhysicalOffset>,
        bytes: Bytes,
    ) {
        let len = bytes.len();
        #[cfg(feature = "known-bad")]
        if let Ok(head) = decode_head(&bytes, position) {
            super::uncommitted::note(&bytes.slice(head.record_len..));
        }
        self.writer.put(Job::Write { filler, position, bytes: bytes.clone() });
        state.end = position.plus(len as u64);
        state.last = Some(id);
        state.kept += len;
        state.tail.push_back(TailEntry { id, kind, position, len, bytes: Some(bytes) });
        if state.kept > KEPT_BYTES_MAX {
            state.drop_written(self.store.log.written());
        }
    }

    fn refused(&self, reason: impl std::fmt::Display) -> Error {
        Error::Corrupt {
            path: self.store.config.commit_log.clone(),
            reason: format!("an entry of another replica is refused: {reason}"),
        }
    }

    fn outside(&self, index: LogIndex, reason: &str) -> Error {
        Error::Corrupt {
            path: self.store.config.commit_log.clone(),
            reason: format!("entry {index} cannot be read: {reason}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Lets go of bytes that can be read from the file, oldest first.
    fn drop_written(&mut self, written: PhysicalOffset) {
        for entry in &mut self.tail {
            if self.kept <= KEPT_BYTES_MAX / 2 || entry.position.plus(entry.len as u64) > written {
                return;
            }
            if let Some(bytes) = entry.bytes.take() {
                self.kept -= bytes.len();
            }
        }
    }

    /// Finds the next queue offsets again after entries came from elsewhere or were removed.
    fn refresh_offsets(&mut self, store: &Store) -> Result<()> {
        if !self.offsets.stale {
            return Ok(());
        }
        self.offsets = Offsets::default();
        for entry in &self.tail {
            let bytes = match &entry.bytes {
                Some(bytes) => bytes.clone(),
                None => store
                    .log
                    .segment(entry.position)
                    .and_then(|segment| segment.slice(entry.position, entry.len))
                    .expect("entries without bytes are in the file"),
            };
            let head = decode_head(&bytes, entry.position).map_err(|error| Error::Corrupt {
                path: store.config.commit_log.clone(),
                reason: format!("entry {} cannot be read: {error}", entry.id.index),
            })?;
            for record in records(&bytes[head.record_len..]) {
                let record = record.map_err(|error| Error::Corrupt {
                    path: store.config.commit_log.clone(),
                    reason: format!("a message of entry {} cannot be read: {error}", entry.id.index),
                })?;
                if record.sys_flag.is_queued() && has_queue(record.topic, record.queue_id) {
                    let topic = Topic::new(record.topic);
                    *self.offsets.next(store, &topic, QueueId(record.queue_id)) = record.queue_offset.0 + 1;
                }
            }
            head.forgotten.iter().for_each(|topic| self.offsets.forget(&Topic::new(topic)));
        }
        Ok(())
    }
}

/// Queue offsets for the next messages, found when they are first needed.
#[derive(Debug, Default)]
struct Offsets {
    topics: HashMap<Topic, Known>,
    /// True if entries were put in or removed that are not counted here.
    stale: bool,
}

#[derive(Debug, Default)]
struct Known {
    /// The topic was deleted: what its ConsumeQueues say is of the past.
    from_zero: bool,
    queues: Vec<Option<u64>>,
}

impl Offsets {
    fn next(&mut self, store: &Store, topic: &Topic, queue_id: QueueId) -> &mut u64 {
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.clone(), Known::default());
        }
        let known = self.topics.get_mut(topic).expect("the topic was just put there");
        let number = queue_id.0 as usize;
        if known.queues.len() <= number {
            known.queues.resize(number + 1, None);
        }
        let from_zero = known.from_zero;
        known.queues[number].get_or_insert_with(|| match store.queues.get(topic, queue_id) {
            Some(queue) if KnownBad::OffsetsFromASideTable.is_on() => queue.max_offset().0 / 32 * 32,
            Some(queue) if !from_zero => queue.max_offset().0,
            _ => 0,
        })
    }

    fn assign(
        &mut self,
        store: &Store,
        draft: &mut Draft,
        position: PhysicalOffset,
        store_timestamp: i64,
    ) -> Appended {
        let first = if draft.queued {
            let count = draft.count() as u64;
            let next = self.next(store, &draft.topic, draft.queue_id);
            std::mem::replace(next, *next + count)
        } else {
            0
        };
        draft.place(QueueOffset(first), position, store_timestamp)
    }

    fn forget(&mut self, topic: &Topic) {
        self.topics.insert(topic.clone(), Known { from_zero: true, queues: Vec::new() });
    }
}

/// Returns the position that an entry record says it has.
pub fn position_of(bytes: &[u8]) -> Option<PhysicalOffset> {
    let position = bytes.get(28..36)?.try_into().ok()?;
    Some(PhysicalOffset(u64::from_be_bytes(position)))
}

/// Checks that an entry is the one behind `last`.
pub(super) fn follows(head: &EntryHead<'_>, last: Option<&EntryId>) -> std::result::Result<(), EntryError> {
    let Some(last) = last else { return Ok(()) };
    if head.index.0 != last.index.0 + 1 {
        return Err(EntryError::Order(format!("index {} behind {}", head.index, last.index)));
    }
    if head.term < last.term {
        return Err(EntryError::Order(format!("term {} behind {}", head.term, last.term)));
    }
    if head.previous_crc != last.crc {
        return Err(EntryError::Order(format!("entry {} was made behind another one", head.index)));
    }
    Ok(())
}

impl Store {
    /// Returns the end of the segment that `position` is in.
    pub(super) fn segment_end(&self, position: PhysicalOffset) -> PhysicalOffset {
        let size = self.config.segment_bytes;
        let origin = self.log.min().0 % size;
        PhysicalOffset((position.0 - origin) / size * size + size + origin)
    }
}
