//! What must hold at every moment of a simulation, one file for each.

mod committed_stays;
mod consumer_offsets;
mod cut_stays;
mod election_safety;
mod leader_completeness;
mod log_matching;
mod monotonic;
mod no_failure;
mod order;
mod queues;
mod quorum;
mod state_machine_safety;
mod synced_survives;
mod zero_behind;

use super::observer::{Moment, Recovered};

pub(super) trait Invariant: Send {
    fn name(&self) -> &'static str;

    /// Returns what is wrong now.
    fn check(&mut self, _: &Moment<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Returns what is wrong with what a replica found at its start.
    fn recovered(&mut self, _: &Recovered<'_>) -> Result<(), String> {
        Ok(())
    }
}

pub(super) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(no_failure::NoFailure),
        Box::new(election_safety::ElectionSafety::default()),
        Box::new(monotonic::Monotonic::default()),
        Box::new(order::Order),
        Box::new(log_matching::LogMatching::default()),
        Box::new(synced_survives::SyncedSurvives),
        Box::new(cut_stays::CutStays::default()),
        Box::new(zero_behind::ZeroBehind::default()),
        Box::new(committed_stays::CommittedStays),
        Box::new(state_machine_safety::StateMachineSafety),
        Box::new(leader_completeness::LeaderCompleteness),
        Box::new(quorum::Quorum),
        Box::new(queues::Queues::default()),
        Box::new(consumer_offsets::ConsumerOffsets::default()),
    ]
}
