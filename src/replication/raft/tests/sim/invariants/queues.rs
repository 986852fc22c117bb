//! Queue offsets have no gap and none is given twice; a message says itself where it stands; positions go up.

use std::collections::BTreeMap;

use super::{Invariant, Moment};

#[derive(Default)]
pub(super) struct Queues {
    next: BTreeMap<(String, u32), u64>,
    end: u64,
}

impl Invariant for Queues {
    fn name(&self) -> &'static str {
        "dense queue offsets"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for entry in &moment.ledger.entries[moment.fresh..] {
            if entry.seen.position < self.end {
                return Err(format!("{:?} begins below {}", entry.seen, self.end));
            }
            self.end = entry.seen.end;
            for (position, message) in &entry.messages {
                if !(entry.seen.position..entry.seen.end).contains(position) {
                    return Err(format!("{message:?} says that it is at {position}, in {:?}", entry.seen));
                }
                let next = self.next.entry((message.topic.clone(), message.queue)).or_default();
                if message.offset != *next {
                    return Err(format!("{message:?} instead of {next}"));
                }
                *next += 1;
            }
            self.next.retain(|(topic, _), _| !entry.forgotten.contains(topic));
        }
        Ok(())
    }
}
