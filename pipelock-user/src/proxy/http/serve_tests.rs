//! Requests on one transparent connection: framed, decided, forwarded or refused, and recorded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::proxy::http::Gate;
use crate::proxy::http::world::{SECRET, World, assert_problem, read_all, read_hello, rules};
use crate::proxy::state::Rules;

/// The head of a request, with a Host header if it has none: the corpus is about framing, and leaves it out here and there.
fn with_host(raw: Vec<u8>) -> Vec<u8> {
    let lower = String::from_utf8_lossy(&raw).to_ascii_lowercase();
    match raw.windows(2).position(|pair| pair == b"\r\n") {
        Some(at) if !lower.contains("\r\nhost:") => {
            [raw.get(..at).unwrap_or_default(), b"\r\nHost: web.test", raw.get(at..).unwrap_or_default()].concat()
        }
        _ => raw,
    }
}

#[tokio::test]
async fn the_corpus_is_refused_or_forwarded() {
    let world = World::new("").await;
    for (id, (label, is_loose), raw) in crate::proxy::http::framing::tests::corpus() {
        let before = world.seen().len();
        let (text, count) = match label.as_str() {
            "block" => {
                let text = world.exchange(&raw).await;
                assert_problem(&text, "400", "request_malformed");
                assert_eq!(world.last_receipt(), ("block".into(), "request_malformed".into()), "{id}");
                (text, 0)
            }
            "allow" => {
                let lower = String::from_utf8_lossy(&raw).to_ascii_lowercase();
                let length = lower.split_once("\r\ncontent-length:").map(|(_, rest)| {
                    let line = rest.split("\r\n").next().unwrap_or_default();
                    line.trim().parse::<usize>().expect("a number")
                });
                let has_chunks = lower.contains("\r\ntransfer-encoding:");
                let body = if has_chunks { b"3\r\nabc\r\n0\r\n\r\n".to_vec() } else { vec![b'x'; length.unwrap_or(0)] };
                let text = world.exchange(&[with_host(raw), body].concat()).await;
                assert!(text.contains(" 200 OK\r\n"), "{id}: {text}");
                // Lines that break the grammar are left out, and it is said.
                let word = if is_loose { "warn" } else { "allow" };
                assert_eq!(world.last_receipt(), (word.into(), "policy_allow".into()), "{id}");
                let seen = world.seen().pop().expect("arrived");
                let expected = if has_chunks { 3 } else { length.unwrap_or(0) };
                assert_eq!(seen.body.map(|body| body.len()), Some(expected), "{id}");
                (text, 1)
            }
            _ => continue,
        };
        assert_eq!(world.seen().len() - before, count, "{id}: {text}");
    }
}

#[tokio::test]
async fn header_lines_that_are_left_out_are_in_the_receipt_of_their_request() {
    let world = World::new("").await;
    let request = |path: &str, lines: &str| format!("GET /ok/{path} HTTP/1.1\r\nHost: web.test\r\n{lines}\r\n");
    let last = "Connection: close\r\n";
    // All at once, so that heads wait in a row.
    let all = [
        request("1", ""),
        request("2", "X-Key : a\r\n"),
        request("3", ""),
        request("4", &format!("A\u{1}: b\r\nC : d\r\n{last}")),
    ];
    world.exchange(all.concat().as_bytes()).await;
    let found: Vec<_> = world
        .findings()
        .into_iter()
        .map(|found| match &found[..] {
            [] => String::new(),
            all => {
                all.iter().map(|found| format!("{} {} {}", found["rule"], found["action"], found["place"])).collect()
            }
        })
        .collect();
    let one = r#""header-left-out" "warn" "1 header line left out of the request""#;
    assert_eq!(found, ["", one, "", &one.replace("1 header line", "2 header lines")]);
    assert_eq!(
        world.receipts().iter().map(|(verdict, _)| verdict.as_str()).collect::<Vec<_>>(),
        ["allow", "warn", "allow", "warn"]
    );
    assert!(world.seen().iter().all(|seen| !seen.headers.contains_key("x-key")));
}

#[tokio::test]
async fn a_request_that_cannot_be_read_does_not_take_the_one_before_with_it() {
    let world = World::new("").await;
    let text = world
        .exchange(b"GET /1 HTTP/1.1\r\nHost: web.test\r\n\r\nPOST /2 HTTP/1.1\r\nHost: web.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let at = text.rfind("HTTP/1.1 ").expect("two answers");
    assert!(text.starts_with("HTTP/1.1 200") && text[..at].ends_with("hello"), "{text}");
    assert_problem(&text[at..], "400", "request_malformed");
    let reasons: Vec<_> = world.receipts().into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(reasons, ["policy_allow", "request_malformed"]);
    assert_eq!(world.seen().len(), 1);
    let outcome = world.table.0.lock().expect("not poisoned").pop().expect("reported");
    assert_eq!((outcome.requests, outcome.verdict.is_block()), (2, false));
}

#[tokio::test]
async fn a_body_that_cannot_be_read_on_is_cut_and_said() {
    let world = World::new("").await;
    let text = world
        .exchange(b"POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\nabcd\r\n0\r\n\r\n")
        .await;
    assert_problem(&text, "400", "request_malformed");
    assert_eq!(world.last_receipt(), ("allow".into(), "request_malformed".into()), "the head had left");
    assert_eq!(world.receipts().len(), 1);
    assert!(world.seen().iter().all(|seen| seen.body.is_none()), "{:?}", world.seen());
}

#[tokio::test]
async fn a_body_arrives_whatever_the_method_and_with_its_codings() {
    let world = World::new("").await;
    let text = world
        .exchange(b"GET /q HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        .await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let seen = world.seen().pop().expect("arrived");
    assert_eq!((seen.method.as_str(), seen.path.as_str(), seen.body.as_deref()), ("GET", "/q", Some(&b"abc"[..])));
    assert_eq!(seen.headers["transfer-encoding"], "gzip, chunked");
}

#[tokio::test]
async fn heads_that_are_too_long_or_too_slow_are_told() {
    let world = World::new("limits: {header_bytes: 2KiB, request_timeout_seconds: 1}").await;
    let long = format!("GET / HTTP/1.1\r\nHost: web.test\r\nX: {}\r\n\r\n", "a".repeat(3000));
    assert_problem(&world.exchange(long.as_bytes()).await, "431", "limit_exceeded");
    assert_eq!(world.last_receipt(), ("block".into(), "limit_exceeded".into()));
    let started = Instant::now();
    let mut agent = world.agent().await;
    for _ in 0..4 {
        // A byte now and then keeps the connection from being idle, not the head from being late.
        agent.write_all(b"G").await.expect("write");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_problem(&read_all(&mut agent).await, "408", "request_timeout");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(world.last_receipt(), ("block".into(), "request_timeout".into()));
    // Between requests only the idle limit counts.
    let mut agent = world.agent().await;
    agent.write_all(b"GET /1 HTTP/1.1\r\nHost: web.test\r\n\r\n").await.expect("write");
    read_hello(&mut agent).await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    agent.write_all(b"GET /2 HTTP/1.1\r\nHost: web.test\r\n\r\n").await.expect("write");
    read_hello(&mut agent).await;
}

#[tokio::test]
async fn silence_ends_a_kept_connection_and_a_request() {
    let world = World::new("limits: {idle_timeout_seconds: 2}").await;
    // Later than two limits means that one of them was waited for after the other.
    let limit = Duration::from_secs(2);
    let mut agent = world.agent().await;
    agent.write_all(b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n").await.expect("write");
    read_hello(&mut agent).await;
    let started = Instant::now();
    assert_eq!(read_all(&mut agent).await, "");
    let took = started.elapsed();
    assert!(took > limit / 2 && took < limit * 2, "{took:?}");

    // A destination that does not answer, and an agent that does not go on: the answer is the connection's last.
    for request in [
        "GET /never HTTP/1.1\r\nHost: web.test\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 9\r\n\r\nhalf",
    ] {
        let mut agent = world.agent().await;
        agent.write_all(request.as_bytes()).await.expect("write");
        let started = Instant::now();
        let text = read_all(&mut agent).await;
        assert_problem(&text, "504", "idle_timeout");
        assert!(text.contains("connection: close"), "{text}");
        let took = started.elapsed();
        assert!(took > limit / 2 && took < limit * 2, "{took:?}");
    }
    assert_eq!(world.last_receipt(), ("allow".into(), "idle_timeout".into()));
}

#[tokio::test]
async fn a_kept_connection_does_not_outlive_the_policy_that_allowed_it() {
    let world = World::new("").await;
    let mut agent = world.agent().await;
    let mut get = async |path: &str| {
        agent.write_all(format!("GET {path} HTTP/1.1\r\nHost: web.test\r\n\r\n").as_bytes()).await.expect("write");
        let mut text = String::new();
        // Denials end with a brace.
        while !(text.ends_with("hello") || text.ends_with("}\n")) {
            let mut bytes = [0; 4096];
            let read = agent.read(&mut bytes).await.expect("read");
            text.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        text
    };
    let connections = || world.seen().iter().map(|seen| seen.connection).collect::<Vec<_>>();
    get("/1").await;
    get("/2").await;
    assert_eq!(connections(), [1, 1], "kept while nothing changes");
    world.rules.send_replace(Arc::new(rules(world.addr.port(), "")));
    get("/3").await;
    assert_eq!(connections(), [1, 1, 1], "the same policy, read again");
    world.rules.send_replace(Arc::new(rules(world.addr.port(), "limits: {max_connections: 9}")));
    get("/4").await;
    assert_eq!(connections(), [1, 1, 1, 2], "another policy");
    world.rules.send_replace(Arc::new(rules(world.addr.port(), "ssrf: {allow: [\"10.0.0.0/8\"]}")));
    let text = get("/5").await;
    assert!(text.contains("ssrf_denied"), "{text}");
    assert_eq!(connections(), [1, 1, 1, 2]);
}

#[tokio::test]
async fn a_connection_over_its_budget_sends_nothing_more() {
    let world = World::new(", budgets: {max_bytes_out: 300}").await;
    let post = |body: usize| {
        format!("POST /p HTTP/1.1\r\nHost: web.test\r\nContent-Length: {body}\r\n\r\n{}", "x".repeat(body))
    };
    // Of what does not say its length nobody knows before that it does not fit.
    let pieces = |body: usize| {
        let body = "x".repeat(body);
        format!(
            "POST /p HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
    };
    let mut agent = world.agent().await;
    agent.write_all(post(100).as_bytes()).await.expect("write");
    read_hello(&mut agent).await;
    // Its head and 100 bytes went before, so these do not fit; the next one is not even tried.
    agent.write_all(pieces(250).as_bytes()).await.expect("write");
    agent.write_all(post(1).as_bytes()).await.expect("write");
    agent.shutdown().await.expect("shutdown");
    let text = read_all(&mut agent).await;
    assert_eq!(
        (text.matches("HTTP/1.1 429").count(), text.matches("x-pipelock-reason: budget_exceeded").count()),
        (2, 2),
        "{text}"
    );
    let receipts = world.receipts();
    let verdicts: Vec<_> = receipts.iter().map(|(verdict, reason)| (verdict.as_str(), reason.as_str())).collect();
    assert_eq!(verdicts, [("allow", "policy_allow"), ("allow", "budget_exceeded"), ("block", "budget_exceeded")]);
    // The destination learns that the second was broken off when the connection ends, which may be after our answer.
    let started = Instant::now();
    while world.seen().len() < 2 && started.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let sizes: Vec<_> = world.seen().into_iter().map(|seen| seen.body.map(|body| body.len())).collect();
    assert_eq!(sizes, [Some(100), None]);
    let outcome = world.table.0.lock().expect("not poisoned").pop().expect("reported");
    assert_eq!((outcome.verdict.is_block(), outcome.verdict.reason.code()), (false, "budget_exceeded"));
}

#[tokio::test]
async fn a_body_that_is_longer_than_what_is_left_is_refused_before_anything_leaves() {
    let world = World::new(", budgets: {max_bytes_out: 300}").await;
    let post = |body: usize| {
        format!("POST /p HTTP/1.1\r\nHost: web.test\r\nContent-Length: {body}\r\n\r\n{}", "x".repeat(body))
    };
    let text = world.exchange(format!("{}{}{}", post(301), post(300), post(10)).as_bytes()).await;
    assert!(text.contains("this request has 301 bytes, and of what one connection may send 300 are left"), "{text}");
    let (blocked, cut) = (("block", "budget_exceeded"), ("allow", "budget_exceeded"));
    // Nobody knows what a head takes, so the second is begun; then it is all used up.
    let receipts = world.receipts();
    let verdicts: Vec<_> = receipts.iter().map(|(verdict, reason)| (verdict.as_str(), reason.as_str())).collect();
    assert_eq!(verdicts, [blocked, cut, blocked]);
    let world = World::new(", budgets: {max_bytes_out: 300}").await;
    let text = world.exchange(format!("{}{}", post(301), post(10)).as_bytes()).await;
    assert_eq!((text.matches("HTTP/1.1 429").count(), text.matches("HTTP/1.1 200").count()), (1, 1), "{text}");
    assert_eq!(world.seen().len(), 1);
}

#[tokio::test]
async fn an_answer_over_the_budget_is_cut() {
    let world = World::new(", budgets: {max_bytes_in: 20}").await;
    let text = world.exchange(b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n").await;
    assert_problem(&text, "429", "budget_exceeded");
    assert!(!text.contains("hello"));
}

#[tokio::test]
async fn the_head_of_an_answer_has_its_limit() {
    for (limit, is_passed) in [(65_536, false), (131_072, true)] {
        let world = World::new(&format!("limits: {{header_bytes: {limit}}}")).await;
        let text = world.exchange(b"GET /heavy HTTP/1.1\r\nHost: web.test\r\n\r\n").await;
        assert_eq!((text.len() > 100_000, text.starts_with("HTTP/1.1 200")), (is_passed, is_passed));
        if !is_passed {
            assert_problem(&text, "502", "upstream_failed");
            assert!(text.contains("limits.header_bytes"), "{text}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_switches_protocols_does_not_make_the_request_blocked() {
    let world = World::new("").await;
    let text = world.exchange(b"POST /switch HTTP/1.1\r\nHost: web.test\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_problem(&text, "403", "upgrade_denied");
    assert_eq!(world.seen().len(), 1, "it had left");
    assert_eq!(world.last_receipt(), ("allow".into(), "upgrade_denied".into()));
}

#[tokio::test]
async fn the_end_waits_for_the_receipt_of_a_request_whose_agent_is_gone() {
    let world = World::new("").await;
    let mut agent = world.agent().await;
    agent.write_all(b"GET /never HTTP/1.1\r\nHost: web.test\r\n\r\n").await.expect("write");
    while world.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(agent);
    world.proxy.close(Duration::from_secs(20)).await;
    assert_eq!(world.receipts(), [("allow".to_owned(), "proxy_stopped".to_owned())]);
}

#[tokio::test]
async fn what_is_under_way_when_pipelock_is_stopped_is_told_so() {
    let world = World::new("").await;
    let door = world.door(Gate::open()).await;
    let host = format!("web.test:{}", world.addr.port());
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = tokio::net::TcpStream::connect(door).await.expect("connect");
    let asked = format!("GET http://{host}/never HTTP/1.1\r\nHost: {host}\r\n\r\n");
    client.write_all(asked.as_bytes()).await.expect("write");
    let mut agent = world.agent().await;
    agent.write_all(b"GET /never HTTP/1.1\r\nHost: web.test\r\n\r\n").await.expect("write");
    while world.waiting() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.proxy.close(Duration::from_secs(20)).await;
    assert_problem(&read_all(&mut agent).await, "503", "proxy_stopped");
    let text = read_all(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 503") && text.contains("connection: close"), "{text}");
    let stopped = ("allow".to_owned(), "proxy_stopped".to_owned());
    assert_eq!(world.receipts(), [stopped.clone(), stopped]);
    assert_eq!(world.evidence_by_now().matches("\"status\":503").count(), 2);
}

#[tokio::test]
async fn a_header_that_names_another_method_or_path_is_held_against_the_rule_too() {
    let get = |header: &str| format!("GET /open HTTP/1.1\r\nHost: web.test\r\n{header}\r\n\r\n").into_bytes();
    let world = World::new(", methods: [GET, HEAD]").await;
    for name in ["X-HTTP-Method-Override", "x-http-method", "X-Method-Override"] {
        for method in ["DELETE", "delete", "GET, DELETE", "\u{e9}"] {
            let text = world.exchange(&get(&format!("{name}: {method}"))).await;
            assert_problem(&text, "403", "method_denied");
            assert!(text.to_ascii_lowercase().contains(&format!("{} ", name.to_ascii_lowercase())), "{text}");
        }
        assert_problem(&world.exchange(&get(&format!("{name}: HEAD\r\n{name}: PUT"))).await, "403", "method_denied");
        for method in ["HEAD", "head", ""] {
            assert!(world.exchange(&get(&format!("{name}: {method}"))).await.starts_with("HTTP/1.1 200"), "{method}");
        }
    }
    assert!(world.exchange(&get("X-Original-URL: /else")).await.starts_with("HTTP/1.1 200"), "all paths are");
    let world = World::new(", paths: [\"/open\"]").await;
    for name in ["X-Original-URL", "x-rewrite-url"] {
        for path in ["/admin", "/open/../admin", "http://web.test/admin", "admin", "\u{e9}"] {
            let text = world.exchange(&get(&format!("{name}: {path}"))).await;
            assert_problem(&text, "403", "path_denied");
        }
        for path in ["/open", "/open?x=1", "http://web.test/open", "http://web.test:8080/open?x"] {
            assert!(world.exchange(&get(&format!("{name}: {path}"))).await.starts_with("HTTP/1.1 200"), "{path}");
        }
    }
    assert!(
        world.exchange(&get("X-HTTP-Method-Override: DELETE")).await.starts_with("HTTP/1.1 200"),
        "all methods are"
    );
}

#[tokio::test]
async fn what_is_under_way_ends_when_evidence_is_lost() {
    let world = World::new("").await;
    let mut agent = world.agent().await;
    let head = b"POST / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
    agent.write_all(head).await.expect("write");
    while world.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.proxy.recorder.close("lost").await.expect("closed");
    assert_problem(&read_all(&mut agent).await, "503", "recorder_unavailable");
    while world.waiting() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(world.seen().iter().all(|seen| seen.body.is_none()), "{:?}", world.seen());
}

#[tokio::test]
async fn what_policy_refuses_is_kept_without_the_secrets_in_it() {
    let rules_with = |port, is_loaded: bool| {
        let more = ", methods: [GET], paths: [\"/ok\"], git: {fetch: [\"a/*\"]}";
        let rules = rules(port, more);
        match is_loaded {
            true => rules,
            false => Rules { inspect: Some(crate::inspect::Inspection::failed_for_tests()), ..rules },
        }
    };
    for is_loaded in [true, false] {
        let world = World::with(|port, _| (rules_with(port, is_loaded), None)).await;
        for (request, reason) in [
            (format!("GET /a/{SECRET}/b"), "path_denied"),
            (format!("GET /a/{}/b", SECRET.replacen('g', "%67", 1)), "path_denied"),
            (format!("GET /{SECRET}/b.git/info/refs?service=git-upload-pack"), "git_denied"),
            (format!("PUT /{SECRET}"), "method_denied"),
        ] {
            let answer = world.exchange(format!("{request} HTTP/1.1\r\nHost: web.test\r\n\r\n").as_bytes()).await;
            assert!(answer.contains(&format!("x-pipelock-reason: {reason}")), "{request}: {answer}");
            assert!(!answer.contains(SECRET), "{answer}");
        }
        let plain = world.exchange(b"GET /elsewhere HTTP/1.1\r\nHost: web.test\r\n\r\n").await;
        let evidence = world.evidence_by_now();
        assert!(!evidence.contains(&SECRET[4..]), "{evidence}");
        assert_eq!(evidence.contains("/elsewhere"), is_loaded, "{plain}");
        assert!(
            evidence.matches(&format!("http://web.test:{}", world.addr.port())).count() >= 5,
            "where it went is kept"
        );
        assert!(world.seen().is_empty());
    }
}
