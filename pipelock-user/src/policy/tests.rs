//! The policy as a whole: what loads, what is refused and how, what follows from it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use proptest::prelude::*;

use super::keys::{self, Section, Shape};
use super::*;
use crate::flow::{Action, Host, Reason};

const TUTORIAL: &str = include_str!("../../../policies/tutorial.yaml");

fn parse(text: &str) -> Policy {
    Policy::parse(text, "p.yaml").unwrap_or_else(|errors| panic!("{errors}\n--- in ---\n{text}"))
}

fn errors(text: &str) -> Vec<String> {
    match Policy::parse(text, "p.yaml") {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => errors.errors.iter().map(|e| format!("{}:{} {e}", e.line, e.column)).collect(),
    }
}

/// A policy that says this besides its version.
pub(super) fn read(more: &str) -> Policy {
    parse(&format!("version: 1\n{more}\n"))
}

/// The policy read from its canonical form, which has its id.
pub(super) fn again(policy: &Policy) -> Policy {
    let again = parse(&policy.canonical_json());
    assert_eq!(again.id(), policy.id(), "{}", policy.canonical_json());
    again
}

/// Each of these, beside a version, is refused, with these words.
pub(super) fn assert_refused(wrong: &[(&str, &str)]) {
    for (text, why) in wrong {
        let errors = errors(&format!("version: 1\n{text}\n")).join("\n");
        assert!(errors.contains(why), "{text}: {errors}");
    }
}

fn rules(text: &str) -> Policy {
    parse(&format!("version: \"1.0\"\negress:\n{text}"))
}

fn host(text: &str) -> Host {
    Host::parse(text).expect(text)
}

#[test]
fn the_tutorial_policy_loads_and_decides() {
    let policy = parse(TUTORIAL);
    assert_eq!(policy.rules().len(), 3);
    assert_eq!(policy.rules()[0].label(), "egress[0] api.github.com");
    assert_eq!(policy.rules()[1].methods(), Some(&["GET".to_owned()][..]));
    assert!(!policy.rules()[1].scan());
    assert!(policy.rules()[1].wants_reading(), "methods have to be read");
    assert_eq!(policy.dns_mode(), DnsMode::Synthetic);
    assert!(policy.websocket().enabled && policy.websocket().frame_scan);
    assert_eq!(policy.websocket().proxy_path, "/ws?url=");
    let github = host("api.github.com");
    let verdict = policy.check_request(&github, 443, "GET", "/repos");
    assert_eq!((verdict.action, verdict.reason), (Action::Allow, Reason::PolicyAllow));
    assert_eq!(verdict.rule.as_deref(), Some("egress[0] api.github.com"));
    assert_eq!(policy.check_request(&github, 443, "DELETE", "/").reason, Reason::MethodDenied);
    assert_eq!(policy.check_request(&github, 443, "get", "/").reason, Reason::MethodDenied);
    assert_eq!(policy.check_request(&github, 22, "GET", "/").reason, Reason::PortDenied);
    assert_eq!(policy.check_request(&host("evil.example"), 443, "GET", "/").reason, Reason::HostDenied);
    assert!(policy.names_allowed("registry.npmjs.org"));
    assert!(!policy.names_allowed("npmjs.org"));
    let warnings = policy.warnings().join("\n");
    assert!(!warnings.contains("frame_scan"), "{warnings}");
}

#[test]
fn defaults_are_what_the_documentation_says() {
    for version in ["\"1.0\"", "1.0", "1", "\"1\""] {
        let policy = parse(&format!("version: {version}\n"));
        assert_eq!(policy.id(), Policy::deny_all().id());
    }
    let policy = Policy::deny_all();
    assert!(policy.rules().is_empty() && policy.ports().is_empty());
    assert_eq!(policy.dns_max_names(), 4096);
    assert_eq!(policy.limits().max_connections, 1024);
    assert_eq!(policy.limits().header_bytes, 65_536);
    assert_eq!(policy.listen(), Listen::Loopback);
    assert!(!policy.websocket().enabled);
    assert_eq!((policy.dlp(), policy.response()), (&Dlp::default(), &Responses::default()));
    let policy = rules("  - destination: a.example\n");
    let rule = &policy.rules()[0];
    assert!(rule.scan() && rule.wants_reading() && rule.methods().is_none() && rule.paths().is_none());
    assert_eq!(rule.protocol(), Protocol::Auto);
    assert_eq!(policy.ports().iter().map(ToString::to_string).collect::<Vec<_>>(), ["80", "443"]);
}

#[test]
fn every_key_of_the_format_is_understood() {
    let policy = parse(
        r#"
version: 1.0
egress:
  - destination: "*.svc.internal"
    include_apex: true
    ports: [8000-8100, 443, "444"]
    methods: [get, POST, GET]
    paths: ["/repos/*/issues", "/v1/*"]
    scan: false
    protocol: http
    budgets: {max_bytes_out: 10MiB, max_bytes_in: 1000, max_seconds: 60}
  - {destination: 10.1.0.0/16, ports: [5432], scan: false, protocol: tcp}
default_deny: true
dns_resolution: real
dns:
  hosts:
    db.svc.internal: 10.1.0.5
    DB2.svc.internal.: [10.1.0.6, "fd00::6"]
  max_names: 100
ssrf: {allow: [10.1.0.0/16, 192.168.7.9]}
loopback: {allow: [5432, 80, 80]}
listen: any
limits: {max_connections: 5, header_bytes: 64KiB, request_timeout_seconds: 1, detect_timeout_seconds: 3, idle_timeout_seconds: 2}
"#,
    );
    let rule = &policy.rules()[0];
    assert_eq!(rule.ports().iter().map(ToString::to_string).collect::<Vec<_>>(), ["443-444", "8000-8100"]);
    assert_eq!(rule.methods(), Some(&["GET".to_owned(), "POST".to_owned()][..]));
    assert_eq!(rule.budgets().max_bytes_out, Some(10 * 1024 * 1024));
    assert_eq!(policy.rules()[1].protocol(), Protocol::Tcp);
    assert_eq!(policy.dns_hosts("db2.svc.internal").map(<[IpAddr]>::len), Some(2));
    assert_eq!(policy.loopback_ports(), [80, 5432]);
    assert_eq!(policy.ssrf_allow().len(), 2);
    assert_eq!((policy.listen(), policy.dns_mode()), (Listen::Any, DnsMode::Real));
    assert_eq!(policy.limits().header_bytes, 65_536);
    assert_eq!(again(&policy).rules(), policy.rules());
}

#[test]
fn the_ports_on_which_bytes_could_say_a_name_that_is_allowed() {
    let policy = rules(
        "  - {destination: a.example, ports: [443]}
  - {destination: '*.b.example', ports: [8000-8002], scan: false}
  - {destination: c.example, ports: [22], scan: false, protocol: tcp}
  - {destination: 10.0.0.0/8, ports: [5432], scan: false}\n",
    );
    let ports = [22, 80, 443, 5432, 8000, 8002, 8003].into_iter().filter(|port| policy.names_on(*port));
    assert_eq!(ports.collect::<Vec<_>>(), [443, 8000, 8002]);
}

#[test]
fn the_most_specific_rule_that_uses_the_port_decides() {
    let policy = rules(
        "  - {destination: '*.example.com', ports: [443, 8443]}
  - {destination: '*.deep.example.com'}
  - {destination: api.deep.example.com, ports: [443]}
  - {destination: 10.0.0.0/8, scan: false}
  - {destination: 10.1.0.0/16, scan: false}
  - {destination: 10.1.0.7, ports: [443], scan: false}
  - {destination: '*.corp.test', include_apex: true}
  - {destination: 'fd00::/16', scan: false}
",
    );
    for (name, port, rule) in [
        ("api.deep.example.com", 443, Ok(2)),
        ("api.deep.example.com", 80, Ok(1)),
        ("api.deep.example.com", 8443, Ok(0)),
        ("x.y.deep.example.com", 443, Ok(1)),
        ("deep.example.com", 443, Ok(0)),
        ("example.com", 443, Err(Reason::HostDenied)),
        ("notexample.com", 443, Err(Reason::HostDenied)),
        ("a.example.com", 22, Err(Reason::PortDenied)),
        ("corp.test", 443, Ok(6)),
        ("a.corp.test", 443, Ok(6)),
        ("10.1.0.7", 443, Ok(5)),
        ("10.1.0.7", 80, Ok(4)),
        ("10.2.0.7", 80, Ok(3)),
        ("::ffff:10.2.0.7", 80, Ok(3)),
        ("fd00::1", 80, Ok(7)),
        ("fd01::1", 80, Err(Reason::HostDenied)),
        ("11.0.0.1", 80, Err(Reason::HostDenied)),
    ] {
        let found = policy.find(&host(name), port).map(|rule| rule.index);
        assert_eq!(found, rule, "{name}:{port}");
    }
}

#[test]
fn mistakes_are_named_with_place_and_way_out() {
    let head = "version: \"1.0\"\n";
    for (text, expected) in [
        ("egres: []\n", "2:1 unknown key \"egres\"\n    did you mean \"egress\"?"),
        ("rules: []\n", "did you mean \"egress\"?"),
        ("max_names: 5\n", "\"max_names\" belongs under dns"),
        ("frobnicate: 5\n", "known keys here: version, egress"),
        ("<<: {}\n", "merge keys are not supported"),
        ("egress:\n", "2:1 egress: the key has no value\n    write [] for an empty list"),
        ("egress: {}\n", "2:9 egress: expected a list, found a mapping"),
        ("egress: [api.github.com]\n", "write `- destination: \"api.github.com\"`"),
        (
            "egress:\n  - method: [GET]\n    destination: a.b\n",
            "3:5 egress[0]: unknown key \"method\"\n    did you mean \"methods\"?",
        ),
        ("egress:\n  - host: a.b\n", "did you mean \"destination\"?"),
        ("egress:\n  - max_bytes_out: 5\n    destination: a.b\n", "belongs under egress[].budgets"),
        ("egress:\n  - scan: true\n", "3:5 egress[0]: the key \"destination\" is missing"),
        ("egress: [{destination: 7}]\n", "2:24 egress[0].destination: expected a host"),
        ("egress: [{destination: a.b, methods: []}]\n", "2:38 egress[0].methods: the list is empty"),
        ("egress: [{destination: a.b, paths: []}]\n", "paths: the list is empty"),
        ("egress: [{destination: a.b, ports: []}]\n", "ports: the list is empty"),
        ("egress: [{destination: a.b, ports: 443}]\n", "expected a list, found the number 443\n    write [443]"),
        ("egress: [{destination: a.b, methods: GET}]\n", "write [\"GET\"]"),
        ("egress: [{destination: a.b, methods: ['*']}]\n", "leave methods out"),
        ("egress: [{destination: a.b, methods: ['GET POST']}]\n", "list one method an item"),
        ("egress: [{destination: a.b, methods: [GET, 5]}]\n", "2:44 egress[0].methods[1]: expected an HTTP method"),
        ("egress: [{destination: a.b, ports: [0]}]\n", "from 1 to 65535"),
        ("egress: [{destination: a.b, ports: [70000]}]\n", "from 1 to 65535"),
        ("egress: [{destination: a.b, ports: ['90-80']}]\n", "write \"80-90\""),
        ("egress: [{destination: a.b, ports: ['http']}]\n", "neither a port nor a range"),
        ("egress: [{destination: a.b, scan: 'no'}]\n", "write false, without quotes"),
        ("egress: [{destination: a.b, scan: no}]\n", "write false, without quotes"),
        ("egress: [{destination: a.b, protocol: htpt}]\n", "did you mean \"http\"?"),
        ("egress: [{destination: a.b, protocol: tcp}]\n", "protocol: protocol: tcp passes bytes unread"),
        ("egress: [{destination: a.b, protocol: tcp, scan: false, methods: [GET]}]\n", "methods cannot be checked"),
        ("egress: [{destination: a.b, protocol: tcp, scan: false, paths: [/x]}]\n", "paths cannot be checked"),
        ("egress: [{destination: a.b, include_apex: true}]\n", "which is no wildcard"),
        ("egress: [{destination: a.b, budgets: {max_bytes_out: 0}}]\n", "a size from 1"),
        ("egress: [{destination: a.b, budgets: {max_bytes_out: 10 apples}}]\n", "\"10MiB\""),
        (
            "egress:\n  - destination: a.b\n  - destination: A.B.\n    ports: [443, 8443]\n",
            "4:5 egress[1]: a.b is already the destination of egress[0] (line 3) for port 443",
        ),
        ("listen: any\nlisten: loopback\n", "3:1 listen: the key is written twice, first in line 2"),
        ("default_deny: 'true'\n", "write true, without quotes"),
        ("dns_resolution: proxy-only\n", "did you mean \"proxy_only\"?"),
        ("dns: {hosts: {'*.x': 10.0.0.1}}\n", "wildcards are for egress"),
        ("dns: {hosts: {a.b: nonsense}}\n", "dns.hosts[\"a.b\"]: \"nonsense\" is not an address"),
        ("dns: {hosts: {a.b: []}}\n", "list of addresses is empty"),
        ("dns: {hosts: {a.b: 10.0.0.1, A.b.: 10.0.0.2}}\n", "a.b is written twice"),
        ("dns: {max_names: 0}\n", "from 1 to 1000000"),
        ("ssrf: {allow: [10.1.2.3/16]}\n", "write 10.1.0.0/16"),
        ("ssrf: {allow: [0.0.0.0/0]}\n", "wider than any private network"),
        ("ssrf: {allow: ['::/0']}\n", "wider than any private network"),
        ("ssrf: {allow: [0.0.0.0/1]}\n", "wider than any private network"),
        ("loopback: {allow: [8000-8100]}\n", "one by one"),
        ("listen: everywhere\n", "use one of loopback, any"),
        ("limits: {header_bytes: 5}\n", "a size from 1024"),
        ("limits: 5\n", "expected a mapping"),
        ("websocket: {proxy_path: ws}\n", "write it like \"/ws?url=\""),
        ("websocket: {proxy_path: \"/fetch?url=\"}\n", "/fetch is another door of the explicit proxy"),
        ("websocket: {proxy_path: \"/api/v1/scan?x=\"}\n", "take another path"),
        ("listen: !custom any\n", "a value with the tag \"custom\""),
        ("a: &x 1\nb: *x\n", "3:4 aliases (*name) are not supported"),
        ("---\nlisten: any\n", "2:1 a second document begins here"),
        ("listen: [\n", "not YAML that can be read"),
        ("\tlisten: any\n", "not YAML that can be read"),
        ("7: x\n", "expected a key, found the number 7"),
    ] {
        let found = errors(&format!("{head}{text}")).join("\n");
        assert!(found.contains(expected), "{text}\nexpected: {expected}\nfound: {found}");
    }
    assert!(errors("")[0].contains("the policy is empty"));
    assert!(errors("# only a comment\n")[0].contains("the policy is empty"));
    assert!(errors("[]\n")[0].contains("expected a mapping"));
    assert!(errors("egress: []\n")[0].contains("add version: \"1.0\""));
    assert!(errors("version: 2\n")[0].contains("reads version \"1.0\""));
    assert!(errors(&format!("version: 1\n#{}", " ".repeat(1024 * 1024)))[0].contains("larger than"));
    assert!(errors(&"- ".repeat(100_000))[0].contains("nesting is too deep"));
    let nested = "[a: ".repeat(200_000);
    let begin = std::time::Instant::now();
    assert!(errors(&nested)[0].contains("not YAML"));
    assert!(begin.elapsed().as_secs() < 10, "found before the parser that takes minutes sees it");
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_file() {
    let text = "version: \"1.0\"\nlisten: nowhere\negress:\n  - destination: https://a.b/c\n    methods: []\n    prots: [1]\ndns: {max_names: x}\n";
    let errors = Policy::parse(text, "p.yaml").expect_err("four mistakes");
    assert_eq!(errors.errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 4, 5, 6, 7]);
    let shown = errors.to_string();
    assert!(
        shown.starts_with("p.yaml:2:9: listen: \"nowhere\" is not known here\n    use one of loopback, any"),
        "{shown}"
    );
    let many: String = (0..500).map(|n| format!("k{n}: 1\n")).collect();
    let errors = Policy::parse(&many, "p.yaml").expect_err("unknown keys");
    assert_eq!((errors.errors.len(), errors.omitted), (100, 401));
    assert!(errors.to_string().ends_with("p.yaml: and 401 more"));
}

#[test]
fn an_alias_bomb_is_refused_quickly() {
    let mut text = "version: 1\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for n in 1..20 {
        let refs = vec![format!("*a{}", n - 1); 10].join(",");
        text.push_str(&format!("a{n}: &a{n} [{refs}]\n"));
    }
    let begin = std::time::Instant::now();
    assert!(errors(&text)[0].contains("aliases"));
    assert!(begin.elapsed().as_secs() < 5);
}

#[test]
fn a_file_that_cannot_be_read_is_one_mistake() {
    let missing = Policy::load(std::path::Path::new("/nonexistent/policy.yaml")).expect_err("missing");
    assert_eq!(missing.errors.len(), 1);
    assert!(missing.to_string().starts_with("/nonexistent/policy.yaml: the policy cannot be read"));
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("p.yaml");
    std::fs::write(&file, b"version: 1\nlisten: \xff\n").expect("write");
    assert!(Policy::load(&file).expect_err("bytes").to_string().contains("not UTF-8 text (line 2)"));
    std::fs::write(&file, vec![b'#'; 1024 * 1024 + 5]).expect("write");
    assert!(Policy::load(&file).expect_err("large").to_string().contains("larger than"));
    std::fs::write(&file, TUTORIAL).expect("write");
    assert_eq!(Policy::load(&file).expect("tutorial").id(), parse(TUTORIAL).id());
}

#[test]
fn ten_thousand_rules_are_read_and_decided_without_a_walk() {
    let mut text = String::new();
    for n in 0..10_000 {
        text.push_str(&format!("  - {{destination: h{n}.example, scan: false}}\n"));
    }
    let policy = rules(&text);
    let name = host("h9999.example");
    let begin = std::time::Instant::now();
    for _ in 0..10_000 {
        assert!(policy.find(&name, 443).is_ok());
    }
    // A walk would take 100 million comparisons; this is a hundred times the time a lookup needs in a debug build.
    assert!(begin.elapsed().as_secs() < 5);
}

/// Written-out, so that no change of a library or of ours renames policies that are in use.
#[test]
fn the_canonical_form_is_fixed() {
    let policy = parse(
        "{version: 1, egress: [{scan: false, paths: [/b, /a], methods: [PUT, get], destination: '*.X.example'}], dns: {hosts: {b.c: 10.0.0.1, a.c: '::1'}}}",
    );
    let expected = concat!(
        r#"{"default_deny":true,"dns":{"hosts":{"a.c":["::1"],"b.c":["10.0.0.1"]},"max_names":4096},"#,
        r#""dns_resolution":"proxy_only","egress":[{"destination":"*.x.example","include_apex":false,"#,
        r#""methods":["GET","PUT"],"paths":["/a","/b"],"ports":["80","443"],"protocol":"auto","scan":false}],"#,
        r#""limits":{"detect_timeout_seconds":10,"header_bytes":65536,"idle_timeout_seconds":600,"max_connections":1024,"request_timeout_seconds":60},"#,
        r#""listen":"loopback","loopback":{"allow":[]},"ssrf":{"allow":[]},"version":"1.0","#,
        r#""websocket":{"enabled":false,"frame_scan":true,"proxy_path":"/ws?url="}}"#,
    );
    assert_eq!(policy.canonical_json(), expected);
    assert_eq!(Policy::deny_all().id().0, "ff47c17a00bc90e1815bc5c964be1115cc2ce24866101b869cddb0ba9f6a6a66");
    assert_eq!(policy.id().0.len(), 64);
}

#[test]
fn files_for_tls_are_named_in_pairs_and_found_beside_the_policy() {
    let text = "version: 1\ntls: {ca_cert: ca.pem, ca_key: /k/ca.key, extra_roots: [r.pem]}\n\
                egress: [{destination: a.b, client_cert: c.pem, client_key: c.key}]\n";
    let policy = parse(text);
    let again = again(&policy);
    assert_eq!(again.tls(), policy.tls());
    assert_eq!(again.rules()[0].client_certificate().map(|pair| pair.key.clone()), Some("c.key".into()));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("p.yaml"), text).expect("write");
    let policy = Policy::load(&folder.path().join("p.yaml")).expect("a policy");
    let pair = policy.tls().authority.clone().expect("given");
    assert_eq!(policy.locate(&pair.certificate), folder.path().join("ca.pem"));
    assert_eq!(policy.locate(&pair.key), std::path::Path::new("/k/ca.key"));
    for (wrong, said) in [
        ("tls: {ca_cert: x}", "belong together"),
        ("tls: {ca_key: x}", "belong together"),
        ("tls: {extra_roots: ['-----BEGIN CERTIFICATE-----']}", "found its content"),
        ("egress: [{destination: a.b, client_cert: c}]", "belong together"),
        ("egress: [{destination: a.b, client_cert: c, client_key: k, scan: false}]", "not intercepted"),
    ] {
        let found = errors(&format!("version: 1\n{wrong}\n"));
        assert!(format!("{found:?}").contains(said), "{wrong}: {found:?}");
    }
}

#[test]
fn one_destination_has_a_bounded_number_of_rules() {
    let many = |count: usize| -> String {
        (1..=count).map(|port| format!("  - {{destination: a.b, ports: [{port}]}}\n")).collect()
    };
    assert_eq!(rules(&many(64)).find(&host("a.b"), 64).map(|rule| rule.index), Ok(63));
    let found = errors(&format!("version: 1\negress:\n{}", many(65)));
    assert!(found[0].contains("67:5 egress[64]: more than 64 rules for a.b"), "{found:?}");
}

#[test]
fn unambiguous_paths_only() {
    let policy = rules("  - {destination: a.b, paths: [/public/*]}\n");
    for (path, reason) in [
        ("/public/x?y=1", Reason::PolicyAllow),
        ("/private", Reason::PathDenied),
        ("*", Reason::PathDenied),
        ("/public/../private", Reason::RequestMalformed),
        ("/public/%2e%2e/private", Reason::RequestMalformed),
        ("/public%2fx", Reason::RequestMalformed),
        ("public/x", Reason::RequestMalformed),
    ] {
        assert_eq!(policy.check_request(&host("a.b"), 443, "GET", path).reason, reason, "{path}");
    }
}

/// Walks the table: every key is read, which shows because nonsense under it is reported there.
#[test]
fn the_reader_reads_every_key_of_the_table() {
    fn probe(section: &Section, wrap: &dyn Fn(&str) -> String) {
        for key in section.keys {
            let text = wrap(&format!("{}: !nonsense x", key.name));
            let found = errors(&text).join("\n");
            assert!(
                found.contains(&format!("{}: expected", key.name))
                    || key.name == "version" && found.contains("version: this build"),
                "{text}: {found}"
            );
            let inner: Option<(&'static Section, bool)> = match key.shape {
                Shape::Section(section) => Some((section, false)),
                Shape::List(Shape::Section(section)) => Some((section, true)),
                _ => None,
            };
            if let Some((section, list)) = inner {
                probe(section, &|line| {
                    wrap(&if list {
                        format!("{}: [{{{line}}}]", key.name)
                    } else {
                        format!("{}: {{{line}}}", key.name)
                    })
                });
            }
        }
    }
    probe(&keys::ROOT, &|line| format!("{{{line}}}"));
}

/// The other way round: the schema lists the keys of every section the reader opens, and nothing else.
#[test]
fn the_schema_lists_the_keys_of_the_table() {
    fn keys_of(schema: &serde_json::Value, found: &mut BTreeSet<String>) {
        if let Some(properties) = schema.get("properties").and_then(|p| p.as_object()) {
            for (name, property) in properties {
                found.insert(name.clone());
                keys_of(property, found);
                keys_of(&property["items"], found);
            }
        }
    }
    let mut listed = BTreeSet::new();
    keys_of(&json_schema(), &mut listed);
    let table: BTreeSet<String> = keys::ALL.iter().flat_map(|s| s.keys.iter().map(|key| key.name.to_owned())).collect();
    assert_eq!(listed, table);
}

/// A small world in which rules meet: few names, few ports.
fn arbitrary_rule() -> impl Strategy<Value = String> {
    let destination = prop_oneof![
        "[ab]\\.example",
        Just("'*.example'".to_owned()),
        "'\\*\\.[ab]\\.example'",
        "[ab]\\.[ab]\\.example",
        "10\\.0\\.0\\.[12]",
        Just("10.0.0.0/24".to_owned()),
        Just("10.0.0.0/8".to_owned()),
    ];
    let ports = prop_oneof![Just(""), Just(", ports: [80]"), Just(", ports: [443, 8000-8002]")];
    let methods = prop_oneof![Just(""), Just(", methods: [GET]"), Just(", methods: [POST, GET]")];
    let paths = prop_oneof![Just(""), Just(", paths: [/a/*]"), Just(", paths: ['/a/*/c', /b]")];
    let scan = prop_oneof![Just(""), Just(", scan: false")];
    (destination, ports, methods, paths, scan).prop_map(|(d, p, m, a, s)| format!("{{destination: {d}{p}{m}{a}{s}}}"))
}

fn arbitrary_rules() -> impl Strategy<Value = Vec<String>> {
    // Repeats are refused by design; keep the first rule of each destination.
    prop::collection::vec(arbitrary_rule(), 0..6).prop_map(|rules| {
        let mut seen = BTreeSet::new();
        rules.into_iter().filter(|rule| seen.insert(rule.split([',', '}']).next().map(str::to_owned))).collect()
    })
}

fn of(rules: &[String]) -> Policy {
    let list: String = rules.iter().map(|rule| format!("  - {rule}\n")).collect();
    parse(&if rules.is_empty() { "version: 1\n".to_owned() } else { format!("version: 1\negress:\n{list}") })
}

fn requests() -> Vec<(Host, u16, &'static str, &'static str)> {
    let hosts = [
        "example",
        "a.example",
        "b.example",
        "a.a.example",
        "a.b.example",
        "x.a.a.example",
        "10.0.0.1",
        "10.0.0.9",
        "10.9.9.9",
    ];
    let mut all = Vec::new();
    for name in hosts {
        for port in [80, 443, 8001, 22] {
            for (method, path) in [("GET", "/a/x/c"), ("POST", "/b"), ("PUT", "/a/x"), ("GET", "/z")] {
                all.push((host(name), port, method, path));
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Fewer rules never reach more destinations; a request that becomes allowed was denied by the removed rule itself,
    /// which narrowed a wider one.
    #[test]
    fn removing_a_rule_never_reaches_more(rules in arbitrary_rules(), which in any::<prop::sample::Index>()) {
        prop_assume!(!rules.is_empty());
        let full = of(&rules);
        let removed = which.index(rules.len());
        let mut fewer = rules.clone();
        fewer.remove(removed);
        let less = of(&fewer);
        for (host, port, method, path) in requests() {
            if less.find(&host, port).is_ok() {
                prop_assert!(full.find(&host, port).is_ok(), "{host}:{port}");
            }
            if let Some(name) = host.name() {
                prop_assert!(full.names_allowed(name) || !less.names_allowed(name));
            }
            let before = full.check_request(&host, port, method, path);
            if before.is_block() && !less.check_request(&host, port, method, path).is_block() {
                prop_assert_eq!(before.rule, Some(full.rules()[removed].label()));
            }
        }
    }

    /// The index finds what a walk over all rules finds.
    #[test]
    fn the_index_agrees_with_a_walk(rules in arbitrary_rules()) {
        let policy = of(&rules);
        for (host, port, ..) in requests() {
            let weight = |rule: &&Rule| match rule.destination() {
                Destination::Name(_) | Destination::Addr(_) => 1000,
                Destination::Below(apex) => apex.len(),
                Destination::Net(net) => usize::from(net.prefix_len()),
                Destination::Unnamed => 0,
            };
            let walked = policy.rules().iter()
                .filter(|rule| rule.destination().matches(&host, rule.include_apex()))
                .filter(|rule| rule.ports().iter().any(|range| range.contains(port)))
                .max_by_key(weight);
            prop_assert_eq!(policy.find(&host, port).ok(), walked, "{}:{}", host, port);
        }
    }

    #[test]
    fn the_id_names_the_meaning_alone(rules in arbitrary_rules(), comment in "[ -~]{0,20}") {
        let plain = of(&rules);
        let list: String = rules.iter().map(|rule| format!("\n  # {comment}\n  -   {}  # {comment}\n", turned(rule))).collect();
        let egress = if rules.is_empty() { "egress: []\n".to_owned() } else { format!("egress:{list}") };
        let dressed = parse(&format!("# {comment}\nlisten: loopback\n{egress}default_deny: true\nversion: '1.0'\ndns: {{max_names: 4096}}\n"));
        prop_assert_eq!(plain.id(), dressed.id());
        let canonical = plain.canonical_json();
        prop_assert_eq!(again(&plain).canonical_json(), canonical);
        if rules.len() > 1 {
            let mut swapped = rules.clone();
            swapped.reverse();
            prop_assert_ne!(of(&swapped).id().clone(), plain.id().clone(), "the order of rules numbers them");
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        let _ = Policy::parse(&text, "p.yaml").map_err(|errors| errors.to_string());
    }

    #[test]
    fn arbitrary_yaml_like_text_never_panics(text in "([ \\n:,\\-\\[\\]{}#&*!|>'\"%@?<=a-c0-9.]|egress|version|destination){0,60}") {
        let _ = Policy::parse(&text, "p.yaml").map_err(|errors| errors.to_string());
    }

    /// Bytes cut out of, put into and changed in a sound policy: refused or sound, never a panic; a mistake has a place.
    #[test]
    fn a_mutated_policy_never_panics(at in any::<prop::sample::Index>(), cut in 0usize..8, put in "[ -~\\n\\t]{0,6}") {
        let from = at.index(TUTORIAL.len());
        let to = (from + cut).min(TUTORIAL.len());
        let text = format!("{}{put}{}", &TUTORIAL[..from], &TUTORIAL[to..]);
        match Policy::parse(&text, "p.yaml") {
            Ok(policy) => drop(again(&policy)),
            Err(errors) => {
                let last = text.lines().count() + 1;
                for error in &errors.errors {
                    prop_assert!(error.line >= 1 && error.line <= last && error.column >= 1, "{error:?}");
                }
            }
        }
    }
}

/// A flow-style rule with its keys in reverse order.
fn turned(rule: &str) -> String {
    let inner = rule.trim_start_matches('{').trim_end_matches('}');
    let mut keys: Vec<String> = Vec::new();
    for part in inner.split(", ") {
        match keys.last_mut() {
            Some(last) if !part.contains(": ") => *last = format!("{last}, {part}"),
            _ => keys.push(part.to_owned()),
        }
    }
    keys.reverse();
    format!("{{{}}}", keys.join(", "))
}

#[test]
fn what_is_done_about_findings_is_read_and_has_a_canonical_form() {
    let text = "version: 1\ndlp: {action: redact, entropy: block, scan_env: false, secrets_files: [s.env]}\n\
                response: {action: warn, secrets: block}\n\
                egress: [{destination: a.b, response: off, response_secrets: redact, allow_secrets: [openai-api-key, 'env:X_KEY', openai-api-key]}]\n";
    let policy = parse(text);
    assert_eq!(policy.dlp().action, FindingAction::Redact);
    assert_eq!(policy.dlp().entropy, FindingAction::Block);
    assert!(!policy.dlp().scan_env && policy.dlp().secrets_files == [std::path::Path::new("s.env")]);
    assert_eq!((policy.response().action, policy.response().secrets), (FindingAction::Warn, FindingAction::Block));
    let rule = &policy.rules()[0];
    assert_eq!((rule.response(), rule.response_secrets()), (Some(FindingAction::Off), Some(FindingAction::Redact)));
    assert_eq!(rule.allow_secrets(), ["env:X_KEY", "openai-api-key"]);
    let again = again(&policy);
    assert_eq!(again.dlp(), policy.dlp());
    assert_eq!(again.rules()[0].response_secrets(), Some(FindingAction::Redact));
    let warned =
        |rule: &str| parse(&format!("version: 1\negress: [{{destination: a.b, {rule}}}]\n")).warnings().join("\n");
    assert!(warned("response: block").contains("egress[0] a.b: response is about instructions only"));
    assert_eq!([warned("response: warn"), warned("response: block, response_secrets: warn")], ["", ""]);
    assert_refused(&[
        ("dlp: {action: off}", "is not known here"),
        ("dlp: {secrets_file: [x]}", "secrets_files"),
        ("egress: [{destination: a.b, scan: false, response: warn}]", "response says nothing"),
        ("egress: [{destination: a.b, scan: false, response_secrets: warn}]", "response_secrets says nothing"),
        ("egress: [{destination: a.b, allow_secrets: ['env:']}]", "cannot be the id of a rule"),
        ("egress: [{destination: a.b, allow_secrets: [OpenAI]}]", "cannot be the id of a rule"),
    ]);
}
