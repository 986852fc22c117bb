//! How many replicas and groups a data folder has, on which ports, and the settings that each replica gets from that.
//!
//! ```text
//! DIR/broker/          the store of a single broker
//! DIR/n0/broker-a.conf settings of the replica n0 of the group broker-a, which `mqbroker -c` takes too
//! DIR/n0/broker-a/     its store
//! DIR/namesrv, DIR/logs
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Options;
use crate::config::properties;
use crate::env::Disk;

/// Where the ports start if nobody says so; RocketMQ's.
const FIRST_PORT: u16 = 10_911;
/// Between the ports of two replicas, and of two groups.
const REPLICA_STEP: u16 = 10;
const GROUP_STEP: u16 = 100;
/// From a replica's port for clients to its Raft port.
const RAFT_STEP: u16 = 2;
/// From the port of a process's first broker to that of its metrics, which is open only if the settings say so.
const METRICS_STEP: u16 = 4;
/// CommitLog files of a group on one machine, which makes three of each. A store keeps its size for good.
const SEGMENT_BYTES: u32 = 128 << 20;

/// What a data folder has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Replicas of each group; 1 is a broker without a group.
    pub(super) replicas: u16,
    pub(super) groups: u16,
    /// The port of the first replica. The settings of a single broker decide on its own.
    first_port: u16,
}

/// One replica of one group.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// Its settings file.
    pub(super) file: PathBuf,
    /// What the file has to say.
    pub(super) text: String,
}

impl Member {
    /// Returns what the file says as `key=value` arguments.
    pub(super) fn settings(&self) -> Result<Vec<String>> {
        let items = parse(&self.text, &self.file)?;
        Ok(items.into_iter().map(|item| format!("{}={}", item.key, item.value)).collect())
    }
}

impl Layout {
    /// Brings together what is asked for and what the folder has; they must not contradict each other.
    pub(super) fn of(options: &Options, data: &Path, disk: &Disk) -> Result<Self> {
        let Some(kept) = Self::kept(data, disk)? else {
            let replicas = options.replicas.unwrap_or(3);
            let first_port = options.broker_port.unwrap_or(FIRST_PORT);
            return Self { replicas, groups: options.groups.unwrap_or(1), first_port }.checked();
        };
        let has = if kept.replicas == 1 {
            "a single broker".to_owned()
        } else {
            format!("{} replicas from port {} on", kept.replicas, kept.first_port)
        };
        let other = "take another folder with --data, or remove this one";
        if options.replicas.is_some_and(|replicas| replicas != kept.replicas) {
            bail!("{} has {has}: --replicas cannot change that; {other}", data.display());
        }
        if kept.replicas > 1 && options.broker_port.is_some_and(|port| port != kept.first_port) {
            bail!("{} has {has}: --broker-port cannot change that; {other}", data.display());
        }
        let groups = options.groups.unwrap_or(kept.groups);
        if groups < kept.groups {
            bail!("{} has {} groups: --groups cannot be less; {other}", data.display(), kept.groups);
        }
        Self { groups, ..kept }.checked()
    }

    fn checked(self) -> Result<Self> {
        if self.replicas == 1 && self.groups > 1 {
            bail!("--groups {} needs replicas: a single broker has no group", self.groups);
        }
        if self.replicas.is_multiple_of(2) {
            bail!("--replicas {}: expected an odd number; one more bears no more losses", self.replicas);
        }
        let last = u32::from(GROUP_STEP) * u32::from(self.groups - 1)
            + u32::from(REPLICA_STEP) * u32::from(self.replicas - 1)
            + u32::from(METRICS_STEP);
        if self.first_port < 3 || u32::from(self.first_port) + last > u32::from(u16::MAX) {
            bail!("--broker-port {}: expected 3 to {}", self.first_port, u32::from(u16::MAX) - last);
        }
        Ok(self)
    }

    /// Returns what the folder has, if a broker ever ran there.
    fn kept(data: &Path, disk: &Disk) -> Result<Option<Self>> {
        let exists =
            |path: PathBuf| disk.exists(&path).with_context(|| format!("look at {}", path.display()));
        if exists(data.join("broker"))? {
            return Ok(Some(Self { replicas: 1, groups: 1, first_port: FIRST_PORT }));
        }
        let (mut replicas, mut groups) = (0, 0);
        for replica in 0..9 {
            for group in 0..9 {
                if exists(store(data, replica, group))? {
                    groups = groups.max(group + 1);
                }
            }
            if exists(file(data, replica, 0))? {
                replicas = replica + 1;
            }
        }
        if groups == 0 || replicas == 0 {
            return Ok(None);
        }
        let first = file(data, 0, 0);
        let port = items(&first, disk)?.into_iter().rev().find(|item| item.key == "listenPort");
        let first_port = port.and_then(|item| item.value.parse().ok());
        let first_port = first_port.with_context(|| format!("{} has no listenPort", first.display()))?;
        Ok(Some(Self { replicas, groups, first_port }))
    }

    /// Returns the members that run in the process of a replica, a file each.
    pub(super) fn members(&self, data: &Path, replica: u16, disk: &Disk) -> Result<Vec<Member>> {
        (0..self.groups).map(|group| self.member(data, replica, group, disk)).collect()
    }

    fn member(&self, data: &Path, replica: u16, group: u16, disk: &Disk) -> Result<Member> {
        let name = group_name(group);
        let peers: Vec<String> = (0..self.replicas)
            .map(|peer| format!("n{peer}-127.0.0.1:{}", self.port(peer, group) + RAFT_STEP))
            .collect();
        let mut settings = vec![
            ("brokerName", name.clone()),
            ("listenPort", self.port(replica, group).to_string()),
            ("storePathRootDir", store(data, replica, group).display().to_string()),
            ("enableDLegerCommitLog", "true".to_owned()),
            ("dLegerGroup", name),
            ("dLegerPeers", peers.join(";")),
            ("dLegerSelfId", format!("n{replica}")),
            ("metricsPromExporterPort", (self.port(replica, 0) + METRICS_STEP).to_string()),
        ];
        if self.groups > 1 {
            settings.push(("preferredLeaderIds", format!("n{}", group % self.replicas)));
        }
        let file = file(data, replica, group);
        let (mut text, mut has) = (String::new(), Vec::new());
        if disk.exists(&file).with_context(|| format!("look at {}", file.display()))? {
            text = read(&file, disk)?;
            has = items(&file, disk)?;
        } else {
            text.push_str("# Made by `quorate up`, which sets ports and peers; what is added here stays.\n");
            settings.push(("brokerClusterName", "DefaultCluster".to_owned()));
            settings.push(("mappedFileSizeCommitLog", SEGMENT_BYTES.to_string()));
        }
        let changed = |(key, value): &(&str, String)| {
            has.iter().rev().find(|item| item.key == *key).is_none_or(|item| item.value != *value)
        };
        let changes = settings.into_iter().filter(changed).map(|(key, value)| (key.to_owned(), value));
        let text = properties::rewrite(&text, &changes.collect())
            .map_err(|error| anyhow::anyhow!("{}:{}: {error}", file.display(), error.line))?;
        Ok(Member { file, text })
    }

    fn port(&self, replica: u16, group: u16) -> u16 {
        self.first_port + GROUP_STEP * group + REPLICA_STEP * replica
    }
}

/// Returns the items of a settings file.
pub(super) fn items(file: &Path, disk: &Disk) -> Result<Vec<properties::Item>> {
    parse(&read(file, disk)?, file)
}

fn parse(text: &str, file: &Path) -> Result<Vec<properties::Item>> {
    properties::parse(text).map_err(|error| anyhow::anyhow!("{}:{}: {error}", file.display(), error.line))
}

fn read(file: &Path, disk: &Disk) -> Result<String> {
    let bytes = disk.read(file).with_context(|| format!("read {}", file.display()))?;
    Ok(properties::decode(&bytes))
}

/// Returns `broker-a`, `broker-b` and so on.
fn group_name(group: u16) -> String {
    format!("broker-{}", char::from(b'a' + u8::try_from(group % 26).unwrap_or(0)))
}

fn file(data: &Path, replica: u16, group: u16) -> PathBuf {
    data.join(format!("n{replica}")).join(format!("{}.conf", group_name(group)))
}

fn store(data: &Path, replica: u16, group: u16) -> PathBuf {
    data.join(format!("n{replica}")).join(group_name(group))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn layout(data: &Path, args: &[&str]) -> Result<Layout> {
        let options = Options::try_parse_from([&["quorate up"], args].concat())?;
        Layout::of(&options, data, &Disk::real())
    }

    fn refusal(data: &Path, args: &[&str]) -> String {
        layout(data, args).unwrap_err().to_string().replace(&data.display().to_string(), "DIR")
    }

    /// Leaves the folder as a first run does.
    fn run(data: &Path, layout: Layout) {
        let disk = Disk::real();
        for replica in 0..layout.replicas {
            for (group, member) in (0..).zip(layout.members(data, replica, &disk).unwrap()) {
                disk.make_folder(member.file.parent().unwrap()).unwrap();
                disk.replace(&member.file, member.text.as_bytes()).unwrap();
                disk.make_folder(&store(data, replica, group)).unwrap();
            }
        }
    }

    #[test]
    fn a_new_folder_gets_what_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        assert_eq!(layout(data, &[]).unwrap(), Layout { replicas: 3, groups: 1, first_port: 10911 });
        let args = ["--replicas", "5", "--groups", "3", "--broker-port", "20911"];
        assert_eq!(layout(data, &args).unwrap(), Layout { replicas: 5, groups: 3, first_port: 20911 });
        assert!(refusal(data, &["--replicas", "2"]).contains("expected an odd number"));
        assert!(
            refusal(data, &["--replicas", "1", "--groups", "2"]).contains("a single broker has no group")
        );
        assert_eq!(refusal(data, &["--broker-port", "65520"]), "--broker-port 65520: expected 3 to 65511");
    }

    #[test]
    fn replicas_know_each_other() {
        let layout = Layout { replicas: 3, groups: 3, first_port: 10911 };
        let members = layout.members(Path::new("/data"), 2, &Disk::real()).unwrap();
        assert_eq!(members[1].file, Path::new("/data/n2/broker-b.conf"));
        assert_eq!(
            members[1].text,
            "# Made by `quorate up`, which sets ports and peers; what is added here stays.\n\
             brokerClusterName=DefaultCluster\n\
             brokerName=broker-b\n\
             dLegerGroup=broker-b\n\
             dLegerPeers=n0-127.0.0.1:11013;n1-127.0.0.1:11023;n2-127.0.0.1:11033\n\
             dLegerSelfId=n2\n\
             enableDLegerCommitLog=true\n\
             listenPort=11031\n\
             mappedFileSizeCommitLog=134217728\n\
             metricsPromExporterPort=10935\n\
             preferredLeaderIds=n1\n\
             storePathRootDir=/data/n2/broker-b\n"
        );
    }

    #[test]
    fn a_used_folder_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        run(data, layout(data, &["--broker-port", "20911"]).unwrap());
        let kept = Layout { replicas: 3, groups: 1, first_port: 20911 };
        assert_eq!(layout(data, &[]).unwrap(), kept);
        assert_eq!(layout(data, &["--groups", "3"]).unwrap(), Layout { groups: 3, ..kept });
        assert!(refusal(data, &["--replicas", "1"]).starts_with("DIR has 3 replicas from port 20911 on: "));
        assert!(refusal(data, &["--broker-port", "10911"]).contains("--broker-port cannot change that"));
        run(data, Layout { groups: 3, ..kept });
        assert!(refusal(data, &["--groups", "1"]).starts_with("DIR has 3 groups: "));
    }

    #[test]
    fn what_was_changed_in_a_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let disk = Disk::real();
        let first = layout(data, &[]).unwrap();
        run(data, first);
        let file = file(data, 1, 0);
        let text = read(&file, &disk).unwrap();
        let changed = text.replace("mappedFileSizeCommitLog=134217728\n", "fileReservedTime=5\n# mine\n");
        disk.replace(&file, changed.as_bytes()).unwrap();
        let member = first.members(data, 1, &disk).unwrap().remove(0);
        assert_eq!(member.text, changed);
        // A folder that was moved is found where it is.
        let member = first.members(Path::new("/moved"), 1, &disk).unwrap().remove(0);
        assert!(member.text.contains("storePathRootDir=/moved/n1/broker-a\n"));
    }

    #[test]
    fn a_single_broker_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        Disk::real().make_folder(&data.join("broker")).unwrap();
        assert_eq!(layout(data, &[]).unwrap().replicas, 1);
        assert!(refusal(data, &["--replicas", "3"]).starts_with("DIR has a single broker: "));
        assert!(refusal(data, &["--groups", "3"]).contains("a single broker has no group"));
    }
}
