//! Opening a store that holds any bytes: behind its synced end, or instead of what is derived from its log.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, mpsc};

use quorate::env::{Clock, Disk};
use quorate::filter::Filter;
use quorate::message::{
    Message, Record, Scanned, SysFlag, crc32, encode_record, patch_record, records, scan,
};
use quorate::model::{LogIndex, PhysicalOffset, QueueId, QueueOffset, Term, Topic, system_topic};
use quorate::store::{
    Boundary, Check, Draft, EntryKind, EntryOptions, IndexQuery, Listener, NewEntry, Opened, OpenedEntries,
    ReadLimits, ReadStatus, Store, StoreConfig, StoredEntry, decode_entry,
};
use tempfile::TempDir;

const SEGMENT: u64 = 4096;
/// Messages, or entries, that every store has, synced.
const KEPT: usize = 12;
/// How many of them the checkpoint covers.
const COVERED: usize = 7;
const LIMITS: ReadLimits = ReadLimits {
    count_max: 64,
    bytes_max: 1 << 20,
    cold_count_max: 64,
    cold_bytes_max: 1 << 20,
    cold_distance: u64::MAX,
};

/// A store as a killed process left it.
struct Killed {
    files: Vec<(PathBuf, Vec<u8>)>,
    /// Where its log ends.
    end: u64,
    /// Positions and bytes of what it holds.
    kept: Vec<(PhysicalOffset, Vec<u8>)>,
}

fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a folder")
}

fn config(root: &Path) -> StoreConfig {
    StoreConfig {
        segment_bytes: SEGMENT,
        queue_file_entries: 16,
        index_slots: 16,
        index_entries: 64,
        ..StoreConfig::new(root.to_owned())
    }
}

fn clock() -> Clock {
    Clock::manual(1_700_000_000_000)
}

fn draft(number: usize) -> Draft {
    let host = ([127, 0, 0, 1], 10911).into();
    let (body, properties) =
        (format!("body {number} {}", "x".repeat(300)), format!("KEYS\u{1}k{number}\u{2}"));
    let message = Message {
        topic: "T",
        queue_id: u32::from(number % 3 == 2),
        flag: 0,
        sys_flag: SysFlag(0),
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: body.as_bytes(),
        properties: &properties,
    };
    Draft::new(&message).expect("a small message")
}

fn files_of(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (disk, mut files, mut folders) = (Disk::real(), Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in disk.list(&folder).expect("a folder") {
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = disk.read(&path).expect("a file");
                files.push((path.strip_prefix(root).expect("it is below").to_owned(), bytes));
            }
        }
    }
    files.sort();
    files
}

impl Killed {
    /// Puts the files of the store below `root`, after `change`.
    fn put(&self, root: &Path, change: impl Fn(&Path, &mut Vec<u8>) -> bool) {
        for (name, bytes) in &self.files {
            let mut bytes = bytes.clone();
            if change(name, &mut bytes) {
                write(&root.join(name), &bytes);
            }
        }
    }

    fn segment(&self) -> (PathBuf, usize) {
        let base = self.end / SEGMENT * SEGMENT;
        (Path::new("commitlog").join(format!("{base:020}")), usize::try_from(self.end - base).unwrap_or(0))
    }
}

fn write(path: &Path, bytes: &[u8]) {
    let disk = Disk::real();
    disk.make_folder_unsynced(path.parent().expect("a file is in a folder")).expect("a folder");
    let file = disk.open(path, true).expect("a file");
    file.set_len(0).and_then(|()| file.write_all_at(bytes, 0)).expect("room in memory");
}

/// Bytes behind the end, all of which belong to one segment.
fn behind(segment: &mut [u8], at: usize, bytes: &[u8]) {
    let room = &mut segment[at..];
    let len = bytes.len().min(room.len());
    room[..len].copy_from_slice(&bytes[..len]);
}

fn open(root: &Path) -> Result<Opened, quorate::store::Error> {
    Store::open(config(root), Disk::real(), clock(), Listener::new(|_| {}))
}

fn send(opened: &mut Opened, number: usize) -> (PhysicalOffset, Vec<u8>) {
    let mut drafts = [draft(number)];
    let appended = opened.writer.append(&mut drafts).remove(0).expect("the store takes messages");
    opened.committer.commit(appended.position, drafts[0].bytes()).expect("and makes them visible");
    (appended.position, drafts[0].bytes().to_vec())
}

fn classic() -> &'static Killed {
    static KILLED: OnceLock<Killed> = OnceLock::new();
    KILLED.get_or_init(|| {
        let folder = folder();
        let mut opened = open(folder.path()).expect("an empty store");
        let mut kept = Vec::new();
        for number in 0..KEPT {
            kept.push(send(&mut opened, number));
            if number + 1 == COVERED {
                opened.store.checkpoint_now().expect("a checkpoint");
            }
        }
        let end = opened.store.log().written().0;
        drop(opened);
        Killed { files: files_of(folder.path()), end, kept }
    })
}

/// Any bytes behind the end of the log of a broker without replicas. The first byte says in what state the rest is.
pub(super) fn store(data: &[u8]) {
    let Some((&flags, tail)) = data.split_first() else { return };
    let killed = classic();
    let (name, at) = killed.segment();
    let checkpoint = flags & 1 == 0;
    let mut tail = tail.to_vec();
    if flags & 2 != 0 {
        mend(&mut tail, killed.end);
    }
    let folder = folder();
    killed.put(folder.path(), |path, bytes| {
        if path == name {
            behind(bytes, at, &tail);
        }
        let derived = path.starts_with("consumequeue") || path.starts_with("checkpoint");
        (checkpoint || !derived) && (flags & 4 == 0 || path != Path::new("abort"))
    });
    if flags & 8 != 0 {
        // One more segment, of which nothing was written by us.
        let mut next: Vec<u8> = tail.iter().rev().copied().collect();
        next.resize(usize::try_from(SEGMENT).unwrap_or(0), 0);
        write(
            &folder
                .path()
                .join("commitlog")
                .join(format!("{:020}", killed.end / SEGMENT * SEGMENT + SEGMENT)),
            &next,
        );
    }
    let mut opened = open(folder.path()).expect("a store opens whatever follows its end");
    // Without a checkpoint nothing says which offset comes next in a queue, and no CRC covers a record's head.
    let queues = checkpoint;
    check(&opened.store, &killed.kept, queues);
    let after = send(&mut opened, KEPT);
    drop(opened);
    let opened = open(folder.path()).expect("a second time");
    let mut kept = killed.kept.clone();
    kept.push(after);
    check(&opened.store, &kept[..KEPT], queues);
    if queues {
        check(&opened.store, &kept, true);
    }
}

/// Gives what looks like records the CRCs and positions that they should have.
fn mend(bytes: &mut [u8], position: u64) {
    let mut at = 0;
    while let Ok(record) = Record::decode(&bytes[at..]) {
        let (len, crc) = (record.total_size, crc32(record.body));
        bytes[at + 8..at + 12].copy_from_slice(&crc.to_be_bytes());
        bytes[at + 28..at + 36].copy_from_slice(&(position + at as u64).to_be_bytes());
        at += len;
    }
}

/// Checks that what was kept is there, and that whatever else is read is whole.
fn check(store: &Store, kept: &[(PhysicalOffset, Vec<u8>)], queues: bool) {
    for (position, bytes) in kept {
        assert_eq!(store.log().record(*position).as_deref(), Some(&bytes[..]), "the record at {position}");
        let record = Record::decode(bytes).expect("it was written like that");
        if queues {
            let found = store.read(
                &Topic::new(record.topic),
                QueueId(record.queue_id),
                record.queue_offset,
                ReadLimits { count_max: 1, ..LIMITS },
                &Filter::All,
            );
            let found = found.expect("the queue can be read");
            assert_eq!(found.status, ReadStatus::Found, "{} at {}", record.queue_id, record.queue_offset);
            assert_eq!(found.records[0], bytes[..]);
        }
    }
    for (topic, queue_id, queue) in store.queues().all() {
        let mut next = queue.min_offset();
        while next < queue.max_offset() {
            let read = store.read(&topic, queue_id, next, LIMITS, &Filter::All).expect("a queue can be read");
            assert!(read.next > next, "a read goes on");
            next = read.next;
            for bytes in &read.records {
                let record = Record::decode(bytes).expect("a record that was found is whole");
                record.check_body().expect("its CRC is right");
                assert_eq!((record.topic, record.queue_id), (topic.as_str(), queue_id.0));
            }
        }
    }
}

fn open_entries(root: &Path, committed: Option<u64>) -> Result<OpenedEntries, quorate::store::Error> {
    let committed_index = committed.map(LogIndex);
    let options = EntryOptions { sync: true, committed_index, ..EntryOptions::default() };
    Store::open_entries(config(root), options, Disk::real(), clock(), Listener::new(|_| {}))
}

fn append(opened: &OpenedEntries, index: usize, term: u64) {
    let entry = NewEntry {
        index: LogIndex(index as u64),
        term: Term(term),
        kind: EntryKind::Data,
        command: &[],
        forgotten: &[],
        drafts: &mut [draft(index)],
    };
    opened.log.append(entry).expect("the log takes entries");
    let (done, is_done) = mpsc::channel();
    opened.log.when_flushed(Box::new(move |result| drop(done.send(result))));
    is_done.recv().expect("an answer").expect("it is synced");
}

fn entry(opened: &OpenedEntries, index: usize) -> StoredEntry {
    let index = LogIndex(index as u64);
    let mut entries =
        opened.log.entries(index, LogIndex(index.0 + 1), 1 << 20, Check::Whole).expect("an entry");
    entries.pop().expect("it is there")
}

fn raft() -> &'static Killed {
    static KILLED: OnceLock<Killed> = OnceLock::new();
    KILLED.get_or_init(|| {
        let folder = folder();
        let opened = open_entries(folder.path(), None).expect("an empty store");
        let mut kept = Vec::new();
        for index in 0..KEPT {
            append(&opened, index, 1);
            let StoredEntry { position, bytes, .. } = entry(&opened, index);
            kept.push((position, bytes.to_vec()));
            if index < COVERED {
                opened.committer.commit(position, &bytes).expect("visible");
                opened.log.applied(LogIndex(index as u64));
            }
            if index + 1 == COVERED {
                opened.store.checkpoint_now().expect("a checkpoint");
            }
        }
        let end = opened.log.end().0;
        drop(opened);
        Killed { files: files_of(folder.path()), end, kept }
    })
}

/// Any bytes behind the end of a Raft log. The first byte says in what state the rest is.
pub(super) fn entries(data: &[u8]) {
    let Some((&flags, tail)) = data.split_first() else { return };
    let killed = raft();
    let (name, at) = killed.segment();
    let tail = if flags & 2 == 0 { tail.to_vec() } else { made(tail, killed) };
    let folder = folder();
    killed.put(folder.path(), |path, bytes| {
        if path == name {
            behind(bytes, at, &tail);
        }
        let derived = path.starts_with("consumequeue") || path.starts_with("checkpoint");
        (flags & 1 == 0 || !derived) && (flags & 4 == 0 || path != Path::new("abort"))
    });
    let committed = (flags & 8 != 0).then_some(KEPT as u64 - 1);
    let opened = match open_entries(folder.path(), committed) {
        Ok(opened) => opened,
        // Entries whose CRCs are right, around messages that are none: no disk makes such.
        Err(quorate::store::Error::Corrupt { reason, .. }) if flags & 2 != 0 => {
            assert!(reason.contains("cannot be read"), "{reason}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let count = check_entries(&opened, killed);
    let term = opened.log.last().map_or(0, |last| last.term.0);
    if flags & 2 == 0 {
        append(&opened, count, term);
        drop(opened);
        let opened = open_entries(folder.path(), committed).expect("a second time");
        assert_eq!(check_entries(&opened, killed), count + 1);
    }
}

fn check_entries(opened: &OpenedEntries, killed: &Killed) -> usize {
    assert_eq!(opened.damaged_below, None, "nothing is missing");
    let all =
        opened.log.entries(LogIndex(0), LogIndex(u64::MAX), usize::MAX, Check::Whole).expect("all entries");
    for (number, entry) in all.iter().enumerate() {
        assert_eq!(entry.index.0, number as u64);
        let head = decode_entry(&entry.bytes, entry.position).expect("an entry that is handed out is whole");
        assert_eq!(head.len(), entry.bytes.len());
    }
    assert!(all.len() >= KEPT, "{} of {KEPT} entries", all.len());
    for (entry, (position, bytes)) in all.iter().zip(&killed.kept) {
        assert_eq!((entry.position, &entry.bytes[..]), (*position, &bytes[..]));
    }
    all.len()
}

/// Makes entries whose CRCs and positions are right, and whose other fields are what `data` says.
fn made(mut data: &[u8], killed: &Killed) -> Vec<u8> {
    let (position, bytes) = &killed.kept[KEPT - 1];
    let mut previous = decode_entry(bytes, *position).expect("it was written like that").crc;
    let mut tail = Vec::new();
    let mut index = KEPT as u64;
    while let Some((fields, rest)) = data.split_first_chunk::<8>() {
        let [kind, term, shift, names, command_len, messages_len, queue, more] = *fields;
        let (command, rest) = rest.split_at(usize::from(command_len).min(rest.len()));
        let (messages, rest) = rest.split_at(usize::from(messages_len).min(rest.len()));
        data = rest;
        let start = PhysicalOffset(killed.end + tail.len() as u64);
        let mut body = vec![1, kind % 4, 0, 0];
        body.extend((index + u64::from(shift / 200)).to_be_bytes());
        body.extend((u64::from(term) << (more % 57)).to_be_bytes());
        body.extend(start.0.to_be_bytes());
        body.extend(previous.to_be_bytes());
        // Messages of any queue, or what the input has.
        let mut records = messages.to_vec();
        if more & 64 != 0 {
            records.clear();
            let topic = if more & 128 == 0 { "T" } else { "%RETRY%g" };
            let queue_id = u32::from(queue) << (messages_len % 25);
            let host = ([127, 0, 0, 1], 10911).into();
            let message = Message {
                topic,
                queue_id,
                flag: 0,
                sys_flag: SysFlag(0),
                born_timestamp: 1,
                born_host: host,
                store_host: host,
                reconsume_times: 0,
                prepared_transaction_offset: 0,
                body: messages,
                properties: "",
            };
            encode_record(&message, &mut records).expect("a small message");
            let record_len =
                91 + system_topic::RAFT_LOG.len() + 50 + usize::from(names % 4) * 2 + command.len();
            let offset = QueueOffset(u64::from(shift));
            patch_record(&mut records, offset, start.plus(record_len as u64), 1);
        }
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(0).to_be_bytes();
        body.extend(1u32.to_be_bytes());
        body.extend(length(records.len()));
        body.extend(crc(&records).to_be_bytes());
        body.extend(u16::from(names % 4).to_be_bytes());
        body.extend(length(command.len()));
        (0..names % 4).for_each(|_| body.extend([1, b'T']));
        body.extend(command);
        let host = ([0, 0, 0, 0], 0).into();
        let entry = Message {
            topic: system_topic::RAFT_LOG,
            queue_id: 0,
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &body,
            properties: "",
        };
        let at = tail.len();
        encode_record(&entry, &mut tail).expect("a small record");
        patch_record(&mut tail[at..], QueueOffset(index + u64::from(shift / 200)), start, 1);
        tail.extend(&records);
        previous = crc32(&body);
        index += 1;
    }
    tail
}

/// CRC-32 with its top bit, which records do not have.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Any bytes in a file that is derived from the log. The first bytes say in which one, and where.
pub(super) fn derived(data: &[u8]) {
    let Some(([which, how, at_high, at_low], bytes)) = data.split_first_chunk() else { return };
    let group = which & 128 != 0;
    let killed = if group { raft() } else { classic() };
    let names: Vec<&PathBuf> = killed
        .files
        .iter()
        .map(|(name, _)| name)
        .filter(|name| ["consumequeue", "index", "checkpoint"].iter().any(|folder| name.starts_with(folder)))
        .collect();
    let name = names[usize::from(which % 128) % names.len()];
    let folder = folder();
    killed.put(folder.path(), |path, old| {
        if path == name {
            if how & 1 == 0 {
                let at = usize::from(u16::from_be_bytes([*at_high, *at_low])) % old.len();
                behind(old, at, bytes);
            } else {
                *old = bytes.to_vec();
            }
        }
        how & 2 == 0 || path != Path::new("abort")
    });
    let root = folder.path();
    if group {
        if let Ok(opened) = open_entries(root, None) {
            let whole = |(position, bytes): &(PhysicalOffset, Vec<u8>)| {
                let segment = position.0 / SEGMENT * SEGMENT;
                let path = root.join("commitlog").join(format!("{segment:020}"));
                let file = Disk::real().read(&path).expect("the segment is there");
                file[usize::try_from(position.0 - segment).unwrap_or(0)..].starts_with(bytes)
            };
            assert!(killed.kept.iter().all(whole), "what is derived does not cut the log");
            let _ = opened.log.entries(LogIndex(0), LogIndex(u64::MAX), usize::MAX, Check::Whole);
            let _ = opened.log.index_at(PhysicalOffset(5000));
            let _ = opened.log.scrub(LogIndex(0), 1 << 20);
            use_all(&opened.store);
        }
    } else if let Ok(mut opened) = open(root) {
        use_all(&opened.store);
        let mut drafts = [draft(KEPT)];
        if let Ok(appended) = opened.writer.append(&mut drafts).remove(0) {
            let _ = opened.committer.commit(appended.position, drafts[0].bytes());
        }
        let _ = opened.store.checkpoint_now();
        drop(opened);
        drop(open(root));
    }
}

/// Uses whatever is derived.
fn use_all(store: &Arc<Store>) {
    for (topic, queue_id, queue) in store.queues().all() {
        let (mut next, mut reads) = (queue.min_offset(), 0);
        while next < queue.max_offset() && reads < 100 {
            let Ok(read) = store.read(&topic, queue_id, next, LIMITS, &Filter::All) else { break };
            if read.next <= next {
                break;
            }
            for bytes in &read.records {
                assert!(bytes.len() as u64 <= SEGMENT);
                let _ = records(bytes).count();
            }
            (next, reads) = (read.next, reads + 1);
        }
        for boundary in [Boundary::Lower, Boundary::Upper] {
            let _ = store.offset_by_time(&topic, queue_id, 1_700_000_000_000, boundary);
        }
        let _ = store.queue_timestamp(&topic, queue_id, queue.min_offset());
    }
    for number in 0..KEPT {
        let query = IndexQuery {
            topic: &Topic::new("T"),
            key: &format!("k{number}"),
            count_max: 32,
            begin_timestamp: 0,
            end_timestamp: i64::MAX,
        };
        for position in store.index().query(&query).unwrap_or_default() {
            if let Some(bytes) = store.log().record(position) {
                assert!(matches!(scan(&bytes, position), Scanned::Record(_)));
            }
        }
    }
    let _ = store.index().newest();
    let _ = store.delete_expired_entries();
}
