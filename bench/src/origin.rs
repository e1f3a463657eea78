//! The origin of the kernel and the proxy suite: HTTP/1.1 on kept connections, in the clear and over TLS, a thread each. It answers with
//! prose of the size that the path names, with events, and takes what it is sent.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const PROSE: &str = "The committee met on Tuesday to review the results of the spring survey and to plan the next season. \
    Rainfall was lower than expected, yet yields in the northern valley held up well thanks to new drip lines. ";

/// Starts it; the addresses for HTTP and HTTPS.
pub(crate) fn start(certificate: &Path, key: &Path) -> Result<(SocketAddr, SocketAddr)> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let config = versions.with_no_client_auth().with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    let config = Arc::new(config);
    let plain = plain()?;
    let tls = listen(move |stream| {
        let connection = ServerConnection::new(config.clone()).ok()?;
        serve(StreamOwned::new(connection, stream))
    })?;
    Ok((plain, tls))
}

/// Starts one for HTTP only.
pub(crate) fn plain() -> Result<SocketAddr> {
    listen(serve)
}

fn listen(serve: impl Fn(TcpStream) -> Option<()> + Send + Sync + 'static) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            let _ = stream.set_nodelay(true);
            // Ten thousand of them have to fit.
            let thread = std::thread::Builder::new().stack_size(128 * 1024);
            let _ = thread.spawn(move || serve(stream));
        }
    });
    Ok(addr)
}

/// Writes so many bytes of prose.
pub(crate) fn fill(to: &mut impl Write, mut left: u64) -> std::io::Result<()> {
    static PIECE: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| PROSE.repeat(320).into_bytes());
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE.len());
        to.write_all(PIECE.get(..piece).unwrap_or_default())?;
        left -= piece as u64;
    }
    Ok(())
}

fn serve(stream: impl Read + Write) -> Option<()> {
    let mut stream = BufReader::with_capacity(16 * 1024, stream);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let path = line.split(' ').nth(1)?.to_owned();
        let mut body = 0;
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).ok()?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                body = value.trim().parse().ok()?;
            }
        }
        while body > 0 {
            let here = (stream.fill_buf().ok()?.len() as u64).min(body);
            if here == 0 {
                return None;
            }
            stream.consume(usize::try_from(here).ok()?);
            body -= here;
        }
        let to = stream.get_mut();
        for (kind, event) in [("/events/", number as fn(usize) -> String), ("/tokens/", token)] {
            if let Some(pause) = path.strip_prefix(kind) {
                return events(to, Duration::from_millis(pause.parse().ok()?), event);
            }
        }
        let size = path.rsplit('/').next()?.parse().unwrap_or(0);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {size}\r\n\r\n");
        // One write for a small answer, as servers do.
        let mut first = head.into_bytes();
        let small = if size <= 16 * 1024 { size } else { 0 };
        fill(&mut first, small).ok()?;
        to.write_all(&first).ok()?;
        fill(to, size - small).ok()?;
        to.flush().ok()?;
    }
}

/// Streams whose events are spread over a pause: side by side they would wait for each other, and that would be measured.
const SPREAD: u32 = 16;

/// Events that say when they were sent, with a pause between them.
fn events(to: &mut impl Write, pause: Duration, event: fn(usize) -> String) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    to.write_all(head.as_bytes()).ok()?;
    static STREAMS: AtomicU32 = AtomicU32::new(0);
    let own = STREAMS.fetch_add(1, Ordering::Relaxed) % SPREAD;
    let start = Instant::now() + pause * own / SPREAD;
    for at in 0u32.. {
        // By the clock, so that they stay apart.
        std::thread::sleep((start + pause * at).saturating_duration_since(Instant::now()));
        let event = event(at as usize);
        to.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).ok()?;
        to.flush().ok()?;
    }
    None
}

/// An event that is when it was sent, and nothing else: of all of them together a number without end.
fn number(_: usize) -> String {
    format!("data: {}\n\n", crate::setting::now().as_nanos())
}

/// An event such as the interfaces of models send, a word of a text in each.
fn token(at: usize) -> String {
    let word = PROSE.split_inclusive(' ').cycle().nth(at % PROSE.len()).unwrap_or_default();
    format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\
         \"text\":\"{word}\"}}}}\nid: {}\n\n",
        crate::setting::now().as_nanos()
    )
}

/// Makes an authority and a certificate for [`crate::client::HOST`] in a folder: `NAME.pem` and `NAME.key`.
pub(crate) fn certificates(folder: &Path) -> Result<()> {
    let script = format!(
        "set -e; for ca in upstream own; do openssl ecparam -name prime256v1 -genkey -noout -out $ca.key; \
         openssl req -x509 -new -key $ca.key -days 30 -subj /CN=$ca -out $ca.pem -addext keyUsage=critical,keyCertSign,cRLSign; done; \
         openssl ecparam -name prime256v1 -genkey -noout -out origin.key; \
         openssl req -new -key origin.key -subj /CN={host} -out origin.csr; echo subjectAltName=DNS:{host} > extensions; \
         openssl x509 -req -in origin.csr -CA upstream.pem -CAkey upstream.key -CAcreateserial -days 30 -extfile extensions -out origin.pem; \
         cat own.pem own.key > own-both.pem; chmod 644 *.pem *.key",
        host = crate::client::HOST
    );
    let out = std::process::Command::new("sh").args(["-c", &script]).current_dir(folder).output().context("openssl")?;
    anyhow::ensure!(out.status.success(), "openssl: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}
