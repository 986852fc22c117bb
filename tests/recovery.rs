//! `kill -9` at any moment: what was acknowledged is where it was acknowledged, and the broker goes on from there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quorate::env::Disk;
use quorate::remoting::{CallError, Command, RequestCode};
use tokio::task::JoinHandle;

use crate::harness::{Outgoing, Peer, Processes, wait};

/// Segments of 64 KiB, so that kills hit their borders all the time.
const SMALL: [&str; 5] = [
    "mappedFileSizeCommitLog=65536",
    "mappedFileSizeConsumeQueue=2000",
    "maxHashSlotNum=500",
    "maxIndexNum=2000",
    "maxMessageSize=16384",
];
const QUEUES: i32 = 4;
/// What a load has sent before it is killed, at most.
const LOAD: usize = 200;

/// What was acknowledged: body and offset message id by queue and offset.
#[derive(Debug, Clone, Default)]
struct Acknowledged(Arc<Mutex<ByOffset>>);

/// Key and text by queue and queue offset.
type ByOffset = BTreeMap<(i32, i64), (String, String)>;

impl Acknowledged {
    fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// Sends to all queues until the broker is gone.
    fn load(&self, peer: &Peer, topic: &'static str, round: usize) -> Vec<JoinHandle<()>> {
        (0..QUEUES)
            .map(|queue_id| {
                let (peer, acknowledged) = (peer.clone(), self.clone());
                tokio::spawn(async move {
                    for number in 0.. {
                        let key = format!("{topic}-{round}-{queue_id}-{number}");
                        let body = format!("{key} {}", "x".repeat(number * 37 % 900));
                        let properties = [("KEYS", key.as_str())];
                        let message = Outgoing {
                            topic,
                            queue_id,
                            body: body.as_bytes(),
                            properties: &properties,
                            ..Outgoing::default()
                        };
                        let answer = match peer.try_call(message.v2()).await {
                            Ok(answer) => answer,
                            Err(CallError::Closed { .. } | CallError::Connect { .. }) => return,
                            Err(error) => panic!("{error}"),
                        };
                        assert_eq!(answer.code, 0, "{:?}", answer.remark);
                        let field = |name| answer.ext_fields.get(name).unwrap().to_owned();
                        let place = (queue_id, field("queueOffset").parse().unwrap());
                        let before = acknowledged.0.lock().unwrap().insert(place, (body, field("msgId")));
                        assert_eq!(before, None, "the place {place:?} was acknowledged twice");
                    }
                })
            })
            .collect()
    }

    /// Finds every message by its offset, and some by position and by key.
    async fn verify(&self, peer: &Peer, topic: &str) {
        let acknowledged = self.0.lock().unwrap().clone();
        let mut queues = Vec::new();
        for queue_id in 0..QUEUES {
            queues.push(peer.queue(topic, queue_id).await);
        }
        for (number, ((queue_id, offset), (body, id))) in acknowledged.iter().enumerate() {
            let queue = &queues[usize::try_from(*queue_id).unwrap()];
            let stored = usize::try_from(*offset).ok().and_then(|at| queue.get(at));
            let stored = stored.unwrap_or_else(|| panic!("lost: {body:.40} at {offset} of {queue_id}"));
            assert_eq!(stored.text(), *body, "{offset} of {queue_id}");
            assert_eq!(format!("{:016X}", stored.position), id[id.len() - 16..], "{offset} of {queue_id}");
            if number % 37 == 0 || number + 10 > acknowledged.len() {
                assert_eq!(peer.by_id(id).await, *stored);
                let key = body.split(' ').next().unwrap();
                let found = peer.by_key(topic, key, false).await;
                assert_eq!(
                    found,
                    std::slice::from_ref(stored),
                    "{key}, number {number} of {}",
                    acknowledged.len()
                );
            }
        }
    }
}

/// Lets a load send some messages, and kills the broker at a random moment.
async fn kill_under_load(
    broker: &mut Processes,
    acknowledged: &Acknowledged,
    topic: &'static str,
    round: usize,
) {
    let senders = acknowledged.load(&broker.peer(), topic, round);
    let before = acknowledged.len();
    let enough = before + fastrand::usize(LOAD / 4..LOAD);
    wait("acknowledgements", async || (acknowledged.len() >= enough).then_some(())).await;
    broker.broker.kill();
    for sender in senders {
        sender.await.unwrap();
    }
}

async fn survive_kills(flush: &str) {
    let mut settings = SMALL.to_vec();
    settings.push(flush);
    let mut broker = Processes::start(&settings);
    let acknowledged = Acknowledged::default();
    for round in 0..12 {
        kill_under_load(&mut broker, &acknowledged, "T", round).await;
        broker.start_broker();
        acknowledged.verify(&broker.peer(), "T").await;
    }
    let segments = Disk::real().list(&broker.store().join("commitlog")).unwrap().len();
    assert!(segments > 5, "{segments} segments");
    broker.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_messages_survive_kills_at_segment_borders_under_sync_flush() {
    survive_kills("flushDiskType=SYNC_FLUSH").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_messages_survive_kills_at_segment_borders_under_async_flush() {
    survive_kills("flushDiskType=ASYNC_FLUSH").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_during_recovery_does_no_harm() {
    let mut broker = Processes::start(&SMALL);
    let acknowledged = Acknowledged::default();
    for round in 0..3 {
        kill_under_load(&mut broker, &acknowledged, "T", round).await;
        for _ in 0..8 {
            broker.start_and_kill_broker(Duration::from_millis(fastrand::u64(0..60)));
        }
        broker.start_broker();
        acknowledged.verify(&broker.peer(), "T").await;
    }
    broker.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_come_and_go_between_kills_leave_the_others_alone() {
    let mut broker = Processes::start(&SMALL);
    let kept = Acknowledged::default();
    for round in 0..10 {
        // A topic of the same name, with messages of its own each time; some of them lie before a checkpoint.
        for queue_id in 0..QUEUES {
            broker.peer().send(&Outgoing { topic: "Passing", queue_id, ..Outgoing::default() }).await;
        }
        assert!(broker.broker.terminate().success());
        broker.start_broker();
        let peer = broker.peer();
        let passing = Acknowledged::default();
        let senders = passing.load(&peer, "Passing", round);
        let others = kept.load(&peer, "T", round);
        let enough = kept.len() + 40;
        wait("a load on both topics", async || (passing.len() > 40 && kept.len() > enough).then_some(()))
            .await;
        if round % 2 == 0 {
            let deletion = tokio::spawn(async move { peer.try_call(delete("Passing")).await });
            if round % 4 == 0 {
                // As soon as its queues are gone.
                let queues = broker.store().join("consumequeue/Passing");
                while Disk::real().exists(&queues).unwrap() {
                    tokio::task::yield_now().await;
                }
            } else {
                // The moment of a kill, not a wait for a condition.
                tokio::time::sleep(Duration::from_millis(fastrand::u64(0..30))).await;
            }
            broker.broker.kill();
            let _ = deletion.await.unwrap();
        } else {
            broker.broker.kill();
        }
        for sender in senders {
            // Its messages may have been refused for a moment.
            let _ = sender.await;
        }
        for sender in others {
            sender.await.unwrap();
        }
        broker.start_broker();
        kept.verify(&broker.peer(), "T").await;
        if round % 2 == 1 {
            passing.verify(&broker.peer(), "Passing").await;
        }
        broker.peer().ok(delete("Passing")).await;
        assert_eq!(broker.peer().max_offset("Passing", 0).await, 0);
    }
    broker.stop();
}

fn delete(topic: &str) -> Command {
    Command::request(RequestCode::DeleteTopicInBroker).with_field("topic", topic)
}

#[tokio::test]
async fn a_deleted_topic_stays_deleted_after_a_kill_and_starts_at_zero() {
    let mut broker = Processes::start(&SMALL);
    for round in 0..3 {
        let peer = broker.peer();
        peer.send_texts("Gone", &["0", "1", "2"]).await;
        peer.send_texts("T", &["kept"]).await;
        peer.ok(delete("Gone")).await;
        if round == 1 {
            // The new one is written already when the broker dies.
            peer.send_texts("Gone", &["new"]).await;
        }
        broker.broker.kill();
        broker.start_broker();
        let peer = broker.peer();
        let expected = i64::from(round == 1);
        assert_eq!(peer.max_offset("Gone", 0).await, expected, "round {round}");
        assert_eq!(peer.max_offset("T", 0).await, i64::from(round) + 1);
        peer.call(delete("Gone")).await;
    }
    broker.stop();
}

#[tokio::test]
async fn saved_consumer_offsets_survive_a_kill() {
    let mut settings = SMALL.to_vec();
    settings.push("flushConsumerOffsetInterval=100");
    let mut broker = Processes::start(&settings);
    broker.peer().send_texts("T", &["0", "1", "2"]).await;
    for offset in 1..=3 {
        assert_eq!(broker.peer().commit("G", "T", 0, offset).await.code, 0);
        let file = broker.store().join("config/consumerOffset.json");
        let expected = format!("0:{offset}");
        wait("the offset is saved", async || {
            let text = Disk::real().read(&file).unwrap_or_default();
            String::from_utf8(text).unwrap().contains(&expected).then_some(())
        })
        .await;
        broker.broker.kill();
        broker.start_broker();
        assert_eq!(broker.peer().committed("G", "T", 0).await, Ok(offset));
    }
    broker.stop();
}

#[tokio::test]
async fn delayed_messages_survive_a_kill() {
    let mut broker = Processes::start(&["messageDelayLevel=1s 2s"]);
    let properties = [("DELAY", "2"), ("UNIQ_KEY", "late")];
    broker.peer().ok(Outgoing { properties: &properties, ..Outgoing::default() }.v2()).await;
    broker.broker.kill();
    broker.start_broker();
    let peer = broker.peer();
    let queue = wait("the delayed message", async || {
        let queue = peer.queue("T", 0).await;
        (!queue.is_empty()).then_some(queue)
    })
    .await;
    assert_eq!(queue[0].property("UNIQ_KEY"), Some("late"));
    assert_eq!(queue.len(), 1);
    broker.stop();
}
