//! A request of our own for a client that wants to hear what it came to, and not the bytes as they come.
//!
//! Called by `fetch` and `api`. It promises that such a request goes the way of every other (policy, scanner, dialling, budgets,
//! receipt), that no more of its answer is kept than was asked for, and that it ends when the client goes or the time is up.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use tokio::time::Instant;

use super::arriving::Arriving;
use super::authority::Authority;
use super::consent::Consent;
use super::passing::Passing;
use super::place::Place;
use super::reading::Reading;
use super::serve::{Carried, Session};
use crate::flow::{Reason, Verdict};
use crate::inspect::permit_flow;
use crate::net::check_reach;
use crate::proxy::listen::dial_limit;
use crate::proxy::state::Rules;
use crate::recorder::RequestRecord;

/// What came back.
pub(in crate::proxy) struct Answer {
    /// The status.
    pub(in crate::proxy) status: StatusCode,
    /// The headers.
    pub(in crate::proxy) headers: HeaderMap,
    /// The body, as far as it was wanted.
    pub(in crate::proxy) body: Bytes,
    /// There was more of it.
    pub(in crate::proxy) is_cut: bool,
    reading: Option<Reading>,
    record: RequestRecord,
}

/// What it came to.
pub(in crate::proxy) struct Errand {
    /// The verdict of its receipt, or of what ended its answer later.
    pub(in crate::proxy) verdict: Verdict,
    /// The URL as the receipt has it.
    pub(in crate::proxy) target: String,
    /// The answer, unless the verdict says why there is none.
    pub(in crate::proxy) answer: Option<Answer>,
}

/// Headers that are read with those of a request and go nowhere: what a client sent with its question. Who writes a secret
/// there means it to leave.
#[derive(Clone, Debug)]
pub(super) struct Withheld(pub(super) HeaderMap);

/// Marks a request that goes all the way up to the network, and no further.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rehearsal;

/// How long it is asked whether a place can be reached, when nothing is sent there: shorter than who asks waits for a verdict, so
/// that the reason is the one a request would have.
const REACH: Duration = Duration::from_secs(4);

/// The headers of a request of our own.
const HEADERS: [(HeaderName, &str); 3] = [
    (header::ACCEPT, "*/*"),
    (header::ACCEPT_ENCODING, "identity"),
    (header::USER_AGENT, concat!("pipelock/", env!("CARGO_PKG_VERSION"))),
];

impl Session {
    /// Asks for a place with GET on behalf of this session's client, until `due`; keeps `most` bytes of the answer. The headers
    /// are read and not sent.
    pub(in crate::proxy) async fn ask(
        self: &Arc<Self>,
        transport: &'static str,
        (place, withheld): (&Place, HeaderMap),
        due: Instant,
        most: usize,
    ) -> Errand {
        let own = self.errand_of(transport, place.is_tls);
        let errand = own.errand(place, withheld, most);
        tokio::pin!(errand);
        let ended = tokio::select! {
            errand = &mut errand => return errand,
            ended = self.deserted() => ended,
            () = tokio::time::sleep_until(due) => Verdict::let_out(Reason::IdleTimeout, "it took too long as a whole"),
        };
        // Not dropped: its receipt must be written.
        own.stop(ended);
        errand.await
    }

    /// Asks what would become of a request for a place, as far as can be told before anything is sent: policy, URL, addresses.
    pub(in crate::proxy) async fn ask_about(
        self: &Arc<Self>,
        transport: &'static str,
        (method, place): (Method, &Place),
        due: Instant,
    ) -> RequestRecord {
        let own = self.errand_of(transport, place.is_tls);
        let mut request = Request::new(Arriving::none());
        *request.method_mut() = method;
        *request.uri_mut() = place.path.clone();
        request.extensions_mut().insert(Rehearsal);
        let authority = Authority { host: place.host.clone(), port: place.port };
        let carried = own.carry(Ok(authority), request);
        tokio::pin!(carried);
        let ended = tokio::select! {
            carried = &mut carried => return carried.record,
            ended = self.ended() => ended,
            () = tokio::time::sleep_until(due) => Verdict::block(Reason::ScannerUnavailable, "no verdict in time"),
        };
        own.stop(ended);
        carried.await.record
    }

    /// Whether a request could go on without asking anybody, and its place be reached by its addresses: the end of its way, if
    /// it may not leave.
    pub(super) async fn rehearse(
        &self,
        rules: &Rules,
        (authority, method): (&Authority, &Method),
        consent: Consent,
        verdict: Verdict,
    ) -> (Verdict, Option<Response<Passing>>) {
        if let Err(denied) = self.would_consent(rules, authority, method, consent) {
            return (denied.by(verdict.rule).with(verdict.findings), None);
        }
        let reached = match permit_flow(&verdict, authority.host.clone(), authority.port) {
            Err(denied) => Err(denied),
            Ok(permit) => {
                let reach = check_reach(&permit, rules.way(), dial_limit(rules).min(REACH));
                tokio::select! {
                    reached = reach => reached.map_err(|error| Verdict::block(error.reason(), error.to_string())),
                    ended = self.ended() => Err(ended),
                }
            }
        };
        match reached {
            Ok(()) => (verdict, Some(Response::new(Passing::Unread(Arriving::none())))),
            Err(denied) => (denied.by(verdict.rule), None),
        }
    }

    async fn errand(self: &Arc<Self>, place: &Place, withheld: HeaderMap, most: usize) -> Errand {
        let mut request = Request::new(Arriving::none());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = place.path.clone();
        for (name, value) in HEADERS {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        request.extensions_mut().insert(Withheld(withheld));
        let authority = Authority { host: place.host.clone(), port: place.port };
        let since = Instant::now();
        let Carried { record, response, reading, .. } = self.carry(Ok(authority), request).await;
        let (verdict, target) = (record.verdict.clone(), record.target.clone());
        let Some(response) = response else { return Errand { verdict, target, answer: None } };
        let (head, body) = response.into_parts();
        let kept = tokio::select! {
            kept = keep(body, most) => kept,
            ended = self.ended() => Err(ended),
        };
        match kept {
            Ok((body, is_cut)) => {
                let answer = Answer { status: head.status, headers: head.headers, body, is_cut, reading, record };
                Errand { verdict, target, answer: Some(answer) }
            }
            Err(failed) => {
                let cut = match &reading {
                    Some(reading) => reading.afterword.cut_told().await,
                    None => None,
                };
                let verdict = match cut {
                    // It has a receipt already.
                    Some(cut) => cut.by(verdict.rule),
                    None => {
                        let failed = self.shared.cut_for_budget(&record, since).unwrap_or(failed);
                        self.add(&record, failed.by(verdict.rule), "response body").await
                    }
                };
                Errand { verdict, target, answer: None }
            }
        }
    }

    /// Ends an errand for what its answer turned out to be, with a receipt that says so; the verdict to tell.
    pub(in crate::proxy) async fn reject(&self, answer: &Answer, verdict: Verdict, part: &'static str) -> Verdict {
        self.add(&answer.record, verdict.by(answer.record.verdict.rule.clone()), part).await
    }
}

impl Answer {
    /// Reads what is to be shown of it, where its rule scans; what may be shown.
    ///
    /// # Errors
    /// [`Reason::InjectionMatch`], [`Reason::ScannerUnavailable`].
    pub(in crate::proxy) fn read(&self, text: String, part: &'static str) -> Result<String, Verdict> {
        match &self.reading {
            Some(reading) => reading.text(text, part, &self.record.verdict.findings),
            None => Ok(text),
        }
    }

    /// Waits until what was noted of it is written.
    pub(in crate::proxy) async fn noted(&self) {
        if let Some(reading) = &self.reading {
            reading.afterword.added().await;
        }
    }

    /// True when it is read, and not only passed on.
    pub(in crate::proxy) fn is_read(&self) -> bool {
        self.reading.is_some()
    }
}

/// The first bytes of a body, and whether there was more.
async fn keep(mut body: Passing, most: usize) -> Result<(Bytes, bool), Verdict> {
    let mut kept = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Verdict::let_out(Reason::UpstreamFailed, format!("the answer was broken off: {error}")))?;
        let Ok(bytes) = frame.into_data() else { continue };
        let room = most.saturating_sub(kept.len());
        kept.extend_from_slice(bytes.get(..room).unwrap_or(&bytes));
        if bytes.len() > room {
            return Ok((kept.freeze(), true));
        }
    }
    Ok((kept.freeze(), false))
}
