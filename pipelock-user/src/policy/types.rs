//! The typed policy: immutable, and only ever made by the reader, so that holding one means it is valid.
//!
//! Read by every room above. It promises that fields with a meaning beyond their type cannot be set from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::content::{Dlp, FindingAction, Responses};
use super::decide::Index;
use super::destination::Destination;
use super::error::PolicyErrors;
use super::path::PathPattern;
use super::tls::{KeyPair, Tls};
use super::{id, parse};
use crate::flow::PolicyId;

/// An egress policy in force: what the agent may reach and how it is treated. Put it in an `Arc` to share it.
#[derive(Clone, Debug)]
pub struct Policy {
    id: PolicyId,
    source: String,
    file: Option<PathBuf>,
    canonical: String,
    ports: Vec<PortRange>,
    pub(super) index: Index,
    pub(super) parts: Parts,
}

/// What the file says, defaults filled in.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) rules: Vec<Rule>,
    /// For what none of them names (`default_deny: false`).
    pub(super) unnamed: Option<Rule>,
    pub(super) websocket: WebSocket,
    pub(super) dns_mode: DnsMode,
    pub(super) dns_hosts: BTreeMap<String, Vec<IpAddr>>,
    pub(super) dns_max_names: usize,
    pub(super) deny: super::deny::Denied,
    pub(super) ssrf_allow: Vec<IpNet>,
    pub(super) loopback_ports: Vec<u16>,
    pub(super) listen: Listen,
    pub(super) tls: Tls,
    pub(super) dlp: Dlp,
    pub(super) response: Responses,
    pub(super) upstream: Option<super::upstream::NextHop>,
    pub(super) ask: super::ask::Ask,
    pub(super) metrics: super::metrics::Metrics,
    pub(super) rates: super::rates::RatesOfAll,
    pub(super) limits: Limits,
}

impl Policy {
    /// Reads a policy from YAML text; `source` is how errors and logs name it (a path, as a rule).
    ///
    /// # Errors
    /// Every mistake in the text at once, with line, column and a way out.
    pub fn parse(text: &str, source: &str) -> Result<Self, PolicyErrors> {
        parse::policy(text, source)
    }

    /// Reads the policy file at `path`, at most 1 MiB of UTF-8.
    ///
    /// # Errors
    /// As [`Policy::parse`]; a file that cannot be read is a list of one mistake without a place.
    pub fn load(path: &Path) -> Result<Self, PolicyErrors> {
        parse::file(path)
    }

    /// The policy without rules: nothing leaves.
    #[must_use]
    pub fn deny_all() -> Self {
        Self::assemble("deny-all", parse::defaults())
    }

    /// The same, from this file; the path is made absolute by the working folder of now.
    pub(super) fn with_file(self, path: &Path) -> std::io::Result<Self> {
        Ok(Self { file: Some(std::path::absolute(path)?), ..self })
    }

    pub(super) fn assemble(source: &str, parts: Parts) -> Self {
        let canonical = id::canonical_json(&parts);
        Self {
            id: id::policy_id(&canonical),
            source: source.to_owned(),
            file: None,
            canonical,
            ports: merge_ports(parts.rules.iter().flat_map(|rule| rule.ports.iter().copied())),
            index: Index::new(parts.rules.iter().map(Rule::destination)),
            parts,
        }
    }

    /// SHA-256 of [`Policy::canonical_json`].
    #[must_use]
    pub fn id(&self) -> &PolicyId {
        &self.id
    }

    /// The file it was read from, as an absolute path; none when it is no file's: [`Policy::deny_all`], or a text.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// How messages name where it was read from; no path to be opened.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The policy in force as JSON: keys sorted, defaults filled in. It is a policy file with the same id.
    #[must_use]
    pub fn canonical_json(&self) -> String {
        self.canonical.clone()
    }

    /// The rules, in the order of the file.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.parts.rules
    }

    /// Every port that some rule uses: sorted, neither overlapping nor adjacent.
    #[must_use]
    pub fn ports(&self) -> &[PortRange] {
        &self.ports
    }

    /// The fixed addresses of this canonical name, if the policy gives any.
    #[must_use]
    pub fn dns_hosts(&self, name: &str) -> Option<&[IpAddr]> {
        self.parts.dns_hosts.get(name).map(Vec::as_slice)
    }

    /// How allowed names are answered.
    #[must_use]
    pub fn dns_mode(&self) -> DnsMode {
        self.parts.dns_mode
    }

    /// How many different names one run may ask for.
    #[must_use]
    pub fn dns_max_names(&self) -> usize {
        self.parts.dns_max_names
    }

    /// Private networks that allowed names may lead to.
    #[must_use]
    pub fn ssrf_allow(&self) -> &[IpNet] {
        &self.parts.ssrf_allow
    }

    /// What nothing leads to.
    #[must_use]
    pub fn denied(&self) -> &super::deny::Denied {
        &self.parts.deny
    }

    /// Loopback ports of the host that the agent reaches directly: sorted, without repeats.
    #[must_use]
    pub fn loopback_ports(&self) -> &[u16] {
        &self.parts.loopback_ports
    }

    /// Where the agent may accept connections.
    #[must_use]
    pub fn listen(&self) -> Listen {
        self.parts.listen
    }

    /// What TLS is intercepted and verified with.
    #[must_use]
    pub fn tls(&self) -> &Tls {
        &self.parts.tls
    }

    /// What is done about secrets on their way out.
    #[must_use]
    pub fn dlp(&self) -> &Dlp {
        &self.parts.dlp
    }

    /// What is done about what destinations send.
    #[must_use]
    pub fn response(&self) -> &Responses {
        &self.parts.response
    }

    /// Limits of the proxy.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.parts.limits
    }

    /// How WebSocket upgrades are treated.
    #[must_use]
    pub fn websocket(&self) -> &WebSocket {
        &self.parts.websocket
    }
}

/// One entry under `egress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub(super) index: usize,
    pub(super) destination: Destination,
    pub(super) include_apex: bool,
    pub(super) ports: Vec<PortRange>,
    pub(super) methods: Option<Vec<String>>,
    pub(super) paths: Option<Vec<PathPattern>>,
    pub(super) git: Option<super::git::Git>,
    pub(super) scan: bool,
    pub(super) response: Option<FindingAction>,
    pub(super) response_secrets: Option<FindingAction>,
    pub(super) allow_secrets: Vec<String>,
    pub(super) protocol: Protocol,
    pub(super) host_keys: Vec<String>,
    pub(super) client: Option<KeyPair>,
    pub(super) asks: bool,
    pub(super) budgets: Budgets,
    pub(super) rates: Option<super::rates::Rates>,
}

impl Rule {
    /// The rule as the policy spells it: `egress[0] api.github.com`.
    #[must_use]
    pub fn label(&self) -> String {
        if self.destination == Destination::Unnamed {
            return self.destination.to_string();
        }
        format!("egress[{}] {}", self.index, self.destination)
    }

    /// What it names.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// With a wildcard: whether the domain itself is named too.
    #[must_use]
    pub fn include_apex(&self) -> bool {
        self.include_apex
    }

    /// The ports it uses: sorted, neither overlapping nor adjacent, never none.
    #[must_use]
    pub fn ports(&self) -> &[PortRange] {
        &self.ports
    }

    /// True when it uses this port.
    #[must_use]
    pub fn uses_port(&self, port: u16) -> bool {
        let from = self.ports.partition_point(|range| range.last < port);
        self.ports.get(from).is_some_and(|range| range.contains(port))
    }

    /// The HTTP methods it lists, in upper case and sorted; none means any.
    #[must_use]
    pub fn methods(&self) -> Option<&[String]> {
        self.methods.as_deref()
    }

    /// The paths it lists; none means any.
    #[must_use]
    pub fn paths(&self) -> Option<&[PathPattern]> {
        self.paths.as_deref()
    }

    /// Whether the content is to be inspected.
    #[must_use]
    pub fn scan(&self) -> bool {
        self.scan
    }

    /// What is done about instructions in what the destination sends, when it is not what the policy says for all.
    #[must_use]
    pub fn response(&self) -> Option<FindingAction> {
        self.response
    }

    /// What is done about secrets in what the destination sends, when it is not what the policy says for all.
    #[must_use]
    pub fn response_secrets(&self) -> Option<FindingAction> {
        self.response_secrets
    }

    /// Rules of the scanner whose findings may go to the destination in headers, and `env:NAME` for variables.
    #[must_use]
    pub fn allow_secrets(&self) -> &[String] {
        &self.allow_secrets
    }

    /// What may be spoken.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// What one connection may use up.
    #[must_use]
    pub fn budgets(&self) -> Budgets {
        self.budgets
    }

    /// Why HTTP in the clear, or inside TLS, is not what the rule allows; none when it may be.
    #[must_use]
    pub fn unfit(&self, is_tls: bool) -> Option<&'static str> {
        match self.protocol() {
            Protocol::Tls if !is_tls => Some("the rule allows TLS only"),
            Protocol::Http if is_tls => Some("the rule allows HTTP in the clear only"),
            Protocol::Ssh => Some("the rule allows SSH only"),
            _ => None,
        }
    }

    /// True when the traffic has to be read to keep the rule: it is scanned, or methods, paths or what git may do are listed.
    #[must_use]
    pub fn wants_reading(&self) -> bool {
        self.scan || self.methods.is_some() || self.paths.is_some() || self.git.is_some()
    }
}

/// What may be spoken on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP or TLS, told by the first bytes.
    #[default]
    Auto,
    /// HTTP/1 in the clear only.
    Http,
    /// TLS only.
    Tls,
    /// Any bytes, unread.
    Tcp,
    /// SSH to who shows a pinned host key; what is inside is unread.
    Ssh,
}

/// Ranges that a message lists.
const MAX_SHOWN: usize = 16;

/// What one connection may use up; none means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    /// Bytes the agent may send.
    pub max_bytes_out: Option<u64>,
    /// Bytes the agent may receive.
    pub max_bytes_in: Option<u64>,
    /// Seconds it may last.
    pub max_seconds: Option<u64>,
}

/// Ports `first` to `last`, both included, 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range, if `first` is not 0 and not beyond `last`.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// The first port.
    #[must_use]
    pub fn first(self) -> u16 {
        self.first
    }

    /// The last port, included.
    #[must_use]
    pub fn last(self) -> u16 {
        self.last
    }

    /// True when the port is in the range.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

/// The ports two lists share; both sorted and merged.
pub(super) fn shared_ports(mut left: &[PortRange], mut right: &[PortRange]) -> Vec<PortRange> {
    let mut shared = Vec::new();
    while let ([l, left_rest @ ..], [r, right_rest @ ..]) = (left, right) {
        shared.extend(PortRange::new(l.first.max(r.first), l.last.min(r.last)));
        if l.last < r.last { left = left_rest } else { right = right_rest }
    }
    shared
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// `80, 443, 8000-8100`, cut after some ranges.
pub(super) fn port_list(ports: &[PortRange]) -> String {
    let shown = ports.iter().take(MAX_SHOWN).map(PortRange::to_string).collect::<Vec<_>>().join(", ");
    if ports.len() > MAX_SHOWN { format!("{shown}, …") } else { shown }
}

/// Sorted, with overlapping and adjacent ranges joined.
pub(super) fn merge_ports(ports: impl IntoIterator<Item = PortRange>) -> Vec<PortRange> {
    let mut sorted: Vec<PortRange> = ports.into_iter().collect();
    sorted.sort_unstable();
    let mut merged: Vec<PortRange> = Vec::new();
    for range in sorted {
        match merged.last_mut() {
            Some(last) if range.first <= last.last.saturating_add(1) => last.last = last.last.max(range.last),
            _ => merged.push(range),
        }
    }
    merged
}

/// How names that the policy allows are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsMode {
    /// With made-up addresses; real DNS is asked by the proxy alone, after the decision (`proxy_only`).
    #[default]
    Synthetic,
    /// With their real addresses (`real`).
    Real,
}

/// Where the agent may accept connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listen {
    /// On loopback.
    #[default]
    Loopback,
    /// On any address.
    Any,
}

/// How WebSocket upgrades are treated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebSocket {
    /// Whether upgrades are passed.
    pub enabled: bool,
    /// Whether messages are to be inspected.
    pub frame_scan: bool,
    /// Path and query prefix under which explicit clients find the proxy: `/ws?url=`.
    pub proxy_path: String,
}

/// Limits of the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub max_connections: usize,
    /// Bytes of a request or response head.
    pub header_bytes: usize,
    /// Seconds a client may take to send a request head.
    pub request_timeout_seconds: u64,
    /// Seconds a client may take to say what it speaks.
    pub detect_timeout_seconds: u64,
    /// Seconds a connection may move no byte either way.
    pub idle_timeout_seconds: u64,
}

impl Limits {
    /// How long a client may take to send a request head.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds.max(1))
    }

    /// How long a client may take to say what it speaks: never longer than any silence.
    #[must_use]
    pub fn detect(&self) -> Duration {
        Duration::from_secs(self.detect_timeout_seconds.max(1)).min(self.idle())
    }

    /// How long a connection may move no byte either way.
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_are_joined_up_to_the_last_port() {
        let range = |first, last| PortRange::new(first, last).expect("range");
        let merged =
            merge_ports([range(443, 443), range(80, 80), range(81, 90), range(65_000, 65_535), range(65_535, 65_535)]);
        assert_eq!(port_list(&merged), "80-90, 443, 65000-65535");
        assert_eq!(port_list(&shared_ports(&merged, &[range(1, 79), range(85, 500)])), "85-90, 443");
        assert_eq!(shared_ports(&merged, &[range(91, 442), range(444, 64_999)]), []);
        assert_eq!(PortRange::new(0, 1), None);
        assert_eq!(PortRange::new(2, 1), None);
    }
}
