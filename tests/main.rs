//! The integration tests, one binary.

mod admin;
mod architecture;
mod harness;
mod kill;
mod wire;
