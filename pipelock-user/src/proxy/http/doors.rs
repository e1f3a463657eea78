//! What the explicit proxy answers itself: requests that name a path and no host (RFC 9112 §3.2.1).
//!
//! Called by `explicit` before it takes a request for one to be forwarded.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;

use super::explicit::Granted;
use super::gate::{Gate, is_door};
use super::serve::{Body, Session};
use super::socket::{parameter, socket};
use crate::flow::{Reason, Verdict};
use crate::proxy::api;
use crate::proxy::fetch::fetch;
use crate::proxy::rescue;

/// Where it is said how the proxy is.
const HEALTH_PATH: &str = "/health";

/// The answer of one of our doors.
///
/// # Errors
/// The request, when it is for none of them.
pub(super) async fn answer(
    session: &Arc<Session>,
    gate: &Gate,
    request: Request<Incoming>,
    granted: &Granted,
) -> Result<Response<Body>, Request<Incoming>> {
    if !is_door(&request) {
        return Err(request);
    }
    let rules = session.proxy.rules();
    if let Some(parameter) = parameter(&rules.policy.websocket().proxy_path, &request) {
        return Ok(Box::pin(socket(session, parameter, request, granted)).await);
    }
    match request.uri().path() {
        "/fetch" => Ok(Box::pin(fetch(session, &gate.fetches, &request)).await.map(Either::Right)),
        api::PATH => Ok(Box::pin(api::scan(session, request)).await.map(Either::Right)),
        api::CONTRACT_PATH if request.method() == Method::GET => Ok(contract().map(Either::Right)),
        // Who may ask has asked for it already.
        path @ (HEALTH_PATH | api::CONTRACT_PATH) => {
            let (method, path) = (request.method().to_string(), path.to_owned());
            let verdict = Verdict::block(Reason::RequestMalformed, format!("ask for {path} with GET"));
            let told = session.tell("door", &method, &path, verdict, StatusCode::METHOD_NOT_ALLOWED).await;
            let mut response = rescue::problem(&told, session.flow.id);
            if told.reason == Reason::RequestMalformed {
                *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            }
            Ok(response.map(Either::Right))
        }
        _ => Err(request),
    }
}

fn contract() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(api::CONTRACT.as_bytes())));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Whether a request is for what anybody may ask.
pub(super) fn is_for_all(request: &Request<Incoming>) -> bool {
    is_door(request) && request.method() == Method::GET && request.uri().path() == HEALTH_PATH
}

/// How the proxy is, and by which policy; 503 when nothing is let through.
pub(super) fn health(session: &Session) -> Response<Full<Bytes>> {
    let (status, body) = session.proxy.health(None).answer();
    rescue::json(status, None, &body)
}

#[cfg(test)]
mod tests {
    use super::HEALTH_PATH;
    use crate::policy::OWN_DOORS;
    use crate::proxy::api;

    #[test]
    fn no_path_of_a_policy_takes_the_place_of_a_door() {
        assert_eq!(OWN_DOORS, ["/fetch", HEALTH_PATH, api::PATH, api::CONTRACT_PATH]);
    }
}
