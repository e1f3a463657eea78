//! `pipelock check` as a user runs it: the files that a policy names, and what is in a URL.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, a panic is how a failure is told"
)]

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn check(folder: &TempDir, policy: &str, more: &[&str]) -> Output {
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, format!("version: 1.0\n{policy}")).unwrap();
    // Compiled once, for all tests that run the binary.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scan-cache");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pipelock"));
    command.args(["check", "--policy"]).arg(file).args(more).env("CACHE_DIRECTORY", cache).output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn every_file_that_cannot_be_used_is_named() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("no.pem"), "nothing").unwrap();
    let policy = "egress: [{destination: a.test, client_cert: none.pem, client_key: none.key}]\n\
                  tls: {ca_cert: no.pem, ca_key: no.pem, extra_roots: [missing.pem, no.pem]}\n\
                  dlp: {secrets_files: [secrets.txt]}\n\
                  metrics: {listen: \"127.0.0.1:9464\", token_file: token}\n";
    let output = check(&folder, policy, &[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let path = |name: &str| folder.path().join(name).display().to_string();
    for words in [
        format!("tls.ca_cert, tls.ca_key: {}: no certificate in it", path("no.pem")),
        format!("tls.extra_roots: {}: No such file", path("missing.pem")),
        format!("tls.extra_roots: {}: no certificate in it", path("no.pem")),
        format!("egress[0] a.test: client_cert, client_key: {}: No such file", path("none.pem")),
        format!("dlp.secrets_files: {}: No such file", path("secrets.txt")),
        format!("metrics.token_file: {}: No such file", path("token")),
    ] {
        assert!(text.contains(&words), "{words}: {text}");
    }
    let elsewhere = check(&folder, policy, &["--no-files"]);
    assert_eq!(elsewhere.status.code(), Some(0), "{}", said(&elsewhere));
}

#[test]
fn a_secret_in_a_url_is_found_and_not_repeated() {
    let folder = TempDir::new().unwrap();
    let token = "ghp_0123456789abcdefghijABCDEFGHIJ01234567";
    let url = format!("https://a.test/?x={token}");
    for more in [&[][..], &["--json"]] {
        let output = check(&folder, "egress: [{destination: a.test}]\n", &[&["--url", &url][..], more].concat());
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("dlp_match") && text.contains("github") && !text.contains(token), "{text}");
        // Nor where no rule names the host that it is in.
        let url = format!("https://{token}.b.test/");
        let output = check(&folder, "egress: [{destination: a.test}]\n", &[&["--url", &url][..], more].concat());
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(!text.to_ascii_lowercase().contains(&token.to_ascii_lowercase()), "{text}");
    }
}
