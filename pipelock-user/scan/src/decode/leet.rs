//! The view in which digits that stand for letters are letters: `1gn0r3` reads `ignore`. Called by [`super::ViewKind`]; only
//! injections are looked for in it.

use super::{BACK, Turn};
use crate::finding::Step;

/// Longer words are data.
const LONGEST_WORD: usize = 24;
const _: () = assert!(LONGEST_WORD < BACK);

/// Letters beside a digit at the end of a word by which the gate sees it.
pub(super) const BESIDE: usize = 4;
/// Bytes behind a digit at the beginning of a word among which there is one between letters otherwise.
const NEAR: usize = 8;

/// Words of orders. Of these alone a digit at the beginning or the end is read as a letter while nothing near is: `test1` and
/// `3rdparty` are names.
const WORDS: &[&[u8]] = &[
    b"above",
    b"assistant",
    b"constraints",
    b"credentials",
    b"delete",
    b"directives",
    b"disregard",
    b"everything",
    b"execute",
    b"forget",
    b"guidelines",
    b"ignore",
    b"instruction",
    b"instructions",
    b"orders",
    b"output",
    b"override",
    b"previous",
    b"prompt",
    b"restrictions",
    b"rules",
    b"secret",
    b"system",
];

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
    let word = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'@' | b'$');
    let beyond = |byte: Option<&u8>| byte.is_none_or(|byte| !word(&byte));
    let after = before.last().is_some_and(u8::is_ascii_alphabetic);
    let inside = after && text.get(1).is_none_or(u8::is_ascii_alphabetic);
    let edge = text[0].is_ascii_digit() && (after && beyond(text.get(1)) || beyond(before.last()));
    if !inside && !edge && !open {
        return Turn::Keep(1);
    }
    let back = before.iter().rev().take(LONGEST_WORD + 1).take_while(word).count();
    let ahead = text.iter().take(LONGEST_WORD + 1).take_while(word).count();
    if back + ahead > LONGEST_WORD {
        return Turn::Keep(1);
    }
    if ahead == text.len() && !last {
        return Turn::More;
    }
    if !open && (edge || text.len() == 1) {
        let reads = text[0].is_ascii_digit()
            && is_seen(before, text)
            && reads_as_order(&before[before.len() - back..], &text[..ahead]);
        return if reads { Turn::byte(1, letter, Step::Leet) } else { Turn::Keep(1) };
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

/// Whether the gate sees a word with a digit at `text` for its beginning or its end.
fn is_seen(before: &[u8], text: &[u8]) -> bool {
    let letters = |bytes: &[u8]| bytes.len() == BESIDE && bytes.iter().all(u8::is_ascii_alphabetic);
    let between = |three: &[u8]| matches!(three, [one, digit, other] if one.is_ascii_alphabetic() && digit.is_ascii_digit() && other.is_ascii_alphabetic());
    letters(text.get(1..=BESIDE).unwrap_or_default())
        || letters(before.len().checked_sub(BESIDE).and_then(|from| before.get(from..)).unwrap_or_default())
        || text.get(1..text.len().min(NEAR)).unwrap_or_default().windows(3).any(between)
}

/// Whether these two make a word of an order.
fn reads_as_order(head: &[u8], tail: &[u8]) -> bool {
    let length = head.len() + tail.len();
    let read = |byte: &u8| letter(*byte).unwrap_or_else(|| byte.to_ascii_lowercase());
    WORDS.iter().any(|word| word.len() == length && head.iter().chain(tail).map(read).eq(word.iter().copied()))
}

/// May the end of `tail` be the beginning of a change for which the gate has no flag before it sees more?
pub(super) fn may_begin(tail: &[u8]) -> bool {
    let behind = tail.iter().rev().take(BESIDE).take_while(|byte| byte.is_ascii_alphabetic()).count();
    tail.len().checked_sub(behind + 1).and_then(|at| tail.get(at)).is_some_and(|byte| letter(*byte).is_some())
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
        assert!(turned(b"x ", b"1gnore all", false) && turned(b"an ignor", b"3 all", false));
        assert!(turned(b"", b"1gn0r3", false) && turned(b"instruction", b"5", false));
        for (before, text) in [("test", "1 "), ("", "3rdparty"), ("version", "1"), ("x ", "1n57ruc710n5"), ("a", "1")] {
            assert!(!turned(before.as_bytes(), text.as_bytes(), false), "{before}{text}");
        }
    }
}
