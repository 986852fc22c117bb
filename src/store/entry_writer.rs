//! The threads `log-writer` and `log-syncer` of a Raft log.

use std::cell::Cell;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;

use super::{Error, Result, Store};
use crate::env::KnownBad;
use crate::model::PhysicalOffset;

/// Told once what became of a write, on a thread of the log. Must be quick.
pub type Flushed = Box<dyn FnOnce(std::result::Result<(), String>) + Send>;

/// Jobs taken in one turn, so that one write stays short.
const TURN_JOBS: usize = 1024;
/// How long a full disk is left alone before the next try.
const FULL_WAIT: Duration = Duration::from_millis(100);

/// What the writer does, in order.
pub(super) enum Job {
    Write { filler: Option<PhysicalOffset>, position: PhysicalOffset, bytes: Bytes },
    Written(Flushed),
    Flushed(Flushed),
    Truncate { to: PhysicalOffset, done: Flushed },
    Restart { base: PhysicalOffset, done: Flushed },
}

pub(super) struct EntryWriter {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for EntryWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntryWriter").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: Vec<Job>,
    closed: bool,
}

impl EntryWriter {
    pub(super) fn start(store: &Arc<Store>, sync: bool) -> Result<Self> {
        let queue = Arc::new(Queue::default());
        let (to_syncer, from_writer) = mpsc::channel();
        let mut threads = Vec::new();
        {
            let (store, queue) = (Arc::clone(store), Arc::clone(&queue));
            let to_syncer = sync.then_some(to_syncer);
            let work =
                move |store: &Arc<Store>| Writer { store, to_syncer, stale_until: Cell::new(0) }.run(&queue);
            threads.push(spawn("log-writer", store, work)?);
        }
        if sync {
            threads
                .push(spawn("log-syncer", Arc::clone(store), move |store| run_syncer(store, &from_writer))?);
        }
        Ok(Self { queue, threads: Mutex::new(threads) })
    }

    /// Puts a job behind those before. One that comes after [`EntryWriter::stop`] is told so.
    pub(super) fn put(&self, job: Job) {
        let mut waiting = self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.closed {
            drop(waiting);
            job.fail("the log is closed");
            return;
        }
        waiting.jobs.push(job);
        drop(waiting);
        self.queue.arrived.notify_one();
    }

    pub(super) fn stop(&self) {
        self.queue.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.queue.arrived.notify_all();
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for EntryWriter {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Job {
    fn fail(self, reason: &str) {
        match self {
            Self::Write { .. } => {}
            Self::Written(tell)
            | Self::Flushed(tell)
            | Self::Truncate { done: tell, .. }
            | Self::Restart { done: tell, .. } => tell(Err(reason.to_owned())),
        }
    }
}

impl Queue {
    /// `None` when closed and empty.
    fn take(&self) -> Option<Vec<Job>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.jobs.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let count = waiting.jobs.len().min(TURN_JOBS);
        let rest = waiting.jobs.split_off(count);
        Some(std::mem::replace(&mut waiting.jobs, rest))
    }

    fn is_closed(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed
    }
}

fn spawn(
    name: &str,
    store: Arc<Store>,
    work: impl FnOnce(&Arc<Store>) + Send + 'static,
) -> Result<JoinHandle<()>> {
    let path = store.config.root.clone();
    let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&store))).is_err() {
            store.poison("a thread of the log panicked");
        }
    });
    thread.map_err(|error| Error::io("start thread for", &path, error))
}

struct Writer<'a> {
    store: &'a Arc<Store>,
    to_syncer: Option<mpsc::Sender<Flushed>>,
    /// For [`KnownBad::TruncationNotWritten`]: what is below is not written again.
    stale_until: Cell<u64>,
}

impl Writer<'_> {
    fn run(&self, queue: &Queue) {
        while let Some(jobs) = queue.take() {
            let mut run: Vec<(PhysicalOffset, Bytes)> = Vec::new();
            let mut jobs = jobs.into_iter();
            while let Some(job) = jobs.next() {
                let outcome = match job {
                    Job::Write { filler, position, bytes } => {
                        let outcome = match filler {
                            Some(at) => self.write(queue, &mut run).and_then(|()| self.fill(queue, at)),
                            None => Ok(()),
                        };
                        run.push((position, bytes));
                        outcome
                    }
                    other => match self.write(queue, &mut run) {
                        Ok(()) => self.other(other),
                        Err(error) => {
                            other.fail(&error.to_string());
                            Err(error)
                        }
                    },
                };
                if let Err(error) = outcome {
                    return self.refuse(queue, jobs, &error);
                }
            }
            if let Err(error) = self.write(queue, &mut run) {
                return self.refuse(queue, jobs, &error);
            }
        }
    }

    /// Tells all who wait, now and from here on, that nothing is written any more.
    fn refuse(&self, queue: &Queue, rest: impl Iterator<Item = Job>, error: &Error) {
        self.store.poison(error.to_string());
        let reason = self.store.failure().unwrap_or("the log failed").to_owned();
        rest.for_each(|job| job.fail(&reason));
        while let Some(jobs) = queue.take() {
            jobs.into_iter().for_each(|job| job.fail(&reason));
        }
    }

    /// Writes entries that stand one behind the other.
    fn write(&self, queue: &Queue, run: &mut Vec<(PhysicalOffset, Bytes)>) -> Result<()> {
        let (Some((start, _)), Some((last, last_bytes))) = (run.first(), run.last()) else { return Ok(()) };
        let (start, end) = (*start, last.plus(last_bytes.len() as u64));
        if end.0 <= self.stale_until.get() {
            self.store.log.set_written(end);
            run.clear();
            return Ok(());
        }
        self.with_room(queue, || {
            let segment = self.store.ensure_segment_of(start)?;
            let started = self.store.clock.instant();
            let parts: Vec<&[u8]> = run.iter().map(|(_, bytes)| &bytes[..]).collect();
            segment
                .file()
                .write_all_vectored_at(&parts, start.0 - segment.base().0)
                .map_err(|error| Error::io("write segment", segment.path(), error))?;
            self.store.latencies.write.observe(self.store.clock.elapsed(started));
            Ok(())
        })?;
        self.store.log.set_written(end);
        run.clear();
        Ok(())
    }

    /// Fills the rest of a segment.
    fn fill(&self, queue: &Queue, at: PhysicalOffset) -> Result<()> {
        self.with_room(queue, || self.store.ensure_segment_of(at)?.fill_from(at))?;
        self.store.log.set_written(self.store.segment_end(at));
        Ok(())
    }

    /// Tries until the disk has room: an entry that has its place must not be lost for the group.
    fn with_room(&self, queue: &Queue, mut write: impl FnMut() -> Result<()>) -> Result<()> {
        let mut told = false;
        loop {
            match write() {
                Err(error @ Error::Full { .. }) => {
                    if queue.is_closed() {
                        return Err(error);
                    }
                    if !std::mem::replace(&mut told, true) {
                        tracing::error!(%error, "the log waits for room on the disk");
                        self.store.set_full();
                    }
                    std::thread::sleep(FULL_WAIT);
                }
                other => {
                    if told && other.is_ok() {
                        tracing::info!("the log goes on: the disk has room again");
                    }
                    return other;
                }
            }
        }
    }

    fn other(&self, job: Job) -> Result<()> {
        match job {
            Job::Write { .. } => unreachable!("writes are handled by the caller"),
            Job::Written(tell) => tell(Ok(())),
            Job::Flushed(tell) => match &self.to_syncer {
                Some(syncer) => {
                    if let Err(mpsc::SendError(tell)) = syncer.send(tell) {
                        tell(Err("the syncer is gone".into()));
                    }
                }
                None => tell(Ok(())),
            },
            Job::Truncate { to, done } if KnownBad::TruncationNotWritten.is_on() => {
                self.stale_until.set(self.store.log.written().0);
                self.store.log.unwrite(to);
                done(Ok(()));
            }
            Job::Truncate { to, done } => match self.store.cut_written(to) {
                Ok(()) => done(Ok(())),
                Err(error) => {
                    done(Err(error.to_string()));
                    return Err(error);
                }
            },
            Job::Restart { base, done } => match self.store.restart_at(base) {
                Ok(()) => done(Ok(())),
                Err(error) => {
                    done(Err(error.to_string()));
                    return Err(error);
                }
            },
        }
        Ok(())
    }
}

fn run_syncer(store: &Arc<Store>, from_writer: &mpsc::Receiver<Flushed>) {
    while let Ok(first) = from_writer.recv() {
        let turn: Vec<Flushed> = std::iter::once(first).chain(from_writer.try_iter()).collect();
        let flushed = store.flush_log().map(|_| ()).map_err(|error| error.to_string());
        turn.into_iter().for_each(|tell| tell(flushed.clone()));
    }
}
