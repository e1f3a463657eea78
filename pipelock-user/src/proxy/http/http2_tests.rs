//! HTTP/2 that hyper refuses before anybody here sees it.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::proxy::intercept::tests::{opened, over_http2};

/// Types and flags of frames (RFC 9113 §6).
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET https` by the static table (RFC 7541 §A).
const NO_PATH: &[u8] = &[0x82, 0x87];

fn sound() -> Vec<u8> {
    [NO_PATH, &[0x44, 5], b"/ok/x", &[0x41, 8], b"web.test"].concat()
}

/// A head with one value of 70,000 bytes.
fn too_long(stream: u32) -> Vec<u8> {
    // RFC 7541 §5.1: 127, and the rest in groups of seven bits.
    let value = [&[0x7f, 0xf1, 0xa1, 0x04][..], &[b'x'; 70_000]].concat();
    in_frames(stream, &[&sound()[..], &[0, 1, b'x'], &value].concat())
}

/// A head in as many frames as it needs.
fn in_frames(stream: u32, head: &[u8]) -> Vec<u8> {
    let mut frames = Vec::new();
    let pieces = head.chunks(16_384).collect::<Vec<_>>();
    for (number, piece) in pieces.iter().enumerate() {
        let (kind, flags) = if number == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
        let last = if number + 1 == pieces.len() { END_HEADERS } else { 0 };
        frames.extend(frame(kind, flags | last, stream, piece));
    }
    frames
}

/// The receipts of these frames, sorted.
async fn receipts(frames: &[u8], count: usize) -> Vec<(String, String)> {
    let opened = opened("web.test", true).await;
    let mut stream = opened.connect(&["h2"]).await;
    let start = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
    stream.write_all(&[&start, frames].concat()).await.expect("write");
    opened.world.receipts_of_count(count).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut receipts = opened.world.receipts();
    receipts.sort();
    receipts
}

fn pair(verdict: &str, reason: &str) -> (String, String) {
    (verdict.into(), reason.into())
}

#[tokio::test]
async fn heads_that_are_refused_before_anybody_sees_them_have_receipts_beside_those_of_others() {
    let request = |stream: u32, head: &[u8]| frame(HEADERS, END_STREAM | END_HEADERS, stream, head);
    let frames = [request(1, NO_PATH), request(3, &sound()), too_long(5), request(7, &sound())].concat();
    let expected = [
        pair("allow", "policy_allow"),
        pair("allow", "policy_allow"),
        pair("block", "limit_exceeded"),
        pair("block", "request_malformed"),
    ];
    assert_eq!(receipts(&frames, expected.len()).await, expected);
    // An index that no table has: the whole connection cannot be read any more.
    assert_eq!(receipts(&request(1, &[0xff, 0xff, 0x0f]), 1).await, [pair("block", "request_malformed")]);
}

#[tokio::test]
async fn a_head_beyond_the_limits_is_answered_as_over_http1() {
    let opened = opened("web.test", true).await;
    let port = opened.world.addr.port();
    let begun = |path: &str| Request::builder().uri(format!("https://web.test:{port}/ok/{path}"));
    let many = (0..101).fold(begun("many"), |request, at| request.header(format!("x-{at}"), "1"));
    let requests = [
        many,
        begun("long").header("x", "x".repeat(70_000)),
        begun("cookies").header("cookie", "x".repeat(40_000)).header("cookie", "y".repeat(40_000)),
    ];
    let requests = requests.map(|request| request.body(Full::new(Bytes::new())).expect("a request"));
    for (status, reason, body) in over_http2(opened.connect(&["h2"]).await, requests.into()).await {
        assert_eq!((status.as_u16(), reason.as_str()), (431, "limit_exceeded"), "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((&body["reason"], &body["status"]), (&"limit_exceeded".into(), &431.into()), "{body}");
    }
    assert_eq!(opened.world.receipts(), vec![pair("block", "limit_exceeded"); 3]);
    let evidence = opened.world.evidence_by_now();
    for path in ["many", "long", "cookies"] {
        assert!(evidence.contains(&format!("/ok/{path}\"")), "{path}: {evidence}");
    }
    assert!(evidence.contains("\"GET\"") && opened.world.seen().is_empty(), "{evidence}");
}

#[tokio::test]
async fn a_head_that_hyper_refuses_by_itself_is_answered_with_the_reason() {
    let opened = opened("web.test", true).await;
    let port = opened.world.addr.port();
    let long = Request::builder().uri(format!("https://web.test:{port}/ok/x")).header("x", "x".repeat(140_000));
    let answers =
        over_http2(opened.connect(&["h2"]).await, vec![long.body(Full::new(Bytes::new())).expect("a request")]).await;
    assert_eq!(answers, [(http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "limit_exceeded".into(), String::new())]);
    let mut stream = opened.connect(&["h2"]).await;
    let head = [sound(), literal("connection", "close")].concat();
    let start = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
    stream.write_all(&[start, frame(HEADERS, END_STREAM | END_HEADERS, 1, &head)].concat()).await.expect("write");
    let block = [&[0x8c][..], &literal("x-pipelock-reason", "request_malformed")].concat();
    let answer = [frame(HEADERS, END_STREAM | END_HEADERS, 1, &block), frame(3, 0, 1, &[0, 0, 0, 1])].concat();
    let mut read = Vec::new();
    while !read.windows(answer.len()).any(|window| window == answer) {
        assert!(stream.read_buf(&mut read).await.expect("read") > 0, "{read:x?}");
    }
    assert_eq!(opened.world.receipts(), [pair("block", "limit_exceeded"), pair("block", "request_malformed")]);
}

#[tokio::test]
async fn a_path_beyond_what_one_may_be_is_told_as_what_it_may_be() {
    let opened = opened("web.test", true).await;
    let mut stream = opened.connect(&["h2"]).await;
    // 70,000 bytes as they are, and in Huffman's letters: `a` has five bits (RFC 7541 §5.2, §B).
    let plain = [&[0x44, 0x7f, 0xf1, 0xa1, 0x04][..], &[b'a'; 70_000]].concat();
    let letters = [0x18, 0xc6, 0x31, 0x8c, 0x63].repeat(70_000 / 8);
    let huffman = [&[0x44, 0xff, 0xe7, 0xd4, 0x02][..], &letters].concat();
    let start = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
    let of = |stream: u32, path: &[u8]| in_frames(stream, &[NO_PATH, &[0x41, 8], b"web.test", path].concat());
    stream.write_all(&[start, of(1, &plain), of(3, &huffman)].concat()).await.expect("write");
    let block = [&[0x8c][..], &literal("x-pipelock-reason", "request_malformed")].concat();
    let mut read = Vec::new();
    for number in [1, 3] {
        let answer = frame(HEADERS, END_STREAM | END_HEADERS, number, &block);
        while !read.windows(answer.len()).any(|window| window == answer) {
            let more = tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut read)).await;
            assert!(more.is_ok_and(|count| count.expect("read") > 0), "{read:x?}");
        }
    }
    opened.world.receipts_of_count(2).await;
    assert_eq!(opened.world.receipts(), vec![pair("block", "request_malformed"); 2]);
}

/// A header, as it is spelled (RFC 7541 §6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let of = |text: &str| [&[u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
    [&[0][..], &of(name), &of(value)].concat()
}

#[tokio::test]
async fn whatever_breaks_http2_in_a_head_has_its_receipt() {
    let and = |name: &str, value: &str| [sound(), literal(name, value)].concat();
    let without_path = |more: &[u8]| [NO_PATH, &[0x41, 8], b"web.test", more].concat();
    for (what, head) in [
        ("no path", without_path(&[])),
        ("an empty path", without_path(&literal(":path", ""))),
        ("a path with a blank", without_path(&literal(":path", "/ok/a b"))),
        ("a path with a control character", without_path(&literal(":path", "/ok/\x01"))),
        ("a path without a slash", without_path(&literal(":path", "ok/x"))),
        ("two paths", and(":path", "/ok/y")),
        ("a pseudo-header behind others", [sound(), literal("x", "y"), literal(":authority", "web.test")].concat()),
        ("a status", and(":status", "200")),
        ("a pseudo-header that nobody knows", and(":x", "y")),
        ("a protocol", and(":protocol", "websocket")),
        ("an upper-case name", and("X-Upper", "y")),
        ("a name with a blank", and("x y", "y")),
        ("no name", and("", "y")),
        ("a value with NUL", and("x", "y\0")),
        ("a value with a line's end", and("x", "y\r\nz: 1")),
        ("connection", and("connection", "close")),
        ("keep-alive", and("keep-alive", "timeout=5")),
        ("upgrade", and("upgrade", "h2c")),
        ("transfer-encoding", and("transfer-encoding", "chunked")),
        ("te", and("te", "gzip")),
        ("a length that is none", and("content-length", "x")),
        ("a length without a body", and("content-length", "5")),
        ("two lengths", [and("content-length", "0"), literal("content-length", "0")].concat()),
        ("another authority", and("host", "other.test")),
        ("a decoy", and("content_length", "0")),
    ] {
        let found = receipts(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &head), 1).await;
        assert!(found.len() == 1 && found[0].0 == "block", "{what}: {found:?}");
        assert!(
            ["request_malformed", "name_mismatch", "misdirected"].contains(&found[0].1.as_str()),
            "{what}: {found:?}"
        );
    }
}
