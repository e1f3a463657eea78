//! Turns a verdict into what the client is told, in one place: a denial that an agent can read and act on.
//!
//! Called by `http`, `fetch`, `api` and `listen`. Promises that the answer holds the stable reason, the rule and what to do, and nothing
//! of our insides.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;

use crate::flow::{FlowId, Reason, Verdict};

/// The status that stands for a reason (RFC 9110 §15).
#[must_use]
pub(super) fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::RequestMalformed => StatusCode::BAD_REQUEST,
        Reason::ResolveFailed
        | Reason::DialFailed
        | Reason::UpstreamFailed
        | Reason::HopFailed
        | Reason::CertificateInvalid => StatusCode::BAD_GATEWAY,
        Reason::IdentityRequired => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
        Reason::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        Reason::BudgetExceeded | Reason::LimitExceeded => StatusCode::TOO_MANY_REQUESTS,
        Reason::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Reason::IdleTimeout => StatusCode::GATEWAY_TIMEOUT,
        Reason::RecorderUnavailable | Reason::ScannerUnavailable | Reason::ProxyStopped | Reason::Internal => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Reason::PolicyAllow
        | Reason::LoopbackOwn
        | Reason::LoopbackAllowed
        | Reason::DnsAnswered
        | Reason::Inbound
        | Reason::PortDenied
        | Reason::SocketDenied
        | Reason::UdpDenied
        | Reason::LoopbackDenied
        | Reason::ListenDenied
        | Reason::InboundDenied
        | Reason::PacketDenied
        | Reason::NetnsUnknown
        | Reason::ProxyDown
        | Reason::TableFull
        | Reason::AddressDenied
        | Reason::DeviceDenied
        | Reason::NoOrigin
        | Reason::HostDenied
        | Reason::MethodDenied
        | Reason::PathDenied
        | Reason::GitDenied
        | Reason::HostKeyDenied
        | Reason::NameMismatch
        | Reason::NameMissing
        | Reason::InspectionUnavailable
        | Reason::ClientPinned
        | Reason::TlsFailed
        | Reason::ProtocolUnknown
        | Reason::DetectTimeout
        | Reason::UpgradeDenied
        | Reason::EchDenied
        | Reason::SsrfDenied
        | Reason::DnsDenied
        | Reason::DnsMalformed
        | Reason::DnsExhausted
        | Reason::PolicyChanged
        | Reason::AskDenied
        | Reason::DlpMatch
        | Reason::InjectionMatch
        | Reason::ContentUnreadable
        | Reason::ClientAborted
        | Reason::ProxyLost => StatusCode::FORBIDDEN,
    }
}

/// The denial as `application/problem+json` (RFC 9457).
#[must_use]
pub(super) fn problem(verdict: &Verdict, flow: FlowId) -> Response<Full<Bytes>> {
    problem_as(verdict, status(verdict.reason), flow)
}

/// The same with a status that says more than the reason alone.
#[must_use]
pub(super) fn problem_as(verdict: &Verdict, status: StatusCode, flow: FlowId) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(describe(verdict, status, flow)));
    *response.status_mut() = status;
    for (name, value) in headers(verdict) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    finish(&mut response, verdict);
    response
}

fn finish<B>(response: &mut Response<B>, verdict: &Verdict) {
    tell_when(response, verdict);
    if matches!(verdict.reason, Reason::IdleTimeout | Reason::RecorderUnavailable | Reason::ProxyStopped) {
        // Nothing more can come of the connection: it was silent, would leave no evidence, or ends with the proxy.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// The denial for a client: of what git asked it is a line, since git shows who runs it nothing else.
pub(super) fn denial(verdict: &Verdict, flow: FlowId, is_git: bool) -> Response<Full<Bytes>> {
    if is_git { line(verdict) } else { problem(verdict, flow) }
}

/// The denial as a line of text.
#[must_use]
fn line(verdict: &Verdict) -> Response<Full<Bytes>> {
    let mut line = format!("pipelock: {} ({})", verdict.why(), verdict.reason);
    if verdict.reason != Reason::GitDenied && verdict.why() != verdict.reason.hint() {
        line.push_str(". ");
        line.push_str(verdict.reason.hint());
    }
    let mut response = Response::new(Full::new(Bytes::from(line + "\n")));
    *response.status_mut() = status(verdict.reason);
    for (name, value) in headers(verdict) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    finish(&mut response, verdict);
    response
}

/// Says when it is worth asking again, where that is known.
pub(super) fn tell_when<B>(response: &mut Response<B>, verdict: &Verdict) {
    if let Some(seconds) = verdict.retry_seconds() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

/// An answer of a door of ours, with the reason where one decided.
#[must_use]
pub(super) fn json(status: StatusCode, reason: Option<Reason>, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{body:#}\n"))));
    *response.status_mut() = status;
    let fixed =
        [("content-type", "application/json"), ("cache-control", "no-store"), ("x-content-type-options", "nosniff")];
    for (name, value) in fixed.into_iter().chain(reason.map(|reason| ("x-pipelock-reason", reason.code()))) {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A denial as bytes of HTTP/1.1 (RFC 9112), for a request that nobody could read: the last answer of its connection.
#[must_use]
pub(super) fn last_words(verdict: &Verdict, status: StatusCode, flow: FlowId) -> Vec<u8> {
    let body = describe(verdict, status, flow);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in headers(verdict) {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if let Some(seconds) = verdict.retry_seconds() {
        bytes.extend_from_slice(format!("retry-after: {seconds}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn headers(verdict: &Verdict) -> [(&'static str, &'static str); 3] {
    [
        ("content-type", "application/problem+json"),
        ("cache-control", "no-store"),
        ("x-pipelock-reason", verdict.reason.code()),
    ]
}

fn describe(verdict: &Verdict, status: StatusCode, flow: FlowId) -> Bytes {
    Bytes::from(format!("{:#}\n", members(verdict, status, flow)))
}

/// What a denial says.
#[must_use]
pub(super) fn members(verdict: &Verdict, status: StatusCode, flow: FlowId) -> Value {
    serde_json::json!({
        "type": format!("urn:pipelock:reason:{}", verdict.reason.code()),
        "title": "pipelock did not let this request through",
        "status": status.as_u16(),
        "detail": verdict.detail,
        "blocked": true,
        "block_reason": verdict.why(),
        "scanner": verdict.layer(),
        "reason": verdict.reason.code(),
        "rule": verdict.rule,
        "what_to_do": verdict.reason.hint(),
        "retry_after_seconds": verdict.retry_seconds(),
        "flow": flow.0.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn a_denial_says_why_and_what_to_do() {
        let verdict =
            Verdict::block(Reason::MethodDenied, "DELETE is not listed").by(Some("egress[0] a.example".into()));
        let response = problem(&verdict, FlowId(7));
        assert_eq!(response.status(), 403);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["reason"], "method_denied");
        assert_eq!(body["rule"], "egress[0] a.example");
        assert_eq!(body["flow"], "7");
        assert!(body["what_to_do"].as_str().is_some_and(|text| !text.is_empty()));
    }
}
