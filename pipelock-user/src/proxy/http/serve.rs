//! Decides and answers the requests of one connection, transparent or explicit: each is forwarded or refused, recorded,
//! and only then answered.

use std::sync::{Arc, Mutex as StdMutex, OnceLock};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri, header};
use http_body_util::{Either, Full};
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

use super::afterword::Afterword;
use super::arriving::Arriving;
use super::authority::{Authority, agree, without_query};
use super::call::{self, Call};
use super::consent::Consent;
use super::converse::converse;
use super::errand::{Rehearsal, Withheld};
use super::guarded::{LeftOut, Refused};
use super::http2;
use super::passing::Passing;
use super::pushing::stopped;
use super::reading::{Reading, url};
use super::shared::Shared;
use super::socket::AtDoor;
use super::upgrade::{Upgraded, is_websocket, mark, reads_messages};
use super::upstream::Carrier;
use crate::flow::{Action, Flow, FlowGuard, Host, Reached, Reason, Target, Verdict, locked};
use crate::proxy::counts::{COUNTS, Decided};
use crate::proxy::git::{self, push::Push};
use crate::proxy::listen::LINGER;
use crate::proxy::prefixed::Prefixed;
use crate::proxy::presence::Wanted;
use crate::proxy::rescue;
use crate::proxy::state::{Proxy, Rules};
use crate::recorder::RequestRecord;

/// The answer's body: the destination's as it streams, or our own words.
pub(super) type Body = Either<Passing, Full<Bytes>>;

/// What the requests of one connection share.
pub(in crate::proxy) struct Session {
    pub(in crate::proxy) proxy: Arc<Proxy>,
    /// The kernel's flow; for explicit clients one without a number.
    pub(in crate::proxy) flow: Arc<Flow>,
    /// The door that it came through, as receipts name it.
    pub(super) transport: &'static str,
    /// The flow with who a client of the explicit proxy has shown to be, once it has.
    pub(super) identified: OnceLock<Arc<Flow>>,
    /// Reports the flow; explicit clients have none to report.
    pub(super) guard: Option<Arc<StdMutex<FlowGuard>>>,
    /// What the agent speaks; where a door or the reverse proxy asks for it, what is spoken to the destination.
    pub(super) carrier: Carrier,
    /// What the errands of this session have in common with it.
    pub(super) shared: Arc<Shared>,
    /// What ended the reading of requests.
    pub(super) refused: Refused,
    /// What ended the connection, once nobody waits for answers any more.
    over: watch::Sender<Option<Verdict>>,
    /// What the connection became, once its agent was told so.
    pub(super) upgraded: StdMutex<Option<Upgraded>>,
}

/// What became of a request, recorded: the answer to release, unless there is none for the reason in its verdict.
pub(super) struct Carried {
    pub(super) record: RequestRecord,
    pub(super) response: Option<Response<Passing>>,
    /// What is said instead to whoever called by JSON-RPC.
    pub(super) told: Option<Response<Full<Bytes>>>,
    pub(super) reading: Option<Reading>,
}

/// What became of a request.
struct Forwarded {
    verdict: Verdict,
    response: Option<Response<Passing>>,
    /// How the destination was reached, when bytes may have left.
    dialled: Option<Reached>,
    reading: Option<Reading>,
}

impl Forwarded {
    /// Nothing of it left.
    fn not(verdict: Verdict) -> Self {
        Self { verdict, response: None, dialled: None, reading: None }
    }
}

/// Serves requests of HTTP/1.1 until the agent or the destination is done; `prefix` was read before. Inside TLS the
/// target of the flow has the name that TLS was opened for. What cut the connection, if there is no flow to say it in.
pub(in crate::proxy) async fn serve<S>(
    proxy: &Arc<Proxy>,
    stream: S,
    prefix: BytesMut,
    flow: Arc<Flow>,
    guard: Option<FlowGuard>,
    is_tls: bool,
) -> Option<Verdict>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let session = Session::new(proxy, flow, guard, Carrier { is_tls, is_http2: false });
    let answer = |session: Arc<Session>, request| async move { session.answer(request).await };
    let (ended, cut) = tokio::select! {
        ended = Box::pin(converse(&session, stream, (prefix, None), false, answer)) => (ended, None),
        cut = session.disallowed() => (None, Some(cut)),
    };
    let ended = match ended {
        Some((stream, unread)) if session.is_upgraded() => {
            return session.carry_on(Prefixed::new(unread, stream)).await;
        }
        ended => ended,
    };
    let untold = session.end(cut);
    if let Some((mut stream, _)) = ended {
        // TLS says goodbye, or the client takes the answer for one that was cut off.
        let _ = tokio::time::timeout(LINGER, stream.shutdown()).await;
    }
    untold
}

/// The same for HTTP/2.
pub(in crate::proxy) async fn serve_http2<S>(
    proxy: &Arc<Proxy>,
    stream: S,
    prefix: BytesMut,
    flow: Arc<Flow>,
    guard: Option<FlowGuard>,
    is_tls: bool,
) -> Option<Verdict>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let session = Session::new(proxy, flow, guard, Carrier { is_tls, is_http2: true });
    let cut = tokio::select! {
        cut = Box::pin(http2::converse(&session, stream, prefix)) => cut,
        cut = session.disallowed() => Some(cut),
    };
    session.end(cut)
}

impl Session {
    /// True when the whole connection was opened for one destination. Explicit clients open a tunnel for a WebSocket (RFC 6455
    /// §4.1), or have a door of their own.
    pub(super) fn is_opened(&self) -> bool {
        self.guard.is_some() || self.flow.target.name.is_some()
    }

    /// Where the connection leads, for what is no request of it: `-` for clients who say that with each.
    pub(super) fn place(&self) -> String {
        self.opened_for().unwrap_or_else(|| "-".to_owned())
    }

    /// The same as a URL without a path, if the connection was opened for one destination.
    fn opened_for(&self) -> Option<String> {
        let Target { name, original } = &self.flow.target;
        let host = || name.clone().unwrap_or_else(|| Host::from(original.ip()));
        self.is_opened().then(|| self.place_of(&host(), original.port()))
    }

    /// The target of a request that nobody has looked at further.
    pub(super) fn target(&self, uri: &Uri) -> String {
        target(self.opened_for(), uri)
    }

    /// The beginning of a URL of a host: without the port that its scheme has anyway.
    fn place_of(&self, host: &Host, port: u16) -> String {
        let scheme = self.carrier.scheme();
        match port == self.carrier.default_port() {
            true => format!("{scheme}://{host}"),
            false => format!("{scheme}://{host}:{port}"),
        }
    }

    /// The scheme of its requests.
    pub(super) fn scheme(&self) -> &'static str {
        self.carrier.scheme()
    }

    pub(super) fn new(proxy: &Arc<Proxy>, flow: Arc<Flow>, guard: Option<FlowGuard>, carrier: Carrier) -> Arc<Self> {
        Self::by("forward", proxy, flow, guard, carrier)
    }

    /// The same for another door.
    pub(super) fn by(
        transport: &'static str,
        proxy: &Arc<Proxy>,
        flow: Arc<Flow>,
        guard: Option<FlowGuard>,
        carrier: Carrier,
    ) -> Arc<Self> {
        Self::sharing(Shared::new(proxy), transport, proxy, flow, guard, carrier)
    }

    /// The session of something that a door does for this one's client, in the clear or over TLS.
    pub(super) fn errand_of(&self, transport: &'static str, is_tls: bool) -> Arc<Self> {
        let carrier = Carrier { is_tls, is_http2: false };
        Self::sharing(self.shared.clone(), transport, &self.proxy, self.identified(), None, carrier)
    }

    fn sharing(
        shared: Arc<Shared>,
        transport: &'static str,
        proxy: &Arc<Proxy>,
        flow: Arc<Flow>,
        guard: Option<FlowGuard>,
        carrier: Carrier,
    ) -> Arc<Self> {
        Arc::new(Self {
            proxy: proxy.clone(),
            flow,
            transport,
            identified: OnceLock::new(),
            guard: guard.map(|guard| Arc::new(StdMutex::new(guard))),
            carrier,
            shared,
            refused: Refused::default(),
            over: watch::Sender::new(None),
            upgraded: StdMutex::default(),
        })
    }

    /// Ends the requests that are still under way: the connection was cut for this, or else the agent has gone. Gives the
    /// verdict back where no flow reports it.
    pub(super) fn end(&self, cut: Option<Verdict>) -> Option<Verdict> {
        let gone = || Verdict::let_out(Reason::ClientAborted, "the connection ended first");
        self.stop(cut.clone().unwrap_or_else(gone));
        let says_so = cut.as_ref().is_some_and(|cut| cut.reason == Reason::BudgetExceeded);
        let untold = match (&self.guard, cut) {
            (Some(guard), Some(cut)) => {
                locked(guard).end(cut);
                None
            }
            (_, cut) => cut,
        };
        if says_so {
            drop(self.shared.untold());
        } else {
            self.note_budgets();
        }
        untold
    }

    /// Ends the requests that are still under way for this.
    pub(super) fn stop(&self, cut: Verdict) {
        self.over.send_replace(Some(cut));
    }

    /// True when the connection became something else, and its agent was told so.
    pub(super) fn is_upgraded(&self) -> bool {
        locked(&self.upgraded).is_some()
    }

    /// Carries what the connection became, to its end; what cut it.
    pub(super) async fn carry_on<S>(&self, stream: S) -> Option<Verdict>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let upgraded = locked(&self.upgraded).take()?;
        let cut = Box::pin(upgraded.carry(self, stream)).await;
        self.end(cut)
    }

    /// Waits for that, or for the end of the proxy.
    pub(super) async fn ended(&self) -> Verdict {
        let mut over = self.over.subscribe();
        let ended = tokio::select! {
            // What has ended the connection came before the end of all.
            biased;
            ended = over.wait_for(Option::is_some) => ended.ok().and_then(|ended| ended.clone()),
            () = self.proxy.closed() => return Proxy::stopped(),
        };
        ended.unwrap_or_else(|| Verdict::let_out(Reason::ClientAborted, "the connection ended first"))
    }

    /// The same for what is done for the client alone: it ends also when the client hangs up.
    pub(super) async fn deserted(&self) -> Verdict {
        tokio::select! {
            ended = self.ended() => ended,
            gone = self.shared.presence.gone() => gone,
        }
    }

    /// Waits for a policy that does not allow what TLS was opened for. In the clear every request is asked anew.
    async fn disallowed(&self) -> Verdict {
        let (Some(host), true) = (&self.flow.target.name, self.carrier.is_tls) else {
            return std::future::pending().await;
        };
        let port = self.flow.target.original.port();
        let is_allowed = |rules: &Rules| rules.policy.find(host, port).is_ok_and(|rule| rule.unfit(true).is_none());
        self.proxy.disallowed(None, is_allowed).await
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let given = self.proxy.origins.names_of(self.flow.target.original.ip());
        let authority = agree(&request, &self.flow, &given, self.carrier);
        self.answer_to(authority, request).await
    }

    /// Decides, forwards or refuses a request whose authority is settled; records it; the answer to release.
    pub(super) async fn answer_to(
        &self,
        authority: Result<Authority, Verdict>,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let is_git = git::asked(&request).is_some();
        let carried = self.carry(authority, arriving(request)).await;
        match (carried.response, carried.told) {
            (Some(response), _) => response.map(Either::Left),
            (None, Some(told)) => told.map(Either::Right),
            (None, None) => rescue::denial(&carried.record.verdict, self.flow.id, is_git).map(Either::Right),
        }
    }

    /// The same for whoever tells what became of it in words of its own.
    pub(super) async fn carry(&self, authority: Result<Authority, Verdict>, mut request: Request<Arriving>) -> Carried {
        let start = Instant::now();
        let method = request.method().to_string();
        // One policy from the decision to its receipt, whatever is loaded meanwhile.
        let rules = self.proxy.rules();
        // The query may hold what should not be kept; host and path say where it went.
        let place = match &authority {
            Ok(Authority { host, port }) => Some(self.place_of(host, *port)),
            Err(_) => self.opened_for(),
        };
        let target = target(place, request.uri());
        let call = request.extensions_mut().remove::<Call>();
        let left_out = request.extensions_mut().remove::<LeftOut>().and_then(LeftOut::found);
        let host = authority.as_ref().ok().map(|authority| authority.host.clone());
        let Forwarded { verdict, response, dialled, reading } = match authority {
            Ok(authority) => self.forward(&rules, authority, request).await,
            Err(verdict) => Forwarded::not(verdict),
        };
        let verdict = verdict.with(left_out.into_iter().collect());
        // In `real` mode DNS does not settle the name of an address; a name that was refused is not believed.
        if let (false, Some(host), Some(guard)) = (verdict.is_block(), host, &self.guard) {
            locked(guard).names(host);
        }
        let call = match call.filter(|_| response.is_none()) {
            Some(call) => call.id().await,
            None => None,
        };
        let status = match (&response, &call) {
            (Some(response), _) => response.status(),
            (None, Some(_)) => call::STATUS,
            (None, None) => rescue::status(verdict.reason),
        };
        let policy = rules.policy.id();
        let mut record = self.record(policy, method, target, &verdict, Some(status.as_u16()), dialled);
        let is_read = reading.is_some() && !verdict.is_block() && verdict.findings.is_empty();
        let filed = if is_read { self.file_read(&record).await } else { self.file(&rules, &mut record).await };
        COUNTS.request_seconds.since(Decided::of(&verdict), start);
        if let Err(unwritten) = filed {
            // Nobody is told of an upgrade that is not recorded.
            locked(&self.upgraded).take();
            let record = RequestRecord { verdict: unwritten, ..record };
            let told = call.map(|id| call::denial(&id, &record, self.flow.id));
            return Carried { record, response: None, told, reading: None };
        }
        if let Some(reading) = &reading {
            reading.afterword.written(&record);
        }
        let told = call.map(|id| call::denial(&id, &record, self.flow.id));
        Carried { record, response, told, reading }
    }

    async fn forward(&self, rules: &Rules, authority: Authority, mut request: Request<Arriving>) -> Forwarded {
        let path = git::path_of(request.uri());
        let verdict = rules.policy.check_request(&authority.host, authority.port, request.method().as_str(), path);
        let rule = rules.policy.find(&authority.host, authority.port);
        let unfit = rule.ok().and_then(|rule| rule.unfit(self.carrier.is_tls));
        if let Some(unfit) = unfit.filter(|_| !verdict.is_block()) {
            return Forwarded::not(Verdict::block(Reason::ProtocolUnknown, unfit).by(verdict.rule));
        }
        // An offer of HTTP/2 may be ignored (RFC 9110 §7.8), and Java's client makes one with every first request.
        let offers = |value: &http::HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"h2c");
        let wants_upgrade = request.headers().get_all(header::UPGRADE).iter().any(offers);
        let is_websocket = rules.policy.websocket().enabled
            && (self.is_opened() || request.extensions().get::<AtDoor>().is_some())
            && request.body().is_end_stream()
            && is_websocket(&request);
        if wants_upgrade && !is_websocket && !verdict.is_block() {
            let denied = Verdict::block(Reason::UpgradeDenied, self.why_not_upgraded(&rules.policy, request.headers()));
            return Forwarded::not(denied.by(verdict.rule));
        }
        let (rule, verdict) = match rule {
            Ok(rule) if !verdict.is_block() => (rule, verdict),
            _ => return Forwarded::not(verdict),
        };
        let named = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        if let Some(denied) = rule.check_overrides(request.method().as_str(), named) {
            return Forwarded::not(denied);
        }
        if !self.proxy.recorder.is_writing() {
            return Forwarded::not(Verdict::block(Reason::RecorderUnavailable, "evidence is not written"));
        }
        let meter = match request.extensions().get::<Rehearsal>() {
            None => self.shared.meter(&self.proxy, &rules.policy, (rule, &authority.host), &self.identified()),
            Some(Rehearsal) => self.shared.known_meter(&rules.policy, rule),
        };
        if meter.is_over() {
            let denied = Verdict::block(Reason::BudgetExceeded, "what one connection may use is used up");
            return Forwarded::not(denied.by(verdict.rule));
        }
        // What is only asked about uses nothing.
        if request.extensions().get::<Rehearsal>().is_none()
            && let Err(denied) = meter.admit_of(request.body().size_hint().exact().unwrap_or_default())
        {
            return Forwarded::not(denied.by(verdict.rule));
        }
        let afterword = || Afterword::new(&self.proxy, self.guard.as_ref());
        let client = self.remembered(self.transport);
        let reading = match self.in_time(rules, Reading::of(rules, rule, client.as_deref(), afterword)).await {
            Ok(reading) => reading,
            Err(denied) => {
                return Forwarded::not(Verdict { action: Action::Block, ..denied }.by(verdict.rule));
            }
        };
        if is_websocket {
            mark(&mut request, reads_messages(&rules.policy, rule));
        }
        let (mut verdict, mut wanted) = (verdict, None);
        if let Some(reading) = &reading {
            let url = url(self.carrier, &authority, request.uri());
            let withheld = request.extensions_mut().remove::<Withheld>();
            let method = request.method().clone();
            match reading.head((&method, &url), request.headers_mut(), withheld.as_ref()) {
                Ok((noted, asked_about)) => (verdict, wanted) = (verdict.with(noted), asked_about),
                Err(denied) => {
                    return Forwarded { reading: Some(reading.clone()), ..Forwarded::not(denied.by(verdict.rule)) };
                }
            }
        }
        let still = request.extensions_mut().remove::<Wanted>();
        let consent = Consent { by_rule: rule.asks(), wanted, still };
        if request.extensions().get::<Rehearsal>().is_some() {
            let (verdict, response) = self.rehearse(rules, (&authority, request.method()), consent, verdict).await;
            return Forwarded { verdict, response, dialled: None, reading };
        }
        let request = match Box::pin(self.check_push(rules, rule, request, reading.as_ref())).await {
            Ok(request) => request,
            Err((denied, response)) => {
                return Forwarded { response, reading, ..Forwarded::not(denied.by(verdict.rule)) };
            }
        };
        let push = request.extensions().get::<Arc<Push>>().cloned();
        let (verdict, response, dialled) =
            self.send(rules, &authority, (request, consent), verdict, (reading.as_ref(), &meter)).await;
        let noted = reading.as_ref().map(|reading| reading.afterword.take_noted()).unwrap_or_default();
        let response = match push.filter(|_| response.is_none() && dialled.is_none()) {
            Some(push) => stopped(&push, &verdict),
            None => response,
        };
        Forwarded { verdict: verdict.with(noted), response, dialled, reading }
    }
}

/// What receipts call a request of this place.
fn target(place: Option<String>, uri: &Uri) -> String {
    match (place, uri.path()) {
        // `OPTIONS *` is about the server, not about a path of it.
        (Some(place), "*") => format!("{place} *"),
        (Some(place), path) => format!("{place}{path}"),
        (None, _) => without_query(uri),
    }
}

/// A request as it is carried; one that may be a call remembers that.
fn arriving(request: Request<Incoming>) -> Request<Arriving> {
    let version = request.version();
    let (mut head, body) = request.into_parts();
    match Call::of(&head, body) {
        Ok(call) => {
            head.extensions.insert(call.clone());
            Request::from_parts(head, Arriving::called(call, version))
        }
        Err(body) => Request::from_parts(head, Arriving::new(body, version)),
    }
}

pub(super) fn internal() -> Response<Body> {
    let verdict = Verdict::block(Reason::Internal, "");
    rescue::problem(&verdict, crate::flow::FlowId(0)).map(Either::Right)
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
