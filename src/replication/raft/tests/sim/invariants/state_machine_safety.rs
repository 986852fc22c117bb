//! What a replica knows to be committed, and what it applied, is what was committed there.

use super::{Invariant, Moment};

pub(super) struct StateMachineSafety;

impl Invariant for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state machine safety"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for view in moment.views {
            if let Some((index, crc, end)) = view.machine
                && let Some(entry) = moment.ledger.get(index)
                // At a snapshot's base the log goes on in the next segment.
                && (crc != entry.seen.crc || end < entry.seen.end)
            {
                return Err(format!(
                    "n{} applied {crc} up to {end} at {index}, not {:?}",
                    view.id, entry.seen
                ));
            }
            let log = &moment.logs[view.id].entries;
            let Some((index, _)) = view.committed_here else { continue };
            let Some(seen) = log.get(&index) else { continue };
            // The CRC covers all entries before.
            if moment.ledger.get(index).is_some_and(|entry| entry.seen != *seen) {
                return Err(format!("n{} has {seen:?} at {index}, which is committed otherwise", view.id));
            }
        }
        Ok(())
    }
}
