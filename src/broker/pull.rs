//! Pulling: PULL_MESSAGE (11), LITE_PULL_MESSAGE (361), held while there is nothing.
//!
//! Order of checks and answers: RocketMQ `PullMessageProcessor`, `DefaultPullMessageResultHandler`.

use std::sync::Arc;
use std::time::Duration;

use super::clients::Clients;
use super::context::{Context, blocking};
use super::hold::Holds;
use super::resets::Resets;
use super::response::Error;
use super::stats::{Got, Stats};
use crate::message::SubscriptionTags;
use crate::metadata::MetadataCommand;
use crate::model::{Perm, QueueId, QueueOffset, SubscriptionGroupConfig, Topic};
use crate::remoting::body::MessageModel;
use crate::remoting::header::{PullMessageRequestHeader, PullMessageResponseHeader};
use crate::remoting::{Answer, Command, ResponseCode};
use crate::store::{Read, ReadLimits, ReadStatus};

/// sysFlag: the header's commitOffset counts. Source: RocketMQ `PullSysFlag`.
const FLAG_COMMIT_OFFSET: i32 = 0x1;
/// sysFlag: the broker may hold the request.
const FLAG_SUSPEND: i32 = 0x2;
/// sysFlag: the header's subscription counts, not that of the last heartbeat.
const FLAG_SUBSCRIPTION: i32 = 0x4;
/// sysFlag: filter by a class, which no version since 4.3 supports.
const FLAG_CLASS_FILTER: i32 = 0x8;

/// What pulls need beside the context.
#[derive(Debug)]
pub(crate) struct Pulls {
    pub(crate) context: Arc<Context>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) holds: Arc<Holds>,
    pub(crate) resets: Arc<Resets>,
    pub(crate) stats: Arc<Stats>,
}

/// Answers with messages, or holds the request until there are some.
pub(crate) async fn handle(pulls: &Arc<Pulls>, request: &Command) -> Result<Answer, Error> {
    let header: PullMessageRequestHeader = request.header()?;
    let pull = pulls.check(&header).await?;
    if header.sys_flag & FLAG_COMMIT_OFFSET != 0 && header.commit_offset >= 0 {
        pulls.commit(&pull, header.commit_offset);
    }
    if header.queue_offset < 0 {
        return Ok(Answer::Now(pulls.answer_below_min(&pull)));
    }
    let pulls = Arc::clone(pulls);
    if pull.is_hot(&pulls.context) {
        let read = pull.read(&pulls)?;
        if !read.cold {
            return Ok(pulls.answer_or_hold(pull, read, &header));
        }
    }
    let suspend = header;
    Ok(Answer::later(async move {
        match pull.read_cold(&pulls).await {
            Ok((pull, read)) => match pulls.answer_or_hold(pull, read, &suspend) {
                Answer::Now(response) => response,
                Answer::Later(response) => response.await,
                Answer::Never => Error::System("a pull is always answered".into()).into(),
            },
            Err(error) => error.into(),
        }
    }))
}

/// A pull that passed the checks.
#[derive(Debug, Clone)]
struct Pull {
    group: Arc<SubscriptionGroupConfig>,
    topic: Topic,
    queue_id: QueueId,
    offset: QueueOffset,
    count_max: usize,
    tags: SubscriptionTags,
    topic_sys_flag: i32,
}

impl Pulls {
    async fn check(&self, header: &PullMessageRequestHeader) -> Result<Pull, Error> {
        let config = self.context.config();
        if config.broker_permission & Perm::READ.0.unsigned_abs() == 0 {
            return Err(forbidden(
                1,
                format!("the broker[{}] pulling message is forbidden", self.context.address.ip()),
            ));
        }
        let group = self.context.group(&header.consumer_group).await?;
        if !group.consume_enable {
            return Err(forbidden(2, format!("subscription group no permission, {}", header.consumer_group)));
        }
        let topic = self.context.topic(&header.topic)?;
        if !topic.perm.readable() {
            return Err(forbidden(3, format!("the topic[{}] pulling message is forbidden", header.topic)));
        }
        let queue_id = u32::try_from(header.queue_id)
            .ok()
            .filter(|id| *id < topic.read_queue_nums)
            .ok_or_else(|| {
                Error::InvalidParameter(format!(
                    "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}]",
                    header.queue_id, header.topic, topic.read_queue_nums
                ))
            })?;
        if header.sys_flag & FLAG_CLASS_FILTER != 0 {
            return Err(Error::NotBuilt("a class filter".into()));
        }
        let tags = if header.sys_flag & FLAG_SUBSCRIPTION != 0 {
            let expression = header.subscription.as_deref().unwrap_or("*");
            check_expression_type(header.expression_type.as_deref())?;
            SubscriptionTags::parse(expression).map_err(Error::SubscriptionParse)?
        } else {
            self.tags_of_heartbeat(header, &group)?
        };
        Ok(Pull {
            group,
            topic: header.topic.clone(),
            queue_id: QueueId(queue_id),
            // Java takes any number; a negative one is below min, see `answer_below_min`.
            offset: QueueOffset(u64::try_from(header.queue_offset).unwrap_or(0)),
            count_max: usize::try_from(header.max_msg_nums).unwrap_or(0),
            tags,
            topic_sys_flag: topic.topic_sys_flag,
        })
    }

    fn tags_of_heartbeat(
        &self,
        header: &PullMessageRequestHeader,
        group: &SubscriptionGroupConfig,
    ) -> Result<SubscriptionTags, Error> {
        let unknown = || {
            Error::SubscriptionNotExist("the consumer's group info not exist; send a heartbeat first".into())
        };
        let consumers = self.clients.consumers(&header.consumer_group).ok_or_else(unknown)?;
        if !group.consume_broadcast_enable && consumers.message_model == MessageModel::Broadcasting {
            return Err(forbidden(
                4,
                format!("the consumer group[{}] can not consume by broadcast way", header.consumer_group),
            ));
        }
        if !self.context.metadata.groups().is_readable(&header.consumer_group, &header.topic) {
            return Err(forbidden(
                5,
                format!(
                    "the consumer group[{}] is forbidden for topic[{}]",
                    header.consumer_group, header.topic
                ),
            ));
        }
        let subscription = consumers.subscriptions.get(&header.topic).ok_or_else(|| {
            Error::SubscriptionNotExist(format!(
                "the consumer's subscription not exist for topic {}",
                header.topic
            ))
        })?;
        if subscription.sub_version < header.sub_version {
            return Err(Error::SubscriptionNotLatest);
        }
        check_expression_type(subscription.expression_type.as_deref())?;
        let expression = subscription.sub_string.as_deref().unwrap_or("*");
        SubscriptionTags::parse(expression).map_err(Error::SubscriptionParse)
    }

    /// Commits without waiting, as Java does for pulls.
    fn commit(&self, pull: &Pull, offset: i64) {
        if self.resets.is_pending(&pull.topic, &pull.group.group_name, pull.queue_id) {
            return;
        }
        let command = MetadataCommand::CommitOffset {
            group: pull.group.group_name.clone(),
            topic: pull.topic.clone(),
            queue_id: pull.queue_id,
            offset: QueueOffset(u64::try_from(offset).unwrap_or(0)),
        };
        let replication = &self.context.replication;
        let committed = replication.permit().and_then(|permit| replication.change(permit, command));
        if let Err(error) = committed {
            tracing::debug!(%error, topic = %pull.topic, "offset of a pull not committed");
        }
    }

    fn answer_or_hold(self: Arc<Self>, pull: Pull, read: Read, header: &PullMessageRequestHeader) -> Answer {
        if let Some(offset) = self.resets.take(&pull.topic, &pull.group.group_name, pull.queue_id) {
            return Answer::Now(self.reset_answer(&pull, &read, offset));
        }
        let empty = status_code(read.status, pull.offset) == ResponseCode::PullNotFound;
        let config = self.context.config();
        if !empty || header.sys_flag & FLAG_SUSPEND == 0 {
            return Answer::Now(self.answer(&pull, &read));
        }
        let wait = if config.long_polling_enable {
            Duration::from_millis(u64::try_from(header.suspend_timeout_millis).unwrap_or(0))
        } else {
            Duration::from_millis(config.short_polling_time_mills)
        };
        let Some(mut hold) = self.holds.hold(&pull.topic, pull.queue_id, pull.offset, pull.tags.clone())
        else {
            return Answer::Now(self.answer(&pull, &read));
        };
        Answer::later(async move {
            // A message may have come between the read and the hold.
            let arrived = self.context.store().queues().get(&pull.topic, pull.queue_id);
            if arrived.is_none_or(|queue| queue.max_offset() <= pull.offset) {
                let _ = tokio::time::timeout(wait, hold.woken()).await;
            }
            drop(hold);
            match pull.read_cold(&self).await {
                Ok((pull, read)) => {
                    match self.resets.take(&pull.topic, &pull.group.group_name, pull.queue_id) {
                        Some(offset) => self.reset_answer(&pull, &read, offset),
                        None => self.answer(&pull, &read),
                    }
                }
                Err(error) => error.into(),
            }
        })
    }

    fn answer(&self, pull: &Pull, read: &Read) -> Command {
        if read.status == ReadStatus::Found {
            let (queue_id, count) = (pull.queue_id, read.records.len());
            let got = Got { queue_id, count, bytes: read.bytes, next: read.next };
            self.stats.got(&pull.group.group_name, &pull.topic, got);
        }
        let response = Command::response(status_code(read.status, pull.offset))
            .with_header(&self.header(pull, read, read.next))
            .with_remark(read.status.name());
        if read.records.is_empty() { response } else { response.with_body(read.records.clone()) }
    }

    /// Answers a pull from a negative offset, which is below any min.
    fn answer_below_min(&self, pull: &Pull) -> Command {
        let zero = QueueOffset(0);
        let queue = self.context.store().queues().get(&pull.topic, pull.queue_id);
        let (min, max) =
            queue.as_ref().map_or((zero, zero), |queue| (queue.min_offset(), queue.max_offset()));
        let status = match queue {
            None => ReadStatus::NoMatchedLogicQueue,
            Some(_) if max == zero => ReadStatus::NoMessageInQueue,
            Some(_) => ReadStatus::OffsetTooSmall,
        };
        let read = Read { status, next: min, min, max, records: Vec::new(), bytes: 0, cold: false };
        Command::response(ResponseCode::PullOffsetMoved)
            .with_header(&self.header(pull, &read, read.next))
            .with_remark(status.name())
    }

    fn reset_answer(&self, pull: &Pull, read: &Read, offset: QueueOffset) -> Command {
        Command::response(ResponseCode::PullOffsetMoved)
            .with_header(&self.header(pull, read, offset))
            .with_remark("OFFSET_RESET")
    }

    fn header(&self, pull: &Pull, read: &Read, next: QueueOffset) -> PullMessageResponseHeader {
        let number = |offset: QueueOffset| i64::try_from(offset.0).unwrap_or(i64::MAX);
        let suggested = match (self.context.config().slave_read_enable, read.cold) {
            (true, true) => pull.group.which_broker_when_consume_slowly,
            (true, false) => pull.group.broker_id,
            (false, _) => 0,
        };
        PullMessageResponseHeader {
            suggest_which_broker_id: suggested,
            next_begin_offset: number(next),
            min_offset: number(read.min),
            max_offset: number(read.max),
            offset_delta: Some(0),
            topic_sys_flag: Some(pull.topic_sys_flag),
            group_sys_flag: Some(pull.group.group_sys_flag),
            forbidden_type: None,
        }
    }
}

impl Pull {
    /// Returns whether reading needs no file: the queue's end, or nothing at all.
    fn is_hot(&self, context: &Context) -> bool {
        context
            .store()
            .queues()
            .get(&self.topic, self.queue_id)
            .is_none_or(|queue| queue.is_in_memory(self.offset))
    }

    /// Finds the records without looking at them.
    fn read(&self, pulls: &Pulls) -> Result<Read, Error> {
        let (context, tags) = (&pulls.context, &self.tags);
        let started = context.clock.instant();
        let read = context.store().read(
            &self.topic,
            self.queue_id,
            self.offset,
            limits(context, self.count_max),
            &|code| tags.matches(code),
        )?;
        pulls.stats.read(read.status == ReadStatus::Found, context.clock.elapsed(started));
        Ok(read)
    }

    /// Reads on a thread that may block, and brings the records into memory, so that no socket waits for the disk.
    async fn read_cold(self, pulls: &Arc<Pulls>) -> Result<(Self, Read), Error> {
        if self.is_hot(&pulls.context) {
            let read = self.read(pulls)?;
            if !read.cold {
                return Ok((self, read));
            }
        }
        let pulls = Arc::clone(pulls);
        blocking(move || {
            let read = self.read(&pulls)?;
            for record in &read.records {
                touch(record);
            }
            Ok((self, read))
        })
        .await
    }
}

/// Reads a byte of each page.
fn touch(bytes: &[u8]) {
    const PAGE: usize = 4096;
    let sum = bytes.iter().step_by(PAGE).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    std::hint::black_box(sum);
}

fn limits(context: &Context, count_wanted: usize) -> ReadLimits {
    let config = context.config();
    let ratio = u64::from(config.access_message_in_memory_max_ratio);
    ReadLimits {
        count_max: count_wanted.min(config.max_transfer_count_on_message_in_memory as usize),
        bytes_max: u64::from(config.max_transfer_bytes_on_message_in_memory),
        cold_count_max: config.max_transfer_count_on_message_in_disk as usize,
        cold_bytes_max: u64::from(config.max_transfer_bytes_on_message_in_disk),
        cold_distance: crate::env::memory_bytes() / 100 * ratio,
    }
}

fn check_expression_type(expression_type: Option<&str>) -> Result<(), Error> {
    match expression_type {
        None | Some("" | "TAG") => Ok(()),
        Some(other) => {
            Err(Error::System(format!("The broker does not support consumer to filter message by {other}")))
        }
    }
}

fn forbidden(forbidden_type: i32, remark: String) -> Error {
    Error::PullForbidden { remark, forbidden_type }
}

/// Source: RocketMQ `PullMessageProcessor.composeResponseHeader`.
fn status_code(status: ReadStatus, offset: QueueOffset) -> ResponseCode {
    match status {
        ReadStatus::Found => ResponseCode::Success,
        ReadStatus::MessageWasRemoving | ReadStatus::NoMatchedMessage => ResponseCode::PullRetryImmediately,
        ReadStatus::OffsetOverflowOne => ResponseCode::PullNotFound,
        ReadStatus::OffsetOverflowBadly | ReadStatus::OffsetTooSmall => ResponseCode::PullOffsetMoved,
        ReadStatus::NoMatchedLogicQueue | ReadStatus::NoMessageInQueue if offset == QueueOffset(0) => {
            ResponseCode::PullNotFound
        }
        ReadStatus::NoMatchedLogicQueue | ReadStatus::NoMessageInQueue => ResponseCode::PullOffsetMoved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_the_codes_of_java() {
        for (status, offset, number) in [
            (ReadStatus::Found, 3, 0),
            (ReadStatus::MessageWasRemoving, 3, 20),
            (ReadStatus::NoMatchedMessage, 3, 20),
            (ReadStatus::OffsetOverflowOne, 3, 19),
            (ReadStatus::OffsetOverflowBadly, 3, 21),
            (ReadStatus::OffsetTooSmall, 3, 21),
            (ReadStatus::NoMatchedLogicQueue, 0, 19),
            (ReadStatus::NoMatchedLogicQueue, 1, 21),
            (ReadStatus::NoMessageInQueue, 0, 19),
            (ReadStatus::NoMessageInQueue, 1, 21),
        ] {
            assert_eq!(status_code(status, QueueOffset(offset)).number(), number, "{status:?} at {offset}");
        }
    }
}
