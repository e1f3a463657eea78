//! Chinese phrases written without spaces, after a word that announces one.
//!
//! Called by [`super::stream`]. [`super`] says why the announcement is asked for. Promises: linear in the text.

use std::ops::Range;

use super::lists::{LANGUAGES, wide};
use super::run::{LENGTHS, checksum};
use super::{Language, Phrase};
use crate::bits;
use crate::stream::Window;

/// Words that announce a phrase.
const ANNOUNCEMENTS: [&str; 12] =
    ["助记词", "助記詞", "助记詞", "种子", "種子", "恢复", "恢復", "钱包", "錢包", "mnemonic", "seed", "phrase"];
/// How far behind the announcement a phrase may start, in bytes.
pub(super) const REACH: usize = 160;
/// Bytes of the longest announcement.
const ANNOUNCEMENT: usize = 9;

/// Looks for unspaced phrases in a text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct Unspaced {
    /// Everything before is dealt with.
    at: u64,
    /// The ideographs before `at` are more than a phrase has.
    long: bool,
}

impl Unspaced {
    /// Takes the new piece of `window`, which reaches [`REACH`] bytes and a phrase further back.
    pub(super) fn push(&mut self, window: &Window<'_>, last: bool, found: &mut Vec<Phrase>) {
        // No ideograph, no work.
        if self.at >= window.fresh() && !self.long && bits::position(window.new, begins).is_none() {
            self.at = window.end();
            return;
        }
        let from = self.at.max(window.start());
        let mut pieces = Vec::new();
        window.with(from..window.end(), |bytes| self.pieces(bytes, from, last, &mut pieces));
        for piece in pieces {
            // Many clauses have so many characters: few of those are all in a list, and have its checksum.
            let Some(phrase) = window.with(piece.clone(), |text| phrase(text, piece.start)) else { continue };
            let before = piece.start.saturating_sub(REACH as u64)..piece.start + ANNOUNCEMENT as u64;
            let start = (piece.start - before.start.max(window.start())) as usize;
            if window.with(before, |text| announced(text, start)) {
                found.push(phrase);
            }
        }
    }

    /// Runs of as many ideographs as a phrase has, with their places in the text.
    fn pieces(&mut self, bytes: &[u8], from: u64, last: bool, pieces: &mut Vec<Range<u64>>) {
        let mut at = 0;
        loop {
            if !self.long {
                at += bits::position(&bytes[at..], begins).unwrap_or(bytes.len() - at);
            }
            let start = at;
            while bytes.get(at..at + 3).is_some_and(ideograph) {
                at += 3;
            }
            let count = (at - start) / 3;
            let rest = bytes.get(at..).unwrap_or_default();
            if !last && rest.len() < 3 && rest.first().is_none_or(|byte| begins(*byte)) {
                self.long = self.long || count > LENGTHS[0];
                self.at = from + if self.long { at } else { start } as u64;
                return;
            }
            if !self.long && LENGTHS.contains(&count) {
                pieces.push(from + start as u64..from + at as u64);
            }
            self.long = false;
            if rest.is_empty() {
                self.at = from + bytes.len() as u64;
                return;
            }
            at += 1;
        }
    }

    /// Where the first piece starts that is not over yet.
    pub(super) fn hold(&self) -> u64 {
        self.at
    }
}

/// Whether an ideograph may begin with the byte.
fn begins(byte: u8) -> bool {
    (0xe3..=0xe9).contains(&byte)
}

/// U+3400 to U+9FFF.
fn ideograph(bytes: &[u8]) -> bool {
    let goes_on = |byte: u8| byte & 0xc0 == 0x80;
    matches!(bytes, &[first, second, third]
        if begins(first) && (first > 0xe3 || second >= 0x90) && goes_on(second) && goes_on(third))
}

/// Does an announcement start at or before `start`?
fn announced(text: &[u8], start: usize) -> bool {
    let places = text.iter().enumerate().take(start + 1);
    // The announcement may be glued to the phrase with nothing but its own characters before it.
    places.into_iter().any(|(at, _)| {
        let rest = &text[at..];
        ANNOUNCEMENTS
            .iter()
            .any(|word| rest.get(..word.len()).is_some_and(|part| part.eq_ignore_ascii_case(word.as_bytes())))
    })
}

/// The phrase that a text is as a whole.
fn phrase(text: &[u8], start: u64) -> Option<Phrase> {
    let text = std::str::from_utf8(text).ok()?;
    [Language::ChineseSimplified, Language::ChineseTraditional].into_iter().find_map(|language| {
        let numbers: Option<Vec<u16>> = text
            .chars()
            .map(|letter| {
                let entries = wide(letter.encode_utf8(&mut [0; 4]));
                entries
                    .iter()
                    .find(|entry| LANGUAGES[usize::from(entry.language)] == language)
                    .map(|entry| entry.number)
            })
            .collect();
        numbers.filter(|numbers| checksum(numbers)).map(|numbers| Phrase {
            language,
            words: numbers.len(),
            start,
            end: start + text.len() as u64,
        })
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn ideographs_are_those_of_the_block() {
        let mut bytes = [0; 4];
        for char in '\u{1}'..='\u{ffff}' {
            let is = super::ideograph(char.encode_utf8(&mut bytes).as_bytes());
            assert_eq!(is, ('\u{3400}'..='\u{9fff}').contains(&char), "{char:?}");
        }
        assert!(!super::ideograph(b"\xe4\xb8 ") && !super::ideograph(b"\xe4  ") && !super::ideograph(b"\xe4\xb8"));
    }
}
