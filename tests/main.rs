//! The integration tests, one binary.

mod architecture;
mod harness;
mod kill;
mod wire;
