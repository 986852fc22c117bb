//! Clients come, stay and go: HEART_BEAT (34), UNREGISTER_CLIENT (35), GET_CONSUMER_LIST_BY_GROUP (38),
//! CHECK_CLIENT_CONFIG (46), and NOTIFY_CONSUMER_IDS_CHANGED (40) towards them.
//!
//! Source: RocketMQ `ClientManageProcessor`, `ConsumerManageProcessor`, `DefaultConsumerIdsChangeListener`.

use super::clients::{Changed, Client, Clients, filter_of};
use super::context::Context;
use super::pull::check_expression_type;
use super::response::Error;
use crate::model::{Group, Perm, Topic, TopicConfig};
use crate::remoting::body::{CheckClientRequestBody, GetConsumerListByGroupResponseBody, HeartbeatData};
use crate::remoting::header::{
    GetConsumerListByGroupRequestHeader, NotifyConsumerIdsChangedRequestHeader, UnregisterClientRequestHeader,
};
use crate::remoting::{Command, Connection, RequestCode, ResponseCode};

/// HEART_BEAT: notes the client's groups, makes what they need, and tells members of changes.
///
/// The answer does not announce heartbeats of version 2, so that clients always send their subscriptions.
///
/// In a Raft group clients with consumers send heartbeats to all replicas that their route names, so each knows all of
/// them, and a new leader need not wait for the next round. What their groups need is made by the leader alone, which
/// hears of them too. Producers send theirs to the master of their route only: a new leader hears of one when it has
/// found the new route.
pub(crate) async fn heartbeat(
    context: &Context,
    clients: &Clients,
    connection: &Connection,
    request: &Command,
) -> Result<Command, Error> {
    let data: HeartbeatData = request.json()?;
    let client = Client {
        client_id: data.client_id.clone(),
        connection: connection.clone(),
        language: request.language,
        version: request.version,
        seen_ms: clients.now_ms(),
    };
    for consumer in &data.consumer_data_set {
        match prepare(context, &consumer.group_name).await {
            Err(error) if error.is_not_leader() => {}
            prepared => prepared?,
        }
        if let Some(changed) = clients.register_consumer(consumer, client.clone()) {
            notify(context, &changed);
        }
    }
    for producer in &data.producer_data_set {
        clients.register_producer(&producer.group_name, client.clone());
    }
    Ok(Command::response(ResponseCode::Success))
}

/// Makes what a consumer group needs, if this replica leads.
async fn prepare(context: &Context, group: &Group) -> Result<(), Error> {
    if !context.leads() {
        return Ok(());
    }
    let config = context.group(group).await?;
    if let Ok(queues @ 1..) = u32::try_from(config.retry_queue_nums) {
        // Tools ask for the route of the retry topic as soon as the client has its answer.
        let retry = TopicConfig::new(Topic::retry_of(group), queues, Perm::READ_WRITE);
        context.ensure_topic_known(retry).await?;
    }
    Ok(())
}

/// UNREGISTER_CLIENT.
pub(crate) fn unregister(
    context: &Context,
    clients: &Clients,
    connection: &Connection,
    request: &Command,
) -> Result<Command, Error> {
    let header: UnregisterClientRequestHeader = request.header()?;
    let changed =
        clients.unregister(connection, header.producer_group.as_ref(), header.consumer_group.as_ref());
    if let Some(changed) = changed {
        notify(context, &changed);
    }
    Ok(Command::response(ResponseCode::Success))
}

/// GET_CONSUMER_LIST_BY_GROUP: from it clients compute their share of the queues.
pub(crate) fn consumer_list(clients: &Clients, request: &Command) -> Result<Command, Error> {
    let header: GetConsumerListByGroupRequestHeader = request.header()?;
    let group = clients
        .consumers(&header.consumer_group)
        .ok_or_else(|| Error::System(format!("no consumer for this group, {}", header.consumer_group)))?;
    let mut ids: Vec<_> = group.members.values().map(|member| member.client_id.clone()).collect();
    ids.sort();
    ids.dedup();
    let body = GetConsumerListByGroupResponseBody { consumer_id_list: ids };
    Ok(Command::response(ResponseCode::Success).with_json(&body))
}

/// CHECK_CLIENT_CONFIG: whether the broker can filter as the client wants.
pub(crate) fn check_client_config(context: &Context, request: &Command) -> Result<Command, Error> {
    let body: CheckClientRequestBody = request.json()?;
    let subscription = body.subscription_data;
    check_expression_type(&context.config(), subscription.expression_type.as_deref())?;
    filter_of(&subscription)?;
    Ok(Command::response(ResponseCode::Success))
}

/// Tells the members of a group that somebody joined or left, so that they share the queues anew.
pub(crate) fn notify(context: &Context, changed: &Changed) {
    let wanted = context.config().notify_consumer_ids_changed_enable
        && context
            .metadata
            .groups()
            .get(&changed.group)
            .is_none_or(|group| group.notify_consumer_ids_changed_enable);
    if !wanted {
        return;
    }
    for member in &changed.members {
        member.send(
            Command::request(RequestCode::NotifyConsumerIdsChanged).with_header(
                &NotifyConsumerIdsChangedRequestHeader { consumer_group: changed.group.clone() },
            ),
        );
    }
}
