//! A serde format: a flat struct <-> a list of text fields.
//!
//! Request headers (`extFields`) and .properties files have this shape. Values are text; numbers and
//! booleans are parsed from it. Nested structs and `#[serde(flatten)]` are not supported.

use std::fmt;

use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::ser::{self, Impossible, Serialize};
use serde::{Deserialize, forward_to_deserialize_any};

/// Why fields and struct do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A value is not of the type that its field has.
    #[error("{field}={value}: expected {expected}")]
    Value {
        /// The field's name.
        field: String,
        /// The text found.
        value: String,
        /// What it should have been.
        expected: String,
    },
    /// A required field is absent, or the struct cannot be written as fields.
    #[error("{0}")]
    Shape(String),
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Shape(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Shape(format!("the field {field} is missing"))
    }
}

impl ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Shape(message.to_string())
    }
}

/// How booleans are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Booleans {
    /// As Java's `Boolean.parseBoolean`: `true` in any case, everything else is false.
    Lenient,
    /// `true` or `false` in any case; everything else is an error.
    Strict,
}

/// Reads a struct from `fields`. Unknown fields are ignored.
pub fn from_fields<'a, T, I>(fields: I, booleans: Booleans) -> Result<T, Error>
where
    T: Deserialize<'a>,
    I: IntoIterator<Item = (&'a str, &'a str)>,
{
    T::deserialize(FieldsReader { fields: fields.into_iter(), booleans })
}

/// Writes a struct as fields, in the order of its declaration. `None` is left out.
pub fn to_fields<T: Serialize>(value: &T) -> Result<Vec<(&'static str, String)>, Error> {
    let mut fields = Vec::new();
    value.serialize(FieldsWriter { fields: &mut fields })?;
    Ok(fields)
}

struct FieldsReader<I> {
    fields: I,
    booleans: Booleans,
}

impl<'de, I: Iterator<Item = (&'de str, &'de str)>> de::Deserializer<'de> for FieldsReader<I> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(FieldsMap { fields: self.fields, booleans: self.booleans, current: None })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct FieldsMap<'de, I> {
    fields: I,
    booleans: Booleans,
    current: Option<(&'de str, &'de str)>,
}

impl<'de, I: Iterator<Item = (&'de str, &'de str)>> MapAccess<'de> for FieldsMap<'de, I> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.current = self.fields.next();
        match self.current {
            Some((key, _)) => seed.deserialize(de::value::BorrowedStrDeserializer::new(key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (field, text) = self.current.take().unwrap_or_default();
        seed.deserialize(ValueReader { field, text, booleans: self.booleans })
    }
}

struct ValueReader<'de> {
    field: &'de str,
    text: &'de str,
    booleans: Booleans,
}

impl ValueReader<'_> {
    fn parse<T: std::str::FromStr>(&self, expected: &str) -> Result<T, Error> {
        self.text.trim().parse().map_err(|_| self.wrong(expected))
    }

    fn wrong(&self, expected: &str) -> Error {
        Error::Value { field: self.field.into(), value: self.text.into(), expected: expected.into() }
    }
}

macro_rules! read_number {
    ($($method:ident $visit:ident $expected:literal),*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.parse($expected)?)
        })*
    };
}

impl<'de> de::Deserializer<'de> for ValueReader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.text)
    }

    read_number! {
        deserialize_i8 visit_i8 "a number of 8 bits",
        deserialize_i16 visit_i16 "a number of 16 bits",
        deserialize_i32 visit_i32 "a whole number of 32 bits",
        deserialize_i64 visit_i64 "a whole number",
        deserialize_u8 visit_u8 "a number from 0 to 255",
        deserialize_u16 visit_u16 "a number from 0 to 65535",
        deserialize_u32 visit_u32 "a whole number, 0 or more",
        deserialize_u64 visit_u64 "a whole number, 0 or more",
        deserialize_f32 visit_f32 "a number",
        deserialize_f64 visit_f64 "a number"
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = self.text.trim();
        if text.eq_ignore_ascii_case("true") {
            return visitor.visit_bool(true);
        }
        if self.booleans == Booleans::Strict && !text.eq_ignore_ascii_case("false") {
            return Err(self.wrong("true or false"));
        }
        visitor.visit_bool(false)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let text = self.text.trim();
        if !variants.contains(&text) {
            return Err(self.wrong(&format!("one of {}", variants.join(", "))));
        }
        visitor.visit_enum(IntoDeserializer::<Error>::into_deserializer(text))
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
        ignored_any
    }
}

struct FieldsWriter<'a> {
    fields: &'a mut Vec<(&'static str, String)>,
}

macro_rules! refuse {
    ($($method:ident($($arg:ty),*) -> $out:ty),* $(,)?) => {
        $(fn $method(self, $(_: $arg),*) -> Result<$out, Error> {
            Err(Error::Shape("only a struct with named fields can be written as fields".into()))
        })*
    };
}

impl<'a> ser::Serializer for FieldsWriter<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Impossible<(), Error>;
    type SerializeTuple = Impossible<(), Error>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStruct = StructWriter<'a>;
    type SerializeStructVariant = Impossible<(), Error>;

    refuse! {
        serialize_bool(bool) -> (), serialize_i8(i8) -> (), serialize_i16(i16) -> (), serialize_i32(i32) -> (),
        serialize_i64(i64) -> (), serialize_u8(u8) -> (), serialize_u16(u16) -> (), serialize_u32(u32) -> (),
        serialize_u64(u64) -> (), serialize_f32(f32) -> (), serialize_f64(f64) -> (), serialize_char(char) -> (),
        serialize_str(&str) -> (), serialize_bytes(&[u8]) -> (), serialize_none() -> (),
        serialize_unit_variant(&'static str, u32, &'static str) -> (),
        serialize_seq(Option<usize>) -> Self::SerializeSeq, serialize_tuple(usize) -> Self::SerializeTuple,
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant,
        serialize_map(Option<usize>) -> Self::SerializeMap,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant,
    }

    fn serialize_unit(self) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<StructWriter<'a>, Error> {
        self.fields.reserve(len);
        Ok(StructWriter { fields: self.fields })
    }
}

struct StructWriter<'a> {
    fields: &'a mut Vec<(&'static str, String)>,
}

impl ser::SerializeStruct for StructWriter<'_> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), Error> {
        if let Some(text) = value.serialize(TextWriter)? {
            self.fields.push((key, text));
        }
        Ok(())
    }

    fn end(self) -> Result<(), Error> {
        Ok(())
    }
}

/// Writes one value; `None` for an absent one.
struct TextWriter;

macro_rules! write_text {
    ($($method:ident $kind:ty),*) => {
        $(fn $method(self, value: $kind) -> Result<Option<String>, Error> {
            Ok(Some(value.to_string()))
        })*
    };
}

impl ser::Serializer for TextWriter {
    type Ok = Option<String>;
    type Error = Error;
    type SerializeSeq = Impossible<Self::Ok, Error>;
    type SerializeTuple = Impossible<Self::Ok, Error>;
    type SerializeTupleStruct = Impossible<Self::Ok, Error>;
    type SerializeTupleVariant = Impossible<Self::Ok, Error>;
    type SerializeMap = Impossible<Self::Ok, Error>;
    type SerializeStruct = Impossible<Self::Ok, Error>;
    type SerializeStructVariant = Impossible<Self::Ok, Error>;

    write_text! {
        serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64, serialize_f32 f32,
        serialize_f64 f64, serialize_char char, serialize_str &str
    }

    refuse! {
        serialize_bytes(&[u8]) -> Self::Ok, serialize_unit() -> Self::Ok,
        serialize_unit_struct(&'static str) -> Self::Ok,
        serialize_seq(Option<usize>) -> Self::SerializeSeq, serialize_tuple(usize) -> Self::SerializeTuple,
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant,
        serialize_map(Option<usize>) -> Self::SerializeMap,
        serialize_struct(&'static str, usize) -> Self::SerializeStruct,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant,
    }

    fn serialize_none(self) -> Result<Self::Ok, Error> {
        Ok(None)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Self::Ok, Error> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Self::Ok, Error> {
        Ok(Some(variant.into()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Self::Ok, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Self::Ok, Error> {
        value.serialize(self)
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Mode {
        #[serde(rename = "PULL")]
        Pull,
        #[serde(rename = "POP")]
        Pop,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Header {
        topic: String,
        queue_id: i32,
        #[serde(default)]
        unit_mode: bool,
        mode: Option<Mode>,
        note: Option<String>,
    }

    #[test]
    fn fields_round_trip() {
        let header =
            Header { topic: "T".into(), queue_id: -1, unit_mode: true, mode: Some(Mode::Pop), note: None };
        let fields = to_fields(&header).unwrap();
        let expected = [("topic", "T"), ("queueId", "-1"), ("unitMode", "true"), ("mode", "POP")];
        assert_eq!(fields, expected.map(|(k, v)| (k, v.to_string())));
        let borrowed = fields.iter().map(|(k, v)| (*k, v.as_str()));
        assert_eq!(from_fields::<Header, _>(borrowed, Booleans::Lenient).unwrap(), header);
    }

    #[test]
    fn wrong_values_name_their_field() {
        for (fields, message) in [
            (vec![("topic", "T"), ("queueId", "x")], "queueId=x: expected a whole number of 32 bits"),
            (vec![("topic", "T")], "the field queueId is missing"),
            (vec![("topic", "T"), ("queueId", "1"), ("mode", "?")], "mode=?: expected one of PULL, POP"),
            (
                vec![("topic", "T"), ("queueId", "1"), ("unitMode", "yes")],
                "unitMode=yes: expected true or false",
            ),
        ] {
            let error = from_fields::<Header, _>(fields, Booleans::Strict).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let fields = [("topic", "T"), ("x", "y"), ("queueId", "1"), ("unitMode", "TRUE")];
        let header: Header = from_fields(fields, Booleans::Lenient).unwrap();
        assert!(header.unit_mode);
    }
}
