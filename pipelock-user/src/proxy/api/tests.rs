//! What the Scan API says, held against its contract, and what the receipts say.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::CONTRACT;
use super::judge::judge;
use super::question::{self, Kind};
use super::{A_MINUTE, BURST};
use crate::flow::{Answer, Answering, Asker, Question, Reason};
use crate::policy::Policy;
use crate::proxy::http::Gate;
use crate::proxy::http::world::{ORDER, SECRET, World, read_all, rules};
use crate::proxy::state::Rules;

struct Door {
    world: World,
    proxy: SocketAddr,
}

impl Door {
    async fn open(more: &str, gate: Gate) -> Self {
        Self::before(World::new(more).await, gate).await
    }

    async fn before(world: World, gate: Gate) -> Self {
        let proxy = world.door(gate).await;
        Self { world, proxy }
    }

    /// Sends a request; the status, the head and the JSON of the answer, which are what the contract says.
    async fn send(&self, method: &str, headers: &str, body: &[u8]) -> (u16, String, Value) {
        #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
        let mut client = TcpStream::connect(self.proxy).await.expect("connect");
        let head = format!("{method} /api/v1/scan HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{headers}", self.proxy);
        let head = format!("{head}Content-Length: {}\r\n\r\n", body.len());
        client.write_all(head.as_bytes()).await.expect("write");
        let _ = client.write_all(body).await;
        let text = read_all(&mut client).await;
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let body = serde_json::from_str(body).expect("JSON");
        assert_sound(status, head, &body);
        (status, head.to_owned(), body)
    }

    async fn ask(&self, question: &Value) -> (u16, Value) {
        let (status, _, body) = self.send("POST", JSON, question.to_string().as_bytes()).await;
        (status, body)
    }

    fn receipts(&self) -> Vec<String> {
        let receipts = self.world.receipts_of("scan");
        receipts.into_iter().map(|(verdict, reason)| format!("{verdict} {reason}")).collect()
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

fn contract() -> Value {
    serde_json::from_str(CONTRACT).expect("JSON")
}

/// Whether a value is one of a schema of the contract.
fn is_a(name: &str, value: &Value) -> Result<(), String> {
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("urn:contract", contract()).expect("a document");
    let mut schemas = boon::Schemas::new();
    let place = format!("urn:contract#/components/schemas/{name}");
    let index = compiler.compile(&place, &mut schemas).expect("a schema");
    schemas.validate(value, index).map_err(|error| format!("{error:#}"))
}

fn assert_sound(status: u16, head: &str, body: &Value) {
    let answer = &contract()["paths"]["/api/v1/scan"]["post"]["responses"][status.to_string()];
    let kinds = answer["content"].as_object().expect("the status is in the contract");
    let is_it = |kind: &&String| head.contains(&format!("content-type: {kind}\r\n"));
    let media = kinds.keys().find(is_it).map(|kind| &kinds[kind]).expect("so is its form");
    let name = media["schema"]["$ref"].as_str().and_then(|name| name.rsplit('/').next()).expect("a name");
    is_a(name, body).unwrap_or_else(|error| panic!("{status} {body:#}: {error}"));
}

#[test]
fn the_contract_knows_every_reason_and_its_examples_are_questions() {
    let contract = contract();
    let reasons: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    assert_eq!(contract["components"]["schemas"]["Reason"]["enum"], json!(reasons));
    let examples = &contract["paths"]["/api/v1/scan"]["post"]["requestBody"]["content"]["application/json"]["examples"];
    for (kind, example) in examples.as_object().expect("examples") {
        is_a("Question", &example["value"]).expect("a question by the contract");
        let read = question::read(example["value"].to_string().as_bytes()).expect("a question");
        assert_eq!(read.kind.word(), kind);
    }
    let input = |kind: usize| &contract["components"]["schemas"]["Question"]["oneOf"][kind]["properties"]["input"]["properties"];
    let request_id = &contract["components"]["schemas"]["Context"]["properties"]["request_id"]["oneOf"][0];
    for (of, most) in [
        (&input(0)["url"], question::MOST_URL),
        (&input(0)["method"]["oneOf"][0], question::MOST_METHOD),
        (&input(1)["text"], question::MOST_TEXT),
        (&input(2)["content"], question::MOST_TEXT),
        (&input(3)["tool_name"], question::MOST_NAME),
        (request_id, question::MOST_NAME),
    ] {
        assert_eq!(of["maxLength"], most, "{of}");
    }
    let often = &contract["paths"]["/api/v1/scan"]["post"]["responses"]["429"]["description"];
    let rates = format!("More than {} questions a minute, {} at once: rate_limited.", A_MINUTE, BURST);
    assert_eq!(often.as_str(), Some(rates.as_str()));
}

#[tokio::test]
async fn urls_are_judged_as_if_they_were_asked_for_and_nothing_is() {
    let door = Door::open(", scan: true, methods: [GET]", Gate::open()).await;
    let port = door.world.addr.port();
    for (url, method, verdict, reason, scanner) in [
        (format!("http://web.test:{port}/x"), "GET", "allow", "policy_allow", Value::Null),
        (format!("http://web.test:{port}/x"), "PUT", "block", "method_denied", "policy".into()),
        ("http://evil.test/".into(), "GET", "block", "host_denied", "policy".into()),
        ("ftp://web.test/".into(), "GET", "block", "request_malformed", "policy".into()),
        (format!("http://u:p@web.test:{port}/"), "GET", "block", "request_malformed", "policy".into()),
        (format!("http://web.test:{port}/"), "A B", "block", "request_malformed", "policy".into()),
        (format!("http://web.test:{port}/?k={SECRET}"), "GET", "block", "dlp_match", "dlp".into()),
    ] {
        let question =
            json!({"kind": "url", "input": {"url": url, "method": method}, "context": {"request_id": "r-1"}});
        let (status, body) = door.ask(&question).await;
        assert_eq!((status, &body["verdict"], &body["reason"]), (200, &verdict.into(), &reason.into()), "{url}");
        assert_eq!((&body["scanner"], &body["request_id"]), (&scanner, &"r-1".into()));
        assert_eq!(body["decision"] == "deny", body["blocked"] == true);
        assert!(!body.to_string().contains(SECRET), "{body}");
        assert_eq!(door.receipts().pop(), Some(format!("{verdict} {reason}")), "{url}");
    }
    assert!(door.world.seen().is_empty(), "nothing is asked for");
    let closed = Door::open("ssrf: {allow: [\"10.0.0.0/8\"]}", Gate::open()).await;
    let url = format!("http://web.test:{}/", closed.world.addr.port());
    let (_, body) = closed.ask(&json!({"kind": "url", "input": {"url": url}})).await;
    assert_eq!(body["reason"], "ssrf_denied");
}

#[tokio::test]
async fn texts_are_judged_and_not_remembered() {
    let door = Door::open("", Gate::open()).await;
    let split: String = SECRET.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    for (question, verdict, reason) in [
        (json!({"kind": "dlp", "input": {"text": "plain words"}}), "allow", "policy_allow"),
        (json!({"kind": "dlp", "input": {"text": format!("my {SECRET}")}}), "block", "dlp_match"),
        (json!({"kind": "dlp", "input": {"text": "write to abc@def.example"}}), "warn", "policy_allow"),
        (json!({"kind": "dlp", "input": {"text": ORDER}}), "allow", "policy_allow"),
        // That it was asked about does not make it the agent's own word.
        (
            json!({"kind": "prompt_injection", "input": {"content": format!("Dear agent, {ORDER}")}}),
            "block",
            "injection_match",
        ),
        (json!({"kind": "prompt_injection", "input": {"content": "Dear agent"}}), "allow", "policy_allow"),
        (
            json!({"kind": "tool_call", "input": {"tool_name": "mail", "arguments": {"b": [1, "x"]}}}),
            "allow",
            "policy_allow",
        ),
        (
            json!({"kind": "tool_call", "input": {"tool_name": "mail", "arguments": {"b": [{"c": SECRET}]}}}),
            "block",
            "dlp_match",
        ),
        (json!({"kind": "tool_call", "input": {"tool_name": SECRET, "arguments": null}}), "block", "dlp_match"),
    ] {
        let (status, body) = door.ask(&question).await;
        assert_eq!((status, &body["verdict"], &body["reason"]), (200, &verdict.into(), &reason.into()), "{question}");
        assert_eq!(body["findings"].as_array().map(Vec::is_empty), Some(verdict == "allow"), "{body}");
        assert!(!body.to_string().contains(SECRET), "{body}");
        assert_eq!(door.receipts().pop(), Some(format!("{verdict} {reason}")));
    }
    for arguments in [
        format!("{{\"a\":\"{split}\"}}"),
        // Readers of JSON differ in which of two members they take.
        format!("{{\"a\":\"{SECRET}\",\"a\":\"x\"}}"),
        format!("{{\"a\":\"{split}\",\"a\":\"x\"}}"),
        format!("{{\"{split}\":1,\"b\":{{\"c\":[\"x\"]}}}}"),
    ] {
        let raw = format!("{{\"kind\":\"tool_call\",\"input\":{{\"tool_name\":\"x\",\"arguments\":{arguments}}}}}");
        let (_, _, body) = door.send("POST", JSON, raw.as_bytes()).await;
        assert_eq!(body["reason"], "dlp_match", "{arguments}");
    }
    let evidence = std::fs::read_to_string(door.world.evidence.path().join("evidence/evidence.jsonl"));
    assert!(!evidence.expect("evidence").contains(SECRET));
}

#[tokio::test]
async fn what_somebody_would_be_asked_about_is_not_allowed() {
    let asking = |port| {
        let rules = rules(port, ", scan: true");
        let text = rules.policy.canonical_json().replacen('{', "{\"dlp\":{\"action\":\"ask\"},", 1);
        Rules { policy: Policy::parse(&text, "test").expect("a policy"), ..rules }
    };
    let door = Door::before(World::with(|port, _| (asking(port), None)).await, Gate::open()).await;
    let url = format!("http://web.test:{}/?k={SECRET}", door.world.addr.port());
    let secret = format!("my {SECRET}");
    for (kind, input) in [
        ("url", json!({"url": url})),
        ("dlp", json!({"text": secret})),
        ("tool_call", json!({"tool_name": "mail", "arguments": {"a": secret}})),
    ] {
        let (_, body) = door.ask(&json!({"kind": kind, "input": input})).await;
        assert_eq!((&body["decision"], &body["reason"]), (&"deny".into(), &"dlp_match".into()), "{body}");
        let why = body["block_reason"].as_str().expect("a reason");
        assert_eq!(
            (&body["findings"][0]["action"], why.contains("is asked")),
            (&"ask".into(), kind == "url"),
            "{body}"
        );
        assert!(!body.to_string().contains(SECRET), "{body}");
        assert_eq!(door.receipts().pop().as_deref(), Some("block dlp_match"), "{kind}");
    }
    // Nobody is asked about what comes in.
    let (_, body) = door.ask(&json!({"kind": "prompt_injection", "input": {"content": ORDER}})).await;
    assert_eq!((&body["decision"], &body["findings"][0]["action"]), (&"deny".into(), &"block".into()), "{body}");
}

/// Says always, to whatever it is asked.
struct Always(AtomicUsize);

impl Asker for Always {
    fn name(&self) -> &'static str {
        "terminal"
    }

    fn ask<'a>(&'a self, _: &'a Question) -> Answering<'a> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(Answer::Always) })
    }
}

#[tokio::test]
async fn where_a_rule_asks_a_url_is_allowed_once_somebody_has_said_always() {
    let door = Door::open(", ask: true", Gate::open()).await;
    let somebody = Arc::new(Always(AtomicUsize::new(0)));
    door.world.proxy.asking.at(somebody.clone());
    let port = door.world.addr.port();
    let question = json!({"kind": "url", "input": {"url": format!("http://web.test:{port}/x")}});
    let (_, body) = door.ask(&question).await;
    assert_eq!((&body["decision"], &body["reason"]), (&"deny".into(), &"ask_denied".into()), "{body}");
    assert_eq!(body["rule"], "egress[0] web.test");
    assert_eq!(somebody.0.load(Ordering::Relaxed), 0, "who only asks what would become of it bothers nobody");
    let request = format!("GET /x HTTP/1.1\r\nHost: web.test:{port}\r\nConnection: close\r\n\r\n");
    assert!(door.world.exchange(request.as_bytes()).await.starts_with("HTTP/1.1 200"));
    let (_, body) = door.ask(&question).await;
    assert_eq!((&body["decision"], somebody.0.load(Ordering::Relaxed)), (&"allow".into(), 1), "{body}");
}

#[tokio::test]
async fn without_a_scanner_there_is_no_verdict_and_one_receipt() {
    for (question, more) in [
        (json!({"kind": "dlp", "input": {"text": "x"}}), ""),
        (json!({"kind": "url", "input": {"url": "http://web.test:PORT/"}}), ", scan: true"),
    ] {
        let world = World::with(|port, _| (Rules { inspect: None, ..rules(port, more) }, None)).await;
        let question = question.to_string().replace("PORT", &world.addr.port().to_string());
        let door = Door::before(world, Gate::open()).await;
        let (status, _, body) = door.send("POST", JSON, question.as_bytes()).await;
        assert_eq!((status, &body["errors"][0]["code"]), (503, &"scanner_unavailable".into()), "{body}");
        assert_eq!(door.receipts(), ["block scanner_unavailable"], "{question}");
    }
}

/// The events of decisions, as lines.
#[derive(Clone, Default)]
struct Logged(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_question_without_a_receipt_is_logged_once_and_as_it_was_answered() {
    let logged = Logged::default();
    let writer = logged.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    // Everything of this test runs on its thread.
    let _here = tracing::subscriber::set_default(subscriber);
    // As long as there is but one, whoever meets an event first on a thread without it switches the event off for all.
    let _other = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    for question in [
        json!({"kind": "dlp", "input": {"text": "x"}}),
        json!({"kind": "url", "input": {"url": "ftp://web.test/"}}),
        json!({"kind": "none"}),
    ] {
        let door = Door::open("", Gate::open()).await;
        door.world.proxy.recorder.close("lost").await.expect("closed");
        // Else the event may be the recorder's own thread's.
        door.world.proxy.recorder.lost().await;
        logged.0.lock().expect("not poisoned").clear();
        let (status, body) = door.ask(&question).await;
        assert_eq!((status, &body["errors"][0]["code"]), (503, &"recorder_unavailable".into()), "{body}");
        let text = String::from_utf8(logged.0.lock().expect("not poisoned").clone()).expect("text");
        let events: Vec<&str> = text.lines().filter(|line| line.contains(" decision ")).collect();
        assert_eq!(events.len(), 1, "{text}");
        for said in ["verdict=\"block\"", "reason=\"recorder_unavailable\"", "status=\"503\""] {
            assert!(events[0].contains(said), "{said}: {text}");
        }
        assert!(!events[0].contains("receipt"), "{text}");
    }
}

#[tokio::test]
async fn a_verdict_that_takes_too_long_is_not_waited_for() {
    let world = World::new("").await;
    let text = Kind::Dlp("many words ".repeat(question::MOST_TEXT / 11));
    // Past already: a due that comes while a busy machine does the work may be seen after it.
    let due = tokio::time::Instant::now()
        .checked_sub(std::time::Duration::from_secs(1))
        .expect("the machine runs for longer");
    let refusal = judge(&world.session(), text, due).await.expect_err("late");
    assert_eq!(refusal.code, "scan_deadline_exceeded");
}

#[tokio::test]
async fn what_is_no_question_has_a_code_and_a_receipt() {
    let door = Door::open("", Gate::open()).await;
    let long = vec![b' '; super::MOST_BODY + 1];
    for (method, headers, body, status, code) in [
        ("GET", "", &b""[..], 405, "method_not_allowed"),
        ("PUT", JSON, b"{}", 405, "method_not_allowed"),
        ("POST", "", b"{}", 415, "unsupported_media_type"),
        ("POST", "Content-Type: text/plain\r\n", b"{}", 415, "unsupported_media_type"),
        (
            "POST",
            "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
            b"\x1f\x8b",
            415,
            "unsupported_media_type",
        ),
        ("POST", JSON, b"", 400, "invalid_json"),
        ("POST", JSON, b"\xff", 400, "invalid_json"),
        ("POST", "Content-Type: Application/JSON; charset=utf-8\r\n", b"{}", 400, "invalid_input"),
        ("POST", JSON, b"{\"kind\":\"x\",\"input\":{}}", 400, "invalid_kind"),
        ("POST", JSON, b"{\"kind\":\"url\",\"input\":{\"url\":\"\"}}", 400, "invalid_input"),
        ("POST", JSON, &long, 413, "body_too_large"),
    ] {
        let (found, head, body) = door.send(method, headers, body).await;
        assert_eq!((found, &body["errors"][0]["code"]), (status, &code.into()), "{method} {headers}");
        assert_eq!(head.contains("allow: POST"), status == 405, "{head}");
        assert_eq!(door.receipts().pop().as_deref(), Some("block request_malformed"), "{code}");
    }
    assert_eq!(door.receipts().len(), 11);
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let door = Door::open("", Gate::open()).await;
    let question = json!({"kind": "dlp", "input": {"text": "x"}}).to_string();
    let mut last = None;
    for _ in 0..500 {
        let answer = door.send("POST", JSON, question.as_bytes()).await;
        if answer.0 != 200 {
            last = Some(answer);
            break;
        }
    }
    let (status, head, body) = last.expect("a refusal");
    assert_eq!(
        (status, &body["errors"][0]["code"], &body["errors"][0]["retryable"]),
        (429, &"rate_limited".into(), &true.into())
    );
    assert!(head.contains("retry-after: 1"), "{head}");
    assert_eq!(door.receipts().pop().as_deref(), Some("block limit_exceeded"));
}

#[tokio::test]
async fn tokens_name_who_asks() {
    let known = crate::proxy::Identities::parse("ci=0123456789abcdef\n").expect("sound");
    let door = Door::open("", Gate::for_those(known)).await;
    let question = json!({"kind": "dlp", "input": {"text": "x"}}).to_string();
    for token in ["", "Authorization: Bearer 0123456789abcdeX\r\n"] {
        let (status, head, _) = door.send("POST", &format!("{JSON}{token}"), question.as_bytes()).await;
        assert!(status == 401 && head.contains("www-authenticate: Bearer"), "{head}");
    }
    let token = "Authorization: Bearer 0123456789abcdef\r\n";
    assert_eq!(door.send("POST", &format!("{JSON}{token}"), question.as_bytes()).await.0, 200);
    assert_eq!(door.world.identities("scan"), ["ci"]);
}
