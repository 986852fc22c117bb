//! Operating a Raft group of processes: `mqadmin`'s commands, `/readyz` and `/metrics` of its replicas.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command as Process, Output};
use std::time::Duration;

use quorate::env::Disk;
use serde_json::Value;
use tempfile::TempDir;

use super::harness::*;
use super::http::{get, sample};

/// How long the members of a group have for a step that needs an election or a copy of a small log.
const SOON: Duration = Duration::from_secs(60);

/// A member of the group, by its number.
struct Member {
    id: usize,
    port: u16,
    raft_port: u16,
    http: SocketAddr,
    process: Option<ChildProcess>,
}

/// A name server and the members of `broker-a`, as processes.
struct RaftProcesses {
    folder: TempDir,
    _namesrv: ChildProcess,
    namesrv: SocketAddr,
    members: Vec<Member>,
}

impl RaftProcesses {
    /// Starts a group of three and waits until it has a leader and all are ready.
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (process, namesrv) = start_namesrv(folder.path());
        let mut group = Self { folder, _namesrv: process, namesrv, members: Vec::new() };
        for _ in 0..3 {
            group.reserve();
        }
        for id in 0..3 {
            group.start_member(id);
        }
        for id in 0..3 {
            group.wait_ready(id).await;
        }
        group
    }

    /// Chooses the ports of one more member; returns its number.
    fn reserve(&mut self) -> usize {
        let id = self.members.len();
        let http = SocketAddr::from(([127, 0, 0, 1], free_port()));
        self.members.push(Member { id, port: broker_port(), raft_port: free_port(), http, process: None });
        id
    }

    /// Starts a member; its `dLegerPeers` are those that are known at this moment.
    fn start_member(&mut self, id: usize) {
        let peers: Vec<_> = self
            .members
            .iter()
            .map(|member| format!("n{}-127.0.0.1:{}", member.id, member.raft_port))
            .collect();
        let member = &self.members[id];
        let settings = [
            "enableDLegerCommitLog=true".to_owned(),
            "dLegerGroup=broker-a".to_owned(),
            format!("dLegerPeers={}", peers.join(";")),
            format!("dLegerSelfId=n{id}"),
            "mappedFileSizeCommitLog=4194304".to_owned(),
            "mappedFileSizeConsumeQueue=20000".to_owned(),
            "maxHashSlotNum=1000".to_owned(),
            "maxIndexNum=4000".to_owned(),
            // Several processes on two cores are late at times.
            "raftHeartbeatIntervalMs=100".to_owned(),
            "raftElectionTimeoutMinMs=500".to_owned(),
            "raftElectionTimeoutMaxMs=1000".to_owned(),
            "metricsExporterType=PROM".to_owned(),
            format!("metricsPromExporterPort={}", member.http.port()),
        ];
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        let mut process = broker_process(self.namesrv, member.port, &self.store(id), &settings);
        self.members[id].process = Some(ChildProcess::start(&format!("n{id}"), &mut process));
    }

    fn store(&self, id: usize) -> PathBuf {
        self.folder.path().join(format!("n{id}"))
    }

    fn address(&self, id: usize) -> String {
        format!("127.0.0.1:{}", self.members[id].port)
    }

    fn kill(&mut self, id: usize) {
        self.members[id].process.take().expect("a running member").kill();
    }

    async fn wait_ready(&self, id: usize) {
        let http = self.members[id].http;
        let mut last = String::new();
        let deadline = tokio::time::Instant::now() + SOON;
        while tokio::time::Instant::now() < deadline {
            // The port is not open in the first moments.
            if tokio::net::TcpStream::connect(http).await.is_ok() {
                let (code, text) = get(http, "/readyz").await;
                if code == 200 {
                    return;
                }
                last = text;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("n{id} not ready within {SOON:?}: {last}\n{}", self.logs());
    }

    /// Runs `mqadmin` with `-n`.
    fn mqadmin(&self, line: &str) -> Output {
        let args: Vec<_> = line.split(' ').collect();
        Process::new(env!("CARGO_BIN_EXE_mqadmin"))
            .args(args)
            .args(["-n", &self.namesrv.to_string()])
            .output()
            .expect("mqadmin runs")
    }

    /// Runs `mqadmin`, which must succeed, and returns what it printed.
    fn prints(&self, line: &str) -> String {
        let output = self.mqadmin(line);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{line}: {}\n{out}\n{err}\n{}", output.status, self.logs());
        out
    }

    /// Returns what the members logged, for the message of a test that fails.
    fn logs(&self) -> String {
        let running = self.members.iter().filter_map(|member| Some((member.id, member.process.as_ref()?)));
        running.map(|(id, process)| format!("n{id}:\n{}\n", process.output())).collect()
    }

    /// Returns what `raftStatus` says of the group, if all is well with it.
    fn status(&self) -> Option<Value> {
        let output = self.mqadmin("raftStatus -g broker-a -o json");
        let groups: Value = serde_json::from_str(&text(&output.stdout)).ok()?;
        output.status.success().then(|| groups[0].clone())
    }

    async fn wait_status(&self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        wait_long(what, async || self.status().filter(|status| condition(status))).await
    }

    /// Returns the number of the leader.
    async fn leader(&self) -> usize {
        let status = self.wait_status("a leader", |status| leader_of(status).is_some()).await;
        leader_of(&status).expect("a leader")
    }
}

/// As `wait`, for what several processes need.
async fn wait_long<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {SOON:?}: {what}");
        // The pace of looking, not a wait for the condition.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn replicas(status: &Value) -> &[Value] {
    status["replicas"].as_array().map_or(&[], Vec::as_slice)
}

fn leader_of(status: &Value) -> Option<usize> {
    let leader = replicas(status).iter().find(|replica| replica["status"]["state"] == "LEADER")?;
    leader["status"]["id"].as_u64().and_then(|id| usize::try_from(id).ok())
}

/// Numbers of the replicas that vote, as the leader knows.
fn voters(status: &Value) -> Vec<u64> {
    let is_leader = |replica: &&Value| replica["status"]["state"] == "LEADER";
    let Some(leader) = replicas(status).iter().find(is_leader) else { return Vec::new() };
    let members = leader["status"]["members"].as_array().expect("members").iter();
    members.filter(|member| member["voter"] == true).filter_map(|member| member["id"].as_u64()).collect()
}

/// Sends texts to queue 0 of `T` at the leader.
async fn send(group: &RaftProcesses, texts: &[&str]) {
    let leader = group.leader().await;
    Peer::new(group.address(leader)).send_texts("T", texts).await;
}

#[tokio::test]
async fn the_state_of_a_group_is_shown() {
    let mut group = RaftProcesses::start().await;
    send(&group, &["a", "b", "c"]).await;
    let status = group
        .wait_status("all replicas to have all", |status| {
            let applied: Vec<_> = replicas(status).iter().map(|r| &r["status"]["appliedIndex"]).collect();
            applied.len() == 3 && applied.iter().all(|index| *index == applied[0])
        })
        .await;
    let leader = leader_of(&status).unwrap();
    for replica in replicas(&status) {
        let (id, status) = (replica["status"]["id"].as_u64().unwrap(), &replica["status"]);
        assert_eq!(replica["address"], group.address(usize::try_from(id).unwrap()));
        assert_eq!(status["leaderId"], leader, "{status}");
        assert_eq!(status["leaderAddress"], group.address(leader), "{status}");
        assert_eq!(status["members"].as_array().unwrap().len(), 3, "{status}");
        assert_eq!(replica["lag"], 0, "{replica}");
    }
    let printed = group.prints("raftStatus");
    assert_eq!(printed.matches(" LEADER ").count(), 1, "{printed}");
    assert_eq!(printed.matches(" FOLLOWER ").count(), 2, "{printed}");
    let one = group.prints(&format!("raftStatus -b {}", group.address(0)));
    assert_eq!(one.lines().count(), 2 + 2, "the others did not answer for themselves:\n{one}");

    for member in &group.members {
        let role = if member.id == leader { "leader" } else { "follower" };
        let (code, ready) = get(member.http, "/readyz").await;
        assert_eq!(code, 200, "{ready}");
        assert!(ready.starts_with(&format!("broker-a: ok: {role} in term ")), "{ready}");
        let (_, page) = get(member.http, "/metrics").await;
        let replica = format!("replica=\"n{}\"", member.id);
        let role = format!("role=\"{}\"", role.to_uppercase());
        assert_eq!(sample(&page, "rocketmq_raft_role", &[&replica, &role]), 1.0);
        assert_eq!(sample(&page, "rocketmq_raft_quorum_available", &[&replica]), 1.0);
        assert!(sample(&page, "rocketmq_raft_commit_index", &[&replica]) > 3.0);
    }

    // Without a majority nobody is ready, and everybody alive.
    let others: Vec<_> = (0..3).filter(|id| *id != leader).collect();
    group.kill(leader);
    group.kill(others[0]);
    let left = &group.members[others[1]];
    wait_long("the one that is left to know it", async || {
        (get(left.http, "/readyz").await.0 == 503).then_some(())
    })
    .await;
    assert_eq!(get(left.http, "/livez").await.0, 200);
    let output = group.mqadmin(&format!("transferLeader -b {}", group.address(others[1])));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no replica leads after 10 s: n"), "{}", text(&output.stderr));
    let output = group.mqadmin("raftStatus -g broker-a");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn leadership_is_handed_over() {
    let group = RaftProcesses::start().await;
    send(&group, &["a"]).await;
    let before = group.leader().await;
    let to = (before + 1) % 3;
    let printed = group.prints(&format!("transferLeader -g broker-a -i n{to}"));
    assert!(
        printed.starts_with(&format!("n{to} at {} leads broker-a in term ", group.address(to))),
        "{printed}"
    );
    assert_eq!(group.leader().await, to);
    send(&group, &["b"]).await;
    // To whoever is best suited, asked for at a replica that does not lead.
    let printed = group.prints(&format!("transferLeader -b {}", group.address(before)));
    assert!(!printed.starts_with(&format!("n{to} ")), "{printed}");
    send(&group, &["c"]).await;
    let leader = group.leader().await;
    assert_eq!(texts(&Peer::new(group.address(leader)).queue("T", 0).await), ["a", "b", "c"]);
    let output = group.mqadmin("transferLeader -g broker-a -i n7");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("n7 has no vote in broker-a"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn replicas_come_and_go() {
    let mut group = RaftProcesses::start().await;
    send(&group, &["a", "b"]).await;
    let new = group.reserve();
    group.start_member(new);
    let http = group.members[new].http;
    let reason = wait_long("n3 to say why it is not ready", async || {
        tokio::net::TcpStream::connect(http).await.ok()?;
        let (code, text) = get(http, "/readyz").await;
        assert_eq!(code, 503, "{text}");
        text.contains("addPeer").then_some(text)
    })
    .await;
    assert!(reason.contains("takes no part in its group: n3 is not a member of the group"), "{reason}");

    let raft_port = group.members[new].raft_port;
    let printed = group.prints(&format!("addPeer -g broker-a -i n3 -p 127.0.0.1:{raft_port}"));
    assert!(
        printed.ends_with(&format!("n3 at 127.0.0.1:{raft_port} is a voter of broker-a.\n")),
        "{printed}"
    );
    group.wait_ready(new).await;
    let status = group.wait_status("four voters", |status| replicas(status).len() == 4).await;
    assert_eq!(voters(&status), [0, 1, 2, 3]);
    wait_long("n3 to have the messages", async || {
        let peer = Peer::new(group.address(new));
        let read = texts(&records(&peer.pull(&Pull::default()).await));
        (read == ["a", "b"]).then_some(())
    })
    .await;
    let output = group.mqadmin(&format!("addPeer -g broker-a -i n3 -p 127.0.0.1:{raft_port}"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("n3 is a member already"), "{}", text(&output.stderr));

    let leader = group.leader().await;
    let output = group.mqadmin(&format!("removePeer -g broker-a -i n{leader}"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("transferLeader first"), "{}", text(&output.stderr));
    if leader == new {
        group.prints("transferLeader -g broker-a -i n0");
    }
    assert_eq!(group.prints("removePeer -g broker-a -i n3"), "n3 is no longer a member of broker-a.\n");
    group.kill(new);
    let leader = group.leader().await;
    let one = group.prints(&format!("raftStatus -b {} -o json", group.address(leader)));
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(voters(&one[0]), [0, 1, 2]);
    send(&group, &["c"]).await;
}

#[tokio::test]
async fn a_replica_that_lost_its_disk_is_taken_back() {
    let mut group = RaftProcesses::start().await;
    send(&group, &["a", "b"]).await;
    let leader = group.leader().await;
    let lost = (leader + 1) % 3;
    group.kill(lost);
    Disk::real().remove_folder(&group.store(lost)).unwrap();
    group.start_member(lost);
    let http = group.members[lost].http;
    wait_long("it to say what to do", async || {
        tokio::net::TcpStream::connect(http).await.ok()?;
        get(http, "/readyz").await.1.contains(&format!("mqadmin rejoin -i n{lost}")).then_some(())
    })
    .await;
    let page = get(http, "/metrics").await.1;
    assert_eq!(sample(&page, "rocketmq_raft_role", &["role=\"OUTSIDE\""]), 1.0);

    let printed = group.prints(&format!("rejoin -g broker-a -i n{lost}"));
    assert!(printed.ends_with(&format!("n{lost} is a voter of broker-a again.\n")), "{printed}");
    group.wait_ready(lost).await;
    let status = group.wait_status("three voters", |status| voters(status) == [0, 1, 2]).await;
    assert_eq!(replicas(&status).len(), 3);
    let output = group.mqadmin(&format!("rejoin -g broker-a -i n{lost}"));
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("did not lose its disk"), "{}", text(&output.stderr));
    // It counts: the group goes on with it and one of the two others.
    let third = 3 - leader - lost;
    group.kill(third);
    let peer = Peer::new(group.address(lost));
    wait_long("a message to be taken", async || {
        (peer.call(Outgoing { body: b"c", ..Outgoing::default() }.v2()).await.code == 0).then_some(())
    })
    .await;
    assert_eq!(texts(&peer.queue("T", 0).await), ["a", "b", "c"]);
}
