//! Disks and files.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use quorate::remoting::{Command, RequestCode};
use tokio::time::sleep;

use super::{Active, HEALTH_LIMIT, Nemesis};
use crate::cluster::poll;
use crate::disk::{self, Damage, Volume};
use crate::plan::Kind;

/// How long a replica may take to put right what was damaged, besides the time to look through its log.
const REPAIR_LIMIT: Duration = Duration::from_secs(60);
/// Bytes a second that a replica looks through at least; 16 MiB where nothing else goes on.
const SCRUB_RATE: u64 = 4 << 20;

impl Nemesis {
    fn volumes(&self, nodes: &[usize]) -> Result<Vec<&Volume>> {
        nodes.iter().map(|node| self.cluster.volumes.get(*node).context("replicas have no disks")).collect()
    }

    /// All lose power at once, and come back with what was synced.
    pub(super) async fn power(&self, nodes: &[usize], lasts: Duration) -> Result<()> {
        let volumes = self.volumes(nodes)?;
        for volume in &volumes {
            volume.cut_power()?;
        }
        nodes.iter().for_each(|node| self.cluster.kill_broker(*node));
        let dead = volumes.iter().filter(|volume| volume.is_dead()).count();
        sleep(lasts).await;
        for volume in &volumes {
            volume.remount()?;
        }
        self.start_all(nodes).await;
        ensure!(dead == nodes.len(), "{dead} of {} disks were cut off", nodes.len());
        Ok(())
    }

    /// Nothing can be read or written any more; the replica has to end.
    pub(super) async fn io_error(&self, nodes: &[usize], lasts: Duration) -> Result<()> {
        let volumes = self.volumes(nodes)?;
        for volume in &volumes {
            volume.cut_power()?;
        }
        let dead = volumes.iter().filter(|volume| volume.is_dead()).count();
        self.must_end(nodes, "its disk failed").await;
        sleep(lasts).await;
        for volume in &volumes {
            volume.remount()?;
        }
        self.start_all(nodes).await;
        ensure!(dead == nodes.len(), "{dead} of {} disks failed", nodes.len());
        Ok(())
    }

    pub(super) async fn disk_full(&self, nodes: &[usize], lasts: Duration) -> Result<()> {
        let volumes = self.volumes(nodes)?;
        let mut full = 0;
        for volume in &volumes {
            full += usize::from(volume.fill()?);
        }
        sleep(lasts).await;
        for volume in &volumes {
            volume.make_room()?;
        }
        ensure!(full == nodes.len(), "{full} of {} disks were full", nodes.len());
        Ok(())
    }

    pub(super) async fn hung_disk(&self, nodes: &[usize], lasts: Duration) -> Result<()> {
        let volumes = self.volumes(nodes)?;
        for volume in &volumes {
            volume.freeze()?;
        }
        sleep(lasts).await;
        for volume in &volumes {
            // Fails if it was not frozen any more.
            volume.thaw()?;
        }
        Ok(())
    }

    /// Damages the files of a replica while it does not run. It must put them right from the others.
    pub(super) async fn damage(
        &self,
        kind: Kind,
        node: usize,
        random: &mut fastrand::Rng,
        active: &mut Active,
    ) -> Result<()> {
        let log_end = self.cluster.status(node).await.map_or(0, |status| status.log_end);
        self.cluster.kill_broker(node);
        let store = self.cluster.store(node);
        if kind == Kind::Wipe {
            std::fs::remove_dir_all(&store)?;
            self.start(node).await;
            let outside = poll("a replica that says that it is outside", HEALTH_LIMIT, async || {
                self.cluster.status(node).await.filter(|status| status.state == "OUTSIDE")
            });
            if let Err(error) = outside.await {
                self.wrong(format!("n{node} lost its disk: {error:#}"));
            }
            let rejoin = Command::request(RequestCode::RaftRejoin).with_field("peerId", node.to_string());
            // Another fault may keep the leader from it.
            let mut last = None;
            let rejoined = poll("the group takes it back", HEALTH_LIMIT, async || {
                last = self.cluster.operate(rejoin.clone(), HEALTH_LIMIT).await.err();
                // An answer that was lost.
                let is_back = |error: &anyhow::Error| error.to_string().contains("did not lose its disk");
                last.as_ref().is_none_or(is_back).then_some(())
            });
            if rejoined.await.is_err() {
                self.wrong(format!("n{node} does not rejoin: {last:?}"));
            }
            return self.is_well(node).await;
        }
        let what = match kind {
            Kind::FlipBit => Damage::FlipBit,
            Kind::Truncate => Damage::Truncate,
            Kind::ZeroPage => Damage::ZeroPage,
            Kind::DeleteIndex => Damage::DeleteIndex,
            other => bail!("{other:?} does not damage files"),
        };
        let done = disk::damage(&store, what, log_end, random);
        self.start(node).await;
        let done = done?.context("there is nothing yet that could be damaged")?;
        active.text += &format!(": {}", done.text);
        self.is_well(node).await?;
        if let Some(segment) = done.segment {
            self.is_repaired(node, segment, log_end).await;
        }
        Ok(())
    }

    /// Waits until a replica follows.
    async fn is_well(&self, node: usize) -> Result<()> {
        let well = poll("a replica that takes part again", HEALTH_LIMIT, async || {
            let status = self.cluster.status(node).await?;
            let takes_part = matches!(status.state.as_str(), "LEADER" | "FOLLOWER");
            (takes_part && status.leader_id.is_some()).then_some(())
        });
        if let Err(error) = well.await {
            self.wrong(format!("n{node}: {error:#}"));
        }
        Ok(())
    }

    /// Waits until a segment has the bytes again that another replica's has.
    async fn is_repaired(&self, node: usize, segment: u64, log_end: u64) {
        let other = (node + 1) % self.cluster.options.nodes;
        let (one, two) = (self.cluster.store(node), self.cluster.store(other));
        let limit = REPAIR_LIMIT + Duration::from_secs(log_end / SCRUB_RATE);
        let repaired = poll("equal logs", limit, async || {
            let status = self.cluster.status(node).await?;
            let (here, there) = (status.applied_index, self.cluster.status(other).await?.applied_index);
            let (one, two) = (one.clone(), two.clone());
            let same = tokio::task::spawn_blocking(move || {
                crate::checker::identity::segment_difference(&one, &two, segment, log_end)
            });
            let same = matches!(same.await, Ok(Ok(None)));
            (here > 0 && there > 0 && same).then_some(())
        });
        if let Err(error) = repaired.await {
            self.wrong(format!("n{node} is not repaired: {error:#}"));
        }
    }
}
