//! What the explicit proxy answers itself: requests that name a path and no host (RFC 9112 §3.2.1).
//!
//! Called by `explicit` before it takes a request for one to be forwarded.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use serde_json::json;

use super::explicit::Granted;
use super::gate::{Gate, is_door};
use super::serve::{Body, Session};
use super::socket::{parameter, socket};
use crate::proxy::api;
use crate::proxy::fetch::fetch;
use crate::proxy::rescue;

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
    is_door(request) && request.method() == Method::GET && request.uri().path() == "/health"
}

/// Whether anything is let through, and by which policy. 503 when nothing is.
pub(super) fn health(session: &Session) -> Response<Full<Bytes>> {
    let proxy = &session.proxy;
    let rules = proxy.rules();
    let is_writing = proxy.recorder.is_writing();
    let scanner = rules.scanner();
    let is_ok = is_writing && scanner.is_ok();
    let body = json!({
        "status": if is_ok { "ok" } else { "failing" },
        "version": env!("CARGO_PKG_VERSION"),
        "mode": "explicit",
        "policy_hash": rules.policy.id().to_string(),
        "scanner": scanner.unwrap_or_else(|word| word),
        "evidence": if is_writing { "written" } else { "lost" },
    });
    rescue::json(if is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, None, &body)
}
