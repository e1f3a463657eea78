//! Puts the scanner between the agent and a destination: heads before anything is sent, small bodies whole, large ones as
//! they stream by.
//!
//! Called by `serve` for the requests of a rule that scans. It promises that nothing of a request leaves, DNS included,
//! before its URL and headers were read, and that a body which is read whole was let through before any of it goes on.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::afterword::Afterword;
use super::arriving::Arriving;
use super::authority::Authority;
use super::errand::Withheld;
use super::headers::{announce, without};
use super::passing::{Broken, Failure, Passing, Read};
use super::upstream::Carrier;
use crate::flow::{Found, Reason, Verdict};
use crate::inspect::{Encoded, Form, Messages, Reader, Scanners, Side, Terms};
use crate::policy::Rule;
use crate::proxy::git::push::Push;
use crate::proxy::state::Rules;
use crate::proxy::ws;

/// Bodies of a declared length up to this are read whole: a request that is refused then leaves nothing behind, …
const WHOLE_REQUEST: u64 = 64 * 1024;
/// … as are pushes of git's, which sends up to this in one piece (`http.postBuffer`): it shows who runs it only an answer of its own.
const WHOLE_PUSH: u64 = 1024 * 1024;
/// … and an answer that is refused is a denial that the agent can read.
const WHOLE_ANSWER: u64 = 256 * 1024;
/// What says how a body was (RFC 9530, RFC 9110 §14.4).
const DESCRIBING: [&str; 6] =
    ["digest", "content-digest", "repr-digest", "content-md5", "content-range", "x-amz-content-sha256"];
/// What the scanner undoes.
const CODINGS: [&str; 7] = ["gzip", "x-gzip", "deflate", "br", "zstd", "identity", "*"];

/// The scanner, for one request and its answer.
#[derive(Clone)]
pub(super) struct Reading {
    scanners: Arc<Scanners>,
    terms: Arc<Terms>,
    pub(super) afterword: Arc<Afterword>,
}

impl Reading {
    /// The reading that a rule wants of a client; none when it wants none.
    ///
    /// # Errors
    /// [`Reason::ScannerUnavailable`].
    pub(super) async fn of(
        rules: &Rules,
        rule: &Rule,
        client: Option<&str>,
        afterword: impl FnOnce() -> Arc<Afterword>,
    ) -> Result<Option<Self>, Verdict> {
        let Some(terms) = Terms::of(&rules.policy, rule) else { return Ok(None) };
        let unavailable = || Verdict::block(Reason::ScannerUnavailable, "this policy was loaded without a scanner");
        let scanners = rules.inspect.as_ref().ok_or_else(unavailable)?.ready(client).await?;
        Ok(Some(Self { scanners, terms, afterword: afterword() }))
    }

    /// Reads method, URL and headers of a request, those that go nowhere too, and asks for an answer that can be read; what is to be
    /// noted, and what somebody has to be asked about.
    ///
    /// # Errors
    /// [`Reason::DlpMatch`], [`Reason::ContentUnreadable`].
    pub(super) fn head(
        &self,
        (method, url): (&Method, &str),
        headers: &mut HeaderMap,
        withheld: Option<&Withheld>,
    ) -> Result<(Vec<Found>, Option<Verdict>), Verdict> {
        let (mut noted, mut wanted) = (Vec::new(), None);
        let mut keep = |read: Result<Vec<Found>, Verdict>| {
            match read {
                Ok(found) => noted.extend(found),
                Err(found) if found.is_askable() => found.add_to(&mut wanted),
                Err(denied) => return Err(denied),
            }
            Ok(())
        };
        keep(self.terms.check_method(&self.scanners, method))?;
        keep(self.terms.check_url(&self.scanners, url))?;
        for headers in std::iter::once(&*headers).chain(withheld.map(|withheld| &withheld.0)) {
            keep(self.terms.check_headers(&self.scanners, Side::RequestHead, headers))?;
        }
        Encoded::of(headers)?;
        ask_readable(headers);
        Ok((noted, wanted))
    }

    /// Reads the headers of an answer.
    ///
    /// # Errors
    /// [`Reason::InjectionMatch`].
    pub(super) fn answer_head(&self, side: Side, headers: &HeaderMap) -> Result<(), Verdict> {
        let noted = self.terms.check_headers(&self.scanners, side, headers)?;
        self.afterword.note(noted, "response headers");
        Ok(())
    }

    /// What reads the messages of a connection that was upgraded.
    pub(super) fn messages(&self) -> ws::Reading {
        let of = |side| Messages::new(&self.scanners, &self.terms, side);
        ws::Reading { out: of(Side::Request), inn: of(Side::Response) }
    }

    /// The scanners that it is read with.
    pub(super) fn scanners(&self) -> &Arc<Scanners> {
        &self.scanners
    }

    /// The body of a request, to be sent, and what somebody has to be asked about before.
    ///
    /// # Errors
    /// [`Reason::DlpMatch`] when it was read whole; what is said when it cannot be read to its end.
    pub(super) async fn request(
        &self,
        request: Request<Arriving>,
    ) -> Result<(Request<Passing>, Option<Verdict>), Verdict> {
        let (mut head, body) = request.into_parts();
        if body.is_end_stream() {
            return Ok((Request::from_parts(head, Passing::Unread(body)), None));
        }
        let whole = if head.extensions.get::<Arc<Push>>().is_some() { WHOLE_PUSH } else { WHOLE_REQUEST };
        let (body, wanted) = self.body(&mut head.headers, body, Side::Request, whole).await?;
        Ok((Request::from_parts(head, body), wanted))
    }

    /// The answer, to be released.
    ///
    /// # Errors
    /// [`Reason::InjectionMatch`], [`Reason::ContentUnreadable`]; what is said when it cannot be read to its end.
    pub(super) async fn response(&self, response: Response<Arriving>) -> Result<Response<Passing>, Verdict> {
        let (mut head, body) = response.into_parts();
        let side = side_of(&head.headers);
        self.answer_head(side, &head.headers)?;
        if body.is_end_stream() {
            return Ok(Response::from_parts(head, Passing::Unread(body)));
        }
        if head.status == StatusCode::PARTIAL_CONTENT && !Encoded::of(&head.headers)?.is_plain() {
            let detail = "a part of a compressed answer; ask for it without Range, or with Accept-Encoding: identity";
            return Err(Verdict::block(Reason::ContentUnreadable, detail));
        }
        // Nobody is asked about what comes in.
        let (body, _) = self.body(&mut head.headers, body, side, WHOLE_ANSWER).await?;
        Ok(Response::from_parts(head, body))
    }

    /// Text that was made of an answer; what may be shown of it. What is `known` is not noted again.
    ///
    /// # Errors
    /// [`Reason::InjectionMatch`], [`Reason::ScannerUnavailable`].
    pub(super) fn text(&self, text: String, part: &'static str, known: &[Found]) -> Result<String, Verdict> {
        let mut reader = Reader::new(&self.scanners, &self.terms, Side::Response, Encoded::Plain)?;
        reader.whole(Bytes::from(text))?;
        let mut noted = reader.noted();
        noted.retain(|found| known.iter().all(|known| known.rule != found.rule));
        self.afterword.note(noted, part);
        let mut shown = Vec::new();
        while let Some(bytes) = reader.take() {
            shown.extend_from_slice(&bytes);
        }
        Ok(String::from_utf8_lossy(&shown).into_owned())
    }

    async fn body(
        &self,
        headers: &mut HeaderMap,
        body: Arriving,
        side: Side,
        whole: u64,
    ) -> Result<(Passing, Option<Verdict>), Verdict> {
        let encoded = Encoded::of(headers)?;
        let mut reader = Reader::in_steps(&self.scanners, &self.terms, side, encoded)?;
        let is_redacted = encoded.is_changeable() && self.terms.may_redact(side);
        let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if let Some(form) = Form::of(kind) {
            reader = reader.of_events(form);
        }
        if body.size_hint().exact().is_some_and(|length| length <= whole) {
            let part = if side.is_outbound() { "request body" } else { "response body" };
            let read = read_whole(body, &mut reader, side).await;
            self.afterword.note(reader.noted_unread(), part);
            let (bytes, trailers, wanted) = read?;
            let mut noted = reader.noted();
            if let Some(trailers) = &trailers {
                noted.extend(self.terms.check_headers(&self.scanners, side, trailers)?);
            }
            self.afterword.note(noted, part);
            if wanted.is_none() && reader.has_replaced() {
                unsay(headers);
            }
            // The answer to HEAD has a length and no body.
            if headers.contains_key(header::CONTENT_LENGTH) && !bytes.is_empty() {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
            }
            return Ok((Passing::Whole(Some(bytes), trailers), wanted));
        }
        if is_redacted {
            // Nobody knows yet whether something will be taken out. A part of an answer is none without its range.
            let is_out = side.is_outbound();
            without(headers, |name| {
                *name == header::CONTENT_LENGTH
                    || DESCRIBING.contains(&name.as_str()) && (is_out || *name != header::CONTENT_RANGE)
            });
        }
        let shared = (&self.scanners, &self.terms);
        let mut read = Box::new(Read::new(body, reader, shared, side, &self.afterword, is_redacted));
        if !side.is_outbound() {
            read.ahead().await.map_err(|broken| match broken {
                Broken::Stopped(verdict) => verdict,
                Broken::Failed(error) => broken_off(&error, side),
            })?;
            read.trailers().into_iter().for_each(|trailers| announce(headers, trailers));
        }
        Ok((Passing::Read(read), None))
    }
}

/// Takes that out of the headers of a body that is another now.
fn unsay(headers: &mut HeaderMap) {
    without(headers, |name| DESCRIBING.contains(&name.as_str()));
}

/// Reads a body to its end; as it came, where somebody has to be asked about it.
async fn read_whole(
    mut body: Arriving,
    reader: &mut Reader,
    side: Side,
) -> Result<(Bytes, Option<HeaderMap>, Option<Verdict>), Verdict> {
    let (mut all, mut more, mut trailers) = (Bytes::new(), BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = match frame {
            Ok(frame) => frame,
            Err(error) => {
                // What came of it may say more than that it is not whole.
                let mut came = if more.is_empty() { all } else { more.freeze() };
                while !came.is_empty() {
                    reader.push(came.split_to(reader.step(&came)))?;
                    tokio::task::yield_now().await;
                }
                return Err(broken_off(&error, side));
            }
        };
        match frame.into_data() {
            // Mostly there is one piece, which then is copied nowhere.
            Ok(bytes) if all.is_empty() => all = bytes,
            Ok(bytes) => {
                if more.is_empty() {
                    more.extend_from_slice(&all);
                }
                more.extend_from_slice(&bytes);
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let all = if more.is_empty() { all } else { more.freeze() };
    // What is packed may hold a thousand times as much, and others have their turn meanwhile.
    while reader.read_ahead(&all)? {
        tokio::task::yield_now().await;
    }
    match reader.whole(all.clone()) {
        Err(found) if found.is_askable() => return Ok((all, trailers, Some(found))),
        read => read?,
    }
    let first = reader.take().unwrap_or_default();
    let Some(second) = reader.take() else { return Ok((first, trailers, None)) };
    let mut kept = BytesMut::from(&first[..]);
    kept.extend_from_slice(&second);
    while let Some(more) = reader.take() {
        kept.extend_from_slice(&more);
    }
    Ok((kept.freeze(), trailers, None))
}

fn broken_off(error: &Failure, side: Side) -> Verdict {
    if side.is_outbound() {
        Verdict::block(Reason::ClientAborted, format!("the body was broken off: {error}"))
    } else {
        Verdict::let_out(Reason::UpstreamFailed, format!("the answer was broken off: {error}"))
    }
}

/// Leaves of `Accept-Encoding` what the scanner undoes, and of a part asks for the plain bytes (RFC 9110 §12.5.3, §14.2).
fn ask_readable(headers: &mut HeaderMap) {
    let wanted: Vec<String> = headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|coding| coding.trim().to_owned())
        .collect();
    if wanted.is_empty() && !headers.contains_key(header::ACCEPT_ENCODING) {
        return;
    }
    let is_part = headers.contains_key(header::RANGE);
    let streams = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|kind| Form::of(kind.trim().as_bytes()).is_some()));
    let name_of = |coding: &str| coding.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let names_gzip = wanted.iter().any(|coding| name_of(coding) == "gzip");
    let kept: Vec<String> = wanted
        .into_iter()
        .filter(|coding| {
            let name = name_of(coding);
            !is_part && !streams && CODINGS.contains(&name.as_str()) && (name != "*" || !names_gzip)
        })
        // A wildcard would invite what cannot be undone; what it says of its worth holds for what takes its place.
        .map(|coding| match coding.strip_prefix('*') {
            Some(worth) => format!("gzip{worth}"),
            None => coding,
        })
        .collect();
    let value = if kept.is_empty() { "identity".to_owned() } else { kept.join(", ") };
    if let Ok(value) = HeaderValue::from_str(&value) {
        headers.insert(header::ACCEPT_ENCODING, value);
    }
}

/// Whether an answer is text by its own word. Without a word, it is.
fn side_of(headers: &HeaderMap) -> Side {
    let mut said = headers.get_all(header::CONTENT_TYPE).iter();
    // Of two words nobody knows which one counts.
    let (Some(Ok(kind)), None) = (said.next().map(HeaderValue::to_str), said.next()) else { return Side::Response };
    if kind.contains(',') {
        return Side::Response;
    }
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (family, form) = kind.split_once('/').unwrap_or((&kind, ""));
    let is_packed = |form: &str| {
        matches!(
            form,
            "octet-stream"
                | "gzip"
                | "x-gzip"
                | "zip"
                | "x-tar"
                | "x-gtar"
                | "zstd"
                | "x-bzip2"
                | "x-xz"
                | "wasm"
                | "java-archive"
                | "x-7z-compressed"
                | "vnd.debian.binary-package"
                | "x-rpm"
        ) || form.ends_with("+gzip")
            || form.ends_with("+zip")
    };
    match family {
        "image" if form != "svg+xml" => Side::Binary,
        "audio" | "video" | "font" => Side::Binary,
        "application" if is_packed(form) => Side::Binary,
        _ => Side::Response,
    }
}

/// The URL that is read: with the query, and without a port that goes without saying.
pub(super) fn url(carrier: Carrier, authority: &Authority, uri: &Uri) -> String {
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let Authority { host, port } = authority;
    if *port == carrier.default_port() {
        return format!("{}://{host}{path}", carrier.scheme());
    }
    format!("{}://{host}:{port}{path}", carrier.scheme())
}

#[cfg(test)]
#[path = "reading_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "clients_tests.rs"]
mod clients_tests;
