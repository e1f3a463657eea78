//! The rules of a run: it opens bound to its genesis, beats, closes, and nothing comes after.
//!
//! Every rule here compares members of one signed receipt with each other or with the run's opening, never with a
//! neighbour that may be missing, so that one deleted receipt does not look like many broken rules.

use std::collections::{HashMap, HashSet};

use super::report::ProblemKind;
use crate::bind;
use crate::body::{ActionRecord, Close, Control, Heartbeat, LEGACY_GENESIS, Open};

struct Run {
    open_nonce: String,
    closed: bool,
    beat: u64,
}

/// Follows the runs of a chain; ours have exactly one.
#[derive(Default)]
pub(super) struct Lifecycle {
    runs: HashMap<String, Run>,
    /// The first session_open.
    pub(super) opening: Option<Open>,
    /// True when the last receipt was a session_close.
    pub(super) closed: bool,
    /// True when receipt 0 was seen, and can be held against the others.
    seen_first: bool,
    /// Nonces without a session_open that were reported already.
    unopened: HashSet<String>,
}

type Faults = Vec<(ProblemKind, String)>;

impl Lifecycle {
    /// Checks one receipt. `intact`: nothing before it is missing or bad.
    pub(super) fn receipt(&mut self, record: &ActionRecord, intact: bool) -> Faults {
        let mut faults = Vec::new();
        let control = record.session_control.as_ref().and_then(|control| control.payload());
        if record.chain_seq == 0 {
            self.seen_first = true;
            let bound = record.chain_prev_hash.starts_with("g1:");
            if bound && !matches!(control, Some(Control::Open(_))) {
                faults.push(format_fault("the chain begins with a bound genesis, but not with a session_open"));
            }
            if !bound && (record.chain_prev_hash != LEGACY_GENESIS || !record.run_nonce.is_empty()) {
                faults.push(format_fault("the first receipt of the run is not bound to a session_open"));
            }
        }
        if control.is_some() && record.run_nonce.is_empty() {
            faults.push(format_fault("it controls the session, but carries no run_nonce"));
        } else if record.run_nonce.is_empty() && self.opening.is_some() {
            faults.push(format_fault("it carries no run_nonce, so it belongs to no run"));
        }
        if let Some(Control::Open(open)) = control {
            self.open(record, open, &mut faults);
        }
        if !record.run_nonce.is_empty() {
            self.inside(record, control, intact, &mut faults);
        }
        self.closed = matches!(control, Some(Control::Close(_)));
        faults
    }

    fn open(&mut self, record: &ActionRecord, open: &Open, faults: &mut Faults) {
        let mut rule = |broken: bool, text: &str| {
            if broken {
                faults.push(format_fault(text));
            }
        };
        rule(open.run_nonce != record.run_nonce, "session_open names another run_nonce than its receipt");
        rule(open.open_nonce.is_empty(), "session_open has an empty open_nonce");
        rule(open.chain_open_seq != record.chain_seq, "session_open names another chain_open_seq than its receipt");
        if record.chain_seq == 0 {
            let tail = !open.prior_chain_head.is_empty() || open.prior_chain_seq != 0;
            rule(tail, "a new chain's session_open names the tail of a chain before it");
            if bind::genesis(open) != record.chain_prev_hash || open.genesis_hash != record.chain_prev_hash {
                let text = "session_open does not have the genesis hash that the chain begins with: what the run was \
                            opened with (policy, key, nonces, posture) was changed";
                faults.push((ProblemKind::Altered, text.to_owned()));
            }
        } else {
            let genesis = record.chain_prev_hash.starts_with("g1:") || !open.genesis_hash.is_empty();
            rule(genesis, "a restart's session_open claims to begin the chain");
            rule(
                open.prior_chain_head != record.chain_prev_hash,
                "a restart's session_open names another prior_chain_head than its receipt",
            );
            rule(
                open.prior_chain_seq != record.chain_seq.saturating_sub(1),
                "a restart's session_open names another prior_chain_seq than its receipt",
            );
        }
        let run = Run { open_nonce: open.open_nonce.clone(), closed: false, beat: 0 };
        if self.runs.contains_key(&record.run_nonce) {
            faults.push((ProblemKind::Extra, "a second session_open for the same run".to_owned()));
        } else {
            self.runs.insert(record.run_nonce.clone(), run);
        }
        if self.opening.is_none() {
            self.opening = Some(open.clone());
        }
    }

    fn inside(&mut self, record: &ActionRecord, control: Option<Control<'_>>, intact: bool, faults: &mut Faults) {
        let Some(run) = self.runs.get_mut(&record.run_nonce) else {
            // With the opening among the missing or altered receipts this is known already.
            if (self.seen_first || intact) && self.unopened.insert(record.run_nonce.clone()) {
                faults.push(format_fault("it belongs to a run that no session_open began"));
            }
            return;
        };
        if run.closed {
            faults.push((ProblemKind::Extra, "it was recorded after the run's session_close".to_owned()));
        }
        match control {
            Some(Control::Heartbeat(beat)) => run.heartbeat(record, beat, intact, faults),
            Some(Control::Close(close)) => run.close(record, close, faults),
            Some(Control::Open(_)) | None => {}
        }
    }
}

impl Run {
    fn heartbeat(&mut self, record: &ActionRecord, beat: &Heartbeat, intact: bool, faults: &mut Faults) {
        if beat.run_nonce != record.run_nonce || beat.open_nonce != self.open_nonce {
            faults.push(format_fault("the heartbeat names another run than the one it stands in"));
        }
        if beat.chain_head != record.chain_prev_hash || beat.chain_seq_head.checked_add(1) != Some(record.chain_seq) {
            faults.push(format_fault("the heartbeat names another chain head than the receipt before it"));
        }
        if intact && beat.beat != self.beat + 1 {
            let text = format!("the heartbeat is number {}, expected {}", beat.beat, self.beat + 1);
            faults.push((ProblemKind::CounterMismatch, text));
        }
        self.beat = beat.beat.min(crate::MAX_NUMBER);
    }

    fn close(&mut self, record: &ActionRecord, close: &Close, faults: &mut Faults) {
        if close.run_nonce != record.run_nonce || close.open_nonce != self.open_nonce {
            faults.push(format_fault("session_close names another run than the one it stands in"));
        }
        if close.root_hash != record.chain_prev_hash {
            faults.push(format_fault("session_close names another root_hash than the receipt before it"));
        }
        if close.final_seq != record.chain_seq || close.receipt_count.checked_sub(1) != Some(record.chain_seq) {
            let text = format!(
                "session_close counts {} receipts up to number {}, but is number {} itself",
                close.receipt_count, close.final_seq, record.chain_seq
            );
            faults.push((ProblemKind::CounterMismatch, text));
        }
        self.closed = true;
    }
}

fn format_fault(text: &str) -> (ProblemKind, String) {
    (ProblemKind::Format, text.to_owned())
}
