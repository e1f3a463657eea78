//! Denials that an agent can read and act on, and requests that two parsers could read differently.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use pipelock_e2e::{HttpServer, Run, Sandbox, TlsServer, need};
use serde_json::Value;

const RAW: &str = include_str!("../agents/raw.py");

fn policy(port: u16, more: &str) -> String {
    format!(
        "egress: [{{destination: web.test, ports: [{port}], scan: false, {more}}}]\n\
         dns: {{hosts: {{web.test: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}"
    )
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
            "h2c upgrade",
            format!(
                "GET /open/ HTTP/1.1\r\n{host}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            ),
            &["upgrade_denied"],
        ),
        ("h2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0".into(), &["protocol_unknown"]),
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

fn tls_policy(port: u16, more: &str) -> String {
    format!(
        "egress: [{{destination: tls.test, ports: [{port}], {more}}}]\n\
         dns: {{hosts: {{tls.test: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}"
    )
}

/// A handshake whose hello is sent in pieces of any size, to any address, naming anything.
const HANDSHAKE: &str = r#"
import socket, ssl, sys, time
address, port, sni, chunk = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(into, out, server_hostname=sni or None)
s = socket.create_connection((address, port), timeout=10)
s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
def flush():
    data = out.read()
    for at in range(0, len(data), chunk):
        s.sendall(data[at:at + chunk]); time.sleep(0.0003)
while True:
    try:
        tls.do_handshake(); flush(); print("connected"); break
    except ssl.SSLWantReadError:
        flush()
        got = s.recv(65536)
        if not got: print("closed"); break
        into.write(got)
    except ssl.SSLError as e:
        print("alert", e.reason); break
"#;

fn handshake(policy: &str, address: &str, port: u16, sni: &str, chunk: usize) -> Run {
    let (port, chunk) = (port.to_string(), chunk.to_string());
    Sandbox::new(policy).run_ok(&["python3", "-c", HANDSHAKE, address, &port, sni, &chunk])
}

#[test]
fn tls_that_is_denied_gets_an_alert() {
    need!("python3", "openssl");
    let server = TlsServer::start("127.0.0.1", &["tls.test"]);
    let port = server.port();
    let unread = tls_policy(port, "scan: false");
    let cases: [(&str, &str, &str, &str, &str); 6] = [
        ("the name that DNS was asked for", &unread, "tls.test", "tls.test", ""),
        ("another name than DNS was asked for", &unread, "tls.test", "evil.test", "name_mismatch"),
        ("an address, a name that no rule has", &unread, "192.0.2.7", "evil.test", "host_denied"),
        ("an address without a name", &unread, "192.0.2.7", "", "name_missing"),
        (
            "a rule that wants it read",
            &tls_policy(port, "scan: true"),
            "tls.test",
            "tls.test",
            "inspection_unavailable",
        ),
        (
            "a rule with paths",
            &tls_policy(port, "scan: false, paths: [\"/x\"]"),
            "tls.test",
            "tls.test",
            "inspection_unavailable",
        ),
    ];
    for (what, policy, address, sni, reason) in cases {
        for chunk in [65536, 1, 7] {
            let run = handshake(policy, address, port, sni, chunk);
            let flow = run.evidence.connection();
            if reason.is_empty() {
                assert_eq!((run.text().trim(), flow.reason.as_str()), ("connected", "policy_allow"), "{what}: {run}");
            } else {
                assert_eq!(flow.reason, reason, "{what}: {run}");
                assert_eq!(run.text().trim(), "alert TLSV1_ALERT_ACCESS_DENIED", "{what}: {run}");
            }
            assert_eq!(flow.carrier.as_deref(), Some("tls"), "{what}: {run}");
        }
    }
}

#[test]
fn tls_on_a_rule_for_http_and_http_on_a_rule_for_tls_are_refused() {
    need!("python3", "openssl");
    let tls = TlsServer::start("127.0.0.1", &["tls.test"]);
    let run =
        handshake(&tls_policy(tls.port(), "scan: false, protocol: http"), "tls.test", tls.port(), "tls.test", 65536);
    assert_eq!(run.evidence.connection().reason, "protocol_unknown", "{run}");
    assert_eq!(run.text().trim(), "alert TLSV1_ALERT_ACCESS_DENIED", "{run}");
    let server = HttpServer::start("127.0.0.1:0");
    // The client speaks HTTP, so it is told in HTTP.
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
    assert_eq!((flow.verdict.as_str(), flow.reason.as_str()), ("block", "budget_exceeded"), "{run}");
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
        for _ in 0..6 {
            std::thread::sleep(std::time::Duration::from_millis(300));
            stream.write_all(b"x").expect("still open");
        }
        let mut rest = Vec::new();
        let started = std::time::Instant::now();
        let _ = stream.read_to_end(&mut rest);
        started.elapsed()
    });
    let policy = policy(port, "protocol: tcp") + "\nlimits: {idle_timeout_seconds: 1}";
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
    assert_eq!(run.text(), "xxxxxx\n", "{run}");
    let quiet = server.join().expect("the server");
    assert!(quiet > std::time::Duration::from_millis(700) && quiet < std::time::Duration::from_secs(5), "{quiet:?}");
    let flow = run.evidence.connection();
    assert_eq!((flow.verdict.as_str(), flow.reason.as_str()), ("allow", "idle_timeout"), "{run}");
}

/// The hello of openssl's client, with one more extension at the end: an outer `encrypted_client_hello`.
const ECH: &str = r#"
import socket, ssl, sys
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(into, out, server_hostname="tls.test")
try: tls.do_handshake()
except ssl.SSLWantReadError: pass
hello = out.read()[9:]
ech = bytes([0xfe, 0x0d, 0, 0]) + bytes([0, 0, 1, 0, 1, 7, 0, 32]) + bytes(32) + bytes([0, 144]) + bytes(144)
ech = ech[:2] + (len(ech) - 4).to_bytes(2, "big") + ech[4:]
at = 34 + 1 + hello[34]                                       # behind the session id
at += 2 + int.from_bytes(hello[at:at + 2], "big")             # cipher suites
at += 1 + hello[at]                                           # compression methods
hello = hello[:at] + (len(hello) - at - 2 + len(ech)).to_bytes(2, "big") + hello[at + 2:] + ech
message = b"\x01" + len(hello).to_bytes(3, "big") + hello
s = socket.create_connection(("tls.test", int(sys.argv[1])), timeout=10)
s.sendall(b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message)
print(s.recv(100).hex())
"#;

#[test]
fn a_hello_that_may_hide_another_name_is_refused() {
    need!("python3", "openssl");
    let server = TlsServer::start("127.0.0.1", &["tls.test"]);
    let port = server.port().to_string();
    let run = Sandbox::new(&tls_policy(server.port(), "scan: false")).run_ok(&["python3", "-c", ECH, &port]);
    assert_eq!(run.text(), "15030300020231\n", "a fatal access_denied alert: {run}");
    let flow = run.evidence.connection();
    assert_eq!((flow.verdict.as_str(), flow.reason.as_str()), ("block", "ech_denied"), "{run}");
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
