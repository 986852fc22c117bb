//! `queryMsgById`, `queryMsgByKey`, `queryMsgByUniqueKey`.

use anyhow::{Result, anyhow, bail};
use serde_json::json;

use super::group::consume_stats;
use super::output::Output;
use super::record::Stored;
use super::session::{Refused, Session, preferred};
use crate::env::Clock;
use crate::message::{OffsetMessageId, key};
use crate::model::{Group, Topic};
use crate::remoting::body::{ConsumeType, ConsumerConnection, MessageModel};
use crate::remoting::header::{QueryMessageRequestHeader, ViewMessageRequestHeader};
use crate::remoting::{Command, RequestCode, ResponseCode};

/// Most messages that a query for a unique key returns, as in Java's tools.
const UNIQUE_MAX: i32 = 32;
const HOUR_MS: i64 = 3_600_000;

/// Options of `queryMsgById`.
#[derive(Debug, clap::Args)]
pub(super) struct QueryMsgById {
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
    /// Offset ids or unique ids, with commas between them
    #[arg(short = 'i', long = "msgId")]
    ids: String,
    /// Print the body too, in this charset; UTF-8 is known
    #[arg(short = 'f', long = "bodyFormat")]
    body_format: Option<String>,
    /// A topic whose route to take
    #[arg(short = 'c', long = "cluster")]
    cluster: Option<String>,
}

impl QueryMsgById {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        if self.body_format.as_ref().is_some_and(|charset| !charset.eq_ignore_ascii_case("utf-8")) {
            bail!("bodyFormat: only UTF-8 is known");
        }
        let topic = Topic::new(self.topic.trim());
        let route_of = self.cluster.as_deref().map_or_else(|| topic.clone(), |name| Topic::new(name.trim()));
        for id in self.ids.split(',').map(str::trim).filter(|id| !id.is_empty()) {
            match find(session, &topic, &route_of, id).await {
                Ok(message) => self.print(session, out, &message).await?,
                Err(error) => out.problem(&error),
            }
        }
        Ok(())
    }

    async fn print(&self, session: &Session, out: &mut Output<'_>, message: &Stored) -> Result<()> {
        message.print(out, true)?;
        let path = message.save_body()?;
        out.line(format_args!("{:<20} {}", "Message Body Path:", path.display()))?;
        if self.body_format.is_some() {
            let body = String::from_utf8_lossy(&message.bytes);
            out.line(format_args!("{:<20} {body}", "Message Body:"))?;
        }
        print_tracks(session, out, message).await
    }
}

/// Finds a message by the id that the broker gave it, or by the one that its producer gave it.
async fn find(session: &Session, topic: &Topic, route_of: &Topic, id: &str) -> Result<Stored> {
    let position = OffsetMessageId::parse(id);
    // Unique ids look like offset ids; only those that name a known broker can be one.
    let known = session.route(route_of).await?;
    let address = position.map(|position| position.host.to_string());
    let is_known = |address: &String| {
        known.broker_datas.iter().any(|broker| broker.broker_addrs.values().any(|known| known == address))
    };
    if let (Some(position), Some(address)) = (position, address.filter(is_known)) {
        return view(session, topic, &address, position).await;
    }
    let since_ms = Clock::system().now_ms() - 3 * 24 * HOUR_MS;
    let query =
        Query { topic, route_of, key: id, unique: true, max: UNIQUE_MAX, from: since_ms, to: i64::MAX };
    match query.run(session, None).await?.into_iter().next() {
        Some(message) => Ok(message),
        None => match position {
            // Not a known address, and no unique id: perhaps the broker is seen under another address from here.
            Some(position) if (1..u16::MAX).contains(&position.host.port()) => {
                let view = view(session, topic, &position.host.to_string(), position).await;
                view.map_err(|error| anyhow!("there is no message {id}: {error}"))
            }
            _ => bail!("there is no message {id} in the topic {topic}"),
        },
    }
}

async fn view(session: &Session, topic: &Topic, address: &str, id: OffsetMessageId) -> Result<Stored> {
    let header = ViewMessageRequestHeader { topic: Some(topic.clone()), offset: i64::try_from(id.offset.0)? };
    let request = Command::request(RequestCode::ViewMessageById).with_header(&header);
    let answer = session.ask(address, request).await?;
    let messages = Stored::decode_all(&answer.body.to_bytes())?;
    messages.into_iter().next().ok_or_else(|| anyhow!("{address} has no message at {}", id.offset.0))
}

struct Query<'a> {
    topic: &'a Topic,
    route_of: &'a Topic,
    key: &'a str,
    unique: bool,
    max: i32,
    /// Milliseconds since 1970.
    from: i64,
    to: i64,
}

impl Query<'_> {
    /// Asks the indexes of all brokers of the topic, and drops what only has a key of the same hash.
    async fn run(&self, session: &Session, last_key: Option<&str>) -> Result<Vec<Stored>> {
        let header = QueryMessageRequestHeader {
            topic: self.topic.clone(),
            key: self.key.to_owned(),
            max_num: self.max,
            begin_timestamp: self.from,
            end_timestamp: self.to,
            index_type: Some(if self.unique { "U" } else { "K" }.into()),
            last_key: last_key.map(str::to_owned),
        };
        let request = Command::request(RequestCode::QueryMessage)
            .with_header(&header)
            .with_field("_UNIQUE_KEY_QUERY", self.unique.to_string());
        let mut messages = Vec::new();
        for address in session.route(self.route_of).await?.broker_datas.iter().filter_map(preferred) {
            match session.ask(&address, request.clone()).await {
                Ok(answer) => messages.extend(Stored::decode_all(&answer.body.to_bytes())?),
                Err(error) => match error.downcast_ref::<Refused>() {
                    Some(refused) if refused.is(ResponseCode::QueryNotFound) => {}
                    _ => return Err(error),
                },
            }
        }
        messages.retain(|message| match self.unique {
            true => message.msg_id == self.key,
            false => {
                message.property(key::KEYS).is_some_and(|keys| keys.split(' ').any(|key| key == self.key))
            }
        });
        messages.sort_by_key(|message| message.store_timestamp);
        Ok(messages)
    }
}

/// Options of `queryMsgByKey`.
#[derive(Debug, clap::Args)]
pub(super) struct QueryMsgByKey {
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
    /// The key
    #[arg(short = 'k', long = "msgKey")]
    key: String,
    /// Stored since, in milliseconds since 1970
    #[arg(short = 'b', long = "beginTimestamp", default_value_t = 0)]
    begin: i64,
    /// Stored until, in milliseconds since 1970
    #[arg(short = 'e', long = "endTimestamp", default_value_t = i64::MAX)]
    end: i64,
    /// Most messages from each broker
    #[arg(short = 'm', long = "maxNum", default_value_t = 64)]
    max: i32,
    /// A topic whose route to take
    #[arg(short = 'c', long = "cluster")]
    cluster: Option<String>,
    /// K for keys
    #[arg(short = 'p', long = "keyType", default_value = "K", value_parser = ["K"])]
    key_type: String,
    /// Where the last query ended
    #[arg(short = 'l', long = "lastKey")]
    last_key: Option<String>,
}

impl QueryMsgByKey {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let topic = Topic::new(self.topic.trim());
        let route_of = self.cluster.as_deref().map_or_else(|| topic.clone(), |name| Topic::new(name.trim()));
        let key = self.key.trim();
        let (from, to, max) = (self.begin, self.end, self.max);
        let query = Query { topic: &topic, route_of: &route_of, key, unique: false, max, from, to };
        let messages = query.run(session, self.last_key.as_deref()).await?;
        out.line(format_args!("{:<50} {:>4} {:>40} {:<200}", "#Message ID", "#QID", "#Offset", "#IndexKey"))?;
        for message in &messages {
            let hour_ms = message.store_timestamp.div_euclid(HOUR_MS) * HOUR_MS;
            let (id, kind, offset) = (&message.msg_id, &self.key_type, message.commit_log_offset);
            let index_key = format!("{hour_ms}@{topic}@{kind}@{key}@{id}@{offset}");
            let (queue, queue_offset) = (message.queue_id, message.queue_offset);
            out.line(format_args!("{id:<50} {queue:>4} {queue_offset:>40} {index_key:<200}"))?;
        }
        out.json(&messages)
    }
}

/// Options of `queryMsgByUniqueKey`.
#[derive(Debug, clap::Args)]
pub(super) struct QueryMsgByUniqueKey {
    /// The id
    #[arg(short = 'i', long = "msgId")]
    id: String,
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
    /// All messages with the id, up to 32
    #[arg(short = 'a', long = "showAll")]
    show_all: bool,
    /// A topic whose route to take
    #[arg(short = 'c', long = "cluster")]
    cluster: Option<String>,
    /// Stored since, in milliseconds since 1970; default 36 hours ago
    #[arg(short = 's', long = "startTime", requires = "end")]
    start: Option<i64>,
    /// Stored until, in milliseconds since 1970
    #[arg(short = 'e', long = "endTime", requires = "start")]
    end: Option<i64>,
}

impl QueryMsgByUniqueKey {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let topic = Topic::new(self.topic.trim());
        let route_of = self.cluster.as_deref().map_or_else(|| topic.clone(), |name| Topic::new(name.trim()));
        let now_ms = Clock::system().now_ms();
        let from = self.start.unwrap_or(now_ms - 36 * HOUR_MS);
        let to = self.end.unwrap_or(now_ms + 36 * HOUR_MS);
        let key = self.id.trim();
        let query =
            Query { topic: &topic, route_of: &route_of, key, unique: true, max: UNIQUE_MAX, from, to };
        let mut messages = query.run(session, None).await?;
        if messages.is_empty() {
            bail!("there is no message {key} in the topic {topic}");
        }
        if !self.show_all {
            messages.truncate(1);
        }
        for message in &messages {
            message.print(out, false)?;
            let path = message.save_body()?;
            out.line(format_args!("{:<20} {}", "Message Body Path:", path.display()))?;
            print_tracks(session, out, message).await?;
        }
        Ok(())
    }
}

/// Prints who consumed a message. In JSON, message and tracks are one document.
async fn print_tracks(session: &Session, out: &mut Output<'_>, message: &Stored) -> Result<()> {
    let mut tracks = Vec::new();
    let groups = match session.groups_consuming(&Topic::new(&message.topic)).await {
        Ok(groups) => groups,
        Err(error) => {
            out.problem(&error);
            Vec::new()
        }
    };
    for group in groups {
        let (kind, reason) = track(session, message, &group).await;
        tracks.push((group, kind, reason));
    }
    out.line("\n")?;
    if tracks.is_empty() {
        out.line("WARN: No Consumer")?;
    }
    for (group, kind, reason) in &tracks {
        let reason = reason.as_deref().unwrap_or("null");
        out.line(format_args!(
            "MessageTrack [consumerGroup={group}, trackType={kind}, exceptionDesc={reason}]"
        ))?;
    }
    let tracks: Vec<_> = tracks
        .iter()
        .map(|(group, kind, reason)| json!({ "consumerGroup": group, "trackType": kind, "exceptionDesc": reason }))
        .collect();
    out.json(&json!({ "message": message, "tracks": tracks }))
}

/// Returns whether a group consumed a message, in the words of Java's `TrackType`.
async fn track(session: &Session, message: &Stored, group: &Group) -> (&'static str, Option<String>) {
    let described = |error: &anyhow::Error| match error.downcast_ref::<Refused>() {
        Some(refused) => format!("CODE:{} DESC:{}", refused.code, refused.remark),
        None => error.to_string(),
    };
    let consumers = match session.consumers(group, None).await {
        Ok(consumers) => consumers,
        Err(error) => match error.downcast_ref::<Refused>() {
            Some(refused) if refused.is(ResponseCode::ConsumerNotOnline) => {
                return ("NOT_ONLINE", Some(described(&error)));
            }
            _ => return ("UNKNOWN", Some(described(&error))),
        },
    };
    match consumers.consume_type {
        ConsumeType::Actively => return ("PULL", None),
        ConsumeType::Passively => {}
        ConsumeType::Pop | ConsumeType::Unknown => return ("UNKNOWN", None),
    }
    if consumers.message_model == MessageModel::Broadcasting {
        return ("CONSUME_BROADCASTING", None);
    }
    match is_consumed(session, message, group).await {
        Ok(false) => ("NOT_CONSUME_YET", None),
        Ok(true) if is_filtered(message, &consumers) => ("CONSUMED_BUT_FILTERED", None),
        Ok(true) => ("CONSUMED", None),
        Err(error) => ("UNKNOWN", Some(described(&error))),
    }
}

async fn is_consumed(session: &Session, message: &Stored, group: &Group) -> Result<bool> {
    let stats = consume_stats(session, group, None, None).await?;
    let info = session.cluster_info().await?;
    Ok(stats.offset_table.iter().any(|(queue, offsets)| {
        let broker = info.broker_addr_table.get(&queue.broker_name);
        let master = broker.and_then(|broker| broker.broker_addrs.get(&0));
        queue.topic.as_str() == message.topic
            && u32::try_from(queue.queue_id) == Ok(message.queue_id)
            && master == Some(&message.store_host)
            && u64::try_from(offsets.consumer_offset).is_ok_and(|offset| offset > message.queue_offset)
    }))
}

fn is_filtered(message: &Stored, consumers: &ConsumerConnection) -> bool {
    let subscription = consumers.subscription_table.get(message.topic.as_str());
    let tags = message.property(key::TAGS).unwrap_or_default();
    subscription.is_some_and(|subscription| {
        let wanted = &subscription.tags_set;
        !wanted.is_empty() && !wanted.contains("*") && !wanted.contains(tags)
    })
}
