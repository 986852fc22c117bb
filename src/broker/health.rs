//! Whether a broker lives, and whether it serves.
//!
//! A broker lives as long as its store does: what is not alive helps nobody until it is started again. It is ready when
//! clients get from it what they may expect of its role: a leader takes writes, a follower has all that was committed
//! when it was asked. A replica without a leader is alive and not ready.

use std::time::Duration;

use super::context::Context;
use crate::replication::{GroupStatus, ReplicaState};

/// How long a follower may take to catch up with what is committed. Probes of Kubernetes wait 1 s by default.
const CATCH_UP_MAX: Duration = Duration::from_millis(700);

/// Says why the broker has to be started again; `Ok` says how it is.
pub(super) fn live(context: &Context) -> Result<String, String> {
    match context.store().failure() {
        Some(reason) => Err(format!("the store failed: {reason}")),
        None => Ok("alive".into()),
    }
}

/// Says what the broker serves as, or why it does not serve.
pub(super) async fn ready(context: &Context) -> Result<String, String> {
    live(context)?;
    let Some(status) = context.replication.status() else { return Ok("master".into()) };
    let serves = of_replica(&status)?;
    if serves == Serves::Reads {
        // The leader alone knows what is committed: how far a follower says that it is behind is what it knew last.
        match tokio::time::timeout(CATCH_UP_MAX, context.replication.read_barrier()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("follower in term {}: {error}", status.term)),
            Err(_) => {
                return Err(format!(
                    "follower in term {}, has applied entry {} and not all that is committed after {} ms",
                    status.term,
                    status.applied_index,
                    CATCH_UP_MAX.as_millis()
                ));
            }
        }
    }
    let role = if serves == Serves::Writes { "leader" } else { "follower" };
    Ok(format!("{role} in term {}", status.term))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    Writes,
    Reads,
}

fn of_replica(status: &GroupStatus) -> Result<Serves, String> {
    let term = status.term;
    match status.state {
        ReplicaState::Leader => Ok(Serves::Writes),
        ReplicaState::Follower if status.leader.is_some() => Ok(Serves::Reads),
        ReplicaState::Follower => Err(format!("follower in term {term}, knows no leader")),
        ReplicaState::LeaderNotReady => Err(match status.quorum_age_ms {
            Some(ms) if ms > 0 => {
                format!("leader in term {term}, a majority last answered {ms} ms ago")
            }
            _ => format!("elected in term {term}, has not applied an entry of it yet"),
        }),
        ReplicaState::Candidate => Err(format!("asks for votes in term {term}; no leader")),
        ReplicaState::Learner => Err(format!(
            "learner in term {term}, copies the log: has applied entry {}, has no vote yet",
            status.applied_index
        )),
        ReplicaState::Outside => Err(match &status.outside_reason {
            Some(reason) => format!("takes no part in its group: {reason}"),
            None => "takes no part in its group".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LogIndex, PhysicalOffset, Term};

    fn status(state: ReplicaState) -> GroupStatus {
        GroupStatus {
            group: "broker-a".into(),
            id: 2,
            state,
            outside_reason: None,
            term: Term(3),
            leader: Some(1),
            leader_address: None,
            first_index: LogIndex(1),
            last_index: LogIndex(9),
            committed_index: LogIndex(9),
            applied_index: LogIndex(8),
            snapshot_index: None,
            log_min: PhysicalOffset(0),
            log_end: PhysicalOffset(0),
            quorum_age_ms: None,
            leader_changes: 0,
            members: Vec::new(),
        }
    }

    #[test]
    fn only_leaders_and_followers_of_a_leader_serve() {
        assert_eq!(of_replica(&status(ReplicaState::Leader)), Ok(Serves::Writes));
        assert_eq!(of_replica(&status(ReplicaState::Follower)), Ok(Serves::Reads));
        let refused = |status: GroupStatus| of_replica(&status).unwrap_err();
        let alone = GroupStatus { leader: None, ..status(ReplicaState::Follower) };
        assert_eq!(refused(alone), "follower in term 3, knows no leader");
        let silent = GroupStatus { quorum_age_ms: Some(900), ..status(ReplicaState::LeaderNotReady) };
        assert_eq!(refused(silent), "leader in term 3, a majority last answered 900 ms ago");
        assert_eq!(
            refused(status(ReplicaState::LeaderNotReady)),
            "elected in term 3, has not applied an entry of it yet"
        );
        assert_eq!(refused(status(ReplicaState::Candidate)), "asks for votes in term 3; no leader");
        assert_eq!(
            refused(status(ReplicaState::Learner)),
            "learner in term 3, copies the log: has applied entry 8, has no vote yet"
        );
        let outside =
            GroupStatus { outside_reason: Some("its disk is new".into()), ..status(ReplicaState::Outside) };
        assert_eq!(refused(outside), "takes no part in its group: its disk is new");
    }
}
