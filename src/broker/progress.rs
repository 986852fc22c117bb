//! How far groups are: GET_TOPIC_STATS_INFO (202), GET_CONSUME_STATS (208), QUERY_TOPIC_CONSUME_BY_WHO (300),
//! QUERY_CONSUME_TIME_SPAN (303), GET_BROKER_CONSUME_STATS (317), QUERY_CONSUME_QUEUE (321),
//! QUERY_SUBSCRIPTION_BY_CONSUMER (345), and the tables behind them: GET_ALL_CONSUMER_OFFSET (43),
//! GET_ALL_DELAY_OFFSET (45).
//!
//! Source: RocketMQ `AdminBrokerProcessor`. Times of messages are read from the log, on threads that may block.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Broker;
use super::clients::Clients;
use super::context::{Context, blocking};
use super::offsets::queue_id;
use super::reply::{Reply, later};
use super::response::Error;
use super::stats::Stats;
use crate::model::{Group, MessageQueue, QueueId, QueueOffset, Topic, TopicConfig};
use crate::remoting::body::{
    ConsumeQueueData, ConsumeStats, ConsumeStatsList, GroupList, OffsetWrapper,
    QueryConsumeQueueResponseBody, QueryConsumeTimeSpanBody, QuerySubscriptionResponseBody, QueueTimeSpan,
    SubscriptionData, TopicOffset, TopicStatsTable,
};
use crate::remoting::header::{
    GetConsumeStatsInBrokerHeader, GetConsumeStatsRequestHeader, GetTopicStatsInfoRequestHeader,
    QueryConsumeQueueRequestHeader, QueryConsumeTimeSpanRequestHeader,
    QuerySubscriptionByConsumerRequestHeader, QueryTopicConsumeByWhoRequestHeader,
};
use crate::remoting::{Command, ResponseCode};

/// Entries of a queue in one answer. Java has no limit; tools ask for 10.
const ENTRIES_MAX: usize = 4096;

/// What the answers are made of.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    context: Arc<Context>,
    clients: Arc<Clients>,
    stats: Arc<Stats>,
}

/// GET_TOPIC_STATS_INFO.
pub(crate) fn of_topic(progress: Progress, request: &Command) -> Result<Reply, Error> {
    let GetTopicStatsInfoRequestHeader { topic } = request.header()?;
    let config = progress.context.topic(&topic)?;
    Ok(later(blocking(move || {
        let queues = config.write_queue_nums.max(config.read_queue_nums);
        let offset_table = (0..queues)
            .map(|id| {
                let queue = progress.queue(&topic, QueueId(id));
                let last = queue.max.0.checked_sub(1).map(QueueOffset);
                let offset = TopicOffset {
                    last_update_timestamp: last.map_or(0, |last| queue.timestamp(last)),
                    max_offset: number(queue.max),
                    min_offset: number(queue.min),
                };
                (queue.name(), offset)
            })
            .collect();
        let topic_put_tps = progress.stats.topic_put_tps(&topic);
        Ok(Command::response(ResponseCode::Success)
            .with_json(&TopicStatsTable { offset_table, topic_put_tps }))
    })))
}

/// GET_CONSUME_STATS: progress of a group in the topics that are asked for, or in all.
pub(crate) fn of_group(progress: Progress, request: &Command) -> Result<Reply, Error> {
    let header: GetConsumeStatsRequestHeader = request.header()?;
    Ok(later(blocking(move || {
        let group = &header.consumer_group;
        let mut all = ConsumeStats::default();
        for topic in progress.topics_asked_for(&header) {
            let Some(config) = progress.context.metadata.topics().get(&topic) else { continue };
            let stats = progress.consume_stats(group, &config, config.read_queue_nums);
            all.consume_tps += stats.consume_tps;
            all.offset_table.extend(stats.offset_table);
        }
        Ok(Command::response(ResponseCode::Success).with_json(&all))
    })))
}

/// GET_BROKER_CONSUME_STATS: progress of all groups.
pub(crate) fn of_all_groups(progress: Progress, request: &Command) -> Result<Reply, Error> {
    let header: GetConsumeStatsInBrokerHeader = request.header()?;
    Ok(later(blocking(move || {
        let mut body = ConsumeStatsList {
            broker_addr: Some(progress.context.address.to_string()),
            ..ConsumeStatsList::default()
        };
        for group in progress.context.metadata.groups().all() {
            let group = &group.group_name;
            let topics = progress.context.metadata.offsets().topics_of(group).into_iter();
            let stats: Vec<_> = topics
                .filter_map(|topic| progress.context.metadata.topics().get(&topic))
                .filter(|config| config.order || !header.is_order)
                .filter(|config| progress.may_subscribe(group, &config.topic_name))
                .map(|config| progress.consume_stats(group, &config, config.write_queue_nums))
                .collect();
            for offsets in stats.iter().flat_map(|stats| stats.offset_table.values()) {
                body.total_diff += offsets.broker_offset - offsets.consumer_offset;
                body.total_inflight_diff += offsets.pull_offset - offsets.consumer_offset;
            }
            body.consume_stats_list.push(BTreeMap::from([(group.clone(), stats)]));
        }
        Ok(Command::response(ResponseCode::Success).with_json(&body))
    })))
}

/// QUERY_TOPIC_CONSUME_BY_WHO: groups that subscribe to a topic or have offsets in it.
pub(crate) fn groups_of_topic(progress: &Progress, request: &Command) -> Result<Command, Error> {
    let QueryTopicConsumeByWhoRequestHeader { topic } = request.header()?;
    let online = progress.clients.groups_of(&topic);
    let groups: BTreeSet<_> =
        online.into_iter().chain(progress.context.metadata.offsets().groups_of(&topic)).collect();
    let body = GroupList { group_list: groups.into_iter().collect() };
    Ok(Command::response(ResponseCode::Success).with_json(&body))
}

/// QUERY_CONSUME_TIME_SPAN: how far behind a group is, in time. Where a group never committed an offset, Java counts
/// from 1970; here its delay is the age of the queue's first message.
pub(crate) fn time_span(progress: Progress, request: &Command) -> Result<Reply, Error> {
    let QueryConsumeTimeSpanRequestHeader { topic, group } = request.header()?;
    let config = progress.context.topic(&topic)?;
    Ok(later(blocking(move || {
        let offsets = progress.context.metadata.offsets().of_topic(&group, &topic);
        let now_ms = progress.context.clock.now_ms();
        let span = |id: u32| {
            let queue = progress.queue(&topic, QueueId(id));
            let next = offsets.get(&QueueId(id)).copied().unwrap_or(queue.min);
            let min_time_stamp = queue.timestamp(queue.min);
            let before =
                |offset: QueueOffset| offset.0.checked_sub(1).map(|last| queue.timestamp(QueueOffset(last)));
            QueueTimeSpan {
                consume_time_stamp: before(next)
                    .filter(|_| offsets.contains_key(&QueueId(id)))
                    .unwrap_or(min_time_stamp),
                delay_time: if next < queue.max { now_ms - queue.timestamp(next.max(queue.min)) } else { 0 },
                max_time_stamp: before(queue.max).unwrap_or(-1),
                message_queue: queue.name(),
                min_time_stamp,
            }
        };
        let body = QueryConsumeTimeSpanBody {
            consume_time_span_set: (0..config.write_queue_nums).map(span).collect(),
        };
        Ok(Command::response(ResponseCode::Success).with_json(&body))
    })))
}

/// QUERY_CONSUME_QUEUE: entries of a queue as they are. An index outside of the queue is no error, but a remark.
pub(crate) fn consume_queue(progress: Progress, request: &Command) -> Result<Reply, Error> {
    let header: QueryConsumeQueueRequestHeader = request.header()?;
    let id = queue_id(header.queue_id)?;
    let place = format!("{id}@{}", header.topic);
    let queue = progress
        .context
        .store()
        .queues()
        .get(&header.topic, id)
        .ok_or_else(|| Error::System(format!("{place} is not exist!")))?;
    Ok(later(blocking(move || {
        let (subscription_data, filter_data) = match &header.consumer_group {
            None => (None, None),
            Some(group) => match progress.subscription(group, &header.topic) {
                // There is no filter beside the subscription: tags need none.
                Some(subscription) => (Some(subscription), Some("null".to_owned())),
                None => (None, Some(format!("{group}@{} is not online!", header.topic))),
            },
        };
        let (min, max) = (queue.min_offset(), queue.max_offset());
        let first = u64::try_from(header.index).ok().map(QueueOffset);
        let Some(first) = first.filter(|first| (min..max).contains(first)) else {
            let remark = format!("Index {} of {place} is not exist!", header.index);
            return Ok(Command::response(ResponseCode::Success).with_remark(remark));
        };
        let wanted = usize::try_from(header.count).unwrap_or(0).min(ENTRIES_MAX);
        let mut queue_data = Vec::new();
        while queue_data.len() < wanted {
            let entries = queue.entries(first.plus(queue_data.len() as u64), wanted - queue_data.len())?;
            if entries.is_empty() {
                break;
            }
            queue_data.extend(entries.iter().map(|entry| ConsumeQueueData {
                physic_offset: i64::try_from(entry.position.0).unwrap_or(i64::MAX),
                physic_size: i32::try_from(entry.size).unwrap_or(i32::MAX),
                tags_code: entry.tags_code,
                ..ConsumeQueueData::default()
            }));
        }
        let body = QueryConsumeQueueResponseBody {
            filter_data,
            max_queue_index: number(max),
            min_queue_index: number(min),
            queue_data,
            subscription_data,
        };
        Ok(Command::response(ResponseCode::Success).with_json(&body))
    })))
}

/// QUERY_SUBSCRIPTION_BY_CONSUMER.
pub(crate) fn subscription(progress: &Progress, request: &Command) -> Result<Command, Error> {
    let QuerySubscriptionByConsumerRequestHeader { group, topic } = request.header()?;
    let subscription_data = topic.as_ref().and_then(|topic| progress.subscription(&group, topic));
    let body = QuerySubscriptionResponseBody { group, subscription_data, topic };
    Ok(Command::response(ResponseCode::Success).with_json(&body))
}

/// GET_ALL_CONSUMER_OFFSET: as consumerOffset.json.
pub(crate) fn all_offsets(context: &Context) -> Command {
    Command::response(ResponseCode::Success).with_json(&context.metadata.offsets().snapshot())
}

/// GET_ALL_DELAY_OFFSET: as delayOffset.json.
pub(crate) fn all_delay_offsets(context: &Context) -> Command {
    Command::response(ResponseCode::Success).with_json(&context.metadata.delay().snapshot())
}

/// How far a group that is online is in a topic that it subscribes to. Source: RocketMQ `ConsumerLagCalculator`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lag {
    pub(crate) group: Group,
    pub(crate) topic: Topic,
    /// Messages that the group did not commit yet. All count, also those that its filter leaves out.
    pub(crate) messages: u64,
    /// Age of the oldest of them.
    pub(crate) latency_ms: i64,
    /// Messages that it got and did not commit.
    pub(crate) inflight: u64,
    /// Messages that it did not get yet.
    pub(crate) ready: u64,
    /// Age of the oldest of them.
    pub(crate) queueing_ms: i64,
}

/// The bounds of a queue, which may not have a message yet.
struct Queue<'a> {
    context: &'a Context,
    topic: &'a Topic,
    id: QueueId,
    min: QueueOffset,
    max: QueueOffset,
}

impl Queue<'_> {
    fn name(&self) -> MessageQueue {
        MessageQueue {
            broker_name: self.context.config().broker_name.clone(),
            queue_id: i32::try_from(self.id.0).unwrap_or(i32::MAX),
            topic: self.topic.clone(),
        }
    }

    /// Returns when a message was stored; -1 if it is not there. Blocks on the disk.
    fn timestamp(&self, offset: QueueOffset) -> i64 {
        self.context.store().queue_timestamp(self.topic, self.id, offset).unwrap_or(-1)
    }
}

impl Progress {
    pub(crate) fn of(broker: &Broker) -> Self {
        Self {
            context: Arc::clone(&broker.context),
            clients: Arc::clone(&broker.clients),
            stats: Arc::clone(&broker.stats),
        }
    }

    /// Returns how far the groups are that are online. Blocks on the disk.
    pub(crate) fn lags(&self) -> Vec<Lag> {
        let mut lags = Vec::new();
        for (group, consumers) in self.clients.all_consumers() {
            for topic in consumers.subscriptions.keys().filter(|topic| !topic.is_retry()) {
                if let Some(config) = self.context.metadata.topics().get(topic) {
                    lags.push(self.lag(&group, &config));
                }
            }
        }
        lags
    }

    fn lag(&self, group: &Group, config: &TopicConfig) -> Lag {
        let topic = &config.topic_name;
        let offsets = self.context.metadata.offsets().of_topic(group, topic);
        let now_ms = self.context.clock.now_ms();
        let mut lag = Lag {
            group: group.clone(),
            topic: topic.clone(),
            messages: 0,
            latency_ms: 0,
            inflight: 0,
            ready: 0,
            queueing_ms: 0,
        };
        for id in 0..config.write_queue_nums {
            let queue = self.queue(topic, QueueId(id));
            // A group without an offset starts at the end, unless it says otherwise with its first pull.
            let committed = offsets.get(&queue.id).copied().unwrap_or(queue.max);
            let pulled = self.stats.pulled(group, topic, queue.id).unwrap_or_default().max(committed);
            let age_ms = |from: QueueOffset| match queue.timestamp(from.max(queue.min)) {
                stored_ms if from < queue.max && stored_ms > 0 => (now_ms - stored_ms).max(0),
                _ => 0,
            };
            lag.messages += queue.max.0.saturating_sub(committed.0);
            lag.inflight += pulled.0 - committed.0;
            lag.ready += queue.max.0.saturating_sub(pulled.0);
            lag.latency_ms = lag.latency_ms.max(age_ms(committed));
            lag.queueing_ms = lag.queueing_ms.max(age_ms(pulled));
        }
        lag
    }

    fn queue<'a>(&'a self, topic: &'a Topic, id: QueueId) -> Queue<'a> {
        let queue = self.context.store().queues().get(topic, id);
        let (min, max) =
            queue.map_or_else(Default::default, |queue| (queue.min_offset(), queue.max_offset()));
        Queue { context: &self.context, topic, id, min, max }
    }

    /// Returns the progress of a group in the first `queues` queues of a topic.
    fn consume_stats(&self, group: &Group, config: &TopicConfig, queues: u32) -> ConsumeStats {
        let topic = &config.topic_name;
        let offsets = self.context.metadata.offsets().of_topic(group, topic);
        let offset_table = (0..queues).map(|id| {
            let queue = self.queue(topic, QueueId(id));
            let committed = offsets.get(&queue.id).copied().unwrap_or_default();
            let pulled = self.stats.pulled(group, topic, queue.id).unwrap_or_default();
            let last = committed.0.checked_sub(1).map(|last| queue.timestamp(QueueOffset(last)));
            let wrapper = OffsetWrapper {
                broker_offset: number(queue.max),
                consumer_offset: number(committed),
                last_timestamp: last.unwrap_or(0).max(0),
                pull_offset: number(pulled.max(committed)),
            };
            (queue.name(), wrapper)
        });
        ConsumeStats {
            offset_table: offset_table.collect(),
            consume_tps: self.stats.group_get_tps(group, topic),
        }
    }

    /// Returns the topics of a request for a group's progress. A list counts as it is; otherwise topics to which a
    /// group that is online does not subscribe are left out.
    fn topics_asked_for(&self, header: &GetConsumeStatsRequestHeader) -> BTreeSet<Topic> {
        let group = &header.consumer_group;
        let list = header.topic_list.as_deref().unwrap_or_default();
        let listed: BTreeSet<_> =
            list.split(';').filter(|name| !name.trim().is_empty()).map(Topic::new).collect();
        if !listed.is_empty() {
            return listed;
        }
        let topics = match &header.topic {
            Some(topic) if !topic.as_str().trim().is_empty() => vec![topic.clone()],
            _ => self.context.metadata.offsets().topics_of(group),
        };
        topics.into_iter().filter(|topic| self.may_subscribe(group, topic)).collect()
    }

    /// Returns whether a group is offline, subscribes to nothing, or subscribes to this topic.
    fn may_subscribe(&self, group: &Group, topic: &Topic) -> bool {
        self.clients.consumers(group).is_none_or(|consumers| {
            consumers.subscriptions.is_empty() || consumers.subscriptions.contains_key(topic)
        })
    }

    fn subscription(&self, group: &Group, topic: &Topic) -> Option<SubscriptionData> {
        self.clients.consumers(group)?.subscriptions.get(topic).map(|subscription| subscription.data.clone())
    }
}

fn number(offset: QueueOffset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}
