//! The resolver over real sockets on loopback: no root, no resolver of the machine.

use super::*;
use crate::flow::Host;
use crate::proxy::dns::answer::Mode;
use crate::proxy::dns::lookup::Found;
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::{Name, RecordType};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

struct Rules(Mode);

impl NameRules for Rules {
    fn allowed(&self, name: &str) -> bool {
        name.ends_with(".example.com")
    }

    fn mode(&self) -> Mode {
        self.0
    }
}

/// Rules of a policy whose scanners are on their way until somebody waits for them.
#[derive(Default)]
struct Loading(AtomicBool);

impl NameRules for Loading {
    fn allowed(&self, name: &str) -> bool {
        name.ends_with(".example.com")
    }

    fn mode(&self) -> Mode {
        Mode::Synthetic
    }

    fn is_early(&self, host: &Host) -> bool {
        !self.0.load(Ordering::SeqCst) && host.name() != Some("spelled.example.com")
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.0.store(true, Ordering::SeqCst);
        Box::pin(std::future::ready(()))
    }
}

struct Slow(Duration, Arc<Log>);

impl Lookup for Slow {
    fn lookup<'a>(&'a self, name: &'a str) -> Found<'a> {
        Box::pin(async move {
            let receipts = self.1.written.lock().expect("log").clone();
            assert!(receipts.iter().any(|written| written == name), "{name} was looked up before its receipt");
            self.1.looked_up.fetch_add(1, Ordering::SeqCst);
            if name.starts_with("none") {
                return Err(Reason::ResolveFailed);
            }
            if name.starts_with("slow") {
                tokio::time::sleep(self.0).await;
            }
            Ok(vec![IpAddr::from([1, 1, 1, 1]), "2606::1".parse().expect("v6")])
        })
    }
}

#[derive(Default)]
struct Log {
    broken: AtomicBool,
    shut: AtomicBool,
    /// The recorder takes what comes and writes nothing.
    stuck: AtomicBool,
    entries: Mutex<Vec<(Transport, String, Reason)>>,
    written: Arc<Mutex<Vec<String>>>,
    open: AtomicU64,
    looked_up: AtomicU64,
    ended: Mutex<Vec<u64>>,
}

impl QueryLog for Log {
    fn query(&self, asker: &Asker, outcome: &Answered) -> Filed {
        assert!(asker.peer.ip().is_loopback() && asker.local.ip().is_loopback() && asker.peer != asker.local);
        let name = outcome.name.as_ref().map(ToString::to_string).unwrap_or_default();
        self.entries.lock().expect("log").push((asker.transport, name.clone(), outcome.reason()));
        let (written, is_good) = (Arc::clone(&self.written), !self.broken.load(Ordering::SeqCst));
        let is_stuck = self.stuck.load(Ordering::SeqCst);
        Box::pin(async move {
            // A receipt takes its time to be written.
            tokio::time::sleep(if is_stuck { Duration::from_secs(3600) } else { Duration::from_millis(20) }).await;
            written.lock().expect("log").push(name);
            is_good
        })
    }

    fn failed(&self, asker: &Asker, outcome: &Answered) -> Filed {
        self.query(asker, outcome)
    }

    fn opened(&self, _: &mut Asker) -> bool {
        self.open.fetch_add(1, Ordering::SeqCst);
        !self.shut.load(Ordering::SeqCst)
    }

    fn closed(&self, _: &Asker, queries: u64) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        self.ended.lock().expect("log").push(queries);
    }
}

struct Running {
    udp: SocketAddr,
    tcp: SocketAddr,
    log: Arc<Log>,
    pool: Arc<Pool>,
    seen: Arc<SeenNames>,
    _tasks: JoinSet<()>,
}

async fn start(mode: Mode) -> Running {
    start_with(Arc::new(Rules(mode))).await
}

async fn start_with(rules: Arc<dyn NameRules>) -> Running {
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("bind"));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let (udp, tcp) = (socket.local_addr().expect("bound"), listener.local_addr().expect("bound"));
    let log = Arc::new(Log::default());
    let (pool, seen) = (Arc::new(Pool::with_prefix(1, 100)), Arc::new(SeenNames::default()));
    let lookup = Arc::new(Slow(Duration::from_millis(300), Arc::clone(&log)));
    let state = DnsState::new(rules, Arc::clone(&pool), Arc::clone(&seen), lookup, Arc::clone(&log) as _);
    let state = Arc::new(state);
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_udp(socket, Arc::clone(&state)));
    tasks.spawn(serve_tcp(listener, state));
    Running { udp, tcp, log, pool, seen, _tasks: tasks }
}

fn query(id: u16, name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(name).expect(name), kind));
    message.to_vec().expect("encodes")
}

fn summary(reply: &[u8]) -> (u16, ResponseCode, Vec<String>) {
    let reply = Message::from_vec(reply).expect("decodes");
    (reply.id, reply.response_code, reply.answers.iter().map(|record| record.data.to_string()).collect())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(5), future).await.expect("in time")
}

async fn udp_ask(server: SocketAddr, message: &[u8]) -> (u16, ResponseCode, Vec<String>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    // Connected: a reply from any other socket than the one asked would not arrive.
    socket.connect(server).await.expect("connect");
    socket.send(message).await.expect("send");
    let mut buffer = [0u8; 1500];
    let length = within(socket.recv(&mut buffer)).await.expect("receive");
    summary(&buffer[..length])
}

#[allow(clippy::disallowed_methods, reason = "the test plays the agent")]
async fn tcp(server: SocketAddr) -> TcpStream {
    TcpStream::connect(server).await.expect("connect")
}

async fn tcp_reply(stream: &mut TcpStream) -> (u16, ResponseCode, Vec<String>) {
    let length = within(stream.read_u16()).await.expect("a length");
    let mut message = vec![0; length.into()];
    within(stream.read_exact(&mut message)).await.expect("a message");
    summary(&message)
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes(), message].concat()
}

/// A name that is refused, too: its receipt could not name it before.
#[tokio::test]
async fn what_is_asked_for_is_told_of_once_it_can_be_read() {
    for by_tcp in [false, true] {
        let rules = Arc::new(Loading::default());
        let server = start_with(rules.clone()).await;
        for (name, is_early) in [("spelled.example.com.", false), ("evil.example.", true)] {
            let question = query(7, name, RecordType::A);
            if by_tcp {
                let mut stream = tcp(server.tcp).await;
                stream.write_all(&framed(&question)).await.expect("sent");
                tcp_reply(&mut stream).await;
            } else {
                udp_ask(server.udp, &question).await;
            }
            assert_eq!(rules.0.load(Ordering::SeqCst), is_early, "{name}");
        }
        assert_eq!(server.log.entries.lock().expect("log").len(), 2, "each once");
    }
}

#[tokio::test]
async fn datagrams_are_answered_and_logged() {
    let server = start(Mode::Synthetic).await;
    let yes = udp_ask(server.udp, &query(7, "a.example.com.", RecordType::A)).await;
    assert_eq!(yes, (7, ResponseCode::NoError, vec!["198.18.0.1".to_owned()]));
    let no = udp_ask(server.udp, &query(8, "evil.example.", RecordType::A)).await;
    assert_eq!(no, (8, ResponseCode::Refused, vec![]));
    assert_eq!(udp_ask(server.udp, &[0, 9, 1]).await, (9, ResponseCode::FormErr, vec![]));
    assert_eq!(udp_ask(server.udp, &vec![1; 9000]).await, (0x0101, ResponseCode::FormErr, vec![]));

    // Its first 4096 octets are a good query: what was cut off must not be overlooked.
    let mut padded = query(12, "a.example.com.", RecordType::A);
    padded[11] = 1;
    padded.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    let room = MAX_QUERY - padded.len() - 2;
    padded.extend((room as u16).to_be_bytes());
    padded.resize(MAX_QUERY, 0);
    assert_eq!(udp_ask(server.udp, &padded).await.1, ResponseCode::NoError);
    padded.push(0);
    assert_eq!(udp_ask(server.udp, &padded).await.1, ResponseCode::FormErr);

    // A response gets none; the query after it does, so silence is not deafness.
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.send_to(&[0, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0], server.udp).await.expect("send");
    socket.send_to(&query(11, "a.example.com.", RecordType::A), server.udp).await.expect("send");
    let mut buffer = [0u8; 1500];
    let (length, from) = within(socket.recv_from(&mut buffer)).await.expect("receive");
    assert_eq!((summary(&buffer[..length]).0, from), (11, server.udp));

    let reasons: Vec<Reason> = server.log.entries.lock().expect("log").iter().map(|entry| entry.2).collect();
    use Reason::{DnsAnswered, DnsDenied, DnsMalformed};
    assert_eq!(
        reasons,
        [DnsAnswered, DnsDenied, DnsMalformed, DnsMalformed, DnsAnswered, DnsMalformed, DnsMalformed, DnsAnswered]
    );
    assert_eq!(server.log.entries.lock().expect("log")[1].1, "evil.example");
    assert_eq!(server.pool.len(), 1);
}

#[tokio::test]
async fn no_evidence_no_answer() {
    let server = start(Mode::Synthetic).await;
    server.log.broken.store(true, Ordering::SeqCst);
    for name in ["a.example.com.", "evil.example."] {
        let message = query(7, name, RecordType::A);
        assert_eq!(udp_ask(server.udp, &message).await, (7, ResponseCode::ServFail, vec![]));
        let mut stream = tcp(server.tcp).await;
        stream.write_all(&framed(&message)).await.expect("write");
        assert_eq!(tcp_reply(&mut stream).await, (7, ResponseCode::ServFail, vec![]));
    }
}

/// A recorder that takes receipts and does not write them: nothing goes out meanwhile, and the client is told in time.
#[tokio::test]
async fn no_answer_before_its_receipt_is_written() {
    let server = start(Mode::Synthetic).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.connect(server.udp).await.expect("connect");
    server.log.stuck.store(true, Ordering::SeqCst);
    let too_many = MAX_WAITING as u16 + 20;
    for id in 0..too_many {
        let mut message = Message::from_vec(&query(id, "a.example.com.", RecordType::A)).expect("decodes");
        message.set_edns(Edns::new());
        socket.send(&message.to_vec().expect("encodes")).await.expect("send");
    }
    let mut buffer = [0u8; 1500];
    timeout(RECEIPT_LIMIT / 2, socket.recv(&mut buffer)).await.expect_err("an answer without a receipt");
    assert_eq!(server.log.entries.lock().expect("log").len(), MAX_WAITING, "so many wait, and no more");
    let mut stream = tcp(server.tcp).await;
    stream.write_all(&framed(&query(7, "a.example.com.", RecordType::A))).await.expect("write");
    for _ in 0..too_many {
        let length = within(socket.recv(&mut buffer)).await.expect("receive");
        assert_eq!(summary(&buffer[..length]).1, ResponseCode::ServFail);
        let reply = Message::from_vec(&buffer[..length]).expect("decodes");
        let why = format!("{:?}", reply.edns.expect("was asked for").option(EdnsCode::from(15)));
        assert!(why.contains("Unknown(15"), "no extended error (RFC 8914): {why}");
    }
    assert_eq!(tcp_reply(&mut stream).await, (7, ResponseCode::ServFail, vec![]));
    server.log.stuck.store(false, Ordering::SeqCst);
    assert_eq!(udp_ask(server.udp, &query(8, "a.example.com.", RecordType::A)).await.1, ResponseCode::NoError);
}

#[tokio::test]
async fn pipelined_queries_are_answered_in_order() {
    let server = start(Mode::Synthetic).await;
    let mut stream = tcp(server.tcp).await;
    let mut sent = Vec::new();
    for id in 0..20 {
        sent.extend(framed(&query(id, &format!("n{id}.example.com."), RecordType::AAAA)));
    }
    // In odd pieces: a length and a message may be torn anywhere.
    for piece in sent.chunks(37) {
        stream.write_all(piece).await.expect("write");
        tokio::task::yield_now().await;
    }
    for id in 0..20 {
        let (got, code, data) = tcp_reply(&mut stream).await;
        assert_eq!((got, code, data.len()), (id, ResponseCode::NoError, 1));
    }
    stream.shutdown().await.expect("shutdown");
    assert_eq!(within(stream.read_u8()).await.expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
    within(async {
        while server.log.ended.lock().expect("log").is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(*server.log.ended.lock().expect("log"), [20]);
    assert!(server.log.entries.lock().expect("log").iter().all(|entry| entry.0 == Transport::Tcp));
}

#[tokio::test]
async fn connections_that_misbehave_are_closed() {
    let server = start(Mode::Synthetic).await;
    // A length beyond any query.
    let mut stream = tcp(server.tcp).await;
    stream.write_all(&[0xff, 0xff, 0, 1, 2]).await.expect("write");
    assert!(within(stream.read_u8()).await.is_err());
    assert_eq!(server.log.entries.lock().expect("log")[0].2, Reason::DnsMalformed);

    // More queries than one connection may ask.
    let mut stream = tcp(server.tcp).await;
    let message = framed(&query(1, "a.example.com.", RecordType::A));
    for _ in 0..MAX_QUERIES {
        stream.write_all(&message).await.expect("write");
        tcp_reply(&mut stream).await;
    }
    assert!(within(stream.read_u8()).await.is_err(), "closed after the last");

    server.log.shut.store(true, Ordering::SeqCst);
    let mut stream = tcp(server.tcp).await;
    assert!(within(stream.read_u8()).await.is_err(), "the log refused the connection");
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_ends_after_ten_seconds() {
    let server = start(Mode::Synthetic).await;
    let mut stream = tcp(server.tcp).await;
    let started = tokio::time::Instant::now();
    stream.write_all(&[0]).await.expect("half a length");
    assert!(stream.read_u8().await.is_err());
    assert!(started.elapsed() >= IDLE && started.elapsed() < IDLE * 2, "{:?}", started.elapsed());
}

#[tokio::test]
async fn connections_over_the_limit_wait_their_turn() {
    let server = start(Mode::Synthetic).await;
    let mut held = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        held.push(tcp(server.tcp).await);
    }
    let mut late = tcp(server.tcp).await;
    late.write_all(&framed(&query(5, "a.example.com.", RecordType::A))).await.expect("write");
    assert!(timeout(Duration::from_millis(200), late.readable()).await.is_err(), "not served yet");
    assert_eq!(server.log.open.load(Ordering::SeqCst), MAX_CONNECTIONS as u64);
    held.pop();
    assert_eq!(tcp_reply(&mut late).await.0, 5);
}

#[tokio::test]
async fn real_mode_gives_real_addresses_and_remembers_the_names() {
    let server = start(Mode::Real).await;
    let answer = udp_ask(server.udp, &query(3, "a.example.com.", RecordType::A)).await;
    assert_eq!(answer, (3, ResponseCode::NoError, vec!["1.1.1.1".to_owned()]));
    let names = server.seen.names(IpAddr::from([1, 1, 1, 1]));
    assert_eq!(names.iter().map(|name| &**name).collect::<Vec<_>>(), ["a.example.com"]);
    assert!(server.seen.names("2606::1".parse().expect("v6")).is_empty(), "the agent was not given this one");
    assert_eq!(udp_ask(server.udp, &query(4, "evil.example.", RecordType::A)).await.1, ResponseCode::Refused);
    assert!(server.pool.is_empty());
}

#[tokio::test]
async fn no_receipt_no_look_up() {
    let server = start(Mode::Real).await;
    let message = query(3, "a.example.com.", RecordType::A);
    server.log.broken.store(true, Ordering::SeqCst);
    assert_eq!(udp_ask(server.udp, &message).await, (3, ResponseCode::ServFail, vec![]));
    let mut stream = tcp(server.tcp).await;
    stream.write_all(&framed(&message)).await.expect("write");
    assert_eq!(tcp_reply(&mut stream).await, (3, ResponseCode::ServFail, vec![]));
    assert_eq!(server.log.looked_up.load(Ordering::SeqCst), 0, "the question left without a receipt");
    server.log.broken.store(false, Ordering::SeqCst);
    assert_eq!(udp_ask(server.udp, &message).await.1, ResponseCode::NoError);
    assert_eq!(server.log.looked_up.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_look_up_that_fails_has_a_receipt_of_its_own() {
    let server = start(Mode::Real).await;
    let message = query(3, "none.example.com.", RecordType::A);
    assert_eq!(udp_ask(server.udp, &message).await, (3, ResponseCode::ServFail, vec![]));
    let reasons: Vec<Reason> = server.log.entries.lock().expect("log").iter().map(|entry| entry.2).collect();
    assert_eq!(reasons, [Reason::DnsAnswered, Reason::ResolveFailed]);
}

#[tokio::test]
async fn a_slow_name_holds_up_nobody_and_places_are_bounded() {
    let server = start(Mode::Real).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    socket.connect(server.udp).await.expect("connect");
    for id in 0..=MAX_LOOKUPS as u16 {
        socket.send(&query(id, &format!("slow{id}.example.com."), RecordType::A)).await.expect("send");
    }
    // The one too many is told so at once, the others get their answers.
    let mut buffer = [0u8; 1500];
    let length = within(socket.recv(&mut buffer)).await.expect("receive");
    assert_eq!(summary(&buffer[..length]).1, ResponseCode::ServFail);
    for _ in 0..MAX_LOOKUPS {
        let length = within(socket.recv(&mut buffer)).await.expect("receive");
        assert_eq!(summary(&buffer[..length]).1, ResponseCode::NoError);
    }
    let limited = |entry: &&(Transport, String, Reason)| entry.2 == Reason::LimitExceeded;
    assert_eq!(server.log.entries.lock().expect("log").iter().filter(limited).count(), 1);
}

#[tokio::test]
async fn dropping_the_server_ends_its_connections() {
    let server = start(Mode::Synthetic).await;
    let mut stream = tcp(server.tcp).await;
    stream.write_all(&framed(&query(5, "a.example.com.", RecordType::A))).await.expect("write");
    tcp_reply(&mut stream).await;
    let log = Arc::clone(&server.log);
    drop(server);
    assert!(within(stream.read_u8()).await.is_err());
    assert_eq!(*log.ended.lock().expect("log"), [1], "the end is told to the log even so");
}
