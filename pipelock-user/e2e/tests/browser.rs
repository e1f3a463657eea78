//! Headless Chromium through the transparent path, told nothing: a page with fetches, an event stream and a WebSocket comes as it
//! is, and a secret leaves by none of them.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use pipelock_e2e::{Run, SECRET, Sandbox, TlsServer, assert_kept_in, holds, need, web_policy};

const SITE: &str = include_str!("../agents/browser.js");
const PAGE: &str = include_str!("../agents/browser.html");

fn site() -> TlsServer {
    TlsServer::node(&["web.test"], SITE, &[PAGE])
}

/// Loads the page; what it printed in the end.
fn load(site: &TlsServer, fragment: &str) -> (Run, String) {
    let policy = web_policy(site.port(), "", &format!("{}\nwebsocket: {{enabled: true}}", site.roots()));
    let url = format!("https://web.test:{}/page#{fragment}", site.port());
    // Its own sandbox needs user namespaces, which an agent does not get. What it says itself names the URL.
    let script = "exec chromium --headless --no-sandbox --disable-gpu --dump-dom \"$0\" 2>chromium.log";
    let run = Sandbox::new(&policy).run_ok(&["sh", "-c", script, &url]);
    let dom = run.text();
    let out = dom.split_once("<pre id=\"out\">").and_then(|(_, rest)| rest.split_once("</pre>"));
    let (said, _) = out.unwrap_or_else(|| panic!("no page came: {run}"));
    let said = said.to_owned();
    (run, said)
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
    for (way, place) in [("url", "url"), ("header", "header x-key"), ("body", "body"), ("frame", "message")] {
        let site = site();
        let (run, said) = load(&site, &format!("{way}:{SECRET}"));
        let stopped = if way == "frame" { "closed 1008 dlp_match" } else { "leak 403 dlp_match" };
        // All that came before is as it was.
        assert_eq!(said, format!("{}\n{stopped}", file(&site, "expected")), "{way}: {run}");
        let blocked: Vec<_> = run.evidence.http().into_iter().filter(|request| request.verdict == "block").collect();
        assert_eq!(blocked.len(), 1, "{way}: {blocked:#?}");
        let path = if way == "frame" { "/ws" } else { "/leak" };
        assert!(blocked[0].reason == "dlp_match" && blocked[0].target.ends_with(path), "{way}: {blocked:#?}");
        let seen = site.seen();
        assert!(holds(&seen, "hello") && !holds(&seen, "/leak"), "{way}: the request arrived");
        assert_kept_in(&run, place, &seen);
    }
}
