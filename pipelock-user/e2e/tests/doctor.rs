//! `pipelock doctor` and `pipelock ca`: what they say of real clients, and what they write for agents that others start.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use pipelock_e2e::{TlsServer, need, pipelock};
use serde_json::Value;

/// Runs pipelock with an authority of its own in this folder.
fn run(folder: &Path, path: &str, args: &[&str]) -> Output {
    let mut command = Command::new(pipelock());
    command.args(args).env_clear().env("PATH", path).env("STATE_DIRECTORY", folder.join("state")).current_dir(folder);
    command.output().expect("pipelock")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_doctor_tells_clients_that_work_from_one_that_pins() {
    need!("curl", "python3", "openssl", "chromium");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("chmod");
    let out = run(folder.path(), "/usr/bin:/bin", &["doctor", "--json", "curl", "python", "chromium"]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out:?}"));
    let result = |report: &Value, at: usize| report["clients"][at]["result"].as_str().expect("a word").to_owned();
    assert!((0..3).all(|at| result(&report, at) == "works"), "{report:#}");
    assert!(report["all_work"] == true && out.status.success(), "{report:#}");

    // A curl that believes one certificate only.
    let pinned = TlsServer::start("127.0.0.1", &["other.test"]);
    let fake = folder.path().join("curl");
    let only = pinned.certificate.display();
    std::fs::write(&fake, format!("#!/bin/sh\nexec /usr/bin/curl --cacert {only} --capath /nonexistent \"$@\"\n"))
        .expect("write");
    std::fs::set_permissions(&fake, Permissions::from_mode(0o755)).expect("chmod");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let out = run(folder.path(), &path, &["doctor", "--json", "curl"]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{error}: {out:?}"));
    assert_eq!(result(&report, 0), "does not trust", "{report:#}");
    assert!(report["clients"][0]["what_to_do"].as_str().is_some_and(|advice| advice.contains("CURL_CA_BUNDLE")));
    assert_eq!(out.status.code(), Some(1));
    let left = std::fs::read_dir(std::env::temp_dir()).expect("a folder").flatten();
    assert!(!left.into_iter().any(|entry| text(entry.file_name().as_encoded_bytes()).starts_with("pipelock-doctor-")));

    let table = run(folder.path(), &path, &["doctor", "curl"]);
    assert!(text(&table.stdout).contains("does not trust"), "{table:?}");
    let unknown = run(folder.path(), "/usr/bin", &["doctor", "netscape"]);
    assert!(unknown.status.code() == Some(2) && text(&unknown.stderr).contains("curl"), "{unknown:?}");
}

#[test]
fn the_authority_is_printed_and_exported_without_its_key() {
    need!("openssl");
    let folder = tempfile::tempdir().expect("a folder");
    let printed = run(folder.path(), "/usr/bin", &["ca"]);
    assert!(text(&printed.stdout).starts_with("-----BEGIN CERTIFICATE-----"), "{printed:?}");
    assert_eq!(text(&printed.stdout).matches("BEGIN").count(), 1);
    std::fs::write(folder.path().join("ca.pem"), &printed.stdout).expect("write");
    let fingerprint = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in", "ca.pem"])
        .current_dir(folder.path())
        .output()
        .expect("openssl");
    let hex = text(&fingerprint.stdout).trim().rsplit('=').next().expect("hex").replace(':', "").to_lowercase();
    assert!(text(&printed.stderr).contains(&hex), "{printed:?}");

    let shell = run(folder.path(), "/usr/bin", &["ca", "--export", "trust", "--shell"]);
    assert!(text(&shell.stdout).contains("export SSL_CERT_FILE='"), "{shell:?}");
    let trust = folder.path().join("trust");
    let mut names: Vec<_> =
        std::fs::read_dir(&trust).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    assert_eq!(names, ["added.pem", "bundle.p12", "bundle.pem", "trust.env"]);
    for name in names {
        let bytes = std::fs::read(trust.join(name)).expect("a file");
        assert!(!text(&bytes).contains("PRIVATE"));
    }
    let variables = std::fs::read_to_string(trust.join("trust.env")).expect("a file");
    let bundle = format!("SSL_CERT_FILE={}", trust.join("bundle.pem").display());
    assert!(variables.lines().any(|line| line == bundle), "{variables}");
    assert_eq!(std::fs::read(trust.join("added.pem")).expect("a file"), printed.stdout);
}
