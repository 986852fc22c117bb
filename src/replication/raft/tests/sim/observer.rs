//! Looks at all replicas every few milliseconds and at each fault, and has the invariants check what it sees.

use openraft::async_runtime::WatchReceiver as _;

use super::super::cluster::Node;
use super::invariants::{self, Invariant};
use super::ledger::{Changes, Ledger, Shadow};
use super::world::World;
use crate::replication::FlushMode;
use crate::replication::raft::codec::term_of;
use crate::replication::raft::types::{LogId, Vote};

/// A replica that runs, at one moment.
#[derive(Debug)]
pub(super) struct View {
    pub(super) id: usize,
    /// Counts the starts.
    pub(super) incarnation: u64,
    pub(super) vote: Vote,
    /// As its file has it.
    pub(super) saved_vote: Option<Vote>,
    /// Its disk fails: what its files show may not be durable.
    pub(super) broken: bool,
    /// It leads, as openraft sees it.
    pub(super) leads: bool,
    pub(super) purged: Option<u64>,
    pub(super) snapshot: Option<u64>,
    pub(super) applied: Option<u64>,
    pub(super) committed: Option<u64>,
    /// Index and term of the last committed entry, if it is in the log.
    pub(super) committed_here: Option<(u64, u64)>,
    pub(super) last: Option<u64>,
    /// What its state machine applied last: index, CRC, end.
    pub(super) machine: Option<(u64, u32, u64)>,
    pub(super) changes: Changes,
    /// Up to where its log stands in the file.
    pub(super) written: u64,
    pub(super) failure: Option<String>,
}

/// What the invariants are about.
pub(super) struct Moment<'a> {
    pub(super) world: &'a World,
    /// Of the replicas that run and take part.
    pub(super) views: &'a [View],
    /// Of all replicas.
    pub(super) logs: &'a [Shadow],
    pub(super) ledger: &'a Ledger,
    /// The first entry of the ledger that is new.
    pub(super) fresh: usize,
}

/// A log as a replica found it at its start, before it takes part again.
pub(super) struct Recovered<'a> {
    pub(super) id: usize,
    /// Against the last look at the process before.
    pub(super) changes: &'a Changes,
    /// Up to where the log of the process before was durable.
    pub(super) durable: u64,
    pub(super) ledger: &'a Ledger,
}

pub(super) struct Observer {
    logs: Vec<Shadow>,
    pub(super) ledger: Ledger,
    invariants: Vec<Box<dyn Invariant>>,
    /// What was last written down of each replica.
    told: Vec<String>,
}

impl Observer {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            logs: (0..nodes).map(|_| Shadow::default()).collect(),
            ledger: Ledger::default(),
            invariants: invariants::all(),
            told: vec![String::new(); nodes],
        }
    }

    /// Looks at everything once. An error says which invariant does not hold, and why.
    pub(super) fn look(&mut self, world: &World) -> Result<(), String> {
        let sync = world.shape.flush == FlushMode::Sync;
        let fresh = self.ledger.entries.len();
        let mut views = Vec::new();
        for node in world.running() {
            if node.group().raft.get().is_none() {
                continue;
            }
            let changes = self.logs[node.id].look(&node, sync);
            // What else a dead process has in memory was not said to anybody.
            if node.faults.is_dead() {
                continue;
            }
            let Some(view) = view(world, &node, &self.logs[node.id], changes) else { continue };
            if let Some((committed, _)) = view.committed_here {
                let log = &self.logs[node.id];
                self.ledger.take(&node, log, committed, view.vote.leader_id.term);
            }
            self.tell(world, &view);
            views.push(view);
        }
        let moment = Moment { world, views: &views, logs: &self.logs, ledger: &self.ledger, fresh };
        for invariant in &mut self.invariants {
            invariant.check(&moment).map_err(|error| format!("{}: {error}", invariant.name()))?;
        }
        Ok(())
    }

    /// Looks at the log of a replica that was just opened.
    pub(super) fn recovered(&mut self, world: &World, node: &Node) -> Result<(), String> {
        let log = &mut self.logs[node.id];
        let durable = log.durable;
        let changes = log.look(node, world.shape.flush == FlushMode::Sync);
        let recovered = Recovered { id: node.id, changes: &changes, durable, ledger: &self.ledger };
        for invariant in &mut self.invariants {
            let checked = invariant.recovered(&recovered);
            checked.map_err(|error| format!("{}: {error}", invariant.name()))?;
        }
        Ok(())
    }

    fn tell(&mut self, world: &World, view: &View) {
        let View { id, vote, leads, purged, snapshot, committed, .. } = view;
        let text = format!("n{id} {vote} leads {leads} purged {purged:?} snapshot {snapshot:?}");
        if self.told[*id] != text {
            world.trace.line(&text);
            self.told[*id] = text;
        }
        let numbers = [*id as u64, committed.unwrap_or(0), view.last.unwrap_or(0), view.applied.unwrap_or(0)];
        world.trace.numbers("log", &numbers);
    }
}

fn view(world: &World, node: &Node, log: &Shadow, changes: Changes) -> Option<View> {
    let group = node.group();
    let raft = group.raft.get()?;
    let metrics = raft.metrics();
    let metrics = metrics.borrow_watched();
    let index = |id: &Option<LogId>| id.as_ref().map(|id| id.index());
    Some(View {
        id: node.id,
        incarnation: world.incarnation(node.id),
        vote: metrics.vote,
        saved_vote: group.shared.files.vote().ok().flatten(),
        broken: world.is_broken(node.id),
        leads: metrics.state.is_leader(),
        purged: index(&metrics.purged),
        snapshot: index(&metrics.snapshot),
        applied: index(&metrics.last_applied),
        committed: index(&metrics.local_committed),
        committed_here: metrics.local_committed.map(|id| (id.index(), term_of(&id))).filter(
            |(index, term)| {
                // While a snapshot is installed, what it contains counts as committed, and other entries are still there.
                log.entries.get(index).is_some_and(|seen| seen.term == *term)
            },
        ),
        last: metrics.last_log_index,
        machine: group.shared.applied_to(),
        changes,
        written: node.store().log().written().0,
        failure: node.failure().cloned(),
    })
}
