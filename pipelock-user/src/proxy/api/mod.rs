//! `POST /api/v1/scan` of the explicit proxy: a verdict for who asks before it acts. `openapi.json` is its contract.
//!
//! Called by `http::doors`. It promises that the verdict is that of every other door, with a receipt; that a question is
//! bounded in length, number and time; and that each error has a code of its own.

mod judge;
mod question;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Body;
use serde_json::json;
use tokio::time::Instant;

use crate::flow::{Reason, Verdict};
use crate::proxy::http::Session;
use crate::proxy::ration::{self, Limits, Size, Whose, who};
use crate::proxy::rescue;

/// Where it is.
pub(in crate::proxy) const PATH: &str = "/api/v1/scan";
/// Where its contract is.
pub(in crate::proxy) const CONTRACT_PATH: &str = "/api/v1/openapi.json";
/// The contract (OpenAPI 3.1).
pub(in crate::proxy) const CONTRACT: &str = include_str!("openapi.json");
/// What receipts call this door.
const TRANSPORT: &str = "scan";
/// Questions of one client at once, …
const BURST: u64 = 50;
/// … and in a minute.
const A_MINUTE: u64 = 600;
/// The same as a rate.
const QUESTIONS: Limits = Limits {
    requests: Some(Size { most: BURST, period: Duration::from_millis(60_000 * BURST / A_MINUTE) }),
    bytes_out: None,
    bytes_in: None,
};
/// Longest body, in bytes.
const MOST_BODY: usize = 1024 * 1024;
/// How long the body may take to come, …
const READ: Duration = Duration::from_secs(5);
/// … and the verdict.
const JUDGE: Duration = Duration::from_secs(5);

/// Why a question is not answered.
#[derive(Debug)]
pub(in crate::proxy) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The same question may be answered later.
    is_retryable: bool,
    reason: Reason,
    wait: Option<Duration>,
    /// There is a receipt that says so.
    is_told: bool,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: &str) -> Self {
        let reason = Reason::RequestMalformed;
        Self { status, code, message: message.to_owned(), is_retryable: false, reason, wait: None, is_told: false }
    }

    /// The same for its receipt.
    fn verdict(&self) -> Verdict {
        let verdict = Verdict::block(self.reason, format!("{}: {}", self.code, self.message));
        match self.wait {
            Some(wait) => verdict.retry(wait),
            None => verdict,
        }
    }

    fn invalid_json(why: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_json", why)
    }

    fn invalid_input(why: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_input", why)
    }

    fn invalid_kind() -> Self {
        let kinds = "kind is url, dlp, prompt_injection or tool_call";
        Self::new(StatusCode::BAD_REQUEST, "invalid_kind", kinds)
    }

    fn late() -> Self {
        let late = Self::new(StatusCode::SERVICE_UNAVAILABLE, "scan_deadline_exceeded", "no verdict in time");
        Self { is_retryable: true, reason: Reason::ScannerUnavailable, ..late }
    }

    fn broken() -> Self {
        let broken = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the question could not be read");
        Self { reason: Reason::Internal, ..broken }
    }

    fn without_scanner(why: &str) -> Self {
        let unavailable = Self::new(StatusCode::SERVICE_UNAVAILABLE, "scanner_unavailable", why);
        Self { is_retryable: true, reason: Reason::ScannerUnavailable, ..unavailable }
    }

    fn too_often(wait: Duration) -> Self {
        let why = format!("more than {BURST} questions at once, or {A_MINUTE} a minute");
        let often = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", &why);
        Self { is_retryable: true, reason: Reason::LimitExceeded, wait: Some(wait), ..often }
    }
}

/// Answers a request for [`PATH`].
pub(in crate::proxy) async fn scan<B>(session: &Arc<Session>, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let start = Instant::now();
    let scan_id = scan_id();
    let method = request.method().clone();
    let answered = answer(session, request).await;
    let refusal = match answered {
        Ok((question, verdict)) => return completed(&question, &verdict, &scan_id, start),
        Err(refusal) => refusal,
    };
    if refusal.is_told {
        return refused(&refusal, &scan_id);
    }
    let told = session.tell(TRANSPORT, method.as_str(), PATH, refusal.verdict(), refusal.status).await;
    if told.reason == Reason::RecorderUnavailable {
        return refused(&Refusal { reason: told.reason, ..unrecorded() }, &scan_id);
    }
    refused(&refusal, &scan_id)
}

/// What is asked, as the answer repeats it.
struct Asked {
    kind: &'static str,
    request_id: Option<String>,
}

async fn answer<B>(session: &Arc<Session>, request: Request<B>) -> Result<(Asked, Verdict), Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if !session.proxy.recorder.is_writing() {
        return Err(unrecorded());
    }
    if request.method() != Method::POST {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "ask with POST"));
    }
    let ration = session.proxy.rations.of(Whose::Identity(who(&session.identified())), QUESTIONS);
    ration::admit(&[ration]).map_err(|short| Refusal::too_often(short.wait))?;
    let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let unsupported = |why| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", why);
    if !kind.eq_ignore_ascii_case(b"application/json") {
        return Err(unsupported("Content-Type is application/json"));
    }
    let codings = request.headers().get_all(header::CONTENT_ENCODING).iter();
    if codings.into_iter().any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")) {
        return Err(unsupported("Content-Encoding is not undone here; send the JSON as it is"));
    }
    let body = tokio::time::timeout(READ, Box::pin(Limited::new(request.into_body(), MOST_BODY).collect()));
    let body = match body.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let why = format!("the body is longer than {MOST_BODY} bytes");
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", &why));
        }
        Ok(Err(error)) => return Err(Refusal::new(StatusCode::BAD_REQUEST, "read_error", &error.to_string())),
        Err(_) => return Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "read_error", "the body came too slowly")),
    };
    let question = question::read(&body)?;
    let asked = Asked { kind: question.kind.word(), request_id: question.request_id };
    let verdict = judge::judge(session, question.kind, Instant::now() + JUDGE).await?;
    // Its receipt was tried; another for that would come no further.
    let lost = || Refusal { is_told: true, ..unrecorded() };
    if verdict.reason == Reason::RecorderUnavailable { Err(lost()) } else { Ok((asked, verdict)) }
}

fn unrecorded() -> Refusal {
    let lost = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "recorder_unavailable", "evidence is not written");
    Refusal { reason: Reason::RecorderUnavailable, ..lost }
}

/// Tells one question from another.
fn scan_id() -> String {
    let mut id = [0; 8];
    // Without randomness it tells nothing, and the verdict is the same.
    let _ = getrandom::fill(&mut id);
    format!("scan-{:016x}", u64::from_be_bytes(id))
}

fn completed(asked: &Asked, verdict: &Verdict, scan_id: &str, start: Instant) -> Response<Full<Bytes>> {
    let is_blocked = verdict.is_block();
    let body = json!({
        "status": "completed",
        "decision": if is_blocked { "deny" } else { "allow" },
        "kind": asked.kind,
        "scan_id": scan_id,
        "request_id": asked.request_id,
        "duration_ms": u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        "engine_version": env!("CARGO_PKG_VERSION"),
        "verdict": verdict.word(),
        "reason": verdict.reason.code(),
        "rule": verdict.rule,
        "blocked": is_blocked,
        "block_reason": is_blocked.then(|| verdict.why()),
        "scanner": is_blocked.then(|| verdict.layer()),
        "what_to_do": is_blocked.then(|| verdict.reason.hint()),
        "findings": verdict.findings,
        "errors": [],
    });
    rescue::json(StatusCode::OK, Some(verdict.reason), &body)
}

fn refused(refusal: &Refusal, scan_id: &str) -> Response<Full<Bytes>> {
    let verdict = refusal.verdict();
    let mut body = json!({
        "status": "error",
        "scan_id": scan_id,
        "reason": refusal.reason.code(),
        "errors": [{"code": refusal.code, "message": refusal.message, "retryable": refusal.is_retryable}],
    });
    if let Some(seconds) = verdict.retry_seconds() {
        body["retry_after_seconds"] = json!(seconds);
    }
    let mut response = rescue::json(refusal.status, Some(refusal.reason), &body);
    if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    }
    rescue::tell_when(&mut response, &verdict);
    if matches!(refusal.code, "body_too_large" | "read_error") {
        // The rest of the body is nobody's.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests;
