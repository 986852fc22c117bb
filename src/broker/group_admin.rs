//! Operations on the Raft group that the broker is a replica of: GET_RAFT_STATUS (30001), RAFT_ADD_PEER (30002),
//! RAFT_REMOVE_PEER (30003), RAFT_TRANSFER_LEADER (30004), RAFT_REJOIN (30005). RocketMQ has none of them.
//!
//! Every replica answers the first for itself; the others are the leader's.

use std::sync::Arc;

use super::context::Context;
use super::reply::{Reply, later};
use super::response::Error;
use crate::remoting::body::{RaftMember, RaftStatus};
use crate::remoting::header::{
    RaftAddPeerRequestHeader, RaftPeerRequestHeader, RaftTransferLeaderRequestHeader,
};
use crate::remoting::{Command, ResponseCode};
use crate::replication::{self, GroupStatus, Replication, Role};

/// GET_RAFT_STATUS.
pub(crate) fn status(context: &Context) -> Result<Command, Error> {
    let status = context.replication.status().ok_or(replication::Error::NoGroup)?;
    Ok(Command::response(ResponseCode::Success).with_json(&body(status)))
}

/// RAFT_ADD_PEER. Answers when the replica has a vote, which may take as long as copying the log.
pub(crate) fn add_peer(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let RaftAddPeerRequestHeader { peer_id, peer_address } = request.header()?;
    if !is_host_and_port(&peer_address) {
        return Err(Error::InvalidParameter(format!("peerAddress={peer_address}: expected host:port")));
    }
    tracing::info!(peer = peer_id, address = peer_address, "asked to add a replica");
    Ok(lead(context, async move |group: Replication| group.add_peer(peer_id, &peer_address).await))
}

/// RAFT_REMOVE_PEER.
pub(crate) fn remove_peer(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let RaftPeerRequestHeader { peer_id } = request.header()?;
    tracing::info!(peer = peer_id, "asked to remove a replica");
    Ok(lead(context, async move |group: Replication| group.remove_peer(peer_id).await))
}

/// RAFT_TRANSFER_LEADER. Answers when the other replica leads.
pub(crate) fn transfer_leader(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let RaftTransferLeaderRequestHeader { peer_id } = request.header()?;
    tracing::info!(peer = peer_id, "asked to hand leadership over");
    Ok(lead(context, async move |group: Replication| group.transfer_leader(peer_id).await))
}

/// RAFT_REJOIN. Answers when the replica has a vote again.
pub(crate) fn rejoin(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let RaftPeerRequestHeader { peer_id } = request.header()?;
    tracing::info!(peer = peer_id, "asked to take a replica back");
    Ok(lead(context, async move |group: Replication| group.rejoin(peer_id).await))
}

/// Carries out what only a leader can. It goes on when the client's connection closes: a change of the members that
/// stops half way would leave a learner behind.
fn lead<F>(context: &Arc<Context>, work: impl FnOnce(Replication) -> F + Send + 'static) -> Reply
where
    F: Future<Output = Result<(), replication::Error>> + Send + 'static,
{
    let context = Arc::clone(context);
    let group = context.replication.clone();
    let working = tokio::spawn(async move { work(group).await });
    later(async move {
        match working.await {
            Ok(Ok(())) => Ok(Command::response(ResponseCode::Success)),
            Ok(Err(replication::Error::NotLeader)) => Err(not_leading(&context.replication)),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the group was not changed");
                Err(error.into())
            }
            Err(error) => Err(Error::System(format!("the operation failed: {error}"))),
        }
    })
}

fn not_leading(group: &Replication) -> Error {
    // A clone: the status looks at the role, too.
    let role = group.role().borrow().clone();
    let leader = match role {
        Role::Follower { leader: Some(address), .. } => Some(address),
        _ => group.status().and_then(|status| status.leader_address),
    };
    Error::NotLeading(match leader {
        Some(address) => format!("ask its leader, {address}"),
        None => "it knows no leader at this moment; try again, or look with mqadmin raftStatus".into(),
    })
}

fn is_host_and_port(address: &str) -> bool {
    let parts = address.rsplit_once(':');
    parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
}

fn body(status: GroupStatus) -> RaftStatus {
    let members = status.members.into_iter().map(|member| RaftMember {
        id: member.id,
        lag: member.lag,
        matched_index: member.matched_index.map(|index| index.0),
        raft_address: member.raft_address,
        voter: member.voter,
    });
    RaftStatus {
        applied_index: status.applied_index.0,
        committed_index: status.committed_index.0,
        first_index: status.first_index.0,
        group: status.group,
        id: status.id,
        last_index: status.last_index.0,
        leader_address: status.leader_address,
        leader_changes: status.leader_changes,
        leader_id: status.leader,
        log_end: status.log_end.0,
        log_min: status.log_min.0,
        members: members.collect(),
        outside_reason: status.outside_reason,
        quorum_age_ms: status.quorum_age_ms,
        snapshot_index: status.snapshot_index.map(|index| index.0),
        state: status.state.name().to_owned(),
        term: status.term.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for (address, valid) in [
            ("127.0.0.1:40911", true),
            ("broker-0.brokers.svc:40911", true),
            ("[::1]:40911", true),
            ("127.0.0.1", false),
            (":40911", false),
            ("host:0", false),
            ("host:x", false),
        ] {
            assert_eq!(is_host_and_port(address), valid, "{address}");
        }
    }
}
