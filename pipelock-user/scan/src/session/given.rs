//! What a session was given: names and pieces in the texts that it read, so that they are not taken for data of its own choice
//! when it sends them. An installer reads an index and fetches the links in it; what it sends is a choice among them and no more.
//!
//! Filled by [`crate::stream`] with the texts that come in ([`crate::Scanner::giving`]), asked by [`super::Sessions`]. Promises:
//! a megabyte of memory at most, whatever is read; one pass; nobody outside can make two pieces look the same.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::{bits, entropy};

/// Places in which a piece may be kept; of those that share them the one that was read longest ago goes.
const WAYS: usize = 4;
/// Groups of places. A large index page holds some ten thousand pieces, and a large installation reads some hundred pages.
const GROUPS: usize = 1 << 16;
/// Longest piece and name that is remembered.
const LONGEST: usize = 256;
/// Most pieces of a name that is looked for, and places in a value where one is.
const MOST_PIECES: usize = 32;

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

    /// Whether all of a value that is no word was read, but for less than `shortest` bytes in short pieces.
    pub(super) fn has_given(&self, value: &[u8], shortest: usize) -> bool {
        let (mut is_given, mut short) = (false, 0);
        for piece in pieces(value, Some(self)) {
            match piece {
                Piece::Given => is_given = true,
                Piece::Own(_) => return false,
                Piece::Short(piece) => short += piece.len(),
            }
        }
        is_given && short < shortest
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

/// A piece of a value that is no word.
#[derive(Debug)]
pub(super) enum Piece<'v> {
    /// It was read, or is a name that was, of several pieces.
    Given,
    /// It was not.
    Own(&'v [u8]),
    /// It is so short that there are few others, and not in a name that was read.
    Short(&'v [u8]),
}

/// The pieces of a value that are no words, beside what was read.
pub(super) fn pieces<'v>(value: &'v [u8], given: Option<&Given>) -> Vec<Piece<'v>> {
    let mut places = Vec::new();
    let mut at = 0;
    for piece in value.split(entropy::separates) {
        if !piece.is_empty() {
            places.push(at..at + piece.len());
        }
        at += piece.len() + 1;
    }
    let (mut all, mut next) = (Vec::new(), 0);
    while let Some(place) = places.get(next) {
        let names = |given: &Given| {
            let last = places.len().min(next + MOST_PIECES);
            let ends = (next + 1..if next < MOST_PIECES { last } else { 0 }).rev();
            ends.map(|end| (end, place.start..places[end].end))
                .find(|(_, name)| name.len() <= LONGEST && given.holds(&value[name.clone()]))
        };
        if let Some((end, _)) = given.and_then(names) {
            all.push(Piece::Given);
            next = end + 1;
            continue;
        }
        let piece = &value[place.clone()];
        next += 1;
        if piece.len() < entropy::LONG {
            all.extend((!entropy::is_word(piece)).then_some(Piece::Short(piece)));
        } else if !entropy::is_word(piece) {
            let is_given = given.is_some_and(|given| given.holds(piece));
            all.push(if is_given { Piece::Given } else { Piece::Own(piece) });
        }
    }
    all
}

/// The group of a piece, and its fingerprint.
fn place(hash: u64) -> (usize, u32) {
    (hash as usize % GROUPS, ((hash >> 32) as u32).max(1))
}

/// One text that is read, cut anywhere.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    /// A name that goes on, as far as there is room, and where the last of its pieces begins. Longer than [`LONGEST`] both are none.
    open: Vec<u8>,
    piece: usize,
    /// Its beginning was too long and is gone.
    is_cut: bool,
    hashes: Vec<u64>,
}

impl Readings {
    /// Remembers the pieces of what comes next.
    pub(crate) fn push(&mut self, given: &Given, text: &[u8], last: bool) {
        // What is whole is read where it stands; only names that are cut are copied.
        let first = text.iter().position(parts).map_or(text.len(), |at| at + 1);
        let (open, rest) = text.split_at(first);
        self.read(given, open);
        let whole = rest.iter().rposition(parts).map_or(0, |at| at + 1);
        let (names, open) = rest.split_at(whole);
        self.read_names(given, names);
        self.read(given, open);
        if last {
            self.close(given);
        }
        given.add(&mut self.hashes);
    }

    /// Reads what may begin and end within a name.
    fn read(&mut self, given: &Given, text: &[u8]) {
        for part in text.split_inclusive(|byte| ends(*byte)) {
            let (part, end) = match part.split_last() {
                Some((end, part)) if ends(*end) => (part, Some(*end)),
                _ => (part, None),
            };
            let room = (self.piece + LONGEST + 1).saturating_sub(self.open.len());
            self.open.extend_from_slice(part.get(..room).unwrap_or(part));
            match end {
                Some(byte) if joins(byte) => {
                    self.hashes.extend(note_piece(given, &self.open[self.piece..]));
                    self.go_on(byte);
                }
                Some(_) => self.close(given),
                None => {}
            }
        }
    }

    /// Reads whole names, each with what ends it. Only one with a digit, or with a piece that is long, may have anything to
    /// remember; prose has few.
    fn read_names(&mut self, given: &Given, text: &[u8]) {
        let (mut at, mut done) = (0, 0);
        while at < text.len() {
            let block = bits::block(text, at);
            let digits = bits::of(&block, |byte| byte.is_ascii_digit());
            let mut found = digits | bits::rows(bits::of(&block, |byte| !ends(byte)), entropy::LONG);
            while found != 0 {
                let inside = at + found.trailing_zeros() as usize;
                let start = text[done..inside].iter().rposition(parts).map_or(done, |before| done + before + 1);
                let end = text[inside..].iter().position(parts).map_or(text.len(), |behind| inside + behind);
                self.read_name(given, &text[start..end]);
                done = end + 1;
                let passed = u32::try_from(done - at).unwrap_or(u32::MAX);
                found &= u64::MAX.checked_shl(passed).unwrap_or(0);
            }
            // A row that begins near the end of the block is seen in the next one.
            at = done.max(at + bits::BLOCK - (entropy::LONG - 1));
        }
    }

    fn read_name(&mut self, given: &Given, name: &[u8]) {
        if name.len() > LONGEST {
            self.read(given, name);
            return self.close(given);
        }
        let mut pieces = 0;
        for piece in name.split(|byte| ends(*byte)) {
            self.hashes.extend(note_piece(given, piece));
            pieces += 1;
        }
        if pieces > 1 {
            self.hashes.extend(note_name(given, name));
        }
    }

    fn go_on(&mut self, joint: u8) {
        self.open.push(joint);
        if self.open.len() > LONGEST {
            self.open.clear();
            self.is_cut = true;
        }
        self.piece = self.open.len();
    }

    fn close(&mut self, given: &Given) {
        self.hashes.extend(note_piece(given, &self.open[self.piece..]));
        // One piece is no name.
        if self.piece > 0 && !self.is_cut {
            self.hashes.extend(note_name(given, &self.open));
        }
        self.open.clear();
        self.piece = 0;
        self.is_cut = false;
    }
}

fn note_piece(given: &Given, piece: &[u8]) -> Option<u64> {
    let is_noted = (entropy::LONG..=LONGEST).contains(&piece.len()) && !entropy::is_word(piece);
    is_noted.then(|| given.key.hash_one(piece))
}

/// A name of several pieces, without the joints around it; words are known as they are.
fn note_name(given: &Given, name: &[u8]) -> Option<u64> {
    if !name.iter().any(u8::is_ascii_digit) {
        return None;
    }
    let joint = |byte: &u8| joins(*byte);
    let start = name.iter().position(|byte| !joint(byte)).unwrap_or(name.len());
    let end = name.iter().rposition(|byte| !joint(byte)).map_or(start, |at| at + 1);
    let name = &name[start..end];
    (name.len() <= LONGEST && name.iter().any(joint)).then(|| given.key.hash_one(name))
}

/// What parts names.
fn parts(byte: &u8) -> bool {
    ends(*byte) && !joins(*byte)
}

/// What joins the pieces of a name.
fn joins(byte: u8) -> bool {
    entropy::separates(&byte) && !b" ,/".contains(&byte)
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
                assert!(given.has_given(value.as_bytes(), 20), "{value} {size}");
            }
            assert!(!given.has_given(b"zq9xw3-a1b2c-d3e4-g5h6i-j7k8-m9n0o", 20));
            assert!(given.has_given(b"zq9xw3-a1b2c-d3e4", 20));
            for value in ["d3ab07ff9c1e22b5", "d3ab07ff9c1e22b", "zq9xw3-q7Zr2m", "zq9xw3q7Zr2m", "packages", ""] {
                assert!(!given.has_given(value.as_bytes(), 20), "{value} {size}");
            }
        }
    }

    #[test]
    fn however_it_is_cut_the_same_is_remembered() {
        // Letters, digits, joints and what parts names, of each as many as make names of all lengths.
        let alphabet = b"abcdefghijklmnopqrstuvwxyzXKQ0123456789....---__+@%! ,/\"\n";
        let mut state = 1_u64;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut noted = 0;
        for round in 0..300 {
            // Some texts part names seldom, so that they become too long.
            let few = if round % 3 == 0 { alphabet.len() - 5 } else { alphabet.len() };
            let mut letter = || {
                let known = if next(60) > 0 { few } else { alphabet.len() };
                alphabet[next(known)]
            };
            let mut text: Vec<u8> = (0..1500).map(|_| letter()).collect();
            text.truncate(next(1500));
            let whole = Given::default();
            Readings::default().push(&whole, &text, true);
            for size in [1, 3, 64, 200] {
                let cut = Given { key: whole.key.clone(), ..Given::default() };
                let mut readings = Readings::default();
                text.chunks(size).for_each(|piece| readings.push(&cut, piece, false));
                readings.push(&cut, b"", true);
                let [whole, cut] = [&whole, &cut].map(|given| given.groups.lock().unwrap().clone());
                assert!(whole == cut, "in pieces of {size}: {}", String::from_utf8_lossy(&text));
                noted += usize::from(!whole.is_empty());
            }
        }
        assert!(noted > 1000, "{noted}");
    }

    #[test]
    fn a_name_that_was_given_is_one_thing() {
        let given = read(&[
            "see --pkg1x_core-2.1-cp311-manylinux_2_17_x86_64.whl: and ",
            &"1-".repeat(LONGEST / 2 + 1),
            "2-3 4-5\"",
        ]);
        let ways = |value: &str| pieces(value.as_bytes(), Some(&given)).iter().map(is_given).collect::<Vec<_>>();
        fn is_given(piece: &Piece<'_>) -> bool {
            matches!(piece, Piece::Given)
        }
        assert_eq!(ways("pkg1x_core-2.1-cp311-manylinux_2_17_x86_64.whl.metadata"), [true]);
        assert_eq!(ways("/-pkg1x_core-2.1-cp311-manylinux_2_17_x86_64.whl.7"), [true, false]);
        assert_eq!(ways("core-2.1-cp311"), [false; 3]);
        assert_eq!(ways("4-5"), [true]);
        assert_eq!(ways("2-3"), [false; 2], "it is the end of a name that is too long");
        assert_eq!(ways(&"4-5+".repeat(200)).iter().filter(|is_given| **is_given).count(), MOST_PIECES / 2);
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
