//! From a broker's settings to those of its Raft group.

use std::path::PathBuf;

use crate::config::{BrokerConfig, FlushDiskType, Loaded};
use crate::env::Disk;
use crate::replication::{FlushMode, GroupSettings, Peer};

/// Returns the settings of the Raft group that the broker is a member of, or `None` if it has no replicas.
pub(super) fn group_settings(config: &Loaded<BrokerConfig>) -> Option<GroupSettings> {
    if !config.enable_dleger_commit_log {
        return None;
    }
    let peers = config.raft_peers().into_iter().map(|peer| Peer { id: peer.id, address: peer.address });
    Some(GroupSettings {
        group: config.broker_name.clone(),
        id: config.raft_self_id()?,
        peers: peers.collect(),
        preferred_leaders: config.preferred_leaders(),
        client_address: format!("{}:{}", config.broker_ip1, config.listen_port),
        bind_address: config.raft_bind_address.clone(),
        flush: flush_mode(config),
        heartbeat_ms: config.raft_heartbeat_interval_ms,
        election_min_ms: config.raft_election_timeout_min_ms,
        election_max_ms: config.raft_election_timeout_max_ms,
        entry_bytes_max: config.raft_entry_bytes_max,
        in_flight_max: config.raft_entries_in_flight_max,
        offset_commit_interval_ms: config.raft_offset_commit_interval_ms,
    })
}

/// Returns what `flushDiskType` says.
pub(super) fn flush_mode(config: &BrokerConfig) -> FlushMode {
    match config.flush_disk_type {
        FlushDiskType::SyncFlush => FlushMode::Sync,
        FlushDiskType::AsyncFlush => FlushMode::Async,
    }
}

/// Returns the folder with the log of Apache's DLedger for this member, if there is one. Its messages cannot be read
/// here, and a group that started without them would seem to have lost them.
///
/// Source of the place: RocketMQ `DLedgerCommitLog`, DLedger `DLedgerConfig.getDataStorePath`.
pub(super) fn dledger_log(config: &BrokerConfig, disk: &Disk) -> Option<PathBuf> {
    let id = config.raft_self_id().filter(|_| config.enable_dleger_commit_log)?;
    let folder = match &config.store_path_dledger_commit_log {
        Some(path) => PathBuf::from(path),
        None => config.store_path_root_dir.join(format!("dledger-n{id}")),
    };
    let log = folder.join("data");
    disk.list(&log).is_ok_and(|files| !files.is_empty()).then_some(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    fn config(settings: &[&str]) -> Loaded<BrokerConfig> {
        let overrides = settings.iter().map(|setting| (*setting).to_owned()).collect();
        load(&Sources { overrides, ..Sources::default() }, &Disk::real()).unwrap()
    }

    const MEMBER: [&str; 6] = [
        "enableDLegerCommitLog=true",
        "dLegerGroup=g",
        "dLegerPeers=n0-a:1;n1-b.example:2;n3-c:3",
        "dLegerSelfId=n1",
        "preferredLeaderIds=n3",
        "brokerIP1=192.0.2.1",
    ];

    #[test]
    fn a_broker_without_replicas_has_no_group() {
        assert!(group_settings(&config(&["dLegerGroup=g"])).is_none());
    }

    #[test]
    fn a_member_knows_its_group() {
        let settings = group_settings(&config(&MEMBER)).unwrap();
        assert_eq!((settings.group.as_str(), settings.id, settings.peers.len()), ("g", 1, 3));
        assert_eq!(settings.peers[1], Peer { id: 1, address: "b.example:2".into() });
        assert_eq!(settings.preferred_leaders, [3]);
        assert_eq!(
            (settings.client_address.as_str(), settings.bind_address.as_str()),
            ("192.0.2.1:10911", "0.0.0.0")
        );
        assert!(matches!(settings.flush, FlushMode::Sync));
        let times = (settings.heartbeat_ms, settings.election_min_ms, settings.election_max_ms);
        assert_eq!(times, (50, 150, 300));
        assert_eq!((settings.entry_bytes_max, settings.in_flight_max), (524_288, 8));
        assert_eq!(settings.offset_commit_interval_ms, 100);
    }

    #[test]
    fn a_log_of_dledger_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let root = format!("storePathRootDir={}", folder.path().display());
        let mut settings = MEMBER.to_vec();
        settings.push(&root);
        let config = config(&settings);
        assert_eq!(dledger_log(&config, &Disk::real()), None);
        let log = folder.path().join("dledger-n1/data");
        Disk::real().make_folder(&log).unwrap();
        assert_eq!(dledger_log(&config, &Disk::real()), None);
        Disk::real().replace(&log.join("00000000000000000000"), b"x").unwrap();
        assert_eq!(dledger_log(&config, &Disk::real()), Some(log));
    }
}
