//! The compact header, `RocketMQSerializable`.
//!
//! | size | field |
//! |---|---|
//! | 2 | code, signed; the low 16 bits of codes above 32767 |
//! | 1 | language |
//! | 2 | version |
//! | 4 | opaque |
//! | 4 | flag |
//! | 4 + n | remark; length 0 = none |
//! | 4 + n | fields: per field a length (2) and the key, a length (4) and the value |

use bytes::Buf;

use crate::remoting::body::Body;
use crate::remoting::command::{Command, Language, SerializeType};
use crate::remoting::ext_fields::ExtFields;
use crate::remoting::json;

use super::FrameError;

/// Reads a header; the body stays empty.
pub(super) fn decode(mut header: &[u8]) -> Result<Command, FrameError> {
    let short = |_| FrameError::Binary;
    let code = header.try_get_i16().map_err(short)?;
    let language = header.try_get_u8().map_err(short)?;
    let version = header.try_get_i16().map_err(short)?;
    let opaque = header.try_get_i32().map_err(short)?;
    let flag = header.try_get_i32().map_err(short)?;
    let remark_length = header.try_get_u32().map_err(short)?;
    let remark = take(&mut header, remark_length)?;
    let fields_length = header.try_get_u32().map_err(short)?;
    let fields = take(&mut header, fields_length)?;
    Ok(Command {
        code: code.into(),
        language: Language::from_number(language),
        version: version.into(),
        opaque,
        flag,
        remark: if remark.is_empty() { None } else { Some(json::to_text(remark).into_owned()) },
        ext_fields: decode_fields(fields)?,
        body: Body::Empty,
        serialize_type: SerializeType::Binary,
    })
}

fn decode_fields(mut bytes: &[u8]) -> Result<ExtFields, FrameError> {
    let short = |_| FrameError::Binary;
    let mut fields = ExtFields::with_capacity(16, bytes.len());
    while !bytes.is_empty() {
        let key_length =
            u32::try_from(bytes.try_get_i16().map_err(short)?).map_err(|_| FrameError::Binary)?;
        let key = take(&mut bytes, key_length)?;
        let value_length = bytes.try_get_u32().map_err(short)?;
        let value = take(&mut bytes, value_length)?;
        // Java reads a length of 0 as null, and a null key names nothing.
        if !key.is_empty() {
            fields.push(&json::to_text(key), &json::to_text(value));
        }
    }
    Ok(fields)
}

fn take<'a>(bytes: &mut &'a [u8], length: u32) -> Result<&'a [u8], FrameError> {
    let length = usize::try_from(length).map_err(|_| FrameError::Binary)?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(FrameError::Binary)?;
    *bytes = rest;
    Ok(taken)
}

/// Appends the header.
pub(super) fn encode(command: &Command, out: &mut Vec<u8>) {
    let [_, _, code_high, code_low] = command.code.to_be_bytes();
    let [_, _, version_high, version_low] = command.version.to_be_bytes();
    out.extend_from_slice(&[code_high, code_low, command.language.number(), version_high, version_low]);
    out.extend_from_slice(&command.opaque.to_be_bytes());
    out.extend_from_slice(&command.flag.to_be_bytes());
    push_text(out, command.remark.as_deref().unwrap_or_default());
    let length_at = out.len();
    out.extend_from_slice(&[0; 4]);
    for (key, value) in command.ext_fields.iter() {
        // Only a text that was no UTF-8 gets so long a name here.
        let Ok(key_length) = i16::try_from(key.len()) else { continue };
        out.extend_from_slice(&key_length.to_be_bytes());
        out.extend_from_slice(key.as_bytes());
        push_text(out, value);
    }
    let length = length_of(out.len() - length_at - 4);
    out[length_at..length_at + 4].copy_from_slice(&length);
}

fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&length_of(text.len()));
    out.extend_from_slice(text.as_bytes());
}

fn length_of(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a header is shorter than 16 MiB").to_be_bytes()
}
