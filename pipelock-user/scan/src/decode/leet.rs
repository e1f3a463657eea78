//! The view in which digits that stand for letters are letters: `1gn0r3` reads `ignore`. Called by [`super::ViewKind`]; only
//! injections are looked for in it.

use super::{BACK, Turn};
use crate::finding::Step;

/// Longer words are data.
const LONGEST_WORD: usize = 24;
const _: () = assert!(LONGEST_WORD < BACK);

/// What the byte stands for.
pub(super) fn letter(byte: u8) -> Option<u8> {
    Some(match byte {
        b'0' => b'o',
        b'1' => b'i',
        b'3' => b'e',
        b'4' | b'@' => b'a',
        b'5' | b'$' => b's',
        b'7' => b't',
        _ => return None,
    })
}

pub(super) fn turn(before: &[u8], text: &[u8], last: bool, open: bool) -> Turn {
    let Some(letter) = text.first().copied().and_then(letter) else { return Turn::Keep(1) };
    let inside = before.last().is_some_and(u8::is_ascii_alphabetic) && text.get(1).is_none_or(u8::is_ascii_alphabetic);
    if !inside && !open {
        return Turn::Keep(1);
    }
    let word = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'@' | b'$');
    let back = before.iter().rev().take(LONGEST_WORD + 1).take_while(word).count();
    let ahead = text.iter().take(LONGEST_WORD + 1).take_while(word).count();
    if back + ahead > LONGEST_WORD {
        return Turn::Keep(1);
    }
    if ahead == text.len() && !last {
        return Turn::More;
    }
    if !open && text.len() == 1 {
        return Turn::Keep(1);
    }
    let whole = before[before.len() - back..].iter().chain(&text[..ahead]);
    let (mut letters, mut others, mut is_hex) = (0, 0, true);
    for &byte in whole {
        if byte.is_ascii_alphabetic() {
            letters += 1;
        } else if self::letter(byte).is_none() {
            others += 1;
        }
        is_hex &= byte.is_ascii_hexdigit();
    }
    // Colours and hashes are no words, unless they stand among such.
    if letters == 0 || others > 0 || is_hex && !open { Turn::Keep(1) } else { Turn::byte(1, letter, Step::Leet) }
}

#[cfg(test)]
mod tests {
    use super::super::{ViewKind, unescape::tests::all};

    #[test]
    fn words_are_read_and_data_is_not() {
        assert_eq!(
            all(ViewKind::Leet, "1gn0r3 4ll pr3v10us in 2024, sha256 x86"),
            "ignore all previous in 2024, sha256 x86"
        );
        let data = "a1b3c4d5e7f0a1b3c4d5e7f0a1b3c4d5";
        assert_eq!(all(ViewKind::Leet, data), data);
        let turned = |before: &[u8], text: &[u8], open| super::turn(before, text, true, open) != super::Turn::Keep(1);
        assert!(turned(b"1gn", b"0r3", false) && turned(b"1gn0r3 d", b"3c0d3", true));
        assert!(!turned(b"\"color\":\"d73a", b"4a\"", false), "a colour");
    }
}
