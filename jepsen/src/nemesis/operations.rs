//! What operators do to a group, and a load that rolls segments.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use quorate::remoting::{Command, RequestCode};
use tokio::time::sleep;

use super::{Active, HEALTH_LIMIT, Nemesis};
use crate::client;
use crate::plan::Kind;

/// How long an operation may take.
const OPERATION_LIMIT: Duration = Duration::from_secs(40);
/// Messages of a burst, and their size: together several segments.
const BURST: usize = 80;
const BURST_BYTES: usize = 100_000;

impl Nemesis {
    pub(super) async fn transfer(
        &self,
        leader: Option<usize>,
        random: &mut fastrand::Rng,
        active: &mut Active,
    ) -> Result<()> {
        let leader = leader.context("there is no leader")?;
        let others: Vec<_> = (0..self.cluster.options.nodes).filter(|node| *node != leader).collect();
        let to = others[random.usize(..others.len())];
        active.text = format!("n{leader} to n{to}");
        self.note(Kind::Transfer, active);
        let request = Command::request(RequestCode::RaftTransferLeader).with_field("peerId", to.to_string());
        self.cluster.operate(request, Duration::from_secs(10)).await?;
        let new = self.cluster.leader(Duration::from_secs(10)).await?;
        ensure!(new == to, "n{new} leads");
        Ok(())
    }

    /// Adds a replica, and takes it out again.
    pub(super) async fn membership(&self, lasts: Duration, active: &mut Active) -> Result<()> {
        let spare = self.cluster.brokers() - 1;
        active.text = format!("n{spare} joins and leaves");
        self.note(Kind::Membership, active);
        self.cluster.start_broker(spare).await?;
        let added = self.add_and_remove(spare, lasts).await;
        self.cluster.kill_broker(spare);
        std::fs::remove_dir_all(self.cluster.store(spare))?;
        added
    }

    async fn add_and_remove(&self, spare: usize, lasts: Duration) -> Result<()> {
        let add = Command::request(RequestCode::RaftAddPeer)
            .with_field("peerId", spare.to_string())
            .with_field("peerAddress", self.cluster.raft_address(spare));
        self.cluster.operate(add, OPERATION_LIMIT).await.context("add a replica")?;
        sleep(lasts).await;
        let remove = Command::request(RequestCode::RaftRemovePeer).with_field("peerId", spare.to_string());
        // Until it is out it counts: it must not go.
        let mut last = None;
        for _ in 0..5 {
            match self.cluster.operate(remove.clone(), OPERATION_LIMIT).await {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
            sleep(Duration::from_secs(1)).await;
        }
        let error = last.context("an error")?;
        self.wrong(format!("n{spare} cannot be taken out: {error:#}"));
        Err(error)
    }

    pub(super) async fn rolling_restart(&self, active: &mut Active) -> Result<()> {
        active.text = "each replica in turn".into();
        self.note(Kind::RollingRestart, active);
        let mut restarted = 0;
        for node in 0..self.cluster.options.nodes {
            {
                let mut state = self.lock();
                if state.busy.contains(&node) || !self.cluster.is_running(node) {
                    continue;
                }
                state.busy.insert(node);
            }
            let taken = super::Taken { nemesis: self, nodes: vec![node] };
            self.stop(&taken.nodes, Duration::ZERO).await?;
            let _ = self.cluster.healthy(HEALTH_LIMIT).await;
            restarted += 1;
        }
        ensure!(restarted > 0, "all replicas were busy");
        Ok(())
    }

    /// Sends large messages, so that segments roll and snapshots are made in quick succession.
    pub(super) async fn segments(&self, active: &mut Active) -> Result<()> {
        active.text = format!("{BURST} messages of {BURST_BYTES} bytes");
        self.note(Kind::Segments, active);
        let before = self.newest_snapshot();
        let caller = client::Caller::new();
        let body = "s".repeat(BURST_BYTES);
        let mut acked = 0;
        for number in 0..BURST {
            let address = self.cluster.broker_address(number % self.cluster.options.nodes);
            let sent = caller.send(&address, "Storm", 0, body.as_bytes(), Duration::from_secs(2)).await;
            acked += usize::from(matches!(sent, client::Sent::Acked { .. }));
        }
        let after = self.newest_snapshot();
        active.text += &format!(", {acked} acknowledged");
        ensure!(after > before, "no snapshot was made: {acked} messages acknowledged");
        Ok(())
    }

    /// Returns the position of the newest snapshot that any replica has in its store.
    fn newest_snapshot(&self) -> u64 {
        let folders =
            (0..self.cluster.options.nodes).map(|node| self.cluster.store(node).join("raft/snapshot"));
        let files = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
        files.filter_map(|file| file.file_name().to_str()?.parse().ok()).max().unwrap_or(0)
    }
}
