//! Compressed data that nothing here unpacks, told by its first bytes: who reads the rest can say that this was not read. Called by
//! [`crate::stream`].

use memchr::memmem;

/// Bytes that tell a format, at the most.
pub(crate) const LONGEST: usize = 10;

/// What begins in a text that is not unpacked: xz, bzip2 (its level is a digit), 7-Zip, RAR, lzip.
pub(crate) fn find(text: &[u8]) -> Option<&'static str> {
    const BEGIN: [(&[u8], &str); 4] =
        [(b"\xfd7zXZ\0", "xz"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"Rar!\x1a\x07", "rar"), (b"LZIP\x01", "lzip")];
    const BZIP2: &[u8] = b"1AY&SY";
    let is_bzip2 = |at: usize| matches!(text.get(..at).unwrap_or_default(), [.., b'B', b'Z', b'h', level] if level.is_ascii_digit());
    let begun = BEGIN.iter().find(|(begin, _)| memmem::find(text, begin).is_some()).map(|(_, name)| *name);
    begun.or_else(|| memmem::find_iter(text, BZIP2).any(is_bzip2).then_some("bzip2"))
}

/// What a method of a ZIP archive's file is called (APPNOTE 6.3.10 §4.4.5) that is not undone; none for others, and for those whose
/// data has a beginning of its own (Zstandard, xz).
pub(crate) fn zip_method(method: u16, is_encrypted: bool) -> Option<&'static str> {
    match method {
        9 => Some("zip, deflate64"),
        12 => Some("zip, bzip2"),
        14 => Some("zip, lzma"),
        98 => Some("zip, ppmd"),
        99 => Some("zip, encrypted"),
        0 | 8 if is_encrypted => Some("zip, encrypted"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_unpacked_is_known_by_its_beginning() {
        for (text, name) in [
            (&b"\xfd7zXZ\0\0\x04"[..], Some("xz")),
            (b"..BZh91AY&SY\x01", Some("bzip2")),
            (b"7z\xbc\xaf\x27\x1c\0\x04", Some("7z")),
            (b"Rar!\x1a\x07\x01\0", Some("rar")),
            (b"1AY&SY, BZh9 and 7zXZ are names", None),
            (b"", None),
        ] {
            assert_eq!(find(text), name, "{}", text.escape_ascii());
        }
        assert_eq!(zip_method(12, false), Some("zip, bzip2"));
        assert_eq!((zip_method(8, false), zip_method(0, false), zip_method(8, true).is_some()), (None, None, true));
    }
}
