//! The connection to the destination: one per agent connection and authority, kept while the agent keeps its own.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::authority::Authority;
use crate::flow::{Reason, Verdict};
use crate::inspect::Permit;
use crate::net::connect;
use crate::proxy::listen::{DIAL_TIMEOUT, Rules};

/// How long the destination may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// A kept connection.
pub(super) struct Upstream {
    authority: Authority,
    sender: http1::SendRequest<Incoming>,
    /// The address that was checked and dialled.
    pub(super) addr: SocketAddr,
}

/// Sends a request, on the kept connection if it fits and still stands. The error of a request whose bytes may have left
/// names the address, and its verdict says that they were let out.
pub(super) async fn send(
    kept: &mut Option<Upstream>,
    permit: &Permit,
    authority: &Authority,
    rules: &Rules,
    request: Request<Incoming>,
) -> Result<(Response<Incoming>, SocketAddr), (Verdict, Option<SocketAddr>)> {
    let mut request = request;
    if let Some(mut upstream) = kept.take().filter(|upstream| upstream.authority == *authority)
        && upstream.sender.ready().await.is_ok()
    {
        match tokio::time::timeout(ANSWER_TIMEOUT, upstream.sender.try_send_request(request)).await {
            Ok(Ok(response)) => {
                let addr = upstream.addr;
                *kept = Some(upstream);
                return Ok((response, addr));
            }
            Ok(Err(mut error)) => match error.take_message() {
                // The connection had closed while it was idle: nothing of the request has left.
                Some(unsent) => request = unsent,
                None => return Err(broken(&error.into_error(), upstream.addr)),
            },
            Err(_) => return Err(late(upstream.addr)),
        }
    }
    let (stream, addr) = connect(permit, &rules.resolver, rules.policy.ssrf_allow(), DIAL_TIMEOUT)
        .await
        .map_err(|error| (Verdict::block(error.reason(), error.to_string()), None))?;
    let (mut sender, connection) =
        http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error, addr))?;
    tokio::spawn(connection);
    let response = tokio::time::timeout(ANSWER_TIMEOUT, sender.send_request(request))
        .await
        .map_err(|_| late(addr))?
        .map_err(|error| broken(&error, addr))?;
    *kept = Some(Upstream { authority: authority.clone(), sender, addr });
    Ok((response, addr))
}

fn broken(error: &hyper::Error, addr: SocketAddr) -> (Verdict, Option<SocketAddr>) {
    (Verdict::let_out(Reason::UpstreamFailed, error.to_string()), Some(addr))
}

fn late(addr: SocketAddr) -> (Verdict, Option<SocketAddr>) {
    (Verdict::let_out(Reason::UpstreamFailed, "the destination did not answer in time"), Some(addr))
}
