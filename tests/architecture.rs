//! Guards the layers: which module may use which. A new edge is a change of the design; see ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Each module with all others that it uses.
const EDGES: [(&str, &[&str]); 14] = [
    ("model", &[]),
    ("env", &[]),
    ("fields", &[]),
    ("metrics", &[]),
    ("config", &["env", "fields"]),
    ("message", &["env", "model"]),
    ("filter", &["message"]),
    ("remoting", &["fields", "model"]),
    ("metadata", &["env", "model", "remoting"]),
    ("store", &["env", "filter", "message", "metrics", "model"]),
    ("replication", &["env", "filter", "message", "metadata", "metrics", "model", "store"]),
    (
        "broker",
        &[
            "config",
            "env",
            "filter",
            "message",
            "metadata",
            "metrics",
            "model",
            "remoting",
            "replication",
            "store",
        ],
    ),
    ("namesrv", &["config", "env", "model", "remoting"]),
    ("admin", &["config", "env", "message", "model", "remoting"]),
];

/// Words that may not stand in a module's code.
const ABSENT: [(&str, &[&str]); 8] = [
    // No async where there are only files and values.
    ("store", &["tokio", "async fn"]),
    ("metadata", &["tokio", "async fn"]),
    ("message", &["tokio", "async fn"]),
    ("filter", &["tokio", "async fn"]),
    ("config", &["tokio", "async fn"]),
    ("model", &["tokio", "async fn"]),
    // Only replication writes the log and makes it visible.
    ("broker", &["store::Writer", "store::Committer", "metadata.apply("]),
    ("namesrv", &["crate::store"]),
];

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, text) in sources() {
        let used = found.entry(module.clone()).or_default();
        for part in text.split("crate::").skip(1) {
            let heads: Vec<String> = match part.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap_or("").split(',').map(head).collect(),
                None => vec![head(part)],
            };
            used.extend(heads.into_iter().filter(|name| EDGES.iter().any(|(known, _)| known == name)));
        }
        used.remove(&module);
    }
    let expected: BTreeMap<String, BTreeSet<String>> = EDGES
        .iter()
        .map(|(module, uses)| ((*module).to_owned(), uses.iter().map(|name| (*name).to_owned()).collect()))
        .collect();
    assert_eq!(found, expected, "left: the code; right: the table in tests/architecture.rs");
}

#[test]
fn what_is_deliberately_absent_stays_absent() {
    for (module, text) in sources() {
        for (_, words) in ABSENT.iter().filter(|(name, _)| *name == module) {
            for word in *words {
                assert!(!text.contains(word), "{module} must not contain {word:?}");
            }
        }
    }
}

fn head(path: &str) -> String {
    path.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Returns module name and code without comments, for every file of the library.
#[expect(clippy::disallowed_methods, reason = "a test reads the sources")]
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files
        .into_iter()
        .filter_map(|path| {
            let inside = path.strip_prefix(&root).expect("below src");
            let module = inside.components().next()?.as_os_str().to_str()?.trim_end_matches(".rs").to_owned();
            if module == "bin" || module == "lib" {
                return None;
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            Some((module, code.join("\n")))
        })
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
