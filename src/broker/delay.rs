//! Delay levels: messages wait in SCHEDULE_TOPIC_XXXX, one queue a level, and are stored again when they are due.
//!
//! Source: RocketMQ `ScheduleMessageService`, `HookUtils.handleScheduleMessage`.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::context::{Context, blocking};
use super::response::Error;
use super::send::Target;
use crate::config::BrokerConfig;
use crate::filter::Filter;
use crate::message::{Message, Properties, Record, SysFlag, key};
use crate::metadata::MetadataCommand;
use crate::model::{QueueId, QueueOffset, Topic, system_topic};
use crate::remoting::header::SendMessageHeader;
use crate::replication::LeaderPermit;
use crate::store::{Draft, ReadLimits, ReadStatus};

/// How often a level without due messages is looked at, as Java's `DELAY_FOR_A_WHILE`.
const IDLE: Duration = Duration::from_millis(100);
/// How long a level waits after a failure. Java waits 10 s (`DELAY_FOR_A_PERIOD`); a group has a new leader long before.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Messages of one level that are on their way into the log at a time.
const TURN: usize = 64;

/// Sends a message with a delay level to where it waits. Timed messages (`TIMER_*`) are not built yet.
pub(super) fn park(
    config: &BrokerConfig,
    header: &SendMessageHeader,
    target: &mut Target,
    properties: &mut Properties<'_>,
) -> Result<(), Error> {
    let level = properties.get(key::DELAY).and_then(|level| level.parse::<i32>().ok()).unwrap_or(0);
    if level > 0 && SysFlag(header.sys_flag).is_queued() && !target.topic.is_dlq() {
        park_at_level(config, level, target, properties);
        return Ok(());
    }
    let timed = [key::TIMER_DELAY_SEC, key::TIMER_DELAY_MS, key::TIMER_DELIVER_MS];
    match timed.into_iter().find(|name| properties.get(name).is_some()) {
        Some(name) => Err(Error::NotBuilt(format!("a timed message ({name})"))),
        None => Ok(()),
    }
}

/// Puts the real topic and queue into the properties, and the delay topic in their place. A level above the highest
/// counts as the highest.
pub(super) fn park_at_level(
    config: &BrokerConfig,
    level: i32,
    target: &mut Target,
    properties: &mut Properties<'_>,
) {
    let highest = u32::try_from(config.delay_levels_ms().len()).unwrap_or(u32::MAX).max(1);
    let level = u32::try_from(level).unwrap_or(1).clamp(1, highest);
    properties.set(key::DELAY, &level.to_string());
    properties.set(key::REAL_TOPIC, target.topic.as_str());
    properties.set(key::REAL_QID, &target.queue_id.to_string());
    *target = Target { topic: Topic::new(system_topic::SCHEDULE), queue_id: QueueId(level - 1) };
}

/// Delivers due messages of all levels while this replica leads, until told to stop.
pub(crate) async fn run(context: Arc<Context>, permit: LeaderPermit, stop: watch::Receiver<bool>) {
    // Dropped, it ends its tasks: what they have handed in by then may still be committed, and is delivered again.
    let mut levels = JoinSet::new();
    for (number, delay_ms) in (1u32..).zip(context.config().delay_levels_ms()) {
        levels.spawn(run_level(Arc::clone(&context), permit, Level { number, delay_ms }, stop.clone()));
    }
    while levels.join_next().await.is_some() {}
}

#[derive(Debug, Clone, Copy)]
struct Level {
    number: u32,
    delay_ms: u64,
}

async fn run_level(
    context: Arc<Context>,
    permit: LeaderPermit,
    level: Level,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let wait = match deliver_due(&context, permit, level).await {
            Ok(Progress::More) => Duration::ZERO,
            Ok(Progress::Idle(wait)) => wait,
            // The permit has ended, or is about to; if not, the level goes on.
            Err(error) if error.is_not_leader() => IDLE,
            Err(error) => {
                tracing::warn!(level = level.number, %error, "delayed messages not delivered; tried again later");
                AFTER_FAILURE
            }
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

enum Progress {
    /// There may be more due messages.
    More,
    /// Nothing is due for so long.
    Idle(Duration),
}

/// Delivers one turn of due messages.
async fn deliver_due(context: &Arc<Context>, permit: LeaderPermit, level: Level) -> Result<Progress, Error> {
    let topic = Topic::new(system_topic::SCHEDULE);
    let queue_id = QueueId(level.number - 1);
    let from = context.metadata.delay().get(level.number);
    let Some(queue) = context.store().queues().get(&topic, queue_id) else { return Ok(Progress::Idle(IDLE)) };
    if queue.max_offset() <= from {
        return Ok(Progress::Idle(IDLE));
    }
    let store = Arc::clone(context.store());
    let limits = ReadLimits {
        count_max: TURN,
        bytes_max: 4 << 20,
        cold_count_max: TURN,
        cold_bytes_max: 4 << 20,
        cold_distance: u64::MAX,
    };
    let read = blocking(move || Ok(store.read(&topic, queue_id, from, limits, &Filter::All)?)).await?;
    let mut next = from;
    match read.status {
        ReadStatus::Found => {}
        ReadStatus::OffsetTooSmall | ReadStatus::MessageWasRemoving => next = read.next.max(read.min),
        _ => return Ok(Progress::Idle(IDLE)),
    }
    let now_ms = context.clock.now_ms();
    let mut pending = Vec::new();
    let mut wait = None;
    for bytes in &read.records {
        let record = Record::decode(bytes).map_err(|error| Error::System(error.to_string()))?;
        let due_ms = due_ms(&record, level, now_ms);
        if due_ms > now_ms {
            wait = Some(Duration::from_millis(u64::try_from(due_ms - now_ms).unwrap_or(0)).min(IDLE));
            break;
        }
        let after = record.queue_offset.plus(1);
        let draft = match delivered(&record) {
            Ok(draft) => {
                // Together: a new leader delivers what is not committed, and nothing twice.
                let progress = MetadataCommand::CommitDelay { level: level.number, offset: after };
                Some(context.replication.append_with(permit, draft, progress).await?)
            }
            Err(error) => {
                tracing::error!(queue_offset = %record.queue_offset, %error, "delayed message cannot be delivered");
                None
            }
        };
        pending.push((after, draft));
    }
    let mut failed = None;
    for (after, append) in pending {
        if let Some(append) = append
            && let Err(error) = append.committed().await
        {
            failed = Some(error);
            break;
        }
        next = after;
    }
    // What was left out has no message to be committed with.
    if next > context.metadata.delay().get(level.number) {
        let command = MetadataCommand::CommitDelay { level: level.number, offset: next };
        context.replication.change(permit, command)?.committed().await?;
    }
    match (failed, wait) {
        (Some(error), _) => Err(error.into()),
        (None, Some(wait)) => Ok(Progress::Idle(wait)),
        (None, None) => Ok(Progress::More),
    }
}

/// Returns when a message is due. One further away than its level allows, after a change of the clock, is due now.
fn due_ms(record: &Record<'_>, level: Level, now_ms: i64) -> i64 {
    let delay_ms = i64::try_from(level.delay_ms).unwrap_or(i64::MAX);
    let due_ms = record.store_timestamp.saturating_add(delay_ms);
    if due_ms > now_ms.saturating_add(delay_ms) { now_ms } else { due_ms }
}

/// Makes the message that the consumer gets.
fn delivered(record: &Record<'_>) -> Result<Draft, Error> {
    let mut properties = Properties::new(record.properties);
    let missing = |name| Error::System(format!("the property {name} is missing"));
    let topic = properties.get(key::REAL_TOPIC).ok_or_else(|| missing(key::REAL_TOPIC))?.to_owned();
    let queue_id =
        properties.get(key::REAL_QID).and_then(|id| id.parse().ok()).ok_or_else(|| missing(key::REAL_QID))?;
    for name in [key::DELAY, key::REAL_TOPIC, key::REAL_QID, key::TIMER_DELIVER_MS, key::TIMER_DELAY_SEC] {
        properties.remove(name);
    }
    properties.set(key::WAIT, "false");
    Ok(Draft::new(&Message {
        topic: &topic,
        queue_id,
        flag: record.flag,
        sys_flag: record.sys_flag,
        born_timestamp: record.born_timestamp,
        born_host: record.born_host,
        store_host: record.store_host,
        reconsume_times: record.reconsume_times,
        prepared_transaction_offset: 0,
        body: record.body,
        properties: properties.as_str(),
    })?)
}

/// Returns the offset up to which a level is delivered and the end of its queue, for the runtime table.
pub(crate) fn progress(context: &Context, level: u32) -> (QueueOffset, QueueOffset) {
    let queue = context.store().queues().get(&Topic::new(system_topic::SCHEDULE), QueueId(level - 1));
    (context.metadata.delay().get(level), queue.map_or(QueueOffset(0), |queue| queue.max_offset()))
}
