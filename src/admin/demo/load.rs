//! The clients of the demo: for each key a sender that sends one message after the other, and a consumer that pulls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::history::{Gap, Reading, Sent};
use crate::env::Clock;
use crate::message::{Properties, Record, key};
use crate::model::{Group, Topic, system_topic};
use crate::remoting::header::{
    PullMessageRequestHeader, PullMessageResponseHeader, SendMessageHeaderV2, SendMessageResponseHeader,
};
use crate::remoting::{CallError, Client, Command, RequestCode, ResponseCode};

/// How long one call may take, as RocketMQ's producers have it.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after all replicas refused.
const ROUND_PAUSE: Duration = Duration::from_millis(10);
/// How long the last messages are sent again after the end, so that their outcome becomes known.
const LAST_TRIES: Duration = Duration::from_secs(10);
/// How long a broker may hold a pull.
const HOLD: Duration = Duration::from_millis(500);
/// Bits of a pull: it may be held; it carries its subscription.
const FLAG_HOLD: i32 = 2;
const FLAG_SUBSCRIPTION: i32 = 4;
/// Bytes of a message's body.
const BODY_BYTES: usize = 256;

/// A key with its queue.
#[derive(Debug, Clone)]
pub(super) struct Key {
    /// Its number.
    pub(super) number: usize,
    /// Which of the groups it goes to.
    pub(super) group: usize,
    /// Its queue there.
    pub(super) queue_id: i32,
}

/// What all clients share.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) client: Client,
    pub(super) clock: Clock,
    pub(super) topic: Topic,
    pub(super) consumers: Group,
    /// Name and addresses of each group.
    pub(super) groups: Vec<(String, Vec<String>)>,
    pub(super) start: Instant,
    /// For all groups, then for each.
    gaps: Mutex<Vec<Gap>>,
    /// Acknowledged sends.
    pub(super) acknowledged: AtomicU64,
    /// For each key, the last acknowledged offset and 1, or 0.
    pub(super) ends: Vec<AtomicU64>,
    /// Answers that would have made a consumer lose its place.
    pub(super) told_to_move: AtomicU64,
    pub(super) stop: watch::Sender<bool>,
}

/// Why a send was not acknowledged.
enum Unsent {
    /// Nobody got it.
    Surely,
    /// It may be stored, now or later.
    Perhaps,
}

impl Load {
    pub(super) fn new(
        client: Client,
        clock: Clock,
        (topic, consumers): (Topic, Group),
        groups: BTreeMap<String, Vec<String>>,
        keys: usize,
    ) -> Self {
        let groups: Vec<_> = groups.into_iter().collect();
        Self {
            client,
            clock,
            topic,
            consumers,
            start: Instant::now(),
            gaps: Mutex::new(vec![Gap::default(); groups.len() + 1]),
            groups,
            acknowledged: AtomicU64::new(0),
            ends: (0..keys).map(|_| AtomicU64::new(0)).collect(),
            told_to_move: AtomicU64::new(0),
            stop: watch::Sender::new(false),
        }
    }

    /// Returns the keys, which are spread over the groups.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let groups = self.groups.len();
        (0..self.ends.len()).map(move |number| Key {
            number,
            group: number % groups,
            queue_id: i32::try_from(number / groups).unwrap_or(i32::MAX),
        })
    }

    /// Returns the longest gap over all groups, and that of each.
    pub(super) fn gaps(&self) -> Vec<Gap> {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that sending ended.
    pub(super) fn end(&self) {
        let now = self.start.elapsed();
        for gap in self.gaps.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
            gap.note(now);
        }
    }

    /// Returns when a group last acknowledged, since the start.
    pub(super) fn last_acknowledged(&self, group: usize) -> Duration {
        self.gaps.lock().unwrap_or_else(PoisonError::into_inner)[group + 1].last()
    }

    fn note_acknowledged(&self, key: &Key, offset: u64) {
        let now = self.start.elapsed();
        self.ends[key.number].fetch_max(offset + 1, Ordering::Relaxed);
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps[0].note(now);
        gaps[key.group + 1].note(now);
    }

    /// Sends messages of a key until it is told to stop, each until it is acknowledged, to any replica that takes it.
    pub(super) async fn send(self: Arc<Self>, key: Key) -> Vec<Sent> {
        let stop = self.stop.subscribe();
        let addresses = &self.groups[key.group].1;
        let (mut history, mut at) = (Vec::new(), key.number);
        while !*stop.borrow() {
            let mut sent = Sent::default();
            let mut give_up = None;
            let mut refusals = 0;
            while sent.acknowledged.is_none() {
                match self.try_send(&addresses[at % addresses.len()], &key, history.len()).await {
                    Ok(offset) => {
                        sent.tries += 1;
                        sent.acknowledged = Some(offset);
                        self.note_acknowledged(&key, offset);
                        continue;
                    }
                    Err(Unsent::Perhaps) => sent.tries += 1,
                    Err(Unsent::Surely) => {}
                }
                at += 1;
                refusals += 1;
                if refusals % addresses.len() == 0 {
                    sleep(ROUND_PAUSE).await;
                }
                if *stop.borrow()
                    && Instant::now() >= *give_up.get_or_insert_with(|| Instant::now() + LAST_TRIES)
                {
                    break;
                }
            }
            history.push(sent);
        }
        history
    }

    async fn try_send(&self, address: &str, key: &Key, number: usize) -> Result<u64, Unsent> {
        let mut properties = Properties::new("");
        properties.set(key::KEYS, &format!("key-{}", key.number));
        properties.set(key::WAIT, "true");
        let header = SendMessageHeaderV2 {
            producer_group: Group::new("quorate_demo_producers"),
            topic: self.topic.clone(),
            default_topic: Topic::new(system_topic::AUTO_CREATE),
            default_topic_queue_nums: 4,
            queue_id: key.queue_id,
            sys_flag: 0,
            born_timestamp: self.clock.now_ms(),
            flag: 0,
            properties: Some(properties.as_str().to_owned()),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            max_reconsume_times: None,
            batch: Some(false),
            broker_name: Some(self.groups[key.group].0.clone()),
        };
        let request = Command::request(RequestCode::SendMessageV2)
            .with_header(&header)
            .with_body(body(key.number, number as u64));
        let answer = self.client.call(address, request, CALL_TIMEOUT).await.map_err(|error| match error {
            CallError::Connect { .. } | CallError::Busy { .. } => Unsent::Surely,
            CallError::Timeout { .. } | CallError::Closed { .. } => Unsent::Perhaps,
        })?;
        if answer.response_code() != Some(ResponseCode::Success) {
            // Code 14 may come from a replica whose leader died with the message in its hands.
            return Err(Unsent::Perhaps);
        }
        let stored: SendMessageResponseHeader = answer.header().map_err(|_| Unsent::Perhaps)?;
        u64::try_from(stored.queue_offset).map_err(|_| Unsent::Perhaps)
    }

    /// Pulls a key's messages from the start on, from any replica that answers, until everything that was acknowledged
    /// when `end` was set is read, or `deadline` has passed since.
    pub(super) async fn consume(
        self: Arc<Self>,
        key: Key,
        end: watch::Receiver<bool>,
        deadline: Duration,
    ) -> Reading {
        let addresses = &self.groups[key.group].1;
        let mut reading = Reading { by: "the consumer".into(), ..Reading::default() };
        let (mut next, mut at, mut give_up) = (0, key.number, None);
        loop {
            if *end.borrow() {
                reading.complete = next >= self.ends[key.number].load(Ordering::Relaxed);
                let late = Instant::now() >= *give_up.get_or_insert_with(|| Instant::now() + deadline);
                if reading.complete || late {
                    return reading;
                }
            }
            match self.pull(&addresses[at % addresses.len()], &key, next, HOLD, &mut reading).await {
                Some(new) if new > next => next = new,
                // Nothing new within the hold, or nothing to be had there: perhaps another knows more.
                Some(_) => at += 1,
                None => {
                    at += 1;
                    sleep(ROUND_PAUSE).await;
                }
            }
        }
    }

    /// Pulls all that was acknowledged of a key from one replica.
    pub(super) async fn audit(&self, by: &str, address: &str, key: &Key, deadline: Duration) -> Reading {
        let mut reading = Reading { by: by.to_owned(), ..Reading::default() };
        let end = self.ends[key.number].load(Ordering::Relaxed);
        let give_up = Instant::now() + deadline;
        let mut next = 0;
        while next < end && Instant::now() < give_up {
            match self.pull(address, key, next, Duration::ZERO, &mut reading).await {
                Some(new) if new > next => next = new,
                _ => sleep(ROUND_PAUSE).await,
            }
        }
        reading.complete = next >= end;
        reading
    }

    /// Waits until a replica serves what was acknowledged of a key up to `end`.
    pub(super) async fn has(&self, address: &str, key: &Key, end: u64) {
        let mut reading = Reading::default();
        while end > 0
            && self
                .pull(address, key, end - 1, Duration::ZERO, &mut reading)
                .await
                .is_none_or(|next| next < end)
        {
            sleep(ROUND_PAUSE).await;
        }
    }

    /// Pulls once. Returns where to go on, or `None` if the replica did not answer the question.
    async fn pull(
        &self,
        address: &str,
        key: &Key,
        from: u64,
        hold: Duration,
        reading: &mut Reading,
    ) -> Option<u64> {
        let header = PullMessageRequestHeader {
            consumer_group: self.consumers.clone(),
            topic: self.topic.clone(),
            queue_id: key.queue_id,
            queue_offset: i64::try_from(from).ok()?,
            max_msg_nums: 32,
            sys_flag: FLAG_SUBSCRIPTION | if hold.is_zero() { 0 } else { FLAG_HOLD },
            commit_offset: 0,
            suspend_timeout_millis: i64::try_from(hold.as_millis()).ok()?,
            subscription: Some("*".into()),
            sub_version: 0,
            expression_type: Some("TAG".into()),
            max_msg_bytes: None,
            request_source: None,
            proxy_froward_client_id: None,
            lite_topic: None,
        };
        let request = Command::request(RequestCode::PullMessage).with_header(&header);
        let answer = self.client.call(address, request, CALL_TIMEOUT).await.ok()?;
        match answer.response_code()? {
            ResponseCode::Success => {}
            ResponseCode::PullNotFound => return Some(from),
            ResponseCode::PullOffsetMoved => {
                self.told_to_move.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            _ => return None,
        }
        let header: PullMessageResponseHeader = answer.header().ok()?;
        let bytes = answer.body.to_bytes();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let record = Record::decode(rest).ok()?;
            let number = number(&record, key.number);
            reading.messages.push((record.queue_offset.0, number));
            rest = rest.get(record.total_size.max(1)..)?;
        }
        u64::try_from(header.next_begin_offset).ok()
    }
}

/// Returns the body of a message: key, number, and filling that depends on both.
fn body(key: usize, number: u64) -> Vec<u8> {
    let mut body = format!("{key} {number} ").into_bytes();
    while body.len() < BODY_BYTES {
        body.push(b'a' + u8::try_from((number + body.len() as u64) % 26).unwrap_or(0));
    }
    body
}

/// Returns the number of a message of a key, or `None` if it is another's or not as it was sent.
fn number(record: &Record<'_>, key: usize) -> Option<u64> {
    let text = std::str::from_utf8(record.body).ok()?;
    let number = text.split(' ').nth(1)?.parse().ok()?;
    (record.check_body().is_ok() && record.body == body(key, number)).then_some(number)
}
