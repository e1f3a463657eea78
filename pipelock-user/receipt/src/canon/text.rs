//! Keeps text chosen by an agent or a peer from doing anything but being text.
//!
//! Called by the writer on every string before it is signed. Control characters can split a line for some readers
//! (U+0085, U+2028) and steer a terminal; direction marks can make a report read as something it does not say.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Stands for a character that was taken out.
const REPLACEMENT: char = '\u{fffd}';

/// `text` with dangerous characters replaced by U+FFFD, cut to at most `cap` bytes plus an ellipsis.
#[must_use]
pub fn clean(text: &str, cap: usize) -> Cow<'_, str> {
    if text.len() <= cap && !text.chars().any(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len().min(cap) + 4);
    for char in text.chars() {
        let char = if is_dangerous(char) { REPLACEMENT } else { char };
        if kept.len() + char.len_utf8() > cap {
            kept.push('…');
            break;
        }
        kept.push(char);
    }
    Cow::Owned(kept)
}

/// Control characters, line and paragraph separators, byte order marks, direction marks.
fn is_dangerous(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// `value` with every string and member name cleaned; borrowed when nothing had to change.
/// Nesting beyond 64 levels is left as it is: [`super::jcs`] refuses it.
#[must_use]
pub fn clean_value(value: &Value, cap: usize) -> Cow<'_, Value> {
    if is_clean(value, cap, 64) { Cow::Borrowed(value) } else { Cow::Owned(cleaned(value, cap, 64)) }
}

fn is_clean(value: &Value, cap: usize, depth: u32) -> bool {
    let Some(depth) = depth.checked_sub(1) else { return true };
    match value {
        Value::String(text) => matches!(clean(text, cap), Cow::Borrowed(_)),
        Value::Array(items) => items.iter().all(|item| is_clean(item, cap, depth)),
        Value::Object(members) => members
            .iter()
            .all(|(name, member)| matches!(clean(name, cap), Cow::Borrowed(_)) && is_clean(member, cap, depth)),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

fn cleaned(value: &Value, cap: usize, depth: u32) -> Value {
    let Some(depth) = depth.checked_sub(1) else { return value.clone() };
    match value {
        Value::String(text) => Value::String(clean(text, cap).into_owned()),
        Value::Array(items) => Value::Array(items.iter().map(|item| cleaned(item, cap, depth)).collect()),
        Value::Object(members) => Value::Object(
            members
                .iter()
                .map(|(name, member)| (clean(name, cap).into_owned(), cleaned(member, cap, depth)))
                .collect::<Map<_, _>>(),
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// `text` as one cell of a Markdown table, or as running text: it can open no markup, link, image, HTML or column.
/// At most `cap` bytes are kept.
#[must_use]
pub fn markdown(text: &str, cap: usize) -> String {
    let mut cell = String::with_capacity(text.len().min(cap));
    for char in clean(text, cap).chars() {
        match char {
            '<' => cell.push_str("&lt;"),
            '>' => cell.push_str("&gt;"),
            '&' => cell.push_str("&amp;"),
            // ':' and '@' as entities keep renderers from turning bare addresses into links.
            ':' => cell.push_str("&#58;"),
            '@' => cell.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '{' | '}' | '[' | ']' | '(' | ')' | '#' | '+' | '!' | '|' | '~' | '-' | '$' => {
                cell.push('\\');
                cell.push(char);
            }
            char => cell.push(char),
        }
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dangerous_characters_go_and_length_is_bounded() {
        assert!(matches!(clean("https://é.example/😀", 100), Cow::Borrowed(_)));
        assert_eq!(clean("a\u{85}b\n\u{2028}\u{202e}\u{7f}", 100), "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(clean("abcdé", 5), "abcd…");
        assert_eq!(*clean_value(&json!({"k\n": ["\u{1b}[2J", 1]}), 100), json!({"k\u{fffd}": ["\u{fffd}[2J", 1]}));
    }

    #[test]
    fn markdown_opens_nothing() {
        let cell = markdown("| <img src=x> [a](http://b) `c` **d**\n", 200);
        assert!(!cell.contains('<') && !cell.contains('\n') && !cell.contains("://"), "{cell}");
        assert!(cell.starts_with("\\| "), "{cell}");
    }
}
