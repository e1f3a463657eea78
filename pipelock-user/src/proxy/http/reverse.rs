//! The reverse proxy: whoever comes is a client of one destination, which the operator chose.
//!
//! Started by `app`. It promises that nothing else can be reached through it, whatever a request names, and that requests,
//! answers and messages of WebSockets are decided, read and recorded as those of every other way.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue, Request, header};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::authority::{Authority, door_host};
use super::converse::converse;
use super::explicit::{flow_of, speaks, turn_away};
use super::gate::by_no_page;
use super::place::{WEB, read};
use super::serve::Session;
use super::socket::AtDoor;
use super::upstream::Carrier;
use crate::flow::{Host, Reason, Verdict};
use crate::proxy::accept::accept;
use crate::proxy::listen::LINGER;
use crate::proxy::prefixed::Prefixed;
use crate::proxy::silent::Silent;
use crate::proxy::state::Proxy;

/// What receipts call this door.
const TRANSPORT: &str = "reverse";

/// Where all requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    is_tls: bool,
    host: Host,
    port: u16,
}

impl Upstream {
    /// Reads `http://host[:port]` or `https://host[:port]`.
    ///
    /// # Errors
    /// What is wrong with it, for a person.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (_, place) = read(url, WEB).map_err(|verdict| verdict.detail)?;
        if place.path != "/" || url.contains(['?', '#']) {
            return Err("write scheme, host and port only: paths are the clients'".to_owned());
        }
        Ok(Self { is_tls: place.is_tls, host: place.host, port: place.port })
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Accepts clients of `upstream` until the proxy ends.
pub async fn serve_reverse(listener: TcpListener, proxy: Arc<Proxy>, upstream: Arc<Upstream>) {
    let serve = move |proxy: Arc<Proxy>, stream, peer, silent| {
        let upstream = upstream.clone();
        async move { connection(&proxy, &upstream, stream, peer, silent).await }
    };
    let refuse = |proxy: Arc<Proxy>, stream, peer, may_wait| async move {
        turn_away(TRANSPORT, &proxy, stream, peer, may_wait).await;
    };
    accept(listener, proxy, serve, refuse).await;
}

async fn connection(
    proxy: &Arc<Proxy>,
    upstream: &Upstream,
    mut stream: TcpStream,
    peer: SocketAddr,
    mut silent: Silent,
) {
    // What is spoken to the destination; the client speaks HTTP/1.1 in the clear.
    let carrier = Carrier { is_tls: upstream.is_tls, is_http2: false };
    let session = Session::by(TRANSPORT, proxy, flow_of(proxy, peer), None, carrier);
    let mut buffer = BytesMut::new();
    let Some(due) = speaks(&session, &mut stream, &mut buffer, &mut silent).await else { return };
    let answer = {
        let authority = Authority { host: upstream.host.clone(), port: upstream.port };
        // A client of this host may be a browser, and what it shows may be anybody's.
        let is_here = peer.ip().to_canonical().is_loopback();
        let places = places(upstream);
        move |session: Arc<Session>, mut request: Request<Incoming>| {
            let asked = origin_form(&request).and_then(|()| if is_here { by_no_page(&request) } else { Ok(()) });
            let authority = asked.map(|()| authority.clone());
            request.extensions_mut().insert(AtDoor);
            let places = places.clone();
            async move {
                let mut response = session.answer_to(authority, request).await;
                stay(response.headers_mut(), &places);
                response
            }
        }
    };
    let ended = Box::pin(converse(&session, stream, (buffer, Some((silent, due))), false, answer)).await;
    match ended {
        Some((stream, unread)) if session.is_upgraded() => {
            session.add_cut(session.carry_on(Prefixed::new(unread, stream)).await, "messages").await;
        }
        ended => {
            session.add_cut(session.end(None), "body").await;
            if let Some((mut stream, _)) = ended {
                let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
            }
        }
    }
}

/// How an answer may name the destination.
fn places(upstream: &Upstream) -> Arc<[String]> {
    let (scheme, default) = if upstream.is_tls { ("https", 443) } else { ("http", 80) };
    let place = format!("{scheme}://{}", upstream.host);
    let mut places = vec![format!("{place}:{}", upstream.port)];
    if upstream.port == default {
        places.push(place);
    }
    places.into()
}

/// Where an answer sends the client on to the destination, it is to come here again: what it asks there nobody would read.
fn stay(headers: &mut HeaderMap, places: &[String]) {
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let Some(location) = headers.get(&name).and_then(|value| value.to_str().ok()) else { continue };
        if let Some(Ok(here)) = here(location, places).map(|here| HeaderValue::from_str(&here)) {
            headers.insert(name, here);
        }
    }
}

/// The path alone of a URL of the destination's; none for what goes elsewhere, and for a path that alone would name another host.
fn here(location: &str, places: &[String]) -> Option<String> {
    let behind = |place: &String| {
        let (named, rest) = location.split_at_checked(place.len())?;
        named.eq_ignore_ascii_case(place).then_some(rest)
    };
    places.iter().filter_map(behind).find_map(|rest| match rest.as_bytes() {
        [] => Some("/".to_owned()),
        [b'?' | b'#', ..] => Some(format!("/{rest}")),
        [b'/', b'/' | b'\\', ..] => None,
        [b'/', ..] => Some(rest.to_owned()),
        _ => None,
    })
}

/// Requests for a server name a path alone (RFC 9112 §3.2.1), and one host.
fn origin_form<B>(request: &Request<B>) -> Result<(), Verdict> {
    if request.uri().authority().is_some() || request.method() == http::Method::CONNECT {
        return Err(Verdict::block(Reason::RequestMalformed, "this is a reverse proxy: the request target is a path"));
    }
    door_host(request).map(drop)
}

#[cfg(test)]
#[path = "reverse_tests.rs"]
mod tests;
