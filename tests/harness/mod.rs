//! Name servers and brokers for tests: in this process, or as processes that can be killed.
//!
//! Everything listens on free ports of 127.0.0.1, keeps its data in a temporary folder, and ends with the test.

mod processes;
mod requests;
mod socket;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quorate::broker;
use quorate::config::{BrokerConfig, Loaded, NamesrvConfig};
use quorate::env::{Clock, Disk};
use quorate::namesrv;
use quorate::remoting::{CallError, Client, ClientConfig, Command};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

pub(crate) use processes::Processes;
pub(crate) use requests::*;
pub(crate) use socket::{Socket, notified_group};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A name server and a broker in this process.
pub(crate) struct TestCluster {
    pub(crate) folder: TempDir,
    pub(crate) namesrv: Option<namesrv::Running>,
    pub(crate) broker: Option<broker::Running>,
    pub(crate) client: Client,
    pub(crate) config: BrokerConfig,
    pub(crate) disk: Disk,
}

impl TestCluster {
    /// Starts both and waits until the name server knows the broker.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}, Disk::real()).await
    }

    /// Starts both with changed settings of the broker, on a disk that may have faults.
    pub(crate) async fn start_with(change: impl FnOnce(&mut BrokerConfig), disk: Disk) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let namesrv_config = NamesrvConfig {
            listen_port: 0,
            bind_address: "127.0.0.1".into(),
            kv_config_path: folder.path().join("kvConfig.json"),
            config_store_path: folder.path().join("namesrv.properties"),
            ..NamesrvConfig::default()
        };
        let namesrv = namesrv::start(Loaded::of(namesrv_config), Disk::real(), Clock::system())
            .await
            .expect("a name server starts");
        let mut config = BrokerConfig {
            namesrv_addr: Some(namesrv.addr().to_string()),
            ..broker_config(&folder.path().join("store"), broker_port())
        };
        change(&mut config);
        let client = Client::new(ClientConfig::default());
        let mut cluster = Self { folder, namesrv: Some(namesrv), broker: None, client, config, disk };
        cluster.start_broker().await;
        cluster
    }

    /// Starts the broker again on its store.
    pub(crate) async fn start_broker(&mut self) {
        let running = broker::start(Loaded::of(self.config.clone()), self.disk.clone(), Clock::system())
            .await
            .expect("a broker starts");
        self.broker = Some(running);
    }

    /// Starts another broker on a copy of the store: it finds what a broker killed at this moment would leave.
    pub(crate) async fn start_on_a_copy(&self) -> broker::Running {
        let copy = self.folder.path().join("copy");
        let store = &self.config.store_path_root_dir;
        let copied = Process::new("cp").arg("-a").arg(store).arg(&copy).status().expect("cp runs");
        assert!(copied.success());
        let port = broker_port();
        let config = BrokerConfig {
            store_path_commit_log: copy.join("commitlog"),
            store_path_root_dir: copy,
            listen_port: port,
            ha_listen_port: port + 1,
            namesrv_addr: None,
            ..self.config.clone()
        };
        broker::start(Loaded::of(config), Disk::real(), Clock::system()).await.expect("a broker starts")
    }

    /// Stops the broker as SIGTERM does.
    pub(crate) async fn stop_broker(&mut self) {
        if let Some(broker) = self.broker.take() {
            broker.stop().await.expect("a broker stops");
        }
    }

    pub(crate) fn broker_addr(&self) -> String {
        self.broker.as_ref().expect("the broker runs").address().to_string()
    }

    pub(crate) fn namesrv_addr(&self) -> String {
        self.namesrv.as_ref().expect("the name server runs").addr().to_string()
    }

    /// Returns a client with a connection of its own to the broker.
    pub(crate) fn peer(&self) -> Peer {
        Peer::new(self.broker_addr())
    }

    /// Opens a bare connection to the broker.
    pub(crate) async fn socket(&self) -> Socket {
        Socket::open(&self.broker_addr()).await
    }

    /// Asks the broker.
    pub(crate) async fn call(&self, request: Command) -> Command {
        self.try_call(request).await.expect("the broker answers")
    }

    /// Asks the broker.
    pub(crate) async fn try_call(&self, request: Command) -> Result<Command, CallError> {
        self.client.call(&self.broker_addr(), request, CALL_TIMEOUT).await
    }

    /// Asks the name server.
    pub(crate) async fn ask_namesrv(&self, request: Command) -> Command {
        self.client.call(&self.namesrv_addr(), request, CALL_TIMEOUT).await.expect("the name server answers")
    }

    /// Stops everything.
    pub(crate) async fn stop(mut self) {
        self.stop_broker().await;
        if let Some(namesrv) = self.namesrv.take() {
            namesrv.stop().await;
        }
    }
}

/// Settings of a small broker.
pub(crate) fn broker_config(store: &Path, port: u16) -> BrokerConfig {
    BrokerConfig {
        broker_name: "broker-a".into(),
        broker_ip1: "127.0.0.1".into(),
        broker_ip2: "127.0.0.1".into(),
        bind_address: "127.0.0.1".into(),
        listen_port: port,
        ha_listen_port: port + 1,
        store_path_root_dir: store.to_owned(),
        store_path_commit_log: store.join("commitlog"),
        mapped_file_size_commit_log: 4 << 20,
        mapped_file_size_consume_queue: 20_000,
        max_hash_slot_num: 1000,
        max_index_num: 4000,
        ..BrokerConfig::default()
    }
}

/// Ports for tests: below those that the kernel gives to outgoing connections (32768 and up), which could be taken
/// again before the test listens on them.
const PORTS: Range<u32> = 12_000..32_000;
/// The next one to look at, counted from a place that differs between processes.
static NEXT_PORT: AtomicU32 = AtomicU32::new(0);

/// Returns a port that is free, and that no other test of this process was given lately.
pub(crate) fn free_port() -> u16 {
    port_with_room(1)
}

/// Returns a free port of a broker: its second neighbour below is free, too, and the one above.
pub(crate) fn broker_port() -> u16 {
    port_with_room(4) + 2
}

/// Returns the first of so many ports in a row that are free.
fn port_with_room(count: u16) -> u16 {
    let all = PORTS.end - PORTS.start;
    // Neighbouring processes, as of several checkouts that run their tests at a time, begin far apart.
    let begin = std::process::id().wrapping_mul(7919);
    for _ in 0..all {
        let next = NEXT_PORT.fetch_add(u32::from(count), Ordering::Relaxed);
        let first = PORTS.start + begin.wrapping_add(next) % all;
        let Ok(first) = u16::try_from(first) else { continue };
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if u32::from(first + count) <= PORTS.end && (first..first + count).all(is_free) {
            return first;
        }
    }
    panic!("no {count} free ports in a row");
}

/// Waits until `condition` holds; fails the test with `what` when it takes too long.
pub(crate) async fn wait<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within 30 s: {what}");
        // The pace of looking, not a wait for the condition.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A process of ours that dies with the test, whatever happens.
pub(crate) struct ChildProcess {
    child: Child,
    pub(crate) output: Arc<Mutex<String>>,
    name: String,
}

impl ChildProcess {
    /// Starts a program and reads all that it prints.
    pub(crate) fn start(name: &str, process: &mut Process) -> Self {
        let mut child = process
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}"));
        let output = Arc::new(Mutex::new(String::new()));
        collect(child.stdout.take().expect("a pipe"), Arc::clone(&output));
        collect(child.stderr.take().expect("a pipe"), Arc::clone(&output));
        Self { child, output, name: name.into() }
    }

    /// Waits until the process has printed `text`.
    pub(crate) fn wait_for_line(&mut self, text: &str, within: Duration) {
        let deadline = deadline(within);
        loop {
            if self.output().contains(text) {
                return;
            }
            if let Some(status) = self.child.try_wait().expect("a child can be asked") {
                panic!("{} ended with {status} before {text:?}:\n{}", self.name, self.output());
            }
            assert!(is_before(deadline), "{}: no {text:?} within {within:?}:\n{}", self.name, self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends SIGKILL and waits for the end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        self.child.wait().expect("a killed child ends");
    }

    /// Waits until the process ends by itself.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("a child ends")
    }

    /// Sends SIGTERM and waits for the end.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        Process::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        self.child.wait().expect("a child ends")
    }

    /// Sends a signal; the process may stop, go on, or end by it.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signal {}: {error}", self.name));
    }

    /// Says whether the process has ended, and how.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("a child can be asked")
    }

    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("no reader panics").clone()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn collect(stream: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut text = into.lock().expect("no reader panics");
            text.push_str(&line);
            text.push('\n');
        }
    });
}

#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
fn deadline(within: Duration) -> Instant {
    Instant::now() + within
}

#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
fn is_before(deadline: Instant) -> bool {
    Instant::now() < deadline
}

/// Starts `mqnamesrv` on a free port.
pub(crate) fn start_namesrv(folder: &Path) -> (ChildProcess, SocketAddr) {
    let port = broker_port();
    let mut child = ChildProcess::start(
        "mqnamesrv",
        Process::new(env!("CARGO_BIN_EXE_mqnamesrv"))
            .env("HOME", folder)
            .args(["bindAddress=127.0.0.1".to_owned(), format!("listenPort={port}")]),
    );
    child.wait_for_line("boot success", Duration::from_secs(20));
    (child, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Starts `mqbroker` with overrides on a port and store of choice.
pub(crate) fn start_broker(namesrv: SocketAddr, port: u16, store: &Path, overrides: &[&str]) -> ChildProcess {
    let mut child = ChildProcess::start("mqbroker", &mut broker_process(namesrv, port, store, overrides));
    child.wait_for_line("boot success", Duration::from_secs(60));
    child
}

/// Returns the process that [`start_broker`] starts.
pub(crate) fn broker_process(namesrv: SocketAddr, port: u16, store: &Path, overrides: &[&str]) -> Process {
    let mut process = Process::new(env!("CARGO_BIN_EXE_mqbroker"));
    process
        .args(["-n", &namesrv.to_string()])
        .args([
            "brokerName=broker-a".to_owned(),
            "brokerIP1=127.0.0.1".to_owned(),
            "bindAddress=127.0.0.1".to_owned(),
            format!("listenPort={port}"),
            format!("storePathRootDir={}", store.display()),
        ])
        .args(overrides);
    process
}

/// Says whether the Java test clients can be run; fails in CI, where they must.
///
/// Returns their class path.
pub(crate) fn java_clients() -> Option<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/build");
    let built = Process::new("bash").arg(script).output().expect("bash runs");
    if built.status.success() {
        let text = String::from_utf8(built.stdout).expect("a path");
        return text.lines().last().map(str::to_owned);
    }
    let reason = String::from_utf8_lossy(&built.stderr).into_owned();
    assert!(std::env::var_os("CI").is_none(), "CI needs the Java clients: {reason}");
    eprintln!("SKIPPED: the Java clients cannot be built (Java 17 and Maven are needed): {reason}");
    None
}

/// Returns where a file of the tests' sources is.
pub(crate) fn source_path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}
