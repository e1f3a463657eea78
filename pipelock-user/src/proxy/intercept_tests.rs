//! A connection that is opened: both protocols inside, and whom it lets through.

use std::path::Path;
use std::time::Duration;

use ::http::{Request, StatusCode, Version};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::inspect::Inspection;
use crate::net::Resolver;
use crate::policy::Policy;
use crate::proxy::http::world::World;
use crate::proxy::http::world_evidence::until;
use crate::proxy::state::Rules;
use crate::proxy::tls::{CertificateAuthority, provider, server_of};

pub(in crate::proxy) struct Opened {
    pub(in crate::proxy) world: World,
    ca: Arc<CertificateAuthority>,
    outside: Arc<CertificateAuthority>,
    tls: Arc<Interception>,
}

fn host(name: &str) -> Host {
    Host::parse(name).expect("a name")
}

/// A world whose destination has a certificate for `name` by an authority that is trusted, or not.
pub(in crate::proxy) async fn opened(name: &str, is_trusted: bool) -> Opened {
    opened_with(name, is_trusted, |text| text).await
}

/// The same, with another policy.
pub(in crate::proxy) async fn opened_with(name: &str, is_trusted: bool, edit: impl FnOnce(String) -> String) -> Opened {
    let ca = Arc::new(CertificateAuthority::for_now().expect("an authority"));
    let outside = Arc::new(CertificateAuthority::for_now().expect("an authority"));
    let trusted = if is_trusted { &outside } else { &ca };
    let mut tls = None;
    let world = World::with(|port, folder| {
        let rules = rules(port, folder, trusted, &ca, edit);
        tls.clone_from(&rules.tls);
        (rules, Some(server_of(&outside, &host(name)).expect("a server")))
    })
    .await;
    Opened { world, ca, outside, tls: tls.expect("there is a rule that wants reading") }
}

fn rules(
    port: u16,
    folder: &Path,
    trusted: &CertificateAuthority,
    ca: &Arc<CertificateAuthority>,
    edit: impl FnOnce(String) -> String,
) -> Rules {
    std::fs::write(folder.join("roots.pem"), trusted.pem()).expect("write");
    let text = format!(
        "version: \"1.0\"\negress: [{{destination: web.test, ports: [{port}], methods: [GET, POST], paths: [\"/ok/*\"]}}]\n\
         dns: {{hosts: {{web.test: \"127.0.0.1\"}}}}\nssrf: {{allow: [\"127.0.0.0/8\"]}}\n\
         tls: {{extra_roots: [{}]}}\n",
        folder.join("roots.pem").display()
    );
    let policy = Policy::parse(&edit(text), "test").expect("a policy");
    let tls = Interception::new(&policy, ca, None).expect("interception");
    tls.prepare(&policy);
    let hosts = policy.clone();
    let resolver = Resolver::new(Box::new(move |name| hosts.dns_hosts(name).map(<[_]>::to_vec)));
    Rules {
        policy,
        resolver,
        hop: None,
        webhook: None,
        tls: Some(Arc::new(tls)),
        inspect: Some(Inspection::for_tests()),
    }
}

impl Opened {
    /// A connection of the agent's, which is opened.
    async fn agent(&self) -> (TcpStream, JoinHandle<Option<Verdict>>) {
        let (agent, stream, flow, guard) = self.world.flow().await;
        let (proxy, tls) = (self.world.proxy.clone(), self.tls.clone());
        let served = tokio::spawn(async move {
            intercept(&proxy, &tls, "egress[0] web.test".into(), host("web.test"), stream, &flow, Some(guard)).await
        });
        (agent, served)
    }

    /// A client that trusts what it should.
    pub(in crate::proxy) fn client(&self, protocols: &[&str]) -> ClientConfig {
        client(&self.ca, protocols)
    }

    pub(in crate::proxy) async fn connect(&self, protocols: &[&str]) -> TlsStream<TcpStream> {
        let (agent, _) = self.agent().await;
        greet_as(self.client(protocols), agent).await.expect("a handshake")
    }
}

fn client(ca: &CertificateAuthority, protocols: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.certificate().to_vec())).expect("a root");
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    config
}

pub(in crate::proxy) async fn greet_as(
    config: ClientConfig,
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("web.test").expect("a name");
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

pub(in crate::proxy) fn request(method: &str, url: &str, body: &'static str) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(url);
    let request = if url.starts_with('/') { request.header("host", "web.test") } else { request };
    request.body(Full::new(Bytes::from_static(body.as_bytes()))).expect("a request")
}

pub(in crate::proxy) type Said = (StatusCode, String, String);

async fn said(response: ::http::Response<hyper::body::Incoming>) -> Said {
    let (head, body) = response.into_parts();
    let reason = head.headers.get("x-pipelock-reason").map_or("", |reason| reason.to_str().expect("text")).to_owned();
    let body = body.collect().await.expect("a body").to_bytes();
    (head.status, reason, String::from_utf8_lossy(&body).into_owned())
}

pub(in crate::proxy) async fn over_http1(
    stream: TlsStream<TcpStream>,
    requests: Vec<Request<Full<Bytes>>>,
) -> Vec<Said> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    let mut all = Vec::new();
    for request in requests {
        sender.ready().await.expect("kept");
        all.push(said(sender.send_request(request).await.expect("an answer")).await);
    }
    all
}

pub(in crate::proxy) async fn over_http2(
    stream: TlsStream<TcpStream>,
    requests: Vec<Request<Full<Bytes>>>,
) -> Vec<Said> {
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    // All at a time.
    let answers: Vec<_> = requests
        .into_iter()
        .map(|request| {
            let mut sender = sender.clone();
            tokio::spawn(async move { said(sender.send_request(request).await.expect("an answer")).await })
        })
        .collect();
    let mut all = Vec::new();
    for answer in answers {
        all.push(answer.await.expect("no panic"));
    }
    all
}

#[tokio::test]
async fn requests_inside_are_decided_forwarded_and_recorded() {
    let opened = opened("web.test", true).await;
    let requests = || vec![request("POST", "/ok/1", "abc"), request("GET", "/ok/2", ""), request("PUT", "/ok/3", "x")];
    let answers = over_http1(opened.connect(&["http/1.1"]).await, requests()).await;
    let statuses: Vec<_> = answers.iter().map(|(status, reason, _)| (status.as_u16(), reason.as_str())).collect();
    assert_eq!(statuses, [(200, ""), (200, ""), (403, "method_denied")]);
    assert_eq!(answers[0].2, "hello");
    let seen = opened.world.seen();
    assert_eq!(seen.iter().map(|seen| seen.connection).collect::<Vec<_>>(), [1, 1], "one connection, kept");
    assert_eq!(seen[0].body.as_deref(), Some(&b"abc"[..]));
    let receipts = opened.world.receipts();
    assert_eq!(receipts.len(), 3);
    assert_eq!(receipts[2], ("block".into(), "method_denied".into()));
    let text = std::fs::read_to_string(opened.world.evidence.path().join("evidence/evidence.jsonl")).expect("evidence");
    assert!(text.contains("https://web.test:"), "{text}");
}

#[tokio::test]
async fn http2_goes_through_side_by_side_over_one_connection() {
    let opened = opened("web.test", true).await;
    let port = opened.world.addr.port();
    let requests = (0..30).map(|at| request("GET", &format!("https://web.test:{port}/ok/{at}"), "")).collect();
    let answers = over_http2(opened.connect(&["h2", "http/1.1"]).await, requests).await;
    assert!(answers.iter().all(|(status, _, body)| *status == 200 && body == "hello"), "{answers:?}");
    let seen = opened.world.seen();
    assert!(seen.iter().all(|seen| seen.connection == 1) && seen.len() == 30, "{}", seen.len());
    assert!(seen.iter().all(|seen| seen.headers.get("host").is_none()), "HTTP/2 on the far side");
    assert_eq!(opened.world.receipts().len(), 30);
}

#[tokio::test]
async fn http2_without_alpn_is_told_by_its_preface() {
    let opened = opened("web.test", true).await;
    let url = format!("https://web.test:{}/ok/x", opened.world.addr.port());
    let answers = over_http2(opened.connect(&[]).await, vec![request("GET", &url, "")]).await;
    assert_eq!(answers[0].0, 200);
    let answers = over_http1(opened.connect(&[]).await, vec![request("GET", "/ok/y", "")]).await;
    assert_eq!(answers[0].0, 200);
}

#[tokio::test]
async fn another_name_inside_is_sent_away() {
    let opened = opened("web.test", true).await;
    let port = opened.world.addr.port();
    let other = request("GET", &format!("https://other.test:{port}/ok/x"), "");
    let answers = over_http2(opened.connect(&["h2"]).await, vec![other]).await;
    assert_eq!((answers[0].0.as_u16(), answers[0].1.as_str()), (421, "misdirected"));
    let fronting = Request::get("/ok/x").header("host", "other.test").body(Full::default()).expect("a request");
    let answers = over_http1(opened.connect(&["http/1.1"]).await, vec![fronting]).await;
    assert_eq!((answers[0].0.as_u16(), answers[0].1.as_str()), (403, "name_mismatch"));
    assert!(opened.world.seen().is_empty());
}

#[tokio::test]
async fn a_destination_that_cannot_be_verified_gets_nothing() {
    for (name, is_trusted, why) in [("web.test", false, "no root"), ("other.test", true, "for another name")] {
        let opened = opened(name, is_trusted).await;
        let answers = over_http1(opened.connect(&["http/1.1"]).await, vec![request("POST", "/ok/x", "secret")]).await;
        assert_eq!((answers[0].0.as_u16(), answers[0].1.as_str()), (502, "certificate_invalid"), "{name}");
        assert!(answers[0].2.contains(why), "{}", answers[0].2);
        assert!(opened.world.seen().is_empty());
        assert_eq!(opened.world.last_receipt(), ("block".into(), "certificate_invalid".into()));
    }
}

#[tokio::test]
async fn a_client_that_does_not_trust_us_is_told_apart() {
    let opened = opened("web.test", true).await;
    let stranger = CertificateAuthority::for_now().expect("an authority");
    let (agent, served) = opened.agent().await;
    assert!(greet_as(client(&stranger, &["h2"]), agent).await.is_err());
    let verdict = served.await.expect("no panic").expect("a verdict");
    assert_eq!(verdict.reason, Reason::ClientPinned, "{verdict:?}");
    assert!(verdict.detail.contains("destination: \"web.test\""), "{verdict:?}");
    let reports = opened.world.table.0.lock().expect("not poisoned");
    assert_eq!(reports.last().map(|report| report.verdict.reason), Some(Reason::ClientPinned));
}

#[tokio::test]
async fn what_is_not_http_inside_goes_nowhere() {
    use tokio::io::AsyncReadExt as _;
    let opened = opened("web.test", true).await;
    let (agent, served) = opened.agent().await;
    let mut stream = greet_as(opened.client(&[]), agent).await.expect("a handshake");
    stream.write_all(b"\x00\x01binary").await.expect("write");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert_eq!(served.await.expect("no panic").expect("a verdict").reason, Reason::ProtocolUnknown);
}

#[tokio::test]
async fn sessions_are_resumed_in_both_versions() {
    let opened = opened("web.test", true).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(opened.ca.certificate().to_vec())).expect("a root");
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]);
        let config = Arc::new(builder.expect("a version").with_root_certificates(roots).with_no_client_auth());
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let (agent, _) = opened.agent().await;
            let name = ServerName::try_from("web.test").expect("a name");
            let stream =
                tokio_rustls::TlsConnector::from(config.clone()).connect(name, agent).await.expect("a handshake");
            kinds.push(stream.get_ref().1.handshake_kind());
            // The ticket of TLS 1.3 comes with the answer.
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("a connection");
            tokio::spawn(connection);
            let response = sender.send_request(request("GET", "/ok/r", "")).await.expect("an answer");
            assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_11));
        }
        assert_eq!(kinds[1], Some(rustls::HandshakeKind::Resumed), "{version:?}");
    }
}

#[tokio::test]
async fn a_client_that_pins_is_told_the_ports_that_its_rule_needs() {
    let opened = opened("web.test", true).await;
    let stranger = CertificateAuthority::for_now().expect("an authority");
    let (agent, served) = opened.agent().await;
    assert!(greet_as(client(&stranger, &["h2"]), agent).await.is_err());
    let verdict = served.await.expect("no panic").expect("a verdict");
    let (_, rule) = verdict.detail.split_once("add: ").expect("a rule");
    let policy = Policy::parse(&format!("version: 1\negress:\n{rule}\n"), "test").expect("a rule that can be added");
    assert!(policy.find(&host("web.test"), opened.world.addr.port()).is_ok_and(|rule| !rule.wants_reading()), "{rule}");
}

/// Waits until there are this many receipts of requests.
async fn receipts(opened: &Opened, count: usize) -> Vec<(String, String)> {
    for _ in 0..500 {
        if opened.world.receipts().len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    opened.world.receipts()
}

#[tokio::test]
async fn streams_reset_in_a_row_do_not_pile_up_work_and_what_was_asked_is_recorded() {
    let opened = opened("web.test", true).await;
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(opened.connect(&["h2"]).await)).await.expect("connected");
    let connection = tokio::spawn(connection);
    let url = format!("https://web.test:{}/ok/never", opened.world.addr.port());
    for _ in 0..300 {
        let mut sender = sender.clone();
        let sent = sender.send_request(request("GET", &url, ""));
        // Long enough to be taken, so that it is not the number of streams waiting to be taken that ends it.
        let _ = tokio::time::timeout(Duration::from_millis(3), sent).await;
    }
    assert!(opened.world.receipts().is_empty(), "none has an answer");
    connection.abort();
    drop(sender);
    receipts(&opened, 100).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let receipts = opened.world.receipts();
    assert_eq!(receipts.len(), 100, "as many as may be under way at a time");
    assert!(receipts.iter().all(|receipt| *receipt == ("allow".into(), "client_aborted".into())), "{receipts:?}");
}

#[tokio::test]
async fn a_policy_that_does_not_allow_it_ends_the_connection_and_what_is_under_way() {
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let opened = opened("web.test", true).await;
        let load = |edit: fn(String) -> String| {
            let (port, folder) = (opened.world.addr.port(), opened.world.evidence.path());
            opened.world.rules.send_replace(Arc::new(rules(port, folder, &opened.outside, &opened.ca, edit)));
        };
        let forbid = |text: String| text.replace("destination: web.test", "destination: other.test");
        // It was in force when the connection came, and another when it was let through.
        load(forbid);
        let (agent, served) = opened.agent().await;
        load(|text| text);
        let stream = greet_as(opened.client(protocols), agent).await.expect("a handshake");
        let url = format!("https://web.test:{}/ok/never", opened.world.addr.port());
        let is_http2 = protocols == ["h2"];
        let asked = tokio::spawn(async move {
            if is_http2 {
                let (mut sender, connection) =
                    http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("connected");
                tokio::spawn(connection);
                sender.send_request(request("GET", &url, "")).await.map(|_| ())
            } else {
                let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("connected");
                tokio::spawn(connection);
                sender.send_request(request("GET", "/ok/never", "")).await.map(|_| ())
            }
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        load(|text| text + "limits: {max_connections: 9}\n");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!served.is_finished(), "another policy that allows it");
        load(forbid);
        let served = tokio::time::timeout(Duration::from_secs(5), served).await.expect("ended").expect("no panic");
        assert!(served.is_none());
        assert!(asked.await.expect("no panic").is_err(), "cut");
        assert_eq!(receipts(&opened, 1).await, [("allow".into(), "policy_changed".into())]);
        // The flow is reported once its last request is.
        for _ in 0..100 {
            if !opened.world.table.0.lock().expect("not poisoned").is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let reports = opened.world.table.0.lock().expect("not poisoned");
        assert_eq!(reports.last().map(|report| report.verdict.reason), Some(Reason::PolicyChanged));
    }
}

#[tokio::test]
async fn requests_that_wait_for_a_connection_do_not_wait_for_each_others_attempts() {
    let silent = tokio::net::TcpListener::bind("127.0.0.2:0").await.expect("bind");
    let port = silent.local_addr().expect("bound").port();
    let opened = opened_with("web.test", true, |text| {
        // A silent destination, for the second name.
        text + "limits: {idle_timeout_seconds: 1}\n"
    })
    .await;
    let (own, folder) = (opened.world.addr.port(), opened.world.evidence.path());
    let to_silent = |text: String| {
        text.replace("127.0.0.1\"", "127.0.0.2\"").replace(&own.to_string(), &port.to_string())
            + "limits: {idle_timeout_seconds: 1}\n"
    };
    opened.world.rules.send_replace(Arc::new(rules(own, folder, &opened.outside, &opened.ca, to_silent)));
    let (agent, stream, flow, guard) = opened.world.flow().await;
    let target = Target { original: std::net::SocketAddr::new(flow.target.original.ip(), port), ..flow.target.clone() };
    let flow = Arc::new(Flow { target, ..(*flow).clone() });
    let (proxy, tls) = (opened.world.proxy.clone(), opened.tls.clone());
    tokio::spawn(async move {
        intercept(&proxy, &tls, "egress[0] web.test".into(), host("web.test"), stream, &flow, Some(guard)).await
    });
    let stream = greet_as(opened.client(&["h2"]), agent).await.expect("a handshake");
    let start = Instant::now();
    let requests = (0..5).map(|at| request("GET", &format!("https://web.test:{port}/ok/{at}"), "")).collect();
    let answers = over_http2(stream, requests).await;
    assert!(answers.iter().all(|(status, reason, _)| *status == 502 && reason == "dial_failed"), "{answers:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_budget_that_the_handshake_uses_up_is_said() {
    let opened = opened_with("web.test", true, |text| {
        text.replace("paths: [\"/ok/*\"]", "paths: [\"/ok/*\"], budgets: {max_bytes_out: 100}")
    })
    .await;
    let answers = over_http1(opened.connect(&["http/1.1"]).await, vec![request("GET", "/ok/x", "")]).await;
    assert_eq!((answers[0].0.as_u16(), answers[0].1.as_str()), (429, "budget_exceeded"));
    assert!(opened.world.seen().is_empty());
}

#[tokio::test]
async fn what_is_under_way_ends_when_evidence_is_lost() {
    for protocols in [&["h2"][..], &["http/1.1"]] {
        let opened = opened("web.test", true).await;
        let stream = opened.connect(protocols).await;
        let recorder = opened.world.proxy.recorder.clone();
        let lose = async {
            while opened.world.waiting() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            recorder.close("lost").await.expect("closed");
        };
        let url = format!("https://web.test:{}/ok/never", opened.world.addr.port());
        let ask = async {
            if protocols == ["h2"] {
                over_http2(stream, vec![request("GET", &url, "")]).await
            } else {
                over_http1(stream, vec![request("GET", "/ok/never", "")]).await
            }
        };
        let (answers, ()) = tokio::join!(ask, lose);
        assert_eq!((answers[0].0.as_u16(), answers[0].1.as_str()), (503, "recorder_unavailable"));
        while opened.world.waiting() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[path = "intercept_peers_tests.rs"]
mod peers;

#[tokio::test]
async fn who_gives_up_while_the_destination_hangs_has_a_receipt_that_says_where_it_was() {
    let opened = opened_with("web.test", true, |text| text.replace("\"127.0.0.1\"", "\"127.0.0.9\"")).await;
    let addr = std::net::SocketAddr::from(([127, 0, 0, 9], opened.world.addr.port()));
    let silent = tokio::net::TcpListener::bind(addr).await.expect("bind");
    let stream = TokioIo::new(opened.connect(&["h2"]).await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("connected");
    let connection = tokio::spawn(connection);
    let url = format!("https://web.test:{}/ok/x", addr.port());
    let asked = tokio::spawn(async move { sender.send_request(request("GET", &url, "")).await });
    let (mut stream, _) = silent.accept().await.expect("accept");
    stream.read_u8().await.expect("a hello");
    asked.abort();
    connection.abort();
    until("a receipt", || !opened.world.receipts().is_empty()).await;
    assert_eq!(opened.world.last_receipt(), ("allow".into(), "client_aborted".into()));
    let evidence = opened.world.evidence_by_now();
    assert!(evidence.contains(&format!("\"dialled\":\"{addr}\"")), "{evidence}");
}

/// As most clients do, which read only then.
#[tokio::test]
async fn who_sends_all_of_a_large_body_before_reading_is_told_why_it_is_refused() {
    use tokio::io::AsyncWriteExt as _;
    let chunk = vec![b'a'; 1 << 20];
    for (framing, size) in [("Content-Length: 25165824", 24), ("Transfer-Encoding: chunked", 24)] {
        for path in ["/denied", "/ok/x"] {
            let opened = opened("web.test", true).await;
            let mut stream = opened.connect(&["http/1.1"]).await;
            let port = opened.world.addr.port();
            let head = format!("POST {path} HTTP/1.1\r\nHost: web.test:{port}\r\n{framing}\r\n\r\n");
            let is_chunked = framing.contains("chunked");
            let sent = async {
                stream.write_all(head.as_bytes()).await?;
                for at in 0..size {
                    let mut piece = chunk.clone();
                    if at == 1 && path == "/ok/x" {
                        piece.splice(500..540, crate::proxy::http::world::SECRET.bytes());
                        piece[499] = b' ';
                        piece[540] = b' ';
                    }
                    if is_chunked {
                        stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                        piece.extend_from_slice(b"\r\n");
                    }
                    stream.write_all(&piece).await?;
                }
                stream.flush().await
            };
            sent.await.unwrap_or_else(|error| panic!("{framing} {path}: {error}"));
            let mut read = vec![0; 4096];
            let count = stream.read(&mut read).await.expect("an answer");
            let text = String::from_utf8_lossy(&read[..count]).into_owned();
            assert!(
                text.starts_with("HTTP/1.1 403 ") && text.contains("x-pipelock-reason"),
                "{framing} {path}: {text}"
            );
        }
    }
}
