use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::remoting::code::{RequestCode, ResponseCode};
use crate::remoting::command::Language;

const MAX: usize = 16 << 20;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn decode_all(bytes: &[u8]) -> Result<Option<Command>, FrameError> {
    decode(&mut BytesMut::from(bytes), MAX)
}

fn json_frame(header: &str) -> Vec<u8> {
    let header_length = u32::try_from(header.len()).unwrap();
    [&(header_length + 4).to_be_bytes()[..], &header_length.to_be_bytes()[..], header.as_bytes()].concat()
}

#[test]
fn binary_frame_of_java_is_read_and_written() {
    let bytes = hex(
        "00000027 01000021 000b 00 0201 00000007 00000000 00000000 0000000c 0005 746f706963 00000001 54 0102",
    );
    let command = decode_all(&bytes).unwrap().unwrap();
    assert_eq!((command.code, command.version, command.opaque), (11, 513, 7));
    assert_eq!(command.ext_fields.iter().collect::<Vec<_>>(), [("topic", "T")]);
    assert_eq!(command.body.to_bytes(), [1, 2][..]);
    assert_eq!(command.serialize_type, SerializeType::Binary);
    assert_eq!(command.to_bytes(), bytes);
}

#[test]
fn json_frame_of_java_is_read_and_written() {
    let header = r#"{"code":105,"extFields":{"topic":"T"},"flag":0,"language":"JAVA","opaque":1,"serializeTypeCurrentRPC":"JSON","version":513}"#;
    let bytes = json_frame(header);
    assert_eq!(&bytes[..8], hex("0000007f 0000007b"));
    let command = decode_all(&bytes).unwrap().unwrap();
    assert_eq!((command.code, command.language, command.opaque), (105, Language::Java, 1));
    assert_eq!(command.to_bytes(), bytes);
}

#[test]
fn codes_above_16_bits_are_cut_in_a_binary_header() {
    let command =
        Command { serialize_type: SerializeType::Binary, ..Command::request(RequestCode::PopMessage) };
    assert_eq!(decode_all(&command.to_bytes()).unwrap().unwrap().code, 3442);
}

#[test]
fn json_header_is_read_leniently() {
    for (header, check) in [
        (
            r#"{}"#,
            Command { language: Language::Other, version: 0, ..Command::response(ResponseCode::Success) },
        ),
        (
            r#" { 'code' : "10" , version:1,"language":"COBOL","extFields":null,"remark":null,"x":{"y":[1,{"z":"}"}]},} "#,
            Command { language: Language::Other, version: 1, ..Command::request(RequestCode::SendMessage) },
        ),
        (
            r#"{"code":10,"version":1,"language":"GO","extFields":{"a":1,"b":true,"c":null,"d":{"e":1},"f":"\u4e2d\ud83d\ude00\n"}}"#,
            Command { language: Language::Go, version: 1, ..Command::request(RequestCode::SendMessage) }
                .with_field("a", "1")
                .with_field("b", "true")
                .with_field("d", r#"{"e":1}"#)
                .with_field("f", "中😀\n"),
        ),
    ] {
        let command = decode_all(&json_frame(header)).unwrap().unwrap();
        assert_eq!(command, Command { flag: 0, ..check }, "{header}");
    }
}

#[test]
fn wrong_frames_are_errors() {
    for (bytes, message) in [
        (hex("01000000"), "a frame of 16777216 bytes, at most 16777216 are allowed"),
        (hex("00fffffd"), "a frame of 16777213 bytes, at most 16777216 are allowed"),
        (hex("ffffffff"), "a frame of 4294967295 bytes, at most 16777216 are allowed"),
        (hex("16030102"), "a frame of 369295618 bytes, at most 16777216 are allowed"),
        (hex("00000002 0000"), "a header of 0 bytes in a frame of 2"),
        (hex("00000006 00000003 0000"), "a header of 3 bytes in a frame of 6"),
        (hex("00000004 02000000"), "header type 2"),
        (hex("00000004 01000000"), "binary header: a length points beyond the end"),
        (hex("00000004 00000000"), "JSON header: the text ends too early"),
        (json_frame("[]"), "JSON header: expected an object at byte 0"),
        (json_frame(r#"{"code":"x"}"#), "JSON header: code is not a number"),
        (
            json_frame(r#"{"x":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["#),
            "JSON header: nested deeper than 64",
        ),
    ] {
        assert_eq!(decode_all(&bytes).unwrap_err().to_string(), message);
    }
}

#[test]
fn frame_of_the_greatest_length_is_taken() {
    assert_eq!(decode_all(&hex("00fffffc")), Ok(None));
}

#[test]
fn incomplete_frame_takes_nothing() {
    let bytes = Command::request(RequestCode::HeartBeat).with_body("body").to_bytes();
    for end in 0..bytes.len() {
        let mut buf = BytesMut::from(&bytes[..end]);
        assert_eq!(decode(&mut buf, MAX), Ok(None));
        assert_eq!(buf.len(), end);
    }
}

#[test]
fn frames_follow_each_other() {
    let first = Command::request(RequestCode::HeartBeat).with_body("one");
    let second = Command::response(ResponseCode::SystemError).with_remark("no \"way\"");
    let mut buf = BytesMut::from(&[first.to_bytes(), second.to_bytes()].concat()[..]);
    assert_eq!(decode(&mut buf, MAX), Ok(Some(first)));
    assert_eq!(decode(&mut buf, MAX), Ok(Some(second)));
    assert_eq!(decode(&mut buf, MAX), Ok(None));
}

fn commands() -> impl Strategy<Value = Command> {
    let fields =
        proptest::collection::vec(("[a-zA-Z]{1,8}|\\PC{1,4}", "\\PC{1,12}|[\\x00-\\x7f]{1,5}"), 0..6);
    let body = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..3);
    (any::<i16>(), any::<i16>(), any::<i32>(), any::<i32>(), "\\PC{0,8}", fields, body, any::<bool>())
        .prop_map(|(code, version, opaque, flag, remark, fields, body, binary)| {
            let slices: Vec<_> = body.into_iter().map(Bytes::from).collect();
            let mut command = Command::request(RequestCode::SendMessage).with_body(slices);
            command.code = code.into();
            command.version = version.into();
            command.opaque = opaque;
            command.flag = flag;
            command.remark = if remark.is_empty() { None } else { Some(remark) };
            command.serialize_type = if binary { SerializeType::Binary } else { SerializeType::Json };
            for (key, value) in fields {
                command.ext_fields.set(&key, &value);
            }
            command
        })
}

proptest! {
    #[test]
    fn commands_round_trip(command in commands()) {
        prop_assert_eq!(decode_all(&command.to_bytes()).unwrap().unwrap(), command);
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_all(&bytes);
    }

    #[test]
    fn garbage_headers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), kind in 0u8..2) {
        let header = u32::try_from(bytes.len()).unwrap();
        let mut frame = [&(header + 4).to_be_bytes()[..], &header.to_be_bytes()[..], &bytes].concat();
        frame[4] = kind;
        let _ = decode_all(&frame);
    }

    #[test]
    fn changed_frames_never_panic(command in commands(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = command.to_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&mut BytesMut::from(&bytes[..]), 1 << 10);
    }
}

/// A header as it may come in, and what goes out when it is handed on or quoted in an answer.
#[test]
fn what_grows_too_long_for_a_frame_goes_without_it() {
    let name = "\u{1}".repeat(3 << 20);
    for remark in [None, Some(name.clone())] {
        let mut command = Command::request(RequestCode::SendMessage).with_body("body").with_field(&name, "v");
        command.remark = remark.clone();
        let read = decode(&mut BytesMut::from(&command.to_bytes()[..]), 64 << 20).unwrap().unwrap();
        assert_eq!((read.code, read.body.to_bytes(), read.ext_fields.len()), (10, Bytes::from("body"), 0));
        assert_eq!(read.remark, remark.map(|remark| remark[..1000].to_owned()));
    }
    // A name of 32767 bytes that are no UTF-8 has 98301 of them when it is text.
    let fields =
        [&[0x7f, 0xff][..], &[0xff; 0x7fff], &[0, 0, 0, 1, b'v', 0, 1, b'k', 0, 0, 0, 1, b'v']].concat();
    let mut header = hex("000a 00 0201 00000007 00000000 00000000");
    header.extend(u32::try_from(fields.len()).unwrap().to_be_bytes());
    header.extend(fields);
    let length = u32::try_from(header.len()).unwrap();
    let frame = [&(length + 4).to_be_bytes()[..], &(length | 1 << 24).to_be_bytes(), &header].concat();
    let command = decode_all(&frame).unwrap().unwrap();
    assert_eq!(command.ext_fields.len(), 2);
    let again = decode_all(&command.to_bytes()).unwrap().unwrap();
    assert_eq!(again.ext_fields.iter().collect::<Vec<_>>(), [("k", "v")]);
    // Java reads a signed length.
    let mut negative = frame;
    negative[29] = 0x80;
    assert!(decode_all(&negative).is_err());
}
