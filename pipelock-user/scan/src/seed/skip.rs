//! Passing over text that cannot hold a phrase, without reading its words.
//!
//! Called by [`super::stream`]. Twelve words of three letters with a separator between them take 47 bytes, so of any 47
//! bytes of a phrase every point is in a word of a list or between two. It is enough to look one word up every
//! [`STRIDE`] bytes and to read on only where that word is in a list. Promises: no phrase that a detector finds in
//! the whole text is passed over; linear.

use super::lists;
use super::run::LENGTHS;
use super::stretch::Stretch;
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

/// What a word of three to nine letters of ASCII is looked up by, and more than that for any other characters.
#[inline]
fn key(bytes: &[u8], start: usize, letters: usize) -> u64 {
    let eight = |at: usize| {
        let rest = bytes.get(at..).unwrap_or_default();
        let copied = || {
            let mut eight = [0; 8];
            eight.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            eight
        };
        u64::from_be_bytes(rest.first_chunk().copied().unwrap_or_else(copied)) | 0x2020_2020_2020_2020
    };
    let first = bytes.get(start).map_or(0, |byte| byte | 0x20);
    // Without a branch, for nobody can foretell how long a word is.
    let short = eight(start).wrapping_shr(u64::BITS - u8::BITS * letters.min(8) as u32);
    let long = lists::nine(first, eight(start + 1));
    if letters > 8 { long } else { short }
}

fn kind(bytes: &[u8], word: &Range<usize>) -> Kind {
    let digit = |at: Option<&u8>| at.is_some_and(u8::is_ascii_digit);
    let text = &bytes[word.clone()];
    if !text.is_ascii() || digit(bytes.get(word.end)) || (word.start > 0 && digit(bytes.get(word.start - 1))) {
        return Kind::Unclear;
    }
    let listed = (3..=lists::LONGEST).contains(&text.len()) && lists::maybe(key(bytes, word.start, text.len()));
    if listed { Kind::Listed } else { Kind::Foreign }
}

/// The end of a word behind `floor` that is shorter or longer than any of a list, so near that no phrase fits before it.
fn odd(text: &mut Stretch<'_>, floor: usize) -> Option<usize> {
    // At the floor itself the word before it is over.
    let near = text.at(floor, |masks| masks.ends) & ((1 << (STRIDE + 4)) - 2);
    Some(floor + near.checked_ilog2()? as usize)
}

/// Words that are looked up together.
const TOGETHER: usize = 4;

/// The same, of a word of three to nine letters: one of the last so near. Nobody can foretell which of them are in a list, so all are
/// looked up.
fn unlisted(text: &mut Stretch<'_>, floor: usize) -> Option<usize> {
    let (plain, marks) = (text.at(floor, |masks| masks.plain), text.at(floor, |masks| masks.marks));
    let mut starts = text.at(floor, |masks| masks.starts) & ((1 << (STRIDE + 3)) - 1);
    let mut found = 0;
    for _ in 0..TOGETHER {
        let start = starts.checked_ilog2().unwrap_or(0);
        let letters = (!plain >> start | 1 << (u64::BITS - 1)).trailing_zeros();
        let end = start + letters;
        let over = starts >> start & marks.checked_shr(end).unwrap_or(0) & 1;
        let fits = letters.wrapping_sub(3) <= lists::LONGEST as u32 - 3;
        let is_foreign = (over == 1) & fits & !lists::maybe(key(text.bytes, floor + start as usize, letters as usize));
        found = if (found == 0) & is_foreign { end } else { found };
        starts &= !(1 << start);
    }
    (found > 0).then_some(floor + found as usize)
}

/// The word at or after a place.
fn word_at(text: &mut Stretch<'_>, at: usize, floor: usize) -> Option<Range<usize>> {
    let bytes = text.bytes;
    // Most words lie near, with their ends: without a loop over the letters, whose number nobody can foretell.
    let from = at.saturating_sub(NEAR).max(floor);
    if from + bits::BLOCK <= bytes.len() {
        let letters = text.at(from, |masks| masks.letters);
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
fn word_before(text: &mut Stretch<'_>, at: usize, floor: usize) -> Option<Range<usize>> {
    let bytes = text.bytes;
    if let Some(from) = at.checked_sub(bits::BLOCK).filter(|from| *from >= floor) {
        let letters = text.at(from, |masks| masks.letters);
        let end = u64::BITS - letters.leading_zeros();
        let before = !letters & (1u64.checked_shl(end).unwrap_or(0).wrapping_sub(1));
        if letters != 0 && before != 0 {
            return Some(from + (u64::BITS - before.leading_zeros()) as usize..from + end as usize);
        }
    }
    let end = floor + bytes.get(floor..at)?.iter().rposition(|&byte| letter(byte))? + 1;
    let start = bytes[floor..end].iter().rposition(|&byte| !letter(byte)).map_or(floor, |back| floor + back + 1);
    Some(start..end)
}

/// Where the detector has to begin, from `at` on: everything before is passed over. `at` lies behind a word that is in no list, or
/// at the start of the text; a word that touches the end is not judged unless the text ends there (`last`). What comes out
/// lies behind such a word too.
pub(super) fn start(text: &mut Stretch<'_>, at: usize, last: bool) -> usize {
    let bytes = text.bytes;
    let (mut at, mut floor) = (at, at);
    loop {
        while let Some(end) = odd(text, floor).or_else(|| unlisted(text, floor)) {
            (at, floor) = (end + STRIDE, end);
        }
        let Some(word) = word_at(text, at, floor).filter(|word| last || word.end < bytes.len()) else {
            return if last { bytes.len() } else { floor };
        };
        let what = kind(bytes, &word);
        if what == Kind::Foreign {
            floor = word.end;
            at = word.end + STRIDE;
            continue;
        }
        let (mut start, mut words, mut clear) = (word.start, 1, what == Kind::Listed);
        while let Some(before) = word_before(text, start, floor) {
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
            let next = word_at(text, end, end).filter(|word| last || word.end < bytes.len());
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
        assert_eq!(start(&mut Stretch::new(prose.as_bytes()), 0, true), prose.len());
        let text = format!("{prose}{ENGLISH}. {prose}");
        let from = start(&mut Stretch::new(text.as_bytes()), 0, true);
        assert!(text[from..].trim_start_matches(['.', ' ']).starts_with(ENGLISH));
    }

    #[test]
    fn a_phrase_is_found_at_every_place_of_a_stretch() {
        let prose = "To be on a par with the mnemonics of 2 unremarkable ves9els, as it is. ".repeat(70);
        for before in (0..200).chain(1900..2200).chain(3950..4250) {
            let text = format!("{}. {ENGLISH}, {prose}", &prose[..before]);
            assert_eq!(scan(&text).len(), 1, "{before}");
        }
    }

    proptest! {
        #[test]
        fn words_are_those_between_other_bytes(text in "([a-zA-Zé]{0,20}[ ,.0-9]{0,3}){0,12}", at in 0usize..200, floor in 0usize..200) {
            let bytes = text.as_bytes();
            let stretch = &mut Stretch::new(bytes);
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
                let odd = odd(stretch, floor);
                let found = odd.map(|end| words.iter().find(|word| word.end == end).cloned());
                let is_odd = |word: &Range<usize>| kind(bytes, word) == Kind::Foreign && !(3..=lists::LONGEST).contains(&word.len());
                prop_assert!(found.is_none_or(|word| word.is_some_and(|word| is_odd(&word) && word.start < floor + 47)));
                let found = unlisted(stretch, floor).map(|end| words.iter().find(|word| word.end == end).cloned());
                let is_foreign = |word: &Range<usize>| kind(bytes, word) == Kind::Foreign && word.start < floor + 47;
                prop_assert!(found.is_none_or(|word| word.is_some_and(|word| is_foreign(&word))));
            }
            prop_assert_eq!(word_at(stretch, at, floor), words.iter().find(|word| word.end > at).cloned());
            let before = words.iter().rfind(|word| word.start < at).map(|word| word.start..word.end.min(at));
            prop_assert_eq!(word_before(stretch, at, floor), before);
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
