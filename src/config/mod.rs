//! Settings of the broker and of the name server: Java's .properties files, keys and defaults.
//!
//! Unlike Java, a wrong value stops the start and a misspelt key is named; config keys that RocketMQ knows
//! and this broker has no use for are accepted.

mod broker;
mod error;
mod known_keys;
mod load;
mod machine;
mod namesrv;
pub mod properties;
mod raft;
#[cfg(test)]
mod tests;

pub use broker::{BrokerConfig, BrokerRole, FlushDiskType, MessageRequestMode};
pub use error::{Error, Origin};
pub use load::{Changed, Environment, Loaded, Settings, Sources, TakenOver, is_shared, load, update_items};
pub use namesrv::NamesrvConfig;
pub use raft::RaftPeer;

/// Declares a settings struct whose fields carry their defaults, so that key, meaning, unit and default
/// stand in one place.
macro_rules! settings {
    (
        $(#[$of_struct:meta])* pub struct $name:ident {
            $($(#[$of_field:meta])* $field:ident: $kind:ty = $default:expr,)*
        }
    ) => {
        $(#[$of_struct])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $($(#[$of_field])* pub $field: $kind,)* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}
pub(crate) use machine::local_address;
use settings;
