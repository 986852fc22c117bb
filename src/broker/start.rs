//! Starting and stopping a broker.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::clients::Clients;
use super::commits::{self, Commits};
use super::context::Context;
use super::forward::Forward;
use super::group_settings::{dledger_log, flush_mode, group_settings};
use super::hold::Holds;
use super::locks::Locks;
use super::pull::Pulls;
use super::resets::Resets;
use super::settings::Settings;
use super::stats::{self, Stats};
use super::suggest::Followers;
use super::{Broker, BrokerService, Port, delay, heartbeat, register, roles, settings};
use crate::config::{BrokerConfig, Loaded};
use crate::env::{Clock, Disk};
use crate::metadata::{self, Metadata, MetadataCommand};
use crate::model::{Perm, Topic, TopicConfig, system_topic};
use crate::remoting::{Client, ClientConfig, Server, ServerConfig};
use crate::replication::{self, GroupSettings, LeaderPermit, QueueLimits, Replication, Role};
use crate::store::{self, Event, Listener, Retention, Store, StoreConfig};

/// How often clients that were not heard of are looked for, as Java's `ClientHousekeepingService`.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(10);

/// How soon the leader tries again to make topics that it could not make.
const TOPICS_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long the new leader has to register before the old one takes its registration back.
const HAND_OVER_SETTLES: Duration = Duration::from_millis(300);
/// How long nobody may have sent by an old route before a replica stops.
const OLD_ROUTES_QUIET: Duration = Duration::from_secs(2);
/// Time between two looks whether anybody does.
const OLD_ROUTES_LOOK: Duration = Duration::from_millis(50);
/// How long another replica may take to become leader before this one stops all the same.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings ask for something that this version cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// There is a log that Apache's DLedger wrote.
    #[error(
        "{} is the log of a DLedger group of Apache RocketMQ, whose format cannot be read here: let consumers take its \
         messages from the old group, and start this one in another storePathRootDir",
        .0.display()
    )]
    DledgerLog(PathBuf),
    /// `brokerIP1` is no address.
    #[error("brokerIP1={0} is no IP address")]
    Address(String),
    /// A port cannot be listened on.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Which.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error("open store: {0}")]
    Store(#[from] store::Error),
    /// The tables cannot be read.
    #[error("open configuration tables: {0}")]
    Metadata(#[from] metadata::Error),
    /// The threads of the log cannot be started, or the first topics not be made.
    #[error("start the log: {0}")]
    Log(String),
}

/// A broker that serves.
#[derive(Debug)]
pub struct Running {
    broker: Arc<Broker>,
    address: SocketAddr,
    stop: watch::Sender<bool>,
    /// Servers and background tasks.
    tasks: Vec<JoinHandle<()>>,
    /// Last of all, so that what was under way can still be answered.
    registration: JoinHandle<()>,
    failed: watch::Receiver<Option<String>>,
}

/// Opens the store, listens, and registers. Returns when the broker serves.
pub async fn start(config: Loaded<BrokerConfig>, disk: Disk, clock: Clock) -> Result<Running, StartError> {
    if let Some(reason) = config.unsupported() {
        return Err(StartError::Unsupported(reason));
    }
    if let Some(log) = dledger_log(&config, &disk) {
        return Err(StartError::DledgerLog(log));
    }
    let listener = listen(&config, config.listen_port).await?;
    let fast_listener = listen(&config, config.fast_listen_port()).await?;
    let ip: IpAddr = config.broker_ip1.parse().map_err(|_| StartError::Address(config.broker_ip1.clone()))?;
    let address = SocketAddr::new(ip, listener.local_addr().port());

    let holds = Arc::new(Holds::new(config.held_pulls_max));
    let (failed_sender, failed) = watch::channel(None);
    let store_listener = {
        let holds = Arc::clone(&holds);
        Listener::new(move |event| match event {
            Event::Arrival(arrival) => holds.arrived(arrival),
            Event::Failed(reason) => {
                failed_sender.send_replace(Some(reason.to_owned()));
            }
        })
    };
    let limits = QueueLimits {
        bytes_max: config.proposal_queue_bytes,
        wait_max: Duration::from_millis(config.wait_time_mills_in_send_queue),
    };
    let (replication, metadata) = match group_settings(&config) {
        None => open_alone(&config, &disk, &clock, store_listener, limits).await?,
        Some(settings) => {
            // The port may have been chosen by the system.
            let settings = GroupSettings { client_address: address.to_string(), ..settings };
            open_in_group(&config, &disk, &clock, store_listener, limits, settings).await?
        }
    };

    let (announcer, rounds) = register::announcer();
    let context =
        Arc::new(Context::new(config, metadata, replication, address, announcer, (clock.clone(), disk)));
    if context.leads() {
        // So that they are there when this returns. In a group the leader makes them when there is one.
        make_system_topics(&context).await.map_err(|error| StartError::Log(error.to_string()))?;
    }
    let clients = Arc::new(Clients::new(clock.clone()));
    let resets = Arc::default();
    let settings = Arc::new(Settings::new(clock.now_ms()));
    if context.is_in_group() {
        settings::start_with_group(&context, &settings).await;
    }
    let stats = Arc::new(Stats::new(clock.clone(), &context.config().broker_cluster_name));
    let commits = Arc::<Commits>::default();
    let pulls = Pulls {
        commits: Arc::clone(&commits),
        followers: Followers::default(),
        context: Arc::clone(&context),
        clients: Arc::clone(&clients),
        holds,
        resets: Arc::<Resets>::clone(&resets),
        stats: Arc::clone(&stats),
    };
    let broker = Arc::new(Broker {
        context: Arc::clone(&context),
        clients,
        locks: Locks::new(clock),
        resets,
        settings,
        stats,
        pulls: Arc::new(pulls),
        commits,
        forward: Forward::new(context.role(), address.to_string()),
    });

    let (stop, stopping) = watch::channel(false);
    let mut tasks = vec![
        serve(listener, &broker, Port::Main, stopping.clone()),
        serve(fast_listener, &broker, Port::Fast, stopping.clone()),
        tokio::spawn(expire_clients(Arc::clone(&broker), stopping.clone())),
        tokio::spawn(save_offsets(Arc::clone(&context), stopping.clone())),
        tokio::spawn(roles::while_leading(Arc::clone(&context), stopping.clone(), delay::run)),
        tokio::spawn(sample_stats(Arc::clone(&broker), stopping.clone())),
    ];
    if context.is_in_group() {
        tasks.extend([
            tokio::spawn(roles::watch(Arc::clone(&broker), stopping.clone())),
            tokio::spawn(commits::run(Arc::clone(&broker), stopping.clone())),
            tokio::spawn(settings::run(Arc::clone(&context), Arc::clone(&broker.settings), stopping.clone())),
            tokio::spawn(roles::while_leading(Arc::clone(&context), stopping.clone(), keep_system_topics)),
        ]);
    }
    let client = Client::new(ClientConfig::default());
    let registration = tokio::spawn(register::run(context, client, rounds, stopping));
    Ok(Running { broker, address, stop, tasks, registration, failed })
}

impl Running {
    /// Returns the address that clients know.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Returns the settings as they are at this moment.
    pub fn config(&self) -> Arc<Loaded<BrokerConfig>> {
        self.broker.context.config()
    }

    /// Waits until the store fails, and returns why. The broker must then end at once.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Stops without waiting for clients to know of it.
    pub async fn stop(self) -> Result<(), replication::Error> {
        self.leave(watch::channel(true).1).await
    }

    /// Hands leadership over if this is the leader of a group, serves old routes until `hurry` is true, takes the
    /// registration back, answers what is under way, writes what is queued, and closes the store.
    pub async fn leave(self, hurry: watch::Receiver<bool>) -> Result<(), replication::Error> {
        self.broker.context.replication.leave();
        self.hand_leadership_over().await;
        self.serve_old_routes(hurry).await;
        self.stop.send_replace(true);
        self.broker.pulls.holds.wake_all();
        let _ = self.registration.await;
        for task in self.tasks {
            let _ = task.await;
        }
        self.broker.forward.close().await;
        self.broker.context.replication.stop().await
    }
}

impl Running {
    /// Has another replica lead before this one goes, so that clients wait for a moment and not for an election. Sends
    /// that come meanwhile are handed on.
    async fn hand_leadership_over(&self) {
        let context = &self.broker.context;
        if !context.is_in_group() || !context.leads() {
            return;
        }
        match tokio::time::timeout(HAND_OVER_TIMEOUT, context.replication.transfer_leader(None)).await {
            Ok(Ok(())) => {
                tracing::info!("leadership handed over");
                // The name servers shall know the new leader before they forget this one.
                tokio::time::sleep(HAND_OVER_SETTLES).await;
            }
            Ok(Err(error)) => tracing::warn!(%error, "leadership not handed over; the others elect"),
            Err(_) => tracing::warn!("leadership not handed over in time; the others elect"),
        }
    }

    /// Goes on handing requests to the leader for the clients that do not know of it yet: a producer looks at its route
    /// every 30 s, and knows no other address of the group.
    async fn serve_old_routes(&self, mut hurry: watch::Receiver<bool>) {
        let context = &self.broker.context;
        let until = Instant::now() + Duration::from_millis(context.config().raft_leave_wait_ms);
        let is_needed = || {
            let role = context.role();
            let has_leader = matches!(&*role.borrow(), Role::Follower { leader: Some(_), .. });
            has_leader && self.broker.forward.is_used_within(OLD_ROUTES_QUIET)
        };
        if is_needed() {
            tracing::info!("clients still send here what the leader should have; stopping when they know it");
        }
        while Instant::now() < until && is_needed() {
            tokio::select! {
                _ = hurry.wait_for(|hurry| *hurry) => return,
                () = tokio::time::sleep(OLD_ROUTES_LOOK) => {}
            }
        }
    }
}

async fn listen(config: &BrokerConfig, port: u16) -> Result<Server, StartError> {
    let address = format!("{}:{port}", config.bind_address);
    let limits = ServerConfig {
        connections_max: config.connections_max,
        inflight_max: config.requests_in_flight_max,
        idle: Duration::from_secs(config.server_channel_max_idle_time_seconds),
        ..ServerConfig::default()
    };
    Server::bind(address.as_str(), limits).await.map_err(|source| StartError::Listen { address, source })
}

/// Opens store and tables of a broker without replicas.
async fn open_alone(
    config: &BrokerConfig,
    disk: &Disk,
    clock: &Clock,
    listener: Listener,
    limits: QueueLimits,
) -> Result<(Replication, Arc<Metadata>), StartError> {
    let metadata = open_tables(config, disk).await?;
    let (store, outside) = (store_config(config), (disk.clone(), clock.clone()));
    let opened = tokio::task::spawn_blocking(move || Store::open(store, outside.0, outside.1, listener));
    let opened = opened.await.map_err(|error| StartError::Log(error.to_string()))??;
    let flush = flush_mode(config);
    let replication = Replication::start_none(opened, Arc::clone(&metadata), flush, limits)
        .map_err(|error| StartError::Log(error.to_string()))?;
    Ok((replication, metadata))
}

/// Opens store and tables of a replica of a Raft group, which takes part in the group as soon as that is safe.
async fn open_in_group(
    config: &BrokerConfig,
    disk: &Disk,
    clock: &Clock,
    listener: Listener,
    limits: QueueLimits,
    settings: GroupSettings,
) -> Result<(Replication, Arc<Metadata>), StartError> {
    let metadata = open_tables(config, disk).await?;
    let store = store_config(config);
    let outside = (disk.clone(), clock.clone());
    let replication =
        Replication::start_group(store, listener, Arc::clone(&metadata), settings, limits, outside)
            .await
            .map_err(|error| StartError::Log(error.to_string()))?;
    Ok((replication, metadata))
}

async fn open_tables(config: &BrokerConfig, disk: &Disk) -> Result<Arc<Metadata>, StartError> {
    let (folder, disk) = (config.config_folder(), disk.clone());
    let opened = tokio::task::spawn_blocking(move || Ok(Arc::new(Metadata::open(&folder, disk)?)));
    opened.await.unwrap_or_else(|error| Err(StartError::Log(error.to_string())))
}

fn store_config(config: &BrokerConfig) -> StoreConfig {
    StoreConfig {
        root: config.store_path_root_dir.clone(),
        commit_log: config.store_path_commit_log.clone(),
        segment_bytes: u64::from(config.mapped_file_size_commit_log),
        queue_file_entries: u64::from(config.mapped_file_size_consume_queue) / 20,
        index: config.message_index_enable,
        index_slots: config.max_hash_slot_num,
        index_entries: config.max_index_num,
        check_crc: config.check_crc_on_recover,
        flush_interval_ms: config.flush_interval_commit_log,
        delay_levels_ms: config.delay_levels_ms(),
        retention: retention(config),
        ..StoreConfig::new(config.store_path_root_dir.clone())
    }
}

/// Returns when the store shall delete segments.
pub(super) fn retention(config: &BrokerConfig) -> Retention {
    Retention {
        reserved_hours: config.file_reserved_time,
        delete_hours: config.delete_when.split(';').filter_map(|hour| hour.trim().parse().ok()).collect(),
        used_max_percent: u64::from(config.disk_max_used_space_ratio),
        forced_percent: u64::from(config.disk_space_clean_forcibly_ratio),
        warning_percent: u64::from(config.disk_space_warning_level_ratio),
        interval_ms: config.clean_resource_interval,
    }
}

/// Makes the topics that every broker has. Source: RocketMQ `TopicConfigManager.init`.
async fn make_system_topics(context: &Context) -> Result<(), replication::Error> {
    let config = context.config();
    let levels = u32::try_from(config.delay_levels_ms().len()).unwrap_or(u32::MAX);
    let mut topics = vec![
        (system_topic::SELF_TEST.to_owned(), 1, Perm::READ_WRITE),
        (system_topic::BENCHMARK.to_owned(), 1024, Perm::READ_WRITE),
        (system_topic::OFFSET_MOVED.to_owned(), 1, Perm::READ_WRITE),
        (system_topic::SCHEDULE.to_owned(), levels, Perm::READ_WRITE),
        (format!("{}_REPLY_TOPIC", config.broker_cluster_name), 1, Perm::READ_WRITE),
        (config.broker_cluster_name.clone(), 16, cluster_perm(config.cluster_topic_enable)),
        (config.broker_name.clone(), 1, cluster_perm(config.broker_topic_enable)),
    ];
    if config.auto_create_topic_enable {
        topics.push((system_topic::AUTO_CREATE.to_owned(), config.default_topic_queue_nums, Perm::ALL));
    }
    if config.trace_topic_enable {
        topics.push((config.msg_trace_topic_name.clone(), 1, Perm::READ_WRITE));
    }
    let permit = context.replication.permit()?;
    let mut changes = Vec::new();
    for (name, queues, perm) in topics {
        let topic = Topic::from(name);
        if context.metadata.topics().get(&topic).is_none() {
            let command = MetadataCommand::PutTopic(TopicConfig::new(topic, queues, perm));
            changes.push(context.replication.change(permit, command)?);
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    for change in changes {
        change.committed().await?;
    }
    context.announcer.topics_changed();
    Ok(())
}

/// Makes the topics of a group when this replica begins to lead.
async fn keep_system_topics(context: Arc<Context>, _: LeaderPermit, mut stop: watch::Receiver<bool>) {
    while let Err(error) = make_system_topics(&context).await {
        if !matches!(error, replication::Error::NotLeader) {
            tracing::warn!(%error, "system topics not made; tried again");
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(TOPICS_RETRY_INTERVAL) => {}
        }
    }
}

fn cluster_perm(enabled: bool) -> Perm {
    if enabled { Perm::ALL } else { Perm::INHERIT }
}

fn serve(
    server: Server,
    broker: &Arc<Broker>,
    port: Port,
    mut stop: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let service = Arc::new(BrokerService { broker: Arc::clone(broker), port });
    tokio::spawn(async move {
        server
            .serve(service, async move {
                let _ = stop.wait_for(|stop| *stop).await;
            })
            .await;
    })
}

async fn expire_clients(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(EXPIRY_INTERVAL) => {}
        }
        let limit = i64::try_from(broker.context.config().channel_expired_timeout).unwrap_or(i64::MAX);
        for changed in broker.clients.expire(limit) {
            heartbeat::notify(&broker.context, &changed);
        }
    }
}

async fn sample_stats(broker: Arc<Broker>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(stats::SAMPLE_INTERVAL) => broker.stats.sample(),
        }
    }
}

async fn save_offsets(context: Arc<Context>, mut stop: watch::Receiver<bool>) {
    loop {
        let interval = Duration::from_millis(context.config().flush_consumer_offset_interval.max(100));
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(interval) => {}
        }
        let metadata = Arc::clone(&context.metadata);
        match tokio::task::spawn_blocking(move || metadata.save()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "tables not saved; tried again"),
            Err(error) => tracing::error!(%error, "tables not saved; tried again"),
        }
    }
}
