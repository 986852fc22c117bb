//! Quorate: a message broker that speaks Apache RocketMQ's remoting protocol.
//!
//! The modules in layer order; a module uses lower layers only (`tests/architecture.rs` has the exact table).
//! ARCHITECTURE.md says why.

// Layer 0: values that everything else is about.
pub mod env;
pub mod fields;
pub mod metrics;
pub mod model;

// Layer 1: bytes <-> values.
pub mod config;
pub mod filter;
pub mod message;
pub mod remoting;

// Layer 2: what is kept. Synchronous, with its own threads.
pub mod metadata;
pub mod store;

// Layer 3: turns an append into a committed append; knows who leads.
pub mod replication;

// Layer 4: what clients and operators ask for.
pub mod admin;
pub mod broker;
pub mod namesrv;
