//! Those who use the group: senders, members of consumer groups, operators, readers. What they are told must hold.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::super::cluster::{LIMIT, Node, READ, Stored, draft};
use super::ledger::Ledger;
use super::world::World;
use crate::filter::Filter;
use crate::message::Record;
use crate::metadata::MetadataCommand;
use crate::model::{Group, Perm, QueueId, QueueOffset, Topic, TopicConfig};
use crate::replication::{Error, LeaderPermit};

/// Topics whose messages stay, and one that is deleted and made again.
pub(super) const TOPICS: [&str; 3] = ["A", "B", "Gone"];
/// Each has one member.
pub(super) const GROUPS: [&str; 2] = ["G0", "G1"];

/// What was answered and seen.
#[derive(Debug, Default)]
pub(super) struct History {
    /// By position.
    acknowledged: BTreeMap<u64, Stored>,
    changed: Vec<MetadataCommand>,
    /// What was answered with "this broker does not lead": it was never stored.
    refused: HashSet<String>,
    unconfirmed: usize,
    /// By position, on any replica.
    read: BTreeMap<u64, Stored>,
    /// The progress that each group was told to be committed.
    committed: HashMap<&'static str, u64>,
}

/// What all clients share.
pub(super) struct Clients {
    pub(super) world: Arc<World>,
    pub(super) history: Mutex<History>,
    pub(super) over: AtomicBool,
}

impl Clients {
    /// Starts all clients.
    pub(super) fn start(
        world: &Arc<World>,
        random: &mut fastrand::Rng,
    ) -> (Arc<Self>, tokio::task::JoinSet<()>) {
        let clients = Arc::new(Self {
            world: Arc::clone(world),
            history: Mutex::default(),
            over: AtomicBool::new(false),
        });
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..3 {
            tasks.spawn(send(Arc::clone(&clients), number, random.fork()));
        }
        for group in GROUPS {
            tasks.spawn(consume(Arc::clone(&clients), group, random.fork()));
        }
        tasks.spawn(operate(Arc::clone(&clients), random.fork()));
        tasks.spawn(read(Arc::clone(&clients), random.fork()));
        (clients, tasks)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Checks that everything that was said holds.
    pub(super) fn check(&self, ledger: &Ledger) {
        let history = self.history.lock().unwrap();
        for (position, stored) in &history.acknowledged {
            assert_eq!(ledger.messages.get(position), Some(stored), "acknowledged at {position}");
        }
        for (position, stored) in &history.read {
            assert_eq!(ledger.messages.get(position), Some(stored), "read at {position}");
        }
        let commands: HashSet<String> = ledger
            .entries
            .iter()
            .flat_map(|entry| &entry.commands)
            .map(|command| format!("{command:?}"))
            .collect();
        for command in &history.changed {
            assert!(commands.contains(&format!("{command:?}")), "acknowledged: {command:?}");
        }
        if self.world.shape.nodes == 3 {
            // With five, a replica that was not reached may still bring back what a deposed leader took back.
            for stored in ledger.messages.values() {
                assert!(!history.refused.contains(&stored.body), "refused, and stored: {stored:?}");
            }
        }
    }

    pub(super) fn counts(&self) -> String {
        let history = self.history.lock().unwrap();
        format!(
            "acknowledged {} changed {} refused {} unconfirmed {} read {}",
            history.acknowledged.len(),
            history.changed.len(),
            history.refused.len(),
            history.unconfirmed,
            history.read.len()
        )
    }
}

/// Returns the progress of a group, as a replica's tables have it.
pub(super) fn progress(node: &Node, group: &str) -> Option<u64> {
    let offset = node.metadata.offsets().get(&Group::new(group), &Topic::new("A"), QueueId(0));
    offset.map(|offset| offset.0)
}

async fn send(clients: Arc<Clients>, sender: usize, mut random: fastrand::Rng) {
    let trace = &clients.world.trace;
    for number in 0.. {
        tokio::time::sleep(Duration::from_millis(random.u64(1..40))).await;
        if clients.is_over() {
            return;
        }
        let Some((leader, _)) = clients.world.leader_now() else { continue };
        let Ok(permit) = leader.replication.permit() else { continue };
        let (topic, queue) = (TOPICS[random.usize(..TOPICS.len())], random.u32(..2));
        let body = format!("{sender}-{number}-{}", "x".repeat(random.usize(..600)));
        let handed_in = leader.replication.append(permit, draft(topic, queue, &body)).await;
        drop(leader);
        let answer = match handed_in {
            Ok(pending) => answered(&body, pending.committed()).await,
            Err(error) => Err(error),
        };
        let mut history = clients.history.lock().unwrap();
        match answer {
            Ok(appended) => {
                trace.numbers(
                    "stored",
                    &[sender as u64, number, appended.position.0, appended.queue_offset.0],
                );
                let stored = Stored { topic: topic.into(), queue, offset: appended.queue_offset.0, body };
                let other = history.acknowledged.insert(appended.position.0, stored);
                assert_eq!(other, None, "another message was acknowledged at {}", appended.position);
            }
            Err(Error::NotLeader | Error::Stopped | Error::Busy { .. }) => {
                trace.numbers("refused", &[sender as u64, number]);
                history.refused.insert(body);
            }
            Err(_) => {
                trace.numbers("unconfirmed", &[sender as u64, number]);
                history.unconfirmed += 1;
            }
        }
    }
}

async fn answered<T>(what: &str, answer: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(LIMIT, answer).await;
    answer.unwrap_or_else(|_| panic!("no answer to {what}"))
}

/// Commits the progress of a group, which goes up, and asks a leader that holds its lease for it.
async fn consume(clients: Arc<Clients>, group: &'static str, mut random: fastrand::Rng) {
    for number in 1u64.. {
        tokio::time::sleep(Duration::from_millis(random.u64(1..60))).await;
        if clients.is_over() {
            return;
        }
        let known = clients.history.lock().unwrap().committed.get(group).copied();
        for node in clients.world.running() {
            if node.replication.holds_lease() {
                let shown = progress(&node, group);
                assert!(
                    shown >= known,
                    "n{} holds the lease and shows {shown:?} of {group}, not {known:?}",
                    node.id
                );
            }
        }
        let Some((leader, _)) = clients.world.leader_now() else { continue };
        let Ok(permit) = leader.replication.permit() else { continue };
        let command = MetadataCommand::CommitOffset {
            group: Group::new(group),
            topic: Topic::new("A"),
            queue_id: QueueId(0),
            offset: QueueOffset(number),
        };
        if random.u8(..4) == 0 {
            let _ = leader.replication.note(permit, command);
            continue;
        }
        if is_changed(leader, permit, &command).await {
            clients.world.trace.numbers("progress", &[number]);
            let mut history = clients.history.lock().unwrap();
            history.changed.push(command);
            history.committed.insert(group, number);
        }
    }
}

/// Has a change made, and returns whether it was acknowledged.
async fn is_changed(leader: Arc<Node>, permit: LeaderPermit, command: &MetadataCommand) -> bool {
    let handed_in = leader.replication.change(permit, command.clone());
    drop(leader);
    match handed_in {
        Ok(pending) => answered(&format!("{command:?}"), pending.committed()).await.is_ok(),
        Err(_) => false,
    }
}

/// Makes topics, and deletes one.
async fn operate(clients: Arc<Clients>, mut random: fastrand::Rng) {
    for number in 1u32.. {
        tokio::time::sleep(Duration::from_millis(random.u64(20..300))).await;
        if clients.is_over() {
            return;
        }
        let Some((leader, _)) = clients.world.leader_now() else { continue };
        let Ok(permit) = leader.replication.permit() else { continue };
        let command = if random.u8(..3) == 0 {
            MetadataCommand::DeleteTopic(Topic::new("Gone"))
        } else {
            // The number of queues names the change.
            MetadataCommand::PutTopic(TopicConfig::new(Topic::new("P"), number, Perm::ALL))
        };
        if is_changed(leader, permit, &command).await {
            clients.history.lock().unwrap().changed.push(command);
        }
    }
}

/// Reads what any replica shows.
async fn read(clients: Arc<Clients>, mut random: fastrand::Rng) {
    loop {
        tokio::time::sleep(Duration::from_millis(random.u64(1..30))).await;
        if clients.is_over() {
            return;
        }
        let nodes = clients.world.running();
        let Some(node) = random.choice(nodes.iter()) else { continue };
        let (topic, queue, share) = (TOPICS[random.usize(..TOPICS.len())], random.u32(..2), random.u64(..4));
        let mut history = clients.history.lock().unwrap();
        for (position, stored) in shown(node, topic, queue, share) {
            let known = history.read.entry(position).or_insert_with(|| stored.clone());
            assert_eq!(*known, stored, "n{} shows something else at {position}", node.id);
        }
    }
}

fn shown(node: &Node, topic: &str, queue: u32, share: u64) -> Vec<(u64, Stored)> {
    let (topic, queue) = (Topic::new(topic), QueueId(queue));
    let Some(known) = node.store().queues().get(&topic, queue) else { return Vec::new() };
    let (min, max) = (known.min_offset().0, known.max_offset().0);
    let from = QueueOffset(min + max.saturating_sub(min) * share / 3);
    // The topic may just be deleted.
    let Ok(read) = node.store().read(&topic, queue, from, READ, &Filter::All) else { return Vec::new() };
    let records = read.records.iter().map(|bytes| Record::decode(bytes).expect("a message is whole"));
    records.map(|record| (record.physical_offset.0, Stored::of(&record))).collect()
}
