//! What is asked of every client whose traffic is read: that a secret stayed in, and that nothing else raised anything.
//!
//! Used by the tests of clients. A secret has to be missing everywhere: in what arrived, in the evidence, in what pipelock said.

use std::path::Path;

use serde_json::Value;

use crate::sandbox::Run;

/// What must not leave: of the form of a GitHub token.
pub const SECRET: &str = "ghp_0123456789abcdefghijABCDEFGHIJ01234567";

/// Whether bytes have others in them.
#[must_use]
pub fn holds(bytes: &[u8], part: impl AsRef<[u8]>) -> bool {
    let part = part.as_ref();
    bytes.windows(part.len()).any(|window| window == part)
}

/// The secret, and what it is in base64 wherever it begins.
const CODED: [&str; 4] =
    ["cF8wMTIzNDU2Nzg5YWJjZGVm", "aHBfMDEyMzQ1Njc4OWFiY2Rl", "Z2hwXzAxMjM0NTY3ODlhYmNk", SECRET.split_at(4).1];

/// The secret is in no file of the evidence and not in what pipelock said.
///
/// # Panics
/// When it is.
pub(crate) fn assert_untold(evidence: &Path, said: &[u8]) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(!CODED.iter().any(|one| holds(said, one)), "the secret was said: {}", text(said));
    for file in std::fs::read_dir(evidence).expect("evidence") {
        let path = file.expect("a file").path();
        let bytes = std::fs::read(&path).expect("a file");
        assert!(!CODED.iter().any(|one| holds(&bytes, one)), "the secret is in {}: {}", path.display(), text(&bytes));
    }
}

/// By these receipts requests were stopped, for no other reason than the secret, at this place, and none of them names it; nor does
/// what is in `elsewhere`, each with a word for it.
///
/// # Panics
/// When it is not so.
pub fn assert_stopped(receipts: &[Value], place: &str, elsewhere: &[(&str, &[u8])]) {
    let is_stop = |receipt: &&Value| {
        let action = &receipt["action_record"];
        action["transport"] == "forward" && action["verdict"] == "block"
    };
    let stopped: Vec<_> = receipts.iter().filter(is_stop).collect();
    assert!(!stopped.is_empty(), "nothing was stopped: {receipts:#?}");
    assert!(stopped.iter().all(|one| one["action_record"]["pattern"] == "dlp_match"), "{stopped:#?}");
    let said = format!("{receipts:?}");
    let has_place = |receipt: &&Value| {
        receipt["ext"]["flow_v1"]["findings"]
            .as_array()
            .is_some_and(|findings| findings.iter().any(|finding| finding["place"] == place))
    };
    assert!(stopped.iter().any(has_place), "{place}: {said}");
    for (what, bytes) in [("is in the receipts", said.as_bytes())].iter().chain(elsewhere) {
        assert!(!CODED.iter().any(|one| holds(bytes, one)), "the secret {what}: {}", String::from_utf8_lossy(bytes));
    }
}

/// The secret was stopped, at this place by the evidence, and is nowhere: `seen` is all that arrived. The commands must keep to
/// themselves what their clients say, which may name the secret.
///
/// # Panics
/// When it was not.
pub fn assert_kept_in(run: &Run, place: &str, seen: &[u8]) {
    assert_untold(&run.evidence.folder, run.stderr.as_bytes());
    let elsewhere = [("arrived", seen), ("was printed", &run.stdout[..])];
    assert_stopped(run.evidence.receipts(), place, &elsewhere);
}

/// Everything was let through, and nothing was found in it.
///
/// # Panics
/// When something was.
pub fn assert_quiet(run: &Run) {
    let requests = run.evidence.http();
    assert!(!requests.is_empty(), "{run}");
    let loud: Vec<_> = requests.iter().filter(|one| one.verdict != "allow").collect();
    assert!(loud.is_empty(), "{} of {} requests were not quiet: {loud:#?}", loud.len(), requests.len());
    let evidence = std::fs::read(run.evidence.folder.join("evidence.jsonl")).expect("evidence");
    assert!(!holds(&evidence, "\"findings\":[{"), "{}", String::from_utf8_lossy(&evidence));
}
