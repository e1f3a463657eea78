//! Whether bytes that a codec gave may hold something to find: text, UTF-16, or compressed data at any place. Called by
//! [`super::codec`] for what is there as a whole, and by `stream::lane` for what comes in pieces.
//!
//! Random bytes nearly never do, words and their like always do. What was seen before a piece counts with it, so how
//! the bytes were cut makes no difference to where the first sign of something is.

use crate::bits;

/// Printable characters in a row.
const PRINTABLE: u32 = 8;
/// Places in a row where a NUL stands beside something else: six characters of UTF-16.
const PAIRS: u32 = 12;
/// Bytes in a row that are UTF-8.
const UTF8: u32 = 24;
/// Characters beyond ASCII without anything between that is no UTF-8.
const BEYOND: u32 = 3;

/// Most bytes before the sign of something that belong to it.
pub(crate) const REACH: usize = UTF8 as usize;

/// Bytes before a piece that say all about what goes on in it, and the places of a [`Marks`] that they have.
const BEFORE: usize = 32;
const _: () = assert!(BEFORE > REACH + 3 && BEFORE > PAIRS as usize && BEFORE > PRINTABLE as usize);

/// What the bytes so far end in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sense {
    /// The last bytes, the latest last, and how many of them there are.
    before: [u8; BEFORE],
    known: usize,
    marks: Marks<u32>,
}

/// Which bytes are of a kind, one bit each, of which the first byte has the lowest: printable; NUL; of UTF-8 the first of a character
/// beyond ASCII, one of its others, and what is none of them; of compressed data the first, and the second.
#[derive(Clone, Copy, Debug)]
struct Marks<N>([N; 7]);

impl Default for Sense {
    fn default() -> Self {
        // Before the first byte nothing is UTF-8.
        Self { before: [0; BEFORE], known: 0, marks: Marks([0, 0, 0, 0, u32::MAX, 0, 0]) }
    }
}

impl Sense {
    /// Is there something in the next bytes?
    pub(crate) fn look(&mut self, bytes: &[u8]) -> bool {
        bytes.chunks(bits::BLOCK).fold(false, |found, piece| found | self.look_at(piece))
    }

    /// The same for one block at most. Noise is told by a look at all of it at once.
    fn look_at(&mut self, piece: &[u8]) -> bool {
        let marks = Marks::of(piece).behind(&self.marks);
        let found = marks.may_show() && {
            let mut exact = Exact::default();
            exact.look(&self.before[BEFORE - self.known..]);
            exact.look(piece)
        };
        self.marks = marks.last(piece.len());
        self.known = (self.known + piece.len()).min(BEFORE);
        if let Some(last) = piece.last_chunk() {
            self.before = *last;
        } else {
            self.before.copy_within(piece.len().., 0);
            self.before[BEFORE - piece.len()..].copy_from_slice(piece);
        }
        found
    }
}

impl Marks<u64> {
    /// Of a piece of at most a block.
    fn of(piece: &[u8]) -> Self {
        let block = bits::blocks(piece).next().unwrap_or([0; bits::BLOCK]);
        let own = u64::MAX.checked_shr(u64::BITS - piece.len() as u32).unwrap_or(0);
        let second = |byte: u8| {
            (byte == 0x01) | (byte == 0x5e) | (byte == 0x9c) | (byte == 0xda) | (byte == 0x8b) | (byte == 0xb5)
        };
        Self([
            bits::of(&block, printable) & own,
            bits::of(&block, |byte| byte == 0) & own,
            bits::of(&block, |byte| byte.wrapping_sub(0xc2) < 0x33) & own,
            bits::of(&block, |byte| byte & 0xc0 == 0x80) & own,
            // Nor is what lies behind the end.
            bits::of(&block, never) | !own,
            bits::of(&block, |byte| (byte == 0x78) | (byte == 0x1f) | (byte == 0x28)) & own,
            bits::of(&block, second) & own,
        ])
    }

    /// With those of the bytes before.
    fn behind(&self, before: &Marks<u32>) -> Marks<u128> {
        Marks(std::array::from_fn(|kind| u128::from(self.0[kind]) << BEFORE | u128::from(before.0[kind])))
    }
}

impl Marks<u128> {
    /// Those of the last bytes, after so many new ones.
    fn last(&self, new: usize) -> Marks<u32> {
        Marks(self.0.map(|marks| (marks >> new) as u32))
    }

    /// Whether [`Exact`] may see something; it does in no other.
    fn may_show(&self) -> bool {
        let row = |marks: u128, steps: &[u32]| steps.iter().fold(marks, |row, step| row & row >> step) != 0;
        let Self([printable, nul, leads, continued, never, first, second]) = *self;
        let never = never | u128::MAX << (BEFORE + bits::BLOCK);
        // A first byte without a second, and one that goes on with nothing.
        let wrong = never | leads & !(continued >> 1) | continued & !((leads | continued) << 1);
        // Of the characters between two wrong bytes the first is taken away, then the second: is there a third?
        let (right, chars) = (!wrong, leads & continued >> 1);
        let starts = right & !(right << 1);
        let without_first = |chars: u128| {
            let ends = chars | wrong;
            chars & ends.wrapping_sub(starts)
        };
        let third = (1..BEYOND).fold(chars & right, |left, _| without_first(left)) != 0;
        let begun = first & second >> 1 != 0;
        row(printable, &[1, 2, 4])
            | (nul.count_ones() >= PAIRS / 2)
            | begun
            | third
            // Two less, as the last bytes may begin a character that is not whole.
            | row(right, &[1, 2, 4, 8, UTF8 - 16 - 2])
    }
}

fn printable(byte: u8) -> bool {
    (byte.wrapping_sub(0x20) < 0x5f) | (byte == b'\n') | (byte == b'\r') | (byte == b'\t')
}

/// No byte of UTF-8.
fn never(byte: u8) -> bool {
    (byte == 0xc0) | (byte == 0xc1) | (byte >= 0xf5)
}

/// The same, byte by byte.
#[derive(Clone, Copy, Debug)]
struct Exact {
    printable: u32,
    pairs: u32,
    utf8: u32,
    beyond: u32,
    /// Bytes that the character begun still needs.
    needs: u32,
    /// The last four bytes.
    last: u32,
}

impl Default for Exact {
    fn default() -> Self {
        Self { printable: 0, pairs: 0, utf8: 0, beyond: 0, needs: 0, last: 0x0101_0101 }
    }
}

impl Exact {
    fn look(&mut self, bytes: &[u8]) -> bool {
        let mut found = false;
        for &byte in bytes {
            self.printable = (self.printable + 1) * u32::from(printable(byte));
            // A NUL beside a character.
            let turns = u32::from((byte == 0) != (self.last & 0xff == 0));
            self.pairs = (self.pairs + 1) * turns;
            self.last = self.last << 8 | u32::from(byte);
            self.character(byte);
            found |= (self.printable >= PRINTABLE)
                | (self.pairs >= PAIRS)
                | (self.utf8 >= UTF8)
                | (self.beyond >= BEYOND)
                | self.packed();
        }
        found
    }

    /// Counts UTF-8, but for what is longer than it need be: nobody writes that by chance or otherwise.
    fn character(&mut self, byte: u8) {
        let continues = byte & 0xc0 == 0x80;
        if continues != (self.needs > 0) || never(byte) {
            (self.utf8, self.beyond, self.needs) = (0, 0, 0);
            if continues || never(byte) {
                return;
            }
        }
        self.utf8 += 1;
        if continues {
            self.needs -= 1;
            self.beyond += u32::from(self.needs == 0);
        } else {
            self.needs = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3][usize::from(byte >> 4)];
        }
    }

    /// Do the last bytes begin compressed data? Sources: as `Format::of`.
    fn packed(&self) -> bool {
        matches!(self.last & 0xffff, 0x7801 | 0x785e | 0x789c | 0x78da)
            || self.last & 0x00ff_ffff == 0x001f_8b08
            || self.last == 0x28b5_2ffd
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers like random ones, the same every time.
    fn numbers() -> impl FnMut() -> usize {
        let mut number = 1u64;
        move || {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (number >> 33) as usize
        }
    }

    #[test]
    fn a_look_at_all_at_once_is_one_at_each() {
        let mut next = numbers();
        let (mut signs, mut dulls) = (0, 0);
        for round in 0..20_000 {
            // Of few kinds, so that there are signs of all sorts, with more or less noise between.
            let noise = [1, 2, 4, 16][round % 4];
            let bytes: Vec<u8> = (0..next() % 300)
                .map(|at| match next() % noise {
                    0 => {
                        b"\xc3\xa9\xe5\xbf\xbda\x00 b\x0b\xf0\x9f\x98\x80\x8d\x78\x9c\x1f\x8b\x08\x28\xb5\x2f\xfd"
                            [(next() % 24) & !(at & 1)]
                    }
                    _ => next() as u8,
                })
                .collect();
            let (mut all, mut each, mut rest) = (Sense::default(), Exact::default(), &bytes[..]);
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at((1 + next() % 90).min(rest.len()));
                let found = all.look(piece);
                assert_eq!(found, each.look(piece), "{bytes:x?} at {}", bytes.len() - rest.len());
                (signs, dulls) = (signs + u32::from(found), dulls + u32::from(!found));
                rest = behind;
            }
        }
        assert!(signs > 2_000 && dulls > 10_000, "{signs} {dulls}");
    }

    #[test]
    fn noise_is_mostly_told_at_once() {
        let mut next = numbers();
        let none = Sense::default().marks;
        let maybe = (0..1000).filter(|_| {
            let piece: [u8; 48] = std::array::from_fn(|_| next() as u8);
            Marks::of(&piece).behind(&none).may_show()
        });
        assert!(maybe.count() < 120);
    }

    #[test]
    fn signs_are_seen_in_the_middle_of_noise_and_at_every_cut() {
        let noise = [0x80, 0x41, 0xff, 0x90, 0x42, 0x43, 0x80, 0x80, 0x41, 0x80, 0xc3];
        assert!(!Sense::default().look(&noise.repeat(30)));
        for sign in [
            &b"AKIAIOSF"[..],
            b"A\0K\0I\0A\0I\0O\0S\0",
            "忽略以".as_bytes(),
            "не да".as_bytes(),
            b"\x1f\x8b\x08",
            b"\x78\x9c",
            b"\x28\xb5\x2f\xfd",
            b"i\x1b[1mg\x1b[1mn\x1b[1mo\x1b[1mr\x1b[1me",
        ] {
            let text = [&noise[..], sign, &noise].concat();
            for cut in 0..text.len() {
                let mut sense = Sense::default();
                assert!(sense.look(&text[..cut]) | sense.look(&text[cut..]), "{sign:x?} {cut}");
            }
            assert!(!Sense::default().look(&text[..noise.len() + 1]), "{sign:x?}");
        }
    }
}
