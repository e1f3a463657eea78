//! `summary.md`: the run for people.
//!
//! Hosts, paths and process names in it were chosen by the agent; every one passes [`markdown`], so that nothing in a
//! report can be a link, an image or a heading that pipelock did not write.

use std::fmt::Write;

use serde_json::Value;

use crate::body::Receipt;
use crate::canon::text::markdown;
use crate::read::Head;
use crate::stats::{FLOW_LAYER, LEDGER_LAYER, Ledger, Tally, flow_id};

/// Most flows in the table.
const MAX_ROWS: usize = 200;
/// Most bytes of one cell.
const MAX_CELL: usize = 200;

/// Collects what the summary needs, in bounded memory.
#[derive(Default)]
pub(super) struct Summary {
    pub(super) tally: Tally,
    pub(super) ledger: Option<Ledger>,
    rows: Vec<String>,
    flows: u64,
    closed: Option<String>,
}

impl Summary {
    pub(super) fn add(&mut self, receipt: &Receipt) {
        let record = &receipt.action_record;
        self.tally.add(record);
        self.closed =
            record.session_control.as_ref().and_then(|control| Some(control.close.as_ref()?.close_reason.clone()));
        if record.layer != FLOW_LAYER && record.layer != LEDGER_LAYER {
            return;
        }
        let ext: Value = receipt.ext.as_ref().and_then(|ext| serde_json::from_str(ext.get()).ok()).unwrap_or_default();
        if record.layer == LEDGER_LAYER {
            self.ledger = ext.get("kernel_v1").and_then(|kernel| Ledger::parse(kernel).ok());
            return;
        }
        self.flows += 1;
        if self.rows.len() < MAX_ROWS {
            let flow = ext.get("flow_v1");
            let member = |name: &str| match flow.and_then(|flow| flow.get(name)) {
                Some(Value::String(text)) => markdown(text, MAX_CELL),
                Some(Value::Number(number)) => number.to_string(),
                _ => String::new(),
            };
            let number = flow_id(&ext).map(|id| id.to_string()).unwrap_or_default();
            self.rows.push(format!(
                "| {number} | {} | {} | {} | {} | {} | {} | {} |",
                markdown(&record.verdict, 20),
                member("kernel_reason"),
                markdown(&record.target, MAX_CELL),
                format_args!("{} {}", member("comm"), member("pid")),
                member("tx_bytes"),
                member("rx_bytes"),
                record.chain_seq,
            ));
        }
    }

    pub(super) fn render(&self, head: &Head) -> String {
        let mut text = String::from("# pipelock run\n\n");
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "| | |\n|---|---|\n| start | {} |\n| end | {} |\n| ended by | {} |\n| receipts | {} |\n| policy | {} |\n\
             | key | {} |\n| last receipt's hash | {} |\n\n",
            markdown(&self.tally.start, 40),
            markdown(&self.tally.end, 40),
            self.closed
                .as_ref()
                .map_or("**not closed: the end is not proven**".to_owned(), |reason| markdown(reason, MAX_CELL)),
            head.receipt_count,
            markdown(&head.policy_hash, 80),
            head.signer_key,
            head.root_hash,
        );
        let _ = write!(
            text,
            "This page is not signed. Check the evidence with `pipelock verify --public-key FILE FOLDER`, FILE being the public \
             key as you know it from elsewhere, or with the public verifier, which wants the key itself in hex, \
             as keygen printed it: `pipelock-verify evidence.jsonl --key HEX`.\n\n## Verdicts\n\n| verdict | receipts |\n|---|--:|\n"
        );
        for (word, count) in self.tally.totals.named().iter().filter(|(_, count)| *count > 0) {
            let _ = writeln!(text, "| {word} | {count} |");
        }
        if !self.tally.reasons.is_empty() {
            text.push_str("\n## Reasons\n\n| verdict and reason | receipts |\n|---|--:|\n");
            for (reason, count) in &self.tally.reasons {
                let _ = writeln!(text, "| {} | {count} |", markdown(reason, MAX_CELL));
            }
        }
        text.push_str("\n## Kernel\n\n");
        match &self.ledger {
            None => text.push_str("No kernel counters were recorded.\n"),
            Some(ledger) => {
                let _ = writeln!(
                    text,
                    "| counter | flows |\n|---|--:|\n| all | {} |\n| unrecorded | {} |",
                    ledger.flows, ledger.unrecorded
                );
                for (reason, count) in &ledger.by_reason {
                    let _ = writeln!(text, "| {} | {count} |", markdown(reason, MAX_CELL));
                }
                if !ledger.counted.is_empty() {
                    text.push_str(
                        "\n## Denials counted without a flow of their own\n\n| reason | denials |\n|---|--:|\n",
                    );
                    for (reason, count) in &ledger.counted {
                        let _ = writeln!(text, "| {} | {count} |", markdown(reason, MAX_CELL));
                    }
                }
            }
        }
        if !self.rows.is_empty() {
            let _ = writeln!(text, "\n## Flows\n");
            if self.flows > self.rows.len() as u64 {
                let _ = writeln!(text, "The first {} of {}; all are in receipts.json.\n", self.rows.len(), self.flows);
            }
            text.push_str("| flow | verdict | kernel | target | process | bytes out | bytes in | receipt |\n");
            text.push_str("|--:|---|---|---|---|--:|--:|--:|\n");
            for row in &self.rows {
                text.push_str(row);
                text.push('\n');
            }
        }
        text
    }
}
