//! Passing over text that cannot hold a phrase, without reading its words.
//!
//! Called by [`super::stream`]. Twelve words of three letters with a separator between them take 47 bytes, so of any 47
//! bytes of a phrase every point is in a word of a list or between two. It is enough to look one word up every
//! [`STRIDE`] bytes and to read on only where that word is in a list. Promises: no phrase that a detector finds in
//! the whole text is passed over; linear.

use super::lists;
use std::ops::Range;

/// Bytes from the end of a word that is in no list to the next word looked up.
const STRIDE: usize = 44;

/// What a word can be to a phrase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In no list: no phrase holds it.
    Foreign,
    /// In a list.
    Listed,
    /// A label that touches a digit, or a word with other than ASCII letters: only the detector can tell.
    Unclear,
}

fn letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte >= 0x80
}

fn kind(bytes: &[u8], word: &Range<usize>) -> Kind {
    let digit = |at: Option<&u8>| at.is_some_and(u8::is_ascii_digit);
    let text = &bytes[word.clone()];
    if !text.is_ascii() || digit(bytes.get(word.end)) || (word.start > 0 && digit(bytes.get(word.start - 1))) {
        return Kind::Unclear;
    }
    let lower = |key: u64, byte: &u8| (key << 8) | u64::from(byte | 0x20);
    let listed = (3..=lists::LONGEST).contains(&text.len()) && !lists::packed(text.iter().fold(0, lower)).is_empty();
    if listed { Kind::Listed } else { Kind::Foreign }
}

/// The word at or after a place.
fn word_at(bytes: &[u8], at: usize, floor: usize) -> Option<Range<usize>> {
    let at = at + bytes.get(at..)?.iter().position(|&byte| letter(byte))?;
    let start = bytes[floor..at].iter().rposition(|&byte| !letter(byte)).map_or(floor, |back| floor + back + 1);
    let end = bytes[at..].iter().position(|&byte| !letter(byte)).map_or(bytes.len(), |more| at + more);
    Some(start..end)
}

/// The word before a place, not further back than the floor.
fn word_before(bytes: &[u8], at: usize, floor: usize) -> Option<Range<usize>> {
    let end = floor + bytes.get(floor..at)?.iter().rposition(|&byte| letter(byte))? + 1;
    let start = bytes[floor..end].iter().rposition(|&byte| !letter(byte)).map_or(floor, |back| floor + back + 1);
    Some(start..end)
}

/// Where the detector has to begin: everything before is passed over. `bytes` starts behind a word that is in no list, or at
/// the start of the text; a word that touches their end is not judged unless the text ends there (`last`). What comes out
/// lies behind such a word too.
pub(super) fn start(bytes: &[u8], last: bool) -> usize {
    let (mut at, mut floor) = (0, 0);
    loop {
        let Some(word) = word_at(bytes, at, floor).filter(|word| last || word.end < bytes.len()) else {
            return if last { bytes.len() } else { floor };
        };
        if kind(bytes, &word) == Kind::Foreign {
            floor = word.end;
            at = word.end + STRIDE;
            continue;
        }
        let mut start = word.start;
        while let Some(before) = word_before(bytes, start, floor) {
            if kind(bytes, &before) == Kind::Foreign {
                return before.end;
            }
            start = before.start;
        }
        return floor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Detector, join, scan};
    use proptest::prelude::*;

    const ENGLISH: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

    #[test]
    fn prose_is_passed_over() {
        let prose = "Everybody resembles mnemonics: paragraphs consisting of unremarkable vocabularies. ".repeat(50);
        assert_eq!(start(prose.as_bytes(), true), prose.len());
        let text = format!("{prose}{ENGLISH}. {prose}");
        assert!(text[start(text.as_bytes(), true)..].trim_start_matches(['.', ' ']).starts_with(ENGLISH));
    }

    proptest! {
        #[test]
        fn no_phrase_is_passed_over(
            before in "[a-z ,.]{0,100}", gap in "[ ,.\n1-9—]{1,30}", after in "[A-Za-z éß的 ]{0,60}"
        ) {
            let text = format!("{before} {} {after} {before}", ENGLISH.replace(' ', &gap));
            let mut whole = Vec::new();
            let mut detector = Detector::new();
            detector.feed(&text, &mut whole);
            detector.finish(&mut whole);
            prop_assert!(!whole.is_empty());
            prop_assert_eq!(join(whole), scan(&text));
        }
    }
}
