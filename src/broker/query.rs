//! Finding messages: QUERY_MESSAGE (12), VIEW_MESSAGE_BY_ID (33). Source: RocketMQ `QueryMessageProcessor`.

use std::sync::Arc;

use bytes::Bytes;

use super::context::{Context, blocking};
use super::reply::{Reply, later};
use super::response::Error;
use crate::message::{Record, key};
use crate::model::PhysicalOffset;
use crate::remoting::header::{
    QueryMessageRequestHeader, QueryMessageResponseHeader, ViewMessageRequestHeader,
};
use crate::remoting::{Command, ResponseCode};
use crate::store::IndexQuery;

/// Ext field: the key is a unique key.
const UNIQUE_KEY_QUERY: &str = "_UNIQUE_KEY_QUERY";
/// Bytes of messages in one answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// QUERY_MESSAGE: messages by key or unique key, newest first.
pub(crate) fn by_key(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let header: QueryMessageRequestHeader = request.header()?;
    let unique = request.ext_fields.get(UNIQUE_KEY_QUERY) == Some("true");
    let config = context.config();
    // A unique key is asked for alone, whatever number the client names.
    let wanted =
        if unique { config.default_query_max_num } else { u32::try_from(header.max_num).unwrap_or(0) };
    let count_max = wanted.min(config.default_query_max_num.max(64)) as usize;
    let context = Arc::clone(context);
    Ok(later(blocking(move || {
        let by_tag = header.index_type.as_deref() == Some("T");
        let index_key = if by_tag { format!("T#{}", header.key) } else { header.key.clone() };
        let positions = context.store().index().query(&IndexQuery {
            topic: &header.topic,
            key: &index_key,
            count_max,
            begin_timestamp: header.begin_timestamp,
            end_timestamp: header.end_timestamp,
        })?;
        let mut records: Vec<Bytes> = Vec::new();
        let mut bytes = 0;
        for position in positions {
            let Some(found) = context.store().log().record(position) else { continue };
            let matches = Record::decode(&found).is_ok_and(|record| has_key(&record, &header, by_tag));
            if matches && (records.is_empty() || bytes + found.len() <= ANSWER_BYTES_MAX) {
                bytes += found.len();
                records.push(found);
            }
        }
        let (timestamp, position) = context.store().index().newest();
        let indexed = QueryMessageResponseHeader {
            index_last_update_timestamp: timestamp,
            index_last_update_phyoffset: i64::try_from(position.0).unwrap_or(i64::MAX),
        };
        if records.is_empty() {
            let error = Error::QueryNotFound("can not find message, maybe time range not correct".into());
            return Ok(Command::from(error).with_header(&indexed));
        }
        Ok(Command::response(ResponseCode::Success).with_header(&indexed).with_body(records))
    })))
}

/// Keys with the same hash are next to each other in the index; only the message tells them apart.
fn has_key(record: &Record<'_>, header: &QueryMessageRequestHeader, by_tag: bool) -> bool {
    let properties = record.properties();
    let key = header.key.as_str();
    record.topic == header.topic.as_str()
        && if by_tag {
            properties.get(key::TAGS) == Some(key)
        } else {
            properties.get(key::UNIQ_KEY) == Some(key)
                || properties
                    .get(key::KEYS)
                    .is_some_and(|keys| keys.split_whitespace().any(|word| word == key))
        }
}

/// VIEW_MESSAGE_BY_ID: the record at a position.
pub(crate) fn by_offset(context: &Arc<Context>, request: &Command) -> Result<Reply, Error> {
    let header: ViewMessageRequestHeader = request.header()?;
    let context = Arc::clone(context);
    Ok(later(blocking(move || {
        let offset = u64::try_from(header.offset).ok();
        match offset.and_then(|offset| context.store().log().record(PhysicalOffset(offset))) {
            Some(record) => Ok(Command::response(ResponseCode::Success).with_body(record)),
            None => Err(Error::System(format!("can not find message by the offset, {}", header.offset))),
        }
    })))
}
