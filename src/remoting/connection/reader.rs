//! The reading task of a connection, which owns everything else that belongs to it.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, error};

use super::{Answer, Asked, Connection, Limits, Service, writer};
use crate::remoting::frame::{self, FrameError};

/// The first read of a connection has room for this; most connections are idle ones with small heartbeats.
const READ_BYTES_MIN: usize = 4 << 10;
/// Busy connections read this much at a time.
const READ_BYTES_MAX: usize = 256 << 10;

/// Why a connection stopped reading.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the peer closed it")]
    Peer,
    #[error("it was closed here")]
    Closed,
    #[error("the server stops")]
    Drained,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
}

/// Runs a connection to its end. When `drain` resolves no more requests are read, those under way are answered, within
/// limits, and the connection is closed.
pub(in crate::remoting) async fn drive<S: Service>(
    socket: TcpStream,
    connection: Connection,
    service: Arc<S>,
    limits: Limits,
    drain: impl Future<Output = ()>,
) {
    debug!("open a connection");
    let (read_half, write_half) = socket.into_split();
    let writer = tokio::spawn(writer::run(write_half, connection.clone()));
    let _told = Told { service: Arc::clone(&service), connection: connection.clone() };
    let mut later = JoinSet::new();
    let end = {
        let reader = Reader {
            socket: read_half,
            buf: BytesMut::new(),
            room: READ_BYTES_MIN,
            connection: &connection,
            service: &*service,
            limits: &limits,
            later: &mut later,
        };
        let drain = pin!(drain);
        tokio::select! {
            end = reader.run(drain) => end,
            end = close_when_idle(&connection, limits.idle) => end,
        }
    };
    debug!(%end, "close a connection");
    if matches!(end, End::Drained) {
        let answered = async {
            while let Some(done) = later.join_next().await {
                report(done)
            }
        };
        let _ = tokio::time::timeout(limits.drain, answered).await;
        connection.finish();
        let _ = tokio::time::timeout(limits.drain, connection.closed()).await;
    }
    connection.close();
    later.shutdown().await;
    report(writer.await);
}

/// Tells the service of the end, also if a handler panics.
struct Told<S: Service> {
    service: Arc<S>,
    connection: Connection,
}

impl<S: Service> Drop for Told<S> {
    fn drop(&mut self) {
        self.connection.close();
        self.service.closed(&self.connection);
    }
}

/// Closes the connection when nothing moved on it for `idle`, to within a quarter more. Does not resolve by itself: the
/// reader, which may be within a handler, sees the end at its next step.
async fn close_when_idle(connection: &Connection, idle: Duration) -> End {
    let mut seen = connection.moved_bytes();
    let mut quiet = 0;
    while quiet < 4 {
        tokio::time::sleep(idle / 4).await;
        let moved = connection.moved_bytes();
        quiet = if moved == seen { quiet + 1 } else { 0 };
        seen = moved;
    }
    debug!("nothing moved on a connection for long");
    connection.close();
    std::future::pending().await
}

fn report(done: Result<(), JoinError>) {
    if let Err(error) = done
        && error.is_panic()
    {
        error!(%error, "a task of a connection failed");
    }
}

struct Reader<'a, S> {
    socket: OwnedReadHalf,
    buf: BytesMut,
    /// Bytes to make room for before the next read; grows while the peer fills it.
    room: usize,
    connection: &'a Connection,
    service: &'a S,
    limits: &'a Limits,
    later: &'a mut JoinSet<()>,
}

impl<S: Service> Reader<'_, S> {
    async fn run(mut self, mut drain: Pin<&mut impl Future<Output = ()>>) -> End {
        loop {
            if let Err(end) = self.step(drain.as_mut()).await {
                return end;
            }
        }
    }

    /// Takes the next frame, or reads more of it.
    async fn step(&mut self, drain: Pin<&mut impl Future<Output = ()>>) -> Result<(), End> {
        match frame::decode(&mut self.buf, self.limits.frame_bytes_max)? {
            Some(command) if command.is_response() => {
                self.connection.take_answer(command);
                Ok(())
            }
            Some(request) => {
                let asked = Asked::of(&request);
                match self.service.call(self.connection, request).await {
                    Answer::Now(answer) => self.connection.answer(&asked, answer),
                    Answer::Never => {}
                    Answer::Later(answer) => {
                        let connection = self.connection.clone();
                        self.later.spawn(async move { connection.answer(&asked, answer.await) });
                    }
                }
                self.wait_for_room(drain).await
            }
            None => self.read(drain).await,
        }
    }

    async fn read(&mut self, drain: Pin<&mut impl Future<Output = ()>>) -> Result<(), End> {
        self.buf.reserve(self.room);
        let room = self.buf.capacity() - self.buf.len();
        let read = tokio::select! {
            biased;
            () = self.connection.closed() => return Err(End::Closed),
            () = drain => return Err(End::Drained),
            read = self.socket.read_buf(&mut self.buf) => read?,
        };
        if read == 0 {
            return Err(End::Peer);
        }
        self.connection.0.received_bytes.fetch_add(u64::try_from(read).unwrap_or(0), Ordering::Relaxed);
        self.room = match read {
            full if full == room => (self.room * 2).min(READ_BYTES_MAX),
            little if little < self.room / 4 => (self.room / 2).max(READ_BYTES_MIN),
            _ => self.room,
        };
        Ok(())
    }

    /// Holds the next request back while too many are under way or too many answers wait to be written.
    async fn wait_for_room(&mut self, mut drain: Pin<&mut impl Future<Output = ()>>) -> Result<(), End> {
        while let Some(done) = self.later.try_join_next() {
            report(done);
        }
        while self.later.len() >= self.limits.inflight_max {
            tokio::select! {
                done = self.later.join_next() => if let Some(done) = done { report(done) },
                () = self.connection.closed() => return Err(End::Closed),
                () = drain.as_mut() => return Err(End::Drained),
            }
        }
        while self.connection.outbox().bytes() > self.limits.outbound_bytes_max / 2 {
            tokio::select! {
                () = self.connection.0.drained.notified() => {}
                () = self.connection.closed() => return Err(End::Closed),
                () = drain.as_mut() => return Err(End::Drained),
            }
        }
        Ok(())
    }
}
