//! Our chains against the public verifiers, if they are installed, and how fast they are signed.
//!
//! `pip install pipelock-verify==0.4.1` and `cargo install pipelock-verifier-rs`; found on PATH, or named by
//! `PIPELOCK_VERIFY` and `PIPELOCK_VERIFIER_RS`. Without them these tests say so and pass.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test: a failure should panic, and what was skipped should be said"
)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Instant, SystemTime};

use pipelock_receipt::folder::{DOCUMENT, EVIDENCE};
use pipelock_receipt::stats::{FLOW_LAYER, LEDGER_LAYER, LEDGER_TARGET};
use pipelock_receipt::{
    ActionDraft, ActionType, ChainWriter, Folder, Opening, Options, PublicKey, SigningKey, verify_path, write_folder,
};
use serde_json::{Value, json};

fn executable(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Some(PathBuf::from(path));
    }
    let found = env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: {name} is not installed");
    }
    found
}

fn flow_ext(id: u64, reason: &str) -> Value {
    json!({"flow_v1": {
        "flow_id": id.to_string(), "kernel_reason": reason, "sock_cookie": u64::MAX.to_string(), "cgroup_id": "9007199254740993",
        "pid": 4242, "tgid": 4242, "uid": 1001, "comm": "cürl<&>\u{2028}\u{85}", "netns_ino": "4026531840", "proto": "tcp",
        "src": "10.0.0.2:43122", "orig_dst": "93.184.216.34:443", "tx_bytes": "1234", "rx_bytes": "56789",
    }})
}

/// A run with everything that the writer can write, hostile text included.
fn write_run(folder: &Path, flows: u64) -> PublicKey {
    let key = SigningKey::generate().unwrap();
    let public = key.public();
    let opening = Opening {
        posture_capsule_sha256: Some("ed5b01d64ce2b066e33de2343b38ea7006cb69d5323cab96bebffe7565472d61".into()),
        containment_nonce: Some("cgroup-77".into()),
        contained_uid: Some(1001),
        ext: Some(json!({"capsule_v1": {"binary": "abc", "programs": ["x", "y"]}})),
        ..Opening::new("3d089599e2b17930e4579044928ba7d9d77927b35f3fccbd491d80de41cef1d3", "local")
    };
    let mut folder = Folder::make(folder).unwrap();
    let mut writer = ChainWriter::open(folder.begin().unwrap(), key, &opening).unwrap();
    for id in 1..=flows {
        let mut draft = ActionDraft::new("block", "ebpf", "tcp://93.184.216.34:443");
        draft.layer = FLOW_LAYER.to_owned();
        draft.pattern = "redirect".to_owned();
        let _ = writer.append(&draft, Some(&flow_ext(id, "redirect"))).unwrap();
        if id % 500 == 1 {
            let (action_type, side_effect, reversibility) = ActionType::of_http_method("POST");
            let request = ActionDraft {
                action_type,
                side_effect,
                reversibility,
                method: "POST".into(),
                actor: "ci-agent".into(),
                pattern: "a\u{202e}b\u{0}".into(),
                ..ActionDraft::new("strip", "intercept", "https://é.example/a?x=<1>&y=\u{2028}\"q\"\\\t\u{85}😀")
            };
            let _ = writer.append(&request, Some(&flow_ext(id, "redirect"))).unwrap();
            let _ = writer.heartbeat(SystemTime::now()).unwrap();
        }
    }
    let mut ledger = ActionDraft::new("allow", "ebpf", LEDGER_TARGET);
    ledger.layer = LEDGER_LAYER.to_owned();
    let counters = json!({"kernel_v1": {
        "flows": flows.to_string(), "unrecorded": "0", "by_reason": {"redirect": flows.to_string()}}});
    let _ = writer.append(&ledger, Some(&counters)).unwrap();
    writer.close("agent exited 0", SystemTime::now()).unwrap();
    writer.sync().unwrap();
    write_folder(&folder).unwrap();
    public
}

#[test]
fn the_public_verifiers_accept_our_chains() {
    let python = executable("PIPELOCK_VERIFY", "pipelock-verify");
    let rust = executable("PIPELOCK_VERIFIER_RS", "pipelock-verifier-rs");
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("run");
    let key = write_run(&folder, 2500);
    let report = verify_path(&folder, &Options { key: Some(key), policy_hash: None }).unwrap();
    assert!(report.trusted, "{}", report.render());

    let evidence = folder.join(EVIDENCE);
    if let Some(program) = python {
        let output = Command::new(program).arg("--key").arg(key.hex()).arg(&evidence).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("CHAIN VALID"), "{text}");
        assert!(text.contains(&report.root_hash), "{text}");
    }
    if let Some(program) = rust {
        // Exit code 3 would be "valid prefix, end unproven".
        let output = Command::new(program).arg("chain").arg(&evidence).arg("--key").arg(key.hex()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("CHAIN VALID"), "{text}");
    }
}

#[test]
#[ignore = "measures: run it with --release --nocapture"]
fn throughput() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("run");
    let flows = 100_000;
    let start = Instant::now();
    let key = write_run(&folder, flows);
    let all = start.elapsed();
    let start = Instant::now();
    write_folder(&Folder::open(&folder).unwrap()).unwrap();
    let derived = start.elapsed();
    let start = Instant::now();
    assert!(verify_path(&folder, &Options { key: Some(key), policy_hash: None }).unwrap().trusted);
    let verified = start.elapsed();
    let rate = |time: std::time::Duration| flows as f64 / time.as_secs_f64();
    println!(
        "signed and written {:.0}/s, folder derived {:.0}/s, folder verified {:.0}/s, {} bytes a receipt in {DOCUMENT}",
        rate(all - derived),
        rate(derived),
        rate(verified),
        std::fs::metadata(folder.join(DOCUMENT)).unwrap().len() / flows,
    );
}
