//! What was sent and read, by topic, group and queue: VIEW_BROKER_STATS_DATA (315), and the rates in other answers.
//!
//! Source of names, keys and periods: RocketMQ `BrokerStatsManager`, `StatsItem`, `StoreStatsService`, `BrokerStats`.
//! Counting costs read locks and atomic additions; a task takes samples every 10 s, from which rates are computed.

mod counter;
mod latency;

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use counter::{Counter, Measure, Period};
use latency::Latencies;

use super::response::Error;
use crate::env::Clock;
use crate::message::{Properties, key};
use crate::metrics::{self, Histogram};
use crate::model::{Group, QueueId, QueueOffset, Topic, system_topic};
use crate::remoting::body::BrokerStatsData;
use crate::remoting::header::ViewBrokerStatsDataRequestHeader;
use crate::remoting::{Command, ResponseCode};

/// Time between two samples, as Java's `samplingInSeconds`.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(10);
/// Samples from one of an hour's to the next: 10 min.
const TICKS_PER_HOUR_SAMPLE: u64 = 60;
/// Samples from one of a day's to the next: 1 h.
const TICKS_PER_DAY_SAMPLE: u64 = 360;
/// Samples of the totals that are kept: the longest rate of the runtime table is over 600 s.
const TOTALS_MAX: usize = 61;
/// Topics are spread over so many locks.
const SHARDS: usize = 16;
/// Names that are counted at a time, each with about 1.5 KB after a day; further ones are not.
const ENTRIES_MAX: usize = 50_000;
const DAY_MS: i64 = 86_400_000;
/// Ranges of message sizes, in bytes, as Java's `BrokerMetricsManager`.
const SIZE_BOUNDS: [u64; 6] = [1 << 10, 4 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];

/// Counters of a broker.
#[derive(Debug)]
pub(crate) struct Stats {
    clock: Clock,
    /// The key of statistics of the whole broker.
    cluster: String,
    started_ms: i64,
    shards: [Table<Topic, TopicEntry>; SHARDS],
    room: Room,
    all: BrokerCounters,
    /// Without system topics.
    user: BrokerCounters,
    reads: Reads,
    latencies: Latencies,
    /// From the request to its commit.
    put_latency: Histogram,
    /// Bytes of stored messages by their type.
    sizes: [Histogram; MessageType::ALL.len()],
    failed_puts: AtomicU64,
    history: Mutex<History>,
}

/// What kind of message a producer sent, by its properties.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageType {
    Normal,
    Fifo,
    Delay,
    Transaction,
}

/// What was stored in a topic, and what groups got of it, since it was first counted.
#[derive(Debug, Clone)]
pub(crate) struct TopicTotals {
    pub(crate) topic: Topic,
    /// Messages and bytes of each type that came.
    pub(crate) put: Vec<(MessageType, u64, u64)>,
    /// Messages and bytes that each group got.
    pub(crate) got: Vec<(Group, u64, u64)>,
}

/// What a group got of a queue in one answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Got {
    pub(crate) queue_id: QueueId,
    pub(crate) count: usize,
    pub(crate) bytes: u64,
    /// Where its next pull begins.
    pub(crate) next: QueueOffset,
}

/// What was stored in a queue by one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Put {
    pub(crate) queue_id: QueueId,
    pub(crate) message_type: MessageType,
    pub(crate) count: usize,
    pub(crate) bytes: usize,
    /// From the request to its commit.
    pub(crate) elapsed: Duration,
}

/// Numbers of the runtime table, of the whole broker.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Summary {
    pub(crate) started_ms: i64,
    /// Messages stored, and their bytes.
    pub(crate) put_count: u64,
    pub(crate) put_bytes: u64,
    pub(crate) put_failed: u64,
    /// Messages a second over the last 10, 60 and 600 s.
    pub(crate) put_tps: [f64; 3],
    /// Reads a second that found messages, that found none, and both; messages handed out a second.
    pub(crate) found_tps: [f64; 3],
    pub(crate) missed_tps: [f64; 3],
    pub(crate) total_tps: [f64; 3],
    pub(crate) transferred_tps: [f64; 3],
    /// The longest put and read since the start, in milliseconds.
    pub(crate) put_max_ms: u64,
    pub(crate) read_max_ms: u64,
    /// How long the puts of the last minute took.
    pub(crate) put_distribution: String,
    pub(crate) put_p99_ms: u64,
    pub(crate) put_p999_ms: u64,
    /// Messages of users.
    pub(crate) put_days: Days,
    pub(crate) got_days: Days,
}

/// A total at three times.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Days {
    pub(crate) yesterday_morning: u64,
    pub(crate) today_morning: u64,
    pub(crate) now: u64,
}

/// Puts and gets of the whole broker.
#[derive(Debug)]
struct BrokerCounters {
    put: Counter,
    get: Counter,
}

#[derive(Debug, Default)]
struct Reads {
    found: AtomicU64,
    missed: AtomicU64,
    max_ms: AtomicU64,
}

#[derive(Debug)]
struct TopicEntry {
    put: Counter,
    /// Messages and bytes of each type.
    types: [(AtomicU64, AtomicU64); MessageType::ALL.len()],
    queues: Table<QueueId, Counter>,
    groups: Table<Group, GroupEntry>,
}

#[derive(Debug)]
struct GroupEntry {
    get: Counter,
    sent_back: Counter,
    queues: Table<QueueId, QueueEntry>,
}

#[derive(Debug)]
struct QueueEntry {
    get: Counter,
    /// Where the group's next pull begins.
    next: AtomicU64,
}

/// What is sampled beside the counters.
#[derive(Debug)]
struct History {
    ticks: u64,
    /// Oldest first; never empty.
    totals: VecDeque<Totals>,
    day: i64,
    put_mornings: (u64, u64),
    got_mornings: (u64, u64),
}

#[derive(Debug, Clone, Copy)]
struct Totals {
    at_ms: i64,
    put: u64,
    found: u64,
    missed: u64,
    transferred: u64,
}

impl MessageType {
    pub(crate) const ALL: [Self; 4] = [Self::Normal, Self::Fifo, Self::Delay, Self::Transaction];

    /// Reads it from a request's properties. Source: RocketMQ `BrokerMetricsManager.getMessageType`.
    pub(crate) fn of(properties: &Properties<'_>) -> Self {
        const DELAYS: [&str; 5] = [
            key::START_DELIVER_TIME,
            key::DELAY,
            key::TIMER_DELIVER_MS,
            key::TIMER_DELAY_SEC,
            key::TIMER_DELAY_MS,
        ];
        if properties.get(key::TRAN_MSG).is_some_and(|half| half.eq_ignore_ascii_case("true")) {
            Self::Transaction
        } else if properties.get(key::SHARDING_KEY).is_some() {
            Self::Fifo
        } else if DELAYS.iter().any(|name| properties.get(name).is_some()) {
            Self::Delay
        } else {
            Self::Normal
        }
    }

    /// Returns the name in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Fifo => "fifo",
            Self::Delay => "delay",
            Self::Transaction => "transaction",
        }
    }
}

/// VIEW_BROKER_STATS_DATA. Source: RocketMQ `AdminBrokerProcessor.ViewBrokerStatsData`.
pub(crate) fn view(stats: &Stats, request: &Command) -> Result<Command, Error> {
    let header: ViewBrokerStatsDataRequestHeader = request.header()?;
    let data = stats.view(&header.stats_name, &header.stats_key).ok_or_else(|| {
        Error::System(format!("The stats <{}> <{}> not exist", header.stats_name, header.stats_key))
    })?;
    Ok(Command::response(ResponseCode::Success).with_json(&data))
}

impl Stats {
    pub(crate) fn new(clock: Clock, cluster: &str) -> Self {
        let now_ms = clock.now_ms();
        let counters = || BrokerCounters { put: Counter::new(now_ms), get: Counter::new(now_ms) };
        let history = History {
            ticks: 0,
            totals: VecDeque::from([Totals { at_ms: now_ms, put: 0, found: 0, missed: 0, transferred: 0 }]),
            day: now_ms.div_euclid(DAY_MS),
            put_mornings: (0, 0),
            got_mornings: (0, 0),
        };
        Self {
            clock,
            cluster: cluster.to_owned(),
            started_ms: now_ms,
            shards: std::array::from_fn(|_| Table::default()),
            room: Room::default(),
            all: counters(),
            user: counters(),
            reads: Reads::default(),
            latencies: Latencies::new(),
            put_latency: Histogram::of_latencies(),
            sizes: std::array::from_fn(|_| Histogram::new(&SIZE_BOUNDS)),
            failed_puts: AtomicU64::new(0),
            history: Mutex::new(history),
        }
    }

    /// Counts messages that were stored.
    pub(crate) fn put(&self, topic: &Topic, put: Put) {
        let (count, bytes) = (put.count as u64, put.bytes as u64);
        self.all.put.add(count, bytes);
        if !system_topic::is_system(topic.as_str()) {
            self.user.put.add(count, bytes);
        }
        self.latencies.add(put.elapsed);
        self.put_latency.observe(put.elapsed);
        if !topic.is_retry() && !topic.is_dlq() {
            self.sizes[put.message_type as usize].record(bytes / count.max(1), count);
        }
        self.topic(topic, |entry| {
            entry.put.add(count, bytes);
            let (of_type, bytes_of_type) = &entry.types[put.message_type as usize];
            of_type.fetch_add(count, Ordering::Relaxed);
            bytes_of_type.fetch_add(bytes, Ordering::Relaxed);
            entry.queues.with(&put.queue_id, &self.room, || self.counter(), |queue| queue.add(count, bytes));
        });
    }

    /// Counts a message that could not be stored.
    pub(crate) fn put_failed(&self) {
        self.failed_puts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts messages that a group got.
    pub(crate) fn got(&self, group: &Group, topic: &Topic, got: Got) {
        let count = got.count as u64;
        self.all.get.add(count, got.bytes);
        if !system_topic::is_system(topic.as_str()) {
            self.user.get.add(count, got.bytes);
        }
        self.group(topic, group, |entry| {
            entry.get.add(count, got.bytes);
            let make = || QueueEntry { get: self.counter(), next: AtomicU64::new(0) };
            entry.queues.with(&got.queue_id, &self.room, make, |queue| {
                queue.get.add(count, got.bytes);
                queue.next.store(got.next.0, Ordering::Relaxed);
            });
        });
    }

    /// Counts a look into the store for messages.
    pub(crate) fn read(&self, found: bool, elapsed: Duration) {
        let counter = if found { &self.reads.found } else { &self.reads.missed };
        counter.fetch_add(1, Ordering::Relaxed);
        // Nearly always it is not the longest; a plain load keeps the line shared between cores.
        let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        if ms > self.reads.max_ms.load(Ordering::Relaxed) {
            self.reads.max_ms.fetch_max(ms, Ordering::Relaxed);
        }
    }

    /// Counts a message that a group sent back.
    pub(crate) fn sent_back(&self, group: &Group, topic: &Topic) {
        self.group(topic, group, |entry| entry.sent_back.add(1, 0));
    }

    /// Returns where the next pull of a group from a queue begins, if it pulled anything lately.
    pub(crate) fn pulled(&self, group: &Group, topic: &Topic, queue_id: QueueId) -> Option<QueueOffset> {
        self.shard(topic)
            .get(topic, |entry| {
                entry.groups.get(group, |group| {
                    group.queues.get(&queue_id, |queue| QueueOffset(queue.next.load(Ordering::Relaxed)))
                })
            })
            .flatten()
            .flatten()
    }

    /// Returns what was counted of each topic and group. What was idle for a day starts again at 0.
    pub(crate) fn by_topic(&self) -> Vec<TopicTotals> {
        let mut all = Vec::new();
        for shard in &self.shards {
            for (topic, entry) in shard.read().iter() {
                let put = MessageType::ALL.into_iter().zip(&entry.types).map(|(kind, (messages, bytes))| {
                    (kind, messages.load(Ordering::Relaxed), bytes.load(Ordering::Relaxed))
                });
                let groups = entry.groups.read();
                let got =
                    groups.iter().map(|(name, group)| (name.clone(), group.get.nums(), group.get.bytes()));
                all.push(TopicTotals {
                    topic: topic.clone(),
                    put: put.filter(|(_, messages, _)| *messages > 0).collect(),
                    got: got.filter(|(_, messages, _)| *messages > 0).collect(),
                });
            }
        }
        all
    }

    /// Returns how long puts took, since the start.
    pub(crate) fn put_latency(&self) -> metrics::Counts {
        self.put_latency.counts()
    }

    /// Returns the sizes of messages by their type, since the start.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (MessageType, metrics::Counts)> {
        MessageType::ALL.into_iter().zip(&self.sizes).map(|(kind, sizes)| (kind, sizes.counts()))
    }

    /// Returns how many messages a second came for a topic in the last minute.
    pub(crate) fn topic_put_tps(&self, topic: &Topic) -> f64 {
        let now_ms = self.clock.now_ms();
        self.shard(topic).get(topic, |entry| entry.put.rate(now_ms)).unwrap_or(0.0)
    }

    /// Returns how many messages a second a group got of a topic in the last minute.
    pub(crate) fn group_get_tps(&self, group: &Group, topic: &Topic) -> f64 {
        let now_ms = self.clock.now_ms();
        self.shard(topic)
            .get(topic, |entry| entry.groups.get(group, |group| group.get.rate(now_ms)))
            .flatten()
            .unwrap_or(0.0)
    }

    /// Forgets a topic that was deleted.
    pub(crate) fn forget_topic(&self, topic: &Topic) {
        self.shard(topic).write().remove(topic);
    }

    /// Forgets a group that was deleted.
    pub(crate) fn forget_group(&self, group: &Group) {
        for shard in &self.shards {
            for entry in shard.read().values() {
                entry.groups.write().remove(group);
            }
        }
    }

    /// Takes a sample; to be called every [`SAMPLE_INTERVAL`].
    pub(crate) fn sample(&self) {
        let now_ms = self.clock.now_ms();
        let tick = {
            let mut history = self.history();
            history.ticks += 1;
            if history.totals.len() == TOTALS_MAX {
                history.totals.pop_front();
            }
            history.totals.push_back(self.totals(now_ms));
            let day = now_ms.div_euclid(DAY_MS);
            if day != history.day {
                history.day = day;
                history.put_mornings = (history.put_mornings.1, self.user.put.nums());
                history.got_mornings = (history.got_mornings.1, self.user.get.nums());
            }
            history.ticks
        };
        self.latencies.sample();
        let period = match tick {
            tick if tick % TICKS_PER_DAY_SAMPLE == 0 => Period::Day,
            tick if tick % TICKS_PER_HOUR_SAMPLE == 0 => Period::Hour,
            _ => Period::Minute,
        };
        for counters in [&self.all, &self.user] {
            counters.put.sample(now_ms, period);
            counters.get.sample(now_ms, period);
        }
        let mut entries = 0;
        for shard in &self.shards {
            for topic in shard.read().values() {
                entries += topic.sample(now_ms, period);
            }
            if period == Period::Day {
                shard.write().retain(|_, topic| !topic.is_idle());
            }
        }
        self.room.0.store(entries, Ordering::Relaxed);
    }

    /// Returns the numbers for the runtime table.
    pub(crate) fn summary(&self) -> Summary {
        let now = self.totals(self.clock.now_ms());
        let history = self.history();
        let rates = |of: fn(&Totals) -> u64| [10, 60, 600].map(|seconds| history.rate(now, seconds, of));
        let days = |counter: &Counter, mornings: (u64, u64)| Days {
            yesterday_morning: mornings.0,
            today_morning: mornings.1,
            now: counter.nums(),
        };
        let latencies = self.latencies.last_minute();
        Summary {
            started_ms: self.started_ms,
            put_count: now.put,
            put_bytes: self.all.put.bytes(),
            put_failed: self.failed_puts.load(Ordering::Relaxed),
            put_tps: rates(|totals| totals.put),
            found_tps: rates(|totals| totals.found),
            missed_tps: rates(|totals| totals.missed),
            total_tps: rates(|totals| totals.found + totals.missed),
            transferred_tps: rates(|totals| totals.transferred),
            put_max_ms: self.latencies.max_ms(),
            read_max_ms: self.reads.max_ms.load(Ordering::Relaxed),
            put_distribution: latencies.distribution(),
            put_p99_ms: latencies.percentile(0.99),
            put_p999_ms: latencies.percentile(0.999),
            put_days: days(&self.user.put, history.put_mornings),
            got_days: days(&self.user.get, history.got_mornings),
        }
    }

    /// Returns a statistic by Java's name and key; `None` if nothing of it was ever counted.
    fn view(&self, name: &str, key: &str) -> Option<BrokerStatsData> {
        let now_ms = self.clock.now_ms();
        let topic = |topic: &str, view: &dyn Fn(&TopicEntry) -> Option<BrokerStatsData>| {
            let topic = Topic::new(topic);
            self.shard(&topic).get(&topic, view).flatten()
        };
        let group = |key: &str, view: &dyn Fn(&GroupEntry) -> BrokerStatsData| {
            let (topic_name, group) = key.split_once('@')?;
            topic(topic_name, &|entry| entry.groups.get(&Group::new(group), view))
        };
        let measure = if name.ends_with("_SIZE") { Measure::Bytes } else { Measure::Nums };
        let data = |counter: &Counter| counter.data(now_ms, measure);
        match name {
            "TOPIC_PUT_NUMS" | "TOPIC_PUT_SIZE" => topic(key, &|entry| Some(data(&entry.put))),
            "QUEUE_PUT_NUMS" | "QUEUE_PUT_SIZE" => {
                let (topic_name, queue_id) = key.rsplit_once('@')?;
                let queue_id = QueueId(queue_id.parse().ok()?);
                topic(topic_name, &|entry| entry.queues.get(&queue_id, data))
            }
            "GROUP_GET_NUMS" | "GROUP_GET_SIZE" => group(key, &|entry| data(&entry.get)),
            "SNDBCK_PUT_NUMS" => group(key, &|entry| data(&entry.sent_back)),
            "QUEUE_GET_NUMS" | "QUEUE_GET_SIZE" => {
                let (topic_name, rest) = key.split_once('@')?;
                let (queue_id, group) = rest.split_once('@')?;
                let queue_id = QueueId(queue_id.parse().ok()?);
                topic(topic_name, &|entry| {
                    entry
                        .groups
                        .get(&Group::new(group), |group| {
                            group.queues.get(&queue_id, |queue| data(&queue.get))
                        })
                        .flatten()
                })
            }
            _ if key != self.cluster => None,
            "BROKER_PUT_NUMS" => Some(data(&self.all.put)),
            "BROKER_GET_NUMS" => Some(data(&self.all.get)),
            "BROKER_PUT_NUMS_WITHOUT_SYSTEM_TOPIC" => Some(data(&self.user.put)),
            "BROKER_GET_NUMS_WITHOUT_SYSTEM_TOPIC" => Some(data(&self.user.get)),
            _ => None,
        }
    }

    fn topic(&self, topic: &Topic, count: impl FnOnce(&TopicEntry)) {
        let make = || TopicEntry {
            put: self.counter(),
            types: Default::default(),
            queues: Table::default(),
            groups: Table::default(),
        };
        self.shard(topic).with(topic, &self.room, make, count);
    }

    fn group(&self, topic: &Topic, group: &Group, count: impl FnOnce(&GroupEntry)) {
        let make = || GroupEntry { get: self.counter(), sent_back: self.counter(), queues: Table::default() };
        self.topic(topic, |entry| entry.groups.with(group, &self.room, make, count));
    }

    fn counter(&self) -> Counter {
        Counter::new(self.clock.now_ms())
    }

    fn totals(&self, now_ms: i64) -> Totals {
        Totals {
            at_ms: now_ms,
            put: self.all.put.nums(),
            found: self.reads.found.load(Ordering::Relaxed),
            missed: self.reads.missed.load(Ordering::Relaxed),
            transferred: self.all.get.nums(),
        }
    }

    /// Names that differ only in a number at their end are the usual case of many topics.
    fn shard(&self, topic: &Topic) -> &Table<Topic, TopicEntry> {
        let name = topic.as_str().as_bytes();
        let last = name.last().copied().unwrap_or_default();
        &self.shards[(name.len() + usize::from(last)) % SHARDS]
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TopicEntry {
    /// Takes a sample of all that belongs to the topic, forgets groups that were idle for a day, and returns how many
    /// entries there are.
    fn sample(&self, now_ms: i64, period: Period) -> usize {
        self.put.sample(now_ms, period);
        let queues = self.queues.read();
        queues.values().for_each(|queue| queue.sample(now_ms, period));
        let mut entries = 1 + queues.len();
        for group in self.groups.read().values() {
            group.get.sample(now_ms, period);
            group.sent_back.sample(now_ms, period);
            let queues = group.queues.read();
            queues.values().for_each(|queue| queue.get.sample(now_ms, period));
            entries += 1 + queues.len();
        }
        if period == Period::Day {
            self.groups.write().retain(|_, group| !group.get.is_idle() || !group.sent_back.is_idle());
        }
        entries
    }

    fn is_idle(&self) -> bool {
        self.put.is_idle() && self.groups.read().is_empty()
    }
}

impl History {
    /// Returns a rate over at least `seconds`, or over what there is.
    fn rate(&self, now: Totals, seconds: i64, of: fn(&Totals) -> u64) -> f64 {
        let old_enough = self.totals.iter().rev().find(|totals| now.at_ms - totals.at_ms >= seconds * 1000);
        let Some(from) = old_enough.or(self.totals.front()) else { return 0.0 };
        let ms = (now.at_ms - from.at_ms).max(1000);
        of(&now).saturating_sub(of(from)) as f64 * 1000.0 / ms as f64
    }
}

/// How many entries there are. Set anew with every sample, as entries go in groups.
#[derive(Debug, Default)]
struct Room(AtomicUsize);

impl Room {
    fn take(&self) -> bool {
        let free = self.0.load(Ordering::Relaxed) < ENTRIES_MAX;
        if free {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        free
    }
}

/// Entries by name; looking at one takes no exclusive lock.
#[derive(Debug)]
struct Table<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Hash + Eq + Clone, V> Table<K, V> {
    fn get<T>(&self, key: &K, look: impl FnOnce(&V) -> T) -> Option<T> {
        self.read().get(key).map(look)
    }

    /// Calls `count` with the entry of a name, made if there is room for it.
    fn with(&self, key: &K, room: &Room, make: impl FnOnce() -> V, count: impl FnOnce(&V)) {
        {
            let table = self.read();
            if let Some(entry) = table.get(key) {
                return count(entry);
            }
        }
        let mut table = self.write();
        if !table.contains_key(key) && !room.take() {
            return;
        }
        count(table.entry(key.clone()).or_insert_with(make));
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<K, V>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<K, V>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
