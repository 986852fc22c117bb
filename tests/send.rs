//! Sending over TCP: what is stored, what is answered, what is refused, and when.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate::config::FlushDiskType;
use quorate::env::{Disk, Faults};
use quorate::message::{BatchMessage, encode_batch};
use quorate::model::Perm;
use quorate::remoting::body::TopicRouteData;
use quorate::remoting::header::SendMessageResponseHeader;
use quorate::remoting::{Command, RequestCode};

use crate::harness::{Outgoing, Peer, TestCluster, property_string, texts, wait};

/// An hour: longer than a test.
const NEVER_MS: u64 = 3_600_000;

#[tokio::test]
async fn a_message_is_stored_as_it_was_sent_by_either_form_of_the_request() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    // Flags say that the body is compressed; it is none of the broker's business that it is not.
    let message = Outgoing {
        body: b"\x78\x9c not really zlib \0\xff",
        properties: &[("TAGS", "A"), ("KEYS", "k1 k2"), ("UNIQ_KEY", "U1"), ("mine", "ä=1")],
        flag: 77,
        sys_flag: 0x301,
        reconsume_times: Some(2),
        queue_id: 3,
        ..Outgoing::default()
    };
    for (number, request) in [message.v1(), message.v2()].into_iter().enumerate() {
        let answer = peer.ok(request).await;
        assert_eq!(answer.ext_fields.get("MSG_REGION"), Some("DefaultRegion"));
        assert_eq!(answer.ext_fields.get("TRACE_ON"), Some("true"));
        let sent: SendMessageResponseHeader = answer.header().unwrap();
        assert_eq!((sent.queue_id, sent.queue_offset), (3, i64::try_from(number).unwrap()));
        assert_eq!(sent.transaction_id.as_deref(), Some("U1"));
        let stored = peer.by_id(&sent.msg_id).await;
        assert_eq!(stored.body, message.body);
        assert_eq!((stored.flag, stored.sys_flag, stored.reconsume_times), (77, 0x301, 2));
        assert_eq!((stored.born_timestamp, stored.queue_id), (Outgoing::BORN, 3));
        for (name, value) in message.properties {
            assert_eq!(stored.property(name), Some(*value));
        }
        for (name, value) in
            [("CLUSTER", "DefaultCluster"), ("MSG_REGION", "DefaultRegion"), ("TRACE_ON", "true")]
        {
            assert_eq!(stored.property(name), Some(value));
        }
        assert_eq!(stored.properties.len(), 7, "{:?}", stored.properties);
        assert_eq!(peer.queue("T", 3).await.last(), Some(&stored));
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_batch_becomes_one_record_for_each_message() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    peer.send_texts("T", &["before"]).await;
    let body = batch(&[("one", 1, &[("KEYS", "k1")]), ("two", 2, &[("TAGS", "B")]), ("", 3, &[("a", "b")])]);
    let message = Outgoing { body: &body, ..Outgoing::default() };
    // The flag in the header counts, not the code.
    let by_flag = Outgoing { batch: Some(true), ..message }.v1();
    for (request, first) in [(message.batch(), 1), (by_flag, 4)] {
        let sent: SendMessageResponseHeader = peer.ok(request).await.header().unwrap();
        assert_eq!(sent.queue_offset, first);
        let ids: Vec<_> = sent.msg_id.split(',').collect();
        assert_eq!(ids.len(), 3);
        for (number, id) in (0u64..).zip(ids) {
            let stored = peer.by_id(id).await;
            assert_eq!(stored.queue_offset, first.cast_unsigned() + number);
            assert_eq!(stored.flag, i32::try_from(number).unwrap() + 1);
        }
    }
    let stored = peer.queue("T", 0).await;
    assert_eq!(texts(&stored), ["before", "one", "two", "", "one", "two", ""]);
    assert_eq!(stored[1].property("KEYS"), Some("k1"));
    assert_eq!(stored[2].property("TAGS"), Some("B"));
    assert_eq!(peer.by_key("T", "k1", false).await.len(), 2);
    cluster.stop().await;
}

#[tokio::test]
async fn a_oneway_send_is_never_answered_and_stored_all_the_same() {
    let cluster = TestCluster::start().await;
    let mut socket = cluster.socket().await;
    let message = |body| Outgoing { body, ..Outgoing::default() };
    socket.send_oneway(1, message(b"one").v2()).await;
    socket.send_oneway(2, Outgoing { topic: "bad topic", ..Outgoing::default() }.v2()).await;
    socket.send_oneway(3, Outgoing { queue_id: 99, ..Outgoing::default() }.v1()).await;
    socket.send_oneway(4, message(b"two").v1()).await;
    let (answer, others) = socket.ask(5, message(b"three").v2()).await;
    assert_eq!((answer.code, others), (0, Vec::new()));
    assert_eq!(socket.barrier().await, []);
    assert_eq!(texts(&cluster.peer().queue("T", 0).await), ["one", "two", "three"]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_missing_unique_key_is_made_and_a_receipt_handle_is_taken_out() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    let properties = [("TAGS", "A"), ("POP_CK", "0 1 2 3 0 broker-a 0 1")];
    let mut keys = BTreeSet::new();
    for _ in 0..3 {
        let sent = peer.send(&Outgoing { properties: &properties, ..Outgoing::default() }).await;
        let stored = peer.by_id(&sent.msg_id).await;
        assert_eq!(stored.property("POP_CK"), None);
        assert_eq!(stored.property("TAGS"), Some("A"));
        assert_eq!(stored.property("UNIQ_KEY"), sent.transaction_id.as_deref());
        let key = sent.transaction_id.unwrap();
        assert_eq!(peer.by_key("T", &key, true).await, [stored]);
        assert_eq!(key.len(), 32);
        keys.insert(key);
    }
    assert_eq!(keys.len(), 3);
    cluster.stop().await;
}

#[tokio::test]
async fn a_negative_queue_number_stands_for_any_queue() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    let mut used = BTreeSet::new();
    for _ in 0..64 {
        let sent = peer.send(&Outgoing { queue_id: -1, ..Outgoing::default() }).await;
        assert!((0..4).contains(&sent.queue_id));
        used.insert(sent.queue_id);
    }
    assert!(used.len() > 1, "64 messages all went to {used:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn what_cannot_be_taken_is_refused_with_the_code_of_java() {
    let cluster = TestCluster::start_with(|config| config.max_message_size = 1000, Disk::real()).await;
    let peer = cluster.peer();
    let body = vec![b'x'; 1001];
    let long = "p".repeat(32_760);
    let name_128 = "t".repeat(128);
    let retry_batch = batch(&[("x", 0, &[])]);
    let delayed_batch = batch(&[("x", 0, &[]), ("y", 0, &[("DELAY", "1")])]);
    let plain = Outgoing::default();
    let cases: Vec<(Command, i32, &str)> = vec![
        (Outgoing { queue_id: 4, ..plain }.v2(), 29, "queueId[4] is illegal"),
        (Outgoing { body: &body, ..plain }.v2(), 13, "maxMessageSize"),
        (Outgoing { body: &body, ..plain }.batch(), 13, "maxMessageSize"),
        (Outgoing { properties: &[("a", &long)], ..plain }.v2(), 13, "properties length"),
        (Outgoing { topic: "", ..plain }.v2(), 29, "blank"),
        (Outgoing { topic: "a b", ..plain }.v2(), 29, "illegal characters"),
        (Outgoing { topic: &name_128, ..plain }.v2(), 29, "topic max length: 127"),
        (Outgoing { topic: "SCHEDULE_TOPIC_XXXX", ..plain }.v2(), 16, "is forbidden"),
        (Outgoing { topic: "RMQ_SYS_TRANS_HALF_TOPIC", ..plain }.v2(), 16, "is forbidden"),
        (Outgoing { topic: "RMQ_SYS_TRANS_OP_HALF_TOPIC", ..plain }.v1(), 16, "is forbidden"),
        (Outgoing { topic: "TRANS_CHECK_MAX_TIME_TOPIC", ..plain }.v2(), 16, "is forbidden"),
        (Outgoing { topic: "SELF_TEST_TOPIC", ..plain }.v2(), 16, "is forbidden"),
        (Outgoing { topic: "OFFSET_MOVED_EVENT", ..plain }.v2(), 16, "is forbidden"),
        (Outgoing { topic: "U", default_topic: "NoSuchTemplate", ..plain }.v2(), 17, "topic[U] not exist"),
        // Its permission lacks "inherit".
        (Outgoing { topic: "U", default_topic: "T", ..plain }.v2(), 17, "topic[U] not exist"),
        (Outgoing { sys_flag: 0x4, ..plain }.v2(), 3, "transactional"),
        (Outgoing { properties: &[("TRAN_MSG", "true")], ..plain }.v2(), 3, "transactional"),
        (Outgoing { properties: &[("TIMER_DELAY_SEC", "1")], ..plain }.v2(), 3, "TIMER_DELAY_SEC"),
        (Outgoing { properties: &[("TIMER_DELAY_MS", "1")], ..plain }.v2(), 3, "TIMER_DELAY_MS"),
        (Outgoing { properties: &[("TIMER_DELIVER_MS", "1")], ..plain }.v2(), 3, "TIMER_DELIVER_MS"),
        (Outgoing { topic: "%RETRY%G", body: &retry_batch, ..plain }.batch(), 13, "retry"),
        (Outgoing { body: &delayed_batch, ..plain }.batch(), 13, "delay"),
        (Outgoing { body: b"no batch", ..plain }.batch(), 13, "broken"),
        (Outgoing { body: b"", ..plain }.batch(), 13, "no message"),
        (Outgoing { ..plain }.v2().with_field("e", "x"), 1, "e=x"),
    ];
    peer.send_texts("T", &["taken"]).await;
    for (request, code, remark) in cases {
        let name = format!("{:?}", request.ext_fields);
        let answer = peer.call(request).await;
        assert_eq!(answer.code, code, "{name:.300} {:?}", answer.remark);
        assert!(
            answer.remark.as_ref().is_some_and(|r| r.contains(remark)),
            "{name:.300} {:?}",
            answer.remark
        );
    }
    assert_eq!(texts(&peer.queue("T", 0).await), ["taken"]);
    // On the border.
    peer.send(&Outgoing { queue_id: 3, body: &body[..1000], ..plain }).await;
    peer.send(&Outgoing { topic: &name_128[..127], ..plain }).await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_unknown_topic_is_made_from_its_template() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    for (topic, wanted, queues) in [("Two", 2, 2), ("Many", 100, 8), ("Four", 4, 4i32)] {
        let message = Outgoing { topic, default_topic_queue_nums: wanted, ..Outgoing::default() };
        peer.send(&message).await;
        let route = wait("the name server knows the topic", async || {
            let answer = cluster
                .ask_namesrv(Command::request(RequestCode::GetRouteinfoByTopic).with_field("topic", topic))
                .await;
            (answer.code == 0).then(|| answer.json::<TopicRouteData>().unwrap())
        })
        .await;
        let data = &route.queue_datas[0];
        let numbers = [data.read_queue_nums, data.write_queue_nums].map(u32::cast_signed);
        assert_eq!((numbers, data.perm), ([queues; 2], Perm::READ_WRITE), "{topic}");
        peer.send(&Outgoing { queue_id: queues - 1, ..message }).await;
        assert_eq!(peer.call(Outgoing { queue_id: queues, ..message }.v2()).await.code, 29);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn an_unknown_topic_is_refused_where_topics_are_not_made_by_sends() {
    let cluster =
        TestCluster::start_with(|config| config.auto_create_topic_enable = false, Disk::real()).await;
    let answer = cluster.peer().call(Outgoing::default().v2()).await;
    assert_eq!(answer.code, 17, "{:?}", answer.remark);
    assert!(answer.remark.unwrap().starts_with("topic[T] not exist, apply first please!"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_delayed_message_comes_after_its_time() {
    let mut cluster = TestCluster::start_with(short_delays, Disk::real()).await;
    let peer = cluster.peer();
    let delayed = |level, body| {
        let properties = [("DELAY", level), ("UNIQ_KEY", body), ("KEYS", body)];
        Outgoing { properties: &properties, body: body.as_bytes(), queue_id: 2, ..Outgoing::default() }.v2()
    };
    peer.ok(delayed("1", "one")).await;
    // A level above the highest is the highest.
    peer.ok(delayed("9", "two")).await;
    peer.ok(delayed("0", "none")).await;
    assert_eq!(texts(&peer.queue("T", 2).await), ["none"]);
    let parked = [peer.queue("SCHEDULE_TOPIC_XXXX", 0).await, peer.queue("SCHEDULE_TOPIC_XXXX", 1).await];
    assert_eq!(parked.each_ref().map(|queue| texts(queue)), [["one"], ["two"]]);
    assert_eq!(parked[1][0].property("REAL_TOPIC"), Some("T"));
    assert_eq!(parked[1][0].property("REAL_QID"), Some("2"));

    cluster.stop_broker().await;
    cluster.start_broker().await;
    let peer = cluster.peer();
    let delivered = wait("both delayed messages", async || {
        let queue = peer.queue("T", 2).await;
        (queue.len() >= 3).then_some(queue)
    })
    .await;
    assert_eq!(texts(&delivered), ["none", "one", "two"]);
    for ((parked, delivered), delay_ms) in parked.iter().zip(&delivered[1..]).zip([1000, 2000]) {
        let waited = delivered.store_timestamp - parked[0].store_timestamp;
        assert!(waited >= delay_ms, "after {waited} ms of {delay_ms}");
        assert_eq!(delivered.property("UNIQ_KEY"), Some(delivered.text().as_str()));
        assert_eq!(delivered.born_timestamp, Outgoing::BORN);
        for gone in ["DELAY", "REAL_TOPIC", "REAL_QID"] {
            assert_eq!(delivered.property(gone), None);
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn answers_follow_a_sync_under_sync_flush_and_only_there() {
    for (flush, syncs_each) in [(FlushDiskType::SyncFlush, true), (FlushDiskType::AsyncFlush, false)] {
        let faults = Arc::<Faults>::default();
        let cluster = TestCluster::start_with(
            |config| {
                config.flush_disk_type = flush;
                config.flush_interval_commit_log = NEVER_MS;
                config.flush_consumer_offset_interval = NEVER_MS;
            },
            Disk::faulty(Arc::clone(&faults)),
        )
        .await;
        let peer = cluster.peer();
        peer.send_texts("T", &["makes the topic"]).await;
        for number in 0..10 {
            let before = faults.syncs.load(Ordering::SeqCst);
            peer.send(&Outgoing::default()).await;
            let synced = faults.syncs.load(Ordering::SeqCst) > before;
            assert_eq!(synced, syncs_each, "{flush:?} {number}");
        }
        cluster.stop().await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_messages_loses_none_and_heals_by_itself() {
    for flush in [FlushDiskType::SyncFlush, FlushDiskType::AsyncFlush] {
        let faults = Arc::<Faults>::default();
        let mut cluster = TestCluster::start_with(
            |config| {
                config.flush_disk_type = flush;
                config.flush_interval_commit_log = 10;
                config.flush_consumer_offset_interval = 100;
            },
            Disk::faulty(Arc::clone(&faults)),
        )
        .await;
        let peer = cluster.peer();
        peer.send_texts("T", &["m0", "m1"]).await;
        // A group that is not known yet could not be saved on a full disk.
        assert_eq!(peer.queue("T", 0).await.len(), 2);
        for round in 0..3 {
            faults.full.store(true, Ordering::SeqCst);
            for request in [Outgoing::default().v2(), Outgoing { queue_id: 1, ..Outgoing::default() }.v1()] {
                let answer = peer.call(request).await;
                assert_eq!(answer.code, 14, "{:?}", answer.remark);
                assert!(answer.remark.is_some_and(|remark| remark.contains("space")), "round {round}");
            }
            let expected: Vec<_> = (0..round + 2).map(|number| format!("m{number}")).collect();
            assert_eq!(texts(&peer.queue("T", 0).await), expected, "reads go on");
            faults.full.store(false, Ordering::SeqCst);
            peer.send_texts("T", &[&format!("m{}", round + 2)]).await;
        }
        cluster.stop_broker().await;
        cluster.start_broker().await;
        assert_eq!(texts(&cluster.peer().queue("T", 0).await), ["m0", "m1", "m2", "m3", "m4"]);
        assert_eq!(cluster.peer().max_offset("T", 1).await, 0);
        cluster.stop().await;
    }
}

#[tokio::test]
async fn a_topic_that_could_not_be_saved_is_saved_when_there_is_room() {
    let faults = Arc::<Faults>::default();
    let cluster = TestCluster::start_with(
        |config| config.flush_consumer_offset_interval = 100,
        Disk::faulty(Arc::clone(&faults)),
    )
    .await;
    let peer = cluster.peer();
    faults.full.store(true, Ordering::SeqCst);
    let message = Outgoing { topic: "New", ..Outgoing::default() };
    let answer = peer.call(message.v2()).await;
    assert_eq!(answer.code, 14, "{:?}", answer.remark);
    faults.full.store(false, Ordering::SeqCst);
    peer.send(&message).await;
    let file = cluster.config.config_folder().join("topics.json");
    wait("the topic is saved", async || {
        let text = String::from_utf8(Disk::real().read(&file).unwrap()).unwrap();
        text.contains("\"New\"").then_some(())
    })
    .await;
    // The folder as a kill at this moment would leave it.
    let survivor = cluster.start_on_a_copy().await;
    assert_eq!(texts(&Peer::new(survivor.address()).queue("New", 0).await), ["body"]);
    survivor.stop().await.unwrap();
    cluster.stop().await;
}

#[tokio::test]
async fn a_disk_above_the_warning_level_refuses_messages_until_there_is_room() {
    let faults = Arc::<Faults>::default();
    let cluster = TestCluster::start_with(
        |config| config.clean_resource_interval = 20,
        Disk::faulty(Arc::clone(&faults)),
    )
    .await;
    let peer = cluster.peer();
    peer.send_texts("T", &["m0"]).await;
    faults.used_percent.store(95, Ordering::SeqCst);
    let refusal = wait("messages are refused", async || {
        let answer = peer.call(Outgoing { queue_id: 1, ..Outgoing::default() }.v2()).await;
        (answer.code != 0).then_some(answer)
    })
    .await;
    assert_eq!(refusal.code, 14, "{:?}", refusal.remark);
    assert!(refusal.remark.unwrap().contains("diskSpaceWarningLevelRatio"));
    faults.used_percent.store(10, Ordering::SeqCst);
    wait("messages are taken again", async || {
        let answer = peer.call(Outgoing { body: b"m1", ..Outgoing::default() }.v2()).await;
        (answer.code == 0).then_some(())
    })
    .await;
    assert_eq!(texts(&peer.queue("T", 0).await), ["m0", "m1"]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_failed_sync_is_reported_and_nothing_is_acknowledged_any_more() {
    for flush in [FlushDiskType::SyncFlush, FlushDiskType::AsyncFlush] {
        let faults = Arc::<Faults>::default();
        let mut cluster = TestCluster::start_with(
            |config| {
                config.flush_disk_type = flush;
                config.flush_interval_commit_log = 10;
            },
            Disk::faulty(Arc::clone(&faults)),
        )
        .await;
        let peer = cluster.peer();
        peer.send_texts("T", &["safe"]).await;
        faults.sync_fails.store(true, Ordering::SeqCst);
        let answer = peer.call(Outgoing { body: b"unsafe", ..Outgoing::default() }.v2()).await;
        if flush == FlushDiskType::SyncFlush {
            assert_eq!(answer.code, 14, "{:?}", answer.remark);
        }
        let broker = cluster.broker.as_ref().unwrap();
        let reason = tokio::time::timeout(Duration::from_secs(20), broker.failed()).await.expect("a failure");
        assert!(reason.contains("sync"), "{reason}");
        // What a later sync says is worth nothing.
        faults.sync_fails.store(false, Ordering::SeqCst);
        for _ in 0..3 {
            let answer = peer.call(Outgoing::default().v2()).await;
            assert_eq!(answer.code, 14, "{:?}", answer.remark);
        }
        assert!(cluster.broker.take().unwrap().stop().await.is_err(), "no clean end");
        cluster.start_broker().await;
        assert_eq!(texts(&cluster.peer().queue("T", 0).await)[0], "safe");
        cluster.stop().await;
    }
}

fn short_delays(config: &mut quorate::config::BrokerConfig) {
    config.message_delay_level = "1s 2s".into();
}

/// Body, flag and properties.
type BatchPart<'a> = (&'static str, i32, &'a [(&'a str, &'a str)]);

/// Joins messages, each a body, a flag and properties.
fn batch(messages: &[BatchPart<'_>]) -> Vec<u8> {
    let messages: Vec<_> = messages
        .iter()
        .map(|(body, flag, properties)| BatchMessage {
            flag: *flag,
            body: body.as_bytes().into(),
            properties: property_string(properties),
        })
        .collect();
    encode_batch(&messages)
}
