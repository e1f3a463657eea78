//! Denials that an agent can read and act on, and requests that two parsers could read differently.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use pipelock_e2e::{HttpServer, Run, Sandbox, TlsServer, need, web_policy};
use serde_json::Value;

const RAW: &str = include_str!("../agents/raw.py");

fn policy(port: u16, more: &str) -> String {
    web_policy(port, &format!(", scan: false, {more}"), "")
}

/// Sends these bytes to web.test.
fn raw(port: u16, policy: &str, bytes: &[u8], chunk: usize) -> Run {
    let sandbox = Sandbox::new(policy).stdin(bytes);
    let script = sandbox.file("raw.py", RAW);
    let chunk = chunk.to_string();
    sandbox.run_ok(&["python3", script.to_str().expect("text"), "web.test", &port.to_string(), &chunk])
}

#[test]
fn a_forbidden_path_or_method_gets_a_403_that_says_why() {
    need!("curl");
    let server = HttpServer::start("127.0.0.1:0");
    let base = format!("http://web.test:{}", server.port());
    for (args, reason) in [(vec!["/secret"], "path_denied"), (vec!["/open/x", "-X", "DELETE"], "method_denied")] {
        let url = format!("{base}{}", args[0]);
        let mut command = vec!["curl", "-sS", "-i", url.as_str()];
        command.extend(&args[1..]);
        let policy = policy(server.port(), "methods: [GET], paths: [\"/open/*\"]");
        let run = Sandbox::new(&policy).run_ok(&command);
        let text = run.text();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 403"), "{run}");
        assert!(head.contains("content-type: application/problem+json"), "{run}");
        assert!(head.contains(&format!("x-pipelock-reason: {reason}")), "{run}");
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!((body["status"].as_u64(), body["reason"].as_str()), (Some(403), Some(reason)), "{run}");
        assert!(body["rule"].as_str().is_some_and(|rule| rule.ends_with("web.test")), "{run}");
        assert!(body["what_to_do"].as_str().is_some_and(|text| text.len() > 10), "{run}");
        let flow = run.evidence.connection();
        assert_eq!(body["flow"].as_str(), Some(flow.id.to_string().as_str()), "{run}");
        assert_eq!((flow.verdict.as_str(), flow.reason.as_str()), ("block", reason), "{run}");
        let http = run.evidence.http();
        assert_eq!((http.len(), http[0].reason.as_str(), http[0].status), (1, reason, Some(403)));
    }
    assert!(server.seen().is_empty());
}

#[test]
fn a_head_over_http2_that_is_too_long_gets_the_reason() {
    need!("curl", "node", "openssl");
    let server = TlsServer::http2(&["web.test"]);
    let more = format!("{}\nlimits: {{header_bytes: 16KiB}}", server.roots());
    let policy = web_policy(server.port(), "", &more);
    let url = format!("https://web.test:{}/a", server.port());
    // Up to twice the length it is a request that is denied; what is longer nobody but hyper has read.
    for (count, is_read) in [(20_000, true), (40_000, false)] {
        let header = format!("x: {}", "a".repeat(count));
        let run = Sandbox::new(&policy).run_ok(&["curl", "-sS", "-i", "--http2", &url, "-H", &header]);
        let text = run.text();
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/2 431") && head.contains("x-pipelock-reason: limit_exceeded"), "{run}");
        let body: Option<Value> = serde_json::from_str(body).ok();
        assert_eq!(body.map(|body| body["reason"] == "limit_exceeded"), is_read.then_some(true), "{run}");
        let http = run.evidence.http();
        assert_eq!((http.len(), http[0].reason.as_str(), http[0].status), (1, "limit_exceeded", Some(431)), "{run}");
    }
    assert!(server.seen().is_empty());
}

#[test]
fn requests_on_one_connection_have_a_receipt_each() {
    need!("curl");
    let server = HttpServer::start("127.0.0.1:0");
    let base = format!("http://web.test:{}", server.port());
    let urls = ["/open/1", "/secret", "/open/2", "/open/3?token=x"].map(|path| format!("{base}{path}"));
    let mut command = vec!["curl", "-sS", "-w", "%{http_code} %{num_connects}\n"];
    for url in &urls {
        command.extend(["-o", "/dev/null", url]);
    }
    let run = Sandbox::new(&policy(server.port(), "paths: [\"/open/*\"]")).run_ok(&command);
    // One connection for all four: a denial does not cost the connection.
    assert_eq!(run.text(), "200 1\n403 0\n200 0\n200 0\n", "{run}");
    let flow = run.evidence.connection();
    assert_eq!((flow.requests, flow.verdict.as_str()), (4, "allow"), "{run}");
    let http = run.evidence.http();
    let said: Vec<_> =
        http.iter().map(|request| (request.target.trim_start_matches(&base), request.reason.as_str())).collect();
    // The query is not kept: it may hold what should not be in evidence.
    let expected = [
        ("/open/1", "policy_allow"),
        ("/secret", "path_denied"),
        ("/open/2", "policy_allow"),
        ("/open/3", "policy_allow"),
    ];
    assert_eq!(said, expected);
    assert!(http.iter().all(|request| request.flow == flow.id));
    let seen: Vec<_> = server.seen().iter().map(|seen| seen.path.clone()).collect();
    assert_eq!(seen, ["/open/1", "/open/2", "/open/3?token=x"]);
}

#[test]
fn a_host_that_no_rule_names_is_not_even_resolved() {
    need!("curl");
    let server = HttpServer::start("127.0.0.1:0");
    let run = Sandbox::new(&policy(server.port(), "")).run(&["curl", "-sS", "http://evil.test/"]);
    assert_eq!(run.code(), 6, "curl: could not resolve host: {run}");
    assert!(run.evidence.connections().is_empty(), "{run}");
    assert!(run.evidence.queries().iter().all(|query| query.reason == "dns_denied"), "{run}");
    assert!(run.evidence.flows().iter().all(|flow| flow.verdict == "block" && flow.reason == "dns_denied"), "{run}");
}

#[test]
fn a_name_that_leads_into_a_private_network_is_refused() {
    need!("curl");
    let server = HttpServer::start("127.0.0.1:0");
    for address in ["127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "fd00::1"] {
        let policy = format!(
            "egress: [{{destination: web.test, ports: [{}], scan: false}}]\ndns: {{hosts: {{web.test: \"{address}\"}}}}",
            server.port()
        );
        let url = format!("http://web.test:{}/", server.port());
        let run = Sandbox::new(&policy).run_ok(&["curl", "-sS", "-w", "%{http_code}", &url]);
        assert!(run.text().ends_with("403") && run.text().contains("ssrf_denied"), "{address}: {run}");
        assert_eq!(run.evidence.connection().reason, "ssrf_denied", "{run}");
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn requests_with_two_meanings_go_nowhere() {
    need!("python3");
    let server = HttpServer::start("127.0.0.1:0");
    let port = server.port();
    let host = format!("Host: web.test:{port}\r\n");
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("two Hosts", format!("GET / HTTP/1.1\r\n{host}Host: evil.test\r\n\r\n"), &["request_malformed"]),
        ("another Host", "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n".into(), &["name_mismatch"]),
        ("another port", "GET / HTTP/1.1\r\nHost: web.test:1\r\n\r\n".into(), &["name_mismatch"]),
        ("absolute form", format!("GET http://evil.test/ HTTP/1.1\r\n{host}\r\n"), &["name_mismatch"]),
        ("https form", format!("GET https://web.test:{port}/ HTTP/1.1\r\n{host}\r\n"), &["request_malformed"]),
        (
            "userinfo",
            format!("GET http://web.test:{port}@evil.test/ HTTP/1.1\r\n{host}\r\n"),
            &["name_mismatch", "request_malformed"],
        ),
        ("CONNECT", format!("CONNECT evil.test:443 HTTP/1.1\r\n{host}\r\n"), &["request_malformed"]),
        (
            "length and chunks",
            format!(
                "POST / HTTP/1.1\r\n{host}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n{host}\r\n"
            ),
            &["request_malformed"],
        ),
        (
            "two lengths",
            format!("POST / HTTP/1.1\r\n{host}Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde"),
            &["request_malformed"],
        ),
        ("odd length", format!("POST / HTTP/1.1\r\n{host}Content-Length: +4\r\n\r\nabcd"), &["request_malformed"]),
        (
            "odd coding",
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
            &["request_malformed"],
        ),
        ("folded header", format!("GET / HTTP/1.1\r\n{host}X: a\r\n b\r\n\r\n"), &["request_malformed"]),
        (
            "space before colon",
            format!("GET / HTTP/1.1\r\n{host}Content-Length : 4\r\n\r\nabcd"),
            &["request_malformed"],
        ),
        ("dot segments", format!("GET /open/../secret HTTP/1.1\r\n{host}\r\n"), &["path_denied", "request_malformed"]),
        (
            "encoded slash",
            format!("GET /open%2f..%2fsecret HTTP/1.1\r\n{host}\r\n"),
            &["path_denied", "request_malformed"],
        ),
        ("overlong slash", format!("GET /open/..%c0%af..%c0%afsecret HTTP/1.1\r\n{host}\r\n"), &["request_malformed"]),
        ("bare line feeds", format!("GET / HTTP/1.1\n{}\n", host.replace('\r', "")), &["request_malformed"]),
        (
            "upgrade",
            format!("GET /open/ HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
            &["upgrade_denied"],
        ),
        (
            "upgrade to something that would not be read",
            format!("GET /open/ HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: h2c, tunnel/1\r\n\r\n"),
            &["upgrade_denied"],
        ),
        (
            "h2 preface, and no request",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".into(),
            &["client_aborted"],
        ),
        ("ssh", "SSH-2.0-OpenSSH_9.2\r\n".into(), &["protocol_unknown"]),
        ("nonsense", "\0\u{1}\u{2}\u{3}SECRET".into(), &["protocol_unknown"]),
    ];
    let policy = policy(port, "paths: [\"/\", \"/open/*\"]");
    let mut wrong = Vec::new();
    for (what, bytes, reasons) in cases {
        let before = server.seen().len();
        let run = raw(port, &policy, bytes.as_bytes(), bytes.len());
        let flow = run.evidence.connection();
        let new = &server.seen()[before..];
        if !reasons.contains(&flow.reason.as_str()) {
            wrong.push(format!("{what}: {} instead of {reasons:?}: {}", flow.reason, run.text()));
        }
        if !new.is_empty() {
            wrong.push(format!("{what}: arrived as {new:?}"));
        }
        // Whatever begins like HTTP gets an answer that says why, and every answer has a receipt.
        if flow.carrier.as_deref() == Some("http1") {
            let said = format!("x-pipelock-reason: {}", flow.reason);
            let receipt = run.evidence.http().pop().map(|request| request.reason);
            if !run.text().contains(&said) || receipt.as_deref() != Some(&flow.reason) {
                wrong.push(format!("{what}: answered {}, receipt {receipt:?}", run.text()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn http_split_into_single_bytes_is_still_http() {
    need!("python3");
    let server = HttpServer::start("127.0.0.1:0");
    let request = format!("GET /slow HTTP/1.1\r\nHost: web.test:{}\r\nConnection: close\r\n\r\n", server.port());
    let run = raw(server.port(), &policy(server.port(), ""), request.as_bytes(), 1);
    assert!(run.text().starts_with("HTTP/1.1 200"), "{run}");
    assert_eq!(server.seen()[0].path, "/slow");
    assert_eq!(run.evidence.connection().reason, "policy_allow");
}

#[test]
fn a_destination_that_is_down_is_told_apart_from_a_denial() {
    need!("curl");
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
    let url = format!("http://web.test:{port}/");
    let run = Sandbox::new(&policy(port, "")).run_ok(&["curl", "-sS", "-w", "%{http_code}", &url]);
    assert!(run.text().ends_with("502") && run.text().contains("dial_failed"), "{run}");
    assert_eq!(run.evidence.connection().reason, "dial_failed", "{run}");
}

#[test]
fn http_on_a_rule_for_tls_is_told_so_in_http() {
    need!("python3");
    let server = HttpServer::start("127.0.0.1:0");
    let request = format!("GET / HTTP/1.1\r\nHost: web.test:{}\r\n\r\n", server.port());
    let run = raw(server.port(), &policy(server.port(), "protocol: tls"), request.as_bytes(), 999);
    assert!(run.text().starts_with("HTTP/1.1 403 "), "{run}");
    assert!(run.text().contains("x-pipelock-reason: protocol_unknown"), "{run}");
    assert_eq!(run.evidence.connection().reason, "protocol_unknown", "{run}");
    assert_eq!(run.evidence.http()[0].reason, "protocol_unknown", "{run}");
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_budget_cuts_what_goes_out() {
    need!("python3");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let sink = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let _ = stream.write_all(b"hello");
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        all.len()
    });
    let policy = policy(port, "protocol: tcp, budgets: {max_bytes_out: \"64KiB\"}");
    let run = raw(port, &policy, &vec![0xaa; 4_000_000], 4_000_000);
    let flow = run.evidence.connection();
    assert_eq!((flow.verdict.as_str(), flow.reason.as_str()), ("allow", "budget_exceeded"), "{run}");
    let arrived = sink.join().expect("the sink");
    assert!(arrived <= 65536, "{arrived} bytes got out");
}

#[test]
fn a_connection_that_says_nothing_is_ended() {
    need!("python3");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        // For longer than the limit only this side says something.
        for _ in 0..8 {
            std::thread::sleep(std::time::Duration::from_millis(300));
            stream.write_all(b"x").expect("still open");
        }
        let mut rest = Vec::new();
        let started = std::time::Instant::now();
        let _ = stream.read_to_end(&mut rest);
        started.elapsed()
    });
    let policy = policy(port, "protocol: tcp") + "\nlimits: {idle_timeout_seconds: 2}";
    let script = "
import socket, sys
s = socket.create_connection(('web.test', int(sys.argv[1])), timeout=20)
got = b''
while True:
    more = s.recv(100)
    if not more: break
    got += more
print(got.decode())
";
    let run = Sandbox::new(&policy).run_ok(&["python3", "-c", script, &port.to_string()]);
    assert_eq!(run.text(), "xxxxxxxx\n", "{run}");
    let quiet = server.join().expect("the server");
    assert!(quiet > std::time::Duration::from_millis(700) && quiet < std::time::Duration::from_secs(4), "{quiet:?}");
    let flow = run.evidence.connection();
    assert_eq!((flow.verdict.as_str(), flow.reason.as_str()), ("allow", "idle_timeout"), "{run}");
}

/// The connection beyond the limit is refused at once, in what it speaks, and has a receipt.
#[test]
fn a_connection_too_many_is_refused_and_not_kept_waiting() {
    need!("python3");
    let script = r#"
import json, socket, sys, time
port = int(sys.argv[1])
get = f"GET / HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n".encode()
hello = bytes.fromhex("16030100050100000100")
def talk(say):
    started = time.monotonic()
    got = b""
    try:
        s = socket.create_connection(("web.test", port), timeout=20)
        s.sendall(say)
        while more := s.recv(4096): got += more
        end = "closed"
    except OSError as e: end = type(e).__name__
    return [end, got.decode("latin-1"), time.monotonic() - started]
held = []
for _ in range(2):
    s = socket.create_connection(("web.test", port), timeout=20)
    s.sendall(get)
    assert s.recv(4096).startswith(b"HTTP/1.1 200")
    held.append(s)
for say in (get, hello, b""): print(json.dumps(talk(say)))
held.pop().close()
time.sleep(0.5)
s = socket.create_connection(("web.test", port), timeout=20)
s.sendall(get)
print(json.dumps(["served", s.recv(12).decode(), 0]))
"#;
    let server = HttpServer::start("127.0.0.1:0");
    let policy = policy(server.port(), "") + "\nlimits: {max_connections: 2}";
    let run = Sandbox::new(&policy).run_ok(&["python3", "-c", script, &server.port().to_string()]);
    let said = run.json_lines();
    assert!(said.iter().all(|said| said[2].as_f64().is_some_and(|seconds| seconds < 5.0)), "{run}");
    assert!(said[0][1].as_str().is_some_and(|text| text.starts_with("HTTP/1.1 429 ")), "{run}");
    assert!(said[0][1].as_str().is_some_and(|text| text.contains("\"reason\": \"limit_exceeded\"")), "{run}");
    // A fatal alert, access_denied.
    assert_eq!(said[1][1], "\u{15}\u{3}\u{3}\0\u{2}\u{2}1", "{run}");
    assert_eq!((&said[2][0], &said[2][1]), (&"ConnectionResetError".into(), &"".into()), "{run}");
    assert_eq!(said[3][1], "HTTP/1.1 200", "{run}");
    let refused = run.evidence.with_reason("limit_exceeded");
    assert_eq!(refused.len(), 3, "{run}");
    assert!(refused.iter().all(|flow| flow.verdict == "block" && flow.name.as_deref() == Some("web.test")), "{run}");
    assert_eq!(server.connections(), 2, "the last one goes on where the one before it ended");
}

/// Without Host an HTTP/1.1 request is none (RFC 9112 §3.2), whatever DNS was asked for; in HTTP/1.0 it may be missing.
#[test]
fn a_request_without_host_is_refused_in_http_1_1() {
    need!("python3");
    let server = HttpServer::start("127.0.0.1:0");
    let run = raw(server.port(), &policy(server.port(), ""), b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 999);
    assert!(run.text().starts_with("HTTP/1.1 400 "), "{run}");
    assert!(run.text().contains("x-pipelock-reason: request_malformed"), "{run}");
    assert_eq!(run.evidence.http()[0].reason, "request_malformed", "{run}");
    assert_eq!(server.connections(), 0);
    let run = raw(server.port(), &policy(server.port(), ""), b"GET / HTTP/1.0\r\n\r\n", 999);
    assert!(run.text().contains(" 200 "), "{run}");
    assert_eq!(server.seen()[0].host(), format!("web.test:{}", server.port()), "{run}");
}

/// Nothing at all, half a request line, a hello that stops half way, and one that dribbles: all have the same limit.
#[test]
fn a_client_that_does_not_say_what_it_speaks_is_ended() {
    need!("python3");
    let script = r"
import socket, sys, threading, time
def client(say, dribble):
    s = socket.create_connection(('web.test', int(sys.argv[1])), timeout=30)
    s.sendall(say)
    start = time.monotonic()
    s.settimeout(0.2)
    while True:
        try:
            if dribble: s.sendall(dribble)
            if not s.recv(100): break
        except TimeoutError: continue
        except OSError: break
    lasted.append(time.monotonic() - start)
lasted = []
hello = b'\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03'
cases = [(b'', b''), (b'GE', b''), (hello, b''), (hello, b'\0')]
threads = [threading.Thread(target=client, args=case) for case in cases]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*lasted)
";
    let server = HttpServer::start("127.0.0.1:0");
    let port = server.port();
    let policy = policy(port, "") + "\nlimits: {detect_timeout_seconds: 2}";
    let run = Sandbox::new(&policy).run_ok(&["python3", "-c", script, &port.to_string()]);
    let lasted: Vec<f64> = run.text().split_whitespace().map(|text| text.parse().expect("seconds")).collect();
    assert_eq!(lasted.len(), 4, "{run}");
    // Twice the limit would be one for the protocol and another for the hello.
    assert!(lasted.iter().all(|seconds| (1.0..4.0).contains(seconds)), "{run}");
    assert_eq!(run.evidence.with_reason("detect_timeout").len(), 4, "{run}");
    assert_eq!(server.connections(), 0);
}

#[test]
fn tcp_passed_unread_carries_any_bytes() {
    need!("python3");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut first = [0; 4];
        stream.read_exact(&mut first).expect("read");
        stream.write_all(&first).expect("write");
    });
    let run = raw(port, &policy(port, "protocol: tcp"), b"\0\x01\xfe\xff", 1);
    assert!(run.stdout.starts_with(b"\0\x01\xfe\xff"), "{run}");
    let flow = run.evidence.connection();
    assert_eq!((flow.reason.as_str(), flow.carrier.as_deref()), ("policy_allow", Some("tcp")), "{run}");
    assert_eq!(flow.name.as_deref(), Some("web.test"));
}
