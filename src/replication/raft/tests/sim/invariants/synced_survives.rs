//! What was synced when a process ended is there when the next one starts.

use std::collections::BTreeMap;

use super::{Invariant, Moment};

#[derive(Default)]
pub(super) struct SyncedSurvives {
    /// The process, and up to where its log was durable.
    known: BTreeMap<usize, (u64, u64)>,
}

impl Invariant for SyncedSurvives {
    fn name(&self) -> &'static str {
        "synced entries survive"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for view in moment.views {
            let durable = moment.logs[view.id].durable;
            let before = self.known.insert(view.id, (view.incarnation, durable));
            let Some((_, durable)) = before.filter(|(process, _)| *process != view.incarnation) else {
                continue;
            };
            let lost = view.changes.gone.iter().find(|(_, seen)| seen.end <= durable);
            // Entries that were not committed may have been taken back since the process is there.
            let lost = lost
                .filter(|(index, seen)| moment.ledger.get(*index).is_some_and(|entry| entry.seen == *seen));
            if let Some((index, seen)) = lost {
                return Err(format!("n{} lost {seen:?} at {index}, though up to {durable} was", view.id));
            }
        }
        Ok(())
    }
}
