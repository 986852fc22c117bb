//! The keys of a Raft group: what they must look like, what follows from them, what they risk.

use super::broker::{BrokerConfig, FlushDiskType, is_host_and_port};
use super::load::Refused;

/// Largest `raftEntryBytesMax`: what one request between replicas should carry at most.
const ENTRY_BYTES_MAX: usize = 64 << 20;
/// Longest of the times here, so that a slip of the pen is found.
const TIME_MAX_MS: u64 = 600_000;

/// A member of a Raft group, as `dLegerPeers` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftPeer {
    /// Its number: 1 for `n1`.
    pub id: u64,
    /// Its Raft port, `host:port`.
    pub address: String,
}

impl BrokerConfig {
    /// Returns the members that `dLegerPeers` names.
    pub fn raft_peers(&self) -> Vec<RaftPeer> {
        parts(self.dleger_peers.as_deref()).filter_map(peer).collect()
    }

    /// Returns this member's number, `dLegerSelfId`.
    pub fn raft_self_id(&self) -> Option<u64> {
        self.dleger_self_id.as_deref().and_then(member)
    }

    /// Returns the numbers of the members that should lead, best first.
    pub fn preferred_leaders(&self) -> Vec<u64> {
        let ids = self.preferred_leader_ids.as_deref().or(self.preferred_leader_id.as_deref());
        parts(ids).filter_map(member).collect()
    }

    /// Returns the Raft port of this member, if the broker is in a group.
    pub fn raft_port(&self) -> Option<u16> {
        let id = self.raft_self_id().filter(|_| self.enable_dleger_commit_log)?;
        let own = self.raft_peers().into_iter().find(|peer| peer.id == id)?;
        own.address.rsplit_once(':')?.1.parse().ok()
    }
}

/// Checks the keys of a broker in a Raft group.
pub(super) fn check(config: &BrokerConfig) -> Result<(), Refused> {
    check_members(config)?;
    check_leaders(config)?;
    check_numbers(config)
}

fn check_members(config: &BrokerConfig) -> Result<(), Refused> {
    let Some(group) = &config.dleger_group else {
        return Err(Refused::Value("dLegerGroup", "expected the name of the Raft group".into()));
    };
    if !config.broker_name.is_empty() && config.broker_name != *group {
        return Err(Refused::Value("dLegerGroup", format!("expected brokerName, {}", config.broker_name)));
    }
    let refused = |reason: String| Err(Refused::Value("dLegerPeers", reason));
    let peers = config.raft_peers();
    if peers.is_empty() || peers.len() != parts(config.dleger_peers.as_deref()).count() {
        return refused("expected n0-host:port;n1-host:port;...".into());
    }
    for (at, peer) in peers.iter().enumerate() {
        let before = &peers[..at];
        if before.iter().any(|other| other.id == peer.id) {
            return refused(format!("n{} stands there twice", peer.id));
        }
        if before.iter().any(|other| other.address == peer.address) {
            return refused(format!("{} stands there twice", peer.address));
        }
    }
    if !config.raft_self_id().is_some_and(|id| peers.iter().any(|peer| peer.id == id)) {
        return Err(Refused::Value("dLegerSelfId", format!("expected one of {}", names(&peers))));
    }
    let port = config.raft_port().unwrap_or_default();
    if port == 0 {
        return refused("expected a port from 1 to 65535".into());
    }
    if config.listen_port != 0 && [config.listen_port, config.fast_listen_port()].contains(&port) {
        let listen_port = config.listen_port;
        return refused(format!(
            "port {port} serves clients: listenPort={listen_port} uses the one two below too"
        ));
    }
    Ok(())
}

fn check_leaders(config: &BrokerConfig) -> Result<(), Refused> {
    let (java, dledger) = (config.preferred_leader_id.as_deref(), config.preferred_leader_ids.as_deref());
    let peers = config.raft_peers();
    for (key, value) in [("preferredLeaderId", java), ("preferredLeaderIds", dledger)] {
        let is_member = |name: &str| member(name).is_some_and(|id| peers.iter().any(|peer| peer.id == id));
        if !parts(value).all(is_member) {
            return Err(Refused::Value(key, format!("expected some of {}, separated by ;", names(&peers))));
        }
    }
    if java.is_some() && dledger.is_some() && java != dledger {
        let reason = "differs from preferredLeaderId, which means the same; set one of them";
        return Err(Refused::Value("preferredLeaderIds", reason.into()));
    }
    Ok(())
}

fn check_numbers(config: &BrokerConfig) -> Result<(), Refused> {
    let times = [
        ("raftHeartbeatIntervalMs", config.raft_heartbeat_interval_ms, 1),
        ("raftElectionTimeoutMinMs", config.raft_election_timeout_min_ms, 1),
        ("raftElectionTimeoutMaxMs", config.raft_election_timeout_max_ms, 1),
        ("raftOffsetCommitIntervalMs", config.raft_offset_commit_interval_ms, 1),
        ("raftLeaderWaitMs", config.raft_leader_wait_ms, 0),
        ("raftLeaveWaitMs", config.raft_leave_wait_ms, 0),
    ];
    for (key, value, least) in times {
        if !(least..=TIME_MAX_MS).contains(&value) {
            return Err(Refused::Value(key, format!("expected milliseconds from {least} to {TIME_MAX_MS}")));
        }
    }
    let (heartbeat, shortest) = (config.raft_heartbeat_interval_ms, config.raft_election_timeout_min_ms);
    if shortest <= 2 * heartbeat {
        let reason = format!(
            "expected more than twice raftHeartbeatIntervalMs, {heartbeat}: one late heartbeat is no reason to elect"
        );
        return Err(Refused::Value("raftElectionTimeoutMinMs", reason));
    }
    if config.raft_election_timeout_max_ms < 2 * shortest {
        let reason = format!(
            "expected at least twice raftElectionTimeoutMinMs, {shortest}: members that ask for votes at the same time elect nobody"
        );
        return Err(Refused::Value("raftElectionTimeoutMaxMs", reason));
    }
    let counts = [
        ("raftEntryBytesMax", config.raft_entry_bytes_max, 1_024, ENTRY_BYTES_MAX),
        ("raftEntriesInFlightMax", config.raft_entries_in_flight_max, 1, 1_024),
    ];
    for (key, value, least, most) in counts {
        if !(least..=most).contains(&value) {
            return Err(Refused::Value(key, format!("expected a number from {least} to {most}")));
        }
    }
    Ok(())
}

/// Fills in what is different in a Raft group.
pub(super) fn resolve(config: &mut BrokerConfig, is_set: &dyn Fn(&str) -> bool) {
    config.broker_id = -1;
    config.broker_role = BrokerConfig::default().broker_role;
    if !is_set("flushDiskType") {
        config.flush_disk_type = FlushDiskType::SyncFlush;
    }
    if !is_set("slaveReadEnable") {
        config.slave_read_enable = true;
    }
    if config.raft_bind_address.is_empty() {
        config.raft_bind_address = config.bind_address.clone();
    }
    // An entry stands in one file of the log.
    let half = usize::try_from(config.mapped_file_size_commit_log / 2).unwrap_or(usize::MAX);
    config.raft_entry_bytes_max = config.raft_entry_bytes_max.min(half);
}

/// Returns what an operator of a Raft group should know about settings that are legal.
pub(super) fn risks(config: &BrokerConfig) -> Vec<String> {
    let mut risks = Vec::new();
    if config.flush_disk_type == FlushDiskType::AsyncFlush {
        risks.push(
            "flushDiskType=ASYNC_FLUSH in a Raft group: acknowledged messages stand in the page caches of a majority \
             and may not be on any disk yet; if the machines of a majority lose power or crash at once, the last of \
             them are lost. SYNC_FLUSH, the default of a Raft group, survives that"
                .to_owned(),
        );
    }
    if config.store_path_dledger_commit_log.is_some() {
        let path = config.store_path_commit_log.display();
        risks.push(format!(
            "storePathDLedgerCommitLog is not used: the log stands in storePathCommitLog, {path}"
        ));
    }
    if config.raft_peers().len() == 2 {
        risks.push(
            "dLegerPeers names two members: the group stops when either stops; three bear the loss of one"
                .into(),
        );
    }
    risks
}

/// Returns the parts of a list with `;` between them.
fn parts(list: Option<&str>) -> impl Iterator<Item = &str> {
    list.unwrap_or_default().split(';').map(str::trim).filter(|part| !part.is_empty())
}

/// Returns the number of `n1`, or `None` if it is malformed.
fn member(name: &str) -> Option<u64> {
    let digits = name.trim().strip_prefix('n')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u32>().ok().map(u64::from))?
}

/// Returns one of `dLegerPeers`, or `None` if it is malformed.
fn peer(text: &str) -> Option<RaftPeer> {
    let (name, address) = text.split_once('-')?;
    let address = address.trim();
    let id = member(name)?;
    is_host_and_port(address).then(|| RaftPeer { id, address: address.to_owned() })
}

fn names(peers: &[RaftPeer]) -> String {
    let names: Vec<String> = peers.iter().map(|peer| format!("n{}", peer.id)).collect();
    names.join(", ")
}
