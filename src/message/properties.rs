//! The property string: `name \u{1} value \u{2}`, repeated. Source: RocketMQ `MessageDecoder`.

use std::borrow::Cow;

/// Names of properties. Source: RocketMQ `MessageConst`.
pub mod key {
    /// Index keys, separated by blanks.
    pub const KEYS: &str = "KEYS";
    /// The tag.
    pub const TAGS: &str = "TAGS";
    /// The id that the client gave the message.
    pub const UNIQ_KEY: &str = "UNIQ_KEY";
    /// `false`: the producer does not wait for flush or replicas.
    pub const WAIT: &str = "WAIT";
    /// Delay level, 1 to 18.
    pub const DELAY: &str = "DELAY";
    /// Delay in seconds.
    pub const TIMER_DELAY_SEC: &str = "TIMER_DELAY_SEC";
    /// Delay in milliseconds.
    pub const TIMER_DELAY_MS: &str = "TIMER_DELAY_MS";
    /// Time of delivery, milliseconds since 1970.
    pub const TIMER_DELIVER_MS: &str = "TIMER_DELIVER_MS";
    /// The topic that a parked message is for.
    pub const REAL_TOPIC: &str = "REAL_TOPIC";
    /// The queue that a parked message is for.
    pub const REAL_QID: &str = "REAL_QID";
    /// The topic that a retried message was first sent to.
    pub const RETRY_TOPIC: &str = "RETRY_TOPIC";
    /// Offset message id of the first copy.
    pub const ORIGIN_MESSAGE_ID: &str = "ORIGIN_MESSAGE_ID";
    /// Time of delivery of a delayed message, as Aliyun's clients name it.
    pub const START_DELIVER_TIME: &str = "__STARTDELIVERTIME";
    /// What keeps messages of an ordered topic together.
    pub const SHARDING_KEY: &str = "__SHARDINGKEY";
    /// `true` on half messages.
    pub const TRAN_MSG: &str = "TRAN_MSG";
    /// The producer group.
    pub const PGROUP: &str = "PGROUP";
    /// The broker's cluster.
    pub const CLUSTER: &str = "CLUSTER";
    /// Receipt handle; never taken from a producer.
    pub const POP_CK: &str = "POP_CK";
    /// Region of the broker, in send responses.
    pub const MSG_REGION: &str = "MSG_REGION";
    /// Whether clients shall trace, in send responses.
    pub const TRACE_ON: &str = "TRACE_ON";
    /// Sub-queues that a message goes to.
    pub const INNER_MULTI_DISPATCH: &str = "INNER_MULTI_DISPATCH";
    /// Client id of who asked and waits for a reply.
    pub const REPLY_TO_CLIENT: &str = "REPLY_TO_CLIENT";
    /// When the broker handed a reply on, in milliseconds since 1970.
    pub const PUSH_REPLY_TIME: &str = "PUSH_REPLY_TIME";
    /// Redeliveries allowed, carried as a property.
    pub const MAX_RECONSUME_TIMES: &str = "MAX_RECONSUME_TIMES";
}

const VALUE: char = '\u{1}';
const NEXT: char = '\u{2}';

/// A property string that is being read.
#[derive(Debug, Default, Clone, Copy)]
pub struct PropertiesRef<'a>(pub &'a str);

impl<'a> PropertiesRef<'a> {
    /// Goes through names and values. As in Java, entries of fewer than three characters and those with an
    /// empty name or value are left out.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.split(NEXT).filter_map(|entry| {
            let (name, value) = entry.split_once(VALUE)?;
            (!name.is_empty() && !value.is_empty()).then_some((name, value))
        })
    }

    /// Returns the value of `name`; the last one if there are several, as Java's map has it.
    pub fn get(self, name: &str) -> Option<&'a str> {
        self.iter().filter(|(n, _)| *n == name).last().map(|(_, value)| value)
    }
}

/// A property string that is being changed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Properties<'a>(Cow<'a, str>);

impl<'a> Properties<'a> {
    /// Takes a property string as a client sent it.
    pub fn new(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// Returns the string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        PropertiesRef(&self.0).get(name)
    }

    /// Ends the last entry, as brokers do before they store a message: see [`super::scan`].
    #[must_use]
    pub fn terminated(mut self) -> Self {
        if !self.0.is_empty() && !self.0.ends_with(NEXT) {
            self.0.to_mut().push(NEXT);
        }
        self
    }

    /// Sets a property. Control characters that would end the entry are left out of `value`.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        let text = self.0.to_mut();
        if !text.is_empty() && !text.ends_with(NEXT) {
            text.push(NEXT);
        }
        text.push_str(name);
        text.push(VALUE);
        text.extend(value.chars().filter(|c| !matches!(*c, VALUE | NEXT)));
        text.push(NEXT);
    }

    /// Removes a property, if it is there.
    pub fn remove(&mut self, name: &str) {
        if self.get(name).is_none() {
            return;
        }
        let mut kept = String::with_capacity(self.0.len());
        for (n, value) in PropertiesRef(&self.0).iter().filter(|(n, _)| *n != name) {
            kept.push_str(n);
            kept.push(VALUE);
            kept.push_str(value);
            kept.push(NEXT);
        }
        self.0 = Cow::Owned(kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_the_end_are_read() {
        for text in
            ["a\u{1}1\u{2}b\u{1}2", "a\u{1}1\u{2}b\u{1}2\u{2}", "\u{2}a\u{1}1\u{2}x\u{2}c\u{1}\u{2}b\u{1}2"]
        {
            let all: Vec<_> = PropertiesRef(text).iter().collect();
            assert_eq!(all, [("a", "1"), ("b", "2")], "{text:?}");
        }
    }

    #[test]
    fn set_replaces_and_remove_takes_away() {
        let mut properties = Properties::new("a\u{1}1\u{2}b\u{1}2");
        properties.set("c", "3");
        assert_eq!(properties.as_str(), "a\u{1}1\u{2}b\u{1}2\u{2}c\u{1}3\u{2}");
        properties.set("a", "9\u{2}");
        assert_eq!(properties.as_str(), "b\u{1}2\u{2}c\u{1}3\u{2}a\u{1}9\u{2}");
        properties.remove("c");
        properties.remove("x");
        assert_eq!(properties.as_str(), "b\u{1}2\u{2}a\u{1}9\u{2}");
    }
}
