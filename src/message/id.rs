//! Message identifiers.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::env::Clock;
use crate::model::PhysicalOffset;

/// Where a record is: the store host and the physical offset, as 32 or 56 hex digits.
///
/// Clients decode it and connect to that host. Source: RocketMQ `MessageDecoder.createMessageId`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetMessageId {
    /// The broker that stored the record.
    pub host: SocketAddr,
    /// Where the record starts.
    pub offset: PhysicalOffset,
}

impl OffsetMessageId {
    /// Reads an id of 32 or 56 hex digits; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (ip, rest): (IpAddr, &str) = match text.len() {
            32 => (u32::from_str_radix(text.get(..8)?, 16).ok()?.to_be_bytes().into(), text.get(8..)?),
            56 => (u128::from_str_radix(text.get(..32)?, 16).ok()?.to_be_bytes().into(), text.get(32..)?),
            _ => return None,
        };
        let port = u32::from_str_radix(rest.get(..8)?, 16).ok()?;
        let offset = u64::from_str_radix(rest.get(8..)?, 16).ok()?;
        Some(Self { host: SocketAddr::new(ip, u16::try_from(port).ok()?), offset: PhysicalOffset(offset) })
    }
}

impl std::fmt::Display for OffsetMessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.ip() {
            IpAddr::V4(ip) => write!(f, "{:08X}", ip.to_bits())?,
            IpAddr::V6(ip) => write!(f, "{:032X}", ip.to_bits())?,
        }
        write!(f, "{:08X}{:016X}", u32::from(self.host.port()), self.offset.0)
    }
}

/// Makes ids for messages that come without one. Source: RocketMQ `MessageClientIDSetter`.
#[derive(Debug)]
pub struct UniqueIds {
    prefix: String,
    counter: AtomicU32,
    clock: Clock,
}

impl UniqueIds {
    /// Takes the address and process id that every id starts with.
    pub fn new(ip: IpAddr, process_id: u32, clock: Clock) -> Self {
        let mut prefix = String::new();
        let written = match ip {
            IpAddr::V4(ip) => write!(prefix, "{:08X}", ip.to_bits()),
            IpAddr::V6(ip) => write!(prefix, "{:032X}", ip.to_bits()),
        };
        written
            .and_then(|()| write!(prefix, "{:04X}{:08X}", process_id & 0xFFFF, 0))
            .expect("a string takes all");
        Self { prefix, counter: AtomicU32::new(0), clock }
    }

    /// Returns an id that this process has not used in the last 65,536 ids of this millisecond.
    pub fn next(&self) -> String {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed) & 0xFFFF;
        let time = self.clock.now_ms() & 0xFFFF_FFFF;
        format!("{}{time:08X}{counter:04X}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offset_ids_round_trip() {
        let id = OffsetMessageId { host: "10.0.0.1:10911".parse().unwrap(), offset: PhysicalOffset(100) };
        assert_eq!(id.to_string(), "0A00000100002A9F0000000000000064");
        assert_eq!(OffsetMessageId::parse(&id.to_string()), Some(id));
        let v6 = OffsetMessageId { host: "[::1]:1".parse().unwrap(), offset: PhysicalOffset(7) };
        assert_eq!(OffsetMessageId::parse(&v6.to_string()), Some(v6));
        for bad in [
            "",
            "0A",
            "zz00000100002A9F0000000000000064",
            "0A000001FFFFFFFF0000000000000064",
            "é0A00000100002A9F00000000000000",
        ] {
            assert_eq!(OffsetMessageId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn unique_ids_have_the_form_of_the_client() {
        let ids = UniqueIds::new("127.0.0.1".parse().unwrap(), 0x1_2345, Clock::manual(0x1F2_3456_789A));
        assert_eq!(ids.next(), "7F000001234500000000".to_string() + "3456789A0000");
        assert_eq!(ids.next().len(), 32);
    }
}
