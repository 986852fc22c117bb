//! The calling end: one connection for each address, opened when it is needed.

use std::collections::HashMap;
use std::future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Instrument, debug_span};

use super::command::Command;
use super::connection::{Answer, CallError, Connection, Limits, Service, drive};

/// What bounds a client.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// How long opening a connection may take; Java's value.
    pub connect_timeout: Duration,
    /// Longest frame that is taken.
    pub frame_bytes_max: usize,
    /// A connection on which nothing moved for this long is closed. Shorter than the servers' 120 s, so that a call
    /// does not meet a connection which the server is just closing.
    pub idle: Duration,
    /// Bytes that may wait to be written to one connection before it is closed.
    pub outbound_bytes_max: usize,
    /// Addresses to remember; beyond it those without a connection are forgotten.
    pub addresses_max: usize,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            frame_bytes_max: 16 << 20,
            idle: Duration::from_secs(100),
            outbound_bytes_max: 64 << 20,
            addresses_max: 1024,
        }
    }
}

/// Calls brokers and name servers. Clones share their connections; the last one to go closes them.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
}

/// What is known of one address.
#[derive(Debug, Default)]
struct Slot {
    /// Held while a connection is being opened, so that callers share the attempt.
    open: tokio::sync::Mutex<Option<Open>>,
    /// Number of attempts that failed.
    failures: AtomicU64,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    task: JoinHandle<()>,
}

impl Client {
    /// Makes a client that has no connection yet.
    pub fn new(config: ClientConfig) -> Self {
        Self(Arc::new(Inner { config, slots: Mutex::new(HashMap::new()) }))
    }

    /// Sends a request to `address` (`host:port`) and waits for its answer, whatever its code; `within` bounds all of
    /// it, opening the connection included.
    pub async fn call(
        &self,
        address: &str,
        request: Command,
        within: Duration,
    ) -> Result<Command, CallError> {
        let deadline = Instant::now() + within;
        let late = |_| CallError::Timeout { address: address.to_owned(), after: within };
        let connection = timeout_at(deadline, self.connection(address)).await.map_err(late)??;
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = connection.request_or_close(request, left).await;
        answer.map_err(|error| name(error, address, within))
    }

    /// Returns an open connection to `address`, for callers that have to know whether a request was sent at all.
    pub async fn connect(&self, address: &str, within: Duration) -> Result<Connection, CallError> {
        let late = |_| CallError::Timeout { address: address.to_owned(), after: within };
        timeout(within, self.connection(address)).await.map_err(late)?
    }

    /// Sends a one-way request; succeeds when it is queued on an open connection.
    pub async fn oneway(&self, address: &str, request: Command, within: Duration) -> Result<(), CallError> {
        self.connect(address, within).await?.send(request);
        Ok(())
    }

    /// Closes all connections and waits until their tasks have ended.
    pub async fn close(&self) {
        let slots: Vec<_> = self.0.slots().drain().collect();
        for (_, slot) in slots {
            if let Some(open) = slot.open.lock().await.take() {
                open.connection.close();
                let _ = open.task.await;
            }
        }
    }

    /// Returns an open connection to `address`.
    async fn connection(&self, address: &str) -> Result<Connection, CallError> {
        let slot = self.0.slot(address);
        let failures = slot.failures.load(Ordering::Acquire);
        let mut open = slot.open.lock().await;
        if let Some(open) = &*open
            && !open.connection.is_closed()
        {
            return Ok(open.connection.clone());
        }
        if slot.failures.load(Ordering::Acquire) != failures {
            // Someone tried in vain while this call waited; trying again one after the other would take ages.
            let source = io::Error::new(io::ErrorKind::NotConnected, "another attempt just failed");
            return Err(CallError::Connect { address: address.to_owned(), source });
        }
        match self.0.connect(address).await {
            Ok(new) => {
                let connection = new.connection.clone();
                *open = Some(new);
                Ok(connection)
            }
            Err(source) => {
                slot.failures.fetch_add(1, Ordering::Release);
                Err(CallError::Connect { address: address.to_owned(), source })
            }
        }
    }
}

impl Inner {
    async fn connect(&self, address: &str) -> io::Result<Open> {
        let socket = timeout(self.config.connect_timeout, TcpStream::connect(address))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        socket.set_nodelay(true)?;
        let connection = Connection::of(&socket, self.config.outbound_bytes_max)?;
        let limits = Limits {
            frame_bytes_max: self.config.frame_bytes_max,
            idle: self.config.idle,
            inflight_max: 1,
            outbound_bytes_max: self.config.outbound_bytes_max,
            drain: Duration::ZERO,
        };
        let span = debug_span!("client connection", peer = %connection.peer());
        let running = drive(socket, connection.clone(), Arc::new(Refuse), limits, future::pending());
        Ok(Open { connection, task: tokio::spawn(running.instrument(span)) })
    }

    fn slot(&self, address: &str) -> Arc<Slot> {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(address) {
            return Arc::clone(slot);
        }
        if slots.len() >= self.config.addresses_max {
            slots.retain(|_, slot| match slot.open.try_lock() {
                Ok(open) => open.as_ref().is_some_and(|open| !open.connection.is_closed()),
                Err(_) => true,
            });
        }
        Arc::clone(slots.entry(address.to_owned()).or_default())
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for slot in self.slots().values() {
            if let Ok(Some(open)) = slot.open.try_lock().as_deref() {
                open.connection.close();
            }
        }
    }
}

/// Gives an error the address that the caller knows.
fn name(error: CallError, known: &str, within: Duration) -> CallError {
    let address = known.to_owned();
    match error {
        CallError::Connect { source, .. } => CallError::Connect { address, source },
        CallError::Timeout { .. } => CallError::Timeout { address, after: within },
        CallError::Closed { .. } => CallError::Closed { address },
        CallError::Busy { .. } => CallError::Busy { address },
    }
}

/// A client serves nothing.
struct Refuse;

impl Service for Refuse {
    async fn call(&self, _: &Connection, request: Command) -> Answer {
        Answer::Now(Command::not_supported(request.code))
    }

    fn closed(&self, _: &Connection) {}
}
