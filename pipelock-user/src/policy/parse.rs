//! From the tree of values to the typed policy: everything but the rules, which `rule` reads.
//!
//! Called by `Policy::parse` and `Policy::load`. It promises a policy or the list of all mistakes, never a policy with
//! something left out.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::ask::Ask;
use super::content::{Dlp, Responses};
use super::deny::Denied;
use super::destination::parse_net;
use super::error::{PolicyErrors, Report, quote};
use super::keys::ROOT;
use super::metrics::Metrics;
use super::rates::RatesOfAll;
use super::raw::{self, MAX_BYTES, Value};
use super::read::{Field, Reader, join};
use super::rule;
use super::tls::Tls;
use super::types::{DnsMode, Limits, Listen, Parts, Policy, Rule, WebSocket};
use super::upstream::NextHop;
use crate::flow::Host;

/// What the explicit proxy answers itself, besides WebSockets: no other door may have these paths.
pub const OWN_DOORS: [&str; 4] = ["/fetch", "/health", "/api/v1/scan", "/api/v1/openapi.json"];
/// Addresses one name may have under `dns.hosts`.
const MAX_ADDRESSES: usize = 64;
/// Prefixes shorter than these hold more than any private network (10.0.0.0/8 and fc00::/7 are the largest).
const SHORTEST_V4: u8 = 8;
const SHORTEST_V6: u8 = 7;

/// Reads `text`.
pub(super) fn policy(text: &str, source: &str) -> Result<Policy, PolicyErrors> {
    let mut report = Report::new();
    let parts = raw::tree(text, &mut report).and_then(|root| {
        if matches!(root.value, Value::Null) {
            report.push(
                root.pos,
                "",
                "the policy is empty",
                "the smallest policy is version: \"1.0\", which denies everything",
            );
            return None;
        }
        let root = Field { node: &root, path: String::new() };
        Reader::open(&mut report, &root, &ROOT).map(|reader| whole(&mut report, &reader))
    });
    report.finish(source, parts).map(|parts| Policy::assemble(source, parts))
}

/// Reads the file at `path`.
pub(super) fn file(path: &Path) -> Result<Policy, PolicyErrors> {
    let source = path.display().to_string();
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let unread = |error: std::io::Error| {
        PolicyErrors::one(&source, format!("the policy cannot be read: {error}"), "check the path and its permissions")
    };
    std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(unread)?;
    match String::from_utf8(bytes) {
        Ok(text) => policy(&text, &source)?.with_file(path).map_err(unread),
        // Cut in the middle of a character by the limit, or not text.
        Err(error) if error.as_bytes().len() > MAX_BYTES => {
            Err(PolicyErrors::one(&source, format!("the policy is larger than {MAX_BYTES} bytes"), ""))
        }
        Err(error) => {
            let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            let message = format!("the policy is not UTF-8 text (line {line})");
            Err(PolicyErrors::one(&source, message, "save the file as UTF-8"))
        }
    }
}

/// What holds when nothing but the version is written.
pub(super) fn defaults() -> Parts {
    let mut report = Report::new();
    whole(&mut report, &Reader::absent(&ROOT))
}

fn whole(report: &mut Report, root: &Reader<'_>) -> Parts {
    if let Some(version) = root.get("version") {
        check_version(report, &version);
    }
    let denies_unnamed = root.bool(report, "default_deny");
    let websocket = root.section(report, "websocket");
    let dns = root.section(report, "dns");
    let ssrf = root.section(report, "ssrf");
    let loopback = root.section(report, "loopback");
    let tls = root.section(report, "tls");
    let dlp = root.section(report, "dlp");
    let response = root.section(report, "response");
    let upstream = root.section(report, "upstream");
    let ask = root.section(report, "ask");
    let metrics = root.section(report, "metrics");
    let rates = root.section(report, "rates");
    let limits = root.section(report, "limits");
    let loopback_ports = loopback_ports(report, &loopback);
    let next_hop = NextHop::read(report, &upstream);
    if let Some(hop) = &next_hop {
        hop.refuse_open(report, &upstream, &loopback_ports);
    }
    Parts {
        rules: rule::rules(report, root),
        deny: Denied::read(report, root),
        unnamed: (!denies_unnamed).then(Rule::of_unnamed),
        websocket: WebSocket {
            enabled: websocket.bool(report, "enabled"),
            frame_scan: websocket.bool(report, "frame_scan"),
            proxy_path: proxy_path(report, &websocket),
        },
        dns_mode: if root.word(report, "dns_resolution") == "real" { DnsMode::Real } else { DnsMode::Synthetic },
        dns_hosts: dns.get("hosts").map(|hosts| dns_hosts(report, &hosts)).unwrap_or_default(),
        dns_max_names: count(report, &dns, "max_names"),
        ssrf_allow: ssrf_allow(report, &ssrf),
        loopback_ports,
        listen: if root.word(report, "listen") == "any" { Listen::Any } else { Listen::Loopback },
        tls: Tls::read(report, &tls),
        dlp: Dlp::read(report, &dlp),
        response: Responses::read(report, &response),
        upstream: next_hop,
        ask: Ask::read(report, &ask),
        metrics: Metrics::read(report, &metrics),
        rates: RatesOfAll::read(report, &rates),
        limits: Limits {
            max_connections: count(report, &limits, "max_connections"),
            header_bytes: count(report, &limits, "header_bytes"),
            request_timeout_seconds: limits.number(report, "request_timeout_seconds").unwrap_or_default(),
            detect_timeout_seconds: limits.number(report, "detect_timeout_seconds").unwrap_or_default(),
            idle_timeout_seconds: limits.number(report, "idle_timeout_seconds").unwrap_or_default(),
        },
    }
}

/// The keys read by this all have a default and an upper bound far below `usize::MAX`.
fn count(report: &mut Report, reader: &Reader<'_>, name: &str) -> usize {
    reader.number(report, name).and_then(|number| usize::try_from(number).ok()).unwrap_or_default()
}

fn check_version(report: &mut Report, field: &Field<'_>) {
    let known = match &field.node.value {
        Value::Text(text) => matches!(text.as_str(), "1.0" | "1"),
        Value::Int(number) => *number == 1,
        Value::Float(number) => (*number - 1.0).abs() < f64::EPSILON,
        _ => false,
    };
    if !known {
        let message = format!("this build reads version \"1.0\" of the format, found {}", field.node.value.kind());
        field.wrong(report, message, "write version: \"1.0\"");
    }
}

fn proxy_path(report: &mut Report, websocket: &Reader<'_>) -> String {
    let default = || websocket.default_text("proxy_path").to_owned();
    let Some(field) = websocket.get("proxy_path") else { return default() };
    let Some(text) = field.text(report, "a path like \"/ws?url=\"") else { return default() };
    let sound = text.starts_with('/')
        && text.ends_with('=')
        && text.matches('?').count() == 1
        && text.len() <= 256
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !sound {
        field.wrong(
            report,
            format!("{} is not a path with an open parameter", quote(text)),
            "write it like \"/ws?url=\"",
        );
    }
    if let Some(door) = OWN_DOORS.iter().find(|door| text.split('?').next() == Some(**door)) {
        let message = format!("{door} is another door of the explicit proxy, which would be lost");
        field.wrong(report, message, "take another path, like \"/ws?url=\"");
    }
    text.to_owned()
}

fn dns_hosts(report: &mut Report, field: &Field<'_>) -> BTreeMap<String, Vec<IpAddr>> {
    let mut hosts = BTreeMap::new();
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    let Value::Map(entries) = &field.node.value else {
        let message = format!("expected host names with addresses, found {}", field.node.value.kind());
        field.wrong(report, message, "write `db.internal: 10.1.0.5` below it");
        return hosts;
    };
    for (key, value) in entries {
        let Value::Text(text) = &key.value else {
            report.push(key.pos, &field.path, format!("expected a host name, found {}", key.value.kind()), "");
            continue;
        };
        let path = join(&field.path, text);
        let name = match Host::parse(text) {
            Ok(Host::Name(name)) => name,
            Ok(Host::Addr(_)) => {
                report.push(key.pos, &path, format!("{} is an address, not a name", quote(text)), "write a host name");
                continue;
            }
            Err(error) => {
                let help =
                    if text.contains('*') { "list each name; wildcards are for egress" } else { "write a host name" };
                report.push(key.pos, &path, format!("{} is not a host name: {error}", quote(text)), help);
                continue;
            }
        };
        if let Some(line) = lines.get(&name) {
            report.push(
                key.pos,
                &path,
                format!("{name} is written twice, first in line {line}"),
                "give it a list of addresses",
            );
            continue;
        }
        lines.insert(name.clone(), key.pos.line);
        let value = Field { node: value, path };
        hosts.insert(name, addresses(report, &value));
    }
    hosts
}

/// One address or a list of them, in the order of the file.
fn addresses(report: &mut Report, field: &Field<'_>) -> Vec<IpAddr> {
    let items = match &field.node.value {
        Value::List(items) if items.is_empty() => {
            field.wrong(report, "the list of addresses is empty", "write an address or remove the name");
            return Vec::new();
        }
        Value::List(items) if items.len() > MAX_ADDRESSES => {
            field.wrong(report, format!("more than {MAX_ADDRESSES} addresses for one name"), "keep the ones in use");
            return Vec::new();
        }
        Value::List(_) => field.items(report, false),
        _ => vec![field.clone()],
    };
    let mut addresses = Vec::new();
    for item in items {
        let Some(text) = item.text(report, "an address like 10.1.0.5") else { continue };
        match text.parse::<IpAddr>().map(|addr| addr.to_canonical()) {
            Ok(addr) if addr.is_unspecified() || addr.is_multicast() => {
                item.wrong(
                    report,
                    format!("{addr} is not the address of one host"),
                    "write the address of the service",
                );
            }
            Ok(addr) if addresses.contains(&addr) => {}
            Ok(addr) => addresses.push(addr),
            Err(_) => {
                item.wrong(report, format!("{} is not an address", quote(text)), "write it like 10.1.0.5 or fd00::5")
            }
        }
    }
    addresses
}

fn ssrf_allow(report: &mut Report, ssrf: &Reader<'_>) -> Vec<IpNet> {
    let mut allowed: Vec<IpNet> = Vec::new();
    for item in ssrf.items(report, "allow") {
        let Some(text) = item.text(report, "a network like 10.1.0.0/16") else { continue };
        let net = match parse_net(text) {
            Ok(net) => net,
            Err((message, help)) => {
                item.wrong(report, message, help);
                continue;
            }
        };
        let shortest = if matches!(net, IpNet::V4(_)) { SHORTEST_V4 } else { SHORTEST_V6 };
        if net.prefix_len() < shortest {
            let message = format!("{net} is wider than any private network, so it would switch the protection off");
            item.wrong(report, message, "name the networks your services are in: 10.1.0.0/16");
            continue;
        }
        allowed.push(net);
    }
    allowed.sort_unstable();
    allowed.dedup();
    allowed
}

fn loopback_ports(report: &mut Report, loopback: &Reader<'_>) -> Vec<u16> {
    let mut ports = Vec::new();
    for item in loopback.items(report, "allow") {
        if let Value::Text(text) = &item.node.value
            && text.contains('-')
        {
            item.wrong(
                report,
                format!("{} is a range", quote(text)),
                "list loopback ports one by one: each is a door past the proxy",
            );
            continue;
        }
        ports.extend(item.port(report));
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}
