//! On each replica: purged <= snapshot <= applied <= committed <= last.

use super::{Invariant, Moment};

pub(super) struct Order;

impl Invariant for Order {
    fn name(&self) -> &'static str {
        "order of a replica's indexes"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for view in moment.views {
            let order = [view.purged, view.snapshot, view.applied, view.committed, view.last];
            // The metrics know of an application before they know of a snapshot that came with it.
            if !order.is_sorted() {
                return Err(format!("n{}: purged, snapshot, applied, committed, last: {order:?}", view.id));
            }
        }
        Ok(())
    }
}
