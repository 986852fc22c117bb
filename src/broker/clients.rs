//! Who is connected: producer and consumer groups, as heartbeats tell.
//!
//! Source of the behaviour: RocketMQ `ConsumerManager`, `ConsumerGroupInfo`, `ProducerManager`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::env::Clock;
use crate::filter::{self, Filter};
use crate::model::{Group, Topic};
use crate::remoting::body::{ConsumeFromWhere, ConsumeType, ConsumerData, MessageModel, SubscriptionData};
use crate::remoting::{Connection, Language};

/// One client of a group.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) client_id: String,
    pub(crate) connection: Connection,
    pub(crate) language: Language,
    pub(crate) version: i32,
    pub(crate) seen_ms: i64,
}

/// A consumer group with at least one member.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerGroup {
    pub(crate) consume_type: ConsumeType,
    pub(crate) message_model: MessageModel,
    pub(crate) consume_from_where: ConsumeFromWhere,
    pub(crate) subscriptions: BTreeMap<Topic, Subscription>,
    /// By connection: one client has one connection.
    pub(crate) members: HashMap<u64, Client>,
}

/// What a group wants of a topic.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub(crate) data: SubscriptionData,
    /// What it selects, or what is wrong with it.
    pub(crate) filter: Result<Filter, filter::Error>,
}

/// What a heartbeat or a departure changed, for the members that have to hear of it.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) group: Group,
    pub(crate) members: Vec<Connection>,
}

/// All connected clients.
#[derive(Debug)]
pub(crate) struct Clients {
    table: Mutex<Table>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Table {
    producers: HashMap<Group, HashMap<u64, Client>>,
    /// Producers by their id, for replies.
    producers_by_id: HashMap<String, Client>,
    /// Shared, so that a pull can look at it without holding the lock.
    consumers: HashMap<Group, Arc<ConsumerGroup>>,
}

impl Clients {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { table: Mutex::default(), clock }
    }

    /// Notes a producer.
    pub(crate) fn register_producer(&self, group: &Group, client: Client) {
        let mut table = self.lock();
        table.producers_by_id.insert(client.client_id.clone(), client.clone());
        table.producers.entry(group.clone()).or_default().insert(client.connection.id(), client);
    }

    /// Notes a member of a consumer group and what the group wants.
    ///
    /// The newest subscription of a topic counts; topics that the heartbeat does not name are dropped. Returns the
    /// group if a member joined or a topic came or went.
    pub(crate) fn register_consumer(&self, data: &ConsumerData, client: Client) -> Option<Changed> {
        let mut table = self.lock();
        let entry = table.consumers.entry(data.group_name.clone()).or_insert_with(|| {
            Arc::new(ConsumerGroup {
                consume_type: data.consume_type,
                message_model: data.message_model,
                consume_from_where: data.consume_from_where,
                subscriptions: BTreeMap::new(),
                members: HashMap::new(),
            })
        });
        let group = Arc::make_mut(entry);
        group.consume_type = data.consume_type;
        group.message_model = data.message_model;
        group.consume_from_where = data.consume_from_where;
        let joined = group.members.insert(client.connection.id(), client).is_none();
        let mut topics_changed = false;
        for subscription in &data.subscription_data_set {
            let topic = &subscription.topic;
            let known = group.subscriptions.get(topic);
            if known.is_some_and(|known| known.data.sub_version >= subscription.sub_version) {
                continue;
            }
            topics_changed |= known.is_none();
            let filter = filter_of(subscription);
            if let Err(error) = &filter {
                tracing::warn!(group = %data.group_name, %topic, %error, "a subscription cannot be served");
            }
            group.subscriptions.insert(topic.clone(), Subscription { data: subscription.clone(), filter });
        }
        let before = group.subscriptions.len();
        group.subscriptions.retain(|topic, _| data.subscription_data_set.iter().any(|s| s.topic == *topic));
        topics_changed |= group.subscriptions.len() != before;
        (joined || topics_changed).then(|| changed(&data.group_name, group))
    }

    /// Forgets a client that says goodbye.
    pub(crate) fn unregister(
        &self,
        connection: &Connection,
        producer_group: Option<&Group>,
        consumer_group: Option<&Group>,
    ) -> Option<Changed> {
        let mut table = self.lock();
        if let Some(group) = producer_group {
            remove_producer(&mut table, group, connection.id());
        }
        consumer_group.and_then(|group| remove_consumer(&mut table, group, connection.id()))
    }

    /// Forgets everybody on a connection that closed.
    pub(crate) fn closed(&self, connection: &Connection) -> Vec<Changed> {
        self.remove_where(|client| client.connection == *connection)
    }

    /// Forgets everybody who was not heard of for `limit_ms`, and closes their connections.
    pub(crate) fn expire(&self, limit_ms: i64) -> Vec<Changed> {
        let oldest = self.clock.now_ms() - limit_ms;
        self.remove_where(|client| {
            let expired = client.seen_ms < oldest;
            if expired {
                tracing::warn!(client_id = client.client_id, "client expired");
                client.connection.close();
            }
            expired
        })
    }

    /// Returns a consumer group that has members.
    pub(crate) fn consumers(&self, group: &Group) -> Option<Arc<ConsumerGroup>> {
        self.lock().consumers.get(group).cloned()
    }

    /// Returns all consumer groups that have members.
    pub(crate) fn all_consumers(&self) -> BTreeMap<Group, Arc<ConsumerGroup>> {
        let table = self.lock();
        table.consumers.iter().map(|(name, group)| (name.clone(), Arc::clone(group))).collect()
    }

    /// Returns a producer by its id, whatever its group.
    pub(crate) fn producer(&self, client_id: &str) -> Option<Client> {
        self.lock().producers_by_id.get(client_id).cloned()
    }

    /// Returns the clients of a producer group.
    pub(crate) fn producers(&self, group: &Group) -> Vec<Client> {
        self.lock()
            .producers
            .get(group)
            .map(|clients| clients.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Returns all producer groups with their clients.
    pub(crate) fn all_producers(&self) -> BTreeMap<Group, Vec<Client>> {
        let table = self.lock();
        table.producers.iter().map(|(g, clients)| (g.clone(), clients.values().cloned().collect())).collect()
    }

    /// Returns the groups with members that subscribe to a topic, by name.
    pub(crate) fn groups_of(&self, topic: &Topic) -> Vec<Group> {
        let table = self.lock();
        let subscribes = |group: &ConsumerGroup| group.subscriptions.contains_key(topic);
        let mut groups: Vec<_> =
            table.consumers.iter().filter(|(_, g)| subscribes(g)).map(|(name, _)| name.clone()).collect();
        groups.sort();
        groups
    }

    /// Returns a member of a group by its id.
    pub(crate) fn member(&self, group: &Group, client_id: &str) -> Option<Client> {
        self.consumers(group)?.members.values().find(|member| member.client_id == client_id).cloned()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn remove_where(&self, mut gone: impl FnMut(&Client) -> bool) -> Vec<Changed> {
        let mut table = self.lock();
        for clients in table.producers.values_mut() {
            clients.retain(|_, client| !gone(client));
        }
        table.producers.retain(|_, clients| !clients.is_empty());
        table.producers_by_id.retain(|_, client| !gone(client));
        let leaving: Vec<_> = table
            .consumers
            .iter()
            .flat_map(|(name, group)| {
                let ids: Vec<_> = group.members.iter().filter(|(_, c)| gone(c)).map(|(id, _)| *id).collect();
                ids.into_iter().map(|id| (name.clone(), id))
            })
            .collect();
        leaving.into_iter().filter_map(|(group, id)| remove_consumer(&mut table, &group, id)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what a subscription selects.
pub(crate) fn filter_of(subscription: &SubscriptionData) -> Result<Filter, filter::Error> {
    Filter::compile(subscription.expression_type.as_deref(), subscription.sub_string.as_deref())
}

fn remove_producer(table: &mut Table, group: &Group, connection_id: u64) {
    let Some(clients) = table.producers.get_mut(group) else { return };
    clients.remove(&connection_id);
    if clients.is_empty() {
        table.producers.remove(group);
    }
    // It may be in other groups.
    if !table.producers.values().any(|clients| clients.contains_key(&connection_id)) {
        table.producers_by_id.retain(|_, client| client.connection.id() != connection_id);
    }
}

fn remove_consumer(table: &mut Table, name: &Group, connection_id: u64) -> Option<Changed> {
    let group = Arc::make_mut(table.consumers.get_mut(name)?);
    group.members.remove(&connection_id)?;
    let changed = changed(name, group);
    if group.members.is_empty() {
        table.consumers.remove(name);
    }
    Some(changed)
}

fn changed(name: &Group, group: &ConsumerGroup) -> Changed {
    // Broadcast consumers share nothing, so there is nothing to rebalance.
    let members = match group.message_model {
        MessageModel::Broadcasting => Vec::new(),
        _ => group.members.values().map(|member| member.connection.clone()).collect(),
    };
    Changed { group: name.clone(), members }
}
