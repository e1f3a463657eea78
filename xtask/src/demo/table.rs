//! The receipts of a run as a table for the terminal: every flow, and below it what happened inside.

use serde_json::Value;

use std::collections::BTreeMap;

/// Most characters of a cell.
const WIDEST: usize = 44;

/// The table of a `receipts.json`.
pub(super) fn render(document: &Value) -> String {
    let mut flows: BTreeMap<u64, Vec<[String; 6]>> = BTreeMap::new();
    for receipt in document.get("receipts").and_then(Value::as_array).into_iter().flatten() {
        let flow = |name: &str| text(receipt.pointer(&format!("/ext/flow_v1/{name}")));
        let record = |name: &str| text(receipt.pointer(&format!("/action_record/{name}")));
        let Ok(id) = flow("flow_id").parse::<u64>() else { continue };
        let why = match flow("rule").as_str() {
            "" => record("pattern"),
            rule => format!("{}, {rule}", record("pattern")),
        };
        let rows = flows.entry(id).or_default();
        if record("transport") == "ebpf" {
            let process = format!("{} {}", flow("comm"), flow("pid"));
            let target = record("target");
            // Of a flow that the kernel denied the proxy never heard.
            let kernel = flow("kernel_reason");
            let is_seen = kernel.starts_with("redirect") || kernel == "policy_allow" || kernel == "dns_answered";
            let proxy = if is_seen { record("verdict") } else { "-".to_owned() };
            let kernel = if is_seen { "redirected".to_owned() } else { kernel };
            rows.insert(0, [id.to_string(), process, target, kernel, proxy, why]);
        } else {
            let target = format!("  {} {}", record("method"), record("target"));
            rows.push([String::new(), String::new(), target, String::new(), record("verdict"), why]);
        }
    }
    let head = ["FLOW", "PROCESS", "TARGET", "KERNEL", "PROXY", "WHY"].map(str::to_owned);
    let rows: Vec<_> =
        std::iter::once(head).chain(flows.into_values().flatten()).map(|row| row.map(|cell| cut(&cell))).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// Without anything a terminal could obey, and not too long.
fn cut(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { '?' } else { c });
    if text.chars().count() <= WIDEST { clean.collect() } else { clean.take(WIDEST - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_flow_stands_above_its_requests() {
        let request = json!({
            "action_record": {"transport": "forward", "verdict": "block", "pattern": "method_denied", "method": "POST",
                "target": "http://a.test/\u{1b}[31m"},
            "ext": {"flow_v1": {"flow_id": "2", "pid": 7}},
        });
        let flow = json!({
            "action_record": {"transport": "ebpf", "verdict": "block", "pattern": "method_denied", "target": "tcp://a.test:80"},
            "ext": {"flow_v1": {"flow_id": "2", "comm": "curl", "pid": 7, "kernel_reason": "policy_allow"}},
        });
        let denied = json!({
            "action_record": {"transport": "ebpf", "verdict": "block", "pattern": "udp_denied", "target": "udp://192.0.2.1:443"},
            "ext": {"flow_v1": {"flow_id": "1", "comm": "x", "pid": 8, "kernel_reason": "udp_denied"}},
        });
        let table = render(&json!({"receipts": [request, flow, denied, {"action_record": {}}]}));
        let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[1], ["1", "x", "8", "udp://192.0.2.1:443", "udp_denied", "-", "udp_denied"]);
        assert_eq!(lines[2], ["2", "curl", "7", "tcp://a.test:80", "redirected", "block", "method_denied"]);
        assert_eq!(lines[3], ["POST", "http://a.test/?[31m", "block", "method_denied"]);
        assert_eq!(lines.len(), 4);
    }
}
