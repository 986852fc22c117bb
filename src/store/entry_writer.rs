//! The threads `log-writer` and `log-syncer` of a Raft log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::{Error, Result, Store};
use crate::env::{Bell, KnownBad, Thread, Turn};
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
    jobs: Arc<Queue<Job>>,
    syncs: Arc<Queue<Flushed>>,
    writer: Mutex<Option<Thread>>,
    syncer: Mutex<Option<Thread>>,
}

impl std::fmt::Debug for EntryWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EntryWriter").finish_non_exhaustive()
    }
}

/// What waits for a thread.
struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    arrived: Bell,
}

struct Waiting<T> {
    items: Vec<T>,
    closed: bool,
}

impl EntryWriter {
    pub(super) fn start(store: &Arc<Store>, sync: bool) -> Result<Self> {
        let (jobs, syncs) = (Arc::new(Queue::new()), Arc::new(Queue::new()));
        let syncer = if sync {
            let (synced, waiting) = (Arc::clone(store), Arc::clone(&syncs));
            Some(spawn("log-syncer", store, &syncs.arrived, move || sync_turn(&synced, &waiting))?)
        } else {
            None
        };
        let mut writer = Writer {
            store: Arc::clone(store),
            jobs: Arc::clone(&jobs),
            syncs: sync.then(|| Arc::clone(&syncs)),
            failure: None,
            stale_until: 0,
        };
        let writer = spawn("log-writer", store, &jobs.arrived, move || writer.turn())?;
        Ok(Self { jobs, syncs, writer: Mutex::new(Some(writer)), syncer: Mutex::new(syncer) })
    }

    /// Puts a job behind those before. One that comes after [`EntryWriter::stop`] is told so.
    pub(super) fn put(&self, job: Job) {
        if let Err(job) = self.jobs.put(job) {
            job.fail("the log is closed");
        }
    }

    pub(super) fn stop(&self) {
        let join = |thread: &Mutex<Option<Thread>>| {
            if let Some(thread) = thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
                thread.join();
            }
        };
        self.jobs.close();
        join(&self.writer);
        self.syncs.close();
        join(&self.syncer);
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

impl<T> Queue<T> {
    fn new() -> Self {
        Self { waiting: Mutex::new(Waiting { items: Vec::new(), closed: false }), arrived: Bell::default() }
    }

    /// Puts an item in, or gives it back if the queue is closed.
    fn put(&self, item: T) -> std::result::Result<(), T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.closed {
            return Err(item);
        }
        waiting.items.push(item);
        drop(waiting);
        self.arrived.ring();
        Ok(())
    }

    fn close(&self) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.arrived.ring();
    }

    /// Takes the first items, at most `max`. If there are none, returns what to do then.
    fn take(&self, max: usize) -> std::result::Result<Vec<T>, Turn> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.items.is_empty() {
            return Err(if waiting.closed { Turn::Over } else { Turn::Wait });
        }
        let count = waiting.items.len().min(max);
        let rest = waiting.items.split_off(count);
        Ok(std::mem::replace(&mut waiting.items, rest))
    }

    fn is_closed(&self) -> bool {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).closed
    }
}

fn spawn(
    name: &str,
    store: &Arc<Store>,
    bell: &Bell,
    mut turn: impl FnMut() -> Turn + Send + 'static,
) -> Result<Thread> {
    let broken = Arc::clone(store);
    let work = Box::new(move || {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut turn)).unwrap_or_else(|_| {
            broken.poison("a thread of the log panicked");
            Turn::Over
        })
    });
    let thread = store.threads().start(name, bell, work);
    thread.map_err(|error| Error::io("start thread for", &store.config.root, error))
}

struct Writer {
    store: Arc<Store>,
    jobs: Arc<Queue<Job>>,
    syncs: Option<Arc<Queue<Flushed>>>,
    /// Why nothing is written any more.
    failure: Option<String>,
    /// For [`KnownBad::TruncationNotWritten`]: what is below is not written again.
    stale_until: u64,
}

impl Writer {
    /// Does the jobs that wait.
    fn turn(&mut self) -> Turn {
        loop {
            let jobs = match self.jobs.take(TURN_JOBS) {
                Ok(jobs) => jobs,
                Err(turn) => return turn,
            };
            if let Some(reason) = &self.failure {
                jobs.into_iter().for_each(|job| job.fail(reason));
                continue;
            }
            let mut jobs = jobs.into_iter();
            if let Err(error) = self.carry_out(&mut jobs) {
                self.store.poison(error.to_string());
                let reason = self.store.failure().unwrap_or("the log failed").to_owned();
                jobs.for_each(|job| job.fail(&reason));
                self.failure = Some(reason);
            }
        }
    }

    fn carry_out(&mut self, jobs: &mut impl Iterator<Item = Job>) -> Result<()> {
        let mut run: Vec<(PhysicalOffset, Bytes)> = Vec::new();
        for job in jobs {
            match job {
                Job::Write { filler, position, bytes } => {
                    if let Some(at) = filler {
                        self.write(&mut run)?;
                        self.fill(at)?;
                    }
                    run.push((position, bytes));
                }
                other => match self.write(&mut run) {
                    Ok(()) => self.other(other)?,
                    Err(error) => {
                        other.fail(&error.to_string());
                        return Err(error);
                    }
                },
            }
        }
        self.write(&mut run)
    }

    /// Writes entries that stand one behind the other.
    fn write(&self, run: &mut Vec<(PhysicalOffset, Bytes)>) -> Result<()> {
        let (Some((start, _)), Some((last, last_bytes))) = (run.first(), run.last()) else { return Ok(()) };
        let (start, end) = (*start, last.plus(last_bytes.len() as u64));
        if end.0 <= self.stale_until {
            self.store.log.set_written(end);
            run.clear();
            return Ok(());
        }
        self.with_room(|| {
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
    fn fill(&self, at: PhysicalOffset) -> Result<()> {
        self.with_room(|| self.store.ensure_segment_of(at)?.fill_from(at))?;
        self.store.log.set_written(self.store.segment_end(at));
        Ok(())
    }

    /// Tries until the disk has room: an entry that has its place must not be lost for the group.
    fn with_room(&self, mut write: impl FnMut() -> Result<()>) -> Result<()> {
        let mut told = false;
        loop {
            match write() {
                Err(error @ Error::Full { .. }) => {
                    if self.jobs.is_closed() {
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

    fn other(&mut self, job: Job) -> Result<()> {
        match job {
            Job::Write { .. } => unreachable!("writes are handled by the caller"),
            Job::Written(tell) => tell(Ok(())),
            Job::Flushed(tell) => match &self.syncs {
                Some(syncs) => {
                    if let Err(tell) = syncs.put(tell) {
                        tell(Err("the syncer is gone".into()));
                    }
                }
                None => tell(Ok(())),
            },
            Job::Truncate { to, done } if KnownBad::TruncationNotWritten.is_on() => {
                self.stale_until = self.store.log.written().0;
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

/// Syncs what was written until those who wait asked for it.
fn sync_turn(store: &Store, syncs: &Queue<Flushed>) -> Turn {
    loop {
        let waiting = match syncs.take(usize::MAX) {
            Ok(waiting) => waiting,
            Err(turn) => return turn,
        };
        let flushed = store.flush_log().map(|_| ()).map_err(|error| error.to_string());
        waiting.into_iter().for_each(|tell| tell(flushed.clone()));
    }
}
