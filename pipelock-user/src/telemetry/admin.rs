//! The listener for operators: GET /metrics for Prometheus, GET /health for whoever watches over the service.
//!
//! Started by `app`, which fills [`Subject`]. It promises to serve few at a time and none for long, and nobody without the
//! token where there is one; that it listens beyond loopback only with one is the policy's to check. It answers from what is
//! counted already, and from what the kernel's tables and the disk with the evidence say at that moment.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::metrics::{CONTENT_TYPE, Scrape, add_process};

/// Connections at a time; one more is cut.
const CONNECTIONS: usize = 16;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// How long one may take from its first byte to its last.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD: usize = 16 * 1024;
/// Rest after an accept that failed.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Length of a token, in bytes: below that it can be guessed, beyond it is no token.
const TOKEN: std::ops::RangeInclusive<usize> = 16..=4096;

/// What is shown of a session.
pub trait Subject: Send + Sync + 'static {
    /// Adds what is read at this moment.
    fn scrape(&self, out: &mut Scrape);
    /// How it is.
    fn health(&self) -> Health;
}

/// How a session is.
#[derive(Clone, Debug)]
pub struct Health {
    /// False when it does not do what it is for: 503 instead of 200.
    pub is_well: bool,
    /// What is said besides, as members of the answer.
    pub facts: Value,
}

impl Health {
    /// The answer to who asks.
    #[must_use]
    pub fn answer(self) -> (StatusCode, Value) {
        let mut body = json!({ "status": if self.is_well { "ok" } else { "failing" } });
        if let (Value::Object(body), Value::Object(facts)) = (&mut body, self.facts) {
            body.extend(facts);
        }
        (if self.is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, body)
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The address.
    #[error("metrics.listen: {0} cannot be bound: {1}")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// The token.
    #[error("metrics.token_file: {}: {why}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The listener, bound, with who may come in.
#[derive(Debug)]
pub struct Door {
    listener: std::net::TcpListener,
    address: SocketAddr,
    token: Option<TokenHash>,
    /// The former one, if it was in the way; dropped after the listener, which it could not listen beside.
    paused: Option<Paused>,
}

impl Door {
    /// Binds the address and reads the token, if there is to be one. A `former` one whose address is a part of this one, or the other
    /// way round, hears nobody from then on, until this is dropped unused.
    ///
    /// # Errors
    /// [`DoorError`].
    pub fn open(address: SocketAddr, token: Option<&Path>, former: Option<&Admin>) -> Result<Self, DoorError> {
        let token = token.map(Self::token).transpose()?;
        let failed = |error| DoorError::Bind(address, error);
        let (listener, paused) = match (std::net::TcpListener::bind(address), former) {
            (Err(error), Some(former))
                if error.kind() == ErrorKind::AddrInUse && former.address.port() == address.port() =>
            {
                let paused = former.pause().map_err(failed)?;
                (std::net::TcpListener::bind(address), Some(paused))
            }
            (bound, _) => (bound, None),
        };
        let listener = listener.map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, token, paused })
    }

    /// Reads a token: what of it is kept.
    ///
    /// # Errors
    /// [`DoorError::Token`].
    pub fn token(path: &Path) -> Result<TokenHash, DoorError> {
        let wrong = |why: String| DoorError::Token { path: path.to_owned(), why };
        let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let token = text.trim_ascii();
        if !TOKEN.contains(&token.len()) || !token.iter().all(u8::is_ascii_graphic) {
            let (least, most) = (TOKEN.start(), TOKEN.end());
            return Err(wrong(format!("a token is one line of {least} to {most} characters of ASCII")));
        }
        Ok(TokenHash(Sha256::digest(token).into()))
    }
}

/// The hash of a token: the token itself is not kept, and comparing takes as long for one that is nearly right as for one
/// that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

/// The token that is asked for now, if any.
type Asked = Arc<Mutex<Option<TokenHash>>>;

/// The service behind the listener; ends when it is dropped.
#[derive(Debug)]
pub struct Admin {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    token: Asked,
    task: JoinHandle<()>,
}

impl Admin {
    /// Serves; must be called on a tokio runtime.
    ///
    /// # Errors
    /// [`DoorError::Bind`], when the runtime does not take the listener.
    pub fn start(door: Door, subject: Arc<dyn Subject>) -> Result<Self, DoorError> {
        let Door { listener, address, token, paused } = door;
        let listener = TcpListener::from_std(listener).map_err(|error| DoorError::Bind(address, error))?;
        paused.into_iter().for_each(Paused::end);
        let listener = Arc::new(listener);
        let token = Arc::new(Mutex::new(token));
        let task = tokio::spawn(accept(listener.clone(), token.clone(), subject));
        Ok(Self { address, listener, token, task })
    }

    /// Has the kernel turn everybody away who comes, so that another socket can listen on the same port. Not by SO_REUSEPORT, with
    /// which any process of this user could come beside us for as long as the port is used.
    fn pause(&self) -> std::io::Result<Paused> {
        let ours = SockRef::from(&*self.listener);
        ours.shutdown(Shutdown::Both)?;
        Ok(Paused(Some(self.listener.clone())))
    }

    /// Asks for this token from now on.
    pub fn ask_for(&self, token: Option<TokenHash>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A listener that hears nobody; listens again when it is dropped, unless the kernel had chosen its port, which it takes back.
#[derive(Debug)]
struct Paused(Option<Arc<TcpListener>>);

impl Paused {
    /// For good.
    fn end(mut self) {
        self.0 = None;
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Some(listener) = &self.0
            && let Err(error) = SockRef::from(&**listener).listen(BACKLOG)
        {
            tracing::error!(%error, "metrics cannot be read any more: somebody else listens on their port");
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: Arc<TcpListener>, token: Asked, subject: Arc<dyn Subject>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // Ends with this task, and with it every connection.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // While it hears nobody.
                if error.kind() != ErrorKind::InvalidInput {
                    tracing::warn!(%error, "accepting a connection for metrics failed");
                }
                tokio::time::sleep(BACK_OFF).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        if let Ok(place) = places.clone().try_acquire_owned() {
            let (subject, token) = (subject.clone(), token.clone());
            connections.spawn(async move {
                let _ = tokio::time::timeout(PATIENCE, converse(stream, token, subject)).await;
                drop(place);
            });
        }
    }
}

async fn converse(stream: TcpStream, token: Asked, subject: Arc<dyn Subject>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let token = *token.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answer(&request, token, subject.as_ref());
        async move { Ok::<_, Infallible>(answer) }
    });
    let _ = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer<B>(request: &Request<B>, token: Option<TokenHash>, subject: &dyn Subject) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if !may_enter(request.headers().get(header::AUTHORIZATION), token) {
        let mut refused = said(StatusCode::UNAUTHORIZED, &json!({ "error": "a bearer token is needed" }));
        refused.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return refused;
    }
    if path != "/metrics" && path != "/health" {
        return said(StatusCode::NOT_FOUND, &json!({ "error": "there are /metrics and /health" }));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = said(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "GET only" }));
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    if path == "/health" {
        let (status, body) = subject.health().answer();
        return said(status, &body);
    }
    let mut out = Scrape::of_registered();
    out.build();
    add_process(&mut out);
    subject.scrape(&mut out);
    typed(Response::new(Full::new(Bytes::from(out.finish()))), CONTENT_TYPE)
}

/// Whether the header shows the token, if one is wanted.
fn may_enter(shown: Option<&HeaderValue>, token: Option<TokenHash>) -> bool {
    let Some(token) = token else { return true };
    let Some((scheme, shown)) = shown.and_then(|value| value.as_bytes().split_at_checked(7)) else { return false };
    let shown = TokenHash(Sha256::digest(shown.trim_ascii()).into());
    scheme.eq_ignore_ascii_case(b"bearer ") && shown == token
}

fn said(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = status;
    typed(response, "application/json")
}

fn typed(mut response: Response<Full<Bytes>>, kind: &'static str) -> Response<Full<Bytes>> {
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
#[path = "admin_tests.rs"]
mod tests;
