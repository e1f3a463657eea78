//! Rates by rule, by connection, by name and by who asks, over the doors that there are.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::serve::Session;
use super::super::upstream::Carrier;
use crate::flow::{Host, Reason, Verdict, locked};
use crate::proxy::http::Gate;
use crate::proxy::http::world::{World, assert_problem, read_all, rules, rules_of};
use crate::proxy::identity::Identities;
use crate::proxy::meter::Metered;
use crate::proxy::state::Rules;

const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: web.test\r\n\r\n";

/// What a request over a connection of its own is answered.
async fn asked(proxy: SocketAddr, line: &str, host: &str, headers: &str) -> String {
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    let request = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("write");
    read_all(&mut client).await
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(verdict, reason)| ((*verdict).into(), (*reason).into())).collect()
}

#[tokio::test]
async fn a_rule_has_a_rate_over_all_connections() {
    let world = World::new(", rates: {requests: 2}").await;
    let text = world.exchange(&GET.repeat(2)).await;
    assert_eq!(text.matches("HTTP/1.1 200").count(), 2, "{text}");
    let text = world.exchange(GET).await;
    assert_problem(&text, "429", "limit_exceeded");
    assert!(text.contains("retry-after: 30\r\n"), "{text}");
    assert!(
        text.contains("\"retry_after_seconds\": 30")
            && text.contains("the rule for web.test on ")
            && text.contains(" may have 2 requests"),
        "{text}"
    );
    assert_eq!(world.seen().len(), 2);
    let allowed = ("allow", "policy_allow");
    assert_eq!(world.receipts(), pairs(&[allowed, allowed, ("block", "limit_exceeded")]));
}

fn host() -> Host {
    Host::parse("web.test").expect("a name")
}

/// A rule for all names below `web.test`, and what more is said.
fn below(port: u16, members: &str, more: &str) -> Rules {
    let text = format!(
        "version: \"1.0\"\negress: [{{destination: \"*.web.test\", ports: [{port}], scan: false{members}}}]\n\
         dns: {{hosts: {{a.web.test: \"127.0.0.1\", b.web.test: \"127.0.0.1\"}}}}\n\
         ssrf: {{allow: [\"127.0.0.0/8\"]}}\n{more}\n"
    );
    rules_of(&text)
}

#[tokio::test]
async fn each_name_below_a_wildcard_has_a_rate_of_its_own_whoever_asks() {
    let world = World::with(|port, _| (below(port, "", "rates: {name: {requests: 2}}"), None)).await;
    let (first, second) = (world.door(Gate::open()).await, world.door(Gate::open()).await);
    let of = |name: &str| format!("{name}.web.test:{}", world.addr.port());
    for (proxy, name) in [(first, "a"), (second, "A"), (first, "b"), (second, "b")] {
        let text = asked(proxy, &format!("GET http://{}/x", of(name)), &of(name), "").await;
        assert!(text.starts_with("HTTP/1.1 200"), "{name}: {text}");
    }
    for (proxy, name) in [(first, "a"), (second, "b")] {
        let text = asked(proxy, &format!("GET http://{}/x", of(name)), &of(name), "").await;
        assert!(text.starts_with("HTTP/1.1 429") && text.contains("retry-after: 30\r\n"), "{name}: {text}");
        assert!(text.contains("this name may have 2 requests"), "{text}");
    }
    assert_eq!(world.seen().len(), 4);
}

#[tokio::test]
async fn each_name_has_its_own_data_also_on_one_connection() {
    let (members, more) = (", budgets: {max_bytes_in: 1MiB}", "rates: {name: {bytes_in: 300000, per: day}}");
    let world = World::with(|port, _| (below(port, members, more), None)).await;
    let proxy = world.door(Gate::open()).await;
    let of = |name: &str| format!("{name}.web.test:{}", world.addr.port());
    let get = |name: &str, path: &str| format!("GET http://{}/{path} HTTP/1.1\r\nHost: {}\r\n", of(name), of(name));
    let text = asked(proxy, &format!("GET http://{}/long", of("a")), &of("a"), "").await;
    assert!(text.starts_with("HTTP/1.1 200") && text.len() < 301_000, "{}", text.len());
    // One connection, on which it is used up for the one name and not for the other; the budget is the connection's.
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    let requests = format!("{}\r\n{}\r\n{}Connection: close\r\n\r\n", get("a", "x"), get("b", "x"), get("a", "x"));
    client.write_all(requests.as_bytes()).await.expect("write");
    let text = read_all(&mut client).await;
    assert_eq!((text.matches("HTTP/1.1 200").count(), text.matches("HTTP/1.1 429").count()), (1, 2), "{text}");
    assert!(text.contains("this name may have 300000 bytes in"), "{text}");
    let cut = ("allow", "budget_exceeded");
    let (allowed, refused) = (("allow", "policy_allow"), ("block", "budget_exceeded"));
    assert_eq!(world.receipts_of_count(5).await, pairs(&[allowed, cut, refused, allowed, refused]));
}

/// The next answer, of ours or with what was sent.
async fn read_answer(agent: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with("xxx") && !text.ends_with("}\n") {
        let mut bytes = [0; 1024];
        let read = agent.read(&mut bytes).await.expect("read");
        assert!(read > 0, "ended after {text:?}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    text
}

#[tokio::test]
async fn what_a_rule_has_used_is_known_wherever_in_the_policy_it_stands() {
    let members = ", rates: {requests: 3, per: day}, budgets: {max_bytes_out: 400}";
    let world = World::new(members).await;
    let mut agent = world.agent().await;
    let post = post(300, true);
    agent.write_all(&post).await.expect("write");
    read_answer(&mut agent).await;
    let port = world.addr.port();
    let more = "dns: {hosts: {web.test: \"127.0.0.1\"}}\nssrf: {allow: [\"127.0.0.0/8\"]}";
    let rule = format!("{{destination: web.test, ports: [{port}], scan: false{members}}}");
    let moved = format!("version: \"1.0\"\negress: [{{destination: a.test}}, {rule}]\n{more}\n");
    world.rules.send_replace(Arc::new(rules_of(&moved)));
    // The connection has its budget, …
    agent.write_all(&post).await.expect("write");
    let text = read_answer(&mut agent).await;
    assert!(text.contains("budget_exceeded"), "{text}");
    // … and the rule its rate.
    assert!(world.exchange(GET).await.starts_with("HTTP/1.1 200"));
    let text = world.exchange(&GET.repeat(2)).await;
    assert_eq!((text.matches("HTTP/1.1 200").count(), text.matches("HTTP/1.1 429").count()), (1, 1), "{text}");
}

#[tokio::test]
async fn a_connection_has_a_rate_of_its_own() {
    let world = World::new("rates: {connection: {requests: 1}}").await;
    for _ in 0..2 {
        let text = world.exchange(&GET.repeat(2)).await;
        assert_eq!((text.matches("HTTP/1.1 200").count(), text.matches("HTTP/1.1 429").count()), (1, 1), "{text}");
        assert!(text.contains("this connection may have 1 requests"), "{text}");
    }
}

#[tokio::test]
async fn who_asks_has_a_rate_over_all_doors() {
    let world = World::new("rates: {identity: {requests: 3}}").await;
    let gate = Gate::for_those(Identities::parse("ci=0123456789abcdef\ndev=fedcba9876543210").expect("tokens"));
    let (proxy, host) = (world.door(gate).await, format!("web.test:{}", world.addr.port()));
    let token = |name: &str| {
        let token = if name == "ci" { "0123456789abcdef" } else { "fedcba9876543210" };
        format!("Proxy-Authorization: Bearer {token}\r\n")
    };
    let absolute = format!("GET http://{host}/x");
    assert!(asked(proxy, &absolute, &host, &token("ci")).await.starts_with("HTTP/1.1 200"));
    let fetch = format!("GET /fetch?url=http://{host}/page");
    assert!(asked(proxy, &fetch, "localhost", &token("ci")).await.starts_with("HTTP/1.1 200"));
    // A tunnel that nobody reads is one request; what it is used for does not matter.
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    let connect = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n{}\r\n", token("ci"));
    client.write_all(connect.as_bytes()).await.expect("write");
    let mut head = [0; 12];
    client.read_exact(&mut head).await.expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 200");
    for (line, host) in [(absolute.as_str(), host.as_str()), (&fetch, "localhost"), (&format!("CONNECT {host}"), &host)]
    {
        let text = asked(proxy, line, host, &token("ci")).await;
        assert!(text.starts_with("HTTP/1.1 429") && text.contains("retry-after: 20\r\n"), "{line}: {text}");
        assert!(
            text.contains("x-pipelock-reason: limit_exceeded") && text.contains("this client may have 3"),
            "{text}"
        );
    }
    assert!(asked(proxy, &absolute, &host, &token("dev")).await.starts_with("HTTP/1.1 200"), "another's is another's");
    let (allowed, refused) = (("allow", "policy_allow"), ("block", "limit_exceeded"));
    assert_eq!(world.receipts(), pairs(&[allowed, refused, allowed]));
    assert_eq!(world.receipts_of("fetch"), pairs(&[allowed, refused]));
    assert_eq!(world.tunnels(), pairs(&[allowed, refused]));
}

#[tokio::test]
async fn another_client_is_told_to_open_a_connection_of_its_own() {
    let world = World::new("").await;
    let gate = Gate::for_those(Identities::parse("ci=0123456789abcdef\ndev=fedcba9876543210").expect("tokens"));
    let (proxy, host) = (world.door(gate).await, format!("web.test:{}", world.addr.port()));
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    for token in ["0123456789abcdef", "fedcba9876543210"] {
        let head =
            format!("GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\nProxy-Authorization: Bearer {token}\r\n\r\n");
        client.write_all(head.as_bytes()).await.expect("write");
    }
    // The connection ends, so that a pool of them opens another one.
    let text = read_all(&mut client).await;
    let (first, second) = text.split_once("HTTP/1.1 407").expect("two answers");
    assert!(first.starts_with("HTTP/1.1 200") && second.to_lowercase().contains("connection: close\r\n"), "{text}");
    assert_eq!(world.receipts(), pairs(&[("allow", "policy_allow"), ("block", "identity_required")]));
}

#[tokio::test]
async fn bytes_have_a_rate_and_what_is_over_it_is_cut_and_told() {
    let world = World::new(", rates: {bytes_in: 300000, per: day}").await;
    let (proxy, host) = (world.door(Gate::open()).await, format!("web.test:{}", world.addr.port()));
    let text = asked(proxy, &format!("GET http://{host}/long"), &host, "").await;
    assert!(text.starts_with("HTTP/1.1 200") && text.len() < 301_000, "{}", text.len());
    assert_eq!(world.receipts_of_count(2).await, pairs(&[("allow", "policy_allow"), ("allow", "budget_exceeded")]));
    // What nobody has room for is not begun.
    let text = asked(proxy, &format!("GET http://{host}/x"), &host, "").await;
    assert!(text.starts_with("HTTP/1.1 429") && text.contains("x-pipelock-reason: budget_exceeded"), "{text}");
    assert!(text.contains("retry-after: 86") && text.contains("300000 bytes in in 86400s"), "{text}");
    assert_eq!(world.seen().len(), 1);
}

/// A request with a body of this length, which its head says or not.
fn post(length: usize, says_length: bool) -> Vec<u8> {
    let (framing, body) = match says_length {
        true => (format!("Content-Length: {length}"), "x".repeat(length)),
        false => {
            ("Transfer-Encoding: chunked".to_owned(), format!("{length:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(length)))
        }
    };
    format!("POST /echo HTTP/1.1\r\nHost: web.test\r\n{framing}\r\n\r\n{body}").into_bytes()
}

/// What a denial says of when it is worth asking again: in its head, and in its body.
fn seconds(text: &str) -> (Option<u64>, Option<u64>) {
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let header = head.lines().find_map(|line| line.strip_prefix("retry-after: "));
    (header.map(|seconds| seconds.parse().expect("seconds")), body["retry_after_seconds"].as_u64())
}

#[tokio::test]
async fn what_is_longer_than_what_is_left_is_refused_before_anything_leaves() {
    for more in [", rates: {bytes_out: 10KiB, per: day}", ", scan: true, rates: {bytes_out: 10KiB, per: day}"] {
        let world = World::new(more).await;
        let text = world.exchange(&post(10_000, true)).await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        let text = world.exchange(&post(10_000, true)).await;
        assert_problem(&text, "429", "budget_exceeded");
        let (header, member) = seconds(&text);
        assert!(header == member && header.is_some_and(|seconds| (80_000..86_400).contains(&seconds)), "{text}");
        assert!(text.contains("this request has 10"), "{text}");
        // What never fits is not worth asking again.
        let text = world.exchange(&post(20_000, true)).await;
        assert_problem(&text, "429", "budget_exceeded");
        assert_eq!(seconds(&text), (None, None), "{text}");
        let (allowed, refused) = (("allow", "policy_allow"), ("block", "budget_exceeded"));
        assert_eq!(world.receipts(), pairs(&[allowed, refused, refused]));
        // What fits is let through: the refusals have used nothing.
        assert!(world.exchange(GET).await.starts_with("HTTP/1.1 200"));
        assert_eq!(world.seen().len(), 2, "{:?}", world.seen());
    }
}

#[tokio::test]
async fn what_is_cut_on_the_way_says_when_there_is_room_again() {
    let world = World::new(", rates: {bytes_out: 10KiB, per: day}").await;
    let text = world.exchange(&post(20_000, false)).await;
    assert_problem(&text, "429", "budget_exceeded");
    assert_eq!(seconds(&text), (Some(8640), Some(8640)), "a tenth of a day: {text}");
    assert_eq!(world.receipts(), pairs(&[("allow", "budget_exceeded")]));
    let world = World::new(", scan: true, rates: {bytes_in: 5000, per: day}").await;
    let text = world.exchange(&post(6000, true)).await;
    assert_problem(&text, "429", "budget_exceeded");
    assert!(matches!(seconds(&text), (Some(header), Some(member)) if header == member), "{text}");
}

/// A rule that has room for 5,000 bytes of answers, and another.
fn scarce(port: u16) -> Rules {
    let other = format!("{{destination: 127.0.0.1, ports: [{port}], scan: false");
    rules(port, &format!(", scan: true, rates: {{bytes_in: 5000, per: day}}}}, {other}"))
}

#[tokio::test]
async fn what_was_cut_is_told_once_and_of_what_it_was() {
    let world = World::with(|port, _| (scarce(port), None)).await;
    let proxy = world.door(Gate::open()).await;
    #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
    let mut client = TcpStream::connect(proxy).await.expect("connect");
    let port = world.addr.port();
    // Read whole, so that the connection outlives it.
    let body = "clean words. ".repeat(500);
    let cut = format!("POST http://web.test:{port}/echo HTTP/1.1\r\nHost: web.test:{port}\r\n");
    let cut = format!("{cut}Content-Length: {}\r\n\r\n{body}", body.len());
    let fine = format!("GET http://127.0.0.1:{port}/x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    client.write_all(format!("{cut}{fine}").as_bytes()).await.expect("write");
    let text = read_all(&mut client).await;
    assert_eq!((text.matches("HTTP/1.1 429").count(), text.matches("HTTP/1.1 200").count()), (1, 1), "{text}");
    // Another's receipt comes after whatever the end of that connection left.
    for _ in 0..3 {
        let get = format!("GET http://127.0.0.1:{port}/x");
        assert!(asked(proxy, &get, &format!("127.0.0.1:{port}"), "").await.starts_with("HTTP/1.1 200"));
    }
    let allowed = ("allow", "policy_allow");
    assert_eq!(world.receipts(), pairs(&[("allow", "budget_exceeded"), allowed, allowed, allowed, allowed]));
}

#[tokio::test]
async fn what_was_cut_is_told_although_more_was_refused_since() {
    let world = World::with(|port, _| (scarce(port), None)).await;
    let session = world.session();
    let rules = world.proxy.rules();
    let rule = &rules.policy.rules()[0];
    let meter = session.shared.meter(&world.proxy, &rules.policy, (rule, &host()), &session.identified());
    let record =
        |verdict| session.record(rules.policy.id(), "GET".into(), "http://web.test/long".into(), &verdict, None, None);
    let rule = || Some(rule.label());
    // A body that streams is cut after its receipt, …
    session
        .file(&world.proxy.rules(), &mut record(Verdict::allow(Reason::PolicyAllow, rule())))
        .await
        .expect("written");
    let (near, mut far) = tokio::io::duplex(8192);
    far.write_all(&[b'x'; 6000]).await.expect("write");
    assert!(Metered::new(near, &meter).read(&mut [0; 6000]).await.is_err());
    // … and the next request is refused.
    let refused = meter.admit().expect_err("used up").by(rule());
    session.file(&world.proxy.rules(), &mut record(refused)).await.expect("written");
    assert!(session.end(None).is_none());
    let (allowed, cut) = (("allow", "policy_allow"), ("allow", "budget_exceeded"));
    assert_eq!(world.receipts_of_count(3).await, pairs(&[allowed, ("block", "budget_exceeded"), cut]));
    assert!(session.shared.untold().is_empty());
    // What ended the flow for another reason is not hidden by it, and has a receipt beside it.
    let (_, _, flow, guard) = world.flow().await;
    let session = Session::new(&world.proxy, flow, Some(guard), Carrier { is_tls: false, is_http2: false });
    let budget =
        session.shared.meter(&world.proxy, &rules.policy, (&rules.policy.rules()[0], &host()), &session.identified());
    session
        .file(&world.proxy.rules(), &mut record(Verdict::allow(Reason::PolicyAllow, rule())))
        .await
        .expect("written");
    session.shared.told(&record(Verdict::allow(Reason::PolicyAllow, rule())), true);
    let (near, mut far) = tokio::io::duplex(8192);
    far.write_all(&[b'x'; 6000]).await.expect("write");
    assert!(Metered::new(near, &budget).read(&mut [0; 6000]).await.is_err());
    session.end(Some(Verdict::block(Reason::PolicyChanged, "cut")));
    drop(session);
    let ended = locked(&world.table.0).pop().expect("reported").verdict.reason;
    assert_eq!((ended, world.receipts_of_count(5).await.pop()), (Reason::PolicyChanged, pairs(&[cut]).pop()));
}

#[tokio::test]
async fn what_is_only_asked_about_uses_nothing() {
    let world = World::with(|port, _| (scarce(port), None)).await;
    let (session, rules) = (world.session(), world.proxy.rules());
    let rule = &rules.policy.rules()[0];
    let asked = session.shared.known_meter(&rules.policy, rule);
    let used = session.shared.meter(&world.proxy, &rules.policy, (rule, &host()), &session.identified());
    assert!(!Arc::ptr_eq(&asked, &used));
    assert!(Arc::ptr_eq(&session.shared.known_meter(&rules.policy, rule), &used));
}
