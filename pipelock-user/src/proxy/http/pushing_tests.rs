//! Tests of pushes: what is allowed arrives byte for byte, and of what is not nothing arrives.

use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::super::world::{SECRET, World, read_all};
use crate::proxy::{Upstream, serve_explicit, serve_reverse};

const OLD: &str = "0123456789abcdef0123456789abcdef01234567";
const NONE: &str = "0000000000000000000000000000000000000000";
const GIT: &str = ", git: {fetch: [\"*\"], push: [{repository: acme/widgets, refs: [\"agent/*\"]}]}";

async fn world(more: &str) -> World {
    World::new(&format!("{GIT}{more}")).await
}

fn packets(lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{:04x}{line}", line.len() + 4)).collect();
    lines + "0000"
}

/// The body of a push of one branch, with something of a pack behind it.
fn push(name: &str) -> String {
    packets(&[&format!("{OLD} {OLD} {name}\0 report-status side-band-64k agent=git/2.39.5")]) + "PACK and more"
}

/// A request with a body of a known length.
fn with_length(body: &str, headers: &str) -> String {
    format!(
        "POST /acme/widgets.git/git-receive-pack HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\
         Content-Type: application/x-git-receive-pack-request\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The same in pieces.
fn in_pieces(body: &str) -> String {
    let pieces: String = body
        .as_bytes()
        .chunks(3)
        .map(|piece| format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece)))
        .collect();
    format!(
        "POST /acme/widgets.git/git-receive-pack HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\
         Content-Type: application/x-git-receive-pack-request\r\nTransfer-Encoding: chunked\r\n\r\n{pieces}0\r\n\r\n"
    )
}

#[tokio::test]
async fn a_push_that_is_allowed_arrives_as_it_is() {
    for more in ["", ", scan: true"] {
        let world = world(more).await;
        for body in [push("refs/heads/agent/x"), "0000".into(), packets(&[&format!("{OLD} {OLD} refs/heads/agent/y")])]
        {
            for request in [with_length(&body, ""), in_pieces(&body)] {
                let answer = world.exchange(request.as_bytes()).await;
                assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{body}: {answer}");
                let seen = world.seen().pop().expect("it arrived");
                assert_eq!(
                    (seen.path.as_str(), seen.body.as_deref()),
                    ("/acme/widgets.git/git-receive-pack", Some(body.as_bytes()))
                );
            }
        }
        assert!(world.receipts().iter().all(|receipt| *receipt == ("allow".into(), "policy_allow".into())));
    }
}

#[tokio::test]
async fn a_push_that_the_scanner_stops_is_refused_in_words_of_git() {
    let world = world(", scan: true").await;
    let plain = packets(&[&format!("{OLD} {OLD} refs/heads/agent/x\0 agent=git/2.39.5")]) + SECRET;
    for body in [
        push("refs/heads/agent/x") + SECRET,
        // Longer than what is read whole of other requests, and as long as git sends in one piece.
        push("refs/heads/agent/x") + &"words ".repeat(100_000) + SECRET,
    ] {
        let answer = world.exchange(with_length(&body, "").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains("content-type: application/x-git-receive-pack-result\r\n"), "{answer}");
        assert!(answer.contains("x-pipelock-reason: dlp_match\r\n"), "{answer}");
        assert!(answer.contains("pipelock: token in body\n"), "{answer}");
        assert!(answer.contains("ng refs/heads/agent/x pipelock"), "{answer}");
        assert_eq!(world.last_receipt(), ("block".into(), "dlp_match".into()));
    }
    // Who wants no report is told over HTTP.
    let answer = world.exchange(with_length(&plain, "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("token in body"), "{answer}");
    assert!(world.seen().is_empty(), "something arrived");
}

#[tokio::test]
async fn of_a_push_that_is_not_allowed_nothing_arrives_and_git_is_told_why() {
    let world = world("").await;
    let two =
        packets(&[&format!("{OLD} {OLD} refs/heads/agent/x\0report-status"), &format!("{OLD} {OLD} refs/heads/main")]);
    let gone = packets(&[&format!("{OLD} {NONE} refs/heads/agent/x\0report-status side-band-64k")]);
    for (body, why) in [
        (push("refs/heads/main"), "main of acme/widgets may not be pushed (allowed: agent/*)"),
        (two, "ng refs/heads/agent/x pipelock"),
        (gone, "agent/x of acme/widgets may not be deleted"),
        (push("refs/heads/main") + &"x".repeat(3_000_000), "main of acme/widgets"),
    ] {
        for request in [with_length(&body, ""), in_pieces(&body[..body.len().min(100_000)])] {
            let answer = world.exchange(request.as_bytes()).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.contains("content-type: application/x-git-receive-pack-result\r\n"), "{answer}");
            assert!(answer.contains("x-pipelock-reason: git_denied\r\n") && answer.contains(why), "{answer}");
            assert_eq!(world.last_receipt(), ("block".into(), "git_denied".into()));
        }
    }
    // Who wants no report is told over HTTP.
    let answer = world.exchange(with_length(&packets(&[&format!("{OLD} {OLD} refs/heads/main")]), "").as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("\r\n\r\npipelock: main of acme/widgets"),
        "{answer}"
    );
    assert!(world.seen().is_empty(), "something arrived");
    let evidence = std::fs::read_to_string(world.evidence.path().join("evidence/evidence.jsonl")).expect("evidence");
    assert!(evidence.contains("main of acme/widgets may not be pushed"));
}

#[tokio::test]
async fn it_is_the_same_at_the_doors_for_clients() {
    let world = world("").await;
    let listeners =
        [TcpListener::bind("127.0.0.1:0").await.expect("bind"), TcpListener::bind("127.0.0.1:0").await.expect("bind")];
    let addrs = listeners.each_ref().map(|listener| listener.local_addr().expect("bound"));
    let [explicit, reverse] = listeners;
    tokio::spawn(serve_explicit(explicit, world.proxy.clone(), Arc::default()));
    let upstream = Upstream::parse(&format!("http://web.test:{}", world.addr.port())).expect("an upstream");
    tokio::spawn(serve_reverse(reverse, world.proxy.clone(), Arc::new(upstream)));
    let whole = |request: String| {
        request
            .replace("POST /", &format!("POST http://web.test:{}/", world.addr.port()))
            .replace("Host: web.test", &format!("Host: web.test:{}", world.addr.port()))
    };
    for (addr, is_explicit) in addrs.into_iter().zip([true, false]) {
        for (name, said) in [("refs/heads/main", "ng refs/heads/main pipelock"), ("refs/heads/agent/x", "hello")] {
            let request = with_length(&push(name), "");
            let request = if is_explicit { whole(request) } else { request };
            #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
            let mut client = TcpStream::connect(addr).await.expect("connect");
            client.write_all(request.as_bytes()).await.expect("write");
            let answer = read_all(&mut client).await;
            assert!(answer.contains(said), "{is_explicit}: {answer}");
        }
    }
    let names: Vec<bool> = world
        .seen()
        .iter()
        .map(|seen| seen.body.as_deref().is_some_and(|body| body.ends_with(b"PACK and more")))
        .collect();
    assert_eq!(names, [true, true]);
    let denied = ("block".to_owned(), "git_denied".to_owned());
    assert!(world.receipts().contains(&denied) && world.receipts_of("reverse").contains(&denied));
}

#[tokio::test]
async fn what_cannot_be_read_is_not_sent() {
    let world = world("").await;
    let sound = push("refs/heads/agent/x");
    let plain = with_length(&sound, "");
    for (request, status, reason) in [
        (with_length(&sound, "Content-Encoding: gzip\r\n"), 400, "request_malformed"),
        (plain.replace("x-git-receive-pack-request", "octet-stream"), 400, "request_malformed"),
        (with_length("0000PACK", ""), 400, "request_malformed"),
        (in_pieces("0000PACK"), 400, "request_malformed"),
        (with_length("00", ""), 400, "request_malformed"),
        (with_length("PACK", ""), 400, "request_malformed"),
        (with_length(&packets(&[&format!("{OLD} {OLD} HEAD")]), ""), 400, "request_malformed"),
        (with_length(&packets(&["push-cert\0report-status"]), ""), 403, "git_denied"),
        (in_pieces(&sound).replace("0\r\n\r\n", "0\r\nX-More: 1\r\n\r\n").replace("PACK and more", ""), 200, ""),
        (
            plain.replace("POST /acme/widgets.git/git-receive-pack", "POST /acme/widgets.git/git-receive-pack/"),
            403,
            "git_denied",
        ),
        (plain.replace("POST /acme", "POST /other"), 403, "git_denied"),
    ] {
        let answer = world.exchange(request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        if status != 200 {
            assert!(answer.contains(&format!("x-pipelock-reason: {reason}\r\n")), "{answer}");
            assert!(answer.contains("content-type: text/plain; charset=utf-8\r\n"), "{answer}");
            assert_eq!(world.last_receipt().1, reason, "{request}");
            assert_eq!(world.seen().len(), 0, "{request}");
        }
        world.seen.lock().expect("not poisoned").clear();
    }
    // One that is broken off.
    let broken = plain.replace("Content-Length: ", "Content-Length: 1").replace(&sound, &sound[..40]);
    let _ = world.exchange(broken.as_bytes()).await;
    for _ in 0..100 {
        if world.last_receipt().1 == "client_aborted" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(world.last_receipt(), ("block".into(), "client_aborted".into()));
    assert!(world.seen().is_empty(), "something arrived");
}

#[tokio::test]
async fn git_is_told_in_a_line_what_it_may_not_fetch_or_push_to() {
    let world = world("").await;
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n");
    let answer = world.exchange(ask("/tools.git/info/refs?service=git-receive-pack").as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 403") && head.contains("content-type: text/plain; charset=utf-8"), "{answer}");
    assert_eq!(
        body,
        "pipelock: tools may not be pushed to; to allow it, add it to git.push of egress[0] web.test (git_denied)\n"
    );
    // Others are told as ever.
    let answer = world.exchange(ask("/tools.git/HEAD").as_bytes()).await;
    assert!(answer.contains("application/problem+json") && answer.contains("path_denied"), "{answer}");
    assert!(world.seen().is_empty());
    let answer = world.exchange(ask("/tools.git/info/refs?service=git-upload-pack").as_bytes()).await;
    assert!(answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_name_that_is_not_allowed_and_holds_a_secret_is_not_repeated() {
    let world = world(", scan: true").await;
    let answer = world.exchange(with_length(&push(&format!("refs/heads/{SECRET}")), "").as_bytes()).await;
    assert!(answer.contains("of acme/widgets may not be pushed (allowed: agent/*)"), "{answer}");
    assert_eq!(world.last_receipt(), ("block".into(), "git_denied".into()));
    // Which looks for it in the evidence.
    assert_eq!(world.findings().len(), 1);
}

#[tokio::test]
async fn what_is_behind_the_commands_of_a_push_is_read_too() {
    let world = world(", scan: true").await;
    for body in [push("refs/heads/agent/x") + SECRET, push(&format!("refs/heads/agent/{SECRET}"))] {
        let answer = world.exchange(with_length(&body, "").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-pipelock-reason: dlp_match"), "{answer}");
    }
    assert!(world.seen().is_empty(), "something arrived");
}
