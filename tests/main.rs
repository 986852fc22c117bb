//! The integration tests, one binary.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail where they stand")]

mod admin;
mod architecture;
mod broker_admin;
mod compat;
mod consumers;
mod demo;
mod dledger;
mod filter;
mod fuzz;
mod group_admin;
mod harness;
mod http;
mod kill;
mod limits;
mod namesrv;
mod pull;
mod raft;
mod raft_admin;
mod raft_roles;
mod recovery;
mod replies;
mod send;
mod up;
mod wire;
