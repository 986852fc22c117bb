//! The body of a batch: messages back to back, each of which becomes a record of its own.

use bytes::{Buf, Bytes};

/// Why a batch body was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The body ends inside a message, or a length in it is negative or wrong.
    #[error("the batch is broken at byte {0}")]
    Broken(usize),
    /// A message's properties are not UTF-8.
    #[error("the properties of message {0} of the batch are not UTF-8")]
    Properties(usize),
}

/// One message of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchMessage {
    /// User flag.
    pub flag: i32,
    /// Body as the client sent it.
    pub body: Bytes,
    /// Property string.
    pub properties: String,
}

/// totalSize, magic, bodyCRC, flag, bodyLength, propertiesLength.
const FIXED: usize = 4 + 4 + 4 + 4 + 4 + 2;

/// Splits a batch body. Source: RocketMQ `MessageDecoder.decodeMessages`.
pub fn decode_batch(mut body: Bytes) -> Result<Vec<BatchMessage>, BatchError> {
    let whole = body.len();
    let mut messages = Vec::new();
    while body.has_remaining() {
        let at = whole - body.len();
        let message = decode_one(&mut body).ok_or(BatchError::Broken(at))?;
        let properties =
            String::from_utf8(message.2.into()).map_err(|_| BatchError::Properties(messages.len()))?;
        messages.push(BatchMessage { flag: message.0, body: message.1, properties });
    }
    Ok(messages)
}

fn decode_one(rest: &mut Bytes) -> Option<(i32, Bytes, Bytes)> {
    if rest.len() < FIXED {
        return None;
    }
    let total = usize::try_from(rest.get_i32()).ok()?;
    rest.advance(4 + 4);
    let flag = rest.get_i32();
    let body_len = usize::try_from(rest.get_i32()).ok()?;
    if body_len > rest.len().checked_sub(2)? {
        return None;
    }
    let body = rest.split_to(body_len);
    let properties_len = usize::try_from(rest.get_i16()).ok()?;
    if properties_len > rest.len() || total != FIXED + body_len + properties_len {
        return None;
    }
    Some((flag, body, rest.split_to(properties_len)))
}

/// Joins messages to a batch body, as Java's `MessageDecoder.encodeMessages`.
pub fn encode_batch(messages: &[BatchMessage]) -> Vec<u8> {
    let mut out = Vec::new();
    for message in messages {
        let total = FIXED + message.body.len() + message.properties.len();
        out.extend(i32::try_from(total).unwrap_or(i32::MAX).to_be_bytes());
        out.extend([0; 8]);
        out.extend(message.flag.to_be_bytes());
        out.extend(i32::try_from(message.body.len()).unwrap_or(i32::MAX).to_be_bytes());
        out.extend(&message.body);
        out.extend(i16::try_from(message.properties.len()).unwrap_or(i16::MAX).to_be_bytes());
        out.extend(message.properties.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_made_by_java_is_split() {
        let mut body = vec![0, 0, 0, 0x33];
        body.extend([0; 12]);
        body.extend([0, 0, 0, 1, 0x78, 0, 0x1c]);
        body.extend(b"KEYS\x01K1\x02WAIT\x01true\x02TAGS\x01TagA\x02");
        let messages = decode_batch(body.clone().into()).unwrap();
        assert_eq!(messages.len(), 1);
        assert_eq!(&messages[0].body[..], b"x");
        assert_eq!(messages[0].properties, "KEYS\u{1}K1\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}");
        assert_eq!(encode_batch(&messages), body);
    }

    proptest! {
        #[test]
        fn any_bytes_are_split_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_batch(body.into());
        }

        #[test]
        fn a_cut_batch_is_refused(bodies in proptest::collection::vec(".{0,20}", 1..5), cut in 1usize..20) {
            let messages: Vec<_> = bodies
                .into_iter()
                .map(|b| BatchMessage { flag: 3, body: b.into_bytes().into(), properties: "a\u{1}b\u{2}".into() })
                .collect();
            let body = encode_batch(&messages);
            prop_assert_eq!(decode_batch(body.clone().into()).unwrap(), messages);
            let short = body.len() - cut.min(FIXED - 1);
            prop_assert!(decode_batch(body[..short].to_vec().into()).is_err());
        }
    }
}
