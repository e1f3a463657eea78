//! Clients of every language that are told of the proxy, by HTTPS_PROXY (Java: by its own properties) and the variables of
//! `pipelock ca --export`, or that ask its reverse proxy as if it were the site: what they fetch and send is as it was, and a secret in URL, header, body or message stays in.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod speaking;

use std::path::Path;

use pipelock_e2e::{Explicit, SECRET, TlsServer, has_node_module, has_python_module, holds, missing, need, web_policy};
use serde_json::Value;
use speaking::{
    AIOHTTP, HTTPX, NODE, ONE_BY_ONE, PYTHON, REQUESTS, WEBSOCKETS, WS, go_client, java_client, told, told_in_frames,
};

const SITE: &str = include_str!("../agents/browser.js");

fn start() -> (TlsServer, Explicit) {
    let site = TlsServer::node(&["web.test"], SITE, &["a page"]);
    let policy =
        web_policy(site.port(), "", &format!("{}\nwebsocket: {{enabled: true}}\nversion: \"1.0\"", site.roots()));
    let upstream = format!("https://web.test:{}", site.port());
    let reverse = ["--reverse-proxy", "--reverse-upstream", &upstream, "--reverse-listen", "127.0.0.1:0"];
    let proxy = Explicit::start(&policy, &reverse);
    (site, proxy)
}

/// Where the secret was found by what stopped it, but for the names of headers.
const PLACES: [&str; 3] = ["url", "header", "body"];

/// By the receipts as many requests were let through at a door as were stopped, one for a secret in each of these places.
fn assert_recorded(receipts: &[Value], door: &str, places: &[&str]) {
    for place in places {
        let finding = format!("\"place\":\"{place}");
        let is_there = |receipt: &Value| {
            receipt["action_record"]["verdict"] == "block" && receipt["ext"].to_string().contains(&finding)
        };
        let expected = places.iter().filter(|one| *one == place).count();
        assert_eq!(receipts.iter().filter(|receipt| is_there(receipt)).count(), expected, "{place}: {receipts:#?}");
    }
    let count = places.len();
    let of = |pattern: &str| {
        let actions = receipts.iter().map(|receipt| &receipt["action_record"]);
        actions.filter(|action| action["transport"] == door && action["pattern"] == pattern).count()
    };
    assert_eq!((of("policy_allow"), of("dlp_match")), (count, count), "{receipts:#?}");
}

/// Where the reverse proxy is.
fn reverse(proxy: &Explicit) -> &str {
    proxy.reverse.as_deref().expect("a reverse proxy")
}

/// Runs a client with nothing in its environment but the proxy, whom to trust and where modules are. `client` is told the folder
/// that it runs in and where the proxy is.
fn ask(client: impl FnOnce(&Path, &str) -> Vec<String>, has_frames: bool) {
    ask_by("forward", client, has_frames);
}

/// The same by another door: the one that serves the site in its place.
fn ask_by(door: &str, client: impl FnOnce(&Path, &str) -> Vec<String>, has_frames: bool) {
    let (site, proxy) = start();
    let base = match door {
        "reverse" => format!("http://{}", reverse(&proxy)),
        _ => format!("https://web.test:{}", site.port()),
    };
    let words = [client(&proxy.work(), &proxy.addr), vec![base, SECRET.to_owned()]].concat();
    let out = proxy.run(&words.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(said.trim(), told(&site, has_frames), "{}", String::from_utf8_lossy(&out.stderr));
    let seen = site.seen();
    assert!(holds(&seen, "/text") && !holds(&seen, "/leak"), "a request arrived that was stopped");
    assert!(!holds(&seen, SECRET), "the secret arrived");
    let places = if has_frames { [&PLACES[..], &["message"]].concat() } else { PLACES.to_vec() };
    assert_recorded(&proxy.end(), door, &places);
}

/// Runs a client of a WebSocket library that is told of the proxy, another time against its door for those that cannot be, and
/// once more against its reverse proxy.
fn ask_in_frames(words: &[&str]) {
    for door in ["forward", "ws", "reverse"] {
        let (site, proxy) = start();
        let url = format!("wss://web.test:{}/ws", site.port());
        let url = match door {
            "forward" => url,
            "reverse" => format!("ws://{}/ws", reverse(&proxy)),
            _ => format!("ws://{}/ws?url={}", proxy.addr, url.replace(':', "%3A").replace('/', "%2F")),
        };
        let out = proxy.run(&[words, &[&url, SECRET]].concat(), &[]);
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(said.trim(), told_in_frames(&site), "{door}: {}", String::from_utf8_lossy(&out.stderr));
        let seen = site.seen();
        assert!(holds(&seen, "naïve") && !holds(&seen, &SECRET[..20]), "{door}: a part of the secret arrived");
        assert_recorded(&proxy.end(), door, &["message"; 2]);
    }
}

fn python(module: &str, parts: &[&str], has_frames: bool) {
    python_by("forward", module, parts, has_frames);
}

fn python_by(door: &str, module: &str, parts: &[&str], has_frames: bool) {
    if !has_python_module(module) {
        return missing(&format!("{module} for Python"));
    }
    let client = |folder: &Path, _: &str| {
        let script = folder.join("client.py");
        std::fs::write(&script, format!("{PYTHON}{}", parts.concat())).expect("written");
        vec!["/usr/bin/python3".to_owned(), script.display().to_string()]
    };
    ask_by(door, client, has_frames);
}

#[test]
fn python_requests() {
    need!("python3", "node", "openssl");
    python("requests", &[REQUESTS, ONE_BY_ONE], false);
}

#[test]
fn python_httpx_over_http2() {
    need!("python3", "node", "openssl");
    python("httpx, h2", &[HTTPX, ONE_BY_ONE], false);
}

#[test]
fn python_aiohttp() {
    need!("python3", "node", "openssl");
    python("aiohttp", &[AIOHTTP], true);
    python_by("reverse", "aiohttp", &[AIOHTTP], true);
}

#[test]
fn events_by_the_reverse_proxy() {
    need!("curl", "node", "openssl");
    let (site, proxy) = start();
    let out = proxy.run(&["curl", "-sSN", "--max-time", "60", &format!("http://{}/events", reverse(&proxy))], &[]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let expected = std::fs::read_to_string(site.certificate.with_file_name("expected")).expect("what the site has");
    let events = expected.lines().filter_map(|line| line.strip_prefix("event "));
    assert_eq!(said, events.map(|event| format!("data: {event}\n\n")).collect::<String>());
    let leak = proxy.curl(&[&format!("http://{}/events", reverse(&proxy)), "--data", SECRET]);
    assert_eq!((leak.status, &leak.json()["reason"]), (403, &"dlp_match".into()));
    assert_recorded(&proxy.end(), "reverse", &["body"]);
}

#[test]
fn go_net_http() {
    need!("go", "node", "openssl");
    ask(|folder, _| vec![go_client(folder).display().to_string()], false);
}

/// What users of Node.js write, whose fetch hears HTTPS_PROXY only in newer ones than 20, and when they are asked to.
const BY_ENVIRONMENT: &str = "
const { EnvHttpProxyAgent, setGlobalDispatcher } = require('undici');
setGlobalDispatcher(new EnvHttpProxyAgent());
";

#[test]
fn node_fetch_and_websocket() {
    need!("node", "openssl");
    if !has_node_module("undici") {
        return missing("undici for Node.js");
    }
    let script = format!("{BY_ENVIRONMENT}{NODE}");
    ask(|_, _| ["node", "--experimental-websocket", "-e", &script].map(str::to_owned).to_vec(), true);
}

#[test]
fn java_http_client_and_websocket() {
    need!("java", "javac", "node", "openssl");
    let client = |folder: &Path, addr: &str| {
        java_client(folder);
        let (host, port) = addr.split_once(':').expect("host and port");
        let properties = [format!("-Dhttps.proxyHost={host}"), format!("-Dhttps.proxyPort={port}")];
        [&["java".to_owned(), "-XX:TieredStopAtLevel=1".to_owned()][..], &properties, &["Client".to_owned()]].concat()
    };
    ask(client, true);
}

#[test]
fn ws_of_npm() {
    need!("node", "openssl");
    if !["ws", "https-proxy-agent"].into_iter().all(has_node_module) {
        return missing("ws and https-proxy-agent for Node.js");
    }
    ask_in_frames(&["node", "-e", WS]);
}

#[test]
fn websockets_of_python() {
    need!("python3", "node", "openssl");
    if !has_python_module("websockets.proxy") {
        return missing("websockets for Python");
    }
    ask_in_frames(&["/usr/bin/python3", "-c", WEBSOCKETS]);
}
