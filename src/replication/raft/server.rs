//! The service behind the port that dLegerPeers names: answers the other replicas.
//!
//! It decides nothing: a request is checked for its target, turned into openraft's types, and handed on. While the
//! replica does not take part in the group, everything but Hello is UNAVAILABLE.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{Stream, StreamExt, stream};
use openraft::errors::Fatal;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};
use tracing::warn;

use super::log::stored_entry;
use super::network::{
    CONNECTION_WINDOW, FRAME_MAX, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT, MESSAGE_MAX, Replica,
    STREAM_WINDOW,
};
use super::sockets::Listener;
use super::types::{Entry, Raft, Snapshot, Types};
use super::wire::{self, raft_server::RaftServer};

/// Largest snapshot that is taken in.
const SNAPSHOT_MAX: u64 = 1 << 30;
/// Snapshots that may come in at once: a new leader's need not wait until the old one's has broken off.
const SNAPSHOTS_MAX: usize = 2;
/// Requests that a client gave up before they were looked at. A beat is given up after one interval, so a replica that
/// stood still finds many; too many would close the connection.
const GIVEN_UP_MAX: usize = 1024;
/// How long calls may take to end when the service stops.
const DRAIN: Duration = Duration::from_secs(1);
/// Pause after a connection could not be accepted: the process has too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The replica that the service speaks for.
pub(super) trait Local: Send + Sync + 'static {
    /// Returns who this replica is.
    fn hello(&self) -> wire::HelloResponse;

    /// Returns its Raft, or `None` as long as it does not take part in the group.
    fn raft(&self) -> Option<Raft>;

    /// Returns why this replica may not vote, if it may not.
    fn vote_refusal(&self) -> Option<String> {
        None
    }

    /// Returns the index of the last entry that a read which begins now must see. An error says why there is none.
    fn read_index(&self) -> BoxFuture<'_, Result<u64, String>>;

    /// Returns the bytes of committed entries, from `first` on and not behind `last`: at least one, and not much more
    /// than fits one message (32 MiB). An error says why there are none.
    fn fetch(&self, first: u64, last: u64) -> BoxFuture<'_, Result<Vec<Bytes>, String>>;
}

/// Serves on `listener` until `stop` is true or its sender is gone. The task ends when all calls have, or a second later.
pub(super) fn serve(
    listener: Listener,
    replica: Replica,
    local: Arc<dyn Local>,
    stop: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let snapshots = Arc::new(Semaphore::new(SNAPSHOTS_MAX));
    let service = Service { replica, local, snapshots, stop: stop.clone() };
    match listener {
        Listener::Tcp(listener) => serve_service(accepted(listener), service, stop),
        #[cfg(test)]
        Listener::Simulated(incoming) => serve_service(incoming, service, stop),
    }
}

pub(super) fn serve_service<S, I>(
    incoming: impl Stream<Item = io::Result<I>> + Send + 'static,
    service: S,
    stop: watch::Receiver<bool>,
) -> JoinHandle<()>
where
    S: wire::raft_server::Raft,
    I: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let service = RaftServer::new(service)
        .max_decoding_message_size(MESSAGE_MAX)
        .max_encoding_message_size(MESSAGE_MAX);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(GIVEN_UP_MAX))
        .add_service(service);
    let served = server.serve_with_incoming_shutdown(incoming, stopped(stop.clone()));
    tokio::spawn(async move {
        tokio::select! {
            result = served => if let Err(error) = result {
                warn!(%error, "the service for other replicas ended");
            },
            () = async { stopped(stop).await; tokio::time::sleep(DRAIN).await } => {}
        }
    })
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that nobody can say stop any more.
    let _ = stop.wait_for(|stop| *stop).await;
}

pub(super) fn accepted(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let stream = stream.set_nodelay(true).map(|()| stream);
                    return Some((stream, listener));
                }
                Err(error) => {
                    warn!(%error, "accept a replica's connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

struct Service {
    replica: Replica,
    local: Arc<dyn Local>,
    snapshots: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Service {
    /// Like [`Service::raft`], for a request that wants a vote.
    fn voter(&self, target: Option<&wire::Target>) -> Result<Raft, Status> {
        let raft = self.raft(target)?;
        match self.local.vote_refusal() {
            Some(reason) => Err(Status::unavailable(reason)),
            None => Ok(raft),
        }
    }

    fn raft(&self, target: Option<&wire::Target>) -> Result<Raft, Status> {
        self.replica.check(target)?;
        self.local.raft().ok_or_else(|| {
            Status::unavailable(format!(
                "replica {} does not take part in group {:?} yet",
                self.replica.id, self.replica.group
            ))
        })
    }
}

/// The answer if openraft itself has stopped.
fn over(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl wire::raft_server::Raft for Service {
    type AppendStream = AppendStream;

    async fn hello(
        &self,
        request: Request<wire::HelloRequest>,
    ) -> Result<Response<wire::HelloResponse>, Status> {
        self.replica.check(request.get_ref().target.as_ref())?;
        Ok(Response::new(self.local.hello()))
    }

    async fn pre_vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        let request = request.into_inner();
        let raft = self.voter(request.target.as_ref())?;
        let response = raft.pre_vote(request.try_into()?).await.map_err(over)?;
        Ok(Response::new(response.into()))
    }

    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        let request = request.into_inner();
        let raft = self.voter(request.target.as_ref())?;
        let response = raft.vote(request.try_into()?).await.map_err(over)?;
        Ok(Response::new(response.into()))
    }

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<AppendStream>, Status> {
        let mut requests = request.into_inner();
        let Some(first) = requests.message().await? else {
            return Ok(Response::new(Box::pin(stream::empty())));
        };
        let raft = self.raft(first.target.as_ref())?;
        let requests = stream::once(async { Ok(first) }).chain(requests);
        let submit = move |entries: Entries| -> Results { Box::pin(raft.stream_append(entries)) };
        Ok(Response::new(Box::pin(answers(requests, stored_entry, submit, self.stop.clone()))))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotResponse>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?;
        let head = first
            .and_then(|chunk| chunk.head)
            .ok_or_else(|| Status::invalid_argument("the first message of a snapshot has no head"))?;
        let raft = self.raft(head.target.as_ref())?;
        let _permit = self
            .snapshots
            .try_acquire()
            .map_err(|_| Status::unavailable("other snapshots are coming in already"))?;
        let image = collect(&mut chunks, head.size).await?;
        let (vote, meta) = wire::snapshot_meta(head)?;
        let response =
            raft.install_full_snapshot(vote, Snapshot { meta, snapshot: image }).await.map_err(over)?;
        Ok(Response::new(wire::SnapshotResponse { vote: Some(response.vote.into()) }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let raft = self.raft(request.target.as_ref())?;
        let request = wire::transfer_leader(request)?;
        let response = raft.handle_transfer_leader(request).await.map_err(over)?;
        Ok(Response::new(response.into()))
    }

    async fn read_index(
        &self,
        request: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexResponse>, Status> {
        self.raft(request.get_ref().target.as_ref())?;
        let read = self.local.read_index().await.map_err(Status::unavailable)?;
        Ok(Response::new(wire::ReadIndexResponse { index: read }))
    }

    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<wire::FetchResponse>, Status> {
        let request = request.into_inner();
        self.raft(request.target.as_ref())?;
        let (first, last) = (request.first_index, request.last_index);
        if first > last {
            return Err(Status::invalid_argument(format!("there are no entries from {first} to {last}")));
        }
        let entries = self.local.fetch(first, last).await.map_err(Status::unavailable)?;
        Ok(Response::new(wire::FetchResponse { entries }))
    }
}

/// Puts a snapshot's bytes together.
async fn collect<S>(chunks: &mut S, size: u64) -> Result<Bytes, Status>
where
    S: Stream<Item = Result<wire::SnapshotChunk, Status>> + Unpin,
{
    if size > SNAPSHOT_MAX {
        return Err(Status::invalid_argument(format!(
            "a snapshot of {size} bytes is larger than {SNAPSHOT_MAX}"
        )));
    }
    let mut image = BytesMut::new();
    while let Some(chunk) = chunks.next().await.transpose()? {
        if (image.len() + chunk.data.len()) as u64 > size {
            return Err(Status::invalid_argument(format!("a snapshot of {size} bytes has more of them")));
        }
        image.extend_from_slice(&chunk.data);
    }
    if image.len() as u64 == size {
        return Ok(image.freeze());
    }
    Err(Status::invalid_argument(format!("a snapshot of {size} bytes ended after {}", image.len())))
}

type AppendStream = Pin<Box<dyn Stream<Item = Result<wire::AppendResponse, Status>> + Send>>;
type Entries = Pin<Box<dyn Stream<Item = AppendEntriesRequest<Types>> + Send>>;
type Results = Pin<Box<dyn Stream<Item = Result<StreamAppendResult<Types>, Fatal<Types>>> + Send>>;

/// Hands what comes in to `submit`, and returns its answers. When the requests end, so do the answers, after the last
/// one; if the requests break off or cannot be read, the answers to those before still go out, then the reason.
fn answers(
    requests: impl Stream<Item = Result<wire::AppendRequest, Status>> + Send + 'static,
    decode: fn(Bytes) -> io::Result<Entry>,
    submit: impl FnOnce(Entries) -> Results,
    stop: watch::Receiver<bool>,
) -> impl Stream<Item = Result<wire::AppendResponse, Status>> {
    let fault = Arc::new(Mutex::new(None));
    // openraft reads its input in a task of its own, which must not outlive the answers.
    let (wanted, given_up) = oneshot::channel();
    let input = entries(requests, decode, fault.clone()).take_until(given_up);
    let answers = Answers { results: submit(Box::pin(input)), fault, stop, _wanted: wanted };
    stream::unfold(Some(answers), |answers| async { answers?.next().await })
}

/// Returns the entries of requests. What ends them too early is left in `fault`.
fn entries(
    requests: impl Stream<Item = Result<wire::AppendRequest, Status>> + Send + 'static,
    decode: fn(Bytes) -> io::Result<Entry>,
    fault: Arc<Mutex<Option<Status>>>,
) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send {
    requests.map(move |request| Ok(wire::append_entries(request?, decode)?)).scan(
        fault,
        |fault, request: Result<_, Status>| {
            let request = request
                .map_err(|status| *fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(status))
                .ok();
            std::future::ready(request)
        },
    )
}

struct Answers {
    results: Results,
    fault: Arc<Mutex<Option<Status>>>,
    stop: watch::Receiver<bool>,
    _wanted: oneshot::Sender<()>,
}

impl Answers {
    async fn next(mut self) -> Option<(Result<wire::AppendResponse, Status>, Option<Self>)> {
        let result = tokio::select! {
            biased;
            result = self.results.next() => result,
            () = stopped(self.stop.clone()) => {
                return Some((Err(Status::unavailable("the replica is stopping")), None));
            }
        };
        match result {
            Some(Ok(result)) => Some((Ok(result.into()), Some(self))),
            Some(Err(fatal)) => Some((Err(over(fatal)), None)),
            None => {
                let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
                fault.map(|status| (Err(status), None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PhysicalOffset;
    use crate::replication::raft::types::{Payload, Stored, Vote, log_id};

    /// An entry in these tests is its index.
    fn decode(bytes: Bytes) -> io::Result<Entry> {
        let index = *bytes.first().ok_or_else(|| io::Error::other("it is empty"))?;
        let payload = Payload::Stored(Stored { position: PhysicalOffset(0), bytes, membership: None });
        Ok(Entry { log_id: log_id(1, u64::from(index)), payload })
    }

    fn request(index: u8) -> Result<wire::AppendRequest, Status> {
        Ok(wire::AppendRequest {
            vote: Some(Vote::new_committed(1, 1).into()),
            prev_log_id: index.checked_sub(1).map(|index| log_id(1, u64::from(index)).into()),
            entries: vec![Bytes::copy_from_slice(&[index])],
            ..Default::default()
        })
    }

    #[expect(clippy::result_large_err, reason = "it is openraft's")]
    fn accept(entries: Entries) -> Results {
        Box::pin(entries.map(|request| Ok(Ok(request.entries.last().map(|entry| entry.log_id)))))
    }

    fn running() -> watch::Receiver<bool> {
        let (sender, receiver) = watch::channel(false);
        std::mem::forget(sender);
        receiver
    }

    async fn run(requests: Vec<Result<wire::AppendRequest, Status>>) -> (usize, Option<Status>) {
        let answers: Vec<_> = answers(stream::iter(requests), decode, accept, running()).collect().await;
        let good = answers.iter().filter(|answer| answer.is_ok()).count();
        (good, answers.into_iter().find_map(Result::err))
    }

    #[tokio::test]
    async fn answers_end_with_the_requests() {
        let (good, error) = run(vec![request(0), request(1), request(2)]).await;
        assert_eq!((good, error.is_none()), (3, true));
    }

    #[tokio::test]
    async fn what_came_before_a_malformed_request_is_answered() {
        let malformed = wire::AppendRequest { entries: vec![Bytes::new()], ..request(2).unwrap() };
        let (good, error) = run(vec![request(0), request(1), Ok(malformed), request(2)]).await;
        let error = error.unwrap();
        assert_eq!((good, error.code()), (2, tonic::Code::InvalidArgument));
        assert_eq!(error.message(), "an entry cannot be read: it is empty");
    }

    #[tokio::test]
    async fn requests_that_break_off_break_off_the_answers() {
        let (good, error) = run(vec![request(0), Err(Status::aborted("gone"))]).await;
        assert_eq!((good, error.unwrap().code()), (1, tonic::Code::Aborted));
    }

    #[tokio::test]
    async fn a_stop_ends_the_answers() {
        let (sender, stop) = watch::channel(false);
        let requests = stream::iter([request(0)]).chain(stream::pending());
        let mut answers = Box::pin(answers(requests, decode, accept, stop));
        answers.next().await.unwrap().unwrap();
        sender.send(true).unwrap();
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn the_entries_end_when_nobody_wants_the_answers() {
        let requests = stream::iter([request(0)]).chain(stream::pending());
        let (sender, receiver) = oneshot::channel();
        // As openraft does: the input is read by a task.
        let submit = move |entries: Entries| -> Results {
            tokio::spawn(async move {
                let count = entries.count().await;
                sender.send(count)
            });
            Box::pin(stream::pending())
        };
        let answers = answers(requests, decode, submit, running());
        drop(answers);
        assert!(receiver.await.unwrap() <= 1);
    }

    #[tokio::test]
    async fn a_snapshot_has_as_many_bytes_as_its_head_says() {
        let chunk =
            |data: &'static [u8]| Ok(wire::SnapshotChunk { head: None, data: Bytes::from_static(data) });
        let chunks = || stream::iter(vec![chunk(b"ab"), chunk(b"c")]);
        assert_eq!(collect(&mut chunks(), 3).await.unwrap(), b"abc".as_slice());
        assert_eq!(collect(&mut stream::iter([]), 0).await.unwrap(), b"".as_slice());
        for size in [0, 2, 4, u64::MAX] {
            let error = collect(&mut chunks(), size).await.unwrap_err();
            assert_eq!(error.code(), tonic::Code::InvalidArgument, "{size}");
        }
    }
}
