//! From destination and request to a decision, without walking the rules.
//!
//! Called by the resolver, the proxy and the command line. It promises that a decision costs the labels of the name (or
//! the different prefix lengths of the networks), not the number of rules, and that what no rule names is denied, unless the
//! policy says `default_deny: false`; then a rule of its own covers that.
//!
//! The most specific rule that names the host *and* uses the port decides alone: exact name, then the wildcard with the
//! longest domain; exact address, then the network with the longest prefix. A more specific rule therefore narrows a
//! wider one on its own ports.

use std::collections::HashMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::destination::Destination;
use super::path::{PathError, PathPattern, normalise_path, refuse_climbing, refuse_overlong};
use super::types::{Policy, Protocol, Rule, port_list};
use crate::flow::{Host, Reason, Verdict};

/// Characters of a request path that a verdict repeats.
const MAX_SHOWN: usize = 200;

/// Destinations; the numbers are positions in the list that it is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    names: HashMap<String, Vec<usize>>,
    below: HashMap<String, Vec<usize>>,
    addrs: HashMap<IpAddr, Vec<usize>>,
    /// By prefix length, longest first.
    nets: Vec<(u8, HashMap<IpNet, Vec<usize>>)>,
}

impl Index {
    pub(super) fn new<'d>(destinations: impl IntoIterator<Item = &'d Destination>) -> Self {
        let mut index = Self::default();
        for (number, destination) in destinations.into_iter().enumerate() {
            match destination {
                Destination::Name(name) => index.names.entry(name.clone()).or_default().push(number),
                Destination::Below(apex) => index.below.entry(apex.clone()).or_default().push(number),
                // Asked for when nothing else is found.
                Destination::Unnamed => {}
                Destination::Addr(addr) => index.addrs.entry(*addr).or_default().push(number),
                Destination::Net(net) => {
                    let length = net.prefix_len();
                    let at = match index.nets.iter().position(|(own, _)| *own == length) {
                        Some(at) => at,
                        None => {
                            let at = index.nets.iter().take_while(|(own, _)| *own > length).count();
                            index.nets.insert(at, (length, HashMap::new()));
                            at
                        }
                    };
                    if let Some((_, nets)) = index.nets.get_mut(at) {
                        nets.entry(*net).or_default().push(number);
                    }
                }
            }
        }
        index
    }

    /// Those that may name this host, most specific first.
    pub(super) fn candidates(&self, host: &Host) -> Vec<usize> {
        let mut found = Vec::new();
        match host {
            Host::Name(name) => {
                found.extend(self.names.get(name).into_iter().flatten());
                let mut rest = Some(name.as_str());
                while let Some(domain) = rest {
                    found.extend(self.below.get(domain).into_iter().flatten());
                    rest = domain.split_once('.').map(|(_, parent)| parent);
                }
            }
            Host::Addr(addr) => {
                let addr = addr.to_canonical();
                found.extend(self.addrs.get(&addr).into_iter().flatten());
                for (length, nets) in &self.nets {
                    if let Ok(net) = IpNet::new(addr, *length) {
                        found.extend(nets.get(&net.trunc()).into_iter().flatten());
                    }
                }
            }
        }
        found
    }
}

impl Policy {
    /// The rule for what none of the [rules](Self::rules) names; none when that is denied, as it is by default.
    #[must_use]
    pub fn unnamed(&self) -> Option<&Rule> {
        self.parts.unnamed.as_ref()
    }

    /// Every rule that may decide: the [rules](Self::rules) and the [one for what none of them names](Self::unnamed).
    pub fn all_rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules().iter().chain(self.unnamed())
    }

    /// The rules that name this host, most specific destination first.
    fn naming(&self, host: &Host) -> Vec<&Rule> {
        let candidates = self.index.candidates(host);
        let rules = candidates.into_iter().filter_map(|number| self.parts.rules.get(number));
        rules.filter(|rule| rule.destination.matches(host, rule.include_apex)).collect()
    }

    /// For DNS: true when some rule, on whatever port, names this canonical host name, and `deny` does not.
    #[must_use]
    pub fn names_allowed(&self, name: &str) -> bool {
        let host = Host::Name(name.to_owned());
        self.denied().names(&host).is_none() && !self.naming(&host).is_empty()
    }

    /// True when some rule gives a name, and bytes that could say it, on this port.
    #[must_use]
    pub fn names_on(&self, port: u16) -> bool {
        let is_name = |rule: &Rule| matches!(rule.destination, Destination::Name(_) | Destination::Below(_));
        self.rules().iter().any(|rule| {
            is_name(rule) && rule.uses_port(port) && !matches!(rule.protocol(), Protocol::Tcp | Protocol::Ssh)
        })
    }

    /// The rule below whose wildcard this name was chosen, if what goes there is read: a name says something then. None for
    /// a name that a rule spells out.
    #[must_use]
    pub fn chosen_below(&self, host: &Host) -> Option<&Rule> {
        let naming = self.naming(host);
        let is_spelled_out = naming.iter().any(|rule| matches!(rule.destination, Destination::Name(_)));
        naming.into_iter().find(|rule| rule.scan && !is_spelled_out)
    }

    /// True for a host that nobody can have chosen to say something by: an address, and a name that a rule or `deny` spells out.
    #[must_use]
    pub fn spells_out(&self, host: &Host) -> bool {
        let is_name = |destination: &Destination| matches!(destination, Destination::Name(_));
        host.name().is_none()
            || self.naming(host).iter().any(|rule| is_name(&rule.destination))
            || self.denied().names(host).is_some_and(is_name)
    }

    /// The rule that decides about this destination.
    ///
    /// # Errors
    /// [`Reason::HostDenied`] when no rule names the host or `deny` does, [`Reason::PortDenied`] when none that does uses the port,
    /// [`Reason::AddressDenied`] for the next hop.
    pub fn find(&self, host: &Host, port: u16) -> Result<&Rule, Reason> {
        if self.next_hop().is_some_and(|hop| hop.is(host, port)) {
            return Err(Reason::AddressDenied);
        }
        if self.denied().names(host).is_some() {
            return Err(Reason::HostDenied);
        }
        let naming = self.naming(host);
        if let (true, Some(unnamed)) = (naming.is_empty(), self.unnamed()) {
            return Ok(unnamed);
        }
        let nothing = if naming.is_empty() { Reason::HostDenied } else { Reason::PortDenied };
        naming.into_iter().find(|rule| rule.uses_port(port)).ok_or(nothing)
    }

    /// Decides about one HTTP request. `path` is the path as it was sent, with the query (by which git says what it wants);
    /// `method` is compared exactly, so a client that sends `get` does not get past a rule that lists `GET`.
    pub fn check_request(&self, host: &Host, port: u16, method: &str, path: &str) -> Verdict {
        let rule = match self.find(host, port) {
            Ok(rule) => rule,
            Err(reason) => return self.refuse(host, port, reason),
        };
        let label = Some(rule.label());
        if let Some(decided) = rule.check_git(method, path) {
            return decided.by(label);
        }
        if let Some(methods) = &rule.methods
            && !methods.iter().any(|own| own == method)
        {
            let detail = format!("{} is not among the methods of the rule: {}", shown(method), methods.join(", "));
            return Verdict::block(Reason::MethodDenied, detail).by(label);
        }
        if let Err(error) = refuse_overlong(path).and_then(|()| refuse_climbing(path)) {
            return Verdict::block(Reason::RequestMalformed, error.to_string()).by(label);
        }
        if let Some(paths) = &rule.paths {
            let normal = match normalise_path(path) {
                Ok(normal) => normal,
                // `OPTIONS *` is a sound request, only one that no path pattern can list.
                Err(PathError::NotAbsolute) if path == "*" => path.to_owned(),
                Err(error) => return Verdict::block(Reason::RequestMalformed, error.to_string()).by(label),
            };
            if !lists(paths, &normal) {
                let detail = format!("{} is not among the paths of the rule", shown(&normal));
                return Verdict::block(Reason::PathDenied, detail).by(label);
            }
        }
        Verdict::allow(Reason::PolicyAllow, label)
    }

    /// The verdict for a destination that [`find`](Self::find) refuses with `reason`.
    pub fn refuse(&self, host: &Host, port: u16, reason: Reason) -> Verdict {
        Verdict::block(reason, self.not_found(host, port, reason))
    }

    fn not_found(&self, host: &Host, port: u16, reason: Reason) -> String {
        if let Some(entry) = self.denied().names(host) {
            return format!("{host}: deny names it, as {entry}");
        }
        match self.naming(host).first() {
            Some(rule) if reason == Reason::PortDenied => {
                format!("{host}: port {port} is not among the ports of {}: {}", rule.label(), port_list(&rule.ports))
            }
            _ if reason == Reason::AddressDenied => {
                format!("{host}:{port} is the next hop (upstream.proxy), which pipelock alone speaks to")
            }
            _ => format!("no rule names {host}"),
        }
    }
}

impl Rule {
    /// Whether the paths of the rule list this one, as it was sent; one that can be read in two ways they do not.
    pub(super) fn lists_path(&self, path: &str) -> bool {
        match (&self.paths, normalise_path(path)) {
            (None, _) => true,
            (Some(paths), Ok(normal)) => lists(paths, &normal),
            (Some(_), Err(_)) => false,
        }
    }
}

fn lists(paths: &[PathPattern], normal: &str) -> bool {
    paths.iter().any(|pattern| pattern.matches(normal))
}

/// A method or path for a verdict: cut, and without characters that could forge a log line.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: &str = "version: \"1.0\"\ndefault_deny: false\negress: [{destination: a.example, methods: [GET]}]\n";

    #[test]
    fn what_no_rule_names_is_read_and_let_through_if_the_policy_says_so() {
        let policy = Policy::parse(OPEN, "test").expect("valid");
        let asked = |host: &str, port, method| {
            let verdict = policy.check_request(&Host::parse(host).expect(host), port, method, "/");
            format!("{} {} {}", verdict.word(), verdict.reason, verdict.rule.unwrap_or_default())
        };
        for (host, port) in [("b.example", 80), ("b.example", 8443), ("192.0.2.1", 443), ("[2001:db8::1]", 1)] {
            assert_eq!(asked(host, port, "DELETE"), "allow policy_allow default_deny: false", "{host}");
        }
        // A rule that names a host says all that may go there.
        assert_eq!(asked("a.example", 443, "GET"), "allow policy_allow egress[0] a.example");
        assert_eq!(asked("a.example", 443, "PUT"), "block method_denied egress[0] a.example");
        assert_eq!(asked("a.example", 8443, "GET"), "block port_denied ");
        let unnamed = policy.unnamed().expect("open");
        assert!(unnamed.scan() && unnamed.wants_reading() && unnamed.unfit(true).is_none());
        assert!(policy.warnings().iter().any(|warning| warning.contains("default_deny: false")), "it is said");
        let unread = "version: 1\ndefault_deny: false\nwebsocket: {enabled: true, frame_scan: false}\n";
        let warnings = Policy::parse(unread, "test").expect("valid").warnings();
        assert!(warnings.iter().any(|warning| warning.contains("frame_scan: false")), "{warnings:?}");
        // The resolver of an agent does not know of it.
        assert!(!policy.names_allowed("b.example"));
    }

    #[test]
    fn the_hash_tells_an_open_policy_from_a_closed_one() {
        let open = Policy::parse(OPEN, "test").expect("valid");
        let closed = Policy::parse(&OPEN.replace("false", "true"), "test").expect("valid");
        assert_ne!(open.id(), closed.id());
        assert!(crate::policy::tests::again(&open).unnamed().is_some());
    }
}
