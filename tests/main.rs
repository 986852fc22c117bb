//! The integration tests, one binary.
#![expect(clippy::unwrap_used, reason = "helpers of tests may fail where they stand")]

mod admin;
mod architecture;
mod broker_admin;
mod harness;
mod kill;
mod namesrv;
mod up;
mod wire;
