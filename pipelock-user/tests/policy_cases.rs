//! The shipped profiles: that they load without surprise, that every case of `policies/cases` comes out as written, and
//! that the published schema is the one this build makes and agrees with the reader.

#![allow(clippy::expect_used, clippy::panic, reason = "in a test, a panic is how a failure is told")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pipelock::flow::{Host, Reason};
use pipelock::policy::{Policy, json_schema};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    profile: Option<String>,
    policy: Option<serde_json::Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    request: Option<String>,
    name: Option<String>,
    expect: Expect,
    reason: Option<String>,
    rule: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Expect {
    Allow,
    Block,
}

impl Expect {
    fn of(allowed: bool) -> Self {
        if allowed { Self::Allow } else { Self::Block }
    }
}

fn policies() -> PathBuf {
    // Read when the test runs: what was read at build time may be another checkout's, from a build cache that both use.
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../policies")
}

/// Files of a folder with this ending, sorted; never none.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("folder")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == ending))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no {ending} files in {}", folder.display());
    found
}

fn load(path: &Path) -> Policy {
    Policy::load(path).unwrap_or_else(|errors| panic!("{errors}"))
}

/// `GET https://host:8443/path` by hand: a URL parser would tidy up what a case wants to say.
fn split(request: &str) -> (&str, Host, u16, &str) {
    let (method, url) = request.split_once(' ').expect("method and URL");
    let (scheme, rest) = url.split_once("://").expect("scheme");
    let (authority, path) = rest.split_at(rest.find('/').expect("path"));
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        other => panic!("scheme {other}"),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().expect("port")),
        _ => (authority, default),
    };
    (method, Host::parse(host).expect(host), port, path)
}

fn run(policy: &Policy, case: &Case) -> Result<(), String> {
    match (&case.request, &case.name) {
        (Some(request), None) => {
            let (method, host, port, path) = split(request);
            let verdict = policy.check_request(&host, port, method, path);
            let reason = case.reason.as_deref().and_then(Reason::from_code).ok_or("a request needs a known reason")?;
            if (Expect::of(!verdict.is_block()), verdict.reason, &verdict.rule) != (case.expect, reason, &case.rule) {
                return Err(format!("{request}: {verdict:?}"));
            }
        }
        (None, Some(name)) => {
            if Expect::of(policy.names_allowed(name)) != case.expect {
                return Err(format!("name {name}: not {:?}", case.expect));
            }
        }
        _ => return Err("a case has either request or name".to_owned()),
    }
    Ok(())
}

#[test]
fn every_case_comes_out_as_written() {
    let mut covered = BTreeSet::new();
    let mut wrong = Vec::new();
    for path in files(&policies().join("cases"), "yaml") {
        let text = std::fs::read_to_string(&path).expect("case file");
        let file: CaseFile = serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let policy = match (&file.profile, &file.policy) {
            (Some(profile), None) => {
                covered.insert(profile.clone());
                load(&policies().join(profile))
            }
            (None, Some(inline)) => Policy::parse(&inline.to_string(), "inline")
                .unwrap_or_else(|errors| panic!("{}: {errors}", path.display())),
            _ => panic!("{}: either profile or policy", path.display()),
        };
        assert!(!file.cases.is_empty(), "{} has no cases", path.display());
        wrong.extend(
            file.cases
                .iter()
                .filter_map(|case| run(&policy, case).err())
                .map(|what| format!("{}: {what}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for profile in files(&policies(), "yaml") {
        let name = profile.file_name().expect("name").to_string_lossy().into_owned();
        assert!(covered.contains(&name), "no case file for {name}");
    }
}

/// Profiles other than the tutorial are for use: nothing in them may be denied or weakened for want of a feature.
#[test]
fn shipped_profiles_load_without_warnings() {
    for path in files(&policies(), "yaml") {
        let warnings = load(&path).warnings();
        if !path.ends_with("tutorial.yaml") {
            assert!(warnings.is_empty(), "{}: {warnings:?}", path.display());
        }
    }
}

#[test]
fn the_published_schema_is_fresh() {
    let path = policies().join("schema.json");
    let fresh = format!("{:#}\n", json_schema());
    if std::env::var_os("PIPELOCK_BLESS").is_some() {
        std::fs::write(&path, &fresh).expect("write the schema");
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == fresh,
        "policies/schema.json is stale; run PIPELOCK_BLESS=1 cargo test -p pipelock-user --test policy_cases and commit it"
    );
}

/// True when the schema takes the policy, by a validator that knows nothing of ours.
fn schema_takes(text: &str) -> bool {
    let mut compiler = boon::Compiler::new();
    let mut schemas = boon::Schemas::new();
    compiler.add_resource("urn:pipelock:policy:1.0", json_schema()).expect("schema is JSON Schema");
    let schema = compiler.compile("urn:pipelock:policy:1.0", &mut schemas).expect("schema compiles");
    let value: serde_json::Value = serde_yaml::from_str(text).expect("YAML");
    schemas.validate(&value, schema).is_ok()
}

#[test]
fn the_schema_takes_what_the_reader_takes() {
    for path in files(&policies(), "yaml") {
        let text = std::fs::read_to_string(&path).expect("profile");
        assert!(schema_takes(&text), "{}", path.display());
        assert!(schema_takes(&load(&path).canonical_json()), "canonical form of {}", path.display());
    }
    let open = "{version: 1, default_deny: false}";
    assert!(schema_takes(open) && Policy::parse(open, "p").is_ok_and(|policy| schema_takes(&policy.canonical_json())));
}

#[test]
fn schema_and_reader_refuse_the_same() {
    for text in [
        "{}",
        "version: 2",
        "{version: 1, unknown: 1}",
        "{version: 1, default_deny: 'false'}",
        "{version: 1, listen: everywhere}",
        "{version: 1, egress: [{scan: true}]}",
        "{version: 1, egress: [{destination: a.b, methods: []}]}",
        "{version: 1, egress: [{destination: a.b, ports: [0]}]}",
        "{version: 1, egress: [{destination: a.b, ports: [http]}]}",
        "{version: 1, egress: [{destination: 'a*.b'}]}",
        "{version: 1, egress: [{destination: a.b, paths: [x]}]}",
        "{version: 1, egress: [{destination: a.b, budgets: {max_bytes_out: lots}}]}",
        "{version: 1, dns: {hosts: {a.b: []}}}",
        "{version: 1, ssrf: {allow: [host]}}",
        "{version: 1, loopback: {allow: ['1-2']}}",
        "{version: 1, limits: {max_connections: 0}}",
        "{version: 1, websocket: {proxy_path: ws}}",
    ] {
        assert!(Policy::parse(text, "p").is_err(), "the reader takes {text}");
        assert!(!schema_takes(text), "the schema takes {text}");
    }
}
