//! A bare connection: for requests that arrive at a client, and for bytes that no client sends.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use quorate::remoting::{Command, RequestCode, frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(20);

/// One TCP connection with what has arrived on it.
pub(crate) struct Socket {
    stream: TcpStream,
    arrived: BytesMut,
}

impl Socket {
    pub(crate) async fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, arrived: BytesMut::new() }
    }

    /// The address that the peer sees.
    pub(crate) fn address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Writes bytes. A peer that has closed already is no error: what it did is seen when reading.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Writes a request under the number `opaque`.
    pub(crate) async fn send(&mut self, opaque: i32, mut request: Command) {
        request.opaque = opaque;
        self.write(&request.to_bytes()).await;
    }

    /// Writes a one-way request.
    pub(crate) async fn send_oneway(&mut self, opaque: i32, mut request: Command) {
        request.flag |= 2;
        self.send(opaque, request).await;
    }

    /// Returns the next frame; `None` when the peer closed.
    pub(crate) async fn receive(&mut self) -> Option<Command> {
        tokio::time::timeout(SOON, async {
            loop {
                if let Some(command) = frame::decode(&mut self.arrived, 16 << 20).unwrap() {
                    return Some(command);
                }
                if !matches!(self.stream.read_buf(&mut self.arrived).await, Ok(1..)) {
                    return None;
                }
            }
        })
        .await
        .expect("a frame or the end of the connection in time")
    }

    /// Sends a request and returns its answer; other frames that arrive meanwhile are returned beside it.
    pub(crate) async fn ask(&mut self, opaque: i32, request: Command) -> (Command, Vec<Command>) {
        self.send(opaque, request).await;
        let mut others = Vec::new();
        loop {
            let command = self.receive().await.expect("an answer");
            if command.is_response() && command.opaque == opaque {
                return (command, others);
            }
            others.push(command);
        }
    }

    /// Waits for a request of this kind, answers it, and returns it.
    pub(crate) async fn answer(
        &mut self,
        code: RequestCode,
        answer: impl FnOnce(&Command) -> Command,
    ) -> Command {
        loop {
            let request = self.receive().await.expect("a request");
            if request.request_code() == Some(code) && !request.is_response() {
                let mut answer = answer(&request);
                answer.opaque = request.opaque;
                answer.flag |= 1;
                self.write(&answer.to_bytes()).await;
                return request;
            }
        }
    }

    /// Asks something harmless, so that all that was sent before has been handled; returns what arrived meanwhile.
    pub(crate) async fn barrier(&mut self) -> Vec<Command> {
        let request =
            Command::request(RequestCode::GetMaxOffset).with_field("topic", "T").with_field("queueId", "0");
        self.ask(i32::MAX, request).await.1
    }

    /// Waits for the groups that notifications name, until `count` are there.
    pub(crate) async fn notifications(&mut self, count: usize) -> Vec<String> {
        let mut groups = Vec::new();
        while groups.len() < count {
            let command = self.receive().await.expect("a notification");
            groups.extend(notified_group(&command));
        }
        groups
    }
}

/// Returns the group that a NOTIFY_CONSUMER_IDS_CHANGED names; fails if it is not one-way.
pub(crate) fn notified_group(command: &Command) -> Option<String> {
    if command.is_response() || command.request_code() != Some(RequestCode::NotifyConsumerIdsChanged) {
        return None;
    }
    assert!(command.is_oneway());
    command.ext_fields.get("consumerGroup").map(str::to_owned)
}
