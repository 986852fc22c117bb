//! The broker's settings: one flat struct for the keys that Java spreads over `BrokerConfig`,
//! `MessageStoreConfig`, `NettyServerConfig` and `AuthConfig`, as they share one file.
//!
//! Times are milliseconds and sizes are bytes unless a comment says otherwise. Spelling, mistakes included,
//! and defaults are Java's; the keys that Java does not have are the last group.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::load::{Environment, Refused, Settings};
use super::{Error, machine, raft, settings};

/// `brokerRole`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BrokerRole {
    /// Takes writes and does not wait for slaves.
    AsyncMaster,
    /// Takes writes and waits for `inSyncReplicas` copies.
    SyncMaster,
    /// Copies a master.
    Slave,
}

/// `flushDiskType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FlushDiskType {
    /// A message is acknowledged when it is written, and synced later.
    AsyncFlush,
    /// A message is acknowledged when it is synced.
    SyncFlush,
}

/// `defaultMessageRequestMode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MessageRequestMode {
    /// Consumers pull from queues of their own.
    Pull,
    /// Consumers pop from shared queues.
    Pop,
}

settings! {
    /// Settings of one broker.
    pub struct BrokerConfig {
        // Identity.

        /// Cluster that the broker registers in.
        broker_cluster_name: String = "DefaultCluster".into(),
        /// Name of the replica group; empty = host name.
        broker_name: String = String::new(),
        /// 0 is the master. Masters are forced to 0, members of a Raft group to -1 until they have a role.
        broker_id: i64 = 0,
        /// Role in a classic group; without effect in a Raft group, whose members find their roles.
        broker_role: BrokerRole = BrokerRole::AsyncMaster,
        /// When a message counts as written. SYNC_FLUSH in a Raft group unless it is set.
        flush_disk_type: FlushDiskType = FlushDiskType::AsyncFlush,
        /// Echoed in send answers as `MSG_REGION`.
        region_id: String = "DefaultRegion".into(),
        /// Echoed in send answers as `TRACE_ON`.
        trace_on: bool = true,

        // Name servers.

        /// Name servers, `host:port;host:port`; none if absent.
        #[serde(deserialize_with = "blank_is_none")]
        namesrv_addr: Option<String> = None,
        /// Takes the addresses from a HTTP server. Not available here.
        fetch_namesrv_addr_by_address_server: bool = false,
        /// The host in `namesrvAddr` stands for all its DNS records.
        fetch_name_srv_addr_by_dns_lookup: bool = false,
        /// How often name servers' addresses are resolved again.
        update_name_server_addr_period: u64 = 120_000,
        /// How often the broker registers; clamped to 10,000–60,000.
        register_name_server_period: u64 = 30_000,
        /// Timeout of one registration.
        register_broker_timeout_mills: u64 = 24_000,
        /// Registers without asking whether the name server has the same data.
        force_register: bool = true,
        /// Registration bodies are compressed.
        compressed_register: bool = false,
        /// A changed topic is registered alone.
        enable_single_topic_register: bool = false,
        /// Registers many topics in several requests.
        enable_split_registration: bool = false,
        /// Topics per request of a split registration.
        split_registration_size: usize = 800,
        /// The master sends light heartbeats in acting-master mode, this often.
        broker_heartbeat_interval: u64 = 1_000,
        /// How long name servers wait for such a heartbeat.
        broker_not_active_timeout_millis: u64 = 10_000,
        /// Timeout of such a heartbeat.
        send_heartbeat_timeout_millis: u64 = 1_000,
        /// Name servers before 5.0 are spoken to in their own way.
        compatible_with_old_name_srv: bool = true,

        // Network.

        /// TCP port; listenPort - 2 is served too. 0 = any free ones, for tests.
        listen_port: u16 = 10_911,
        /// Address that the ports are bound on.
        bind_address: String = "0.0.0.0".into(),
        /// IPv4 address that is registered and written into records; empty = that of this machine.
        #[serde(rename = "brokerIP1")]
        broker_ip1: String = String::new(),
        /// Address of the HA server; empty = as `brokerIP1`.
        #[serde(rename = "brokerIP2")]
        broker_ip2: String = String::new(),
        /// Port of the HA server; 0 = listenPort + 1.
        ha_listen_port: u16 = 0,
        /// Connections that were silent for this long are closed, in seconds.
        server_channel_max_idle_time_seconds: u64 = 120,
        /// Clients whose heartbeats stopped for this long are removed.
        channel_expired_timeout: u64 = 120_000,
        /// Subscriptions that were not renewed for this long are removed.
        subscription_expired_timeout: u64 = 600_000,
        /// Clients are told to leave before the broker stops.
        enable_shutdown_gracefully: bool = false,
        /// How long they have, in seconds.
        shutdown_wait_time_seconds: u64 = 30,
        /// Timeout of requests that are forwarded to other brokers.
        forward_timeout: u64 = 3_000,

        // Topics and groups.

        /// 4 = readable, 2 = writable.
        broker_permission: u32 = 6,
        /// A send to an unknown topic makes it.
        auto_create_topic_enable: bool = true,
        /// Queues of TBW102, the most that an automatically made topic gets.
        default_topic_queue_nums: u32 = 8,
        /// The topic named after the cluster exists.
        cluster_topic_enable: bool = true,
        /// The topic named after the broker exists.
        broker_topic_enable: bool = true,
        /// A heartbeat of an unknown group makes it.
        auto_create_subscription_group: bool = true,
        /// The trace topic exists.
        trace_topic_enable: bool = false,
        /// Name of the trace topic.
        msg_trace_topic_name: String = "RMQ_SYS_TRACE_TOPIC".into(),
        /// UPDATE_AND_CREATE_TOPIC refuses system topics.
        validate_system_topic_when_update_topic: bool = true,
        /// A topic takes messages of any type, whatever its attribute `message.type` says.
        enable_mixed_message_type: bool = false,
        /// Deleting a topic deletes the POP retry topics of its groups.
        clear_retry_topic_when_delete_topic: bool = true,
        /// Where topics and groups are kept: v1 = JSON files, v2 = RocksDB.
        config_manager_version: String = "v1".into(),

        // Consuming.

        /// Consumers are told when the members of their group change.
        notify_consumer_ids_changed_enable: bool = true,
        /// Pulls that find nothing are held as long as the client says.
        long_polling_enable: bool = true,
        /// How long they are held otherwise.
        short_polling_time_mills: u64 = 1_000,
        /// Slaves serve pulls, and the master sends slow readers to them. True in a Raft group unless it is set.
        slave_read_enable: bool = false,
        /// Groups far behind are no longer served.
        disable_consume_if_consumer_read_slowly: bool = false,
        /// What "far" is, in bytes of log.
        consumer_fallbehind_threshold: u64 = 16 * 1024 * 1024 * 1024,
        /// Pull consumers (not push) are refused.
        reject_pull_consumer_enable: bool = false,
        /// SQL92 subscriptions are served.
        enable_property_filter: bool = false,
        /// SQL92 subscriptions apply to retry topics too.
        filter_support_retry: bool = false,
        /// RESET_OFFSET is stored here instead of being pushed to clients.
        use_server_side_reset_offset: bool = true,
        /// How often consumer offsets are written to disk.
        flush_consumer_offset_interval: u64 = 5_000,
        /// Positions of broadcast consumers are kept here too.
        enable_broadcast_offset_store: bool = true,
        /// They go after this long without a pull, in seconds.
        broadcast_offset_expire_second: u64 = 120,
        /// They go after this long in any case, in seconds.
        broadcast_offset_expire_max_second: u64 = 300,
        /// A lock request succeeds only if all its queues are free.
        lock_in_strict_mode: bool = false,
        /// QUERY_ASSIGNMENT is answered by a strategy of the broker.
        server_load_balancer_enable: bool = true,
        /// How groups without a mode of their own consume.
        default_message_request_mode: MessageRequestMode = MessageRequestMode::Pull,
        /// How many queues a POP consumer shares; -1 = all.
        default_pop_share_queue_num: i32 = -1,
        /// Lag is estimated for groups with SQL92 or tag filters.
        estimate_accumulation: bool = true,

        // Pop.

        /// Held POP requests per topic, group and queue.
        pop_polling_size: usize = 1_024,
        /// Held POP requests in all.
        max_pop_polling_size: u64 = 100_000,
        /// Queues of the revive topic.
        revive_queue_num: u32 = 8,
        /// How often revive looks for expired check points.
        revive_interval: u64 = 1_000,
        /// How long one round of revive may last.
        revive_scan_time: u64 = 10_000,
        /// How long revive waits for an acknowledgement that is late.
        revive_ack_wait_ms: u64 = 180_000,
        /// How often an undelivered check point is tried again.
        pop_revive_max_attempt_times: u32 = 16,
        /// Check points of groups that are gone are dropped.
        pop_revive_skip_if_group_absent: bool = true,
        /// How often of 100 pops look at the retry topic first.
        pop_from_retry_probability: u32 = 20,
        /// Retry topics are named `%RETRY%group+topic`.
        enable_retry_topic_v2: bool = false,
        /// Messages in retry topics of the older name are still served.
        #[serde(rename = "retrieveMessageFromPopRetryTopicV1")]
        retrieve_message_from_pop_retry_topic_v1: bool = true,
        /// A first pop starts at the end of queues whose messages left memory.
        init_pop_offset_by_check_msg_in_mem: bool = true,
        /// Groups with this many unacknowledged messages per queue get no more.
        pop_inflight_message_threshold: u64 = 10_000,
        /// `popInflightMessageThreshold` is applied.
        enable_pop_message_threshold: bool = false,
        /// Messages show their real retry topic to clients.
        pop_response_return_actual_retry_topic: bool = false,

        // Sending, transactions, replies.

        /// Timestamp from which on sends are taken, in milliseconds since 1970.
        start_accept_send_request_time_stamp: i64 = 0,
        /// Requests that waited too long are answered with SYSTEM_BUSY.
        broker_fast_failure_enable: bool = true,
        /// How long a send may wait.
        wait_time_mills_in_send_queue: u64 = 200,
        /// How long a pull may wait.
        wait_time_mills_in_pull_queue: u64 = 5_000,
        /// How long a lite pull may wait.
        wait_time_mills_in_lite_pull_queue: u64 = 5_000,
        /// How long a heartbeat may wait.
        wait_time_mills_in_heartbeat_queue: u64 = 31_000,
        /// How long END_TRANSACTION may wait.
        wait_time_mills_in_transaction_queue: u64 = 3_000,
        /// How long an acknowledgement may wait.
        wait_time_mills_in_ack_queue: u64 = 3_000,
        /// How long an admin request may wait.
        wait_time_mills_in_admin_broker_queue: u64 = 5_000,
        /// Half messages are refused.
        reject_transaction_message: bool = false,
        /// Age at which a half message is checked.
        transaction_time_out: u64 = 6_000,
        /// Checks after which it is given up.
        transaction_check_max: u32 = 15,
        /// How often half messages are looked at.
        transaction_check_interval: u64 = 30_000,
        /// Most bytes of one op message.
        transaction_op_msg_max_size: usize = 4_096,
        /// Most time that removals wait to be batched into one.
        transaction_op_batch_interval: u64 = 3_000,
        /// Delayed messages can be recalled.
        recall_message_enable: bool = false,
        /// Replies are stored when the requester is gone.
        store_reply_message_enable: bool = true,

        // Store: files.

        /// Root of all data; empty = `$HOME/store`.
        store_path_root_dir: PathBuf = PathBuf::new(),
        /// Folder of the CommitLog; empty = `commitlog` in the root.
        store_path_commit_log: PathBuf = PathBuf::new(),
        /// Size of a CommitLog file.
        mapped_file_size_commit_log: u32 = 1024 * 1024 * 1024,
        /// Size of a ConsumeQueue file; rounded up to whole entries of 20 bytes.
        mapped_file_size_consume_queue: u32 = 6_000_000,
        /// `default`, or `defaultRocksDB`, which is not available here.
        store_type: String = "default".into(),
        /// Messages are found by key.
        message_index_enable: bool = true,
        /// Hash slots of an index file.
        max_hash_slot_num: u32 = 5_000_000,
        /// Entries of an index file.
        max_index_num: u32 = 20_000_000,
        /// Bodies are checked against their CRC at recovery.
        #[serde(rename = "checkCRCOnRecover")]
        check_crc_on_recover: bool = true,
        /// The record's position is checked at recovery.
        check_commit_log_offset_on_recover: bool = false,
        /// Records are duplicated instead of replicated. Not available here.
        duplication_enable: bool = false,
        /// LMQ queues. Not available here.
        enable_lmq: bool = false,
        /// One message for many queues. Not available here.
        enable_multi_dispatch: bool = false,

        // Store: flushing.

        /// How often ASYNC_FLUSH syncs the log.
        flush_interval_commit_log: u64 = 500,
        /// Pages of 4 KiB that must have gathered for that.
        flush_commit_log_least_pages: u32 = 4,
        /// How often it syncs fewer.
        flush_commit_log_thorough_interval: u64 = 10_000,
        /// How long a send waits for SYNC_FLUSH.
        sync_flush_timeout: u64 = 5_000,
        /// How often ConsumeQueues are synced.
        flush_interval_consume_queue: u64 = 1_000,
        /// How often the offsets of delay levels are written.
        flush_delay_offset_interval: u64 = 10_000,

        // Store: cleaning.

        /// Hours of the day at which old files go, `04` or `04;16`.
        delete_when: String = "04".into(),
        /// Hours that a file is kept after its last write.
        file_reserved_time: u64 = 72,
        /// Percent of the disk above which old files go at any hour; clamped to 10–95.
        disk_max_used_space_ratio: u32 = 75,
        /// Percent above which files go whatever their age; clamped to 30–85.
        disk_space_clean_forcibly_ratio: u32 = 85,
        /// Percent above which sends are refused; clamped to 35–90.
        disk_space_warning_level_ratio: u32 = 90,
        /// The two above are applied.
        clean_file_forcibly_enable: bool = true,
        /// How often the store looks for old files.
        clean_resource_interval: u64 = 10_000,
        /// Pause between two files.
        delete_commit_log_files_interval: u64 = 100,
        /// Files that go in one round.
        delete_file_batch_max: u32 = 10,

        // Store: messages and reads.

        /// Most bytes of a message: body, and properties, each.
        max_message_size: u32 = 4 * 1024 * 1024,
        /// Most messages of a batch.
        max_msgs_num_batch: u32 = 64,
        /// Most bytes of a pull that is served from memory.
        max_transfer_bytes_on_message_in_memory: u32 = 256 * 1024,
        /// Most messages of it.
        max_transfer_count_on_message_in_memory: u32 = 32,
        /// Most bytes of a pull that is served from disk.
        max_transfer_bytes_on_message_in_disk: u32 = 64 * 1024,
        /// Most messages of it.
        max_transfer_count_on_message_in_disk: u32 = 8,
        /// Percent of the machine's memory that counts as holding the end of the log.
        access_message_in_memory_max_ratio: u32 = 40,
        /// Most messages of any pull, whatever the client asks for.
        pull_batch_max_message_count: u32 = 160,
        /// Most bytes of log that a filtering pull reads through, in ConsumeQueue bytes.
        max_filter_message_size: u32 = 16_000,
        /// Most results of a query by key.
        default_query_max_num: u32 = 32,
        /// An append that takes longer counts as a busy disk.
        os_page_cache_busy_time_out_mills: u64 = 1_000,

        // Store: delayed messages.

        /// Levels of delayed messages, from level 1 on.
        message_delay_level: String = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h".into(),
        /// Messages for any time are served.
        timer_wheel_enable: bool = true,
        /// Width of a slot of the wheel.
        timer_precision_ms: u64 = 1_000,
        /// Slots after which a message goes round again.
        timer_roll_window_slot: u32 = 172_800,
        /// Longest delay, in seconds.
        timer_max_delay_sec: u64 = 259_200,
        /// Messages per slot above which sends for it are refused.
        timer_congest_num_each_slot: u32 = 2_147_483_647,
        /// Size of a file of the timer log.
        mapped_file_size_timer_log: u32 = 100 * 1024 * 1024,
        /// How often wheel and timer log are synced.
        timer_flush_interval_ms: u64 = 1_000,
        /// Delay levels are served by the wheel.
        timer_intercept_delay_level: bool = false,

        // Classic replication.

        /// HA address of the master; absent = as registered.
        #[serde(deserialize_with = "blank_is_none")]
        ha_master_address: Option<String> = None,
        /// How often a slave reports its position.
        ha_send_heartbeat_interval: u64 = 5_000,
        /// Silence after which a HA connection is closed.
        ha_housekeeping_interval: u64 = 20_000,
        /// Most bytes of a transfer.
        ha_transfer_batch_size: u32 = 32 * 1024,
        /// A slave further behind, in bytes, is not in sync.
        ha_max_gap_not_in_sync: u64 = 256 * 1024 * 1024,
        /// `maxHaTransferByteInSecond` is applied.
        ha_flow_control_enable: bool = false,
        /// Most bytes that are sent to slaves in a second.
        max_ha_transfer_byte_in_second: u64 = 100 * 1024 * 1024,
        /// How long a send waits for slaves.
        slave_timeout: u64 = 3_000,
        /// Copies that exist, the master included.
        total_replicas: u32 = 1,
        /// Copies that a send waits for under SYNC_MASTER, the master included.
        in_sync_replicas: u32 = 1,
        /// Least value that `enableAutoInSyncReplicas` may lower `inSyncReplicas` to.
        min_in_sync_replicas: u32 = 1,
        /// All copies of the in-sync set must acknowledge.
        all_ack_in_sync_state_set: bool = false,
        /// `inSyncReplicas` follows the number of slaves that are there.
        enable_auto_in_sync_replicas: bool = false,
        /// A slave refuses offsets beyond its log.
        offset_check_in_slave: bool = false,
        /// The smallest slave takes over secondary duties. Not available here.
        enable_slave_acting_master: bool = false,
        /// A slave starts without waiting for its master.
        skip_pre_online: bool = false,
        /// Controller mode. Not available here.
        enable_controller_mode: bool = false,

        // Raft group, in DLedger's keys.

        /// The CommitLog is a Raft log.
        #[serde(rename = "enableDLegerCommitLog")]
        enable_dleger_commit_log: bool = false,
        /// Name of the Raft group; must equal `brokerName`.
        #[serde(rename = "dLegerGroup", deserialize_with = "blank_is_none")]
        dleger_group: Option<String> = None,
        /// Members of a group that starts for the first time, with their Raft ports:
        /// `n0-host:port;n1-host:port;n2-host:port`. Host names are resolved at each connection.
        #[serde(rename = "dLegerPeers", deserialize_with = "blank_is_none")]
        dleger_peers: Option<String> = None,
        /// Which of them this is, `n0`.
        #[serde(rename = "dLegerSelfId", deserialize_with = "blank_is_none")]
        dleger_self_id: Option<String> = None,
        /// Members that should lead, best first, `n0;n1`; absent = whoever does. RocketMQ's spelling.
        #[serde(deserialize_with = "blank_is_none")]
        preferred_leader_id: Option<String> = None,
        /// The same in DLedger's spelling.
        #[serde(deserialize_with = "blank_is_none")]
        preferred_leader_ids: Option<String> = None,
        /// Where DLedger keeps its log. Not used: the log is the CommitLog.
        #[serde(rename = "storePathDLedgerCommitLog", deserialize_with = "blank_is_none")]
        store_path_dledger_commit_log: Option<String> = None,

        // Metrics, access control, admin.

        /// DISABLE, or PROM: metrics are served over HTTP. OTLP_GRPC and LOG are not available here.
        metrics_exporter_type: String = "DISABLE".into(),
        /// Port of the Prometheus endpoint.
        metrics_prom_exporter_port: u16 = 5_557,
        /// Address of the Prometheus endpoint; empty = `brokerIP1`.
        metrics_prom_exporter_host: String = String::new(),
        /// Labels of every metric, `name:value,name:value`.
        metrics_label: String = String::new(),
        /// Most samples of one metric; further topics and groups are left out.
        metrics_otel_cardinality_limit: usize = 50_000,
        /// Clients must authenticate.
        authentication_enabled: bool = false,
        /// Clients must be allowed to do what they do.
        authorization_enabled: bool = false,
        /// 4.x access control, without effect since 5.3.
        acl_enable: bool = false,
        /// Keys that an update may not name, separated by `;`.
        config_black_list: String = "configBlackList;brokerConfigPath".into(),

        // Keys of ours; Java has no such settings.

        /// Port of /livez and /readyz over HTTP, beside that of the metrics; 0 = none.
        health_port: u16 = 0,
        /// Most connections at a time.
        connections_max: usize = 20_000,
        /// Most requests that are worked on at a time; more wait in their connections.
        requests_in_flight_max: usize = 10_000,
        /// Most pulls that are held at a time; more are answered at once.
        held_pulls_max: usize = 100_000,
        /// Most bytes of messages that wait to be appended; more are answered with SYSTEM_BUSY.
        proposal_queue_bytes: usize = 64 * 1024 * 1024,

        // Keys of ours for Raft groups.

        /// Address that the Raft port is bound on; empty = as `bindAddress`. The port is the one of `dLegerPeers`.
        raft_bind_address: String = String::new(),
        /// Time between two heartbeats of the leader.
        raft_heartbeat_interval_ms: u64 = 50,
        /// Shortest time without a leader until a member asks for votes; more than two heartbeats.
        raft_election_timeout_min_ms: u64 = 150,
        /// Longest such time, at least twice the shortest; each member takes one in between by chance. A leader that
        /// heard of no majority for this long takes no more writes. Longer than any stall of the disk that should be
        /// borne.
        raft_election_timeout_max_ms: u64 = 300,
        /// Most bytes of messages in one entry of the log; a larger message is an entry of its own. At most half a
        /// CommitLog file.
        raft_entry_bytes_max: usize = 512 * 1024,
        /// Most entries that are proposed and not yet applied.
        raft_entries_in_flight_max: usize = 8,
        /// How often consumer offsets and progress that nobody waits for are committed.
        raft_offset_commit_interval_ms: u64 = 100,
        /// How long a send waits for a leader while there is none.
        raft_leader_wait_ms: u64 = 1_000,
        /// How long a replica that is asked to stop goes on serving clients which still send to it what its leader should
        /// have. Longer than the time between two looks of a client at its route, which is 30 s if nothing else is set.
        raft_leave_wait_ms: u64 = 32_000,
        /// The leader sends all pulls to followers, not only those of readers far behind.
        raft_read_from_followers: bool = false,
        /// A follower asks the leader for its position before each pull, so that it never shows less than what was
        /// acknowledged.
        raft_linearizable_follower_read: bool = false,
    }
}

impl BrokerConfig {
    /// Returns the port of the second listener.
    pub fn fast_listen_port(&self) -> u16 {
        self.listen_port.saturating_sub(2)
    }

    /// Returns the folder of topics, groups and offsets.
    pub fn config_folder(&self) -> PathBuf {
        self.store_path_root_dir.join("config")
    }

    /// Returns the delay of each level in milliseconds; the first is level 1.
    pub fn delay_levels_ms(&self) -> Vec<u64> {
        self.message_delay_level.split_whitespace().filter_map(delay_ms).collect()
    }

    /// Returns what is asked for and not available in this version.
    pub fn unsupported(&self) -> Option<String> {
        let multiple_paths = self.store_path_commit_log.to_string_lossy().contains(',');
        // The members of a Raft group find their roles; what the file says counts as little as in Java.
        let role = (!self.enable_dleger_commit_log).then_some(self.broker_role);
        let wanted = [
            (
                self.enable_controller_mode,
                "enableControllerMode=true: there is no controller; use a Raft group",
            ),
            (role == Some(BrokerRole::Slave), "brokerRole=SLAVE: slaves are not available in this version"),
            (
                role == Some(BrokerRole::SyncMaster) && self.in_sync_replicas > 1,
                "brokerRole=SYNC_MASTER with inSyncReplicas > 1: slaves are not available in this version",
            ),
            (
                self.enable_slave_acting_master,
                "enableSlaveActingMaster=true: slaves are not available in this version",
            ),
            (self.duplication_enable, "duplicationEnable=true is not available"),
            (
                self.authentication_enabled,
                "authenticationEnabled=true: access control is not available in this version",
            ),
            (
                self.authorization_enabled,
                "authorizationEnabled=true: access control is not available in this version",
            ),
            (self.store_type != "default", "storeType: only default is available"),
            (
                self.config_manager_version.eq_ignore_ascii_case("v2"),
                "configManagerVersion=v2: only v1 is available",
            ),
            (
                self.enable_lmq || self.enable_multi_dispatch,
                "enableLmq, enableMultiDispatch: LMQ is not available",
            ),
            (
                self.fetch_namesrv_addr_by_address_server,
                "fetchNamesrvAddrByAddressServer=true: set namesrvAddr instead",
            ),
            (multiple_paths, "storePathCommitLog: only one path is available"),
        ];
        wanted.into_iter().find(|(wanted, _)| *wanted).map(|(_, reason)| reason.to_owned())
    }

    fn check_numbers(&self) -> Result<(), Refused> {
        let file_sizes = [
            ("mappedFileSizeCommitLog", self.mapped_file_size_commit_log),
            ("mappedFileSizeConsumeQueue", self.mapped_file_size_consume_queue),
            ("mappedFileSizeTimerLog", self.mapped_file_size_timer_log),
            ("maxMessageSize", self.max_message_size),
            ("maxHashSlotNum", self.max_hash_slot_num),
            ("maxIndexNum", self.max_index_num),
        ];
        for (key, value) in file_sizes {
            if !(1..=i32::MAX as u32).contains(&value) {
                return Err(Refused::Value(key, "expected a number from 1 to 2147483647".into()));
            }
        }
        let positive = [
            ("serverChannelMaxIdleTimeSeconds", self.server_channel_max_idle_time_seconds),
            ("registerNameServerPeriod", self.register_name_server_period),
            ("flushConsumerOffsetInterval", self.flush_consumer_offset_interval),
            ("flushIntervalCommitLog", self.flush_interval_commit_log),
            ("flushIntervalConsumeQueue", self.flush_interval_consume_queue),
            ("flushDelayOffsetInterval", self.flush_delay_offset_interval),
            ("cleanResourceInterval", self.clean_resource_interval),
            ("transactionCheckInterval", self.transaction_check_interval),
            ("timerPrecisionMs", self.timer_precision_ms),
            ("timerFlushIntervalMs", self.timer_flush_interval_ms),
            ("timerRollWindowSlot", self.timer_roll_window_slot.into()),
            ("haTransferBatchSize", self.ha_transfer_batch_size.into()),
            ("defaultTopicQueueNums", self.default_topic_queue_nums.into()),
            ("reviveQueueNum", self.revive_queue_num.into()),
            ("inSyncReplicas", self.in_sync_replicas.into()),
            ("connectionsMax", self.connections_max as u64),
            ("requestsInFlightMax", self.requests_in_flight_max as u64),
            ("proposalQueueBytes", self.proposal_queue_bytes as u64),
        ];
        if let Some((key, _)) = positive.into_iter().find(|(_, value)| *value == 0) {
            return Err(Refused::Value(key, "expected 1 or more".into()));
        }
        let percent = [
            ("diskMaxUsedSpaceRatio", self.disk_max_used_space_ratio),
            ("diskSpaceCleanForciblyRatio", self.disk_space_clean_forcibly_ratio),
            ("diskSpaceWarningLevelRatio", self.disk_space_warning_level_ratio),
            ("accessMessageInMemoryMaxRatio", self.access_message_in_memory_max_ratio),
            ("popFromRetryProbability", self.pop_from_retry_probability),
        ];
        if let Some((key, _)) = percent.into_iter().find(|(_, value)| *value > 100) {
            return Err(Refused::Value(key, "expected a percentage from 0 to 100".into()));
        }
        if self.broker_permission & !0b110 != 0 {
            return Err(Refused::Value("brokerPermission", "expected 2 (write), 4 (read), 6 or 0".into()));
        }
        Ok(())
    }

    fn check_texts(&self) -> Result<(), Refused> {
        let is_hour = |hour: &str| hour.trim().parse::<u8>().is_ok_and(|hour| hour < 24);
        if !self.delete_when.split(';').filter(|hour| !hour.trim().is_empty()).all(is_hour) {
            return Err(Refused::Value("deleteWhen", "expected hours from 00 to 23, separated by ;".into()));
        }
        if !self.message_delay_level.split_whitespace().all(|level| delay_ms(level).is_some()) {
            let reason = "expected numbers with s, m, h or d, separated by blanks";
            return Err(Refused::Value("messageDelayLevel", reason.into()));
        }
        for (key, address) in [("brokerIP1", &self.broker_ip1), ("brokerIP2", &self.broker_ip2)] {
            if address.contains(char::is_whitespace) || address.contains(';') {
                return Err(Refused::Value(key, "expected one address".into()));
            }
        }
        const EXPORTERS: [&str; 4] = ["DISABLE", "PROM", "OTLP_GRPC", "LOG"];
        if !EXPORTERS.contains(&self.metrics_exporter_type.as_str()) {
            return Err(Refused::Value(
                "metricsExporterType",
                format!("expected one of {}", EXPORTERS.join(", ")),
            ));
        }
        Ok(())
    }

    fn check_role(&self) -> Result<(), Refused> {
        let addresses = self.namesrv_addr.as_deref().unwrap_or_default();
        if !addresses.split(';').filter(|address| !address.trim().is_empty()).all(is_host_and_port) {
            return Err(Refused::Other(Error::NamesrvAddr(addresses.to_owned())));
        }
        if self.enable_controller_mode && self.enable_dleger_commit_log {
            return Err(Refused::Other(Error::TwoModes));
        }
        if self.enable_dleger_commit_log {
            return raft::check(self);
        }
        if self.broker_role == BrokerRole::Slave && self.broker_id <= 0 && !self.enable_controller_mode {
            return Err(Refused::Other(Error::SlaveId));
        }
        Ok(())
    }
}

impl Settings for BrokerConfig {
    /// Java's `@ImportantField`s.
    #[rustfmt::skip]
    const IMPORTANT: &'static [&'static str] = &[
        "accessMessageInMemoryMaxRatio", "aclEnable", "allAckInSyncStateSet", "autoCreateSubscriptionGroup",
        "autoCreateTopicEnable", "brokerClusterName", "brokerIP1", "brokerId", "brokerName", "brokerRole",
        "cleanFileForciblyEnable", "deleteFileBatchMax", "deleteWhen", "enableAutoInSyncReplicas",
        "fetchNameSrvAddrByDnsLookup", "fetchNamesrvAddrByAddressServer", "fileReservedTime", "flushDiskType",
        "flushIntervalCommitLog", "haFlowControlEnable", "haMasterAddress", "inSyncReplicas", "listenPort",
        "maxTransferBytesOnMessageInDisk", "maxTransferBytesOnMessageInMemory",
        "maxTransferCountOnMessageInDisk", "maxTransferCountOnMessageInMemory", "messageIndexEnable",
        "minInSyncReplicas", "msgTraceTopicName", "namesrvAddr", "rejectTransactionMessage",
        "storePathCommitLog", "storePathRootDir", "storeType", "totalReplicas", "traceTopicEnable",
        "transactionCheckInterval", "transactionCheckMax", "transactionTimeOut",
    ];
    #[rustfmt::skip]
    const AT_START: &'static [&'static str] = &[
        "bindAddress", "brokerClusterName", "brokerIP1", "brokerIP2", "brokerId", "brokerName", "brokerRole",
        "cleanResourceInterval", "configManagerVersion", "connectionsMax", "dLegerGroup", "dLegerPeers",
        "dLegerSelfId", "duplicationEnable", "enableControllerMode", "enableDLegerCommitLog", "enableLmq",
        "enableMultiDispatch", "enableSlaveActingMaster", "flushDiskType", "flushIntervalCommitLog",
        "haListenPort", "healthPort", "heldPullsMax", "listenPort", "mappedFileSizeCommitLog", "mappedFileSizeConsumeQueue",
        "mappedFileSizeTimerLog", "maxHashSlotNum", "maxIndexNum", "messageDelayLevel", "messageIndexEnable",
        "metricsExporterType", "metricsLabel",
        "metricsOtelCardinalityLimit", "metricsPromExporterHost", "metricsPromExporterPort", "preferredLeaderId",
        "preferredLeaderIds", "proposalQueueBytes", "raftBindAddress", "raftElectionTimeoutMaxMs",
        "raftElectionTimeoutMinMs", "raftEntriesInFlightMax", "raftEntryBytesMax", "raftHeartbeatIntervalMs",
        "raftOffsetCommitIntervalMs", "requestsInFlightMax", "reviveQueueNum",
        "serverChannelMaxIdleTimeSeconds", "storePathCommitLog", "storePathRootDir", "storeType",
        "timerPrecisionMs", "timerRollWindowSlot", "timerWheelEnable", "waitTimeMillsInSendQueue",
    ];
    // What depends on a machine's disk and memory.
    #[rustfmt::skip]
    const OF_REPLICA: &'static [&'static str] = &[
        "accessMessageInMemoryMaxRatio", "diskMaxUsedSpaceRatio", "diskSpaceCleanForciblyRatio",
        "diskSpaceWarningLevelRatio", "haMasterAddress",
    ];
    const BLACK_LIST: &'static [&'static str] = &["brokerConfigPath", "configBlackList", "rocketmqHome"];

    fn resolve(&mut self, environment: &Environment, is_set: &dyn Fn(&str) -> bool) {
        if self.broker_name.is_empty() {
            self.broker_name = match &self.dleger_group {
                Some(group) if self.enable_dleger_commit_log => group.clone(),
                _ => machine::host_name(),
            };
        }
        if self.broker_ip1.is_empty() {
            self.broker_ip1 = machine::local_address().to_string();
        }
        if self.broker_ip2.is_empty() {
            self.broker_ip2 = self.broker_ip1.clone();
        }
        if self.ha_listen_port == 0 && self.listen_port != 0 {
            self.ha_listen_port = self.listen_port.saturating_add(1);
        }
        if self.store_path_root_dir.as_os_str().is_empty() {
            let home = environment.home.clone().unwrap_or_else(|| PathBuf::from("."));
            self.store_path_root_dir = home.join("store");
        }
        if self.store_path_commit_log.as_os_str().is_empty() {
            self.store_path_commit_log = self.store_path_root_dir.join("commitlog");
        }
        if self.enable_dleger_commit_log {
            raft::resolve(self, is_set);
        } else if self.broker_role != BrokerRole::Slave && !self.enable_controller_mode {
            self.broker_id = 0;
        }
        self.register_name_server_period = self.register_name_server_period.clamp(10_000, 60_000);
        self.disk_max_used_space_ratio = self.disk_max_used_space_ratio.clamp(10, 95);
        self.disk_space_clean_forcibly_ratio = self.disk_space_clean_forcibly_ratio.clamp(30, 85);
        self.disk_space_warning_level_ratio = self.disk_space_warning_level_ratio.clamp(35, 90);
        const CONSUME_QUEUE_ENTRY: u32 = 20;
        let entries = self.mapped_file_size_consume_queue.div_ceil(CONSUME_QUEUE_ENTRY);
        self.mapped_file_size_consume_queue = entries.saturating_mul(CONSUME_QUEUE_ENTRY);
    }

    fn check(&self) -> Result<(), Refused> {
        self.check_numbers()?;
        self.check_texts()?;
        self.check_role()
    }

    fn risks(&self) -> Vec<String> {
        if self.enable_dleger_commit_log { raft::risks(self) } else { Vec::new() }
    }

    fn config_black_list(&self) -> &str {
        &self.config_black_list
    }
}

fn blank_is_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

pub(super) fn is_host_and_port(address: &str) -> bool {
    match address.trim().rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok(),
        None => false,
    }
}

fn delay_ms(level: &str) -> Option<u64> {
    let unit_ms = match level.chars().last()? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    level[..level.len() - 1].parse::<u64>().ok()?.checked_mul(unit_ms)
}
