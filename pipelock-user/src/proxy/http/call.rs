//! Calls by JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>), which MCP and A2A speak over HTTP: whoever calls so is told of a
//! denial so, with the id of the call, since its library shows the agent nothing else.
//!
//! Made by `serve` for each request that may be one. It promises that nothing is read earlier for it, that a refusal waits for the rest
//! of its call for two seconds at most, and that what is no whole call of one method is none.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use serde_json::{Value, json};

use crate::flow::{FlowId, Reason, Verdict, locked};
use crate::proxy::rescue;
use crate::recorder::RequestRecord;

/// Longest call whose id is looked for, in bytes.
const MOST: u64 = 64 * 1024;
/// Longest id, in bytes.
const MOST_ID: usize = 1024;
/// How long the rest of a call that is refused already is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A body that may be a call.
#[derive(Clone)]
pub(super) struct Call(Arc<Mutex<Heard>>);

struct Heard {
    body: Incoming,
    /// What went on of it.
    pieces: Vec<Bytes>,
    /// Whoever sends it waits to be told to.
    waits: bool,
}

impl Call {
    /// Takes over the body of a request that may be one.
    ///
    /// # Errors
    /// The body itself, if it is none.
    pub(super) fn of(head: &http::request::Parts, body: Incoming) -> Result<Self, Incoming> {
        let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is_json =
            [&b"application/json"[..], b"application/a2a+json"].iter().any(|one| kind.eq_ignore_ascii_case(one));
        let is_short = body.size_hint().exact().is_some_and(|length| (1..=MOST).contains(&length));
        if head.method != Method::POST || !is_json || !is_short || head.headers.contains_key(header::CONTENT_ENCODING) {
            return Err(body);
        }
        let waits = head.headers.contains_key(header::EXPECT);
        Ok(Self(Arc::new(Mutex::new(Heard { body, pieces: Vec::new(), waits }))))
    }

    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut heard = locked(&self.0);
        let polled = Pin::new(&mut heard.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            heard.waits = false;
            heard.pieces.extend(frame.data_ref().cloned());
        }
        polled
    }

    pub(super) fn is_end_stream(&self) -> bool {
        locked(&self.0).body.is_end_stream()
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        locked(&self.0).body.size_hint()
    }

    /// The id of the call, once it is refused: what has not come of it is waited for.
    pub(super) async fn id(&self) -> Option<Value> {
        let read = std::future::poll_fn(|cx| {
            loop {
                if locked(&self.0).waits {
                    return Poll::Ready(None);
                }
                match std::task::ready!(self.poll_frame(cx)) {
                    None => return Poll::Ready(Some(())),
                    Some(Ok(_)) => {}
                    Some(Err(_)) => return Poll::Ready(None),
                }
            }
        });
        tokio::time::timeout(PATIENCE, read).await.ok()??;
        let pieces = std::mem::take(&mut locked(&self.0).pieces);
        id_of(&pieces.concat())
    }
}

/// The id of a call of one method that wants an answer.
fn id_of(text: &[u8]) -> Option<Value> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        jsonrpc: String,
        #[serde(rename = "method")]
        _method: String,
        id: Value,
    }
    let Envelope { jsonrpc, id, .. } = serde_json::from_slice(text).ok()?;
    let is_id = match &id {
        Value::String(text) => text.len() <= MOST_ID,
        Value::Number(_) => true,
        _ => false,
    };
    (jsonrpc == "2.0" && is_id).then_some(id)
}

/// The status of every answer of JSON-RPC.
pub(super) const STATUS: StatusCode = StatusCode::OK;

/// A denial for a caller. It is an answer like every other.
pub(super) fn denial(id: &Value, record: &RequestRecord, flow: FlowId) -> Response<Full<Bytes>> {
    let verdict = &record.verdict;
    let data = rescue::members(verdict, rescue::status(verdict.reason), flow);
    let message = format!("pipelock: {} ({}). {}", verdict.why(), verdict.reason, verdict.reason.hint());
    let error = json!({"code": code(verdict, record.dialled.is_some()), "message": message, "data": data});
    let body = json!({"jsonrpc": "2.0", "id": id, "error": error});
    rescue::json(STATUS, Some(verdict.reason), &body)
}

/// The code of an error (§5.1): of those that a server may define. What could not be read is what came back, once the request has left.
fn code(verdict: &Verdict, has_left: bool) -> i32 {
    match verdict.reason {
        Reason::InjectionMatch if !verdict.is_outbound => -32000,
        Reason::ContentUnreadable if has_left => -32000,
        Reason::DlpMatch | Reason::InjectionMatch | Reason::ContentUnreadable | Reason::AskDenied => -32001,
        Reason::ResolveFailed
        | Reason::DialFailed
        | Reason::UpstreamFailed
        | Reason::HopFailed
        | Reason::CertificateInvalid
        | Reason::IdleTimeout => -32003,
        Reason::BudgetExceeded | Reason::LimitExceeded => -32005,
        Reason::RequestMalformed => -32600,
        Reason::RecorderUnavailable | Reason::ScannerUnavailable | Reason::ProxyStopped | Reason::Internal => -32603,
        _ => -32002,
    }
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
