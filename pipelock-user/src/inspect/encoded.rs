//! How a message says that it is encoded. Used by `reader` and by whoever asks for answers that can be read.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, TRANSFER_ENCODING};
use pipelock_scan::{Coding, Decoded};

use crate::flow::{Reason, Verdict};

/// What a message says of how it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// Not at all.
    Plain,
    /// In a way that the scanner undoes.
    As(Coding),
    /// As messages of gRPC, each of which may be compressed so.
    Grpc(Option<Coding>),
}

impl Encoded {
    /// Whether something can be taken out of it: gRPC says in front of each message how long it is.
    #[must_use]
    pub fn is_changeable(self) -> bool {
        self == Self::Plain
    }

    /// Whether the text is there as it is, whatever is in it.
    #[must_use]
    pub fn is_plain(self) -> bool {
        !matches!(self, Self::As(_))
    }

    /// What `Content-Encoding` says (RFC 9110 §8.4), and around it `Transfer-Encoding` (RFC 9112 §6.1).
    ///
    /// # Errors
    /// [`Reason::ContentUnreadable`] for what the scanner cannot undo.
    pub fn of(headers: &http::HeaderMap) -> Result<Self, Verdict> {
        let mut codings: Vec<String> = Vec::new();
        for name in [CONTENT_ENCODING, TRANSFER_ENCODING] {
            codings.extend(listed(headers, &name)?);
        }
        // Both are a framing around the plain content; aws-chunked leaves it as it can be read.
        codings.retain(|coding| !matches!(coding.as_str(), "" | "identity" | "chunked" | "aws-chunked"));
        let Some(outermost) = codings.pop() else { return Self::of_messages(headers) };
        // Below the outermost, those that have a magic number are found by it.
        if codings.iter().any(|inner| !matches!(inner.as_str(), "gzip" | "x-gzip" | "zstd")) || codings.len() > 2 {
            return Err(unreadable(&format!("{}, {outermost}", codings.join(", "))));
        }
        Coding::of(&outermost).map(Self::As).ok_or_else(|| unreadable(&outermost))
    }

    /// Of a body that is as it is: what gRPC's header says of each message in it.
    fn of_messages(headers: &http::HeaderMap) -> Result<Self, Verdict> {
        let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], http::HeaderValue::as_bytes).to_ascii_lowercase();
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        // `application/grpc-web-text` is base64 of them, which is read as such.
        let form = kind.strip_prefix(b"application/grpc").map(|form| form.strip_prefix(b"-web").unwrap_or(form));
        if !matches!(form, Some([] | [b'+', ..])) {
            return Ok(Self::Plain);
        }
        let mut codings = listed(headers, &http::HeaderName::from_static("grpc-encoding"))?;
        codings.retain(|coding| !matches!(coding.as_str(), "" | "identity"));
        match codings.as_slice() {
            [] => Ok(Self::Grpc(None)),
            [coding] => Coding::of(coding).map(|coding| Self::Grpc(Some(coding))).ok_or_else(|| unreadable(coding)),
            many => Err(unreadable(&many.join(", "))),
        }
    }

    /// Whether a body that was read so far is what this says. One that is over must have come to its end, unless it is an
    /// answer: those end early, and what came was read.
    ///
    /// # Errors
    /// [`Reason::ContentUnreadable`].
    pub(super) fn holds_for(self, decoded: Decoded, is_over: bool, is_outbound: bool) -> Result<(), Verdict> {
        let Self::As(coding) = self else { return Ok(()) };
        let what = match decoded {
            Decoded::Broken => "is not",
            Decoded::Going { made } if is_over && (is_outbound || made == 0) => "ends within",
            Decoded::Going { .. } | Decoded::Whole => return Ok(()),
        };
        let detail = format!("the body {what} {coding:?}, which its headers say it is");
        Err(Verdict::block(Reason::ContentUnreadable, detail))
    }
}

/// The codings that a header lists.
fn listed(headers: &http::HeaderMap, name: &http::HeaderName) -> Result<Vec<String>, Verdict> {
    let mut codings = Vec::new();
    for value in headers.get_all(name) {
        let text = value.to_str().map_err(|_| unreadable("bytes that are no text"))?;
        codings.extend(text.split(',').map(|coding| coding.trim().to_ascii_lowercase()));
    }
    Ok(codings)
}

pub(super) fn unreadable(what: &str) -> Verdict {
    let shown: String = what.chars().filter(|c| !c.is_control()).take(80).collect();
    Verdict::block(Reason::ContentUnreadable, format!("the body is encoded as {shown}"))
}
