//! Random schedules of faults under load, and what must hold whatever happens.
//!
//! `QUORATE_SEED=<n>` runs one schedule, `QUORATE_SCHEDULES=<n>` so many of each kind. Threads and sockets are real: a seed
//! repeats the plan, not the interleaving.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};

use super::cluster::{Cluster, Content, LIMIT, READ, Shape, Stored, draft, eventually, within};
use crate::filter::Filter;
use crate::message::Record;
use crate::metadata::MetadataCommand;
use crate::model::{Group, Perm, QueueId, QueueOffset, Topic, TopicConfig};
use crate::replication::{Error, FlushMode, Role};

/// Schedules that run at the same time: most of their time is waiting.
const AT_ONCE: usize = 10;
/// Topics whose messages stay, and one that is made and deleted again and again.
const TOPICS: [&str; 4] = ["A", "B", "C", "Gone"];

/// What a crash takes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing that was written: a killed process.
    Kill,
    /// What was not synced, too.
    Power,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_in_100_schedules_with_killed_processes() {
    run_all(Kind::Kill, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_in_100_schedules_with_power_failures() {
    run_all(Kind::Power, 1000).await;
}

async fn run_all(kind: Kind, first: u64) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let count = number("QUORATE_SCHEDULES").unwrap_or(100);
    let seeds = match number("QUORATE_SEED") {
        Some(seed) if (seed >= 1000) != (kind == Kind::Power) => return,
        Some(seed) => {
            let _ =
                tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_test_writer().try_init();
            seed..seed + 1
        }
        None => first..first + count,
    };
    let failed: Vec<u64> = stream::iter(seeds)
        .map(|seed| async move {
            let schedule = tokio::spawn(async move {
                let schedule = Schedule::new(seed, kind);
                let plan = Arc::clone(&schedule.plan);
                let done =
                    AssertUnwindSafe(tokio::time::timeout(LIMIT * 3, schedule.run())).catch_unwind().await;
                if !matches!(done, Ok(Ok(()))) {
                    let plan = plan.lock().unwrap().join("\n  ");
                    eprintln!("FAILED: QUORATE_SEED={seed}, {kind:?}:\n  {plan}");
                }
                matches!(done, Ok(Ok(())))
            });
            (seed, schedule.await.unwrap_or(false))
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|(seed, good)| async move { (!good).then_some(seed) })
        .collect()
        .await;
    assert!(failed.is_empty(), "failed: QUORATE_SEED={failed:?}");
}

/// What was answered and seen.
#[derive(Debug, Default)]
struct History {
    /// By position.
    acknowledged: BTreeMap<u64, Stored>,
    /// Bodies that were refused before they had a place, or whose place was taken back.
    refused: HashSet<String>,
    unconfirmed: usize,
    changed: Vec<MetadataCommand>,
    refused_changes: Vec<MetadataCommand>,
    /// By position, on any node.
    read: BTreeMap<u64, Stored>,
    leaders: HashMap<u64, usize>,
    /// What should not be.
    wrong: Vec<String>,
}

struct Schedule {
    kind: Kind,
    random: fastrand::Rng,
    plan: Arc<Mutex<Vec<String>>>,
    shape: Shape,
}

struct Run {
    cluster: Cluster,
    history: Mutex<History>,
    over: AtomicBool,
}

impl Schedule {
    fn new(seed: u64, kind: Kind) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let flush =
            if kind == Kind::Kill && random.u8(..4) == 0 { FlushMode::Async } else { FlushMode::Sync };
        let shape = Shape {
            nodes: if random.u8(..5) == 0 { 5 } else { 3 },
            segment_bytes: *random.choice([24 << 10, 32 << 10, 64 << 10].iter()).unwrap(),
            flush,
            checkpoint_ms: *random.choice([20, 100, 400, 10_000].iter()).unwrap(),
            clean_ms: 10_000,
            election_ms: (250, 500),
        };
        let plan = Arc::new(Mutex::new(vec![format!("{shape:?}")]));
        Self { kind, random, plan, shape }
    }

    async fn run(mut self) {
        let cluster = Cluster::start_with(self.shape.clone()).await;
        cluster.leader().await;
        let run = Arc::new(Run { cluster, history: Mutex::default(), over: AtomicBool::new(false) });
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..4 {
            tasks.spawn(send(Arc::clone(&run), number, self.random.fork()));
        }
        for number in 0..2 {
            tasks.spawn(change(Arc::clone(&run), number, self.random.fork()));
        }
        tasks.spawn(watch(Arc::clone(&run), self.random.fork()));
        for _ in 0..self.random.usize(4..12) {
            self.step(&run).await;
            let pause = self.random.u64(1..200);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.note("all is well again".into());
        run.cluster.heal();
        for id in 0..self.shape.nodes {
            if !run.cluster.is_running(id) {
                run.cluster.start_node(id).await;
            }
        }
        run.cluster.send_surely("A", "last").await;
        run.over.store(true, Ordering::Relaxed);
        let ended = async { while tasks.join_next().await.transpose().unwrap().is_some() {} };
        within("all answers come", ended).await;
        self.check(&run).await;
        if self.random.bool() {
            self.note("all end and start again".into());
            for id in 0..self.shape.nodes {
                self.end(&run, id).await;
            }
            for id in 0..self.shape.nodes {
                run.cluster.start_node(id).await;
            }
            run.cluster.send_surely("A", "very last").await;
            self.check(&run).await;
        }
        let run = Arc::into_inner(run).unwrap();
        run.cluster.stop().await;
    }

    fn note(&self, what: String) {
        tracing::info!("----- {what}");
        self.plan.lock().unwrap().push(what);
    }

    async fn step(&mut self, run: &Run) {
        let cluster = &run.cluster;
        let id = self.random.usize(..self.shape.nodes);
        let leader = cluster.leader_now().map_or(id, |(node, _)| node.id);
        // Leaders are hit more often than chance has it.
        let id = if self.random.u8(..3) == 0 { leader } else { id };
        let other = (id + self.random.usize(1..self.shape.nodes)) % self.shape.nodes;
        match self.random.u8(..20) {
            0..=5 if cluster.is_running(id) => self.end(run, id).await,
            0..=8 if !cluster.is_running(id) => {
                self.note(format!("n{id} starts"));
                cluster.start_node(id).await;
            }
            9 => {
                self.note(format!("n{id} is alone"));
                cluster.isolate(id);
            }
            10 => {
                self.note(format!("n{id} hears nothing"));
                cluster.cut((0..self.shape.nodes).filter(|from| *from != id).map(|from| (from, id)));
            }
            11 => {
                self.note(format!("n{id} is not heard"));
                cluster.cut((0..self.shape.nodes).filter(|to| *to != id).map(|to| (id, to)));
            }
            12 => {
                self.note(format!("n{id} and n{other} do not hear each other"));
                cluster.cut([(id, other), (other, id)]);
            }
            13 => {
                self.note(format!("n{id} is not heard by n{other}"));
                cluster.cut([(id, other)]);
            }
            14..=15 => {
                self.note("all ways are whole".into());
                cluster.heal();
            }
            16..=17 => {
                let to = self.random.bool().then_some(other as u64);
                self.note(format!("n{leader} hands over to {to:?}"));
                if cluster.is_running(leader) {
                    let node = cluster.node(leader);
                    let _ =
                        tokio::time::timeout(Duration::from_secs(1), node.replication.transfer_leader(to))
                            .await;
                }
            }
            18 => {
                self.note("all end, and start again".into());
                for id in 0..self.shape.nodes {
                    self.end(run, id).await;
                }
                for id in 0..self.shape.nodes {
                    cluster.start_node(id).await;
                }
            }
            _ => {}
        }
    }

    /// Ends a node in one way or another.
    async fn end(&mut self, run: &Run, id: usize) {
        if !run.cluster.is_running(id) {
            return;
        }
        if self.random.u8(..4) == 0 {
            self.note(format!("n{id} stops"));
            return run.cluster.stop_node(id).await;
        }
        if self.random.bool() {
            let changes = self.random.u64(1..40);
            self.note(format!("n{id} dies after {changes} changes"));
            let faults = Arc::clone(&run.cluster.node(id).faults);
            faults.die_after(changes);
            let dead = async {
                while !faults.is_dead() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_millis(200), dead).await;
        }
        match self.kind {
            Kind::Kill => {
                self.note(format!("n{id} is killed"));
                run.cluster.crash(id).await;
            }
            Kind::Power => {
                let share = *self.random.choice([0, 20, 80, 100].iter()).unwrap();
                self.note(format!("n{id} loses power and {share} % of what is not synced"));
                let mut random = self.random.fork();
                run.cluster.lose_power(id, || random.u8(..100) < share).await;
            }
        }
    }

    async fn check(&self, run: &Run) {
        // What was noted on the last leader is still to be committed; what was noted on others is forgotten.
        let nodes = run.cluster.running();
        eventually("noted offsets are committed", || {
            nodes.iter().all(|node| node.metadata.noted().is_empty()).then_some(())
        })
        .await;
        let content = run.cluster.assert_equal().await;
        for node in run.cluster.running() {
            content.check_tables(&node);
            let barrier = run.cluster.root(node.id).join("raft/barrier");
            // One that lost what it knew to be committed, but had not synced, votes again when it has it again.
            let lifted = async {
                while barrier.exists() {
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            };
            let lifted = tokio::time::timeout(std::time::Duration::from_secs(10), lifted).await;
            assert!(lifted.is_ok(), "n{} still does not vote", node.id);
        }
        let history = run.history.lock().unwrap();
        assert!(history.wrong.is_empty(), "{:#?}", history.wrong);
        self.check_history(&history, &content);
    }

    fn check_history(&self, history: &History, content: &Content) {
        for (position, stored) in &history.acknowledged {
            assert_eq!(content.messages.get(position), Some(stored), "acknowledged at {position}");
        }
        for (position, stored) in &history.read {
            assert_eq!(content.messages.get(position), Some(stored), "read at {position}");
        }
        let commands: HashMap<String, usize> =
            content.commands.iter().map(|(command, _)| (format!("{command:?}"), 1)).collect();
        for command in &history.changed {
            assert!(commands.contains_key(&format!("{command:?}")), "acknowledged: {command:?}");
        }
        if self.shape.nodes == 3 {
            // With five, a replica that was not reached may still bring back what a deposed leader took back.
            for stored in content.messages.values() {
                assert!(!history.refused.contains(&stored.body), "refused: {stored:?}");
            }
            for command in &history.refused_changes {
                assert!(!commands.contains_key(&format!("{command:?}")), "refused: {command:?}");
            }
        }
        let counts =
            (history.acknowledged.len(), history.refused.len(), history.unconfirmed, history.read.len());
        self.note(format!("acknowledged, refused, unconfirmed, read: {counts:?}"));
    }
}

impl Run {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

async fn send(run: Arc<Run>, sender: usize, mut random: fastrand::Rng) {
    for number in 0.. {
        if run.is_over() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(random.u64(1..20))).await;
        let Some((leader, _)) = run.cluster.leader_now() else { continue };
        let Ok(permit) = leader.replication.permit() else { continue };
        let (topic, queue) = (TOPICS[random.usize(..4)], random.u32(..2));
        let body = format!("{sender}-{number}-{}", "x".repeat(random.usize(..400)));
        let handed_in = leader.replication.append(permit, draft(topic, queue, &body)).await;
        drop(leader);
        let answer = match handed_in {
            Ok(pending) => {
                let answer = tokio::time::timeout(LIMIT, pending.committed()).await;
                answer.unwrap_or_else(|_| panic!("no answer to {sender}-{number}"))
            }
            Err(error) => {
                run.history.lock().unwrap().refused.insert(body);
                assert!(matches!(error, Error::NotLeader | Error::Stopped | Error::Busy { .. }), "{error}");
                continue;
            }
        };
        let mut history = run.history.lock().unwrap();
        match answer {
            Ok(appended) => {
                let offset = appended.queue_offset.0;
                let stored = Stored { topic: topic.into(), queue, offset, body };
                if let Some(other) = history.acknowledged.insert(appended.position.0, stored) {
                    history.wrong.push(format!("two at {}: {other:?}", appended.position));
                }
            }
            Err(Error::NotLeader) => {
                history.refused.insert(body);
            }
            Err(_) => history.unconfirmed += 1,
        }
    }
}

async fn change(run: Arc<Run>, changer: u32, mut random: fastrand::Rng) {
    for number in 0u64.. {
        if run.is_over() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(random.u64(1..60))).await;
        let Some((leader, _)) = run.cluster.leader_now() else { continue };
        let Ok(permit) = leader.replication.permit() else { continue };
        let commit = |offset| MetadataCommand::CommitOffset {
            group: Group::new(&format!("G{changer}")),
            topic: Topic::new("A"),
            queue_id: QueueId(0),
            offset: QueueOffset(offset),
        };
        let command = match random.u8(..10) {
            0 => MetadataCommand::DeleteTopic(Topic::new("Gone")),
            1..=3 => {
                // The number of queues names the change.
                let queues = u32::try_from(1 + number * 2 + u64::from(changer)).unwrap();
                MetadataCommand::PutTopic(TopicConfig::new(Topic::new("P"), queues, Perm::ALL))
            }
            4..=5 => {
                let _ = leader.replication.note(permit, commit(1_000_000 + number));
                continue;
            }
            _ => commit(number),
        };
        let handed_in = leader.replication.change(permit, command.clone());
        drop(leader);
        let unique = !matches!(command, MetadataCommand::DeleteTopic(_));
        let answer = match handed_in {
            Ok(pending) => {
                let answer = tokio::time::timeout(LIMIT, pending.committed()).await;
                answer.unwrap_or_else(|_| panic!("no answer to {command:?}"))
            }
            Err(error) => Err(error),
        };
        let mut history = run.history.lock().unwrap();
        match answer {
            Ok(()) => history.changed.push(command),
            Err(Error::NotLeader) if unique => history.refused_changes.push(command),
            Err(_) => {}
        }
    }
}

/// Reads what any node shows, and looks who leads.
async fn watch(run: Arc<Run>, mut random: fastrand::Rng) {
    while !run.is_over() {
        tokio::time::sleep(Duration::from_millis(random.u64(1..10))).await;
        for node in run.cluster.running() {
            let role = node.replication.role().borrow().clone();
            if let Role::Leader(term) = role {
                let mut history = run.history.lock().unwrap();
                let known = *history.leaders.entry(term.0).or_insert(node.id);
                if known != node.id {
                    history.wrong.push(format!("n{known} and n{} lead in term {term}", node.id));
                }
            }
            if random.bool() {
                let (topic, queue) = (TOPICS[random.usize(..4)], random.u32(..2));
                let share = random.u64(..4);
                let read =
                    tokio::task::spawn_blocking(move || read(&node, topic, queue, share)).await.unwrap();
                let mut history = run.history.lock().unwrap();
                for (position, stored) in read {
                    let known = history.read.entry(position).or_insert_with(|| stored.clone());
                    if *known != stored {
                        let wrong = format!("at {position} {known:?}, then {stored:?}");
                        history.wrong.push(wrong);
                    }
                }
            }
        }
    }
}

fn read(node: &super::cluster::Node, topic: &str, queue: u32, share: u64) -> Vec<(u64, Stored)> {
    let (topic, queue) = (Topic::new(topic), QueueId(queue));
    let Some(known) = node.store().queues().get(&topic, queue) else { return Vec::new() };
    let (min, max) = (known.min_offset().0, known.max_offset().0);
    let from = QueueOffset(min + max.saturating_sub(min) * share / 4);
    // The topic may just be deleted.
    let Ok(read) = node.store().read(&topic, queue, from, READ, &Filter::All) else { return Vec::new() };
    read.records
        .iter()
        .map(|bytes| {
            let record = Record::decode(bytes).unwrap();
            (record.physical_offset.0, Stored::of(&record))
        })
        .collect()
}
