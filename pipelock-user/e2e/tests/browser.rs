//! Headless Chromium, closed in and told nothing, and told of the proxy by HTTPS_PROXY and whom to trust by its database: a page with
//! fetches, an event stream and a WebSocket comes as it is, and a secret leaves by none of them.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::process::Command;

use pipelock_e2e::{
    Explicit, Run, SECRET, Sandbox, TlsServer, assert_kept_in, assert_stopped, holds, need, pipelock, web_policy,
};
use serde_json::Value;

const SITE: &str = include_str!("../agents/browser.js");
const PAGE: &str = include_str!("../agents/browser.html");

fn site() -> TlsServer {
    TlsServer::node(&["web.test"], SITE, &[PAGE])
}

fn policy(site: &TlsServer) -> String {
    web_policy(site.port(), "", &format!("{}\nwebsocket: {{enabled: true}}\n", site.roots()))
}

/// Its own sandbox needs user namespaces, which an agent does not get. What it says itself names the URL.
const CHROMIUM: &str = "exec chromium --headless --no-sandbox --disable-gpu --dump-dom \"$0\" 2>chromium.log";

/// The ways that a page's secret is to leave by, where it is by the receipts, what becomes of it and of which path.
const WAYS: [(&str, &str, &str, &str); 4] = [
    ("url", "url", "leak 403 dlp_match", "/leak"),
    ("header", "header x-key", "leak 403 dlp_match", "/leak"),
    ("body", "body", "leak 403 dlp_match", "/leak"),
    ("frame", "message", "closed 1008 dlp_match", "/ws"),
];

/// What the page printed in the end.
fn printed(dom: &str) -> String {
    let out = dom.split_once("<pre id=\"out\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    out.unwrap_or_else(|| panic!("no page came: {dom}")).0.to_owned()
}

fn url(site: &TlsServer, fragment: &str) -> String {
    format!("https://web.test:{}/page#{fragment}", site.port())
}

/// Loads the page; what it printed in the end.
fn load(site: &TlsServer, fragment: &str) -> (Run, String) {
    let run = Sandbox::new(&policy(site)).run_ok(&["sh", "-c", CHROMIUM, &url(site, fragment)]);
    let said = printed(&run.text());
    (run, said)
}

/// The same by a proxy that it is told of; the receipts.
fn load_told(site: &TlsServer, fragment: &str) -> (Vec<Value>, String) {
    let proxy = Explicit::start(&format!("version: \"1.0\"\n{}", policy(site)), &[]);
    let authority = Command::new(pipelock())
        .args(["ca", "--policy", "../policy.yaml"])
        .current_dir(proxy.work())
        .output()
        .expect("pipelock ca");
    std::fs::write(proxy.work().join("ca.pem"), authority.stdout).expect("written");
    let trust = "mkdir -p .pki/nssdb && certutil -d sql:.pki/nssdb -A -t C,, -n pipelock -i ca.pem";
    let out = proxy.run(&["sh", "-c", &format!("{trust} && {CHROMIUM}"), &url(site, fragment)], &[]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    (proxy.end(), printed(&String::from_utf8_lossy(&out.stdout)))
}

fn file(site: &TlsServer, name: &str) -> String {
    std::fs::read_to_string(site.certificate.with_file_name(name)).expect("a file of the site")
}

#[test]
fn a_page_with_events_and_a_websocket_comes_as_it_is() {
    need!("chromium", "node", "openssl");
    let site = site();
    let (run, said) = load(&site, "");
    assert_eq!(said, file(&site, "expected"), "{run}");
    assert_eq!(file(&site, "result"), said, "what it posted arrived as it was");
    let base = format!("https://web.test:{}", site.port());
    let mut requests: Vec<_> = run
        .evidence
        .http()
        .into_iter()
        .map(|request| {
            let path = request.target.strip_prefix(&base).expect("nothing else was asked for").to_owned();
            (path, request.method, request.verdict, request.status)
        })
        .collect();
    requests.sort();
    let one = |path: &str, method: &str, status| (path.to_owned(), method.to_owned(), "allow".to_owned(), Some(status));
    let expected = [
        one("/bytes", "GET", 200),
        one("/done", "POST", 200),
        one("/events", "GET", 200),
        one("/page", "GET", 200),
        one("/text", "GET", 200),
        one("/up", "POST", 200),
        one("/wait", "GET", 200),
        one("/ws", "GET", 101),
    ];
    assert_eq!(requests, expected, "{run}");
    let carriers: Vec<_> = run.evidence.connections().into_iter().filter_map(|flow| flow.carrier).collect();
    assert!(["tls-http1", "tls-http2"].iter().all(|carrier| carriers.iter().any(|one| one == carrier)), "{carriers:?}");
}

#[test]
fn a_secret_leaves_a_page_by_no_way() {
    need!("chromium", "node", "openssl");
    for (way, place, stopped, path) in WAYS {
        let site = site();
        let (run, said) = load(&site, &format!("{way}:{SECRET}"));
        // All that came before is as it was.
        assert_eq!(said, format!("{}\n{stopped}", file(&site, "expected")), "{way}: {run}");
        let blocked: Vec<_> = run.evidence.http().into_iter().filter(|request| request.verdict == "block").collect();
        assert_eq!(blocked.len(), 1, "{way}: {blocked:#?}");
        assert!(blocked[0].reason == "dlp_match" && blocked[0].target.ends_with(path), "{way}: {blocked:#?}");
        let seen = site.seen();
        assert!(holds(&seen, "hello") && !holds(&seen, "/leak"), "{way}: the request arrived");
        assert_kept_in(&run, place, &seen);
    }
}

#[test]
fn a_page_comes_by_a_proxy_that_chromium_is_told_of_and_no_secret_leaves_it() {
    need!("chromium", "certutil", "node", "openssl");
    for (way, place, stopped, _) in WAYS {
        let site = site();
        let (receipts, said) = load_told(&site, &format!("{way}:{SECRET}"));
        assert_eq!(said, format!("{}\n{stopped}", file(&site, "expected")), "{way}: {receipts:#?}");
        assert_eq!(file(&site, "result"), said, "what it posted arrived as it was");
        let seen = site.seen();
        assert!(holds(&seen, "hello") && !holds(&seen, "/leak"), "{way}: the request arrived");
        assert_stopped(&receipts, place, &[("arrived", &seen)]);
        let actions = receipts.iter().map(|receipt| &receipt["action_record"]);
        let mut requests: Vec<_> = actions
            .filter(|action| action["transport"] == "forward" && action["verdict"] == "allow")
            .map(|action| action["target"].as_str().expect("a URL").rsplit('/').next().expect("a path").to_owned())
            .collect();
        requests.sort();
        assert_eq!(requests, ["bytes", "done", "events", "page", "text", "up", "wait", "ws"], "{receipts:#?}");
    }
}
