//! SQL92 expressions.

use quorate::filter::Sql;
use quorate::message::PropertiesRef;

/// An expression, a zero byte, properties.
pub(super) fn sql92(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (expression, properties) =
        text.split_once('\0').unwrap_or((&text, "a\u{1}1\u{2}b\u{1}x\u{2}c\u{1}1.5"));
    let properties = PropertiesRef(properties);
    let sql = match Sql::compile(expression) {
        Ok(sql) => sql,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let is = sql.matches(properties);
    // A comment may be open at the end.
    let not = Sql::compile(&format!("NOT ({expression}\n)"));
    assert!(!(is && not.is_ok_and(|not| not.matches(properties))), "{expression:?} and its negation");
    let Ok(same) = Sql::compile(&format!(" /* */\t({expression}\n)")) else { return };
    assert_eq!(same.matches(properties), is, "{expression:?} in parentheses");
}
