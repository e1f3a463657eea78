//! What a client of `/fetch` is told, and what the receipts say.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::proxy::Identities;
use crate::proxy::http::Gate;
use crate::proxy::http::world::{ORDER, SECRET, World, read_all};
use crate::proxy::http::world_evidence::until;

struct Door {
    world: World,
    proxy: SocketAddr,
}

impl Door {
    async fn open(more: &str) -> Self {
        let world = World::new(more).await;
        let proxy = world.door(Gate::open()).await;
        Self { world, proxy }
    }

    /// Sends a request line; the status, the head and the JSON of the answer.
    async fn ask(&self, line: &str) -> (u16, String, Value) {
        self.ask_with(line, "").await
    }

    /// The same with a header.
    async fn ask_with(&self, line: &str, header: &str) -> (u16, String, Value) {
        #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
        let mut client = TcpStream::connect(self.proxy).await.expect("connect");
        let request = format!("{line} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{header}\r\n", self.proxy);
        client.write_all(request.as_bytes()).await.expect("write");
        let text = read_all(&mut client).await;
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_owned(), serde_json::from_str(body).expect("JSON"))
    }

    /// Fetches a path of web.test.
    async fn fetch(&self, path: &str) -> (u16, Value) {
        let port = self.world.addr.port();
        let (status, head, body) = self.ask(&format!("GET /fetch?url=http://web.test:{port}{path}")).await;
        let reason = format!("x-pipelock-reason: {}", body["reason"].as_str().expect("a reason"));
        assert!(head.contains(&reason) && head.contains("content-type: application/json"), "{head}");
        (status, body)
    }

    fn receipts(&self) -> Vec<String> {
        let receipts = self.world.receipts_of("fetch");
        receipts.into_iter().map(|(verdict, reason)| format!("{verdict} {reason}")).collect()
    }
}

const SCANNED: &str = ", scan: true";

#[tokio::test]
async fn a_page_is_shown_as_it_reads() {
    let door = Door::open(SCANNED).await;
    let (status, body) = door.fetch("/page?a=1%26b=2").await;
    let port = door.world.addr.port();
    let expected = serde_json::json!({
        "url": format!("http://web.test:{port}/page?a=1&b=2"), "blocked": false, "reason": "policy_allow",
        "block_reason": null, "scanner": null, "what_to_do": null, "rule": "egress[0] web.test", "status_code": 200,
        "content_type": "text/html; charset=utf-8", "title": "T & t", "content": "Seen", "truncated": false, "scanned": true,
    });
    assert_eq!((status, body), (200, expected));
    let seen = &door.world.seen()[0];
    assert!(seen.method == "GET" && seen.headers["accept-encoding"] == "identity");
    assert!(seen.headers["user-agent"].to_str().expect("text").starts_with("pipelock/"), "nothing of the client's");
    assert_eq!(door.receipts(), ["allow policy_allow"]);
}

#[tokio::test]
async fn what_is_no_text_is_named_and_not_shown_and_long_text_is_cut() {
    let door = Door::open("").await;
    let (status, body) = door.fetch("/order-in-image").await;
    assert_eq!((status, &body["content"], &body["content_type"]), (200, &Value::Null, &"image/png".into()));
    assert_eq!(body["scanned"], false);
    let (_, body) = door.fetch("/long").await;
    assert_eq!(body["content"].as_str().map(str::len), Some(512 * 1024));
    assert_eq!(body["truncated"], true);
}

#[tokio::test]
async fn orders_are_found_however_they_are_written_and_shown() {
    let door = Door::open(SCANNED).await;
    for path in ["/order", "/order-in-header", "/order-late"] {
        let (status, body) = door.fetch(path).await;
        assert_eq!(
            (status, &body["blocked"], &body["scanner"]),
            (403, &true.into(), &"response_scan".into()),
            "{path}"
        );
        assert!(!body.to_string().contains(ORDER), "{body}");
    }
    let before = door.receipts().len();
    for path in ["/order-in-tags", "/order-hidden"] {
        let (status, body) = door.fetch(path).await;
        assert_eq!(
            (status, &body["reason"], &body["blocked"]),
            (403, &"injection_match".into(), &true.into()),
            "{path}"
        );
    }
    // The bytes were let in, and what they say was not.
    let expected = ["allow policy_allow", "block injection_match", "allow policy_allow", "block injection_match"];
    assert_eq!(door.receipts()[before..], expected);
}

#[tokio::test]
async fn what_may_not_be_asked_for_is_refused_before_anything_leaves() {
    let door = Door::open(SCANNED).await;
    let port = door.world.addr.port();
    for (url, status, reason, scanner) in [
        ("http://evil.test/".to_owned(), 403, "host_denied", "policy"),
        (format!("https://web.test:{port}/"), 403, "inspection_unavailable", "policy"),
        (format!("http://web.test:{port}/?k={SECRET}"), 403, "dlp_match", "dlp"),
        ("http://web.test:1/".to_owned(), 403, "port_denied", "policy"),
        ("http://127.0.0.1/".to_owned(), 403, "host_denied", "policy"),
    ] {
        let (code, _, body) = door.ask(&format!("GET /fetch?url={url}")).await;
        assert_eq!((code, &body["reason"], &body["scanner"]), (status, &reason.into(), &scanner.into()), "{url}");
        assert!(body["blocked"] == true && body["block_reason"].as_str().is_some_and(|why| !why.is_empty()), "{body}");
        assert!(!body.to_string().contains(SECRET), "{body}");
        assert_eq!(door.receipts().pop(), Some(format!("block {reason}")), "{url}");
    }
    assert!(door.world.seen().is_empty());
    let evidence = std::fs::read_to_string(door.world.evidence.path().join("evidence/evidence.jsonl"));
    assert!(!evidence.expect("evidence").contains(SECRET));
}

#[tokio::test]
async fn addresses_are_checked_after_resolution() {
    let door = Door::open("ssrf: {allow: [\"10.0.0.0/8\"]}").await;
    let (status, body) = door.fetch("/").await;
    assert_eq!((status, &body["reason"]), (403, &"ssrf_denied".into()));
    assert_eq!(door.receipts(), ["block ssrf_denied"]);
}

#[tokio::test]
async fn every_redirect_is_asked_anew() {
    let door = Door::open(SCANNED).await;
    let (status, body) = door.fetch("/to//page").await;
    assert_eq!((status, &body["title"]), (200, &"T & t".into()));
    assert!(body["url"].as_str().is_some_and(|url| url.ends_with("/page")), "where it led: {body}");
    assert_eq!(door.receipts(), ["allow policy_allow"; 2]);

    let (status, body) = door.fetch("/to/http://evil.test/x").await;
    assert_eq!((status, &body["reason"], &body["url"]), (403, &"host_denied".into(), &"http://evil.test/x".into()));
    assert_eq!(door.receipts()[2..], ["allow policy_allow", "block host_denied"]);

    let (status, body) = door.fetch("/to/ftp://web.test/").await;
    assert_eq!((status, &body["reason"]), (502, &"upstream_failed".into()));
    let before = door.receipts().len();
    let (status, body) = door.fetch("/to//to//to//to//to//to//to//page").await;
    assert_eq!((status, &body["reason"]), (502, &"upstream_failed".into()), "it ends");
    // The one that was asked for, five redirects, and why there is no sixth.
    let mut expected = vec!["allow policy_allow"; 6];
    expected.push("allow upstream_failed");
    assert_eq!(door.receipts()[before..], expected);
}

#[tokio::test]
async fn what_is_no_question_has_a_receipt_that_does_not_repeat_it() {
    let door = Door::open("").await;
    for (line, status) in [
        ("GET /fetch", 400),
        ("GET /fetch?url=", 400),
        ("GET /fetch?url=http://a.test/&url=http://b.test/", 400),
        ("GET /fetch?url=gopher://a.test/", 400),
        ("GET /fetch?url=http://user:ghp_pass@web.test/", 400),
        ("POST /fetch?url=http://web.test/", 405),
    ] {
        let (code, head, body) = door.ask(line).await;
        assert_eq!(
            (code, &body["reason"], &body["blocked"]),
            (status, &"request_malformed".into(), &true.into()),
            "{line}"
        );
        assert_eq!(head.contains("allow: GET"), status == 405, "{head}");
        assert_eq!(door.receipts().pop().as_deref(), Some("block request_malformed"), "{line}");
    }
    assert_eq!(door.receipts().len(), 6);
    let evidence = std::fs::read_to_string(door.world.evidence.path().join("evidence/evidence.jsonl"));
    assert!(!evidence.expect("evidence").contains("ghp_pass"));
}

#[tokio::test]
async fn compressed_answers_that_nobody_asked_for_are_not_shown() {
    let door = Door::open("").await;
    let (status, body) = door.fetch("/packed").await;
    assert_eq!((status, &body["reason"]), (403, &"content_unreadable".into()));
    assert_eq!(door.receipts(), ["allow policy_allow", "block content_unreadable"]);
}

#[tokio::test]
async fn silence_ends_a_fetch() {
    let door = Door::open("limits: {idle_timeout_seconds: 1}").await;
    let (status, body) = door.fetch("/never").await;
    assert_eq!((status, &body["reason"]), (504, &"idle_timeout".into()));
    assert_eq!(door.receipts(), ["allow idle_timeout"]);
}

#[tokio::test]
async fn leaving_ends_a_fetch_with_its_receipt() {
    let door = Door::open("").await;
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(door.proxy).await.expect("connect");
    let port = door.world.addr.port();
    let request = format!("GET /fetch?url=http://web.test:{port}/never HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("write");
    until("it has left", || door.world.waiting() > 0).await;
    drop(client);
    until("it is over", || !door.receipts().is_empty()).await;
    assert_eq!(door.receipts(), ["allow client_aborted"]);
}

#[tokio::test]
async fn an_answer_that_goes_on_is_waited_for_and_one_over_its_budget_is_told_as_such() {
    let door = Door::open("limits: {idle_timeout_seconds: 1}").await;
    let (status, body) = door.fetch("/slow").await;
    assert_eq!((status, &body["content"]), (200, &"word ".repeat(10).into()), "longer than silence may be");
    for scan in ["", SCANNED] {
        let door = Door::open(&format!("{scan}, budgets: {{max_bytes_in: 300000}}")).await;
        let (status, body) = door.fetch("/long").await;
        assert_eq!((status, &body["reason"], &body["blocked"]), (429, &"budget_exceeded".into(), &true.into()));
        assert_eq!(door.receipts(), ["allow policy_allow", "allow budget_exceeded"]);
    }
}

#[tokio::test]
async fn headers_of_the_question_are_read_and_go_nowhere() {
    let door = Door::open(SCANNED).await;
    let line = format!("GET /fetch?url=http://web.test:{}/page", door.world.addr.port());
    let (status, _, body) = door.ask_with(&line, &format!("Cookie: a=b; token={SECRET}\r\n")).await;
    assert_eq!((status, &body["reason"]), (403, &"dlp_match".into()), "{body}");
    let (status, ..) = door.ask_with(&line, "Cookie: a=b; token=c\r\n").await;
    assert_eq!(status, 200);
    assert_eq!(door.receipts(), ["block dlp_match", "allow policy_allow"]);
    assert!(!format!("{:?}", door.world.seen()).contains("a=b"), "nobody else saw it");
}

#[tokio::test]
async fn the_fetches_of_one_connection_have_its_budget_and_what_it_has_open() {
    let door = Door::open(", budgets: {max_bytes_out: 500}").await;
    let port = door.world.addr.port();
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(door.proxy).await.expect("connect");
    let ask = format!("GET /fetch?url=http://web.test:{port}/to//page HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let last = ask.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    client.write_all((ask.repeat(8) + &last).as_bytes()).await.expect("write");
    let text = read_all(&mut client).await;
    assert_eq!(text.matches("HTTP/1.1 ").count(), 9);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains("x-pipelock-reason: budget_exceeded"), "{text}");
    let seen = door.world.seen();
    assert!(seen.len() > 1 && seen.iter().all(|seen| seen.connection == 1), "{seen:?}");
}

#[tokio::test]
async fn no_more_are_under_way_than_memory_is_for_and_one_client_has_not_all() {
    let known = ["a", "b", "c"].map(|name| format!("{name}={}", name.repeat(16))).join("\n");
    let gate = Gate::for_those(Identities::parse(&known).expect("sound"));
    let world = World::new("limits: {idle_timeout_seconds: 4}").await;
    let door = Door { proxy: world.door(gate).await, world };
    let port = door.world.addr.port();
    let token = |name: &str| format!("Authorization: Bearer {}\r\n", name.repeat(16));
    let mut clients = Vec::new();
    let mut begin = async |name: &str| {
        for _ in 0..16 {
            #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
            let mut client = TcpStream::connect(door.proxy).await.expect("connect");
            let line = format!("GET /fetch?url=http://web.test:{port}/never HTTP/1.1");
            let never = format!("{line}\r\nHost: localhost\r\n{}\r\n", token(name));
            client.write_all(never.as_bytes()).await.expect("write");
            clients.push(client);
        }
        while door.world.waiting() < clients.len() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let page = format!("GET /fetch?url=http://web.test:{port}/page");
    let fetch = async |name: &str| door.ask_with(&page, &token(name)).await;
    begin("a").await;
    let (status, head, body) = fetch("a").await;
    assert_eq!((status, &body["reason"], &body["retry_after_seconds"]), (429, &"limit_exceeded".into(), &1.into()));
    assert!(head.contains("retry-after: 1"), "{head}");
    assert!(body["block_reason"].as_str().is_some_and(|why| why.contains("of the same client")), "{body}");
    assert_eq!(fetch("b").await.0, 200, "another has places");
    begin("b").await;
    let (status, _, body) = fetch("c").await;
    assert!(status == 429 && body["block_reason"].as_str().is_some_and(|why| why.starts_with("32 fetches")), "{body}");
    // Those end with silence.
    for _ in 0..4000 {
        if fetch("c").await.0 == 200 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("no place has become free");
}

#[tokio::test]
async fn what_is_only_noted_in_a_page_is_written_before_it_is_shown() {
    let door = Door::open(", scan: true, response: warn").await;
    for round in 1..=20 {
        let (status, _) = door.fetch("/order-hidden").await;
        assert_eq!((status, door.receipts().len()), (200, 2 * round));
    }
    assert!(door.receipts().contains(&"warn policy_allow".to_owned()));
    let evidence = std::fs::read_to_string(door.world.evidence.path().join("evidence/evidence.jsonl"));
    assert_eq!(evidence.expect("evidence").matches("\"part\":\"hidden text\"").count(), 20);
}

#[tokio::test]
async fn health_says_what_is_in_force() {
    let door = Door::open("").await;
    let (status, _, body) = door.ask("GET /health").await;
    let policy = door.world.rules.borrow().policy.id().to_string();
    assert_eq!((status, &body["status"], &body["policy_hash"]), (200, &"ok".into(), &policy.into()));
    assert_eq!((&body["scanner"], &body["evidence"]), (&"ready".into(), &"written".into()));
    assert!(door.receipts().is_empty());
}
