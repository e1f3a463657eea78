//! Tells a quotation from running text: whether a place lies between quotation marks, in code marks or in a code
//! element. Used by the scorer as evidence against a live instruction. Promises nothing about the truth of the
//! quotation: an attacker can write quotation marks too, so this alone never clears a finding.

use std::ops::Range;

/// Longest quotation that is believed to be one, in bytes.
const MAX_QUOTE: usize = 300;

/// Opening mark, closing mark.
const PAIRS: &[(&str, &str)] = &[
    ("\"", "\""),
    ("`", "`"),
    ("“", "”"),
    ("„", "“"),
    ("«", "»"),
    ("「", "」"),
    ("『", "』"),
    ("&quot;", "&quot;"),
    ("&ldquo;", "&rdquo;"),
    ("<code>", "</code>"),
    ("<q>", "</q>"),
    ("<em>", "</em>"),
    ("<blockquote>", "</blockquote>"),
    (" '", "'"),
    (" ‘", "’"),
];

/// Whether `span` of `window` is inside a quotation that opens and closes within [`MAX_QUOTE`] bytes.
pub(crate) fn is_quoted(window: &str, span: &Range<usize>) -> bool {
    let (Some(before), Some(behind)) = (window.get(..span.start), window.get(span.end..)) else { return false };
    PAIRS.iter().any(|(open, close)| {
        let Some(opened) = before.rfind(open) else { return false };
        let inside = &before[opened + open.len()..];
        if inside.contains(close) {
            return false;
        }
        // The same mark opens and closes: an even number of them before the place has closed every quotation.
        if open == close && before.matches(open).count() % 2 == 0 {
            return false;
        }
        behind.find(close).is_some_and(|closed| inside.len() + span.len() + closed <= MAX_QUOTE)
    })
}

#[cfg(test)]
mod tests {
    use super::is_quoted;

    fn quoted(text: &str) -> bool {
        let at = text.find("ignore").unwrap();
        is_quoted(text, &(at..at + 6))
    }

    #[test]
    fn marks() {
        assert!(quoted("such as \"please ignore it\" in mails"));
        assert!(quoted("such as “ignore it”."));
        assert!(quoted("run `git ignore` now"));
        assert!(quoted("they write 'ignore this' often"));
        assert!(!quoted("a \"word\" to ignore and \"another\" one"));
        assert!(!quoted("don't ignore it, it's nice"));
        assert!(!quoted("ignore it"));
        assert!(!quoted("an \"open quote to ignore"));
    }
}
