//! A name server and the replicas of one group, each a process that can be killed, stopped, paused and started again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command as Process;
use std::time::Duration;

use quorate::remoting::body::RaftStatus;
use quorate::remoting::{Client, ClientConfig, Command, RequestCode, json};
use rustix::process::Signal;
use tempfile::TempDir;

use super::net::Net;
use crate::harness::{ChildProcess, broker_port, free_port, wait};

/// The group, which is the brokerName.
pub(crate) const GROUP: &str = "broker-a";
/// A replica that is alive answers within this.
const STATUS_TIMEOUT: Duration = Duration::from_millis(700);
/// Lines of each log that a failed test prints.
const LINES_OF_A_FAILURE: usize = 60;

pub(crate) struct RaftGroup {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) namesrv_addr: SocketAddr,
    pub(crate) folder: TempDir,
    namesrv: ChildProcess,
    client: Client,
    overrides: Vec<String>,
    pub(crate) net: Option<Net>,
}

pub(crate) struct Replica {
    /// The number in `n0`.
    pub(crate) id: u64,
    /// Where clients reach it.
    pub(crate) address: SocketAddr,
    /// Where the other replicas reach it.
    pub(crate) raft_address: SocketAddr,
    pub(crate) store: PathBuf,
    /// `dLegerPeers` as this replica has it.
    peers: String,
    process: Option<ChildProcess>,
    /// What the processes before this one printed.
    printed: String,
}

impl RaftGroup {
    /// Starts a name server and a group of three, and waits until one of them leads.
    pub(crate) async fn start(overrides: &[&str]) -> Self {
        Self::start_in(None, overrides).await
    }

    /// Starts the group with each replica in a network namespace of its own.
    pub(crate) async fn start_in(net: Option<Net>, overrides: &[&str]) -> Self {
        let mut group = Self::prepare(net, overrides).await;
        group.start_all().await;
        group
    }

    /// Starts the name server only.
    pub(crate) async fn prepare(net: Option<Net>, overrides: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let host = net.as_ref().map_or(Ipv4Addr::LOCALHOST, Net::host);
        let namesrv_addr = SocketAddr::from((host, free_port()));
        let mut namesrv = ChildProcess::start(
            "mqnamesrv",
            Process::new(env!("CARGO_BIN_EXE_mqnamesrv"))
                .env("HOME", folder.path())
                .args([format!("bindAddress={host}"), format!("listenPort={}", namesrv_addr.port())]),
        );
        namesrv.wait_for_line("boot success", Duration::from_secs(20));
        let mut group = Self {
            replicas: Vec::new(),
            namesrv_addr,
            folder,
            namesrv,
            client: Client::new(ClientConfig { connect_timeout: STATUS_TIMEOUT, ..ClientConfig::default() }),
            overrides: overrides.iter().map(|&text| text.to_owned()).collect(),
            net,
        };
        for id in 0..3 {
            group.place(id);
        }
        let peers = group.peers();
        group.replicas.iter_mut().for_each(|replica| replica.peers.clone_from(&peers));
        group
    }

    /// Gives a replica addresses and a folder; it is not started.
    pub(crate) fn place(&mut self, id: u64) -> usize {
        let host = match &self.net {
            Some(net) => net.node(self.replicas.len()),
            None => Ipv4Addr::LOCALHOST,
        };
        self.replicas.push(Replica {
            id,
            address: SocketAddr::from((host, broker_port())),
            raft_address: SocketAddr::from((host, free_port())),
            store: self.folder.path().join(format!("n{id}")),
            peers: String::new(),
            process: None,
            printed: String::new(),
        });
        let last = self.replicas.len() - 1;
        self.replicas[last].peers = self.peers();
        last
    }

    fn peers(&self) -> String {
        let peers: Vec<_> = self.replicas.iter().map(|r| format!("n{}-{}", r.id, r.raft_address)).collect();
        peers.join(";")
    }

    /// Returns a replica's file of `-c`. It is started with it if it is there.
    pub(crate) fn file(&self, replica: usize) -> PathBuf {
        self.folder.path().join(format!("n{}.conf", self.replicas[replica].id))
    }

    /// Has replicas that are started from now on register at another name server, too.
    pub(crate) fn register_at(&mut self, namesrv: SocketAddr) {
        self.overrides.push(format!("namesrvAddr={};{namesrv}", self.namesrv_addr));
    }

    /// Starts the replicas of a prepared group, and waits until one of them leads.
    pub(crate) async fn start_all(&mut self) {
        for replica in 0..self.replicas.len() {
            self.spawn(replica);
        }
        for replica in 0..self.replicas.len() {
            self.booted(replica).await;
        }
        self.healthy().await;
    }

    /// Starts a replica's process; see [`RaftGroup::booted`].
    pub(crate) fn spawn(&mut self, replica: usize) {
        let mqbroker = env!("CARGO_BIN_EXE_mqbroker");
        let mut process = match &self.net {
            Some(net) => net.process(replica, mqbroker),
            None => Process::new(mqbroker),
        };
        let Replica { id, address, store, peers, .. } = &self.replicas[replica];
        let file = self.file(replica);
        if file.exists() {
            process.arg("-c").arg(file);
        }
        process
            .args(["-n", &self.namesrv_addr.to_string()])
            .args([
                format!("brokerName={GROUP}"),
                format!("brokerIP1={}", address.ip()),
                format!("bindAddress={}", address.ip()),
                format!("listenPort={}", address.port()),
                format!("storePathRootDir={}", store.display()),
                "enableDLegerCommitLog=true".to_owned(),
                format!("dLegerGroup={GROUP}"),
                format!("dLegerPeers={peers}"),
                format!("dLegerSelfId=n{id}"),
                // Small files, so that faults meet their borders.
                "mappedFileSizeCommitLog=1048576".to_owned(),
                "mappedFileSizeConsumeQueue=20000".to_owned(),
                "maxHashSlotNum=1000".to_owned(),
                "maxIndexNum=4000".to_owned(),
                // Long answers, for reading everything back.
                "maxTransferCountOnMessageInMemory=1000".to_owned(),
                "maxTransferCountOnMessageInDisk=1000".to_owned(),
                "maxTransferBytesOnMessageInMemory=1048576".to_owned(),
                "maxTransferBytesOnMessageInDisk=1048576".to_owned(),
                // Senders that go on as long as a replica serves them would hold up each stop.
                "raftLeaveWaitMs=1500".to_owned(),
            ])
            .args(&self.overrides);
        let name = format!("n{id}");
        self.replicas[replica].process = Some(ChildProcess::start(&name, &mut process));
    }

    /// Waits until a replica that was just started serves.
    pub(crate) async fn booted(&mut self, replica: usize) {
        let replica = &mut self.replicas[replica];
        let process = replica.process.as_mut().expect("the replica was started");
        wait("a replica that serves", async || {
            if let Some(status) = process.ended() {
                panic!("n{} ended with {status}:\n{}", replica.id, process.output());
            }
            process.output().contains("boot success").then_some(())
        })
        .await;
    }

    /// Starts a replica again and waits until it serves.
    pub(crate) async fn restart(&mut self, replica: usize) {
        self.spawn(replica);
        self.booted(replica).await;
    }

    /// Kills a replica as a crash does.
    pub(crate) fn kill(&mut self, replica: usize) {
        self.replicas[replica].take().kill();
        self.replicas[replica].keep_output();
    }

    /// Stops a replica with SIGTERM; it must end well.
    pub(crate) async fn terminate(&mut self, replica: usize) {
        self.begin_to_terminate(replica);
        self.terminated(replica).await;
    }

    pub(crate) fn begin_to_terminate(&mut self, replica: usize) {
        self.replicas[replica].take().signal(Signal::TERM);
    }

    /// Waits until a replica has ended that was asked to.
    pub(crate) async fn terminated(&mut self, replica: usize) {
        let replica = &mut self.replicas[replica];
        let process = replica.process.as_mut().expect("the replica runs");
        let status = wait("the end of a replica after SIGTERM", async || process.ended()).await;
        assert!(status.success(), "n{} ended with {status}:\n{}", replica.id, process.output());
        replica.keep_output();
    }

    /// Stops all replicas that run, all at once.
    pub(crate) async fn terminate_all(&mut self) {
        let running: Vec<_> = (0..self.replicas.len()).filter(|replica| self.is_running(*replica)).collect();
        for replica in &running {
            self.begin_to_terminate(*replica);
        }
        for replica in running {
            self.terminated(replica).await;
        }
    }

    /// Stops a replica in its tracks: it keeps its connections and answers nothing.
    pub(crate) fn pause(&mut self, replica: usize) {
        self.replicas[replica].take().signal(Signal::STOP);
    }

    /// Lets a paused replica go on.
    pub(crate) fn resume(&mut self, replica: usize) {
        self.replicas[replica].take().signal(Signal::CONT);
    }

    pub(crate) fn is_running(&self, replica: usize) -> bool {
        self.replicas[replica].process.is_some()
    }

    /// Returns how a replica ended, if it did.
    pub(crate) fn ended(&mut self, replica: usize) -> Option<std::process::ExitStatus> {
        self.replicas[replica].take().ended()
    }

    /// Returns the addresses of all replicas, whether they run or not.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.replicas.iter().map(|replica| replica.address.to_string()).collect()
    }

    /// Asks a replica about the group; `None` if it does not answer.
    pub(crate) async fn status(&self, replica: usize) -> Option<RaftStatus> {
        let request = Command::request(RequestCode::GetRaftStatus);
        let address = self.replicas[replica].address.to_string();
        let answer = self.client.call(&address, request, STATUS_TIMEOUT).await.ok()?;
        (answer.code == 0).then(|| json::from_slice(&answer.body.to_bytes()).expect("a status"))
    }

    /// Returns the settings of a replica, `key=value` lines; `None` if it does not answer.
    pub(crate) async fn settings(&self, replica: usize) -> Option<String> {
        let request = Command::request(RequestCode::GetBrokerConfig);
        let address = self.replicas[replica].address.to_string();
        let answer = self.client.call(&address, request, STATUS_TIMEOUT).await.ok()?;
        (answer.code == 0).then(|| String::from_utf8_lossy(&answer.body.to_bytes()).into_owned())
    }

    /// Asks all replicas at once.
    pub(crate) async fn statuses(&self) -> Vec<(usize, RaftStatus)> {
        let asked = (0..self.replicas.len()).filter(|replica| self.is_running(*replica));
        let asked = asked.map(async |replica| self.status(replica).await.map(|status| (replica, status)));
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Waits until a replica leads, and returns the one of the newest term.
    pub(crate) async fn leader(&self) -> usize {
        wait("a leader", async || {
            let leading = self.statuses().await.into_iter().filter(|(_, status)| status.state == "LEADER");
            leading.max_by_key(|(_, status)| status.term).map(|(replica, _)| replica)
        })
        .await
    }

    /// Waits until all replicas that run follow one leader, and returns it.
    pub(crate) async fn healthy(&self) -> usize {
        wait("one leader whom all follow", async || {
            let statuses = self.statuses().await;
            let running = (0..self.replicas.len()).filter(|replica| self.is_running(*replica)).count();
            let (leader, leading) = statuses.iter().find(|(_, status)| status.state == "LEADER")?;
            let follows = |status: &RaftStatus| {
                status.leader_id == Some(leading.id)
                    && status.term == leading.term
                    && matches!(status.state.as_str(), "LEADER" | "FOLLOWER")
            };
            (statuses.len() == running && statuses.iter().all(|(_, status)| follows(status)))
                .then_some(*leader)
        })
        .await
    }

    /// Waits until all replicas that run have applied all that there is, while nobody writes. Returns the end of the
    /// log.
    pub(crate) async fn settled(&self) -> u64 {
        wait("replicas with equal logs", async || {
            self.healthy().await;
            let statuses = self.statuses().await;
            let running = (0..self.replicas.len()).filter(|replica| self.is_running(*replica)).count();
            let (_, first) = statuses.first()?;
            let equal = |status: &RaftStatus| {
                status.applied_index == status.last_index
                    && (status.last_index, status.log_end) == (first.last_index, first.log_end)
            };
            (statuses.len() == running && statuses.iter().all(|(_, status)| equal(status)))
                .then_some(first.log_end)
        })
        .await
    }

    /// Asks the leader for an operation on the group; asks again while leadership moves.
    pub(crate) async fn operate(&self, request: Command, within: Duration) -> Result<(), String> {
        loop {
            let address = self.replicas[self.leader().await].address.to_string();
            match self.client.call(&address, request.clone(), within).await {
                Ok(answer) if answer.code == 0 => return Ok(()),
                Ok(answer) if answer.code == 14 => {}
                Ok(answer) => return Err(answer.remark.unwrap_or_default()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Moves leadership.
    pub(crate) async fn transfer(&self, to: usize) -> Result<(), String> {
        let id = self.replicas[to].id.to_string();
        let request = Command::request(RequestCode::RaftTransferLeader).with_field("peerId", id);
        self.operate(request, Duration::from_secs(10)).await
    }

    /// Returns what a replica printed since its first start.
    pub(crate) fn printed(&self, replica: usize) -> String {
        let Replica { process, printed, .. } = &self.replicas[replica];
        format!("{printed}{}", process.as_ref().map(ChildProcess::output).unwrap_or_default())
    }

    /// Returns the address of each term's leader, by what the replicas printed.
    pub(crate) fn leaders(&self) -> BTreeMap<u64, String> {
        let mut leaders = BTreeMap::new();
        for (at, replica) in self.replicas.iter().enumerate() {
            let printed = self.printed(at);
            let terms =
                printed.lines().filter_map(|line| line.split_once("role=Leader(Term(")?.1.split(')').next());
            for term in terms {
                let address = replica.address.to_string();
                let before = leaders.insert(term.parse().expect("a term"), address.clone());
                assert!(before.is_none_or(|before| before == address), "two leaders in term {term}");
            }
        }
        leaders
    }

    /// Returns the lines of all replicas that a human would have to look at.
    pub(crate) fn errors(&self) -> Vec<String> {
        // openraft says so of every stop.
        let is_stop = |line: &str| line.contains("ERROR openraft") && line.contains("raft stopped");
        let is_error = |line: &&str| line.contains(" ERROR ") || line.contains("panicked");
        (0..self.replicas.len())
            .flat_map(|replica| {
                let printed = self.printed(replica);
                let lines = printed.lines().filter(is_error).filter(|line| !is_stop(line));
                lines.map(|line| format!("n{replica}: {line}")).collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Replica {
    /// Returns the process, which must run.
    fn take(&mut self) -> &mut ChildProcess {
        let id = self.id;
        self.process.as_mut().unwrap_or_else(|| panic!("n{id} does not run"))
    }

    fn keep_output(&mut self) {
        if let Some(process) = self.process.take() {
            self.printed.push_str(&process.output());
        }
    }
}

impl Drop for RaftGroup {
    /// Processes end with their handles; a failed test says what they printed.
    fn drop(&mut self) {
        let folder = std::env::var_os("QUORATE_LOGS").map(PathBuf::from);
        for replica in 0..self.replicas.len() {
            let id = self.replicas[replica].id;
            let printed = self.printed(replica);
            if let Some(folder) = &folder {
                let name = std::thread::current().name().unwrap_or("test").replace("::", "-");
                let path = folder.join(format!("{name}-n{id}.log"));
                let _ = quorate::env::Disk::real().replace(&path, printed.as_bytes());
            }
            if std::thread::panicking() {
                let lines: Vec<_> = printed.lines().collect();
                let last = &lines[lines.len().saturating_sub(LINES_OF_A_FAILURE)..];
                eprintln!("-- n{id} at {}:\n{}", self.replicas[replica].address, last.join("\n"));
            }
        }
        self.namesrv.kill();
    }
}
