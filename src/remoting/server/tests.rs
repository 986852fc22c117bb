use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::remoting::client::{Client, ClientConfig};
use crate::remoting::code::{RequestCode, ResponseCode};
use crate::remoting::command::{Command, SerializeType};
use crate::remoting::connection::{Answer, CallError};
use crate::remoting::frame;

const SOON: Duration = Duration::from_secs(10);
const FRAME_MAX: usize = 16 << 20;

/// Answers heartbeats with their own body, holds pulls until the test lets them go, takes everything else in silence.
struct Echo {
    opened: mpsc::UnboundedSender<Connection>,
    closed: mpsc::UnboundedSender<u64>,
    held: mpsc::UnboundedSender<oneshot::Sender<Command>>,
    seen: Mutex<Vec<u64>>,
}

impl Service for Echo {
    async fn call(&self, connection: &Connection, request: Command) -> Answer {
        let new = {
            let mut seen = self.seen.lock().unwrap();
            let new = !seen.contains(&connection.id());
            seen.push(connection.id());
            new
        };
        if new {
            self.opened.send(connection.clone()).unwrap();
        }
        match request.request_code() {
            Some(RequestCode::HeartBeat) => {
                Answer::Now(Command::response(ResponseCode::Success).with_body(request.body))
            }
            Some(RequestCode::PullMessage) => {
                let (sender, receiver) = oneshot::channel();
                self.held.send(sender).unwrap();
                Answer::later(async move { receiver.await.expect("the test answers") })
            }
            _ => Answer::Never,
        }
    }

    fn closed(&self, connection: &Connection) {
        let _ = self.closed.send(connection.id());
    }
}

struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
    opened: mpsc::UnboundedReceiver<Connection>,
    closed: mpsc::UnboundedReceiver<u64>,
    held: mpsc::UnboundedReceiver<oneshot::Sender<Command>>,
}

impl Running {
    async fn start(config: ServerConfig) -> Self {
        let (opened_in, opened) = mpsc::unbounded_channel();
        let (closed_in, closed) = mpsc::unbounded_channel();
        let (held_in, held) = mpsc::unbounded_channel();
        let server = Server::bind("127.0.0.1:0", config).await.unwrap();
        let address = server.local_addr();
        let (stop, stopped) = oneshot::channel::<()>();
        let service =
            Arc::new(Echo { opened: opened_in, closed: closed_in, held: held_in, seen: Mutex::default() });
        let task = tokio::spawn(server.serve(service, stopped));
        Self { address, stop: Some(stop), task, opened, closed, held }
    }

    async fn peer(&self) -> Peer {
        Peer { socket: TcpStream::connect(self.address).await.unwrap(), buf: BytesMut::new() }
    }

    async fn held(&mut self) -> oneshot::Sender<Command> {
        timeout(SOON, self.held.recv()).await.expect("a pull arrives").unwrap()
    }

    async fn opened(&mut self) -> Connection {
        timeout(SOON, self.opened.recv()).await.expect("a connection is used").unwrap()
    }
}

/// A client that sees frames.
struct Peer {
    socket: TcpStream,
    buf: BytesMut,
}

impl Peer {
    async fn send(&mut self, command: &Command) {
        self.socket.write_all(&command.to_bytes()).await.unwrap();
    }

    /// Returns the next frame; `None` if the connection is closed.
    async fn next(&mut self) -> Option<Command> {
        loop {
            if let Some(command) = frame::decode(&mut self.buf, FRAME_MAX).unwrap() {
                return Some(command);
            }
            match timeout(SOON, self.socket.read_buf(&mut self.buf)).await.expect("a frame or the end") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

fn heartbeat(opaque: i32) -> Command {
    Command { opaque, ..Command::request(RequestCode::HeartBeat).with_body(format!("beat {opaque}")) }
}

fn pull(opaque: i32) -> Command {
    Command { opaque, ..Command::request(RequestCode::PullMessage) }
}

fn found(text: &'static str) -> Command {
    Command::response(ResponseCode::Success).with_body(text)
}

#[tokio::test]
async fn frame_that_comes_byte_by_byte_is_answered() {
    let server = Running::start(ServerConfig::default()).await;
    let mut peer = server.peer().await;
    peer.socket.set_nodelay(true).unwrap();
    for byte in heartbeat(7).to_bytes() {
        peer.socket.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let answer = peer.next().await.unwrap();
    assert_eq!((answer.code, answer.opaque, answer.flag), (0, 7, 1));
    assert_eq!(answer.body.to_bytes(), "beat 7");
}

#[tokio::test]
async fn frames_in_one_piece_are_answered_in_order() {
    let server = Running::start(ServerConfig::default()).await;
    let mut peer = server.peer().await;
    let frames: Vec<_> = (0..100).map(|opaque| heartbeat(opaque).to_bytes()).collect();
    peer.socket.write_all(&frames.concat()).await.unwrap();
    for opaque in 0..100 {
        assert_eq!(peer.next().await.unwrap().opaque, opaque);
    }
}

#[tokio::test]
async fn later_answer_is_overtaken() {
    let mut server = Running::start(ServerConfig::default()).await;
    let mut peer = server.peer().await;
    peer.send(&pull(1)).await;
    peer.send(&heartbeat(2)).await;
    assert_eq!(peer.next().await.unwrap().opaque, 2);
    server.held().await.send(found("m")).unwrap();
    let answer = peer.next().await.unwrap();
    assert_eq!((answer.opaque, answer.body.to_bytes()), (1, Bytes::from("m")));
}

#[tokio::test]
async fn answer_has_the_type_of_its_request() {
    let server = Running::start(ServerConfig::default()).await;
    let mut peer = server.peer().await;
    for serialize_type in [SerializeType::Binary, SerializeType::Json] {
        peer.send(&Command { serialize_type, ..heartbeat(1) }).await;
        assert_eq!(peer.next().await.unwrap().serialize_type, serialize_type);
    }
}

#[tokio::test]
async fn large_body_in_slices_arrives_whole() {
    let mut server = Running::start(ServerConfig::default()).await;
    let mut peer = server.peer().await;
    peer.send(&pull(1)).await;
    let slices: Vec<_> = (0..300u32).map(|n| Bytes::from(n.to_be_bytes().repeat(8000))).collect();
    let whole = slices.concat();
    let answer = Command::response(ResponseCode::Success).with_body(slices);
    server.held().await.send(answer).unwrap();
    assert_eq!(peer.next().await.unwrap().body.to_bytes(), whole);
}

#[tokio::test]
async fn oneway_request_is_never_answered() {
    let server = Running::start(ServerConfig::default()).await;
    let mut peer = server.peer().await;
    peer.send(&Command { flag: 2, ..heartbeat(1) }).await;
    peer.send(&heartbeat(2)).await;
    assert_eq!(peer.next().await.unwrap().opaque, 2);
}

#[tokio::test]
async fn wrong_frames_close_their_own_connection_only() {
    let mut server = Running::start(ServerConfig { frame_bytes_max: 1024, ..ServerConfig::default() }).await;
    let mut good = server.peer().await;
    good.send(&heartbeat(1)).await;
    assert!(good.next().await.is_some());
    for wrong in
        [&[0x7f, 0xff, 0xff, 0xff][..], &[0, 0, 4, 1], &[0, 0, 0, 4, 9, 0, 0, 0], b"GET / HTTP/1.1\r\n"]
    {
        let mut bad = server.peer().await;
        bad.socket.write_all(wrong).await.unwrap();
        assert!(bad.next().await.is_none());
        assert!(server.closed.recv().await.is_some());
    }
    good.send(&heartbeat(2)).await;
    assert_eq!(good.next().await.unwrap().opaque, 2);
}

#[tokio::test]
async fn surplus_connections_are_closed_at_once() {
    let mut server = Running::start(ServerConfig { connections_max: 1, ..ServerConfig::default() }).await;
    let mut first = server.peer().await;
    first.send(&heartbeat(1)).await;
    assert!(first.next().await.is_some());
    assert!(server.peer().await.next().await.is_none());
    drop(first);
    server.closed.recv().await;
    // The server may see a newcomer before it has counted the first one off.
    let again = async {
        loop {
            let mut peer = server.peer().await;
            if peer.socket.write_all(&heartbeat(2).to_bytes()).await.is_ok() && peer.next().await.is_some() {
                break;
            }
        }
    };
    timeout(SOON, again).await.expect("the place is free");
}

#[tokio::test(start_paused = true)]
async fn quiet_connection_is_closed_and_a_busy_one_is_not() {
    let server = Running::start(ServerConfig::default()).await;
    let mut quiet = server.peer().await;
    let mut busy = server.peer().await;
    let start = tokio::time::Instant::now();
    let mut beats = 0;
    let mut byte = [0; 1];
    loop {
        tokio::select! {
            read = quiet.socket.read(&mut byte) => {
                assert_eq!(read.unwrap(), 0);
                break;
            }
            () = tokio::time::sleep(Duration::from_secs(20)) => {
                busy.send(&heartbeat(beats)).await;
                assert!(busy.next().await.is_some());
                beats += 1;
            }
        }
    }
    let after = start.elapsed();
    assert!(after >= Duration::from_secs(120) && after <= Duration::from_secs(151), "{after:?}");
    busy.send(&heartbeat(beats)).await;
    assert!(busy.next().await.is_some());
}

#[tokio::test]
async fn peer_that_does_not_read_is_cut() {
    let mut server =
        Running::start(ServerConfig { outbound_bytes_max: 1 << 20, ..ServerConfig::default() }).await;
    let mut peer = server.peer().await;
    peer.send(&heartbeat(1)).await;
    let connection = server.opened().await;
    let body = Bytes::from(vec![7; 100_000]);
    let flood = async {
        while !connection.is_closed() {
            let notice = Command::request(RequestCode::NotifyConsumerIdsChanged).with_body(body.clone());
            connection.send(notice);
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, flood).await.expect("the connection is cut");
    assert_eq!(server.closed.recv().await, Some(connection.id()));
    assert!(matches!(connection.request(heartbeat(1), SOON).await, Err(CallError::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn connection_is_not_read_while_too_much_is_under_way() {
    let mut server = Running::start(ServerConfig { inflight_max: 1, ..ServerConfig::default() }).await;
    let mut peer = server.peer().await;
    let both = [pull(1).to_bytes(), heartbeat(2).to_bytes()].concat();
    peer.socket.write_all(&both).await.unwrap();
    let first = server.held().await;
    let mut byte = [0; 1];
    let early = timeout(Duration::from_millis(50), peer.socket.peek(&mut byte)).await;
    assert!(early.is_err(), "the heartbeat has to wait");
    first.send(found("one")).unwrap();
    let opaques = [peer.next().await.unwrap().opaque, peer.next().await.unwrap().opaque];
    assert_eq!(opaques, [1, 2]);
}

#[tokio::test]
async fn reading_stops_while_answers_wait_to_be_written() {
    let config = ServerConfig { outbound_bytes_max: 1 << 20, ..ServerConfig::default() };
    let server = Running::start(config).await;
    let mut peer = server.peer().await;
    // Far more than the sockets' buffers and the outbox hold; the peer sends all of it before it reads.
    let (mut read, mut write) = peer.socket.into_split();
    let count = 200;
    let sending = tokio::spawn(async move {
        for opaque in 0..count {
            let beat = Command { opaque, ..heartbeat(0) }.with_body(vec![1; 300_000]);
            write.write_all(&beat.to_bytes()).await.unwrap();
        }
        write
    });
    let mut answers = 0;
    while answers < count {
        while let Some(answer) = frame::decode(&mut peer.buf, FRAME_MAX).unwrap() {
            assert_eq!(answer.opaque, answers);
            answers += 1;
        }
        if answers < count {
            let read = timeout(SOON, read.read_buf(&mut peer.buf)).await.unwrap().unwrap();
            assert!(read > 0, "cut after {answers} answers");
        }
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn server_calls_its_client() {
    let mut server = Running::start(ServerConfig::default()).await;
    let mut peer = server.peer().await;
    peer.send(&heartbeat(1)).await;
    assert!(peer.next().await.is_some());
    let connection = server.opened().await;
    let question = Command::request(RequestCode::GetConsumerRunningInfo);
    let asked = tokio::spawn({
        let connection = connection.clone();
        async move { connection.request(question, SOON).await }
    });
    let question = peer.next().await.unwrap();
    assert_eq!((question.code, question.is_response(), question.is_oneway()), (307, false, false));
    let mut answer = Command { opaque: question.opaque, ..found("info") };
    answer.opaque += 1;
    peer.send(&answer).await;
    answer.opaque -= 1;
    peer.send(&answer).await;
    assert_eq!(asked.await.unwrap().unwrap().body.to_bytes(), "info");

    connection.send(Command::request(RequestCode::NotifyConsumerIdsChanged));
    assert!(peer.next().await.unwrap().is_oneway());

    let waiting = connection.request(Command::request(RequestCode::GetConsumerRunningInfo), SOON);
    let (lost, ()) = tokio::join!(waiting, async { drop(peer) });
    assert!(matches!(lost, Err(CallError::Closed { .. })));
}

#[tokio::test]
async fn end_is_told_once_for_each_connection() {
    let mut server = Running::start(ServerConfig::default()).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut peer = server.peer().await;
        peer.send(&pull(1)).await;
        ids.push(server.opened().await.id());
        drop(peer);
        assert_eq!(server.closed.recv().await, ids.last().copied());
    }
    server.stop.take().unwrap().send(()).unwrap();
    server.task.await.unwrap();
    assert_eq!(server.closed.recv().await, None);
}

#[tokio::test]
async fn requests_under_way_are_answered_at_shutdown() {
    let mut server = Running::start(ServerConfig::default()).await;
    let mut peer = server.peer().await;
    peer.send(&pull(1)).await;
    let held = server.held().await;
    server.stop.take().unwrap().send(()).unwrap();
    let refused = async { while TcpStream::connect(server.address).await.is_ok() {} };
    timeout(SOON, refused).await.expect("the server stops accepting");
    held.send(found("last")).unwrap();
    assert_eq!(peer.next().await.unwrap().body.to_bytes(), "last");
    assert!(peer.next().await.is_none());
    timeout(SOON, server.task).await.expect("the server ends").unwrap();
}

#[tokio::test(start_paused = true)]
async fn request_that_never_ends_does_not_stop_a_shutdown() {
    let mut server = Running::start(ServerConfig::default()).await;
    let mut peer = server.peer().await;
    peer.send(&pull(1)).await;
    let _held = server.held().await;
    server.stop.take().unwrap().send(()).unwrap();
    timeout(Duration::from_secs(4), server.task).await.expect("the server ends").unwrap();
    assert!(peer.next().await.is_none());
}

#[tokio::test]
async fn client_shares_one_connection_among_its_calls() {
    let mut server = Running::start(ServerConfig::default()).await;
    let client = Client::new(ClientConfig::default());
    let address = server.address.to_string();
    let calls: Vec<_> = (0..50)
        .map(|n| {
            let (client, address) = (client.clone(), address.clone());
            tokio::spawn(async move {
                let answer = client.call(&address, heartbeat(n), SOON).await.unwrap();
                assert_eq!(answer.body.to_bytes(), format!("beat {n}"));
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let connection = server.opened().await;
    assert!(server.opened.try_recv().is_err());

    let refused =
        connection.request(Command::request(RequestCode::ConsumeMessageDirectly), SOON).await.unwrap();
    assert_eq!(refused.remark.as_deref(), Some(" request type 309 not supported"));

    drop(client);
    assert_eq!(server.closed.recv().await, Some(connection.id()));
}

#[tokio::test]
async fn client_opens_a_new_connection_when_the_old_one_is_gone() {
    let mut server = Running::start(ServerConfig::default()).await;
    let client = Client::new(ClientConfig::default());
    let address = server.address.to_string();
    client.call(&address, heartbeat(1), SOON).await.unwrap();
    server.opened().await.close();
    server.closed.recv().await;
    let second = async {
        while client.call(&address, heartbeat(2), SOON).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, second).await.expect("a second connection");
    client.close().await;
    assert!(server.closed.recv().await.is_some());
}

#[tokio::test]
async fn client_errors_name_the_address() {
    let mut server = Running::start(ServerConfig::default()).await;
    let client = Client::new(ClientConfig::default());
    let address = server.address.to_string();
    let late = client.call(&address, pull(1), Duration::from_millis(20)).await.unwrap_err();
    assert_eq!(late.to_string(), format!("no answer from {address} within 20 ms"));
    // Nothing at all was heard, so the connection is given up.
    server.closed.recv().await;

    let (lost, ()) = tokio::join!(client.call(&address, pull(2), SOON), async {
        server.held().await;
        server.held().await;
        server.opened().await;
        server.opened().await.close();
    });
    assert_eq!(lost.unwrap_err().to_string(), format!("the connection to {address} closed"));

    server.stop.take().unwrap().send(()).unwrap();
    server.task.await.unwrap();
    let refused = client.call(&address, heartbeat(3), SOON).await.unwrap_err();
    assert!(matches!(refused, CallError::Connect { .. }));
    assert!(refused.to_string().starts_with(&format!("connect to {address}: ")), "{refused}");
    assert!(client.oneway("no address", heartbeat(4), SOON).await.is_err());
}
