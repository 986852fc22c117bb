//! Pulling over TCP: statuses and their codes, filters, limits, and pulls that are held.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate::config::BrokerConfig;
use quorate::env::{Disk, Faults};
use quorate::remoting::body::MessageModel;
use quorate::remoting::header::PullMessageResponseHeader;
use quorate::remoting::{Command, RequestCode};
use tokio::time::Instant;

use crate::harness::{
    COMMIT, Consumer, Outgoing, Peer, Pull, SUBSCRIPTION, SUSPEND, Socket, TestCluster, next_begin, records,
    texts, wait,
};

/// Longer than a test.
const LONG_MS: i64 = 600_000;

/// A pull that may be held.
fn held(offset: i64, suspend_ms: i64) -> Pull<'static> {
    Pull { offset, suspend_ms, sys_flag: SUBSCRIPTION | SUSPEND, ..Pull::default() }
}

#[tokio::test]
async fn every_status_has_its_code_and_says_where_to_go_on() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    peer.send_texts("T", &["0", "1", "2", "3", "4"]).await;
    let at = |offset| Pull { offset, ..Pull::default() };
    for (pull, code, status, next) in [
        (at(0), 0, "FOUND", 5),
        (at(4), 0, "FOUND", 5),
        (at(5), 19, "OFFSET_OVERFLOW_ONE", 5),
        (at(6), 21, "OFFSET_OVERFLOW_BADLY", 5),
        (at(i64::MAX), 21, "OFFSET_OVERFLOW_BADLY", 5),
        (at(-1), 21, "OFFSET_TOO_SMALL", 0),
        (Pull { subscription: Some("other"), ..at(1) }, 20, "NO_MATCHED_MESSAGE", 5),
        (Pull { queue_id: 1, ..at(0) }, 19, "NO_MATCHED_LOGIC_QUEUE", 0),
        (Pull { queue_id: 1, ..at(3) }, 21, "NO_MATCHED_LOGIC_QUEUE", 0),
    ] {
        // None of these but 19 waits, whatever the flag says.
        for sys_flag in [pull.sys_flag, pull.sys_flag | SUSPEND] {
            let answer = peer.pull(&Pull { sys_flag, ..pull }).await;
            assert_eq!((answer.code, answer.remark.as_deref()), (code, Some(status)), "{pull:?}");
            let header: PullMessageResponseHeader = answer.header().unwrap();
            let max = if pull.queue_id == 0 { 5 } else { 0 };
            assert_eq!((header.next_begin_offset, header.min_offset, header.max_offset), (next, 0, max));
            assert_eq!((header.suggest_which_broker_id, header.forbidden_type), (0, None));
            assert_eq!(answer.body.is_empty(), code != 0);
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_pull_below_the_first_kept_message_is_told_where_that_is() {
    let faults = Arc::<Faults>::default();
    let mut cluster = TestCluster::start_with(small_segments, Disk::faulty(Arc::clone(&faults))).await;
    let body = [b'x'; 1000];
    // Fewer segments than one look deletes, so that the start deletes all that may go.
    for _ in 0..100 {
        cluster.peer().send(&Outgoing { body: &body, ..Outgoing::default() }).await;
    }
    cluster.stop_broker().await;
    // Segments go whatever their age.
    faults.used_percent.store(86, Ordering::SeqCst);
    cluster.start_broker().await;
    let peer = cluster.peer();
    let min = peer.min_offset("T", 0).await;
    assert!(min > 0 && min < 100, "{min}");
    assert_eq!(peer.max_offset("T", 0).await, 100);
    for offset in [-1, 0, min - 1] {
        let answer = peer.pull(&Pull { offset, ..Pull::default() }).await;
        assert_eq!((answer.code, answer.remark.as_deref()), (21, Some("OFFSET_TOO_SMALL")), "{offset}");
        assert_eq!(next_begin(&answer), min);
    }
    assert_eq!(peer.queue("T", 0).await.len(), usize::try_from(100 - min).unwrap());
    cluster.stop().await;
}

#[tokio::test]
async fn what_may_not_be_pulled_is_refused_with_the_code_of_java() {
    let cluster = TestCluster::start_with(
        |config| {
            config.auto_create_subscription_group = false;
            write_tables(
                config,
                r#"{"topicConfigTable":{
                    "T":{"topicName":"T","readQueueNums":2,"writeQueueNums":4,"perm":6},
                    "W":{"topicName":"W","readQueueNums":4,"writeQueueNums":4,"perm":2}}}"#,
                r#"{"forbiddenTable":{"Forbidden":{"T":4}},"subscriptionGroupTable":{
                    "G":{"groupName":"G"},
                    "Off":{"groupName":"Off","consumeEnable":false},
                    "NoBroadcast":{"groupName":"NoBroadcast","consumeBroadcastEnable":false},
                    "Forbidden":{"groupName":"Forbidden"},
                    "Old":{"groupName":"Old"}}}"#,
            );
        },
        Disk::real(),
    )
    .await;
    let peer = cluster.peer();
    let mut sockets = Vec::new();
    for consumer in [
        Consumer { group: "NoBroadcast", model: MessageModel::Broadcasting, ..Consumer::default() },
        Consumer { group: "Forbidden", ..Consumer::default() },
        Consumer { group: "Old", subscriptions: &[("T", "A", 5)], ..Consumer::default() },
    ] {
        let mut socket = cluster.socket().await;
        assert_eq!(socket.ask(1, consumer.heartbeat()).await.0.code, 0);
        sockets.push(socket);
    }
    let pull = Pull::default();
    let by_heartbeat = Pull { sys_flag: 0, subscription: None, expression_type: None, ..pull };
    for (pull, code, forbidden_type) in [
        (Pull { group: "Unknown", ..pull }, 26, None),
        (Pull { group: "Off", ..pull }, 16, Some(2)),
        (Pull { topic: "U", ..pull }, 17, None),
        (Pull { topic: "W", ..pull }, 16, Some(3)),
        (Pull { queue_id: 2, ..pull }, 29, None),
        (Pull { queue_id: -1, ..pull }, 29, None),
        (Pull { subscription: Some("||"), ..pull }, 23, None),
        (Pull { subscription: Some("a > 1"), expression_type: Some("SQL92"), ..pull }, 1, None),
        (by_heartbeat, 24, None),
        (Pull { group: "NoBroadcast", ..by_heartbeat }, 16, Some(4)),
        (Pull { group: "Forbidden", ..by_heartbeat }, 16, Some(5)),
        (Pull { group: "Old", sub_version: 6, ..by_heartbeat }, 25, None),
        (Pull { group: "Old", sub_version: 5, ..by_heartbeat }, 19, None),
    ] {
        let answer = peer.pull(&pull).await;
        assert_eq!(answer.code, code, "{pull:?} {:?}", answer.remark);
        let forbidden = answer.ext_fields.get("forbiddenType").map(|text| text.parse().unwrap());
        assert_eq!(forbidden, forbidden_type, "{pull:?}");
        assert!(answer.remark.is_some_and(|remark| !remark.is_empty()), "{pull:?}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_broker_that_may_not_be_read_refuses_pulls() {
    let cluster = TestCluster::start_with(|config| config.broker_permission = 2, Disk::real()).await;
    let peer = cluster.peer();
    peer.send_texts("T", &["written"]).await;
    let answer = peer.pull(&Pull::default()).await;
    assert_eq!((answer.code, answer.ext_fields.get("forbiddenType")), (16, Some("1")));
    cluster.stop().await;
}

#[tokio::test]
async fn tags_select_by_the_header_or_by_the_heartbeat() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    for (body, tag) in [("a0", "A"), ("b0", "B"), ("c0", "C"), ("a1", "A"), ("b1", "B")] {
        let properties = [("TAGS", tag)];
        peer.send(&Outgoing { body: body.as_bytes(), properties: &properties, ..Outgoing::default() }).await;
    }
    peer.send_texts("T", &["untagged"]).await;
    let mut socket = cluster.socket().await;
    for (number, (expression, expected)) in [
        ("*", &["a0", "b0", "c0", "a1", "b1", "untagged"][..]),
        ("", &["a0", "b0", "c0", "a1", "b1", "untagged"]),
        ("A", &["a0", "a1"]),
        (" A || C ", &["a0", "c0", "a1"]),
        ("B||B", &["b0", "b1"]),
    ]
    .into_iter()
    .enumerate()
    {
        let version = i64::try_from(number).unwrap() + 1;
        let subscriptions = [("T", expression, version)];
        let consumer = Consumer { subscriptions: &subscriptions, ..Consumer::default() };
        assert_eq!(socket.ask(1, consumer.heartbeat()).await.0.code, 0);
        let header = Pull { subscription: Some(expression), ..Pull::default() };
        // What the header says does not count without the flag.
        let heartbeat =
            Pull { sys_flag: 0, sub_version: version, subscription: Some("C"), ..Pull::default() };
        for pull in [header, heartbeat] {
            let answer = peer.pull(&pull).await;
            assert_eq!(texts(&records(&answer)), expected, "{pull:?}");
            assert_eq!(next_begin(&answer), 6);
        }
    }
    cluster.stop().await;
}

fn with_filters(config: &mut BrokerConfig) {
    config.enable_property_filter = true;
}

/// Messages `0` to `9` whose property `n` is their number; the even ones have a colour.
async fn send_numbered(peer: &Peer) {
    for number in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"] {
        let properties = [("n", number), ("colour", "red")];
        let count = if number.parse::<u32>().unwrap().is_multiple_of(2) { 2 } else { 1 };
        let outgoing =
            Outgoing { body: number.as_bytes(), properties: &properties[..count], ..Outgoing::default() };
        peer.send(&outgoing).await;
    }
}

#[tokio::test]
async fn sql92_selects_by_the_header_or_by_the_heartbeat() {
    let cluster = TestCluster::start_with(with_filters, Disk::real()).await;
    let peer = cluster.peer();
    send_numbered(&peer).await;
    let mut socket = cluster.socket().await;
    let sql = Some("SQL92");
    for (version, (expression, expected)) in (1..).zip([
        ("n > 6", &["7", "8", "9"][..]),
        ("colour = 'red' AND n BETWEEN 2 AND 5", &["2", "4"]),
        ("colour IS NULL", &["1", "3", "5", "7", "9"]),
        ("n IN ('0', '9') OR TAGS IS NOT NULL", &["0", "9"]),
    ]) {
        let subscriptions = [("T", expression, version)];
        let consumer =
            Consumer { subscriptions: &subscriptions, expression_type: "SQL92", ..Consumer::default() };
        assert_eq!(socket.ask(1, consumer.heartbeat()).await.0.code, 0);
        let header = Pull { subscription: Some(expression), expression_type: sql, ..Pull::default() };
        let heartbeat = Pull { sys_flag: 0, sub_version: version, subscription: None, ..Pull::default() };
        for pull in [header, heartbeat] {
            let answer = peer.pull(&pull).await;
            assert_eq!(texts(&records(&answer)), expected, "{pull:?}");
            assert_eq!(next_begin(&answer), 10);
        }
    }
    // None of them: the next pull begins behind them.
    let none = Pull { subscription: Some("n > 100"), expression_type: sql, ..Pull::default() };
    let answer = peer.pull(&none).await;
    assert_eq!((answer.code, next_begin(&answer)), (20, 10));
    cluster.stop().await;
}

#[tokio::test]
async fn a_filter_that_cannot_be_served_is_refused_with_what_is_wrong() {
    let cluster = TestCluster::start_with(with_filters, Disk::real()).await;
    let peer = cluster.peer();
    send_numbered(&peer).await;
    let wrong = "n >> 1";
    let by_header = Pull { subscription: Some(wrong), expression_type: Some("SQL92"), ..Pull::default() };
    let unknown = Pull { subscription: Some("x"), expression_type: Some("REGEX"), ..Pull::default() };
    let classes = Pull { sys_flag: SUBSCRIPTION | 0x8, ..Pull::default() };
    let mut socket = cluster.socket().await;
    let subscriptions = [("T", wrong, 1)];
    let consumer =
        Consumer { subscriptions: &subscriptions, expression_type: "SQL92", ..Consumer::default() };
    assert_eq!(socket.ask(1, consumer.heartbeat()).await.0.code, 0);
    let by_heartbeat = Pull { sys_flag: 0, sub_version: 1, ..Pull::default() };
    for (pull, code, reason) in [
        (by_header, 23, "at character 4: a value or a property was expected, not >"),
        (unknown, 23, "filters of type REGEX are not known; use TAG or SQL92"),
        (classes, 3, "a class filter is not supported"),
        (by_heartbeat, 27, "at character 4"),
    ] {
        let answer = peer.pull(&pull).await;
        assert_eq!(answer.code, code, "{pull:?} {:?}", answer.remark);
        assert!(answer.remark.as_ref().is_some_and(|remark| remark.contains(reason)), "{:?}", answer.remark);
    }
    // CHECK_CLIENT_CONFIG, which a consumer asks before it starts.
    for (kind, expression, code) in [("SQL92", "n > 1", 0), ("SQL92", wrong, 23), ("TAG", "A || B", 0)] {
        let body = format!(
            r#"{{"clientId":"c","group":"G","subscriptionData":{{"topic":"T","subString":"{expression}","expressionType":"{kind}","subVersion":1}}}}"#
        );
        let request = Command::request(RequestCode::CheckClientConfig).with_body(body.into_bytes());
        assert_eq!(peer.call(request).await.code, code, "{kind} {expression}");
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_held_pull_sleeps_through_messages_that_its_expression_does_not_want() {
    let cluster = TestCluster::start_with(with_filters, Disk::real()).await;
    let peer = cluster.peer();
    peer.send_texts("T", &["old"]).await;
    let mut socket = cluster.socket().await;
    let wanted = Pull { subscription: Some("n = 2"), expression_type: Some("SQL92"), ..held(1, LONG_MS) };
    socket.send(1, wanted.request()).await;
    assert_eq!(socket.barrier().await, [], "held");
    let numbered = |number: &'static str| {
        let properties = [("n", number)];
        Outgoing { properties: &properties, body: number.as_bytes(), ..Outgoing::default() }.v2()
    };
    peer.ok(numbered("1")).await;
    assert_eq!(socket.barrier().await, [], "still held");
    peer.ok(numbered("2")).await;
    let answer = socket.receive().await.unwrap();
    assert_eq!((answer.opaque, answer.code), (1, 0));
    assert_eq!(texts(&records(&answer)), ["2"]);
    cluster.stop().await;
}

#[tokio::test]
async fn an_answer_is_bounded_by_count_and_by_bytes() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    for _ in 0..40 {
        peer.send(&Outgoing::default()).await;
    }
    let large = vec![b'x'; 100_000];
    let huge = vec![b'x'; 300_000];
    for body in [&large, &large, &large, &huge, &huge] {
        peer.send(&Outgoing { queue_id: 1, body, ..Outgoing::default() }).await;
    }
    for (queue_id, offset, count, expected) in [
        (0, 0, 3, 3),
        (0, 0, 1000, 32),
        (0, 38, 32, 2),
        (0, 0, 0, 1),
        (0, 0, -1, 1),
        // 256 KiB hold two of the large ones; one message comes, whatever its size.
        (1, 0, 32, 2),
        (1, 2, 32, 1),
        (1, 3, 32, 1),
    ] {
        let answer = peer.pull(&Pull { queue_id, offset, count, ..Pull::default() }).await;
        assert_eq!(records(&answer).len(), expected, "{count} from {offset} of queue {queue_id}");
        assert_eq!(next_begin(&answer), offset + i64::try_from(expected).unwrap());
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_held_pull_is_woken_by_the_first_message_that_it_wants() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    peer.send_texts("T", &["old"]).await;
    let tagged = |tag: &'static str, queue_id| {
        let properties = [("TAGS", tag)];
        Outgoing { properties: &properties, body: tag.as_bytes(), queue_id, ..Outgoing::default() }.v2()
    };
    // One that begins at the end of a queue, and one whose queue has no message yet.
    for (queue_id, offset, found) in [(0, 1, 2), (1, 0, 1)] {
        let mut socket = cluster.socket().await;
        let wanted = Pull { subscription: Some("A"), queue_id, ..held(offset, LONG_MS) };
        socket.send(1, wanted.request()).await;
        assert_eq!(socket.barrier().await, [], "held");
        peer.ok(tagged("B", queue_id)).await;
        peer.ok(tagged("A", queue_id + 2)).await;
        assert_eq!(socket.barrier().await, [], "still held");
        peer.ok(tagged("A", queue_id)).await;
        let answer = socket.receive().await.unwrap();
        assert_eq!((answer.opaque, answer.code), (1, 0));
        assert_eq!(texts(&records(&answer)), ["A"]);
        assert_eq!(records(&answer)[0].queue_offset, found);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_held_pull_is_answered_at_its_time() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    peer.send_texts("T", &["old"]).await;
    let started = Instant::now();
    let answer = peer.pull(&held(1, 300)).await;
    assert_eq!((answer.code, next_begin(&answer)), (19, 1));
    assert!(started.elapsed() >= Duration::from_millis(300));
    cluster.stop().await;
}

#[tokio::test]
async fn pulls_are_held_for_the_short_time_without_long_polling() {
    let change = |config: &mut BrokerConfig| {
        config.long_polling_enable = false;
        config.short_polling_time_mills = 200;
    };
    let cluster = TestCluster::start_with(change, Disk::real()).await;
    let peer = cluster.peer();
    peer.send_texts("T", &["old"]).await;
    let started = Instant::now();
    assert_eq!(peer.pull(&held(1, LONG_MS)).await.code, 19);
    assert!(started.elapsed() >= Duration::from_millis(200));
    cluster.stop().await;
}

#[tokio::test]
async fn no_more_pulls_are_held_than_allowed_and_one_goes_with_its_connection() {
    let cluster = TestCluster::start_with(|config| config.held_pulls_max = 1, Disk::real()).await;
    let peer = cluster.peer();
    peer.send_texts("T", &["old"]).await;
    let mut socket = cluster.socket().await;
    socket.send(1, held(1, LONG_MS).request()).await;
    assert_eq!(socket.barrier().await, []);
    assert_eq!(peer.pull(&held(1, LONG_MS)).await.code, 19, "answered at once");
    drop(socket);
    let held_ms = 300;
    wait("the place of the closed connection", async || {
        let started = Instant::now();
        assert_eq!(peer.pull(&held(1, held_ms)).await.code, 19);
        (started.elapsed() >= Duration::from_millis(held_ms.cast_unsigned())).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn held_pulls_are_answered_when_the_broker_stops() {
    let mut cluster = TestCluster::start().await;
    cluster.peer().send_texts("T", &["old"]).await;
    let mut socket = cluster.socket().await;
    for opaque in 0..5 {
        socket.send(opaque, held(1, LONG_MS).request()).await;
    }
    assert_eq!(socket.barrier().await, []);
    cluster.stop_broker().await;
    for _ in 0..5 {
        assert_eq!(socket.receive().await.expect("an answer").code, 19);
    }
    assert_eq!(socket.receive().await, None);
    cluster.stop().await;
}

#[tokio::test]
async fn a_pull_commits_what_its_flag_says() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    peer.send_texts("T", &["0", "1"]).await;
    peer.pull(&Pull { commit: 1, ..Pull::default() }).await;
    assert_eq!(peer.committed("G", "T", 0).await, Err(22));
    let commit = Pull { commit: 1, sys_flag: SUBSCRIPTION | COMMIT, ..Pull::default() };
    assert_eq!(peer.pull(&commit).await.code, 0);
    assert_eq!(peer.committed("G", "T", 0).await, Ok(1));
    // Also one that is held.
    let mut socket = cluster.socket().await;
    let pull = Pull { commit: 2, sys_flag: SUBSCRIPTION | COMMIT | SUSPEND, ..held(2, LONG_MS) };
    socket.send(1, pull.request()).await;
    assert_eq!(socket.barrier().await, []);
    assert_eq!(peer.committed("G", "T", 0).await, Ok(2));
    cluster.stop().await;
}

#[tokio::test]
async fn an_offset_that_an_operator_set_is_told_with_the_next_pull_and_not_overwritten() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    peer.send_texts("T", &["0", "1", "2"]).await;
    let mut consumer = cluster.socket().await;
    assert_eq!(consumer.ask(1, Consumer::default().heartbeat()).await.0.code, 0);
    peer.commit("G", "T", 0, 3).await;
    let reset = Command::request(RequestCode::InvokeBrokerToResetOffset)
        .with_field("topic", "T")
        .with_field("group", "G")
        .with_field("timestamp", "0")
        .with_field("queueId", "0")
        .with_field("offset", "1")
        .with_field("isForce", "true");
    peer.ok(reset).await;
    // What the consumer still knows of its old place does not count.
    assert_eq!(peer.commit("G", "T", 0, 3).await.code, 0);
    let commit = Pull { commit: 3, sys_flag: SUBSCRIPTION | COMMIT, ..held(3, LONG_MS) };
    let answer = peer.pull(&commit).await;
    assert_eq!((answer.code, answer.remark.as_deref()), (21, Some("OFFSET_RESET")));
    assert_eq!(next_begin(&answer), 1);
    assert_eq!(peer.committed("G", "T", 0).await, Ok(1));
    let answer = peer.pull(&Pull { offset: 1, ..Pull::default() }).await;
    assert_eq!(texts(&records(&answer)), ["1", "2"]);
    peer.commit("G", "T", 0, 2).await;
    assert_eq!(peer.committed("G", "T", 0).await, Ok(2));
    cluster.stop().await;
}

#[tokio::test]
async fn the_fast_port_takes_sends_and_refuses_pulls() {
    let cluster = TestCluster::start().await;
    let fast = Peer::new(format!("127.0.0.1:{}", cluster.config.listen_port - 2));
    fast.send_texts("T", &["fast"]).await;
    assert_eq!(fast.call(Consumer::default().heartbeat()).await.code, 0);
    let mut lite = Pull::default().request();
    for code in [11, 361] {
        lite.code = code;
        let answer = fast.call(lite.clone()).await;
        assert_eq!(answer.code, 3, "{:?}", answer.remark);
        let answer: Command = cluster.peer().call(lite.clone()).await;
        assert_eq!(texts(&records(&answer)), ["fast"]);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn pulls_of_one_connection_overtake_each_other() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    peer.send_texts("T", &["old"]).await;
    let mut socket: Socket = cluster.socket().await;
    socket.send(1, held(1, LONG_MS).request()).await;
    socket.send(2, Pull::default().request()).await;
    let answer = socket.receive().await.unwrap();
    assert_eq!((answer.opaque, texts(&records(&answer))), (2, vec!["old".to_owned()]));
    peer.send_texts("T", &["new"]).await;
    let answer = socket.receive().await.unwrap();
    assert_eq!((answer.opaque, texts(&records(&answer))), (1, vec!["new".to_owned()]));
    cluster.stop().await;
}

/// Segments of the smallest size that the messages of these tests allow.
fn small_segments(config: &mut BrokerConfig) {
    config.mapped_file_size_commit_log = 16 * 1024;
}

/// Writes topics and groups as a broker that stopped would have left them.
fn write_tables(config: &BrokerConfig, topics: &str, groups: &str) {
    let folder = config.config_folder();
    let disk = Disk::real();
    disk.make_folder(&folder).unwrap();
    disk.replace(&folder.join("topics.json"), topics.as_bytes()).unwrap();
    disk.replace(&folder.join("subscriptionGroup.json"), groups.as_bytes()).unwrap();
}
