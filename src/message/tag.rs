//! Tags: their hash in the ConsumeQueue.

/// Hashes as Java's `String.hashCode`: over UTF-16 units, with wrap-around.
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// Returns the tagsCode of a ConsumeQueue entry: 0 without a tag.
pub fn tags_code(tags: Option<&str>) -> i64 {
    tags.map_or(0, |tags| i64::from(java_hash(tags)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_java() {
        for (text, hash) in [
            ("", 0),
            ("TagA", 2_598_919),
            ("polygenelubricants", i32::MIN),
            ("中文", 646_394),
            ("😀", 1_772_899),
        ] {
            assert_eq!(java_hash(text), hash, "{text}");
        }
    }
}
