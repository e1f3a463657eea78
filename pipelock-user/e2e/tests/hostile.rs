//! Peers that mean harm: agents that would starve the proxy, destinations that never end. Each time the proxy's memory stays
//! bounded, and who behaves is served beside it.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pipelock_e2e::{HttpServer, Run, Sandbox, TlsServer, need};
use serde_json::Value;

const HOSTILE: &str = include_str!("../agents/hostile.py");
const DESTINATION: &str = include_str!("../agents/destination.py");
const MIB: u64 = 1024;

fn policy(port: u16, more: &str) -> String {
    format!(
        "egress: [{{destination: web.test, ports: [{port}]}}]\ndns: {{hosts: {{web.test: \"127.0.0.1\"}}}}\n\
         ssrf: {{allow: [\"127.0.0.0/8\"]}}\n{more}"
    )
}

/// Runs an attack; what came of it, the run, and how much memory it cost at its peak, in KiB.
fn attack(policy: &str, mode: &str, port: u16, count: usize) -> (Value, Run, u64) {
    let sandbox = Sandbox::new(policy);
    let script = sandbox.file("hostile.py", HOSTILE).display().to_string();
    let mut running = sandbox.spawn(&["python3", &script, mode, "web.test", &port.to_string(), &count.to_string()]);
    running.wait_for("ready");
    let before = running.memory_peak();
    running.sandbox.file("go", "");
    running.wait_for("done");
    let cost = running.memory_peak() - before;
    running.sandbox.file("stop", "");
    let run = running.wait();
    assert_eq!(run.code(), 0, "{run}");
    let said = run.json_lines().pop().expect("a line");
    // Beside the attack, and soon.
    assert_eq!(said["status"], "200", "{said} {run}");
    assert!(said["seconds"].as_f64().is_some_and(|seconds| seconds < 2.0), "{said}");
    (said, run, cost)
}

#[test]
fn heads_that_trickle_are_answered_408_and_bodies_that_trickle_keep_nobody_out() {
    need!("python3");
    let server = HttpServer::start("127.0.0.1:0");
    let policy = policy(server.port(), "limits: {request_timeout_seconds: 2}");
    let (said, _, cost) = attack(&policy, "slow_heads", server.port(), 300);
    assert_eq!(said["timeouts"], 300);
    assert!(cost < 64 * MIB, "{cost} KiB");
    let (_, _, cost) = attack(&policy, "slow_bodies", server.port(), 300);
    assert!(cost < 96 * MIB, "{cost} KiB");
}

#[test]
fn heads_without_end_are_refused() {
    need!("python3");
    let server = HttpServer::start("127.0.0.1:0");
    let (said, run, cost) = attack(&policy(server.port(), ""), "big_heads", server.port(), 50);
    assert_eq!(said["statuses"], serde_json::json!(["431"]));
    let refused = run.evidence.http().into_iter().filter(|request| request.reason == "limit_exceeded").count();
    assert_eq!(refused, 50);
    assert!(cost < 32 * MIB, "{cost} KiB");
}

#[test]
fn ten_thousand_idle_connections_keep_nobody_out() {
    need!("python3");
    let server = HttpServer::start("127.0.0.1:0");
    let (said, run, cost) = attack(&policy(server.port(), ""), "idle", server.port(), 10_000);
    assert_eq!(said["held"], 10_000);
    assert!(cost < 100 * MIB, "{cost} KiB");
    let flows = run.evidence.connections();
    assert_eq!(flows.iter().filter(|flow| flow.verdict == "allow").count(), 1, "the one that asked for something");
    assert!(run.evidence.with_reason("limit_exceeded").len() > 8000, "those that made room");
}

#[test]
fn floods_of_frames_end_their_connection() {
    need!("python3", "openssl", "node");
    let server = TlsServer::http2(&["web.test"]);
    let policy = policy(server.port(), &format!("tls: {{extra_roots: [{}]}}", server.certificate.display()));
    for (mode, is_flood) in [("ping", true), ("settings", true), ("rapid_reset", false), ("continuation", false)] {
        // 20 MB of it, or until it is ended.
        let (said, run, cost) = attack(&policy, mode, server.port(), 20_000_000);
        assert_ne!(said["end"], "never", "{mode}: {said}");
        assert!(cost < 48 * MIB, "{mode}: {cost} KiB");
        let flow = &run.evidence.connections()[0];
        assert!(!is_flood || flow.reason == "limit_exceeded", "{mode}: {flow:?}");
    }
}

/// The destination of `destination.py`; killed when it is dropped.
struct Destination {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Destination {
    /// In the clear, or with the certificate of another server.
    fn start(certificate: Option<&Path>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", DESTINATION]).arg(folder.path()).stdin(Stdio::null()).stdout(Stdio::null());
        command.args(certificate).args(certificate.map(|file| file.with_file_name("key.pem")));
        let child = command.spawn().expect("python3");
        let mut server = Self { child, port: 0, _folder: folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while server.port == 0 {
            assert!(Instant::now() < deadline, "the destination does not listen");
            std::thread::sleep(Duration::from_millis(20));
            let port = std::fs::read_to_string(server._folder.path().join("port"));
            server.port = port.ok().and_then(|port| port.parse().ok()).unwrap_or(0);
        }
        server
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What curl got for each path: its exit code, the status and the bytes of the body.
fn asked(server: &Destination, scheme: &str, more: &str, paths: &[&str], options: &str) -> (Vec<String>, Run, u64) {
    let sandbox = Sandbox::new(&policy(server.port, more));
    let script = format!(
        "for path in {}; do curl -sS --http1.1 --max-time 8 {options} -o body -w \"$path %{{http_code}} \" {scheme}://web.test:{}$path\n\
         echo \"$? $(wc -c < body)\"; rm -f body; touch body; done; touch done\n\
         while [ ! -e stop ]; do sleep 0.05; done",
        paths.join(" "),
        server.port
    );
    sandbox.file("body", "");
    let mut running = sandbox.spawn(&["sh", "-c", &script]);
    running.wait_for("done");
    let peak = running.memory_peak();
    running.sandbox.file("stop", "");
    let run = running.wait();
    assert_eq!(run.code(), 0, "{run}");
    (run.text().lines().map(str::to_owned).collect(), run, peak)
}

#[test]
fn answers_that_never_end_cost_no_memory() {
    need!("curl", "python3");
    let server = Destination::start(None);
    let paths = ["/endless-head", "/many", "/head/1000000", "/trailers", "/extensions", "/bomb", "/endless"];
    let (said, run, peak) = asked(&server, "http", "", &paths, "");
    let got =
        |at: usize| said[at].split(' ').skip(1).map(|word| word.parse::<u64>().expect("a number")).collect::<Vec<_>>();
    for at in 0..3 {
        assert_eq!(got(at)[..2], [502, 0], "{said:?}");
    }
    for at in 3..5 {
        assert!(got(at)[..2] == [502, 0] || got(at)[0] == 200 && got(at)[1] != 0, "{said:?}");
    }
    // What unpacks to a thousand times its size is not passed.
    assert_eq!(got(5)[..2], [403, 0], "{said:?}");
    assert_eq!(got(6)[..2], [200, 28], "{said:?}");
    assert!(peak < 160 * MIB, "{peak} KiB");
    assert_eq!(run.evidence.http().iter().filter(|request| request.status.is_some()).count(), paths.len(), "{run}");
}

/// RFC 9112 §8 and §9.8: what says its length is whole without the goodbye of TLS, what ends with the connection is not.
#[test]
fn an_answer_that_was_cut_is_an_error_and_a_whole_one_needs_no_goodbye() {
    need!("curl", "python3", "openssl", "node");
    // Only for its certificate.
    let secure = TlsServer::http2(&["web.test"]);
    let server = Destination::start(Some(&secure.certificate));
    let roots = format!("tls: {{extra_roots: [{}]}}", secure.certificate.display());
    let paths = ["/whole", "/chunks", "/cut", "/cut-chunks", "/until-close", "/head/20000"];
    let (said, run, _) = asked(&server, "https", &roots, &paths, "");
    let expected = ["/whole 200 0 5", "/chunks 200 0 5"];
    assert_eq!(said[..2], expected, "{run}");
    for (path, line) in paths.iter().zip(&said).skip(2).take(3) {
        assert!(line.starts_with(&format!("{path} 502 0 ")), "{said:?}");
    }
    assert_eq!(said[5], "/head/20000 200 0 2", "{run}");
    // In the clear the end of the connection is the end of such an answer.
    let clear = Destination::start(None);
    let (said, run, _) = asked(&clear, "http", "", &["/whole", "/cut", "/until-close"], "");
    assert!(said[1].starts_with("/cut 502 0 "), "{said:?}");
    assert_eq!([&said[0], &said[2]], ["/whole 200 0 5", "/until-close 200 0 5"], "{run}");
}

/// A destination that answers a head before it has read it, and resets: the agent gets the answer or a denial, and soon.
#[test]
fn a_head_too_large_for_the_destination_is_answered() {
    need!("curl", "python3", "openssl", "node");
    let secure = TlsServer::http2(&["web.test"]);
    let roots = format!("tls: {{extra_roots: [{}]}}", secure.certificate.display());
    for (server, scheme, more) in [
        (Destination::start(None), "http", ""),
        (Destination::start(Some(&secure.certificate)), "https", roots.as_str()),
    ] {
        let header = format!("-H 'x-large: {}'", "clean words ".repeat(2000));
        let (said, run, _) = asked(&server, scheme, more, &["/431"], &header);
        assert!(said[0].starts_with("/431 431 0 ") || said[0].starts_with("/431 502 0 "), "{said:?} {run}");
    }
}
