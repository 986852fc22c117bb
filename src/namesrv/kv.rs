//! Values by namespace and key, kept in `kvConfig.json`. Source: RocketMQ `KVConfigManager`.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use serde::{Deserialize, Serialize};
use tracing::info;

use crate::env::Disk;
use crate::remoting::body::KvTable;
use crate::remoting::json;

/// The namespace of the order configurations of topics: `broker:queues;...` by topic.
pub(super) const ORDER_TOPICS: &str = "ORDER_TOPIC_CONFIG";

/// Longest file that is written: a list of a namespace has to fit into one frame with room to spare.
const FILE_BYTES_MAX: usize = 8 << 20;

/// Why a value was not put or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file would become longer than it may be.
    #[error("kv config is full: {0} bytes, at most {FILE_BYTES_MAX} are kept")]
    Full(usize),
    /// The file cannot be read or written.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("read {}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: json::Error,
    },
}

/// The values and their file. A change is in the file before anybody sees it.
pub(super) struct KvStore {
    values: RwLock<KvConfig>,
    /// Held while the file is written, so that changes follow each other.
    writing: tokio::sync::Mutex<()>,
    disk: Disk,
    path: PathBuf,
}

impl KvStore {
    /// Reads the file. Blocks on the disk.
    pub(super) fn open(disk: Disk, path: &Path) -> Result<Self, Error> {
        let values = RwLock::new(KvConfig::load(&disk, path)?);
        Ok(Self { values, writing: tokio::sync::Mutex::default(), disk, path: path.to_owned() })
    }

    /// Returns the values.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, KvConfig> {
        self.values.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the values, the file first.
    pub(super) async fn change(&self, change: impl FnOnce(&mut KvConfig)) -> Result<(), Error> {
        let _turn = self.writing.lock().await;
        let mut values = self.read().clone();
        change(&mut values);
        let (disk, path) = (self.disk.clone(), self.path.clone());
        let save = move || values.save(&disk, &path).map(|()| values);
        let values = tokio::task::spawn_blocking(save).await.expect("saving does not panic")?;
        *self.values.write().unwrap_or_else(PoisonError::into_inner) = values;
        Ok(())
    }
}

/// The values as the file has them.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct KvConfig {
    config_table: BTreeMap<String, BTreeMap<String, String>>,
}

impl KvConfig {
    /// Reads the file; empty if there is none. A file that cannot be read is an error: writing over it would lose it.
    pub(super) fn load(disk: &Disk, path: &Path) -> Result<Self, Error> {
        match disk.read(path) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Ok(Self::default()),
            Ok(bytes) => {
                let config: Self = json::from_slice(&bytes)
                    .map_err(|source| Error::Content { path: path.to_owned(), source })?;
                info!(namespaces = config.config_table.len(), "load kv config");
                Ok(config)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(Error::Io { action: "read", path: path.to_owned(), source }),
        }
    }

    /// Writes the file. Blocks on two fsyncs.
    pub(super) fn save(&self, disk: &Disk, path: &Path) -> Result<(), Error> {
        let bytes = json::to_vec(self);
        if bytes.len() > FILE_BYTES_MAX {
            return Err(Error::Full(bytes.len()));
        }
        let failed = |source| Error::Io { action: "write", path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            disk.make_folder(folder).map_err(failed)?;
        }
        disk.replace(path, &bytes).map_err(failed)
    }

    /// Sets a value.
    pub(super) fn put(&mut self, namespace: &str, key: &str, value: &str) {
        info!(namespace, key, "put kv config");
        self.config_table.entry(namespace.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
    }

    /// Returns a value.
    pub(super) fn get(&self, namespace: &str, key: &str) -> Option<&str> {
        self.config_table.get(namespace)?.get(key).map(String::as_str)
    }

    /// Removes a value. Its namespace stays, as in Java.
    pub(super) fn remove(&mut self, namespace: &str, key: &str) {
        info!(namespace, key, "delete kv config");
        if let Some(values) = self.config_table.get_mut(namespace) {
            values.remove(key);
        }
    }

    /// Returns all values of a namespace; `None` if there never was one.
    pub(super) fn list(&self, namespace: &str) -> Option<KvTable> {
        self.config_table.get(namespace).map(|table| KvTable { table: table.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_a_restart_in_java_s_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("namesrv/kvConfig.json");
        let disk = Disk::real();
        let mut config = KvConfig::load(&disk, &path).unwrap();
        config.put("N", "k", "v\"1\"");
        config.put(ORDER_TOPICS, "T", "broker-a:4");
        config.put("N", "gone", "x");
        config.remove("N", "gone");
        config.remove("nowhere", "x");
        config.save(&disk, &path).unwrap();
        let text = r#"{"configTable":{"N":{"k":"v\"1\""},"ORDER_TOPIC_CONFIG":{"T":"broker-a:4"}}}"#;
        assert_eq!(disk.read(&path).unwrap(), text.as_bytes());
        let again = KvConfig::load(&disk, &path).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.get(ORDER_TOPICS, "T"), Some("broker-a:4"));
        assert_eq!(again.list("N").unwrap().table.len(), 1);
        assert_eq!((again.get("N", "x"), again.list("nowhere")), (None, None));
    }

    #[test]
    fn file_that_cannot_be_understood_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kvConfig.json");
        let disk = Disk::real();
        disk.replace(&path, b"{\"configTable\":[").unwrap();
        assert!(matches!(KvConfig::load(&disk, &path), Err(Error::Content { .. })));
        disk.replace(&path, b" \n").unwrap();
        assert_eq!(KvConfig::load(&disk, &path).unwrap(), KvConfig::default());
    }

    #[test]
    fn size_is_limited() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = KvConfig::default();
        config.put("N", "k", &"x".repeat(FILE_BYTES_MAX));
        let saved = config.save(&Disk::real(), &folder.path().join("kvConfig.json"));
        assert!(matches!(saved, Err(Error::Full(_))));
    }
}
