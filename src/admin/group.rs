//! `updateSubGroup`, `deleteSubGroup`, `consumerProgress`.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::broker::Where;
use super::connection::java_name;
use super::output::{Output, front};
use super::session::{CALL_TIMEOUT, Session, accept, preferred};
use super::time::timestamp_s;
use super::topic::{delete_from_brokers, delete_from_name_servers, java_map, parse_attributes};
use crate::model::{Group, MessageQueue, SubscriptionGroupConfig, Topic};
use crate::remoting::body::{ConsumeStats, ConsumeType, ConsumerConnection, TopicRouteData};
use crate::remoting::header::{
    DeleteSubscriptionGroupRequestHeader, GetConsumeStatsRequestHeader, GetConsumerRunningInfoRequestHeader,
};
use crate::remoting::{Command, RequestCode, version};

/// Options of `updateSubGroup`.
#[derive(Debug, clap::Args)]
pub(super) struct UpdateSubGroup {
    #[command(flatten)]
    target: Where,
    /// The consumer group
    #[arg(short = 'g', long = "groupName")]
    group: String,
    /// Whether it may consume
    #[arg(short = 's', long = "consumeEnable")]
    consume_enable: Option<bool>,
    /// Whether it may start at the first message
    #[arg(short = 'm', long = "consumeFromMinEnable")]
    consume_from_min_enable: Option<bool>,
    /// Whether it may broadcast
    #[arg(short = 'd', long = "consumeBroadcastEnable")]
    consume_broadcast_enable: Option<bool>,
    /// Whether it consumes in order
    #[arg(short = 'o', long = "consumeMessageOrderly")]
    consume_message_orderly: Option<bool>,
    /// Queues of its retry topic
    #[arg(short = 'q', long = "retryQueueNums")]
    retry_queue_nums: Option<i32>,
    /// Deliveries after which a message goes to the dead-letter queue
    #[arg(short = 'r', long = "retryMaxTimes")]
    retry_max_times: Option<i32>,
    /// Retry policy as JSON: {"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[1000,5000]}}
    #[arg(short = 'p', long = "groupRetryPolicy")]
    group_retry_policy: Option<String>,
    /// Broker id that it consumes from
    #[arg(short = 'i', long = "brokerId")]
    broker_id: Option<i64>,
    /// Broker id that it is sent to when it is slow
    #[arg(short = 'w', long = "whichBrokerWhenConsumeSlowly")]
    which_broker_when_consume_slowly: Option<i64>,
    /// Whether its clients are told of changes among them
    #[arg(short = 'a', long = "notifyConsumerIdsChanged")]
    notify_consumer_ids_changed: Option<bool>,
    /// Changes of attributes, +key=value,-key
    #[arg(long = "attributes", allow_hyphen_values = true)]
    attributes: Option<String>,
}

impl UpdateSubGroup {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let config = self.config()?;
        let mut body = serde_json::to_value(&config)?;
        if let Some(text) = &self.group_retry_policy {
            // The model keeps the kind only; what brokers get is what was typed.
            body["groupRetryPolicy"] = serde_json::from_str(text).context("read groupRetryPolicy")?;
        }
        let request = Command::request(RequestCode::UpdateAndCreateSubscriptiongroup).with_json(&body);
        let mut updated = Vec::new();
        for address in self.target.masters(session).await? {
            match session.ask(&address, request.clone()).await {
                Ok(_) => {
                    out.line(format_args!("create subscription group to {address} success."))?;
                    updated.push(address);
                }
                Err(error) => out.problem(&error),
            }
        }
        out.line(describe(&config))?;
        out.json(&json!({ "group": body, "updated": updated }))
    }

    /// Returns the settings that are sent; what is not given has the default of Java's tool.
    fn config(&self) -> Result<SubscriptionGroupConfig> {
        let default = SubscriptionGroupConfig::new(Group::new(self.group.trim()));
        Ok(SubscriptionGroupConfig {
            attributes: parse_attributes(self.attributes.as_deref().unwrap_or_default())?,
            broker_id: self.broker_id.unwrap_or(default.broker_id),
            consume_broadcast_enable: self.consume_broadcast_enable.unwrap_or(false),
            consume_enable: self.consume_enable.unwrap_or(default.consume_enable),
            consume_from_min_enable: self.consume_from_min_enable.unwrap_or(false),
            consume_message_orderly: self.consume_message_orderly.unwrap_or(default.consume_message_orderly),
            notify_consumer_ids_changed_enable: self
                .notify_consumer_ids_changed
                .unwrap_or(default.notify_consumer_ids_changed_enable),
            retry_max_times: self.retry_max_times.unwrap_or(default.retry_max_times),
            retry_queue_nums: self.retry_queue_nums.unwrap_or(default.retry_queue_nums),
            which_broker_when_consume_slowly: self
                .which_broker_when_consume_slowly
                .unwrap_or(default.which_broker_when_consume_slowly),
            ..default
        })
    }
}

/// Writes a group as Java's `SubscriptionGroupConfig.toString`.
fn describe(config: &SubscriptionGroupConfig) -> String {
    let policy = config.group_retry_policy.as_ref().map_or("null".into(), |policy| {
        format!(
            "GroupRetryPolicy{{type={}, exponentialRetryPolicy=null, customizedRetryPolicy=null}}",
            policy.kind
        )
    });
    format!(
        "SubscriptionGroupConfig{{groupName={}, consumeEnable={}, consumeFromMinEnable={}, \
         consumeBroadcastEnable={}, consumeMessageOrderly={}, retryQueueNums={}, retryMaxTimes={}, \
         groupRetryPolicy={policy}, brokerId={}, whichBrokerWhenConsumeSlowly={}, \
         notifyConsumerIdsChangedEnable={}, groupSysFlag={}, consumeTimeoutMinute={}, \
         subscriptionDataSet=null, attributes={}}}",
        config.group_name,
        config.consume_enable,
        config.consume_from_min_enable,
        config.consume_broadcast_enable,
        config.consume_message_orderly,
        config.retry_queue_nums,
        config.retry_max_times,
        config.broker_id,
        config.which_broker_when_consume_slowly,
        config.notify_consumer_ids_changed_enable,
        config.group_sys_flag,
        config.consume_timeout_minute,
        java_map(&config.attributes)
    )
}

/// Options of `deleteSubGroup`.
#[derive(Debug, clap::Args)]
pub(super) struct DeleteSubGroup {
    #[command(flatten)]
    target: Where,
    /// The consumer group
    #[arg(short = 'g', long = "groupName")]
    group: String,
    /// Its offsets too
    #[arg(short = 'r', long = "removeOffset")]
    remove_offset: Option<bool>,
}

impl DeleteSubGroup {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let group = Group::new(self.group.trim());
        let clean_offset = self.remove_offset.unwrap_or(false);
        let header = DeleteSubscriptionGroupRequestHeader { group_name: group.clone(), clean_offset };
        let request = Command::request(RequestCode::DeleteSubscriptiongroup).with_header(&header);
        let masters = self.target.masters(session).await?;
        let cluster = self.target.cluster.as_deref().map(str::trim);
        for address in &masters {
            session.ask(address, request.clone()).await?;
            match cluster {
                Some(cluster) => out.line(format_args!(
                    "delete subscription group [{group}] from broker [{address}] in cluster [{cluster}] success."
                ))?,
                None => out.line(format_args!(
                    "delete subscription group [{group}] from broker [{address}] success."
                ))?,
            }
        }
        if let Some(cluster) = cluster {
            for topic in [Topic::retry_of(&group), Topic::dlq_of(&group)] {
                delete_from_brokers(session, cluster, &topic).await?;
                delete_from_name_servers(session, cluster, &topic).await?;
            }
        }
        out.json(&json!({ "group": group, "deletedFrom": masters }))
    }
}

/// Options of `consumerProgress`.
#[derive(Debug, clap::Args)]
pub(super) struct ConsumerProgress {
    /// One group, queue by queue; else all groups
    #[arg(short = 'g', long = "groupName")]
    group: Option<String>,
    /// One topic of the group
    #[arg(short = 't', long = "topicName")]
    topic: Option<String>,
    /// Whether to show which client has a queue
    #[arg(short = 's', long = "showClientIP")]
    show_client: Option<bool>,
    /// A topic whose route to take
    #[arg(short = 'c', long = "cluster")]
    cluster: Option<String>,
}

/// How far a group is in one queue.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueProgress {
    topic: Topic,
    broker_name: String,
    queue_id: i32,
    broker_offset: i64,
    consumer_offset: i64,
    diff: i64,
    inflight: i64,
    last_timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
}

/// How far a group is in all.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupProgress {
    group: Group,
    clients: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consume_type: Option<ConsumeType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_model: Option<String>,
    consume_tps: f64,
    diff_total: i64,
}

impl ConsumerProgress {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        match &self.group {
            Some(group) => self.one(session, out, &Group::new(group.trim())).await,
            None => all(session, out).await,
        }
    }

    async fn one(&self, session: &Session, out: &mut Output<'_>, group: &Group) -> Result<()> {
        let topic = self.topic.as_deref().map(|topic| Topic::new(topic.trim()));
        let stats = consume_stats(session, group, topic.as_ref(), self.cluster.as_deref()).await?;
        if stats.offset_table.is_empty() {
            bail!("the group {group} has consumed nothing, or no broker knows it");
        }
        let show_client = self.show_client.unwrap_or(false);
        let clients = if show_client { clients_of_queues(session, group).await? } else { BTreeMap::new() };
        let rows: Vec<_> = stats
            .offset_table
            .into_iter()
            .map(|(queue, offsets)| QueueProgress {
                diff: offsets.broker_offset - offsets.consumer_offset,
                inflight: offsets.pull_offset - offsets.consumer_offset,
                broker_offset: offsets.broker_offset,
                consumer_offset: offsets.consumer_offset,
                last_timestamp: offsets.last_timestamp,
                client: clients.get(&queue).cloned(),
                topic: queue.topic,
                broker_name: queue.broker_name,
                queue_id: queue.queue_id,
            })
            .collect();
        print_queues(&rows, show_client, out)?;
        let diff_total: i64 = rows.iter().map(|row| row.diff).sum();
        let inflight_total: i64 = rows.iter().map(|row| row.inflight).sum();
        out.line(format_args!("\nConsume TPS: {:.2}", stats.consume_tps))?;
        out.line(format_args!("Consume Diff Total: {diff_total}"))?;
        out.line(format_args!("Consume Inflight Total: {inflight_total}"))?;
        out.json(&json!({
            "group": group, "queues": rows, "consumeTps": stats.consume_tps, "diffTotal": diff_total,
            "inflightTotal": inflight_total,
        }))
    }
}

fn print_queues(rows: &[QueueProgress], show_client: bool, out: &mut Output<'_>) -> Result<()> {
    let client_column = if show_client { format!("{:<20} ", "#Client IP") } else { String::new() };
    out.line(format_args!(
        "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {client_column}{:<20} {:<20}{}",
        "#Topic",
        "#Broker Name",
        "#QID",
        "#Broker Offset",
        "#Consumer Offset",
        "#Diff",
        "#Inflight",
        "#LastTime"
    ))?;
    for row in rows {
        let client = row.client.as_deref().unwrap_or("N/A");
        let client = if show_client { format!("{client:<20} ") } else { String::new() };
        let last = if row.last_timestamp == 0 { "N/A".into() } else { timestamp_s(row.last_timestamp) };
        out.line(format_args!(
            "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {client}{:<20} {:<20} {last}",
            front(row.topic.as_str(), 64),
            front(&row.broker_name, 32),
            row.queue_id,
            row.broker_offset,
            row.consumer_offset,
            row.diff,
            row.inflight
        ))?;
    }
    Ok(())
}

async fn all(session: &Session, out: &mut Output<'_>) -> Result<()> {
    out.line(format_args!(
        "{:<64}  {:<6}  {:<24} {:<5}  {:<14}  {:<7}  {}",
        "#Group", "#Count", "#Version", "#Type", "#Model", "#TPS", "#Diff Total"
    ))?;
    let mut rows = Vec::new();
    for group in session.topics().await?.iter().filter_map(Topic::retry_group) {
        // A group without offsets or clients is a row of zeros, not an error.
        let stats = consume_stats(session, &group, None, None).await.unwrap_or_default();
        let consumers = session.consumers(&group, None).await.ok();
        let row = progress(group, &stats, consumers.filter(|list| !list.connection_set.is_empty()));
        let kind = match row.consume_type {
            None => "",
            Some(ConsumeType::Actively) => "PULL",
            Some(_) => "PUSH",
        };
        out.line(format_args!(
            "{:<64}  {:<6}  {:<24} {kind:<5}  {:<14}  {:<7.0}  {}",
            front(row.group.as_str(), 64),
            row.clients,
            row.version.as_deref().unwrap_or("OFFLINE"),
            row.message_model.as_deref().unwrap_or_default(),
            row.consume_tps.trunc(),
            row.diff_total
        ))?;
        rows.push(row);
    }
    out.json(&rows)
}

fn progress(group: Group, stats: &ConsumeStats, consumers: Option<ConsumerConnection>) -> GroupProgress {
    let clients = consumers.as_ref().map_or(0, |list| list.connection_set.len());
    let oldest =
        consumers.as_ref().and_then(|list| list.connection_set.iter().map(|client| client.version).min());
    let consume_type = consumers.as_ref().map(|list| list.consume_type);
    let pushes = consumers.filter(|list| list.consume_type == ConsumeType::Passively);
    GroupProgress {
        group,
        clients,
        version: oldest.map(version::name),
        consume_type,
        message_model: pushes.map(|list| java_name(&list.message_model)),
        consume_tps: stats.consume_tps,
        diff_total: stats.offset_table.values().map(|o| o.broker_offset - o.consumer_offset).sum(),
    }
}

/// Asks all brokers that have the group how far it is.
pub(super) async fn consume_stats(
    session: &Session,
    group: &Group,
    topic: Option<&Topic>,
    route_of: Option<&str>,
) -> Result<ConsumeStats> {
    let route = group_route(session, group, topic, route_of).await?;
    let header = GetConsumeStatsRequestHeader {
        consumer_group: group.clone(),
        topic: topic.cloned(),
        topic_list: None,
    };
    let request = Command::request(RequestCode::GetConsumeStats).with_header(&header);
    let mut all = ConsumeStats::default();
    for address in route.broker_datas.iter().filter_map(preferred) {
        // Brokers look at every queue of the group: Java waits three times as long too.
        let answer = session.call(&address, request.clone(), CALL_TIMEOUT * 3).await?;
        let stats: ConsumeStats = accept(&address, answer)?.json().context("read consume stats")?;
        all.offset_table.extend(stats.offset_table);
        all.consume_tps += stats.consume_tps;
    }
    Ok(all)
}

/// Returns the route of the group's retry topic, else that of the topic or its POP retry topic.
async fn group_route(
    session: &Session,
    group: &Group,
    topic: Option<&Topic>,
    route_of: Option<&str>,
) -> Result<TopicRouteData> {
    let mut candidates = vec![Topic::retry_of(group)];
    if let Some(topic) = topic {
        candidates.push(topic.clone());
        candidates.push(Topic::from(format!("%RETRY%{group}_{topic}")));
    }
    candidates.extend(route_of.map(|name| Topic::new(name.trim())));
    let mut failure = None;
    for candidate in &candidates {
        match session.route(candidate).await {
            Ok(route) => return Ok(route),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    Err(failure.unwrap_or_else(|| anyhow::anyhow!("no broker knows the group {group}")))
}

/// What a consumer says of itself; only its queues are read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RunningInfo {
    #[serde(default)]
    mq_table: BTreeMap<MessageQueue, IgnoredAny>,
}

/// Asks every client of a group which queues it has; returns the clients' addresses.
async fn clients_of_queues(session: &Session, group: &Group) -> Result<BTreeMap<MessageQueue, String>> {
    let route = session.route(&Topic::retry_of(group)).await?;
    let Some(address) = route.broker_datas.iter().find_map(preferred) else { return Ok(BTreeMap::new()) };
    let mut clients = BTreeMap::new();
    for client in session.consumers(group, Some(&address)).await?.connection_set {
        let header = GetConsumerRunningInfoRequestHeader {
            consumer_group: group.clone(),
            client_id: client.client_id.clone(),
            jstack_enable: false,
        };
        let request = Command::request(RequestCode::GetConsumerRunningInfo).with_header(&header);
        // A client that does not answer has no queues in the table.
        let Ok(info) = session.read::<RunningInfo>(&address, request).await else { continue };
        let ip = client.client_id.split('@').next().unwrap_or_default();
        clients.extend(info.mq_table.into_keys().map(|queue| (queue, ip.to_owned())));
    }
    Ok(clients)
}
