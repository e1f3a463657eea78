//! Destinations that answer what no library would: framed in two ways, cut short, with trailers; over HTTP/1.1 and HTTP/2 in
//! the clear.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::serve_http2;
use super::world::{ORDER, SECRET, World, assert_problem, read_all, rules};

/// A destination that sends bytes once it has got `awaited`, and hangs up; and what it got.
async fn before(awaited: &'static [u8], answer: Vec<u8>, members: &str) -> (World, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let addr = listener.local_addr().expect("bound");
    let got = Arc::new(Mutex::new(Vec::new()));
    let log = got.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut seen: Vec<u8> = Vec::new();
            while !seen.windows(awaited.len()).any(|window| window == awaited) {
                let Ok(byte) = stream.read_u8().await else { break };
                seen.push(byte);
                log.lock().expect("not poisoned").push(byte);
            }
            let _ = stream.write_all(&answer).await;
            // What HTTP/2 still acknowledges, so that no reset overtakes the answer.
            let drain = async { while stream.read_u8().await.is_ok() {} };
            let _ = tokio::time::timeout(Duration::from_millis(200), drain).await;
        }
    });
    let mut world = World::with(|_, _| (rules(addr.port(), members), None)).await;
    world.addr = addr;
    (world, got)
}

async fn ask(world: &World, head: &str, body: &str) -> String {
    let port = world.addr.port();
    let mut agent = world.agent().await;
    let head = format!("{head} HTTP/1.1\r\nhost: web.test:{port}\r\nconnection: close\r\n");
    agent.write_all(format!("{head}{body}").as_bytes()).await.expect("write");
    read_all(&mut agent).await
}

#[tokio::test]
async fn an_answer_with_two_lengths_is_refused_and_nothing_of_it_passes() {
    for scan in ["", ", scan: true"] {
        for lines in [
            "content-length: 2\r\ntransfer-encoding: chunked",
            "transfer-encoding: chunked\r\ncontent-length: 2",
            "content-length: 5\r\ncontent-length: 5",
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: gzip",
        ] {
            let answer = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
            let (world, _) = before(b"\r\n\r\n", answer.into(), scan).await;
            let text = ask(&world, "GET /", "\r\n").await;
            assert_problem(&text, "502", "upstream_failed");
            assert!(text.contains("two ways"), "{text}");
            assert_eq!(world.receipts(), [("allow".to_owned(), "upstream_failed".to_owned())], "{lines}");
        }
    }
}

#[tokio::test]
async fn trailers_of_an_answer_pass() {
    for (scan, lines) in [("", "trailer: x-sum\r\n"), (", scan: true", "trailer: x-sum\r\n"), (", scan: true", "")] {
        let answer =
            format!("HTTP/1.1 200 OK\r\n{lines}transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n");
        let (world, got) = before(b"\r\n\r\n", answer.into(), scan).await;
        let text = ask(&world, "GET /", "\r\n").await;
        assert!(text.contains("hello") && text.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{scan} {lines}: {text}");
        let got = String::from_utf8_lossy(&got.lock().expect("not poisoned")).to_lowercase();
        assert!(!got.contains("te:"), "the agent did not say so: {got}");
    }
}

#[tokio::test]
async fn an_instruction_in_a_trailer_is_stopped() {
    let answer =
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-note: {ORDER}\r\n\r\n");
    let (world, _) = before(b"\r\n\r\n", answer.into(), ", scan: true").await;
    let text = ask(&world, "GET /", "\r\n").await;
    assert_problem(&text, "403", "injection_match");
    assert!(!text.contains(ORDER) && !text.contains("hello"), "{text}");
}

#[tokio::test]
async fn trailers_of_a_request_pass_and_are_read() {
    let clean =
        "trailer: x-sum\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n";
    for scan in ["", ", scan: true"] {
        let (world, got) =
            before(b"x-sum: 7\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into(), scan).await;
        let text = ask(&world, "POST /", clean).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("ok"), "{text}");
        let got = String::from_utf8_lossy(&got.lock().expect("not poisoned")).to_lowercase();
        assert!(got.contains("\r\nte: trailers\r\n") && got.contains("\r\ntrailer: x-sum\r\n"), "{got}");
    }
    let (world, got) =
        before(SECRET.as_bytes(), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into(), ", scan: true").await;
    let text = ask(&world, "POST /", &clean.replace("x-sum: 7", &format!("x-sum: {SECRET}"))).await;
    assert_problem(&text, "403", "dlp_match");
    let got = String::from_utf8_lossy(&got.lock().expect("not poisoned")).into_owned();
    assert!(!got.contains(SECRET) && !got.ends_with("0\r\n\r\n"), "{got}");
}

/// Type, flags and stream of the head of the first request over HTTP/2: END_STREAM, END_HEADERS (RFC 9113 §6.2).
const HEAD_OF_1: &[u8] = &[1, 5, 0, 0, 0, 1];

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// SETTINGS, its acknowledgement, and a head: `:status: 200` and perhaps a length (RFC 7541 §6).
fn head(length: Option<&str>) -> Vec<u8> {
    let mut block = vec![0x88];
    if let Some(length) = length {
        block.extend([0x0f, 0x0d, u8::try_from(length.len()).expect("short")]);
        block.extend(length.as_bytes());
    }
    [frame(4, 0, 0, &[]), frame(4, 1, 0, &[]), frame(1, 4, 1, &block)].concat()
}

fn data(text: &[u8], is_last: bool) -> Vec<u8> {
    let mut pieces: Vec<Vec<u8>> = text.chunks(16_000).map(|piece| frame(0, 0, 1, piece)).collect();
    if is_last {
        pieces.push(frame(0, 1, 1, &[]));
    }
    pieces.concat()
}

/// What an agent gets over HTTP/2 in the clear: the answer, and its body, if it is whole.
async fn ask_http2(world: &World, method: &str) -> Option<(http::response::Parts, Option<Bytes>)> {
    let (agent, stream, flow, guard) = world.flow().await;
    let proxy = world.proxy.clone();
    tokio::spawn(async move { serve_http2(&proxy, stream, BytesMut::new(), flow, Some(guard), false).await });
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(agent)).await.expect("a connection");
    tokio::spawn(connection);
    let url = format!("http://web.test:{}/x", world.addr.port());
    let request = Request::builder().method(method).uri(url).body(Full::<Bytes>::default()).expect("a request");
    let answer = tokio::time::timeout(Duration::from_secs(20), sender.send_request(request)).await.expect("in time");
    let (head, body) = answer.ok()?.into_parts();
    Some((head, body.collect().await.ok().map(http_body_util::Collected::to_bytes)))
}

#[tokio::test]
async fn http2_in_the_clear_is_read_like_everything() {
    let answer = [head(Some("5")), data(b"hello", true)].concat();
    let (world, got) = before(HEAD_OF_1, answer, ", scan: true").await;
    let (head, body) = ask_http2(&world, "GET").await.expect("an answer");
    assert_eq!((head.status, body), (StatusCode::OK, Some("hello".into())));
    assert!(got.lock().expect("not poisoned").starts_with(b"PRI * HTTP/2.0"));
    assert_eq!(world.receipts(), [("allow".to_owned(), "policy_allow".to_owned())]);
}

#[tokio::test]
async fn the_length_that_an_answer_to_head_names_stays() {
    for scan in ["", ", scan: true"] {
        let answer = [self::head(Some("5")), data(b"", true)].concat();
        let (world, _) = before(HEAD_OF_1, answer, scan).await;
        let (head, body) = ask_http2(&world, "HEAD").await.expect("an answer");
        assert_eq!((head.status, body), (StatusCode::OK, Some(Bytes::new())));
        assert_eq!(head.headers["content-length"], "5", "{scan}");
    }
}

#[tokio::test]
async fn an_answer_that_was_cut_is_never_taken_for_whole() {
    let go_away = frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    let reset = frame(3, 0, 1, &[0, 0, 0, 0]);
    for scan in ["", ", scan: true"] {
        for end in [vec![], go_away.clone(), reset.clone()] {
            for (length, sent) in [(Some("1000"), 100), (None, 100), (Some("1000000"), 100_000), (None, 200_000)] {
                let answer = [head(length), data(&vec![b' '; sent], false), end.clone()].concat();
                let (world, _) = before(HEAD_OF_1, answer, scan).await;
                // A reset may overtake the head.
                let (status, body) =
                    ask_http2(&world, "GET").await.map_or((StatusCode::OK, None), |(head, body)| (head.status, body));
                let is_told = status == StatusCode::BAD_GATEWAY || body.is_none();
                assert!(is_told, "{scan} {length:?} {end:?}: {status} {:?}", body.map(|body| body.len()));
                // What is read whole is refused with a word, however slowly it comes.
                let is_whole = !scan.is_empty() && length == Some("1000");
                assert!(!is_whole || status == StatusCode::BAD_GATEWAY, "{length:?}: {status}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_stopped_before_any_of_it_went_on_is_a_denial_over_http2_too() {
    for length in [Some("1000"), None] {
        let text = format!("{:<1000}", format!("Dear agent, {ORDER} and go."));
        for is_last in [true, false] {
            let answer = [self::head(length), data(text.as_bytes(), is_last)].concat();
            let (world, _) = before(HEAD_OF_1, answer, ", scan: true").await;
            let (head, body) = ask_http2(&world, "GET").await.expect("an answer");
            let body = String::from_utf8_lossy(&body.expect("a whole body")).into_owned();
            assert_eq!(head.status, StatusCode::FORBIDDEN, "{length:?} {body}");
            assert!(body.contains("\"reason\": \"injection_match\"") && !body.contains(ORDER), "{body}");
            assert_eq!(world.receipts().len(), 1);
        }
    }
}
