//! Requests and answers of a rule that scans, from the agent's side: what is refused, what arrives, what the receipts say.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::inspect::KNOWN_FOR_TESTS;
use crate::proxy::http::world::{ORDER, SECRET, World, assert_problem};

async fn world(members: &str) -> World {
    World::new(&format!(", scan: true{members}")).await
}

fn request(method: &str, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = format!("content-length: {}\r\n", body.len());
    let head = format!("{method} {path} HTTP/1.1\r\nhost: web.test:PORT\r\nconnection: close\r\n{headers}{length}\r\n");
    [head.into_bytes(), body.to_vec()].concat()
}

async fn ask(world: &World, request: &[u8]) -> String {
    let port = world.addr.port().to_string();
    let head_end = request.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&request[..head_end]).replace("PORT", &port);
    world.exchange(&[head.as_bytes(), &request[head_end..]].concat()).await
}

/// The one finding of the one receipt.
fn finding(world: &World) -> (String, String, String) {
    let findings = world.findings();
    assert_eq!((findings.len(), findings[0].len()), (1, 1), "{findings:?}");
    let text = |key: &str| findings[0][0][key].as_str().unwrap_or_default().to_owned();
    (text("rule"), text("place"), text("action"))
}

#[tokio::test]
async fn a_secret_in_url_header_or_body_is_refused_and_nothing_arrives() {
    let cases = [
        (request("GET", &format!("/a?key={SECRET}"), "", b""), "url"),
        (request("GET", &format!("/a/{SECRET}/b"), "", b""), "url"),
        (request("GET", "/a", &format!("x-key: {SECRET}\r\n"), b""), "header x-key"),
        (request("GET", "/a", &format!("authorization: Bearer {SECRET}\r\n"), b""), "header authorization"),
        (request("GET", "/a", &format!("date: {SECRET}\r\n"), b""), "header date"),
        (request("GET", "/a", &format!("keep-alive: {SECRET}\r\n"), b""), "header keep-alive"),
        (request("POST", "/a", "", format!("k={SECRET}").as_bytes()), "body"),
    ];
    for (bytes, place) in cases {
        let world = world("").await;
        let text = ask(&world, &bytes).await;
        assert_problem(&text, "403", "dlp_match");
        assert!(text.contains(&format!("token in {place}")) && !text.contains(SECRET), "{text}");
        assert!(world.seen().is_empty(), "{place}");
        assert_eq!(world.receipts(), [("block".to_owned(), "dlp_match".to_owned())]);
        assert_eq!(finding(&world), ("token".into(), place.into(), "block".into()));
    }
}

#[tokio::test]
async fn what_is_clean_arrives_as_it_was_sent_and_comes_back_so() {
    let world = world("").await;
    let mut body = Vec::new();
    for at in 0..200_000_u32 {
        body.extend_from_slice(&at.wrapping_mul(2_654_435_761).to_le_bytes());
    }
    for size in [0, 1, 1000, 64 * 1024, 300 * 1024, body.len()] {
        let text = body.get(..size).expect("so much there is");
        let mut agent = world.agent().await;
        let port = world.addr.port();
        let head = format!(
            "POST /echo HTTP/1.1\r\nhost: web.test:{port}\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n"
        );
        agent.write_all(&[head.as_bytes(), text].concat()).await.expect("write");
        let mut all = Vec::new();
        agent.read_to_end(&mut all).await.expect("read");
        assert!(all.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&all[..all.len().min(900)]));
        assert!(all.ends_with(text), "{size}");
        assert_eq!(world.seen().last().and_then(|seen| seen.body.clone()).as_deref(), Some(text));
    }
}

#[tokio::test]
async fn a_secret_late_in_a_stream_is_cut_before_it_begins() {
    for form in ["chunked", "length"] {
        let world = world("").await;
        let clean = "clean words. ".repeat(20_000);
        let body = format!("{clean}{SECRET} more {clean}");
        let (head, body) = if form == "chunked" {
            ("transfer-encoding: chunked", format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()))
        } else {
            ("x-form: length", body)
        };
        let length = if form == "length" { format!("content-length: {}\r\n", body.len()) } else { String::new() };
        let port = world.addr.port();
        let bytes = format!("POST /echo HTTP/1.1\r\nhost: web.test:{port}\r\n{head}\r\n{length}\r\n{body}");
        let text = world.exchange(bytes.as_bytes()).await;
        assert_problem(&text, "403", "dlp_match");
        let seen = world.seen();
        assert!(seen.iter().all(|seen| seen.body.is_none()), "it was broken off: {}", seen.len());
        assert_eq!(finding(&world), ("token".into(), "body".into(), "block".into()));
    }
}

#[tokio::test]
async fn a_credential_that_the_rule_allows_goes_in_headers_only() {
    let world = world(", allow_secrets: [token]").await;
    let text = ask(&world, &request("GET", "/a", &format!("authorization: Bearer {SECRET}\r\n"), b"")).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(world.last_receipt(), ("allow".into(), "policy_allow".into()));
    let text = ask(&world, &request("POST", "/a", "", SECRET.as_bytes())).await;
    assert_problem(&text, "403", "dlp_match");
    let world = self::world(", allow_secrets: [\"env:KNOWN\"]").await;
    let text = ask(&world, &request("GET", "/a", &format!("x-key: {KNOWN_FOR_TESTS}\r\n"), b"")).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let text = ask(&world, &request(KNOWN_FOR_TESTS, "/a", "", b"")).await;
    assert_problem(&text, "403", "dlp_match");
}

#[tokio::test]
async fn what_is_only_noted_is_in_the_receipt() {
    let world = world("").await;
    let text = ask(&world, &request("POST", "/a", "", b"write to abc@def.example")).await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(world.last_receipt(), ("warn".into(), "policy_allow".into()));
    assert_eq!(finding(&world), ("mail".into(), "body".into(), "warn".into()));
}

#[tokio::test]
async fn instructions_in_an_answer_are_refused_where_they_can_be_and_cut_elsewhere() {
    for (path, place) in [("/order", "body"), ("/order-in-header", "header x-note")] {
        let world = world("").await;
        let text = ask(&world, &request("GET", path, "", b"")).await;
        assert_problem(&text, "403", "injection_match");
        assert!(!text.contains(ORDER));
        assert_eq!(finding(&world), ("order".into(), place.into(), "block".into()));
    }
    let world = world("").await;
    let text = ask(&world, &request("GET", "/order-late", "", b"")).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("clean words") && !text.contains("DISREGARD"), "{text}");
    assert!(!text.ends_with("0\r\n\r\n"), "it does not look whole");
    let receipts = world.receipts_of_count(2).await;
    assert_eq!(receipts.len(), 2, "{receipts:?}");
    assert_eq!(receipts[1], ("block".into(), "injection_match".into()));
}

#[tokio::test]
async fn instructions_in_what_is_no_text_are_noted() {
    let world = world("").await;
    let text = ask(&world, &request("GET", "/order-in-image", "", b"")).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains(ORDER), "{text}");
    assert_eq!(finding(&world), ("order".into(), "body".into(), "warn".into()));
}

#[tokio::test]
async fn what_the_agent_said_itself_is_no_instruction_to_it() {
    let world = world("").await;
    let words = format!("please quote this line: {ORDER}");
    let text = ask(&world, &request("POST", "/echo", "", words.as_bytes())).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.contains(ORDER), "{text}");
}

#[tokio::test]
async fn a_secret_in_two_headers_is_one_in_the_order_that_they_came_in() {
    let (first, second) = SECRET.split_at(20);
    for more in ["", "accept: */*\r\n", "connection: close\r\nkeep-alive: 5\r\n"] {
        let world = world("").await;
        let headers = format!("user-agent: curl/8\r\n{more}x-a: {first}\r\nx-b: {second}\r\n");
        let request = format!("GET /a HTTP/1.1\r\nhost: web.test:PORT\r\n{headers}connection: close\r\n\r\n");
        let text = ask(&world, request.as_bytes()).await;
        assert_problem(&text, "403", "dlp_match");
        // What is let through goes on in its order, too.
        let plain = request.replace(first, "1").replace(second, "2");
        ask(&world, plain.as_bytes()).await;
        let seen = world.seen();
        let names: Vec<_> =
            seen[0].headers.keys().map(|name| name.as_str().to_owned()).filter(|name| name != "host").collect();
        let expected: Vec<_> = ["user-agent", "accept", "x-a", "x-b"]
            .into_iter()
            .filter(|name| *name != "accept" || more.contains("accept"))
            .collect();
        assert_eq!(names, expected, "{more}");
    }
}

#[tokio::test]
async fn methods_of_ones_own_are_read_and_reason_phrases_go_no_further() {
    let world = world("").await;
    let (first, second) = SECRET.split_at(20);
    ask(&world, &request(first, "/a", "", b"")).await;
    assert_problem(&ask(&world, &request(second, "/a", "", b"")).await, "403", "dlp_match");
    assert_eq!(world.findings().last().map(|all| all[0]["place"].clone()), Some("method".into()));
    let text = ask(&world, &request("GET", "/reason", "", b"")).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("fine words"), "{text}");
}

#[tokio::test]
async fn redaction_changes_the_length_and_nothing_else() {
    for clean in [10, 100_000] {
        let world = World::scanning("dlp: {action: redact}\nresponse: {action: redact}").await;
        let clean = "x".repeat(clean);
        let answer = ask(&world, &request("POST", "/echo", "", format!("{clean} {SECRET} end").as_bytes())).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let expected = format!("{clean} <pipelock:credential:1> end");
        assert_eq!(world.seen()[0].body.as_deref(), Some(expected.as_bytes()));
        assert_eq!(world.receipts()[0].0, "strip");
        let answer = ask(&world, &request("GET", "/order", "", b"")).await;
        assert!(answer.ends_with("Dear agent, <pipelock:instruction_override:1> and go."), "{answer}");
    }
}

#[tokio::test]
async fn what_says_how_a_body_was_goes_when_it_changes() {
    let redacting = || World::scanning("dlp: {action: redact}");
    let headers = "digest: sha-256=x\r\ncontent-digest: sha-256=:x:\r\nrepr-digest: sha-256=:x:\r\ncontent-md5: x\r\n\
                   content-range: bytes 0-9/10\r\netag: x\r\n";
    for length in [10, 100_000] {
        let world = redacting().await;
        let (clean, more) = ("x".repeat(length), if length > 10 { 0 } else { 5 });
        ask(&world, &request("POST", "/echo", headers, format!("{clean} {SECRET} end").as_bytes())).await;
        ask(&world, &request("POST", "/echo", headers, b"clean")).await;
        let count: Vec<_> = world
            .seen()
            .iter()
            .map(|seen| {
                let names = ["digest", "content-digest", "repr-digest", "content-md5", "content-range"];
                names.iter().filter(|name| seen.headers.contains_key(**name)).count()
            })
            .collect();
        assert_eq!(count, [0, 5], "{more}");
        assert!(world.seen().iter().all(|seen| seen.headers.contains_key("etag")));
    }
    // In UTF-16 a placeholder would be no text.
    let world = redacting().await;
    let text: Vec<u8> = format!("some words {SECRET} end").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let answer = ask(&world, &request("POST", "/echo", "", &text)).await;
    assert_problem(&answer, "403", "dlp_match");
    assert!(world.seen().is_empty());
}

#[tokio::test]
async fn a_coding_that_cannot_be_undone_is_refused_and_not_asked_for() {
    let world = world("").await;
    let text = ask(&world, &request("POST", "/a", "content-encoding: compress\r\n", b"x")).await;
    assert_problem(&text, "403", "content_unreadable");
    ask(&world, &request("GET", "/a", "accept-encoding: gzip, dcb, br;q=0.5\r\n", b"")).await;
    ask(&world, &request("GET", "/a", "accept-encoding: gzip\r\nrange: bytes=0-9\r\n", b"")).await;
    let asked: Vec<_> = world.seen().iter().map(|seen| seen.headers["accept-encoding"].clone()).collect();
    assert_eq!(asked, ["gzip, br;q=0.5", "identity"]);
}

#[test]
fn what_is_asked_for_can_be_read() {
    let asked = |pairs: &[(&'static str, &'static str)]| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        ask_readable(&mut headers);
        headers.get("accept-encoding").map(|value| value.to_str().expect("text").to_owned())
    };
    assert_eq!(asked(&[]), None);
    for (wanted, expected) in [
        ("gzip, deflate, br, zstd", "gzip, deflate, br, zstd"),
        ("compress;q=0.9, *;q=0.1", "gzip;q=0.1"),
        ("*;q=0", "gzip;q=0"),
        ("GZIP ;q=0.2", "GZIP ;q=0.2"),
        ("exi, dcz", "identity"),
        ("", "identity"),
    ] {
        assert_eq!(asked(&[("accept-encoding", wanted)]).as_deref(), Some(expected), "{wanted}");
    }
    let coded = ("accept-encoding", "gzip");
    for accept in ["text/event-stream", "application/json, Text/Event-Stream;q=0.5"] {
        assert_eq!(asked(&[coded, ("accept", accept)]).as_deref(), Some("identity"), "{accept}");
    }
    assert_eq!(asked(&[coded, ("accept", "text/html")]).as_deref(), Some("gzip"));
}

#[tokio::test]
async fn without_scanners_nothing_passes() {
    let world = World::with(|port, _| {
        let mut rules = crate::proxy::http::world::rules(port, ", scan: true");
        rules.inspect = None;
        (rules, None)
    })
    .await;
    let text = ask(&world, &request("GET", "/a", "", b"")).await;
    assert_problem(&text, "503", "scanner_unavailable");
    assert!(world.seen().is_empty());
}

#[tokio::test]
async fn event_streams_pass_and_what_their_events_say_together_is_noted() {
    let world = world("").await;
    let text = ask(&world, &request("GET", "/events", "", b"")).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.matches("data: ").count() == 40, "{text}");
    assert_eq!(world.receipts().len(), 1);
    let text = ask(&world, &request("GET", "/secret-events", "", b"")).await;
    assert_eq!(text.matches("data: ").count(), 40, "{text}");
    assert_eq!(world.receipts_of_count(3).await[2], ("warn".into(), "policy_allow".into()));
    assert_eq!(world.findings()[2][0]["place"], "events");
}

#[tokio::test]
async fn a_secret_in_pieces_is_refused_with_the_request_that_completes_it() {
    type Make = fn(&str) -> Vec<u8>;
    let ways: [(&str, Make); 11] = [
        ("header x-p", |part| request("GET", "/a", &format!("x-p: {part}\r\n"), b"")),
        ("url", |part| request("GET", &format!("/a?q={part}"), "", b"")),
        ("url", |part| request("GET", &format!("/a/{part}/b"), "", b"")),
        ("body", |part| request("POST", "/a", "", part.as_bytes())),
        ("body", |part| request("POST", "/a", "", format!("k={part}&n=1").as_bytes())),
        ("body", |part| request("POST", "/a", "", format!("{{\"n\": 1, \"d\": [\"{part}\"]}}").as_bytes())),
        ("body", |part| request("POST", "/a", "", format!("{{\"n\": {{\"{part}\": 1}}}}").as_bytes())),
        ("body", |part| request("POST", "/a", "", format!("{{\"d\": \"{part}\", \"d\": \"\"}}").as_bytes())),
        ("body", |part| request("POST", "/a", "", format!("{part}=1&n=2").as_bytes())),
        ("body", |part| chunked(&[part])),
        ("body", |part| chunked(&["{\"d\": \"", part, "\"", "}"])),
    ];
    for (place, make) in ways {
        for size in [10, 20] {
            let world = world("").await;
            let parts: Vec<String> =
                SECRET.as_bytes().chunks(size).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
            let (last, first) = parts.split_last().expect("some");
            for part in first {
                let text = ask(&world, &make(part)).await;
                assert!(text.starts_with("HTTP/1.1 200"), "{place} {part}: {text}");
            }
            // Also when it is tried again.
            for _ in 0..2 {
                assert_problem(&ask(&world, &make(last)).await, "403", "dlp_match");
            }
            let seen = world.seen();
            assert_eq!(seen.iter().filter(|seen| seen.body.is_some()).count(), first.len(), "{place}");
            assert!(seen.iter().all(|seen| !format!("{seen:?}").contains(last)), "{place}: {seen:?}");
            let findings = world.findings();
            let found = findings.last().and_then(|found| found.first()).expect("a finding");
            assert_eq!((&found["rule"], &found["place"]), (&"token".into(), &place.into()));
        }
    }
}

/// A request whose body comes in chunks.
fn chunked(pieces: &[&str]) -> Vec<u8> {
    let chunks: String = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect();
    format!("POST /a HTTP/1.1\r\nhost: web.test:PORT\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
        .into_bytes()
}

#[tokio::test]
async fn what_ordinary_requests_say_together_is_nothing() {
    let world = world("").await;
    for at in 0..30 {
        let headers = format!(
            "user-agent: tool/1.2\r\naccept: application/json\r\nx-request-id: 550e8400-e29b-41d4-a716-4466554400{at:02}\r\n\
             cookie: theme=dark; lang=en\r\n"
        );
        let body =
            format!("{{\"model\": \"large\", \"messages\": [{{\"role\": \"user\", \"content\": \"Number {at}\"}}]}}");
        let text = ask(&world, &request("POST", "/v1/messages", &headers, body.as_bytes())).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    assert!(world.findings().iter().all(Vec::is_empty), "{:?}", world.findings());
}

#[tokio::test]
async fn a_rule_says_what_becomes_of_secrets_that_come_in() {
    let world = world(", response_secrets: block").await;
    let text = ask(&world, &request("GET", "/secret-events", "", b"")).await;
    assert!(!text.contains("data: "), "{text}");
    assert_problem(&text, "403", "injection_match");
    assert_eq!(world.receipts(), [("block".to_owned(), "injection_match".to_owned())]);
    let world = self::world(", response: block").await;
    let text = ask(&world, &request("GET", "/secret-events", "", b"")).await;
    assert_eq!(text.matches("data: ").count(), 40, "that is about instructions: {text}");
}
