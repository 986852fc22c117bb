//! Stores in RocketMQ's formats, both ways: ours opens what Apache's broker wrote, and Apache's opens what ours wrote.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};

use quorate::config::BrokerConfig;
use quorate::env::Disk;
use quorate::message::{BatchMessage, encode_batch};
use quorate::model::TopicConfig;
use quorate::remoting::{Command, RequestCode};
use serde_json::Value;

use crate::harness::{
    Consumer, Outgoing, Peer, Processes, Received, TestCluster, property_string, records, source_path, wait,
};

// What Apache's broker wrote, opened by ours.

/// What the manifest beside an archive says of one record.
#[derive(Debug)]
struct Expected {
    topic: String,
    queue_id: i32,
    queue_offset: u64,
    position: u64,
    size: usize,
    keys: Option<String>,
    tag: Option<String>,
    flag: i32,
    sys_flag: i32,
    reconsume_times: i32,
    body: Option<String>,
    sha256: Option<String>,
}

struct Manifest {
    settings: Value,
    end: u64,
    consumer_offsets: Vec<(String, String, i32, i64)>,
    messages: Vec<Expected>,
}

impl Manifest {
    fn read(kind: &str) -> Self {
        let path = source_path(&format!("tests/compat/java-5.5.0-{kind}.json"));
        let json: Value = serde_json::from_slice(&Disk::real().read(&path).unwrap()).unwrap();
        let mut consumer_offsets = Vec::new();
        for (name, queues) in json["consumerOffsets"].as_object().unwrap() {
            let (topic, group) = name.split_once('@').unwrap();
            for (queue_id, offset) in queues.as_object().unwrap() {
                let offset = offset.as_i64().unwrap();
                consumer_offsets.push((group.into(), topic.into(), queue_id.parse().unwrap(), offset));
            }
        }
        let messages: Vec<_> = json["messages"].as_array().unwrap().iter().map(expected).collect();
        assert!(messages.len() > 600 && !consumer_offsets.is_empty());
        Self {
            settings: json["config"].clone(),
            end: json["commitLogEnd"].as_u64().unwrap(),
            consumer_offsets,
            messages,
        }
    }

    /// Sets the sizes of files that the archive was written with, and unpacks it.
    fn apply(&self, kind: &str, config: &mut BrokerConfig) {
        let number = |name: &str| self.settings[name].as_str().unwrap().parse().unwrap();
        config.mapped_file_size_commit_log = number("mappedFileSizeCommitLog");
        config.mapped_file_size_consume_queue = number("mappedFileSizeConsumeQueue");
        config.max_hash_slot_num = number("maxHashSlotNum");
        config.max_index_num = number("maxIndexNum");
        config.max_message_size = number("maxMessageSize");
        // The archive's files look as old as time itself.
        config.file_reserved_time = 24 * 365 * 1000;
        // Groups that the tests do not know must have come from the archive.
        config.auto_create_subscription_group = false;
        let store = &config.store_path_root_dir;
        Disk::real().make_folder(store).unwrap();
        let archive = source_path(&format!("tests/compat/java-5.5.0-{kind}.tar.gz"));
        let unpacked = Process::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(store).status().unwrap();
        assert!(unpacked.success());
    }

    /// Returns the messages of each queue, in order.
    fn queues(&self) -> BTreeMap<(&str, i32), Vec<&Expected>> {
        let mut queues: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for message in &self.messages {
            queues.entry((message.topic.as_str(), message.queue_id)).or_default().push(message);
        }
        queues
    }
}

fn expected(json: &Value) -> Expected {
    let text = |name: &str| json.get(name).map(|value| value.as_str().unwrap().to_owned());
    let number = |name: &str| json.get(name).map_or(0, |value| value.as_i64().unwrap());
    let small = |name: &str| i32::try_from(number(name)).unwrap();
    Expected {
        topic: text("topic").unwrap(),
        queue_id: small("queueId"),
        queue_offset: number("queueOffset").cast_unsigned(),
        position: number("physicalOffset").cast_unsigned(),
        size: usize::try_from(number("size")).unwrap(),
        keys: text("key"),
        tag: text("tag"),
        flag: small("flag"),
        sys_flag: small("sysFlag"),
        reconsume_times: small("reconsumeTimes"),
        body: text("body"),
        sha256: text("bodySha256"),
    }
}

fn assert_same(stored: &Received, expected: &Expected) {
    let place = format!("{}/{}/{}", expected.topic, expected.queue_id, expected.queue_offset);
    assert_eq!(
        (&stored.topic, stored.queue_id.cast_signed()),
        (&expected.topic, expected.queue_id),
        "{place}"
    );
    assert_eq!((stored.queue_offset, stored.position), (expected.queue_offset, expected.position), "{place}");
    assert_eq!((stored.size, stored.flag), (expected.size, expected.flag), "{place}");
    assert_eq!(
        (stored.sys_flag, stored.reconsume_times),
        (expected.sys_flag, expected.reconsume_times),
        "{place}"
    );
    assert_eq!(stored.property("KEYS"), expected.keys.as_deref(), "{place}");
    assert_eq!(stored.property("TAGS"), expected.tag.as_deref(), "{place}");
    if let Some(body) = &expected.body {
        assert_eq!(stored.text(), *body, "{place}");
    }
}

/// Compares the bodies that the manifest gives by their sums.
fn check_sums(messages: &[(Received, &Expected)]) {
    let folder = tempfile::tempdir().unwrap();
    let summed: Vec<_> = messages.iter().filter_map(|(m, e)| Some((m, e.sha256.as_ref()?))).collect();
    assert!(summed.len() > 50);
    for (number, (message, _)) in summed.iter().enumerate() {
        let file = Disk::real().open(&folder.path().join(format!("{number:05}")), true).unwrap();
        file.write_all_at(&message.body, 0).unwrap();
    }
    let output = Process::new("sh").current_dir(folder.path()).args(["-c", "sha256sum *"]).output().unwrap();
    let sums = String::from_utf8(output.stdout).unwrap();
    assert_eq!(sums.lines().count(), summed.len());
    for (line, (message, expected)) in sums.lines().zip(&summed) {
        assert_eq!(
            line.split(' ').next(),
            Some(expected.as_str()),
            "{} {}",
            message.topic,
            message.queue_offset
        );
    }
}

/// Checks that all of the manifest is there, with `added` more messages behind each queue.
async fn verify_java(manifest: &Manifest, peer: &Peer, added: usize) {
    let mut found = Vec::new();
    for ((topic, queue_id), expected) in manifest.queues() {
        let stored = peer.queue(topic, queue_id).await;
        let more = if topic.starts_with("Compat") { added } else { 0 };
        assert_eq!(stored.len(), expected.len() + more, "{topic} {queue_id}");
        for (stored, expected) in stored.into_iter().zip(expected) {
            assert_same(&stored, expected);
            found.push((stored, expected));
        }
    }
    assert_eq!(found.len(), manifest.messages.len());
    check_sums(&found);
    for (number, (stored, expected)) in found.iter().enumerate() {
        assert_eq!(records(&peer.by_position(expected.position).await), std::slice::from_ref(stored));
        if number % 3 == 0 || expected.queue_offset > 155 {
            for key in expected.keys.iter().flat_map(|keys| keys.split(' ')) {
                assert!(peer.by_key(&expected.topic, key, false).await.contains(stored), "{key}");
            }
            if let Some(key) = stored.property("UNIQ_KEY") {
                assert!(peer.by_key(&expected.topic, key, true).await.contains(stored), "{key}");
            }
        }
    }
    for (group, topic, queue_id, offset) in &manifest.consumer_offsets {
        assert_eq!(peer.committed(group, topic, *queue_id).await, Ok(*offset), "{topic}@{group}");
    }
    for group in ["compat_push", "compat_pull"] {
        let queue = if group == "compat_push" { ("CompatB", 163) } else { ("CompatA", 10) };
        assert_eq!(peer.commit(group, queue.0, 0, queue.1).await.code, 0, "{group} is known");
    }
    assert_eq!(peer.commit("compat_other", "CompatA", 0, 1).await.code, 26);
    for (topic, queues) in [("CompatA", 4), ("CompatB", 1), ("%RETRY%compat_push", 1), ("LoadTopic", 8)] {
        let request = Command::request(RequestCode::GetTopicConfig).with_field("topic", topic);
        let config: TopicConfig = peer.ok(request).await.json().unwrap();
        assert_eq!((config.read_queue_nums, config.write_queue_nums), (queues, queues), "{topic}");
    }
}

async fn open_what_java_wrote(kind: &str, change: impl FnOnce(&Path)) {
    let manifest = Manifest::read(kind);
    let prepare = |config: &mut BrokerConfig| {
        manifest.apply(kind, config);
        change(&config.store_path_root_dir);
    };
    let mut cluster = TestCluster::start_with(prepare, Disk::real()).await;
    let peer = cluster.peer();
    verify_java(&manifest, &peer, 0).await;

    let mut first = true;
    for added in 1..=3 {
        for ((topic, queue_id), expected) in manifest.queues() {
            if topic.starts_with("Compat") {
                let sent = peer.send(&Outgoing { topic, queue_id, ..Outgoing::default() }).await;
                assert_eq!(sent.queue_offset, i64::try_from(expected.len()).unwrap() + added - 1);
                if std::mem::take(&mut first) {
                    assert_eq!(sent.msg_id[16..], format!("{:016X}", manifest.end), "behind the last record");
                }
            }
        }
    }
    verify_java(&manifest, &peer, 3).await;
    let survivor = cluster.start_on_a_copy().await;
    verify_java(&manifest, &Peer::new(survivor.address()), 3).await;
    survivor.stop().await.unwrap();
    cluster.stop_broker().await;
    cluster.start_broker().await;
    verify_java(&manifest, &cluster.peer(), 3).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_store_that_java_closed_is_opened() {
    open_what_java_wrote("clean", |_| {}).await;
}

#[tokio::test]
async fn a_store_of_a_killed_java_broker_is_opened() {
    open_what_java_wrote("killed", |_| {}).await;
}

#[tokio::test]
async fn a_store_of_java_without_its_queues_and_index_is_opened() {
    open_what_java_wrote("clean", |store| {
        for folder in ["consumequeue", "index"] {
            Disk::real().remove_folder(&store.join(folder)).unwrap();
        }
    })
    .await;
}

// What ours wrote, opened by Apache's broker.

/// Sizes of files, so small that a test fills several; the same for both brokers.
const SETTINGS: [&str; 6] = [
    "mappedFileSizeCommitLog=1048576",
    "mappedFileSizeConsumeQueue=2000",
    "maxHashSlotNum=500",
    "maxIndexNum=2000",
    "maxMessageSize=65536",
    "flushConsumerOffsetInterval=200",
];
const QUEUES: i32 = 4;

/// An Apache broker and its name server on a store of ours.
struct Apache {
    script: Child,
    address: String,
}

impl Apache {
    /// Returns whether it can be run; fails in CI, where it must.
    fn is_there() -> bool {
        let fetched = Process::new(script()).arg("fetch").output().unwrap();
        if fetched.status.success() {
            return true;
        }
        let reason = String::from_utf8_lossy(&fetched.stderr).into_owned();
        assert!(std::env::var_os("CI").is_none(), "CI needs Apache's broker: {reason}");
        eprintln!(
            "SKIPPED: Apache's broker cannot be run (the peer kit, Java 17 and Maven are needed): {reason}"
        );
        false
    }

    fn start(store: &Path) -> Self {
        let mut script = Process::new(script())
            .arg(store)
            .arg(SETTINGS.join("\\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(script.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("READY ").map(str::to_owned);
        // Kept even if it did not come up: dropping it ends what the script started.
        let mut apache = Self { script, address: String::new() };
        apache.address = address.unwrap_or_else(|| panic!("Apache's broker did not start: {line}"));
        apache
    }

    fn peer(&self) -> Peer {
        Peer::new(&self.address)
    }

    /// Ends it: `stop` or `kill`.
    fn end(mut self, how: &str) {
        self.script.stdin.take().unwrap().write_all(format!("{how}\n").as_bytes()).unwrap();
        assert!(self.script.wait().unwrap().success());
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        // The end of its input ends the script, and the script what it started.
        drop(self.script.stdin.take());
        let _ = self.script.wait();
    }
}

fn script() -> PathBuf {
    source_path("tests/compat/open-in-java")
}

/// All that a broker holds for the tests.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    queues: BTreeMap<(String, i32), Vec<Received>>,
    offsets: BTreeMap<i32, Result<i64, i32>>,
}

impl Content {
    async fn read(peer: &Peer) -> Self {
        let mut queues = BTreeMap::new();
        for topic in ["Ours", "%RETRY%G", "%DLQ%G", "SCHEDULE_TOPIC_XXXX"] {
            let count = match topic {
                "Ours" => QUEUES,
                "SCHEDULE_TOPIC_XXXX" => 18,
                _ => 1,
            };
            for queue_id in 0..count {
                queues.insert((topic.to_owned(), queue_id), peer.queue(topic, queue_id).await);
            }
        }
        let mut offsets = BTreeMap::new();
        for queue_id in 0..QUEUES {
            offsets.insert(queue_id, peer.committed("G", "Ours", queue_id).await);
        }
        Self { queues, offsets }
    }

    fn len(&self) -> usize {
        self.queues.values().map(Vec::len).sum()
    }

    fn queue(&self, queue_id: i32) -> &[Received] {
        &self.queues[&("Ours".to_owned(), queue_id)]
    }

    /// Checks that a broker has the same, also by key, unique key and position.
    async fn verify(&self, name: &str, peer: &Peer) {
        for ((topic, queue_id), messages) in &self.queues {
            let expected = i64::try_from(messages.len()).unwrap();
            wait(&format!("{name} dispatched {topic} {queue_id}"), async || {
                (peer.max_offset(topic, *queue_id).await >= expected).then_some(())
            })
            .await;
        }
        let other = Self::read(peer).await;
        for (queue, messages) in &self.queues {
            assert_eq!(other.queues[queue].len(), messages.len(), "{name}: {queue:?}");
            for (mine, other) in messages.iter().zip(&other.queues[queue]) {
                assert_eq!(mine, other, "{name}: {queue:?}");
            }
        }
        assert_eq!(self.offsets, other.offsets, "{name}");
        for ((topic, _), messages) in &self.queues {
            for message in messages.iter().step_by(7) {
                assert_eq!(
                    records(&peer.by_position(message.position).await),
                    std::slice::from_ref(message),
                    "{name}"
                );
                let key = message.property("UNIQ_KEY").unwrap();
                assert!(peer.by_key(topic, key, true).await.contains(message), "{name}: {key}");
                for key in message.property("KEYS").iter().flat_map(|keys| keys.split(' ')) {
                    assert!(peer.by_key(topic, key, false).await.contains(message), "{name}: {key}");
                }
            }
        }
    }
}

/// Writes messages of all kinds; `writer` is part of their keys.
async fn fill(peer: &Peer, writer: &str) {
    for number in 0..60 {
        for queue_id in 0..QUEUES {
            let keys = format!("{writer}-{number}-{queue_id} {writer}-second-{number}-{queue_id}");
            let body = format!("{keys} {}", "x".repeat(number * 977 % 16_000));
            let unique = format!("{writer}{number:08}{queue_id:08}");
            let properties = [
                ("TAGS", if number % 2 == 0 { "A" } else { "B" }),
                ("KEYS", keys.as_str()),
                ("UNIQ_KEY", &unique),
            ];
            let message = Outgoing {
                topic: "Ours",
                queue_id,
                body: body.as_bytes(),
                properties: &properties,
                flag: i32::try_from(number).unwrap(),
                sys_flag: if number % 5 == 0 { 0x101 } else { 0 },
                ..Outgoing::default()
            };
            let request = if number % 3 == 0 { message.v1() } else { message.v2() };
            peer.ok(request).await;
        }
    }
    for number in 0..5 {
        let messages: Vec<_> = (0..10)
            .map(|at| BatchMessage {
                flag: at,
                body: format!("batch {number} {at}").into_bytes().into(),
                properties: property_string(&[("UNIQ_KEY", &format!("{writer}BATCH{number:08}{at:08}"))]),
            })
            .collect();
        let body = encode_batch(&messages);
        peer.ok(Outgoing { topic: "Ours", queue_id: 1, body: &body, ..Outgoing::default() }.batch()).await;
    }
    // Two hours from now.
    let delayed = [("DELAY", "18"), ("KEYS", "late")];
    peer.ok(Outgoing { topic: "Ours", properties: &delayed, ..Outgoing::default() }.v2()).await;
}

/// Sends a message of the topic to the dead letters of the group.
async fn give_up(peer: &Peer, position: u64) {
    let request = Command::request(RequestCode::ConsumerSendMsgBack)
        .with_field("offset", position.to_string())
        .with_field("group", "G")
        .with_field("delayLevel", "-1")
        .with_field("originTopic", "Ours");
    peer.ok(request).await;
}

async fn change_brokers(kill: bool) {
    if !Apache::is_there() {
        return;
    }
    let mut ours = Processes::start(&SETTINGS);
    let peer = ours.peer();
    peer.ok(Consumer { subscriptions: &[("Ours", "*", 1)], ..Consumer::default() }.heartbeat()).await;
    fill(&peer, "ours").await;
    give_up(&peer, peer.queue("Ours", 0).await[3].position).await;
    for queue_id in 0..QUEUES {
        assert_eq!(peer.commit("G", "Ours", queue_id, 40 + i64::from(queue_id)).await.code, 0);
    }
    wait("the offsets are saved", async || {
        let text = Disk::real().read(&ours.store().join("config/consumerOffset.json")).unwrap_or_default();
        String::from_utf8(text).unwrap().contains("3:43").then_some(())
    })
    .await;
    let content = Content::read(&peer).await;
    assert_eq!(content.len(), 60 * 4 + 50 + 2);
    if kill {
        ours.broker.kill();
    } else {
        assert!(ours.broker.terminate().success());
    }

    let store = ours.store();
    let apache = tokio::task::spawn_blocking(move || Apache::start(&store)).await.unwrap();
    let peer = apache.peer();
    content.verify("Apache's broker", &peer).await;
    for queue_id in 0..QUEUES {
        let sent = peer.send(&Outgoing { topic: "Ours", queue_id, ..Outgoing::default() }).await;
        assert_eq!(usize::try_from(sent.queue_offset), Ok(content.queue(queue_id).len()));
    }
    fill(&peer, "java").await;
    peer.commit("G", "Ours", 2, 50).await;
    let content = Content::read(&peer).await;
    assert_eq!(content.len(), 2 * (60 * 4 + 50 + 1) + 1 + 4);
    assert_eq!(content.offsets[&2], Ok(50));
    let file = ours.store().join("config/consumerOffset.json");
    wait("Apache's broker saved the offset", async || {
        let text = Disk::real().read(&file).unwrap_or_default();
        String::from_utf8(text).unwrap().contains("2:50").then_some(())
    })
    .await;
    let how = if kill { "kill" } else { "stop" };
    tokio::task::spawn_blocking(move || apache.end(how)).await.unwrap();

    ours.start_broker();
    let peer = ours.peer();
    content.verify("our broker", &peer).await;
    for queue_id in 0..QUEUES {
        let sent = peer.send(&Outgoing { topic: "Ours", queue_id, ..Outgoing::default() }).await;
        assert_eq!(usize::try_from(sent.queue_offset), Ok(content.queue(queue_id).len()));
    }
    let content = Content::read(&peer).await;
    assert!(ours.broker.terminate().success());
    ours.start_broker();
    content.verify("our broker, again", &ours.peer()).await;
    let output = ours.broker.output();
    assert!(!output.contains("ERROR") && !output.contains("WARN"), "{output}");
    ours.stop();
}

#[tokio::test]
async fn apache_opens_what_ours_closed_and_the_other_way_round() {
    change_brokers(false).await;
}

#[tokio::test]
async fn apache_opens_what_ours_left_when_killed_and_the_other_way_round() {
    change_brokers(true).await;
}
