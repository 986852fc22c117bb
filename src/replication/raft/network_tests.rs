//! The way to another replica, with one on a loopback socket that does what a test says.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tonic::Request;

use super::*;
use crate::model::PhysicalOffset;
use crate::replication::raft::server::{Local, accepted, serve, serve_service};
use crate::replication::raft::sockets::Listener;
use crate::replication::raft::types::{
    Entry, Membership, Payload, Raft, SnapshotMeta, Stored, StoredMembership, log_id,
};
use crate::replication::raft::window::{BYTES_MAX, REQUESTS_MAX};

const SOON: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_millis(400);
const MIB: usize = 1 << 20;

/// What the other replica does with requests for entries.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Answers each.
    Answers,
    /// Answers each, after that time.
    AnswersAfter(Duration),
    /// Reads them and says nothing.
    Silent,
    /// Ends its answers after the first request, without one.
    Ends,
}

/// A replica that is none.
struct Fake {
    manner: Manner,
    replica: Replica,
    /// Requests for entries that it read.
    requests: Arc<AtomicUsize>,
    /// Where calls came from.
    callers: mpsc::UnboundedSender<SocketAddr>,
    snapshot: mpsc::UnboundedSender<Vec<usize>>,
}

type Answer = Result<wire::AppendResponse, Status>;

#[tonic::async_trait]
impl wire::raft_server::Raft for Fake {
    type AppendStream = Pin<Box<dyn Stream<Item = Answer> + Send>>;

    async fn hello(&self, _: Request<wire::HelloRequest>) -> Result<Response<wire::HelloResponse>, Status> {
        Ok(Response::new(wire::HelloResponse::default()))
    }

    async fn pre_vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        self.vote(request).await
    }

    async fn vote(
        &self,
        request: Request<wire::VoteRequest>,
    ) -> Result<Response<wire::VoteResponse>, Status> {
        self.call(&request);
        let request = request.into_inner();
        Ok(Response::new(wire::VoteResponse { vote: request.vote, granted: true, last_log_id: None }))
    }

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.call(&request);
        let (manner, count) = (self.manner, self.requests.clone());
        let answers = request.into_inner().filter_map(move |request| {
            let count = count.clone();
            async move {
                let request = request.ok()?;
                count.fetch_add(1, Ordering::SeqCst);
                match manner {
                    Manner::Answers => {}
                    Manner::AnswersAfter(time) => tokio::time::sleep(time).await,
                    Manner::Silent => return None,
                    Manner::Ends => return Some(Err(Status::ok("end"))),
                }
                let last = request.prev_log_id.map_or(0, |id| id.index) + request.entries.len() as u64;
                Some(Ok(Ok(Some(log_id(1, last))).into()))
            }
        });
        Ok(Response::new(Box::pin(answers.take_while(|answer| std::future::ready(answer.is_ok())))))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotChunk>>,
    ) -> Result<Response<wire::SnapshotResponse>, Status> {
        self.call(&request);
        let mut chunks = request.into_inner();
        let mut sizes = Vec::new();
        let mut vote = None;
        while let Some(chunk) = chunks.message().await? {
            vote = vote.or(chunk.head.and_then(|head| head.vote));
            sizes.push(chunk.data.len());
        }
        self.snapshot.send(sizes).unwrap();
        Ok(Response::new(wire::SnapshotResponse { vote }))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        self.call(&request);
        Ok(Response::new(wire::TransferLeaderResponse::default()))
    }

    async fn read_index(
        &self,
        request: Request<wire::ReadIndexRequest>,
    ) -> Result<Response<wire::ReadIndexResponse>, Status> {
        self.replica.check(request.get_ref().target.as_ref())?;
        Ok(Response::new(wire::ReadIndexResponse { index: 14 }))
    }

    async fn fetch(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<wire::FetchResponse>, Status> {
        let request = request.into_inner();
        let count = usize::try_from(request.last_index - request.first_index + 1).unwrap();
        Ok(Response::new(wire::FetchResponse { entries: vec![Bytes::from_static(b"entry"); count] }))
    }
}

impl Fake {
    fn call<T>(&self, request: &Request<T>) {
        self.callers.send(request.remote_addr().unwrap()).unwrap();
    }
}

/// A fake replica, number 2 of group `g`, that is running.
struct Running {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    callers: mpsc::UnboundedReceiver<SocketAddr>,
    snapshot: mpsc::UnboundedReceiver<Vec<usize>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(manner: Manner) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), manner).await
    }

    async fn start_at(address: SocketAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let (callers, callers_rx) = mpsc::unbounded_channel();
        let (snapshot, snapshot_rx) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let fake = Fake { manner, replica: replica(2), requests: requests.clone(), callers, snapshot };
        let task = serve_service(accepted(listener), fake, stopped);
        Self { address, requests, callers: callers_rx, snapshot: snapshot_rx, stop, task }
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }

    fn member(&self) -> Member {
        Member { raft_address: self.address.to_string(), identity: 0 }
    }

    async fn caller(&mut self) -> SocketAddr {
        tokio::time::timeout(SOON, self.callers.recv()).await.unwrap().unwrap()
    }
}

fn replica(id: u64) -> Replica {
    Replica { group: "g".to_owned(), id }
}

fn connections() -> Connections {
    let timing = Timing { connect: Duration::from_millis(200), patience: PATIENCE };
    Connections::new(replica(1), timing, Sockets::Tcp)
}

fn leader() -> Vote {
    Vote::new_committed(1, 1)
}

fn option() -> RPCOption {
    RPCOption::new(Duration::from_secs(5))
}

/// A request with one entry, at `index`.
fn request(index: u64, size: usize) -> AppendEntriesRequest<Types> {
    let bytes = Bytes::from(vec![7; size]);
    let payload = Payload::Stored(Stored { position: PhysicalOffset(0), bytes, membership: None });
    AppendEntriesRequest {
        vote: leader(),
        prev_log_id: Some(log_id(1, index - 1)),
        entries: vec![Entry { log_id: log_id(1, index), payload }],
        leader_commit: None,
    }
}

fn beat() -> AppendEntriesRequest<Types> {
    AppendEntriesRequest { vote: leader(), prev_log_id: None, entries: Vec::new(), leader_commit: None }
}

async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(SOON, future).await.expect("it takes too long")
}

#[tokio::test]
async fn the_end_of_the_requests_is_the_end_of_the_answers() {
    let server = Running::start(Manner::Answers).await;
    let mut network = connections().new_client(2, &server.member()).await;
    for _ in 0..3 {
        let input = stream::iter((1..=5).map(|index| request(index, 100)));
        let answers = network.stream_append(input, option()).await.unwrap();
        let answers: Vec<_> = soon(answers.collect()).await;
        let accepted: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
        assert_eq!(accepted, (1..=5).map(|index| Some(log_id(1, index))).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn nothing_is_sent_if_there_is_no_request() {
    let server = Running::start(Manner::Answers).await;
    let mut network = connections().new_client(2, &server.member()).await;
    let mut answers = network.stream_append(stream::iter([]), option()).await.unwrap();
    assert!(soon(answers.next()).await.is_none());
    drop(answers);
    let answers = network.stream_append(stream::pending(), option()).await.unwrap();
    assert!(
        tokio::time::timeout(PATIENCE * 2, answers.collect::<Vec<_>>()).await.is_err(),
        "no reason to end"
    );
    assert!(server.callers.is_empty());
}

#[tokio::test]
async fn a_replica_that_says_nothing_is_given_up_in_time() {
    let server = Running::start(Manner::Silent).await;
    let mut network = connections().new_client(2, &server.member()).await;
    let begin = Instant::now();
    let input = stream::iter([request(1, 10)]).chain(stream::pending());
    let mut answers = network.stream_append(input, option()).await.unwrap();
    let error = soon(answers.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, RPCError::Timeout(_)), "{error}");
    assert!(begin.elapsed() >= PATIENCE && begin.elapsed() < PATIENCE * 4, "{:?}", begin.elapsed());
    assert!(soon(answers.next()).await.is_none());
}

#[tokio::test]
async fn a_replica_that_is_slow_but_goes_on_is_not_given_up() {
    let server = Running::start(Manner::AnswersAfter(PATIENCE / 3)).await;
    let mut network = connections().new_client(2, &server.member()).await;
    let input = stream::iter((1..=9).map(|index| request(index, 10)));
    let answers = network.stream_append(input, option()).await.unwrap();
    let answers: Vec<_> = soon(answers.collect()).await;
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Ok(Ok(_)))).count(), 9);
    assert_eq!(answers.len(), 9);
}

#[tokio::test]
async fn an_idle_stream_stays_open() {
    let server = Running::start(Manner::Answers).await;
    let mut network = connections().new_client(2, &server.member()).await;
    let (tx, rx) = mpsc::unbounded_channel();
    let input = Box::pin(stream::unfold(rx, |mut rx| async { Some((rx.recv().await?, rx)) }));
    let mut answers = network.stream_append(input, option()).await.unwrap();
    for index in 1..=2 {
        tx.send(request(index, 10)).unwrap();
        assert_eq!(soon(answers.next()).await.unwrap().unwrap().unwrap(), Some(log_id(1, index)));
        assert!(tokio::time::timeout(PATIENCE * 2, answers.next()).await.is_err(), "nothing is owed");
    }
    drop(tx);
    assert!(soon(answers.next()).await.is_none());
}

#[tokio::test]
async fn an_early_end_with_requests_unanswered_is_an_error() {
    let server = Running::start(Manner::Ends).await;
    let mut network = connections().new_client(2, &server.member()).await;
    let answers = network.stream_append(stream::iter([request(1, 10)]), option()).await.unwrap();
    let answers: Vec<_> = soon(answers.collect()).await;
    let error = answers.into_iter().next().unwrap().unwrap_err();
    assert!(error.to_string().contains("1 requests without an answer"), "{error}");
}

#[tokio::test]
async fn what_is_unanswered_is_bounded() {
    for (size, most) in [(10, REQUESTS_MAX), (MIB, BYTES_MAX / MIB)] {
        let server = Running::start(Manner::Silent).await;
        let mut network = connections().new_client(2, &server.member()).await;
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = taken.clone();
        let input = stream::iter((1..).map(move |index| {
            counter.fetch_add(1, Ordering::SeqCst);
            request(index, size)
        }));
        let mut answers = network.stream_append(input, option()).await.unwrap();
        soon(answers.next()).await.unwrap().unwrap_err();
        assert_eq!(taken.load(Ordering::SeqCst), most, "requests of {size} bytes");
        assert_eq!(server.requests.load(Ordering::SeqCst), most, "requests of {size} bytes");
    }
}

#[tokio::test]
async fn answers_make_room_for_more_than_fits_the_window() {
    let server = Running::start(Manner::Answers).await;
    let mut network = connections().new_client(2, &server.member()).await;
    let input = stream::iter((1..=500).map(|index| request(index, 100_000)));
    let answers = network.stream_append(input, option()).await.unwrap();
    assert_eq!(soon(answers.filter(|answer| std::future::ready(answer.is_ok())).count()).await, 500);
}

/// A stream that tells when it is dropped.
struct Told(Arc<AtomicBool>, u64);

impl Stream for Told {
    type Item = AppendEntriesRequest<Types>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.1 += 1;
        if self.1 == 1 { Poll::Ready(Some(request(1, 10))) } else { Poll::Pending }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn the_input_goes_with_the_answers() {
    let server = Running::start(Manner::Answers).await;
    let mut network = connections().new_client(2, &server.member()).await;
    let dropped = Arc::new(AtomicBool::new(false));
    let mut answers = network.stream_append(Told(dropped.clone(), 0), option()).await.unwrap();
    soon(answers.next()).await.unwrap().unwrap().unwrap();
    assert!(answers.next().now_or_never().is_none());
    assert!(!dropped.load(Ordering::SeqCst));
    drop(answers);
    assert!(dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_replica_that_was_restarted_is_reached_at_once() {
    let server = Running::start(Manner::Answers).await;
    let (address, member) = (server.address, server.member());
    let mut network = connections().new_client(2, &member).await;
    append_one(&mut network).await.unwrap().unwrap();
    server.stop().await;
    for _ in 0..3 {
        let error = append_one(&mut network).await.unwrap_err();
        assert!(matches!(error, RPCError::Unreachable(_)), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }
    let _server = Running::start_at(address, Manner::Answers).await;
    let begin = Instant::now();
    append_one(&mut network).await.unwrap().unwrap();
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
}

async fn append_one(network: &mut Network) -> Appended {
    let mut answers = network.stream_append(stream::iter([request(1, 10)]), option()).await.unwrap();
    soon(answers.next()).await.unwrap()
}

#[tokio::test]
async fn a_stop_ends_open_streams() {
    let server = Running::start(Manner::Answers).await;
    let mut network = connections().new_client(2, &server.member()).await;
    let input = stream::iter([request(1, 10)]).chain(stream::pending());
    let mut answers = network.stream_append(input, option()).await.unwrap();
    soon(answers.next()).await.unwrap().unwrap().unwrap();
    soon(server.stop()).await;
}

#[tokio::test]
async fn a_connection_that_has_died_is_noticed_by_its_silence() {
    // The kernel accepts, and nobody ever reads.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let timing = Timing { connect: Duration::from_millis(200), patience: SOON * 2 };
    let member = Member { raft_address: address, identity: 0 };
    let mut network = Connections::new(replica(1), timing, Sockets::Tcp).new_client(2, &member).await;
    let begin = Instant::now();
    append_one(&mut network).await.unwrap_err();
    let limit = KEEP_ALIVE_INTERVAL + KEEP_ALIVE_TIMEOUT + Duration::from_secs(1);
    assert!(begin.elapsed() < limit, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_connection_serves_all_beats_and_votes_and_no_entries() {
    let mut server = Running::start(Manner::Answers).await;
    let mut connections = connections();
    let mut beats = connections.new_heartbeat_client(2, &server.member()).await;
    for _ in 0..3 {
        let answers = beats.stream_append(Box::pin(stream::once(async { beat() })), option()).await.unwrap();
        assert_eq!(soon(answers.count()).await, 1);
    }
    let beat_from = server.caller().await;
    for _ in 0..2 {
        assert_eq!(server.caller().await, beat_from);
    }

    // openraft makes a client for each vote.
    for _ in 0..2 {
        let mut votes = connections.new_client(2, &server.member()).await;
        let asked = VoteRequest::new(Vote::new(2, 1), None);
        assert!(soon(votes.vote(asked.clone(), option())).await.unwrap().vote_granted);
        assert!(soon(votes.pre_vote(asked, option())).await.unwrap().vote_granted);
        let transfer = TransferLeaderRequest::new(leader(), 2, None);
        assert_eq!(soon(votes.transfer_leader(transfer, option())).await.unwrap(), Ok(()));
    }
    for _ in 0..6 {
        assert_eq!(server.caller().await, beat_from);
    }

    let mut entries = connections.new_client(2, &server.member()).await;
    append_one(&mut entries).await.unwrap().unwrap();
    let entries_from = server.caller().await;
    assert_ne!(entries_from, beat_from);
    let cancel = std::future::pending();
    soon(entries.full_snapshot(leader(), snapshot(10), cancel, option())).await.unwrap();
    let snapshot_from = server.caller().await;
    assert!(snapshot_from != entries_from && snapshot_from != beat_from);
}

fn snapshot(size: usize) -> Snapshot {
    let last_membership = StoredMembership::new(Some(log_id(1, 0)), Membership::default());
    let meta = SnapshotMeta { last_log_id: Some(log_id(1, 5)), last_membership };
    Snapshot { meta, snapshot: Bytes::from(vec![1; size]) }
}

#[tokio::test]
async fn a_snapshot_goes_out_in_chunks() {
    let mut server = Running::start(Manner::Answers).await;
    let mut network = connections().new_snapshot_client(2, &server.member()).await;
    let never = std::future::pending;
    let response =
        soon(network.full_snapshot(leader(), snapshot(2 * MIB + 5), never(), option())).await.unwrap();
    assert_eq!(response.vote, leader());
    assert_eq!(soon(server.snapshot.recv()).await.unwrap(), [0, MIB, MIB, 5]);
    soon(network.full_snapshot(leader(), snapshot(0), never(), option())).await.unwrap();
    assert_eq!(soon(server.snapshot.recv()).await.unwrap(), [0]);
}

#[tokio::test]
async fn a_snapshot_that_is_not_wanted_any_more_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let member = Member { raft_address: listener.local_addr().unwrap().to_string(), identity: 0 };
    let mut network = connections().new_snapshot_client(2, &member).await;
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ReplicationClosed::new("enough")
    };
    let error =
        soon(network.full_snapshot(leader(), snapshot(40 * MIB), cancel, option())).await.unwrap_err();
    assert!(matches!(error, StreamingError::Closed(_)), "{error}");

    let never = std::future::pending();
    let short = RPCOption::new(Duration::from_millis(200));
    let error = soon(network.full_snapshot(leader(), snapshot(40 * MIB), never, short)).await.unwrap_err();
    assert!(matches!(error, StreamingError::Timeout(_)), "{error}");
}

#[tokio::test]
async fn an_address_without_a_port_is_an_error() {
    for address in ["host", "", "a b:1", "host:port", "http://host:1"] {
        let member = Member { raft_address: address.to_owned(), identity: 0 };
        let mut network = connections().new_client(2, &member).await;
        let error = append_one(&mut network).await.unwrap_err().to_string();
        assert!(error.contains("is no host:port"), "{error}");
    }
}

#[tokio::test]
async fn a_host_name_is_looked_up() {
    let mut server = Running::start(Manner::Answers).await;
    let member = Member { raft_address: format!("localhost:{}", server.address.port()), identity: 0 };
    let mut network = connections().new_client(2, &member).await;
    append_one(&mut network).await.unwrap().unwrap();
    server.caller().await;
}

#[tokio::test]
async fn attempts_to_reach_a_replica_never_become_rare() {
    let server = Running::start(Manner::Answers).await;
    let network = connections().new_client(2, &server.member()).await;
    let waits: Vec<_> = network.backoff().unwrap().take(5).map(|wait| wait.as_millis()).collect();
    assert_eq!(waits, [20, 50, 100, 100, 100]);
}

#[tokio::test]
async fn the_group_asks_for_a_read_index_and_for_entries() {
    let server = Running::start(Manner::Answers).await;
    let address = server.address.to_string();
    let connections = connections();
    assert_eq!(connections.read_index(2, &address, SOON).await, Ok(14));
    assert_eq!(connections.fetch(2, &address, 4..=6, SOON).await.unwrap().len(), 3);
    let error = connections.read_index(3, &address, SOON).await.unwrap_err();
    assert!(error.contains("this is replica 2 of group \"g\""), "{error}");
}

/// A replica that does not take part.
struct Outside;

impl Local for Outside {
    fn hello(&self) -> wire::HelloResponse {
        wire::HelloResponse { client_address: "client:10911".to_owned(), ..Default::default() }
    }

    fn raft(&self) -> Option<Raft> {
        None
    }

    fn read_index(&self) -> BoxFuture<'_, Result<u64, String>> {
        Box::pin(async { Err("outside".to_owned()) })
    }

    fn fetch(&self, _: u64, _: u64) -> BoxFuture<'_, Result<Vec<Bytes>, String>> {
        Box::pin(async { Err("outside".to_owned()) })
    }
}

#[tokio::test]
async fn a_replica_outside_the_group_answers_hello_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = watch::channel(false);
    let task = serve(Listener::Tcp(listener), replica(2), Arc::new(Outside), stopped);

    let hello_of = |group: &str, to| {
        hello(&Sockets::Tcp, &address, Replica { group: group.to_owned(), id: 1 }.target(to), SOON)
    };
    assert_eq!(hello_of("g", 2).await.unwrap().client_address, "client:10911");
    let error = hello_of("g", 3).await.unwrap_err();
    let expected =
        "this is replica 2 of group \"g\"; the request of replica 1 is for replica 3 of group \"g\"";
    assert_eq!(error, expected);
    assert!(hello_of("other", 2).await.unwrap_err().contains("of group \"other\""));

    let member = Member { raft_address: address.clone(), identity: 0 };
    let mut connections = connections();
    let mut network = connections.new_client(2, &member).await;
    let outside = "replica 2 does not take part in group \"g\" yet";
    let check = |error: String| assert!(error.contains(outside), "{error}");
    check(append_one(&mut network).await.unwrap_err().to_string());
    let vote = VoteRequest::new(Vote::new(2, 1), None);
    check(network.vote(vote.clone(), option()).await.unwrap_err().to_string());
    check(network.pre_vote(vote, option()).await.unwrap_err().to_string());
    let transfer = TransferLeaderRequest::new(leader(), 2, None);
    check(network.transfer_leader(transfer, option()).await.unwrap_err().to_string());
    let never = std::future::pending();
    check(network.full_snapshot(leader(), snapshot(10), never, option()).await.unwrap_err().to_string());
    check(connections.read_index(2, &address, SOON).await.unwrap_err());
    check(connections.fetch(2, &address, 1..=2, SOON).await.unwrap_err());
    let mut stranger = connections.new_client(3, &member).await;
    assert!(append_one(&mut stranger).await.unwrap_err().to_string().contains("is for replica 3"));

    stop.send(true).unwrap();
    soon(task).await.unwrap();
    let error = hello_of("g", 2).await.unwrap_err();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_says_nothing_about_later_requests_that_end_at_the_same_entry() {
    let first = request(1, 10);
    // What tells a follower that more is committed.
    let second =
        AppendEntriesRequest { prev_log_id: Some(log_id(1, 1)), entries: Vec::new(), ..request(1, 10) };
    let input = stream::once(std::future::ready(second));
    let (mut requests, window) = window::open(first, input, replica(1).target(2)).unwrap();
    requests.next().await.unwrap();
    let sent = Instant::now();
    // The process is stopped, with the answer on its way.
    tokio::time::advance(Duration::from_secs(3)).await;
    requests.next().await.unwrap();
    let heard = window.answered(&Ok(Some(log_id(1, 1)))).unwrap();
    assert_eq!(heard, Heard { term: 1, at: sent });
    assert_eq!(window.answered(&Ok(Some(log_id(1, 1)))).unwrap().at, sent + Duration::from_secs(3));
}
