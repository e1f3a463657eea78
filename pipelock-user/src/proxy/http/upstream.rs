//! The connection to the destination: one per agent connection and authority, kept while the agent keeps its own.
//! Promises that none is used under another policy than the one that it was opened under.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::authority::Authority;
use crate::flow::{PolicyId, Reason, Verdict};
use crate::inspect::Permit;
use crate::net::connect;
use crate::proxy::idle::{Activity, Watched};
use crate::proxy::listen::dial_limit;
use crate::proxy::meter::{Meter, Metered};
use crate::proxy::state::Rules;

/// The smallest buffer that hyper takes for a head.
const MIN_BUFFER: usize = 8192;

/// A kept connection.
pub(super) struct Upstream {
    authority: Authority,
    /// The policy that allowed it, and checked the address.
    policy: PolicyId,
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
    activity: &Arc<Activity>,
    meter: &Arc<Meter>,
) -> Result<(Response<Incoming>, SocketAddr), (Verdict, Option<SocketAddr>)> {
    let mut request = request;
    let limits = rules.policy.limits();
    let is_fit = |upstream: &Upstream| upstream.authority == *authority && upstream.policy == *rules.policy.id();
    if let Some(mut upstream) = kept.take().filter(is_fit)
        && upstream.sender.ready().await.is_ok()
    {
        let sent = tokio::select! {
            sent = upstream.sender.try_send_request(request) => sent,
            () = activity.idle(limits.idle()) => return Err(late(upstream.addr)),
        };
        match sent {
            Ok(response) => {
                let addr = upstream.addr;
                *kept = Some(upstream);
                return Ok((response, addr));
            }
            Err(mut error) => match error.take_message() {
                // The connection had closed while it was idle: nothing of the request has left.
                Some(unsent) => request = unsent,
                None => return Err(broken(&error.into_error(), upstream.addr)),
            },
        }
    }
    let (stream, addr) = connect(permit, &rules.resolver, rules.policy.ssrf_allow(), dial_limit(rules))
        .await
        .map_err(|error| (Verdict::block(error.reason(), error.to_string()), None))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER))
        .handshake(TokioIo::new(Metered::new(Watched::new(stream, activity), meter)))
        .await
        .map_err(|error| broken(&error, addr))?;
    tokio::spawn(connection);
    let response = tokio::select! {
        response = sender.send_request(request) => response.map_err(|error| broken(&error, addr))?,
        () = activity.idle(limits.idle()) => return Err(late(addr)),
    };
    let policy = rules.policy.id().clone();
    *kept = Some(Upstream { authority: authority.clone(), policy, sender, addr });
    Ok((response, addr))
}

fn broken(error: &hyper::Error, addr: SocketAddr) -> (Verdict, Option<SocketAddr>) {
    (Verdict::let_out(Reason::UpstreamFailed, error.to_string()), Some(addr))
}

fn late(addr: SocketAddr) -> (Verdict, Option<SocketAddr>) {
    (Verdict::let_out(Reason::IdleTimeout, "neither the request nor its answer went on"), Some(addr))
}
