//! What is committed is durable on a majority.

use super::{Invariant, Moment};

pub(super) struct Quorum;

impl Invariant for Quorum {
    fn name(&self) -> &'static str {
        "commit on a durable majority"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for (index, entry) in moment.ledger.entries.iter().enumerate().skip(moment.fresh) {
            let index = index as u64;
            let have = moment.logs.iter().filter(|log| {
                let first = log.entries.first_key_value().map_or(u64::MAX, |(first, _)| *first);
                // What is below the first was replaced by a snapshot.
                index < first && first != u64::MAX
                    || log.entries.get(&index) == Some(&entry.seen) && entry.seen.end <= log.durable
            });
            // The same majority while one of them is not a member.
            let (have, all) = (have.count(), moment.logs.len());
            if have <= (all - 1) / 2 {
                return Err(format!("{have} of {all} have {:?} at {index} for sure", entry.seen));
            }
        }
        Ok(())
    }
}
