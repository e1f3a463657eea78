//! Clients of every language over TLS that is opened and read: what they fetch and send is as it was, and a secret in URL, header,
//! body or message stays in, for the same reason everywhere.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod speaking;

use std::process::Command;

use pipelock_e2e::{
    Run, SECRET, Sandbox, TlsServer, assert_kept_in, has_node_module, has_python_module, holds, missing, need,
    web_policy,
};
use speaking::{
    AIOHTTP, HTTPX, NODE, ONE_BY_ONE, PYTHON, REQUESTS, WEBSOCKETS, WS, go_client, java_client, told, told_in_frames,
};

const SITE: &str = include_str!("../agents/browser.js");

fn site() -> TlsServer {
    TlsServer::node(&["web.test"], SITE, &["a page"])
}

fn sandbox(site: &TlsServer) -> Sandbox {
    Sandbox::new(&web_policy(site.port(), "", &format!("{}\nwebsocket: {{enabled: true}}", site.roots())))
}

/// Runs a client that fetches, sends and then leaks: what it says of each, and what the receipts say.
fn ask(site: &TlsServer, sandbox: Sandbox, words: &[&str], carrier: &str, has_frames: bool) {
    let base = format!("https://web.test:{}", site.port());
    let run: Run = sandbox.run_ok(&[words, &[&base, SECRET]].concat());
    assert_eq!(run.text().trim(), told(site, has_frames), "{run}");
    let seen = site.seen();
    for place in ["url", "header x-key", "body"].into_iter().chain(has_frames.then_some("message")) {
        assert_kept_in(&run, place, &seen);
    }
    assert!(holds(&seen, "/text") && !holds(&seen, "/leak"), "a request arrived that was stopped: {run}");
    let requests = run.evidence.http();
    let blocked = requests.iter().filter(|request| request.verdict == "block").count();
    assert_eq!((blocked, requests.len()), if has_frames { (4, 8) } else { (3, 6) }, "{requests:#?}");
    let flows = run.evidence.connections();
    assert!(flows.iter().any(|flow| flow.carrier.as_deref() == Some(carrier)), "{flows:#?}");
}

fn python(module: &str, parts: &[&str], carrier: &str, has_frames: bool) {
    if !has_python_module(module) {
        return missing(&format!("{module} for Python"));
    }
    let site = site();
    let sandbox = sandbox(&site).env("PYTHONPATH", pipelock_e2e::python_path());
    let script = sandbox.file("client.py", format!("{PYTHON}{}", parts.concat())).display().to_string();
    ask(&site, sandbox, &["/usr/bin/python3", &script], carrier, has_frames);
}

#[test]
fn python_requests() {
    need!("python3", "node", "openssl");
    python("requests", &[REQUESTS, ONE_BY_ONE], "tls-http1", false);
}

#[test]
fn python_httpx_over_http2() {
    need!("python3", "node", "openssl");
    python("httpx, h2", &[HTTPX, ONE_BY_ONE], "tls-http2", false);
}

#[test]
fn python_aiohttp() {
    need!("python3", "node", "openssl");
    python("aiohttp", &[AIOHTTP], "tls-http1", true);
}

#[test]
fn node_fetch_and_websocket() {
    need!("node", "openssl");
    let site = site();
    ask(&site, sandbox(&site), &["node", "--experimental-websocket", "-e", NODE], "tls-http1", true);
}

/// Runs a client of a WebSocket library that is closed in.
fn ask_in_frames(words: &[&str]) {
    let site = site();
    let sandbox =
        sandbox(&site).env("PYTHONPATH", pipelock_e2e::python_path()).env("NODE_PATH", pipelock_e2e::node_path());
    let url = format!("wss://web.test:{}/ws", site.port());
    let run = sandbox.run_ok(&[words, &[&url, SECRET]].concat());
    assert_eq!(run.text().trim(), told_in_frames(&site), "{run}");
    let seen = site.seen();
    assert_kept_in(&run, "message", &seen);
    assert!(holds(&seen, "naïve") && !holds(&seen, &SECRET[..20]), "a part of the secret arrived: {run}");
    assert_eq!(run.evidence.http().len(), 4, "{run}");
}

#[test]
fn ws_of_npm() {
    need!("node", "openssl");
    if !has_node_module("ws") {
        return missing("ws for Node.js");
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

#[test]
fn go_net_http() {
    need!("go", "node", "openssl");
    let site = site();
    let sandbox = sandbox(&site);
    let program = go_client(&sandbox.work());
    ask(&site, sandbox, &[program.to_str().expect("text")], "tls-http2", false);
}

#[test]
fn java_http_client_and_websocket() {
    need!("java", "javac", "node", "openssl");
    let site = site();
    let sandbox = sandbox(&site);
    java_client(&sandbox.work());
    ask(&site, sandbox, &["java", "-XX:TieredStopAtLevel=1", "Client"], "tls-http2", true);
}

/// Each request on a connection of its own, byte by byte as it is written here.
const OPENSSL: &str = r#"
host=${1#https://}
ask() { # NAME HEAD [BODY]
    printf "$2 HTTP/1.1\r\nHost: $host\r\nConnection: close\r\nContent-Length: ${#3}\r\n$4\r\n%s" "$3" |
        openssl s_client -quiet -verify_return_error -verify_hostname web.test -connect "$host" -ign_eof >"$1.out" 2>/dev/null
    status=$(head -n1 "$1.out" | cut -d' ' -f2)
    if [ "$status" = 200 ]; then
        size=$(tr -d '\r' <"$1.out" | sed -n 's/^content-length: //Ip' | head -n1)
        echo "$1 200 $size $(tail -c "$size" "$1.out" | sha256sum | cut -d' ' -f1)"
    else
        echo "$1 $status $(grep -ao '"reason": "[a-z_]*"' "$1.out" | cut -d'"' -f4)"
    fi
}
ask text "GET /text"
ask bytes "GET /bytes"
ask up "POST /up" "$(tail -c 70000 bytes.out | sha256sum | cut -d' ' -f1)"
ask url "GET /leak?key=$2"
ask header "GET /leak" "" "X-Key: $2\r\n"
ask body "POST /leak" "{\"key\": \"$2\"}"
"#;

#[test]
fn openssl_s_client() {
    need!("openssl", "node");
    let site = site();
    let sandbox = sandbox(&site);
    // It cannot send bytes of every kind from a shell, so what it sends is the sum of what it got.
    let expected = site.certificate.with_file_name("expected");
    let text = std::fs::read_to_string(&expected).expect("what the site has");
    let sum = text.lines().nth(1).and_then(|line| line.rsplit(' ').next()).expect("the sum of the bytes");
    let out = Command::new("sh").args(["-c", "printf %s \"$0\" | sha256sum", sum]).output().expect("sh");
    let twice = String::from_utf8_lossy(&out.stdout).into_owned();
    let (text_line, bytes_line) = (text.lines().next().expect("one"), text.lines().nth(1).expect("two"));
    // The answer to it is the sum of that, and the last column the sum of the answer.
    let answer = twice.split(' ').next().expect("a sum");
    let out = Command::new("sh").args(["-c", "printf %s \"$0\" | sha256sum", answer]).output().expect("sh");
    let last = String::from_utf8_lossy(&out.stdout).split(' ').next().expect("a sum").to_owned();
    std::fs::write(&expected, format!("{text_line}\n{bytes_line}\nup 200 64 {last}\n")).expect("write");
    let script = sandbox.file("client.sh", OPENSSL).display().to_string();
    ask(&site, sandbox, &["sh", &script], "tls-http1", false);
}
