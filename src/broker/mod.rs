//! The broker: what clients and operators ask of a replica.
//!
//! `dispatch` is the table of request codes; one file per verb of a client.

mod attributes;
mod call_client;
mod cleaning;
mod clients;
mod commits;
mod connections;
mod context;
mod delay;
mod dispatch;
mod forward;
mod group_admin;
mod group_settings;
mod groups;
mod ha;
mod health;
mod heartbeat;
mod hold;
mod http;
mod locks;
mod metrics;
mod offsets;
mod process;
mod progress;
mod pull;
mod query;
mod register;
mod reply;
mod request_reply;
mod reset;
mod resets;
mod response;
mod roles;
mod runtime;
mod send;
mod send_back;
mod settings;
mod start;
mod stats;
mod suggest;
mod topics;

use std::sync::Arc;

pub use http::Endpoints;
pub use process::run_main;
pub use start::{Running, StartError, start};

use clients::Clients;
use commits::Commits;
use context::Context;
use forward::Forward;
use locks::Locks;
use pull::Pulls;
use resets::Resets;
use settings::Settings;
use stats::Stats;

use crate::remoting::{Answer, Command, Connection, Service};

/// One broker of this process.
#[derive(Debug)]
struct Broker {
    context: Arc<Context>,
    clients: Arc<Clients>,
    locks: Locks,
    resets: Arc<Resets>,
    settings: Arc<Settings>,
    stats: Arc<Stats>,
    pulls: Arc<Pulls>,
    commits: Arc<Commits>,
    forward: Forward,
}

/// The remoting service of a broker, on one of its two ports.
struct BrokerService {
    broker: Arc<Broker>,
    port: Port,
}

/// Which port a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    /// `listenPort`: everything.
    Main,
    /// `listenPort` - 2, for sends and administration: pulls are refused, so that they never keep a send waiting.
    Fast,
}

impl Service for BrokerService {
    async fn call(&self, connection: &Connection, request: Command) -> Answer {
        use crate::remoting::RequestCode::{LitePullMessage, PullMessage};
        let is_pull = matches!(request.request_code(), Some(PullMessage | LitePullMessage));
        if self.port == Port::Fast && is_pull {
            return Answer::Now(response::Error::UnknownRequest(request.code).into());
        }
        dispatch::dispatch(&self.broker, connection, request).await
    }

    fn closed(&self, connection: &Connection) {
        for changed in self.broker.clients.closed(connection) {
            heartbeat::notify(&self.broker.context, &changed);
        }
    }
}
