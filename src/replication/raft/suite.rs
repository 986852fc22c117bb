//! openraft's own tests of a log storage, on ours.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{OptionalSend, RaftLogReader, RaftSnapshotBuilder, StorageError};

use super::files::Files;
use super::log::Log;
use super::types::{Entry, Image, LogId, Payload, Snapshot, SnapshotMeta, StoredMembership, Types, log_id};
use crate::env::{Clock, Disk};
use crate::store::{EntryOptions, Listener, Store, StoreConfig};

struct Builder;

impl StoreBuilder<Types, Log, Counter, tempfile::TempDir> for Builder {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, Counter), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let config =
            StoreConfig { segment_bytes: 64 << 10, index: false, ..StoreConfig::new(folder.path().into()) };
        let options = EntryOptions { sync: true, ..EntryOptions::default() };
        let (disk, listener) = (Disk::real(), Listener::new(|_| {}));
        let opened = Store::open_entries(config, options, disk.clone(), Clock::system(), listener).unwrap();
        let files = Files::open(folder.path().join("raft"), disk).unwrap();
        let log =
            Log::new(Arc::new(opened.log), opened.store, Arc::new(files), Arc::default(), None).unwrap();
        Ok((folder, log, Counter::default()))
    }
}

/// A state machine that only counts.
#[derive(Debug, Default, Clone)]
struct Counter {
    last: Option<LogId>,
    membership: StoredMembership,
    snapshot: Option<SnapshotMeta>,
}

impl RaftStateMachine<Types> for Counter {
    type SnapshotData = Image;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, _) = next?;
            self.last = Some(entry.log_id);
            if let Some(membership) = entry.get_membership() {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
            }
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Self> {
        let meta = SnapshotMeta { last_log_id: self.last, last_membership: self.membership.clone() };
        self.snapshot = Some(meta);
        Some(self.clone())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _snapshot: Image) -> io::Result<()> {
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshot.clone().map(|meta| Snapshot { meta, snapshot: Bytes::new() }))
    }
}

impl RaftSnapshotBuilder<Types> for Counter {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let meta = self.snapshot.clone().unwrap_or_default();
        Ok(Snapshot { meta, snapshot: Bytes::new() })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_storage_tests_pass() {
    Suite::test_all(Builder).await.unwrap();
}

#[tokio::test]
async fn entries_that_were_taken_back_are_waited_for() {
    let (_folder, mut log, _) = Builder.build().await.unwrap();
    let blank = |term, index| Entry::new(log_id(term, index), Payload::Blank);
    log.blocking_append([blank(1, 0), blank(1, 1), blank(1, 2)]).await.unwrap();
    log.truncate_after(Some(log_id(1, 0))).await.unwrap();
    // A leader that was just replaced is still sending them.
    let mut reader = log.clone();
    let mut reading = Box::pin(reader.limited_get_log_entries(1, 2));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut reading).await.is_err(), "it waits");
    log.blocking_append([blank(2, 1)]).await.unwrap();
    let entries = reading.await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.log_id).collect::<Vec<_>>(), [log_id(2, 1)]);
}
