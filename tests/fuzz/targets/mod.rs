//! Functions that take any bytes and panic if something happens that must not. `README.md` says how to run them.
//!
//! They are shared by the tests, which replay the corpus, and by the crate in this folder, which libFuzzer drives.

mod config;
mod filter;
mod message;
mod raft;
mod remoting;
mod store;

/// A target: its name, which is also that of its folder in `corpus/`, and its function.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All targets.
pub(crate) const TARGETS: [Target; 16] = [
    ("frame", remoting::frame),
    ("header", remoting::header),
    ("body", remoting::body),
    ("registration", remoting::registration),
    ("record", message::record),
    ("batch", message::batch),
    ("properties", message::properties),
    ("sql92", filter::sql92),
    ("config", config::config),
    ("store", store::store),
    ("entries", store::entries),
    ("derived", store::derived),
    ("raft_message", raft::message),
    ("raft_entry", raft::entry),
    ("raft_file", raft::file),
    ("commands", raft::commands),
];
