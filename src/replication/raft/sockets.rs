//! Where the connections between replicas come from: sockets, or in a simulation its network.

use std::io;
#[cfg(test)]
use std::sync::Arc;

use tokio::net::TcpListener;
use tonic::transport::{Channel, Endpoint};

#[cfg(test)]
use super::tests::sim::net;

/// Makes connections. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) enum Sockets {
    #[default]
    Tcp,
    /// The place of one replica in a network.
    #[cfg(test)]
    Simulated(Arc<net::Host>),
}

/// Takes connections in.
pub(super) enum Listener {
    Tcp(TcpListener),
    #[cfg(test)]
    Simulated(net::Incoming),
}

impl Sockets {
    pub(super) async fn listen(&self, address: &str) -> io::Result<Listener> {
        match self {
            Self::Tcp => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
            #[cfg(test)]
            Self::Simulated(host) => Ok(Listener::Simulated(host.listen(address)?)),
        }
    }

    /// Returns a channel that connects when it is first used, and again when the connection has broken.
    pub(super) fn channel(&self, endpoint: &Endpoint) -> Channel {
        match self {
            Self::Tcp => endpoint.connect_lazy(),
            #[cfg(test)]
            Self::Simulated(host) => endpoint.connect_with_connector_lazy(net::Connector::new(host)),
        }
    }
}
