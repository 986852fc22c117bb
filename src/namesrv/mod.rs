//! The name server: tells clients where topics are, as brokers registered them.
//!
//! Each name server stands alone: brokers register with all of them, and a client asks one. Nothing but kv config and
//! the settings is on disk. `Namesrv::answer` is the table of requests; `routes.rs` is what it is all about.

mod handlers;
mod kv;
mod process;
mod refusal;
mod routes;
mod serve;
mod settings;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tracing::{debug, warn};

use self::handlers::{broker, settings as config_requests, topic};
use self::kv::{KvStore, ORDER_TOPICS};
use self::refusal::Refusal;
use self::routes::{MinIdChange, RouteTable, UnitFilter};
use self::settings::Settings;
use crate::env::Clock;
use crate::remoting::header::RegisterBrokerResponseHeader;
use crate::remoting::{Answer, Command, Connection, RequestCode, ResponseCode, Service};

pub use process::run_main;
pub use serve::{Running, StartError, start};

/// The field in which brokers and clients name their zone.
const ZONE_NAME: &str = "__ZONE_NAME";
/// The field in which clients ask for brokers of their zone only.
const ZONE_MODE: &str = "__ZONE_MODE";

/// A registration longer than this is read on a thread of its own: some ten thousand topics take a hundred
/// milliseconds, in which no other connection would be served.
const LONG_BODY_BYTES: usize = 32 << 10;

/// Everything that a request can be about. Locks are held for moments and never while waiting; whoever needs two takes
/// `routes` before `kv`.
struct Namesrv {
    routes: Arc<RwLock<RouteTable>>,
    kv: KvStore,
    settings: Settings,
    /// Connections over which brokers registered, by id, to close those of silent ones.
    brokers: Mutex<HashMap<u64, Connection>>,
    /// Takes what brokers have to be told to the task that tells them.
    changes: mpsc::Sender<MinIdChange>,
    clock: Clock,
    started: Instant,
    /// Bounds the requests that are worked on at a time.
    turns: Semaphore,
}

impl Service for Namesrv {
    async fn call(&self, connection: &Connection, request: Command) -> Answer {
        let _turn = self.turns.acquire().await;
        match self.answer(connection, &request).await {
            Ok(response) => Answer::Now(response),
            Err(refusal) => {
                debug!(code = request.code, peer = %connection.peer(), %refusal, "refuse a request");
                Answer::Now(refusal.response())
            }
        }
    }

    fn closed(&self, connection: &Connection) {
        if self.brokers().remove(&connection.id()).is_some() {
            let changes = self.routes_mut().disconnected(connection.id());
            self.tell(changes);
        }
    }
}

impl Namesrv {
    /// Does what a request asks for. From here every request code leads to its handler.
    async fn answer(&self, connection: &Connection, request: &Command) -> Result<Command, Refusal> {
        use RequestCode as Code;
        let config = self.settings.current();
        let now_ms = self.clock.now_ms();
        let Some(code) = request.request_code() else { return Ok(Command::not_supported(request.code)) };
        match code {
            Code::PutKvConfig => handlers::kv::put(&self.kv, request).await,
            Code::GetKvConfig => handlers::kv::get(&self.kv, request),
            Code::DeleteKvConfig => handlers::kv::delete(&self.kv, request).await,
            Code::GetKvlistByNamespace => handlers::kv::list(&self.kv, request),

            Code::RegisterBroker => self.register_broker(connection, request).await,
            Code::UnregisterBroker => self.unregister_broker(request),
            Code::BrokerHeartbeat => broker::heartbeat(&mut self.routes_mut(), request, now_ms),
            Code::QueryDataVersion => broker::data_version(&mut self.routes_mut(), request, now_ms),
            Code::GetBrokerClusterInfo => Ok(broker::clusters(&self.routes())),
            Code::GetBrokerMemberGroup => broker::members(&self.routes(), request),
            Code::WipeWritePermOfBroker => broker::wipe_write_perm(&mut self.routes_mut(), request),
            Code::AddWritePermOfBroker => broker::add_write_perm(&mut self.routes_mut(), request),

            Code::GetRouteinfoByTopic => {
                let wait = Duration::from_secs(config.wait_seconds_for_service);
                if config.need_wait_for_service && self.clock.elapsed(self.started) < wait {
                    return Err(Refusal::NotReady);
                }
                topic::route(&self.routes(), &self.kv, &config, request)
            }
            Code::GetAllTopicListFromNameserver => topic::all(&self.routes(), &config),
            Code::GetTopicsByCluster => topic::of_cluster(&self.routes(), &config, request),
            Code::GetSystemTopicListFromNs => Ok(topic::system(&self.routes())),
            Code::GetUnitTopicList => topic::unit(&self.routes(), &config, UnitFilter::Unit),
            Code::GetHasUnitSubTopicList => topic::unit(&self.routes(), &config, UnitFilter::HasUnitSub),
            Code::GetHasUnitSubUnunitTopicList => {
                topic::unit(&self.routes(), &config, UnitFilter::HasUnitSubButNotUnit)
            }
            Code::RegisterTopicInNamesrv => topic::register(&mut self.routes_mut(), request),
            Code::DeleteTopicInNamesrv => topic::delete(&mut self.routes_mut(), request),

            Code::UpdateNamesrvConfig => config_requests::update(&self.settings, request).await,
            Code::GetNamesrvConfig => Ok(config_requests::get(&self.settings)),

            _ => Ok(Command::not_supported(request.code)),
        }
    }

    async fn register_broker(&self, connection: &Connection, request: &Command) -> Result<Command, Refusal> {
        let config = self.settings.current();
        // First of all, so that a connection that closes meanwhile finds it.
        self.brokers().insert(connection.id(), connection.clone());
        let register = {
            let (routes, request, connection) = (Arc::clone(&self.routes), request.clone(), connection.id());
            let (now_ms, replaces) = (self.clock.now_ms(), config.delete_topic_with_broker_registration);
            move || {
                let registration = broker::registration(&request, connection, now_ms, replaces)?;
                let registered = write(&routes).register(registration)?;
                Ok::<_, Refusal>(registered)
            }
        };
        let registered = if request.body.len() > LONG_BODY_BYTES {
            spawn_blocking(register).await.expect("reading a registration does not panic")?
        } else {
            register()?
        };
        self.tell(registered.change);
        let response = Command::response(ResponseCode::Success).with_header(&RegisterBrokerResponseHeader {
            ha_server_addr: registered.ha_address,
            master_addr: registered.master_address,
        });
        let order_topics =
            config.return_order_topic_config_to_broker.then(|| self.kv.read().list(ORDER_TOPICS));
        Ok(match order_topics.flatten() {
            Some(table) => response.with_json(&table),
            None => response,
        })
    }

    fn unregister_broker(&self, request: &Command) -> Result<Command, Refusal> {
        let (broker_name, member) = broker::leave(request)?;
        let change = self.routes_mut().unregister(&broker_name, &member);
        self.tell(change);
        Ok(Command::response(ResponseCode::Success))
    }

    /// Takes out silent brokers and closes their connections.
    fn expire(&self) {
        let interval_ms =
            i64::try_from(self.settings.current().scan_not_active_broker_interval).unwrap_or(5000);
        let expired = self.routes_mut().expire(self.clock.now_ms(), interval_ms);
        for id in expired.connections {
            // Its end takes out whoever else registered over it.
            if let Some(connection) = self.brokers().get(&id) {
                connection.close();
            }
        }
        self.tell(expired.changes);
    }

    /// Has brokers told of a new smallest id, if the settings ask for it.
    fn tell(&self, changes: impl IntoIterator<Item = MinIdChange>) {
        if !self.settings.current().notify_min_broker_id_changed {
            return;
        }
        for change in changes {
            if self.changes.try_send(change).is_err() {
                warn!("too many changes of the smallest broker id, leave one out");
            }
        }
    }

    fn routes(&self) -> RwLockReadGuard<'_, RouteTable> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes_mut(&self) -> RwLockWriteGuard<'_, RouteTable> {
        write(&self.routes)
    }

    fn brokers(&self) -> MutexGuard<'_, HashMap<u64, Connection>> {
        self.brokers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write(routes: &RwLock<RouteTable>) -> RwLockWriteGuard<'_, RouteTable> {
    routes.write().unwrap_or_else(PoisonError::into_inner)
}
