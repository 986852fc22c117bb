//! Limits of processes, clocks, and errors that a library between process and kernel makes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quorate::remoting::{self, RequestCode};
use tokio::time::{Instant, sleep};

use super::{Active, Nemesis};
use crate::cgroup::Cgroup;
use crate::cluster::FIU;
use crate::plan::Kind;

/// Memory that a replica may take beyond what it has: the pages of what it writes go round in it.
const MEMORY_MORE: &str = "1048576";
/// Bytes a second of a slow disk.
const SLOW_DISK: &str = "500000";
/// How often a strobing clock jumps.
const STROBE: Duration = Duration::from_millis(1200);

impl Nemesis {
    pub(super) async fn slow_disk(&self, nodes: &[usize], lasts: Duration) -> Result<()> {
        let mut groups = Vec::new();
        for node in nodes {
            let volume = self.cluster.volumes.get(*node).context("replicas have no disks")?;
            let group = Cgroup::make("blkio", &self.group_name(*node))?;
            group.set("blkio.throttle.write_bps_device", &format!("{} {SLOW_DISK}", volume.device()?))?;
            group.take(self.pid(*node)?)?;
            groups.push(group);
        }
        sleep(lasts).await;
        for group in &groups {
            let bytes = group.get("blkio.throttle.io_service_bytes")?;
            let written = bytes.lines().filter(|line| line.contains("Write"));
            let written: u64 =
                written.filter_map(|line| line.split(' ').next_back()?.parse::<u64>().ok()).sum();
            ensure!(written > 0, "nothing was written under the limit");
        }
        Ok(())
    }

    /// Leaves hardly more memory than a replica has just now.
    pub(super) async fn memory(&self, nodes: &[usize], lasts: Duration) -> Result<()> {
        let mut groups = Vec::new();
        for node in nodes {
            let pid = self.pid(*node)?;
            let group = Cgroup::make("memory", &self.group_name(*node))?;
            group.set("memory.limit_in_bytes", MEMORY_MORE)?;
            group.take(pid)?;
            groups.push((*node, group));
        }
        let deadline = Instant::now() + lasts;
        while Instant::now() < deadline {
            sleep(Duration::from_millis(200)).await;
            for (node, group) in &groups {
                // Killed by the kernel, which is one of the things that may happen.
                if self.cluster.broker_ended(*node).is_some() {
                    self.start(*node).await;
                    if let Ok(pid) = self.pid(*node) {
                        group.take(pid)?;
                    }
                }
            }
        }
        for (_, group) in &groups {
            let refused = group.get("memory.failcnt")?;
            ensure!(refused.trim() != "0", "the limit was never reached");
        }
        Ok(())
    }

    pub(super) async fn cpu(&self, nodes: &[usize], lasts: Duration) -> Result<()> {
        let mut groups = Vec::new();
        for node in nodes {
            let group = Cgroup::make("cpu", &self.group_name(*node))?;
            // A tenth of a processor.
            group.set("cpu.cfs_period_us", "50000")?;
            group.set("cpu.cfs_quota_us", "5000")?;
            group.take(self.pid(*node)?)?;
            groups.push(group);
        }
        sleep(lasts).await;
        for group in &groups {
            let stat = group.get("cpu.stat")?;
            let throttled = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "));
            ensure!(throttled.is_some_and(|count| count != "0"), "it was never throttled: {stat}");
        }
        Ok(())
    }

    /// Leaves a replica hardly any further file or connection.
    pub(super) async fn open_files(&self, nodes: &[usize], lasts: Duration) -> Result<()> {
        let mut before = Vec::new();
        let mut reached = 0;
        for node in nodes {
            let pid = self.pid(*node)?;
            before.push((pid, file_limit(pid)?));
            prlimit(pid, open_files(pid)? + 3)?;
        }
        // Those who come now find no room.
        let mut strangers = Vec::new();
        let deadline = Instant::now() + lasts;
        while Instant::now() < deadline {
            for (at, node) in nodes.iter().enumerate() {
                if strangers.len() < 20 * nodes.len() {
                    let connect = tokio::net::TcpStream::connect(self.cluster.broker_address(*node));
                    if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(500), connect).await {
                        strangers.push(stream);
                    }
                }
                let (pid, _) = before[at];
                if let (Ok(open), Ok(limit)) = (open_files(pid), file_limit(pid)) {
                    reached += usize::from(open + 1 >= limit);
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
        drop(strangers);
        for ((pid, soft), node) in before.into_iter().zip(nodes) {
            if self.cluster.broker_ended(*node).is_some() {
                self.wrong(format!("n{node} ended because it could open no more files"));
                self.start(*node).await;
            } else {
                prlimit(pid, soft)?;
            }
        }
        ensure!(reached > 0, "the limit was not reached");
        Ok(())
    }

    pub(super) async fn clock(
        &self,
        kind: Kind,
        nodes: &[usize],
        lasts: Duration,
        random: &mut fastrand::Rng,
        active: &mut Active,
    ) -> Result<()> {
        ensure!(self.cluster.options.clocks, "the servers' clocks cannot be set");
        let far = *random.choice([60, 3600, 86_400].iter()).expect("a choice");
        let sign = if random.bool() { '+' } else { '-' };
        let deadline = Instant::now() + lasts;
        let boots: Vec<_> = futures_util::future::join_all(nodes.iter().map(|node| self.uptime(*node))).await;
        let mut moved = 0;
        match kind {
            Kind::ClockStrobe => {
                active.text += &format!(": {far} s to and fro");
                let mut there = false;
                while Instant::now() < deadline {
                    there = !there;
                    for node in nodes {
                        self.cluster
                            .set_clock(*node, &if there { format!("{sign}{far}") } else { "+0".into() })?;
                    }
                    sleep(STROBE).await;
                    if there {
                        moved += self.moved(nodes, &boots).await;
                    }
                }
            }
            _ => {
                let to = match kind {
                    Kind::ClockJump => format!("{sign}{far}"),
                    _ => format!("+0 x{}", if random.bool() { "1.5" } else { "0.7" }),
                };
                active.text += &format!(": {to}");
                for node in nodes {
                    self.cluster.set_clock(*node, &to)?;
                }
                sleep(lasts).await;
                moved += self.moved(nodes, &boots).await;
            }
        }
        for node in nodes {
            self.cluster.set_clock(*node, "+0")?;
        }
        ensure!(moved > 0, "no replica has seen another time");
        Ok(())
    }

    /// Counts the replicas that have been up for another time than they should have been.
    async fn moved(&self, nodes: &[usize], before: &[Option<(f64, Instant)>]) -> usize {
        let mut moved = 0;
        for (node, before) in nodes.iter().zip(before) {
            if let (Some((now, at)), Some((then, since))) = (self.uptime(*node).await, before) {
                let should = at.duration_since(*since).as_secs_f64();
                moved += usize::from((now - then - should).abs() > 1.0);
            }
        }
        moved
    }

    /// Returns a replica's own time in seconds, by when it says that it puts a message away.
    async fn uptime(&self, node: usize) -> Option<(f64, Instant)> {
        let request = remoting::Command::request(RequestCode::GetBrokerRuntimeInfo);
        let within = Duration::from_millis(700);
        let answer = self.cluster.ask(&self.cluster.broker_address(node), request, within).await.ok()?;
        let body: serde_json::Value = serde_json::from_slice(&answer.body.to_bytes()).ok()?;
        let table = body.get("table")?;
        // "[ 0 days, 0 hours, 1 minutes, 2 seconds ]", by the wall clock.
        let text = table.get("runtime")?.as_str()?;
        let mut numbers =
            text.split(|c: char| !c.is_ascii_digit() && c != '-').filter_map(|n| n.parse::<f64>().ok());
        let (days, hours) = (numbers.next()?, numbers.next()?);
        let (minutes, seconds) = (numbers.next()?, numbers.next()?);
        Some((((days * 24.0 + hours) * 60.0 + minutes) * 60.0 + seconds, Instant::now()))
    }

    /// Syncs fail from now on, by a library in front of libc. The replica has to end.
    pub(super) async fn sync_error(&self, nodes: &[usize], lasts: Duration) -> Result<()> {
        ensure!(Path::new(FIU[1]).exists(), "libfiu is missing (Debian package fiu-utils)");
        for node in nodes {
            let pid = self.pid(*node)?.to_string();
            let control = self.cluster.fiu_control().display().to_string();
            let enable = "enable name=posix/io/sync/*,failinfo=5";
            let output = Command::new("fiu-ctrl").args(["-f", &control, "-c", enable, &pid]).output()?;
            let errors = String::from_utf8_lossy(&output.stderr);
            // It skips a process that does not listen, and calls that a success.
            ensure!(output.status.success() && errors.is_empty(), "fiu-ctrl: {errors}");
        }
        self.must_end(nodes, "its syncs failed").await;
        sleep(lasts).await;
        self.start_all(nodes).await;
        Ok(())
    }

    fn pid(&self, node: usize) -> Result<u32> {
        self.cluster.pid(node).with_context(|| format!("n{node} does not run"))
    }

    fn group_name(&self, node: usize) -> String {
        format!("jepsen-{}-n{node}", std::process::id())
    }
}

/// Returns how many files a process may open.
fn file_limit(pid: u32) -> Result<u64> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("limits")?;
    line.split_whitespace().nth(3).and_then(|number| number.parse().ok()).context("a limit")
}

fn open_files(pid: u32) -> Result<u64> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64)
}

fn prlimit(pid: u32, soft: u64) -> Result<()> {
    let limit = format!("--nofile={soft}:");
    let output = Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).output()?;
    ensure!(output.status.success(), "prlimit: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
