//! The fuzz targets, with every file of their corpus and some thousands of changes of these.

mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use targets::{TARGETS, Target};

/// Changed inputs of a target.
const CHANGED: usize = 2000;
/// Likewise of files with hundreds of lines.
const CHANGED_FILES: usize = 200;
/// Likewise of one that opens stores, which takes a thousand times as long as reading a frame.
const CHANGED_STORES: usize = 150;
/// Longest input that is made.
const LENGTH_MAX: usize = 16 << 10;
/// Bytes at which something ends.
const EDGES: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, b'"'];

#[expect(clippy::disallowed_methods, reason = "tests read their own files")]
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn run((name, function): Target, input: &str, data: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| function(data))).is_err() {
        let bytes: String =
            data.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
        panic!("target {name}, {input}: {bytes}");
    }
}

/// Runs the target on its corpus, then on as many changed inputs, the same ones each time.
fn replay(name: &str, changed: usize) {
    let target = *TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let files = corpus(name);
    assert!(!files.is_empty(), "{name} has a corpus");
    run(target, "nothing", &[]);
    for (file, data) in &files {
        run(target, file, data);
    }
    let mut random = fastrand::Rng::with_seed(7);
    for number in 0..changed {
        let (file, data) = random.choice(&files).unwrap();
        let mut data = data.clone();
        for _ in 0..random.usize(1..6) {
            change(&mut data, &files, &mut random);
        }
        data.truncate(LENGTH_MAX);
        run(target, &format!("change {number}, of {file}"), &data);
    }
}

/// Changes an input a little.
fn change(data: &mut Vec<u8>, files: &[(String, Vec<u8>)], random: &mut fastrand::Rng) {
    let at = random.usize(..=data.len());
    let end = (at + random.usize(..20)).min(data.len());
    match random.u8(..8) {
        0 => data.truncate(at),
        1 => drop(data.drain(at..end)),
        2 => {
            let piece = data[at..end].to_vec();
            data.splice(at..at, piece);
        }
        3 => {
            let (_, other) = random.choice(files).unwrap();
            let from = random.usize(..=other.len());
            data.truncate(at);
            data.extend_from_slice(&other[from..]);
        }
        4 => data.insert(at, random.u8(..)),
        5 => data[at..end].fill(*random.choice(&EDGES).unwrap()),
        _ if at == data.len() => data.push(*random.choice(&EDGES).unwrap()),
        6 => data[at] = *random.choice(&EDGES).unwrap(),
        _ => data[at] ^= 1 << random.u8(..8),
    }
}

macro_rules! replays {
    ($($name:ident: $changed:expr),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name), $changed);
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|(name, _)| *name).eq(replayed));
        }
    };
}

replays! {
    frame: CHANGED,
    header: CHANGED,
    body: CHANGED,
    registration: CHANGED,
    record: CHANGED,
    batch: CHANGED,
    properties: CHANGED,
    sql92: CHANGED,
    config: CHANGED_FILES,
    store: CHANGED_STORES,
    entries: CHANGED_STORES,
    derived: CHANGED_STORES,
    raft_message: CHANGED,
    raft_entry: CHANGED,
    raft_file: CHANGED,
    commands: CHANGED,
}
