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
    pub(super) fn push(&mut self, number: u16, start: u64) -> Option<(usize, u64)> {
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
            (checksum(&words[..count]) && !listed(&words[..count])).then(|| (count, self.starts[back(0)]))
        })
    }
}

/// Numbers that only rise, only fall or never change: a piece of the list itself, a dictionary, or one word repeated.
fn listed(numbers: &[u16]) -> bool {
    numbers.windows(2).all(|pair| pair[0] == pair[1])
        || numbers.is_sorted_by(|a, b| a < b)
        || numbers.is_sorted_by(|a, b| a > b)
}

/// Whether the last bits of 12, 15, 18, 21 or 24 words are the checksum of the others.
pub(super) fn checksum(numbers: &[u16]) -> bool {
    if !LENGTHS.contains(&numbers.len()) || numbers.iter().any(|&number| usize::from(number) >= WORDS) {
        return false;
    }
    // 24 words are 264 bits: 33 bytes.
    let mut bytes = [0u8; 33];
    for bit in 0..numbers.len() * 11 {
        let set = (numbers[bit / 11] >> (10 - bit % 11)) & 1;
        bytes[bit / 8] |= (set as u8) << (7 - bit % 8);
    }
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
    fn a_piece_of_the_list_is_no_phrase() {
        let mut found = 0;
        let mut run = Run::EMPTY;
        for number in 0..2048 {
            found += usize::from(run.push(number, u64::from(number)).is_some());
        }
        assert_eq!(found, 0);
    }
}
