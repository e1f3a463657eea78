//! Whether bytes that a codec gave may hold something to find: text, UTF-16, or compressed data at any place. Called by
//! [`super::codec`] for what is there as a whole, and by `stream::lane` for what comes in pieces.
//!
//! Random bytes nearly never do, words and their like always do. What was seen before a piece counts with it, so how
//! the bytes were cut makes no difference to where the first sign of something is.

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

#[cfg(test)]
mod tests {
    use super::*;

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
