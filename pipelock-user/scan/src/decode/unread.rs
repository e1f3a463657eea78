//! Compressed data that nothing here unpacks, told by its first bytes: who reads the rest can say that this was not read. Called by
//! [`crate::stream`].
//!
//! Promises: what is told does not depend on how the text was cut, nor on what of it comes first.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

use super::gate;

/// Bytes that tell a format, at the most: of bzip2 those that no text has behind its name.
pub(crate) const LONGEST: usize = 15;
/// What the gate sees of each: `&` in that of bzip2, and in all others a byte that is no text.
pub(crate) const SIGNS: u16 = gate::UNICODE | gate::ESCAPE;

/// What each is called.
const NAMES: [&str; 16] = [
    "xz",
    "7z",
    "rar",
    "lzip",
    "bzip2",
    "lz4",
    "snappy",
    "cab",
    "lzop",
    "compress",
    "zip, deflate64",
    "zip, bzip2",
    "zip, lzma",
    "zip, ppmd",
    "zip, encrypted",
    "zip, another method",
];
/// What the first nine begin with: bzip2 behind three letters and its level. They stand anywhere in a text.
const BEGIN: [&[u8]; 9] = [
    b"\xfd7zXZ\0",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"LZIP\x01",
    b"1AY&SY",
    b"\x04\x22\x4d\x18",
    b"\xff\x06\0\0sNaPpY",
    b"MSCF\0\0\0\0",
    b"\x89LZO\0\r\n\x1a\n",
];
const BZIP2: usize = 4;
const COMPRESS: u16 = 9;

// Of the leftmost kind, which alone is searched for by whole vectors.
static SEARCH: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(BEGIN).ok());

/// Ways in which something is packed that is not unpacked, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread(u16);

impl Unread {
    const fn one(number: u16) -> Self {
        Self(1 << number)
    }

    /// What is here and not there.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is here or there.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What they are called: `xz`, `zip, lzma`.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter(move |(number, _)| self.0 >> number & 1 == 1).map(|(_, name)| name)
    }
}

/// What begins in a text that is not unpacked.
pub(crate) fn find(text: &[u8]) -> Unread {
    each(text).fold(Unread::default(), |all, (how, _)| all.and(how))
}

/// The same one by one, with where what tells it stands.
pub(crate) fn each(text: &[u8]) -> impl Iterator<Item = (Unread, Range<usize>)> {
    let all = SEARCH.iter().flat_map(move |search| search.find_iter(text));
    all.filter(move |found| found.pattern().as_usize() != BZIP2 || is_bzip2(text, found.range()))
        .map(|found| (Unread(1 << found.pattern().as_usize()), found.range()))
}

/// Is it a level before these bytes, and no text behind them? Texts name the format so. In data a checksum of four bytes comes next,
/// and then a byte whose bits are the highest of a number below 900,000: no character is written so.
fn is_bzip2(text: &[u8], place: Range<usize>) -> bool {
    let before = text.get(..place.start).unwrap_or_default();
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    matches!(before, [.., b'B', b'Z', b'h', level] if level.is_ascii_digit())
        && text.get(place.end..place.end + 5).is_some_and(|behind| !behind.iter().all(is_text))
}

/// The same of what has no more than three bytes to be told by, and is looked for where a text begins: what compress(1) writes.
pub(crate) fn at_start(text: &[u8]) -> Unread {
    match text {
        [0x1f, 0x9d, bits, ..] if bits & 0x60 == 0 && matches!(bits & 0x1f, 9..=16) => Unread::one(COMPRESS),
        _ => Unread::default(),
    }
}

/// What a method of a ZIP archive's file is called (APPNOTE 6.3.10 §4.4.5) that is not undone; none for those that are, and for those
/// whose data has a beginning of its own (Zstandard, xz).
pub(crate) fn zip_method(method: u16, is_encrypted: bool) -> Option<Unread> {
    let number = match method {
        _ if is_encrypted => 14,
        0 | 8 | 93 | 95 => return None,
        9 => 10,
        12 => 11,
        14 => 12,
        98 => 13,
        99 => 14,
        _ => 15,
    };
    Some(Unread::one(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_unpacked_is_known_by_its_beginning() {
        for (text, name) in [
            (&b"\xfd7zXZ\0\0\x04"[..], "xz"),
            (b"..BZh91AY&SY\x01abcd", "bzip2"),
            (b"..BZh91AY&SYabcd\x06", "bzip2"),
            (b"it begins with BZh91AY&SY, and then", ""),
            (b"it begins with BZh91AY&SY", ""),
            (b"7z\xbc\xaf\x27\x1c\0\x04", "7z"),
            (b"Rar!\x1a\x07\x01\0", "rar"),
            (b"..\x04\x22\x4d\x18\x64", "lz4"),
            (b"\xff\x06\0\0sNaPpY", "snappy"),
            (b"MSCF\0\0\0\0\x01", "cab"),
            (b"\x89LZO\0\r\n\x1a\n\x10", "lzop"),
            (b"1AY&SY, BZh9, MSCF and 7zXZ are names", ""),
            (b"", ""),
        ] {
            assert_eq!(find(text).names().collect::<String>(), name, "{}", text.escape_ascii());
        }
        let both = find(b"BZh91AY&SY\0 .. \xfd7zXZ\0");
        assert_eq!(both.names().collect::<Vec<_>>(), ["xz", "bzip2"]);
        assert_eq!(both.without(find(b"\xfd7zXZ\0")).names().collect::<Vec<_>>(), ["bzip2"]);
        assert_eq!(at_start(b"\x1f\x9d\x90\x68").names().collect::<Vec<_>>(), ["compress"]);
        assert_eq!((at_start(b"\x1f\x9d\x68"), at_start(b"\x1f\x9d")), (Unread::default(), Unread::default()));
    }

    #[test]
    fn the_gate_sees_all_of_them() {
        for text in BEGIN {
            assert!(gate::flags(text) & SIGNS != 0, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn every_method_of_zip_is_read_or_told() {
        let name = |method, is_encrypted| zip_method(method, is_encrypted).map(|how| how.names().collect::<String>());
        for method in [0, 8, 93, 95] {
            assert_eq!(name(method, false), None);
            assert_eq!(name(method, true).as_deref(), Some("zip, encrypted"));
        }
        for (method, wanted) in [
            (9, "zip, deflate64"),
            (12, "zip, bzip2"),
            (14, "zip, lzma"),
            (98, "zip, ppmd"),
            (99, "zip, encrypted"),
            (1, "zip, another method"),
            (97, "zip, another method"),
            (u16::MAX, "zip, another method"),
        ] {
            assert_eq!(name(method, false).as_deref(), Some(wanted));
        }
    }
}
