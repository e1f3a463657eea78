//! The view without quoted-printable (RFC 2045 §6.7): `=41` and soft line breaks. Called by [`super::ViewKind`].
//!
//! `=10` is also what many a program says, so an island starts only where an encoder wrote: `=3D`, `=20`, `=0D`, `=0A`, `=09`,
//! a soft break, or three in a row. Near it, every `=XX` counts.

use super::Turn;
use crate::finding::Step;

pub(super) fn turn(text: &[u8], last: bool, open: bool) -> Turn {
    if text.first() != Some(&b'=') {
        return Turn::Keep(1);
    }
    match text.get(1..) {
        Some([b'\n', ..]) => return Turn::bytes(2, &[], Step::QuotedPrintable),
        Some([b'\r', b'\n', ..]) => return Turn::bytes(3, &[], Step::QuotedPrintable),
        Some([] | [b'\r']) if !last => return Turn::More,
        _ => {}
    }
    let byte = match byte(text, last) {
        Ok(byte) => byte,
        Err(turn) => return turn,
    };
    if !open && !matches!(byte, b'=' | b' ' | b'\r' | b'\n' | b'\t') {
        for at in [3, 6] {
            match byte_at(text, at, last) {
                Ok(_) => {}
                Err(Turn::More) => return Turn::More,
                Err(_) => return Turn::Keep(1),
            }
        }
    }
    Turn::byte(3, byte, Step::QuotedPrintable)
}

fn byte_at(text: &[u8], at: usize, last: bool) -> Result<u8, Turn> {
    match text.get(at) {
        Some(b'=') => byte(&text[at..], last),
        None if !last => Err(Turn::More),
        _ => Err(Turn::Keep(1)),
    }
}

/// The byte of `=XX`.
fn byte(text: &[u8], last: bool) -> Result<u8, Turn> {
    let mut byte = 0;
    for at in 1..3 {
        byte = byte << 4
            | match text.get(at) {
                None if !last => return Err(Turn::More),
                Some(digit @ b'0'..=b'9') => digit - b'0',
                Some(digit @ b'A'..=b'F') => digit - b'A' + 10,
                _ => return Err(Turn::Keep(1)),
            };
    }
    Ok(byte)
}

#[cfg(test)]
mod tests {
    use super::super::{Turn, ViewKind, unescape::tests::all};
    use super::turn;

    #[test]
    fn quoted_printable_is_undone() {
        assert_eq!(all(ViewKind::Quoted, "a=3Db=\r\nc=\nd=41=zz="), "a=bcdA=zz=");
    }

    #[test]
    fn alone_a_digit_pair_means_nothing() {
        assert_eq!(turn(b"=10 ", true, false), Turn::Keep(1));
        assert_ne!(turn(b"=41=42=43", true, false), Turn::Keep(1));
        assert_eq!(turn(b"=41=4", false, false), Turn::More);
    }
}
