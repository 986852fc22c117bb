//! The stored record: what the CommitLog consists of and what pulls return.
//!
//! | field | bytes | at (IPv4 hosts) | |
//! |---|---|---|---|
//! | totalSize | 4 | 0 | |
//! | magic | 4 | 4 | [`MAGIC_V1`], [`MAGIC_V2`] or [`BLANK_MAGIC`] |
//! | bodyCRC | 4 | 8 | CRC-32 of the stored body, without the top bit |
//! | queueId, flag | 4 + 4 | 12, 16 | |
//! | queueOffset | 8 | 20 | patched at append |
//! | physicalOffset | 8 | 28 | patched at append |
//! | sysFlag | 4 | 36 | |
//! | bornTimestamp | 8 | 40 | |
//! | bornHost | 8 or 20 | 48 | address, port as 4 bytes |
//! | storeTimestamp | 8 | 56 | patched at append |
//! | storeHost | 8 or 20 | 64 | |
//! | reconsumeTimes | 4 | 72 | |
//! | preparedTransactionOffset | 8 | 76 | |
//! | body | 4 + n | 84 | |
//! | topic | 1 + n or 2 + n | | V1 or V2 |
//! | properties | 2 + n | | |
//!
//! All integers are big-endian. Source: RocketMQ `MessageExtEncoder`, `CommitLog.checkMessageAndReturnSize`.

use std::net::{IpAddr, SocketAddr};

use bytes::Buf;

use super::{PropertiesRef, SysFlag};
use crate::model::{PhysicalOffset, QueueOffset};

/// Magic of a record whose topic length is one byte.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of a record whose topic length is two bytes.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic of the filler at the end of a segment.
pub const BLANK_MAGIC: u32 = 0xCBD4_3194;
/// Bytes of a record with IPv4 hosts and empty body, topic and properties.
pub const RECORD_MIN: usize = 91;
/// Bytes that must stay free behind each record of a segment, for the filler's size and magic.
pub const BLANK_MIN: usize = 8;
/// Longest property string in bytes.
pub const PROPERTIES_MAX: usize = i16::MAX as usize;

/// Highest queue offset that has a place in a ConsumeQueue file.
const QUEUE_OFFSET_MAX: u64 = i64::MAX as u64 / 32;
const TOPIC_V1_MAX: usize = 127;
const QUEUE_OFFSET_AT: usize = 20;
const PHYSICAL_OFFSET_AT: usize = 28;
const SYS_FLAG_AT: usize = 36;
const BORN_HOST_AT: usize = 48;
const _: () = assert!(RECORD_MIN == 84 + 4 + 1 + 2);

/// Returns the CRC that records carry: CRC-32 without its top bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes) & 0x7FFF_FFFF
}

/// A message that is to become a record. Offsets and store time are patched in at append.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The topic that it is stored under.
    pub topic: &'a str,
    /// The queue that it is stored under.
    pub queue_id: u32,
    /// User flag.
    pub flag: i32,
    /// System flag; the host bits are set by the encoder.
    pub sys_flag: SysFlag,
    /// Producer's clock, milliseconds since 1970.
    pub born_timestamp: i64,
    /// The producer's address.
    pub born_host: SocketAddr,
    /// This broker's address.
    pub store_host: SocketAddr,
    /// How often it was delivered in vain.
    pub reconsume_times: i32,
    /// Physical offset of the half message, or 0.
    pub prepared_transaction_offset: i64,
    /// Body as the client sent it.
    pub body: &'a [u8],
    /// Property string.
    pub properties: &'a str,
}

#[cfg(test)]
impl<'a> Message<'a> {
    /// Returns a message for tests of what keeps messages.
    pub(crate) fn plain(topic: &'a str, queue_id: u32, body: &'a str, properties: &'a str) -> Self {
        Self {
            topic,
            queue_id,
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: 1,
            born_host: SocketAddr::from(([127, 0, 0, 1], 1)),
            store_host: SocketAddr::from(([127, 0, 0, 1], 2)),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: body.as_bytes(),
            properties,
        }
    }
}

/// Why a message cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The property string is longer than [`PROPERTIES_MAX`].
    #[error("the properties have {0} bytes, the limit is {PROPERTIES_MAX}")]
    Properties(usize),
    /// The topic's name is longer than a record can hold.
    #[error("the topic's name has {0} bytes, the limit is 255")]
    Topic(usize),
    /// The body's length does not fit.
    #[error("the body has {0} bytes")]
    Body(usize),
}

/// Appends the record of `message` to `out` and returns its length in bytes.
///
/// queueOffset, physicalOffset and storeTimestamp are 0 until [`patch_record`].
pub fn encode_record(message: &Message<'_>, out: &mut Vec<u8>) -> Result<usize, EncodeError> {
    let (topic, body, properties) = (message.topic.as_bytes(), message.body, message.properties.as_bytes());
    let properties_len =
        i16::try_from(properties.len()).map_err(|_| EncodeError::Properties(properties.len()))?;
    let topic_len = u8::try_from(topic.len()).map_err(|_| EncodeError::Topic(topic.len()))?;
    let v2 = topic.len() > TOPIC_V1_MAX;
    let sys_flag = message
        .sys_flag
        .with(SysFlag::BORN_HOST_V6, message.born_host.is_ipv6())
        .with(SysFlag::STORE_HOST_V6, message.store_host.is_ipv6());
    let hosts = host_len(message.born_host.is_ipv6()) + host_len(message.store_host.is_ipv6());
    let total = RECORD_MIN - 16 + hosts + body.len() + topic.len() + usize::from(v2) + properties.len();
    let total_size = i32::try_from(total).map_err(|_| EncodeError::Body(body.len()))?;
    let body_len = i32::try_from(body.len()).map_err(|_| EncodeError::Body(body.len()))?;

    out.reserve(total);
    let start = out.len();
    out.extend(total_size.to_be_bytes());
    out.extend(if v2 { MAGIC_V2 } else { MAGIC_V1 }.to_be_bytes());
    out.extend(if body.is_empty() { 0 } else { crc32(body) }.to_be_bytes());
    out.extend(message.queue_id.to_be_bytes());
    out.extend(message.flag.to_be_bytes());
    out.extend([0; 16]);
    out.extend(sys_flag.0.to_be_bytes());
    out.extend(message.born_timestamp.to_be_bytes());
    put_host(message.born_host, out);
    out.extend([0; 8]);
    put_host(message.store_host, out);
    out.extend(message.reconsume_times.to_be_bytes());
    out.extend(message.prepared_transaction_offset.to_be_bytes());
    out.extend(body_len.to_be_bytes());
    out.extend_from_slice(body);
    if v2 {
        out.push(0);
    }
    out.push(topic_len);
    out.extend_from_slice(topic);
    out.extend(properties_len.to_be_bytes());
    out.extend_from_slice(properties);
    assert!(out.len() - start == total, "a record has the length that it says");
    Ok(total)
}

/// Writes the values that are known only at append into an encoded record.
pub fn patch_record(
    record: &mut [u8],
    queue_offset: QueueOffset,
    physical_offset: PhysicalOffset,
    store_timestamp: i64,
) {
    let born_v6 = i32::from_be_bytes(fixed(record, SYS_FLAG_AT)) & SysFlag::BORN_HOST_V6 != 0;
    let store_timestamp_at = BORN_HOST_AT + host_len(born_v6);
    for (at, value) in [
        (QUEUE_OFFSET_AT, queue_offset.0.to_be_bytes()),
        (PHYSICAL_OFFSET_AT, physical_offset.0.to_be_bytes()),
        (store_timestamp_at, store_timestamp.to_be_bytes()),
    ] {
        record[at..at + 8].copy_from_slice(&value);
    }
}

fn fixed<const N: usize>(record: &[u8], at: usize) -> [u8; N] {
    record[at..at + N].try_into().expect("the slice has N bytes")
}

fn host_len(v6: bool) -> usize {
    if v6 { 20 } else { 8 }
}

fn put_host(host: SocketAddr, out: &mut Vec<u8>) {
    match host.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
    out.extend(u32::from(host.port()).to_be_bytes());
}

/// A stored record, decoded in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Length of the whole record in bytes.
    pub total_size: usize,
    /// CRC of the body as stored.
    pub body_crc: u32,
    /// The queue.
    pub queue_id: u32,
    /// User flag.
    pub flag: i32,
    /// Number in its queue.
    pub queue_offset: QueueOffset,
    /// Where it says that it starts.
    pub physical_offset: PhysicalOffset,
    /// System flag.
    pub sys_flag: SysFlag,
    /// Producer's clock, milliseconds since 1970.
    pub born_timestamp: i64,
    /// The producer's address.
    pub born_host: SocketAddr,
    /// Broker's clock at append, milliseconds since 1970.
    pub store_timestamp: i64,
    /// The broker that stored it.
    pub store_host: SocketAddr,
    /// How often it was delivered in vain.
    pub reconsume_times: i32,
    /// Physical offset of the half message, or 0.
    pub prepared_transaction_offset: i64,
    /// Body as stored.
    pub body: &'a [u8],
    /// Topic.
    pub topic: &'a str,
    /// Property string.
    pub properties: &'a str,
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// There are fewer bytes than the record says.
    #[error("the record is cut short")]
    Short,
    /// The magic number is of no known kind.
    #[error("the magic number is {0:#010x}")]
    Magic(u32),
    /// A length does not fit the record's size.
    #[error("the lengths in the record contradict its size")]
    Lengths,
    /// The body's CRC differs.
    #[error("the CRC of the body differs")]
    BodyCrc,
    /// Topic or properties are not UTF-8, or the topic has a zero byte.
    #[error("the topic or the properties are not text")]
    Text,
    /// The queue offset is not the one that follows in its queue.
    #[error("the queue offset does not follow the one before")]
    Order,
    /// The last byte is zero, as after a write that was cut off.
    #[error("the record's last bytes were not written")]
    Torn,
}

impl<'a> Record<'a> {
    /// Decodes the record at the start of `bytes` without checking the body's CRC.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, RecordError> {
        let mut rest = bytes;
        let total_size = usize::try_from(rest.try_get_i32().map_err(|_| RecordError::Short)?)
            .map_err(|_| RecordError::Lengths)?;
        let magic = rest.try_get_u32().map_err(|_| RecordError::Short)?;
        if magic != MAGIC_V1 && magic != MAGIC_V2 {
            return Err(RecordError::Magic(magic));
        }
        if total_size < RECORD_MIN {
            return Err(RecordError::Lengths);
        }
        let mut rest = bytes.get(8..total_size).ok_or(RecordError::Short)?;
        let record = decode_fields(&mut rest, total_size, magic).ok_or(RecordError::Lengths)?;
        if !rest.is_empty() {
            return Err(RecordError::Lengths);
        }
        record
    }

    /// Checks the body against its CRC.
    pub fn check_body(&self) -> Result<(), RecordError> {
        if self.body.is_empty() || crc32(self.body) == self.body_crc {
            Ok(())
        } else {
            Err(RecordError::BodyCrc)
        }
    }

    /// Returns the properties for reading.
    pub fn properties(&self) -> PropertiesRef<'a> {
        PropertiesRef(self.properties)
    }
}

/// `None`: a length does not fit.
fn decode_fields<'a>(
    rest: &mut &'a [u8],
    total_size: usize,
    magic: u32,
) -> Option<Result<Record<'a>, RecordError>> {
    let body_crc = rest.try_get_u32().ok()?;
    let queue_id = rest.try_get_u32().ok()?;
    let flag = rest.try_get_i32().ok()?;
    let queue_offset = QueueOffset(rest.try_get_u64().ok()?);
    let physical_offset = PhysicalOffset(rest.try_get_u64().ok()?);
    let sys_flag = SysFlag(rest.try_get_i32().ok()?);
    let born_timestamp = rest.try_get_i64().ok()?;
    let born_host = get_host(rest, sys_flag.has(SysFlag::BORN_HOST_V6))?;
    let store_timestamp = rest.try_get_i64().ok()?;
    let store_host = get_host(rest, sys_flag.has(SysFlag::STORE_HOST_V6))?;
    let reconsume_times = rest.try_get_i32().ok()?;
    let prepared_transaction_offset = rest.try_get_i64().ok()?;
    let body_len = usize::try_from(rest.try_get_i32().ok()?).ok()?;
    let body = rest.split_off(..body_len)?;
    let topic_len = if magic == MAGIC_V2 {
        usize::from(rest.try_get_u16().ok()?)
    } else {
        usize::from(rest.try_get_u8().ok()?)
    };
    let topic = rest.split_off(..topic_len)?;
    let properties_len = usize::try_from(rest.try_get_i16().ok()?).ok()?;
    let properties = rest.split_off(..properties_len)?;
    let (Ok(topic), Ok(properties)) = (std::str::from_utf8(topic), std::str::from_utf8(properties)) else {
        return Some(Err(RecordError::Text));
    };
    if topic.contains('\0') {
        return Some(Err(RecordError::Text));
    }
    Some(Ok(Record {
        total_size,
        body_crc,
        queue_id,
        flag,
        queue_offset,
        physical_offset,
        sys_flag,
        born_timestamp,
        born_host,
        store_timestamp,
        store_host,
        reconsume_times,
        prepared_transaction_offset,
        body,
        topic,
        properties,
    }))
}

fn get_host(rest: &mut &[u8], v6: bool) -> Option<SocketAddr> {
    let ip: IpAddr = if v6 {
        rest.try_get_u128().ok()?.to_be_bytes().into()
    } else {
        rest.try_get_u32().ok()?.to_be_bytes().into()
    };
    // Java keeps any int here; a port that is none is shown as 0.
    let port = u16::try_from(rest.try_get_u32().ok()?).unwrap_or(0);
    Some(SocketAddr::new(ip, port))
}

/// Returns the records that stand one behind the other in `bytes`, without checking their bodies' CRCs. Ends with the
/// first that cannot be decoded.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, RecordError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = Record::decode(rest);
        rest = record.as_ref().map_or(&[], |record| &rest[record.total_size..]);
        Some(record)
    })
}

/// What stands at a position of a log.
#[derive(Debug, PartialEq, Eq)]
pub enum Scanned<'a> {
    /// A whole record with a good body.
    Record(Record<'a>),
    /// A filler of this many bytes, to the end of the segment.
    Blank(usize),
    /// The log ends here: zeros, or what a crash left.
    End(RecordError),
}

/// Looks at the first bytes of `rest`, which stand at `position` of the log and end with the segment.
///
/// No CRC covers the properties. But brokers end a property string with `\u{2}`, so a zero there shows that the
/// tail of the record never reached the disk.
pub fn scan(rest: &[u8], position: PhysicalOffset) -> Scanned<'_> {
    let mut head = rest;
    if let (Ok(size), Ok(BLANK_MAGIC)) = (head.try_get_u32(), head.try_get_u32()) {
        let fits = usize::try_from(size).is_ok_and(|size| size == rest.len());
        return if fits { Scanned::Blank(rest.len()) } else { Scanned::End(RecordError::Lengths) };
    }
    match Record::decode(rest).and_then(|record| record.check_body().map(|()| record)) {
        Ok(record) if record.queue_offset.0 > QUEUE_OFFSET_MAX => Scanned::End(RecordError::Order),
        Ok(record) if record.properties.ends_with('\0') => Scanned::End(RecordError::Torn),
        Ok(record) if record.physical_offset == position => Scanned::Record(record),
        Ok(_) => Scanned::End(RecordError::Lengths),
        Err(error) => Scanned::End(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made with the classes of RocketMQ 5.5.0.
    const JAVA: &str = "00000062daa320a758932aac0000000100000000000000000000000500000000000000640000000000\
        00018bcfe568000a000009000004d20000018bcfe568010a00000100002a9f0000000000000000000000000000\
        00026869015400046b017602";

    fn message() -> Message<'static> {
        Message {
            topic: "T",
            queue_id: 1,
            flag: 0,
            sys_flag: SysFlag(0),
            born_timestamp: 1_700_000_000_000,
            born_host: "10.0.0.9:1234".parse().unwrap(),
            store_host: "10.0.0.1:10911".parse().unwrap(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"hi",
            properties: "k\u{1}v\u{2}",
        }
    }

    fn encoded(message: &Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode_record(message, &mut out).unwrap();
        patch_record(&mut out, QueueOffset(5), PhysicalOffset(100), 1_700_000_000_001);
        out
    }

    #[test]
    fn a_record_has_the_bytes_that_java_writes() {
        let hex: String = encoded(&message()).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, JAVA);
    }

    #[test]
    fn long_topics_and_ipv6_hosts_round_trip() {
        let topic = "%RETRY%".to_owned() + &"g".repeat(200);
        let message = Message { topic: &topic, born_host: "[::1]:7".parse().unwrap(), ..message() };
        let bytes = encoded(&message);
        let record = Record::decode(&bytes).unwrap();
        assert_eq!((record.topic, record.born_host), (topic.as_str(), message.born_host));
        assert_eq!(record.store_timestamp, 1_700_000_000_001);
        assert_eq!(record.total_size, bytes.len());
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let long = "p".repeat(PROPERTIES_MAX + 1);
        let mut out = Vec::new();
        assert!(matches!(
            encode_record(&Message { properties: &long, ..message() }, &mut out),
            Err(EncodeError::Properties(_))
        ));
        let topic = "t".repeat(256);
        assert!(matches!(
            encode_record(&Message { topic: &topic, ..message() }, &mut out),
            Err(EncodeError::Topic(256))
        ));
        assert!(out.is_empty());
    }

    #[test]
    fn every_cut_and_every_flipped_body_bit_ends_the_log() {
        let bytes = encoded(&message());
        assert!(matches!(scan(&bytes, PhysicalOffset(100)), Scanned::Record(_)));
        assert!(matches!(scan(&bytes, PhysicalOffset(101)), Scanned::End(_)));
        for cut in 0..bytes.len() {
            assert!(matches!(scan(&bytes[..cut], PhysicalOffset(100)), Scanned::End(_)), "{cut}");
            let mut zeroed = bytes.clone();
            zeroed[cut..].fill(0);
            if zeroed != bytes {
                assert!(matches!(scan(&zeroed, PhysicalOffset(100)), Scanned::End(_)), "{cut}");
            }
        }
        let body_at = 88;
        for bit in 0..16 {
            let mut flipped = bytes.clone();
            flipped[body_at + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(scan(&flipped, PhysicalOffset(100)), Scanned::End(RecordError::BodyCrc));
        }
    }

    #[test]
    fn a_filler_reaches_to_the_end_of_its_segment() {
        let mut bytes = vec![0; 64];
        bytes[..4].copy_from_slice(&64u32.to_be_bytes());
        bytes[4..8].copy_from_slice(&BLANK_MAGIC.to_be_bytes());
        assert_eq!(scan(&bytes, PhysicalOffset(0)), Scanned::Blank(64));
        assert!(matches!(scan(&bytes[..60], PhysicalOffset(0)), Scanned::End(_)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = scan(&bytes, PhysicalOffset(0));
        }

        #[test]
        fn damaged_records_never_panic(at in 0usize..98, value: u8) {
            let mut bytes = encoded(&message());
            bytes[at] = value;
            let _ = scan(&bytes, PhysicalOffset(100));
        }

        #[test]
        fn records_round_trip(body in proptest::collection::vec(any::<u8>(), 0..300), properties in "[a-z\u{1}\u{2}]{0,40}", queue_id: u32) {
            let message = Message { body: &body, properties: &properties, queue_id, ..message() };
            let bytes = encoded(&message);
            let record = Record::decode(&bytes).unwrap();
            prop_assert_eq!(record.body, &body[..]);
            prop_assert_eq!(record.properties, &properties);
            prop_assert_eq!(record.queue_id, queue_id);
            prop_assert!(record.check_body().is_ok());
        }
    }
}
