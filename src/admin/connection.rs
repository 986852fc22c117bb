//! `producerConnection`, `consumerConnection`.

use anyhow::{Result, anyhow, bail};

use super::output::Output;
use super::session::{Session, preferred};
use crate::model::{Group, Topic};
use crate::remoting::header::GetProducerConnectionListRequestHeader;
use crate::remoting::{Command, RequestCode, body, version};

/// Options of `producerConnection`.
#[derive(Debug, clap::Args)]
pub(super) struct ProducerConnection {
    /// The producer group
    #[arg(short = 'g', long = "producerGroup")]
    group: String,
    /// A topic that it sends to
    #[arg(short = 't', long = "topic")]
    topic: String,
}

impl ProducerConnection {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let topic = Topic::new(self.topic.trim());
        let route = session.route(&topic).await?;
        let address = route.broker_datas.iter().find_map(preferred);
        let address = address.ok_or_else(|| anyhow!("no broker has the topic {topic}"))?;
        let header = GetProducerConnectionListRequestHeader { producer_group: Group::new(self.group.trim()) };
        let request = Command::request(RequestCode::GetProducerConnectionList).with_header(&header);
        let list: body::ProducerConnection = session.read(&address, request).await?;
        if list.connection_set.is_empty() {
            bail!("Not found the producer group connection");
        }
        for (number, client) in list.connection_set.iter().enumerate() {
            out.line(format_args!(
                "{:04}  {:<32} {:<22} {:<8} {}",
                number + 1,
                client.client_id,
                client.client_addr,
                client.language.name(),
                version::name(client.version)
            ))?;
        }
        out.json(&list)
    }
}

/// Options of `consumerConnection`.
#[derive(Debug, clap::Args)]
pub(super) struct ConsumerConnection {
    /// The consumer group
    #[arg(short = 'g', long = "consumerGroup")]
    group: String,
    /// The broker to ask
    #[arg(short = 'b', long = "brokerAddr")]
    broker: Option<String>,
}

impl ConsumerConnection {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let group = Group::new(self.group.trim());
        let list = session.consumers(&group, self.broker.as_deref().map(str::trim)).await?;
        if list.connection_set.is_empty() {
            bail!("Not found the consumer group connection");
        }
        out.line(format_args!(
            "{:<36} {:<22} {:<10} {}",
            "#ClientId", "#ClientAddr", "#Language", "#Version"
        ))?;
        for client in &list.connection_set {
            out.line(format_args!(
                "{:<36} {:<22} {:<10} {}",
                client.client_id,
                client.client_addr,
                client.language.name(),
                version::name(client.version)
            ))?;
        }
        out.line("\nBelow is subscription:")?;
        out.line(format_args!("{:<20} {}", "#Topic", "#SubExpression"))?;
        for (topic, subscription) in &list.subscription_table {
            let expression = subscription.sub_string.as_deref().unwrap_or("null");
            out.line(format_args!("{:<20} {expression}", topic.as_str()))?;
        }
        out.line("")?;
        out.line(format_args!("ConsumeType: {}", java_name(&list.consume_type)))?;
        out.line(format_args!("MessageModel: {}", java_name(&list.message_model)))?;
        out.line(format_args!("ConsumeFromWhere: {}", java_name(&list.consume_from_where)))?;
        out.json(&list)
    }
}

/// Returns the name under which an enum travels.
pub(super) fn java_name<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "null".into(),
    }
}
