//! The offline verifier: is this evidence complete, unaltered, and signed by the key you know?
//!
//! Used by the command line, and meant to be read by people who do not trust us. It needs a file, a public key and
//! nothing else. It does not stop at the first problem, names the receipt and the flow of each, and tells one cause once.
//!
//! How to read it, in this order:
//! 1. `receipt`: one receipt. Canonical bytes, signature, format, and what binds `ext`.
//! 2. `order`: numbers 0, 1, 2 … with gaps, latecomers and doubles.
//! 3. `chain`: receipts against each other: links, times, end.
//! 4. `lifecycle`: the rules of a run from session_open to session_close.
//! 5. `flows`: flow receipts against the kernel's own count.
//! 6. `recorder`: the entries around the receipts and their signed checkpoints.
//! 7. `folder`: the two files of an evidence folder against each other.

mod chain;
mod flows;
mod folder;
mod lifecycle;
mod order;
mod receipt;
mod recorder;
mod report;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use self::chain::ChainCheck;
use self::receipt::{Bad, Claim};
use self::recorder::RecorderCheck;
pub use self::report::{MAX_PROBLEMS, Problem, ProblemKind, Report};
use crate::read::{Evidence, Head, Item};
use crate::sign::PublicKey;

/// What the evidence is held against.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The key that must have signed it, from a source other than the evidence. Without one the evidence can only be
    /// found to agree with itself.
    pub key: Option<PublicKey>,
    /// The policy that must have been in force for every receipt, 64 lower-case hex digits.
    pub policy_hash: Option<String>,
}

/// Verifies a file of evidence, or a folder with `evidence.jsonl`, `receipts.json` or both.
///
/// # Errors
/// Those of reading. Whatever the files hold is a matter for the report.
pub fn verify_path(path: &Path, options: &Options) -> io::Result<Report> {
    if path.is_dir() {
        return folder::verify(path, options);
    }
    verify_reader(BufReader::new(File::open(path)?), options)
}

/// Verifies evidence in either layout: recorder entries or bare receipts as JSON Lines, or the `receipts.json` document.
///
/// # Errors
/// Those of reading.
pub fn verify_reader<R: BufRead>(reader: R, options: &Options) -> io::Result<Report> {
    let mut report = check_reader(reader, options)?;
    report.conclude(options.key.is_some());
    Ok(report)
}

/// As [`verify_reader`], with the conclusion still to be drawn.
fn check_reader<R: BufRead>(reader: R, options: &Options) -> io::Result<Report> {
    let mut evidence = Evidence::new(reader);
    let mut chain = ChainCheck::new(options);
    let mut recorder: Option<RecorderCheck> = None;
    let mut torn = false;
    // Lines that cannot be read before the first one that can: only that one tells which form the file has.
    let mut early = Vec::new();
    let mut first = true;
    while let Some((line, item)) = evidence.next_item()? {
        chain.line = line;
        match item {
            Item::Line(text) => {
                if std::mem::take(&mut first) {
                    recorder = is_recorder_entry(text).then(RecorderCheck::new);
                    for why in early.drain(..) {
                        unreadable(&mut chain, recorder.as_mut(), why);
                    }
                }
                match &mut recorder {
                    Some(recorder) => recorder.line(&mut chain, text),
                    None => drop(chain.receipt(text)),
                }
            }
            Item::Unreadable(why) if first && early.len() < MAX_PROBLEMS => early.push(why),
            Item::Unreadable(why) => unreadable(&mut chain, recorder.as_mut(), why),
            Item::Layout(why) => {
                chain.report.problem(ProblemKind::Format, format!("line {line}: {why}"));
            }
            Item::Torn => torn = true,
            Item::Closing => {}
        }
    }
    for why in early {
        unreadable(&mut chain, None, why);
    }
    let announced = recorder.as_ref().and_then(|recorder| recorder.announced);
    if evidence.has_crlf() {
        let text = "the line ends were changed from LF to CR LF, as copying a file as text does; the lines are read without \
                    them. Copy the evidence again, as it is (git: mark it as -text)";
        chain.report.problem(ProblemKind::Altered, text);
    }
    if torn {
        chain.report.problem(ProblemKind::Truncated, "the file ends in the middle of a line");
    }
    if let Some(recorder) = recorder {
        recorder.finish(&mut chain);
    }
    let mut report = chain.finish(announced);
    if let Some(head) = evidence.head() {
        hold_against(head, &mut report);
    }
    Ok(report)
}

/// Takes in a line that is no text.
fn unreadable(chain: &mut ChainCheck<'_>, recorder: Option<&mut RecorderCheck>, why: &str) {
    match recorder {
        Some(recorder) => recorder.unreadable(chain, why),
        None => {
            let text = format!("the line cannot be read: {why}");
            chain.bad(Bad { kind: ProblemKind::Altered, text, claim: Claim::unknown() });
        }
    }
}

/// Tells a recorder entry from a bare receipt, also when a few bytes of it were changed.
fn is_recorder_entry(line: &str) -> bool {
    line.starts_with("{\"v\":") || (!line.starts_with("{\"version\":") && line.contains("\"detail\":"))
}

/// The head of `receipts.json` against the receipts in it.
fn hold_against(head: &Head, report: &mut Report) {
    // With receipts missing or altered the head cannot fit; that is reported already.
    if report.problem_count > 0 {
        return;
    }
    let ledger = report.ledger.as_ref().map(|ledger| ledger.flows);
    let members = [
        ("signer_key", ProblemKind::KeyMismatch, head.signer_key == report.signer_key),
        ("policy_hash", ProblemKind::PolicyMismatch, head.policy_hash == report.policy_hash),
        ("receipt_count", ProblemKind::CounterMismatch, head.receipt_count == report.receipt_count),
        ("totals", ProblemKind::CounterMismatch, head.totals == report.totals),
        ("root_hash", ProblemKind::Disagree, head.root_hash == report.root_hash),
        ("final_seq", ProblemKind::CounterMismatch, Some(head.final_seq) == report.final_seq),
        ("run_nonce", ProblemKind::Disagree, head.run_nonce == report.run_nonce),
        ("flows", ProblemKind::CounterMismatch, head.flows == ledger),
    ];
    for (name, kind, _) in members.into_iter().filter(|(_, _, same)| !same) {
        report.problem(kind, format!("the document's {name} is not that of its receipts"));
    }
}

#[cfg(test)]
mod tests;
