//! One TCP connection, seen from either end: a server accepted it or a client opened it.
//!
//! Two tasks run it. The reader cuts frames and hands requests to the [`Service`] one after the other, and responses
//! to whoever waits for them. The writer sends all that is queued in one vectored write. Everybody else only puts
//! frames into the outbox, which never blocks.

mod outbox;
mod reader;
mod writer;

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tracing::warn;

use super::command::{Command, SerializeType};
use outbox::{Full, Outbox};

pub(super) use reader::drive;

/// What a server does with the requests that it gets.
pub trait Service: Send + Sync + 'static {
    /// Takes one request. The connection reads its next frame when this future resolves, so the order of appends is
    /// fixed by then; an [`Answer::Later`] may overtake others.
    ///
    /// The future is not dropped early: it also runs to its end if the connection closes meanwhile.
    fn call(&self, connection: &Connection, request: Command) -> impl Future<Output = Answer> + Send;

    /// Hears that a connection is gone; called exactly once for each.
    fn closed(&self, connection: &Connection);
}

/// What a service says to a request. One-way requests are never answered, whatever it says.
pub enum Answer {
    /// This.
    Now(Command),
    /// What the future yields. It is dropped when the connection closes.
    Later(Pin<Box<dyn Future<Output = Command> + Send>>),
    /// Nothing.
    Never,
}

impl Answer {
    /// Answers when `answer` resolves.
    pub fn later(answer: impl Future<Output = Command> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

impl From<Command> for Answer {
    fn from(command: Command) -> Self {
        Self::Now(command)
    }
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens there, or the address means nothing. Nothing was sent.
    #[error("connect to {address}: {source}")]
    Connect {
        /// The address as it was given.
        address: String,
        /// The reason.
        source: io::Error,
    },
    /// No answer came in time. The request may have been carried out.
    #[error("no answer from {address} within {} ms", after.as_millis())]
    Timeout {
        /// The address of the peer.
        address: String,
        /// How long the call waited.
        after: Duration,
    },
    /// The connection closed before the answer came. The request may have been carried out.
    #[error("the connection to {address} closed")]
    Closed {
        /// The address of the peer.
        address: String,
    },
    /// Too many calls wait for an answer on the connection. Nothing was sent.
    #[error("{PENDING_MAX} calls to {address} wait for an answer")]
    Busy {
        /// The address of the peer.
        address: String,
    },
}

/// As many calls as a Java client lets wait (`clientAsyncSemaphoreValue`); more mean that the peer is stuck.
const PENDING_MAX: usize = 65_535;

/// What bounds a connection.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) frame_bytes_max: usize,
    pub(super) idle: Duration,
    pub(super) inflight_max: usize,
    pub(super) outbound_bytes_max: usize,
    pub(super) drain: Duration,
}

/// A handle to a connection. Clones are the same connection; equality and hash go by its id.
#[derive(Clone)]
pub struct Connection(Arc<Shared>);

struct Shared {
    id: u64,
    peer: SocketAddr,
    local: SocketAddr,
    outbound_bytes_max: usize,
    outbox: Mutex<Outbox>,
    /// Wakes the writer.
    filled: Notify,
    /// Wakes the reader, which waits while too much is queued.
    drained: Notify,
    /// Wakes everybody who waits for the end.
    closing: Notify,
    /// Calls that wait for an answer, by opaque; `None` once closed.
    pending: Mutex<Option<HashMap<i32, oneshot::Sender<Command>>>>,
    opaque: AtomicI32,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

/// Numbers connections through the process, as a broker has several servers whose connections it keeps in one table.
/// Nothing but identity hangs on it.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl Connection {
    fn new(peer: SocketAddr, local: SocketAddr, outbound_bytes_max: usize) -> Self {
        Self(Arc::new(Shared {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            peer,
            local,
            outbound_bytes_max,
            outbox: Mutex::new(Outbox::default()),
            filled: Notify::new(),
            drained: Notify::new(),
            closing: Notify::new(),
            pending: Mutex::new(Some(HashMap::new())),
            opaque: AtomicI32::new(0),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
        }))
    }

    /// Makes the handle of a connected socket.
    pub(super) fn of(socket: &tokio::net::TcpStream, outbound_bytes_max: usize) -> io::Result<Self> {
        Ok(Self::new(socket.peer_addr()?, socket.local_addr()?, outbound_bytes_max))
    }

    /// Returns a number that no other connection of this process has.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Returns the address of the other end.
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
    }

    /// Returns the address of this end.
    pub fn local(&self) -> SocketAddr {
        self.0.local
    }

    /// Sends a one-way request. Never blocks: if the peer has not read what was sent before and the outbox is full,
    /// the connection is closed. A request on a closed connection is lost without notice, as it would be on the way.
    pub fn send(&self, mut request: Command) {
        request.opaque = self.next_opaque();
        request.mark_oneway();
        self.enqueue(&request);
    }

    /// Sends a request and waits for its answer.
    pub async fn request(&self, mut request: Command, timeout: Duration) -> Result<Command, CallError> {
        let opaque = self.next_opaque();
        request.opaque = opaque;
        let answer = self.expect_answer(opaque)?;
        let _forget = Forget { connection: self, opaque };
        if !self.enqueue(&request) {
            return Err(self.closed_error());
        }
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.closed_error()),
            Err(_) => Err(CallError::Timeout { address: self.peer().to_string(), after: timeout }),
        }
    }

    /// Sends a request and waits for its answer. Closes the connection if nothing at all was heard meanwhile: the host
    /// may have vanished without a word, and whoever calls next finds out by connecting.
    pub async fn request_or_close(&self, request: Command, timeout: Duration) -> Result<Command, CallError> {
        let heard = self.received_bytes();
        let answer = self.request(request, timeout).await;
        if matches!(answer, Err(CallError::Timeout { .. })) && self.received_bytes() == heard {
            self.close();
        }
        answer
    }

    /// True once the connection is closed.
    pub fn is_closed(&self) -> bool {
        self.outbox().is_closed()
    }

    /// Closes the connection at once; what is queued is lost.
    pub fn close(&self) {
        self.outbox().close();
        let waiting = lock(&self.0.pending).take();
        drop(waiting);
        self.0.closing.notify_waiters();
        self.0.filled.notify_one();
    }

    /// Waits until the connection is closed.
    pub async fn closed(&self) {
        let mut closing = pin!(self.0.closing.notified());
        closing.as_mut().enable();
        if !self.is_closed() {
            closing.await;
        }
    }

    /// Closes the connection when everything that is queued has been written.
    fn finish(&self) {
        self.outbox().finish();
        self.0.filled.notify_one();
    }

    /// Queues a frame; false if the connection is closed, before or because of it.
    fn enqueue(&self, command: &Command) -> bool {
        let mut outbox = self.outbox();
        if outbox.is_closed() {
            return false;
        }
        let pushed = outbox.push(command, self.0.outbound_bytes_max);
        drop(outbox);
        match pushed {
            Ok(()) => {
                self.0.filled.notify_one();
                true
            }
            Err(Full { bytes }) => {
                warn!(peer = %self.peer(), bytes, "close a connection whose peer does not read");
                self.close();
                false
            }
        }
    }

    fn answer(&self, request: &Asked, mut answer: Command) {
        if request.oneway {
            return;
        }
        answer.opaque = request.opaque;
        answer.serialize_type = request.serialize_type;
        answer.mark_response();
        self.enqueue(&answer);
    }

    fn take_answer(&self, answer: Command) {
        let waiting = lock(&self.0.pending).as_mut().and_then(|pending| pending.remove(&answer.opaque));
        // Nobody waits any more: the call timed out.
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }

    fn expect_answer(&self, opaque: i32) -> Result<oneshot::Receiver<Command>, CallError> {
        let (sender, receiver) = oneshot::channel();
        match lock(&self.0.pending).as_mut() {
            None => Err(self.closed_error()),
            Some(pending) if pending.len() >= PENDING_MAX => {
                Err(CallError::Busy { address: self.peer().to_string() })
            }
            Some(pending) => {
                pending.insert(opaque, sender);
                Ok(receiver)
            }
        }
    }

    fn next_opaque(&self) -> i32 {
        self.0.opaque.fetch_add(1, Ordering::Relaxed)
    }

    fn closed_error(&self) -> CallError {
        CallError::Closed { address: self.peer().to_string() }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        lock(&self.0.outbox)
    }

    /// Returns how many bytes came in; if the number stands still, nothing was heard of the peer.
    fn received_bytes(&self) -> u64 {
        self.0.received_bytes.load(Ordering::Relaxed)
    }

    fn moved_bytes(&self) -> u64 {
        self.received_bytes().wrapping_add(self.0.sent_bytes.load(Ordering::Relaxed))
    }
}

/// What of a request its answer needs.
struct Asked {
    opaque: i32,
    oneway: bool,
    serialize_type: SerializeType,
}

impl Asked {
    fn of(request: &Command) -> Self {
        Self { opaque: request.opaque, oneway: request.is_oneway(), serialize_type: request.serialize_type }
    }
}

/// Takes a call out of the table when it ends, however it ends.
struct Forget<'a> {
    connection: &'a Connection,
    opaque: i32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(pending) = lock(&self.connection.0.pending).as_mut() {
            pending.remove(&self.opaque);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PartialEq for Connection {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Connection {}

impl Hash for Connection {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.0.id)
            .field("peer", &self.0.peer)
            .finish_non_exhaustive()
    }
}
