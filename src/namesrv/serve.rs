//! Starts and stops a name server.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{debug, info};

use super::Namesrv;
use super::kv::{self, KvStore};
use super::routes::{MinIdChange, RouteTable};
use super::settings::Settings;
use crate::config::{Loaded, NamesrvConfig};
use crate::env::{Clock, Disk};
use crate::remoting::header::NotifyMinBrokerIdChangeRequestHeader;
use crate::remoting::{Client, ClientConfig, Command, RequestCode, Server, ServerConfig};

/// Changes that wait to be told; each is soon followed by others that say more.
const CHANGES_MAX: usize = 1000;
/// How long telling one broker may take; Java's value.
const TELL_TIMEOUT: Duration = Duration::from_millis(300);

/// Why a name server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings ask for something that is not there.
    #[error("{0}")]
    Unsupported(String),
    /// The port is taken, or the address is not one of this machine.
    #[error("bind {address}: {source}")]
    Bind {
        /// The address as the settings have it.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// `kvConfig.json` cannot be read.
    #[error("{0}")]
    Kv(String),
}

/// A name server at work. Dropping it without [`Running::stop`] stops it too, but nobody waits for it.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    /// Returns the address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers what is under way, closes all connections and returns when nothing is left running.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

/// Starts a name server. It serves when this returns.
pub async fn start(config: Loaded<NamesrvConfig>, disk: Disk, clock: Clock) -> Result<Running, StartError> {
    if let Some(reason) = config.unsupported() {
        return Err(StartError::Unsupported(reason));
    }
    let kv = open_kv(&config, &disk).await.map_err(|error| StartError::Kv(error.to_string()))?;
    let address = format!("{}:{}", config.bind_address, config.listen_port);
    let server_config = ServerConfig {
        connections_max: config.connections_max,
        idle: Duration::from_secs(config.server_channel_max_idle_time_seconds),
        ..ServerConfig::default()
    };
    let bound = Server::bind(&address, server_config).await;
    let server = bound.map_err(|source| StartError::Bind { address, source })?;
    let address = server.local_addr();

    let (changes, to_tell) = mpsc::channel(CHANGES_MAX);
    let namesrv = Arc::new(Namesrv {
        routes: Arc::new(RwLock::new(RouteTable::default())),
        kv,
        turns: Semaphore::new(config.requests_in_flight_max.min(Semaphore::MAX_PERMITS)),
        settings: Settings::new(config, disk),
        brokers: Mutex::new(HashMap::new()),
        changes,
        started: clock.instant(),
        clock,
    });
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(run(server, namesrv, to_tell, stopped));
    info!(%address, "name server started");
    Ok(Running { address, stop, task })
}

async fn open_kv(config: &Loaded<NamesrvConfig>, disk: &Disk) -> Result<KvStore, kv::Error> {
    let (disk, path) = (disk.clone(), config.kv_config_path.clone());
    spawn_blocking(move || KvStore::open(disk, &path)).await.expect("reading kv config does not panic")
}

async fn run(
    server: Server,
    namesrv: Arc<Namesrv>,
    to_tell: mpsc::Receiver<MinIdChange>,
    mut stopped: watch::Receiver<bool>,
) {
    // Also ends when the handle is dropped.
    let shutdown = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let serving = server.serve(Arc::clone(&namesrv), shutdown);
    tokio::select! {
        () = serving => {}
        () = look_for_silent_brokers(&namesrv) => {}
        () = tell(to_tell) => {}
    }
    info!("name server stopped");
}

/// Runs for ever.
async fn look_for_silent_brokers(namesrv: &Namesrv) {
    loop {
        let interval = namesrv.settings.current().scan_not_active_broker_interval;
        tokio::time::sleep(Duration::from_millis(interval)).await;
        namesrv.expire();
    }
}

/// Sends NOTIFY_MIN_BROKER_ID_CHANGE (905) to those whom it concerns. Whoever cannot be reached is left out: brokers ask
/// for their group from time to time anyway.
async fn tell(mut changes: mpsc::Receiver<MinIdChange>) {
    let client = Client::new(ClientConfig::default());
    while let Some(change) = changes.recv().await {
        info!(
            broker_name = change.broker_name,
            broker_id = change.broker_id,
            peer = change.address,
            "tell brokers of the smallest id of their group"
        );
        let request = Command::request(RequestCode::NotifyMinBrokerIdChange).with_header(
            &NotifyMinBrokerIdChangeRequestHeader {
                min_broker_id: Some(change.broker_id),
                broker_name: Some(change.broker_name),
                min_broker_addr: Some(change.address),
                offline_broker_addr: change.offline_address,
                ha_broker_addr: change.ha_address,
            },
        );
        for address in &change.tell {
            if let Err(error) = client.oneway(address, request.clone(), TELL_TIMEOUT).await {
                debug!(peer = address, %error, "tell a broker");
            }
        }
    }
    client.close().await;
}
