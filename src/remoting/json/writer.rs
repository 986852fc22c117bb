//! The writing half: a serde `Serializer`.

use std::fmt;
use std::io::Write;

use serde::ser::{self, Impossible, Serialize};

use super::plain::before_escape;

/// How a document looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// As fastjson by default: no blanks, numbers as keys are bare.
    Compact,
    /// As Java's name server answers newer clients: no blanks, every key but an object's is quoted, all that is not
    /// ASCII is escaped.
    Standard,
    /// As Java's `ConfigManager` writes its files: one member a line, indented by tabs, numbers as keys are bare.
    Pretty,
}

/// A `Serialize` impl reported an error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct WriteError(String);

impl ser::Error for WriteError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Appends `value` to `out`.
pub(super) fn write<T: Serialize + ?Sized>(
    value: &T,
    style: Style,
    out: &mut Vec<u8>,
) -> Result<(), WriteError> {
    value.serialize(&mut Writer { out, style, depth: 0 })
}

/// Appends `text` in quotes.
pub(in crate::remoting) fn push_string(out: &mut Vec<u8>, text: &str, ascii_only: bool) {
    out.push(b'"');
    let mut rest = text;
    loop {
        let (plain, special) = rest.split_at(before_escape(rest.as_bytes(), ascii_only));
        out.extend_from_slice(plain.as_bytes());
        let mut chars = special.chars();
        match chars.next() {
            None => break,
            Some('"') => out.extend_from_slice(br#"\""#),
            Some('\\') => out.extend_from_slice(br"\\"),
            Some('\n') => out.extend_from_slice(br"\n"),
            Some('\r') => out.extend_from_slice(br"\r"),
            Some('\t') => out.extend_from_slice(br"\t"),
            Some('\u{8}') => out.extend_from_slice(br"\b"),
            Some('\u{c}') => out.extend_from_slice(br"\f"),
            Some(other) => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    push_unit(out, *unit);
                }
            }
        }
        rest = chars.as_str();
    }
    out.push(b'"');
}

fn push_unit(out: &mut Vec<u8>, unit: u16) {
    push_display(out, format_args!("\\u{unit:04x}"));
}

fn push_display(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a Vec takes all bytes");
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
    depth: usize,
}

impl Writer<'_> {
    fn push(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn string(&mut self, text: &str) {
        push_string(self.out, text, self.style == Style::Standard);
    }

    fn line(&mut self) {
        if self.style == Style::Pretty {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + self.depth, b'\t');
        }
    }
}

impl<'w, 'a> Writer<'a> {
    fn open(&'w mut self, brackets: Brackets) -> Items<'w, 'a> {
        self.out.push(brackets.open);
        self.depth += 1;
        Items { writer: self, brackets, empty: true, start: 0 }
    }

    fn open_variant(&'w mut self, variant: &str, brackets: Brackets) -> Items<'w, 'a> {
        self.out.push(b'{');
        self.string(variant);
        self.out.push(b':');
        self.open(Brackets { variant: true, ..brackets })
    }
}

#[derive(Clone, Copy)]
struct Brackets {
    open: u8,
    close: u8,
    /// They are the value of an enum's variant, which has its own braces around it.
    variant: bool,
}

const ARRAY: Brackets = Brackets { open: b'[', close: b']', variant: false };
const OBJECT: Brackets = Brackets { open: b'{', close: b'}', variant: false };

macro_rules! write_numbers {
    ($($method:ident $kind:ty),*) => {
        $(fn $method(self, value: $kind) -> Result<(), WriteError> {
            push_display(self.out, format_args!("{value}"));
            Ok(())
        })*
    };
}

impl<'w, 'a> ser::Serializer for &'w mut Writer<'a> {
    type Ok = ();
    type Error = WriteError;
    type SerializeSeq = Items<'w, 'a>;
    type SerializeTuple = Items<'w, 'a>;
    type SerializeTupleStruct = Items<'w, 'a>;
    type SerializeTupleVariant = Items<'w, 'a>;
    type SerializeMap = Items<'w, 'a>;
    type SerializeStruct = Items<'w, 'a>;
    type SerializeStructVariant = Items<'w, 'a>;

    write_numbers! {
        serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64
    }

    fn serialize_f32(self, value: f32) -> Result<(), WriteError> {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<(), WriteError> {
        if value.is_finite() {
            push_display(self.out, format_args!("{value:?}"));
        } else {
            self.push("null");
        }
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), WriteError> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), WriteError> {
        self.string(value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), WriteError> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<(), WriteError> {
        self.push("null");
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), WriteError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), WriteError> {
        self.serialize_none()
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), WriteError> {
        self.serialize_none()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), WriteError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), WriteError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), WriteError> {
        self.out.push(b'{');
        self.string(variant);
        self.out.push(b':');
        value.serialize(&mut *self)?;
        self.out.push(b'}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'w, 'a>, WriteError> {
        Ok(self.open(ARRAY))
    }

    fn serialize_tuple(self, _: usize) -> Result<Items<'w, 'a>, WriteError> {
        Ok(self.open(ARRAY))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Items<'w, 'a>, WriteError> {
        Ok(self.open(ARRAY))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'w, 'a>, WriteError> {
        Ok(self.open_variant(variant, ARRAY))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Items<'w, 'a>, WriteError> {
        Ok(self.open(OBJECT))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Items<'w, 'a>, WriteError> {
        Ok(self.open(OBJECT))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Items<'w, 'a>, WriteError> {
        Ok(self.open_variant(variant, OBJECT))
    }
}

/// The inside of an array or object.
struct Items<'w, 'a> {
    writer: &'w mut Writer<'a>,
    brackets: Brackets,
    empty: bool,
    /// Where the current member starts, its comma included.
    start: usize,
}

impl Items<'_, '_> {
    fn next(&mut self) {
        self.start = self.writer.out.len();
        if !self.empty {
            self.writer.out.push(b',');
        }
        self.writer.line();
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
        self.next();
        self.empty = false;
        value.serialize(&mut *self.writer)
    }

    /// Writes the value of a member; takes the member back if it is null, as fastjson leaves those out.
    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
        self.writer.out.push(b':');
        let value_start = self.writer.out.len();
        value.serialize(&mut *self.writer)?;
        if &self.writer.out[value_start..] == b"null" {
            self.writer.out.truncate(self.start);
        } else {
            self.empty = false;
        }
        Ok(())
    }

    fn close(self) {
        self.writer.depth -= 1;
        if !self.empty {
            self.writer.line();
        }
        self.writer.out.push(self.brackets.close);
        if self.brackets.variant {
            self.writer.out.push(b'}');
        }
    }
}

macro_rules! elements {
    ($($kind:ident $method:ident),*) => {
        $(impl ser::$kind for Items<'_, '_> {
            type Ok = ();
            type Error = WriteError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
                self.element(value)
            }

            fn end(self) -> Result<(), WriteError> {
                self.close();
                Ok(())
            }
        })*
    };
}

elements! {
    SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field
}

macro_rules! members {
    ($($kind:ident),*) => {
        $(impl ser::$kind for Items<'_, '_> {
            type Ok = ();
            type Error = WriteError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), WriteError> {
                self.next();
                self.writer.string(key);
                self.value(value)
            }

            fn end(self) -> Result<(), WriteError> {
                self.close();
                Ok(())
            }
        })*
    };
}

members! { SerializeStruct, SerializeStructVariant }

impl ser::SerializeMap for Items<'_, '_> {
    type Ok = ();
    type Error = WriteError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), WriteError> {
        self.next();
        key.serialize(KeyWriter { writer: self.writer })
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), WriteError> {
        self.value(value)
    }

    fn end(self) -> Result<(), WriteError> {
        self.close();
        Ok(())
    }
}

/// Writes a map's key: as any value, but for numbers and booleans in the standard style.
struct KeyWriter<'w, 'a> {
    writer: &'w mut Writer<'a>,
}

macro_rules! write_keys {
    ($($method:ident $kind:ty),*) => {
        $(fn $method(self, value: $kind) -> Result<(), WriteError> {
            let quote = if self.writer.style == Style::Standard { "\"" } else { "" };
            push_display(self.writer.out, format_args!("{quote}{value}{quote}"));
            Ok(())
        })*
    };
}

macro_rules! refuse_keys {
    ($($method:ident($($arg:ty),*) -> $out:ty),* $(,)?) => {
        $(fn $method(self, $(_: $arg),*) -> Result<$out, WriteError> {
            Err(ser::Error::custom("a map's key must be a text, a number or a struct"))
        })*
    };
}

impl<'w, 'a> ser::Serializer for KeyWriter<'w, 'a> {
    type Ok = ();
    type Error = WriteError;
    type SerializeSeq = Impossible<(), WriteError>;
    type SerializeTuple = Impossible<(), WriteError>;
    type SerializeTupleStruct = Impossible<(), WriteError>;
    type SerializeTupleVariant = Impossible<(), WriteError>;
    type SerializeMap = Impossible<(), WriteError>;
    type SerializeStruct = Items<'w, 'a>;
    type SerializeStructVariant = Impossible<(), WriteError>;

    write_keys! {
        serialize_bool bool, serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64
    }

    refuse_keys! {
        serialize_f32(f32) -> (), serialize_f64(f64) -> (), serialize_bytes(&[u8]) -> (), serialize_none() -> (),
        serialize_unit() -> (), serialize_unit_struct(&'static str) -> (),
        serialize_seq(Option<usize>) -> Self::SerializeSeq, serialize_tuple(usize) -> Self::SerializeTuple,
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant,
        serialize_map(Option<usize>) -> Self::SerializeMap,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant,
    }

    fn serialize_char(self, value: char) -> Result<(), WriteError> {
        self.writer.serialize_char(value)
    }

    fn serialize_str(self, value: &str) -> Result<(), WriteError> {
        self.writer.serialize_str(value)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), WriteError> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), WriteError> {
        self.writer.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), WriteError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), WriteError> {
        Err(ser::Error::custom("a map's key must be a text, a number or a struct"))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Items<'w, 'a>, WriteError> {
        Ok(self.writer.open(OBJECT))
    }
}
