//! URLs, before they leave: [`Scanner::scan_url`]. Called per request by whoever sends it.
//!
//! The text of the URL is scanned as any text; beside that host labels, path segments and query keys and values are
//! judged one by one for data that no rule knows, and put end to end for secrets cut up between them. Promises: linear, no
//! panic, whatever the text; spans count bytes of the URL.

use std::borrow::Cow;
use std::ops::Range;

use crate::engine::EngineError;
use crate::entropy;
use crate::finding::{Finding, Step, excerpt};
use crate::rule::builtin::{self, Builtin};
use crate::rule::{Kind, is_telling};
use crate::scanner::Scanner;
use crate::stream::{self, Stream};

/// What of a URL is judged, and how strictly.
#[derive(Clone, Debug, Default)]
pub struct UrlOptions {
    /// Zones (`example.com`, `*.example.com`) whose hosts, paths and queries are not judged for random data. Rules count there
    /// too.
    pub exclusions: Vec<String>,
    /// From when on a part counts as random.
    pub limits: entropy::Limits,
}

/// Where the parts of a URL lie, as far as it has any (RFC 3986, section 3).
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub(crate) host: Range<usize>,
    /// Path segments that are not empty.
    pub(crate) segments: Vec<Range<usize>>,
    /// Query keys and values, the key empty where there is none.
    pub(crate) query: Vec<(Range<usize>, Range<usize>)>,
}

/// Most parts of one URL that are judged one by one; the text as a whole is scanned to its end.
const MOST_PARTS: usize = 256;

impl Parts {
    pub(crate) fn of(url: &str) -> Self {
        let bytes = url.as_bytes();
        let find = |from: usize, marks: &[u8]| {
            bytes[from..].iter().position(|byte| marks.contains(byte)).map_or(bytes.len(), |at| from + at)
        };
        let start = url.find("://").map_or(0, |at| at + 3);
        let authority = start..find(start, b"/?#");
        let user = bytes[authority.clone()].iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
        let mut host = authority.start + user..authority.end;
        if let Some(port) = url[host.clone()].rfind(':').filter(|at| !url[host.clone()][*at..].contains(']')) {
            host.end = host.start + port;
        }
        let path = authority.end..find(authority.end, b"?#");
        let query = (path.end + 1).min(bytes.len())..find(path.end.min(bytes.len()), b"#");
        let pieces = |range: Range<usize>, marks: &'static [u8]| {
            let mut at = range.start;
            let text = bytes.get(range).unwrap_or_default();
            text.split(move |byte| marks.contains(byte))
                .map(move |piece| {
                    let start = at;
                    at += piece.len() + 1;
                    start..start + piece.len()
                })
                .filter(|piece| !piece.is_empty())
                .take(MOST_PARTS)
        };
        let pair = |piece: Range<usize>| match bytes[piece.clone()].iter().position(|byte| *byte == b'=') {
            Some(at) => (piece.start..piece.start + at, piece.start + at + 1..piece.end),
            None => (piece.start..piece.start, piece),
        };
        Self { host, segments: pieces(path, b"/").collect(), query: pieces(query, b"&;").map(pair).collect() }
    }
}

/// A part of a query or a form (WHATWG URL standard, §5.1): percent-decoded, `+` as a space.
pub fn decoded(part: &[u8]) -> Cow<'_, [u8]> {
    if !part.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(part);
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut out = Vec::with_capacity(part.len());
    let mut at = 0;
    while let Some(&byte) = part.get(at) {
        let pair = part.get(at + 1).and_then(digit).zip(part.get(at + 2).and_then(digit));
        match (byte, pair) {
            (b'%', Some((high, low))) => {
                out.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(out)
}

/// Whether a letter or a digit stands there that is percent-encoded three times over or more.
fn veiled(part: &[u8]) -> bool {
    let digit = |at: usize| part.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    (0..part.len()).filter(|at| part[*at] == b'%').any(|at| {
        let times = part[at + 1..].chunks_exact(2).take_while(|pair| pair == b"25").count();
        let behind = at + 1 + 2 * times;
        let inner = digit(behind).zip(digit(behind + 1)).map(|(high, low)| (high * 16 + low) as u8);
        times >= 2 && inner.is_some_and(|byte| byte.is_ascii_alphanumeric())
    })
}

impl Scanner {
    /// What is in a URL: all that [`scan`](Self::scan) finds, and data in host labels, path segments and queries.
    ///
    /// # Errors
    /// [`EngineError`]: the URL must then be taken for dirty.
    pub fn scan_url(&self, url: &str) -> Result<Vec<Finding>, EngineError> {
        let mut findings = self.scan(url.as_bytes())?;
        let parts = Parts::of(url);
        self.together(url, &parts, &mut findings)?;
        let options = &self.core.urls;
        let host = url.get(parts.host.clone()).unwrap_or_default();
        if entropy::excluded(host, &options.exclusions) {
            return Ok(findings);
        }
        if self.has(&builtin::HOST) && entropy::host(host, &options.exclusions).is_some() {
            self.judge(url, &parts.host, &builtin::HOST, &mut findings);
        }
        if self.has(&builtin::PART) {
            let query = parts.query.iter().flat_map(|(key, value)| [key, value]);
            for part in parts.segments.iter().chain(query) {
                if entropy::url_part(&decoded(&url.as_bytes()[part.clone()]), options.limits) {
                    self.judge(url, part, &builtin::PART, &mut findings);
                }
            }
        }
        if self.has(&builtin::VEILED) && url.contains("%2525") {
            let query = parts.query.iter().flat_map(|(key, value)| [key, value]);
            for part in parts.segments.iter().chain(query).filter(|part| veiled(&url.as_bytes()[(*part).clone()])) {
                self.judge(url, part, &builtin::VEILED, &mut findings);
            }
        }
        findings.sort_by_key(|finding| finding.span.start);
        Ok(findings)
    }

    pub(crate) fn has(&self, builtin: &Builtin) -> bool {
        self.core.rules.builtin(builtin.id).is_some()
    }

    /// Adds the finding that a part looks like data, unless something better was found in it.
    fn judge(&self, url: &str, part: &Range<usize>, builtin: &Builtin, findings: &mut Vec<Finding>) {
        let span = part.start as u64..part.end as u64;
        if findings
            .iter()
            .any(|known| known.kind == Kind::Dlp && known.span.start < span.end && span.start < known.span.end)
        {
            return;
        }
        let text = &url.as_bytes()[part.clone()];
        let (fingerprint, excerpt) = (self.core.key.fingerprint(text), excerpt(Kind::Dlp, text));
        findings.push(Finding { span: span.clone(), cover: span, fingerprint, excerpt, ..stream::whole(builtin, 0) });
    }

    /// Secrets cut up between labels, segments or values.
    fn together(&self, url: &str, parts: &Parts, findings: &mut Vec<Finding>) -> Result<(), EngineError> {
        let mut at = parts.host.start;
        let mut labels = Vec::new();
        for label in url[parts.host.clone()].split('.') {
            labels.push(at..at + label.len());
            at += label.len() + 1;
        }
        // The last two are the domain's own.
        labels.truncate(labels.len().saturating_sub(2));
        let values = parts.query.iter().map(|(_, value)| value.clone()).collect();
        for list in [labels, parts.segments.clone(), values] {
            let dense = |part: &Range<usize>| dense(&url.as_bytes()[part.clone()]);
            if list.len() < 2 || list.iter().filter(|part| dense(part)).count() < 2 {
                continue;
            }
            let (mut text, mut starts) = (Vec::new(), Vec::new());
            for part in &list {
                starts.push(text.len() as u64);
                text.extend_from_slice(&decoded(&url.as_bytes()[part.clone()]));
            }
            for found in Stream::telling(&self.core)?.finish_with(&text)? {
                let first = starts.partition_point(|start| *start <= found.span.start).saturating_sub(1);
                let last = starts.partition_point(|start| *start < found.span.end).saturating_sub(1);
                if first < last && telling(&found) {
                    let span = list[first].start as u64..list[last].end as u64;
                    findings.push(in_pieces(found, span));
                }
            }
        }
        Ok(())
    }
}

/// Could it be a piece of a secret? Words and short numbers are none.
fn dense(part: &[u8]) -> bool {
    part.len() >= 4
        && part.iter().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase() || b"_%".contains(byte))
}

/// As [`is_telling`], of what detectors find too.
pub(crate) fn telling(found: &Finding) -> bool {
    is_telling(found.kind, found.confidence, &found.rule, &found.class)
}

/// The finding of a text put together, as one of the text that its pieces stand in.
pub(crate) fn in_pieces(found: Finding, span: Range<u64>) -> Finding {
    let mut path = vec![Step::Joined];
    path.extend(found.path.iter().filter(|step| **step != Step::Joined));
    Finding { cover: span.clone(), span, path, ..found }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parts_lie_where_they_are() {
        let url = "https://user:pw@host.example:8443/a//b%20c?x=1&flag&y=2;z=#frag";
        let parts = Parts::of(url);
        let text = |range: &Range<usize>| &url[range.clone()];
        assert_eq!(text(&parts.host), "host.example");
        assert_eq!(parts.segments.iter().map(text).collect::<Vec<_>>(), ["a", "b%20c"]);
        let query: Vec<_> = parts.query.iter().map(|(key, value)| (text(key), text(value))).collect();
        assert_eq!(query, [("x", "1"), ("", "flag"), ("y", "2"), ("z", "")]);
        assert_eq!(&*decoded(b"b%20c+%zz%4"), b"b c %zz%4");
    }

    proptest! {
        #[test]
        fn any_text_has_parts(url in "\\PC{0,60}", marks in "[a:/?#&;=@.\\]\\[%é]{0,40}") {
            for url in [&url, &marks] {
                let parts = Parts::of(url);
                prop_assert!(url.get(parts.host).is_some());
                for part in parts.segments.iter().chain(parts.query.iter().flat_map(|(key, value)| [key, value])) {
                    prop_assert!(url.get(part.clone()).is_some());
                }
            }
        }
    }
}
