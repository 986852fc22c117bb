//! Offsets that operators set: INVOKE_BROKER_TO_RESET_OFFSET (222), QUERY_CORRECTION_OFFSET (308),
//! CLONE_GROUP_OFFSET (314), and RESET_CONSUMER_CLIENT_OFFSET (220) towards clients.
//!
//! Source: RocketMQ `AdminBrokerProcessor.resetOffset`, `Broker2Client.resetOffset`, `ConsumerOffsetManager`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use super::clients::Clients;
use super::context::{Context, blocking};
use super::hold::Holds;
use super::offsets::queue_id;
use super::reply::{Reply, later};
use super::resets::Resets;
use super::response::Error;
use crate::metadata::MetadataCommand;
use crate::model::{Group, MessageQueue, QueueId, QueueOffset, Topic};
use crate::remoting::body::{
    MessageQueueForC, QueryCorrectionOffsetBody, ResetOffsetBody, ResetOffsetBodyForC,
};
use crate::remoting::header::{
    CloneGroupOffsetRequestHeader, QueryCorrectionOffsetHeader, ResetOffsetRequestHeader,
};
use crate::remoting::{Command, Language, RequestCode, ResponseCode, version};
use crate::store::Boundary;

/// How long consumers that pull from this replica may take to hear of their new offsets; held pulls hear at once.
const HEAR_WAIT: Duration = Duration::from_secs(2);

/// What setting offsets needs.
#[derive(Debug, Clone)]
pub(crate) struct Resetting {
    context: Arc<Context>,
    clients: Arc<Clients>,
    resets: Arc<Resets>,
    holds: Arc<Holds>,
}

/// INVOKE_BROKER_TO_RESET_OFFSET. With `useServerSideResetOffset` the new offsets count at once, and each consumer hears
/// of its own with its next pull; otherwise consumers are told, and commit them.
pub(crate) fn reset(resetting: Resetting, request: &Command) -> Result<Reply, Error> {
    let header: ResetOffsetRequestHeader = request.header()?;
    let language = request.language;
    Ok(later(async move {
        if resetting.context.config().use_server_side_reset_offset {
            resetting.at_server(header).await
        } else {
            resetting.at_clients(header, language).await
        }
    }))
}

/// CLONE_GROUP_OFFSET: gives a group the offsets of another one. Unlike Java, which needs one, no topic means all.
pub(crate) fn clone(resetting: Resetting, request: &Command) -> Result<Reply, Error> {
    let header: CloneGroupOffsetRequestHeader = request.header()?;
    Ok(later(async move {
        let Resetting { context, clients, .. } = resetting;
        let source = &header.src_group;
        let topics = match header.topic {
            Some(topic) if !topic.as_str().trim().is_empty() => vec![topic],
            _ => context.metadata.offsets().topics_of(source),
        };
        let online = clients.consumers(source).filter(|group| !group.subscriptions.is_empty());
        for topic in topics {
            let subscribed = online.as_ref().is_none_or(|group| group.subscriptions.contains_key(&topic));
            if context.metadata.topics().get(&topic).is_none() || !(header.offline || subscribed) {
                tracing::warn!(%topic, group = %source, "offsets not cloned: no such topic or not subscribed");
                continue;
            }
            for (queue_id, offset) in context.metadata.offsets().of_topic(source, &topic) {
                commit(&context, &header.dest_group, &topic, queue_id, offset).await?;
            }
            tracing::info!(%topic, from = %source, group = %header.dest_group, "offsets cloned");
        }
        Ok(Command::response(ResponseCode::Success))
    }))
}

/// QUERY_CORRECTION_OFFSET: for each queue the smallest offset of all groups, or the largest number where that is beyond
/// the offset of the group compared with. Java forgets the offsets of the groups that are filtered out; here they are
/// only left out.
pub(crate) fn correction(context: &Context, request: &Command) -> Result<Command, Error> {
    let header: QueryCorrectionOffsetHeader = request.header()?;
    let topic = &header.topic;
    let filtered: BTreeSet<&str> = header.filter_groups.as_deref().unwrap_or_default().split(',').collect();
    let offsets = context.metadata.offsets();
    let mut smallest: BTreeMap<i32, i64> = BTreeMap::new();
    for group in offsets.groups_of(topic).iter().filter(|group| !filtered.contains(group.as_str())) {
        for (id, offset) in offsets.of_topic(group, topic) {
            let min = context.store().queues().get(topic, id).map_or(QueueOffset(0), |q| q.min_offset());
            if offset >= min {
                let entry = smallest.entry(number(id)).or_insert(i64::MAX);
                *entry = (*entry).min(signed(offset));
            }
        }
    }
    for (id, offset) in offsets.of_topic(&header.compare_group, topic) {
        if let Some(known) = smallest.get_mut(&number(id)).filter(|known| **known > signed(offset)) {
            *known = i64::MAX;
        }
    }
    let body = QueryCorrectionOffsetBody { correction_offsets: smallest };
    Ok(Command::response(ResponseCode::Success).with_json(&body))
}

impl Resetting {
    pub(crate) fn of(broker: &Broker) -> Self {
        Self {
            context: Arc::clone(&broker.context),
            clients: Arc::clone(&broker.clients),
            resets: Arc::clone(&broker.resets),
            holds: Arc::clone(&broker.pulls.holds),
        }
    }

    async fn at_server(self, header: ResetOffsetRequestHeader) -> Result<Command, Error> {
        let ResetOffsetRequestHeader { topic, group, .. } = &header;
        let config = self.context.topic(topic)?;
        if self.context.metadata.groups().get(group).is_none() {
            return Err(Error::GroupNotExist(group.clone()));
        }
        self.context.replication.permit()?;
        let one = header.queue_id.filter(|id| *id >= 0).map(queue_id).transpose()?;
        let targets = match (one, header.offset.filter(|offset| *offset != -1)) {
            (Some(id), Some(offset)) => vec![(id, self.checked_offset(topic, id, offset)?)],
            (Some(id), None) => self.offsets_of_time(topic, vec![id], header.timestamp).await?,
            (None, _) => {
                let ids = (0..config.read_queue_nums).map(QueueId).collect();
                self.offsets_of_time(topic, ids, header.timestamp).await?
            }
        };
        for (id, offset) in &targets {
            // First of all, so that a commit of a consumer that does not know yet cannot undo it.
            self.resets.put(topic, group, *id, *offset);
            commit(&self.context, group, topic, *id, *offset).await?;
            self.holds.wake(topic, *id);
        }
        tracing::info!(%topic, %group, timestamp = header.timestamp, ?targets, "offsets reset");
        if self.context.is_in_group() {
            self.tell_readers_of_followers(&header, &targets).await;
        }
        let offset_table = self.table(topic, targets);
        Ok(Command::response(ResponseCode::Success).with_json(&ResetOffsetBody { offset_table }))
    }

    /// Tells those consumers of their new offsets that do not hear of them by their next pull: in a Raft group they may
    /// read from followers, where nobody knows. They stop for ten seconds, and then ask for their offsets.
    async fn tell_readers_of_followers(
        &self,
        header: &ResetOffsetRequestHeader,
        targets: &[(QueueId, QueueOffset)],
    ) {
        let ResetOffsetRequestHeader { topic, group, .. } = header;
        let Some(consumers) = self.clients.consumers(group) else { return };
        if !consumers.subscriptions.contains_key(topic) {
            return;
        }
        let unheard = || {
            let pending = targets.iter().filter(|(id, _)| self.resets.is_pending(topic, group, *id));
            pending.copied().collect::<Vec<_>>()
        };
        let until = tokio::time::Instant::now() + HEAR_WAIT;
        while tokio::time::Instant::now() < until && !unheard().is_empty() {
            tokio::time::sleep(HEAR_WAIT / 20).await;
        }
        let unheard = unheard();
        if unheard.is_empty() {
            return;
        }
        tracing::info!(%topic, %group, queues = unheard.len(), "tell consumers that read elsewhere of their offsets");
        let body = ResetOffsetBody { offset_table: self.table(topic, unheard) };
        for member in consumers.members.values().filter(|m| m.version >= version::V3_0_7_SNAPSHOT) {
            member.connection.send(notice(header, &body, member.language));
        }
    }

    async fn at_clients(
        self,
        header: ResetOffsetRequestHeader,
        language: Language,
    ) -> Result<Command, Error> {
        let ResetOffsetRequestHeader { topic, group, timestamp, .. } = &header;
        let config = self.context.topic(topic)?;
        let ids = (0..config.write_queue_nums).map(QueueId).collect();
        let committed = self.context.metadata.offsets().of_topic(group, topic);
        let mut targets = self.offsets_of_time(topic, ids, *timestamp).await?;
        for (id, offset) in &mut targets {
            let Some(known) = committed.get(id) else {
                return Err(Error::System(format!("THe consumer group <{group}> not exist")));
            };
            if !header.is_force {
                *offset = (*offset).min(*known);
            }
        }
        let consumers = self.clients.consumers(group).ok_or_else(|| {
            Error::ConsumerNotOnline(format!(
                "Consumer not online, so can not reset offset, Group: {group} Topic: {topic} Timestamp: {timestamp}"
            ))
        })?;
        if let Some(old) = consumers.members.values().find(|m| m.version < version::V3_0_7_SNAPSHOT) {
            let text = format!("the client does not support this feature. version={}", old.version);
            return Err(Error::System(text));
        }
        let body = ResetOffsetBody { offset_table: self.table(topic, targets) };
        let notice = notice(&header, &body, language);
        for member in consumers.members.values() {
            member.connection.send(notice.clone());
        }
        Ok(Command::response(ResponseCode::Success).with_json(&body))
    }

    /// Checks an offset that an operator names.
    fn checked_offset(&self, topic: &Topic, id: QueueId, offset: i64) -> Result<QueueOffset, Error> {
        let queue = self.context.store().queues().get(topic, id);
        let (min, max) =
            queue.map_or_else(Default::default, |queue| (queue.min_offset(), queue.max_offset()));
        let wanted = u64::try_from(offset).ok().map(QueueOffset);
        wanted.filter(|wanted| (min..=max.plus(1)).contains(wanted)).ok_or_else(|| {
            Error::System(format!("Target offset {offset} not in consume queue range [{min}-{max}]"))
        })
    }

    /// Finds the offsets of a time; of the end of the queues if it is negative.
    async fn offsets_of_time(
        &self,
        topic: &Topic,
        ids: Vec<QueueId>,
        timestamp: i64,
    ) -> Result<Vec<(QueueId, QueueOffset)>, Error> {
        let (context, topic) = (Arc::clone(&self.context), topic.clone());
        blocking(move || {
            let store = context.store();
            ids.into_iter()
                .map(|id| match timestamp {
                    ..0 => {
                        let queue = store.queues().get(&topic, id);
                        Ok((id, queue.map_or(QueueOffset(0), |queue| queue.max_offset())))
                    }
                    _ => Ok((id, store.offset_by_time(&topic, id, timestamp, Boundary::Lower)?)),
                })
                .collect()
        })
        .await
    }

    fn table(&self, topic: &Topic, offsets: Vec<(QueueId, QueueOffset)>) -> BTreeMap<MessageQueue, i64> {
        let broker_name = &self.context.config().broker_name;
        let queue = |id| MessageQueue {
            broker_name: broker_name.clone(),
            queue_id: number(id),
            topic: topic.clone(),
        };
        offsets.into_iter().map(|(id, offset)| (queue(id), signed(offset))).collect()
    }
}

async fn commit(
    context: &Context,
    group: &Group,
    topic: &Topic,
    queue_id: QueueId,
    offset: QueueOffset,
) -> Result<(), Error> {
    let (group, topic) = (group.clone(), topic.clone());
    context.change(MetadataCommand::CommitOffset { group, topic, queue_id, offset }).await
}

/// Makes RESET_CONSUMER_CLIENT_OFFSET for a client.
fn notice(header: &ResetOffsetRequestHeader, body: &ResetOffsetBody, language: Language) -> Command {
    let header = ResetOffsetRequestHeader { queue_id: None, offset: None, is_force: false, ..header.clone() };
    let notice = Command::request(RequestCode::ResetConsumerClientOffset).with_header(&header);
    match language {
        Language::Cpp => notice.with_json(&for_c(body)),
        _ => notice.with_json(body),
    }
}

/// C++ clients do not read objects as keys.
fn for_c(body: &ResetOffsetBody) -> ResetOffsetBodyForC {
    let entry = |(queue, offset): (&MessageQueue, &i64)| MessageQueueForC {
        broker_name: queue.broker_name.clone(),
        offset: *offset,
        queue_id: queue.queue_id,
        topic: queue.topic.clone(),
    };
    ResetOffsetBodyForC { offset_table: body.offset_table.iter().map(entry).collect() }
}

fn number(id: QueueId) -> i32 {
    i32::try_from(id.0).unwrap_or(i32::MAX)
}

fn signed(offset: QueueOffset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}
