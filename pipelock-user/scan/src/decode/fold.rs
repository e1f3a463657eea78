//! The view in which every character that looks like an ASCII one is that one: invisible characters and terminal sequences
//! gone, compatibility forms, accents, look-alikes (the Unicode table) folded, hidden text in tags and variation
//! selectors readable. Called by [`super::ViewKind`].
//!
//! Characters of other scripts that look like nothing in ASCII stay as they are, so patterns in Chinese, Japanese, Korean
//! still match here. Sources: UAX 15 (normalisation), UTS 39 (confusables), UTR 51 (tags).

use std::sync::OnceLock;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::{BACK, Turn};
use crate::finding::Step;

/// What terminal sequences begin with.
pub(crate) const ESCAPE: u8 = 0x1b;
/// Longest terminal sequence that is taken out.
const SEQUENCE: usize = 32;

/// Can the byte start a change? The others outside ASCII start no character of UTF-8.
pub(crate) fn unusual(byte: u8) -> bool {
    matches!(byte, 0x7f | 0xc2..0xf5) || (byte < 0x20 && !matches!(byte, b'\n' | b'\r' | b'\t'))
}

/// The first byte that may start a change.
pub(super) fn place(text: &[u8]) -> Option<usize> {
    text.iter()
        .enumerate()
        .find_map(|(at, &byte)| (unusual(byte) && !(byte >= 0x80 && stays(&text[at..]))).then_some(at))
}

/// Does the byte beyond ASCII at the start of `text` certainly stay, whatever is before it and behind `text`? Most in noise do, as
/// they are of no character, and ideographs.
pub(crate) fn stays(text: &[u8]) -> bool {
    let goes_on = |at: usize| text.get(at).map(|byte| byte & 0xc0 == 0x80);
    match *text {
        [0xc2..0xe0, second, ..] if second & 0xc0 != 0x80 => true,
        [first @ 0xc2..0xe0, second, ..] => {
            let char = char::from_u32(u32::from(first & 0x1f) << 6 | u32::from(second & 0x3f));
            char.is_some_and(|char| matches!(folded(char), Fold::Keep))
        }
        // Most ideographs, which are all of these.
        [0xe4..=0xe9, ..] => goes_on(1).is_some() && goes_on(2).is_some(),
        [0xe0..0xf5, second, ..] if second & 0xc0 != 0x80 => true,
        [0xe0..0xf5, _, third, ..] if third & 0xc0 != 0x80 => true,
        [0xf0..0xf5, ..] => goes_on(3) == Some(false),
        _ => false,
    }
}

pub(super) fn turn(before: &[u8], text: &[u8], last: bool) -> Turn {
    let Some(&byte) = text.first() else { return Turn::More };
    if byte < 0x80 {
        return control(byte, text, last);
    }
    let length = match byte {
        0xc2..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf5 => 4,
        _ => return Turn::Keep(1),
    };
    let Some(bytes) = text.get(..length) else { return if last { Turn::Keep(1) } else { Turn::More } };
    let Some(char) = std::str::from_utf8(bytes).ok().and_then(|text| text.chars().next()) else { return Turn::Keep(1) };
    if let Some(hidden) = hidden(char) {
        // One alone decorates an emoji or splits a word; several are a text.
        let next = match text.get(length..length + 4) {
            Some(next) => starts_hidden(next),
            None if last => text.get(length..).is_some_and(starts_hidden),
            None => return Turn::More,
        };
        let text = next || ends_hidden(before);
        let shown = hidden.filter(|_| text);
        return match shown {
            Some(byte) => Turn::byte(length, byte, Step::Invisible),
            None => Turn::bytes(length, &[], Step::Invisible),
        };
    }
    match folded(char) {
        Fold::Keep => Turn::Keep(length),
        Fold::Mark if !on_latin(before) => Turn::Keep(length),
        Fold::Mark => Turn::bytes(length, &[], Step::Unicode),
        Fold::Drop(step) => Turn::bytes(length, &[], step),
        Fold::Ascii(byte) => Turn::byte(length, byte, Step::Unicode),
        Fold::Text => {
            let text: String = compatible(char);
            Turn::bytes(length, text.as_bytes(), Step::Unicode)
        }
    }
}

/// Control characters go; an escape sequence (ECMA-48: CSI and OSC) goes whole.
fn control(byte: u8, text: &[u8], last: bool) -> Turn {
    if !unusual(byte) {
        return Turn::Keep(1);
    }
    let gone = |take| Turn::bytes(take, &[], Step::Invisible);
    if byte != ESCAPE {
        return gone(1);
    }
    let ends: fn(u8) -> bool = match text.get(1) {
        None if !last => return Turn::More,
        Some(b'[') => |byte| (0x40..0x7f).contains(&byte),
        Some(b']') => |byte| byte == 0x07,
        _ => return gone(1),
    };
    match text.iter().take(SEQUENCE).skip(2).position(|&byte| ends(byte)) {
        Some(length) => gone(length + 3),
        None if text.len() < SEQUENCE && !last => Turn::More,
        None => gone(1),
    }
}

/// Characters that carry bytes without being seen: tags and variation selectors. The inner option is the byte.
fn hidden(char: char) -> Option<Option<u8>> {
    match char {
        '\u{e0020}'..='\u{e007e}' => Some(Some((char as u32 - 0xe0000) as u8)),
        '\u{e0000}'..='\u{e007f}' => Some(None),
        '\u{fe00}'..='\u{fe0f}' => Some(Some((char as u32 - 0xfe00) as u8)),
        '\u{e0100}'..='\u{e01ef}' => Some(Some((char as u32 - 0xe0100 + 16) as u8)),
        _ => None,
    }
}

fn starts_hidden(text: &[u8]) -> bool {
    matches!(text, [0xf3, 0xa0, 0x80..=0x81 | 0x84..=0x87, _, ..] | [0xef, 0xb8, 0x80..=0x8f, ..])
}

fn ends_hidden(text: &[u8]) -> bool {
    // A selector of three bytes ends here, and not one byte before: behind `g\u{fe0f}h` nothing hidden ends.
    let selector = text.len() >= 3 && starts_hidden(&text[text.len() - 3..]);
    selector || text.last_chunk::<4>().is_some_and(|last| last[0] == 0xf3 && starts_hidden(last))
}

#[derive(Clone, Copy)]
enum Fold {
    Keep,
    /// A mark of another script.
    Mark,
    Drop(Step),
    Ascii(u8),
    /// Several characters: see [`compatible`].
    Text,
}

const KEEP: u8 = 0;
const DROP: u8 = 1;
const MARK: u8 = 2;
const TEXT: u8 = 3;
const OTHER_MARK: u8 = 4;

fn folded(char: char) -> Fold {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    let code = match char as u32 {
        // Ideographs, syllables and kana: nothing looks like them, and they are most of their texts.
        0x3041..=0x30ff | 0x3400..=0x9fff | 0xac00..=0xd7a3 => KEEP,
        number @ 0..0x10000 => {
            let table =
                TABLE.get_or_init(|| (0..0x10000).map(|number| char::from_u32(number).map_or(KEEP, code)).collect());
            table.get(number as usize).copied().unwrap_or(KEEP)
        }
        _ => code(char),
    };
    match code {
        KEEP => Fold::Keep,
        DROP => Fold::Drop(Step::Invisible),
        MARK => Fold::Drop(Step::Unicode),
        OTHER_MARK => Fold::Mark,
        TEXT => Fold::Text,
        byte => Fold::Ascii(byte),
    }
}

fn code(char: char) -> u8 {
    if char.is_ascii() || matches!(char as u32, 0x3041..=0x30ff | 0x3400..=0x9fff | 0xac00..=0xd7a3) {
        return KEEP;
    }
    if invisible(char) {
        return DROP;
    }
    if combining(char) {
        return MARK;
    }
    if char.is_whitespace() || matches!(char, '\u{180e}' | '\u{2800}') {
        return b' ';
    }
    let text = compatible(char);
    match text.as_bytes() {
        [byte] => *byte,
        [] => MARK,
        _ if is_combining_mark(char) => OTHER_MARK,
        _ if text.chars().eq([char]) || text.len() > 12 => KEEP,
        _ => TEXT,
    }
}

/// Characters without shape or width. Source: Unicode `Default_Ignorable_Code_Point`, and the interlinear ones.
fn invisible(char: char) -> bool {
    matches!(char as u32,
        0xad | 0x34f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f | 0x200b..=0x200f | 0x202a..=0x202e
        | 0x2060..=0x206f | 0x3164 | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a
        | 0x80..=0x84 | 0x86..=0x9f)
}

/// Most bytes of marks on one letter that are looked over.
const MARKS: usize = 32;
const _: () = assert!(MARKS < BACK);

/// Do the bytes end in a letter or digit of ASCII, with or without marks on it?
fn on_latin(before: &[u8]) -> bool {
    let end = &before[before.len().saturating_sub(MARKS)..];
    let letters = end.utf8_chunks().last().filter(|chunk| chunk.invalid().is_empty());
    let base = letters.and_then(|chunk| chunk.valid().chars().rev().find(|char| !is_combining_mark(*char)));
    base.is_some_and(|char| char.is_ascii_alphanumeric())
}

/// Marks that are put on Latin letters. Those of other scripts are letters of theirs, unless they stand on a Latin one.
fn combining(char: char) -> bool {
    matches!(char as u32, 0x300..=0x36f | 0x483..=0x489 | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff | 0x20d0..=0x20ff | 0xfe20..=0xfe2f)
}

/// The compatibility form without marks, each character replaced by the ASCII one it looks like.
fn compatible(char: char) -> String {
    if let Some(letter) = framed(char) {
        return letter.to_string();
    }
    let plain: String = char.nfkd().filter(|char| !combining(*char)).collect();
    if plain.is_empty() || plain.chars().any(is_combining_mark) {
        return std::iter::once(char).nfkc().collect();
    }
    plain.chars().map(look_alike).collect()
}

/// Letters in frames that have no compatibility form: negative circled and squared, regional indicators.
fn framed(char: char) -> Option<char> {
    let number = char as u32;
    let first = [0x1f150, 0x1f170, 0x1f1e6].into_iter().find(|first| (*first..first + 26).contains(&number))?;
    char::from_u32(u32::from(b'A') + number - first)
}

fn look_alike(char: char) -> char {
    if char.is_ascii() {
        return char;
    }
    let mut utf8 = [0; 4];
    let mut skeleton = unicode_security::confusable_detection::skeleton(char.encode_utf8(&mut utf8));
    match (skeleton.next(), skeleton.next(), skeleton.next()) {
        // The table takes I, l and 1 for one, and O and 0; the letter's own case tells which is meant.
        (Some('l'), None, None) if char.is_uppercase() => 'I',
        (Some('O'), None, None) if char.is_numeric() => '0',
        // It writes m as rn.
        (Some('r'), Some('n'), None) => 'm',
        (Some(plain), None, None) if plain.is_ascii_graphic() => plain,
        _ => char,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Turn, ViewKind, unescape::tests::all};

    #[test]
    fn what_stays_is_kept() {
        let bytes =
            [0x41, 0x80, 0x8b, 0xa4, 0xbf, 0xc2, 0xc3, 0xcc, 0xd0, 0xd7, 0xdf, 0xe0, 0xe2, 0xef, 0xf0, 0xf3, 0xf4];
        let mut stay = 0;
        for number in 0..bytes.len().pow(4) {
            let text: Vec<u8> = (0..4).map(|place| bytes[number / bytes.len().pow(place) % bytes.len()]).collect();
            for text in (1..=4).map(|length| &text[..length]) {
                if text[0] >= 0x80 && super::stays(text) {
                    stay += 1;
                    for before in [&b""[..], b"a"] {
                        assert!(matches!(super::turn(before, text, true), Turn::Keep(_)), "{text:x?}");
                    }
                }
            }
        }
        assert!(stay > 1000);
    }

    #[test]
    fn what_looks_the_same_reads_the_same() {
        for (text, plain) in [
            ("ig\u{200b}no\u{ad}re", "ignore"),
            ("ｉｇｎｏｒｅ", "ignore"),
            ("іgnоrе", "ignore"),
            ("𝐢𝐠𝐧𝐨𝐫𝐞 𝒂𝓵𝔩", "ignore all"),
            ("i\u{301}gn\u{336}ore", "ignore"),
            ("café ﬁne", "cafe fine"),
            ("\u{1b}[31mred\u{1b}[0m\u{8}", "red"),
            ("🅸🅶🅽🅾🆁🅴 ⓘⓖ", "IGNORE ig"),
            ("忽略 指令 が ガ 무시", "忽略 指令 が ガ 무시"),
            ("a\u{a0}b\u{2003}c", "a b c"),
            ("x\u{e0069}\u{e0067}\u{e006e}", "xign"),
            ("x\u{e0069}y\u{fe0f}", "xy"),
            ("ΑКІА", "AKIA"),
            ("नमस्ते", "नमस्ते"),
            ("i\u{5b0}\u{64b}gno\u{93c}re שָׁ", "ignore שָׁ"),
        ] {
            assert_eq!(all(ViewKind::Fold, text), plain, "{text}");
        }
    }
}
