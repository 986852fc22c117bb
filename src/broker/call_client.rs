//! Questions that the broker passes on to a client over the client's own connection: GET_CONSUMER_RUNNING_INFO (307),
//! CONSUME_MESSAGE_DIRECTLY (309), INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223), which becomes
//! GET_CONSUMER_STATUS_FROM_CLIENT (221).
//!
//! Source: RocketMQ `AdminBrokerProcessor.callConsumer`, `Broker2Client`. What clients answer is passed on as it is.

use std::sync::Arc;
use std::time::Duration;

use super::clients::{Client, Clients};
use super::context::{Context, blocking};
use super::reply::{Reply, later};
use super::response::Error;
use crate::message::OffsetMessageId;
use crate::model::{Group, PhysicalOffset};
use crate::remoting::body::GetConsumerStatusBody;
use crate::remoting::header::{
    ConsumeMessageDirectlyResultRequestHeader, GetConsumerRunningInfoRequestHeader,
    GetConsumerStatusRequestHeader,
};
use crate::remoting::{CallError, Command, RequestCode, ResponseCode, version};

/// How long a client may take to answer what is passed on to it. Source: RocketMQ `Broker2Client.callClient`.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long each client may take to tell its offsets.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// GET_CONSUMER_RUNNING_INFO.
pub(crate) fn running_info(clients: &Clients, request: &Command) -> Result<Reply, Error> {
    let header: GetConsumerRunningInfoRequestHeader = request.header()?;
    let client = member(clients, &header.consumer_group, &header.client_id)?;
    let question = Command {
        ext_fields: request.ext_fields.clone(),
        body: request.body.clone(),
        ..Command::request(RequestCode::GetConsumerRunningInfo)
    };
    Ok(later(call(client, header.consumer_group, question)))
}

/// CONSUME_MESSAGE_DIRECTLY: the broker adds the message and what the client needs to know of topic and group.
pub(crate) fn consume_directly(
    context: &Arc<Context>,
    clients: &Clients,
    request: &Command,
) -> Result<Reply, Error> {
    let header: ConsumeMessageDirectlyResultRequestHeader = request.header()?;
    let client_id = header.client_id.as_deref().unwrap_or_default();
    let client = member(clients, &header.consumer_group, client_id)?;
    let mut question = Command {
        ext_fields: request.ext_fields.clone(),
        ..Command::request(RequestCode::ConsumeMessageDirectly)
    };
    question.ext_fields.set("brokerName", &context.config().broker_name);
    if let Some(topic) = header.topic.and_then(|topic| context.metadata.topics().get(&topic)) {
        question.ext_fields.set("topicSysFlag", &topic.topic_sys_flag.to_string());
    }
    if let Some(group) = context.metadata.groups().get(&header.consumer_group) {
        question.ext_fields.set("groupSysFlag", &group.group_sys_flag.to_string());
    }
    let id = header.msg_id.unwrap_or_default();
    let position = OffsetMessageId::parse(&id).map(|id| id.offset);
    let position = position.ok_or_else(|| Error::InvalidParameter(format!("msgId[{id}] is no offset id")))?;
    let context = Arc::clone(context);
    Ok(later(async move {
        let question = question.with_body(record(context, position).await?);
        call(client, header.consumer_group, question).await
    }))
}

/// INVOKE_BROKER_TO_GET_CONSUMER_STATUS: the offsets that clients hold in memory, of one client or of all. Clients that
/// do not answer are left out.
pub(crate) fn consumer_status(clients: &Clients, request: &Command) -> Result<Reply, Error> {
    let header: GetConsumerStatusRequestHeader = request.header()?;
    let nobody =
        || Error::System(format!("No Any Consumer online in the consumer group: [{}]", header.group));
    let group = clients.consumers(&header.group).ok_or_else(nobody)?;
    let wanted = header.client_addr.clone().filter(|id| !id.trim().is_empty());
    let asked: Vec<Client> = group
        .members
        .values()
        .filter(|client| wanted.as_ref().is_none_or(|wanted| client.client_id == *wanted))
        .cloned()
        .collect();
    for client in &asked {
        check_version(client, version::V3_0_7_SNAPSHOT)?;
    }
    let question = Command::request(RequestCode::GetConsumerStatusFromClient)
        .with_header(&GetConsumerStatusRequestHeader { client_addr: None, ..header });
    Ok(later(async move {
        let calls: Vec<_> = asked
            .into_iter()
            .map(|client| {
                let question = question.clone();
                tokio::spawn(async move {
                    let answer = client.connection.request(question, STATUS_TIMEOUT).await;
                    (client.client_id, answer)
                })
            })
            .collect();
        let mut body = GetConsumerStatusBody::default();
        for call in calls {
            let Ok((client_id, answer)) = call.await else { continue };
            match answer.map_err(|error| error.to_string()).and_then(read_status) {
                Ok(status) => {
                    body.consumer_table.insert(client_id, status.message_queue_table);
                }
                Err(error) => tracing::warn!(client_id, error, "a client does not tell its offsets"),
            }
        }
        Ok(Command::response(ResponseCode::Success).with_json(&body))
    }))
}

fn read_status(answer: Command) -> Result<GetConsumerStatusBody, String> {
    if answer.code != ResponseCode::Success.number() {
        return Err(format!("code {}: {}", answer.code, answer.remark.unwrap_or_default()));
    }
    answer.json().map_err(|error| error.to_string())
}

fn member(clients: &Clients, group: &Group, client_id: &str) -> Result<Client, Error> {
    let client = clients
        .member(group, client_id)
        .ok_or_else(|| Error::System(format!("The Consumer <{group}> <{client_id}> not online")))?;
    check_version(&client, version::V3_1_8_SNAPSHOT)?;
    Ok(client)
}

fn check_version(client: &Client, least: i32) -> Result<(), Error> {
    if client.version < least {
        return Err(Error::System(format!(
            "the client <{}> of version {} is too old to answer this",
            client.client_id, client.version
        )));
    }
    Ok(())
}

async fn record(context: Arc<Context>, position: PhysicalOffset) -> Result<bytes::Bytes, Error> {
    blocking(move || {
        let record = context.store().log().record(position);
        record.ok_or_else(|| Error::System(format!("can not find message by the offset, {position}")))
    })
    .await
}

async fn call(client: Client, group: Group, question: Command) -> Result<Command, Error> {
    let who = format!("consumer <{group}> <{}>", client.client_id);
    match client.connection.request(question, CALL_TIMEOUT).await {
        Ok(answer) => Ok(answer),
        Err(error @ CallError::Timeout { .. }) => {
            Err(Error::ClientTimeout(format!("{who} Timeout: {error}")))
        }
        Err(error) => Err(Error::System(format!("invoke {who} Exception: {error}"))),
    }
}
