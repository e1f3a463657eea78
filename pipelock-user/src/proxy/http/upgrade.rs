//! WebSocket upgrades (RFC 6455 §4): who may ask for one, how it is asked for, and what carries it once it is there.
//!
//! Called by `serve`. It promises that nothing else is ever upgraded to, that an extension is agreed on only where nobody
//! reads, and that an upgraded connection ends with silence, its budget, the evidence and the first policy that would not let it
//! through, which both sides are told.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::authority::Authority;
use super::headers::without;
use super::reading::Reading;
use super::serve::Session;
use super::upstream::Carrier;
use crate::flow::{PolicyId, Reached, Reason, Verdict};
use crate::net::may_be_reached;
use crate::policy::{Policy, Rule};
use crate::proxy::idle::Watched;
use crate::proxy::meter::Meter;
use crate::proxy::ws::{self, Way};

/// Marks a request that asks for a WebSocket: `outgoing` then asks for one too.
#[derive(Clone, Copy, Debug)]
pub(super) struct WebSocket;

/// An upgraded connection, until the agent's end of it is free.
pub(super) struct Upgraded {
    upstream: OnUpgrade,
    reading: Option<Reading>,
    meter: Arc<Meter>,
    asked: Asked,
    rule: String,
}

/// What was asked for and where it went: what another policy decides about.
pub(super) struct Asked {
    pub(super) authority: Authority,
    pub(super) path: String,
    pub(super) carrier: Carrier,
    pub(super) dialled: Reached,
    pub(super) decided: PolicyId,
}

impl Asked {
    fn is_allowed_by(&self, policy: &Policy, is_read: bool) -> bool {
        let Authority { host, port } = &self.authority;
        policy.websocket().enabled
            && !policy.check_request(host, *port, Method::GET.as_str(), &self.path).is_block()
            && policy.find(host, *port).is_ok_and(|rule| {
                rule.unfit(self.carrier.is_tls).is_none() && (is_read || !reads_messages(policy, rule))
            })
            && may_be_reached(&self.dialled, host, *port, policy)
    }
}

/// Whether a request asks for a WebSocket, and for nothing else.
pub(super) fn is_websocket<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    let is = |name: &str, wanted: &str| {
        let mut values = headers.get_all(name).iter();
        values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(wanted.as_bytes()))
            && values.next().is_none()
    };
    *request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && is("upgrade", "websocket")
        && is("sec-websocket-version", "13")
        && headers.get_all(header::SEC_WEBSOCKET_KEY).iter().count() == 1
}

impl Session {
    /// Why a request for an upgrade is refused, and what to do instead.
    pub(super) fn why_not_upgraded(&self, policy: &Policy, headers: &HeaderMap) -> String {
        let socket = policy.websocket();
        let wants_socket =
            headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
        match (wants_socket, socket.enabled, self.is_opened()) {
            (false, _, _) => "an Upgrade header that asks for something else than a WebSocket".to_owned(),
            (true, false, _) => "an Upgrade header, and the policy does not say websocket.enabled: true".to_owned(),
            (true, true, false) => {
                format!("an Upgrade header; ask this proxy for a WebSocket inside CONNECT, or at {}", socket.proxy_path)
            }
            (true, true, true) => "an Upgrade header, and the request is no handshake of RFC 6455".to_owned(),
        }
    }
}

/// Whether the messages of a rule's connections are read.
pub(super) fn reads_messages(policy: &Policy, rule: &Rule) -> bool {
    rule.scan() && policy.websocket().frame_scan
}

/// Makes a request one for a WebSocket. Where messages are read no extension is offered: compressed frames cannot be read one
/// by one.
pub(super) fn mark(request: &mut Request<impl Sized>, is_read: bool) {
    request.extensions_mut().insert(WebSocket);
    if is_read {
        without(request.headers_mut(), |name| *name == header::SEC_WEBSOCKET_EXTENSIONS);
    }
}

/// What the hop says of an upgrade, which is taken off on the way like all that it says.
pub(super) fn say(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// Takes the upgraded connection out of an answer that agrees to it.
///
/// # Errors
/// [`Reason::UpgradeDenied`] for an answer that agrees to something else.
pub(super) fn take<B>(
    response: &mut Response<B>,
    (reading, meter): (Option<&Reading>, &Arc<Meter>),
    asked: Asked,
    rule: &str,
) -> Result<Upgraded, Verdict> {
    let headers = response.headers();
    let agrees = headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let extends = reading.is_some() && headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS);
    if response.status() != StatusCode::SWITCHING_PROTOCOLS || !agrees || extends {
        let what = if extends { "an extension that nobody offered" } else { "something other than a WebSocket" };
        return Err(Verdict::let_out(Reason::UpgradeDenied, format!("the destination switched to {what}")));
    }
    Ok(Upgraded {
        upstream: hyper::upgrade::on(response),
        reading: reading.cloned(),
        meter: meter.clone(),
        asked,
        rule: rule.to_owned(),
    })
}

impl Upgraded {
    /// Moves frames until the connection ends; what cut it, if it was. Both sides are told of that.
    pub(super) async fn carry<S>(self, session: &Session, agent: S) -> Option<Verdict>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let activity = &session.shared.activity;
        activity.touch();
        let idle = session.proxy.rules().policy.limits().idle();
        let agent = Watched::new(agent, activity);
        let (is_read, since) = (self.reading.is_some(), Instant::now());
        let cut = async {
            let cut = tokio::select! {
                () = self.meter.used_up(since) => self.meter.cut("the connection was cut"),
                () = activity.idle(idle) => Verdict::let_out(Reason::IdleTimeout, "the connection was ended"),
                // Also one that would have it read where this one does not.
                cut = session.proxy.disallowed(Some(&self.asked.decided), |rules| self.asked.is_allowed_by(&rules.policy, is_read)) => cut,
                cut = session.proxy.evidence_lost() => cut,
            };
            cut.by(Some(self.rule.clone()))
        };
        tokio::select! {
            cut = self.moved(session, agent, cut) => cut,
            () = session.proxy.closed() => None,
        }
    }

    async fn moved(
        &self,
        session: &Session,
        agent: impl AsyncRead + AsyncWrite + Unpin,
        cut: impl Future<Output = Verdict>,
    ) -> Option<Verdict> {
        // It is there: the destination has agreed.
        let upstream = TokioIo::new(self.upstream.clone().await.ok()?);
        let part = |way| if way == Way::Out { "message of the agent" } else { "message of the destination" };
        let noted = |found, way| {
            if let Some(reading) = &self.reading {
                reading.afterword.note(found, part(way));
            }
        };
        let stopped = async |verdict: Verdict| {
            if let Some(reading) = &self.reading {
                reading.afterword.cut_written(verdict.by(Some(self.rule.clone())), "message").await;
            }
        };
        let reading = self.reading.as_ref().map(Reading::messages);
        ws::relay((agent, upstream), reading, session.flow.id, noted, stopped, cut).await
    }
}
