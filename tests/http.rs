//! `/metrics`, `/livez`, `/readyz`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quorate::broker::Endpoints;
use quorate::config::BrokerConfig;
use quorate::env::{Disk, Faults};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::harness::*;

/// Sends one request and returns the head and the body of the answer.
async fn request(address: SocketAddr, method: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// Gets a path; returns status code and body.
pub(crate) async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let (head, body) = request(address, "GET", path).await;
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
}

fn exporting(config: &mut BrokerConfig) {
    config.metrics_exporter_type = "PROM".into();
    // Any free port.
    config.metrics_prom_exporter_port = 0;
    config.metrics_label = "env:test,zone:a".into();
}

/// Returns the value of the sample with this name whose labels contain all of these texts.
pub(crate) fn sample(page: &str, name: &str, labels: &[&str]) -> f64 {
    let is_it = |line: &&str| {
        line.split([' ', '{']).next() == Some(name) && labels.iter().all(|label| line.contains(label))
    };
    let line = page.lines().find(is_it).unwrap_or_else(|| panic!("no {name} {labels:?} in\n{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn metrics_count_what_is_sent_and_pulled() {
    let cluster = TestCluster::start_with(exporting, Disk::real()).await;
    let endpoints = Endpoints::open(&[&cluster.config]).await.unwrap();
    let address = endpoints.addresses()[0];
    assert_eq!(get(address, "/readyz").await, (503, "broker-a: failed: starting\n".into()));
    assert_eq!(get(address, "/livez").await, (200, "broker-a: ok: starting\n".into()));
    assert_eq!(get(address, "/metrics").await, (200, String::new()));
    endpoints.started(0, cluster.broker.as_ref().unwrap());

    let peer = cluster.peer();
    peer.send_texts("T", &["a", "b", "c"]).await;
    let ordered = [("__SHARDINGKEY", "k")];
    peer.send(&Outgoing { properties: &ordered, body: &[b'x'; 5000], ..Outgoing::default() }).await;
    let mut socket = cluster.socket().await;
    socket.ask(1, Consumer::default().heartbeat()).await;
    assert_eq!(records(&peer.pull(&Pull { count: 3, ..Pull::default() }).await).len(), 3);
    assert_eq!(peer.commit("G", "T", 0, 1).await.code, 0);

    let (status, page) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    for (name, labels, value) in [
        ("rocketmq_messages_in_total", &["topic=\"T\"", "message_type=\"normal\""][..], 3.0),
        ("rocketmq_messages_in_total", &["topic=\"T\"", "message_type=\"fifo\""], 1.0),
        ("rocketmq_messages_out_total", &["topic=\"T\"", "consumer_group=\"G\"", "is_system=\"false\""], 3.0),
        ("rocketmq_message_size_bucket", &["message_type=\"fifo\"", "le=\"4096\""], 0.0),
        ("rocketmq_message_size_bucket", &["message_type=\"fifo\"", "le=\"524288\""], 1.0),
        ("rocketmq_message_size_count", &["message_type=\"normal\""], 3.0),
        ("rocketmq_put_latency_seconds_count", &["node_id=\"broker-a\""], 4.0),
        ("rocketmq_put_failed_total", &[], 0.0),
        ("rocketmq_producer_connections", &["language=\"java\"", "version=\"v5_5_0\""], 1.0),
        ("rocketmq_consumer_connections", &["consumer_group=\"G\"", "consume_mode=\"push\""], 1.0),
        (
            "rocketmq_consumer_lag_messages",
            &["consumer_group=\"G\"", "topic=\"T\"", "is_retry=\"false\""],
            3.0,
        ),
        ("rocketmq_consumer_inflight_messages", &["consumer_group=\"G\""], 2.0),
        ("rocketmq_consumer_ready_messages", &["consumer_group=\"G\""], 1.0),
        ("rocketmq_storage_full", &["env=\"test\",zone=\"a\",node_type=\"broker\""], 0.0),
        ("rocketmq_storage_dispatch_behind_bytes", &["cluster=\"DefaultCluster\""], 0.0),
        ("rocketmq_broker_permission", &[], 6.0),
    ] {
        assert_eq!(sample(&page, name, labels), value, "{name} {labels:?}");
    }
    assert!(sample(&page, "rocketmq_throughput_in_total", &["message_type=\"fifo\""]) > 5000.0);
    assert!(sample(&page, "rocketmq_throughput_out_total", &["consumer_group=\"G\""]) > 100.0);
    assert!(sample(&page, "rocketmq_consumer_lag_latency_milliseconds", &[]) >= 0.0);
    assert!(sample(&page, "rocketmq_storage_size_bytes", &[]) > 0.0);
    assert!(sample(&page, "rocketmq_topic_number", &[]) > 5.0);
    // Without a Raft group there is nothing to say of one.
    assert!(!page.contains("rocketmq_raft_"), "{page}");
    check_format(&page);
    endpoints.close().await;
    cluster.stop().await;
}

/// Checks what Prometheus insists on: each family once, with help and type in front of its samples.
#[track_caller]
fn check_format(page: &str) {
    let mut families: Vec<(&str, &str)> = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(families.iter().all(|(known, _)| *known != name), "{name} twice");
            families.push((name, kind));
        } else if !line.starts_with("# HELP ") {
            let (family, kind) = families.last().expect("a family");
            let name = line.split([' ', '{']).next().expect("a name");
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{name} within {family}"));
            let suffixes: &[&str] = if *kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            assert_eq!(*kind == "counter", family.ends_with("_total"), "{line}");
            line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number");
        }
    }
}

#[tokio::test]
async fn health_needs_no_metrics() {
    let change = |config: &mut BrokerConfig| config.health_port = broker_port();
    let cluster = TestCluster::start_with(change, Disk::real()).await;
    let endpoints = Endpoints::open(&[&cluster.config]).await.unwrap();
    let address = endpoints.addresses()[0];
    assert_eq!(address.port(), cluster.config.health_port);
    endpoints.started(0, cluster.broker.as_ref().unwrap());
    assert_eq!(get(address, "/livez").await, (200, "broker-a: ok: alive\n".into()));
    assert_eq!(get(address, "/readyz").await, (200, "broker-a: ok: master\n".into()));
    let (status, text) = get(address, "/metrics").await;
    assert_eq!(status, 404);
    assert!(text.contains("metricsExporterType=PROM"), "{text}");
    assert_eq!(get(address, "/other").await.0, 404);
    let (head, body) = request(address, "POST", "/livez").await;
    assert!(head.starts_with("HTTP/1.1 405 ") && head.contains("allow: GET, HEAD"), "{head}");
    assert_eq!(body, "GET only\n");
    assert_eq!(request(address, "HEAD", "/readyz").await.1, "");
    endpoints.stopping();
    assert_eq!(get(address, "/readyz").await, (503, "broker-a: failed: stopping\n".into()));
    endpoints.close().await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_broker_whose_store_failed_is_not_alive() {
    let faults = Arc::<Faults>::default();
    let cluster = TestCluster::start_with(
        |config| {
            exporting(config);
            config.flush_disk_type = quorate::config::FlushDiskType::SyncFlush;
        },
        Disk::faulty(Arc::clone(&faults)),
    )
    .await;
    let endpoints = Endpoints::open(&[&cluster.config]).await.unwrap();
    let address = endpoints.addresses()[0];
    endpoints.started(0, cluster.broker.as_ref().unwrap());
    cluster.peer().send_texts("T", &["makes the topic"]).await;
    assert_eq!(get(address, "/livez").await.0, 200);
    faults.sync_fails.store(true, Ordering::Relaxed);
    assert_eq!(cluster.call(Outgoing::default().v2()).await.code, 14);
    for path in ["/livez", "/readyz"] {
        let (status, text) = get(address, path).await;
        assert_eq!(status, 503, "{path}: {text}");
        assert!(text.starts_with("broker-a: failed: the store failed: "), "{text}");
    }
    faults.sync_fails.store(false, Ordering::Relaxed);
    endpoints.close().await;
}

#[test]
fn brokers_of_one_process_share_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let http_port = broker_port();
    let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_mqbroker"));
    for (name, port) in [("broker-a", broker_port()), ("broker-b", broker_port())] {
        let file = folder.path().join(format!("{name}.conf"));
        let store = folder.path().join(name);
        let text = format!(
            "brokerName={name}\nbrokerIP1=127.0.0.1\nbindAddress=127.0.0.1\nlistenPort={port}\n\
             storePathRootDir={}\nmetricsExporterType=PROM\nmetricsPromExporterPort={http_port}\n",
            store.display()
        );
        #[expect(clippy::disallowed_methods, reason = "a test writes a configuration")]
        std::fs::write(&file, text).unwrap();
        process.arg("-c").arg(file);
    }
    let mut child = ChildProcess::start("mqbroker", &mut process);
    child.wait_for_line("The broker[broker-b", Duration::from_secs(60));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = SocketAddr::from(([127, 0, 0, 1], http_port));
        let all = "broker-a: ok: master\nbroker-b: ok: master\n";
        wait("both to be ready", async || (get(address, "/readyz").await == (200, all.into())).then_some(()))
            .await;
        let (_, page) = get(address, "/metrics").await;
        check_format(&page);
        for name in ["node_id=\"broker-a\"", "node_id=\"broker-b\""] {
            assert_eq!(sample(&page, "rocketmq_build_info", &[name]), 1.0);
        }
    });
    assert!(child.terminate().success(), "{}", child.output());
}

#[test]
fn a_port_that_is_taken_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let overrides = [format!("healthPort={port}")];
    let mut process = broker_process(nobody, broker_port(), folder.path(), &[&overrides[0]]);
    let output = process.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains(&format!("mqbroker: listen on 127.0.0.1:{port}: ")), "{text}");
    assert_eq!(output.status.code(), Some(1));
}
