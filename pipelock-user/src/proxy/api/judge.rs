//! The verdict on a question: by the same rooms that decide about requests.
//!
//! Called by `api`. It promises a receipt for every verdict, and that what is asked about goes nowhere.

use std::sync::Arc;

use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::question::Kind;
use super::{Refusal, TRANSPORT};
use crate::flow::{Found, Reason, Verdict};
use crate::inspect::{Scanners, Side, Terms};
use crate::proxy::fetch;
use crate::proxy::http::Session;
use crate::proxy::state::Rules;

/// What receipts call the method of a question that has none.
const METHOD: &str = "SCAN";

/// Judges, and writes it down.
///
/// # Errors
/// [`Refusal`]: the question cannot be answered, or not in time.
pub(super) async fn judge(session: &Arc<Session>, kind: Kind, due: Instant) -> Result<Verdict, Refusal> {
    let word = kind.word();
    let verdict = match kind {
        Kind::Url { url, method } => return of_url(session, &url, &method, due).await,
        kind => {
            let rules = session.proxy.rules();
            let scanners = tokio::time::timeout_at(due, scanners(&rules)).await.map_err(|_| Refusal::late())?;
            match scanners.and_then(|scanners| of_text(&rules, &scanners, kind)) {
                Ok(noted) => Verdict::allow(Reason::PolicyAllow, None).with(noted),
                // No rule has decided: there is no destination.
                Err(verdict) => verdict.by(None),
            }
        }
    };
    Ok(session.tell(TRANSPORT, METHOD, &format!("scan://{word}"), verdict).await)
}

async fn of_url(session: &Arc<Session>, url: &str, method: &str, due: Instant) -> Result<Verdict, Refusal> {
    let read = Method::from_bytes(method.as_bytes())
        .map_err(|_| Verdict::block(Reason::RequestMalformed, "that is no method of HTTP"))
        .and_then(|method| Ok((method, fetch::place_of(url)?)));
    let (method, place) = match read {
        Ok(read) => read,
        // A verdict as well: no door would let it through.
        Err(verdict) => return Ok(session.tell(TRANSPORT, METHOD, "scan://url", verdict).await),
    };
    let record = session.ask_about(TRANSPORT, (method, &place), due).await;
    if record.verdict.reason == Reason::IdleTimeout {
        return Err(Refusal::late());
    }
    Ok(record.verdict)
}

async fn scanners(rules: &Rules) -> Result<Arc<Scanners>, Verdict> {
    let unavailable = || Verdict::block(Reason::ScannerUnavailable, "this policy was loaded without a scanner");
    rules.inspect.as_ref().ok_or_else(unavailable)?.ready().await
}

fn of_text(rules: &Rules, scanners: &Scanners, kind: Kind) -> Result<Vec<Found>, Verdict> {
    let terms = Terms::general(&rules.policy);
    match kind {
        Kind::Url { .. } => Ok(Vec::new()),
        Kind::Dlp(text) => terms.check_text(scanners, Side::Request, "text", &text),
        Kind::Injection(content) => terms.check_text(scanners, Side::Response, "content", &content),
        Kind::Tool { name, arguments } => {
            let mut noted = terms.check_text(scanners, Side::Request, "tool_name", &name)?;
            // As it would be sent, and as its texts read.
            let mut texts = arguments.to_string();
            texts.push('\n');
            read_out(&arguments, &mut texts);
            noted.extend(terms.check_text(scanners, Side::Request, "arguments", &texts)?);
            Ok(noted)
        }
    }
}

/// The texts of a value, names among them, a line each. Its depth is bounded by whoever parsed it.
fn read_out(value: &Value, texts: &mut String) {
    match value {
        Value::String(text) => {
            texts.push_str(text);
            texts.push('\n');
        }
        Value::Array(items) => items.iter().for_each(|item| read_out(item, texts)),
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            texts.push_str(name);
            texts.push('\n');
            read_out(value, texts);
        }),
        _ => {}
    }
}
