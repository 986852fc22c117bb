//! Faults of a disk, which tests switch on: errors, a full disk, a process that dies in the middle of a write, and a
//! loss of power that takes back what was not synced.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A disk writes so many bytes at once or not at all.
const SECTOR: u64 = 512;

/// Faults of a disk, switched by the test that owns it while a store runs on it.
#[derive(Debug, Default)]
pub struct Faults {
    /// Every `fdatasync` and `fsync` fails with EIO.
    pub sync_fails: AtomicBool,
    /// Every `fdatasync` takes at least so long, in milliseconds.
    pub sync_ms: AtomicU64,
    /// Every write and allocation fails with ENOSPC.
    pub full: AtomicBool,
    /// If not 0: used space in percent that [`super::Disk::usage`] reports.
    pub used_percent: AtomicI64,
    /// Number of successful syncs.
    pub syncs: AtomicU64,
    /// The process is dead: nothing is changed any more.
    dead: AtomicBool,
    /// If not 0: it dies in so many changes.
    changes_left: AtomicU64,
    /// What was written and not synced, if that is to be known.
    unsynced: Mutex<Option<Unsynced>>,
}

/// By file number: the file, and what stood where something was written, oldest first.
type Unsynced = HashMap<u64, (fs::File, Vec<(u64, Vec<u8>)>)>;

impl Faults {
    /// Returns faults of a disk that can lose what is not synced. Syncs are only noted, not carried out.
    pub fn with_power() -> Self {
        Self { unsynced: Mutex::new(Some(HashMap::new())), ..Self::default() }
    }

    /// From now on nothing is changed on the disk: the process is dead.
    pub fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    /// The process dies in `changes` changes of the disk; a write in its middle.
    pub fn die_after(&self, changes: u64) {
        self.changes_left.store(changes.max(1), Ordering::SeqCst);
    }

    /// Returns whether the process is dead.
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Takes back a part of what was written and not synced, sector by sector as `loses` says. For a process that is
    /// dead.
    pub fn lose_power(&self, mut loses: impl FnMut() -> bool) -> io::Result<()> {
        let Some(unsynced) = &mut *self.unsynced() else { return Ok(()) };
        let mut files: Vec<_> = unsynced.drain().collect();
        // In a defined order, so that one seed has one result.
        files.sort_by_key(|(file, _)| *file);
        for (_, (file, writes)) in files {
            let mut lost: HashMap<u64, bool> = HashMap::new();
            for (at, bytes) in writes.iter().rev() {
                let end = at + bytes.len() as u64;
                for sector in at / SECTOR..end.div_ceil(SECTOR) {
                    if *lost.entry(sector).or_insert_with(&mut loses) {
                        let (from, to) = ((sector * SECTOR).max(*at), ((sector + 1) * SECTOR).min(end));
                        let index = |position: u64| usize::try_from(position - at).unwrap_or(usize::MAX);
                        file.write_all_at(&bytes[index(from)..index(to)], from)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts a change. An error says that the process is dead.
    pub(super) fn change(&self) -> io::Result<()> {
        let left =
            self.changes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left == Ok(1) {
            self.die();
        }
        if self.is_dead() { Err(dead()) } else { Ok(()) }
    }

    /// Called in front of a write of `len` bytes. Returns how many of them are still written.
    pub(super) fn write(&self, file: &fs::File, at: u64, len: usize) -> io::Result<usize> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::Error::from(rustix::io::Errno::NOSPC));
        }
        let was_dead = self.is_dead();
        let len = match self.change() {
            Ok(()) => len,
            Err(error) if was_dead => return Err(error),
            Err(_) => len / 2,
        };
        if let Some(unsynced) = &mut *self.unsynced() {
            let mut bytes = vec![0; len];
            let mut read = 0;
            while read < len {
                match file.read_at(&mut bytes[read..], at + read as u64)? {
                    0 => break,
                    count => read += count,
                }
            }
            let writes = match unsynced.entry(file.metadata()?.ino()) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert((file.try_clone()?, Vec::new())),
            };
            writes.1.push((at, bytes));
        }
        Ok(len)
    }

    /// Called in front of a sync of `file`, or of everything. Returns whether it is to be carried out.
    pub(super) fn sync(&self, file: Option<&fs::File>) -> io::Result<bool> {
        if self.sync_fails.load(Ordering::Relaxed) {
            return Err(io::Error::from(rustix::io::Errno::IO));
        }
        let wait = self.sync_ms.load(Ordering::Relaxed);
        if wait > 0 {
            std::thread::sleep(Duration::from_millis(wait));
        }
        // A process that died meanwhile did not get to know that it was synced.
        self.change()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let Some(unsynced) = &mut *self.unsynced() else { return Ok(true) };
        match file {
            Some(file) => {
                unsynced.remove(&file.metadata()?.ino());
            }
            None => unsynced.clear(),
        }
        Ok(false)
    }

    fn unsynced(&self) -> MutexGuard<'_, Option<Unsynced>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer of the disk of a dead process.
pub(super) fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::Disk;

    #[test]
    fn what_was_not_synced_is_lost_with_the_power() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let faults = Arc::new(Faults::with_power());
        let disk = Disk::faulty(Arc::clone(&faults));
        let file = disk.open(&path, true).unwrap();
        file.write_all_at(&[1; 1500], 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[2; 1000], 0).unwrap();
        file.write_all_at(&[3; 800], 600).unwrap();
        faults.die();
        assert!(file.write_all_at(&[4], 0).is_err() && file.sync_data().is_err());
        let mut sectors = [false, true].into_iter().cycle();
        faults.lose_power(|| sectors.next().unwrap()).unwrap();
        // From the end: sectors 1 and 2 are asked about first, then 0.
        let bytes = disk.read(&path).unwrap();
        assert_eq!(bytes[..512], [2; 512]);
        assert_eq!(bytes[512..600], [2; 88]);
        assert_eq!(bytes[600..1024], [3; 424]);
        assert_eq!(bytes[1024..], [1; 476]);
    }

    #[test]
    fn a_dying_process_leaves_half_a_write() {
        let folder = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::default());
        let disk = Disk::faulty(Arc::clone(&faults));
        let file = disk.open(&folder.path().join("file"), true).unwrap();
        faults.die_after(2);
        file.write_all_at(&[1; 10], 0).unwrap();
        assert!(file.write_all_at(&[2; 10], 10).is_err());
        assert!(disk.remove(file.path()).is_err());
        assert_eq!(disk.read(file.path()).unwrap(), [vec![1; 10], vec![2; 5]].concat());
    }
}
