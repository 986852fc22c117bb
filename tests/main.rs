//! The integration tests, one binary.

mod admin;
mod wire;
