//! Phrases whose words stand between tags of HTML or XML: `<li>legal</li><li>winner</li>`, `legal<br>winner`.
//!
//! Called by [`super::stream`]. The names of tags are words that no phrase holds, so the detector ends at each. Here only what stands
//! before a tag is looked at: a few words of a list, or the one word that the first or the last tag of a phrase touches.
//! Promises: work for tags only; the same findings wherever the text is cut.

use super::lists::{self, LONGEST};
use super::{Phrase, Reading};
use crate::stream::Window;
use unicode_normalization::char::is_combining_mark;

/// Most bytes of a tag.
const TAG: usize = 256;
/// Most bytes between the tags inside a phrase, and most words there.
const CONTENT: usize = 64;
const WORDS: usize = 3;
/// Most bytes of a word, and most between a word and a tag.
const WORD: usize = 36;
const GAP: usize = 8;

/// Looks for phrases in a text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Tagged {
    /// Everything before is dealt with.
    at: u64,
    /// What is before `at` and goes on there is longer than a word.
    long: bool,
    reading: Option<Box<Reading>>,
}

fn letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte >= 0x80
}

/// A `<` that begins a tag, and the end of it if that is known.
enum Tag {
    None,
    /// Later bytes tell.
    Open(usize),
    Whole(usize, usize),
}

fn tag(bytes: &[u8], from: usize, last: bool) -> Tag {
    for at in memchr::memchr_iter(b'<', &bytes[from..]).map(|at| from + at) {
        let rest = &bytes[at..bytes.len().min(at + TAG)];
        let begins = rest.get(1).map(|byte| byte.is_ascii_alphabetic() || b"/!?".contains(byte));
        match (begins, memchr::memchr(b'>', rest)) {
            (Some(true), Some(end)) => return Tag::Whole(at, at + end + 1),
            (Some(true) | None, None) if !last && rest.len() < TAG => return Tag::Open(at),
            _ => {}
        }
    }
    Tag::None
}

/// Where the word begins that ends at most [`GAP`] bytes before the end; `None` without any, or when it is too long.
fn tail(content: &[u8]) -> Option<usize> {
    let gap = content.iter().rev().take(GAP + 1).position(|byte| letter(*byte))?;
    let end = content.len() - gap;
    let length = content[..end].iter().rev().take(WORD + 1).take_while(|byte| letter(**byte)).count();
    (length <= WORD).then(|| end - length)
}

impl Tagged {
    /// Takes the new piece of `window`.
    pub(super) fn push(&mut self, window: &Window<'_>, last: bool, found: &mut Vec<Phrase>) {
        let from = self.at.max(window.start());
        window.with(from..window.end(), |bytes| {
            let at = self.take(bytes, from, last, found);
            self.at = from + at as u64;
        });
    }

    /// Gives the bytes that are dealt with.
    fn take(&mut self, bytes: &[u8], base: u64, last: bool, found: &mut Vec<Phrase>) -> usize {
        let mut at = 0;
        if self.long {
            at = bytes.iter().take_while(|byte| letter(**byte)).count();
            self.long = at == bytes.len();
        }
        loop {
            let (end, next) = match tag(bytes, at, last) {
                Tag::Whole(start, end) => (start, Some(end)),
                Tag::Open(start) => (start, None),
                Tag::None => (bytes.len(), None),
            };
            let content = &bytes[at..end];
            if next.is_some() || last {
                self.content(content, base + at as u64, found);
                at = next.unwrap_or(bytes.len());
                if next.is_none() {
                    return at;
                }
                continue;
            }
            if content.len() > CONTENT {
                self.leave(content, base + at as u64, found);
            }
            if self.is_active() {
                return at;
            }
            let open = end < bytes.len();
            let begun = tail(content);
            self.long = !open && begun.is_none() && content.last().is_some_and(|byte| letter(*byte));
            // A word that goes on may become one of a list.
            let may = |start: &usize| {
                let word = &content[*start..];
                (!open && word.last().is_some_and(|byte| letter(*byte))) || !entries(first_word(word).0).is_empty()
            };
            return at + begun.filter(may).unwrap_or(content.len());
        }
    }

    fn is_active(&self) -> bool {
        self.reading.as_ref().is_some_and(|reading| reading.active != 0)
    }

    /// What stands before a tag, or at the end of the text.
    fn content(&mut self, content: &[u8], base: u64, found: &mut Vec<Phrase>) {
        if self.is_active() && content.len() <= CONTENT {
            let words: Vec<(usize, &str)> = words(content).take(WORDS + 1).collect();
            if words.len() <= WORDS {
                words.iter().for_each(|(at, word)| self.word(word, base + *at as u64, found));
                return;
            }
        }
        self.leave(content, base, found);
        if let Some(start) = tail(content) {
            let word = words(&content[start..]).last();
            if let Some((at, word)) = word {
                self.word(word, base + (start + at) as u64, found);
            }
        }
    }

    /// More than a phrase has between tags: its first word may be the last of a phrase.
    fn leave(&mut self, content: &[u8], base: u64, found: &mut Vec<Phrase>) {
        if self.is_active() {
            let head = &content[..content.len().min(CONTENT)];
            if let Some((at, word)) = words(head).next() {
                self.word(word, base + at as u64, found);
            }
            self.word("", base, found);
        }
    }

    fn word(&mut self, word: &str, start: u64, found: &mut Vec<Phrase>) {
        let entries = entries(word);
        if !entries.is_empty() || self.is_active() {
            let reading = self.reading.get_or_insert_with(|| Box::new(Reading::EMPTY));
            reading.push(entries, start, start + word.len() as u64, found);
        }
    }

    /// Where the first phrase may start that is not over yet, in a text of which `end` bytes came.
    pub(super) fn hold(&self, end: u64) -> u64 {
        let begun = self.reading.as_ref().filter(|reading| reading.active != 0).and_then(|reading| reading.begun());
        begun.unwrap_or(end).min(self.at)
    }

    /// Bytes it takes beside itself.
    pub(super) fn memory(&self) -> usize {
        self.reading.as_ref().map_or(0, |_| size_of::<Reading>())
    }
}

/// The words of a list that this is: without those of one or two letters, which stand alone in Chinese only.
fn entries(word: &str) -> &'static [lists::Entry] {
    if !word.is_ascii() {
        return if word.chars().count() < 2 { &[] } else { lists::wide(word) };
    }
    let lower = word.to_ascii_lowercase();
    let key = if (3..=LONGEST).contains(&word.len()) { lists::pack(lower.as_bytes()) } else { None };
    key.map_or(&[], lists::packed)
}

/// The words of a text, with their places: letters in a row.
fn words(content: &[u8]) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    let parts = std::iter::from_fn(move || {
        let rest = content.get(at..)?;
        let skip = rest.iter().position(|byte| letter(*byte))?;
        let (word, length) = first_word(&rest[skip..]);
        let start = at + skip;
        at = start + length.max(1);
        Some((start, word))
    });
    parts.filter(|(_, word)| !word.is_empty())
}

/// The word at the start, and the bytes that it takes with signs that are no ASCII; of what is no text, nothing.
fn first_word(bytes: &[u8]) -> (&str, usize) {
    let length = bytes.iter().take_while(|byte| letter(**byte)).count();
    let Ok(text) = std::str::from_utf8(&bytes[..length]) else { return ("", length) };
    let end = text.char_indices().find(|(_, letter)| !(letter.is_alphabetic() || is_combining_mark(*letter)));
    match end {
        Some((0, sign)) => ("", sign.len_utf8()),
        Some((end, _)) => (&text[..end], end),
        None => (text, length),
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan;
    use proptest::prelude::*;

    const PHRASE: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

    fn forms() -> Vec<String> {
        let words = || PHRASE.split(' ');
        let each = |before: &str, after: &str| words().map(|word| format!("{before}{word}{after}")).collect::<String>();
        vec![
            format!("<ol>\n{}</ol>", each("  <li>", "</li>\n")),
            each("<tr><td>1.</td><td class=\"word\">", "</td></tr>"),
            format!("<p>Keep this: {}</p>", words().collect::<Vec<_>>().join("<br>")),
            format!("<p>Keep this: {} and never tell</p>", words().collect::<Vec<_>>().join("<br/>\n")),
            format!("<div>{}</div>", PHRASE.replace(" wave ", " <b>wave</b> ").replace(' ', "</i> <i>")),
            each("<word n='1'>", "</word>\r\n").to_uppercase(),
            each("<li>\u{2014} ", "\u{2014}</li>"),
        ]
    }

    #[test]
    fn words_between_tags_are_a_phrase() {
        for text in forms() {
            let found = scan(&text);
            assert_eq!(found.len(), 1, "{found:?} {text}");
            assert_eq!(found[0].words, 12, "{text}");
            let span = &text[found[0].start as usize..found[0].end as usize].to_lowercase();
            assert!(span.starts_with("legal") && span.ends_with("yellow"), "{span}");
        }
        for text in [
            PHRASE.replace(" thank ", "</li><li>nothing</li><li>thank</li><li>").replace(' ', "</li><li>"),
            PHRASE.replace(' ', " of <b> to </b> "),
            "<p>about</p><p>code</p>".repeat(20),
        ] {
            assert_eq!(scan(&text), [], "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_cut_anywhere_changes_nothing(
            form in 0usize..7, cuts in proptest::collection::vec(0usize..900, 0..6), before in "[a-zé—<>/ ]{0,90}"
        ) {
            let text = format!("{before}{}{before}", forms()[form]);
            let mut seeker = super::super::Seeker::default();
            let (mut pieces, mut last) = (Vec::new(), 0);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % text.len()).collect();
            cuts.sort_unstable();
            for cut in cuts {
                let window = crate::stream::Window { first: 0, old: &text.as_bytes()[..last], new: &text.as_bytes()[last..cut] };
                seeker.push(&window, false, &mut pieces);
                prop_assert!(seeker.hold(cut as u64) <= cut as u64);
                last = cut;
            }
            let window = crate::stream::Window { first: 0, old: &text.as_bytes()[..last], new: &text.as_bytes()[last..] };
            seeker.push(&window, true, &mut pieces);
            let mut whole = Vec::new();
            let window = crate::stream::Window { first: 0, old: &[], new: text.as_bytes() };
            super::super::Seeker::default().push(&window, true, &mut whole);
            let key = |phrase: &super::super::Phrase| (phrase.start, phrase.end);
            pieces.sort_by_key(key);
            whole.sort_by_key(key);
            prop_assert_eq!(pieces, whole);
        }
    }
}
