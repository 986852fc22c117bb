//! Commands against a service of canned answers that is name server and broker in one.

mod raft;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::*;
use crate::message::{Message, SysFlag, encode_record, patch_record};
use crate::model::{PhysicalOffset, QueueOffset};
use crate::remoting::{
    self, Answer, Command, Connection, RequestCode, ResponseCode, Server, ServerConfig, Service,
};

/// Makes an answer of the service's address and the request.
type Handler = Box<dyn Fn(&str, &Command) -> Command + Send + Sync>;
type Answers = BTreeMap<RequestCode, Handler>;

/// A service that answers by request code and remembers what it was asked.
struct Fake {
    address: String,
    answers: Answers,
    seen: Mutex<Vec<Command>>,
}

impl Service for Fake {
    async fn call(&self, _: &Connection, request: Command) -> Answer {
        let answer = match request.request_code().and_then(|code| self.answers.get(&code)) {
            Some(answer) => answer(&self.address, &request),
            None => Command::not_supported(request.code),
        };
        self.seen.lock().unwrap().push(request);
        Answer::Now(answer)
    }

    fn closed(&self, _: &Connection) {}
}

fn ok() -> Command {
    Command::response(ResponseCode::Success)
}

/// Answers with this text; `ADDRESS` in it is the service's own address.
fn text(body: &'static str) -> Handler {
    Box::new(move |address, _| ok().with_body(body.replace("ADDRESS", address)))
}

fn done() -> Handler {
    Box::new(|_, _| ok())
}

fn refusal(code: ResponseCode, remark: &'static str) -> Handler {
    Box::new(move |_, _| Command::response(code).with_remark(remark))
}

const CLUSTER: &str = r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"ADDRESS"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"]}}"#;
const ROUTE: &str = r#"{"brokerDatas":[{"brokerAddrs":{"0":"ADDRESS"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":2,"topicSysFlag":0,"writeQueueNums":2}]}"#;

/// What a healthy cluster of one broker answers to look-ups.
fn cluster() -> Answers {
    let mut answers = Answers::new();
    answers.insert(RequestCode::GetBrokerClusterInfo, text(CLUSTER));
    answers.insert(RequestCode::GetRouteinfoByTopic, text(ROUTE));
    answers
}

/// What a command printed, with `ADDRESS` for the service's address, and what it sent.
struct Ran {
    code: u8,
    out: String,
    err: String,
    seen: Vec<Command>,
}

impl Ran {
    fn sent(&self, code: RequestCode) -> &Command {
        self.seen.iter().find(|request| request.request_code() == Some(code)).expect("the request was sent")
    }
}

async fn mqadmin(answers: Answers, line: &str) -> Ran {
    let server = Server::bind("127.0.0.1:0", ServerConfig::default()).await.unwrap();
    let address = server.local_addr().to_string();
    let fake = Arc::new(Fake { address: address.clone(), answers, seen: Mutex::default() });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(Arc::clone(&fake), stopped));
    let args = line.split(' ').map(|arg| arg.replace("ADDRESS", &address).replace('~', " "));
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = std::iter::once("mqadmin".to_owned()).chain(args).map(OsString::from);
    let code = run(args.collect(), &mut out, &mut err).await;
    let _ = stop.send(());
    serving.await.unwrap();
    let shown = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&address, "ADDRESS");
    let seen = std::mem::take(&mut *fake.seen.lock().unwrap());
    Ran { code, out: shown(out), err: shown(err), seen }
}

/// Runs a command that must succeed without a complaint and returns what it printed.
async fn prints(answers: Answers, line: &str) -> String {
    let ran = mqadmin(answers, line).await;
    assert_eq!((ran.err.as_str(), ran.code), ("", 0), "{line}");
    ran.out
}

/// Compares line by line; blanks at line ends do not count, as the literals would lose them.
#[track_caller]
fn check(printed: &str, expected: &str) {
    let trimmed = |text: &str| text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n");
    assert_eq!(trimmed(printed), trimmed(expected));
}

#[tokio::test]
async fn cluster_list_has_apaches_columns() {
    let info = r#"{"table":{"brokerVersionDesc":"V5_5_0","brokerActive":"true","putTps":"12.5 3.0 1.0","getTransferredTps":"7.25 1.0 0.5","sendThreadPoolQueueSize":"1","sendThreadPoolQueueHeadWaitTimeMills":"2","pullThreadPoolQueueSize":"3","pullThreadPoolQueueHeadWaitTimeMills":"4","pageCacheLockTimeMills":"5","commitLogDiskRatio":"0.25","msgPutTotalTodayMorning":"10","msgPutTotalTodayNow":"15","timerReadBehind":"6","timerCongestNum":"20000"}}"#;
    let mut answers = cluster();
    answers.insert(RequestCode::GetBrokerRuntimeInfo, text(info));
    let printed = prints(answers, "clusterList -n ADDRESS").await;
    let row = printed.lines().nth(1).unwrap().replace("ADDRESS", "192.0.2.1:10911");
    // Columns are cut where Apache's header has them; the address of the test has its own length.
    assert_eq!(
        printed.lines().next().unwrap(),
        "#Cluster Name           #Broker Name            #BID  #Addr                  #Version              \
         #InTPS(LOAD)                   #OutTPS(LOAD)  #Timer(Progress)        #PCWait(ms)  #Hour         \
         #SPACE    #ACTIVATED"
    );
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        cells,
        [
            "DefaultCluster",
            "broker-a",
            "0",
            "192.0.2.1:10911",
            "V5_5_0",
            "12.50(1,2ms)",
            "7.25(3,4ms|N,Nms)",
            "6-0(2.0w,",
            "0.0,",
            "0.0)",
            "5",
            "0.00",
            "0.2500",
            "true"
        ]
    );
    let mut answers = cluster();
    answers.insert(RequestCode::GetBrokerRuntimeInfo, text(info));
    check(
        &prints(answers, "clusterList -m -n ADDRESS").await,
        "#Cluster Name     #Broker Name                       #InTotalYest  #OutTotalYest  #InTotalToday #OutTotalToday\n\
         DefaultCluster    broker-a                                     10              0              5              0\n",
    );
}

#[tokio::test]
async fn a_broker_that_is_down_is_a_row_and_exit_code_1() {
    let ran = mqadmin(cluster(), "clusterList -n ADDRESS").await;
    assert_eq!(ran.code, 1);
    assert!(ran.out.contains("broker-a") && ran.out.trim_end().ends_with("false"), "{}", ran.out);
    assert_eq!(ran.err, "mqadmin: ADDRESS answered CODE: 3  DESC:  request type 28 not supported\n");
}

#[tokio::test]
async fn json_is_strict() {
    let mut answers = cluster();
    answers.insert(RequestCode::GetBrokerRuntimeInfo, text(r#"{"table":{"putTps":"1.0"}}"#));
    let printed = prints(answers, "clusterList -o json -n ADDRESS").await;
    let rows: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        rows.to_string(),
        r#"[{"address":"ADDRESS","brokerId":0,"brokerName":"broker-a","cluster":"DefaultCluster","runtime":{"table":{"putTps":"1.0"}}}]"#
    );
    let route = prints(cluster(), "topicRoute -t T --output json -n ADDRESS").await;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&route).unwrap()["brokerDatas"][0]["brokerAddrs"]["0"],
        "ADDRESS"
    );
}

#[tokio::test]
async fn topics_are_listed() {
    let topics = r#"{"topicList":["TopicTest","%RETRY%G"]}"#;
    let answers = || {
        let mut answers = cluster();
        answers.insert(RequestCode::GetAllTopicListFromNameserver, text(topics));
        answers.insert(RequestCode::QueryTopicConsumeByWho, text(r#"{"groupList":["G"]}"#));
        answers
    };
    assert_eq!(prints(answers(), "topicList -n ADDRESS").await, "TopicTest\n%RETRY%G\n");
    assert_eq!(prints(answers(), "topicList -n ADDRESS -o json").await, "[\"TopicTest\",\"%RETRY%G\"]\n");
    check(
        &prints(answers(), "topicList -c -n ADDRESS").await,
        &format!(
            "{:<20}  {:<48}  #Consumer Group\n{:<20}  {:<64}  G\n",
            "#Cluster Name", "#Topic", "DefaultCluster", "TopicTest"
        ),
    );
    assert_eq!(prints(answers(), "topicClusterList -t TopicTest -n ADDRESS").await, "DefaultCluster\n");
}

#[tokio::test]
async fn topic_route_is_pretty_json_or_a_table() {
    let printed = prints(cluster(), "topicRoute -t T -n ADDRESS").await;
    assert!(printed.contains("\t\t\t\"brokerName\":\"broker-a\","), "{printed}");
    let printed = prints(cluster(), "topicRoute -l -t T -n ADDRESS").await;
    let last = printed.lines().last().unwrap();
    check(last, &format!("{:<45} {:<32} {:<50} {:<10} {:<11}", "Total:", 1, "", 2, 2));
    assert!(printed.contains("{0=ADDRESS}"));
}

#[tokio::test]
async fn topic_status_shows_offsets() {
    let mut answers = cluster();
    let stats = r#"{"offsetTable":{{"brokerName":"broker-a","queueId":1,"topic":"T"}:{"lastUpdateTimestamp":0,"maxOffset":9,"minOffset":4},{"brokerName":"broker-a","queueId":0,"topic":"T"}:{"lastUpdateTimestamp":0,"maxOffset":7,"minOffset":0}},"topicPutTps":0.0}"#;
    answers.insert(RequestCode::GetTopicStatsInfo, text(stats));
    check(
        &prints(answers, "topicStatus -t T -n ADDRESS").await,
        "#Broker Name                      #QID  #Min Offset           #Max Offset             #Last Updated\n\
         broker-a                          0     0                     7\n\
         broker-a                          1     4                     9\n\
         \n\
         Topic Put TPS: 0.0\n",
    );
}

#[tokio::test]
async fn update_topic_sends_what_was_asked() {
    let mut answers = cluster();
    answers.insert(RequestCode::UpdateAndCreateTopic, done());
    let line = "updateTopic -n ADDRESS -c DefaultCluster -t T -r 4 -w 5 -p 4 -a +message.type=FIFO,-x";
    let ran = mqadmin(answers, line).await;
    check(
        &ran.out,
        "create topic to ADDRESS success.\n\
         TopicConfig [topicName=T, readQueueNums=4, writeQueueNums=5, perm=R--, topicFilterType=SINGLE_TAG, \
         topicSysFlag=0, order=false, attributes={+message.type=FIFO, -x=}]\n",
    );
    let fields = &ran.sent(RequestCode::UpdateAndCreateTopic).ext_fields;
    let sent = ["topic", "defaultTopic", "readQueueNums", "writeQueueNums", "perm", "attributes", "order"]
        .map(|name| fields.get(name).unwrap_or_default().to_owned());
    assert_eq!(sent, ["T", "TBW102", "4", "5", "4", "+message.type=FIFO,-x", "false"]);
}

#[tokio::test]
async fn an_ordered_topic_is_noted_at_the_name_server() {
    let mut answers = cluster();
    answers.insert(RequestCode::UpdateAndCreateTopic, done());
    answers.insert(RequestCode::PutKvConfig, done());
    let ran = mqadmin(answers, "updateTopic -n ADDRESS -c DefaultCluster -t T -o true").await;
    assert!(ran.out.contains("set cluster orderConf. isOrder=true, orderConf=[broker-a:8]\n"), "{}", ran.out);
    assert_eq!(ran.sent(RequestCode::PutKvConfig).ext_fields.get("value"), Some("broker-a:8"));
    assert_eq!(ran.code, 0);
}

#[tokio::test]
async fn an_unknown_cluster_is_named() {
    let ran = mqadmin(cluster(), "updateTopic -n ADDRESS -c Other -t T").await;
    assert_eq!(ran.err, "mqadmin: the cluster Other does not exist; known: [DefaultCluster]\n");
    assert_eq!((ran.out.as_str(), ran.code), ("", 1));
}

#[tokio::test]
async fn a_topic_is_deleted_from_brokers_and_name_servers() {
    let mut answers = cluster();
    answers.insert(RequestCode::DeleteTopicInBroker, done());
    answers.insert(RequestCode::DeleteTopicInNamesrv, done());
    assert_eq!(
        prints(answers, "deleteTopic -n ADDRESS -c DefaultCluster -t T").await,
        "delete topic [T] from cluster [DefaultCluster] success.\ndelete topic [T] from NameServer success.\n"
    );
}

#[tokio::test]
async fn permissions_are_changed() {
    let mut answers = cluster();
    answers.insert(RequestCode::UpdateAndCreateTopic, done());
    let ran = mqadmin(answers, "updateTopicPerm -n ADDRESS -b ADDRESS -t T -p 4").await;
    assert!(ran.out.starts_with("update topic perm from 6 to 4 in ADDRESS success.\n"), "{}", ran.out);
    assert_eq!(ran.sent(RequestCode::UpdateAndCreateTopic).ext_fields.get("readQueueNums"), Some("2"));
    let printed = prints(cluster(), "updateTopicPerm -n ADDRESS -b ADDRESS -t T -p 6").await;
    assert_eq!(printed, "new perm equals to the old one!\n");
}

#[tokio::test]
async fn groups_are_made_and_deleted() {
    let mut answers = cluster();
    answers.insert(RequestCode::UpdateAndCreateSubscriptiongroup, done());
    let policy = r#"{"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[1000]}}"#;
    let line = format!("updateSubGroup -n ADDRESS -c DefaultCluster -g G -o true -r 3 -p {policy}");
    let ran = mqadmin(answers, &line).await;
    check(
        &ran.out,
        "create subscription group to ADDRESS success.\n\
         SubscriptionGroupConfig{groupName=G, consumeEnable=true, consumeFromMinEnable=false, \
         consumeBroadcastEnable=false, consumeMessageOrderly=true, retryQueueNums=1, retryMaxTimes=3, \
         groupRetryPolicy=GroupRetryPolicy{type=CUSTOMIZED, exponentialRetryPolicy=null, \
         customizedRetryPolicy=null}, brokerId=0, whichBrokerWhenConsumeSlowly=1, \
         notifyConsumerIdsChangedEnable=true, groupSysFlag=0, consumeTimeoutMinute=15, \
         subscriptionDataSet=null, attributes={}}\n",
    );
    let body = ran.sent(RequestCode::UpdateAndCreateSubscriptiongroup).body.to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["groupRetryPolicy"]["customizedRetryPolicy"]["next"][0], 1000);
    let mut answers = cluster();
    answers.insert(RequestCode::DeleteSubscriptiongroup, done());
    let ran = mqadmin(answers, "deleteSubGroup -n ADDRESS -b ADDRESS -g G -r true").await;
    assert_eq!(ran.out, "delete subscription group [G] from broker [ADDRESS] success.\n");
    assert_eq!(ran.sent(RequestCode::DeleteSubscriptiongroup).ext_fields.get("cleanOffset"), Some("true"));
}

const STATS: &str = r#"{"consumeTps":1.5,"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:{"brokerOffset":10,"consumerOffset":7,"lastTimestamp":0,"pullOffset":8}}}"#;
const CONSUMERS: &str = r#"{"connectionSet":[{"clientAddr":"192.0.2.9:4711","clientId":"192.0.2.9@1","language":"JAVA","version":513}],"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","subscriptionTable":{"T":{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":1,"tagsSet":[],"topic":"T"}}}"#;

#[tokio::test]
async fn consumer_progress_counts_what_is_left() {
    let answers = || {
        let mut answers = cluster();
        answers.insert(RequestCode::GetConsumeStats, text(STATS));
        answers.insert(RequestCode::GetConsumerConnectionList, text(CONSUMERS));
        answers.insert(RequestCode::GetAllTopicListFromNameserver, text(r#"{"topicList":["T","%RETRY%G"]}"#));
        let running = r#"{"mqTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:{"commitOffset":7}}}"#;
        answers.insert(RequestCode::GetConsumerRunningInfo, text(running));
        answers
    };
    let row = |client: &str| {
        format!(
            "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {client}{:<20} {:<20} N/A\n\n\
             Consume TPS: 1.50\nConsume Diff Total: 3\nConsume Inflight Total: 1\n",
            "T", "broker-a", 0, 10, 7, 3, 1
        )
    };
    let printed = prints(answers(), "consumerProgress -g G -n ADDRESS").await;
    let (header, rows) = printed.split_once('\n').unwrap();
    assert_eq!(rows, row(""));
    assert!(header.ends_with("#Diff                #Inflight           #LastTime"), "{header}");
    let printed = prints(answers(), "consumerProgress -g G -s true -n ADDRESS").await;
    assert_eq!(printed.split_once('\n').unwrap().1, row("192.0.2.9            "));
    check(
        &prints(answers(), "consumerProgress -n ADDRESS").await,
        &format!(
            "{:<64}  #Count  #Version                 #Type  #Model          #TPS     #Diff Total\n\
             {:<64}  1       V5_5_0                   PUSH   CLUSTERING      1        3\n",
            "#Group", "G"
        ),
    );
}

#[tokio::test]
async fn a_group_without_consumers_is_offline() {
    let mut answers = cluster();
    answers.insert(RequestCode::GetAllTopicListFromNameserver, text(r#"{"topicList":["%RETRY%G"]}"#));
    answers.insert(RequestCode::GetConsumeStats, text(STATS));
    let not_online = "the consumer group[G] not online";
    answers
        .insert(RequestCode::GetConsumerConnectionList, refusal(ResponseCode::ConsumerNotOnline, not_online));
    let printed = prints(answers, "consumerProgress -n ADDRESS").await;
    check(
        printed.lines().nth(1).unwrap(),
        &format!("{:<64}  0       OFFLINE                                         1        3", "G"),
    );
}

#[tokio::test]
async fn connections_are_listed() {
    let mut answers = cluster();
    answers.insert(RequestCode::GetConsumerConnectionList, text(CONSUMERS));
    check(
        &prints(answers, "consumerConnection -g G -n ADDRESS").await,
        "#ClientId                            #ClientAddr            #Language  #Version\n\
         192.0.2.9@1                          192.0.2.9:4711         JAVA       V5_5_0\n\
         \n\
         Below is subscription:\n\
         #Topic               #SubExpression\n\
         T                    *\n\
         \n\
         ConsumeType: CONSUME_PASSIVELY\n\
         MessageModel: CLUSTERING\n\
         ConsumeFromWhere: CONSUME_FROM_LAST_OFFSET\n",
    );
    let mut answers = cluster();
    let producers =
        r#"{"connectionSet":[{"clientAddr":"192.0.2.9:4711","clientId":"c","language":"GO","version":317}]}"#;
    answers.insert(RequestCode::GetProducerConnectionList, text(producers));
    assert_eq!(
        prints(answers, "producerConnection -g P -t T -n ADDRESS").await,
        "0001  c                                192.0.2.9:4711         GO       V4_5_2\n"
    );
}

#[tokio::test]
async fn settings_are_shown_and_changed() {
    let mut answers = cluster();
    answers.insert(RequestCode::GetBrokerConfig, text("b=2\na=x y\n"));
    answers.insert(RequestCode::GetNamesrvConfig, text("listenPort=9876\n"));
    let a = format!("{:<50}=  x y\n", "a");
    let b = format!("{:<50}=  2\n", "b");
    let printed = prints(answers, "getBrokerConfig -c DefaultCluster -n ADDRESS").await;
    assert_eq!(printed, format!("============Master: ADDRESS============\n{a}{b}\n"));
    let mut answers = cluster();
    answers.insert(RequestCode::UpdateBrokerConfig, done());
    let ran =
        mqadmin(answers, "updateBrokerConfig -b ADDRESS -k flushDiskType -v SYNC_FLUSH -n ADDRESS").await;
    assert_eq!((ran.out.as_str(), ran.code), ("update broker config success, ADDRESS\n", 0));
    let body = ran.sent(RequestCode::UpdateBrokerConfig).body.to_bytes();
    assert_eq!(body, "flushDiskType=SYNC_FLUSH\n");
}

#[tokio::test]
async fn name_server_commands_speak_to_all_of_them() {
    let mut answers = cluster();
    answers.insert(RequestCode::PutKvConfig, done());
    answers
        .insert(RequestCode::WipeWritePermOfBroker, Box::new(|_, _| ok().with_field("wipeTopicCount", "3")));
    answers.insert(RequestCode::AddWritePermOfBroker, Box::new(|_, _| ok().with_field("addTopicCount", "3")));
    let ran = mqadmin(answers, "wipeWritePerm -b broker-a -n ADDRESS;127.0.0.1:1").await;
    check(
        &ran.out,
        "wipe write perm of broker[broker-a] in name server[ADDRESS] OK, 3\n\
         wipe write perm of broker[broker-a] in name server[127.0.0.1:1] Failed\n",
    );
    assert_eq!(ran.code, 1);
    assert!(ran.err.starts_with("mqadmin: connect to 127.0.0.1:1: "), "{}", ran.err);
}

/// Returns the record of a message with one key, a tag and an unique id.
fn record(store_host: &str, queue_offset: u64, body: &[u8], sys_flag: i32) -> Vec<u8> {
    let message = Message {
        topic: "T",
        queue_id: 1,
        flag: 0,
        sys_flag: SysFlag(sys_flag),
        born_timestamp: 1_000,
        born_host: "192.0.2.9:4711".parse().unwrap(),
        store_host: store_host.parse().unwrap(),
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        properties: "KEYS\u{1}k1 k2\u{2}TAGS\u{1}A\u{2}UNIQ_KEY\u{1}7F000001ABCD\u{2}",
    };
    let mut bytes = Vec::new();
    encode_record(&message, &mut bytes).unwrap();
    patch_record(&mut bytes, QueueOffset(queue_offset), PhysicalOffset(256), 2_000);
    bytes
}

fn records() -> Handler {
    Box::new(|address, _| ok().with_body(record(address, 5, b"hello", 0)))
}

#[tokio::test]
async fn messages_are_found_by_id() {
    let mut answers = cluster();
    answers.insert(RequestCode::ViewMessageById, records());
    answers.insert(RequestCode::QueryMessage, records());
    answers.insert(RequestCode::QueryTopicConsumeByWho, text(r#"{"groupList":["G"]}"#));
    answers.insert(RequestCode::GetConsumerConnectionList, text(CONSUMERS));
    let consumed = STATS.replace("\"queueId\":0", "\"queueId\":1");
    answers.insert(RequestCode::GetConsumeStats, Box::new(move |_, _| ok().with_body(consumed.clone())));
    let printed = prints(answers, "queryMsgById -t T -i 7F000001ABCD -f utf-8 -n ADDRESS").await;
    let lines: Vec<_> = printed.lines().filter(|line| !line.contains("Timestamp:")).collect();
    let path = std::env::temp_dir().join("rocketmq/msgbodys/7F000001ABCD");
    let body_path = format!("Message Body Path:   {}", path.display());
    assert!(lines[0].starts_with("OffsetID:            7F000001") && lines[0].ends_with("0000000000000100"));
    assert_eq!(
        lines[1..],
        [
            "Topic:               T",
            "Tags:                [A]",
            "Keys:                [k1 k2]",
            "Queue ID:            1",
            "Queue Offset:        5",
            "CommitLog Offset:    256",
            "Reconsume Times:     0",
            "Born Host:           192.0.2.9:4711",
            "Store Host:          ADDRESS",
            "System Flag:         0",
            "Properties:          {KEYS=k1 k2, TAGS=A, UNIQ_KEY=7F000001ABCD}",
            &body_path,
            "Message Body:        hello",
            "",
            "",
            "MessageTrack [consumerGroup=G, trackType=CONSUMED, exceptionDesc=null]",
        ]
    );
    assert_eq!(crate::env::Disk::real().read(&path).unwrap(), b"hello");
}

#[tokio::test]
async fn a_message_that_is_not_there_is_exit_code_1() {
    let mut answers = cluster();
    answers.insert(RequestCode::QueryMessage, refusal(ResponseCode::QueryNotFound, "can not find message"));
    let ran = mqadmin(answers, "queryMsgByUniqueKey -t T -i X -n ADDRESS").await;
    assert_eq!(ran.err, "mqadmin: there is no message X in the topic T\n");
    assert_eq!(ran.code, 1);
}

#[tokio::test]
async fn messages_are_found_by_key() {
    let mut answers = cluster();
    answers.insert(RequestCode::QueryMessage, records());
    let ran = mqadmin(answers, "queryMsgByKey -t T -k k2 -n ADDRESS").await;
    let row = format!("{:<50} {:>4} {:>40} {:<200}", "7F000001ABCD", 1, 5, "0@T@K@k2@7F000001ABCD@256");
    assert_eq!(ran.out.lines().nth(1), Some(row.as_str()));
    assert_eq!(ran.sent(RequestCode::QueryMessage).ext_fields.get("_UNIQUE_KEY_QUERY"), Some("false"));
    let mut answers = cluster();
    answers.insert(RequestCode::QueryMessage, records());
    // The index knows hashes: a message with another key of the same hash is not shown.
    assert_eq!(prints(answers, "queryMsgByKey -t T -k k3 -n ADDRESS").await.lines().count(), 1);
}

#[tokio::test]
async fn a_message_is_sent() {
    let mut answers = cluster();
    answers.insert(
        RequestCode::SendMessageV2,
        Box::new(|_, _| {
            let fields = [("msgId", "0A"), ("queueId", "1"), ("queueOffset", "9")];
            fields.into_iter().fold(ok(), |answer, (key, value)| answer.with_field(key, value))
        }),
    );
    let ran = mqadmin(answers, "sendMessage -t T -p hello -c A -k k1~k2 -b broker-a -i 1 -n ADDRESS").await;
    assert_eq!((ran.err.as_str(), ran.code), ("", 0));
    let row = ran.out.lines().nth(1).unwrap();
    assert!(row.starts_with("broker-a                          1     SEND_OK                 "), "{row}");
    let sent = ran.sent(RequestCode::SendMessageV2);
    assert_eq!((sent.ext_fields.get("b"), sent.ext_fields.get("e")), (Some("T"), Some("1")));
    let properties = sent.ext_fields.get("i").unwrap();
    assert!(
        properties.contains("TAGS\u{1}A\u{2}") && properties.contains("KEYS\u{1}k1 k2"),
        "{properties:?}"
    );
    assert_eq!(sent.body.to_bytes(), "hello");
}

#[tokio::test]
async fn messages_are_printed_queue_by_queue() {
    let offset = |value: &'static str| -> Handler { Box::new(move |_, _| ok().with_field("offset", value)) };
    let answers = || {
        let mut answers = cluster();
        answers.insert(RequestCode::GetMinOffset, offset("5"));
        answers.insert(RequestCode::GetMaxOffset, offset("7"));
        answers.insert(
            RequestCode::PullMessage,
            Box::new(|address, request| {
                let at: u64 = request.ext_fields.get("queueOffset").unwrap().parse().unwrap();
                let header = remoting::header::PullMessageResponseHeader {
                    suggest_which_broker_id: 0,
                    next_begin_offset: i64::try_from(at).unwrap() + 1,
                    min_offset: 5,
                    max_offset: 7,
                    offset_delta: None,
                    topic_sys_flag: None,
                    group_sys_flag: None,
                    forbidden_type: None,
                };
                ok().with_header(&header).with_body(record(address, at, b"hi", 0))
            }),
        );
        answers
    };
    let printed = prints(answers(), "printMsg -t T -n ADDRESS").await;
    let lines: Vec<_> = printed.lines().collect();
    assert_eq!(lines.len(), 8, "{printed}");
    assert_eq!(lines[0], "minOffset=5, maxOffset=7, MessageQueue [topic=T, brokerName=broker-a, queueId=0]");
    let message = "MSGID: 7F000001ABCD MessageExt [brokerName=broker-a, queueId=1, storeSize=";
    assert!(lines[1].starts_with(message), "{}", lines[1]);
    assert!(lines[1].ends_with("body=[104, 105], transactionId='null'}] BODY: hi"), "{}", lines[1]);
    let line = "consumeMessage -t T -b broker-a -i 1 -o 6 --output json -n ADDRESS";
    let message: serde_json::Value = serde_json::from_str(&prints(answers(), line).await).unwrap();
    assert_eq!((&message["queueOffset"], &message["body"]), (&6.into(), &"hi".into()));
}

#[tokio::test]
async fn wrong_command_lines_are_exit_code_2() {
    for (line, expected) in [
        ("nosuch", "The sub command nosuch not exist.\n"),
        ("help nosuch", "The sub command nosuch not exist.\n"),
        ("topicRoute", ""),
        ("updateTopic -t T -c C -p x", ""),
        ("updateTopic -t T", ""),
        ("topicList -o xml", ""),
    ] {
        let ran = mqadmin(Answers::new(), line).await;
        assert_eq!((ran.out.as_str(), ran.code), (expected, 2), "{line}");
        assert_eq!(ran.err.is_empty(), !expected.is_empty(), "{line}: {}", ran.err);
    }
}

#[tokio::test]
async fn help_is_printed_whatever_the_case() {
    for line in ["help updatetopic", "UPDATETOPIC -h"] {
        let ran = mqadmin(Answers::new(), line).await;
        assert!(ran.out.contains("-w, --writeQueueNums") && ran.code == 0, "{line}: {}", ran.out);
    }
    let ran = mqadmin(Answers::new(), "help").await;
    assert!(
        ran.out.starts_with("The most commonly used mqadmin commands are:\n   updateTopic   "),
        "{}",
        ran.out
    );
}

#[tokio::test]
async fn the_next_name_server_is_asked_when_one_is_down() {
    let mut answers = cluster();
    answers.insert(RequestCode::GetAllTopicListFromNameserver, text(r#"{"topicList":["T"]}"#));
    assert_eq!(prints(answers, "topicList -n 127.0.0.1:1;ADDRESS").await, "T\n");
}
