//! `quorate up`: both servers come up, and go down together however that happens.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// After this a test is over, whatever hangs.
const WITHIN: Duration = Duration::from_secs(120);

/// A running `quorate up` in a folder of its own.
struct Up {
    process: Child,
    printed: String,
    namesrv: String,
    data: tempfile::TempDir,
}

impl Up {
    /// Starts a single broker and reads what is printed until it is up.
    fn start() -> Self {
        Self::start_with(&["--replicas", "1"], &[0], tempfile::tempdir().unwrap())
    }

    /// Starts `--groups` groups of three replicas.
    fn start_groups(groups: u16) -> Self {
        let groups = groups.to_string();
        Self::start_with(&["--groups", &groups], &REPLICA_PORTS, tempfile::tempdir().unwrap())
    }

    fn start_with(args: &[&str], ports: &[u16], data: tempfile::TempDir) -> Self {
        let (namesrv_port, broker_port) = free_ports(ports);
        let namesrv = namesrv_port.to_string();
        let broker = broker_port.to_string();
        let ports = ["--namesrv-port", &namesrv, "--broker-port", &broker];
        Self::run(&[args, &ports].concat(), format!("127.0.0.1:{namesrv_port}"), data)
    }

    fn run(args: &[&str], namesrv: String, data: tempfile::TempDir) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .args(["up", "--data"])
            .arg(data.path())
            .args(args)
            .args(["mappedFileSizeCommitLog=1048576"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        kill_after(&process, WITHIN);
        let mut printed = String::new();
        let mut lines = BufReader::new(process.stdout.as_mut().unwrap());
        while !printed.contains("\nCtrl-C stops ") {
            let count = lines.read_line(&mut printed).unwrap();
            assert_ne!(count, 0, "it ended before it was up: {printed}{}", rest(&mut process));
        }
        Self { process, printed, namesrv, data }
    }

    /// Runs `mqadmin` until what it prints satisfies `good`, for 30 s at most, and returns that.
    fn admin_until(&self, args: &[&str], good: impl Fn(&str) -> bool) -> String {
        let mut printed = String::new();
        for _ in 0..150 {
            let output = quorate(&[&["mqadmin"], args, &["-n", &self.namesrv]].concat());
            printed = String::from_utf8_lossy(&output.stdout).into_owned();
            printed.push_str(&String::from_utf8_lossy(&output.stderr));
            if good(&printed) {
                return printed;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        panic!("mqadmin {args:?} prints {printed}");
    }

    /// Sends a message, which a group without a leader takes when it has one again.
    fn send(&self, body: &str) {
        self.admin_until(&["sendMessage", "-t", "T", "-p", body], |printed| printed.contains("SEND_OK"));
    }

    /// Waits until the messages with these bodies are read.
    fn expect(&self, bodies: &[&str]) {
        self.admin_until(&["printMsg", "-t", "T", "-d", "true"], |printed| {
            bodies.iter().all(|body| printed.contains(body))
        });
    }

    /// Reads on until a line has this text.
    fn read_until(&mut self, text: &str) {
        let mut lines = BufReader::new(self.process.stdout.as_mut().unwrap());
        while !self.printed.contains(text) {
            assert_ne!(lines.read_line(&mut self.printed).unwrap(), 0, "it ended: {}", self.printed);
        }
    }

    /// Ends it as Ctrl-C does; it must end well.
    fn stop(self) -> (tempfile::TempDir, String) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        self.ended()
    }

    fn ended(mut self) -> (tempfile::TempDir, String) {
        let errors = rest(&mut self.process);
        assert_eq!(self.process.wait().unwrap().code(), Some(0), "{errors}");
        (self.data, errors)
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

/// Kills a process that is still there after a time, so that no test hangs. Its children end with it.
fn kill_after(process: &Child, time: Duration) {
    let pid = Pid::from_raw(process.id().try_into().unwrap()).unwrap();
    std::thread::spawn(move || {
        std::thread::sleep(time);
        // Long reaped in a good run; ids are not used again that soon.
        let _ = kill_process(pid, Signal::KILL);
    });
}

/// Where the replicas of up to three groups are, from the first port on.
const REPLICA_PORTS: [u16; 9] = [0, 10, 20, 100, 110, 120, 200, 210, 220];

/// Finds a port for the name server, and one for the first broker so that those at `offsets` from it are free, each
/// with the second below and the second above.
fn free_ports(offsets: &[u16]) -> (u16, u16) {
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let namesrv = TcpListener::bind("127.0.0.1:0").unwrap();
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let ports =
            offsets.iter().flat_map(|offset| [0, 2, 4].map(|more| (first - 2).checked_add(offset + more)));
        if ports.into_iter().all(|port| port.is_some_and(is_free)) {
            return (namesrv.local_addr().unwrap().port(), first);
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

/// Returns the leader's name and process of `broker-a`, and checks that all replicas are printed.
fn leader_of(up: &Up) -> (String, Pid) {
    let lines: Vec<&str> =
        up.printed.lines().filter(|line| line.contains("(broker-a of DefaultCluster")).collect();
    let names: Vec<&str> = lines.iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(names, ["n0", "n1", "n2"], "{}", up.printed);
    let leader = lines.iter().position(|line| line.ends_with(", leader)")).unwrap();
    (names[leader].to_owned(), up.pid_of(names[leader]))
}

#[test]
fn a_group_replaces_its_leader_and_goes_on_after_a_stop() {
    let mut up = Up::start_groups(1);
    let (leader, pid) = leader_of(&up);
    up.send("before");
    kill_process(pid, Signal::KILL).unwrap();
    up.send("without");
    up.read_until(&format!("{leader} is started again, pid "));
    up.admin_until(&["clusterList"], |printed| printed.matches(" broker-a ").count() == 3);
    up.send("after");
    up.expect(&["before", "without", "after"]);
    let others: Vec<Pid> = ["name server", "n0", "n1", "n2"].iter().map(|what| up.pid_of(what)).collect();
    let namesrv_port = up.namesrv.rsplit_once(':').unwrap().1.to_owned();
    let namesrv = up.namesrv.clone();
    let (data, errors) = up.stop();
    let shown =
        format!("quorate up: {leader} (pid {}) was killed: signal: 9 (SIGKILL)\n", pid.as_raw_nonzero());
    assert!(errors.contains(&shown), "{errors}");
    for pid in others {
        assert!(test_kill_process(pid).is_err(), "{pid:?} outlives quorate up");
    }

    let up = Up::run(&["--namesrv-port", &namesrv_port], namesrv, data);
    leader_of(&up);
    up.expect(&["before", "without", "after"]);
    up.send("again");
    let (_, errors) = up.stop();
    assert_eq!(errors, "");
}

#[test]
fn three_groups_have_a_leader_on_each_node() {
    let up = Up::start_groups(3);
    let mut node = "";
    let mut leaders = Vec::new();
    for line in up.printed.lines().filter(|line| line.contains(" of DefaultCluster")) {
        let first = line.split_whitespace().next().unwrap();
        node = if first.starts_with('n') { first } else { node };
        if line.ends_with(", leader)") {
            leaders.push(node);
        }
    }
    assert_eq!(leaders, ["n0", "n1", "n2"], "{}", up.printed);
    up.send("hello");
    up.expect(&["hello"]);
    let (_, errors) = up.stop();
    assert_eq!(errors, "");
}

#[test]
fn taken_ports_are_named_before_anything_starts() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().display().to_string();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (_, broker_port) = free_ports(&REPLICA_PORTS);
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
