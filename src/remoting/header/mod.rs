//! The fields of requests and responses (`extFields`), one plain struct for each kind.
//!
//! Names and types are those of RocketMQ's header classes. A field is an `Option` where Java's class does not mark it
//! `@CFNotNull`; fields of `RpcRequestHeader` are left out (`RpcFields` reads them). No behaviour lives here.

mod admin;
mod auth;
mod client;
mod ha;
mod namesrv;
mod offset;
mod pop;
mod pull;
mod query;
mod raft;
mod send;
mod transaction;

pub use admin::*;
pub use auth::*;
pub use client::*;
pub use ha::*;
pub use namesrv::*;
pub use offset::*;
pub use pop::*;
pub use pull::*;
pub use query::*;
pub use raft::*;
pub use send::*;
pub use transaction::*;
