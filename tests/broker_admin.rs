//! What operators ask of a broker, as Apache's admin tools put it on the wire.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate::broker;
use quorate::config::{self, Environment, Sources};
use quorate::env::{Clock, Disk};
use quorate::model::{MessageQueue, SubscriptionGroupConfig, Topic, TopicConfig};
use quorate::remoting::body::*;
use quorate::remoting::header::*;
use quorate::remoting::{Client, ClientConfig, Command, RequestCode, frame, json};
use serde::de::DeserializeOwned;

use crate::harness::{Socket, TestCluster, broker_port, wait};

async fn start() -> TestCluster {
    TestCluster::start().await
}

/// Sends a request that must succeed.
async fn ok(cluster: &TestCluster, request: Command) -> Command {
    let code = request.code;
    let answer = cluster.call(request).await;
    assert_eq!(answer.code, 0, "{code}: {:?}", answer.remark);
    answer
}

/// Sends a request that must fail, and returns code and remark.
async fn refused(cluster: &TestCluster, request: Command) -> (i32, String) {
    let answer = cluster.call(request).await;
    assert_ne!(answer.code, 0);
    (answer.code, answer.remark.unwrap_or_default())
}

/// Sends a request and reads the body of its answer.
async fn ask<T: DeserializeOwned>(cluster: &TestCluster, request: Command) -> T {
    ok(cluster, request).await.json().unwrap()
}

fn request(code: RequestCode, fields: &[(&str, &str)]) -> Command {
    fields.iter().fold(Command::request(code), |request, (key, value)| request.with_field(key, value))
}

fn update_topic(topic: &str, queues: u32, attributes: &str) -> Command {
    let queues = queues.to_string();
    request(
        RequestCode::UpdateAndCreateTopic,
        &[
            ("topic", topic),
            ("defaultTopic", "TBW102"),
            ("readQueueNums", &queues),
            ("writeQueueNums", &queues),
            ("perm", "6"),
            ("topicFilterType", "SINGLE_TAG"),
            ("topicSysFlag", "0"),
            ("order", "false"),
            ("attributes", attributes),
        ],
    )
}

fn send(topic: &str, queue_id: u32, tag: &str) -> Command {
    request(
        RequestCode::SendMessageV2,
        &[
            ("a", "P"),
            ("b", topic),
            ("c", "TBW102"),
            ("d", "4"),
            ("e", &queue_id.to_string()),
            ("f", "0"),
            ("g", "1700000000000"),
            ("h", "0"),
            ("i", &format!("TAGS\u{1}{tag}\u{2}")),
            ("j", "0"),
            ("k", "false"),
            ("m", "false"),
        ],
    )
    .with_body("hello")
}

fn commit(group: &str, topic: &str, queue_id: u32, offset: u64) -> Command {
    request(
        RequestCode::UpdateConsumerOffset,
        &[
            ("consumerGroup", group),
            ("topic", topic),
            ("queueId", &queue_id.to_string()),
            ("commitOffset", &offset.to_string()),
        ],
    )
}

fn pull(group: &str, topic: &str, offset: u64, hold_ms: u64) -> Command {
    let flags = if hold_ms > 0 { "6" } else { "4" };
    request(
        RequestCode::PullMessage,
        &[
            ("consumerGroup", group),
            ("topic", topic),
            ("queueId", "0"),
            ("queueOffset", &offset.to_string()),
            ("maxMsgNums", "32"),
            ("sysFlag", flags),
            ("commitOffset", "0"),
            ("suspendTimeoutMillis", &hold_ms.to_string()),
            ("subscription", "*"),
            ("subVersion", "0"),
            ("expressionType", "TAG"),
        ],
    )
}

fn group(name: &str) -> Command {
    let config = SubscriptionGroupConfig::new(name.into());
    Command::request(RequestCode::UpdateAndCreateSubscriptiongroup).with_json(&config)
}

fn get_topic(topic: &str) -> Command {
    request(RequestCode::GetTopicConfig, &[("topic", topic)])
}

async fn send_many(cluster: &TestCluster, topic: &str, count: usize) {
    for _ in 0..count {
        ok(cluster, send(topic, 0, "A")).await;
    }
    let max = request(RequestCode::GetMaxOffset, &[("topic", topic), ("queueId", "0")]);
    wait("all messages can be read", async || {
        let answer: OffsetResponseHeader = ok(cluster, max.clone()).await.header().unwrap();
        (answer.offset == i64::try_from(count).unwrap()).then_some(())
    })
    .await;
}

fn queue(topic: &str, queue_id: i32) -> MessageQueue {
    MessageQueue { broker_name: "broker-a".into(), queue_id, topic: topic.into() }
}

/// Connects a consumer, which answers what the broker asks, and tells the broker who it is.
async fn join(cluster: &TestCluster, client_id: &str, group: &str, topic: &str) -> Socket {
    let mut socket = cluster.socket().await;
    let body = format!(
        r#"{{"clientID":"{client_id}","consumerDataSet":[{{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",
        "consumeType":"CONSUME_PASSIVELY","groupName":"{group}","messageModel":"CLUSTERING",
        "subscriptionDataSet":[{{"subString":"A || B","subVersion":1,"tagsSet":["A","B"],"topic":"{topic}"}}]}}],
        "producerDataSet":[{{"groupName":"P"}}]}}"#
    );
    let heartbeat = Command::request(RequestCode::HeartBeat).with_body(body);
    // The broker may tell of the new member before it answers.
    assert_eq!(socket.ask(77, heartbeat).await.0.code, 0);
    socket
}

fn answer(body: &str) -> Command {
    Command::response(quorate::remoting::ResponseCode::Success).with_body(body.to_owned())
}

#[tokio::test]
async fn a_topic_is_made_changed_and_deleted() {
    let cluster = start().await;
    ok(&cluster, update_topic("T", 3, "+message.type=FIFO")).await;
    // The name server knows when the broker has answered.
    let route = request(RequestCode::GetRouteinfoByTopic, &[("topic", "T")]);
    assert_eq!(cluster.ask_namesrv(route.clone()).await.code, 0);
    let config: TopicConfig = ask(&cluster, get_topic("T")).await;
    assert_eq!((config.read_queue_nums, config.write_queue_nums, config.perm.0), (3, 3, 6));
    assert_eq!(config.attributes, BTreeMap::from([("message.type".into(), "FIFO".into())]));

    ok(&cluster, update_topic("T", 5, "-message.type")).await;
    let config: TopicConfig = ask(&cluster, get_topic("T")).await;
    assert_eq!((config.read_queue_nums, config.attributes.len()), (5, 0));

    send_many(&cluster, "T", 2).await;
    ok(&cluster, commit("TOOLS_CONSUMER", "T", 0, 2)).await;
    let delete = request(RequestCode::DeleteTopicInBroker, &[("topic", "T")]);
    ok(&cluster, delete.clone()).await;
    ok(&cluster, delete).await;
    assert_eq!(refused(&cluster, get_topic("T")).await.0, 17);
    ok(&cluster, update_topic("T", 1, "")).await;
    let sent: SendMessageResponseHeader = ok(&cluster, send("T", 0, "A")).await.header().unwrap();
    assert_eq!(sent.queue_offset, 0);
    let query = request(
        RequestCode::QueryConsumerOffset,
        &[
            ("consumerGroup", "TOOLS_CONSUMER"),
            ("topic", "T"),
            ("queueId", "0"),
            ("setZeroIfNotFound", "false"),
        ],
    );
    assert_eq!(refused(&cluster, query).await.0, 22);
    cluster.stop().await;
}

#[tokio::test]
async fn topics_that_may_not_be_are_refused_with_the_codes_of_java() {
    let cluster = start().await;
    ok(&cluster, update_topic("T", 1, "+queue.type=SimpleCQ")).await;
    let conflict = |topic: &str| format!("The topic[{topic}] is conflict with system topic.");
    for (wrong, code, remark) in [
        (
            update_topic("bad name", 1, ""),
            29,
            "The specified topic: bad name, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
                .to_owned(),
        ),
        (update_topic("", 1, ""), 29, "The specified topic is blank.".to_owned()),
        (update_topic("SCHEDULE_TOPIC_XXXX", 1, ""), 29, conflict("SCHEDULE_TOPIC_XXXX")),
        (update_topic("DefaultCluster", 1, ""), 29, conflict("DefaultCluster")),
        (update_topic("U", 0, ""), 29, "readQueueNums[0] is not in 1..=65535".to_owned()),
        (update_topic("U", 65_536, ""), 29, "readQueueNums[65536] is not in 1..=65535".to_owned()),
        (update_topic("U", 1, "").with_field("perm", "8"), 29, "perm[8] is not in 0..=7".to_owned()),
        (update_topic("U", 1, "+message.type=MIXED"), 29, "MIXED message type is not supported.".to_owned()),
        (update_topic("U", 1, "+colour=red"), 1, "unsupported key: colour".to_owned()),
        (
            update_topic("T", 1, "-queue.type"),
            1,
            "attempt to update an unchangeable attribute. key: queue.type".to_owned(),
        ),
        (request(RequestCode::DeleteTopicInBroker, &[("topic", "TBW102")]), 29, conflict("TBW102")),
        (
            request(RequestCode::DeleteTopicInBroker, &[("topic", "../commitlog")]),
            29,
            "The specified topic: ../commitlog, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
                .into(),
        ),
        (
            request(RequestCode::DeleteTopicInBroker, &[("topic", " ")]),
            29,
            "The specified topic is blank.".to_owned(),
        ),
        (
            group("g g"),
            29,
            "The specified group: g g, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$"
                .to_owned(),
        ),
    ] {
        assert_eq!(refused(&cluster, wrong).await, (code, remark));
    }
    assert_eq!(refused(&cluster, get_topic("U")).await.0, 17);
    cluster.stop().await;
}

#[tokio::test]
async fn topics_are_made_in_lists_and_listed_in_parts() {
    let cluster = start().await;
    let list = |names: &[&str]| {
        let topic = |name: &&str| TopicConfig { topic_name: Topic::new(name), ..TopicConfig::default() };
        let body = CreateTopicListRequestBody { topic_config_list: names.iter().map(topic).collect() };
        Command::request(RequestCode::UpdateAndCreateTopicList).with_json(&body)
    };
    assert_eq!(refused(&cluster, list(&["A", "no good"])).await.0, 29);
    assert_eq!(refused(&cluster, get_topic("A")).await.0, 17);
    ok(&cluster, list(&["A"])).await;
    ok(&cluster, list(&["A", "B"])).await;

    let all = ok(&cluster, Command::request(RequestCode::GetAllTopicConfig)).await;
    let total = all.header::<GetAllTopicConfigResponseHeader>().unwrap().total_topic_num.unwrap();
    let table: TopicConfigAndMappingSerializeWrapper = all.json().unwrap();
    assert_eq!(usize::try_from(total).unwrap(), table.topic_config_table.len());
    assert!(table.topic_config_table.contains_key("A") && table.topic_config_table.contains_key("B"));
    let version = String::from_utf8(json::to_vec(&table.data_version)).unwrap();
    let part = request(
        RequestCode::GetAllTopicConfig,
        &[("topicSeq", "1"), ("maxTopicNum", "2"), ("dataVersion", &version)],
    );
    let part: TopicConfigAndMappingSerializeWrapper = ask(&cluster, part).await;
    let expected: Vec<_> = table.topic_config_table.into_keys().skip(1).take(2).collect();
    assert_eq!(part.topic_config_table.into_keys().collect::<Vec<_>>(), expected);

    let system: TopicList = ask(&cluster, Command::request(RequestCode::GetSystemTopicListFromBroker)).await;
    for name in ["TBW102", "DefaultCluster", "broker-a", "DefaultCluster_REPLY_TOPIC", "SELF_TEST_TOPIC"] {
        assert!(system.topic_list.contains(&Topic::new(name)), "{name}");
    }
    assert!(!system.topic_list.contains(&Topic::new("A")));
    cluster.stop().await;
}

#[tokio::test]
async fn a_group_is_made_changed_forbidden_and_deleted() {
    let cluster = start().await;
    let get = request(RequestCode::GetSubscriptiongroupConfig, &[("group", "G")]);
    let config = SubscriptionGroupConfig { retry_max_times: 3, ..SubscriptionGroupConfig::new("G".into()) };
    let update = Command::request(RequestCode::UpdateAndCreateSubscriptiongroup).with_json(&config);
    ok(&cluster, update).await;
    assert_eq!(ask::<SubscriptionGroupConfig>(&cluster, get.clone()).await, config);
    let body = SubscriptionGroupList {
        group_config_list: vec![SubscriptionGroupConfig::new("H".into()), config.clone()],
    };
    ok(&cluster, Command::request(RequestCode::UpdateAndCreateSubscriptiongroupList).with_json(&body)).await;

    let forbid = |readable: Option<&str>| {
        let asked = request(RequestCode::UpdateAndGetGroupForbidden, &[("group", "G"), ("topic", "T")]);
        readable.into_iter().fold(asked, |asked, readable| asked.with_field("readable", readable))
    };
    for (change, readable) in [(None, true), (Some("false"), false), (None, false), (Some("true"), true)] {
        let answer: GroupForbidden = ask(&cluster, forbid(change)).await;
        assert_eq!(answer.readable, Some(readable), "{change:?}");
    }

    ok(&cluster, update_topic("T", 1, "")).await;
    ok(&cluster, commit("G", "T", 0, 5)).await;
    ok(&cluster, commit("H", "T", 0, 5)).await;
    let delete = |name: &str, clean: (&str, &str)| {
        request(RequestCode::DeleteSubscriptiongroup, &[("groupName", name), clean])
    };
    ok(&cluster, delete("G", ("cleanOffset", "true"))).await;
    // Clients before 5.0 have another name for it.
    ok(&cluster, delete("H", ("removeOffset", "false"))).await;
    let all: SubscriptionGroupWrapper =
        ask(&cluster, Command::request(RequestCode::GetAllSubscriptiongroupConfig)).await;
    assert!(!all.subscription_group_table.contains_key("G"));
    let who = request(RequestCode::QueryTopicConsumeByWho, &[("topic", "T")]);
    assert_eq!(ask::<GroupList>(&cluster, who).await.group_list, ["H".into()]);
    let topics = request(RequestCode::QueryTopicsByConsumer, &[("group", "H")]);
    let topics: TopicList = ask(&cluster, topics).await;
    assert_eq!((topics.topic_list, topics.broker_addr), (vec!["T".into()], Some(cluster.broker_addr())));
    cluster.stop().await;
}

#[tokio::test]
async fn progress_is_told_by_queue() {
    let cluster = start().await;
    ok(&cluster, update_topic("T", 2, "")).await;
    ok(&cluster, group("G")).await;
    send_many(&cluster, "T", 4).await;
    ok(&cluster, commit("G", "T", 0, 3)).await;
    assert_eq!(cluster.call(pull("G", "T", 0, 0)).await.code, 0);

    let stats: TopicStatsTable =
        ask(&cluster, request(RequestCode::GetTopicStatsInfo, &[("topic", "T")])).await;
    assert_eq!(stats.offset_table.len(), 2);
    let first = stats.offset_table[&queue("T", 0)];
    assert_eq!((first.min_offset, first.max_offset), (0, 4));
    assert!(first.last_update_timestamp > 1_700_000_000_000 && stats.topic_put_tps > 0.0);
    assert_eq!(stats.offset_table[&queue("T", 1)], TopicOffset::default());
    let unknown = request(RequestCode::GetTopicStatsInfo, &[("topic", "U")]);
    assert_eq!(refused(&cluster, unknown).await.0, 17);

    let of_group = request(RequestCode::GetConsumeStats, &[("consumerGroup", "G")]);
    let progress: ConsumeStats = ask(&cluster, of_group.clone()).await;
    let offsets = progress.offset_table[&queue("T", 0)];
    assert_eq!((offsets.broker_offset, offsets.consumer_offset, offsets.pull_offset), (4, 3, 4));
    assert!(offsets.last_timestamp > 1_700_000_000_000);
    let none: ConsumeStats = ask(&cluster, of_group.with_field("topicList", "U;V")).await;
    assert!(none.offset_table.is_empty());

    let span = request(RequestCode::QueryConsumeTimeSpan, &[("topic", "T"), ("group", "G")]);
    let span: QueryConsumeTimeSpanBody = ask(&cluster, span).await;
    let [first, second] = &span.consume_time_span_set[..] else { panic!("{span:?}") };
    assert!(first.min_time_stamp > 0 && first.min_time_stamp <= first.consume_time_stamp);
    assert!(first.consume_time_stamp <= first.max_time_stamp && first.delay_time >= 0);
    assert_eq!((second.min_time_stamp, second.max_time_stamp, second.delay_time), (-1, -1, 0));

    let table: ConsumerOffsetSerializeWrapper =
        ask(&cluster, Command::request(RequestCode::GetAllConsumerOffset)).await;
    assert_eq!(table.offset_table["T@G"], BTreeMap::from([(0, 3)]));
    let delays = Command::request(RequestCode::GetAllDelayOffset);
    assert!(ask::<DelayOffsetSerializeWrapper>(&cluster, delays).await.offset_table.is_empty());

    let all = request(RequestCode::GetBrokerConsumeStats, &[("isOrder", "false")]);
    let all: ConsumeStatsList = ask(&cluster, all).await;
    assert_eq!((all.total_diff, all.total_inflight_diff), (1, 1));
    assert!(all.consume_stats_list.iter().any(|one| one.get("G").is_some_and(|stats| stats.len() == 1)));
    cluster.stop().await;
}

#[tokio::test]
async fn entries_of_a_queue_are_shown_as_they_are() {
    let cluster = start().await;
    ok(&cluster, update_topic("T", 1, "")).await;
    send_many(&cluster, "T", 4).await;
    let query = |index: &str, count: &str| {
        request(
            RequestCode::QueryConsumeQueue,
            &[("topic", "T"), ("queueId", "0"), ("index", index), ("count", count)],
        )
    };
    let body: QueryConsumeQueueResponseBody = ask(&cluster, query("1", "2")).await;
    assert_eq!((body.min_queue_index, body.max_queue_index, body.queue_data.len()), (0, 4, 2));
    assert_eq!(body.queue_data[0].tags_code, 65);
    assert_eq!(
        body.queue_data[1].physic_offset,
        body.queue_data[0].physic_offset + i64::from(body.queue_data[0].physic_size)
    );
    let body: QueryConsumeQueueResponseBody =
        ask(&cluster, query("3", "99").with_field("consumerGroup", "G")).await;
    assert_eq!((body.queue_data.len(), body.filter_data.as_deref()), (1, Some("G@T is not online!")));
    let outside = ok(&cluster, query("4", "1")).await;
    assert_eq!(outside.remark.as_deref(), Some("Index 4 of 0@T is not exist!"));
    let absent = query("0", "1").with_field("queueId", "1");
    assert_eq!(refused(&cluster, absent).await, (1, "1@T is not exist!".to_owned()));
    cluster.stop().await;
}

#[tokio::test]
async fn connected_clients_are_listed_and_asked() {
    let cluster = start().await;
    ok(&cluster, update_topic("T", 1, "")).await;
    let sent: SendMessageResponseHeader = ok(&cluster, send("T", 0, "A")).await.header().unwrap();
    let connections = request(RequestCode::GetConsumerConnectionList, &[("consumerGroup", "G")]);
    let offline = (206, "the consumer group[G] not online".to_owned());
    assert_eq!(refused(&cluster, connections.clone()).await, offline);
    let producers = request(RequestCode::GetProducerConnectionList, &[("producerGroup", "P")]);
    let unknown = (1, "the producer group[P] not exist".to_owned());
    assert_eq!(refused(&cluster, producers.clone()).await, unknown);

    let mut consumer = join(&cluster, "c1", "G", "T").await;
    let address = consumer.address().to_string();
    let list: ConsumerConnection = ask(&cluster, connections).await;
    assert_eq!(list.connection_set[0].client_id, "c1");
    assert_eq!(list.connection_set[0].client_addr, address);
    assert_eq!(list.consume_type, ConsumeType::Passively);
    assert_eq!(list.subscription_table["T"].sub_string.as_deref(), Some("A || B"));
    let list: ProducerConnection = ask(&cluster, producers).await;
    assert_eq!(list.connection_set.len(), 1);
    let all: ProducerTableInfo = ask(&cluster, Command::request(RequestCode::GetAllProducerInfo)).await;
    assert_eq!(all.data["P"][0].remote_ip, format!("/{address}"));
    let subscription = request(RequestCode::QuerySubscriptionByConsumer, &[("group", "G"), ("topic", "T")]);
    let subscription: QuerySubscriptionResponseBody = ask(&cluster, subscription).await;
    assert_eq!(subscription.subscription_data.unwrap().tags_set.len(), 2);

    let running = |client: &str| {
        request(
            RequestCode::GetConsumerRunningInfo,
            &[("consumerGroup", "G"), ("clientId", client), ("jstackEnable", "true")],
        )
    };
    let nobody = (1, "The Consumer <G> <c2> not online".to_owned());
    assert_eq!(refused(&cluster, running("c2")).await, nobody);
    // Java's text, which no strict reader of JSON takes, comes back as it is.
    let text = r#"{"mqTable":{{"brokerName":"b","queueId":0,"topic":"T"}:{}}}"#;
    let (asked, told) = tokio::join!(
        consumer.answer(RequestCode::GetConsumerRunningInfo, |_| answer(text)),
        ok(&cluster, running("c1"))
    );
    assert_eq!(asked.ext_fields.get("jstackEnable"), Some("true"));
    assert_eq!(told.body.to_bytes(), text.as_bytes());

    let directly = request(
        RequestCode::ConsumeMessageDirectly,
        &[("consumerGroup", "G"), ("clientId", "c1"), ("topic", "T"), ("msgId", &sent.msg_id)],
    );
    let (asked, told) = tokio::join!(
        consumer.answer(RequestCode::ConsumeMessageDirectly, |_| answer("{}")),
        ok(&cluster, directly.clone())
    );
    assert_eq!(asked.ext_fields.get("brokerName"), Some("broker-a"));
    assert_eq!(asked.ext_fields.get("topicSysFlag"), Some("0"));
    assert!(asked.body.to_bytes().windows(5).any(|bytes| bytes == b"hello"));
    assert_eq!(told.body.to_bytes(), Bytes::from_static(b"{}"));
    assert_eq!(refused(&cluster, directly.with_field("msgId", "odd")).await.0, 29);

    let status = request(
        RequestCode::InvokeBrokerToGetConsumerStatus,
        &[("topic", "T"), ("group", "G"), ("clientAddr", "")],
    );
    let text = r#"{"messageQueueTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:7}}"#;
    let (asked, told) = tokio::join!(
        consumer.answer(RequestCode::GetConsumerStatusFromClient, |_| answer(text)),
        ok(&cluster, status.clone())
    );
    assert_eq!(asked.ext_fields.get("group"), Some("G"));
    let told: GetConsumerStatusBody = told.json().unwrap();
    assert_eq!(told.consumer_table["c1"][&queue("T", 0)], 7);
    drop(consumer);
    wait("the consumer is forgotten", async || (cluster.call(status.clone()).await.code == 1).then_some(()))
        .await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_reset_reaches_a_held_pull_and_cannot_be_undone_by_a_commit() {
    let cluster = start().await;
    ok(&cluster, update_topic("T", 1, "")).await;
    ok(&cluster, group("G")).await;
    send_many(&cluster, "T", 3).await;
    ok(&cluster, commit("G", "T", 0, 3)).await;
    let reset = |fields: &[(&str, &str)]| {
        let all = [&[("topic", "T"), ("group", "G"), ("isForce", "true")], fields].concat();
        request(RequestCode::InvokeBrokerToResetOffset, &all)
    };
    let committed = request(
        RequestCode::QueryConsumerOffset,
        &[("consumerGroup", "G"), ("topic", "T"), ("queueId", "0")],
    );

    // The pull waits for a fourth message; it would for a minute.
    let (client, address) = (cluster.client.clone(), cluster.broker_addr());
    let held = tokio::spawn(async move {
        client.call(&address, pull("G", "T", 3, 60_000), Duration::from_secs(20)).await.unwrap()
    });
    let answered: ResetOffsetBody = wait("the reset is answered", async || {
        // Only a pull that is held already can be woken, and nobody says when it is.
        let body = ask(&cluster, reset(&[("timestamp", "1"), ("queueId", "-1"), ("offset", "-1")])).await;
        held.is_finished().then_some(body)
    })
    .await;
    assert_eq!(answered.offset_table, BTreeMap::from([(queue("T", 0), 0)]));
    let moved = held.await.unwrap();
    assert_eq!((moved.code, moved.remark.as_deref()), (21, Some("OFFSET_RESET")));
    assert_eq!(moved.header::<PullMessageResponseHeader>().unwrap().next_begin_offset, 0);
    let offset: OffsetResponseHeader = ok(&cluster, committed.clone()).await.header().unwrap();
    assert_eq!(offset.offset, 0);

    // 4.x tools name neither queue nor offset.
    ok(&cluster, reset(&[("timestamp", "-1")])).await;
    ok(&cluster, commit("G", "T", 0, 1)).await;
    let offset: OffsetResponseHeader = ok(&cluster, committed.clone()).await.header().unwrap();
    assert_eq!(offset.offset, 3);
    ok(&cluster, reset(&[("timestamp", "0"), ("queueId", "0"), ("offset", "2")])).await;
    let offset: OffsetResponseHeader = ok(&cluster, committed).await.header().unwrap();
    assert_eq!(offset.offset, 2);
    let outside = reset(&[("timestamp", "0"), ("queueId", "0"), ("offset", "5")]);
    let text = "Target offset 5 not in consume queue range [0-3]".to_owned();
    assert_eq!(refused(&cluster, outside).await, (1, text));
    for (field, value, code) in [("topic", "U", 17), ("group", "H", 26)] {
        let wrong = reset(&[("timestamp", "-1")]).with_field(field, value);
        assert_eq!(refused(&cluster, wrong).await.0, code);
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_reset_is_told_to_clients_where_the_server_does_not_keep_it() {
    let cluster =
        TestCluster::start_with(|config| config.use_server_side_reset_offset = false, Disk::real()).await;
    ok(&cluster, update_topic("T", 1, "")).await;
    send_many(&cluster, "T", 3).await;
    let reset = request(
        RequestCode::InvokeBrokerToResetOffset,
        &[("topic", "T"), ("group", "G"), ("isForce", "false"), ("timestamp", "-1")],
    );
    let unknown = (1, "THe consumer group <G> not exist".to_owned());
    assert_eq!(refused(&cluster, reset.clone()).await, unknown);
    ok(&cluster, group("G")).await;
    ok(&cluster, commit("G", "T", 0, 1)).await;
    assert_eq!(refused(&cluster, reset.clone()).await.0, 206);
    let mut consumer = join(&cluster, "c1", "G", "T").await;
    let answered: ResetOffsetBody = ask(&cluster, reset).await;
    // Without force no offset moves forward.
    assert_eq!(answered.offset_table[&queue("T", 0)], 1);
    let told = loop {
        let told = consumer.receive().await.expect("the broker closed");
        if told.request_code() == Some(RequestCode::ResetConsumerClientOffset) {
            break told;
        }
    };
    assert!(told.is_oneway());
    assert_eq!(told.json::<ResetOffsetBody>().unwrap(), answered);
    cluster.stop().await;
}

#[tokio::test]
async fn offsets_are_cloned_and_compared() {
    let cluster = start().await;
    ok(&cluster, update_topic("T", 2, "")).await;
    for name in ["G", "H", "I"] {
        ok(&cluster, group(name)).await;
    }
    ok(&cluster, commit("G", "T", 0, 4)).await;
    ok(&cluster, commit("G", "T", 1, 9)).await;
    let clone = request(
        RequestCode::CloneGroupOffset,
        &[("srcGroup", "G"), ("destGroup", "H"), ("topic", "T"), ("offline", "true")],
    );
    ok(&cluster, clone).await;
    let progress = request(RequestCode::GetConsumeStats, &[("consumerGroup", "H")]);
    let progress: ConsumeStats = ask(&cluster, progress).await;
    let offsets: Vec<_> = progress.offset_table.values().map(|one| one.consumer_offset).collect();
    assert_eq!(offsets, [4, 9]);

    ok(&cluster, commit("I", "T", 0, 2)).await;
    let correct = |filter: &str| {
        request(
            RequestCode::QueryCorrectionOffset,
            &[("filterGroups", filter), ("compareGroup", "I"), ("topic", "T")],
        )
    };
    let all: QueryCorrectionOffsetBody = ask(&cluster, correct("")).await;
    assert_eq!(all.correction_offsets, BTreeMap::from([(0, 2), (1, 9)]));
    let filtered: QueryCorrectionOffsetBody = ask(&cluster, correct("I")).await;
    assert_eq!(filtered.correction_offsets, BTreeMap::from([(0, i64::MAX), (1, 9)]));
    // Java would have forgotten the offsets of I by this.
    let again: QueryCorrectionOffsetBody = ask(&cluster, correct("")).await;
    assert_eq!(again, all);
    cluster.stop().await;
}

#[tokio::test]
async fn settings_change_at_once_and_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker.conf");
    let port = broker_port();
    let text = format!(
        "# kept\nbrokerName=broker-a\nbrokerIP1=127.0.0.1\nbindAddress=127.0.0.1\nlistenPort={port}\n\
         storePathRootDir={}\nmappedFileSizeCommitLog=1048576\nmaxHashSlotNum=1000\nmaxIndexNum=4000\n\
         transactionCheckMax=15\n",
        folder.path().join("store").display()
    );
    Disk::real().replace(&path, text.as_bytes()).unwrap();
    let environment = Environment { home: Some(folder.path().to_owned()), ..Environment::default() };
    let sources = Sources { file: Some(path.clone()), environment, ..Sources::default() };
    let loaded = config::load(&sources, &Disk::real()).unwrap();
    let running = broker::start(loaded, Disk::real(), Clock::system()).await.unwrap();
    let address = running.address().to_string();
    let client = Client::new(ClientConfig::default());
    let call =
        async |request: Command| client.call(&address, request, Duration::from_secs(10)).await.unwrap();
    let update = async |text: &str| {
        call(Command::request(RequestCode::UpdateBrokerConfig).with_body(text.to_owned())).await
    };
    let get = async || {
        let answer = call(Command::request(RequestCode::GetBrokerConfig)).await;
        let header: GetBrokerConfigResponseHeader = answer.header().unwrap();
        (header.version, String::from_utf8(answer.body.to_bytes().to_vec()).unwrap())
    };

    let (version, before) = get().await;
    assert!(version.starts_with(r#"{"counter":0,"#), "{version}");
    assert!(before.contains("transactionCheckMax=15\n") && before.contains("deleteWhen=04\n"));
    assert_eq!(update("transactionCheckMax=14\nlistenPort=1234\nfileReservedTime=1\n").await.code, 0);
    let (version, after) = get().await;
    assert!(version.starts_with(r#"{"counter":1,"#), "{version}");
    assert!(after.contains("transactionCheckMax=14\n") && after.contains("listenPort=1234\n"));
    assert_eq!(running.config().transaction_check_max, 14);
    assert_eq!(running.config().listen_port, port);

    for (text, code, remark) in [
        ("transactionCheckMax=13\nrocketmqHome=/x\n", 16, "Can not update config in black list."),
        ("transactionCheckMax=13\ntransactionCheckMaxx=13\n", 29, "did you mean transactionCheckMax?"),
        ("transactionCheckMax=many\n", 29, "transactionCheckMax=many"),
    ] {
        let answer = update(text).await;
        assert_eq!(answer.code, code, "{text}");
        assert!(answer.remark.unwrap().contains(remark), "{text}");
    }
    assert_eq!(get().await, (version, after));
    running.stop().await.unwrap();

    let file = String::from_utf8(Disk::real().read(&path).unwrap()).unwrap();
    assert!(file.starts_with("# kept\n"), "{file}");
    for line in ["transactionCheckMax=14", "listenPort=1234", "fileReservedTime=1"] {
        assert_eq!(file.lines().filter(|known| *known == line).count(), 1, "{line} in {file}");
    }
}

#[tokio::test]
async fn the_runtime_table_has_every_key_that_apache_s_has() {
    let cluster = start().await;
    ok(&cluster, update_topic("T", 1, "")).await;
    ok(&cluster, group("G")).await;
    send_many(&cluster, "T", 3).await;
    assert_eq!(cluster.call(pull("G", "T", 0, 0)).await.code, 0);
    assert_eq!(cluster.call(pull("G", "T", 3, 0)).await.code, 19);
    let ours: KvTable = ask(&cluster, Command::request(RequestCode::GetBrokerRuntimeInfo)).await;

    let captured = include_bytes!("wire/java-5.5.0/0028-GET_BROKER_RUNTIME_INFO-response.bin");
    let captured = frame::decode(&mut BytesMut::from(&captured[..]), 1 << 24).unwrap().unwrap();
    let theirs: KvTable = captured.json().unwrap();
    assert!(theirs.table.len() > 50);
    for key in theirs.table.keys().filter(|key| !key.starts_with("commitLogDiskRatio_")) {
        assert!(ours.table.contains_key(key), "{key} is missing");
    }
    let number = |key: &str| ours.table[key].parse::<f64>().unwrap();
    assert_eq!((number("putMessageTimesTotal"), number("msgPutTotalTodayNow")), (3.0, 3.0));
    assert_eq!((number("msgGetTotalTodayNow"), number("dispatchBehindBytes")), (3.0, 0.0));
    assert!(number("commitLogMaxOffset") > 0.0 && number("earliestMessageTimeStamp") > 1.7e12);
    assert!((0.0..=1.0).contains(&number("commitLogDiskRatio")));
    for key in ["putTps", "getTotalTps", "getMissTps", "getTransferredTps"] {
        let rates: Vec<f64> = ours.table[key].split(' ').map(|rate| rate.parse().unwrap()).collect();
        assert!(rates.len() == 3 && rates[0] > 0.0, "{key}: {rates:?}");
    }
    assert_eq!(ours.table["brokerVersionDesc"], "V5_5_0");
    assert_eq!(ours.table["scheduleMessageOffset_18"], "0,0");
    cluster.stop().await;
}

#[tokio::test]
async fn statistics_are_told_by_name_and_key() {
    let cluster = start().await;
    ok(&cluster, update_topic("T", 1, "")).await;
    ok(&cluster, group("G")).await;
    send_many(&cluster, "T", 3).await;
    assert_eq!(cluster.call(pull("G", "T", 1, 0)).await.code, 0);
    let view = |name: &str, key: &str| {
        request(RequestCode::ViewBrokerStatsData, &[("statsName", name), ("statsKey", key)])
    };
    for (name, key, sum) in [
        ("TOPIC_PUT_NUMS", "T", 3),
        ("GROUP_GET_NUMS", "T@G", 2),
        ("BROKER_PUT_NUMS", "DefaultCluster", 3),
        ("QUEUE_GET_NUMS", "T@0@G", 2),
    ] {
        let data: BrokerStatsData = ask(&cluster, view(name, key)).await;
        assert_eq!((data.stats_minute.sum, data.stats_day.sum), (sum, sum), "{name}");
    }
    let absent = (1, "The stats <TOPIC_PUT_NUMS> <U> not exist".to_owned());
    assert_eq!(refused(&cluster, view("TOPIC_PUT_NUMS", "U")).await, absent);
    ok(&cluster, request(RequestCode::DeleteTopicInBroker, &[("topic", "T")])).await;
    assert_eq!(refused(&cluster, view("TOPIC_PUT_NUMS", "T")).await.0, 1);
    cluster.stop().await;
}

#[tokio::test]
async fn cleaning_leaves_what_is_in_use() {
    let cluster = start().await;
    ok(&cluster, update_topic("T", 1, "")).await;
    ok(&cluster, group("G")).await;
    send_many(&cluster, "T", 3).await;
    for code in [
        RequestCode::CleanExpiredConsumequeue,
        RequestCode::CleanUnusedTopic,
        RequestCode::DeleteExpiredCommitlog,
    ] {
        ok(&cluster, Command::request(code)).await;
    }
    let found = cluster.call(pull("G", "T", 0, 0)).await;
    let header: PullMessageResponseHeader = found.header().unwrap();
    assert_eq!((found.code, header.min_offset, header.next_begin_offset), (0, 0, 3));
    cluster.stop().await;
}

#[tokio::test]
async fn expired_segments_go_on_demand_as_soon_as_the_setting_says() {
    let change = |config: &mut config::BrokerConfig| {
        config.mapped_file_size_commit_log = 64 << 10;
        // Neither its hour nor the state of the disk lets the store do it by itself.
        config.delete_when = String::new();
        config.disk_max_used_space_ratio = 95;
        config.clean_resource_interval = 3_600_000;
    };
    let cluster = TestCluster::start_with(change, Disk::real()).await;
    ok(&cluster, update_topic("T", 1, "")).await;
    for _ in 0..40 {
        ok(&cluster, send("T", 0, "A").with_body(vec![b'x'; 8 << 10])).await;
    }
    let delete = Command::request(RequestCode::DeleteExpiredCommitlog);
    let min_offset = async || {
        let min = request(RequestCode::GetMinOffset, &[("topic", "T"), ("queueId", "0")]);
        ok(&cluster, min).await.header::<OffsetResponseHeader>().unwrap().offset
    };
    ok(&cluster, delete.clone()).await;
    assert_eq!(min_offset().await, 0);
    let settings = Command::request(RequestCode::UpdateBrokerConfig).with_body("fileReservedTime=0\n");
    ok(&cluster, settings).await;
    wait("a checkpoint lets a segment go", async || {
        ok(&cluster, delete.clone()).await;
        (min_offset().await > 0).then_some(())
    })
    .await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_broker_without_replicas_is_a_master_without_slaves() {
    let cluster = start().await;
    let status: HaRuntimeInfo = ask(&cluster, Command::request(RequestCode::GetBrokerHaStatus)).await;
    assert!(status.master && status.ha_connection_info.is_empty());
    assert!(status.master_commit_log_max_offset >= 0);
    cluster.stop().await;
}
