//! openraft's log storage over the CommitLog.
//!
//! `append` runs on the Raft task and does no I/O; see `store/entry_log.rs`.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::codec::{StateImage, membership_from_bytes, membership_to_bytes, term_of};
use super::files::Files;
use super::machine::blocking;
use super::proposal::Waiting;
use super::types::{Entry, LogId, Payload, Stored, Types, Vote, log_id};
use crate::env::KnownBad;
use crate::metadata::encode_commands;
use crate::model::{LogIndex, PhysicalOffset, Term};
use crate::store::{
    Check, EntryHead, EntryId, EntryKind, EntryLog, NewEntry, Store, StoredEntry, decode_entry, decode_head,
    position_of,
};

/// Bytes of entries in one request to a follower.
const REQUEST_BYTES: usize = 1 << 20;

/// Time between two looks at a damaged entry that is to be mended.
const MEND_LOOK: Duration = Duration::from_millis(50);

/// How long entries that were taken back are waited for by whoever still wants to send them.
const TAKEN_BACK_LIMIT: Duration = Duration::from_secs(10);

/// The log of one replica; clones read the same log.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    entries: Arc<EntryLog>,
    store: Arc<Store>,
    files: Arc<Files>,
    waiting: Arc<Waiting>,
    vote: Mutex<Option<Vote>>,
    /// The last entry that the log once had and no longer has.
    purged: Mutex<Option<LogId>>,
    /// The replica stops: nothing is mended any more.
    stopped: AtomicBool,
}

impl Log {
    pub(super) fn new(
        entries: Arc<EntryLog>,
        store: Arc<Store>,
        files: Arc<Files>,
        waiting: Arc<Waiting>,
        purged: Option<LogId>,
    ) -> io::Result<Self> {
        let vote = Mutex::new(files.vote()?);
        let (purged, stopped) = (Mutex::new(purged), AtomicBool::new(false));
        Ok(Self(Arc::new(Inner { entries, store, files, waiting, vote, purged, stopped })))
    }

    /// Ends the waiting for damaged entries.
    pub(super) fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
    }

    /// Tells that a snapshot took the place of the entries up to `last`.
    pub(super) fn set_purged(&self, last: Option<LogId>) {
        *self.0.purged.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }

    fn purged(&self) -> Option<LogId> {
        *self.0.purged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> Option<LogId> {
        let last = self.0.entries.last().map(|last| log_id(last.term.0, last.index.0));
        last.max(self.purged())
    }

    fn append_one(&self, entry: Entry) -> io::Result<()> {
        let index = LogIndex(entry.log_id.index());
        let term = Term(term_of(&entry.log_id));
        let new = |kind, command, drafts| NewEntry { index, term, kind, command, forgotten: &[], drafts };
        match entry.payload {
            Payload::Blank => {
                self.0.entries.append(new(EntryKind::Blank, &[], &mut [])).map_err(other)?;
            }
            Payload::Membership(membership) => {
                let command = membership_to_bytes(&membership);
                self.0.entries.append(new(EntryKind::Membership, &command, &mut [])).map_err(other)?;
            }
            Payload::Proposal(proposal) => {
                let mut batch = proposal.take().ok_or_else(|| io::Error::other("a proposal came twice"))?;
                let command = encode_commands(&batch.commands);
                let mut drafts = std::mem::take(&mut batch.drafts);
                let appended = self
                    .0
                    .entries
                    .append(NewEntry {
                        index,
                        term,
                        kind: EntryKind::Data,
                        command: &command,
                        forgotten: &batch.forgotten,
                        drafts: &mut drafts,
                    })
                    .map_err(other)?;
                self.0.waiting.insert(index.0, batch.placed(appended));
                if KnownBad::AckBeforeCommit.is_on() {
                    self.0.waiting.applied(index.0);
                }
            }
            Payload::Stored(stored) => self.0.entries.append_stored(stored.bytes).map_err(other)?,
        }
        Ok(())
    }

    /// Reads entries; where a damaged one is the first, waits until it is mended.
    async fn read(&self, from: u64, to: u64, bytes_max: usize, check: Check) -> io::Result<Vec<Entry>> {
        let from = self.purged().map_or(from, |purged| from.max(purged.index() + 1));
        let read = || self.0.entries.entries(LogIndex(from), LogIndex(to), bytes_max, check);
        self.undamaged(read).await?.into_iter().map(entry_of).collect()
    }

    /// Reads again and again while what is read is damaged, or no file can be opened: openraft would end this replica over
    /// an error.
    async fn undamaged<T>(&self, read: impl Fn() -> crate::store::Result<T>) -> io::Result<T> {
        loop {
            match read() {
                Err(crate::store::Error::Damaged { .. } | crate::store::Error::Full { .. })
                    if !self.0.stopped.load(Ordering::SeqCst) && self.0.store.failure().is_none() => {}
                other_result => return other_result.map_err(other),
            }
            tokio::time::sleep(MEND_LOOK).await;
        }
    }
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let from = match range.start_bound() {
            Bound::Included(from) => *from,
            Bound::Excluded(from) => from + 1,
            Bound::Unbounded => 0,
        };
        let end = self.last().map_or(0, |last| last.index() + 1);
        let to = match range.end_bound() {
            Bound::Included(to) => to + 1,
            Bound::Excluded(to) => *to,
            Bound::Unbounded => end,
        };
        let (mut next, to) = (from, to.min(end));
        let mut entries: Vec<Entry> = Vec::new();
        while next < to {
            let more = self.read(next, to, usize::MAX, Check::Head).await?;
            let (Some(first), Some(last)) = (more.first(), more.last()) else { break };
            if !entries.is_empty() && first.log_id.index() != next {
                break;
            }
            next = last.log_id.index() + 1;
            entries.extend(more);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let deadline = tokio::time::Instant::now() + TAKEN_BACK_LIMIT;
        loop {
            let entries = self.read(start, end, REQUEST_BYTES, Check::Whole).await?;
            if entries.first().is_some_and(|first| first.log_id.index() == start) {
                return Ok(entries);
            }
            // A leader that was just replaced takes entries back that it was still sending. openraft is about to cancel
            // that, and would end this replica over an error.
            let is_behind_the_end = self.0.entries.last().is_none_or(|last| last.index.0 < start);
            let stopped = self.0.stopped.load(Ordering::SeqCst);
            if !is_behind_the_end || stopped || tokio::time::Instant::now() >= deadline {
                // Never a shifted or an empty range: openraft would take it for the one that it asked for.
                return Err(io::Error::new(
                    io::ErrorKind::NotFound,
                    format!("entry {start} is not in the log"),
                ));
            }
            tokio::time::sleep(MEND_LOOK).await;
        }
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(*self.0.vote.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        Ok(LogState { last_purged_log_id: self.purged(), last_log_id: self.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        // openraft takes a saved vote as proof that everything appended before is durable.
        let (done, is_done) = oneshot::channel();
        self.0.entries.when_flushed(tell(done));
        wait(is_done).await?;
        let (files, saved) = (Arc::clone(&self.0.files), *vote);
        blocking(self.0.store.threads(), move || files.save_vote(&saved)).await?;
        *self.0.vote.lock().unwrap_or_else(PoisonError::into_inner) = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        match committed {
            Some(id) => self.0.files.note_committed(id),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        // The hint may be newer than what a power failure left of the log.
        let last = self.last();
        Ok(self.0.files.committed().filter(|id| last.is_some_and(|last| *id <= last)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        for entry in entries {
            self.append_one(entry)?;
        }
        let flushed = Box::new(move |result: Result<(), String>| {
            callback.io_completed(result.map_err(io::Error::other));
        });
        self.0.entries.when_flushed(flushed);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        if last_log_id.is_some_and(|id| self.last().is_none_or(|last| last.index() <= id.index())) {
            return Ok(());
        }
        let (last, end) = match last_log_id {
            Some(id) => match self.undamaged(|| self.0.entries.find(LogIndex(id.index()))).await? {
                Some((last, position, len)) => (Some(last), position.plus(len as u64)),
                // Everything behind a snapshot is taken back.
                None => (Some(self.snapshot_end(id)?), self.0.store.log().min()),
            },
            None => (None, self.0.store.log().min()),
        };
        let (done, is_done) = oneshot::channel();
        self.0.entries.truncate_after(last, end, tell(done));
        wait(is_done).await?;
        self.0.waiting.truncated(last_log_id.map(|id| id.index()));
        Ok(())
    }

    async fn purge(&mut self, id: LogId) -> io::Result<()> {
        let inner = Arc::clone(&self.0);
        let work = move || {
            let Some(position) = inner.entries.position(LogIndex(id.index())).map_err(other)? else {
                // A snapshot was installed; the log begins behind it already.
                return Ok(());
            };
            let size = inner.store.config().segment_bytes;
            let min = PhysicalOffset((position.0 / size + 1) * size);
            let min = if inner.files.has_snapshot(min)? { min } else { inner.store.log().min() };
            inner.store.delete_below(min).map_err(other)?;
            inner.files.remove_snapshots_below(inner.store.log().min())
        };
        blocking(self.0.store.threads(), work).await?;
        if self.purged().is_none_or(|purged| purged < id) {
            self.set_purged(Some(id));
        }
        Ok(())
    }
}

impl Log {
    /// Returns the entry that the first segment follows.
    fn snapshot_end(&self, id: LogId) -> io::Result<EntryId> {
        let base = self.0.store.log().min();
        let image = self.0.files.snapshot(base)?.filter(|image| image.last_log_id() == Some(id));
        let last = image.as_ref().and_then(StateImage::last_entry);
        last.ok_or_else(|| io::Error::other(format!("entry {id} is not in the log")))
    }
}

/// Decodes an entry that another replica sent; checks everything but its order.
pub(super) fn stored_entry(bytes: Bytes) -> io::Result<Entry> {
    let position = position_of(&bytes).ok_or_else(|| malformed("an entry is too short"))?;
    let (id, membership) = {
        let head = decode_entry(&bytes, position).map_err(malformed)?;
        if head.len() != bytes.len() {
            return Err(malformed("bytes follow behind an entry"));
        }
        (log_id(head.term.0, head.index.0), membership_of(&head)?)
    };
    Ok(Entry { log_id: id, payload: Payload::Stored(Stored { position, bytes, membership }) })
}

/// Takes an entry of this replica's own log.
fn entry_of(entry: StoredEntry) -> io::Result<Entry> {
    let StoredEntry { index, term, kind, position, bytes } = entry;
    let membership = match kind {
        EntryKind::Membership => membership_of(&decode_head(&bytes, position).map_err(malformed)?)?,
        EntryKind::Blank | EntryKind::Data => None,
    };
    let payload = Payload::Stored(Stored { position, bytes, membership });
    Ok(Entry { log_id: log_id(term.0, index.0), payload })
}

fn membership_of(head: &EntryHead<'_>) -> io::Result<Option<super::types::Membership>> {
    match head.kind {
        EntryKind::Membership => membership_from_bytes(head.command).map(Some),
        EntryKind::Blank | EntryKind::Data => Ok(None),
    }
}

/// Returns a callback that sends what it is told.
pub(super) fn tell(done: oneshot::Sender<Result<(), String>>) -> crate::store::Flushed {
    Box::new(move |result| {
        let _ = done.send(result);
    })
}

/// Waits for what [`tell`] sends.
pub(super) async fn wait(done: oneshot::Receiver<Result<(), String>>) -> io::Result<()> {
    match done.await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("the log is closed")),
    }
}

fn malformed(reason: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_string())
}

fn other(error: crate::store::Error) -> io::Error {
    io::Error::other(error)
}
