//! Is every flow that the kernel counted there, exactly once?
//!
//! The kernel numbers flows 1, 2, 3 … N and signs N with its counters in the ledger receipt. Each number must have one
//! flow receipt; the reasons must add up to the kernel's own counts; and what could not be recorded must be nothing.
//! Denials beyond the kernel's quota have no number: it counts them, and their receipts must add up to that count. A
//! run that took the state of a dead proxy over begins later and owes, besides, the flows that one left open.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::receipt::{Claim, Good};
use super::report::{Problem, ProblemKind, Report};
use crate::stats::{
    DENIALS_LAYER, FLOW_LAYER, LEDGER_LAYER, LEDGER_TARGET, Ledger, SOCKET_LAYER, add_capped, count_capped, decimal,
};

/// Most gaps in the numbers that are listed.
const MAX_GAPS: usize = 1000;

/// Collects what the receipts say about flows.
#[derive(Default)]
pub(super) struct Flows {
    /// Flow number and receipt number of every flow receipt.
    receipts: Vec<(u64, u64)>,
    /// The same of every other receipt that names a flow.
    mentions: Vec<(u64, u64)>,
    reasons: BTreeMap<String, u64>,
    /// Refused sockets that receipts account for.
    sockets: u64,
    /// Denials without a flow of their own, by reason.
    counted: BTreeMap<String, u64>,
    /// A receipt of such denials does not hold, so they cannot add up.
    counted_altered: bool,
    ledger: Option<Ledger>,
    /// Whether any receipt speaks of a kernel.
    kernel: bool,
    /// Flow receipts whose `ext` does not hold, and altered receipts: the flow each one claims.
    claimed: Vec<Option<u64>>,
    ledger_altered: bool,
}

/// What the chain check knows about the receipts as a whole.
pub(super) struct Losses {
    /// Receipts that are missing, first and count, of the first few gaps.
    pub(super) missing: Vec<(u64, u64)>,
    /// How many are missing.
    pub(super) missing_count: u64,
    /// The end of the chain is not there.
    pub(super) truncated: bool,
}

impl Flows {
    /// Takes in a receipt in its place.
    pub(super) fn add(&mut self, good: &Good, report: &mut Report) {
        let record = &good.record;
        let mut problem = |kind, text: String| {
            report.push(Problem {
                kind,
                seq: Some(record.chain_seq),
                flow: good.flow(),
                action_id: record.action_id.clone(),
                text,
            });
        };
        match record.layer.as_str() {
            FLOW_LAYER | LEDGER_LAYER if good.ext_fault.is_some() => {
                self.kernel = true;
                self.claimed.push(good.flow());
                self.ledger_altered |= record.layer == LEDGER_LAYER;
            }
            FLOW_LAYER => {
                self.kernel = true;
                let flow = good.ext.as_ref().and_then(|ext| ext.get("flow_v1"));
                let reason = flow.and_then(|flow| flow.get("kernel_reason")).and_then(|reason| reason.as_str());
                match (flow.and_then(|flow| decimal(flow.get("flow_id"))), reason) {
                    (Some(id), Some(reason)) => {
                        self.receipts.push((id, record.chain_seq));
                        count_capped(&mut self.reasons, reason.to_owned(), 256);
                    }
                    _ => problem(ProblemKind::Format, "a flow receipt without flow_id or kernel_reason".to_owned()),
                }
            }
            DENIALS_LAYER if good.ext_fault.is_some() => {
                self.kernel = true;
                self.counted_altered = true;
            }
            DENIALS_LAYER => {
                self.kernel = true;
                let denials = good.ext.as_ref().and_then(|ext| ext.get("denials_v1"));
                let reason =
                    denials.and_then(|denials| denials.get("kernel_reason")).and_then(|reason| reason.as_str());
                match (denials.and_then(|denials| decimal(denials.get("count"))), reason) {
                    (Some(count), Some(reason)) => add_capped(&mut self.counted, reason.to_owned(), count, 256),
                    _ => problem(ProblemKind::Format, "a receipt of denials without count or kernel_reason".to_owned()),
                }
            }
            LEDGER_LAYER => {
                self.kernel = true;
                let kernel = good.ext.as_ref().and_then(|ext| ext.get("kernel_v1"));
                let ledger = kernel.ok_or_else(|| "ext.kernel_v1 is not there".to_owned()).and_then(Ledger::parse);
                match ledger {
                    _ if record.target != LEDGER_TARGET => {
                        problem(ProblemKind::Format, format!("a ledger receipt whose target is not {LEDGER_TARGET}"));
                    }
                    _ if self.ledger.is_some() => problem(ProblemKind::Extra, "a second kernel ledger".to_owned()),
                    Ok(ledger) => self.ledger = Some(ledger),
                    Err(why) => problem(ProblemKind::Format, format!("the kernel ledger cannot be read: {why}")),
                }
            }
            SOCKET_LAYER if good.ext_fault.is_some() => self.claimed.push(None),
            SOCKET_LAYER => {
                let socket = good.ext.as_ref().and_then(|ext| ext.get("socket_v1"));
                match decimal(socket.and_then(|socket| socket.get("count"))) {
                    Some(count) => self.sockets = self.sockets.saturating_add(count),
                    None => problem(ProblemKind::Format, "a socket receipt without a count".to_owned()),
                }
            }
            _ => {
                self.kernel |= record.layer.starts_with("kernel_");
                if good.ext_fault.is_none()
                    && let Some(id) = good.flow()
                {
                    self.mentions.push((id, record.chain_seq));
                }
            }
        }
    }

    /// Takes in what a receipt claims that does not hold.
    pub(super) fn altered(&mut self, claim: &Claim) {
        self.claimed.push(claim.flow);
        // Whatever it claims to be now, it may have been the ledger; a flow receipt's flow is harder to lose.
        self.ledger_altered |= claim.flow.is_none();
    }

    /// Holds everything against everything.
    pub(super) fn reconcile(mut self, losses: &Losses, report: &mut Report) {
        self.receipts.sort_unstable();
        report.flow_count = u64::try_from(self.receipts.len()).unwrap_or(u64::MAX);
        report.counted = self.counted.values().fold(0, |sum, count| sum.saturating_add(*count));
        self.doubles(report);
        let Some(ledger) = self.ledger.take() else {
            self.missing_receipts(losses, None, report);
            if !self.kernel && self.mentions.is_empty() {
                report.notes.push(
                    "ledger: absent. No receipt speaks of a kernel: flows were not enforced or not recorded."
                        .to_owned(),
                );
            } else if losses.missing_count > 0 || losses.truncated || self.ledger_altered {
                report.notes.push(
                    "the kernel ledger is among the receipts that are lost, so flows could not be counted.".to_owned(),
                );
            } else {
                report.problem(
                    ProblemKind::Truncated,
                    format!("there are flow receipts, but no kernel ledger ({LEDGER_TARGET}) to count them against"),
                );
            }
            return;
        };
        if ledger.sockets_lost {
            let text = "sockets were refused without a receipt, because nobody was left to record them";
            report.problem(ProblemKind::Missing, text.to_owned());
        }
        if ledger.pins_removed {
            report.notes.push(
                "the pins of the kernel programs were removed during the run; they stayed attached to its end, because \
                 their server lived"
                    .to_owned(),
            );
        }
        if ledger.unrecorded > 0 {
            report.problem(
                ProblemKind::Missing,
                format!("the kernel denied {} flows that it could not record", ledger.unrecorded),
            );
        }
        if ledger.receipts_lost > 0 {
            report.problem(
                ProblemKind::Missing,
                format!("the proxy says of {} receipts that it could not write them", ledger.receipts_lost),
            );
        }
        let absent = self.absent(&ledger);
        self.missing_receipts(losses, Some(&absent), report);
        self.beyond(&ledger, report);
        self.counters(&ledger, losses, absent.is_empty(), report);
        report.ledger = Some(ledger);
    }

    /// Two receipts for one flow.
    fn doubles(&self, report: &mut Report) {
        for (first, second) in self.receipts.iter().zip(self.receipts.iter().skip(1)) {
            if first.0 == second.0 {
                flow_problem(
                    report,
                    ProblemKind::Extra,
                    Some(second.1),
                    second.0,
                    "a second receipt for the same flow",
                );
            }
        }
    }

    /// The flows that are owed and have no receipt, as ranges: first and count. Those that an altered receipt accounts
    /// for are left out.
    fn absent(&self, ledger: &Ledger) -> Vec<(u64, u64)> {
        let present = self.receipts.iter().map(|(id, _)| *id);
        let claimed = self.claimed.iter().flatten().copied().filter(|id| ledger.owes(*id));
        let mut known: Vec<u64> = present.chain(claimed).collect();
        known.sort_unstable();
        let mut gaps: Vec<(u64, u64)> = ledger
            .taken_over
            .iter()
            .filter(|flow| known.binary_search(flow).is_err())
            .take(MAX_GAPS)
            .map(|flow| (*flow, 1))
            .collect();
        let end = ledger.flows.saturating_add(1);
        let mut next = ledger.first;
        for id in known.into_iter().filter(|id| *id >= ledger.first).chain([end]) {
            if id > next && next <= ledger.flows && gaps.len() < MAX_GAPS {
                gaps.push((next, id.min(end) - next));
            }
            next = next.max(id.saturating_add(1));
        }
        // An altered receipt may have had its flow number changed: it then stands for one flow that seems absent.
        let held: HashSet<u64> = self.receipts.iter().map(|(id, _)| *id).collect();
        let strays = self.claimed.iter().filter(|claim| claim.is_none_or(|id| !ledger.owes(id) || held.contains(&id)));
        let strays = u64::try_from(strays.count()).unwrap_or(u64::MAX);
        let count = gaps.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        if count <= strays { Vec::new() } else { gaps }
    }

    /// Names the missing receipts, and the missing flows beside them.
    fn missing_receipts(&self, losses: &Losses, absent: Option<&[(u64, u64)]>, report: &mut Report) {
        let absent = absent.unwrap_or_default();
        // One receipt and one flow missing: they are one loss.
        let pair = match (losses.missing.as_slice(), absent) {
            ([(_, 1)], [(flow, 1)]) => Some(*flow),
            _ => None,
        };
        for (seq, count) in &losses.missing {
            let text = match count {
                1 => "it is not there; its neighbours are".to_owned(),
                _ => format!("{count} receipts from here to number {} are not there", seq.saturating_add(count - 1)),
            };
            report.push(Problem {
                kind: ProblemKind::Missing,
                seq: Some(*seq),
                flow: pair,
                action_id: String::new(),
                text,
            });
        }
        if pair.is_some() || (losses.truncated && self.ledger.is_none()) {
            return;
        }
        let hint = if losses.missing_count > 0 { "; it is probably one of the missing receipts" } else { "" };
        for (flow, count) in absent {
            let text = match count {
                1 => format!("the kernel counted this flow, but it has no receipt{hint}"),
                _ => format!(
                    "the kernel counted flows {flow} to {}, but they have no receipts{hint}",
                    flow.saturating_add(count - 1)
                ),
            };
            flow_problem(report, ProblemKind::Missing, None, *flow, &text);
        }
    }

    /// Receipts for flows that the kernel never counted, and mentions of flows without a receipt.
    fn beyond(&self, ledger: &Ledger, report: &mut Report) {
        for (flow, seq) in self.receipts.iter().chain(&self.mentions) {
            if !ledger.owes(*flow) {
                let text = format!(
                    "it belongs to a flow that the kernel did not count; the ledger goes from {} to {}",
                    ledger.first, ledger.flows
                );
                flow_problem(report, ProblemKind::Extra, Some(*seq), *flow, &text);
            }
        }
    }

    /// Flow receipts by reason against the kernel's counters.
    fn counters(&self, ledger: &Ledger, losses: &Losses, complete: bool, report: &mut Report) {
        let sum = ledger.by_reason.values().fold(0_u64, |sum, count| sum.saturating_add(*count));
        // A flow whose record was lost has a number and no reason.
        if sum.saturating_add(ledger.unrecorded) != ledger.expected() {
            let text = format!("the kernel counted {} flows, but {sum} reasons", ledger.expected());
            report.problem(ProblemKind::CounterMismatch, text);
        }
        // With receipts missing or altered the counts cannot agree; that is reported already.
        if !complete || losses.missing_count > 0 || losses.truncated || !self.claimed.is_empty() {
            return;
        }
        let names: HashSet<&String> = ledger.by_reason.keys().chain(self.reasons.keys()).collect();
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        for name in names {
            let kernel = ledger.by_reason.get(name).copied().unwrap_or_default();
            let receipts = self.reasons.get(name).copied().unwrap_or_default();
            if kernel != receipts {
                let text = format!("the kernel counted {kernel} flows as {name}, but {receipts} receipts say so");
                report.problem(ProblemKind::CounterMismatch, text);
            }
        }
        let refused = ledger.sockets_refused.unwrap_or(self.sockets);
        if refused != self.sockets {
            let text = format!("{refused} sockets were refused, but the receipts account for {}", self.sockets);
            report.problem(ProblemKind::CounterMismatch, text);
        }
        if self.counted_altered {
            return;
        }
        let names: BTreeSet<&String> = ledger.counted.keys().chain(self.counted.keys()).collect();
        for name in names {
            let kernel = ledger.counted.get(name).copied().unwrap_or_default();
            let receipts = self.counted.get(name).copied().unwrap_or_default();
            if kernel != receipts {
                let text = format!(
                    "the kernel counted {kernel} denials as {name} without a flow of their own, but the receipts say {receipts}"
                );
                report.problem(ProblemKind::CounterMismatch, text);
            }
        }
    }
}

fn flow_problem(report: &mut Report, kind: ProblemKind, seq: Option<u64>, flow: u64, text: &str) {
    report.push(Problem { kind, seq, flow: Some(flow), action_id: String::new(), text: text.to_owned() });
}
