//! The checkpoint file: how far the files derived from the log are durable.
//!
//! | field | bytes | at | |
//! |---|---|---|---|
//! | physicMsgTimestamp, logicsMsgTimestamp, indexMsgTimestamp | 8 each | 0, 8, 16 | store times, as Java has them |
//! | masterFlushedOffset, confirmPhyOffset, logicsPhysicalOffset | 8 each | 24, 32, 40 | |
//! | magic | 8 | 1024 | ours from here on; Java leaves these bytes alone |
//! | flushed, dispatched | 8 each | 1032, 1040 | |
//! | copy of the first 48 bytes | 48 | 1048 | |
//! | CRC-32 of bytes 1024..1096 | 4 | 1096 | |
//!
//! Big-endian, 4096 bytes. If Java used the store since, the copy differs from the first 48 bytes and our part
//! does not count. Source of the first part: RocketMQ `StoreCheckpoint`.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use super::{Error, Result};
use crate::env::Disk;
use crate::model::PhysicalOffset;

const FILE_BYTES: usize = 4096;
const JAVA_BYTES: usize = 48;
const OURS_AT: usize = 1024;
const CRC_AT: usize = OURS_AT + 24 + JAVA_BYTES;
const MAGIC: u64 = u64::from_be_bytes(*b"QUORCKP1");
const _: () = assert!(CRC_AT == 1096);

/// What the file says.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct CheckpointState {
    /// Store time of the newest durable record.
    pub(super) log_timestamp: i64,
    /// Store time of the newest record that is durable in the ConsumeQueues.
    pub(super) queue_timestamp: i64,
    /// Store time of the newest record that is durable in the Index.
    pub(super) index_timestamp: i64,
    /// Kept for Java's controller mode.
    pub(super) master_flushed: i64,
    /// Our part: the log is durable, and was found good, below `flushed`; ConsumeQueues and Index hold every
    /// record below `dispatched`, durably. `None` in a store that Java used last.
    pub(super) ours: Option<Durable>,
}

/// Positions that a crash cannot take back.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Durable {
    pub(super) flushed: PhysicalOffset,
    pub(super) dispatched: PhysicalOffset,
}

#[derive(Debug)]
pub(super) struct Checkpoint {
    path: PathBuf,
    disk: Disk,
    state: Mutex<CheckpointState>,
}

impl Checkpoint {
    /// Reads the file, if there is one.
    pub(super) fn open(path: PathBuf, disk: Disk) -> Result<Self> {
        let state = match disk.read(&path) {
            Ok(bytes) => decode(&bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => CheckpointState::default(),
            Err(error) => return Err(Error::io("read checkpoint", &path, error)),
        };
        Ok(Self { path, disk, state: Mutex::new(state) })
    }

    pub(super) fn state(&self) -> CheckpointState {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the file and syncs it. A torn write makes our part invalid, which costs a longer recovery.
    pub(super) fn write(&self, state: CheckpointState) -> Result<()> {
        let mut current = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| Error::io("write checkpoint", &self.path, error);
        let file = self.disk.open(&self.path, true).map_err(failed)?;
        file.write_all_at(&encode(&state), 0).and_then(|()| file.sync_all()).map_err(failed)?;
        *current = state;
        Ok(())
    }
}

fn encode(state: &CheckpointState) -> Vec<u8> {
    let ours = state.ours.unwrap_or_default();
    let mut bytes = Vec::with_capacity(FILE_BYTES);
    for value in [state.log_timestamp, state.queue_timestamp, state.index_timestamp, state.master_flushed] {
        bytes.extend(value.to_be_bytes());
    }
    bytes.extend(ours.dispatched.0.to_be_bytes());
    bytes.extend(ours.dispatched.0.to_be_bytes());
    let java: Vec<u8> = bytes.clone();
    bytes.resize(OURS_AT, 0);
    if let Some(ours) = state.ours {
        bytes.extend(MAGIC.to_be_bytes());
        bytes.extend(ours.flushed.0.to_be_bytes());
        bytes.extend(ours.dispatched.0.to_be_bytes());
        bytes.extend(java);
        let crc = crc32fast::hash(&bytes[OURS_AT..]);
        bytes.extend(crc.to_be_bytes());
    }
    bytes.resize(FILE_BYTES, 0);
    bytes
}

fn decode(bytes: &[u8]) -> CheckpointState {
    let long = |at: usize| {
        bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| i64::from_be_bytes(*chunk))
    };
    let position = |at: usize| PhysicalOffset(u64::try_from(long(at)).unwrap_or(0));
    let intact = bytes.len() >= CRC_AT + 4
        && bytes[OURS_AT..OURS_AT + 8] == MAGIC.to_be_bytes()
        && bytes[CRC_AT..CRC_AT + 4] == crc32fast::hash(&bytes[OURS_AT..CRC_AT]).to_be_bytes()
        && bytes[OURS_AT + 24..CRC_AT] == bytes[..JAVA_BYTES];
    CheckpointState {
        log_timestamp: long(0),
        queue_timestamp: long(8),
        index_timestamp: long(16),
        master_flushed: long(24),
        ours: intact.then(|| Durable { flushed: position(OURS_AT + 8), dispatched: position(OURS_AT + 16) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_part_counts_only_as_long_as_java_did_not_write() {
        let state = CheckpointState {
            log_timestamp: 1,
            queue_timestamp: 2,
            index_timestamp: 3,
            master_flushed: 4,
            ours: Some(Durable { flushed: PhysicalOffset(500), dispatched: PhysicalOffset(400) }),
        };
        let bytes = encode(&state);
        assert_eq!(bytes.len(), FILE_BYTES);
        assert_eq!(decode(&bytes), state);
        for at in (0..JAVA_BYTES).chain(OURS_AT..CRC_AT + 4) {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&changed).ours, None, "{at}");
        }
        assert_eq!(decode(&bytes[..100]).ours, None);
        assert_eq!(decode(&[]), CheckpointState::default());
    }
}
