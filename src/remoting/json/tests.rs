use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::model::{MessageQueue, Topic};

#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Sample {
    flag: bool,
    list: Vec<String>,
    name: Option<String>,
    number: i32,
    ratio: f64,
    table: BTreeMap<i64, String>,
    text: String,
}

fn sample() -> Sample {
    Sample {
        flag: true,
        list: vec!["a".into(), "b".into()],
        name: None,
        number: -7,
        ratio: 0.0,
        table: BTreeMap::from([(0, "x".into()), (1, "y".into())]),
        text: "a\"\\/\u{1}\u{7f}中😀\n".into(),
    }
}

fn text<T: Serialize>(value: &T, style: Style) -> String {
    String::from_utf8(to_vec_styled(value, style)).unwrap()
}

#[test]
fn compact_style_is_that_of_fastjson() {
    assert_eq!(
        text(&sample(), Style::Compact),
        "{\"flag\":true,\"list\":[\"a\",\"b\"],\"number\":-7,\"ratio\":0.0,\"table\":{0:\"x\",1:\"y\"},\"text\":\"a\\\"\\\\/\\u0001\u{7f}中😀\\n\"}"
    );
}

#[test]
fn standard_style_quotes_keys_and_escapes_what_is_not_ascii() {
    assert_eq!(
        text(&sample(), Style::Standard),
        "{\"flag\":true,\"list\":[\"a\",\"b\"],\"number\":-7,\"ratio\":0.0,\"table\":{\"0\":\"x\",\"1\":\"y\"},\"text\":\"a\\\"\\\\/\\u0001\u{7f}\\u4e2d\\ud83d\\ude00\\n\"}"
    );
    let standard: serde_json::Value =
        serde_json::from_slice(&to_vec_styled(&sample(), Style::Standard)).unwrap();
    assert_eq!(standard["text"], "a\"\\/\u{1}\u{7f}中😀\n");
}

#[test]
fn pretty_style_is_that_of_the_config_files() {
    let table = BTreeMap::from([("T@g", BTreeMap::from([(0, 5), (1, 7)])), ("U@g", BTreeMap::new())]);
    assert_eq!(
        text(&BTreeMap::from([("offsetTable", table)]), Style::Pretty),
        "{\n\t\"offsetTable\":{\n\t\t\"T@g\":{\n\t\t\t0:5,\n\t\t\t1:7\n\t\t},\n\t\t\"U@g\":{}\n\t}\n}"
    );
}

#[test]
fn structs_are_keys() {
    let queue = MessageQueue { broker_name: "b".into(), queue_id: 1, topic: Topic::new("T") };
    let table = BTreeMap::from([(queue, 5)]);
    assert_eq!(text(&table, Style::Compact), r#"{{"brokerName":"b","queueId":1,"topic":"T"}:5}"#);
    for form in [
        r#"{{"brokerName":"b","queueId":1,"topic":"T"}:5}"#,
        r#"{ { 'topic' : 'T' , 'queueId' : '1' , 'brokerName' : 'b' , } : '5' , }"#,
        r#"{"{\"brokerName\":\"b\",\"queueId\":1,\"topic\":\"T\"}":5}"#,
    ] {
        assert_eq!(from_str::<BTreeMap<MessageQueue, i64>>(form).unwrap(), table, "{form}");
    }
}

#[test]
fn null_members_are_left_out_in_every_style() {
    for (style, expected) in
        [(Style::Compact, "{\"b\":1}"), (Style::Standard, "{\"b\":1}"), (Style::Pretty, "{\n\t\"b\":1\n}")]
    {
        assert_eq!(text(&BTreeMap::from([("a", None), ("b", Some(1)), ("c", None)]), style), expected);
        assert_eq!(text(&BTreeMap::from([("a", f64::NAN)]), style), "{}");
    }
}

#[test]
fn reading_is_lenient() {
    for (document, expected) in [
        ("{}", Sample::default()),
        (" {\n} ", Sample::default()),
        (r#"{'number':'12','flag':"true",}"#, Sample { number: 12, flag: true, ..Sample::default() }),
        (
            r#"{"number":1.7,"flag":1,"ratio":"2.5"}"#,
            Sample { number: 1, flag: true, ratio: 2.5, ..Sample::default() },
        ),
        (r#"{"number":"","flag":""}"#, Sample::default()),
        (r#"{"number":null,"text":null,"list":null,"table":null,"name":null}"#, Sample::default()),
        (
            r#"{"text":12,"name":true}"#,
            Sample { text: "12".into(), name: Some("true".into()), ..Sample::default() },
        ),
        (r#"{"text":{"a":[1,"}"]}}"#, Sample { text: r#"{"a":[1,"}"]}"#.into(), ..Sample::default() }),
        (
            r#"{table:{0:"a","1":"b"},list:["x",,'y',]}"#,
            Sample {
                table: BTreeMap::from([(0, "a".into()), (1, "b".into())]),
                list: vec!["x".into(), "y".into()],
                ..Sample::default()
            },
        ),
        (r#"{"unknown":{"a":{{"b":1}:[[]]}},"number":3}"#, Sample { number: 3, ..Sample::default() }),
        (
            r#"{"text":"\u4e2d\ud83d\ude00\ud83d\x41\t\/\v"}"#,
            Sample { text: "中😀\u{fffd}A\t/\u{b}".into(), ..Sample::default() },
        ),
        (r#"{"number":5L}"#, Sample { number: 5, ..Sample::default() }),
    ] {
        assert_eq!(from_str::<Sample>(document).unwrap(), expected, "{document}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_replaced() {
    assert_eq!(from_slice::<Sample>(b"{\"text\":\"a\xff\"}").unwrap().text, "a\u{fffd}");
}

#[test]
fn wrong_documents_are_errors() {
    for (document, message) in [
        ("", "the text ends too early"),
        ("{", "the text ends too early"),
        (r#"{"text":"a"#, "the text ends too early"),
        (r#"{"text":"\u12"#, "expected hex digits at byte 11"),
        (r#"{"text":"\uzzzz"}"#, "expected hex digits at byte 11"),
        ("[]", "expected an object at byte 0"),
        ("{} x", "expected the end of the document at byte 3"),
        (r#"{"number" 1}"#, "expected a colon at byte 10"),
        (r#"{"number":"x"}"#, "x is not a whole number"),
        (r#"{"number":99999999999}"#, "99999999999 does not fit into i32"),
        (r#"{"number":[1]}"#, "expected a value at byte 10"),
        (r#"{"flag":"perhaps"}"#, "perhaps is neither true nor false"),
        (r#"{"list":{}}"#, "expected an array at byte 8"),
    ] {
        assert_eq!(from_str::<Sample>(document).unwrap_err().to_string(), message, "{document}");
    }
}

#[test]
fn depth_is_limited() {
    #[derive(Debug, Deserialize)]
    struct Nested {
        #[expect(dead_code, reason = "only its depth counts")]
        next: Option<Box<Nested>>,
    }
    let nested = |depth: usize| format!("{}null{}", r#"{"next":"#.repeat(depth), "}".repeat(depth));
    assert!(from_str::<Nested>(&nested(32)).is_ok());
    assert_eq!(from_str::<Nested>(&nested(100_000)).unwrap_err(), Error::Syntax(Fault::Depth));
    assert_eq!(
        from_str::<Sample>(&format!(r#"{{"x":{}"#, "[".repeat(100_000))).unwrap_err(),
        Error::Syntax(Fault::Depth)
    );
    assert_eq!(from_str::<Sample>(&"{".repeat(100_000)).unwrap_err(), Error::Syntax(Fault::Depth));
}

#[test]
fn sets_are_arrays() {
    let set = BTreeSet::from([3, 1]);
    assert_eq!(text(&set, Style::Compact), "[1,3]");
    assert_eq!(from_str::<BTreeSet<i32>>(" [ 3 , '1' ] ").unwrap(), set);
}

fn samples() -> impl Strategy<Value = Sample> {
    let texts = || "\\PC{0,6}|[\\x00-\\x7f]{0,4}";
    (
        any::<bool>(),
        proptest::collection::vec(texts(), 0..3),
        proptest::option::of(texts()),
        any::<i32>(),
        (-4_000_000i32..4_000_000).prop_map(|quarters| f64::from(quarters) / 4.0),
        proptest::collection::btree_map(any::<i64>(), texts(), 0..3),
        texts(),
    )
        .prop_map(|(flag, list, name, number, ratio, table, text)| Sample {
            flag,
            list,
            name,
            number,
            ratio,
            table,
            text,
        })
}

proptest! {
    #[test]
    fn values_round_trip(sample in samples()) {
        for style in [Style::Compact, Style::Standard, Style::Pretty] {
            let bytes = to_vec_styled(&sample, style);
            prop_assert_eq!(&from_slice::<Sample>(&bytes).unwrap(), &sample);
        }
        let standard: Sample = serde_json::from_slice(&to_vec_styled(&sample, Style::Standard)).unwrap();
        prop_assert_eq!(standard, sample);
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = from_slice::<Sample>(&bytes);
        let _ = from_slice::<BTreeMap<MessageQueue, i64>>(&bytes);
    }

    #[test]
    fn almost_json_never_panics(text in "[{}\\[\\]:,\"'a1.\\\\unul-]{0,30}") {
        let _ = from_str::<Sample>(&text);
        let _ = from_str::<BTreeMap<MessageQueue, Vec<Sample>>>(&text);
        let _ = from_str::<BTreeMap<i32, BTreeMap<String, f64>>>(&text);
    }
}
