//! Consumer groups for operators: UPDATE_AND_CREATE_SUBSCRIPTIONGROUP (200) and _LIST (225),
//! GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201), DELETE_SUBSCRIPTIONGROUP (207), GET_SUBSCRIPTIONGROUP_CONFIG (352),
//! UPDATE_AND_GET_GROUP_FORBIDDEN (353).
//!
//! Source: RocketMQ `AdminBrokerProcessor`, `SubscriptionGroupManager`.

use super::attributes;
use super::context::Context;
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
pub(crate) async fn update(context: &Context, request: &Command) -> Result<Command, Error> {
    put(context, vec![request.json()?]).await
}

/// UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST. All groups are checked before the first is made.
pub(crate) async fn update_list(context: &Context, request: &Command) -> Result<Command, Error> {
    let body: SubscriptionGroupList = request.json()?;
    put(context, body.group_config_list).await
}

/// DELETE_SUBSCRIPTIONGROUP. Its retry and dead letter topics stay; tools delete them by themselves.
pub(crate) async fn delete(
    context: &Context,
    resets: &Resets,
    stats: &Stats,
    request: &Command,
) -> Result<Command, Error> {
    let DeleteSubscriptionGroupRequestHeader { group_name: group, clean_offset } = request.header()?;
    let command = MetadataCommand::DeleteGroup { group: group.clone(), clean_offsets: clean_offset };
    context.change(command).await?;
    tracing::info!(%group, clean_offset, "group deleted");
    if clean_offset {
        resets.forget_group(&group);
    }
    stats.forget_group(&group);
    Ok(Command::response(ResponseCode::Success))
}

/// GET_SUBSCRIPTIONGROUP_CONFIG. Makes the group if that is allowed, as Java does.
pub(crate) async fn get(context: &Context, request: &Command) -> Result<Command, Error> {
    let header: GetSubscriptionGroupConfigRequestHeader = request.header()?;
    Ok(Command::response(ResponseCode::Success).with_json(&*context.group(&header.group).await?))
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
pub(crate) async fn forbidden(context: &Context, request: &Command) -> Result<Command, Error> {
    let UpdateGroupForbiddenRequestHeader { group, topic, readable } = request.header()?;
    if let Some(readable) = readable {
        let command = MetadataCommand::SetReadable { group: group.clone(), topic: topic.clone(), readable };
        context.change(command).await?;
        tracing::info!(%group, %topic, readable, "permission to read updated");
    }
    let readable = Some(context.metadata.groups().is_readable(&group, &topic));
    let body = GroupForbidden { group, readable, topic };
    Ok(Command::response(ResponseCode::Success).with_json(&body))
}

async fn put(context: &Context, wanted: Vec<SubscriptionGroupConfig>) -> Result<Command, Error> {
    let wanted = wanted.into_iter().map(|config| check(context, config)).collect::<Result<Vec<_>, _>>()?;
    for config in wanted {
        tracing::info!(group = %config.group_name, consume = config.consume_enable, "group updated");
        context.change(MetadataCommand::PutGroup(config)).await?;
    }
    Ok(Command::response(ResponseCode::Success))
}

/// Returns the settings that a group shall have, with the changes of attributes carried out.
fn check(context: &Context, wanted: SubscriptionGroupConfig) -> Result<SubscriptionGroupConfig, Error> {
    wanted.group_name.check()?;
    let known = context.metadata.groups().get(&wanted.group_name);
    let current = known.as_ref().map(|known| &known.attributes);
    let attributes = attributes::alter(&attributes::OF_GROUPS, current, &wanted.attributes)?;
    Ok(SubscriptionGroupConfig { attributes, ..wanted })
}
