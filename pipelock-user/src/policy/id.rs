//! The canonical form of a policy and its hash, the policy id.
//!
//! Called when a policy is assembled. It promises that comments, layout, order of keys and written-out defaults change
//! nothing, that any change of meaning does, and that the canonical form is itself a policy file with the same id. The
//! order of rules counts, because verdicts and receipts name rules by their number.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::destination::Destination;
use super::types::{DnsMode, Listen, Parts, PortRange, Protocol, Rule};
use super::upstream::NextHop;
use crate::flow::PolicyId;

/// SHA-256 of the canonical form, as 64 lower-case hex digits.
pub(super) fn policy_id(canonical: &str) -> PolicyId {
    use std::fmt::Write as _;
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(canonical.as_bytes()) {
        let _ = write!(hex, "{byte:02x}");
    }
    PolicyId(hex)
}

/// The policy as JSON without spaces, keys sorted by bytes, numbers as integers, defaults filled in.
pub(super) fn canonical_json(parts: &Parts) -> String {
    let hosts: Map<String, Value> = parts.dns_hosts.iter().map(|(name, addrs)| (name.clone(), json!(addrs))).collect();
    let mut value = json!({
        "version": "1.0",
        "default_deny": parts.unnamed.is_none(),
        "egress": parts.rules.iter().map(rule).collect::<Vec<_>>(),
        "websocket": {
            "enabled": parts.websocket.enabled,
            "frame_scan": parts.websocket.frame_scan,
            "proxy_path": parts.websocket.proxy_path,
        },
        "dns_resolution": dns_word(parts.dns_mode),
        "dns": { "hosts": hosts, "max_names": parts.dns_max_names },
        "ssrf": { "allow": parts.ssrf_allow.iter().map(ToString::to_string).collect::<Vec<_>>() },
        "loopback": { "allow": parts.loopback_ports },
        "listen": match parts.listen {
            Listen::Loopback => "loopback",
            Listen::Any => "any",
        },
        "limits": {
            "max_connections": parts.limits.max_connections,
            "header_bytes": parts.limits.header_bytes,
            "request_timeout_seconds": parts.limits.request_timeout_seconds,
            "detect_timeout_seconds": parts.limits.detect_timeout_seconds,
            "idle_timeout_seconds": parts.limits.idle_timeout_seconds,
        },
    });
    // Sections that came later are left out when they say nothing, so that older policies keep their ids.
    let later = [
        ("deny", parts.deny.canonical()),
        ("tls", parts.tls.canonical()),
        ("dlp", parts.dlp.canonical()),
        ("response", parts.response.canonical()),
        ("upstream", parts.upstream.as_ref().map(NextHop::canonical)),
        ("ask", parts.ask.canonical()),
        ("metrics", parts.metrics.canonical()),
        ("rates", parts.rates.canonical()),
    ];
    if let Value::Object(map) = &mut value {
        map.extend(later.into_iter().filter_map(|(name, section)| Some((name.to_owned(), section?))));
    }
    sorted(value).to_string()
}

fn dns_word(mode: DnsMode) -> &'static str {
    match mode {
        DnsMode::Synthetic => "proxy_only",
        DnsMode::Real => "real",
    }
}

fn rule(rule: &Rule) -> Value {
    let mut value = Map::new();
    let mut put = |name: &str, of: Value| value.insert(name.to_owned(), of);
    put("destination", rule.destination.to_string().into());
    put("ports", rule.ports.iter().map(PortRange::to_string).collect::<Vec<_>>().into());
    put("scan", rule.scan.into());
    let protocol = match rule.protocol {
        Protocol::Auto => "auto",
        Protocol::Http => "http",
        Protocol::Tls => "tls",
        Protocol::Tcp => "tcp",
        Protocol::Ssh => "ssh",
    };
    put("protocol", protocol.into());
    // What has no default is left out: its absence means something (any method, any path, no limit).
    if matches!(rule.destination, Destination::Below(_)) {
        put("include_apex", rule.include_apex.into());
    }
    if let Some(methods) = &rule.methods {
        put("methods", methods.clone().into());
    }
    if let Some(paths) = &rule.paths {
        put("paths", paths.iter().map(|path| path.as_str().to_owned()).collect::<Vec<_>>().into());
    }
    if !rule.host_keys.is_empty() {
        put("host_keys", rule.host_keys.clone().into());
    }
    if let Some(git) = &rule.git {
        put("git", git.canonical());
    }
    if let Some(action) = rule.response {
        put("response", action.word().into());
    }
    if let Some(action) = rule.response_secrets {
        put("response_secrets", action.word().into());
    }
    if !rule.allow_secrets.is_empty() {
        put("allow_secrets", rule.allow_secrets.clone().into());
    }
    if let Some(pair) = &rule.client {
        put("client_cert", json!(pair.certificate));
        put("client_key", json!(pair.key));
    }
    if rule.asks {
        put("ask", true.into());
    }
    let limits = [
        ("max_bytes_out", rule.budgets.max_bytes_out),
        ("max_bytes_in", rule.budgets.max_bytes_in),
        ("max_seconds", rule.budgets.max_seconds),
    ];
    let budgets: Map<String, Value> =
        limits.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), limit?.into()))).collect();
    if !budgets.is_empty() {
        put("budgets", budgets.into());
    }
    if let Some(rates) = &rule.rates {
        put("rates", rates.canonical());
    }
    value.into()
}

/// Objects keep the order of insertion; this sorts them at every depth.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            entries.sort_by(|(left, _), (right, _)| left.cmp(right));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
