//! HTTP for those who watch: `/metrics`, `/livez`, `/readyz`.
//!
//! `metricsExporterType=PROM` opens `metricsPromExporterPort`, as in RocketMQ, and `healthPort` another one; every port
//! serves the same paths. Brokers of one process that name the same port share it: probes and scrapes then are about
//! all of them, and `node_id` tells their metrics apart. The ports are open before the stores are, so that a broker that
//! recovers for long is known to live.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::start::{Running, StartError};
use super::{Broker, health, metrics};
use crate::config::BrokerConfig;
use crate::metrics::{self as page, Page};

/// Connections to one port; more are closed at once. Probes and scrapers need a handful.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take to send a request, or may be idle between two.
const HEADER_WAIT: Duration = Duration::from_secs(75);
/// Pause after a connection that could not be taken, for lack of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";
const PATHS: &str = "/metrics\n/livez\n/readyz\n";

/// The HTTP ports of a process, and what they know of its brokers.
#[derive(Debug)]
pub struct Endpoints {
    members: Vec<Arc<Member>>,
    addresses: Vec<SocketAddr>,
    servers: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

/// A broker of the process.
#[derive(Debug)]
struct Member {
    name: String,
    /// `metricsExporterType=PROM`.
    exports: bool,
    samples_max: usize,
    state: Mutex<State>,
}

#[derive(Debug, Clone)]
enum State {
    /// Recovers its store, or is not begun.
    Starting,
    Running(Arc<Broker>),
    Stopping,
}

/// What one port serves.
#[derive(Debug)]
struct Site {
    members: Vec<Arc<Member>>,
    /// One scrape at a time: each looks at every queue of every group.
    scraping: tokio::sync::Mutex<()>,
}

/// A port that settings ask for, and the brokers whose settings they are.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    host: String,
    port: u16,
    members: Vec<usize>,
}

impl Endpoints {
    /// Opens the ports that the settings of a process's brokers ask for. None are, by default.
    pub async fn open(configs: &[&BrokerConfig]) -> Result<Self, StartError> {
        let members: Vec<_> = configs
            .iter()
            .map(|config| {
                Arc::new(Member {
                    name: config.broker_name.clone(),
                    exports: exports(config),
                    samples_max: config.metrics_otel_cardinality_limit,
                    state: Mutex::new(State::Starting),
                })
            })
            .collect();
        for config in
            configs.iter().filter(|config| !["DISABLE", "PROM"].contains(&&*config.metrics_exporter_type))
        {
            tracing::warn!(
                broker_name = config.broker_name,
                "metricsExporterType={}: only PROM is available; no metrics are exported",
                config.metrics_exporter_type
            );
        }
        let (stop, stopping) = watch::channel(false);
        let mut endpoints = Self { members, addresses: Vec::new(), servers: Vec::new(), stop };
        for wanted in wanted(configs) {
            let address = format!("{}:{}", wanted.host, wanted.port);
            let failed = |source| StartError::Listen { address: address.clone(), source };
            let listener = TcpListener::bind(&address).await.map_err(failed)?;
            let local = listener.local_addr().map_err(failed)?;
            let members = wanted.members.iter().map(|member| Arc::clone(&endpoints.members[*member]));
            let site = Arc::new(Site { members: members.collect(), scraping: tokio::sync::Mutex::default() });
            tracing::info!(address = %local, "HTTP: /metrics /livez /readyz");
            endpoints.addresses.push(local);
            endpoints.servers.push(tokio::spawn(serve(listener, site, stopping.clone())));
        }
        Ok(endpoints)
    }

    /// Returns the addresses that are listened on.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Notes that the broker of the settings number `index` serves.
    pub fn started(&self, index: usize, broker: &Running) {
        self.members[index].set(State::Running(Arc::clone(broker.broker())));
    }

    /// Notes that the brokers are about to stop: none is ready from here on.
    pub fn stopping(&self) {
        for member in &self.members {
            member.set(State::Stopping);
        }
    }

    /// Closes the ports.
    pub async fn close(self) {
        self.stop.send_replace(true);
        for server in self.servers {
            let _ = server.await;
        }
    }
}

impl Member {
    fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn live(&self) -> Result<String, String> {
        match self.state() {
            State::Starting => Ok("starting".into()),
            State::Running(broker) => health::live(&broker.context),
            State::Stopping => Ok("stopping".into()),
        }
    }

    async fn ready(&self) -> Result<String, String> {
        match self.state() {
            State::Starting => Err("starting".into()),
            State::Running(broker) => health::ready(&broker.context).await,
            State::Stopping => Err("stopping".into()),
        }
    }
}

impl Site {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET only\n".into());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => self.metrics().await,
            "/livez" => self.report(self.members.iter().map(|member| member.live()).collect()),
            "/readyz" => {
                // At the same time, so that a process with several groups answers as soon as one with one.
                self.report(join_all(self.members.iter().map(|member| member.ready())).await)
            }
            "/" => respond(StatusCode::OK, PLAIN, PATHS.into()),
            _ => respond(StatusCode::NOT_FOUND, PLAIN, format!("there is:\n{PATHS}")),
        }
    }

    /// One line for each broker; all of them have to be well.
    fn report(&self, states: Vec<Result<String, String>>) -> Response<Full<Bytes>> {
        let status = match states.iter().all(Result::is_ok) {
            true => StatusCode::OK,
            false => StatusCode::SERVICE_UNAVAILABLE,
        };
        let mut text = String::new();
        for (member, state) in self.members.iter().zip(states) {
            let (word, state) = match state {
                Ok(state) => ("ok", state),
                Err(reason) => ("failed", reason),
            };
            text.push_str(&format!("{}: {word}: {state}\n", member.name));
        }
        respond(status, PLAIN, text)
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let exporting: Vec<_> = self.members.iter().filter(|member| member.exports).cloned().collect();
        if exporting.is_empty() {
            let text = "metricsExporterType=PROM in the broker's settings turns metrics on\n";
            return respond(StatusCode::NOT_FOUND, PLAIN, text.into());
        }
        let _one_at_a_time = self.scraping.lock().await;
        let collected = tokio::task::spawn_blocking(move || {
            let samples_max = exporting.iter().map(|member| member.samples_max).max().unwrap_or_default();
            let mut page = Page::new(samples_max);
            for member in exporting {
                if let State::Running(broker) = member.state() {
                    metrics::collect(&broker, &mut page);
                }
            }
            page.text()
        });
        match collected.await {
            Ok(text) => respond(StatusCode::OK, page::CONTENT_TYPE, text),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be collected");
                respond(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n"))
            }
        }
    }
}

fn respond(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn exports(config: &BrokerConfig) -> bool {
    config.metrics_exporter_type == "PROM"
}

/// Returns the ports to open, each once. Where one host of a port stands for all addresses it stands for the other
/// hosts, too, as both could not be listened on.
fn wanted(configs: &[&BrokerConfig]) -> Vec<Wanted> {
    let asked: Vec<(&str, u16, usize)> = configs
        .iter()
        .enumerate()
        .flat_map(|(member, config)| ports_of(config).map(move |(host, port)| (host, port, member)))
        .collect();
    let mut all: Vec<Wanted> = Vec::new();
    for (host, port, member) in &asked {
        let any = asked.iter().find(|(host, other, _)| other == port && is_any(host));
        let host = any.map_or(*host, |(any, ..)| *any);
        match all.iter_mut().find(|known| known.port == *port && known.host == host) {
            Some(known) if known.members.contains(member) => {}
            Some(known) => known.members.push(*member),
            None => all.push(Wanted { host: host.to_owned(), port: *port, members: vec![*member] }),
        }
    }
    all
}

/// Returns the hosts and ports that a broker's settings ask for.
fn ports_of(config: &BrokerConfig) -> impl Iterator<Item = (&str, u16)> {
    let exporter = exports(config).then(|| {
        let host = config.metrics_prom_exporter_host.trim();
        // As Java's, which takes brokerIP1 if the host is blank.
        (if host.is_empty() { config.broker_ip1.as_str() } else { host }, config.metrics_prom_exporter_port)
    });
    let health = (config.health_port != 0).then_some((config.bind_address.as_str(), config.health_port));
    exporter.into_iter().chain(health)
}

fn is_any(host: &str) -> bool {
    matches!(host, "0.0.0.0" | "::" | "[::]")
}

async fn serve(listener: TcpListener, site: Arc<Site>, mut stop: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "HTTP connection not taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if connections.len() < CONNECTIONS_MAX {
            let site = Arc::clone(&site);
            connections.spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let site = Arc::clone(&site);
                    async move { Ok::<_, Infallible>(site.answer(&request).await) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_WAIT)
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
                if let Err(error) = served {
                    tracing::debug!(%error, "HTTP connection ended");
                }
            });
        }
    }
    connections.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(port: u16, host: &str, health_port: u16) -> BrokerConfig {
        BrokerConfig {
            metrics_exporter_type: if port == 0 { "DISABLE" } else { "PROM" }.into(),
            metrics_prom_exporter_port: port,
            metrics_prom_exporter_host: host.into(),
            broker_ip1: "10.0.0.1".into(),
            health_port,
            ..BrokerConfig::default()
        }
    }

    fn ports(configs: &[BrokerConfig]) -> Vec<(String, Vec<usize>)> {
        let configs: Vec<_> = configs.iter().collect();
        let ports = wanted(&configs).into_iter();
        ports.map(|port| (format!("{}:{}", port.host, port.port), port.members)).collect()
    }

    #[test]
    fn nothing_is_opened_by_default() {
        assert_eq!(ports(&[BrokerConfig::default()]), []);
        assert!(!exports(&BrokerConfig { metrics_exporter_type: "LOG".into(), ..BrokerConfig::default() }));
    }

    #[test]
    fn the_address_of_the_metrics_is_javas() {
        assert_eq!(ports(&[config(5557, "", 0)]), [("10.0.0.1:5557".into(), vec![0])]);
        assert_eq!(ports(&[config(5557, "127.0.0.1", 0)]), [("127.0.0.1:5557".into(), vec![0])]);
    }

    #[test]
    fn brokers_of_a_process_share_a_port() {
        assert_eq!(
            ports(&[config(5557, "", 0), config(5557, "", 8080), config(5558, "", 8080)]),
            [
                ("10.0.0.1:5557".into(), vec![0, 1]),
                ("0.0.0.0:8080".into(), vec![1, 2]),
                ("10.0.0.1:5558".into(), vec![2])
            ]
        );
    }

    #[test]
    fn one_port_can_serve_both() {
        assert_eq!(ports(&[config(5557, "", 5557)]), [("0.0.0.0:5557".into(), vec![0])]);
        assert_eq!(ports(&[config(0, "", 5557), config(5557, "", 0)]), [("0.0.0.0:5557".into(), vec![0, 1])]);
        assert_eq!(
            ports(&[config(5557, "", 0), config(5557, "127.0.0.1", 0), config(0, "", 5557)]),
            [("0.0.0.0:5557".into(), vec![0, 1, 2])]
        );
    }
}
