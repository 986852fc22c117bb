//! Offsets: QUERY_CONSUMER_OFFSET (14), UPDATE_CONSUMER_OFFSET (15), SEARCH_OFFSET_BY_TIMESTAMP (29),
//! GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32).
//!
//! Source: RocketMQ `ConsumerManageProcessor`, `AdminBrokerProcessor`.

use std::sync::Arc;

use super::commits::{Commits, Found, NotProposed};
use super::context::{Context, blocking};
use super::reply::{Reply, later};
use super::resets::Resets;
use super::response::Error;
use crate::model::{QueueId, QueueOffset, Topic};
use crate::remoting::header::{
    GetEarliestMsgStoretimeResponseHeader, GetMaxOffsetRequestHeader, GetMinOffsetRequestHeader,
    OffsetResponseHeader, QueryConsumerOffsetRequestHeader, SearchOffsetRequestHeader,
    UpdateConsumerOffsetRequestHeader,
};
use crate::remoting::{Command, ResponseCode};
use crate::store::Boundary;

/// QUERY_CONSUMER_OFFSET. Without a committed offset: 0 for a young queue, so that a new group misses nothing, else
/// QUERY_NOT_FOUND, on which clients start where they were told to.
pub(crate) fn query(context: &Context, resets: &Resets, request: &Command) -> Result<Command, Error> {
    let header: QueryConsumerOffsetRequestHeader = request.header()?;
    let queue_id = queue_id(header.queue_id)?;
    if context.is_in_group() {
        // A consumer that pulls from followers hears of an offset that an operator set by asking.
        resets.take(&header.topic, &header.consumer_group, queue_id);
    }
    let committed = context.metadata.offsets().get(&header.consumer_group, &header.topic, queue_id);
    if let Some(offset) = committed {
        return Ok(offset_response(offset));
    }
    let not_found =
        || Error::QueryNotFound("Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first".into());
    if header.set_zero_if_not_found == Some(false) {
        return Err(not_found());
    }
    let queue = context.store().queues().get(&header.topic, queue_id);
    let min = queue.as_ref().map_or(QueueOffset(0), |queue| queue.min_offset());
    if min > QueueOffset(0) || !first_is_in_memory(context, &header.topic, queue_id)? {
        return Err(not_found());
    }
    Ok(offset_response(QueueOffset(0)))
}

/// As Java's `checkInMemByConsumeOffset`: true also for an empty queue.
fn first_is_in_memory(context: &Context, topic: &Topic, queue_id: QueueId) -> Result<bool, Error> {
    let Some(queue) = context.store().queues().get(topic, queue_id) else { return Ok(true) };
    let Some(first) = queue.entry(QueueOffset(0))? else { return Ok(true) };
    let ratio = u64::from(context.config().access_message_in_memory_max_ratio);
    let distance = context.store().log().committed().0.saturating_sub(first.position.0);
    Ok(distance <= crate::env::memory_bytes() / 100 * ratio)
}

/// UPDATE_CONSUMER_OFFSET. Answered when committed; a one-way commit is only noted, and committed a moment later.
pub(crate) async fn update(
    context: &Context,
    resets: &Resets,
    commits: &Arc<Commits>,
    request: &Command,
) -> Result<Reply, Error> {
    let header: UpdateConsumerOffsetRequestHeader = request.header()?;
    let group = context.group(&header.consumer_group).await?;
    context.topic(&header.topic)?;
    let queue_id = queue_id(header.queue_id)?;
    let offset = u64::try_from(header.commit_offset).map_err(|_| {
        Error::InvalidParameter(format!("commitOffset[{}] is negative", header.commit_offset))
    })?;
    if resets.is_pending(&header.topic, &group.group_name, queue_id) {
        let response = Command::response(ResponseCode::Success);
        return Ok(response.with_remark("Offset has been previously reset").into());
    }
    let offset = QueueOffset(offset);
    let key = (group.group_name.clone(), header.topic, queue_id);
    let permit = context.replication.permit()?;
    let propose = |command| match request.is_oneway() {
        true => context.replication.note(permit, command).map(|()| None),
        false => context.replication.change(permit, command).map(Some),
    };
    let proposed = commits.propose(context.metadata.offsets(), key, offset, Found::of(request), propose);
    let (change, on_the_way) = proposed.map_err(|error| match error {
        NotProposed::Refused(error) => error.into(),
        NotProposed::Overtaken => Error::Unavailable(format!(
            "commitOffset[{offset}] came late, and the group has committed a newer one meanwhile; commit again to go back"
        )),
    })?;
    let Some(change) = change else { return Ok(Command::response(ResponseCode::Success).into()) };
    Ok(later(async move {
        let _on_the_way = on_the_way;
        change.committed().await?;
        Ok(Command::response(ResponseCode::Success))
    }))
}

/// GET_MAX_OFFSET: behind the last message that can be read.
pub(crate) fn max(context: &Context, request: &Command) -> Result<Command, Error> {
    let header: GetMaxOffsetRequestHeader = request.header()?;
    let queue = context.store().queues().get(&header.topic, queue_id(header.queue_id)?);
    Ok(offset_response(queue.map_or(QueueOffset(0), |queue| queue.max_offset())))
}

/// GET_MIN_OFFSET.
pub(crate) fn min(context: &Context, request: &Command) -> Result<Command, Error> {
    let header: GetMinOffsetRequestHeader = request.header()?;
    let queue = context.store().queues().get(&header.topic, queue_id(header.queue_id)?);
    Ok(offset_response(queue.map_or(QueueOffset(0), |queue| queue.min_offset())))
}

/// SEARCH_OFFSET_BY_TIMESTAMP.
pub(crate) fn search(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let header: SearchOffsetRequestHeader = request.header()?;
    let queue_id = queue_id(header.queue_id)?;
    let boundary = match header.boundary_type.as_deref() {
        Some(text) if text.eq_ignore_ascii_case("upper") => Boundary::Upper,
        _ => Boundary::Lower,
    };
    let context = Arc::clone(context);
    Ok(later(blocking(move || {
        let store = context.store();
        Ok(offset_response(store.offset_by_time(&header.topic, queue_id, header.timestamp, boundary)?))
    })))
}

/// GET_EARLIEST_MSG_STORETIME; -1 if the queue has no message.
pub(crate) fn earliest(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let header: GetMinOffsetRequestHeader = request.header()?;
    let queue_id = queue_id(header.queue_id)?;
    let context = Arc::clone(context);
    Ok(later(blocking(move || {
        let store = context.store();
        let timestamp = store
            .queues()
            .get(&header.topic, queue_id)
            .and_then(|queue| store.queue_timestamp(&header.topic, queue_id, queue.min_offset()));
        let header = GetEarliestMsgStoretimeResponseHeader { timestamp: timestamp.unwrap_or(-1) };
        Ok(Command::response(ResponseCode::Success).with_header(&header))
    })))
}

/// Checks a queue number from the wire.
pub(crate) fn queue_id(number: i32) -> Result<QueueId, Error> {
    u32::try_from(number)
        .map(QueueId)
        .map_err(|_| Error::InvalidParameter(format!("queueId[{number}] is negative")))
}

fn offset_response(offset: QueueOffset) -> Command {
    let offset = i64::try_from(offset.0).unwrap_or(i64::MAX);
    Command::response(ResponseCode::Success).with_header(&OffsetResponseHeader { offset })
}
