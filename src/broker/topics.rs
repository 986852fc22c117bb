//! Topics for operators: UPDATE_AND_CREATE_TOPIC (17) and _LIST (18), GET_ALL_TOPIC_CONFIG (21),
//! DELETE_TOPIC_IN_BROKER (215), GET_SYSTEM_TOPIC_LIST_FROM_BROKER (305), QUERY_TOPICS_BY_CONSUMER (343),
//! GET_TOPIC_CONFIG (351).
//!
//! Source: RocketMQ `AdminBrokerProcessor`, `TopicConfigManager`, `TopicValidator`. Changes are answered when the name
//! servers know them, so that a tool can ask for the route at once.

use std::sync::Arc;

use super::attributes;
use super::context::Context;
use super::reply::{Reply, later};
use super::resets::Resets;
use super::response::Error;
use super::stats::Stats;
use crate::config::BrokerConfig;
use crate::metadata::MetadataCommand;
use crate::model::{DataVersion, Group, Perm, Topic, TopicConfig, system_topic};
use crate::remoting::body::{CreateTopicListRequestBody, TopicConfigAndMappingSerializeWrapper, TopicList};
use crate::remoting::header::{
    CreateTopicRequestHeader, DeleteTopicRequestHeader, GetAllTopicConfigRequestHeader,
    GetAllTopicConfigResponseHeader, GetTopicConfigRequestHeader, QueryTopicsByConsumerRequestHeader,
};
use crate::remoting::{Command, ResponseCode, json};

/// Queues of a topic that an operator can ask for. Java has no limit; a route with more is of no use to a client.
const QUEUES_MAX: u32 = 65_535;
/// Most entries of one part of a table, as Java's `splitMetadataSize`.
const PART_MAX: usize = 2000;

/// System topics of features that are not built: their names are taken all the same.
const FURTHER_SYSTEM_TOPICS: [&str; 3] =
    ["CHECKPOINT_TOPIC", "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC", "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC"];

/// UPDATE_AND_CREATE_TOPIC.
pub(crate) fn update(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let header: CreateTopicRequestHeader = request.header()?;
    let filter_type = header.topic_filter_type.filter(|text| !text.is_empty());
    let config = TopicConfig {
        attributes: attributes::parse(header.attributes.as_deref().unwrap_or_default())?,
        order: header.order,
        perm: Perm(header.perm),
        read_queue_nums: queue_number("readQueueNums", header.read_queue_nums)?,
        topic_filter_type: filter_type.unwrap_or_else(|| "SINGLE_TAG".into()),
        topic_name: header.topic,
        topic_sys_flag: header.topic_sys_flag.unwrap_or(0),
        write_queue_nums: queue_number("writeQueueNums", header.write_queue_nums)?,
    };
    let context = Arc::clone(context);
    Ok(later(async move { put(&context, vec![config]).await }))
}

/// UPDATE_AND_CREATE_TOPIC_LIST. All topics are checked before the first is made. Unlike Java, topics that are as
/// wanted already do not keep the others from being made.
pub(crate) fn update_list(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let body: CreateTopicListRequestBody = request.json()?;
    let context = Arc::clone(context);
    Ok(later(async move { put(&context, body.topic_config_list).await }))
}

/// DELETE_TOPIC_IN_BROKER: the topic with its messages, offsets and statistics, and the retry topics that POP made
/// for it.
pub(crate) fn delete(
    context: &Arc<Context>,
    resets: &Arc<Resets>,
    stats: &Arc<Stats>,
    request: &Command,
) -> Result<Reply, Error> {
    let DeleteTopicRequestHeader { topic } = request.header()?;
    if topic.as_str().trim().is_empty() {
        return Err(Error::InvalidParameter("The specified topic is blank.".into()));
    }
    // No topic can have such a name, and a folder might.
    topic.check().map_err(|error| Error::InvalidParameter(error.to_string()))?;
    check_not_system(&context.config(), &topic)?;
    let (context, resets, stats) = (Arc::clone(context), Arc::clone(resets), Arc::clone(stats));
    Ok(later(async move {
        let mut deleted = vec![topic.clone()];
        if context.config().clear_retry_topic_when_delete_topic {
            deleted.extend(pop_retry_topics(&context, &topic));
        }
        for topic in deleted {
            tracing::info!(%topic, "topic deleted");
            context.change(MetadataCommand::DeleteTopic(topic.clone())).await?;
            resets.forget_topic(&topic);
            stats.forget_topic(&topic);
        }
        context.announcer.topics_changed_and_known().await;
        Ok(Command::response(ResponseCode::Success))
    }))
}

/// GET_TOPIC_CONFIG.
pub(crate) fn get(context: &Context, request: &Command) -> Result<Command, Error> {
    let header: GetTopicConfigRequestHeader = request.header()?;
    Ok(Command::response(ResponseCode::Success).with_json(&*context.topic(&header.topic)?))
}

/// GET_ALL_TOPIC_CONFIG.
pub(crate) fn all(context: &Context, request: &Command) -> Result<Command, Error> {
    let header: GetAllTopicConfigRequestHeader = request.header()?;
    let table = context.metadata.topics().snapshot();
    let part =
        Part { first: header.topic_seq, max: header.max_topic_num, version: header.data_version.as_deref() };
    let total = table.topic_config_table.len();
    let body = TopicConfigAndMappingSerializeWrapper {
        data_version: table.data_version,
        topic_config_table: part.of(table.topic_config_table, table.data_version),
        ..TopicConfigAndMappingSerializeWrapper::default()
    };
    let header = GetAllTopicConfigResponseHeader { total_topic_num: i32::try_from(total).ok() };
    Ok(Command::response(ResponseCode::Success).with_header(&header).with_json(&body))
}

/// GET_SYSTEM_TOPIC_LIST_FROM_BROKER.
pub(crate) fn system(context: &Context) -> Command {
    let config = context.config();
    let named = system_topic::ALL.iter().chain(&FURTHER_SYSTEM_TOPICS).map(|name| Topic::new(name));
    let own = own_system_topics(&config).into_iter().map(Topic::from);
    let prefixed = context.metadata.topics().all().into_iter().map(|config| config.topic_name.clone());
    let mut topic_list: Vec<_> = named
        .chain(own)
        .chain(prefixed.filter(|topic| topic.as_str().starts_with(system_topic::PREFIX)))
        .collect();
    topic_list.sort();
    topic_list.dedup();
    Command::response(ResponseCode::Success).with_json(&TopicList { broker_addr: None, topic_list })
}

/// QUERY_TOPICS_BY_CONSUMER: the topics in which a group has offsets.
pub(crate) fn of_group(context: &Context, request: &Command) -> Result<Command, Error> {
    let header: QueryTopicsByConsumerRequestHeader = request.header()?;
    let body = TopicList {
        broker_addr: Some(context.address.to_string()),
        topic_list: context.metadata.offsets().topics_of(&header.group),
    };
    Ok(Command::response(ResponseCode::Success).with_json(&body))
}

/// Returns whether the broker keeps a topic for itself. Source: RocketMQ `TopicValidator.isSystemTopic` with what
/// `TopicConfigManager.init` adds.
pub(super) fn is_system(config: &BrokerConfig, topic: &Topic) -> bool {
    let name = topic.as_str();
    system_topic::is_system(name)
        || FURTHER_SYSTEM_TOPICS.contains(&name)
        || own_system_topics(config).iter().any(|own| own == name)
}

/// A part of a table that is too large for one answer. Source: RocketMQ `TopicConfigManager.subTopicConfigTable`.
#[derive(Debug, Default)]
pub(super) struct Part<'a> {
    pub(super) first: Option<i32>,
    pub(super) max: Option<i32>,
    /// JSON of the version that the earlier parts had.
    pub(super) version: Option<&'a str>,
}

impl Part<'_> {
    /// Returns the part of a table. All of it if no part is asked for, as old peers do; the first part if the table
    /// changed since the parts before.
    pub(super) fn of<K: Ord, V>(
        &self,
        table: std::collections::BTreeMap<K, V>,
        version: DataVersion,
    ) -> std::collections::BTreeMap<K, V> {
        if self.first.is_none() && self.max.is_none() && self.version.is_none() {
            return table;
        }
        let known = self.version.and_then(|text| json::from_str::<DataVersion>(text).ok());
        let wanted = usize::try_from(self.first.unwrap_or(0)).unwrap_or(0);
        let first = if known == Some(version) { wanted } else { 0 };
        let mut count = usize::try_from(self.max.unwrap_or(i32::MAX)).unwrap_or(0).clamp(1, PART_MAX);
        if table.len().saturating_sub(first) == count + 1 {
            // Java's clients stop when all but one are there.
            count += 1;
        }
        table.into_iter().skip(first).take(count).collect()
    }
}

/// Makes or changes topics, and tells the name servers.
async fn put(context: &Context, wanted: Vec<TopicConfig>) -> Result<Command, Error> {
    let wanted = wanted.into_iter().map(|config| check(context, config)).collect::<Result<Vec<_>, _>>()?;
    let mut changed = false;
    for config in wanted {
        let known = context.metadata.topics().get(&config.topic_name);
        if known.is_some_and(|known| *known == config) {
            continue;
        }
        let (reads, writes) = (config.read_queue_nums, config.write_queue_nums);
        tracing::info!(topic = %config.topic_name, reads, writes, perm = config.perm.0, "topic updated");
        context.change(MetadataCommand::PutTopic(config)).await?;
        changed = true;
    }
    if changed {
        context.announcer.topics_changed_and_known().await;
    }
    Ok(Command::response(ResponseCode::Success))
}

/// Returns the settings that a topic shall have, with the changes of attributes carried out.
fn check(context: &Context, wanted: TopicConfig) -> Result<TopicConfig, Error> {
    let config = context.config();
    wanted.topic_name.check()?;
    check_not_system(&config, &wanted.topic_name)?;
    for (name, number) in
        [("readQueueNums", wanted.read_queue_nums), ("writeQueueNums", wanted.write_queue_nums)]
    {
        if !(1..=QUEUES_MAX).contains(&number) {
            return Err(Error::InvalidParameter(format!("{name}[{number}] is not in 1..={QUEUES_MAX}")));
        }
    }
    if !(0..=Perm::ALL.0).contains(&wanted.perm.0) {
        return Err(Error::InvalidParameter(format!("perm[{}] is not in 0..=7", wanted.perm.0)));
    }
    if !["SINGLE_TAG", "MULTI_TAG"].contains(&wanted.topic_filter_type.as_str()) {
        let text = format!("topicFilterType[{}] is not SINGLE_TAG or MULTI_TAG", wanted.topic_filter_type);
        return Err(Error::InvalidParameter(text));
    }
    let message_type = wanted.attributes.get(&format!("+{}", attributes::MESSAGE_TYPE));
    if message_type.is_some_and(|value| value == "MIXED") && !config.enable_mixed_message_type {
        return Err(Error::InvalidParameter("MIXED message type is not supported.".into()));
    }
    let known = context.metadata.topics().get(&wanted.topic_name);
    let current = known.as_ref().map(|known| &known.attributes);
    let attributes = attributes::alter(&attributes::OF_TOPICS, current, &wanted.attributes)?;
    Ok(TopicConfig { attributes, ..wanted })
}

fn check_not_system(config: &BrokerConfig, topic: &Topic) -> Result<(), Error> {
    if config.validate_system_topic_when_update_topic && is_system(config, topic) {
        return Err(Error::InvalidParameter(format!("The topic[{topic}] is conflict with system topic.")));
    }
    Ok(())
}

fn queue_number(name: &str, number: i32) -> Result<u32, Error> {
    u32::try_from(number).map_err(|_| Error::InvalidParameter(format!("{name}[{number}] is negative")))
}

/// Names that depend on the broker's own.
fn own_system_topics(config: &BrokerConfig) -> [String; 4] {
    [
        config.broker_cluster_name.clone(),
        config.broker_name.clone(),
        format!("{}_REPLY_TOPIC", config.broker_cluster_name),
        config.msg_trace_topic_name.clone(),
    ]
}

/// Returns the topics to which messages of a topic go that groups got by POP and did not acknowledge. Source: RocketMQ
/// `KeyBuilder.buildPopRetryTopic`.
fn pop_retry_topics(context: &Context, topic: &Topic) -> Vec<Topic> {
    let names = |group: Group| ['+', '_'].map(|separator| format!("%RETRY%{group}{separator}{topic}"));
    let groups = context.metadata.offsets().groups_of(topic);
    let topics = groups.into_iter().flat_map(names).map(Topic::from);
    topics.filter(|topic| context.metadata.topics().get(topic).is_some()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn version(counter: i64) -> DataVersion {
        DataVersion { counter, ..DataVersion::default() }
    }

    #[test]
    fn a_table_is_given_out_in_parts() {
        let table: BTreeMap<i32, ()> = (0..10).map(|key| (key, ())).collect();
        let same = Some(r#"{"counter":7,"stateVersion":0,"timestamp":0}"#);
        let other = Some(r#"{"counter":6,"stateVersion":0,"timestamp":0}"#);
        for (first, max, known, expected) in [
            (None, None, None, 0..10),
            (Some(0), Some(2000), Some(""), 0..10),
            (Some(0), Some(4), Some(""), 0..4),
            (Some(4), Some(4), same, 4..8),
            (Some(8), Some(4), same, 8..10),
            (Some(10), Some(4), same, 10..10),
            // The last one comes with those before it.
            (Some(5), Some(4), same, 5..10),
            // The table has changed: from the start again.
            (Some(4), Some(4), other, 0..4),
            (Some(-1), Some(0), same, 0..1),
        ] {
            let part = Part { first, max, version: known };
            let keys: Vec<i32> = part.of(table.clone(), version(7)).into_keys().collect();
            assert_eq!(keys, expected.collect::<Vec<_>>(), "{part:?}");
        }
    }

    #[test]
    fn names_of_the_broker_are_system_topics() {
        let config = BrokerConfig {
            broker_cluster_name: "C".into(),
            broker_name: "b".into(),
            ..BrokerConfig::default()
        };
        for (name, expected) in [
            ("C", true),
            ("b", true),
            ("C_REPLY_TOPIC", true),
            ("TBW102", true),
            ("rmq_sys_anything", true),
            ("CHECKPOINT_TOPIC", true),
            ("T", false),
            ("%RETRY%g", false),
        ] {
            assert_eq!(is_system(&config, &Topic::new(name)), expected, "{name}");
        }
    }
}
