//! What clients, brokers and name servers send each other: frames, headers, bodies.

use std::fmt::Debug;
use std::io::Write;

use bytes::BytesMut;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use quorate::model::{DataVersion, SubscriptionGroupConfig, TopicConfig};
use quorate::remoting::body::*;
use quorate::remoting::header::*;
use quorate::remoting::{Command, RequestCode, frame, json, version};
use serde::Serialize;
use serde::de::DeserializeOwned;

const FRAME_MAX: usize = 16 << 20;

pub(super) fn frame(data: &[u8]) {
    let mut buf = BytesMut::from(data);
    // As a connection does: frame after frame.
    loop {
        let before = buf.len();
        let length = buf.first_chunk().map(|length| u32::from_be_bytes(*length) as usize);
        match frame::decode(&mut buf, FRAME_MAX) {
            Ok(Some(command)) => {
                assert_eq!(Some(before - buf.len() - 4), length, "one frame is taken");
                assert!(command.body.len() <= before);
                again(&command);
            }
            Ok(None) => {
                assert_eq!(buf.len(), before, "an incomplete frame stays");
                assert!(length.is_none_or(|length| before < length + 4));
                return;
            }
            Err(_) => return,
        }
    }
}

/// Writes a command and reads it again, as a replica does that hands a request on.
fn again(command: &Command) {
    let bytes = command.to_bytes();
    let mut buf = BytesMut::from(&bytes[..]);
    let read =
        frame::decode(&mut buf, usize::MAX).expect("what was written can be read").expect("it is whole");
    assert!(buf.is_empty());
    assert_eq!(read, *command);
}

macro_rules! each {
    ($function:ident($argument:expr): $($kind:ident),* $(,)?) => {
        $($function::<$kind>($argument);)*
    };
}

/// A header of either kind, read as each of the headers that there are. The first byte says which kind.
pub(super) fn header(data: &[u8]) {
    let Some((kind, header)) = data.split_first() else { return };
    let Ok(length) = u32::try_from(header.len()) else { return };
    let [_, high, middle, low] = length.to_be_bytes();
    let head = [&(length + 4).to_be_bytes()[..], &[kind % 2, high, middle, low]].concat();
    let mut buf = BytesMut::from(&[&head, header].concat()[..]);
    let Ok(Some(command)) = frame::decode(&mut buf, FRAME_MAX) else { return };
    again(&command);
    each!(fields(&command):
        AckMessageRequestHeader, AclRequestHeader, AddWritePermOfBrokerResponseHeader,
        BrokerHeartbeatRequestHeader, BrokerNameRequestHeader, ChangeInvisibleTimeRequestHeader,
        ChangeInvisibleTimeResponseHeader, CheckTransactionStateRequestHeader,
        CloneGroupOffsetRequestHeader, ConsumeMessageDirectlyResultRequestHeader,
        ConsumerSendMsgBackRequestHeader, CreateTopicRequestHeader, DeleteAclRequestHeader,
        DeleteSubscriptionGroupRequestHeader, DeleteTopicFromNamesrvRequestHeader,
        DeleteTopicRequestHeader, EndTransactionRequestHeader, ExchangeHaInfoHeader,
        GetAllSubscriptionGroupRequestHeader, GetAllSubscriptionGroupResponseHeader,
        GetAllTopicConfigRequestHeader, GetAllTopicConfigResponseHeader,
        GetBrokerConfigResponseHeader, GetBrokerMemberGroupRequestHeader,
        GetConsumeStatsInBrokerHeader, GetConsumeStatsRequestHeader,
        GetConsumerConnectionListRequestHeader, GetConsumerListByGroupRequestHeader,
        GetConsumerRunningInfoRequestHeader, GetConsumerStatusRequestHeader,
        GetEarliestMsgStoretimeResponseHeader, GetKvConfigResponseHeader,
        GetKvListByNamespaceRequestHeader, GetMaxOffsetRequestHeader, GetMinOffsetRequestHeader,
        GetProducerConnectionListRequestHeader, GetRouteInfoRequestHeader,
        GetSubscriptionGroupConfigRequestHeader, GetTopicConfigRequestHeader,
        GetTopicStatsInfoRequestHeader, GetTopicsByClusterRequestHeader, KvConfigRequestHeader,
        ListAclsRequestHeader, ListUsersRequestHeader, NotificationRequestHeader,
        NotificationResponseHeader, NotifyConsumerIdsChangedRequestHeader,
        NotifyMinBrokerIdChangeRequestHeader, OffsetResponseHeader, PeekMessageRequestHeader,
        PollingInfoRequestHeader, PollingInfoResponseHeader, PopMessageRequestHeader,
        PopMessageResponseHeader, PullMessageRequestHeader, PullMessageResponseHeader,
        PutKvConfigRequestHeader, QueryConsumeQueueRequestHeader, QueryConsumeTimeSpanRequestHeader,
        QueryConsumerOffsetRequestHeader, QueryCorrectionOffsetHeader, QueryDataVersionRequestHeader,
        QueryDataVersionResponseHeader, QueryMessageRequestHeader, QueryMessageResponseHeader,
        QuerySubscriptionByConsumerRequestHeader, QueryTopicConsumeByWhoRequestHeader,
        QueryTopicsByConsumerRequestHeader, RaftAddPeerRequestHeader, RaftPeerRequestHeader,
        RaftTransferLeaderRequestHeader, RecallMessageRequestHeader, RecallMessageResponseHeader,
        RegisterBrokerRequestHeader, RegisterBrokerResponseHeader, RegisterTopicRequestHeader,
        ReplyMessageRequestHeader, ResetMasterFlushOffsetHeader, ResetOffsetRequestHeader,
        ResumeCheckHalfMessageRequestHeader, SearchOffsetRequestHeader, SendMessageHeader,
        SendMessageHeaderV2, SendMessageResponseHeader, UnregisterBrokerRequestHeader,
        UnregisterClientRequestHeader, UpdateConsumerOffsetRequestHeader,
        UpdateGroupForbiddenRequestHeader, UserRequestHeader, ViewBrokerStatsDataRequestHeader,
        ViewMessageRequestHeader, WipeWritePermOfBrokerResponseHeader,
    );
}

fn fields<H: Serialize + DeserializeOwned + Debug>(command: &Command) {
    let Ok(header) = command.header::<H>() else { return };
    let written = Command::request(RequestCode::HeartBeat).with_header(&header);
    let again: H = written.header().expect("what was written can be read");
    assert_eq!(format!("{again:?}"), format!("{header:?}"));
}

/// A body, read as each of the documents that there are.
pub(super) fn body(data: &[u8]) {
    each!(document(data):
        DataVersion, TopicConfig, SubscriptionGroupConfig,
        AclInfo, AclPolicy, AclPolicyEntry, BrokerData, BrokerMemberGroup, BrokerStatsData,
        BrokerStatsItem, CheckClientRequestBody, ClientConnection, ClusterInfo,
        ConsumeMessageDirectlyResult, ConsumeQueueData, ConsumeStats, ConsumeStatsList,
        ConsumerConnection, ConsumerData, ConsumerOffsetSerializeWrapper, CreateTopicListRequestBody,
        DelayOffsetSerializeWrapper, GetBrokerMemberGroupResponseBody,
        GetConsumerListByGroupResponseBody, GetConsumerStatusBody, GroupForbidden, GroupList,
        HaClientRuntimeInfo, HaConnectionRuntimeInfo, HaRuntimeInfo, HeartbeatData, KvTable,
        LockBatchRequestBody, LockBatchResponseBody, MessageQueueAssignment, MessageQueueForC,
        OffsetWrapper, ProducerConnection, ProducerData, ProducerInfo, ProducerTableInfo,
        QueryAssignmentRequestBody, QueryAssignmentResponseBody, QueryConsumeQueueResponseBody,
        QueryConsumeTimeSpanBody, QueryCorrectionOffsetBody, QuerySubscriptionResponseBody, QueueData,
        QueueTimeSpan, RaftMember, RaftStatus, RegisterBrokerBody, ResetOffsetBody,
        ResetOffsetBodyForC, SetMessageRequestModeRequestBody, SubscriptionData,
        SubscriptionGroupList, SubscriptionGroupWrapper, TopicConfigAndMappingSerializeWrapper,
        TopicConfigSerializeWrapper, TopicList, TopicOffset, TopicQueueMappingInfo, TopicRouteData,
        TopicStatsTable, UserInfo,
    );
}

fn document<T: Serialize + DeserializeOwned + Debug>(data: &[u8]) {
    let Ok(value) = json::from_slice::<T>(data) else { return };
    for style in [json::Style::Compact, json::Style::Pretty] {
        let written = json::to_vec_styled(&value, style);
        let again: T = json::from_slice(&written).expect("what was written can be read");
        let (again, value) = (format!("{again:?}"), format!("{value:?}"));
        assert_eq!(again, value, "{}", String::from_utf8_lossy(&written));
    }
}

/// The compressed body of a registration: as it came, and as what it would be inflated to. The first byte says how old
/// the broker is.
pub(super) fn registration(data: &[u8]) {
    let Some((age, data)) = data.split_first() else { return };
    let version = if age % 2 == 0 { version::CURRENT } else { version::V5_0_0 - 1 };
    let _ = RegisterBrokerBody::decompress(data, version);
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    let compressed = encoder.write_all(data).and_then(|()| encoder.finish()).expect("a Vec takes all bytes");
    let Ok(body) = RegisterBrokerBody::decompress(&compressed, version) else { return };
    let table = &body.topic_config_serialize_wrapper;
    assert!(table.topic_config_table.len() + table.topic_queue_mapping_info_map.len() <= data.len());
    let again = RegisterBrokerBody::decompress(&body.compress(), version::CURRENT);
    assert_eq!(again.expect("what was compressed can be read"), body);
}
