//! Mistakes that tests of the whole system must notice. A build with the feature `known-bad` makes the one that
//! `QUORATE_KNOWN_BAD` names; every other build makes none, and nothing of this is left in it.

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBad {
    /// Producers are answered when the leader has an entry in its own log.
    AckBeforeCommit,
    /// Nothing is ever synced.
    SkipSync,
    /// Votes are not written.
    VoteNotSaved,
    /// What is appended in place of entries that were taken back is not written.
    TruncationNotWritten,
    /// A new leader takes the queue offsets from a table that is brought up to date every 32 messages.
    OffsetsFromASideTable,
    /// Readers see what is not committed.
    UncommittedReads,
    /// The name server takes a master of an older term.
    LowerTermAccepted,
}

impl KnownBad {
    /// Returns whether this build, in this process, makes the mistake.
    #[cfg(not(feature = "known-bad"))]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Returns whether this build, in this process, makes the mistake.
    #[cfg(feature = "known-bad")]
    pub fn is_on(self) -> bool {
        static CHOSEN: std::sync::OnceLock<Option<KnownBad>> = std::sync::OnceLock::new();
        *CHOSEN.get_or_init(|| {
            let name = std::env::var("QUORATE_KNOWN_BAD").ok()?;
            let chosen = match name.as_str() {
                "ack-before-commit" => Self::AckBeforeCommit,
                "skip-sync" => Self::SkipSync,
                "vote-not-saved" => Self::VoteNotSaved,
                "truncation-not-written" => Self::TruncationNotWritten,
                "offsets-from-a-side-table" => Self::OffsetsFromASideTable,
                "uncommitted-reads" => Self::UncommittedReads,
                "lower-term-accepted" => Self::LowerTermAccepted,
                other => panic!("QUORATE_KNOWN_BAD={other}: no such mistake"),
            };
            Some(chosen)
        }) == Some(self)
    }
}
