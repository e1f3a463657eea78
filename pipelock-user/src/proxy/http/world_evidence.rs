//! For tests of this room: what the evidence of a [`World`] says.

use std::time::Duration;

use serde_json::Value;

use super::world::{SECRET, World};

/// Waits for what has to come; a test that waits in vain says for what.
pub(in crate::proxy) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain: {what}");
}

impl World {
    /// Verdict and reason of every request's receipt.
    pub(in crate::proxy) fn receipts(&self) -> Vec<(String, String)> {
        self.receipts_of("forward")
    }

    /// The same once there are so many: what comes after an answer is written when it comes.
    pub(in crate::proxy) async fn receipts_of_count(&self, count: usize) -> Vec<(String, String)> {
        for _ in 0..500 {
            if self.receipts().len() >= count {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.receipts()
    }

    /// The same of the tunnels that were asked for.
    pub(in crate::proxy) fn tunnels(&self) -> Vec<(String, String)> {
        self.receipts_of("connect")
    }

    /// The receipts that are in the file whole: the next may be written at this moment.
    pub(in crate::proxy) fn evidence_by_now(&self) -> String {
        let path = self.evidence.path().join("evidence/evidence.jsonl");
        let mut text = std::fs::read_to_string(path).expect("evidence");
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    }

    pub(in crate::proxy) fn receipts_of(&self, transport: &str) -> Vec<(String, String)> {
        let text = self.evidence_by_now();
        let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let action = |entry: Value| {
            let action = find(&entry, "action_record")?.clone();
            (action["transport"] == transport).then(|| {
                (action["verdict"].as_str().unwrap_or("").into(), action["pattern"].as_str().unwrap_or("").into())
            })
        };
        entries.filter_map(action).collect()
    }

    /// What the receipts of a door say of where it went, and of where its client was.
    pub(in crate::proxy) fn ways(&self, transport: &str) -> Vec<(String, String)> {
        let text = self.evidence_by_now();
        let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let way = |entry: Value| {
            let action = find(&entry, "action_record").filter(|action| action["transport"] == transport)?;
            let word = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
            Some((word(action.get("target")), word(find(&entry, "src"))))
        };
        entries.filter_map(way).collect()
    }

    /// Who the receipts of a door say it was.
    pub(in crate::proxy) fn identities(&self, transport: &str) -> Vec<String> {
        let text = self.evidence_by_now();
        let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let who = |entry: Value| {
            let is_it = find(&entry, "action_record")?["transport"] == transport;
            is_it.then(|| find(&entry, "identity").and_then(Value::as_str).unwrap_or_default().to_owned())
        };
        entries.filter_map(who).collect()
    }

    /// What the receipts of requests say of findings, in order.
    pub(in crate::proxy) fn findings(&self) -> Vec<Vec<Value>> {
        let text = self.evidence_by_now();
        assert!(!text.contains(SECRET), "no secret in the evidence");
        let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let found = |entry: Value| {
            let is_request = find(&entry, "action_record")?["transport"] == "forward";
            is_request.then(|| find(&entry, "findings").and_then(Value::as_array).cloned().unwrap_or_default())
        };
        entries.filter_map(found).collect()
    }

    pub(in crate::proxy) fn last_receipt(&self) -> (String, String) {
        self.receipts().pop().expect("a receipt")
    }
}

pub(in crate::proxy) fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find(value, key))),
        _ => None,
    }
}
