//! The body of REGISTER_BROKER (103), plain and compressed.
//!
//! Compressed, it is one zlib stream of: length and JSON of the data version; number of topics, and for each length
//! and text `name readQueues writeQueues perm filterType attributes`; length and JSON of the filter servers; from
//! broker version 5.0.0 on the number of static topics, and for each length and JSON. All numbers have four bytes.

use std::io::{self, Read, Write};

use bytes::Buf;
use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};

use super::TopicConfigAndMappingSerializeWrapper;
use crate::model::{Perm, Topic, TopicConfig};
use crate::remoting::command::version;
use crate::remoting::json;

/// Body of REGISTER_BROKER (103).
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RegisterBrokerBody {
    /// Addresses of filter servers; an old feature.
    pub filter_server_list: Vec<String>,
    /// The topics that the broker has.
    pub topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper,
}

/// Why a registration could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RegisterBodyError {
    /// It is not JSON or not a registration.
    #[error("read the registration: {0}")]
    Json(#[from] json::Error),
    /// It is not a zlib stream.
    #[error("decompress the registration: {0}")]
    Compression(#[from] io::Error),
    /// It is longer than [`INFLATED_BYTES_MAX`].
    #[error("the registration has more than {INFLATED_BYTES_MAX} bytes")]
    TooLong,
    /// The stream ends within a value.
    #[error("the registration ends too early")]
    End,
    /// The text of a topic is not as it should be.
    #[error("wrong topic settings: {0}")]
    Topic(String),
}

/// Upper bound on a decompressed registration: ten times what 100,000 topics take, so that a few bytes cannot fill
/// the memory.
pub const INFLATED_BYTES_MAX: u64 = 128 << 20;

impl RegisterBrokerBody {
    /// Reads the compressed form, as a broker of `broker_version` writes it.
    pub fn decompress(bytes: &[u8], broker_version: i32) -> Result<Self, RegisterBodyError> {
        let mut plain = Vec::new();
        ZlibDecoder::new(bytes).take(INFLATED_BYTES_MAX + 1).read_to_end(&mut plain)?;
        if u64::try_from(plain.len()).is_ok_and(|length| length > INFLATED_BYTES_MAX) {
            return Err(RegisterBodyError::TooLong);
        }
        let mut rest = plain.as_slice();
        let mut body = Self::default();
        let table = &mut body.topic_config_serialize_wrapper;
        table.data_version = json::from_slice(part(&mut rest)?)?;
        for _ in 0..count(&mut rest)? {
            let config = topic_from_text(&String::from_utf8_lossy(part(&mut rest)?))?;
            table.topic_config_table.insert(config.topic_name.clone(), config);
        }
        body.filter_server_list = json::from_slice(part(&mut rest)?)?;
        if broker_version >= version::V5_0_0 {
            for _ in 0..count(&mut rest)? {
                let mapping: super::TopicQueueMappingInfo = json::from_slice(part(&mut rest)?)?;
                if let Some(topic) = mapping.topic.clone() {
                    table.topic_queue_mapping_info_map.insert(topic, mapping);
                }
            }
        }
        Ok(body)
    }

    /// Writes the compressed form of a broker of the current version.
    pub fn compress(&self) -> Vec<u8> {
        let table = &self.topic_config_serialize_wrapper;
        let mut plain = Vec::new();
        push_part(&mut plain, &json::to_vec(&table.data_version));
        push_count(&mut plain, table.topic_config_table.len());
        for config in table.topic_config_table.values() {
            push_part(&mut plain, topic_to_text(config).as_bytes());
        }
        push_part(&mut plain, &json::to_vec(&self.filter_server_list));
        push_count(&mut plain, table.topic_queue_mapping_info_map.len());
        for mapping in table.topic_queue_mapping_info_map.values() {
            push_part(&mut plain, &json::to_vec(mapping));
        }
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&plain).and_then(|()| encoder.finish()).expect("a Vec takes all bytes")
    }
}

fn count(rest: &mut &[u8]) -> Result<u32, RegisterBodyError> {
    rest.try_get_u32().map_err(|_| RegisterBodyError::End)
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], RegisterBodyError> {
    let length = usize::try_from(count(rest)?).map_err(|_| RegisterBodyError::End)?;
    let (part, after) = rest.split_at_checked(length).ok_or(RegisterBodyError::End)?;
    *rest = after;
    Ok(part)
}

fn push_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a registration is shorter than 4 GiB");
    out.extend_from_slice(&count.to_be_bytes());
}

fn push_part(out: &mut Vec<u8>, part: &[u8]) {
    push_count(out, part.len());
    out.extend_from_slice(part);
}

/// As Java's `TopicConfig.decode`, which leaves the attributes empty if they contain a blank.
fn topic_from_text(text: &str) -> Result<TopicConfig, RegisterBodyError> {
    let wrong = || RegisterBodyError::Topic(text.chars().take(200).collect());
    let mut words = text.split(' ');
    let mut word = || words.next().ok_or_else(wrong);
    let topic_name = Topic::new(word()?);
    let read_queue_nums = word()?.parse().map_err(|_| wrong())?;
    let write_queue_nums = word()?.parse().map_err(|_| wrong())?;
    let perm = Perm(word()?.parse().map_err(|_| wrong())?);
    let topic_filter_type = word()?.to_owned();
    let attributes = words.next().and_then(|attributes| json::from_str(attributes).ok()).unwrap_or_default();
    Ok(TopicConfig {
        topic_name,
        read_queue_nums,
        write_queue_nums,
        perm,
        topic_filter_type,
        attributes,
        ..TopicConfig::default()
    })
}

/// As Java's `TopicConfig.encode`.
fn topic_to_text(config: &TopicConfig) -> String {
    let attributes = json::to_vec(&config.attributes);
    format!(
        "{} {} {} {} {} {}",
        config.topic_name,
        config.read_queue_nums,
        config.write_queue_nums,
        config.perm.0,
        config.topic_filter_type,
        String::from_utf8_lossy(&attributes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DataVersion;
    use proptest::prelude::*;

    fn body() -> RegisterBrokerBody {
        let mut body = RegisterBrokerBody::default();
        let table = &mut body.topic_config_serialize_wrapper;
        table.data_version = DataVersion { counter: 2, state_version: 0, timestamp: 1 };
        let topic = Topic::new("T");
        table.topic_config_table.insert(topic.clone(), TopicConfig::new(topic, 4, Perm::READ_WRITE));
        body
    }

    #[test]
    fn compressed_form_is_that_of_java() {
        let compressed = body().compress();
        assert_eq!(compressed[..2], [0x78, 0xda]);
        let mut plain = Vec::new();
        ZlibDecoder::new(&compressed[..]).read_to_end(&mut plain).unwrap();
        let topic = "T 4 4 6 SINGLE_TAG {}";
        let mut expected = b"\0\0\0\x2c{\"counter\":2,\"stateVersion\":0,\"timestamp\":1}\0\0\0\x01".to_vec();
        push_part(&mut expected, topic.as_bytes());
        expected.extend_from_slice(b"\0\0\0\x02[]\0\0\0\0");
        assert_eq!(plain, expected);
        assert_eq!(RegisterBrokerBody::decompress(&compressed, version::CURRENT).unwrap(), body());
    }

    #[test]
    fn older_brokers_have_no_static_topics() {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(b"\0\0\0\x02{}\0\0\0\x01\0\0\0\x18T 4 4 6 SINGLE_TAG a b c\0\0\0\x02[]").unwrap();
        let compressed = encoder.finish().unwrap();
        let body = RegisterBrokerBody::decompress(&compressed, version::V5_0_0 - 1).unwrap();
        assert_eq!(body.topic_config_serialize_wrapper.topic_config_table.len(), 1);
        assert!(matches!(
            RegisterBrokerBody::decompress(&compressed, version::V5_0_0),
            Err(RegisterBodyError::End)
        ));
    }

    #[test]
    fn plain_form_of_java_is_read() {
        let text = r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":2,"stateVersion":0,"timestamp":1},"mappingDataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"topicConfigTable":{"T":{"attributes":{},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"T","topicSysFlag":0,"writeQueueNums":4}},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}}"#;
        assert_eq!(json::from_str::<RegisterBrokerBody>(text).unwrap(), body());
        let written = String::from_utf8(json::to_vec(&body())).unwrap();
        assert_eq!(written, text.replace(r#""topicQueueMappingDetailMap":{},"#, ""));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = RegisterBrokerBody::decompress(&bytes, version::CURRENT);
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&bytes).unwrap();
            let _ = RegisterBrokerBody::decompress(&encoder.finish().unwrap(), version::CURRENT);
        }
    }
}
