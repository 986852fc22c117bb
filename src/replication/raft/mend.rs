//! Damage: found by reads, by recovery and by a scrub that goes through the log all the time; mended from another replica.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::group::Group;
use super::log::{tell, wait};
use super::machine::blocking;
use crate::model::LogIndex;

/// Time between two looks at what is damaged.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes checked at each look: about 16 MiB a second.
const SCRUB_BYTES: usize = 8 << 20;
/// Rest between two passes over the log.
const REST: Duration = Duration::from_secs(3600);
/// How long another replica may take to send entries.
const FETCH_LIMIT: Duration = Duration::from_secs(10);
/// Rounds over all replicas before one that lost entries goes on without them, and without a vote.
const ROUNDS: usize = 20;

/// Scrubs and mends until the replica stops.
pub(super) async fn run(group: Arc<Group>) {
    let mut stop = group.stop.subscribe();
    let mut scrub = Some(LogIndex(0));
    let mut rested = tokio::time::Instant::now();
    let mut told = BTreeMap::new();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        if scrub.is_none() && rested.elapsed() >= REST {
            scrub = Some(LogIndex(0));
        }
        if let Some(from) = scrub {
            let entries = Arc::clone(&group.shared.entries);
            let scrub_on = move || entries.scrub(from, SCRUB_BYTES).map_err(std::io::Error::other);
            let checked = blocking(group.shared.threads(), scrub_on);
            match checked.await {
                Ok(next) => scrub = next,
                Err(error) => {
                    tracing::error!(%error, "the log was not checked to its end");
                    scrub = None;
                }
            }
            if scrub.is_none() {
                rested = tokio::time::Instant::now();
            }
        }
        for position in group.shared.store.damages() {
            let index = group.shared.entries.index_at(position);
            let Ok(Some(index)) = index else { continue };
            match mend(&group, index).await {
                Ok(()) => drop(told.remove(&index)),
                Err(reason) if told.get(&index) == Some(&reason) => {}
                Err(reason) => {
                    tracing::warn!(%index, reason, "a damaged entry is not mended yet");
                    told.insert(index, reason);
                }
            }
        }
    }
}

async fn mend(group: &Arc<Group>, index: LogIndex) -> Result<(), String> {
    let bytes = fetch(group, index, index).await?;
    let bytes = bytes.into_iter().next().ok_or("an empty answer")?;
    let entries = Arc::clone(&group.shared.entries);
    let mended = move || entries.mend(&bytes).map_err(std::io::Error::other);
    blocking(group.shared.threads(), mended).await.map_err(|error| error.to_string())
}

/// Gets committed entries from whichever replica has them.
async fn fetch(group: &Group, first: LogIndex, last: LogIndex) -> Result<Vec<Bytes>, String> {
    let mut reasons = Vec::new();
    for id in group.others() {
        let Some(address) = group.raft_address(id) else { continue };
        match group.connections.fetch(id, &address, first.0..=last.0, FETCH_LIMIT).await {
            Ok(entries) if !entries.is_empty() => return Ok(entries),
            Ok(_) => reasons.push(format!("n{id}: no entries")),
            Err(reason) => reasons.push(format!("n{id}: {reason}")),
        }
    }
    Err(reasons.join("; "))
}

/// Gets back the entries that this replica lost, as far as others know them to be committed, before it takes part.
pub(super) async fn fetch_lost(group: &Arc<Group>) {
    let entries = &group.shared.entries;
    for _ in 0..ROUNDS {
        let Some(barrier) = group.barrier() else { return };
        let next = LogIndex(entries.last().map_or(0, |last| last.index.0 + 1));
        if next > barrier {
            return;
        }
        match fetch(group, next, barrier).await {
            Ok(fetched) => {
                let count = fetched.len();
                for bytes in fetched {
                    if let Err(error) = entries.append_stored(bytes) {
                        tracing::warn!(%error, "what another replica sent does not fit");
                        return;
                    }
                }
                let (done, is_done) = oneshot::channel();
                entries.when_flushed(tell(done));
                if wait(is_done).await.is_err() {
                    return;
                }
                tracing::info!(from = %next, count, "lost entries are back");
            }
            Err(reason) => {
                tracing::warn!(%next, %barrier, reason, "lost entries cannot be fetched yet");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}
