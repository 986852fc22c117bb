//! The stock Java client as producer and consumer while leaders are killed.

use std::path::Path;
use std::process::Command as Process;
use std::time::Duration;

use quorate::env::Disk;

use super::group::RaftGroup;
use super::{beside_others, files, rounds};
use crate::harness::{ChildProcess, java_clients, wait};

/// Messages of the round trip.
const MESSAGES: &str = "1500";

#[tokio::test(flavor = "multi_thread")]
async fn a_java_producer_loses_nothing_acknowledged_when_leaders_are_killed() {
    let _others = beside_others().await;
    let Some(java) = Java::find() else { return };
    let mut group = RaftGroup::start(&["defaultTopicQueueNums=4"]).await;
    let acked = group.folder.path().join("acked");
    let (namesrv, file) = (group.namesrv_addr.to_string(), acked.display().to_string());
    let mut sender =
        ChildProcess::start("sender", &mut java.load(&["send", &namesrv, "KillTopic", "4", &file]));
    grown(&acked, 50).await;
    for _ in 0..rounds("QUORATE_KILLS", 2) {
        let leader = group.healthy().await;
        grown(&acked, 50).await;
        group.kill(leader);
        grown(&acked, 50).await;
        group.restart(leader).await;
    }
    sender.terminate();
    eprintln!("{}", sender.output());
    let end = group.settled().await;
    let verified = java.load(&["verify", &namesrv, "KillTopic", &file, "60"]).output().expect("java runs");
    let report = String::from_utf8_lossy(&verified.stdout).into_owned();
    let errors = String::from_utf8_lossy(&verified.stderr).into_owned();
    eprintln!("{report}");
    assert!(verified.status.success() && report.contains("\"lost\":0"), "{report}\n{errors}");
    group.terminate_all().await;
    let stores: Vec<&Path> = group.replicas.iter().map(|replica| replica.store.as_path()).collect();
    files::assert_equal(&stores, end);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_java_consumer_gets_everything_while_the_leader_is_killed() {
    let _others = beside_others().await;
    let Some(java) = Java::find() else { return };
    let mut group = RaftGroup::start(&["defaultTopicQueueNums=4"]).await;
    let namesrv = group.namesrv_addr.to_string();
    let leader = group.healthy().await;
    let before = group.status(leader).await.expect("a status").last_index;
    let arguments = ["roundtrip", &namesrv, "RoundTrip", MESSAGES];
    let mut client = ChildProcess::start("client", &mut java.load(&arguments));
    wait("messages", async || {
        let status = group.status(leader).await?;
        (status.last_index > before + 400).then_some(())
    })
    .await;
    group.kill(leader);
    // It must serve the consumer as well, whose progress the other one knew.
    group.restart(leader).await;
    group.healthy().await;
    let second = group.leader().await;
    group.kill(second);
    group.restart(second).await;
    let ended = wait_long("the round trip", async || client.ended()).await;
    eprintln!("{}", client.output());
    assert!(ended.success(), "{}", client.output());
    group.terminate_all().await;
}

struct Java {
    class_path: String,
}

impl Java {
    fn find() -> Option<Self> {
        java_clients().map(|class_path| Self { class_path })
    }

    fn load(&self, arguments: &[&str]) -> Process {
        let mut process = Process::new("java");
        process.args(["-Xmx256m", "-cp", &self.class_path, "quorate.clients.AckedLoad"]).args(arguments);
        process
    }
}

fn lines(path: &Path) -> usize {
    Disk::real().read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
}

async fn grown(path: &Path, more: usize) {
    let wanted = lines(path) + more;
    wait("acknowledgements to the Java client", async || (lines(path) >= wanted).then_some(())).await;
}

async fn wait_long<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    let mut condition = condition;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(90);
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within 90 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
