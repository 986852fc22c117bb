//! What follows the header of a frame: raw bytes, and the JSON documents that some requests carry.

mod admin;
mod client;
mod ha;
mod lock;
mod offset;
mod raft;
mod register;
mod route;
mod stats;
mod topic;

use std::slice;

use bytes::Bytes;

pub use admin::*;
pub use client::*;
pub use ha::*;
pub use lock::*;
pub use offset::*;
pub use raft::*;
pub use register::*;
pub use route::*;
pub use stats::*;
pub use topic::*;

/// The bytes behind a header.
#[derive(Debug, Clone, Default)]
pub enum Body {
    /// None. A body of length 0 cannot be told from none.
    #[default]
    Empty,
    /// One piece.
    Bytes(Bytes),
    /// Pieces which are written one after the other without being copied together, such as slices of a map.
    Slices(Vec<Bytes>),
}

impl Body {
    /// Returns the length in bytes.
    pub fn len(&self) -> usize {
        self.slices().iter().map(Bytes::len).sum()
    }

    /// True if there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the pieces.
    pub fn slices(&self) -> &[Bytes] {
        match self {
            Self::Empty => &[],
            Self::Bytes(bytes) => slice::from_ref(bytes),
            Self::Slices(slices) => slices,
        }
    }

    /// Returns all bytes in one piece; copies only if there are several.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Empty => Bytes::new(),
            Self::Bytes(bytes) => bytes.clone(),
            Self::Slices(slices) => slices.concat().into(),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::Empty } else { Self::Bytes(bytes) }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        text.into_bytes().into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(slices: Vec<Bytes>) -> Self {
        Self::Slices(slices)
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl Eq for Body {}
