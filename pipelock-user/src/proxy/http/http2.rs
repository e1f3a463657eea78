//! Runs HTTP/2 on one connection of the agent's: hyper, which frames and checks it (RFC 9113), within our limits.
//!
//! Called by `serve`. It promises that every request is answered in a task of its own, so that its receipt is written even
//! when the agent resets the stream, and that silence ends the connection.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::serve::{Session, internal};
use crate::proxy::idle::Watched;
use crate::proxy::prefixed::Prefixed;

/// Requests under way at a time; what RFC 9113 §6.5.2 calls reasonable.
const MAX_STREAMS: u32 = 100;
/// Bytes of one stream's answer that wait for the agent.
const SEND_BUFFER: usize = 256 * 1024;
/// How much longer silence ends the connection than the request on it, whose answer says so.
const GRACE: Duration = Duration::from_millis(500);

/// Serves requests until either side is done.
pub(super) async fn converse<S>(session: &Arc<Session>, stream: S, prefix: BytesMut)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = session.proxy.rules().policy.limits().clone();
    let watched = Watched::new(Prefixed::new(prefix, stream), &session.activity);
    let service = service_fn({
        let session = session.clone();
        move |request: Request<Incoming>| {
            let session = session.clone();
            // A task of its own: hyper drops the future of a stream that was reset, and the receipt must not go with it.
            let answer = tokio::spawn(async move { session.answer(request).await });
            async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|_| internal())) }
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(watched), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = session.activity.idle(limits.idle() + GRACE) => {
            connection.as_mut().graceful_shutdown();
            return;
        }
    };
    if let Err(error) = ended {
        tracing::debug!(flow = session.flow.id.0, %error, "the HTTP/2 connection was broken off");
    }
}
