//! Calls to name servers and brokers, and the look-ups that many commands start with.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use serde::de::DeserializeOwned;

use crate::model::{Group, Topic};
use crate::remoting::body::{
    BrokerData, ClusterInfo, ConsumerConnection, GroupList, TopicList, TopicRouteData,
};
use crate::remoting::header::{
    GetConsumerConnectionListRequestHeader, GetRouteInfoRequestHeader, QueryTopicConsumeByWhoRequestHeader,
};
use crate::remoting::{CallError, Client, ClientConfig, Command, RequestCode, ResponseCode};

/// How long one call may take; Java's `DefaultMQAdminExt` has the same.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A peer answered, and its answer is no.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{address} answered CODE: {code}  DESC: {remark}")]
pub(super) struct Refused {
    /// Who answered.
    pub(super) address: String,
    /// The response code.
    pub(super) code: i32,
    /// The reason given.
    pub(super) remark: String,
}

impl Refused {
    pub(super) fn is(&self, code: ResponseCode) -> bool {
        self.code == code.number()
    }
}

/// A client with the name servers that it was told of.
#[derive(Debug, Clone)]
pub(super) struct Session {
    client: Client,
    namesrv: Vec<String>,
}

impl Session {
    /// Makes a session for `namesrv`, a list with `;` between the addresses. It may be empty.
    pub(super) fn new(namesrv: &str) -> Self {
        let addresses = namesrv.split(';').map(str::trim).filter(|address| !address.is_empty());
        Self { client: Client::new(ClientConfig::default()), namesrv: addresses.map(str::to_owned).collect() }
    }

    /// Returns the name servers; an error says how to give one.
    pub(super) fn name_servers(&self) -> Result<&[String]> {
        if self.namesrv.is_empty() {
            bail!("no name server is given: use -n host:port or set NAMESRV_ADDR");
        }
        Ok(&self.namesrv)
    }

    /// Sends a request and returns the answer whatever its code.
    pub(super) async fn call(&self, address: &str, request: Command, within: Duration) -> Result<Command> {
        self.client.call(address, request, within).await.map_err(explain)
    }

    /// Sends a request; an answer other than SUCCESS is the error [`Refused`].
    pub(super) async fn ask(&self, address: &str, request: Command) -> Result<Command> {
        accept(address, self.call(address, request, CALL_TIMEOUT).await?)
    }

    /// Asks for a JSON document.
    pub(super) async fn read<T: DeserializeOwned>(&self, address: &str, request: Command) -> Result<T> {
        body(address, &self.ask(address, request).await?)
    }

    /// Asks the first name server that answers.
    pub(super) async fn ask_name_server(&self, request: Command) -> Result<(String, Command)> {
        let mut failure = None;
        for address in self.name_servers()? {
            match self.client.call(address, request.clone(), CALL_TIMEOUT).await {
                Ok(answer) => return Ok((address.clone(), accept(address, answer)?)),
                Err(error) => failure = Some(explain(error)),
            }
        }
        Err(failure.unwrap_or_else(|| anyhow!("no name server answered")))
    }

    async fn read_name_server<T: DeserializeOwned>(&self, request: Command) -> Result<T> {
        let (address, answer) = self.ask_name_server(request).await?;
        body(&address, &answer)
    }

    /// Asks where a topic is.
    pub(super) async fn route(&self, topic: &Topic) -> Result<TopicRouteData> {
        let header = GetRouteInfoRequestHeader { topic: topic.clone(), accept_standard_json_only: true };
        self.read_name_server(Command::request(RequestCode::GetRouteinfoByTopic).with_header(&header)).await
    }

    /// Asks for all clusters and brokers.
    pub(super) async fn cluster_info(&self) -> Result<ClusterInfo> {
        self.read_name_server(Command::request(RequestCode::GetBrokerClusterInfo)).await
    }

    /// Asks for the names of all topics.
    pub(super) async fn topics(&self) -> Result<Vec<Topic>> {
        let request = Command::request(RequestCode::GetAllTopicListFromNameserver);
        let list: TopicList = self.read_name_server(request).await?;
        Ok(list.topic_list)
    }

    /// Asks for the masters of a cluster. An unknown cluster is an error, an empty one is not.
    pub(super) async fn masters(&self, cluster: &str) -> Result<Vec<String>> {
        let groups = self.groups_of(cluster).await?;
        Ok(groups.iter().filter_map(|group| group.broker_addrs.get(&0).cloned()).collect())
    }

    /// Asks for the masters and slaves of a cluster.
    pub(super) async fn members(&self, cluster: &str) -> Result<Vec<String>> {
        let groups = self.groups_of(cluster).await?;
        Ok(groups.into_iter().flat_map(|group| group.broker_addrs.into_values()).collect())
    }

    /// Asks for the broker groups of a cluster, sorted by name.
    pub(super) async fn groups_of(&self, cluster: &str) -> Result<Vec<BrokerData>> {
        let mut info = self.cluster_info().await?;
        let Some(names) = info.cluster_addr_table.get(cluster) else {
            let known: Vec<_> = info.cluster_addr_table.keys().map(String::as_str).collect();
            bail!("the cluster {cluster} does not exist; known: [{}]", known.join(", "));
        };
        Ok(names.iter().filter_map(|name| info.broker_addr_table.remove(name)).collect())
    }

    /// Asks one broker of each group that has the topic, and returns the answers with the addresses.
    pub(super) async fn ask_topic<T: DeserializeOwned>(
        &self,
        route: &TopicRouteData,
        request: &Command,
    ) -> Result<Vec<(String, T)>> {
        let mut answers = Vec::new();
        for address in route.broker_datas.iter().filter_map(preferred) {
            let answer = self.read(&address, request.clone()).await?;
            answers.push((address, answer));
        }
        Ok(answers)
    }

    /// Asks who consumes a topic.
    pub(super) async fn groups_consuming(&self, topic: &Topic) -> Result<Vec<Group>> {
        let route = self.route(topic).await?;
        let Some(address) = route.broker_datas.iter().find_map(preferred) else { return Ok(Vec::new()) };
        let header = QueryTopicConsumeByWhoRequestHeader { topic: topic.clone() };
        let request = Command::request(RequestCode::QueryTopicConsumeByWho).with_header(&header);
        let list: GroupList = self.read(&address, request).await?;
        Ok(list.group_list)
    }

    /// Asks which clients consume in a group: those of `broker`, or of one that has the group's retry topic.
    pub(super) async fn consumers(&self, group: &Group, broker: Option<&str>) -> Result<ConsumerConnection> {
        let address = match broker {
            Some(address) => address.to_owned(),
            None => {
                let route = self.route(&Topic::retry_of(group)).await?;
                let address = route.broker_datas.iter().find_map(preferred);
                address.ok_or_else(|| anyhow!("no broker has the retry topic of {group}"))?
            }
        };
        let header = GetConsumerConnectionListRequestHeader { consumer_group: group.clone() };
        let request = Command::request(RequestCode::GetConsumerConnectionList).with_header(&header);
        self.read(&address, request).await
    }

    /// Closes all connections.
    pub(super) async fn close(self) {
        self.client.close().await;
    }
}

/// Returns the master's address, or that of the slave with the smallest id.
pub(super) fn preferred(broker: &BrokerData) -> Option<String> {
    broker.broker_addrs.values().next().cloned()
}

/// Returns the answer if it says SUCCESS.
pub(super) fn accept(address: &str, answer: Command) -> Result<Command> {
    if answer.code == ResponseCode::Success.number() {
        return Ok(answer);
    }
    let remark = answer.remark.unwrap_or_default();
    Err(Refused { address: address.to_owned(), code: answer.code, remark }.into())
}

fn body<T: DeserializeOwned>(address: &str, answer: &Command) -> Result<T> {
    answer.json().map_err(|error| anyhow!("read the answer of {address}: {error}"))
}

/// Adds what the operator can do about a call that failed.
fn explain(error: CallError) -> anyhow::Error {
    let hint = match &error {
        CallError::Connect { .. } => "is it running, and is the address right?",
        CallError::Timeout { .. } => "is it overloaded, or unreachable from here?",
        CallError::Closed { .. } | CallError::Busy { .. } => "try again",
    };
    anyhow!("{error}; {hint}")
}
