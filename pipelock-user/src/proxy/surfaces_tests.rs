//! The same request by every way there is: transparent, as a whole URL, through a tunnel, to the reverse proxy, fetched and asked
//! about. Verdict, reason and receipt are the same but for the door's name, who came through it, and what only a request that left can have.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::proxy::http::world::{SECRET, World, read_all};
use crate::proxy::http::world_evidence::find;
use crate::proxy::intercept::tests::{greet_as, opened_with, over_http1, request};
use crate::proxy::{Gate, Upstream, serve_reverse};

/// What is asked for, and what becomes of it.
fn cases() -> Vec<(String, &'static str, &'static str)> {
    vec![
        ("/ok/x?a=1".into(), "allow", "policy_allow"),
        ("/no".into(), "block", "path_denied"),
        (format!("/ok/{SECRET}"), "block", "dlp_match"),
        (format!("/ok/?k={SECRET}"), "block", "dlp_match"),
        ("/ok/?to=abc@def.example".into(), "warn", "policy_allow"),
        ("/order".into(), "block", "injection_match"),
        ("/own.git/info/refs?service=git-upload-pack".into(), "allow", "policy_allow"),
        ("/other.git/info/refs?service=git-upload-pack".into(), "block", "git_denied"),
    ]
}

/// The paths that the rule lists, and what git may fetch.
const PATHS: &str = "paths: [\"/ok/*\", \"/order\"], git: {fetch: [own]}";

async fn connect(proxy: std::net::SocketAddr) -> TcpStream {
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    TcpStream::connect(proxy).await.expect("connect")
}

/// Sends a request; the answer.
async fn send(proxy: std::net::SocketAddr, head: &str, body: &str) -> String {
    let mut client = connect(proxy).await;
    let length = body.len();
    let request = format!("{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    client.write_all(request.as_bytes()).await.expect("write");
    read_all(&mut client).await
}

async fn fetch(proxy: std::net::SocketAddr, url: &str) {
    let url = url.replace('%', "%25").replace('&', "%26");
    send(proxy, &format!("GET /fetch?url={url} HTTP/1.1\r\nHost: localhost\r\n"), "").await;
}

async fn ask_about(proxy: std::net::SocketAddr, url: &str) {
    let question = json!({"kind": "url", "input": {"url": url}}).to_string();
    let head = "POST /api/v1/scan HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let answer = send(proxy, head, &question).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// What the last receipt of a request says, apart from what differs by its nature.
fn last(world: &World) -> Value {
    let text = std::fs::read_to_string(world.evidence.path().join("evidence/evidence.jsonl")).expect("evidence");
    assert!(!text.contains(SECRET));
    let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let of = |entry: Value| {
        let action = find(&entry, "action_record")?;
        let is_request = ["forward", "fetch", "scan", "reverse"].iter().any(|door| action["transport"] == *door);
        let mut facts = find(&entry, "flow_v1").cloned().unwrap_or_default();
        let facts = facts.as_object_mut().filter(|_| is_request)?;
        if facts.remove("flow_id").is_none() {
            let peer = facts.remove("src").and_then(|src| src.as_str()?.parse::<std::net::SocketAddr>().ok());
            assert!(peer.is_some_and(|peer| peer.ip().is_loopback() && peer.port() != 443), "{peer:?}");
        }
        for key in ["sock_cookie", "netns_cookie", "pid"] {
            facts.remove(key);
        }
        for key in [
            "verdict",
            "method",
            "target",
            "layer",
            "pattern",
            "severity",
            "intent",
            "action_type",
            "side_effect_class",
            "reversibility",
            "policy_hash",
        ] {
            facts.insert(key.into(), action[key].clone());
        }
        Some(Value::Object(facts.clone()))
    };
    entries.filter_map(of).next_back().expect("a receipt")
}

/// Holds what receipts say against each other and against what was expected.
fn compare(path: &str, (verdict, reason): (&str, &str), mut told: Vec<(&str, Value)>) {
    let (first, expected) = told.remove(0);
    assert_eq!((&expected["verdict"], &expected["pattern"]), (&verdict.into(), &reason.into()), "{first} {path}");
    assert!(expected["rule"] == "egress[0] web.test" && expected["target"].is_string(), "{expected}");
    for (way, mut facts) in told {
        let mut expected = expected.clone();
        if way == "asked about" {
            // Nothing has left, and nobody has answered.
            for facts in [&mut expected, &mut facts] {
                facts.as_object_mut().expect("facts").retain(|key, _| !["dialled", "status"].contains(&key.as_str()));
            }
        }
        assert_eq!(facts, expected, "{way} and {first}: {path}");
    }
}

#[tokio::test]
async fn in_the_clear() {
    for (path, verdict, reason) in cases() {
        // A world for each: what was asked for before is remembered.
        let mut told = Vec::new();
        for way in ["transparent", "whole URL", "tunnel", "reverse", "fetched", "asked about"] {
            // Only who gets the answer can read it.
            if way == "asked about" && reason == "injection_match" {
                continue;
            }
            let world = World::new(&format!(", scan: true, {PATHS}")).await;
            let (proxy, port) = (world.door(Gate::open()).await, world.addr.port());
            let url = format!("http://web.test:{port}{path}");
            match way {
                "transparent" => {
                    let head = format!("GET {path} HTTP/1.1\r\nHost: web.test:{port}\r\nConnection: close\r\n\r\n");
                    world.exchange(head.as_bytes()).await;
                }
                "tunnel" => {
                    let mut client = connect(proxy).await;
                    let head = format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n");
                    let get = format!("GET {path} HTTP/1.1\r\nHost: web.test:{port}\r\nConnection: close\r\n\r\n");
                    client.write_all(format!("{head}{get}").as_bytes()).await.expect("write");
                    read_all(&mut client).await;
                }
                "whole URL" => drop(send(proxy, &format!("GET {url} HTTP/1.1\r\nHost: web.test:{port}\r\n"), "").await),
                "reverse" => {
                    let upstream = Upstream::parse(&format!("http://web.test:{port}")).expect("an upstream");
                    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
                    let reverse = listener.local_addr().expect("bound");
                    tokio::spawn(serve_reverse(listener, world.proxy.clone(), Arc::new(upstream)));
                    send(reverse, &format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n"), "").await;
                }
                "fetched" => fetch(proxy, &url).await,
                _ => ask_about(proxy, &url).await,
            }
            let facts = last(&world).to_string().replace(&port.to_string(), "PORT");
            let policy = world.rules.borrow().policy.id().to_string();
            told.push((way, serde_json::from_str(&facts.replace(&policy, "POLICY")).expect("JSON")));
        }
        compare(&path, (verdict, reason), told);
    }
}

#[tokio::test]
async fn inside_tls() {
    for (path, verdict, reason) in cases() {
        let mut told = Vec::new();
        for way in ["transparent", "tunnel", "fetched", "asked about"] {
            if way == "asked about" && reason == "injection_match" {
                continue;
            }
            let edit = |text: String| text.replace("methods: [GET, POST], paths: [\"/ok/*\"]", PATHS);
            let opened = opened_with("web.test", true, edit).await;
            let (proxy, port) = (opened.world.door(Gate::open()).await, opened.world.addr.port());
            let url = format!("https://web.test:{port}{path}");
            match way {
                "transparent" => {
                    let stream = opened.connect(&["http/1.1"]).await;
                    over_http1(stream, vec![request("GET", &path, "")]).await;
                }
                "tunnel" => {
                    let mut client = connect(proxy).await;
                    let head = format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n");
                    client.write_all(head.as_bytes()).await.expect("write");
                    let mut answer = Vec::new();
                    while !answer.ends_with(b"\r\n\r\n") {
                        answer.push(client.read_u8().await.expect("an answer"));
                    }
                    let stream = greet_as(opened.client(&["http/1.1"]), client).await.expect("a handshake");
                    over_http1(stream, vec![request("GET", &path, "")]).await;
                }
                "fetched" => fetch(proxy, &url).await,
                _ => ask_about(proxy, &url).await,
            }
            let facts = last(&opened.world).to_string().replace(&port.to_string(), "PORT");
            let policy = opened.world.rules.borrow().policy.id().to_string();
            told.push((way, serde_json::from_str(&facts.replace(&policy, "POLICY")).expect("JSON")));
        }
        compare(&path, (verdict, reason), told);
    }
}

#[tokio::test]
async fn what_is_no_protocol_in_a_tunnel_that_is_read_ends_it() {
    let opened = opened_with("web.test", true, |text| text).await;
    let (proxy, port) = (opened.world.door(Gate::open()).await, opened.world.addr.port());
    let head = format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n");
    let mut client = connect(proxy).await;
    client.write_all(format!("{head}\0\0\0\0").as_bytes()).await.expect("write");
    let text = read_all(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\n"), "and nothing else: {text}");
}
