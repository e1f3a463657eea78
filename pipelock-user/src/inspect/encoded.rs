//! How a message says that it is encoded. Used by `reader` and by whoever asks for answers that can be read.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, TRANSFER_ENCODING};
use pipelock_scan::{Coding, Decoded};

use super::events::Form;
use crate::flow::{Reason, Verdict};

/// What a message says of how it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// Not at all.
    Plain,
    /// Not at all, in a form that something may be lost in when a part of it becomes longer or shorter: it says how long its
    /// parts are, as git, archives and protobuf do, or what may stand in them, as XML does.
    Rigid,
    /// In a way that the scanner undoes.
    As(Coding),
    /// As messages of gRPC, each of which may be compressed so.
    Grpc(Option<Coding>),
}

/// Whether a type of content is text in which a word may be another; none is, too. Of two nobody knows which one counts.
fn is_text(kind: &[u8]) -> bool {
    const FORMS: [&[u8]; 10] = [
        b"json",
        b"x-www-form-urlencoded",
        b"javascript",
        b"x-javascript",
        b"ecmascript",
        b"yaml",
        b"x-yaml",
        b"toml",
        b"graphql",
        b"x-sh",
    ];
    if kind.contains(&b',') {
        return false;
    }
    if Form::of(kind).is_some() {
        return true;
    }
    let Some(at) = kind.iter().position(|byte| *byte == b'/') else { return kind.is_empty() };
    let (family, form) = (kind.get(..at).unwrap_or_default(), kind.get(at + 1..).unwrap_or_default());
    match family {
        b"text" => form != b"xml" && !form.ends_with(b"+xml"),
        b"multipart" => true,
        b"application" => FORMS.contains(&form) || form.ends_with(b"+json") || form.ends_with(b"+yaml"),
        _ => false,
    }
}

impl Encoded {
    /// Whether something can be taken out of it: what is text by its own word, or has none.
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
        // Both are a framing around the plain content; aws-chunked leaves it as it can be read, with the lengths of its parts.
        let is_counted = codings.iter().any(|coding| coding == "aws-chunked");
        codings.retain(|coding| !matches!(coding.as_str(), "" | "identity" | "chunked" | "aws-chunked"));
        let Some(outermost) = codings.pop() else {
            let form = Self::of_messages(headers)?;
            return Ok(if is_counted && form == Self::Plain { Self::Rigid } else { form });
        };
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
        let is_said_twice = headers.get_all(CONTENT_TYPE).iter().count() > 1;
        // `application/grpc-web-text` is base64 of them, which is read as such.
        let form = kind.strip_prefix(b"application/grpc").map(|form| form.strip_prefix(b"-web").unwrap_or(form));
        if !matches!(form, Some([] | [b'+', ..])) {
            return Ok(if is_text(kind) && !is_said_twice { Self::Plain } else { Self::Rigid });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_its_bytes_is_not_changed() {
        let of = |headers: &[(&str, &str)]| {
            let mut map = http::HeaderMap::new();
            for (name, value) in headers {
                let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
                map.append(name, value.parse().expect("a value"));
            }
            Encoded::of(&map).expect("read")
        };
        for kind in [
            "",
            "text/plain; charset=utf-8",
            "Application/JSON",
            "application/vnd.api+json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=a",
        ] {
            assert_eq!(of(&[("content-type", kind)]), Encoded::Plain, "{kind}");
        }
        for kind in [
            "application/x-git-receive-pack-request",
            "application/zip",
            "application/octet-stream",
            "application/x-protobuf",
            "application/xml",
            "image/svg+xml",
            "text/xml",
            "nonsense",
            "text/plain, application/zip",
        ] {
            assert_eq!(of(&[("content-type", kind)]), Encoded::Rigid, "{kind}");
        }
        assert_eq!(of(&[]), Encoded::Plain);
        assert_eq!(of(&[("content-encoding", "aws-chunked")]), Encoded::Rigid);
        assert_eq!(of(&[("content-type", "text/plain"), ("content-type", "text/plain")]), Encoded::Rigid);
        assert_eq!(of(&[("content-type", "application/grpc+proto")]), Encoded::Grpc(None));
    }
}
