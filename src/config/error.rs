//! Why a configuration was refused.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file; lines count from 1.
    File(PathBuf, usize),
    /// An option or `key=value` of the command line.
    CommandLine,
    /// A variable of the environment.
    Environment(&'static str),
    /// A line of an update request at run time; lines count from 1.
    Update(usize),
    /// A setting of the replica's group.
    Group,
    /// A default of the program.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::CommandLine => f.write_str("command line"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Update(line) => write!(f, "update, line {line}"),
            Self::Group => f.write_str("settings of the group"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text is not in .properties format.
    #[error("{origin}: {reason}")]
    Syntax {
        /// Where it is wrong.
        origin: Origin,
        /// What is wrong.
        reason: String,
    },
    /// A value is not of its key's type or out of its range.
    #[error("{origin}: {key}={value}: {reason}")]
    Value {
        /// Where the value is set.
        origin: Origin,
        /// The key.
        key: String,
        /// The value as written.
        value: String,
        /// What it should have been.
        reason: String,
    },
    /// `namesrvAddr` is no list of `host:port`. The text is Java's.
    #[error(
        "The Name Server Address[{0}] illegal, please set it as follows, \"127.0.0.1:9876;192.168.0.1:9876\""
    )]
    NamesrvAddr(String),
    /// A slave without an id. The text is Java's.
    #[error("Slave's brokerId must be > 0")]
    SlaveId,
    /// Two replication modes at once. The text is Java's.
    #[error("The config enableControllerMode and enableDLegerCommitLog cannot both be true.")]
    TwoModes,
    /// An update at run time names a key of `configBlackList`. The text is Java's.
    #[error("Can not update config in black list.")]
    BlackListed(String),
    /// An update at run time names a key that nobody knows.
    #[error("unknown key {key}{}", hint.as_ref().map_or(String::new(), |hint| format!(", did you mean {hint}?")))]
    UnknownKey {
        /// The key.
        key: String,
        /// The nearest known one.
        hint: Option<String>,
    },
}

impl Error {
    /// Returns the exit code of a program that cannot start for this reason: Java's where Java has one.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NamesrvAddr(_) | Self::SlaveId => 253,
            Self::TwoModes => 252,
            Self::Read { .. }
            | Self::Write { .. }
            | Self::Syntax { .. }
            | Self::Value { .. }
            | Self::BlackListed(_)
            | Self::UnknownKey { .. } => 255,
        }
    }
}
