//! Defaults that depend on the machine.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Returns the IPv4 address that packets to other machines leave from, else 127.0.0.1.
///
/// Connecting a UDP socket only asks the routing table; nothing is sent.
pub(crate) fn local_address() -> Ipv4Addr {
    const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 9);
    let address = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(ELSEWHERE)?;
        socket.local_addr()
    };
    match address().map(|address| address.ip()) {
        Ok(IpAddr::V4(ip)) if !ip.is_unspecified() => ip,
        _ => Ipv4Addr::LOCALHOST,
    }
}

/// Returns the name of this host, or `DEFAULT_BROKER` as Java if it has none.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "DEFAULT_BROKER".into() } else { name }
}
