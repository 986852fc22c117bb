//! The settings as they are at this moment, and how they change.

use std::sync::{Arc, PoisonError, RwLock};

use tracing::info;

use crate::config::{self, Loaded, NamesrvConfig};
use crate::env::Disk;

/// The settings, which operators change while the name server runs.
pub(super) struct Settings {
    current: RwLock<Arc<Loaded<NamesrvConfig>>>,
    /// Held while the file is written, so that changes follow each other.
    writing: tokio::sync::Mutex<()>,
    disk: Disk,
}

impl Settings {
    pub(super) fn new(config: Loaded<NamesrvConfig>, disk: Disk) -> Self {
        Self { current: RwLock::new(Arc::new(config)), writing: tokio::sync::Mutex::default(), disk }
    }

    /// Returns the settings that hold now.
    pub(super) fn current(&self) -> Arc<Loaded<NamesrvConfig>> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Applies `key=value` lines, all or none, after they are in the file of `-c` or in `configStorePath`.
    pub(super) async fn update(&self, text: &str) -> Result<(), config::Error> {
        let _turn = self.writing.lock().await;
        let before = self.current();
        let changed = before.with_changes(text)?;
        let keys: Vec<String> = changed.live.iter().chain(&changed.after_restart).cloned().collect();
        let config = Arc::new(changed.config);
        let path = before.file().unwrap_or(&before.config_store_path).to_owned();
        let (disk, new) = (self.disk.clone(), Arc::clone(&config));
        let names = keys.join(" ");
        let save = move || {
            if let Some(folder) = path.parent() {
                let failed = |source| config::Error::Write { path: path.clone(), source };
                disk.make_folder(folder).map_err(failed)?;
            }
            new.save(&keys, &path, &disk)
        };
        tokio::task::spawn_blocking(save).await.expect("saving does not panic")?;
        info!(keys = names, "settings changed");
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }
}
