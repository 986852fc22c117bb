//! What is done to a group, as the seed says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::disk::Speed;
use super::net::{End, Weather};
use super::world::World;
use crate::replication::FlushMode;

const MINUTE_MS: i64 = 60_000;
/// How long an operation that is part of a fault may keep the next one waiting.
const OPERATION_LIMIT: Duration = Duration::from_secs(1);
/// How long a process may live that is to die at its n-th change of the disk.
const DIES_SOON: Duration = Duration::from_millis(500);

/// Has replicas die just after they took entries back from the end of their logs.
pub(super) async fn strike_cutters(world: Arc<World>, mut random: fastrand::Rng) {
    let mut ends = vec![0; world.shape.nodes];
    loop {
        tokio::time::sleep(Duration::from_millis(1)).await;
        for node in world.running() {
            let end = node.group().shared.entries.end().0;
            let before = std::mem::replace(&mut ends[node.id], end);
            if end >= before || node.faults.is_dead() || random.bool() {
                continue;
            }
            let ms = random.u64(0..30);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            world.trace.plan(&format!("n{} dies {ms} ms after it took entries back", node.id));
            world.look();
            node.faults.die();
        }
    }
}

pub(super) struct Faults {
    world: Arc<World>,
    random: fastrand::Rng,
    /// One that was taken out of the group and is to come back.
    removed: Option<usize>,
}

impl Faults {
    pub(super) fn new(world: Arc<World>, random: fastrand::Rng) -> Self {
        Self { world, random, removed: None }
    }

    /// Does so many things, with pauses between them.
    pub(super) async fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.world.look();
            self.bury().await;
            self.step().await;
            let longest = self.longest_pause();
            let pause = self.random.u64(1..=longest);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Ends the processes whose disks have died meanwhile.
    async fn bury(&mut self) {
        for id in self.world.ids() {
            if self.world.node(id).is_some_and(|node| node.faults.is_dead()) {
                self.crash(id).await;
            }
        }
    }

    fn longest_pause(&mut self) -> u64 {
        *self.random.choice([20, 150, 700].iter()).unwrap()
    }

    /// Takes everything back, and starts what does not run.
    pub(super) async fn heal(&mut self) {
        self.note("all is well again");
        self.world.heal();
        for id in self.world.ids() {
            if let Some(node) = self.world.node(id) {
                // Those that were to die at some later change live on.
                node.faults.die_after(u64::MAX);
            }
            if self.world.is_broken(id) {
                self.world.crash(id, End::Process).await;
            }
            if !self.world.is_running(id) {
                self.world.start(id, None).await;
            }
        }
    }

    /// Returns the replica that is still to be taken back in.
    pub(super) fn removed(&self) -> Option<usize> {
        self.removed
    }

    fn note(&self, what: &str) {
        self.world.trace.plan(what);
    }

    fn one_but(&mut self, id: usize) -> usize {
        (id + self.random.usize(1..self.world.shape.nodes)) % self.world.shape.nodes
    }

    async fn step(&mut self) {
        let nodes = self.world.shape.nodes;
        let id = self.random.usize(..nodes);
        let leader = self.world.leader_now().map_or(id, |(node, _)| node.id);
        // Leaders are hit more often than chance has it.
        let id = if self.random.u8(..3) == 0 { leader } else { id };
        match self.random.u8(..100) {
            0..=21 if self.world.is_running(id) => self.end(id).await,
            0..=37 if !self.world.is_running(id) => self.start(id).await,
            22..=37 => self.start_one_that_is_down().await,
            38..=56 => self.cut(id),
            57..=63 => {
                self.note("the network is whole");
                self.world.net.heal();
            }
            64..=68 => {
                let latency_ms = *self.random.choice([(0, 2), (1, 20), (20, 60), (0, 150)].iter()).unwrap();
                let lost = *self.random.choice([0, 5, 50].iter()).unwrap();
                self.note(&format!("ways take {latency_ms:?} ms, {lost} in 1000 are lost"));
                self.world.net.set_weather(Weather { latency_ms, lost });
            }
            69..=71 => {
                let other = self.one_but(id);
                self.note(&format!("connections of n{id} and n{other} break"));
                self.world.net.break_connections(id, other);
            }
            72..=77 => self.pause(id).await,
            78..=80 => {
                let sync = *self.random.choice([(0, 4), (20, 100), (100, 400)].iter()).unwrap();
                self.note(&format!("n{id}'s disk takes {sync:?} ms"));
                self.world.set_speed(id, Speed { write: (0, sync.0), sync });
            }
            81..=82 => {
                let by_ms = self.random.i64(-120..120) * MINUTE_MS;
                self.note(&format!("n{id}'s clock jumps by {by_ms} ms"));
                self.world.jump_clock(id, by_ms);
            }
            83..=92 => self.transfer(leader).await,
            93..=95 => self.change_members(leader).await,
            96..=97 => self.end_all().await,
            _ => self.fail_syncs(id).await,
        }
    }

    fn cut(&mut self, id: usize) {
        let (nodes, net) = (self.world.shape.nodes, Arc::clone(&self.world.net));
        let others = || (0..nodes).filter(|other| *other != id);
        match self.random.u8(..6) {
            0 | 1 => {
                self.note(&format!("n{id} is alone"));
                self.world.isolate(id);
            }
            2 => {
                self.note(&format!("n{id} hears nothing"));
                net.cut(others().map(|other| (other, id)));
            }
            3 => {
                self.note(&format!("n{id} is not heard"));
                net.cut(others().map(|other| (id, other)));
            }
            4 => {
                let half: Vec<bool> = (0..nodes).map(|_| self.random.bool()).collect();
                self.note(&format!("halves {half:?}"));
                let ways = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
                net.cut(ways.filter(|(from, to)| half[*from] != half[*to]));
            }
            _ => {
                // Everyone hears its neighbours; with three, one way is cut.
                let far = self.one_but(id);
                self.note(&format!("a ring, broken between n{id} and n{far}"));
                let is_near = |from: usize, to: usize| nodes > 3 && (from + 1) % nodes == to;
                let ways = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
                let far_ways = ways.filter(|(from, to)| {
                    nodes > 3 && from != to && !is_near(*from, *to) && !is_near(*to, *from)
                });
                net.cut(far_ways.chain([(id, far), (far, id)]));
            }
        }
    }

    async fn start(&mut self, id: usize) {
        let dies_after = (self.random.u8(..6) == 0).then(|| self.random.u64(1..30));
        self.note(&format!("n{id} starts, dies after {dies_after:?}"));
        self.world.start(id, dies_after).await;
    }

    async fn start_one_that_is_down(&mut self) {
        let down: Vec<usize> = self.world.ids().filter(|id| !self.world.is_running(*id)).collect();
        if let Some(id) = self.random.choice(down.iter()).copied() {
            self.start(id).await;
        }
    }

    /// Ends a replica in one way or another.
    async fn end(&mut self, id: usize) {
        if self.random.u8(..6) == 0 {
            self.note(&format!("n{id} stops"));
            self.world.pause(id, false);
            return self.world.stop(id).await;
        }
        if self.random.bool() {
            self.die_in_the_middle(id).await;
        }
        self.crash(id).await;
    }

    /// Has the disk of a replica die at one of its next changes.
    async fn die_in_the_middle(&mut self, id: usize) {
        let Some(node) = self.world.node(id) else { return };
        let changes = self.random.u64(1..60);
        self.note(&format!("n{id} dies after {changes} changes"));
        node.faults.die_after(changes);
        let faults = Arc::clone(&node.faults);
        drop(node);
        let dead = async {
            while !faults.is_dead() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(DIES_SOON, dead).await;
    }

    async fn crash(&mut self, id: usize) {
        let may_lose = self.world.shape.flush == FlushMode::Sync;
        if !may_lose || self.random.bool() {
            self.note(&format!("n{id} is killed"));
            self.world.crash(id, End::Process).await;
            return;
        }
        let share = *self.random.choice([0, 20, 80, 100].iter()).unwrap();
        self.note(&format!("n{id} loses power and {share} % of what is not synced"));
        if let Some(faults) = self.world.crash(id, End::Host).await {
            faults.lose_power(|| self.random.u8(..100) < share).unwrap();
        }
    }

    /// Ends a minority or all at once, and starts them again.
    async fn end_all(&mut self) {
        let nodes = self.world.shape.nodes;
        let count = if self.random.bool() { nodes } else { nodes / 2 };
        self.note(&format!("{count} end at once"));
        let first = self.random.usize(..nodes);
        let ids: Vec<usize> = (0..count).map(|number| (first + number) % nodes).collect();
        for id in &ids {
            // All at the same moment, though each takes its time to be gone.
            if let Some(node) = self.world.node(*id) {
                self.world.look();
                node.faults.die();
            }
        }
        for id in &ids {
            if self.world.is_running(*id) {
                self.crash(*id).await;
            }
        }
        for id in ids {
            self.start(id).await;
        }
    }

    async fn pause(&mut self, id: usize) {
        let ms = self.random.u64(50..1500);
        self.note(&format!("n{id} stands still for {ms} ms"));
        self.world.pause(id, true);
        let incarnation = self.world.incarnation(id);
        let world = Arc::clone(&self.world);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            if world.incarnation(id) == incarnation {
                world.pause(id, false);
            }
        });
    }

    async fn transfer(&mut self, leader: usize) {
        let to = self.random.bool().then(|| self.one_but(leader) as u64);
        self.note(&format!("n{leader} hands over to {to:?}"));
        let Some(node) = self.world.node(leader) else { return };
        let _ = tokio::time::timeout(OPERATION_LIMIT, node.replication.transfer_leader(to)).await;
    }

    /// Takes a voter out, or back in.
    async fn change_members(&mut self, leader: usize) {
        let Some(node) = self.world.node(leader) else { return };
        match self.removed {
            Some(id) => {
                self.note(&format!("n{id} is taken back in"));
                let address = format!("n{id}:7000");
                let added = node.replication.add_peer(id as u64, &address);
                if let Ok(Ok(())) = tokio::time::timeout(OPERATION_LIMIT, added).await {
                    self.removed = None;
                }
            }
            None => {
                let id = self.one_but(leader);
                self.note(&format!("n{id} is taken out"));
                self.removed = Some(id);
                let removed = node.replication.remove_peer(id as u64);
                let _ = tokio::time::timeout(OPERATION_LIMIT, removed).await;
            }
        }
    }

    /// A disk that does not sync any more: the broker ends its process then.
    async fn fail_syncs(&mut self, id: usize) {
        let Some(node) = self.world.node(id) else { return };
        self.note(&format!("n{id}'s disk fails"));
        node.faults.sync_fails.store(true, Ordering::SeqCst);
        drop(node);
        let ms = self.random.u64(1..300);
        tokio::time::sleep(Duration::from_millis(ms)).await;
        self.crash(id).await;
    }
}
