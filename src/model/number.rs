//! Newtypes for the numbers that must not be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// A byte position in the CommitLog. Equal on every replica of a group.
    PhysicalOffset(u64)
);
number!(
    /// The number of a message in its queue, from 0.
    QueueOffset(u64)
);
number!(
    /// The number of a queue within a topic, from 0.
    QueueId(u32)
);
number!(
    /// A Raft term. 0 where there is no Raft group.
    Term(u64)
);
number!(
    /// A position in the Raft log.
    LogIndex(u64)
);

impl PhysicalOffset {
    /// Returns the position `bytes` further on.
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl QueueOffset {
    /// Returns the offset `count` messages further on.
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}
