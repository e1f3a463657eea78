//! The event of a decision in the log: exactly one for each receipt, naming it, once it is in the file.
//!
//! Called by the recorder's thread, after whoever waited for the receipt was told. A decision whose receipt could not be
//! written has its event too, without a receipt. It promises that what an agent chose is shown only as far as it is plainly
//! a name, a method or a number, but for the name of its process, which is shown on one line: URL, headers and bodies stay out.

use pipelock_receipt::{ActionDraft, Appended};
use serde_json::Value;

use super::counts::Counted;
use crate::telemetry::{plain_host, plain_method};

/// Says what was decided.
pub(super) fn tell(counted: Counted, draft: &ActionDraft, ext: &Value, receipt: Option<&Appended>) {
    // Else there is no need to put the event together.
    if !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    let Some(kind) = counted.decided() else { return };
    let member = |name: &str| {
        let found = ["flow_v1", "socket_v1", "denials_v1"].iter().find_map(|part| ext.get(part)?.get(name));
        match found {
            Some(Value::String(text)) => Some(text.clone()),
            Some(value @ Value::Number(_)) => Some(value.to_string()),
            _ => None,
        }
    };
    let rule = member("rule");
    tracing::info!(
        kind,
        verdict = draft.verdict,
        reason = draft.pattern,
        flow = member("flow_id"),
        receipt = receipt.map(|receipt| receipt.seq),
        receipt_hash = receipt.map(|receipt| receipt.receipt_hash.as_str()),
        target = shown(kind, &draft.target, rule.as_deref().unwrap_or_default()),
        method = (kind == "request").then(|| plain_method(&draft.method)),
        status = member("status"),
        hook = member("hook"),
        count = member("count"),
        actor = told(plain_text(&draft.actor)),
        pid = member("pid"),
        rule,
        found = told(listed(ext, "rule")),
        mitre = told(listed(ext, "mitre")),
        "decision"
    );
}

/// Where it went, without path and query. A name that the rule itself spells out is shown whole.
fn shown(kind: &str, target: &str, rule: &str) -> String {
    if kind == "socket" {
        return target.to_owned();
    }
    let (scheme, rest) = target.split_once("://").unwrap_or(("", target));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let name = authority.rsplit_once(':').map_or(authority, |(name, _)| name);
    let is_spelt_out = !name.is_empty() && rule.rsplit(' ').next() == Some(name);
    let authority = if is_spelt_out { authority.to_owned() } else { plain_host(authority) };
    if scheme.is_empty() { authority } else { format!("{scheme}://{authority}") }
}

/// What the findings of a receipt say under this name, each once.
fn listed(ext: &Value, name: &str) -> String {
    let findings = ext.pointer("/flow_v1/findings").and_then(Value::as_array);
    let mut words: Vec<&str> = Vec::new();
    for value in findings.into_iter().flatten().filter_map(|finding| finding.get(name)) {
        match value {
            Value::String(word) => words.push(word),
            Value::Array(more) => words.extend(more.iter().filter_map(Value::as_str)),
            _ => {}
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    words.retain(|word| seen.insert(*word));
    words.join(",")
}

/// Nothing is not said.
fn told(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// The name of a process, which it may choose, or of a client, on one line.
fn plain_text(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_agent_chose_is_shown_as_far_as_it_is_plain() {
        let secret = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
        for (kind, target, rule, wanted) in [
            ("request", format!("https://api.test:8443/a/{secret}?k={secret}"), "", "https://api.test:8443"),
            ("request", format!("http://{secret}.evil.test/"), "", "http://….evil.test"),
            (
                "request",
                "https://an-unusually-long-label-of-ours.test/x".into(),
                "egress[0] an-unusually-long-label-of-ours.test",
                "https://an-unusually-long-label-of-ours.test",
            ),
            ("request", format!("http://{secret}.evil.test/"), "egress[0] *.evil.test", "http://….evil.test"),
            ("query", format!("dns://{secret}.evil.test"), "", "dns://….evil.test"),
            ("tunnel", "a.test:443".into(), "", "a.test:443"),
            ("tunnel", "[2001:db8::1]:443".into(), "", "[2001:db8::1]:443"),
            ("request", format!("http://[2001:db8::1]/{secret}"), "", "http://[2001:db8::1]"),
            ("request", format!("http://[{secret}]/"), "", "http://…"),
            ("flow", "tcp://192.0.2.1:80".into(), "", "tcp://192.0.2.1:80"),
            ("socket", "socket://packet/raw/3".into(), "", "socket://packet/raw/3"),
        ] {
            assert_eq!(shown(kind, &target, rule), wanted);
        }
    }

    #[test]
    fn the_ids_of_findings_are_listed_once() {
        let ext = json!({"flow_v1": {"findings": [
            {"rule": "github-token", "mitre": ["T1048", "T1552"]},
            {"rule": "github-token", "mitre": ["T1048"]},
        ]}});
        assert_eq!((listed(&ext, "mitre").as_str(), listed(&ext, "rule").as_str()), ("T1048,T1552", "github-token"));
        assert_eq!(listed(&json!({}), "mitre"), "");
    }
}
