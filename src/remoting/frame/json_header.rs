//! The JSON header. Parsed straight into a [`Command`], since this runs once per message.

use std::io::Write;

use crate::remoting::body::Body;
use crate::remoting::command::{Command, Language, SerializeType};
use crate::remoting::ext_fields::ExtFields;
use crate::remoting::json::{self, Scanner, push_string};

use super::FrameError;

/// Reads a header; the body stays empty.
pub(super) fn decode(bytes: &[u8]) -> Result<Command, FrameError> {
    // Java replaces what is not UTF-8, so no frame is refused for it.
    let text = json::to_text(bytes);
    let mut scanner = Scanner::new(&text);
    let mut command = Command {
        code: 0,
        language: Language::Other,
        version: 0,
        opaque: 0,
        flag: 0,
        remark: None,
        ext_fields: ExtFields::new(),
        body: Body::Empty,
        serialize_type: SerializeType::Json,
    };
    members(&mut scanner, |scanner, key| {
        match key {
            "code" => command.code = number(scanner, "code")?,
            "version" => command.version = number(scanner, "version")?,
            "opaque" => command.opaque = number(scanner, "opaque")?,
            "flag" => command.flag = number(scanner, "flag")?,
            "language" => {
                command.language =
                    scanner.text_value()?.map_or(Language::Other, |name| Language::from_name(&name));
            }
            "remark" => command.remark = scanner.text_value()?.map(Into::into),
            "extFields" => command.ext_fields = ext_fields(scanner, text.len())?,
            _ => {
                scanner.skip_value(0)?;
            }
        }
        Ok(())
    })?;
    Ok(command)
}

/// Takes an object, calling `member` with the scanner standing before each value.
fn members<'a>(
    scanner: &mut Scanner<'a>,
    mut member: impl FnMut(&mut Scanner<'a>, &str) -> Result<(), FrameError>,
) -> Result<(), FrameError> {
    scanner.expect(b'{', "an object")?;
    loop {
        while scanner.take(b',') {}
        if scanner.take(b'}') {
            return Ok(());
        }
        if scanner.is_string() {
            let key = scanner.string()?;
            scanner.expect(b':', "a colon")?;
            member(scanner, &key)?;
        } else {
            let key = scanner.word()?;
            scanner.expect(b':', "a colon")?;
            member(scanner, key)?;
        }
    }
}

fn number(scanner: &mut Scanner<'_>, name: &'static str) -> Result<i32, FrameError> {
    match scanner.text_value()? {
        Some(digits) => digits.trim().parse().map_err(|_| FrameError::Number(name)),
        None => Ok(0),
    }
}

fn ext_fields(scanner: &mut Scanner<'_>, header_bytes: usize) -> Result<ExtFields, FrameError> {
    if scanner.peek() != Some(b'{') {
        // `null`, as any value that is not an object.
        scanner.skip_value(0)?;
        return Ok(ExtFields::new());
    }
    let mut fields = ExtFields::with_capacity(16, header_bytes);
    members(scanner, |scanner, key| {
        if let Some(value) = scanner.text_value()? {
            fields.push(key, &value);
        }
        Ok(())
    })?;
    Ok(fields)
}

/// Appends the header. Members are in the order in which Java writes them.
pub(super) fn encode(command: &Command, out: &mut Vec<u8>) {
    // The names, the numbers, and the quotes, colons and commas of the fields.
    let fields = &command.ext_fields;
    out.reserve(
        160 + fields.text_bytes() + 6 * fields.len() + command.remark.as_ref().map_or(0, String::len),
    );
    out.extend_from_slice(b"{\"code\":");
    push_number(out, command.code);
    // Java clients use the fields of some responses without asking whether there are any.
    if !fields.is_empty() || command.is_response() {
        out.extend_from_slice(b",\"extFields\":{");
        for (at, (key, value)) in fields.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            push_string(out, key, false);
            out.push(b':');
            push_string(out, value, false);
        }
        out.push(b'}');
    }
    out.extend_from_slice(b",\"flag\":");
    push_number(out, command.flag);
    out.extend_from_slice(b",\"language\":\"");
    out.extend_from_slice(command.language.name().as_bytes());
    out.extend_from_slice(b"\",\"opaque\":");
    push_number(out, command.opaque);
    if let Some(remark) = &command.remark {
        out.extend_from_slice(b",\"remark\":");
        push_string(out, remark, false);
    }
    out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    push_number(out, command.version);
    out.push(b'}');
}

fn push_number(out: &mut Vec<u8>, number: i32) {
    write!(out, "{number}").expect("a Vec takes all bytes");
}
