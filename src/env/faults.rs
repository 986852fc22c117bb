//! Faults of a disk, which tests switch on: errors, a full disk, a process that dies in the middle of a write, and a
//! loss of power that takes back what was not synced.
//!
//! What is lost is as POSIX allows, not as one file system has it: a sync of a file says nothing of its name, and a sync
//! of a folder nothing of other folders. Only the order of changes of names is kept, as every journal keeps it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
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
    /// No further file can be opened: EMFILE.
    pub no_files: AtomicBool,
    /// Number of files that could not be opened for it.
    pub files_refused: AtomicU64,
    /// If not 0: used space in percent that [`super::Disk::usage`] reports.
    pub used_percent: AtomicI64,
    /// Number of successful syncs.
    pub syncs: AtomicU64,
    /// The process is dead: nothing is changed any more.
    dead: AtomicBool,
    /// If not 0: it dies in so many changes.
    changes_left: AtomicU64,
    /// What was changed and not synced, if that is to be known.
    unsynced: Mutex<Option<Unsynced>>,
    /// All changes, if they are to be known.
    changes: Mutex<Option<Vec<(Change, PathBuf)>>>,
    /// Files that were written to, each once for each sync.
    written: AtomicU64,
}

/// What is done to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A file is made.
    Create,
    /// A folder is made.
    MakeFolder,
    /// Bytes are written.
    Write,
    /// Bytes are made zero.
    Zero,
    /// Blocks are allocated.
    Allocate,
    /// A file's length is set.
    SetLen,
    /// A file is synced.
    Sync,
    /// A folder is synced.
    SyncFolder,
    /// A file system is synced.
    SyncAll,
    /// A file gets another name.
    Rename,
    /// A file is removed.
    Remove,
    /// A folder is removed.
    RemoveFolder,
}

#[derive(Debug, Default)]
struct Unsynced {
    /// By file number.
    files: HashMap<u64, Content>,
    /// Oldest first.
    names: Vec<Name>,
}

/// What stood in a file where something was written since its last sync, oldest first.
#[derive(Debug)]
struct Content {
    file: fs::File,
    /// Counts the files, in the order of their first writes.
    order: u64,
    writes: Vec<Overwritten>,
}

#[derive(Debug)]
struct Overwritten {
    at: u64,
    bytes: Vec<u8>,
    /// How long the file was.
    len: u64,
}

/// A change of names, with what is needed to take it back.
#[derive(Debug)]
enum Name {
    Made(PathBuf),
    MadeFolder(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, old: Option<fs::File> },
    Removed(PathBuf, fs::File),
    RemovedFolder { path: PathBuf, folders: Vec<PathBuf>, files: Vec<(PathBuf, fs::File)> },
}

impl Faults {
    /// Returns faults of a disk that can lose what is not synced. Syncs are only noted, not carried out.
    pub fn with_power() -> Self {
        Self { unsynced: Mutex::new(Some(Unsynced::default())), ..Self::default() }
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

    /// From now on all changes are remembered.
    pub fn record_changes(&self) {
        *lock(&self.changes) = Some(Vec::new());
    }

    /// Returns the changes since [`Faults::record_changes`], the one that the process died in included.
    pub fn changes(&self) -> Vec<(Change, PathBuf)> {
        lock(&self.changes).clone().unwrap_or_default()
    }

    /// Takes back a part of what was changed and not synced: bytes sector by sector as `loses` says, a file's length, and
    /// the latest changes of names. For a process that is dead.
    pub fn lose_power(&self, mut loses: impl FnMut() -> bool) -> io::Result<()> {
        let Some(unsynced) = &mut *lock(&self.unsynced) else { return Ok(()) };
        let mut files: Vec<_> = unsynced.files.drain().collect();
        // In a defined order, so that one seed has one result.
        files.sort_by_key(|(_, content)| content.order);
        for (_, content) in files {
            content.lose(&mut loses)?;
        }
        while let Some(name) = unsynced.names.pop() {
            if !loses() {
                unsynced.names.clear();
                break;
            }
            name.take_back()?;
        }
        Ok(())
    }

    /// Counts a change. An error says that the process is dead.
    pub(super) fn change(&self, change: Change, path: &Path) -> io::Result<()> {
        let left =
            self.changes_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if !self.is_dead()
            && let Some(changes) = &mut *lock(&self.changes)
        {
            changes.push((change, path.to_owned()));
        }
        if left == Ok(1) {
            self.die();
        }
        if self.is_dead() { Err(dead()) } else { Ok(()) }
    }

    /// Called in front of a write of `len` bytes. Returns how many of them are still written.
    pub(super) fn write(
        &self,
        change: Change,
        path: &Path,
        file: &fs::File,
        at: u64,
        len: usize,
    ) -> io::Result<usize> {
        if self.full.load(Ordering::Relaxed) {
            return Err(io::Error::from(rustix::io::Errno::NOSPC));
        }
        let was_dead = self.is_dead();
        let len = match self.change(change, path) {
            Ok(()) => len,
            Err(error) if was_dead => return Err(error),
            Err(_) => len / 2,
        };
        self.note_overwritten(file, at, len)?;
        Ok(len)
    }

    /// Called in front of a change of a file's length.
    pub(super) fn set_len(&self, path: &Path, file: &fs::File, len: u64) -> io::Result<()> {
        self.change(Change::SetLen, path)?;
        let lost = file.metadata()?.len().saturating_sub(len);
        self.note_overwritten(file, len, usize::try_from(lost).unwrap_or(usize::MAX))
    }

    fn note_overwritten(&self, file: &fs::File, at: u64, len: usize) -> io::Result<()> {
        let Some(unsynced) = &mut *lock(&self.unsynced) else { return Ok(()) };
        let mut bytes = vec![0; len];
        let mut read = 0;
        while read < len {
            match file.read_at(&mut bytes[read..], at + read as u64)? {
                0 => break,
                count => read += count,
            }
        }
        let content = match unsynced.files.entry(file.metadata()?.ino()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Content {
                file: file.try_clone()?,
                order: self.written.fetch_add(1, Ordering::Relaxed),
                writes: Vec::new(),
            }),
        };
        content.writes.push(Overwritten { at, bytes, len: file.metadata()?.len() });
        Ok(())
    }

    /// Called in front of a sync of `file`, or of everything. Returns whether it is to be carried out.
    pub(super) fn sync(&self, path: &Path, file: Option<&fs::File>) -> io::Result<bool> {
        self.before_sync(if file.is_some() { Change::Sync } else { Change::SyncAll }, path)?;
        let Some(unsynced) = &mut *lock(&self.unsynced) else { return Ok(true) };
        match file {
            Some(file) => {
                unsynced.files.remove(&file.metadata()?.ino());
            }
            None => *unsynced = Unsynced::default(),
        }
        Ok(false)
    }

    /// Called in front of a sync of a folder. Returns whether it is to be carried out.
    pub(super) fn sync_folder(&self, path: &Path) -> io::Result<bool> {
        self.before_sync(Change::SyncFolder, path)?;
        let Some(unsynced) = &mut *lock(&self.unsynced) else { return Ok(true) };
        unsynced.names.retain(|name| name.folder() != Some(path));
        Ok(false)
    }

    fn before_sync(&self, change: Change, path: &Path) -> io::Result<()> {
        if self.sync_fails.load(Ordering::Relaxed) {
            return Err(io::Error::from(rustix::io::Errno::IO));
        }
        let wait = self.sync_ms.load(Ordering::Relaxed);
        if wait > 0 {
            std::thread::sleep(Duration::from_millis(wait));
        }
        // A process that died meanwhile did not get to know that it was synced.
        self.change(change, path)?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Called in front of the making of a file.
    pub(super) fn create(&self, path: &Path) -> io::Result<()> {
        self.change(Change::Create, path)?;
        self.note_name(|| Ok(Some(Name::Made(path.to_owned()))))
    }

    /// Called in front of the making of a folder, with those of its parents that are made, too.
    pub(super) fn make_folder(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|folder| !folder.exists()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.change(Change::MakeFolder, path)?;
        missing
            .into_iter()
            .rev()
            .try_for_each(|folder| self.note_name(|| Ok(Some(Name::MadeFolder(folder.to_owned())))))
    }

    /// Called in front of a rename.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Change::Rename, to)?;
        self.note_name(|| {
            let (from, to, old) = (from.to_owned(), to.to_owned(), handle(to)?);
            Ok(from.exists().then_some(Name::Renamed { from, to, old }))
        })
    }

    /// Called in front of the removal of a file.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(Change::Remove, path)?;
        self.note_name(|| Ok(handle(path)?.map(|file| Name::Removed(path.to_owned(), file))))
    }

    /// Called in front of the removal of a folder.
    pub(super) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.change(Change::RemoveFolder, path)?;
        self.note_name(|| {
            if !path.exists() {
                return Ok(None);
            }
            let (mut folders, mut files) = (vec![path.to_owned()], Vec::new());
            let mut next = 0;
            while let Some(folder) = folders.get(next).cloned() {
                next += 1;
                for entry in fs::read_dir(folder)? {
                    let path = entry?.path();
                    match handle(&path)? {
                        Some(_) if path.is_dir() => folders.push(path),
                        Some(file) => files.push((path, file)),
                        None => {}
                    }
                }
            }
            Ok(Some(Name::RemovedFolder { path: path.to_owned(), folders, files }))
        })
    }

    fn note_name(&self, name: impl FnOnce() -> io::Result<Option<Name>>) -> io::Result<()> {
        if let Some(unsynced) = &mut *lock(&self.unsynced) {
            unsynced.names.extend(name()?);
        }
        Ok(())
    }
}

impl Content {
    /// Takes back what is lost.
    fn lose(self, loses: &mut impl FnMut() -> bool) -> io::Result<()> {
        let Self { file, writes, .. } = self;
        let len = file.metadata()?.len();
        let mut lost: HashMap<u64, bool> = HashMap::new();
        for Overwritten { at, bytes, .. } in writes.iter().rev() {
            let end = at + bytes.len() as u64;
            for sector in at / SECTOR..end.div_ceil(SECTOR) {
                if *lost.entry(sector).or_insert_with(&mut *loses) {
                    let (from, to) = ((sector * SECTOR).max(*at), ((sector + 1) * SECTOR).min(end));
                    let index = |position: u64| usize::try_from(position - at).unwrap_or(usize::MAX);
                    file.write_all_at(&bytes[index(from)..index(to)], from)?;
                }
            }
        }
        let before = writes.first().map_or(len, |first| first.len);
        let changed = before != len || writes.iter().any(|write| write.len != len);
        file.set_len(if changed && loses() { before } else { len })
    }
}

impl Name {
    /// Returns the folder that has to be synced.
    fn folder(&self) -> Option<&Path> {
        let (Self::Made(path)
        | Self::MadeFolder(path)
        | Self::Renamed { to: path, .. }
        | Self::Removed(path, _)
        | Self::RemovedFolder { path, .. }) = self;
        // As it is synced: see [`super::Disk::sync_folder`].
        path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
    }

    #[expect(clippy::disallowed_methods, reason = "this is what the disk itself does")]
    fn take_back(self) -> io::Result<()> {
        let done = match self {
            Self::Made(path) => fs::remove_file(path),
            Self::MadeFolder(path) => fs::remove_dir_all(path),
            Self::Renamed { from, to, old } => match (fs::rename(&to, &from), old) {
                (Ok(()), Some(old)) => put_back(&to, &old),
                (done, _) => done,
            },
            Self::Removed(path, file) => put_back(&path, &file),
            Self::RemovedFolder { folders, files, .. } => folders
                .iter()
                .try_for_each(fs::create_dir_all)
                .and_then(|()| files.iter().try_for_each(|(path, file)| put_back(path, file))),
        };
        match done {
            // Its folder is gone for good.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is what the disk itself does")]
fn handle(path: &Path) -> io::Result<Option<fs::File>> {
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is what the disk itself does")]
fn put_back(path: &Path, file: &fs::File) -> io::Result<()> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    fs::write(path, bytes)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
        disk.sync_folder(folder.path()).unwrap();
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
    fn names_that_were_not_synced_are_lost_with_the_power() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let faults = Arc::new(Faults::with_power());
        let disk = Disk::faulty(Arc::clone(&faults));
        let write = |name: &str, text: &[u8]| {
            let file = disk.open(&path(name), true).unwrap();
            file.write_all_at(text, 0).unwrap();
            file.sync_all().unwrap();
        };
        ["kept", "removed", "renamed", "replaced"].into_iter().for_each(|name| write(name, name.as_bytes()));
        disk.make_folder(&path("folder")).unwrap();
        write("folder/file", b"file");
        disk.sync_folder(&path("folder")).unwrap();
        disk.sync_folder(folder.path()).unwrap();
        disk.open(&path("kept"), false).unwrap().set_len(1).unwrap();
        disk.remove(&path("removed")).unwrap();
        disk.rename(&path("renamed"), &path("replaced")).unwrap();
        disk.remove_folder(&path("folder")).unwrap();
        write("new", b"new");
        disk.make_folder_unsynced(&path("a/b")).unwrap();
        faults.die();
        faults.lose_power(|| true).unwrap();
        for name in ["kept", "removed", "renamed", "replaced"] {
            assert_eq!(disk.read(&path(name)).unwrap(), name.as_bytes());
        }
        assert_eq!(disk.read(&path("folder/file")).unwrap(), b"file");
        assert_eq!(disk.list(folder.path()).unwrap().len(), 5);
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
