//! `upstream`: the next hop, a proxy of the network's through which destinations are reached.
//!
//! Read by `parse`; asked by `decide`, `net` and the command line. It promises that the policy holds no credentials, only where they
//! are kept, and that the next hop itself is no destination. The files are not opened here: a policy is checked on machines that do
//! not have them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::destination::{Destination, List};
use super::error::{Report, quote};
use super::keys::{Default, Section, Shape, key, tried_as};
use super::read::{Field, Reader};
use super::tls::path;
use super::types::Policy;
use crate::flow::Host;

/// Entries under `no_proxy`.
const MAX_SPARED: usize = 1024;
/// Longest name of a variable.
const MAX_VARIABLE: usize = 128;

/// `upstream`.
pub(super) static UPSTREAM: Section = Section {
    name: "upstream",
    keys: &[
        tried_as(
            key(
                "proxy",
                Shape::ProxyUrl,
                Default::Absent,
                "The next hop: http://HOST:PORT and https://HOST:PORT (asked with CONNECT), or socks5://HOST:PORT; left out: destinations are dialled from here. It may be in any network; the agent never reaches it.",
            ),
            &["url", "server", "next_hop", "address", "http_proxy", "https_proxy", "all_proxy"],
        ),
        tried_as(
            key(
                "resolve",
                Shape::Words(&["local", "proxy"]),
                Default::Text("local"),
                "local: names are resolved and their addresses checked here, and the next hop is asked for the address. proxy: the next hop is asked for the name, and nobody here checks where it leads.",
            ),
            &["dns", "resolution", "remote_dns"],
        ),
        tried_as(
            key(
                "credentials_file",
                Shape::File,
                Default::Absent,
                "File with USER:PASSWORD for the next hop, on one line. Relative to the folder of the policy.",
            ),
            &["credentials", "password_file", "auth_file", "auth", "token_file"],
        ),
        tried_as(
            key(
                "credentials_env",
                Shape::Variable,
                Default::Absent,
                "Variable with USER:PASSWORD for the next hop, instead of a file. The agent does not get it.",
            ),
            &["password_env", "auth_env", "env"],
        ),
        tried_as(
            key(
                "no_proxy",
                Shape::List(&Shape::Destination),
                Default::Absent,
                "Destinations that are dialled from here: a host, *.host, an address or a network, each with or without a :PORT. Networks hold for names too, where they are resolved here and all their addresses are in one.",
            ),
            &["bypass", "direct", "except", "noproxy"],
        ),
    ],
};

/// How the next hop is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HopProtocol {
    /// CONNECT of HTTP/1.1 in the clear (RFC 9110 §9.3.6).
    Http,
    /// The same inside TLS.
    Https,
    /// SOCKS 5 (RFC 1928).
    Socks5,
}

impl HopProtocol {
    const ALL: [Self; 3] = [Self::Http, Self::Https, Self::Socks5];

    fn scheme(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        }
    }
}

/// Where `USER:PASSWORD` for the next hop is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialsIn {
    /// In this file.
    File(PathBuf),
    /// In this variable.
    Variable(String),
}

/// An entry of `no_proxy`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Spared {
    destination: Destination,
    /// None for every port.
    port: Option<u16>,
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let destination = self.destination.to_string();
        match self.port {
            None => f.write_str(&destination),
            Some(port) if destination.contains(':') => write!(f, "[{destination}]:{port}"),
            Some(port) => write!(f, "{destination}:{port}"),
        }
    }
}

/// The next hop of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// How it is spoken to.
    pub protocol: HopProtocol,
    /// Where it is.
    pub host: Host,
    /// Its port.
    pub port: u16,
    /// Whether it resolves the names of destinations.
    pub resolves: bool,
    /// Where what it is told of who asks is kept; none when it asks nobody.
    pub credentials: Option<CredentialsIn>,
    no_proxy: Vec<Spared>,
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.protocol.scheme(), self.host, self.port)
    }
}

impl NextHop {
    /// True for the next hop itself.
    #[must_use]
    pub fn is(&self, host: &Host, port: u16) -> bool {
        self.host == *host && self.port == port
    }

    /// True for a destination that is dialled from here: by its name, or by all the addresses that were found for it.
    #[must_use]
    pub fn spares(&self, host: &Host, port: u16, addrs: &[IpAddr]) -> bool {
        let mut entries = self.no_proxy.iter().filter(|entry| entry.port.is_none_or(|own| own == port));
        entries.any(|Spared { destination, .. }| {
            let holds = |addr: &IpAddr| destination.matches(&Host::from(*addr), false);
            destination.matches(host, false) || !addrs.is_empty() && addrs.iter().all(holds)
        })
    }

    pub(super) fn read(report: &mut Report, upstream: &Reader<'_>) -> Option<Self> {
        let proxy = upstream.get("proxy");
        let place = proxy.as_ref().and_then(|field| place(report, field));
        let resolves = upstream.word(report, "resolve") == "proxy";
        let fields = (upstream.get("credentials_file"), upstream.get("credentials_env"));
        if let (Some(_), Some(other)) = &fields {
            other.wrong(report, "credentials_file names the credentials already", "keep one of the two");
        }
        let file = fields.0.and_then(|field| path(report, &field, "a file with USER:PASSWORD"));
        let variable = fields.1.and_then(|field| variable(report, &field));
        let credentials = file.map(CredentialsIn::File).or_else(|| variable.map(CredentialsIn::Variable));
        let no_proxy = spared(report, upstream);
        if proxy.is_none()
            && let Some(alone) = ["resolve", "credentials_file", "credentials_env", "no_proxy"]
                .iter()
                .find_map(|name| upstream.get(name))
        {
            alone.wrong(report, "there is no next hop that this could be about", "write upstream.proxy, or remove it");
        }
        let (protocol, host, port) = place?;
        Some(Self { protocol, host, port, resolves, credentials, no_proxy })
    }

    /// Its canonical form.
    pub(super) fn canonical(&self) -> Value {
        let mut value = Map::new();
        value.insert("proxy".into(), json!(self.to_string()));
        if self.resolves {
            value.insert("resolve".into(), json!("proxy"));
        }
        match &self.credentials {
            Some(CredentialsIn::File(file)) => drop(value.insert("credentials_file".into(), json!(file))),
            Some(CredentialsIn::Variable(name)) => drop(value.insert("credentials_env".into(), json!(name))),
            None => {}
        }
        if !self.no_proxy.is_empty() {
            let spared: Vec<String> = self.no_proxy.iter().map(ToString::to_string).collect();
            value.insert("no_proxy".into(), json!(spared));
        }
        value.into()
    }

    /// Refuses a policy that opens the way to the next hop past the proxy.
    pub(super) fn refuse_open(&self, report: &mut Report, upstream: &Reader<'_>, loopback_ports: &[u16]) {
        let is_loopback = match &self.host {
            Host::Addr(addr) => addr.is_loopback(),
            Host::Name(name) => Host::is_localhost(name),
        };
        if let Some(field) = upstream.get("proxy").filter(|_| is_loopback && loopback_ports.contains(&self.port)) {
            let message =
                format!("loopback.allow opens port {}, so the agent would reach the next hop itself", self.port);
            field.wrong(report, message, "take the port out of loopback.allow");
        }
    }
}

impl Policy {
    /// The next hop, if destinations are reached through one.
    #[must_use]
    pub fn next_hop(&self) -> Option<&NextHop> {
        self.parts.upstream.as_ref()
    }
}

/// `http://proxy.example:3128` in parts.
fn place(report: &mut Report, field: &Field<'_>) -> Option<(HopProtocol, Host, u16)> {
    const HELP: &str = "write it like \"http://proxy.example.com:3128\", \"https://…\" or \"socks5://…\"";
    let text = field.text(report, "the URL of a proxy")?;
    // Whatever is wrong with it, what may be a password is not repeated.
    if text.contains('@') {
        let help = "write USER:PASSWORD into a file (credentials_file) or a variable (credentials_env)";
        field.wrong(report, "the URL holds credentials, which do not belong into a policy", help);
        return None;
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        field.wrong(report, format!("{} is not the URL of a proxy", quote(text)), HELP);
        return None;
    };
    let Some(protocol) = HopProtocol::ALL.into_iter().find(|protocol| protocol.scheme() == scheme) else {
        let help = match scheme {
            "socks5h" => "write socks5://, and resolve: proxy",
            "socks" | "socks4" | "socks4a" => "SOCKS 5 is spoken: write socks5://",
            _ => HELP,
        };
        field.wrong(report, format!("{} is not spoken to next hops", quote(scheme)), help);
        return None;
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let Some((host, port)) = split(authority) else {
        field.wrong(report, format!("{} names no port", quote(text)), HELP);
        return None;
    };
    match (Host::parse(host), port) {
        (Ok(host), Some(port)) => Some((protocol, host, port)),
        (Err(error), _) => {
            field.wrong(report, format!("{} is not a host: {error}", quote(host)), HELP);
            None
        }
        (_, None) => {
            field.wrong(report, format!("{} ends with no port from 1 to 65535", quote(text)), HELP);
            None
        }
    }
}

/// Host and what stands behind its colon: a port from 1 to 65535, or something else. None without a colon.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = text.rsplit_once(':')?;
    if host.contains(':') && !host.ends_with(']') {
        return None;
    }
    let is_number = !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    Some((host, if is_number { port.parse().ok().filter(|port| *port > 0) } else { None }))
}

pub(super) fn variable(report: &mut Report, field: &Field<'_>) -> Option<String> {
    let text = field.text(report, "the name of a variable")?;
    let is_sound = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    if !is_sound || text.len() > MAX_VARIABLE {
        // It may be what should stand in the variable.
        field.wrong(report, "this is not the name of a variable", "write its name, like PROXY_LOGIN");
        return None;
    }
    Some(text.to_owned())
}

fn spared(report: &mut Report, upstream: &Reader<'_>) -> Vec<Spared> {
    let items = upstream.items(report, "no_proxy");
    if let Some(item) = items.get(MAX_SPARED) {
        item.wrong(report, format!("more than {MAX_SPARED} destinations"), "name domains and networks");
    }
    let mut entries: Vec<Spared> = Vec::new();
    for item in items.iter().take(MAX_SPARED) {
        let Some(text) = item.text(report, "a host, wildcard, address or network") else { continue };
        let (destination, port) = match split(text) {
            Some((host, port @ Some(_))) => (host, port),
            _ => (text, None),
        };
        let inner = destination.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let inner = inner.filter(|inner| inner.contains(':')).unwrap_or(destination);
        match Destination::parse_in(List::Spares, inner) {
            Ok(destination) => entries.push(Spared { destination, port }),
            Err((message, help)) => item.wrong(report, message, help),
        }
    }
    entries.sort_by_cached_key(ToString::to_string);
    entries.dedup();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Reason;
    use crate::policy::tests::{again, assert_refused, read};

    #[test]
    fn next_hops_are_read_and_written_again() {
        for (sound, shown) in [
            ("{proxy: \"http://proxy.example:3128\"}", "http://proxy.example:3128"),
            ("{proxy: \"https://Proxy.Example.:8443/\", resolve: proxy}", "https://proxy.example:8443"),
            ("{proxy: \"socks5://[2001:db8::1]:1080\", credentials_file: p}", "socks5://[2001:db8::1]:1080"),
            (
                "{proxy: \"socks5://10.0.0.1:1080\", credentials_env: LOGIN, no_proxy: [a.test, \"*.b.test:8443\", \"10.0.0.0/8\", \"[2001:db8::7]:443\", \"[2001:db8::/32]:443\", \"2001:db8::/32\", 192.0.2.1]}",
                "socks5://10.0.0.1:1080",
            ),
        ] {
            let policy = read(&format!("upstream: {sound}"));
            assert_eq!(again(&policy).next_hop(), policy.next_hop(), "{sound}");
            assert_eq!(policy.next_hop().expect("one").to_string(), shown);
        }
        let plain = read("");
        assert_eq!(plain.id(), read("upstream: {}").id());
        assert_eq!(plain.next_hop(), None);
        let spares = |list: &str| read(&format!("upstream: {{proxy: \"http://p.test:1\", no_proxy: [{list}]}}"));
        assert_eq!(spares("a.test, \"b.test:8443\"").id(), spares("\"b.test:8443\", A.test, a.test.").id());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert_refused(&[
            ("upstream: {proxy: proxy.example}", "not the URL of a proxy"),
            ("upstream: {proxy: \"http://proxy.example\"}", "names no port"),
            ("upstream: {proxy: \"http://proxy.example:0\"}", "no port from 1 to 65535"),
            ("upstream: {proxy: \"http://proxy.example:x\"}", "no port from 1 to 65535"),
            ("upstream: {proxy: \"http://proxy.example:80/path\"}", "no port from 1 to 65535"),
            ("upstream: {proxy: \"http://::1:80\"}", "names no port"),
            ("upstream: {proxy: \"ftp://proxy.example:21\"}", "not spoken to next hops"),
            ("upstream: {proxy: \"socks5h://proxy.example:1080\"}", "resolve: proxy"),
            ("upstream: {resolve: proxy}", "no next hop"),
            ("upstream: {no_proxy: [a.test]}", "no next hop"),
            ("upstream: {proxy: \"http://p.test:1\", credentials_file: a, credentials_env: B}", "keep one"),
            ("upstream: {proxy: \"http://p.test:1\", credentials_env: \"a b\"}", "not the name of a variable"),
            ("upstream: {proxy: \"http://p.test:1\", no_proxy: [\"*\"]}", "every destination"),
            ("upstream: {proxy: \"http://p.test:1\", no_proxy: [.b.test]}", "*.b.test"),
            ("upstream: {proxy: \"http://p.test:1\", user: x}", "unknown key"),
            ("upstream: {http_proxy: \"http://p.test:1\"}", "did you mean \"proxy\""),
            ("upstream: {proxy: \"http://127.0.0.1:1\"}\nloopback: {allow: [1]}", "loopback.allow opens port 1"),
            ("upstream: {proxy: \"http://localhost:1\"}\nloopback: {allow: [1]}", "loopback.allow opens port 1"),
            ("upstream: {proxy: \"http://p.test:1\", no_proxy: [\"a.test:99999\"]}", "no port from 1 to 65535"),
        ]);
        let url = "version: 1\nupstream: {proxy: \"http://user:hunter2@p.test:1\"}\n";
        let error = Policy::parse(url, "test").expect_err("credentials").to_string();
        assert!(error.contains("credentials_file") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_is_spared_is_dialled_from_here() {
        let policy = read(
            "upstream: {proxy: \"http://p.test:1\", no_proxy: [a.test, \"*.b.test:8443\", \"10.0.0.0/8\", 192.0.2.1]}",
        );
        let hop = policy.next_hop().expect("one");
        let spares = |host: &str, port, addrs: &[&str]| {
            let addrs: Vec<IpAddr> = addrs.iter().map(|addr| addr.parse().expect("an address")).collect();
            hop.spares(&Host::parse(host).expect(host), port, &addrs)
        };
        assert!(spares("a.test", 1, &[]) && !spares("x.a.test", 1, &[]));
        assert!(spares("x.b.test", 8443, &[]) && !spares("x.b.test", 443, &[]) && !spares("b.test", 8443, &[]));
        assert!(spares("10.1.2.3", 80, &[]) && spares("192.0.2.1", 80, &[]) && !spares("192.0.2.2", 80, &[]));
        assert!(spares("c.test", 80, &["10.1.2.3", "10.0.0.1"]));
        assert!(!spares("c.test", 80, &["10.1.2.3", "11.0.0.1"]) && !spares("c.test", 80, &[]));
    }

    #[test]
    fn the_next_hop_is_no_destination() {
        let policy =
            read("egress: [{destination: \"*.test\", ports: [1, 80]}]\nupstream: {proxy: \"http://p.test:1\"}");
        let asked = |port| policy.check_request(&Host::parse("p.test").expect("a name"), port, "GET", "/");
        assert_eq!(asked(1).reason, Reason::AddressDenied);
        assert!(asked(1).detail.contains("next hop"), "{:?}", asked(1));
        assert!(!asked(80).is_block());
    }
}
