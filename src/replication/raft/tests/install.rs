//! Installing a snapshot, without a group.

use std::sync::Arc;
use std::time::Duration;

use openraft::storage::RaftStateMachine;

use super::super::codec::StateImage;
use super::super::files::Files;
use super::super::log::Log;
use super::super::machine::{Machine, Shared};
use super::super::proposal::batches;
use super::super::types::{StoredMembership, log_id};
use super::cluster::draft;
use crate::env::{Clock, Disk};
use crate::metadata::{Metadata, MetadataImage};
use crate::model::{LogIndex, PhysicalOffset, Term};
use crate::replication::queue::AppendQueue;
use crate::replication::{Error, QueueLimits};
use crate::store::{EntryKind, EntryOptions, Listener, NewEntry, Store, StoreConfig};

const SEGMENT: u64 = 16 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_an_entry_that_a_snapshot_may_contain_is_not_told_that_it_is_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, clock) = (Disk::real(), Clock::system());
    let config =
        StoreConfig { segment_bytes: SEGMENT, index: false, ..StoreConfig::new(folder.path().into()) };
    let options = EntryOptions { sync: true, ..EntryOptions::default() };
    let opened =
        Store::open_entries(config, options, disk.clone(), clock.clone(), Listener::new(|_| {})).unwrap();
    let files = Arc::new(Files::open(folder.path().join("raft"), disk.clone()).unwrap());
    let metadata = Arc::new(Metadata::open(&folder.path().join("config"), disk).unwrap());
    let (store, entries) = (opened.store, Arc::new(opened.log));
    let shared =
        Shared::new(Arc::clone(&store), Arc::clone(&entries), metadata, Arc::clone(&files), clock, None);
    let shared = Arc::new(shared.unwrap());
    let waiting = Arc::clone(&shared.waiting);
    let log = Log::new(Arc::clone(&entries), store, Arc::clone(&files), Arc::clone(&waiting), None).unwrap();
    let mut machine = Machine::new(shared, opened.committer, log);

    // A message that has its place in the log, as entry 3 of a leader that does not lead any more.
    let queue = AppendQueue::new(QueueLimits { bytes_max: 1 << 20, wait_max: Duration::from_secs(1) });
    let draft = draft("T", 0, "m");
    let len = draft.len();
    let pending = queue.put(Term(1), draft, None, len).await.unwrap();
    let mut batch = batches(queue.take().unwrap()).pop().unwrap();
    let mut drafts = std::mem::take(&mut batch.drafts);
    let entry = NewEntry {
        index: LogIndex(3),
        term: Term(1),
        kind: EntryKind::Data,
        command: &[],
        forgotten: &[],
        drafts: &mut drafts,
    };
    let appended = entries.append(entry).unwrap();
    waiting.insert(3, batch.placed(appended));

    let members = StoredMembership::default();
    let base = PhysicalOffset(SEGMENT);
    let image = StateImage::new(Some(log_id(2, 5)), 7, base, SEGMENT, &members, MetadataImage::default());
    files.save_snapshot(&image).unwrap();
    let bytes = files.snapshot_bytes(base).unwrap().unwrap();
    machine.install_snapshot(&image.meta().unwrap(), bytes).await.unwrap();
    let answer = pending.committed().await;
    assert!(matches!(answer, Err(Error::Unconfirmed)), "{answer:?}");
    assert_eq!(entries.last().map(|last| last.index), Some(LogIndex(5)));
    entries.stop();
}
