//! Behind the end of a log stands nothing: what was taken back is zeroed before anything is appended.

use std::collections::HashMap;

use super::{Invariant, Moment};
use crate::env::Disk;

/// Bytes that are looked at.
const LOOKED_AT: usize = 1024;

#[derive(Default)]
pub(super) struct ZeroBehind {
    /// By replica: the end that was last looked at.
    known: HashMap<usize, u64>,
}

impl Invariant for ZeroBehind {
    fn name(&self) -> &'static str {
        "nothing behind the end of the log"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for view in moment.views.iter().filter(|view| !view.broken) {
            if self.known.insert(view.id, view.written) == Some(view.written) {
                continue;
            }
            let size = moment.world.shape.segment_bytes;
            let (base, at) = (view.written / size * size, view.written % size);
            let path = moment.world.root(view.id).join("commitlog").join(format!("{base:020}"));
            let mut behind = [0; LOOKED_AT];
            // The next segment may not be there yet.
            let Ok(file) = Disk::real().open(&path, false) else { continue };
            file.read_at(&mut behind, at).map_err(|error| error.to_string())?;
            if behind.iter().any(|byte| *byte != 0) {
                return Err(format!("n{}: something stands behind {}", view.id, view.written));
            }
        }
        Ok(())
    }
}
