use super::registration::Registered;
use super::*;
use crate::model::TopicConfig;
use crate::remoting::body::TopicConfigAndMappingSerializeWrapper;

const NOW: i64 = 1_700_000_000_000;
const NOBODY: [u64; 0] = [];

/// A broker of the group `broker` in `cluster`, as each test changes it.
fn registration(broker_id: i64, address: &str, topics: &[&str]) -> Registration {
    let mut table = TopicConfigAndMappingSerializeWrapper {
        data_version: DataVersion { counter: 1, state_version: 0, timestamp: 5 },
        ..TopicConfigAndMappingSerializeWrapper::default()
    };
    for topic in topics {
        let topic = Topic::new(topic);
        table.topic_config_table.insert(topic.clone(), TopicConfig::new(topic, 4, Perm::READ_WRITE));
    }
    Registration {
        member: member(address),
        broker_name: "broker".into(),
        broker_id,
        ha_address: Some(format!("{address}-ha")),
        zone_name: None,
        silence_ms: None,
        enable_acting_master: Some(false),
        table,
        filter_servers: Some(Vec::new()),
        connection: 1,
        now_ms: NOW,
        replaces_topics: false,
    }
}

fn member(address: &str) -> Member {
    Member { cluster: "cluster".into(), address: address.into() }
}

fn with_version(mut registration: Registration, state_version: i64, counter: i64) -> Registration {
    registration.table.data_version = DataVersion { counter, state_version, timestamp: 5 };
    registration
}

/// Returns the members of the group in short: `0=a 1=b`.
fn group(table: &RouteTable) -> String {
    let addrs = table.member_group("cluster", "broker").broker_addrs;
    addrs.iter().map(|(id, address)| format!("{id}={address}")).collect::<Vec<_>>().join(" ")
}

/// Returns the queues of a topic in short: `broker:6`.
fn perms(table: &RouteTable, topic: &str) -> String {
    let queues = table.topics.get(&Topic::new(topic)).map(|queues| queues.values().collect::<Vec<_>>());
    let queues = queues.unwrap_or_default();
    queues.iter().map(|queue| format!("{}:{}", queue.broker_name, queue.perm.0)).collect::<Vec<_>>().join(" ")
}

fn addresses(route: &TopicRouteData) -> String {
    let all = route.broker_datas.iter().flat_map(|group| &group.broker_addrs);
    all.map(|(id, address)| format!("{id}={address}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn master_and_slave_make_a_group() {
    let mut table = RouteTable::default();
    let first = table.register(registration(0, "m", &["T", "U"])).unwrap();
    assert_eq!(first, Registered::default());
    let slave = table.register(registration(1, "s", &["T", "U", "only-here"])).unwrap();
    assert_eq!((slave.master_address.as_deref(), slave.ha_address.as_deref()), (Some("m"), Some("m-ha")));
    assert_eq!(group(&table), "0=m 1=s");
    let route = table.route(&Topic::new("T"), false).unwrap();
    assert_eq!((addresses(&route).as_str(), route.queue_datas.len()), ("0=m 1=s", 1));
    assert!(table.route(&Topic::new("only-here"), false).is_none(), "a slave's topics do not count");
    let info = table.cluster_info();
    assert_eq!(info.cluster_addr_table["cluster"], BTreeSet::from(["broker".to_owned()]));
}

#[test]
fn slave_that_becomes_master_keeps_one_entry() {
    let mut table = RouteTable::default();
    table.register(registration(0, "m", &["T", "U"])).unwrap();
    table.register(registration(1, "s", &[])).unwrap();
    table.unregister("broker", &member("m"));
    table.register(registration(0, "s", &["T", "U"])).unwrap();
    assert_eq!(group(&table), "0=s");
}

#[test]
fn older_term_does_not_take_the_id_of_a_newer_leader() {
    let mut table = RouteTable::default();
    table.register(with_version(registration(0, "old", &["T", "U"]), 3, 1)).unwrap();
    table.register(with_version(registration(1, "new", &["T", "U"]), 3, 1)).unwrap();
    // The new leader's term is higher: it takes the id, whatever its counter says.
    table.register(with_version(registration(0, "new", &["T", "U"]), 4, 0)).unwrap();
    assert_eq!(group(&table), "0=new");
    // The old leader does not know yet.
    let ignored = table.register(with_version(registration(0, "old", &["T", "U", "V"]), 3, 9)).unwrap();
    assert_eq!(ignored, Registered::default());
    assert_eq!((group(&table).as_str(), perms(&table, "V").as_str()), ("0=new", ""));
    assert_eq!(table.data_version(&member("old")), None);
    // It learns of it, and registers as what it is.
    table.register(with_version(registration(1, "old", &[]), 4, 9)).unwrap();
    assert_eq!(group(&table), "0=new 1=old");
    // An equal term takes the id: without Raft all have 0.
    table.register(with_version(registration(0, "third", &["T", "U"]), 4, 0)).unwrap();
    assert_eq!(group(&table), "0=third 1=old");
}

#[test]
fn follower_of_an_older_term_does_not_take_the_id_of_another_one() {
    let mut table = RouteTable::default();
    table.register(with_version(registration(1, "one", &["T", "U"]), 9, 1)).unwrap();
    table.register(with_version(registration(1, "other", &["T", "U"]), 1, 1)).unwrap();
    assert_eq!(group(&table), "1=one");
    // One that is not alive fences nobody.
    table.lives.clear();
    table.register(with_version(registration(1, "other", &["T", "U"]), 1, 1)).unwrap();
    assert_eq!(group(&table), "1=other");
}

/// A group of three whose leader `a` of term 5 was followed by `b` in term 6.
fn after_a_switch() -> RouteTable {
    let mut table = RouteTable::default();
    table.register(with_version(registration(0, "a", &["T", "U"]), 5, 1)).unwrap();
    table.register(with_version(registration(2, "b", &["T", "U"]), 5, 1)).unwrap();
    table.register(with_version(registration(3, "c", &["T", "U"]), 5, 1)).unwrap();
    let new = Registration { connection: 2, ..with_version(registration(0, "b", &["T", "U"]), 6, 1) };
    table.register(new).unwrap();
    assert_eq!(group(&table), "0=b 3=c");
    table
}

#[test]
fn leader_of_the_past_never_takes_the_route_back() {
    type Change = fn(&mut RouteTable);
    let changes: [(&str, Change, &str); 5] = [
        ("nothing happened", |_| {}, "0=b 3=c"),
        ("the new leader died", |table| drop(table.disconnected(2)), "3=c"),
        ("the new leader stopped", |table| drop(table.unregister("broker", &member("b"))), "3=c"),
        (
            "the new leader follows an unknown third one",
            |table| drop(table.register(with_version(registration(2, "b", &[]), 7, 1))),
            "2=b 3=c",
        ),
        (
            "the leader of the past had registered as a follower",
            |table| drop(table.register(with_version(registration(1, "a", &[]), 6, 1))),
            "0=b 1=a 3=c",
        ),
    ];
    for (what, change, expected) in changes {
        let mut table = after_a_switch();
        change(&mut table);
        let late = with_version(registration(0, "a", &["T", "U", "V"]), 5, 9);
        assert_eq!(table.register(late).unwrap(), Registered::default(), "{what}");
        assert_eq!((group(&table).as_str(), perms(&table, "V").as_str()), (expected, ""), "{what}");
        // It leads again, in a term of its own.
        table.register(with_version(registration(0, "a", &["T", "U", "V"]), 8, 1)).unwrap();
        assert_eq!((group(&table).split(' ').next(), perms(&table, "V").as_str()), (Some("0=a"), "broker:6"));
    }
}

#[test]
fn follower_s_term_keeps_no_leader_out() {
    let mut table = RouteTable::default();
    table.register(with_version(registration(0, "a", &["T", "U"]), 5, 1)).unwrap();
    // It was cut off, and asked for votes in vain.
    table.register(with_version(registration(2, "b", &["T", "U"]), 99, 1)).unwrap();
    table.register(with_version(registration(0, "c", &["T", "U"]), 6, 1)).unwrap();
    assert_eq!(group(&table), "0=c 2=b");
}

#[test]
fn group_that_begins_anew_begins_with_any_term() {
    let mut table = after_a_switch();
    for address in ["a", "b", "c"] {
        table.unregister("broker", &member(address));
    }
    table.register(with_version(registration(0, "a", &["T", "U"]), 1, 1)).unwrap();
    assert_eq!(group(&table), "0=a");
}

#[test]
fn single_topic_needs_a_registered_broker() {
    let mut table = RouteTable::default();
    assert_eq!(table.register(registration(0, "m", &["T"])), Err(Refused::NotRegistered));
    assert_eq!(table.cluster_info(), ClusterInfo::default());
    table.register(registration(0, "m", &["T", "U"])).unwrap();
    table.register(with_version(registration(0, "m", &["V"]), 0, 2)).unwrap();
    assert_eq!(perms(&table, "V"), "broker:6");
    assert_eq!(table.register(registration(1, "s", &["V"])), Err(Refused::NotRegistered));
    assert_eq!(group(&table), "0=m");
}

#[test]
fn topics_are_taken_over_when_the_version_differs() {
    let mut table = RouteTable::default();
    table.register(registration(0, "m", &["T", "U"])).unwrap();
    let mut wiped = registration(0, "m", &["T", "U"]);
    wiped.table.topic_config_table.get_mut("T").unwrap().perm = Perm::READ;
    table.register(wiped).unwrap();
    assert_eq!(perms(&table, "T"), "broker:6", "the same version says that nothing changed");
    let mut wiped = with_version(registration(0, "m", &["T", "U"]), 0, 0);
    wiped.table.topic_config_table.get_mut("T").unwrap().perm = Perm::READ;
    table.register(wiped).unwrap();
    assert_eq!(perms(&table, "T"), "broker:4", "a lower version is another one too");
    table.delete_topic(&Topic::new("T"), None);
    table.register(with_version(registration(0, "m", &["T", "U"]), 0, 0)).unwrap();
    assert_eq!(perms(&table, "T"), "broker:6", "a topic that is missing comes back");
}

#[test]
fn topics_that_a_broker_lost_go_only_if_asked_for() {
    let mut table = RouteTable::default();
    table.register(registration(0, "m", &["T", "U", "V"])).unwrap();
    table.register(with_version(registration(0, "m", &["T", "U"]), 0, 2)).unwrap();
    assert_eq!(perms(&table, "V"), "broker:6");
    let replacing =
        Registration { replaces_topics: true, ..with_version(registration(0, "m", &["T", "U"]), 0, 3) };
    table.register(replacing).unwrap();
    assert_eq!(perms(&table, "V"), "");
    assert!(!table.all_topics().topic_list.contains(&Topic::new("V")));
}

#[test]
fn prime_slave_stands_in_for_the_master() {
    let mut table = RouteTable::default();
    let acting = |registration| Registration { enable_acting_master: Some(true), ..registration };
    table.register(acting(registration(0, "m", &["T", "U"]))).unwrap();
    table.register(acting(registration(2, "s2", &["T", "U"]))).unwrap();
    table.register(acting(registration(3, "s3", &["T", "U"]))).unwrap();
    assert_eq!(perms(&table, "T"), "broker:6");
    let change = table.unregister("broker", &member("m")).unwrap();
    assert_eq!((change.broker_id, change.address.as_str()), (2, "s2"));
    assert_eq!((change.offline_address.as_deref(), change.tell), (Some("m"), vec!["s2".into(), "s3".into()]));
    assert_eq!(perms(&table, "T"), "broker:4");

    let topic = Topic::new("T");
    assert_eq!(addresses(&table.route(&topic, false).unwrap()), "2=s2 3=s3");
    assert_eq!(addresses(&table.route(&topic, true).unwrap()), "0=s2 3=s3");
    table.add_write_perm("broker");
    assert_eq!(addresses(&table.route(&topic, true).unwrap()), "2=s2 3=s3", "its queues are writable");
    let exempt = Topic::new("rmq_sys_SYNC_BROKER_MEMBER_broker");
    let queues = table.topics[&topic].clone();
    table.topics.insert(exempt.clone(), queues);
    table.wipe_write_perm("broker");
    assert_eq!(addresses(&table.route(&exempt, true).unwrap()), "2=s2 3=s3");

    // While there is no master, the topics of the prime slave count, but not its permission to write.
    table.register(acting(with_version(registration(2, "s2", &["T", "U", "V"]), 0, 2))).unwrap();
    assert_eq!((perms(&table, "T"), perms(&table, "V")), ("broker:4".into(), "broker:4".into()));

    let back = table.register(acting(with_version(registration(0, "m", &["T", "U"]), 0, 3))).unwrap();
    let change = back.change.unwrap();
    assert_eq!((change.broker_id, change.ha_address.as_deref()), (0, Some("m-ha")));
    assert_eq!((change.offline_address, change.tell), (None, vec!["s2".into(), "s3".into()]));
    assert_eq!(perms(&table, "T"), "broker:6");
}

#[test]
fn prime_slave_of_an_old_version_registers_no_topics() {
    let mut table = RouteTable::default();
    let old = |registration| Registration { enable_acting_master: None, ..registration };
    table.register(old(registration(1, "s", &["T", "U"]))).unwrap();
    assert_eq!(perms(&table, "T"), "");
    table.register(registration(1, "s", &["T", "U"])).unwrap();
    assert_eq!(perms(&table, "T"), "broker:6");
}

#[test]
fn last_member_takes_its_topics_along() {
    let mut table = RouteTable::default();
    table.register(registration(0, "m", &["T", "U"])).unwrap();
    table.register(registration(1, "s", &[])).unwrap();
    let mut other = registration(0, "o", &["U", "V"]);
    other.broker_name = "other".into();
    other.connection = 2;
    table.register(other).unwrap();

    table.unregister("broker", &member("m"));
    assert_eq!(perms(&table, "T"), "broker:6", "a slave is left, and nobody asked for an acting master");
    table.unregister("broker", &member("s"));
    assert_eq!((perms(&table, "T"), perms(&table, "U")), (String::new(), "other:6".into()));
    assert_eq!(table.disconnected(2), []);
    assert_eq!(table.cluster_info(), ClusterInfo::default());
    assert!(table.all_topics().topic_list.is_empty());
}

#[test]
fn closed_connection_takes_out_those_who_registered_over_it_last() {
    let mut table = RouteTable::default();
    table.register(registration(0, "m", &["T", "U"])).unwrap();
    let mut second = registration(0, "m2", &["T", "U"]);
    second.broker_name = "broker-2".into();
    table.register(second).unwrap();
    table.register(Registration { connection: 7, ..registration(0, "m", &["T", "U"]) }).unwrap();
    table.disconnected(1);
    assert_eq!(perms(&table, "T"), "broker:6");
    table.disconnected(1);
    table.disconnected(7);
    assert_eq!(perms(&table, "T"), "");
}

#[test]
fn old_leader_that_goes_does_not_take_the_new_one_along() {
    let mut table = RouteTable::default();
    table.register(with_version(registration(0, "old", &["T", "U"]), 1, 1)).unwrap();
    let new = Registration { connection: 2, ..with_version(registration(0, "new", &["T", "U"]), 2, 1) };
    table.register(new).unwrap();
    table.disconnected(1);
    assert_eq!(group(&table), "0=new");
    assert!(table.lives.contains_key(&member("new")) && !table.lives.contains_key(&member("old")));
}

/// Looks for silent brokers every five seconds until `until_ms`, as the name server does.
fn look(table: &mut RouteTable, from_ms: i64, until_ms: i64) -> Vec<u64> {
    let mut connections = Vec::new();
    for now_ms in (from_ms..=until_ms).step_by(5000) {
        connections.extend(table.expire(now_ms, 5000).connections);
    }
    connections
}

#[test]
fn silent_brokers_are_taken_out() {
    let mut table = RouteTable::default();
    table.register(registration(0, "m", &["T", "U"])).unwrap();
    let quick = Registration { silence_ms: Some(10_000), connection: 2, ..registration(1, "s", &[]) };
    table.register(quick).unwrap();
    assert_eq!(look(&mut table, NOW, NOW + 10_000), NOBODY);
    assert_eq!(look(&mut table, NOW + 15_000, NOW + 15_000), [2]);
    assert_eq!(group(&table), "0=m");
    table.heard_of(&member("m"), NOW + 15_000);
    table.heard_of(&member("nobody"), NOW + 15_000);
    assert_eq!(look(&mut table, NOW + 20_000, NOW + 135_000), NOBODY);
    assert_eq!(look(&mut table, NOW + 140_000, NOW + 140_000), [1]);
    assert_eq!(group(&table), "");
}

#[test]
fn jump_of_the_clock_takes_nobody_out() {
    let mut table = RouteTable::default();
    table.register(registration(0, "m", &["T", "U"])).unwrap();
    table.expire(NOW, 5000);
    let later = NOW + 3_600_000;
    assert_eq!(table.expire(later, 5000), Expired::default());
    assert_eq!(look(&mut table, later + 5000, later + 120_000), NOBODY);
    assert_eq!(table.expire(NOW, 5000), Expired::default(), "backwards");
    assert_eq!(look(&mut table, NOW + 5000, NOW + 120_000), NOBODY);
    assert_eq!(look(&mut table, NOW + 125_000, NOW + 125_000), [1]);
}

#[test]
fn permissions_are_wiped_and_given_back() {
    let mut table = RouteTable::default();
    let mut all = registration(0, "m", &["T", "U"]);
    all.table.topic_config_table.get_mut("T").unwrap().perm = Perm::ALL;
    table.register(all).unwrap();
    assert_eq!(table.wipe_write_perm("broker"), 2);
    assert_eq!(perms(&table, "T"), "broker:5");
    assert_eq!(table.add_write_perm("broker"), 2);
    assert_eq!(perms(&table, "T"), "broker:6");
    assert_eq!(table.wipe_write_perm("nobody"), 0);
}

#[test]
fn topics_are_registered_and_deleted_by_hand() {
    let mut table = RouteTable::default();
    table.register(registration(0, "m", &["T", "U"])).unwrap();
    let queue = table.topics[&Topic::new("T")]["broker"].clone();
    let unknown = QueueData { broker_name: "nobody".into(), ..queue.clone() };
    let topic = Topic::new("V");
    assert!(!table.register_topic(topic.clone(), vec![queue.clone(), unknown]));
    assert!(!table.register_topic(topic.clone(), vec![]));
    assert_eq!(perms(&table, "V"), "");
    assert!(table.register_topic(topic.clone(), vec![queue]));
    assert_eq!(perms(&table, "V"), "broker:6");
    table.delete_topic(&topic, Some("elsewhere"));
    assert_eq!(perms(&table, "V"), "broker:6");
    table.delete_topic(&topic, Some("cluster"));
    assert_eq!(table.all_topics().topic_list, [Topic::new("T"), Topic::new("U")]);
}

#[test]
fn lists_name_what_was_asked_for() {
    let mut table = RouteTable::default();
    let mut flagged = registration(0, "m", &["both", "none", "sub", "unit"]);
    for (topic, flag) in [("unit", 1), ("sub", 2), ("both", 3)] {
        flagged.table.topic_config_table.get_mut(topic).unwrap().topic_sys_flag = flag;
    }
    table.register(flagged).unwrap();
    let names = |list: TopicList| list.topic_list.iter().map(Topic::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(names(table.unit_topics(UnitFilter::Unit)), "both unit");
    assert_eq!(names(table.unit_topics(UnitFilter::HasUnitSub)), "both sub");
    assert_eq!(names(table.unit_topics(UnitFilter::HasUnitSubButNotUnit)), "sub");
    assert_eq!(names(table.topics_of_cluster("cluster")), "both none sub unit");
    assert_eq!(names(table.topics_of_cluster("elsewhere")), "");
    let system = table.system_topics();
    assert_eq!(
        (system.broker_addr.as_deref(), names(system.clone()).as_str()),
        (Some("m"), "broker cluster")
    );
}

#[test]
fn zone_keeps_its_own_and_groups_without_master() {
    let mut table = RouteTable::default();
    for (name, id, zone) in [("a", 0, Some("here")), ("b", 0, Some("there")), ("c", 1, None), ("d", 0, None)]
    {
        let mut registration = registration(id, &format!("{name}-address"), &["T", "U"]);
        registration.broker_name = name.into();
        registration.zone_name = zone.map(str::to_owned);
        registration.filter_servers = Some(vec!["filter".into()]);
        table.register(registration).unwrap();
    }
    let mut route = table.route(&Topic::new("T"), false).unwrap();
    assert_eq!(route.filter_server_table.len(), 4);
    keep_zone(&mut route, "HERE");
    let names: Vec<_> = route.broker_datas.iter().map(|group| group.broker_name.as_str()).collect();
    assert_eq!(names, ["a", "c"]);
    let queues: Vec<_> = route.queue_datas.iter().map(|queue| queue.broker_name.as_str()).collect();
    assert_eq!(queues, ["a", "c"]);
    assert_eq!(route.filter_server_table.len(), 2);
}

#[test]
fn static_topics_are_part_of_the_route() {
    let mut table = RouteTable::default();
    let mut registration = registration(0, "m", &["T", "U"]);
    let mapping = TopicQueueMappingInfo {
        bname: Some("broker".into()),
        topic: Some(Topic::new("T")),
        total_queues: 4,
        ..TopicQueueMappingInfo::default()
    };
    registration.table.topic_queue_mapping_info_map.insert(Topic::new("T"), mapping.clone());
    table.register(registration).unwrap();
    let route = table.route(&Topic::new("T"), false).unwrap();
    assert_eq!(route.topic_queue_mapping_by_broker, Some(BTreeMap::from([("broker".into(), mapping)])));
    assert_eq!(table.route(&Topic::new("U"), false).unwrap().topic_queue_mapping_by_broker, None);
}
