//! The proxy for clients that ask for it (`HTTPS_PROXY`): whole URLs over HTTP, and CONNECT. The kernel is not asked here,
//! so a client can go round this door; policy, checks, denials and receipts are those of the transparent one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::authority::{Authority, of_target};
use super::serve::{Body, Session, internal};
use crate::flow::{Flow, FlowId, Origin, Reason, Target, Verdict};
use crate::inspect::permit_flow;
use crate::net::connect;
use crate::policy::Protocol;
use crate::proxy::listen::{DIAL_TIMEOUT, Proxy, budget_of};
use crate::proxy::prefixed::Prefixed;
use crate::proxy::pump::pump;
use crate::proxy::rescue;

/// Accepts explicit clients until the listener fails for good.
pub async fn serve_explicit(listener: TcpListener, proxy: Arc<Proxy>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let Some(slot) = proxy.slot().await else { return };
                let proxy = proxy.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = connection(&proxy, stream, peer) => {}
                        () = proxy.closed() => {}
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn connection(proxy: &Arc<Proxy>, stream: TcpStream, peer: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let rules = proxy.rules();
    let limits = rules.policy.limits().clone();
    let origin =
        Origin { cgroup_id: 0, netns_cookie: 0, socket_cookie: 0, pid: 0, tgid: 0, uid: 0, comm: String::new() };
    let flow = Arc::new(Flow {
        id: FlowId(0),
        origin,
        target: Target { name: None, original: peer },
        policy: rules.policy.id().clone(),
    });
    let session = Session::new(proxy, flow, None);
    let service = service_fn(move |request| {
        let session = session.clone();
        async move {
            let answer = tokio::spawn(async move { answer(&session, request).await });
            Ok::<_, Infallible>(answer.await.unwrap_or_else(|_| internal()))
        }
    });
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(limits.request_timeout_seconds.max(1)))
        .max_buf_size(limits.header_bytes.clamp(8192, 1 << 20))
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

async fn answer(session: &Arc<Session>, request: Request<Incoming>) -> Response<Body> {
    if request.method() == Method::GET && request.uri().authority().is_none() && request.uri().path() == "/health" {
        return Response::new(Either::Right(Full::new(Bytes::from_static(b"{\"status\":\"ok\"}\n"))));
    }
    let authority = of_target(request.method(), request.uri(), request.headers());
    match authority {
        Ok(authority) if request.method() == Method::CONNECT => tunnel(session, authority, request).await,
        authority => session.answer_to(authority, request).await,
    }
}

/// CONNECT: a tunnel that nobody reads, for rules that want nothing read.
async fn tunnel(session: &Arc<Session>, authority: Authority, request: Request<Incoming>) -> Response<Body> {
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
    let opened = match permit_flow(&verdict, host, port) {
        Err(verdict) => Err(verdict),
        Ok(permit) => connect(&permit, &rules.resolver, rules.policy.ssrf_allow(), DIAL_TIMEOUT)
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
        Ok((upstream, _)) => {
            let proxy = session.proxy.clone();
            tokio::spawn(async move {
                // The tunnel has a place of its own: the connection's is given back when it is upgraded.
                let Some(_place) = proxy.slot().await else { return };
                let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
                let client = Prefixed::new(BytesMut::new(), TokioIo::new(upgraded));
                tokio::select! {
                    _ = pump(client, upstream, budget.unwrap_or_default()) => {}
                    () = proxy.closed() => {}
                    () = proxy.recorder.lost() => {}
                }
            });
            Response::new(Either::Right(Full::default()))
        }
    }
}
