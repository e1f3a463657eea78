//! The view in which words that were spelled out are words: `i.g.n.o.r.e` reads `ignore`. Called by [`super::ViewKind`].
//!
//! A separator is dropped when it stands in a chain of at least four single letters or digits that the same separator joins.

use super::{BACK, Turn};
use crate::finding::Step;

const LEAST: usize = 4;
const _: () = assert!(2 * LEAST + 2 < BACK);

pub(super) fn turn(before: &[u8], text: &[u8], last: bool) -> Turn {
    let Some(&separator) = text.first() else { return Turn::More };
    if separator.is_ascii_alphanumeric() || !separator.is_ascii() || matches!(separator, b'\n' | b'\r') {
        return Turn::Keep(1);
    }
    // Singles to the left, each followed by the separator.
    let mut left = 0;
    let mut rest = before;
    while left < LEAST {
        let Some((single, shorter)) = rest.split_last() else { break };
        if !single.is_ascii_alphanumeric() || shorter.last().is_some_and(u8::is_ascii_alphanumeric) {
            break;
        }
        left += 1;
        match shorter.split_last() {
            Some((&byte, shorter)) if byte == separator => rest = shorter,
            _ => break,
        }
    }
    if left == 0 {
        return Turn::Keep(1);
    }
    let mut right = 0;
    while left + right < LEAST || right == 0 {
        let at = 1 + 2 * right;
        match text.get(at) {
            None if !last => return Turn::More,
            Some(byte) if byte.is_ascii_alphanumeric() => {}
            _ => break,
        }
        match text.get(at + 1) {
            None if !last => return Turn::More,
            Some(byte) if byte.is_ascii_alphanumeric() => break,
            Some(&byte) if byte == separator => right += 1,
            _ => {
                right += 1;
                break;
            }
        }
    }
    if right > 0 && left + right >= LEAST { Turn::bytes(1, &[], Step::Spaced) } else { Turn::Keep(1) }
}

/// Does `tail` end in a single character and a separator, or in another single one behind these?
pub(super) fn may_begin(tail: &[u8]) -> bool {
    let chain = match tail {
        [before @ .., separator, single] if single.is_ascii_alphanumeric() && !separator.is_ascii_alphanumeric() => {
            &tail[..=before.len()]
        }
        _ => tail,
    };
    match chain {
        [before @ .., single, separator] => {
            single.is_ascii_alphanumeric()
                && !separator.is_ascii_alphanumeric()
                && before.last().is_none_or(|byte| !byte.is_ascii_alphanumeric())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ViewKind, unescape::tests::all};

    #[test]
    fn spelled_words_are_joined() {
        for (text, plain) in [
            ("i g n o r e   a l l", "ignore   a l l"),
            ("i.g.n.o.r.e p-r-e-v", "ignore prev"),
            ("1.2.3", "1.2.3"),
            ("this is a b c test", "this is a b c test"),
            ("x-a-b-c-d-yy", "xabcd-yy"),
            ("A_K_I_A", "AKIA"),
        ] {
            assert_eq!(all(ViewKind::Spaced, text), plain, "{text}");
        }
    }
}
