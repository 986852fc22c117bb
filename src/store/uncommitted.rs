//! For builds that make the mistake [`KnownBad::UncommittedReads`]: messages that are in the log and not committed.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::env::KnownBad;
use crate::message::records;

type Messages = BTreeMap<(String, u32, u64), Bytes>;

static MESSAGES: Mutex<Messages> = Mutex::new(BTreeMap::new());

/// Notes the messages of an entry.
pub(super) fn note(messages: &Bytes) {
    if !KnownBad::UncommittedReads.is_on() {
        return;
    }
    let mut known = MESSAGES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut at = 0;
    for record in records(messages).flatten() {
        let bytes = messages.slice(at..at + record.total_size);
        known.insert((record.topic.to_owned(), record.queue_id, record.queue_offset.0), bytes);
        at += record.total_size;
    }
}

/// Returns the message at an offset.
pub(super) fn find(topic: &str, queue_id: u32, offset: u64) -> Option<Bytes> {
    let known = MESSAGES.lock().unwrap_or_else(PoisonError::into_inner);
    known.get(&(topic.to_owned(), queue_id, offset)).cloned()
}
