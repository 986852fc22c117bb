//! Messages as they are stored and sent: records, properties, identifiers, batches.
//!
//! Bytes <-> values only; nothing here opens a file or knows a queue.

mod batch;
mod id;
mod properties;
mod record;
mod sys_flag;
mod tag;

pub use batch::{BatchError, BatchMessage, decode_batch, encode_batch};
pub use id::{OffsetMessageId, UniqueIds};
pub use properties::{Properties, PropertiesRef, key};
pub use record::{
    BLANK_MAGIC, BLANK_MIN, EncodeError, MAGIC_V1, MAGIC_V2, Message, PROPERTIES_MAX, RECORD_MIN, Record,
    RecordError, Scanned, crc32, encode_record, patch_record, records, scan,
};
pub use sys_flag::SysFlag;
pub use tag::{java_hash, tags_code};
