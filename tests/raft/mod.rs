//! A Raft group as processes, and what faults do to it: no acknowledged message may be lost, whatever happens to a
//! minority.
//!
//! Each test runs a load of senders that keep a ledger of what was acknowledged, lets something happen, and compares
//! the ledger with what every replica serves, and the files of the replicas with each other. The number of faults is
//! small in `cargo test`; `QUORATE_KILLS`, `QUORATE_PAUSES` and `QUORATE_PARTITIONS` set others for runs on record.

mod disk;
mod failover;
mod figures;
mod files;
mod group;
mod java;
mod load;
mod namesrv;
mod net;
mod operations;
mod settings;
mod verify;
mod watch;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Held by each test with a group.
static GROUPS: RwLock<()> = RwLock::const_new(());

/// Waits until no other group runs: for tests that measure how long clients wait.
async fn alone() -> RwLockWriteGuard<'static, ()> {
    GROUPS.write().await
}

/// Waits until nobody measures: for tests that bear other groups beside theirs.
async fn beside_others() -> RwLockReadGuard<'static, ()> {
    GROUPS.read().await
}

/// Returns a number from the environment.
fn rounds(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}
