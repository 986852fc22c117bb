//! The name server's settings: `NamesrvConfig` and the part of `NettyServerConfig` that has a meaning here.

use std::path::PathBuf;

use super::load::{Environment, Refused, Settings};
use super::settings;

settings! {
    /// Settings of a name server.
    pub struct NamesrvConfig {
        /// TCP port.
        listen_port: u16 = 9876,
        /// Address that the port is bound on.
        bind_address: String = "0.0.0.0".into(),
        /// Connections that were silent for this long are closed, in seconds.
        server_channel_max_idle_time_seconds: u64 = 120,
        /// Where kv config is kept; empty = `$HOME/namesrv/kvConfig.json`.
        kv_config_path: PathBuf = PathBuf::new(),
        /// Where changed settings are kept when there is no `-c` file; empty = `$HOME/namesrv/namesrv.properties`.
        config_store_path: PathBuf = PathBuf::new(),
        /// Only echoed; part of the path of the cluster test environment.
        product_env_name: String = "center".into(),
        /// Unknown topics are looked up in the name server of `productEnvName`.
        cluster_test: bool = false,
        /// Routes carry the order config of their topic.
        order_message_enable: bool = false,
        /// REGISTER_BROKER answers with the order config.
        return_order_topic_config_to_broker: bool = true,
        /// How often brokers that fell silent are looked for, in milliseconds.
        scan_not_active_broker_interval: u64 = 5_000,
        /// How many UNREGISTER_BROKER requests may wait.
        un_register_broker_queue_capacity: usize = 3_000,
        /// A group without a master is shown with its smallest slave as acting master.
        support_acting_master: bool = false,
        /// GET_ALL_TOPIC_LIST_FROM_NAMESERVER is answered.
        enable_all_topic_list: bool = true,
        /// The other topic list requests are answered.
        enable_topic_list: bool = true,
        /// Brokers are told when the smallest id of their group changes.
        notify_min_broker_id_changed: bool = false,
        /// Runs a controller in this process. Not available here.
        enable_controller_in_namesrv: bool = false,
        /// Routes are refused until `waitSecondsForService` after the start.
        need_wait_for_service: bool = false,
        /// See `needWaitForService`, in seconds.
        wait_seconds_for_service: u64 = 45,
        /// A registration removes the topics that it does not name.
        delete_topic_with_broker_registration: bool = false,
        /// Keys that an update may not name, separated by `;`.
        config_black_list: String = "configBlackList;configStorePath;kvConfigPath".into(),
        /// Most connections at a time. A key of ours; Java has no limit.
        connections_max: usize = 20_000,
        /// Most requests that are worked on at a time; more wait in their connections. A key of ours.
        requests_in_flight_max: usize = 10_000,
    }
}

impl NamesrvConfig {
    /// Returns what is asked for and not available in this version.
    pub fn unsupported(&self) -> Option<String> {
        if self.enable_controller_in_namesrv {
            return Some("enableControllerInNamesrv=true: there is no controller; use a Raft group".into());
        }
        if self.cluster_test {
            return Some("clusterTest=true: there is no cluster test mode".into());
        }
        None
    }
}

impl Settings for NamesrvConfig {
    const IMPORTANT: &'static [&'static str] = &["listenPort", "kvConfigPath", "configStorePath"];
    const AT_START: &'static [&'static str] = &[
        "listenPort",
        "bindAddress",
        "kvConfigPath",
        "configStorePath",
        "unRegisterBrokerQueueCapacity",
        "enableControllerInNamesrv",
        "clusterTest",
        "connectionsMax",
        "requestsInFlightMax",
    ];
    const OF_REPLICA: &'static [&'static str] = &[];
    const BLACK_LIST: &'static [&'static str] =
        &["configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome"];

    fn resolve(&mut self, environment: &Environment, _: &dyn Fn(&str) -> bool) {
        let home = environment.home.clone().unwrap_or_else(|| PathBuf::from("."));
        if self.kv_config_path.as_os_str().is_empty() {
            self.kv_config_path = home.join("namesrv/kvConfig.json");
        }
        if self.config_store_path.as_os_str().is_empty() {
            self.config_store_path = home.join("namesrv/namesrv.properties");
        }
    }

    fn check(&self) -> Result<(), Refused> {
        let positive = [
            ("scanNotActiveBrokerInterval", self.scan_not_active_broker_interval),
            ("serverChannelMaxIdleTimeSeconds", self.server_channel_max_idle_time_seconds),
            ("connectionsMax", self.connections_max as u64),
            ("requestsInFlightMax", self.requests_in_flight_max as u64),
        ];
        match positive.into_iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(Refused::Value(key, "expected 1 or more".into())),
            None => Ok(()),
        }
    }

    fn config_black_list(&self) -> &str {
        &self.config_black_list
    }
}
