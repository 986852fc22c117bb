//! UPDATE_NAMESRV_CONFIG (318), GET_NAMESRV_CONFIG (319).

use super::{Result, success};
use crate::config::properties;
use crate::namesrv::settings::Settings;
use crate::remoting::Command;

pub(in crate::namesrv) async fn update(settings: &Settings, request: &Command) -> Result {
    let body = request.body.to_bytes();
    if !body.is_empty() {
        settings.update(&properties::decode(&body)).await?;
    }
    Ok(success())
}

pub(in crate::namesrv) fn get(settings: &Settings) -> Command {
    success().with_body(settings.current().to_properties())
}
