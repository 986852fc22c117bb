//! Files and folders, with faults that tests can switch on.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::FlockOperation;

use super::faults::{Change, dead};
use super::{Faults, KnownBad, Threads};

/// The kernel takes no more pieces in one call (`UIO_MAXIOV`).
const IOVECS_MAX: usize = 1024;

/// Access to the file system. Clones share their faults.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    faults: Option<Arc<Faults>>,
    threads: Threads,
}

/// A locked file; unlocked when dropped.
#[derive(Debug)]
pub struct Lock {
    file: fs::File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that is just being started has the file open, too.
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

/// Returns whether an error may pass by itself, without a loss: there is no room on the disk, or no more files can be
/// opened, in this process or on this machine.
pub fn lacks_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
        || matches!(errno, Some(Errno::MFILE | Errno::NFILE))
}

/// How full the file system of a path is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiskUsage {
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes that an ordinary user may still write.
    pub free_bytes: u64,
}

impl DiskUsage {
    /// Returns the used share of what an ordinary user may use, 0.0 to 1.0, as `df` and Java do: some blocks are
    /// neither used nor free, since the file system keeps them back.
    pub fn ratio(&self) -> f64 {
        match self.used_bytes + self.free_bytes {
            0 => 0.0,
            usable => self.used_bytes as f64 / usable as f64,
        }
    }
}

/// An open file. Positioned reads and writes only; may be shared between threads.
#[derive(Debug)]
pub struct File {
    file: fs::File,
    path: PathBuf,
    faults: Option<Arc<Faults>>,
}

#[expect(clippy::disallowed_methods, reason = "this is where the library opens files")]
impl Disk {
    /// Returns the machine's disk.
    pub fn real() -> Self {
        Self::default()
    }

    /// Returns the machine's disk with faults on top.
    pub fn faulty(faults: Arc<Faults>) -> Self {
        Self { faults: Some(faults), threads: Threads::default() }
    }

    /// Returns this disk, with other threads for the work on it.
    pub fn with_threads(self, threads: Threads) -> Self {
        Self { threads, ..self }
    }

    /// Returns the threads for what blocks on the disk.
    pub fn threads(&self) -> &Threads {
        &self.threads
    }

    /// Opens a file for reading and writing; makes it if `create`. Never truncates.
    pub fn open(&self, path: &Path, create: bool) -> io::Result<File> {
        self.one_more_file()?;
        if let Some(faults) = &self.faults
            && create
            && !path.try_exists()?
        {
            faults.create(path)?;
        }
        let file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
        Ok(File { file, path: path.to_owned(), faults: self.faults.clone() })
    }

    /// Reads a whole file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.one_more_file()?;
        fs::read(path)
    }

    /// Replaces a small file so that a crash leaves the old or the new content, never a mix.
    ///
    /// Writes `<path>.tmp`, syncs it, keeps the old file as `<path>.bak` (as Java's `ConfigManager` does),
    /// renames, and syncs the folder. Blocks on two fsyncs.
    pub fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let temporary = with_suffix(path, ".tmp");
        let file = self.open(&temporary, true)?;
        file.set_len(0)?;
        file.write_all_at(content, 0)?;
        file.sync_all()?;
        self.faulted(|faults| faults.change(Change::Write, path))?;
        match fs::read(path) {
            Ok(old) if old != content => fs::write(with_suffix(path, ".bak"), old)?,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.rename(&temporary, path)?;
        match path.parent() {
            Some(folder) => self.sync_folder(folder),
            None => Ok(()),
        }
    }

    /// Gives a file another name in the same file system; a file of that name is replaced.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faulted(|faults| faults.rename(from, to))?;
        fs::rename(from, to)
    }

    /// Removes a file. Maps of it stay readable until they are dropped.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        self.faulted(|faults| faults.remove(path))?;
        fs::remove_file(path)
    }

    /// Removes a folder with all that is in it.
    pub fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.faulted(|faults| faults.remove_folder(path))?;
        fs::remove_dir_all(path)
    }

    /// Makes a folder and its parents, durably.
    pub fn make_folder(&self, path: &Path) -> io::Result<()> {
        // The folder itself even if it is there: whoever made it may have died before the sync.
        let mut unsynced = vec![path];
        for folder in path.ancestors().skip(1) {
            if folder.as_os_str().is_empty() || folder.try_exists()? {
                break;
            }
            unsynced.push(folder);
        }
        self.make_folder_unsynced(path)?;
        unsynced.iter().filter_map(|folder| folder.parent()).try_for_each(|parent| self.sync_folder(parent))
    }

    /// Makes a folder and its parents, not durably: the folders that they are in have to be synced.
    pub fn make_folder_unsynced(&self, path: &Path) -> io::Result<()> {
        self.faulted(|faults| faults.make_folder(path))?;
        fs::create_dir_all(path)
    }

    /// Lists a folder's entries, sorted by name; empty if there is no such folder.
    pub fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut paths = entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    /// Returns whether there is a file or folder of that name.
    pub fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    /// Asks the faults whether a file can be opened.
    fn one_more_file(&self) -> io::Result<()> {
        match &self.faults {
            Some(faults) if faults.no_files.load(Ordering::Relaxed) => {
                faults.files_refused.fetch_add(1, Ordering::Relaxed);
                Err(rustix::io::Errno::MFILE.into())
            }
            _ => Ok(()),
        }
    }

    /// Returns when a file was last written, in milliseconds since 1970.
    pub fn modified_ms(&self, path: &Path) -> io::Result<i64> {
        let modified = fs::metadata(path)?.modified()?;
        Ok(modified
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Makes everything on the file system of `path` durable: for many files at once.
    pub fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        if KnownBad::SkipSync.is_on() {
            return Ok(());
        }
        if let Some(faults) = &self.faults
            && !faults.sync(path, None)?
        {
            return Ok(());
        }
        Ok(rustix::fs::syncfs(fs::File::open(path)?)?)
    }

    /// Makes the entries of a folder durable.
    pub fn sync_folder(&self, path: &Path) -> io::Result<()> {
        if KnownBad::SkipSync.is_on() {
            return Ok(());
        }
        self.one_more_file()?;
        // The parent of a bare file name is empty and means the current folder.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let folder = fs::File::open(path)?;
        match &self.faults {
            Some(faults) if !faults.sync_folder(path)? => Ok(()),
            _ => folder.sync_all(),
        }
    }

    /// Returns how full the file system of `path` is.
    pub fn usage(&self, path: &Path) -> io::Result<DiskUsage> {
        let stat = rustix::fs::statvfs(path)?;
        let total_bytes = stat.f_blocks * stat.f_frsize;
        let mut used_bytes = stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize;
        let mut free_bytes = stat.f_bavail * stat.f_frsize;
        if let Some(faults) = &self.faults {
            let used = faults.used_percent.load(Ordering::Relaxed);
            if used != 0 {
                used_bytes = total_bytes / 100 * u64::try_from(used).unwrap_or(0);
                free_bytes = total_bytes / 100 * u64::try_from(100 - used).unwrap_or(0);
            }
        }
        Ok(DiskUsage { total_bytes, used_bytes, free_bytes })
    }

    /// Takes an exclusive lock on a file, made if absent.
    /// `WouldBlock` if somebody holds it, in this process or another.
    pub fn lock(&self, path: &Path) -> io::Result<Lock> {
        let file = self.open(path, true)?.file;
        // Two locks: Java looks at the POSIX lock, which does not keep the same process out; flock does.
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        let lock = Lock { file };
        rustix::fs::fcntl_lock(&lock.file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            match error {
                rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN => {
                    io::Error::from(ErrorKind::WouldBlock)
                }
                other => io::Error::from(other),
            }
        })?;
        Ok(lock)
    }

    fn faulted(&self, change: impl FnOnce(&Faults) -> io::Result<()>) -> io::Result<()> {
        self.faults.as_deref().map_or(Ok(()), change)
    }
}

impl File {
    /// Returns the path that the file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length in bytes.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Returns true if the file has no bytes.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads exactly `buf.len()` bytes from `offset`.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    /// Reads up to `buf.len()` bytes from `offset`; fewer only at the end of the file.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes all of `buf` at `offset`. After an error any prefix may have been written.
    pub fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let whole = self.before_write(Change::Write, offset, buf.len())?;
        self.file.write_all_at(&buf[..whole], offset)?;
        if whole < buf.len() { Err(dead()) } else { Ok(()) }
    }

    /// Makes the content durable, not the times. An error must stop the broker: the kernel may have dropped
    /// the pages that it could not write.
    pub fn sync_data(&self) -> io::Result<()> {
        if self.before_sync()? { self.file.sync_data() } else { Ok(()) }
    }

    /// Makes the content and the file's size and times durable.
    pub fn sync_all(&self) -> io::Result<()> {
        if self.before_sync()? { self.file.sync_all() } else { Ok(()) }
    }

    /// Sets the length without allocating blocks.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        if let Some(faults) = &self.faults {
            faults.set_len(&self.path, &self.file, len)?;
        }
        self.file.set_len(len)
    }

    /// Allocates blocks for the first `len` bytes, so that later writes cannot find the disk full.
    ///
    /// Where the file system cannot, the missing bytes are written as zeros.
    pub fn allocate(&self, len: u64) -> io::Result<()> {
        self.before_write(Change::Allocate, 0, 0)?;
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                let at = self.len()?;
                self.write_zeros(at, len)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the end of the last byte from `offset` on that is not zero, or `None` if there is none. Reads no more
    /// than what was ever written, where the file system knows that.
    pub fn last_used(&self, offset: u64) -> io::Result<Option<u64>> {
        let mut bytes = vec![0u8; 1 << 20];
        let mut used = None;
        for (mut at, end) in self.written_ranges(offset)? {
            while at < end {
                let wanted = usize::try_from((end - at).min(bytes.len() as u64)).unwrap_or(bytes.len());
                let read = self.read_at(&mut bytes[..wanted], at)?;
                if read == 0 {
                    break;
                }
                // One pass without a branch first: nearly all that is read here is zero.
                if bytes[..read].iter().fold(0, |any, byte| any | byte) != 0 {
                    let last = bytes[..read].iter().rposition(|byte| *byte != 0).unwrap_or(0);
                    used = Some(at + last as u64 + 1);
                }
                at += read as u64;
            }
        }
        Ok(used)
    }

    /// Returns the ranges from `offset` on that were ever written. All are asked for before any is read: reading
    /// ahead brings pages of other ranges into memory, and those then count as written.
    fn written_ranges(&self, offset: u64) -> io::Result<Vec<(u64, u64)>> {
        use rustix::fs::{SeekFrom, seek};
        let (mut at, len) = (offset, self.len()?);
        let mut ranges = Vec::new();
        while at < len {
            let start = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(rustix::io::Errno::NXIO) => break,
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::OPNOTSUPP) => {
                    ranges.push((at, len));
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            let end = seek(&self.file, SeekFrom::Hole(start))?;
            ranges.push((start, end));
            at = end;
        }
        Ok(ranges)
    }

    /// Makes `len` bytes from `offset` zero without changing the length. Not durable until synced.
    pub fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let whole = usize::try_from(len).unwrap_or(usize::MAX);
        if self.before_write(Change::Zero, offset, whole)? != whole {
            return Err(dead());
        }
        match rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::ZERO_RANGE, offset, len) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {
                self.write_zeros(offset, offset + len)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_zeros(&self, mut at: u64, end: u64) -> io::Result<()> {
        let zeros = vec![0; 1 << 20];
        while at < end {
            let n = usize::try_from((end - at).min(zeros.len() as u64)).unwrap_or(zeros.len());
            self.file.write_all_at(&zeros[..n], at)?;
            at += n as u64;
        }
        Ok(())
    }

    /// Writes all of `parts`, one after the other, at `offset`. After an error any prefix may have been written.
    pub fn write_all_vectored_at(&self, parts: &[&[u8]], mut offset: u64) -> io::Result<()> {
        if self.faults.is_some() {
            return self.write_all_at(&parts.concat(), offset);
        }
        for chunk in parts.chunks(IOVECS_MAX) {
            let mut slices: Vec<io::IoSlice<'_>> = chunk.iter().map(|part| io::IoSlice::new(part)).collect();
            let mut slices = &mut slices[..];
            io::IoSlice::advance_slices(&mut slices, 0);
            while !slices.is_empty() {
                match rustix::io::pwritev(&self.file, slices, offset) {
                    Ok(0) => return Err(ErrorKind::WriteZero.into()),
                    Ok(n) => {
                        offset += n as u64;
                        io::IoSlice::advance_slices(&mut slices, n);
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Tells the kernel to start writing `len` bytes from `offset` and to drop them from memory when done.
    pub fn drop_cache(&self, offset: u64, len: u64) {
        let len = std::num::NonZeroU64::new(len);
        let _ = rustix::fs::fadvise(&self.file, offset, len, rustix::fs::Advice::DontNeed);
    }

    pub(super) fn as_std(&self) -> &fs::File {
        &self.file
    }

    /// Returns how many of `len` bytes are to be written.
    fn before_write(&self, change: Change, offset: u64, len: usize) -> io::Result<usize> {
        let faults = self.faults.as_ref();
        faults.map_or(Ok(len), |faults| faults.write(change, &self.path, &self.file, offset, len))
    }

    /// Returns whether a sync is to be carried out.
    fn before_sync(&self) -> io::Result<bool> {
        if KnownBad::SkipSync.is_on() {
            return Ok(false);
        }
        self.faults.as_ref().map_or(Ok(true), |faults| faults.sync(&self.path, Some(&self.file)))
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_are_kept_back_count_neither_as_used_nor_as_free() {
        let usage = DiskUsage { total_bytes: 100, used_bytes: 30, free_bytes: 20 };
        assert_eq!(usage.ratio(), 0.6);
        assert_eq!(DiskUsage { total_bytes: 0, used_bytes: 0, free_bytes: 0 }.ratio(), 0.0);
    }

    #[test]
    fn a_folder_that_was_made_survives_the_power() {
        let parent = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::with_power());
        let disk = Disk::faulty(Arc::clone(&faults));
        let folder = parent.path().join("a/b/c");
        disk.make_folder(&folder).unwrap();
        // One process made it, and died before the sync; the next one finds it there.
        disk.make_folder_unsynced(&parent.path().join("d")).unwrap();
        disk.make_folder(&parent.path().join("d")).unwrap();
        disk.make_folder_unsynced(&parent.path().join("e")).unwrap();
        faults.die();
        faults.lose_power(|| true).unwrap();
        assert!(folder.is_dir() && parent.path().join("d").is_dir() && !parent.path().join("e").exists());
    }

    #[test]
    fn a_disk_is_as_full_as_df_says() {
        let folder = tempfile::tempdir().unwrap();
        let df =
            std::process::Command::new("df").args(["--output=pcent"]).arg(folder.path()).output().unwrap();
        let text = String::from_utf8(df.stdout).unwrap();
        let percent: f64 = text.lines().nth(1).unwrap().trim().trim_end_matches('%').parse().unwrap();
        let ratio = Disk::real().usage(folder.path()).unwrap().ratio();
        assert!((ratio * 100.0 - percent).abs() < 3.0, "{ratio} and {percent} %");
    }
}
