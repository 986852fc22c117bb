//! Hosts of our own: network namespaces whose only way to each other is a switch in this process.

mod frame;
mod switch;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::sys;
pub(crate) use switch::{Effect, Rule, Switch};

/// A host's number in its net.
pub(crate) type HostId = usize;

/// The hosts of a run and the switch between them. Removed when dropped.
pub(crate) struct Net {
    prefix: String,
    hosts: Vec<String>,
    pub(crate) switch: Switch,
}

impl Net {
    /// Makes the hosts, all connected. The switch draws from `seed`.
    pub(crate) fn make(hosts: &[String], seed: u64) -> Result<Self> {
        remove_leftovers();
        // The process id tells whose it is, should it be left behind.
        let prefix = format!("j{}", std::process::id());
        let mut taps = Vec::new();
        for (id, name) in hosts.iter().enumerate() {
            let (namespace, device) = (format!("{prefix}{name}"), format!("{prefix}t{id}"));
            ip(&[], &format!("netns add {namespace}\n"))?;
            let tap =
                sys::open_tap(&device).context("make a TAP device, which needs root and /dev/net/tun")?;
            ip(&[], &format!("link set dev {device} netns {namespace}\n"))?;
            let mut batch = format!(
                "link set dev {device} name eth0\nlink set dev eth0 address {} mtu 1500\nlink set dev lo up\n\
                 link set dev eth0 up\naddr add {}/24 dev eth0\n",
                mac_text(id),
                address(id)
            );
            for other in (0..hosts.len()).filter(|other| *other != id) {
                let (address, mac) = (address(other), mac_text(other));
                batch += &format!("neigh replace {address} lladdr {mac} dev eth0 nud permanent\n");
            }
            ip(&["-n", &namespace], &batch)?;
            taps.push(tap);
        }
        Ok(Self { prefix, hosts: hosts.to_vec(), switch: Switch::start(taps, seed)? })
    }

    /// Returns the name of a host's namespace.
    pub(crate) fn namespace(&self, host: HostId) -> String {
        format!("{}{}", self.prefix, self.hosts[host])
    }

    /// Returns what in front of a program puts it on a host. It becomes the program, so its process id is the
    /// program's.
    ///
    /// Not `ip netns exec`, which makes a namespace of mounts, too: a disk that is unmounted here would stay mounted
    /// there.
    /// `setpriv` has it killed when this process ends, however that comes.
    pub(crate) fn prefix(&self, host: HostId) -> Vec<String> {
        let namespace = format!("--net=/run/netns/{}", self.namespace(host));
        ["nsenter", &namespace, "setpriv", "--pdeathsig", "KILL"].map(str::to_owned).to_vec()
    }

    /// Returns a command that runs on a host.
    pub(crate) fn command(&self, host: HostId, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let prefix = self.prefix(host);
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(program);
        command
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.switch.stop();
        let names: String =
            (0..self.hosts.len()).map(|host| format!("netns del {}\n", self.namespace(host))).collect();
        let _ = ip(&["-force"], &names);
    }
}

/// The address of a host.
pub(crate) fn address(host: HostId) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, u8::try_from(host + 1).expect("few hosts"))
}

/// The number of a host in its Ethernet address.
fn mac(host: HostId) -> [u8; 6] {
    [2, 0, 10, 77, 0, u8::try_from(host + 1).expect("few hosts")]
}

fn mac_text(host: HostId) -> String {
    mac(host).map(|byte| format!("{byte:02x}")).join(":")
}

/// Removes hosts of processes that are gone.
fn remove_leftovers() {
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let Some(rest) = name.strip_prefix('j') else { continue };
        let pid: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if !pid.is_empty() && !std::path::Path::new("/proc").join(&pid).exists() {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

/// Runs a batch of `ip` commands.
fn ip(arguments: &[&str], batch: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(arguments)
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run ip (Debian package iproute2)")?;
    child.stdin.take().expect("a pipe").write_all(batch.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "ip: {}\n{batch}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
