//! Tags of HTML: where one ends, what it is called, and whether it says that nobody is to see what is inside.
//!
//! Called by `html`. It promises to look at each byte of a tag once, and that a tag without an end takes the rest.

use super::words::undone;

/// Longest name that is kept.
const MOST_NAME: usize = 32;
/// A length, in whatever unit, that moves something out of sight.
const FAR: f64 = -500.0;

/// A tag, without its brackets.
#[derive(Debug, Default)]
pub(super) struct Tag {
    /// In lower case.
    pub(super) name: String,
    style: String,
    is_marked: bool,
    zeros: u8,
}

impl Tag {
    /// Reads a tag from its name on (WHATWG HTML standard, §13.2.5.8 and on); what comes behind it.
    pub(super) fn read(text: &str) -> (Self, &str) {
        let end = text.find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>').unwrap_or(text.len());
        let mut tag = Self { name: lower(&text[..end]), ..Self::default() };
        let mut rest = &text[end..];
        loop {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
            if let Some(behind) = rest.strip_prefix('>') {
                return (tag, behind);
            }
            let Some(first) = rest.chars().next() else { return (tag, "") };
            // A name may begin with `=`.
            let from = first.len_utf8();
            let ends = |c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>' | '=');
            let end = rest[from..].find(ends).map_or(rest.len(), |at| from + at);
            let name = lower(&rest[..end]);
            rest = &rest[end..];
            let mut value = "";
            if let Some(behind) = rest.trim_start_matches(|c: char| c.is_ascii_whitespace()).strip_prefix('=') {
                (value, rest) = value_of(behind.trim_start_matches(|c: char| c.is_ascii_whitespace()));
            }
            tag.note(&name, value);
        }
    }

    fn note(&mut self, name: &str, value: &str) {
        match name {
            "style" if self.style.is_empty() => self.style = plain(&undone(value)),
            "hidden" => self.is_marked = true,
            "width" | "height" if number(value.trim()) == Some(0.0) => self.zeros += 1,
            _ => {}
        }
    }

    /// True when it says that what is inside is not to be seen.
    pub(super) fn is_hidden(&self) -> bool {
        self.is_marked || self.name == "template" || self.zeros > 1 || self.style.split(';').any(hides)
    }
}

/// The value of an attribute, and what comes behind it.
fn value_of(text: &str) -> (&str, &str) {
    for quote in ['"', '\''] {
        if let Some(inside) = text.strip_prefix(quote) {
            return inside.split_once(quote).unwrap_or((inside, ""));
        }
    }
    let end = text.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(text.len());
    text.split_at(end)
}

/// A name; what is longer than any that matters is cut.
fn lower(text: &str) -> String {
    text.chars().take(MOST_NAME).map(|c| c.to_ascii_lowercase()).collect()
}

/// A style without spaces and comments, in lower case.
fn plain(style: &str) -> String {
    let mut plain = String::with_capacity(style.len());
    let mut rest = style;
    while let Some((before, comment)) = rest.split_once("/*") {
        plain.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain.retain(|c| !c.is_whitespace());
    plain.make_ascii_lowercase();
    plain
}

/// Whether a declaration takes something out of sight.
fn hides(declaration: &str) -> bool {
    let Some((name, value)) = declaration.split_once(':') else { return false };
    let value = value.strip_suffix("!important").unwrap_or(value);
    match name {
        "display" => value == "none",
        "visibility" | "content-visibility" => matches!(value, "hidden" | "collapse"),
        "opacity" | "font-size" | "width" | "height" | "max-width" | "max-height" | "font" => {
            number(value) == Some(0.0)
        }
        "left" | "right" | "top" | "bottom" | "text-indent" | "margin-left" | "margin-top" => {
            number(value).is_some_and(|number| number < FAR)
        }
        "transform" => value.starts_with("scale(0)"),
        "clip" => value.starts_with("rect(0"),
        "clip-path" => value.starts_with("inset(50%") || value.starts_with("inset(100%"),
        _ => false,
    }
}

/// The number that a length begins with.
fn number(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// Elements that hold text and no others.
pub(super) fn is_raw(name: &str) -> bool {
    matches!(name, "script" | "style" | "title" | "textarea" | "xmp" | "iframe" | "noembed" | "noframes")
}

/// Elements that hold nothing (WHATWG HTML standard, §13.1.2).
pub(super) fn is_void(name: &str) -> bool {
    matches!(
        name,
        "area"
            | "base"
            | "br"
            | "col"
            | "embed"
            | "hr"
            | "img"
            | "input"
            | "link"
            | "meta"
            | "source"
            | "track"
            | "wbr"
    )
}

/// Elements that begin a line.
pub(super) fn is_block(name: &str) -> bool {
    matches!(
        name,
        "address"
            | "article"
            | "aside"
            | "blockquote"
            | "body"
            | "br"
            | "caption"
            | "center"
            | "dd"
            | "details"
            | "dialog"
            | "div"
            | "dl"
            | "dt"
            | "fieldset"
            | "figcaption"
            | "figure"
            | "footer"
            | "form"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "head"
            | "header"
            | "hr"
            | "html"
            | "li"
            | "main"
            | "nav"
            | "ol"
            | "option"
            | "p"
            | "pre"
            | "section"
            | "summary"
            | "table"
            | "td"
            | "th"
            | "title"
            | "tr"
            | "ul"
    )
}
