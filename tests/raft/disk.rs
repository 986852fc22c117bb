//! Disks that fill: nothing acknowledged is lost, and the group goes on as soon as there is room.

use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use std::time::Duration;

use quorate::env::Disk;
use tokio::time::Instant;

use super::beside_others;
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

/// Starts a group in which so many replicas, from the first on, have a small disk.
async fn start(small: usize) -> Option<(RaftGroup, Vec<SmallDisk>)> {
    let mut group = RaftGroup::prepare(None, &SETTINGS).await;
    let mounted = (0..small).map(|replica| SmallDisk::mount(&group.replicas[replica].store));
    let disks: Vec<_> = mounted.collect::<Option<_>>()?;
    group.start_all().await;
    Some((group, disks))
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
    let _others = beside_others().await;
    let Some((mut group, disks)) = start(1).await else { return };
    if group.leader().await == 0 {
        group.transfer(1).await.unwrap();
    }
    let load = Load::start_large(&group).await;
    let start = Instant::now();
    disks[0].fill();
    says(&mut group, 0, "the log waits for room on the disk").await;
    // Two segments more, at least, without it.
    load.ledger.grown_by(800).await;
    let pause = load.ledger.longest_pause_since(start);
    disks[0].free();
    group.healthy().await;
    load.ledger.grown_by(100).await;
    let report = finish(&mut group, load).await;
    eprintln!("a full follower: longest pause {pause:?}, failed sends {}", report.failed);
    assert_survived(&report, &group);
    assert_eq!(report.failed, 0, "sends failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_with_a_full_disk_hands_over_to_a_replica_that_has_room() {
    let _others = beside_others().await;
    // The second one has no room either: only the third one will do.
    let Some((mut group, disks)) = start(2).await else { return };
    if group.leader().await != 0 {
        group.transfer(0).await.unwrap();
    }
    disks[1].fill();
    says(&mut group, 1, "messages are refused").await;
    let load = Load::start(&group).await;
    disks[0].fill();
    says(&mut group, 0, "messages are refused").await;
    let full = Instant::now();
    wait("the leadership at the replica that has room", async || {
        // It is not ready before a majority can store something.
        group.status(2).await?.state.starts_with("LEADER").then_some(())
    })
    .await;
    let handed_over = full.elapsed();
    disks[1].free();
    let first_ack = load.ledger.first_ack_after(Instant::now()).await;
    disks[0].free();
    group.healthy().await;
    load.ledger.grown_by(100).await;
    let report = finish(&mut group, load).await;
    eprintln!(
        "a full leader: handed over after {handed_over:?}, first ack {first_ack:?} after a majority had room, failed \
         sends {}",
        report.failed
    );
    assert_survived(&report, &group);
    assert!(handed_over < Duration::from_secs(5), "handed over after {handed_over:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_whose_disks_are_all_full_goes_on_when_there_is_room() {
    let _others = beside_others().await;
    let Some((mut group, disks)) = start(3).await else { return };
    let leader = group.leader().await;
    let load = Load::start(&group).await;
    let start = Instant::now();
    disks.iter().for_each(SmallDisk::fill);
    for replica in 0..3 {
        says(&mut group, replica, "messages are refused").await;
    }
    wait("a send that is refused", async || (!load.ledger.refusals().is_empty()).then_some(())).await;
    let freed = Instant::now();
    disks.iter().for_each(SmallDisk::free);
    let first_ack = load.ledger.first_ack_after(freed).await;
    let pause = load.ledger.longest_pause_since(start);
    assert_eq!(group.healthy().await, leader, "it leads elsewhere no better");
    load.ledger.grown_by(100).await;
    let report = finish(&mut group, load).await;
    eprintln!(
        "full disks: longest pause {pause:?}, first ack {first_ack:?} after there was room, failed sends {}",
        report.failed
    );
    assert_survived(&report, &group);
}
