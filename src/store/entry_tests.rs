//! The Raft log through its public face: entries survive what a crash leaves of them, and only those that should.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use proptest::prelude::*;
use tempfile::TempDir;

use super::tests::{copy_of, restore};
use super::*;
use crate::env::Faults;
use crate::message::{Message, RECORD_MIN, Record};
use crate::model::{LogIndex, QueueId, QueueOffset, Term, Topic, system_topic};

const SEGMENT: u64 = 4096;

struct Fixture {
    folder: TempDir,
    faults: Arc<Faults>,
}

/// An open log. Dropped, it is as if the process had been killed.
struct Open {
    // The log is dropped first: it ends the threads.
    log: EntryLog,
    committer: Committer,
    store: Arc<Store>,
    damaged_below: Option<LogIndex>,
}

impl Fixture {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), faults: Arc::default() }
    }

    fn config(&self) -> StoreConfig {
        StoreConfig {
            segment_bytes: SEGMENT,
            queue_file_entries: 8,
            index: false,
            ..StoreConfig::new(self.folder.path().join("store"))
        }
    }

    fn try_open(&self, options: EntryOptions) -> Result<Open> {
        let disk = Disk::faulty(Arc::clone(&self.faults));
        let options = EntryOptions { sync: true, ..options };
        let opened =
            Store::open_entries(self.config(), options, disk, Clock::system(), Listener::new(|_| {}))?;
        let OpenedEntries { store, log, committer, damaged_below } = opened;
        Ok(Open { log, committer, store, damaged_below })
    }

    fn open(&self) -> Open {
        self.try_open(EntryOptions::default()).unwrap()
    }

    /// Opens it after the process died.
    fn open_again(&mut self) -> Open {
        self.open_knowing(None)
    }

    /// Likewise, with what this replica remembers of what was committed.
    fn open_knowing(&mut self, committed_index: Option<u64>) -> Open {
        self.faults = Arc::default();
        let committed_index = committed_index.map(LogIndex);
        self.try_open(EntryOptions { committed_index, ..EntryOptions::default() }).unwrap()
    }

    fn segment(&self, base: u64) -> PathBuf {
        self.config().commit_log.join(format!("{base:020}"))
    }

    fn flip(&self, at: u64, mask: u8) {
        let file = Disk::real().open(&self.segment(at / SEGMENT * SEGMENT), false).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at % SEGMENT).unwrap();
        file.write_all_at(&[byte[0] ^ mask], at % SEGMENT).unwrap();
    }
}

impl Open {
    fn put(&self, index: u64, term: u64, bodies: &[&str]) -> Vec<u64> {
        let mut drafts: Vec<Draft> = bodies.iter().map(|body| draft("T", body)).collect();
        let entry = NewEntry {
            index: LogIndex(index),
            term: Term(term),
            kind: EntryKind::Data,
            command: &[],
            forgotten: &[],
            drafts: &mut drafts,
        };
        let appended = self.log.append(entry).unwrap();
        appended.into_iter().map(|appended| appended.queue_offset.0).collect()
    }

    fn forget(&self, index: u64, term: u64, topic: &str) {
        let entry = NewEntry {
            index: LogIndex(index),
            term: Term(term),
            kind: EntryKind::Data,
            command: &[],
            forgotten: &[Topic::new(topic)],
            drafts: &mut [],
        };
        self.log.append(entry).unwrap();
    }

    /// Waits until all is synced.
    fn flush(&self) -> std::result::Result<(), String> {
        let (done, is_done) = mpsc::channel();
        self.log.when_flushed(Box::new(move |result| done.send(result).unwrap()));
        is_done.recv().unwrap()
    }

    fn truncate(&self, last: u64) -> std::result::Result<(), String> {
        let (id, position, len) = self.log.find(LogIndex(last)).unwrap().unwrap();
        let (done, is_done) = mpsc::channel();
        let tell = Box::new(move |result| done.send(result).unwrap());
        self.log.truncate_after(Some(id), position.plus(len as u64), tell);
        is_done.recv().unwrap()
    }

    fn commit(&self, index: u64) {
        self.flush().unwrap();
        let entry = self.entry(index);
        let head = decode_head(&entry.bytes, entry.position).unwrap();
        for topic in head.forgotten {
            self.committer.forget_topic(&Topic::new(topic)).unwrap();
        }
        self.committer.commit(entry.position, &entry.bytes).unwrap();
        self.log.applied(LogIndex(index));
    }

    fn entry(&self, index: u64) -> StoredEntry {
        self.try_entry(index).unwrap()
    }

    fn try_entry(&self, index: u64) -> Result<StoredEntry> {
        let entries = self.log.entries(LogIndex(index), LogIndex(index + 1), 1 << 20, Check::Whole);
        entries.map(|mut entries| entries.pop().unwrap())
    }

    /// Returns index and term of each entry, and the bodies of its messages.
    fn content(&self) -> Vec<(u64, u64, Vec<String>)> {
        let Some(last) = self.log.last() else { return Vec::new() };
        let entries =
            self.log.entries(LogIndex(0), LogIndex(last.index.0 + 1), usize::MAX, Check::Whole).unwrap();
        entries.iter().map(|entry| (entry.index.0, entry.term.0, bodies(entry))).collect()
    }
}

fn bodies(entry: &StoredEntry) -> Vec<String> {
    let head = decode_entry(&entry.bytes, entry.position).unwrap();
    let mut rest = &entry.bytes[head.record_len..];
    let mut bodies = Vec::new();
    while !rest.is_empty() {
        let record = Record::decode(rest).unwrap();
        bodies.push(String::from_utf8(record.body.to_vec()).unwrap());
        rest = &rest[record.total_size..];
    }
    bodies
}

fn draft(topic: &str, body: &str) -> Draft {
    Draft::new(&Message::plain(topic, 0, body, "")).unwrap()
}

fn expected(range: std::ops::Range<u64>, term: u64) -> Vec<(u64, u64, Vec<String>)> {
    range.map(|index| (index, term, vec![format!("m{index}")])).collect()
}

fn put_numbered(open: &Open, range: std::ops::Range<u64>, term: u64) -> Vec<u64> {
    let mut ends = Vec::new();
    for index in range {
        open.put(index, term, &[&format!("m{index}")]);
        ends.push(open.log.end().0);
    }
    ends
}

#[test]
fn a_log_cut_at_any_byte_keeps_the_whole_entries_before() {
    let mut fixture = Fixture::new();
    let open = fixture.open();
    let ends = put_numbered(&open, 0..7, 1);
    open.flush().unwrap();
    drop(open);
    let saved = copy_of(&fixture.config().root);
    for cut in ends[2]..=ends[6] {
        restore(&saved, &fixture.config().root);
        let file = Disk::real().open(&fixture.segment(0), false).unwrap();
        file.zero(cut, SEGMENT - cut).unwrap();
        let open = fixture.open_again();
        // The last two bytes of a record without properties are zero anyway.
        let whole = ends.iter().filter(|end| **end - 2 <= cut).count() as u64;
        assert_eq!(open.content(), expected(0..whole, 1), "cut at {cut}");
        assert_eq!(open.put(whole, 1, &[&format!("m{whole}")]).len(), 1);
        open.flush().unwrap();
        drop(open);
        assert_eq!(fixture.open_again().content(), expected(0..whole + 1, 1), "cut at {cut}, then appended");
    }
}

#[test]
fn a_flipped_bit_anywhere_ends_the_log_and_what_was_committed_is_missed() {
    let mut fixture = Fixture::new();
    let open = fixture.open();
    let ends = put_numbered(&open, 0..5, 1);
    open.flush().unwrap();
    drop(open);
    let saved = copy_of(&fixture.config().root);
    // Also in the first entry, and in the topic names of entry records: that is no log of another broker.
    for at in (0..ends[4]).step_by(3) {
        restore(&saved, &fixture.config().root);
        fixture.flip(at, 4);
        let open = fixture.open_knowing(Some(4));
        let hit = ends.iter().filter(|end| **end <= at).count() as u64;
        let content = open.content();
        if content == expected(0..5, 1) {
            // Nobody reads that byte of an entry record's head, and no CRC covers it.
            assert_eq!(open.damaged_below, None, "{at}");
            continue;
        }
        assert_eq!(content, expected(0..hit, 1), "flipped at {at}");
        assert_eq!(open.damaged_below, Some(LogIndex(4)), "flipped at {at}");
    }
}

#[test]
fn an_applied_entry_that_was_damaged_since_is_not_handed_out_until_it_is_mended() {
    let fixture = Fixture::new();
    let open = fixture.open();
    let ends = put_numbered(&open, 0..4, 1);
    let good: Vec<StoredEntry> = (0..4).map(|index| open.entry(index)).collect();
    (0..4).for_each(|index| open.commit(index));
    // The entry record's own position, its body, its message's body, its message's properties.
    for index in [1, 3] {
        let (start, end) = (ends[index - 1], ends[index]);
        for at in [start + 30, start + RECORD_MIN as u64 + 20, end - 4, end - 1] {
            fixture.flip(at, 1);
            let index = index as u64;
            assert!(matches!(open.try_entry(index), Err(Error::Damaged { .. })), "{at}");
            // The entries in front of it are handed out, and it is known to be damaged.
            let before =
                open.log.entries(LogIndex(0), LogIndex(index + 1), usize::MAX, Check::Whole).unwrap();
            assert_eq!(before.len() as u64, index);
            assert_eq!(open.store.damages(), [PhysicalOffset(start)]);
            assert_eq!(open.log.index_at(PhysicalOffset(start)).unwrap(), Some(LogIndex(index)));
            open.log.mend(&good[usize::try_from(index).unwrap()].bytes).unwrap();
            assert_eq!(open.store.damages(), []);
            assert_eq!(open.content(), expected(0..4, 1));
        }
    }
}

#[test]
fn an_entry_that_is_not_applied_is_mended_too() {
    let mut fixture = Fixture::new();
    let open = fixture.open();
    let ends = put_numbered(&open, 0..3, 1);
    let good = open.entry(1);
    open.flush().unwrap();
    drop(open);
    let open = fixture.open_again();
    fixture.flip(ends[1] - 4, 1);
    assert!(matches!(open.try_entry(1), Err(Error::Damaged { .. })));
    assert_eq!(open.log.index_at(PhysicalOffset(ends[0])).unwrap(), Some(LogIndex(1)));
    open.log.mend(&good.bytes).unwrap();
    assert_eq!(open.content(), expected(0..3, 1));
}

#[test]
fn only_the_entry_that_stood_there_mends_a_damaged_one() {
    let fixture = Fixture::new();
    let open = fixture.open();
    put_numbered(&open, 0..3, 1);
    (0..3).for_each(|index| open.commit(index));
    let before = open.content();
    let other = Fixture::new();
    let other = other.open();
    for (index, term) in [(0, 1), (1, 2), (2, 2)] {
        other.put(index, term, &[&format!("m{index}")]);
    }
    for index in [1, 2] {
        let error = open.log.mend(&other.entry(index).bytes).unwrap_err().to_string();
        assert!(error.contains("not the one that stood there"), "{error}");
    }
    assert_eq!(open.content(), before);
}

#[test]
fn a_damaged_last_entry_in_front_of_the_checkpoint_ends_the_log() {
    let fixture = Fixture::new();
    let open = fixture.open();
    let ends = put_numbered(&open, 0..4, 1);
    (0..4).for_each(|index| open.commit(index));
    open.log.stop();
    open.store.close().unwrap();
    drop(open);
    fixture.flip(ends[2] + RECORD_MIN as u64 + 20, 1);
    let options = EntryOptions {
        committed: PhysicalOffset(ends[3]),
        committed_index: Some(LogIndex(3)),
        ..EntryOptions::default()
    };
    let open = fixture.try_open(options).unwrap();
    assert_eq!(open.content(), expected(0..3, 1));
    assert_eq!(open.damaged_below, Some(LogIndex(3)));
    let queue = open.store.queues().get(&Topic::new("T"), QueueId(0)).unwrap();
    assert_eq!(queue.max_offset(), QueueOffset(3));
}

#[test]
fn a_damaged_queue_of_the_log_does_not_end_the_log() {
    let mut fixture = Fixture::new();
    let open = fixture.open();
    let ends = put_numbered(&open, 0..30, 1);
    (0..20).for_each(|index| open.commit(index));
    open.store.checkpoint_now().unwrap();
    drop(open);
    let saved = copy_of(&fixture.config().root);
    let queue = fixture.config().root.join("consumequeue").join(system_topic::RAFT_LOG).join("0");
    let second = queue.join(format!("{:020}", 8 * 20));
    let third = queue.join(format!("{:020}", 16 * 20));
    let write = |path: &PathBuf, at: u64, bytes: &[u8]| {
        Disk::real().open(path, false).unwrap().write_all_at(bytes, at).unwrap();
    };
    let damages: [&dyn Fn(); 5] = [
        &|| Disk::real().remove(&third).unwrap(),
        &|| Disk::real().remove(&second).unwrap(),
        &|| Disk::real().remove_folder(&queue).unwrap(),
        &|| write(&third, 3 * 20, &[0; 20]),
        &|| write(&third, 3 * 20, &(ends[10] + 1).to_be_bytes()),
    ];
    for (number, damage) in damages.iter().enumerate() {
        restore(&saved, &fixture.config().root);
        damage();
        let open = fixture.open_knowing(Some(19));
        assert_eq!(open.content(), expected(0..30, 1), "damage {number}");
        assert_eq!(open.damaged_below, None, "damage {number}");
        (0..30).for_each(|index| open.commit(index));
        let queue = open.store.queues().get(&Topic::new("T"), QueueId(0)).unwrap();
        assert_eq!(queue.max_offset(), QueueOffset(30), "damage {number}");
    }
}

#[test]
fn a_log_of_a_broker_without_replicas_is_refused() {
    let fixture = Fixture::new();
    let disk = Disk::faulty(Arc::clone(&fixture.faults));
    let mut opened = Store::open(fixture.config(), disk, Clock::system(), Listener::new(|_| {})).unwrap();
    opened.writer.append(&mut [draft("T", "m")]).pop().unwrap().unwrap();
    drop(opened);
    let error = fixture.try_open(EntryOptions::default()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("without enableDLegerCommitLog"), "{error}");
}

#[test]
fn a_segment_that_is_just_being_made_does_not_come_behind_those_of_a_snapshot() {
    let fixture = Fixture::new();
    let open = fixture.open();
    let body = "b".repeat(2500);
    for round in 0..100 {
        let base = PhysicalOffset((2 * round + 2) * SEGMENT);
        open.put(round, 1, &[&body]);
        open.flush().unwrap();
        std::thread::scope(|scope| {
            let grown = scope.spawn(|| open.store.prepare_segment());
            let (done, is_done) = mpsc::channel();
            let tell = Box::new(move |result| done.send(result).unwrap());
            open.log.restart_at(Some(EntryId { index: LogIndex(round), term: Term(1), crc: 0 }), base, tell);
            is_done.recv().unwrap().unwrap();
            grown.join().unwrap().unwrap();
        });
        let segments: Vec<u64> = open.store.log.segments().iter().map(|segment| segment.base().0).collect();
        assert_eq!(segments, [base.0], "round {round}");
        let files = Disk::real().list(&fixture.config().commit_log).unwrap();
        assert_eq!(files, [fixture.segment(base.0)]);
    }
}

#[test]
fn what_a_power_failure_left_of_unsynced_entries_does_not_count_as_damage() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..60 {
        let mut fixture = Fixture { faults: Arc::new(Faults::with_power()), ..Fixture::new() };
        let open = fixture.open();
        let synced = random.u64(0..20);
        put_numbered(&open, 0..synced, 1);
        open.flush().unwrap();
        put_numbered(&open, synced..synced + random.u64(1..20), 1);
        let (done, written) = mpsc::channel();
        open.log.when_written(Box::new(move |result| done.send(result).unwrap()));
        written.recv().unwrap().unwrap();
        let faults = Arc::clone(&fixture.faults);
        faults.die();
        drop(open);
        let share = random.u8(..100);
        faults.lose_power(|| random.u8(..100) < share).unwrap();
        let open = fixture.open_again();
        let count = open.content().len() as u64;
        assert!(count >= synced, "round {round}: {count} of {synced}");
        assert_eq!(open.content(), expected(0..count, 1));
        assert_eq!(open.damaged_below, None, "round {round}");
        open.put(count, 2, &["new"]);
        open.flush().unwrap();
        drop(open);
        let open = fixture.open_again();
        assert_eq!(open.content().len() as u64, count + 1, "round {round}");
        assert_eq!(open.damaged_below, None, "round {round}");
    }
}

#[test]
fn a_truncation_that_a_crash_interrupts_is_done_or_not_begun() {
    for power in [false, true] {
        for changes in 1..30 {
            let mut fixture = Fixture::new();
            if power {
                fixture.faults = Arc::new(Faults::with_power());
            }
            let open = fixture.open();
            put_numbered(&open, 0..40, 1);
            open.flush().unwrap();
            assert!(open.log.end().0 > 2 * SEGMENT);
            let faults = Arc::clone(&fixture.faults);
            faults.die_after(changes);
            let done = open.truncate(5);
            drop(open);
            faults.lose_power(|| true).unwrap();
            let open = fixture.open_again();
            let count = open.content().len() as u64;
            assert!((6..=40).contains(&count) && (done.is_err() || count == 6), "{changes}: {count}");
            assert_eq!(open.content(), expected(0..count, 1), "{changes}");
            assert_eq!(open.damaged_below, None, "{changes} changes, then {count} entries");
            if done.is_ok() {
                break;
            }
        }
    }
}

#[test]
fn stale_entries_behind_a_truncation_never_come_back() {
    let mut fixture = Fixture::new();
    let open = fixture.open();
    put_numbered(&open, 0..40, 1);
    open.flush().unwrap();
    open.truncate(9).unwrap();
    assert_eq!(open.content(), expected(0..10, 1));
    drop(open);
    let open = fixture.open_again();
    assert_eq!(open.content(), expected(0..10, 1));
    // Of the same length, at the same place.
    put_numbered(&open, 10..12, 2);
    open.flush().unwrap();
    drop(open);
    let open = fixture.open_again();
    let content = [expected(0..10, 1), expected(10..12, 2)].concat();
    assert_eq!(open.content(), content);
    assert_eq!(open.damaged_below, None);
}

/// Found by the simulation (seed 1503): a replica counts what it finds at its start, so a killed one that starts again must
/// not answer for what a power failure may still take.
#[test]
fn what_a_killed_process_did_not_sync_is_synced_before_it_counts() {
    let mut fixture = Fixture::new();
    let open = fixture.open();
    put_numbered(&open, 0..2, 1);
    open.flush().unwrap();
    fixture.faults.sync_fails.store(true, std::sync::atomic::Ordering::SeqCst);
    put_numbered(&open, 2..4, 1);
    open.flush().unwrap_err();
    assert!(open.store.log().flushed() < open.store.log().written());
    drop(open);
    let open = fixture.open_again();
    assert_eq!(open.content(), expected(0..4, 1));
    assert_eq!(open.store.log().flushed(), open.store.log().written());
    assert!(fixture.faults.syncs.load(std::sync::atomic::Ordering::SeqCst) > 0);
    drop(open);
    // Where that fails, it does not start.
    fixture.faults = Arc::default();
    fixture.faults.sync_fails.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(fixture.try_open(EntryOptions::default()).is_err());
}

#[test]
fn a_filler_without_an_entry_behind_it_changes_nothing() {
    let mut fixture = Fixture::new();
    let open = fixture.open();
    let mut count = 0;
    while open.log.end().0 + 600 < SEGMENT {
        open.put(count, 1, &[&format!("m{count}")]);
        count += 1;
    }
    let big = "b".repeat(700);
    open.flush().unwrap();
    let end = open.log.end().0;
    // The filler is written, then the process dies.
    fixture.faults.die_after(2);
    open.put(count, 1, &[&big]);
    assert!(open.flush().is_err());
    drop(open);
    let mut magic = [0; 8];
    let file = Disk::real().open(&fixture.segment(0), false).unwrap();
    file.read_exact_at(&mut magic, end).unwrap();
    assert_eq!(magic[4..], crate::message::BLANK_MAGIC.to_be_bytes());
    for _ in 0..2 {
        let open = fixture.open_again();
        assert_eq!(open.content(), expected(0..count, 1));
        assert_eq!((open.log.end().0, open.damaged_below), (end, None));
    }
    let open = fixture.open_again();
    open.put(count, 1, &["small"]);
    assert!(open.log.end().0 < SEGMENT);
    open.put(count + 1, 1, &[&big]);
    open.flush().unwrap();
    drop(open);
    assert_eq!(fixture.open_again().content().len() as u64, count + 2);
}

#[test]
fn entries_of_others_must_follow_byte_by_byte() {
    let leader = Fixture::new();
    let leader = leader.open();
    put_numbered(&leader, 0..3, 1);
    leader.put(3, 2, &["m3"]);
    let entries: Vec<StoredEntry> = (0..4).map(|index| leader.entry(index)).collect();
    let follower = Fixture::new();
    let follower = follower.open();
    follower.log.append_stored(entries[0].bytes.clone()).unwrap();
    let refuse = |bytes: Bytes, text: &str| {
        let error = follower.log.append_stored(bytes).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert_eq!(follower.content(), expected(0..1, 1));
    };
    refuse(entries[2].bytes.clone(), "index 2 behind 0");
    refuse(entries[0].bytes.clone(), "index 0 behind 0");
    refuse(entries[1].bytes.slice(..entries[1].bytes.len() - 1), "");
    refuse([&entries[1].bytes[..], b"x"].concat().into(), "bytes follow");
    for at in [20, 30, RECORD_MIN + 40, entries[1].bytes.len() - 3] {
        let mut damaged = entries[1].bytes.to_vec();
        damaged[at] ^= 1;
        refuse(damaged.into(), "");
    }
    let other = Fixture::new();
    let other = other.open();
    other.put(0, 1, &["else"]);
    other.put(1, 1, &["m1"]);
    refuse(other.entry(1).bytes, "made behind another one");
    for entry in &entries[1..] {
        follower.log.append_stored(entry.bytes.clone()).unwrap();
    }
    // The same entry at another place.
    let longer = Fixture::new();
    let longer = longer.open();
    longer.put(0, 1, &["a longer one"]);
    let error = longer.log.append_stored(entries[1].bytes.clone()).unwrap_err().to_string();
    assert!(error.contains("made behind another one") || error.contains("belongs to"), "{error}");
    // An earlier term behind a later one.
    let old = Fixture::new();
    let old = old.open();
    put_numbered(&old, 0..3, 1);
    old.put(3, 2, &["m3"]);
    old.put(4, 1, &["m4"]);
    let error = follower.log.append_stored(old.entry(4).bytes).unwrap_err().to_string();
    assert!(error.contains("term 1 behind 2"), "{error}");
    assert_eq!(follower.content(), leader.content());
}

#[test]
fn queue_offsets_follow_what_is_taken_back_and_what_others_put_in() {
    let mut fixture = Fixture::new();
    let open = fixture.open();
    assert_eq!(open.put(0, 1, &["a", "b"]), [0, 1]);
    assert_eq!(open.put(1, 1, &["c"]), [2]);
    open.commit(0);
    open.flush().unwrap();
    open.truncate(0).unwrap();
    assert_eq!(open.put(1, 2, &["d"]), [2]);
    assert_eq!(open.put(2, 2, &["e"]), [3]);
    open.flush().unwrap();
    drop(open);
    // Nothing behind entry 0 is visible, but it is in the log.
    let open = fixture.open_again();
    assert_eq!(open.put(3, 3, &["f"]), [4]);
    open.forget(4, 3, "T");
    assert_eq!(open.put(5, 3, &["g"]), [0]);
    open.flush().unwrap();
    open.truncate(3).unwrap();
    assert_eq!(open.put(4, 4, &["h"]), [5]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever is done to a log and whenever it is killed, it holds what a list would.
    #[test]
    fn a_log_is_what_a_list_would_be(steps in proptest::collection::vec((0u8..10, 0u64..600), 1..60)) {
        let mut fixture = Fixture::new();
        let mut open = fixture.open();
        let (mut model, mut applied, mut term) = (Vec::<(u64, u64, Vec<String>)>::new(), 0u64, 1u64);
        for (step, number) in steps {
            match step {
                0..=5 => {
                    let body = format!("{number}-{}", "x".repeat(usize::try_from(number).unwrap()));
                    let index = model.len() as u64;
                    open.put(index, term, &[&body]);
                    model.push((index, term, vec![body]));
                }
                6 => if let Some(last) = (model.len() as u64).checked_sub(1 + number % 5)
                    && last >= applied && !model.is_empty() {
                    open.truncate(last).unwrap();
                    model.truncate(usize::try_from(last).unwrap() + 1);
                    term += 1;
                },
                7 => {
                    while applied < model.len() as u64 && number % 3 > 0 {
                        open.commit(applied);
                        applied += 1;
                    }
                }
                8 => {
                    open.flush().unwrap();
                    drop(open);
                    open = fixture.open_again();
                    // What was visible is found through the queue again, as far as the checkpoint knew it.
                    let visible = open.store.dispatched();
                    applied = 0;
                    while applied < model.len() as u64 && open.entry(applied).position < visible {
                        applied += 1;
                    }
                }
                _ => open.store.checkpoint_now().unwrap(),
            }
            prop_assert_eq!(&open.content(), &model);
        }
        open.flush().unwrap();
        drop(open);
        let open = fixture.open_again();
        prop_assert_eq!(&open.content(), &model);
        prop_assert_eq!(open.damaged_below, None);
    }
}
