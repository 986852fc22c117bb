//! Cuts JSON text into tokens. Shared by the reader of bodies and the reader of frame headers.

use std::borrow::Cow;

use super::plain::before_quote;

/// Why a text is not JSON, even by fastjson's standards.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The text ends within a value.
    #[error("the text ends too early")]
    End,
    /// Something else should stand at this byte.
    #[error("expected {expected} at byte {at}")]
    Unexpected {
        /// What should stand there.
        expected: &'static str,
        /// Where, in bytes from the start.
        at: usize,
    },
    /// Values are nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX}")]
    Depth,
}

/// How deep values may be nested: far more than any body has, and far less than the stack bears.
pub(super) const DEPTH_MAX: u32 = 64;

/// A position in a text.
#[derive(Debug, Clone)]
pub(in crate::remoting) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(in crate::remoting) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Skips blanks and returns the next byte without taking it.
    pub(in crate::remoting) fn peek(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let blanks =
            rest.iter().take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n' | 0x08 | 0x0c)).count();
        self.at += blanks;
        rest.get(blanks).copied()
    }

    /// Takes `byte` if it is next.
    pub(in crate::remoting) fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    /// Takes `byte` or fails.
    pub(in crate::remoting) fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Fault> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// Takes all commas that are next; fastjson tolerates surplus ones.
    pub(super) fn skip_commas(&mut self) {
        while self.take(b',') {}
    }

    pub(super) fn unexpected(&self, expected: &'static str) -> Fault {
        if self.at >= self.text.len() { Fault::End } else { Fault::Unexpected { expected, at: self.at } }
    }

    /// True if the next token is a text in quotes of either kind.
    pub(in crate::remoting) fn is_string(&mut self) -> bool {
        matches!(self.peek(), Some(b'"' | b'\''))
    }

    /// Takes a text in quotes.
    pub(in crate::remoting) fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let quote = match self.peek() {
            Some(quote @ (b'"' | b'\'')) => quote,
            _ => return Err(self.unexpected("a text in quotes")),
        };
        let start = self.at + 1;
        let length = self.plain_length(start, quote);
        let plain = self.text.get(start..start + length).ok_or(Fault::End)?;
        self.at = start + length;
        if self.text.as_bytes().get(self.at) == Some(&quote) {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        self.escaped_string(plain, quote).map(Cow::Owned)
    }

    /// Returns the number of bytes from `start` to the next `quote` or backslash, or to the end.
    fn plain_length(&self, start: usize, quote: u8) -> usize {
        self.text.as_bytes().get(start..).map_or(0, |rest| before_quote(rest, quote))
    }

    fn escaped_string(&mut self, plain: &str, quote: u8) -> Result<String, Fault> {
        let mut out = String::with_capacity(plain.len() + 32);
        out.push_str(plain);
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                Some(_) => {
                    self.at += 1;
                    return Ok(out);
                }
                None => return Err(Fault::End),
            }
            let length = self.plain_length(self.at, quote);
            out.push_str(self.text.get(self.at..self.at + length).ok_or(Fault::End)?);
            self.at += length;
        }
    }

    /// Takes what follows a backslash.
    fn escape(&mut self, out: &mut String) -> Result<(), Fault> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let next = rest.chars().next().ok_or(Fault::End)?;
        self.at += next.len_utf8();
        match next {
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            '0' => out.push('\0'),
            'u' => {
                let unit = self.hex(4)?;
                self.utf16(unit, out)?;
            }
            'x' => {
                let unit = self.hex(2)?;
                out.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            other => out.push(other),
        }
        Ok(())
    }

    /// Adds a UTF-16 unit, with its second half if it is the first of a pair. A lone half cannot be represented.
    fn utf16(&mut self, unit: u32, out: &mut String) -> Result<(), Fault> {
        let mut code = unit;
        if (0xd800..0xdc00).contains(&unit) && self.text.as_bytes().get(self.at..self.at + 2) == Some(br"\u")
        {
            let before = self.at;
            self.at += 2;
            let low = self.hex(4)?;
            if (0xdc00..0xe000).contains(&low) {
                code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            } else {
                self.at = before;
            }
        }
        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        Ok(())
    }

    fn hex(&mut self, digits: usize) -> Result<u32, Fault> {
        let text = self.text.get(self.at..self.at + digits).ok_or_else(|| self.unexpected("hex digits"))?;
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(self.unexpected("hex digits"));
        }
        self.at += digits;
        u32::from_str_radix(text, 16).map_err(|_| Fault::End)
    }

    /// Takes a bare word: a number, `true`, `false`, `null`, or a key without quotes.
    pub(in crate::remoting) fn word(&mut self) -> Result<&'a str, Fault> {
        self.peek();
        let rest = self.text.get(self.at..).unwrap_or_default();
        let length = rest
            .bytes()
            .take_while(|b| {
                b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.' | b'_' | b'$') || *b >= 0x80
            })
            .count();
        let word = rest.get(..length).unwrap_or_default();
        if word.is_empty() {
            return Err(self.unexpected("a value"));
        }
        self.at += length;
        Ok(word)
    }

    /// Takes any value as a text; `None` for `null`. Objects and arrays come as their JSON.
    pub(in crate::remoting) fn text_value(&mut self) -> Result<Option<Cow<'a, str>>, Fault> {
        match self.peek() {
            Some(b'"' | b'\'') => self.string().map(Some),
            Some(b'{' | b'[') => self.skip_value(0).map(|text| Some(Cow::Borrowed(text))),
            _ => self.word().map(|word| if word == "null" { None } else { Some(Cow::Borrowed(word)) }),
        }
    }

    /// Takes any value and returns its text. Does not recurse.
    pub(in crate::remoting) fn skip_value(&mut self, depth: u32) -> Result<&'a str, Fault> {
        self.peek();
        let start = self.at;
        let mut open = 0;
        loop {
            match self.peek() {
                Some(b'{' | b'[') => {
                    self.at += 1;
                    open += 1;
                    if depth + open > DEPTH_MAX {
                        return Err(Fault::Depth);
                    }
                }
                Some(b'}' | b']') if open > 0 => {
                    self.at += 1;
                    open -= 1;
                }
                Some(b',' | b':') if open > 0 => self.at += 1,
                Some(b'"' | b'\'') => {
                    self.string()?;
                }
                _ => {
                    self.word()?;
                }
            }
            if open == 0 {
                return Ok(self.text.get(start..self.at).unwrap_or_default());
            }
        }
    }

    /// True if nothing but blanks is left.
    pub(super) fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }
}
