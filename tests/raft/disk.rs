//! Disks that fill: nothing acknowledged is lost, and the group goes on as soon as there is room.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use quorate::env::Disk;
use tokio::time::Instant;

use super::alone;
use super::failover::finish;
use super::group::RaftGroup;
use super::load::Load;
use super::verify::Report;
use crate::harness::wait;

/// Size of the disk that fills.
const DISK: &str = "32m";
/// Messages are kept, however full the disk is, and room is noticed soon.
const SETTINGS: [&str; 4] = [
    "diskMaxUsedSpaceRatio=95",
    "diskSpaceCleanForciblyRatio=100",
    "diskSpaceWarningLevelRatio=99",
    "cleanResourceInterval=200",
];

/// A small file system at a replica's store. Unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; `None` if this process may not, which in CI is an error.
    fn mount(at: &Path) -> Option<Self> {
        Disk::real().make_folder(at).unwrap();
        let options = format!("size={DISK}");
        let mut mount = Process::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Self(at.to_owned()));
        }
        assert!(std::env::var_os("CI").is_none(), "CI needs to mount a tmpfs");
        eprintln!(
            "SKIPPED: full disks of replicas are NOT tested: a tmpfs cannot be mounted, which needs root"
        );
        None
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        let mut dd = Process::new("dd");
        dd.args(["if=/dev/zero", "bs=16k"]).arg(format!("of={}", self.filler().display()));
        // It ends with an error when the disk is full.
        let filled = dd.stderr(Stdio::null()).status().expect("dd runs");
        assert!(!filled.success(), "the disk is not full");
    }

    fn free(&self) {
        Disk::real().remove(&self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Processes that still hold files do not matter.
        let _ = Process::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Starts a group whose first replica has a small disk.
async fn start() -> Option<(RaftGroup, SmallDisk)> {
    let mut group = RaftGroup::prepare(None, &SETTINGS).await;
    let disk = SmallDisk::mount(&group.replicas[0].store)?;
    for replica in 0..3 {
        group.spawn(replica);
    }
    for replica in 0..3 {
        group.booted(replica).await;
    }
    group.healthy().await;
    Some((group, disk))
}

/// Waits until a replica says that its disk is full in such words.
async fn says(group: &mut RaftGroup, replica: usize, words: &str) {
    wait("a replica that says that its disk is full", async || {
        assert_eq!(group.ended(replica), None, "n{replica} ended:\n{}", group.printed(replica));
        group.printed(replica).contains(words).then_some(())
    })
    .await;
}

/// What is expected of replicas whose disk was full.
fn assert_survived(report: &Report, group: &RaftGroup) {
    assert!(report.acked > 0 && report.is_clean(), "{report:#?}");
    let errors = group.errors();
    let expected = ["waits for room", "disk full", "No space left on device"];
    let expected = |line: &&String| !expected.iter().any(|text| line.contains(text));
    let unexpected: Vec<_> = errors.iter().filter(expected).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_with_a_full_disk_catches_up_when_there_is_room() {
    let _alone = alone().await;
    let Some((mut group, disk)) = start().await else { return };
    if group.leader().await == 0 {
        group.transfer(1).await.unwrap();
    }
    let load = Load::start(&group).await;
    let start = Instant::now();
    disk.fill();
    says(&mut group, 0, "the log waits for room on the disk").await;
    // Several segments more, without it.
    load.ledger.grown_by(6000).await;
    let pause = load.ledger.longest_pause_since(start);
    disk.free();
    group.healthy().await;
    load.ledger.grown_by(100).await;
    let report = finish(&mut group, load).await;
    eprintln!("a full follower: longest pause {pause:?}, failed sends {}", report.failed);
    assert_survived(&report, &group);
    assert_eq!(report.failed, 0, "sends failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_a_full_disk_goes_on_when_there_is_room() {
    let _alone = alone().await;
    let Some((mut group, disk)) = start().await else { return };
    if group.leader().await != 0 {
        group.transfer(0).await.unwrap();
    }
    let load = Load::start(&group).await;
    disk.fill();
    says(&mut group, 0, "messages are refused").await;
    // Long enough for those who wait to be told.
    let full = Instant::now();
    tokio::time::sleep(Duration::from_secs(4)).await;
    let before = load.ledger.longest_pause_since(full);
    let freed = Instant::now();
    disk.free();
    let first_ack = load.ledger.first_ack_after(freed).await;
    group.healthy().await;
    load.ledger.grown_by(100).await;
    let report = finish(&mut group, load).await;
    eprintln!(
        "a full leader: pause while full {before:?}, first ack {first_ack:?} after there was room, failed sends {}",
        report.failed
    );
    assert_survived(&report, &group);
}
