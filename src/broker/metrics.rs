//! The broker's numbers for Prometheus, collected when they are asked for.
//!
//! Names and labels are RocketMQ 5's where it has the metric (sources: `BrokerMetricsManager`,
//! `DefaultStoreMetricsManager`; the unit stands behind the name, as its exporter writes it), so that dashboards made
//! for it go on working. Those of the Raft group, of the disk and of latencies are ours.

use std::collections::BTreeMap;

use super::Broker;
use super::clients::{Client, ConsumerGroup};
use super::context::Context;
use super::progress::Progress;
use crate::metrics::{Labels, Metric, Page};
use crate::model::{Group, PhysicalOffset, Topic, system_topic};
use crate::remoting::body::ConsumeType;
use crate::remoting::version;
use crate::replication::{GroupStatus, ReplicaState};

const BUILD_INFO: Metric = Metric::gauge("rocketmq_build_info", "Always 1; the label names the version");
const BROKER_PERMISSION: Metric = Metric::gauge("rocketmq_broker_permission", "Broker permission");
const TOPIC_NUMBER: Metric = Metric::gauge("rocketmq_topic_number", "Active topic number");
const GROUP_NUMBER: Metric =
    Metric::gauge("rocketmq_consumer_group_number", "Active subscription group number");

const MESSAGES_IN: Metric =
    Metric::counter("rocketmq_messages_in_total", "Total number of incoming messages");
const MESSAGES_OUT: Metric =
    Metric::counter("rocketmq_messages_out_total", "Total number of outgoing messages");
const THROUGHPUT_IN: Metric =
    Metric::counter("rocketmq_throughput_in_total", "Total traffic of incoming messages");
const THROUGHPUT_OUT: Metric =
    Metric::counter("rocketmq_throughput_out_total", "Total traffic of outgoing messages");
const MESSAGE_SIZE: Metric = Metric::histogram("rocketmq_message_size", "Incoming messages size");
const PUT_LATENCY: Metric =
    Metric::histogram("rocketmq_put_latency_seconds", "From a send request to the commit of its messages");
const PUT_FAILED: Metric =
    Metric::counter("rocketmq_put_failed_total", "Sends whose messages were not committed");
const QUEUED_BYTES: Metric =
    Metric::gauge("rocketmq_put_queued_bytes", "Bytes of messages that wait to be appended");

const PRODUCER_CONNECTIONS: Metric = Metric::gauge("rocketmq_producer_connections", "Producer connections");
const CONSUMER_CONNECTIONS: Metric = Metric::gauge("rocketmq_consumer_connections", "Consumer connections");

const LAG_MESSAGES: Metric = Metric::gauge("rocketmq_consumer_lag_messages", "Consumer lag messages");
const LAG_LATENCY: Metric = Metric::gauge("rocketmq_consumer_lag_latency_milliseconds", "Consumer lag time");
const INFLIGHT_MESSAGES: Metric =
    Metric::gauge("rocketmq_consumer_inflight_messages", "Consumer inflight messages");
const QUEUEING_LATENCY: Metric =
    Metric::gauge("rocketmq_consumer_queueing_latency_milliseconds", "Consumer queueing time");
const READY_MESSAGES: Metric = Metric::gauge("rocketmq_consumer_ready_messages", "Consumer ready messages");

const WRITE_LATENCY: Metric =
    Metric::histogram("rocketmq_log_write_latency_seconds", "One write to the CommitLog");
const SYNC_LATENCY: Metric =
    Metric::histogram("rocketmq_log_sync_latency_seconds", "One sync of the CommitLog");
const COMMIT_LATENCY: Metric = Metric::histogram(
    "rocketmq_raft_commit_latency_seconds",
    "From the proposal of an entry by the leader until it is visible",
);
const DAMAGED: Metric = Metric::gauge(
    "rocketmq_log_damaged_records",
    "Records found damaged and not yet mended from another replica",
);
const STORAGE_SIZE: Metric = Metric::gauge("rocketmq_storage_size_bytes", "Broker storage size");
const FLUSH_BEHIND: Metric =
    Metric::gauge("rocketmq_storage_flush_behind_bytes", "Broker flush behind bytes");
const DISPATCH_BEHIND: Metric =
    Metric::gauge("rocketmq_storage_dispatch_behind_bytes", "Broker dispatch behind bytes");
const RESERVE_TIME: Metric =
    Metric::gauge("rocketmq_storage_message_reserve_time_milliseconds", "Broker message reserve time");
const STORAGE_FULL: Metric =
    Metric::gauge("rocketmq_storage_full", "1 while sends are refused because the disk is too full");
const LOG_MIN: Metric =
    Metric::gauge("rocketmq_commitlog_min_offset", "First retained byte of the CommitLog");
const LOG_MAX: Metric = Metric::gauge("rocketmq_commitlog_max_offset", "End of the committed CommitLog");

const RAFT_ROLE: Metric = Metric::gauge("rocketmq_raft_role", "1 for the role that the replica has");
const RAFT_TERM: Metric = Metric::gauge("rocketmq_raft_term", "Term of the replica");
const RAFT_FIRST: Metric = Metric::gauge("rocketmq_raft_log_first_index", "First retained entry");
const RAFT_LAST: Metric = Metric::gauge("rocketmq_raft_log_last_index", "Last entry in the log");
const RAFT_COMMIT: Metric = Metric::gauge("rocketmq_raft_commit_index", "Last entry known to be committed");
const RAFT_APPLIED: Metric = Metric::gauge("rocketmq_raft_applied_index", "Last entry visible to readers");
const RAFT_SNAPSHOT: Metric = Metric::gauge("rocketmq_raft_snapshot_index", "Last entry of the snapshot");
const RAFT_LOG_END: Metric =
    Metric::gauge("rocketmq_raft_log_end_offset", "End of the CommitLog, committed or not");
const RAFT_CHANGES: Metric =
    Metric::counter("rocketmq_raft_leader_changes_total", "Changes of the leader that the replica saw");
const RAFT_QUORUM: Metric =
    Metric::gauge("rocketmq_raft_quorum_available", "1 if the replica leads or knows who does");
const RAFT_QUORUM_AGE: Metric =
    Metric::gauge("rocketmq_raft_quorum_age_seconds", "Time since a majority last answered the leader");
const RAFT_VOTER: Metric = Metric::gauge("rocketmq_raft_peer_voter", "1 for a voter, 0 for a learner");
const RAFT_LAG: Metric =
    Metric::gauge("rocketmq_raft_replication_lag_entries", "Entries that a peer lacks, as the leader knows");

/// All roles, as samples of which one is 1.
const ROLES: [ReplicaState; 6] = [
    ReplicaState::Leader,
    ReplicaState::LeaderNotReady,
    ReplicaState::Follower,
    ReplicaState::Candidate,
    ReplicaState::Learner,
    ReplicaState::Outside,
];
const CONSUMER_GROUP: &str = "consumer_group";
const IS_SYSTEM: &str = "is_system";
const TOPIC: &str = "topic";

/// Adds the broker's metrics to a page. Blocks on the disk.
pub(super) fn collect(broker: &Broker, page: &mut Page) {
    let context = &broker.context;
    let labels = labels(context);
    add_broker(context, &labels, page);
    add_traffic(broker, &labels, page);
    add_connections(broker, &labels, page);
    add_lags(broker, &labels, page);
    add_store(context, &labels, page);
    if let Some(status) = context.replication.status() {
        add_group(&status, &labels, page);
    }
}

/// Returns the labels of all samples of a broker: those of `metricsLabel`, and what tells brokers apart.
fn labels(context: &Context) -> Labels {
    let config = context.config();
    let mut labels = Labels::default();
    for (name, value) in config.metrics_label.split(',').filter_map(|pair| pair.split_once(':')) {
        labels = labels.and(name.trim(), value.trim());
    }
    labels
        .and("node_type", "broker")
        .and("cluster", &config.broker_cluster_name)
        .and("node_id", &config.broker_name)
}

fn add_broker(context: &Context, labels: &Labels, page: &mut Page) {
    page.sample(&BUILD_INFO, &labels.and("version", env!("CARGO_PKG_VERSION")), 1);
    page.sample(&BROKER_PERMISSION, labels, context.config().broker_permission);
    page.sample(&TOPIC_NUMBER, labels, context.metadata.topics().all().len());
    page.sample(&GROUP_NUMBER, labels, context.metadata.groups().all().len());
}

/// What clients send and get. As in Java, retries and dead letters are neither messages in nor messages out.
fn add_traffic(broker: &Broker, labels: &Labels, page: &mut Page) {
    let is_new = |topic: &Topic| !topic.is_retry() && !topic.is_dlq();
    for totals in broker.stats.by_topic().into_iter().filter(|totals| is_new(&totals.topic)) {
        let of_topic = labels.and(TOPIC, &totals.topic);
        let is_system = system_topic::is_system(totals.topic.as_str());
        for (message_type, messages, bytes) in totals.put {
            let labels = of_topic.and("message_type", message_type.name()).and(IS_SYSTEM, is_system);
            page.sample(&MESSAGES_IN, &labels, messages);
            page.sample(&THROUGHPUT_IN, &labels, bytes);
        }
        for (group, messages, bytes) in totals.got {
            let is_system = is_system || is_system_group(&group);
            let labels = of_topic.and(CONSUMER_GROUP, &group).and(IS_SYSTEM, is_system);
            page.sample(&MESSAGES_OUT, &labels, messages);
            page.sample(&THROUGHPUT_OUT, &labels, bytes);
        }
    }
    for (message_type, sizes) in broker.stats.sizes() {
        page.histogram(&MESSAGE_SIZE, &labels.and("message_type", message_type.name()), &sizes);
    }
    page.histogram(&PUT_LATENCY, labels, &broker.stats.put_latency());
    page.sample(&PUT_FAILED, labels, broker.stats.summary().put_failed);
    page.sample(&QUEUED_BYTES, labels, broker.context.replication.queued_bytes());
}

fn add_connections(broker: &Broker, labels: &Labels, page: &mut Page) {
    let labels = labels.and("protocol_type", "remoting");
    let mut producers = BTreeMap::new();
    for client in broker.clients.all_producers().values().flatten() {
        *producers.entry(language_and_version(client)).or_insert(0) += 1;
    }
    for ((language, version), count) in producers {
        let labels = labels.and("language", language).and("version", version);
        page.sample(&PRODUCER_CONNECTIONS, &labels, count);
    }
    for (name, group) in broker.clients.all_consumers() {
        let mut members = BTreeMap::new();
        for client in group.members.values() {
            *members.entry(language_and_version(client)).or_insert(0) += 1;
        }
        let labels = labels
            .and(CONSUMER_GROUP, &name)
            .and("consume_mode", consume_mode(&group))
            .and(IS_SYSTEM, is_system_group(&name));
        for ((language, version), count) in members {
            let labels = labels.and("language", language).and("version", version);
            page.sample(&CONSUMER_CONNECTIONS, &labels, count);
        }
    }
}

fn language_and_version(client: &Client) -> (String, String) {
    (client.language.name().to_lowercase(), version::name(client.version).to_lowercase())
}

fn consume_mode(group: &ConsumerGroup) -> &'static str {
    match group.consume_type {
        ConsumeType::Actively => "pull",
        ConsumeType::Passively => "push",
        ConsumeType::Pop => "pop",
        ConsumeType::Unknown => "unknown",
    }
}

fn add_lags(broker: &Broker, labels: &Labels, page: &mut Page) {
    for lag in Progress::of(broker).lags() {
        let is_system = system_topic::is_system(lag.topic.as_str()) || is_system_group(&lag.group);
        let labels = labels
            .and(CONSUMER_GROUP, &lag.group)
            .and(TOPIC, &lag.topic)
            .and("is_retry", false)
            .and(IS_SYSTEM, is_system);
        page.sample(&LAG_MESSAGES, &labels, lag.messages);
        page.sample(&LAG_LATENCY, &labels, lag.latency_ms);
        page.sample(&INFLIGHT_MESSAGES, &labels, lag.inflight);
        page.sample(&QUEUEING_LATENCY, &labels, lag.queueing_ms);
        page.sample(&READY_MESSAGES, &labels, lag.ready);
    }
}

fn add_store(context: &Context, labels: &Labels, page: &mut Page) {
    let store = context.store();
    let log = store.log();
    let behind = |from: PhysicalOffset, to: PhysicalOffset| to.0.saturating_sub(from.0);
    // As Java's: all that is used of the file system, whoever uses it.
    if let Ok(usage) = context.disk.usage(&store.config().root) {
        page.sample(&STORAGE_SIZE, labels, usage.used_bytes);
    }
    page.sample(&FLUSH_BEHIND, labels, behind(log.flushed(), log.written()));
    page.sample(&DISPATCH_BEHIND, labels, behind(store.dispatched(), log.committed()));
    if let Some(stored_ms) = store.store_timestamp(log.min()).filter(|stored_ms| *stored_ms > 0) {
        page.sample(&RESERVE_TIME, labels, context.clock.now_ms() - stored_ms);
    }
    page.histogram(&WRITE_LATENCY, labels, &store.latencies().write.counts());
    page.histogram(&SYNC_LATENCY, labels, &store.latencies().sync.counts());
    if let Some(commits) = context.replication.commit_latency() {
        page.histogram(&COMMIT_LATENCY, labels, &commits.counts());
    }
    page.sample(&DAMAGED, labels, store.damages().len());
    page.sample(&STORAGE_FULL, labels, u8::from(store.is_full()));
    page.sample(&LOG_MIN, labels, log.min());
    page.sample(&LOG_MAX, labels, log.committed());
}

fn add_group(status: &GroupStatus, labels: &Labels, page: &mut Page) {
    let labels = labels.and("replica", format_args!("n{}", status.id));
    for role in ROLES {
        page.sample(&RAFT_ROLE, &labels.and("role", role.name()), u8::from(role == status.state));
    }
    page.sample(&RAFT_TERM, &labels, status.term);
    page.sample(&RAFT_FIRST, &labels, status.first_index);
    page.sample(&RAFT_LAST, &labels, status.last_index);
    page.sample(&RAFT_COMMIT, &labels, status.committed_index);
    page.sample(&RAFT_APPLIED, &labels, status.applied_index);
    if let Some(index) = status.snapshot_index {
        page.sample(&RAFT_SNAPSHOT, &labels, index);
    }
    page.sample(&RAFT_LOG_END, &labels, status.log_end);
    page.sample(&RAFT_CHANGES, &labels, status.leader_changes);
    let available = match status.state {
        ReplicaState::Leader => true,
        ReplicaState::Follower | ReplicaState::Learner => status.leader.is_some(),
        ReplicaState::LeaderNotReady | ReplicaState::Candidate | ReplicaState::Outside => false,
    };
    page.sample(&RAFT_QUORUM, &labels, u8::from(available));
    if let Some(ms) = status.quorum_age_ms {
        page.sample(&RAFT_QUORUM_AGE, &labels, ms as f64 / 1000.0);
    }
    for member in &status.members {
        let labels = labels.and("peer", format_args!("n{}", member.id));
        page.sample(&RAFT_VOTER, &labels, u8::from(member.voter));
        if let Some(lag) = member.lag {
            page.sample(&RAFT_LAG, &labels, lag);
        }
    }
}

/// Source: RocketMQ `BrokerMetricsManager.isSystemGroup`.
fn is_system_group(group: &Group) -> bool {
    group.as_str().to_lowercase().starts_with("cid_rmq_sys_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LogIndex, Term};
    use crate::replication::MemberStatus;

    #[test]
    fn a_leader_shows_its_role_and_what_its_peers_lack() {
        let member = |id, voter, lag| MemberStatus {
            heard_ms: None,
            id,
            raft_address: format!("10.0.0.{id}:40911"),
            voter,
            matched_index: None,
            lag,
        };
        let status = GroupStatus {
            group: "broker-a".into(),
            id: 1,
            state: ReplicaState::Leader,
            outside_reason: None,
            term: Term(4),
            leader: Some(1),
            leader_address: None,
            first_index: LogIndex(1),
            last_index: LogIndex(9),
            committed_index: LogIndex(8),
            applied_index: LogIndex(7),
            snapshot_index: None,
            log_min: PhysicalOffset(0),
            log_end: PhysicalOffset(512),
            quorum_age_ms: Some(1500),
            leader_changes: 2,
            members: vec![member(1, true, None), member(2, false, Some(5))],
        };
        let mut page = Page::new(100);
        add_group(&status, &Labels::default().and("node_id", "broker-a"), &mut page);
        let text = page.text();
        for line in [
            r#"rocketmq_raft_role{node_id="broker-a",replica="n1",role="LEADER"} 1"#,
            r#"rocketmq_raft_role{node_id="broker-a",replica="n1",role="FOLLOWER"} 0"#,
            r#"rocketmq_raft_term{node_id="broker-a",replica="n1"} 4"#,
            r#"rocketmq_raft_commit_index{node_id="broker-a",replica="n1"} 8"#,
            r#"rocketmq_raft_leader_changes_total{node_id="broker-a",replica="n1"} 2"#,
            r#"rocketmq_raft_quorum_age_seconds{node_id="broker-a",replica="n1"} 1.5"#,
            r#"rocketmq_raft_peer_voter{node_id="broker-a",replica="n1",peer="n2"} 0"#,
            r#"rocketmq_raft_replication_lag_entries{node_id="broker-a",replica="n1",peer="n2"} 5"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("rocketmq_raft_snapshot_index"));
        assert!(!text.contains(r#"lag_entries{node_id="broker-a",replica="n1",peer="n1"}"#));
    }
}
