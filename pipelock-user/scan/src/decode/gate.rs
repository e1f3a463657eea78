//! One look at the bytes that says which views could change anything: clean ASCII prose pays only for this and the match.
//! Called by `stream::layer` for each new piece.
//!
//! Promises: a view changes nothing unless its flag is set for a slice that holds the bytes in question; the loops have no
//! branches, so the compiler makes vector instructions of them.

use super::{joined, spaced};
use crate::bits::{self, BLOCK};

/// `%`, `\` or `&`.
pub(crate) const ESCAPE: u16 = 1;
/// `=`
pub(crate) const EQUALS: u16 = 2;
/// Not ASCII, or a control character other than tab and line ends.
pub(crate) const UNICODE: u16 = 4;
/// A digit, `@` or `$` between letters; or a digit before four letters, or behind four at the end of a word.
pub(crate) const LEET: u16 = 8;
/// Three times the same separator with single characters between, before and behind, which may be `_` or `-`; or a separator of
/// groups and the same again behind two to twelve others, with what tokens hold near it.
pub(crate) const SPACED: u16 = 16;
/// A NUL byte.
pub(crate) const NUL: u16 = 32;
/// A pair of hex digits between separators, and another one behind it; or `0x`.
pub(crate) const PAIRS: u16 = 64;
/// `+A` or `&A`.
pub(crate) const UTF7: u16 = 128;
/// The end of a string that may go on in the next one, of a line that does, or a tag behind a letter.
pub(crate) const JOINED: u16 = 256;
/// Four hex digits, behind which a colon may be, and then a pair of them behind one to four blanks.
pub(crate) const DUMPS: u16 = 512;
/// Decimal numbers of two digits or more, side by side or on lines of their own.
pub(crate) const NUMBERS: u16 = 1024;

/// Bytes beyond a block that its flags depend on.
pub(crate) const REACH: usize = spaced::SIGNS + 1;

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
            // A row of single characters, or a word, may end in the next segment, with too few of them there to be told.
            self.segments.push(found | (before & (SPACED | LEET)));
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

/// The flags of all bytes of `text` that have [`REACH`] bytes behind them, and of the others as if blanks came.
pub(crate) fn flags(text: &[u8]) -> u16 {
    let (whole, rest) = text.as_chunks::<BLOCK>();
    let mut end = BLANKS;
    end[..rest.len()].copy_from_slice(rest);
    let mut blocks = whole.iter().chain((!rest.is_empty()).then_some(&end));
    let Some(mut block) = blocks.next() else { return 0 };
    let (mut masks, mut found) = (Masks::of(block), 0);
    loop {
        let next = blocks.next();
        let behind = next.unwrap_or(&BLANKS);
        let later = Masks::of(behind);
        found |= masks.flags(&later, block, behind);
        (block, masks) = match next {
            Some(next) => (next, later),
            None => return found,
        };
    }
}

const BLANKS: [u8; BLOCK] = [b' '; BLOCK];

/// Which bytes of a block are of a kind.
struct Masks {
    letters: u64,
    digits: u64,
    hexes: u64,
    blanks: u64,
    /// `_` and `-`, which tokens hold.
    marks: u64,
    /// What may stand between groups: see [`spaced::separates`].
    separators: u64,
    /// What may be between the parts of a string: see [`joined::ends`].
    joins: u64,
    /// `<`
    tags: u64,
    /// What no prose holds: see [`rare`].
    rare: u64,
}

impl Masks {
    fn of(block: &[u8; BLOCK]) -> Self {
        Self {
            letters: bits::of(block, letter),
            digits: bits::of(block, digit),
            hexes: bits::of(block, |byte| digit(byte) | ((byte | 0x20).wrapping_sub(b'a') < 6)),
            blanks: bits::of(block, |byte| byte == b' '),
            marks: bits::of(block, |byte| (byte == b'_') | (byte == b'-')),
            separators: bits::of(block, spaced::separates),
            joins: bits::of(block, joined::ends),
            tags: bits::of(block, |byte| byte == b'<'),
            rare: bits::of(block, rare),
        }
    }

    /// The flags of `block`, behind which `next` comes.
    fn flags(&self, later: &Self, block: &[u8; BLOCK], next: &[u8; BLOCK]) -> u16 {
        let at = |this: u64, later: u64, ahead: usize| {
            if ahead == 0 { this } else { this >> ahead | later << (BLOCK - ahead) }
        };
        let letters = |ahead| at(self.letters, later.letters, ahead);
        let digits = |ahead| at(self.digits, later.digits, ahead);
        let hexes = |ahead| at(self.hexes, later.hexes, ahead);
        let blanks = |ahead| at(self.blanks, later.blanks, ahead);
        let words = |ahead| letters(ahead) | digits(ahead);
        let mut found = 0;
        let mut set = |bits: u64, flag: u16| found |= if bits == 0 { 0 } else { flag };
        // Not at a chain's start but from its first separator on, where words are no hex digits.
        set(!words(0) & hexes(1) & hexes(2) & !words(3) & (hexes(4) | blanks(4)) & hexes(5), PAIRS);
        // The end of a decimal number, and another one beside it.
        set(digits(0) & digits(1) & !words(2) & (digits(3) | blanks(3)) & digits(4), NUMBERS);
        // Or on a line of its own, as either may be: `101,` and `be,`, but not the end of a word.
        let apart = |ahead| !words(ahead) & !blanks(ahead);
        let ends = hexes(1) & hexes(2) & apart(3) & apart(4);
        if ends & (!words(0) | digits(1) & digits(2)) != 0 {
            let ends = ends & at(bits::of(block, breaks), bits::of(next, breaks), 4);
            set(ends & digits(1) & digits(2), NUMBERS);
            set(ends & !words(0), PAIRS);
        }
        // An offset, and what is at it.
        let pair = |from: usize| {
            let behind = |blank: u64, from| blank & hexes(from) & hexes(from + 1);
            let (two, three) = (blanks(from) & blanks(from + 1), blanks(from + 1) & blanks(from + 2));
            behind(blanks(from), from + 1)
                | behind(two, from + 2)
                | behind(blanks(from) & three, from + 3)
                | behind(two & blanks(from + 2) & blanks(from + 3), from + 4)
        };
        let offset = hexes(0) & hexes(1) & hexes(2) & hexes(3) & !words(4);
        if offset != 0 {
            set(offset & (pair(4) | !blanks(4) & pair(5)), DUMPS);
        }
        let units = |ahead| words(ahead) | at(self.marks, later.marks, ahead);
        let mut single = units(0) & !words(1) & units(2) & !words(3) & units(4) & !words(5) & units(6) & !words(7);
        // Rulers are marks all through.
        single &= words(0) | words(2) | words(4) | words(6);
        while single != 0 {
            let from = single.trailing_zeros() as usize;
            let byte = |at: usize| if at < BLOCK { block[at] } else { next[at - BLOCK] };
            set(u64::from(byte(from + 1) == byte(from + 3) && byte(from + 1) == byte(from + 5)), SPACED);
            single &= single - 1;
        }
        let mut group = units(0) & at(self.separators, later.separators, 1) & units(2);
        if group != 0 {
            // Among the bytes behind the separator: letters, and not only small ones.
            let near = |this: u64, later: u64| {
                let spread = |bits: u128| bits | bits >> 1;
                let bits = spread(u128::from(this) | u128::from(later) << BLOCK);
                let bits = bits | bits >> 2;
                let bits = bits | bits >> 4;
                ((bits | bits >> (spaced::SIGNS - 8)) >> 2) as u64
            };
            let small = |block: &[u8; BLOCK]| bits::of(block, |byte| byte.wrapping_sub(b'a') < 26);
            let mixed = |masks: &Self, small: u64| (masks.letters & !small) | masks.digits;
            group &= near(mixed(self, small(block)), mixed(later, small(next))) & near(self.letters, later.letters);
        }
        while group != 0 {
            let from = group.trailing_zeros() as usize + 1;
            let byte = |at: usize| if at < BLOCK { block[at] } else { next[at - BLOCK] };
            let again = (from + 1..=from + spaced::GROUP + 1).find(|at| byte(*at) == byte(from));
            // The group before it is as long, as far as that can be seen.
            let begins =
                |at: usize| (2 * from).checked_sub(at).is_none_or(|before| spaced::ends(byte(before), byte(from)));
            set(u64::from(again.is_some_and(|at| at > from + 2 && begins(at))), SPACED);
            group &= group - 1;
        }
        // Apostrophes stand between letters.
        let joins = self.joins & !words(1);
        if joins != 0 {
            let of = |test: fn(u8) -> bool, by: usize| at(bits::of(block, test), bits::of(next, test), by);
            let strings = bits::of(block, joined::quote)
                & (of(joined::goes_on, 1)
                    | of(|byte| (byte == b' ') | (byte == b'\t'), 1) & of(joined::goes_on, 2)
                    | of(|byte| byte == b')', 1) & of(|byte| byte == b'.', 2));
            set(strings | joins & of(joined::breaks, 1), JOINED);
        }
        let tags = words(0) & at(self.tags, later.tags, 1);
        if tags != 0 {
            let inside = |byte| letter(byte) | (byte == b'/') | (byte == b'!');
            set(tags & at(bits::of(block, inside), bits::of(next, inside), 2), JOINED);
        }
        let rare = self.rare | later.rare & 1;
        // Four letters and the digit behind them.
        if rare | self.digits | later.digits & 31 == 0 {
            return found;
        }
        let mut set = |bits: u64, flag: u16| found |= if bits == 0 { 0 } else { flag };
        let of = |byte: u8| bits::of(block, |other| other == byte);
        let ahead = |byte: u8| at(of(byte), u64::from(next[0] == byte), 1);
        set(letters(0) & (digits(1) | ahead(b'@') | ahead(b'$')) & letters(2), LEET);
        let three = letters(1) & letters(2) & letters(3);
        set(three & (digits(0) & letters(4) | letters(0) & digits(4) & !words(5)), LEET);
        set(of(b'0') & (ahead(b'x') | ahead(b'X')), PAIRS);
        if rare == 0 {
            return found;
        }
        set(bits::of(block, |byte| (byte == b'%') | (byte == b'\\') | (byte == b'&')), ESCAPE);
        set(of(b'='), EQUALS);
        set(bits::of(block, unusual), UNICODE);
        set(of(0), NUL);
        set((of(b'+') | of(b'&')) & ahead(b'A'), UTF7);
        found
    }
}

fn breaks(byte: u8) -> bool {
    (byte == b'\n') | (byte == b'\r')
}

fn letter(byte: u8) -> bool {
    (byte | 0x20).wrapping_sub(b'a') < 26
}

fn digit(byte: u8) -> bool {
    byte.wrapping_sub(b'0') < 10
}

fn unusual(byte: u8) -> bool {
    let control = (byte < 0x20) & (byte != b'\n') & (byte != b'\r') & (byte != b'\t');
    control | (byte >= 0x7f)
}

fn rare(byte: u8) -> bool {
    let sign = (byte == b'%') | (byte == b'\\') | (byte == b'&') | (byte == b'=');
    sign | (byte == b'+') | (byte == b'@') | (byte == b'$') | unusual(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_at_every_place() {
        let cases: [(&[u8], u16); 31] = [
            (b"%", ESCAPE),
            (b"=", EQUALS),
            ("é".as_bytes(), UNICODE),
            (b"\x1b", UNICODE),
            (b"a1b", LEET),
            (b"1abcd", LEET),
            (b"abcd1", LEET),
            (b"a.b.c.d", SPACED),
            (b"gh-p_-W", SPACED),
            (b"akb-1z3-ab_xyq", SPACED),
            (b"\0", NUL | UNICODE),
            (b"41:42:43", PAIRS | NUMBERS),
            (b"4a, 4b, 4", PAIRS),
            (b"0x", PAIRS),
            (b"fade: deaf", DUMPS),
            (b"fade    deaf", DUMPS),
            (b"fade     deaf", 0),
            (b"101,1,102", 0),
            (b"101, 10", NUMBERS),
            (b"al-aa,\nx", PAIRS),
            (b"al-42,\nx", PAIRS | NUMBERS),
            (b"142,\nx", NUMBERS),
            (b"agreed.\nx", 0),
            (b"+AG", UTF7),
            (b"a\"+\"b", JOINED),
            (b"a' . 'b", JOINED),
            (b"a\\\nb", JOINED | ESCAPE),
            (b"a<wbr>b", JOINED),
            (b"a</b>b", JOINED),
            (b"a bc dg1 2efg 2", 0),
            (b"it's \"so\", (\"a\": \"b\") a < b", 0),
        ];
        for (text, wanted) in cases {
            for before in 0..150 {
                for after in [0, 3, 70] {
                    let mut whole = vec![b'x'; before];
                    whole.push(b' ');
                    whole.extend_from_slice(text);
                    whole.push(b' ');
                    whole.extend(vec![b'x'; after]);
                    // What follows may be near enough to hold what tokens do.
                    let near = if text == b"41:42:43" { SPACED } else { 0 };
                    assert_eq!(flags(&whole) & !near, wanted & !near, "{before} {after}");
                }
            }
        }
        assert_eq!(flags(&[b'a'; 1000]), 0);
        assert_eq!(flags(b""), 0);
    }

    /// As [`flags`], byte by byte.
    fn plain(text: &[u8]) -> u16 {
        let mut found = 0;
        for at in 0..text.len() {
            let byte = |ahead: usize| text.get(at + ahead).copied().unwrap_or(b' ');
            let word = |ahead: usize| byte(ahead).is_ascii_alphanumeric();
            let hex = |ahead: usize| byte(ahead).is_ascii_hexdigit();
            let mut set = |holds: bool, flag: u16| found |= if holds { flag } else { 0 };
            set(matches!(byte(0), b'%' | b'\\' | b'&'), ESCAPE);
            set(byte(0) == b'=', EQUALS);
            set(byte(0) >= 0x7f || byte(0) < 0x20 && !b"\n\r\t".contains(&byte(0)), UNICODE);
            set(byte(0) == 0, NUL);
            let leet = byte(1).is_ascii_digit() || b"@$".contains(&byte(1));
            set(byte(0).is_ascii_alphabetic() && leet && byte(2).is_ascii_alphabetic(), LEET);
            let letters = |from: usize| (from..from + 4).all(|ahead| byte(ahead).is_ascii_alphabetic());
            set(byte(0).is_ascii_digit() && letters(1), LEET);
            set(letters(0) && byte(4).is_ascii_digit() && !word(5), LEET);
            let same = byte(1) == byte(3) && byte(1) == byte(5);
            let unit = |ahead: usize| word(ahead) || b"_-".contains(&byte(ahead));
            let singles = [0, 2, 4, 6];
            set(
                same && !word(1) && !word(7) && singles.map(unit) == [true; 4] && singles.into_iter().any(word),
                SPACED,
            );
            let next = (2..=14).find(|ahead| byte(*ahead) == byte(1)).filter(|ahead| *ahead > 3);
            let begins = |far: usize| far > at % BLOCK + 2 || spaced::ends(text[at + 2 - far], byte(1));
            let again = next.is_some_and(begins);
            let has = |test: fn(u8) -> bool| (2..2 + spaced::SIGNS).any(|ahead| test(byte(ahead)));
            let signs = has(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
                && has(|byte| byte.is_ascii_alphabetic());
            set(unit(0) && spaced::separates(byte(1)) && unit(2) && again && signs, SPACED);
            let pair = !word(0) && hex(1) && hex(2) && !word(3);
            set(pair && (hex(4) || byte(4) == b' ') && hex(5), PAIRS);
            set(byte(0) == b'0' && byte(1) | 0x20 == b'x', PAIRS);
            let digit = |ahead: usize| byte(ahead).is_ascii_digit();
            let beside = !word(2) && (digit(3) || byte(3) == b' ') && digit(4);
            let apart = |ahead| !word(ahead) && byte(ahead) != b' ';
            set(digit(0) && digit(1) && beside, NUMBERS);
            let ends = apart(3) && apart(4) && b"\r\n".contains(&byte(4));
            set(digit(1) && digit(2) && ends, NUMBERS);
            set(!word(0) && hex(1) && hex(2) && ends, PAIRS);
            let pair = |from: usize| {
                let blanks = (0..4).take_while(|ahead| byte(from + ahead) == b' ').count();
                (1..=blanks).any(|blanks| hex(from + blanks) && hex(from + blanks + 1))
            };
            let four = (0..4).all(&hex) && !word(4);
            set(four && (pair(4) || byte(4) != b' ' && pair(5)), DUMPS);
            set(matches!(byte(0), b'+' | b'&') && byte(1) == b'A', UTF7);
            let near = if matches!(byte(1), b' ' | b'\t') { byte(2) } else { byte(1) };
            set(joined::quote(byte(0)) && joined::goes_on(near), JOINED);
            set(joined::quote(byte(0)) && byte(1) == b')' && byte(2) == b'.', JOINED);
            set(joined::ends(byte(0)) && joined::breaks(byte(1)), JOINED);
            set(word(0) && byte(1) == b'<' && (byte(2).is_ascii_alphabetic() || b"/!".contains(&byte(2))), JOINED);
        }
        found
    }

    proptest::proptest! {
        #[test]
        fn flags_are_what_the_bytes_say(
            text in "([a-z]{0,70}([ .:,][0-9a-fxA-Z+&@$]{0,2}){0,6}[a-z ]{0,9}(%|=|é|\x00|\t|0x|1|/[a-b]{1,9}/|-[a-b_]{2,3}-c|['\"^<\\\\][ \n+.'\"a/]{1,3}){0,1}){0,5}"
        ) {
            proptest::prop_assert_eq!(flags(text.as_bytes()), plain(text.as_bytes()));
        }
    }
}
