//! Cleaning on demand: CLEAN_EXPIRED_CONSUMEQUEUE (306), CLEAN_UNUSED_TOPIC (316), DELETE_EXPIRED_COMMITLOG (329).
//!
//! Source: RocketMQ `AdminBrokerProcessor`, `DefaultMessageStore`.

use std::sync::Arc;

use super::context::{Context, blocking};
use super::reply::{Reply, later};
use super::topics;
use crate::metadata::MetadataCommand;
use crate::model::{Topic, system_topic};
use crate::remoting::{Command, ResponseCode};

/// CLEAN_EXPIRED_CONSUMEQUEUE: takes out of the queues what is no longer in the log.
pub(crate) fn expired_queues(context: &Arc<Context>) -> Reply {
    let context = Arc::clone(context);
    later(blocking(move || {
        context.store().delete_expired_entries()?;
        Ok(Command::response(ResponseCode::Success))
    }))
}

/// DELETE_EXPIRED_COMMITLOG: deletes what is older than `fileReservedTime` without waiting for `deleteWhen`.
pub(crate) fn expired_segments(context: &Arc<Context>) -> Reply {
    let context = Arc::clone(context);
    later(blocking(move || {
        let segments = context.store().delete_old_segments()?;
        tracing::info!(segments, "expired segments deleted on demand");
        Ok(Command::response(ResponseCode::Success))
    }))
}

/// CLEAN_UNUSED_TOPIC: deletes the queues of topics that there are no more.
pub(crate) fn unused_topics(context: &Arc<Context>) -> Reply {
    let context = Arc::clone(context);
    later(async move {
        for topic in context.store().queues().topics() {
            if context.metadata.topics().get(&topic).is_none() && !is_kept(&context, &topic) {
                tracing::info!(%topic, "queues of a topic that is gone deleted");
                context.change(MetadataCommand::DeleteTopic(topic)).await?;
            }
        }
        Ok(Command::response(ResponseCode::Success))
    })
}

/// Queues of the broker itself stay, also those that have no settings.
fn is_kept(context: &Context, topic: &Topic) -> bool {
    topics::is_system(&context.config(), topic) || topic.as_str() == system_topic::RAFT_LOG
}
