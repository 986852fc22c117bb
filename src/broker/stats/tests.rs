use super::*;

fn stats(clock: &Clock) -> Stats {
    Stats::new(clock.clone(), "C")
}

fn put(count: usize, bytes: usize) -> Put {
    Put { queue_id: QueueId(1), message_type: MessageType::Normal, count, bytes, elapsed: Duration::ZERO }
}

fn got(count: usize, next: u64) -> Got {
    Got { queue_id: QueueId(1), count, bytes: 100, next: QueueOffset(next) }
}

/// Moves the clock on, sampling as the task does.
fn pass(stats: &Stats, clock: &Clock, seconds: i64) {
    for _ in 0..seconds / 10 {
        clock.set_ms(clock.now_ms() + 10_000);
        stats.sample();
    }
}

#[test]
fn a_topic_has_the_sums_of_a_minute_an_hour_and_a_day() {
    let clock = Clock::manual(1_000_000);
    let stats = stats(&clock);
    let topic = Topic::new("T");
    assert!(stats.view("TOPIC_PUT_NUMS", "T").is_none());
    stats.put(&topic, put(3, 300));
    stats.put(&topic, put(1, 100));
    let data = stats.view("TOPIC_PUT_NUMS", "T").unwrap();
    assert_eq!((data.stats_minute.sum, data.stats_hour.sum, data.stats_day.sum), (4, 4, 4));
    assert_eq!((data.stats_minute.tps, data.stats_minute.avgpt), (0.4, 2.0));
    assert_eq!(stats.view("TOPIC_PUT_SIZE", "T").unwrap().stats_minute.sum, 400);

    pass(&stats, &clock, 50);
    assert_eq!(stats.view("TOPIC_PUT_NUMS", "T").unwrap().stats_minute.tps, 0.08);
    pass(&stats, &clock, 20);
    let data = stats.view("TOPIC_PUT_NUMS", "T").unwrap();
    assert_eq!((data.stats_minute.sum, data.stats_hour.sum), (0, 4));
    pass(&stats, &clock, 3600);
    let data = stats.view("TOPIC_PUT_NUMS", "T").unwrap();
    assert_eq!((data.stats_hour.sum, data.stats_day.sum), (0, 4));
}

#[test]
fn names_and_keys_are_those_of_java() {
    let clock = Clock::manual(0);
    let stats = stats(&clock);
    let (topic, group) = (Topic::new("T"), Group::new("G"));
    stats.put(&topic, put(2, 200));
    stats.got(&group, &topic, got(5, 7));
    stats.sent_back(&group, &topic);
    stats.put(&Topic::new("SCHEDULE_TOPIC_XXXX"), put(1, 10));
    for (name, key, sum) in [
        ("TOPIC_PUT_NUMS", "T", Some(2)),
        ("TOPIC_PUT_NUMS", "U", None),
        ("QUEUE_PUT_NUMS", "T@1", Some(2)),
        ("QUEUE_PUT_SIZE", "T@1", Some(200)),
        ("QUEUE_PUT_SIZE", "T@2", None),
        ("QUEUE_PUT_SIZE", "T@x", None),
        ("GROUP_GET_NUMS", "T@G", Some(5)),
        ("GROUP_GET_SIZE", "T@G", Some(100)),
        ("GROUP_GET_SIZE", "T", None),
        ("QUEUE_GET_NUMS", "T@1@G", Some(5)),
        ("SNDBCK_PUT_NUMS", "T@G", Some(1)),
        ("BROKER_PUT_NUMS", "C", Some(3)),
        ("BROKER_PUT_NUMS_WITHOUT_SYSTEM_TOPIC", "C", Some(2)),
        ("BROKER_GET_NUMS", "C", Some(5)),
        ("BROKER_GET_NUMS", "T", None),
        ("NO_SUCH_STAT", "T", None),
        ("NO_SUCH_STAT", "C", None),
    ] {
        let data = stats.view(name, key);
        assert_eq!(data.map(|data| data.stats_minute.sum), sum, "{name} {key}");
    }
    assert_eq!(stats.pulled(&group, &topic, QueueId(1)), Some(QueueOffset(7)));
    assert_eq!(stats.pulled(&group, &topic, QueueId(0)), None);
    stats.forget_group(&group);
    assert!(stats.view("GROUP_GET_NUMS", "T@G").is_none());
    stats.forget_topic(&topic);
    assert!(stats.view("TOPIC_PUT_NUMS", "T").is_none());
}

#[test]
fn what_was_idle_for_a_day_is_forgotten() {
    let clock = Clock::manual(0);
    let stats = stats(&clock);
    stats.put(&Topic::new("T"), put(1, 1));
    stats.got(&Group::new("G"), &Topic::new("T"), got(1, 1));
    assert_eq!(stats.room.0.load(Ordering::Relaxed), 4);
    pass(&stats, &clock, 23 * 3600);
    assert!(stats.view("GROUP_GET_NUMS", "T@G").is_some());
    pass(&stats, &clock, 3 * 3600);
    assert!(stats.view("TOPIC_PUT_NUMS", "T").is_none());
    assert_eq!(stats.room.0.load(Ordering::Relaxed), 0);
}

#[test]
fn rates_are_over_10_60_and_600_seconds() {
    let clock = Clock::manual(0);
    let stats = stats(&clock);
    let topic = Topic::new("T");
    assert_eq!(stats.summary().put_tps, [0.0; 3]);
    stats.put(&topic, put(600, 6000));
    pass(&stats, &clock, 600);
    stats.put(&topic, put(10, 100));
    stats.read(true, Duration::from_millis(3));
    stats.read(false, Duration::from_millis(1));
    pass(&stats, &clock, 10);
    let summary = stats.summary();
    assert_eq!(summary.put_tps, [1.0, 10.0 / 60.0, 10.0 / 600.0]);
    assert_eq!((summary.found_tps[0], summary.missed_tps[0], summary.total_tps[0]), (0.1, 0.1, 0.2));
    assert_eq!((summary.put_count, summary.put_bytes, summary.read_max_ms), (610, 6100, 3));
}

#[test]
fn totals_are_noted_every_morning() {
    let clock = Clock::manual(DAY_MS - 5_000);
    let stats = stats(&clock);
    let topic = Topic::new("T");
    stats.put(&topic, put(5, 1));
    assert_eq!(stats.summary().put_days, Days { yesterday_morning: 0, today_morning: 0, now: 5 });
    pass(&stats, &clock, 10);
    stats.put(&topic, put(2, 1));
    assert_eq!(stats.summary().put_days, Days { yesterday_morning: 0, today_morning: 5, now: 7 });
    pass(&stats, &clock, 86_400);
    assert_eq!(stats.summary().put_days, Days { yesterday_morning: 5, today_morning: 7, now: 7 });
}

#[test]
fn totals_are_kept_by_type_and_group() {
    let clock = Clock::manual(0);
    let stats = stats(&clock);
    let (topic, group) = (Topic::new("T"), Group::new("G"));
    stats.put(&topic, put(2, 200));
    stats.put(&topic, Put { message_type: MessageType::Fifo, ..put(1, 10) });
    stats.got(&group, &topic, got(5, 7));
    stats.put(&Topic::new("%RETRY%G"), put(1, 5000));
    let mut totals = stats.by_topic();
    totals.sort_by(|a, b| b.topic.cmp(&a.topic));
    assert_eq!(totals[0].put, [(MessageType::Normal, 2, 200), (MessageType::Fifo, 1, 10)]);
    assert_eq!(totals[0].got, [(group, 5, 100)]);
    assert_eq!((totals.len(), totals[1].topic.as_str()), (2, "%RETRY%G"));
    // Retries are no new messages.
    let sizes: Vec<_> = stats.sizes().map(|(_, counts)| counts).collect();
    let expected = Histogram::new(&SIZE_BOUNDS);
    expected.record(100, 2);
    assert_eq!(sizes[0], expected.counts());
}

#[test]
fn types_are_told_by_properties() {
    for (properties, name) in [
        ("", "normal"),
        ("TAGS\u{1}a\u{2}", "normal"),
        ("TRAN_MSG\u{1}true\u{2}DELAY\u{1}1\u{2}", "transaction"),
        ("TRAN_MSG\u{1}false\u{2}DELAY\u{1}1\u{2}", "delay"),
        ("TIMER_DELIVER_MS\u{1}1\u{2}", "delay"),
        ("__STARTDELIVERTIME\u{1}1\u{2}", "delay"),
        ("__SHARDINGKEY\u{1}k\u{2}DELAY\u{1}1\u{2}", "fifo"),
    ] {
        assert_eq!(MessageType::of(&Properties::new(properties)).name(), name, "{properties}");
    }
}
