//! The proxy for clients that ask for it (`HTTPS_PROXY`): whole URLs over HTTP, and CONNECT. The kernel is not asked here,
//! so a client can go round this door; policy, checks, denials and receipts are those of the transparent one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

use super::authority::{Authority, of_target};
use super::converse::converse;
use super::serve::{Body, Session};
use super::upstream::Carrier;
use crate::flow::{Flow, FlowId, Origin, Reason, Target, Verdict, locked};
use crate::inspect::permit_flow;
use crate::net::connect;
use crate::policy::Protocol;
use crate::proxy::accept::accept;
use crate::proxy::listen::{budget_of, dial_limit, linger};
use crate::proxy::prefixed::Prefixed;
use crate::proxy::rescue;
use crate::proxy::state::Proxy;
use crate::proxy::tunnel::Tunnel;

/// Where the answer to CONNECT leaves the tunnel for the connection.
type Granted = Arc<Mutex<Option<(Tunnel, TcpStream)>>>;

/// Accepts explicit clients until the proxy ends.
pub async fn serve_explicit(listener: TcpListener, proxy: Arc<Proxy>) {
    let serve = |proxy: Arc<Proxy>, stream, peer| async move { connection(&proxy, stream, peer).await };
    let refuse =
        |proxy: Arc<Proxy>, stream, peer, may_wait| async move { turn_away(&proxy, stream, peer, may_wait).await };
    accept(listener, proxy, serve, refuse).await;
}

/// What its requests share; none of them has a flow of the kernel's.
fn session_of(proxy: &Arc<Proxy>, peer: SocketAddr) -> Arc<Session> {
    let origin =
        Origin { cgroup_id: 0, netns_cookie: 0, socket_cookie: 0, pid: 0, tgid: 0, uid: 0, comm: String::new() };
    let flow = Arc::new(Flow {
        id: FlowId(0),
        origin,
        target: Target { name: None, original: peer },
        policy: proxy.rules().policy.id().clone(),
    });
    Session::new(proxy, flow, None, Carrier { is_tls: false, is_http2: false })
}

/// Refuses a connection because there are too many.
async fn turn_away(proxy: &Arc<Proxy>, mut stream: TcpStream, peer: SocketAddr, may_wait: bool) {
    let (session, verdict) = (session_of(proxy, peer), proxy.no_place());
    let policy = proxy.rules().policy.id().clone();
    let status = rescue::status(verdict.reason);
    let target = session.flow.target.authority();
    let record = session.record(&policy, "-".into(), target, &verdict, Some(status.as_u16()), None);
    session.note(&policy, &verdict);
    let _ = proxy.recorder.request(&record).await;
    if may_wait {
        let _ = stream.write_all(&rescue::last_words(&verdict, status, session.flow.id)).await;
        let _ = stream.shutdown().await;
        linger(&mut stream).await;
    }
}

async fn connection(proxy: &Arc<Proxy>, stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let session = session_of(proxy, peer);
    let granted = Granted::default();
    let answer = {
        let granted = granted.clone();
        move |session, request| answer(session, request, granted.clone())
    };
    let ended = Box::pin(converse(&session, stream, BytesMut::new(), true, answer)).await;
    session.end(None);
    let tunnel = locked(&granted).take();
    if let (Some((stream, unread)), Some((tunnel, upstream))) = (ended, tunnel)
        && let Some(cut) = tunnel.carry(proxy, Prefixed::new(unread, stream), upstream).await
    {
        // There is no flow of the kernel's to say it in.
        let policy = proxy.rules().policy.id().clone();
        let target = format!("{}:{}", tunnel.host, tunnel.port);
        let mut record = session.record(&policy, "CONNECT".into(), target, &cut, None, Some(tunnel.dialled));
        record.transport = "connect";
        session.note(&policy, &cut);
        let _ = proxy.recorder.request(&record).await;
    }
}

async fn answer(session: Arc<Session>, request: Request<Incoming>, granted: Granted) -> Response<Body> {
    if request.method() == Method::GET && request.uri().authority().is_none() && request.uri().path() == "/health" {
        return Response::new(Either::Right(Full::new(Bytes::from_static(b"{\"status\":\"ok\"}\n"))));
    }
    let authority = of_target(&request);
    match authority {
        Ok(authority) if request.method() == Method::CONNECT => tunnel(&session, authority, &granted).await,
        authority => session.answer_to(authority, request).await,
    }
}

/// CONNECT: a tunnel that nobody reads, for rules that want nothing read.
async fn tunnel(session: &Session, authority: Authority, granted: &Granted) -> Response<Body> {
    if !session.proxy.recorder.is_writing() {
        let verdict = Verdict::block(Reason::RecorderUnavailable, "evidence is not written");
        return rescue::problem(&verdict, session.flow.id).map(Either::Right);
    }
    let Authority { host, port } = authority;
    let rules = session.proxy.rules();
    let target = format!("{host}:{port}");
    let (verdict, budget) = match rules.policy.find(&host, port) {
        Err(reason) => (Verdict::block(reason, format!("{target} is not allowed")), None),
        Ok(rule) if rule.wants_reading() || rule.protocol() == Protocol::Http => {
            let detail = format!("{} wants the traffic to {target} read", rule.label());
            (Verdict::block(Reason::InspectionUnavailable, detail).by(Some(rule.label())), None)
        }
        Ok(rule) => (Verdict::allow(Reason::PolicyAllow, Some(rule.label())), Some(budget_of(rule))),
    };
    let opened = match permit_flow(&verdict, host.clone(), port) {
        Err(verdict) => Err(verdict),
        Ok(permit) => connect(&permit, &rules.resolver, rules.policy.ssrf_allow(), dial_limit(&rules))
            .await
            .map_err(|error| Verdict::block(error.reason(), error.to_string()).by(verdict.rule.clone())),
    };
    let (verdict, dialled) = match &opened {
        Ok((_, addr)) => (verdict, Some(*addr)),
        Err(denied) => (denied.clone(), None),
    };
    let status = if opened.is_ok() { StatusCode::OK } else { rescue::status(verdict.reason) };
    let mut record =
        session.record(rules.policy.id(), "CONNECT".into(), target, &verdict, Some(status.as_u16()), dialled);
    record.transport = "connect";
    session.note(rules.policy.id(), &verdict);
    if session.proxy.recorder.request(&record).await.is_err() {
        let verdict = Verdict::block(Reason::RecorderUnavailable, "the receipt could not be written");
        return rescue::problem(&verdict, session.flow.id).map(Either::Right);
    }
    match opened {
        Err(denied) => rescue::problem(&denied, session.flow.id).map(Either::Right),
        Ok((upstream, dialled)) => {
            let tunnel = Tunnel {
                host,
                port,
                dialled,
                is_unseen: false,
                rule: verdict.rule.unwrap_or_default(),
                budget: budget.unwrap_or_default(),
                idle: rules.policy.limits().idle(),
            };
            *locked(granted) = Some((tunnel, upstream));
            Response::new(Either::Right(Full::default()))
        }
    }
}

#[cfg(test)]
#[path = "explicit_tests.rs"]
mod tests;
