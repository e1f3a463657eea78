//! The reverse proxy: whoever comes is a client of one destination, which the operator chose.
//!
//! Started by `app`. It promises that nothing else can be reached through it, whatever a request names, and that requests,
//! answers and messages of WebSockets are decided, read and recorded as those of every other way.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use http::Request;
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
        move |session: Arc<Session>, mut request: Request<Incoming>| {
            let asked = origin_form(&request).and_then(|()| if is_here { by_no_page(&request) } else { Ok(()) });
            let authority = asked.map(|()| authority.clone());
            request.extensions_mut().insert(AtDoor);
            async move { session.answer_to(authority, request).await }
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
