//! The verdict on a question: by the same rooms that decide about requests.
//!
//! Called by `api`. It promises a receipt for every verdict, and that what is asked about goes nowhere.

use std::sync::Arc;

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::question::Kind;
use super::{Refusal, TRANSPORT};
use crate::flow::{Found, Reason, Verdict};
use crate::inspect::{Scanners, Side, Terms};
use crate::proxy::aside::{Undone, aside};
use crate::proxy::http::Session;
use crate::proxy::http::place::{WEB, read};
use crate::proxy::state::Rules;

/// What receipts call the method of a question that has none.
const METHOD: &str = "SCAN";

/// Judges, and writes it down.
///
/// # Errors
/// [`Refusal`]: the question cannot be answered, or not in time.
pub(super) async fn judge(session: &Arc<Session>, kind: Kind, due: Instant) -> Result<Verdict, Refusal> {
    let word = kind.word();
    let texts = match kind {
        Kind::Url { url, method } => return of_url(session, &url, &method, due).await,
        Kind::Dlp(text) => vec![(Side::Request, "text", text)],
        Kind::Injection(content) => vec![(Side::Response, "content", content)],
        Kind::Tool { name, arguments } => {
            vec![(Side::Request, "tool_name", name), (Side::Request, "arguments", arguments)]
        }
    };
    let rules = session.proxy.rules();
    let scanners = tokio::time::timeout_at(due, scanners(&rules, session)).await.map_err(|_| Refusal::late())?;
    let read = match scanners {
        Ok(scanners) => {
            let rules = rules.clone();
            aside(due, move || of_texts(&rules, &scanners, &texts)).await.map_err(|why| match why {
                Undone::Late => Refusal::late(),
                Undone::Broken => Refusal::broken(),
            })?
        }
        Err(verdict) => Err(verdict),
    };
    let verdict = match read {
        Ok(noted) => Verdict::allow(Reason::PolicyAllow, None).with(noted),
        Err(verdict) if verdict.reason == Reason::ScannerUnavailable => {
            return Err(Refusal::without_scanner(&verdict.detail));
        }
        // No rule has decided: there is no destination.
        Err(verdict) => verdict.by(None),
    };
    let asked = (TRANSPORT, METHOD, &*format!("scan://{word}"));
    Ok(session.tell_by(&rules, asked, verdict, StatusCode::OK).await)
}

async fn of_url(session: &Arc<Session>, url: &str, method: &str, due: Instant) -> Result<Verdict, Refusal> {
    let read = Method::from_bytes(method.as_bytes())
        .map_err(|_| Verdict::block(Reason::RequestMalformed, "that is no method of HTTP"))
        .and_then(|method| Ok((method, read(url, WEB)?.1)));
    let (method, place) = match read {
        Ok(read) => read,
        // A verdict as well: no door would let it through.
        Err(verdict) => return Ok(session.tell(TRANSPORT, METHOD, "scan://url", verdict, StatusCode::OK).await),
    };
    let verdict = session.ask_about(TRANSPORT, (method, &place), due).await.verdict;
    if verdict.reason == Reason::ScannerUnavailable {
        let is_late = Instant::now() >= due;
        let refusal = if is_late { Refusal::late() } else { Refusal::without_scanner(&verdict.detail) };
        return Err(Refusal { is_told: true, ..refusal });
    }
    Ok(verdict)
}

async fn scanners(rules: &Rules, session: &Session) -> Result<Arc<Scanners>, Verdict> {
    let unavailable = || Verdict::block(Reason::ScannerUnavailable, "this policy was loaded without a scanner");
    rules.inspect.as_ref().ok_or_else(unavailable)?.ready(session.remembered(TRANSPORT).as_deref()).await
}

fn of_texts(rules: &Rules, scanners: &Scanners, texts: &[(Side, &'static str, String)]) -> Result<Vec<Found>, Verdict> {
    let terms = Terms::general(&rules.policy);
    let mut noted = Vec::new();
    for (side, place, text) in texts {
        noted.extend(terms.check_text(scanners, *side, place, text)?);
    }
    Ok(noted)
}
