//! Which handler serves which request code: the table to look a code up in.

use std::sync::Arc;

use super::offsets::later;
use super::progress::{self, Progress};
use super::reset::{self, Resetting};
use super::response::Error;
use super::{
    Broker, call_client, cleaning, connections, groups, ha, heartbeat, locks, offsets, pull, query, runtime,
    send, send_back, settings, stats, topics,
};
use crate::message::key;
use crate::remoting::{Answer, Command, Connection, RequestCode};

/// Carries a request out. What goes wrong becomes an answer, too.
pub(super) async fn dispatch(broker: &Arc<Broker>, connection: &Connection, request: Command) -> Answer {
    let Some(code) = request.request_code() else {
        return Answer::Now(Error::UnknownRequest(request.code).into());
    };
    match handle(broker, connection, code, request).await {
        Ok(answer) => answer,
        Err(error) => {
            let config = broker.context.config();
            let response = Command::from(error);
            // Clients read these of every answer to a send.
            let is_send = matches!(
                code,
                RequestCode::SendMessage | RequestCode::SendMessageV2 | RequestCode::SendBatchMessage
            );
            Answer::Now(match is_send {
                true => response
                    .with_field(key::MSG_REGION, config.region_id.clone())
                    .with_field(key::TRACE_ON, config.trace_on.to_string()),
                false => response,
            })
        }
    }
}

async fn handle(
    broker: &Arc<Broker>,
    connection: &Connection,
    code: RequestCode,
    request: Command,
) -> Result<Answer, Error> {
    let Broker { context, clients, locks, resets, settings, stats, pulls } = &**broker;
    match code {
        RequestCode::SendMessage | RequestCode::SendMessageV2 | RequestCode::SendBatchMessage => {
            send::handle(context, locks, stats, connection, &request).await
        }
        RequestCode::PullMessage | RequestCode::LitePullMessage => pull::handle(pulls, &request).await,
        RequestCode::ConsumerSendMsgBack => {
            let (context, stats) = (Arc::clone(context), Arc::clone(stats));
            Ok(later(async move { send_back::handle(&context, &stats, &request).await }))
        }

        RequestCode::HeartBeat => {
            Ok(heartbeat::heartbeat(context, clients, connection, &request).await?.into())
        }
        RequestCode::UnregisterClient => {
            Ok(heartbeat::unregister(context, clients, connection, &request)?.into())
        }
        RequestCode::GetConsumerListByGroup => Ok(heartbeat::consumer_list(clients, &request)?.into()),
        RequestCode::CheckClientConfig => Ok(heartbeat::check_client_config(&request)?.into()),

        RequestCode::QueryConsumerOffset => Ok(offsets::query(context, &request)?.into()),
        RequestCode::UpdateConsumerOffset => Ok(offsets::update(context, resets, &request).await?.into()),
        RequestCode::SearchOffsetByTimestamp => offsets::search(context, &request),
        RequestCode::GetMaxOffset => Ok(offsets::max(context, &request)?.into()),
        RequestCode::GetMinOffset => Ok(offsets::min(context, &request)?.into()),
        RequestCode::GetEarliestMsgStoretime => offsets::earliest(context, &request),

        RequestCode::LockBatchMq => Ok(locks::lock(locks, &request)?.into()),
        RequestCode::UnlockBatchMq => Ok(locks::unlock(locks, &request)?.into()),

        RequestCode::QueryMessage => query::by_key(context, &request),
        RequestCode::ViewMessageById => query::by_offset(context, &request),

        RequestCode::UpdateAndCreateTopic => topics::update(context, &request),
        RequestCode::UpdateAndCreateTopicList => topics::update_list(context, &request),
        RequestCode::DeleteTopicInBroker => topics::delete(context, resets, stats, &request),
        RequestCode::GetTopicConfig => Ok(topics::get(context, &request)?.into()),
        RequestCode::GetAllTopicConfig => Ok(topics::all(context, &request)?.into()),
        RequestCode::GetSystemTopicListFromBroker => Ok(topics::system(context).into()),
        RequestCode::QueryTopicsByConsumer => Ok(topics::of_group(context, &request)?.into()),
        RequestCode::CleanExpiredConsumequeue => Ok(cleaning::expired_queues(context)),
        RequestCode::CleanUnusedTopic => Ok(cleaning::unused_topics(context)),
        RequestCode::DeleteExpiredCommitlog => Ok(cleaning::expired_segments(context)),

        RequestCode::UpdateAndCreateSubscriptiongroup => Ok(groups::update(context, &request).await?.into()),
        RequestCode::UpdateAndCreateSubscriptiongroupList => {
            Ok(groups::update_list(context, &request).await?.into())
        }
        RequestCode::DeleteSubscriptiongroup => {
            Ok(groups::delete(context, resets, stats, &request).await?.into())
        }
        RequestCode::GetSubscriptiongroupConfig => Ok(groups::get(context, &request).await?.into()),
        RequestCode::GetAllSubscriptiongroupConfig => Ok(groups::all(context, &request)?.into()),
        RequestCode::UpdateAndGetGroupForbidden => Ok(groups::forbidden(context, &request).await?.into()),

        RequestCode::GetTopicStatsInfo => progress::of_topic(Progress::of(broker), &request),
        RequestCode::GetConsumeStats => progress::of_group(Progress::of(broker), &request),
        RequestCode::GetBrokerConsumeStats => progress::of_all_groups(Progress::of(broker), &request),
        RequestCode::QueryTopicConsumeByWho => {
            Ok(progress::groups_of_topic(&Progress::of(broker), &request)?.into())
        }
        RequestCode::QueryConsumeTimeSpan => progress::time_span(Progress::of(broker), &request),
        RequestCode::QueryConsumeQueue => progress::consume_queue(Progress::of(broker), &request),
        RequestCode::QuerySubscriptionByConsumer => {
            Ok(progress::subscription(&Progress::of(broker), &request)?.into())
        }

        RequestCode::GetAllConsumerOffset => Ok(progress::all_offsets(context).into()),
        RequestCode::GetAllDelayOffset => Ok(progress::all_delay_offsets(context).into()),

        RequestCode::GetConsumerConnectionList => Ok(connections::of_consumer(clients, &request)?.into()),
        RequestCode::GetProducerConnectionList => Ok(connections::of_producer(clients, &request)?.into()),
        RequestCode::GetAllProducerInfo => Ok(connections::of_all_producers(clients).into()),
        RequestCode::GetConsumerRunningInfo => call_client::running_info(clients, &request),
        RequestCode::ConsumeMessageDirectly => call_client::consume_directly(context, clients, &request),
        RequestCode::InvokeBrokerToGetConsumerStatus => call_client::consumer_status(clients, &request),

        RequestCode::InvokeBrokerToResetOffset => reset::reset(Resetting::of(broker), &request),
        RequestCode::CloneGroupOffset => reset::clone(Resetting::of(broker), &request),
        RequestCode::QueryCorrectionOffset => Ok(reset::correction(context, &request)?.into()),

        RequestCode::UpdateBrokerConfig => settings::update(context, settings, &request),
        RequestCode::GetBrokerConfig => Ok(settings::get(context, settings).into()),
        RequestCode::GetBrokerRuntimeInfo => Ok(runtime::info(context, stats)),
        RequestCode::ViewBrokerStatsData => Ok(stats::view(stats, &request)?.into()),
        RequestCode::GetBrokerHaStatus => Ok(ha::status(context).into()),

        other => Err(Error::NotBuilt(format!("{} ({})", other.name(), other.number()))),
    }
}
