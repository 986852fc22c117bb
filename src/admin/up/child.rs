//! A child process whose output is logged and which ends with its parent.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::log::Log;
use crate::env::Disk;

/// Tells a child which process it must not outlive.
const PARENT_VARIABLE: &str = "QUORATE_PARENT";
/// How long the last output of a child that ended may take to arrive; a grandchild could hold the pipe open.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);

/// What is to be run.
#[derive(Debug)]
pub(super) struct Program {
    /// Its name where it stands before its lines, `broker` or `n0`.
    pub(super) name: String,
    pub(super) executable: PathBuf,
    pub(super) args: Vec<OsString>,
    /// The log file.
    pub(super) log: PathBuf,
}

/// A process that runs. Dropping it kills the process.
pub(super) struct Child {
    name: String,
    pid: u32,
    process: tokio::process::Child,
    /// Reads what the process prints until its pipe closes.
    log: Option<JoinHandle<Log>>,
}

impl Child {
    pub(super) fn start(program: Program) -> Result<Self> {
        let Program { name, executable, args, log } = program;
        let log = Log::open(&name, &log, Disk::real()).with_context(|| format!("open {}", log.display()))?;
        let (reader, writer) = io::pipe().context("make a pipe")?;
        let mut command = Command::new(&executable);
        command
            .args(args)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            // The log is read as text, also by the one who looks for errors in it.
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(writer.try_clone().context("copy a pipe")?)
            .stderr(writer)
            // A group of its own: Ctrl-C reaches the parent only, which stops the children in order.
            .process_group(0)
            .kill_on_drop(true);
        let process = command.spawn().with_context(|| format!("start {}", executable.display()))?;
        // The command holds the parent's copies of the pipe's other end; they must close for the log to end.
        drop(command);
        let pid = process.id().unwrap_or_default();
        let reader = tokio::net::unix::pipe::Receiver::from_owned_fd(reader.into()).context("read a pipe")?;
        Ok(Self { name, pid, process, log: Some(tokio::spawn(copy(reader, log))) })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits for the end of the process, which nobody asked for. May be called again if it was dropped before it
    /// returned.
    pub(super) async fn ended(&mut self) -> End {
        let status = self.process.wait().await;
        let last_lines = self.last_lines().await;
        let killed = status.as_ref().is_ok_and(|status| status.code().is_none());
        let how = match status {
            Ok(status) => describe(status),
            Err(error) => format!("is lost: {error}"),
        };
        End { how: format!("{} (pid {}) {how}", self.name, self.pid), killed, last_lines }
    }

    /// Kills the process with SIGKILL and waits until it is gone.
    pub(super) async fn kill(mut self) -> Result<()> {
        self.process.kill().await.with_context(|| format!("kill the {}", self.name))
    }

    async fn last_lines(&mut self) -> Vec<String> {
        let Some(log) = self.log.as_mut() else { return Vec::new() };
        let ended = timeout(LAST_WORDS_WITHIN, log).await;
        self.log = None;
        ended.ok().and_then(Result::ok).map(|mut log| log.last_lines()).unwrap_or_default()
    }

    /// Asks the process to end, and kills it when it has not done so `within` that time.
    pub(super) async fn stop(mut self, within: Duration) -> Result<()> {
        // An id that is still `Some` has not been waited for, so it cannot be another process's.
        let running = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = running {
            // It may end by itself this very moment, which is fine.
            let _ = rustix::process::kill_process(pid, Signal::INT);
        }
        let ended = timeout(within, self.process.wait()).await;
        if ended.is_err() {
            self.process.kill().await.with_context(|| format!("kill the {}", self.name))?;
            bail!(
                "the {} (pid {}) did not stop within {} s and was killed",
                self.name,
                self.pid,
                within.as_secs()
            );
        }
        self.last_lines().await;
        Ok(())
    }
}

/// How a child ended by itself.
#[derive(Debug, Clone)]
pub(super) struct End {
    /// Who ended and how.
    pub(super) how: String,
    /// Whether by a signal.
    pub(super) killed: bool,
    /// What it printed at last.
    pub(super) last_lines: Vec<String>,
}

impl End {
    /// Returns how it ended, with the last lines.
    pub(super) fn report(&self) -> String {
        let mut report = self.how.clone();
        if !self.last_lines.is_empty() {
            report.push_str("; its last lines:");
            for line in &self.last_lines {
                report.push_str("\n  ");
                report.push_str(line);
            }
        }
        report
    }
}

async fn copy(mut output: impl AsyncRead + Unpin, mut log: Log) -> Log {
    let mut buf = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = output.read(&mut buf).await {
        log.take(&buf[..count]);
    }
    log
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => format!("was killed: {status}"),
    }
}

/// Makes this process end when the process that started it as a child of `quorate up` ends, however that happens.
///
/// Does nothing in a process that was started otherwise. To be called first of all, from the main thread.
pub fn follow_parent() {
    let Some(parent) = std::env::var(PARENT_VARIABLE).ok().and_then(|text| text.parse::<i32>().ok()) else {
        return;
    };
    let asked = rustix::process::set_parent_process_death_signal(Some(Signal::INT));
    // The parent may have gone before the kernel was told.
    let is_orphan = rustix::process::getppid().map(Pid::as_raw_nonzero).map(i32::from) != Some(parent);
    if asked.is_err() || is_orphan {
        std::process::exit(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, folder: &std::path::Path) -> Program {
        Program {
            name: "broker".into(),
            executable: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            log: folder.join("logs/broker.log"),
        }
    }

    #[tokio::test]
    async fn a_child_that_dies_is_reported_with_its_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Child::start(shell("echo one; echo two >&2; exit 3", folder.path())).unwrap();
        let pid = child.pid();
        assert_eq!(
            child.ended().await.report(),
            format!("broker (pid {pid}) ended with exit code 3; its last lines:\n  one\n  two")
        );
        assert_eq!(Disk::real().read(&folder.path().join("logs/broker.log")).unwrap(), b"one\ntwo\n");
    }

    #[tokio::test]
    async fn a_killed_child_is_reported_as_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Child::start(shell("kill -9 $$", folder.path())).unwrap();
        let end = child.ended().await;
        assert!(end.killed && end.how.contains("was killed: signal: 9"), "{end:?}");
    }

    #[tokio::test]
    async fn a_child_stops_when_it_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap 'echo bye; exit 0' INT; echo ready; while :; do sleep 0.01; done";
        let child = Child::start(shell(script, folder.path())).unwrap();
        let log = folder.path().join("logs/broker.log");
        while Disk::real().read(&log).unwrap() != b"ready\n" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        child.stop(Duration::from_secs(10)).await.unwrap();
        assert_eq!(Disk::real().read(&log).unwrap(), b"ready\nbye\n");
    }

    #[tokio::test]
    async fn a_child_that_does_not_stop_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap '' INT; echo ready; while :; do sleep 0.01; done";
        let child = Child::start(shell(script, folder.path())).unwrap();
        while Disk::real().read(&folder.path().join("logs/broker.log")).unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let error = child.stop(Duration::from_millis(100)).await.unwrap_err();
        assert!(error.to_string().ends_with("did not stop within 0 s and was killed"), "{error}");
    }
}
