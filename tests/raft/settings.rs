//! Settings that operators change at run time: those of the group reach all replicas, whatever happens to the leader.

use std::time::Duration;

use quorate::env::Disk;
use quorate::remoting::{Client, ClientConfig, Command, RequestCode};

use super::beside_others;
use super::group::RaftGroup;
use crate::harness::wait;

/// Sends UPDATE_BROKER_CONFIG to a replica, and returns code and remark.
async fn update(group: &RaftGroup, replica: usize, text: &str) -> (i32, String) {
    let request = Command::request(RequestCode::UpdateBrokerConfig).with_body(text.to_owned());
    let address = group.replicas[replica].address.to_string();
    let client = Client::new(ClientConfig::default());
    let answer = client.call(&address, request, Duration::from_secs(10)).await.unwrap();
    (answer.code, answer.remark.unwrap_or_default())
}

async fn has(group: &RaftGroup, replica: usize, line: &str) -> bool {
    let settings = group.settings(replica).await.unwrap_or_default();
    settings.lines().any(|known| known == line)
}

async fn gets(group: &RaftGroup, replica: usize, line: &str) {
    wait("the setting", async || has(group, replica, line).await.then_some(())).await;
}

/// Returns a replica's file of `-c`.
fn file(group: &RaftGroup, replica: usize) -> String {
    String::from_utf8(Disk::real().read(&group.file(replica)).unwrap()).unwrap()
}

fn write(group: &RaftGroup, replica: usize, text: &str) {
    Disk::real().replace(&group.file(replica), text.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_of_the_group_is_found_on_all_replicas_though_the_leader_dies_at_once() {
    let _others = beside_others().await;
    let mut group = RaftGroup::prepare(None, &[]).await;
    for replica in 0..3 {
        write(&group, replica, "# kept\nbrokerPermission=6\n");
    }
    group.start_all().await;
    let leader = group.healthy().await;
    let (asked, other) = ((leader + 1) % 3, (leader + 2) % 3);
    assert_eq!(update(&group, asked, "brokerPermission=4\ntransactionCheckMax=9\n").await.0, 0);
    group.kill(leader);
    assert!(
        has(&group, asked, "brokerPermission=4").await,
        "the replica that was asked has it when it answers"
    );
    gets(&group, other, "brokerPermission=4").await;
    group.restart(leader).await;
    for replica in 0..3 {
        gets(&group, replica, "brokerPermission=4").await;
        gets(&group, replica, "transactionCheckMax=9").await;
        wait("the setting in the file", async || {
            let text = file(&group, replica);
            (text == "# kept\nbrokerPermission=4\ntransactionCheckMax=9\n").then_some(())
        })
        .await;
    }

    // As a whole or not at all, with the codes that a broker without replicas has.
    let leader = group.healthy().await;
    for (text, code, remark) in [
        ("brokerPermission=9\ntransactionCheckMax=1\n", 29, "brokerPermission=9"),
        ("transactionCheckMax=1\ntransactionCheckMaxx=1\n", 29, "did you mean transactionCheckMax?"),
        ("transactionCheckMax=1\nrocketmqHome=/x\n", 16, "black list"),
        ("transactionCheckMax=1\nlistenPort=1234\n", 29, "settings of one replica (listenPort)"),
    ] {
        for replica in [leader, (leader + 1) % 3] {
            let (found, said) = update(&group, replica, text).await;
            assert!(found == code && said.contains(remark), "{text} at n{replica}: {found} {said}");
        }
    }
    // What one replica has for itself stays with the one that was asked.
    let own = (leader + 2) % 3;
    assert_eq!(update(&group, own, "diskMaxUsedSpaceRatio=70\nmaxIndexNum=4001\n").await.0, 0);
    assert_eq!(update(&group, leader, "fileReservedTime=71\n").await.0, 0);
    for replica in 0..3 {
        gets(&group, replica, "fileReservedTime=71").await;
        assert!(has(&group, replica, "transactionCheckMax=9").await, "n{replica}");
        assert_eq!(has(&group, replica, "diskMaxUsedSpaceRatio=70").await, replica == own, "n{replica}");
        assert_eq!(has(&group, replica, "maxIndexNum=4001").await, replica == own, "n{replica}");
    }

    // The file of a replica counts for less, and it is told so.
    group.terminate(own).await;
    let told = |group: &RaftGroup| {
        let printed = group.printed(own);
        let lines = printed.lines().filter(|line| line.contains("the setting of the group counts"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told(&group), [] as [String; 0]);
    write(&group, own, &file(&group, own).replace("brokerPermission=4", "brokerPermission=6"));
    // A change that it misses.
    assert_eq!(update(&group, leader, "fileReservedTime=70\n").await.0, 0);
    group.restart(own).await;
    gets(&group, own, "brokerPermission=4").await;
    gets(&group, own, "fileReservedTime=70").await;
    let lines = told(&group);
    assert!(
        lines.len() == 1 && lines[0].contains(" WARN ") && lines[0].contains("brokerPermission"),
        "{lines:#?}"
    );
    group.settled().await;
    group.terminate_all().await;
    assert!(file(&group, own).contains("brokerPermission=4\n"), "{}", file(&group, own));
    assert!(group.errors().is_empty(), "{:#?}", group.errors());
}
