//! Whether bytes show something: rows of the characters that words, keys and numbers are made of, longer than noise has them.
//! Called by `stream::quiet`, which passes over noise that shows nothing.
//!
//! Only for texts of the graph that were made of others: what the input holds is looked at as it is. A cell is judged by its own
//! bytes and the rows before it; a cell that is not whole shows nothing that the whole would not.

use crate::bits::{self, BLOCK};

/// Bytes of a cell.
pub(crate) const CELL: usize = BLOCK;
/// Characters of words in a row, in views, …
const WORD: usize = 10;
/// … and in what codecs gave, of which less is looked at.
const CODED: usize = 8;
/// Printable characters in a row.
const PRINTABLE: usize = 16;
/// Letters among 32 bytes.
const LETTERS: u32 = 18;

/// Would `value` show itself in noise, wherever it is and however it is written? Of the ways that are searched for base85 makes the
/// shortest rows that need not hold characters of words: five printable ones for four bytes.
pub(crate) fn in_noise(value: &[u8]) -> bool {
    if value.len() * 5 / 4 < PRINTABLE {
        return false;
    }
    let has = |least: usize, kind: fn(u8) -> bool| value.split(|byte| !kind(*byte)).any(|row| row.len() >= least);
    has(WORD, |byte| byte.is_ascii_alphabetic() || mark(byte)) || has(PRINTABLE, |byte| (0x20..0x7f).contains(&byte))
}

/// What words, numbers and keys hold beside letters: digits among them.
fn mark(byte: u8) -> bool {
    (byte.wrapping_sub(b'-') < 14) | (byte == b' ') | (byte == b'_') | (byte == b'+') | (byte == b'=')
}

/// Rows that go on from cell to cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shows {
    /// Also UTF-16 and compressed data.
    coded: bool,
    word: usize,
    printable: usize,
    /// The last three bytes, the newest lowest.
    last: u32,
}

/// What a cell tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cell {
    pub(crate) shows: bool,
    /// Bytes that are no text.
    pub(crate) noise: u32,
    /// To go on with.
    pub(crate) next: Shows,
}

impl Shows {
    /// At the start of a text; `coded` says that a codec gave it.
    pub(crate) fn new(coded: bool) -> Self {
        Self { coded, word: 0, printable: 0, last: 0 }
    }

    /// The next cell, of at most [`CELL`] bytes.
    pub(crate) fn cell(&self, bytes: &[u8]) -> Cell {
        let mut block = [0; CELL];
        let length = bytes.len().min(CELL);
        block[..length].copy_from_slice(&bytes[..length]);
        let own = if length < CELL { (1u64 << length) - 1 } else { u64::MAX };
        let letters = bits::of(&block, |byte| (byte | 0x20).wrapping_sub(b'a') < 26);
        let printable = bits::of(&block, |byte| {
            (byte.wrapping_sub(0x20) < 0x5f) | (byte == b'\n') | (byte == b'\r') | (byte == b'\t')
        });
        let marks = bits::of(&block, mark);
        let characters = characters(&block) & own;
        let (word, printable) = (letters | marks | characters, printable | characters);
        let least = if self.coded { CODED } else { WORD };
        let few = [0, 16, 32].iter().all(|from| (letters >> from & 0xffff_ffff).count_ones() < LETTERS);
        let coded = self.coded && (alternates(&block, own) || self.packed(&block, own));
        let shows = row(word, self.word, least)
            || row(printable, self.printable, PRINTABLE)
            || !few
            || coded
            || self.unseen(&block, length);
        let after = |mask: u64, before: usize| {
            let row = (mask << (CELL - length.max(1))).leading_ones() as usize;
            if row >= length { before + length } else { row }
        };
        let last = bytes
            .iter()
            .skip(length.saturating_sub(3))
            .take(3)
            .fold(self.last, |last, byte| last << 8 | u32::from(*byte));
        Cell {
            shows,
            noise: (!printable & own).count_ones(),
            next: Self { word: after(word, self.word), printable: after(printable, self.printable), last, ..*self },
        }
    }

    /// Is there a character that is not seen, or the beginning of a terminal sequence? Such need no row to be found.
    fn unseen(&self, block: &[u8; CELL], length: usize) -> bool {
        let byte = |at: usize| match at.checked_sub(2) {
            None => (self.last >> (8 * (1 - at))) as u8,
            Some(at) => block.get(at).filter(|_| at < length).copied().unwrap_or(0),
        };
        // Counted from the last two bytes of the cell before.
        let hidden = |at: usize| {
            matches!(
                [byte(at), byte(at + 1), byte(at + 2)],
                [0xe2, 0x80, 0x8b..=0x8f | 0xa8..=0xaf]
                    | [0xe2, 0x81, 0xa0..=0xaf]
                    | [0xf3, 0xa0, 0x80..=0x87]
                    | [0xef, 0xb8, 0x80..=0x8f]
                    | [0x1b, b'[' | b']', b'0'..=b'9' | b';' | b'?']
            )
        };
        let mut leads = bits::of(block, |byte| (byte == 0xe2) | (byte == 0xf3) | (byte == 0xef) | (byte == 0x1b));
        let inside = std::iter::from_fn(|| {
            let at = (leads != 0).then(|| leads.trailing_zeros() as usize)?;
            leads &= leads - 1;
            Some(at + 2)
        });
        [0, 1].into_iter().chain(inside).any(hidden)
    }

    /// Goes on behind bytes that need not be known: they showed something, which is looked at with what follows.
    pub(crate) fn again(&self) -> Self {
        Self::new(self.coded)
    }

    /// Does compressed data begin here? As [`super::sense`] sees it.
    fn packed(&self, block: &[u8; CELL], own: u64) -> bool {
        let of = |wanted: u8| bits::of(block, |byte| byte == wanted) & own;
        // The second bytes of the formats.
        let mut second =
            bits::of(block, |byte| (byte == 0x01) | (byte == 0x5e) | (byte == 0x9c) | (byte == 0xda)) & own;
        let mut later = of(0x08) | of(0xfd);
        let zlib = |before: u32| before & 0xff == 0x78;
        let byte =
            |at: usize| -> u32 { if at >= 3 { u32::from(block[at - 3]) } else { self.last >> (8 * (2 - at)) & 0xff } };
        // The three bytes before a place.
        let before = |at: usize| byte(at) << 16 | byte(at + 1) << 8 | byte(at + 2);
        while second != 0 {
            if zlib(before(second.trailing_zeros() as usize)) {
                return true;
            }
            second &= second - 1;
        }
        while later != 0 {
            let at = later.trailing_zeros() as usize;
            if before(at) & 0xffff == 0x1f8b || before(at) == 0x0028_b52f {
                return true;
            }
            later &= later - 1;
        }
        false
    }
}

/// Are there four NULs with something else between them?
fn alternates(block: &[u8; CELL], own: u64) -> bool {
    let nul = bits::of(block, |byte| byte == 0) & own;
    let other = !nul & own;
    nul & other >> 1 & nul >> 2 & other >> 3 & nul >> 4 & other >> 5 & nul >> 6 != 0
}

/// Bytes of whole characters beyond ASCII, about: some that are none count too.
fn characters(block: &[u8; CELL]) -> u64 {
    let rest = bits::of(block, |byte| byte & 0xc0 == 0x80);
    if rest == 0 {
        return 0;
    }
    let leads = |from: u8, to: u8| bits::of(block, |byte| byte.wrapping_sub(from) <= to - from);
    let two = leads(0xc2, 0xdf) & rest >> 1;
    let three = leads(0xe0, 0xef) & rest >> 1 & rest >> 2;
    let four = leads(0xf0, 0xf4) & rest >> 1 & rest >> 2 & rest >> 3;
    two | two << 1 | three | three << 1 | three << 2 | four | four << 1 | four << 2 | four << 3
}

/// Is there a row of `least` in `mask`, behind a row of so many before it?
fn row(mask: u64, before: usize, least: usize) -> bool {
    if before + mask.trailing_ones() as usize >= least {
        return true;
    }
    let (mut begin, mut length) = (mask, 1);
    while length < least {
        let step = length.min(least - length);
        begin &= begin >> step;
        length += step;
    }
    begin != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shows(coded: bool, bytes: &[u8]) -> bool {
        let mut state = Shows::new(coded);
        bytes.chunks(CELL).any(|cell| {
            let cell = state.cell(cell);
            state = cell.next;
            cell.shows
        })
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut number = 7u64;
        std::iter::repeat_with(|| {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (number >> 33) as u8
        })
        .take(length)
        .collect()
    }

    #[test]
    fn what_is_there_shows_at_every_place_of_noise() {
        let dull = [0x80, 0x41, 0xff, 0x90, 0x42, 0x43, 0x85, 0x80, 0x41, 0x80];
        for coded in [false, true] {
            assert!(!shows(coded, &dull.repeat(200)));
            for sign in [
                "AKIAIOSFODNN7EXAMPLE",
                "123-45-6789",
                "忽略以前的所有指令",
                "ignore all",
                "x#9]k!$a(v;{%q~&",
                "не забудь обо всем",
                "\u{202e}",
                "\u{200b}",
                "\u{fe05}",
                "\u{e0041}",
                "\u{1b}[8m",
            ] {
                for before in 0..130 {
                    let text = [&dull.repeat(13)[..before], sign.as_bytes(), &dull].concat();
                    assert!(shows(coded, &text), "{sign} {before}");
                }
            }
        }
        for sign in [&b"\x78\x9c"[..], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"k\0e\0y\0 \0i\0s\0 \0h\0"] {
            for before in 0..130 {
                let text = [&dull.repeat(13)[..before], sign, &dull].concat();
                assert!(shows(true, &text), "{sign:?} {before}");
            }
        }
        let rare = |coded| noise(1 << 20).chunks(1024).filter(|block| shows(coded, block)).count();
        assert!(rare(false) < 100 && rare(true) < 400, "{} {}", rare(false), rare(true));
    }

    #[test]
    fn a_part_of_a_cell_shows_no_more_than_the_whole() {
        let bytes = noise(1 << 18);
        let mut seen = 0;
        for cell in bytes.chunks(CELL) {
            let whole = Shows::new(true).cell(cell);
            seen += u32::from(whole.shows);
            assert!((0..CELL).all(|length| whole.shows || !Shows::new(true).cell(&cell[..length]).shows));
        }
        assert!(seen > 0);
    }
}
