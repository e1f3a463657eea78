//! Header lines: which are sound, which are left out, which make the whole request unreadable.
//!
//! Called by `head` and `chunked`. It promises that no line which some server could take for a framing or routing header
//! is ever merely left out.

use http::{HeaderName, HeaderValue, header};

use super::Refusal;

/// Names that decide framing or routing, letters only.
const DECISIVE: [&[u8]; 7] =
    [b"transferencoding", b"contentlength", b"host", b"connection", b"upgrade", b"trailer", b"expect"];

/// One line as it is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// A sound line: its name in lower case, its value without white space around it.
    Sound(HeaderName, &'a [u8]),
    /// A line that breaks the grammar and decides nothing.
    LeftOut,
}

/// Reads one header line, without its end.
///
/// # Errors
/// [`Refusal`] for what another parser could take for something else.
pub(super) fn field(line: &[u8]) -> Result<Field<'_>, Refusal> {
    if line.iter().any(|byte| matches!(byte, b'\0' | b'\r' | b'\n')) {
        return Err(Refusal::malformed("a header line holds NUL, CR or LF"));
    }
    // RFC 9112 §5.2: a folded line, or white space before the first header (§2.2).
    if line.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(Refusal::malformed("a header line begins with white space"));
    }
    let colon = line.iter().position(|byte| *byte == b':');
    let (name, value) = match colon.map(|at| line.split_at(at)) {
        Some((name, value)) if !name.is_empty() => (name, value.get(1..).unwrap_or_default()),
        _ => return Err(Refusal::malformed("a header line has no name")),
    };
    // Letters that look like others would be folded onto ASCII by some (RFC 9110 §5.1: names are tokens).
    if !name.is_ascii() {
        return Err(Refusal::malformed("a header name holds bytes beyond ASCII"));
    }
    let letters: Vec<u8> = name.iter().filter(|b| b.is_ascii_alphabetic()).map(u8::to_ascii_lowercase).collect();
    let Ok(parsed) = HeaderName::from_bytes(name) else {
        if DECISIVE.contains(&letters.as_slice()) {
            return Err(Refusal::malformed("a header name is written almost like one that decides framing or routing"));
        }
        return Ok(Field::LeftOut);
    };
    if is_decoy(&parsed) {
        return Err(Refusal::malformed("a header name is written almost like one that decides framing"));
    }
    let value = trim(value);
    if HeaderValue::from_bytes(value).is_err() {
        if DECISIVE.contains(&letters.as_slice()) {
            return Err(Refusal::malformed("a header that decides framing or routing holds control characters"));
        }
        return Ok(Field::LeftOut);
    }
    Ok(Field::Sound(parsed, value))
}

/// `Content_Length`: servers that hand headers to programs as variables (RFC 3875 §4.1.18) make them one.
pub(super) fn is_decoy(name: &HeaderName) -> bool {
    let letters = || name.as_str().bytes().filter(u8::is_ascii_alphabetic);
    letters().eq(*b"transferencoding") && *name != header::TRANSFER_ENCODING
        || letters().eq(*b"contentlength") && *name != header::CONTENT_LENGTH
}

/// Without the optional white space of RFC 9110 §5.6.3.
pub(super) fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}
