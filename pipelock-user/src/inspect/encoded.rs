//! How a message says that it is encoded. Used by `reader` and by whoever asks for answers that can be read.

use pipelock_scan::Coding;

use crate::flow::{Reason, Verdict};

/// What a message says of how it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// Not at all.
    Plain,
    /// In a way that the scanner undoes.
    As(Coding),
}

impl Encoded {
    /// What `Content-Encoding` says (RFC 9110 §8.4), and around it `Transfer-Encoding` (RFC 9112 §6.1).
    ///
    /// # Errors
    /// [`Reason::ContentUnreadable`] for what the scanner cannot undo.
    pub fn of(headers: &http::HeaderMap) -> Result<Self, Verdict> {
        let mut codings: Vec<String> = Vec::new();
        for name in [http::header::CONTENT_ENCODING, http::header::TRANSFER_ENCODING] {
            for value in headers.get_all(name) {
                let text = value.to_str().map_err(|_| unreadable("bytes that are no text"))?;
                codings.extend(text.split(',').map(|coding| coding.trim().to_ascii_lowercase()));
            }
        }
        // Both are a framing around the plain content; aws-chunked leaves it as it can be read.
        codings.retain(|coding| !matches!(coding.as_str(), "" | "identity" | "chunked" | "aws-chunked"));
        let Some(outermost) = codings.pop() else { return Ok(Self::Plain) };
        // Below the outermost, those that have a magic number are found by it.
        if codings.iter().any(|inner| !matches!(inner.as_str(), "gzip" | "x-gzip" | "zstd")) || codings.len() > 2 {
            return Err(unreadable(&format!("{}, {outermost}", codings.join(", "))));
        }
        Coding::of(&outermost).map(Self::As).ok_or_else(|| unreadable(&outermost))
    }
}

fn unreadable(what: &str) -> Verdict {
    let shown: String = what.chars().filter(|c| !c.is_control()).take(80).collect();
    Verdict::block(Reason::ContentUnreadable, format!("the body is encoded as {shown}"))
}
