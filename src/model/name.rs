//! Topic and group names, and the rules that Java's `TopicValidator` and `Validators` set for them.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a name was refused; the text is what the client gets as remark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty or blank.
    #[error("The specified {0} is blank.")]
    Blank(&'static str),
    /// The name has a character outside `%|a-zA-Z0-9_-`.
    #[error("The specified {0}: {1}, contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")]
    Illegal(&'static str, String),
    /// The name is longer than its limit in bytes.
    #[error("The specified {0}: {1}, is longer than {0} max length: {2}")]
    TooLong(&'static str, String, usize),
}

const TOPIC_LENGTH_MAX: usize = 127;
const RETRY_TOPIC_LENGTH_MAX: usize = 255;
const GROUP_LENGTH_MAX: usize = 120;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is; `check` applies RocketMQ's rules.
            pub fn new(text: &str) -> Self {
                Self(Arc::from(text))
            }

            /// Returns the text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self::new(text)
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::from)
            }
        }
    };
}

name!(
    /// The name of a topic.
    Topic
);
name!(
    /// The name of a producer or consumer group.
    Group
);

impl Topic {
    const RETRY_PREFIX: &'static str = "%RETRY%";
    const DLQ_PREFIX: &'static str = "%DLQ%";

    /// Returns the topic that holds the messages which `group` has to consume again.
    pub fn retry_of(group: &Group) -> Self {
        Self::from(format!("{}{group}", Self::RETRY_PREFIX))
    }

    /// Returns the topic that holds the messages which `group` gave up.
    pub fn dlq_of(group: &Group) -> Self {
        Self::from(format!("{}{group}", Self::DLQ_PREFIX))
    }

    /// Returns the group whose retry topic this is.
    pub fn retry_group(&self) -> Option<Group> {
        self.0.strip_prefix(Self::RETRY_PREFIX).map(Group::new)
    }

    /// True for `%RETRY%` topics.
    pub fn is_retry(&self) -> bool {
        self.0.starts_with(Self::RETRY_PREFIX)
    }

    /// True for `%DLQ%` topics.
    pub fn is_dlq(&self) -> bool {
        self.0.starts_with(Self::DLQ_PREFIX)
    }

    /// Checks the name by Java's `TopicValidator.validateTopic`.
    pub fn check(&self) -> Result<(), NameError> {
        let max = if self.is_retry() || self.is_dlq() { RETRY_TOPIC_LENGTH_MAX } else { TOPIC_LENGTH_MAX };
        check(&self.0, "topic", max)
    }
}

impl Group {
    /// Checks the name by Java's `Validators.checkGroup`.
    pub fn check(&self) -> Result<(), NameError> {
        check(&self.0, "group", GROUP_LENGTH_MAX)
    }
}

fn check(text: &str, what: &'static str, max: usize) -> Result<(), NameError> {
    if text.trim().is_empty() {
        return Err(NameError::Blank(what));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'%' | b'|' | b'_' | b'-')) {
        return Err(NameError::Illegal(what, text.to_owned()));
    }
    if text.len() > max {
        return Err(NameError::TooLong(what, text.to_owned(), max));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_the_java_validator() {
        let long = "a".repeat(128);
        for (name, ok) in [
            ("T", true),
            ("", false),
            (" ", false),
            ("%RETRY%g", true),
            ("a b", false),
            ("中", false),
            (&long, false),
        ] {
            assert_eq!(Topic::new(name).check().is_ok(), ok, "{name}");
        }
        assert!(Topic::new(&format!("%RETRY%{long}")).check().is_ok());
        assert!(Group::new(&"g".repeat(120)).check().is_ok());
        assert!(Group::new(&"g".repeat(121)).check().is_err());
    }

    #[test]
    fn retry_topic_names_its_group() {
        let group = Group::new("g");
        assert_eq!(Topic::retry_of(&group).retry_group(), Some(group));
        assert_eq!(Topic::new("T").retry_group(), None);
    }
}
