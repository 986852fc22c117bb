//! An entry that is committed is never taken back or replaced where it stood, while a replica runs.

use super::{Invariant, Moment};

pub(super) struct CommittedStays;

impl Invariant for CommittedStays {
    fn name(&self) -> &'static str {
        "committed entries stay"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for view in moment.views {
            for (index, seen) in &view.changes.gone {
                // A snapshot may have taken its place.
                let replaced = moment.logs[view.id].entries.contains_key(index);
                let is_behind = view.purged.is_none_or(|purged| *index > purged);
                let was_committed = moment.ledger.get(*index).is_some_and(|entry| entry.seen == *seen);
                let durable = seen.end <= moment.logs[view.id].durable;
                if was_committed && is_behind && (replaced || durable) {
                    return Err(format!("n{} took {seen:?} at {index} back", view.id));
                }
            }
        }
        Ok(())
    }
}
