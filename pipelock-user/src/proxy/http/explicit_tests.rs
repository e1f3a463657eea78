//! Clients that ask for the proxy: whole URLs, and tunnels.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Gate;
use crate::flow::Host;
use crate::proxy::http::inside::tests::hello;
use crate::proxy::http::world::{World, read_all, read_hello, rules};
use crate::proxy::http::world_evidence::until;
use crate::proxy::tls::{CertificateAuthority, server_of};

async fn start(more: &str) -> (World, SocketAddr) {
    start_for(more, Gate::open()).await
}

async fn start_for(more: &str, gate: Gate) -> (World, SocketAddr) {
    let world = World::new(more).await;
    let addr = world.door(gate).await;
    (world, addr)
}

async fn send(proxy: SocketAddr, text: &str) -> TcpStream {
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    client.write_all(text.as_bytes()).await.expect("write");
    client
}

fn pair(verdict: &str, reason: &str) -> (String, String) {
    (verdict.into(), reason.into())
}

#[tokio::test]
async fn a_whole_url_is_fetched() {
    let (world, proxy) = start("").await;
    let mut client =
        send(proxy, &format!("GET http://web.test:{0}/x HTTP/1.1\r\nHost: web.test:{0}\r\n\r\n", world.addr.port()))
            .await;
    assert!(read_hello(&mut client).await.starts_with("HTTP/1.1 200"));
    assert_eq!(world.seen()[0].path, "/x");
    assert_eq!(world.receipts(), [pair("allow", "policy_allow")]);
}

#[tokio::test]
async fn a_tunnel_carries_requests_also_those_sent_with_its_own() {
    let (world, proxy) = start("").await;
    let connect = format!("CONNECT web.test:{0} HTTP/1.1\r\nHost: web.test:{0}\r\n\r\n", world.addr.port());
    for is_early in [true, false] {
        let inner = format!("GET /inner HTTP/1.1\r\nHost: web.test:{}\r\n\r\n", world.addr.port());
        let mut client = send(proxy, &format!("{connect}{}", if is_early { &inner } else { "" })).await;
        if !is_early {
            let mut head = [0; 12];
            client.read_exact(&mut head).await.expect("an answer");
            assert_eq!(&head, b"HTTP/1.1 200");
            client.write_all(inner.as_bytes()).await.expect("write");
        }
        // And again, now that it is open.
        read_hello(&mut client).await;
        client.write_all(inner.as_bytes()).await.expect("write");
        read_hello(&mut client).await;
        client.shutdown().await.expect("shutdown");
        assert_eq!(read_all(&mut client).await, "");
    }
    assert_eq!(world.seen().iter().filter(|seen| seen.path == "/inner").count(), 4);
}

#[tokio::test]
async fn a_tunnel_that_is_refused_ends_the_connection() {
    let (world, proxy) = start("").await;
    let port = world.addr.port();
    let behind = format!("GET http://web.test:{port}/behind HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n");
    let mut client =
        send(proxy, &format!("CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n{behind}")).await;
    let text = read_all(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("connection: close"), "{text}");
    assert!(text.contains("x-pipelock-reason: host_denied") && text.matches("HTTP/1.1").count() == 1, "{text}");
    assert!(world.seen().is_empty(), "what stood behind was taken for a request");
}

#[tokio::test]
async fn a_request_without_host_is_refused_unless_it_is_http_1_0() {
    let (world, proxy) = start("").await;
    let port = world.addr.port();
    for line in [format!("CONNECT web.test:{port}"), format!("GET http://web.test:{port}/x")] {
        let text = read_all(&mut send(proxy, &format!("{line} HTTP/1.1\r\nConnection: close\r\n\r\n")).await).await;
        assert!(text.starts_with("HTTP/1.1 400") && text.contains("x-pipelock-reason: request_malformed"), "{text}");
    }
    assert!(world.seen().is_empty());
    let mut old = send(proxy, &format!("CONNECT web.test:{port} HTTP/1.0\r\n\r\n")).await;
    let mut head = [0; 12];
    old.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head[9..], b"200");
}

#[tokio::test]
async fn a_silent_tunnel_and_a_silent_client_are_ended() {
    let (world, proxy) = start("limits: {idle_timeout_seconds: 1, request_timeout_seconds: 1}").await;
    let mut client =
        send(proxy, &format!("CONNECT web.test:{0} HTTP/1.1\r\nHost: web.test:{0}\r\n\r\n", world.addr.port())).await;
    let started = Instant::now();
    let text = read_all(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 200") && started.elapsed() < Duration::from_secs(5), "{text}");
    let text = read_all(&mut send(proxy, "").await).await;
    assert!(text.starts_with("HTTP/1.1 408"), "{text}");
}

#[tokio::test]
async fn who_asks_for_a_websocket_where_there_is_none_reads_where_it_is() {
    for (more, said) in [
        ("websocket: {enabled: true}", "inside CONNECT, or at /ws?url="),
        ("", "the policy does not say websocket.enabled: true"),
    ] {
        let (world, proxy) = start(more).await;
        let port = world.addr.port();
        let head = format!(
            "GET http://web.test:{port}/ws HTTP/1.1\r\nHost: web.test:{port}\r\nConnection: Upgrade, close\r\n"
        );
        let socket =
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        let text = read_all(&mut send(proxy, &(head + socket)).await).await;
        assert!(text.contains("x-pipelock-reason: upgrade_denied") && text.contains(said), "{text}");
    }
}

#[tokio::test]
async fn what_begins_no_request_is_refused_and_half_a_line_is_not_waited_for() {
    let (world, proxy) = start("limits: {detect_timeout_seconds: 1}").await;
    for bytes in ["\x16\x03\x01\0\x05hello", "SSH-2.0-x", "\0\x01\x02\x03", " GET / HTTP/1.1\r\n"] {
        let text = read_all(&mut send(proxy, bytes).await).await;
        assert!(
            text.starts_with("HTTP/1.1 400") && text.contains("x-pipelock-reason: request_malformed"),
            "{bytes:?}: {text}"
        );
    }
    for bytes in ["", "GE", "GET http://web.te"] {
        let text = read_all(&mut send(proxy, bytes).await).await;
        assert!(
            text.starts_with("HTTP/1.1 408") && text.contains("x-pipelock-reason: detect_timeout"),
            "{bytes:?}: {text}"
        );
        assert!(text.contains("limits.detect_timeout_seconds"), "{text}");
    }
    let (refused, late) = (pair("block", "request_malformed"), pair("block", "detect_timeout"));
    assert_eq!(world.receipts(), [vec![refused; 4], vec![late; 3]].concat());
    // Who has sent the first line has the time of a head for the rest.
    let port = world.addr.port();
    let mut client = send(proxy, &format!("GET http://web.test:{port}/x HTTP/1.1\r\nHost: ")).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.write_all(format!("web.test:{port}\r\n\r\n").as_bytes()).await.expect("write");
    read_hello(&mut client).await;
}

#[tokio::test]
async fn half_a_head_has_an_answer_and_a_receipt_when_its_client_ends_it() {
    let (world, proxy) = start("").await;
    for bytes in ["GE", "GET http://web.test/x HTTP/1.1\r\nHost: web"] {
        let mut client = send(proxy, bytes).await;
        client.shutdown().await.expect("shutdown");
        let text = read_all(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 400") && text.contains("the connection ended within"), "{text}");
    }
    assert_eq!(world.receipts(), [pair("block", "request_malformed"), pair("block", "request_malformed")]);
    // Who only looks whether somebody listens has asked for nothing.
    let mut client = send(proxy, "").await;
    client.shutdown().await.expect("shutdown");
    assert_eq!((read_all(&mut client).await.as_str(), world.receipts().len()), ("", 2));
}

#[tokio::test]
async fn a_tunnel_lives_through_a_policy_that_allows_it_and_ends_with_one_that_does_not() {
    let (world, proxy) = start(", protocol: tcp").await;
    let port = world.addr.port();
    let mut client = send(proxy, &format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n")).await;
    let mut head = [0; 12];
    client.read_exact(&mut head).await.expect("an answer");
    world.rules.send_replace(Arc::new(rules(port, ", protocol: tcp, budgets: {max_seconds: 77}")));
    client.write_all(b"GET /inner HTTP/1.1\r\nHost: anything\r\n\r\n").await.expect("write");
    read_hello(&mut client).await;
    world.rules.send_replace(Arc::new(rules(port, ", methods: [GET]")));
    assert_eq!(read_all(&mut client).await, "");
    let started = Instant::now();
    while world.tunnels().len() < 2 && started.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.tunnels(), [pair("allow", "policy_allow"), pair("allow", "policy_changed")]);
}

#[tokio::test]
async fn a_client_too_many_is_told_so_at_once_and_the_next_is_served_when_one_has_gone() {
    let (world, proxy) = start("limits: {max_connections: 1}").await;
    let port = world.addr.port();
    let whole = format!("GET http://web.test:{port}/x HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n");
    let mut first = send(proxy, &whole).await;
    read_hello(&mut first).await;
    let text = read_all(&mut send(proxy, &whole).await).await;
    assert!(text.starts_with("HTTP/1.1 429") && text.contains("x-pipelock-reason: limit_exceeded"), "{text}");
    assert!(text.contains("\r\nretry-after: 1\r\n"), "{text}");
    assert_eq!(world.receipts(), [pair("allow", "policy_allow"), pair("block", "limit_exceeded")]);
    drop(first);
    let started = Instant::now();
    while world.proxy.is_full() && started.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    read_hello(&mut send(proxy, &whole).await).await;
}

#[tokio::test]
async fn silence_counts_from_the_first_words() {
    let (world, proxy) = start("limits: {idle_timeout_seconds: 2}").await;
    let port = world.addr.port();
    let mut client = send(proxy, "").await;
    // A line that has to be there within this time too, and the rest of the head, which need not.
    for part in [format!("GET http://web.test:{port}/x HTTP/1.1\r\n"), format!("Host: web.test:{port}\r\n\r\n")] {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        client.write_all(part.as_bytes()).await.expect("write");
    }
    assert!(read_hello(&mut client).await.starts_with("HTTP/1.1 200"));
}

/// Connects, and lets nothing else happen meanwhile; says this.
fn connect_at_once(proxy: SocketAddr, text: &str) -> TcpStream {
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = std::net::TcpStream::connect(proxy).expect("connect");
    std::io::Write::write_all(&mut client, text.as_bytes()).expect("write");
    client.set_nonblocking(true).expect("set");
    TcpStream::from_std(client).expect("a stream")
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out() {
    let (world, proxy) = start("limits: {max_connections: 2}").await;
    let port = world.addr.port();
    let whole = format!("GET http://web.test:{port}/x HTTP/1.1\r\nHost: web.test:{port}\r\nConnection: close\r\n\r\n");
    let silent = [send(proxy, "").await, send(proxy, "").await];
    until("every place is taken", || world.proxy.is_full()).await;
    assert!(read_all(&mut send(proxy, &whole).await).await.starts_with("HTTP/1.1 200"));
    assert_eq!(world.receipts(), [pair("block", "limit_exceeded"), pair("allow", "policy_allow")]);
    // A burst: all of it is there before any of it is looked at.
    let before: Vec<_> = (0..20).map(|_| connect_at_once(proxy, "")).collect();
    let mut ordinary = connect_at_once(proxy, &whole);
    let after: Vec<_> = (0..20).map(|_| connect_at_once(proxy, "")).collect();
    let text = read_all(&mut ordinary).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    drop((silent, before, after));
}

#[tokio::test]
async fn those_whose_head_does_not_end_keep_nobody_out() {
    let (world, proxy) = start("limits: {max_connections: 2}").await;
    let port = world.addr.port();
    let whole = format!("GET http://web.test:{port}/x HTTP/1.1\r\nHost: web.test:{port}\r\nConnection: close\r\n\r\n");
    let begun = "GET http://web.test/x HTTP/1.1\r\nHost: w";
    let mut first = send(proxy, begun).await;
    let second = send(proxy, begun).await;
    until("every place is taken", || world.proxy.is_full()).await;
    let mut answer = String::new();
    for _ in 0..20 {
        answer = read_all(&mut send(proxy, &whole).await).await;
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
    }
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(read_all(&mut first).await, "", "the oldest has made room");
    assert!(world.receipts().contains(&pair("block", "limit_exceeded")));
    drop(second);
}

#[tokio::test]
async fn tls_in_a_tunnel_goes_only_to_who_shows_a_certificate_for_its_name() {
    let ca = Arc::new(CertificateAuthority::for_now().expect("an authority"));
    for (certificate, answer, reason) in [
        (Some("web.test"), 22, None),
        (Some("other.test"), 21, Some("certificate_invalid")),
        (None, 21, Some("upstream_failed")),
    ] {
        let server = certificate.map(|name| server_of(&ca, &Host::parse(name).expect("a name")).expect("a server"));
        let world = World::with(|port, _| (rules(port, ""), server)).await;
        let proxy = world.door(Gate::open()).await;
        let port = world.addr.port();
        let connect = format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n");
        let mut client = send(proxy, &connect).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.expect("an answer"));
        }
        client.write_all(&hello("web.test")).await.expect("write");
        assert_eq!(client.read_u8().await.expect("a record"), answer, "{certificate:?}");
        let mut expected = vec![pair("allow", "policy_allow")];
        expected.extend(reason.map(|reason| pair("block", reason)));
        let started = Instant::now();
        while world.tunnels().len() < expected.len() && started.elapsed() < Duration::from_secs(5) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(world.tunnels(), expected);
        assert!(world.seen().is_empty());
    }
}

#[tokio::test]
async fn an_answer_that_a_budget_cuts_has_a_receipt_that_says_so() {
    for scan in ["", ", scan: true"] {
        let (world, proxy) = start(&format!("{scan}, budgets: {{max_bytes_in: 300000}}")).await;
        let port = world.addr.port();
        let request = format!("GET http://web.test:{port}/long HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n");
        let text = read_all(&mut send(proxy, &request).await).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.len() <= 300_000, "{}", text.len());
        assert_eq!(world.receipts_of_count(2).await, [pair("allow", "policy_allow"), pair("allow", "budget_exceeded")]);
        let evidence = std::fs::read_to_string(world.evidence.path().join("evidence/evidence.jsonl"));
        let target = format!("\"target\":\"http://web.test:{port}/long\"");
        assert_eq!(evidence.expect("evidence").matches(&target).count(), 2, "both name the request");
    }
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_recorded() {
    let (world, proxy) = start("").await;
    let text = read_all(&mut send(proxy, "GET http://web.test/ HTTP/1.1\nHost: web.test\n\n").await).await;
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("request_malformed"), "{text}");
    assert_eq!(world.receipts(), [pair("block", "request_malformed")]);
}

#[tokio::test]
async fn receipts_of_what_is_refused_say_what_was_asked_for_and_by_whom() {
    let (world, proxy) = start("").await;
    for (request, target) in [
        ("GET http://a.test/x?q HTTP/1.1\r\nHost: b.test\r\n", "http://a.test/x"),
        ("GET https://u:p@a.test/x?q HTTP/1.1\r\nHost: a.test\r\n", "https://a.test/x"),
        ("CONNECT a.test:443 HTTP/1.1\r\nHost: b.test:443\r\n", "a.test:443"),
        ("GET /none?q HTTP/1.1\r\nHost: localhost\r\n", "/none"),
        ("GET http://a.test/ HTTP/1.1\nHost: a.test\n", "-"),
    ] {
        let mut client = send(proxy, &format!("{request}Connection: close\r\n\r\n")).await;
        let peer = client.local_addr().expect("bound").to_string();
        let text = read_all(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 4"), "{text}");
        assert_eq!(world.ways("forward").pop(), Some((target.to_owned(), peer)), "{request}");
    }
}

/// ci:0123456789abcdef and dev:fedcba9876543210.
const CI: &str = "Proxy-Authorization: Basic Y2k6MDEyMzQ1Njc4OWFiY2RlZg==\r\n";
const DEV: &str = "Proxy-Authorization: Bearer fedcba9876543210\r\n";

fn tokens() -> Gate {
    let known = "ci=0123456789abcdef\ndev=fedcba9876543210\n";
    Gate::for_those(crate::proxy::Identities::parse(known).expect("sound"))
}

#[tokio::test]
async fn who_shows_no_token_is_told_to_and_who_does_is_named() {
    let (world, proxy) = start_for(", scan: true", tokens()).await;
    let port = world.addr.port();
    let get = |header: &str| {
        format!("GET http://web.test:{port}/x?q HTTP/1.1\r\nHost: web.test:{port}\r\n{header}Connection: close\r\n\r\n")
    };
    let connect = |header: &str| format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n{header}\r\n");
    let wrong = "Proxy-Authorization: Bearer 0123456789abcdeX\r\n";
    for request in [get(""), get(wrong), connect(""), connect(wrong), get("Authorization: Bearer 0123456789abcdef\r\n")]
    {
        let text = read_all(&mut send(proxy, &request).await).await;
        assert!(text.starts_with("HTTP/1.1 407") && text.contains("x-pipelock-reason: identity_required"), "{text}");
        assert!(
            text.contains("proxy-authenticate: Basic realm") && text.contains("proxy-authenticate: Bearer"),
            "{text}"
        );
    }
    assert!(world.seen().is_empty());
    for header in [CI, DEV] {
        assert!(read_all(&mut send(proxy, &get(header)).await).await.starts_with("HTTP/1.1 200"));
    }
    assert!(world.seen().iter().all(|seen| !seen.headers.contains_key("proxy-authorization")), "it goes no further");
    let mut expected = vec![pair("block", "identity_required"); 3];
    expected.extend([pair("allow", "policy_allow"), pair("allow", "policy_allow")]);
    assert_eq!(world.receipts(), expected);
    assert_eq!(world.identities("forward"), ["", "", "", "ci", "dev"]);
    let evidence = std::fs::read_to_string(world.evidence.path().join("evidence/evidence.jsonl")).expect("evidence");
    assert!(!evidence.contains("0123456789abcde") && !evidence.contains("?q"), "neither token nor query is kept");
}

#[tokio::test]
async fn a_tunnel_is_its_clients() {
    let (world, proxy) = start_for("", tokens()).await;
    let port = world.addr.port();
    let connect = format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n{CI}\r\n");
    let mut client = send(proxy, &connect).await;
    let mut head = [0; 12];
    client.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head[9..], b"200");
    assert_eq!(world.identities("connect"), ["ci"]);
}

#[tokio::test]
async fn one_connection_is_one_clients() {
    let (world, proxy) = start_for("", tokens()).await;
    let port = world.addr.port();
    let get = |header: &str, end| {
        format!("GET http://web.test:{port}/x HTTP/1.1\r\nHost: web.test:{port}\r\n{header}{end}\r\n")
    };
    let mut client = send(proxy, &get(CI, "")).await;
    read_hello(&mut client).await;
    client.write_all(get(DEV, "Connection: close\r\n").as_bytes()).await.expect("write");
    assert!(read_all(&mut client).await.starts_with("HTTP/1.1 407"));
    assert_eq!(world.receipts(), [pair("allow", "policy_allow"), pair("block", "identity_required")]);
    assert_eq!(world.seen().len(), 1);
}

#[tokio::test]
async fn our_doors_are_for_programs_of_this_host_or_those_with_a_token() {
    let ask = async |proxy: SocketAddr, headers: &str| {
        let request = format!("GET /fetch HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        let text = read_all(&mut send(proxy, &request).await).await;
        text[9..12].to_owned()
    };
    let (world, proxy) = start("").await;
    for (headers, status) in [
        ("Host: 127.0.0.1:8888\r\n", "400"),
        ("Host: localhost\r\n", "400"),
        ("Host: localhost\r\nSec-Fetch-Site: none\r\n", "400"),
        ("Host: localhost\r\nOrigin: http://localhost\r\n", "400"),
        ("Host: 127.0.0.1:8888\r\nOrigin: http://127.0.0.1:8888\r\n", "400"),
        ("Host: 127.0.0.1:8888\r\nOrigin: http://127.0.0.1\r\n", "403"),
        ("Host: localhost\r\nOrigin: http://evil.test\r\n", "403"),
        ("Host: localhost\r\nOrigin: null\r\n", "403"),
        ("Host: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil.test\r\n", "403"),
        ("Host: rebound.test:8888\r\n", "403"),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", "403"),
    ] {
        assert_eq!(ask(proxy, headers).await, status, "{headers}");
    }
    assert_eq!(world.receipts_of("door"), vec![pair("block", "name_mismatch"); 6]);
    let (world, proxy) = start_for("", tokens()).await;
    for (headers, status) in [
        ("Host: proxy.test\r\n", "401"),
        ("Host: proxy.test\r\nAuthorization: Bearer 0123456789abcdef\r\n", "400"),
        ("Host: proxy.test\r\nProxy-Authorization: Bearer 0123456789abcdef\r\n", "400"),
    ] {
        assert_eq!(ask(proxy, headers).await, status, "{headers}");
    }
    assert_eq!((world.identities("door"), world.identities("fetch")), (vec![String::new()], vec!["ci".into(); 2]));
    let health = read_all(&mut send(proxy, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await).await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
}

#[tokio::test]
async fn health_is_for_whoever_asks_the_right_way() {
    let (world, proxy) = start("").await;
    for (line, headers, status) in [
        ("GET /health", "Host: localhost\r\n", "200"),
        ("GET /health", "Host: rebound.test:8888\r\n", "403"),
        ("GET /health", "Host: localhost\r\nOrigin: http://evil.test\r\n", "403"),
        ("POST /health", "Host: localhost\r\n", "405"),
        ("HEAD /health", "Host: localhost\r\n", "405"),
        ("GET /api/v1/openapi.json", "Host: localhost\r\n", "200"),
        ("POST /api/v1/openapi.json", "Host: localhost\r\n", "405"),
        ("GET /healthy", "Host: localhost\r\n", "400"),
    ] {
        let text =
            read_all(&mut send(proxy, &format!("{line} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n")).await).await;
        assert_eq!(&text[9..12], status, "{line} {headers}: {text}");
        assert_eq!(text.to_lowercase().contains("\r\nallow: get\r\n"), status == "405", "{text}");
    }
    assert_eq!(world.receipts_of("door").len(), 5);
}
