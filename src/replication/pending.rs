//! Answers that come later.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use super::Error;
use crate::store::Appended;

/// An append on its way: queued, then written, then committed or refused.
#[derive(Debug)]
pub struct PendingAppend(Arc<Slot>);

/// The other side of a [`PendingAppend`]. Dropped unanswered, it answers [`Error::Stopped`].
#[derive(Debug)]
pub(super) struct AppendAnswer(Arc<Slot>);

#[derive(Debug, Default)]
struct Slot(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    written: Option<Appended>,
    done: Option<Result<(), Error>>,
    /// Of the task that waits for `written`, which few do.
    written_waker: Option<Waker>,
    done_waker: Option<Waker>,
}

pub(super) fn pending_append() -> (AppendAnswer, PendingAppend) {
    let slot = Arc::new(Slot::default());
    (AppendAnswer(Arc::clone(&slot)), PendingAppend(slot))
}

impl PendingAppend {
    /// Waits until the draft is in the log, though maybe not yet safe, or refused.
    pub async fn written(&self) -> Result<Appended, Error> {
        poll_fn(|context| {
            let mut state = self.0.lock();
            match (&state.done, &state.written) {
                (Some(Err(error)), None) => Poll::Ready(Err(error.clone())),
                (_, Some(appended)) => Poll::Ready(Ok(appended.clone())),
                (Some(Ok(())) | None, None) => {
                    state.written_waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Waits until the draft is committed or refused.
    pub async fn committed(&self) -> Result<Appended, Error> {
        poll_fn(|context| {
            let mut state = self.0.lock();
            match (&state.done, &state.written) {
                (Some(Err(error)), _) => Poll::Ready(Err(error.clone())),
                (Some(Ok(())), Some(appended)) => Poll::Ready(Ok(appended.clone())),
                _ => {
                    state.done_waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl AppendAnswer {
    /// Tells where the draft went.
    pub(super) fn written(&self, appended: Appended) {
        let waker = {
            let mut state = self.0.lock();
            state.written = Some(appended);
            state.written_waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Tells that the draft, whose place is known, is committed, or why it never will be.
    pub(super) fn finish(self, result: Result<(), Error>) {
        self.0.finish(result);
    }
}

impl Drop for AppendAnswer {
    fn drop(&mut self) {
        self.0.finish(Err(Error::Stopped));
    }
}

impl Slot {
    /// The first answer counts.
    fn finish(&self, result: Result<(), Error>) {
        let wakers = {
            let mut state = self.lock();
            if state.done.is_some() {
                return;
            }
            state.done = Some(result);
            [state.written_waker.take(), state.done_waker.take()]
        };
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A change of metadata on its way.
#[derive(Debug)]
pub struct PendingChange(pub(super) tokio::sync::oneshot::Receiver<Result<(), Error>>);

impl PendingChange {
    /// Waits until the change is committed and applied.
    pub async fn committed(self) -> Result<(), Error> {
        self.0.await.unwrap_or(Err(Error::Stopped))
    }
}
