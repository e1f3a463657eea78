//! Every key of the file format, once: the reader refuses what is not listed here, and the JSON Schema is made from it.
//!
//! Used by `read` (which keys, bounds and defaults) and `schema`. It promises that the two cannot diverge: a key, bound,
//! word or default exists in this table or not at all.

use super::ask::ASK;
use super::content::{DLP, RESPONSE};
use super::git::{GIT, PUSH};
use super::metrics::METRICS;
use super::rates::{OF_CONNECTION, OF_IDENTITY, OF_NAME, OF_RULE, RATES};
use super::upstream::UPSTREAM;

/// The default ports of a rule.
pub(super) const DEFAULT_PORTS: &[u16] = &[80, 443];

/// A mapping of the format: its name and its keys.
#[derive(Debug)]
pub(super) struct Section {
    /// As people would say it: `egress[]`, `limits`; empty for the file itself.
    pub(super) name: &'static str,
    pub(super) keys: &'static [Key],
}

/// One key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// Words people try instead.
    pub(super) aka: &'static [&'static str],
    pub(super) shape: Shape,
    pub(super) default: Default,
    pub(super) doc: &'static str,
}

/// What holds when the key is left out.
#[derive(Clone, Copy, Debug)]
pub(super) enum Default {
    /// It must not be left out.
    Required,
    /// Nothing: no restriction, or an empty list; the doc says which.
    Absent,
    Bool(bool),
    Number(u64),
    Text(&'static str),
    Ports(&'static [u16]),
}

/// What a value looks like.
#[derive(Debug)]
pub(super) enum Shape {
    /// The version of the format.
    Version,
    Bool,
    /// One of these words.
    Words(&'static [&'static str]),
    /// A whole number between these, both included.
    Number(u64, u64),
    /// Bytes, as a number or like "10MiB", between these, both included.
    Size(u64, u64),
    /// 1 to 65535.
    Port,
    /// A port, or "8000-8100".
    Ports,
    Destination,
    Method,
    Path,
    /// A repository of git, as a pattern of its path.
    Repository,
    /// A branch, or a name that begins with `refs/`, as a pattern.
    Ref,
    /// The fingerprint of an SSH host key.
    Fingerprint,
    Cidr,
    /// An address with a port.
    Address,
    /// The path of a file; relative to the folder of the policy.
    File,
    /// The id of a rule of the scanner, or `env:NAME`.
    Secret,
    /// A path with a query that ends in `=`.
    ProxyPath,
    /// `http://host:port` of a proxy, or another scheme that is spoken to one.
    ProxyUrl,
    /// `https://…`, or `http://…`.
    Url,
    /// The name of a variable.
    Variable,
    /// Host names, each with one address or a list of them.
    Hosts,
    Section(&'static Section),
    /// A list of these.
    List(&'static Shape),
    /// A list that denies everything when it is empty, and is therefore refused.
    FilledList(&'static Shape),
}

pub(super) const fn key(name: &'static str, shape: Shape, default: Default, doc: &'static str) -> Key {
    Key { name, aka: &[], shape, default, doc }
}

pub(super) const fn tried_as(mut key: Key, aka: &'static [&'static str]) -> Key {
    key.aka = aka;
    key
}

const NONE: Default = Default::Absent;
const KIB: u64 = 1024;
const PIB: u64 = KIB * KIB * KIB * KIB * KIB;

/// The file itself.
pub(super) static ROOT: Section = Section {
    name: "",
    keys: &[
        key("version", Shape::Version, Default::Required, "Version of the format: \"1.0\"."),
        tried_as(
            key(
                "egress",
                Shape::List(&Shape::Section(&RULE)),
                NONE,
                "Where the agent may go. Whatever no rule names is denied.",
            ),
            &["rules", "allow", "allowlist", "allowed_hosts", "hosts"],
        ),
        tried_as(
            key(
                "deny",
                Shape::List(&Shape::Destination),
                NONE,
                "What is never reached, whatever the rules say: hosts, *.host (the domain itself as well), addresses and networks, those that a name leads to included.",
            ),
            &["blocklist", "denylist", "blocked_hosts", "block"],
        ),
        key("websocket", Shape::Section(&WEBSOCKET), NONE, "WebSocket connections."),
        key(
            "default_deny",
            Shape::Bool,
            Default::Bool(true),
            "What no rule names is denied. false is for clients of the explicit proxy only: what no rule names is read and let through.",
        ),
        key(
            "dns_resolution",
            Shape::Words(&["proxy_only", "real"]),
            Default::Text("proxy_only"),
            "proxy_only: the agent gets made-up addresses and only the proxy asks real DNS, after the decision. real: allowed names are answered with their real addresses.",
        ),
        key("dns", Shape::Section(&DNS), NONE, "The built-in resolver."),
        key("ssrf", Shape::Section(&SSRF), NONE, "Protection of private networks."),
        key("loopback", Shape::Section(&LOOPBACK), NONE, "Services of the host on loopback."),
        key(
            "listen",
            Shape::Words(&["loopback", "any"]),
            Default::Text("loopback"),
            "Where the agent may accept connections: on loopback only, or on any address.",
        ),
        key("tls", Shape::Section(&TLS), NONE, "Interception of TLS, and verification of destinations."),
        tried_as(
            key(
                "dlp",
                Shape::Section(&DLP),
                NONE,
                "Secrets in what leaves: what is done about them, and which to look for.",
            ),
            &["secrets", "request_body_scanning"],
        ),
        tried_as(
            key(
                "response",
                Shape::Section(&RESPONSE),
                NONE,
                "What destinations send: what is done about what is found in it.",
            ),
            &["responses", "response_scanning"],
        ),
        tried_as(
            key(
                "upstream",
                Shape::Section(&UPSTREAM),
                NONE,
                "The next hop: a proxy of the network's through which destinations are reached.",
            ),
            &["proxy", "next_hop", "parent_proxy", "upstream_proxy", "http_proxy"],
        ),
        tried_as(
            key("ask", Shape::Section(&ASK), NONE, "Who is asked where the policy wants somebody asked."),
            &["approval", "hitl", "human_in_the_loop"],
        ),
        key("metrics", Shape::Section(&METRICS), NONE, "Where what is counted can be read, for Prometheus."),
        tried_as(
            key(
                "rates",
                Shape::Section(&RATES),
                NONE,
                "What each connection, and each who asks, may do over a time, and what may be done with each name.",
            ),
            &["rate", "rate_limit", "rate_limits"],
        ),
        tried_as(key("limits", Shape::Section(&LIMITS), NONE, "Limits of the proxy."), &["limit"]),
    ],
};

/// One rule under `egress`.
pub(super) static RULE: Section = Section {
    name: "egress[]",
    keys: &[
        tried_as(
            key(
                "destination",
                Shape::Destination,
                Default::Required,
                "A host (api.github.com), every subdomain of one (*.example.com, at any depth, never the domain itself), an address (192.0.2.7, 2001:db8::7) or a network (192.0.2.0/24). The most specific rule that uses the port decides: exact host, then the longest wildcard; address, then the longest prefix.",
            ),
            &["host", "hostname", "domain", "name", "url", "to", "dest", "address", "cidr"],
        ),
        key("include_apex", Shape::Bool, Default::Bool(false), "With a wildcard: the domain itself as well."),
        key(
            "ports",
            Shape::FilledList(&Shape::Ports),
            Default::Ports(DEFAULT_PORTS),
            "Ports and ranges (\"8000-8100\"); with protocol: ssh left out: 22.",
        ),
        tried_as(
            key(
                "methods",
                Shape::FilledList(&Shape::Method),
                NONE,
                "HTTP methods; left out: any. Needs the traffic to be read.",
            ),
            &["verbs"],
        ),
        tried_as(
            key(
                "paths",
                Shape::FilledList(&Shape::Path),
                NONE,
                "URL paths; left out: any. /a/b is that path, /a/* everything below /a/, and * between slashes any one segment (/repos/*/issues). Needs the traffic to be read.",
            ),
            &["urls", "prefixes"],
        ),
        key(
            "git",
            Shape::Section(&GIT),
            NONE,
            "What git may do there over HTTP. With it the rule lets git's own requests through as this says and, beside them, only what paths lists. Needs the traffic to be read.",
        ),
        tried_as(
            key(
                "scan",
                Shape::Bool,
                Default::Bool(true),
                "Whether what goes out and comes in is inspected. false passes it unread within the other limits of the rule.",
            ),
            &["inspect", "dlp"],
        ),
        tried_as(
            key(
                "response",
                Shape::Words(&["default", "block", "redact", "warn", "off"]),
                Default::Text("default"),
                "What is done about instructions to the agent in what this destination sends; default: what response.action says. Secrets are a matter of response_secrets.",
            ),
            &["response_action"],
        ),
        key(
            "response_secrets",
            Shape::Words(&["default", "block", "redact", "warn", "off"]),
            Default::Text("default"),
            "What is done about secrets in what this destination sends; default: what response.secrets says.",
        ),
        tried_as(
            key(
                "allow_secrets",
                Shape::List(&Shape::Secret),
                NONE,
                "Credentials that may go to this destination in headers: ids of rules of the scanner (anthropic-api-key), or env:NAME for the value of a variable.",
            ),
            &["allow_secret", "credentials"],
        ),
        tried_as(
            key(
                "protocol",
                Shape::Words(&["auto", "http", "tls", "tcp", "ssh"]),
                Default::Text("auto"),
                "auto: HTTP or TLS, told by their first bytes. http, tls: only that. tcp: any bytes, unread; needs scan: false. ssh: SSH to who shows one of host_keys, unread; needs scan: false; its port is 22 unless ports says otherwise.",
            ),
            &["proto", "scheme"],
        ),
        tried_as(
            key(
                "ask",
                Shape::Bool,
                Default::Bool(false),
                "Whether somebody is asked before each request, and before each connection that is not read, goes on.",
            ),
            &["approve", "approval", "confirm"],
        ),
        tried_as(
            key(
                "host_keys",
                Shape::FilledList(&Shape::Fingerprint),
                NONE,
                "With protocol: ssh: fingerprints of the destination's host keys, as ssh-keygen -l prints them (SHA256:…). A server that shows none of them is not spoken to.",
            ),
            &["host_key", "fingerprints", "known_hosts"],
        ),
        tried_as(
            key(
                "client_cert",
                Shape::File,
                NONE,
                "PEM file with the certificate to show to destinations of this rule that ask for one (mutual TLS), then those above it. Needs the traffic to be read. Relative to the folder of the policy.",
            ),
            &["cert", "certificate"],
        ),
        key("client_key", Shape::File, NONE, "PEM file with the private key of client_cert."),
        tried_as(key("budgets", Shape::Section(&BUDGETS), NONE, "What one connection may use up."), &["budget"]),
        tried_as(
            key(
                "rates",
                Shape::Section(&OF_RULE),
                NONE,
                "What all that the rule allows may do over a time, whoever asks.",
            ),
            &["rate", "rate_limit", "rate_limits"],
        ),
    ],
};

/// `egress[].budgets`.
pub(super) static BUDGETS: Section = Section {
    name: "egress[].budgets",
    keys: &[
        key("max_bytes_out", Shape::Size(1, PIB), NONE, "Bytes one connection may send; left out: no limit."),
        key("max_bytes_in", Shape::Size(1, PIB), NONE, "Bytes one connection may receive; left out: no limit."),
        key("max_seconds", Shape::Number(1, 31_536_000), NONE, "Seconds one connection may last; left out: no limit."),
    ],
};

/// `websocket`.
pub(super) static WEBSOCKET: Section = Section {
    name: "websocket",
    keys: &[
        key("enabled", Shape::Bool, Default::Bool(false), "Whether WebSocket upgrades are passed."),
        key("frame_scan", Shape::Bool, Default::Bool(true), "Whether messages are inspected."),
        key(
            "proxy_path",
            Shape::ProxyPath,
            Default::Text("/ws?url="),
            "Where clients of the explicit proxy ask for a WebSocket to a URL, which follows percent-encoded.",
        ),
    ],
};

/// `dns`.
pub(super) static DNS: Section = Section {
    name: "dns",
    keys: &[
        tried_as(
            key(
                "hosts",
                Shape::Hosts,
                NONE,
                "Fixed addresses of names, for private networks; they are not asked of DNS.",
            ),
            &["records"],
        ),
        key("max_names", Shape::Number(1, 1_000_000), Default::Number(4096), "Different names one run may ask for."),
    ],
};

/// `ssrf`.
pub(super) static SSRF: Section = Section {
    name: "ssrf",
    keys: &[key(
        "allow",
        Shape::List(&Shape::Cidr),
        NONE,
        "Private networks that allowed names may lead to (10.1.0.0/16).",
    )],
};

/// `loopback`.
pub(super) static LOOPBACK: Section = Section {
    name: "loopback",
    keys: &[tried_as(
        key(
            "allow",
            Shape::List(&Shape::Port),
            NONE,
            "Loopback ports of the host that the agent reaches directly, past the proxy.",
        ),
        &["ports"],
    )],
};

/// `tls`.
pub(super) static TLS: Section = Section {
    name: "tls",
    keys: &[
        tried_as(
            key(
                "ca_cert",
                Shape::File,
                NONE,
                "PEM file with the certificate of the authority to intercept with, then those above it; left out: pipelock makes one and keeps it. Relative to the folder of the policy.",
            ),
            &["ca", "cert"],
        ),
        tried_as(key("ca_key", Shape::File, NONE, "PEM file with the private key of ca_cert."), &["key"]),
        tried_as(
            key(
                "extra_roots",
                Shape::List(&Shape::File),
                NONE,
                "PEM files with certificates that destinations may be verified by, besides the system's roots. The agent is told to trust them too.",
            ),
            &["roots", "extra_ca", "trusted_roots"],
        ),
    ],
};

/// `limits`.
pub(super) static LIMITS: Section = Section {
    name: "limits",
    keys: &[
        key("max_connections", Shape::Number(1, 65_536), Default::Number(1024), "Connections at a time."),
        key(
            "header_bytes",
            Shape::Size(1024, KIB * KIB),
            Default::Number(65_536),
            "Bytes of a request or response head.",
        ),
        key(
            "request_timeout_seconds",
            Shape::Number(1, 3600),
            Default::Number(60),
            "Seconds a client may take to send a request head.",
        ),
        key(
            "detect_timeout_seconds",
            Shape::Number(1, 3600),
            Default::Number(10),
            "Seconds a client may take to say what it speaks: the first line of HTTP, or the whole hello of TLS. Never more \
             than idle_timeout_seconds.",
        ),
        key(
            "idle_timeout_seconds",
            Shape::Number(1, 86_400),
            Default::Number(600),
            "Seconds a connection may move no byte either way.",
        ),
    ],
};

/// Every section, for hints about misplaced keys and for tests.
pub(super) static ALL: [&Section; 21] = [
    &ROOT,
    &RULE,
    &ASK,
    &GIT,
    &PUSH,
    &BUDGETS,
    &WEBSOCKET,
    &DNS,
    &SSRF,
    &LOOPBACK,
    &TLS,
    &DLP,
    &RESPONSE,
    &UPSTREAM,
    &METRICS,
    &RATES,
    &OF_RULE,
    &OF_CONNECTION,
    &OF_IDENTITY,
    &OF_NAME,
    &LIMITS,
];

impl Section {
    /// The key with this name.
    pub(super) fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}
