//! The lines of a dump: an offset, and the bytes that stand there in hexadecimal, as `xxd`, `hexdump` and `od -x` print them (but not
//! `xxd -e`). Called by `stream::dumps`.
//!
//! Tables look like it: lines are a dump's only when each begins where the one before ended.

use super::codec::is_hex;
use super::pairs::Read;

/// Digits of an offset.
const FEWEST: usize = 4;
const MOST: usize = 10;
/// Most blanks between two groups.
const BLANKS: usize = 4;
/// Most bytes that a line stands for, and most that a group does.
const BYTES: usize = 64;
const GROUP: usize = 16;
/// Most bytes of a line, its break included.
pub(crate) const LINE: usize = 256;

/// A line of a dump.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'t> {
    offset: &'t [u8],
    /// With a colon behind the offset: as `xxd` prints it, in the order of the bytes. Others print numbers of more than one byte as
    /// this machine reads them, the lowest byte first.
    colon: bool,
    bytes: [u8; BYTES],
    count: usize,
    /// Its bytes of text, the break included.
    pub(crate) length: usize,
}

/// What the offsets of a dump are written in, and that of the line that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    radix: u64,
    offset: u64,
}

impl<'t> Line<'t> {
    /// The line at the start of `text`.
    pub(crate) fn read(text: &'t [u8], last: bool) -> Read<Self> {
        let end = match memchr::memchr(b'\n', text.get(..LINE).unwrap_or(text)) {
            Some(end) => end + 1,
            None if last && text.len() < LINE => text.len(),
            // What is there already tells most lines from those of a dump.
            None if text.len() < LINE && Self::of(text, true).is_some() => return Read::More,
            None => return Read::No,
        };
        let line = text.get(..end).unwrap_or_default();
        Self::of(line, false).map_or(Read::No, Read::Yes)
    }

    /// Reads a whole line, or what there is of one that is `cut`.
    fn of(text: &'t [u8], cut: bool) -> Option<Self> {
        let digits = |from: usize| text.iter().skip(from).take_while(|byte| is_hex(**byte)).count();
        let length = digits(0);
        if length == text.len() {
            return (cut && length <= MOST).then(|| Self::empty(text, false));
        }
        if !(FEWEST..=MOST).contains(&length) {
            return None;
        }
        let colon = text.get(length) == Some(&b':');
        let mut line = Self { length: text.len(), ..Self::empty(text.get(..length)?, colon) };
        let mut at = length + usize::from(colon);
        loop {
            let blanks = text.iter().skip(at).take_while(|byte| **byte == b' ').count();
            let is_over = line.count > 0 && colon && blanks > 1;
            let length = digits(at + blanks);
            let bytes = length / 2;
            let behind = text.get(at + blanks + length);
            let is_group = blanks > 0
                && blanks <= BLANKS
                && length % 2 == 0
                && (1..=GROUP).contains(&bytes)
                && behind.is_none_or(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
            if is_over || !is_group || line.count + bytes > BYTES {
                let is_line = line.count > 0 || cut && at + blanks + length == text.len();
                return is_line.then_some(line);
            }
            at += blanks + length;
            line.count += bytes;
        }
    }

    fn empty(offset: &'t [u8], colon: bool) -> Self {
        Self { offset, colon, bytes: [0; BYTES], count: 0, length: 0 }
    }

    /// Calls `group` with the bytes of each group of `text`, which is this line, and where it stands in it.
    pub(crate) fn groups(&mut self, text: &[u8], mut group: impl FnMut(&[u8], usize)) {
        let mut at = self.offset.len() + usize::from(self.colon);
        let mut done = 0;
        while done < self.count {
            at += text.iter().skip(at).take_while(|byte| **byte == b' ').count();
            let digits = text.get(at..).unwrap_or_default();
            let length = digits.iter().take_while(|byte| is_hex(**byte)).count();
            let value = |digit: u8| char::from(digit).to_digit(16).map_or(0, |value| value as u8);
            let pairs = digits.get(..length).unwrap_or_default().chunks_exact(2);
            let bytes = self.bytes.get_mut(..length / 2).unwrap_or_default();
            bytes.iter_mut().zip(pairs).for_each(|(to, pair)| *to = value(pair[0]) << 4 | value(pair[1]));
            if !self.colon {
                bytes.reverse();
            }
            if bytes.is_empty() {
                return;
            }
            group(bytes, at);
            done += bytes.len();
            at += length;
        }
    }

    /// What this line is, when `other` comes behind it.
    pub(crate) fn begins(&self, other: &Self) -> Option<Next> {
        [16, 8, 10].into_iter().find_map(|radix| {
            let any = Next { radix, offset: 0 };
            let first = Next { offset: any.offset_of(self)?, ..any };
            first.after(self)?.after(other).map(|_| first)
        })
    }
}

impl Next {
    fn offset_of(self, line: &Line<'_>) -> Option<u64> {
        u64::from_str_radix(std::str::from_utf8(line.offset).ok()?, self.radix as u32).ok()
    }

    /// What comes behind `line`, when it is what comes here.
    pub(crate) fn after(self, line: &Line<'_>) -> Option<Self> {
        let is_next = self.offset_of(line) == Some(self.offset);
        is_next.then_some(Self { offset: self.offset + line.count as u64, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Option<Vec<u8>> {
        let (mut out, mut at, mut next) = (Vec::new(), 0, None::<Next>);
        while let Read::Yes(mut line) = Line::read(&text.as_bytes()[at..], true) {
            let here = &text.as_bytes()[at..at + line.length];
            let this = match next {
                Some(next) => next,
                None => {
                    let Read::Yes(second) = Line::read(&text.as_bytes()[at + line.length..], true) else { return None };
                    line.begins(&second)?
                }
            };
            next = Some(this.after(&line)?);
            line.groups(here, |bytes, _| out.extend_from_slice(bytes));
            at += line.length;
        }
        (!out.is_empty()).then_some(out)
    }

    #[test]
    fn dumps_are_read() {
        // Printed by xxd, hexdump -C, hexdump, od -A d -t x1, od -x.
        for text in [
            "00000000: 6120 7365 6372 6574 2074 6578 7420 696e  a secret text in\n00000010: 2061 2064 756d 70                         a dump\n",
            "00000000  61 20 73 65 63 72 65 74  20 74 65 78 74 20 69 6e  |a secret text in|\n00000010  20 61 20 64 75 6d 70                              | a dump|\n00000017\n",
            "0000000 2061 6573 7263 7465 7420 7865 2074 6e69\n0000010 6120 6420 6d75 0070\n0000017\n",
            "0000000 61 20 73 65 63 72 65 74 20 74 65 78 74 20 69 6e\r\n0000016 20 61 20 64 75 6d 70\r\n0000023\r\n",
            "00000000: 61207365 63726574 20746578 7420696e  a secret text in\n00000010: 20612064 756d70",
            "0000000 65732061 74657263 78657420 6e692074\n0000020 64206120 00706d75\n0000027",
            "0000000    2061    6573    7263    7465    7420    7865    2074    6e69\n0000010    6120    6420    6d75    0070",
            "0000000 2061 6573 7263 7465 7420 7865 2074 6e69\n0000020 6120 6420 6d75 0070\n0000027\n",
        ] {
            let read = bytes(text).map(|bytes| String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned());
            assert_eq!(read.as_deref(), Some("a secret text in a dump"), "{text}");
        }
    }

    #[test]
    fn tables_are_none() {
        for text in [
            "2024 10 20 30\n2025 11 21 31\n",
            "dead beef\ndead beef\n",
            "00000000: 6120 7365\n00000010: 6120 7365\n",
            "0000\n0010\n",
            "00000000000: 61 62\n00000000002: 61 62\n",
        ] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_cut_is_waited_for(text in "[0-9a-f]{3,11}:?( {1,4}[0-9a-f]{1,5}){0,9}[ |a-f]{0,6}\n", cut in 0usize..99) {
            let text = text.as_bytes();
            let cut = cut.min(text.len() - 1);
            let whole = matches!(Line::read(text, false), Read::Yes(_));
            let early = Line::read(&text[..cut], false);
            proptest::prop_assert!(!whole || matches!(early, Read::More), "{:?}", early);
        }
    }
}
