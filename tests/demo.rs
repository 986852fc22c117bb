//! `quorate demo`: it kills, it counts, and it leaves nothing behind.

use std::process::{Command, Output};

fn demo(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate"))
        .arg("demo")
        .args(args)
        // Segments of a size that a small disk bears.
        .arg("mappedFileSizeCommitLog=16777216")
        .output()
        .unwrap()
}

/// Returns the number in the row of `what`.
fn count(printed: &str, what: &str) -> u64 {
    let row = printed.lines().find_map(|line| line.strip_prefix(what)).unwrap();
    let value = row.split_whitespace().next().unwrap();
    value.replace(',', "").parse().unwrap()
}

#[test]
fn a_single_broker_loses_nothing_by_a_kill() {
    let output = demo(&["--replicas", "1", "--seconds", "4"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{printed}{errors}");
    assert!(count(&printed, "acknowledged") > 0, "{printed}");
    assert_eq!((count(&printed, "lost"), count(&printed, "out of order")), (0, 0), "{printed}");
    assert!(printed.contains(" s  kill -9 broker, the leader of broker-a, at "), "{printed}");
    assert!(!printed.contains("data and logs are in"), "{printed}");
}

#[test]
fn a_used_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("n0")).unwrap();
    let output = demo(&["--data", &folder.path().display().to_string()]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains(" is not empty: the demo takes a folder of its own"), "{errors}");
    assert_eq!(output.status.code(), Some(1));
}
