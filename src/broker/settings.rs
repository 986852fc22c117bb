//! Settings at run time: UPDATE_BROKER_CONFIG (25), GET_BROKER_CONFIG (26).
//!
//! Source: RocketMQ `AdminBrokerProcessor`, `Configuration`. An update counts as a whole or not at all; it goes to the
//! file of `-c`, whose comments and order stay.
//!
//! In a Raft group keys that take effect at once are settings of the group: the leader commits them, and every replica
//! takes them over when it applies them, and at its start. The others stay with the replica that was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::context::{Context, blocking};
use super::reply::{Reply, later};
use super::response::Error;
use super::start::retention;
use crate::config::{self, BrokerConfig, Changed, Loaded, TakenOver};
use crate::metadata::MetadataCommand;
use crate::model::DataVersion;
use crate::remoting::header::GetBrokerConfigResponseHeader;
use crate::remoting::{Command, ResponseCode, json};

/// Keys that name servers have to hear of.
const ANNOUNCED: [&str; 2] = ["brokerPermission", "namesrvAddr"];
/// Most bytes of an update of the group: it is one entry of the log and stands in every image.
const SHARED_BYTES_MAX: usize = 64 << 10;

/// The version of the settings, in memory only, as in Java.
#[derive(Debug)]
pub(crate) struct Settings {
    version: Mutex<DataVersion>,
    /// Held while an update is made and saved: one at a time.
    updating: tokio::sync::Mutex<()>,
    /// Told when settings of the group are applied.
    applied: Arc<Notify>,
}

/// UPDATE_BROKER_CONFIG.
pub(crate) fn update(
    context: &Arc<Context>,
    settings: &Arc<Settings>,
    request: &Command,
) -> Result<Reply, Error> {
    let (context, settings, text) = (Arc::clone(context), Arc::clone(settings), text_of(request));
    Ok(later(async move {
        let _one_at_a_time = settings.updating.lock().await;
        // The whole update is checked before anything is done.
        let changed = context.config().with_changes(&text)?;
        let (shared, own) = split(config::update_items(&text)?);
        if context.is_in_group() && !shared.is_empty() {
            update_group(&context, &settings, shared, &own).await?;
        } else {
            update_own(&context, &settings, changed).await?;
        }
        Ok(Command::response(ResponseCode::Success))
    }))
}

async fn update_own(
    context: &Arc<Context>,
    settings: &Settings,
    changed: Changed<BrokerConfig>,
) -> Result<(), Error> {
    let Changed { config, live, after_restart } = changed;
    tracing::info!(?live, ?after_restart, "settings updated");
    save(context, &config, [live.clone(), after_restart].concat()).await?;
    put_in_force(context, settings, config, &live);
    Ok(())
}

/// Commits settings of the group, and takes them over here. Those of one replica would be saved by another one, or
/// not at all if the commit fails: they may not come along.
async fn update_group(
    context: &Arc<Context>,
    settings: &Settings,
    shared: BTreeMap<String, String>,
    own: &[String],
) -> Result<(), Error> {
    if !own.is_empty() {
        let keys: Vec<_> = shared.into_keys().collect();
        return Err(Error::InvalidParameter(format!(
            "settings of one replica ({}) and of the whole group ({}) have to be updated one after the other",
            own.join(", "),
            keys.join(", ")
        )));
    }
    let bytes: usize = shared.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > SHARED_BYTES_MAX {
        return Err(Error::InvalidParameter(format!(
            "{bytes} bytes of settings; the most is {SHARED_BYTES_MAX}"
        )));
    }
    context.change(MetadataCommand::PutSettings(shared)).await?;
    take_over(context, settings).await;
    Ok(())
}

/// Returns whether an update names settings of the group, which the leader carries out.
pub(crate) fn is_for_group(request: &Command) -> bool {
    // What cannot be read is refused by the replica that was asked.
    config::update_items(&text_of(request)).is_ok_and(|items| !split(items).0.is_empty())
}

/// Waits for a moment until this replica has taken over what the leader has committed, so that whoever asks it next
/// finds what it set.
pub(crate) async fn catch_up(context: &Arc<Context>, settings: &Settings) {
    if context.leads() {
        return;
    }
    if let Err(error) = context.replication.read_barrier().await {
        tracing::debug!(%error, "settings of the group are taken over later");
    }
    let _one_at_a_time = settings.updating.lock().await;
    take_over(context, settings).await;
}

/// Takes the settings of the group over at the start of a replica. They count for more than its file: says so where the
/// file has another value.
pub(crate) async fn start_with_group(context: &Arc<Context>, settings: &Settings) {
    let applied = Arc::clone(&settings.applied);
    context.metadata.settings().on_change(move || applied.notify_one());
    let _one_at_a_time = settings.updating.lock().await;
    let before = context.config();
    for (key, origin) in take_over(context, settings).await {
        let value = context.metadata.settings().all().remove(&key).unwrap_or_default();
        tracing::warn!(
            key,
            value,
            set_here = before.set_value(&key).unwrap_or_default(),
            %origin,
            "the setting of the group counts, not the one of this replica; change it with mqadmin updateBrokerConfig"
        );
    }
}

/// Takes the settings of the group over whenever some were applied, until told to stop.
pub(crate) async fn run(context: Arc<Context>, settings: Arc<Settings>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = settings.applied.notified() => {}
        }
        let _one_at_a_time = settings.updating.lock().await;
        take_over(&context, &settings).await;
    }
}

/// Puts the settings of the group in force and into the file, and returns the keys that had another value, with where it
/// was set. To be called by one at a time.
async fn take_over(context: &Arc<Context>, settings: &Settings) -> Vec<(String, config::Origin)> {
    let TakenOver { config, set, live, overruled, refused } =
        context.config().with_shared(&context.metadata.settings().all());
    for error in refused {
        tracing::error!(%error, "a setting of the group does not go together with those of this replica");
    }
    if set.is_empty() {
        return Vec::new();
    }
    tracing::info!(keys = ?set, "settings of the group taken over");
    // The group keeps them: the file is for those who read it.
    if config.file().is_some()
        && let Err(error) = save(context, &config, set).await
    {
        tracing::error!(%error, "settings of the group not saved; they are in force all the same");
    }
    put_in_force(context, settings, config, &live);
    overruled
}

fn put_in_force(context: &Context, settings: &Settings, config: Loaded<BrokerConfig>, live: &[String]) {
    context.store().set_retention(retention(&config));
    context.set_config(config);
    settings.version().advance(context.clock.now_ms(), 0);
    if live.iter().any(|key| ANNOUNCED.contains(&key.as_str())) {
        context.announcer.topics_changed();
    }
}

/// Writes keys into the file of `-c`.
async fn save(context: &Context, config: &Loaded<BrokerConfig>, keys: Vec<String>) -> Result<(), Error> {
    let (config, disk) = (config.clone(), context.disk.clone());
    blocking(move || match config.file() {
        Some(file) => Ok(config.save(&keys, file, &disk)?),
        None => {
            tracing::warn!("settings not saved: the broker was started without -c");
            Ok(())
        }
    })
    .await
}

/// Returns what is the group's, and the keys of what is one replica's.
fn split(items: BTreeMap<String, String>) -> (BTreeMap<String, String>, Vec<String>) {
    let (shared, own): (BTreeMap<_, _>, BTreeMap<_, _>) =
        items.into_iter().partition(|(key, _)| config::is_shared::<BrokerConfig>(key));
    (shared, own.into_keys().collect())
}

fn text_of(request: &Command) -> String {
    String::from_utf8_lossy(&request.body.to_bytes()).into_owned()
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
        Self {
            version: Mutex::new(version),
            updating: tokio::sync::Mutex::new(()),
            applied: Arc::new(Notify::new()),
        }
    }

    fn version(&self) -> MutexGuard<'_, DataVersion> {
        self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
