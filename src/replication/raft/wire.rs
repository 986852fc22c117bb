//! The messages of `proto/raft.proto`, and what they are in openraft's types.
//!
//! What comes in is checked here: a message that lacks a field, or whose entries do not follow each other, is
//! [`Malformed`] and never reaches openraft, which takes such things for bugs.

use std::io;

use bytes::Bytes;
use openraft::raft::{
    self, AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
};

use super::codec;
use super::types::{self, Entry, LeaderId, Payload, SnapshotMeta, StoredMembership, Types};

#[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]
mod generated {
    tonic::include_proto!("quorate.raft.v1");
}

pub(super) use generated::*;

/// A message that cannot be understood: what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(String);

impl Malformed {
    fn missing(what: &str) -> Self {
        Self(format!("the message has no {what}"))
    }
}

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        Self::invalid_argument(malformed.0)
    }
}

impl From<types::LogId> for LogId {
    fn from(id: types::LogId) -> Self {
        Self { term: id.committed_leader_id().term, index: id.index() }
    }
}

impl From<LogId> for types::LogId {
    fn from(id: LogId) -> Self {
        types::log_id(id.term, id.index)
    }
}

impl From<types::Vote> for Vote {
    fn from(vote: types::Vote) -> Self {
        Self { term: vote.leader_id.term, node_id: vote.leader_id.voted_for, committed: vote.committed }
    }
}

impl From<Vote> for types::Vote {
    fn from(vote: Vote) -> Self {
        Self { leader_id: LeaderId { term: vote.term, voted_for: vote.node_id }, committed: vote.committed }
    }
}

/// Returns a member as it is told to others.
pub(super) fn member(id: u64, member: &types::Member, voter: bool) -> Member {
    Member {
        id,
        raft_address: member.raft_address.clone(),
        identity: identity_to_bytes(member.identity),
        voter,
    }
}

pub(super) fn identity_to_bytes(identity: u128) -> Bytes {
    Bytes::copy_from_slice(&identity.to_be_bytes())
}

pub(super) fn identity_from_bytes(bytes: &[u8]) -> Result<u128, Malformed> {
    let bytes = bytes
        .try_into()
        .map_err(|_| Malformed(format!("an identity has 16 bytes, this one {}", bytes.len())))?;
    Ok(u128::from_be_bytes(bytes))
}

/// Returns the request for a vote as it is sent to `target`.
pub(super) fn vote_request(target: Target, request: &raft::VoteRequest<Types>) -> VoteRequest {
    VoteRequest {
        target: Some(target),
        vote: Some(request.vote.into()),
        last_log_id: request.last_log_id.map(Into::into),
        leadership_transfer: request.leadership_transfer,
    }
}

impl TryFrom<VoteRequest> for raft::VoteRequest<Types> {
    type Error = Malformed;

    fn try_from(request: VoteRequest) -> Result<Self, Malformed> {
        let vote: types::Vote = request.vote.ok_or_else(|| Malformed::missing("vote"))?.into();
        if vote.committed {
            return Err(Malformed(format!("the vote {vote} of a candidate is a leader's")));
        }
        let mut made = Self::new(vote, request.last_log_id.map(Into::into));
        made.leadership_transfer = request.leadership_transfer;
        Ok(made)
    }
}

impl From<raft::VoteResponse<Types>> for VoteResponse {
    fn from(response: raft::VoteResponse<Types>) -> Self {
        Self {
            vote: Some(response.vote.into()),
            granted: response.vote_granted,
            last_log_id: response.last_log_id.map(Into::into),
        }
    }
}

impl TryFrom<VoteResponse> for raft::VoteResponse<Types> {
    type Error = Malformed;

    fn try_from(response: VoteResponse) -> Result<Self, Malformed> {
        let vote: types::Vote = response.vote.ok_or_else(|| Malformed::missing("vote"))?.into();
        Ok(Self::new(vote, response.last_log_id.map(Into::into), response.granted))
    }
}

/// Returns the request for entries as it is sent; without a target, which the first one of a stream needs.
pub(super) fn append_request(request: AppendEntriesRequest<Types>) -> Result<AppendRequest, Malformed> {
    Ok(AppendRequest {
        target: None,
        vote: Some(request.vote.into()),
        prev_log_id: request.prev_log_id.map(Into::into),
        leader_commit: request.leader_commit.map(Into::into),
        entries: request.entries.into_iter().map(entry_bytes).collect::<Result<_, _>>()?,
    })
}

fn entry_bytes(entry: Entry) -> Result<Bytes, Malformed> {
    match entry.payload {
        Payload::Stored(stored) => Ok(stored.bytes),
        Payload::Blank | Payload::Proposal(_) | Payload::Membership(_) => {
            Err(Malformed(format!("the entry {} has no bytes yet", entry.log_id)))
        }
    }
}

/// Returns a received request for entries; `decode` makes an entry of its bytes.
pub(super) fn append_entries(
    request: AppendRequest,
    decode: fn(Bytes) -> io::Result<Entry>,
) -> Result<AppendEntriesRequest<Types>, Malformed> {
    let vote = leader_vote(request.vote)?;
    let prev_log_id = request.prev_log_id.map(types::LogId::from);
    let mut entries = Vec::with_capacity(request.entries.len());
    let mut last = prev_log_id;
    for bytes in request.entries {
        let entry = decode(bytes).map_err(|error| Malformed(format!("an entry cannot be read: {error}")))?;
        check_follows(last, &entry)?;
        last = Some(entry.log_id);
        entries.push(entry);
    }
    if last.is_some_and(|last| last.committed_leader_id().term > vote.leader_id.term) {
        return Err(Malformed(format!("the leader {vote} has entries of a later term")));
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit: request.leader_commit.map(Into::into),
    })
}

fn check_follows(last: Option<types::LogId>, entry: &Entry) -> Result<(), Malformed> {
    let next = last.map_or(Some(0), |last| last.index().checked_add(1));
    let in_order = last.is_none_or(|last| last.committed_leader_id() <= entry.log_id.committed_leader_id());
    if next == Some(entry.log_id.index()) && in_order {
        return Ok(());
    }
    let last = last.map_or_else(|| "the start".to_owned(), |last| last.to_string());
    Err(Malformed(format!("the entry {} does not follow {last}", entry.log_id)))
}

fn leader_vote(vote: Option<Vote>) -> Result<types::Vote, Malformed> {
    let vote: types::Vote = vote.ok_or_else(|| Malformed::missing("vote"))?.into();
    if vote.committed { Ok(vote) } else { Err(Malformed(format!("the vote {vote} is no leader's"))) }
}

impl From<StreamAppendResult<Types>> for AppendResponse {
    fn from(result: StreamAppendResult<Types>) -> Self {
        let result = match result {
            Ok(last) => append_response::Result::Accepted(Accepted { last: last.map(Into::into) }),
            Err(StreamAppendError::Conflict(at)) => append_response::Result::Conflict(at.into()),
            Err(StreamAppendError::HigherVote(vote)) => append_response::Result::HigherVote(vote.into()),
        };
        Self { result: Some(result) }
    }
}

/// Returns what the answer to a request for entries says.
pub(super) fn append_result(response: AppendResponse) -> Result<StreamAppendResult<Types>, Malformed> {
    match response.result.ok_or_else(|| Malformed::missing("result"))? {
        append_response::Result::Accepted(accepted) => Ok(Ok(accepted.last.map(Into::into))),
        append_response::Result::Conflict(at) => Ok(Err(StreamAppendError::Conflict(at.into()))),
        append_response::Result::HigherVote(vote) => Ok(Err(StreamAppendError::HigherVote(vote.into()))),
    }
}

/// Returns the head of a snapshot whose chunks carry `size` bytes.
pub(super) fn snapshot_head(
    target: Target,
    vote: types::Vote,
    meta: &SnapshotMeta,
    size: u64,
) -> SnapshotHead {
    SnapshotHead {
        target: Some(target),
        vote: Some(vote.into()),
        last_log_id: meta.last_log_id.map(Into::into),
        membership_log_id: meta.last_membership.log_id().map(Into::into),
        membership: codec::membership_to_bytes(meta.last_membership.membership()).into(),
        size,
    }
}

/// Returns the leader's vote and what the snapshot covers.
pub(super) fn snapshot_meta(head: SnapshotHead) -> Result<(types::Vote, SnapshotMeta), Malformed> {
    let vote = leader_vote(head.vote)?;
    let membership = codec::membership_from_bytes(&head.membership)
        .map_err(|error| Malformed(format!("the membership of a snapshot cannot be read: {error}")))?;
    let last_membership = StoredMembership::new(head.membership_log_id.map(Into::into), membership);
    Ok((vote, SnapshotMeta { last_log_id: head.last_log_id.map(Into::into), last_membership }))
}

impl TryFrom<SnapshotResponse> for raft::SnapshotResponse<Types> {
    type Error = Malformed;

    fn try_from(response: SnapshotResponse) -> Result<Self, Malformed> {
        Ok(Self::new(response.vote.ok_or_else(|| Malformed::missing("vote"))?.into()))
    }
}

/// Returns the request to let a replica take over as it is sent.
pub(super) fn transfer_request(
    target: Target,
    request: &raft::TransferLeaderRequest<Types>,
) -> TransferLeaderRequest {
    TransferLeaderRequest {
        target: Some(target),
        from_leader: Some((*request.from_leader()).into()),
        last_log_id: request.last_log_id().copied().map(Into::into),
        next_leader: *request.to_node_id(),
    }
}

/// Returns a received request to let a replica take over.
pub(super) fn transfer_leader(
    request: TransferLeaderRequest,
) -> Result<raft::TransferLeaderRequest<Types>, Malformed> {
    let from = leader_vote(request.from_leader)?;
    let last_log_id = request.last_log_id.map(Into::into);
    Ok(raft::TransferLeaderRequest::new(from, request.next_leader, last_log_id))
}

impl From<raft::TransferLeaderResponse<Types>> for TransferLeaderResponse {
    fn from(response: raft::TransferLeaderResponse<Types>) -> Self {
        use transfer_leader_response::Refused;
        let refused = response.err().map(|error| match error {
            TransferLeaderError::VoteChanged { expected, actual } => Refused::VoteChanged(VoteChanged {
                expected: Some(expected.into()),
                actual: Some(actual.into()),
            }),
            TransferLeaderError::LogNotFlushed { expected, actual } => {
                Refused::LogNotFlushed(LogNotFlushed {
                    expected: expected.map(Into::into),
                    actual: actual.map(Into::into),
                })
            }
        });
        Self { refused }
    }
}

/// Returns what the answer to a request to take over says.
pub(super) fn transfer_result(
    response: TransferLeaderResponse,
) -> Result<raft::TransferLeaderResponse<Types>, Malformed> {
    use transfer_leader_response::Refused;
    Ok(match response.refused {
        None => Ok(()),
        Some(Refused::VoteChanged(votes)) => Err(TransferLeaderError::VoteChanged {
            expected: votes.expected.ok_or_else(|| Malformed::missing("expected vote"))?.into(),
            actual: votes.actual.ok_or_else(|| Malformed::missing("actual vote"))?.into(),
        }),
        Some(Refused::LogNotFlushed(ids)) => Err(TransferLeaderError::LogNotFlushed {
            expected: ids.expected.map(Into::into),
            actual: ids.actual.map(Into::into),
        }),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::model::PhysicalOffset;
    use crate::replication::raft::types::{Membership, Stored, log_id};

    /// An entry in these tests is its term and its index.
    fn decode(bytes: Bytes) -> io::Result<Entry> {
        let (term, index) = bytes.split_first().ok_or_else(|| io::Error::other("it is empty"))?;
        let index = index.first().copied().unwrap_or(0);
        let stored = Stored { position: PhysicalOffset(0), bytes: bytes.clone(), membership: None };
        Ok(Entry { log_id: log_id(u64::from(*term), u64::from(index)), payload: Payload::Stored(stored) })
    }

    fn leader(term: u64) -> types::Vote {
        types::Vote::new_committed(term, 1)
    }

    fn request(prev: Option<types::LogId>, entries: &[[u8; 2]]) -> AppendRequest {
        AppendRequest {
            target: None,
            vote: Some(leader(7).into()),
            prev_log_id: prev.map(Into::into),
            leader_commit: Some(log_id(5, 2).into()),
            entries: entries.iter().map(|entry| Bytes::copy_from_slice(entry)).collect(),
        }
    }

    #[test]
    fn entries_come_back_as_they_were_sent() {
        let sent = request(Some(log_id(5, 2)), &[[5, 3], [7, 4]]);
        let received = append_entries(sent.clone(), decode).unwrap();
        assert_eq!(received.vote, leader(7));
        assert_eq!(received.prev_log_id, Some(log_id(5, 2)));
        assert_eq!(received.leader_commit, Some(log_id(5, 2)));
        assert_eq!(received.entries.len(), 2);
        assert_eq!(append_request(received).unwrap(), sent);
    }

    #[test]
    fn malformed_entries_are_refused_with_a_reason() {
        let check = |request, reason: &str| {
            let error = append_entries(request, decode).unwrap_err().to_string();
            assert!(error.contains(reason), "{error:?} does not say {reason:?}");
        };
        check(AppendRequest { vote: None, ..request(None, &[]) }, "no vote");
        let candidate = types::Vote::new(7, 1).into();
        check(AppendRequest { vote: Some(candidate), ..request(None, &[]) }, "no leader's");
        check(
            AppendRequest { entries: vec![Bytes::new()], ..request(None, &[]) },
            "cannot be read: it is empty",
        );
        check(request(None, &[[5, 1]]), "does not follow the start");
        check(request(Some(log_id(5, 2)), &[[5, 3], [5, 5]]), "does not follow");
        check(request(Some(log_id(5, 2)), &[[4, 3]]), "does not follow");
        check(request(Some(log_id(5, u64::MAX)), &[[5, 0]]), "does not follow");
        check(request(Some(log_id(5, 2)), &[[8, 3]]), "later term");
        check(request(Some(log_id(8, 2)), &[]), "later term");
    }

    #[test]
    fn an_entry_without_bytes_is_not_sent() {
        let entry = Entry { log_id: log_id(1, 0), payload: Payload::Blank };
        let request = AppendEntriesRequest {
            vote: leader(1),
            prev_log_id: None,
            entries: vec![entry],
            leader_commit: None,
        };
        assert!(append_request(request).unwrap_err().to_string().contains("has no bytes yet"));
    }

    #[test]
    fn answers_come_back_as_they_were_given() {
        for result in [
            Ok(None),
            Ok(Some(log_id(3, 9))),
            Err(StreamAppendError::Conflict(log_id(2, 4))),
            Err(StreamAppendError::HigherVote(types::Vote::new(9, 3))),
        ] {
            assert_eq!(append_result(result.clone().into()).unwrap(), result);
        }
        assert!(append_result(AppendResponse { result: None }).is_err());
    }

    #[test]
    fn votes_come_back_as_they_were_given() {
        let target = Target { group: "g".into(), from: 1, to: 2 };
        let mut asked = raft::VoteRequest::<Types>::new(types::Vote::new(4, 1), Some(log_id(3, 9)));
        asked.leadership_transfer = true;
        let sent = vote_request(target, &asked);
        assert_eq!(raft::VoteRequest::try_from(sent.clone()).unwrap(), asked);
        let without = VoteRequest { vote: None, ..sent.clone() };
        assert!(raft::VoteRequest::try_from(without).is_err());
        let committed = VoteRequest { vote: Some(leader(4).into()), ..sent };
        assert!(raft::VoteRequest::try_from(committed).is_err());

        let answer = raft::VoteResponse::<Types>::new(leader(5), None, false);
        assert_eq!(raft::VoteResponse::try_from(VoteResponse::from(answer.clone())).unwrap(), answer);
        assert!(raft::VoteResponse::try_from(VoteResponse::default()).is_err());
    }

    #[test]
    fn the_head_of_a_snapshot_comes_back_as_it_was_sent() {
        let address = "host.example:40911".to_owned();
        let nodes = BTreeMap::from([(1, types::Member { raft_address: address, identity: 7 << 100 })]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).unwrap();
        let last_membership = StoredMembership::new(Some(log_id(1, 0)), membership);
        let meta = SnapshotMeta { last_log_id: Some(log_id(2, 8)), last_membership };
        let head = snapshot_head(Target::default(), leader(2), &meta, 77);
        assert_eq!(head.size, 77);
        assert_eq!(snapshot_meta(head.clone()).unwrap(), (leader(2), meta));
        assert!(
            snapshot_meta(SnapshotHead { membership: Bytes::from_static(b"?"), ..head.clone() }).is_err()
        );
        assert!(snapshot_meta(SnapshotHead { vote: None, ..head }).is_err());
    }

    #[test]
    fn a_transfer_and_its_refusal_come_back_as_they_were_sent() {
        let asked = raft::TransferLeaderRequest::<Types>::new(leader(3), 2, Some(log_id(3, 1)));
        let sent = transfer_request(Target { to: 3, ..Target::default() }, &asked);
        assert_eq!(transfer_leader(sent).unwrap(), asked);
        for answer in [
            Ok(()),
            Err(TransferLeaderError::VoteChanged { expected: leader(3), actual: types::Vote::new(4, 3) }),
            Err(TransferLeaderError::LogNotFlushed { expected: Some(log_id(3, 1)), actual: None }),
        ] {
            assert_eq!(transfer_result(answer.clone().into()).unwrap(), answer);
        }
    }

    #[test]
    fn an_identity_has_sixteen_bytes() {
        assert_eq!(identity_from_bytes(&identity_to_bytes(u128::MAX - 5)), Ok(u128::MAX - 5));
        assert!(identity_from_bytes(&[1, 2]).is_err());
    }
}
