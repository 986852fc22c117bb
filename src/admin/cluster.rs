//! `clusterList`.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::broker::runtime_info;
use super::output::Output;
use super::session::Session;
use crate::env::Clock;
use crate::remoting::body::{BrokerData, ClusterInfo, KvTable};

/// Options of `clusterList`.
#[derive(Debug, clap::Args)]
pub(super) struct ClusterList {
    /// Message totals instead of load
    #[arg(short = 'm', long = "moreStats")]
    more_stats: bool,
    /// Print again every so many seconds
    #[arg(short = 'i', long = "interval")]
    interval: Option<u64>,
    /// One cluster only
    #[arg(short = 'c', long = "clusterName")]
    cluster: Option<String>,
}

/// One line: a broker and what it says of itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    cluster: String,
    broker_name: String,
    broker_id: i64,
    address: String,
    /// Absent if the broker could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<KvTable>,
}

impl ClusterList {
    pub(super) async fn run(self, session: &Session, out: &mut Output<'_>) -> Result<()> {
        loop {
            let rows = self.rows(session, out).await?;
            if self.more_stats {
                print_totals(&rows, out)?;
            } else {
                print_load(&rows, out)?;
            }
            out.json(&rows)?;
            let Some(seconds) = self.interval else { return Ok(()) };
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }

    async fn rows(&self, session: &Session, out: &mut Output<'_>) -> Result<Vec<Row>> {
        let info = match &self.cluster {
            Some(cluster) => only(cluster, session.groups_of(cluster).await?),
            None => session.cluster_info().await?,
        };
        let mut rows = Vec::new();
        for (cluster, names) in &info.cluster_addr_table {
            for broker in names.iter().filter_map(|name| info.broker_addr_table.get(name)) {
                for (id, address) in &broker.broker_addrs {
                    let runtime = runtime_info(session, address).await;
                    let runtime = runtime.map_err(|error| out.problem(&error)).ok();
                    rows.push(Row {
                        cluster: cluster.clone(),
                        broker_name: broker.broker_name.clone(),
                        broker_id: *id,
                        address: address.clone(),
                        runtime,
                    });
                }
            }
        }
        Ok(rows)
    }
}

fn only(cluster: &str, groups: Vec<BrokerData>) -> ClusterInfo {
    let names = groups.iter().map(|group| group.broker_name.clone()).collect();
    ClusterInfo {
        broker_addr_table: groups.into_iter().map(|group| (group.broker_name.clone(), group)).collect(),
        cluster_addr_table: [(cluster.to_owned(), names)].into(),
    }
}

fn print_load(rows: &[Row], out: &mut Output<'_>) -> Result<()> {
    out.line(format_args!(
        "{:<22}  {:<22}  {:<4}  {:<22} {:<16}  {:>16}  {:>30}  {:<22}  {:<11}  {:<12}  {:<8}  {:<10}",
        "#Cluster Name",
        "#Broker Name",
        "#BID",
        "#Addr",
        "#Version",
        "#InTPS(LOAD)",
        "#OutTPS(LOAD)",
        "#Timer(Progress)",
        "#PCWait(ms)",
        "#Hour",
        "#SPACE",
        "#ACTIVATED"
    ))?;
    let now_ms = Clock::system().now_ms();
    for row in rows {
        let text = |key: &str, absent: &'static str| match &row.runtime {
            Some(info) => info.table.get(key).map_or(absent, String::as_str),
            None => "",
        };
        let number = |key: &str| text(key, "").parse::<f64>().unwrap_or(0.0);
        // "10s 60s 600s" averages; the first is the current one.
        let rate =
            |key: &str| text(key, "").split(' ').next().and_then(|tps| tps.parse().ok()).unwrap_or(0.0);
        let hours = match text("earliestMessageTimeStamp", "").parse::<i64>() {
            Ok(earliest_ms) => (now_ms - earliest_ms) as f64 / 3_600_000.0,
            Err(_) => 0.0,
        };
        let load =
            |size: &str, wait: &str, absent| format!("{},{}ms", text(size, absent), text(wait, absent));
        let sends = load("sendThreadPoolQueueSize", "sendThreadPoolQueueHeadWaitTimeMills", "null");
        let pulls = load("pullThreadPoolQueueSize", "pullThreadPoolQueueHeadWaitTimeMills", "null");
        let acks = load("ackThreadPoolQueueSize", "ackThreadPoolQueueHeadWaitTimeMills", "N");
        let timer = format!(
            "{:.0}-{:.0}({:.1}w, {:.1}, {:.1})",
            number("timerReadBehind"),
            number("timerOffsetBehind"),
            number("timerCongestNum") / 10_000.0,
            number("timerEnqueueTps"),
            number("timerDequeueTps")
        );
        out.line(format_args!(
            "{:<22}  {:<22}  {:<4}  {:<22} {:<16}  {:>16}  {:>30}  {:<22}  {:>11}  {:<12}  {:<8}  {:>10}",
            row.cluster,
            row.broker_name,
            row.broker_id,
            row.address,
            text("brokerVersionDesc", "null"),
            format!("{:9.2}({sends})", rate("putTps")),
            format!("{:9.2}({pulls}|{acks})", rate("getTransferredTps")),
            timer,
            text("pageCacheLockTimeMills", "null"),
            format!("{hours:.2}"),
            format!("{:.4}", number("commitLogDiskRatio")),
            text("brokerActive", "false") == "true"
        ))?;
    }
    Ok(())
}

fn print_totals(rows: &[Row], out: &mut Output<'_>) -> Result<()> {
    out.line(format_args!(
        "{:<16}  {:<32} {:>14} {:>14} {:>14} {:>14}",
        "#Cluster Name", "#Broker Name", "#InTotalYest", "#OutTotalYest", "#InTotalToday", "#OutTotalToday"
    ))?;
    for row in rows {
        let total = |key: &str| {
            let text = row.runtime.as_ref().and_then(|info| info.table.get(key));
            text.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0)
        };
        out.line(format_args!(
            "{:<16}  {:<32} {:>14} {:>14} {:>14} {:>14}",
            row.cluster,
            row.broker_name,
            total("msgPutTotalTodayMorning") - total("msgPutTotalYesterdayMorning"),
            total("msgGetTotalTodayMorning") - total("msgGetTotalYesterdayMorning"),
            total("msgPutTotalTodayNow") - total("msgPutTotalTodayMorning"),
            total("msgGetTotalTodayNow") - total("msgGetTotalTodayMorning")
        ))?;
    }
    Ok(())
}
