//! Registration at the name servers: REGISTER_BROKER (103) and UNREGISTER_BROKER (104).
//!
//! Source: RocketMQ `BrokerController.registerBrokerAll`, `BrokerOuterAPI`. Always the full body, so that a name server
//! that restarted knows everything after one round.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::context::Context;
use crate::config::BrokerConfig;
use crate::model::{DataVersion, Perm, TopicConfig};
use crate::remoting::body::{RegisterBrokerBody, TopicConfigAndMappingSerializeWrapper};
use crate::remoting::header::{RegisterBrokerRequestHeader, UnregisterBrokerRequestHeader};
use crate::remoting::{Client, Command, RequestCode, ResponseCode};

/// How soon registration is tried again at a name server that did not take it.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a broker waits at its stop for the name servers to forget it.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a change of topics waits for the name servers before it is answered anyway.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks for registration rounds.
#[derive(Debug)]
pub(crate) struct Announcer {
    /// Number of the newest round that was asked for.
    wanted: watch::Sender<u64>,
    /// Number of the newest round that is done.
    done: watch::Receiver<u64>,
}

/// The other side of an [`Announcer`].
#[derive(Debug)]
pub(crate) struct Rounds {
    wanted: watch::Receiver<u64>,
    done: watch::Sender<u64>,
}

pub(crate) fn announcer() -> (Announcer, Rounds) {
    let (wanted, wanted_seen) = watch::channel(0);
    let (done, done_seen) = watch::channel(0);
    (Announcer { wanted, done: done_seen }, Rounds { wanted: wanted_seen, done })
}

impl Announcer {
    /// Asks for a round soon.
    pub(crate) fn topics_changed(&self) {
        self.wanted.send_modify(|number| *number += 1);
    }

    /// Asks for a round and waits until the name servers have heard, or for a while.
    pub(crate) async fn topics_changed_and_known(&self) {
        let mut number = 0;
        self.wanted.send_modify(|wanted| {
            *wanted += 1;
            number = *wanted;
        });
        let mut done = self.done.clone();
        let _ = tokio::time::timeout(ANNOUNCE_TIMEOUT, done.wait_for(|done| *done >= number)).await;
    }
}

/// Registers at the start, every `registerNameServerPeriod`, and whenever topics change, until told to stop; then
/// takes the registration back.
pub(crate) async fn run(
    context: Arc<Context>,
    client: Client,
    mut rounds: Rounds,
    mut stop: watch::Receiver<bool>,
) {
    let mut failing = BTreeSet::new();
    loop {
        let number = *rounds.wanted.borrow_and_update();
        register(&context, &client, &mut failing).await;
        rounds.done.send_replace(number);
        let period = Duration::from_millis(context.config().register_name_server_period);
        let period = if failing.is_empty() { period } else { period.min(RETRY_INTERVAL) };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            changed = rounds.wanted.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(period) => {}
        }
    }
    unregister(&context, &client).await;
}

/// Registers at every name server. Those that did not take it are put into `failing`, and complained about once.
async fn register(context: &Context, client: &Client, failing: &mut BTreeSet<String>) {
    let config = context.config();
    let timeout = Duration::from_millis(config.register_broker_timeout_mills);
    let request = request(context, &config);
    let calls: Vec<_> = addresses(&config)
        .into_iter()
        .map(|address| {
            let (client, request) = (client.clone(), request.clone());
            tokio::spawn(async move { (client.call(&address, request, timeout).await, address) })
        })
        .collect();
    for call in calls {
        let Ok((answer, address)) = call.await else { continue };
        let refused = match answer {
            Ok(response) if response.code == ResponseCode::Success.number() => None,
            Ok(response) => Some(format!("code {}: {}", response.code, response.remark.unwrap_or_default())),
            Err(error) => Some(error.to_string()),
        };
        match refused {
            None if failing.remove(&address) => tracing::info!(peer = address, "registered"),
            None => {}
            Some(reason) if failing.insert(address.clone()) => {
                tracing::warn!(peer = address, reason, "registration failed; tried again every second");
            }
            Some(_) => {}
        }
    }
}

fn request(context: &Context, config: &BrokerConfig) -> Command {
    let term = context.replication.role().borrow().term();
    let topics = context.metadata.topics().snapshot();
    let broker_perm = i32::try_from(config.broker_permission).unwrap_or(Perm::READ_WRITE.0);
    let topic_config_table = topics
        .topic_config_table
        .into_iter()
        .map(|(name, topic)| {
            // What the broker forbids, its topics forbid too.
            let perm = if broker_perm & Perm::READ_WRITE.0 == Perm::READ_WRITE.0 {
                topic.perm
            } else {
                Perm(topic.perm.0 & broker_perm)
            };
            (name, TopicConfig { perm, ..topic })
        })
        .collect();
    let data_version =
        DataVersion { state_version: i64::try_from(term.0).unwrap_or(i64::MAX), ..topics.data_version };
    let body = RegisterBrokerBody {
        filter_server_list: Vec::new(),
        topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper {
            data_version,
            topic_config_table,
            ..TopicConfigAndMappingSerializeWrapper::default()
        },
    };
    let request = Command::request(RequestCode::RegisterBroker).with_json(&body);
    let crc = crate::message::crc32(&request.body.to_bytes());
    request.with_header(&RegisterBrokerRequestHeader {
        broker_name: config.broker_name.clone(),
        broker_addr: context.address.to_string(),
        cluster_name: config.broker_cluster_name.clone(),
        ha_server_addr: Some(format!("{}:{}", config.broker_ip2, config.ha_listen_port)),
        broker_id: config.broker_id,
        heartbeat_timeout_millis: None,
        enable_acting_master: Some(false),
        compressed: false,
        body_crc32: Some(i32::try_from(crc).unwrap_or(0)),
    })
}

async fn unregister(context: &Context, client: &Client) {
    let config = context.config();
    let header = UnregisterBrokerRequestHeader {
        broker_name: config.broker_name.clone(),
        broker_addr: context.address.to_string(),
        cluster_name: config.broker_cluster_name.clone(),
        broker_id: config.broker_id,
    };
    let calls: Vec<_> = addresses(&config)
        .into_iter()
        .map(|address| {
            let client = client.clone();
            let request = Command::request(RequestCode::UnregisterBroker).with_header(&header);
            tokio::spawn(async move { client.call(&address, request, UNREGISTER_TIMEOUT).await })
        })
        .collect();
    for call in calls {
        if let Ok(Err(error)) = call.await {
            tracing::warn!(%error, "registration not taken back; it expires");
        }
    }
}

fn addresses(config: &BrokerConfig) -> Vec<String> {
    let list = config.namesrv_addr.as_deref().unwrap_or_default();
    list.split(';').map(str::trim).filter(|address| !address.is_empty()).map(str::to_owned).collect()
}
