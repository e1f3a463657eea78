//! What is asked of every client whose traffic is read: that a secret stayed in, and that nothing else raised anything.
//!
//! Used by the tests of clients. A secret has to be missing everywhere: in what arrived, in the evidence, in what pipelock said.

use crate::evidence::Request;
use crate::sandbox::Run;

/// What must not leave: of the form of a GitHub token.
pub const SECRET: &str = "ghp_0123456789abcdefghijABCDEFGHIJ01234567";

/// Whether bytes have others in them.
#[must_use]
pub fn holds(bytes: &[u8], part: impl AsRef<[u8]>) -> bool {
    let part = part.as_ref();
    bytes.windows(part.len()).any(|window| window == part)
}

/// The secret was stopped, at this place by the evidence, and is nowhere: `seen` is all that arrived. The commands must keep to
/// themselves what their clients say, which may name the secret.
///
/// # Panics
/// When it was not.
pub fn assert_kept_in(run: &Run, place: &str, seen: &[u8]) {
    let stopped: Vec<Request> = run.evidence.http().into_iter().filter(|one| one.verdict == "block").collect();
    assert!(!stopped.is_empty(), "nothing was stopped: {run}");
    assert!(stopped.iter().all(|one| one.reason == "dlp_match"), "{stopped:#?} {run}");
    // In base64 too, wherever it begins.
    let coded = ["cF8wMTIzNDU2Nzg5YWJjZGVm", "aHBfMDEyMzQ1Njc4OWFiY2Rl", "Z2hwXzAxMjM0NTY3ODlhYmNk", &SECRET[4..]];
    for file in std::fs::read_dir(&run.evidence.folder).expect("evidence") {
        let path = file.expect("a file").path();
        let bytes = std::fs::read(&path).expect("a file");
        assert!(!coded.iter().any(|one| holds(&bytes, one)), "the secret is in {}", path.display());
    }
    let evidence = std::fs::read(run.evidence.folder.join("evidence.jsonl")).expect("evidence");
    assert!(holds(&evidence, format!("\"place\":\"{place}\"")), "{place}: {}", String::from_utf8_lossy(&evidence));
    for (what, bytes) in [("arrived", seen), ("was printed", &run.stdout[..]), ("was said", run.stderr.as_bytes())] {
        assert!(!coded.iter().any(|one| holds(bytes, one)), "the secret {what}: {run}");
    }
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
