//! Hosts that can be cut off from each other: network namespaces on a bridge, with packet filters.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command as Process, Stdio};

/// Hosts in a net.
const NODES: usize = 4;

/// A bridge in the namespace of the test, and a namespace for each host. Removed when dropped.
pub(crate) struct Net {
    /// In all names of this net.
    name: String,
    /// The second and third byte of its addresses.
    subnet: (u8, u8),
}

/// How a host is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// From the other replicas, without a word. Clients and the name server reach it.
    FromReplicas,
    /// From everything, without a word.
    FromAll,
    /// From the other replicas, with a reset for each packet.
    Refused,
    /// It hears nothing from the other replicas, but they hear it.
    Deaf,
    /// The other replicas hear nothing from it, but it hears them.
    Mute,
}

impl Net {
    /// Makes a net; `None` if this process may not or the tools are missing, which in CI is an error.
    pub(crate) fn make() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skipped("namespaces need root");
        }
        let has_tools = || is_there("ip") && is_there("iptables-restore");
        if !has_tools() && std::env::var_os("CI").is_some() {
            let _ = Process::new("apt-get").args(["update", "-q"]).stdout(Stdio::null()).status();
            let install = ["install", "-q", "-y", "iproute2", "iptables"];
            let _ = Process::new("apt-get").args(install).stdout(Stdio::null()).status();
        }
        if !has_tools() {
            return skipped("ip or iptables is missing; apt-get install iproute2 iptables");
        }
        remove_leftovers();
        let mut random = fastrand::Rng::new();
        let subnet = (random.u8(64..128), random.u8(..));
        // The process id tells whose it is, should it be left behind.
        let name = format!("q{}", std::process::id());
        let net = Self { name, subnet };
        match net.build() {
            Ok(()) => Some(net),
            Err(reason) => skipped(&reason),
        }
    }

    /// The address of the test and the name server.
    pub(crate) fn host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.subnet.0, self.subnet.1, 254)
    }

    pub(crate) fn node(&self, node: usize) -> Ipv4Addr {
        assert!(node < NODES, "the net has {NODES} hosts");
        Ipv4Addr::new(10, self.subnet.0, self.subnet.1, u8::try_from(node + 1).expect("few hosts"))
    }

    /// Returns a command that runs on a host. `ip` becomes the program, so its process id is the program's.
    pub(crate) fn process(&self, node: usize, program: &str) -> Process {
        let mut process = Process::new("ip");
        process.args(["netns", "exec", &self.namespace(node), program]);
        process
    }

    /// Cuts a host off, all at once.
    pub(crate) fn cut(&self, node: usize, cut: Cut) {
        let others: Vec<_> =
            (0..NODES).filter(|other| *other != node).map(|other| self.node(other)).collect();
        let mut rules = String::from("*filter\n");
        let mut rule = |text: String| rules.push_str(&format!("{text}\n"));
        match cut {
            Cut::FromAll => {
                rule("-A INPUT ! -i lo -j DROP".into());
                rule("-A OUTPUT ! -o lo -j DROP".into());
            }
            Cut::FromReplicas => {
                others.iter().for_each(|other| rule(format!("-A INPUT -s {other} -j DROP")));
                others.iter().for_each(|other| rule(format!("-A OUTPUT -d {other} -j DROP")));
            }
            Cut::Refused => {
                let reset = "-p tcp -j REJECT --reject-with tcp-reset";
                others.iter().for_each(|other| rule(format!("-A INPUT -s {other} {reset}")));
                others.iter().for_each(|other| rule(format!("-A OUTPUT -d {other} {reset}")));
            }
            Cut::Deaf => others.iter().for_each(|other| rule(format!("-A INPUT -s {other} -j DROP"))),
            Cut::Mute => others.iter().for_each(|other| rule(format!("-A OUTPUT -d {other} -j DROP"))),
        }
        rules.push_str("COMMIT\n");
        let mut restore = self
            .process(node, "iptables-restore")
            .stdin(Stdio::piped())
            .spawn()
            .expect("iptables-restore runs");
        restore.stdin.take().expect("a pipe").write_all(rules.as_bytes()).expect("rules are read");
        assert!(restore.wait().expect("a child ends").success(), "{rules}");
    }

    /// Takes back what cuts a host off.
    pub(crate) fn heal(&self, node: usize) {
        let flushed = self.process(node, "iptables").args(["-F"]).status().expect("iptables runs");
        assert!(flushed.success());
    }

    fn namespace(&self, node: usize) -> String {
        format!("{}n{node}", self.name)
    }

    fn build(&self) -> Result<(), String> {
        let bridge = format!("{}b", self.name);
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add {}/24 dev {bridge}", self.host()))?;
        ip(&format!("link set {bridge} up"))?;
        for node in 0..NODES {
            let (namespace, link) = (self.namespace(node), format!("{}v{node}", self.name));
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("link add {link} type veth peer name eth0 netns {namespace}"))?;
            ip(&format!("link set {link} master {bridge} up"))?;
            ip(&format!("-n {namespace} addr add {}/24 dev eth0", self.node(node)))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        Ok(())
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn remove(name: &str) {
    for node in 0..NODES {
        let _ = ip(&format!("netns del {name}n{node}"));
    }
    let _ = ip(&format!("link del {name}b"));
}

/// Removes the nets of tests that were killed.
fn remove_leftovers() {
    let Ok(bridges) = ip("-br link show type bridge") else { return };
    for line in bridges.lines() {
        let name = line.split_whitespace().next().and_then(|bridge| bridge.strip_suffix('b'));
        let Some((name, pid)) = name.and_then(|name| Some((name, name.strip_prefix('q')?))) else { continue };
        let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
        if pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_err()) {
            remove(name);
        }
    }
}

fn skipped(reason: &str) -> Option<Net> {
    assert!(std::env::var_os("CI").is_none(), "CI needs network namespaces: {reason}");
    eprintln!("SKIPPED: partitions are NOT tested: {reason}");
    None
}

fn is_there(program: &str) -> bool {
    Process::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn ip(arguments: &str) -> Result<String, String> {
    let output = Process::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
