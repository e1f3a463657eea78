//! The view in which words that were spelled out are words: `i.g.n.o.r.e` reads `ignore`, and tokens that were cut into groups are
//! whole: `AKIA-IOSF-ODNN-7EXA`. Called by [`super::ViewKind`].
//!
//! A separator is dropped when it stands in a chain of at least four single letters or digits that the same separator joins, or
//! of three groups of one length ([`grouped`]). The marks that tokens hold count like letters where they are not the separator:
//! `g.h.p._.0` reads `ghp_0`.

use super::{BACK, Turn};
use crate::bits::{self, BLOCK};
use crate::finding::Step;

const LEAST: usize = 4;
const _: () = assert!(2 * LEAST + 2 < BACK);

/// The first place where a separator may stand that is dropped: most signs stand beside other signs, and most blanks between words
/// that are no single letters.
pub(super) fn place(text: &[u8]) -> Option<usize> {
    (0..text.len()).step_by(BLOCK).find_map(|from| {
        let block = bits::block(text, from);
        let words = bits::of(&block, |byte| byte.is_ascii_alphanumeric());
        let near = words | bits::of(&block, is_mark);
        let end = text.len() - from;
        let (own, last) = if end < BLOCK { ((1 << end) - 1, 1 << (end - 1)) } else { (u64::MAX, 1 << (BLOCK - 1)) };
        // What is not there to be seen is left to who looks closer.
        let mut places = own & !words & (near << 1 | 1) & (near >> 1 | last);
        while places != 0 {
            let at = from + places.trailing_zeros() as usize;
            if may_go(text, at) {
                return Some(at);
            }
            places &= places - 1;
        }
        None
    })
}

fn may_go(text: &[u8], at: usize) -> bool {
    let near = |byte: u8| byte.is_ascii_alphanumeric() || is_mark(byte);
    let Some([far, left, separator, right, beyond]) = at.checked_sub(2).and_then(|from| text.get(from..from + 5))
    else {
        return true;
    };
    let alone = !(far.is_ascii_alphanumeric() && beyond.is_ascii_alphanumeric());
    near(*left) && near(*right) && (alone || separates(*separator) && is_paired(text, at))
}

/// Is there the same separator a group away from this one, and near the first of both what tokens hold?
fn is_paired(text: &[u8], at: usize) -> bool {
    let reach = GROUP + 1;
    let (Some(before), Some(behind)) = (at.checked_sub(reach), text.get(at + 1..=at + SIGNS)) else { return true };
    let is = |byte: &u8| *byte == text[at];
    // Nearer than that, the group has one character.
    let next = behind[..reach].iter().position(is);
    if next.is_some_and(|group| group > 1 && ends(text[at - group - 1], text[at])) && has_signs(behind.iter()) {
        return true;
    }
    let last = text[before..at].iter().rev().position(is);
    last.is_some_and(|group| group > 1 && has_signs(text[at - group..].iter().take(SIGNS)))
}

/// Is the byte one that a separator may stand beside?
fn single(byte: u8, separator: u8) -> bool {
    byte.is_ascii_alphanumeric() || is_mark(byte) && byte != separator
}

fn is_mark(byte: u8) -> bool {
    matches!(byte, b'_' | b'-')
}

/// Longest group.
pub(super) const GROUP: usize = 12;
/// Groups that make a chain, and how many of them are looked at on either side of a separator.
const GROUPS: usize = 3;
/// Characters in groups of one length, of which two are enough with a shorter one.
const ENOUGH: usize = 12;
const _: () = assert!(GROUPS * (GROUP + 1) < BACK);

/// What may stand between groups: no blank, since words are often of one length.
pub(super) fn separates(byte: u8) -> bool {
    (byte.wrapping_sub(b'*') < 6) | (byte | 1 == b';') | (byte == b'_') | (byte == b'|') | (byte == b'~')
}

/// What a group is made of.
fn unit(byte: u8, separator: u8) -> bool {
    byte != separator && (byte.is_ascii_alphanumeric() || b"_-+/".contains(&byte))
}

/// May a group of what this separates begin behind the byte?
pub(super) fn ends(byte: u8, separator: u8) -> bool {
    !unit(byte, separator)
}

/// How long the group at the end is that begins behind something else, if it is no longer than `most`.
fn group(bytes: impl Iterator<Item = u8>, separator: u8, most: usize) -> Option<usize> {
    let length = bytes.take(most + 1).take_while(|byte| unit(*byte, separator)).count();
    (length <= most).then_some(length)
}

/// Bytes behind the first of two separators in which letters are, and not only small ones: dates and addresses have none, words no
/// others.
pub(super) const SIGNS: usize = GROUP + 2;

fn has_signs<'a>(bytes: impl Iterator<Item = &'a u8>) -> bool {
    let (mut letter, mut mixed) = (false, false);
    for byte in bytes {
        letter |= byte.is_ascii_alphabetic();
        mixed |= byte.is_ascii_uppercase() || byte.is_ascii_digit();
    }
    letter && mixed
}

/// Drops a separator between three groups or more that hold what tokens do: of two to [`GROUP`] characters, all of the same length,
/// only the last of long ones may be shorter.
fn grouped(before: &[u8], text: &[u8], last: bool) -> Turn {
    let Some(&separator) = text.first().filter(|byte| separates(**byte)) else { return Turn::Keep(1) };
    // As the gate sees it.
    let near = |byte: Option<&u8>| byte.is_some_and(|byte| unit(*byte, separator) && !b"+/".contains(byte));
    if !near(before.last()) || text.len() > 1 && !near(text.get(1)) {
        return Turn::Keep(1);
    }
    let left = |end: usize| group(before[..end].iter().rev().copied(), separator, GROUP);
    let Some(length @ 2..) = left(before.len()) else { return Turn::Keep(1) };
    let (mut count, mut end) = (1, before.len() - length);
    // Is there another group of the same row that is of another length, as a UUID has some?
    let mut uneven = false;
    while count < GROUPS && before[..end].last() == Some(&separator) {
        uneven = left(end - 1) != Some(length);
        if uneven {
            break;
        }
        (count, end) = (count + 1, end - 1 - length);
    }
    let lefts = count;
    let (mut at, mut right, mut groups) = (0, 0, count);
    // Short groups may hold what tokens do only behind the third.
    while (right < GROUPS || at <= SIGNS) && text.get(at) == Some(&separator) {
        let rest = &text[at + 1..];
        let found = group(rest.iter().copied(), separator, length);
        if found.unwrap_or(length + 1) >= rest.len() && !last {
            return Turn::More;
        }
        match found {
            Some(1..) => {}
            // A longer one does not belong to the chain.
            _ if right == 0 => return Turn::Keep(1),
            other => {
                uneven |= other.is_none();
                break;
            }
        }
        let found = found.unwrap_or_default();
        (right, groups, at) = (right + 1, groups + 1, at + 1 + found);
        count += usize::from(found == length);
        if found < length {
            break;
        }
    }
    let is_chain = count >= GROUPS || groups >= GROUPS && count * length >= ENOUGH;
    let chain = || before[end..].iter().chain(&text[..at]);
    let hex = || chain().all(|byte| *byte == separator || byte.is_ascii_hexdigit());
    if !is_chain || !has_signs(chain()) || (uneven || length == 2) && hex() {
        return Turn::Keep(1);
    }
    // As the gate sees it, from this separator on or from the one before, which has a group of the same length before it too.
    let next = text[1..].iter().take(length + 1).position(|byte| *byte == separator);
    let from_here = || next == Some(length) && has_signs(text[1..at].iter().take(SIGNS));
    let from_before = || {
        let group = before.len() - length;
        let beyond = group.checked_sub(2).and_then(|far| before.get(far));
        let signs = has_signs(before[group..].iter().chain(&text[..at]).take(SIGNS));
        lefts >= 2 && near(beyond) && near(before.get(group)) && signs
    };
    if from_here() || from_before() { Turn::bytes(1, &[], Step::Spaced) } else { Turn::Keep(1) }
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
    match spelled(separator, before, text, last) {
        Turn::Keep(_) => grouped(before, text, last),
        turn => turn,
    }
}

/// Drops a separator between single characters.
fn spelled(separator: u8, before: &[u8], text: &[u8], last: bool) -> Turn {
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

/// Does `tail` end in a single character and a separator, or in another single one behind these, or with what may be the first
/// separator between groups?
pub(super) fn may_begin(tail: &[u8]) -> bool {
    single_may_begin(tail.get(tail.len().saturating_sub(4)..).unwrap_or_default()) || group_may_begin(tail)
}

/// Bytes at the end of a text that tell whether the first separator between groups is among them.
pub(crate) const BEGINS: usize = GROUP + 2;

fn group_may_begin(tail: &[u8]) -> bool {
    let places = (1..tail.len()).rev().take(GROUP + 1);
    let begins = |at: &usize| {
        let separator = tail[*at];
        separates(separator)
            && unit(tail[at - 1], separator)
            && tail[at + 1..].iter().all(|byte| unit(*byte, separator) || *byte == separator)
    };
    places.into_iter().any(|at| begins(&at))
}

fn single_may_begin(tail: &[u8]) -> bool {
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
            ("g-h-p-_-0-1 s_k_-_a", "ghp_01 sk-a"),
            ("AKIA-IOSF-ODNN-7EXA-MPLE", "AKIAIOSFODNN7EXAMPLE"),
            ("t: gh/p_/Wx/7t/8C/S.", "t: ghp_Wx7t8CS."),
            ("gh-p_-Wx-7t8", "ghp_Wx-7t8"),
            ("sk_live~_4eC39H~qLyjWDa~rjtT1zd~p", "sk_live_4eC39HqLyjWDarjtT1zdp"),
            ("2024-11-23 00:12:34 10.20.30.40", "2024-11-23 00:12:34 10.20.30.40"),
            (
                "3f2504e0-4f89-41d3-9a0c-0305e82c3301 3f2504e0-4f89-41d3-9a0c",
                "3f2504e0-4f89-41d3-9a0c-0305e82c3301 3f2504e0-4f89-41d3-9a0c",
            ),
            ("3f:2a:4b:9c:00:1d", "3f:2a:4b:9c:00:1d"),
            ("pk3f-2504-e04f-8941-d39a 3f25.04e0.4f89", "pk3f2504e04f8941d39a 3f2504e04f89"),
            ("3f2504e0-4f89-41d3-9a0c-0305e82c3301", "3f2504e0-4f89-41d3-9a0c-0305e82c3301"),
            ("well-kept-tree one,two,six", "well-kept-tree one,two,six"),
            ("AB-CD, Xy-Zk", "AB-CD, Xy-Zk"),
            ("AKIAIOS.FODNN7E.XAMPLE", "AKIAIOSFODNN7EXAMPLE"),
            ("AKIAIOS.FODNN7E", "AKIAIOS.FODNN7E"),
            ("sk,_l,iv,e_,4e,C3,9H,qL", "sk_live_4eC39HqL"),
            ("- - - - - - a", "- - - - - - a"),
        ] {
            assert_eq!(all(ViewKind::Spaced, text), plain, "{text}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 20_000, ..Default::default() })]
        #[test]
        fn nothing_changes_where_the_gate_sees_nothing(text in "[a-c ]{0,5}([a-cA1+/]{1,4}[|/+-]){1,7}[a-cA1+/]{0,4}[ a-c]{0,6}") {
            let text = text.as_bytes();
            let changes = |at: &usize| matches!(super::turn(&text[..*at], &text[*at..], true), super::Turn::Change { .. });
            let changed = (0..text.len()).find(changes);
            let seen = super::super::gate::flags(text) & super::super::gate::SPACED != 0;
            proptest::prop_assert!(text.len() > 60 || changed.is_none() || seen, "{:?}", changed);
            // Nor does who looks for places pass one over.
            let mut at = 0;
            while let Some(place) = super::place(&text[at..]) {
                proptest::prop_assert!((at..at + place).all(|at| !changes(&at)), "{} {}", at, place);
                at += place + 1;
            }
            proptest::prop_assert!((at..text.len()).all(|at| !changes(&at)), "{}", at);
        }
    }
}
