//! There is at most one leader in a term, and a replica votes for one in each.

use std::collections::BTreeMap;

use super::{Invariant, Moment};

#[derive(Default)]
pub(super) struct ElectionSafety {
    /// By term.
    leaders: BTreeMap<u64, usize>,
    /// By replica and term.
    votes: BTreeMap<(usize, u64), u64>,
}

impl Invariant for ElectionSafety {
    fn name(&self) -> &'static str {
        "election safety"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for view in moment.views {
            let term = view.vote.leader_id.term;
            if view.leads {
                let known = *self.leaders.entry(term).or_insert(view.id);
                if known != view.id {
                    return Err(format!("n{known} and n{} lead in term {term}", view.id));
                }
            }
            let Some(saved) = view.saved_vote.filter(|_| !view.broken) else { continue };
            let (term, choice) = (saved.leader_id.term, saved.leader_id.voted_for);
            let known = *self.votes.entry((view.id, term)).or_insert(choice);
            // A replica that voted for nobody who won follows the winner.
            if known != choice && !saved.committed {
                return Err(format!("n{} votes for n{known} and n{choice} in term {term}", view.id));
            }
        }
        Ok(())
    }
}
