//! Which segments may go, and when the disk is too full to take more.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::segment::Segment;
use super::{Error, Result, Store};
use crate::model::PhysicalOffset;

/// When segments are deleted. Source: RocketMQ `MessageStoreConfig`, `CleanCommitLogService`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retention {
    /// Age from which segments are deleted, in hours (`fileReservedTime`).
    pub reserved_hours: u64,
    /// Hours of the day, local time taken as UTC, at which old segments are deleted (`deleteWhen`).
    pub delete_hours: Vec<u8>,
    /// Used share of the disk from which old segments are deleted at any hour (`diskMaxUsedSpaceRatio`), percent.
    pub used_max_percent: u64,
    /// Used share from which segments are deleted whatever their age (`diskSpaceCleanForciblyRatio`), percent.
    pub forced_percent: u64,
    /// Used share from which messages are refused (`diskSpaceWarningLevelRatio`), percent.
    pub warning_percent: u64,
    /// Time between two looks, in milliseconds (`cleanResourceInterval`).
    pub interval_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            reserved_hours: 72,
            delete_hours: vec![4],
            used_max_percent: 75,
            forced_percent: 85,
            warning_percent: 90,
            interval_ms: 10_000,
        }
    }
}

/// Most segments deleted in one look, as Java's `deleteFileBatchMax`.
const DELETE_MAX: usize = 10;

/// What to do at one look, decided from the numbers alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Keep,
    /// Delete segments that are older than the reserved time.
    Old,
    /// Delete the oldest segments whatever their age.
    Forced,
}

impl Retention {
    fn decide(&self, now_ms: i64, used_ratio: f64) -> Decision {
        let used_percent = used_ratio * 100.0;
        let hour = u8::try_from(now_ms.rem_euclid(86_400_000) / 3_600_000).unwrap_or(0);
        if used_percent > self.forced_percent as f64 {
            Decision::Forced
        } else if used_percent > self.used_max_percent as f64 || self.delete_hours.contains(&hour) {
            Decision::Old
        } else {
            Decision::Keep
        }
    }
}

impl Store {
    /// Looks at the disk once: refuses or takes messages, and deletes segments that may go.
    pub fn clean(&self) -> Result<()> {
        // What readers looked at stays in the page cache; only the map's share of it is given back.
        self.log.segments().iter().for_each(|segment| segment.release_memory());
        let retention = self.retention();
        let used = self.used_ratio()?;
        let full = used * 100.0 > retention.warning_percent as f64;
        if self.full.swap(full, Ordering::Relaxed) != full {
            let percent = (used * 100.0).round();
            if full {
                tracing::error!(
                    percent,
                    limit = retention.warning_percent,
                    "disk full: messages are refused"
                );
            } else {
                tracing::info!(percent, "disk has room again: messages are taken");
            }
        }
        match retention.decide(self.clock.now_ms(), used) {
            Decision::Keep => Ok(()),
            Decision::Old => self.delete_segments(|store, segment| store.is_old(segment)).map(|_| ()),
            Decision::Forced => self.delete_segments(|_, _| Ok(true)).map(|_| ()),
        }
    }

    /// Deletes the segments that are older than the reserved time, at any hour. Returns how many.
    pub fn delete_old_segments(&self) -> Result<usize> {
        self.delete_segments(|store, segment| store.is_old(segment))
    }

    /// Takes what belongs to deleted segments out of the ConsumeQueues and the Index. Blocks on the disk.
    pub fn delete_expired_entries(&self) -> Result<()> {
        let _one_at_a_time = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        self.expire_derived()
    }

    /// Returns the used share of the disk, 0.0 to 1.0.
    pub fn used_ratio(&self) -> Result<f64> {
        let path = &self.config.commit_log;
        Ok(self.disk.usage(path).map_err(|error| Error::io("stat file system", path, error))?.ratio())
    }

    fn is_old(&self, segment: &Segment) -> Result<bool> {
        let modified = self
            .disk
            .modified_ms(segment.path())
            .map_err(|error| Error::io("stat segment", segment.path(), error))?;
        let reserved_ms = i64::try_from(self.retention().reserved_hours.saturating_mul(3_600_000));
        Ok(self.clock.now_ms() >= modified.saturating_add(reserved_ms.unwrap_or(i64::MAX)))
    }

    fn delete_segments(&self, may_go: impl Fn(&Self, &Segment) -> Result<bool>) -> Result<usize> {
        // Of two threads at a time one would delete a segment that only the other looked at.
        let _one_at_a_time = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        let min = self.min_after(may_go)?;
        if self.entries {
            self.wanted_min.fetch_max(min.0, Ordering::AcqRel);
            return Ok(0);
        }
        self.remove_below(min)
    }

    /// Returns where the log would begin without the segments that may go. The one being written stays, and so does one
    /// that recovery would read.
    fn min_after(&self, may_go: impl Fn(&Self, &Segment) -> Result<bool>) -> Result<PhysicalOffset> {
        let durable = self.checkpoint.state().ours.unwrap_or_default().dispatched;
        let segments = self.log.segments();
        let mut min = self.log.min();
        for oldest in segments.iter().take(segments.len().saturating_sub(1).min(DELETE_MAX)) {
            if oldest.end() > durable || !may_go(self, oldest)? {
                break;
            }
            min = oldest.end();
        }
        Ok(min)
    }

    /// Returns how far the log may be deleted by its age and the room on the disk. For a Raft log, whose segments go
    /// only with a snapshot.
    pub fn wanted_min(&self) -> PhysicalOffset {
        PhysicalOffset(self.wanted_min.load(Ordering::Acquire))
    }

    /// Deletes the segments that end at or below `min`. Blocks on the disk.
    pub fn delete_below(&self, min: PhysicalOffset) -> Result<usize> {
        let _one_at_a_time = self.deleting.lock().unwrap_or_else(PoisonError::into_inner);
        self.remove_below(min)
    }

    fn remove_below(&self, min: PhysicalOffset) -> Result<usize> {
        let mut deleted = 0;
        while self.log.segments().first().is_some_and(|oldest| oldest.end() <= min) {
            let Some(oldest) = self.log.pop_oldest() else { break };
            self.delete_segment(&oldest)?;
            deleted += 1;
        }
        if deleted > 0 {
            // Before a Raft log's snapshots go: none must be missing if a segment comes back.
            let folder = &self.config.commit_log;
            self.disk.sync_folder(folder).map_err(|error| Error::io("sync folder", folder, error))?;
            self.expire_derived()?;
        }
        Ok(deleted)
    }

    fn expire_derived(&self) -> Result<()> {
        let log_min = self.log.min();
        for (_, _, queue) in self.queues.all() {
            queue.expire(log_min)?;
        }
        self.index.expire(log_min)
    }

    fn delete_segment(&self, segment: &Arc<Segment>) -> Result<()> {
        let path = segment.path();
        tracing::info!(path = %path.display(), "segment expired");
        self.disk.remove(path).map_err(|error| Error::io("remove segment", path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_go_at_their_hour_or_when_the_disk_fills() {
        let retention = Retention::default();
        let (three, four) = (3 * 3_600_000, 4 * 3_600_000);
        for (now, used, decision) in [
            (three, 0.10, Decision::Keep),
            (four, 0.10, Decision::Old),
            (three, 0.76, Decision::Old),
            (three, 0.86, Decision::Forced),
        ] {
            assert_eq!(retention.decide(now, used), decision, "{now} {used}");
        }
    }
}
