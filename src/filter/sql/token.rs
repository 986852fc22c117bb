//! From characters to words, numbers, texts and signs.

use super::SqlError;
use super::value::Constant;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    Word(Word),
    Name(&'a str),
    /// A number or a text.
    Constant(Constant),
    /// `=`, `<>`, `>`, `>=`, `<`, `<=`, `+`, `-`, `(`, `)` or `,`.
    Sign(&'static str),
    /// What no token begins with. It matters only if somebody reads so far.
    Wrong(SqlError),
    End,
}

/// Words that are not names, in whatever case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Not,
    And,
    Or,
    Between,
    In,
    True,
    False,
    Null,
    Is,
    Contains,
    StartsWith,
    EndsWith,
}

const WORDS: [(&str, Word); 12] = [
    ("NOT", Word::Not),
    ("AND", Word::And),
    ("OR", Word::Or),
    ("BETWEEN", Word::Between),
    ("IN", Word::In),
    ("TRUE", Word::True),
    ("FALSE", Word::False),
    ("NULL", Word::Null),
    ("IS", Word::Is),
    ("CONTAINS", Word::Contains),
    ("STARTSWITH", Word::StartsWith),
    ("ENDSWITH", Word::EndsWith),
];

/// Longest first.
const SIGNS: [&str; 11] = ["<>", ">=", "<=", "=", ">", "<", "+", "-", "(", ")", ","];

/// Where a token is, in bytes, and what.
pub(super) type Placed<'a> = (usize, Token<'a>);

/// Splits an expression up to the first thing that is wrong; the last token is [`Token::End`].
pub(super) fn tokens(text: &str) -> Vec<Placed<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        let (begin, token) = match skip_blank(text, at) {
            Ok(begin) if begin == text.len() => break,
            Ok(begin) => match token(text, begin) {
                Ok((token, len)) => {
                    at = begin + len;
                    (begin, token)
                }
                Err(error) => (begin, Token::Wrong(error)),
            },
            Err(error) => (at, Token::Wrong(error)),
        };
        let is_wrong = matches!(token, Token::Wrong(_));
        tokens.push((begin, token));
        if is_wrong {
            break;
        }
    }
    tokens.push((text.len(), Token::End));
    tokens
}

/// Returns the error for what is at a byte of the expression.
pub(super) fn wrong(text: &str, byte: usize, reason: impl Into<String>) -> SqlError {
    SqlError::At { at: text[..byte].chars().count() + 1, reason: reason.into() }
}

/// Returns where something begins that is no blank and no comment. Two dashes begin one only if a line follows.
fn skip_blank(text: &str, mut at: usize) -> Result<usize, SqlError> {
    loop {
        let rest = &text[at..];
        if rest.starts_with([' ', '\t', '\n', '\r', '\u{c}']) {
            at += 1;
        } else if rest.starts_with("--")
            && let Some(len) = rest.find(['\n', '\r'])
        {
            at += len;
        } else if let Some(comment) = rest.strip_prefix("/*") {
            let end = comment.find("*/").ok_or_else(|| wrong(text, at, "the comment has no end"))?;
            at += end + 4;
        } else {
            return Ok(at);
        }
    }
}

/// Returns the token at `at` and its length in bytes.
fn token(text: &str, at: usize) -> Result<(Token<'_>, usize), SqlError> {
    let rest = &text[at..];
    let first = rest.chars().next().expect("there is something");
    let digit_follows = rest[first.len_utf8()..].starts_with(|next: char| next.is_ascii_digit());
    if first.is_ascii_digit() || (first == '.' && digit_follows) {
        return number(text, at);
    }
    if first == '\'' {
        return quoted(rest).ok_or_else(|| wrong(text, at, "the text has no end; a ' in it is written ''"));
    }
    if is_of_name(first) {
        let name = &rest[..rest.find(|c| !is_of_name(c) && !c.is_ascii_digit()).unwrap_or(rest.len())];
        let word = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(name));
        return Ok((word.map_or(Token::Name(name), |(_, word)| Token::Word(*word)), name.len()));
    }
    if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
        return Ok((Token::Sign(sign), sign.len()));
    }
    let hint = match first {
        '!' => "; not equal is <>",
        '"' => "; a text stands in ''",
        _ => "",
    };
    Err(wrong(text, at, format!("{first} means nothing here{hint}")))
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || c == '$'
}

fn quoted(rest: &str) -> Option<(Token<'_>, usize)> {
    let mut value = String::new();
    let mut at = 1;
    loop {
        let quote = at + rest[at..].find('\'')?;
        value.push_str(&rest[at..quote]);
        at = quote + 1;
        if !rest[at..].starts_with('\'') {
            return Some((Token::Constant(Constant::Text(value.into())), at));
        }
        value.push('\'');
        at += 1;
    }
}

fn number(text: &str, at: usize) -> Result<(Token<'_>, usize), SqlError> {
    let rest = &text[at..];
    let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(0);
    let mut len = whole;
    if rest[len..].starts_with('.') {
        len += 1 + digits(len + 1);
    }
    if rest[len..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[len + 1..].starts_with(['+', '-']));
        let exponent = digits(len + 1 + sign);
        if exponent > 0 {
            len += 1 + sign + exponent;
        }
    }
    let out_of_range = || wrong(text, at, "the number is out of range");
    if len > whole {
        let value: f64 = rest[..len].parse().map_err(|_| out_of_range())?;
        // Source: RocketMQ `ConstantExpression.createFloat`, which refuses 0 as it takes the least positive number for
        // the least of all.
        return if value.is_finite() && value > 0.0 {
            Ok((Token::Constant(Constant::Double(value)), len))
        } else {
            Err(out_of_range())
        };
    }
    if whole > 1 && rest.starts_with('0') {
        return Err(wrong(text, at, "a whole number does not begin with 0"));
    }
    let value: i64 = rest[..whole].parse().map_err(|_| out_of_range())?;
    let long = usize::from(&rest[..whole] != "0" && rest[whole..].starts_with(['l', 'L']));
    let constant = i32::try_from(value).map_or(Constant::Long(value), Constant::Int);
    Ok((Token::Constant(constant), whole + long))
}
