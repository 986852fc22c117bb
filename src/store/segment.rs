//! One file of the CommitLog.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{Error, Result};
use crate::env::{Disk, File, Map};
use crate::message::{BLANK_MAGIC, BLANK_MIN};
use crate::model::PhysicalOffset;

/// A file of fixed size, named after the position of its first byte. Written through the handle, read
/// through the map.
#[derive(Debug)]
pub(super) struct Segment {
    base: u64,
    size: u64,
    file: File,
    map: Map,
}

impl Segment {
    /// Makes the file with all its blocks, durably, so that later writes cannot find the disk full.
    pub(super) fn create(disk: &Disk, folder: &Path, base: u64, size: u64) -> Result<Self> {
        let path = path_of(folder, base);
        let made = Self::make(disk, folder, &path, base, size);
        if made.is_err() {
            // A file of the wrong size would stop the next start.
            let _ = disk.remove(&path);
        }
        made
    }

    fn make(disk: &Disk, folder: &Path, path: &Path, base: u64, size: u64) -> Result<Self> {
        let failed = |error| Error::io("create segment", path, error);
        let file = disk.open(path, true).map_err(failed)?;
        file.allocate(size).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        disk.sync_folder(folder).map_err(failed)?;
        Self::from_file(file, base, size)
    }

    /// Opens an existing file of the right size.
    pub(super) fn open(disk: &Disk, path: &Path, base: u64, size: u64) -> Result<Self> {
        let file = disk.open(path, false).map_err(|error| Error::io("open segment", path, error))?;
        Self::from_file(file, base, size)
    }

    fn from_file(file: File, base: u64, size: u64) -> Result<Self> {
        let len = usize::try_from(size).map_err(|_| Error::Corrupt {
            path: file.path().to_owned(),
            reason: "the segment is larger than the address space".into(),
        })?;
        let map = Map::new(&file, len).map_err(|error| Error::io("map segment", file.path(), error))?;
        Ok(Self { base, size, file, map })
    }

    pub(super) fn base(&self) -> PhysicalOffset {
        PhysicalOffset(self.base)
    }

    /// Returns the position behind the last byte.
    pub(super) fn end(&self) -> PhysicalOffset {
        PhysicalOffset(self.base + self.size)
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Returns the bytes from `position` to the end of the segment.
    pub(super) fn tail(&self, position: PhysicalOffset) -> &[u8] {
        usize::try_from(position.0.saturating_sub(self.base))
            .ok()
            .and_then(|at| self.map.get(at..))
            .unwrap_or(&[])
    }

    /// Returns `len` bytes from `position`, without a copy.
    pub(super) fn slice(&self, position: PhysicalOffset, len: usize) -> Option<Bytes> {
        let at = usize::try_from(position.0.checked_sub(self.base)?).ok()?;
        self.map.slice(at..at.checked_add(len)?)
    }

    /// Writes at `position`.
    pub(super) fn write(&self, position: PhysicalOffset, bytes: &[u8]) -> Result<()> {
        assert!(
            position.0 >= self.base && position.0 + bytes.len() as u64 <= self.base + self.size,
            "a write stays within its segment"
        );
        self.file
            .write_all_at(bytes, position.0 - self.base)
            .map_err(|error| Error::io("write segment", self.path(), error))
    }

    /// Fills the segment from `position` to its end.
    pub(super) fn fill_from(&self, position: PhysicalOffset) -> Result<()> {
        let mut filler = [0; BLANK_MIN];
        let left = u32::try_from(self.end().0 - position.0).expect("a segment has less than 4 GiB");
        assert!(left as usize >= BLANK_MIN, "each record leaves room for the filler");
        filler[..4].copy_from_slice(&left.to_be_bytes());
        filler[4..].copy_from_slice(&BLANK_MAGIC.to_be_bytes());
        self.write(position, &filler)
    }

    /// Makes everything from `position` zero, durably, so that a later recovery cannot find records that
    /// were cut off.
    pub(super) fn zero_from(&self, position: PhysicalOffset) -> Result<()> {
        let at = position.0 - self.base;
        self.file
            .zero(at, self.size - at)
            .and_then(|()| self.file.sync_all())
            .map_err(|error| Error::io("zero the tail of segment", self.path(), error))
    }

    /// Lets the kernel take back the memory of the map.
    pub(super) fn release_memory(&self) {
        self.map.release(0..self.map.len());
    }
}

/// Returns the name that RocketMQ gives the file which starts at `base`: 20 decimal digits.
pub(super) fn path_of(folder: &Path, base: u64) -> PathBuf {
    folder.join(format!("{base:020}"))
}

/// Reads the start position from a file's name; `None` if it is not one in 20 digits.
pub(super) fn base_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    if name.len() != 20 || !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Java counts in signed numbers; a position that is none of these has no end.
    name.parse().ok().filter(|base| i64::try_from(*base).is_ok())
}
