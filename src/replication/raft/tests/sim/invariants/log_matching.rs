//! Two entries of one index and one term are the same, byte for byte, and stand at the same position; so are all before.

use std::collections::HashMap;

use super::super::ledger::Seen;
use super::{Invariant, Moment};

#[derive(Default)]
pub(super) struct LogMatching {
    /// By index and term. The CRC covers the CRC of the entry before.
    known: HashMap<(u64, u64), Seen>,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for view in moment.views {
            for (index, seen) in &view.changes.put {
                let known = self.known.entry((*index, seen.term)).or_insert(*seen);
                if known != seen {
                    return Err(format!("n{} has {seen:?} at {index}, another one had {known:?}", view.id));
                }
            }
        }
        Ok(())
    }
}
