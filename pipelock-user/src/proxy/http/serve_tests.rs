//! One transparent connection without a kernel: its flow is made up, everything behind it is real.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex as Locked;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::flow::{Account, FlowId, Host, Origin, Outcome, Target};
use crate::net::Resolver;
use crate::policy::Policy;
use crate::proxy::state::Origins;
use crate::recorder::{OpenChain, RecorderConfig};

struct Nobody;

impl Origins for Nobody {
    fn take(&self, _: u64, _: SocketAddr) -> Option<Flow> {
        None
    }
    fn names_of(&self, _: IpAddr) -> Vec<Host> {
        Vec::new()
    }
}

#[derive(Default)]
struct Table(Locked<Vec<Outcome>>);

impl Account for Table {
    fn accept(&self, _: FlowId) -> bool {
        true
    }
    fn report(&self, _: FlowId, outcome: Outcome) {
        self.0.lock().expect("not poisoned").push(outcome);
    }
}

/// A request as the destination got it.
#[derive(Clone, Debug)]
struct Seen {
    connection: usize,
    method: String,
    path: String,
    headers: http::HeaderMap,
    /// None for one that was broken off.
    body: Option<Bytes>,
}

/// The destination, the proxy before it, and the evidence behind it.
struct World {
    addr: SocketAddr,
    seen: Arc<Locked<Vec<Seen>>>,
    rules: watch::Sender<Arc<Rules>>,
    proxy: Arc<Proxy>,
    table: Arc<Table>,
    evidence: tempfile::TempDir,
}

impl World {
    async fn new(more: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let addr = listener.local_addr().expect("bound");
        let seen = Arc::new(Locked::new(Vec::new()));
        tokio::spawn(destination(listener, seen.clone()));
        let rules = watch::Sender::new(Arc::new(rules(addr.port(), more)));
        let evidence = tempfile::tempdir().expect("a folder");
        let chain = OpenChain::create(RecorderConfig {
            folder: evidence.path().join("evidence"),
            key: pipelock_receipt::SigningKey::from_seed(&[7; 32]),
            policy_hash: rules.borrow().policy.id().to_string(),
            capsule: None,
            contained_uid: None,
        });
        let (recorder, _) = chain.expect("a chain").start().expect("a recorder");
        let table = Arc::new(Table::default());
        let proxy = Proxy::new(rules.subscribe(), Arc::new(Nobody), table.clone(), recorder);
        Self { addr, seen, rules, proxy, table, evidence }
    }

    /// A connection of the agent's to web.test.
    async fn agent(&self) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        #[allow(clippy::disallowed_methods, reason = "the test plays the agent")]
        let agent = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connect");
        let (stream, _) = listener.accept().await.expect("accept");
        let origin =
            Origin { cgroup_id: 1, netns_cookie: 1, socket_cookie: 1, pid: 1, tgid: 1, uid: 1, comm: "agent".into() };
        let original = SocketAddr::from(([198, 18, 0, 1], self.addr.port()));
        let target = Target { name: Host::parse("web.test").ok(), original };
        let policy = self.rules.borrow().policy.id().clone();
        let flow = Arc::new(Flow { id: FlowId(7), origin, target, policy });
        let guard = FlowGuard::open(self.table.clone(), FlowId(7)).expect("accepted");
        let proxy = self.proxy.clone();
        tokio::spawn(async move { serve(&proxy, stream, BytesMut::new(), flow, guard).await });
        agent
    }

    /// Sends bytes, closes its side and reads all there is.
    async fn exchange(&self, bytes: &[u8]) -> String {
        let mut agent = self.agent().await;
        agent.write_all(bytes).await.expect("write");
        agent.shutdown().await.expect("shutdown");
        read_all(&mut agent).await
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// Verdict and reason of every request's receipt.
    fn receipts(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.evidence.path().join("evidence/evidence.jsonl")).expect("evidence");
        let entries = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let action = |entry: Value| {
            let action = find(&entry, "action_record")?.clone();
            (action["transport"] == "forward").then(|| {
                (action["verdict"].as_str().unwrap_or("").into(), action["pattern"].as_str().unwrap_or("").into())
            })
        };
        entries.filter_map(action).collect()
    }

    fn last_receipt(&self) -> (String, String) {
        self.receipts().pop().expect("a receipt")
    }
}

fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|value| find(value, key))),
        _ => None,
    }
}

fn rules(port: u16, more: &str) -> Rules {
    let text = format!(
        "version: \"1.0\"\negress: [{{destination: web.test, ports: [{port}], scan: false}}]\n\
         dns: {{hosts: {{web.test: \"127.0.0.1\"}}}}\n{more}\n"
    );
    let text = if text.contains("ssrf") { text } else { text + "ssrf: {allow: [\"127.0.0.0/8\"]}\n" };
    let policy = Policy::parse(&text, "test").expect("a policy");
    let hosts = policy.clone();
    Rules { policy, resolver: Resolver::new(Box::new(move |name| hosts.dns_hosts(name).map(<[_]>::to_vec))) }
}

async fn destination(listener: TcpListener, seen: Arc<Locked<Vec<Seen>>>) {
    let mut connection = 0;
    while let Ok((stream, _)) = listener.accept().await {
        connection += 1;
        let seen = seen.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let seen = seen.clone();
            async move {
                let (head, body) = request.into_parts();
                if head.uri.path() == "/never" {
                    std::future::pending::<()>().await;
                }
                let body = body.collect().await.ok().map(http_body_util::Collected::to_bytes);
                seen.lock().expect("not poisoned").push(Seen {
                    connection,
                    method: head.method.to_string(),
                    path: head.uri.path().to_owned(),
                    headers: head.headers,
                    body,
                });
                Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn read_all(agent: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), agent.read_to_end(&mut text)).await.expect("an end");
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads one answer of the destination, and leaves the connection open.
async fn read_hello(agent: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with("hello") {
        let mut bytes = [0; 1024];
        let read = tokio::time::timeout(Duration::from_secs(20), agent.read(&mut bytes)).await.expect("in time");
        let read = read.expect("read");
        assert!(read > 0, "ended after {text:?}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    text
}

fn assert_problem(text: &str, status: &str, reason: &str) {
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
    assert!(head.contains("content-type: application/problem+json"), "{text}");
    assert!(head.contains(&format!("x-pipelock-reason: {reason}")), "{text}");
    let body: Value = serde_json::from_str(body).expect("JSON, and nothing behind it");
    assert_eq!((body["reason"].as_str(), body["flow"].as_str()), (Some(reason), Some("7")));
}

#[tokio::test]
async fn the_corpus_is_refused_or_forwarded() {
    let world = World::new("").await;
    for (id, label, raw) in crate::proxy::http::framing::tests::corpus() {
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
                let text = world.exchange(&[raw, body].concat()).await;
                assert!(text.contains(" 200 OK\r\n"), "{id}: {text}");
                assert_eq!(world.last_receipt(), ("allow".into(), "policy_allow".into()), "{id}");
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
async fn a_request_that_cannot_be_read_does_not_take_the_one_before_with_it() {
    let world = World::new("").await;
    let text = world
        .exchange(b"GET /1 HTTP/1.1\r\n\r\nPOST /2 HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
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
        .exchange(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\nabcd\r\n0\r\n\r\n")
        .await;
    assert_problem(&text, "400", "request_malformed");
    assert_eq!(world.last_receipt(), ("allow".into(), "request_malformed".into()), "the head had left");
    assert_eq!(world.receipts().len(), 1);
    assert!(world.seen().iter().all(|seen| seen.body.is_none()), "{:?}", world.seen());
}

#[tokio::test]
async fn a_body_arrives_whatever_the_method_and_with_its_codings() {
    let world = World::new("").await;
    let text =
        world.exchange(b"GET /q HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    let seen = world.seen().pop().expect("arrived");
    assert_eq!((seen.method.as_str(), seen.path.as_str(), seen.body.as_deref()), ("GET", "/q", Some(&b"abc"[..])));
    assert_eq!(seen.headers["transfer-encoding"], "gzip, chunked");
}

#[tokio::test]
async fn heads_that_are_too_long_or_too_slow_are_told() {
    let world = World::new("limits: {header_bytes: 2KiB, request_timeout_seconds: 1}").await;
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(3000));
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
    agent.write_all(b"GET /1 HTTP/1.1\r\n\r\n").await.expect("write");
    read_hello(&mut agent).await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    agent.write_all(b"GET /2 HTTP/1.1\r\n\r\n").await.expect("write");
    read_hello(&mut agent).await;
}

#[tokio::test]
async fn silence_ends_a_kept_connection_and_a_request() {
    let world = World::new("limits: {idle_timeout_seconds: 1}").await;
    let mut agent = world.agent().await;
    agent.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("write");
    read_hello(&mut agent).await;
    let started = Instant::now();
    assert_eq!(read_all(&mut agent).await, "");
    let took = started.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(4), "{took:?}");

    let text = world.exchange(b"GET /never HTTP/1.1\r\n\r\n").await;
    assert_problem(&text, "504", "idle_timeout");
    assert_eq!(world.last_receipt(), ("allow".into(), "idle_timeout".into()));
}

#[tokio::test]
async fn a_kept_connection_does_not_outlive_the_policy_that_allowed_it() {
    let world = World::new("").await;
    let mut agent = world.agent().await;
    let mut get = async |path: &str| {
        agent.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes()).await.expect("write");
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
