//! A TLS connection that is opened: the agent is met as the host it asked for, and what is inside goes to `http`.
//!
//! Called by `listen` and `http::inside` when the rule wants the traffic read. It promises that what is inside is HTTP or goes
//! nowhere, and that a handshake that fails leaves its reason in the flow's receipt, if there is a flow.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

use super::detect::{DetectError, Protocol, detect};
use super::http;
use super::listen::LINGER;
use super::state::Proxy;
use super::tls::{Agreed, Interception, greet};
use crate::flow::{Flow, FlowGuard, Host, Reason, Target, Verdict};
use crate::telemetry::plain_host;

/// Opens the connection and serves what is inside; the verdict, unless the flow has it and its requests have
/// said theirs.
pub(super) async fn intercept<S>(
    proxy: &Arc<Proxy>,
    tls: &Interception,
    rule: String,
    host: Host,
    stream: S,
    flow: &Arc<Flow>,
    mut guard: Option<FlowGuard>,
) -> Option<Verdict>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // The handshake and the first bytes inside have the time that the hello had.
    let due = Instant::now() + proxy.rules().policy.limits().detect();
    let (mut stream, agreed) = match Box::pin(greet(tls, stream, (&host, flow.target.original.port()), due)).await {
        Ok(greeted) => greeted,
        Err(verdict) => {
            let verdict = verdict.by(Some(rule));
            if verdict.reason == Reason::ClientPinned && plain_host(&host.to_string()) == host.to_string() {
                // The decision's own event does not say what to do about it.
                tracing::warn!(comm = ?flow.origin.comm, pid = flow.origin.pid, "{}", verdict.detail);
            }
            if let Some(guard) = &mut guard {
                guard.end(verdict.clone());
            }
            return Some(verdict);
        }
    };
    let mut buffer = BytesMut::new();
    let spoken = match agreed {
        Agreed::Http2 => Protocol::Http2,
        Agreed::Http1 => Protocol::Http1,
        Agreed::Nothing => match detect(&mut stream, &mut buffer, due).await {
            Ok(spoken) => spoken,
            Err(DetectError::Timeout) => return Some(refuse(stream, guard, Reason::DetectTimeout, rule).await),
            Err(DetectError::Closed) => return Some(refuse(stream, guard, Reason::ClientAborted, rule).await),
        },
    };
    // Inside, the name that TLS was opened for stands for all that came before it.
    let target = Target { name: Some(host), original: flow.target.original };
    let flow = Arc::new(Flow { target, ..(**flow).clone() });
    match spoken {
        Protocol::Http1 => {
            carries(&mut guard, "tls-http1");
            http::serve(proxy, stream, buffer, flow, guard, true).await
        }
        Protocol::Http2 => {
            carries(&mut guard, "tls-http2");
            http::serve_http2(proxy, stream, buffer, flow, guard, true).await
        }
        Protocol::Tls | Protocol::Unknown => Some(refuse(stream, guard, Reason::ProtocolUnknown, rule).await),
    }
}

fn carries(guard: &mut Option<FlowGuard>, carrier: &'static str) {
    if let Some(guard) = guard {
        guard.carries(carrier);
    }
}

async fn refuse(
    mut stream: impl AsyncWrite + Unpin,
    guard: Option<FlowGuard>,
    reason: Reason,
    rule: String,
) -> Verdict {
    let detail = match reason {
        Reason::DetectTimeout => "the client said nothing inside TLS",
        Reason::ClientAborted => "the client hung up after the TLS handshake, as some do that pin a certificate",
        _ => "what is inside TLS is not HTTP, and the rule wants it read; set protocol: tls and scan: false to pass it",
    };
    let verdict = Verdict::block(reason, detail).by(Some(rule));
    if let Some(mut guard) = guard {
        guard.end(verdict.clone());
    }
    // A client that does not read must not keep us.
    let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
    verdict
}

#[cfg(test)]
#[path = "intercept_tests.rs"]
pub(super) mod tests;
