//! Carries a plan out: begins each fault at its time, ends it, and says whether it took effect.

mod files;
mod limits;
mod network;
mod operations;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use serde::Serialize;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::{Cluster, NAMESRVS, poll};
use crate::history::Histories;
use crate::plan::{Fault, Kind, Target};

/// How often a fault is tried that takes no effect.
const ATTEMPTS: u64 = 4;
const ATTEMPT_PAUSE: Duration = Duration::from_secs(2);
/// How long a fault waits for a leader to know whom it hits.
const LEADER_WAIT: Duration = Duration::from_secs(2);
/// How long a replica may take to end when its disk fails.
const FAILURE_LIMIT: Duration = Duration::from_secs(10);
/// How long a replica that was started again may take to follow.
pub(crate) const HEALTH_LIMIT: Duration = Duration::from_secs(90);

/// A fault that was carried out.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Window {
    pub(crate) fault: Fault,
    /// In seconds since the begin of the run.
    pub(crate) start: f64,
    /// When everything was as before.
    pub(crate) stop: f64,
    /// Replicas of which the others need not expect anything meanwhile.
    pub(crate) impaired: BTreeSet<usize>,
    /// Whether the leader was among those who were hit.
    pub(crate) hit_leader: bool,
    pub(crate) text: String,
    /// Why it did not take effect, if it did not.
    pub(crate) ineffective: Option<String>,
}

/// What breaks things.
pub(crate) struct Nemesis {
    cluster: Arc<Cluster>,
    histories: Arc<Histories>,
    state: Mutex<State>,
    /// Held while the files of a replica are worse than those of the others.
    damaging: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// Replicas that a fault has in its hands.
    busy: BTreeSet<usize>,
    windows: Vec<Window>,
    /// Faults of the net that last.
    cuts: usize,
    /// What a replica did that it must not do.
    wrong: Vec<String>,
}

/// A fault while it lasts.
struct Active {
    impaired: BTreeSet<usize>,
    hit_leader: bool,
    text: String,
    start: Duration,
}

/// Replicas that no other fault takes. Given back when dropped.
struct Taken<'a> {
    nemesis: &'a Nemesis,
    nodes: Vec<usize>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.nemesis.lock().busy.retain(|node| !self.nodes.contains(node));
    }
}

impl Nemesis {
    pub(crate) fn new(cluster: Arc<Cluster>, histories: Arc<Histories>) -> Self {
        Self { cluster, histories, state: Mutex::default(), damaging: tokio::sync::Mutex::default() }
    }

    /// Carries the plan out; returns when its last fault has ended.
    pub(crate) async fn run(&self, plan: &[Fault]) {
        let start = Instant::now();
        let faults = plan.iter().map(async |fault| {
            sleep_until(start + Duration::from_millis(fault.at_ms)).await;
            self.carry_out(*fault).await;
        });
        tokio::select! {
            _ = futures_util::future::join_all(faults) => {}
            () = self.watch() => {}
            () = self.is_caught(), if self.cluster.options.known_bad.is_some() => {}
        }
    }

    /// Waits until a replica does what it must not do: enough to know of servers that are wrong on purpose.
    async fn is_caught(&self) {
        while self.lock().wrong.is_empty() {
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Returns the faults that were carried out, and what replicas did that they must not do.
    pub(crate) fn result(&self) -> (Vec<Window>, Vec<String>) {
        let state = self.lock();
        let mut windows = state.windows.clone();
        windows.sort_by(|a, b| a.start.total_cmp(&b.start));
        (windows, state.wrong.clone())
    }

    /// Puts right what a fault that ended early may have left, and starts what does not run.
    pub(crate) async fn heal(&self) {
        for node in 0..self.cluster.options.nodes {
            // Each fails where there is nothing to put right.
            let _ = self.cluster.signal_broker(node, Signal::CONT);
            if let Some(volume) = self.cluster.volumes.get(node) {
                let _ = volume.thaw();
                let _ = volume.make_room();
                if volume.is_dead() {
                    self.cluster.kill_broker(node);
                    if let Err(error) = volume.remount() {
                        self.wrong(format!("the disk of n{node} cannot be mounted: {error:#}"));
                    }
                }
            }
            if !self.cluster.is_running(node)
                && let Err(error) = self.cluster.start_broker(node).await
            {
                self.wrong(format!("n{node} does not start: {error:#}"));
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, text: String) {
        eprintln!("WRONG: {text}");
        self.histories.nemesis("wrong", text.clone());
        self.lock().wrong.push(text);
    }

    /// Notices replicas that end though nobody made them, and starts them again.
    async fn watch(&self) {
        loop {
            sleep(Duration::from_millis(200)).await;
            for node in 0..self.cluster.options.nodes {
                if self.lock().busy.contains(&node) {
                    continue;
                }
                if let Some(status) = self.cluster.broker_ended(node) {
                    self.wrong(format!("n{node} ended by itself with {status}"));
                    let _taken = self.take(vec![node]);
                    self.start(node).await;
                }
            }
            for namesrv in 0..NAMESRVS {
                if let Some(status) = self.cluster.namesrv_ended(namesrv) {
                    self.wrong(format!("name server s{namesrv} ended by itself with {status}"));
                }
            }
        }
    }

    /// Tries a few times: while one fault lasts, another one may find nobody to hit.
    async fn carry_out(&self, fault: Fault) {
        for attempt in 0..ATTEMPTS {
            let fault = Fault { seed: fault.seed.wrapping_add(attempt), ..fault };
            if self.attempt(fault).await {
                return;
            }
            sleep(ATTEMPT_PAUSE).await;
        }
    }

    /// Returns whether the fault took effect.
    async fn attempt(&self, fault: Fault) -> bool {
        let mut random = fastrand::Rng::with_seed(fault.seed);
        let leader = self.cluster.leader(LEADER_WAIT).await.ok();
        let mut active = Active {
            impaired: BTreeSet::new(),
            hit_leader: false,
            text: String::new(),
            start: self.histories.now(),
        };
        let done = self.dispatch(fault, leader, &mut random, &mut active).await;
        let ineffective = done.err().map(|error| format!("{error:#}"));
        let name = fault.kind.name();
        let end = match &ineffective {
            None => format!("{name} is over"),
            Some(reason) => format!("{name} took no effect: {reason}"),
        };
        if ineffective.is_some() {
            eprintln!("   {end}");
        }
        self.histories.nemesis("stop", end);
        let stop = self.histories.now();
        let took_effect = ineffective.is_none();
        self.lock().windows.push(Window {
            fault,
            start: active.start.as_secs_f64(),
            stop: stop.as_secs_f64(),
            impaired: active.impaired,
            hit_leader: active.hit_leader,
            text: active.text,
            ineffective,
        });
        took_effect
    }

    async fn dispatch(
        &self,
        fault: Fault,
        leader: Option<usize>,
        random: &mut fastrand::Rng,
        active: &mut Active,
    ) -> Result<()> {
        let lasts = Duration::from_millis(fault.for_ms);
        match fault.kind {
            Kind::NamesrvKill => self.kill_namesrv(lasts, random, active).await,
            Kind::Transfer => self.transfer(leader, random, active).await,
            Kind::Membership => self.membership(lasts, active).await,
            Kind::RollingRestart => self.rolling_restart(active).await,
            Kind::Segments => self.segments(active).await,
            Kind::Halves
            | Kind::LeaderMinority
            | Kind::LeaderMajority
            | Kind::Ring
            | Kind::Bridge
            | Kind::OneWayIn
            | Kind::OneWayOut
            | Kind::FromClients
            | Kind::FromNamesrvs
            | Kind::Refuse
            | Kind::DropResponse
            | Kind::Loss
            | Kind::Delay
            | Kind::Duplicate
            | Kind::Reorder
            | Kind::SlowLink
            | Kind::LightLoss => self.cut(fault, leader, random, active).await,
            Kind::FlipBit | Kind::Truncate | Kind::ZeroPage | Kind::DeleteIndex | Kind::Wipe => {
                let _damaging = self.damaging.lock().await;
                let taken = self.choose(fault.target, leader, random)?;
                self.began(fault.kind, &taken, leader, active);
                self.damage(fault.kind, taken.nodes[0], random, active).await
            }
            _ => {
                let taken = self.choose(fault.target, leader, random)?;
                self.began(fault.kind, &taken, leader, active);
                self.hit(fault.kind, &taken.nodes, lasts, random, active).await
            }
        }
    }

    /// Notes that a fault begins which has replicas in its hands.
    fn began(&self, kind: Kind, taken: &Taken<'_>, leader: Option<usize>, active: &mut Active) {
        let names: Vec<_> = taken.nodes.iter().map(|node| format!("n{node}")).collect();
        active.text = names.join(" ");
        active.hit_leader = leader.is_some_and(|leader| taken.nodes.contains(&leader));
        // A wall clock must not matter to anybody.
        if !kind.needs_clocks() {
            active.impaired = taken.nodes.iter().copied().collect();
        }
        self.note(kind, active);
    }

    fn note(&self, kind: Kind, active: &mut Active) {
        active.start = self.histories.now();
        self.histories.nemesis("start", format!("{}: {}", kind.name(), active.text));
    }

    async fn hit(
        &self,
        kind: Kind,
        nodes: &[usize],
        lasts: Duration,
        random: &mut fastrand::Rng,
        active: &mut Active,
    ) -> Result<()> {
        match kind {
            Kind::Kill => {
                nodes.iter().for_each(|node| self.cluster.kill_broker(*node));
                sleep(lasts).await;
                self.start_all(nodes).await;
                Ok(())
            }
            Kind::Stop => self.stop(nodes, lasts).await,
            Kind::Pause => self.pause(nodes, lasts).await,
            Kind::Power => self.power(nodes, lasts).await,
            Kind::IoError => self.io_error(nodes, lasts).await,
            Kind::SyncError => self.sync_error(nodes, lasts).await,
            Kind::DiskFull => self.disk_full(nodes, lasts).await,
            Kind::HungDisk => self.hung_disk(nodes, lasts).await,
            Kind::SlowDisk => self.slow_disk(nodes, lasts).await,
            Kind::Memory => self.memory(nodes, lasts).await,
            Kind::Files => self.open_files(nodes, lasts).await,
            Kind::Cpu => self.cpu(nodes, lasts).await,
            Kind::ClockJump | Kind::ClockSkew | Kind::ClockStrobe => {
                self.clock(kind, nodes, lasts, random, active).await
            }
            _ => unreachable!("{kind:?} has a way of its own"),
        }
    }

    async fn stop(&self, nodes: &[usize], lasts: Duration) -> Result<()> {
        for node in nodes {
            match self.cluster.terminate_broker(*node).await {
                Ok(status) if status.success() => {}
                Ok(status) => self.wrong(format!("n{node} ended with {status} after SIGTERM")),
                Err(error) => self.wrong(format!("n{node} after SIGTERM: {error:#}")),
            }
        }
        sleep(lasts).await;
        self.start_all(nodes).await;
        Ok(())
    }

    async fn pause(&self, nodes: &[usize], lasts: Duration) -> Result<()> {
        for node in nodes {
            self.cluster.signal_broker(*node, Signal::STOP)?;
        }
        sleep(Duration::from_millis(100)).await;
        let stopped = nodes.iter().filter(|node| self.process_state(**node) == Some('T')).count();
        sleep(lasts).await;
        for node in nodes {
            self.cluster.signal_broker(*node, Signal::CONT)?;
        }
        ensure!(stopped == nodes.len(), "{stopped} of {} were stopped", nodes.len());
        Ok(())
    }

    fn process_state(&self, node: usize) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.cluster.pid(node)?)).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    async fn kill_namesrv(
        &self,
        lasts: Duration,
        random: &mut fastrand::Rng,
        active: &mut Active,
    ) -> Result<()> {
        let namesrv = random.usize(..NAMESRVS);
        active.text = format!("s{namesrv}");
        self.note(Kind::NamesrvKill, active);
        self.cluster.kill_namesrv(namesrv);
        sleep(lasts).await;
        let started = self.cluster.start_namesrv(namesrv).await;
        if let Err(error) = &started {
            self.wrong(format!("name server s{namesrv} does not start: {error:#}"));
        }
        started
    }

    async fn cut(
        &self,
        fault: Fault,
        leader: Option<usize>,
        random: &mut fastrand::Rng,
        active: &mut Active,
    ) -> Result<()> {
        let voters: Vec<usize> = (0..self.cluster.options.nodes).collect();
        let chosen = match fault.target {
            Target::Leader => leader.unwrap_or(0),
            // Of the others they seldom hear.
            _ if fault.kind == Kind::FromNamesrvs => leader.unwrap_or(0),
            Target::Follower => {
                let followers: Vec<_> = voters.iter().copied().filter(|node| Some(*node) != leader).collect();
                followers[random.usize(..followers.len())]
            }
            _ => random.usize(..voters.len()),
        };
        let hosts = self.cluster.hosts();
        let cuts = network::cuts(fault.kind, &hosts, &voters, chosen, leader, random);
        let cuts = cuts.context("there is no leader")?;
        active.text = cuts.text;
        active.hit_leader = leader.is_some_and(|leader| cuts.impaired.contains(&leader));
        active.impaired = cuts.impaired;
        self.note(fault.kind, active);
        self.lock().cuts += 1;
        let numbers = self.cluster.net.switch.add(cuts.rules);
        sleep(Duration::from_millis(fault.for_ms)).await;
        let counts = self.cluster.net.switch.remove(&numbers);
        self.lock().cuts -= 1;
        let (seen, met) = counts.iter().fold((0, 0), |(seen, met), one| (seen + one.seen, met + one.met));
        active.text += &format!("; {met} of {seen} frames");
        ensure!(met > 0, "no frame was met");
        Ok(())
    }

    /// Takes replicas that run and that no other fault has.
    fn choose(&self, target: Target, leader: Option<usize>, random: &mut fastrand::Rng) -> Result<Taken<'_>> {
        let voters = self.cluster.options.nodes;
        let mut state = self.lock();
        let mut free: Vec<usize> =
            (0..voters).filter(|node| !state.busy.contains(node) && self.cluster.is_running(*node)).collect();
        random.shuffle(&mut free);
        let minority = (voters - 1) / 2;
        let nodes: Vec<usize> = match target {
            Target::Leader => leader.into_iter().filter(|node| free.contains(node)).collect(),
            Target::Follower => free.into_iter().filter(|node| Some(*node) != leader).take(1).collect(),
            Target::Minority => free.into_iter().take(minority.max(1)).collect(),
            Target::Majority => free.into_iter().take(voters - minority).collect(),
            Target::All => free,
            Target::Any => free.into_iter().take(1).collect(),
        };
        ensure!(!nodes.is_empty(), "no replica to hit as {target:?}");
        state.busy.extend(&nodes);
        drop(state);
        Ok(Taken { nemesis: self, nodes })
    }

    fn take(&self, nodes: Vec<usize>) -> Taken<'_> {
        self.lock().busy.extend(&nodes);
        Taken { nemesis: self, nodes }
    }

    async fn start_all(&self, nodes: &[usize]) {
        futures_util::future::join_all(nodes.iter().map(|node| self.start(*node))).await;
    }

    /// Starts a replica, which must succeed.
    async fn start(&self, node: usize) {
        if let Err(error) = self.cluster.start_broker(node).await {
            self.wrong(format!("n{node} does not start: {error:#}"));
        }
    }

    /// Waits for the end of replicas that must end by themselves. Kills them if they do not: one that is cut off has
    /// nothing to write, and need not notice.
    async fn must_end(&self, nodes: &[usize], why: &str) {
        for node in nodes {
            let mut cut = false;
            let ended = poll("the end", FAILURE_LIMIT, async || {
                cut |= self.lock().cuts > 0;
                self.cluster.broker_ended(*node)
            });
            if ended.await.is_err() {
                self.cluster.kill_broker(*node);
                if !cut {
                    self.wrong(format!("n{node} was still there {FAILURE_LIMIT:?} after {why}"));
                }
            }
        }
    }
}
