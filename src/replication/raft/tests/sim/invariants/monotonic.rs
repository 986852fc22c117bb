//! Terms, votes, what is committed and what is applied never go back while a replica runs; its vote not over restarts.

use std::collections::BTreeMap;

use super::{Invariant, Moment};
use crate::replication::raft::types::Vote;

#[derive(Default)]
pub(super) struct Monotonic {
    running: BTreeMap<usize, Known>,
    votes: BTreeMap<usize, Vote>,
}

struct Known {
    incarnation: u64,
    vote: Vote,
    committed: Option<u64>,
    applied: Option<u64>,
}

impl Invariant for Monotonic {
    fn name(&self) -> &'static str {
        "terms, votes and commits go up"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for view in moment.views {
            let id = view.id;
            let now = Known {
                incarnation: view.incarnation,
                vote: view.vote,
                committed: view.committed,
                applied: view.machine.map(|(index, ..)| index),
            };
            if let Some(before) = self.running.get(&id).filter(|known| known.incarnation == now.incarnation) {
                if now.vote < before.vote {
                    return Err(format!("n{id}: vote {} after {}", now.vote, before.vote));
                }
                if now.committed < before.committed {
                    return Err(format!("n{id}: committed {:?} after {:?}", now.committed, before.committed));
                }
                if now.applied < before.applied {
                    return Err(format!("n{id}: applied {:?} after {:?}", now.applied, before.applied));
                }
            }
            self.running.insert(id, now);
            if view.broken {
                continue;
            }
            let before = self.votes.get(&id);
            if let Some(before) = before.filter(|before| view.saved_vote.is_none_or(|now| now < **before)) {
                return Err(format!("n{id}: saved vote {:?} after {before}", view.saved_vote));
            }
            self.votes.extend(view.saved_vote.map(|vote| (id, vote)));
        }
        Ok(())
    }
}
