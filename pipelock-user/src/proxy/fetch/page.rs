//! What of an answer is shown to who fetched it, and what is only scanned.
//!
//! Called by `fetch`. It promises text of at most [`MOST_TEXT`] bytes, and that bytes which are no text are not shown.

use http::{HeaderMap, header};

use super::html;
use super::words::is_unseen;

/// Longest text that is shown, in bytes.
pub(super) const MOST_TEXT: usize = 512 * 1024;
/// Longest title.
const MOST_TITLE: usize = 1024;

/// A page.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) title: String,
    /// None of what is no text.
    pub(super) text: Option<String>,
    /// What nobody sees, to be scanned all the same.
    pub(super) hidden: String,
    /// There was more text.
    pub(super) is_cut: bool,
}

/// What the body of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Html,
    Text,
    Bytes,
}

/// The page of an answer.
pub(super) fn page(headers: &HeaderMap, body: &[u8]) -> Page {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = form(kind, body);
    if form == Form::Bytes {
        return Page::default();
    }
    let text = decoded(kind, body);
    let (title, text, hidden) = match form {
        Form::Html => {
            let html = html::read(&text);
            (html.title, html.text, html.hidden)
        }
        _ => (String::new(), text.chars().filter(|c| !is_unseen(*c)).collect(), String::new()),
    };
    let (title, _) = cut(title, MOST_TITLE);
    let (text, is_cut) = cut(text, MOST_TEXT);
    Page { title, text: Some(text), hidden, is_cut }
}

fn form(kind: &str, body: &[u8]) -> Form {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let (family, name) = kind.split_once('/').unwrap_or((&kind, ""));
    match (family, name) {
        ("text", "html") | ("application", "xhtml+xml") => Form::Html,
        ("text", _) => Form::Text,
        (
            "application",
            "json" | "xml" | "javascript" | "x-ndjson" | "yaml" | "x-yaml" | "toml" | "sql" | "graphql",
        ) => Form::Text,
        _ if name.ends_with("+json") || name.ends_with("+xml") || name.ends_with("+yaml") => Form::Text,
        // Nobody says what it is: what begins as markup is, and what is text is.
        ("", _) if body.trim_ascii_start().first() == Some(&b'<') => Form::Html,
        ("", _) if std::str::from_utf8(body).is_ok() => Form::Text,
        _ => Form::Bytes,
    }
}

/// The characters of a text: by its byte order mark, else by its own word, else UTF-8; what cannot be read is marked (U+FFFD).
fn decoded(kind: &str, body: &[u8]) -> String {
    let kind = kind.to_ascii_lowercase();
    let charset = kind.split_once("charset=").map_or("", |(_, rest)| rest);
    let charset = charset.trim_start_matches('"').split(['"', ';', ' ']).next().unwrap_or_default();
    let wide = |body: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = body.as_chunks::<2>().0.iter().map(|pair| unit(*pair));
        char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match (body, charset) {
        ([0xef, 0xbb, 0xbf, rest @ ..], _) => String::from_utf8_lossy(rest).into_owned(),
        ([0xff, 0xfe, rest @ ..], _) => wide(rest, u16::from_le_bytes),
        ([0xfe, 0xff, rest @ ..], _) => wide(rest, u16::from_be_bytes),
        (_, "utf-16" | "utf-16le") => wide(body, u16::from_le_bytes),
        (_, "utf-16be") => wide(body, u16::from_be_bytes),
        (_, "iso-8859-1" | "latin1" | "windows-1252" | "us-ascii") => body.iter().copied().map(char::from).collect(),
        _ => String::from_utf8_lossy(body).into_owned(),
    }
}

/// The beginning of a text, and whether there was more.
fn cut(mut text: String, most: usize) -> (String, bool) {
    let is_cut = text.len() > most;
    text.truncate(text.floor_char_boundary(most));
    (text, is_cut)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn of(kind: &str, body: &[u8]) -> Page {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(kind).expect("a value"));
        }
        page(&headers, body)
    }

    #[test]
    fn what_is_text_is_shown_and_the_rest_is_not() {
        for (kind, body, text) in [
            ("text/html; charset=utf-8", &b"<p>a"[..], Some("a")),
            ("TEXT/HTML", b"<p>a", Some("a")),
            ("text/plain", b"<p>a", Some("<p>a")),
            ("application/json", b"{}", Some("{}")),
            ("application/problem+json", b"{}", Some("{}")),
            ("image/svg+xml", b"<svg/>", Some("<svg/>")),
            ("", b" <p>a", Some("a")),
            ("", b"a", Some("a")),
            ("", b"\xff", None),
            ("image/png", b"a", None),
            ("application/octet-stream", b"a", None),
            ("text/plain; charset=\"iso-8859-1\"", b"\xe9", Some("é")),
            ("text/plain", b"\xff\xfea\0", Some("a")),
            ("text/plain; charset=utf-16be", b"\0a", Some("a")),
            ("text/plain", b"a\xff", Some("a\u{fffd}")),
        ] {
            assert_eq!(of(kind, body).text.as_deref(), text, "{kind}");
        }
    }

    #[test]
    fn nothing_is_shown_that_nobody_sees_whatever_the_form() {
        let unseen =
            "\u{200b}\u{180e}\u{115f}\u{1160}\u{3164}\u{ffa0}\u{fe00}\u{fe0f}\u{e0100}\u{e01ef}\u{e0041}\u{202e}";
        for c in unseen.chars() {
            for (kind, before, after) in [
                ("text/html", "<title>T", "</title>"),
                ("text/html", "<p>", ""),
                ("text/plain", "", ""),
                ("text/markdown", "# ", ""),
                ("application/json", "[\"", "\"]"),
                ("", "", ""),
            ] {
                let page = of(kind, format!("{before}a{c}b{after}").as_bytes());
                let shown = format!("{}{}", page.title, page.text.expect("text"));
                assert!(shown.contains("ab") && !shown.contains(c), "{kind} {c:?}: {shown:?}");
            }
        }
        assert_eq!(of("text/plain", b"a\r\n\tb c").text.as_deref(), Some("a\r\n\tb c"));
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let page = of("text/plain", "é".repeat(MOST_TEXT).as_bytes());
        assert!(page.is_cut && page.text.is_some_and(|text| text.len() == MOST_TEXT));
        let page = of("text/plain", format!("x{}", "é".repeat(MOST_TEXT)).as_bytes());
        assert!(page.text.is_some_and(|text| text.len() == MOST_TEXT - 1));
    }

    proptest! {
        #[test]
        fn any_answer_is_a_page(kind in "(text/html|text/plain; charset=utf-16|\\PC{0,20})", body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if HeaderValue::from_str(&kind).is_ok() {
                let page = of(&kind, &body);
                prop_assert!(page.text.unwrap_or_default().len() <= 3 * body.len());
            }
        }
    }
}
