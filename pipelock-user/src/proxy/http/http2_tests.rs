//! HTTP/2 that hyper refuses before anybody here sees it.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use crate::proxy::intercept::tests::opened;

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

/// A head with one value of 70,000 bytes, in as many frames as it needs.
fn too_long(stream: u32) -> Vec<u8> {
    // RFC 7541 §5.1: 127, and the rest in groups of seven bits.
    let value = [&[0x7f, 0xf1, 0xa1, 0x04][..], &[b'x'; 70_000]].concat();
    let head = [&sound()[..], &[0, 1, b'x'], &value].concat();
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
