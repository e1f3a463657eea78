//! The writer against the published vectors, and its promises when writing fails.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::ids::uuid_v7;
use super::*;
use crate::body::{ActionRecord, Receipt};
use crate::canon::go_json;
use crate::codec::unhex;
use crate::draft::{ActionType, Reversibility, SideEffect};

const SEED_A: &str = "81c72059658159ed6c58ea6f5c74946d4bc1228ff393d6a241f3efd01037e050";
const POLICY: &str = "3d089599e2b17930e4579044928ba7d9d77927b35f3fccbd491d80de41cef1d3";

fn key_a() -> SigningKey {
    SigningKey::from_seed(&unhex(SEED_A).unwrap())
}

/// The vectors count seconds from 2026-03-01T10:00:00.5Z.
fn second(n: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_772_359_200_500 + 1000 * n)
}

fn get(n: u64, verdict: &str) -> ActionDraft {
    ActionDraft {
        time: second(n),
        action_type: ActionType::Read,
        actor: "ci-agent".into(),
        side_effect: SideEffect::ExternalRead,
        reversibility: Reversibility::Full,
        method: "GET".into(),
        ..ActionDraft::new(verdict, "forward", format!("https://example.com/{n}"))
    }
}

/// Signs a published record again and returns the receipt text.
fn sign_again(receipt: &Receipt) -> String {
    let canon = go_json(&receipt.action_record).unwrap();
    let signature = key_a().sign_hex(&Sha256::digest(&canon));
    let mut text = format!(
        "{{\"version\":1,\"action_record\":{},\"signature\":\"ed25519:{signature}\",\"signer_key\":\"{}\"",
        String::from_utf8(canon).unwrap(),
        key_a().public()
    );
    if let Some(ext) = &receipt.ext {
        text += &format!(",\"ext\":{}", ext.get());
    }
    text + "}"
}

#[test]
fn single_receipts_are_signed_as_published() {
    for (text, canon_hash, receipt_hash) in [
        (
            include_str!("../../vectors/1-action-receipt-v1/minimal.json"),
            "153a9240a4e38aa5725103b556d3fd338ae38dd3875a2baa0001ab94b99fc482",
            "a560b02d12488cac3474b3b9d9b152ff29e78852450b27c53091853490d09990",
        ),
        (
            include_str!("../../vectors/1-action-receipt-v1/full.json"),
            "906e793129f9a432c6d706efbea3333c4d411e5737e9403b17bb4d99a817910d",
            "f32e2364bf0689d47450222a63bf0c41d8a0c38188f520c72f6e63f392e51fe3",
        ),
    ] {
        // The files are indented; ext is hashed compact.
        let mut receipt: Receipt = serde_json::from_str(text).unwrap();
        if let Some(ext) = receipt.ext.take() {
            let value: Value = serde_json::from_str(ext.get()).unwrap();
            receipt.ext = Some(
                serde_json::value::RawValue::from_string(String::from_utf8(go_json(&value).unwrap()).unwrap()).unwrap(),
            );
        }
        assert_eq!(bind::sha256_hex(&go_json(&receipt.action_record).unwrap()), canon_hash);
        let again = sign_again(&receipt);
        assert!(again.contains(&receipt.signature));
        assert_eq!(bind::sha256_hex(again.as_bytes()), receipt_hash);
    }
}

#[test]
fn chains_of_receipts_are_signed_as_published() {
    for file in [
        include_str!("../../vectors/2-chain-genesis/five.bare.jsonl"),
        include_str!("../../vectors/2-chain-genesis/five-with-ext.bare.jsonl"),
        include_str!("../../vectors/3-session-lifecycle/group.bare.jsonl"),
    ] {
        for line in file.lines() {
            assert_eq!(sign_again(&serde_json::from_str(line).unwrap()), line);
        }
    }
}

#[test]
fn a_whole_run_is_written_as_published() {
    let published = include_str!(
        "../../vectors/3-session-lifecycle/run/evidence-proxy.run.acba25512100f80b56fc3ccd14c65be5-0.jsonl"
    );
    let opening = Opening { time: second(0), ..Opening::new(POLICY, "local") };
    let mut writer = ChainWriter::open_with(
        Vec::new(),
        key_a(),
        &opening,
        "acba25512100f80b56fc3ccd14c65be5".into(),
        "a0d491e5c7dcd51ba67796c4d8db53c7".into(),
        Ids::Counter(0),
    )
    .unwrap();
    let _ = writer.append(&get(1, "allow"), None).unwrap();
    let _ = writer.append(&ActionDraft { layer: "dlp".into(), ..get(2, "block") }, None).unwrap();
    let _ = writer.heartbeat(second(3)).unwrap();
    let _ = writer.append(&get(4, "allow"), None).unwrap();
    let closed = writer.close("graceful_shutdown", second(5)).unwrap();
    assert_eq!(closed.root_hash, "434272239bc2557ff2a45e2db6a41f352ff61c3d54d887aef28fecd8639d68d5");
    assert_eq!((closed.final_seq, closed.receipt_count), (5, 6));

    let written = String::from_utf8(writer.out).unwrap();
    for (ours, theirs) in written.lines().zip(published.lines()).take(6) {
        assert_eq!(ours, theirs);
    }
    assert_eq!(written.lines().count(), published.lines().count());
    // The generator of the vectors dated the last two entries a second later; rebuild them with that date.
    let lines: Vec<entry::Entry<'_>> = published.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (entry, line) in lines.iter().zip(published.lines()) {
        assert_eq!(entry.computed_hash().as_deref(), Some(&*entry.hash));
        let mut again = Vec::new();
        let unplaced = Unplaced {
            ts: &entry.ts,
            session_id: &entry.session_id,
            kind: &entry.kind,
            event_kind: &entry.event_kind,
            transport: &entry.transport,
            summary: &entry.summary,
            detail: entry.detail.get(),
        };
        assert_eq!(unplaced.write(&mut again, entry.seq, &entry.prev_hash).unwrap(), entry.hash);
        assert_eq!(String::from_utf8(again).unwrap().trim_end(), line);
    }
    let root = written.lines().nth(6).unwrap();
    assert!(root.contains("\"end_time\":\"2026-03-01T10:00:05.5Z\"}"), "{root}");
    let detail = lines[6].detail.get();
    assert!(root.contains(detail), "{root}");
}

fn small() -> ChainWriter<Vec<u8>> {
    ChainWriter::open(Vec::new(), key_a(), &Opening { time: second(0), ..Opening::new(POLICY, "local") }).unwrap()
}

fn records(written: &[u8]) -> Vec<ActionRecord> {
    std::str::from_utf8(written)
        .unwrap()
        .lines()
        .filter_map(|line| {
            let entry: entry::Entry<'_> = serde_json::from_str(line).unwrap();
            (entry.kind == entry::ACTION_RECEIPT)
                .then(|| serde_json::from_str::<Receipt>(entry.detail.get()).unwrap().action_record)
        })
        .collect()
}

#[test]
fn the_clock_never_goes_back_and_hostile_text_is_cleaned() {
    let mut writer = small();
    let _ = writer.append(&get(9, "allow"), None).unwrap();
    let hostile =
        ActionDraft { target: format!("https://a/\u{85}\n\u{202e}{}", "x".repeat(10_000)), ..get(3, "block") };
    let _ = writer.append(&hostile, Some(&json!({"flow_v1": {"comm": "a\u{2028}b\u{1b}"}}))).unwrap();
    writer.close("end", second(4)).unwrap();
    let records = records(&writer.out);
    assert!(records.is_sorted_by_key(|record| record.timestamp.parse::<Timestamp>().unwrap()));
    assert!(records[2].target.starts_with("https://a/\u{fffd}\u{fffd}\u{fffd}xxx"));
    assert!(records[2].target.len() < 4200);
    assert!(records.iter().all(|record| record.policy_hash == POLICY && record.principal == "local"));
    assert_eq!(records[2].precedent_refs.len(), 1);
    assert!(!String::from_utf8(writer.out).unwrap().contains('\u{1b}'));
}

#[test]
fn unusable_drafts_leave_the_chain_as_it_was() {
    let mut writer = small();
    assert!(matches!(writer.append(&ActionDraft::new("", "ebpf", "x"), None), Err(ChainError::Draft("verdict"))));
    assert!(matches!(writer.append(&get(1, "allow"), Some(&json!({"flow_v1": 1.5}))), Err(ChainError::Ext(_))));
    assert!(matches!(writer.append(&get(1, "allow"), Some(&json!({"other": 1.5}))), Err(ChainError::Ext(_))));
    let long = json!({"flow_v1": vec!["y".repeat(4000); 300]});
    assert!(matches!(writer.append(&get(1, "allow"), Some(&long)), Err(ChainError::TooLong)));
    assert_eq!(writer.append(&get(1, "allow"), None).unwrap().seq, 1);
    writer.close("end", second(2)).unwrap();
    assert!(matches!(writer.append(&get(3, "allow"), None), Err(ChainError::Closed)));
    assert!(matches!(writer.close("end", second(2)), Err(ChainError::Closed)));
    assert_eq!(records(&writer.out).len(), 3);
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_failed_write_poisons() {
    let mut writer = ChainWriter::open(Full, key_a(), &Opening::new(POLICY, "local")).unwrap();
    let _ = writer.append(&get(1, "allow"), None).unwrap();
    assert!(matches!(writer.flush(), Err(ChainError::Io(_))));
    assert!(matches!(writer.append(&get(2, "allow"), None), Err(ChainError::Poisoned)));
    assert!(matches!(writer.heartbeat(second(3)), Err(ChainError::Poisoned)));
    assert!(matches!(writer.flush(), Err(ChainError::Poisoned)));
    assert!(matches!(writer.close("end", second(3)), Err(ChainError::Poisoned)));
}

#[test]
fn checkpoints_come_every_thousand_entries() {
    let mut writer = small();
    let mut checkpoints = Vec::new();
    for n in 1..2100 {
        let appended = writer.append(&get(n, "allow"), None).unwrap();
        if appended.checkpoint {
            checkpoints.push(appended.seq);
        }
    }
    assert_eq!(checkpoints, [999, 1999]);
}

#[test]
fn ids_are_version_7_uuids() {
    let id = uuid_v7(Timestamp::from(second(0)), [0xff; 16]);
    assert_eq!(id, "019ca8d7-2ef4-7fff-bfff-ffffffffffff");
    assert_eq!(uuid_v7(Timestamp::default(), [0; 16]), "00000000-0000-7000-8000-000000000000");
}
