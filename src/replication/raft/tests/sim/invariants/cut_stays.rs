//! What a replica has taken back from the end of its log, durably, does not come back with its next start.

use std::collections::{BTreeMap, HashMap};

use super::super::ledger::Seen;
use super::{Invariant, Moment, Recovered};

#[derive(Default)]
pub(super) struct CutStays {
    /// By replica: taken back in memory, and maybe not yet on the disk.
    pending: HashMap<usize, Vec<(u64, Seen)>>,
    /// By replica and index: taken back on the disk.
    cut: HashMap<usize, BTreeMap<u64, Seen>>,
}

impl Invariant for CutStays {
    fn name(&self) -> &'static str {
        "what is taken back stays away"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for view in moment.views {
            let cut = self.cut.entry(view.id).or_default();
            for (index, _) in &view.changes.put {
                cut.remove(index);
            }
            let pending = self.pending.entry(view.id).or_default();
            pending.extend(view.changes.gone.iter().copied());
            let first_put = view.changes.put.first().map_or(u64::MAX, |(index, _)| *index);
            pending.retain(|(index, seen)| {
                // The next entry is taken only when it is done.
                let is_done = view.written <= seen.position || first_put <= *index;
                if is_done {
                    cut.insert(*index, *seen);
                }
                !is_done
            });
        }
        Ok(())
    }

    fn recovered(&mut self, recovered: &Recovered<'_>) -> Result<(), String> {
        self.pending.remove(&recovered.id);
        let Some(cut) = self.cut.get(&recovered.id) else { return Ok(()) };
        let back = recovered.changes.put.iter().find(|(index, seen)| cut.get(index) == Some(seen));
        match back {
            Some((index, seen)) => Err(format!("n{} found {seen:?} at {index} again", recovered.id)),
            None => Ok(()),
        }
    }
}
