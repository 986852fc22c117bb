//! `sendMessage`.

use anyhow::{Result, anyhow, bail};
use serde_json::json;

use super::output::Output;
use super::session::{CALL_TIMEOUT, Session, accept};
use crate::env::{Clock, Random};
use crate::message::{Properties, UniqueIds, key};
use crate::model::{Group, MessageQueue, Topic, system_topic};
use crate::remoting::body::TopicRouteData;
use crate::remoting::header::{SendMessageHeaderV2, SendMessageResponseHeader};
use crate::remoting::{Command, RequestCode, ResponseCode};

/// Queues that a client asks for when the broker has to make the topic.
const QUEUES_OF_NEW_TOPIC: u32 = 4;

/// Options of `sendMessage`.
#[derive(Debug, clap::Args)]
pub(super) struct SendMessage {
    /// The topic
    #[arg(short = 't', long = "topic")]
    topic: String,
    /// The body, in UTF-8
    #[arg(short = 'p', long = "body", allow_hyphen_values = true)]
    body: String,
    /// Keys, with blanks between them
    #[arg(short = 'k', long = "key")]
    keys: Option<String>,
    /// The tag
    #[arg(short = 'c', long = "tags")]
    tags: Option<String>,
    /// The broker group
    #[arg(short = 'b', long = "broker")]
    broker: Option<String>,
    /// The queue, if the broker is given
    #[arg(short = 'i', long = "qid", requires = "broker")]
    queue_id: Option<u32>,
    /// Tracing; not available
    #[arg(short = 'm', long = "msgTraceEnable", value_parser = ["false"])]
    trace: Option<String>,
}

impl SendMessage {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let topic = Topic::new(self.topic.trim());
        let (queue, address) = self.choose(session, &topic).await?;
        let clock = Clock::system();
        let unique_id =
            UniqueIds::new(crate::config::local_address().into(), std::process::id(), clock.clone()).next();
        let mut properties = Properties::new("");
        properties.set(key::UNIQ_KEY, &unique_id);
        properties.set(key::WAIT, "true");
        if let Some(tags) = &self.tags {
            properties.set(key::TAGS, tags.trim());
        }
        if let Some(keys) = &self.keys {
            properties.set(key::KEYS, keys.trim());
        }
        let header = SendMessageHeaderV2 {
            producer_group: Group::from(clock.now_ms().to_string()),
            topic,
            default_topic: Topic::new(system_topic::AUTO_CREATE),
            default_topic_queue_nums: i32::try_from(QUEUES_OF_NEW_TOPIC)?,
            queue_id: queue.queue_id,
            sys_flag: 0,
            born_timestamp: clock.now_ms(),
            flag: 0,
            properties: Some(properties.as_str().to_owned()),
            reconsume_times: Some(0),
            unit_mode: Some(false),
            max_reconsume_times: None,
            batch: Some(false),
            broker_name: Some(queue.broker_name.clone()),
        };
        let body = self.body.trim().as_bytes().to_vec();
        let request = Command::request(RequestCode::SendMessageV2).with_header(&header).with_body(body);
        let answer = session.call(&address, request, CALL_TIMEOUT).await?;
        let (status, answer) = match answer.response_code() {
            Some(ResponseCode::FlushDiskTimeout) => ("FLUSH_DISK_TIMEOUT", answer),
            Some(ResponseCode::FlushSlaveTimeout) => ("FLUSH_SLAVE_TIMEOUT", answer),
            Some(ResponseCode::SlaveNotAvailable) => ("SLAVE_NOT_AVAILABLE", answer),
            _ => ("SEND_OK", accept(&address, answer)?),
        };
        let stored: SendMessageResponseHeader = answer.header()?;
        out.line(format_args!(
            "{:<32}  {:<4}  {:<20}    {}",
            "#Broker Name", "#QID", "#Send Result", "#MsgId"
        ))?;
        let (broker, queue_id) = (&queue.broker_name, stored.queue_id);
        out.line(format_args!("{broker:<32}  {queue_id:<4}  {status:<20}    {unique_id}"))?;
        out.json(&json!({
            "brokerName": broker, "queueId": queue_id, "queueOffset": stored.queue_offset, "sendStatus": status,
            "msgId": unique_id, "offsetMsgId": stored.msg_id,
        }))
    }

    /// Chooses a queue that may be written, at random, and its master.
    async fn choose(&self, session: &Session, topic: &Topic) -> Result<(MessageQueue, String)> {
        let queues = match session.route(topic).await {
            Ok(route) => writable(&route, topic, u32::MAX),
            Err(error) => {
                // As producers do: a topic that does not exist yet goes where TBW102 is.
                let template = session.route(&Topic::new(system_topic::AUTO_CREATE)).await;
                writable(&template.map_err(|_| error)?, topic, QUEUES_OF_NEW_TOPIC)
            }
        };
        let wanted: Vec<_> = queues
            .into_iter()
            .filter(|(queue, _)| self.broker.as_ref().is_none_or(|name| name.trim() == queue.broker_name))
            .filter(|(queue, _)| self.queue_id.is_none_or(|id| u32::try_from(queue.queue_id) == Ok(id)))
            .collect();
        if wanted.is_empty() {
            bail!("no queue of the topic {topic} that is asked for can be written");
        }
        let count = u32::try_from(wanted.len())?;
        let chosen = usize::try_from(Random::from_machine().below(count))?;
        wanted.into_iter().nth(chosen).ok_or_else(|| anyhow!("no queue"))
    }
}

fn writable(route: &TopicRouteData, topic: &Topic, queues_max: u32) -> Vec<(MessageQueue, String)> {
    let mut queues = Vec::new();
    for data in route.queue_datas.iter().filter(|data| data.perm.writable()) {
        let broker = route.broker_datas.iter().find(|broker| broker.broker_name == data.broker_name);
        let Some(master) = broker.and_then(|broker| broker.broker_addrs.get(&0)) else { continue };
        for queue_id in 0..data.write_queue_nums.min(queues_max) {
            let queue_id = i32::try_from(queue_id).unwrap_or(0);
            let queue =
                MessageQueue { broker_name: data.broker_name.clone(), queue_id, topic: topic.clone() };
            queues.push((queue, master.clone()));
        }
    }
    queues
}
