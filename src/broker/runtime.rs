//! The broker's state in numbers: GET_BROKER_RUNTIME_INFO (28).
//!
//! Source of the keys: RocketMQ `AdminBrokerProcessor.prepareRuntimeInfo`, `StoreStatsService`, `DefaultMessageStore`,
//! `ScheduleMessageService.buildRunningStats`. Tools read them by name and fail on one that is missing.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::context::{Context, blocking};
use super::delay;
use super::reply::{Reply, later};
use super::response::Error;
use super::stats::{Days, Stats, Summary};
use crate::env::DiskUsage;
use crate::model::PhysicalOffset;
use crate::remoting::body::KvTable;
use crate::remoting::{Command, ResponseCode};

/// Java's name of the version whose protocol is spoken; tools compare it.
const VERSION: &str = "V5_5_0";

/// GET_BROKER_RUNTIME_INFO.
pub(crate) fn info(context: &Arc<Context>, stats: &Arc<Stats>) -> Reply {
    let (context, stats) = (Arc::clone(context), Arc::clone(stats));
    later(blocking(move || Ok(Command::response(ResponseCode::Success).with_json(&table(&context, &stats)?))))
}

/// Collects all keys. Blocks on the disk.
fn table(context: &Context, stats: &Stats) -> Result<KvTable, Error> {
    let mut table = Table::default();
    put_traffic(&mut table, &stats.summary(), context.clock.now_ms());
    put_store(&mut table, context)?;
    put_delay(&mut table, context);
    put_queues(&mut table, context);
    let active = context.replication.role().borrow().is_leader();
    table.put("brokerActive", active);
    table.put("brokerVersionDesc", VERSION);
    table.put("startAcceptSendRequestTimeStamp", context.config().start_accept_send_request_time_stamp);
    Ok(KvTable { table: table.0 })
}

#[derive(Debug, Default)]
struct Table(BTreeMap<String, String>);

impl Table {
    fn put(&mut self, key: impl Into<String>, value: impl ToString) {
        self.0.insert(key.into(), value.to_string());
    }

    /// Rates over 10, 60 and 600 s, separated by blanks.
    fn put_rates(&mut self, key: &str, rates: [f64; 3]) {
        self.put(key, rates.map(|rate| format!("{rate:?}")).join(" "));
    }

    fn put_days(&mut self, prefix: &str, days: Days) {
        self.put(format!("{prefix}TotalYesterdayMorning"), days.yesterday_morning);
        self.put(format!("{prefix}TotalTodayMorning"), days.today_morning);
        self.put(format!("{prefix}TotalTodayNow"), days.now);
    }
}

fn put_traffic(table: &mut Table, summary: &Summary, now_ms: i64) {
    table.put("bootTimestamp", summary.started_ms);
    table.put("runtime", run_time(now_ms - summary.started_ms));
    // Java never says 0, as tools divide by it.
    let put_count = summary.put_count.max(1);
    table.put("putMessageTimesTotal", put_count);
    table.put("putMessageFailedTimes", summary.put_failed);
    table.put("putMessageSizeTotal", summary.put_bytes);
    table.put("putMessageAverageSize", format!("{:?}", summary.put_bytes as f64 / put_count as f64));
    table.put("putMessageEntireTimeMax", summary.put_max_ms);
    table.put("putMessageDistributeTime", &summary.put_distribution);
    table.put("putLatency99", format!("{:.2}", summary.put_p99_ms as f64));
    table.put("putLatency999", format!("{:.2}", summary.put_p999_ms as f64));
    table.put("getMessageEntireTimeMax", summary.read_max_ms);
    table.put_rates("putTps", summary.put_tps);
    table.put_rates("getFoundTps", summary.found_tps);
    table.put_rates("getMissTps", summary.missed_tps);
    table.put_rates("getTotalTps", summary.total_tps);
    table.put_rates("getTransferredTps", summary.transferred_tps);
    table.put_days("msgPut", summary.put_days);
    table.put_days("msgGet", summary.got_days);
}

fn put_store(table: &mut Table, context: &Context) -> Result<(), Error> {
    let store = context.store();
    let (log, config) = (store.log(), store.config());
    let behind = |from: PhysicalOffset, to: PhysicalOffset| to.0.saturating_sub(from.0);
    let log_ratio = format!("{:?}", store.used_ratio()?);
    table.put(format!("commitLogDiskRatio_{}", config.commit_log.display()), &log_ratio);
    table.put("commitLogDiskRatio", log_ratio);
    let usage = |path: &Path| {
        context.disk.usage(path).map_err(|error| Error::System(format!("{}: {error}", path.display())))
    };
    let root = usage(&config.root)?;
    table.put("consumeQueueDiskRatio", format!("{:?}", root.ratio()));
    table.put("commitLogDirCapacity", capacity(root));
    table.put("commitLogMinOffset", log.min());
    table.put("commitLogMaxOffset", log.committed());
    table.put("dispatchBehindBytes", behind(store.dispatched(), log.committed()));
    table.put("remainHowManyDataToFlush", readable(behind(log.flushed(), log.written())));
    table.put("earliestMessageTimeStamp", store.store_timestamp(log.min()).unwrap_or(-1));
    // Buffers that Java may have between the log and its dispatcher, and between messages and the log: there are none.
    // The second number is what Java says without its pool.
    table.put("dispatchMaxBuffer", 0);
    table.put("remainTransientStoreBufferNumbs", i32::MAX);
    // How long the current append has held the lock of Java's log; one thread appends here, without a lock.
    table.put("pageCacheLockTimeMills", 0);
    Ok(())
}

fn put_delay(table: &mut Table, context: &Context) {
    let levels = context.config().delay_levels_ms().len();
    for level in 1..=u32::try_from(levels).unwrap_or(u32::MAX) {
        let (delivered, end) = delay::progress(context, level);
        table.put(format!("scheduleMessageOffset_{level}"), format!("{delivered},{end}"));
    }
    // Messages for any time are not built yet: nothing waits.
    for key in ["timerReadBehind", "timerOffsetBehind", "timerCongestNum"] {
        table.put(key, 0);
    }
    for key in ["timerEnqueueTps", "timerDequeueTps"] {
        table.put(key, "0.0");
    }
}

/// Java queues requests in front of a pool of threads for each kind. Here every connection's own task carries its
/// requests out, so none waits; what bounds them is the number of one connection's requests that are not answered yet.
fn put_queues(table: &mut Table, context: &Context) {
    let capacity = context.config().requests_in_flight_max;
    for kind in ["send", "pull", "litePull", "query", "ack"] {
        table.put(format!("{kind}ThreadPoolQueueSize"), 0);
        table.put(format!("{kind}ThreadPoolQueueCapacity"), capacity);
        table.put(format!("{kind}ThreadPoolQueueHeadWaitTimeMills"), 0);
    }
    table.put("EndTransactionQueueSize", 0);
    table.put("EndTransactionThreadPoolQueueCapacity", capacity);
}

fn run_time(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    format!("[ {days} days, {} hours, {} minutes, {} seconds ]", hours % 24, minutes % 60, seconds % 60)
}

/// Tools read the numbers between the words.
fn capacity(usage: DiskUsage) -> String {
    format!("Total : {}, Free : {}.", readable(usage.total_bytes), readable(usage.free_bytes))
}

/// As Java's `MixAll.humanReadableByteCount`.
fn readable(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = bytes.ilog2() / 10;
    let unit = UNITS[power as usize - 1];
    format!("{:.1} {unit}", bytes as f64 / (1u64 << (10 * power)) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_that_tools_read() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (270_582_939_648, "252.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(readable(bytes), text);
        }
        assert_eq!(run_time(93_784_999), "[ 1 days, 2 hours, 3 minutes, 4 seconds ]");
    }

    #[test]
    fn rates_and_days_have_the_names_and_forms_of_java() {
        let mut table = Table::default();
        table.put_rates("putTps", [0.0, 1.5, 1e-7]);
        table.put_days("msgPut", Days { yesterday_morning: 1, today_morning: 2, now: 3 });
        let pairs: Vec<_> = table.0.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("msgPutTotalTodayMorning", "2"),
                ("msgPutTotalTodayNow", "3"),
                ("msgPutTotalYesterdayMorning", "1"),
                ("putTps", "0.0 1.5 1e-7"),
            ]
        );
    }
}
