//! `raftStatus`, `addPeer`, `removePeer`, `transferLeader`, `rejoin`: commands of ours for Raft groups.
//!
//! The name server says which brokers a group has, or `-b` names one of them; each is asked what it is, and the one
//! that leads carries out what only a leader can.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::output::Output;
use super::session::{CALL_TIMEOUT, Refused, Session, accept};
use crate::remoting::body::{RaftMember, RaftStatus};
use crate::remoting::header::{
    RaftAddPeerRequestHeader, RaftPeerRequestHeader, RaftTransferLeaderRequestHeader,
};
use crate::remoting::{Command, RequestCode, ResponseCode};

/// How long a group may be without a leader until a command gives up.
const LEADER_WAIT: Duration = Duration::from_secs(10);
/// How long a replica may take to say whether it leads.
const LEADER_PATIENCE: Duration = Duration::from_secs(1);
/// The pace of looking for a leader.
const LEADER_PAUSE: Duration = Duration::from_millis(200);
/// The pace of looking how far a replica is.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);
/// Entries that a voter lacks without being worth a line: so many may be on their way at any moment.
const LAG_WORTH_A_LINE: u64 = 1000;
/// Silence of the majority that is worth a line, in milliseconds.
const QUORUM_AGE_WORTH_A_LINE: u64 = 1000;

const LEADER: &str = "LEADER";

/// Options of `raftStatus`.
#[derive(Debug, clap::Args)]
pub(super) struct RaftStatusOf {
    /// One replica only
    #[arg(short = 'b', long = "brokerAddr", group = "which")]
    broker: Option<String>,
    /// All groups of a cluster
    #[arg(short = 'c', long = "clusterName", group = "which")]
    cluster: Option<String>,
    /// One group
    #[arg(short = 'g', long = "groupName", group = "which")]
    group: Option<String>,
    /// Print again every so many seconds
    #[arg(short = 'i', long = "interval")]
    interval: Option<u64>,
}

/// A replica, by what it says, and what its leader says of it.
#[derive(Debug, Clone, Serialize)]
struct Replica {
    /// Where clients reach it.
    address: String,
    /// Entries that it lacks, if its leader answered.
    lag: Option<u64>,
    status: RaftStatus,
}

/// The replicas of a group that answered, and the members that did not.
#[derive(Debug, Default, Clone, Serialize)]
struct RaftGroup {
    group: String,
    replicas: Vec<Replica>,
    unreachable: Vec<RaftMember>,
}

impl RaftStatusOf {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        loop {
            let groups = self.groups(session, out).await?;
            print_groups(&groups, out)?;
            out.json(&groups)?;
            // One replica cannot answer for the others.
            if self.broker.is_none() {
                for group in &groups {
                    report(group, out);
                }
            }
            let Some(seconds) = self.interval else { return Ok(()) };
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }

    async fn groups(&self, session: &Session, out: &mut Output<'_>) -> Result<Vec<RaftGroup>> {
        if let Some(address) = &self.broker {
            let address = address.trim();
            let status = status_of(session, address).await?;
            return Ok(vec![RaftGroup::of(&status.group.clone(), vec![(address.to_owned(), status)])]);
        }
        let brokers = match (&self.cluster, &self.group) {
            (Some(cluster), _) => session.groups_of(cluster.trim()).await?,
            (None, Some(group)) => {
                let addresses = addresses_of(session, group.trim()).await?;
                let broker_addrs = (0..).zip(addresses).collect();
                let broker_name = group.trim().to_owned();
                vec![crate::remoting::body::BrokerData { broker_addrs, broker_name, ..Default::default() }]
            }
            (None, None) => session.cluster_info().await?.broker_addr_table.into_values().collect(),
        };
        let mut groups = Vec::new();
        let mut without_group = Vec::new();
        // All at the same time, so that many that are down cost as much as one.
        let asked =
            brokers.iter().map(|broker| statuses_of(session, broker.broker_addrs.values(), CALL_TIMEOUT));
        for (broker, asked) in brokers.iter().zip(join_all(asked).await) {
            let mut answers = Vec::new();
            for (address, answer) in asked {
                match answer {
                    Ok(status) => answers.push((address, status)),
                    Err(error) if is_no_group(&error) => without_group.push(address),
                    Err(error) => out.problem(&error),
                }
            }
            if !answers.is_empty() {
                groups.push(RaftGroup::of(&broker.broker_name, answers));
            }
        }
        if groups.is_empty() && !without_group.is_empty() {
            bail!(
                "no Raft group: {} without one; enableDLegerCommitLog=true in a broker's file makes one",
                without_group.join(", ")
            );
        }
        Ok(groups)
    }
}

impl RaftGroup {
    fn of(group: &str, answers: Vec<(String, RaftStatus)>) -> Self {
        let leader = leader_of(answers.iter().map(|(_, status)| status));
        let lags: BTreeMap<u64, Option<u64>> = leader
            .map_or_else(BTreeMap::new, |leader| leader.members.iter().map(|m| (m.id, m.lag)).collect());
        // The leader knows the members best; else the replica with the newest term does.
        let members = leader.or_else(|| answers.iter().map(|(_, status)| status).max_by_key(|s| s.term));
        let unreachable = members.map_or_else(Vec::new, |known| {
            let is_silent = |member: &&RaftMember| answers.iter().all(|(_, status)| status.id != member.id);
            known.members.iter().filter(is_silent).cloned().collect()
        });
        let lag_of = |status: &RaftStatus| match status.state.as_str() {
            LEADER => Some(0),
            _ => lags.get(&status.id).copied().flatten(),
        };
        let mut replicas: Vec<_> = answers
            .iter()
            .map(|(address, status)| Replica {
                address: address.clone(),
                lag: lag_of(status),
                status: status.clone(),
            })
            .collect();
        replicas.sort_by_key(|replica| replica.status.id);
        Self { group: group.to_owned(), replicas, unreachable }
    }

    fn leader(&self) -> Option<&RaftStatus> {
        leader_of(self.replicas.iter().map(|replica| &replica.status))
    }
}

/// Complains of what is wrong with a group, so that the exit code tells.
fn report(group: &RaftGroup, out: &mut Output<'_>) {
    if group.leader().is_none() {
        out.problem(&anyhow!("the group {} has no leader", group.group));
    }
    for member in &group.unreachable {
        let (id, address) = (member.id, &member.raft_address);
        out.problem(&anyhow!(
            "n{id} of the group {}, Raft port {address}, is down or not registered with the name server",
            group.group
        ));
    }
}

fn print_groups(groups: &[RaftGroup], out: &mut Output<'_>) -> Result<()> {
    out.line(row([
        "#Group",
        "#ID",
        "#Role",
        "#Term",
        "#Leader",
        "#First",
        "#Last",
        "#Committed",
        "#Applied",
        "#Log Min",
        "#Log End",
        "#Lag",
        "#Address",
    ]))?;
    let known = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let name = |id: Option<u64>| id.map_or_else(|| "-".to_owned(), |id| format!("n{id}"));
    for group in groups {
        for Replica { address, lag, status } in &group.replicas {
            out.line(row([
                &group.group,
                &name(Some(status.id)),
                &status.state,
                &status.term.to_string(),
                &name(status.leader_id),
                &status.first_index.to_string(),
                &status.last_index.to_string(),
                &status.committed_index.to_string(),
                &status.applied_index.to_string(),
                &status.log_min.to_string(),
                &status.log_end.to_string(),
                &known(*lag),
                address,
            ]))?;
        }
        for member in &group.unreachable {
            let lag = known(member.lag);
            let cells = ["-", "-", "-", "-", "-", "-", "-", "-", &lag, &member.raft_address];
            let [term, leader, first, last, committed, applied, min, end, lag, address] = cells;
            out.line(row([
                &group.group,
                &name(Some(member.id)),
                "UNREACHABLE",
                term,
                leader,
                first,
                last,
                committed,
                applied,
                min,
                end,
                lag,
                address,
            ]))?;
        }
    }
    for group in groups {
        print_remarks(group, out)?;
    }
    Ok(())
}

fn row(cells: [&str; 13]) -> String {
    const WIDTHS: [usize; 12] = [20, 5, 16, 6, 7, 12, 12, 12, 12, 14, 14, 10];
    let mut line = String::new();
    for (cell, width) in cells.iter().zip(WIDTHS) {
        line.push_str(&format!("{cell:<width$}  "));
    }
    line + cells[12]
}

/// Prints what the numbers of a group mean where something is under way.
fn print_remarks(group: &RaftGroup, out: &mut Output<'_>) -> Result<()> {
    for Replica { status, .. } in &group.replicas {
        if let Some(reason) = &status.outside_reason {
            out.line(format_args!("{}: n{} does not take part: {reason}", group.group, status.id))?;
        }
        if status.state == "LEADER_NOT_READY" {
            out.line(format_args!("{}: n{} is elected, but does not serve yet", group.group, status.id))?;
        }
        match status.quorum_age_ms {
            Some(ms) if ms >= QUORUM_AGE_WORTH_A_LINE => out.line(format_args!(
                "{}: n{} has not heard from a majority for {ms} ms",
                group.group, status.id
            ))?,
            _ => {}
        }
    }
    let Some(leader) = group.leader() else { return Ok(()) };
    for member in leader.members.iter().filter(|member| member.id != leader.id) {
        if !member.voter || member.lag.is_some_and(|lag| lag >= LAG_WORTH_A_LINE) {
            out.line(format_args!("{}: {}", group.group, progress(leader, member)))?;
        }
    }
    Ok(())
}

/// Says how far a replica is that copies its leader's log.
fn progress(leader: &RaftStatus, member: &RaftMember) -> String {
    let role = if member.voter { "" } else { ", a learner," };
    let Some(matched) = member.matched_index else {
        return format!("n{}{role} has nothing of the log yet", member.id);
    };
    // What the leader no longer has comes with the snapshot.
    let first = leader.first_index.min(leader.last_index);
    let all = leader.last_index.saturating_sub(first).saturating_add(1);
    let has = matched.saturating_add(1).saturating_sub(first).min(all);
    let left = leader.last_index.saturating_sub(matched);
    if left == 0 {
        return format!("n{}{role} has all of the log", member.id);
    }
    let percent = has as f64 * 100.0 / all as f64;
    format!("n{}{role} catches up: {percent:.1} %, {left} entries to go", member.id)
}

/// Where an operation on a group is to be carried out.
#[derive(Debug, clap::Args)]
struct Target {
    /// The group, which is the brokerName
    #[arg(short = 'g', long = "groupName", required_unless_present = "broker")]
    group: Option<String>,
    /// A replica of it, instead of asking a name server
    #[arg(short = 'b', long = "brokerAddr")]
    broker: Option<String>,
}

impl Target {
    /// Returns addresses of replicas.
    async fn addresses(&self, session: &Session) -> Result<Vec<String>> {
        match (&self.broker, &self.group) {
            (Some(address), _) => Ok(vec![address.trim().to_owned()]),
            (None, Some(group)) => addresses_of(session, group.trim()).await,
            (None, None) => bail!("give the group with -g, or one of its replicas with -b"),
        }
    }

    /// Waits until a replica leads, and returns its address with what it says.
    async fn leader(&self, session: &Session) -> Result<(String, RaftStatus)> {
        let deadline = Instant::now() + LEADER_WAIT;
        let mut addresses = self.addresses(session).await?;
        loop {
            let mut answers = Vec::new();
            let mut others = Vec::new();
            let mut failure = None;
            for (address, answer) in statuses_of(session, &addresses, LEADER_PATIENCE).await {
                match answer {
                    Ok(status) => {
                        let elsewhere = status.leader_address.clone();
                        others.extend(elsewhere.filter(|leader| !addresses.contains(leader)));
                        answers.push((address, status));
                    }
                    Err(error) if is_no_group(&error) => return Err(error),
                    // It may answer in the next round; others are asked meanwhile.
                    Err(error) => failure = Some(error),
                }
            }
            self.check_name(&answers)?;
            // One that was replaced and does not know it yet has an older term.
            let leading = answers.iter().filter(|(_, status)| status.state == LEADER);
            if let Some(leader) = leading.max_by_key(|(_, status)| status.term) {
                return Ok(leader.clone());
            }
            if Instant::now() >= deadline {
                let seen: Vec<_> =
                    answers.iter().map(|(at, s)| format!("n{} ({at}) is {}", s.id, s.state)).collect();
                let seen = match failure {
                    Some(error) if seen.is_empty() => return Err(error),
                    _ => seen.join(", "),
                };
                bail!(
                    "no replica leads after {} s: {seen}; a group needs a majority of its members, see mqadmin \
                     raftStatus",
                    LEADER_WAIT.as_secs()
                );
            }
            tokio::time::sleep(LEADER_PAUSE).await;
            // A replica that started meanwhile registers when its role is known.
            if let Ok(registered) = self.addresses(session).await {
                addresses = registered;
            }
            addresses.extend(others);
            addresses.dedup();
        }
    }

    fn check_name(&self, answers: &[(String, RaftStatus)]) -> Result<()> {
        let Some(wanted) = self.group.as_deref().map(str::trim) else { return Ok(()) };
        match answers.iter().find(|(_, status)| status.group != wanted) {
            Some((address, status)) => bail!("{address} is of the group {}, not of {wanted}", status.group),
            None => Ok(()),
        }
    }

    /// Asks the leader, and another one if leadership moves meanwhile. Returns the address of who did it.
    async fn ask(
        &self,
        session: &Session,
        request: &Command,
        within: Duration,
        watch: Option<u64>,
        out: &mut Output<'_>,
    ) -> Result<(String, RaftStatus)> {
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            let (address, status) = self.leader(session).await?;
            let asked = async {
                let answer = session.call(&address, request.clone(), within).await;
                accept(&address, answer.context("the leader may still be at it, see mqadmin raftStatus")?)
            };
            let answered = match watch {
                Some(id) => watched(session, &address, id, asked, out).await,
                None => asked.await,
            };
            match answered {
                Ok(_) => return Ok((address, status)),
                Err(error) if is_not_available(&error) && Instant::now() < deadline => {
                    tokio::time::sleep(LEADER_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Prints how far a replica is until the operation ends.
async fn watched(
    session: &Session,
    leader: &str,
    id: u64,
    asked: impl Future<Output = Result<Command>>,
    out: &mut Output<'_>,
) -> Result<Command> {
    let mut asked = pin!(asked);
    let mut printed = String::new();
    loop {
        tokio::select! {
            answer = &mut asked => return answer,
            () = tokio::time::sleep(PROGRESS_PAUSE) => {}
        }
        // Whether the operation goes on does not depend on whether its progress can be seen.
        let Ok(status) = status_of(session, leader).await else { continue };
        let Some(member) = status.members.iter().find(|member| member.id == id) else { continue };
        let line = progress(&status, member);
        if line != printed {
            out.line(&line)?;
            printed = line;
        }
    }
}

/// Options of `addPeer`.
#[derive(Debug, clap::Args)]
pub(super) struct AddPeer {
    #[command(flatten)]
    target: Target,
    /// The new replica, n3; its dLegerSelfId
    #[arg(short = 'i', long = "peerId", value_parser = peer_id)]
    id: u64,
    /// Its Raft port, host:port; as in its dLegerPeers
    #[arg(short = 'p', long = "peerAddress")]
    address: String,
    /// Seconds to wait until it has copied the log
    #[arg(short = 'w', long = "timeout", default_value_t = 600)]
    timeout: u64,
}

impl AddPeer {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let peer_address = self.address.trim().to_owned();
        let header = RaftAddPeerRequestHeader { peer_id: self.id, peer_address: peer_address.clone() };
        let request = Command::request(RequestCode::RaftAddPeer).with_header(&header);
        let within = Duration::from_secs(self.timeout);
        let (leader, status) = self.target.ask(session, &request, within, Some(self.id), out).await?;
        out.line(format_args!("n{} at {peer_address} is a voter of {}.", self.id, status.group))?;
        out.json(&json!({
            "group": status.group, "peerId": self.id, "peerAddress": peer_address, "leader": leader
        }))
    }
}

/// Options of `removePeer`.
#[derive(Debug, clap::Args)]
pub(super) struct RemovePeer {
    #[command(flatten)]
    target: Target,
    /// The replica, n3
    #[arg(short = 'i', long = "peerId", value_parser = peer_id)]
    id: u64,
    /// Seconds to wait
    #[arg(short = 'w', long = "timeout", default_value_t = 30)]
    timeout: u64,
}

impl RemovePeer {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let header = RaftPeerRequestHeader { peer_id: self.id };
        let request = Command::request(RequestCode::RaftRemovePeer).with_header(&header);
        let within = Duration::from_secs(self.timeout);
        let (leader, status) = self.target.ask(session, &request, within, None, out).await?;
        out.line(format_args!("n{} is no longer a member of {}.", self.id, status.group))?;
        out.json(&json!({ "group": status.group, "peerId": self.id, "leader": leader }))
    }
}

/// Options of `transferLeader`.
#[derive(Debug, clap::Args)]
pub(super) struct TransferLeader {
    #[command(flatten)]
    target: Target,
    /// Who shall lead, n1; without it the replica that is best suited
    #[arg(short = 'i', long = "peerId", value_parser = peer_id)]
    id: Option<u64>,
    /// Seconds to wait
    #[arg(short = 'w', long = "timeout", default_value_t = 30)]
    timeout: u64,
}

impl TransferLeader {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let (from, before) = self.target.leader(session).await?;
        if self.id == Some(before.id) {
            return print_leader(&from, &before, out);
        }
        let header = RaftTransferLeaderRequestHeader { peer_id: self.id };
        let request = Command::request(RequestCode::RaftTransferLeader).with_header(&header);
        let within = Duration::from_secs(self.timeout);
        self.target.ask(session, &request, within, None, out).await?;
        let deadline = Instant::now() + LEADER_WAIT;
        loop {
            let (address, after) = self.target.leader(session).await?;
            if after.term > before.term && self.id.is_none_or(|wanted| wanted == after.id) {
                return print_leader(&address, &after, out);
            }
            if Instant::now() >= deadline {
                bail!("n{} at {address} leads {}, in term {}; try again", after.id, after.group, after.term);
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
    }
}

fn print_leader(address: &str, leader: &RaftStatus, out: &mut Output<'_>) -> Result<()> {
    out.line(format_args!("n{} at {address} leads {} in term {}.", leader.id, leader.group, leader.term))?;
    out.json(&json!({
        "group": leader.group, "leaderId": leader.id, "leader": address, "term": leader.term
    }))
}

/// Options of `rejoin`.
#[derive(Debug, clap::Args)]
pub(super) struct Rejoin {
    #[command(flatten)]
    target: Target,
    /// The replica that lost its disk, n1
    #[arg(short = 'i', long = "peerId", value_parser = peer_id)]
    id: u64,
    /// Seconds to wait until it has copied the log
    #[arg(short = 'w', long = "timeout", default_value_t = 600)]
    timeout: u64,
}

impl Rejoin {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let header = RaftPeerRequestHeader { peer_id: self.id };
        let request = Command::request(RequestCode::RaftRejoin).with_header(&header);
        let within = Duration::from_secs(self.timeout);
        let (leader, status) = self.target.ask(session, &request, within, Some(self.id), out).await?;
        out.line(format_args!("n{} is a voter of {} again.", self.id, status.group))?;
        out.json(&json!({ "group": status.group, "peerId": self.id, "leader": leader }))
    }
}

/// Reads `n3` or `3`.
fn peer_id(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix('n').unwrap_or(text);
    digits.parse().map_err(|_| "expected n and a number, as in dLegerSelfId".into())
}

async fn status_of(session: &Session, address: &str) -> Result<RaftStatus> {
    session.read(address, Command::request(RequestCode::GetRaftStatus)).await
}

/// Asks several replicas at the same time.
async fn statuses_of(
    session: &Session,
    addresses: impl IntoIterator<Item = &String>,
    within: Duration,
) -> Vec<(String, Result<RaftStatus>)> {
    join_all(addresses.into_iter().map(async |address| {
        let late =
            || anyhow!("{address} did not answer within {within:?}; is it overloaded, or unreachable?");
        let answer = tokio::time::timeout(within, status_of(session, address)).await;
        (address.clone(), answer.unwrap_or_else(|_| Err(late())))
    }))
    .await
}

/// Asks the name servers where the brokers of a group are.
async fn addresses_of(session: &Session, group: &str) -> Result<Vec<String>> {
    let mut info = session.cluster_info().await?;
    let Some(data) = info.broker_addr_table.remove(group) else {
        let known: Vec<_> = info.broker_addr_table.keys().map(String::as_str).collect();
        bail!(
            "the name server knows no group {group}; known: [{}]; -b names a replica without it",
            known.join(", ")
        );
    };
    Ok(data.broker_addrs.into_values().collect())
}

/// Returns the one that leads; of two, the one with the newer term.
fn leader_of<'a>(statuses: impl Iterator<Item = &'a RaftStatus>) -> Option<&'a RaftStatus> {
    statuses.filter(|status| status.state == LEADER).max_by_key(|status| status.term)
}

fn is_no_group(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| refused.is(ResponseCode::RequestCodeNotSupported))
}

fn is_not_available(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| refused.is(ResponseCode::ServiceNotAvailable))
}
