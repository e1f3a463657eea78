//! Connections to destinations, kept while the agent keeps its own, and for a while after that in [`super::pool`]. Promises that none
//! is used under another policy than the one that it was opened under, nor for another name.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};
use std::time::Duration;

use http::{Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::arriving::Arriving;
use super::authority::Authority;
use super::framing::sound_answer;
use super::outgoing::{Form, outgoing};
use super::passing::Passing;
use super::pool::{Pool, Whose, patience, shows_who};
use crate::flow::{Flow, Host, PolicyId, Reached, Reason, Verdict, locked};
use crate::inspect::Permit;
use crate::net::connect;
use crate::proxy::counts::{COUNTS, Found};
use crate::proxy::idle::{Activity, Watched};
use crate::proxy::listen::dial_limit;
use crate::proxy::meter::{Meter, Metered};
use crate::proxy::state::Rules;
use crate::proxy::tls::{self, Interception, Offer};

/// The smallest buffer that hyper takes for a head.
const MIN_BUFFER: usize = 8192;
/// Connections that are kept for one connection of the agent.
const MAX_KEPT: usize = 32;

/// What the agent speaks on its connection, which decides how the destinations are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Carrier {
    /// TLS, which we have opened.
    pub(super) is_tls: bool,
    /// HTTP/2: many requests at a time.
    pub(super) is_http2: bool,
}

impl Carrier {
    /// The scheme of its URLs.
    pub(super) fn scheme(self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// The port that its URLs leave out.
    pub(super) fn default_port(self) -> u16 {
        if self.is_tls { 443 } else { 80 }
    }
}

/// How requests are put on a connection.
enum Sender {
    Http1(http1::SendRequest<Passing>),
    Http2(http2::SendRequest<Passing>),
}

impl Sender {
    fn form(&self) -> Form {
        match self {
            Self::Http1(_) => Form::Http1,
            Self::Http2(_) => Form::Http2,
        }
    }

    async fn try_send(
        &mut self,
        request: Request<Passing>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Passing>>> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await,
            Self::Http2(sender) => sender.try_send_request(request).await,
        }
    }
}

/// A connection.
pub(super) struct Upstream {
    authority: Authority,
    /// The policy that allowed it, and checked the address.
    policy: PolicyId,
    sender: Sender,
    /// How it was reached.
    addr: Reached,
    /// When it was last heard of.
    activity: Arc<Activity>,
    /// Whose it is, if another connection of the same client may use it later, and how long the destination waits for that.
    whose: Option<Whose>,
    patience: Duration,
    /// What opened TLS on it: with a reload other files may be behind the same policy.
    tls: Option<Weak<Interception>>,
}

impl Upstream {
    /// Whether a request may be sent on it at once.
    pub(super) fn is_ready(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_ready(),
            Sender::Http2(sender) => sender.is_ready(),
        }
    }

    fn is_closed(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        }
    }

    /// Whether a request for this name under these rules may be sent on it for this client.
    pub(super) fn is_for(&self, whose: &Whose, authority: &Authority, rules: &Rules) -> bool {
        let same = |tls: &Weak<Interception>| {
            rules.tls.as_ref().is_some_and(|now| std::ptr::eq(tls.as_ptr(), Arc::as_ptr(now)))
        };
        self.whose.as_ref() == Some(whose)
            && self.authority == *authority
            && self.policy == *rules.policy.id()
            && self.tls.as_ref().is_none_or(same)
    }

    /// How long the destination waits for the next request, as far as it said so.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// The same connection for one more request at the same time; none of HTTP/1.1.
    fn shared(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else { return None };
        Some(Self {
            authority: self.authority.clone(),
            policy: self.policy.clone(),
            sender: Sender::Http2(sender.clone()),
            addr: self.addr.clone(),
            activity: self.activity.clone(),
            whose: self.whose.clone(),
            patience: self.patience,
            tls: self.tls.clone(),
        })
    }
}

/// What is open for one connection of the agent.
pub(super) struct Upstreams {
    kept: StdMutex<Vec<Upstream>>,
    /// Where those go that are left when that ends.
    pool: Weak<Pool>,
    /// Held while a connection that may turn out to carry many requests is opened, so that they wait for it.
    opening: Mutex<()>,
    /// A destination has chosen HTTP/1.1: waiting for one another would gain nothing.
    has_http1: AtomicBool,
}

/// A failure, and where bytes of the request may have gone; then the verdict says that they were let out.
type Failed = (Verdict, Option<Reached>);

/// The way of one request to its destination: what it needs there.
pub(super) struct Leg<'a> {
    pub(super) permit: &'a Permit,
    pub(super) authority: &'a Authority,
    pub(super) rules: &'a Rules,
    pub(super) carrier: Carrier,
    /// Whose request it is.
    pub(super) flow: &'a Flow,
    pub(super) activity: &'a Arc<Activity>,
    pub(super) meter: &'a Arc<Meter>,
    /// The destination that was reached last, as soon as it was: what greets it may have left.
    pub(super) reached: StdMutex<Option<Reached>>,
}

impl Drop for Upstreams {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let kept = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner);
        kept.drain(..).filter(|kept| kept.whose.is_some() && kept.is_ready()).for_each(|kept| pool.put(kept));
    }
}

impl Upstreams {
    /// Nothing yet; what is left in the end goes to `pool`.
    pub(super) fn new(pool: &Arc<Pool>) -> Self {
        Self {
            kept: StdMutex::default(),
            pool: Arc::downgrade(pool),
            opening: Mutex::default(),
            has_http1: AtomicBool::default(),
        }
    }

    /// Sends a request: on a kept connection that fits and still stands, else on a new one.
    pub(super) async fn send(
        &self,
        leg: &Leg<'_>,
        request: Request<Passing>,
    ) -> Result<(Response<Incoming>, Reached), Failed> {
        let limits = leg.rules.policy.limits();
        let (mut request, mut is_again) = (request, false);
        loop {
            let kept = if is_again { None } else { self.take(leg).await.or_else(|| self.adopt(leg)) };
            let (mut upstream, is_new) = match kept {
                Some(kept) => (kept, false),
                None => self.open(leg).await?,
            };
            let again = if is_new { None } else { copy(&request) };
            if shows_who(request.headers()) {
                self.stays(&mut upstream);
            }
            COUNTS.sent_on.add(if is_new { Found::New } else { Found::Kept });
            let addr = upstream.addr.clone();
            *locked(&leg.reached) = Some(addr.clone());
            let formed = outgoing(request, leg.authority, leg.carrier, upstream.sender.form());
            let formed = formed.map_err(|denied| (denied, None))?;
            let sent = tokio::select! {
                sent = upstream.sender.try_send(formed) => sent,
                () = leg.activity.idle(limits.idle()) => return Err(late(addr)),
            };
            match sent {
                Ok(response) => {
                    sound_answer(&response).map_err(|what| {
                        let detail = format!("the answer can be read in two ways: {what}");
                        (Verdict::let_out(Reason::UpstreamFailed, detail), Some(addr.clone()))
                    })?;
                    if shows_who(response.headers()) {
                        self.stays(&mut upstream);
                    }
                    if let Some(patience) = patience(response.headers()) {
                        upstream.patience = patience;
                    }
                    // What was upgraded carries no other request.
                    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                        self.keep(upstream);
                    }
                    return Ok((response, addr));
                }
                Err(mut error) => match (error.take_message(), again) {
                    // The connection had closed while it was idle: nothing of the request has left.
                    (Some(unsent), _) if !is_new => request = unsent,
                    (Some(_), _) => {
                        let refused = "the destination closed the connection before the request was sent";
                        return Err((Verdict::block(Reason::UpstreamFailed, refused), None));
                    }
                    // It closed as the request came: whoever asked has not kept the connection, and could not know.
                    (None, Some(copy)) if error.error().is_incomplete_message() => (request, is_again) = (copy, true),
                    (None, _) => return Err(broken(&leg.authority.host, &error.into_error(), addr)),
                },
            }
        }
    }

    /// A kept connection that is ready; those of HTTP/2 stay where they are.
    async fn take(&self, leg: &Leg<'_>) -> Option<Upstream> {
        loop {
            let mut upstream = self.take_fit(leg)?;
            let is_ready = match &mut upstream.sender {
                // The agent has read the former answer to its end, or it would not have sent this request.
                Sender::Http1(sender) if !leg.carrier.is_http2 => sender.ready().await.is_ok(),
                Sender::Http1(sender) => sender.is_ready(),
                Sender::Http2(sender) => sender.ready().await.is_ok(),
            };
            if is_ready {
                return Some(upstream);
            }
        }
    }

    fn take_fit(&self, leg: &Leg<'_>) -> Option<Upstream> {
        let mut kept = locked(&self.kept);
        // Without its handle here a connection of a former policy ends with the last answer on it.
        kept.retain(|upstream| upstream.policy == *leg.rules.policy.id() && !upstream.is_closed());
        let at = kept.iter().position(|upstream| {
            let is_free = match &upstream.sender {
                Sender::Http1(sender) => !leg.carrier.is_http2 || sender.is_ready(),
                Sender::Http2(_) => true,
            };
            is_free && upstream.authority == *leg.authority
        })?;
        match kept.get(at)?.shared() {
            Some(shared) => Some(shared),
            None => Some(kept.swap_remove(at)),
        }
    }

    /// One that a former connection of the same client has left, unless bytes are counted.
    fn adopt(&self, leg: &Leg<'_>) -> Option<Upstream> {
        let pool = self.pool.upgrade().filter(|_| leg.meter.is_unlimited())?;
        let whose = Whose::of(leg.flow, leg.carrier)?;
        let upstream = pool.take(&whose, leg.authority, leg.rules)?;
        leg.activity.join(&upstream.activity);
        if let Some(shared) = upstream.shared() {
            locked(&self.kept).push(shared);
        }
        Some(upstream)
    }

    /// Takes note that a connection is nobody's but this one's of the agent: who somebody is was shown on it.
    fn stays(&self, upstream: &mut Upstream) {
        upstream.whose = None;
        for kept in locked(&self.kept).iter_mut().filter(|kept| Arc::ptr_eq(&kept.activity, &upstream.activity)) {
            kept.whose = None;
        }
    }

    fn keep(&self, upstream: Upstream) {
        let mut kept = locked(&self.kept);
        // Those of HTTP/2 are kept from the moment they are opened.
        if matches!(upstream.sender, Sender::Http1(_)) {
            if kept.len() >= MAX_KEPT {
                kept.remove(0);
            }
            kept.push(upstream);
        }
    }

    /// Opens a connection; false when somebody else has, meanwhile.
    async fn open(&self, leg: &Leg<'_>) -> Result<(Upstream, bool), Failed> {
        let start = Instant::now();
        let limit = dial_limit(leg.rules);
        let slow = || {
            let detail = format!("connecting to {} took longer than {limit:?}", leg.authority.host);
            (Verdict::block(Reason::DialFailed, detail), None)
        };
        let may_share = leg.carrier.is_http2 && !self.has_http1.load(Ordering::Relaxed);
        // Who waits for another's attempt does not begin one of full length after it.
        let alone =
            tokio::time::timeout(limit, async { if may_share { Some(self.opening.lock().await) } else { None } });
        let _alone = alone.await.map_err(|_| slow())?;
        if may_share && let Some(upstream) = self.take(leg).await {
            return Ok((upstream, false));
        }
        let Leg { permit, authority, rules, carrier, flow, activity, meter, reached } = leg;
        let left = || limit.saturating_sub(start.elapsed());
        let (stream, addr) = connect(permit, rules.way(), left())
            .await
            .map_err(|error| (Verdict::block(error.reason(), error.to_string()), None))?;
        *locked(reached) = Some(addr.clone());
        let own = Activity::new();
        activity.join(&own);
        let stream = Metered::new(Watched::new(stream, &own), meter);
        let sender = if carrier.is_tls {
            let unavailable = || Verdict::block(Reason::InspectionUnavailable, "TLS is not opened under this policy");
            let outward = &rules.tls.as_ref().ok_or_else(|| (unavailable(), None))?.outward;
            let offer = if carrier.is_http2 { Offer::Http2 } else { Offer::Http1 };
            let since = Instant::now();
            let greeting = outward.connect(stream, &authority.host, permit.rule(), offer);
            let greeted = tokio::time::timeout(left(), Box::pin(greeting)).await;
            let (stream, speaks_http2) = match greeted {
                Ok(Ok(greeted)) => greeted,
                // Nothing of the request has left.
                Ok(Err(_)) if meter.was_cut(since) => {
                    meter.tell();
                    return Err((meter.refusal(), None));
                }
                Ok(Err(error)) => return Err((tls::refused(&authority.host, &error), None)),
                Err(_) => return Err(slow()),
            };
            self.has_http1.fetch_or(!speaks_http2, Ordering::Relaxed);
            greet(stream, speaks_http2, rules).await
        } else {
            greet(stream, carrier.is_http2, rules).await
        };
        let sender = sender.map_err(|error| broken(&authority.host, &error, addr.clone()))?;
        let upstream = Upstream {
            authority: (*authority).clone(),
            policy: rules.policy.id().clone(),
            sender,
            addr,
            activity: own,
            whose: Some(flow).filter(|_| meter.is_unlimited()).and_then(|flow| Whose::of(flow, *carrier)),
            patience: Duration::MAX,
            tls: rules.tls.as_ref().filter(|_| carrier.is_tls).map(Arc::downgrade),
        };
        if let Some(shared) = upstream.shared() {
            locked(&self.kept).push(shared);
        }
        Ok((upstream, true))
    }
}

async fn greet<S>(stream: S, is_http2: bool, rules: &Rules) -> Result<Sender, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let header_bytes = rules.policy.limits().header_bytes;
    if is_http2 {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        return Ok(Sender::Http2(sender));
    }
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(header_bytes.max(MIN_BUFFER))
        // The buffer alone lets a head pass that is longer and comes at once.
        .max_header_size(header_bytes)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection.with_upgrades());
    Ok(Sender::Http1(sender))
}

/// The same request once more, where that changes nothing at the destination (RFC 9110 §9.2.2) and there is no body.
fn copy(request: &Request<Passing>) -> Option<Request<Passing>> {
    let may_repeat = request.method().is_safe()
        && request.body().is_end_stream()
        && !request.headers().contains_key(header::UPGRADE);
    may_repeat.then(|| {
        let mut copy = Request::new(Passing::Unread(Arriving::none()));
        *copy.method_mut() = request.method().clone();
        *copy.uri_mut() = request.uri().clone();
        *copy.version_mut() = request.version();
        copy.headers_mut().clone_from(request.headers());
        copy.extensions_mut().clone_from(request.extensions());
        copy
    })
}

fn broken(host: &Host, error: &hyper::Error, addr: Reached) -> Failed {
    let detail = match (error.is_parse_too_large(), tls::ended(host, error)) {
        (true, _) => "the head of the answer is longer than limits.header_bytes".to_owned(),
        (false, Some(why)) => why,
        (false, None) => error.to_string(),
    };
    (Verdict::let_out(Reason::UpstreamFailed, detail), Some(addr))
}

fn late(addr: Reached) -> Failed {
    (Verdict::let_out(Reason::IdleTimeout, "neither the request nor its answer went on"), Some(addr))
}
