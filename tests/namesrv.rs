//! Name servers in this process, as clients, brokers and tools see them over TCP.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quorate::config::{self, Environment, Sources};
use quorate::env::{Clock, Disk};
use quorate::model::{DataVersion, Perm, Topic, TopicConfig};
use quorate::namesrv::{self, Running};
use quorate::remoting::body::*;
use quorate::remoting::header::*;
use quorate::remoting::{
    Answer, Client, ClientConfig, Command, Connection, RequestCode, ResponseCode, Server, ServerConfig,
    Service, frame, json,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

const SOON: Duration = Duration::from_secs(10);

/// A name server and its folder.
struct Namesrv {
    running: Running,
    folder: TempDir,
}

impl Namesrv {
    async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts one with `key=value` settings.
    async fn start_with(settings: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings, Disk::real()).await
    }

    async fn start_in(folder: TempDir, settings: &[&str], disk: Disk) -> Self {
        let mut overrides = vec!["listenPort=0".to_owned(), "bindAddress=127.0.0.1".to_owned()];
        overrides.extend(settings.iter().map(|&setting| setting.to_owned()));
        let environment = Environment { home: Some(folder.path().to_owned()), ..Environment::default() };
        let sources = Sources { overrides, environment, ..Sources::default() };
        let config = config::load(&sources, &disk).unwrap();
        let running = namesrv::start(config, disk, Clock::system()).await.unwrap();
        Self { running, folder }
    }

    /// Returns a client with a connection of its own.
    fn client(&self) -> Peer {
        Peer { client: Client::new(ClientConfig::default()), address: self.running.addr().to_string() }
    }

    async fn stop(self) -> TempDir {
        self.running.stop().await;
        self.folder
    }
}

/// A client or broker of one name server; its connection closes when it is dropped.
struct Peer {
    client: Client,
    address: String,
}

impl Peer {
    async fn call(&self, request: Command) -> Command {
        self.client.call(&self.address, request, SOON).await.unwrap()
    }

    async fn ok(&self, request: Command) -> Command {
        let answer = self.call(request).await;
        assert_eq!(answer.response_code(), Some(ResponseCode::Success), "{:?}", answer.remark);
        answer
    }

    /// Returns code and remark of an answer that is an error.
    async fn refused(&self, request: Command) -> (i32, String) {
        let answer = self.call(request).await;
        (answer.code, answer.remark.unwrap_or_default())
    }

    async fn register(&self, broker: &Broker) -> Command {
        self.ok(broker.registration()).await
    }

    /// Returns the members and queues of a topic in short: `a 0=h:1 1=h:2 | a:6`; the code if there is no route.
    async fn route(&self, topic: &str) -> String {
        let answer = self.call(route_request(topic)).await;
        if answer.code != 0 {
            return answer.code.to_string();
        }
        let route: TopicRouteData = answer.json().unwrap();
        let mut words = Vec::new();
        for group in route.broker_datas {
            words.push(group.broker_name);
            words.extend(group.broker_addrs.iter().map(|(id, address)| format!("{id}={address}")));
        }
        words.push("|".into());
        words.extend(route.queue_datas.iter().map(|queue| format!("{}:{}", queue.broker_name, queue.perm.0)));
        words.join(" ")
    }

    /// Waits until the route reads as expected.
    async fn wait_for_route(&self, topic: &str, expected: &str) {
        let seen = async { while self.route(topic).await != expected {} };
        let waited = tokio::time::timeout(SOON, seen).await;
        assert!(waited.is_ok(), "{topic}: {} instead of {expected}", self.route(topic).await);
    }
}

fn route_request(topic: &str) -> Command {
    let header = GetRouteInfoRequestHeader { topic: Topic::new(topic), accept_standard_json_only: false };
    Command::request(RequestCode::GetRouteinfoByTopic).with_header(&header)
}

/// A broker as it registers.
#[derive(Clone)]
struct Broker {
    header: RegisterBrokerRequestHeader,
    body: RegisterBrokerBody,
}

impl Broker {
    fn new(name: &str, id: i64, address: &str, topics: &[&str]) -> Self {
        let mut body = RegisterBrokerBody::default();
        let table = &mut body.topic_config_serialize_wrapper;
        table.data_version = DataVersion { counter: 1, state_version: 0, timestamp: 1 };
        for topic in topics {
            let topic = Topic::new(topic);
            table.topic_config_table.insert(topic.clone(), TopicConfig::new(topic, 4, Perm::READ_WRITE));
        }
        let header = RegisterBrokerRequestHeader {
            broker_name: name.into(),
            broker_addr: address.into(),
            cluster_name: "C".into(),
            ha_server_addr: Some(format!("{address}9")),
            broker_id: id,
            heartbeat_timeout_millis: None,
            enable_acting_master: Some(false),
            compressed: false,
            body_crc32: None,
        };
        Self { header, body }
    }

    fn with_version(mut self, state_version: i64, counter: i64) -> Self {
        let version = DataVersion { counter, state_version, timestamp: 1 };
        self.body.topic_config_serialize_wrapper.data_version = version;
        self
    }

    fn registration(&self) -> Command {
        let body = json::to_vec(&self.body);
        let crc = i32::try_from(crc32fast::hash(&body) & 0x7fff_ffff).unwrap();
        let header = RegisterBrokerRequestHeader { body_crc32: Some(crc), ..self.header.clone() };
        Command::request(RequestCode::RegisterBroker).with_header(&header).with_body(body)
    }

    fn member(&self, code: RequestCode) -> Command {
        let header = &self.header;
        Command::request(code).with_header(&UnregisterBrokerRequestHeader {
            broker_name: header.broker_name.clone(),
            broker_addr: header.broker_addr.clone(),
            cluster_name: header.cluster_name.clone(),
            broker_id: header.broker_id,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "tests read their own files")]
fn captured(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(name)).unwrap()
}

/// Sends frames as they are and returns the answers.
async fn exchange(socket: &mut TcpStream, frames: &[&str]) -> Vec<Command> {
    let mut buf = BytesMut::new();
    let mut answers = Vec::new();
    for name in frames {
        socket.write_all(&captured(name)).await.unwrap();
        loop {
            if let Some(answer) = frame::decode(&mut buf, 16 << 20).unwrap() {
                answers.push(answer);
                break;
            }
            assert!(socket.read_buf(&mut buf).await.unwrap() > 0, "{name}: closed");
        }
    }
    answers
}

#[tokio::test]
async fn captured_java_brokers_register_and_captured_clients_find_them() {
    for kind in ["", "-binary"] {
        let namesrv = Namesrv::start().await;
        let mut broker = TcpStream::connect(namesrv.running.addr()).await.unwrap();
        let registrations = [
            &format!("java-5.5.0/0103-REGISTER_BROKER-request{kind}.bin")[..],
            &format!("java-5.5.0/0103-REGISTER_BROKER-request-increment{kind}.bin"),
        ];
        for answer in exchange(&mut broker, &registrations).await {
            assert_eq!((answer.code, answer.is_response()), (0, true), "{:?}", answer.remark);
        }
        let peer = namesrv.client();
        let route = "broker-a 0=127.0.0.1:21100 | broker-a:6";
        assert_eq!(peer.route("LoadTopic").await, route);
        assert_eq!(peer.route("TBW102").await, route.replace(":6", ":7"));

        let unknown = format!("java-5.5.0/0105-GET_ROUTEINFO_BY_TOPIC-request-topic-not-exist{kind}.bin");
        let expected = unknown.replace("request", "response");
        let answer = exchange(&mut broker, &[&unknown]).await.remove(0);
        let expected =
            frame::decode(&mut BytesMut::from(&captured(&expected)[..]), 16 << 20).unwrap().unwrap();
        assert_eq!(answer, expected);

        drop(broker);
        peer.wait_for_route("LoadTopic", "17").await;
    }
}

#[tokio::test]
async fn captured_slave_learns_of_its_master() {
    let namesrv = Namesrv::start().await;
    let mut master = TcpStream::connect(namesrv.running.addr()).await.unwrap();
    let mut slave = TcpStream::connect(namesrv.running.addr()).await.unwrap();
    exchange(&mut master, &["java-5.5.0/0103-REGISTER_BROKER-request-group.bin"]).await;
    let registration = ["java-5.5.0/0103-REGISTER_BROKER-request-slave-group.bin"];
    let answer = exchange(&mut slave, &registration).await.remove(0);
    let header: RegisterBrokerResponseHeader = answer.header().unwrap();
    assert_eq!(header.master_addr.as_deref(), Some("127.0.0.1:21100"));
    assert_eq!(header.ha_server_addr.as_deref(), Some("127.0.0.2:21101"));
    let members = Command::request(RequestCode::GetBrokerMemberGroup)
        .with_field("clusterName", "DefaultCluster")
        .with_field("brokerName", "broker-a");
    let answer = namesrv.client().ok(members).await;
    let text = r#"{"brokerMemberGroup":{"brokerAddrs":{0:"127.0.0.1:21100",1:"127.0.0.1:21120"},"brokerName":"broker-a","cluster":"DefaultCluster"}}"#;
    assert_eq!(answer.body.to_bytes(), text);
}

#[tokio::test]
async fn older_clients_get_bare_keys_and_newer_ones_quoted_keys() {
    let namesrv = Namesrv::start().await;
    let broker = namesrv.client();
    broker.register(&Broker::new("a", 0, "h:1", &["T", "U"])).await;
    broker.register(&Broker::new("a", 1, "h:2", &[])).await;
    let route = |addrs: &str| {
        format!(
            r#"{{"brokerDatas":[{{"brokerAddrs":{addrs},"brokerName":"a","cluster":"C","enableActingMaster":false}}],"filterServerTable":{{}},"queueDatas":[{{"brokerName":"a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}}]}}"#
        )
    };
    let bare = route(r#"{0:"h:1",1:"h:2"}"#);
    let quoted = route(r#"{"0":"h:1","1":"h:2"}"#);
    for (version, standard, expected) in [
        (317, false, &bare),
        (400, false, &bare),
        (401, false, &quoted),
        (513, false, &quoted),
        (317, true, &quoted),
    ] {
        let mut request = route_request("T").with_field("acceptStandardJsonOnly", standard.to_string());
        request.version = version;
        let answer = broker.ok(request).await;
        assert_eq!(&answer.body.to_bytes()[..], expected.as_bytes(), "{version} {standard}");
        assert_eq!(answer.version, 513);
    }
}

#[tokio::test]
async fn broker_whose_connection_closes_is_gone() {
    let namesrv = Namesrv::start().await;
    let (master, slave, client) = (namesrv.client(), namesrv.client(), namesrv.client());
    master.register(&Broker::new("a", 0, "h:1", &["T", "U"])).await;
    slave.register(&Broker::new("a", 1, "h:2", &["T", "U"])).await;
    assert_eq!(client.route("T").await, "a 0=h:1 1=h:2 | a:6");
    drop(master);
    client.wait_for_route("T", "a 1=h:2 | a:6").await;
    drop(slave);
    client.wait_for_route("T", "17").await;
    let info: ClusterInfo =
        client.ok(Command::request(RequestCode::GetBrokerClusterInfo)).await.json().unwrap();
    assert_eq!(info, ClusterInfo::default());
}

#[tokio::test]
async fn broker_that_registers_over_a_new_connection_survives_the_end_of_the_old_one() {
    let namesrv = Namesrv::start().await;
    let (old, new, witness) = (namesrv.client(), namesrv.client(), namesrv.client());
    let broker = Broker::new("a", 0, "h:1", &["T", "U"]);
    old.register(&broker).await;
    old.register(&Broker::new("b", 0, "h:2", &["V", "W"])).await;
    new.register(&broker).await;
    drop(old);
    witness.wait_for_route("V", "17").await;
    assert_eq!(witness.route("T").await, "a 0=h:1 | a:6");
}

#[tokio::test]
async fn silent_broker_is_gone() {
    let namesrv = Namesrv::start_with(&["scanNotActiveBrokerInterval=20"]).await;
    let (silent, client) = (namesrv.client(), namesrv.client());
    let mut broker = Broker::new("a", 0, "h:1", &["T", "U"]);
    broker.header.heartbeat_timeout_millis = Some(100);
    silent.register(&broker).await;
    client.wait_for_route("T", "17").await;
}

#[tokio::test]
async fn stale_leader_cannot_take_its_place_back() {
    let namesrv = Namesrv::start().await;
    let (first, second) = (namesrv.client(), namesrv.client());
    first.register(&Broker::new("a", 0, "h:1", &["T", "U"]).with_version(5, 1)).await;
    second.register(&Broker::new("a", 0, "h:2", &["T", "U"]).with_version(6, 0)).await;
    assert_eq!(first.route("T").await, "a 0=h:2 | a:6");
    let ignored = first.register(&Broker::new("a", 0, "h:1", &["T", "U"]).with_version(5, 2)).await;
    assert_eq!((ignored.code, ignored.ext_fields.len()), (0, 0));
    assert_eq!(first.route("T").await, "a 0=h:2 | a:6");
    first.ok(Broker::new("a", 0, "h:1", &[]).member(RequestCode::UnregisterBroker)).await;
    drop(first);
    assert_eq!(second.route("T").await, "a 0=h:2 | a:6");
}

#[tokio::test]
async fn wrong_registrations_are_refused() {
    let namesrv = Namesrv::start().await;
    let broker = namesrv.client();
    let single = Broker::new("a", 0, "h:1", &["T"]);
    assert_eq!(broker.refused(single.registration()).await, (1, "register broker failed".into()));
    let crc = single.registration().with_field("bodyCrc32", "1");
    assert_eq!(broker.refused(crc).await, (1, "crc32 not match".into()));
    let unchecked = Broker::new("a", 0, "h:1", &["T", "U"]).registration().with_field("bodyCrc32", "0");
    let (code, remark) = broker.refused(unchecked.clone().with_body("{\"topic")).await;
    assert_eq!(code, 1, "{remark}");
    let (code, remark) = broker.refused(Command::request(RequestCode::RegisterBroker)).await;
    assert_eq!((code, remark.as_str()), (1, "the field brokerName is missing"));
    assert_eq!(broker.route("T").await, "17");
    broker.ok(unchecked).await;
    broker.register(&Broker::new("a", 0, "h:1", &["V"]).with_version(0, 2)).await;
    assert_eq!(broker.route("V").await, "a 0=h:1 | a:6");
}

#[tokio::test]
async fn compressed_and_long_registrations_are_taken() {
    let namesrv = Namesrv::start().await;
    let peer = namesrv.client();
    let names: Vec<String> = (0..10_000).map(|n| format!("topic-{n}")).collect();
    let topics: Vec<&str> = names.iter().map(String::as_str).collect();
    peer.register(&Broker::new("long", 0, "h:1", &topics)).await;
    assert_eq!(peer.route("topic-9999").await, "long 0=h:1 | long:6");

    let broker = Broker::new("compressed", 0, "h:2", &["T", "topic-0"]);
    for (said, address) in [("true", "h:2"), ("false", "h:3")] {
        let request = broker
            .registration()
            .with_field("compressed", said)
            .with_field("bodyCrc32", "0")
            .with_field("brokerAddr", address)
            .with_body(broker.body.compress());
        peer.ok(request).await;
        assert_eq!(peer.route("T").await, format!("compressed 0={address} | compressed:6"));
    }
    let list: TopicList =
        peer.ok(Command::request(RequestCode::GetAllTopicListFromNameserver)).await.json().unwrap();
    assert_eq!(list.topic_list.len(), 10_001);
}

#[tokio::test]
async fn unregistering_heartbeats_and_versions() {
    let namesrv = Namesrv::start().await;
    let peer = namesrv.client();
    let broker = Broker::new("a", 0, "h:1", &["T", "U"]);
    let known = DataVersion { counter: 1, state_version: 0, timestamp: 1 };
    let query = |version: &DataVersion| broker.member(RequestCode::QueryDataVersion).with_json(version);

    let unknown = peer.ok(query(&known)).await;
    assert_eq!((unknown.ext_fields.get("changed"), unknown.body.is_empty()), (Some("true"), true));
    peer.register(&broker).await;
    let same = peer.ok(query(&known)).await;
    assert_eq!(same.ext_fields.get("changed"), Some("false"));
    let other = peer.ok(query(&DataVersion { counter: 2, ..known })).await;
    assert_eq!(other.ext_fields.get("changed"), Some("true"));
    assert_eq!(other.body.to_bytes(), r#"{"counter":1,"stateVersion":0,"timestamp":1}"#);

    peer.ok(broker.member(RequestCode::BrokerHeartbeat)).await;
    peer.ok(Broker::new("x", 0, "x:1", &[]).member(RequestCode::BrokerHeartbeat)).await;
    peer.ok(broker.member(RequestCode::UnregisterBroker)).await;
    assert_eq!(peer.route("T").await, "17");
}

#[tokio::test]
async fn name_servers_know_nothing_of_each_other() {
    let servers = [Namesrv::start().await, Namesrv::start().await, Namesrv::start().await];
    let broker = Client::new(ClientConfig::default());
    let registration = Broker::new("a", 0, "h:1", &["T", "U"]).registration();
    for server in &servers {
        broker.call(&server.running.addr().to_string(), registration.clone(), SOON).await.unwrap();
    }
    let [first, second, third] = servers;
    first.client().ok(Command::request(RequestCode::DeleteTopicInNamesrv).with_field("topic", "T")).await;
    assert_eq!(first.client().route("T").await, "17");
    assert_eq!(second.client().route("T").await, "a 0=h:1 | a:6");
    let folder = first.stop().await;
    // A restarted one knows nothing until the broker registers again.
    let first = Namesrv::start_in(folder, &[], Disk::real()).await;
    assert_eq!(first.client().route("U").await, "17");
    drop(broker);
    second.client().wait_for_route("T", "17").await;
    third.client().wait_for_route("T", "17").await;
}

#[tokio::test]
async fn topics_are_listed_registered_wiped_and_deleted() {
    let namesrv = Namesrv::start().await;
    let peer = namesrv.client();
    peer.register(&Broker::new("a", 0, "h:1", &["T", "U"])).await;
    peer.register(&Broker::new("b", 0, "h:2", &["U", "V"])).await;
    let request = |code, field: &str, value: &str| Command::request(code).with_field(field, value);

    let wiped = peer.ok(request(RequestCode::WipeWritePermOfBroker, "brokerName", "a")).await;
    assert_eq!(wiped.ext_fields.get("wipeTopicCount"), Some("2"));
    assert_eq!(peer.route("U").await, "a 0=h:1 b 0=h:2 | a:4 b:6");
    let added = peer.ok(request(RequestCode::AddWritePermOfBroker, "brokerName", "a")).await;
    assert_eq!(added.ext_fields.get("addTopicCount"), Some("2"));

    let queue = |broker: &str| QueueData {
        broker_name: broker.into(),
        perm: Perm::READ_WRITE,
        read_queue_nums: 1,
        topic_sys_flag: 0,
        write_queue_nums: 1,
    };
    for (broker, expected) in [("nobody", "17"), ("b", "b 0=h:2 | b:6")] {
        let route = TopicRouteData { queue_datas: vec![queue(broker)], ..TopicRouteData::default() };
        peer.ok(request(RequestCode::RegisterTopicInNamesrv, "topic", "New").with_json(&route)).await;
        assert_eq!(peer.route("New").await, expected);
    }
    let names = |answer: Command| {
        let list: TopicList = answer.json().unwrap();
        list.topic_list.iter().map(Topic::to_string).collect::<Vec<_>>().join(" ")
    };
    let all = Command::request(RequestCode::GetAllTopicListFromNameserver);
    assert_eq!(names(peer.ok(all.clone()).await), "New T U V");
    let of_cluster = request(RequestCode::GetTopicsByCluster, "cluster", "C");
    assert_eq!(names(peer.ok(of_cluster).await), "New T U V");
    assert_eq!(names(peer.ok(Command::request(RequestCode::GetSystemTopicListFromNs)).await), "C a b");
    for code in [
        RequestCode::GetUnitTopicList,
        RequestCode::GetHasUnitSubTopicList,
        RequestCode::GetHasUnitSubUnunitTopicList,
    ] {
        assert_eq!(names(peer.ok(Command::request(code)).await), "");
    }
    peer.ok(request(RequestCode::DeleteTopicInNamesrv, "topic", "U").with_field("clusterName", "x")).await;
    assert_eq!(names(peer.ok(all.clone()).await), "New T U V");
    peer.ok(request(RequestCode::DeleteTopicInNamesrv, "topic", "U").with_field("clusterName", "C")).await;
    assert_eq!(names(peer.ok(all).await), "New T V");
    let info = peer.ok(Command::request(RequestCode::GetBrokerClusterInfo)).await;
    let text = r#"{"brokerAddrTable":{"a":{"brokerAddrs":{0:"h:1"},"brokerName":"a","cluster":"C","enableActingMaster":false},"b":{"brokerAddrs":{0:"h:2"},"brokerName":"b","cluster":"C","enableActingMaster":false}},"clusterAddrTable":{"C":["a","b"]}}"#;
    assert_eq!(info.body.to_bytes(), text);
}

#[tokio::test]
async fn lists_can_be_switched_off() {
    let namesrv = Namesrv::start_with(&["enableAllTopicList=false", "enableTopicList=false"]).await;
    for code in [
        RequestCode::GetAllTopicListFromNameserver,
        RequestCode::GetTopicsByCluster,
        RequestCode::GetUnitTopicList,
        RequestCode::GetHasUnitSubTopicList,
        RequestCode::GetHasUnitSubUnunitTopicList,
    ] {
        let refused = namesrv.client().refused(Command::request(code)).await;
        assert_eq!(refused, (1, "disable".into()), "{code}");
    }
}

#[tokio::test]
async fn unknown_requests_are_not_supported() {
    let namesrv = Namesrv::start().await;
    let peer = namesrv.client();
    for code in [RequestCode::SendMessageV2.number(), 4242] {
        let request = Command { code, ..Command::request(RequestCode::HeartBeat) };
        assert_eq!(peer.refused(request).await, (3, format!(" request type {code} not supported")));
    }
}

#[tokio::test]
async fn kv_config_survives_a_restart() {
    let namesrv = Namesrv::start().await;
    let item = |code, key: &str| Command::request(code).with_field("namespace", "N").with_field("key", key);
    let list = || Command::request(RequestCode::GetKvlistByNamespace).with_field("namespace", "N");
    let peer = namesrv.client();
    assert_eq!(peer.refused(list()).await, (22, "No config item, Namespace: N".into()));
    peer.ok(item(RequestCode::PutKvConfig, "k").with_field("value", "v")).await;
    peer.ok(item(RequestCode::PutKvConfig, "gone").with_field("value", "v")).await;
    peer.ok(item(RequestCode::DeleteKvConfig, "gone")).await;
    let nothing = Command::request(RequestCode::PutKvConfig).with_field("value", "v");
    assert_eq!(peer.refused(nothing).await, (1, "namespace or key is null".into()));

    let folder = namesrv.stop().await;
    let namesrv = Namesrv::start_in(folder, &[], Disk::real()).await;
    let peer = namesrv.client();
    let found = peer.ok(item(RequestCode::GetKvConfig, "k")).await;
    assert_eq!(found.ext_fields.get("value"), Some("v"));
    let missing = peer.refused(item(RequestCode::GetKvConfig, "gone")).await;
    assert_eq!(missing, (22, "No config item, Namespace: N Key: gone".into()));
    assert_eq!(peer.ok(list()).await.body.to_bytes(), r#"{"table":{"k":"v"}}"#);
}

#[tokio::test]
async fn kv_config_that_cannot_be_kept_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let faults = Arc::new(quorate::env::Faults::default());
    let namesrv = Namesrv::start_in(folder, &[], Disk::faulty(Arc::clone(&faults))).await;
    let peer = namesrv.client();
    let put = Command::request(RequestCode::PutKvConfig)
        .with_field("namespace", "N")
        .with_field("key", "k")
        .with_field("value", "v");
    let get = Command::request(RequestCode::GetKvConfig).with_field("namespace", "N").with_field("key", "k");
    faults.full.store(true, std::sync::atomic::Ordering::Relaxed);
    let (code, remark) = peer.refused(put.clone()).await;
    assert!(code == 1 && remark.contains("kvConfig.json"), "{remark}");
    assert_eq!(peer.refused(get.clone()).await.0, 22);
    faults.full.store(false, std::sync::atomic::Ordering::Relaxed);
    peer.ok(put).await;
    peer.ok(get).await;
}

#[tokio::test]
async fn order_config_goes_to_brokers_and_clients() {
    let namesrv = Namesrv::start_with(&["orderMessageEnable=true"]).await;
    let peer = namesrv.client();
    let broker = Broker::new("a", 0, "h:1", &["T", "U"]);
    assert!(peer.register(&broker).await.body.is_empty());
    let put = Command::request(RequestCode::PutKvConfig)
        .with_field("namespace", "ORDER_TOPIC_CONFIG")
        .with_field("key", "T")
        .with_field("value", "a:4");
    peer.ok(put).await;
    let answer = peer.register(&broker).await;
    assert_eq!(answer.body.to_bytes(), r#"{"table":{"T":"a:4"}}"#);
    let conf = async |topic| {
        let route: TopicRouteData = peer.ok(route_request(topic)).await.json().unwrap();
        route.order_topic_conf
    };
    assert_eq!((conf("T").await.as_deref(), conf("U").await), (Some("a:4"), None));
}

#[tokio::test]
async fn settings_are_shown_changed_and_kept() {
    let namesrv = Namesrv::start().await;
    let peer = namesrv.client();
    peer.register(&Broker::new("a", 0, "h:1", &["T", "U"])).await;
    let get = || Command::request(RequestCode::GetNamesrvConfig);
    let update = |text: &'static str| Command::request(RequestCode::UpdateNamesrvConfig).with_body(text);
    let text = async || String::from_utf8(peer.ok(get()).await.body.to_bytes().to_vec()).unwrap();
    assert!(text().await.contains("\nenableAllTopicList=true\n"), "{}", text().await);

    peer.ok(update("enableAllTopicList=false\norderMessageEnable = true\n")).await;
    assert!(text().await.contains("\nenableAllTopicList=false\n"));
    let list = Command::request(RequestCode::GetAllTopicListFromNameserver);
    assert_eq!(peer.refused(list).await.0, 1);
    peer.ok(update("")).await;
    for (change, code) in [
        ("kvConfigPath=/tmp/x", 16),
        ("enableTopicList=false\nrocketmqHome=/tmp/x", 16),
        ("enableTopicList=\\u12", 1),
        ("enableTopicList=perhaps", 1),
        ("noSuchKey=1", 1),
    ] {
        let (answer, remark) = peer.refused(update(change)).await;
        assert_eq!(answer, code, "{change}: {remark}");
    }
    assert!(text().await.contains("\nenableTopicList=true\n"));
    let kept = Disk::real().read(&namesrv.folder.path().join("namesrv/namesrv.properties")).unwrap();
    let kept = String::from_utf8(kept).unwrap();
    assert!(kept.contains("enableAllTopicList=false") && kept.contains("orderMessageEnable=true"), "{kept}");
}

#[tokio::test]
async fn routes_wait_until_brokers_had_time_to_register() {
    let namesrv = Namesrv::start_with(&["needWaitForService=true"]).await;
    let peer = namesrv.client();
    peer.register(&Broker::new("a", 0, "h:1", &["T", "U"])).await;
    assert_eq!(peer.refused(route_request("T")).await, (1, "name server not ready".into()));
    peer.ok(Command::request(RequestCode::UpdateNamesrvConfig).with_body("waitSecondsForService=0")).await;
    assert_eq!(peer.route("T").await, "a 0=h:1 | a:6");
}

#[tokio::test]
async fn clients_of_a_zone_see_its_brokers() {
    let namesrv = Namesrv::start().await;
    let peer = namesrv.client();
    for (name, zone) in [("a", "z1"), ("b", "z2")] {
        let registration = Broker::new(name, 0, &format!("{name}:1"), &["T", "U"]).registration();
        peer.ok(registration.with_field("__ZONE_NAME", zone)).await;
    }
    for (mode, zone, expected) in
        [("true", "z1", "a"), ("TRUE", "Z2", "b"), ("false", "z1", "a b"), ("true", " ", "a b")]
    {
        let request = route_request("T").with_field("__ZONE_MODE", mode).with_field("__ZONE_NAME", zone);
        let route: TopicRouteData = peer.ok(request).await.json().unwrap();
        let names: Vec<_> = route.broker_datas.into_iter().map(|group| group.broker_name).collect();
        assert_eq!(names.join(" "), expected, "{mode} {zone}");
    }
}

#[tokio::test]
async fn acting_master_is_shown_while_the_master_is_away() {
    let namesrv = Namesrv::start_with(&["supportActingMaster=true"]).await;
    let (master, slave) = (namesrv.client(), namesrv.client());
    let acting = |id, address: &str| {
        let mut broker = Broker::new("a", id, address, &["T", "U"]);
        broker.header.enable_acting_master = Some(true);
        broker
    };
    master.register(&acting(0, "h:1")).await;
    slave.register(&acting(1, "h:2")).await;
    drop(master);
    slave.wait_for_route("T", "a 0=h:2 | a:4").await;
    let master = namesrv.client();
    master.register(&acting(0, "h:1")).await;
    assert_eq!(master.route("T").await, "a 0=h:1 1=h:2 | a:6");
}

#[tokio::test]
async fn brokers_hear_of_a_new_smallest_id() {
    /// A broker's port: passes on what it hears.
    struct Ear(mpsc::UnboundedSender<Command>);

    impl Service for Ear {
        async fn call(&self, _: &Connection, request: Command) -> Answer {
            let _ = self.0.send(request);
            Answer::Never
        }

        fn closed(&self, _: &Connection) {}
    }

    let (heard, mut hears) = mpsc::unbounded_channel();
    let server = Server::bind("127.0.0.1:0", ServerConfig::default()).await.unwrap();
    let slave_address = server.local_addr().to_string();
    let (_stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.serve(Arc::new(Ear(heard)), stopped));

    let namesrv = Namesrv::start_with(&["notifyMinBrokerIdChanged=true"]).await;
    let (master, slave) = (namesrv.client(), namesrv.client());
    let acting = |id, address: &str| {
        let mut broker = Broker::new("a", id, address, &["T", "U"]);
        broker.header.enable_acting_master = Some(true);
        broker
    };
    slave.register(&acting(1, &slave_address)).await;
    master.register(&acting(0, "127.0.0.1:1")).await;
    let mut next = async || {
        let request = tokio::time::timeout(SOON, hears.recv()).await.expect("a notice").unwrap();
        assert_eq!((request.code, request.is_oneway()), (905, true));
        request.header::<NotifyMinBrokerIdChangeRequestHeader>().unwrap()
    };
    let up = next().await;
    assert_eq!((up.min_broker_id, up.min_broker_addr.as_deref()), (Some(0), Some("127.0.0.1:1")));
    assert_eq!((up.offline_broker_addr, up.ha_broker_addr.as_deref()), (None, Some("127.0.0.1:19")));
    drop(master);
    let down = next().await;
    assert_eq!((down.min_broker_id, down.min_broker_addr), (Some(1), Some(slave_address)));
    assert_eq!(down.offline_broker_addr.as_deref(), Some("127.0.0.1:1"));
}

#[tokio::test]
async fn stopping_closes_connections_and_frees_the_port() {
    let namesrv = Namesrv::start().await;
    let address = namesrv.running.addr();
    let peer = namesrv.client();
    peer.register(&Broker::new("a", 0, "h:1", &["T", "U"])).await;
    namesrv.stop().await;
    assert!(peer.client.call(&peer.address, route_request("T"), SOON).await.is_err());
    let again = Namesrv::start_with(&[&format!("listenPort={}", address.port())]).await;
    assert_eq!(again.client().route("T").await, "17");
}
