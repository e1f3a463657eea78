//! The event of a decision in the log: exactly one for each receipt, naming it, once it is in the file.
//!
//! Called by the recorder's thread, after whoever waited for the receipt was told. A decision whose receipt could not be
//! written has its event too, without a receipt. It promises that what an agent chose is shown only as far as it is plainly
//! a name, a method or a number, but for the name of its process, which is shown on one line: URL, headers and bodies stay out.

use pipelock_receipt::{ActionDraft, Appended};
use serde_json::Value;

use super::counts::Counted;
use crate::flow::Reason;
use crate::telemetry::{plain_host, plain_method};

/// The status of the answer that says so (RFC 9110 §15.6.4).
const UNAVAILABLE: u64 = 503;

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
    let Said { verdict, reason, status } = said(draft, ext, receipt.is_some());
    tracing::info!(
        kind,
        verdict,
        reason,
        flow = member("flow_id"),
        receipt = receipt.map(|receipt| receipt.seq),
        receipt_hash = receipt.map(|receipt| receipt.receipt_hash.as_str()),
        target = shown(kind, &draft.target, rule.as_deref().unwrap_or_default()),
        method = (kind == "request").then(|| plain_method(&draft.method)),
        status = status.map(|status| status.to_string()),
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

/// What came of it, as whoever asked was told.
#[derive(Debug, PartialEq, Eq)]
struct Said<'d> {
    verdict: &'d str,
    reason: &'d str,
    status: Option<u64>,
}

/// The receipt's words; of what was to be let through, and has none, that it was not. If it had left already, nobody may call it blocked.
fn said<'d>(draft: &'d ActionDraft, ext: &Value, is_written: bool) -> Said<'d> {
    let flow = ext.get("flow_v1");
    let has = |name: &str| flow.is_some_and(|flow| flow.get(name).is_some());
    let status = flow.and_then(|flow| flow.get("status")).and_then(Value::as_u64);
    // What has a status is the answer to somebody, and a part of a message comes after that.
    if is_written || draft.verdict == "block" || status.is_none() || has("part") {
        return Said { verdict: &draft.verdict, reason: &draft.pattern, status };
    }
    let verdict = if has("dialled") || has("next_hop") { &draft.verdict } else { "block" };
    Said { verdict, reason: Reason::RecorderUnavailable.code(), status: Some(UNAVAILABLE) }
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
    fn what_has_no_receipt_is_not_said_to_have_been_let_through() {
        let draft = |verdict: &str| {
            let mut draft = ActionDraft::new(verdict, "forward", "http://a.test/");
            draft.pattern = "policy_allow".into();
            draft
        };
        let (allow, block) = (draft("allow"), draft("block"));
        let as_drafted = |verdict, status| Said { verdict, reason: "policy_allow", status };
        let lost = |verdict| Said { verdict, reason: "recorder_unavailable", status: Some(503) };
        let request = json!({"flow_v1": {"status": 200}});
        assert_eq!(said(&allow, &request, true), as_drafted("allow", Some(200)));
        assert_eq!(said(&allow, &request, false), lost("block"));
        assert_eq!(said(&allow, &json!({"flow_v1": {"status": 200, "dialled": "192.0.2.1:80"}}), false), lost("allow"));
        assert_eq!(said(&block, &request, false), as_drafted("block", Some(200)));
        // A flow was let through by the kernel, and a part of a message comes after its answer.
        assert_eq!(said(&allow, &json!({"flow_v1": {}}), false), as_drafted("allow", None));
        let part = json!({"flow_v1": {"status": 200, "part": "body"}});
        assert_eq!(said(&allow, &part, false), as_drafted("allow", Some(200)));
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
