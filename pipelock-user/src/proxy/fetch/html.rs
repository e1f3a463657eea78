//! Of HTML what a person would read: title and text, without markup; and apart from it what a person would not see.
//!
//! Called by `page`. It promises one pass over the text without recursion, and that every character that stands between tags
//! comes out in one of the three, except inside of scripts and styles, which hold no text that a tag could break up. It is no
//! browser: what style sheets hide is taken for text. That is safe as all of it is scanned, what is shown and what is not.

use super::element::{Tag, is_block, is_raw, is_void};
use super::words::{Words, undone};

/// What HTML says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Html {
    /// Of the first title.
    pub(super) title: String,
    /// What is seen.
    pub(super) text: String,
    /// What is not: comments, and elements that hide themselves.
    pub(super) hidden: String,
}

/// Where the reader stands.
struct Reader<'t> {
    rest: &'t str,
    title: Option<String>,
    shown: Words,
    hidden: Words,
    /// The element that hides what is inside of it, and how many of its name are open.
    hiding: Option<(String, usize)>,
    is_preformatted: bool,
}

/// Reads HTML.
pub(super) fn read(text: &str) -> Html {
    let mut reader = Reader {
        rest: text,
        title: None,
        shown: Words::default(),
        hidden: Words::default(),
        hiding: None,
        is_preformatted: false,
    };
    while !reader.rest.is_empty() {
        reader.step();
    }
    Html { title: reader.title.unwrap_or_default(), text: reader.shown.end(), hidden: reader.hidden.end() }
}

impl<'t> Reader<'t> {
    fn step(&mut self) {
        let at = self.rest.find('<').unwrap_or(self.rest.len());
        let text = self.take(at);
        self.text(text);
        let rest = self.rest;
        let second = rest.as_bytes().get(1).copied().unwrap_or_default();
        if let Some(comment) = rest.strip_prefix("<!--") {
            let (said, behind) = comment_of(comment);
            self.hidden.say(said, false);
            self.hidden.part();
            self.rest = behind;
        } else if matches!(second, b'!' | b'?') || second == b'/' && !has_letter(rest, 2) {
            let end = rest.find('>').unwrap_or(rest.len());
            self.hidden.say(rest.get(2..end).unwrap_or_default(), false);
            self.hidden.part();
            self.rest = rest.get(end + 1..).unwrap_or_default();
        } else if second == b'/' {
            let (tag, rest) = Tag::read(&rest[2..]);
            self.rest = rest;
            self.close(&tag);
        } else if has_letter(rest, 1) {
            let (tag, rest) = Tag::read(&rest[1..]);
            self.rest = rest;
            self.open(&tag);
        } else if !rest.is_empty() {
            let text = self.take(1);
            self.text(text);
        }
    }

    fn take(&mut self, count: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, ""));
        self.rest = rest;
        taken
    }

    fn text(&mut self, text: &str) {
        let text = undone(text);
        if self.hiding.is_some() {
            self.hidden.say(&text, false);
        } else {
            self.shown.say(&text, self.is_preformatted);
        }
    }

    fn open(&mut self, tag: &Tag) {
        let name = tag.name.as_str();
        if is_raw(name) {
            let (inside, rest) = raw(self.rest, name);
            self.rest = rest;
            match name {
                "title" if self.title.is_none() && self.hiding.is_none() => {
                    let mut title = Words::default();
                    title.say(&undone(inside), false);
                    self.title = Some(title.end());
                }
                "title" | "textarea" => self.text(inside),
                "script" | "style" => {}
                _ => self.hidden.say(inside, false),
            }
            return;
        }
        if is_block(name) {
            self.part();
        }
        self.is_preformatted |= name == "pre";
        if is_void(name) {
            return;
        }
        match &mut self.hiding {
            // A paragraph ends where the next one begins.
            Some((hiding, _)) if hiding == "p" && name == "p" => {
                self.hiding = tag.is_hidden().then(|| (name.to_owned(), 1));
            }
            Some((hiding, depth)) if hiding == name => *depth += 1,
            Some(_) => {}
            None if tag.is_hidden() => self.hiding = Some((name.to_owned(), 1)),
            None => {}
        }
        if name == "li" {
            self.text("- ");
        }
    }

    fn close(&mut self, tag: &Tag) {
        if is_block(&tag.name) {
            self.part();
        }
        self.is_preformatted &= tag.name != "pre";
        if let Some((hiding, depth)) = &mut self.hiding
            && *hiding == tag.name
        {
            *depth -= 1;
            if *depth == 0 {
                self.hiding = None;
                self.hidden.part();
            }
        }
    }

    fn part(&mut self) {
        if self.hiding.is_some() { self.hidden.part() } else { self.shown.part() }
    }
}

/// What a comment says, and what comes behind it (WHATWG HTML standard, §13.2.5.43 and on).
fn comment_of(text: &str) -> (&str, &str) {
    for abrupt in [">", "->"] {
        if let Some(behind) = text.strip_prefix(abrupt) {
            return ("", behind);
        }
    }
    for (at, _) in text.match_indices('>') {
        let said = &text[..at];
        if let Some(said) = said.strip_suffix("--").or_else(|| said.strip_suffix("--!")) {
            return (said, &text[at + 1..]);
        }
    }
    (text, "")
}

/// What is inside of an element that holds no others, and what comes behind its end.
fn raw<'t>(text: &'t str, name: &str) -> (&'t str, &'t str) {
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find("</")) {
        let end = from + at;
        let after = &text[end + 2..];
        let is_it = after.get(..name.len()).is_some_and(|found| found.eq_ignore_ascii_case(name))
            && after.as_bytes().get(name.len()).is_none_or(|byte| byte.is_ascii_whitespace() || b"/>".contains(byte));
        if is_it {
            let (_, rest) = Tag::read(after);
            return (&text[..end], rest);
        }
        from = end + 2;
    }
    (text, "")
}

fn has_letter(text: &str, at: usize) -> bool {
    text.as_bytes().get(at).is_some_and(u8::is_ascii_alphabetic)
}

#[cfg(test)]
#[path = "html_tests.rs"]
mod tests;
