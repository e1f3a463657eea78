//! Consecutive words of one list, and whether the last of them make a phrase with a right checksum.
//!
//! Called by the detector for every word. Promises: constant time and memory per word.
//! Format: BIP-39, "Generating the mnemonic": words carry 11 bits each, the last of them a SHA-256 checksum.

use super::lists::{self, WORDS};
use sha2::{Digest, Sha256};

/// Words a phrase may have, longest first.
pub(super) const LENGTHS: [usize; 5] = [24, 21, 18, 15, 12];
const MOST: usize = 24;

/// What the words of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fits {
    Word,
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
    pub(super) const EMPTY: Run = Run { numbers: [0; MOST], starts: [0; MOST], marks: [0; MOST], length: 0 };

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

    /// Adds a word that stands behind `marks`; returns how many of the last words are a phrase and where the first of them
    /// starts. `fits` has a word on each.
    pub(super) fn push(&mut self, number: u16, start: u64, marks: u16, fits: Fits) -> Option<(usize, u64)> {
        let at = (self.length % MOST as u64) as usize;
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
            for (offset, word) in words[..count].iter_mut().enumerate() {
                *word = self.numbers[back(offset)];
            }
            // Of a single character, chance finds phrases in every table of characters: there it begins one.
            let marks = (1..count).fold(0, |marks, offset| marks | self.marks[back(offset)]).count_ones();
            let apart = match fits {
                Fits::Character => self.length == count as u64 && marks < 2,
                Fits::Word | Fits::Cut => marks <= MOST_MARKS,
            };
            let fitting = || fits != Fits::Cut || lists::most_cut(&words[..count]);
            (apart && checksum(&words[..count]) && likely(&words[..count]) && fitting())
                .then(|| (count, self.starts[back(0)]))
        })
    }
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
    let one_word = body.iter().all(|number| number == first);
    let one_byte = entropy.iter().all(|byte| *byte == entropy[0]);
    first != last && (one_word || one_byte)
}

/// What the words say, 11 bits each, highest first: of 24 words 264 bits.
fn bytes(numbers: &[u16]) -> [u8; 33] {
    let mut bytes = [0u8; 33];
    for bit in 0..numbers.len().min(MOST) * 11 {
        let set = (numbers[bit / 11] >> (10 - bit % 11)) & 1;
        bytes[bit / 8] |= (set as u8) << (7 - bit % 8);
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
    fn a_piece_of_the_list_is_no_phrase() {
        let mut found = 0;
        let mut run = Run::EMPTY;
        for number in 0..2048 {
            found += usize::from(run.push(number, u64::from(number), 0, Fits::Word).is_some());
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
                run.push(*number, 0, marks.get(at % marks.len().max(1)).map_or(0, |byte| mark(*byte)), fits)
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
            row.filter_map(|number| run.push(*number, 0, 0, Fits::Character)).filter(|(count, _)| *count == 12).count()
        };
        assert_eq!((found(&[]), found(&[77])), (1, 0));
    }
}
