//! From the queue in front of the log to entries: takes all that waits and makes one entry of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::super::Error;
use super::super::pending::AppendAnswer;
use super::super::queue::Queued;
use crate::metadata::MetadataCommand;
use crate::model::Topic;
use crate::store::{Appended, Draft};

/// The drafts and changes of one entry, with those who wait for it.
///
/// Dropped before the log gave it a place, it tells them that this replica does not lead.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Of the permits that its items came with.
    term: u64,
    pub(super) drafts: Vec<Draft>,
    pub(super) commands: Vec<MetadataCommand>,
    /// Topics that `commands` delete.
    pub(super) forgotten: Vec<Topic>,
    answers: Answers,
}

/// Those who wait for an entry.
#[derive(Debug, Default)]
pub(super) struct Answers {
    appends: Vec<AppendAnswer>,
    changes: Vec<oneshot::Sender<Result<(), Error>>>,
    /// Bounds the entries that are on their way.
    in_flight: Option<OwnedSemaphorePermit>,
    since: Option<Instant>,
}

impl Batch {
    fn new(term: u64) -> Self {
        let mut batch = Self::default();
        batch.term = term;
        batch
    }

    pub(super) fn term(&self) -> u64 {
        self.term
    }

    /// Puts an item in; the room that it took in the queue is given back.
    pub(super) fn push(&mut self, item: Queued) {
        match item {
            Queued::Draft { draft, command, answer, room, .. } => {
                drop(room);
                self.drafts.push(draft);
                self.commands.extend(command);
                self.answers.appends.push(answer);
            }
            Queued::Change { command, answer, .. } => {
                if let MetadataCommand::DeleteTopic(topic) = &command {
                    self.forgotten.push(topic.clone());
                }
                self.commands.push(command);
                self.answers.changes.push(answer);
            }
            Queued::Forget(forget) => {
                // Only the mode without replicas puts these in.
                let _ = forget.answer.send(Err(Error::NotLeader));
            }
        }
    }

    pub(super) fn set_in_flight(&mut self, permit: OwnedSemaphorePermit, now: Instant) {
        self.answers.in_flight = Some(permit);
        self.answers.since = Some(now);
    }

    /// Tells where the drafts went, and returns those who wait for the commit.
    pub(super) fn placed(mut self, appended: Vec<Appended>) -> Answers {
        for (answer, appended) in self.answers.appends.iter().zip(appended) {
            answer.written(appended);
        }
        std::mem::take(&mut self.answers)
    }

    /// Refuses everything.
    pub(super) fn refuse(mut self, error: &Error) {
        std::mem::take(&mut self.answers).finish(&Err(error.clone()));
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        std::mem::take(&mut self.answers).finish(&Err(Error::NotLeader));
    }
}

impl Answers {
    pub(super) fn finish(self, result: &Result<(), Error>) {
        for answer in self.appends {
            answer.finish(result.clone());
        }
        for answer in self.changes {
            // A receiver that is gone does not want to know.
            let _ = answer.send(result.clone());
        }
    }
}

/// Splits what was taken from the queue into entries: one for each term, and the deletion of a topic alone, since queue
/// offsets change behind it.
pub(super) fn batches(items: Vec<Queued>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut alone = true;
    for item in items {
        let term = item.term().0;
        let deletes = matches!(&item, Queued::Change { command: MetadataCommand::DeleteTopic(_), .. });
        if alone || deletes || batches.last().is_none_or(|last| last.term != term) {
            batches.push(Batch::new(term));
        }
        alone = deletes;
        batches.last_mut().expect("one was just pushed").push(item);
    }
    batches
}

/// Those who wait for entries that have their place, by index.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<BTreeMap<u64, Answers>>);

impl Waiting {
    pub(super) fn insert(&self, index: u64, answers: Answers) {
        self.lock().insert(index, answers);
    }

    /// The entry is applied. Returns how long ago it was proposed, on the leader that did.
    pub(super) fn applied(&self, index: u64) -> Option<Instant> {
        let answers = self.lock().remove(&index)?;
        let since = answers.since;
        answers.finish(&Ok(()));
        since
    }

    /// The entries behind `last` were taken back: they will never be committed.
    pub(super) fn truncated(&self, last: Option<u64>) {
        let from = last.map_or(0, |last| last + 1);
        let gone = self.lock().split_off(&from);
        gone.into_values().for_each(|answers| answers.finish(&Err(Error::NotLeader)));
    }

    /// Gives up on those who wait since before `limit`: whether their entries will be committed is not known.
    pub(super) fn give_up(&self, limit: Instant) {
        let mut waiting = self.lock();
        let old: Vec<u64> = waiting
            .iter()
            .filter(|(_, answers)| answers.since.is_some_and(|since| since < limit))
            .map(|(index, _)| *index)
            .collect();
        let gone: Vec<Answers> = old.into_iter().filter_map(|index| waiting.remove(&index)).collect();
        drop(waiting);
        gone.into_iter().for_each(|answers| answers.finish(&Err(Error::Unconfirmed)));
    }

    /// Whether any of the entries will be committed does not show here any more.
    pub(super) fn unconfirmed(&self) {
        let gone = std::mem::take(&mut *self.lock());
        gone.into_values().for_each(|answers| answers.finish(&Err(Error::Unconfirmed)));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Answers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
