use std::path::{Path, PathBuf};

use super::*;
use crate::env::Disk;

fn environment() -> Environment {
    Environment { namesrv_addr: None, rocketmq_home: None, home: Some("/home/q".into()) }
}

/// Loads a broker whose file has this text.
fn broker(text: &str) -> Result<Loaded<BrokerConfig>, Error> {
    from_text(text, &[])
}

fn from_text<T: Settings>(text: &str, overrides: &[&str]) -> Result<Loaded<T>, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    Disk::real().replace(&path, text.as_bytes()).unwrap();
    let sources = Sources {
        file: Some(path),
        overrides: overrides.iter().map(|text| text.to_string()).collect(),
        environment: environment(),
        ..Sources::default()
    };
    load(&sources, &Disk::real())
}

/// Returns the error's text with the folder of the file cut off.
fn refusal(text: &str) -> String {
    let error = broker(text).unwrap_err().to_string();
    error.find("broker.conf").map_or(error.clone(), |at| error[at..].to_owned())
}

#[test]
fn shipped_files_load_without_a_warning() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut folders = vec![folder];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for path in Disk::real().list(&folder).unwrap() {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let sources =
                Sources { file: Some(path.clone()), environment: environment(), ..Sources::default() };
            let warnings = match name.as_str() {
                "namesrv.conf" => load::<NamesrvConfig>(&sources, &Disk::real()).unwrap().warnings().to_vec(),
                _ if name.ends_with(".conf") || name.ends_with(".properties") => {
                    load::<BrokerConfig>(&sources, &Disk::real()).unwrap().warnings().to_vec()
                }
                _ => continue,
            };
            assert_eq!(warnings, Vec::<String>::new(), "{}", path.display());
            count += 1;
        }
    }
    assert!(count >= 2, "only {count} files under conf/");
}

/// Loads what is shipped in a folder under `conf/`.
fn shipped(folder: &str) -> Vec<Loaded<BrokerConfig>> {
    let mut files =
        Disk::real().list(&Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(folder)).unwrap();
    files.sort();
    let load = |file| {
        let sources = Sources { file: Some(file), environment: environment(), ..Sources::default() };
        load(&sources, &Disk::real()).unwrap()
    };
    files.into_iter().map(load).collect()
}

#[test]
fn shipped_groups_fit_together() {
    for (folder, groups) in [("raft", 1), ("raft-3groups", 3)] {
        let members: Vec<Loaded<BrokerConfig>> = shipped(folder);
        assert_eq!(members.len(), groups * 3);
        // The name server's port, and those that each broker opens or may open.
        let mut ports = vec![9876];
        let mut folders = Vec::new();
        let mut leaders = Vec::new();
        for member in &members {
            let same = members.iter().filter(|other| other.broker_name == member.broker_name);
            assert!(same.clone().all(|other| other.dleger_peers == member.dleger_peers));
            assert!(same.clone().all(|other| other.preferred_leaders() == member.preferred_leaders()));
            let ids: Vec<_> = same.map(|other| other.raft_self_id().unwrap()).collect();
            assert_eq!(ids, [0, 1, 2], "{}", member.broker_name);
            let client = [member.listen_port, member.fast_listen_port(), member.ha_listen_port];
            ports.extend(client.into_iter().chain(member.raft_port()));
            folders.push(member.store_path_root_dir.clone());
            leaders.extend(member.preferred_leaders());
        }
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), count, "{folder}: two share a port");
        assert!(ports.iter().all(|port| *port < 32_768), "ports that the system gives to connections");
        folders.sort();
        folders.dedup();
        assert_eq!(folders.len(), members.len(), "{folder}: two share a folder");
        leaders.sort_unstable();
        let expected: &[u64] = if groups == 3 { &[0, 0, 0, 1, 1, 1, 2, 2, 2] } else { &[] };
        assert_eq!(leaders, expected, "{folder}: who leads");
    }
}

#[test]
fn defaults_are_javas() {
    let config = from_text::<BrokerConfig>("brokerIP1=192.0.2.1\nbrokerName=b", &[]).unwrap();
    assert_eq!((config.listen_port, config.fast_listen_port(), config.ha_listen_port), (10911, 10909, 10912));
    assert_eq!(config.store_path_root_dir, Path::new("/home/q/store"));
    assert_eq!(config.store_path_commit_log, Path::new("/home/q/store/commitlog"));
    assert_eq!(config.broker_ip2, "192.0.2.1");
    assert_eq!(config.delay_levels_ms().len(), 18);
    assert_eq!(config.delay_levels_ms().last(), Some(&7_200_000));
    assert_eq!(config.unsupported(), None);
    let config = from_text::<NamesrvConfig>("", &[]).unwrap();
    assert_eq!(config.kv_config_path, Path::new("/home/q/namesrv/kvConfig.json"));
}

#[test]
fn machine_defaults_are_filled_in() {
    let config = broker("").unwrap();
    assert!(!config.broker_name.is_empty());
    config.broker_ip1.parse::<std::net::Ipv4Addr>().unwrap();
}

#[test]
fn wrong_values_stop_the_start() {
    for (text, expected) in [
        ("a=1\nlistenPort=abc", "broker.conf:2: listenPort=abc: expected a number from 0 to 65535"),
        ("listenPort=", "broker.conf:1: listenPort=: expected a number from 0 to 65535"),
        ("traceOn=yes", "broker.conf:1: traceOn=yes: expected true or false"),
        (
            "brokerRole=MASTER",
            "broker.conf:1: brokerRole=MASTER: expected one of ASYNC_MASTER, SYNC_MASTER, SLAVE",
        ),
        ("flushDiskType=x", "broker.conf:1: flushDiskType=x: expected one of ASYNC_FLUSH, SYNC_FLUSH"),
        ("deleteWhen=24", "broker.conf:1: deleteWhen=24: expected hours from 00 to 23, separated by ;"),
        (
            "diskMaxUsedSpaceRatio=101",
            "broker.conf:1: diskMaxUsedSpaceRatio=101: expected a percentage from 0 to 100",
        ),
        ("maxMessageSize=0", "broker.conf:1: maxMessageSize=0: expected a number from 1 to 2147483647"),
        ("brokerPermission=1", "broker.conf:1: brokerPermission=1: expected 2 (write), 4 (read), 6 or 0"),
        (
            "messageDelayLevel=1s 2x",
            "broker.conf:1: messageDelayLevel=1s 2x: expected numbers with s, m, h or d, separated by blanks",
        ),
        ("flushIntervalCommitLog=0", "broker.conf:1: flushIntervalCommitLog=0: expected 1 or more"),
        ("x=\\u1", "broker.conf:1: \\u without four hexadecimal digits"),
        (
            "namesrvAddr=h",
            "The Name Server Address[h] illegal, please set it as follows, \"127.0.0.1:9876;192.168.0.1:9876\"",
        ),
        ("brokerRole=SLAVE", "Slave's brokerId must be > 0"),
        (
            "enableControllerMode=true\nenableDLegerCommitLog=true",
            "The config enableControllerMode and enableDLegerCommitLog cannot both be true.",
        ),
        ("enableDLegerCommitLog=true\ndLegerGroup=", "dLegerGroup=: expected the name of the Raft group"),
    ] {
        let refusal = refusal(text);
        assert!(refusal.ends_with(expected), "{refusal}");
    }
}

/// What Apache RocketMQ 5.5.0 ships as `conf/dledger/broker-n0.conf`, without its comments.
const APACHE_N0: &str = "brokerClusterName = RaftCluster
brokerName=RaftNode00
listenPort=30911
namesrvAddr=127.0.0.1:9876
storePathRootDir=/tmp/rmqstore/node00
storePathCommitLog=/tmp/rmqstore/node00/commitlog
enableDLegerCommitLog=true
dLegerGroup=RaftNode00
dLegerPeers=n0-127.0.0.1:40911;n1-127.0.0.1:40912;n2-127.0.0.1:40913
## must be unique
dLegerSelfId=n0
sendMessageThreadPoolNums=16
";

#[test]
fn apaches_dledger_file_is_a_raft_group() {
    let config = broker(APACHE_N0).unwrap();
    assert_eq!(config.warnings(), ["keys without effect in this broker: sendMessageThreadPoolNums"]);
    assert_eq!(config.unsupported(), None);
    assert_eq!((config.broker_name.as_str(), config.broker_id), ("RaftNode00", -1));
    assert_eq!((config.raft_self_id(), config.raft_port()), (Some(0), Some(40911)));
    assert_eq!(config.raft_bind_address, "0.0.0.0");
    assert_eq!((config.flush_disk_type, config.slave_read_enable), (FlushDiskType::SyncFlush, true));
    assert_eq!(config.raft_entry_bytes_max, 512 * 1024);
    let peers = config.raft_peers();
    assert_eq!(peers.iter().map(|peer| peer.id).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(peers[2].address, "127.0.0.1:40913");
    assert!(config.preferred_leaders().is_empty());
}

#[test]
fn a_raft_group_takes_what_its_file_says() {
    let text = APACHE_N0.replace("n1-127.0.0.1", "n1-node-1.example");
    let more = "brokerId=3\nbrokerRole=SLAVE\nflushDiskType=ASYNC_FLUSH\nslaveReadEnable=false\nenableBatchPush=true\n\
                preferredLeaderIds=n2;n1\nstorePathDLedgerCommitLog=/d\nmappedFileSizeCommitLog=65536\nbindAddress=::1";
    let config = broker(&format!("{text}{more}")).unwrap();
    assert_eq!(config.unsupported(), None);
    assert_eq!((config.broker_id, config.broker_role), (-1, BrokerRole::AsyncMaster));
    assert_eq!((config.flush_disk_type, config.slave_read_enable), (FlushDiskType::AsyncFlush, false));
    assert_eq!(config.preferred_leaders(), [2, 1]);
    assert_eq!(config.raft_peers()[1].address, "node-1.example:40912");
    assert_eq!((config.raft_entry_bytes_max, config.raft_bind_address.as_str()), (32_768, "::1"));
    let [effectless, flush, path] = config.warnings() else { panic!("{:?}", config.warnings()) };
    assert!(effectless.ends_with(": enableBatchPush, sendMessageThreadPoolNums"), "{effectless}");
    assert!(flush.starts_with("flushDiskType=ASYNC_FLUSH in a Raft group: "), "{flush}");
    let expected = "storePathDLedgerCommitLog is not used: the log stands in storePathCommitLog, \
                    /tmp/rmqstore/node00/commitlog";
    assert_eq!(path, expected);
    let config = broker(&format!("{APACHE_N0}preferredLeaderId=n1")).unwrap();
    assert_eq!(config.preferred_leaders(), [1]);
    let text = APACHE_N0.replace(";n2-127.0.0.1:40913", "");
    assert!(broker(&text).unwrap().warnings()[1].starts_with("dLegerPeers names two members"));
}

#[test]
fn wrong_raft_groups_stop_the_start() {
    let refused = |old: &str, new: &str| {
        assert!(old.is_empty() || APACHE_N0.contains(old), "{old}");
        if old.is_empty() {
            refusal(&format!("{APACHE_N0}{new}"))
        } else {
            refusal(&APACHE_N0.replace(old, new))
        }
    };
    for (old, new, expected) in [
        ("SelfId=n0", "SelfId=n3", "dLegerSelfId=n3: expected one of n0, n1, n2"),
        ("SelfId=n0", "SelfId=n+0", "dLegerSelfId=n+0: expected one of n0, n1, n2"),
        ("dLegerSelfId=n0", "", "dLegerSelfId=: expected one of n0, n1, n2"),
        ("n1-", "n1", "expected n0-host:port;n1-host:port;..."),
        ("n1-", "m1-", "expected n0-host:port;n1-host:port;..."),
        ("n1-", "n0-", "n0 stands there twice"),
        ("1:40912", "1:40911", "127.0.0.1:40911 stands there twice"),
        ("Name=RaftNode00", "Name=b", "dLegerGroup=RaftNode00: expected brokerName, b"),
        ("listenPort=30911", "listenPort=40913", "listenPort=40913 uses the one two below too"),
        (
            "",
            "preferredLeaderIds=n1;n4",
            "preferredLeaderIds=n1;n4: expected some of n0, n1, n2, separated by ;",
        ),
        ("", "preferredLeaderId=n1\npreferredLeaderIds=n2", "which means the same; set one of them"),
        (
            "",
            "raftHeartbeatIntervalMs=0",
            "raftHeartbeatIntervalMs=0: expected milliseconds from 1 to 600000",
        ),
        (
            "",
            "raftElectionTimeoutMinMs=100",
            "raftElectionTimeoutMinMs=100: expected more than twice raftHeartbeatIntervalMs, 50: one late heartbeat is \
             no reason to elect",
        ),
        (
            "",
            "raftElectionTimeoutMaxMs=299",
            "raftElectionTimeoutMaxMs=299: expected at least twice raftElectionTimeoutMinMs, 150: members that ask for \
             votes at the same time elect nobody",
        ),
        ("", "raftEntryBytesMax=1", "raftEntryBytesMax=1: expected a number from 1024 to 67108864"),
        ("", "raftEntriesInFlightMax=0", "raftEntriesInFlightMax=0: expected a number from 1 to 1024"),
    ] {
        let refusal = refused(old, new);
        assert!(refusal.ends_with(expected), "{refusal}");
    }
}

#[test]
fn numbers_that_java_clamps_are_clamped() {
    let text = "diskMaxUsedSpaceRatio=99\ndiskSpaceWarningLevelRatio=99\nregisterNameServerPeriod=1\n\
                mappedFileSizeConsumeQueue=21\nbrokerId=7";
    let config = broker(text).unwrap();
    assert_eq!(config.disk_max_used_space_ratio, 95);
    assert_eq!(config.disk_space_warning_level_ratio, 90);
    assert_eq!(config.register_name_server_period, 10_000);
    assert_eq!(config.mapped_file_size_consume_queue, 40);
    assert_eq!(config.broker_id, 0);
}

#[test]
fn command_line_beats_file_beats_environment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    let mut sources = Sources { environment: environment(), ..Sources::default() };
    sources.environment.namesrv_addr = Some("e:1".into());
    let address =
        |sources: &Sources| load::<BrokerConfig>(sources, &Disk::real()).unwrap().namesrv_addr.clone();
    assert_eq!(address(&sources).as_deref(), Some("e:1"));
    Disk::real().replace(&path, b"namesrvAddr=f:1;g:2").unwrap();
    sources.file = Some(path);
    assert_eq!(address(&sources).as_deref(), Some("f:1;g:2"));
    sources.namesrv_addr = Some("c:1".into());
    assert_eq!(address(&sources).as_deref(), Some("c:1"));
    sources.overrides = vec!["namesrvAddr=o:1".into()];
    assert_eq!(address(&sources).as_deref(), Some("o:1"));
    sources.overrides = vec!["oops".into()];
    let error = load::<BrokerConfig>(&sources, &Disk::real()).unwrap_err();
    assert_eq!(error.to_string(), "command line: oops: expected key=value");
}

#[test]
fn a_missing_file_is_named() {
    let sources = Sources { file: Some(PathBuf::from("/no/such.conf")), ..Sources::default() };
    let error = load::<BrokerConfig>(&sources, &Disk::real()).unwrap_err();
    assert!(error.to_string().starts_with("read /no/such.conf: "), "{error}");
}

#[test]
fn odd_keys_are_warned_of_once() {
    let text = "listenport=1\nzzzzzzzz=1\nuseEpollNativeSelector=true\nsendMessageThreadPoolNums=4\n\
                listenPort=2\nlistenPort=3";
    let config = broker(text).unwrap();
    let warnings: Vec<_> = config.warnings().iter().map(|w| w.replace(&folder_of(&config), "")).collect();
    assert_eq!(
        warnings,
        [
            "broker.conf:6: listenPort is set again, line 5 is not used",
            "unknown keys: listenport (broker.conf:1, did you mean listenPort?), zzzzzzzz (broker.conf:2)",
            "keys without effect in this broker: sendMessageThreadPoolNums, useEpollNativeSelector",
        ]
    );
    assert_eq!(config.listen_port, 3);
}

fn folder_of(config: &Loaded<BrokerConfig>) -> String {
    format!("{}/", config.file().unwrap().parent().unwrap().display())
}

#[test]
fn all_items_are_printed_sorted() {
    let config = broker("zzz=1\nbrokerName=b\nbrokerIP1=192.0.2.1\nuseEpollNativeSelector=true").unwrap();
    let text = config.to_properties();
    assert!(
        text.contains("\nbrokerPermission=6\nbrokerRole=ASYNC_MASTER\nbrokerTopicEnable=true\n"),
        "{text}"
    );
    assert!(text.contains("\nuseEpollNativeSelector=true\n") && text.ends_with("\nzzz=1\n"));
    assert!(!text.contains("namesrvAddr"));
    assert!(text.lines().is_sorted());
    let important = config.important();
    assert!(important.contains("brokerName=b\n") && !important.contains("brokerPermission"));
}

#[test]
fn updates_are_all_or_nothing() {
    let config = broker("brokerName=b\nfileReservedTime=48\nmine=1").unwrap();
    let changed = config.with_changes("fileReservedTime=24\nmine=2\nflushDiskType=SYNC_FLUSH\n").unwrap();
    assert_eq!(changed.live, ["fileReservedTime", "mine"]);
    assert_eq!(changed.after_restart, ["flushDiskType"]);
    assert_eq!(changed.config.file_reserved_time, 24);
    assert_eq!(changed.config.flush_disk_type, FlushDiskType::AsyncFlush);
    assert!(changed.config.to_properties().contains("flushDiskType=SYNC_FLUSH\n"));
    assert!(changed.config.with_changes("fileReservedTime=24").unwrap().live.is_empty());
    for (text, expected) in [
        (
            "fileReservedTime=24\nlistenPort=x",
            "update, line 2: listenPort=x: expected a number from 0 to 65535",
        ),
        ("deleteWhen=99", "update, line 1: deleteWhen=99: expected hours from 00 to 23, separated by ;"),
        ("brokerConfigPath=/x", "Can not update config in black list."),
        ("rocketmqHome=/x", "Can not update config in black list."),
        ("filereservedtime=1", "unknown key filereservedtime, did you mean fileReservedTime?"),
    ] {
        assert_eq!(config.with_changes(text).unwrap_err().to_string(), expected);
    }
}

#[test]
fn the_black_list_can_be_extended() {
    let config = broker("configBlackList=maxMessageSize; flushDiskType").unwrap();
    for text in ["flushDiskType=SYNC_FLUSH", "configBlackList="] {
        assert!(matches!(config.with_changes(text), Err(Error::BlackListed(_))), "{text}");
    }
}

#[test]
fn a_saved_update_is_loaded_by_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    Disk::real().replace(&path, b"# caf\xe9\nfileReservedTime=48\n").unwrap();
    let sources = Sources { file: Some(path.clone()), environment: environment(), ..Sources::default() };
    let config: Loaded<BrokerConfig> = load(&sources, &Disk::real()).unwrap();
    let changed = config.with_changes("fileReservedTime=24\nflushDiskType=SYNC_FLUSH").unwrap();
    let keys = [changed.live, changed.after_restart].concat();
    changed.config.save(&keys, &path, &Disk::real()).unwrap();
    let written = Disk::real().read(&path).unwrap();
    assert_eq!(written, b"# caf\xe9\nfileReservedTime=24\nflushDiskType=SYNC_FLUSH\n");
    let config: Loaded<BrokerConfig> = load(&sources, &Disk::real()).unwrap();
    assert_eq!((config.file_reserved_time, config.flush_disk_type), (24, FlushDiskType::SyncFlush));
}

#[test]
fn a_full_disk_leaves_the_file_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    Disk::real().replace(&path, b"fileReservedTime=48\n").unwrap();
    let sources = Sources { file: Some(path.clone()), environment: environment(), ..Sources::default() };
    let config: Loaded<BrokerConfig> = load(&sources, &Disk::real()).unwrap();
    let changed = config.with_changes("fileReservedTime=24").unwrap().config;
    let faults = std::sync::Arc::new(crate::env::Faults::default());
    faults.full.store(true, std::sync::atomic::Ordering::Relaxed);
    let error = changed.save(&["fileReservedTime".into()], &path, &Disk::faulty(faults)).unwrap_err();
    assert!(error.to_string().starts_with("write "), "{error}");
    assert_eq!(Disk::real().read(&path).unwrap(), b"fileReservedTime=48\n");
}

#[test]
fn settings_of_a_group_count_for_more_than_those_of_a_replica() {
    let config =
        broker("brokerName=b\nfileReservedTime=48\ndiskMaxUsedSpaceRatio=80\nlistenPort=1000").unwrap();
    let shared = |text: &str| update_items(text).unwrap();
    let group =
        shared("fileReservedTime=24\nbrokerPermission=4\nmine=1\ndiskMaxUsedSpaceRatio=50\nlistenPort=9");
    let taken = config.with_shared(&group);
    assert_eq!(taken.set, ["brokerPermission", "fileReservedTime", "mine"]);
    assert_eq!(taken.live, taken.set);
    assert_eq!(taken.overruled.len(), 1, "{:?}", taken.overruled);
    assert!(matches!(&taken.overruled[0], (key, Origin::File(_, 2)) if key == "fileReservedTime"));
    let config = taken.config;
    assert_eq!((config.file_reserved_time, config.broker_permission), (24, 4));
    assert_eq!((config.disk_max_used_space_ratio, config.listen_port), (80, 1000), "the replica's own");
    assert!(taken.refused.is_empty() && config.with_shared(&group).set.is_empty());
    // What does not go together with the others is left out, and nothing else.
    let taken = config.with_shared(&shared("brokerPermission=9\nfileReservedTime=12"));
    assert_eq!((taken.config.broker_permission, taken.config.file_reserved_time), (4, 12));
    assert_eq!((taken.set.as_slice(), taken.refused.len()), (&["fileReservedTime".to_owned()][..], 1));
    assert!(taken.refused[0].to_string().starts_with("settings of the group: brokerPermission=9"));
}
