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

/// What the bytes so far end in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sense {
    printable: u32,
    pairs: u32,
    utf8: u32,
    beyond: u32,
    /// Bytes that the character begun still needs.
    needs: u32,
    /// The last four bytes.
    last: u32,
}

impl Default for Sense {
    fn default() -> Self {
        Self { printable: 0, pairs: 0, utf8: 0, beyond: 0, needs: 0, last: 0x0101_0101 }
    }
}

impl Sense {
    /// Is there something in the next bytes?
    pub(crate) fn look(&mut self, bytes: &[u8]) -> bool {
        let mut found = false;
        for &byte in bytes {
            let printable = u32::from((0x20..0x7f).contains(&byte) | matches!(byte, b'\n' | b'\r' | b'\t'));
            self.printable = (self.printable + 1) * printable;
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
        if continues != (self.needs > 0) || matches!(byte, 0xc0 | 0xc1 | 0xf5..) {
            (self.utf8, self.beyond, self.needs) = (0, 0, 0);
            if continues || matches!(byte, 0xc0 | 0xc1 | 0xf5..) {
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

/// Does a look at all of these bytes at once tell that nothing is in them, neither a sign nor UTF-8 throughout? Only for few.
pub(crate) fn dull(bytes: &[u8]) -> bool {
    let Some(mut block) = Some([0x80; bits::BLOCK]).filter(|block| bytes.len() < block.len()) else { return false };
    block[..bytes.len()].copy_from_slice(bytes);
    let row = |bits: u64, steps: &[u32]| steps.iter().fold(bits, |bits, step| bits & bits >> step) != 0;
    let printable =
        bits::of(&block, |byte| (byte.wrapping_sub(0x20) < 0x5f) | (byte == b'\n') | (byte == b'\r') | (byte == b'\t'));
    // A NUL, or the first byte of compressed data.
    let start = bits::of(&block, |byte| (byte == 0) | (byte == 0x78) | (byte == 0x1f) | (byte == 0x28));
    if row(printable, &[1, 2, 4]) || start != 0 {
        return false;
    }
    let leads = bits::of(&block, |byte| (0xc2..0xf5).contains(&byte));
    let continued = bits::of(&block, |byte| byte & 0xc0 == 0x80);
    let chars = leads & continued >> 1;
    let never = bits::of(&block, |byte| (byte == 0xc0) | (byte == 0xc1) | (byte >= 0xf5));
    let wrong = never | leads & !(continued >> 1) | continued & !((leads | continued) << 1);
    let own = (1u64 << bytes.len()) - 1;
    chars.count_ones() < BEYOND && wrong & own != 0 && !row(!wrong & own, &[1, 2, 4, 8, UTF8 - 16 - 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dull_shows_no_sign() {
        let mut number = 1u64;
        let mut dulls = 0;
        for round in 0..200_000u64 {
            let bytes: Vec<u8> = (0..round % 64)
                .map(|at| {
                    number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let byte = (number >> 33) as u8;
                    // Half of them of few kinds, so that there are signs of all sorts.
                    if round % 2 == 0 {
                        byte
                    } else {
                        b"\xc3\xa9\xe5\xbf\xbda\x01 b\x0b\xf0\x9f\x98\x80\x8dq"
                            [usize::from(byte % 16) ^ (at as usize % 3)]
                    }
                })
                .collect();
            let shows = Sense::default().look(&bytes) || std::str::from_utf8(&bytes).is_ok();
            let dull = dull(&bytes);
            assert!(!(shows && dull), "{bytes:x?}");
            dulls += u32::from(dull);
        }
        assert!(dulls > 50_000, "{dulls}");
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
