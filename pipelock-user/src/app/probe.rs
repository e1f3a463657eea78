//! A TLS server on loopback that notes who came: what `doctor` has the installed clients connect to.
//!
//! Called by `cli::doctor`. It promises to answer every request with the same few bytes, and to end with the process.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::runtime;
use crate::flow::{Host, locked};
use crate::proxy::{CaError, CertificateAuthority, server_of};

/// Longest that a client may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest head of a request that is read.
const MAX_HEAD: usize = 64 * 1024;

/// The server.
pub struct Probe {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<HashSet<String>>>,
}

impl Probe {
    /// Starts as this host, with a certificate by this authority.
    ///
    /// # Errors
    /// When it cannot listen, or has no certificate.
    pub fn start(ca: &Arc<CertificateAuthority>, host: &Host) -> Result<Self, ProbeError> {
        let mut config = (*server_of(ca, host)?).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Mutex::new(HashSet::new()));
        let noted = seen.clone();
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            loop {
                let (stream, _) = listener.accept().await?;
                let (acceptor, noted) = (acceptor.clone(), noted.clone());
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, answer(&acceptor, stream, &noted)).await;
                });
            }
        };
        let thread = std::thread::Builder::new().name("probe".into());
        thread.spawn(move || runtime::run_here::<io::Result<()>>(serve))?;
        Ok(Self { address, seen })
    }

    /// Whether a request has come whose path begins with this segment.
    #[must_use]
    pub fn has_seen(&self, segment: &str) -> bool {
        locked(&self.seen).contains(segment)
    }
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel refused.
    #[error("no server could be started on loopback: {0}")]
    Io(#[from] io::Error),
    /// There is no certificate for it.
    #[error(transparent)]
    Certificate(#[from] CaError),
}

/// One request: its path is noted, its answer is what a list of git references looks like.
async fn answer(acceptor: &TlsAcceptor, stream: TcpStream, seen: &Mutex<HashSet<String>>) -> io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < MAX_HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    locked(seen).insert(path.split(['/', '?']).nth(1).unwrap_or_default().to_owned());
    let body = format!("{}\trefs/heads/pipelock-doctor\n", "0123456789".repeat(4));
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
