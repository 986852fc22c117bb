//! The listening end: accepts connections and runs a [`Service`] over them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{Instrument, debug_span, error, warn};

use super::connection::{Connection, Limits, Service, drive};

/// What bounds a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Further connections are closed as soon as they are accepted, so that their clients fail at once instead of
    /// waiting in the kernel's queue.
    pub connections_max: usize,
    /// Longest frame that is taken, its length field included. Java's limit, which clients rely on.
    pub frame_bytes_max: usize,
    /// A connection on which nothing moved for this long is closed, as in Java: half-dead peers must not keep
    /// subscriptions alive.
    pub idle: Duration,
    /// [`Answer::Later`](super::Answer::Later)s of one connection that may be under way before it is no longer read.
    /// A Java client lets as many calls wait.
    pub inflight_max: usize,
    /// Bytes that may wait to be written to one connection. From half of it on the connection is not read; one that
    /// exceeds it is closed. Room for more than two hundred full pull answers.
    pub outbound_bytes_max: usize,
    /// Connections that the kernel keeps until they are accepted. Java's value.
    pub backlog: u32,
    /// How long requests that are under way at shutdown may take, and how long their answers may take to be written.
    pub drain: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            frame_bytes_max: 16 << 20,
            idle: Duration::from_secs(120),
            inflight_max: 65_535,
            outbound_bytes_max: 64 << 20,
            backlog: 1024,
            drain: Duration::from_secs(3),
        }
    }
}

/// A bound socket that does not accept yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    local: SocketAddr,
    config: ServerConfig,
}

/// How long to wait after a failed `accept`: the process is out of file descriptors or memory, and only time helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Server {
    /// Binds a socket. Port 0 takes a free one.
    pub async fn bind(address: impl ToSocketAddrs, config: ServerConfig) -> io::Result<Self> {
        let address = lookup_host(address).await?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(config.backlog)?;
        let local = listener.local_addr()?;
        Ok(Self { listener, local, config })
    }

    /// Returns the address that the socket is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Serves until `shutdown` resolves; then stops accepting, lets each connection answer what is under way, and
    /// closes it. Returns when all connections are gone.
    pub async fn serve<S: Service>(self, service: Arc<S>, shutdown: impl Future) {
        let Self { listener, config, .. } = self;
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        let mut full = false;
        loop {
            tokio::select! {
                biased;
                _ = &mut shutdown => break,
                Some(done) = connections.join_next() => report(done),
                accepted = listener.accept() => match accepted {
                    Ok((socket, peer)) if connections.len() >= config.connections_max => {
                        if !full {
                            warn!(%peer, connections = connections.len(), "refuse connections, there are too many");
                        }
                        full = true;
                        drop(socket);
                    }
                    Ok((socket, _)) => {
                        full = false;
                        start(socket, &config, &service, stopped.clone(), &mut connections);
                    }
                    Err(error) => {
                        warn!(%error, "accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let _ = stop.send(true);
        // Each connection bounds its answers and its writes; the third part is for a handler that is not done yet.
        let ended = async {
            while let Some(done) = connections.join_next().await {
                report(done)
            }
        };
        if tokio::time::timeout(config.drain * 3, ended).await.is_err() {
            warn!(connections = connections.len(), "cut connections that do not end");
            connections.shutdown().await;
        }
    }
}

fn start<S: Service>(
    socket: TcpStream,
    config: &ServerConfig,
    service: &Arc<S>,
    mut stopped: watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    let _ = socket.set_nodelay(true);
    // Without an address the peer is gone already.
    let Ok(connection) = Connection::of(&socket, config.outbound_bytes_max) else { return };
    let span = debug_span!("connection", peer = %connection.peer());
    let drain = async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let service = Arc::clone(service);
    connections.spawn(drive(socket, connection, service, config.limits(), drain).instrument(span));
}

impl ServerConfig {
    fn limits(&self) -> Limits {
        Limits {
            frame_bytes_max: self.frame_bytes_max,
            idle: self.idle,
            inflight_max: self.inflight_max,
            outbound_bytes_max: self.outbound_bytes_max,
            drain: self.drain,
        }
    }
}

fn report(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done
        && error.is_panic()
    {
        error!(%error, "a connection's task failed");
    }
}

#[cfg(test)]
mod tests;
