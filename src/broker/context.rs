//! What nearly every handler needs: settings, tables, the log, the clock.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::register::Announcer;
use super::response::Error;
use crate::config::{BrokerConfig, Loaded};
use crate::env::{Clock, Disk, Random};
use crate::message::UniqueIds;
use crate::metadata::{Metadata, MetadataCommand};
use crate::model::{Group, Perm, SubscriptionGroupConfig, Topic, TopicConfig, system_topic};
use crate::replication::{Replication, Role};
use crate::store::Store;

/// Shared by all handlers of one broker.
#[derive(Debug)]
pub(crate) struct Context {
    config: RwLock<Arc<Loaded<BrokerConfig>>>,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) replication: Replication,
    role: watch::Receiver<Role>,
    /// The number under which this replica registers while it does not lead; `None` without a Raft group.
    follower_id: Option<i64>,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    pub(crate) random: Random,
    pub(crate) unique_ids: UniqueIds,
    /// The address that clients know, and that records carry: `brokerIP1` and the port.
    pub(crate) address: SocketAddr,
    /// Tells the name servers of new topics.
    pub(crate) announcer: Announcer,
}

impl Context {
    pub(crate) fn new(
        config: Loaded<BrokerConfig>,
        metadata: Arc<Metadata>,
        replication: Replication,
        address: SocketAddr,
        announcer: Announcer,
        (clock, disk): (Clock, Disk),
    ) -> Self {
        Self {
            follower_id: follower_id(&config),
            config: RwLock::new(Arc::new(config)),
            metadata,
            role: replication.role(),
            replication,
            random: Random::from_machine(),
            unique_ids: UniqueIds::new(address.ip(), std::process::id(), clock.clone()),
            clock,
            disk,
            address,
            announcer,
        }
    }

    /// Returns the settings as they are at this moment.
    pub(crate) fn config(&self) -> Arc<Loaded<BrokerConfig>> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_config(&self, config: Loaded<BrokerConfig>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        self.replication.store()
    }

    /// Returns whether this replica takes writes at this moment. A broker without replicas always does.
    pub(crate) fn leads(&self) -> bool {
        self.role.borrow().is_leader()
    }

    /// Returns the role, and tells of its changes.
    pub(crate) fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Returns whether this broker is a replica of a Raft group.
    pub(crate) fn is_in_group(&self) -> bool {
        self.follower_id.is_some()
    }

    /// Returns the number under which this replica registers while it does not lead; `None` without a Raft group.
    pub(crate) fn follower_id(&self) -> Option<i64> {
        self.follower_id
    }

    /// Commits a change of the tables.
    pub(crate) async fn change(&self, command: MetadataCommand) -> Result<(), Error> {
        let permit = self.replication.permit()?;
        Ok(self.replication.change(permit, command)?.committed().await?)
    }

    /// Returns a topic, or says that there is none.
    pub(crate) fn topic(&self, topic: &Topic) -> Result<Arc<TopicConfig>, Error> {
        self.metadata.topics().get(topic).ok_or_else(|| Error::TopicNotExist(topic.clone()))
    }

    /// Makes a topic if it is not there, and tells the name servers without waiting for them.
    pub(crate) async fn ensure_topic(&self, config: TopicConfig) -> Result<Arc<TopicConfig>, Error> {
        let name = config.topic_name.clone();
        if let Some(known) = self.metadata.topics().get(&name) {
            return Ok(known);
        }
        tracing::info!(topic = %name, queues = config.write_queue_nums, "topic created");
        self.change(MetadataCommand::PutTopic(config)).await?;
        self.announcer.topics_changed();
        self.topic(&name)
    }

    /// Makes a topic if it is not there, and waits until the name servers know it, or for a while.
    pub(crate) async fn ensure_topic_known(&self, config: TopicConfig) -> Result<(), Error> {
        if self.metadata.topics().get(&config.topic_name).is_none() {
            self.ensure_topic(config).await?;
            self.announcer.topics_changed_and_known().await;
        }
        Ok(())
    }

    /// Makes the topic of a message that a producer sends to an unknown topic.
    ///
    /// Source: RocketMQ `TopicConfigManager.createTopicInSendMessageMethod`.
    pub(crate) async fn auto_create_topic(
        &self,
        topic: &Topic,
        template: &Topic,
        queues_wanted: i32,
    ) -> Result<Arc<TopicConfig>, Error> {
        let not_exist = || Error::TopicNotExist(topic.clone());
        let config = self.config();
        let allowed = template.as_str() != system_topic::AUTO_CREATE || config.auto_create_topic_enable;
        let template = match self.metadata.topics().get(template) {
            _ if !allowed => return Err(not_exist()),
            Some(template) => template,
            // A new group leads before its system topics are made.
            None if template.as_str() == system_topic::AUTO_CREATE => {
                let queues = config.default_topic_queue_nums;
                self.ensure_topic(TopicConfig::new(template.clone(), queues, Perm::ALL)).await?
            }
            None => return Err(not_exist()),
        };
        if !template.perm.inheritable() {
            return Err(not_exist());
        }
        let queues = u32::try_from(queues_wanted).unwrap_or(0).min(template.write_queue_nums);
        self.ensure_topic(TopicConfig {
            topic_sys_flag: 0,
            topic_filter_type: template.topic_filter_type.clone(),
            ..TopicConfig::new(topic.clone(), queues, template.perm.without(Perm::INHERIT))
        })
        .await
    }

    /// Returns a group; makes it if that is allowed.
    ///
    /// Source: RocketMQ `SubscriptionGroupManager.findSubscriptionGroupConfig`.
    pub(crate) async fn group(&self, group: &Group) -> Result<Arc<SubscriptionGroupConfig>, Error> {
        if let Some(known) = self.metadata.groups().get(group) {
            return Ok(known);
        }
        self.check_may_be_made(group)?;
        self.change(MetadataCommand::PutGroup(SubscriptionGroupConfig::new(group.clone()))).await?;
        self.metadata.groups().get(group).ok_or_else(|| Error::GroupNotExist(group.clone()))
    }

    /// Returns a group for reading. A replica that does not lead cannot make it; the leader does when it hears of it,
    /// and until then its settings are the default ones.
    pub(crate) async fn group_to_read(&self, group: &Group) -> Result<Arc<SubscriptionGroupConfig>, Error> {
        if self.leads() {
            return self.group(group).await;
        }
        match self.metadata.groups().get(group) {
            Some(known) => Ok(known),
            None => {
                self.check_may_be_made(group)?;
                Ok(Arc::new(SubscriptionGroupConfig::new(group.clone())))
            }
        }
    }

    fn check_may_be_made(&self, group: &Group) -> Result<(), Error> {
        let predefined =
            PREDEFINED_GROUPS.contains(&group.as_str()) || group.as_str().starts_with(SYSTEM_GROUP_PREFIX);
        if !predefined && !self.config().auto_create_subscription_group {
            return Err(Error::GroupNotExist(group.clone()));
        }
        group.check().map_err(|_| Error::GroupNotExist(group.clone()))
    }
}

/// Returns the number of a replica of a Raft group, as DLedger has it: 1 for `n0`, as 0 is the leader's.
fn follower_id(config: &BrokerConfig) -> Option<i64> {
    let id = config.raft_self_id().filter(|_| config.enable_dleger_commit_log)?;
    i64::try_from(id).ok()?.checked_add(1)
}

/// Groups that are always there. Source: RocketMQ `SubscriptionGroupManager.init`.
const PREDEFINED_GROUPS: [&str; 7] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
];
const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// Runs what may block on the disk on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::System(format!("a reading thread failed: {error}"))),
    }
}
