//! HTTP/2 with prior knowledge, in the clear, and gRPC both in the clear and over TLS: allowed where the rule allows HTTP, and
//! read like everything.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::process::Command;

use pipelock_e2e::{
    Run, SECRET, Sandbox, Served, TlsServer, assert_kept_in, has_python_module, holds, missing, need, python_path,
    web_policy,
};

const GRPC: &str = include_str!("../agents/grpc_peers.py");

fn policy(port: u16, more: &str) -> String {
    web_policy(port, ", methods: [GET, POST], paths: [\"/ok/*\", \"/e2e.Echo/*\"]", more)
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

/// The server of `grpc_peers.py`.
fn grpc_server(certificate: Option<&Path>) -> Served {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", GRPC, "serve"]).arg(folder.path()).args(certificate).env("PYTHONPATH", python_path());
    Served::start(&mut command, folder)
}

fn chat(server: &Served, tls: &str) -> Run {
    let sandbox = Sandbox::new(&policy(server.port(), tls)).env("PYTHONPATH", python_path());
    let script = sandbox.file("grpc_peers.py", GRPC).display().to_string();
    let target = format!("web.test:{}", server.port());
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
    let seen = std::fs::read(server.folder().join("seen")).expect("what arrived");
    assert!(holds(&seen, "hello"), "{run}");
    for place in ["body", "header x-key", "url"] {
        assert_kept_in(&run, place, &seen);
    }
    run
}

#[test]
fn grpc_in_the_clear_and_over_tls() {
    need!("python3", "openssl", "node");
    if !has_python_module("grpc") {
        return missing("grpcio for Python");
    }
    let run = chat(&grpc_server(None), "");
    assert!(run.evidence.connections().iter().all(|flow| flow.carrier.as_deref() == Some("http2")), "{run}");

    // Only for its certificate.
    let secure = TlsServer::http2(&["web.test"]);
    let run = chat(&grpc_server(Some(&secure.certificate)), &secure.roots());
    assert!(run.evidence.connections().iter().all(|flow| flow.carrier.as_deref() == Some("tls-http2")), "{run}");
}
