//! `brokerStatus`, `getBrokerConfig`, `updateBrokerConfig`.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use serde_json::json;

use super::output::Output;
use super::session::Session;
use crate::config::properties;
use crate::remoting::body::KvTable;
use crate::remoting::{Command, RequestCode};

/// One broker, or a cluster.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Where {
    /// One broker
    #[arg(short = 'b', long = "brokerAddr")]
    pub(super) broker: Option<String>,
    /// All brokers of a cluster
    #[arg(short = 'c', long = "clusterName")]
    pub(super) cluster: Option<String>,
}

impl Where {
    /// Returns the broker that is named, or the masters of the cluster.
    pub(super) async fn masters(&self, session: &Session) -> Result<Vec<String>> {
        match (&self.broker, &self.cluster) {
            (Some(address), _) => Ok(vec![address.trim().to_owned()]),
            (None, Some(cluster)) => session.masters(cluster.trim()).await,
            (None, None) => Ok(Vec::new()),
        }
    }

    /// Returns the broker that is named, or all brokers of the cluster.
    pub(super) async fn members(&self, session: &Session) -> Result<Vec<String>> {
        match &self.cluster {
            Some(cluster) if self.broker.is_none() => session.members(cluster.trim()).await,
            _ => self.masters(session).await,
        }
    }
}

/// Asks a broker what it measures.
pub(super) async fn runtime_info(session: &Session, address: &str) -> Result<KvTable> {
    session.read(address, Command::request(RequestCode::GetBrokerRuntimeInfo)).await
}

/// Options of `brokerStatus`.
#[derive(Debug, clap::Args)]
pub(super) struct BrokerStatus {
    #[command(flatten)]
    target: Where,
}

impl BrokerStatus {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let mut all = BTreeMap::new();
        for address in self.target.members(session).await? {
            let table = match runtime_info(session, &address).await {
                Ok(info) => info.table,
                Err(error) => {
                    out.problem(&error);
                    continue;
                }
            };
            for (key, value) in &table {
                match &self.target.broker {
                    Some(_) => out.line(format_args!("{key:<32}: {value}"))?,
                    None => out.line(format_args!("{address:<24} {key:<32}: {value}"))?,
                }
            }
            all.insert(address, table);
        }
        out.json(&all)
    }
}

/// Options of `getBrokerConfig`.
#[derive(Debug, clap::Args)]
pub(super) struct GetBrokerConfig {
    #[command(flatten)]
    target: Where,
}

impl GetBrokerConfig {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let mut all = BTreeMap::new();
        for (title, address) in self.brokers(session).await? {
            out.line(format_args!("============{title}============"))?;
            let Some(address) = address else { continue };
            match settings(session, &address, RequestCode::GetBrokerConfig).await {
                Ok(items) => {
                    print_settings(&items, out)?;
                    out.line("")?;
                    all.insert(address, items);
                }
                Err(error) => out.problem(&error),
            }
        }
        out.json(&all)
    }

    /// Returns titles and addresses; no address for the title of a group without a master.
    async fn brokers(&self, session: &Session) -> Result<Vec<(String, Option<String>)>> {
        if let Some(address) = &self.target.broker {
            return Ok(vec![(address.clone(), Some(address.clone()))]);
        }
        let mut brokers = Vec::new();
        for group in session.groups_of(self.target.cluster.as_deref().unwrap_or_default()).await? {
            let master = group.broker_addrs.get(&0).cloned();
            let name = master.clone().unwrap_or_else(|| "NO_MASTER".into());
            brokers.push((format!("Master: {name}"), master));
            for address in
                group.broker_addrs.into_iter().filter(|(id, _)| *id != 0).map(|(_, address)| address)
            {
                brokers.push((format!("My Master: {name}=====Slave: {address}"), Some(address)));
            }
        }
        Ok(brokers)
    }
}

/// Asks a broker or a name server for its settings.
pub(super) async fn settings(
    session: &Session,
    address: &str,
    code: RequestCode,
) -> Result<BTreeMap<String, String>> {
    let answer = session.ask(address, Command::request(code)).await?;
    let text = properties::decode(&answer.body.to_bytes());
    let items =
        properties::parse(&text).map_err(|error| anyhow!("read the settings of {address}: {error}"))?;
    Ok(items.into_iter().map(|item| (item.key, item.value)).collect())
}

pub(super) fn print_settings(items: &BTreeMap<String, String>, out: &mut Output<'_>) -> Result<()> {
    for (key, value) in items {
        out.line(format_args!("{key:<50}=  {value}"))?;
    }
    Ok(())
}

/// Options of `updateBrokerConfig`.
#[derive(Debug, clap::Args)]
pub(super) struct UpdateBrokerConfig {
    #[command(flatten)]
    target: Where,
    /// Slaves of the cluster too
    #[arg(short = 'a', long = "updateAllBroker")]
    all: Option<String>,
    /// The key
    #[arg(short = 'k', long = "key")]
    key: String,
    /// Its new value
    #[arg(short = 'v', long = "value", allow_hyphen_values = true)]
    value: String,
}

impl UpdateBrokerConfig {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        let addresses = match self.all {
            Some(_) => self.target.members(session).await?,
            None => self.target.masters(session).await?,
        };
        let text = properties::escape(self.key.trim(), self.value.trim());
        let request = Command::request(RequestCode::UpdateBrokerConfig).with_body(format!("{text}\n"));
        let mut updated = Vec::new();
        for address in addresses {
            match session.ask(&address, request.clone()).await {
                Ok(_) => {
                    out.line(format_args!("update broker config success, {address}"))?;
                    updated.push(address);
                }
                Err(error) => out.problem(&error),
            }
        }
        out.json(&json!({ "key": self.key, "value": self.value, "updated": updated }))
    }
}
