//! Runs HTTP/1.1 on one connection: hyper, behind the guard that frames its requests.
//!
//! Called by `serve` and `explicit`. It promises that every request is answered in a task of its own, so that its receipt
//! is written even when the agent hangs up; that what could not be read as a request has a receipt and an answer that
//! says why; and that silence, or evidence that can no longer be written, ends the connection.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::explicit::unheard;
use super::framing::{Framing, Refusal};
use super::guarded::{Begun, Guarded, untold};
use super::serve::{Body, Session, internal};
use crate::flow::{Verdict, locked};
use crate::proxy::idle::Watched;
use crate::proxy::listen::{drain, farewell};
use crate::proxy::rescue;

/// What hyper needs beyond the largest head.
const SLACK: usize = 8 * 1024;
/// How much longer the connection lasts than the request on it that silence or lost evidence ended: its answer says so.
const GRACE: Duration = Duration::from_millis(500);

/// Serves requests with `answer` until either side is done. With `tunnels`, an answered CONNECT ends it: then the stream
/// comes back, with what the agent has sent behind the request. As long as its first head is not whole, who has only begun may have
/// to make room for another.
pub(super) async fn converse<S, F, A>(
    session: &Arc<Session>,
    stream: S,
    (prefix, begun): (BytesMut, Option<Begun>),
    tunnels: bool,
    answer: F,
) -> Option<(S, BytesMut)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Arc<Session>, Request<Incoming>) -> A + Send + Sync + Unpin + 'static,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let limits = session.proxy.rules().policy.limits().clone();
    let framing = Framing::new(limits.header_bytes, tunnels);
    let watched = Watched::new(stream, &session.shared.activity);
    let guarded = Guarded::new((prefix, begun), watched, framing, limits.request_timeout(), session.refused.clone());
    let guarded = Arc::new(Mutex::new(guarded));
    let service = service_fn({
        // Not to keep the stream, which comes back.
        let (session, framed) = (session.clone(), Arc::downgrade(&guarded));
        move |mut request: Request<Incoming>| -> Pin<Box<dyn Future<Output = Result<_, Infallible>> + Send>> {
            untold(request.headers_mut());
            if let Some(framed) = framed.upgrade() {
                request.extensions_mut().insert(locked(&framed).left_out());
            }
            let is_connect = request.method() == Method::CONNECT;
            // A task of its own: hyper drops the future when the agent hangs up, and the receipt must not go with it.
            let answer = session.proxy.answering().map(|place| {
                // Boxed, as a task is moved a few times while it is made, and this is some kilobytes.
                let answer = Box::pin(answer(session.clone(), request));
                tokio::spawn(async move {
                    let response = answer.await;
                    drop(place);
                    response
                })
            });
            Box::pin(async move {
                let mut response = match answer {
                    Some(answer) => answer.await.unwrap_or_else(|_| internal()),
                    None => internal(),
                };
                if is_connect && !response.status().is_success() {
                    // Nobody knows what the agent thinks that the bytes behind it are.
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok(response)
            })
        }
    });
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes + SLACK)
        .half_close(true)
        .serve_connection(TokioIo::new(Held(guarded.clone())), service);
    // What is under way when evidence is lost is told so, and then nothing moves any more.
    let lost = async {
        session.proxy.recorder.lost().await;
        tokio::time::sleep(GRACE).await;
    };
    let served = tokio::select! {
        served = poll_fn(|cx| connection.poll_without_shutdown(cx)) => served,
        // hyper does not look while it waits for an answer.
        () = session.shared.presence.look(|cx| locked(&guarded).poll_gone(cx)) => return None,
        () = session.shared.activity.idle(limits.idle() + GRACE) => return None,
        () = lost => return None,
    };
    let parts = connection.into_parts();
    drop(parts.io);
    // hyper's was the other one.
    let guarded = Arc::into_inner(guarded)?.into_inner().ok()?;
    let is_in_body = guarded.is_in_body();
    let (watched, rest) = guarded.into_parts();
    let mut stream = watched.into_inner();
    let refusal = match &served {
        // Nothing that `framing` lets through should come to this; if it does, hyper has given an answer of its own.
        Err(error) if error.is_parse() => {
            let _ = record(session, &Refusal::malformed("the request cannot be read")).await;
            return None;
        }
        _ => session.refused.of_head(),
    };
    match refusal {
        // Answered before it was whole, and not read any further.
        None if is_in_body => {
            tokio::select! {
                () = drain(&mut stream) => {}
                // What ends a connection that is served ends this too; nobody waits for its rest.
                () = session.proxy.recorder.lost() => {}
                () = session.shared.activity.idle(limits.idle() + GRACE) => {}
            }
            None
        }
        None => {
            let mut unread = BytesMut::from(&parts.read_buf[..]);
            unread.extend_from_slice(&rest);
            served.is_ok().then_some((stream, unread))
        }
        Some(refusal) if refusal == Refusal::makes_room() => {
            // The other waits for the place, so nothing here waits for the client.
            let _ = session.proxy.recorder.submit(&unheard(session, &refusal.verdict())).await;
            None
        }
        Some(refusal) => {
            refuse(session, &mut stream, &refusal).await;
            None
        }
    }
}

/// The agent's side, which hyper reads and [`converse`] looks at: both in one task, so neither waits for the other.
struct Held<S>(Arc<Mutex<Guarded<S>>>);

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *locked(&self.0)).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *locked(&self.0)).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *locked(&self.0)).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        locked(&self.0).is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *locked(&self.0)).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *locked(&self.0)).poll_shutdown(cx)
    }
}

/// Ends a connection for what cannot be read as a request, with the receipt and an answer.
pub(super) async fn refuse(session: &Session, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), refusal: &Refusal) {
    let (verdict, status) = record(session, refusal).await;
    farewell(stream, &rescue::last_words(&verdict, status, session.flow.id)).await;
}

/// Writes the receipt of what could not be read as a request; what to answer.
async fn record(session: &Session, refusal: &Refusal) -> (Verdict, StatusCode) {
    let rules = session.proxy.rules();
    let verdict = refusal.verdict();
    let target = session.place();
    let mut record =
        session.record(rules.policy.id(), "-".into(), target, &verdict, Some(refusal.status.as_u16()), None);
    match session.file(&rules, &mut record).await {
        Ok(()) => (verdict, refusal.status),
        Err(unwritten) => {
            let status = rescue::status(unwritten.reason);
            (unwritten, status)
        }
    }
}
