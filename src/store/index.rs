//! IndexFiles: messages by key.
//!
//! | part | bytes | |
//! |---|---|---|
//! | header | 40 | begin and end store time, begin and end position, used slots (4), entries + 1 (4) |
//! | slots | slots x 4 | number of the newest entry of the slot, 0 = none |
//! | entries | entries x 20 | hash (4), position (8), seconds since begin (4), previous entry of the slot (4) |
//!
//! Big-endian. Entry n stands at 40 + slots x 4 + n x 20; entry 0 is not used. Source: RocketMQ `IndexFile`,
//! `IndexHeader`, `IndexService`.
//!
//! The newest file's slots are in memory. A flush makes entries durable first, then slots, then the header, so
//! that whatever a slot on the disk points at is there, also after a crash in between.

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Error, Result};
use crate::env::{Clock, Disk, File, civil};
use crate::message::{Record, SysFlag, java_hash, key};
use crate::model::{PhysicalOffset, Topic};

const HEADER_BYTES: u64 = 40;
const SLOT_BYTES: u64 = 4;
const ENTRY_BYTES: u64 = 20;
const ENTRY_LEN: usize = ENTRY_BYTES as usize;
/// Entries that wait in memory before they are written together.
const UNWRITTEN_MAX: usize = 4096;
/// Slots of one page of the file, the unit in which slots are written.
const PAGE_SLOTS: usize = 1024;
/// Chain links that a query follows before it lets writers in again.
const LINKS_PER_TURN: usize = 256;

/// What is asked of the index.
#[derive(Debug, Clone)]
pub struct IndexQuery<'a> {
    /// The topic.
    pub topic: &'a Topic,
    /// A key of the message, or its unique key.
    pub key: &'a str,
    /// Most positions returned.
    pub count_max: usize,
    /// Earliest store time, milliseconds since 1970.
    pub begin_timestamp: i64,
    /// Latest store time, milliseconds since 1970.
    pub end_timestamp: i64,
}

/// All IndexFiles of a store.
#[derive(Debug)]
pub struct Index {
    folder: PathBuf,
    disk: Disk,
    clock: Clock,
    slots: u32,
    entries: u32,
    files: Mutex<VecDeque<Arc<IndexFile>>>,
}

#[derive(Debug)]
struct IndexFile {
    file: File,
    path: PathBuf,
    slot_count: u32,
    entry_max: u32,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Header {
    begin_timestamp: i64,
    end_timestamp: i64,
    begin_position: u64,
    end_position: u64,
    used_slots: u32,
    /// Number of the next entry; 1 in an empty file.
    next: u32,
}

#[derive(Debug, Default)]
struct State {
    header: Header,
    /// Empty in a file that is full and flushed: its slots are read from the disk.
    slots: Vec<u32>,
    dirty_pages: BTreeSet<usize>,
    /// Entries `next - unwritten.len() / 20 .. next`.
    unwritten: Vec<u8>,
    dirty: bool,
    /// True until the name of a new file is durable.
    made: bool,
}

impl Index {
    pub(super) fn new(folder: PathBuf, disk: Disk, clock: Clock, slots: u32, entries: u32) -> Self {
        Self { folder, disk, clock, slots, entries, files: Mutex::default() }
    }

    /// Opens the files. Of an index that was not closed, entries of records at or behind `end` are left out.
    pub(super) fn load(&self, end: PhysicalOffset) -> Result<()> {
        let mut files = self.lock();
        let paths = self.disk.list(&self.folder).map_err(|error| Error::io("list", &self.folder, error))?;
        for path in paths {
            let digits = path
                .file_name()
                .and_then(|n| n.to_str())
                .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
            if !digits {
                continue;
            }
            match IndexFile::open(&self.disk, &path, self.slots, self.entries) {
                Ok(file) if file.lock().header.begin_position < end.0 && file.lock().header.next > 1 => {
                    files.push_back(Arc::new(file));
                }
                // The whole file is of records that are dispatched again, or was only begun: behind it the one before
                // may not be flushed, and only the last one is mended.
                Ok(_) => self.remove(&path)?,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "index file cannot be used and is removed");
                    self.remove(&path)?;
                }
            }
        }
        if let Some(last) = files.back() {
            last.load_slots()?;
        }
        Ok(())
    }

    /// Forgets that records at or behind `end` were indexed: the log ends there.
    pub(super) fn clip(&self, end: PhysicalOffset) {
        if let Some(file) = self.lock().back() {
            let mut state = file.lock();
            state.header.end_position = state.header.end_position.min(end.0.saturating_sub(1));
        }
    }

    /// Adds the keys of a record. Records that are in the index already are left out.
    pub(super) fn put(&self, record: &Record<'_>) -> Result<()> {
        if record.sys_flag.transaction() == SysFlag::TRANSACTION_ROLLBACK {
            return Ok(());
        }
        let properties = record.properties();
        let topic = record.topic;
        if let Some(unique) = properties.get(key::UNIQ_KEY) {
            self.put_key(&format!("{topic}#{unique}"), record)?;
        }
        for word in properties.get(key::KEYS).unwrap_or_default().split_whitespace() {
            self.put_key(&format!("{topic}#{word}"), record)?;
        }
        if let Some(tags) = properties.get(key::TAGS) {
            self.put_key(&format!("{topic}#T#{tags}"), record)?;
        }
        if let Some(file) = self.lock().back() {
            file.lock().header.end_position = record.physical_offset.0;
        }
        Ok(())
    }

    /// Returns positions of records whose key has the same hash, newest first. Callers compare the keys.
    ///
    /// May block on the disk.
    pub fn query(&self, query: &IndexQuery<'_>) -> Result<Vec<PhysicalOffset>> {
        let hash = key_hash(&format!("{}#{}", query.topic, query.key));
        let files: Vec<_> = self.lock().iter().rev().cloned().collect();
        let mut found = Vec::new();
        for file in files {
            if found.len() >= query.count_max {
                break;
            }
            file.query(hash, query, &mut found)?;
        }
        found.truncate(query.count_max);
        Ok(found)
    }

    /// Returns the store time and the position of the newest indexed record.
    pub fn newest(&self) -> (i64, PhysicalOffset) {
        self.lock().back().map_or((0, PhysicalOffset(0)), |file| {
            let header = file.lock().header;
            (header.end_timestamp, PhysicalOffset(header.end_position))
        })
    }

    /// Makes everything durable. Blocks on the disk.
    pub(super) fn flush(&self) -> Result<()> {
        let files: Vec<_> = self.lock().iter().cloned().collect();
        let last = files.len().saturating_sub(1);
        let mut made = false;
        for (number, file) in files.iter().enumerate() {
            made |= file.flush(number != last)?;
        }
        if made {
            let sync = || {
                self.disk.sync_folder(&self.folder)?;
                self.folder.parent().map_or(Ok(()), |root| self.disk.sync_folder(root))
            };
            sync().map_err(|error| Error::io("sync folder", &self.folder, error))?;
            files.iter().for_each(|file| file.lock().made = false);
        }
        Ok(())
    }

    /// Removes files whose records are all below `log_min`.
    pub(super) fn expire(&self, log_min: PhysicalOffset) -> Result<()> {
        loop {
            let mut files = self.lock();
            let expired = files.len() > 1
                && files.front().is_some_and(|file| file.lock().header.end_position < log_min.0);
            if !expired {
                return Ok(());
            }
            let Some(file) = files.pop_front() else { return Ok(()) };
            drop(files);
            self.remove(&file.path)?;
        }
    }

    /// Removes all files, those that were not loaded too.
    pub(super) fn clear(&self) -> Result<()> {
        let mut files = self.lock();
        files.clear();
        let paths = self.disk.list(&self.folder).map_err(|error| Error::io("list", &self.folder, error))?;
        paths.iter().try_for_each(|path| self.remove(path))
    }

    fn put_key(&self, text: &str, record: &Record<'_>) -> Result<()> {
        let file = self.writable(record)?;
        file.put(key_hash(text), record)
    }

    /// Returns the newest file, or makes one if there is none or it is full.
    fn writable(&self, record: &Record<'_>) -> Result<Arc<IndexFile>> {
        let mut files = self.lock();
        if let Some(file) = files.back()
            && !file.is_full()
        {
            return Ok(Arc::clone(file));
        }
        self.disk
            .make_folder_unsynced(&self.folder)
            .map_err(|error| Error::io("make folder", &self.folder, error))?;
        let last = files.back().and_then(|last| last.path.file_name()?.to_str());
        let path = self.folder.join(name_behind(last.unwrap_or_default(), self.clock.now_ms()));
        let file = IndexFile::create(&self.disk, &path, self.slots, self.entries, record)?;
        let file = Arc::new(file);
        files.push_back(Arc::clone(&file));
        Ok(file)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.disk.remove(path).map_err(|error| Error::io("remove index file", path, error))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<IndexFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl IndexFile {
    fn create(disk: &Disk, path: &Path, slots: u32, entries: u32, record: &Record<'_>) -> Result<Self> {
        let file = disk.open(path, true).map_err(|error| Error::io("create index file", path, error))?;
        file.set_len(file_bytes(slots, entries))
            .map_err(|error| Error::io("size index file", path, error))?;
        let header = Header {
            begin_timestamp: record.store_timestamp,
            end_timestamp: record.store_timestamp,
            begin_position: record.physical_offset.0,
            end_position: record.physical_offset.0,
            used_slots: 0,
            next: 1,
        };
        let state =
            State { header, slots: vec![0; slots as usize], dirty: true, made: true, ..State::default() };
        Ok(Self {
            file,
            path: path.to_owned(),
            slot_count: slots,
            entry_max: entries,
            state: Mutex::new(state),
        })
    }

    fn open(disk: &Disk, path: &Path, slots: u32, entries: u32) -> Result<Self> {
        let failed = |error| Error::io("open index file", path, error);
        let file = disk.open(path, false).map_err(failed)?;
        let len = file.len().map_err(failed)?;
        if len != file_bytes(slots, entries) {
            return Err(Error::Corrupt {
                path: path.to_owned(),
                reason: format!(
                    "has {len} bytes, not the {} of maxHashSlotNum={slots} and maxIndexNum={entries}",
                    file_bytes(slots, entries)
                ),
            });
        }
        let mut bytes = [0; HEADER_BYTES as usize];
        file.read_exact_at(&mut bytes, 0).map_err(failed)?;
        let mut header = Header::from_bytes(&bytes);
        header.next = header.next.clamp(1, entries);
        let state = State { header, ..State::default() };
        Ok(Self {
            file,
            path: path.to_owned(),
            slot_count: slots,
            entry_max: entries,
            state: Mutex::new(state),
        })
    }

    /// Reads the slots into memory. A slot may point behind the last entry if the process died while flushing:
    /// then the chain leads back to the entries that count.
    fn load_slots(&self) -> Result<()> {
        let mut state = self.lock();
        let failed = |error| Error::io("read index file", &self.path, error);
        let mut bytes = vec![0; self.slot_count as usize * SLOT_BYTES as usize];
        self.file.read_exact_at(&mut bytes, HEADER_BYTES).map_err(failed)?;
        let (chunks, _) = bytes.as_chunks();
        state.slots = chunks.iter().map(|chunk| u32::from_be_bytes(*chunk)).collect();
        let next = state.header.next;
        for slot in 0..state.slots.len() {
            let mut number = state.slots[slot];
            while number >= next && number < self.entry_max {
                let previous = self.read_entry(number)?.previous;
                // Chains only lead to earlier entries; a file that says otherwise would be walked for ever.
                number = if previous < number { previous } else { 0 };
            }
            let number = if number < next { number } else { 0 };
            if number != state.slots[slot] {
                state.slots[slot] = number;
                state.dirty_pages.insert(slot / PAGE_SLOTS);
            }
        }
        Ok(())
    }

    fn put(&self, hash: u32, record: &Record<'_>) -> Result<()> {
        let mut state = self.lock();
        let header = state.header;
        let known = header.next > 1 && !state.dirty && record.physical_offset.0 <= header.end_position;
        if known {
            return Ok(());
        }
        let slot = (hash % self.slot_count) as usize;
        let previous = state.slots[slot];
        if previous == 0 {
            state.header.used_slots = state.header.used_slots.saturating_add(1);
        }
        let seconds = record.store_timestamp.saturating_sub(header.begin_timestamp) / 1000;
        let seconds = seconds.clamp(0, i64::from(i32::MAX));
        state.unwritten.extend(hash.to_be_bytes());
        state.unwritten.extend(record.physical_offset.0.to_be_bytes());
        state.unwritten.extend(u32::try_from(seconds).unwrap_or(0).to_be_bytes());
        state.unwritten.extend(previous.to_be_bytes());
        state.slots[slot] = header.next;
        state.dirty_pages.insert(slot / PAGE_SLOTS);
        state.header.next += 1;
        state.header.end_timestamp = record.store_timestamp;
        state.dirty = true;
        if state.unwritten.len() >= UNWRITTEN_MAX * ENTRY_LEN {
            // A full disk keeps the entries in memory; the next flush tries again.
            let _ = self.write_entries(&mut state);
        }
        Ok(())
    }

    fn query(&self, hash: u32, query: &IndexQuery<'_>, found: &mut Vec<PhysicalOffset>) -> Result<()> {
        let (begin_timestamp, mut number) = {
            let state = self.lock();
            if query.begin_timestamp > state.header.end_timestamp.saturating_add(1000)
                || query.end_timestamp < state.header.begin_timestamp
            {
                return Ok(());
            }
            let slot = hash % self.slot_count;
            (state.header.begin_timestamp, self.slot(&state, slot)?)
        };
        let mut previous_number = u32::MAX;
        while number != 0 && number < previous_number {
            let state = self.lock();
            for _ in 0..LINKS_PER_TURN {
                if number == 0 || number >= previous_number || number >= state.header.next {
                    return Ok(());
                }
                let entry = self.entry(&state, number)?;
                let stored = begin_timestamp.saturating_add(i64::from(entry.seconds) * 1000);
                // Times are kept in whole seconds: a second of slack keeps messages at the borders.
                let in_time =
                    stored.saturating_add(999) >= query.begin_timestamp && stored <= query.end_timestamp;
                if entry.hash == hash && in_time && found.last() != Some(&PhysicalOffset(entry.position)) {
                    found.push(PhysicalOffset(entry.position));
                    if found.len() >= query.count_max {
                        return Ok(());
                    }
                }
                // Chains only lead to earlier entries; a file that says otherwise would be walked for ever.
                (previous_number, number) = (number, entry.previous);
            }
        }
        Ok(())
    }

    /// Makes the file durable; returns whether its name is not yet. Writers wait only while what has to be written is
    /// copied, not while it is synced.
    fn flush(&self, sealed: bool) -> Result<bool> {
        let failed = |error| Error::io("flush index file", &self.path, error);
        let (header, pages, made) = {
            let mut state = self.lock();
            if !state.dirty && state.dirty_pages.is_empty() {
                if sealed && self.sealed(&state) {
                    state.slots = Vec::new();
                }
                return Ok(state.made);
            }
            self.write_entries(&mut state)?;
            let pages: Vec<_> = std::mem::take(&mut state.dirty_pages)
                .into_iter()
                .map(|page| {
                    let first = page * PAGE_SLOTS;
                    let last = (first + PAGE_SLOTS).min(state.slots.len());
                    let bytes: Vec<u8> =
                        state.slots[first..last].iter().flat_map(|slot| slot.to_be_bytes()).collect();
                    (first, bytes)
                })
                .collect();
            state.dirty = false;
            (state.header, pages, state.made)
        };
        let written = self.write_out(header, &pages);
        if written.is_err() {
            let mut state = self.lock();
            state.dirty = true;
            state.dirty_pages.extend(pages.iter().map(|(first, _)| first / PAGE_SLOTS));
        }
        written.map_err(failed)?;
        Ok(made)
    }

    /// Entries first, then the slots that point at them, then the header that counts them.
    fn write_out(&self, header: Header, pages: &[(usize, Vec<u8>)]) -> std::io::Result<()> {
        self.file.sync_data()?;
        for (first, bytes) in pages {
            self.file.write_all_at(bytes, HEADER_BYTES + *first as u64 * SLOT_BYTES)?;
        }
        self.file.sync_data()?;
        self.file.write_all_at(&header.to_bytes(), 0)?;
        self.file.sync_all()
    }

    fn write_entries(&self, state: &mut State) -> Result<()> {
        if state.unwritten.is_empty() {
            return Ok(());
        }
        let count = u32::try_from(state.unwritten.len() / ENTRY_LEN).unwrap_or(0);
        let at = self.entry_at(state.header.next - count);
        self.file
            .write_all_at(&state.unwritten, at)
            .map_err(|error| Error::io("write index file", &self.path, error))?;
        state.unwritten.clear();
        Ok(())
    }

    fn sealed(&self, state: &State) -> bool {
        state.header.next >= self.entry_max
    }

    fn is_full(&self) -> bool {
        let state = self.lock();
        self.sealed(&state)
    }

    fn slot(&self, state: &State, slot: u32) -> Result<u32> {
        if let Some(number) = state.slots.get(slot as usize) {
            return Ok(*number);
        }
        let mut bytes = [0; SLOT_BYTES as usize];
        self.file
            .read_exact_at(&mut bytes, HEADER_BYTES + u64::from(slot) * SLOT_BYTES)
            .map_err(|error| Error::io("read index file", &self.path, error))?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn entry(&self, state: &State, number: u32) -> Result<Entry> {
        let unwritten = u32::try_from(state.unwritten.len() / ENTRY_LEN).unwrap_or(0);
        let first = state.header.next - unwritten;
        if number < first {
            return self.read_entry(number);
        }
        let (entries, _) = state.unwritten.as_chunks();
        Ok(entries.get((number - first) as usize).map(Entry::from_bytes).unwrap_or_default())
    }

    fn read_entry(&self, number: u32) -> Result<Entry> {
        let mut bytes = [0; ENTRY_LEN];
        self.file
            .read_exact_at(&mut bytes, self.entry_at(number))
            .map_err(|error| Error::io("read index file", &self.path, error))?;
        Ok(Entry::from_bytes(&bytes))
    }

    fn entry_at(&self, number: u32) -> u64 {
        HEADER_BYTES + u64::from(self.slot_count) * SLOT_BYTES + u64::from(number) * ENTRY_BYTES
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Entry {
    hash: u32,
    position: u64,
    seconds: u32,
    previous: u32,
}

impl Entry {
    fn from_bytes(bytes: &[u8; ENTRY_LEN]) -> Self {
        let int = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let position = u64::from_be_bytes(bytes[4..12].try_into().expect("8 bytes"));
        Self { hash: int(0), position, seconds: int(12), previous: int(16) }
    }
}

impl Header {
    fn from_bytes(bytes: &[u8; HEADER_BYTES as usize]) -> Self {
        let long = |at: usize| i64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let int = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        Self {
            begin_timestamp: long(0),
            end_timestamp: long(8),
            begin_position: u64::try_from(long(16)).unwrap_or(0),
            end_position: u64::try_from(long(24)).unwrap_or(0),
            used_slots: int(32),
            next: int(36),
        }
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(&self.begin_timestamp.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.end_timestamp.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.begin_position.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.end_position.to_be_bytes());
        bytes[32..36].copy_from_slice(&self.used_slots.to_be_bytes());
        bytes[36..].copy_from_slice(&self.next.to_be_bytes());
        bytes
    }
}

fn file_bytes(slots: u32, entries: u32) -> u64 {
    HEADER_BYTES + u64::from(slots) * SLOT_BYTES + u64::from(entries) * ENTRY_BYTES
}

/// As Java's `IndexFile.indexKeyHashMethod`: the absolute value, and 0 for the one that has none.
fn key_hash(text: &str) -> u32 {
    u32::try_from(java_hash(text).checked_abs().unwrap_or(0)).unwrap_or(0)
}

/// Returns the time as yyyyMMddHHmmssSSS, UTC.
fn file_name(now_ms: i64) -> String {
    let ms = now_ms.rem_euclid(86_400_000);
    let (year, month, day) = civil(now_ms.div_euclid(86_400_000));
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}{:03}", ms % 1000)
}

/// Returns the first name from `now_ms` on that comes behind `last`: the clock may have gone back by any time.
fn name_behind(last: &str, now_ms: i64) -> String {
    let is_behind = |ms: i64| file_name(ms).as_str() > last;
    let (mut before, mut behind) = (now_ms - 1, now_ms);
    while !is_behind(behind) {
        (before, behind) = (behind, behind + 2 * (behind - before));
    }
    while behind - before > 1 {
        let middle = before + (behind - before) / 2;
        if is_behind(middle) { behind = middle } else { before = middle }
    }
    file_name(behind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Message, encode_record, patch_record};
    use crate::model::QueueOffset;

    /// Numbered records, 1000 bytes apart.
    fn put(index: &Index, number: u64) {
        let properties = format!("UNIQ_KEY\u{1}u{number}\u{2}");
        let mut bytes = Vec::new();
        let message = Message::plain("T", 0, "x", &properties);
        encode_record(&message, &mut bytes).unwrap();
        patch_record(&mut bytes, QueueOffset(number), PhysicalOffset(number * 1000), 1_700_000_000_000);
        index.put(&Record::decode(&bytes).unwrap()).unwrap();
    }

    fn positions(index: &Index, number: u64) -> Vec<u64> {
        let query = IndexQuery {
            topic: &Topic::new("T"),
            key: &format!("u{number}"),
            count_max: 9,
            begin_timestamp: 0,
            end_timestamp: i64::MAX,
        };
        index.query(&query).unwrap().into_iter().map(|position| position.0).collect()
    }

    #[test]
    fn a_file_whose_flush_was_cut_short_is_mended_though_another_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        // Two slots, so that all chains go through entries whose header was not written; five entries in a file.
        let open =
            || Index::new(folder.path().to_owned(), Disk::real(), Clock::manual(1_700_000_000_000), 2, 6);
        let index = open();
        index.load(PhysicalOffset(0)).unwrap();
        (1..4).for_each(|number| put(&index, number));
        index.flush().unwrap();
        let paths = Disk::real().list(folder.path()).unwrap();
        let first = Disk::real().open(&paths[0], false).unwrap();
        let mut header = [0; HEADER_BYTES as usize];
        first.read_exact_at(&mut header, 0).unwrap();
        (4..8).for_each(|number| put(&index, number));
        index.flush().unwrap();
        drop(index);

        // The process died when it had written the slots of the first file, but neither its header nor the second file.
        first.write_all_at(&header, 0).unwrap();
        let paths = Disk::real().list(folder.path()).unwrap();
        assert_eq!(paths.len(), 2);
        let second = Disk::real().open(&paths[1], false).unwrap();
        second.zero(0, second.len().unwrap()).unwrap();

        let index = open();
        index.load(PhysicalOffset(4000)).unwrap();
        for number in 1..4 {
            assert_eq!(positions(&index, number), [number * 1000]);
        }
        (4..8).for_each(|number| put(&index, number));
        for number in 1..8 {
            assert_eq!(positions(&index, number), [number * 1000]);
        }
    }

    #[test]
    fn files_are_named_after_the_time() {
        for (ms, name) in [
            (0, "19700101000000000"),
            (1_700_000_000_123, "20231114221320123"),
            (951_782_399_999, "20000228235959999"),
            (951_782_400_000, "20000229000000000"),
        ] {
            assert_eq!(file_name(ms), name);
        }
    }

    /// Found by jepsen (`soak`, clocks, seed 4): each of the names between was tried, which took half a minute for an hour.
    #[test]
    fn a_clock_that_went_back_does_not_keep_the_index_waiting() {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::manual(1_700_000_000_123));
        let index = Index::new(folder.path().to_owned(), Disk::real(), clock.clone(), 2, 3);
        put(&index, 1);
        for (ahead_ms, number) in [(0, 2), (-400 * 86_400_000, 3), (-86_400_000, 4), (5, 5)] {
            clock.set_ms(1_700_000_000_123 + ahead_ms);
            put(&index, number * 2);
            put(&index, number * 2 + 1);
        }
        let names: Vec<_> = Disk::real().list(folder.path()).unwrap();
        let names: Vec<_> = names.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "20231114221320123",
                "20231114221320124",
                "20231114221320125",
                "20231114221320126",
                "20231114221320128"
            ]
        );
    }

    #[test]
    fn key_hashes_are_those_of_java() {
        assert_eq!(key_hash("polygenelubricants"), 0);
        assert_eq!(key_hash("TagA"), 2_598_919);
    }
}
