//! Commands about topics.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, bail};
use serde_json::json;

use super::broker::Where;
use super::namesrv::put_kv;
use super::output::{Output, front};
use super::session::{Refused, Session};
use super::time::timestamp;
use crate::model::{MessageQueue, Perm, Topic, TopicConfig, system_topic};
use crate::remoting::body::{ClusterInfo, TopicOffset, TopicRouteData, TopicStatsTable};
use crate::remoting::header::{
    CreateTopicRequestHeader, DeleteTopicFromNamesrvRequestHeader, DeleteTopicRequestHeader,
    GetKvConfigResponseHeader, GetTopicStatsInfoRequestHeader, KvConfigRequestHeader,
};
use crate::remoting::json::{self, Style};
use crate::remoting::{Command, RequestCode, ResponseCode};

/// Namespace of the key-value table in which the order of ordered topics is kept.
const ORDER_NAMESPACE: &str = "ORDER_TOPIC_CONFIG";

/// Options of `updateTopic`.
#[derive(Debug, clap::Args)]
pub(super) struct UpdateTopic {
    #[command(flatten)]
    target: Where,
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
    /// Changes of attributes, +key=value,-key
    #[arg(short = 'a', long = "attributes", allow_hyphen_values = true)]
    attributes: Option<String>,
    /// Queues that are read
    #[arg(short = 'r', long = "readQueueNums", default_value_t = 8)]
    read_queue_nums: u32,
    /// Queues that are written
    #[arg(short = 'w', long = "writeQueueNums", default_value_t = 8)]
    write_queue_nums: u32,
    /// Permission: 2 write, 4 read, 6 both
    #[arg(short = 'p', long = "perm", default_value_t = 6)]
    perm: i32,
    /// Ordered topic
    #[arg(short = 'o', long = "order", default_value_t = false, action = clap::ArgAction::Set)]
    order: bool,
    /// Unit topic
    #[arg(short = 'u', long = "unit", default_value_t = false, action = clap::ArgAction::Set)]
    unit: bool,
    /// Has subscriptions of units
    #[arg(short = 's', long = "hasUnitSub", default_value_t = false, action = clap::ArgAction::Set)]
    has_unit_sub: bool,
}

impl UpdateTopic {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let config = self.config()?;
        let masters = self.target.masters(session).await?;
        for address in &masters {
            put_topic(session, address, &config).await?;
            if self.target.broker.is_some() && self.order {
                self.put_order(session, out).await?;
            }
            out.line(format_args!("create topic to {address} success."))?;
        }
        if self.target.broker.is_none() && self.order {
            self.put_order(session, out).await?;
        }
        out.line(describe(&config))?;
        out.json(&json!({ "topic": config, "updated": masters }))
    }

    fn config(&self) -> Result<TopicConfig> {
        const UNIT: i32 = 1;
        const UNIT_SUB: i32 = 2;
        Ok(TopicConfig {
            attributes: parse_attributes(self.attributes.as_deref().unwrap_or_default())?,
            order: self.order,
            perm: Perm(self.perm),
            read_queue_nums: self.read_queue_nums,
            topic_name: Topic::new(self.topic.trim()),
            topic_sys_flag: i32::from(self.unit) * UNIT + i32::from(self.has_unit_sub) * UNIT_SUB,
            write_queue_nums: self.write_queue_nums,
            ..TopicConfig::default()
        })
    }

    /// Notes the order of the queues, which is `broker:queues;broker:queues`, at the name servers.
    async fn put_order(&self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let topic = self.topic.trim();
        let queues = self.write_queue_nums;
        let (what, order) = match (&self.target.broker, &self.target.cluster) {
            (Some(address), _) => {
                let broker = broker_name(&session.cluster_info().await?, address.trim())?;
                let mut order = order_of(session, topic).await?;
                order.insert(broker.clone(), format!("{broker}:{queues}"));
                ("broker", order.into_values().collect::<Vec<_>>().join(";"))
            }
            (None, cluster) => {
                let groups = session.groups_of(cluster.as_deref().unwrap_or_default().trim()).await?;
                let order: Vec<_> =
                    groups.iter().map(|group| format!("{}:{queues}", group.broker_name)).collect();
                ("cluster", order.join(";"))
            }
        };
        put_kv(session, ORDER_NAMESPACE, topic, &order).await?;
        out.line(format_args!("set {what} orderConf. isOrder=true, orderConf=[{order}]"))?;
        Ok(())
    }
}

/// Makes or changes a topic on one broker.
pub(super) async fn put_topic(session: &Session, address: &str, config: &TopicConfig) -> Result<()> {
    let attributes = config.attributes.iter().map(|(key, value)| match value.as_str() {
        "" => key.clone(),
        value => format!("{key}={value}"),
    });
    let header = CreateTopicRequestHeader {
        topic: config.topic_name.clone(),
        default_topic: Some(Topic::new(system_topic::AUTO_CREATE)),
        read_queue_nums: i32::try_from(config.read_queue_nums)?,
        write_queue_nums: i32::try_from(config.write_queue_nums)?,
        perm: config.perm.0,
        topic_filter_type: Some(config.topic_filter_type.clone()),
        topic_sys_flag: Some(config.topic_sys_flag),
        order: config.order,
        attributes: Some(attributes.collect::<Vec<_>>().join(",")),
        force: false,
    };
    session.ask(address, Command::request(RequestCode::UpdateAndCreateTopic).with_header(&header)).await?;
    Ok(())
}

async fn order_of(session: &Session, topic: &str) -> Result<BTreeMap<String, String>> {
    let header = KvConfigRequestHeader { namespace: ORDER_NAMESPACE.into(), key: topic.into() };
    let request = Command::request(RequestCode::GetKvConfig).with_header(&header);
    let value = match session.ask_name_server(request).await {
        Ok((_, answer)) => answer.header::<GetKvConfigResponseHeader>()?.value.unwrap_or_default(),
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.is(ResponseCode::QueryNotFound) => String::new(),
            _ => return Err(error),
        },
    };
    let entries = value.split(';').filter_map(|entry| Some((entry.split_once(':')?.0, entry)));
    Ok(entries.map(|(broker, entry)| (broker.to_owned(), entry.to_owned())).collect())
}

fn broker_name(info: &ClusterInfo, address: &str) -> Result<String> {
    let named = |addresses: &BTreeMap<i64, String>| addresses.values().any(|known| known == address);
    let group = info.broker_addr_table.values().find(|group| named(&group.broker_addrs));
    let group = group.ok_or_else(|| anyhow!("no name server knows the broker {address}"))?;
    Ok(group.broker_name.clone())
}

/// Reads `+key=value,-key`; keys keep their signs. Source: RocketMQ `AttributeParser`.
pub(super) fn parse_attributes(text: &str) -> Result<BTreeMap<String, String>> {
    let mut attributes = BTreeMap::new();
    for change in text.split(',').map(str::trim).filter(|change| !change.is_empty()) {
        let (key, value) = change.split_once('=').unwrap_or((change, ""));
        let sign = if change.contains('=') { '+' } else { '-' };
        if !key.starts_with(sign) {
            bail!("{change}: expected +key=value or -key");
        }
        if attributes.insert(key.to_owned(), value.to_owned()).is_some() {
            bail!("{change}: the key is there twice");
        }
    }
    Ok(attributes)
}

/// Writes a topic as Java's `TopicConfig.toString`.
fn describe(config: &TopicConfig) -> String {
    format!(
        "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={}, topicFilterType={}, \
         topicSysFlag={}, order={}, attributes={}]",
        config.topic_name,
        config.read_queue_nums,
        config.write_queue_nums,
        letters(config.perm),
        config.topic_filter_type,
        config.topic_sys_flag,
        config.order,
        java_map(&config.attributes)
    )
}

fn letters(perm: Perm) -> String {
    let letter = |on, letter| if on { letter } else { '-' };
    [letter(perm.readable(), 'R'), letter(perm.writable(), 'W'), letter(perm.inheritable(), 'X')]
        .iter()
        .collect()
}

/// Writes a map as Java's `toString`.
pub(super) fn java_map(map: &BTreeMap<String, String>) -> String {
    let entries: Vec<_> = map.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{{{}}}", entries.join(", "))
}

/// Options of `updateTopicPerm`.
#[derive(Debug, clap::Args)]
pub(super) struct UpdateTopicPerm {
    #[command(flatten)]
    target: Where,
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
    /// Permission: 2 write, 4 read, 6 both
    #[arg(short = 'p', long = "perm")]
    perm: i32,
}

impl UpdateTopicPerm {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let topic = Topic::new(self.topic.trim());
        let route = session.route(&topic).await?;
        let Some(queues) = route.queue_datas.first() else { bail!("no broker has the topic {topic}") };
        let mut config = TopicConfig {
            perm: Perm(self.perm),
            read_queue_nums: queues.read_queue_nums,
            topic_name: topic,
            topic_sys_flag: queues.topic_sys_flag,
            write_queue_nums: queues.write_queue_nums,
            ..TopicConfig::default()
        };
        let mut updated = Vec::new();
        for address in self.target.masters(session).await? {
            let is_master = |addresses: &BTreeMap<i64, String>| addresses.get(&0) == Some(&address);
            let broker = route.broker_datas.iter().find(|broker| is_master(&broker.broker_addrs));
            let queues = broker.and_then(|broker| queues_of(&route, &broker.broker_name));
            let Some(queues) = queues else {
                if self.target.broker.is_some() {
                    bail!("updateTopicPerm error broker not exit or broker is not master!.");
                }
                continue;
            };
            if queues.perm.0 == self.perm && self.target.broker.is_some() {
                out.line("new perm equals to the old one!")?;
                continue;
            }
            // The queues of this broker: Java sends those of the route's first to all.
            config.read_queue_nums = queues.read_queue_nums;
            config.write_queue_nums = queues.write_queue_nums;
            put_topic(session, &address, &config).await?;
            let (old, new) = (queues.perm.0, self.perm);
            out.line(format_args!("update topic perm from {old} to {new} in {address} success."))?;
            updated.push(address);
        }
        if self.target.broker.is_some() && !updated.is_empty() {
            out.line(format_args!("{}.", describe(&config)))?;
        }
        out.json(&json!({ "topic": config.topic_name, "perm": self.perm, "updated": updated }))
    }
}

fn queues_of<'a>(route: &'a TopicRouteData, broker: &str) -> Option<&'a crate::remoting::body::QueueData> {
    route.queue_datas.iter().find(|queues| queues.broker_name == broker)
}

/// Options of `deleteTopic`.
#[derive(Debug, clap::Args)]
pub(super) struct DeleteTopic {
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
    /// The cluster
    #[arg(short = 'c', long = "clusterName")]
    cluster: String,
}

impl DeleteTopic {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let (topic, cluster) = (Topic::new(self.topic.trim()), self.cluster.trim());
        delete_from_brokers(session, cluster, &topic).await?;
        out.line(format_args!("delete topic [{topic}] from cluster [{cluster}] success."))?;
        delete_from_name_servers(session, cluster, &topic).await?;
        out.line(format_args!("delete topic [{topic}] from NameServer success."))?;
        out.json(&json!({ "topic": topic, "cluster": cluster }))
    }
}

/// Deletes a topic from the masters of a cluster.
pub(super) async fn delete_from_brokers(session: &Session, cluster: &str, topic: &Topic) -> Result<()> {
    let header = DeleteTopicRequestHeader { topic: topic.clone() };
    for address in session.masters(cluster).await? {
        session
            .ask(&address, Command::request(RequestCode::DeleteTopicInBroker).with_header(&header))
            .await?;
    }
    Ok(())
}

/// Deletes a topic of a cluster from all name servers.
pub(super) async fn delete_from_name_servers(session: &Session, cluster: &str, topic: &Topic) -> Result<()> {
    let header =
        DeleteTopicFromNamesrvRequestHeader { topic: topic.clone(), cluster_name: Some(cluster.to_owned()) };
    for address in session.name_servers()? {
        session
            .ask(address, Command::request(RequestCode::DeleteTopicInNamesrv).with_header(&header))
            .await?;
    }
    Ok(())
}

/// Options of `topicRoute`.
#[derive(Debug, clap::Args)]
pub(super) struct TopicRoute {
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
    /// A table instead of the route's JSON
    #[arg(short = 'l', long = "list")]
    list: bool,
}

impl TopicRoute {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let mut route = session.route(&Topic::new(self.topic.trim())).await?;
        if self.list {
            route.broker_datas.sort_by(|a, b| a.broker_name.cmp(&b.broker_name));
            print_route(&route, out)?;
        } else {
            out.line(String::from_utf8_lossy(&json::to_vec_styled(&route, Style::Pretty)))?;
        }
        out.json(&route)
    }
}

fn print_route(route: &TopicRouteData, out: &mut Output<'_>) -> Result<()> {
    let mut row = |cells: [&str; 6]| {
        let [cluster, broker, addresses, reads, writes, perm] = cells;
        out.line(format_args!(
            "{cluster:<45} {broker:<32} {addresses:<50} {reads:<10} {writes:<11} {perm:<5}"
        ))
    };
    row(["#ClusterName", "#BrokerName", "#BrokerAddrs", "#ReadQueue", "#WriteQueue", "#Perm"])?;
    let (mut reads, mut writes) = (0, 0);
    for broker in &route.broker_datas {
        let Some(queues) = queues_of(route, &broker.broker_name) else { continue };
        reads += queues.read_queue_nums;
        writes += queues.write_queue_nums;
        let addresses = broker.broker_addrs.iter().map(|(id, address)| (id.to_string(), address.clone()));
        row([
            &broker.cluster,
            &broker.broker_name,
            &java_map(&addresses.collect()),
            &queues.read_queue_nums.to_string(),
            &queues.write_queue_nums.to_string(),
            &queues.perm.0.to_string(),
        ])?;
    }
    out.line("-".repeat(158))?;
    let brokers = route.queue_datas.len().to_string();
    out.line(format_args!("{:<45} {brokers:<32} {:<50} {reads:<10} {writes:<11} {:<5}", "Total:", "", ""))?;
    Ok(())
}

/// Options of `topicStatus`.
#[derive(Debug, clap::Args)]
pub(super) struct TopicStatus {
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
    /// A topic whose route to take
    #[arg(short = 'c', long = "cluster")]
    cluster: Option<String>,
}

impl TopicStatus {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let topic = Topic::new(self.topic.trim());
        let route_of = self.cluster.as_deref().map_or_else(|| topic.clone(), |name| Topic::new(name.trim()));
        let route = session.route(&route_of).await?;
        let header = GetTopicStatsInfoRequestHeader { topic };
        let request = Command::request(RequestCode::GetTopicStatsInfo).with_header(&header);
        let mut stats = TopicStatsTable::default();
        for (_, part) in session.ask_topic::<TopicStatsTable>(&route, &request).await? {
            stats.offset_table.extend(part.offset_table);
            stats.topic_put_tps += part.topic_put_tps;
        }
        if stats.offset_table.is_empty() {
            bail!("Not found the topic stats info");
        }
        out.line(format_args!(
            "{:<32}  {:<4}  {:<20}  {:<20}    {}",
            "#Broker Name", "#QID", "#Min Offset", "#Max Offset", "#Last Updated"
        ))?;
        for (queue, offsets) in &stats.offset_table {
            let updated = match offsets.last_update_timestamp {
                ms if ms > 0 => timestamp(ms),
                _ => String::new(),
            };
            out.line(format_args!(
                "{:<32}  {:<4}  {:<20}  {:<20}    {updated}",
                front(&queue.broker_name, 32),
                queue.queue_id,
                offsets.min_offset,
                offsets.max_offset
            ))?;
        }
        out.line(format_args!("\nTopic Put TPS: {:?}", stats.topic_put_tps))?;
        let queue = |(queue, offsets): (&MessageQueue, &TopicOffset)| {
            json!({
                "brokerName": queue.broker_name, "queueId": queue.queue_id, "minOffset": offsets.min_offset,
                "maxOffset": offsets.max_offset, "lastUpdateTimestamp": offsets.last_update_timestamp,
            })
        };
        let queues: Vec<_> = stats.offset_table.iter().map(queue).collect();
        out.json(&json!({ "topic": header.topic, "queues": queues, "topicPutTps": stats.topic_put_tps }))
    }
}

/// Options of `topicClusterList`.
#[derive(Debug, clap::Args)]
pub(super) struct TopicClusterList {
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
}

impl TopicClusterList {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let info = session.cluster_info().await?;
        let clusters = clusters_of(&info, &session.route(&Topic::new(self.topic.trim())).await?);
        for cluster in &clusters {
            out.line(cluster)?;
        }
        out.json(&clusters)
    }
}

fn clusters_of(info: &ClusterInfo, route: &TopicRouteData) -> BTreeSet<String> {
    let has = |names: &BTreeSet<String>| route.broker_datas.iter().any(|b| names.contains(&b.broker_name));
    let clusters = info.cluster_addr_table.iter().filter(|(_, names)| has(names));
    clusters.map(|(cluster, _)| cluster.clone()).collect()
}

/// Options of `topicList`.
#[derive(Debug, clap::Args)]
pub(super) struct TopicList {
    /// Clusters and consumer groups too
    #[arg(short = 'c', long = "clusterModel")]
    cluster_model: bool,
}

impl TopicList {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let topics = session.topics().await?;
        if !self.cluster_model {
            for topic in &topics {
                out.line(topic)?;
            }
            return out.json(&topics);
        }
        let info = session.cluster_info().await?;
        out.line(format_args!("{:<20}  {:<48}  {:<48}", "#Cluster Name", "#Topic", "#Consumer Group"))?;
        let mut rows = Vec::new();
        for topic in topics.iter().filter(|topic| !topic.is_retry() && !topic.is_dlq()) {
            // A topic whose route is just gone is listed without cluster, as by Java.
            let clusters =
                session.route(topic).await.map(|route| clusters_of(&info, &route)).unwrap_or_default();
            let groups = session.groups_consuming(topic).await.unwrap_or_default();
            let cluster = clusters.first().map_or("", String::as_str);
            let names: Vec<&str> = groups.iter().map(|group| group.as_str()).collect();
            for group in if names.is_empty() { &[""][..] } else { &names[..] } {
                let (cluster, topic, group) =
                    (front(cluster, 20), front(topic.as_str(), 64), front(group, 64));
                out.line(format_args!("{cluster:<20}  {topic:<64}  {group:<64}"))?;
            }
            rows.push(json!({ "topic": topic, "clusters": clusters, "consumerGroups": names }));
        }
        out.json(&rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_java_reads_them() {
        let attributes = parse_attributes("+a=b, -c").unwrap();
        assert_eq!(attributes, [("+a", "b"), ("-c", "")].map(|(k, v)| (k.into(), v.into())).into());
        for wrong in ["a=b", "+a", "-a=b", "+a=1,+a=2"] {
            assert!(parse_attributes(wrong).is_err(), "{wrong}");
        }
    }
}
