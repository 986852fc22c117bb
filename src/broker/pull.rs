//! Pulling: PULL_MESSAGE (11), LITE_PULL_MESSAGE (361), held while there is nothing.
//!
//! Order of checks and answers: RocketMQ `PullMessageProcessor`, `DefaultPullMessageResultHandler`.
//!
//! Every replica of a group answers, from its committed messages. One that does not lead may lag, and deletes old
//! messages at its own pace: it never says that an offset has moved, on which consumers would jump.

use std::sync::Arc;
use std::time::Duration;

use super::clients::Clients;
use super::commits::{Commits, Found};
use super::context::{Context, blocking};
use super::hold::Holds;
use super::reply::{Reply, later};
use super::resets::Resets;
use super::response::Error;
use super::stats::{Got, Stats};
use super::suggest::{self, Choice, Followers, Place};
use crate::config::BrokerConfig;
use crate::filter::{self, Filter};
use crate::metadata::MetadataCommand;
use crate::model::{Perm, QueueId, QueueOffset, SubscriptionGroupConfig, Topic};
use crate::remoting::body::MessageModel;
use crate::remoting::header::{PullMessageRequestHeader, PullMessageResponseHeader};
use crate::remoting::{Command, ResponseCode};
use crate::replication::Role;
use crate::store::{Read, ReadLimits, ReadStatus};

/// sysFlag: the header's commitOffset counts. Source: RocketMQ `PullSysFlag`.
const FLAG_COMMIT_OFFSET: i32 = 0x1;
/// sysFlag: the broker may hold the request.
const FLAG_SUSPEND: i32 = 0x2;
/// sysFlag: the header's subscription counts, not that of the last heartbeat.
const FLAG_SUBSCRIPTION: i32 = 0x4;
/// sysFlag: filter by a class, which no version since 4.3 supports.
const FLAG_CLASS_FILTER: i32 = 0x8;

/// How long a pull waits before it is sent to the leader. A consumer that does not know the leader yet comes back to
/// this replica, and would ask without a pause.
const AT_LEADER_PAUSE: Duration = Duration::from_millis(200);

/// What pulls need beside the context.
#[derive(Debug)]
pub(crate) struct Pulls {
    pub(crate) context: Arc<Context>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) holds: Arc<Holds>,
    pub(crate) resets: Arc<Resets>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) commits: Arc<Commits>,
    pub(crate) followers: Followers,
}

/// Answers with messages, or holds the request until there are some.
pub(crate) async fn handle(pulls: &Arc<Pulls>, request: &Command) -> Result<Reply, Error> {
    let header: PullMessageRequestHeader = request.header()?;
    let pulls = Arc::clone(pulls);
    let pull = match pulls.check(&header).await {
        // What this replica does not know the leader may know: the topic or the group is young, or this process is.
        Err(
            Error::TopicNotExist(_)
            | Error::GroupNotExist(_)
            | Error::InvalidParameter(_)
            | Error::SubscriptionNotExist(_)
            | Error::SubscriptionNotLatest,
        ) if !pulls.context.leads() => return Ok(at_leader(header.queue_offset)),
        checked => checked?,
    };
    if header.sys_flag & FLAG_COMMIT_OFFSET != 0 && header.commit_offset >= 0 {
        pulls.commit(&pull, header.commit_offset);
    }
    if header.queue_offset < 0 {
        return Ok(match pulls.context.leads() {
            true => pulls.answer_below_min(&pull).into(),
            false => at_leader(header.queue_offset),
        });
    }
    let config = pulls.context.config();
    let barrier = config.raft_linearizable_follower_read && !pulls.context.leads();
    if !barrier && pull.is_hot(&pulls.context) {
        let seen = pull.read(&pulls)?;
        if !seen.read.cold {
            return Ok(pulls.answer_or_hold(pull, seen, &header));
        }
    }
    let wait = Duration::from_millis(config.raft_leader_wait_ms);
    Ok(later(async move {
        if barrier {
            pulls.catch_up(wait).await?;
        }
        let (pull, seen) = pull.read_cold(&pulls).await?;
        pulls.answer_or_hold(pull, seen, &header).settled().await
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
    filter: Filter,
    topic_sys_flag: i32,
}

/// What a pull finds.
#[derive(Debug)]
struct Seen {
    read: Read,
    /// Whether this replica led before it read: then it cannot have missed what was committed.
    led: bool,
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
        let group = self.context.group_to_read(&header.consumer_group).await?;
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
        let filter = if header.sys_flag & FLAG_SUBSCRIPTION != 0 {
            let kind = header.expression_type.as_deref();
            check_expression_type(&config, kind)?;
            Filter::compile(kind, header.subscription.as_deref())?
        } else {
            self.filter_of_heartbeat(header, &group, &config)?
        };
        Ok(Pull {
            group,
            topic: header.topic.clone(),
            queue_id: QueueId(queue_id),
            // Java takes any number; a negative one is below min, see `answer_below_min`.
            offset: QueueOffset(u64::try_from(header.queue_offset).unwrap_or(0)),
            count_max: usize::try_from(header.max_msg_nums).unwrap_or(0),
            filter,
            topic_sys_flag: topic.topic_sys_flag,
        })
    }

    fn filter_of_heartbeat(
        &self,
        header: &PullMessageRequestHeader,
        group: &SubscriptionGroupConfig,
        config: &BrokerConfig,
    ) -> Result<Filter, Error> {
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
        if subscription.data.sub_version < header.sub_version {
            return Err(Error::SubscriptionNotLatest);
        }
        let kind = subscription.data.expression_type.as_deref();
        check_expression_type(config, kind)?;
        subscription.filter.clone().map_err(|error| match kind {
            kind if filter::is_by_tags(kind) => Error::SubscriptionParse(error),
            _ => Error::FilterNotExist(error),
        })
    }

    /// Commits without waiting, as Java does for pulls.
    fn commit(&self, pull: &Pull, offset: i64) {
        let (group, topic, queue_id) = (&pull.group.group_name, &pull.topic, pull.queue_id);
        let offset = QueueOffset(u64::try_from(offset).unwrap_or(0));
        let replication = &self.context.replication;
        let Ok(permit) = replication.permit() else {
            let found = Found::now(self.context.metadata.offsets(), group, topic, queue_id);
            self.commits.put(group, topic, queue_id, offset, found);
            return;
        };
        if self.resets.is_pending(topic, group, queue_id) {
            return;
        }
        let (group, topic) = (group.clone(), topic.clone());
        let command = MetadataCommand::CommitOffset { group, topic, queue_id, offset };
        if let Err(error) = replication.note(permit, command) {
            tracing::debug!(%error, topic = %pull.topic, "offset of a pull not committed");
        }
    }

    /// Waits until this replica shows what was acknowledged before.
    async fn catch_up(&self, within: Duration) -> Result<(), Error> {
        match tokio::time::timeout(within, self.context.replication.read_barrier()).await {
            Ok(caught_up) => Ok(caught_up?),
            Err(_) => Err(Error::Unavailable(format!(
                "the leader did not say within {} ms up to where this replica has to read (raftLeaderWaitMs, \
                 raftLinearizableFollowerRead)",
                within.as_millis()
            ))),
        }
    }

    fn answer_or_hold(self: Arc<Self>, pull: Pull, seen: Seen, header: &PullMessageRequestHeader) -> Reply {
        if let Some(response) = self.reset_answer(&pull, &seen.read) {
            return response.into();
        }
        let empty = verdict(&seen, pull.offset).is_empty();
        let config = self.context.config();
        if !empty || header.sys_flag & FLAG_SUSPEND == 0 {
            return self.answer(&pull, &seen);
        }
        let wait = if config.long_polling_enable {
            Duration::from_millis(u64::try_from(header.suspend_timeout_millis).unwrap_or(0))
        } else {
            Duration::from_millis(config.short_polling_time_mills)
        };
        let Some(mut hold) = self.holds.hold(&pull.topic, pull.queue_id, pull.offset, pull.filter.clone())
        else {
            return self.answer(&pull, &seen);
        };
        later(async move {
            // A message may have come between the read and the hold.
            let arrived = self.context.store().queues().get(&pull.topic, pull.queue_id);
            if arrived.is_none_or(|queue| queue.max_offset() <= pull.offset) {
                let _ = tokio::time::timeout(wait, hold.woken()).await;
            }
            drop(hold);
            let (pull, seen) = pull.read_cold(&self).await?;
            match self.reset_answer(&pull, &seen.read) {
                Some(response) => Ok(response),
                None => self.answer(&pull, &seen).settled().await,
            }
        })
    }

    fn answer(&self, pull: &Pull, seen: &Seen) -> Reply {
        let read = &seen.read;
        let code = match verdict(seen, pull.offset) {
            Verdict::Say(code) => code,
            Verdict::NothingYet => {
                // Where the queue of the leader ends, only the leader knows.
                return Command::response(ResponseCode::PullNotFound)
                    .with_header(&self.header(pull, read, pull.offset))
                    .with_remark(read.status.name())
                    .into();
            }
            Verdict::AtLeader => {
                return at_leader(i64::try_from(pull.offset.0).unwrap_or(i64::MAX));
            }
        };
        if read.status == ReadStatus::Found {
            let (queue_id, count) = (pull.queue_id, read.records.len());
            let got = Got { queue_id, count, bytes: read.bytes, next: read.next };
            self.stats.got(&pull.group.group_name, &pull.topic, got);
        }
        let response = Command::response(code)
            .with_header(&self.header(pull, read, read.next))
            .with_remark(read.status.name());
        if read.records.is_empty() {
            response.into()
        } else {
            response.with_body(read.records.clone()).into()
        }
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

    /// Tells a consumer of the offset that an operator set for it, if there is one.
    fn reset_answer(&self, pull: &Pull, read: &Read) -> Option<Command> {
        let offset = self.resets.take(&pull.topic, &pull.group.group_name, pull.queue_id)?;
        let response = Command::response(ResponseCode::PullOffsetMoved)
            .with_header(&self.header(pull, read, offset))
            .with_remark("OFFSET_RESET");
        Some(response)
    }

    fn header(&self, pull: &Pull, read: &Read, next: QueueOffset) -> PullMessageResponseHeader {
        let number = |offset: QueueOffset| i64::try_from(offset.0).unwrap_or(i64::MAX);
        let config = self.context.config();
        let place = match (self.context.follower_id(), &*self.context.role().borrow()) {
            (None, _) => Place::Alone,
            (Some(_), Role::Leader(_)) => Place::Leader,
            (Some(id), Role::Follower { leader, .. }) => Place::Follower { id, led: leader.is_some() },
        };
        let choice = Choice {
            place,
            slave_read: config.slave_read_enable,
            all_from_followers: config.raft_read_from_followers,
            group: &pull.group,
            cold: read.cold,
            found: read.status == ReadStatus::Found,
            spread: suggest::spread(&pull.topic, pull.queue_id),
        };
        let suggested = suggest::choose(&choice, || self.followers.of(&self.context));
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
        let queue = context.store().queues().get(&self.topic, self.queue_id);
        // Many properties may have to be looked at until one message is found.
        self.filter.sql().is_none() && queue.is_none_or(|queue| queue.is_in_memory(self.offset))
    }

    /// Finds the records without looking at them.
    fn read(&self, pulls: &Pulls) -> Result<Seen, Error> {
        let context = &pulls.context;
        let led = context.leads();
        let started = context.clock.instant();
        let read = context.store().read(
            &self.topic,
            self.queue_id,
            self.offset,
            limits(context, self.count_max),
            &self.filter,
        )?;
        pulls.stats.read(read.status == ReadStatus::Found, context.clock.elapsed(started));
        Ok(Seen { read, led })
    }

    /// Reads on a thread that may block, and brings the records into memory, so that no socket waits for the disk.
    async fn read_cold(self, pulls: &Arc<Pulls>) -> Result<(Self, Seen), Error> {
        if self.is_hot(&pulls.context) {
            let seen = self.read(pulls)?;
            if !seen.read.cold {
                return Ok((self, seen));
            }
        }
        let pulls = Arc::clone(pulls);
        blocking(move || {
            let seen = self.read(&pulls)?;
            for record in &seen.read.records {
                touch(record);
            }
            Ok((self, seen))
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

/// Refuses expressions other than those of tags unless `enablePropertyFilter` is on.
pub(crate) fn check_expression_type(
    config: &BrokerConfig,
    expression_type: Option<&str>,
) -> Result<(), Error> {
    match expression_type {
        Some(other) if !filter::is_by_tags(expression_type) && !config.enable_property_filter => {
            Err(Error::System(format!(
                "The broker does not support consumer to filter message by {other}; set enablePropertyFilter=true"
            )))
        }
        _ => Ok(()),
    }
}

fn forbidden(forbidden_type: i32, remark: String) -> Error {
    Error::PullForbidden { remark, forbidden_type }
}

/// Sends a consumer to the leader, where it shall read from the same offset.
fn at_leader(offset: i64) -> Reply {
    let header = PullMessageResponseHeader {
        suggest_which_broker_id: suggest::LEADER,
        next_begin_offset: offset,
        min_offset: 0,
        max_offset: 0,
        offset_delta: Some(0),
        topic_sys_flag: Some(0),
        group_sys_flag: Some(0),
        forbidden_type: None,
    };
    later(async move {
        tokio::time::sleep(AT_LEADER_PAUSE).await;
        Ok(Command::response(ResponseCode::PullRetryImmediately)
            .with_header(&header)
            .with_remark("this replica cannot tell; ask the master"))
    })
}

/// What becomes of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// The answer has this code and goes on where the read ended.
    Say(ResponseCode),
    /// There is nothing at this replica yet, and the consumer shall ask again for the same offset.
    NothingYet,
    /// This replica does not have it any more, but the leader may.
    AtLeader,
}

impl Verdict {
    /// Returns whether a message may come soon.
    fn is_empty(self) -> bool {
        matches!(self, Self::NothingYet | Self::Say(ResponseCode::PullNotFound))
    }
}

/// Source: RocketMQ `PullMessageProcessor.composeResponseHeader`; for followers `nextOffsetCorrection`, which knows no
/// more than that they may lag.
fn verdict(seen: &Seen, offset: QueueOffset) -> Verdict {
    let led = seen.led;
    match seen.read.status {
        ReadStatus::Found => Verdict::Say(ResponseCode::Success),
        ReadStatus::NoMatchedMessage => Verdict::Say(ResponseCode::PullRetryImmediately),
        ReadStatus::OffsetTooSmall | ReadStatus::MessageWasRemoving if !led => Verdict::AtLeader,
        _ if !led => Verdict::NothingYet,
        ReadStatus::MessageWasRemoving => Verdict::Say(ResponseCode::PullRetryImmediately),
        ReadStatus::OffsetOverflowOne => Verdict::Say(ResponseCode::PullNotFound),
        ReadStatus::NoMatchedLogicQueue | ReadStatus::NoMessageInQueue if offset == QueueOffset(0) => {
            Verdict::Say(ResponseCode::PullNotFound)
        }
        ReadStatus::OffsetOverflowBadly
        | ReadStatus::OffsetTooSmall
        | ReadStatus::NoMatchedLogicQueue
        | ReadStatus::NoMessageInQueue => Verdict::Say(ResponseCode::PullOffsetMoved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: ReadStatus, led: bool) -> Seen {
        let zero = QueueOffset(0);
        let read =
            Read { status, next: zero, min: zero, max: zero, records: Vec::new(), bytes: 0, cold: false };
        Seen { read, led }
    }

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
            let Verdict::Say(code) = verdict(&seen(status, true), QueueOffset(offset)) else {
                panic!("{status:?} at {offset}")
            };
            assert_eq!(code.number(), number, "{status:?} at {offset}");
        }
    }

    #[test]
    fn a_follower_never_makes_a_consumer_jump() {
        for (status, expected) in [
            (ReadStatus::Found, Verdict::Say(ResponseCode::Success)),
            (ReadStatus::NoMatchedMessage, Verdict::Say(ResponseCode::PullRetryImmediately)),
            (ReadStatus::MessageWasRemoving, Verdict::AtLeader),
            (ReadStatus::OffsetTooSmall, Verdict::AtLeader),
            (ReadStatus::OffsetOverflowOne, Verdict::NothingYet),
            (ReadStatus::OffsetOverflowBadly, Verdict::NothingYet),
            (ReadStatus::NoMatchedLogicQueue, Verdict::NothingYet),
            (ReadStatus::NoMessageInQueue, Verdict::NothingYet),
        ] {
            for offset in [0, 3] {
                assert_eq!(
                    verdict(&seen(status, false), QueueOffset(offset)),
                    expected,
                    "{status:?} at {offset}"
                );
            }
        }
    }
}
