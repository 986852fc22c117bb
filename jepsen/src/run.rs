//! One run: a cluster, workloads, a plan of faults, and what came of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use quorate::remoting::{Command, RequestCode};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::checker::{self, Findings, progress, routes};
use crate::client;
use crate::cluster::{self, Cluster, NAMESRVS, Options, poll};
use crate::history::{Histories, Kind as OpKind, Op, Value, Workload};
use crate::nemesis::{HEALTH_LIMIT, Nemesis, Window};
use crate::plan::{self, Fault, Kind};
use crate::report::{self, Picture};
use crate::sys;
use crate::workload::{Context, Servers, log, queue, register, routes as route_watch};

/// How often the observer asks each replica.
const SAMPLE_PACE: Duration = Duration::from_millis(50);
/// Time without faults before and after the plan.
const QUIET: Duration = Duration::from_secs(4);
/// Changes of the leader in ten minutes of light loss.
const LIGHT_LOSS_CHANGES_MAX: usize = 1;
/// How long push consumers may take to get everything when all is well again.
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);

/// What a run is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// How long faults are begun.
    pub(crate) length_ms: u64,
    pub(crate) workloads: Vec<Workload>,
    pub(crate) kinds: Vec<Kind>,
    /// Milliseconds between two sends of one sender.
    pub(crate) pace_ms: u64,
    /// A build of the servers with a mistake, and which one.
    pub(crate) known_bad: Option<String>,
    /// Settings of all brokers, `key=value`.
    pub(crate) settings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Pass,
    /// Something was wrong.
    Fail,
    /// Nothing was wrong, but not everything was tried that should have been.
    Unknown,
}

impl Verdict {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Outcome {
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    pub(crate) spec: Spec,
    pub(crate) folder: String,
    /// What was run: its commit.
    pub(crate) program: String,
    pub(crate) findings: Findings,
    pub(crate) not_covered: Vec<String>,
    pub(crate) counts: BTreeMap<&'static str, serde_json::Value>,
    pub(crate) windows: Vec<Window>,
    pub(crate) recoveries: Vec<(Kind, f64)>,
    pub(crate) leader_changes: usize,
    /// Longest time in seconds in which nobody was acknowledged although a majority was well.
    pub(crate) longest_stall: f64,
    pub(crate) acknowledged: usize,
    pub(crate) seconds: f64,
}

impl Outcome {
    pub(crate) fn effective_faults(&self) -> usize {
        self.windows.iter().filter(|window| window.ineffective.is_none()).count()
    }
}

/// Programs and libraries that runs use.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    /// Where `mqbroker` and `mqnamesrv` are.
    pub(crate) programs: PathBuf,
    /// Class path of the Java worker.
    pub(crate) java: Option<String>,
    /// The second opinion on registers.
    pub(crate) porcupine: PathBuf,
    /// The commit of the programs.
    pub(crate) commit: String,
}

/// Runs; everything goes into `folder`.
pub(crate) fn run(spec: &Spec, plan: Option<Vec<Fault>>, folder: &Path, tools: &Tools) -> Result<Outcome> {
    fs::create_dir_all(folder)?;
    let plan = plan.unwrap_or_else(|| plan::draw(&spec.kinds, spec.length_ms, spec.seed));
    fs::write(folder.join("spec.json"), serde_json::to_vec_pretty(spec)?)?;
    fs::write(folder.join("plan.json"), serde_json::to_vec_pretty(&plan)?)?;
    // Namespaces belong to threads: this one and its children become the observer.
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let options = Options {
                nodes: spec.nodes,
                programs: tools.programs.clone(),
                settings: spec.settings.clone(),
                clocks: plan.iter().any(|fault| fault.kind.needs_clocks()),
                fiu: plan.iter().any(|fault| fault.kind == Kind::SyncError),
                disks: plan.iter().any(|fault| fault.kind.needs_disks()),
                known_bad: spec.known_bad.clone(),
            };
            let cluster = Cluster::prepare(folder, options, spec.seed)?;
            sys::enter_namespace(&cluster.net.namespace(cluster.hosts().observer()))?;
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            let done = runtime.block_on(carry_out(spec, &plan, folder, tools, cluster));
            runtime.shutdown_timeout(Duration::from_secs(5));
            done
        });
        run.join().map_err(|_| anyhow::anyhow!("the run panicked"))?
    })
    .inspect(|outcome| {
        if outcome.verdict != Verdict::Fail {
            remove_data(folder);
        }
    })
}

/// Removes what servers stored: histories, logs and results stay.
fn remove_data(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_server = name.starts_with(['n', 's']) && name[1..].parse::<u32>().is_ok();
        if is_server {
            let _ = fs::remove_dir_all(entry.path());
        } else if name.ends_with(".clock") || name.ends_with(".img") || name.starts_with("fiu") {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Clients in a thread of their own, on the host of clients.
struct Clients {
    thread: std::thread::JoinHandle<Result<()>>,
    stop: watch::Sender<bool>,
}

impl Clients {
    fn start(spec: &Spec, namespace: String, histories: &Arc<Histories>, servers: &Arc<Servers>) -> Self {
        let (stop, stopping) = watch::channel(false);
        let context =
            Context { histories: Arc::clone(histories), servers: Arc::clone(servers), stop: stopping };
        let spec = spec.clone();
        let thread = std::thread::spawn(move || {
            sys::enter_namespace(&namespace)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run_clients(&spec, &context));
            Ok(())
        });
        Self { thread, stop }
    }

    async fn stop(self) -> Result<()> {
        self.stop.send_replace(true);
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await?;
        joined.map_err(|_| anyhow::anyhow!("a client panicked"))?
    }
}

async fn run_clients(spec: &Spec, context: &Context) {
    let local = tokio::task::LocalSet::new();
    for workload in &spec.workloads {
        match workload {
            Workload::Log => {
                for queue in 0..log::QUEUES {
                    let pace = Duration::from_millis(spec.pace_ms);
                    local.spawn_local(log::send(context.clone(), queue, pace));
                }
                for node in 0..spec.nodes {
                    local.spawn_local(log::read(context.clone(), node));
                }
            }
            Workload::Topics | Workload::Kv | Workload::Offsets => {
                let shared = Arc::new(register::Shared::default());
                for client in 0..register::CLIENTS {
                    let seed = spec.seed ^ (client << 8) ^ *workload as u64;
                    let run = register::run(context.clone(), *workload, Arc::clone(&shared), seed);
                    local.spawn_local(run);
                }
            }
            Workload::Routes => {
                for namesrv in 0..NAMESRVS {
                    local.spawn_local(route_watch::watch(context.clone(), namesrv));
                }
            }
            Workload::Queue | Workload::Nemesis => {}
        }
    }
    local.await;
}

async fn carry_out(
    spec: &Spec,
    plan: &[Fault],
    folder: &Path,
    tools: &Tools,
    cluster: Cluster,
) -> Result<Outcome> {
    for node in 0..cluster.brokers() {
        cluster.set_clock(node, "+0")?;
    }
    for namesrv in 0..NAMESRVS {
        cluster.start_namesrv(namesrv).await?;
    }
    let started = (0..spec.nodes).map(|node| cluster.start_broker(node));
    futures_util::future::try_join_all(started).await?;
    cluster.healthy(HEALTH_LIMIT).await?;
    make_topics(&cluster).await?;

    let histories = Arc::new(Histories::new());
    let servers = Arc::new(Servers {
        brokers: (0..spec.nodes).map(|node| cluster.broker_address(node)).collect(),
        namesrvs: (0..NAMESRVS).map(|namesrv| cluster.namesrv_address(namesrv)).collect(),
    });
    let namespace = cluster.net.namespace(cluster.hosts().rust());
    let clients = Clients::start(spec, namespace, &histories, &servers);
    let (stop_java, java_stopping) = watch::channel(false);
    let (drained, draining) = watch::channel(false);
    let context = Context { histories: Arc::clone(&histories), servers, stop: java_stopping };
    let mut workers = tokio::task::JoinSet::new();
    if let (true, Some(class_path)) = (spec.workloads.contains(&Workload::Queue), &tools.java) {
        let java = queue::Java {
            class_path: class_path.clone(),
            prefix: cluster.net.prefix(cluster.hosts().java()),
            namesrvs: cluster.namesrv_addresses(),
            log: folder.join("logs/java.log"),
        };
        let pace = Duration::from_millis(spec.pace_ms * 2);
        workers.spawn(queue::produce(context.clone(), java.clone(), 0, pace));
        for _ in 0..2 {
            workers.spawn(queue::consume(context.clone(), java.clone(), draining.clone()));
        }
    }
    let cluster = Arc::new(cluster);
    let samples = Arc::new(Mutex::new(Vec::new()));
    let observer = tokio::spawn(observe(Arc::clone(&cluster), Arc::clone(&histories), Arc::clone(&samples)));

    tokio::time::sleep(QUIET).await;
    let from = histories.now();
    let nemesis = Arc::new(Nemesis::new(Arc::clone(&cluster), Arc::clone(&histories)));
    nemesis.run(plan).await;
    nemesis.heal().await;
    let mut findings = Findings::default();
    // What is broken already needs no patience.
    let limit = if nemesis.result().1.is_empty() { HEALTH_LIMIT } else { Duration::from_secs(20) };
    let healthy = cluster.healthy(limit).await;
    if let Err(error) = &healthy {
        findings.add("does not recover", format!("{error:#}; {:?}", cluster.statuses().await));
    }
    let (limit, tries) = if healthy.is_ok() { (limit, 20) } else { (Duration::from_secs(5), 1) };
    tokio::time::sleep(QUIET).await;
    let to = histories.now();
    clients.stop().await?;
    stop_java.send_replace(true);
    let settled = settled(&cluster, limit).await;
    let end = settled.as_ref().copied().unwrap_or(0);
    if let Err(error) = settled {
        findings.add("replicas do not settle", format!("{error:#}"));
    }
    let mut replicas = Vec::new();
    // What one replica has deleted as its disk was full, another one has.
    let mut drained_ids = BTreeMap::new();
    let queue_ends = queue_ends(&cluster, limit).await.unwrap_or_else(|error| {
        findings.add("cannot be read", format!("{error:#}"));
        vec![0; queue::QUEUES as usize]
    });
    let ends = ends(&histories.of(Workload::Log));
    for node in 0..spec.nodes {
        let address = cluster.broker_address(node);
        match log::read_all(&address, log::TOPIC, &ends, tries).await {
            Ok(stored) => {
                let ids =
                    |(offset, body): (u64, Vec<u8>)| (offset, log::id_of(&body).unwrap_or(log::DAMAGED));
                replicas.push((
                    node,
                    stored.into_iter().map(|queue| queue.into_iter().map(ids).collect()).collect(),
                ));
            }
            Err(error) => findings.add("cannot be read", error),
        }
        match log::read_all(&address, queue::TOPIC, &queue_ends, tries).await {
            Ok(stored) => {
                for (queue, messages) in stored.into_iter().enumerate() {
                    for (offset, body) in messages {
                        let id = String::from_utf8(body).ok().and_then(|text| text.parse::<u64>().ok());
                        drained_ids.insert((queue, offset), id.unwrap_or(u64::MAX));
                    }
                }
            }
            Err(error) => findings.add("cannot be read", error),
        }
    }
    let begins_late = |(queue, end): (usize, &u64)| {
        let first = drained_ids.range((queue, 0)..(queue + 1, 0)).next();
        first.map_or(*end, |((_, first), _)| *first) > 0
    };
    let shortened = queue_ends.iter().enumerate().any(begins_late);
    let drained_ids = checker::queue::Drained { ids: drained_ids.into_values().collect(), shortened };
    let mut not_covered = Vec::new();
    if !workers.is_empty() {
        wait_for_delivery(&histories, &drained_ids.ids, if healthy.is_ok() { DELIVERY_LIMIT } else { limit })
            .await;
        drained.send_replace(true);
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended? {
                not_covered.push(format!("a Java client: {error:#}"));
            }
        }
    }
    observer.abort();
    for node in 0..spec.nodes {
        if cluster.is_running(node)
            && let Err(error) = cluster.terminate_broker(node).await
        {
            findings.add("does not stop", format!("{error:#}"));
        }
    }
    let stores: Vec<_> = (0..spec.nodes).map(|node| (node, cluster.store(node))).collect();
    if let Err(error) = checker::identity::check(&stores, end, &mut findings) {
        // A replica that was wiped and is not back has no log.
        findings.add("logs cannot be compared", error.to_string());
    }

    let (windows, wrong) = nemesis.result();
    wrong.into_iter().for_each(|text| findings.add("wrong", text));
    let samples = std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner));
    let checked = Checked { spec, tools, folder, plan, histories: &histories, cluster: &cluster };
    checked.conclude(findings, not_covered, windows, samples, replicas, &drained_ids, (from, to))
}

/// Everything that the checkers look at.
struct Checked<'a> {
    spec: &'a Spec,
    tools: &'a Tools,
    folder: &'a Path,
    plan: &'a [Fault],
    histories: &'a Histories,
    cluster: &'a Cluster,
}

impl Checked<'_> {
    #[expect(clippy::too_many_arguments, reason = "what a run has brought")]
    fn conclude(
        &self,
        mut findings: Findings,
        mut not_covered: Vec<String>,
        windows: Vec<Window>,
        samples: Vec<routes::Sample>,
        replicas: Vec<(usize, checker::log::Stored)>,
        drained: &checker::queue::Drained,
        (from, to): (Duration, Duration),
    ) -> Result<Outcome> {
        let spec = self.spec;
        let mut counts = BTreeMap::new();
        let mut acknowledged = 0;
        let (mut recoveries, mut longest_stall) = (Vec::new(), 0.0);
        let mut sends = Vec::new();
        for workload in &spec.workloads {
            let ops = self.histories.of(*workload);
            let done = ops.iter().filter(|op| op.kind == OpKind::Ok).count();
            acknowledged += done;
            if done == 0 {
                not_covered.push(format!("workload {}: nothing was acknowledged", workload.name()));
            }
            let history = self.folder.join(format!("history-{}.edn", workload.name()));
            fs::write(&history, self.histories.edn(*workload))?;
            let counted = match workload {
                Workload::Log => {
                    sends = latencies(&ops);
                    let acked = progress::acknowledged(&sends);
                    longest_stall = progress::check(&acked, &windows, spec.nodes, from, to, &mut findings);
                    recoveries = progress::recovery_times(&acked, &windows);
                    serde_json::to_value(checker::log::check(&ops, &replicas, &mut findings))?
                }
                Workload::Queue => serde_json::to_value(checker::queue::check(&ops, drained, &mut findings))?,
                Workload::Topics | Workload::Kv | Workload::Offsets => {
                    let counted = checker::register::check(&ops, &mut findings);
                    if counted.undecided > 0 {
                        not_covered.push(format!(
                            "{}: {} keys undecided",
                            workload.name(),
                            counted.undecided
                        ));
                    }
                    self.ask_porcupine(*workload, &history, &mut findings, &mut not_covered)?;
                    serde_json::to_value(counted)?
                }
                Workload::Routes => serde_json::Value::Null,
                Workload::Nemesis => continue,
            };
            counts.insert(workload.name(), counted);
        }
        let printed = self.printed_leaders(&mut findings)?;
        let ops = self.histories.of(Workload::Routes);
        let routes = routes::check(&printed, &samples, &ops, NAMESRVS, &mut findings);
        self.check_route_delays(&routes, &windows, &mut findings);
        let leader_changes = routes.leader_changes;
        if spec.kinds == [Kind::LightLoss] && leader_changes > LIGHT_LOSS_CHANGES_MAX {
            findings.add("flapping", format!("{leader_changes} changes of the leader under light loss"));
        }
        counts.insert("routes", serde_json::to_value(routes)?);
        for kind in self.kinds() {
            let tried = windows.iter().filter(|window| window.fault.kind == kind).count();
            let effective =
                windows.iter().filter(|window| window.fault.kind == kind && window.ineffective.is_none());
            if effective.count() == 0 {
                let reason = windows
                    .iter()
                    .find(|window| window.fault.kind == kind)
                    .and_then(|window| window.ineffective.clone())
                    .unwrap_or_default();
                not_covered.push(format!("{}: none of {tried} took effect: {reason}", kind.name()));
            }
        }
        let verdict = match (findings.0.is_empty(), not_covered.is_empty()) {
            (false, _) => Verdict::Fail,
            (true, false) => Verdict::Unknown,
            (true, true) => Verdict::Pass,
        };
        let outcome = Outcome {
            name: spec.name.clone(),
            verdict,
            spec: spec.clone(),
            folder: self.folder.display().to_string(),
            program: self.tools.commit.clone(),
            findings,
            not_covered,
            counts,
            windows,
            recoveries,
            leader_changes,
            longest_stall,
            acknowledged,
            seconds: (to - from).as_secs_f64(),
        };
        fs::write(self.folder.join("results.json"), serde_json::to_vec_pretty(&outcome)?)?;
        fs::write(self.folder.join("results.edn"), crate::edn::of(&serde_json::to_value(&outcome)?))?;
        let picture = Picture {
            title: format!("{}, seed {}: {}", spec.name, spec.seed, verdict.name()),
            length: to,
            nodes: spec.nodes,
            windows: outcome.windows.clone(),
            sends,
            samples,
        };
        report::write(self.folder, &outcome, &picture)?;
        Ok(outcome)
    }

    /// Has porcupine judge the same history.
    fn ask_porcupine(
        &self,
        workload: Workload,
        history: &Path,
        findings: &mut Findings,
        not_covered: &mut Vec<String>,
    ) -> Result<()> {
        let picture = self.folder.join(format!("porcupine-{}.html", workload.name()));
        let output = std::process::Command::new(&self.tools.porcupine).arg(history).arg(picture).output()?;
        let (said, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        match output.status.code() {
            Some(0) => {}
            Some(1) => findings.add("not linearizable, says porcupine", said.into_owned()),
            _ => not_covered.push(format!("porcupine does not decide: {said}{errors}")),
        }
        Ok(())
    }

    fn kinds(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.plan.iter().map(|fault| fault.kind).collect();
        kinds.sort();
        kinds.dedup();
        // What was asked for and has no place in the plan was not tried either.
        kinds
            .extend(self.spec.kinds.iter().filter(|kind| !kinds.contains(kind)).copied().collect::<Vec<_>>());
        kinds
    }

    /// Reads the logs: who led, and whether anything panicked.
    fn printed_leaders(&self, findings: &mut Findings) -> Result<Vec<(u64, usize)>> {
        let mut leaders = Vec::new();
        for (name, path) in self.cluster.logs() {
            let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
            for line in text.lines().filter(|line| line.contains("panicked")) {
                findings.add("panic", format!("{name}: {line}"));
            }
            let Some(node) = name.strip_prefix('n').and_then(|number| number.parse().ok()) else { continue };
            let terms =
                text.lines().filter_map(|line| line.split_once("role=Leader(Term(")?.1.split(')').next());
            leaders.extend(terms.filter_map(|term| Some((term.parse().ok()?, node))));
        }
        Ok(leaders)
    }

    /// Routes must follow within two seconds, unless a fault stands between.
    fn check_route_delays(&self, routes: &routes::Counts, windows: &[Window], findings: &mut Findings) {
        let late = routes.route_delays.iter().filter(|delay| **delay > routes::limit()).count();
        let excused = windows.iter().any(|window| {
            !matches!(window.fault.kind, Kind::Kill | Kind::Stop | Kind::Transfer | Kind::RollingRestart)
        });
        if late > 0 && !excused {
            findings.add("late route", format!("{late} of {}", routes.route_delays.len()));
        }
    }
}

/// Returns the end of each queue that the Java clients use. Whoever is asked, the leader says it.
async fn queue_ends(cluster: &Cluster, within: Duration) -> Result<Vec<u64>> {
    let mut ends = Vec::new();
    for queue in 0..queue::QUEUES {
        let request = Command::request(RequestCode::GetMaxOffset)
            .with_field("topic", queue::TOPIC)
            .with_field("queueId", queue.to_string());
        let asked = poll("the end of a queue", within, async || {
            for node in 0..cluster.options.nodes {
                let address = cluster.broker_address(node);
                if let Ok(answer) = cluster.ask(&address, request.clone(), within).await {
                    return answer.ext_fields.get("offset")?.parse().ok();
                }
            }
            None
        });
        ends.push(asked.await?);
    }
    Ok(ends)
}

/// Returns the end of each queue, by what was acknowledged.
fn ends(ops: &[Op]) -> Vec<u64> {
    let mut ends = vec![0; log::QUEUES as usize];
    for op in ops.iter().filter(|op| op.kind == OpKind::Ok) {
        if let Value::Send { queue, offset: Some(offset), .. } = op.value {
            ends[queue as usize] = ends[queue as usize].max(offset + 1);
        }
    }
    ends
}

/// Returns when each send ended, how long it took, and how it ended.
fn latencies(ops: &[Op]) -> Vec<(f64, f64, OpKind)> {
    let mut open = std::collections::HashMap::new();
    let mut sends = Vec::new();
    for op in ops.iter().filter(|op| op.f == "send") {
        if op.kind == OpKind::Invoke {
            open.insert(op.process, op.time);
        } else if let Some(began) = open.remove(&op.process) {
            sends.push((op.time.as_secs_f64(), (op.time - began).as_secs_f64(), op.kind));
        }
    }
    sends
}

/// Asks each replica how it is, again and again.
async fn observe(cluster: Arc<Cluster>, histories: Arc<Histories>, samples: Arc<Mutex<Vec<routes::Sample>>>) {
    let each = (0..cluster.brokers()).map(async |node| {
        loop {
            if let Some(pid) = cluster.pid(node)
                && let Some(status) = cluster.status(node).await
                && cluster.pid(node) == Some(pid)
            {
                let sample = routes::Sample {
                    time: histories.now(),
                    node,
                    term: status.term,
                    leads: status.state == "LEADER",
                    committed: status.committed_index,
                    applied: status.applied_index,
                    last: status.last_index,
                    pid,
                };
                samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
            }
            tokio::time::sleep(SAMPLE_PACE).await;
        }
    });
    futures_util::future::join_all(each).await;
}

async fn make_topics(cluster: &Cluster) -> Result<()> {
    let topics = [(log::TOPIC, log::QUEUES), (queue::TOPIC, queue::QUEUES), ("Storm", 1), ("Offsets", 1)];
    for (topic, queues) in topics {
        let request = client::topic_request(topic, i64::from(queues), i64::from(queues));
        cluster.operate(request, Duration::from_secs(20)).await.with_context(|| format!("make {topic}"))?;
    }
    Ok(())
}

/// Waits until all replicas have applied all that there is, while nobody writes. Returns the end of the log.
async fn settled(cluster: &Cluster, within: Duration) -> Result<u64> {
    poll("replicas with equal logs", within, async || {
        let statuses = cluster.statuses().await;
        let (_, first) = statuses.first()?;
        let equal = |status: &quorate::remoting::body::RaftStatus| {
            status.applied_index == status.last_index
                && (status.last_index, status.log_end) == (first.last_index, first.log_end)
        };
        (statuses.len() == cluster.options.nodes && statuses.iter().all(|(_, status)| equal(status)))
            .then_some(first.log_end)
    })
    .await
}

/// Waits until push consumers have got all that is in the queue, or their time is up.
async fn wait_for_delivery(histories: &Histories, drained: &[u64], within: Duration) {
    let wanted: std::collections::HashSet<u64> = drained.iter().copied().collect();
    let _ = cluster::poll("deliveries", within, async || {
        let got: std::collections::HashSet<u64> = histories
            .of(Workload::Queue)
            .iter()
            .filter(|op| op.f == "dequeue")
            .filter_map(|op| if let Value::Element(id) = op.value { Some(id) } else { None })
            .collect();
        wanted.iter().all(|id| got.contains(id)).then_some(())
    })
    .await;
}
