//! `pipelock check`: is the policy valid, and what would it say?

use std::path::PathBuf;

use http::uri::PathAndQuery;
use http::{Method, Uri};
use serde_json::json;

use super::{Failure, keys, output};
use crate::app::{UrlReader, wrong_files};
use crate::flow::{Found, Host, Reason, Verdict};
use crate::net::check_known;
use crate::policy::{Policy, Rates, Rule, normalise_path};
use crate::proxy::refused_head;

/// Check a policy, and what it says about a URL.
///
/// Prints the policy's hash and what this build cannot enforce of it, and tries the files that it names. With --url prints ALLOWED or
/// BLOCKED with the rule and the reason, and exits with 1 when it is blocked; the URL is read for secrets as the proxy reads it, those of
/// this environment among them (sudo leaves most of it out). Nothing is resolved and nothing is sent: of addresses only those are
/// decided about that are in the URL, or in the policy (dns.hosts).
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The policy file.
    #[arg(long, short, value_name = "FILE")]
    policy: PathBuf,
    /// A URL to decide: http, https, ws or wss, with or without a port.
    #[arg(long)]
    url: Option<String>,
    /// The method of the request.
    #[arg(long, default_value = "GET", requires = "url")]
    method: String,
    /// Leave the files unread that the policy names: they are on another machine. A URL is then read without the secrets in them.
    #[arg(long)]
    no_files: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn check(args: &Args) -> Result<u8, Failure> {
    let policy = Policy::load(&args.policy).map_err(Failure::usage)?;
    let wrong = if args.no_files { Vec::new() } else { wrong_files(&policy) };
    if !wrong.is_empty() {
        return Err(Failure::usage(format!("{}: {}", args.policy.display(), wrong.join("\n"))));
    }
    let Some(url) = &args.url else {
        if args.json {
            let value = json!({
                "policy_hash": policy.id().to_string(),
                "rules": policy.rules().len(),
                "next_hop": policy.next_hop().map(ToString::to_string),
                "warnings": policy.warnings(),
            });
            output::line(&value.to_string());
        } else {
            output::line(&format!("{}: valid, {} rules", args.policy.display(), policy.rules().len()));
            output::line(&format!("policy hash {}", policy.id()));
            if let Some(hop) = policy.next_hop() {
                output::line(&format!("next hop {hop}"));
            }
            keys::warn(&policy);
        }
        return Ok(0);
    };
    let mut reader = None;
    let Said { verdict, asks, hop, rates } = decide(&policy, url, &args.method, |rule, method, asked| {
        reader = UrlReader::of(&policy, !args.no_files)?;
        reader.as_ref().map_or(Ok(Vec::new()), |reader| reader.read(&policy, rule, method, asked))
    })?;
    // What no rule names was not read, and is not repeated with a secret in it either.
    if reader.is_none() {
        reader = UrlReader::of(&policy, !args.no_files).ok().flatten();
    }
    let spare = |text: &String| reader.as_ref().map_or_else(|| text.clone(), |reader| reader.spare(text.clone()));
    let (url, detail) = (&spare(url), &spare(&verdict.detail));
    let git =
        policy.rules().iter().find(|rule| verdict.rule.as_ref() == Some(&rule.label())).and_then(|rule| rule.git());
    let word = if verdict.is_block() { "BLOCKED" } else { "ALLOWED" };
    if args.json {
        let value = json!({
            "url": url,
            "method": args.method,
            "verdict": verdict.word(),
            "reason": verdict.reason.code(),
            "rule": verdict.rule,
            "git": git.map(ToString::to_string),
            "ask": asks,
            "next_hop": hop,
            "rates": rates.iter().map(|(whose, rates)| json!({"of": whose, "rate": rates.to_string()})).collect::<Vec<_>>(),
            "detail": detail,
            "findings": verdict.findings,
            "what_to_do": verdict.is_block().then(|| verdict.reason.hint()),
            "policy_hash": policy.id().to_string(),
        });
        output::line(&value.to_string());
    } else {
        output::line(&format!("{word} {} {url}", args.method));
        output::line(&format!("reason: {}", verdict.reason));
        if let Some(rule) = &verdict.rule {
            output::line(&format!("rule: {rule}"));
        }
        if let Some(git) = git {
            output::line(&format!("git: {git}"));
        }
        if let Some(asked) = asks {
            let seconds = policy.ask().timeout.as_secs();
            output::line(&format!("ask: the {asked} is asked first, and no answer within {seconds} seconds is no"));
        }
        if let Some(hop) = &hop {
            output::line(&format!("next hop: {hop}"));
        }
        for (whose, rates) in &rates {
            output::line(&format!("rate: {rates} ({whose})"));
        }
        if !detail.is_empty() {
            output::line(&format!("detail: {detail}"));
        }
        for found in &verdict.findings {
            output::line(&format!("found: {} ({})", found.line(), found.action));
        }
        if verdict.is_block() {
            output::line(&format!("what to do: {}", verdict.reason.hint()));
        }
    }
    Ok(u8::from(verdict.is_block()))
}

/// What is said of a request.
struct Said {
    /// What the proxy would say, once it has it.
    verdict: Verdict,
    /// Who is asked before it goes on, in the word of receipts.
    asks: Option<&'static str>,
    /// The next hop that it would go through, as far as its name tells.
    hop: Option<String>,
    /// The rates that it would count for.
    rates: Vec<(&'static str, Rates)>,
}

impl From<Verdict> for Said {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, asks: None, hop: None, rates: Vec::new() }
    }
}

/// Decides about a URL; `read` says what is found in it, and in the login before its host, where a rule wants it read.
fn decide(
    policy: &Policy,
    url: &str,
    method: &str,
    read: impl FnOnce(&Rule, &Method, (&str, Option<&str>)) -> Result<Vec<Found>, Verdict>,
) -> Result<Said, Failure> {
    let Ok(word) = Method::from_bytes(method.as_bytes()) else {
        return Err(Failure::usage(format!("{method:?} cannot be the method of a request")));
    };
    if let Some(refused) = too_long(policy, url, method) {
        return Ok(refused.into());
    }
    let uri: Uri = url.parse().map_err(|error| Failure::usage(format!("{url}: {error}")))?;
    let scheme = uri.scheme_str().unwrap_or_default();
    // A WebSocket begins as a request of HTTP (RFC 6455 §3).
    let is_tls = match scheme {
        "http" | "ws" => false,
        "https" | "wss" => true,
        _ => return Err(Failure::usage(format!("{url}: begin it with http://, https://, ws:// or wss://"))),
    };
    let host =
        Host::parse(uri.host().unwrap_or_default()).map_err(|error| Failure::usage(format!("{url}: {error}")))?;
    let has_port = uri.authority().is_some_and(|authority| authority.as_str().len() > uri.host().map_or(0, str::len));
    if has_port
        && !uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
        && uri.port_u16().is_none()
    {
        return Err(Failure::usage(format!("{url}: the port is not a number from 0 to 65535")));
    }
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    if normalise_path(uri.path()).is_err() {
        return Ok(Verdict::block(Reason::RequestMalformed, "the path cannot be read unambiguously").into());
    }
    let verdict =
        policy.check_request(&host, port, method, uri.path_and_query().map_or(uri.path(), PathAndQuery::as_str));
    let rule = match policy.find(&host, port) {
        Ok(rule) if !verdict.is_block() => rule,
        _ => return Ok(verdict.into()),
    };
    if let Some(unfit) = rule.unfit(is_tls) {
        return Ok(Verdict::block(Reason::ProtocolUnknown, unfit).by(verdict.rule).into());
    }
    let login = uri.authority().and_then(|authority| authority.as_str().rsplit_once('@')).map(|(login, _)| login);
    let found = match rule.scan() {
        true => read(rule, &word, (&as_read(&uri, is_tls, &host, port), login)),
        false => Ok(Vec::new()),
    };
    let mut verdict = match found {
        Ok(found) => verdict.with(found),
        Err(denied) => return Ok(denied.by(verdict.rule).into()),
    };
    let known = match check_known(&host, port, policy) {
        Ok(known) => known,
        Err(error) => return Ok(Verdict::block(error.reason(), error.to_string()).by(verdict.rule).into()),
    };
    let is_here = match &host {
        Host::Addr(addr) => addr.to_canonical().is_loopback(),
        // RFC 6761, §6.3.
        Host::Name(name) => name.rsplit('.').next() == Some("localhost"),
    };
    if is_here && !policy.loopback_ports().contains(&port) {
        // What the kernel does before the proxy is asked.
        verdict.detail =
            "pipelock run and attach refuse sockets to loopback (loopback_denied) unless loopback.allow names the \
                          port: only what comes to an explicit proxy is passed on"
                .into();
    }
    let hop = policy.next_hop().filter(|hop| !hop.spares(&host, port, &known));
    let asked = if policy.ask().webhook.is_some() { "webhook" } else { "terminal" };
    let all = policy.rates();
    let rates =
        [("rule", rule.rates()), ("name", all.name), ("connection", all.connection), ("identity", all.identity)];
    let rates = rates.into_iter().filter_map(|(whose, rates)| Some((whose, rates?))).collect();
    Ok(Said { verdict, asks: rule.asks().then_some(asked), hop: hop.map(ToString::to_string), rates })
}

/// The URL as the scanner is given it.
fn as_read(uri: &Uri, is_tls: bool, host: &Host, port: u16) -> String {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    match (is_tls, port) {
        (false, 80) => format!("http://{host}{path}"),
        (true, 443) => format!("https://{host}{path}"),
        (is_tls, port) => format!("http{}://{host}:{port}{path}", if is_tls { "s" } else { "" }),
    }
}

/// What the proxy says of a head that is too long for the URL alone, which nothing here could read either.
fn too_long(policy: &Policy, url: &str, method: &str) -> Option<Verdict> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let head = format!("{method} {target} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
    refused_head(head.as_bytes(), policy.limits().header_bytes)
        .filter(|refused| refused.reason == Reason::LimitExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "version: \"1.0\"\negress:\n  - destination: a.example\n    methods: [GET]\n    scan: false\n  - destination: b.example\n    scan: false\n  - {destination: d.example, protocol: http}\n";

    fn unread(_: &Rule, _: &Method, _: (&str, Option<&str>)) -> Result<Vec<Found>, Verdict> {
        Ok(Vec::new())
    }

    fn verdict(url: &str, method: &str) -> (bool, Reason) {
        let policy = Policy::parse(POLICY, "test").expect("valid");
        let verdict = decide(&policy, url, method, unread).expect("a URL").verdict;
        (verdict.is_block(), verdict.reason)
    }

    #[test]
    fn check_says_what_the_proxy_does() {
        assert_eq!(verdict("http://a.example/", "GET"), (false, Reason::PolicyAllow));
        assert_eq!(verdict("http://a.example/", "delete"), (true, Reason::MethodDenied));
        assert_eq!(verdict("https://a.example/", "GET"), (false, Reason::PolicyAllow));
        assert_eq!(verdict("https://a.example/", "PUT"), (true, Reason::MethodDenied));
        assert_eq!(verdict("https://d.example/", "GET"), (true, Reason::ProtocolUnknown));
        assert_eq!(verdict("https://b.example/", "GET"), (false, Reason::PolicyAllow));
        assert_eq!(verdict("http://c.example/", "GET"), (true, Reason::HostDenied));
        assert_eq!(verdict("http://a.example:81/", "GET"), (true, Reason::PortDenied));
        let policy = Policy::parse(POLICY, "test").expect("valid");
        assert!(decide(&policy, "ftp://a.example/", "GET", unread).is_err());
        // A WebSocket begins as any request.
        assert_eq!(verdict("wss://b.example/", "GET"), (false, Reason::PolicyAllow));
        assert_eq!(verdict("ws://b.example/", "GET"), (false, Reason::PolicyAllow));
        assert_eq!(verdict("wss://b.example:80/", "GET"), (false, Reason::PolicyAllow));
        assert_eq!(verdict("wss://d.example/", "GET"), (true, Reason::ProtocolUnknown));
    }

    #[test]
    fn check_says_what_git_may_do() {
        let text = "version: 1\negress: [{destination: a.example, git: {fetch: ['*'], push: [{repository: x/y, refs: [main]}]}}]\n";
        let policy = Policy::parse(text, "test").expect("valid");
        let asks = |path: &str| {
            decide(&policy, &format!("https://a.example/{path}"), "GET", unread).expect("a URL").verdict.reason
        };
        assert_eq!(asks("x/y.git/info/refs?service=git-receive-pack"), Reason::PolicyAllow);
        assert_eq!(asks("x/z.git/info/refs?service=git-receive-pack"), Reason::GitDenied);
        assert_eq!(asks("x/z.git/info/refs?service=git-upload-pack"), Reason::PolicyAllow);
        assert_eq!(asks("x/z.git/info/refs"), Reason::PathDenied);
    }

    #[test]
    fn check_says_which_rates_a_request_counts_for() {
        let text = format!("{POLICY}rates: {{identity: {{requests: 5, per: hour}}}}\n")
            .replace("destination: b.example\n", "destination: b.example\n    rates: {bytes_in: 9}\n");
        let policy = Policy::parse(&text, "test").expect("valid");
        let rates = |url: &str| {
            let rates = decide(&policy, url, "GET", unread).expect("a URL").rates;
            rates.iter().map(|(of, rates)| format!("{of} {rates}")).collect::<Vec<_>>()
        };
        assert_eq!(rates("http://b.example/"), ["rule 9 bytes in per minute", "identity 5 requests per hour"]);
        assert_eq!(rates("http://a.example/"), ["identity 5 requests per hour"]);
        assert!(rates("http://c.example/").is_empty());
    }

    #[test]
    fn check_says_what_a_request_goes_through() {
        let text = format!(
            "{POLICY}dns: {{hosts: {{b.example: 10.0.0.1}}}}\nssrf: {{allow: [10.0.0.0/8]}}\nupstream: {{proxy: \"http://c.example:3128\", no_proxy: [10.0.0.0/8]}}\n"
        );
        let policy = Policy::parse(&text, "test").expect("valid");
        let hop = |url: &str| decide(&policy, url, "GET", unread).expect("a URL").hop;
        assert_eq!(hop("http://a.example/").as_deref(), Some("http://c.example:3128"));
        assert_eq!(hop("http://b.example/"), None, "its address is spared");
        let said = decide(&policy, "http://c.example:3128/", "GET", unread).expect("a URL");
        assert_eq!((said.verdict.reason, said.hop), (Reason::AddressDenied, None));
    }

    #[test]
    fn check_says_what_becomes_of_addresses_however_they_are_wrapped() {
        let asks = |more: &str, url: &str| {
            let rules = "egress: [{destination: a.test}, {destination: 10.0.0.1}, {destination: \"64:ff9b::/96\"}, {destination: \"2002::/16\"}, {destination: localhost}]";
            let policy = Policy::parse(&format!("version: 1\n{rules}\n{more}\n"), "test").expect(more);
            let Said { verdict, .. } = decide(&policy, url, "GET", unread).expect(url);
            (verdict.reason, verdict.detail)
        };
        for (more, url, reason, said) in [
            ("deny: [198.18.0.0/15]", "http://[64:ff9b::198.18.0.1]/", Reason::AddressDenied, "198.18.0.0/15"),
            ("deny: [1.1.1.1]", "http://[2002:101:101::1]/", Reason::AddressDenied, "as 1.1.1.1"),
            ("deny: [1.1.1.2]", "http://[2002:101:101::1]/", Reason::SsrfDenied, "transition"),
            (
                "dns: {hosts: {a.test: 1.1.1.1}}\ndeny: [1.1.1.0/24]",
                "http://a.test/",
                Reason::AddressDenied,
                "1.1.1.0/24",
            ),
            (
                "dns: {hosts: {a.test: \"64:ff9b::1.1.1.1\"}}\ndeny: [1.1.1.0/24]",
                "http://a.test/",
                Reason::AddressDenied,
                "1.1.1.0/24",
            ),
            ("dns: {hosts: {a.test: 10.0.0.1}}", "http://a.test/", Reason::SsrfDenied, "ssrf.allow"),
            (
                "dns: {hosts: {a.test: 10.0.0.1}}\nssrf: {allow: [10.0.0.0/8]}",
                "http://a.test/",
                Reason::PolicyAllow,
                "",
            ),
            ("", "http://10.0.0.1/", Reason::SsrfDenied, "ssrf.allow"),
            ("", "http://[64:ff9b::10.0.0.1]/", Reason::SsrfDenied, "ssrf.allow"),
            ("", "http://localhost/", Reason::SsrfDenied, "127.0.0.1"),
            ("", "http://a.test/", Reason::PolicyAllow, ""),
            (
                "dns: {hosts: {a.test: 1.1.1.1, p.test: 1.1.1.1}}\nupstream: {proxy: \"http://p.test:80\"}",
                "http://a.test/",
                Reason::AddressDenied,
                "the next hop",
            ),
        ] {
            let (found, detail) = asks(more, url);
            assert!(found == reason && detail.contains(said), "{more}: {url}: {found}: {detail}");
        }
    }

    #[test]
    fn check_says_who_is_asked_first() {
        let asks = |more: &str, url: &str| {
            let text = POLICY.replace("destination: a.example\n", "destination: a.example\n    ask: true\n");
            let policy = Policy::parse(&format!("{text}{more}\n"), "test").expect("valid");
            decide(&policy, url, "GET", unread).expect("a URL").asks
        };
        assert_eq!(asks("", "http://a.example/"), Some("terminal"));
        assert_eq!(asks("", "http://b.example/"), None);
        assert_eq!(asks("", "http://a.example:81/"), None, "it is refused, whatever anybody says");
        let webhook = "ask: {webhook: \"https://c.example/\", secret_env: S}";
        assert_eq!(asks(webhook, "http://a.example/"), Some("webhook"));
    }

    #[test]
    fn check_reads_a_url_as_the_proxy_does() {
        const SECRET: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";
        let reader = UrlReader::for_tests();
        let asks = |rule: &str, more: &str, url: &str| {
            let text = format!("version: 1\negress: [{{destination: a.test{rule}}}]\n{more}\n");
            let policy = Policy::parse(&text, "test").expect("valid");
            let said = decide(&policy, url, "GET", |rule, method, asked| reader.read(&policy, rule, method, asked));
            let Said { verdict, .. } = said.expect("a URL");
            (verdict.word(), verdict.reason, verdict.rule.is_some(), verdict.findings.len())
        };
        let url = format!("https://a.test/x?token={SECRET}");
        assert_eq!(asks("", "", &url), ("block", Reason::DlpMatch, true, 1));
        assert_eq!(asks("", "dlp: {action: warn}", &url), ("warn", Reason::PolicyAllow, true, 1));
        assert_eq!(asks(", scan: false", "", &url), ("allow", Reason::PolicyAllow, true, 0));
        assert_eq!(asks("", "", "https://a.test/x?y=1"), ("allow", Reason::PolicyAllow, true, 0));
        // The login becomes a header (RFC 7617), in which a rule may let it out.
        for login in [format!("user:{SECRET}@"), format!("{SECRET}@"), SECRET.replace("ghp_", "user:gh%70_") + "@"] {
            let url = format!("https://{login}a.test/x");
            assert_eq!(asks("", "", &url).1, Reason::DlpMatch, "{login}");
            assert_eq!(asks(", allow_secrets: [token]", "", &url).1, Reason::PolicyAllow, "{login}");
        }
        assert_eq!(asks("", "", "https://user:word@a.test/x").1, Reason::PolicyAllow);
        // Policy first, then contents, then addresses.
        assert_eq!(asks(", paths: [/y]", "", &url).1, Reason::PathDenied);
        assert_eq!(asks("", "dns: {hosts: {a.test: 10.0.0.1}}", &url).1, Reason::DlpMatch);
        let long = |count: usize| format!("https://a.test/{}", "x/".repeat(count / 2));
        assert_eq!(asks("", "", &long(60_000)).1, Reason::PolicyAllow);
        for url in [long(65_530), long(70_000)] {
            assert_eq!(asks("", "", &url).1, Reason::LimitExceeded);
        }
        assert_eq!(asks("", "limits: {header_bytes: 1024}", &long(1000)).1, Reason::LimitExceeded);
    }
}
