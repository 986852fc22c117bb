//! The text fields of a header (`extFields`).

use std::fmt;

/// Named text values in the order in which they came.
///
/// All texts lie in one buffer: a send request has fourteen fields, and an allocation for each key and value
/// would cost more than parsing the header. A value that is replaced leaves its old text in the buffer.
#[derive(Clone, Default)]
pub struct ExtFields {
    text: String,
    entries: Vec<Entry>,
}

/// A key and, right behind it, its value.
#[derive(Clone, Copy)]
struct Entry {
    key: usize,
    value: usize,
    end: usize,
}

impl ExtFields {
    /// Returns no fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns no fields, with room for `count` fields of `bytes` in all.
    pub(super) fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), entries: Vec::with_capacity(count) }
    }

    /// Returns the value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.entries.iter().rev().find(|entry| self.key(entry) == key).map(|entry| self.value(entry))
    }

    /// True if `key` is there and reads `true` in any case, as Java's `Boolean.parseBoolean` has it.
    pub fn is_true(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Sets `key`, which keeps its place if it is there.
    pub fn set(&mut self, key: &str, value: &str) {
        let entry = self.push_text(key, value);
        match self.entries.iter().position(|old| self.key(old) == key) {
            Some(at) => {
                if let Some(old) = self.entries.get_mut(at) {
                    *old = entry;
                }
            }
            None => self.entries.push(entry),
        }
    }

    /// Removes `key`; true if it was there.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.entries.len();
        let text = &self.text;
        self.entries.retain(|entry| text.get(entry.key..entry.value) != Some(key));
        self.entries.len() != before
    }

    /// Returns keys and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.entries.iter().map(|entry| (self.key(entry), self.value(entry)))
    }

    /// Returns the number of fields.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is no field.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a field without looking whether the key is there; the last one of a key is the one that counts.
    pub(super) fn push(&mut self, key: &str, value: &str) {
        let entry = self.push_text(key, value);
        self.entries.push(entry);
    }

    /// Returns the bytes of all keys and values that the fields hold or held.
    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    fn push_text(&mut self, key: &str, value: &str) -> Entry {
        let start = self.text.len();
        self.text.push_str(key);
        let middle = self.text.len();
        self.text.push_str(value);
        Entry { key: start, value: middle, end: self.text.len() }
    }

    fn key(&self, entry: &Entry) -> &str {
        self.text.get(entry.key..entry.value).unwrap_or_default()
    }

    fn value(&self, entry: &Entry) -> &str {
        self.text.get(entry.value..entry.end).unwrap_or_default()
    }
}

impl PartialEq for ExtFields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ExtFields {}

impl fmt::Debug for ExtFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for ExtFields {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(fields: I) -> Self {
        let mut all = Self::new();
        for (key, value) in fields {
            all.set(key, value);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_and_the_last_value() {
        let mut fields = ExtFields::from_iter([("b", "1"), ("a", "2"), ("b", "3")]);
        assert_eq!(fields.iter().collect::<Vec<_>>(), [("b", "3"), ("a", "2")]);
        assert_eq!(fields.get("b"), Some("3"));
        assert_eq!(fields.get("c"), None);
        assert!(fields.remove("b"));
        assert!(!fields.remove("b"));
        assert_eq!(format!("{fields:?}"), r#"{"a": "2"}"#);
    }

    #[test]
    fn only_true_is_true() {
        let fields = ExtFields::from_iter([("a", "TRUE"), ("b", "1"), ("c", "false")]);
        assert_eq!(["a", "b", "c", "d"].map(|key| fields.is_true(key)), [true, false, false, false]);
    }
}
