//! Stored records, batches, properties.

use bytes::Bytes;
use quorate::filter::Filter;
use quorate::message::{
    Message, OffsetMessageId, Properties, PropertiesRef, Record, RecordError, Scanned, crc32, decode_batch,
    encode_batch, encode_record, java_hash, patch_record, records, scan, tags_code,
};
use quorate::model::PhysicalOffset;

pub(super) fn record(data: &[u8]) {
    let mut at = 0;
    for record in records(data) {
        let Ok(record) = record else { break };
        at += record.total_size;
        assert!(at <= data.len());
    }
    let Ok(found) = Record::decode(data) else { return };
    assert!(found.body.len() + found.topic.len() + found.properties.len() < found.total_size);
    // With the CRC that it should have.
    let mut good = data[..found.total_size].to_vec();
    good[8..12].copy_from_slice(&crc32(found.body).to_be_bytes());
    let position = found.physical_offset;
    match scan(&good, position) {
        Scanned::Record(record) => {
            record.check_body().expect("what is scanned was checked");
            again(&record);
        }
        Scanned::End(RecordError::Order | RecordError::Torn) => {}
        other => panic!("{other:?}"),
    }
    if position.0 > 0 {
        let elsewhere = scan(&good, PhysicalOffset(position.0 - 1));
        assert!(matches!(elsewhere, Scanned::End(_)), "a record is good at its own place only");
    }
    if !found.body.is_empty() {
        let last = found.total_size - 1;
        let body = good.windows(found.body.len()).position(|window| window == found.body).unwrap_or(last);
        good[body] ^= 1;
        assert!(!matches!(scan(&good, position), Scanned::Record(record) if record.body != found.body));
    }
    let _ = tags_code(found.properties().get("TAGS"));
}

/// Writes a record and reads it again.
fn again(record: &Record<'_>) {
    let message = Message {
        topic: record.topic,
        queue_id: record.queue_id,
        flag: record.flag,
        sys_flag: record.sys_flag,
        born_timestamp: record.born_timestamp,
        born_host: record.born_host,
        store_host: record.store_host,
        reconsume_times: record.reconsume_times,
        prepared_transaction_offset: record.prepared_transaction_offset,
        body: record.body,
        properties: record.properties,
    };
    let mut bytes = Vec::new();
    // A topic may be longer in a file of Java's.
    let Ok(len) = encode_record(&message, &mut bytes) else { return };
    assert_eq!(len, bytes.len());
    patch_record(&mut bytes, record.queue_offset, record.physical_offset, record.store_timestamp);
    let read = Record::decode(&bytes).expect("what was written can be read");
    assert_eq!(read, Record { total_size: len, body_crc: read.body_crc, ..*record });
    read.check_body().expect("a record has the CRC of its body");
}

pub(super) fn batch(data: &[u8]) {
    let Ok(messages) = decode_batch(Bytes::copy_from_slice(data)) else { return };
    let held: usize = messages.iter().map(|message| message.body.len() + message.properties.len()).sum();
    assert_eq!(held + 22 * messages.len(), data.len(), "all bytes are accounted for");
    let bytes = encode_batch(&messages);
    assert_eq!(bytes.len(), data.len());
    assert_eq!(decode_batch(bytes.into()).expect("what was written can be read"), messages);
}

pub(super) fn properties(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let all: Vec<_> = PropertiesRef(&text).iter().collect();
    assert!(all.len() <= text.len());
    let get = |name: &str| all.iter().rfind(|(known, _)| *known == name).map(|(_, value)| *value);
    for (name, _) in &all {
        assert_eq!(PropertiesRef(&text).get(name), get(name));
        let mut without = Properties::new(&text);
        without.remove(name);
        assert_eq!(without.get(name), None);
    }
    let terminated = Properties::new(&text).terminated();
    assert!(terminated.as_str().is_empty() || terminated.as_str().ends_with('\u{2}'));
    assert!(PropertiesRef(terminated.as_str()).iter().eq(all.iter().copied()));
    let mut changed = Properties::new(&text);
    let value = text.get(..text.len().min(9)).unwrap_or("v");
    changed.set("KEYS", value);
    let kept: String = value.chars().filter(|c| !matches!(c, '\u{1}' | '\u{2}')).collect();
    assert_eq!(changed.get("KEYS"), Some(kept.as_str()).filter(|kept| !kept.is_empty()));
    for (name, _) in all.iter().filter(|(name, _)| *name != "KEYS") {
        assert_eq!(changed.get(name), get(name));
    }
    let _ = (java_hash(&text), OffsetMessageId::parse(&text));
    if let Ok(filter) = Filter::tags(&text) {
        let _ = filter.wants_code(tags_code(Some(&text)));
    }
}
