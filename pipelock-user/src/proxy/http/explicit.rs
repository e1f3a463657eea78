//! The proxy for clients that ask for it (`HTTPS_PROXY`): whole URLs over HTTP, and CONNECT. The kernel is not asked here,
//! so a client can go round this door; policy, checks, denials and receipts are those of the transparent one.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::authority::{Authority, of_target, without_query};
use super::converse::{converse, refuse};
use super::doors;
use super::framing::Refusal;
use super::gate::{Gate, challenge, is_door, unidentified};
use super::headers::without;
use super::inside::Inside;
use super::serve::{Body, Session};
use super::upstream::Carrier;
use crate::flow::{Flow, FlowId, Origin, Reached, Reason, Target, Verdict, locked};
use crate::inspect::{Permit, permit_flow};
use crate::net::{Link, connect};
use crate::policy::Protocol as RuleProtocol;
use crate::proxy::accept::accept;
use crate::proxy::ask;
use crate::proxy::detect::{DetectError, Protocol};
use crate::proxy::listen::{dial_limit, farewell};
use crate::proxy::meter::{Budget, Meter};
use crate::proxy::prefixed::Prefixed;
use crate::proxy::rescue;
use crate::proxy::silent::Silent;
use crate::proxy::state::{Proxy, Rules};
use crate::proxy::tunnel::{Tunnel, shows_name};
use crate::recorder::RequestRecord;

/// What an answered CONNECT was granted, or a request for a WebSocket.
pub(super) enum Grant {
    /// A tunnel.
    Tunnel(Box<Inside>),
    /// A WebSocket, by what asked for it.
    Socket(Arc<Session>),
}

/// Where the answer leaves it for the connection.
pub(super) type Granted = Arc<Mutex<Option<Grant>>>;

/// Accepts explicit clients until the proxy ends.
pub async fn serve_explicit(listener: TcpListener, proxy: Arc<Proxy>, gate: Arc<Gate>) {
    let serve = move |proxy: Arc<Proxy>, stream, peer, silent| {
        let gate = gate.clone();
        async move { connection(&proxy, gate, stream, peer, silent).await }
    };
    let refuse = |proxy: Arc<Proxy>, stream, peer, may_wait| async move {
        turn_away("forward", &proxy, stream, peer, may_wait).await
    };
    accept(listener, proxy, serve, refuse).await;
}

/// What its requests share; none of them has a flow of the kernel's.
pub(super) fn flow_of(proxy: &Arc<Proxy>, peer: SocketAddr) -> Arc<Flow> {
    let origin = Origin { peer: Some(peer), ..Origin::unseen() };
    Arc::new(Flow {
        id: FlowId(0),
        origin,
        // Each request says it anew.
        target: Target { name: None, original: (Ipv4Addr::UNSPECIFIED, 0).into() },
        policy: proxy.rules().policy.id().clone(),
    })
}

pub(super) fn session_of(transport: &'static str, proxy: &Arc<Proxy>, peer: SocketAddr) -> Arc<Session> {
    Session::by(transport, proxy, flow_of(proxy, peer), None, Carrier { is_tls: false, is_http2: false })
}

/// Refuses a connection because there are too many.
pub(super) async fn turn_away(
    transport: &'static str,
    proxy: &Arc<Proxy>,
    mut stream: TcpStream,
    peer: SocketAddr,
    may_wait: bool,
) {
    let (session, verdict) = (session_of(transport, proxy, peer), proxy.no_place());
    let mut record = unheard(&session, &verdict);
    if !may_wait {
        // Whoever accepts waits for room in the queue, and not for the disk.
        let _ = proxy.recorder.submit(&record).await;
        return;
    }
    let _ = session.file(&proxy.rules(), &mut record).await;
    let words = rescue::last_words(&verdict, rescue::status(verdict.reason), session.flow.id);
    farewell(&mut stream, &words).await;
}

/// The receipt of a connection that is refused whatever it asks for.
pub(super) fn unheard(session: &Session, verdict: &Verdict) -> RequestRecord {
    let policy = session.proxy.rules().policy.id().clone();
    let status = rescue::status(verdict.reason).as_u16();
    session.record(&policy, "-".into(), session.place(), verdict, Some(status), None)
}

/// Waits for a client's first words, as long as it may take for them and nobody needs its place; they are in `buffer` then. When
/// the whole line that they begin has to be there; none when that was the end of it.
pub(super) async fn speaks(
    session: &Session,
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    silent: &mut Silent,
) -> Option<Instant> {
    let _ = stream.set_nodelay(true);
    let due = Instant::now() + session.proxy.rules().policy.limits().detect();
    let refusal = match silent.first(stream, buffer, due).await {
        None => {
            let _ = session.proxy.recorder.submit(&unheard(session, &Proxy::makes_room())).await;
            return None;
        }
        Some(Err(DetectError::Timeout)) => Refusal::no_line(),
        // More of it may never come: who speaks first in another protocol waits for an answer in that.
        Some(Ok(Protocol::Tls)) => {
            Refusal::malformed("the client speaks TLS, and this door plain HTTP/1.1: http:// is its scheme")
        }
        Some(Ok(Protocol::Http2)) => Refusal::malformed("the client speaks HTTP/2, and this door HTTP/1.1"),
        Some(Ok(Protocol::Unknown)) => Refusal::malformed("the first bytes are no request of HTTP/1.1"),
        // Also who has hung up: what has come may be half a request.
        Some(Ok(Protocol::Http1) | Err(DetectError::Closed)) => {
            session.shared.activity.touch();
            return Some(due);
        }
    };
    refuse(session, stream, &refusal).await;
    None
}

async fn connection(proxy: &Arc<Proxy>, gate: Arc<Gate>, mut stream: TcpStream, peer: SocketAddr, mut silent: Silent) {
    let session = session_of("forward", proxy, peer);
    let mut buffer = BytesMut::new();
    let Some(due) = speaks(&session, &mut stream, &mut buffer, &mut silent).await else { return };
    let granted = Granted::default();
    let answer = {
        let granted = granted.clone();
        move |session, request| admit(session, request, gate.clone(), granted.clone())
    };
    let ended = Box::pin(converse(&session, stream, (buffer, Some((silent, due))), true, answer)).await;
    session.add_cut(session.end(None), "body").await;
    let granted = locked(&granted).take();
    let (Some((stream, unread)), Some(granted)) = (ended, granted) else { return };
    let (end, target, dialled) = match granted {
        Grant::Tunnel(inside) => {
            let target = format!("{}:{}", inside.authority.host, inside.authority.port);
            let dialled = inside.unread.as_ref().map(|(tunnel, _)| tunnel.dialled.clone());
            (Box::pin(inside.serve(proxy, &session.identified(), stream, unread)).await, target, dialled)
        }
        Grant::Socket(asked) => {
            let cut = asked.carry_on(Prefixed::new(unread, stream)).await;
            return asked.add_cut(cut, "messages").await;
        }
    };
    if let Some(end) = end {
        // There is no flow of the kernel's to say it in.
        let _ = file(&session, &proxy.rules(), target, (&end, None, dialled)).await;
    }
}

/// Writes the receipt of a CONNECT, or of what ended its tunnel; its verdict as it may be told, else the one to tell instead.
async fn file(
    session: &Session,
    rules: &Rules,
    target: String,
    (verdict, status, dialled): (&Verdict, Option<StatusCode>, Option<Reached>),
) -> Result<Verdict, Verdict> {
    let status = status.map(|status| status.as_u16());
    let record = session.record(rules.policy.id(), "CONNECT".into(), target, verdict, status, dialled);
    let mut record = RequestRecord { transport: "connect", ..record };
    session.file(rules, &mut record).await.map(|()| record.verdict)
}

/// Answers those that the gate lets in.
async fn admit(
    session: Arc<Session>,
    mut request: Request<Incoming>,
    gate: Arc<Gate>,
    granted: Granted,
) -> Response<Body> {
    let is_for_all = doors::is_for_all(&request);
    let admitted = if is_for_all { gate.admit_all(&request).map(|()| None) } else { gate.admit(&request) };
    let denied = match admitted.and_then(|identity| session.identify(identity)) {
        Ok(()) if is_for_all => return doors::health(&session).map(Either::Right),
        Ok(()) => {
            // It was for us, and is nobody else's business: the scanner's neither.
            let is_shown = request.headers().contains_key(header::PROXY_AUTHORIZATION);
            let is_other = !is_shown && gate.is_closed() && is_door(&request);
            without(request.headers_mut(), |name| {
                *name == header::PROXY_AUTHORIZATION || is_other && *name == header::AUTHORIZATION
            });
            return answer(session, &gate, request, granted).await;
        }
        Err(denied) => denied,
    };
    let (is_door, target) = (is_door(&request), without_query(request.uri()));
    let transport = match request.method() {
        _ if is_door => "door",
        &Method::CONNECT => "connect",
        _ => "forward",
    };
    let needs_identity = denied.reason == Reason::IdentityRequired;
    let status = if needs_identity { unidentified(is_door).0 } else { rescue::status(denied.reason) };
    let told = session.tell(transport, request.method().as_str(), &target, denied, status).await;
    let mut response = rescue::problem(&told, session.flow.id);
    if told.reason == Reason::IdentityRequired {
        challenge(&mut response, is_door);
        // A connection is one client's: another opens one of its own, and a pool of them does so when this one ends.
        if session.identified().origin.identity.is_some() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    response.map(Either::Right)
}

async fn answer(session: Arc<Session>, gate: &Gate, request: Request<Incoming>, granted: Granted) -> Response<Body> {
    let request = match doors::answer(&session, gate, request, &granted).await {
        Ok(answer) => return answer,
        Err(request) => request,
    };
    let authority = of_target(&request);
    match authority {
        Ok(authority) if request.method() == Method::CONNECT => tunnel(&session, authority, &granted).await,
        authority => session.answer_to(authority, request).await,
    }
}

/// CONNECT: a tunnel. Where nobody reads what is inside, the destination is reached first, so that the answer can say why it is not.
async fn tunnel(session: &Session, authority: Authority, granted: &Granted) -> Response<Body> {
    if !session.proxy.recorder.is_writing() {
        let verdict = Verdict::block(Reason::RecorderUnavailable, "evidence is not written");
        return rescue::problem(&verdict, session.flow.id).map(Either::Right);
    }
    let Authority { host, port } = authority;
    let rules = session.proxy.rules();
    let target = format!("{host}:{port}");
    let (verdict, passing) = match rules.policy.find(&host, port) {
        Err(reason) => (rules.policy.refuse(&host, port, reason), None),
        Ok(rule) if rule.wants_reading() || rule.protocol() == RuleProtocol::Http => {
            let verdict = Verdict::allow(Reason::PolicyAllow, Some(rule.label()));
            return grant(session, &rules, (Authority { host, port }, verdict), granted).await;
        }
        Ok(rule) => (Verdict::allow(Reason::PolicyAllow, Some(rule.label())), Some(rule)),
    };
    let meter_of = |rule| session.shared.meter(&session.proxy, &rules.policy, (rule, &host), &session.identified());
    let meter = passing.map(meter_of);
    let admitted = meter.as_ref().map_or(Ok(()), |meter| meter.admit());
    let mut permitted = admitted.map_err(|denied| denied.by(verdict.rule.clone()));
    let mut verdict = verdict;
    if let (Ok(()), Some(rule)) = (&permitted, passing) {
        let flow = session.identified();
        match ask::connection(&session.proxy, &rules, (rule, &flow), target.clone(), session.deserted()).await {
            Ok(asked) => verdict.asked = asked,
            Err(denied) => permitted = Err(denied),
        }
    }
    let opened = match permitted.and_then(|()| permit_flow(&verdict, host.clone(), port)) {
        Err(verdict) => Err(verdict),
        Ok(permit) => {
            // Where other protocols may come too, it is checked when it is seen.
            let is_tls = passing.is_some_and(|rule| rule.protocol() == RuleProtocol::Tls);
            reach(session, &rules, &permit, is_tls).await.map_err(|denied| denied.by(verdict.rule.clone()))
        }
    };
    let (verdict, dialled) = match &opened {
        Ok((_, reached)) => (verdict, Some(reached.clone())),
        Err(denied) => (denied.clone(), None),
    };
    let status = if opened.is_ok() { StatusCode::OK } else { rescue::status(verdict.reason) };
    let verdict = match file(session, &rules, target, (&verdict, Some(status), dialled)).await {
        Ok(told) => told,
        Err(unwritten) => return rescue::problem(&unwritten, session.flow.id).map(Either::Right),
    };
    match opened {
        Err(_) => rescue::problem(&verdict, session.flow.id).map(Either::Right),
        Ok((upstream, dialled)) => {
            let rule = verdict.rule.unwrap_or_default();
            let tunnel = Tunnel {
                host: host.clone(),
                port,
                dialled,
                is_unseen: passing.is_some_and(|rule| matches!(rule.protocol(), RuleProtocol::Tcp | RuleProtocol::Ssh)),
                rule: rule.clone(),
                policy: rules.policy.id().clone(),
                meter: meter.unwrap_or_else(|| Meter::new(Budget::default())),
                idle: rules.policy.limits().idle(),
            };
            let inside = Inside { authority: Authority { host, port }, rule, unread: Some((tunnel, upstream)) };
            *locked(granted) = Some(Grant::Tunnel(Box::new(inside)));
            Response::new(Either::Right(Full::default()))
        }
    }
}

/// Connects to where a tunnel goes.
async fn reach(session: &Session, rules: &Rules, permit: &Permit, is_tls: bool) -> Result<(Link, Reached), Verdict> {
    let limit = dial_limit(rules);
    let due = Instant::now() + limit;
    let connected = connect(permit, rules.way(), limit).await;
    let (upstream, dialled) = connected.map_err(|error| Verdict::block(error.reason(), error.to_string()))?;
    if !is_tls {
        return Ok((upstream, dialled));
    }
    Ok((shows_name(&session.proxy, rules, permit, (upstream, &dialled), due).await?, dialled))
}

/// Says yes to a tunnel whose requests are read; where it goes is seen when the first of them is known.
async fn grant(
    session: &Session,
    rules: &Rules,
    (authority, verdict): (Authority, Verdict),
    granted: &Granted,
) -> Response<Body> {
    let target = format!("{}:{}", authority.host, authority.port);
    if let Err(unwritten) = file(session, rules, target, (&verdict, Some(StatusCode::OK), None)).await {
        return rescue::problem(&unwritten, session.flow.id).map(Either::Right);
    }
    let inside = Inside { authority, rule: verdict.rule.unwrap_or_default(), unread: None };
    *locked(granted) = Some(Grant::Tunnel(Box::new(inside)));
    Response::new(Either::Right(Full::default()))
}

#[cfg(test)]
#[path = "explicit_tests.rs"]
mod tests;
