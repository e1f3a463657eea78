//! What a new policy does to connections that are open: those that it would let through live on, the others end.
#![allow(clippy::expect_used, clippy::panic, clippy::disallowed_methods, reason = "tests")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use pipelock_e2e::{Outside, Sandbox, TlsServer, need};

/// A server that gives back what it gets; its port.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accept");
            std::thread::spawn(move || {
                let mut bytes = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..count]).is_err() {
                        break;
                    }
                }
            });
        }
    });
    port
}

#[test]
fn a_reload_ends_the_tunnels_that_it_does_not_allow_and_no_others() {
    need!("python3");
    need!("openssl");
    // One each: it serves one connection at a time.
    let [kept, gone, read] =
        ["kept-tls.test", "gone-tls.test", "read-tls.test"].map(|name| TlsServer::start("127.0.0.1", &[name]));
    let tcp = echo();
    let policy = |rules: &[(&str, u16, &str)]| {
        let rules: Vec<_> = rules
            .iter()
            .map(|(host, port, more)| format!("{{destination: {host}, ports: [{port}], {more}}}"))
            .collect();
        let hosts = ["kept-tls", "gone-tls", "read-tls", "kept-tcp", "gone-tcp"]
            .map(|host| format!("{host}.test: \"127.0.0.1\""));
        format!(
            "egress: [{}]\ndns: {{hosts: {{{}}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}",
            rules.join(", "),
            hosts.join(", ")
        )
    };
    let (unread, as_tcp) = ("scan: false", "scan: false, protocol: tcp");
    let before = policy(&[
        ("kept-tls.test", kept.port(), unread),
        ("gone-tls.test", gone.port(), unread),
        ("read-tls.test", read.port(), unread),
        ("kept-tcp.test", tcp, as_tcp),
        ("gone-tcp.test", tcp, as_tcp),
    ]);
    // Another rule allows it, which does not matter; one that wants it read does.
    let after = policy(&[
        ("\"*.test\"", read.port(), "scan: true"),
        ("kept-tls.test", kept.port(), "scan: false, protocol: tls"),
        ("kept-tcp.test", tcp, as_tcp),
    ]);
    let script = r#"
import json, os, socket, ssl, sys, time
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
def connect(name, port):
    s = socket.create_connection((name, port), timeout=20)
    return context.wrap_socket(s, server_hostname=name) if "tls" in name else s
names = ["kept-tls.test", "gone-tls.test", "read-tls.test", "kept-tcp.test", "gone-tcp.test"]
sockets = {name: connect(name, int(port)) for name, port in zip(names, sys.argv[1:])}
for name in ("kept-tcp.test", "gone-tcp.test"):
    sockets[name].sendall(b"first")
    assert sockets[name].recv(5) == b"first"
open("ready", "w").close()
ends = {}
for name, s in sockets.items():
    if name.startswith("kept"): continue
    try: ends[name] = len(s.recv(1))
    except TimeoutError: ends[name] = "open"
    except OSError: ends[name] = 0
sockets["kept-tls.test"].sendall(b"GET / HTTP/1.0\r\n\r\n")
ends["kept-tls.test"] = sockets["kept-tls.test"].recv(8).decode()
sockets["kept-tcp.test"].sendall(b"second")
ends["kept-tcp.test"] = sockets["kept-tcp.test"].recv(6).decode()
print(json.dumps(ends))
"#;
    let ports = [kept.port(), gone.port(), read.port(), tcp, tcp].map(|port| port.to_string());
    let mut args = vec!["python3", "-c", script];
    args.extend(ports.iter().map(String::as_str));
    let mut running = Sandbox::new(&before).spawn(&args);
    running.wait_for("ready");
    running.sandbox.set_policy(&after);
    running.reload();
    let run = running.wait();
    let ends = &run.json_lines()[0];
    for (name, end) in [("gone-tls.test", 0), ("read-tls.test", 0), ("gone-tcp.test", 0)] {
        assert_eq!(ends[name], end, "{name}: {run}");
    }
    assert_eq!(
        (ends["kept-tls.test"].as_str(), ends["kept-tcp.test"].as_str()),
        (Some("HTTP/1.0"), Some("second")),
        "{run}"
    );
    let mut cut: Vec<_> = run.evidence.with_reason("policy_changed");
    cut.sort_by(|one, other| one.name.cmp(&other.name));
    let cut: Vec<_> = cut.iter().map(|flow| (flow.name.as_deref().unwrap_or(""), flow.verdict.as_str())).collect();
    assert_eq!(cut, [("gone-tcp.test", "allow"), ("gone-tls.test", "allow"), ("read-tls.test", "allow")], "{run}");
}

#[test]
fn a_connection_from_outside_ends_with_the_policy_that_let_it_in() {
    need!("python3");
    let script = r#"
import os, socket, time
s = socket.socket(); s.bind(("0.0.0.0", 0)); s.listen()
open("tmp", "w").write(str(s.getsockname()[1])); os.rename("tmp", "port")
c, peer = s.accept(); c.sendall(b"before")
while not os.path.exists("reloaded"): time.sleep(0.01)
c.sendall(b"after")
open("sent", "w").close()
while not os.path.exists("end"): time.sleep(0.01)
"#;
    let outside = Outside::new();
    let mut running = Sandbox::new("egress: []\nlisten: any").spawn(&["python3", "-c", script]);
    running.wait_for("port");
    let port = std::fs::read_to_string(running.sandbox.work().join("port")).expect("a port");
    let addr = (outside.here4, port.parse::<u16>().expect("a port"));
    let mut stream = outside.enter(|| TcpStream::connect(addr).expect("get in"));
    let mut said = [0; 6];
    stream.read_exact(&mut said).expect("read");
    running.sandbox.set_policy("egress: []");
    running.reload();
    // The signal says nothing of its end.
    std::thread::sleep(std::time::Duration::from_millis(500));
    running.sandbox.file("reloaded", "");
    running.wait_for("sent");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(2))).expect("a limit");
    assert!(stream.read(&mut said).is_err(), "what was sent after the reload got out");
    running.sandbox.file("end", "");
    let run = running.wait();
    assert_eq!(run.evidence.with_reason("inbound_allowed").len(), 1, "{run}");
    assert!(!run.evidence.with_reason("packet_denied").is_empty(), "{run}");
}
