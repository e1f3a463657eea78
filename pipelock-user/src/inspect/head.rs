//! Heads: URL, headers and trailers, read whole before anything of a message goes on.
//!
//! Called by `proxy` for each request before its destination is resolved, and for each answer before it is released. It
//! promises that every header is read except those that the proxy writes itself.

use std::net::Ipv4Addr;

use http::header::{self, HeaderName};
use http::{HeaderMap, Method};
use pipelock_scan::{EngineError, Finding};

use super::counts::{Place, Timed};
use super::scanners::Scanners;
use super::terms::{MOST_TOLD, Side, Terms, told};
use crate::flow::{Found, Reason, Verdict};
use crate::policy::FindingAction;

/// Headers of a request that are not read: the proxy checks or writes them itself, and they hold names and numbers only.
const HARMLESS: [HeaderName; 4] = [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];

/// Methods that nobody has chosen for what they say (RFC 9110 §9, RFC 5789).
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// True for a method that may be any word.
pub(crate) fn is_chosen(method: &str) -> bool {
    !METHODS.contains(&method)
}

/// The number of the one session that a client's memory has.
pub(super) const SESSION: u64 = 0;

/// What cannot be read is not let through.
pub(super) fn unread(error: &EngineError) -> Verdict {
    Verdict::block(Reason::ScannerUnavailable, error.to_string())
}

/// The class of what nobody has read.
pub(super) const UNREAD: &str = "unread";

/// What the receipt says of what was packed in a way that is not undone: it was not read.
pub(super) fn unpacked_by_nobody(how: &str, place: &str) -> Found {
    Found {
        is_order: false,
        rule: "packed-unread".into(),
        name: format!("Compressed in a way that is not read: {how}"),
        class: UNREAD.into(),
        severity: "low",
        confidence: "high",
        place: place.to_owned(),
        decoded: Vec::new(),
        mitre: Vec::new(),
        action: FindingAction::Warn.word(),
    }
}

/// Nor is what comes behind an end.
pub(super) fn closed() -> Verdict {
    Verdict::block(Reason::Internal, "a body went on behind its end")
}

impl Terms {
    /// Reads a URL, as a whole and together with what was asked for before; what is to be noted.
    ///
    /// # Errors
    /// [`Reason::DlpMatch`], [`Reason::ScannerUnavailable`].
    pub fn check_url(&self, scanners: &Scanners, url: &str) -> Result<Vec<Found>, Verdict> {
        let _timed = Timed::new(Place::Url);
        let sent = scanners.sessions.url(SESSION, scanners.now(), url).map_err(|error| unread(&error))?;
        let judged = match host_of(url) {
            Some(host) => self.judge_name(scanners, host, sent.findings, "url"),
            None => self.sort(Side::Request, &sent.findings, |_| "url".to_owned()),
        };
        if judged.is_err() {
            scanners.take_back(&sent.tickets);
        }
        judged
    }

    /// Reads a name that is asked for, by itself and together with those before; what is to be noted. What a rule spells out
    /// tells nobody anything.
    ///
    /// # Errors
    /// [`Reason::DlpMatch`], [`Reason::ScannerUnavailable`].
    pub fn check_name(&self, scanners: &Scanners, name: &str) -> Result<Vec<Found>, Verdict> {
        let _timed = Timed::new(Place::Name);
        self.judge_name(scanners, name, Vec::new(), "name")
    }

    /// Judges a name with what was found in the text that it stands in.
    fn judge_name(
        &self,
        scanners: &Scanners,
        name: &str,
        mut findings: Vec<Finding>,
        place: &str,
    ) -> Result<Vec<Found>, Verdict> {
        let sort = |findings: &[Finding]| self.sort(Side::Request, findings, |_| place.to_owned());
        let Some(zone) = &self.zone else { return sort(&findings) };
        let mut sent = scanners.sessions.host(SESSION, scanners.now(), name, zone).map_err(|error| unread(&error))?;
        let is_known = sent.findings.is_empty();
        sent.findings.retain(|found| findings.iter().all(|known| known.rule != found.rule));
        findings.append(&mut sent.findings);
        let judged = sort(&findings);
        match judged {
            Ok(_) if !is_known => scanners.sessions.asked(SESSION, scanners.now(), name),
            Ok(_) => {}
            Err(_) => scanners.take_back(&sent.tickets),
        }
        judged
    }

    /// Reads headers or trailers; what is to be noted.
    ///
    /// # Errors
    /// [`Reason::DlpMatch`], [`Reason::InjectionMatch`], [`Reason::ScannerUnavailable`].
    pub fn check_headers(&self, scanners: &Scanners, side: Side, headers: &HeaderMap) -> Result<Vec<Found>, Verdict> {
        let _timed = Timed::new(Place::Headers);
        let (mut text, mut places) = (Vec::new(), Vec::new());
        let is_read = |name: &HeaderName| side != Side::RequestHead || !HARMLESS.contains(name);
        for (name, value) in headers.iter().filter(|(name, _)| is_read(name)) {
            places.push((text.len() as u64, name));
            // As it is written on the wire, so that rules which want a name before the value find it.
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let findings = scanners.of(side).scan(&text).map_err(|error| unread(&error))?;
        let mut noted = self.sort(side, &findings, |finding| {
            let at = places.partition_point(|(start, _)| *start <= finding.span.start).saturating_sub(1);
            places.get(at).map_or_else(|| "header".to_owned(), |(_, name)| place_of(scanners, name))
        })?;
        if side.is_outbound() {
            let mut sent = Vec::new();
            for (name, value) in headers.iter().filter(|(name, _)| is_read(name)) {
                let place = || place_of(scanners, name);
                match self.check_piece(scanners, side, ("header", name), value.as_bytes(), place) {
                    Ok((more, tickets)) => {
                        noted.extend(more);
                        sent.extend(tickets);
                    }
                    Err(verdict) => {
                        scanners.take_back(&sent);
                        return Err(verdict);
                    }
                }
            }
            noted.truncate(MOST_TOLD);
        }
        Ok(noted)
    }

    /// Reads the method of a request, which a client may choose like any other word; what is to be noted.
    ///
    /// # Errors
    /// [`Reason::DlpMatch`], [`Reason::ScannerUnavailable`].
    pub fn check_method(&self, scanners: &Scanners, method: &Method) -> Result<Vec<Found>, Verdict> {
        if !is_chosen(method.as_str()) {
            return Ok(Vec::new());
        }
        // What a rule lets pass in headers is meant for headers.
        let side = Side::Request;
        let text = method.as_str().as_bytes();
        let findings = scanners.of(side).scan(text).map_err(|error| unread(&error))?;
        let mut noted = self.sort(side, &findings, |_| "method".to_owned())?;
        let (more, _) = self.check_piece(scanners, side, ("method", ""), text, || "method".to_owned())?;
        noted.extend(more);
        Ok(noted)
    }

    /// Reads a text that goes nowhere yet, and remembers nothing of it; what is to be noted.
    ///
    /// # Errors
    /// [`Reason::DlpMatch`], [`Reason::InjectionMatch`], [`Reason::ContentUnreadable`], [`Reason::ScannerUnavailable`].
    pub fn check_text(&self, scanners: &Scanners, side: Side, place: &str, text: &str) -> Result<Vec<Found>, Verdict> {
        // What is asked about is not given to the agent: it may be its own.
        let findings = scanners.again(side).scan(text.as_bytes()).map_err(|error| unread(&error))?;
        self.sort(side, &findings, |_| place.to_owned())
    }

    /// What is to be noted of findings in something that cannot be changed.
    pub(super) fn sort(
        &self,
        side: Side,
        findings: &[Finding],
        place: impl Fn(&Finding) -> String,
    ) -> Result<Vec<Found>, Verdict> {
        let mut all: Vec<Found> = Vec::new();
        for finding in findings {
            // Nothing is taken out of a head: a URL with another query, or a header with another value, is another request.
            let action = match self.action(side, finding) {
                FindingAction::Redact => FindingAction::Block,
                action => action,
            };
            if action != FindingAction::Off && (all.len() < MOST_TOLD || action == FindingAction::Block) {
                all.push(told(finding, &place(finding), action));
            }
        }
        if all.iter().any(|found| found.action == "block") {
            all.sort_by_key(|found| found.action != "block");
            return Err(self.stop(side, all));
        }
        Ok(all)
    }
}

/// A header by its name, which may be what was found.
fn place_of(scanners: &Scanners, name: &HeaderName) -> String {
    format!("header {}", scanners.without_secrets(name.as_str().to_owned()))
}

/// The name in a URL of ours; none of an address.
fn host_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let host = rest.split(['/', '?', '#']).next()?.split(':').next()?;
    let is_addr = host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok();
    (!is_addr).then_some(host)
}
