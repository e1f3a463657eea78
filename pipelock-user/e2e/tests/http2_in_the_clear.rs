//! HTTP/2 with prior knowledge, in the clear, and gRPC both in the clear and over TLS: allowed where the rule allows HTTP, and
//! read like everything.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pipelock_e2e::{
    Run, SECRET, Sandbox, TlsServer, assert_kept_in, has_python_module, holds, missing, need, python_path,
};

const GRPC: &str = include_str!("../agents/grpc_peers.py");

fn policy(port: u16, more: &str) -> String {
    format!(
        "egress: [{{destination: web.test, ports: [{port}], methods: [GET, POST], paths: [\"/ok/*\", \"/e2e.Echo/*\"]}}]\n\
         dns: {{hosts: {{web.test: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}\n{more}"
    )
}

#[test]
fn curl_with_prior_knowledge() {
    need!("curl", "openssl", "node");
    let server = TlsServer::http2_in_the_clear();
    let url = |path: &str| format!("http://web.test:{}{path}", server.port());
    let curl = |words: &[&str]| {
        let words: Vec<&str> = ["curl", "-sS", "--http2-prior-knowledge"].iter().chain(words).copied().collect();
        Sandbox::new(&policy(server.port(), "")).run_ok(&words)
    };
    for (words, seen) in [
        (vec![url("/ok/a")], "\"version\":\"2.0\",\"method\":\"GET\",\"path\":\"/ok/a\",\"bytes\":0"),
        (
            vec!["--data-binary".into(), "abc".into(), url("/ok/b")],
            "\"method\":\"POST\",\"path\":\"/ok/b\",\"bytes\":3",
        ),
    ] {
        let run = curl(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(run.text().contains(seen), "{run}");
        let requests = run.evidence.http();
        assert!(requests.len() == 1 && requests[0].target.starts_with("http://web.test:"), "{run}");
        assert_eq!(run.evidence.connection().carrier.as_deref(), Some("http2"), "{run}");
    }
    let key = format!("X-Key: {SECRET}");
    for (words, reason) in [
        (vec![url("/no")], "path_denied"),
        (vec!["-H".into(), key, url("/ok/c")], "dlp_match"),
        (vec!["--data-binary".into(), SECRET.into(), url("/ok/c")], "dlp_match"),
        (vec!["-H".into(), format!("Host: other.test:{}", server.port()), url("/ok/c")], "name_mismatch"),
    ] {
        let run = curl(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(run.text().contains(&format!("\"reason\": \"{reason}\"")), "{run}");
        assert_eq!(run.evidence.http()[0].reason, reason, "{run}");
    }
}

/// The server of `grpc_peers.py`; killed when it is dropped.
struct Server(Child, u16);

impl Server {
    fn start(folder: &Path, certificate: Option<&Path>) -> Self {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", GRPC, "serve"]).arg(folder).env("PYTHONPATH", python_path()).stdin(Stdio::null());
        let child = command.args(certificate).stdout(Stdio::null()).spawn().expect("python3");
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut server = Self(child, 0);
        while server.1 == 0 {
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::sleep(Duration::from_millis(20));
            server.1 =
                std::fs::read_to_string(folder.join("port")).ok().and_then(|port| port.parse().ok()).unwrap_or(0);
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn chat(server: &Server, folder: &Path, tls: &str) -> Run {
    let sandbox = Sandbox::new(&policy(server.1, tls)).env("PYTHONPATH", python_path());
    let script = sandbox.file("grpc_peers.py", GRPC).display().to_string();
    let target = format!("web.test:{}", server.1);
    let run =
        sandbox.run_ok(&["/usr/bin/python3", &script, "chat", &target, if tls.is_empty() { "clear" } else { "tls" }]);
    let expected = "unary: hello trailer 7\n\
                    up: 100 messages\n\
                    down: 1000 messages, trailer 7\n\
                    both: one two three\n\
                    status: NOT_FOUND no such thing\n\
                    secret: PERMISSION_DENIED\n\
                    secret in a header: PERMISSION_DENIED\n\
                    secret in a name: PERMISSION_DENIED\n\
                    after it: hello\n";
    assert_eq!(run.text(), expected, "{run}");
    let requests = run.evidence.http();
    let stopped: Vec<_> = requests.iter().filter(|request| request.verdict == "block").collect();
    assert_eq!(stopped.iter().map(|request| request.reason.as_str()).collect::<Vec<_>>(), ["dlp_match"; 3], "{run}");
    assert_eq!(requests.len(), 9, "{requests:#?}");
    let seen = std::fs::read(folder.join("seen")).expect("what arrived");
    assert!(holds(&seen, "hello"), "{run}");
    for place in ["body", "header x-key", "url"] {
        assert_kept_in(&run, place, &seen);
    }
    run
}

#[test]
fn grpc_in_the_clear_and_over_tls() {
    need!("openssl", "node");
    if !has_python_module("grpc") {
        return missing("grpcio for Python");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), None);
    let run = chat(&server, folder.path(), "");
    assert!(run.evidence.connections().iter().all(|flow| flow.carrier.as_deref() == Some("http2")), "{run}");

    // Only for its certificate.
    let secure = TlsServer::http2(&["web.test"]);
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path(), Some(&secure.certificate));
    let run = chat(&server, folder.path(), &format!("tls: {{extra_roots: [{}]}}", secure.certificate.display()));
    assert!(run.evidence.connections().iter().all(|flow| flow.carrier.as_deref() == Some("tls-http2")), "{run}");
}
