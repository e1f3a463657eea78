//! Consecutive words of one list, and whether the last of them make a phrase with a right checksum.
//!
//! Called by the detector for every word. Promises: constant time and memory per word.
//! Format: BIP-39, "Generating the mnemonic": words carry 11 bits each, the last of them a SHA-256 checksum.

use super::lists::WORDS;
use sha2::{Digest, Sha256};

/// Words a phrase may have, longest first.
pub(super) const LENGTHS: [usize; 5] = [24, 21, 18, 15, 12];
const MOST: usize = 24;

/// The last words of a run in one list, with where they stood.
#[derive(Debug, Clone)]
pub(super) struct Run {
    numbers: [u16; MOST],
    starts: [u64; MOST],
    /// Words since the run began.
    length: u64,
}

impl Run {
    pub(super) const EMPTY: Run = Run { numbers: [0; MOST], starts: [0; MOST], length: 0 };

    pub(super) fn clear(&mut self) {
        self.length = 0;
    }

    /// Where the first word starts that a phrase to come may begin with.
    pub(super) fn begun(&self) -> Option<u64> {
        let words = self.length.min(MOST as u64 - 1);
        (words > 0).then(|| self.starts[((self.length - words) % MOST as u64) as usize])
    }

    /// Adds a word; returns how many of the last words are a phrase and where the first of them starts.
    /// `fits` has a word on each.
    pub(super) fn push(&mut self, number: u16, start: u64, fits: fn(&[u16]) -> bool) -> Option<(usize, u64)> {
        let at = (self.length % MOST as u64) as usize;
        self.numbers[at] = number;
        self.starts[at] = start;
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
            (checksum(&words[..count]) && likely(&words[..count]) && fits(&words[..count]))
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
            found += usize::from(run.push(number, u64::from(number), |_| true).is_some());
        }
        assert_eq!(found, 0);
    }
}
