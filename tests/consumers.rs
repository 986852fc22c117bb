//! What consumers need beside pulls: heartbeats and lists, locks, offsets, retries, and finding messages.

use quorate::env::Disk;
use quorate::model::Group;
use quorate::remoting::body::{
    GetConsumerListByGroupResponseBody, LockBatchRequestBody, LockBatchResponseBody, MessageModel,
};
use quorate::remoting::{Command, RequestCode};

use crate::harness::{
    Consumer, Outgoing, Peer, Received, Socket, TestCluster, message_queue, notified_group, offset,
    queue_request, records, texts, wait,
};

async fn members(peer: &Peer, group: &str) -> Result<Vec<String>, i32> {
    let request = Command::request(RequestCode::GetConsumerListByGroup).with_field("consumerGroup", group);
    let answer = peer.call(request).await;
    match answer.code {
        0 => Ok(answer.json::<GetConsumerListByGroupResponseBody>().unwrap().consumer_id_list),
        code => Err(code),
    }
}

/// Connects a consumer and returns the groups that it was notified of before its heartbeat was answered.
async fn join(cluster: &TestCluster, consumer: &Consumer<'_>) -> Socket {
    let mut socket = cluster.socket().await;
    let (answer, _) = socket.ask(1, consumer.heartbeat()).await;
    assert_eq!(answer.code, 0, "{:?}", answer.remark);
    socket
}

#[tokio::test]
async fn a_heartbeat_makes_the_group_and_its_retry_topic() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    assert_eq!(members(&peer, "G").await, Err(1));
    let _member = join(&cluster, &Consumer::default()).await;
    assert_eq!(members(&peer, "G").await, Ok(vec!["127.0.0.1@1".to_owned()]));
    assert_eq!(peer.commit("G", "%RETRY%G", 0, 0).await.code, 0);
    let route = Command::request(RequestCode::GetRouteinfoByTopic).with_field("topic", "%RETRY%G");
    wait("the name server knows the retry topic", async || {
        (cluster.ask_namesrv(route.clone()).await.code == 0).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_heartbeat_of_an_unknown_group_is_refused_where_groups_are_not_made_by_it() {
    let cluster =
        TestCluster::start_with(|config| config.auto_create_subscription_group = false, Disk::real()).await;
    let peer = cluster.peer();
    let answer = peer.call(Consumer::default().heartbeat()).await;
    assert_eq!(answer.code, 26, "{:?}", answer.remark);
    assert_eq!(members(&peer, "G").await, Err(1));
    cluster.stop().await;
}

#[tokio::test]
async fn members_hear_of_each_other_s_coming_and_going() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    let consumer = |client_id| Consumer { client_id, ..Consumer::default() };
    let mut first = join(&cluster, &consumer("c@2")).await;
    let mut second = join(&cluster, &consumer("c@1")).await;
    let third = join(&cluster, &consumer("c@3")).await;
    // Of its own coming, and of the two others.
    assert_eq!(first.notifications(2).await, ["G"; 2]);
    assert_eq!(members(&peer, "G").await.unwrap(), ["c@1", "c@2", "c@3"], "sorted");

    drop(third);
    assert_eq!(first.notifications(1).await, ["G"]);
    assert_eq!(members(&peer, "G").await.unwrap(), ["c@1", "c@2"]);

    let (answer, _) = second.ask(2, consumer("c@1").goodbye()).await;
    assert_eq!(answer.code, 0);
    assert_eq!(first.notifications(1).await, ["G"]);
    assert_eq!(members(&peer, "G").await.unwrap(), ["c@2"]);

    drop(first);
    wait("the last member is gone", async || members(&peer, "G").await.err()).await;
    cluster.stop().await;
}

#[tokio::test]
async fn only_a_change_of_topics_is_notified_and_broadcast_groups_are_left_alone() {
    let cluster = TestCluster::start().await;
    type Subscriptions = &'static [(&'static str, &'static str, i64)];
    let steps: [(Subscriptions, usize); 5] = [
        (&[("T", "*", 1)], 0),
        (&[("T", "A", 2)], 0),
        (&[("T", "A", 2), ("U", "*", 2)], 1),
        (&[("U", "*", 3)], 1),
        (&[("U", "B", 4)], 0),
    ];
    for (model, notifies) in [(MessageModel::Clustering, true), (MessageModel::Broadcasting, false)] {
        let base = Consumer { model, ..Consumer::default() };
        let mut socket = join(&cluster, &base).await;
        socket.barrier().await;
        for (subscriptions, notifications) in steps {
            let heartbeat = Consumer { subscriptions, ..base }.heartbeat();
            let (answer, mut others) = socket.ask(2, heartbeat).await;
            assert_eq!(answer.code, 0);
            others.extend(socket.barrier().await);
            let heard = others.iter().filter_map(notified_group).count();
            assert_eq!(heard, if notifies { notifications } else { 0 }, "{model:?} {subscriptions:?}");
        }
        socket.ask(3, base.goodbye()).await;
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_queue_is_locked_by_one_member_at_a_time() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    let ask = async |code, client: &str, queues: &[i32]| {
        let answer = peer
            .ok(Command::request(code).with_json(&LockBatchRequestBody {
                client_id: client.into(),
                consumer_group: Group::new("G"),
                mq_set: queues.iter().map(|id| message_queue("T", *id)).collect(),
                only_this_broker: false,
            }))
            .await;
        if code == RequestCode::UnlockBatchMq {
            assert!(answer.body.is_empty());
            return Vec::new();
        }
        let body: LockBatchResponseBody = answer.json().unwrap();
        body.lock_ok_mq_set.into_iter().map(|queue| queue.queue_id).collect()
    };
    use RequestCode::{LockBatchMq, UnlockBatchMq};
    for (code, client, queues, locked) in [
        (LockBatchMq, "a", &[0, 1][..], &[0, 1][..]),
        (LockBatchMq, "b", &[1, 2], &[2]),
        (LockBatchMq, "a", &[0, 1], &[0, 1]),
        (UnlockBatchMq, "b", &[1], &[]),
        (LockBatchMq, "b", &[1], &[]),
        (UnlockBatchMq, "a", &[1], &[]),
        (LockBatchMq, "b", &[1], &[1]),
    ] {
        assert_eq!(ask(code, client, queues).await, locked, "{code} {client} {queues:?}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn offsets_are_kept_and_wrong_ones_refused() {
    let mut cluster =
        TestCluster::start_with(|config| config.auto_create_subscription_group = false, Disk::real()).await;
    cluster.config.auto_create_subscription_group = true;
    let peer = cluster.peer();
    peer.send_texts("T", &["0", "1"]).await;
    assert_eq!(peer.commit("G", "T", 0, 1).await.code, 26);
    cluster.stop_broker().await;
    cluster.start_broker().await;
    let peer = cluster.peer();
    let _member = join(&cluster, &Consumer::default()).await;
    for (topic, queue_id, commit, code) in
        [("U", 0, 1, 17), ("T", -1, 1, 29), ("T", 0, -1, 29), ("T", 0, 7, 0), ("T", 0, 1, 0), ("T", 3, 0, 0)]
    {
        let answer = peer.commit("G", topic, queue_id, commit).await;
        assert_eq!(answer.code, code, "{topic} {queue_id} {commit} {:?}", answer.remark);
    }
    for (group, topic, queue_id, expected) in [
        ("G", "T", 0, Ok(1)),
        ("G", "T", 3, Ok(0)),
        ("G", "T", 1, Err(22)),
        ("G", "U", 0, Err(22)),
        ("Other", "T", 0, Err(22)),
        ("G", "T", -1, Err(29)),
    ] {
        assert_eq!(peer.committed(group, topic, queue_id).await, expected, "{group} {topic} {queue_id}");
    }
    // A new group misses nothing of a queue whose first message is at hand.
    let request = queue_request(RequestCode::QueryConsumerOffset, "T", 0).with_field("consumerGroup", "New");
    assert_eq!(offset(&peer.call(request).await), 0);

    cluster.stop_broker().await;
    cluster.start_broker().await;
    assert_eq!(cluster.peer().committed("G", "T", 0).await, Ok(1));
    cluster.stop().await;
}

fn send_back(message: &Received, level: i32, max: i32) -> Command {
    Command::request(RequestCode::ConsumerSendMsgBack)
        .with_field("offset", message.position.to_string())
        .with_field("group", "G")
        .with_field("delayLevel", level.to_string())
        .with_field("originTopic", "T")
        .with_field("maxReconsumeTimes", max.to_string())
}

/// Waits for the messages of queue 0.
async fn arrived(peer: &Peer, topic: &str, count: usize) -> Vec<Received> {
    wait(&format!("{count} messages in {topic}"), async || {
        let queue = peer.queue(topic, 0).await;
        (queue.len() >= count).then_some(queue)
    })
    .await
}

#[tokio::test]
async fn a_message_that_is_sent_back_comes_again_and_then_goes_to_the_dead_letters() {
    let cluster =
        TestCluster::start_with(|config| config.message_delay_level = "1s".into(), Disk::real()).await;
    let peer = cluster.peer();
    let _member = join(&cluster, &Consumer::default()).await;
    let properties = [("KEYS", "k"), ("UNIQ_KEY", "U1"), ("TAGS", "A")];
    let sent = peer.send(&Outgoing { properties: &properties, queue_id: 1, ..Outgoing::default() }).await;
    let original = peer.by_id(&sent.msg_id).await;

    peer.ok(send_back(&original, 0, 2)).await;
    let first = arrived(&peer, "%RETRY%G", 1).await.remove(0);
    assert!(first.store_timestamp - original.store_timestamp >= 1000, "after its level");
    peer.ok(send_back(&first, 1, 2)).await;
    let second = arrived(&peer, "%RETRY%G", 2).await.remove(1);
    for (times, retried) in [(1, &first), (2, &second)] {
        assert_eq!((retried.body.as_slice(), retried.reconsume_times), (&b"body"[..], times));
        assert_eq!(retried.property("RETRY_TOPIC"), Some("T"));
        assert_eq!(retried.property("ORIGIN_MESSAGE_ID"), Some(sent.msg_id.as_str()));
        assert_eq!(retried.property("UNIQ_KEY"), Some("U1"));
        assert_eq!(retried.property("DELAY"), None);
    }
    // Two retries are allowed.
    peer.ok(send_back(&second, 0, 2)).await;
    let dead = arrived(&peer, "%DLQ%G", 1).await.remove(0);
    assert_eq!((dead.reconsume_times, dead.property("RETRY_TOPIC")), (3, Some("T")));
    // A negative level gives up at once.
    peer.ok(send_back(&original, -1, 16)).await;
    assert_eq!(arrived(&peer, "%DLQ%G", 2).await.len(), 2);
    assert_eq!(peer.queue("%RETRY%G", 0).await.len(), 2);

    let unknown = send_back(&original, 0, 2).with_field("group", "Unknown");
    assert_eq!(peer.call(unknown).await.code, 26);
    for wrong in ["-1", "1", "999999999"] {
        let answer = peer.call(send_back(&original, 0, 2).with_field("offset", wrong)).await;
        assert_eq!(answer.code, 1, "{wrong}");
        assert!(answer.remark.unwrap().contains("look message by offset failed"), "{wrong}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_retry_by_an_ordinary_send_goes_to_the_dead_letters_when_it_was_tried_too_often() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    let _member = join(&cluster, &Consumer::default()).await;
    for (times, max, topic) in [(1, 2, "%RETRY%G"), (2, 2, "%RETRY%G"), (3, 2, "%DLQ%G")] {
        let message = Outgoing {
            topic: "%RETRY%G",
            reconsume_times: Some(times),
            max_reconsume_times: Some(max),
            ..Outgoing::default()
        };
        let sent = peer.send(&message).await;
        assert_eq!(peer.by_id(&sent.msg_id).await.topic, topic, "{times} of {max}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn messages_are_found_by_key_and_by_position() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    let mut sent = Vec::new();
    for number in 0..10 {
        let (keys, unique) = (format!("all k{number}"), format!("U{number}"));
        let properties = [("KEYS", keys.as_str()), ("UNIQ_KEY", &unique)];
        let body = number.to_string();
        let message = Outgoing { body: body.as_bytes(), properties: &properties, ..Outgoing::default() };
        sent.push(peer.send(&message).await);
        peer.send(&Outgoing { topic: "U", properties: &properties, ..Outgoing::default() }).await;
    }
    assert_eq!(peer.by_key("T", "all", false).await.len(), 10);
    assert_eq!(texts(&peer.by_key("T", "k7", false).await), ["7"]);
    assert_eq!(texts(&peer.by_key("T", "U7", true).await), ["7"]);
    assert!(peer.by_key("T", "k10", false).await.is_empty());
    assert!(peer.by_key("V", "all", false).await.is_empty());
    for (number, sent) in sent.iter().enumerate() {
        assert_eq!(peer.by_id(&sent.msg_id).await.text(), number.to_string());
    }
    let end = records(&peer.by_position(0).await)[0].size;
    for nothing in [1, end as u64 - 1, 1 << 40, i64::MAX as u64] {
        let answer = peer.by_position(nothing).await;
        assert_eq!(answer.code, 1, "{nothing}");
    }
    let negative = Command::request(RequestCode::ViewMessageById).with_field("offset", "-1");
    assert_eq!(peer.call(negative).await.code, 1);
    cluster.stop().await;
}

#[tokio::test]
async fn a_query_by_key_keeps_to_its_times_and_number() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    for _ in 0..5 {
        peer.send(&Outgoing { properties: &[("KEYS", "k")], ..Outgoing::default() }).await;
    }
    let stored = peer.queue("T", 0).await;
    let query = async |from: i64, to: i64, count: i32| {
        let request = Command::request(RequestCode::QueryMessage)
            .with_field("topic", "T")
            .with_field("key", "k")
            .with_field("maxNum", count.to_string())
            .with_field("beginTimestamp", from.to_string())
            .with_field("endTimestamp", to.to_string());
        let answer = peer.call(request).await;
        assert!(answer.ext_fields.get("indexLastUpdatePhyoffset").is_some());
        (answer.code, records(&answer).len())
    };
    let (first, last) = (stored[0].store_timestamp, stored[4].store_timestamp);
    assert_eq!(query(0, i64::MAX, 32).await, (0, 5));
    assert_eq!(query(0, i64::MAX, 2).await, (0, 2));
    assert_eq!(query(first - 5000, first - 2000, 32).await, (22, 0));
    assert_eq!(query(last + 2000, last + 5000, 32).await, (22, 0));
    cluster.stop().await;
}

#[tokio::test]
async fn offsets_are_found_by_time() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    let mut last = 0;
    // Ten messages at ten different times.
    while peer.max_offset("T", 0).await < 10 {
        wait("the next millisecond", async || {
            let sent = peer.send(&Outgoing { queue_id: 1, ..Outgoing::default() }).await;
            let now = peer.by_id(&sent.msg_id).await.store_timestamp;
            (now > last + 1).then_some(())
        })
        .await;
        let sent = peer.send(&Outgoing::default()).await;
        last = peer.by_id(&sent.msg_id).await.store_timestamp;
    }
    let stored = peer.queue("T", 0).await;
    let search = async |timestamp: i64, boundary: Option<&str>| {
        let request = queue_request(RequestCode::SearchOffsetByTimestamp, "T", 0)
            .with_field("timestamp", timestamp.to_string());
        let request = match boundary {
            Some(boundary) => request.with_field("boundaryType", boundary),
            None => request,
        };
        offset(&peer.call(request).await)
    };
    for message in &stored {
        let (time, at) = (message.store_timestamp, message.queue_offset.cast_signed());
        for boundary in [None, Some("lower")] {
            assert_eq!(search(time, boundary).await, at);
            assert_eq!(search(time - 1, boundary).await, at);
            assert_eq!(search(time + 1, boundary).await, at + 1);
        }
        assert_eq!(search(time, Some("upper")).await, at);
        assert_eq!(search(time + 1, Some("upper")).await, at);
    }
    assert_eq!(search(0, None).await, 0);
    assert_eq!(search(i64::MAX, Some("lower")).await, 10);
    assert_eq!(search(i64::MAX, Some("upper")).await, 9);
    cluster.stop().await;
}

#[tokio::test]
async fn the_bounds_of_queues_are_told() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    let earliest = async |topic, queue_id| {
        let request = queue_request(RequestCode::GetEarliestMsgStoretime, topic, queue_id);
        let answer = peer.ok(request).await;
        answer.ext_fields.get("timestamp").unwrap().parse::<i64>().unwrap()
    };
    peer.send_texts("T", &["0", "1", "2"]).await;
    assert_eq!((peer.min_offset("T", 0).await, peer.max_offset("T", 0).await), (0, 3));
    assert_eq!((peer.min_offset("T", 3).await, peer.max_offset("T", 3).await), (0, 0));
    assert_eq!((peer.min_offset("U", 0).await, peer.max_offset("U", 0).await), (0, 0));
    assert_eq!(earliest("T", 0).await, peer.queue("T", 0).await[0].store_timestamp);
    assert_eq!(earliest("T", 3).await, -1);
    cluster.stop().await;
}
