//! A crash at every change of a disk, for tests.
//!
//! A first run counts the changes. Then, for each of them, the process dies in it: with all that it wrote kept, with all
//! lost that was not synced, with a part of that lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::env::{Change, Faults};
use crate::store::ReadLimits;

/// When the scripts begin, in milliseconds since 1970.
pub(super) const NOW_MS: i64 = 1_700_000_000_000;
/// For reading all that a script has left.
pub(super) const LIMITS: ReadLimits = ReadLimits {
    count_max: 32,
    bytes_max: 1 << 20,
    cold_count_max: 32,
    cold_bytes_max: 1 << 20,
    cold_distance: u64::MAX,
};

/// What a crash takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// The process dies.
    Nothing,
    /// The power fails; nothing had reached the disk by itself.
    AllUnsynced,
    /// The power fails; some had. The recovery fails, too.
    Some,
}

impl Loss {
    /// Takes it from the disk of a dead process.
    pub(super) fn of(self, faults: &Faults, random: &mut fastrand::Rng) {
        match self {
            Self::Nothing => {}
            Self::AllUnsynced => faults.lose_power(|| true).unwrap(),
            Self::Some => faults.lose_power(|| random.bool()).unwrap(),
        }
    }
}

/// Says on a failure which crash it was.
pub(super) struct Said {
    change: u64,
    loss: Loss,
    last: Option<(Change, PathBuf)>,
}

impl Said {
    pub(super) fn new(change: u64, loss: Loss, changes: &[(Change, PathBuf)]) -> Self {
        Self { change, loss, last: changes.last().cloned() }
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("crash in change {}, {:?}, losing {:?}", self.change, self.last, self.loss);
        }
    }
}

/// Returns a temporary folder, in memory where there is room for that.
pub(super) fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Calls `crash` for each of `changes`, from 1 on, and each kind of loss; all of them must pass.
pub(super) fn at_every_change(changes: &[(Change, PathBuf)], crash: impl Fn(u64, Loss) + Sync) {
    let mut kinds: BTreeMap<Change, usize> = BTreeMap::new();
    changes.iter().for_each(|(change, _)| *kinds.entry(*change).or_default() += 1);
    println!("crashes in {} changes, each with 3 kinds of loss: {kinds:?}", changes.len());
    let count = changes.len() as u64;
    let crash = &crash;
    let failed = std::thread::scope(|scope| {
        let parts = [0, 1].map(|part| {
            scope.spawn(move || {
                let mut failed = Vec::new();
                for change in (1..=count).filter(|change| change % 2 == part) {
                    for loss in [Loss::Nothing, Loss::AllUnsynced, Loss::Some] {
                        let once = std::panic::AssertUnwindSafe(|| crash(change, loss));
                        if std::panic::catch_unwind(once).is_err() {
                            failed.push((change, loss));
                        }
                    }
                }
                failed
            })
        });
        parts.map(|part| part.join().unwrap()).concat()
    });
    assert!(failed.is_empty(), "{} of {} crashes lost something: {failed:?}", failed.len(), 3 * count);
}
