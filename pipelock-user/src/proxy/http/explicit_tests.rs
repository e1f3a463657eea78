//! Clients that ask for the proxy: whole URLs, and tunnels.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::serve_explicit;
use crate::proxy::http::world::{World, read_all, read_hello, rules};

async fn start(more: &str) -> (World, SocketAddr) {
    let world = World::new(more).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let addr = listener.local_addr().expect("bound");
    tokio::spawn(serve_explicit(listener, world.proxy.clone()));
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
async fn a_tunnel_carries_any_bytes_also_those_sent_with_its_request() {
    let (world, proxy) = start("").await;
    let connect = format!("CONNECT web.test:{0} HTTP/1.1\r\nHost: web.test:{0}\r\n\r\n", world.addr.port());
    for is_early in [true, false] {
        let inner = "GET /inner HTTP/1.1\r\nHost: anything\r\n\r\n";
        let mut client = send(proxy, &format!("{connect}{}", if is_early { inner } else { "" })).await;
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
        // The client's end is passed on, and the destination's comes back.
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
async fn a_tunnel_lives_through_a_policy_that_allows_it_and_ends_with_one_that_does_not() {
    let (world, proxy) = start("").await;
    let port = world.addr.port();
    let mut client = send(proxy, &format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n")).await;
    let mut head = [0; 12];
    client.read_exact(&mut head).await.expect("an answer");
    world.rules.send_replace(Arc::new(rules(port, ", budgets: {max_seconds: 77}")));
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
    assert_eq!(world.receipts(), [pair("allow", "policy_allow"), pair("block", "limit_exceeded")]);
    drop(first);
    let started = Instant::now();
    while world.proxy.is_full() && started.elapsed() < Duration::from_secs(5) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    read_hello(&mut send(proxy, &whole).await).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_answered_and_recorded() {
    let (world, proxy) = start("").await;
    let text = read_all(&mut send(proxy, "GET http://web.test/ HTTP/1.1\nHost: web.test\n\n").await).await;
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("request_malformed"), "{text}");
    assert_eq!(world.receipts(), [pair("block", "request_malformed")]);
}
