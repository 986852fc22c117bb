//! What is looked at all the time while faults happen: the route, and reads that must not be stale.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::remoting::body::TopicRouteData;
use quorate::remoting::{Client, ClientConfig, Command, RequestCode, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::group::RaftGroup;
use super::load::{Ledger, TOPIC};
use crate::harness::{offset, queue_request, wait};

/// The pace of looking.
const PACE: Duration = Duration::from_millis(5);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Follows who the name server says is broker 0.
pub(crate) struct RouteWatch {
    /// Each change, and when it was seen.
    seen: Arc<Mutex<Vec<(Instant, String)>>>,
    task: JoinHandle<()>,
}

impl RouteWatch {
    pub(crate) fn start(group: &RaftGroup) -> Self {
        Self::start_at(group.namesrv_addr)
    }

    /// Asks another name server than ours.
    pub(crate) fn start_at(namesrv: SocketAddr) -> Self {
        let seen = Arc::new(Mutex::new(Vec::<(Instant, String)>::new()));
        let (namesrv, changes) = (namesrv.to_string(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let client = Client::new(ClientConfig::default());
            loop {
                let request = Command::request(RequestCode::GetRouteinfoByTopic).with_field("topic", TOPIC);
                let answer = client.call(&namesrv, request, PATIENCE).await.expect("the name server answers");
                if answer.code == 0 {
                    let route: TopicRouteData = json::from_slice(&answer.body.to_bytes()).expect("a route");
                    let master = route.broker_datas.first().and_then(|group| group.broker_addrs.get(&0));
                    let mut changes = changes.lock().unwrap();
                    if let Some(master) = master
                        && changes.last().is_none_or(|(_, last)| last != master)
                    {
                        changes.push((Instant::now(), master.clone()));
                    }
                }
                tokio::time::sleep(PACE).await;
            }
        });
        Self { seen, task }
    }

    /// Waits until the route is one other than `old`, and returns how long after `start` it was.
    pub(crate) async fn left(&self, old: &str, start: Instant) -> Duration {
        wait("another leader in the route", async || {
            let seen = self.seen.lock().unwrap();
            let (at, _) = seen.iter().find(|(at, master)| *at >= start && master != old)?;
            Some(*at - start)
        })
        .await
    }

    /// Ends it. The route must have gone through the leaders in the order of their terms.
    pub(crate) fn end(self, leaders: &BTreeMap<u64, String>) {
        self.task.abort();
        let seen = self.seen.lock().unwrap();
        let mut terms = leaders.iter().peekable();
        for (_, master) in seen.iter() {
            let next = terms.by_ref().find(|(_, leader)| *leader == master);
            assert!(next.is_some(), "the route went back to {master}: {seen:?}, leaders {leaders:?}");
        }
    }
}

/// Reads of what only the leader may answer, at every replica, and commits beside them: no answer may be older than
/// what was acknowledged when the question was asked.
pub(crate) struct ReadWatch {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    reads: Arc<AtomicI64>,
    stale: Arc<Mutex<Vec<String>>>,
}

impl ReadWatch {
    pub(crate) fn start(group: &RaftGroup, ledger: &Arc<Ledger>) -> Self {
        let (stop, stopping) = watch::channel(false);
        let committed = Arc::<Commits>::default();
        let (reads, stale) = (Arc::<AtomicI64>::default(), Arc::<Mutex<Vec<String>>>::default());
        let addresses = group.addresses();
        let mut tasks =
            vec![tokio::spawn(commit(addresses.clone(), Arc::clone(&committed), stopping.clone()))];
        for address in addresses {
            let reader = Reader {
                client: Client::new(ClientConfig { connect_timeout: PATIENCE, ..ClientConfig::default() }),
                address,
                committed: Arc::clone(&committed),
                ledger: Arc::clone(ledger),
                reads: Arc::clone(&reads),
                stale: Arc::clone(&stale),
            };
            tasks.push(tokio::spawn(reader.run(stopping.clone())));
        }
        Self { stop, tasks, reads, stale }
    }

    /// Ends it; no read may have been stale.
    pub(crate) async fn end(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.expect("a reader does not panic");
        }
        let stale = self.stale.lock().unwrap();
        let reads = self.reads.load(Ordering::Relaxed);
        assert!(reads > 0, "nothing was read");
        assert!(
            stale.is_empty(),
            "{} of {reads} reads were stale: {:#?}",
            stale.len(),
            &stale[..stale.len().min(10)]
        );
    }
}

fn question(code: RequestCode) -> Command {
    queue_request(code, TOPIC, 0).with_field("consumerGroup", "Watched")
}

/// What was committed by [`commit`].
#[derive(Debug, Default)]
struct Commits {
    /// The largest that was acknowledged.
    acknowledged: AtomicI64,
    /// Those that were not: a request to a host that was cut off may arrive when it is back.
    unanswered: Mutex<BTreeSet<i64>>,
}

/// Commits ever larger offsets, at one replica after the other.
async fn commit(addresses: Vec<String>, committed: Arc<Commits>, stop: watch::Receiver<bool>) {
    let client = Client::new(ClientConfig { connect_timeout: PATIENCE, ..ClientConfig::default() });
    let mut at = 0;
    for value in 1.. {
        if *stop.borrow() {
            return;
        }
        let request =
            question(RequestCode::UpdateConsumerOffset).with_field("commitOffset", value.to_string());
        match client.call(&addresses[at], request, PATIENCE).await {
            Ok(answer) if answer.code == 0 => committed.acknowledged.store(value, Ordering::SeqCst),
            _ => {
                committed.unanswered.lock().unwrap().insert(value);
                at = (at + 1) % addresses.len();
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

struct Reader {
    client: Client,
    address: String,
    committed: Arc<Commits>,
    ledger: Arc<Ledger>,
    reads: Arc<AtomicI64>,
    stale: Arc<Mutex<Vec<String>>>,
}

impl Reader {
    async fn run(self, stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            let floor = self.committed.acknowledged.load(Ordering::SeqCst);
            if let Some(found) = self.read(question(RequestCode::QueryConsumerOffset)).await
                && !self.committed.unanswered.lock().unwrap().contains(&found)
            {
                self.compare("the committed offset", found, floor);
            }
            let floor = i64::try_from(self.ledger.end_of(0)).expect("an offset");
            if let Some(found) = self.read(question(RequestCode::GetMaxOffset)).await {
                self.compare("the end of the queue", found, floor);
            }
            tokio::time::sleep(PACE).await;
        }
    }

    async fn read(&self, request: Command) -> Option<i64> {
        let answer = self.client.call(&self.address, request, PATIENCE).await.ok()?;
        let found = match answer.code {
            0 => offset(&answer),
            // QUERY_NOT_FOUND: there is none.
            22 => 0,
            _ => return None,
        };
        self.reads.fetch_add(1, Ordering::Relaxed);
        Some(found)
    }

    fn compare(&self, what: &str, found: i64, floor: i64) {
        if found < floor {
            let text = format!("{what} at {}: {found}, but {floor} was acknowledged", self.address);
            self.stale.lock().unwrap().push(text);
        }
    }
}
