//! Replies to requests that came as messages: SEND_REPLY_MESSAGE (324) and SEND_REPLY_MESSAGE_V2 (325) of consumers, handed to who
//! asked by PUSH_REPLY_MESSAGE_TO_CLIENT (326).
//!
//! The requester is found by its client id among the producers whose heartbeats come here. The answer says whether it took the
//! reply; that the reply is stored too (`storeReplyMessageEnable`) changes nothing about it.
//!
//! Source of the behaviour: RocketMQ `ReplyMessageProcessor`.

use std::sync::Arc;

use super::call_client::CALL_TIMEOUT;
use super::clients::{Client, Clients};
use super::context::Context;
use super::forward::client_of;
use super::reply::{Reply, later};
use super::response::Error;
use super::send::{self, Target};
use crate::message::{Properties, key};
use crate::remoting::header::{ReplyMessageRequestHeader, SendMessageHeader, SendMessageResponseHeader};
use crate::remoting::{Command, Connection, RequestCode, ResponseCode};
use crate::store::Appended;

pub(crate) async fn handle(
    context: &Arc<Context>,
    clients: &Clients,
    connection: &Connection,
    request: &Command,
) -> Result<Reply, Error> {
    let header = SendMessageHeader::of(request)?;
    send::check_started(context)?;
    let topic = send::resolve_topic(context, &header).await?;
    let queue_id = send::choose_queue(context, &header, &topic)?;
    let target = Target { topic: topic.topic_name.clone(), queue_id };
    let body = request.body.to_bytes();
    let properties = header.properties.clone().unwrap_or_default();
    let mut properties = Properties::new(&properties);
    let requester = properties.get(key::REPLY_TO_CLIENT).map(str::to_owned);
    let born_host = client_of(connection, request);
    let sender = send::Sender { context, header: &header, born_host };
    let stores = context.config().store_reply_message_enable;
    let draft = stores.then(|| sender.single_draft(&target, &body, &properties)).transpose()?;
    // Before anybody hears of it: another replica may have to do all this.
    let permit = context.replication.permit()?;

    let now_ms = context.clock.now_ms();
    properties.set(key::PUSH_REPLY_TIME, &now_ms.to_string());
    let push = Command::request(RequestCode::PushReplyMessageToClient)
        .with_header(&ReplyMessageRequestHeader {
            producer_group: header.producer_group.clone(),
            topic: header.topic.clone(),
            default_topic: header.default_topic.clone(),
            default_topic_queue_nums: header.default_topic_queue_nums,
            queue_id: header.queue_id,
            sys_flag: header.sys_flag,
            born_timestamp: header.born_timestamp,
            flag: header.flag,
            properties: Some(properties.as_str().to_owned()),
            reconsume_times: header.reconsume_times,
            unit_mode: header.unit_mode.unwrap_or(false),
            born_host: born_host.to_string(),
            store_host: context.address.to_string(),
            store_timestamp: now_ms,
        })
        .with_body(body);
    let found = requester.as_deref().and_then(|id| clients.producer(id));
    let context = Arc::clone(context);
    Ok(later(async move {
        let pushed = pushed(requester, found, push).await;
        let stored = match draft {
            Some(draft) => match context.replication.append(permit, draft).await {
                Ok(pending) => pending.committed().await.ok(),
                Err(_) => None,
            },
            None => None,
        };
        pushed.map_err(Error::System)?;
        Ok(answer(&context, &target, stored.as_ref()))
    }))
}

/// Hands a reply to who asked. An error says why that was not done.
async fn pushed(requester: Option<String>, found: Option<Client>, push: Command) -> Result<(), String> {
    let id =
        requester.ok_or_else(|| format!("reply message properties[{}] is null", key::REPLY_TO_CLIENT))?;
    let client = found.ok_or_else(|| {
        format!(
            "push reply message fail, channel of <{id}> not found; its heartbeats do not come to this broker"
        )
    })?;
    match client.connection.request(push, CALL_TIMEOUT).await {
        Ok(answer) if answer.code == ResponseCode::Success.number() => Ok(()),
        Ok(answer) => Err(format!(
            "push reply message to {id} fail: code {}: {}",
            answer.code,
            answer.remark.unwrap_or_default()
        )),
        Err(error) => Err(format!("push reply message to {id} fail: {error}")),
    }
}

fn answer(context: &Context, target: &Target, stored: Option<&Appended>) -> Command {
    let answer = Command::response(ResponseCode::Success).with_header(&SendMessageResponseHeader {
        // Clients cannot read an answer without them.
        msg_id: stored.map_or_else(|| "0".into(), |stored| send::message_ids(context.address, stored)),
        queue_id: i32::try_from(target.queue_id.0).unwrap_or(i32::MAX),
        queue_offset: stored.map_or(0, |stored| i64::try_from(stored.queue_offset.0).unwrap_or(i64::MAX)),
        transaction_id: None,
        batch_uniq_id: None,
        recall_handle: None,
    });
    send::with_fields(context, answer)
}
