//! Sends a request that policy and scanner have let go, and receives its answer as far as its head tells.
//!
//! Called by `serve` for each request. It promises that nothing leaves before its body was read as far as it is read whole and
//! whoever has to be asked said yes, and that what comes to nothing later is told for what ended it.

use std::sync::Arc;

use http::{Request, Response};
use hyper::ext::ReasonPhrase;

use super::arriving::Arriving;
use super::authority::Authority;
use super::consent::Consent;
use super::headers::strip_hop;
use super::passing::Passing;
use super::reading::Reading;
use super::serve::Session;
use super::upgrade::{Asked, WebSocket, reads_messages, say, take};
use super::upstream::Leg;
use crate::flow::{Action, Reached, Reason, Verdict, locked};
use crate::inspect::{Side, permit_flow};
use crate::proxy::meter::Meter;
use crate::proxy::state::Rules;

impl Session {
    /// Sends a request that may go, as far as its head tells.
    pub(super) async fn send(
        &self,
        rules: &Rules,
        authority: &Authority,
        (request, consent): (Request<Arriving>, Consent),
        mut verdict: Verdict,
        (reading, meter): (Option<&Reading>, &Arc<Meter>),
    ) -> (Verdict, Option<Response<Passing>>, Option<Reached>) {
        let since = tokio::time::Instant::now();
        let is_websocket = request.extensions().get::<WebSocket>().is_some();
        let path = request.uri().path().to_owned();
        let label = verdict.rule.clone();
        let rule = || label.clone();
        let (version, method) = (request.version(), request.method().clone());
        let request = match reading {
            None => Ok((request.map(Passing::Unread), None)),
            Some(reading) => self.in_time(rules, reading.request(request)).await,
        };
        let request = match request {
            Ok((request, wanted)) => {
                let agreed = self.consented(rules, authority, (&method, &path), consent.and(wanted), reading).await;
                agreed.map(|agreed| {
                    verdict.asked = agreed.asked;
                    verdict.findings.extend(agreed.findings);
                    request
                })
            }
            Err(denied) => Err(denied),
        };
        let permitted =
            request.and_then(|request| Ok((permit_flow(&verdict, authority.host.clone(), authority.port)?, request)));
        let (permit, request) = match permitted {
            Ok(permitted) => permitted,
            Err(denied) => {
                let denied = self.refused.of_body().map_or(denied, |refusal| refusal.verdict());
                // Whatever it was: nothing has left.
                let denied = Verdict { action: Action::Block, ..denied };
                return (denied.by(verdict.rule), None, None);
            }
        };
        let Self { carrier, shared, .. } = self;
        let (activity, reached) = (&shared.activity, std::sync::Mutex::default());
        let flow = &self.identified();
        let leg = Leg { permit: &permit, authority, rules, carrier: *carrier, flow, activity, meter, reached };
        let sent = tokio::select! {
            sent = Box::pin(shared.upstreams(*carrier).send(&leg, request)) => sent,
            // Bytes may have left, so the receipt must say that they were let out.
            ended = self.ended() => Err((ended, locked(&leg.reached).take())),
            cut = self.proxy.evidence_lost() => Err((cut, locked(&leg.reached).take())),
        };
        match sent {
            Ok((mut response, addr)) => {
                // Words of the destination's that nobody reads, but for clients that show them to the agent; the code says it all.
                response.extensions_mut().remove::<ReasonPhrase>();
                if response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
                    // The request has left, so it was not blocked; the answer is what the agent does not get.
                    let denied =
                        || Verdict::let_out(Reason::UpgradeDenied, "the destination switched protocols").by(rule());
                    if !is_websocket {
                        return (denied(), None, Some(addr));
                    }
                    let is_read = rules
                        .policy
                        .find(&authority.host, authority.port)
                        .is_ok_and(|rule| reads_messages(&rules.policy, rule));
                    let reading = reading.filter(|_| is_read);
                    if let Some(Err(stopped)) =
                        reading.map(|reading| reading.answer_head(Side::Response, response.headers()))
                    {
                        return (stopped.by(rule()), None, Some(addr));
                    }
                    let label = rule().unwrap_or_default();
                    let (carrier, decided) = (*carrier, rules.policy.id().clone());
                    let asked = Asked { authority: authority.clone(), path, carrier, dialled: addr.clone(), decided };
                    return match take(&mut response, (reading, meter), asked, &label) {
                        Err(denied) => (denied.by(verdict.rule), None, Some(addr)),
                        Ok(upgraded) => {
                            *locked(&self.upgraded) = Some(upgraded);
                            strip_hop(response.headers_mut());
                            say(response.headers_mut());
                            let response = response.map(|body| Passing::Unread(Arriving::new(body, version)));
                            (verdict, Some(response), Some(addr))
                        }
                    };
                }
                strip_hop(response.headers_mut());
                let version = response.version();
                let response = response.map(|body| Arriving::new(body, version));
                match reading {
                    None => (verdict, Some(response.map(Passing::Unread)), Some(addr)),
                    Some(reading) => match self.in_time(rules, reading.response(response)).await {
                        Ok(response) => (verdict, Some(response), Some(addr)),
                        Err(failed) if meter.was_cut(since) => {
                            let over = meter.cut("the answer was cut");
                            (if failed.is_block() { failed } else { over }.by(verdict.rule), None, Some(addr))
                        }
                        Err(failed) => (failed.by(verdict.rule), None, Some(addr)),
                    },
                }
            }
            Err((failed, addr)) => {
                // A body that could not be read on, or was cut, looks to the destination's side like one that was broken off.
                let failed = match (reading.and_then(|reading| reading.afterword.verdict()), self.refused.of_body()) {
                    (Some(cut), _) => cut,
                    (None, _) if meter.was_cut(since) && addr.is_some() => meter.cut("the request was cut"),
                    (None, Some(refusal)) if addr.is_some() => Verdict::let_out(refusal.reason, refusal.detail),
                    _ => failed,
                };
                (failed.by(verdict.rule), None, addr)
            }
        }
    }

    /// Reads a message, unless both sides fall silent or the session ends.
    pub(super) async fn in_time<T>(
        &self,
        rules: &Rules,
        reading: impl Future<Output = Result<T, Verdict>>,
    ) -> Result<T, Verdict> {
        tokio::select! {
            read = Box::pin(reading) => read,
            () = self.shared.activity.idle(rules.policy.limits().idle()) => {
                Err(Verdict::let_out(Reason::IdleTimeout, "the message did not go on"))
            }
            ended = self.ended() => Err(ended),
            cut = self.proxy.evidence_lost() => Err(cut),
        }
    }
}
