//! A leader has all that was committed in earlier terms, and in its own.

use super::{Invariant, Moment};

pub(super) struct LeaderCompleteness;

impl Invariant for LeaderCompleteness {
    fn name(&self) -> &'static str {
        "leader completeness"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for view in moment.views.iter().filter(|view| view.leads) {
            let term = view.vote.leader_id.term;
            let committed = moment.ledger.entries.iter().enumerate().rev();
            let Some((index, entry)) = committed.into_iter().find(|(_, entry)| entry.known_in <= term) else {
                continue;
            };
            let index = index as u64;
            let has = match moment.logs[view.id].entries.get(&index) {
                Some(seen) => *seen == entry.seen,
                None => view.purged.is_some_and(|purged| purged >= index),
            };
            if !has {
                return Err(format!("n{} leads in term {term} without {index}, {:?}", view.id, entry.seen));
            }
        }
        Ok(())
    }
}
