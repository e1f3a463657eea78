//! Reads what a push would change before anything of it is sent, and tells git what may not.
//!
//! Called by `serve` for requests of rules that tell git from others. It promises that of a push which is not wholly allowed
//! nothing goes on, and that one which is goes on from its first byte, through the scanner as any other.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt as _;

use super::arriving::Arriving;
use super::passing::Passing;
use super::reading::Reading;
use super::serve::Session;
use crate::flow::{Action, Reason, Verdict};
use crate::policy::{GitRequest, Rule};
use crate::proxy::git::push::{Commands, Push, Unread};
use crate::proxy::git::{self, report};
use crate::proxy::state::Rules;

/// What the body of a push is, by its own word.
const PUSH: &str = "application/x-git-receive-pack-request";
/// References that the answer to a push names; its receipt names one.
const MAX_TOLD: usize = 10;

/// A push that goes nowhere, with the answer if git is told in its own words.
type Denied = (Verdict, Option<Response<Passing>>);

impl Session {
    /// A request that may go on, as far as its rule says what git may do.
    ///
    /// # Errors
    /// [`Reason::GitDenied`] and the answer; what is said when the commands cannot be read.
    pub(super) async fn check_push(
        &self,
        rules: &Rules,
        rule: &Rule,
        request: Request<Arriving>,
        reading: Option<&Reading>,
    ) -> Result<Request<Arriving>, Denied> {
        let (Some(_), Some(GitRequest::Push(repository))) = (rule.git(), git::asked(&request)) else {
            return Ok(request);
        };
        let malformed = |what: &str| (Verdict::block(Reason::RequestMalformed, what), None);
        let headers = request.headers();
        if headers.contains_key(header::CONTENT_ENCODING) {
            return Err(malformed("a push has no Content-Encoding; git does not compress it a second time"));
        }
        if headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != PUSH) {
            return Err(malformed("the Content-Type of a push is another than git's"));
        }
        let (mut head, mut body) = request.into_parts();
        let stopped = |ended: Verdict| {
            // Nothing has left, whatever it was.
            let ended = self.refused.of_body().map_or(ended, |refusal| refusal.verdict());
            (Verdict { action: Action::Block, ..ended }, None)
        };
        let (push, before) = self.in_time(rules, commands(&mut body)).await.map_err(stopped)?;
        let denied = denied(rule, &repository, &push, reading);
        if denied.is_empty() {
            head.extensions.insert(Arc::new(push));
            return Ok(Request::from_parts(head, body.after(before)));
        }
        let verdict = Verdict::block(Reason::GitDenied, denied.join("; "));
        if !push.wants_report {
            return Err((verdict, None));
        }
        // Who still sends does not read, so that the answer would be lost with the connection.
        if self.in_time(rules, drain(&mut body)).await.is_err() {
            return Err((verdict, None));
        }
        let response = refused(&push, &denied, verdict.reason);
        Err((verdict, Some(response)))
    }
}

/// What git is told of a push that the scanner has stopped, if it is still to be told: nothing of it has left, all of it was read,
/// and it wants a report.
pub(super) fn stopped(push: &Push, verdict: &Verdict) -> Option<Response<Passing>> {
    let is_read = matches!(verdict.reason, Reason::DlpMatch | Reason::InjectionMatch);
    let why = [verdict.why().to_owned(), verdict.reason.hint().to_owned()];
    (verdict.is_block() && is_read && push.wants_report).then(|| refused(push, &why, verdict.reason))
}

/// The answer to a push of which nothing was done, in words of git's.
fn refused(push: &Push, why: &[String], reason: Reason) -> Response<Passing> {
    let answer = report::refused(push, why);
    let mut response = Response::new(Passing::Whole(Some(Bytes::from(answer)), None));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(report::CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-pipelock-reason", HeaderValue::from_static(reason.code()));
    response
}

/// Reads a push as far as it says what it changes; with the bytes that were read.
async fn commands(body: &mut Arriving) -> Result<(Push, Bytes), Verdict> {
    let unread = |unread: Unread| Verdict::block(unread.reason(), unread.to_string());
    let (mut commands, mut before) = (Commands::default(), BytesMut::new());
    loop {
        let piece = piece(body).await?.ok_or_else(|| unread(Unread::Cut))?;
        before.extend_from_slice(&piece);
        if let Some(push) = commands.read(&before).map_err(unread)? {
            if push.commands.is_empty() && (before.len() > commands.end() || !is_over(body).await?) {
                return Err(unread(Unread::Behind));
            }
            return Ok((push, before.freeze()));
        }
        // What is not whole yet is within the limit of all commands: a packet that would end beyond it was refused.
    }
}

/// True when no byte follows.
async fn is_over(body: &mut Arriving) -> Result<bool, Verdict> {
    while let Some(piece) = piece(body).await? {
        if !piece.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The next bytes of a body; none at its end, and for trailers, which a push has not.
async fn piece(body: &mut Arriving) -> Result<Option<Bytes>, Verdict> {
    match body.frame().await {
        None => Ok(None),
        Some(Ok(frame)) => match frame.into_data() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(_) => Err(Verdict::block(Reason::RequestMalformed, "a push has no trailers")),
        },
        Some(Err(error)) => Err(Verdict::block(Reason::ClientAborted, format!("the body was broken off: {error}"))),
    }
}

/// Takes in what git still sends.
async fn drain(body: &mut Arriving) -> Result<(), Verdict> {
    while piece(body).await?.is_some() {}
    Ok(())
}

/// What of a push is not allowed, a line each; nothing when all of it is. Names that hold secrets are not repeated.
fn denied(rule: &Rule, repository: &str, push: &Push, reading: Option<&Reading>) -> Vec<String> {
    let options = push.has_options.then(|| rule.check_push_options(repository).err()).flatten();
    let refs = push.commands.iter().filter_map(|one| rule.check_ref(repository, &one.name, one.is_delete).err());
    let mut denied: Vec<String> = options
        .into_iter()
        .chain(refs)
        .take(MAX_TOLD + 1)
        .map(|line| reading.map_or_else(|| line.clone(), |reading| reading.scanners().without_secrets(line.clone())))
        .collect();
    if denied.len() > MAX_TOLD {
        denied.truncate(MAX_TOLD);
        denied.push("and others".to_owned());
    }
    denied
}

#[cfg(test)]
#[path = "pushing_tests.rs"]
mod tests;
