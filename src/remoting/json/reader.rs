//! The reading half: a serde `Deserializer` that is as lenient as fastjson.

use std::borrow::Cow;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::scanner::{DEPTH_MAX, Fault, Scanner};

/// Why a document could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not JSON.
    #[error("{0}")]
    Syntax(#[from] Fault),
    /// It is JSON, but not what was asked for.
    #[error("{0}")]
    Shape(String),
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Shape(message.to_string())
    }
}

type Result<T> = std::result::Result<T, Error>;

/// Reads a whole document.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T> {
    let mut reader = Reader { scanner: Scanner::new(text), depth: 0 };
    let value = T::deserialize(&mut reader)?;
    if !reader.scanner.at_end() {
        return Err(reader.scanner.unexpected("the end of the document").into());
    }
    Ok(value)
}

struct Reader<'a> {
    scanner: Scanner<'a>,
    depth: u32,
}

impl<'a> Reader<'a> {
    /// Takes a scalar: a text in quotes or a bare word.
    fn scalar(&mut self) -> Result<Cow<'a, str>> {
        if self.scanner.is_string() {
            return Ok(self.scanner.string()?);
        }
        Ok(Cow::Borrowed(self.scanner.word()?))
    }

    /// True if the next value is `null`; takes it.
    fn take_null(&mut self) -> bool {
        if self.scanner.peek() != Some(b'n') {
            return false;
        }
        let mut ahead = self.scanner.clone();
        let found = ahead.word() == Ok("null");
        if found {
            self.scanner = ahead;
        }
        found
    }

    fn integer(&mut self) -> Result<i128> {
        let text = self.scalar()?;
        integer(&text).ok_or_else(|| Error::Shape(format!("{text} is not a whole number")))
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX { Err(Fault::Depth.into()) } else { Ok(()) }
    }

    fn array<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        self.scanner.expect(b'[', "an array")?;
        self.enter()?;
        let value = visitor.visit_seq(Elements { reader: self })?;
        self.scanner.skip_commas();
        self.scanner.expect(b']', "the end of an array")?;
        self.depth -= 1;
        Ok(value)
    }

    fn object<'de, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value> {
        self.scanner.expect(b'{', "an object")?;
        self.enter()?;
        let value = visitor.visit_map(Members { reader: self })?;
        self.scanner.skip_commas();
        self.scanner.expect(b'}', "the end of an object")?;
        self.depth -= 1;
        Ok(value)
    }
}

/// Reads a whole number the way fastjson casts to one.
fn integer(text: &str) -> Option<i128> {
    match text.trim() {
        "" | "null" | "false" => Some(0),
        "true" => Some(1),
        number => match number.strip_suffix('L').unwrap_or(number).parse() {
            Ok(integer) => Some(integer),
            // A fraction is cut off. Numbers that a double does not hold exactly do not come in this form.
            Err(_) => {
                number.parse::<f64>().ok().filter(|n| n.is_finite() && n.abs() < 9e15).map(|n| n as i128)
            }
        },
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.trim() {
        "" | "0" | "null" | "N" | "F" => Some(false),
        "1" | "Y" | "T" => Some(true),
        word if word.eq_ignore_ascii_case("true") => Some(true),
        word if word.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

macro_rules! read_numbers {
    ($($method:ident $kind:ty, $visit:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            let number = self.integer()?;
            match <$kind>::try_from(number) {
                Ok(number) => visitor.$visit(number),
                Err(_) => Err(Error::Shape(format!("{number} does not fit into {}", stringify!($kind)))),
            }
        })*
    };
}

impl<'de> de::Deserializer<'de> for &mut Reader<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.scanner.peek() {
            Some(b'{') => return self.object(visitor),
            Some(b'[') => return self.array(visitor),
            _ => {}
        }
        if self.scanner.is_string() {
            return visitor.visit_str(&self.scanner.string()?);
        }
        let word = self.scanner.word()?;
        match word {
            "null" => visitor.visit_unit(),
            "true" => visitor.visit_bool(true),
            "false" => visitor.visit_bool(false),
            _ => match (word.parse::<i64>(), word.parse::<f64>()) {
                (Ok(number), _) => visitor.visit_i64(number),
                (_, Ok(number)) => visitor.visit_f64(number),
                _ => visitor.visit_str(word),
            },
        }
    }

    read_numbers! {
        deserialize_i8 i8, visit_i8, deserialize_i16 i16, visit_i16, deserialize_i32 i32, visit_i32,
        deserialize_i64 i64, visit_i64, deserialize_u8 u8, visit_u8, deserialize_u16 u16, visit_u16,
        deserialize_u32 u32, visit_u32, deserialize_u64 u64, visit_u64
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let text = self.scalar()?;
        match boolean(&text) {
            Some(value) => visitor.visit_bool(value),
            None => Err(Error::Shape(format!("{text} is neither true nor false"))),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let text = self.scalar()?;
        match text.trim() {
            "" | "null" => visitor.visit_f64(0.0),
            number => match number.parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(Error::Shape(format!("{number} is not a number"))),
            },
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.scanner.peek() {
            // fastjson puts the text of an object into a field that is a text.
            Some(b'{' | b'[') => visitor.visit_str(self.scanner.skip_value(self.depth)?),
            _ => visitor.visit_str(&self.scalar()?),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        if self.take_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.array(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value> {
        self.array(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.array(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.object(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.object(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let name = self.scalar()?;
        let name: StrDeserializer<'_, Error> = name.as_ref().into_deserializer();
        visitor.visit_enum(name)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.scanner.skip_value(self.depth)?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { bytes byte_buf unit unit_struct }
}

struct Elements<'r, 'a> {
    reader: &'r mut Reader<'a>,
}

impl<'de> de::SeqAccess<'de> for Elements<'_, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        self.reader.scanner.skip_commas();
        if self.reader.scanner.peek() == Some(b']') {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

struct Members<'r, 'a> {
    reader: &'r mut Reader<'a>,
}

impl Members<'_, '_> {
    /// Skips members whose value is `null`.
    fn skip_nulls(&mut self) -> Result<()> {
        loop {
            self.reader.scanner.skip_commas();
            if self.reader.scanner.peek() == Some(b'}') {
                return Ok(());
            }
            let mut ahead = self.reader.scanner.clone();
            ahead.skip_value(self.reader.depth)?;
            ahead.expect(b':', "a colon")?;
            if ahead.peek() != Some(b'n') || ahead.word() != Ok("null") {
                return Ok(());
            }
            self.reader.scanner = ahead;
        }
    }
}

impl<'de> de::MapAccess<'de> for Members<'_, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        self.skip_nulls()?;
        if self.reader.scanner.peek() == Some(b'}') {
            return Ok(None);
        }
        seed.deserialize(KeyReader { reader: self.reader }).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        self.reader.scanner.expect(b':', "a colon")?;
        seed.deserialize(&mut *self.reader)
    }
}

/// Reads a key: as any value, but a struct may also stand in quotes, as fastjson 1 writes it in standard JSON.
struct KeyReader<'r, 'a> {
    reader: &'r mut Reader<'a>,
}

macro_rules! forward_keys {
    ($($method:ident),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            self.reader.$method(visitor)
        })*
    };
}

impl<'de> de::Deserializer<'de> for KeyReader<'_, '_> {
    type Error = Error;

    forward_keys! {
        deserialize_any, deserialize_bool, deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64,
        deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64,
        deserialize_f32, deserialize_f64, deserialize_char, deserialize_str, deserialize_string,
        deserialize_identifier, deserialize_option, deserialize_seq, deserialize_map, deserialize_ignored_any
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        if !self.reader.scanner.is_string() {
            return self.reader.object(visitor);
        }
        let text = self.reader.scanner.string()?;
        let mut reader = Reader { scanner: Scanner::new(&text), depth: self.reader.depth };
        reader.object(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.reader.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! { bytes byte_buf unit unit_struct tuple tuple_struct }
}
