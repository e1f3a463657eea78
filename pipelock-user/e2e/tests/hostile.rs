//! Peers that mean harm: agents that would starve the proxy, destinations that never end. Each time the proxy's memory stays
//! bounded, and who behaves is served beside it.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Command;

use pipelock_e2e::{HttpServer, Run, Sandbox, Served, TlsServer, need, web_policy};
use serde_json::Value;

const HOSTILE: &str = include_str!("../agents/hostile.py");
const DESTINATION: &str = include_str!("../agents/destination.py");
const MIB: u64 = 1024;

fn policy(port: u16, more: &str) -> String {
    web_policy(port, "", more)
}

/// Runs an attack; what came of it, the run, and by how much the proxy's memory rose, in KiB.
fn attack(policy: &str, mode: &str, port: u16, count: usize) -> (Value, Run, u64) {
    let sandbox = Sandbox::new(policy);
    let script = sandbox.file("hostile.py", HOSTILE).display().to_string();
    let (port, count) = (port.to_string(), count.to_string());
    let words = [script.as_str(), mode, "web.test", &port, &count];
    let (run, cost) = sandbox.run_measured("python3 \"$1\" \"$2\" \"$3\" \"$4\" 0", "python3 \"$@\"", &words);
    let said = run.json_lines().pop().expect("a line");
    assert!(said["failed"].is_null(), "{said} {run}");
    // One was served while the attack went on, another when it had been made.
    assert_eq!(said["beside"], serde_json::json!(["200", "200"]), "{said} {run}");
    (said, run, cost)
}

#[test]
fn heads_that_trickle_are_answered_408_and_bodies_that_trickle_keep_nobody_out() {
    need!("python3");
    let server = HttpServer::start("127.0.0.1:0");
    let policy = |seconds: u8| policy(server.port(), &format!("limits: {{request_timeout_seconds: {seconds}}}"));
    let (said, _, cost) = attack(&policy(5), "slow_heads", server.port(), 300);
    assert_eq!((&said["held"], &said["timeouts"]), (&300.into(), &300.into()), "{said}");
    assert!(cost < 64 * MIB, "{cost} KiB");
    let (_, _, cost) = attack(&policy(2), "slow_bodies", server.port(), 300);
    assert!(cost < 96 * MIB, "{cost} KiB");
}

#[test]
fn heads_without_end_are_refused() {
    need!("python3");
    let server = HttpServer::start("127.0.0.1:0");
    let (said, run, cost) = attack(&policy(server.port(), ""), "big_heads", server.port(), 50);
    assert_eq!(said["statuses"], serde_json::json!(["431"]));
    let refused = run.evidence.http().into_iter().filter(|request| request.reason == "limit_exceeded").count();
    assert!(refused >= 50 && said["heads"] == refused, "{said}: {refused}");
    assert!(cost < 32 * MIB, "{cost} KiB");
}

#[test]
fn ten_thousand_idle_connections_keep_nobody_out() {
    need!("python3");
    let server = HttpServer::start("127.0.0.1:0");
    let (said, run, cost) = attack(&policy(server.port(), ""), "idle", server.port(), 10_000);
    assert_eq!(said["held"], 10_000, "{said} {run}");
    assert!(cost < 100 * MIB, "{cost} KiB");
    let flows = run.evidence.connections();
    assert_eq!(flows.iter().filter(|flow| flow.verdict == "allow").count(), 3, "those that asked for something");
    assert!(run.evidence.with_reason("limit_exceeded").len() > 8000, "those that made room");
}

#[test]
fn floods_of_frames_end_their_connection() {
    need!("python3", "openssl", "node");
    let server = TlsServer::http2(&["web.test"]);
    let policy = policy(server.port(), &server.roots());
    for mode in ["ping", "settings", "rapid_reset", "continuation"] {
        // Of each connection 20 MB, or until it is ended.
        let (said, run, cost) = attack(&policy, mode, server.port(), 20_000_000);
        assert_eq!(said["ends"], serde_json::json!(["ended"]), "{mode}: {said}");
        // What the buffers of the kernel hold on the way does not count as taken.
        assert!(said["sent"].as_u64().is_some_and(|sent| sent < 10_000_000), "{mode}: {said}");
        assert!(cost < 48 * MIB, "{mode}: {cost} KiB");
        let flows = run.evidence.connections();
        let ended = flows.iter().filter(|flow| flow.reason == "limit_exceeded").count();
        assert_eq!(said["floods"], ended, "{mode}: {said} {run}");
    }
}

/// The destination of `destination.py`, in the clear or with the certificate of another server.
fn destination(certificate: Option<&Path>) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", DESTINATION]).arg(folder.path());
    command.args(certificate).args(certificate.map(|file| file.with_file_name("key.pem")));
    Served::start(&mut command, folder)
}

/// What curl got for each path: its exit code, the status and the bytes of the body.
fn asked(server: &Served, scheme: &str, more: &str, paths: &[&str], options: &str) -> (Vec<String>, Run, u64) {
    let sandbox = Sandbox::new(&policy(server.port(), more));
    // What curl ends with is told, and no end of the script. Only what never ends is given little time.
    let script = format!(
        "set +e; for path in {}; do case $path in /endless) most=8;; *) most=60;; esac\n\
         curl -sS --http1.1 --max-time $most {options} -o body -w \"$path %{{http_code}} \" {scheme}://web.test:{}$path\n\
         echo \"$? $(wc -c < body)\"; rm -f body; touch body; done",
        paths.join(" "),
        server.port()
    );
    let first = format!("curl -sS --http1.1 -o body {scheme}://web.test:{}/whole", server.port());
    let (run, rise) = sandbox.run_measured(&first, &script, &[]);
    (run.text().lines().map(str::to_owned).collect(), run, rise)
}

#[test]
fn answers_that_never_end_cost_no_memory() {
    need!("curl", "python3");
    let server = destination(None);
    let paths = ["/endless-head", "/many", "/head/1000000", "/trailers", "/extensions", "/bomb", "/endless"];
    let (said, run, rise) = asked(&server, "http", "", &paths, "");
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
    assert!(rise < 64 * MIB, "{rise} KiB");
    assert_eq!(run.evidence.http().iter().filter(|request| request.status.is_some()).count(), 1 + paths.len(), "{run}");
}

/// RFC 9112 §8 and §9.8: what says its length is whole without the goodbye of TLS, what ends with the connection is not.
#[test]
fn an_answer_that_was_cut_is_an_error_and_a_whole_one_needs_no_goodbye() {
    need!("curl", "python3", "openssl", "node");
    // Only for its certificate.
    let secure = TlsServer::http2(&["web.test"]);
    let server = destination(Some(&secure.certificate));
    let roots = secure.roots();
    let paths = ["/whole", "/chunks", "/cut", "/cut-chunks", "/until-close", "/head/20000"];
    let (said, run, _) = asked(&server, "https", &roots, &paths, "");
    let expected = ["/whole 200 0 5", "/chunks 200 0 5"];
    assert_eq!(said[..2], expected, "{run}");
    for (path, line) in paths.iter().zip(&said).skip(2).take(3) {
        assert!(line.starts_with(&format!("{path} 502 0 ")), "{said:?}");
    }
    assert_eq!(said[5], "/head/20000 200 0 2", "{run}");
    // In the clear the end of the connection is the end of such an answer.
    let clear = destination(None);
    let (said, run, _) = asked(&clear, "http", "", &["/whole", "/cut", "/until-close"], "");
    assert!(said[1].starts_with("/cut 502 0 "), "{said:?}");
    assert_eq!([&said[0], &said[2]], ["/whole 200 0 5", "/until-close 200 0 5"], "{run}");
}

/// A destination that answers a head before it has read it, and resets: the agent gets the answer or a denial, and soon.
#[test]
fn a_head_too_large_for_the_destination_is_answered() {
    need!("curl", "python3", "openssl", "node");
    let secure = TlsServer::http2(&["web.test"]);
    let roots = secure.roots();
    for (server, scheme, more) in
        [(destination(None), "http", ""), (destination(Some(&secure.certificate)), "https", roots.as_str())]
    {
        let header = format!("-H 'x-large: {}'", "clean words ".repeat(2000));
        let (said, run, _) = asked(&server, scheme, more, &["/431"], &header);
        assert!(said[0].starts_with("/431 431 0 ") || said[0].starts_with("/431 502 0 "), "{said:?} {run}");
    }
}
