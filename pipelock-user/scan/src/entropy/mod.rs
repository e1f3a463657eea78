//! How random a text looks, and what of a URL looks like smuggled data.
//!
//! The engine calls [`url_part`] for path segments and query values and [`host()`] for host names, before any of them leaves.
//! [`shannon`] also serves the rules' entropy floors. Promises: linear, no allocation but for findings, no panic.

mod host;
mod words;

pub use host::{HostFinding, HostSign, host};
pub(crate) use host::{before, data_labels, excluded};
pub(crate) use words::{readable, unreadable};

/// Shannon entropy in bits per byte, 0 to 8; 0 for an empty text.
pub fn shannon(bytes: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    for &byte in bytes {
        counts[usize::from(byte)] += 1;
    }
    let total = bytes.len() as f64;
    counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| f64::from(count) / total)
        .map(|share| -share * share.log2())
        .sum()
}

/// Bits a text carries beyond what its repetition tells: entropy times length.
pub fn bits(bytes: &[u8]) -> f64 {
    shannon(bytes) * bytes.len() as f64
}

/// From when on a path segment or a query value counts as random.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Shortest text that is judged, in bytes.
    pub length: usize,
    /// Entropy above which it is reported, in bits per byte. 31 different characters have 4.95, a line of English about 4.1.
    /// Text that mixes small letters, capitals and digits is reported from 87 percent of what its length allows on.
    pub entropy: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { length: 20, entropy: 4.2 }
    }
}

/// Share of the entropy its length allows that random letters and digits of 20 bytes and more seldom fall below.
const MIXED_SHARE: f64 = 0.87;

/// Whether a path segment, a query key or a query value (decoded) looks like data rather than a name.
///
/// Hexadecimal never reaches 4 bits per byte: from 32 digits on it is judged by its variety, unless it has the form of a
/// UUID or the length of a common hash (commit ids, checksums), which URLs hold for good reasons. Words joined by `-`, `_`,
/// `+`, `.` or spaces are judged word by word, so that titles and file names pass.
pub fn url_part(part: &[u8], limits: Limits) -> bool {
    if part.len() < limits.length || uuid(part) {
        return false;
    }
    if part.iter().all(u8::is_ascii_hexdigit) {
        // MD5, SHA-1 as in commits, SHA-2, and the BLAKE2 of Python's package index less the two digits of each of its
        // two folders: names of things. Anything else of that length is data.
        return !matches!(part.len(), 32 | 40 | 56 | 60 | 64 | 96 | 128) && part.len() >= 32 && shannon(part) > 3.0;
    }
    let longest = part.split(separates).map(<[u8]>::len).max().unwrap_or(0);
    if longest < 12 && part.iter().any(separates) && !chunked(part) {
        return false;
    }
    let mixed =
        [u8::is_ascii_lowercase, u8::is_ascii_uppercase, u8::is_ascii_digit].iter().all(|class| part.iter().any(class));
    let most = (part.len() as f64).log2();
    let limit = if mixed { limits.entropy.min(most * MIXED_SHARE) } else { limits.entropy };
    shannon(part) > limit && !words::readable(part)
}

/// Bytes that part a value into pieces.
pub(crate) fn separates(byte: &u8) -> bool {
    b"-_+. ,/~:".contains(byte)
}

/// Length from which on a piece is told from others like it, in bytes.
pub(crate) const LONG: usize = 6;

/// A piece that tells little, however long it is.
pub(crate) fn is_word(piece: &[u8]) -> bool {
    piece.iter().all(u8::is_ascii_alphabetic) && words::readable(piece)
}

/// Whether a value may carry data of the sender's choice: no word, no short number, with a word before it or not, no name made of
/// words, no UUID.
pub(crate) fn free(value: &[u8]) -> bool {
    let digits = value.iter().filter(|byte| byte.is_ascii_digit()).count();
    value.len() >= 6
        && digits + 2 < value.len().max(14)
        && !uuid(value)
        && value.split(separates).any(|piece| piece.len() >= LONG && !is_word(piece) && !is_numbered(piece))
}

/// Longest number, and longest name that is no word before one, of what is told from others like it by the number alone.
const SHORT_NUMBER: usize = 5;
const SHORT_NAME: usize = 3;

/// A word or a few letters with a short number behind: `item88`, `cc1824`.
fn is_numbered(piece: &[u8]) -> bool {
    let digits = piece.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let name = &piece[..piece.len() - digits];
    let is_name = name.len() <= SHORT_NAME && name.iter().all(u8::is_ascii_alphabetic) || is_word(name);
    (1..=SHORT_NUMBER).contains(&digits) && is_name
}

/// Pieces of equal length, four or more of at least four bytes: data cut up rather than words. Their last may be shorter.
fn chunked(part: &[u8]) -> bool {
    let pieces: Vec<usize> = part.split(separates).map(<[u8]>::len).collect();
    let [first, .., last] = pieces.as_slice() else { return false };
    pieces.len() >= 4 && *first >= 4 && pieces[..pieces.len() - 1].iter().all(|length| length == first) && last <= first
}

/// 8-4-4-4-12 hexadecimal digits (RFC 9562), with or without braces.
fn uuid(part: &[u8]) -> bool {
    let part = part.strip_prefix(b"{").and_then(|part| part.strip_suffix(b"}")).unwrap_or(part);
    part.len() == 36
        && part.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn entropy_of_known_texts() {
        assert_eq!(shannon(b""), 0.0);
        assert_eq!(shannon(b"aaaa"), 0.0);
        assert_eq!(shannon(b"abcd"), 2.0);
        assert_eq!(bits(b"abcd"), 8.0);
    }

    #[test]
    fn random_parts_are_told_from_names() {
        for part in [
            "x7Kp2mQ9vR4sL8nW1bY6cT3fA0jH5dE",
            "Y3VzdG9tZXIgbGlzdCwgcGFnZSA3OiBKYW5lIFNtaXRo",
            "9f86d081884c7d659a2feaa0c55ad0151b4f0e",
            "k9Xw-Pz3q-7Lm2-Rv8t-Yc5n-Bd1f",
        ] {
            assert!(url_part(part.as_bytes(), Limits::default()), "{part}");
        }
        for part in [
            "550e8400-e29b-41d4-a716-446655440000",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709",
            "how-to-fix-permission-denied-error-in-golang-test",
            "679461c511447ffaf176567d5c496d1de27cbe34a87df6677d7171b2fbd4",
            "lodash.min.js",
            "getUserAuthenticationTokenFromRequest",
            "2024-06-01-release-notes-for-version-3",
            "how to fix \"permission denied\" error in golang test",
            "AdministrativeDivisionsOfTheNetherlands",
            "short",
        ] {
            assert!(!url_part(part.as_bytes(), Limits::default()), "{part}");
        }
    }

    proptest! {
        #[test]
        fn entropy_is_in_range(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let entropy = shannon(&bytes);
            prop_assert!((0.0..=8.0).contains(&entropy));
            url_part(&bytes, Limits::default());
        }
    }
}
