//! Requests of ours for Raft groups, at a broker that is in none.

use quorate::remoting::{Command, RequestCode};

use super::harness::*;

#[tokio::test]
async fn a_broker_without_a_group_says_how_to_make_one() {
    let cluster = TestCluster::start().await;
    let peer = |code| Command::request(code).with_field("peerId", "3");
    for request in [
        Command::request(RequestCode::GetRaftStatus),
        peer(RequestCode::RaftAddPeer).with_field("peerAddress", "127.0.0.1:40913"),
        peer(RequestCode::RaftRemovePeer),
        peer(RequestCode::RaftTransferLeader),
        Command::request(RequestCode::RaftTransferLeader),
        peer(RequestCode::RaftRejoin),
    ] {
        let code = request.code;
        let answer = cluster.call(request).await;
        assert_eq!(answer.code, 3, "{code}");
        assert_eq!(
            answer.remark.as_deref(),
            Some("this broker is not in a Raft group; enableDLegerCommitLog=true makes one"),
            "{code}"
        );
    }
    cluster.stop().await;
}

#[tokio::test]
async fn wrong_fields_are_named() {
    let cluster = TestCluster::start().await;
    let add = Command::request(RequestCode::RaftAddPeer);
    for (request, code, remark) in [
        (Command::request(RequestCode::RaftRemovePeer), 1, "peerId"),
        (Command::request(RequestCode::RaftRejoin).with_field("peerId", "n3"), 1, "peerId"),
        (
            add.with_field("peerId", "3").with_field("peerAddress", "127.0.0.1"),
            29,
            "peerAddress=127.0.0.1: expected host:port",
        ),
    ] {
        let answer = cluster.call(request).await;
        assert_eq!(answer.code, code, "{:?}", answer.remark);
        assert!(answer.remark.as_deref().unwrap_or_default().contains(remark), "{:?}", answer.remark);
    }
    cluster.stop().await;
}
