//! Replication as classic tools see it: GET_BROKER_HA_STATUS (907). Source: RocketMQ `DefaultHAService.getRuntimeInfo`.

use super::context::Context;
use crate::remoting::body::HaRuntimeInfo;
use crate::remoting::{Command, ResponseCode};

/// GET_BROKER_HA_STATUS: a broker without replicas is a master to which no slave is connected.
pub(crate) fn status(context: &Context) -> Command {
    let body = HaRuntimeInfo {
        master: context.replication.role().borrow().is_leader(),
        master_commit_log_max_offset: i64::try_from(context.store().log().committed().0).unwrap_or(i64::MAX),
        ..HaRuntimeInfo::default()
    };
    Command::response(ResponseCode::Success).with_json(&body)
}
