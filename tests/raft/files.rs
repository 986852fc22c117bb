//! Compares the files of replicas that have stopped: same bytes at the same positions.

use std::collections::BTreeMap;
use std::path::Path;

use quorate::env::Disk;

/// Bytes of a ConsumeQueue entry.
const ENTRY: usize = 20;

/// Compares CommitLogs and ConsumeQueues of stores up to `end`, the end of what is committed everywhere.
pub(crate) fn assert_equal(stores: &[&Path], end: u64) {
    let (first, others) = stores.split_first().expect("a store");
    let log = commit_log(first, end);
    let queues = consume_queues(first, end);
    assert!(log.values().map(Vec::len).sum::<usize>() > 0, "{} is empty", first.display());
    for other in others {
        let other_log = commit_log(other, end);
        assert_eq!(names(&log), names(&other_log), "segments of {} and {}", first.display(), other.display());
        for (name, bytes) in &log {
            let at = bytes.iter().zip(&other_log[name]).position(|(a, b)| a != b);
            assert_eq!(at, None, "{name} differs in {} and {}", first.display(), other.display());
        }
        let other_queues = consume_queues(other, end);
        assert_eq!(
            names(&queues),
            names(&other_queues),
            "queues of {} and {}",
            first.display(),
            other.display()
        );
        for (name, entries) in &queues {
            let other_entries = &other_queues[name];
            let at = entries.iter().zip(other_entries).position(|(a, b)| a != b);
            assert_eq!(
                (at, entries.len()),
                (None, other_entries.len()),
                "queue {name} differs in {} and {}",
                first.display(),
                other.display()
            );
        }
    }
}

fn names<T>(map: &BTreeMap<String, T>) -> Vec<&str> {
    map.keys().map(String::as_str).collect()
}

/// Returns the segments, cut at `end`.
fn commit_log(store: &Path, end: u64) -> BTreeMap<String, Vec<u8>> {
    let mut segments = BTreeMap::new();
    for path in list(&store.join("commitlog")) {
        let name = name_of(&path);
        let base: u64 = name.parse().unwrap_or_else(|_| panic!("{} is no segment", path.display()));
        if base < end {
            let mut bytes = Disk::real().read(&path).unwrap();
            bytes.truncate(usize::try_from(end - base).unwrap());
            segments.insert(name, bytes);
        }
    }
    segments
}

/// Returns each queue's entries that lead to before `end`, from its first one on.
fn consume_queues(store: &Path, end: u64) -> BTreeMap<String, Vec<[u8; ENTRY]>> {
    let mut queues = BTreeMap::new();
    for topic in list(&store.join("consumequeue")) {
        for queue in list(&topic) {
            let mut entries = Vec::new();
            for file in list(&queue) {
                let bytes = Disk::real().read(&file).unwrap();
                let (whole, _) = bytes.as_chunks::<ENTRY>();
                entries.extend(whole.iter().filter(|entry| {
                    let position = u64::from_be_bytes(entry[..8].try_into().unwrap());
                    let size = u32::from_be_bytes(entry[8..12].try_into().unwrap());
                    size > 0 && position + u64::from(size) <= end
                }));
            }
            if !entries.is_empty() {
                queues.insert(format!("{}/{}", name_of(&topic), name_of(&queue)), entries);
            }
        }
    }
    queues
}

fn list(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut paths = Disk::real().list(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    paths.sort();
    paths
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}
