//! What a broker has to stand: hostile bytes, too many requests and connections, and being stopped under load.

use std::path::Path;
use std::process::{Command as Process, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate::env::Disk;
use quorate::remoting::CallError;

use crate::harness::{
    ChildProcess, Outgoing, Peer, Processes, Pull, TestCluster, broker_port, broker_process, start_namesrv,
    texts,
};

/// The head of a frame: its length, the type of its header, the length of its header.
fn head(length: u32, kind: u8, header: u32) -> Vec<u8> {
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend((u32::from(kind) << 24 | header).to_be_bytes());
    bytes
}

#[tokio::test]
async fn bytes_that_are_no_frame_end_their_connection_and_no_other() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    let with = |mut head: Vec<u8>, rest: &[u8]| {
        head.extend(rest);
        head
    };
    for (name, bytes) in [
        ("a huge length", head(i32::MAX.cast_unsigned(), 0, 10)),
        ("a negative length", head(u32::MAX, 0, 10)),
        ("one byte more than allowed", head((16 << 20) + 1, 0, 10)),
        ("no room for the header's length", head(3, 0, 0)),
        ("a length of nothing", head(0, 0, 0)),
        ("a header longer than the frame", with(head(10, 0, 7), b"{}{}{}")),
        ("an unknown header type", with(head(6, 7, 2), b"{}")),
        ("no JSON", with(head(6, 0, 2), b"}{")),
        ("half of JSON", with(head(5, 0, 1), b"{")),
        ("JSON that is no object", with(head(6, 0, 2), b"[]")),
        ("a binary header that ends early", with(head(6, 1, 2), b"\0\0")),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n".to_vec()),
    ] {
        let mut socket = cluster.socket().await;
        socket.write(&bytes).await;
        assert_eq!(socket.receive().await, None, "{name}");
        peer.send_texts("T", &[name]).await;
    }
    assert_eq!(peer.max_offset("T", 0).await, 12);
    cluster.stop().await;
}

#[tokio::test]
async fn a_request_without_its_fields_is_answered_with_an_error() {
    let cluster = TestCluster::start().await;
    let peer = cluster.peer();
    peer.send_texts("T", &["x"]).await;
    for code in (0..400).chain([900, 9999, 200_050, -1]) {
        for body in [&b""[..], b"{", b"null", b"[]", b"{}", b"{\"clientID\":7}"] {
            let mut request = Outgoing::default().v1();
            request.ext_fields = Default::default();
            request.code = code;
            let answer = peer.call(request.with_body(body.to_vec())).await;
            assert!(answer.is_response(), "{code}");
        }
    }
    assert_eq!(texts(&peer.queue("T", 0).await), ["x"]);
    cluster.stop().await;
}

#[tokio::test]
async fn random_bytes_and_broken_requests_do_no_harm() {
    let fixture = Processes::start(&["maxMessageSize=65536"]);
    let peer = fixture.peer();
    peer.send_texts("Safe", &["before"]).await;
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let valid = [
        Outgoing { topic: "Fuzz", properties: &[("KEYS", "a b"), ("TAGS", "A")], ..Outgoing::default() }.v1(),
        Outgoing { topic: "Fuzz", ..Outgoing::default() }.v2(),
        Outgoing {
            topic: "Fuzz",
            body: &[0, 0, 0, 23, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            ..Outgoing::default()
        }
        .batch(),
        Pull { topic: "Fuzz", ..Pull::default() }.request(),
        crate::harness::Consumer { group: "Fuzz", ..Default::default() }.heartbeat(),
    ]
    .map(|request| request.to_bytes().to_vec());
    for number in 0..400 {
        let mut socket = fixture.socket().await;
        let bytes: Vec<u8> = if number % 4 == 0 {
            (0..random.usize(1..2000)).map(|_| random.u8(..)).collect()
        } else {
            let mut bytes = random.choice(&valid).unwrap().clone();
            for _ in 0..random.usize(1..4) {
                // Not in the first bytes: most of what changes there is refused before it is looked at.
                let from = if random.bool() { 8 } else { 0 };
                let at = random.usize(from..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(if random.u8(..) < 40 { random.usize(1..bytes.len()) } else { bytes.len() });
            bytes
        };
        socket.write(&bytes).await;
        if number % 50 == 0 {
            peer.send_texts("Safe", &["between"]).await;
        }
    }
    peer.send_texts("Safe", &["after"]).await;
    assert_eq!(peer.max_offset("Safe", 0).await, 10);
    let output = fixture.broker.output();
    assert!(!output.contains("panicked") && !output.contains("ERROR"), "seed {seed}\n{output}");
    fixture.stop();
}

#[tokio::test]
async fn half_a_frame_is_dropped_with_its_connection() {
    let cluster = TestCluster::start().await;
    let whole = Outgoing { body: b"half", ..Outgoing::default() }.v2().to_bytes();
    for cut in 0..whole.len() {
        let mut socket = cluster.socket().await;
        socket.write(&whole[..cut]).await;
    }
    // The end of a frame may take its time.
    let mut socket = cluster.socket().await;
    for byte in &whole {
        socket.write(&[*byte]).await;
    }
    assert_eq!(socket.receive().await.expect("an answer").code, 0);
    assert_eq!(texts(&cluster.peer().queue("T", 0).await), ["half"]);
    cluster.stop().await;
}

#[tokio::test]
async fn ten_thousand_requests_at_once_are_answered_in_the_order_of_the_queue() {
    const COUNT: i32 = 10_000;
    let cluster = TestCluster::start().await;
    cluster.peer().send_texts("T", &["0"]).await;
    let mut socket = cluster.socket().await;
    let mut bytes = Vec::new();
    for opaque in 1..=COUNT {
        let mut request = Outgoing { body: opaque.to_string().as_bytes(), ..Outgoing::default() }.v2();
        request.opaque = opaque;
        bytes.extend(request.to_bytes());
    }
    socket.write(&bytes).await;
    for _ in 0..COUNT {
        let answer = socket.receive().await.expect("an answer");
        assert_eq!(answer.code, 0, "{:?}", answer.remark);
        // The order of the requests is the order of the queue.
        assert_eq!(answer.ext_fields.get("queueOffset"), Some(answer.opaque.to_string().as_str()));
    }
    let stored = texts(&cluster.peer().queue("T", 0).await);
    assert_eq!(stored, (0..=COUNT).map(|number| number.to_string()).collect::<Vec<_>>());
    cluster.stop().await;
}

#[tokio::test]
async fn connections_above_the_limit_are_closed_and_the_others_served() {
    let cluster = TestCluster::start_with(|config| config.connections_max = 3, Disk::real()).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let mut socket = cluster.socket().await;
        assert_eq!(socket.ask(1, Outgoing::default().v2()).await.0.code, 0);
        sockets.push(socket);
    }
    for _ in 0..5 {
        assert_eq!(cluster.socket().await.receive().await, None);
    }
    for socket in &mut sockets {
        assert_eq!(socket.ask(2, Outgoing::default().v2()).await.0.code, 0);
    }
    sockets.pop();
    crate::harness::wait("the place of the closed connection", async || {
        let mut socket = cluster.socket().await;
        socket.send(3, Outgoing::default().v2()).await;
        socket.receive().await.map(|answer| assert_eq!(answer.code, 0))
    })
    .await;
    drop(sockets);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_before_a_sigterm_counts() {
    for flush in ["SYNC_FLUSH", "ASYNC_FLUSH"] {
        let setting = format!("flushDiskType={flush}");
        let mut fixture = Processes::start(&[&setting]);
        let stopping = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..4)
            .map(|queue_id| {
                let (peer, stopping) = (fixture.peer(), Arc::clone(&stopping));
                tokio::spawn(async move {
                    let mut acknowledged = 0u64;
                    loop {
                        let body = acknowledged.to_string();
                        let message = Outgoing { queue_id, body: body.as_bytes(), ..Outgoing::default() };
                        match peer.try_call(message.v2()).await {
                            Ok(answer) if answer.code == 0 => acknowledged += 1,
                            Ok(answer) => assert!(stopping.load(Ordering::SeqCst), "{:?}", answer.remark),
                            Err(CallError::Connect { .. } | CallError::Closed { .. }) => return acknowledged,
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        let peer = fixture.peer();
        crate::harness::wait("a load on all queues", async || {
            for queue_id in 0..4 {
                if peer.max_offset("T", queue_id).await < 50 {
                    return None;
                }
            }
            Some(())
        })
        .await;
        stopping.store(true, Ordering::SeqCst);
        let status = fixture.broker.terminate();
        assert!(status.success(), "{status}\n{}", fixture.broker.output());
        assert!(!Disk::real().exists(&fixture.store().join("abort")).unwrap(), "closed");
        fixture.start_broker();
        let peer = fixture.peer();
        for (queue_id, sender) in (0..).zip(senders) {
            let acknowledged = sender.await.unwrap();
            let stored = texts(&peer.queue("T", queue_id).await);
            let expected: Vec<_> = (0..acknowledged).map(|number| number.to_string()).collect();
            assert!(stored.starts_with(&expected), "{flush} {queue_id}: {acknowledged} of {}", stored.len());
        }
        fixture.stop();
    }
}

#[tokio::test]
async fn one_process_serves_two_brokers() {
    let folder = tempfile::tempdir().unwrap();
    let (_namesrv, namesrv) = start_namesrv(folder.path());
    let ports = [broker_port(), broker_port()];
    let files = ["a", "b"].map(|name| folder.path().join(format!("{name}.properties")));
    for ((name, port), file) in ["a", "b"].iter().zip(ports).zip(&files) {
        write(file, &broker_file(name, port, &folder.path().join(name)));
    }
    let mut process = Process::new(env!("CARGO_BIN_EXE_mqbroker"));
    process.args(["-n", &namesrv.to_string(), "-c"]).arg(&files[0]).arg("-c").arg(&files[1]);
    let mut child = ChildProcess::start("mqbroker", &mut process);
    for name in ["a", "b"] {
        child.wait_for_line(&format!("The broker[broker-{name}, "), Duration::from_secs(30));
    }
    for (name, port) in ["a", "b"].iter().zip(ports) {
        let peer = Peer::new(format!("127.0.0.1:{port}"));
        peer.send_texts("T", &[name]).await;
        assert_eq!(texts(&peer.queue("T", 0).await), [*name]);
    }
    assert!(child.terminate().success(), "{}", child.output());
}

#[test]
fn two_brokers_of_one_process_cannot_share_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["a", "b"].map(|name| folder.path().join(format!("{name}.properties")));
    for (name, file) in ["a", "b"].iter().zip(&files) {
        write(file, &broker_file(name, broker_port(), &folder.path().join("store")));
    }
    let mut process = Process::new(env!("CARGO_BIN_EXE_mqbroker"));
    process.env_remove("NAMESRV_ADDR").arg("-c").arg(&files[0]).arg("-c").arg(&files[1]);
    let mut child = ChildProcess::start("mqbroker", &mut process);
    child.wait_for_line("in use by another broker", Duration::from_secs(20));
    assert_eq!(child.wait().code(), Some(1));
    assert!(child.output().contains("broker broker-b: "), "{}", child.output());
}

#[test]
fn a_wrong_setting_stops_the_start_and_is_named_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("broker.properties");
    for (line, reason) in [("listenPort=many", "listenPort"), ("flushDiskType=SOMETIMES", "flushDiskType")] {
        write(&file, &format!("brokerName=broker-a\n# a comment\n{line}\n"));
        let output = mqbroker(|process| {
            process.arg("-c").arg(&file);
        });
        assert!(!output.status.success());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let place = format!("{}:3", file.display());
        assert!(errors.contains(&place) && errors.contains(reason), "{errors}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let port = broker_port();
    for taken in [port, port - 2] {
        let _holder = std::net::TcpListener::bind(("127.0.0.1", taken)).unwrap();
        let file = folder.path().join("broker.properties");
        write(&file, &broker_file("a", port, &folder.path().join("store")));
        let output = mqbroker(|process| {
            process.arg("-c").arg(&file);
        });
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(errors.contains(&format!("127.0.0.1:{taken}")), "{errors}");
    }
}

#[tokio::test]
async fn a_second_broker_on_a_store_is_refused_and_the_first_goes_on() {
    let fixture = Processes::start(&[]);
    fixture.peer().send_texts("T", &["before"]).await;
    let mut second = broker_process(fixture.namesrv_addr, broker_port(), &fixture.store(), &[]);
    let output = second.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(errors.contains("in use by another broker"), "{errors}");
    let peer = fixture.peer();
    peer.send_texts("T", &["after"]).await;
    assert_eq!(texts(&peer.queue("T", 0).await), ["before", "after"]);
    fixture.stop();
}

/// Runs `mqbroker` to its end.
fn mqbroker(arguments: impl FnOnce(&mut Process)) -> Output {
    let mut process = Process::new(env!("CARGO_BIN_EXE_mqbroker"));
    process.env_remove("NAMESRV_ADDR");
    arguments(&mut process);
    process.output().unwrap()
}

fn broker_file(name: &str, port: u16, store: &Path) -> String {
    format!(
        "brokerName=broker-{name}\nbrokerIP1=127.0.0.1\nbindAddress=127.0.0.1\nlistenPort={port}\n\
         storePathRootDir={}\nmappedFileSizeCommitLog=1048576\n",
        store.display()
    )
}

fn write(path: &Path, text: &str) {
    Disk::real().replace(path, text.as_bytes()).unwrap();
}
