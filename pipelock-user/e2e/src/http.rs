//! A small HTTP/1.1 server on std threads that keeps connections alive and logs what it saw.
//!
//! Used as the destination of real clients: by default it echoes what it saw as JSON, and tests give it handlers to play
//! a package registry or a git host.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};

/// How many bytes of all connections are kept.
const MOST_KEPT: usize = 64 << 20;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The other end: the proxy, or the agent itself where it went past it.
    pub peer: SocketAddr,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Seen {
    /// The Host header.
    #[must_use]
    pub fn host(&self) -> &str {
        self.headers.get("host").map_or("", String::as_str)
    }
}

/// What a handler answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The Content-Type.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// 200 with this body.
    #[must_use]
    pub fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, content_type: content_type.into(), body: body.into() }
    }

    /// 404.
    #[must_use]
    pub fn not_found() -> Self {
        Self { status: 404, content_type: "text/plain".into(), body: b"not here\n".to_vec() }
    }
}

type Handler = dyn Fn(&Seen) -> Answer + Send + Sync;

/// A server; ends with the test process.
pub struct HttpServer {
    /// Where it listens.
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    raw: Arc<Mutex<Vec<u8>>>,
    connections: Arc<Mutex<Vec<SocketAddr>>>,
}

/// Answers with what was seen.
#[must_use]
pub fn echo(seen: &Seen) -> Answer {
    let body = serde_json::json!({
        "peer": seen.peer.to_string(), "method": seen.method, "path": seen.path, "host": seen.host(),
        "body_bytes": seen.body.len(),
    });
    Answer::ok("application/json", format!("{body}\n"))
}

impl HttpServer {
    /// An echo server.
    ///
    /// # Panics
    /// When the address is taken.
    #[must_use]
    pub fn start(addr: impl ToSocketAddrs) -> Self {
        Self::with(TcpListener::bind(addr).expect("bind"), echo)
    }

    /// A server with a handler, on a listener that is bound already (perhaps in another network namespace).
    ///
    /// # Panics
    /// When the listener has no address.
    #[must_use]
    pub fn with(listener: TcpListener, handler: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let addr = listener.local_addr().expect("bound");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (raw, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let handler: Arc<Handler> = Arc::new(handler);
        let (log, bytes, peers) = (seen.clone(), raw.clone(), connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(peer) = stream.peer_addr() else { continue };
                peers.lock().unwrap_or_else(PoisonError::into_inner).push(peer);
                let (log, bytes, handler) = (log.clone(), bytes.clone(), handler.clone());
                std::thread::spawn(move || serve((stream, peer), bytes, &log, handler.as_ref()));
            }
        });
        Self { addr, seen, raw, connections }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// What arrived until now.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bytes that arrived until now on all connections, also those of requests that did not end; the first 64 MiB.
    #[must_use]
    pub fn raw(&self) -> Vec<u8> {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections were accepted until now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Keeps what is read from the connection.
struct Kept {
    stream: TcpStream,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Read for Kept {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        let read = self.stream.read(room)?;
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let left = MOST_KEPT.saturating_sub(bytes.len());
        bytes.extend_from_slice(&room[..read.min(left)]);
        Ok(read)
    }
}

fn serve(
    (stream, peer): (TcpStream, SocketAddr),
    bytes: Arc<Mutex<Vec<u8>>>,
    log: &Mutex<Vec<Seen>>,
    handler: &Handler,
) {
    let _ = stream.set_nodelay(true);
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(Kept { stream, bytes });
    while let Some(seen) = read_request(&mut reader, &mut writer, peer) {
        log.lock().unwrap_or_else(PoisonError::into_inner).push(seen.clone());
        let is_last = seen.headers.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let answer = handler(&seen);
        let head = format!(
            "HTTP/1.1 {} X\r\ncontent-type: {}\r\ncontent-length: {}\r\n\r\n",
            answer.status,
            answer.content_type,
            answer.body.len()
        );
        let body: &[u8] = if seen.method == "HEAD" { &[] } else { &answer.body };
        if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body)).is_err() || is_last {
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead, writer: &mut TcpStream, peer: SocketAddr) -> Option<Seen> {
    let line = read_line(reader)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    if headers.get("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
    }
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        loop {
            let size = usize::from_str_radix(read_line(reader)?.split(';').next()?.trim(), 16).ok()?;
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk).ok()?;
            body.extend_from_slice(&chunk);
            read_line(reader)?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(len) = headers.get("content-length") {
        body.resize(len.parse().ok()?, 0);
        reader.read_exact(&mut body).ok()?;
    }
    Some(Seen { peer, method, path, headers, body })
}

fn read_line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let read = reader.read_line(&mut line).ok()?;
    (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
}
