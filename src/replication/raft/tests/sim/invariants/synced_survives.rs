//! What was synced when a process ended, and committed, is there when the next one starts.

use super::{Invariant, Recovered};

pub(super) struct SyncedSurvives;

impl Invariant for SyncedSurvives {
    fn name(&self) -> &'static str {
        "synced entries survive"
    }

    fn recovered(&mut self, recovered: &Recovered<'_>) -> Result<(), String> {
        let Recovered { id, changes, durable, ledger } = recovered;
        for (index, seen) in &changes.gone {
            // Others may have been taken back since the last look.
            let was_committed = ledger.get(*index).is_some_and(|entry| entry.seen == *seen);
            if was_committed && seen.end <= *durable {
                return Err(format!("n{id} lost {seen:?} at {index}, though up to {durable} was synced"));
            }
        }
        Ok(())
    }
}
