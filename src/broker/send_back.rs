//! CONSUMER_SEND_MSG_BACK (36): a message that could not be consumed comes again later, or goes to the dead letters.
//!
//! Source: RocketMQ `AbstractSendMessageProcessor.consumerSendMsgBack`.

use std::sync::Arc;

use super::context::{Context, blocking};
use super::delay;
use super::response::Error;
use super::send::Target;
use super::stats::Stats;
use crate::message::{Message, OffsetMessageId, Properties, Record, key};
use crate::model::{Perm, PhysicalOffset, QueueId, Topic, TopicConfig};
use crate::remoting::header::ConsumerSendMsgBackRequestHeader;
use crate::remoting::{Command, ResponseCode, version};
use crate::store::Draft;

/// Retries wait at level 3 (10 s) first, then one level longer each time.
const FIRST_RETRY_LEVEL: i32 = 3;

/// Stores a copy for the retry or dead letter topic of the group.
pub(crate) async fn handle(
    context: &Arc<Context>,
    stats: &Stats,
    request: &Command,
) -> Result<Command, Error> {
    let header: ConsumerSendMsgBackRequestHeader = request.header()?;
    let group = context
        .metadata
        .groups()
        .get(&header.group)
        .ok_or_else(|| Error::GroupNotExist(header.group.clone()))?;
    if context.config().broker_permission & Perm::WRITE.0.unsigned_abs() == 0 {
        return Err(Error::NoPermission(format!(
            "the broker[{}] sending message is forbidden",
            context.address.ip()
        )));
    }
    let Ok(retry_queues @ 1..) = u32::try_from(group.retry_queue_nums) else {
        return Ok(Command::response(ResponseCode::Success));
    };
    let retry = Topic::retry_of(&header.group);
    let retry = context.ensure_topic(TopicConfig::new(retry, retry_queues, Perm::READ_WRITE)).await?;
    if !retry.perm.writable() {
        return Err(Error::NoPermission(format!(
            "the topic[{}] sending message is forbidden",
            retry.topic_name
        )));
    }
    let bytes = original(context, &header).await?;
    let record = Record::decode(&bytes).map_err(|error| Error::System(error.to_string()))?;
    let retries_max = match header.max_reconsume_times {
        Some(times) if request.version >= version::V3_4_9 => times,
        _ => group.retry_max_times,
    };
    let draft = if record.reconsume_times >= retries_max || header.delay_level < 0 {
        let dlq = Topic::dlq_of(&header.group);
        context.ensure_topic(TopicConfig::new(dlq.clone(), 1, Perm::READ_WRITE)).await?;
        copy(context, &record, Target { topic: dlq, queue_id: QueueId(0) }, None)?
    } else {
        let level = match header.delay_level {
            0 => FIRST_RETRY_LEVEL + record.reconsume_times,
            level => level,
        };
        let queue_id = QueueId(context.random.below(retry_queues));
        copy(context, &record, Target { topic: retry.topic_name.clone(), queue_id }, Some(level))?
    };
    let origin = record.properties().get(key::RETRY_TOPIC).unwrap_or(record.topic);
    stats.sent_back(&header.group, &Topic::new(origin));
    let pending = context.replication.append(context.replication.permit()?, draft).await?;
    pending.committed().await?;
    Ok(Command::response(ResponseCode::Success))
}

/// Reads the message that is sent back.
async fn original(
    context: &Arc<Context>,
    header: &ConsumerSendMsgBackRequestHeader,
) -> Result<bytes::Bytes, Error> {
    let offset = header.offset;
    let store = Arc::clone(context.store());
    blocking(move || {
        u64::try_from(offset)
            .ok()
            .and_then(|offset| store.log().record(PhysicalOffset(offset)))
            .ok_or_else(|| Error::System(format!("look message by offset failed, {offset}")))
    })
    .await
}

/// Makes the copy of a message that a group gets again at `level`, or that goes to its dead letters.
fn copy(
    context: &Context,
    record: &Record<'_>,
    mut target: Target,
    level: Option<i32>,
) -> Result<Draft, Error> {
    let mut properties = Properties::new(record.properties);
    if properties.get(key::RETRY_TOPIC).is_none() {
        properties.set(key::RETRY_TOPIC, record.topic);
    }
    if properties.get(key::ORIGIN_MESSAGE_ID).is_none() {
        let id = OffsetMessageId { host: record.store_host, offset: record.physical_offset };
        properties.set(key::ORIGIN_MESSAGE_ID, &id.to_string());
    }
    properties.set(key::WAIT, "false");
    properties.remove(key::DELAY);
    if let Some(level) = level {
        properties.set(key::DELAY, &level.to_string());
        delay::park_at_level(&context.config(), level, &mut target, &mut properties);
    }
    Ok(Draft::new(&Message {
        topic: target.topic.as_str(),
        queue_id: target.queue_id.0,
        flag: record.flag,
        sys_flag: record.sys_flag,
        born_timestamp: record.born_timestamp,
        born_host: record.born_host,
        store_host: context.address,
        reconsume_times: record.reconsume_times.saturating_add(1),
        prepared_transaction_offset: 0,
        body: record.body,
        properties: properties.as_str(),
    })?)
}
