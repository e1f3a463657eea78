//! An evidence folder: its two files against each other, and the small files beside them.
//!
//! `evidence.jsonl` and `receipts.json` hold the same receipts. If they do, byte for byte, the chain is verified once; if
//! not, both are, and each problem says which file it is in.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use super::report::{Problem, ProblemKind, Report};
use super::{Options, check_reader, hold_against};
use crate::entry::{ACTION_RECEIPT, Entry};
use crate::folder::{DOCUMENT, EVIDENCE, KEY_HEX, KEY_PEM, POLICY};
use crate::read::{Evidence, Item};
use crate::sign::PublicKey;

pub(super) fn verify(folder: &Path, options: &Options) -> io::Result<Report> {
    let (evidence, document) = (folder.join(EVIDENCE), folder.join(DOCUMENT));
    // A pipe or device in a file's place would be waited for, or never end.
    let open = |path: &Path| match std::fs::metadata(path)?.is_file() {
        true => File::open(path).map(BufReader::new),
        false => Err(io::Error::other(format!("{} is not a regular file", path.display()))),
    };
    let mut report = match (evidence.exists(), document.exists()) {
        (true, true) => {
            let mut report = check_reader(open(&evidence)?, options)?;
            let mut copy = Evidence::new(open(&document)?);
            match first_difference(&mut Evidence::new(open(&evidence)?), &mut copy)? {
                None => {
                    if copy.has_crlf() {
                        let text = format!("the line ends of {DOCUMENT} were changed from LF to CR LF");
                        report.problem(ProblemKind::Altered, text);
                    }
                    if let Some(head) = copy.head() {
                        hold_against(head, &mut report);
                    }
                }
                Some(difference) => {
                    let text = format!("{EVIDENCE} and {DOCUMENT} differ, first at receipt {difference} from the top");
                    report.problem(ProblemKind::Disagree, text);
                    merge(&mut report, check_reader(open(&document)?, options)?);
                }
            }
            report
        }
        (true, false) => lone(check_reader(open(&evidence)?, options)?, EVIDENCE),
        (false, true) => lone(check_reader(open(&document)?, options)?, DOCUMENT),
        (false, false) => {
            let text = format!("the folder {} holds neither {EVIDENCE} nor {DOCUMENT}", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
    };
    beside(folder, &mut report);
    report.conclude(options.key.is_some());
    Ok(report)
}

fn lone(mut report: Report, name: &str) -> Report {
    report.notes.push(format!("only {name} is there, so it was compared with nothing."));
    report
}

/// The index of the first receipt that the two files do not have in common; `None` when they hold the same receipts and
/// nothing else is wrong with the layout of either.
fn first_difference<A: BufRead, B: BufRead>(one: &mut Evidence<A>, other: &mut Evidence<B>) -> io::Result<Option<u64>> {
    let mut index = 0;
    loop {
        match (next_receipt(one)?, next_receipt(other)?) {
            (None, None) => return Ok(None),
            (Some(Ok(one)), Some(Ok(other))) if one == other => index += 1,
            _ => return Ok(Some(index)),
        }
    }
}

/// The text of the next receipt; `Err` for a line that is none and should be one.
fn next_receipt<R: BufRead>(evidence: &mut Evidence<R>) -> io::Result<Option<Result<String, ()>>> {
    while let Some((_, item)) = evidence.next_item()? {
        let line = match item {
            Item::Line(line) => line,
            Item::Closing => continue,
            Item::Unreadable(_) | Item::Layout(_) | Item::Torn => return Ok(Some(Err(()))),
        };
        if !super::is_recorder_entry(line) {
            return Ok(Some(Ok(line.to_owned())));
        }
        match serde_json::from_str::<Entry<'_>>(line) {
            Ok(entry) if entry.kind == ACTION_RECEIPT => return Ok(Some(Ok(entry.detail.get().to_owned()))),
            Ok(_) => {}
            Err(_) => return Ok(Some(Err(()))),
        }
    }
    Ok(None)
}

/// Adds what is wrong with the document and not with the evidence file.
fn merge(report: &mut Report, document: Report) {
    let known: Vec<_> = report.problems.iter().map(|problem| (problem.kind, problem.seq, problem.flow)).collect();
    report.problem_count += document.problem_count.saturating_sub(document.problems.len() as u64);
    for problem in document.problems {
        if !known.contains(&(problem.kind, problem.seq, problem.flow)) {
            report.push(Problem { text: format!("in {DOCUMENT}: {}", problem.text), ..problem });
        }
    }
    report.notes.extend(document.notes.into_iter().map(|note| format!("in {DOCUMENT}: {note}")));
}

/// The small files must say what the chain says. They prove nothing by themselves.
fn beside(folder: &Path, report: &mut Report) {
    for name in [KEY_HEX, KEY_PEM] {
        let path = folder.join(name);
        if path.exists() && !report.signer_key.is_empty() {
            match PublicKey::load(&path) {
                Ok(key) if key.hex() == report.signer_key => {}
                Ok(key) => {
                    let text = format!("{name} holds the key {key}, which did not sign this chain");
                    report.problem(ProblemKind::KeyMismatch, text);
                }
                Err(error) => report.problem(ProblemKind::Format, format!("{name}: {error}")),
            }
        }
    }
    let path = folder.join(POLICY);
    if path.exists() && !report.policy_hash.is_empty() {
        // At most a hash is expected; a longer file is wrong whatever it holds.
        let short = fs::metadata(&path).is_ok_and(|file| file.len() <= 4096);
        let text = if short { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        if text.strip_suffix("\r\n") == Some(report.policy_hash.as_str()) {
            let text = format!("the line end of {POLICY} was changed from LF to CR LF");
            report.problem(ProblemKind::Altered, text);
        } else if text.strip_suffix('\n') != Some(report.policy_hash.as_str()) {
            report.problem(
                ProblemKind::PolicyMismatch,
                format!("{POLICY} does not hold the policy that the run opened with"),
            );
        }
    }
}
