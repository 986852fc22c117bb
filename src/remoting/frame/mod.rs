//! Commands <-> frames.
//!
//! | offset | size | content |
//! |---|---|---|
//! | 0 | 4 | length of all that follows |
//! | 4 | 1 | type of the header: 0 JSON, 1 ROCKETMQ |
//! | 5 | 3 | length of the header |
//! | 8 | .. | header |
//! | .. | .. | body, up to the length |
//!
//! An incomplete frame is no error; a wrong one is, and its connection has to be closed, since nobody knows where
//! the next frame starts.

mod binary;
mod json_header;

use bytes::{Buf, BytesMut};

use super::command::{Command, SerializeType};
use super::ext_fields::ExtFields;
use super::json;

/// Why bytes are not a frame. The connection must be closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than the limit, or its length is negative.
    #[error("a frame of {length} bytes, at most {max} are allowed")]
    Length {
        /// The length field.
        length: u32,
        /// The limit that was set.
        max: usize,
    },
    /// The header is longer than the frame.
    #[error("a header of {header} bytes in a frame of {frame}")]
    HeaderLength {
        /// Length that the frame gives for its header.
        header: u32,
        /// Length of the frame.
        frame: u32,
    },
    /// The type byte is neither 0 nor 1.
    #[error("header type {0}")]
    HeaderType(u8),
    /// The JSON header is no JSON object.
    #[error("JSON header: {0}")]
    Json(#[from] json::Fault),
    /// A member of the JSON header is not a number.
    #[error("JSON header: {0} is not a number")]
    Number(&'static str),
    /// A length within the binary header points beyond its end.
    #[error("binary header: a length points beyond the end")]
    Binary,
}

const PREFIX: usize = 4;
const HEADER_LENGTH_MAX: usize = 0xff_ffff;
/// Characters that stay of the remark of a header that would be too long.
const REMARK_CUT: usize = 1000;

/// Takes one frame from the front of `buf`; `None` if it is not complete yet.
///
/// The body shares the memory of `buf`. Nothing is allocated for bytes that have not arrived.
pub fn decode(buf: &mut BytesMut, frame_bytes_max: usize) -> Result<Option<Command>, FrameError> {
    let Some(total) = total_length(buf, frame_bytes_max)? else { return Ok(None) };
    if buf.len() < total {
        return Ok(None);
    }
    let mut frame = buf.split_to(total);
    let length = frame.get_u32();
    let word = frame.try_get_u32().map_err(|_| FrameError::HeaderLength { header: 0, frame: length })?;
    let [kind, high, middle, low] = word.to_be_bytes();
    let header_length = u32::from_be_bytes([0, high, middle, low]);
    let wrong_length = || FrameError::HeaderLength { header: header_length, frame: length };
    let header_bytes = usize::try_from(header_length).map_err(|_| wrong_length())?;
    if header_bytes > frame.len() {
        return Err(wrong_length());
    }
    let header = frame.split_to(header_bytes);
    let mut command = match kind {
        0 => json_header::decode(&header)?,
        1 => binary::decode(&header)?,
        other => return Err(FrameError::HeaderType(other)),
    };
    command.body = frame.freeze().into();
    Ok(Some(command))
}

/// Returns the length of the frame at the front of `buf`, its own length field included.
pub(super) fn total_length(buf: &[u8], frame_bytes_max: usize) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = buf.first_chunk::<PREFIX>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix);
    // Java counts the length field itself when it compares with its limit.
    match usize::try_from(length).ok().and_then(|length| length.checked_add(PREFIX)) {
        Some(total) if total <= frame_bytes_max => Ok(Some(total)),
        _ => Err(FrameError::Length { length, max: frame_bytes_max }),
    }
}

/// Appends everything before the body. A header that is too long for a frame goes without its fields, and with the
/// beginning of its remark.
pub(super) fn encode_head(command: &Command, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    let kind = match command.serialize_type {
        SerializeType::Json => {
            json_header::encode(command, out);
            0
        }
        SerializeType::Binary => {
            binary::encode(command, out);
            1
        }
    };
    let header = out.len() - start - 8;
    if header > HEADER_LENGTH_MAX {
        // Escapes can make a text six times as long as it came in. A request then lacks what it needs, and is told so.
        out.truncate(start);
        let remark = command.remark.as_ref().map(|remark| remark.chars().take(REMARK_CUT).collect());
        let ext_fields = ExtFields::new();
        return encode_head(&Command { remark, ext_fields, body: command.body.clone(), ..*command }, out);
    }
    let length = u32::try_from(4 + header + command.body.len()).expect("a frame is shorter than 4 GiB");
    let [_, high, middle, low] = u32::try_from(header).unwrap_or_default().to_be_bytes();
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    out[start + 4..start + 8].copy_from_slice(&[kind, high, middle, low]);
}

#[cfg(test)]
mod tests;
