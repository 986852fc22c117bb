//! Read-only maps of files: the one place with `unsafe`.

use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;

use super::File;

/// A read-only map of the first `len` bytes of a file, shared by its clones.
///
/// Reading a page that is not in memory blocks on the disk.
#[derive(Debug, Clone)]
pub struct Map(Arc<memmap2::Mmap>);

impl Map {
    /// Maps the first `len` bytes of `file`, whose blocks must all be allocated.
    ///
    /// The caller must never shrink the file while the map lives; [`super::Disk::remove`] is fine.
    #[expect(unsafe_code, reason = "a map is unsafe where others can shrink the file")]
    pub fn new(file: &File, len: usize) -> io::Result<Self> {
        if (file.len()?) < len as u64 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "map beyond the end of the file"));
        }
        // SAFETY: the file has at least `len` bytes, store segments are never shrunk while they are open, and
        // the `lock` file in the store's root keeps other brokers out. Bytes may change under the map only
        // beyond the published end of the log, which nobody reads.
        let map = unsafe { memmap2::MmapOptions::new().len(len).map(file.as_std())? };
        Ok(Self(Arc::new(map)))
    }

    /// Returns `range` as bytes that keep the map alive, without a copy. `None` if it is out of bounds.
    pub fn slice(&self, range: Range<usize>) -> Option<Bytes> {
        self.get(range.clone())?;
        Some(Bytes::from_owner(Slice { map: self.clone(), range }))
    }

    /// Gives the pages of `range` back to the system; they are read again from the file when needed.
    #[expect(unsafe_code, reason = "madvise(MADV_DONTNEED) is unsafe for private maps")]
    pub fn release(&self, range: Range<usize>) {
        if self.get(range.clone()).is_some_and(|bytes| !bytes.is_empty()) {
            // SAFETY: the map is shared and read-only, so dropping its pages loses nothing: the next access
            // reads the same bytes from the page cache or the file.
            let _ = unsafe {
                self.0.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    range.start,
                    range.end - range.start,
                )
            };
        }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

struct Slice {
    map: Map,
    range: Range<usize>,
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}
