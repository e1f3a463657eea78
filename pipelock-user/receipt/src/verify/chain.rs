//! The receipts of one chain against each other: numbers, links, time, the run, the flows.

use super::Options;
use super::flows::{Flows, Losses};
use super::lifecycle::Lifecycle;
use super::order::{Order, Place, Placed};
use super::receipt::{Bad, Good, Keys, check};
use super::report::{Problem, ProblemKind, Report};
use crate::canon::Timestamp;
use crate::stats::Tally;

/// The receipt with the highest number so far.
struct Last {
    seq: u64,
    hash: String,
    time: Timestamp,
    /// Its `ext` does not hold, so its hash is not the one that the next receipt names.
    altered: bool,
    unbound: Option<String>,
    flow: Option<u64>,
    action_id: String,
}

/// What became of one receipt.
pub(super) struct Outcome {
    /// Its number, if its signature holds.
    pub(super) seq: Option<u64>,
    /// A problem was reported, or will be, that also explains what is wrong around it.
    pub(super) disturbed: bool,
    /// The session that its session_open names.
    pub(super) opens: Option<String>,
}

/// Follows one chain, receipt by receipt.
pub(super) struct ChainCheck<'o> {
    options: &'o Options,
    pub(super) keys: Keys,
    order: Order<Bad>,
    last: Option<Last>,
    lifecycle: Lifecycle,
    flows: Flows,
    tally: Tally,
    /// The first receipt of each foreign policy was reported.
    foreign_policies: Vec<String>,
    /// The last line that should be a receipt is a bad one: whether it may have been the session_close.
    bad_tail: Option<bool>,
    /// The line of the file that is being read.
    pub(super) line: u64,
    pub(super) report: Report,
}

impl<'o> ChainCheck<'o> {
    pub(super) fn new(options: &'o Options) -> Self {
        Self {
            options,
            keys: Keys::new(options.key),
            order: Order::new(),
            last: None,
            lifecycle: Lifecycle::default(),
            flows: Flows::default(),
            tally: Tally::default(),
            foreign_policies: Vec::new(),
            bad_tail: None,
            line: 0,
            report: Report::default(),
        }
    }

    /// Takes in the text of one receipt.
    pub(super) fn receipt(&mut self, text: &str) -> Outcome {
        match check(text, &mut self.keys) {
            Ok(good) => self.good(&good),
            Err(bad) => {
                self.bad(bad);
                Outcome { seq: None, disturbed: true, opens: None }
            }
        }
    }

    /// Takes in a receipt that is known to be bad.
    pub(super) fn bad(&mut self, mut bad: Bad) {
        bad.claim.line = self.line;
        self.bad_tail = Some(bad.claim.closes);
        let claimed = bad.claim.seq;
        self.order.bad(bad, claimed);
    }

    /// Takes in a receipt whose signature and format hold.
    pub(super) fn good(&mut self, good: &Good) -> Outcome {
        let seq = good.record.chain_seq;
        self.bad_tail = None;
        let (place, placed) = self.order.good(seq);
        let alone = placed.is_empty();
        self.report_bad(placed);
        let mut outcome = Outcome { seq: Some(seq), disturbed: place != Place::Next || !alone, opens: None };
        match place {
            Place::Twice => {
                self.problem(ProblemKind::Extra, good, "it is there a second time");
                return outcome;
            }
            Place::Late => self.problem(ProblemKind::Reordered, good, "it stands behind receipts with higher numbers"),
            Place::Next | Place::Skipped => {
                outcome.disturbed |= self.follow(good, place == Place::Next && alone);
            }
        }
        self.tally.add(&good.record);
        self.policy(good);
        if let Some(fault) = &good.ext_fault {
            outcome.disturbed = true;
            self.problem(ProblemKind::Altered, good, fault);
        }
        self.flows.add(good, &mut self.report);
        outcome.opens = good
            .record
            .session_control
            .as_ref()
            .and_then(|control| Some(control.open.as_ref()?.recorder_session.clone()));
        outcome
    }

    /// Links, times and rules of a receipt with the highest number so far. True when the link is broken.
    fn follow(&mut self, good: &Good, adjacent: bool) -> bool {
        let mut broken = false;
        if let Some(last) = &self.last {
            let linked = adjacent && last.seq.checked_add(1) == Some(good.record.chain_seq);
            if linked && !last.altered && last.hash != good.record.chain_prev_hash {
                broken = true;
                self.report.push(Problem {
                    kind: ProblemKind::Altered,
                    seq: Some(last.seq),
                    flow: last.flow,
                    action_id: last.action_id.clone(),
                    text: format!("receipt {} was signed behind another receipt than this one", good.record.chain_seq),
                });
            }
            if good.time < last.time {
                self.problem(ProblemKind::Reordered, good, "its time is before that of the receipt before it");
            }
        }
        let intact = self.is_clean();
        for (kind, text) in self.lifecycle.receipt(&good.record, intact) {
            self.problem(kind, good, &text);
        }
        self.last = Some(Last {
            seq: good.record.chain_seq,
            hash: good.hash.clone(),
            time: good.time,
            altered: good.ext_fault.is_some(),
            unbound: good.unbound.clone(),
            flow: good.flow(),
            action_id: good.record.action_id.clone(),
        });
        broken
    }

    fn policy(&mut self, good: &Good) {
        let Some(wanted) = &self.options.policy_hash else { return };
        let found = &good.record.policy_hash;
        if found != wanted && !self.foreign_policies.contains(found) && self.foreign_policies.len() < 100 {
            self.foreign_policies.push(found.clone());
            self.problem(
                ProblemKind::PolicyMismatch,
                good,
                &format!("it was decided under policy {found}, not {wanted}"),
            );
        }
    }

    fn problem(&mut self, kind: ProblemKind, good: &Good, text: &str) {
        self.report.push(Problem {
            kind,
            seq: Some(good.record.chain_seq),
            flow: good.flow(),
            action_id: good.record.action_id.clone(),
            text: text.to_owned(),
        });
    }

    /// Reports bad receipts, each with the number that it takes.
    fn report_bad(&mut self, placed: Placed<Bad>) {
        for (bad, seq) in placed {
            let (kind, text) = match (seq, bad.claim.seq) {
                (Some(_), _) => (bad.kind, bad.text),
                (None, Some(_)) => {
                    (ProblemKind::Extra, format!("line {} has no place in the chain; {}", bad.claim.line, bad.text))
                }
                (None, None) => (ProblemKind::Format, format!("line {}: {}", bad.claim.line, bad.text)),
            };
            if seq.is_some() {
                self.flows.altered(&bad.claim);
            }
            self.report.push(Problem {
                kind,
                seq: seq.or(bad.claim.seq),
                flow: bad.claim.flow,
                action_id: bad.claim.action_id,
                text,
            });
        }
    }

    /// True once session_close was seen as the last receipt.
    pub(super) fn is_closed(&self) -> bool {
        self.lifecycle.closed
    }

    /// True when nothing is missing or bad so far.
    pub(super) fn is_clean(&self) -> bool {
        self.order.is_clean() && self.report.problem_count == 0
    }

    /// Number and hash of the last receipt, and how many there are.
    pub(super) fn tail(&self) -> Option<(u64, &str)> {
        self.last.as_ref().map(|last| (last.seq, last.hash.as_str()))
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// How many receipts are missing so far.
    pub(super) fn missing_count(&self) -> u64 {
        self.order.missing_count()
    }

    /// The end of the file. `announced`: the number of the last receipt, as the transcript root has it.
    pub(super) fn finish(mut self, announced: Option<u64>) -> Report {
        let closed = self.lifecycle.closed;
        let placed = self.order.finish(!closed);
        self.report_bad(placed);
        self.report.problem_count += self.order.dropped();
        let mut losses = Losses {
            missing: self.order.missing().take(super::report::MAX_PROBLEMS + 1).collect(),
            missing_count: self.order.missing_count(),
            truncated: false,
        };
        self.end(announced, &mut losses);
        self.key();
        self.flows.reconcile(&losses, &mut self.report);
        let report = &mut self.report;
        report.receipt_count = self.tally.count;
        report.totals = self.tally.totals;
        report.reasons = self.tally.reasons;
        report.start = self.tally.start;
        report.end = self.tally.end;
        if let Some(last) = self.last {
            report.final_seq = Some(last.seq);
            report.root_hash = last.hash;
        }
        if let Some(open) = self.lifecycle.opening {
            report.policy_hash = open.policy_hash;
            report.run_nonce = open.run_nonce;
        }
        self.report
    }

    /// Is the end of the chain there, and proven?
    fn end(&mut self, announced: Option<u64>, losses: &mut Losses) {
        let next = self.order.expected();
        let Some(last) = &self.last else {
            if next == 0 {
                losses.truncated = true;
                self.report.problem(ProblemKind::Truncated, "there are no receipts");
            }
            return;
        };
        if let Some(member) = &last.unbound
            && self.bad_tail.is_none()
        {
            self.report.push(Problem {
                kind: ProblemKind::Altered,
                seq: Some(last.seq),
                flow: last.flow,
                action_id: last.action_id.clone(),
                text: format!("ext.{member} of the last receipt is bound by nothing, so anybody can have added it"),
            });
        }
        if self.lifecycle.closed {
            let bound = self
                .lifecycle
                .opening
                .as_ref()
                .is_some_and(|open| open.recorder_session.ends_with(&format!(".run.{}", open.run_nonce)));
            if self.lifecycle.opening.is_some() && !bound {
                let text =
                    "the recorder session is not bound to this run, so a restart could have followed session_close";
                self.report.problem(ProblemKind::Truncated, text);
            }
            return;
        }
        // A changed session_close is one problem, not two.
        if self.bad_tail == Some(true) {
            return;
        }
        losses.truncated = true;
        if let Some(count) = announced.and_then(|announced| announced.checked_sub(next)?.checked_add(1)) {
            losses.missing.push((next, count));
            losses.missing_count = losses.missing_count.saturating_add(count);
            return;
        }
        self.report.push(Problem {
            kind: ProblemKind::Truncated,
            seq: Some(next),
            flow: None,
            action_id: String::new(),
            text: "the chain ends here without a session_close: what came after was cut off, or the run never ended"
                .to_owned(),
        });
    }

    /// Is it the key that was asked for, and the one that the run says it is?
    fn key(&mut self) {
        let confirmed = self.last.is_some();
        if let Some(key) = self.keys.chain.filter(|_| confirmed) {
            self.report.signer_key = key.hex();
            if let Some(open) = &self.lifecycle.opening
                && open.signer_key_epoch != key.hex()
            {
                let text = "session_open binds the run to another key than the one that signed it";
                self.report.problem(ProblemKind::KeyMismatch, text);
            }
            if let Some(pinned) = self.keys.replaced {
                let text = format!("the whole chain is signed by {key}, not by the given key {pinned}");
                self.report.problem(ProblemKind::KeyMismatch, text);
            }
        }
        if let (Some(wanted), Some(open)) = (&self.options.policy_hash, &self.lifecycle.opening)
            && open.policy_hash != *wanted
            && !self.foreign_policies.contains(&open.policy_hash)
        {
            let text = format!("the run was opened with policy {}, not {wanted}", open.policy_hash);
            self.report.problem(ProblemKind::PolicyMismatch, text);
        }
    }
}
