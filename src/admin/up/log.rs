//! The log file of a child, and the last lines of it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::env::{Disk, File};

/// A file that is longer is put aside as `<name>.1`, of which there is one.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Lines that are kept for the report of a child's end.
const LINES_MAX: usize = 20;
/// Bytes of a line that are kept.
const LINE_BYTES_MAX: usize = 4096;

/// Takes what a child prints.
pub(super) struct Log {
    name: String,
    path: PathBuf,
    disk: Disk,
    file: File,
    at: u64,
    /// A line that has not ended yet.
    partial: Vec<u8>,
    last: VecDeque<String>,
    is_full: bool,
}

impl Log {
    /// Opens the file, makes it if it is absent, and goes on at its end.
    pub(super) fn open(name: &str, path: &Path, disk: Disk) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            disk.make_folder(folder)?;
        }
        let file = disk.open(path, true)?;
        let at = file.len()?;
        let (partial, last) = (Vec::new(), VecDeque::new());
        Ok(Self {
            name: name.to_owned(),
            path: path.to_owned(),
            disk,
            file,
            at,
            partial,
            last,
            is_full: false,
        })
    }

    /// Appends what the child printed. Lines that are errors go to the terminal too.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        match self.append(bytes) {
            Ok(()) => self.is_full = false,
            Err(error) if !self.is_full => {
                self.is_full = true;
                self.show(&format!("write {}: {error}", self.path.display()));
            }
            Err(_) => {}
        }
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES_MAX.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// Returns the last lines, a line that has not ended included.
    pub(super) fn last_lines(&mut self) -> Vec<String> {
        if !self.partial.is_empty() {
            self.end_line();
        }
        self.last.iter().cloned().collect()
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.at >= FILE_BYTES_MAX {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            self.disk.rename(&self.path, Path::new(&aside))?;
            self.file = self.disk.open(&self.path, true)?;
            self.at = 0;
        }
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.partial).trim_end().to_owned();
        self.partial.clear();
        if is_error(&line) {
            self.show(&line);
        }
        if self.last.len() == LINES_MAX {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    fn show(&self, line: &str) {
        let _ = writeln!(io::stderr(), "{:<8}| {line}", self.name);
    }
}

/// Tells lines that a human must see: `tracing`'s errors and panics.
fn is_error(line: &str) -> bool {
    line.split_whitespace().take(3).any(|word| word == "ERROR") || line.contains("panicked at")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::env::Faults;

    #[test]
    fn lines_are_kept_and_the_file_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/broker.log");
        let mut log = Log::open("broker", &path, Disk::real()).unwrap();
        log.take(b"one\ntw");
        log.take(b"o\n\nthree");
        assert_eq!(log.last_lines(), ["one", "two", "", "three"]);
        let mut log = Log::open("broker", &path, Disk::real()).unwrap();
        for number in 0..100 {
            log.take(format!("{number}\n").as_bytes());
        }
        assert_eq!(log.last_lines().first().map(String::as_str), Some("80"));
        let written = Disk::real().read(&path).unwrap();
        assert!(written.starts_with(b"one\ntwo\n\nthree0\n1\n"));
    }

    #[test]
    fn endless_lines_do_not_fill_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open("broker", &folder.path().join("x.log"), Disk::real()).unwrap();
        for _ in 0..10 {
            log.take(&[b'x'; 4000]);
        }
        assert_eq!(log.last_lines(), ["x".repeat(LINE_BYTES_MAX)]);
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::default());
        let mut log =
            Log::open("broker", &folder.path().join("x.log"), Disk::faulty(Arc::clone(&faults))).unwrap();
        faults.full.store(true, Ordering::Relaxed);
        log.take(b"lost\n");
        faults.full.store(false, Ordering::Relaxed);
        log.take(b"kept\n");
        assert_eq!(log.last_lines(), ["lost", "kept"]);
        assert_eq!(Disk::real().read(&folder.path().join("x.log")).unwrap(), b"kept\n");
    }

    #[test]
    fn errors_are_told_from_the_rest() {
        assert!(is_error("2026-11-21T05:54:45.123Z ERROR quorate::store: sync failed"));
        assert!(is_error("thread 'main' panicked at src/x.rs:1:1:"));
        assert!(!is_error("2026-11-21T05:54:45.123Z  INFO quorate: topic ERROR was made"));
    }
}
