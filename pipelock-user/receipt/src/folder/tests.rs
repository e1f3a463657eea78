//! The folder is whole, private, readable by people, and verifies; every change to it shows.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::chain::{ChainWriter, Closed, Opening};
use crate::draft::ActionDraft;
use crate::sign::SigningKey;
use crate::stats::{FLOW_LAYER, LEDGER_LAYER, LEDGER_TARGET};
use crate::verify::{Options, ProblemKind, Report, verify_path};

const POLICY_HASH: &str = "3d089599e2b17930e4579044928ba7d9d77927b35f3fccbd491d80de41cef1d3";

fn key() -> SigningKey {
    SigningKey::from_seed(&[7; 32])
}

fn written() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    let (folder, closed) = recorded(&temp.path().join("evidence"));
    let head = write_folder(&folder).unwrap();
    assert_eq!((head.receipt_count, head.final_seq, head.flows), (5, 4, Some(2)));
    assert_eq!(head.root_hash, closed.root_hash);
    temp
}

/// A folder with a chain that is closed, and nothing else yet, and what it was closed with.
fn recorded(path: &Path) -> (Folder, Closed) {
    let mut folder = Folder::make(path).unwrap();
    let file = folder.begin().unwrap();
    let mut writer = ChainWriter::open(file, key(), &Opening::new(POLICY_HASH, "local")).unwrap();
    for id in 1..=2_u64 {
        let mut draft = ActionDraft::new("block", "ebpf", "evil|host](http://x) <img src=y>");
        draft.layer = FLOW_LAYER.to_owned();
        draft.pattern = "port_denied".to_owned();
        let ext =
            json!({"flow_v1": {"flow_id": id.to_string(), "kernel_reason": "port_denied", "comm": "a|b\n#", "pid": 7}});
        let _ = writer.append(&draft, Some(&ext)).unwrap();
    }
    let mut draft = ActionDraft::new("allow", "ebpf", LEDGER_TARGET);
    draft.layer = LEDGER_LAYER.to_owned();
    let ledger = json!({"kernel_v1": {"flows": "2", "unrecorded": "0", "by_reason": {"port_denied": "2"}}});
    let _ = writer.append(&draft, Some(&ledger)).unwrap();
    let closed = writer.close("agent exited 0", std::time::SystemTime::now()).unwrap();
    writer.sync().unwrap();
    (folder, closed)
}

/// What the owner of the folder above can do to one that is not his: move it, and put one of his own in its place.
#[test]
fn nothing_is_written_outside_the_folder_when_another_takes_its_place() {
    let temp = tempfile::tempdir().unwrap();
    let (path, away, victim) = (temp.path().join("evidence"), temp.path().join("away"), temp.path().join("victim"));
    let (folder, _) = recorded(&path);
    assert_eq!(folder.elsewhere(), None);
    fs::write(&victim, "as it was").unwrap();
    fs::rename(&path, &away).unwrap();
    fs::create_dir(&path).unwrap();
    // A chain that verifies against its own key, and links under every name that is written.
    let forged = fs::read(recorded(&temp.path().join("forged")).0.path().join(EVIDENCE)).unwrap();
    fs::write(path.join(EVIDENCE), &forged).unwrap();
    for name in [DOCUMENT, POLICY, KEY_PEM, KEY_HEX, SUMMARY] {
        symlink(&victim, path.join(part(name))).unwrap();
        symlink(&victim, path.join(name)).unwrap();
    }
    let before = fs::read(away.join(EVIDENCE)).unwrap();
    write_folder(&folder).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was");
    assert_eq!(fs::read_dir(&path).unwrap().count(), 11, "something was made or renamed in the other's folder");
    assert_eq!(folder.elsewhere().as_deref(), Some(away.as_path()));
    assert_eq!(fs::read(away.join(EVIDENCE)).unwrap(), before);
    assert!(verify(&away).ok);
}

#[test]
fn links_in_the_folder_are_not_followed_and_the_chain_is_the_one_that_was_begun() {
    let temp = tempfile::tempdir().unwrap();
    let (path, victim) = (temp.path().join("evidence"), temp.path().join("victim"));
    let (folder, _) = recorded(&path);
    fs::write(&victim, "as it was").unwrap();
    for name in [DOCUMENT, SUMMARY] {
        symlink(&victim, path.join(part(name))).unwrap();
    }
    symlink(&victim, path.join(KEY_PEM)).unwrap();
    symlink(&victim, path.join("pipelock.log")).unwrap();
    assert!(folder.create(KEY_PEM).is_err() && folder.append("pipelock.log").is_err());
    fs::remove_file(path.join("pipelock.log")).unwrap();
    let chain = fs::read(path.join(EVIDENCE)).unwrap();
    fs::write(path.join("other"), &chain[..chain.len() / 2]).unwrap();
    fs::rename(path.join("other"), path.join(EVIDENCE)).unwrap();
    assert_eq!(write_folder(&folder).unwrap().receipt_count, 5);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was");
}

#[test]
fn only_a_file_is_held() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, _) = recorded(&temp.path().join("evidence"));
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    symlink(at(EVIDENCE), at("link")).unwrap();
    nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let held = [EVIDENCE, "folder", "link", "pipe", "nothing"].map(|name| folder.holds(name));
    assert_eq!(held, [true, false, false, false, false]);
}

#[test]
fn a_folder_that_others_can_change_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let (path, link) = (temp.path().join("evidence"), temp.path().join("link"));
    fs::create_dir(&path).unwrap();
    symlink(&path, &link).unwrap();
    let why = |path: &Path| match Folder::make(path) {
        Err(FolderError::Foreign { why, .. }) => why,
        other => panic!("{other:?}"),
    };
    assert!(why(&link).contains("symbolic link"), "{}", why(&link));
    for mode in [0o770, 0o702, 0o1777] {
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        assert!(why(&path).contains("others may write"), "{mode:o}: {}", why(&path));
    }
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    assert!(Folder::make(&path).is_ok());
    // Whoever runs this cannot give a folder away, unless it is root.
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        assert!(why(&path).contains("belongs to user 65534"), "{}", why(&path));
    }
}

#[test]
fn what_was_never_begun_leaves_no_folder_and_what_was_there_stays() {
    let temp = tempfile::tempdir().unwrap();
    let (new, old) = (temp.path().join("a/new"), temp.path().join("old"));
    fs::create_dir(&old).unwrap();
    for path in [&new, &old] {
        let mut folder = Folder::make(path).unwrap();
        let _ = folder.begin().unwrap();
        folder.discard(&[EVIDENCE, KEY_PEM]);
    }
    assert!(!new.exists() && old.exists() && fs::read_dir(&old).unwrap().next().is_none());
}

fn verify(path: &Path) -> Report {
    let options = Options { key: Some(key().public()), policy_hash: Some(POLICY_HASH.to_owned()) };
    let report = verify_path(path, &options).unwrap();
    println!("{}", report.render());
    report
}

#[test]
fn a_folder_verifies_and_is_private() {
    let temp = written();
    let folder = temp.path().join("evidence");
    for path in [folder.clone(), folder.join(EVIDENCE), folder.join(DOCUMENT)] {
        let report = verify(&path);
        assert!(report.ok && report.trusted, "{}", path.display());
    }
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, [EVIDENCE, POLICY, KEY_HEX, KEY_PEM, DOCUMENT, SUMMARY]);
    assert!(names.iter().all(|name| mode(&folder.join(name)) == 0o600));
    assert!(Folder::make(&folder).unwrap().begin().is_err(), "evidence was overwritten");

    let document: Value = serde_json::from_str(&fs::read_to_string(folder.join(DOCUMENT)).unwrap()).unwrap();
    assert_eq!(document["receipts"].as_array().unwrap().len(), 5);
    assert_eq!(document["totals"]["block"], 2);
    assert_eq!(document["flows"], 2);
    let summary = fs::read_to_string(folder.join(SUMMARY)).unwrap();
    assert!(summary.contains("| 1 | block | port\\_denied |"), "{summary}");
    assert!(!summary.contains("<img") && !summary.contains("](http"), "{summary}");
}

#[test]
fn every_change_to_a_folder_shows() {
    use ProblemKind::{Altered, CounterMismatch, Disagree, Format, KeyMismatch, Missing, PolicyMismatch, Truncated};
    type Change = fn(&str) -> String;
    let cases: [(&str, Change, ProblemKind); 14] = [
        (DOCUMENT, |text| text.replacen("evil", "good", 1), Altered),
        (EVIDENCE, |text| text.replacen("evil", "good", 1), Altered),
        (
            DOCUMENT,
            |text| {
                text.lines()
                    .filter(|line| !line.contains("\"flow_id\":\"2\""))
                    .map(|line| format!("{line}\n"))
                    .collect()
            },
            Missing,
        ),
        (DOCUMENT, |text| text.replacen("\"receipt_count\": 5", "\"receipt_count\": 6", 1), CounterMismatch),
        (DOCUMENT, |text| text.replacen("\"block\": 2", "\"block\": 3", 1), CounterMismatch),
        (DOCUMENT, |text| text.replacen("\"flows\": 2", "\"flows\": 3", 1), CounterMismatch),
        (DOCUMENT, |text| text.replacen(POLICY_HASH, &"0".repeat(64), 1), PolicyMismatch),
        (DOCUMENT, |text| text.replacen("pipelock.receipts.v1", "x", 1), Format),
        (DOCUMENT, |text| text.replacen("\"schema\"", "\"x\": 1, \"schema\"", 1), Format),
        (DOCUMENT, |text| text.trim_end_matches("}\n").to_owned(), Truncated),
        (DOCUMENT, |text| format!("{text}{{}}\n"), Disagree),
        (POLICY, |text| text.replace('3', "4"), PolicyMismatch),
        (KEY_HEX, |_| format!("{}\n", SigningKey::from_seed(&[8; 32]).public()), KeyMismatch),
        (KEY_PEM, |text| text.replace("MCow", "MCox"), Format),
    ];
    for (index, (name, change, kind)) in cases.into_iter().enumerate() {
        let temp = written();
        let path = temp.path().join("evidence").join(name);
        let text = fs::read_to_string(&path).unwrap();
        let changed = change(&text);
        assert_ne!(text, changed, "case {index} changes nothing");
        fs::write(&path, changed).unwrap();
        let report = verify(&temp.path().join("evidence"));
        assert!(
            report.problems.iter().any(|problem| problem.kind == kind),
            "case {index} in {name}\n{}",
            report.render()
        );
        if name == EVIDENCE || index == 0 {
            let altered = report.problems.iter().find(|problem| problem.kind == Altered).unwrap();
            assert_eq!((altered.seq, altered.flow), (Some(1), Some(1)));
        }
    }
}

#[test]
fn any_changed_byte_of_the_document_shows() {
    let temp = written();
    let path = temp.path().join("evidence").join(DOCUMENT);
    let text = fs::read(&path).unwrap();
    let options = Options { key: Some(key().public()), policy_hash: None };
    for at in 0..text.len() {
        let mut changed = text.clone();
        changed[at] ^= 0x01;
        let report = crate::verify::verify_reader(changed.as_slice(), &options).unwrap();
        assert!(!report.ok, "byte {at} was changed and accepted");
    }
}

#[test]
fn a_run_that_was_interrupted_still_gets_its_folder() {
    let temp = written();
    let folder = temp.path().join("evidence");
    let text = fs::read_to_string(folder.join(EVIDENCE)).unwrap();
    fs::write(folder.join(EVIDENCE), &text[..text.len() / 2]).unwrap();
    let head = write_folder(&Folder::open(&folder).unwrap()).unwrap();
    assert!(head.receipt_count < 5);
    assert!(fs::read_to_string(folder.join(SUMMARY)).unwrap().contains("not closed"));
    let report = verify(&folder);
    assert!(
        report.problems.iter().all(|problem| matches!(problem.kind, ProblemKind::Truncated | ProblemKind::Disagree))
    );
    assert!(!report.ok);
    fs::write(folder.join(EVIDENCE), "").unwrap();
    assert!(write_folder(&Folder::open(&folder).unwrap()).is_err());
}

#[test]
fn a_lone_file_is_enough_and_no_file_is_an_error() {
    let temp = written();
    let folder = temp.path().join("evidence");
    fs::remove_file(folder.join(EVIDENCE)).unwrap();
    let report = verify(&folder);
    assert!(report.ok && report.notes.iter().any(|note| note.contains(DOCUMENT)));
    fs::remove_file(folder.join(DOCUMENT)).unwrap();
    assert!(verify_path(&folder, &Options::default()).is_err());
}
