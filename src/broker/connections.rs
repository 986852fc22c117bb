//! Who is connected: GET_CONSUMER_CONNECTION_LIST (203), GET_PRODUCER_CONNECTION_LIST (204),
//! GET_ALL_PRODUCER_INFO (328).
//!
//! Source: RocketMQ `AdminBrokerProcessor`, `ProducerManager.getProducerTable`.

use super::clients::{Client, Clients};
use super::response::Error;
use crate::remoting::body::{
    ClientConnection, ConsumerConnection, ProducerConnection, ProducerInfo, ProducerTableInfo,
};
use crate::remoting::header::{
    GetConsumerConnectionListRequestHeader, GetProducerConnectionListRequestHeader,
};
use crate::remoting::{Command, ResponseCode};

/// GET_CONSUMER_CONNECTION_LIST.
pub(crate) fn of_consumer(clients: &Clients, request: &Command) -> Result<Command, Error> {
    let header: GetConsumerConnectionListRequestHeader = request.header()?;
    let group = clients.consumers(&header.consumer_group).ok_or_else(|| {
        Error::ConsumerNotOnline(format!("the consumer group[{}] not online", header.consumer_group))
    })?;
    let body = ConsumerConnection {
        connection_set: connections(group.members.values()),
        consume_from_where: group.consume_from_where,
        consume_type: group.consume_type,
        message_model: group.message_model,
        subscription_table: group
            .subscriptions
            .iter()
            .map(|(topic, subscription)| (topic.clone(), subscription.data.clone()))
            .collect(),
    };
    Ok(Command::response(ResponseCode::Success).with_json(&body))
}

/// GET_PRODUCER_CONNECTION_LIST.
pub(crate) fn of_producer(clients: &Clients, request: &Command) -> Result<Command, Error> {
    let header: GetProducerConnectionListRequestHeader = request.header()?;
    let members = clients.producers(&header.producer_group);
    if members.is_empty() {
        return Err(Error::System(format!("the producer group[{}] not exist", header.producer_group)));
    }
    let body = ProducerConnection { connection_set: connections(&members) };
    Ok(Command::response(ResponseCode::Success).with_json(&body))
}

/// GET_ALL_PRODUCER_INFO. Addresses have a slash in front, as Java prints them here.
pub(crate) fn of_all_producers(clients: &Clients) -> Command {
    let info = |client: Client| ProducerInfo {
        remote_ip: format!("/{}", client.connection.peer()),
        client_id: client.client_id,
        language: client.language,
        last_update_timestamp: client.seen_ms,
        version: client.version,
    };
    let producers = clients.all_producers().into_iter();
    let data = producers.map(|(group, clients)| (group, clients.into_iter().map(info).collect())).collect();
    Command::response(ResponseCode::Success).with_json(&ProducerTableInfo { data })
}

fn connections<'a>(clients: impl IntoIterator<Item = &'a Client>) -> Vec<ClientConnection> {
    let mut connections: Vec<_> = clients
        .into_iter()
        .map(|client| ClientConnection {
            client_addr: client.connection.peer().to_string(),
            client_id: client.client_id.clone(),
            language: client.language,
            version: client.version,
        })
        .collect();
    connections.sort_by(|a, b| (&a.client_id, &a.client_addr).cmp(&(&b.client_id, &b.client_addr)));
    connections
}
