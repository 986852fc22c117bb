//! Consumer groups for operators: UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200) and _LIST (225),
//! GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201), DELETE_SUBSCRIPTIONGROUP (207), GET_SUBSCRIPTIONGROUP_CONFIG (352),
//! UPDATE_AND_GET_GROUP_FORBIDDEN (353).
//!
//! Source: RocketMQ `AdminBrokerProcessor`, `SubscriptionGroupManager`.

use std::sync::Arc;

use super::attributes;
use super::context::Context;
use super::reply::{Reply, later};
use super::resets::Resets;
use super::response::Error;
use super::stats::Stats;
use super::topics::Part;
use crate::metadata::MetadataCommand;
use crate::model::SubscriptionGroupConfig;
use crate::remoting::body::{GroupForbidden, SubscriptionGroupList, SubscriptionGroupWrapper};
use crate::remoting::header::{
    DeleteSubscriptionGroupRequestHeader, GetAllSubscriptionGroupRequestHeader,
    GetAllSubscriptionGroupResponseHeader, GetSubscriptionGroupConfigRequestHeader,
    UpdateGroupForbiddenRequestHeader,
};
use crate::remoting::{Command, ResponseCode};

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP.
pub(crate) fn update(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    put(context, vec![request.json()?])
}

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST. All groups are checked before the first is made.
pub(crate) fn update_list(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let body: SubscriptionGroupList = request.json()?;
    put(context, body.group_config_list)
}

/// DELETE_SUBSCRIPTIONGROUP. Its retry and dead letter topics stay; tools delete them by themselves.
pub(crate) fn delete(
    context: &Arc<Context>,
    resets: &Arc<Resets>,
    stats: &Arc<Stats>,
    request: &Command,
) -> Result<Reply, Error> {
    let DeleteSubscriptionGroupRequestHeader { group_name: group, clean_offset } = request.header()?;
    let (context, resets, stats) = (Arc::clone(context), Arc::clone(resets), Arc::clone(stats));
    Ok(later(async move {
        let command = MetadataCommand::DeleteGroup { group: group.clone(), clean_offsets: clean_offset };
        context.change(command).await?;
        tracing::info!(%group, clean_offset, "group deleted");
        if clean_offset {
            resets.forget_group(&group);
        }
        stats.forget_group(&group);
        Ok(Command::response(ResponseCode::Success))
    }))
}

/// GET_SUBSCRIPTIONGROUP_CONFIG. Makes the group if that is allowed, as Java does.
pub(crate) fn get(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let header: GetSubscriptionGroupConfigRequestHeader = request.header()?;
    let context = Arc::clone(context);
    Ok(later(async move {
        Ok(Command::response(ResponseCode::Success).with_json(&*context.group(&header.group).await?))
    }))
}

/// GET_ALL_SUBSCRIPTIONGROUP_CONFIG.
pub(crate) fn all(context: &Context, request: &Command) -> Result<Command, Error> {
    let header: GetAllSubscriptionGroupRequestHeader = request.header()?;
    let table = context.metadata.groups().snapshot();
    let part =
        Part { first: header.group_seq, max: header.max_group_num, version: header.data_version.as_deref() };
    let total = table.subscription_group_table.len();
    let groups = part.of(table.subscription_group_table, table.data_version);
    let mut forbidden_table = table.forbidden_table;
    forbidden_table.retain(|group, _| groups.contains_key(group));
    let body = SubscriptionGroupWrapper {
        data_version: table.data_version,
        forbidden_table,
        subscription_group_table: groups,
    };
    let total_group_num = i32::try_from(total).unwrap_or(i32::MAX);
    let header = GetAllSubscriptionGroupResponseHeader { total_group_num };
    Ok(Command::response(ResponseCode::Success).with_header(&header).with_json(&body))
}

/// UPDATE_AND_GET_GROUP_FORBIDDEN: whether a group may read a topic.
pub(crate) fn forbidden(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let UpdateGroupForbiddenRequestHeader { group, topic, readable } = request.header()?;
    let context = Arc::clone(context);
    Ok(later(async move {
        if let Some(readable) = readable {
            let (group, topic) = (group.clone(), topic.clone());
            tracing::info!(%group, %topic, readable, "update permission to read");
            context.change(MetadataCommand::SetReadable { group, topic, readable }).await?;
        }
        let readable = Some(context.metadata.groups().is_readable(&group, &topic));
        let body = GroupForbidden { group, readable, topic };
        Ok(Command::response(ResponseCode::Success).with_json(&body))
    }))
}

/// Makes or changes groups. Their changes are handed in together, so that they are committed together.
fn put(context: &Arc<Context>, wanted: Vec<SubscriptionGroupConfig>) -> Result<Reply, Error> {
    let wanted = wanted.into_iter().map(|config| check(context, config)).collect::<Result<Vec<_>, _>>()?;
    let permit = context.replication.permit()?;
    let mut changes = Vec::with_capacity(wanted.len());
    for config in wanted {
        tracing::info!(group = %config.group_name, consume = config.consume_enable, "update a group");
        changes.push(context.replication.change(permit, MetadataCommand::PutGroup(config))?);
    }
    Ok(later(async move {
        for change in changes {
            change.committed().await?;
        }
        Ok(Command::response(ResponseCode::Success))
    }))
}

/// Returns the settings that a group shall have, with the changes of attributes carried out.
fn check(context: &Context, wanted: SubscriptionGroupConfig) -> Result<SubscriptionGroupConfig, Error> {
    wanted.group_name.check()?;
    let known = context.metadata.groups().get(&wanted.group_name);
    let current = known.as_ref().map(|known| &known.attributes);
    let attributes = attributes::alter(&attributes::OF_GROUPS, current, &wanted.attributes)?;
    Ok(SubscriptionGroupConfig { attributes, ..wanted })
}
