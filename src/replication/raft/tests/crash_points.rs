//! A crash at every change of the disk: one replica's log, tables and small files, driven by a script as openraft would.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{LogIdOptionExt, RaftLogReader};

use super::super::codec::{StateImage, term_of};
use super::super::files::{Files, decode_snapshot};
use super::super::group::{Opened, open};
use super::super::log::Log;
use super::super::machine::{Machine, Shared};
use super::super::proposal::Batch;
use super::super::types::{Entry, LogId, Member, Membership, Payload, Proposal, Vote, log_id};
use super::cluster::draft;
use crate::env::{Change, Clock, Disk, Faults};
use crate::filter::Filter;
use crate::message::{Record, records};
use crate::metadata::{Metadata, MetadataCommand, decode_commands};
use crate::model::{Group, LogIndex, Perm, PhysicalOffset, QueueId, QueueOffset, Topic, TopicConfig};
use crate::replication::crashes::{LIMITS, Loss, NOW_MS, Said, at_every_change, folder};
use crate::store::{Check, EntryLog, Listener, OpenedEntries, ReadStatus, Store, StoreConfig, decode_entry};

const SEGMENT: u64 = 4096;

/// An entry as it is proposed.
#[derive(Debug, Clone, PartialEq)]
struct Planned {
    term: u64,
    content: Content,
}

#[derive(Debug, Clone, PartialEq)]
enum Content {
    Blank,
    Members,
    /// Topic, queue, body.
    Messages(Vec<(&'static str, u32, String)>),
    Change(MetadataCommand),
}

impl Planned {
    fn entry(&self, index: u64) -> Entry {
        let mut batch = Batch::default();
        let payload = match &self.content {
            Content::Blank => Payload::Blank,
            Content::Members => {
                let member = Member { raft_address: "host:1".into(), identity: 7 };
                let nodes = BTreeMap::from([(0, member)]);
                Payload::Membership(Membership::new(vec![BTreeSet::from([0])], nodes).unwrap())
            }
            Content::Messages(messages) => {
                batch.drafts =
                    messages.iter().map(|(topic, queue, body)| draft(topic, *queue, body)).collect();
                Payload::Proposal(Proposal::new(batch))
            }
            Content::Change(command) => {
                if let MetadataCommand::DeleteTopic(topic) = command {
                    batch.forgotten.push(topic.clone());
                }
                batch.commands.push(command.clone());
                Payload::Proposal(Proposal::new(batch))
            }
        };
        Entry { log_id: log_id(self.term, index), payload }
    }

    fn messages(&self) -> &[(&'static str, u32, String)] {
        match &self.content {
            Content::Messages(messages) => messages,
            _ => &[],
        }
    }

    fn command(&self) -> Option<&MetadataCommand> {
        match &self.content {
            Content::Change(command) => Some(command),
            _ => None,
        }
    }
}

fn blank(term: u64) -> Planned {
    Planned { term, content: Content::Blank }
}

fn members(term: u64) -> Planned {
    Planned { term, content: Content::Members }
}

fn change(term: u64, command: MetadataCommand) -> Planned {
    Planned { term, content: Content::Change(command) }
}

fn put_topic(term: u64, topic: &str) -> Planned {
    change(term, MetadataCommand::PutTopic(TopicConfig::new(Topic::new(topic), 2, Perm::ALL)))
}

fn offset(term: u64, offset: u64) -> Planned {
    let (group, topic) = (Group::new("G"), Topic::new("T"));
    let offset = QueueOffset(offset);
    change(term, MetadataCommand::CommitOffset { group, topic, queue_id: QueueId(0), offset })
}

/// One message of about `len` bytes that no other one has.
fn message(term: u64, topic: &'static str, name: &str, len: usize) -> Planned {
    let queue = u32::from(len % 2 == 1);
    let content = Content::Messages(vec![(topic, queue, format!("{name}-{}", "x".repeat(len)))]);
    Planned { term, content }
}

/// Entries of the group that all replicas have in the end. What of it the script appends itself, and what follows the
/// snapshot that it installs.
fn history() -> (Vec<Planned>, usize) {
    let mut history = vec![blank(1), members(1), put_topic(1, "T"), put_topic(1, "D")];
    let two = vec![("T", 0, "two-a".to_owned()), ("D", 1, "two-b".to_owned())];
    history.push(Planned { term: 1, content: Content::Messages(two) });
    history.extend((0..3).map(|n| message(1, "T", &format!("a{n}"), 10 + n)));
    history.push(message(1, "D", "d", 5));
    history.push(offset(1, 2));
    // Of term 2 from here on: the script first has others in their place.
    history.push(blank(2));
    let topic = |n| if n == 2 { "D" } else { "T" };
    history.extend((0..8).map(|n| message(2, topic(n), &format!("b{n}"), 600 + n)));
    history.push(change(2, MetadataCommand::DeleteTopic(Topic::new("D"))));
    history.push(put_topic(2, "D"));
    history.push(message(2, "D", "again", 6));
    history.extend((0..6).map(|n| message(3, "T", &format!("c{n}"), 500 + n)));
    let own = history.len();
    history.extend((0..12).map(|n| message(4, "T", &format!("e{n}"), 700 + n)));
    history.push(put_topic(4, "N"));
    history.push(message(4, "N", "new", 6));
    (history, own)
}

/// What a leader hands out.
struct Leader {
    snapshot: StateImage,
    /// The entries behind it.
    behind: Vec<(LogId, bytes::Bytes)>,
}

/// One replica, without openraft and without the threads of the store. Dropped, it is as if it had been killed.
struct Replica {
    log: Log,
    machine: Machine,
    shared: Arc<Shared>,
    metadata: Arc<Metadata>,
    files: Arc<Files>,
    entries: Arc<EntryLog>,
    store: Arc<Store>,
}

impl Replica {
    fn open(root: &Path, faults: &Arc<Faults>) -> io::Result<Self> {
        let disk = Disk::faulty(Arc::clone(faults));
        let clock = Clock::manual(NOW_MS);
        let config = StoreConfig {
            segment_bytes: SEGMENT,
            queue_file_entries: 8,
            index_slots: 64,
            index_entries: 40,
            checkpoint_interval_ms: u64::MAX,
            ..StoreConfig::new(root.to_owned())
        };
        let metadata = Metadata::open(&root.join("config"), disk.clone()).map_err(io::Error::other)?;
        let metadata = Arc::new(metadata);
        let listener = Listener::new(|_| {});
        let opened = open(config, listener, &metadata, "g", 0, true, disk, clock.clone())?;
        let Opened { opened, files, image, floor, .. } = opened;
        let OpenedEntries { store, log, committer, damaged_below } = opened;
        assert_eq!(damaged_below.max(files.barrier()?), None, "nothing that was acknowledged is missing");
        let (files, entries) = (Arc::new(files), Arc::new(log));
        let shared = Shared::new(
            Arc::clone(&store),
            Arc::clone(&entries),
            Arc::clone(&metadata),
            Arc::clone(&files),
            clock,
            image.as_ref(),
        )?;
        let shared = Arc::new(shared);
        let log = Log::new(
            Arc::clone(&entries),
            Arc::clone(&store),
            Arc::clone(&files),
            Arc::clone(&shared.waiting),
            floor.as_ref().and_then(StateImage::last_log_id),
        )?;
        let machine = Machine::new(Arc::clone(&shared), committer, log.clone());
        Ok(Self { log, machine, shared, metadata, files, entries, store })
    }

    async fn append(&mut self, entries: Vec<Entry>) -> io::Result<()> {
        self.log.blocking_append(entries).await.map_err(io::Error::other)
    }

    /// Applies what is not yet applied, up to `last`.
    async fn apply(&mut self, last: u64) -> io::Result<()> {
        let next = self.machine.applied_state().await?.0.next_index();
        let entries = self.log.try_get_log_entries(next..=last).await?;
        self.machine.apply(stream::iter(entries.into_iter().map(|entry| Ok((entry, None))))).await
    }

    /// As openraft does: remembered, then applied.
    async fn commit(&mut self, id: LogId) -> io::Result<()> {
        self.log.save_committed(Some(id)).await?;
        self.apply(id.index()).await
    }

    async fn last(&mut self) -> Option<LogId> {
        self.log.get_log_state().await.unwrap().last_log_id
    }

    /// Returns the entries with their numbers; positions must leave no room but at the end of a segment.
    fn content(&self) -> Vec<(u64, Planned)> {
        let stored = self.entries.entries(LogIndex(0), LogIndex(u64::MAX), usize::MAX, Check::Whole).unwrap();
        let mut end = None;
        let planned = |entry: &crate::store::StoredEntry| {
            let head = decode_entry(&entry.bytes, entry.position).unwrap();
            let at = entry.position;
            assert!(
                end.is_none_or(|end| at == end || (at > end && at.0.is_multiple_of(SEGMENT))),
                "{at} {end:?}"
            );
            end = Some(at.plus(entry.bytes.len() as u64));
            let messages = bodies(&entry.bytes[head.record_len..]);
            let content = match (head.kind, decode_commands(head.command)) {
                (crate::store::EntryKind::Blank, _) => Content::Blank,
                (crate::store::EntryKind::Membership, _) => Content::Members,
                (_, Ok(commands)) if !commands.is_empty() => Content::Change(commands[0].clone()),
                _ => Content::Messages(messages),
            };
            (entry.index.0, Planned { term: entry.term.0, content })
        };
        stored.iter().map(planned).collect()
    }
}

fn bodies(mut bytes: &[u8]) -> Vec<(&'static str, u32, String)> {
    let mut bodies = Vec::new();
    for record in records(bytes) {
        let record = record.unwrap();
        record.check_body().unwrap();
        bytes = &bytes[record.total_size..];
        bodies.push((known(record.topic), record.queue_id, text(record.body)));
    }
    bodies
}

fn known(topic: &str) -> &'static str {
    ["T", "D", "N"].into_iter().find(|known| *known == topic).unwrap()
}

fn text(body: &[u8]) -> String {
    String::from_utf8(body.to_vec()).unwrap()
}

/// What must be found after a crash.
#[derive(Debug, Default, Clone)]
struct Model {
    /// The longest log that may be there, from index 0 on.
    chain: Vec<Planned>,
    /// So much of it is there for sure.
    sure: usize,
    /// The vote that is there for sure, and the one that may be.
    votes: [Option<Vote>; 2],
    /// Entries that were told to be committed.
    committed: usize,
    /// The log may begin in this segment at the latest.
    purged_below: u64,
    /// What must be there if the snapshot, whose position this is, was installed.
    installed: Option<(u64, Box<Model>)>,
}

/// A replica and what is known of it.
struct Run {
    replica: Replica,
    model: Model,
}

impl Run {
    async fn append(&mut self, planned: &[Planned]) -> io::Result<()> {
        let first = self.model.chain.len();
        self.model.chain.extend_from_slice(planned);
        let entries = (first as u64..).zip(planned).map(|(index, planned)| planned.entry(index)).collect();
        self.replica.append(entries).await?;
        self.model.sure = self.model.chain.len();
        Ok(())
    }

    /// Takes everything behind the first `count` entries back.
    async fn take_back(&mut self, count: usize) -> io::Result<()> {
        self.model.sure = count;
        self.replica.log.truncate_after(Some(self.id(count))).await?;
        self.model.chain.truncate(count);
        Ok(())
    }

    async fn vote(&mut self, vote: Vote) -> io::Result<()> {
        self.model.votes[1] = Some(vote);
        self.replica.log.save_vote(&vote).await?;
        self.model.votes[0] = Some(vote);
        Ok(())
    }

    /// Commits the first `count` entries.
    async fn commit(&mut self, count: usize) -> io::Result<()> {
        self.model.committed = count;
        self.replica.commit(self.id(count)).await
    }

    /// Deletes the segments below `base`.
    async fn purge(&mut self, base: u64) -> io::Result<()> {
        self.model.purged_below = base;
        let last = self.replica.entries.index_at(PhysicalOffset(base - 1)).unwrap().unwrap();
        let id = self.id(usize::try_from(last.0).unwrap() + 1);
        self.replica.log.purge(id).await
    }

    async fn install(&mut self, image: &StateImage, history: &[Planned]) -> io::Result<()> {
        let covered = usize::try_from(image.last_log_id().next_index()).unwrap();
        let model = Model {
            chain: history[..covered].to_vec(),
            sure: covered,
            committed: covered,
            purged_below: image.position,
            ..self.model.clone()
        };
        self.model.installed = Some((image.position, Box::new(model.clone())));
        let bytes = super::super::codec::to_file(b"QUORIMG2", image);
        self.replica.machine.install_snapshot(&image.meta()?, bytes.into()).await?;
        self.model = model;
        Ok(())
    }

    /// Returns the id of the last of the first `count` entries.
    fn id(&self, count: usize) -> LogId {
        log_id(self.model.chain[count - 1].term, count as u64 - 1)
    }

    async fn script(&mut self, leader: &Leader) -> io::Result<()> {
        let (history, own) = history();
        self.vote(Vote::new(1, 0)).await?;
        self.vote(Vote::new_committed(1, 0)).await?;
        self.append(&history[..4]).await?;
        self.commit(4).await?;
        // Several in one write and one sync.
        self.append(&history[4..8]).await?;
        self.commit(6).await?;
        self.replica.shared.save_image()?;
        self.append(&history[8..10]).await?;
        self.commit(10).await?;
        self.replica.store.checkpoint_now().map_err(io::Error::other)?;
        // A leader of term 1 that is replaced: its entries are taken back, others come in their place.
        self.append(&[message(1, "T", "lost", 20), message(1, "N", "lost too", 30)]).await?;
        self.vote(Vote::new(2, 0)).await?;
        self.take_back(10).await?;
        self.append(&history[10..14]).await?;
        self.commit(12).await?;
        // Across the border of a segment.
        let lost: Vec<_> = (0..8).map(|n| message(2, "T", &format!("long lost {n}"), 590)).collect();
        self.append(&lost).await?;
        self.take_back(14).await?;
        self.append(&history[14..20]).await?;
        self.commit(20).await?;
        self.vote(Vote::new(3, 2)).await?;
        self.append(&history[20..24]).await?;
        self.commit(23).await?;
        self.replica.shared.save_image()?;
        self.replica.store.checkpoint_now().map_err(io::Error::other)?;
        self.purge(SEGMENT).await?;
        self.append(&history[24..own]).await?;
        self.commit(own).await?;
        // Without a checkpoint.
        self.purge(2 * SEGMENT).await?;
        // It was away while the others deleted what it lacks.
        self.append(&[message(3, "T", "never committed", 40)]).await?;
        self.vote(Vote::new_committed(4, 1)).await?;
        self.install(&leader.snapshot, &history).await?;
        for (id, bytes) in &leader.behind {
            let entry = super::super::log::stored_entry(bytes.clone())?;
            assert_eq!(entry.log_id, *id);
            self.model.chain.push(history[self.model.chain.len()].clone());
            self.replica.append(vec![entry]).await?;
            self.model.sure += 1;
        }
        self.commit(history.len() - 1).await?;
        self.replica.shared.save_image()?;
        self.replica.store.checkpoint_now().map_err(io::Error::other)?;
        self.commit(history.len()).await
    }
}

/// Compares what is found with the model; returns how many entries there are, from index 0 on.
async fn check(replica: &mut Replica, model: &Model) -> usize {
    let min = replica.store.log().min().0;
    let model = match &model.installed {
        Some((position, installed)) if min == *position => installed,
        _ => model,
    };
    assert!(min <= model.purged_below && min.is_multiple_of(SEGMENT), "the log begins at {min}");
    let content = replica.content();
    let floor = replica.files.snapshot(PhysicalOffset(min)).unwrap();
    let first = floor.and_then(|floor| floor.last_log_id()).next_index();
    let count = usize::try_from(replica.last().await.next_index()).unwrap();
    assert_eq!(content.len(), count - usize::try_from(first).unwrap());
    assert!((model.sure..=model.chain.len()).contains(&count), "{count} entries, {} for sure", model.sure);
    for ((index, found), expected) in content.iter().zip(first..) {
        assert_eq!(*index, expected);
        assert_eq!(*found, model.chain[usize::try_from(*index).unwrap()], "entry {index}");
    }
    let vote = replica.log.read_vote().await.unwrap();
    assert!(model.votes.contains(&vote), "{vote:?}, not one of {:?}", model.votes);
    let committed = replica.log.read_committed().await.unwrap();
    assert!(committed.next_index() <= model.committed as u64);
    assert!(replica.shared.applied().next_index() <= count as u64);
    count
}

/// Compares queues and tables with what the first `count` entries of `chain` make of them; all of them are applied.
fn check_applied(replica: &Replica, chain: &[Planned], first: u64) {
    let mut queues: BTreeMap<(&str, u32), Vec<(u64, &str)>> = BTreeMap::new();
    let (mut topics, mut committed) = (BTreeSet::new(), None);
    for (index, planned) in (0u64..).zip(chain) {
        for (topic, queue, body) in planned.messages() {
            queues.entry((topic, *queue)).or_default().push((index, body));
        }
        match planned.command() {
            Some(MetadataCommand::PutTopic(config)) => {
                topics.insert(config.topic_name.clone());
            }
            Some(MetadataCommand::DeleteTopic(deleted)) => {
                queues.retain(|(topic, _), _| *topic != deleted.as_str());
                topics.remove(deleted);
            }
            Some(MetadataCommand::CommitOffset { offset, .. }) => committed = Some(*offset),
            _ => {}
        }
    }
    let found: BTreeSet<_> =
        replica.metadata.topics().all().into_iter().map(|topic| topic.topic_name.clone()).collect();
    assert_eq!(found, topics);
    assert_eq!(replica.metadata.offsets().get(&Group::new("G"), &Topic::new("T"), QueueId(0)), committed);
    for topic in ["T", "D", "N"] {
        for queue in 0..2 {
            let expected = queues.remove(&(topic, queue)).unwrap_or_default();
            let (name, id) = (Topic::new(topic), QueueId(queue));
            let Some(known) = replica.store.queues().get(&name, id) else {
                assert_eq!(expected.len(), 0, "{topic}-{queue}");
                continue;
            };
            assert_eq!(known.max_offset().0, expected.len() as u64, "{topic}-{queue}");
            let gone = expected.iter().filter(|(index, _)| *index < first).count();
            let min = usize::try_from(known.min_offset().0).unwrap();
            assert!(min <= gone, "{topic}-{queue} begins at {min}, {gone} are gone");
            for (number, (_, body)) in expected.iter().enumerate().skip(gone) {
                let at = QueueOffset(number as u64);
                let read = replica.store.read(&name, id, at, LIMITS, &Filter::All).unwrap();
                assert_eq!(read.status, ReadStatus::Found, "{topic}-{queue} {at}");
                let record = Record::decode(&read.records[0]).unwrap();
                assert_eq!((record.queue_offset, text(record.body).as_str()), (at, *body));
            }
        }
    }
}

/// Runs the script until the process dies in change `change`, and whatever follows. Returns all changes.
async fn crash_at(change: u64, loss: Loss, leader: &Leader) -> Vec<(Change, PathBuf)> {
    let folder = folder();
    let root = folder.path().join("store");
    let mut random = fastrand::Rng::with_seed(change);
    let mut faults = Arc::new(Faults::with_power());
    faults.record_changes();
    if change > 0 {
        faults.die_after(change);
    }
    let mut model = Model::default();
    let done = match Replica::open(&root, &faults) {
        Err(error) => Err(error),
        Ok(replica) => {
            let mut run = Run { replica, model };
            let done = run.script(leader).await;
            model = run.model;
            done
        }
    };
    let changes = faults.changes();
    let _said = Said::new(change, loss, &changes);
    if change == 0 {
        done.unwrap();
        return changes;
    }
    // The writer makes one write of two, or not: there may be fewer changes than were counted.
    faults.die();
    loss.of(&faults, &mut random);
    if loss == Loss::Some {
        // The recovery is cut short, too.
        faults = Arc::new(Faults::with_power());
        faults.die_after(random.u64(1..12));
        drop(Replica::open(&root, &faults));
        faults.die();
        loss.of(&faults, &mut random);
    }
    let mut found = Vec::new();
    for _ in 0..2 {
        let mut replica = Replica::open(&root, &Arc::default()).unwrap();
        let count = check(&mut replica, &model).await;
        let vote = replica.log.read_vote().await.unwrap();
        found.push((count, vote, replica.store.log().min(), replica.content()));
    }
    assert_eq!(found[0], found[1], "a second recovery finds the same");
    // It goes on, as a leader of a later term, and commits all that it has.
    let mut replica = Replica::open(&root, &Arc::default()).unwrap();
    let count = check(&mut replica, &model).await;
    let model = match model.installed {
        Some((position, installed)) if replica.store.log().min().0 == position => *installed,
        _ => model,
    };
    let mut chain = model.chain[..count].to_vec();
    chain.extend([blank(9), message(9, "T", "after", 8)]);
    let entries = [count, count + 1].map(|index| chain[index].entry(index as u64));
    replica.append(entries.into()).await.unwrap();
    replica.commit(log_id(9, count as u64 + 1)).await.unwrap();
    let first = found[0].3.first().map_or(count as u64, |(index, _)| *index);
    check_applied(&replica, &chain, first);
    replica.shared.save_image().unwrap();
    drop(replica);
    let mut replica = Replica::open(&root, &Arc::default()).unwrap();
    replica.apply(count as u64 + 1).await.unwrap();
    check_applied(&replica, &chain, first);
    changes
}

/// Makes the whole history, without faults.
async fn leader() -> Leader {
    let folder = folder();
    let mut replica = Replica::open(&folder.path().join("store"), &Arc::default()).unwrap();
    let (history, _) = history();
    let mut planned = Vec::new();
    for (index, entry) in (0u64..).zip(&history) {
        replica.append(vec![entry.entry(index)]).await.unwrap();
        replica.commit(log_id(entry.term, index)).await.unwrap();
        planned.push(log_id(entry.term, index));
    }
    let last = replica.store.log().written().0 / SEGMENT;
    let base = PhysicalOffset((last - 1) * SEGMENT);
    let bytes = replica.files.snapshot_bytes(base).unwrap().unwrap();
    let snapshot = decode_snapshot(&bytes).unwrap();
    let first = snapshot.last_log_id().next_index();
    let entries = replica.log.try_get_log_entries(first..).await.unwrap();
    let behind = entries.into_iter().map(|entry| match entry.payload {
        Payload::Stored(stored) => (entry.log_id, stored.bytes),
        other => panic!("{other} in a log"),
    });
    assert!(term_of(&planned[usize::try_from(first).unwrap()]) == 4);
    Leader { snapshot, behind: behind.collect() }
}

#[test]
fn a_replica_that_dies_in_any_change_of_its_disk_keeps_what_it_acknowledged() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (leader, changes) = runtime().block_on(async {
        let leader = leader().await;
        let changes = crash_at(0, Loss::Nothing, &leader).await;
        (leader, changes)
    });
    at_every_change(&changes, |change, loss| {
        runtime().block_on(crash_at(change, loss, &leader));
    });
}
