//! What the explicit proxy answers itself: requests that name a path and no host (RFC 9112 §3.2.1).
//!
//! Called by `explicit` before it takes a request for one to be forwarded.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;

use super::serve::Session;
use crate::proxy::fetch::fetch;

/// The answer of one of our doors; none when the request is for none of them.
pub(super) async fn answer(session: &Arc<Session>, request: &Request<Incoming>) -> Option<Response<Full<Bytes>>> {
    if request.uri().authority().is_some() || request.method() == Method::CONNECT {
        return None;
    }
    match request.uri().path() {
        "/health" if request.method() == Method::GET => Some(health(session)),
        "/fetch" => Some(Box::pin(fetch(session, request)).await),
        _ => None,
    }
}

/// Whether anything is let through, and by which policy. 503 when nothing is.
fn health(session: &Session) -> Response<Full<Bytes>> {
    let proxy = &session.proxy;
    let rules = proxy.rules();
    let is_writing = proxy.recorder.is_writing();
    let scanner = match rules.inspect.as_ref().map(|inspect| inspect.now()) {
        None => "off",
        Some(None) => "loading",
        Some(Some(Ok(_))) => "ready",
        Some(Some(Err(_))) => "failed",
    };
    let is_ok = is_writing && scanner != "failed";
    let body = json!({
        "status": if is_ok { "ok" } else { "failing" },
        "version": env!("CARGO_PKG_VERSION"),
        "mode": "explicit",
        "policy_hash": rules.policy.id().to_string(),
        "scanner": scanner,
        "evidence": if is_writing { "written" } else { "lost" },
    });
    let mut response = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *response.status_mut() = if is_ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
