//! JSON in the dialect of Alibaba's fastjson, which RocketMQ uses for bodies and configuration files.
//!
//! Written: compact, members in the order of declaration, absent ones (`None`) left out, map keys that are numbers
//! bare (`{0:"a"}`), map keys that are structs inline (`{{"queueId":1}:5}`). [`Style`] has the two other forms.
//!
//! Read, leniently as fastjson: bare and quoted numbers as keys, inline and quoted objects as keys, single quotes,
//! surplus commas, numbers and booleans in quotes and the reverse, members nobody asked for.
//! **A member that is `null` counts as absent**, so it takes its field's default; fastjson would store null, but then
//! every reader of a body would have to think of it.

mod plain;
mod reader;
mod scanner;
mod writer;

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use reader::Error;
pub(super) use scanner::{Fault, Scanner};
pub use writer::Style;
pub(super) use writer::push_string;

#[cfg(test)]
mod tests;

/// Writes `value` as fastjson does by default.
pub fn to_vec<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    to_vec_styled(value, Style::Compact)
}

/// Writes `value` in a style of choice.
pub fn to_vec_styled<T: Serialize + ?Sized>(value: &T, style: Style) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    writer::write(value, style, &mut out).expect("the Serialize impls of bodies do not fail");
    out
}

/// Reads a document. Bytes that are not UTF-8 are replaced, as Java does.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    from_str(&to_text(bytes))
}

/// Takes bytes as text; what is not UTF-8 is replaced. Quicker than the library's lossy conversion for text that is.
pub(super) fn to_text(bytes: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// Reads a document.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    reader::read(text)
}
