//! What a rule names: a host, the subdomains of one, an address, a network.
//!
//! Made by `parse`, matched by `decide`. It promises that a wildcard never matches its apex unless told to, that all
//! spellings of one destination are one value, and that whatever is not plainly one of the four is refused.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::error::quote;
use crate::flow::{Host, HostError};

/// The destination of a rule, in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// Exactly this DNS name.
    Name(String),
    /// Every name below this one, at any depth, but not the name itself: `*.example.com` holds `example.com`.
    Below(String),
    /// Exactly this address, when it is asked for as an address.
    Addr(IpAddr),
    /// Every address of this network, when it is asked for as an address.
    Net(IpNet),
    /// Whatever no rule names: of the rule that `default_deny: false` stands for, and of no other.
    Unnamed,
}

/// What the list does with the destinations in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// A rule of `egress`, with ports and paths under keys of their own.
    Allows,
    /// `deny`, whatever the port and the path.
    Denies,
    /// `no_proxy`; a port has been taken off.
    Spares,
}

impl List {
    fn verb(self) -> &'static str {
        match self {
            Self::Allows => "allow",
            Self::Denies => "deny",
            Self::Spares => "spare",
        }
    }

    /// What to do instead of naming everything.
    fn instead(self, of: &str) -> String {
        match self {
            Self::Allows => format!("name the {of} you need"),
            Self::Denies => format!("name the {of} that rules allow, or take out the rules"),
            Self::Spares => format!("name the {of} that are near, or take out upstream"),
        }
    }
}

/// What is wrong with a text and what to write instead.
pub(super) type Wrong = (String, String);

impl Destination {
    /// True when the rule names this host; the apex of a wildcard counts only if `include_apex`.
    #[must_use]
    pub fn matches(&self, host: &Host, include_apex: bool) -> bool {
        match (self, host) {
            (Self::Name(own), Host::Name(name)) => own == name,
            (Self::Below(apex), Host::Name(name)) => match name.strip_suffix(apex.as_str()) {
                Some("") => include_apex,
                Some(rest) => rest.len() > 1 && rest.ends_with('.'),
                None => false,
            },
            (Self::Addr(own), Host::Addr(addr)) => *own == addr.to_canonical(),
            (Self::Net(net), Host::Addr(addr)) => net.contains(&addr.to_canonical()),
            (Self::Unnamed, _) => true,
            _ => false,
        }
    }

    /// Reads the destination of a rule as the policy spells it.
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        Self::parse_in(List::Allows, text)
    }

    /// Reads a destination of this list.
    pub(super) fn parse_in(list: List, text: &str) -> Result<Self, Wrong> {
        if text.trim() != text || text.is_empty() {
            return wrong(format!("{} is not a destination", quote(text)), "write a host, without spaces around it");
        }
        if let Some(problem) = url_or_port(list, text) {
            return Err(problem);
        }
        if text.contains('*') || text.starts_with('.') {
            return wildcard(list, text);
        }
        if text.contains('/') {
            return network(list, text);
        }
        match Host::parse(text) {
            Ok(Host::Name(name)) => Ok(Self::Name(name)),
            Ok(Host::Addr(addr)) => address(list, addr),
            Err(error) => wrong(format!("{} is not a host: {error}", quote(text)), help_for(error)),
        }
    }
}

fn wrong<T>(message: String, help: impl Into<String>) -> Result<T, Wrong> {
    Err((message, help.into()))
}

fn help_for(error: HostError) -> &'static str {
    match error {
        HostError::NumericButNotAddress => "write all four numbers of the address: 192.0.2.7",
        HostError::Empty | HostError::TooLong | HostError::Malformed => {
            "write a host (api.example.com), a wildcard (*.example.com), an address or a network (192.0.2.0/24)"
        }
    }
}

/// The two things people paste: a URL, and a host with its port.
fn url_or_port(list: List, text: &str) -> Option<Wrong> {
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default();
        let host = split_port(host).map_or(host, |(host, _)| host);
        let help = match list {
            List::Allows => format!("write {}, and put ports and paths under their own keys", quote(host)),
            List::Denies | List::Spares => format!("write {}", quote(host)),
        };
        return Some((format!("{} is a URL; a destination is only the host", quote(text)), help));
    }
    let (host, port) = split_port(text)?;
    Some(match list {
        List::Allows => (
            format!("{} holds a port; a destination is only the host", quote(text)),
            format!("write {} and add ports: [{port}]", quote(host)),
        ),
        List::Denies => (
            format!("{} holds a port; what is denied is denied on every one", quote(text)),
            format!("write {}, or leave the port out of the rules that use it", quote(host)),
        ),
        List::Spares => (
            format!("{} ends with no port from 1 to 65535", quote(text)),
            format!("write {}, with a port behind it or without", quote(host)),
        ),
    })
}

/// `host:443` and `[::1]:443`, but not a bare IPv6 address.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare_v6 = host.contains(':') && !host.ends_with(']');
    (!bare_v6 && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())).then_some((host, port))
}

fn wildcard(list: List, text: &str) -> Result<Destination, Wrong> {
    if matches!(text, "*" | "**" | "*.*" | "*/*") {
        return wrong(
            format!("{} would {} every destination", quote(text), list.verb()),
            format!("{}; *.example.com covers the subdomains of one domain", list.instead("hosts")),
        );
    }
    let rest = match text.strip_prefix("*.") {
        Some(rest) if !rest.contains('*') => rest,
        _ => {
            let core = text.trim_start_matches(['*', '.']);
            let help = match Host::parse(core) {
                Ok(Host::Name(name)) => format!("write \"*.{name}\" for every subdomain of {name}, at any depth"),
                _ => "a wildcard is `*.` and a domain: *.example.com covers every subdomain, at any depth".to_owned(),
            };
            return wrong(format!("{} has a wildcard in a place where none is read", quote(text)), help);
        }
    };
    match Host::parse(rest) {
        Ok(Host::Name(name)) => Ok(Destination::Below(name)),
        Ok(Host::Addr(_)) => {
            wrong(format!("{} is a wildcard over an address", quote(text)), "write a network: 192.0.2.0/24")
        }
        Err(error) => wrong(format!("{} is not a wildcard over a domain: {error}", quote(text)), help_for(error)),
    }
}

fn network(list: List, text: &str) -> Result<Destination, Wrong> {
    let (left, right) = text.split_once('/').unwrap_or((text, ""));
    if left.parse::<IpAddr>().is_err() {
        let help = match (Host::parse(left), list) {
            (Err(_), _) => "a network is an address and a length: 192.0.2.0/24".to_owned(),
            (Ok(_), List::Allows) => {
                format!("write {} and add paths: [{}]", quote(left), quote(&format!("/{right}")))
            }
            (Ok(_), List::Denies | List::Spares) => format!("write {}, whatever the path", quote(left)),
        };
        return wrong(format!("{} is neither a host nor a network", quote(text)), help);
    }
    let net = parse_net(text)?;
    // Who denies all addresses of a family leaves the other, and names.
    if net.prefix_len() == 0 && list != List::Denies {
        return wrong(format!("{} would {} every address", quote(text), list.verb()), list.instead("networks"));
    }
    if net.prefix_len() == net.max_prefix_len() {
        return address(list, net.addr());
    }
    Ok(Destination::Net(net))
}

fn address(list: List, addr: IpAddr) -> Result<Destination, Wrong> {
    let addr = addr.to_canonical();
    let broadcast = matches!(addr, IpAddr::V4(v4) if v4.is_broadcast());
    if addr.is_unspecified() || addr.is_multicast() || broadcast {
        return wrong(
            format!("{addr} is never reached: unspecified, multicast and broadcast addresses are always denied"),
            if list == List::Denies { "leave it out" } else { "name the address of the service" },
        );
    }
    Ok(Destination::Addr(addr))
}

/// Reads `address/length`; a bare address is a network of one.
pub(super) fn parse_net(text: &str) -> Result<IpNet, Wrong> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(addr.to_canonical()));
    }
    let Ok(net) = text.parse::<IpNet>() else {
        return wrong(
            format!("{} is not a network", quote(text)),
            "a network is an address and a length: 10.1.0.0/16, fd00:1::/32",
        );
    };
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        let help = match v6.prefix_len().checked_sub(96) {
            Some(length) => format!("write {v4}/{length}"),
            None => "write the IPv4 network".to_owned(),
        };
        return wrong(format!("{net} is an IPv4 network in IPv6 clothes, which is never matched"), help);
    }
    if net.trunc() != net {
        return wrong(
            format!("{net} has bits set beyond its length"),
            format!(
                "write {} for the network, or {}/{} for the address",
                net.trunc(),
                net.addr(),
                net.max_prefix_len()
            ),
        );
    }
    Ok(net)
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Below(apex) => write!(f, "*.{apex}"),
            Self::Addr(addr) => write!(f, "{addr}"),
            Self::Net(net) => write!(f, "{net}"),
            Self::Unnamed => f.write_str("default_deny: false"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_four_kinds_are_read() {
        for (text, shown) in [
            ("API.github.com.", "api.github.com"),
            ("*.Example.com", "*.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("[::1]", "::1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            assert_eq!(Destination::parse(text).expect(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_of_the_list() {
        for (list, text, message, help) in [
            (List::Denies, "*", "would deny every destination", "take out the rules"),
            (List::Denies, "a.test:8443", "denied on every one", "write \"a.test\""),
            (List::Denies, "a.test/v1", "neither a host nor a network", "whatever the path"),
            (List::Denies, "https://a.test:1/v1", "is a URL", "write \"a.test\""),
            (List::Spares, "*", "would spare every destination", "take out upstream"),
            (List::Spares, "0.0.0.0/0", "would spare every address", "take out upstream"),
            (List::Spares, "a.test:99999", "ends with no port from 1 to 65535", "write \"a.test\""),
            (List::Spares, "[2001:db8::1]:0", "ends with no port", "write \"[2001:db8::1]\""),
        ] {
            let (found, hint) = Destination::parse_in(list, text).expect_err(text);
            assert!(found.contains(message) && hint.contains(help), "{text}: {found}: {hint}");
            assert!(!hint.contains("ports:") && !hint.contains("paths:") && !found.contains("allow"), "{text}: {hint}");
        }
        for all in ["0.0.0.0/0", "::/0"] {
            assert_eq!(Destination::parse_in(List::Denies, all).expect(all).to_string(), all);
        }
    }

    #[test]
    fn everything_else_is_refused_with_a_way_out() {
        for (text, message, help) in [
            ("*", "every destination", "*.example.com"),
            ("api.*.com", "wildcard in a place", "*."),
            ("*example.com", "wildcard in a place", "*.example.com"),
            ("**.example.com", "wildcard in a place", "*.example.com"),
            (".example.com", "wildcard in a place", "*.example.com"),
            ("https://u@api.example.com:8443/v1?x#y", "is a URL", "\"api.example.com\""),
            ("api.example.com:8443", "holds a port", "ports: [8443]"),
            ("[2001:db8::1]:443", "holds a port", "[2001:db8::1]"),
            ("example.com/v1", "neither a host nor a network", "paths: [\"/v1\"]"),
            ("10.0.0.5/8", "bits set", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "IPv4 network", "10.0.0.0/8"),
            ("0.0.0.0/0", "every address", ""),
            ("127.1", "plain IPv4", "all four numbers"),
            ("224.0.0.1", "never reached", ""),
            ("*.10.0.0.1", "wildcard over an address", "192.0.2.0/24"),
            ("a b", "is not a host", ""),
            ("", "is not a destination", ""),
        ] {
            let (found, hint) = Destination::parse(text).expect_err(text);
            assert!(found.contains(message), "{text}: {found}");
            assert!(hint.contains(help), "{text}: {hint}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_is_stable(text in "\\PC{0,40}") {
            if let Ok(destination) = Destination::parse(&text) {
                prop_assert_eq!(Destination::parse(&destination.to_string()), Ok(destination));
            }
        }

        #[test]
        fn a_wildcard_never_matches_its_apex_or_a_neighbour(apex in "[a-z]{1,8}\\.[a-z]{2,5}", label in "[a-z0-9]{1,8}") {
            let wildcard = Destination::parse(&format!("*.{apex}")).expect("wildcard");
            let host = |text: String| Host::parse(&text).expect("host");
            prop_assert!(!wildcard.matches(&host(apex.clone()), false));
            prop_assert!(wildcard.matches(&host(apex.clone()), true));
            let (below, deeper) = (format!("{label}.{apex}"), format!("{label}.{label}.{apex}"));
            prop_assert!(wildcard.matches(&host(below), false));
            prop_assert!(wildcard.matches(&host(deeper), false));
            let neighbour = format!("x{label}{apex}");
            prop_assert!(!wildcard.matches(&host(neighbour), true));
        }
    }
}
