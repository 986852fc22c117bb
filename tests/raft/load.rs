//! Senders that know all replicas, and the ledger of what was acknowledged to them.
//!
//! Each sender has a queue of its own, sends one message after the other, and sends a message again, to the next
//! replica, until it is acknowledged or three seconds are over. So it is known which messages may be there twice: those
//! of which an attempt ended without saying whether it was stored.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::remoting::header::SendMessageResponseHeader;
use quorate::remoting::{CallError, Client, ClientConfig, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::group::RaftGroup;
use crate::harness::{Outgoing, wait};

pub(crate) const TOPIC: &str = "Ledger";
/// Senders, and queues of the topic.
pub(crate) const SENDERS: usize = 8;
/// Bodies are of any length below this.
const FILLER: usize = 400;
/// The same for messages of which a few hundred fill a segment.
const LARGE_FILLER: usize = 8_000;
/// How long a sender tries to send a message: a client's time-out.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it waits for one replica's answer. A replica holds a send for 1 s while there is no leader.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// How long opening a connection may take.
const CONNECT: Duration = Duration::from_millis(400);
/// Between a sender's messages: a load that leaves room for what is tested.
const PACE: Duration = Duration::from_millis(2);
/// Before another attempt once all replicas have refused in turn.
const BACK_OFF: Duration = Duration::from_millis(10);
/// Messages after which a sender goes back to the replica that it began with.
const AT_ANOTHER: u32 = 50;

/// What senders did. A message's number is its place in its sender's list.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    messages: [Mutex<Vec<Sent>>; SENDERS],
    acks: Mutex<Vec<Ack>>,
    /// Answers other than an acknowledgement, and how many of them.
    refusals: Mutex<BTreeMap<String, usize>>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sent {
    /// Its offset in its queue and in the log, if it was acknowledged.
    pub(crate) place: Option<(u64, u64)>,
    /// Attempts of which the outcome is not known.
    pub(crate) unknown: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Ack {
    /// When the attempt began that was acknowledged.
    pub(crate) began: Instant,
    pub(crate) at: Instant,
}

/// Running senders.
pub(crate) struct Load {
    pub(crate) ledger: Arc<Ledger>,
    stop: watch::Sender<bool>,
    senders: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the senders, and waits until each has got something in.
    pub(crate) async fn start(group: &RaftGroup) -> Self {
        Self::start_with(group, FILLER).await
    }

    /// Starts senders whose messages soon fill segments.
    pub(crate) async fn start_large(group: &RaftGroup) -> Self {
        Self::start_with(group, LARGE_FILLER).await
    }

    async fn start_with(group: &RaftGroup, filler_max: usize) -> Self {
        let addresses = group.addresses();
        let ledger = Arc::new(Ledger::default());
        let (stop, stopping) = watch::channel(false);
        let senders = (0..SENDERS)
            .map(|number| {
                let client =
                    Client::new(ClientConfig { connect_timeout: CONNECT, ..ClientConfig::default() });
                let (ledger, addresses) = (Arc::clone(&ledger), addresses.clone());
                let home = number % addresses.len();
                let sender =
                    Sender { number, client, addresses, home, at: home, away: 0, filler_max, ledger };
                tokio::spawn(sender.run(stopping.clone()))
            })
            .collect();
        let load = Self { ledger, stop, senders };
        wait("a first message of each sender", async || {
            let acked = |number: usize| load.ledger.count_of(number) > 0;
            (0..SENDERS).all(acked).then_some(())
        })
        .await;
        load
    }

    /// Lets each sender end with the message that it is at.
    pub(crate) async fn stop(self) -> Arc<Ledger> {
        self.stop.send_replace(true);
        for sender in self.senders {
            sender.await.expect("a sender does not panic");
        }
        self.ledger
    }
}

impl Ledger {
    /// Returns how many messages are acknowledged.
    pub(crate) fn acked(&self) -> usize {
        self.acks.lock().unwrap().len()
    }

    /// Returns how many messages were given up.
    pub(crate) fn failed(&self) -> usize {
        (0..SENDERS).map(|sender| self.of(sender).iter().filter(|sent| sent.place.is_none()).count()).sum()
    }

    /// Returns what a sender did.
    pub(crate) fn of(&self, sender: usize) -> Vec<Sent> {
        self.messages[sender].lock().unwrap().clone()
    }

    /// Returns how many messages a sender has behind it.
    fn count_of(&self, sender: usize) -> usize {
        self.messages[sender].lock().unwrap().len()
    }

    /// Returns the offset behind the last acknowledged message of a sender's queue.
    pub(crate) fn end_of(&self, sender: usize) -> u64 {
        let messages = self.messages[sender].lock().unwrap();
        messages.iter().rev().find_map(|sent| sent.place).map_or(0, |(offset, _)| offset + 1)
    }

    /// Waits until `more` further messages are acknowledged.
    pub(crate) async fn grown_by(&self, more: usize) {
        let wanted = self.acked() + more;
        wait("more acknowledgements", async || (self.acked() >= wanted).then_some(())).await;
    }

    /// Waits for an acknowledgement of an attempt that began after `start`, and returns how long after it came.
    pub(crate) async fn first_ack_after(&self, start: Instant) -> Duration {
        wait("an acknowledgement after a fault", async || {
            let acks = self.acks.lock().unwrap();
            // They stand there in about the order in which they came; what came before the fault is of no interest.
            let recent = acks.iter().rev().take_while(|ack| ack.at + PATIENCE > start);
            recent.filter(|ack| ack.began >= start).map(|ack| ack.at - start).min()
        })
        .await
    }

    /// Returns the longest time between `from` and now in which nobody got an acknowledgement.
    pub(crate) fn longest_pause_since(&self, from: Instant) -> Duration {
        let mut times: Vec<_> = self.acks.lock().unwrap().iter().map(|ack| ack.at).collect();
        times.retain(|at| *at >= from);
        times.sort_unstable();
        let until = Instant::now();
        let starts = std::iter::once(from).chain(times.iter().copied());
        let ends = times.iter().copied().chain(std::iter::once(until));
        starts.zip(ends).map(|(start, end)| end.saturating_duration_since(start)).max().unwrap_or_default()
    }

    /// Returns what replicas answered instead of acknowledging.
    pub(crate) fn refusals(&self) -> BTreeMap<String, usize> {
        self.refusals.lock().unwrap().clone()
    }

    fn refused(&self, how: String) {
        *self.refusals.lock().unwrap().entry(how).or_default() += 1;
    }
}

/// The body of a message: who sent it, and its length, so that a part of it is not taken for the whole.
pub(crate) fn body(sender: usize, number: usize, filler: usize) -> String {
    format!("{sender}-{number}-{filler} {}", "x".repeat(filler))
}

/// The sender and number of a body, if it is one that was sent.
pub(crate) fn parse(text: &str) -> Option<(usize, usize)> {
    let mut head = text.split(' ').next()?.split('-').map(|part| part.parse().ok());
    let (sender, number, filler) = (head.next()??, head.next()??, head.next()??);
    (body(sender, number, filler) == text).then_some((sender, number))
}

struct Sender {
    number: usize,
    client: Client,
    addresses: Vec<String>,
    home: usize,
    /// Where it sends to.
    at: usize,
    /// Messages since it left home.
    away: u32,
    filler_max: usize,
    ledger: Arc<Ledger>,
}

impl Sender {
    async fn run(mut self, stop: watch::Receiver<bool>) {
        for number in 0.. {
            let sent = self.send(number).await;
            self.ledger.messages[self.number].lock().unwrap().push(sent);
            if *stop.borrow() {
                break;
            }
            // The pace of a load, not a wait for a condition.
            tokio::time::sleep(PACE).await;
        }
        self.client.close().await;
    }

    async fn send(&mut self, number: usize) -> Sent {
        let text = body(self.number, number, number * 1013 % self.filler_max);
        let message = Outgoing {
            topic: TOPIC,
            queue_id: i32::try_from(self.number).expect("few senders"),
            body: text.as_bytes(),
            default_topic_queue_nums: i32::try_from(SENDERS).expect("few senders"),
            ..Outgoing::default()
        };
        if self.at != self.home {
            self.away += 1;
            if self.away >= AT_ANOTHER {
                (self.at, self.away) = (self.home, 0);
            }
        }
        let deadline = Instant::now() + PATIENCE;
        let mut sent = Sent::default();
        for attempt in 1.. {
            let began = Instant::now();
            let within = ATTEMPT.min(deadline.saturating_duration_since(began));
            let answer = self.client.call(&self.addresses[self.at], message.v2(), within).await;
            match &answer {
                Ok(answer) if answer.code == 0 => {
                    sent.place = Some(place(answer));
                    self.ledger.acks.lock().unwrap().push(Ack { began, at: Instant::now() });
                    return sent;
                }
                // SYSTEM_ERROR, SYSTEM_BUSY, SERVICE_NOT_AVAILABLE.
                Ok(answer) if matches!(answer.code, 1 | 2 | 14) => {
                    sent.unknown += 1;
                    self.ledger.refused(kind_of(answer));
                }
                Ok(answer) => panic!("code {}: {:?}", answer.code, answer.remark),
                Err(CallError::Connect { .. }) => self.ledger.refused("not connected".into()),
                Err(CallError::Busy { .. }) => self.ledger.refused("busy".into()),
                Err(CallError::Timeout { .. }) => {
                    sent.unknown += 1;
                    self.ledger.refused("timeout".into());
                }
                Err(CallError::Closed { .. }) => {
                    sent.unknown += 1;
                    self.ledger.refused("connection closed".into());
                }
            }
            self.at = (self.at + 1) % self.addresses.len();
            if attempt % self.addresses.len() == 0 {
                tokio::time::sleep(BACK_OFF).await;
            }
            if Instant::now() >= deadline {
                self.ledger.refused("GIVEN UP".into());
                break;
            }
        }
        sent
    }
}

/// Where an acknowledged message is.
fn place(answer: &Command) -> (u64, u64) {
    let header: SendMessageResponseHeader = answer.header().expect("the header of a send's answer");
    let id = &header.msg_id;
    let position = u64::from_str_radix(&id[id.len() - 16..], 16).expect("an offset message id");
    (u64::try_from(header.queue_offset).expect("an offset"), position)
}

/// A refusal without its numbers and addresses.
fn kind_of(answer: &Command) -> String {
    let remark = answer.remark.clone().unwrap_or_default();
    let words: Vec<_> =
        remark.split(' ').filter(|word| !word.contains(|c: char| c.is_ascii_digit())).collect();
    format!("{} {:.70}", answer.code, words.join(" "))
}
