//! The processes of `quorate up`: started, watched, started again, stopped.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io::{self, Write};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::Instant;

use super::child::{Child, End};
use super::plan::{Broker, Node, Plan};
use super::say;
use crate::admin::session::Session;

/// How often it is looked whether the children serve.
const POLL: Duration = Duration::from_millis(50);
/// After how many looks the wait is mentioned.
const POLLS_BEFORE_NOTICE: u32 = 200;
/// How long a broker may take to close its store.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// How long the followers, and the leaders that should lead, may take after every group has a leader.
const FOLLOWERS_WITHIN: Duration = Duration::from_secs(20);
/// How long a replica that died stays away, so that one sees that its groups go on without it.
const RESTART_AFTER: Duration = Duration::from_secs(2);
/// A replica that dies earlier after its start than this is not started again.
const TOO_EARLY: Duration = Duration::from_secs(5);

/// A name server and brokers, each a process.
pub(in crate::admin) struct Cluster {
    plan: Plan,
    session: Session,
    namesrv: Option<Child>,
    nodes: Vec<Process>,
    /// The address of each group's leader, when the cluster was last looked at.
    leaders: BTreeMap<String, String>,
}

/// The process of a node, which may be away.
#[derive(Default)]
struct Process {
    child: Option<Child>,
    started: Option<Instant>,
    /// When it is to be started again.
    again: Option<Instant>,
}

/// Who ended.
enum Ended {
    Namesrv(End),
    Node(usize, End),
    /// A node's time to be started again has come.
    Again(usize),
}

impl Cluster {
    pub(in crate::admin) fn new(plan: Plan) -> Self {
        let nodes = plan.nodes.iter().map(|_| Process::default()).collect();
        let session = Session::new(&plan.namesrv);
        Self { plan, session, namesrv: None, nodes, leaders: BTreeMap::new() }
    }

    pub(in crate::admin) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(in crate::admin) fn session(&self) -> &Session {
        &self.session
    }

    /// Whether it is one broker without replicas.
    pub(in crate::admin) fn is_single(&self) -> bool {
        self.plan.is_single()
    }

    /// Returns the names of the nodes, `n0` first.
    pub(in crate::admin) fn names(&self) -> Vec<String> {
        self.plan.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// Starts all, and waits until every group has a leader that the name server knows. A child that ends before is an
    /// error.
    pub(in crate::admin) async fn start(&mut self) -> Result<()> {
        self.namesrv = Some(Child::start(self.plan.namesrv_program())?);
        self.wait("the name server", None, |_, _| true).await?;
        for node in 0..self.nodes.len() {
            self.start_node(node)?;
        }
        let what = if self.plan.is_single() { "the broker" } else { "a leader of each group" };
        self.wait(what, None, has_leaders).await?;
        if !self.plan.is_single() {
            self.wait("all replicas", Some(FOLLOWERS_WITHIN), is_complete).await?;
        }
        Ok(())
    }

    /// Starts the process of a node, which must not run.
    pub(in crate::admin) fn start_node(&mut self, node: usize) -> Result<u32> {
        let Node { name, args, .. } = &self.plan.nodes[node];
        let child = Child::start(self.plan.program(name, args))?;
        let pid = child.pid();
        self.nodes[node] = Process { child: Some(child), started: Some(Instant::now()), again: None };
        Ok(pid)
    }

    /// Kills the process of a node with SIGKILL, and waits until it is gone.
    pub(in crate::admin) async fn kill_node(&mut self, node: usize) -> Result<()> {
        match self.nodes[node].child.take() {
            Some(child) => child.kill().await,
            None => bail!("{} does not run", self.plan.nodes[node].name),
        }
    }

    /// Returns the node that the name server says leads a group, and that runs.
    pub(in crate::admin) async fn leader_of(&mut self, group: &str) -> Option<usize> {
        self.look().await?;
        let address = self.leaders.get(group)?;
        let leads = |node: &Node| {
            node.brokers.iter().any(|broker| broker.group == group && broker.address == *address)
        };
        let node = self.plan.nodes.iter().position(leads)?;
        self.nodes[node].child.is_some().then_some(node)
    }

    /// Returns the addresses of all replicas of each group, in the order of the nodes.
    pub(in crate::admin) fn groups(&self) -> BTreeMap<String, Vec<String>> {
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for Broker { group, address, .. } in self.plan.nodes.iter().flat_map(|node| &node.brokers) {
            groups.entry(group.clone()).or_default().push(address.clone());
        }
        groups
    }

    /// Returns where the name server says that the leader of a group is.
    pub(in crate::admin) async fn leader_address(&mut self, group: &str) -> Option<String> {
        self.look().await?;
        self.leaders.get(group).cloned()
    }

    /// Waits for a time. A child that ends meanwhile is an error.
    pub(in crate::admin) async fn rest(&mut self, time: Duration) -> Result<()> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            ended = self.any_ends() => match ended {
                Ended::Namesrv(end) | Ended::Node(_, end) => bail!("{}", self.name(&end)),
                Ended::Again(_) => Ok(()),
            },
        }
    }

    /// Asks the name server who leads, and returns all addresses that it knows.
    async fn look(&mut self) -> Option<Vec<String>> {
        let info = self.session.cluster_info().await.ok()?;
        self.leaders.clear();
        let mut known = Vec::new();
        for (name, group) in info.broker_addr_table {
            if let Some(leader) = group.broker_addrs.get(&0) {
                self.leaders.insert(name, leader.clone());
            }
            known.extend(group.broker_addrs.into_values());
        }
        Some(known)
    }

    /// Waits until the name server answers and `done` is satisfied with the addresses that it knows, or until the time
    /// is over, if there is one.
    async fn wait(
        &mut self,
        what: &str,
        within: Option<Duration>,
        done: impl Fn(&Self, &[String]) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        let mut polls = 0_u32;
        loop {
            if let Some(known) = self.look().await
                && done(self, &known)
            {
                return Ok(());
            }
            if within.is_some_and(|within| start.elapsed() >= within) {
                return Ok(());
            }
            polls += 1;
            if within.is_none() && polls.is_multiple_of(POLLS_BEFORE_NOTICE) {
                let logs = self.plan.data.join("logs");
                say(&format!("waiting for {what}; the logs in {} say why it takes so long", logs.display()))?;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                ended = self.any_ends() => match ended {
                    Ended::Namesrv(end) | Ended::Node(_, end) => bail!("{}", self.name(&end)),
                    Ended::Again(_) => {}
                },
            }
        }
    }

    /// Runs until a child ends that should not, which is an error: the name server, a single broker, or a replica that
    /// dies again and again. Another replica that dies is shown, and started again.
    pub(in crate::admin) async fn keep(&mut self) -> Result<()> {
        loop {
            match self.any_ends().await {
                Ended::Namesrv(end) => bail!("{}", self.name(&end)),
                Ended::Node(node, end) => self.mourn(node, &end)?,
                Ended::Again(node) => {
                    let pid = self.start_node(node)?;
                    say(&format!("{} is started again, pid {pid}", self.plan.nodes[node].name))?;
                }
            }
        }
    }

    /// Shows that a node ended, and decides what comes next.
    fn mourn(&mut self, node: usize, end: &End) -> Result<()> {
        if self.plan.is_single() {
            bail!("{}", self.name(end));
        }
        let process = &mut self.nodes[node];
        process.child = None;
        let is_early = process.started.is_some_and(|started| started.elapsed() < TOO_EARLY);
        if is_early && !end.killed {
            bail!("{}", end.report());
        }
        process.again = Some(Instant::now() + RESTART_AFTER);
        let report = if end.killed { end.how.clone() } else { end.report() };
        let running = self.nodes.iter().filter(|process| process.child.is_some()).count();
        let (all, again) = (self.nodes.len(), RESTART_AFTER.as_secs());
        let rest = if running > all / 2 { "the groups go on" } else { "too few to go on" };
        writeln!(
            io::stderr(),
            "quorate up: {report}\nquorate up: {running} of {all} replicas run, {rest}; started again in {again} s"
        )
        .context("write to the terminal")
    }

    /// Returns the report of an end as a sentence. The name server and a single broker have no names of their own.
    fn name(&self, end: &End) -> String {
        let report = end.report();
        let has_article = report.starts_with("namesrv ") || self.plan.is_single();
        if has_article { format!("the {report}") } else { report }
    }

    /// Waits until a child ends or is due again.
    async fn any_ends(&mut self) -> Ended {
        let next =
            self.nodes.iter().enumerate().filter_map(|(node, process)| Some((process.again?, node))).min();
        let due = async {
            match next {
                Some((at, node)) => {
                    tokio::time::sleep_until(at).await;
                    node
                }
                None => std::future::pending().await,
            }
        };
        let mut waiting = Vec::new();
        let children =
            self.nodes.iter_mut().enumerate().map(|(node, process)| (Some(node), &mut process.child));
        for (node, child) in std::iter::once((None, &mut self.namesrv)).chain(children) {
            if let Some(child) = child {
                waiting.push(Box::pin(async move {
                    let end = child.ended().await;
                    match node {
                        Some(node) => Ended::Node(node, end),
                        None => Ended::Namesrv(end),
                    }
                }));
            }
        }
        let first = poll_fn(|context| {
            let ended = waiting.iter_mut().find_map(|child| match child.as_mut().poll(context) {
                Poll::Ready(ended) => Some(ended),
                Poll::Pending => None,
            });
            ended.map_or(Poll::Pending, Poll::Ready)
        });
        tokio::select! {
            ended = first => ended,
            node = due => Ended::Again(node),
        }
    }

    /// Stops the brokers one after the other, so that each can hand over what it leads and leave the name server, which
    /// is stopped last.
    pub(in crate::admin) async fn stop(&mut self) -> Result<()> {
        let mut result = Ok(());
        let nodes = self.nodes.iter_mut().rev().map(|process| &mut process.child);
        for child in nodes.chain([&mut self.namesrv]) {
            if let Some(child) = child.take() {
                let stopped = child.stop(STOP_WITHIN).await;
                result = result.and(stopped);
            }
        }
        self.session.clone().close().await;
        result
    }

    /// Returns what a user should know when all is up.
    pub(super) fn report(&self) -> String {
        let namesrv = &self.plan.namesrv;
        let namesrv_pid = self.namesrv.as_ref().map_or(0, Child::pid);
        let (executable, data) = (self.plan.executable().display(), self.plan.data.display());
        let (brokers, victim, after) = if self.plan.is_single() { self.single() } else { self.replicas() };
        let stop = if self.plan.is_single() { "Ctrl-C stops both." } else { "Ctrl-C stops all." };
        format!(
            "Quorate {version} is up.\n\
             \n\
             \x20 name server  {namesrv:<22} pid {namesrv_pid}\n\
             {brokers}\
             \x20 data         {data}\n\
             \x20 logs         {data}/logs\n\
             \n\
             Next, in another terminal:\n\
             \x20 NAMESRV_ADDR={namesrv} sh bin/tools.sh org.apache.rocketmq.example.quickstart.Producer\n\
             \x20 {executable} mqadmin clusterList -n {namesrv}\n\
             \x20 kill -9 {victim}   # {after}\n\
             \n\
             {stop}",
            version = env!("CARGO_PKG_VERSION"),
        )
    }

    /// Returns the broker's line, its process, and what happens when that is killed.
    fn single(&self) -> (String, u32, &'static str) {
        let pid = self.pid(0);
        let mut lines = String::new();
        for Broker { group, cluster, address, .. } in &self.plan.nodes[0].brokers {
            lines += &format!("  broker       {address:<22} pid {pid}  ({group} of {cluster})\n");
        }
        (lines, pid, "then `quorate up` again: what was acknowledged is still there")
    }

    /// Returns the replicas' lines, the process of a leader, and what happens when that is killed.
    fn replicas(&self) -> (String, u32, &'static str) {
        let (mut lines, mut victim) = (String::new(), self.pid(0));
        for (at, node) in self.plan.nodes.iter().enumerate() {
            for (row, broker) in node.brokers.iter().enumerate() {
                let name = if row == 0 { node.name.as_str() } else { "" };
                let pid = if row == 0 { format!("pid {}", self.pid(at)) } else { String::new() };
                let mut role = "";
                if self.leaders.get(&broker.group) == Some(&broker.address) {
                    role = ", leader";
                    victim = if broker.group == self.plan.nodes[0].brokers[0].group {
                        self.pid(at)
                    } else {
                        victim
                    };
                }
                let (group, cluster, address) = (&broker.group, &broker.cluster, &broker.address);
                lines += &format!("  {name:<11}  {address:<22} {pid:<12} ({group} of {cluster}{role})\n");
            }
        }
        (lines, victim, "another replica leads in a moment; this one is started again")
    }

    fn pid(&self, node: usize) -> u32 {
        self.nodes[node].child.as_ref().map_or(0, Child::pid)
    }
}

fn has_leaders(cluster: &Cluster, known: &[String]) -> bool {
    let brokers = || cluster.plan.nodes.iter().flat_map(|node| &node.brokers);
    if cluster.plan.is_single() {
        return brokers().all(|broker| known.contains(&broker.address));
    }
    brokers().all(|broker| cluster.leaders.contains_key(&broker.group))
}

/// Tells whether all replicas are registered, and led by those that should lead.
fn is_complete(cluster: &Cluster, known: &[String]) -> bool {
    cluster.plan.nodes.iter().flat_map(|node| &node.brokers).all(|broker| {
        let leads = cluster.leaders.get(&broker.group) == Some(&broker.address);
        known.contains(&broker.address) && (leads || !broker.preferred)
    })
}
