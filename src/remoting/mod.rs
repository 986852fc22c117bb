//! RocketMQ's remoting protocol: frames, headers, bodies, and the two ends of a connection.
//!
//! Knows how things look on the wire and nothing of what they mean: no broker state lives here.

pub mod body;
pub mod client;
pub mod code;
mod command;
mod connection;
mod ext_fields;
pub mod frame;
pub mod header;
pub mod json;
pub mod server;

pub use body::Body;
pub use client::{Client, ClientConfig};
pub use code::{RequestCode, ResponseCode};
pub use command::{Command, HeaderError, Language, RpcFields, SerializeType, version};
pub use connection::{Answer, CallError, Connection, Service};
pub use ext_fields::ExtFields;
pub use server::{Server, ServerConfig};
