//! `printMsg`, `consumeMessage`: read queues without belonging to a group.

use anyhow::{Context, Result, anyhow, bail};

use super::output::Output;
use super::record::Stored;
use super::session::{CALL_TIMEOUT, Session, accept, preferred};
use super::time;
use crate::model::{Group, MessageQueue, Topic};
use crate::remoting::header::{
    GetMaxOffsetRequestHeader, GetMinOffsetRequestHeader, OffsetResponseHeader, PullMessageRequestHeader,
    PullMessageResponseHeader, SearchOffsetRequestHeader,
};
use crate::remoting::{Command, RequestCode, ResponseCode};

/// Consumer group of Java's tools.
const GROUP: &str = "TOOLS_CONSUMER";
/// Messages that one pull asks for.
const BATCH: i32 = 32;
/// The pull carries its subscription; it is not held when there is nothing.
const FLAG_SUBSCRIPTION: i32 = 4;

/// Options of `printMsg`.
#[derive(Debug, clap::Args)]
pub(super) struct PrintMsg {
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
    /// Charset of bodies; UTF-8 is known
    #[arg(short = 'c', long = "charsetName", default_value = "UTF-8", ignore_case = true, value_parser = ["UTF-8"])]
    charset: String,
    /// Which tags, TagA || TagB
    #[arg(short = 's', long = "subExpression", default_value = "*")]
    expression: String,
    /// Stored since, milliseconds since 1970 or yyyy-MM-dd#HH:mm:ss:SSS
    #[arg(short = 'b', long = "beginTimestamp", value_parser = parse_time)]
    begin: Option<i64>,
    /// Stored before, milliseconds since 1970 or yyyy-MM-dd#HH:mm:ss:SSS
    #[arg(short = 'e', long = "endTimestamp", value_parser = parse_time)]
    end: Option<i64>,
    /// Whether to print bodies
    #[arg(short = 'd', long = "printBody", default_value_t = true, action = clap::ArgAction::Set)]
    print_body: bool,
    /// A topic whose route to take
    #[arg(short = 'l', long = "lmqParentTopic")]
    route_of: Option<String>,
}

impl PrintMsg {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let topic = Topic::new(self.topic.trim());
        let route_of = self.route_of.as_deref().map_or_else(|| topic.clone(), |name| Topic::new(name.trim()));
        for (queue, address) in readable(session, &topic, &route_of).await? {
            let (first, end) = bounds(session, &queue, &address, self.begin, self.end).await?;
            out.line(format_args!("minOffset={first}, maxOffset={end}, {}", describe(&queue)))?;
            let reader = Reader { session, queue: &queue, address: &address, expression: &self.expression };
            let show = |out: &mut Output<'_>, message: &Stored| show(out, message, &queue, self.print_body);
            reader.read(first, end, out, show).await?;
            out.line("--------------------------------------------------------")?;
        }
        Ok(())
    }
}

/// Options of `consumeMessage`.
#[derive(Debug, clap::Args)]
pub(super) struct ConsumeMessage {
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
    /// The broker group
    #[arg(short = 'b', long = "brokerName")]
    broker: Option<String>,
    /// The queue, if the broker is given
    #[arg(short = 'i', long = "queueId", requires = "broker")]
    queue_id: Option<i32>,
    /// The first queue offset, if the queue is given
    #[arg(short = 'o', long = "offset", requires = "queue_id")]
    offset: Option<i64>,
    /// Carried for compatibility: nothing is committed for it
    #[arg(short = 'g', long = "consumerGroup")]
    group: Option<String>,
    /// Stored since, milliseconds since 1970 or yyyy-MM-dd#HH:mm:ss:SSS
    #[arg(short = 's', long = "beginTimestamp", value_parser = parse_time)]
    begin: Option<i64>,
    /// Stored before, milliseconds since 1970 or yyyy-MM-dd#HH:mm:ss:SSS
    #[arg(short = 'e', long = "endTimestamp", value_parser = parse_time)]
    end: Option<i64>,
    /// Most messages in all
    #[arg(short = 'c', long = "MessageNumber", default_value_t = 128)]
    max: i64,
}

impl ConsumeMessage {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        if self.begin.zip(self.end).is_some_and(|(begin, end)| begin > end) {
            bail!("beginTimestamp is after endTimestamp");
        }
        let topic = Topic::new(self.topic.trim());
        let mut left = self.max.max(0);
        for (queue, address) in readable(session, &topic, &topic).await? {
            let is_wanted = self.broker.as_ref().is_none_or(|name| name.trim() == queue.broker_name)
                && self.queue_id.is_none_or(|id| id == queue.queue_id);
            if !is_wanted {
                continue;
            }
            let (first, end) = bounds(session, &queue, &address, self.begin, self.end).await?;
            let first = first.max(self.offset.unwrap_or(first));
            let end = end.min(first.saturating_add(left));
            let reader = Reader { session, queue: &queue, address: &address, expression: "*" };
            let show = |out: &mut Output<'_>, message: &Stored| {
                out.line("Consume ok")?;
                show(out, message, &queue, true)
            };
            left -= reader.read(first, end, out, show).await?;
            if left > 0 {
                out.line(format_args!(
                    "{} print msg finished. status=NO_NEW_MSG, offset={end}",
                    describe(&queue)
                ))?;
            }
        }
        Ok(())
    }
}

fn show(out: &mut Output<'_>, message: &Stored, queue: &MessageQueue, print_body: bool) -> Result<()> {
    let body = if print_body { String::from_utf8_lossy(&message.bytes) } else { "NOT PRINT BODY".into() };
    let text = message.describe(&queue.broker_name);
    out.line(format_args!("MSGID: {} {text} BODY: {body}", message.msg_id))?;
    out.json(message)
}

fn parse_time(text: &str) -> Result<i64, String> {
    time::parse(text.trim()).ok_or_else(|| "expected milliseconds or yyyy-MM-dd#HH:mm:ss:SSS".into())
}

/// Returns the queues that may be read, with the broker to ask.
async fn readable(session: &Session, topic: &Topic, route_of: &Topic) -> Result<Vec<(MessageQueue, String)>> {
    let route = session.route(route_of).await?;
    let mut queues = Vec::new();
    for data in route.queue_datas.iter().filter(|data| data.perm.readable()) {
        let broker = route.broker_datas.iter().find(|broker| broker.broker_name == data.broker_name);
        let Some(address) = broker.and_then(preferred) else { continue };
        for queue_id in 0..i32::try_from(data.read_queue_nums)? {
            let queue =
                MessageQueue { broker_name: data.broker_name.clone(), queue_id, topic: topic.clone() };
            queues.push((queue, address.clone()));
        }
    }
    Ok(queues)
}

/// Asks for the first queue offset and the one after the last; times narrow them.
async fn bounds(
    session: &Session,
    queue: &MessageQueue,
    address: &str,
    begin: Option<i64>,
    end: Option<i64>,
) -> Result<(i64, i64)> {
    let (topic, queue_id) = (queue.topic.clone(), queue.queue_id);
    let first = match begin {
        Some(time) => search(session, queue, address, time).await?,
        None => {
            let header = GetMinOffsetRequestHeader { topic: topic.clone(), queue_id };
            offset(session, address, Command::request(RequestCode::GetMinOffset).with_header(&header)).await?
        }
    };
    let end = match end {
        Some(time) => search(session, queue, address, time).await?,
        None => {
            let header = GetMaxOffsetRequestHeader { topic, queue_id, committed: None };
            offset(session, address, Command::request(RequestCode::GetMaxOffset).with_header(&header)).await?
        }
    };
    Ok((first, end))
}

async fn search(session: &Session, queue: &MessageQueue, address: &str, timestamp: i64) -> Result<i64> {
    let header = SearchOffsetRequestHeader {
        topic: queue.topic.clone(),
        queue_id: queue.queue_id,
        timestamp,
        boundary_type: None,
        lite_topic: None,
    };
    offset(session, address, Command::request(RequestCode::SearchOffsetByTimestamp).with_header(&header))
        .await
}

async fn offset(session: &Session, address: &str, request: Command) -> Result<i64> {
    let answer = session.ask(address, request).await?;
    let header: OffsetResponseHeader =
        answer.header().map_err(|error| anyhow!("read the answer of {address}: {error}"))?;
    Ok(header.offset)
}

/// Writes a queue as Java's `MessageQueue.toString`.
fn describe(queue: &MessageQueue) -> String {
    format!(
        "MessageQueue [topic={}, brokerName={}, queueId={}]",
        queue.topic, queue.broker_name, queue.queue_id
    )
}

struct Reader<'a> {
    session: &'a Session,
    queue: &'a MessageQueue,
    address: &'a str,
    expression: &'a str,
}

impl Reader<'_> {
    /// Shows the messages from `first` up to `end`, which is exclusive, and returns their number.
    async fn read(
        &self,
        first: i64,
        end: i64,
        out: &mut Output<'_>,
        show: impl Fn(&mut Output<'_>, &Stored) -> Result<()>,
    ) -> Result<i64> {
        let (mut at, mut shown) = (first, 0);
        while at < end {
            let answer = self.pull(at, end).await?;
            let next = answer
                .header::<PullMessageResponseHeader>()
                .with_context(|| format!("read the answer of {}", self.address))?
                .next_begin_offset;
            match answer.response_code() {
                Some(ResponseCode::Success) => {
                    let messages = Stored::decode_all(&answer.body.to_bytes())?;
                    let wanted =
                        |message: &&Stored| i64::try_from(message.queue_offset).is_ok_and(|o| o < end);
                    for message in messages.iter().filter(wanted) {
                        show(out, message)?;
                        shown += 1;
                    }
                }
                Some(ResponseCode::PullRetryImmediately) => out.line(format_args!(
                    "{} no matched msg. status=NO_MATCHED_MSG, offset={next}",
                    describe(self.queue)
                ))?,
                Some(code) => {
                    let status =
                        if code == ResponseCode::PullNotFound { "NO_NEW_MSG" } else { "OFFSET_ILLEGAL" };
                    out.line(format_args!(
                        "{} print msg finished. status={status}, offset={next}",
                        describe(self.queue)
                    ))?;
                    break;
                }
                None => break,
            }
            // A broker that does not move on would be asked for ever.
            if next <= at {
                bail!("{} answered the pull at {at} with the next offset {next}", self.address);
            }
            at = next;
        }
        Ok(shown)
    }

    async fn pull(&self, at: i64, end: i64) -> Result<Command> {
        let header = PullMessageRequestHeader {
            consumer_group: Group::new(GROUP),
            topic: self.queue.topic.clone(),
            queue_id: self.queue.queue_id,
            queue_offset: at,
            max_msg_nums: BATCH.min(i32::try_from(end - at).unwrap_or(BATCH)),
            sys_flag: FLAG_SUBSCRIPTION,
            commit_offset: 0,
            suspend_timeout_millis: 0,
            subscription: Some(self.expression.to_owned()),
            sub_version: 0,
            expression_type: Some("TAG".into()),
            max_msg_bytes: None,
            request_source: None,
            proxy_froward_client_id: None,
            lite_topic: None,
        };
        let request = Command::request(RequestCode::PullMessage).with_header(&header);
        let answer = self.session.call(self.address, request, CALL_TIMEOUT).await?;
        match answer.response_code() {
            Some(
                ResponseCode::Success
                | ResponseCode::PullNotFound
                | ResponseCode::PullRetryImmediately
                | ResponseCode::PullOffsetMoved,
            ) => Ok(answer),
            _ => accept(self.address, answer),
        }
    }
}
