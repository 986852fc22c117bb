//! Where topics and brokers are: what a name server answers.
//!
//! Members are declared in the order of their names, since Java writes them sorted.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::TopicQueueMappingInfo;
use crate::model::Perm;

/// Answer to GET_ROUTEINFO_BY_TOPIC (105).
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicRouteData {
    /// The broker groups that have the topic.
    #[serde(default)]
    pub broker_datas: Vec<BrokerData>,
    /// Filter servers by broker address.
    #[serde(default)]
    pub filter_server_table: BTreeMap<String, Vec<String>>,
    /// `broker:queues;...` for an ordered topic.
    pub order_topic_conf: Option<String>,
    /// The topic's queues by broker group.
    #[serde(default)]
    pub queue_datas: Vec<QueueData>,
    /// For a static topic.
    pub topic_queue_mapping_by_broker: Option<BTreeMap<String, TopicQueueMappingInfo>>,
}

/// The members of a broker group.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerData {
    /// Addresses by broker id.
    #[serde(default)]
    pub broker_addrs: BTreeMap<i64, String>,
    /// The broker group.
    pub broker_name: String,
    /// The cluster.
    pub cluster: String,
    /// The member with the smallest id may stand in for a master.
    #[serde(default)]
    pub enable_acting_master: bool,
    /// Where they are.
    pub zone_name: Option<String>,
}

/// The queues of a topic in a broker group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueData {
    /// The broker group.
    pub broker_name: String,
    /// What clients may do.
    pub perm: Perm,
    /// Queues that consumers see.
    #[serde(default)]
    pub read_queue_nums: u32,
    /// Unit bits.
    #[serde(default)]
    pub topic_sys_flag: i32,
    /// Queues that producers see.
    #[serde(default)]
    pub write_queue_nums: u32,
}

/// Answer to GET_BROKER_CLUSTER_INFO (106).
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInfo {
    /// Broker groups by name.
    #[serde(default)]
    pub broker_addr_table: BTreeMap<String, BrokerData>,
    /// Names of the broker groups by cluster.
    #[serde(default)]
    pub cluster_addr_table: BTreeMap<String, BTreeSet<String>>,
}

/// Answer to GET_BROKER_MEMBER_GROUP (901).
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetBrokerMemberGroupResponseBody {
    /// The group.
    pub broker_member_group: Option<BrokerMemberGroup>,
}

/// The members of a broker group, for its brokers.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerMemberGroup {
    /// Addresses by broker id.
    #[serde(default)]
    pub broker_addrs: BTreeMap<i64, String>,
    /// The broker group.
    pub broker_name: String,
    /// The cluster.
    pub cluster: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remoting::json::{self, Style};

    #[test]
    fn route_is_written_in_both_dialects() {
        let route = TopicRouteData {
            broker_datas: vec![BrokerData {
                broker_addrs: BTreeMap::from([(0, "10.0.0.1:10911".into()), (1, "10.0.0.2:10911".into())]),
                broker_name: "broker-a".into(),
                cluster: "DefaultCluster".into(),
                ..BrokerData::default()
            }],
            queue_datas: vec![QueueData {
                broker_name: "broker-a".into(),
                perm: Perm::READ_WRITE,
                read_queue_nums: 4,
                topic_sys_flag: 0,
                write_queue_nums: 4,
            }],
            ..TopicRouteData::default()
        };
        let standard = r#"{"brokerDatas":[{"brokerAddrs":{"0":"10.0.0.1:10911","1":"10.0.0.2:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;
        let compact = standard.replace("\"0\"", "0").replace("\"1\"", "1");
        assert_eq!(json::to_vec_styled(&route, Style::Standard), standard.as_bytes());
        assert_eq!(json::to_vec(&route), compact.as_bytes());
        for text in [standard, &compact] {
            assert_eq!(json::from_str::<TopicRouteData>(text).unwrap(), route);
        }
    }
}
