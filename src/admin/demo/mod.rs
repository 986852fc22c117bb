//! `quorate demo`: a cluster of its own under load, whose leader is killed, and what became of every message.
//!
//! `history` judges, `load` sends and reads, this file kills and prints. Exit code 0 if all that was acknowledged is
//! where it was acknowledged to be, in order, on every replica; else 1.

mod history;
mod load;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Parser;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use self::history::{Gap, KeyHistory, Reading, Sent, Verdict, judge};
use self::load::{Key, Load};
use super::topic::put_topic;
use super::up::{self, Cluster, Plan, Signals};
use crate::env::{Clock, Disk, Random};
use crate::model::{Group, Perm, SubscriptionGroupConfig, Topic, TopicConfig};
use crate::remoting::{Client, ClientConfig, Command, RequestCode};

/// Ports that are tried, below those that Linux gives to outgoing connections.
const FIRST_PORTS: std::ops::Range<u32> = 20_000..32_000;
/// How long a killed process stays away.
const AWAY: Duration = Duration::from_secs(2);
/// How long everything may take to come up.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long a group may take to elect, and to make topic and consumer group.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a replica may take to catch up, and everyone to read everything in the end.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked whether something happened.
const POLL: Duration = Duration::from_millis(5);

/// Starts replicas, kills the leader under load, and counts what survived
#[derive(Debug, Parser)]
#[command(name = "quorate demo", bin_name = "quorate demo")]
struct Options {
    /// How often a leader is killed with SIGKILL
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    kills: u32,
    /// For how long messages are sent, at least
    #[arg(long, value_name = "S", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Broker groups; each process has a replica of each
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=9))]
    groups: u16,
    /// Replicas of each group, a process each; 1 is a single broker, to compare with
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    replicas: u16,
    /// Keys, each with a sender, a queue and a consumer
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    keys: u32,
    /// Where data and logs are kept; without it, a folder that goes away if all went well
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Settings of the brokers
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

/// Runs `quorate demo` with its arguments, the program's name first.
pub fn main(args: Vec<OsString>) -> ExitCode {
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.context("start").and_then(|runtime| runtime.block_on(run(&options)));
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "quorate demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the demo in its folder, and returns whether all promises were kept.
async fn run(options: &Options) -> Result<bool> {
    let own = std::env::temp_dir().join(format!("quorate-demo-{}", std::process::id()));
    let data = options.data.clone().unwrap_or_else(|| own.clone());
    let mut signals = Signals::listen()?;
    let plan = plan(options, data.clone())?;
    plan.write_files()?;
    let mut cluster = Cluster::new(plan);
    let ended = tokio::select! {
        ended = show(options, &mut cluster) => ended,
        () = signals.next() => Err(anyhow!("interrupted")),
    };
    let stopped = tokio::select! {
        stopped = cluster.stop() => stopped,
        () = signals.next() => Err(anyhow!("stopped without waiting")),
    };
    let good = ended.and_then(|good| stopped.map(|()| good));
    match (&good, options.data.is_none()) {
        (Ok(true), true) => {
            Disk::real().remove_folder(&own).with_context(|| format!("remove {}", own.display()))?;
        }
        _ => up::say(&format!("data and logs are in {}", data.display()))?,
    }
    good
}

/// Plans a cluster on ports that nobody has.
fn plan(options: &Options, data: PathBuf) -> Result<Plan> {
    if !Disk::real().list(&data).with_context(|| format!("open {}", data.display()))?.is_empty() {
        bail!("{} is not empty: the demo takes a folder of its own", data.display());
    }
    let random = Random::from_machine();
    let mut last = None;
    for _ in 0..50 {
        let first = FIRST_PORTS.start + random.below(FIRST_PORTS.end - FIRST_PORTS.start);
        let plan = Plan::of(&up::Options {
            data: data.clone(),
            replicas: Some(options.replicas),
            groups: Some(options.groups),
            host: "127.0.0.1".into(),
            namesrv_port: free_port()?,
            broker_port: Some(u16::try_from(first)?),
            config_file: None,
            overrides: options.overrides.clone(),
        })?;
        match plan.check_ports() {
            Ok(()) => return Ok(plan),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow!("no free ports")))
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("look for a free port")?;
    Ok(listener.local_addr().context("look for a free port")?.port())
}

/// All that was found out.
struct Findings {
    verdict: Verdict,
    /// Over all groups, then of each.
    gaps: Vec<Gap>,
    groups: Vec<String>,
    told_to_move: u64,
    /// Readings that did not get to the end: who, and of which key.
    incomplete: Vec<String>,
}

/// The tasks that send and consume, one of each for each key.
struct Clients {
    senders: Vec<JoinHandle<Vec<Sent>>>,
    consumers: Vec<JoinHandle<Reading>>,
    /// Set when nothing more is sent.
    finish: watch::Sender<bool>,
}

impl Clients {
    fn start(load: &Arc<Load>) -> Self {
        let finish = watch::Sender::new(false);
        let keys = || load.keys().map(|key| (Arc::clone(load), key));
        Self {
            senders: keys().map(|(load, key)| tokio::spawn(load.send(key))).collect(),
            consumers: keys()
                .map(|(load, key)| tokio::spawn(load.consume(key, finish.subscribe(), CATCH_UP_WITHIN)))
                .collect(),
            finish,
        }
    }
}

/// Starts the cluster, sends and kills, reads everything again, and prints what was found.
async fn show(options: &Options, cluster: &mut Cluster) -> Result<bool> {
    let clock = Clock::system();
    let within = START_WITHIN.as_secs();
    timeout(START_WITHIN, cluster.start()).await.map_err(|_| anyhow!("not up within {within} s"))??;
    let groups = cluster.groups();
    let topic = Topic::new(&format!("quorate_demo_{}", clock.now_ms()));
    let consumers = Group::new("quorate_demo_consumers");
    let queues = options.keys.div_ceil(u32::from(options.groups));
    for group in groups.keys() {
        prepare(cluster, group, &topic, &consumers, queues).await?;
    }
    let client = Client::new(ClientConfig::default());
    let keys = usize::try_from(options.keys)?;
    let load = Arc::new(Load::new(client, clock, (topic, consumers), groups, keys));
    let names: Vec<&str> = load.groups.iter().map(|(name, _)| name.as_str()).collect();
    let replicas =
        if cluster.is_single() { "1 replica".into() } else { format!("{} replicas", options.replicas) };
    tell(&load, &format!("{replicas} of {}, {keys} keys: sending", names.join(", ")))?;
    let clients = Clients::start(&load);
    let time = Duration::from_secs(options.seconds.into());
    for kill in 0..options.kills {
        let at = load.start + time * (kill + 1) / (options.kills + 1);
        cluster.rest(at.saturating_duration_since(Instant::now())).await?;
        kill_leader(cluster, &load, usize::try_from(kill)? % names.len()).await?;
    }
    cluster.rest((load.start + time).saturating_duration_since(Instant::now())).await?;
    let histories = finish(cluster, &load, clients).await?;
    load.client.close().await;

    let incomplete = histories.iter().enumerate().flat_map(|(key, history)| {
        let incomplete = history.readings.iter().filter(|reading| !reading.complete);
        incomplete.map(move |reading| format!("{} of key {key}", reading.by))
    });
    let findings = Findings {
        verdict: judge(&histories),
        gaps: load.gaps(),
        groups: names.iter().map(|name| (*name).to_owned()).collect(),
        told_to_move: load.told_to_move.load(Ordering::Relaxed),
        incomplete: incomplete.collect(),
    };
    up::say(&describe(&findings))?;
    Ok(findings.verdict.holds() && findings.told_to_move == 0)
}

/// Ends the sending, and lets the consumers, and one more reader on each replica, read everything.
async fn finish(cluster: &Cluster, load: &Arc<Load>, clients: Clients) -> Result<Vec<KeyHistory>> {
    load.stop.send_replace(true);
    let mut histories = Vec::new();
    for sender in clients.senders {
        histories.push(KeyHistory { sent: sender.await.context("send")?, readings: Vec::new() });
    }
    load.end();
    tell(load, &format!("{} acknowledged; reading everything from every replica", count(load)))?;
    clients.finish.send_replace(true);
    let audits = cluster.names().into_iter().enumerate().map(|(node, name)| {
        let load = Arc::clone(load);
        tokio::spawn(async move {
            let mut readings = Vec::new();
            for key in load.keys() {
                let address = &load.groups[key.group].1[node];
                readings.push(load.audit(&name, address, &key, CATCH_UP_WITHIN).await);
            }
            readings
        })
    });
    for audit in audits.collect::<Vec<_>>() {
        for (history, reading) in histories.iter_mut().zip(audit.await.context("read")?) {
            history.readings.push(reading);
        }
    }
    for (history, consumer) in histories.iter_mut().zip(clients.consumers) {
        history.readings.push(consumer.await.context("consume")?);
    }
    Ok(histories)
}

/// Makes topic and consumer group on the leader of a group.
async fn prepare(
    cluster: &mut Cluster,
    group: &str,
    topic: &Topic,
    consumers: &Group,
    queues: u32,
) -> Result<()> {
    let topic = TopicConfig::new(topic.clone(), queues, Perm::READ_WRITE);
    let consumers = SubscriptionGroupConfig::new(consumers.clone());
    let request = Command::request(RequestCode::UpdateAndCreateSubscriptiongroup).with_json(&consumers);
    let give_up = Instant::now() + READY_WITHIN;
    loop {
        let error = match cluster.leader_address(group).await {
            Some(address) => {
                let session = cluster.session();
                let made = async {
                    put_topic(session, &address, &topic).await?;
                    session.ask(&address, request.clone()).await
                };
                match made.await {
                    Ok(_) => return Ok(()),
                    Err(error) => error,
                }
            }
            None => anyhow!("{group} has no leader"),
        };
        if Instant::now() >= give_up {
            return Err(error.context(format!("make the topic in {group}")));
        }
        cluster.rest(Duration::from_millis(100)).await?;
    }
}

/// Kills the leader of a group, starts it again, and waits until it has caught up.
async fn kill_leader(cluster: &mut Cluster, load: &Load, group: usize) -> Result<()> {
    let name = &load.groups[group].0;
    let node = leader(cluster, name).await?;
    let node_name = cluster.names()[node].clone();
    let killed = load.start.elapsed();
    cluster.kill_node(node).await?;
    // What was acknowledged before the process was gone may have come from it.
    let gone = load.start.elapsed();
    tell(load, &format!("kill -9 {node_name}, the leader of {name}, at {} acknowledged", count(load)))?;
    let back = load.start + killed + AWAY;
    if !cluster.is_single() {
        wait_for_acknowledgement(cluster, load, group, gone).await?;
        let pause = load.last_acknowledged(group).saturating_sub(killed);
        tell(load, &format!("{name} acknowledges again, {} after the kill", seconds(pause)))?;
    }
    cluster.rest(back.saturating_duration_since(Instant::now())).await?;

    let started = Instant::now();
    let end = |key: &Key| load.ends[key.number].load(Ordering::Relaxed);
    let ends: Vec<(Key, u64)> = load.keys().map(|key| (key.clone(), end(&key))).collect();
    cluster.start_node(node)?;
    tell(load, &format!("{node_name} is started again"))?;
    let caught_up = async {
        for (key, end) in &ends {
            load.has(&load.groups[key.group].1[node], key, *end).await;
        }
    };
    tokio::select! {
        done = timeout(CATCH_UP_WITHIN, caught_up) => done
            .map_err(|_| anyhow!("{node_name} did not catch up within {} s", CATCH_UP_WITHIN.as_secs()))?,
        ended = cluster.rest(Duration::MAX) => ended?,
    }
    tell(load, &format!("{node_name} has caught up, {} after its start", seconds(started.elapsed())))?;
    wait_for_acknowledgement(cluster, load, group, gone).await
}

/// Waits until a group has a leader that runs, and returns its node.
async fn leader(cluster: &mut Cluster, group: &str) -> Result<usize> {
    let give_up = Instant::now() + READY_WITHIN;
    loop {
        if let Some(node) = cluster.leader_of(group).await {
            return Ok(node);
        }
        if Instant::now() >= give_up {
            bail!("{group} has had no leader for {} s", READY_WITHIN.as_secs());
        }
        cluster.rest(Duration::from_millis(50)).await?;
    }
}

/// Waits until a group acknowledged a send after a time.
async fn wait_for_acknowledgement(
    cluster: &mut Cluster,
    load: &Load,
    group: usize,
    after: Duration,
) -> Result<()> {
    let give_up = Instant::now() + READY_WITHIN;
    while load.last_acknowledged(group) <= after {
        if Instant::now() >= give_up {
            let name = &load.groups[group].0;
            bail!("{name} acknowledged nothing for {} s after its leader was killed", READY_WITHIN.as_secs());
        }
        cluster.rest(POLL).await?;
    }
    Ok(())
}

/// Prints a line with the time since the start of sending.
fn tell(load: &Load, text: &str) -> Result<()> {
    up::say(&format!("{:>7.1} s  {text}", load.start.elapsed().as_secs_f64()))
}

fn count(load: &Load) -> String {
    number(load.acknowledged.load(Ordering::Relaxed))
}

/// Returns the table at the end.
fn describe(findings: &Findings) -> String {
    let verdict = &findings.verdict;
    let resent = match verdict.retried {
        0 => String::new(),
        count => format!("  and {} that the client sent again without knowing the outcome", number(count)),
    };
    let (all, each) =
        findings.gaps.split_first().map_or((Gap::default(), &[][..]), |(all, each)| (*all, each));
    let mut of_groups = String::new();
    if each.len() > 1 {
        let each =
            findings.groups.iter().zip(each).map(|(group, gap)| format!("{group} {}", seconds(gap.longest)));
        of_groups = format!("  of one group: {}", each.collect::<Vec<_>>().join(", "));
    }
    let longest = seconds(all.longest);
    let since = format!("  without an acknowledged send, {} after the start{of_groups}", seconds(all.since));
    let mut rows = vec![
        ("acknowledged", number(verdict.acknowledged), String::new()),
        ("lost", number(verdict.lost), String::new()),
        ("duplicate", number(verdict.duplicate), resent),
        ("out of order", number(verdict.out_of_order), String::new()),
        ("longest gap", longest, since),
    ];
    // What should not be there is not mentioned as long as it is not.
    let rest = [
        ("unknown", verdict.unknown, "sent, and without an answer in the end"),
        ("changed", verdict.changed, "places where two readers found different messages"),
        ("strange", verdict.strange, "messages that nobody sent, or broken ones"),
        (
            "misled",
            findings.told_to_move,
            "pulls answered with \"go elsewhere\", where the message should be",
        ),
    ];
    for (what, count, explanation) in rest.into_iter().filter(|(_, count, _)| *count > 0) {
        rows.push((what, number(count), format!("  {explanation}")));
    }
    if !findings.incomplete.is_empty() {
        let who = format!("  did not come to the end: {}", findings.incomplete.join(", "));
        rows.push(("unread", number(verdict.incomplete), who));
    }
    let lines = rows.into_iter().map(|(what, value, more)| format!("\n{what:<14}{value:>10}{more}"));
    lines.collect()
}

/// Writes a number as `12,345`.
fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_groups() {
        for (value, expected) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), expected);
        }
    }

    fn gap(ms: &[u64]) -> Gap {
        let mut gap = Gap::default();
        ms.iter().for_each(|at| gap.note(Duration::from_millis(*at)));
        gap
    }

    #[test]
    fn a_good_end_is_short() {
        let findings = Findings {
            verdict: Verdict { acknowledged: 61_245, retried: 3, ..Verdict::default() },
            gaps: vec![gap(&[7_010, 7_020, 7_600]), gap(&[580])],
            groups: vec!["broker-a".into()],
            told_to_move: 0,
            incomplete: Vec::new(),
        };
        let expected = "
acknowledged      61,245
lost                   0
duplicate              0  and 3 that the client sent again without knowing the outcome
out of order           0
longest gap       7.01 s  without an acknowledged send, 0.00 s after the start";
        assert_eq!(describe(&findings), expected);
    }

    #[test]
    fn a_bad_end_says_all() {
        let findings = Findings {
            verdict: Verdict {
                acknowledged: 2,
                unknown: 1,
                lost: 1,
                duplicate: 1,
                retried: 0,
                out_of_order: 4,
                changed: 5,
                strange: 6,
                incomplete: 1,
            },
            gaps: vec![gap(&[100]), gap(&[200]), gap(&[300])],
            groups: vec!["a".into(), "b".into()],
            told_to_move: 7,
            incomplete: vec!["n2 of key 1".into()],
        };
        let expected = "
acknowledged           2
lost                   1
duplicate              1
out of order           4
longest gap       0.10 s  without an acknowledged send, 0.00 s after the start  of one group: a 0.20 s, b 0.30 s
unknown                1  sent, and without an answer in the end
changed                5  places where two readers found different messages
strange                6  messages that nobody sent, or broken ones
misled                 7  pulls answered with \"go elsewhere\", where the message should be
unread                 1  did not come to the end: n2 of key 1";
        assert_eq!(describe(&findings), expected);
    }

    #[test]
    fn a_folder_in_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Disk::real().make_folder(&folder.path().join("n0")).unwrap();
        let options = Options::try_parse_from(["quorate demo"]).unwrap();
        let error = plan(&options, folder.path().to_owned()).err().unwrap().to_string();
        assert!(error.ends_with("is not empty: the demo takes a folder of its own"), "{error}");
    }
}
