//! The progress of a group of consumers never goes back: not in the log, where its members commit in order, and not in the
//! tables of a replica that runs.

use std::collections::BTreeMap;

use super::{Invariant, Moment};
use crate::metadata::MetadataCommand;
use crate::model::{Group, QueueOffset, Topic};

use super::super::clients::{GROUPS, progress};

#[derive(Default)]
pub(super) struct ConsumerOffsets {
    log: BTreeMap<(Topic, Group), QueueOffset>,
    /// By replica, process and group.
    tables: BTreeMap<(usize, u64, &'static str), u64>,
}

impl Invariant for ConsumerOffsets {
    fn name(&self) -> &'static str {
        "consumer offsets go up"
    }

    fn check(&mut self, moment: &Moment<'_>) -> Result<(), String> {
        for entry in &moment.ledger.entries[moment.fresh..] {
            for command in &entry.commands {
                let MetadataCommand::CommitOffset { group, topic, offset, .. } = command else { continue };
                let before = self.log.insert((topic.clone(), group.clone()), *offset);
                if before.is_some_and(|before| before > *offset) {
                    return Err(format!("{command:?} behind {before:?}"));
                }
            }
        }
        for view in moment.views {
            let Some(node) = moment.world.node(view.id) else { continue };
            for name in GROUPS {
                let Some(offset) = progress(&node, name) else { continue };
                // What a leader only noted is forgotten when it is replaced.
                if !node.metadata.noted().is_empty() || view.leads {
                    continue;
                }
                let before = self.tables.insert((view.id, view.incarnation, name), offset);
                if before.is_some_and(|before| before > offset) {
                    return Err(format!("n{}: {name} at {offset} after {before:?}", view.id));
                }
            }
        }
        Ok(())
    }
}
