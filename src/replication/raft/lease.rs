//! Since when a majority is known to follow this replica: what reads of a leader rest on.
//!
//! A voter does not vote for another replica within `election_max_ms` after it heard from its leader. So nobody else
//! leads as long as a majority answered requests that were sent less than that ago. The times are measured here, at
//! the connections: openraft's own lease counts an answer as one to all requests that end at the same entry, also to
//! one that was sent after a pause (`InflightAppendQueue::drain_acked` of 0.10.0-alpha.37), and its voters forget the
//! lease when they restart.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use tokio::time::Instant;

use super::group::Group;
use super::types::Raft;
use crate::model::{LogIndex, Term};
use crate::replication::{Error, Role};

/// How long a leader waits for a majority to answer.
const CONFIRM_LIMIT: Duration = Duration::from_secs(1);

/// An answered request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Heard {
    pub(super) term: u64,
    /// When it was sent.
    pub(super) at: Instant,
}

impl Group {
    /// How long a voter keeps to the leader that it heard from.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.settings.election_max_ms)
    }

    /// Returns the last time at which a majority surely followed this replica in a term.
    pub(super) fn followed_at(&self, raft: &Raft, term: Term) -> Option<Instant> {
        let heard = self.connections.heard(term.0);
        let metrics = raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let since =
            |id: &u64| if *id == self.settings.id { Some(Instant::now()) } else { heard.get(id).copied() };
        // Of a joint membership each half needs its majority.
        let config = metrics.membership_config.membership().get_joint_config();
        let majorities = config.iter().map(|voters| {
            let mut times: Vec<_> = voters.iter().map(since).collect();
            times.sort_unstable();
            times.iter().rev().nth(voters.len() / 2).copied().flatten()
        });
        majorities.min().flatten()
    }

    /// Whether a majority followed this replica in a term so recently that it follows nobody else yet.
    pub(super) fn is_followed(&self, raft: &Raft, term: Term) -> bool {
        self.followed_at(raft, term).is_some_and(|at| at.elapsed() < self.lease())
    }

    pub(crate) fn holds_lease(&self) -> bool {
        let Role::Leader(term) = *self.role.borrow() else { return false };
        !self.has_given_up(term) && self.raft.get().is_some_and(|raft| self.is_followed(raft, term))
    }

    /// Waits until a majority has answered this replica, as the leader, something that was sent after this was called.
    /// Returns the last entry that was applied when it was called.
    pub(super) async fn confirm(&self, raft: &Raft) -> Result<LogIndex, Error> {
        let start = Instant::now();
        let Role::Leader(term) = *self.role.borrow() else { return Err(Error::NotLeader) };
        // What was acknowledged is applied.
        let applied = self.shared.applied().map_or(LogIndex(0), |id| LogIndex(id.index()));
        let mut answers = self.connections.answers();
        raft.trigger().heartbeat().await.map_err(|error| Error::Failed(error.to_string()))?;
        let confirmed = async {
            while self.followed_at(raft, term).is_none_or(|at| at < start) {
                if answers.changed().await.is_err() {
                    return;
                }
            }
        };
        match tokio::time::timeout(CONFIRM_LIMIT, confirmed).await {
            Ok(()) => Ok(applied),
            Err(_) => Err(Error::NotLeader),
        }
    }

    /// Waits until it is sure that no other replica leads now.
    pub(crate) async fn confirm_leader(&self) -> Result<(), Error> {
        match self.raft.get() {
            Some(_) if self.is_handing_over() => Err(Error::NotLeader),
            Some(raft) => self.confirm(raft).await.map(|_| ()),
            None => Err(Error::NotLeader),
        }
    }

    /// Returns how long this replica may not vote yet: before it restarted it may have told a leader that it follows.
    pub(super) fn vote_rest(&self) -> Option<Duration> {
        self.quiet_until?.checked_duration_since(Instant::now()).filter(|rest| !rest.is_zero())
    }
}
