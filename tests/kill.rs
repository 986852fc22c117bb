//! `kill -9` at random moments while a stock Java client sends: every acknowledged message is there afterwards.

use std::process::Command as Process;
use std::time::Duration;

use crate::harness::{ChildProcess, broker_port, java_clients, start_broker, start_namesrv};

/// Kills in one run; `QUORATE_KILLS` sets another number.
const KILLS: usize = 50;

#[test]
fn acknowledged_messages_survive_kills_under_async_flush() {
    survive_kills("ASYNC_FLUSH");
}

#[test]
fn acknowledged_messages_survive_kills_under_sync_flush() {
    survive_kills("SYNC_FLUSH");
}

fn survive_kills(flush: &str) {
    let Some(class_path) = java_clients() else { return };
    let kills = std::env::var("QUORATE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = folder.path().join("store");
    let acked = folder.path().join("acked");
    let (_namesrv, namesrv_addr) = start_namesrv(folder.path());
    let port = broker_port();
    let flush_setting = format!("flushDiskType={flush}");
    // Small segments, so that kills hit segment borders, too.
    let overrides = [flush_setting.as_str(), "mappedFileSizeCommitLog=4194304", "defaultTopicQueueNums=4"];
    let mut broker = start_broker(namesrv_addr, port, &store, &overrides);
    let java = |arguments: &[&str]| {
        let mut process = Process::new("java");
        process.args(["-Xmx256m", "-cp", &class_path, "quorate.clients.AckedLoad"]).args(arguments);
        process
    };
    let namesrv = namesrv_addr.to_string();
    let acked_text = acked.display().to_string();
    let mut sender =
        ChildProcess::start("sender", &mut java(&["send", &namesrv, "KillTopic", "8", &acked_text]));
    let mut random = fastrand::Rng::new();
    eprintln!("kills {kills}, {flush}, seed {}", random.get_seed());
    for _ in 0..kills {
        let before = lines(&acked);
        wait_for(&mut sender, "acknowledgements after a start", || lines(&acked) > before + 20);
        // A random moment of the load, not a wait for a condition.
        std::thread::sleep(Duration::from_millis(random.u64(0..300)));
        broker.kill();
        broker = start_broker(namesrv_addr, port, &store, &overrides);
    }
    let before = lines(&acked);
    wait_for(&mut sender, "acknowledgements after the last start", || lines(&acked) > before + 20);
    sender.terminate();
    let verified = java(&["verify", &namesrv, "KillTopic", &acked_text, "120"]).output().expect("java runs");
    let report = String::from_utf8_lossy(&verified.stdout).into_owned();
    let errors = String::from_utf8_lossy(&verified.stderr).into_owned();
    eprintln!("{report}");
    assert!(verified.status.success(), "{report}\n{errors}\nbroker:\n{}", broker.output());
    assert!(report.contains("\"lost\":0") && !report.contains("\"acked\":0,"), "{report}");
    assert!(broker.terminate().success(), "{}", broker.output());
}

#[expect(clippy::disallowed_methods, reason = "a test reads its own files")]
fn lines(path: &std::path::Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|byte| **byte == b'\n').count())
}

fn wait_for(sender: &mut ChildProcess, what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within 60 s: {what}\n{}", sender.output());
}
