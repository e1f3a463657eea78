//! WebSockets that are asked for by URL.

use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::proxy::http::Gate;
use crate::proxy::http::world::{ORDER, SECRET, World, read_all};
use crate::proxy::ws::frame;

async fn start(more: &str, gate: Gate) -> (World, SocketAddr) {
    // With WebSockets the messages are read.
    let world = if more.contains("enabled: true") { World::scanning(more).await } else { World::new(more).await };
    let addr = world.door(gate).await;
    (world, addr)
}

async fn ask(proxy: SocketAddr, target: &str, headers: &str) -> TcpStream {
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n{headers}\r\n"
    );
    client.write_all(request.as_bytes()).await.expect("write");
    client
}

/// Reads the head of an answer.
async fn head(client: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(client.read_u8().await.expect("an answer"));
    }
    String::from_utf8(text).expect("text")
}

async fn say(client: &mut TcpStream, text: &str) {
    client.write_all(&frame::write(frame::TEXT, text.as_bytes(), Some([1, 2, 3, 4]))).await.expect("write");
}

async fn hear(client: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut input = BytesMut::new();
    loop {
        if let Some(frame) = frame::next(&mut input, false, 1 << 20).expect("sound frames") {
            return (frame.opcode, frame.payload);
        }
        assert!(client.read_buf(&mut input).await.expect("read") > 0, "ended");
    }
}

const ENABLED: &str = "websocket: {enabled: true}";

fn told(world: &World) -> Vec<String> {
    world.receipts_of("ws").into_iter().map(|(verdict, reason)| format!("{verdict} {reason}")).collect()
}

#[tokio::test]
async fn messages_go_both_ways_and_are_read() {
    for (said, code) in [(SECRET, 1008_u16), ("order", 1008)] {
        let (world, proxy) = start(ENABLED, Gate::open()).await;
        let target = format!("/ws?url=ws://web.test:{}/ws%3Fq%3D1", world.addr.port());
        let mut client = ask(proxy, &target, "").await;
        let head = head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"), "{head}");
        say(&mut client, "hello").await;
        assert_eq!(hear(&mut client).await, (frame::TEXT, b"hello".to_vec()));
        say(&mut client, said).await;
        let (opcode, payload) = hear(&mut client).await;
        assert_eq!((opcode, &payload[..2]), (frame::CLOSE, &code.to_be_bytes()[..]), "{said}");
        let reason = if said == SECRET { "dlp_match" } else { "injection_match" };
        assert!(
            String::from_utf8_lossy(&payload).contains(reason) && !String::from_utf8_lossy(&payload).contains(ORDER)
        );
        assert_eq!(told(&world), ["allow policy_allow".to_owned(), format!("block {reason}")]);
        assert_eq!(world.seen()[0].path, "/ws");
    }
}

#[tokio::test]
async fn what_is_no_sound_question_or_not_allowed_is_refused() {
    let (world, proxy) = start(ENABLED, Gate::open()).await;
    for (target, status, reason) in [
        ("/ws", "400", "request_malformed"),
        ("/ws?url=http://web.test/", "400", "request_malformed"),
        ("/ws?url=ws://a.test/&url=ws://b.test/", "400", "request_malformed"),
        ("/ws?url=ws://evil.test/", "403", "host_denied"),
    ] {
        let text = read_all(&mut ask(proxy, target, "Connection: close\r\n").await).await;
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status}")) && text.contains("\"blocked\": true"),
            "{target}: {text}"
        );
        assert_eq!(told(&world).pop(), Some(format!("block {reason}")), "{target}");
    }
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    let plain = "GET /ws?url=ws://web.test/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    client.write_all(plain.as_bytes()).await.expect("write");
    assert!(read_all(&mut client).await.starts_with("HTTP/1.1 400"));
    let (world, proxy) = start("", Gate::open()).await;
    let target = format!("/ws?url=ws://web.test:{}/ws", world.addr.port());
    let text = read_all(&mut ask(proxy, &target, "Connection: close\r\n").await).await;
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("upgrade_denied"), "the policy has them off: {text}");
    assert!(world.seen().is_empty());
}

#[tokio::test]
async fn a_tunnel_in_the_clear_carries_a_socket_that_is_read() {
    let (world, proxy) = start(ENABLED, Gate::open()).await;
    let port = world.addr.port();
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    let connect = format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n");
    client.write_all(connect.as_bytes()).await.expect("write");
    assert!(head(&mut client).await.starts_with("HTTP/1.1 200"));
    let upgrade = format!(
        "GET /ws HTTP/1.1\r\nHost: web.test:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"
    );
    client.write_all(upgrade.as_bytes()).await.expect("write");
    assert!(head(&mut client).await.starts_with("HTTP/1.1 101"));
    say(&mut client, "hello").await;
    assert_eq!(hear(&mut client).await, (frame::TEXT, b"hello".to_vec()));
    say(&mut client, SECRET).await;
    let (opcode, payload) = hear(&mut client).await;
    assert_eq!((opcode, &payload[..2]), (frame::CLOSE, &1008_u16.to_be_bytes()[..]));
    assert!(!world.evidence_by_now().contains(SECRET));
}

#[tokio::test]
async fn a_page_in_a_browser_gets_no_socket() {
    let (world, proxy) = start(ENABLED, Gate::open()).await;
    let target = format!("/ws?url=ws://web.test:{}/ws", world.addr.port());
    let text = read_all(&mut ask(proxy, &target, "Origin: https://evil.test\r\nConnection: close\r\n").await).await;
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("name_mismatch"), "{text}");
    assert!(world.seen().is_empty());
    let mut own = ask(proxy, &target, "Origin: http://localhost\r\n").await;
    assert!(head(&mut own).await.starts_with("HTTP/1.1 101"));
}

#[tokio::test]
async fn a_token_for_us_goes_no_further() {
    let known = crate::proxy::Identities::parse("ci=0123456789abcdef\n").expect("sound");
    let (world, proxy) = start(ENABLED, Gate::for_those(known)).await;
    let target = format!("/ws?url=ws://web.test:{}/ws", world.addr.port());
    let token = "Authorization: Bearer 0123456789abcdef\r\nX-Kept: 1\r\n";
    let mut client = ask(proxy, &target, token).await;
    assert!(head(&mut client).await.starts_with("HTTP/1.1 101"));
    let seen = &world.seen()[0].headers;
    assert!(!seen.contains_key("authorization") && seen.contains_key("x-kept"), "{seen:?}");
    // What is not for us is the destination's.
    let both = "Proxy-Authorization: Bearer 0123456789abcdef\r\nAuthorization: Bearer theirs\r\n";
    let mut client = ask(proxy, &target, both).await;
    assert!(head(&mut client).await.starts_with("HTTP/1.1 101"));
    let seen = &world.seen()[1].headers;
    assert!(seen["authorization"] == "Bearer theirs" && !seen.contains_key("proxy-authorization"), "{seen:?}");
    assert_eq!(world.identities("ws"), ["ci", "ci"]);
    let wrong = both.replace("cdef", "cdeX") + "Connection: close\r\n";
    assert!(read_all(&mut ask(proxy, &target, &wrong).await).await.starts_with("HTTP/1.1 401"));
}
