//! Settings at run time: UPDATE_BROKER_CONFIG (25), GET_BROKER_CONFIG (26).
//!
//! Source: RocketMQ `AdminBrokerProcessor`, `Configuration`. An update counts as a whole or not at all; it goes to the
//! file of `-c`, whose comments and order stay.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context::{Context, blocking};
use super::reply::{Reply, later};
use super::response::Error;
use super::start::retention;
use crate::config::Changed;
use crate::model::DataVersion;
use crate::remoting::header::GetBrokerConfigResponseHeader;
use crate::remoting::{Command, ResponseCode, json};

/// Keys that name servers have to hear of.
const ANNOUNCED: [&str; 2] = ["brokerPermission", "namesrvAddr"];

/// The version of the settings, in memory only, as in Java.
#[derive(Debug)]
pub(crate) struct Settings {
    version: Mutex<DataVersion>,
    /// Held while an update is made and saved: one at a time.
    updating: tokio::sync::Mutex<()>,
}

/// UPDATE_BROKER_CONFIG.
pub(crate) fn update(
    context: &Arc<Context>,
    settings: &Arc<Settings>,
    request: &Command,
) -> Result<Reply, Error> {
    let body = request.body.to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    let (context, settings) = (Arc::clone(context), Arc::clone(settings));
    Ok(later(async move {
        let _one_at_a_time = settings.updating.lock().await;
        let Changed { config, live, after_restart } = context.config().with_changes(&text)?;
        tracing::info!(?live, ?after_restart, "settings updated");
        let keys = [live.clone(), after_restart].concat();
        let (saving, disk) = (config.clone(), context.disk.clone());
        blocking(move || match saving.file() {
            Some(file) => Ok(saving.save(&keys, file, &disk)?),
            None => {
                tracing::warn!("settings not saved: the broker was started without -c");
                Ok(())
            }
        })
        .await?;
        context.store().set_retention(retention(&config));
        context.set_config(config);
        settings.version().advance(context.clock.now_ms(), 0);
        if live.iter().any(|key| ANNOUNCED.contains(&key.as_str())) {
            context.announcer.topics_changed();
        }
        Ok(Command::response(ResponseCode::Success))
    }))
}

/// GET_BROKER_CONFIG.
pub(crate) fn get(context: &Context, settings: &Settings) -> Command {
    let version = String::from_utf8_lossy(&json::to_vec(&*settings.version())).into_owned();
    Command::response(ResponseCode::Success)
        .with_header(&GetBrokerConfigResponseHeader { version })
        .with_body(context.config().to_properties())
}

impl Settings {
    pub(crate) fn new(now_ms: i64) -> Self {
        let version = DataVersion { timestamp: now_ms, ..DataVersion::default() };
        Self { version: Mutex::new(version), updating: tokio::sync::Mutex::new(()) }
    }

    fn version(&self) -> MutexGuard<'_, DataVersion> {
        self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
