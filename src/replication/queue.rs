//! The queue in front of the log: many connections put drafts in, one thread takes all that wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;
use super::pending::{AppendAnswer, PendingAppend, pending_append};
use crate::model::Topic;
use crate::store::Draft;

/// Bounds of the queue.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// Bytes of drafts that may wait (`proposalQueueBytes`).
    pub bytes_max: usize,
    /// How long a draft waits for room before it is refused (`waitTimeMillsInSendQueue`).
    pub wait_max: Duration,
}

/// Bytes taken out in one turn, so that one write stays short.
const TURN_BYTES: usize = 4 << 20;

/// What waits for the writer.
#[derive(Debug)]
pub(super) enum Queued {
    /// A draft to be written.
    Draft {
        draft: Draft,
        answer: AppendAnswer,
        /// Gives the room back when the draft is written.
        room: OwnedSemaphorePermit,
    },
    /// A deleted topic, whose queues start at 0 from here on.
    Forget(Forget),
}

/// In the order of the log, so that no record of the old topic becomes visible behind it.
#[derive(Debug)]
pub(super) struct Forget {
    pub(super) topic: Topic,
    pub(super) answer: mpsc::Sender<Result<(), Error>>,
}

impl Queued {
    fn len(&self) -> usize {
        match self {
            Self::Draft { draft, .. } => draft.len(),
            Self::Forget(_) => 0,
        }
    }
}

#[derive(Debug)]
pub(super) struct AppendQueue {
    limits: QueueLimits,
    room: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    bytes: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    items: Vec<Queued>,
    closed: bool,
}

impl AppendQueue {
    pub(super) fn new(limits: QueueLimits) -> Self {
        // A semaphore counts no further than this; one draft may need all of it.
        let bytes_max = limits.bytes_max.clamp(1, u32::MAX as usize >> 3);
        Self {
            limits: QueueLimits { bytes_max, ..limits },
            room: Arc::new(Semaphore::new(bytes_max)),
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Puts a draft in; its place in the order is fixed when this returns.
    pub(super) async fn put(&self, draft: Draft) -> Result<PendingAppend, Error> {
        let len = draft.len().min(self.limits.bytes_max);
        let permits = u32::try_from(len).expect("the limit fits");
        let room = match Arc::clone(&self.room).try_acquire_many_owned(permits) {
            Ok(room) => room,
            Err(_) => self.wait_for_room(permits).await?,
        };
        let (answer, pending) = pending_append();
        self.push(Queued::Draft { draft, answer, room })?;
        Ok(pending)
    }

    /// Puts a deleted topic in.
    pub(super) fn forget(&self, forget: Forget) -> Result<(), Error> {
        self.push(Queued::Forget(forget))
    }

    fn push(&self, item: Queued) -> Result<(), Error> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(Error::Stopped);
        }
        self.bytes.fetch_add(item.len(), Ordering::Relaxed);
        let was_empty = waiting.items.is_empty();
        waiting.items.push(item);
        drop(waiting);
        if was_empty {
            self.arrived.notify_one();
        }
        Ok(())
    }

    async fn wait_for_room(&self, permits: u32) -> Result<OwnedSemaphorePermit, Error> {
        let acquired =
            tokio::time::timeout(self.limits.wait_max, Arc::clone(&self.room).acquire_many_owned(permits))
                .await;
        match acquired {
            Ok(Ok(room)) => Ok(room),
            Ok(Err(_)) => Err(Error::Stopped),
            Err(_) => Err(Error::Busy {
                queued_bytes: self.bytes(),
                limit_bytes: self.limits.bytes_max,
                waited: self.limits.wait_max,
            }),
        }
    }

    /// Waits for drafts and takes all that are there, up to a bound. `None` when closed and empty. Blocks.
    pub(super) fn take(&self) -> Option<Vec<Queued>> {
        let mut waiting = self.lock();
        while waiting.items.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let mut bytes = 0;
        let count = waiting
            .items
            .iter()
            .take_while(|item| {
                let fits = bytes == 0 || bytes + item.len() <= TURN_BYTES;
                bytes += item.len();
                fits
            })
            .count();
        let rest = waiting.items.split_off(count);
        let taken = std::mem::replace(&mut waiting.items, rest);
        drop(waiting);
        self.bytes.fetch_sub(taken.iter().map(Queued::len).sum(), Ordering::Relaxed);
        Some(taken)
    }

    /// Refuses what comes from now on; [`AppendQueue::take`] still returns what is there.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.arrived.notify_all();
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
