//! Passing over text that cannot hold a phrase, without reading its words.
//!
//! Called by [`super::stream`]. Twelve words of three letters with a separator between them take 47 bytes, so of any 47
//! bytes of a phrase every point is in a word of a list or between two. It is enough to look one word up every
//! [`STRIDE`] bytes and to read on only where that word is in a list. Promises: no phrase that a detector finds in
//! the whole text is passed over; linear.

use super::lists;
use super::run::LENGTHS;
use crate::bits;
use std::ops::Range;

/// Bytes from the end of a word that is in no list to the next word looked up.
const STRIDE: usize = 44;

/// Bytes before a place that are looked at for the beginning of its word.
const NEAR: usize = 16;

/// Words of the shortest phrase.
const LEAST: usize = LENGTHS[LENGTHS.len() - 1];

/// What a word can be to a phrase.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// In no list: no phrase holds it.
    Foreign,
    /// In a list, as far as [`lists::maybe`] can tell.
    Listed,
    /// A label that touches a digit, or a word with other than ASCII letters: only the detector can tell.
    Unclear,
}

/// A letter of ASCII, or a byte of one beyond.
pub(super) fn letter(byte: u8) -> bool {
    ((byte | 0x20).wrapping_sub(b'a') < 26) | (byte >= 0x80)
}

fn kind(bytes: &[u8], word: &Range<usize>) -> Kind {
    let digit = |at: Option<&u8>| at.is_some_and(u8::is_ascii_digit);
    let text = &bytes[word.clone()];
    if !text.is_ascii() || digit(bytes.get(word.end)) || (word.start > 0 && digit(bytes.get(word.start - 1))) {
        return Kind::Unclear;
    }
    let listed = (3..=lists::LONGEST).contains(&text.len()) && {
        let lower = |eight: &[u8; 8]| u64::from_be_bytes(*eight) | 0x2020_2020_2020_2020;
        let key = if text.len() > 8 {
            text.last_chunk().map_or(0, |eight| lists::nine(text[0], lower(eight)))
        } else {
            match bytes.get(word.start..).and_then(<[u8]>::first_chunk) {
                // Without a loop over the letters.
                Some(eight) => lower(eight) >> (8 * (8 - text.len())),
                None => text.iter().fold(0, |key, byte| (key << 8) | u64::from(byte | 0x20)),
            }
        };
        lists::maybe(key)
    };
    if listed { Kind::Listed } else { Kind::Foreign }
}

/// The end of a word behind `floor` that is shorter or longer than any of a list, so near that no phrase fits before it.
fn odd(bytes: &[u8], floor: usize) -> Option<usize> {
    let block = bytes.get(floor..)?.first_chunk()?;
    let letters = bits::of(block, |byte| (byte | 0x20).wrapping_sub(b'a') < 26);
    let digits = bits::of(block, |byte| byte.wrapping_sub(b'0') < 10);
    let (beyond, carried) = (bits::of(block, |byte| byte >= 0x80), bits::of(block, |byte| byte & 0xc0 == 0x80));
    let never = bits::of(block, |byte| (byte == 0xc0) | (byte == 0xc1) | (byte >= 0xf5));
    // What begins behind a digit, or what may be a character beyond ASCII, is not judged by its length; nor is what ends before one.
    let starts = letters & !(letters << 1) & !((digits | carried) << 1);
    // A byte that begins no character, or goes on with one where a letter was, is no text. The last place is not looked at.
    let broken = never | carried & letters << 1 | beyond & !carried & !(carried >> 1);
    let marks = !letters & !digits & (!beyond | broken);
    let short = marks >> 1 | letters >> 1 & marks >> 2;
    let two = letters & letters >> 1;
    let four = two & two >> 2;
    let eight = four & four >> 4;
    let long = eight & eight >> (lists::LONGEST - 7);
    let near = starts & (short | long) & ((1 << (STRIDE + 3)) - 1);
    let start = near.checked_ilog2()?;
    let end = start + (!letters >> start).trailing_zeros();
    (end < u64::BITS - 1 && marks >> end & 1 == 1).then_some(floor + end as usize)
}

/// The word at or after a place.
fn word_at(bytes: &[u8], at: usize, floor: usize) -> Option<Range<usize>> {
    // Most words lie near, with their ends: without a loop over the letters, whose number nobody can foretell.
    let from = at.saturating_sub(NEAR).max(floor);
    if let Some(block) = bytes.get(from..).and_then(<[u8]>::first_chunk) {
        let letters = bits::of(block, letter);
        let ahead = letters & (u64::MAX << (at - from));
        let first = ahead.trailing_zeros();
        let end = (!letters & (u64::MAX << (first & 63))).trailing_zeros();
        let before = !letters & ((1 << (first & 63)) - 1);
        if ahead != 0 && end < u64::BITS && (before != 0 || from == floor) {
            return Some(from + (u64::BITS - before.leading_zeros()) as usize..from + end as usize);
        }
    }
    let at = at + bytes.get(at..)?.iter().position(|&byte| letter(byte))?;
    let start = bytes[floor..at].iter().rposition(|&byte| !letter(byte)).map_or(floor, |back| floor + back + 1);
    let end = bytes[at..].iter().position(|&byte| !letter(byte)).map_or(bytes.len(), |more| at + more);
    Some(start..end)
}

/// The word before a place, not further back than the floor.
fn word_before(bytes: &[u8], at: usize, floor: usize) -> Option<Range<usize>> {
    if let Some(block) = bytes.get(floor..at)?.last_chunk() {
        let letters = bits::of(block, letter);
        let end = u64::BITS - letters.leading_zeros();
        let before = !letters & (1u64.checked_shl(end).unwrap_or(0).wrapping_sub(1));
        if letters != 0 && before != 0 {
            let from = at - bits::BLOCK;
            return Some(from + (u64::BITS - before.leading_zeros()) as usize..from + end as usize);
        }
    }
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
        while let Some(end) = odd(bytes, floor) {
            (at, floor) = (end + STRIDE, end);
        }
        let Some(word) = word_at(bytes, at, floor).filter(|word| last || word.end < bytes.len()) else {
            return if last { bytes.len() } else { floor };
        };
        let what = kind(bytes, &word);
        if what == Kind::Foreign {
            floor = word.end;
            at = word.end + STRIDE;
            continue;
        }
        let (mut start, mut words, mut clear) = (word.start, 1, what == Kind::Listed);
        while let Some(before) = word_before(bytes, start, floor) {
            match kind(bytes, &before) {
                Kind::Foreign => {
                    floor = before.end;
                    break;
                }
                kind => clear &= kind == Kind::Listed,
            }
            (start, words) = (before.start, words + 1);
        }
        // Too few words in a row are no phrase.
        let mut end = word.end;
        let foreign = loop {
            let next = word_at(bytes, end, end).filter(|word| last || word.end < bytes.len());
            let Some(next) = next.filter(|_| clear && words < LEAST) else { break None };
            match kind(bytes, &next) {
                Kind::Foreign => break Some(next),
                kind => clear &= kind == Kind::Listed,
            }
            (end, words) = (next.end, words + 1);
        };
        let Some(foreign) = foreign else { return floor };
        floor = foreign.end;
        at = foreign.end + STRIDE;
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
        fn words_are_those_between_other_bytes(text in "([a-zA-Zé]{0,20}[ ,.0-9]{0,3}){0,12}", at in 0usize..200, floor in 0usize..200) {
            let bytes = text.as_bytes();
            let at = at.min(bytes.len());
            let floor = floor.min(at);
            let mut words = Vec::new();
            let mut start = floor;
            for part in bytes[floor..].split(|&byte| !letter(byte)) {
                if !part.is_empty() {
                    words.push(start..start + part.len());
                }
                start += part.len() + 1;
            }
            // The floor is the start of the text or the end of a word: no letter or digit before it touches the word behind it.
            let touches = |at: usize| bytes.get(at).is_some_and(|&byte| letter(byte) || byte.is_ascii_digit());
            if floor == 0 || !touches(floor) || !touches(floor - 1) {
                let odd = odd(bytes, floor);
                let found = odd.map(|end| words.iter().find(|word| word.end == end).cloned());
                let is_odd = |word: &Range<usize>| kind(bytes, word) == Kind::Foreign && !(3..=lists::LONGEST).contains(&word.len());
                prop_assert!(found.is_none_or(|word| word.is_some_and(|word| is_odd(&word) && word.start < floor + 47)));
            }
            prop_assert_eq!(word_at(bytes, at, floor), words.iter().find(|word| word.end > at).cloned());
            let before = words.iter().rfind(|word| word.start < at).map(|word| word.start..word.end.min(at));
            prop_assert_eq!(word_before(bytes, at, floor), before);
        }

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
