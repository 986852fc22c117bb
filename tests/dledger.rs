//! The settings files of Apache's DLedger mode start a Raft group.

use std::path::Path;
use std::time::Duration;

use quorate::env::Disk;
use quorate::remoting::body::ClusterInfo;
use quorate::remoting::{Client, ClientConfig, Command, RequestCode};
use tokio::time::Instant;

use super::harness::*;

/// What Apache RocketMQ 5.5.0 ships as `conf/dledger/broker-n0.conf` to `broker-n2.conf`, without its comments.
fn stock_file(member: usize) -> String {
    format!(
        "brokerClusterName = RaftCluster\n\
         brokerName=RaftNode00\n\
         listenPort={listen_port}\n\
         namesrvAddr=127.0.0.1:9876\n\
         storePathRootDir=/tmp/rmqstore/node0{member}\n\
         storePathCommitLog=/tmp/rmqstore/node0{member}/commitlog\n\
         enableDLegerCommitLog=true\n\
         dLegerGroup=RaftNode00\n\
         dLegerPeers=n0-127.0.0.1:40911;n1-127.0.0.1:40912;n2-127.0.0.1:40913\n\
         ## must be unique\n\
         dLegerSelfId=n{member}\n\
         sendMessageThreadPoolNums=16\n",
        listen_port = 30911 + 10 * member,
    )
}

/// Starts a member from the stock file, with other ports, folders and name servers so that it fits into a test.
fn start_member(
    folder: &Path,
    member: usize,
    namesrv: &str,
    ports: &[u16],
    raft_ports: &[u16],
) -> ChildProcess {
    let file = folder.join(format!("broker-n{member}.conf"));
    Disk::real().replace(&file, stock_file(member).as_bytes()).unwrap();
    let peers: Vec<String> =
        (0..).zip(raft_ports).map(|(id, port): (usize, _)| format!("n{id}-127.0.0.1:{port}")).collect();
    let store = folder.join(format!("node0{member}"));
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_mqbroker"));
    process.arg("-c").arg(file).args(["-n", namesrv]).args([
        format!("listenPort={}", ports[member]),
        format!("dLegerPeers={}", peers.join(";")),
        format!("storePathRootDir={}", store.display()),
        format!("storePathCommitLog={}", store.join("commitlog").display()),
        "mappedFileSizeCommitLog=1048576".to_owned(),
        "bindAddress=127.0.0.1".to_owned(),
        "brokerIP1=127.0.0.1".to_owned(),
    ]);
    ChildProcess::start("mqbroker", &mut process)
}

#[tokio::test]
async fn apaches_dledger_files_start_a_group() {
    let folder = tempfile::tempdir().unwrap();
    let (_namesrv, address) = start_namesrv(folder.path());
    let ports = [broker_port(), broker_port(), broker_port()];
    let raft_ports = [broker_port(), broker_port(), broker_port()];
    let namesrv = address.to_string();
    let _members: Vec<ChildProcess> =
        (0..3).map(|member| start_member(folder.path(), member, &namesrv, &ports, &raft_ports)).collect();
    let client = Client::new(ClientConfig::default());
    let give_up = Instant::now() + Duration::from_secs(60);
    loop {
        let request = Command::request(RequestCode::GetBrokerClusterInfo);
        let answer = client.call(&namesrv, request, Duration::from_secs(5)).await.unwrap();
        let mut info: ClusterInfo = answer.json().unwrap();
        let group = info.broker_addr_table.remove("RaftNode00").unwrap_or_default();
        let mut addresses: Vec<_> = group.broker_addrs.values().cloned().collect();
        addresses.sort();
        let mut expected = ports.map(|port| format!("127.0.0.1:{port}"));
        expected.sort();
        if group.broker_addrs.contains_key(&0) && addresses == expected {
            assert_eq!(group.cluster, "RaftCluster");
            return;
        }
        assert!(Instant::now() < give_up, "after a minute the name server knows {group:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn a_log_of_dledger_is_not_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("dledger-n0/data");
    Disk::real().make_folder(&log).unwrap();
    Disk::real().replace(&log.join("00000000000000000000"), b"x").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_mqbroker"))
        .args([
            "enableDLegerCommitLog=true",
            "dLegerGroup=g",
            "dLegerPeers=n0-127.0.0.1:1",
            "dLegerSelfId=n0",
        ])
        .args([format!("storePathRootDir={}", folder.path().display()), "listenPort=0".to_owned()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("dledger-n0/data is the log of a DLedger group of Apache RocketMQ"), "{errors}");
}
