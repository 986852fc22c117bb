//! A store through its public face: what is appended is there, also after the process or the disk failed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::env::Faults;
use crate::filter::Filter;
use crate::message::{Message, Record};
use crate::model::{QueueId, QueueOffset, Topic};

const SEGMENT: u64 = 4096;
const LIMITS: ReadLimits = ReadLimits {
    count_max: 32,
    bytes_max: 1 << 20,
    cold_count_max: 8,
    cold_bytes_max: 1 << 16,
    cold_distance: u64::MAX,
};

struct Fixture {
    folder: TempDir,
    faults: Arc<Faults>,
    clock: Clock,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder, faults: Arc::default(), clock: Clock::manual(1_700_000_000_000) }
    }

    fn config(&self) -> StoreConfig {
        let mut config = StoreConfig::new(self.folder.path().join("store"));
        config.segment_bytes = SEGMENT;
        config.queue_file_entries = 8;
        config.index_slots = 64;
        config.index_entries = 40;
        config
    }

    fn open(&self) -> TestStore {
        self.try_open().unwrap()
    }

    fn try_open(&self) -> Result<TestStore> {
        let disk = Disk::faulty(Arc::clone(&self.faults));
        let opened = Store::open(self.config(), disk, self.clock.clone(), Listener::new(|_| {}))?;
        Ok(TestStore { store: opened.store, writer: opened.writer, committer: opened.committer })
    }

    fn segment(&self, base: u64) -> PathBuf {
        self.config().commit_log.join(format!("{base:020}"))
    }
}

struct TestStore {
    store: Arc<Store>,
    writer: Writer,
    committer: Committer,
}

impl TestStore {
    fn send(&mut self, topic: &str, queue: u32, body: &str) -> Result<Appended> {
        let appended = self.write(topic, queue, body)?;
        self.commit();
        Ok(appended)
    }

    fn write(&mut self, topic: &str, queue: u32, body: &str) -> Result<Appended> {
        let properties = format!("KEYS\u{1}key-{body}\u{2}TAGS\u{1}{}\u{2}", &body[..1]);
        let draft = Draft::new(&Message::plain(topic, queue, body, &properties))?;
        self.writer.append(&mut [draft]).remove(0)
    }

    /// Commits all that is written.
    fn commit(&self) {
        loop {
            let from = self.store.log.committed();
            let Some(segment) = self.store.log.segment(from) else { return };
            match crate::message::scan(segment.tail(from), from) {
                crate::message::Scanned::Record(record) => {
                    let bytes = segment.slice(from, record.total_size).unwrap();
                    self.committer.commit(from, &bytes).unwrap();
                }
                crate::message::Scanned::Blank(len) => self.store.log.commit(from.plus(len as u64)),
                crate::message::Scanned::End(_) => return,
            }
        }
    }

    fn bodies(&self, topic: &str, queue: u32) -> Vec<String> {
        let topic = Topic::new(topic);
        let mut bodies = Vec::new();
        let mut next =
            self.store.queues().get(&topic, QueueId(queue)).map_or(QueueOffset(0), |q| q.min_offset());
        loop {
            let read = self.store.read(&topic, QueueId(queue), next, LIMITS, &Filter::All).unwrap();
            if read.status != ReadStatus::Found {
                return bodies;
            }
            for record in &read.records {
                let record = Record::decode(record).unwrap();
                assert_eq!(record.topic, topic.as_str());
                assert_eq!(record.queue_offset, next);
                bodies.push(String::from_utf8(record.body.to_vec()).unwrap());
                next = next.plus(1);
            }
            assert_eq!(read.next, next);
        }
    }

    fn by_key(&self, topic: &str, key: &str) -> Vec<String> {
        let query = IndexQuery {
            topic: &Topic::new(topic),
            key,
            count_max: 32,
            begin_timestamp: 0,
            end_timestamp: i64::MAX,
        };
        let positions = self.store.index().query(&query).unwrap();
        positions
            .into_iter()
            .map(|at| {
                String::from_utf8(Record::decode(&self.store.log.record(at).unwrap()).unwrap().body.to_vec())
                    .unwrap()
            })
            .collect()
    }

    fn close(self) {
        self.store.close().unwrap();
    }
}

fn numbered(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("m{n}")).collect()
}

#[test]
fn messages_are_read_in_order_over_many_segments() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for n in 0..100 {
        let appended = store.send("T", n % 3, &format!("m{n}")).unwrap();
        assert_eq!(appended.queue_offset, QueueOffset(u64::from(n / 3)));
    }
    assert!(store.store.log().segments().len() > 2);
    let expected: Vec<_> = (0..100).step_by(3).map(|n| format!("m{n}")).collect();
    assert_eq!(store.bodies("T", 0), expected);
    assert_eq!(store.by_key("T", "key-m77"), ["m77"]);
    assert!(store.by_key("T", "key-m100").is_empty());
    store.close();

    let mut store = fixture.open();
    assert_eq!(store.bodies("T", 0), expected);
    assert_eq!(store.send("T", 0, "m100").unwrap().queue_offset, QueueOffset(34));
    assert_eq!(store.by_key("T", "key-m77"), ["m77"]);
}

#[test]
fn messages_survive_a_killed_process() {
    let fixture = Fixture::new();
    for round in 0..5 {
        let mut store = fixture.open();
        assert_eq!(store.bodies("T", 0), numbered(0, round * 20));
        for n in round * 20..round * 20 + 20 {
            store.send("T", 0, &format!("m{n}")).unwrap();
            if n % 7 == 0 {
                store.store.checkpoint_now().unwrap();
            }
        }
        for n in 0..round * 20 + 20 {
            assert_eq!(store.by_key("T", &format!("key-m{n}")), [format!("m{n}")]);
        }
    }
}

#[test]
fn a_tail_cut_at_any_byte_loses_only_the_messages_that_it_hits() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let mut ends = vec![];
    for n in 0..6 {
        store.send("T", 0, &format!("m{n}")).unwrap();
        ends.push(store.store.log.written().0);
        if n == 2 {
            store.store.checkpoint_now().unwrap();
        }
    }
    drop(store);
    let saved = copy_of(&fixture.config().root);
    for cut in ends[2]..=ends[5] {
        restore(&saved, &fixture.config().root);
        let file = Disk::real().open(&fixture.segment(0), false).unwrap();
        file.zero(cut, SEGMENT - cut).unwrap();
        let mut store = fixture.open();
        let whole = ends.iter().filter(|end| **end <= cut).count();
        assert_eq!(store.bodies("T", 0), numbered(0, whole), "cut at {cut}");
        assert_eq!(store.by_key("T", "key-m5").len(), usize::from(whole == 6), "cut at {cut}");
        store.send("T", 0, &format!("m{whole}")).unwrap();
        drop(store);
        assert_eq!(fixture.open().bodies("T", 0), numbered(0, whole + 1), "cut at {cut}, then appended");
    }
}

#[test]
fn a_flipped_bit_in_a_tail_ends_the_log_and_is_kept_aside() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for n in 0..4 {
        store.send("T", 0, &format!("m{n}")).unwrap();
    }
    let third = store
        .store
        .queues()
        .get(&Topic::new("T"), QueueId(0))
        .unwrap()
        .entry(QueueOffset(2))
        .unwrap()
        .unwrap();
    drop(store);
    let file = Disk::real().open(&fixture.segment(0), false).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, third.position.0 + 88).unwrap();
    file.write_all_at(&[byte[0] ^ 4], third.position.0 + 88).unwrap();
    let store = fixture.open();
    assert_eq!(store.bodies("T", 0), numbered(0, 2));
    let kept = Disk::real().list(&fixture.config().root.join("cut")).unwrap();
    assert_eq!(Disk::real().read(&kept[0]).unwrap().len() as u64, u64::from(third.size) * 2);
}

/// A record that a crash left behind a hole must not come back when the hole is filled.
#[test]
fn a_stale_record_behind_the_end_does_not_come_back() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for n in 0..3 {
        store.send("T", 0, &format!("m{n}")).unwrap();
    }
    let second = store
        .store
        .queues()
        .get(&Topic::new("T"), QueueId(0))
        .unwrap()
        .entry(QueueOffset(1))
        .unwrap()
        .unwrap();
    drop(store);
    let file = Disk::real().open(&fixture.segment(0), false).unwrap();
    file.zero(second.position.0, u64::from(second.size)).unwrap();
    let mut store = fixture.open();
    assert_eq!(store.bodies("T", 0), numbered(0, 1));
    store.send("T", 0, "x1").unwrap();
    drop(store);
    assert_eq!(fixture.open().bodies("T", 0), ["m0", "x1"]);
}

#[test]
fn a_full_disk_refuses_messages_and_takes_them_again_when_there_is_room() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.send("T", 0, "m0").unwrap();
    fixture.faults.full.store(true, Ordering::Relaxed);
    assert!(matches!(store.send("T", 0, "x"), Err(Error::Full { .. })));
    fixture.faults.full.store(false, Ordering::Relaxed);
    store.send("T", 0, "m1").unwrap();

    fixture.faults.used_percent.store(91, Ordering::Relaxed);
    store.store.clean().unwrap();
    assert!(matches!(store.send("T", 0, "x"), Err(Error::Full { .. })));
    fixture.faults.used_percent.store(10, Ordering::Relaxed);
    store.store.clean().unwrap();
    for n in 2..40 {
        store.send("T", 0, &format!("m{n}")).unwrap();
    }
    assert_eq!(store.bodies("T", 0), numbered(0, 40));
    store.close();
    assert_eq!(fixture.open().bodies("T", 0), numbered(0, 40));
}

#[test]
fn a_disk_that_fills_at_a_segment_border_leaves_the_log_whole() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let mut sent = 0;
    while store.store.log.written().0 < SEGMENT - 1000 {
        store.send("T", 0, &format!("m{sent}")).unwrap();
        sent += 1;
    }
    fixture.faults.full.store(true, Ordering::Relaxed);
    let big = "b".repeat(1000);
    assert!(matches!(store.send("T", 0, &big), Err(Error::Full { .. })));
    fixture.faults.full.store(false, Ordering::Relaxed);
    store.send("T", 0, &format!("m{sent}")).unwrap();
    drop(store);
    assert_eq!(fixture.open().bodies("T", 0), numbered(0, sent + 1));
}

#[test]
fn a_failed_sync_stops_the_store() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.send("T", 0, "m0").unwrap();
    fixture.faults.sync_fails.store(true, Ordering::Relaxed);
    assert!(store.store.flush_log().is_err());
    fixture.faults.sync_fails.store(false, Ordering::Relaxed);
    assert!(matches!(store.send("T", 0, "m1"), Err(Error::Poisoned(_))));
    assert!(store.store.checkpoint_now().is_err());
}

#[test]
fn a_message_larger_than_a_segment_is_refused() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let big = "b".repeat(4096);
    assert!(matches!(store.send("T", 0, &big), Err(Error::TooLarge { .. })));
    assert_eq!(store.send("T", 0, "m0").unwrap().queue_offset, QueueOffset(0));
}

#[test]
fn two_brokers_cannot_open_one_store() {
    let fixture = Fixture::new();
    let lock = fixture.config().root.join("lock");
    Disk::real().make_folder(&fixture.config().root).unwrap();
    // As Java would hold it.
    let holder = std::process::Command::new("python3")
        .args(["-c", "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.lockf(f,fcntl.LOCK_EX); print('held',flush=True); sys.stdin.read()"])
        .arg(&lock)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut holder) = holder else {
        assert!(std::env::var_os("CI").is_none(), "CI needs python3");
        eprintln!("SKIPPED: python3 is needed to hold a lock as Java does");
        return;
    };
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(holder.stdout.as_mut().unwrap()), &mut line)
        .unwrap();
    let refused = matches!(fixture.try_open(), Err(Error::Locked(_)));
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(refused);
}

#[test]
fn one_process_cannot_open_a_store_twice() {
    let fixture = Fixture::new();
    let store = fixture.open();
    assert!(matches!(fixture.try_open(), Err(Error::Locked(_))));
    drop(store);
    fixture.open();
}

#[test]
fn old_segments_go_and_the_queues_begin_later() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for n in 0..200 {
        store.send("T", 0, &format!("m{n}")).unwrap();
    }
    store.store.checkpoint_now().unwrap();
    let count = store.store.log.segments().len();
    assert_eq!(store.store.delete_old_segments().unwrap(), 0);
    let modified = Disk::real().modified_ms(&fixture.segment(0)).unwrap();
    fixture.clock.set_ms(modified + 73 * 3_600_000);
    assert_eq!(store.store.delete_old_segments().unwrap(), (count - 1).min(10));
    let queue = store.store.queues().get(&Topic::new("T"), QueueId(0)).unwrap();
    let min = queue.min_offset();
    assert!(min.0 > 0 && min.0 < 200);
    assert_eq!(store.bodies("T", 0), numbered(usize::try_from(min.0).unwrap(), 200));
    let read = store.store.read(&Topic::new("T"), QueueId(0), QueueOffset(0), LIMITS, &Filter::All).unwrap();
    assert_eq!((read.status, read.next), (ReadStatus::OffsetTooSmall, min));
    drop(store);
    let mut store = fixture.open();
    assert_eq!(store.bodies("T", 0), numbered(usize::try_from(min.0).unwrap(), 200));
    assert_eq!(store.send("T", 0, "m200").unwrap().queue_offset, QueueOffset(200));
}

#[test]
fn a_topic_made_again_after_its_deletion_starts_at_zero_also_after_a_kill() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for n in 0..10 {
        store.send("T", 0, &format!("old{n}")).unwrap();
    }
    store.writer.forget_topic(&Topic::new("T"));
    store.committer.forget_topic(&Topic::new("T")).unwrap();
    for n in 0..3 {
        assert_eq!(store.send("T", 0, &format!("m{n}")).unwrap().queue_offset, QueueOffset(n));
    }
    drop(store);
    assert_eq!(fixture.open().bodies("T", 0), numbered(0, 3));
}

/// What is deleted first must not be missed by a recovery that reads the log again.
#[test]
fn a_broker_that_dies_while_it_deletes_a_topic_loses_nothing_of_other_topics() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.send("T", 0, "m0").unwrap();
    store.store.checkpoint_now().unwrap();
    for n in 1..4 {
        store.send("T", 0, &format!("m{n}")).unwrap();
        store.send("U", 0, &format!("m{n}")).unwrap();
    }
    store.writer.forget_topic(&Topic::new("T"));
    // It dies as soon as it wants to make anything durable.
    fixture.faults.sync_fails.store(true, Ordering::Relaxed);
    assert!(store.committer.forget_topic(&Topic::new("T")).is_err());
    drop(store);
    fixture.faults.sync_fails.store(false, Ordering::Relaxed);
    let mut store = fixture.open();
    assert_eq!(store.bodies("U", 0), numbered(1, 4));
    store.send("U", 0, "m4").unwrap();
    drop(store);
    assert_eq!(fixture.open().bodies("U", 0), numbered(1, 5));
}

#[test]
fn a_checkpoint_behind_the_end_of_a_shortened_log_does_not_come_into_force_later() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let mut sent = 0;
    let mut send_up_to = |store: &mut TestStore, position: u64| {
        while store.store.log.written().0 < position {
            store.send("T", 0, &format!("m{sent}")).unwrap();
            sent += 1;
        }
        store.bodies("T", 0)
    };
    send_up_to(&mut store, SEGMENT + 1000);
    store.close();
    Disk::real().remove(&fixture.segment(SEGMENT)).unwrap();
    let mut store = fixture.open();
    let before = store.bodies("T", 0);
    assert!(!before.is_empty());
    let expected = send_up_to(&mut store, SEGMENT + 200);
    drop(store);
    let mut store = fixture.open();
    assert_eq!(store.bodies("T", 0), expected);
    assert!(store.store.log.written().0 < SEGMENT + 1000, "{}", store.store.log.written());
    store.send("T", 0, "last").unwrap();
    drop(store);
    assert_eq!(fixture.open().bodies("T", 0).len(), expected.len() + 1);
}

#[test]
fn lost_queues_are_made_again_from_the_log() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for n in 0..30 {
        store.send("T", n % 2, &format!("m{n}")).unwrap();
    }
    let before = (store.bodies("T", 0), store.bodies("T", 1));
    store.close();
    Disk::real().remove_folder(&fixture.config().root.join("consumequeue")).unwrap();
    let store = fixture.open();
    assert_eq!((store.bodies("T", 0), store.bodies("T", 1)), before);
}

/// No broker stores such a message or deletes such a topic, but a file or a request may name it.
#[test]
fn a_topic_whose_name_leads_elsewhere_has_no_queues() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.send("T", 0, "m0").unwrap();
    let long = "l".repeat(250) + "onger";
    for name in ["", ".", "..", "../commitlog", "/tmp", "a/b", "a\0b", &long, &format!("{long}.")] {
        let deleted = Topic::new(name);
        store.writer.forget_topic(&deleted);
        store.committer.forget_topic(&deleted).unwrap();
    }
    for (name, count) in [("../out", 0), ("a/b", 0), (".", 0), (&*long, 1)] {
        store.send(name, 0, "m").unwrap();
        store.store.checkpoint_now().unwrap();
        assert_eq!(store.bodies(name, 0).len(), count, "{name}");
    }
    assert_eq!(store.bodies("T", 0), ["m0"]);
    assert!(!Disk::real().exists(&fixture.config().root.join("out")).unwrap());
    drop(store);
    assert_eq!(fixture.open().bodies("T", 0), ["m0"]);
}

#[test]
fn messages_are_found_by_time() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let start = fixture.clock.now_ms();
    for n in 0..20 {
        fixture.clock.set_ms(start + n / 2 * 10);
        store.send("T", 0, &format!("m{n}")).unwrap();
    }
    let at = |time: i64, boundary| {
        store.store.offset_by_time(&Topic::new("T"), QueueId(0), start + time, boundary).unwrap().0
    };
    for (time, lower, upper) in [(-1, 0, 0), (0, 0, 1), (5, 2, 1), (10, 2, 3), (90, 18, 19), (91, 20, 19)] {
        assert_eq!((at(time, Boundary::Lower), at(time, Boundary::Upper)), (lower, upper), "{time}");
    }
}

#[test]
fn store_times_never_go_back() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    let first = store.send("T", 0, "m0").unwrap().store_timestamp;
    fixture.clock.set_ms(first - 5000);
    assert_eq!(store.send("T", 0, "m1").unwrap().store_timestamp, first);
    drop(store);
    assert_eq!(fixture.open().send("T", 0, "m2").unwrap().store_timestamp, first);
}

#[test]
fn a_missing_segment_or_a_changed_segment_size_is_named() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    for n in 0..100 {
        store.send("T", 0, &format!("m{n}")).unwrap();
    }
    store.close();
    let hidden = fixture.folder.path().join("hidden");
    std::process::Command::new("mv").args([&fixture.segment(SEGMENT), &hidden]).status().unwrap();
    let error = fixture.try_open().err().unwrap().to_string();
    assert!(error.contains("00000000000000004096 before it is missing"), "{error}");
    std::process::Command::new("mv").args([&hidden, &fixture.segment(SEGMENT)]).status().unwrap();
    let file = Disk::real().open(&fixture.segment(SEGMENT), false).unwrap();
    file.set_len(100).unwrap();
    let error = fixture.try_open().err().unwrap().to_string();
    assert!(error.contains("has 100 bytes, but mappedFileSizeCommitLog is 4096"), "{error}");
}

#[test]
fn an_unfinished_next_segment_is_removed() {
    let fixture = Fixture::new();
    let mut store = fixture.open();
    store.send("T", 0, "m0").unwrap();
    drop(store);
    let file = Disk::real().open(&fixture.segment(SEGMENT), true).unwrap();
    file.set_len(77).unwrap();
    assert_eq!(fixture.open().bodies("T", 0), ["m0"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Whatever a crash makes of the unsynced tail, recovery keeps a prefix and goes on from there.
    #[test]
    fn any_damage_behind_the_checkpoint_leaves_a_prefix(
        before in 1usize..30,
        after in 1usize..30,
        damage in proptest::collection::vec((0u64..4096, any::<u8>()), 1..6),
    ) {
        let fixture = Fixture::new();
        let mut store = fixture.open();
        for n in 0..before {
            store.send("T", 0, &format!("m{n}")).unwrap();
        }
        store.store.checkpoint_now().unwrap();
        let durable = store.store.log.written().0;
        for n in before..before + after {
            store.send("T", 0, &format!("m{n}")).unwrap();
        }
        let end = store.store.log.written().0;
        drop(store);
        for (at, value) in damage {
            let at = durable + at % (end - durable);
            let file = Disk::real().open(&fixture.segment(at / SEGMENT * SEGMENT), false).unwrap();
            file.write_all_at(&[value], at % SEGMENT).unwrap();
        }
        let mut store = fixture.open();
        let bodies = store.bodies("T", 0).len();
        prop_assert!(bodies >= before && bodies <= before + after);
        let next = store.send("T", 0, "new").unwrap();
        prop_assert_eq!(next.queue_offset.0, bodies as u64);
        drop(store);
        prop_assert_eq!(fixture.open().bodies("T", 0).len(), bodies + 1);
    }

    /// Queues kept through kills and checkpoints equal queues rebuilt from the log.
    #[test]
    fn kept_queues_equal_rebuilt_queues(steps in proptest::collection::vec(0u8..10, 1..120)) {
        let fixture = Fixture::new();
        let mut store = fixture.open();
        for (n, step) in steps.iter().enumerate() {
            match step {
                0 => store = { drop(store); fixture.open() },
                1 => store = { store.close(); fixture.open() },
                2 => store.store.checkpoint_now().unwrap(),
                queue => { store.send("T", u32::from(*queue) % 3, &format!("m{n}")).unwrap(); }
            }
        }
        let kept: Vec<_> = (0..3).map(|queue| store.bodies("T", queue)).collect();
        store.close();
        let root = fixture.config().root;
        if Disk::real().exists(&root.join("consumequeue")).unwrap() {
            Disk::real().remove_folder(&root.join("consumequeue")).unwrap();
        }
        let store = fixture.open();
        let rebuilt: Vec<_> = (0..3).map(|queue| store.bodies("T", queue)).collect();
        prop_assert_eq!(kept, rebuilt);
    }
}

pub(super) fn copy_of(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    copy_folder(folder, copy.path());
    copy
}

pub(super) fn restore(saved: &TempDir, folder: &Path) {
    Disk::real().remove_folder(folder).unwrap();
    Disk::real().make_folder(folder).unwrap();
    copy_folder(saved.path(), folder);
}

fn copy_folder(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}
