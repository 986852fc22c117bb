//! What a name server knows of brokers and topics: a plain table, changed and asked under one lock.
//!
//! Knows no sockets and no clock: times come in, the connections to close and the brokers to tell go out.
//! Source: RocketMQ `RouteInfoManager`.

mod registration;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tracing::{info, warn};

use crate::model::{DataVersion, Perm, Topic};
use crate::remoting::body::{
    BrokerData, BrokerMemberGroup, ClusterInfo, QueueData, TopicList, TopicQueueMappingInfo, TopicRouteData,
};

pub(super) use registration::{Refused, Registration};

/// The id of a master.
pub(super) const MASTER_ID: i64 = 0;
/// A broker that does not say how long it may be silent is taken out after this time, in milliseconds.
const SILENCE_MS: i64 = 120_000;
/// Topics by which brokers read their group from name servers that do not know GET_BROKER_MEMBER_GROUP.
const SYNC_GROUP_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";
const UNIT: i32 = 1;
const UNIT_SUB: i32 = 2;

/// The address of a broker in its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Member {
    pub(super) cluster: String,
    pub(super) address: String,
}

/// The last sign of life of a member.
#[derive(Debug)]
struct Life {
    seen_ms: i64,
    silence_ms: i64,
    data_version: DataVersion,
    /// The connection over which it registered.
    connection: u64,
    ha_address: Option<String>,
}

/// The smallest id of a group changed: NOTIFY_MIN_BROKER_ID_CHANGE is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MinIdChange {
    pub(super) broker_name: String,
    pub(super) broker_id: i64,
    pub(super) address: String,
    pub(super) offline_address: Option<String>,
    pub(super) ha_address: Option<String>,
    /// Who has to hear it.
    pub(super) tell: Vec<String>,
}

/// Members that were silent for too long and are out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expired {
    /// Connections to close.
    pub(super) connections: Vec<u64>,
    pub(super) changes: Vec<MinIdChange>,
}

/// The lists of topics that tools ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnitFilter {
    Unit,
    HasUnitSub,
    HasUnitSubButNotUnit,
}

/// Everything that is known. Sorted, so that answers are the same on every name server.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    topics: BTreeMap<Topic, BTreeMap<String, QueueData>>,
    brokers: BTreeMap<String, BrokerData>,
    clusters: BTreeMap<String, BTreeSet<String>>,
    lives: HashMap<Member, Life>,
    filter_servers: HashMap<Member, Vec<String>>,
    static_topics: BTreeMap<Topic, BTreeMap<String, TopicQueueMappingInfo>>,
    /// The highest term in which a master of a group registered, by brokerName, for as long as the group has members.
    master_terms: BTreeMap<String, i64>,
    /// When [`RouteTable::expire`] looked last.
    looked_ms: Option<i64>,
}

impl RouteTable {
    /// Takes a broker out, as it asked for.
    pub(super) fn unregister(&mut self, broker_name: &str, member: &Member) -> Option<MinIdChange> {
        let known = self.lives.remove(member).is_some();
        self.filter_servers.remove(member);
        info!(broker_name, peer = member.address, known, "take a broker out");
        let group = self.brokers.get_mut(broker_name)?;
        let min_id = group.broker_addrs.first_key_value().map(|(id, _)| *id);
        group.broker_addrs.retain(|_, address| *address != member.address);
        let Some((new_id, new_address)) = group.broker_addrs.first_key_value() else {
            self.remove_group(broker_name);
            return None;
        };
        let (broker_id, address) = (*new_id, new_address.clone());
        if !group.enable_acting_master {
            return None;
        }
        let tell = group.broker_addrs.values().cloned().collect();
        if broker_id != MASTER_ID {
            self.wipe_write_perm(broker_name);
        }
        (min_id != Some(broker_id)).then(|| MinIdChange {
            broker_name: broker_name.to_owned(),
            broker_id,
            address,
            offline_address: Some(member.address.clone()),
            ha_address: None,
            tell,
        })
    }

    /// Takes out every broker that registered over a connection which is gone.
    ///
    /// Java takes out one; but a process with several broker groups registers all of them over one connection.
    pub(super) fn disconnected(&mut self, connection: u64) -> Vec<MinIdChange> {
        let gone = self.lives.iter().filter(|(_, life)| life.connection == connection);
        let gone: BTreeSet<Member> = gone.map(|(member, _)| member.clone()).collect();
        gone.iter().flat_map(|member| self.remove_member(member)).collect()
    }

    /// Takes out the brokers that were silent for longer than they may be. To be called about every `interval_ms`.
    ///
    /// If much more time went by, this process was stopped or the clock was set, and the brokers had no chance to be
    /// heard: all of them get their time again.
    pub(super) fn expire(&mut self, now_ms: i64, interval_ms: i64) -> Expired {
        let passed = now_ms - self.looked_ms.replace(now_ms).unwrap_or(now_ms);
        if passed < 0 || passed > 2 * interval_ms + 10_000 {
            warn!(elapsed_ms = passed, "the clock jumped, give brokers time to be heard of");
            for life in self.lives.values_mut() {
                life.seen_ms = now_ms;
            }
        }
        let silent = self.lives.iter().filter(|(_, life)| life.seen_ms + life.silence_ms < now_ms);
        let silent: BTreeMap<Member, u64> =
            silent.map(|(member, life)| (member.clone(), life.connection)).collect();
        let mut expired = Expired::default();
        for (member, connection) in silent {
            warn!(peer = member.address, "a broker fell silent");
            expired.changes.extend(self.remove_member(&member));
            expired.connections.push(connection);
        }
        expired
    }

    /// Takes an address out of every group of its cluster.
    fn remove_member(&mut self, member: &Member) -> Vec<MinIdChange> {
        let groups = self.brokers.values().filter(|group| {
            group.cluster == member.cluster && group.broker_addrs.values().any(|a| *a == member.address)
        });
        let names: Vec<String> = groups.map(|group| group.broker_name.clone()).collect();
        let changes = names.iter().filter_map(|name| self.unregister(name, member)).collect();
        self.lives.remove(member);
        self.filter_servers.remove(member);
        changes
    }

    /// Removes a group that has no member left, and its queues.
    fn remove_group(&mut self, broker_name: &str) {
        self.brokers.remove(broker_name);
        self.master_terms.remove(broker_name);
        self.clusters.retain(|_, names| {
            names.remove(broker_name);
            !names.is_empty()
        });
        self.topics.retain(|_, queues| {
            queues.remove(broker_name);
            !queues.is_empty()
        });
        self.static_topics.retain(|_, mappings| {
            mappings.remove(broker_name);
            !mappings.is_empty()
        });
        info!(broker_name, "a broker group is gone");
    }

    /// Notes that a broker was heard of. Unknown ones stay unknown.
    pub(super) fn heard_of(&mut self, member: &Member, now_ms: i64) {
        if let Some(life) = self.lives.get_mut(member) {
            life.seen_ms = now_ms;
        }
    }

    /// Returns the version of the topics that a broker registered.
    pub(super) fn data_version(&self, member: &Member) -> Option<DataVersion> {
        self.lives.get(member).map(|life| life.data_version)
    }

    /// Returns where a topic is; `None` if no broker that is known has it.
    pub(super) fn route(&self, topic: &Topic, support_acting_master: bool) -> Option<TopicRouteData> {
        let queues = self.topics.get(topic)?;
        let groups: Vec<BrokerData> =
            queues.keys().filter_map(|name| self.brokers.get(name)).cloned().collect();
        if groups.is_empty() {
            return None;
        }
        let mut filter_servers = BTreeMap::new();
        if !self.filter_servers.is_empty() {
            for group in &groups {
                for address in group.broker_addrs.values() {
                    let member = Member { cluster: group.cluster.clone(), address: address.clone() };
                    if let Some(servers) = self.filter_servers.get(&member) {
                        filter_servers.insert(address.clone(), servers.clone());
                    }
                }
            }
        }
        let mut route = TopicRouteData {
            broker_datas: groups,
            filter_server_table: filter_servers,
            order_topic_conf: None,
            queue_datas: queues.values().cloned().collect(),
            topic_queue_mapping_by_broker: self.static_topics.get(topic).cloned(),
        };
        if support_acting_master && !topic.as_str().starts_with(SYNC_GROUP_PREFIX) {
            show_acting_masters(&mut route);
        }
        Some(route)
    }

    /// Returns all clusters, groups and members.
    pub(super) fn cluster_info(&self) -> ClusterInfo {
        ClusterInfo { broker_addr_table: self.brokers.clone(), cluster_addr_table: self.clusters.clone() }
    }

    /// Returns the members of a group; none if it is unknown.
    pub(super) fn member_group(&self, cluster: &str, broker_name: &str) -> BrokerMemberGroup {
        let broker_addrs =
            self.brokers.get(broker_name).map(|group| group.broker_addrs.clone()).unwrap_or_default();
        BrokerMemberGroup { broker_addrs, broker_name: broker_name.to_owned(), cluster: cluster.to_owned() }
    }

    /// Returns all topics.
    pub(super) fn all_topics(&self) -> TopicList {
        TopicList { broker_addr: None, topic_list: self.topics.keys().cloned().collect() }
    }

    /// Returns the topics that a broker group of the cluster has.
    pub(super) fn topics_of_cluster(&self, cluster: &str) -> TopicList {
        let names = self.clusters.get(cluster);
        let in_cluster = |queues: &BTreeMap<String, QueueData>| {
            names.is_some_and(|names| names.iter().any(|name| queues.contains_key(name)))
        };
        let topics = self.topics.iter().filter(|(_, queues)| in_cluster(queues));
        TopicList { broker_addr: None, topic_list: topics.map(|(topic, _)| topic.clone()).collect() }
    }

    /// Returns the names of clusters and groups, which are topics too, and the address of one broker.
    pub(super) fn system_topics(&self) -> TopicList {
        let names: BTreeSet<&String> =
            self.clusters.iter().flat_map(|(cluster, names)| names.iter().chain([cluster])).collect();
        let broker_addr = self.brokers.values().find_map(|group| group.broker_addrs.values().next().cloned());
        TopicList { broker_addr, topic_list: names.into_iter().map(|name| Topic::new(name)).collect() }
    }

    /// Returns the topics whose unit bits are as asked.
    pub(super) fn unit_topics(&self, filter: UnitFilter) -> TopicList {
        let wanted = |queues: &BTreeMap<String, QueueData>| {
            let flag = queues.values().next().map_or(0, |queue| queue.topic_sys_flag);
            let (unit, unit_sub) = (flag & UNIT != 0, flag & UNIT_SUB != 0);
            match filter {
                UnitFilter::Unit => unit,
                UnitFilter::HasUnitSub => unit_sub,
                UnitFilter::HasUnitSubButNotUnit => unit_sub && !unit,
            }
        };
        let topics = self.topics.iter().filter(|(_, queues)| wanted(queues));
        TopicList { broker_addr: None, topic_list: topics.map(|(topic, _)| topic.clone()).collect() }
    }

    /// Adds queues of a topic by hand; false if a broker group is unknown, and nothing is changed.
    pub(super) fn register_topic(&mut self, topic: Topic, queues: Vec<QueueData>) -> bool {
        if queues.is_empty() || !queues.iter().all(|queue| self.brokers.contains_key(&queue.broker_name)) {
            return false;
        }
        let table = self.topics.entry(topic).or_default();
        table.extend(queues.into_iter().map(|queue| (queue.broker_name.clone(), queue)));
        true
    }

    /// Removes a topic, from the groups of one cluster or from all.
    pub(super) fn delete_topic(&mut self, topic: &Topic, cluster: Option<&str>) {
        let Some(queues) = self.topics.get_mut(topic) else { return };
        match cluster {
            Some(cluster) => {
                let names = self.clusters.get(cluster);
                queues.retain(|name, _| !names.is_some_and(|names| names.contains(name)));
            }
            None => queues.clear(),
        }
        if queues.is_empty() {
            self.topics.remove(topic);
            self.static_topics.remove(topic);
        }
        info!(%topic, cluster, "delete a topic");
    }

    /// Takes the permission to write from all topics of a group; returns how many there are.
    pub(super) fn wipe_write_perm(&mut self, broker_name: &str) -> i32 {
        self.set_perm(broker_name, |perm| perm.without(Perm::WRITE))
    }

    /// Gives all topics of a group the permissions to read and write, and only those; returns how many there are.
    pub(super) fn add_write_perm(&mut self, broker_name: &str) -> i32 {
        self.set_perm(broker_name, |_| Perm::READ_WRITE)
    }

    fn set_perm(&mut self, broker_name: &str, perm: impl Fn(Perm) -> Perm) -> i32 {
        let mut count = 0;
        for queue in self.topics.values_mut().filter_map(|queues| queues.get_mut(broker_name)) {
            queue.perm = perm(queue.perm);
            count += 1;
        }
        count
    }
}

/// Shows the smallest member of a group without a master as master, if the group wants it and its queues of this topic
/// are not writable.
fn show_acting_masters(route: &mut TopicRouteData) {
    for group in &mut route.broker_datas {
        let Some((smallest, address)) = group.broker_addrs.first_key_value() else { continue };
        if *smallest == MASTER_ID || !group.enable_acting_master {
            continue;
        }
        let (smallest, address) = (*smallest, address.clone());
        let queue = route.queue_datas.iter().find(|queue| queue.broker_name == group.broker_name);
        if queue.is_some_and(|queue| !queue.perm.writable()) {
            group.broker_addrs.remove(&smallest);
            group.broker_addrs.insert(MASTER_ID, address);
        }
    }
}

/// Leaves only brokers of a zone in a route, and those groups that have no master: reading from far away is better
/// than not reading. Source: RocketMQ `ZoneRouteRPCHook`.
pub(super) fn keep_zone(route: &mut TopicRouteData, zone: &str) {
    let (kept, removed): (Vec<_>, Vec<_>) =
        std::mem::take(&mut route.broker_datas).into_iter().partition(|group| {
            !group.broker_addrs.contains_key(&MASTER_ID)
                || group.zone_name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(zone))
        });
    route.broker_datas = kept;
    for group in removed {
        route.queue_datas.retain(|queue| queue.broker_name != group.broker_name);
        route.filter_server_table.retain(|address, _| !group.broker_addrs.values().any(|a| a == address));
    }
}

#[cfg(test)]
mod tests;
