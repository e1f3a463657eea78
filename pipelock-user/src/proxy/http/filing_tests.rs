//! What receipts, and the answers to who was refused, repeat of a request: no secret, wherever it stood.

use std::sync::Arc;

use super::super::world::{SECRET, World, read_all, rules};
use crate::flow::{Reason, Verdict};
use crate::inspect::KNOWN_FOR_TESTS;
use crate::proxy::http::Gate;
use crate::proxy::identity::Identities;
use crate::proxy::state::Rules;

/// What the explicit door answers.
async fn asked(door: std::net::SocketAddr, text: &str) -> String {
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = tokio::net::TcpStream::connect(door).await.expect("connect");
    tokio::io::AsyncWriteExt::write_all(&mut client, text.as_bytes()).await.expect("write");
    read_all(&mut client).await
}

#[tokio::test]
async fn no_place_that_a_client_fills_is_told_with_a_secret_in_it() {
    for secret in [SECRET, KNOWN_FOR_TESTS] {
        let world = World::new(", scan: true, paths: [\"/ok/*\", \"/ok\"]").await;
        let (port, open) = (world.addr.port(), world.door(Gate::open()).await);
        let known = Identities::parse("who=tokentokentokentoken1").expect("sound");
        let closed = world.door(Gate::for_those(known)).await;
        let here = format!("web.test:{port}");
        let host = format!("Host: {here}\r\nConnection: close\r\n");
        let method = if secret.len() > 32 { "GET" } else { secret };
        let mut answers = String::new();
        // As the agent, and to the door that asks nobody who it is.
        for text in [
            format!("GET /ok HTTP/1.1\r\n{host}{secret}: 1\r\n\r\n"),
            format!("GET /ok HTTP/1.1\r\n{host}X-{secret}: 1\r\n\r\n"),
            format!("{method} /ok HTTP/1.1\r\n{host}\r\n"),
            format!("{method} /no HTTP/1.1\r\n{host}\r\n"),
            format!("GET /ok/{secret} HTTP/1.1\r\n{host}\r\n"),
            format!("GET /no/{secret} HTTP/1.1\r\n{host}\r\n"),
            format!("GET /ok HTTP/1.1\r\nHost: {secret}.test\r\nConnection: close\r\n\r\n"),
            format!("GET /ok HTTP/1.1\r\n{host}Host: {secret}\r\n\r\n"),
            format!("GET /%2e%2e/{secret} HTTP/1.1\r\n{host}\r\n"),
            format!("GET /ok/{secret} HTTP/1.1\r\n{host}Upgrade: other\r\n\r\n"),
        ] {
            answers += &world.exchange(text.as_bytes()).await;
            let whole = text.replacen(" /", &format!(" http://{here}/"), 1);
            answers += &asked(open, &whole).await;
        }
        // To the doors alone.
        for text in [
            format!("CONNECT {secret}.test:{port} HTTP/1.1\r\nHost: {secret}.test:{port}\r\n\r\n"),
            format!("CONNECT {secret}.test:{port} HTTP/1.1\r\nHost: web.test\r\n\r\n"),
            format!("GET http://{secret}.test/ HTTP/1.1\r\nHost: {secret}.test\r\nConnection: close\r\n\r\n"),
            format!("GET ftp://web.test/{secret} HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n"),
            format!("GET http://u:{secret}@web.test/ HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n"),
            format!("GET /{secret} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            format!("{method} /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            format!("GET /fetch?url=http://{secret}.test/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
            format!(
                "GET /fetch?url=http://{here}/no/{secret} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            ),
        ] {
            answers += &asked(open, &text).await;
            answers += &asked(closed, &text).await;
        }
        let told = (world.evidence_by_now() + &answers).to_ascii_lowercase();
        let at = told.find(&secret.to_ascii_lowercase()[4..]);
        assert_eq!(at, None, "{:?}", at.map(|at| &told[at.saturating_sub(600)..at + 60]));
        assert!(told.contains("header <pipelock:credential:") && told.contains("header x-<pipelock:"), "{told}");
        let seen = format!("{:?}", world.seen()).to_ascii_lowercase();
        assert!(!seen.contains(&secret.to_ascii_lowercase()), "{seen}");
    }
}

#[tokio::test]
async fn what_is_let_through_unread_is_kept_without_secrets_too() {
    let world = World::new("").await;
    let answer = world.exchange(format!("GET /{SECRET} HTTP/1.1\r\nHost: web.test\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let evidence = world.evidence_by_now();
    assert!(evidence.contains("pipelock:credential:1") && !evidence.contains(SECRET), "{evidence}");
}

#[tokio::test]
async fn nothing_is_left_of_what_goes_on_behind_a_secret() {
    let world = World::new(", scan: true").await;
    let twice = format!("{SECRET}{}", &SECRET[4..]);
    let known = format!("{KNOWN_FOR_TESTS}{}", &KNOWN_FOR_TESTS[1..]);
    for (path, kept) in [
        (format!("{twice}/b"), "<pipelock:credential:1>/b"),
        (format!("{SECRET}%41{}?x", &SECRET[4..]), "<pipelock:credential:1>"),
        (format!("{SECRET}.html"), "<pipelock:credential:1>.html"),
        (format!("{known}/b"), "<pipelock:credential:2>/b"),
    ] {
        let answer = world.exchange(format!("GET /{path} HTTP/1.1\r\nHost: web.test\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        let (target, _) = world.ways("forward").pop().expect("a receipt");
        assert_eq!(target.rsplit_once(&format!(":{}/", world.addr.port())).expect("a path").1, kept, "{path}");
    }
}

#[tokio::test]
async fn the_rules_that_decided_say_what_is_a_secret() {
    let world = World::new(", scan: true").await;
    let decided = world.proxy.rules();
    let unread = Rules { inspect: None, ..rules(80, "") };
    world.rules.send_replace(Arc::new(unread));
    let session = world.session();
    let verdict = Verdict::block(Reason::AskDenied, "another policy is in force");
    let target = format!("http://web.test/{SECRET}");
    let mut record = session.record(decided.policy.id(), "GET".into(), target, &verdict, None, None);
    session.file(&decided, &mut record).await.expect("written");
    assert_eq!(record.target, "http://web.test/<pipelock:credential:1>");
    let evidence = world.evidence_by_now();
    assert!(evidence.contains("pipelock:credential:1") && !evidence.contains(SECRET), "{evidence}");
}

#[tokio::test]
async fn targets_have_one_form() {
    let world = World::new("").await;
    let (door, port) = (world.door(Gate::open()).await, world.addr.port());
    world.rules.send_replace(Arc::new(rules(80, "")));
    for text in [
        "GET http://web.test:80/x?q HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n",
        "GET http://nobody.test:80/x HTTP/1.1\r\nHost: nobody.test\r\nConnection: close\r\n\r\n",
        "GET http://nobody.test/x HTTP/1.1\r\nHost: nobody.test:80\r\nConnection: close\r\n\r\n",
    ] {
        asked(door, text).await;
    }
    world.exchange(b"OPTIONS * HTTP/1.1\r\nHost: web.test\r\n\r\n").await;
    world.exchange(b"GET / HTTP/1.1\r\nHost: web.test\r\nTransfer-Encoding: x\r\n\r\n").await;
    let targets: Vec<_> = world.ways("forward").into_iter().map(|(target, _)| target).collect();
    let here = format!("http://web.test:{port}");
    let expected = ["http://web.test/x", "http://nobody.test/x", "http://nobody.test/x", &format!("{here} *"), &here];
    assert_eq!(targets, expected);
}

#[test]
fn of_a_url_that_nobody_can_read_its_host_is_left() {
    for (url, left) in [
        ("http://a.test:80/x/y", "http://a.test:80"),
        ("https://a.test", "https://a.test"),
        ("a.test:443", "a.test:443"),
        ("http://[::1]/", "http://[::1]"),
    ] {
        assert_eq!(url.get(..super::end_of_host(url)), Some(left));
    }
}
