//! Tags: their hash in the ConsumeQueue, and which messages a tag expression selects.

use std::collections::BTreeSet;

/// Hashes as Java's `String.hashCode`: over UTF-16 units, with wrap-around.
pub fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// Returns the tagsCode of a ConsumeQueue entry: 0 without a tag.
pub fn tags_code(tags: Option<&str>) -> i64 {
    tags.map_or(0, |tags| i64::from(java_hash(tags)))
}

/// A tag expression: all messages, or those with one of some tags.
///
/// Broker side matching is by hash; clients compare the text again, so a collision does no harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionTags {
    /// `*`, or empty.
    All,
    /// Hashes of the wanted tags.
    Codes(BTreeSet<i32>),
}

impl SubscriptionTags {
    /// Reads `A || B`. Source: RocketMQ `FilterAPI.buildSubscriptionData`. `Err` if no tag is left between bars.
    pub fn parse(expression: &str) -> Result<Self, String> {
        if matches!(expression.trim(), "" | "*") {
            return Ok(Self::All);
        }
        let tags: Vec<&str> = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()).collect();
        if tags.is_empty() {
            return Err(format!("the tag expression {expression:?} names no tag; write A || B, or *"));
        }
        Ok(Self::Codes(tags.into_iter().map(java_hash).collect()))
    }

    /// Returns whether a message with this tagsCode may be wanted.
    pub fn matches(&self, tags_code: i64) -> bool {
        match self {
            Self::All => true,
            Self::Codes(codes) => i32::try_from(tags_code).is_ok_and(|code| codes.contains(&code)),
        }
    }
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

    #[test]
    fn tag_expressions_select_by_hash() {
        let ab = SubscriptionTags::parse("TagA || TagB").unwrap();
        assert!(ab.matches(tags_code(Some("TagA"))) && ab.matches(tags_code(Some("TagB"))));
        assert!(!ab.matches(tags_code(Some("TagC"))) && !ab.matches(0));
        for all in ["*", "", "  "] {
            assert!(SubscriptionTags::parse(all).unwrap().matches(7));
        }
        assert!(SubscriptionTags::parse("||").is_err());
    }
}
