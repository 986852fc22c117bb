//! Apache's name server beside ours: both learn of a new leader at once, and neither lets the old one come back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command as Process;
use std::time::Duration;

use quorate::env::Disk;
use quorate::remoting::body::TopicRouteData;
use quorate::remoting::{Client, ClientConfig, Command, RequestCode, json};
use tokio::time::Instant;

use super::alone;
use super::failover::{assert_clean, finish};
use super::group::RaftGroup;
use super::load::{Load, TOPIC};
use super::watch::RouteWatch;
use crate::harness::{ChildProcess, free_port, source_path, wait};

/// How long after the election both name servers may take to show the new leader.
const KNOWN_WITHIN: Duration = Duration::from_millis(800);
/// How long a leader is paused: the others elect meanwhile.
const PAUSE: Duration = Duration::from_secs(2);

/// Apache RocketMQ's name server, of the release in the peer kit.
struct ApacheNamesrv {
    process: ChildProcess,
    address: SocketAddr,
}

impl ApacheNamesrv {
    /// Begins to start one in `folder`; `None` if it cannot be had, which in CI is an error.
    fn start(folder: &std::path::Path) -> Option<Self> {
        let kit = source_path("tests/compat/open-in-java");
        let fetched = Process::new(kit).arg("fetch").output().expect("bash runs");
        if !fetched.status.success() {
            let reason = String::from_utf8_lossy(&fetched.stderr).into_owned();
            assert!(std::env::var_os("CI").is_none(), "CI needs Apache's name server: {reason}");
            eprintln!(
                "SKIPPED: Apache's name server cannot be run (the peer kit, Java 17 and Maven are needed): {reason}"
            );
            return None;
        }
        // Where the kit keeps its jars.
        let jars =
            std::env::var_os("ROCKETMQ_PEER_DIR").map_or_else(|| source_path("target/peer"), PathBuf::from);
        let home = folder.join("apache");
        Disk::real().make_folder(&home).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let file = home.join("namesrv.conf");
        let text = format!("listenPort={}\nbindAddress=127.0.0.1\n", address.port());
        Disk::real().replace(&file, text.as_bytes()).unwrap();
        let mut java = Process::new("java");
        java.env("ROCKETMQ_HOME", &home)
            .args(["-Xms64m", "-Xmx256m"])
            .arg(format!("-Duser.home={}", home.display()))
            .arg("-cp")
            .arg(jars.join("lib/*"))
            .args(["org.apache.rocketmq.namesrv.NamesrvStartup", "-c"])
            .arg(file);
        Some(Self { process: ChildProcess::start("Apache's name server", &mut java), address })
    }

    /// Waits until it serves.
    fn booted(&mut self) {
        self.process.wait_for_line("boot success", Duration::from_secs(60));
    }
}

/// Returns the replicas by their numbers, as a name server shows them.
async fn route(client: &Client, namesrv: SocketAddr) -> BTreeMap<i64, String> {
    let request = Command::request(RequestCode::GetRouteinfoByTopic).with_field("topic", TOPIC);
    let answer = client.call(&namesrv.to_string(), request, Duration::from_secs(5)).await;
    let answer = answer.expect("the name server answers");
    if answer.code != 0 {
        return BTreeMap::new();
    }
    let route: TopicRouteData = json::from_slice(&answer.body.to_bytes()).expect("a route");
    route.broker_datas.into_iter().next().map(|group| group.broker_addrs).unwrap_or_default()
}

/// Waits until all name servers show these replicas, the one that leads as 0 and the others under their own numbers.
async fn shown(group: &RaftGroup, namesrvs: [SocketAddr; 2], leader: usize) {
    let number = |replica: usize| if replica == leader { 0 } else { i64::try_from(replica).unwrap() + 1 };
    let expected: BTreeMap<_, _> =
        (0..3).map(|replica| (number(replica), group.replicas[replica].address.to_string())).collect();
    let client = Client::new(ClientConfig::default());
    for namesrv in namesrvs {
        wait("all replicas at both name servers", async || {
            (route(&client, namesrv).await == expected).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn apaches_name_server_follows_the_leader_as_ours_does() {
    let _alone = alone().await;
    let mut group = RaftGroup::prepare(None, &[]).await;
    let Some(mut apache) = ApacheNamesrv::start(group.folder.path()) else { return };
    let namesrvs = [group.namesrv_addr, apache.address];
    group.register_at(apache.address);
    // Meanwhile; who does not find it tries again.
    group.start_all().await;
    apache.booted();
    let load = Load::start(&group).await;
    let watches = namesrvs.map(RouteWatch::start_at);
    for kill in [true, false] {
        let old = group.healthy().await;
        shown(&group, namesrvs, old).await;
        let address = group.replicas[old].address.to_string();
        let start = Instant::now();
        if kill {
            group.kill(old)
        } else {
            group.pause(old)
        }
        wait("another leader", async || {
            let mut others = group.statuses().await.into_iter().filter(|(replica, _)| *replica != old);
            others.any(|(_, status)| status.state == "LEADER").then_some(())
        })
        .await;
        let elected = start.elapsed();
        for (name, watch) in ["ours", "Apache's"].into_iter().zip(&watches) {
            let known = watch.left(&address, start).await;
            eprintln!("kill {kill}: elected after {elected:?}, in the route of {name} after {known:?}");
            assert!(known < elected + KNOWN_WITHIN, "{name}: {known:?}, elected after {elected:?}");
        }
        if kill {
            group.restart(old).await;
        } else {
            tokio::time::sleep_until(start + PAUSE).await;
            group.resume(old);
        }
        let leader = group.healthy().await;
        // It is back, as a follower.
        shown(&group, namesrvs, leader).await;
        load.ledger.grown_by(50).await;
    }
    let report = finish(&mut group, load).await;
    // All along: through the leaders in the order of their terms, and never back.
    let leaders = group.leaders();
    for watch in watches {
        watch.end(&leaders);
    }
    assert_clean(&report, &group);
}
