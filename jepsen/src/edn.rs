//! EDN, as far as results need it.

use serde_json::Value;

/// Writes a JSON value as EDN; keys become keywords.
pub(crate) fn of(value: &Value) -> String {
    match value {
        Value::Null => "nil".into(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(of).collect::<Vec<_>>().join(" ")),
        Value::Object(members) => {
            let members =
                members.iter().map(|(key, value)| format!(":{} {}", key.replace(' ', "-"), of(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn json_becomes_edn() {
        let value = serde_json::json!({"a b": [1, "x\"y", null], "c": {"d": true}});
        assert_eq!(super::of(&value), "{:a-b [1 \"x\\\"y\" nil], :c {:d true}}");
    }
}
