//! `quorate demo`: it kills, it counts, and it leaves nothing behind.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Runs it, for two minutes at most.
fn demo(args: &[&str]) -> Output {
    let process = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .arg("demo")
        .args(args)
        // Segments of a size that a small disk bears.
        .arg("mappedFileSizeCommitLog=16777216")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(process.id().try_into().unwrap()).unwrap();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(120));
        let _ = kill_process(pid, Signal::KILL);
    });
    process.wait_with_output().unwrap()
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
fn a_group_goes_on_when_its_leader_is_killed() {
    let output = demo(&["--seconds", "6"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{printed}{errors}");
    assert!(count(&printed, "acknowledged") > 0, "{printed}");
    assert!(printed.contains(", the leader of broker-a, at "), "{printed}");
    assert!(printed.contains(" has caught up, "), "{printed}");
    let gap = printed.lines().find_map(|line| line.strip_prefix("longest gap")).unwrap();
    let gap: f64 = gap.split_whitespace().next().unwrap().parse().unwrap();
    // It is a fraction of a second; machines that test are busy.
    assert!(gap < 10.0, "{printed}");
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
