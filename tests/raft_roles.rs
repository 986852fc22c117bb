//! A Raft group as clients see it: whichever replica they ask, they get what a broker gives, also while the leader
//! changes. Three replicas and a name server in this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use quorate::broker;
use quorate::config::{BrokerConfig, Loaded, NamesrvConfig, Sources, load};
use quorate::env::{Clock, Disk};
use quorate::namesrv;
use quorate::remoting::body::{
    BrokerMemberGroup, GetBrokerMemberGroupResponseBody, LockBatchRequestBody, LockBatchResponseBody,
};
use quorate::remoting::header::PullMessageResponseHeader;
use quorate::remoting::{Client, ClientConfig, Command, RequestCode};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::harness::{
    COMMIT, Consumer, Outgoing, Peer, Pull, SUBSCRIPTION, SUSPEND, Socket, broker_port, free_port,
    message_queue, next_begin, queue_request, texts, wait,
};

/// A name server and the three replicas of `broker-a`.
struct Group {
    folder: TempDir,
    namesrv: namesrv::Running,
    client: Client,
    /// Client port and Raft port of each replica.
    ports: [(u16, u16); 3],
    settings: Vec<String>,
    brokers: [Option<broker::Running>; 3],
}

impl Group {
    /// Starts all and waits for a leader.
    async fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = NamesrvConfig {
            listen_port: 0,
            bind_address: "127.0.0.1".into(),
            kv_config_path: folder.path().join("kvConfig.json"),
            config_store_path: folder.path().join("namesrv.properties"),
            ..NamesrvConfig::default()
        };
        let namesrv = namesrv::start(Loaded::of(config), Disk::real(), Clock::system()).await.unwrap();
        let mut group = Self {
            folder,
            namesrv,
            client: Client::new(ClientConfig::default()),
            ports: std::array::from_fn(|_| (broker_port(), free_port())),
            settings: settings.iter().map(|&setting| setting.to_owned()).collect(),
            brokers: [None, None, None],
        };
        for id in 0..3 {
            group.start_replica(id).await;
        }
        group.leader().await;
        group
    }

    async fn start_replica(&mut self, id: usize) {
        let running = broker::start(self.config(id), Disk::real(), Clock::system()).await.unwrap();
        self.brokers[id] = Some(running);
    }

    fn config(&self, id: usize) -> Loaded<BrokerConfig> {
        let peers: Vec<_> =
            (0..3).map(|peer: usize| format!("n{peer}-127.0.0.1:{}", self.ports[peer].1)).collect();
        let mut overrides = vec![
            "enableDLegerCommitLog=true".to_owned(),
            "dLegerGroup=broker-a".to_owned(),
            format!("dLegerPeers={}", peers.join(";")),
            format!("dLegerSelfId=n{id}"),
            format!("namesrvAddr={}", self.namesrv.addr()),
            "brokerIP1=127.0.0.1".to_owned(),
            "bindAddress=127.0.0.1".to_owned(),
            format!("listenPort={}", self.ports[id].0),
            format!("storePathRootDir={}", self.folder.path().join(format!("n{id}")).display()),
            "mappedFileSizeCommitLog=4194304".to_owned(),
            "mappedFileSizeConsumeQueue=20000".to_owned(),
            "maxHashSlotNum=1000".to_owned(),
            "maxIndexNum=4000".to_owned(),
            // Many threads on two cores are late at times.
            "raftHeartbeatIntervalMs=100".to_owned(),
            "raftElectionTimeoutMinMs=500".to_owned(),
            "raftElectionTimeoutMaxMs=1000".to_owned(),
            "raftLeaderWaitMs=15000".to_owned(),
            "forwardTimeout=15000".to_owned(),
        ];
        overrides.extend(self.settings.iter().cloned());
        load(&Sources { overrides, ..Sources::default() }, &Disk::real()).unwrap()
    }

    fn address(&self, id: usize) -> String {
        format!("127.0.0.1:{}", self.ports[id].0)
    }

    fn peer(&self, id: usize) -> Peer {
        Peer::new(self.address(id))
    }

    /// Returns what the name server knows of the group.
    async fn registered(&self) -> BTreeMap<i64, String> {
        let request = Command::request(RequestCode::GetBrokerMemberGroup)
            .with_field("clusterName", "DefaultCluster")
            .with_field("brokerName", "broker-a");
        let address = self.namesrv.addr().to_string();
        let answer = self.client.call(&address, request, Duration::from_secs(10)).await.unwrap();
        let body: GetBrokerMemberGroupResponseBody = answer.json().unwrap();
        body.broker_member_group
            .map(|BrokerMemberGroup { broker_addrs, .. }| broker_addrs)
            .unwrap_or_default()
    }

    /// Waits until all replicas that run are registered, one of them as master, and returns which.
    async fn leader(&self) -> usize {
        let running: Vec<usize> = (0..3).filter(|id| self.brokers[*id].is_some()).collect();
        wait("one master and its followers are registered", async || {
            let registered = self.registered().await;
            let master = running.iter().copied().find(|id| registered.get(&0) == Some(&self.address(*id)))?;
            let expected = running.iter().map(|id| {
                let number = if *id == master { 0 } else { i64::try_from(*id).unwrap() + 1 };
                (number, self.address(*id))
            });
            (registered == expected.collect()).then_some(master)
        })
        .await
    }

    async fn transfer(&self, from: usize, to: usize) {
        let request = Command::request(RequestCode::RaftTransferLeader).with_field("peerId", to.to_string());
        self.peer(from).ok(request).await;
    }

    async fn stop_replica(&mut self, id: usize) {
        self.brokers[id].take().unwrap().stop().await.unwrap();
    }

    async fn stop(mut self) {
        for id in 0..3 {
            if self.brokers[id].is_some() {
                self.stop_replica(id).await;
            }
        }
        self.namesrv.stop().await;
    }
}

fn make_topic(name: &str) -> Command {
    Command::request(RequestCode::UpdateAndCreateTopic)
        .with_field("topic", name)
        .with_field("defaultTopic", "TBW102")
        .with_field("readQueueNums", "4")
        .with_field("writeQueueNums", "4")
        .with_field("perm", "6")
        .with_field("order", "false")
}

fn suggested(answer: &Command) -> i64 {
    answer.header::<PullMessageResponseHeader>().unwrap().suggest_which_broker_id
}

async fn see(peer: &Peer, topic: &str, expected: &[&str]) {
    wait("the replica shows all messages", async || {
        let answer = peer.pull(&Pull { topic, ..Pull::default() }).await;
        (texts(&crate::harness::records(&answer)) == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_replica_takes_what_only_the_leader_can_do() {
    let group = Group::start(&[]).await;
    let leader = group.leader().await;
    let peers = [0, 1, 2].map(|id| group.peer(id));
    for (id, peer) in peers.iter().enumerate() {
        let topic = format!("T{id}");
        peer.ok(make_topic(&topic)).await;
        let sent = peer.send(&Outgoing { topic: &topic, body: b"one", ..Outgoing::default() }).await;
        assert_eq!(sent.queue_offset, 0);
        peer.ok(Outgoing { topic: &topic, body: b"two", ..Outgoing::default() }.v1()).await;
        assert_eq!(peer.max_offset(&topic, 0).await, 2);
        assert_eq!(peer.min_offset(&topic, 0).await, 0);
        assert_eq!(peer.commit("G", &topic, 0, 1).await.code, 0);
    }
    for (at, peer) in peers.iter().enumerate() {
        for id in 0..3 {
            let topic = format!("T{id}");
            see(peer, &topic, &["one", "two"]).await;
            assert_eq!(peer.committed("G", &topic, 0).await, Ok(1), "of {id} at {at}");
        }
    }
    // Refusals come back as they are, and what clients read of each answer to a send.
    let follower = &peers[(leader + 1) % 3];
    let refused = follower.call(Outgoing { topic: "T0", queue_id: 99, ..Outgoing::default() }.v2()).await;
    assert_eq!((refused.code, refused.ext_fields.get("MSG_REGION")), (29, Some("DefaultRegion")));
    assert_eq!(follower.committed("G", "unknown", 0).await, Err(22));
    group.stop().await;
}

#[tokio::test]
async fn a_lock_is_given_once_whichever_replica_is_asked() {
    let group = Group::start(&[]).await;
    let lock = |client_id: &str| {
        Command::request(RequestCode::LockBatchMq).with_json(&LockBatchRequestBody {
            client_id: client_id.into(),
            consumer_group: quorate::model::Group::new("G"),
            mq_set: std::iter::once(message_queue("T", 0)).collect(),
            only_this_broker: false,
        })
    };
    let locked = async |id, client_id: &str| {
        let body: LockBatchResponseBody = group.peer(id).ok(lock(client_id)).await.json().unwrap();
        body.lock_ok_mq_set.len()
    };
    assert_eq!(locked(0, "a").await, 1);
    for id in 0..3 {
        assert_eq!((locked(id, "b").await, locked(id, "a").await), (0, 1), "at {id}");
    }
    // A new leader knows of none, and a leader that comes back does not know its own any more.
    let first = group.leader().await;
    let second = (first + 1) % 3;
    group.transfer(first, second).await;
    assert_eq!(locked(first, "b").await, 1);
    group.transfer(second, first).await;
    assert_eq!(locked(first, "a").await, 1);
    group.stop().await;
}

#[tokio::test]
async fn a_transfer_of_leadership_fails_no_send_and_is_registered_at_once() {
    let group = Group::start(&[]).await;
    let mut leader = group.leader().await;
    let stopped = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicUsize::new(0));
    // Clients whose route never changes.
    let senders: Vec<_> = (0..6)
        .map(|number| {
            let (peer, stopped, sent) = (group.peer(number % 3), Arc::clone(&stopped), Arc::clone(&sent));
            tokio::spawn(async move {
                while !stopped.load(Ordering::Relaxed) {
                    peer.send(&Outgoing {
                        queue_id: i32::try_from(number).unwrap() % 4,
                        ..Outgoing::default()
                    })
                    .await;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..4 {
        let next = (leader + 1) % 3;
        let before = sent.load(Ordering::Relaxed);
        group.transfer(leader, next).await;
        wait("the new leader is known", async || (group.leader().await == next).then_some(())).await;
        wait("sends go on", async || (sent.load(Ordering::Relaxed) > before + 20).then_some(())).await;
        leader = next;
    }
    stopped.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.expect("no send failed");
    }
    let mut stored = 0;
    for queue_id in 0..4 {
        stored += group.peer(leader).queue("T", queue_id).await.len();
    }
    assert_eq!(stored, sent.load(Ordering::Relaxed), "none lost, none twice");
    group.stop().await;
}

#[tokio::test]
async fn a_stopping_leader_hands_over_and_is_not_missed() {
    let mut group = Group::start(&[]).await;
    let leader = group.leader().await;
    let other = group.peer((leader + 1) % 3);
    other.send(&Outgoing { body: b"before", ..Outgoing::default() }).await;
    group.stop_replica(leader).await;
    other.send(&Outgoing { body: b"after", ..Outgoing::default() }).await;
    let next = group.leader().await;
    assert_ne!(next, leader);
    see(&group.peer(next), "T", &["before", "after"]).await;
    group.start_replica(leader).await;
    assert_eq!(group.leader().await, next);
    see(&group.peer(leader), "T", &["before", "after"]).await;
    group.stop().await;
}

#[tokio::test]
async fn a_send_waits_for_a_leader_and_is_told_to_try_again_when_none_comes() {
    let mut group = Group::start(&["raftLeaderWaitMs=700"]).await;
    let last = group.leader().await;
    group.peer(last).send(&Outgoing::default()).await;
    let others = [(last + 1) % 3, (last + 2) % 3];
    for id in others {
        group.stop_replica(id).await;
    }
    let mut socket = Socket::open(&group.address(last)).await;
    wait("the last replica no longer leads", async || {
        let answer = group.peer(last).call(Outgoing::default().v2()).await;
        (answer.code == 14).then_some(())
    })
    .await;
    let started = Instant::now();
    socket.send(1, Outgoing::default().v2()).await;
    // What any replica can do goes on meanwhile, on the same connection.
    let (pulled, others_arrived) = socket.ask(2, Pull::default().request()).await;
    assert_eq!((pulled.code, others_arrived.len()), (0, 0));
    assert!(started.elapsed() < Duration::from_millis(600), "{:?}", started.elapsed());
    let refused = socket.receive().await.unwrap();
    assert_eq!((refused.opaque, refused.code), (1, 14), "{:?}", refused.remark);
    assert!(refused.remark.unwrap().contains("raftLeaderWaitMs"));
    let waited = started.elapsed();
    assert!((Duration::from_millis(650)..Duration::from_secs(3)).contains(&waited), "{waited:?}");
    group.stop().await;
}

#[tokio::test]
async fn a_send_that_waits_is_carried_out_when_there_is_a_leader_again() {
    let mut group = Group::start(&[]).await;
    let last = group.leader().await;
    let others = [(last + 1) % 3, (last + 2) % 3];
    for id in others {
        group.stop_replica(id).await;
    }
    let peer = group.peer(last);
    let sends: Vec<_> = (0..20)
        .map(|_| {
            let peer = peer.clone();
            tokio::spawn(async move { peer.call(Outgoing::default().v2()).await.code })
        })
        .collect();
    group.start_replica(others[0]).await;
    let mut taken = 0;
    for send in sends {
        // Those that the old leader still took in may be of unknown fate.
        taken += usize::from(send.await.unwrap() == 0);
    }
    let leader = group.leader().await;
    let stored = group.peer(leader).queue("T", 0).await.len();
    assert!(stored >= taken, "{stored} of {taken}");
    peer.send(&Outgoing::default()).await;
    group.stop().await;
}

#[tokio::test]
async fn followers_serve_pulls_and_never_make_a_consumer_jump() {
    let group = Group::start(&[]).await;
    let leader = group.leader().await;
    let follower = (leader + 1) % 3;
    let (at_leader, peer) = (group.peer(leader), group.peer(follower));
    at_leader.send_texts("T", &["0", "1", "2"]).await;
    see(&peer, "T", &["0", "1", "2"]).await;

    let at = |offset| Pull { offset, ..Pull::default() };
    for (pull, code, next) in [
        (at(1), 0, 3),
        (Pull { subscription: Some("other"), ..at(1) }, 20, 3),
        (at(3), 19, 3),
        (at(1000), 19, 1000),
        (at(-1), 20, -1),
        (Pull { queue_id: 1, ..at(0) }, 19, 0),
        (Pull { queue_id: 1, ..at(7) }, 19, 7),
        (Pull { topic: "unknown", ..at(7) }, 20, 7),
        (Pull { queue_id: 99, ..at(7) }, 20, 7),
        // Nobody sent a heartbeat to this replica.
        (Pull { sys_flag: 0, ..at(1) }, 20, 1),
    ] {
        let answer = peer.pull(&pull).await;
        assert_eq!((answer.code, next_begin(&answer)), (code, next), "{pull:?}: {:?}", answer.remark);
        assert_eq!(suggested(&answer), 0);
    }
    assert_eq!(at_leader.pull(&at(1000)).await.code, 21, "the leader knows");

    // A pull is held until the message is committed.
    let held = Pull { suspend_ms: 600_000, sys_flag: SUBSCRIPTION | SUSPEND, ..at(4) };
    let waiting = tokio::spawn({
        let peer = peer.clone();
        async move { peer.pull(&held).await }
    });
    at_leader.send_texts("T", &["3", "4"]).await;
    assert_eq!(texts(&crate::harness::records(&waiting.await.unwrap())), ["4"]);

    // What a pull commits reaches the leader.
    let commit = Pull { sys_flag: SUBSCRIPTION | COMMIT, commit: 2, ..at(2) };
    assert_eq!(peer.pull(&commit).await.code, 0);
    wait("the leader has the offset", async || {
        (at_leader.committed("G", "T", 0).await == Ok(2)).then_some(())
    })
    .await;
    group.stop().await;
}

#[tokio::test]
async fn a_setting_sends_readers_to_followers_which_show_all_that_was_acknowledged() {
    let group = Group::start(&["raftReadFromFollowers=true", "raftLinearizableFollowerRead=true"]).await;
    let leader = group.leader().await;
    let at_leader = group.peer(leader);
    let followers = [(leader + 1) % 3, (leader + 2) % 3];
    at_leader.send(&Outgoing::default()).await;
    let numbers = followers.map(|id| i64::try_from(id).unwrap() + 1);
    wait("the leader sends readers to a follower", async || {
        let answer = at_leader.pull(&Pull::default()).await;
        numbers.contains(&suggested(&answer)).then_some(())
    })
    .await;
    for (id, number) in followers.into_iter().zip(numbers) {
        let peer = group.peer(id);
        for _ in 0..30 {
            let sent = at_leader.send(&Outgoing::default()).await;
            let answer = peer.pull(&Pull { offset: sent.queue_offset, ..Pull::default() }).await;
            assert_eq!((answer.code, suggested(&answer)), (0, number), "{:?}", answer.remark);
        }
    }
    group.stop().await;
}

#[tokio::test]
async fn delayed_messages_come_once_though_the_leader_changes() {
    let group = Group::start(&["messageDelayLevel=1s 3s"]).await;
    let first = group.leader().await;
    let second = (first + 1) % 3;
    for level in ["1", "2"] {
        for _ in 0..5 {
            let message = Outgoing { properties: &[("DELAY", level)], ..Outgoing::default() };
            group.peer(second).send(&message).await;
        }
    }
    group.transfer(first, second).await;
    let peer = group.peer(first);
    wait("all delayed messages", async || (peer.max_offset("T", 0).await >= 10).then_some(())).await;
    group.transfer(second, first).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(peer.max_offset("T", 0).await, 10);
    // The levels run at this leader too.
    peer.send(&Outgoing { properties: &[("DELAY", "1")], ..Outgoing::default() }).await;
    wait("one more", async || (peer.max_offset("T", 0).await == 11).then_some(())).await;
    group.stop().await;
}

#[tokio::test]
async fn consumers_that_read_from_followers_hear_of_an_operator_s_offset() {
    let group = Group::start(&[]).await;
    let leader = group.leader().await;
    let peer = group.peer(leader);
    peer.send_texts("T", &["0", "1", "2"]).await;
    let mut consumer = Socket::open(&group.address(leader)).await;
    assert_eq!(consumer.ask(1, Consumer::default().heartbeat()).await.0.code, 0);
    assert_eq!(peer.commit("G", "T", 0, 1).await.code, 0);
    let reset = Command::request(RequestCode::InvokeBrokerToResetOffset)
        .with_field("topic", "T")
        .with_field("group", "G")
        .with_field("timestamp", "-1")
        .with_field("isForce", "true");
    group.peer((leader + 1) % 3).ok(reset).await;
    let notice = loop {
        let command = consumer.receive().await.unwrap();
        if command.request_code() == Some(RequestCode::ResetConsumerClientOffset) {
            break command;
        }
    };
    assert_eq!(notice.ext_fields.get("topic"), Some("T"));
    // Until it asks for its offset, what it commits does not count.
    assert_eq!(peer.commit("G", "T", 0, 2).await.code, 0);
    assert_eq!(peer.committed("G", "T", 0).await, Ok(3));
    assert_eq!(peer.commit("G", "T", 0, 2).await.code, 0);
    assert_eq!(peer.committed("G", "T", 0).await, Ok(2));
    group.stop().await;
}

#[tokio::test]
async fn one_way_commits_are_forwarded() {
    let group = Group::start(&[]).await;
    let leader = group.leader().await;
    let peer = group.peer(leader);
    peer.send(&Outgoing::default()).await;
    let mut socket = Socket::open(&group.address((leader + 2) % 3)).await;
    let commit = queue_request(RequestCode::UpdateConsumerOffset, "T", 0)
        .with_field("consumerGroup", "G")
        .with_field("commitOffset", "1");
    socket.send_oneway(1, commit).await;
    wait("the offset", async || (peer.committed("G", "T", 0).await == Ok(1)).then_some(())).await;
    group.stop().await;
}
