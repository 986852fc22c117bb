//! Ordered keys with offsets. Each sender has a queue of its own and sends one message after the other, each once and
//! to one replica: what is there twice was doubled by the servers. Readers read every queue from every replica, all the
//! time.

use std::time::Duration;

use super::Context;
use crate::client::{Caller, Pulled, Sent};
use crate::history::{Kind, Value, Workload};

pub(crate) const TOPIC: &str = "Log";
/// Senders, and queues.
pub(crate) const QUEUES: u32 = 8;
/// Bodies are of any length below this.
const FILLER: u64 = 900;
const PATIENCE: Duration = Duration::from_millis(2500);
/// Messages after which a sender goes on to another replica.
const AT_ONE: u64 = 50;
/// How long a part of everything may take.
const READ_ALL_PATIENCE: Duration = Duration::from_secs(5);
/// How often a reader looks for more.
const READ_PACE: Duration = Duration::from_millis(40);

/// The body of a message, so long that a part of it is not taken for the whole.
pub(crate) fn body(id: u64) -> String {
    let filler = usize::try_from(id * 1013 % FILLER).unwrap_or(0);
    format!("{id} {}", "x".repeat(filler))
}

/// Returns the id of a body that was sent.
pub(crate) fn id_of(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let id = text.split(' ').next()?.parse().ok()?;
    (body(id) == text).then_some(id)
}

/// Ids that no message can have: what was read was never sent so.
pub(crate) const DAMAGED: u64 = u64::MAX;

/// Sends to one queue; ids are its own.
pub(crate) async fn send(mut context: Context, queue: u32, pace: Duration) {
    let histories = context.histories.clone();
    let mut process = histories.process(Workload::Log);
    let caller = Caller::new();
    let nodes = context.servers.brokers.len();
    let mut at = queue as usize % nodes;
    for number in 0.. {
        if context.is_over() {
            return;
        }
        // No id is used twice in a run, whatever the queue.
        let id = number * u64::from(QUEUES) + u64::from(queue);
        let node = u32::try_from(at).ok();
        process.invoke("send", Value::Send { queue, id, offset: None }, node);
        let text = body(id);
        let address = &context.servers.brokers[at];
        let sent = caller.send(address, TOPIC, queue, text.as_bytes(), PATIENCE).await;
        let (kind, offset) = match sent {
            Sent::Acked { offset } => (Kind::Ok, Some(offset)),
            Sent::Refused => (Kind::Fail, None),
            Sent::Unknown => (Kind::Info, None),
        };
        process.end(kind, "send", Value::Send { queue, id, offset }, node);
        if kind != Kind::Ok || number % AT_ONE == AT_ONE - 1 {
            at = (at + 1) % nodes;
        }
        context.pause(if kind == Kind::Ok { pace } else { pace.max(Duration::from_millis(20)) }).await;
    }
}

/// Reads all queues from one replica, from the first message on.
pub(crate) async fn read(mut context: Context, at: usize) {
    let histories = context.histories.clone();
    let mut process = histories.process(Workload::Log);
    let caller = Caller::new();
    let node = u32::try_from(at).ok();
    let address = context.servers.brokers[at].clone();
    let mut next = vec![0u64; QUEUES as usize];
    while !context.is_over() {
        for queue in 0..QUEUES {
            let offset = next[queue as usize];
            match caller.pull(&address, TOPIC, queue, offset, PATIENCE).await {
                Pulled::Found(messages) => {
                    let messages: Vec<_> = messages
                        .into_iter()
                        .map(|(offset, body)| (offset, id_of(&body).unwrap_or(DAMAGED)))
                        .collect();
                    if let Some((last, _)) = messages.last() {
                        next[queue as usize] = last + 1;
                    }
                    process.invoke("poll", Value::None, node);
                    process.end(Kind::Ok, "poll", Value::Poll { queue, messages }, node);
                }
                // A reader that stands at the end of what was taken back would see it here; it goes on from below.
                Pulled::Moved(to) if to < offset => next[queue as usize] = to,
                Pulled::Moved(_) | Pulled::Nothing | Pulled::Failed => {}
            }
        }
        context.pause(READ_PACE).await;
    }
}

/// Finds the first message that a replica retains of a queue in which offsets below `end` were given out. A follower does
/// not say where it begins: whoever wants what it has deleted is sent to the leader.
async fn first_retained(
    caller: &Caller,
    address: &str,
    topic: &str,
    queue: u32,
    end: u64,
) -> Option<Vec<(u64, Vec<u8>)>> {
    let at = async |offset| match caller.pull(address, topic, queue, offset, READ_ALL_PATIENCE).await {
        Pulled::Found(messages) => Some(messages),
        _ => None,
    };
    let (mut deleted, mut found) = (0, end.checked_sub(1)?);
    let mut messages = at(found).await?;
    while deleted + 1 < found {
        let middle = deleted.midpoint(found);
        match at(middle).await {
            Some(more) => (found, messages) = (middle, more),
            None => deleted = middle,
        }
    }
    Some(messages)
}

/// Everything that a replica has in the queues of a topic: offset and body. `ends` says how many messages each queue
/// has had at least.
pub(crate) async fn read_all(
    address: &str,
    topic: &str,
    ends: &[u64],
    failures_max: u32,
) -> Result<Vec<Vec<(u64, Vec<u8>)>>, String> {
    let caller = Caller::new();
    let mut all = Vec::new();
    for queue in (0..).take(ends.len()) {
        let mut stored: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut failures = 0;
        loop {
            let offset = stored.last().map_or(0, |(offset, _)| offset + 1);
            match caller.pull(address, topic, queue, offset, READ_ALL_PATIENCE).await {
                Pulled::Found(messages) => stored.extend(messages),
                Pulled::Nothing | Pulled::Moved(_) if stored.is_empty() => {
                    let end = ends.get(queue as usize).copied().unwrap_or(0);
                    match first_retained(&caller, address, topic, queue, end).await {
                        Some(messages) => stored.extend(messages),
                        None => break,
                    }
                }
                Pulled::Nothing => break,
                Pulled::Moved(to) => {
                    return Err(format!(
                        "{address}: queue {queue} of {topic} ends at {offset}, goes on at {to}"
                    ));
                }
                Pulled::Failed => {
                    failures += 1;
                    if failures >= failures_max {
                        return Err(format!(
                            "{address}: queue {queue} of {topic} cannot be read at {offset}"
                        ));
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            }
        }
        all.push(stored);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_tells_its_id_and_a_part_of_it_does_not() {
        for id in [0, 7, 123_456] {
            assert_eq!(id_of(body(id).as_bytes()), Some(id));
        }
        assert_eq!(id_of(b"7 xx"), None);
        assert_eq!(id_of(b""), None);
    }
}
