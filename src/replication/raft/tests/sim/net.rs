//! The network of a simulation: pipes in memory that take their time, below tonic.
//!
//! What is written arrives in order, some milliseconds later; what was lost and sent again, much later. On a way that is
//! cut, or to a host that is paused, it waits, as it would in TCP. A connection can break, and a host can vanish without a
//! word.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::Stream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, Sleep};
use tonic::transport::Uri;
use tonic::transport::server::Connected;

use super::trace::Trace;

/// Bytes on their way in one direction of a connection before the sender has to wait.
const ROOM: usize = 256 << 10;
/// How long it takes until what was lost is sent again.
const RETRANSMISSION_MS: u64 = 200;

/// How long the ways take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weather {
    pub(super) latency_ms: (u64, u64),
    /// Writes in a thousand that are lost first.
    pub(super) lost: u32,
}

pub(super) const FINE: Weather = Weather { latency_ms: (0, 2), lost: 0 };

#[derive(Debug)]
pub(super) struct Net {
    state: Mutex<State>,
    /// A way was opened, or a host came up.
    changed: Notify,
    trace: Trace,
}

#[derive(Debug)]
struct State {
    random: fastrand::Rng,
    hosts: Vec<HostState>,
    cut: Vec<(usize, usize)>,
    weather: Weather,
    listeners: BTreeMap<String, (usize, mpsc::UnboundedSender<Pipe>)>,
    /// Both directions of each connection.
    connections: Vec<[Weak<Mutex<Direction>>; 2]>,
    made: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HostState {
    Up,
    Paused,
    /// The process is gone; the host says so.
    Down,
    /// The host is gone.
    Vanished,
}

/// The place of a replica in the network.
#[derive(Debug)]
pub(in crate::replication) struct Host {
    net: Arc<Net>,
    id: usize,
}

/// How a replica goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Its connections are reset.
    Process,
    /// Nobody hears anything.
    Host,
}

impl Net {
    pub(super) fn new(hosts: usize, random: fastrand::Rng, trace: Trace) -> Arc<Self> {
        let state = State {
            random,
            hosts: vec![HostState::Down; hosts],
            cut: Vec::new(),
            weather: FINE,
            listeners: BTreeMap::new(),
            connections: Vec::new(),
            made: 0,
        };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new(), trace })
    }

    pub(super) fn host(self: &Arc<Self>, id: usize) -> Arc<Host> {
        Arc::new(Host { net: Arc::clone(self), id })
    }

    pub(super) fn start(&self, id: usize) {
        // What was sent to the host before meets nobody.
        let old = self.connections_of(|from, to| from == id || to == id);
        old.iter().for_each(|direction| lock(direction).reset());
        self.lock().hosts[id] = HostState::Up;
        self.wake_all();
    }

    pub(super) fn end(&self, id: usize, end: End) {
        let state = match end {
            End::Process => HostState::Down,
            End::Host => HostState::Vanished,
        };
        {
            let mut net = self.lock();
            net.hosts[id] = state;
            net.listeners.retain(|_, (host, _)| *host != id);
        }
        for direction in self.connections_of(|from, to| from == id || to == id) {
            let mut direction = lock(&direction);
            match end {
                End::Process => direction.reset(),
                End::Host => direction.vanish(),
            }
        }
    }

    pub(super) fn pause(&self, id: usize, paused: bool) {
        let mut net = self.lock();
        net.hosts[id] = match net.hosts[id] {
            HostState::Up if paused => HostState::Paused,
            HostState::Paused if !paused => HostState::Up,
            other => other,
        };
        drop(net);
        self.wake_all();
    }

    pub(super) fn cut(&self, ways: impl IntoIterator<Item = (usize, usize)>) {
        self.lock().cut.extend(ways);
    }

    pub(super) fn heal(&self) {
        let mut net = self.lock();
        net.cut.clear();
        net.weather = FINE;
        drop(net);
        self.wake_all();
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Breaks all connections between two hosts.
    pub(super) fn break_connections(&self, one: usize, two: usize) {
        let between = self.connections_of(|from, to| (from, to) == (one, two) || (from, to) == (two, one));
        between.iter().for_each(|direction| lock(direction).reset());
    }

    fn connections_of(&self, wanted: impl Fn(usize, usize) -> bool) -> Vec<Arc<Mutex<Direction>>> {
        let mut net = self.lock();
        net.connections.retain(|both| both.iter().any(|direction| direction.strong_count() > 0));
        let all: Vec<_> = net.connections.iter().flatten().filter_map(Weak::upgrade).collect();
        drop(net);
        let is_wanted = |direction: &Arc<Mutex<Direction>>| {
            let direction = lock(direction);
            wanted(direction.from, direction.to)
        };
        all.into_iter().filter(is_wanted).collect()
    }

    fn wake_all(&self) {
        self.changed.notify_waiters();
        for direction in self.connections_of(|_, _| true) {
            lock(&direction).wake();
        }
    }

    fn is_open(&self, from: usize, to: usize) -> bool {
        let net = self.lock();
        let goes = |id: usize| matches!(net.hosts[id], HostState::Up | HostState::Down);
        goes(from) && goes(to) && !net.cut.contains(&(from, to))
    }

    fn latency(&self) -> Duration {
        let mut net = self.lock();
        let Weather { latency_ms: (least, most), lost } = net.weather;
        let mut ms = net.random.u64(least..=most);
        if lost > 0 && net.random.u32(..1000) < lost {
            ms += RETRANSMISSION_MS;
        }
        Duration::from_millis(ms)
    }

    async fn until_open(&self, from: usize, to: usize) {
        loop {
            let changed = self.changed.notified();
            if self.is_open(from, to) {
                return;
            }
            changed.await;
        }
    }

    async fn connect(self: Arc<Self>, from: usize, address: String) -> io::Result<Pipe> {
        let to = address.trim_start_matches('n').split(':').next().and_then(|id| id.parse().ok());
        let to: usize = to.ok_or_else(|| io::Error::from(ErrorKind::AddrNotAvailable))?;
        tokio::time::sleep(self.latency()).await;
        self.until_open(from, to).await;
        let (pipe, other) = self.pipe(from, to);
        {
            let net = self.lock();
            let listener = net.listeners.get(&address);
            let taken = listener.is_some_and(|(_, listener)| listener.send(other).is_ok());
            if !taken {
                return Err(ErrorKind::ConnectionRefused.into());
            }
        }
        tokio::time::sleep(self.latency()).await;
        self.until_open(to, from).await;
        Ok(pipe)
    }

    fn pipe(self: &Arc<Self>, from: usize, to: usize) -> (Pipe, Pipe) {
        let mut net = self.lock();
        net.made += 1;
        let direction = |from, to, number| Arc::new(Mutex::new(Direction::new(from, to, number)));
        let there = direction(from, to, net.made * 2);
        let back = direction(to, from, net.made * 2 + 1);
        net.connections.push([Arc::downgrade(&there), Arc::downgrade(&back)]);
        let end = |read: &Arc<Mutex<Direction>>, write: &Arc<Mutex<Direction>>| Pipe {
            net: Arc::clone(self),
            read: Arc::clone(read),
            write: Arc::clone(write),
            timer: None,
        };
        (end(&back, &there), end(&there, &back))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    pub(in crate::replication::raft) fn listen(&self, address: &str) -> io::Result<Incoming> {
        let (sender, pipes) = mpsc::unbounded_channel();
        self.net.lock().listeners.insert(address.to_owned(), (self.id, sender));
        Ok(Incoming(pipes))
    }
}

/// Connections that come in.
pub(in crate::replication::raft) struct Incoming(mpsc::UnboundedReceiver<Pipe>);

impl Stream for Incoming {
    type Item = io::Result<Pipe>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Pipe>>> {
        self.0.poll_recv(context).map(|pipe| pipe.map(Ok))
    }
}

/// Makes connections for tonic.
#[derive(Debug, Clone)]
pub(in crate::replication::raft) struct Connector(Arc<Host>);

impl Connector {
    pub(in crate::replication::raft) fn new(host: &Arc<Host>) -> Self {
        Self(Arc::clone(host))
    }
}

impl tonic::codegen::Service<Uri> for Connector {
    type Response = TokioIo<Pipe>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Pipe>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (net, id) = (Arc::clone(&self.0.net), self.0.id);
        let address = uri.authority().map(ToString::to_string).unwrap_or_default();
        Box::pin(async move { net.connect(id, address).await.map(TokioIo::new) })
    }
}

/// What is on its way from one end of a connection to the other.
#[derive(Debug)]
struct Direction {
    from: usize,
    to: usize,
    number: u64,
    queue: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// The writer has said that nothing more comes.
    ended: bool,
    /// Both ends get errors.
    broken: bool,
    /// Nothing arrives any more.
    void: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Direction {
    fn new(from: usize, to: usize, number: u64) -> Self {
        Self {
            from,
            to,
            number,
            queue: VecDeque::new(),
            bytes: 0,
            ended: false,
            broken: false,
            void: false,
            reader_gone: false,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }

    fn reset(&mut self) {
        self.broken = true;
        self.queue.clear();
        self.wake();
    }

    /// One of the hosts is gone.
    fn vanish(&mut self) {
        self.void = true;
        self.queue.clear();
        self.wake();
    }
}

/// One end of a connection.
#[derive(Debug)]
pub(in crate::replication::raft) struct Pipe {
    net: Arc<Net>,
    read: Arc<Mutex<Direction>>,
    write: Arc<Mutex<Direction>>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Connected for Pipe {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let pipe = &mut *self;
            let mut direction = lock(&pipe.read);
            if direction.broken {
                return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
            }
            direction.reader = Some(context.waker().clone());
            if direction.void || !pipe.net.is_open(direction.from, direction.to) {
                return Poll::Pending;
            }
            let Some((due, bytes)) = direction.queue.front_mut() else {
                return if direction.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
            };
            if *due > Instant::now() {
                let due = *due;
                drop(direction);
                let timer = pipe.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
                timer.as_mut().reset(due);
                ready!(timer.as_mut().poll(context));
                continue;
            }
            let count = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..count]);
            bytes.advance(count);
            if bytes.is_empty() {
                direction.queue.pop_front();
            }
            direction.bytes -= count;
            if let Some(writer) = direction.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut direction = lock(&self.write);
        let (from, to) = (direction.from, direction.to);
        if direction.broken || (direction.reader_gone && self.net.is_open(from, to)) {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        if direction.bytes >= ROOM {
            direction.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let numbers = [direction.number, bytes.len() as u64, u64::from(crc32fast::hash(bytes))];
        self.net.trace.numbers("sent", &numbers);
        direction.bytes += bytes.len();
        if !direction.void {
            let due = Instant::now() + self.net.latency();
            let due = direction.queue.back().map_or(due, |(before, _)| due.max(*before));
            direction.queue.push_back((due, Bytes::copy_from_slice(bytes)));
            if let Some(reader) = direction.reader.take() {
                reader.wake();
            }
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.write).end();
        Poll::Ready(Ok(()))
    }
}

impl Direction {
    fn end(&mut self) {
        self.ended = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        lock(&self.write).end();
        let mut read = lock(&self.read);
        read.reader_gone = true;
        if let Some(writer) = read.writer.take() {
            writer.wake();
        }
    }
}

fn lock(direction: &Mutex<Direction>) -> MutexGuard<'_, Direction> {
    direction.lock().unwrap_or_else(PoisonError::into_inner)
}
