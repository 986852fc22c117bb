//! Registration at the name servers: REGISTER_BROKER (103) and UNREGISTER_BROKER (104).
//!
//! Source: RocketMQ `BrokerController.registerBrokerAll`, `BrokerOuterAPI`. Always the full body, so that a name server
//! that restarted knows everything after one round.
//!
//! A replica of a Raft group registers as what it is, and anew at once when that changes: as broker 0 while it leads,
//! else under a number that is always its own. The term travels as `stateVersion`, by which name servers keep a leader
//! of the past from coming back. Each name server is called for itself, so that none waits for another one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::context::Context;
use super::roles::changed;
use crate::config::BrokerConfig;
use crate::model::{DataVersion, Perm, Term, TopicConfig};
use crate::remoting::body::{RegisterBrokerBody, TopicConfigAndMappingSerializeWrapper};
use crate::remoting::header::{RegisterBrokerRequestHeader, UnregisterBrokerRequestHeader};
use crate::remoting::{Client, Command, RequestCode, ResponseCode};
use crate::replication::Role;

/// How soon registration is tried again at a name server that did not take it.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How soon while a change of the role is young: clients cannot find the new leader before.
const URGENT_RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How long a change of the role is young.
const URGENT: Duration = Duration::from_secs(10);
/// How long the first call after a change of the role may take, if that is less than `registerBrokerTimeoutMills`: the
/// name server's host may have vanished without a word.
const URGENT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a replica that knows of no leader stays registered as what it was. An election takes less; the broker 0 of
/// the past is better than none, without which Go clients stop sending until their next look at the route.
const LEADERLESS: Duration = Duration::from_secs(10);
/// How long a broker waits at its stop for the name servers to forget it.
const UNREGISTER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a replica that led lets the new leader register first.
const HANDED_OVER: Duration = Duration::from_millis(500);
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

/// What name servers shall know this broker as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    broker_id: i64,
    term: Term,
}

/// Registers as soon as the role is known, every `registerNameServerPeriod`, and whenever role or topics change, until
/// told to stop; then takes the registration back.
pub(crate) async fn run(
    context: Arc<Context>,
    client: Client,
    mut rounds: Rounds,
    mut stop: watch::Receiver<bool>,
) {
    let mut role = context.role();
    let mut role_since = Instant::now();
    let mut known_leader = leader_of(&role.borrow());
    let mut registered = None;
    let mut servers: BTreeMap<String, Server> = BTreeMap::new();
    let mut calls = JoinSet::new();
    loop {
        let now = Instant::now();
        let config = context.config();
        let topics = *rounds.wanted.borrow_and_update();
        let ids = Ids { alone: config.broker_id, follower: context.follower_id() };
        let led = registered.is_some_and(|known: Identity| known.broker_id == 0);
        let identity = identity(&role.borrow_and_update(), ids, led, now - role_since);
        if let Some(identity) = identity {
            if registered != Some(identity) {
                servers.values_mut().for_each(|server| server.role_changed(now));
                registered = Some(identity);
            }
            keep(&mut servers, addresses(&config), now);
            let mut request = None;
            for (address, server) in servers.iter_mut().filter(|(_, server)| server.is_due(now)) {
                let request = request.get_or_insert_with(|| self::request(&context, &config, identity));
                let timeout = Duration::from_millis(config.register_broker_timeout_mills);
                let timeout = if server.urgent { timeout.min(URGENT_TIMEOUT) } else { timeout };
                let call =
                    Call { client: client.clone(), address: address.clone(), request: request.clone() };
                let number = server.number + 1;
                let abort = calls.spawn(call.run(number, timeout));
                server.called(now, topics, period(&config), abort);
            }
            rounds.done.send_replace(servers.values().map(|server| server.told).min().unwrap_or(topics));
        }
        let next = servers.values().filter(|server| server.call.is_none()).map(|server| server.due).min();
        let next = match identity {
            Some(_) => next.unwrap_or(now + period(&config)),
            None if now < role_since + HANDED_OVER => role_since + HANDED_OVER,
            None => role_since + LEADERLESS,
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            wanted = rounds.wanted.changed() => match wanted {
                Ok(()) => servers.values_mut().for_each(|server| server.due = Instant::now()),
                Err(_) => break,
            },
            () = changed(&mut role) => {
                // Elections without a winner change the term alone.
                let leader = leader_of(&role.borrow());
                if leader != known_leader {
                    role_since = Instant::now();
                    known_leader = leader;
                }
            }
            Some(called) = calls.join_next() => if let Ok(called) = called {
                let Called { address, number, refused } = called;
                if let Some(server) = servers.get_mut(&address).filter(|server| server.number == number) {
                    server.answered(&address, refused, Instant::now(), role_since);
                }
            },
            () = tokio::time::sleep_until(next) => {}
        }
    }
    calls.shutdown().await;
    if let Some(Identity { broker_id, .. }) = registered {
        unregister(&context, &client, broker_id).await;
    }
}

/// The numbers that a broker may register under.
#[derive(Debug, Clone, Copy)]
struct Ids {
    /// Without a Raft group.
    alone: i64,
    /// In a group, while it does not lead; `None` without one.
    follower: Option<i64>,
}

/// Returns what a replica is to name servers, or `None` while that is not known: it just started, or its group elects.
///
/// One that `led` leaves its place to the new leader: if it took another number at once, there would be a moment without
/// a master. Meanwhile it hands on what it gets.
fn identity(role: &Role, ids: Ids, led: bool, since: Duration) -> Option<Identity> {
    let term = role.term();
    match (ids.follower, role) {
        (None, _) => Some(Identity { broker_id: ids.alone, term }),
        (Some(_), Role::Leader(_)) => Some(Identity { broker_id: 0, term }),
        (Some(_), Role::Follower { leader: Some(_), .. }) if led && since < HANDED_OVER => None,
        (Some(broker_id), Role::Follower { leader: Some(_), .. }) => Some(Identity { broker_id, term }),
        (Some(broker_id), Role::Follower { leader: None, .. }) => {
            (since >= LEADERLESS).then_some(Identity { broker_id, term })
        }
    }
}

/// Returns who leads as far as a replica knows; for itself, an empty address.
fn leader_of(role: &Role) -> Option<String> {
    match role {
        Role::Leader(_) => Some(String::new()),
        Role::Follower { leader, .. } => leader.clone(),
    }
}

fn period(config: &BrokerConfig) -> Duration {
    Duration::from_millis(config.register_name_server_period)
}

/// Leaves the name servers that the settings name, and puts new ones in.
fn keep(servers: &mut BTreeMap<String, Server>, addresses: Vec<String>, now: Instant) {
    servers.retain(|address, _| addresses.contains(address));
    for address in addresses {
        servers.entry(address).or_insert_with(|| Server::new(now));
    }
}

/// A name server, as registration sees it.
#[derive(Debug)]
struct Server {
    /// When to call it next.
    due: Instant,
    /// The role changed since the last call.
    urgent: bool,
    /// Number of the newest call; answers to older ones do not count.
    number: u64,
    /// The call that waits for an answer.
    call: Option<AbortHandle>,
    /// Number of the newest change of topics that the call carries.
    carries: u64,
    /// Number of the newest change of topics that it was told, or could not be told.
    told: u64,
    /// An older call was left behind, and may be carried out after a newer one.
    overtaken: bool,
    /// It did not take the last call.
    failing: bool,
}

impl Server {
    fn new(now: Instant) -> Self {
        Self {
            due: now,
            urgent: true,
            number: 0,
            call: None,
            carries: 0,
            told: 0,
            overtaken: false,
            failing: false,
        }
    }

    fn role_changed(&mut self, now: Instant) {
        self.due = now;
        self.urgent = true;
    }

    /// A call that is under way is waited for, unless the role has changed since.
    fn is_due(&self, now: Instant) -> bool {
        self.due <= now && (self.call.is_none() || self.urgent)
    }

    fn called(&mut self, now: Instant, topics: u64, period: Duration, call: AbortHandle) {
        if let Some(older) = self.call.replace(call) {
            older.abort();
            self.overtaken = true;
        }
        self.number += 1;
        self.carries = topics;
        self.due = now + period;
        self.urgent = false;
    }

    fn answered(&mut self, address: &str, refused: Option<String>, now: Instant, role_since: Instant) {
        self.call = None;
        self.told = self.carries;
        let retry = if now - role_since < URGENT { URGENT_RETRY_INTERVAL } else { RETRY_INTERVAL };
        match refused {
            None => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!(peer = address, "registered");
                }
                if std::mem::take(&mut self.overtaken) {
                    self.due = self.due.min(now + retry);
                }
            }
            Some(reason) => {
                self.due = self.due.min(now + retry);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(peer = address, reason, "registration failed; tried again every second");
                }
            }
        }
    }
}

/// A registration on its way.
struct Call {
    client: Client,
    address: String,
    request: Command,
}

/// How it ended; a reason if the name server did not take it.
struct Called {
    address: String,
    number: u64,
    refused: Option<String>,
}

impl Call {
    async fn run(self, number: u64, timeout: Duration) -> Called {
        let refused = match self.client.call(&self.address, self.request, timeout).await {
            Ok(response) if response.code == ResponseCode::Success.number() => None,
            Ok(response) => Some(format!("code {}: {}", response.code, response.remark.unwrap_or_default())),
            Err(error) => Some(error.to_string()),
        };
        Called { address: self.address, number, refused }
    }
}

fn request(context: &Context, config: &BrokerConfig, identity: Identity) -> Command {
    let Identity { broker_id, term } = identity;
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
        broker_id,
        heartbeat_timeout_millis: None,
        enable_acting_master: Some(false),
        compressed: false,
        body_crc32: Some(i32::try_from(crc).unwrap_or(0)),
    })
}

async fn unregister(context: &Context, client: &Client, broker_id: i64) {
    let config = context.config();
    let header = UnregisterBrokerRequestHeader {
        broker_name: config.broker_name.clone(),
        broker_addr: context.address.to_string(),
        cluster_name: config.broker_cluster_name.clone(),
        broker_id,
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(30);

    #[test]
    fn a_replica_registers_as_what_it_is() {
        let in_group = Ids { alone: -1, follower: Some(3) };
        let follower =
            |leader: Option<&str>| Role::Follower { term: Term(7), leader: leader.map(str::to_owned) };
        let moment = Duration::from_millis(1);
        for (role, ids, led, since, expected) in [
            (Role::Leader(Term(0)), Ids { alone: 0, follower: None }, false, moment, Some((0, 0))),
            (Role::Leader(Term(7)), in_group, false, moment, Some((0, 7))),
            (follower(Some("leader")), in_group, false, moment, Some((3, 7))),
            (follower(Some("leader")), in_group, true, moment, None),
            (follower(Some("leader")), in_group, true, HANDED_OVER, Some((3, 7))),
            (follower(None), in_group, false, moment, None),
            (follower(None), in_group, true, LEADERLESS, Some((3, 7))),
        ] {
            let expected = expected.map(|(broker_id, term)| Identity { broker_id, term: Term(term) });
            assert_eq!(identity(&role, ids, led, since), expected, "{role:?}");
        }
    }

    /// Says what has to happen to a name server, and when it is called next, in milliseconds from the start.
    struct Story {
        server: Server,
        start: Instant,
    }

    impl Story {
        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        fn call(&mut self, ms: u64) {
            assert!(self.server.is_due(self.at(ms)), "due after {ms} ms");
            let abort = tokio::spawn(pending::<()>()).abort_handle();
            self.server.called(self.at(ms), 0, PERIOD, abort);
            assert!(!self.server.is_due(self.at(ms)));
        }

        fn answer(&mut self, ms: u64, refused: bool, role_since: u64) {
            let refused = refused.then(|| "refused".to_owned());
            self.server.answered("address", refused, self.at(ms), self.at(role_since));
        }

        fn due_ms(&self) -> u128 {
            (self.server.due - self.start).as_millis()
        }
    }

    fn story() -> Story {
        let start = Instant::now();
        Story { server: Server::new(start), start }
    }

    #[tokio::test]
    async fn a_name_server_is_called_every_period_and_sooner_when_it_refuses() {
        let mut story = story();
        story.call(0);
        story.answer(5, false, 0);
        assert_eq!(story.due_ms(), 30_000);
        story.call(30_000);
        story.answer(30_100, true, 0);
        assert_eq!(story.due_ms(), 31_100);
        story.server.role_changed(story.at(31_000));
        story.call(31_000);
        story.answer(31_010, true, 31_000);
        assert_eq!(story.due_ms(), 31_210, "soon, as the change is young");
    }

    #[tokio::test]
    async fn a_change_of_topics_waits_for_the_call_under_way_and_a_change_of_the_role_does_not() {
        let mut story = story();
        story.call(0);
        story.server.due = story.at(10);
        assert!(!story.server.is_due(story.at(10)));
        story.answer(20, false, 0);
        story.call(20);

        let first = story.server.number;
        story.server.role_changed(story.at(100));
        story.call(100);
        assert_eq!(story.server.number, first + 1);
        // The one that was left behind may be carried out last: say it again.
        story.answer(150, false, 100);
        assert_eq!(story.due_ms(), 350);
        story.call(350);
        story.answer(360, false, 100);
        assert_eq!(story.due_ms(), 30_350);
    }
}
