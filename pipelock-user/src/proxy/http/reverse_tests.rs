//! Clients of one destination.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Upstream, here, serve_reverse};
use crate::proxy::http::world::{ORDER, SECRET, World, read_all};
use crate::proxy::http::world_evidence::until;
use crate::proxy::ws::frame;

async fn start(more: &str) -> (World, SocketAddr) {
    let world = World::scanning(more).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let addr = listener.local_addr().expect("bound");
    let upstream = Upstream::parse(&format!("http://web.test:{}", world.addr.port())).expect("an upstream");
    tokio::spawn(serve_reverse(listener, world.proxy.clone(), Arc::new(upstream)));
    (world, addr)
}

async fn send(proxy: SocketAddr, text: &str) -> TcpStream {
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    client.write_all(text.as_bytes()).await.expect("write");
    client
}

fn told(world: &World) -> Vec<String> {
    world.receipts_of("reverse").into_iter().map(|(verdict, reason)| format!("{verdict} {reason}")).collect()
}

#[tokio::test]
async fn whatever_a_client_names_it_is_one_destination_that_is_asked() {
    let (world, proxy) = start("").await;
    let ask = async |line: &str, body: &str| {
        let length = body.len();
        let head =
            format!("{line} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
        read_all(&mut send(proxy, &format!("{head}{body}")).await).await
    };
    for (line, body, status, reason) in [
        ("GET /x?y=1".to_owned(), "", "200", "allow policy_allow"),
        ("POST /echo".into(), "words", "200", "allow policy_allow"),
        (format!("GET /?k={SECRET}"), "", "403", "block dlp_match"),
        ("POST /echo".into(), SECRET, "403", "block dlp_match"),
        ("GET /order".into(), "", "403", "block injection_match"),
        ("GET http://evil.test/".into(), "", "400", "block request_malformed"),
        ("CONNECT evil.test:443".into(), "", "400", "block request_malformed"),
    ] {
        let text = ask(&line, body).await;
        assert!(world.ways("reverse").iter().all(|(target, _)| !target.contains("127.0.0.1")), "{line}");
        assert!(text.starts_with(&format!("HTTP/1.1 {status}")) && !text.contains(ORDER), "{line}: {text}");
        assert_eq!(told(&world).pop().as_deref(), Some(reason), "{line}");
    }
    let seen = world.seen();
    let host = format!("web.test:{}", world.addr.port());
    assert!(seen.len() == 3 && seen.iter().all(|seen| seen.headers["host"] == *host), "{seen:?}");
}

#[tokio::test]
async fn an_answer_that_a_budget_cuts_has_a_receipt_that_says_so() {
    let (world, proxy) = start(", budgets: {max_bytes_in: 300000}").await;
    let text = read_all(&mut send(proxy, "GET /long HTTP/1.1\r\nHost: shop.example\r\n\r\n").await).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.len() <= 300_000, "{}", text.len());
    for _ in 0..500 {
        if told(&world).len() > 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(told(&world), ["allow policy_allow", "allow budget_exceeded"]);
}

#[tokio::test]
async fn those_who_say_nothing_keep_nobody_out() {
    let (world, proxy) = start("limits: {max_connections: 1}").await;
    let mut silent = send(proxy, "").await;
    until("every place is taken", || world.proxy.is_full()).await;
    let get = "GET /x HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
    assert!(read_all(&mut send(proxy, get).await).await.starts_with("HTTP/1.1 200"));
    assert_eq!(read_all(&mut silent).await, "");
    assert_eq!(told(&world), ["block limit_exceeded", "allow policy_allow"]);
}

#[tokio::test]
async fn events_pass_one_by_one_and_messages_both_ways() {
    let (world, proxy) = start("websocket: {enabled: true}").await;
    let events = "GET /events HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n";
    let text = read_all(&mut send(proxy, events).await).await;
    assert!(text.contains("text/event-stream") && text.contains("id: 39"), "{text}");
    let upgrade = "GET /ws HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n";
    let mut client = send(proxy, upgrade).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("an answer"));
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    client.write_all(&frame::write(frame::TEXT, SECRET.as_bytes(), Some([1, 2, 3, 4]))).await.expect("write");
    let mut input = BytesMut::new();
    let closed = loop {
        if let Some(frame) = frame::next(&mut input, false, 1 << 20).expect("sound frames") {
            break frame;
        }
        assert!(client.read_buf(&mut input).await.expect("read") > 0, "ended");
    };
    assert_eq!((closed.opcode, &closed.payload[..2]), (frame::CLOSE, &1008_u16.to_be_bytes()[..]));
    assert_eq!(told(&world), ["allow policy_allow", "allow policy_allow", "block dlp_match"]);
    let evidence = std::fs::read_to_string(world.evidence.path().join("evidence/evidence.jsonl")).expect("evidence");
    let target = format!("\"target\":\"http://web.test:{}/ws\"", world.addr.port());
    assert_eq!(evidence.matches(&target).count(), 2, "the upgrade, and the message that was stopped");
}

#[test]
fn an_upstream_is_a_place_and_no_more() {
    let upstream = Upstream::parse("https://api.example").expect("an upstream");
    assert_eq!((upstream.is_tls, upstream.host.to_string(), upstream.port), (true, "api.example".into(), 443));
    assert_eq!(Upstream::parse("http://127.0.0.1:8080/").expect("an upstream").port, 8080);
    for url in ["", "api.example", "ftp://a.example", "http://a.example/x", "http://u@a.example", "http://a.example/?"]
    {
        assert!(Upstream::parse(url).is_err(), "{url}");
    }
}

#[tokio::test]
async fn pages_of_other_hosts_in_a_browser_get_nothing() {
    let (world, proxy) = start("").await;
    for (headers, status) in [
        ("Origin: https://evil.test\r\n", "403"),
        ("Origin: null\r\n", "403"),
        ("Origin: http://localhost\r\nOrigin: http://evil.test\r\n", "403"),
        ("Origin: http://localhost.evil.test\r\n", "403"),
        ("Origin: http://127.0.0.1:8890.evil.test\r\n", "403"),
        ("Sec-Fetch-Site: cross-site\r\n", "403"),
        ("Origin: http://localhost:3000\r\nSec-Fetch-Site: cross-site\r\n", "200"),
        ("Origin: http://127.0.0.1:8890\r\nSec-Fetch-Site: same-origin\r\n", "200"),
        ("Sec-Fetch-Site: none\r\n", "200"),
        ("", "200"),
    ] {
        let request = format!("GET /x HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n{headers}\r\n");
        let text = read_all(&mut send(proxy, &request).await).await;
        assert_eq!(&text[9..12], status, "{headers}: {text}");
    }
    assert_eq!(world.seen().len(), 4);
    assert_eq!(told(&world).iter().filter(|told| *told == "block name_mismatch").count(), 6);
}

#[test]
fn who_is_sent_on_to_the_destination_comes_here_again() {
    let places = ["https://api.test:443", "https://api.test"].map(str::to_owned);
    for (location, expected) in [
        ("https://api.test/next?a=1#b", Some("/next?a=1#b")),
        ("HTTPS://API.test:443/next", Some("/next")),
        ("https://api.test", Some("/")),
        ("https://api.test?a", Some("/?a")),
        ("https://api.test//evil.test/x", None),
        ("https://api.test/\\evil.test/x", None),
        ("https://api.test.evil.test/x", None),
        ("https://api.test:8443/x", None),
        ("http://api.test/x", None),
        ("/next", None),
        ("https://other.test/", None),
    ] {
        assert_eq!(here(location, &places).as_deref(), expected, "{location}");
    }
}
