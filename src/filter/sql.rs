//! SQL92 expressions over the properties of a message.
//!
//! Grammar and meaning are those of RocketMQ's `SelectorParser.jj` and the classes of
//! `org.apache.rocketmq.filter.expression`, which `tests/filter` compares with: a missing property is null; a text that is
//! compared with a number has to be one of the number's kind, or nothing matches; an expression that comes to null or
//! cannot be worked out matches nothing.
//!
//! Unlike there, something behind the end of an expression is an error (Java leaves it out), but for a remark behind `--`,
//! as are expressions longer than [`LENGTH_MAX`] or nested deeper than [`DEPTH_MAX`].

mod parse;
mod token;
mod value;

use crate::message::PropertiesRef;
use parse::Node;
use value::Value;

/// Longest expression in bytes.
pub(crate) const LENGTH_MAX: usize = 64 << 10;
/// Deepest nesting, of parentheses or of signs and NOTs.
pub(crate) const DEPTH_MAX: usize = 200;

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// Something is wrong at a character, counted from 1.
    #[error("at character {at}: {reason}")]
    At {
        /// Where.
        at: usize,
        /// What, and what would be right.
        reason: String,
    },
    /// More than 64 KiB.
    #[error("the expression has {0} bytes, the limit is {LENGTH_MAX}")]
    Length(usize),
}

/// An expression, ready to be asked.
#[derive(Debug)]
pub struct Sql {
    root: Node,
    /// Each property that it names, and which number it has in the expression; sorted.
    names: Vec<(Box<str>, usize)>,
}

/// The expression cannot be worked out for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mismatch;

impl Sql {
    /// Reads an expression.
    pub fn compile(text: &str) -> Result<Self, SqlError> {
        if text.len() > LENGTH_MAX {
            return Err(SqlError::Length(text.len()));
        }
        parse::parse(text)
    }

    /// Returns whether the expression is true of a message with these properties. Takes time in proportion to the length
    /// of both.
    pub fn matches(&self, properties: PropertiesRef<'_>) -> bool {
        let mut values = vec![Value::Null; self.names.len()];
        for (name, value) in properties.iter() {
            if let Ok(at) = self.names.binary_search_by(|(known, _)| known.as_ref().cmp(name)) {
                values[self.names[at].1] = Value::Text(value);
            }
        }
        truth(&self.root, &values) == Ok(Some(true))
    }
}

/// Works out a condition; `None` is null.
fn truth(node: &Node, properties: &[Value<'_>]) -> Result<Option<bool>, Mismatch> {
    let value = |node| value(node, properties);
    Ok(match node {
        Node::And(parts) => joined(parts, properties, false)?,
        Node::Or(parts) => joined(parts, properties, true)?,
        Node::Not(part) => truth(part, properties)?.map(|is| !is),
        Node::Equal(left, right) => match (value(left)?, value(right)?) {
            (Value::Null, Value::Null) => Some(true),
            (Value::Null, _) => None,
            (_, Value::Null) => Some(false),
            (left, right) => Some(left.compare(right)?.is_some_and(std::cmp::Ordering::is_eq)),
        },
        Node::Order(left, order, right) => {
            let left = value(left)?;
            if left == Value::Null {
                return Ok(None);
            }
            match (left, value(right)?) {
                (_, Value::Null) => None,
                (left, right) => {
                    let (left, right) = match (left, right) {
                        (Value::Text(left), Value::Text(right)) => {
                            (Value::double(left)?, Value::double(right)?)
                        }
                        other => other,
                    };
                    // Java takes what cannot be compared for less.
                    Some(order.holds(left.compare(right)?.unwrap_or(std::cmp::Ordering::Less)))
                }
            }
        }
        Node::In(property, texts) => match properties[*property] {
            Value::Text(text) => Some(texts.binary_search_by(|known| known.as_ref().cmp(text)).is_ok()),
            _ => None,
        },
        // Nothing is found in null, which it is not found in either: both are false.
        Node::Search { within, wanted, text, found } => match (text.is_empty(), value(within)) {
            (true, _) => Some(false),
            (false, within) => match within? {
                Value::Text(within) => Some(wanted.is_in(text, within) == *found),
                _ => Some(false),
            },
        },
        // As a condition, a property that is there is false.
        Node::Property(number) => match properties[*number] {
            Value::Null => None,
            _ => Some(false),
        },
        Node::Constant(constant) => match constant.value() {
            Value::Bool(is) => Some(is),
            _ => None,
        },
        Node::Negative(_) => None,
    })
}

/// Works out conditions up to the first that decides about all of them: one that is `decisive`.
fn joined(parts: &[Node], properties: &[Value<'_>], decisive: bool) -> Result<Option<bool>, Mismatch> {
    let mut joined = Some(!decisive);
    for part in parts {
        match truth(part, properties)? {
            Some(is) if is == decisive => return Ok(Some(decisive)),
            Some(_) => {}
            None => joined = None,
        }
    }
    Ok(joined)
}

fn value<'a>(node: &'a Node, properties: &[Value<'a>]) -> Result<Value<'a>, Mismatch> {
    Ok(match node {
        Node::Property(number) => properties[*number],
        Node::Constant(constant) => constant.value(),
        Node::Negative(of) => value(of, properties)?.negative(),
        condition => truth(condition, properties)?.map_or(Value::Null, Value::Bool),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, properties: &[(&str, &str)]) -> bool {
        let text: String =
            properties.iter().map(|(name, value)| format!("{name}\u{1}{value}\u{2}")).collect();
        Sql::compile(expression)
            .unwrap_or_else(|error| panic!("{expression}: {error}"))
            .matches(PropertiesRef(&text))
    }

    #[test]
    fn conditions_have_three_values() {
        let set = [("a", "1"), ("t", "text")];
        for (expression, expected) in [
            ("a = 1", true),
            ("a = 1 AND missing = 1", false),
            ("a = 1 OR missing = 1", true),
            ("missing = 1 OR a = 1", true),
            ("NOT (missing = 1)", false),
            ("missing IS NULL", true),
            ("missing IS NOT NULL", false),
            ("a IS NOT NULL", true),
            ("missing <> 1", false),
            ("t IN ('text', 'other')", true),
            ("t NOT IN ('text', 'other')", false),
            ("missing NOT IN ('text')", false),
            ("missing NOT CONTAINS 'x'", false),
            ("t CONTAINS 'ex' AND t STARTSWITH 'te' AND t ENDSWITH 'xt'", true),
            ("t NOT CONTAINS 'y'", true),
            ("a BETWEEN 0 AND 1", true),
            ("a NOT BETWEEN 0 AND 1", false),
            ("TRUE", true),
            ("NULL", false),
            ("NOT t", true),
            ("t", false),
            ("a = -(-1)", true),
            ("a = --1", true),
            ("a = 1 -- it's one", true),
            ("a = -- one\n1", true),
        ] {
            assert_eq!(matches(expression, &set), expected, "{expression}");
        }
    }

    #[test]
    fn a_text_has_to_be_a_number_of_the_kind_that_it_is_compared_with() {
        let set = [("d", "-3.0"), ("n", "3000000000"), ("b", "TRUE"), ("t", "text")];
        for (expression, expected) in [
            // Found by the conformance kit: -3.0 is no integer, which ends the whole expression.
            ("d < 0 OR d > 2", false),
            ("d < 0.5 OR d > 2.0", true),
            ("n > 1", false),
            ("n > 1.5", true),
            ("n = 3000000000", true),
            ("b = TRUE", true),
            ("TRUE = b", false),
            ("t > 1", false),
            ("NOT (t > 1)", false),
            ("n > d", true),
            ("t > d", false),
        ] {
            assert_eq!(matches(expression, &set), expected, "{expression}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (expression, error) in [
            ("", "at character 1: a value or a property is missing"),
            ("a = ", "at character 5: a value or a property is missing"),
            ("a = 1 b", "at character 7: AND, OR or the end was expected, not b"),
            ("a != 1", "at character 3: ! means nothing here; not equal is <>"),
            ("a = 'open", "at character 5: the text has no end; a ' in it is written ''"),
            ("a > 'x'", "at character 3: only numbers and properties have an order"),
            ("a = NULL", "at character 3: nothing equals NULL; write IS NULL or IS NOT NULL"),
            ("1", "at character 1: this is no condition"),
            ("a BETWEEN 2 AND 1", "at character 3: BETWEEN has its higher value first"),
            ("1 IN ('a')", "at character 3: IN is for properties"),
            ("a IN (1)", "at character 7: a text in '' was expected, not 1"),
            ("a = 9223372036854775808", "at character 5: the number is out of range"),
            ("a = 0.0", "at character 5: the number is out of range"),
            ("a = 007", "at character 5: a whole number does not begin with 0"),
            ("(a = 1", "at character 7: ) is missing"),
            ("/* a", "at character 1: the comment has no end"),
            ("ä = 1", "at character 1: ä means nothing here"),
        ] {
            assert_eq!(Sql::compile(expression).unwrap_err().to_string(), error, "{expression}");
        }
        let long = "a".repeat(LENGTH_MAX + 1);
        assert_eq!(Sql::compile(&long).unwrap_err(), SqlError::Length(LENGTH_MAX + 1));
    }

    #[test]
    fn depth_is_bounded_and_length_is_not_depth() {
        for nested in ["(", "NOT ", "- "] {
            let text = nested.repeat(DEPTH_MAX + 1) + "a";
            let error = Sql::compile(&text).unwrap_err().to_string();
            assert!(error.contains("nested deeper than 200"), "{error}");
        }
        let chain = "a".to_owned() + &" IS NULL".repeat(DEPTH_MAX + 1);
        assert!(Sql::compile(&chain).unwrap_err().to_string().contains("nested deeper"));
        let wide = vec!["a = 1"; 5000].join(" OR ");
        assert!(matches(&wide, &[("a", "1")]));
    }

    #[test]
    fn the_last_of_several_values_counts() {
        assert!(matches("a = 2", &[("a", "1"), ("a", "2")]));
    }
}
