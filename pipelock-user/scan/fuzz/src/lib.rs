//! What the fuzz targets share: a small set of rules, and ways of writing a secret down. Called by `targets/*.rs`.
//!
//! Few rules, so that a target starts in a moment; of each form one, so that each path through the engine is there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a fuzz target reports by panicking")]

use std::sync::OnceLock;

use pipelock_scan::{Finding, RuleSet, Scanner};

mod write;

pub use write::{codec, disguise};

const RULES: &str = include_str!("../../tests/rules.yaml");
const KEY: [u8; 32] = [7; 32];

/// What a target hides and the scanner must find.
pub const SECRET: &str = "ghp_0123456789abcdefghijABCDEFGHIJ0123456789";

fn rules() -> RuleSet {
    RuleSet::read(&[("tests/rules.yaml", RULES)]).unwrap()
}

/// The engine.
pub fn scanner() -> &'static Scanner {
    static SCANNER: OnceLock<Scanner> = OnceLock::new();
    SCANNER.get_or_init(|| Scanner::new(rules(), &KEY).unwrap())
}

/// Its measure.
pub fn oracle() -> &'static Scanner {
    static ORACLE: OnceLock<Scanner> = OnceLock::new();
    ORACLE.get_or_init(|| Scanner::oracle(rules(), &KEY))
}

/// Scans `text` whole and cut at each of `cuts` (taken modulo its length): both must say the same. Every span must lie in
/// the text, and nothing that was released may be part of a later finding.
pub fn agree(text: &[u8], cuts: &[usize]) -> Vec<Finding> {
    let whole = scanner().scan(text).unwrap();
    for finding in &whole {
        assert!(finding.span.start <= finding.span.end && finding.span.end <= text.len() as u64, "{finding:?}");
    }
    let _ = pipelock_scan::redact(text, &whole);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (text.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(text.len());
    let mut stream = scanner().stream().unwrap();
    let (mut from, mut released) = (0, Vec::new());
    for cut in cuts {
        let progress = stream.push(&text[from..cut]).unwrap();
        assert!(progress.released <= cut as u64, "{progress:?} at {cut}");
        released.push((progress.released, stream.findings()));
        from = cut;
    }
    let pieces = stream.finish().unwrap();
    // Beyond the budget the two see different parts: what stands is that it is beyond.
    let over = |findings: &[Finding]| findings.iter().any(|finding| &*finding.rule == "budget-expansion");
    if over(&pieces) || over(&whole) {
        return whole;
    }
    assert_eq!(pieces, whole);
    for (released, known) in released {
        for late in pieces.iter().filter(|finding| &*finding.class != "budget" && finding.span.start < released) {
            let overlaps = |one: &Finding| one.span.start < late.span.end && late.span.start < one.span.end;
            assert!(known.iter().any(overlaps), "released {released}, then {late:?}");
        }
    }
    whole
}

/// Is the secret among the findings?
pub fn has_secret(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| &*finding.rule == "test-token" || finding.also.iter().any(|rule| &**rule == "test-token"))
}
