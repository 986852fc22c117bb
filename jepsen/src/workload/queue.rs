//! A total queue of stock Java clients: what is acknowledged to a producer comes out at a push consumer or stands in
//! the queue at the end. The clients are processes on a host of their own that speak lines of JSON.

use std::collections::VecDeque;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use super::Context;
use crate::history::{Kind, Process, Value, Workload};

pub(crate) const TOPIC: &str = "Queue";
pub(crate) const QUEUES: u32 = 4;
/// Sends of one worker that are under way: each is a process of the history.
const CONCURRENCY: usize = 4;
/// A stock client gives up by itself before this.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a worker prints.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Line {
    Ready,
    /// A send was acknowledged.
    Ok {
        id: u64,
    },
    /// A send ended without saying whether it was stored.
    Info {
        id: u64,
    },
    /// A message came in.
    Got {
        id: u64,
    },
}

/// A running worker.
#[derive(Debug)]
pub(crate) struct Worker {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

/// How workers are started.
#[derive(Debug, Clone)]
pub(crate) struct Java {
    pub(crate) class_path: String,
    /// What puts them on their host.
    pub(crate) prefix: Vec<String>,
    pub(crate) namesrvs: String,
    /// Where they print what is not for us.
    pub(crate) log: std::path::PathBuf,
}

impl Java {
    /// Starts a worker: `produce` or `consume`.
    pub(crate) fn start(&self, role: &str) -> Result<Worker> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut child = tokio::process::Command::new(&self.prefix[0])
            .args(&self.prefix[1..])
            .args([
                "java",
                "-Xmx128m",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-cp",
                &self.class_path,
            ])
            .args(["Worker", role, &self.namesrvs, TOPIC])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("start java")?;
        let stdin = child.stdin.take().context("a pipe")?;
        let lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        Ok(Worker { _child: child, stdin, lines })
    }
}

/// Sends by a stock producer.
pub(crate) async fn produce(context: Context, java: Java, first_id: u64, pace: Duration) -> Result<()> {
    let mut worker = java.start("produce")?;
    let histories = context.histories.clone();
    let mut idle: VecDeque<_> = (0..CONCURRENCY).map(|_| histories.process(Workload::Queue)).collect();
    let mut busy: Vec<(u64, Process<'_>)> = Vec::new();
    let mut id = first_id;
    let mut next_at = tokio::time::Instant::now() + Duration::from_millis(500);
    loop {
        let over = context.is_over();
        let over_now = context.over();
        if over && busy.is_empty() {
            return Ok(());
        }
        tokio::select! {
            line = worker.lines.next_line() => {
                let line = line?.context("a producer ended")?;
                let (kind, id) = match serde_json::from_str(&line).with_context(|| line.clone())? {
                    Line::Ok { id } => (Kind::Ok, id),
                    Line::Info { id } => (Kind::Info, id),
                    _ => continue,
                };
                let at = busy.iter().position(|(of, ..)| *of == id).context("an answer to no question")?;
                let (_, mut process) = busy.swap_remove(at);
                process.end(kind, "enqueue", Value::Element(id), None);
                idle.push_back(process);
            }
            () = tokio::time::sleep_until(next_at), if !over && !idle.is_empty() => {
                next_at = tokio::time::Instant::now() + pace;
                let process = idle.pop_front().context("an idle process")?;
                process.invoke("enqueue", Value::Element(id), None);
                worker.stdin.write_all(format!("{id}\n").as_bytes()).await?;
                busy.push((id, process));
                id += 1;
            }
            () = tokio::time::sleep(PATIENCE), if over => {
                for (id, mut process) in busy.drain(..) {
                    process.end(Kind::Info, "enqueue", Value::Element(id), None);
                }
            }
            () = over_now, if !over => {}
        }
    }
}

/// Consumes with a stock push consumer until `drained` says that the run is over.
pub(crate) async fn consume(
    context: Context,
    java: Java,
    mut drained: tokio::sync::watch::Receiver<bool>,
) -> Result<()> {
    let mut worker = java.start("consume")?;
    let histories = context.histories.clone();
    let mut process = histories.process(Workload::Queue);
    loop {
        tokio::select! {
            line = worker.lines.next_line() => {
                let line = line?.context("a consumer ended")?;
                if let Line::Got { id } = serde_json::from_str(&line).with_context(|| line.clone())? {
                    process.invoke("dequeue", Value::None, None);
                    process.end(Kind::Ok, "dequeue", Value::Element(id), None);
                }
            }
            _ = drained.wait_for(|drained| *drained) => return Ok(()),
        }
    }
}

/// Builds the worker; returns its class path.
pub(crate) fn build(folder: &std::path::Path) -> Result<String> {
    let output = std::process::Command::new("bash").arg(folder.join("build")).output().context("run bash")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "the Java worker cannot be built: {errors}");
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().last().context("a class path")?.to_owned())
}
