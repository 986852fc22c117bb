//! Stored messages as answers carry them, and how they are shown.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use serde::Serialize;

use super::output::Output;
use super::time::timestamp;
use super::topic::java_map;
use crate::env::Disk;
use crate::message::{OffsetMessageId, Record, SysFlag, key};

/// A stored message.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stored {
    pub(super) topic: String,
    pub(super) queue_id: u32,
    pub(super) queue_offset: u64,
    pub(super) commit_log_offset: u64,
    pub(super) offset_msg_id: String,
    pub(super) msg_id: String,
    pub(super) store_size: usize,
    pub(super) flag: i32,
    pub(super) sys_flag: i32,
    pub(super) born_timestamp: i64,
    pub(super) born_host: String,
    pub(super) store_timestamp: i64,
    pub(super) store_host: String,
    #[serde(rename = "bodyCRC")]
    pub(super) body_crc: u32,
    pub(super) reconsume_times: i32,
    pub(super) prepared_transaction_offset: i64,
    pub(super) properties: BTreeMap<String, String>,
    /// The body if it is text, else `bodyBase64` has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body_base64: Option<String>,
    #[serde(skip)]
    pub(super) bytes: Vec<u8>,
}

/// Longest body after decompression, so that a few bytes cannot fill the memory.
const INFLATED_MAX: u64 = 64 << 20;
/// Bits of the system flag that say how a body is compressed: 0 and 3 are zlib, 1 is LZ4, 2 is Zstandard.
const COMPRESSION_BITS: i32 = 0x700;

impl Stored {
    /// Decodes records that follow each other, as answers carry them.
    pub(super) fn decode_all(bytes: &[u8]) -> Result<Vec<Self>> {
        let mut messages = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let record = Record::decode(rest).map_err(|error| anyhow!("decode a message: {error}"))?;
            messages.push(Self::of(&record));
            rest = rest.get(record.total_size.max(1)..).unwrap_or_default();
        }
        Ok(messages)
    }

    fn of(record: &Record<'_>) -> Self {
        let properties: BTreeMap<String, String> =
            record.properties().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let id = OffsetMessageId { host: record.store_host, offset: record.physical_offset }.to_string();
        let bytes = inflate(record);
        let text = std::str::from_utf8(&bytes).ok();
        Self {
            topic: record.topic.to_owned(),
            queue_id: record.queue_id,
            queue_offset: record.queue_offset.0,
            commit_log_offset: record.physical_offset.0,
            msg_id: properties.get(key::UNIQ_KEY).cloned().unwrap_or_else(|| id.clone()),
            offset_msg_id: id,
            store_size: record.total_size,
            flag: record.flag,
            sys_flag: record.sys_flag.0,
            born_timestamp: record.born_timestamp,
            born_host: record.born_host.to_string(),
            store_timestamp: record.store_timestamp,
            store_host: record.store_host.to_string(),
            body_crc: record.body_crc,
            reconsume_times: record.reconsume_times,
            prepared_transaction_offset: record.prepared_transaction_offset,
            properties,
            body: text.map(str::to_owned),
            body_base64: text.is_none().then(|| base64(&bytes)),
            bytes,
        }
    }

    pub(super) fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// Prints one line for each field, as `queryMsgById` does. The body goes to a file whose path is printed.
    pub(super) fn print(&self, out: &mut Output<'_>, with_offset_id: bool) -> Result<()> {
        let null = |value: Option<&str>| format!("[{}]", value.unwrap_or("null"));
        let mut rows = Vec::new();
        if with_offset_id {
            rows.push(("OffsetID:", self.offset_msg_id.clone()));
        }
        rows.extend([
            ("Topic:", self.topic.clone()),
            ("Tags:", null(self.property(key::TAGS))),
            ("Keys:", null(self.property(key::KEYS))),
            ("Queue ID:", self.queue_id.to_string()),
            ("Queue Offset:", self.queue_offset.to_string()),
            ("CommitLog Offset:", self.commit_log_offset.to_string()),
            ("Reconsume Times:", self.reconsume_times.to_string()),
            ("Born Timestamp:", timestamp(self.born_timestamp)),
            ("Store Timestamp:", timestamp(self.store_timestamp)),
            ("Born Host:", self.born_host.clone()),
            ("Store Host:", self.store_host.clone()),
            ("System Flag:", self.sys_flag.to_string()),
            ("Properties:", java_map(&self.properties)),
        ]);
        for (name, value) in rows {
            out.line(format_args!("{name:<20} {value}"))?;
        }
        Ok(())
    }

    /// Writes the body to `<temporary folder>/rocketmq/msgbodys/<id>` and returns the path.
    pub(super) fn save_body(&self) -> Result<PathBuf> {
        let disk = Disk::real();
        let folder = std::env::temp_dir().join("rocketmq/msgbodys");
        disk.make_folder(&folder)?;
        // Ids come from the network: nothing but letters and digits may name a file.
        let name: String = self.msg_id.chars().filter(char::is_ascii_alphanumeric).take(128).collect();
        let path = folder.join(name);
        let file = disk.open(&path, true)?;
        file.set_len(0)?;
        file.write_all_at(&self.bytes, 0)?;
        Ok(path)
    }

    /// Writes a message as Java's `MessageExt.toString`.
    pub(super) fn describe(&self, broker: &str) -> String {
        // Java's bytes are signed.
        let bytes: Vec<_> = self.bytes.iter().map(|byte| byte.cast_signed().to_string()).collect();
        format!(
            "MessageExt [brokerName={broker}, queueId={}, storeSize={}, queueOffset={}, sysFlag={}, \
             bornTimestamp={}, bornHost=/{}, storeTimestamp={}, storeHost=/{}, msgId={}, commitLogOffset={}, \
             bodyCRC={}, reconsumeTimes={}, preparedTransactionOffset={}, toString()=Message{{topic='{}', \
             flag={}, properties={}, body=[{}], transactionId='null'}}]",
            self.queue_id,
            self.store_size,
            self.queue_offset,
            self.sys_flag,
            self.born_timestamp,
            self.born_host,
            self.store_timestamp,
            self.store_host,
            self.offset_msg_id,
            self.commit_log_offset,
            self.body_crc,
            self.reconsume_times,
            self.prepared_transaction_offset,
            self.topic,
            self.flag,
            java_map(&self.properties),
            bytes.join(", ")
        )
    }
}

/// Returns the body as the producer gave it; one that cannot be decompressed here as it is stored.
fn inflate(record: &Record<'_>) -> Vec<u8> {
    let stored = || record.body.to_vec();
    if !record.sys_flag.has(SysFlag::COMPRESSED) || !matches!(record.sys_flag.0 & COMPRESSION_BITS, 0 | 0x300)
    {
        return stored();
    }
    let mut body = Vec::new();
    let mut reader = flate2::read::ZlibDecoder::new(record.body).take(INFLATED_MAX);
    if reader.read_to_end(&mut body).is_ok() { body } else { stored() }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut word = 0;
        for at in 0..3 {
            word = word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0));
        }
        for digit in 0..4 {
            let six = usize::try_from(word >> (18 - 6 * digit) & 63).unwrap_or(0);
            text.push(if digit <= chunk.len() { char::from(DIGITS[six]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_written_as_base64() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }
}
