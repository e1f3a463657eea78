//! Who is let in at the explicit proxy, and as whom.
//!
//! Asked by `explicit` for each request, before anything else is, and by `reverse`. It promises that where tokens are known nobody is served
//! without one, and that where none are a page in a browser cannot use our doors.

use std::sync::{Arc, PoisonError, RwLock};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};

use super::authority::door_host;
use crate::flow::{Host, Reason, Verdict};
use crate::proxy::fetch::Fetches;
use crate::proxy::identity::{Identities, OF_A_DOOR, OF_A_PROXY};

/// What the explicit proxy asks of its clients.
#[derive(Debug, Default)]
pub struct Gate {
    known: Option<RwLock<Identities>>,
    /// What is fetched for all of them.
    pub(super) fetches: Fetches,
}

impl Gate {
    /// Nothing: whoever reaches the listener is served. For loopback only.
    #[must_use]
    pub fn open() -> Self {
        Self::default()
    }

    /// A token.
    #[must_use]
    pub fn for_those(identities: Identities) -> Self {
        Self { known: Some(RwLock::new(identities)), ..Self::default() }
    }

    /// From now on these are known, for requests of connections that are open as well, but for tunnels; where nobody had to say who
    /// it is, nobody has to.
    pub fn renew(&self, identities: Identities) {
        if let Some(known) = &self.known {
            *known.write().unwrap_or_else(PoisonError::into_inner) = identities;
        }
    }

    /// True when it asks for a token.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.known.is_some()
    }

    /// The same for what anybody may ask, token or not.
    ///
    /// # Errors
    /// [`Reason::NameMismatch`] for a request that a page of another site may have made.
    pub(super) fn admit_all<B>(&self, request: &Request<B>) -> Result<(), Verdict> {
        if self.is_closed() { Ok(()) } else { from_this_host(request) }
    }

    /// Who asks; none where nobody has to say.
    ///
    /// # Errors
    /// [`Reason::IdentityRequired`]; [`Reason::NameMismatch`] for a request that a page of another site may have made.
    pub(super) fn admit<B>(&self, request: &Request<B>) -> Result<Option<Arc<str>>, Verdict> {
        let names: &[_] = if is_door(request) { &OF_A_DOOR } else { &OF_A_PROXY };
        match &self.known {
            Some(known) => {
                let denied = || Verdict::block(Reason::IdentityRequired, "no token that is known");
                let known = known.read().unwrap_or_else(PoisonError::into_inner);
                known.of(request.headers(), names).ok_or_else(denied).map(Some)
            }
            None if is_door(request) => from_this_host(request).map(|()| None),
            None => Ok(None),
        }
    }
}

/// Whether a request is for one of our doors: it names a path alone (RFC 9112 §3.2.1).
pub(super) fn is_door<B>(request: &Request<B>) -> bool {
    request.uri().authority().is_none() && request.method() != Method::CONNECT
}

/// Refuses what browsers send for pages of others: under a name that leads here, from another origin (RFC 6454 §7, which
/// they name in each handshake of a WebSocket), or across sites (Fetch Metadata, §2.2).
fn from_this_host<B>(request: &Request<B>) -> Result<(), Verdict> {
    let is_own = match door_host(request)? {
        None => true,
        Some(Host::Addr(_)) => true,
        Some(Host::Name(name)) => Host::is_localhost(&name),
    };
    if !is_own {
        return Err(Verdict::block(Reason::NameMismatch, "Host is neither an address nor localhost"));
    }
    let host = request.headers().get(header::HOST).map_or(&b""[..], HeaderValue::as_bytes);
    let own = [b"http://", host].concat();
    if request.headers().get_all(header::ORIGIN).iter().any(|origin| !origin.as_bytes().eq_ignore_ascii_case(&own)) {
        return Err(Verdict::block(Reason::NameMismatch, "a page of another origin asks"));
    }
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"none" && site != b"same-origin") {
        return Err(Verdict::block(Reason::NameMismatch, "a page of another site asks"));
    }
    Ok(())
}

/// Refuses what browsers send for pages that are not of this host, where it is the host's own programs that are served: whatever
/// Host they name, other than [`from_this_host`].
pub(super) fn by_no_page<B>(request: &Request<B>) -> Result<(), Verdict> {
    let denied = || Err(Verdict::block(Reason::NameMismatch, "a page of another host asks"));
    let mut origins = request.headers().get_all(header::ORIGIN).iter().peekable();
    if origins.peek().is_some() {
        return if origins.all(is_of_this_host) { Ok(()) } else { denied() };
    }
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site.eq_ignore_ascii_case(b"cross-site")) { denied() } else { Ok(()) }
}

/// True for an origin that is this host, by whatever scheme and port.
fn is_of_this_host(origin: &HeaderValue) -> bool {
    let uri = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
    let host = uri.as_ref().and_then(|uri| {
        let authority = uri.authority()?;
        // A host alone, or with a port.
        let is_sound = authority.as_str() == authority.host() || authority.port_u16().is_some();
        Host::parse(authority.host()).ok().filter(|_| is_sound)
    });
    match host {
        Some(Host::Addr(addr)) => addr.is_loopback(),
        Some(Host::Name(name)) => Host::is_localhost(&name),
        None => false,
    }
}

/// Status and header that ask who one is (RFC 9110 §11.7.1): those of a proxy, or of a door of our own.
pub(super) fn unidentified(is_door: bool) -> (StatusCode, HeaderName) {
    match is_door {
        true => (StatusCode::UNAUTHORIZED, header::WWW_AUTHENTICATE),
        false => (StatusCode::PROXY_AUTHENTICATION_REQUIRED, header::PROXY_AUTHENTICATE),
    }
}

/// Says in an answer how to show who one is.
pub(super) fn challenge<B>(response: &mut Response<B>, is_door: bool) {
    let (status, name) = unidentified(is_door);
    *response.status_mut() = status;
    for way in ["Basic realm=\"pipelock\", charset=\"UTF-8\"", "Bearer realm=\"pipelock\""] {
        response.headers_mut().append(&name, HeaderValue::from_static(way));
    }
}
