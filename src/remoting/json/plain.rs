//! Finds the stretches of a text that need no attention, eight bytes at a time.
//!
//! Most of a header is such stretches, and looking at each byte alone took a third of the time of parsing one.

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// Returns the number of bytes before the first `quote` or backslash; all of them if there is none.
pub(super) fn before_quote(bytes: &[u8], quote: u8) -> usize {
    prefix(bytes, |block| equal(block, quote) | equal(block, b'\\'), |byte| byte == quote || byte == b'\\')
}

/// Returns the number of bytes before the first one that has to be escaped.
pub(super) fn before_escape(bytes: &[u8], ascii_only: bool) -> usize {
    let beyond_ascii = if ascii_only { HIGH_BITS } else { 0 };
    prefix(
        bytes,
        |block| {
            let control = block.wrapping_sub(ONES * 0x20) & !block & HIGH_BITS;
            control | equal(block, b'"') | equal(block, b'\\') | block & beyond_ascii
        },
        |byte| byte < 0x20 || byte == b'"' || byte == b'\\' || byte >= 0x80 && ascii_only,
    )
}

/// `marks` is not 0 if `special` holds for one of the eight bytes of a block; it may also err on that side.
fn prefix(bytes: &[u8], marks: impl Fn(u64) -> u64, special: impl Fn(u8) -> bool) -> usize {
    let (blocks, _) = bytes.as_chunks::<8>();
    let plain = 8 * blocks.iter().take_while(|block| marks(u64::from_le_bytes(**block)) == 0).count();
    let rest = bytes.get(plain..).unwrap_or_default();
    match rest.iter().position(|byte| special(*byte)) {
        Some(at) => plain + at,
        None => bytes.len(),
    }
}

/// Returns a mark if one of the bytes of `block` is `byte`.
fn equal(block: u64, byte: u8) -> u64 {
    let difference = block ^ (ONES * u64::from(byte));
    difference.wrapping_sub(ONES) & !difference & HIGH_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_special_byte_is_found(bytes in proptest::collection::vec(any::<u8>(), 0..40), ascii_only: bool) {
            let quote = bytes.iter().position(|b| matches!(b, b'\'' | b'\\'));
            prop_assert_eq!(before_quote(&bytes, b'\''), quote.unwrap_or(bytes.len()));
            let escape = bytes.iter().position(|b| matches!(b, 0..0x20 | b'"' | b'\\') || *b >= 0x80 && ascii_only);
            prop_assert_eq!(before_escape(&bytes, ascii_only), escape.unwrap_or(bytes.len()));
        }

        #[test]
        fn special_bytes_are_found_wherever_they_are(at in 0usize..20, len in 20usize..30, which in 0usize..4) {
            let mut bytes = vec![b'a'; len];
            bytes[at] = [b'"', b'\\', 0x1f, 0x80][which];
            prop_assert_eq!(before_quote(&bytes, b'"'), if which < 2 { at } else { len });
            prop_assert_eq!(before_escape(&bytes, true), at);
            prop_assert_eq!(before_escape(&bytes, false), if which < 3 { at } else { len });
        }
    }
}
