//! `quorate up`: both servers come up, and go down together however that happens.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A running `quorate up` in a folder of its own.
struct Up {
    process: Child,
    printed: String,
    namesrv: String,
    _data: tempfile::TempDir,
}

impl Up {
    /// Starts it and reads what it prints until it says that it is up.
    fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (namesrv_port, broker_port) = free_ports();
        let mut process = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(["up", "--replicas", "1", "--data"])
            .arg(data.path())
            .args(["--namesrv-port", &namesrv_port.to_string(), "--broker-port", &broker_port.to_string()])
            .arg("mappedFileSizeCommitLog=1048576")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut printed = String::new();
        let mut lines = BufReader::new(process.stdout.as_mut().unwrap());
        while !printed.ends_with("Ctrl-C stops both.\n") {
            let count = lines.read_line(&mut printed).unwrap();
            assert_ne!(count, 0, "it ended before it was up: {printed}{}", rest(&mut process));
        }
        let namesrv = format!("127.0.0.1:{namesrv_port}");
        Self { process, printed, namesrv, _data: data }
    }

    /// Returns the process id that is printed in the line of `what`.
    fn pid_of(&self, what: &str) -> Pid {
        let line = self.printed.lines().find(|line| line.trim_start().starts_with(what)).unwrap();
        let pid = line.split_whitespace().skip_while(|word| *word != "pid").nth(1).unwrap();
        Pid::from_raw(pid.parse().unwrap()).unwrap()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().try_into().unwrap()).unwrap()
    }

    /// Waits for its end and returns the exit code and what it wrote to its errors.
    fn end(mut self) -> (Option<i32>, String) {
        let errors = rest(&mut self.process);
        (self.process.wait().unwrap().code(), errors)
    }
}

fn rest(process: &mut Child) -> String {
    let mut text = String::new();
    process.stderr.as_mut().unwrap().read_to_string(&mut text).unwrap();
    text
}

/// Finds a port for the name server, and one for the broker with the second below it free as well.
fn free_ports() -> (u16, u16) {
    let listen = |port| TcpListener::bind(("127.0.0.1", port));
    let namesrv = listen(0).unwrap();
    loop {
        let broker = listen(0).unwrap();
        let port = broker.local_addr().unwrap().port();
        if listen(port - 2).is_ok() {
            return (namesrv.local_addr().unwrap().port(), port);
        }
    }
}

/// Waits until a process is gone; panics if it is still there after 30 s.
fn wait_for_end(pid: Pid, what: &str) {
    for _ in 0..3000 {
        if test_kill_process(pid).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the {what} (pid {pid:?}) outlives quorate up");
}

fn quorate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate")).args(args).output().unwrap()
}

#[test]
fn a_cluster_comes_up_and_sigterm_stops_it() {
    let up = Up::start();
    let (namesrv, broker) = (up.pid_of("name server"), up.pid_of("broker"));
    let topics = quorate(&["mqadmin", "topicList", "-n", &up.namesrv]);
    assert!(String::from_utf8_lossy(&topics.stdout).contains("TBW102\n"));
    let sent = quorate(&["mqadmin", "sendMessage", "-t", "T", "-p", "hello", "-n", &up.namesrv]);
    assert!(String::from_utf8_lossy(&sent.stdout).contains("SEND_OK"));
    kill_process(up.pid(), Signal::TERM).unwrap();
    assert_eq!(up.end(), (Some(0), String::new()));
    for (pid, what) in [(namesrv, "name server"), (broker, "broker")] {
        assert!(test_kill_process(pid).is_err(), "the {what} outlives quorate up");
    }
}

#[test]
fn a_broker_that_dies_ends_it_with_exit_code_1() {
    let up = Up::start();
    let (namesrv, broker) = (up.pid_of("name server"), up.pid_of("broker"));
    kill_process(broker, Signal::KILL).unwrap();
    let (code, errors) = up.end();
    assert_eq!(code, Some(1));
    let pid = broker.as_raw_nonzero();
    let expected =
        format!("quorate up: the broker (pid {pid}) was killed: signal: 9 (SIGKILL); its last lines:");
    assert!(errors.starts_with(&expected), "{errors}");
    assert!(test_kill_process(namesrv).is_err(), "the name server outlives quorate up");
}

#[test]
fn children_end_when_their_parent_is_killed() {
    let up = Up::start();
    let (namesrv, broker) = (up.pid_of("name server"), up.pid_of("broker"));
    kill_process(up.pid(), Signal::KILL).unwrap();
    wait_for_end(broker, "broker");
    wait_for_end(namesrv, "name server");
    let _ = up.end();
}

#[test]
fn taken_ports_are_named_before_anything_starts() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().display().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (_, broker_port) = free_ports();
    let broker_port = broker_port.to_string();
    for replicas in ["1", "3"] {
        let ports = ["--namesrv-port", &port, "--broker-port", &broker_port, "--replicas", replicas];
        let output = quorate(&[&["up", "--data", &folder], &ports[..]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        let pid = std::process::id();
        let expected = format!("quorate up: port {port} (name server) is in use by process {pid} (");
        assert!(errors.starts_with(&expected), "{errors}");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(data.path().read_dir().unwrap().count(), 0, "something is written");
    }
}

#[test]
fn commands_are_listed() {
    assert_eq!(quorate(&[]).status.code(), Some(2));
    let help = quorate(&["help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("\n  up  "));
    assert_eq!(quorate(&["nosuch"]).status.code(), Some(2));
}
