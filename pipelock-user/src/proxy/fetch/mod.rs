//! `GET /fetch?url=…` of the explicit proxy: asks for a URL on the client's behalf and answers with what a person would
//! read there, as JSON.
//!
//! Called by `http::doors`. It promises that each hop is a request like any other, with a receipt of its own; that title
//! and text are scanned again as they are shown, and what a page hides with them; and that whatever was asked, the answer is
//! bounded, comes in time and says what became of it.

mod element;
mod html;
mod page;
mod words;

use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;
use url::Url;

use self::page::{Page, page};
use crate::flow::{Flow, Reason, Verdict};
use crate::inspect::Encoded;
use crate::proxy::aside::{Undone, aside};
use crate::proxy::http::place::{self, Place, WEB};
use crate::proxy::http::{Answer, Errand, Session};
use crate::proxy::ration::who;
use crate::proxy::rescue;
use crate::proxy::shares::{Share, Shares};

/// What receipts call this door.
const TRANSPORT: &str = "fetch";
/// How long a fetch may take, redirects and all.
const PATIENCE: Duration = Duration::from_secs(60);
/// Redirects that are followed.
const MOST_REDIRECTS: usize = 5;
/// Bytes of an answer that are looked at.
const MOST_BODY: usize = 5 * 1024 * 1024;

/// Fetches under way at a time: each holds its answer in memory, and what is read in it.
const MOST_FETCHES: usize = 32;

/// Those of one client, so that others have some.
const MOST_OF_ONE: usize = 16;
/// When it is worth asking again for a place: few take longer.
const SOON: Duration = Duration::from_secs(1);

/// The places of those.
#[derive(Debug)]
pub(in crate::proxy) struct Fetches {
    all: Semaphore,
    of_one: Shares,
}

impl Default for Fetches {
    fn default() -> Self {
        Self { all: Semaphore::new(MOST_FETCHES), of_one: Shares::default() }
    }
}

impl Fetches {
    /// A place for a fetch of this client's.
    fn place(&self, flow: &Flow) -> Result<(SemaphorePermit<'_>, Share), Verdict> {
        let full = |detail| Verdict::block(Reason::LimitExceeded, detail).retry(SOON);
        let own = self.of_one.take(who(flow), MOST_OF_ONE);
        let own = own.ok_or_else(|| full(format!("{MOST_OF_ONE} fetches of the same client are under way")))?;
        let place = self.all.try_acquire();
        Ok((place.map_err(|_| full(format!("{MOST_FETCHES} fetches are under way")))?, own))
    }
}

/// What a fetch came to.
struct Fetched {
    verdict: Verdict,
    status: StatusCode,
    /// The URL that was asked for, or that the last redirect led to; without query when it is refused.
    url: Option<String>,
    page: Option<(Arc<Answer>, Page)>,
}

/// Answers a request for `/fetch`; its body is not read.
pub(in crate::proxy) async fn fetch<B>(
    session: &Arc<Session>,
    fetches: &Fetches,
    request: &Request<B>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        let verdict = Verdict::block(Reason::RequestMalformed, "ask for /fetch with GET");
        let mut response = refuse(session, request, verdict, StatusCode::METHOD_NOT_ALLOWED).await;
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let _place = match fetches.place(&session.identified()) {
        Ok(place) => place,
        Err(verdict) => return refuse(session, request, verdict, StatusCode::TOO_MANY_REQUESTS).await,
    };
    let asked = place::url_of("url=", request.uri().query()).and_then(|url| place::read(&url, WEB));
    match asked {
        Ok((url, place)) => told(fetched(session, url, place, request.headers().clone()).await),
        Err(verdict) => refuse(session, request, verdict, StatusCode::BAD_REQUEST).await,
    }
}

/// Refuses what is no question, with a receipt.
async fn refuse<B>(
    session: &Session,
    request: &Request<B>,
    verdict: Verdict,
    status: StatusCode,
) -> Response<Full<Bytes>> {
    // What was to be a URL may hold anything, so the receipt does not repeat it.
    let told = session.tell(TRANSPORT, request.method().as_str(), "/fetch", verdict, status).await;
    let status = if told.reason == Reason::RequestMalformed { status } else { rescue::status(told.reason) };
    self::told(Fetched { verdict: told, status, url: None, page: None })
}

/// Follows a URL to its page.
async fn fetched(session: &Arc<Session>, mut url: Url, mut place: Place, mut headers: HeaderMap) -> Fetched {
    let due = Instant::now() + PATIENCE;
    let mut redirects = 0;
    loop {
        let Errand { verdict, target, answer } =
            session.ask(TRANSPORT, (&place, take(&mut headers)), due, MOST_BODY).await;
        let Some(answer) = answer.map(Arc::new) else { return refused(verdict, target) };
        let stopped = match answer.headers.get(header::LOCATION).filter(|_| redirects_with(answer.status)) {
            None => match read(&answer, due).await {
                Ok(page) => {
                    answer.noted().await;
                    let url = Some(url.to_string());
                    return Fetched { verdict, status: StatusCode::OK, url, page: Some((answer, page)) };
                }
                Err((verdict, part)) => session.reject(&answer, verdict, part).await,
            },
            Some(_) if redirects == MOST_REDIRECTS => {
                let detail = format!("more than {MOST_REDIRECTS} redirects");
                session.reject(&answer, Verdict::let_out(Reason::UpstreamFailed, detail), "redirect").await
            }
            Some(location) => match place::redirected(&url, location.as_bytes()) {
                Ok(next) => {
                    (url, place) = next;
                    redirects += 1;
                    continue;
                }
                Err(verdict) => session.reject(&answer, verdict, "redirect").await,
            },
        };
        return refused(stopped, target);
    }
}

fn redirects_with(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The same as [`shown`], which may take long.
async fn read(answer: &Arc<Answer>, due: Instant) -> Result<Page, (Verdict, &'static str)> {
    let answer = answer.clone();
    let undone = |why| match why {
        Undone::Late => Verdict::block(Reason::IdleTimeout, "it took too long as a whole"),
        Undone::Broken => Verdict::block(Reason::Internal, "it could not be read"),
    };
    aside(due, move || shown(&answer)).await.unwrap_or_else(|why| Err((undone(why), "readable text")))
}

/// The page of an answer, read as it is shown where its rule scans.
fn shown(answer: &Answer) -> Result<Page, (Verdict, &'static str)> {
    match Encoded::of(&answer.headers) {
        Ok(encoded) if encoded.is_plain() => {}
        // It was asked for plain; what is in it was scanned, but there is nothing to show.
        Ok(_) => {
            let detail = "the destination compressed what was asked for plain; a client of its own can read it";
            return Err((Verdict::block(Reason::ContentUnreadable, detail), "response body"));
        }
        Err(verdict) => return Err((verdict, "response body")),
    }
    let mut page = page(&answer.headers, &answer.body);
    page.is_cut |= answer.is_cut;
    let read = |text: &mut String, part| {
        *text = answer.read(std::mem::take(text), part).map_err(|verdict| (verdict, part))?;
        Ok(())
    };
    read(&mut page.title, "title")?;
    if let Some(text) = &mut page.text {
        read(text, "readable text")?;
    }
    read(&mut page.hidden, "hidden text")?;
    Ok(page)
}

fn refused(verdict: Verdict, target: String) -> Fetched {
    Fetched { status: rescue::status(verdict.reason), verdict, url: Some(target), page: None }
}

/// What the client is told.
fn told(fetched: Fetched) -> Response<Full<Bytes>> {
    let Fetched { verdict, status, url, page } = fetched;
    let is_blocked = page.is_none();
    let kind = |answer: &Answer| {
        let kind = answer.headers.get(header::CONTENT_TYPE)?;
        Some(String::from_utf8_lossy(kind.as_bytes()).into_owned())
    };
    let mut body = json!({
        "url": url,
        "blocked": is_blocked,
        "reason": verdict.reason.code(),
        "block_reason": is_blocked.then(|| verdict.why()),
        "scanner": is_blocked.then(|| verdict.layer()),
        "rule": verdict.rule,
        "what_to_do": is_blocked.then(|| verdict.reason.hint()),
        "status_code": Value::Null,
    });
    if let Some(seconds) = verdict.retry_seconds() {
        body["retry_after_seconds"] = json!(seconds);
    }
    if let Some((answer, page)) = page {
        body["status_code"] = json!(answer.status.as_u16());
        body["content_type"] = json!(kind(&answer));
        body["title"] = json!(page.title);
        body["content"] = json!(page.text);
        body["truncated"] = json!(page.is_cut);
        body["scanned"] = json!(answer.is_read());
    }
    let mut response = rescue::json(status, Some(verdict.reason), &body);
    rescue::tell_when(&mut response, &verdict);
    response
}

#[cfg(test)]
mod tests;
