//! The store's own threads: flushing, checkpoints, retention.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::checkpoint::{CheckpointState, Durable};
use super::{Error, Result, Store};
use crate::env::{Bell, Thread, Turn};
use crate::model::PhysicalOffset;

/// More files than this are synced by one call for the whole file system.
const SINGLE_SYNCS_MAX: usize = 64;

/// The running threads. Dropping it stops and joins them; [`Store::close`] comes after.
#[derive(Debug)]
pub struct Threads {
    stop: Arc<AtomicBool>,
    threads: Vec<(Bell, Thread)>,
}

impl Threads {
    /// Starts the flush and checkpoint thread and the cleaning thread of `store`.
    pub fn start(store: &Arc<Store>) -> Result<Self> {
        let mut threads = Self { stop: Arc::default(), threads: Vec::new() };
        let flush = Duration::from_millis(store.config.flush_interval_ms.max(1));
        threads.spawn("store-flush", store, flush, Store::flush_once)?;
        let clean = Duration::from_millis(store.config.retention.interval_ms.max(1));
        threads.spawn("store-clean", store, clean, Store::clean)?;
        Ok(threads)
    }

    fn spawn(
        &mut self,
        name: &str,
        store: &Arc<Store>,
        interval: Duration,
        work: fn(&Store) -> Result<()>,
    ) -> Result<()> {
        let (bell, path) = (Bell::default(), &store.config.root);
        let (looked_after, stop) = (Arc::clone(store), Arc::clone(&self.stop));
        let mut was_full = false;
        let turn = Box::new(move || {
            if stop.load(Ordering::Acquire) {
                return Turn::Over;
            }
            let turn = std::panic::AssertUnwindSafe(|| turn(&looked_after, interval, work, &mut was_full));
            std::panic::catch_unwind(turn).unwrap_or_else(|_| {
                looked_after.poison("a store thread panicked");
                Turn::Over
            })
        });
        let thread = store.threads().start(name, &bell, turn);
        let thread = thread.map_err(|error| Error::io("start thread for", path, error))?;
        self.threads.push((bell, thread));
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.threads.iter().for_each(|(bell, _)| bell.ring());
        self.threads.drain(..).for_each(|(_, thread)| thread.join());
    }
}

fn turn(store: &Store, interval: Duration, work: fn(&Store) -> Result<()>, was_full: &mut bool) -> Turn {
    match work(store) {
        Ok(()) => *was_full = false,
        Err(error @ Error::Full { .. }) => {
            if !std::mem::replace(was_full, true) {
                tracing::warn!(%error, "store maintenance waits for room");
            }
        }
        Err(Error::Poisoned(_)) => return Turn::Over,
        Err(error) => store.poison(error.to_string()),
    }
    Turn::WaitAtMost(interval)
}

impl Store {
    /// Syncs the log; a failure poisons the store. Blocks on the disk.
    pub fn flush_log(&self) -> Result<PhysicalOffset> {
        self.check_usable()?;
        let started = self.clock.instant();
        let dirty = self.log.flushed() < self.log.written();
        let flushed = self.log.flush().inspect_err(|error| self.poison(error.to_string()));
        if dirty {
            self.latencies.sync.observe(self.clock.elapsed(started));
        }
        flushed
    }

    /// Flushes the log, writes out queue entries, and makes a checkpoint if one is due.
    fn flush_once(&self) -> Result<()> {
        self.flush_log()?;
        for (_, _, queue) in self.queues.all() {
            queue.flush()?;
        }
        let durable = self.checkpoint.state().ours.unwrap_or_default().dispatched;
        let behind = self.dispatched().0.saturating_sub(durable.0);
        let due = self.clock.now_ms() - self.checkpointed_ms.load(Ordering::Relaxed);
        let late = due >= i64::try_from(self.config.checkpoint_interval_ms).unwrap_or(i64::MAX) || due < 0;
        if behind >= self.config.checkpoint_bytes || (behind > 0 && late) {
            self.checkpoint_now()?;
        }
        self.prepare_segment()
    }

    /// Makes all that is dispatched durable and says so in the checkpoint, so that recovery need not read the
    /// log before it. Blocks on the disk.
    pub fn checkpoint_now(&self) -> Result<()> {
        self.check_usable()?;
        let _one_at_a_time = self.checkpointing.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken first: what is dispatched while the files are being synced may not be in them.
        let dispatched = self.dispatched();
        let timestamp = self.dispatched_timestamp.load(Ordering::Relaxed);
        let flushed = self.flush_log()?;
        self.sync_queues().inspect_err(|error| self.poison_unless_full(error))?;
        self.index.flush().inspect_err(|error| self.poison_unless_full(error))?;
        self.checkpoint.write(CheckpointState {
            log_timestamp: timestamp,
            queue_timestamp: timestamp,
            index_timestamp: timestamp,
            master_flushed: self.checkpoint.state().master_flushed,
            ours: Some(Durable { flushed, dispatched }),
        })?;
        self.checkpointed_ms.store(self.clock.now_ms(), Ordering::Relaxed);
        Ok(())
    }

    /// Makes everything durable and marks the store as closed. Nothing may be written afterwards.
    pub fn close(&self) -> Result<()> {
        self.checkpoint_now()?;
        let abort = self.config.root.join("abort");
        match self.disk.remove(&abort) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &abort, error))
            }
            _ => Ok(()),
        }
    }

    fn sync_queues(&self) -> Result<()> {
        let mut unsynced = Vec::new();
        for (_, _, queue) in self.queues.all() {
            if queue.flush()? {
                unsynced.push(queue);
            }
        }
        if unsynced.len() <= SINGLE_SYNCS_MAX {
            return unsynced.iter().try_for_each(|queue| queue.sync());
        }
        let written: Vec<_> = unsynced.iter().map(|queue| queue.begin_sync()).collect();
        let root = &self.config.root;
        self.disk.sync_file_system(root).map_err(|error| Error::io("sync file system of", root, error))?;
        for (queue, written) in unsynced.iter().zip(written) {
            queue.mark_synced(written);
        }
        Ok(())
    }

    fn poison_unless_full(&self, error: &Error) {
        if !matches!(error, Error::Full { .. }) {
            self.poison(error.to_string());
        }
    }
}
