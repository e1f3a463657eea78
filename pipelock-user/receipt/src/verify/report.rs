//! What the verifier found, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use serde::Serialize;

use crate::canon::text::clean;
use crate::stats::{Ledger, Totals};

/// Most problems that are listed; all are counted.
pub const MAX_PROBLEMS: usize = 1000;

/// What kind of problem it is. Each is reason enough not to believe the evidence as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// A receipt, or the record of a flow, is not there.
    Missing,
    /// A receipt is there that has no place in the chain.
    Extra,
    /// Bytes differ from what was signed.
    Altered,
    /// A receipt is not where it belongs, or its time runs backwards.
    Reordered,
    /// The end of the chain is not there, or not proven.
    Truncated,
    /// Not in the format, or against its rules.
    Format,
    /// Another policy than the one asked for.
    PolicyMismatch,
    /// Another key than the one asked for.
    KeyMismatch,
    /// Numbers that must agree do not.
    CounterMismatch,
    /// Two files, or two statements, contradict each other.
    Disagree,
}

impl ProblemKind {
    /// The word in the report.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Altered => "altered",
            Self::Reordered => "reordered",
            Self::Truncated => "truncated",
            Self::Format => "format",
            Self::PolicyMismatch => "policy_mismatch",
            Self::KeyMismatch => "key_mismatch",
            Self::CounterMismatch => "counter_mismatch",
            Self::Disagree => "disagree",
        }
    }
}

/// One problem: what, where, and which flow it concerns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// Number of the receipt, if it concerns one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The kernel's number of the flow, if it is known. Of an altered receipt it is what the receipt claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<u64>,
    /// Action id of the receipt; empty when there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action_id: String,
    /// One sentence for a person.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.word())?;
        if let Some(seq) = self.seq {
            write!(f, " receipt {seq}")?;
        }
        if let Some(flow) = self.flow {
            write!(f, " (flow {flow})")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// The verifier's whole answer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// True when nothing is wrong.
    pub ok: bool,
    /// True when nothing is wrong *and* a key was given to verify against. Without one the evidence only agrees with
    /// itself: whoever made it up could have signed it.
    pub trusted: bool,
    /// Receipts with a good signature, in their place.
    pub receipt_count: u64,
    /// Flow receipts among them.
    pub flow_count: u64,
    /// Denials that the receipts count without a flow of their own.
    #[serde(rename = "counted_denials")]
    pub counted: u64,
    /// Hash of the last receipt; empty when there is none.
    pub root_hash: String,
    /// Number of the last receipt.
    pub final_seq: Option<u64>,
    /// The key that signed the chain; empty when no receipt could be verified.
    pub signer_key: String,
    /// The policy that the run opened with.
    pub policy_hash: String,
    /// The run's nonce.
    pub run_nonce: String,
    /// Time of the first receipt.
    pub start: String,
    /// Time of the last receipt.
    pub end: String,
    /// Receipts by verdict.
    pub totals: Totals,
    /// Receipts by `verdict layer/pattern`.
    pub reasons: BTreeMap<String, u64>,
    /// The kernel's counters; absent when there is no readable ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
    /// How many problems there are; the list holds at most [`MAX_PROBLEMS`].
    pub problem_count: u64,
    /// The problems, by receipt.
    pub problems: Vec<Problem>,
    /// What a reader should know beside.
    pub notes: Vec<String>,
}

impl Report {
    /// Adds a problem; the text is cleaned, since parts of it come from the evidence.
    pub(super) fn push(&mut self, mut problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < MAX_PROBLEMS {
            problem.text = clean(&problem.text, 1000).into_owned();
            problem.action_id = clean(&problem.action_id, 100).into_owned();
            self.problems.push(problem);
        }
    }

    /// Adds a problem that concerns no receipt in particular.
    pub(super) fn problem(&mut self, kind: ProblemKind, text: impl Into<String>) {
        self.push(Problem { kind, seq: None, flow: None, action_id: String::new(), text: text.into() });
    }

    /// Sorts the problems and draws the conclusion.
    pub(super) fn conclude(&mut self, pinned: bool) {
        self.problems.sort_by_key(|problem| (problem.seq.unwrap_or(u64::MAX), problem.flow, problem.kind));
        self.ok = self.problem_count == 0;
        self.trusted = self.ok && pinned;
        if !pinned && !self.signer_key.is_empty() {
            self.notes.push(
                "no key was given: the evidence agrees with itself, but anybody could have signed it. Get the public key \
                 from somewhere else and verify with it."
                    .to_owned(),
            );
        }
    }

    /// The report as text: what was verified, then one line per problem, then notes.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let verdict = match (self.ok, self.trusted) {
            (true, true) => "VALID: complete, unaltered, signed by the given key",
            (true, false) => "SELF-CONSISTENT ONLY: complete and unaltered, but no key was given",
            (false, _) => "NOT VALID",
        };
        // Writing into a string cannot fail.
        let _ = writeln!(text, "{verdict}");
        let _ = writeln!(text, "receipts  {} ({} flows)", self.receipt_count, self.flow_count);
        if let Some(ledger) = &self.ledger {
            let _ = writeln!(text, "kernel    {} flows, {} unrecorded", ledger.flows, ledger.unrecorded);
        }
        if self.counted > 0 {
            let _ = writeln!(text, "counted   {} denials without a flow of their own", self.counted);
        }
        let totals: Vec<_> = self
            .totals
            .named()
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(word, count)| format!("{count} {word}"))
            .collect();
        for (name, value) in [
            ("verdicts", totals.join(", ")),
            ("time", format!("{} to {}", self.start, self.end)),
            ("root", self.root_hash.clone()),
            ("key", self.signer_key.clone()),
            ("policy", self.policy_hash.clone()),
        ] {
            let _ = writeln!(text, "{name:<9} {}", clean(&value, 200));
        }
        if self.problem_count > 0 {
            let _ = writeln!(text, "problems  {}", self.problem_count);
            for problem in &self.problems {
                let _ = writeln!(text, "  {problem}");
            }
            let unlisted = self.problem_count.saturating_sub(u64::try_from(self.problems.len()).unwrap_or(u64::MAX));
            if unlisted > 0 {
                let _ = writeln!(text, "  … and {unlisted} more");
            }
        }
        for note in &self.notes {
            let _ = writeln!(text, "note      {note}");
        }
        text
    }
}
