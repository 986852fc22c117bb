//! Replicas are the same, byte for byte.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Findings;

/// Bytes of a ConsumeQueue entry.
const ENTRY: usize = 20;

/// Returns where the logs of two stores differ below `end`, if they do. What only one of them retains does not count.
pub(crate) fn first_difference(one: &Path, two: &Path, end: u64) -> io::Result<Option<u64>> {
    let others: BTreeMap<u64, PathBuf> = segments(two)?.into_iter().collect();
    for (base, path) in segments(one)? {
        let Some(other) = others.get(&base).filter(|_| base < end) else { continue };
        if let Some(at) = difference(&path, other, base, end)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Likewise of one segment. One that is not retained everywhere does not differ.
pub(crate) fn segment_difference(one: &Path, two: &Path, base: u64, end: u64) -> io::Result<Option<u64>> {
    let path = |store: &Path| store.join("commitlog").join(format!("{base:020}"));
    match difference(&path(one), &path(two), base, end) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found,
    }
}

fn difference(one: &Path, two: &Path, base: u64, end: u64) -> io::Result<Option<u64>> {
    let (a, b) = (fs::read(one)?, fs::read(two)?);
    let len = usize::try_from(end - base).unwrap_or(usize::MAX).min(a.len()).min(b.len());
    Ok(a[..len].iter().zip(&b[..len]).position(|(a, b)| a != b).map(|at| base + at as u64))
}

fn segments(store: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(store.join("commitlog"))? {
        let path = entry?.path();
        let base = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
        found.extend(base.map(|base: u64| (base, path)));
    }
    found.sort();
    Ok(found)
}

/// Compares the stores of replicas that have stopped, up to the end of what is committed everywhere.
pub(crate) fn check(stores: &[(usize, PathBuf)], end: u64, findings: &mut Findings) -> io::Result<u64> {
    let Some(((first, first_store), others)) = stores.split_first() else { return Ok(0) };
    let queues = consume_queues(first_store, end)?;
    for (node, store) in others {
        if let Some(at) = first_difference(first_store, store, end)? {
            findings.add("logs differ", format!("n{first} and n{node} at {at} of {end}"));
        }
        let other = consume_queues(store, end)?;
        for (name, entries) in &queues {
            let Some(other) = other.get(name) else {
                findings.add("queues differ", format!("n{node} lacks {name}"));
                continue;
            };
            // By position: what only one of them retains does not count.
            let from = entries.first_key_value().max(other.first_key_value()).map_or(0, |(at, _)| *at);
            let difference = entries.range(from..).zip(other.range(from..)).find(|(a, b)| a != b);
            let (a, b) = (entries.range(from..).count(), other.range(from..).count());
            if difference.is_some() || a != b {
                let text = format!("{name} of n{first} and n{node}: {a} and {b} entries, {difference:?}");
                findings.add("queues differ", text);
            }
        }
    }
    Ok(end)
}

/// Returns each queue's entries that lead to before `end`, by position.
fn consume_queues(store: &Path, end: u64) -> io::Result<BTreeMap<String, BTreeMap<u64, [u8; ENTRY]>>> {
    let mut queues = BTreeMap::new();
    for topic in list(&store.join("consumequeue"))? {
        for queue in list(&topic)? {
            let mut entries = BTreeMap::new();
            for file in list(&queue)? {
                let bytes = fs::read(&file)?;
                for entry in bytes.as_chunks::<ENTRY>().0 {
                    let position = u64::from_be_bytes(entry[..8].try_into().expect("8 bytes"));
                    let size = u32::from_be_bytes(entry[8..12].try_into().expect("4 bytes"));
                    if size > 0 && position + u64::from(size) <= end {
                        entries.insert(position, *entry);
                    }
                }
            }
            if !entries.is_empty() {
                queues.insert(format!("{}/{}", name_of(&topic), name_of(&queue)), entries);
            }
        }
    }
    Ok(queues)
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
