//! The system flag of a message.

/// Bits of a record's sysFlag. Source: RocketMQ `MessageSysFlag`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct SysFlag(pub i32);

impl SysFlag {
    /// The body is compressed.
    pub const COMPRESSED: i32 = 0x1;
    /// The message has several tags.
    pub const MULTI_TAGS: i32 = 0x2;
    /// Half message of a transaction.
    pub const TRANSACTION_PREPARED: i32 = 0x4;
    /// Committed message of a transaction.
    pub const TRANSACTION_COMMIT: i32 = 0x8;
    /// Rolled back message of a transaction; also the mask of the transaction bits.
    pub const TRANSACTION_ROLLBACK: i32 = 0xC;
    /// The born host is an IPv6 address.
    pub const BORN_HOST_V6: i32 = 0x10;
    /// The store host is an IPv6 address.
    pub const STORE_HOST_V6: i32 = 0x20;

    /// Returns the transaction bits alone.
    pub fn transaction(self) -> i32 {
        self.0 & Self::TRANSACTION_ROLLBACK
    }

    /// True for records that get a queue offset and a ConsumeQueue entry.
    pub fn is_queued(self) -> bool {
        matches!(self.transaction(), 0 | Self::TRANSACTION_COMMIT)
    }

    /// Returns whether all of `bits` are set.
    pub fn has(self, bits: i32) -> bool {
        self.0 & bits == bits
    }

    /// Returns the flag with `bits` set or cleared.
    pub fn with(self, bits: i32, on: bool) -> Self {
        Self(if on { self.0 | bits } else { self.0 & !bits })
    }
}
