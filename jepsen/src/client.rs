//! Our own client: single requests to single servers, without a word hidden about how they ended.

use std::time::Duration;

use quorate::message::Record;
use quorate::model::{Group, Topic};
use quorate::remoting::header::{
    PullMessageRequestHeader, SendMessageHeader, SendMessageHeaderV2, SendMessageResponseHeader,
};
use quorate::remoting::{CallError, Client, ClientConfig, Command, RequestCode};

/// How long opening a connection may take.
const CONNECT: Duration = Duration::from_millis(400);
/// sysFlag of a pull: the subscription is in the header.
const SUBSCRIPTION: i32 = 0x4;
/// Messages in an answer to a pull.
const PULL_COUNT: i32 = 1000;

/// Calls servers.
#[derive(Debug, Clone)]
pub(crate) struct Caller(Client);

/// How a send ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    Acked {
        offset: u64,
    },
    /// It certainly did not reach the server.
    Refused,
    Unknown,
}

/// How another request ended.
#[derive(Debug)]
pub(crate) enum Answer {
    Done(Command),
    /// The server said that it did not do it.
    Refused,
    /// It certainly did not reach the server.
    NotSent,
    Unknown,
}

/// Messages that a pull returned, by offset, or what else it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pulled {
    Found(Vec<(u64, Vec<u8>)>),
    /// There is nothing at that offset yet.
    Nothing,
    /// The offset is outside of what the replica has; go on there.
    Moved(u64),
    Failed,
}

impl Caller {
    /// Makes a caller with connections of its own.
    pub(crate) fn new() -> Self {
        Self(Client::new(ClientConfig { connect_timeout: CONNECT, ..ClientConfig::default() }))
    }

    /// Asks; code 0 is success, what `refusals` lists did certainly not happen.
    pub(crate) async fn call(
        &self,
        address: &str,
        request: Command,
        within: Duration,
        refusals: &[i32],
    ) -> Answer {
        match self.0.call(address, request, within).await {
            Ok(answer) if answer.code == 0 => Answer::Done(answer),
            Ok(answer) if refusals.contains(&answer.code) => Answer::Refused,
            Err(CallError::Connect { .. } | CallError::Busy { .. }) => Answer::NotSent,
            Ok(_) | Err(_) => Answer::Unknown,
        }
    }

    pub(crate) async fn send(
        &self,
        address: &str,
        topic: &str,
        queue: u32,
        body: &[u8],
        within: Duration,
    ) -> Sent {
        let header = SendMessageHeader {
            producer_group: Group::new("P"),
            topic: Topic::new(topic),
            default_topic: Topic::new("TBW102"),
            default_topic_queue_nums: 8,
            queue_id: queue.cast_signed(),
            sys_flag: 0,
            born_timestamp: 1,
            flag: 0,
            properties: Some(String::new()),
            reconsume_times: None,
            unit_mode: Some(false),
            batch: None,
            max_reconsume_times: None,
            broker_name: None,
        };
        let request = Command::request(RequestCode::SendMessageV2)
            .with_header(&SendMessageHeaderV2::from(header))
            .with_body(body.to_vec());
        match self.call(address, request, within, &[]).await {
            Answer::Done(answer) => match answer.header::<SendMessageResponseHeader>() {
                Ok(header) => Sent::Acked { offset: u64::try_from(header.queue_offset).unwrap_or(u64::MAX) },
                Err(_) => Sent::Unknown,
            },
            Answer::Refused | Answer::NotSent => Sent::Refused,
            Answer::Unknown => Sent::Unknown,
        }
    }

    /// Reads a queue from an offset on, without waiting.
    pub(crate) async fn pull(
        &self,
        address: &str,
        topic: &str,
        queue: u32,
        offset: u64,
        within: Duration,
    ) -> Pulled {
        let request = Command::request(RequestCode::PullMessage).with_header(&PullMessageRequestHeader {
            consumer_group: Group::new("CID_RMQ_SYS_JEPSEN"),
            topic: Topic::new(topic),
            queue_id: queue.cast_signed(),
            queue_offset: i64::try_from(offset).unwrap_or(i64::MAX),
            max_msg_nums: PULL_COUNT,
            sys_flag: SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_millis: 0,
            subscription: Some("*".into()),
            sub_version: 0,
            expression_type: Some("TAG".into()),
            max_msg_bytes: None,
            request_source: None,
            proxy_froward_client_id: None,
            lite_topic: None,
        });
        let Ok(answer) = self.0.call(address, request, within).await else { return Pulled::Failed };
        match answer.code {
            0 => match records(&answer.body.to_bytes()) {
                Some(messages) => Pulled::Found(messages),
                None => Pulled::Failed,
            },
            // PULL_NOT_FOUND, PULL_RETRY_IMMEDIATELY, PULL_OFFSET_MOVED.
            19..=21 => {
                let field = |name| answer.ext_fields.get(name).and_then(|text| text.parse::<u64>().ok());
                let (next, min) = (field("nextBeginOffset"), field("minOffset"));
                // A replica that does not lead sends whoever wants what it has deleted to the leader.
                let min = min.filter(|min| *min > offset);
                min.or(next.filter(|next| *next != offset)).map_or(Pulled::Nothing, Pulled::Moved)
            }
            _ => Pulled::Failed,
        }
    }
}

/// Returns the request that makes a topic, or changes it.
pub(crate) fn topic_request(topic: &str, read_queues: i64, write_queues: i64) -> Command {
    Command::request(RequestCode::UpdateAndCreateTopic)
        .with_field("topic", topic)
        .with_field("defaultTopic", "TBW102")
        .with_field("readQueueNums", read_queues.to_string())
        .with_field("writeQueueNums", write_queues.to_string())
        .with_field("perm", "6")
        .with_field("topicFilterType", "SINGLE_TAG")
        .with_field("topicSysFlag", "0")
        .with_field("order", "false")
}

/// Decodes the messages of an answer; `None` if one of them is damaged.
fn records(bytes: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
    let mut rest = bytes;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let record = Record::decode(rest).ok()?;
        record.check_body().ok()?;
        messages.push((record.queue_offset.0, record.body.to_vec()));
        rest = &rest[record.total_size..];
    }
    Some(messages)
}
