//! All that `quorate up` decides before anything starts.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Options;
use super::child::Program;
use super::layout::{Layout, Member, items};
use super::ports::{self, Port};
use crate::config::{self, BrokerConfig, Environment, Loaded, Sources};
use crate::env::Disk;

/// Keys that make a replica what it is, so that they cannot be the same for all.
const OF_ONE_REPLICA: [&str; 12] = [
    "brokerName",
    "dLegerGroup",
    "dLegerPeers",
    "dLegerSelfId",
    "enableDLegerCommitLog",
    "healthPort",
    "listenPort",
    "metricsPromExporterPort",
    "preferredLeaderId",
    "preferredLeaderIds",
    "storePathCommitLog",
    "storePathRootDir",
];

/// All that is decided before anything starts.
pub(in crate::admin) struct Plan {
    executable: PathBuf,
    pub(super) data: PathBuf,
    bind_host: String,
    /// Where the name server is reached from here.
    pub(in crate::admin) namesrv: String,
    namesrv_port: u16,
    namesrv_args: Vec<OsString>,
    pub(super) nodes: Vec<Node>,
    /// Files that the nodes need.
    files: Vec<Member>,
    /// What the user may not expect.
    pub(super) note: Option<String>,
}

/// A process with one broker or with a replica of each group.
pub(in crate::admin) struct Node {
    /// `broker`, or `n0`.
    pub(in crate::admin) name: String,
    pub(super) args: Vec<OsString>,
    pub(super) brokers: Vec<Broker>,
}

/// One broker of a process.
pub(super) struct Broker {
    pub(super) group: String,
    pub(super) cluster: String,
    /// Where clients reach it.
    pub(super) address: String,
    /// Whether it is to lead its group.
    pub(super) preferred: bool,
    listen_port: u16,
    fast_port: u16,
    raft_port: Option<u16>,
}

impl Broker {
    fn of(config: &Loaded<BrokerConfig>) -> Result<Self> {
        if let Some(reason) = config.unsupported() {
            bail!("{reason}");
        }
        Ok(Self {
            group: config.broker_name.clone(),
            cluster: config.broker_cluster_name.clone(),
            address: format!("{}:{}", config.broker_ip1, config.listen_port),
            preferred: config
                .raft_self_id()
                .is_some_and(|id| config.preferred_leaders().first() == Some(&id)),
            listen_port: config.listen_port,
            fast_port: config.fast_listen_port(),
            raft_port: config.raft_port(),
        })
    }
}

impl Plan {
    pub(in crate::admin) fn of(options: &Options) -> Result<Self> {
        let disk = Disk::real();
        disk.make_folder(&options.data).with_context(|| format!("make {}", options.data.display()))?;
        let data = options.data.canonicalize().with_context(|| format!("open {}", options.data.display()))?;
        let layout = Layout::of(options, &data, &disk)?;
        let is_any = options.host == "0.0.0.0";
        let reached = if is_any { "127.0.0.1" } else { &options.host };
        let namesrv = format!("{reached}:{}", options.namesrv_port);
        let mut plan = Self {
            executable: std::env::current_exe().context("find this executable")?,
            namesrv_args: namesrv_args(options, &data),
            data,
            bind_host: options.host.clone(),
            namesrv,
            namesrv_port: options.namesrv_port,
            nodes: Vec::new(),
            files: Vec::new(),
            note: None,
        };
        if layout.replicas == 1 {
            plan.nodes.push(plan.single(options, is_any, &disk)?);
            if options.replicas.is_none() {
                let data = plan.data.display();
                plan.note =
                    Some(format!("{data} has a single broker; --data with another folder makes a group"));
            }
            return Ok(plan);
        }
        let overrides = plan.group_overrides(options, is_any, &disk)?;
        for replica in 0..layout.replicas {
            let members = layout.members(&plan.data, replica, &disk)?;
            let node = plan.node(replica, &members, &overrides, &disk)?;
            plan.nodes.push(node);
            plan.files.extend(members);
        }
        Ok(plan)
    }

    /// Returns the process of a broker without replicas.
    fn single(&self, options: &Options, is_any: bool, disk: &Disk) -> Result<Node> {
        let overrides = broker_settings(options, &self.data, &self.namesrv, is_any, disk)?;
        let broker = load(options.config_file.clone(), overrides.clone(), disk)?;
        let mut args = vec!["broker".into()];
        if let Some(file) = &options.config_file {
            args.extend(["-c".into(), file.canonicalize()?.into_os_string()]);
        }
        args.extend(overrides.into_iter().map(OsString::from));
        Ok(Node { name: "broker".into(), args, brokers: vec![Broker::of(&broker)?] })
    }

    /// Returns the process of a replica.
    fn node(&self, replica: u16, members: &[Member], overrides: &[String], disk: &Disk) -> Result<Node> {
        let mut args = vec!["broker".into()];
        let mut brokers = Vec::new();
        for member in members {
            args.extend(["-c".into(), member.file.clone().into_os_string()]);
            // The file may not be there yet, so its text is taken as if it stood on the command line.
            let mut all: Vec<String> = member.settings()?;
            all.extend_from_slice(overrides);
            brokers.push(Broker::of(&load(None, all, disk)?)?);
        }
        args.extend(overrides.iter().map(OsString::from));
        Ok(Node { name: format!("n{replica}"), args, brokers })
    }

    /// Returns the `key=value` arguments that all replicas get.
    fn group_overrides(&self, options: &Options, is_any: bool, disk: &Disk) -> Result<Vec<String>> {
        let mut settings =
            vec![format!("bindAddress={}", options.host), "raftBindAddress=127.0.0.1".to_owned()];
        if !is_any {
            settings.push(format!("brokerIP1={}", options.host));
        }
        settings.push(format!("namesrvAddr={}", self.namesrv));
        if let Some(file) = &options.config_file {
            let items = items(file, disk)?;
            settings.extend(items.into_iter().map(|item| format!("{}={}", item.key, item.value)));
        }
        settings.extend(options.overrides.iter().cloned());
        let key = |setting: &String| setting.split('=').next().unwrap_or_default().trim().to_owned();
        if let Some(key) = settings.iter().map(key).find(|key| OF_ONE_REPLICA.contains(&key.as_str())) {
            bail!(
                "{key} is another for each replica, and quorate up sets it; use --replicas 1 to set it yourself"
            );
        }
        Ok(settings)
    }

    /// Writes the settings of replicas, where they are not yet as they should be.
    pub(in crate::admin) fn write_files(&self) -> Result<()> {
        let disk = Disk::real();
        for member in &self.files {
            let path = &member.file;
            let write = || {
                if let Some(folder) = path.parent() {
                    disk.make_folder(folder)?;
                }
                let is_same = disk.exists(path)? && disk.read(path)? == member.text.as_bytes();
                if is_same { Ok(()) } else { disk.replace(path, member.text.as_bytes()) }
            };
            write().with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// Fails if a port that will be listened on is taken, and says by whom.
    pub(in crate::admin) fn check_ports(&self) -> Result<()> {
        ports::check(&self.ports())
    }

    /// Returns all ports that will be listened on.
    fn ports(&self) -> Vec<Port> {
        let port = |number, what: &str| Port { host: self.bind_host.clone(), number, what: what.to_owned() };
        let mut ports = vec![port(self.namesrv_port, "name server")];
        for node in &self.nodes {
            for broker in &node.brokers {
                let what = if self.is_single() {
                    "broker".into()
                } else {
                    format!("{} of {}", node.name, broker.group)
                };
                ports.push(port(broker.listen_port, &what));
                ports.push(port(broker.fast_port, &format!("{what}, VIP channel")));
                if let Some(number) = broker.raft_port {
                    ports.push(Port { host: "127.0.0.1".into(), number, what: format!("{what}, Raft") });
                }
            }
        }
        ports
    }

    /// Whether it is one broker without replicas.
    pub(super) fn is_single(&self) -> bool {
        self.nodes.len() == 1
    }

    pub(super) fn executable(&self) -> &Path {
        &self.executable
    }

    pub(super) fn namesrv_program(&self) -> Program {
        self.program("namesrv", &self.namesrv_args)
    }

    pub(super) fn program(&self, name: &str, args: &[OsString]) -> Program {
        let log = self.data.join("logs").join(format!("{name}.log"));
        Program { name: name.to_owned(), executable: self.executable.clone(), args: args.to_vec(), log }
    }
}

fn load(file: Option<PathBuf>, overrides: Vec<String>, disk: &Disk) -> Result<Loaded<BrokerConfig>> {
    let environment = Environment::of_process();
    Ok(config::load(&Sources { file, namesrv_addr: None, overrides, environment }, disk)?)
}

fn namesrv_args(options: &Options, data: &Path) -> Vec<OsString> {
    let kept = |name: &str| data.join("namesrv").join(name).display().to_string();
    let mut args: Vec<OsString> = vec!["namesrv".into()];
    // Where the name server keeps what `updateNamesrvConfig` changed; it reads it back by -c only.
    if Path::new(&kept("namesrv.properties")).exists() {
        args.extend(["-c".into(), kept("namesrv.properties").into()]);
    }
    let settings = [
        format!("listenPort={}", options.namesrv_port),
        format!("bindAddress={}", options.host),
        format!("kvConfigPath={}", kept("kvConfig.json")),
        format!("configStorePath={}", kept("namesrv.properties")),
    ];
    args.extend(settings.map(OsString::from));
    args
}

/// Returns the `key=value` arguments of a single broker: our defaults where its file is silent, then what the
/// command line says.
fn broker_settings(
    options: &Options,
    data: &Path,
    namesrv: &str,
    is_any: bool,
    disk: &Disk,
) -> Result<Vec<String>> {
    let in_file = match &options.config_file {
        Some(file) => items(file, disk)?,
        None => Vec::new(),
    };
    let mut defaults = vec![
        ("brokerName", "broker-a".to_owned()),
        ("brokerClusterName", "DefaultCluster".to_owned()),
        ("bindAddress", options.host.clone()),
        ("storePathRootDir", data.join("broker").display().to_string()),
    ];
    if !is_any {
        defaults.push(("brokerIP1", options.host.clone()));
    }
    let silent = |(key, _): &(&str, String)| !in_file.iter().any(|set| set.key == *key);
    let mut settings: Vec<_> = defaults.into_iter().filter(silent).collect();
    if let Some(port) = options.broker_port {
        settings.push(("listenPort", port.to_string()));
    }
    settings.push(("namesrvAddr", namesrv.to_owned()));
    let settings = settings.into_iter().map(|(key, value)| format!("{key}={value}"));
    Ok(settings.chain(options.overrides.iter().cloned()).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn options(args: &[&str]) -> Options {
        Options::try_parse_from([&["quorate up"], args].concat()).unwrap()
    }

    fn settings(options: &Options) -> Vec<String> {
        let is_any = options.host == "0.0.0.0";
        broker_settings(options, Path::new("/data"), "127.0.0.1:9876", is_any, &Disk::real()).unwrap()
    }

    #[test]
    fn without_a_file_everything_is_local() {
        assert_eq!(
            settings(&options(&[])),
            [
                "brokerName=broker-a",
                "brokerClusterName=DefaultCluster",
                "bindAddress=127.0.0.1",
                "storePathRootDir=/data/broker",
                "brokerIP1=127.0.0.1",
                "namesrvAddr=127.0.0.1:9876",
            ]
        );
    }

    #[test]
    fn the_file_and_the_command_line_win() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("extra.conf");
        let text = b"brokerName=mine\nbindAddress=0.0.0.0\nnamesrvAddr=elsewhere:1\nflushDiskType=SYNC_FLUSH";
        Disk::real().replace(&path, text).unwrap();
        let file = path.display().to_string();
        let options = options(&["-c", &file, "--broker-port", "20911", "traceOn=false"]);
        assert_eq!(
            settings(&options),
            [
                "brokerClusterName=DefaultCluster",
                "storePathRootDir=/data/broker",
                "brokerIP1=127.0.0.1",
                "listenPort=20911",
                "namesrvAddr=127.0.0.1:9876",
                "traceOn=false",
            ]
        );
    }

    /// Returns why a plan is refused, if it is.
    fn refused(args: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().display().to_string();
        match Plan::of(&options(&[&["--data", &data], args].concat())) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_wrong_setting_is_found_before_anything_starts() {
        let expected = "command line: listenPort=x: expected a number from 0 to 65535";
        assert_eq!(refused(&["--replicas", "1", "listenPort=x"]), expected);
        assert!(refused(&["--replicas", "1", "enableDLegerCommitLog=true"]).contains("dLegerGroup"));
        assert!(refused(&["traceOn=x"]).contains("expected true or false"));
        assert!(refused(&["listenPort=1"]).starts_with("listenPort is another for each replica"));
        assert_eq!(refused(&["flushDiskType=ASYNC_FLUSH", "raftHeartbeatIntervalMs=30"]), "");
    }

    #[test]
    fn a_group_has_a_process_for_each_replica() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().display().to_string();
        let options = options(&["--data", &data, "--groups", "2", "--broker-port", "20911", "traceOn=false"]);
        let plan = Plan::of(&options).unwrap();
        assert!(!folder.path().join("n0").exists(), "nothing is written before the ports are checked");
        let names: Vec<_> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["n0", "n1", "n2"]);
        let node = &plan.nodes[1];
        let brokers: Vec<_> = node
            .brokers
            .iter()
            .map(|b| (b.group.as_str(), b.address.as_str(), b.raft_port, b.preferred))
            .collect();
        let expected = [
            ("broker-a", "127.0.0.1:20921", Some(20923), false),
            ("broker-b", "127.0.0.1:21021", Some(21023), true),
        ];
        assert_eq!(brokers, expected);
        let root = folder.path().canonicalize().unwrap();
        let args: Vec<String> = node.args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let conf = |name: &str| root.join("n1").join(name).display().to_string();
        assert_eq!(
            args,
            [
                "broker",
                "-c",
                &conf("broker-a.conf"),
                "-c",
                &conf("broker-b.conf"),
                "bindAddress=127.0.0.1",
                "raftBindAddress=127.0.0.1",
                "brokerIP1=127.0.0.1",
                "namesrvAddr=127.0.0.1:9876",
                "traceOn=false",
            ]
        );
        assert_eq!(plan.ports().len(), 1 + 3 * 2 * 3);
        plan.write_files().unwrap();
        plan.write_files().unwrap();
        assert!(root.join("n2/broker-b.conf").exists() && !root.join("n2/broker-b.conf.bak").exists());
    }
}
