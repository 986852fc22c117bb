//! Sending: SEND_MESSAGE (10), SEND_MESSAGE_V2 (310), SEND_BATCH_MESSAGE (320).
//!
//! Order of checks and answers: RocketMQ `SendMessageProcessor`, `AbstractSendMessageProcessor.msgCheck`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::forward::client_of;
use super::locks::Locks;
use super::reply::{Reply, later};
use super::response::Error;
use super::stats::{MessageType, Put, Stats};
use crate::message::{
    BatchMessage, Message, OffsetMessageId, PROPERTIES_MAX, Properties, SysFlag, decode_batch, key,
};
use crate::model::{Perm, QueueId, Topic, TopicConfig, system_topic};
use crate::remoting::header::{SendMessageHeader, SendMessageResponseHeader};
use crate::remoting::{Command, Connection, ResponseCode, version};
use crate::replication::PendingAppend;
use crate::store::{Appended, Draft};

/// Body limit of a request whose messages are below `maxMessageSize` each: as Java's, the same for a batch.
const TOPIC_BYTES_MAX: usize = 127;

/// Takes a message or a batch. Resolves when its place in the log is fixed; the answer follows the commit.
pub(crate) async fn handle(
    context: &Arc<Context>,
    locks: &Locks,
    stats: &Arc<Stats>,
    connection: &Connection,
    request: &Command,
) -> Result<Reply, Error> {
    let header = SendMessageHeader::of(request)?;
    let config = context.config();
    check_started(context)?;
    let topic = resolve_topic(context, &header).await?;
    let mut target =
        Target { queue_id: choose_queue(context, &header, &topic)?, topic: topic.topic_name.clone() };
    if target.topic.is_retry() {
        redirect_to_dlq(context, locks, request, &header, &mut target).await?;
    }
    let body = request.body.to_bytes();
    if body.len() > config.max_message_size as usize {
        return Err(Error::MessageIllegal(format!(
            "the body has {} bytes, maxMessageSize is {}",
            body.len(),
            config.max_message_size
        )));
    }
    let properties = header.properties.clone().unwrap_or_default();
    let batch = header.batch.unwrap_or(false);
    let message_type = MessageType::of(&Properties::new(&properties));
    let sender = Sender { context, header: &header, born_host: client_of(connection, request) };
    let (draft, unique_key) = if batch {
        (
            sender.batch_draft(
                &target,
                decode_batch(body).map_err(|e| Error::MessageIllegal(e.to_string()))?,
            )?,
            None,
        )
    } else {
        let mut properties = Properties::new(&properties);
        properties.remove(key::POP_CK);
        let unique_key = match properties.get(key::UNIQ_KEY) {
            Some(unique_key) => unique_key.to_owned(),
            None => {
                let unique_key = context.unique_ids.next();
                properties.set(key::UNIQ_KEY, &unique_key);
                unique_key
            }
        };
        // Consumers read these of the message, as Java's broker stores them.
        properties.set(key::MSG_REGION, &config.region_id);
        properties.set(key::TRACE_ON, if config.trace_on { "true" } else { "false" });
        properties.set(key::CLUSTER, &config.broker_cluster_name);
        super::delay::park(&config, &header, &mut target, &mut properties)?;
        (sender.single_draft(&target, &body, &properties)?, Some(unique_key))
    };
    let started = context.clock.instant();
    // What is only written here would be lost with this replica, so in a group everybody waits for the commit.
    let in_group = context.is_in_group();
    let wait = in_group || batch || Properties::new(&properties).get(key::WAIT) != Some("false");
    let bytes = draft.len();
    let count = draft.count();
    let pending = context.replication.append(context.replication.permit()?, draft).await?;
    let answer = Answering {
        context: Arc::clone(context),
        stats: Arc::clone(stats),
        topic: header.topic,
        queue_id: target.queue_id,
        unique_key: unique_key.or_else(|| Properties::new(&properties).get(key::UNIQ_KEY).map(str::to_owned)),
        message_type,
        bytes,
        count,
        started,
        wait,
    };
    Ok(later(answer.finish(pending)))
}

/// Where a message is stored.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) topic: Topic,
    pub(super) queue_id: QueueId,
}

/// Refuses before the time from which sends are taken.
pub(super) fn check_started(context: &Context) -> Result<(), Error> {
    let from = context.config().start_accept_send_request_time_stamp;
    if context.clock.now_ms() < from {
        return Err(Error::System(format!(
            "broker unable to service, until {from} (startAcceptSendRequestTimeStamp)"
        )));
    }
    Ok(())
}

pub(super) async fn resolve_topic(
    context: &Context,
    header: &SendMessageHeader,
) -> Result<Arc<TopicConfig>, Error> {
    let topic = &header.topic;
    let known = context.metadata.topics().get(topic);
    let broker_writable = context.config().broker_permission & Perm::WRITE.0.unsigned_abs() != 0;
    if !broker_writable && known.as_ref().is_some_and(|config| config.order) {
        return Err(Error::NoPermission(format!(
            "the broker[{}] sending message is forbidden",
            context.address.ip()
        )));
    }
    topic.check()?;
    if system_topic::NOT_ALLOWED_TO_SEND.contains(&topic.as_str()) {
        return Err(Error::NoPermission(format!("Sending message to topic[{topic}] is forbidden.")));
    }
    match known {
        Some(config) => Ok(config),
        None if topic.is_retry() => {
            context.ensure_topic(TopicConfig::new(topic.clone(), 1, Perm::READ_WRITE)).await
        }
        None => {
            context.auto_create_topic(topic, &header.default_topic, header.default_topic_queue_nums).await
        }
    }
}

pub(super) fn choose_queue(
    context: &Context,
    header: &SendMessageHeader,
    topic: &TopicConfig,
) -> Result<QueueId, Error> {
    let queues = topic.read_queue_nums.max(topic.write_queue_nums);
    match u32::try_from(header.queue_id) {
        Ok(id) if id < queues => Ok(QueueId(id)),
        Ok(id) => Err(Error::InvalidParameter(format!(
            "request queueId[{id}] is illegal, topic[{}] has {} queues to read and {} to write",
            topic.topic_name, topic.read_queue_nums, topic.write_queue_nums
        ))),
        Err(_) => Ok(QueueId(context.random.below(topic.write_queue_nums))),
    }
}

/// Sends a retry to the dead letter topic if it was tried too often, or if the group consumes in order.
/// Source: RocketMQ `SendMessageProcessor.handleRetryAndDLQ`.
async fn redirect_to_dlq(
    context: &Context,
    locks: &Locks,
    request: &Command,
    header: &SendMessageHeader,
    target: &mut Target,
) -> Result<(), Error> {
    let Some(group) = target.topic.retry_group() else { return Ok(()) };
    let group_config = context.group(&group).await?;
    let retries_max = match header.max_reconsume_times {
        Some(times) if request.version >= version::V3_4_9 => times,
        _ => group_config.retry_max_times,
    };
    if header.reconsume_times.unwrap_or(0) > retries_max || locks.is_locked(&group) {
        let dlq = context.ensure_topic(TopicConfig::new(Topic::dlq_of(&group), 1, Perm::READ_WRITE)).await?;
        *target = Target { topic: dlq.topic_name.clone(), queue_id: QueueId(0) };
    }
    Ok(())
}

/// Makes drafts from a send request.
pub(super) struct Sender<'a> {
    pub(super) context: &'a Context,
    pub(super) header: &'a SendMessageHeader,
    pub(super) born_host: SocketAddr,
}

impl Sender<'_> {
    pub(super) fn single_draft(
        &self,
        target: &Target,
        body: &[u8],
        properties: &Properties<'_>,
    ) -> Result<Draft, Error> {
        let sys_flag = SysFlag(self.header.sys_flag);
        let half = properties.get(key::TRAN_MSG).is_some_and(|half| half.eq_ignore_ascii_case("true"));
        if half || sys_flag.transaction() != 0 {
            return Err(Error::NotBuilt("a transactional message".into()));
        }
        check_lengths(&target.topic, properties.as_str())?;
        let message = self.message(target, self.header.flag, body, properties.as_str());
        Ok(Draft::new(&message)?)
    }

    fn batch_draft(&self, target: &Target, messages: Vec<BatchMessage>) -> Result<Draft, Error> {
        if target.topic.is_retry() {
            return Err(Error::MessageIllegal("batch request does not support retry group".into()));
        }
        let mut draft: Option<Draft> = None;
        for one in &messages {
            let properties = Properties::new(&one.properties).terminated();
            if properties.get(key::DELAY).is_some() {
                return Err(Error::MessageIllegal("batch request does not support delayed messages".into()));
            }
            check_lengths(&target.topic, properties.as_str())?;
            let message = self.message(target, one.flag, &one.body, properties.as_str());
            match &mut draft {
                Some(draft) => draft.push(&message)?,
                None => draft = Some(Draft::new(&message)?),
            }
        }
        draft.ok_or_else(|| Error::MessageIllegal("the batch has no message".into()))
    }

    fn message<'b>(&self, target: &'b Target, flag: i32, body: &'b [u8], properties: &'b str) -> Message<'b> {
        Message {
            topic: target.topic.as_str(),
            queue_id: target.queue_id.0,
            flag,
            sys_flag: SysFlag(self.header.sys_flag),
            born_timestamp: self.header.born_timestamp,
            born_host: self.born_host,
            store_host: self.context.address,
            reconsume_times: self.header.reconsume_times.unwrap_or(0),
            prepared_transaction_offset: 0,
            body,
            properties,
        }
    }
}

fn check_lengths(topic: &Topic, properties: &str) -> Result<(), Error> {
    if topic.as_str().len() > TOPIC_BYTES_MAX && !topic.is_retry() && !topic.is_dlq() {
        return Err(Error::MessageIllegal(format!(
            "message topic length {} is greater than {TOPIC_BYTES_MAX}",
            topic.as_str().len()
        )));
    }
    if properties.len() > PROPERTIES_MAX {
        return Err(Error::MessageIllegal(format!(
            "message properties length {} is greater than {PROPERTIES_MAX}",
            properties.len()
        )));
    }
    Ok(())
}

/// What the answer needs when the commit comes.
struct Answering {
    context: Arc<Context>,
    stats: Arc<Stats>,
    topic: Topic,
    queue_id: QueueId,
    unique_key: Option<String>,
    message_type: MessageType,
    bytes: usize,
    count: usize,
    started: Instant,
    wait: bool,
}

impl Answering {
    async fn finish(self, pending: PendingAppend) -> Result<Command, Error> {
        let timeout = Duration::from_millis(self.context.config().sync_flush_timeout);
        let committed = async { if self.wait { pending.committed().await } else { pending.written().await } };
        match tokio::time::timeout(timeout, committed).await {
            Ok(Ok(appended)) => {
                let elapsed = self.context.clock.elapsed(self.started);
                let Self { queue_id, message_type, count, bytes, .. } = self;
                self.stats.put(&self.topic, Put { queue_id, message_type, count, bytes, elapsed });
                Ok(self.respond(ResponseCode::Success, &appended))
            }
            Ok(Err(error)) => {
                self.stats.put_failed();
                Err(error.into())
            }
            // It may yet be committed, or be lost with this replica: no status of a stored message says that.
            Err(_) if self.context.is_in_group() => Err(Error::Unavailable(format!(
                "the message was not committed within {} ms (syncFlushTimeout), but may be later; send again",
                timeout.as_millis()
            ))),
            // Written but not yet synced: the client learns where it is and that it may not be safe.
            Err(_) => match tokio::time::timeout(Duration::ZERO, pending.written()).await {
                Ok(Ok(appended)) => Ok(self.respond(ResponseCode::FlushDiskTimeout, &appended)),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(Error::Busy(format!(
                    "[TIMEOUT]the message was not written within {} ms (syncFlushTimeout)",
                    timeout.as_millis()
                ))),
            },
        }
    }

    fn respond(&self, code: ResponseCode, appended: &Appended) -> Command {
        let answer = Command::response(code).with_header(&SendMessageResponseHeader {
            msg_id: message_ids(self.context.address, appended),
            queue_id: i32::try_from(self.queue_id.0).unwrap_or(i32::MAX),
            queue_offset: i64::try_from(appended.queue_offset.0).unwrap_or(i64::MAX),
            transaction_id: self.unique_key.clone(),
            batch_uniq_id: None,
            recall_handle: None,
        });
        with_fields(&self.context, answer)
    }
}

/// Adds what clients read of every answer to a send.
pub(super) fn with_fields(context: &Context, answer: Command) -> Command {
    let config = context.config();
    answer
        .with_field(key::MSG_REGION, config.region_id.clone())
        .with_field(key::TRACE_ON, config.trace_on.to_string())
}

/// Returns the offset message ids of all records, separated by commas.
pub(super) fn message_ids(host: SocketAddr, appended: &Appended) -> String {
    let mut ids = String::with_capacity(33 * appended.starts.len());
    for start in &appended.starts {
        if !ids.is_empty() {
            ids.push(',');
        }
        let id = OffsetMessageId { host, offset: appended.position.plus(u64::from(*start)) };
        write!(ids, "{id}").expect("a string takes all");
    }
    ids
}
