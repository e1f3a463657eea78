//! The view without UTF-7: `+AGkAZw-` (RFC 2152), and `&AGkAZw-` as mailbox names have it (RFC 3501 §5.1.3). Called by
//! [`super::ViewKind`].
//!
//! Only what begins with an ASCII character that needs no such writing is undone, for that is how words are hidden: `+A…`. Longer
//! sequences are runs of base64, and seen as such.

use super::{OUT, Turn};
use crate::finding::Step;

/// Most UTF-16 units of a sequence: in UTF-8 they take at most three bytes each.
const UNITS: usize = OUT / 3;
/// Most characters of a sequence.
const LONGEST: usize = (UNITS * 16).div_ceil(6);

fn value(byte: u8, mailbox: bool) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' if !mailbox => 63,
        b',' if mailbox => 63,
        _ => return None,
    }))
}

pub(super) fn turn(text: &[u8], last: bool) -> Turn {
    let mailbox = match text.first() {
        Some(b'+') => false,
        Some(b'&') => true,
        Some(_) => return Turn::Keep(1),
        None => return Turn::More,
    };
    match text.get(1) {
        Some(b'A') => {}
        None if !last => return Turn::More,
        _ => return Turn::Keep(1),
    }
    let (mut units, mut count) = ([0u16; UNITS], 0);
    let (mut bits, mut have, mut at) = (0u32, 0, 1);
    let end = loop {
        let Some(&byte) = text.get(at) else {
            if !last {
                return Turn::More;
            }
            break None;
        };
        let Some(value) = value(byte, mailbox) else { break Some(byte) };
        if at > LONGEST {
            return Turn::Keep(1);
        }
        bits = bits << 6 | value;
        have += 6;
        at += 1;
        if have >= 16 {
            have -= 16;
            if let Some(unit) = units.get_mut(count) {
                *unit = (bits >> have) as u16;
            }
            count += 1;
            bits &= (1 << have) - 1;
        }
    };
    let closed = end == Some(b'-');
    // Left over are fewer bits than a character has, and none is set (RFC 2152, rule 2).
    if count == 0
        || count > UNITS
        || have >= 6
        || bits != 0
        || (mailbox && !closed)
        || !(0x20..0x7f).contains(&units[0])
    {
        return Turn::Keep(1);
    }
    let mut out = String::new();
    for char in char::decode_utf16(units[..count].iter().copied()) {
        let Ok(char) = char else { return Turn::Keep(1) };
        out.push(char);
    }
    Turn::bytes(at + usize::from(closed), out.as_bytes(), Step::Utf7)
}

#[cfg(test)]
mod tests {
    use super::super::{ViewKind, unescape::tests::all};

    #[test]
    fn utf7_is_undone() {
        for (text, plain) in [
            ("+AGk-gnore +AGEAbABs- previous", "ignore all previous"),
            ("&AGk-gnore", "ignore"),
            ("+AGkAZwBuAG8AcgBl", "ignore"),
            ("+AGk.x", "i.x"),
            // What RFC 2152 writes otherwise, a number, an unfinished unit.
            ("A+ImIDkQ.", "A+ImIDkQ."),
            ("+A12-", "+A12-"),
            ("a+AG b", "a+AG b"),
            ("x&Action=1", "x&Action=1"),
        ] {
            assert_eq!(all(ViewKind::Utf7, text), plain, "{text}");
        }
    }
}
