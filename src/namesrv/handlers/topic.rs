//! GET_ROUTEINFO_BY_TOPIC (105), GET_ALL_TOPIC_LIST_FROM_NAMESERVER (206), DELETE_TOPIC_IN_NAMESRV (216),
//! REGISTER_TOPIC_IN_NAMESRV (217), GET_TOPICS_BY_CLUSTER (224), GET_SYSTEM_TOPIC_LIST_FROM_NS (304), and the lists of
//! unit topics (311, 312, 313).

use tracing::warn;

use super::{Refusal, Result, success};
use crate::config::NamesrvConfig;
use crate::namesrv::kv::{KvStore, ORDER_TOPICS};
use crate::namesrv::routes::{RouteTable, UnitFilter, keep_zone};
use crate::namesrv::{ZONE_MODE, ZONE_NAME};
use crate::remoting::body::TopicRouteData;
use crate::remoting::header::{
    DeleteTopicFromNamesrvRequestHeader, GetRouteInfoRequestHeader, GetTopicsByClusterRequestHeader,
    RegisterTopicRequestHeader,
};
use crate::remoting::json::{Style, to_vec_styled};
use crate::remoting::{Command, version};

pub(in crate::namesrv) fn route(
    routes: &RouteTable,
    kv: &KvStore,
    config: &NamesrvConfig,
    request: &Command,
) -> Result {
    let GetRouteInfoRequestHeader { topic, accept_standard_json_only } = request.header()?;
    let Some(mut route) = routes.route(&topic, config.support_acting_master) else {
        return Err(Refusal::NoRoute(topic));
    };
    if config.order_message_enable {
        route.order_topic_conf = kv.read().get(ORDER_TOPICS, topic.as_str()).map(str::to_owned);
    }
    if request.ext_fields.is_true(ZONE_MODE)
        && let Some(zone) = request.ext_fields.get(ZONE_NAME)
        && !zone.trim().is_empty()
    {
        keep_zone(&mut route, zone);
    }
    let standard = accept_standard_json_only || request.version >= version::V4_9_4;
    let style = if standard { Style::Standard } else { Style::Compact };
    Ok(success().with_body(to_vec_styled(&route, style)))
}

pub(in crate::namesrv) fn all(routes: &RouteTable, config: &NamesrvConfig) -> Result {
    if !config.enable_all_topic_list {
        return Err(Refusal::Disabled);
    }
    Ok(success().with_json(&routes.all_topics()))
}

pub(in crate::namesrv) fn of_cluster(
    routes: &RouteTable,
    config: &NamesrvConfig,
    request: &Command,
) -> Result {
    if !config.enable_topic_list {
        return Err(Refusal::Disabled);
    }
    let header: GetTopicsByClusterRequestHeader = request.header()?;
    Ok(success().with_json(&routes.topics_of_cluster(&header.cluster)))
}

pub(in crate::namesrv) fn system(routes: &RouteTable) -> Command {
    success().with_json(&routes.system_topics())
}

pub(in crate::namesrv) fn unit(routes: &RouteTable, config: &NamesrvConfig, filter: UnitFilter) -> Result {
    if !config.enable_topic_list {
        return Err(Refusal::Disabled);
    }
    Ok(success().with_json(&routes.unit_topics(filter)))
}

pub(in crate::namesrv) fn register(routes: &mut RouteTable, request: &Command) -> Result {
    let RegisterTopicRequestHeader { topic } = request.header()?;
    if !request.body.is_empty() {
        let route: TopicRouteData = request.json()?;
        if !route.queue_datas.is_empty() && !routes.register_topic(topic.clone(), route.queue_datas) {
            warn!(%topic, "leave out queues of a broker group that is unknown");
        }
    }
    Ok(success())
}

pub(in crate::namesrv) fn delete(routes: &mut RouteTable, request: &Command) -> Result {
    let header: DeleteTopicFromNamesrvRequestHeader = request.header()?;
    let cluster = header.cluster_name.filter(|cluster| !cluster.is_empty());
    routes.delete_topic(&header.topic, cluster.as_deref());
    Ok(success())
}
