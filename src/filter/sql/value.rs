//! Values and how they compare. Source: RocketMQ `ComparisonExpression.__compare`, which compares by Java's types.

use std::cmp::Ordering;

use super::Mismatch;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(&'a str),
}

/// A value that stands in an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Constant {
    Null,
    Bool(bool),
    Int(i32),
    Long(i64),
    Double(f64),
    Text(Box<str>),
}

impl Constant {
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(is) => Value::Bool(*is),
            Self::Int(value) => Value::Int(*value),
            Self::Long(value) => Value::Long(*value),
            Self::Double(value) => Value::Double(*value),
            Self::Text(text) => Value::Text(text),
        }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Long(_) | Self::Double(_))
    }
}

impl Value<'_> {
    /// Compares two values that are not null. `None` if their types have nothing to do with each other.
    pub(super) fn compare(self, other: Self) -> Result<Option<Ordering>, Mismatch> {
        use Value::*;
        Ok(Some(match (self, other) {
            (Bool(left), Bool(right)) => left.cmp(&right),
            (Int(left), Int(right)) => left.cmp(&right),
            (Long(left), Long(right)) => left.cmp(&right),
            (Int(left), Long(right)) => i64::from(left).cmp(&right),
            (Long(left), Int(right)) => left.cmp(&i64::from(right)),
            (Double(left), Double(right)) => compare_doubles(left, right),
            (Int(left), Double(right)) => compare_doubles(f64::from(left), right),
            (Double(left), Int(right)) => compare_doubles(left, f64::from(right)),
            (Long(left), Double(right)) => compare_doubles(left as f64, right),
            (Double(left), Long(right)) => compare_doubles(left, right as f64),
            (Text(left), Text(right)) => left.encode_utf16().cmp(right.encode_utf16()),
            // Java casts the condition to a text, which fails.
            (Bool(_), Text(_)) => return Err(Mismatch),
            (Text(left), Bool(right)) => left.eq_ignore_ascii_case("true").cmp(&right),
            (Text(left), Int(right)) => whole::<i32>(left)?.cmp(&right),
            (Int(left), Text(right)) => left.cmp(&whole(right)?),
            (Text(left), Long(right)) => whole::<i64>(left)?.cmp(&right),
            (Long(left), Text(right)) => left.cmp(&whole(right)?),
            (Text(left), Double(right)) => compare_doubles(double(left)?, right),
            (Double(left), Text(right)) => compare_doubles(left, double(right)?),
            (Bool(_), Int(_) | Long(_) | Double(_)) | (Int(_) | Long(_) | Double(_), Bool(_)) => {
                return Ok(None);
            }
            (Null, _) | (_, Null) => return Ok(None),
        }))
    }

    /// Reads a text as a number with a fraction.
    pub(super) fn double(text: &str) -> Result<Self, Mismatch> {
        double(text).map(Self::Double)
    }

    /// Returns the value with the other sign; null for what has none.
    pub(super) fn negative(self) -> Self {
        match self {
            Self::Int(value) => Self::Int(value.wrapping_neg()),
            Self::Long(value) => Self::Long(value.wrapping_neg()),
            Self::Double(value) => Self::Double(-value),
            Self::Null | Self::Bool(_) | Self::Text(_) => Self::Null,
        }
    }
}

/// As Java's `Double.compare`: -0 below 0, and not-a-number above everything.
fn compare_doubles(left: f64, right: f64) -> Ordering {
    match (left.is_nan(), right.is_nan()) {
        (false, false) => left.total_cmp(&right),
        (left, right) => left.cmp(&right),
    }
}

/// As Java's `Integer.valueOf` and `Long.valueOf`, but for digits of other scripts.
fn whole<T: std::str::FromStr>(text: &str) -> Result<T, Mismatch> {
    text.parse().map_err(|_| Mismatch)
}

/// As Java's `Double.valueOf`, but for hexadecimal numbers.
fn double(text: &str) -> Result<f64, Mismatch> {
    let text = text.trim_matches(|c| c <= ' ');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        "NaN" => return Ok(f64::NAN),
        "Infinity" => {}
        _ if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') => return Err(Mismatch),
        _ => {}
    }
    let digits =
        if unsigned == "Infinity" { text } else { text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text) };
    digits.parse().map_err(|_| Mismatch)
}
