//! One request or response, apart from how it looks on the wire (`frame/`).

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::body::Body;
use super::code::{RequestCode, ResponseCode};
use super::ext_fields::ExtFields;
use super::{frame, json};
use crate::fields::{self, Booleans};

/// Why a header could not be read; names the field.
pub use crate::fields::Error as HeaderError;

/// `MQVersion` ordinals: what peers say they are, and which of them behave differently.
pub mod version {
    /// RocketMQ 5.5.0, which every header of ours names.
    pub const CURRENT: i32 = 513;
    /// From here on brokers register with a `RegisterBrokerBody`, before it with a plain topic table.
    pub const V3_0_11: i32 = 37;
    /// From here on clients take a reset of offsets.
    pub const V3_0_7_SNAPSHOT: i32 = 28;
    /// From here on clients tell of their state and consume directly.
    pub const V3_1_8_SNAPSHOT: i32 = 62;
    /// From here on the `maxReconsumeTimes` of a send counts.
    pub const V3_4_9: i32 = 121;
    /// From here on route answers are standard JSON.
    pub const V4_9_4: i32 = 401;
    /// From here on a compressed registration ends with a section on static topics.
    pub const V5_0_0: i32 = 413;

    /// Returns Java's name of a version. Source: RocketMQ `MQVersion.getVersionDesc`.
    ///
    /// From 4.0.0 on every release has two numbers, that of its snapshot first; the numbers of 3.x follow no rule and
    /// are shown as they are.
    pub fn name(version: i32) -> String {
        const V4_0_0_SNAPSHOT: i32 = 212;
        const HIGHER_VERSION: i32 = 612;
        if version >= HIGHER_VERSION {
            return "HIGHER_VERSION".into();
        }
        if version < V4_0_0_SNAPSHOT {
            return format!("V3({version})");
        }
        let number = version - V4_0_0_SNAPSHOT;
        let release = number / 2;
        let snapshot = if number % 2 == 0 { "_SNAPSHOT" } else { "" };
        format!("V{}_{}_{}{snapshot}", 4 + release / 100, release / 10 % 10, release % 10)
    }
}

/// The language of a client. Source: RocketMQ `LanguageCode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "names of languages")]
pub enum Language {
    Java,
    Cpp,
    Dotnet,
    Python,
    Delphi,
    Erlang,
    Ruby,
    /// Also stands for names and numbers that RocketMQ 5.5.0 does not know.
    Other,
    Http,
    Go,
    Php,
    Oms,
    Rust,
    NodeJs,
}

const LANGUAGES: [(Language, u8, &str); 14] = [
    (Language::Java, 0, "JAVA"),
    (Language::Cpp, 1, "CPP"),
    (Language::Dotnet, 2, "DOTNET"),
    (Language::Python, 3, "PYTHON"),
    (Language::Delphi, 4, "DELPHI"),
    (Language::Erlang, 5, "ERLANG"),
    (Language::Ruby, 6, "RUBY"),
    (Language::Other, 7, "OTHER"),
    (Language::Http, 8, "HTTP"),
    (Language::Go, 9, "GO"),
    (Language::Php, 10, "PHP"),
    (Language::Oms, 11, "OMS"),
    (Language::Rust, 12, "RUST"),
    (Language::NodeJs, 13, "NODE_JS"),
];

impl Language {
    /// Returns Java's name.
    pub fn name(self) -> &'static str {
        LANGUAGES.iter().find(|(language, ..)| *language == self).map_or("OTHER", |(.., name)| name)
    }

    /// Returns the number of the compact header.
    pub fn number(self) -> u8 {
        LANGUAGES.iter().find(|(language, ..)| *language == self).map_or(7, |(_, number, _)| *number)
    }

    pub(super) fn from_name(name: &str) -> Self {
        LANGUAGES.iter().find(|(.., known)| *known == name).map_or(Self::Other, |(language, ..)| *language)
    }

    pub(super) fn from_number(number: u8) -> Self {
        LANGUAGES
            .iter()
            .find(|(_, known, _)| *known == number)
            .map_or(Self::Other, |(language, ..)| *language)
    }
}

impl Serialize for Language {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for Language {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self::from_name(&name))
    }
}

/// How the header of a frame is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SerializeType {
    /// Type byte 0: a JSON object.
    #[default]
    Json,
    /// Type byte 1, `ROCKETMQ`: binary. Its code has 16 bits, so codes above 32767 do not survive it.
    Binary,
}

/// One request or response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// A [`RequestCode`] or [`ResponseCode`]; peers may send other numbers too.
    pub code: i32,
    /// What the sender is written in.
    pub language: Language,
    /// `MQVersion` ordinal of the sender.
    pub version: i32,
    /// Ties a response to its request. Set by the connection on the way out.
    pub opaque: i32,
    /// Bit 0: response; bit 1: one-way.
    pub flag: i32,
    /// Error text.
    pub remark: Option<String>,
    /// The header's fields.
    pub ext_fields: ExtFields,
    /// What follows the header.
    pub body: Body,
    /// How the header was or will be encoded. Answers are sent in the type of their request.
    pub serialize_type: SerializeType,
}

impl Command {
    const RESPONSE: i32 = 1;
    const ONEWAY: i32 = 2;

    /// Makes a request.
    ///
    /// It says that its sender is written in Java: the name `RUST` is unknown to 4.x peers, `JAVA` surprises nobody.
    pub fn request(code: RequestCode) -> Self {
        Self::new(code.number(), 0)
    }

    /// Makes a response.
    pub fn response(code: ResponseCode) -> Self {
        Self::new(code.number(), Self::RESPONSE)
    }

    /// Makes the answer to a request whose code nobody serves.
    pub fn not_supported(code: i32) -> Self {
        // The leading blank is Java's.
        Self::response(ResponseCode::RequestCodeNotSupported)
            .with_remark(format!(" request type {code} not supported"))
    }

    fn new(code: i32, flag: i32) -> Self {
        Self {
            code,
            language: Language::Java,
            version: version::CURRENT,
            opaque: 0,
            flag,
            remark: None,
            ext_fields: ExtFields::new(),
            body: Body::Empty,
            serialize_type: SerializeType::Json,
        }
    }

    /// Sets the remark.
    pub fn with_remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    /// Sets the body.
    pub fn with_body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a JSON body in fastjson's dialect.
    pub fn with_json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        self.with_body(json::to_vec(value))
    }

    /// Adds the fields of a header struct.
    pub fn with_header<H: Serialize>(mut self, header: &H) -> Self {
        let fields =
            fields::to_fields(header).expect("a header is a flat struct of texts, numbers and booleans");
        for (key, value) in fields {
            self.ext_fields.set(key, &value);
        }
        self
    }

    /// Adds one field.
    pub fn with_field(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.ext_fields.set(key.as_ref(), value.as_ref());
        self
    }

    /// Reads the header's fields as a struct. Unknown fields are ignored; a value which is not of its field's type
    /// and a required field that is absent are errors.
    pub fn header<H: DeserializeOwned>(&self) -> Result<H, HeaderError> {
        fields::from_fields(self.ext_fields.iter(), Booleans::Lenient)
    }

    /// Reads the body as JSON, in fastjson's dialect. An empty body is an error.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, json::Error> {
        json::from_slice(&self.body.to_bytes())
    }

    /// Returns what the request asks for, if the number is known.
    pub fn request_code(&self) -> Option<RequestCode> {
        RequestCode::try_from(self.code).ok()
    }

    /// Returns how the request ended, if the number is known.
    pub fn response_code(&self) -> Option<ResponseCode> {
        ResponseCode::try_from(self.code).ok()
    }

    /// True for an answer, false for a request.
    pub fn is_response(&self) -> bool {
        self.flag & Self::RESPONSE != 0
    }

    /// True if the sender does not want an answer.
    pub fn is_oneway(&self) -> bool {
        self.flag & Self::ONEWAY != 0
    }

    pub(super) fn mark_response(&mut self) {
        self.flag |= Self::RESPONSE;
    }

    pub(super) fn mark_oneway(&mut self) {
        self.flag |= Self::ONEWAY;
    }

    /// Appends the length, the header length and the header to `out`; the body's bytes have to follow.
    pub fn encode_head(&self, out: &mut Vec<u8>) {
        frame::encode_head(self, out);
    }

    /// Returns the whole frame in one piece.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.encode_head(&mut out);
        for slice in self.body.slices() {
            out.extend_from_slice(slice);
        }
        out.into()
    }
}

/// The fields that every header of a 5.x client may have. Source: RocketMQ `RpcRequestHeader`, `TopicRequestHeader`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RpcFields {
    /// `bname`: the broker group that is meant.
    pub broker_name: Option<String>,
    /// `ns`: the namespace.
    pub namespace: Option<String>,
    /// `nsd`: names already carry the namespace.
    pub namespaced: bool,
    /// `oway`: one-way.
    pub oneway: bool,
    /// `lo`: the queue number is that of a static topic.
    pub logical: bool,
}

impl RpcFields {
    /// Reads the fields of a request.
    pub fn of(request: &Command) -> Self {
        let fields = &request.ext_fields;
        Self {
            broker_name: fields.get("bname").map(str::to_owned),
            namespace: fields.get("ns").map(str::to_owned),
            namespaced: fields.is_true("nsd"),
            oneway: fields.is_true("oway"),
            logical: fields.is_true("lo"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_have_java_s_names_and_numbers() {
        assert_eq!((Language::NodeJs.name(), Language::NodeJs.number()), ("NODE_JS", 13));
        assert_eq!(Language::from_name("GO"), Language::Go);
        assert_eq!(Language::from_name("COBOL"), Language::Other);
        assert_eq!(Language::from_number(200), Language::Other);
    }

    #[test]
    fn rpc_fields_are_read_beside_the_header() {
        let request =
            Command::request(RequestCode::PullMessage).with_field("bname", "b").with_field("lo", "true");
        let fields = RpcFields::of(&request);
        assert_eq!(
            fields,
            RpcFields { broker_name: Some("b".into()), logical: true, ..RpcFields::default() }
        );
    }

    #[test]
    fn unsupported_code_is_answered_with_java_s_words() {
        let response = Command::not_supported(999);
        assert_eq!((response.code, response.is_response()), (3, true));
        assert_eq!(response.remark.unwrap(), " request type 999 not supported");
    }
}
