//! Frames captured from stock clients, name servers and brokers: read, and written as they were.

use std::path::{Path, PathBuf};

use bytes::BytesMut;
use quorate::model::{DataVersion, SubscriptionGroupConfig, TopicConfig};
use quorate::remoting::body::*;
use quorate::remoting::header::*;
use quorate::remoting::{Body, Command, RequestCode, SerializeType, frame, json};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A frame and what its file's name says.
struct Captured {
    path: PathBuf,
    code: RequestCode,
    is_response: bool,
    bytes: Vec<u8>,
}

impl Captured {
    fn command(&self) -> Command {
        let mut buf = BytesMut::from(&self.bytes[..]);
        let command = frame::decode(&mut buf, 16 << 20).unwrap().expect("a whole frame");
        assert!(buf.is_empty(), "{}", self.path.display());
        command
    }

    fn name(&self) -> String {
        let folder = self.path.parent().and_then(Path::file_name).unwrap().to_string_lossy();
        format!("{folder}/{}", self.path.file_name().unwrap().to_string_lossy())
    }
}

#[expect(clippy::disallowed_methods, reason = "tests read their own files")]
fn captured() -> Vec<Captured> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire");
    let mut all = Vec::new();
    for client in ["java-5.5.0", "java-4.9.8", "go-2.1.2"] {
        for entry in std::fs::read_dir(folder.join(client)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let code: i32 = name.split('-').next().unwrap().parse().unwrap();
            let code = RequestCode::try_from(code).unwrap();
            let is_response = name.contains("-response");
            all.push(Captured { bytes: std::fs::read(&path).unwrap(), path, code, is_response });
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(all.len() > 300, "the captures are there");
    all
}

#[test]
fn frames_are_read_and_written_as_they_were() {
    for captured in captured() {
        let command = captured.command();
        assert_eq!(command.is_response(), captured.is_response, "{}", captured.name());
        if !captured.is_response {
            assert_eq!(command.code, captured.code.number(), "{}", captured.name());
        }
        let binary = captured.name().ends_with("-binary.bin");
        assert_eq!(command.serialize_type == SerializeType::Binary, binary, "{}", captured.name());
        if captured.name().starts_with("java") {
            let (theirs, ours) =
                (without_empty_fields(&captured.bytes), without_empty_fields(&command.to_bytes()));
            assert_eq!(theirs, ours, "{}", captured.name());
        } else {
            // Go has its own order of members.
            let again = frame::decode(&mut BytesMut::from(&command.to_bytes()[..]), 16 << 20);
            assert_eq!(again.unwrap().unwrap(), command, "{}", captured.name());
        }
    }
}

/// Takes away what Java writes or leaves out depending on how a command was made, and the lengths, which depend on it.
fn without_empty_fields(frame: &[u8]) -> String {
    String::from_utf8_lossy(&frame[8..]).replace("\"extFields\":{},", "")
}

/// Fields that are not the header's own: those of every RPC, and what hooks and traces add. `removeOffset` is what a
/// 4.9.8 tool calls `cleanOffset`; a 5.5.0 broker does not see it either.
const FOREIGN: [&str; 15] = [
    "ns",
    "nsd",
    "bname",
    "brokerName",
    "oway",
    "lo",
    "MSG_REGION",
    "TRACE_ON",
    "ReqT",
    "removeOffset",
    "_UNIQUE_KEY_QUERY",
    "IS_SUPPORT_HEART_BEAT_V2",
    "IS_SUB_CHANGE",
    "__ZONE_NAME",
    "__ZONE_MODE",
];

/// Reads the fields as `H`, writes them, and returns the names that came out differently.
fn header<H: Serialize + DeserializeOwned>(command: &Command) -> Result<Vec<String>, String> {
    let header: H = command.header().map_err(|error| error.to_string())?;
    let written = Command::request(RequestCode::HeartBeat).with_header(&header);
    let (read, written) = (&command.ext_fields, &written.ext_fields);
    let lost = read.iter().filter(|(key, value)| written.get(key) != Some(value));
    // A boolean that is absent is false.
    let added = written.iter().filter(|(key, value)| read.get(key).is_none() && *value != "false");
    Ok(lost
        .chain(added)
        .map(|(key, _)| key.to_owned())
        .filter(|key| !FOREIGN.contains(&key.as_str()))
        .collect())
}

fn request_header(command: &Command) -> Result<Vec<String>, String> {
    use RequestCode as C;
    match command.request_code().unwrap() {
        C::SendMessage | C::SendReplyMessage => header::<SendMessageHeader>(command),
        C::SendMessageV2 | C::SendBatchMessage | C::SendReplyMessageV2 => {
            header::<SendMessageHeaderV2>(command)
        }
        C::PullMessage | C::LitePullMessage => header::<PullMessageRequestHeader>(command),
        C::QueryMessage => header::<QueryMessageRequestHeader>(command),
        C::QueryConsumerOffset => header::<QueryConsumerOffsetRequestHeader>(command),
        C::UpdateConsumerOffset => header::<UpdateConsumerOffsetRequestHeader>(command),
        C::UpdateAndCreateTopic => header::<CreateTopicRequestHeader>(command),
        C::GetAllTopicConfig => header::<GetAllTopicConfigRequestHeader>(command),
        C::SearchOffsetByTimestamp => header::<SearchOffsetRequestHeader>(command),
        C::GetMaxOffset => header::<GetMaxOffsetRequestHeader>(command),
        C::GetMinOffset | C::GetEarliestMsgStoretime => header::<GetMinOffsetRequestHeader>(command),
        C::ViewMessageById => header::<ViewMessageRequestHeader>(command),
        C::UnregisterClient => header::<UnregisterClientRequestHeader>(command),
        C::ConsumerSendMsgBack => header::<ConsumerSendMsgBackRequestHeader>(command),
        C::EndTransaction => header::<EndTransactionRequestHeader>(command),
        C::GetConsumerListByGroup => header::<GetConsumerListByGroupRequestHeader>(command),
        C::CheckTransactionState => header::<CheckTransactionStateRequestHeader>(command),
        C::NotifyConsumerIdsChanged => header::<NotifyConsumerIdsChangedRequestHeader>(command),
        C::PutKvConfig => header::<PutKvConfigRequestHeader>(command),
        C::GetKvConfig | C::DeleteKvConfig => header::<KvConfigRequestHeader>(command),
        C::RegisterBroker => header::<RegisterBrokerRequestHeader>(command),
        C::UnregisterBroker => header::<UnregisterBrokerRequestHeader>(command),
        C::GetRouteinfoByTopic => header::<GetRouteInfoRequestHeader>(command),
        C::GetAllSubscriptiongroupConfig => header::<GetAllSubscriptionGroupRequestHeader>(command),
        C::GetTopicStatsInfo => header::<GetTopicStatsInfoRequestHeader>(command),
        C::GetConsumerConnectionList => header::<GetConsumerConnectionListRequestHeader>(command),
        C::GetProducerConnectionList => header::<GetProducerConnectionListRequestHeader>(command),
        C::WipeWritePermOfBroker | C::AddWritePermOfBroker => header::<BrokerNameRequestHeader>(command),
        C::DeleteSubscriptiongroup => header::<DeleteSubscriptionGroupRequestHeader>(command),
        C::GetConsumeStats => header::<GetConsumeStatsRequestHeader>(command),
        C::DeleteTopicInBroker => header::<DeleteTopicRequestHeader>(command),
        C::DeleteTopicInNamesrv => header::<DeleteTopicFromNamesrvRequestHeader>(command),
        C::RegisterTopicInNamesrv => header::<RegisterTopicRequestHeader>(command),
        C::GetKvlistByNamespace => header::<GetKvListByNamespaceRequestHeader>(command),
        C::GetConsumerStatusFromClient | C::InvokeBrokerToGetConsumerStatus => {
            header::<GetConsumerStatusRequestHeader>(command)
        }
        C::InvokeBrokerToResetOffset | C::ResetConsumerClientOffset => {
            header::<ResetOffsetRequestHeader>(command)
        }
        C::GetTopicsByCluster => header::<GetTopicsByClusterRequestHeader>(command),
        C::QueryTopicConsumeByWho => header::<QueryTopicConsumeByWhoRequestHeader>(command),
        C::QueryConsumeTimeSpan => header::<QueryConsumeTimeSpanRequestHeader>(command),
        C::GetConsumerRunningInfo => header::<GetConsumerRunningInfoRequestHeader>(command),
        C::ConsumeMessageDirectly => header::<ConsumeMessageDirectlyResultRequestHeader>(command),
        C::CloneGroupOffset => header::<CloneGroupOffsetRequestHeader>(command),
        C::ViewBrokerStatsData => header::<ViewBrokerStatsDataRequestHeader>(command),
        C::GetBrokerConsumeStats => header::<GetConsumeStatsInBrokerHeader>(command),
        C::QueryConsumeQueue => header::<QueryConsumeQueueRequestHeader>(command),
        C::QueryDataVersion => header::<QueryDataVersionRequestHeader>(command),
        C::PushReplyMessageToClient => header::<ReplyMessageRequestHeader>(command),
        C::QueryTopicsByConsumer => header::<QueryTopicsByConsumerRequestHeader>(command),
        C::QuerySubscriptionByConsumer => header::<QuerySubscriptionByConsumerRequestHeader>(command),
        C::GetTopicConfig => header::<GetTopicConfigRequestHeader>(command),
        C::GetSubscriptiongroupConfig => header::<GetSubscriptionGroupConfigRequestHeader>(command),
        C::UpdateAndGetGroupForbidden => header::<UpdateGroupForbiddenRequestHeader>(command),
        C::RecallMessage => header::<RecallMessageRequestHeader>(command),
        C::GetBrokerMemberGroup => header::<GetBrokerMemberGroupRequestHeader>(command),
        C::BrokerHeartbeat => header::<BrokerHeartbeatRequestHeader>(command),
        C::PopMessage => header::<PopMessageRequestHeader>(command),
        C::AckMessage => header::<AckMessageRequestHeader>(command),
        C::ChangeMessageInvisibletime => header::<ChangeInvisibleTimeRequestHeader>(command),
        C::Notification => header::<NotificationRequestHeader>(command),
        _ => header::<Nothing>(command),
    }
}

/// A header without fields of its own.
#[derive(serde::Serialize, serde::Deserialize)]
struct Nothing {}

fn response_header(code: RequestCode, command: &Command) -> Result<Vec<String>, String> {
    use RequestCode as C;
    match code {
        C::SendMessage
        | C::SendReplyMessage
        | C::SendMessageV2
        | C::SendBatchMessage
        | C::SendReplyMessageV2 => header::<SendMessageResponseHeader>(command),
        C::PullMessage | C::LitePullMessage => header::<PullMessageResponseHeader>(command),
        C::QueryMessage => header::<QueryMessageResponseHeader>(command),
        C::QueryConsumerOffset | C::SearchOffsetByTimestamp | C::GetMaxOffset | C::GetMinOffset => {
            header::<OffsetResponseHeader>(command)
        }
        C::GetEarliestMsgStoretime => header::<GetEarliestMsgStoretimeResponseHeader>(command),
        C::GetAllTopicConfig => header::<GetAllTopicConfigResponseHeader>(command),
        C::GetAllSubscriptiongroupConfig => header::<GetAllSubscriptionGroupResponseHeader>(command),
        C::GetBrokerConfig => header::<GetBrokerConfigResponseHeader>(command),
        C::GetKvConfig => header::<GetKvConfigResponseHeader>(command),
        C::RegisterBroker => header::<RegisterBrokerResponseHeader>(command),
        C::WipeWritePermOfBroker => header::<WipeWritePermOfBrokerResponseHeader>(command),
        C::AddWritePermOfBroker => header::<AddWritePermOfBrokerResponseHeader>(command),
        C::QueryDataVersion => header::<QueryDataVersionResponseHeader>(command),
        C::RecallMessage => header::<RecallMessageResponseHeader>(command),
        C::PopMessage => header::<PopMessageResponseHeader>(command),
        C::ChangeMessageInvisibletime => header::<ChangeInvisibleTimeResponseHeader>(command),
        C::Notification => header::<NotificationResponseHeader>(command),
        _ => header::<Nothing>(command),
    }
}

#[test]
fn headers_have_the_fields_that_clients_and_servers_send() {
    let mut wrong = Vec::new();
    for captured in captured() {
        let command = captured.command();
        let result = if !captured.is_response {
            request_header(&command)
        } else if command.code == 0 {
            response_header(captured.code, &command)
        } else {
            continue;
        };
        match result {
            Ok(fields) if fields.is_empty() => {}
            Ok(fields) => wrong.push(format!("{}: {fields:?}", captured.name())),
            Err(error) => wrong.push(format!("{}: {error}", captured.name())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Members that Java derives from others or that this broker does not have.
const DERIVED: [&str; 7] = [
    "consumeTimeStampStr",
    "maxTimeStampStr",
    "minTimeStampStr",
    "topicQueueMappingDetailMap",
    "mappingDetail",
    "groupTopicMap",
    "pullOffsetTable",
];

/// Reads a body as `T` and writes it; returns what got lost.
fn body<T: Serialize + DeserializeOwned>(body: &Body) -> Result<Vec<String>, String> {
    let bytes = body.to_bytes();
    let value: T = json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let mut lost = Vec::new();
    let tree = |bytes: &[u8]| json::from_slice::<Value>(bytes).map_err(|error| error.to_string());
    compare("", &tree(&bytes)?, &tree(&json::to_vec(&value))?, &mut lost);
    Ok(lost)
}

/// Notes what of `theirs` is not in `ours`. Java's sets and maps have no order.
fn compare(path: &str, theirs: &Value, ours: &Value, lost: &mut Vec<String>) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs.iter().filter(|(key, _)| !DERIVED.contains(&key.as_str())) {
                compare(&format!("{path}.{key}"), value, ours.get(key).unwrap_or(&Value::Null), lost);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            for value in theirs {
                let mut best = vec![format!("{path}: {value}")];
                for candidate in ours {
                    let mut differences = Vec::new();
                    compare(path, value, candidate, &mut differences);
                    if differences.is_empty() {
                        best.clear();
                    }
                }
                lost.extend(best);
            }
        }
        (theirs, ours) if scalar(theirs) == scalar(ours) => {}
        (theirs, ours) => lost.push(format!("{path}: {theirs} became {ours}")),
    }
}

/// Go writes some numbers as texts.
fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn json_body(code: RequestCode, is_response: bool, bytes: &Body) -> Option<Result<Vec<String>, String>> {
    use RequestCode as C;
    Some(match (code, is_response) {
        (C::HeartBeat, false) => body::<HeartbeatData>(bytes),
        (C::GetConsumerListByGroup, true) => body::<GetConsumerListByGroupResponseBody>(bytes),
        (C::LockBatchMq | C::UnlockBatchMq, false) => body::<LockBatchRequestBody>(bytes),
        (C::LockBatchMq, true) => body::<LockBatchResponseBody>(bytes),
        (C::GetAllConsumerOffset, true) => body::<ConsumerOffsetSerializeWrapper>(bytes),
        (C::GetAllDelayOffset, true) => body::<DelayOffsetSerializeWrapper>(bytes),
        (C::CheckClientConfig, false) => body::<CheckClientRequestBody>(bytes),
        (C::RegisterBroker, false) => body::<RegisterBrokerBody>(bytes),
        (C::GetRouteinfoByTopic, true) | (C::RegisterTopicInNamesrv, false) => body::<TopicRouteData>(bytes),
        (C::GetBrokerClusterInfo, true) => body::<ClusterInfo>(bytes),
        (C::UpdateAndCreateSubscriptiongroup, false) => body::<SubscriptionGroupConfig>(bytes),
        (C::GetAllSubscriptiongroupConfig, true) => body::<SubscriptionGroupWrapper>(bytes),
        (C::GetAllTopicConfig, true) => body::<TopicConfigAndMappingSerializeWrapper>(bytes),
        (C::GetTopicStatsInfo, true) => body::<TopicStatsTable>(bytes),
        (C::GetConsumerConnectionList, true) => body::<ConsumerConnection>(bytes),
        (C::GetProducerConnectionList, true) => body::<ProducerConnection>(bytes),
        (
            C::GetAllTopicListFromNameserver
            | C::GetTopicsByCluster
            | C::GetSystemTopicListFromNs
            | C::GetSystemTopicListFromBroker
            | C::QueryTopicsByConsumer,
            true,
        ) => body::<TopicList>(bytes),
        (C::GetConsumeStats, true) => body::<ConsumeStats>(bytes),
        (C::GetKvlistByNamespace | C::GetBrokerRuntimeInfo, true) => body::<KvTable>(bytes),
        (C::GetConsumerStatusFromClient | C::InvokeBrokerToGetConsumerStatus, true) => {
            body::<GetConsumerStatusBody>(bytes)
        }
        (C::InvokeBrokerToResetOffset, true) | (C::ResetConsumerClientOffset, false) => {
            body::<ResetOffsetBody>(bytes)
        }
        (C::QueryTopicConsumeByWho, true) => body::<GroupList>(bytes),
        (C::QueryConsumeTimeSpan, true) => body::<QueryConsumeTimeSpanBody>(bytes),
        (C::ConsumeMessageDirectly, true) => body::<ConsumeMessageDirectlyResult>(bytes),
        (C::ViewBrokerStatsData, true) => body::<BrokerStatsData>(bytes),
        (C::GetBrokerConsumeStats, true) => body::<ConsumeStatsList>(bytes),
        (C::QueryConsumeQueue, true) => body::<QueryConsumeQueueResponseBody>(bytes),
        (C::QueryDataVersion, _) => body::<DataVersion>(bytes),
        (C::GetAllProducerInfo, true) => body::<ProducerTableInfo>(bytes),
        (C::QuerySubscriptionByConsumer, true) => body::<QuerySubscriptionResponseBody>(bytes),
        (C::GetTopicConfig, true) => body::<TopicConfig>(bytes),
        (C::UpdateAndGetGroupForbidden, true) => body::<GroupForbidden>(bytes),
        (C::QueryAssignment, false) => body::<QueryAssignmentRequestBody>(bytes),
        (C::QueryAssignment, true) => body::<QueryAssignmentResponseBody>(bytes),
        (C::SetMessageRequestMode, false) => body::<SetMessageRequestModeRequestBody>(bytes),
        (C::GetBrokerMemberGroup, true) => body::<GetBrokerMemberGroupResponseBody>(bytes),
        _ => return None,
    })
}

#[test]
fn bodies_are_read_and_written_as_they_were() {
    let mut wrong = Vec::new();
    for captured in captured() {
        let command = captured.command();
        if command.body.is_empty() || captured.is_response && command.code != 0 {
            continue;
        }
        match json_body(captured.code, captured.is_response, &command.body) {
            None => {}
            Some(Ok(lost)) => wrong.extend(lost.iter().map(|lost| format!("{}: {lost}", captured.name()))),
            Some(Err(error)) => wrong.push(format!("{}: {error}", captured.name())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn routes_are_written_as_java_does() {
    for captured in captured() {
        let command = captured.command();
        if captured.code == RequestCode::GetRouteinfoByTopic && captured.is_response && command.code == 0 {
            let route: TopicRouteData = command.json().unwrap();
            // The Go client says that it is older than 4.9.4.
            let go = captured.name().starts_with("go");
            let style = if go { json::Style::Compact } else { json::Style::Standard };
            let bytes = json::to_vec_styled(&route, style);
            assert_eq!(bytes, command.body.to_bytes(), "{}", captured.name());
        }
    }
}
