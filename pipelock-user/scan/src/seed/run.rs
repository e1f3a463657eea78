//! Consecutive words of one list, and whether the last of them make a phrase with a right checksum.
//!
//! Called by the detector for every word. Promises: constant time and memory per word.
//! Format: BIP-39, "Generating the mnemonic": words carry 11 bits each, the last of them a SHA-256 checksum.

use super::lists::{self, WORDS};
use sha2::{Digest, Sha256};
use std::sync::OnceLock;

/// Words a phrase may have, longest first.
pub(super) const LENGTHS: [usize; 5] = [24, 21, 18, 15, 12];
const MOST: usize = 24;

/// Bytes from the start of one word to that of the next, in a list of them with their numbers.
const NEAR: usize = 24;

/// What the words of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fits {
    Word,
    /// Words of the English list, many of which are in every text.
    English,
    /// The first four letters of some.
    Cut,
    /// Single characters, as in Chinese.
    Character,
}

/// The last words of a run in one list, with where they stood.
#[derive(Debug, Clone)]
pub(super) struct Run {
    numbers: [u16; MOST],
    starts: [u64; MOST],
    /// The marks before each, as [`mark`] tells them.
    marks: [u16; MOST],
    /// The numbers before each, as in `7. lottery`; 0 is none.
    labels: [u8; MOST],
    /// Words since the run began.
    length: u64,
}

/// Marks that give source code its structure, and how many of them may stand between the words of a phrase: `(1) legal; (2)
/// winner;` has two, the properties and blocks of a style sheet more. One in sixteen rows of words has a right checksum.
const STRUCTURE: [&[u8]; 9] = [b"{}", b"()", b";", b"$", b"@", b"&", b"=", b"#", b"\\"];
const MOST_MARKS: u32 = 3;

/// The bit of a byte of [`STRUCTURE`]; none of others.
pub(super) fn mark(byte: u8) -> u16 {
    STRUCTURE.iter().position(|known| known.contains(&byte)).map_or(0, |at| 1 << at)
}

impl Run {
    pub(super) const EMPTY: Run =
        Run { numbers: [0; MOST], starts: [0; MOST], marks: [0; MOST], labels: [0; MOST], length: 0 };

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    /// Words since the run began.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Where the first word starts that a phrase to come may begin with.
    pub(super) fn begun(&self) -> Option<u64> {
        let words = self.length.min(MOST as u64 - 1);
        (words > 0).then(|| self.starts[((self.length - words) % MOST as u64) as usize])
    }

    /// Adds a word that stands behind `marks` and a number that is a `label`; returns how many of the last words are a phrase and
    /// where the first of them starts. `fits` has a word on each.
    pub(super) fn push(
        &mut self,
        number: u16,
        start: u64,
        (marks, label): (u16, u8),
        fits: Fits,
    ) -> Option<(usize, u64)> {
        let at = (self.length % MOST as u64) as usize;
        self.labels[at] = label;
        self.numbers[at] = number;
        self.starts[at] = start;
        self.marks[at] = marks;
        self.length += 1;
        LENGTHS.into_iter().find_map(|count| {
            let back = |offset: usize| ((self.length + (MOST - count + offset) as u64) % MOST as u64) as usize;
            if self.length < count as u64 {
                return None;
            }
            let mut words = [0u16; MOST];
            let mut labels = [0u8; MOST];
            for (offset, (word, label)) in words.iter_mut().zip(&mut labels).take(count).enumerate() {
                (*word, *label) = (self.numbers[back(offset)], self.labels[back(offset)]);
            }
            // Of a single character, chance finds phrases in every table of characters: there it begins one.
            let marks = (1..count).fold(0, |marks, offset| marks | self.marks[back(offset)]).count_ones();
            let apart = match fits {
                Fits::Character => self.length == count as u64 && marks < 2,
                Fits::Word | Fits::English | Fits::Cut => marks <= MOST_MARKS,
            };
            let words = &words[..count];
            let is_phrase = |words: &[u16]| {
                let fitting = match fits {
                    Fits::Cut => lists::most_cut(words) && !is_prose(words),
                    Fits::English => !is_prose(words),
                    Fits::Word | Fits::Character => true,
                };
                // One word over and over is a phrase of a test, or what stands in every row of a table.
                let dense = || start - self.starts[back(0)] <= (count * NEAR) as u64 || !one_word(words);
                checksum(words) && likely(words) && fitting && dense()
            };
            let found = apart
                && (is_phrase(words) || in_order(words, &labels[..count]).is_some_and(|it| is_phrase(&it[..count])));
            found.then(|| (count, self.starts[back(0)]))
        })
    }
}

/// The words in the order of the numbers before them, when that is another: as of a phrase in two columns. What stands before the
/// first of them may be unknown, so it is the number that no other has.
fn in_order(words: &[u16], labels: &[u8]) -> Option<[u16; MOST]> {
    let mut ordered = [0; MOST];
    let mut seen = 0u32;
    let rest = labels.get(1..)?;
    let in_place = rest.iter().zip(2..).all(|(label, at)| *label == at);
    for (word, label) in words.iter().skip(1).zip(rest) {
        let place =
            usize::from(*label).checked_sub(1).filter(|place| *place < words.len() && seen >> place & 1 == 0)?;
        seen |= 1 << place;
        ordered[place] = *word;
    }
    ordered[(!seen).trailing_zeros() as usize % MOST] = *words.first()?;
    (!in_place).then_some(ordered)
}

/// Words of the English list that are in every text: more than one in twenty of its words, and half of those of a sentence.
const COMMON: &str = "about above again all also always among any another around because become before begin below between beyond \
    can change day either else end enough few find first found give good have help high into just keep kind know large later like \
    little long main make man mean more much must name near need never next now number off often old once one only open option \
    other over own place possible provide put same say second side since small start still such system that then there they \
    thing this time together toward try turn two type under until upon use very want way what when where will work year you";

/// Is it a sentence that happens to have no other words? One row of words in sixteen has a right checksum; of true phrases
/// one in four thousand holds so many that are common.
pub(super) fn is_prose(numbers: &[u16]) -> bool {
    static NUMBERS: OnceLock<Vec<bool>> = OnceLock::new();
    let common = NUMBERS.get_or_init(|| {
        let is_common = |word: &str| COMMON.split_ascii_whitespace().any(|known| known == word);
        lists::TEXTS[0].lines().map(is_common).collect()
    });
    let count = numbers.iter().filter(|number| common.get(usize::from(**number)) == Some(&true)).count();
    count >= 3 + numbers.len() / 6 && !made(numbers)
}

/// Can these be a phrase, whose words chance has chosen? One row of words in sixteen has a right checksum, and source code
/// and tables have many rows: they say the same words again, or say them in order. Of true phrases one in a hundred
/// thousand does so.
pub(super) fn likely(numbers: &[u16]) -> bool {
    let again = numbers.iter().enumerate().filter(|(at, number)| numbers[..*at].contains(number)).count();
    let rising = numbers.windows(2).filter(|pair| pair[0] < pair[1]).count();
    let falling = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
    let ordered = rising.max(falling) + 2 >= numbers.len();
    (again <= if numbers.len() < 18 { 2 } else { 3 } && !ordered) || made(numbers)
}

/// A phrase that somebody made for a test: of one byte over and over, or one word and another that makes the sum right.
fn made(numbers: &[u16]) -> bool {
    let [first, body @ .., last] = numbers else { return false };
    let bytes = bytes(numbers);
    let entropy = &bytes[..numbers.len() * 4 / 3];
    let one_byte = entropy.iter().all(|byte| *byte == entropy[0]);
    first != last && (body.iter().all(|number| number == first) || one_byte)
}

/// All the same but the last.
fn one_word(numbers: &[u16]) -> bool {
    numbers.split_last().is_some_and(|(_, body)| body.windows(2).all(|pair| pair[0] == pair[1]))
}

/// What the words say, 11 bits each, highest first: of 24 words 264 bits.
fn bytes(numbers: &[u16]) -> [u8; 33] {
    let mut bytes = [0u8; 33];
    let mut places = bytes.iter_mut();
    // The bits that fill no byte yet are the lowest `rest` of `bits`.
    let (mut bits, mut rest) = (0u32, 0);
    for number in numbers.iter().take(MOST) {
        bits = bits << 11 | u32::from(number & 0x7ff);
        rest += 11;
        while rest >= 8 {
            rest -= 8;
            if let Some(place) = places.next() {
                *place = (bits >> rest) as u8;
            }
        }
    }
    if let Some(place) = places.next().filter(|_| rest > 0) {
        *place = (bits << (8 - rest)) as u8;
    }
    bytes
}

/// Whether the last bits of 12, 15, 18, 21 or 24 words are the checksum of the others.
pub(super) fn checksum(numbers: &[u16]) -> bool {
    if !LENGTHS.contains(&numbers.len()) || numbers.iter().any(|&number| usize::from(number) >= WORDS) {
        return false;
    }
    let bytes = bytes(numbers);
    let sum_bits = numbers.len() / 3;
    let entropy = numbers.len() * 4 / 3;
    let sum = Sha256::digest(&bytes[..entropy]);
    bytes[entropy] >> (8 - sum_bits) == sum[0] >> (8 - sum_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_eleven_bits_each() {
        for count in [1, 3, 8, 12, 15, 23, 24, 30] {
            let numbers: Vec<u16> = (0..count as u16).map(|at| (at * 397 + 1021) % 2048).collect();
            let mut plain = [0u8; 33];
            for bit in 0..count.min(MOST) * 11 {
                plain[bit / 8] |= ((numbers[bit / 11] >> (10 - bit % 11) & 1) as u8) << (7 - bit % 8);
            }
            assert_eq!(bytes(&numbers), plain, "{count}");
        }
    }

    #[test]
    fn zero_entropy_has_the_published_last_word() {
        // "abandon" eleven times and "about" (BIP-39 test vectors).
        let mut words = [0u16; 12];
        words[11] = 3;
        assert!(checksum(&words));
        // Every one of the four checksum bits counts.
        for wrong in [2, 1, 7, 11] {
            words[11] = wrong;
            assert!(!checksum(&words), "{wrong}");
        }
        assert!(!checksum(&[0; 13]));
        assert!(!checksum(&[2048; 12]));
    }

    #[test]
    fn words_said_again_or_in_order_are_no_phrase() {
        let row = |numbers: &[u16]| likely(numbers);
        assert!(row(&[5, 900, 13, 7, 2000, 44, 800, 3, 1999, 60, 61, 12]));
        assert!(row(&[5, 900, 13, 5, 2000, 44, 800, 13, 1999, 60, 61, 12]));
        assert!(!row(&[5, 900, 13, 5, 2000, 44, 800, 13, 1999, 60, 61, 900]));
        assert!(!row(&[5, 9, 13, 17, 20, 44, 80, 83, 99, 160, 161, 12]));
        assert!(!row(&[5, 9, 13, 17, 2, 44, 80, 83, 99, 160, 161, 162]));
        assert!(!row(&[161, 160, 99, 83, 80, 44, 20, 17, 13, 9, 5, 12]));
        assert!(!row(&[7; 12]));
        let mut tests = [1000; 12];
        tests[11] = 4;
        assert!(row(&tests), "one word, and one that makes the sum right");
    }

    #[test]
    fn numbers_say_the_order() {
        let words = [5, 900, 13, 7, 2000, 44, 800, 3, 1999, 60, 61];
        let last = (0..2048).find(|last| checksum(&[&words[..], &[*last]].concat())).unwrap();
        let words = [&words[..], &[last]].concat();
        // By columns: 1 7 2 8 …; the number of the first is not known.
        let found = |labels: &[u8]| {
            let mut run = Run::EMPTY;
            let row = labels.iter().enumerate().filter_map(|(at, label)| {
                let known = if at == 0 { 0 } else { *label };
                run.push(words[usize::from(*label) - 1], 0, (0, known), Fits::Word)
            });
            row.count()
        };
        let columns: Vec<u8> = (1..=6).flat_map(|row| [row, row + 6]).collect();
        assert_eq!(found(&columns), 1);
        let mut twice = columns;
        twice[3] = twice[1];
        assert_eq!(found(&twice), 0);
    }

    #[test]
    fn one_word_in_every_row_of_a_table_is_no_phrase() {
        let last = (0..2048).find(|last| checksum(&[&[1000; 11][..], &[*last]].concat())).unwrap();
        let found = |apart: u16| {
            let mut run = Run::EMPTY;
            let row = (0..12).filter_map(|at| {
                run.push(if at == 11 { last } else { 1000 }, u64::from(at * apart), (0, 0), Fits::Word)
            });
            row.count()
        };
        assert_eq!((found(9), found(31)), (1, 0));
    }

    #[test]
    fn a_sentence_is_no_phrase() {
        let number = |word: &str| lists::TEXTS[0].lines().position(|known| known == word).unwrap() as u16;
        let numbers = |text: &str| text.split(' ').map(number).collect::<Vec<_>>();
        assert!(is_prose(&numbers(
            "when you open this window you can use the other door key now".replace("the ", "").as_str()
        )));
        assert!(!is_prose(&numbers("legal winner thank year wave sausage worth useful legal winner thank yellow")));
        assert!(!is_prose(&numbers(
            "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
        )));
    }

    #[test]
    fn a_piece_of_the_list_is_no_phrase() {
        let mut found = 0;
        let mut run = Run::EMPTY;
        for number in 0..2048 {
            found += usize::from(run.push(number, u64::from(number), (0, 0), Fits::Word).is_some());
        }
        assert_eq!(found, 0);
    }

    #[test]
    fn marks_of_source_code_make_no_phrase() {
        let words = [5, 900, 13, 7, 2000, 44, 800, 3, 1999, 60, 61];
        let last = (0..2048).find(|last| checksum(&[&words[..], &[*last]].concat())).unwrap();
        let found = |marks: &[u8], fits| {
            let mut run = Run::EMPTY;
            let row = words.iter().chain([&last]).enumerate();
            row.filter_map(|(at, number)| {
                run.push(*number, 0, (marks.get(at % marks.len().max(1)).map_or(0, |byte| mark(*byte)), 0), fits)
            })
            .count()
        };
        for (marks, fits) in [(&b""[..], Fits::Word), (b"();$", Fits::Word), (b"()", Fits::Character)] {
            assert_eq!(found(marks, fits), 1, "{marks:?} {fits:?}");
        }
        assert_eq!((found(b"{(;$", Fits::Word), found(b"(=", Fits::Character)), (0, 0));
    }

    #[test]
    fn single_characters_are_a_phrase_where_they_begin() {
        let words = [5, 900, 13, 7, 2000, 44, 800, 3, 1999, 60, 61];
        let last = (0..2048).find(|last| checksum(&[&words[..], &[*last]].concat())).unwrap();
        let found = |before: &[u16]| {
            let mut run = Run::EMPTY;
            let row = before.iter().chain(&words).chain([&last]);
            row.filter_map(|number| run.push(*number, 0, (0, 0), Fits::Character))
                .filter(|(count, _)| *count == 12)
                .count()
        };
        assert_eq!((found(&[]), found(&[77])), (1, 0));
    }
}
