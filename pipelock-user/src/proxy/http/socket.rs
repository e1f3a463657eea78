//! `GET /ws?url=…` of the explicit proxy: a WebSocket to the destination that the query names, for clients that cannot ask for a
//! tunnel.
//!
//! Called by `doors`. It promises that the upgrade goes the way of every other request, that its messages go through the relay
//! that reads all of them, and that the client's headers go on as those of any request do, but no token that was for us.

use std::sync::Arc;

use http::{Request, StatusCode};
use http_body_util::Either;
use hyper::body::Incoming;

use super::arriving::Arriving;
use super::authority::Authority;
use super::explicit::{Grant, Granted};
use super::place::{SOCKETS, read, url_of};
use super::serve::{Body, Session};
use super::upgrade::is_websocket;
use crate::flow::{Reason, Verdict, locked};
use crate::proxy::rescue;

/// What receipts call this door.
const TRANSPORT: &str = "ws";

/// Marks a request that may become a WebSocket: it came through this door, or through the reverse proxy.
#[derive(Clone, Copy, Debug)]
pub(super) struct AtDoor;

/// The name of the query's parameter, if a request is for this door under `proxy_path` (`/ws?url=`).
pub(super) fn parameter<'p, B>(proxy_path: &'p str, request: &Request<B>) -> Option<&'p str> {
    let (path, name) = proxy_path.split_once('?')?;
    (path == request.uri().path()).then_some(name)
}

/// Answers a request for this door. An upgrade that is agreed on is left in `granted`.
pub(super) async fn socket(
    session: &Arc<Session>,
    parameter: &str,
    mut request: Request<Incoming>,
    granted: &Granted,
) -> http::Response<Body> {
    let asked = if is_websocket(&request) {
        url_of(parameter, request.uri().query()).and_then(|url| read(&url, SOCKETS))
    } else {
        Err(Verdict::block(Reason::RequestMalformed, "ask for a WebSocket of version 13 (RFC 6455 §4.1)"))
    };
    let place = match asked {
        Ok((_, place)) => place,
        Err(verdict) => {
            let path = request.uri().path().to_owned();
            let told =
                session.tell(TRANSPORT, request.method().as_str(), &path, verdict, StatusCode::BAD_REQUEST).await;
            return rescue::problem(&told, session.flow.id).map(Either::Right);
        }
    };
    *request.uri_mut() = place.path;
    request.extensions_mut().insert(AtDoor);
    let version = request.version();
    let own = session.errand_of(TRANSPORT, place.is_tls);
    let authority = Authority { host: place.host, port: place.port };
    let carried = own.carry(Ok(authority), request.map(|body| Arriving::new(body, version))).await;
    match carried.response {
        None => rescue::problem(&carried.record.verdict, session.flow.id).map(Either::Right),
        Some(response) => {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                *locked(granted) = Some(Grant::Socket(own));
            }
            response.map(Either::Left)
        }
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
