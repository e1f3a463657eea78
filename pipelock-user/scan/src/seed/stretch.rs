//! What the bytes of a text are to [`super::skip`]: which are letters, where words begin and where those end that are in no list for
//! their length alone. Called by it; a stretch of the text is looked at once, in blocks, and asked at many places.
//!
//! Promises: an end that is told is that of a word, with something behind it that no word holds; nothing is told of what lies
//! at the end of the bytes. No branch depends on what ASCII text says.

use super::lists;
use crate::bits::{self, BLOCK};

/// Blocks that are looked at together.
const BLOCKS: usize = 32;
/// Bytes before the place asked for that are looked at with it: the next question may be about what is before.
const BEFORE: usize = 2 * BLOCK;

/// Which bytes of a block are of a kind.
#[derive(Clone, Copy, Default)]
struct Kinds {
    /// Letters of ASCII.
    letters: u64,
    digits: u64,
    /// Not ASCII, …
    beyond: u64,
    /// … of these what goes on with a character, …
    carried: u64,
    /// … and what no text holds.
    never: u64,
}

impl Kinds {
    fn of(bytes: &[u8], at: usize) -> Self {
        let block = bits::block(bytes, at);
        let letters = bits::of(&block, |byte| (byte | 0x20).wrapping_sub(b'a') < 26);
        let digits = bits::of(&block, |byte| byte.wrapping_sub(b'0') < 10);
        let beyond = bits::of(&block, |byte| byte >= 0x80);
        if beyond == 0 {
            return Self { letters, digits, ..Self::default() };
        }
        let carried = bits::of(&block, |byte| byte & 0xc0 == 0x80);
        let never = bits::of(&block, |byte| (byte == 0xc0) | (byte == 0xc1) | (byte >= 0xf5));
        Self { letters, digits, beyond, carried, never }
    }

    /// What no word holds. A byte that begins no character, or goes on with one where a letter was, is no text; bit 0 of
    /// `letter_before` says whether one was before the block. Of the last byte see [`Self::cut`].
    fn marks(&self, letter_before: u64) -> u64 {
        let Self { letters, digits, beyond, carried, never } = self;
        let lonely = beyond & !carried & !(carried >> 1 | 1 << (BLOCK - 1));
        let broken = never | carried & (letters << 1 | letter_before) | lonely;
        !letters & !digits & (!beyond | broken)
    }

    /// The last byte, when it is such a mark because of what is not behind it.
    fn cut(&self, next: &Self) -> u64 {
        self.beyond & !self.carried & (!next.carried << (BLOCK - 1))
    }
}

/// What is known of the bytes of a block, or of the 64 from a place on.
#[derive(Clone, Copy, Default)]
pub(super) struct Masks {
    /// Letters, of ASCII or beyond.
    pub(super) letters: u64,
    /// Letters of ASCII.
    pub(super) plain: u64,
    /// What no word holds.
    pub(super) marks: u64,
    /// Where a word begins with a letter of ASCII that does not touch a digit or another character that may belong to it.
    pub(super) starts: u64,
    /// Where such a word of one or two letters, or of too many, is over, and what is behind it is no part of it.
    pub(super) ends: u64,
}

/// A text, and what is known of a stretch of it.
pub(super) struct Stretch<'b> {
    pub(super) bytes: &'b [u8],
    /// Where the stretch begins, and …
    from: usize,
    /// … what it is asked for: from here on nothing is known.
    end: usize,
    blocks: [Masks; BLOCKS + 1],
}

impl<'b> Stretch<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, from: 0, end: 0, blocks: [Masks::default(); _] }
    }

    /// What `mask` gives, of the 64 bytes from a place on.
    #[inline]
    pub(super) fn at(&mut self, at: usize, mask: impl Fn(&Masks) -> u64) -> u64 {
        if at < self.from || at + BLOCK > self.end {
            self.look(at);
        }
        let at = at - self.from;
        let of = |block: usize| self.blocks.get(block).map_or(0, &mask);
        let (block, bit) = (at / BLOCK, at % BLOCK);
        of(block) >> bit | of(block + 1) << 1 << (BLOCK - 1 - bit)
    }

    #[inline(never)]
    fn look(&mut self, at: usize) {
        self.from = at.saturating_sub(BEFORE) / BLOCK * BLOCK;
        self.end = self.from + BLOCKS * BLOCK;
        let bytes = self.bytes;
        // Of the last byte nobody knows what follows it.
        let known = |at: usize| match bytes.len().saturating_sub(at + 1) {
            count @ 0..BLOCK => (1 << count) - 1,
            _ => u64::MAX,
        };
        let before = self.from.checked_sub(1).and_then(|at| bytes.get(at)).copied().unwrap_or_default();
        // Bit 0: whether the byte before is a letter, and whether it is something else that a word may begin with.
        let mut letter_before = u64::from(before.is_ascii_alphabetic());
        let mut other_before = u64::from(before.is_ascii_digit() || before & 0xc0 == 0x80);
        let (mut here, mut going) = (Kinds::of(bytes, self.from), false);
        let mut marks = here.marks(letter_before) & known(self.from);
        for (number, masks) in (1..).zip(&mut self.blocks) {
            let at = self.from + number * BLOCK;
            let next = Kinds::of(bytes, at);
            let Kinds { letters, digits, beyond, carried, .. } = here;
            marks |= here.cut(&next) & known(at - BLOCK);
            let marks_behind = next.marks(letters >> (BLOCK - 1)) & known(at);
            let ahead = |this: u64, behind: u64, by: usize| this >> by | behind << (BLOCK - by);
            // What begins behind a digit, or what may be a character beyond ASCII, is not judged by its length.
            let starts = letters & !(letters << 1 | letter_before) & !((digits | carried) << 1 | other_before);
            let short = ahead(marks, marks_behind, 1) | ahead(letters, next.letters, 1) & ahead(marks, marks_behind, 2);
            let row = u128::from(next.letters) << BLOCK | u128::from(letters);
            let (two, long) = (row & row >> 1, lists::LONGEST + 1);
            let four = two & two >> 2;
            let long = (four & four >> 4 & two >> (long - 2)) as u64;
            // One added to where a row of bits begins sets the bit behind its end.
            let (sum, one) = letters.overflowing_add(starts & (short | long));
            let (sum, other) = sum.overflowing_add(u64::from(going));
            let ends = sum & !letters & marks;
            *masks = Masks { letters: letters | beyond, plain: letters, marks, starts, ends };
            going = one | other;
            (letter_before, other_before) = (letters >> (BLOCK - 1), (digits | carried) >> (BLOCK - 1));
            (here, marks) = (next, marks_behind);
        }
    }
}
