//! REGISTER_BROKER: what a broker tells of itself becomes part of the table.

use std::collections::BTreeMap;

use tracing::{debug, info, warn};

use super::{Life, MASTER_ID, Member, MinIdChange, RouteTable, SILENCE_MS};
use crate::env::KnownBad;
use crate::model::{Perm, Topic, TopicConfig};
use crate::remoting::body::{BrokerData, QueueData, TopicConfigAndMappingSerializeWrapper};

/// Brokers that are kept; far more than any cluster has, so that a faulty program cannot fill the memory.
const MEMBERS_MAX: usize = 10_000;
/// Topics that are kept: what the largest clusters have, ten times over.
const TOPICS_MAX: usize = 1_000_000;

/// What a broker tells.
#[derive(Debug)]
pub(in crate::namesrv) struct Registration {
    pub(in crate::namesrv) member: Member,
    pub(in crate::namesrv) broker_name: String,
    pub(in crate::namesrv) broker_id: i64,
    pub(in crate::namesrv) ha_address: Option<String>,
    pub(in crate::namesrv) zone_name: Option<String>,
    /// How long it may be silent, in milliseconds.
    pub(in crate::namesrv) silence_ms: Option<i64>,
    /// `None` for brokers older than 5.0, whose slaves register no topics.
    pub(in crate::namesrv) enable_acting_master: Option<bool>,
    pub(in crate::namesrv) table: TopicConfigAndMappingSerializeWrapper,
    /// `None` leaves them as they are.
    pub(in crate::namesrv) filter_servers: Option<Vec<String>>,
    pub(in crate::namesrv) connection: u64,
    pub(in crate::namesrv) now_ms: i64,
    /// Topics of the group that are not in the table are removed.
    pub(in crate::namesrv) replaces_topics: bool,
}

/// A registration was taken, or ignored because the id belongs to a newer leader.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::namesrv) struct Registered {
    /// For slaves: the address of the master, if it is known.
    pub(in crate::namesrv) master_address: Option<String>,
    /// For slaves: where the master streams its log.
    pub(in crate::namesrv) ha_address: Option<String>,
    pub(in crate::namesrv) change: Option<MinIdChange>,
}

/// A registration that was refused.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::namesrv) enum Refused {
    /// A single topic, of a broker that has not registered as a whole.
    NotRegistered,
    /// There are too many brokers.
    Full,
}

impl RouteTable {
    /// Takes a registration. The order of the steps is Java's: each can be seen by what the next one does.
    pub(in crate::namesrv) fn register(&mut self, registration: Registration) -> Result<Registered, Refused> {
        let Registration { member, broker_name, broker_id, .. } = &registration;
        let broker_id = *broker_id;
        if self.lives.len() >= MEMBERS_MAX && !self.lives.contains_key(member) {
            warn!(broker_name, peer = member.address, "refuse a broker, there are too many");
            return Err(Refused::Full);
        }
        if self.is_of_the_past(&registration) {
            return Ok(Registered::default());
        }
        self.clusters.entry(member.cluster.clone()).or_default().insert(broker_name.clone());
        let new_group = !self.brokers.contains_key(broker_name);
        let group = self.brokers.entry(broker_name.clone()).or_insert_with(|| BrokerData {
            broker_name: broker_name.clone(),
            cluster: member.cluster.clone(),
            ..BrokerData::default()
        });
        let acting_master = registration.enable_acting_master.unwrap_or(false);
        group.enable_acting_master = acting_master;
        group.zone_name = registration.zone_name.clone();

        let previous_min = group.broker_addrs.keys().next().copied().unwrap_or(MASTER_ID);
        // A slave that becomes master keeps one entry.
        group.broker_addrs.retain(|id, address| *address != member.address || *id == broker_id);

        if let Some(holder) = group.broker_addrs.get(&broker_id)
            && *holder != member.address
        {
            let holder = Member { cluster: member.cluster.clone(), address: holder.clone() };
            let holder_version = self.lives.get(&holder).map(|life| life.data_version.state_version);
            let version = registration.table.data_version.state_version;
            let is_older = holder_version.is_some_and(|holder_version| holder_version > version);
            if is_older && !KnownBad::LowerTermAccepted.is_on() {
                warn!(
                    broker_name,
                    broker_id,
                    peer = member.address,
                    term = version,
                    "ignore a broker whose id belongs to a newer leader"
                );
                self.lives.remove(member);
                return Ok(Registered::default());
            }
        }
        if !group.broker_addrs.contains_key(&broker_id) && registration.table.topic_config_table.len() == 1 {
            warn!(
                broker_name,
                broker_id,
                peer = member.address,
                "refuse a single topic of an unknown broker"
            );
            if group.broker_addrs.is_empty() {
                self.remove_group(broker_name);
            }
            return Err(Refused::NotRegistered);
        }
        let holder = group.broker_addrs.insert(broker_id, member.address.clone());
        if broker_id == MASTER_ID {
            self.master_terms.insert(broker_name.clone(), registration.table.data_version.state_version);
        }
        let min_id = group.broker_addrs.keys().next().copied();
        let everybody: BTreeMap<i64, String> = group.broker_addrs.clone();

        let prime_slave = registration.enable_acting_master.is_some()
            && broker_id != MASTER_ID
            && min_id == Some(broker_id);
        if broker_id == MASTER_ID || prime_slave {
            let new = new_group || holder.is_none();
            self.take_topics(&registration, new, prime_slave && acting_master);
        }
        Ok(self.finish(registration, previous_min, &everybody))
    }

    /// Returns whether a master was elected in a later term than the one that registers, and takes nothing of it then.
    ///
    /// Java compares it with the master that is registered at the moment, if any. That one may be gone before the
    /// leader of the past has heard of it, so here the highest term counts for as long as the group has members.
    fn is_of_the_past(&mut self, registration: &Registration) -> bool {
        let Registration { member, broker_name, broker_id, .. } = registration;
        let term = registration.table.data_version.state_version;
        let newest = self.master_terms.get(broker_name).copied();
        let is_new = newest.is_none_or(|newest| newest <= term) || KnownBad::LowerTermAccepted.is_on();
        if *broker_id != MASTER_ID || is_new {
            return false;
        }
        warn!(broker_name, peer = member.address, term, newest, "ignore a master of the past");
        let is_member = |group: &BrokerData| group.broker_addrs.values().any(|a| *a == member.address);
        if !self.brokers.get(broker_name).is_some_and(is_member) {
            self.lives.remove(member);
        }
        true
    }

    fn take_topics(&mut self, registration: &Registration, new: bool, read_only: bool) {
        let broker_name = &registration.broker_name;
        let table = &registration.table;
        if registration.replaces_topics && table.topic_queue_mapping_info_map.is_empty() {
            self.topics.retain(|topic, queues| {
                if !table.topic_config_table.contains_key(topic) && queues.remove(broker_name).is_some() {
                    debug!(broker_name, %topic, "remove a topic that its broker no longer has");
                }
                !queues.is_empty()
            });
        }
        let changed = new || self.data_version(&registration.member) != Some(table.data_version);
        if changed {
            // One line for all: this runs under the lock, and there may be thousands.
            info!(broker_name, topics = table.topic_config_table.len(), "a broker's topics changed");
        }
        for config in table.topic_config_table.values() {
            let queues = self.topics.get(&config.topic_name);
            if changed || !queues.is_some_and(|queues| queues.contains_key(broker_name)) {
                self.take_topic(broker_name, config, read_only);
            }
        }
        if changed {
            for (topic, mapping) in &table.topic_queue_mapping_info_map {
                let Some(name) = &mapping.bname else { continue };
                self.static_topics.entry(topic.clone()).or_default().insert(name.clone(), mapping.clone());
            }
        }
    }

    fn take_topic(&mut self, broker_name: &str, config: &TopicConfig, read_only: bool) {
        let queue = QueueData {
            broker_name: broker_name.to_owned(),
            perm: if read_only { config.perm.without(Perm::WRITE) } else { config.perm },
            read_queue_nums: config.read_queue_nums,
            topic_sys_flag: config.topic_sys_flag,
            write_queue_nums: config.write_queue_nums,
        };
        let topic: &Topic = &config.topic_name;
        if !self.topics.contains_key(topic) {
            if self.topics.len() >= TOPICS_MAX {
                warn!(broker_name, %topic, "leave out a topic, there are too many");
                return;
            }
            debug!(broker_name, %topic, "a new topic");
        }
        self.topics.entry(topic.clone()).or_default().insert(broker_name.to_owned(), queue);
    }

    /// Notes the sign of life and tells the broker what it has to know.
    fn finish(
        &mut self,
        registration: Registration,
        previous_min: i64,
        everybody: &BTreeMap<i64, String>,
    ) -> Registered {
        let Registration { member, broker_name, broker_id, ha_address, .. } = registration;
        let life = Life {
            seen_ms: registration.now_ms,
            silence_ms: registration.silence_ms.unwrap_or(SILENCE_MS),
            data_version: registration.table.data_version,
            connection: registration.connection,
            ha_address: ha_address.clone(),
        };
        if self.lives.insert(member.clone(), life).is_none() {
            info!(broker_name, broker_id, peer = member.address, "a new broker");
        }
        match registration.filter_servers {
            Some(servers) if servers.is_empty() => {
                self.filter_servers.remove(&member);
            }
            Some(servers) => {
                self.filter_servers.insert(member.clone(), servers);
            }
            None => {}
        }
        let mut registered = Registered::default();
        if broker_id != MASTER_ID
            && let Some(address) = everybody.get(&MASTER_ID)
        {
            let master = Member { cluster: member.cluster, address: address.clone() };
            if let Some(life) = self.lives.get(&master) {
                registered.ha_address.clone_from(&life.ha_address);
                registered.master_address = Some(master.address);
            }
        }
        if broker_id < previous_min
            && let Some((min_id, address)) = everybody.first_key_value()
        {
            let alone = everybody.len() == 1;
            let tell =
                everybody.iter().filter(|(id, _)| alone || *id != min_id).map(|(_, a)| a.clone()).collect();
            registered.change = Some(MinIdChange {
                broker_name,
                broker_id: *min_id,
                address: address.clone(),
                offline_address: None,
                ha_address,
                tell,
            });
        }
        registered
    }
}
