//! Attributes of topics and groups, and their changes: `+key=value` sets one, `-key` takes it away.
//!
//! Source: RocketMQ `AttributeParser`, `AttributeUtil`, `TopicAttributes`, `SubscriptionGroupAttributes`.

use std::collections::{BTreeMap, BTreeSet};

use super::response::Error;

/// Attributes by name, as they are stored.
pub(super) type Attributes = BTreeMap<String, String>;

/// The type of message that a topic takes.
pub(super) const MESSAGE_TYPE: &str = "message.type";

/// An attribute that is known.
#[derive(Debug)]
pub(super) struct Attribute {
    name: &'static str,
    /// False if it can only be set while the topic or group is made.
    changeable: bool,
    values: Values,
}

#[derive(Debug)]
enum Values {
    OneOf(&'static [&'static str]),
    Number { min: i64, max: i64 },
    Boolean,
    Text,
}

impl Attribute {
    const fn new(name: &'static str, changeable: bool, values: Values) -> Self {
        Self { name, changeable, values }
    }
}

#[rustfmt::skip]
pub(super) const OF_TOPICS: [Attribute; 5] = [
    Attribute::new("queue.type", false, Values::OneOf(&["BatchCQ", "SimpleCQ"])),
    Attribute::new("cleanup.policy", false, Values::OneOf(&["DELETE", "COMPACTION"])),
    Attribute::new(MESSAGE_TYPE, true, Values::OneOf(
        &["UNSPECIFIED", "NORMAL", "FIFO", "DELAY", "TRANSACTION", "PRIORITY", "LITE", "MIXED"])),
    Attribute::new("reserve.time", true, Values::Number { min: -1, max: i64::MAX }),
    Attribute::new("lite.topic.expiration", true, Values::Number { min: -1, max: 30 * 24 * 60 }),
];

#[rustfmt::skip]
pub(super) const OF_GROUPS: [Attribute; 8] = [
    Attribute::new("priority.factor", true, Values::Number { min: 0, max: 100 }),
    Attribute::new("lite.bind.topic", true, Values::Text),
    Attribute::new("lite.sub.model", true, Values::OneOf(&["Shared", "Exclusive"])),
    Attribute::new("lite.sub.reset.offset.exclusive", true, Values::Boolean),
    Attribute::new("lite.sub.reset.offset.unsubscribe", true, Values::Boolean),
    Attribute::new("lite.sub.client.quota", true, Values::Number { min: -1, max: i64::MAX }),
    Attribute::new("lite.sub.client.max.event.cnt", true, Values::Number { min: 10, max: i64::MAX }),
    Attribute::new("lite.sub.wildcard", true, Values::Text),
];

/// Reads changes in the form `+key=value,-key`. The signs stay with the keys.
pub(super) fn parse(text: &str) -> Result<Attributes, Error> {
    let mut changes = Attributes::new();
    for change in text.trim_end_matches(',').split(',').filter(|_| !text.is_empty()) {
        let (key, value) = match change.split_once('=') {
            Some((key, value)) if key.contains('+') => (key, value),
            Some((key, _)) => return Err(wrong(format!("add/alter attribute format is wrong: {key}"))),
            None if change.contains('-') => (change, ""),
            None => return Err(wrong(format!("delete attribute format is wrong: {change}"))),
        };
        if changes.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(wrong(format!("key duplication: {key}")));
        }
    }
    Ok(changes)
}

/// Returns the attributes after `changes`; `current` is `None` while the topic or group is being made.
pub(super) fn alter(
    known: &[Attribute],
    current: Option<&Attributes>,
    changes: &Attributes,
) -> Result<Attributes, Error> {
    let mut altered = current.cloned().unwrap_or_default();
    let mut seen = BTreeSet::new();
    for (signed, value) in changes {
        let mut rest = signed.chars();
        let (sign, key) = (rest.next(), rest.as_str());
        if key.is_empty() || key.contains(['+', '-']) {
            return Err(wrong("kv string format wrong.".into()));
        }
        if !seen.insert(key) {
            return Err(wrong(format!("alter duplication key. key: {key}")));
        }
        let attribute = || {
            let attribute = known.iter().find(|attribute| attribute.name == key);
            attribute.ok_or_else(|| wrong(format!("unsupported key: {key}")))
        };
        match (sign, current) {
            (Some('+'), _) => {
                let attribute = attribute()?;
                check_changeable(attribute, current)?;
                check_value(attribute, value)?;
                altered.insert(key.to_owned(), value.clone());
            }
            (_, None) => {
                return Err(wrong(format!(
                    "only add attribute is supported while creating topic. key: {key}"
                )));
            }
            (Some('-'), Some(current)) => {
                if !current.contains_key(key) {
                    return Err(wrong(format!("attempt to delete a nonexistent key: {key}")));
                }
                check_changeable(attribute()?, Some(current))?;
                altered.remove(key);
            }
            _ => return Err(wrong(format!("wrong format key: {key}"))),
        }
    }
    Ok(altered)
}

fn check_changeable(attribute: &Attribute, current: Option<&Attributes>) -> Result<(), Error> {
    if current.is_none() || attribute.changeable {
        return Ok(());
    }
    Err(wrong(format!("attempt to update an unchangeable attribute. key: {}", attribute.name)))
}

fn check_value(attribute: &Attribute, value: &str) -> Result<(), Error> {
    match attribute.values {
        Values::OneOf(values) if !values.contains(&value) => {
            Err(wrong(format!("value is not in set: [{}]", values.join(", "))))
        }
        Values::Number { min, max } if !value.parse().is_ok_and(|number| (min..=max).contains(&number)) => {
            Err(wrong(format!("value is not in range({min}, {max})")))
        }
        Values::Boolean if !["true", "false"].iter().any(|text| text.eq_ignore_ascii_case(value)) => {
            Err(wrong("boolean attribute format is wrong.".into()))
        }
        Values::OneOf(_) | Values::Number { .. } | Values::Boolean | Values::Text => Ok(()),
    }
}

fn wrong(text: String) -> Error {
    Error::System(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Attributes {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn changes_are_read_as_java_reads_them() {
        for (text, expected) in [
            ("", Ok(of(&[]))),
            ("+message.type=FIFO", Ok(of(&[("+message.type", "FIFO")]))),
            ("+a=1,-b,+c=x=y,", Ok(of(&[("+a", "1"), ("-b", ""), ("+c", "x=y")]))),
            ("a=1", Err("add/alter attribute format is wrong: a")),
            ("-a=1", Err("add/alter attribute format is wrong: -a")),
            ("+a", Err("delete attribute format is wrong: +a")),
            ("+a=1,,-b", Err("delete attribute format is wrong: ")),
            ("+a=1,+a=2", Err("key duplication: +a")),
        ] {
            assert_eq!(parse(text).map_err(|e| e.to_string()), expected.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn attributes_change_as_far_as_they_may() {
        let current = of(&[("message.type", "FIFO"), ("queue.type", "SimpleCQ")]);
        for (current, changes, expected) in [
            (None, "+message.type=DELAY", Ok(of(&[("message.type", "DELAY")]))),
            (None, "+queue.type=BatchCQ", Ok(of(&[("queue.type", "BatchCQ")]))),
            (
                None,
                "-message.type",
                Err("only add attribute is supported while creating topic. key: message.type"),
            ),
            (
                None,
                "+message.type=ODD",
                Err(
                    "value is not in set: [UNSPECIFIED, NORMAL, FIFO, DELAY, TRANSACTION, PRIORITY, LITE, MIXED]",
                ),
            ),
            (None, "+reserve.time=-2", Err("value is not in range(-1, 9223372036854775807)")),
            (None, "+colour=red", Err("unsupported key: colour")),
            (None, "+a+b=1", Err("kv string format wrong.")),
            (Some(&current), "", Ok(current.clone())),
            (Some(&current), "-message.type", Ok(of(&[("queue.type", "SimpleCQ")]))),
            (
                Some(&current),
                "+message.type=FIFO,-message.type",
                Err("alter duplication key. key: message.type"),
            ),
            (Some(&current), "-reserve.time", Err("attempt to delete a nonexistent key: reserve.time")),
            (
                Some(&current),
                "-queue.type",
                Err("attempt to update an unchangeable attribute. key: queue.type"),
            ),
            (
                Some(&current),
                "+queue.type=BatchCQ",
                Err("attempt to update an unchangeable attribute. key: queue.type"),
            ),
        ] {
            let altered = alter(&OF_TOPICS, current, &parse(changes).unwrap());
            assert_eq!(altered.map_err(|e| e.to_string()), expected.map_err(str::to_owned), "{changes}");
        }
        let unsigned = of(&[("message.type", "FIFO")]);
        assert!(alter(&OF_TOPICS, Some(&current), &unsigned).is_err());
        let boolean = of(&[("+lite.sub.reset.offset.exclusive", "TRUE")]);
        assert!(alter(&OF_GROUPS, None, &boolean).is_ok());
    }
}
