//! What can go wrong in a store.

use std::io;
use std::path::{Path, PathBuf};

use crate::env::lacks_room;
use crate::message::EncodeError;
use crate::model::PhysicalOffset;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried: verb and object.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no room for another message. Goes away by itself when room is made.
    #[error("no room on the disk of {}: {reason}", path.display())]
    Full {
        /// The folder that is full.
        path: PathBuf,
        /// Which limit was met.
        reason: String,
    },
    /// The message is longer than a segment.
    #[error("{bytes} bytes do not fit into a segment of {segment_bytes}; raise mappedFileSizeCommitLog")]
    TooLarge {
        /// Bytes of the draft.
        bytes: usize,
        /// Bytes of a segment.
        segment_bytes: u64,
    },
    /// The message cannot be encoded.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// Another process has the store open.
    #[error("{} is in use by another broker", .0.display())]
    Locked(PathBuf),
    /// The folder's content contradicts itself or the settings.
    #[error("{}: {reason}", path.display())]
    Corrupt {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A committed record is not what was stored. Goes away by itself when another replica has sent it again.
    #[error(
        "what stands at {position} is damaged: {reason}; it is fetched from another replica, try again in a moment"
    )]
    Damaged {
        /// Where the record or its entry starts.
        position: PhysicalOffset,
        /// What is wrong with it.
        reason: String,
    },
    /// An earlier failure stopped the store.
    #[error("the store stopped after a failure: {0}")]
    Poisoned(String),
}

impl Error {
    /// Takes the system's answer; a lack of room becomes [`Error::Full`].
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        if lacks_room(&source) {
            return Self::Full { path: path.to_owned(), reason: format!("{action}: {source}") };
        }
        Self::Io { action, path: path.to_owned(), source }
    }
}
