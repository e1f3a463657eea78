use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::flow::Answering;
use crate::proxy::http::Gate;
use crate::proxy::http::world::{SECRET, World, assert_problem, read_all};
use crate::proxy::http::world_evidence::{find, until};
use crate::proxy::intercept::tests as over_tls;

/// Says what it was told to say, and keeps what it was asked.
#[derive(Default)]
struct Scripted {
    answers: Mutex<VecDeque<Option<Result<Answer, String>>>>,
    asked: Mutex<Vec<Question>>,
    over: Arc<AtomicUsize>,
}

/// Counts a question that is over, answered or withdrawn.
struct Over(Arc<AtomicUsize>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Scripted {
    /// None stands for no answer at all.
    fn new(answers: impl IntoIterator<Item = Option<Result<Answer, String>>>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() })
    }

    /// Waits until so many questions were asked and are over.
    async fn is_over(&self, count: usize) {
        until("the question is over", || self.over.load(Ordering::Relaxed) == count).await;
    }

    fn count(&self) -> usize {
        locked(&self.asked).len()
    }
}

impl Asker for Scripted {
    fn name(&self) -> &'static str {
        "terminal"
    }

    fn ask<'a>(&'a self, question: &'a Question) -> Answering<'a> {
        locked(&self.asked).push(question.clone());
        let answer = locked(&self.answers).pop_front().expect("nobody else asks");
        let over = Over(self.over.clone());
        Box::pin(async move {
            let _over = over;
            match answer {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        })
    }
}

fn request(method: &str, path: &str, more: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nHost: web.test\r\n{more}{length}Connection: close\r\n\r\n{body}").into_bytes()
}

fn asking_about_findings(port: u16) -> Rules {
    let rules = crate::proxy::http::world::rules(port, ", scan: true");
    let text = rules.policy.canonical_json().replacen('{', "{\"dlp\":{\"action\":\"ask\"},", 1);
    Rules { policy: crate::policy::Policy::parse(&text, "test").expect("a policy"), ..rules }
}

/// What the receipts of requests say of who was asked, in order.
fn asked(world: &World) -> Vec<String> {
    let text = world.evidence_by_now();
    let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let asked = |entry: Value| {
        let is_request = find(&entry, "action_record")?["transport"] == "forward";
        let asked = find(&entry, "asked").map(|asked| format!("{} {}", asked["of"], asked["answer"]).replace('"', ""));
        is_request.then(|| asked.unwrap_or_default())
    };
    entries.filter_map(asked).collect()
}

#[tokio::test]
async fn nothing_goes_on_without_a_yes() {
    let world = World::new(", ask: true").await;
    let text = world.ask(&request("GET", "/x", "", "")).await;
    assert_problem(&text, "403", "ask_denied");
    assert!(text.contains("nobody can be asked"), "{text}");
    let terminal = Scripted::new([
        Some(Ok(Answer::No)),
        Some(Err("it burns".into())),
        Some(Ok(Answer::Yes)),
        Some(Ok(Answer::Always)),
    ]);
    world.proxy.asking.at(terminal.clone());
    for why in ["said no", "could not be asked: it burns"] {
        let text = world.ask(&request("GET", "/x", "", "")).await;
        assert_problem(&text, "403", "ask_denied");
        assert!(text.contains(why), "{text}");
    }
    assert!(world.seen().is_empty(), "nothing has left");
    for _ in 0..4 {
        assert!(world.ask(&request("GET", "/x", "", "")).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!((world.seen().len(), terminal.count()), (4, 4), "after always nobody is asked");
    let question = locked(&terminal.asked)[0].clone();
    assert_eq!((question.method.as_str(), question.seconds), ("GET", 30));
    assert_eq!(question.rule, "egress[0] web.test");
    assert!(question.target.starts_with("http://web.test:") && question.target.ends_with("/x"), "{}", question.target);
    let mut expected = vec!["nobody none", "terminal no", "terminal failed", "terminal yes"];
    expected.extend(["terminal always"; 3]);
    assert_eq!(asked(&world), expected);
}

#[tokio::test]
async fn a_client_of_the_explicit_proxy_is_told_by_its_address_inside_tunnels_too() {
    let world = World::new(", scan: true, ask: true").await;
    let terminal = Scripted::new([Some(Ok(Answer::No)), Some(Ok(Answer::No))]);
    world.proxy.asking.at(terminal.clone());
    let (proxy, port) = (world.door(Gate::open()).await, world.addr.port());
    let get = |target: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: web.test:{port}\r\nConnection: close\r\n\r\n").into_bytes()
    };
    let connect = format!("CONNECT web.test:{port} HTTP/1.1\r\nHost: web.test:{port}\r\n\r\n").into_bytes();
    for bytes in [get(&format!("http://web.test:{port}/x")), [connect, get("/x")].concat()] {
        #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
        let mut client = tokio::net::TcpStream::connect(proxy).await.expect("connect");
        client.write_all(&bytes).await.expect("write");
        let text = read_all(&mut client).await;
        assert!(text.contains("x-pipelock-reason: ask_denied"), "{text}");
    }
    let actors: Vec<_> = locked(&terminal.asked).iter().map(|question| question.actor.clone()).collect();
    assert_eq!(actors, ["a client at 127.0.0.1"; 2]);
}

#[tokio::test]
async fn always_holds_for_the_same_alone() {
    let world = World::new(", ask: true").await;
    let terminal = Scripted::new([Some(Ok(Answer::Always)), Some(Ok(Answer::No))]);
    world.proxy.asking.at(terminal.clone());
    assert!(world.ask(&request("GET", "/x", "", "")).await.starts_with("HTTP/1.1 200"));
    assert!(world.ask(&request("GET", "/y", "", "")).await.starts_with("HTTP/1.1 200"));
    assert_problem(&world.ask(&request("PUT", "/x", "", "")).await, "403", "ask_denied");
    assert_eq!(terminal.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_answer_is_no() {
    let world = World::new("ask: {timeout_seconds: 7}").await;
    let terminal = Scripted::new([None]);
    world.proxy.asking.at(terminal);
    let session = world.session();
    let (flow, start) = (session.identified(), tokio::time::Instant::now());
    let rules = world.proxy.rules();
    let about =
        About { flow: &flow, rule: "egress[0]", method: "GET", place: "a:1".into(), target: "http://a", found: None };
    let denied =
        world.proxy.asking.ask((&world.proxy, &rules), about, std::future::pending()).await.expect_err("no answer");
    assert_eq!((denied.reason, start.elapsed().as_secs()), (Reason::AskDenied, 7));
    assert!(denied.is_block() && denied.detail.contains("did not answer within 7s"), "{}", denied.detail);
    assert_eq!(denied.asked.map(|asked| asked.answer), Some("none"));
}

#[tokio::test]
async fn a_no_that_was_said_is_told_though_the_client_has_gone_and_a_yes_is_none() {
    let world = World::new("").await;
    world.proxy.asking.at(Scripted::new([Some(Ok(Answer::No)), Some(Ok(Answer::Yes)), None]));
    let (session, rules) = (world.session(), world.proxy.rules());
    let flow = session.identified();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let about =
            About { flow: &flow, rule: "r", method: "GET", place: "a:1".into(), target: "http://a", found: None };
        let gone = async { Verdict::let_out(Reason::ClientAborted, "gone") };
        let denied = world.proxy.asking.ask((&world.proxy, &rules), about, gone).await.expect_err("no yes");
        assert!(denied.is_block());
        ends.push((denied.reason, denied.asked.expect("somebody").answer));
    }
    let withdrawn = (Reason::ClientAborted, "none");
    assert_eq!(ends, [(Reason::AskDenied, "no"), withdrawn, withdrawn]);
}

#[tokio::test]
async fn somebody_decides_about_what_was_found() {
    let world = World::with(|port, _| (asking_about_findings(port), None)).await;
    let terminal = Scripted::new([
        Some(Ok(Answer::No)),
        Some(Ok(Answer::Yes)),
        Some(Ok(Answer::Yes)),
        Some(Ok(Answer::No)),
        Some(Ok(Answer::Yes)),
    ]);
    world.proxy.asking.at(terminal.clone());
    let header = format!("X-Key: {SECRET}\r\n");
    let denied = world.ask(&request("GET", "/x", &header, "")).await;
    assert_problem(&denied, "403", "dlp_match");
    assert!(denied.contains("said no") && world.seen().is_empty(), "{denied}");
    assert!(world.ask(&request("GET", "/x", &header, "")).await.starts_with("HTTP/1.1 200"));
    // URL, header and body are one question.
    let path = format!("/{SECRET}");
    assert!(world.ask(&request("POST", &path, &header, SECRET)).await.starts_with("HTTP/1.1 200"));
    assert_problem(&world.ask(&request("POST", "/echo", "", SECRET)).await, "403", "dlp_match");
    // The body goes on as it was.
    let text = world.ask(&request("POST", "/echo", "", &format!("a {SECRET} b"))).await;
    assert!(text.contains(&format!("a {SECRET} b")), "{text}");
    assert_eq!((terminal.count(), world.seen().len()), (5, 3));
    for question in locked(&terminal.asked).iter() {
        assert!(!format!("{question:?}").contains(SECRET) && !question.findings.is_empty(), "{question:?}");
    }
    // Nobody is asked about what streams, nor about what comes in.
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SECRET}\r\n0\r\n\r\n", SECRET.len());
    let head = "POST /echo HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n";
    assert!(!world.ask(format!("{head}{chunked}").as_bytes()).await.starts_with("HTTP/1.1 200"));
    assert_problem(&world.ask(&request("GET", "/order", "", "")).await, "403", "injection_match");
    assert_eq!(terminal.count(), 5);
}

#[tokio::test]
async fn a_question_hides_nothing_behind_much() {
    use pipelock_receipt::codec::hex;

    use crate::inspect::KNOWN_FOR_TESTS;

    let world = World::with(|port, _| (asking_about_findings(port), None)).await;
    let terminal = Scripted::new([Some(Ok(Answer::No)), Some(Ok(Answer::No)), Some(Ok(Answer::No))]);
    world.proxy.asking.at(terminal.clone());
    let many: String = (0..20).map(|number| format!("ghp_{number:036} ")).collect();
    let body = format!("{many} {}", KNOWN_FOR_TESTS);
    assert_problem(&world.ask(&request("POST", "/x", "", &body)).await, "403", "dlp_match");
    let question = locked(&terminal.asked).pop().expect("asked");
    assert_eq!(question.findings.len(), 9, "{question:?}");
    assert!(question.findings[0].contains("KNOWN") && question.findings[8].starts_with("and at least"), "{question:?}");
    // What nobody may be asked about counts, wherever in the list it is.
    let deep = (0..8).fold("words of no importance ".repeat(2), |text, _| hex(text.as_bytes()));
    let count = terminal.count();
    assert_problem(&world.ask(&request("POST", "/x", "", &format!("{many} {deep}"))).await, "403", "dlp_match");
    // Nor is anybody asked about a body that is not what it says it is.
    let coded = world.ask(&request("POST", "/x", "Content-Encoding: gzip\r\n", &many)).await;
    assert_problem(&coded, "403", "content_unreadable");
    assert_eq!(terminal.count(), count);
    // A method of the client's own choice is told of as the rest is.
    assert_problem(&world.ask(&request(KNOWN_FOR_TESTS, "/x", "", "")).await, "403", "dlp_match");
    let question = locked(&terminal.asked).pop().expect("asked");
    assert!(!format!("{question:?}").contains(KNOWN_FOR_TESTS), "{question:?}");
}

#[tokio::test]
async fn what_nobody_reads_is_told_of_without_secrets_too() {
    use crate::inspect::KNOWN_FOR_TESTS;

    let world = World::new(", ask: true").await;
    let terminal = Scripted::new([Some(Ok(Answer::No))]);
    world.proxy.asking.at(terminal.clone());
    let request = request(KNOWN_FOR_TESTS, &format!("/{KNOWN_FOR_TESTS}"), "", "");
    assert_problem(&world.ask(&request).await, "403", "ask_denied");
    let question = locked(&terminal.asked).pop().expect("asked");
    assert!(!format!("{question:?}").contains(KNOWN_FOR_TESTS) && question.target.contains("web.test"), "{question:?}");
}

#[tokio::test]
async fn always_is_once_for_what_was_found() {
    let world = World::with(|port, _| (asking_about_findings(port), None)).await;
    let terminal = Scripted::new([Some(Ok(Answer::Always)), Some(Ok(Answer::No))]);
    world.proxy.asking.at(terminal.clone());
    let header = format!("X-Key: {SECRET}\r\n");
    assert!(world.ask(&request("GET", "/x", &header, "")).await.starts_with("HTTP/1.1 200"));
    assert_problem(&world.ask(&request("GET", "/x", &header, "")).await, "403", "dlp_match");
    assert_eq!(asked(&world), ["terminal yes", "terminal no"]);
}

#[tokio::test]
async fn another_policy_withdraws_what_is_asked() {
    let world = World::new(", ask: true").await;
    let terminal = Scripted::new([None]);
    world.proxy.asking.at(terminal.clone());
    let mut agent = world.agent().await;
    agent.write_all(&request("GET", "/x", "", "")).await.expect("write");
    until("somebody is asked", || terminal.count() == 1).await;
    world.rules.send_replace(Arc::new(crate::proxy::http::world::rules(world.addr.port(), ", methods: [GET]")));
    assert_problem(&read_all(&mut agent).await, "403", "policy_changed");
    assert!(world.seen().is_empty(), "nothing has left");
}

#[tokio::test]
async fn a_tunnel_that_nobody_reads_is_asked_about() {
    let world = World::new(", ask: true").await;
    world.proxy.asking.at(Scripted::new([Some(Ok(Answer::No)), Some(Ok(Answer::Yes))]));
    let proxy = world.door(Gate::open()).await;
    let mut answers = Vec::new();
    for _ in 0..2 {
        #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
        let mut client = tokio::net::TcpStream::connect(proxy).await.expect("connect");
        let host = format!("web.test:{}", world.addr.port());
        let connect = format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        client.write_all(connect.as_bytes()).await.expect("write");
        let mut answer = vec![0; 4096];
        let count = client.read(&mut answer).await.expect("read");
        answers.push(String::from_utf8_lossy(&answer[..count]).into_owned());
    }
    assert!(answers[0].contains("ask_denied") && answers[1].starts_with("HTTP/1.1 200"), "{answers:?}");
}

#[tokio::test]
async fn a_client_that_hangs_up_withdraws_what_is_asked() {
    let world = World::new(", ask: true").await;
    let terminal = Scripted::new((0..4).map(|_| None));
    world.proxy.asking.at(terminal.clone());
    let proxy = world.door(Gate::open()).await;
    let host = format!("web.test:{}", world.addr.port());
    let requests = [
        request("GET", "/x", "", ""),
        // With more behind it, and a body that has not come yet.
        [request("GET", "/x", "", ""), b"GET /y HTTP/1.1\r\n".to_vec()].concat(),
        b"POST /echo HTTP/1.1\r\nHost: web.test\r\nContent-Length: 99999\r\n\r\nhalf".to_vec(),
        format!("CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes(),
    ];
    for (number, request) in requests.iter().enumerate() {
        let mut client = if request.starts_with(b"CONNECT") {
            #[allow(clippy::disallowed_methods, reason = "the test plays the client")]
            tokio::net::TcpStream::connect(proxy).await.expect("connect")
        } else {
            world.agent().await
        };
        client.write_all(request).await.expect("write");
        until("somebody is asked", || terminal.count() == number + 1).await;
        drop(client);
        terminal.is_over(number + 1).await;
    }
    until("all is recorded", || world.receipts().len() == 3 && world.tunnels().len() == 1).await;
    let withdrawn = ("block".to_owned(), "client_aborted".to_owned());
    assert_eq!((world.receipts(), world.tunnels()), (vec![withdrawn.clone(); 3], vec![withdrawn]));
    assert_eq!(asked(&world), ["terminal none"; 3]);
    assert!(world.seen().is_empty(), "nothing has left");
}

#[tokio::test]
async fn one_request_of_many_is_taken_back_alone() {
    let edit = |text: String| text.replace("methods:", "ask: true, methods:");
    let opened = over_tls::opened_with("web.test", true, edit).await;
    let terminal = Scripted::new([None, Some(Ok(Answer::Yes))]);
    opened.world.proxy.asking.at(terminal.clone());
    let stream = hyper_util::rt::TokioIo::new(opened.connect(&["h2"]).await);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let url = |path: &str| format!("https://web.test:{}{path}", opened.world.addr.port());
    let first = tokio::spawn(sender.send_request(over_tls::request("GET", &url("/ok/1"), "")));
    until("somebody is asked", || terminal.count() == 1).await;
    first.abort();
    terminal.is_over(1).await;
    let second = sender.send_request(over_tls::request("GET", &url("/ok/2"), "")).await.expect("an answer");
    assert_eq!(second.status(), 200);
    assert_eq!(asked(&opened.world), ["terminal none", "terminal yes"]);
    assert_eq!(opened.world.seen().len(), 1, "the other has not left");
}

#[tokio::test]
async fn questions_that_wait_are_bounded_and_withdrawn() {
    let world = World::new(", ask: true").await;
    let terminal = Scripted::new((0..2).map(|_| None));
    world.proxy.asking.at(terminal.clone());
    let rules = world.proxy.rules();
    let session = world.session();
    let flow = session.identified();
    let ask = |number: usize| {
        let about = About {
            flow: &flow,
            rule: "egress[0]",
            method: "GET",
            place: format!("a:{number}"),
            target: "http://a",
            found: None,
        };
        let (proxy, rules) = (&world.proxy, &rules);
        async move { proxy.asking.ask((proxy, rules), about, std::future::pending()).await }
    };
    let mut waiting: Vec<_> = (0..MOST_OF_ONE).map(|number| Box::pin(ask(number))).collect();
    for question in &mut waiting {
        assert!(futures_now(question.as_mut()).is_none());
    }
    let denied = ask(MOST_OF_ONE).await.expect_err("too many");
    assert!(denied.detail.contains("of the same client wait"), "{}", denied.detail);
    assert_eq!(terminal.count(), 1, "one at a time");
    // Who has gone makes room.
    drop(waiting.remove(0));
    assert!(futures_now(waiting[0].as_mut()).is_none());
    assert_eq!(terminal.count(), 2);
}

/// What a future has come to, looked at once.
fn futures_now<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}
