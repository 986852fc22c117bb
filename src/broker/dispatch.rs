//! Which handler serves which request code: the table to look a code up in. The first column, [`who`], says which
//! replica of a group answers; the second, [`handle`], how.

use std::sync::Arc;

use tokio::time::Instant;

use super::forward::Effect;
use super::progress::{self, Progress};
use super::reply::{Reply, later};
use super::reset::{self, Resetting};
use super::response::Error;
use super::{
    Broker, call_client, cleaning, commits, connections, forward, group_admin, groups, ha, heartbeat, locks,
    offsets, pull, query, request_reply, runtime, send, send_back, settings, stats, topics,
};
use crate::remoting::{Answer, Command, Connection, RequestCode};

/// Which replica of a group answers a request. A broker without replicas answers all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The leader; other replicas hand the request on to it.
    Leader(Effect),
    /// The one that is asked, from what it has itself.
    AnyReplica,
    /// The leader if the update names settings of the group, else the one that is asked.
    BySettings,
    /// None: the code is not served.
    Nobody,
}

/// The first column of the table.
#[rustfmt::skip]
fn who(code: RequestCode) -> Who {
    use RequestCode as Code;
    match code {
        // What is to be committed.
        Code::SendMessage | Code::SendMessageV2 | Code::SendBatchMessage
        | Code::SendReplyMessage | Code::SendReplyMessageV2
        | Code::ConsumerSendMsgBack => Who::Leader(Effect::Store),
        Code::UpdateAndCreateTopic | Code::UpdateAndCreateTopicList | Code::DeleteTopicInBroker
        | Code::UpdateAndCreateSubscriptiongroup | Code::UpdateAndCreateSubscriptiongroupList
        | Code::DeleteSubscriptiongroup | Code::UpdateAndGetGroupForbidden
        | Code::InvokeBrokerToResetOffset | Code::CloneGroupOffset
        | Code::CleanUnusedTopic => Who::Leader(Effect::Change),
        // Refused if it was overtaken: see `commits.rs`.
        Code::UpdateConsumerOffset
        // What has to be the newest: where to go on, the ends of queues, what was just made.
        | Code::QueryConsumerOffset | Code::QueryCorrectionOffset
        | Code::GetMaxOffset | Code::GetMinOffset | Code::GetEarliestMsgStoretime | Code::SearchOffsetByTimestamp
        | Code::GetTopicConfig | Code::GetSubscriptiongroupConfig
        | Code::GetTopicStatsInfo | Code::GetConsumeStats | Code::GetBrokerConsumeStats
        | Code::QueryTopicConsumeByWho | Code::QueryConsumeTimeSpan | Code::QueryTopicsByConsumer
        // What only one may give away, which is its holder's however often it asks.
        | Code::LockBatchMq | Code::UnlockBatchMq => Who::Leader(Effect::Repeatable),

        // Committed messages are the same everywhere.
        Code::PullMessage | Code::LitePullMessage | Code::QueryMessage | Code::ViewMessageById
        | Code::QueryConsumeQueue
        // Clients are known to the replicas that they are connected to; consumers connect to all.
        | Code::HeartBeat | Code::UnregisterClient | Code::GetConsumerListByGroup | Code::CheckClientConfig
        | Code::GetConsumerConnectionList | Code::GetProducerConnectionList | Code::GetAllProducerInfo
        | Code::GetConsumerRunningInfo | Code::ConsumeMessageDirectly | Code::InvokeBrokerToGetConsumerStatus
        | Code::QuerySubscriptionByConsumer
        // About this replica itself: its tables as they are, its disk, its settings, its counters.
        | Code::GetAllTopicConfig | Code::GetAllSubscriptiongroupConfig | Code::GetSystemTopicListFromBroker
        | Code::GetAllConsumerOffset | Code::GetAllDelayOffset
        | Code::CleanExpiredConsumequeue | Code::DeleteExpiredCommitlog
        | Code::GetBrokerConfig
        | Code::GetBrokerRuntimeInfo | Code::ViewBrokerStatsData | Code::GetBrokerHaStatus
        // Takes longer than a request is handed on for: operators ask the leader itself.
        | Code::GetRaftStatus | Code::RaftAddPeer | Code::RaftRemovePeer | Code::RaftTransferLeader
        | Code::RaftRejoin => Who::AnyReplica,

        Code::UpdateBrokerConfig => Who::BySettings,

        _ => Who::Nobody,
    }
}

/// Carries a request out, here or at the leader. What goes wrong becomes an answer, too.
pub(super) async fn dispatch(broker: &Arc<Broker>, connection: &Connection, request: Command) -> Answer {
    let Some(code) = request.request_code() else {
        return Answer::Now(Error::UnknownRequest(request.code).into());
    };
    match who(code) {
        Who::Leader(effect) if broker.context.is_in_group() => {
            at_leader(broker, connection, (code, effect), request).await
        }
        Who::BySettings if broker.context.is_in_group() && settings::is_for_group(&request) => {
            settings_at_leader(broker, connection, code, request).await
        }
        Who::Leader(_) | Who::AnyReplica | Who::BySettings => {
            match handle(broker, connection, code, &request).await {
                Ok(Reply::Now(answer)) => Answer::Now(answer),
                Ok(Reply::Later(reply)) => {
                    let broker = Arc::clone(broker);
                    Answer::later(
                        async move { reply.await.unwrap_or_else(|error| refused(&broker, code, error)) },
                    )
                }
                Err(error) => Answer::Now(refused(broker, code, error)),
            }
        }
        Who::Nobody => Answer::Now(not_built(code).into()),
    }
}

/// Carries a request of the leader's out: here while this replica leads, and at the leader when it turns out that it
/// does not.
async fn at_leader(
    broker: &Arc<Broker>,
    connection: &Connection,
    (code, effect): (RequestCode, Effect),
    request: Command,
) -> Answer {
    let arrived = Instant::now();
    let request = match code {
        RequestCode::UpdateConsumerOffset => {
            commits::marked(&broker.commits, broker.context.metadata.offsets(), request)
        }
        _ => request,
    };
    if broker.context.replication.holds_lease() {
        match handle(broker, connection, code, &request).await {
            Ok(Reply::Now(answer)) => return Answer::Now(answer),
            Ok(Reply::Later(reply)) => {
                let (broker, connection) = (Arc::clone(broker), connection.clone());
                return Answer::later(async move {
                    match reply.await {
                        Err(error) if error.is_not_leader() => {
                            find_leader(broker, connection, (code, effect), request, arrived).await
                        }
                        reply => reply.unwrap_or_else(|error| refused(&broker, code, error)),
                    }
                });
            }
            Err(error) if error.is_not_leader() => {}
            Err(error) => return Answer::Now(refused(broker, code, error)),
        }
    }
    forward::begun(find_leader(Arc::clone(broker), connection.clone(), (code, effect), request, arrived))
        .await
}

/// Has the leader update the settings of the group; the answer comes when this replica has them, too.
async fn settings_at_leader(
    broker: &Arc<Broker>,
    connection: &Connection,
    code: RequestCode,
    request: Command,
) -> Answer {
    let answer = match at_leader(broker, connection, (code, Effect::Change), request).await {
        Answer::Later(answer) => answer,
        now => return now,
    };
    let broker = Arc::clone(broker);
    Answer::later(async move {
        let answer = answer.await;
        if answer.code == 0 {
            settings::catch_up(&broker.context, &broker.settings).await;
        }
        answer
    })
}

async fn find_leader(
    broker: Arc<Broker>,
    connection: Connection,
    (code, effect): (RequestCode, Effect),
    request: Command,
    arrived: Instant,
) -> Command {
    let forwarded = forward::forwarded_in(&request).is_some();
    let here = async |request: Arc<Command>| {
        if !broker.context.replication.holds_lease() {
            broker.context.replication.confirm_leader().await?;
        }
        handle(&broker, &connection, code, &request).await?.settled().await
    };
    let answer = match broker.forward.take(effect, &connection, request, arrived, &broker.context.config()) {
        Ok(errand) => broker.forward.run(errand, here).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| with_send_fields(&broker, code, forward::refusal(forwarded, error)))
}

fn refused(broker: &Broker, code: RequestCode, error: Error) -> Command {
    with_send_fields(broker, code, error.into())
}

/// Adds what clients read of every answer to a send.
fn with_send_fields(broker: &Broker, code: RequestCode, answer: Command) -> Command {
    let is_send = matches!(
        code,
        RequestCode::SendMessage
            | RequestCode::SendMessageV2
            | RequestCode::SendBatchMessage
            | RequestCode::SendReplyMessage
            | RequestCode::SendReplyMessageV2
    );
    if !is_send {
        return answer;
    }
    send::with_fields(&broker.context, answer)
}

fn not_built(code: RequestCode) -> Error {
    Error::NotBuilt(format!("{} ({})", code.name(), code.number()))
}

/// The second column of the table.
async fn handle(
    broker: &Arc<Broker>,
    connection: &Connection,
    code: RequestCode,
    request: &Command,
) -> Result<Reply, Error> {
    let Broker { context, clients, locks, resets, settings, stats, pulls, .. } = &**broker;
    match code {
        RequestCode::SendMessage | RequestCode::SendMessageV2 | RequestCode::SendBatchMessage => {
            send::handle(context, locks, stats, connection, request).await
        }
        RequestCode::SendReplyMessage | RequestCode::SendReplyMessageV2 => {
            request_reply::handle(context, clients, connection, request).await
        }
        RequestCode::PullMessage | RequestCode::LitePullMessage => pull::handle(pulls, request).await,
        RequestCode::ConsumerSendMsgBack => {
            let (context, stats, request) = (Arc::clone(context), Arc::clone(stats), request.clone());
            Ok(later(async move { send_back::handle(&context, &stats, &request).await }))
        }

        RequestCode::HeartBeat => {
            Ok(heartbeat::heartbeat(context, clients, connection, request).await?.into())
        }
        RequestCode::UnregisterClient => {
            Ok(heartbeat::unregister(context, clients, connection, request)?.into())
        }
        RequestCode::GetConsumerListByGroup => Ok(heartbeat::consumer_list(clients, request)?.into()),
        RequestCode::CheckClientConfig => Ok(heartbeat::check_client_config(context, request)?.into()),

        RequestCode::QueryConsumerOffset => Ok(offsets::query(context, resets, request)?.into()),
        RequestCode::UpdateConsumerOffset => offsets::update(context, resets, &broker.commits, request).await,
        RequestCode::SearchOffsetByTimestamp => offsets::search(context, request),
        RequestCode::GetMaxOffset => Ok(offsets::max(context, request)?.into()),
        RequestCode::GetMinOffset => Ok(offsets::min(context, request)?.into()),
        RequestCode::GetEarliestMsgStoretime => offsets::earliest(context, request),

        RequestCode::LockBatchMq => Ok(locks::lock(locks, request)?.into()),
        RequestCode::UnlockBatchMq => Ok(locks::unlock(locks, request)?.into()),

        RequestCode::QueryMessage => query::by_key(context, request),
        RequestCode::ViewMessageById => query::by_offset(context, request),

        RequestCode::UpdateAndCreateTopic => topics::update(context, request),
        RequestCode::UpdateAndCreateTopicList => topics::update_list(context, request),
        RequestCode::DeleteTopicInBroker => topics::delete(context, resets, stats, request),
        RequestCode::GetTopicConfig => Ok(topics::get(context, request)?.into()),
        RequestCode::GetAllTopicConfig => Ok(topics::all(context, request)?.into()),
        RequestCode::GetSystemTopicListFromBroker => Ok(topics::system(context).into()),
        RequestCode::QueryTopicsByConsumer => Ok(topics::of_group(context, request)?.into()),
        RequestCode::CleanExpiredConsumequeue => Ok(cleaning::expired_queues(context)),
        RequestCode::CleanUnusedTopic => Ok(cleaning::unused_topics(context)),
        RequestCode::DeleteExpiredCommitlog => Ok(cleaning::expired_segments(context)),

        RequestCode::UpdateAndCreateSubscriptiongroup => groups::update(context, request),
        RequestCode::UpdateAndCreateSubscriptiongroupList => groups::update_list(context, request),
        RequestCode::DeleteSubscriptiongroup => groups::delete(context, resets, stats, request),
        RequestCode::GetSubscriptiongroupConfig => groups::get(context, request),
        RequestCode::GetAllSubscriptiongroupConfig => Ok(groups::all(context, request)?.into()),
        RequestCode::UpdateAndGetGroupForbidden => groups::forbidden(context, request),

        RequestCode::GetTopicStatsInfo => progress::of_topic(Progress::of(broker), request),
        RequestCode::GetConsumeStats => progress::of_group(Progress::of(broker), request),
        RequestCode::GetBrokerConsumeStats => progress::of_all_groups(Progress::of(broker), request),
        RequestCode::QueryTopicConsumeByWho => {
            Ok(progress::groups_of_topic(&Progress::of(broker), request)?.into())
        }
        RequestCode::QueryConsumeTimeSpan => progress::time_span(Progress::of(broker), request),
        RequestCode::QueryConsumeQueue => progress::consume_queue(Progress::of(broker), request),
        RequestCode::QuerySubscriptionByConsumer => {
            Ok(progress::subscription(&Progress::of(broker), request)?.into())
        }

        RequestCode::GetAllConsumerOffset => Ok(progress::all_offsets(context).into()),
        RequestCode::GetAllDelayOffset => Ok(progress::all_delay_offsets(context).into()),

        RequestCode::GetConsumerConnectionList => Ok(connections::of_consumer(clients, request)?.into()),
        RequestCode::GetProducerConnectionList => Ok(connections::of_producer(clients, request)?.into()),
        RequestCode::GetAllProducerInfo => Ok(connections::of_all_producers(clients).into()),
        RequestCode::GetConsumerRunningInfo => call_client::running_info(clients, request),
        RequestCode::ConsumeMessageDirectly => call_client::consume_directly(context, clients, request),
        RequestCode::InvokeBrokerToGetConsumerStatus => call_client::consumer_status(clients, request),

        RequestCode::InvokeBrokerToResetOffset => reset::reset(Resetting::of(broker), request),
        RequestCode::CloneGroupOffset => reset::clone(Resetting::of(broker), request),
        RequestCode::QueryCorrectionOffset => Ok(reset::correction(context, request)?.into()),

        RequestCode::UpdateBrokerConfig => settings::update(context, settings, request),
        RequestCode::GetBrokerConfig => Ok(settings::get(context, settings).into()),
        RequestCode::GetBrokerRuntimeInfo => Ok(runtime::info(context, stats)),
        RequestCode::ViewBrokerStatsData => Ok(stats::view(stats, request)?.into()),
        RequestCode::GetBrokerHaStatus => Ok(ha::status(context).into()),

        RequestCode::GetRaftStatus => Ok(group_admin::status(context)?.into()),
        RequestCode::RaftAddPeer => group_admin::add_peer(context, request),
        RequestCode::RaftRemovePeer => group_admin::remove_peer(context, request),
        RequestCode::RaftTransferLeader => group_admin::transfer_leader(context, request),
        RequestCode::RaftRejoin => group_admin::rejoin(context, request),

        other => Err(not_built(other)),
    }
}
