//! Which messages a subscription wants: by their tags, or by an SQL92 expression over their properties.
//!
//! Source of the behaviour: RocketMQ `FilterAPI`, `ExpressionMessageFilter`.

mod sql;

pub use sql::{Sql, SqlError};

use std::sync::Arc;

use crate::message::{PropertiesRef, java_hash};

/// What a subscription wants.
#[derive(Debug, Clone)]
pub enum Filter {
    /// `*`, or nothing.
    All,
    /// Hashes of the wanted tags, sorted. Clients compare the text again, so a collision does no harm.
    Tags(Arc<[i32]>),
    /// What the expression is true for.
    Sql(Arc<Sql>),
}

/// Why there is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No tag is left between the bars.
    #[error("the tag expression {0:?} names no tag; write A || B, or *")]
    NoTag(String),
    /// The expression is not SQL92 as RocketMQ has it.
    #[error("{0}")]
    Sql(#[from] SqlError),
    /// There is no such kind of expression.
    #[error("filters of type {0} are not known; use TAG or SQL92")]
    Type(String),
}

impl Filter {
    /// Reads the expression of a subscription. Without a type it is one of tags.
    pub fn compile(expression_type: Option<&str>, expression: Option<&str>) -> Result<Self, Error> {
        let expression = expression.unwrap_or("*");
        match expression_type {
            kind if is_by_tags(kind) => Self::tags(expression),
            Some("SQL92") => Ok(Self::Sql(Arc::new(Sql::compile(expression)?))),
            other => Err(Error::Type(other.unwrap_or_default().to_owned())),
        }
    }

    /// Reads `A || B`.
    pub fn tags(expression: &str) -> Result<Self, Error> {
        if matches!(expression.trim(), "" | "*") {
            return Ok(Self::All);
        }
        let tags: Vec<&str> = expression.split("||").map(str::trim).filter(|tag| !tag.is_empty()).collect();
        if tags.is_empty() {
            return Err(Error::NoTag(expression.to_owned()));
        }
        let mut hashes: Vec<_> = tags.into_iter().map(java_hash).collect();
        hashes.sort_unstable();
        Ok(Self::Tags(hashes.into()))
    }

    /// Returns whether a message may be wanted as far as its queue entry tells.
    pub fn wants_code(&self, tags_code: i64) -> bool {
        match self {
            Self::All | Self::Sql(_) => true,
            Self::Tags(codes) => {
                i32::try_from(tags_code).is_ok_and(|code| codes.binary_search(&code).is_ok())
            }
        }
    }

    /// Returns the expression that a message's properties have to be looked at for.
    pub fn sql(&self) -> Option<&Sql> {
        match self {
            Self::Sql(sql) => Some(sql),
            Self::All | Self::Tags(_) => None,
        }
    }

    /// Returns whether a message with this tagsCode and these properties is wanted.
    pub fn wants(&self, tags_code: i64, properties: PropertiesRef<'_>) -> bool {
        self.wants_code(tags_code) && self.sql().is_none_or(|sql| sql.matches(properties))
    }
}

/// Returns whether the type of an expression, as subscriptions and pulls have it, means tags.
pub fn is_by_tags(expression_type: Option<&str>) -> bool {
    matches!(expression_type, None | Some("" | "TAG"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tags_code;

    #[test]
    fn tag_expressions_select_by_hash() {
        let ab = Filter::tags("TagA || TagB").unwrap();
        assert!(ab.wants_code(tags_code(Some("TagA"))) && ab.wants_code(tags_code(Some("TagB"))));
        assert!(!ab.wants_code(tags_code(Some("TagC"))) && !ab.wants_code(0));
        for all in ["*", "", "  "] {
            assert!(Filter::tags(all).unwrap().wants_code(7));
        }
        assert_eq!(Filter::tags("||").unwrap_err(), Error::NoTag("||".into()));
    }

    #[test]
    fn a_filter_is_of_the_type_that_it_says() {
        for by_tags in [None, Some(""), Some("TAG")] {
            assert!(matches!(Filter::compile(by_tags, Some("A")), Ok(Filter::Tags(_))), "{by_tags:?}");
        }
        let sql = Filter::compile(Some("SQL92"), Some("a = 1")).unwrap();
        assert!(sql.wants(7, PropertiesRef("a\u{1}1\u{2}")) && !sql.wants(7, PropertiesRef("a\u{1}2\u{2}")));
        assert_eq!(Filter::compile(Some("SQL"), Some("a = 1")).unwrap_err(), Error::Type("SQL".into()));
    }
}
