//! A name server and a broker as processes, of which the broker can be killed and started again.

use std::net::SocketAddr;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{ChildProcess, Peer, Socket, broker_port, broker_process, start_broker, start_namesrv};

pub(crate) struct Processes {
    pub(crate) folder: TempDir,
    _namesrv: ChildProcess,
    pub(crate) namesrv_addr: SocketAddr,
    pub(crate) broker: ChildProcess,
    port: u16,
    overrides: Vec<String>,
}

impl Processes {
    /// Starts both; `overrides` are `key=value` settings of the broker.
    pub(crate) fn start(overrides: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (namesrv, namesrv_addr) = start_namesrv(folder.path());
        let port = broker_port();
        let broker = start_broker(namesrv_addr, port, &folder.path().join("store"), overrides);
        let overrides = overrides.iter().map(|&text| text.to_owned()).collect();
        Self { folder, _namesrv: namesrv, namesrv_addr, broker, port, overrides }
    }

    /// Starts the broker again on its store; the one before must have ended.
    pub(crate) fn start_broker(&mut self) {
        let overrides: Vec<_> = self.overrides.iter().map(String::as_str).collect();
        self.broker = start_broker(self.namesrv_addr, self.port, &self.store(), &overrides);
    }

    /// Starts the broker again on its store, and kills it after `delay` whatever it is doing.
    pub(crate) fn start_and_kill_broker(&mut self, delay: std::time::Duration) {
        let overrides: Vec<_> = self.overrides.iter().map(String::as_str).collect();
        let mut process = broker_process(self.namesrv_addr, self.port, &self.store(), &overrides);
        self.broker = ChildProcess::start("mqbroker", &mut process);
        // The moment of a kill, not a wait for a condition.
        std::thread::sleep(delay);
        self.broker.kill();
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    pub(crate) fn broker_addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns a client with a connection of its own.
    pub(crate) fn peer(&self) -> Peer {
        Peer::new(self.broker_addr())
    }

    pub(crate) async fn socket(&self) -> Socket {
        Socket::open(&self.broker_addr()).await
    }

    /// Stops the broker with SIGTERM; it must end well.
    pub(crate) fn stop(mut self) {
        assert!(self.broker.terminate().success(), "{}", self.broker.output());
    }
}
