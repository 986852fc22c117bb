//! Commands that only name servers serve.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::json;

use super::broker::{print_settings, settings};
use super::output::Output;
use super::session::Session;
use crate::config::properties;
use crate::remoting::header::{
    AddWritePermOfBrokerResponseHeader, BrokerNameRequestHeader, KvConfigRequestHeader,
    PutKvConfigRequestHeader, WipeWritePermOfBrokerResponseHeader,
};
use crate::remoting::{Command, RequestCode};

/// Options of `updateKvConfig`.
#[derive(Debug, clap::Args)]
pub(super) struct UpdateKvConfig {
    /// The namespace
    #[arg(short = 's', long = "namespace")]
    namespace: String,
    /// The key
    #[arg(short = 'k', long = "key")]
    key: String,
    /// Its new value
    #[arg(short = 'v', long = "value", allow_hyphen_values = true)]
    value: String,
}

impl UpdateKvConfig {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        put_kv(session, &self.namespace, &self.key, &self.value).await?;
        out.line("create or update kv config to namespace success.")?;
        out.json(&json!({ "namespace": self.namespace, "key": self.key, "value": self.value }))
    }
}

/// Sets a key at every name server.
pub(super) async fn put_kv(session: &Session, namespace: &str, key: &str, value: &str) -> Result<()> {
    let header =
        PutKvConfigRequestHeader { namespace: namespace.into(), key: key.into(), value: value.into() };
    let request = Command::request(RequestCode::PutKvConfig).with_header(&header);
    for address in session.name_servers()? {
        session.ask(address, request.clone()).await?;
    }
    Ok(())
}

/// Options of `deleteKvConfig`.
#[derive(Debug, clap::Args)]
pub(super) struct DeleteKvConfig {
    /// The namespace
    #[arg(short = 's', long = "namespace")]
    namespace: String,
    /// The key
    #[arg(short = 'k', long = "key")]
    key: String,
}

impl DeleteKvConfig {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let header = KvConfigRequestHeader { namespace: self.namespace.clone(), key: self.key.clone() };
        let request = Command::request(RequestCode::DeleteKvConfig).with_header(&header);
        for address in session.name_servers()? {
            session.ask(address, request.clone()).await?;
        }
        out.line("delete kv config from namespace success.")?;
        out.json(&json!({ "namespace": self.namespace, "key": self.key }))
    }
}

/// Options of `wipeWritePerm`.
#[derive(Debug, clap::Args)]
pub(super) struct WipeWritePerm {
    /// The broker group
    #[arg(short = 'b', long = "brokerName")]
    broker_name: String,
}

impl WipeWritePerm {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let count = |answer: &Command| {
            answer.header().map(|header: WipeWritePermOfBrokerResponseHeader| header.wipe_topic_count)
        };
        change_perm(session, out, "wipe", RequestCode::WipeWritePermOfBroker, &self.broker_name, count).await
    }
}

/// Options of `addWritePerm`.
#[derive(Debug, clap::Args)]
pub(super) struct AddWritePerm {
    /// The broker group
    #[arg(short = 'b', long = "brokerName")]
    broker_name: String,
}

impl AddWritePerm {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let count = |answer: &Command| {
            answer.header().map(|header: AddWritePermOfBrokerResponseHeader| header.add_topic_count)
        };
        change_perm(session, out, "add", RequestCode::AddWritePermOfBroker, &self.broker_name, count).await
    }
}

async fn change_perm(
    session: &Session,
    out: &mut Output<'_>,
    verb: &str,
    code: RequestCode,
    broker: &str,
    count: impl Fn(&Command) -> Result<i32, crate::remoting::HeaderError>,
) -> Result<()> {
    let header = BrokerNameRequestHeader { broker_name: broker.to_owned() };
    let request = Command::request(code).with_header(&header);
    let mut topics = BTreeMap::new();
    for address in session.name_servers()? {
        let what = format!("{verb} write perm of broker[{broker}] in name server[{address}]");
        let counted = match session.ask(address, request.clone()).await {
            Ok(answer) => count(&answer).with_context(|| format!("read the answer of {address}")),
            Err(error) => Err(error),
        };
        match counted {
            Ok(number) => {
                out.line(format_args!("{what} OK, {number}"))?;
                topics.insert(address, number);
            }
            Err(error) => {
                out.line(format_args!("{what} Failed"))?;
                out.problem(&error);
            }
        }
    }
    out.json(&json!({ "brokerName": broker, "topicCount": topics }))
}

/// Options of `getNamesrvConfig`.
#[derive(Debug, clap::Args)]
pub(super) struct GetNamesrvConfig {}

impl GetNamesrvConfig {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let mut all = BTreeMap::new();
        for address in session.name_servers()? {
            match settings(session, address, RequestCode::GetNamesrvConfig).await {
                Ok(items) => {
                    out.line(format_args!("============{address}============"))?;
                    print_settings(&items, out)?;
                    all.insert(address, items);
                }
                Err(error) => out.problem(&error),
            }
        }
        out.json(&all)
    }
}

/// Options of `updateNamesrvConfig`.
#[derive(Debug, clap::Args)]
pub(super) struct UpdateNamesrvConfig {
    /// The key
    #[arg(short = 'k', long = "key")]
    key: String,
    /// Its new value
    #[arg(short = 'v', long = "value", allow_hyphen_values = true)]
    value: String,
}

impl UpdateNamesrvConfig {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let (key, value) = (self.key.trim(), self.value.trim());
        let text = properties::escape(key, value);
        let request = Command::request(RequestCode::UpdateNamesrvConfig).with_body(format!("{text}\n"));
        let addresses = session.name_servers()?;
        for address in addresses {
            session.ask(address, request.clone()).await?;
        }
        out.line(format_args!(
            "update name server config success![{}]\n{key} : {value}",
            addresses.join(", ")
        ))?;
        out.json(&json!({ "key": key, "value": value, "updated": addresses }))
    }
}
