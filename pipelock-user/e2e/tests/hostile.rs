//! Peers that mean harm: agents that would starve the proxy, destinations that never end. Each time the proxy's memory stays
//! bounded, and who behaves is served beside it.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use pipelock_e2e::{HttpServer, Run, Sandbox, TlsServer, need};
use serde_json::Value;

const HOSTILE: &str = include_str!("../agents/hostile.py");
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
