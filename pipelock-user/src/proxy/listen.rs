//! Accepts what the kernel redirected, finds out who opened it and where it was going, and hands it to the protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::flow::{Flow, FlowGuard, Host, Reason, Verdict};
use crate::inspect::permit_flow;
use crate::net::connect;
use crate::policy::{Protocol as RuleProtocol, Rule};
use crate::proxy::accept::accept;
use crate::proxy::ask;
use crate::proxy::counts::{COUNTS, Transport};
use crate::proxy::detect::{Protocol, detect, unknown};
use crate::proxy::intercept::intercept;
use crate::proxy::meter::{Budget, Meter};
use crate::proxy::prefixed::Prefixed;
use crate::proxy::presence::gone;
use crate::proxy::ration::{AGENT, Ration, Whose};
use crate::proxy::silent::Silent;
use crate::proxy::state::{Proxy, Rules};
use crate::proxy::tunnel::{Tunnel, shows_name};
use crate::proxy::{http, rescue, tls};

/// How long an agent that still sends may keep us from closing after the last answer.
pub(super) const LINGER: Duration = Duration::from_millis(500);
/// How much of a body that nobody reads is taken in behind its answer, how long that may take, and how long the client may be silent
/// meanwhile: most clients send all of a body before they read, and a reset would overtake the answer.
const DRAIN_BYTES: u64 = 64 << 20;
const DRAIN: Duration = Duration::from_secs(10);
const DRAIN_SILENT: Duration = Duration::from_secs(1);
/// How many connections are taken in so at a time; others end at once.
const MOST_DRAINS: usize = 64;
static DRAINS: Semaphore = Semaphore::const_new(MOST_DRAINS);
/// How long one that finds no place may take to show what it speaks: clients that speak first do at once.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long finding and dialling a destination may take, and asking it for its certificate where that is due.
const DIAL_TIMEOUT: Duration = Duration::from_secs(15);

/// Accepts what the kernel redirects. `netns` is the cookie of the namespace the listener is in.
pub async fn serve(listener: TcpListener, netns: u64, proxy: Arc<Proxy>) {
    let serve = move |proxy: Arc<Proxy>, stream, peer, silent| async move {
        connection(&proxy, stream, peer, netns, silent).await
    };
    let refuse = move |proxy: Arc<Proxy>, stream, peer, may_wait| async move {
        turn_away(&proxy, stream, peer, netns, may_wait).await
    };
    accept(listener, proxy, serve, refuse).await;
}

async fn connection(proxy: &Arc<Proxy>, stream: TcpStream, peer: SocketAddr, netns: u64, silent: Silent) {
    let Some((flow, guard)) = identify(proxy, &stream, peer, netns) else { return };
    // Whatever ended it, the flow's guard has said so.
    let _ = Box::pin(converse(proxy, stream, &flow, guard, silent)).await;
}

/// The flow of a connection, taken; none when it is none that could be accounted for, and then the connection is cut.
fn identify(proxy: &Proxy, stream: &TcpStream, peer: SocketAddr, netns: u64) -> Option<(Arc<Flow>, FlowGuard)> {
    if !proxy.recorder.is_writing() {
        reset(stream);
        return None;
    }
    let Some(flow) = proxy.origins.take(netns, peer) else {
        COUNTS.without_origin.add(Transport::Tcp);
        tracing::warn!(%peer, reason = %Reason::NoOrigin, "a connection that no flow accounts for was dropped");
        reset(stream);
        return None;
    };
    let Some(guard) = FlowGuard::open(proxy.account.clone(), flow.id) else {
        reset(stream);
        return None;
    };
    let _ = stream.set_nodelay(true);
    Some((Arc::new(flow), guard))
}

/// Refuses a connection because there are too many.
async fn turn_away(proxy: &Proxy, stream: TcpStream, peer: SocketAddr, netns: u64, may_wait: bool) {
    let Some((flow, mut guard)) = identify(proxy, &stream, peer, netns) else { return };
    let verdict = proxy.no_place();
    if let Some(name) = &flow.target.name {
        guard.names(name.clone());
    }
    guard.end(verdict.clone());
    if may_wait { dismiss(stream, &flow, &verdict).await } else { reset(&stream) }
}

/// Ends a connection whatever it says, with the reason in what it speaks if that shows soon.
async fn dismiss(mut stream: TcpStream, flow: &Flow, verdict: &Verdict) {
    let due = Instant::now() + LAST_WORDS;
    let spoken = detect(&mut stream, &mut BytesMut::new(), due).await.ok();
    refuse_in(spoken, &mut stream, flow, verdict).await;
}

/// Ends a connection with the reason in what it speaks; who speaks nothing that has words for it is reset.
pub(super) async fn refuse_in(spoken: Option<Protocol>, stream: &mut TcpStream, flow: &Flow, verdict: &Verdict) {
    match spoken {
        Some(Protocol::Http1) => {
            farewell(stream, &rescue::last_words(verdict, rescue::status(verdict.reason), flow.id)).await;
        }
        Some(Protocol::Tls) => farewell(stream, &tls::alert_access_denied()).await,
        Some(Protocol::Http2 | Protocol::Unknown) | None => reset(stream),
    }
}

/// Says the last words to a client, which need not read them.
pub(super) async fn farewell(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), words: &[u8]) {
    let told = async { (stream.write_all(words).await, stream.shutdown().await) };
    let _ = tokio::time::timeout(LINGER, told).await;
    linger(stream).await;
}

/// Speaks with the agent; the verdict that ended the flow, unless its requests have said theirs.
async fn converse(
    proxy: &Arc<Proxy>,
    mut stream: TcpStream,
    flow: &Arc<Flow>,
    mut guard: FlowGuard,
    mut silent: Silent,
) -> Option<Verdict> {
    let rules = proxy.rules();
    guard.decided_by(rules.policy.id());
    let port = flow.target.original.port();
    if let Some(name) = &flow.target.name {
        guard.names(name.clone());
    }
    if flow.target.name.is_none() && proxy.origins.is_stale(flow.target.original.ip()) {
        // Whatever name the bytes say, it was for another run's name that the agent took this address.
        let detail = format!("{} was not given out for any name; ask DNS again", flow.target.original.ip());
        return Some(refuse(stream, guard, Verdict::block(Reason::NameMissing, detail)));
    }
    // What is known without reading a byte; a literal address without a rule may still be named by SNI or Host.
    let known = flow.target.name.clone().unwrap_or_else(|| Host::from(flow.target.original.ip()));
    let rule = rules.policy.find(&known, port);
    if let Ok(rule) = &rule
        && matches!(rule.protocol(), RuleProtocol::Tcp | RuleProtocol::Ssh)
    {
        guard.carries(if rule.protocol() == RuleProtocol::Ssh { "ssh" } else { "tcp" });
        // The destination may be the first to speak.
        drop(silent);
        return Some(pass(proxy, &rules, (rule, flow), known, stream, (BytesMut::new(), port), guard).await);
    }
    if let (Some(_), Err(reason)) = (&flow.target.name, &rule) {
        // Named by DNS and not allowed on this port: there is nothing the bytes could change.
        let verdict = rules.policy.refuse(&known, port, *reason);
        return Some(refuse(stream, guard, verdict));
    }
    if let Err(reason) = &rule
        && !rules.policy.names_on(port)
    {
        // Nor is there a name that the bytes could say.
        let verdict = rules.policy.refuse(&known, port, *reason);
        guard.end(verdict.clone());
        dismiss(stream, flow, &verdict).await;
        return Some(verdict);
    }
    let mut buffer = BytesMut::with_capacity(4096);
    let due = Instant::now() + rules.policy.limits().detect();
    let detected = silent.first(&mut stream, &mut buffer, due).await;
    drop(silent);
    let protocol = match detected {
        None => return Some(refuse(stream, guard, Proxy::makes_room())),
        Some(Err(error)) => return Some(refuse(stream, guard, error.verdict())),
        Some(Ok(protocol)) => protocol,
    };
    match protocol {
        // Also on a rule for TLS alone: there the answer is a denial that the client can read.
        Protocol::Http1 => {
            guard.carries("http1");
            http::serve(proxy, stream, buffer, flow.clone(), Some(guard), false).await
        }
        Protocol::Tls => {
            guard.carries("tls");
            pass_tls(proxy, stream, (buffer, due), flow, guard).await
        }
        Protocol::Http2 => {
            guard.carries("http2");
            http::serve_http2(proxy, stream, buffer, flow.clone(), Some(guard), false).await
        }
        Protocol::Unknown => Some(refuse(stream, guard, unknown(&buffer))),
    }
}

/// TLS that no rule wants read goes through; other is opened. The verdict, unless its requests have said theirs.
async fn pass_tls(
    proxy: &Arc<Proxy>,
    mut stream: TcpStream,
    (mut buffer, due): (BytesMut, Instant),
    flow: &Arc<Flow>,
    mut guard: FlowGuard,
) -> Option<Verdict> {
    let verdict = match tls::sniff(&mut stream, &mut buffer, due).await {
        Err(error) => Err(error.verdict()),
        Ok(hello) => name_of(proxy, flow, hello.name.clone()).map(|host| (host, hello)),
    };
    let (host, hello) = match verdict {
        Ok(known) => known,
        Err(verdict) => return Some(refuse_tls(stream, guard, verdict).await),
    };
    guard.names(host.clone());
    let port = flow.target.original.port();
    let rules = proxy.rules();
    guard.decided_by(rules.policy.id());
    let rule = match rules.policy.find(&host, port) {
        Ok(rule) => rule,
        Err(reason) => {
            let verdict = rules.policy.refuse(&host, port, reason);
            return Some(refuse_tls(stream, guard, verdict).await);
        }
    };
    if let Some(unfit) = rule.unfit(true) {
        let verdict = Verdict::block(Reason::ProtocolUnknown, unfit).by(Some(rule.label()));
        return Some(refuse_tls(stream, guard, verdict).await);
    }
    if rule.wants_reading() {
        // A hello that hides another one is met as the name it shows: whoever wanted another hangs up.
        let Some(tls) = &rules.tls else {
            let detail = format!("{} wants TLS to {host}:{port} read", rule.label());
            let verdict = Verdict::block(Reason::InspectionUnavailable, detail).by(Some(rule.label()));
            return Some(refuse_tls(stream, guard, verdict).await);
        };
        let label = rule.label();
        return Box::pin(intercept(proxy, tls, label, host, Prefixed::new(buffer, stream), flow, Some(guard))).await;
    }
    // Last, so that a client which sends the extension at random (GREASE) is told of it only where nothing else is wrong.
    if let Err(verdict) = hello.shows_all(&host) {
        return Some(refuse_tls(stream, guard, verdict.by(Some(rule.label()))).await);
    }
    Some(pass(proxy, &rules, (rule, flow), host, stream, (buffer, port), guard).await)
}

/// The one name of a TLS connection out of DNS, SNI and the address; they must not disagree.
fn name_of(proxy: &Arc<Proxy>, flow: &Flow, sni: Option<Host>) -> Result<Host, Verdict> {
    let address = Host::from(flow.target.original.ip());
    match (&flow.target.name, sni) {
        (Some(asked), Some(sni)) if *asked == sni => Ok(sni),
        (Some(asked), Some(sni)) => {
            Err(Verdict::block(Reason::NameMismatch, format!("DNS was asked for {asked}, TLS says {sni}")))
        }
        (Some(asked), None) => Ok(asked.clone()),
        (None, Some(sni)) => {
            let given = proxy.origins.names_of(flow.target.original.ip());
            if !given.is_empty() && !given.contains(&sni) {
                return Err(Verdict::block(
                    Reason::NameMismatch,
                    format!("{} was not given out for {sni}", flow.target.original.ip()),
                ));
            }
            Ok(sni)
        }
        (None, None) if proxy.rules().policy.find(&address, flow.target.original.port()).is_ok() => Ok(address),
        (None, None) => Err(Verdict::block(
            Reason::NameMissing,
            format!("TLS to {} without a server name, and no rule for the address", flow.target.original),
        )),
    }
}

/// Connects and moves bytes unread.
async fn pass(
    proxy: &Arc<Proxy>,
    rules: &Rules,
    (rule, flow): (&Rule, &Flow),
    host: Host,
    stream: TcpStream,
    (mut buffer, port): (BytesMut, u16),
    mut guard: FlowGuard,
) -> Verdict {
    if !proxy.recorder.is_writing() {
        return refuse(stream, guard, Verdict::block(Reason::RecorderUnavailable, "evidence is not written"));
    }
    let allowed = Verdict::allow(Reason::PolicyAllow, Some(rule.label()));
    let permit = match permit_flow(&allowed, host.clone(), port) {
        Ok(permit) => permit,
        Err(verdict) => return refuse(stream, guard, verdict),
    };
    let own = rules.policy.rates().connection.map(|rates| Ration::new(Whose::Connection, rates));
    let rations = proxy.rations.of_all(&rules.policy, rule, AGENT.to_owned(), own);
    let meter = Meter::rationed(budget_of(rule), rations).and(proxy.rations.of_name(&rules.policy, &host));
    if let Err(verdict) = meter.admit() {
        let verdict = verdict.by(Some(rule.label()));
        let is_tls = !buffer.is_empty();
        return if is_tls { refuse_tls(stream, guard, verdict).await } else { refuse(stream, guard, verdict) };
    }
    let mut allowed = allowed;
    // Behind a hello nobody sends much before an answer, and of other bytes nobody has read any.
    let (mut stream, mut early, is_tls) = (stream, BytesMut::new(), !buffer.is_empty());
    let gone = gone(&mut stream, &mut early);
    match ask::connection(proxy, rules, (rule, flow), format!("{host}:{port}"), gone).await {
        Ok(asked) => allowed.asked = asked,
        Err(verdict) => {
            return if is_tls { refuse_tls(stream, guard, verdict).await } else { refuse(stream, guard, verdict) };
        }
    }
    let limit = dial_limit(rules);
    let due = Instant::now() + limit;
    let (mut upstream, dialled) = match connect(&permit, rules.way(), limit).await {
        Ok(connected) => connected,
        Err(error) => {
            let verdict = Verdict::block(error.reason(), error.to_string()).by(Some(rule.label()));
            return refuse(stream, guard, verdict);
        }
    };
    guard.goes_via(dialled.via.clone());
    if is_tls {
        guard.carries("tls-passthrough");
        upstream = match shows_name(proxy, rules, &permit, (upstream, &dialled), due).await {
            Ok(upstream) => upstream,
            Err(verdict) => return refuse_tls(stream, guard, verdict.by(Some(rule.label()))).await,
        };
    }
    guard.end(allowed.clone());
    let tunnel = Tunnel {
        host,
        port,
        dialled,
        is_unseen: !is_tls,
        rule: rule.label(),
        policy: rules.policy.id().clone(),
        meter,
        idle: rules.policy.limits().idle(),
    };
    buffer.unsplit(early);
    match tunnel.carry(proxy, Prefixed::new(buffer, stream), upstream).await {
        None => allowed,
        Some(cut) => {
            guard.end(cut.clone());
            cut
        }
    }
}

/// How long finding and dialling a destination may take: never longer than any silence.
pub(super) fn dial_limit(rules: &Rules) -> Duration {
    DIAL_TIMEOUT.min(rules.policy.limits().idle())
}

/// What one connection under this rule may use.
pub(super) fn budget_of(rule: &Rule) -> Budget {
    let budgets = rule.budgets();
    Budget { out: budgets.max_bytes_out, inn: budgets.max_bytes_in, time: budgets.max_seconds.map(Duration::from_secs) }
}

/// Takes in what the agent still sends for a moment: a reset would overtake the last words it was told.
pub(super) async fn linger(stream: &mut (impl AsyncRead + Unpin)) {
    let mut sink = [0; 1024];
    let drain = async { while stream.read(&mut sink).await.is_ok_and(|count| count > 0) {} };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// Ends a connection within whose last body the answer was given: takes in the rest of that, and drops it, until the client has ended, or
/// no longer than is bearable. Who finds too many others there is waited for no longer than anybody.
pub(super) async fn drain(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
    let Ok(_place) = DRAINS.try_acquire() else { return linger(stream).await };
    let mut sink = vec![0; 16 * 1024];
    let drained = async {
        let mut left = DRAIN_BYTES;
        while left > 0 {
            let read = tokio::time::timeout(DRAIN_SILENT, stream.read(&mut sink)).await;
            match read {
                Ok(Ok(count @ 1..)) => left = left.saturating_sub(count as u64),
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN, drained).await;
}

async fn refuse_tls(mut stream: TcpStream, mut guard: FlowGuard, verdict: Verdict) -> Verdict {
    guard.end(verdict.clone());
    farewell(&mut stream, &tls::alert_access_denied()).await;
    verdict
}

fn refuse(stream: TcpStream, mut guard: FlowGuard, verdict: Verdict) -> Verdict {
    guard.end(verdict.clone());
    reset(&stream);
    verdict
}

/// Closing then sends a reset: the client fails at once instead of waiting.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
