//! What a session was given: pieces of the texts that it read, so that they are not taken for data of its own choice when
//! it sends them. An installer reads an index and fetches the links in it; what it sends is a choice among them and no more.
//!
//! Filled by [`crate::stream`] with the texts that come in ([`crate::Scanner::giving`]), asked by [`super::Sessions`]. Promises:
//! a megabyte of memory at most, whatever is read; one pass; nobody outside can make two pieces look the same.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::entropy;

/// Places in which a piece may be kept; of those that share them the one that was read longest ago goes.
const WAYS: usize = 4;
/// Groups of places. A large index page holds some ten thousand pieces, and a large installation reads some hundred pages.
const GROUPS: usize = 1 << 16;
/// Longest piece that is remembered.
const LONGEST: usize = 256;

/// The memory.
#[derive(Debug, Default)]
pub struct Given {
    /// Fingerprints, the latest first; zero where there is none. Made with the first piece.
    groups: Mutex<Vec<[u32; WAYS]>>,
    key: RandomState,
}

impl Given {
    /// Whether a piece was read.
    pub(super) fn holds(&self, piece: &[u8]) -> bool {
        let (at, print) = place(self.key.hash_one(piece));
        let groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        groups.get(at).is_some_and(|group| group.contains(&print))
    }

    /// Whether all of a value that is no word was read.
    pub(super) fn has_given(&self, value: &[u8]) -> bool {
        let mut pieces = entropy::free_pieces(value).peekable();
        pieces.peek().is_some() && pieces.all(|piece| self.holds(piece))
    }

    fn add(&self, hashes: &mut Vec<u64>) {
        if hashes.is_empty() {
            return;
        }
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if groups.is_empty() {
            groups.resize(GROUPS, [0; WAYS]);
        }
        for hash in hashes.drain(..) {
            let (at, print) = place(hash);
            let Some(group) = groups.get_mut(at) else { continue };
            let last = group.iter().position(|known| *known == print).unwrap_or(WAYS - 1);
            if let Some(newer) = group.get_mut(..=last) {
                newer.rotate_right(1);
            }
            group[0] = print;
        }
    }
}

/// The group of a piece, and its fingerprint.
fn place(hash: u64) -> (usize, u32) {
    (hash as usize % GROUPS, ((hash >> 32) as u32).max(1))
}

/// One text that is read, cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    /// A piece that goes on; longer than [`LONGEST`] it is none.
    open: Vec<u8>,
    hashes: Vec<u64>,
}

impl Readings {
    /// Remembers the pieces of what comes next.
    pub(crate) fn push(&mut self, given: &Given, text: &[u8], last: bool) {
        for (at, part) in text.split(|byte| ends(*byte)).enumerate() {
            if at > 0 {
                self.close(given);
            }
            let room = (LONGEST + 1).saturating_sub(self.open.len());
            self.open.extend_from_slice(part.get(..room).unwrap_or(part));
        }
        if last {
            self.close(given);
        }
        given.add(&mut self.hashes);
    }

    fn close(&mut self, given: &Given) {
        if self.open.len() <= LONGEST && !entropy::is_word(&self.open) {
            self.hashes.push(given.key.hash_one(&self.open[..]));
        }
        self.open.clear();
    }
}

/// What parts texts into pieces: what parts values, and what no part of a URL holds as it is (RFC 3986 §3.3).
fn ends(byte: u8) -> bool {
    !(byte.is_ascii_alphanumeric() || b"!$*@%".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&str]) -> Given {
        let given = Given::default();
        let mut readings = Readings::default();
        pieces.iter().for_each(|piece| readings.push(&given, piece.as_bytes(), false));
        readings.push(&given, b"", true);
        given
    }

    const PAGE: &str =
        "<a href=\"https://files.test/packages/4a/1b/d3ab07ff9c1e22b4/zq9xw3-1.0.whl#sha256=9f86d081884c\">";

    #[test]
    fn what_a_page_links_to_was_given_however_it_was_cut() {
        for size in [1, 7, PAGE.len()] {
            let pieces: Vec<&str> =
                PAGE.as_bytes().chunks(size).filter_map(|part| std::str::from_utf8(part).ok()).collect();
            let given = read(&pieces);
            for value in
                ["d3ab07ff9c1e22b4", "zq9xw3-1.0.whl", "zq9xw3-1.0.whl.metadata", "1.0-zq9xw3.crate", "9f86d081884c"]
            {
                assert!(given.has_given(value.as_bytes()), "{value} {size}");
            }
            for value in ["d3ab07ff9c1e22b5", "d3ab07ff9c1e22b", "zq9xw3-q7Zr2m", "zq9xw3q7Zr2m", "packages", ""] {
                assert!(!given.has_given(value.as_bytes()), "{value} {size}");
            }
        }
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_was_read_last() {
        let given = Given::default();
        let mut readings = Readings::default();
        for number in 0..2_000_000_u64 {
            readings.push(&given, format!("k{number:x}z9\n").as_bytes(), false);
        }
        assert_eq!(given.groups.lock().unwrap().len(), GROUPS);
        let kept = |from: u64, to: u64| (from..to).filter(|n| given.holds(format!("k{n:x}z9").as_bytes())).count();
        assert_eq!(kept(0, 1000), 0);
        assert!(kept(1_950_000, 2_000_000) > 49_500);
        readings.push(&given, &[b'x'; 3 * LONGEST], true);
        assert!(readings.open.capacity() < 4 * LONGEST);
    }
}
