//! No replica ends by itself: its disk must have failed first.

use super::{Invariant, Moment};

pub(super) struct NoFailure;

impl Invariant for NoFailure {
    fn name(&self) -> &'static str {
        "a replica ends without a fault"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for view in moment.views {
            if let Some(reason) = view.failure.as_ref().filter(|_| !view.broken) {
                return Err(format!("n{}: {reason}", view.id));
            }
        }
        Ok(())
    }
}
