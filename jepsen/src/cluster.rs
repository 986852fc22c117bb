//! The servers of a run: real `mqnamesrv` and `mqbroker` processes, each on a host of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use quorate::remoting::body::RaftStatus;
use quorate::remoting::{self, Client, ClientConfig, RequestCode, json};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep, timeout};

use crate::disk::Volume;
use crate::net::{self, HostId, Net};

/// The group, which is the brokerName.
pub(crate) const GROUP: &str = "broker-a";
const BROKER_PORT: u16 = 10911;
const RAFT_PORT: u16 = 40911;
const NAMESRV_PORT: u16 = 9876;
/// Name servers of a run.
pub(crate) const NAMESRVS: usize = 2;
/// A replica that is alive answers within this.
const STATUS_TIMEOUT: Duration = Duration::from_millis(700);
/// How long a server may take to start.
const BOOT_LIMIT: Duration = Duration::from_secs(40);
/// How long a server may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// How a cluster is made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// Voters.
    pub(crate) nodes: usize,
    /// Where the programs are.
    pub(crate) programs: PathBuf,
    /// Settings of all brokers, `key=value`.
    pub(crate) settings: Vec<String>,
    /// The servers' wall clocks can be set.
    pub(crate) clocks: bool,
    /// The servers' system calls can be made to fail.
    pub(crate) fiu: bool,
    /// Each replica has a disk of its own.
    pub(crate) disks: bool,
    /// What is wrong on purpose with the servers: the value of `QUORATE_KNOWN_BAD`.
    pub(crate) known_bad: Option<String>,
}

/// A running cluster. Everything ends when it is dropped.
pub(crate) struct Cluster {
    pub(crate) options: Options,
    pub(crate) folder: PathBuf,
    brokers: Vec<Server>,
    namesrvs: Vec<Server>,
    /// One for each broker, if there are any.
    pub(crate) volumes: Vec<Volume>,
    pub(crate) net: Net,
    client: Client,
}

/// A server, whether it runs or not.
struct Server {
    name: String,
    host: HostId,
    log: PathBuf,
    process: Mutex<Option<Child>>,
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it, and waits until it says that it serves.
    async fn start(&self, command: &mut Command) -> Result<()> {
        ensure!(self.lock().is_none(), "{} runs already", self.name);
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let from = log.metadata()?.len();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        *self.lock() = Some(child);
        let deadline = Instant::now() + BOOT_LIMIT;
        loop {
            let printed = printed_since(&self.log, from);
            if printed.contains("boot success") {
                return Ok(());
            }
            if let Some(status) = self.ended() {
                bail!("{} ended with {status} when it started:\n{printed}", self.name);
            }
            ensure!(self.lock().is_some(), "{} was killed when it started", self.name);
            ensure!(
                Instant::now() < deadline,
                "{} does not serve after {BOOT_LIMIT:?}:\n{printed}",
                self.name
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn kill(&self) {
        if let Some(mut child) = self.lock().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.lock();
        let child = process.as_ref().with_context(|| format!("{} does not run", self.name))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }

    async fn terminate(&self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            ensure!(self.lock().is_some(), "{} was killed while it stopped", self.name);
            if Instant::now() >= deadline {
                self.kill();
                bail!("{} did not end within {STOP_LIMIT:?} of SIGTERM", self.name);
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns how it ended, once, if it did by itself.
    fn ended(&self) -> Option<ExitStatus> {
        let mut process = self.lock();
        let status = process.as_mut()?.try_wait().ok()??;
        *process = None;
        Some(status)
    }

    fn pid(&self) -> Option<u32> {
        self.lock().as_ref().map(Child::id)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The hosts of a run.
pub(crate) struct Hosts {
    pub(crate) nodes: usize,
}

impl Hosts {
    /// The replicas' hosts, the spare one's last.
    pub(crate) fn brokers(&self) -> std::ops::Range<HostId> {
        0..self.nodes + 1
    }

    pub(crate) fn namesrvs(&self) -> std::ops::Range<HostId> {
        self.nodes + 1..self.nodes + 1 + NAMESRVS
    }

    /// Where our own clients run.
    pub(crate) fn rust(&self) -> HostId {
        self.nodes + 1 + NAMESRVS
    }

    /// Where the stock clients run.
    pub(crate) fn java(&self) -> HostId {
        self.rust() + 1
    }

    /// From where the run looks at the cluster. Faults spare it.
    pub(crate) fn observer(&self) -> HostId {
        self.rust() + 2
    }

    fn names(&self) -> Vec<String> {
        let brokers = self.brokers().map(|id| format!("n{id}"));
        let namesrvs = (0..NAMESRVS).map(|id| format!("s{id}"));
        brokers.chain(namesrvs).chain(["c0", "c1", "o"].map(String::from)).collect()
    }
}

impl Cluster {
    /// Makes hosts, disks and name servers, and moves this thread to the observer's host. Brokers are started later.
    pub(crate) fn prepare(folder: &Path, options: Options, seed: u64) -> Result<Self> {
        let hosts = Hosts { nodes: options.nodes };
        let net = Net::make(&hosts.names(), seed)?;
        fs::create_dir_all(folder.join("logs"))?;
        let server = |name: String, host| Server {
            log: folder.join("logs").join(format!("{name}.log")),
            name,
            host,
            process: Mutex::new(None),
        };
        let mut volumes = Vec::new();
        if options.disks {
            for host in hosts.brokers() {
                let (image, store) = (folder.join(format!("n{host}.img")), folder.join(format!("n{host}")));
                volumes.push(Volume::make(image, store)?);
            }
        }
        Ok(Self {
            brokers: hosts.brokers().map(|host| server(format!("n{host}"), host)).collect(),
            namesrvs: hosts.namesrvs().enumerate().map(|(id, host)| server(format!("s{id}"), host)).collect(),
            options,
            folder: folder.to_owned(),
            volumes,
            net,
            client: Client::new(ClientConfig { connect_timeout: STATUS_TIMEOUT, ..ClientConfig::default() }),
        })
    }

    pub(crate) fn hosts(&self) -> Hosts {
        Hosts { nodes: self.options.nodes }
    }

    /// Replicas, the spare one included.
    pub(crate) fn brokers(&self) -> usize {
        self.brokers.len()
    }

    pub(crate) fn broker_address(&self, node: usize) -> String {
        SocketAddr::from((net::address(node), BROKER_PORT)).to_string()
    }

    pub(crate) fn raft_address(&self, node: usize) -> String {
        SocketAddr::from((net::address(node), RAFT_PORT)).to_string()
    }

    pub(crate) fn namesrv_address(&self, namesrv: usize) -> String {
        let host = self.namesrvs[namesrv].host;
        SocketAddr::from((net::address(host), NAMESRV_PORT)).to_string()
    }

    /// Returns `-n` of clients and brokers.
    pub(crate) fn namesrv_addresses(&self) -> String {
        (0..NAMESRVS).map(|id| self.namesrv_address(id)).collect::<Vec<_>>().join(";")
    }

    /// Where a replica keeps its data.
    pub(crate) fn store(&self, node: usize) -> PathBuf {
        self.folder.join(format!("n{node}")).join("store")
    }

    pub(crate) fn logs(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.brokers.iter().chain(&self.namesrvs).map(|server| (server.name.as_str(), server.log.as_path()))
    }

    pub(crate) async fn start_namesrv(&self, namesrv: usize) -> Result<()> {
        let server = &self.namesrvs[namesrv];
        let home = self.folder.join(&server.name);
        fs::create_dir_all(&home)?;
        let host = net::address(server.host);
        let mut command = self.net.command(server.host, self.options.programs.join("mqnamesrv"));
        command.env("HOME", home).args([format!("bindAddress={host}"), format!("listenPort={NAMESRV_PORT}")]);
        self.sabotage(&mut command);
        server.start(&mut command).await
    }

    /// Starts a replica, and waits until it serves.
    pub(crate) async fn start_broker(&self, node: usize) -> Result<()> {
        // Not for the programs in front of it, which would take the process's place with libfiu.
        let mut command = self.net.command(node, "env");
        let mut libraries = Vec::new();
        if self.options.clocks {
            libraries.push(FAKETIME);
            command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", self.clock_file(node).display()));
            command.args(["FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_CACHE_DURATION=1"]);
        }
        if self.options.fiu {
            libraries.extend(FIU);
            command.arg(format!("FIU_CTRL_FIFO={}", self.fiu_control().display()));
        }
        if !libraries.is_empty() {
            command.arg(format!("LD_PRELOAD={}", libraries.join(":")));
        }
        command.arg(self.options.programs.join("mqbroker"));
        self.sabotage(&mut command);
        let peers: Vec<_> = (0..self.options.nodes.max(node + 1))
            .map(|peer| format!("n{peer}-{}", self.raft_address(peer)))
            .collect();
        let host = net::address(node);
        command
            .args(["-n", &self.namesrv_addresses()])
            .args([
                format!("brokerName={GROUP}"),
                format!("brokerIP1={host}"),
                format!("bindAddress={host}"),
                format!("listenPort={BROKER_PORT}"),
                format!("storePathRootDir={}", self.store(node).display()),
                "enableDLegerCommitLog=true".to_owned(),
                format!("dLegerGroup={GROUP}"),
                format!("dLegerPeers={}", peers.join(";")),
                format!("dLegerSelfId=n{node}"),
            ])
            // Small files, so that faults meet their borders; long answers, for reading everything back.
            .args([
                "mappedFileSizeCommitLog=1048576",
                "mappedFileSizeConsumeQueue=20000",
                "maxHashSlotNum=1000",
                "maxIndexNum=4000",
                "maxTransferCountOnMessageInMemory=1000",
                "maxTransferCountOnMessageInDisk=1000",
                "maxTransferBytesOnMessageInMemory=1048576",
                "maxTransferBytesOnMessageInDisk=1048576",
                "diskMaxUsedSpaceRatio=95",
                "diskSpaceCleanForciblyRatio=100",
                "diskSpaceWarningLevelRatio=99",
                "cleanResourceInterval=200",
                // Senders that go on as long as a replica serves them would hold up each stop.
                "raftLeaveWaitMs=1500",
            ])
            .args(&self.options.settings);
        self.brokers[node].start(&mut command).await
    }

    fn sabotage(&self, command: &mut Command) {
        if let Some(what) = &self.options.known_bad {
            command.env("QUORATE_KNOWN_BAD", what);
        }
    }

    /// Sets a replica's wall clock, as libfaketime is told: `+3600`, or `+0 x1.5`.
    pub(crate) fn set_clock(&self, node: usize, to: &str) -> Result<()> {
        Ok(fs::write(self.clock_file(node), to)?)
    }

    /// Where processes listen for what is to fail: a prefix of file names.
    pub(crate) fn fiu_control(&self) -> PathBuf {
        self.folder.join("fiu")
    }

    fn clock_file(&self, node: usize) -> PathBuf {
        self.folder.join(format!("n{node}.clock"))
    }

    pub(crate) fn is_running(&self, node: usize) -> bool {
        self.brokers[node].pid().is_some()
    }

    pub(crate) fn pid(&self, node: usize) -> Option<u32> {
        self.brokers[node].pid()
    }

    /// Kills a replica as a crash does.
    pub(crate) fn kill_broker(&self, node: usize) {
        self.brokers[node].kill();
    }

    pub(crate) fn kill_namesrv(&self, namesrv: usize) {
        self.namesrvs[namesrv].kill();
    }

    /// Stops a replica with SIGTERM.
    pub(crate) async fn terminate_broker(&self, node: usize) -> Result<ExitStatus> {
        self.brokers[node].terminate().await
    }

    pub(crate) fn signal_broker(&self, node: usize, signal: Signal) -> Result<()> {
        self.brokers[node].signal(signal)
    }

    /// Returns how a replica ended, once, if it did by itself.
    pub(crate) fn broker_ended(&self, node: usize) -> Option<ExitStatus> {
        self.brokers[node].ended()
    }

    pub(crate) fn namesrv_ended(&self, namesrv: usize) -> Option<ExitStatus> {
        self.namesrvs[namesrv].ended()
    }

    /// Asks a replica about the group; `None` if it does not answer.
    pub(crate) async fn status(&self, node: usize) -> Option<RaftStatus> {
        let request = remoting::Command::request(RequestCode::GetRaftStatus);
        let answer = self.client.call(&self.broker_address(node), request, STATUS_TIMEOUT).await.ok()?;
        if answer.code != 0 {
            return None;
        }
        json::from_slice(&answer.body.to_bytes()).ok()
    }

    /// Asks all replicas that run, at once.
    pub(crate) async fn statuses(&self) -> Vec<(usize, RaftStatus)> {
        let asked = (0..self.brokers.len()).filter(|node| self.is_running(*node));
        let asked = asked.map(async |node| self.status(node).await.map(|status| (node, status)));
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// Returns the replica that leads in the newest term, if one says so.
    pub(crate) async fn leader_now(&self) -> Option<usize> {
        let leading = self.statuses().await.into_iter().filter(|(_, status)| status.state == "LEADER");
        leading.max_by_key(|(_, status)| status.term).map(|(node, _)| node)
    }

    /// Waits until a replica leads.
    pub(crate) async fn leader(&self, within: Duration) -> Result<usize> {
        poll("a leader", within, async || self.leader_now().await).await
    }

    /// Waits until all replicas that run and are members follow one leader.
    pub(crate) async fn healthy(&self, within: Duration) -> Result<usize> {
        poll("one leader whom all follow", within, async || {
            let statuses = self.statuses().await;
            let running = (0..self.brokers.len()).filter(|node| self.is_running(*node)).count();
            let (leader, leading) = statuses.iter().find(|(_, status)| status.state == "LEADER")?;
            let voters = leading.members.iter().filter(|member| member.voter).count();
            let follows = |status: &RaftStatus| {
                status.leader_id == Some(leading.id)
                    && status.term == leading.term
                    && matches!(status.state.as_str(), "LEADER" | "FOLLOWER")
            };
            let following = statuses.iter().filter(|(_, status)| follows(status)).count();
            (running >= voters && following >= voters).then_some(*leader)
        })
        .await
    }

    /// Asks the leader for an operation on the group; asks again while leadership moves.
    pub(crate) async fn operate(&self, request: remoting::Command, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let leader = self.leader(deadline.saturating_duration_since(Instant::now())).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.client.call(&self.broker_address(leader), request.clone(), left).await {
                Ok(answer) if answer.code == 0 => return Ok(()),
                Ok(answer) if answer.code == 14 && Instant::now() < deadline => {
                    sleep(Duration::from_millis(50)).await;
                }
                Ok(answer) => bail!("code {}: {}", answer.code, answer.remark.unwrap_or_default()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Asks one server something.
    pub(crate) async fn ask(
        &self,
        address: &str,
        request: remoting::Command,
        within: Duration,
    ) -> Result<remoting::Command> {
        let answer = self.client.call(address, request, within).await?;
        ensure!(answer.code == 0, "code {}: {}", answer.code, answer.remark.unwrap_or_default());
        Ok(answer)
    }
}

/// libfaketime, where Debian has it.
pub(crate) const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// libfiu's libraries to be loaded in front, where Debian has them: the one that listens, and the one that fails.
pub(crate) const FIU: [&str; 2] = ["/usr/lib/fiu/fiu_run_preload.so", "/usr/lib/fiu/fiu_posix_preload.so"];

/// Waits until there is something.
pub(crate) async fn poll<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let found = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(within, found).await.with_context(|| format!("not within {within:?}: {what}"))
}

/// Returns what was added to a log since it had so many bytes.
pub(crate) fn printed_since(log: &Path, from: u64) -> String {
    let bytes = fs::read(log).unwrap_or_default();
    let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
    String::from_utf8_lossy(&bytes[from..]).into_owned()
}
