//! A request head: found, checked, and written anew in the one spelling that hyper is given.
//!
//! Called by [`super::Framing`]. It promises that every head it lets through is one that hyper reads too, with the same
//! body length; so hyper's own answer to what it cannot read, which says nothing, is never sent.

use http::{Method, Uri, header};

use super::Refusal;
use super::fields::{Field, field, trim};
use crate::proxy::detect::MAX_METHOD;

/// Header lines of one head: hyper's own limit.
pub(super) const MAX_FIELDS: usize = 100;
/// Longest request target: what `http::Uri` holds.
const MAX_TARGET: usize = u16::MAX as usize - 1;
/// Transfer codings of the registry (RFC 9112 §7); bodies with them are passed as they are, only chunked anew.
const CODINGS: [&str; 6] = ["gzip", "x-gzip", "deflate", "compress", "x-compress", "identity"];
/// The largest body length that hyper takes.
const MAX_LENGTH: u64 = u64::MAX - 2;

/// How the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// There is none.
    None,
    /// After this many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
}

/// A sound head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The canonical spelling, with the empty line at its end.
    pub(super) bytes: Vec<u8>,
    /// How its body ends.
    pub(super) body: Body,
    /// Whether it asks for a tunnel.
    pub(super) is_connect: bool,
    /// How many of its lines are not in that spelling.
    pub(super) left_out: usize,
}

/// Where the head at the front of `input` ends; none while it goes on. `scanned` is kept between calls.
pub(super) fn end_of_head(input: &[u8], scanned: &mut usize, max: usize) -> Result<Option<usize>, Refusal> {
    while let Some(at) = input.get(*scanned..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
        let end = *scanned + at;
        // Only CR LF ends a line: what others would take for an end (RFC 9112 §2.2 lets them) is refused.
        if end.checked_sub(1).and_then(|before| input.get(before)) != Some(&b'\r') {
            return Err(Refusal::malformed("a line of the head ends without CR"));
        }
        let is_empty = at == 1;
        *scanned = end + 1;
        if *scanned > max {
            break;
        }
        if is_empty {
            return Ok(Some(*scanned));
        }
    }
    if input.len().max(*scanned) > max {
        return Err(Refusal::too_large("the request head is longer than limits.header_bytes allows"));
    }
    Ok(None)
}

/// Checks a whole head and writes it anew.
pub(super) fn canonical(raw: &[u8]) -> Result<Head, Refusal> {
    let body = raw.strip_suffix(b"\r\n\r\n");
    let body = body.ok_or(Refusal::malformed("more than one empty line stands before the request"))?;
    let mut lines = lines(body);
    let request = RequestLine::read(lines.next().unwrap_or_default())?;
    let mut bytes = Vec::with_capacity(raw.len() + 2);
    request.write(&mut bytes);
    let (mut framing, mut left_out) = (Declared::default(), 0);
    for (count, line) in lines.enumerate() {
        if count >= MAX_FIELDS {
            return Err(Refusal::too_large("the request has more than 100 header lines"));
        }
        match field(line)? {
            Field::LeftOut => left_out += 1,
            Field::Sound(name, value) if name == header::TRANSFER_ENCODING => framing.codings(value)?,
            Field::Sound(name, value) if name == header::CONTENT_LENGTH => framing.length(value)?,
            Field::Sound(name, value) => write_field(&mut bytes, name.as_str(), value),
        }
    }
    let body = framing.settle(&request)?;
    match body {
        Body::None => {}
        Body::Length(length) => write_field(&mut bytes, "content-length", length.to_string().as_bytes()),
        Body::Chunked => {
            // `identity` changes nothing and is no coding any more (RFC 9112 §7.3).
            let codings: Vec<_> = framing.codings.iter().copied().filter(|coding| *coding != "identity").collect();
            write_field(&mut bytes, "transfer-encoding", codings.join(", ").as_bytes());
        }
    }
    bytes.extend_from_slice(b"\r\n");
    Ok(Head { bytes, body, is_connect: request.method == Method::CONNECT, left_out })
}

fn lines(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_over = false;
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        match rest.windows(2).position(|pair| pair == b"\r\n") {
            Some(at) => {
                let (line, after) = rest.split_at(at);
                rest = after.get(2..).unwrap_or_default();
                Some(line)
            }
            None => {
                is_over = true;
                Some(rest)
            }
        }
    })
}

fn write_field(bytes: &mut Vec<u8>, name: &str, value: &[u8]) {
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b':');
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(b"\r\n");
}

/// The first line (RFC 9112 §3).
struct RequestLine<'a> {
    method: Method,
    target: &'a [u8],
    is_11: bool,
    /// Treated as 1.0, but for the body that it must not have.
    is_09: bool,
}

impl<'a> RequestLine<'a> {
    fn read(line: &'a [u8]) -> Result<Self, Refusal> {
        let malformed = Refusal::malformed;
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(malformed("the request line is not method, target and version with one space between them"));
        };
        if method.len() > MAX_METHOD {
            return Err(malformed("the method is longer than any there is"));
        }
        let method = Method::from_bytes(method).map_err(|_| malformed("the method is not a token"))?;
        if target.iter().any(|byte| byte.is_ascii_control()) || std::str::from_utf8(target).is_err() {
            return Err(malformed("the request target holds control characters or bytes that are not UTF-8"));
        }
        // An empty target can only mean the root.
        let target: &[u8] = if target.is_empty() { b"/" } else { target };
        if target.len() > MAX_TARGET {
            return Err(Refusal::path_too_long("the request target is longer than 65534 bytes"));
        }
        Uri::try_from(target).map_err(|_| malformed("the request target cannot be read"))?;
        let (is_11, is_09) = match version {
            b"HTTP/1.1" => (true, false),
            b"HTTP/1.0" => (false, false),
            // With headers it is 1.0 by another name; HTTP/0.9 itself had neither version nor headers.
            b"HTTP/0.9" => (false, true),
            _ => return Err(malformed("the version is neither HTTP/1.1 nor HTTP/1.0")),
        };
        Ok(Self { method, target, is_11, is_09 })
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(self.method.as_str().as_bytes());
        bytes.push(b' ');
        bytes.extend_from_slice(self.target);
        bytes.extend_from_slice(if self.is_11 { b" HTTP/1.1\r\n" } else { b" HTTP/1.0\r\n" });
    }
}

/// What a head says about its body.
#[derive(Default)]
struct Declared {
    length: Option<u64>,
    codings: Vec<&'static str>,
}

impl Declared {
    /// RFC 9110 §8.6: digits, once. Repeating the same number is allowed there, and an old trick.
    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits.and_then(|text| text.parse::<u64>().ok()).filter(|length| *length <= MAX_LENGTH);
        let length = length.ok_or(Refusal::malformed("Content-Length is not a number"))?;
        if self.length.replace(length).is_some() {
            return Err(Refusal::malformed("more than one Content-Length"));
        }
        Ok(())
    }

    /// RFC 9112 §6.1: codings in the order they were applied. Parameters, which none of them has, are left out.
    fn codings(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for coding in value.split(|byte| *byte == b',') {
            let name = trim(coding.split(|byte| *byte == b';').next().unwrap_or_default());
            let is_visible = coding.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
            let known = std::str::from_utf8(name)
                .ok()
                .filter(|_| is_visible)
                .and_then(|name| CODINGS.into_iter().chain(["chunked"]).find(|known| known.eq_ignore_ascii_case(name)));
            let known = known.ok_or(Refusal::malformed("Transfer-Encoding names a coding that is not known"))?;
            // Also keeps the list short: it ends with the first `chunked`, and nobody needs eight codings.
            if self.codings.last() == Some(&"chunked") || self.codings.len() >= 8 {
                return Err(Refusal::malformed("Transfer-Encoding goes on after chunked, or is longer than any needs"));
            }
            self.codings.push(known);
        }
        Ok(())
    }

    fn settle(&self, request: &RequestLine<'_>) -> Result<Body, Refusal> {
        let body = match (self.codings.last(), self.length) {
            (Some(_), Some(_)) => return Err(Refusal::malformed("both Content-Length and Transfer-Encoding")),
            (Some(_), None) if !request.is_11 => {
                return Err(Refusal::malformed("Transfer-Encoding before HTTP/1.1, which has none"));
            }
            (Some(&"chunked"), None) => Body::Chunked,
            (Some(_), None) => return Err(Refusal::malformed("Transfer-Encoding does not end with chunked")),
            (None, Some(_)) if request.is_09 => {
                return Err(Refusal::malformed("Content-Length in HTTP/0.9, which has none"));
            }
            (None, Some(length)) => Body::Length(length),
            (None, None) => Body::None,
        };
        // RFC 9110 §9.3.6: what follows CONNECT is not its body.
        if request.method == Method::CONNECT && body != Body::None {
            return Err(Refusal::malformed("CONNECT with a body"));
        }
        Ok(body)
    }
}
