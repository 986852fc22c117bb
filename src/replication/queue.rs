//! The queue in front of the log: many connections put drafts in, one thread takes all that wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::Error;
use super::pending::{AppendAnswer, PendingAppend, PendingChange, pending_append};
use crate::metadata::{MetadataCommand, encode_commands};
use crate::model::{Term, Topic};
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
        /// The term of the permit that it came with.
        term: Term,
        draft: Draft,
        /// A change that is committed together with the draft.
        command: Option<MetadataCommand>,
        /// Bytes of both in an entry.
        len: usize,
        answer: AppendAnswer,
        /// Gives the room back when the draft is written.
        room: OwnedSemaphorePermit,
    },
    /// A change of the tables, for a log that holds them.
    Change { term: Term, command: MetadataCommand, len: usize, answer: oneshot::Sender<Result<(), Error>> },
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
    /// Returns the term of the permit that it came with.
    pub(super) fn term(&self) -> Term {
        match self {
            Self::Draft { term, .. } | Self::Change { term, .. } => *term,
            Self::Forget(_) => Term(0),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Draft { len, .. } | Self::Change { len, .. } => *len,
            Self::Forget(_) => 0,
        }
    }
}

/// Returns how many bytes of an entry a change takes at most.
pub(super) fn encoded_len(command: &MetadataCommand) -> usize {
    encode_commands(std::slice::from_ref(command)).len()
}

#[derive(Debug)]
pub(super) struct AppendQueue {
    limits: QueueLimits,
    room: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    arrived_async: Notify,
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
            arrived_async: Notify::new(),
            bytes: AtomicUsize::new(0),
        }
    }

    /// Puts a draft in, and a change that comes with it; its place in the order is fixed when this returns. Both take
    /// `len` bytes in an entry.
    pub(super) async fn put(
        &self,
        term: Term,
        draft: Draft,
        command: Option<MetadataCommand>,
        len: usize,
    ) -> Result<PendingAppend, Error> {
        let permits = draft.len().min(self.limits.bytes_max);
        let permits = u32::try_from(permits).expect("the limit fits");
        let room = match Arc::clone(&self.room).try_acquire_many_owned(permits) {
            Ok(room) => room,
            Err(_) => self.wait_for_room(permits).await?,
        };
        let (answer, pending) = pending_append();
        self.push(Queued::Draft { term, draft, command, len, answer, room })?;
        Ok(pending)
    }

    /// Puts a change in that takes `len` bytes in an entry.
    pub(super) fn change(
        &self,
        term: Term,
        command: MetadataCommand,
        len: usize,
    ) -> Result<PendingChange, Error> {
        let (answer, pending) = oneshot::channel();
        self.push(Queued::Change { term, command, len, answer })?;
        Ok(PendingChange(pending))
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
            self.arrived_async.notify_one();
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
        Some(self.cut(waiting, TURN_BYTES))
    }

    /// Like [`AppendQueue::take`], for a task; up to `bytes_max`.
    pub(super) async fn take_async(&self, bytes_max: usize) -> Option<Vec<Queued>> {
        loop {
            let arrived = self.arrived_async.notified();
            {
                let waiting = self.lock();
                if !waiting.items.is_empty() {
                    return Some(self.cut(waiting, bytes_max));
                }
                if waiting.closed {
                    return None;
                }
            }
            arrived.await;
        }
    }

    fn cut(&self, mut waiting: MutexGuard<'_, Waiting>, bytes_max: usize) -> Vec<Queued> {
        let mut bytes = 0;
        let count = waiting
            .items
            .iter()
            .take_while(|item| {
                let fits = bytes == 0 || bytes + item.len() <= bytes_max;
                bytes += item.len();
                fits
            })
            .count();
        let rest = waiting.items.split_off(count);
        let taken = std::mem::replace(&mut waiting.items, rest);
        drop(waiting);
        self.bytes.fetch_sub(taken.iter().map(Queued::len).sum(), Ordering::Relaxed);
        taken
    }

    /// Refuses what comes from now on; [`AppendQueue::take`] still returns what is there.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.arrived.notify_all();
        self.arrived_async.notify_one();
    }

    /// Refuses what comes from now on, and what is there.
    pub(super) fn refuse(&self) {
        self.close();
        let refused = std::mem::take(&mut self.lock().items);
        self.bytes.fetch_sub(refused.iter().map(Queued::len).sum(), Ordering::Relaxed);
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::model::{Group, QueueId, QueueOffset};

    fn commit(group: &str) -> MetadataCommand {
        MetadataCommand::CommitOffset {
            group: Group::new(group),
            topic: Topic::new("T"),
            queue_id: QueueId(0),
            offset: QueueOffset(1),
        }
    }

    async fn put(queue: &AppendQueue, command: Option<MetadataCommand>) -> Result<PendingAppend, Error> {
        let draft = Draft::new(&Message::plain("T", 0, "m", "")).unwrap();
        let len = draft.len() + command.as_ref().map_or(0, encoded_len);
        queue.put(Term(1), draft, command, len).await
    }

    fn change(queue: &AppendQueue, group: &str) -> Result<PendingChange, Error> {
        let command = commit(group);
        let len = encoded_len(&command);
        queue.change(Term(1), command, len)
    }

    fn queue() -> AppendQueue {
        AppendQueue::new(QueueLimits { bytes_max: 1 << 20, wait_max: Duration::from_secs(1) })
    }

    #[tokio::test]
    async fn what_is_refused_is_answered() {
        let queue = queue();
        let draft_pending = put(&queue, None).await.unwrap();
        let change_pending = change(&queue, "G").unwrap();
        queue.refuse();
        assert!(matches!(draft_pending.committed().await, Err(Error::Stopped)));
        assert!(matches!(change_pending.committed().await, Err(Error::Stopped)));
        assert!(matches!(put(&queue, None).await, Err(Error::Stopped)));
        assert!(queue.take_async(1000).await.is_none());
        assert_eq!(queue.bytes(), 0);
    }

    #[tokio::test]
    async fn changes_count_with_their_encoded_bytes() {
        let queue = queue();
        for number in 0..100 {
            drop(change(&queue, &format!("G{number}")).unwrap());
            drop(put(&queue, Some(commit("G"))).await.unwrap());
        }
        let mut taken = 0;
        while taken < 200 {
            let items = queue.take_async(1000).await.unwrap();
            let mut drafts = 0;
            let mut commands = Vec::new();
            for item in &items {
                match item {
                    Queued::Draft { draft, command, .. } => {
                        drafts += draft.len();
                        commands.extend(command.clone());
                    }
                    Queued::Change { command, .. } => commands.push(command.clone()),
                    Queued::Forget(_) => unreachable!("none was put in"),
                }
            }
            assert!(drafts + encode_commands(&commands).len() <= 1000);
            taken += items.len();
        }
    }
}
