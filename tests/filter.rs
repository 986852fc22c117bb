//! SQL92 expressions beside what RocketMQ's own classes say of them: `filter/README.md`.

use quorate::filter::Sql;
use quorate::message::PropertiesRef;

const JAVA: &str = include_str!("filter/java-5.5.0.txt");

#[test]
fn expressions_mean_what_they_mean_in_java() {
    let (mut expression, mut sql, mut said) = (String::new(), None, 0);
    for line in JAVA.lines() {
        match line.strip_prefix('\t') {
            Some(case) => {
                let mut fields = case.split('\t').map(plain);
                let wanted = fields.next().unwrap() == "true";
                let properties: String =
                    fields.map(|property| property.replacen('=', "\u{1}", 1) + "\u{2}").collect();
                let sql: &Sql = sql.as_ref().unwrap_or_else(|| panic!("{expression} is taken by Java"));
                assert_eq!(sql.matches(PropertiesRef(&properties)), wanted, "{expression}: {case}");
            }
            None => {
                let (text, refused) = line.split_once('\t').unwrap_or((line, ""));
                expression = plain(text);
                sql = Sql::compile(&expression).ok();
                // A remark at the end may be what Java leaves out.
                let is_remark = refused == "more behind it" && expression.contains("--");
                assert!(refused.is_empty() || sql.is_none() || is_remark, "{expression}");
            }
        }
        said += 1;
    }
    assert!(said > 8000, "the file is whole");
}

fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        plain.push(match c {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                other => other.unwrap_or('\\'),
            },
            c => c,
        });
    }
    plain
}
