//! Compares the ledger with what every replica serves.

use super::group::RaftGroup;
use super::load::{Ledger, SENDERS, TOPIC, parse};
use crate::harness::{Peer, Pull, next_begin, records};

/// Examples of each anomaly that are kept.
const EXAMPLES: usize = 5;

/// What was found. Everything but the first three must be zero.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) acked: usize,
    /// Messages that their senders gave up.
    pub(crate) failed: usize,
    /// Messages that are there more often than once, and of which an attempt had an unknown outcome.
    pub(crate) duplicates: usize,
    pub(crate) lost: usize,
    /// Acknowledged, and elsewhere than the acknowledgement says.
    pub(crate) misplaced: usize,
    /// There more often than once although every attempt but the acknowledged one was refused.
    pub(crate) doubled: usize,
    /// A sender's messages whose acknowledged places are not in the order in which they were sent.
    pub(crate) disordered: usize,
    /// There, but never sent.
    pub(crate) invented: usize,
    /// Places at which two replicas have different messages.
    pub(crate) differing: usize,
    pub(crate) examples: Vec<String>,
}

/// A message as it is stored: sender, number, position in the log.
type Stored = (usize, usize, u64);

impl Report {
    /// Reads everything from every replica that runs. The group must be settled.
    pub(crate) async fn of(group: &RaftGroup, ledger: &Ledger) -> Self {
        let mut report = Self { acked: ledger.acked(), failed: ledger.failed(), ..Self::default() };
        let mut first: Option<Vec<Vec<Stored>>> = None;
        for replica in (0..group.replicas.len()).filter(|replica| group.is_running(*replica)) {
            let peer = Peer::new(group.replicas[replica].address);
            let mut queues = Vec::new();
            for queue in 0..SENDERS {
                queues.push(report.read(&peer, replica, queue).await);
            }
            report.compare(replica, &queues, ledger);
            match &first {
                None => {
                    report.count_duplicates(&queues, ledger);
                    first = Some(queues);
                }
                Some(first) => report.compare_replicas(replica, first, &queues),
            }
        }
        report
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_clean(&self) -> bool {
        let Self { lost, misplaced, doubled, disordered, invented, differing, .. } = self;
        lost + misplaced + doubled + disordered + invented + differing == 0
    }

    fn example(&mut self, text: String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(text);
        }
    }

    async fn read(&mut self, peer: &Peer, replica: usize, queue: usize) -> Vec<Stored> {
        let queue_id = i32::try_from(queue).expect("few queues");
        let mut stored = Vec::new();
        loop {
            let offset = i64::try_from(stored.len()).expect("an offset");
            let group = "CID_RMQ_SYS_TEST";
            let pull = Pull { group, topic: TOPIC, queue_id, offset, count: 1000, ..Pull::default() };
            let answer = peer.pull(&pull).await;
            match answer.code {
                0 => {}
                19 => return stored,
                code => panic!("n{replica}: pull of queue {queue} at {offset}: {code} {:?}", answer.remark),
            }
            for record in records(&answer) {
                let at = stored.len();
                assert_eq!(
                    record.queue_offset, at as u64,
                    "n{replica}: the offsets of queue {queue} have a hole"
                );
                let message = parse(&record.text()).filter(|(sender, _)| *sender == queue);
                if message.is_none() {
                    self.invented += 1;
                    self.example(format!("n{replica} queue {queue} offset {at}: {:.60}", record.text()));
                }
                let (sender, number) = message.unwrap_or((usize::MAX, usize::MAX));
                stored.push((sender, number, record.position));
            }
            assert_eq!(next_begin(&answer), i64::try_from(stored.len()).expect("an offset"));
        }
    }

    fn compare(&mut self, replica: usize, queues: &[Vec<Stored>], ledger: &Ledger) {
        for (sender, queue) in queues.iter().enumerate() {
            let mut there = vec![0; ledger.of(sender).len()];
            for (_, number, _) in queue.iter().filter(|(of, ..)| *of == sender) {
                // A sender notes a message when it is through with it.
                if let Some(count) = there.get_mut(*number) {
                    *count += 1;
                }
            }
            let mut last = None;
            for (number, sent) in ledger.of(sender).into_iter().enumerate() {
                let Some((offset, position)) = sent.place else { continue };
                if last.is_some_and(|last| last >= offset) {
                    self.disordered += 1;
                    self.example(format!("{sender}-{number} at {offset}, behind {last:?}"));
                }
                last = Some(offset);
                let found = usize::try_from(offset).ok().and_then(|at| queue.get(at));
                if found == Some(&(sender, number, position)) {
                    continue;
                }
                match there[number] {
                    0 => self.lost += 1,
                    _ => self.misplaced += 1,
                }
                self.example(format!(
                    "n{replica}: {sender}-{number} was acknowledged at {offset}, {position}; there is {found:?}, and \
                     it is there {} times",
                    there[number]
                ));
            }
        }
    }

    fn count_duplicates(&mut self, queues: &[Vec<Stored>], ledger: &Ledger) {
        for (sender, queue) in queues.iter().enumerate() {
            let messages = ledger.of(sender);
            let mut numbers: Vec<_> = queue.iter().map(|(_, number, _)| *number).collect();
            numbers.sort_unstable();
            for same in numbers.chunk_by(|a, b| a == b).filter(|same| same.len() > 1) {
                let Some(sent) = messages.get(same[0]) else { continue };
                if same.len() > sent.unknown as usize + 1 {
                    self.doubled += 1;
                    self.example(format!("{sender}-{} is there {} times: {sent:?}", same[0], same.len()));
                } else {
                    self.duplicates += 1;
                }
            }
        }
    }

    fn compare_replicas(&mut self, replica: usize, first: &[Vec<Stored>], other: &[Vec<Stored>]) {
        for (queue, (first, other)) in first.iter().zip(other).enumerate() {
            let same = first.iter().zip(other).take_while(|(first, other)| first == other).count();
            let differing = first.len().max(other.len()) - same;
            if differing > 0 {
                self.differing += differing;
                let (here, there) = (other.get(same), first.get(same));
                self.example(format!(
                    "n{replica} queue {queue} offset {same}: {here:?}, elsewhere {there:?}"
                ));
            }
        }
    }
}
