//! Evidence in other hands: the public verifier takes it as it is, and whoever touches it is found out.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use pipelock_e2e::{HttpServer, Run, Sandbox, missing, need, pipelock};
use serde_json::Value;

/// A run with flows of several kinds: DNS, HTTP allowed and denied, refused in the kernel.
fn some_run() -> Run {
    let server = HttpServer::start("127.0.0.1:0");
    let policy = format!(
        "egress: [{{destination: web.test, ports: [{}], scan: false, paths: [\"/open\"]}}]\n\
         dns: {{hosts: {{web.test: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}",
        server.port()
    );
    let base = format!("http://web.test:{}", server.port());
    let script = format!(
        "curl -sS -o /dev/null {base}/open {base}/secret; curl -sS http://192.0.2.1:9/; curl -sS http://evil.test/; true"
    );
    Sandbox::new(&policy).run_ok(&["sh", "-c", &script])
}

/// The verifier of the format's authors, as the package index has it.
fn public_verifier() -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    let folder = Path::new(&home).join(".cache/pipelock/venv-verify");
    let program = folder.join("bin/pipelock-verify");
    if !program.exists() {
        let made = Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&folder).status();
        let installed = Command::new(folder.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "pipelock-verify==0.4.1"])
            .status();
        if !(made.is_ok_and(|status| status.success()) && installed.is_ok_and(|status| status.success())) {
            return None;
        }
    }
    Some(program)
}

#[test]
fn the_public_verifier_takes_it_unchanged() {
    need!("curl");
    let Some(verifier) = public_verifier() else {
        return missing("pipelock-verify 0.4.1");
    };
    let run = some_run();
    let key = std::fs::read_to_string(run.evidence.folder.join("public-key.hex")).expect("the key");
    let verify = |chain: &Path, key: &str| {
        let out = Command::new(&verifier).arg(chain).args(["--key", key.trim()]).output().expect("pipelock-verify");
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        (out.status.success(), said)
    };
    let chain = run.evidence.folder.join("evidence.jsonl");
    let (ok, said) = verify(&chain, &key);
    assert!(ok, "{said}");
    // It can say no.
    let (ok, said) = verify(&chain, &"0".repeat(64));
    assert!(!ok, "{said}");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let altered = dir.path().join("evidence.jsonl");
    let text = std::fs::read_to_string(&chain).expect("the chain");
    std::fs::write(&altered, text.replacen("port_denied", "port_danied", 1)).expect("write");
    let (ok, said) = verify(&altered, &key);
    assert!(!ok, "{said}");
}

/// The chain alone, changed by `change`, verified by our own verifier: exit code and report.
fn tampered(run: &Run, change: impl FnOnce(&mut Vec<String>)) -> (i32, Value) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let chain = dir.path().join("evidence.jsonl");
    let text = std::fs::read_to_string(run.evidence.folder.join("evidence.jsonl")).expect("the chain");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    std::fs::write(&chain, lines.join("\n") + "\n").expect("write");
    let out = Command::new(pipelock())
        .arg("verify")
        .arg(&chain)
        .arg("--public-key")
        .arg(run.evidence.folder.join("public-key.pem"))
        .arg("--json")
        .output()
        .expect("pipelock verify");
    let report = serde_json::from_slice(&out.stdout).expect("JSON");
    (out.status.code().expect("a code"), report)
}

/// A problem of this kind that names the flow.
fn names(report: &Value, kind: &str, flow: u64) -> bool {
    let problems = report["problems"].as_array().expect("problems");
    problems.iter().any(|problem| problem["kind"] == kind && problem["flow"].as_u64() == Some(flow))
}

/// Where the receipt of the flow that the kernel refused stands.
fn line_of(lines: &[String], needle: &str) -> usize {
    lines.iter().position(|line| line.contains(needle)).expect("a line")
}

#[test]
fn whoever_touches_the_chain_is_found_out() {
    need!("curl");
    let run = some_run();
    let flow = run.evidence.with_reason("port_denied").first().expect("a refused flow").id;
    const FLOW: &str = "\"pattern\":\"port_denied\"";
    assert_eq!(tampered(&run, |_| {}).0, 0, "untouched");

    let (code, report) = tampered(&run, |lines| {
        lines.remove(line_of(lines, FLOW));
    });
    assert_eq!(code, 3, "a receipt is missing");
    assert!(names(&report, "missing", flow), "{report:#}");

    let (code, report) = tampered(&run, |lines| {
        let at = line_of(lines, FLOW);
        lines[at] = lines[at].replacen("192.0.2.1", "192.0.2.2", 1);
    });
    assert_eq!(code, 3, "a byte was changed");
    assert!(names(&report, "altered", flow), "{report:#}");

    // Of two that changed places, the one that comes too late is named.
    let (code, report) = tampered(&run, |lines| {
        let at = line_of(lines, FLOW);
        lines.swap(at, at + 1);
    });
    assert_eq!(code, 3, "two receipts changed places");
    assert!(names(&report, "reordered", flow), "{report:#}");

    let (code, report) = tampered(&run, |lines| {
        let at = line_of(lines, FLOW);
        let copy = lines[at].clone();
        lines.insert(at, copy);
    });
    assert_eq!(code, 3, "a receipt stands twice: {report:#}");

    let (code, report) = tampered(&run, |lines| lines.truncate(line_of(lines, FLOW)));
    assert_eq!(code, 3, "the end is missing");
    assert!(
        report["problems"].as_array().expect("problems").iter().any(|problem| problem["kind"] == "truncated"),
        "{report:#}"
    );

    let (code, _) = tampered(&run, |lines| {
        let last = lines.last_mut().expect("a line");
        let cut = last.len() / 2;
        last.truncate(cut);
    });
    assert_eq!(code, 3, "the last line is cut");
}

#[test]
fn any_flipped_byte_is_found_out() {
    need!("curl");
    let run = some_run();
    let text = std::fs::read(run.evidence.folder.join("evidence.jsonl")).expect("the chain");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let chain = dir.path().join("evidence.jsonl");
    let mut missed = Vec::new();
    // Every 41st byte: a few hundred places, over every field of every kind of receipt.
    for at in (0..text.len()).step_by(41) {
        let mut changed = text.clone();
        changed[at] ^= 1;
        std::fs::write(&chain, &changed).expect("write");
        let status = Command::new(pipelock())
            .arg("verify")
            .arg(&chain)
            .arg("--public-key")
            .arg(run.evidence.folder.join("public-key.pem"))
            .output()
            .expect("pipelock verify")
            .status;
        if status.code() != Some(3) {
            let around = String::from_utf8_lossy(&text[at.saturating_sub(30)..(at + 10).min(text.len())]).into_owned();
            missed.push(format!("{at}: {:?} …{around}", status.code()));
        }
    }
    assert!(missed.is_empty(), "{} of {}: {missed:#?}", missed.len(), text.len() / 41);
}

#[test]
fn a_key_must_be_given_and_be_the_right_one() {
    let run = Sandbox::new("egress: []").run_ok(&["true"]);
    let folder = &run.evidence.folder;
    let verify = |args: &[&str]| {
        let out = Command::new(pipelock()).arg("verify").arg(folder).args(args).output().expect("pipelock verify");
        out.status.code()
    };
    assert_eq!(verify(&[]), Some(3));
    assert_eq!(verify(&["--allow-unpinned"]), Some(0));
    let other = Sandbox::new("egress: []").run_ok(&["true"]);
    let other_key = other.evidence.folder.join("public-key.pem");
    assert_eq!(verify(&["--public-key", other_key.to_str().expect("text")]), Some(3));
}

#[test]
fn a_key_of_ones_own_signs_every_run() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let key = dir.path().join("signing.key");
    let out = Command::new(pipelock()).args(["keygen", "--output"]).arg(&key).output().expect("keygen");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let signer = |run: &Run| run.evidence.report["signer_key"].as_str().expect("a key").to_owned();
    let with_key = || Sandbox::new("egress: []").option("--key").option(key.as_os_str()).run_ok(&["true"]);
    let (first, second) = (with_key(), with_key());
    assert_eq!(signer(&first), signer(&second));
    assert_ne!(signer(&first), signer(&Sandbox::new("egress: []").run_ok(&["true"])));
}
