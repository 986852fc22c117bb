//! The requests of one append stream: how many may be unanswered, and since when an answer is owed.
//!
//! [`Requests`] is the half that tonic's task reads from, [`Window`] the half of whoever reads the answers. The
//! window is the owner: when it goes, the input goes with it, at once. openraft's input shares state with the next
//! stream to the same replica, so an input that outlives its stream would send that one's entries into the void.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use tokio::time::Instant;

use super::lease::Heard;
use super::types::{LogId, Types};
use super::wire;

/// Requests that may be unanswered.
pub(super) const REQUESTS_MAX: usize = 64;
/// Bytes of entries that may be unanswered; the request that passes the bound is still sent.
pub(super) const BYTES_MAX: usize = 16 << 20;

/// The requests as they go out. Ends with its input, or with its [`Window`].
pub(super) struct Requests<S> {
    shared: Arc<Shared<S>>,
    first: Option<wire::AppendRequest>,
}

/// What is sent and not answered.
pub(super) struct Window<S> {
    shared: Arc<Shared<S>>,
}

struct Shared<S> {
    /// Absent as soon as it has ended or is not wanted any more. Polled under its lock; never taken together with
    /// `state`.
    input: Mutex<Option<S>>,
    state: Mutex<State>,
}

struct State {
    unanswered: VecDeque<Sent>,
    bytes: usize,
    /// Since when the other side owes something: an answer, or the end.
    owed_since: Option<Instant>,
    ended: bool,
    /// Why the input was given up.
    failure: Option<wire::Malformed>,
    waker: Option<Waker>,
}

struct Sent {
    heard: Heard,
    bytes: usize,
    previous: Option<LogId>,
    last: Option<LogId>,
}

/// Opens a stream that starts with `first` and goes on with `input`.
pub(super) fn open<S>(
    first: AppendEntriesRequest<Types>,
    input: S,
    target: wire::Target,
) -> Result<(Requests<S>, Window<S>), wire::Malformed> {
    let mut state = State {
        unanswered: VecDeque::new(),
        bytes: 0,
        owed_since: None,
        ended: false,
        failure: None,
        waker: None,
    };
    let first = wire::AppendRequest { target: Some(target), ..state.send(first)? };
    let shared = Arc::new(Shared { input: Mutex::new(Some(input)), state: Mutex::new(state) });
    Ok((Requests { shared: shared.clone(), first: Some(first) }, Window { shared }))
}

impl State {
    fn is_full(&self) -> bool {
        self.unanswered.len() >= REQUESTS_MAX || self.bytes >= BYTES_MAX
    }

    fn send(&mut self, request: AppendEntriesRequest<Types>) -> Result<wire::AppendRequest, wire::Malformed> {
        let previous = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(previous);
        let heard = Heard { term: request.vote.leader_id.term, at: Instant::now() };
        let request = wire::append_request(request)?;
        let bytes = request.entries.iter().map(bytes::Bytes::len).sum();
        self.unanswered.push_back(Sent { heard, bytes, previous, last });
        self.bytes += bytes;
        self.owed_since.get_or_insert_with(Instant::now);
        Ok(request)
    }
}

impl<S> Shared<S> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn input(&self) -> MutexGuard<'_, Option<S>> {
        self.input.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_input(&self) {
        let input = self.input().take();
        drop(input);
    }
}

impl<S> Stream for Requests<S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    type Item = wire::AppendRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<wire::AppendRequest>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        {
            let mut state = self.shared.state();
            state.waker = Some(context.waker().clone());
            if state.is_full() {
                return Poll::Pending;
            }
        }
        let polled = match self.shared.input().as_mut() {
            Some(input) => input.poll_next_unpin(context),
            None => Poll::Ready(None),
        };
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(request)) => {
                let sent = self.shared.state().send(request);
                Poll::Ready(sent.map_err(|failure| self.end(Some(failure))).ok())
            }
            Poll::Ready(None) => {
                self.end(None);
                Poll::Ready(None)
            }
        }
    }
}

impl<S> Requests<S> {
    fn end(&self, failure: Option<wire::Malformed>) {
        self.shared.drop_input();
        let mut state = self.shared.state();
        state.ended = true;
        state.failure = state.failure.take().or(failure);
        state.owed_since.get_or_insert_with(Instant::now);
    }
}

impl<S> Window<S> {
    /// Takes note of the answer to the oldest request, and returns when that was sent. An error says why it cannot be
    /// its answer.
    pub(super) fn answered(&self, answer: &StreamAppendResult<Types>) -> Result<Heard, String> {
        let mut state = self.shared.state();
        let was_full = state.is_full();
        let Some(sent) = state.unanswered.pop_front() else {
            return Err("an answer without a request".to_owned());
        };
        state.bytes -= sent.bytes;
        let owed = state.ended || !state.unanswered.is_empty();
        state.owed_since = owed.then(Instant::now);
        let waker = if was_full && !state.is_full() { state.waker.take() } else { None };
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        sent.check(answer)?;
        Ok(sent.heard)
    }

    /// Returns how many requests are not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.shared.state().unanswered.len()
    }

    /// Returns why the input was given up, if it was.
    pub(super) fn failure(&self) -> Option<wire::Malformed> {
        self.shared.state().failure.clone()
    }

    /// Waits until nothing has come for `patience` although something is owed. Each answer starts the time anew.
    pub(super) async fn overdue(&self, patience: Duration) {
        loop {
            let since = self.shared.state().owed_since;
            // What becomes owed while this sleeps is looked at before its time is over.
            let due = since.unwrap_or_else(Instant::now) + patience;
            if since.is_some() && due <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

impl Sent {
    fn check(&self, answer: &StreamAppendResult<Types>) -> Result<(), String> {
        match answer {
            Ok(accepted) if *accepted > self.last => {
                Err(format!("accepts up to {accepted:?}, but only {:?} was sent", self.last))
            }
            Err(StreamAppendError::Conflict(at)) if Some(*at) != self.previous => {
                Err(format!("conflict at {at}, but {:?} was sent", self.previous))
            }
            Ok(_) | Err(StreamAppendError::Conflict(_) | StreamAppendError::HigherVote(_)) => Ok(()),
        }
    }
}

impl<S> Drop for Window<S> {
    fn drop(&mut self) {
        self.shared.drop_input();
        // The other half finds no input when it is polled, and ends.
        let waker = {
            let mut state = self.shared.state();
            state.unanswered.clear();
            state.bytes = 0;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
