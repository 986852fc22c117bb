//! Opening a store whose log is a Raft log: finds the last whole entry, cuts off what a crash left, and brings what is
//! derived from committed entries up to date.
//!
//! Entries are checked one by one from the checkpoint on: CRCs, position, and that each is the one behind the one
//! before. The first that fails ends the log. If that is before what this replica knew to be committed, it may have
//! acknowledged what is now gone, and must not vote until it has it again: [`super::OpenedEntries::damaged_below`]. In a
//! group that syncs, a majority has every committed entry, so there is always one that may vote.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::checkpoint::CheckpointState;
use super::dispatch::Announce;
use super::entry::{EntryError, EntryHead, decode_entry, decode_head};
use super::entry_log::{EntryId, TailEntry, follows};
use super::recovery::{EntryOptions, Plan};
use super::{Error, Result, Store};
use crate::message::records;
use crate::model::{LogIndex, PhysicalOffset, QueueId, QueueOffset, Topic, system_topic};

/// What was found in a log.
pub(super) struct FoundEntries {
    /// End of the last entry.
    pub(super) end: PhysicalOffset,
    pub(super) last: Option<EntryId>,
    /// Entries that are not visible.
    pub(super) tail: VecDeque<TailEntry>,
    pub(super) damaged_below: Option<LogIndex>,
}

impl Store {
    pub(super) fn recover_entries(&self, clean: bool, options: &EntryOptions) -> Result<FoundEntries> {
        let started = self.clock.instant();
        let state = self.checkpoint.state();
        let min = self.log.min();
        let all = Plan { scan_from: min, dispatch_from: min, strict: false };
        let mut plan = match state.ours {
            Some(_) => self.plan(clean, &state)?,
            // Another broker used the store, and made entries visible that may not be committed.
            None => all,
        };
        if self.config.index {
            self.index.load(plan.dispatch_from)?;
        }
        self.queues.load(plan.dispatch_from, min)?;
        if plan.scan_from > min && !self.knows_entry_before(plan.scan_from)? {
            tracing::error!(position = %plan.scan_from, "the queue of the Raft log is damaged; all of the log is read");
            self.index.clear()?;
            self.queues.clear()?;
            plan = all;
        }
        for seed in &options.queues {
            self.queues.seed(&seed.topic, seed.queue_id, seed.offset);
        }
        self.dispatched_timestamp.store(state.log_timestamp, Ordering::Relaxed);
        let visible = plan.dispatch_from.max(options.committed);
        let (end, last) = self.entry_before(plan.scan_from)?;
        let last = last.or_else(|| options.before.filter(|_| end == min));
        let mut found = FoundEntries { end, last, tail: VecDeque::new(), damaged_below: None };
        let (from, mut entries) = (found.end, 0u64);
        let known = options.committed > min || options.committed_index.is_some();
        let reason = self.scan_entries(&mut found, known, |head, bytes| {
            entries += 1;
            let end = head.position.plus(head.len() as u64);
            if end > visible {
                return Ok(Some(TailEntry {
                    id: EntryId { index: head.index, term: head.term, crc: head.crc },
                    kind: head.kind,
                    position: head.position,
                    len: head.len(),
                    bytes: None,
                }));
            }
            if head.position >= plan.dispatch_from {
                self.dispatch_entry(head, bytes)?;
            }
            Ok(None)
        })?;
        let end = found.end;
        let closed_here = clean && state.ours.is_some_and(|ours| ours.flushed == end);
        if !closed_here {
            // Only what was known to be committed counts: a power failure may leave any part of what was not synced, and
            // nobody was told of that.
            let missing = |index: &LogIndex| found.last.is_none_or(|last| *index > last.index);
            found.damaged_below = options.committed_index.filter(missing);
            self.cut(end, &reason)?;
        }
        let visible = if end < visible {
            tracing::error!(%end, committed = %visible, reason, "the log is damaged below what was committed");
            self.queues.cut(end)?;
            self.checkpoint.write(CheckpointState::default())?;
            end
        } else {
            visible
        };
        self.index.clip(visible);
        self.log.start_entries_at(end, plan.scan_from, visible);
        self.dispatched.store(visible.0, Ordering::Release);
        if !clean || entries > 0 {
            let elapsed_ms = self.clock.elapsed(started).as_millis();
            let uncommitted = found.tail.len();
            tracing::info!(%from, %end, entries, uncommitted, elapsed_ms, clean, "recovered the Raft log");
        }
        Ok(found)
    }

    /// Makes an entry visible whose effects on the queues are not yet there.
    fn dispatch_entry(&self, head: &EntryHead<'_>, bytes: &[u8]) -> Result<()> {
        for record in records(bytes) {
            let record = record.map_err(|error| Error::Corrupt {
                path: self.config.commit_log.clone(),
                reason: format!("a message of entry {} cannot be read: {error}", head.index),
            })?;
            self.dispatch_record(&record, Announce::No)?;
        }
        head.forgotten.iter().try_for_each(|topic| self.queues.remove_topic(&Topic::new(topic)))
    }

    /// Goes through the entries from `found.end` on; `each` says which belong to the tail. Returns why the log ends.
    ///
    /// `known`: it is known to have been a Raft log before, so a record of another topic is damage.
    fn scan_entries(
        &self,
        found: &mut FoundEntries,
        known: bool,
        mut each: impl FnMut(&EntryHead<'_>, &[u8]) -> Result<Option<TailEntry>>,
    ) -> Result<String> {
        let mut position = found.end;
        while let Some(segment) = self.log.segment(position) {
            let rest = segment.tail(position);
            let head = match decode_entry(rest, position) {
                Ok(head) => head,
                Err(EntryError::Blank) => {
                    segment.release_memory();
                    position = segment.end();
                    continue;
                }
                Err(error @ EntryError::Foreign(_)) if found.last.is_none() && !known => {
                    return Err(Error::Corrupt {
                        path: segment.path().to_owned(),
                        reason: format!(
                            "{error}, at {position}: the log holds messages of a broker without replicas. Start it \
                             without enableDLegerCommitLog, or move the store away to begin with an empty one"
                        ),
                    });
                }
                Err(error) => return Ok(error.to_string()),
            };
            if let Err(error) = follows(&head, found.last.as_ref()) {
                return Ok(error.to_string());
            }
            let len = head.len();
            if let Some(entry) = each(&head, &rest[..len])? {
                found.tail.push_back(entry);
            }
            found.last = Some(EntryId { index: head.index, term: head.term, crc: head.crc });
            position = position.plus(len as u64);
            found.end = position;
        }
        Ok("the last segment is full".into())
    }

    /// Returns whether the queue of the Raft log leads to the entry that ends at `position`, damaged or not. If it does not,
    /// it is the queue that is damaged, and must not decide where the log ends.
    fn knows_entry_before(&self, position: PhysicalOffset) -> Result<bool> {
        let Some(queue) = self.queues.get(&Topic::new(system_topic::RAFT_LOG), QueueId(0)) else {
            return Ok(false);
        };
        let (min, max) = (queue.min_offset().0, queue.max_offset().0);
        let mut end = position;
        for index in (min..max).rev() {
            let Some(entry) = queue.entry(QueueOffset(index))? else { return Ok(false) };
            if entry.position >= position {
                continue;
            }
            let Some(segment) = self.log.segment(entry.position) else { return Ok(false) };
            match decode_head(segment.tail(entry.position), entry.position) {
                Ok(head) => {
                    // A filler may follow it.
                    let leads_there = entry.position.plus(head.len() as u64) == end || segment.end() == end;
                    return Ok(head.index.0 == index && leads_there);
                }
                // The entry is damaged, if the one before it ends here.
                Err(_) => end = entry.position,
            }
        }
        Ok(end == self.log.min())
    }

    /// Returns `position` and the entry that ends there, as the queue of the Raft log knows it. If that entry is damaged,
    /// it is where the scan begins instead, so that it ends the log, and what is returned is the one before.
    fn entry_before(&self, position: PhysicalOffset) -> Result<(PhysicalOffset, Option<EntryId>)> {
        let Some(queue) = self.queues.get(&Topic::new(system_topic::RAFT_LOG), QueueId(0)) else {
            return Ok((position, None));
        };
        let mut from = position;
        let (min, max) = (queue.min_offset().0, queue.max_offset().0);
        // The queue may know entries behind `position`, but only few: those since the checkpoint.
        for index in (min..max).rev() {
            let Some(entry) = queue.entry(QueueOffset(index))? else { break };
            if entry.position >= position {
                continue;
            }
            let Some(segment) = self.log.segment(entry.position) else { break };
            match decode_head(segment.tail(entry.position), entry.position) {
                Ok(head) => {
                    let last = EntryId { index: head.index, term: head.term, crc: head.crc };
                    return Ok((from, Some(last)));
                }
                Err(error) => {
                    tracing::error!(log_index = index, %error, "an entry that was good before cannot be read");
                    from = entry.position;
                }
            }
        }
        Ok((from, None))
    }
}
