//! Runs HTTP/2 on one connection of the agent's: hyper, which frames and checks it (RFC 9113), within our limits.
//!
//! Called by `serve`. It promises that every request is answered in a task of its own, so that its receipt is written even
//! when the agent resets the stream; that streams which are opened and reset in a row (CVE-2023-44487) do not pile up such
//! tasks, and frames that carry nothing do not go on without end; that what hyper refuses by itself has a receipt too; and
//! that silence, or evidence that can no longer be written, ends the connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::{Request, Response};
use http_body_util::Either;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::framing::{Refusal, sound};
use super::pace::Pace;
use super::serve::{Body, Session, internal};
use super::witness::{Untaken, Witness};
use crate::flow::{Reason, Verdict};
use crate::proxy::idle::Watched;
use crate::proxy::listen::LINGER;
use crate::proxy::prefixed::Prefixed;
use crate::proxy::presence::Wanted;
use crate::proxy::rescue;

/// Requests under way at a time; what RFC 9113 §6.5.2 calls reasonable.
const MAX_STREAMS: u32 = 100;
/// Streams that were reset before hyper has taken them, and streams that broke the protocol, until the connection ends.
const MAX_RESET: usize = 20;
const MAX_BROKEN: usize = 128;
/// How much of a head hyper reads, in times of what is allowed: who sends more than that is told why, and who sends still more
/// gets hyper's own answer, so that a hundred of them do not fill the memory.
const READ_ON: usize = 2;
/// Bytes of one stream's answer that wait for the agent.
const SEND_BUFFER: usize = 64 * 1024;
/// How much longer the connection lasts than the request on it that silence or lost evidence ended: its answer says so.
const GRACE: Duration = Duration::from_millis(500);

/// Serves requests until either side is done; what cut the connection, if it was.
pub(super) async fn converse<S>(session: &Arc<Session>, stream: S, prefix: BytesMut) -> Option<Verdict>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = session.proxy.rules().policy.limits().clone();
    let watched = Watched::new(Prefixed::new(prefix, stream), &session.shared.activity);
    // A stream that was reset is none of hyper's any more, but its request may still be under way.
    let places = Arc::new(Semaphore::new(usize::try_from(MAX_STREAMS).unwrap_or(1)));
    let (untaken, pace) = (Untaken::default(), Arc::<Pace>::default());
    let watched = Witness::new(watched, untaken.clone(), &pace, {
        let (session, places, pace) = (session.clone(), places.clone(), pace.clone());
        move |refusal: Refusal, is_answered| match places.clone().try_acquire_owned() {
            Ok(place) => refused(&session, &refusal, is_answered, place),
            // Faster than receipts are written: the last has no place to wait in, so it ends with the connection's own.
            Err(_) => pace.exceed(),
        }
    });
    let max_head = limits.header_bytes;
    let service = service_fn({
        let session = session.clone();
        move |mut request: Request<Incoming>| {
            untaken.take();
            let sound = sound(&request, max_head);
            if sound.is_err() {
                // It may have to wait, and is too long as it is.
                request.headers_mut().clear();
            }
            let (session, places) = (session.clone(), places.clone());
            async move {
                // hyper drops this future with the stream: what is reset while it waits was never looked at.
                let Ok(place) = places.acquire_owned().await else { return Ok(internal()) };
                let Some(answering) = session.proxy.answering() else { return Ok(internal()) };
                let (kept, wanted) = Wanted::new();
                request.extensions_mut().insert(wanted);
                // A task of its own from here on, because the receipt must not go with the stream.
                let answer = tokio::spawn(async move {
                    let _held = (place, answering);
                    match sound {
                        Ok(()) => session.answer(request).await,
                        Err(refusal) => refuse(&session, &refusal, &request).await,
                    }
                });
                let answer = answer.await.unwrap_or_else(|_| internal());
                // Dropped with this future, if not before.
                drop(kept);
                Ok::<_, Infallible>(answer)
            }
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET)
        .max_local_error_reset_streams(MAX_BROKEN)
        // Also bounds how many CONTINUATION frames one head may have.
        .max_header_list_size(u32::try_from(max_head.saturating_mul(READ_ON)).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(watched), service);
    tokio::pin!(connection);
    // What is under way when evidence is lost is told so, and then nothing moves any more.
    let lost = async {
        session.proxy.recorder.lost().await;
        tokio::time::sleep(GRACE).await;
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = session.shared.activity.idle(limits.idle() + GRACE) => {
            connection.as_mut().graceful_shutdown();
            // GOAWAY, and the goodbye of TLS.
            let _ = tokio::time::timeout(LINGER, connection).await;
            return None;
        }
        () = lost => return None,
    };
    if let Err(error) = ended {
        tracing::debug!(flow = session.flow.id.0, %error, "the HTTP/2 connection was broken off");
    }
    let flood = "HTTP/2 frames that carry nothing came without end (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, \
                 empty DATA), or heads that are none";
    pace.is_exceeded().then(|| Verdict::let_out(Reason::LimitExceeded, flood))
}

/// Answers a request whose head HTTP/1.1 would not have let through either, as it is answered there.
async fn refuse(session: &Session, refusal: &Refusal, request: &Request<Incoming>) -> Response<Body> {
    let rules = session.proxy.rules();
    let (method, target, status) = (request.method().to_string(), session.target(request.uri()), refusal.status);
    let mut record = session.record(rules.policy.id(), method, target, &refusal.verdict(), Some(status.as_u16()), None);
    let (verdict, status) = match session.file(&rules, &mut record).await {
        Ok(()) => (refusal.verdict(), status),
        Err(unwritten) => {
            let status = rescue::status(unwritten.reason);
            (unwritten, status)
        }
    };
    rescue::problem_as(&verdict, status, session.flow.id).map(Either::Right)
}

/// Writes the receipt of what hyper refused by itself: with an answer, or by breaking it off.
fn refused(session: &Arc<Session>, refusal: &Refusal, is_answered: bool, place: OwnedSemaphorePermit) {
    let Some(answering) = session.proxy.answering() else { return };
    let rules = session.proxy.rules();
    let (target, status) = (session.place(), is_answered.then(|| refusal.status.as_u16()));
    let mut record = session.record(rules.policy.id(), "-".into(), target, &refusal.verdict(), status, None);
    let session = session.clone();
    tokio::spawn(async move {
        let _held = (place, answering);
        let _ = session.file(&rules, &mut record).await;
    });
}

#[cfg(test)]
#[path = "http2_tests.rs"]
mod tests;
