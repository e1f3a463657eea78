//! One look at the bytes that says which views could change anything: clean ASCII prose pays only for this and the match.
//! Called by `stream::layer` for each new piece.
//!
//! Promises: a view changes nothing unless its flag is set for a slice that holds the bytes in question; the loops have no
//! branches, so the compiler makes vector instructions of them.

/// `%`, `\` or `&`.
pub(crate) const ESCAPE: u16 = 1;
/// `=`
pub(crate) const EQUALS: u16 = 2;
/// Not ASCII, or a control character other than tab and line ends.
pub(crate) const UNICODE: u16 = 4;
/// A digit, `@` or `$` between letters.
pub(crate) const LEET: u16 = 8;
/// Two single characters in a row between the same separator.
pub(crate) const SPACED: u16 = 16;
/// A NUL byte.
pub(crate) const NUL: u16 = 32;
/// A pair of hex digits between separators, and another one behind it; or `0x`.
pub(crate) const PAIRS: u16 = 64;
/// `+A` or `&A`.
pub(crate) const UTF7: u16 = 128;

const BLOCK: usize = 64;
/// Bytes beyond a block that its flags depend on.
pub(crate) const REACH: usize = 5;

/// Bytes that share their flags.
const SEGMENT: usize = 512;

/// The flags of a piece, segment by segment.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    segments: Vec<u16>,
    /// Offset of the first segment's first byte.
    start: u64,
    all: u16,
}

impl Gate {
    /// Looks at `new`, which lies at `start`; `border` are bytes around that place, whose flags count for the first segment.
    pub(crate) fn look(&mut self, start: u64, border: u16, new: &[u8]) {
        self.segments.clear();
        self.start = start;
        let mut all = border;
        let mut before = 0;
        for at in (0..new.len()).step_by(SEGMENT) {
            let end = (at + SEGMENT + REACH).min(new.len());
            let found = flags(&new[at..end]) | if at == 0 { border } else { 0 };
            all |= found;
            // A row of single characters may end in the next segment, with too few of them there to be told.
            self.segments.push(found | (before & SPACED));
            before = found;
        }
        self.all = all;
    }

    /// Bytes it takes beside itself.
    pub(crate) fn memory(&self) -> usize {
        self.segments.capacity() * size_of::<u16>()
    }

    /// Has any byte one of these flags?
    pub(crate) fn any(&self, wanted: u16) -> bool {
        self.all & wanted != 0
    }

    /// The first place from `at` on that may have one of these flags; what starts before a segment may reach into it by
    /// `again` bytes. `end` when there is none.
    pub(crate) fn next(&self, wanted: u16, at: u64, again: u64, end: u64) -> u64 {
        if !self.any(wanted) {
            return end.saturating_sub(again).max(at);
        }
        let first = (at.saturating_sub(self.start) / SEGMENT as u64) as usize;
        let ahead = self.segments.iter().skip(first).position(|found| found & wanted != 0);
        match ahead {
            Some(ahead) => at.max((self.start + ((first + ahead) * SEGMENT) as u64).saturating_sub(again)),
            None => end.saturating_sub(again).max(at),
        }
    }
}

/// The flags of all bytes of `text` that have [`REACH`] bytes behind them, and of the others as far as they can be known.
pub(crate) fn flags(text: &[u8]) -> u16 {
    let mut found = 0;
    let mut at = 0;
    while let Some(block) = text.get(at..at + BLOCK + REACH) {
        found |= block_flags(block);
        at += BLOCK;
    }
    let mut rest = [b' '; BLOCK + REACH];
    let left = &text[at..];
    rest[..left.len()].copy_from_slice(left);
    found |= block_flags(&rest);
    if left.len() > BLOCK {
        rest.fill(b' ');
        rest[..left.len() - BLOCK].copy_from_slice(&left[BLOCK..]);
        found |= block_flags(&rest);
    }
    u16::from(found)
}

fn letter(byte: u8) -> bool {
    (byte | 0x20).wrapping_sub(b'a') < 26
}

fn digit(byte: u8) -> bool {
    byte.wrapping_sub(b'0') < 10
}

fn flag(condition: bool, bit: u16) -> u8 {
    if condition { bit as u8 } else { 0 }
}

fn block_flags(block: &[u8]) -> u8 {
    let mut found = [0u8; BLOCK];
    let Some(block) = block.get(..BLOCK + REACH) else { return u8::MAX };
    for (at, found) in found.iter_mut().enumerate() {
        let byte = block[at];
        let control = (byte < 0x20) & (byte != b'\n') & (byte != b'\r') & (byte != b'\t');
        *found = flag((byte == b'%') | (byte == b'\\') | (byte == b'&'), ESCAPE)
            | flag(byte == b'=', EQUALS)
            | flag((byte >= 0x7f) | control, UNICODE)
            | flag(byte == 0, NUL);
    }
    for (at, found) in found.iter_mut().enumerate() {
        let middle = block[at + 1];
        let leet = digit(middle) | (middle == b'@') | (middle == b'$');
        *found |= flag(letter(block[at]) & leet & letter(block[at + 2]), LEET);
    }
    for (at, found) in found.iter_mut().enumerate() {
        let separator = block[at];
        let same = (separator == block[at + 2]) & (separator == block[at + 4]);
        let single = (letter(block[at + 1]) | digit(block[at + 1])) & (letter(block[at + 3]) | digit(block[at + 3]));
        *found |= flag(same & single & !letter(separator) & !digit(separator), SPACED);
    }
    let (mut hexes, mut others) = ([false; BLOCK + REACH], [false; BLOCK + REACH]);
    for ((&byte, is_hex), other) in block.iter().zip(&mut hexes).zip(&mut others) {
        *is_hex = digit(byte) | ((byte | 0x20).wrapping_sub(b'a') < 6);
        *other = !letter(byte) & !digit(byte);
    }
    for (at, found) in found.iter_mut().enumerate() {
        // Not at a chain's start but from its first separator on, where words are no hex digits.
        let pair = others[at] & hexes[at + 1] & hexes[at + 2] & others[at + 3];
        let after = hexes[at + 5] & (hexes[at + 4] | (block[at + 4] == b' '));
        let prefix = (block[at] == b'0') & (block[at + 1] | 0x20 == b'x');
        *found |= flag((pair & after) | prefix, PAIRS);
        *found |= flag(((block[at] == b'+') | (block[at] == b'&')) & (block[at + 1] == b'A'), UTF7);
    }
    found.iter().fold(0, |all, flags| all | flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_at_every_place() {
        let cases: [(&[u8], u16); 12] = [
            (b"%", ESCAPE),
            (b"=", EQUALS),
            ("é".as_bytes(), UNICODE),
            (b"\x1b", UNICODE),
            (b"a1b", LEET),
            (b".a.b.", SPACED),
            (b"\0", NUL | UNICODE),
            (b"41:42:43", PAIRS),
            (b"4a, 4b, 4", PAIRS),
            (b"0x", PAIRS),
            (b"+AG", UTF7),
            (b"a bc dg1 2efg 2", 0),
        ];
        for (text, wanted) in cases {
            for before in 0..150 {
                for after in [0, 3, 70] {
                    let mut whole = vec![b'x'; before];
                    whole.push(b' ');
                    whole.extend_from_slice(text);
                    whole.push(b' ');
                    whole.extend(vec![b'x'; after]);
                    assert_eq!(flags(&whole), wanted, "{before} {after}");
                }
            }
        }
        assert_eq!(flags(&[b'a'; 1000]), 0);
        assert_eq!(flags(b""), 0);
    }
}
