//! Which ports are taken, and by whom.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Result, bail};

use crate::env::Disk;

/// A port that is going to be listened on.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) host: String,
    pub(super) number: u16,
    pub(super) what: String,
}

/// Fails if one of `ports` cannot be listened on, and names all of them.
pub(super) fn check(ports: &[Port]) -> Result<()> {
    let mut problems = Vec::new();
    for Port { host, number, what } in ports {
        let Err(error) = TcpListener::bind((host.as_str(), *number)) else { continue };
        problems.push(match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                let owner = owner(*number).unwrap_or_else(|| "another process".into());
                format!("port {number} ({what}) is in use by {owner}")
            }
            _ => format!("listen on {host}:{number} ({what}): {error}"),
        });
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\nquorate up: "));
    }
    Ok(())
}

/// Returns `process 1234 (java)` for the process that listens on a port, if this user may see it.
fn owner(port: u16) -> Option<String> {
    let disk = Disk::real();
    let socket = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|path| {
        let table = disk.read(Path::new(path)).ok()?;
        let inode = listener_inode(&String::from_utf8_lossy(&table), port)?.to_owned();
        Some(format!("socket:[{inode}]"))
    })?;
    for process in disk.list(Path::new("/proc")).ok()? {
        let Some(pid) = process.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(files) = disk.list(&process.join("fd")) else { continue };
        let holds = |file: &std::path::PathBuf| {
            std::fs::read_link(file).is_ok_and(|target| target.as_os_str() == socket.as_str())
        };
        if files.iter().any(holds) {
            let name = disk.read(&process.join("comm")).unwrap_or_default();
            return Some(format!("process {pid} ({})", String::from_utf8_lossy(&name).trim()));
        }
    }
    None
}

/// Finds the inode of the socket that listens on a port, in the text of `/proc/net/tcp`.
fn listener_inode(table: &str, port: u16) -> Option<&str> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let is_it = u16::from_str_radix(local, 16) == Ok(port) && *fields.get(3)? == LISTEN;
        if is_it { fields.get(9).copied() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        let ports = [Port { host: "127.0.0.1".into(), number, what: "broker".into() }];
        let error = check(&ports).unwrap_err().to_string();
        let expected = format!("port {number} (broker) is in use by process {} (", std::process::id());
        assert!(error.starts_with(&expected), "{error}");
        drop(listener);
        check(&ports).unwrap();
    }

    #[test]
    fn listeners_are_found_in_the_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     \x20  0: 0100007F:2694 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 11 1\n\
                     \x20  1: 00000000:2694 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 22 1\n";
        assert_eq!(listener_inode(table, 9876), Some("22"));
        assert_eq!(listener_inode(table, 9877), None);
        assert_eq!(listener_inode("", 9876), None);
    }
}
