//! Requests as clients make them, with values for what a test does not care about, and what comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use quorate::message::Record;
use quorate::model::{Group, MessageQueue, Topic};
use quorate::remoting::body::{ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel};
use quorate::remoting::body::{ProducerData, SubscriptionData};
use quorate::remoting::header::*;
use quorate::remoting::{CallError, Client, ClientConfig, Command, RequestCode};

const CALL_TIMEOUT: Duration = Duration::from_secs(20);

/// sysFlag of a pull: the subscription is in the header.
pub(crate) const SUBSCRIPTION: i32 = 0x4;
/// sysFlag of a pull: it may be held.
pub(crate) const SUSPEND: i32 = 0x2;
/// sysFlag of a pull: its commitOffset counts.
pub(crate) const COMMIT: i32 = 0x1;

/// A message to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) topic: &'a str,
    pub(crate) queue_id: i32,
    pub(crate) body: &'a [u8],
    pub(crate) properties: &'a [(&'a str, &'a str)],
    pub(crate) flag: i32,
    pub(crate) sys_flag: i32,
    pub(crate) reconsume_times: Option<i32>,
    pub(crate) max_reconsume_times: Option<i32>,
    pub(crate) batch: Option<bool>,
    pub(crate) default_topic: &'a str,
    pub(crate) default_topic_queue_nums: i32,
}

impl Default for Outgoing<'_> {
    fn default() -> Self {
        Self {
            topic: "T",
            queue_id: 0,
            body: b"body",
            properties: &[],
            flag: 0,
            sys_flag: 0,
            reconsume_times: None,
            max_reconsume_times: None,
            batch: None,
            default_topic: "TBW102",
            default_topic_queue_nums: 4,
        }
    }
}

impl Outgoing<'_> {
    /// The producer's clock in every message.
    pub(crate) const BORN: i64 = 1_700_000_000_000;

    /// SEND_MESSAGE.
    pub(crate) fn v1(&self) -> Command {
        Command::request(RequestCode::SendMessage).with_header(&self.header()).with_body(self.body.to_vec())
    }

    /// SEND_MESSAGE_V2.
    pub(crate) fn v2(&self) -> Command {
        self.short(RequestCode::SendMessageV2)
    }

    /// SEND_BATCH_MESSAGE; the body is the batch.
    pub(crate) fn batch(&self) -> Command {
        Self { batch: Some(true), ..*self }.short(RequestCode::SendBatchMessage)
    }

    fn short(&self, code: RequestCode) -> Command {
        Command::request(code)
            .with_header(&SendMessageHeaderV2::from(self.header()))
            .with_body(self.body.to_vec())
    }

    fn header(&self) -> SendMessageHeader {
        SendMessageHeader {
            producer_group: Group::new("P"),
            topic: Topic::new(self.topic),
            default_topic: Topic::new(self.default_topic),
            default_topic_queue_nums: self.default_topic_queue_nums,
            queue_id: self.queue_id,
            sys_flag: self.sys_flag,
            born_timestamp: Self::BORN,
            flag: self.flag,
            properties: Some(property_string(self.properties)),
            reconsume_times: self.reconsume_times,
            unit_mode: Some(false),
            batch: self.batch,
            max_reconsume_times: self.max_reconsume_times,
            broker_name: Some("broker-a".into()),
        }
    }
}

/// Joins properties as clients do.
pub(crate) fn property_string(properties: &[(&str, &str)]) -> String {
    properties.iter().map(|(name, value)| format!("{name}\u{1}{value}\u{2}")).collect()
}

/// A pull.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pull<'a> {
    pub(crate) group: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) queue_id: i32,
    pub(crate) offset: i64,
    pub(crate) count: i32,
    pub(crate) sys_flag: i32,
    pub(crate) commit: i64,
    pub(crate) suspend_ms: i64,
    pub(crate) subscription: Option<&'a str>,
    pub(crate) sub_version: i64,
    pub(crate) expression_type: Option<&'a str>,
}

impl Default for Pull<'_> {
    fn default() -> Self {
        Self {
            group: "G",
            topic: "T",
            queue_id: 0,
            offset: 0,
            count: 32,
            sys_flag: SUBSCRIPTION,
            commit: 0,
            suspend_ms: 0,
            subscription: Some("*"),
            sub_version: 0,
            expression_type: Some("TAG"),
        }
    }
}

impl Pull<'_> {
    pub(crate) fn request(&self) -> Command {
        Command::request(RequestCode::PullMessage).with_header(&PullMessageRequestHeader {
            consumer_group: Group::new(self.group),
            topic: Topic::new(self.topic),
            queue_id: self.queue_id,
            queue_offset: self.offset,
            max_msg_nums: self.count,
            sys_flag: self.sys_flag,
            commit_offset: self.commit,
            suspend_timeout_millis: self.suspend_ms,
            subscription: self.subscription.map(str::to_owned),
            sub_version: self.sub_version,
            expression_type: self.expression_type.map(str::to_owned),
            max_msg_bytes: None,
            request_source: None,
            proxy_froward_client_id: None,
            lite_topic: None,
        })
    }
}

/// A consumer as its heartbeat tells of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Consumer<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) group: &'a str,
    pub(crate) model: MessageModel,
    /// Topic, expression and version of each subscription.
    pub(crate) subscriptions: &'a [(&'a str, &'a str, i64)],
    pub(crate) expression_type: &'a str,
}

impl Default for Consumer<'_> {
    fn default() -> Self {
        Self {
            client_id: "127.0.0.1@1",
            group: "G",
            model: MessageModel::Clustering,
            subscriptions: &[("T", "*", 1)],
            expression_type: "TAG",
        }
    }
}

impl Consumer<'_> {
    /// HEART_BEAT.
    pub(crate) fn heartbeat(&self) -> Command {
        let subscription_data_set = self
            .subscriptions
            .iter()
            .map(|(topic, expression, version)| SubscriptionData {
                class_filter_mode: false,
                code_set: Default::default(),
                expression_type: Some(self.expression_type.into()),
                sub_string: Some((*expression).into()),
                sub_version: *version,
                tags_set: Default::default(),
                topic: Topic::new(topic),
            })
            .collect();
        Command::request(RequestCode::HeartBeat).with_json(&HeartbeatData {
            client_id: self.client_id.into(),
            consumer_data_set: vec![ConsumerData {
                consume_from_where: ConsumeFromWhere::LastOffset,
                consume_type: ConsumeType::Passively,
                group_name: Group::new(self.group),
                message_model: self.model,
                subscription_data_set,
                unit_mode: false,
            }],
            heartbeat_fingerprint: 0,
            producer_data_set: vec![ProducerData { group_name: Group::new("P") }],
            without_sub: false,
        })
    }

    /// UNREGISTER_CLIENT.
    pub(crate) fn goodbye(&self) -> Command {
        Command::request(RequestCode::UnregisterClient)
            .with_field("clientID", self.client_id)
            .with_field("producerGroup", "P")
            .with_field("consumerGroup", self.group)
    }
}

/// A message as it came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) topic: String,
    pub(crate) queue_id: u32,
    pub(crate) queue_offset: u64,
    pub(crate) position: u64,
    pub(crate) size: usize,
    pub(crate) flag: i32,
    pub(crate) sys_flag: i32,
    pub(crate) born_timestamp: i64,
    pub(crate) store_timestamp: i64,
    pub(crate) reconsume_times: i32,
    pub(crate) body: Vec<u8>,
    pub(crate) properties: BTreeMap<String, String>,
}

impl Received {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }
}

/// Returns the records in an answer.
pub(crate) fn records(answer: &Command) -> Vec<Received> {
    let bytes = answer.body.to_bytes();
    let mut rest = &bytes[..];
    let mut received = Vec::new();
    while !rest.is_empty() {
        let record = Record::decode(rest).unwrap();
        record.check_body().unwrap();
        received.push(Received {
            topic: record.topic.into(),
            queue_id: record.queue_id,
            queue_offset: record.queue_offset.0,
            position: record.physical_offset.0,
            size: record.total_size,
            flag: record.flag,
            sys_flag: record.sys_flag.0,
            born_timestamp: record.born_timestamp,
            store_timestamp: record.store_timestamp,
            reconsume_times: record.reconsume_times,
            body: record.body.to_vec(),
            properties: record
                .properties
                .split('\u{2}')
                .filter_map(|entry| entry.split_once('\u{1}'))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        });
        rest = &rest[record.total_size..];
    }
    received
}

/// Returns the bodies of records as text.
pub(crate) fn texts(records: &[Received]) -> Vec<String> {
    records.iter().map(Received::text).collect()
}

/// A client of one broker.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    client: Client,
    pub(crate) address: String,
}

impl Peer {
    /// Makes a client with a connection of its own.
    pub(crate) fn new(address: impl ToString) -> Self {
        Self { client: Client::new(ClientConfig::default()), address: address.to_string() }
    }

    pub(crate) async fn try_call(&self, request: Command) -> Result<Command, CallError> {
        self.client.call(&self.address, request, CALL_TIMEOUT).await
    }

    /// Asks, whatever the answer's code.
    pub(crate) async fn call(&self, request: Command) -> Command {
        self.try_call(request).await.unwrap()
    }

    /// Asks, and fails unless the code is 0.
    pub(crate) async fn ok(&self, request: Command) -> Command {
        let what = format!("request {}", request.code);
        let answer = self.call(request).await;
        assert_eq!(answer.code, 0, "{what}: {:?}", answer.remark);
        answer
    }

    /// Sends a message, which must be taken.
    pub(crate) async fn send(&self, message: &Outgoing<'_>) -> SendMessageResponseHeader {
        self.ok(message.v2()).await.header().unwrap()
    }

    /// Sends texts to queue 0 of a topic, one after the other.
    pub(crate) async fn send_texts(&self, topic: &str, texts: &[&str]) {
        for text in texts {
            self.send(&Outgoing { topic, body: text.as_bytes(), ..Outgoing::default() }).await;
        }
    }

    pub(crate) async fn pull(&self, pull: &Pull<'_>) -> Command {
        self.call(pull.request()).await
    }

    /// Reads a queue from its first message to its end; checks that the offsets follow each other.
    pub(crate) async fn queue(&self, topic: &str, queue_id: i32) -> Vec<Received> {
        let mut all = Vec::new();
        let mut offset = self.min_offset(topic, queue_id).await;
        loop {
            let group = "CID_RMQ_SYS_TEST";
            let answer = self.pull(&Pull { group, topic, queue_id, offset, ..Pull::default() }).await;
            match answer.code {
                0 => {}
                19 => return all,
                code => panic!("pull of {topic} {queue_id} at {offset}: {code} {:?}", answer.remark),
            }
            for record in records(&answer) {
                assert_eq!(i64::try_from(record.queue_offset), Ok(offset), "{topic} {queue_id}");
                assert_eq!((record.topic.as_str(), record.queue_id.cast_signed()), (topic, queue_id));
                offset += 1;
                all.push(record);
            }
            assert_eq!(next_begin(&answer), offset);
        }
    }

    pub(crate) async fn min_offset(&self, topic: &str, queue_id: i32) -> i64 {
        offset(&self.ok(queue_request(RequestCode::GetMinOffset, topic, queue_id)).await)
    }

    pub(crate) async fn max_offset(&self, topic: &str, queue_id: i32) -> i64 {
        offset(&self.ok(queue_request(RequestCode::GetMaxOffset, topic, queue_id)).await)
    }

    /// Finds messages by key (`unique` false) or unique key.
    pub(crate) async fn by_key(&self, topic: &str, key: &str, unique: bool) -> Vec<Received> {
        let request = Command::request(RequestCode::QueryMessage).with_header(&QueryMessageRequestHeader {
            topic: Topic::new(topic),
            key: key.into(),
            max_num: 32,
            begin_timestamp: 0,
            end_timestamp: i64::MAX,
            index_type: None,
            last_key: None,
        });
        let request = if unique { request.with_field("_UNIQUE_KEY_QUERY", "true") } else { request };
        let answer = self.call(request).await;
        assert!(matches!(answer.code, 0 | 22), "{:?}", answer.remark);
        records(&answer)
    }

    /// Views the message at a position of the log.
    pub(crate) async fn by_position(&self, position: u64) -> Command {
        self.call(Command::request(RequestCode::ViewMessageById).with_field("offset", position.to_string()))
            .await
    }

    /// Views the message that an offset message id stands for.
    pub(crate) async fn by_id(&self, id: &str) -> Received {
        let position = u64::from_str_radix(&id[id.len() - 16..], 16).unwrap();
        let answer = self.by_position(position).await;
        assert_eq!(answer.code, 0, "{id}: {:?}", answer.remark);
        records(&answer).remove(0)
    }

    pub(crate) async fn commit(&self, group: &str, topic: &str, queue_id: i32, offset: i64) -> Command {
        let request = queue_request(RequestCode::UpdateConsumerOffset, topic, queue_id);
        let request = request.with_field("consumerGroup", group);
        self.call(request.with_field("commitOffset", offset.to_string())).await
    }

    /// Asks for a committed offset; `Err` is the code of another answer.
    pub(crate) async fn committed(&self, group: &str, topic: &str, queue_id: i32) -> Result<i64, i32> {
        let request = queue_request(RequestCode::QueryConsumerOffset, topic, queue_id);
        let request = request.with_field("consumerGroup", group).with_field("setZeroIfNotFound", "false");
        let answer = self.call(request).await;
        if answer.code == 0 { Ok(offset(&answer)) } else { Err(answer.code) }
    }
}

/// A request about one queue.
pub(crate) fn queue_request(code: RequestCode, topic: &str, queue_id: i32) -> Command {
    Command::request(code).with_field("topic", topic).with_field("queueId", queue_id.to_string())
}

/// The field `offset` of an answer.
pub(crate) fn offset(answer: &Command) -> i64 {
    assert_eq!(answer.code, 0, "{:?}", answer.remark);
    answer.header::<OffsetResponseHeader>().unwrap().offset
}

/// The field `nextBeginOffset` of a pull's answer.
pub(crate) fn next_begin(answer: &Command) -> i64 {
    answer.header::<PullMessageResponseHeader>().unwrap().next_begin_offset
}

/// A queue as lock requests name it.
pub(crate) fn message_queue(topic: &str, queue_id: i32) -> MessageQueue {
    MessageQueue { broker_name: "broker-a".into(), queue_id, topic: Topic::new(topic) }
}
