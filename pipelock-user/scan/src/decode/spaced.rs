//! The view in which words that were spelled out are words: `i.g.n.o.r.e` reads `ignore`. Called by [`super::ViewKind`].
//!
//! A separator is dropped when it stands in a chain of at least four single letters or digits that the same separator joins. The
//! marks that tokens hold count like letters where they are not the separator: `g.h.p._.0` reads `ghp_0`.

use super::{BACK, Turn};
use crate::finding::Step;

const LEAST: usize = 4;
const _: () = assert!(2 * LEAST + 2 < BACK);

/// Is the byte one that a separator may stand beside?
fn single(byte: u8, separator: u8) -> bool {
    byte.is_ascii_alphanumeric() || is_mark(byte) && !is_mark(separator)
}

fn is_mark(byte: u8) -> bool {
    matches!(byte, b'_' | b'-')
}

/// Does a text of singles end here that another separator joins?
fn in_chain(separator: u8, before: &[u8]) -> bool {
    let [.., other, last] = before else { return false };
    !separator.is_ascii_alphanumeric() && single(*last, separator) && *other == separator
}

pub(super) fn turn(before: &[u8], text: &[u8], last: bool) -> Turn {
    let Some(&separator) = text.first() else { return Turn::More };
    if separator.is_ascii_alphanumeric() || !separator.is_ascii() || matches!(separator, b'\n' | b'\r') {
        return Turn::Keep(1);
    }
    // Singles to the left, each followed by the separator.
    let mut left = 0;
    // Marks with hardly a letter among them are a ruler.
    let mut letters = 0;
    let mut rest = before;
    while left < LEAST {
        let Some((byte, shorter)) = rest.split_last() else { break };
        if !single(*byte, separator) || shorter.last().is_some_and(u8::is_ascii_alphanumeric) {
            break;
        }
        left += 1;
        letters += usize::from(byte.is_ascii_alphanumeric());
        match shorter.split_last() {
            Some((&byte, shorter)) if byte == separator => rest = shorter,
            // The end of another chain is no beginning of this one.
            Some((&byte, shorter)) if left == 1 && in_chain(byte, shorter) => return Turn::Keep(1),
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
            Some(byte) if single(*byte, separator) => {}
            _ => break,
        }
        let word = text.get(at).is_some_and(u8::is_ascii_alphanumeric);
        match text.get(at + 1) {
            None if !last => return Turn::More,
            Some(byte) if byte.is_ascii_alphanumeric() => break,
            Some(&byte) if byte == separator => right += 1,
            _ => {
                right += 1;
                letters += usize::from(word);
                break;
            }
        }
        letters += usize::from(word);
    }
    if 2 * letters >= left + right && right > 0 && left + right >= LEAST {
        Turn::bytes(1, &[], Step::Spaced)
    } else {
        Turn::Keep(1)
    }
}

/// Does `tail` end in a single character and a separator, or in another single one behind these?
pub(super) fn may_begin(tail: &[u8]) -> bool {
    let chain = match tail {
        [before @ .., separator, byte] if single(*byte, *separator) && !separator.is_ascii_alphanumeric() => {
            &tail[..=before.len()]
        }
        _ => tail,
    };
    match chain {
        [before @ .., byte, separator] => {
            single(*byte, *separator)
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
            ("g.h.p._.0.1 s k - a n t - a", "ghp_01 sk-ant-a"),
            ("g|h|p|_|0", "ghp_0"),
            ("- - - - - - a", "- - - - - - a"),
        ] {
            assert_eq!(all(ViewKind::Spaced, text), plain, "{text}");
        }
    }
}
