//! Registers: keys with one value each, written and read by several clients through any server. Their histories must
//! be linearizable.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use quorate::remoting::{Command, RequestCode};

use super::Context;
use crate::client::{Answer, Caller, topic_request};
use crate::history::{Kind, Value, Workload};

/// Operations on a key; then the next one has its turn. The search for an order grows with them.
const KEY_OPS: u64 = 120;
/// Clients of a key.
pub(crate) const CLIENTS: u64 = 4;
/// Writes among its operations, in percent.
const WRITES: u8 = 40;
const PATIENCE: Duration = Duration::from_millis(2500);
const PACE: Duration = Duration::from_millis(60);

/// What the clients of a workload share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    ops: AtomicU64,
    next_value: AtomicI64,
}

/// Writes and reads.
pub(crate) async fn run(mut context: Context, workload: Workload, shared: Arc<Shared>, seed: u64) {
    let histories = context.histories.clone();
    let mut process = histories.process(workload);
    let mut random = fastrand::Rng::with_seed(seed);
    let caller = Caller::new();
    // kv config is each name server's own.
    let servers = match workload {
        Workload::Kv => vec![context.servers.namesrvs[0].clone()],
        _ => context.servers.brokers.clone(),
    };
    while !context.is_over() {
        let key = shared.ops.fetch_add(1, Ordering::Relaxed) / KEY_OPS;
        let at = random.usize(..servers.len());
        let node = u32::try_from(at).ok();
        if random.u8(..100) < WRITES {
            // No value is written twice, and an offset never goes back: those that would are refused.
            let value = shared.next_value.fetch_add(1, Ordering::Relaxed) + 1;
            let written = Value::Register { key, value: Some(value) };
            process.invoke("write", written.clone(), node);
            let request = write(workload, key, value);
            let kind = match caller.call(&servers[at], request, PATIENCE, &[]).await {
                Answer::Done(_) => Kind::Ok,
                Answer::Refused | Answer::NotSent => Kind::Fail,
                Answer::Unknown => Kind::Info,
            };
            process.end(kind, "write", written, node);
        } else {
            process.invoke("read", Value::Register { key, value: None }, node);
            let found = read(&caller, &servers[at], workload, key).await;
            match found {
                Some(value) => process.end(Kind::Ok, "read", Value::Register { key, value }, node),
                // A read changes nothing.
                None => process.end(Kind::Fail, "read", Value::Register { key, value: None }, node),
            }
        }
        context.pause(PACE.mul_f64(0.5 + random.f64())).await;
    }
}

fn write(workload: Workload, key: u64, value: i64) -> Command {
    match workload {
        Workload::Kv => Command::request(RequestCode::PutKvConfig)
            .with_field("namespace", "jepsen")
            .with_field("key", key.to_string())
            .with_field("value", value.to_string()),
        Workload::Topics => topic_request(&format!("Register{key}"), value, 1),
        _ => offset_request(RequestCode::UpdateConsumerOffset, key)
            .with_field("commitOffset", value.to_string()),
    }
}

/// Returns what is there; the outer `None` is no answer.
async fn read(caller: &Caller, address: &str, workload: Workload, key: u64) -> Option<Option<i64>> {
    let (request, missing) = match workload {
        // QUERY_NOT_FOUND.
        Workload::Kv => (
            Command::request(RequestCode::GetKvConfig)
                .with_field("namespace", "jepsen")
                .with_field("key", key.to_string()),
            22,
        ),
        // TOPIC_NOT_EXIST.
        Workload::Topics => {
            (Command::request(RequestCode::GetTopicConfig).with_field("topic", format!("Register{key}")), 17)
        }
        _ => (
            offset_request(RequestCode::QueryConsumerOffset, key).with_field("setZeroIfNotFound", "false"),
            22,
        ),
    };
    match caller.call(address, request, PATIENCE, &[missing]).await {
        Answer::Done(answer) => {
            let text = match workload {
                Workload::Kv => answer.ext_fields.get("value")?.to_owned(),
                Workload::Topics => {
                    let body: serde_json::Value = serde_json::from_slice(&answer.body.to_bytes()).ok()?;
                    body.get("readQueueNums")?.to_string()
                }
                _ => answer.ext_fields.get("offset")?.to_owned(),
            };
            Some(Some(text.parse().ok()?))
        }
        Answer::Refused => Some(None),
        Answer::NotSent | Answer::Unknown => None,
    }
}

fn offset_request(code: RequestCode, key: u64) -> Command {
    Command::request(code)
        .with_field("consumerGroup", format!("Registers{key}"))
        .with_field("topic", "Offsets")
        .with_field("queueId", "0")
}
