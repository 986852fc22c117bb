//! No replication: this broker's log alone decides.
//!
//! Threads, each with one owner and a bound:
//! - `log-writer` takes drafts from the queue, appends them, and under ASYNC_FLUSH commits and answers them;
//! - `log-syncer` (SYNC_FLUSH) syncs everything written since the last time, then commits and answers it: while it
//!   syncs, the writer goes on, so that one sync serves all that came meanwhile;
//! - `metadata` applies changes, saves the files once for all that wait, and answers.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::pending::{AppendAnswer, PendingAppend, PendingChange};
use super::queue::{AppendQueue, Forget, Queued};
use super::{Error, QueueLimits};
use crate::metadata::{Metadata, MetadataCommand};
use crate::model::{PhysicalOffset, Term, Topic};
use crate::store::{Committer, Draft, Opened, Store, Threads, Writer};

/// When an append counts as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushMode {
    /// When it is written: survives the death of the process.
    Async,
    /// When it is synced: survives the loss of power.
    Sync,
}

/// Written drafts that may wait for the syncer; the writer waits beyond that.
const UNSYNCED_MAX: usize = 65_536;
/// Changes that may wait for the metadata thread.
const CHANGES_MAX: usize = 10_000;

#[derive(Debug)]
pub(super) struct NoReplication {
    store: Arc<Store>,
    metadata: Arc<Metadata>,
    queue: Arc<AppendQueue>,
    changes: Mutex<Option<mpsc::SyncSender<Change>>>,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    metadata: JoinHandle<()>,
    threads: Vec<JoinHandle<()>>,
    maintenance: Threads,
}

#[derive(Debug)]
struct Change {
    command: MetadataCommand,
    answer: oneshot::Sender<Result<(), Error>>,
}

/// What the writer hands to the syncer, in the order of the log.
enum Written {
    Draft { draft: Draft, command: Option<MetadataCommand>, position: PhysicalOffset, answer: AppendAnswer },
    Forget(Forget),
}

impl NoReplication {
    pub(super) fn start(
        opened: Opened,
        metadata: Arc<Metadata>,
        flush: FlushMode,
        limits: QueueLimits,
    ) -> std::io::Result<Self> {
        let Opened { store, writer, committer } = opened;
        let maintenance = Threads::start(&store).map_err(std::io::Error::other)?;
        let queue = Arc::new(AppendQueue::new(limits));
        let (changes, incoming) = mpsc::sync_channel(CHANGES_MAX);
        let mut threads = Vec::new();
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let store = Arc::clone(&store);
            let name = name.to_owned();
            std::thread::Builder::new().name(name.clone()).spawn(move || {
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
                    store.poison(format!("thread {name} panicked"));
                }
            })
        };
        let (to_syncer, from_writer) = mpsc::sync_channel(UNSYNCED_MAX);
        let (q, m) = (Arc::clone(&queue), Arc::clone(&metadata));
        match flush {
            FlushMode::Async => {
                threads.push(spawn("log-writer", Box::new(move || write_async(&q, writer, &committer, &m)))?);
            }
            FlushMode::Sync => {
                threads.push(spawn("log-writer", Box::new(move || write_sync(&q, writer, &to_syncer)))?);
                threads.push(spawn("log-syncer", Box::new(move || sync(&from_writer, &committer, &m)))?);
            }
        }
        let (q, m, s) = (Arc::clone(&queue), Arc::clone(&metadata), Arc::clone(&store));
        let applier = spawn("metadata", Box::new(move || apply_changes(&incoming, &m, &q, &s)))?;
        Ok(Self {
            store,
            metadata,
            queue,
            changes: Mutex::new(Some(changes)),
            running: Mutex::new(Some(Running { metadata: applier, threads, maintenance })),
        })
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(super) async fn append(
        &self,
        draft: Draft,
        command: Option<MetadataCommand>,
    ) -> Result<PendingAppend, Error> {
        let len = draft.len();
        self.queue.put(Term(0), draft, command, len).await
    }

    pub(super) fn change(&self, command: MetadataCommand) -> Result<PendingChange, Error> {
        let (answer, pending) = oneshot::channel();
        if command.is_offsets() {
            // Offsets are saved every few seconds, as Java does: nothing to wait for.
            self.metadata.apply(&command, self.store.clock().now_ms());
            let _ = answer.send(Ok(()));
            return Ok(PendingChange(pending));
        }
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = changes.as_ref().ok_or(Error::Stopped)?.try_send(Change { command, answer });
        match sent {
            Ok(()) => Ok(PendingChange(pending)),
            Err(mpsc::TrySendError::Full(_)) => Err(Error::Busy {
                queued_bytes: CHANGES_MAX,
                limit_bytes: CHANGES_MAX,
                waited: std::time::Duration::ZERO,
            }),
            Err(mpsc::TrySendError::Disconnected(_)) => Err(Error::Stopped),
        }
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    pub(super) fn stop(&self) -> Result<(), Error> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running else { return Ok(()) };
        // The metadata thread first: it may still need the writer.
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = running.metadata.join();
        self.queue.close();
        for thread in running.threads {
            let _ = thread.join();
        }
        drop(running.maintenance);
        self.metadata.save()?;
        Ok(self.store.close()?)
    }
}

impl Drop for NoReplication {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "store not closed");
        }
    }
}

fn write_async(queue: &AppendQueue, mut writer: Writer, committer: &Committer, metadata: &Metadata) {
    run_writer(queue, &mut writer, |written| match written {
        Written::Draft { draft, command, position, answer } => {
            commit(committer, metadata, &draft, command.as_ref(), position, answer);
        }
        Written::Forget(forget) => forget_visible(committer, forget),
    });
}

fn write_sync(queue: &AppendQueue, mut writer: Writer, to_syncer: &mpsc::SyncSender<Written>) {
    run_writer(queue, &mut writer, |written| {
        // A syncer that is gone has poisoned the store; dropping the answer says that the broker stops.
        let _ = to_syncer.send(written);
    });
}

/// Appends what is queued, turn by turn, and hands it on in the order of the log.
fn run_writer(queue: &AppendQueue, writer: &mut Writer, mut hand_on: impl FnMut(Written)) {
    while let Some(items) = queue.take() {
        let mut drafts = Vec::with_capacity(items.len());
        let mut answers = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Queued::Draft { draft, command, answer, room, .. } => {
                    drafts.push(draft);
                    answers.push((command, answer, room));
                }
                // Changes do not come this way: they are in files of their own.
                Queued::Change { answer, .. } => drop(answer),
                Queued::Forget(forget) => {
                    append(writer, &mut drafts, &mut answers, &mut hand_on);
                    writer.forget_topic(&forget.topic);
                    hand_on(Written::Forget(forget));
                }
            }
        }
        append(writer, &mut drafts, &mut answers, &mut hand_on);
    }
}

fn append(
    writer: &mut Writer,
    drafts: &mut Vec<Draft>,
    answers: &mut Vec<(Option<MetadataCommand>, AppendAnswer, OwnedSemaphorePermit)>,
    hand_on: &mut impl FnMut(Written),
) {
    let results = writer.append(drafts);
    for ((draft, (command, answer, room)), result) in drafts.drain(..).zip(answers.drain(..)).zip(results) {
        drop(room);
        match result {
            Ok(appended) => {
                let position = appended.position;
                answer.written(appended);
                hand_on(Written::Draft { draft, command, position, answer });
            }
            Err(error) => answer.finish(Err(error.into())),
        }
    }
}

fn sync(from_writer: &mpsc::Receiver<Written>, committer: &Committer, metadata: &Metadata) {
    while let Ok(first) = from_writer.recv() {
        let mut turn = vec![first];
        turn.extend(from_writer.try_iter().take(UNSYNCED_MAX));
        let flushed = committer.store().flush_log();
        for written in turn {
            match (written, &flushed) {
                (Written::Draft { draft, command, position, answer }, Ok(flushed)) => {
                    assert!(
                        position.plus(draft.len() as u64) <= *flushed,
                        "only what is synced is acknowledged"
                    );
                    commit(committer, metadata, &draft, command.as_ref(), position, answer);
                }
                (Written::Draft { answer, .. }, Err(error)) => {
                    answer.finish(Err(Error::Failed(error.to_string())));
                }
                (Written::Forget(forget), _) => forget_visible(committer, forget),
            }
        }
    }
}

fn commit(
    committer: &Committer,
    metadata: &Metadata,
    draft: &Draft,
    command: Option<&MetadataCommand>,
    position: PhysicalOffset,
    answer: AppendAnswer,
) {
    match committer.commit(position, draft.bytes()) {
        Ok(()) => {
            if let Some(command) = command {
                metadata.apply(command, committer.store().clock().now_ms());
            }
            answer.finish(Ok(()));
        }
        Err(error) => {
            // The record is in the log but cannot be made visible: nothing behind it may become visible either.
            committer.store().poison(error.to_string());
            answer.finish(Err(error.into()));
        }
    }
}

fn forget_visible(committer: &Committer, forget: Forget) {
    let forgotten = committer.forget_topic(&forget.topic).map_err(Error::from);
    // A receiver that is gone does not want to know.
    let _ = forget.answer.send(forgotten);
}

fn apply_changes(incoming: &mpsc::Receiver<Change>, metadata: &Metadata, queue: &AppendQueue, store: &Store) {
    while let Ok(first) = incoming.recv() {
        let mut answers = Vec::new();
        for Change { command, answer } in std::iter::once(first).chain(incoming.try_iter().take(CHANGES_MAX))
        {
            if let MetadataCommand::DeleteTopic(_) = command
                && let Err(error) = store.checkpoint_now()
            {
                // Deleting needs a checkpoint. Nothing has changed yet if the disk is too full for one.
                let _ = answer.send(Err(error.into()));
                continue;
            }
            metadata.apply(&command, store.clock().now_ms());
            let forgotten = match command {
                MetadataCommand::DeleteTopic(topic) => forget(topic, queue),
                _ => Ok(()),
            };
            answers.push((answer, forgotten));
        }
        let saved = metadata.save().map_err(Error::from);
        for (answer, forgotten) in answers {
            // A receiver that is gone does not want to know.
            let _ = answer.send(forgotten.and(saved.clone()));
        }
    }
}

fn forget(topic: Topic, queue: &AppendQueue) -> Result<(), Error> {
    let (answer, forgotten) = mpsc::channel();
    queue.forget(Forget { topic, answer })?;
    forgotten.recv().unwrap_or(Err(Error::Stopped))
}
