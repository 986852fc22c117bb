//! Which handler serves which request code: the table to look a code up in.

use std::sync::Arc;

use super::offsets::later;
use super::response::Error;
use super::{Broker, heartbeat, locks, offsets, pull, query, send, send_back};
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
    let Broker { context, clients, locks, resets, stats, pulls, .. } = &**broker;
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

        other => Err(Error::NotBuilt(format!("{} ({})", other.name(), other.number()))),
    }
}
