//! The mode without replicas under SYNC_FLUSH: a crash at every change of the disk.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::crashes::{LIMITS, Loss, NOW_MS, Said, at_every_change, folder};
use super::{Error, FlushMode, PendingAppend, QueueLimits, Replication};
use crate::env::{Change, Clock, Disk, Faults};
use crate::filter::Filter;
use crate::message::{Message, Record};
use crate::metadata::{Metadata, MetadataCommand};
use crate::model::{Perm, QueueId, QueueOffset, Topic, TopicConfig};
use crate::store::{Draft, IndexQuery, Listener, Opened, ReadStatus, Retention, Store, StoreConfig};

/// When all segments are old, whatever the machine's clock says.
const LATER_MS: i64 = 9_000_000_000_000;
/// The topic that is deleted in between, and the one that is not.
const QUEUES: [(&str, u32); 3] = [("T", 0), ("T", 1), ("D", 0)];

fn config(root: &Path) -> StoreConfig {
    StoreConfig {
        segment_bytes: 4096,
        queue_file_entries: 8,
        index_slots: 64,
        index_entries: 40,
        flush_interval_ms: 3_600_000,
        checkpoint_interval_ms: u64::MAX,
        retention: Retention { interval_ms: 3_600_000, ..Retention::default() },
        ..StoreConfig::new(root.to_owned())
    }
}

fn open(root: &Path, faults: &Arc<Faults>, clock: &Clock) -> Result<(Opened, Arc<Metadata>), String> {
    let disk = Disk::faulty(Arc::clone(faults));
    let opened = Store::open(config(root), disk.clone(), clock.clone(), Listener::new(|_| {}));
    let opened = opened.map_err(|error| error.to_string())?;
    let metadata = Metadata::open(&root.join("config"), disk).map_err(|error| error.to_string())?;
    Ok((opened, Arc::new(metadata)))
}

fn start(root: &Path, faults: &Arc<Faults>, clock: &Clock) -> Result<Replication, String> {
    let (opened, metadata) = open(root, faults, clock)?;
    let limits = QueueLimits { bytes_max: 1 << 20, wait_max: Duration::from_secs(1) };
    Replication::start_none(opened, metadata, FlushMode::Sync, limits).map_err(|error| error.to_string())
}

/// What was sent to a queue, and how much of it was acknowledged.
#[derive(Debug, Default, Clone)]
struct Sent {
    bodies: Vec<String>,
    acknowledged: usize,
}

/// What must be found after a crash.
#[derive(Debug, Default)]
struct Model {
    /// As [`QUEUES`].
    queues: [Sent; 3],
    /// What the deleted topic held, as long as its deletion is not acknowledged.
    deleted: Option<Sent>,
    /// Topics that are there, and one that may be.
    topics: BTreeSet<&'static str>,
    undecided: Option<&'static str>,
    /// Segments may be gone.
    expired: bool,
}

struct Run {
    replication: Replication,
    clock: Clock,
    model: Model,
}

impl Run {
    async fn change(&mut self, command: MetadataCommand) -> Result<(), Error> {
        self.replication.change(self.replication.permit()?, command)?.committed().await
    }

    async fn put_topic(&mut self, topic: &'static str) -> Result<(), Error> {
        self.model.undecided = Some(topic);
        self.change(MetadataCommand::PutTopic(TopicConfig::new(Topic::new(topic), 2, Perm::ALL))).await?;
        self.model.undecided = None;
        self.model.topics.insert(topic);
        Ok(())
    }

    async fn delete_topic(&mut self) -> Result<(), Error> {
        self.model.topics.remove("D");
        self.model.undecided = Some("D");
        self.model.deleted = Some(std::mem::take(&mut self.model.queues[2]));
        self.change(MetadataCommand::DeleteTopic(Topic::new("D"))).await?;
        (self.model.undecided, self.model.deleted) = (None, None);
        Ok(())
    }

    /// Hands one draft with a message for each body in.
    async fn append(&mut self, queue: usize, bodies: &[String]) -> Result<PendingAppend, Error> {
        let (topic, id) = QUEUES[queue];
        let properties: Vec<_> = bodies.iter().map(|body| format!("KEYS\u{1}{}\u{2}", key(body))).collect();
        let mut messages = bodies.iter().zip(&properties).map(|(body, p)| Message::plain(topic, id, body, p));
        let mut draft = Draft::new(&messages.next().unwrap()).unwrap();
        messages.for_each(|message| draft.push(&message).unwrap());
        self.model.queues[queue].bodies.extend_from_slice(bodies);
        self.replication.append(self.replication.permit()?, draft).await
    }

    async fn acknowledged(&mut self, queue: usize, pending: PendingAppend) -> Result<(), Error> {
        let appended = pending.committed().await?;
        let count = usize::try_from(appended.queue_offset.0).unwrap() + appended.starts.len();
        self.model.queues[queue].acknowledged = count;
        Ok(())
    }

    /// Sends messages of about `len` bytes, `together` of them at a time.
    async fn send(&mut self, queue: usize, count: usize, together: usize, len: usize) -> Result<(), Error> {
        for _ in 0..count / together {
            let mut pending = Vec::new();
            for _ in 0..together {
                let bodies = [self.body(queue, len)];
                pending.push(self.append(queue, &bodies).await?);
            }
            for pending in pending {
                self.acknowledged(queue, pending).await?;
            }
        }
        Ok(())
    }

    fn body(&self, queue: usize, len: usize) -> String {
        let generation = if self.model.topics.contains("D") { "" } else { "old" };
        format!("{queue}{generation}m{}-{}", self.model.queues[queue].bodies.len(), "x".repeat(len))
    }

    /// Up to an orderly stop.
    async fn first_session(&mut self) -> Result<(), Error> {
        self.put_topic("T").await?;
        self.send(0, 3, 1, 10).await?;
        self.send(2, 2, 2, 10).await?;
        self.put_topic("D").await?;
        self.send(1, 8, 4, 500).await?;
        self.replication.store().checkpoint_now()?;
        self.send(2, 2, 1, 15).await?;
        self.send(0, 6, 2, 700).await?;
        let bodies: Vec<_> = (0..3).map(|n| format!("batch{n}-{}", "y".repeat(90 + n))).collect();
        let pending = self.append(0, &bodies).await?;
        self.acknowledged(0, pending).await?;
        self.delete_topic().await?;
        self.put_topic("D").await?;
        self.send(2, 3, 1, 20).await?;
        self.send(1, 8, 4, 600).await?;
        self.replication.store().checkpoint_now()?;
        self.clock.set_ms(LATER_MS);
        self.model.expired = true;
        self.replication.store().delete_old_segments()?;
        self.send(0, 6, 3, 400).await?;
        self.replication.stop().await
    }

    async fn second_session(&mut self) -> Result<(), Error> {
        self.send(0, 3, 3, 500).await?;
        self.replication.store().checkpoint_now()?;
        self.send(1, 3, 1, 900).await?;
        self.replication.stop().await
    }
}

fn key(body: &str) -> &str {
    body.split('-').next().unwrap()
}

/// Returns what the queues hold: the first offset, and the bodies from there on.
fn content(store: &Store) -> Vec<(u64, Vec<String>)> {
    let queue_of = |(topic, id): (&str, u32)| {
        let (topic, id) = (Topic::new(topic), QueueId(id));
        let Some(queue) = store.queues().get(&topic, id) else { return (0, Vec::new()) };
        let min = queue.min_offset();
        let mut bodies = Vec::new();
        let mut next = min;
        while next < queue.max_offset() {
            let read = store.read(&topic, id, next, LIMITS, &Filter::All).unwrap();
            assert_eq!(read.status, ReadStatus::Found, "{topic}-{id} at {next}");
            for record in &read.records {
                let record = Record::decode(record).unwrap();
                record.check_body().unwrap();
                assert_eq!((record.topic, record.queue_offset), (topic.as_str(), next));
                bodies.push(String::from_utf8(record.body.to_vec()).unwrap());
                next = next.plus(1);
            }
        }
        (min.0, bodies)
    };
    QUEUES.map(queue_of).into()
}

fn check(store: &Store, metadata: &Metadata, model: &Model) {
    for ((found, sent), (topic, id)) in content(store).iter().zip(&model.queues).zip(QUEUES) {
        let (min, bodies) = (usize::try_from(found.0).unwrap(), &found.1);
        assert!(min == 0 || model.expired, "{topic}-{id} begins at {min}");
        let count = min + bodies.len();
        let is_old = topic == "D" && model.deleted.as_ref().is_some_and(|old| *bodies == old.bodies);
        if !is_old {
            let sure = sent.acknowledged;
            assert!((sure..=sent.bodies.len()).contains(&count), "{topic}-{id}: {count}, {sure} for sure");
            assert_eq!(bodies[..], sent.bodies[min..count], "{topic}-{id}");
        }
        for body in bodies {
            let topic = Topic::new(topic);
            let query = IndexQuery {
                topic: &topic,
                key: key(body),
                count_max: 32,
                begin_timestamp: 0,
                end_timestamp: i64::MAX,
            };
            let positions = store.index().query(&query).unwrap();
            let mut records = positions.iter().filter_map(|at| store.log().record(*at));
            assert!(
                records.any(|record| Record::decode(&record).unwrap().body == body.as_bytes()),
                "{}",
                key(body)
            );
        }
    }
    let mut topics: BTreeSet<_> =
        metadata.topics().all().iter().map(|topic| topic.topic_name.as_str().to_owned()).collect();
    if let Some(topic) = model.undecided {
        topics.remove(topic);
    }
    assert!(topics.iter().map(String::as_str).eq(model.topics.iter().copied()), "{topics:?}");
}

async fn crash_at(change: u64, loss: Loss) -> Vec<(Change, PathBuf)> {
    let folder = folder();
    let root = folder.path().join("store");
    let mut random = fastrand::Rng::with_seed(change);
    let clock = Clock::manual(NOW_MS);
    let mut faults = Arc::new(Faults::with_power());
    faults.record_changes();
    if change > 0 {
        faults.die_after(change);
    }
    let mut model = Model::default();
    let mut done = Ok(());
    for session in 0..2 {
        let replication = match start(&root, &faults, &clock) {
            Ok(replication) => replication,
            Err(error) => {
                done = Err(error);
                break;
            }
        };
        let mut run = Run { replication, clock: clock.clone(), model };
        let result = if session == 0 { run.first_session().await } else { run.second_session().await };
        model = run.model;
        if let Err(error) = result {
            faults.die();
            done = Err(error.to_string());
            break;
        }
    }
    let changes = faults.changes();
    let _said = Said::new(change, loss, &changes);
    if change == 0 {
        done.unwrap();
        return changes;
    }
    // The writer takes two drafts in one turn, or not: there may be fewer changes than were counted.
    faults.die();
    loss.of(&faults, &mut random);
    if loss == Loss::Some {
        faults = Arc::new(Faults::with_power());
        faults.die_after(random.u64(1..12));
        drop(open(&root, &faults, &clock));
        faults.die();
        loss.of(&faults, &mut random);
    }
    let mut found = Vec::new();
    for _ in 0..2 {
        // Dropped without being closed, as if the process had been killed.
        let (opened, metadata) = open(&root, &Arc::default(), &clock).unwrap();
        check(&opened.store, &metadata, &model);
        found.push(content(&opened.store));
    }
    assert_eq!(found[0], found[1], "a second recovery finds the same");
    let replication = start(&root, &Arc::default(), &clock).unwrap();
    let mut run = Run { replication, clock: clock.clone(), model };
    run.model.deleted = None;
    for ((min, bodies), sent) in found.pop().unwrap().into_iter().zip(&mut run.model.queues) {
        // What was not acknowledged may be gone.
        sent.bodies.truncate(usize::try_from(min).unwrap());
        sent.bodies.extend(bodies);
    }
    let next = run.model.queues[0].bodies.len() as u64;
    let pending = run.append(0, &["after-it".to_owned()]).await.unwrap();
    assert_eq!(pending.committed().await.unwrap().queue_offset, QueueOffset(next));
    run.model.queues.iter_mut().for_each(|sent| sent.acknowledged = sent.bodies.len());
    let Run { replication, model, .. } = run;
    drop(replication);
    let (opened, metadata) = open(&root, &Arc::default(), &clock).unwrap();
    check(&opened.store, &metadata, &model);
    changes
}

#[test]
fn a_broker_that_dies_in_any_change_of_its_disk_keeps_what_it_acknowledged() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let changes = runtime().block_on(crash_at(0, Loss::Nothing));
    at_every_change(&changes, |change, loss| {
        runtime().block_on(crash_at(change, loss));
    });
}
