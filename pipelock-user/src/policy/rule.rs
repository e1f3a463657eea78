//! Reads the rules under `egress`, and refuses those that repeat or contradict each other.
//!
//! Called by `parse`. It promises that no two rules of one policy name the same destination on the same port, so that
//! the rule that decides is never a matter of order.

use std::collections::HashMap;

use super::content::{allow_secrets, own_response};
use super::destination::Destination;
use super::error::{Report, quote};
use super::git::Git;
use super::keys::{DEFAULT_PORTS, RULE};
use super::path::PathPattern;
use super::rates::Rates;
use super::raw::Value;
use super::read::{Field, Reader};
use super::ssh::{self, SSH_PORT};
use super::tls::pair;
use super::types::{Budgets, PortRange, Protocol, Rule, merge_ports, port_list, shared_ports};

/// Longest method that is accepted; the longest in use have 17 letters.
const MAX_METHOD: usize = 32;

/// Rules for one destination, which a decision walks to find the one that uses the port.
const MAX_PER_DESTINATION: usize = 64;

/// Destinations seen so far, with the ports, number and line of their rules.
type Seen = HashMap<Destination, Vec<(Vec<PortRange>, usize, usize)>>;

pub(super) fn rules(report: &mut Report, root: &Reader<'_>) -> Vec<Rule> {
    let mut seen = Seen::new();
    let items = root.items(report, "egress");
    items.iter().enumerate().filter_map(|(index, item)| rule(report, item, index, &mut seen)).collect()
}

impl Rule {
    /// The rule that `default_deny: false` stands for: anything, and all of it read.
    pub(super) fn of_unnamed() -> Self {
        Self {
            index: 0,
            destination: Destination::Unnamed,
            include_apex: false,
            ports: PortRange::new(1, u16::MAX).into_iter().collect(),
            methods: None,
            paths: None,
            git: None,
            scan: true,
            response: None,
            response_secrets: None,
            allow_secrets: Vec::new(),
            protocol: Protocol::Auto,
            host_keys: Vec::new(),
            client: None,
            asks: false,
            budgets: Budgets::default(),
            rates: None,
        }
    }
}

fn rule(report: &mut Report, field: &Field<'_>, index: usize, seen: &mut Seen) -> Option<Rule> {
    if let Value::Text(host) = &field.node.value {
        field.wrong(report, "expected a rule, found only a text", format!("write `- destination: {}`", quote(host)));
        return None;
    }
    let reader = Reader::open(report, field, &RULE)?;
    let destination = reader.get("destination").and_then(|field| destination(report, &field));
    let include_apex = reader.bool(report, "include_apex");
    let methods = reader.get("methods").map(|_| methods(report, &reader));
    let paths = reader.get("paths").map(|_| paths(report, &reader));
    let git = Git::read(report, &reader);
    let scan = reader.bool(report, "scan");
    let response = own_response(report, &reader, "response");
    let response_secrets = own_response(report, &reader, "response_secrets");
    let allow_secrets = allow_secrets(report, &reader);
    let protocol = match reader.word(report, "protocol") {
        "http" => Protocol::Http,
        "tls" => Protocol::Tls,
        "tcp" => Protocol::Tcp,
        "ssh" => Protocol::Ssh,
        _ => Protocol::Auto,
    };
    let host_keys = ssh::host_keys(report, &reader);
    let ports = match (reader.get("ports"), protocol) {
        (None, Protocol::Ssh) => PortRange::new(SSH_PORT, SSH_PORT).into_iter().collect(),
        _ => ports(report, &reader),
    };
    let limits = reader.section(report, "budgets");
    let budgets = Budgets {
        max_bytes_out: limits.number(report, "max_bytes_out"),
        max_bytes_in: limits.number(report, "max_bytes_in"),
        max_seconds: limits.number(report, "max_seconds"),
    };
    let rates = Rates::read(report, &reader, "rates");
    let asks = reader.bool(report, "ask");
    let client = pair(report, &reader, "client_cert", "client_key");
    let destination = destination?;
    if let Some(field) = reader.get("include_apex")
        && !matches!(destination, Destination::Below(_))
    {
        let help = "remove it, or write the destination as a wildcard: *.example.com";
        field.wrong(report, format!("include_apex says nothing about {destination}, which is no wildcard"), help);
    }
    let rule = Rule {
        index,
        destination,
        include_apex,
        ports,
        methods,
        paths,
        git,
        scan,
        response,
        response_secrets,
        allow_secrets,
        protocol,
        host_keys,
        client,
        asks,
        budgets,
        rates,
    };
    contradictions(report, field, &reader, &rule);
    repeats(report, field, &rule, seen);
    Some(rule)
}

fn destination(report: &mut Report, field: &Field<'_>) -> Option<Destination> {
    let text = field.text(report, "a host, wildcard, address or network")?;
    match Destination::parse(text) {
        Ok(destination) => Some(destination),
        Err((message, help)) => {
            field.wrong(report, message, help);
            None
        }
    }
}

/// Opaque bytes cannot be read, so whatever wants them read contradicts it. `scan` has to be written: that nothing is
/// inspected should be seen in the policy.
fn contradictions(report: &mut Report, field: &Field<'_>, reader: &Reader<'_>, rule: &Rule) {
    if let Some(at) = reader.get("client_cert").filter(|_| !rule.wants_reading() || rule.protocol == Protocol::Http) {
        let message = "nothing shows client_cert: TLS of this rule is not intercepted";
        at.wrong(report, message, "write scan: true and protocol: tls, or remove client_cert");
    }
    for name in ["response", "response_secrets", "allow_secrets"] {
        if let Some(at) = reader.get(name).filter(|_| !rule.scan) {
            at.wrong(
                report,
                format!("{name} says nothing where nothing is scanned"),
                format!("remove {name}, or scan: false"),
            );
        }
    }
    if let Some(at) = reader.get("methods").filter(|_| rule.git.is_some() && rule.paths.is_none()) {
        let message = "methods is about what paths lists, and git's own requests go by git alone";
        at.wrong(report, message, "add paths, or remove methods");
    }
    ssh::contradictions(report, (field, reader), rule);
    let protocol = match rule.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Ssh => "ssh",
        Protocol::Auto | Protocol::Http | Protocol::Tls => return,
    };
    if rule.scan {
        let at = reader.get("scan").unwrap_or_else(|| reader.get("protocol").unwrap_or_else(|| field.clone()));
        let message = format!("protocol: {protocol} passes bytes unread, so nothing can be scanned");
        at.wrong(report, message, "write scan: false");
    }
    let listed = [("methods", rule.methods.is_some()), ("paths", rule.paths.is_some()), ("git", rule.git.is_some())];
    for (name, listed) in listed {
        if let Some(at) = reader.get(name).filter(|_| listed) {
            let message = format!("protocol: {protocol} passes bytes unread, so {name} cannot be checked");
            at.wrong(report, message, format!("remove {name}, or use protocol: auto"));
        }
    }
}

fn repeats(report: &mut Report, field: &Field<'_>, rule: &Rule, seen: &mut Seen) {
    let earlier = seen.entry(rule.destination.clone()).or_default();
    if earlier.len() >= MAX_PER_DESTINATION {
        let message = format!("more than {MAX_PER_DESTINATION} rules for {}", rule.destination);
        field.wrong(report, message, "join rules that differ only in their ports");
        return;
    }
    for (ports, index, line) in earlier.iter() {
        let shared = shared_ports(ports, &rule.ports);
        if shared.is_empty() {
            continue;
        }
        let many = shared.iter().any(|range| range.first() != range.last()) || shared.len() > 1;
        let message = format!(
            "{} is already the destination of egress[{index}] (line {line}) for port{} {}",
            rule.destination,
            if many { "s" } else { "" },
            port_list(&shared)
        );
        field.wrong(report, message, "join the two rules, or give them different ports");
        break;
    }
    earlier.push((rule.ports.clone(), rule.index, field.pos().line));
}

fn ports(report: &mut Report, reader: &Reader<'_>) -> Vec<PortRange> {
    let written: Vec<PortRange> =
        reader.items(report, "ports").iter().filter_map(|item| port_range(report, item)).collect();
    if written.is_empty() {
        // Either left out, or wrong and reported.
        return DEFAULT_PORTS.iter().filter_map(|port| PortRange::new(*port, *port)).collect();
    }
    merge_ports(written)
}

fn port_range(report: &mut Report, item: &Field<'_>) -> Option<PortRange> {
    let Value::Text(text) = &item.node.value else {
        return item.port(report).and_then(|port| PortRange::new(port, port));
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |digits: &str| {
        let plain = digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit());
        if plain { digits.parse::<u16>().ok() } else { None }
    };
    let range = number(first).zip(number(last)).and_then(|(first, last)| PortRange::new(first, last));
    if range.is_none() {
        let help = match number(first).zip(number(last)) {
            Some((first, last)) if first > last && last > 0 => format!("write \"{last}-{first}\""),
            _ => "ports are 1 to 65535; a range is written \"8000-8100\"".to_owned(),
        };
        item.wrong(report, format!("{} is neither a port nor a range of ports", quote(text)), help);
    }
    range
}

/// Upper-cased, sorted, without repeats.
fn methods(report: &mut Report, reader: &Reader<'_>) -> Vec<String> {
    let mut methods = Vec::new();
    for item in reader.items(report, "methods") {
        let Some(text) = item.text(report, "an HTTP method like \"GET\"") else { continue };
        // RFC 9110 §5.6.2.
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if matches!(text, "*" | "any" | "ANY" | "all" | "ALL") {
            item.wrong(report, format!("{} is not a method", quote(text)), "leave methods out to allow any");
        } else if text.is_empty() || text.len() > MAX_METHOD || !text.bytes().all(token) {
            item.wrong(
                report,
                format!("{} is not an HTTP method", quote(text)),
                "list one method an item: [\"GET\", \"POST\"]",
            );
        } else {
            methods.push(text.to_ascii_uppercase());
        }
    }
    methods.sort_unstable();
    methods.dedup();
    methods
}

/// Sorted, without repeats: their order says nothing.
fn paths(report: &mut Report, reader: &Reader<'_>) -> Vec<PathPattern> {
    let mut paths: Vec<PathPattern> = Vec::new();
    for item in reader.items(report, "paths") {
        let Some(text) = item.text(report, "a path like \"/repos/*\"") else { continue };
        match PathPattern::parse(text) {
            Ok(path) => paths.push(path),
            Err((message, help)) => item.wrong(report, message, help),
        }
    }
    paths.sort_by(|left, right| left.as_str().cmp(right.as_str()));
    paths.dedup();
    paths
}
