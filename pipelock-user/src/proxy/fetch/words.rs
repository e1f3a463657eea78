//! Text as it is shown: spaces joined, lines apart, no characters that nobody sees; and the references of HTML undone.
//!
//! Called by `html`, and by `page` for what is no HTML. It promises that nothing which is pushed comes out longer.

use std::borrow::Cow;

/// References by name that are undone; others stay as they are written.
const NAMED: [(&str, &str); 24] = [
    ("amp", "&"),
    ("lt", "<"),
    ("gt", ">"),
    ("quot", "\""),
    ("apos", "'"),
    ("nbsp", " "),
    ("colon", ":"),
    ("semi", ";"),
    ("ndash", "–"),
    ("mdash", "—"),
    ("hellip", "…"),
    ("lsquo", "‘"),
    ("rsquo", "’"),
    ("ldquo", "“"),
    ("rdquo", "”"),
    ("laquo", "«"),
    ("raquo", "»"),
    ("bull", "•"),
    ("middot", "·"),
    ("copy", "©"),
    ("reg", "®"),
    ("euro", "€"),
    ("shy", ""),
    ("zwnj", ""),
];
/// Longest reference that is looked at.
const MOST_REFERENCE: usize = 12;

/// Text on its way to being shown.
#[derive(Debug, Default)]
pub(super) struct Words {
    text: String,
    is_apart: bool,
    is_new_line: bool,
}

impl Words {
    /// Adds text; with `as_it_is` its spaces and lines stay.
    pub(super) fn say(&mut self, text: &str, as_it_is: bool) {
        for c in text.chars().filter(|c| !is_unseen(*c)) {
            if c.is_whitespace() && !as_it_is {
                self.is_apart = true;
                continue;
            }
            if !self.text.is_empty() {
                if self.is_new_line {
                    self.text.push('\n');
                } else if self.is_apart {
                    self.text.push(' ');
                }
            }
            (self.is_apart, self.is_new_line) = (false, false);
            self.text.push(c);
        }
    }

    /// What comes next begins a line.
    pub(super) fn part(&mut self) {
        self.is_new_line = true;
    }

    /// The text.
    pub(super) fn end(self) -> String {
        self.text
    }
}

/// Characters that show nothing, and could break up a word, turn it round or spell what nobody sees: controls, and those that
/// Unicode has ignored by default (fillers and selectors of variants among them).
pub(super) fn is_unseen(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{ad}' | '\u{34f}' | '\u{61c}'
        | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Text with the references of HTML undone.
pub(super) fn undone(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut undone = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        undone.push_str(before);
        match reference(after) {
            Some((text, behind)) => {
                undone.push_str(&text);
                rest = behind;
            }
            None => {
                undone.push('&');
                rest = after;
            }
        }
    }
    undone.push_str(rest);
    Cow::Owned(undone)
}

/// What a reference stands for, and what comes behind it.
fn reference(text: &str) -> Option<(Cow<'static, str>, &str)> {
    if let Some(number) = text.strip_prefix('#') {
        let (digits, base) = match number.strip_prefix(['x', 'X']) {
            Some(digits) => (digits, 16),
            None => (number, 10),
        };
        let end = digits.find(|c: char| !c.is_digit(base)).unwrap_or(digits.len());
        let value = char::from_u32(u32::from_str_radix(digits.get(..end)?, base).ok()?)?;
        let behind = digits.get(end..)?;
        return Some((value.to_string().into(), behind.strip_prefix(';').unwrap_or(behind)));
    }
    let end = text.bytes().take(MOST_REFERENCE).position(|byte| byte == b';')?;
    let (name, behind) = (text.get(..end)?, text.get(end + 1..)?);
    let (_, stands_for) = NAMED.iter().find(|(known, _)| *known == name)?;
    Some(((*stands_for).into(), behind))
}
