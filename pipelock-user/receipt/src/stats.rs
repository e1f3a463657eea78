//! Counts over a chain, in bounded memory: receipts by verdict and by reason, and the kernel's ledger.
//!
//! Used by the verifier's report and by the evidence folder, so that both count alike.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::body::ActionRecord;

/// `layer` of the one receipt that every flow of the kernel leaves.
pub const FLOW_LAYER: &str = "kernel_flow";
/// `layer` of the receipts that stand for many denials, which the kernel counted without a flow of their own.
pub const DENIALS_LAYER: &str = "kernel_denials";
/// `target` of those among them that stand for more destinations than were told apart.
pub const DENIALS_TARGET: &str = "pipelock://kernel/denials";
/// `layer` of the one receipt that carries the kernel's own counters.
pub const LEDGER_LAYER: &str = "kernel_ledger";
/// `target` of that receipt.
pub const LEDGER_TARGET: &str = "pipelock://kernel/ledger";
/// `layer` of the receipts for sockets that were refused before the kernel's hooks could see them; `ext.socket_v1.count`
/// says how many calls each stands for.
pub const SOCKET_LAYER: &str = "socket_filter";
/// Most different reasons that are counted apart.
const MAX_REASONS: usize = 256;

/// Receipts by verdict; verdicts in other words count as `other`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the words of the public format")]
pub struct Totals {
    pub allow: u64,
    pub block: u64,
    pub warn: u64,
    pub ask: u64,
    pub strip: u64,
    pub forward: u64,
    pub redirect: u64,
    pub other: u64,
}

impl Totals {
    /// Counts one verdict.
    pub fn add(&mut self, verdict: &str) {
        let count = match verdict.trim().to_ascii_lowercase().as_str() {
            "allow" => &mut self.allow,
            "block" => &mut self.block,
            "warn" => &mut self.warn,
            "ask" => &mut self.ask,
            "strip" => &mut self.strip,
            "forward" => &mut self.forward,
            "redirect" => &mut self.redirect,
            _ => &mut self.other,
        };
        *count += 1;
    }

    /// The counts with their words.
    #[must_use]
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("allow", self.allow),
            ("block", self.block),
            ("warn", self.warn),
            ("ask", self.ask),
            ("strip", self.strip),
            ("forward", self.forward),
            ("redirect", self.redirect),
            ("other", self.other),
        ]
    }
}

/// Everything that is counted about a chain.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Receipts.
    pub count: u64,
    /// By verdict.
    pub totals: Totals,
    /// By `verdict layer/pattern`, of the receipts that name a layer.
    pub reasons: BTreeMap<String, u64>,
    /// Time of the first and of the last receipt.
    pub start: String,
    /// Time of the last receipt.
    pub end: String,
}

impl Tally {
    /// Counts one receipt.
    pub fn add(&mut self, record: &ActionRecord) {
        self.count += 1;
        self.totals.add(&record.verdict);
        if !record.layer.is_empty() {
            let name = format!("{} {}/{}", record.verdict, record.layer, record.pattern);
            count_capped(&mut self.reasons, name, MAX_REASONS);
        }
        if self.start.is_empty() {
            self.start.clone_from(&record.timestamp);
        }
        self.end.clone_from(&record.timestamp);
    }
}

/// Counts `name`, or `(others)` when too many names are counted apart already.
pub(crate) fn count_capped(counts: &mut BTreeMap<String, u64>, name: String, cap: usize) {
    add_capped(counts, name, 1, cap);
}

/// As [`count_capped`], for a number of them.
pub(crate) fn add_capped(counts: &mut BTreeMap<String, u64>, name: String, number: u64, cap: usize) {
    let name = if counts.len() >= cap && !counts.contains_key(&name) { "(others)".to_owned() } else { name };
    let count = counts.entry(name).or_default();
    *count = count.saturating_add(number);
}

/// What the kernel counted, as the ledger receipt's `ext.kernel_v1` says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// The number of the last flow.
    pub flows: u64,
    /// The number of the first flow of this run: 1, or where a former proxy, whose pinned state was taken over, ended.
    pub first: u64,
    /// Flows before the first that the former proxy left without a receipt, ascending.
    pub taken_over: Vec<u64>,
    /// Numbered denials whose record was lost because a table was full.
    pub unrecorded: u64,
    /// Flows by the kernel's reason.
    pub by_reason: BTreeMap<String, u64>,
    /// Sockets that were refused before any hook could see them; none where nobody was asked (under `attach`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sockets_refused: Option<u64>,
    /// Sockets were refused without a receipt: the answering thread ended before the agent did.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sockets_lost: bool,
    /// The pins of the programs were removed while their server lived.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pins_removed: bool,
    /// Denials that were counted without a flow of their own, by the kernel's reason.
    pub counted: BTreeMap<String, u64>,
    /// Receipts of flows, requests and questions that the proxy knows it could not write.
    #[serde(skip_serializing_if = "is_zero")]
    pub receipts_lost: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Most flows that can be taken over: the capacity of the kernel's table, with room for a larger one.
const MAX_TAKEN_OVER: usize = 1 << 20;

impl Ledger {
    /// How many flow receipts there must be, if every flow was recorded.
    #[must_use]
    pub fn expected(&self) -> u64 {
        let own = self.flows.saturating_add(1).saturating_sub(self.first);
        own.saturating_add(u64::try_from(self.taken_over.len()).unwrap_or(u64::MAX))
    }

    /// Whether this run owes a receipt for this flow.
    #[must_use]
    pub fn owes(&self, flow: u64) -> bool {
        (self.first..=self.flows).contains(&flow) || self.taken_over.binary_search(&flow).is_ok()
    }

    /// Reads `ext.kernel_v1`. Members that are not named here are other counters, and are left to people.
    ///
    /// # Errors
    /// A sentence that names the member that is missing or not a decimal string.
    pub fn parse(kernel: &Value) -> Result<Self, String> {
        let number =
            |name: &str| decimal(kernel.get(name)).ok_or_else(|| format!("kernel_v1.{name} is not a decimal string"));
        let by_reason = counts(kernel, "by_reason")?;
        // Evidence from before denials were counted so has none.
        let counted = if kernel.get("counted").is_some() { counts(kernel, "counted")? } else { BTreeMap::new() };
        let first = if kernel.get("first").is_some() { number("first")? } else { 1 };
        let taken_over = match kernel.get("taken_over") {
            None => Vec::new(),
            Some(list) => list
                .as_array()
                .filter(|list| list.len() <= MAX_TAKEN_OVER)
                .and_then(|list| list.iter().map(|flow| decimal(Some(flow))).collect::<Option<Vec<_>>>())
                .filter(|list| list.is_sorted_by(|a, b| a < b) && list.iter().all(|flow| (1..first).contains(flow)))
                .ok_or("kernel_v1.taken_over is not an ascending list of flows before the first")?,
        };
        let flows = number("flows")?;
        if first == 0 || first > flows.saturating_add(1) {
            return Err("kernel_v1.first is not between 1 and the flow after the last".to_owned());
        }
        let flag = |name: &str| match kernel.get(name) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| format!("kernel_v1.{name} is not a boolean")),
        };
        let (sockets_lost, pins_removed) = (flag("sockets_lost")?, flag("pins_removed")?);
        // Evidence of other writers need not know of it.
        let receipts_lost = if kernel.get("receipts_lost").is_some() { number("receipts_lost")? } else { 0 };
        let refused = "sockets_refused";
        let sockets_refused = if kernel.get(refused).is_some() { Some(number(refused)?) } else { None };
        Ok(Self {
            flows,
            first,
            taken_over,
            unrecorded: number("unrecorded")?,
            by_reason,
            sockets_refused,
            counted,
            sockets_lost,
            pins_removed,
            receipts_lost,
        })
    }
}

/// A member that holds counts by reason.
fn counts(kernel: &Value, name: &str) -> Result<BTreeMap<String, u64>, String> {
    let members =
        kernel.get(name).and_then(Value::as_object).ok_or_else(|| format!("kernel_v1.{name} is not an object"))?;
    if members.len() > MAX_REASONS {
        return Err(format!("kernel_v1.{name} has more than {MAX_REASONS} members"));
    }
    let read = |(reason, count): (&String, &Value)| match decimal(Some(count)) {
        Some(count) => Ok((reason.clone(), count)),
        None => Err(format!("kernel_v1.{name}.{reason} is not a decimal string")),
    };
    members.iter().map(read).collect()
}

/// A 64-bit number as we write it in `ext`: a decimal string without sign or leading zeros.
#[must_use]
pub fn decimal(value: Option<&Value>) -> Option<u64> {
    let text = value?.as_str()?;
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

/// The flow that `ext` says a receipt belongs to.
#[must_use]
pub fn flow_id(ext: &Value) -> Option<u64> {
    decimal(ext.get("flow_v1")?.get("flow_id"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ledgers_are_read_strictly() {
        let good =
            json!({"flows": "3", "unrecorded": "0", "by_reason": {"redirect": "2", "port_denied": "1"}, "x": []});
        let ledger = Ledger::parse(&good).unwrap();
        assert_eq!((ledger.flows, ledger.by_reason.len()), (3, 2));
        for bad in [
            json!({}),
            json!({"flows": 3, "unrecorded": "0", "by_reason": {}}),
            json!({"flows": "03", "unrecorded": "0", "by_reason": {}}),
            json!({"flows": "3", "unrecorded": "+0", "by_reason": {}}),
            json!({"flows": "3", "unrecorded": "0", "by_reason": {"x": 1}}),
            json!({"flows": "3", "unrecorded": "0"}),
            json!({"flows": "3", "unrecorded": "0", "by_reason": {}, "counted": []}),
            json!({"flows": "3", "unrecorded": "0", "by_reason": {}, "counted": {"x": "01"}}),
            json!({"flows": "3", "unrecorded": "0", "by_reason": {}, "first": "5"}),
            json!({"flows": "3", "unrecorded": "0", "by_reason": {}, "first": "0"}),
            json!({"flows": "3", "unrecorded": "0", "by_reason": {}, "first": "3", "taken_over": ["3"]}),
            json!({"flows": "3", "unrecorded": "0", "by_reason": {}, "first": "3", "taken_over": ["2", "1"]}),
            json!([]),
        ] {
            assert!(Ledger::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_that_took_over_owes_what_was_left_and_what_came() {
        let ledger = Ledger::parse(&json!({
            "flows": "9", "unrecorded": "0", "by_reason": {}, "first": "7", "taken_over": ["2", "5"]
        }))
        .unwrap();
        let owed: Vec<u64> = (0..12).filter(|flow| ledger.owes(*flow)).collect();
        assert_eq!((owed, ledger.expected()), (vec![2, 5, 7, 8, 9], 5));
    }

    #[test]
    fn hostile_words_do_not_grow_the_counts() {
        let mut counts = BTreeMap::new();
        for n in 0..1000 {
            count_capped(&mut counts, n.to_string(), 10);
        }
        assert_eq!((counts.len(), counts["(others)"]), (11, 990));
    }
}
