//! The load of the kernel and the proxy suite: runs inside the cgroup or beside it, takes jobs from standard input, one a line, and
//! answers each with a line of JSON. It lives as long as its input, so that what it passes through is warm.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// The name of the origin.
pub(crate) const HOST: &str = "origin.bench";

/// How the origin is reached.
#[derive(Clone, Copy, Debug)]
enum Route {
    /// By its name, which is resolved: inside the cgroup.
    Name,
    /// At these addresses, one for HTTP and one for HTTPS: the origin itself, or a reverse proxy.
    At(SocketAddr, SocketAddr),
    /// Through a forward proxy.
    Proxy(SocketAddr),
    /// At the doors of pipelock's own proxy: a fetch of the origin, a question of the Scan API.
    Doors(SocketAddr),
}

impl Route {
    fn parse(text: &str) -> Result<Self> {
        if text == "name" {
            return Ok(Self::Name);
        }
        let (kind, rest) = text.split_once('=').context("a route")?;
        match kind {
            "proxy" => Ok(Self::Proxy(rest.parse()?)),
            "doors" => Ok(Self::Doors(rest.parse()?)),
            _ => {
                let (plain, tls) = rest.split_once(',').context("two addresses")?;
                Ok(Self::At(plain.parse()?, tls.parse()?))
            }
        }
    }
}

/// What a client knows.
struct Client {
    route: Route,
    ports: (u16, u16),
    tls: Arc<ClientConfig>,
}

/// Serves jobs until the input ends: `METHOD SCHEME PATH COUNT CONNECTIONS keep|new|events|idle BODY_BYTES`.
///
/// `roots` is a file of certificates, `-` for the one that `SSL_CERT_FILE` names; `none` where nothing is asked for over TLS.
pub(crate) fn main(route: &str, plain: u16, tls: u16, roots: &str) -> Result<()> {
    let roots = if roots == "-" { std::env::var("SSL_CERT_FILE").context("SSL_CERT_FILE")? } else { roots.to_owned() };
    let mut store = RootCertStore::empty();
    if roots != "none" {
        for certificate in CertificateDer::pem_file_iter(&roots)? {
            store.add(certificate?).context("a root")?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = versions.with_root_certificates(store).with_no_client_auth();
    // A new connection is a whole handshake.
    config.resumption = Resumption::disabled();
    let client = Arc::new(Client { route: Route::parse(route)?, ports: (plain, tls), tls: Arc::new(config) });
    let mut kept = Vec::new();
    for line in std::io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let [method, scheme, path, count, connections, mode, body] = words.as_slice() else { bail!("a job: {line}") };
        let job = Job {
            method: (*method).to_owned(),
            is_tls: *scheme == "https",
            path: (*path).to_owned(),
            count: count.parse()?,
            body: body.parse()?,
            connections: connections.parse()?,
            standing: Arc::default(),
        };
        let start = Instant::now();
        let mut took = match *mode {
            "idle" => {
                kept.extend(client.idle(&job)?);
                Vec::new()
            }
            mode => client.all(&job, mode)?,
        };
        took.sort_unstable();
        let at =
            |share: f64| took.get((took.len() as f64 * share) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e6);
        let said = serde_json::json!({
            "count": took.len(), "seconds": start.elapsed().as_secs_f64(), "p50": at(0.5), "p99": at(0.99), "kept": kept.len(),
        });
        println!("{said}");
    }
    Ok(())
}

#[derive(Clone, Debug)]
struct Job {
    method: String,
    is_tls: bool,
    path: String,
    /// Requests of each connection; of `events`, events.
    count: usize,
    body: u64,
    /// Connections at a time, and those of them that have had an event.
    connections: usize,
    standing: Arc<AtomicUsize>,
}

impl Client {
    fn all(self: &Arc<Self>, job: &Job, mode: &str) -> Result<Vec<Duration>> {
        let work = match mode {
            "keep" => Self::requests,
            "new" => Self::connections,
            "events" => Self::events,
            other => bail!("no mode {other}"),
        };
        let threads: Vec<_> = (0..job.connections)
            .map(|_| {
                let (client, job) = (self.clone(), job.clone());
                std::thread::spawn(move || work(&client, &job))
            })
            .collect();
        let mut took = Vec::new();
        for thread in threads {
            took.extend(thread.join().map_err(|_| anyhow!("a client thread died"))??);
        }
        Ok(took)
    }

    fn requests(&self, job: &Job) -> Result<Vec<Duration>> {
        let mut stream = self.open(job.is_tls)?;
        let timed = |_| {
            let start = Instant::now();
            self.exchange(&mut stream, job)?;
            Ok(start.elapsed())
        };
        (0..job.count).map(timed).collect()
    }

    fn connections(&self, job: &Job) -> Result<Vec<Duration>> {
        let timed = |_| {
            let start = Instant::now();
            self.exchange(&mut self.open(job.is_tls)?, job)?;
            Ok(start.elapsed())
        };
        (0..job.count).map(timed).collect()
    }

    /// How long events took that carry when they were sent: of those that were sent when every stream of the job stood. Before,
    /// what the others take to open a connection would be measured.
    fn events(&self, job: &Job) -> Result<Vec<Duration>> {
        let asked = Instant::now();
        let mut stream = self.open(job.is_tls)?;
        self.ask(&mut stream, job)?;
        let (mut took, mut line) = (Vec::new(), String::new());
        let (mut has_first, mut all_stand) = (false, None);
        while took.len() < job.count {
            line.clear();
            ensure!(stream.read_line(&mut line)? > 0, "the events ended");
            let told = line.strip_prefix("data: ").or_else(|| line.strip_prefix("id: "));
            let Some(sent) = told.and_then(|text| text.trim().parse().ok()) else { continue };
            let (sent, now) = (Duration::from_nanos(sent), crate::setting::now());
            if !std::mem::replace(&mut has_first, true) {
                job.standing.fetch_add(1, Ordering::Relaxed);
            }
            if all_stand.is_none() && job.standing.load(Ordering::Relaxed) == job.connections {
                all_stand = Some(now);
            }
            if all_stand.is_some_and(|since| since <= sent) {
                took.push(now.saturating_sub(sent));
            }
            ensure!(all_stand.is_some() || asked.elapsed() < Duration::from_secs(20), "a stream did not begin");
        }
        Ok(took)
    }

    /// Connections that have had one answer and stay open.
    fn idle(&self, job: &Job) -> Result<Vec<BufReader<Stream>>> {
        let opened = |_| {
            let mut stream = self.open(job.is_tls)?;
            self.exchange(&mut stream, job)?;
            Ok(stream)
        };
        (0..job.connections).map(opened).collect()
    }

    fn open(&self, is_tls: bool) -> Result<BufReader<Stream>> {
        let port = if is_tls { self.ports.1 } else { self.ports.0 };
        let addr = match self.route {
            Route::Name => (HOST, port).to_socket_addrs()?.next().context("no address")?,
            Route::At(plain, tls) => {
                if is_tls {
                    tls
                } else {
                    plain
                }
            }
            Route::Proxy(addr) | Route::Doors(addr) => addr,
        };
        let mut stream = TcpStream::connect(addr).context("connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        if !is_tls {
            return Ok(BufReader::with_capacity(64 * 1024, Stream::Plain(stream)));
        }
        if matches!(self.route, Route::Proxy(_)) {
            write!(stream, "CONNECT {HOST}:{port} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n")?;
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte)?;
                head.extend_from_slice(&byte);
            }
            ensure!(head.get(8..13) == Some(b" 200 "), "CONNECT: {}", String::from_utf8_lossy(&head));
        }
        let name = ServerName::try_from(HOST)?;
        let tls = StreamOwned::new(ClientConnection::new(self.tls.clone(), name)?, stream);
        Ok(BufReader::with_capacity(64 * 1024, Stream::Tls(Box::new(tls))))
    }

    fn ask(&self, stream: &mut BufReader<Stream>, job: &Job) -> Result<()> {
        let port = if job.is_tls { self.ports.1 } else { self.ports.0 };
        let whole = if matches!(self.route, Route::Proxy(_)) && !job.is_tls {
            format!("http://{HOST}:{port}")
        } else {
            String::new()
        };
        // Names of things, as the paths of most services have: another in each request.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let path = match job.path.split_once("ID") {
            Some((before, after)) => {
                let id = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                format!("{before}{id:016x}{after}")
            }
            None => job.path.clone(),
        };
        let (host, path, more, (before, behind)) = match self.route {
            // A connection is one client's, and each may ask so often.
            Route::Doors(addr) => {
                let more = format!("Authorization: Bearer {}\r\n", token(OWN.with(|own| *own)));
                let path = path.replace("ORIGIN", &format!("http%3A%2F%2F{HOST}%3A{port}"));
                let around = if job.body > 0 { ("{\"kind\":\"dlp\",\"input\":{\"text\":\"", "\"}}") } else { ("", "") };
                (addr.to_string(), path, more, around)
            }
            _ => (format!("{HOST}:{port}"), path, String::new(), ("", "")),
        };
        let length = match job.body + (before.len() + behind.len()) as u64 {
            0 => String::new(),
            length => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n"),
        };
        let head = format!(
            "{} {whole}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\nAccept: */*\r\n{more}{length}\r\n{before}",
            job.method
        );
        let to = stream.get_mut();
        to.write_all(head.as_bytes())?;
        crate::origin::fill(to, job.body)?;
        to.write_all(behind.as_bytes())?;
        to.flush()?;
        Ok(())
    }

    fn exchange(&self, stream: &mut BufReader<Stream>, job: &Job) -> Result<()> {
        self.ask(stream, job)?;
        let (mut line, mut length, mut is_chunked) = (String::new(), None, false);
        ensure!(stream.read_line(&mut line)? > 0, "no answer");
        ensure!(line.contains(" 200"), "unexpected answer: {line}");
        while line != "\r\n" {
            line.clear();
            ensure!(stream.read_line(&mut line)? > 0, "the head ended early");
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = Some(value.trim().parse::<u64>()?);
            }
            is_chunked |= lower.starts_with("transfer-encoding:") && lower.contains("chunked");
        }
        if !is_chunked {
            return skip(stream, length.context("an answer without length")?);
        }
        loop {
            line.clear();
            ensure!(stream.read_line(&mut line)? > 0, "the chunks ended early");
            let size = u64::from_str_radix(line.trim(), 16)?;
            skip(stream, size + 2)?;
            if size == 0 {
                return Ok(());
            }
        }
    }
}

/// Names that the doors know; each may ask the Scan API fifty times at once.
const NAMES: u64 = 400;

thread_local! {
    /// The name that the connection of this thread has.
    static OWN: u64 = {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// The token of one of them.
fn token(number: u64) -> String {
    format!("token-of-the-bench-{:03}", number % NAMES)
}

/// What the file of tokens says.
pub(crate) fn tokens() -> String {
    (0..NAMES).map(|number| format!("name{number}={}\n", token(number))).collect()
}

fn skip(stream: &mut BufReader<Stream>, mut left: u64) -> Result<()> {
    while left > 0 {
        let here = stream.fill_buf()?.len() as u64;
        ensure!(here > 0, "the body ended {left} bytes early");
        let used = here.min(left);
        stream.consume(usize::try_from(used)?);
        left -= used;
    }
    Ok(())
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Read for Stream {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(room),
            Self::Tls(stream) => stream.read(room),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
