//! REGISTER_BROKER (103), UNREGISTER_BROKER (104), GET_BROKER_CLUSTER_INFO (106), WIPE_WRITE_PERM_OF_BROKER (205),
//! QUERY_DATA_VERSION (322), ADD_WRITE_PERM_OF_BROKER (327), GET_BROKER_MEMBER_GROUP (901), BROKER_HEARTBEAT (904).

use super::{Refusal, Result, success};
use crate::model::DataVersion;
use crate::namesrv::ZONE_NAME;
use crate::namesrv::routes::{Member, Registration, RouteTable};
use crate::remoting::body::{
    GetBrokerMemberGroupResponseBody, RegisterBrokerBody, TopicConfigAndMappingSerializeWrapper,
    TopicConfigSerializeWrapper,
};
use crate::remoting::header::{
    AddWritePermOfBrokerResponseHeader, BrokerHeartbeatRequestHeader, BrokerNameRequestHeader,
    GetBrokerMemberGroupRequestHeader, QueryDataVersionRequestHeader, QueryDataVersionResponseHeader,
    RegisterBrokerRequestHeader, UnregisterBrokerRequestHeader, WipeWritePermOfBrokerResponseHeader,
};
use crate::remoting::{Command, json, version};

/// The first byte of every zlib stream, and of no JSON document.
const ZLIB: u8 = 0x78;

/// Reads a registration. Takes long if the broker has many topics.
pub(in crate::namesrv) fn registration(
    request: &Command,
    connection: u64,
    now_ms: i64,
    replaces_topics: bool,
) -> std::result::Result<Registration, Refusal> {
    let header: RegisterBrokerRequestHeader = request.header()?;
    let body = request.body.to_bytes();
    let crc = header.body_crc32.unwrap_or(0);
    if crc != 0 && i64::from(crc) != i64::from(crc32fast::hash(&body) & 0x7fff_ffff) {
        return Err(Refusal::Crc);
    }
    // 5.x brokers compress without saying so in the header.
    let compressed = header.compressed || body.first() == Some(&ZLIB);
    let (table, filter_servers) = if body.is_empty() {
        (TopicConfigAndMappingSerializeWrapper::default(), Some(Vec::new()))
    } else if request.version < version::V3_0_11 {
        let old: TopicConfigSerializeWrapper = json::from_slice(&body)?;
        let table = TopicConfigAndMappingSerializeWrapper {
            data_version: old.data_version,
            topic_config_table: old.topic_config_table,
            ..TopicConfigAndMappingSerializeWrapper::default()
        };
        (table, None)
    } else {
        let body = if compressed {
            RegisterBrokerBody::decompress(&body, request.version)?
        } else {
            json::from_slice(&body)?
        };
        (body.topic_config_serialize_wrapper, Some(body.filter_server_list))
    };
    Ok(Registration {
        member: Member { cluster: header.cluster_name, address: header.broker_addr },
        broker_name: header.broker_name,
        broker_id: header.broker_id,
        ha_address: header.ha_server_addr,
        zone_name: request.ext_fields.get(ZONE_NAME).map(str::to_owned),
        silence_ms: header.heartbeat_timeout_millis,
        enable_acting_master: header.enable_acting_master,
        table,
        filter_servers,
        connection,
        now_ms,
        replaces_topics,
    })
}

/// Reads whose leave an UNREGISTER_BROKER asks for.
pub(in crate::namesrv) fn leave(request: &Command) -> std::result::Result<(String, Member), Refusal> {
    let header: UnregisterBrokerRequestHeader = request.header()?;
    Ok((header.broker_name, Member { cluster: header.cluster_name, address: header.broker_addr }))
}

pub(in crate::namesrv) fn heartbeat(routes: &mut RouteTable, request: &Command, now_ms: i64) -> Result {
    let header: BrokerHeartbeatRequestHeader = request.header()?;
    routes.heard_of(&Member { cluster: header.cluster_name, address: header.broker_addr }, now_ms);
    Ok(success())
}

pub(in crate::namesrv) fn data_version(routes: &mut RouteTable, request: &Command, now_ms: i64) -> Result {
    let header: QueryDataVersionRequestHeader = request.header()?;
    let asked: DataVersion = request.json()?;
    let member = Member { cluster: header.cluster_name, address: header.broker_addr };
    routes.heard_of(&member, now_ms);
    let known = routes.data_version(&member);
    let response = success().with_header(&QueryDataVersionResponseHeader { changed: known != Some(asked) });
    Ok(match known {
        Some(known) => response.with_json(&known),
        None => response,
    })
}

pub(in crate::namesrv) fn clusters(routes: &RouteTable) -> Command {
    success().with_json(&routes.cluster_info())
}

pub(in crate::namesrv) fn members(routes: &RouteTable, request: &Command) -> Result {
    let header: GetBrokerMemberGroupRequestHeader = request.header()?;
    let group = routes.member_group(&header.cluster_name, &header.broker_name);
    Ok(success().with_json(&GetBrokerMemberGroupResponseBody { broker_member_group: Some(group) }))
}

pub(in crate::namesrv) fn wipe_write_perm(routes: &mut RouteTable, request: &Command) -> Result {
    let header: BrokerNameRequestHeader = request.header()?;
    let wipe_topic_count = routes.wipe_write_perm(&header.broker_name);
    Ok(success().with_header(&WipeWritePermOfBrokerResponseHeader { wipe_topic_count }))
}

pub(in crate::namesrv) fn add_write_perm(routes: &mut RouteTable, request: &Command) -> Result {
    let header: BrokerNameRequestHeader = request.header()?;
    let add_topic_count = routes.add_write_perm(&header.broker_name);
    Ok(success().with_header(&AddWritePermOfBrokerResponseHeader { add_topic_count }))
}
