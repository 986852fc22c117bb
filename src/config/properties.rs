//! Java's .properties text: parsed with line numbers, escaped, and rewritten in place.
//!
//! As `java.util.Properties`, except that blanks at the end of a value are not part of it, and that a lone
//! backslash at the end of the text is no item.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

const BLANKS: [char; 3] = [' ', '\t', '\u{c}'];

/// One `key=value` of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The key without escapes.
    pub key: String,
    /// The value without escapes and without blanks at its end.
    pub value: String,
    /// The natural lines that the item covers, from 0.
    lines: Range<usize>,
}

impl Item {
    /// Returns the number of the line that the item starts on, from 1.
    pub fn line(&self) -> usize {
        self.lines.start + 1
    }
}

/// A `\u` escape without four hexadecimal digits; Java refuses the whole text for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\\u without four hexadecimal digits")]
pub struct BadEscape {
    /// The line that the item starts on, from 1.
    pub line: usize,
}

/// Reads the bytes of a file: UTF-8 if they are that, else ISO-8859-1 as Java does.
pub fn decode(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.trim_start_matches('\u{feff}').to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Parses a text into its items, in order, duplicates included.
pub fn parse(text: &str) -> Result<Vec<Item>, BadEscape> {
    let lines = natural_lines(text);
    let mut items = Vec::new();
    let mut next = 0;
    while let Some(line) = lines.get(next) {
        let first = next;
        next += 1;
        let mut piece = content(line);
        // A line with nothing but its continuation mark is blank to Java: a comment may follow it.
        if piece.is_empty() || piece == "\\" || piece.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = String::new();
        while ends_with_continuation(piece) {
            logical.push_str(&piece[..piece.len() - 1]);
            piece = lines.get(next).map_or("", |line| content(line));
            next = (next + 1).min(lines.len());
        }
        logical.push_str(piece);
        let (key, value) = split(&logical);
        let bad = |_| BadEscape { line: first + 1 };
        items.push(Item {
            key: unescape(key).map_err(bad)?,
            value: unescape(trim_end(value)).map_err(bad)?,
            lines: first..next,
        });
    }
    Ok(items)
}

/// Writes `key=value` so that [`parse`] and Java's reader yield the same pair. ASCII only.
pub fn escape(key: &str, value: &str) -> String {
    let mut line = String::with_capacity(key.len() + value.len() + 1);
    escape_into(&mut line, key, true);
    line.push('=');
    escape_into(&mut line, value, false);
    line
}

/// Changes values in a text and keeps its comments, its order and its line ends. Keys that it does not have
/// are added at the end; of duplicates the last, which is the one in force, is changed.
pub fn rewrite(text: &str, changes: &BTreeMap<String, String>) -> Result<String, BadEscape> {
    let lines = natural_lines(text);
    let items = parse(text)?;
    let mut replaced: BTreeMap<usize, (&Item, String)> = BTreeMap::new();
    let mut added = Vec::new();
    for (key, value) in changes {
        match items.iter().rev().find(|item| item.key == *key) {
            Some(item) => {
                replaced.insert(item.lines.start, (item, escape(key, value)));
            }
            None => added.push(escape(key, value)),
        }
    }
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(line) = lines.get(at) {
        match replaced.get(&at) {
            Some((item, text)) => {
                let last = lines.get(item.lines.end - 1).copied().unwrap_or_default();
                out.push_str(text);
                out.push_str(&last[last.trim_end_matches(['\r', '\n']).len()..]);
                at = item.lines.end;
            }
            None => {
                out.push_str(line);
                at += 1;
            }
        }
    }
    for line in added {
        if !out.is_empty() && !out.ends_with(['\r', '\n']) {
            out.push('\n');
        }
        out.push_str(&line);
        out.push('\n');
    }
    Ok(out)
}

/// Splits after `\n`, `\r` and `\r\n`; the line ends stay with their lines.
fn natural_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\r', '\n']) {
        let end = if rest[at..].starts_with("\r\n") { at + 2 } else { at + 1 };
        lines.push(&rest[..end]);
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(rest);
    }
    lines
}

fn content(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n']).trim_start_matches(BLANKS)
}

fn ends_with_continuation(piece: &str) -> bool {
    backslashes_before_end(piece) % 2 == 1
}

fn backslashes_before_end(text: &str) -> usize {
    text.len() - text.trim_end_matches('\\').len()
}

fn split(logical: &str) -> (&str, &str) {
    let mut escaped = false;
    let end = logical.find(|c| {
        let stops = !escaped && (BLANKS.contains(&c) || c == '=' || c == ':');
        escaped = !escaped && c == '\\';
        stops
    });
    let (key, rest) = logical.split_at(end.unwrap_or(logical.len()));
    let rest = rest.trim_start_matches(BLANKS);
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (key, value.trim_start_matches(BLANKS))
}

/// Cuts blanks off the end, but not one that is escaped.
fn trim_end(value: &str) -> &str {
    let trimmed = value.trim_end_matches(BLANKS);
    if trimmed.len() < value.len() && ends_with_continuation(trimmed) {
        return &value[..trimmed.len() + 1];
    }
    trimmed
}

fn unescape(text: &str) -> Result<String, ()> {
    let mut units: Vec<u16> = Vec::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let plain = match c {
            '\\' => match rest.next() {
                Some('u') => {
                    let digits = rest.as_str().get(..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
                    let digits = digits.ok_or(())?;
                    units.push(u16::from_str_radix(digits, 16).map_err(|_| ())?);
                    rest = rest.as_str()[4..].chars();
                    continue;
                }
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some(other) => other,
                None => break,
            },
            other => other,
        };
        flush(&mut units, &mut out);
        out.push(plain);
    }
    flush(&mut units, &mut out);
    Ok(out)
}

/// Neighbouring `\u` escapes are UTF-16; half of a pair becomes U+FFFD.
fn flush(units: &mut Vec<u16>, out: &mut String) {
    out.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
}

fn escape_into(out: &mut String, text: &str, is_key: bool) {
    for (at, c) in text.char_indices() {
        let last = at + c.len_utf8() == text.len();
        match c {
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\u{c}' => out.push_str("\\f"),
            ' ' if is_key || at == 0 || last => out.push_str("\\ "),
            ' ' => out.push(' '),
            '\\' => out.push_str("\\\\"),
            '=' | ':' if is_key || at == 0 => out.extend(['\\', c]),
            '#' | '!' if is_key && at == 0 => out.extend(['\\', c]),
            c if c.is_ascii_graphic() => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04X}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap().into_iter().map(|item| (item.key, item.value)).collect()
    }

    #[test]
    fn texts_are_read_as_java_reads_them() {
        // Printed by java.util.Properties of OpenJDK 17.
        let cases: &[(&str, &[(&str, &str)])] = &[
            ("a=b", &[("a", "b")]),
            ("a = b", &[("a", "b")]),
            ("a:b", &[("a", "b")]),
            ("a b", &[("a", "b")]),
            ("a\tb", &[("a", "b")]),
            ("a", &[("a", "")]),
            ("a=", &[("a", "")]),
            ("=b", &[("", "b")]),
            ("  a  =  b", &[("a", "b")]),
            ("a=b=c", &[("a", "b=c")]),
            ("a==b", &[("a", "=b")]),
            ("a: =b", &[("a", "=b")]),
            ("# c\na=1\n! d\nb=2", &[("a", "1"), ("b", "2")]),
            ("a=1\\\n  2", &[("a", "12")]),
            ("a=1\\\\\nb=2", &[("a", "1\\"), ("b", "2")]),
            ("a=\\\n\nb=2", &[("a", ""), ("b", "2")]),
            ("a=x\\\r\n   y\r\nb=2", &[("a", "xy"), ("b", "2")]),
            ("a\\ b=c", &[("a b", "c")]),
            ("a\\=b=c", &[("a=b", "c")]),
            ("a\\:b:c", &[("a:b", "c")]),
            ("a=\\u0041\\u00e9", &[("a", "A\u{e9}")]),
            ("a=\\t\\n\\r\\f\\\\\\q", &[("a", "\t\n\r\u{c}\\q")]),
            ("a=1\\", &[("a", "1")]),
            ("\\\n#x=1", &[]),
            ("a=1\rb=2", &[("a", "1"), ("b", "2")]),
            ("\u{c} a=1", &[("a", "1")]),
            ("k\\\nl=v", &[("kl", "v")]),
            ("a=\\ b", &[("a", " b")]),
            ("a=#b", &[("a", "#b")]),
            ("\\#a=1", &[("#a", "1")]),
            ("a=caf\u{e9}", &[("a", "caf\u{e9}")]),
            ("a=1\\\n# no comment", &[("a", "1# no comment")]),
        ];
        for (text, expected) in cases {
            let expected: Vec<_> = expected.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            assert_eq!(pairs(text), expected, "{text:?}");
        }
    }

    #[test]
    fn blanks_after_a_value_are_cut_unlike_java() {
        assert_eq!(pairs("a=b \t\nc=d\\ "), [("a".into(), "b".into()), ("c".into(), "d ".into())]);
    }

    #[test]
    fn bad_unicode_escapes_name_their_line() {
        for text in ["x=1\na=\\u12", "x=1\na=\\uxyzw", "x=1\n\\u1=a", "x=1\na=\\u00\u{e9}9"] {
            assert_eq!(parse(text), Err(BadEscape { line: 2 }), "{text:?}");
        }
    }

    #[test]
    fn items_know_their_lines() {
        let items = parse("# c\na=1\\\n 2\n\nb=3").unwrap();
        let lines: Vec<_> = items.iter().map(Item::line).collect();
        assert_eq!(lines, [2, 5]);
    }

    #[test]
    fn a_rewrite_keeps_what_it_does_not_change() {
        let text = "# the port\r\nlistenPort = 1\r\na=x\\\r\n  y\r\nlistenPort=2\r\n! end";
        let changes = [("listenPort", "3"), ("a", "z"), ("new", "caf\u{e9} ")];
        let changes = changes.map(|(k, v)| (k.to_string(), v.to_string())).into();
        let expected = "# the port\r\nlistenPort = 1\r\na=z\r\nlistenPort=3\r\n! end\nnew=caf\\u00E9\\ \n";
        assert_eq!(rewrite(text, &changes).unwrap(), expected);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_latin1() {
        assert_eq!(decode(b"a=caf\xe9"), "a=caf\u{e9}");
        assert_eq!(decode("\u{feff}a=caf\u{e9}".as_bytes()), "a=caf\u{e9}");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "[ab=:#!\\\\ \t\r\nu0-9\u{e9}]{0,60}|\\PC*") {
            if let Ok(items) = parse(&text) {
                let changes: BTreeMap<_, _> = items.into_iter().map(|item| (item.key, "new".into())).collect();
                let rewritten = rewrite(&text, &changes).unwrap();
                for (key, value) in &changes {
                    let last = parse(&rewritten).unwrap().into_iter().rfind(|item| item.key == *key);
                    prop_assert_eq!(last.map(|item| item.value), Some(value.clone()));
                }
            }
        }

        #[test]
        fn escaped_pairs_are_read_back(key in "\\PC*|[ \\\\=:#!a\t\n\r\u{c}]*", value in "\\PC*|[ \\\\=:#!a\t\n\r\u{c}]*") {
            let line = escape(&key, &value);
            prop_assert!(line.is_ascii());
            prop_assert_eq!(pairs(&line), [(key, value)]);
        }
    }
}
