//! The verifier against the published vectors, and against every small change to a run of our own.

use std::io::Cursor;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::chain::{ChainWriter, Opening};
use crate::draft::ActionDraft;
use crate::sign::SigningKey;
use crate::stats::{DENIALS_LAYER, FLOW_LAYER, LEDGER_LAYER, LEDGER_TARGET, SOCKET_LAYER};

const KEY_A: &str = "2e32a46550e6f0778ba1474445bcea6ae13985e6c39d7a960c2c706350fc3318";
const POLICY: &str = "3d089599e2b17930e4579044928ba7d9d77927b35f3fccbd491d80de41cef1d3";

fn vectors() -> PathBuf {
    // Read when the test runs: what was read at build time may be another checkout's, from a build cache that both use.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("vectors")
}

fn options() -> Options {
    Options { key: Some(PublicKey::parse(KEY_A).unwrap()), policy_hash: None }
}

fn verify(bytes: &[u8], options: &Options) -> Report {
    verify_reader(Cursor::new(bytes), options).unwrap()
}

fn kinds(report: &Report) -> Vec<(ProblemKind, Option<u64>)> {
    report.problems.iter().map(|problem| (problem.kind, problem.seq)).collect()
}

// ---- the published vectors ----

fn vector(path: &str) -> Report {
    let report = verify_path(&vectors().join(path), &options()).unwrap();
    println!("{path}\n{}", report.render());
    report
}

const RUN: &str = "evidence-proxy.run.acba25512100f80b56fc3ccd14c65be5-0.jsonl";

#[test]
fn published_chains_are_accepted() {
    for path in [
        format!("3-session-lifecycle/run/{RUN}"),
        format!("3-session-lifecycle/linked-runs/{RUN}"),
        "3-session-lifecycle/shards/all.jsonl".to_owned(),
        format!("8-weaknesses/same-action_id-twice/{RUN}"),
    ] {
        let report = vector(&path);
        assert!(report.ok && report.trusted, "{path}");
        let unpinned = verify_path(&vectors().join(&path), &Options::default()).unwrap();
        assert!(unpinned.ok && !unpinned.trusted, "{path}");
    }
    let report = vector(&format!("3-session-lifecycle/run/{RUN}"));
    assert_eq!(report.root_hash, "434272239bc2557ff2a45e2db6a41f352ff61c3d54d887aef28fecd8639d68d5");
    assert_eq!((report.receipt_count, report.final_seq, report.totals.block), (6, Some(5), 1));
    assert_eq!(report.policy_hash, POLICY);
}

#[test]
fn published_chains_without_a_proven_end_are_only_truncated() {
    for path in [
        "2-chain-genesis/five.bare.jsonl",
        "2-chain-genesis/five/evidence-proxy-0.jsonl",
        "2-chain-genesis/five-entry-v1/evidence-proxy-0.jsonl",
        "3-session-lifecycle/restart/evidence-proxy-0.jsonl",
        &format!("8-weaknesses/tail-cut-after-receipt-1/{RUN}"),
        &format!("8-weaknesses/no-close-at-all/{RUN}"),
    ] {
        let report = vector(path);
        assert_eq!(report.problems.len(), 1, "{path}");
        assert_eq!(report.problems[0].kind, ProblemKind::Truncated, "{path}");
    }
}

#[test]
fn published_tampered_chains_are_rejected_and_located() {
    use ProblemKind::{Altered, CounterMismatch, Disagree, Extra, Format, KeyMismatch, Missing, Reordered, Truncated};
    let _ = Disagree;
    for (name, kind, seq) in [
        ("2-chain-genesis/tampered/middle-receipt-edited.jsonl", Altered, Some(2)),
        ("2-chain-genesis/tampered/middle-receipt-removed.jsonl", Missing, Some(2)),
        ("2-chain-genesis/tampered/first-receipt-removed.jsonl", Missing, Some(0)),
        ("2-chain-genesis/tampered/receipts-swapped.jsonl", Reordered, Some(1)),
        ("2-chain-genesis/tampered/receipt-duplicated.jsonl", Extra, Some(1)),
        ("2-chain-genesis/tampered/seq-0-repeated.jsonl", Extra, Some(0)),
        ("2-chain-genesis/tampered/prev_hash-wrong-re-signed.jsonl", Altered, Some(2)),
        ("2-chain-genesis/tampered/seq-wrong-re-signed.jsonl", Missing, Some(3)),
        ("2-chain-genesis/tampered/first-prev-not-genesis.jsonl", Format, Some(0)),
        ("2-chain-genesis/tampered/run_nonce-without-session_open.jsonl", Format, Some(0)),
        ("2-chain-genesis/tampered/other-signer-spliced.jsonl", KeyMismatch, Some(2)),
        ("2-chain-genesis/tampered/bad-JSON-line.jsonl", Altered, None),
        ("2-chain-genesis/tampered/empty-file.jsonl", Truncated, None),
        ("2-chain-genesis/tampered/only-checkpoints.jsonl", Altered, Some(0)),
        ("3-session-lifecycle/tampered/concatenated.jsonl", Extra, Some(0)),
        ("3-session-lifecycle/tampered/g1-hash-wrong.jsonl", Altered, Some(0)),
        ("3-session-lifecycle/tampered/genesis_hash-field-wrong.jsonl", Altered, Some(0)),
        ("3-session-lifecycle/tampered/policy_hash-edited-after-binding.jsonl", Altered, Some(0)),
        ("3-session-lifecycle/tampered/close-root-wrong.jsonl", Format, Some(2)),
        ("3-session-lifecycle/tampered/close-count-wrong.jsonl", CounterMismatch, Some(2)),
        ("3-session-lifecycle/tampered/receipt-after-close.jsonl", Extra, Some(3)),
        ("3-session-lifecycle/tampered/unknown-run_nonce.jsonl", Format, Some(2)),
        (&format!("8-weaknesses/forged/{RUN}"), KeyMismatch, None),
        (&format!("8-weaknesses/forged-transcript_root/{RUN}"), Altered, None),
        (&format!("8-weaknesses/clock-goes-backwards/{RUN}"), Reordered, Some(2)),
        (&format!("8-weaknesses/heartbeat-counter-jumps/{RUN}"), CounterMismatch, None),
        (&format!("8-weaknesses/receipt-without-run_nonce-after-close/{RUN}"), Format, None),
        (&format!("8-weaknesses/close-receipt-hidden-by-type-flip/{RUN}"), Altered, None),
        (&format!("8-weaknesses/outer-hash-and-seq-garbage/{RUN}"), Altered, None),
        (&format!("7-extension-probes/ext-edited-on-a-middle-receipt/{RUN}"), Altered, Some(1)),
        (&format!("7-extension-probes/ext-removed-from-a-middle-receipt/{RUN}"), Altered, Some(1)),
        (&format!("7-extension-probes/superset-tail-ext-edited/{RUN}"), Altered, None),
        (&format!("7-extension-probes/superset-tail-ext-stripped/{RUN}"), Altered, None),
    ] {
        let report = vector(name);
        assert!(
            report.problems.iter().any(|problem| problem.kind == kind && (seq.is_none() || problem.seq == seq)),
            "{name}: {:?}",
            kinds(&report)
        );
    }
}

#[test]
fn every_published_tampered_file_is_rejected() {
    let mut files = 0;
    for group in ["2-chain-genesis", "3-session-lifecycle"] {
        for file in std::fs::read_dir(vectors().join(group).join("tampered")).unwrap() {
            let path = file.unwrap().path();
            // A file whose only fault is that it does not end must have been tampered with beyond that too.
            let report = verify_path(&path, &options()).unwrap();
            assert!(!report.ok, "{} was accepted", path.display());
            files += 1;
        }
    }
    assert!(files > 30);
    for file in std::fs::read_dir(vectors().join("1-action-receipt-v1/tampered")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        // Indented files are compacted first, so that it is not the blanks that are refused.
        let compact = match serde_json::from_str::<Value>(&text) {
            Ok(value) => String::from_utf8(crate::canon::go_json(&value).unwrap()).unwrap(),
            Err(_) => text,
        };
        let mut keys = receipt::Keys::new(options().key);
        let refused = receipt::check(&compact, &mut keys).is_err() || keys.replaced.is_some();
        assert!(refused || path.ends_with("duplicate-key.json"), "{} was accepted", path.display());
        assert!(!verify(format!("{compact}\n").as_bytes(), &options()).ok);
    }
    let duplicate = std::fs::read_to_string(vectors().join("1-action-receipt-v1/tampered/duplicate-key.json")).unwrap();
    assert!(crate::canon::strict::check(&duplicate).is_err());
}

// ---- a run of our own ----

fn second(n: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_772_359_200 + n)
}

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

fn pinned() -> Options {
    Options { key: Some(key().public()), policy_hash: Some(POLICY.to_owned()) }
}

fn flow(id: u64, reason: &str) -> (ActionDraft, Value) {
    let mut draft = ActionDraft::new("block", "ebpf", format!("192.0.2.{id}:443"));
    draft.time = second(id);
    draft.layer = FLOW_LAYER.to_owned();
    draft.pattern = reason.to_owned();
    (draft, json!({"flow_v1": {"flow_id": id.to_string(), "kernel_reason": reason, "comm": "curl", "pid": 42}}))
}

/// session_open 0 (with a capsule), flow 1 = receipt 1, request in flow 1 = 2, flows 2 and 3 = 3 and 4, heartbeat 5,
/// ledger 6, session_close 7; then transcript root and checkpoint.
fn run_with(ledger: Value, skip: Option<u64>) -> Vec<u8> {
    let mut opening = Opening { time: second(0), ..Opening::new(POLICY, "local") };
    opening.ext = Some(json!({"capsule_v1": {"binary": "abc"}}));
    let mut writer = ChainWriter::open(Vec::new(), key(), &opening).unwrap();
    for id in 1..=3 {
        let (draft, ext) = flow(id, if id == 3 { "port_denied" } else { "redirect" });
        if skip != Some(id) {
            let _ = writer.append(&draft, Some(&ext)).unwrap();
        }
        if id == 1 {
            let mut request = ActionDraft::new("allow", "intercept", "https://api.example/v1?a=<b>&c");
            request.time = second(1);
            let _ = writer.append(&request, Some(&ext)).unwrap();
        }
    }
    let _ = writer.heartbeat(second(4)).unwrap();
    let mut draft = ActionDraft::new("allow", "ebpf", LEDGER_TARGET);
    draft.time = second(5);
    draft.layer = LEDGER_LAYER.to_owned();
    let _ = writer.append(&draft, Some(&json!({ "kernel_v1": ledger }))).unwrap();
    writer.close("agent exited 0", second(6)).unwrap();
    writer.get_ref().clone()
}

/// A run with two flows, five denials counted in two receipts, and the ledger that belongs to it, unless changed.
fn flooded(counted: Value, counts: [&str; 2]) -> Vec<u8> {
    let mut writer =
        ChainWriter::open(Vec::new(), key(), &Opening { time: second(0), ..Opening::new(POLICY, "local") }).unwrap();
    for id in 1..=2 {
        let (draft, ext) = flow(id, "port_denied");
        let _ = writer.append(&draft, Some(&ext)).unwrap();
    }
    for count in counts {
        let mut draft = ActionDraft::new("block", "ebpf", "tcp://192.0.2.1:443");
        draft.time = second(3);
        draft.layer = DENIALS_LAYER.to_owned();
        let ext = json!({"denials_v1": {"count": count, "kernel_reason": "port_denied"}});
        let _ = writer.append(&draft, Some(&ext)).unwrap();
    }
    let mut draft = ActionDraft::new("allow", "ebpf", LEDGER_TARGET);
    draft.time = second(5);
    draft.layer = LEDGER_LAYER.to_owned();
    let mut ledger = json!({"flows": "2", "unrecorded": "0", "by_reason": {"port_denied": "2"}});
    ledger["counted"] = counted;
    let _ = writer.append(&draft, Some(&json!({ "kernel_v1": ledger }))).unwrap();
    writer.close("agent exited 0", second(6)).unwrap();
    writer.get_ref().clone()
}

#[test]
fn counted_denials_must_add_up_to_what_the_kernel_counted() {
    let good = flooded(json!({"port_denied": "5"}), ["2", "3"]);
    let report = verify(&good, &pinned());
    assert!(report.ok, "{}", report.render());
    assert_eq!((report.flow_count, report.counted), (2, 5));
    assert!(report.render().contains("counted   5 denials"));
    for (counted, counts) in [
        (json!({"port_denied": "6"}), ["2", "3"]),
        (json!({"udp_denied": "5"}), ["2", "3"]),
        (json!({}), ["2", "3"]),
        (json!({"port_denied": "5"}), ["2", "2"]),
    ] {
        let report = verify(&flooded(counted, counts), &pinned());
        assert!(!report.ok);
        assert!(
            report.problems.iter().all(|problem| problem.kind == ProblemKind::CounterMismatch),
            "{}",
            report.render()
        );
    }
    // A count that is changed in the file is an altered receipt and nothing else.
    let text = String::from_utf8(good).unwrap().replacen(r#"{\"count\":\"2\""#, r#"{\"count\":\"9\""#, 1);
    let text = text.replacen(r#""count":"2""#, r#""count":"9""#, 1);
    let report = verify(text.as_bytes(), &pinned());
    assert_eq!(kinds(&report), [(ProblemKind::Altered, Some(3))], "{}", report.render());
    // One without a number is none.
    let report = verify(&flooded(json!({"port_denied": "3"}), ["x", "3"]), &pinned());
    assert_eq!(kinds(&report), [(ProblemKind::Format, Some(3))], "{}", report.render());
}

fn ledger() -> Value {
    json!({"flows": "3", "unrecorded": "0", "by_reason": {"redirect": "2", "port_denied": "1"}, "lost_events": "0"})
}

fn run() -> Vec<u8> {
    run_with(ledger(), None)
}

fn lines(bytes: &[u8]) -> Vec<String> {
    std::str::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

fn joined(lines: &[String]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect::<String>().into_bytes()
}

/// The bare receipts of a recorder file.
fn bare(bytes: &[u8]) -> Vec<u8> {
    let receipts: Vec<String> = lines(bytes)
        .iter()
        .filter_map(|line| {
            let entry: crate::entry::Entry<'_> = serde_json::from_str(line).unwrap();
            (entry.kind == "action_receipt").then(|| entry.detail.get().to_owned())
        })
        .collect();
    joined(&receipts)
}

#[test]
fn our_own_run_is_accepted_in_both_forms() {
    for bytes in [run(), bare(&run())] {
        let report = verify(&bytes, &pinned());
        assert!(report.ok && report.trusted, "{}", report.render());
        assert_eq!((report.receipt_count, report.flow_count, report.final_seq), (8, 3, Some(7)));
        assert_eq!(report.ledger.as_ref().unwrap().flows, 3);
        assert!(report.render().starts_with("VALID"));
        let unpinned = verify(&bytes, &Options::default());
        assert!(unpinned.ok && !unpinned.trusted && unpinned.render().contains("no key was given"));
    }
}

#[test]
fn changed_line_ends_are_refused_and_named_as_the_one_cause() {
    for file in [run(), bare(&run())] {
        let changed = String::from_utf8(file).unwrap().replace('\n', "\r\n");
        let report = verify(changed.as_bytes(), &pinned());
        assert!(!report.ok);
        assert_eq!(kinds(&report), [(ProblemKind::Altered, None)], "{report:?}");
        assert!(report.problems[0].text.contains("line ends were changed"), "{report:?}");
    }
}

#[test]
fn another_key_or_policy_is_named_once() {
    let report = verify(&run(), &options());
    assert_eq!(kinds(&report), [(ProblemKind::KeyMismatch, None)], "{}", report.render());
    assert_eq!(report.signer_key, key().public().hex());
    let other = Options { policy_hash: Some("0".repeat(64)), ..pinned() };
    assert_eq!(kinds(&verify(&run(), &other)), [(ProblemKind::PolicyMismatch, Some(0))]);
}

#[test]
fn the_count_of_refused_sockets_is_bound_to_its_receipt() {
    let mut writer = ChainWriter::open(Vec::new(), key(), &Opening::new(POLICY, "local")).unwrap();
    let mut draft = ActionDraft::new("block", "seccomp", "socket://inet/raw/1");
    draft.layer = SOCKET_LAYER.to_owned();
    let _ = writer.append(&draft, Some(&json!({"socket_v1": {"count": "7", "comm": "ping"}}))).unwrap();
    let mut draft = ActionDraft::new("allow", "ebpf", LEDGER_TARGET);
    draft.layer = LEDGER_LAYER.to_owned();
    let ledger = json!({"flows": "0", "unrecorded": "0", "by_reason": {}, "sockets_refused": "7"});
    let _ = writer.append(&draft, Some(&json!({ "kernel_v1": ledger }))).unwrap();
    writer.close("end", SystemTime::now()).unwrap();
    let bare = bare(writer.get_ref());
    assert!(verify(&bare, &pinned()).ok, "{}", verify(&bare, &pinned()).render());
    let text = String::from_utf8(bare).unwrap();
    for (from, to) in [(r#""count":"7""#, r#""count":"6""#), (r#""comm":"ping""#, r#""comm":"pong""#)] {
        let forged = text.replace(from, to);
        assert_ne!(forged, text);
        assert_eq!(kinds(&verify(forged.as_bytes(), &pinned())), [(ProblemKind::Altered, Some(1))]);
    }
}

#[test]
fn any_changed_byte_of_a_receipt_is_one_altered_receipt() {
    // Every byte; which bit rotates with the place, so that a run in debug mode stays a matter of seconds.
    for (masks, bytes) in [([0x01, 0x20, 0x80], run()), ([0x02, 0x04, 0x40], bare(&run()))] {
        let bytes = &bytes;
        std::thread::scope(|scope| {
            for (worker, mask) in masks.into_iter().enumerate() {
                #[allow(clippy::disallowed_methods, reason = "a test")]
                scope.spawn(move || {
                    for at in (worker..bytes.len()).step_by(masks.len()) {
                        change_byte(bytes, at, mask);
                    }
                });
            }
        });
    }
}

fn change_byte(bytes: &[u8], at: usize, mask: u8) {
    let mut changed = bytes.to_vec();
    changed[at] ^= mask;
    let report = verify(&changed, &pinned());
    assert!(!report.ok, "byte {at} ^ {mask:#x} was accepted");
    let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() as u64;
    // Eight receipts; then transcript root and checkpoint, which have no number.
    if line < 8 && bytes[at] != b'\n' && changed[at] != b'\n' {
        let expected = [(ProblemKind::Altered, Some(line))];
        assert_eq!(kinds(&report), expected, "byte {at} ^ {mask:#x}\n{}", report.render());
    }
}

#[test]
fn text_around_a_signed_record_may_not_change_either() {
    // In a file of bare receipts nothing but the rule of canonical bytes covers the envelope of the last one.
    let all = lines(&bare(&run()));
    let last = all.last().unwrap();
    let (signature, signer) = last.split_once("},\"signature\":").unwrap().1.split_once(',').unwrap();
    let signer = signer.trim_end_matches('}');
    let record = last.split_once(",\"signature\"").unwrap().0;
    for changed in [
        last.replacen("{\"version\":1,", "{\"version\": 1,", 1),
        last.replacen(",\"signature\"", ", \"signature\"", 1),
        format!("{last} "),
        format!("{record},{signer},\"signature\":{signature}}}"),
        last.replacen("\"signer_key\"", "\"signer\\u005fkey\"", 1),
        last.replacen(",\"signer_key\"", ",\"x\":1,\"signer_key\"", 1),
        format!("{},\"ext\":{{}}}}", last.trim_end_matches('}').to_owned()),
        format!("{},\"ext\":{{\"note\":\"all is well\"}}}}", last.trim_end_matches('}').to_owned()),
        format!("{},\"ext\":null}}", last.trim_end_matches('}').to_owned()),
    ] {
        assert_ne!(changed, *last);
        let mut some = all.clone();
        *some.last_mut().unwrap() = changed.clone();
        let report = verify(&joined(&some), &pinned());
        assert_eq!(kinds(&report), [(ProblemKind::Altered, Some(7))], "{changed}\n{}", report.render());
    }
}

#[test]
fn any_removed_line_is_reported_with_its_number_and_flow() {
    for (form, bytes) in [("recorder", run()), ("bare", bare(&run()))] {
        let all = lines(&bytes);
        for index in 0..all.len() {
            let mut some = all.clone();
            some.remove(index);
            let report = verify(&joined(&some), &pinned());
            println!("{form} {index}\n{}", report.render());
            let seq = index as u64;
            let expected = match (form, index) {
                ("recorder", 0..=7) | ("bare", 0..=6) => (ProblemKind::Missing, Some(seq)),
                ("bare", _) => (ProblemKind::Truncated, Some(7)),
                (_, 8) => (ProblemKind::Missing, None),
                _ => (ProblemKind::Truncated, None),
            };
            assert_eq!(kinds(&report), [expected], "{form} {index}");
            let flow = match index {
                1 => Some(1),
                3 => Some(2),
                4 => Some(3),
                _ => None,
            };
            assert_eq!(report.problems[0].flow, flow, "{form} {index}");
        }
    }
}

#[test]
fn any_doubled_or_swapped_line_is_reported() {
    for bytes in [run(), bare(&run())] {
        let all = lines(&bytes);
        for from in 0..all.len() {
            for to in 0..=all.len() {
                let mut more = all.clone();
                more.insert(to, all[from].clone());
                let report = verify(&joined(&more), &pinned());
                assert!(!report.ok, "line {from} again before {to}");
                assert!(
                    report.problems.iter().any(|problem| problem.kind == ProblemKind::Extra),
                    "{from} {to}\n{}",
                    report.render()
                );
            }
            for to in from + 1..all.len() {
                let mut swapped = all.clone();
                swapped.swap(from, to);
                let report = verify(&joined(&swapped), &pinned());
                assert!(!report.ok, "lines {from} and {to} swapped");
                if to == from + 1 {
                    assert_eq!(report.problems[0].kind, ProblemKind::Reordered, "{from} {to}\n{}", report.render());
                    assert!(report.problems.len() <= 2, "{from} {to}\n{}", report.render());
                }
            }
        }
    }
}

#[test]
fn a_cut_file_is_truncated_wherever_it_is_cut() {
    let bytes = run();
    for end in (0..bytes.len()).step_by(7) {
        let report = verify(&bytes[..end], &pinned());
        assert!(!report.ok);
        assert!(
            report.problems.iter().any(|problem| problem.kind == ProblemKind::Truncated),
            "{end}\n{}",
            report.render()
        );
    }
    let all = lines(&bytes);
    assert_eq!(kinds(&verify(&joined(&all[..4]), &pinned())), [(ProblemKind::Truncated, Some(4))]);
}

#[test]
fn the_kernel_count_is_reconciled() {
    use ProblemKind::{CounterMismatch, Extra, Missing, Truncated};
    let with = |ledger: Value| verify(&run_with(ledger, None), &pinned());
    let flows = |report: &Report| report.problems.iter().map(|p| (p.kind, p.flow)).collect::<Vec<_>>();

    // A flow that the recorder never wrote: the chain is whole, only the kernel knows.
    let report = verify(&run_with(ledger(), Some(2)), &pinned());
    assert_eq!(flows(&report), [(Missing, Some(2))], "{}", report.render());

    let more = json!({"flows": "9", "unrecorded": "0", "by_reason": {"redirect": "9"}});
    assert_eq!(flows(&with(more)), [(Missing, Some(4))]);
    let fewer = json!({"flows": "2", "unrecorded": "0", "by_reason": {"redirect": "2"}});
    assert_eq!(flows(&with(fewer)), [(Extra, Some(3)), (CounterMismatch, None)]);
    let lost = json!({"flows": "8", "unrecorded": "5", "by_reason": {"redirect": "2", "port_denied": "1"}});
    assert_eq!(flows(&with(lost)), [(Missing, None), (Missing, Some(4))]);
    let unwritten = json!({"flows": "3", "unrecorded": "0", "by_reason": {"redirect": "2", "port_denied": "1"},
        "receipts_lost": "2"});
    assert_eq!(flows(&with(unwritten)), [(Missing, None)]);
    let taken = json!({"flows": "3", "unrecorded": "0", "by_reason": {"redirect": "2", "port_denied": "1"},
        "receipts_lost": "0", "first": "3", "taken_over": ["1", "2"]});
    assert!(with(taken).ok);
    let sockets = json!({"flows": "3", "unrecorded": "0", "by_reason": {"redirect": "2", "port_denied": "1"},
        "sockets_refused": "1"});
    assert_eq!(flows(&with(sockets)), [(CounterMismatch, None)]);
    let later = json!({"flows": "3", "unrecorded": "0", "by_reason": {"redirect": "1"}, "first": "3"});
    let report = with(later);
    assert!([1, 2].iter().all(|flow| flows(&report).contains(&(Extra, Some(*flow)))), "{}", report.render());
    let other = json!({"flows": "3", "unrecorded": "0", "by_reason": {"redirect": "3"}});
    assert_eq!(flows(&with(other)), [(CounterMismatch, None), (CounterMismatch, None)]);
    let sum = json!({"flows": "3", "unrecorded": "0", "by_reason": {"redirect": "2", "port_denied": "1", "x": "1"}});
    assert!(flows(&with(sum)).contains(&(CounterMismatch, None)));
    assert!(!with(json!({"flows": 3})).ok);

    let mut writer = ChainWriter::open(Vec::new(), key(), &Opening::new(POLICY, "local")).unwrap();
    let (draft, ext) = flow(1, "redirect");
    let _ = writer.append(&draft, Some(&ext)).unwrap();
    let _ = writer.append(&draft, Some(&ext)).unwrap();
    writer.close("end", SystemTime::now()).unwrap();
    assert_eq!(flows(&verify(writer.get_ref(), &pinned())), [(Extra, Some(1)), (Truncated, None)]);

    let mut writer = ChainWriter::open(Vec::new(), key(), &Opening::new(POLICY, "local")).unwrap();
    let _ = writer.append(&ActionDraft::new("allow", "forward", "https://a/"), None).unwrap();
    writer.close("end", SystemTime::now()).unwrap();
    let report = verify(writer.get_ref(), &pinned());
    assert!(report.ok && report.notes.iter().any(|note| note.starts_with("ledger: absent")));
}

#[test]
fn a_rewritten_entry_chain_is_caught_by_the_checkpoint() {
    // Everything an attacker without the key can recompute is recomputed.
    let mut previous = "genesis".to_owned();
    let mut out = Vec::new();
    for line in lines(&run()) {
        let entry: crate::entry::Entry<'_> = serde_json::from_str(&line).unwrap();
        let unplaced = crate::entry::Unplaced {
            ts: &entry.ts,
            session_id: &entry.session_id,
            kind: &entry.kind,
            event_kind: &entry.event_kind,
            transport: &entry.transport,
            summary: if entry.seq == 3 { "receipt: allow nothing happened" } else { &entry.summary },
            detail: entry.detail.get(),
        };
        previous = unplaced.write(&mut out, entry.seq, &previous).unwrap();
    }
    let report = verify(&out, &pinned());
    assert_eq!(kinds(&report), [(ProblemKind::Altered, None)], "{}", report.render());
}

#[test]
fn problems_are_capped_and_counted() {
    let mut writer = ChainWriter::open(Vec::new(), key(), &Opening::new(POLICY, "local")).unwrap();
    for _ in 0..1500 {
        let _ = writer.append(&ActionDraft::new("allow", "forward", "https://a/"), None).unwrap();
    }
    writer.close("end", SystemTime::now()).unwrap();
    let edited = String::from_utf8(bare(writer.get_ref())).unwrap().replace("\"allow\"", "\"block\"");
    let report = verify(edited.as_bytes(), &pinned());
    assert_eq!(report.problems.len(), MAX_PROBLEMS);
    assert!(!report.ok && report.render().contains("more"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn arbitrary_bytes_never_panic_and_never_verify(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(!verify(&bytes, &Options::default()).ok);
    }

    #[test]
    fn cut_up_and_mixed_files_never_panic_and_never_verify(
        picks in proptest::collection::vec((0_usize..10, proptest::option::of((0_usize..2000, any::<u8>()))), 0..15)
    ) {
        let all = lines(&run());
        let mut bytes = Vec::new();
        for (index, change) in &picks {
            let mut line = all[*index].clone().into_bytes();
            if let Some((at, byte)) = change {
                let at = at % line.len();
                line[at] = *byte;
            }
            bytes.extend(line);
            bytes.push(b'\n');
        }
        let report = verify(&bytes, &Options::default());
        prop_assert!(!report.ok || bytes == joined(&all));
    }
}
