//! What this build cannot enforce of a policy, said before it is in force.
//!
//! Called at start and by `pipelock check`. It promises that nothing a policy asks for is silently left undone: it is
//! either enforced, or denied, and named here when it is denied or weaker than it reads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::content::FindingAction;
use super::destination::Destination;
use super::types::{DnsMode, Policy, Rule};
use crate::flow::Host;

/// Rules a warning names before it only counts them.
const MAX_NAMED: usize = 8;
/// Top-level domains that are private, so that a wildcard over one is no wildcard over the Internet.
const PRIVATE_TOPS: [&str; 8] = ["internal", "local", "localhost", "lan", "home", "corp", "test", "intranet"];
/// Where clouds hand out the credentials of a machine.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

impl Policy {
    /// What a person should know before this policy is in force: one sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut say = |rules: Vec<String>, text: &str| {
            if !rules.is_empty() {
                warnings.push(format!("{}: {text}", named(&rules)));
            }
        };
        let labels = |wanted: &dyn Fn(&Rule) -> bool| -> Vec<String> {
            self.rules().iter().filter(|rule| wanted(rule)).map(Rule::label).collect()
        };
        say(
            labels(
                &|rule| matches!(&rule.destination, Destination::Below(apex) if !apex.contains('.') && !PRIVATE_TOPS.contains(&apex.as_str())),
            ),
            "the wildcard covers a whole top-level domain, where anyone can register a name",
        );
        say(
            labels(&|rule| rule.ports.iter().all(|range| range.first() == 53 && range.last() == 53)),
            "port 53 always leads to the built-in resolver, so the rule is never used",
        );
        let stops = |action| matches!(action, Some(FindingAction::Block | FindingAction::Redact | FindingAction::Ask));
        let passes_secrets = !stops(Some(self.response().secrets));
        say(
            labels(&|rule| stops(rule.response()) && rule.response_secrets().is_none() && passes_secrets),
            "response is about instructions only; secrets in answers pass (response_secrets, response.secrets)",
        );
        if self.unnamed().is_some() {
            warnings.push("default_deny: false: what no rule names is read and let through, not denied".to_owned());
        }
        if self.websocket().enabled && !self.websocket().frame_scan && self.all_rules().any(Rule::scan) {
            warnings
                .push("websocket.frame_scan: false passes WebSocket messages unread, whatever scan says".to_owned());
        }
        let metadata: Vec<String> =
            self.ssrf_allow().iter().filter(|net| net.contains(&METADATA)).map(ToString::to_string).collect();
        if !metadata.is_empty() {
            let nets = metadata.join(", ");
            warnings.push(format!(
                "ssrf.allow: {nets} holds {METADATA}, where clouds hand out the credentials of a machine"
            ));
        }
        let hop = self.next_hop();
        if let Some(hop) = hop.filter(|hop| hop.resolves) {
            warnings.push(format!(
                "upstream.resolve: proxy: where names lead is the next hop's business ({hop}); of its answers no address is checked"
            ));
            if self.dns_mode() == DnsMode::Real {
                warnings.push(
                    "dns_resolution: real: the names that the agent asks DNS for are looked up here, whatever upstream.resolve says"
                        .to_owned(),
                );
            }
        }
        let here = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let denied_here = here.iter().find_map(|addr| self.denied().names(&Host::Addr(*addr)));
        if let Some(entry) = denied_here.filter(|_| !self.loopback_ports().is_empty()) {
            warnings.push(format!(
                "loopback.allow: the agent reaches these ports past the proxy, and so past deny ({entry})"
            ));
        }
        let is_hop = |name: &str| hop.is_some_and(|hop| hop.host.name() == Some(name));
        let webhook = self.ask().webhook.as_ref();
        let is_webhook = |name: &str| webhook.is_some_and(|webhook| webhook.host.name() == Some(name));
        let is_denied = |name: &str| self.denied().names(&Host::Name(name.to_owned())).is_some();
        let is_open = |name: &str| self.unnamed().is_some() && !is_denied(name);
        let is_used = |name: &str| self.names_allowed(name) || is_open(name) || is_hop(name) || is_webhook(name);
        let unused = self.parts.dns_hosts.keys().filter(|name| !is_used(name)).cloned();
        let (denied, unnamed): (Vec<_>, Vec<_>) = unused.partition(|name| is_denied(name));
        for (names, why) in [(unnamed, "no rule names it"), (denied, "deny names it")] {
            if !names.is_empty() {
                warnings.push(format!("dns.hosts: {}: {why}, so it is never answered", named(&names)));
            }
        }
        warnings
    }
}

fn named(labels: &[String]) -> String {
    let shown = labels.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    match labels.len().checked_sub(MAX_NAMED) {
        Some(more) if more > 0 => format!("{shown} and {more} more"),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::tests::read;

    #[test]
    fn what_does_not_go_together_is_said() {
        let hop = "upstream: {proxy: \"http://p.test:1\", resolve: proxy}";
        for (more, said) in [
            ("dns: {hosts: {a.test: 10.0.0.1}}", &["dns.hosts: a.test: no rule names it"][..]),
            (
                "egress: [{destination: \"*.test\"}]\ndeny: [b.test]\ndns: {hosts: {a.test: 10.0.0.1, b.test: 10.0.0.2}}",
                &["dns.hosts: b.test: deny names it"],
            ),
            (
                "default_deny: false\ndeny: [b.test]\ndns: {hosts: {a.test: 10.0.0.1, b.test: 10.0.0.2}}",
                &["default_deny: false", "dns.hosts: b.test: deny names it"],
            ),
            (hop, &["upstream.resolve: proxy: where"]),
            (&format!("{hop}\ndns_resolution: real"), &["upstream.resolve: proxy: where", "dns_resolution: real: the"]),
            ("dns_resolution: real", &[]),
            ("deny: [\"127.0.0.0/8\"]\nloopback: {allow: [80]}", &["past deny (127.0.0.0/8)"]),
            ("deny: [\"::1\"]\nloopback: {allow: [80]}", &["past deny (::1)"]),
            ("deny: [\"127.0.0.0/8\"]", &[]),
            ("deny: [10.0.0.1]\nloopback: {allow: [80]}", &[]),
        ] {
            let warnings = read(more).warnings();
            assert_eq!(warnings.len(), said.len(), "{more}: {warnings:?}");
            assert!(warnings.iter().zip(said).all(|(warning, said)| warning.contains(said)), "{more}: {warnings:?}");
        }
    }
}
