//! A Raft group: the CommitLog is the Raft log, openraft decides.
//!
//! The only files that name openraft. `log` is its log storage over `store::EntryLog`, `machine` its state machine,
//! `network`, `server` and `sockets` its transport; `group` starts and stops all of it, knows who leads, and changes the members.

mod codec;
mod files;
pub(super) mod fuzz;
mod group;
mod join;
mod lease;
#[cfg(test)]
mod links;
mod log;
mod machine;
mod mend;
mod network;
mod proposal;
mod roles;
mod server;
mod sockets;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;
mod types;
mod window;
mod wire;

pub(super) use group::{Group, Start};
pub(super) use sockets::Sockets;
