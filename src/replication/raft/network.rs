//! The way to the other replicas: what openraft asks of them, and what the group asks besides.
//!
//! Three connections lead to each replica, so that a beat never waits behind a megabyte: one for entries, one for
//! heartbeats and votes, one for snapshots. tonic makes each when it is first used, again after it has broken, and
//! looks the host name up each time. A replica that is gone is noticed by HTTP/2 pings within seconds, one that
//! answers pings but no requests by [`Timing::patience`].

use std::collections::HashMap;
use std::error::Error as _;
use std::future::Future;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RPCTypes,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RaftNetworkFactory};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

use super::lease::Heard;
use super::sockets::Sockets;
use super::types::{Image, Member, Snapshot, Types, Vote};
use super::window::{self, Requests, Window};
use super::wire::{self, raft_client::RaftClient};

/// What may be on its way in one stream before the receiver has taken it.
pub(super) const STREAM_WINDOW: u32 = 8 << 20;
/// The same for all streams of a connection.
pub(super) const CONNECTION_WINDOW: u32 = 16 << 20;
/// Largest HTTP/2 frame; at the default of 16 KiB a request would be dozens of them.
pub(super) const FRAME_MAX: u32 = 1 << 20;
/// Largest message: one entry may be larger than a usual request.
pub(super) const MESSAGE_MAX: usize = 64 << 20;
/// A connection that was silent for so long is asked for a sign of life,
pub(super) const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// and is closed if none comes for so long.
pub(super) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a snapshot in one message.
const CHUNK: usize = 1 << 20;
/// Waits between attempts to reach a replica, in milliseconds; the last one again and again.
const RETRY_MS: [u64; 3] = [20, 50, 100];

/// Which replica of which group this is.
#[derive(Debug, Clone)]
pub(super) struct Replica {
    pub(super) group: String,
    pub(super) id: u64,
}

impl Replica {
    /// Returns what a request to the replica `to` says about its ends.
    pub(super) fn target(&self, to: u64) -> wire::Target {
        wire::Target { group: self.group.clone(), from: self.id, to }
    }

    /// Refuses a request that is meant for another replica.
    pub(super) fn check(&self, target: Option<&wire::Target>) -> Result<(), Status> {
        let Some(target) = target else {
            return Err(Status::invalid_argument("the request does not say for which replica it is"));
        };
        if target.group == self.group && target.to == self.id {
            return Ok(());
        }
        Err(Status::failed_precondition(format!(
            "this is replica {} of group {:?}; the request of replica {} is for replica {} of group {:?}",
            self.id, self.group, target.from, target.to, target.group
        )))
    }
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// For a connection. Short: the first packet to a host that is just starting is lost, and the kernel would
    /// repeat it only after a second.
    pub(super) connect: Duration,
    /// For an answer to entries, counted from the last one. Long: a replica answers when it has synced, and what it
    /// did not answer would only be sent to it once more.
    pub(super) patience: Duration,
}

impl Timing {
    /// Returns what fits a group with that time between two heartbeats.
    pub(super) fn new(heartbeat: Duration) -> Self {
        Self {
            connect: (heartbeat * 4).clamp(Duration::from_millis(200), Duration::from_secs(2)),
            patience: (heartbeat * 40).max(Duration::from_secs(10)),
        }
    }
}

/// The connections to all other replicas. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    replica: Replica,
    timing: Timing,
    peers: Arc<Mutex<HashMap<u64, Arc<Peer>>>>,
    heard: Answered,
    sockets: Sockets,
}

/// The newest entries or beats that each replica has answered.
type Answered = watch::Sender<HashMap<u64, Heard>>;

impl Connections {
    pub(super) fn new(replica: Replica, timing: Timing, sockets: Sockets) -> Self {
        Self { replica, timing, peers: Arc::default(), heard: Answered::default(), sockets }
    }

    pub(super) fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// Returns when the last entries or beats of a term were sent to each replica that it has answered.
    pub(super) fn heard(&self, term: u64) -> HashMap<u64, Instant> {
        let heard = self.heard.borrow();
        let of_term = heard.iter().filter(|(_, heard)| heard.term == term);
        of_term.map(|(id, heard)| (*id, heard.at)).collect()
    }

    /// Tells whenever a replica has answered.
    pub(super) fn answers(&self) -> watch::Receiver<HashMap<u64, Heard>> {
        self.heard.subscribe()
    }

    /// Asks the leader up to where a read must have applied the log. An error says why there is no answer.
    pub(super) async fn read_index(&self, to: u64, address: &str, limit: Duration) -> Result<u64, String> {
        let peer = self.peer(to, address);
        let mut client = peer.client(Lane::Beat)?;
        let request = wire::ReadIndexRequest { target: Some(peer.target.clone()) };
        let response = within(limit, carried(&peer.target, client.read_index(request))).await?;
        Ok(response.index)
    }

    /// Fetches committed entries: the first of those asked for, as many as go into an answer.
    pub(super) async fn fetch(
        &self,
        to: u64,
        address: &str,
        indexes: RangeInclusive<u64>,
        limit: Duration,
    ) -> Result<Vec<Bytes>, String> {
        let peer = self.peer(to, address);
        let mut client = peer.client(Lane::Bulk)?;
        let request = wire::FetchRequest {
            target: Some(peer.target.clone()),
            first_index: *indexes.start(),
            last_index: *indexes.end(),
        };
        Ok(within(limit, carried(&peer.target, client.fetch(request))).await?.entries)
    }

    fn peer(&self, id: u64, address: &str) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get(&id).filter(|peer| peer.address == address) {
            return peer.clone();
        }
        let target = self.replica.target(id);
        let peer = Arc::new(Peer::new(&self.sockets, target, address, self.timing, self.heard.clone()));
        peers.insert(id, peer.clone());
        peer
    }

    fn network(&self, id: u64, member: &Member, entries: Lane) -> Network {
        Network { peer: self.peer(id, &member.raft_address), entries, patience: self.timing.patience }
    }
}

/// Asks whoever is at `address` who it is, over a connection of its own. An error says why there is no answer.
pub(super) async fn hello(
    sockets: &Sockets,
    address: &str,
    target: wire::Target,
    limit: Duration,
) -> Result<wire::HelloResponse, String> {
    let channel = sockets.channel(&endpoint(address, limit)?);
    let request = wire::HelloRequest { target: Some(target.clone()) };
    let mut client = client(channel);
    within(limit, carried(&target, client.hello(request))).await
}

/// Makes a call. Tests can cut the way there and the way back.
async fn carried<T>(target: &wire::Target, call: impl Future<Output = T>) -> T {
    #[cfg(test)]
    super::links::pass(&target.group, target.from, target.to).await;
    let answer = call.await;
    #[cfg(test)]
    super::links::pass(&target.group, target.to, target.from).await;
    #[cfg(not(test))]
    let _ = target;
    answer
}

/// Waits for one of several answers, likewise.
async fn carried_back<T>(target: &wire::Target, answer: impl Future<Output = T>) -> T {
    let answer = answer.await;
    #[cfg(test)]
    super::links::pass(&target.group, target.to, target.from).await;
    #[cfg(not(test))]
    let _ = target;
    answer
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(describe(&status)),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}

/// Returns what a failed call says, and its first cause.
fn describe(status: &Status) -> String {
    let text = match status.message() {
        "" => status.code().description(),
        text => text,
    };
    let cause =
        std::iter::successors(status.source(), |&error| error.source()).last().map(ToString::to_string);
    match cause {
        Some(cause) if !text.contains(&cause) => format!("{text}: {cause}"),
        _ => text.to_owned(),
    }
}

fn endpoint(address: &str, connect: Duration) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address:?} is no host:port: {error}"))?;
    if endpoint.uri().port_u16().is_none() {
        return Err(format!("{address:?} is no host:port: it has no port"));
    }
    Ok(endpoint
        .connect_timeout(connect)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

fn client(channel: Channel) -> RaftClient<Channel> {
    RaftClient::new(channel).max_decoding_message_size(MESSAGE_MAX).max_encoding_message_size(MESSAGE_MAX)
}

/// What a connection is for.
#[derive(Debug, Clone, Copy)]
enum Lane {
    Entries,
    Beat,
    Bulk,
}

/// Another replica.
#[derive(Debug)]
struct Peer {
    address: String,
    target: wire::Target,
    channels: Result<Channels, String>,
    heard: Answered,
}

#[derive(Debug)]
struct Channels {
    entries: Channel,
    beat: Channel,
    bulk: Channel,
}

impl Peer {
    fn new(sockets: &Sockets, target: wire::Target, address: &str, timing: Timing, heard: Answered) -> Self {
        let channels = endpoint(address, timing.connect).map(|endpoint| Channels {
            entries: sockets.channel(&endpoint),
            beat: sockets.channel(&endpoint),
            bulk: sockets.channel(&endpoint),
        });
        Self { address: address.to_owned(), target, channels, heard }
    }

    fn hear(&self, heard: Heard) {
        self.heard.send_modify(|newest| {
            let newest = newest.entry(self.target.to).or_insert(heard);
            *newest = (*newest).max(heard);
        });
    }

    fn client(&self, lane: Lane) -> Result<RaftClient<Channel>, String> {
        let channels = self.channels.as_ref().map_err(Clone::clone)?;
        Ok(client(match lane {
            Lane::Entries => channels.entries.clone(),
            Lane::Beat => channels.beat.clone(),
            Lane::Bulk => channels.bulk.clone(),
        }))
    }

    /// Every failure but a time-out is this one: it makes openraft wait before the next attempt.
    fn unreachable(&self, reason: impl std::fmt::Display) -> Unreachable<Types> {
        Unreachable::from_string(format!("replica {} at {}: {reason}", self.target.to, self.address))
    }

    fn timeout(&self, action: RPCTypes, timeout: Duration) -> Timeout<Types> {
        Timeout { action, id: self.target.from, target: self.target.to, timeout }
    }
}

impl RaftNetworkFactory<Types> for Connections {
    type Network = Network;

    async fn new_client(&mut self, target: u64, node: &Member) -> Network {
        self.network(target, node, Lane::Entries)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Member) -> Network {
        self.network(target, node, Lane::Beat)
    }
}

/// The way to one replica.
#[derive(Debug)]
pub(super) struct Network {
    peer: Arc<Peer>,
    /// The connection for entries and empty beats; everything else has its fixed one.
    entries: Lane,
    patience: Duration,
}

impl Network {
    fn client(&self, lane: Lane) -> Result<RaftClient<Channel>, Unreachable<Types>> {
        self.peer.client(lane).map_err(|reason| self.peer.unreachable(reason))
    }

    async fn ask<T>(
        &self,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RPCError<Types>> {
        match tokio::time::timeout(limit, carried(&self.peer.target, call)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.peer.unreachable(describe(&status)).into()),
            Err(_) => Err(self.peer.timeout(action, limit).into()),
        }
    }
}

impl Network {
    async fn ask_vote(
        &self,
        option: RPCOption,
        call: impl Future<Output = Result<Response<wire::VoteResponse>, Status>>,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let response = self.ask(RPCTypes::Vote, option.hard_ttl(), call).await?;
        Ok(response.try_into().map_err(|reason: wire::Malformed| self.peer.unreachable(reason))?)
    }
}

impl NetBackoff<Types> for Network {
    fn backoff(&self) -> Option<Backoff> {
        let last = RETRY_MS.last().copied().into_iter().cycle();
        Some(Backoff::new(RETRY_MS.into_iter().chain(last).map(Duration::from_millis)))
    }
}

impl NetVote<Types> for Network {
    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut client = self.client(Lane::Beat)?;
        let request = wire::vote_request(self.peer.target.clone(), &rpc);
        self.ask_vote(option, client.vote(request)).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut client = self.client(Lane::Beat)?;
        let request = wire::vote_request(self.peer.target.clone(), &rpc);
        self.ask_vote(option, client.pre_vote(request)).await
    }
}

impl NetTransferLeader<Types> for Network {
    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let mut client = self.client(Lane::Beat)?;
        let request = wire::transfer_request(self.peer.target.clone(), &req);
        let call = client.transfer_leader(request);
        let response = self.ask(RPCTypes::TransferLeader, option.hard_ttl(), call).await?;
        Ok(wire::transfer_result(response).map_err(|reason| self.peer.unreachable(reason))?)
    }
}

impl NetStreamAppend<Types> for Network {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        // All work is done when the answers are polled: openraft can give up waiting for an answer, but not waiting
        // for the stream of them.
        #[cfg(test)]
        let input = super::links::through(input, &self.peer.target);
        let session =
            Session::New { peer: self.peer.clone(), lane: self.entries, patience: self.patience, input };
        let answers: BoxStream<'s, Appended> = Box::pin(stream::unfold(session, Session::next));
        Box::pin(std::future::ready(Ok(answers)))
    }
}

type Appended = Result<StreamAppendResult<Types>, RPCError<Types>>;

/// One stream of entries, from its first request to its end.
enum Session<S> {
    New { peer: Arc<Peer>, lane: Lane, patience: Duration, input: S },
    Open(Box<Exchange<S>>),
    Over,
}

impl<S> Session<S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    async fn next(self) -> Option<(Appended, Self)> {
        let exchange = match self {
            Self::New { peer, lane, patience, mut input } => {
                // openraft waits between two attempts inside its input: to connect before the first request is there
                // would be to try without a pause.
                let first = input.next().await?;
                match Exchange::start(peer, lane, patience, first, input).await {
                    Ok(exchange) => exchange,
                    Err(error) => return Some((Err(error), Self::Over)),
                }
            }
            Self::Open(exchange) => exchange,
            Self::Over => return None,
        };
        exchange.next().await
    }
}

/// A stream that is under way.
struct Exchange<S> {
    peer: Arc<Peer>,
    patience: Duration,
    answers: Streaming<wire::AppendResponse>,
    window: Window<S>,
}

impl<S> Exchange<S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
{
    async fn start(
        peer: Arc<Peer>,
        lane: Lane,
        patience: Duration,
        first: AppendEntriesRequest<Types>,
        input: S,
    ) -> Result<Box<Self>, RPCError<Types>> {
        let mut client = peer.client(lane).map_err(|reason| peer.unreachable(reason))?;
        let (requests, window): (Requests<S>, Window<S>) =
            window::open(first, input, peer.target.clone()).map_err(|reason| peer.unreachable(reason))?;
        let answers = tokio::select! {
            biased;
            response = carried(&peer.target, client.append(requests)) => {
                response.map_err(|status| peer.unreachable(describe(&status)))?.into_inner()
            }
            () = window.overdue(patience) => return Err(peer.timeout(RPCTypes::AppendEntries, patience).into()),
        };
        Ok(Box::new(Self { peer, patience, answers, window }))
    }

    async fn next(mut self: Box<Self>) -> Option<(Appended, Session<S>)> {
        let answer = tokio::select! {
            biased;
            answer = carried_back(&self.peer.target, self.answers.message()) => {
                answer.map_err(|status| describe(&status))
            }
            () = self.window.overdue(self.patience) => {
                let error = self.peer.timeout(RPCTypes::AppendEntries, self.patience);
                return Some((Err(error.into()), Session::Over));
            }
        };
        let result = match answer {
            Ok(Some(answer)) => self.read(answer),
            Ok(None) => Err(self.ending()?),
            Err(reason) => Err(reason),
        };
        match result {
            Ok(Ok(accepted)) => Some((Ok(Ok(accepted)), Session::Open(self))),
            Ok(Err(refused)) => Some((Ok(Err(refused)), Session::Over)),
            Err(reason) => Some((Err(self.peer.unreachable(reason).into()), Session::Over)),
        }
    }

    fn read(&self, answer: wire::AppendResponse) -> Result<StreamAppendResult<Types>, String> {
        let result = wire::append_result(answer).map_err(|reason| reason.to_string())?;
        let heard = self.window.answered(&result)?;
        if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
            self.peer.hear(heard);
        }
        Ok(result)
    }

    /// Returns what was wrong with the end of the answers. openraft ends its requests whenever it has something else
    /// to send; that end comes back as an end, never as an error, or each would be followed by a repetition.
    fn ending(&self) -> Option<String> {
        if let Some(failure) = self.window.failure() {
            return Some(failure.to_string());
        }
        let unanswered = self.window.unanswered();
        (unanswered > 0).then(|| format!("ended the stream and left {unanswered} requests without an answer"))
    }
}

impl NetSnapshot<Types> for Network {
    type SnapshotData = Image;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let mut client = self.client(Lane::Bulk)?;
        let size = snapshot.snapshot.len() as u64;
        let head = wire::snapshot_head(self.peer.target.clone(), vote, &snapshot.meta, size);
        let moved = Arc::new(Mutex::new(Instant::now()));
        // When this call is given up, the chunks end: tonic's task would go on sending them.
        let (_wanted, given_up) = oneshot::channel::<()>();
        let chunks = chunks(head, snapshot.snapshot, moved.clone()).take_until(given_up);
        let limit = option.hard_ttl();
        let response = tokio::select! {
            biased;
            closed = cancel => return Err(closed.into()),
            response = carried(&self.peer.target, client.install_snapshot(chunks)) => response,
            () = stalled(&moved, limit) => {
                return Err(self.peer.timeout(RPCTypes::InstallSnapshot, limit).into());
            }
        };
        let response = response.map_err(|status| self.peer.unreachable(describe(&status)))?.into_inner();
        Ok(response.try_into().map_err(|reason: wire::Malformed| self.peer.unreachable(reason))?)
    }
}

/// Returns the messages of a snapshot, and notes in `moved` when the last one was taken.
fn chunks(
    head: wire::SnapshotHead,
    image: Image,
    moved: Arc<Mutex<Instant>>,
) -> impl Stream<Item = wire::SnapshotChunk> + Send {
    let head = wire::SnapshotChunk { head: Some(head), data: Bytes::new() };
    let starts = (0..image.len()).step_by(CHUNK);
    let data = starts.map(move |start| image.slice(start..image.len().min(start + CHUNK)));
    let rest = data.map(|data| wire::SnapshotChunk { head: None, data });
    stream::iter(std::iter::once(head).chain(rest)).inspect(move |_| {
        *moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    })
}

/// Waits until nothing has moved for `limit`.
async fn stalled(moved: &Mutex<Instant>, limit: Duration) {
    loop {
        let due = *moved.lock().unwrap_or_else(PoisonError::into_inner) + limit;
        if due <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(due).await;
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
