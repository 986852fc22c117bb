//! The small files of a replica, below `raft/` in its store. Each is replaced as a whole: temporary file, sync, rename,
//! sync of the folder; but for the vote, which must not need room on the disk: it has two places in a file of fixed size,
//! written in turn, so that a write that is cut off leaves the vote before it. A new file says in the first place that
//! there was no vote yet.
//!
//! | file | holds | failure thought of |
//! |---|---|---|
//! | `vote` | term and vote | voting twice in a term after a crash: durable before the answer |
//! | `replica` | group, number, identity, whether it ever took part | a lost disk that votes again: another identity |
//! | `committed` | the last entry known to be committed; not synced | cutting off what was acknowledged, unnoticed |
//! | `image` | what is applied beside the messages | applying all of the log again at a start |
//! | `snapshot/<position>` | the same at the start of a segment | a replica that is behind the first segment |
//! | `install` | a snapshot that is being installed | a crash in between: begun again at the start |
//! | `barrier` | entries that this replica had once and lost | voting for a leader that lacks them |

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::codec::{Id, SavedVote, StateImage, from_file, to_file};
use super::types::{LogId, Vote};
use crate::env::{Disk, File, KnownBad};
use crate::model::{LogIndex, PhysicalOffset};

const VOTE: &[u8; 8] = b"QUORVOT1";
const REPLICA: &[u8; 8] = b"QUORREP1";
const COMMITTED: &[u8; 8] = b"QUORCOM1";
const IMAGE: &[u8; 8] = b"QUORIMG2";
const BARRIER: &[u8; 8] = b"QUORBAR1";

/// Bytes from one place of the vote to the other: never in one sector.
const VOTE_PLACE: u64 = 4096;
/// Bytes of a vote in its place: magic, CRC, number, term, replica, whether it is committed.
const VOTE_LEN: usize = 12 + 8 + 8 + 8 + 1;
/// Stands in a new file, so that a first vote that is cut off is none, and not one that rotted.
const NO_VOTE: SavedVote = SavedVote { term: 0, node: 0, committed: false };

/// Who this replica is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReplicaFile {
    pub(super) group: String,
    pub(super) id: u64,
    /// Made with the folder.
    pub(super) identity: u128,
    /// It takes part in the group, or did.
    pub(super) joined: bool,
}

#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    disk: Disk,
    committed: Mutex<Option<File>>,
    /// The vote's file, which stays open, so that a vote needs no new file, and the number of the newest vote.
    vote: Mutex<Option<(File, u64)>>,
}

impl Files {
    pub(super) fn open(folder: PathBuf, disk: Disk) -> io::Result<Self> {
        disk.make_folder(&folder)?;
        disk.make_folder(&folder.join("snapshot"))?;
        let files = Self { folder, disk, committed: Mutex::new(None), vote: Mutex::new(None) };
        files.make_vote()?;
        Ok(files)
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        &self.folder
    }

    pub(super) fn vote(&self) -> io::Result<Option<Vote>> {
        let newest = self.newest_vote()?;
        let number = newest.as_ref().map_or(0, |(number, _)| *number);
        let file = self.disk.open(&self.folder.join("vote"), false)?;
        *self.vote.lock().unwrap_or_else(PoisonError::into_inner) = Some((file, number));
        Ok(newest.filter(|(_, vote)| *vote != NO_VOTE).map(|(_, vote)| vote.into()))
    }

    pub(super) fn save_vote(&self, vote: &Vote) -> io::Result<()> {
        if KnownBad::VoteNotSaved.is_on() {
            return Ok(());
        }
        if self.vote.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.vote()?;
        }
        let mut open = self.vote.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, newest) = open.as_mut().expect("it was just opened");
        let number = *newest + 1;
        let bytes = to_file(VOTE, &(number, SavedVote::from(vote)));
        assert!(bytes.len() as u64 <= VOTE_PLACE, "a vote fits its place");
        file.write_all_at(&bytes, number % 2 * VOTE_PLACE)?;
        file.sync_data()?;
        *newest = number;
        Ok(())
    }

    /// Returns the newer of the two votes in the file, with its number.
    fn newest_vote(&self) -> io::Result<Option<(u64, SavedVote)>> {
        let path = self.folder.join("vote");
        let bytes = self.disk.read(&path)?;
        let place = usize::try_from(VOTE_PLACE).expect("a place is small");
        let votes = bytes.chunks(place).map(|bytes| {
            let end = VOTE_LEN.min(bytes.len());
            from_file::<(u64, SavedVote)>(VOTE, &bytes[..end])
        });
        let newest = votes.flatten().max_by_key(|(number, _)| *number);
        if newest.is_none() && bytes.iter().any(|byte| *byte != 0) {
            let reason = format!(
                "{}: the vote cannot be read; take this replica back in with an empty store and mqadmin rejoin",
                path.display()
            );
            return Err(io::Error::new(ErrorKind::InvalidData, reason));
        }
        Ok(newest)
    }

    /// Makes the file of the vote, with its blocks.
    fn make_vote(&self) -> io::Result<()> {
        let path = self.folder.join("vote");
        if self.disk.exists(&path)? && self.disk.open(&path, false)?.len()? == 2 * VOTE_PLACE {
            return Ok(());
        }
        let mut bytes = to_file(VOTE, &(0u64, NO_VOTE));
        bytes.resize(usize::try_from(2 * VOTE_PLACE).expect("two places are small"), 0);
        self.disk.replace(&path, &bytes)
    }

    pub(super) fn replica(&self) -> io::Result<Option<ReplicaFile>> {
        self.read("replica", REPLICA)
    }

    pub(super) fn save_replica(&self, replica: &ReplicaFile) -> io::Result<()> {
        self.save("replica", REPLICA, replica)
    }

    /// Returns the last entry that was known to be committed. A damaged file counts as none: it is a hint.
    pub(super) fn committed(&self) -> Option<LogId> {
        self.read::<Id>("committed", COMMITTED).ok().flatten().map(LogId::from)
    }

    /// Remembers a committed entry, without a sync.
    pub(super) fn note_committed(&self, id: LogId) -> io::Result<()> {
        let mut file = self.committed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let file = match &mut *file {
            Some(file) => file,
            none => none.insert(self.disk.open(&self.folder.join("committed"), true)?),
        };
        file.write_all_at(&to_file(COMMITTED, &Id::from(id)), 0)
    }

    pub(super) fn image(&self) -> io::Result<Option<StateImage>> {
        self.read("image", IMAGE)
    }

    pub(super) fn save_image(&self, image: &StateImage) -> io::Result<()> {
        self.save("image", IMAGE, image)
    }

    /// Returns the snapshot of the segment at `base` as it is sent to others.
    pub(super) fn snapshot_bytes(&self, base: PhysicalOffset) -> io::Result<Option<Bytes>> {
        match self.disk.read(&self.snapshot_path(base)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn has_snapshot(&self, base: PhysicalOffset) -> io::Result<bool> {
        self.disk.exists(&self.snapshot_path(base))
    }

    pub(super) fn snapshot(&self, base: PhysicalOffset) -> io::Result<Option<StateImage>> {
        self.snapshot_bytes(base)?.map(|bytes| decode_snapshot(&bytes)).transpose()
    }

    pub(super) fn save_snapshot(&self, image: &StateImage) -> io::Result<()> {
        let path = self.snapshot_path(PhysicalOffset(image.position));
        self.disk.replace(&path, &to_file(IMAGE, image))
    }

    /// Removes the snapshots of segments below `min`.
    pub(super) fn remove_snapshots_below(&self, min: PhysicalOffset) -> io::Result<()> {
        for path in self.disk.list(&self.folder.join("snapshot"))? {
            let base =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            if base.is_some_and(|base| base < min.0) {
                self.disk.remove(&path)?;
            }
        }
        Ok(())
    }

    pub(super) fn install(&self) -> io::Result<Option<StateImage>> {
        self.read("install", IMAGE)
    }

    pub(super) fn save_install(&self, image: &StateImage) -> io::Result<()> {
        self.save("install", IMAGE, image)
    }

    pub(super) fn remove_install(&self) -> io::Result<()> {
        self.remove("install")
    }

    /// Returns the entry that this replica must have again before it may vote.
    pub(super) fn barrier(&self) -> io::Result<Option<LogIndex>> {
        self.read("barrier", BARRIER)
    }

    pub(super) fn save_barrier(&self, index: LogIndex) -> io::Result<()> {
        self.save("barrier", BARRIER, &index)
    }

    pub(super) fn remove_barrier(&self) -> io::Result<()> {
        self.remove("barrier")
    }

    fn snapshot_path(&self, base: PhysicalOffset) -> PathBuf {
        self.folder.join("snapshot").join(format!("{:020}", base.0))
    }

    fn read<T: DeserializeOwned>(&self, name: &str, magic: &[u8; 8]) -> io::Result<Option<T>> {
        let path = self.folder.join(name);
        let bytes = match self.disk.read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        from_file(magic, &bytes)
            .map(Some)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    fn save<T: Serialize>(&self, name: &str, magic: &[u8; 8], value: &T) -> io::Result<()> {
        self.disk.replace(&self.folder.join(name), &to_file(magic, value))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self.disk.remove(&self.folder.join(name)).and_then(|()| self.disk.sync_folder(&self.folder)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// Decodes a snapshot as it is sent.
pub(super) fn decode_snapshot(bytes: &[u8]) -> io::Result<StateImage> {
    from_file(IMAGE, bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::Faults;

    #[test]
    fn a_first_vote_that_is_cut_off_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::default());
        let open = |disk| Files::open(folder.path().join("raft"), disk).unwrap();
        let files = open(Disk::faulty(Arc::clone(&faults)));
        faults.die_after(1);
        assert!(files.save_vote(&Vote::new(7, 3)).is_err());
        let files = open(Disk::real());
        assert_eq!(files.vote().unwrap(), None);
        for vote in [Vote::new(7, 3), Vote::new_committed(7, 3)] {
            files.save_vote(&vote).unwrap();
            assert_eq!(files.vote().unwrap(), Some(vote));
        }
        // Both places: one of them had an acknowledged vote.
        let file = Disk::real().open(&folder.path().join("raft/vote"), false).unwrap();
        [20, 20 + VOTE_PLACE].into_iter().for_each(|at| file.write_all_at(&[9], at).unwrap());
        assert!(files.vote().is_err());
    }
}
