//! TLS that is passed unread: by the name in its hello, and not when that name is missing, another, or perhaps not all.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use pipelock_e2e::{Run, Sandbox, TlsServer, need};

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
    let cases: [(&str, &str, &str, &str, &str); 4] = [
        ("the name that DNS was asked for", &unread, "tls.test", "tls.test", ""),
        ("another name than DNS was asked for", &unread, "tls.test", "evil.test", "name_mismatch"),
        ("an address, a name that no rule has", &unread, "192.0.2.7", "evil.test", "host_denied"),
        ("an address without a name", &unread, "192.0.2.7", "", "name_missing"),
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
            let carrier = if reason.is_empty() { "tls-passthrough" } else { "tls" };
            assert_eq!(flow.carrier.as_deref(), Some(carrier), "{what}: {run}");
        }
    }
}

#[test]
fn tls_on_a_rule_for_http_is_refused() {
    need!("python3", "openssl");
    let tls = TlsServer::start("127.0.0.1", &["tls.test"]);
    let run =
        handshake(&tls_policy(tls.port(), "scan: false, protocol: http"), "tls.test", tls.port(), "tls.test", 65536);
    assert_eq!(run.evidence.connection().reason, "protocol_unknown", "{run}");
    assert_eq!(run.text().trim(), "alert TLSV1_ALERT_ACCESS_DENIED", "{run}");
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
fn tls_is_passed_only_to_who_shows_a_certificate_for_the_name() {
    need!("python3", "openssl");
    for (shown, said, verdict, reason) in
        [("tls.test", "connected", "allow", "policy_allow"), ("other.test", "alert", "block", "certificate_invalid")]
    {
        let server = TlsServer::start("127.0.0.1", &[shown]);
        let run = handshake(&tls_policy(server.port(), "scan: false"), "tls.test", server.port(), "tls.test", 65536);
        assert!(run.text().contains(said), "{shown}: {run}");
        let flow = run.evidence.connection();
        assert_eq!((flow.verdict.as_str(), flow.reason.as_str()), (verdict, reason), "{run}");
        assert_eq!(flow.carrier.as_deref(), Some("tls-passthrough"), "{run}");
    }
}
