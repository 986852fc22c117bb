//! openraft's state machine: makes committed entries visible and carries their changes out.
//!
//! What is applied is durable by the store's checkpoint (queues, index) and the image (tables, membership), not entry by
//! entry: after a restart openraft applies what follows the image once more. An entry's effect on the queues counts only
//! behind the store's dispatched position, so applying it again changes nothing.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use tokio::sync::{oneshot, watch};

use super::codec::{StateImage, term_of};
use super::files::{Files, decode_snapshot};
use super::log::{Log, tell, wait};
use super::proposal::Waiting;
use super::types::{Entry, Image, LogId, Payload, Snapshot, SnapshotMeta, Stored, StoredMembership, Types};
use crate::env::{Clock, Threads, lacks_room};
use crate::metadata::{Metadata, MetadataCommand, decode_commands};
use crate::metrics::Histogram;
use crate::model::{LogIndex, PhysicalOffset, Topic};
use crate::store::{Check, Committer, EntryHead, EntryKind, EntryLog, Store, decode_head};

/// How long a full disk is left alone before the next try.
const FULL_WAIT: Duration = Duration::from_millis(200);
/// Bytes of entries that another replica gets at once.
const FETCH_BYTES: usize = 32 << 20;

/// What the state machine shares with the rest of the group.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) store: Arc<Store>,
    pub(super) entries: Arc<EntryLog>,
    pub(super) metadata: Arc<Metadata>,
    pub(super) files: Arc<Files>,
    pub(super) waiting: Arc<Waiting>,
    pub(super) clock: Clock,
    /// From the proposal of an entry to its being visible.
    pub(super) commit_latency: Histogram,
    /// Term of the last applied entry.
    pub(super) applied_term: watch::Sender<u64>,
    applied: Mutex<Applied>,
    /// Held while the image is replaced, so that an older one never replaces a newer one.
    saving: Mutex<()>,
    /// Segments below shall go: the position that the next snapshot is taken at.
    floor: Mutex<PhysicalOffset>,
}

#[derive(Debug, Clone)]
struct Applied {
    last: Option<LogId>,
    crc: u32,
    /// End of the last applied entry.
    end: PhysicalOffset,
    membership: StoredMembership,
    /// Topics that were deleted behind the first segment's snapshot, and where.
    forgotten: Vec<(Topic, PhysicalOffset)>,
    /// Clock's reading at the last image.
    imaged: Instant,
}

impl Shared {
    pub(super) fn new(
        store: Arc<Store>,
        entries: Arc<EntryLog>,
        metadata: Arc<Metadata>,
        files: Arc<Files>,
        clock: Clock,
        image: Option<&StateImage>,
    ) -> io::Result<Self> {
        let last = image.and_then(StateImage::last_log_id);
        let applied = Applied {
            last,
            crc: image.map_or(0, |image| image.crc),
            end: PhysicalOffset(image.map_or(0, |image| image.position)),
            membership: image.map(StateImage::membership).transpose()?.unwrap_or_default(),
            forgotten: image.map(|image| image.forgotten_since(store.log().min())).unwrap_or_default(),
            imaged: clock.instant(),
        };
        let floor = Mutex::new(store.log().min());
        Ok(Self {
            store,
            entries,
            metadata,
            files,
            waiting: Arc::default(),
            commit_latency: Histogram::of_latencies(),
            clock,
            applied_term: watch::channel(last.map_or(0, |last| term_of(&last))).0,
            applied: Mutex::new(applied),
            saving: Mutex::new(()),
            floor,
        })
    }

    fn floor(&self) -> PhysicalOffset {
        *self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next snapshot is the one at `base`, which must be there.
    pub(super) fn set_floor(&self, base: PhysicalOffset) {
        *self.floor.lock().unwrap_or_else(PoisonError::into_inner) = base;
    }

    /// Returns the threads for what blocks on the disk.
    pub(super) fn threads(&self) -> &Threads {
        self.store.threads()
    }

    /// Returns the last applied entry.
    pub(super) fn applied(&self) -> Option<LogId> {
        self.lock().last
    }

    /// Returns index and CRC of the last applied entry, and where it ends.
    #[cfg(test)]
    pub(super) fn applied_to(&self) -> Option<(u64, u32, u64)> {
        let applied = self.lock();
        applied.last.map(|last| (last.index(), applied.crc, applied.end.0))
    }

    /// Returns the members as of the last applied entry.
    pub(super) fn membership(&self) -> StoredMembership {
        self.lock().membership.clone()
    }

    /// Returns the bytes of applied entries, from `first` on and not behind `last`: at least one, and not much more than
    /// fits one message. Blocks on the disk.
    pub(super) fn committed(&self, first: u64, last: u64) -> Result<Vec<Bytes>, String> {
        let applied = self.applied().map_or(0, |id| id.index());
        let to = last.min(applied);
        if first > to {
            return Err(format!("entry {first} is not committed here; the last one is {applied}"));
        }
        let entries = self
            .entries
            .entries(LogIndex(first), LogIndex(to + 1), FETCH_BYTES, Check::Whole)
            .map_err(|error| error.to_string())?;
        if entries.first().is_none_or(|entry| entry.index.0 != first) {
            return Err(format!("entry {first} is no longer in the log"));
        }
        Ok(entries.into_iter().map(|entry| entry.bytes).collect())
    }

    /// Saves the image of what is applied. Blocks on the disk.
    ///
    /// Only when nothing is being applied, or by whoever applies.
    pub(super) fn save_image(&self) -> io::Result<()> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let image = self.image();
        // An image must not know more than a power failure leaves of the log.
        self.store.flush_log().map_err(io::Error::other)?;
        self.files.save_image(&image)?;
        self.lock().imaged = self.clock.instant();
        Ok(())
    }

    fn image(&self) -> StateImage {
        let applied = self.lock().clone();
        StateImage::new(
            applied.last,
            applied.crc,
            applied.end,
            self.store.config().segment_bytes,
            &applied.membership,
            self.metadata.image(),
        )
        .with_forgotten(&applied.forgotten)
    }

    /// Saves the snapshot of the segment at `base`, in which the next entry stands.
    ///
    /// One that is there stays: after a restart entries are applied again, while the queues know later ones already.
    fn save_snapshot(&self, base: PhysicalOffset) -> io::Result<()> {
        if self.files.has_snapshot(base)? {
            return Ok(());
        }
        let mut queues: Vec<(Topic, Vec<u64>)> = Vec::new();
        for (topic, queue_id, queue) in self.store.queues().all() {
            if queues.last().is_none_or(|(last, _)| *last != topic) {
                queues.push((topic, Vec::new()));
            }
            let offsets = &mut queues.last_mut().expect("one was just pushed").1;
            offsets.resize(queue_id.0 as usize + 1, 0);
            offsets[queue_id.0 as usize] = queue.max_offset().0;
        }
        let mut image = self.image().with_queues(queues);
        image.position = base.0;
        self.store.flush_log().map_err(io::Error::other)?;
        self.files.save_snapshot(&image)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state machine; there is one.
#[derive(Debug)]
pub(super) struct Machine {
    shared: Arc<Shared>,
    committer: Arc<Committer>,
    log: Log,
}

impl Machine {
    pub(super) fn new(shared: Arc<Shared>, committer: Committer, log: Log) -> Self {
        Self { shared, committer: Arc::new(committer), log }
    }

    async fn apply_one(&self, entry: &Entry) -> io::Result<()> {
        let Payload::Stored(stored) = &entry.payload else {
            return Err(io::Error::other("an entry came to be applied before it was in the log"));
        };
        let Stored { position, bytes, membership } = stored;
        let end = position.plus(bytes.len() as u64);
        let head = decode_head(bytes, *position).map_err(io::Error::other)?;
        self.written(end).await?;
        let size = self.shared.store.config().segment_bytes;
        let (first, before) = {
            let applied = self.shared.lock();
            (applied.last.is_none(), applied.end)
        };
        if !first && before.0.saturating_sub(1) / size != position.0 / size {
            let (shared, base) = (Arc::clone(&self.shared), PhysicalOffset(position.0 / size * size));
            with_room(self.shared.threads(), move || shared.save_snapshot(base)).await?;
        }
        let seen = *position < self.shared.store.dispatched();
        if !head.forgotten.is_empty() && !seen {
            self.forget(&head).await?;
        }
        if !seen {
            // Again from its first record if an index file found no room: what is there already is left alone.
            while let Err(error) = self.committer.commit(*position, bytes) {
                if !matches!(error, crate::store::Error::Full { .. }) {
                    return Err(io::Error::other(error));
                }
                tokio::time::sleep(FULL_WAIT).await;
            }
        }
        let commands = match head.kind {
            EntryKind::Data => decode_commands(head.command).map_err(io::Error::other)?,
            EntryKind::Blank | EntryKind::Membership => Vec::new(),
        };
        for command in &commands {
            self.shared.metadata.apply(command, head.store_timestamp);
        }
        {
            let mut applied = self.shared.lock();
            applied.last = Some(entry.log_id);
            applied.crc = head.crc;
            applied.end = end;
            if let Some(membership) = membership {
                applied.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
        }
        if commands.iter().any(|command| matches!(command, MetadataCommand::PutSettings(_))) {
            // A start goes by the image's settings first.
            self.save_image().await;
        }
        self.shared.entries.applied(LogIndex(entry.log_id.index()));
        let term = term_of(&entry.log_id);
        self.shared.applied_term.send_if_modified(|known| std::mem::replace(known, term) != term);
        if let Some(proposed) = self.shared.waiting.applied(entry.log_id.index()) {
            self.shared.commit_latency.observe(self.shared.clock.elapsed(proposed));
        }
        Ok(())
    }

    async fn save_image(&self) {
        let shared = Arc::clone(&self.shared);
        if let Err(error) = blocking(self.shared.threads(), move || shared.save_image()).await {
            // What is applied is applied again after a restart; the next try is as good.
            tracing::warn!(%error, "the image of the tables was not saved; tried again");
        }
    }

    /// Waits until the log can be read from the file up to `end`.
    async fn written(&self, end: PhysicalOffset) -> io::Result<()> {
        if self.shared.store.log().written() >= end {
            return Ok(());
        }
        let (done, is_done) = oneshot::channel();
        self.shared.entries.when_written(tell(done));
        wait(is_done).await
    }

    /// Removes the queues of deleted topics.
    async fn forget(&self, head: &EntryHead<'_>) -> io::Result<()> {
        let topics: Vec<Topic> = head.forgotten.iter().map(|topic| Topic::new(topic)).collect();
        {
            let min = self.shared.store.log().min();
            let mut applied = self.shared.lock();
            applied.forgotten.retain(|(_, at)| *at >= min);
            applied.forgotten.extend(topics.iter().map(|topic| (topic.clone(), head.position)));
        }
        let (shared, committer) = (Arc::clone(&self.shared), Arc::clone(&self.committer));
        with_room(self.shared.threads(), move || {
            shared.save_image()?;
            topics.iter().try_for_each(|topic| committer.forget_topic(topic)).map_err(io::Error::other)
        })
        .await
    }

    async fn install(&self, image: StateImage) -> io::Result<()> {
        let shared = &self.shared;
        let size = shared.store.config().segment_bytes;
        if image.segment_bytes != size {
            return Err(io::Error::other(format!(
                "mappedFileSizeCommitLog is {size} here and {} on the leader; make it the same",
                image.segment_bytes
            )));
        }
        let last = image.last_log_id().ok_or_else(|| io::Error::other("an empty snapshot"))?;
        tracing::info!(%last, position = image.position, "a snapshot is being installed");
        let (files, saved) = (Arc::clone(&shared.files), image.clone());
        blocking(shared.threads(), move || files.save_install(&saved)).await?;
        let (done, is_done) = oneshot::channel();
        let base = PhysicalOffset(image.position);
        shared.entries.restart_at(image.last_entry(), base, tell(done));
        wait(is_done).await?;
        // Entries that were here may be in the snapshot.
        shared.waiting.unconfirmed();
        self.log.set_purged(Some(last));
        self.committer.seed_queues(&image.seeds());
        shared.metadata.restore(&image.metadata).map_err(io::Error::other)?;
        {
            let mut applied = shared.lock();
            applied.last = Some(last);
            applied.crc = image.crc;
            applied.end = base;
            applied.membership = image.membership()?;
        }
        shared.set_floor(base);
        let (shared, saved) = (Arc::clone(&self.shared), image);
        blocking(self.shared.threads(), move || {
            shared.files.save_snapshot(&saved)?;
            shared.save_image()?;
            shared.store.checkpoint_now().map_err(io::Error::other)?;
            shared.files.remove_install()
        })
        .await
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Image;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        let applied = self.shared.lock();
        Ok((applied.last, applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some(next) = entries.next().await {
            let (entry, responder) = next?;
            self.apply_one(&entry).await?;
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        let imaged = self.shared.lock().imaged;
        let interval = Duration::from_millis(self.shared.store.config().checkpoint_interval_ms);
        if self.shared.clock.elapsed(imaged) >= interval {
            self.save_image().await;
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        let builder = self.get_snapshot_builder().await;
        let there = self.shared.files.has_snapshot(builder.floor).unwrap_or(false);
        there.then_some(builder)
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder { shared: Arc::clone(&self.shared), floor: self.shared.floor() }
    }

    async fn install_snapshot(&mut self, _meta: &SnapshotMeta, snapshot: Image) -> io::Result<()> {
        self.install(decode_snapshot(&snapshot)?).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        // The one that was built last, and none before it: the segments below may still be there, since openraft keeps
        // entries that it is just sending, but it takes them for gone and wants to send the snapshot.
        snapshot_at(&self.shared.files, self.shared.floor())
    }
}

/// "Builds" a snapshot: it was made when the segment began.
#[derive(Debug)]
pub(super) struct Builder {
    shared: Arc<Shared>,
    floor: PhysicalOffset,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        snapshot_at(&self.shared.files, self.floor)?
            .ok_or_else(|| io::Error::other(format!("there is no snapshot at {}", self.floor)))
    }
}

fn snapshot_at(files: &Files, base: PhysicalOffset) -> io::Result<Option<Snapshot>> {
    let Some(bytes) = files.snapshot_bytes(base)? else { return Ok(None) };
    let meta = decode_snapshot(&bytes)?.meta()?;
    Ok(Some(Snapshot { meta, snapshot: bytes }))
}

/// Like [`blocking`], again and again while the disk is full: a committed entry must not be given up for want of room.
async fn with_room(
    threads: &Threads,
    work: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> io::Result<()> {
    let work = Arc::new(work);
    let mut told = false;
    loop {
        let once = Arc::clone(&work);
        match blocking(threads, move || once()).await {
            Err(error) if is_full(&error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, "applying waits for room on the disk");
                }
                tokio::time::sleep(FULL_WAIT).await;
            }
            other => return other,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    let store = error.get_ref().and_then(|inner| inner.downcast_ref::<crate::store::Error>());
    lacks_room(error) || matches!(store, Some(crate::store::Error::Full { .. }))
}

/// Runs what blocks on the disk on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    threads: &Threads,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let Some(simulation) = threads.simulation() else {
        return tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?;
    };
    let (done, is_done) = oneshot::channel();
    simulation.later(Box::new(move || drop(done.send(work())))).await;
    is_done.await.map_err(io::Error::other)?
}
