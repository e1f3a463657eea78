//! Passing over text that cannot hold a phrase, without reading its words.
//!
//! Called by [`super::scan`]. Twelve words of three letters with a separator between them take 47 bytes, so of any 47
//! bytes of a phrase every point is in a word of a list or between two. It is enough to look one word up every
//! [`STRIDE`] bytes and to read on only where that word is in a list. Promises: every phrase that a detector finds in the
//! whole text lies in a range; linear.

use super::lists;
use std::ops::Range;

/// Bytes from the end of a word that is in no list to the next word looked up.
const STRIDE: usize = 44;
/// Fewest words of a phrase.
const FEWEST: usize = 12;

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

/// The ranges of the text, in order and apart, that may hold phrases. They begin and end at words.
pub(super) fn candidates(text: &str) -> Vec<Range<usize>> {
    let bytes = text.as_bytes();
    let mut ranges = Vec::new();
    // Everything before the floor is settled; the words there are not looked at again.
    let (mut at, mut floor) = (0, 0);
    while let Some(word) = word_at(bytes, at, floor) {
        if kind(bytes, &word) == Kind::Foreign {
            floor = word.end;
            at = word.end + STRIDE;
            continue;
        }
        let (mut start, mut end) = (word.start, word.end);
        let mut listed = 0;
        let mut unclear = false;
        let mut count = |kind| match kind {
            Kind::Foreign => false,
            Kind::Listed => {
                listed += 1;
                true
            }
            Kind::Unclear => {
                unclear = true;
                true
            }
        };
        count(kind(bytes, &word));
        while let Some(before) = word_before(bytes, start, floor).filter(|before| count(kind(bytes, before))) {
            start = before.start;
        }
        while let Some(after) = word_at(bytes, end, end).filter(|after| count(kind(bytes, after))) {
            end = after.end;
        }
        // Unclear words may hide more words than they seem, but a phrase has its length.
        if listed >= FEWEST || (unclear && end - start >= FEWEST * 3) {
            ranges.push(start..end);
        }
        floor = end;
        at = end;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::{Detector, join, scan};
    use proptest::prelude::*;

    const ENGLISH: &str = "legal winner thank year wave sausage worth useful legal winner thank yellow";

    #[test]
    fn prose_is_passed_over() {
        let prose = "Nothing here resembles anything mnemonic: ordinary paragraphs consisting of ordinary vocabulary. "
            .repeat(50);
        assert!(candidates(&prose).is_empty());
        let text = format!("{prose}{ENGLISH}. {prose}");
        let ranges = candidates(&text);
        assert_eq!(ranges.len(), 1);
        assert!(text[ranges[0].clone()].contains(ENGLISH));
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
