//! Commands for Raft groups against canned answers.

use super::*;

/// n1, which leads and has three members, the last of them a learner that copies the log.
const LEADER: &str = r#"{"appliedIndex":2000,"committedIndex":2000,"firstIndex":1,"group":"broker-a","id":1,"lastIndex":2001,"leaderAddress":"ADDRESS","leaderChanges":1,"leaderId":1,"logEnd":5120,"logMin":0,"members":[{"id":1,"lag":0,"matchedIndex":2001,"raftAddress":"10.0.0.1:40911","voter":true},{"id":2,"lag":3,"matchedIndex":1998,"raftAddress":"10.0.0.2:40911","voter":true},{"id":3,"lag":1501,"matchedIndex":500,"raftAddress":"10.0.0.3:40911","voter":false}],"quorumAgeMs":3,"state":"LEADER","term":4}"#;
const NOT_IN_A_GROUP: &str = "this broker is not in a Raft group; enableDLegerCommitLog=true makes one";

fn status(body: &'static str) -> Answers {
    let mut answers = cluster();
    answers.insert(RequestCode::GetRaftStatus, text(body));
    answers
}

#[tokio::test]
async fn raft_status_has_a_row_for_each_replica() {
    let ran = mqadmin(status(LEADER), "raftStatus -g broker-a -n ADDRESS").await;
    check(
        &ran.out,
        "#Group                #ID    #Role             #Term   #Leader  #First        #Last         #Committed    #Applied      #Log Min        #Log End        #Lag        #Address\n\
         broker-a              n1     LEADER            4       n1       1             2001          2000          2000          0               5120            0           ADDRESS\n\
         broker-a              n2     UNREACHABLE       -       -        -             -             -             -             -               -               3           10.0.0.2:40911\n\
         broker-a              n3     UNREACHABLE       -       -        -             -             -             -             -               -               1501        10.0.0.3:40911\n\
         broker-a: n3, a learner, catches up: 25.0 %, 1501 entries to go\n",
    );
    assert_eq!(
        ran.err,
        "mqadmin: n2 of the group broker-a, Raft port 10.0.0.2:40911, is down or not registered with the name server\n\
         mqadmin: n3 of the group broker-a, Raft port 10.0.0.3:40911, is down or not registered with the name server\n"
    );
    assert_eq!(ran.code, 1);
}

#[tokio::test]
async fn one_replica_answers_for_itself_alone() {
    let printed = prints(status(LEADER), "raftStatus -b ADDRESS").await;
    assert!(printed.contains("\nbroker-a              n1     LEADER "), "{printed}");
    let printed = prints(status(LEADER), "raftStatus -b ADDRESS -o json").await;
    let groups: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(groups[0]["group"], "broker-a");
    assert_eq!(groups[0]["replicas"][0]["address"], "ADDRESS");
    assert_eq!(groups[0]["replicas"][0]["status"]["committedIndex"], 2000);
    assert_eq!(groups[0]["unreachable"][1]["id"], 3);
}

#[tokio::test]
async fn a_group_without_a_leader_is_said_to_have_none() {
    let outside = r#"{"group":"broker-a","id":1,"members":[{"id":1,"raftAddress":"h:1","voter":true}],"outsideReason":"its disk is new","state":"OUTSIDE","term":0}"#;
    let ran = mqadmin(status(outside), "raftStatus -c DefaultCluster -n ADDRESS").await;
    assert!(ran.out.ends_with("broker-a: n1 does not take part: its disk is new\n"), "{}", ran.out);
    assert_eq!((ran.err.as_str(), ran.code), ("mqadmin: the group broker-a has no leader\n", 1));
}

#[tokio::test]
async fn what_goes_wrong_in_a_leader_is_said() {
    let unready = r#"{"group":"broker-a","id":1,"members":[{"id":1,"raftAddress":"h:1","voter":true}],"quorumAgeMs":2500,"state":"LEADER_NOT_READY","term":9}"#;
    let printed = mqadmin(status(unready), "raftStatus -n ADDRESS").await.out;
    let lines: Vec<_> = printed.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "broker-a: n1 is elected, but does not serve yet",
            "broker-a: n1 has not heard from a majority for 2500 ms"
        ]
    );
}

#[tokio::test]
async fn without_a_raft_group_the_commands_say_how_to_make_one() {
    let refused = || {
        let mut answers = cluster();
        answers.insert(
            RequestCode::GetRaftStatus,
            refusal(ResponseCode::RequestCodeNotSupported, NOT_IN_A_GROUP),
        );
        answers
    };
    let ran = mqadmin(refused(), "raftStatus -n ADDRESS").await;
    assert_eq!(
        (ran.err.as_str(), ran.code),
        (
            "mqadmin: no Raft group: ADDRESS without one; enableDLegerCommitLog=true in a broker's file makes one\n",
            1
        )
    );
    for line in [
        "raftStatus -b ADDRESS",
        "addPeer -g broker-a -i n3 -p h:1 -n ADDRESS",
        "removePeer -b ADDRESS -i 3",
        "transferLeader -g broker-a -n ADDRESS",
        "rejoin -g broker-a -i n3 -n ADDRESS",
    ] {
        let ran = mqadmin(refused(), line).await;
        let expected = format!("mqadmin: ADDRESS answered CODE: 3  DESC: {NOT_IN_A_GROUP}\n");
        assert_eq!((ran.err, ran.code), (expected, 1), "{line}");
    }
}

#[tokio::test]
async fn operations_send_what_was_asked_to_the_leader() {
    let answers = |code| {
        let mut answers = status(LEADER);
        answers.insert(code, done());
        answers
    };
    let ran =
        mqadmin(answers(RequestCode::RaftAddPeer), "addPeer -g broker-a -i n3 -p h3:40911 -n ADDRESS").await;
    assert_eq!((ran.out.as_str(), ran.code), ("n3 at h3:40911 is a voter of broker-a.\n", 0));
    let sent = &ran.sent(RequestCode::RaftAddPeer).ext_fields;
    assert_eq!((sent.get("peerId"), sent.get("peerAddress")), (Some("3"), Some("h3:40911")));

    let ran = mqadmin(answers(RequestCode::RaftRemovePeer), "removePeer -b ADDRESS -i n2").await;
    assert_eq!(ran.out, "n2 is no longer a member of broker-a.\n");
    assert_eq!(ran.sent(RequestCode::RaftRemovePeer).ext_fields.get("peerId"), Some("2"));

    let printed = prints(answers(RequestCode::RaftRejoin), "rejoin -b ADDRESS -i n2 -o json").await;
    assert_eq!(printed, "{\"group\":\"broker-a\",\"leader\":\"ADDRESS\",\"peerId\":2}\n");
}

#[tokio::test]
async fn leadership_is_handed_over() {
    let ran = mqadmin(status(LEADER), "transferLeader -g broker-a -i n1 -n ADDRESS").await;
    assert_eq!((ran.out.as_str(), ran.code), ("n1 at ADDRESS leads broker-a in term 4.\n", 0));

    // The one service is the old leader and the new one, by what it was asked before.
    let moved = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut answers = cluster();
    let seen = Arc::clone(&moved);
    let state: Handler = Box::new(move |address, _| {
        let now = if seen.load(std::sync::atomic::Ordering::SeqCst) { ("2", "5") } else { ("1", "4") };
        let body = LEADER.replace("\"id\":1,\"lastIndex\"", &format!("\"id\":{},\"lastIndex\"", now.0));
        ok().with_body(body.replace("\"term\":4", &format!("\"term\":{}", now.1)).replace("ADDRESS", address))
    });
    answers.insert(RequestCode::GetRaftStatus, state);
    let hand_over: Handler = Box::new(move |_, _| {
        moved.store(true, std::sync::atomic::Ordering::SeqCst);
        ok()
    });
    answers.insert(RequestCode::RaftTransferLeader, hand_over);
    let ran = mqadmin(answers, "transferLeader -g broker-a -n ADDRESS").await;
    assert_eq!((ran.out.as_str(), ran.code), ("n2 at ADDRESS leads broker-a in term 5.\n", 0));
    assert_eq!(ran.sent(RequestCode::RaftTransferLeader).ext_fields.get("peerId"), None);
}

#[tokio::test]
async fn refusals_of_the_group_are_told() {
    let mut answers = status(LEADER);
    answers.insert(RequestCode::RaftRemovePeer, refusal(ResponseCode::SystemError, "two of three are down"));
    let ran = mqadmin(answers, "removePeer -g broker-a -i n2 -n ADDRESS").await;
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str(), ran.code),
        ("", "mqadmin: ADDRESS answered CODE: 1  DESC: two of three are down\n", 1)
    );
    let ran = mqadmin(status(LEADER), "removePeer -g broker-b -i n2 -n ADDRESS").await;
    assert_eq!(
        ran.err,
        "mqadmin: the name server knows no group broker-b; known: [broker-a]; -b names a replica without it\n"
    );
    let ran = mqadmin(status(LEADER), "removePeer -g other -b ADDRESS -i n2").await;
    assert_eq!(ran.err, "mqadmin: ADDRESS is of the group broker-a, not of other\n");
    assert_eq!(mqadmin(status(LEADER), "removePeer -g broker-a -i two").await.code, 2);
    assert_eq!(mqadmin(status(LEADER), "transferLeader -n ADDRESS").await.code, 2);
}
