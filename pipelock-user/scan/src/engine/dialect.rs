//! A checked pattern in vectorscan's dialect, shortened to what finds the same matches at less cost. Called by
//! [`super::vector`].
//!
//! Vectorscan only has to say *that* a match begins before some offset; the regex says where it lies. So optional ends are
//! cut off: of `key-[a-z]{20,200}` it gets `key-[a-z]{20}`, which ends once and not 181 times. For every match there is
//! then still a report inside it, which is all that [`super::confirm`] relies on.

use std::fmt::Write as _;

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};
use regex_syntax::utf8::Utf8Sequences;

use super::sparse::has_word;

/// The pattern text for vectorscan.
pub(super) fn of(hir: &Hir) -> String {
    let short = shortened(hir).filter(never_empty);
    let short = short.as_ref().unwrap_or(hir);
    let mut text = String::new();
    print(ending(short).as_ref().unwrap_or(short), &mut text);
    text
}

/// Bytes that vectorscan looks back at from a word that it found. What is behind a gap that goes farther back it has to follow
/// through every byte, whenever what stands before the gap is there.
const HISTORY: usize = 110;
/// What makes a gap: how many bytes more or less there may be, and of how many kinds.
const GAP: usize = 20;
const KINDS: usize = 32;
/// Bytes of a word that is rare enough to be looked for alone.
const RARE: usize = 5;

/// The end of a pattern that has a gap farther back than that, with a word in every match of it: the regex decides, which begins
/// before. `None` for any other.
fn ending(hir: &Hir) -> Option<Hir> {
    let HirKind::Concat(parts) = hir.kind() else { return None };
    let most =
        |parts: &[Hir]| parts.iter().map(|part| part.properties().maximum_len().unwrap_or(usize::MAX >> 16)).sum();
    let from = (0..parts.len()).find(|from| parts.get(*from..).map_or(0, most) <= HISTORY)?;
    let (before, end) = parts.split_at_checked(from)?;
    let end = Hir::concat(end.to_vec());
    (before.iter().any(is_gap) && never_empty(&end) && has_word(&end, RARE)).then_some(end)
}

fn is_gap(hir: &Hir) -> bool {
    let HirKind::Repetition(repeat) = hir.kind() else { return false };
    let kinds: usize = match repeat.sub.kind() {
        HirKind::Class(Class::Bytes(class)) => class.iter().map(|range| range.len()).sum(),
        HirKind::Class(Class::Unicode(class)) => class.iter().map(|range| range.len()).sum(),
        _ => 0,
    };
    kinds >= KINDS && repeat.max.is_none_or(|most| (most - repeat.min) as usize >= GAP)
}

/// The text of the pattern's beginning, about `bytes` long: for patterns that are too large as a whole. It is found more
/// often, and inside every match all the same.
pub(super) fn beginning_of(hir: &Hir, bytes: usize) -> String {
    let mut left = bytes;
    let (cut, _) = cut(hir, &mut left);
    if never_empty(&cut) { of(&cut) } else { of(hir) }
}

/// The same pattern text without `\b` and `\B`. A backslash that is meant is written `\x5c`, so none is mistaken.
pub(super) fn without_assertions(text: &str) -> String {
    text.replace(r"\b", "").replace(r"\B", "")
}

fn never_empty(hir: &Hir) -> bool {
    hir.properties().minimum_len().is_some_and(|least| least > 0)
}

/// The beginning that `left` bytes are enough for, and whether it is the whole.
fn cut(hir: &Hir, left: &mut usize) -> (Hir, bool) {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => (hir.clone(), true),
        HirKind::Literal(_) | HirKind::Class(_) => {
            let whole = *left > 0;
            *left = left.saturating_sub(hir.properties().maximum_len().unwrap_or(1));
            if whole { (hir.clone(), true) } else { (Hir::empty(), false) }
        }
        HirKind::Repetition(repeat) => {
            let each = repeat.sub.properties().maximum_len().unwrap_or(1).max(1);
            let most = repeat.max.unwrap_or(repeat.min) as usize;
            if each * most <= *left {
                *left -= each * most;
                return (hir.clone(), true);
            }
            let count = repeat.min.min(((*left / each) as u32).max(1));
            *left = 0;
            if repeat.min == 0 {
                return (Hir::empty(), false);
            }
            (Hir::repetition(Repetition { min: count, max: Some(count), sub: repeat.sub.clone(), ..*repeat }), false)
        }
        HirKind::Capture(capture) => cut(&capture.sub, left),
        HirKind::Concat(parts) => {
            let mut kept = Vec::new();
            for part in parts {
                let (part, whole) = cut(part, left);
                kept.push(part);
                if !whole {
                    return (Hir::concat(kept), false);
                }
            }
            (Hir::concat(kept), true)
        }
        HirKind::Alternation(parts) => {
            let (mut kept, mut all, mut least) = (Vec::new(), true, *left);
            for part in parts {
                let mut own = *left;
                let (part, whole) = cut(part, &mut own);
                kept.push(part);
                all &= whole;
                least = least.min(own);
            }
            *left = least;
            (Hir::alternation(kept), all)
        }
    }
}

/// The pattern without what its end may lack; `None` when nothing is left.
fn shortened(hir: &Hir) -> Option<Hir> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => None,
        HirKind::Literal(_) | HirKind::Class(_) => Some(hir.clone()),
        HirKind::Repetition(repeat) => (repeat.min > 0)
            .then(|| Hir::repetition(Repetition { max: Some(repeat.min), sub: repeat.sub.clone(), ..*repeat })),
        HirKind::Capture(capture) => shortened(&capture.sub),
        HirKind::Concat(parts) => {
            let mut parts = parts.clone();
            while let Some(last) = parts.pop() {
                if let Some(short) = shortened(&last) {
                    parts.push(short);
                    return Some(Hir::concat(parts));
                }
            }
            None
        }
        HirKind::Alternation(parts) => parts.iter().map(shortened).collect::<Option<Vec<_>>>().map(Hir::alternation),
    }
}

fn print(hir: &Hir, out: &mut String) {
    match hir.kind() {
        HirKind::Empty => out.push_str("(?:)"),
        HirKind::Literal(literal) => literal.0.iter().for_each(|&byte| print_byte(byte, out)),
        HirKind::Class(Class::Bytes(class)) => {
            out.push('[');
            for range in class.iter() {
                print_range(range.start(), range.end(), out);
            }
            out.push(']');
        }
        HirKind::Class(Class::Unicode(class)) => {
            let sequences = class.iter().flat_map(|range| Utf8Sequences::new(range.start(), range.end()));
            joined(sequences, out, |sequence, out| {
                for range in sequence.as_slice() {
                    out.push('[');
                    print_range(range.start, range.end, out);
                    out.push(']');
                }
            });
        }
        HirKind::Look(look) => out.push_str(match look {
            // Vectorscan takes these in some places only. Without them it reports more, and the regex decides.
            Look::Start | Look::End | Look::StartLF | Look::EndLF => "",
            Look::WordAsciiNegate | Look::WordUnicodeNegate => r"\B",
            _ => r"\b",
        }),
        HirKind::Repetition(repeat) => {
            out.push_str("(?:");
            print(&repeat.sub, out);
            // A pattern without an upper bound is refused when it is read.
            let _ = write!(out, "){{{},{}}}", repeat.min, repeat.max.unwrap_or(repeat.min));
        }
        HirKind::Capture(capture) => joined([&*capture.sub], out, print),
        HirKind::Concat(parts) => parts.iter().for_each(|part| print(part, out)),
        HirKind::Alternation(parts) => joined(parts, out, print),
    }
}

fn joined<T>(parts: impl IntoIterator<Item = T>, out: &mut String, print: impl Fn(T, &mut String)) {
    out.push_str("(?:");
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            out.push('|');
        }
        print(part, out);
    }
    out.push(')');
}

fn print_range(start: u8, end: u8, out: &mut String) {
    print_byte(start, out);
    if end > start {
        out.push('-');
        print_byte(end, out);
    }
}

fn print_byte(byte: u8, out: &mut String) {
    if byte.is_ascii_alphanumeric() {
        out.push(char::from(byte));
    } else {
        let _ = write!(out, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use crate::rule::Pattern;

    fn dialect(pattern: &str) -> String {
        super::of(Pattern::new(pattern).unwrap().hir())
    }

    #[test]
    fn a_beginning_is_inside_every_match() {
        let pattern = Pattern::new("(?:ab|c)[^x]{1,300}(?:d|e)f").unwrap();
        assert_eq!(super::beginning_of(pattern.hir(), 64), r"(?:ab|c)[\x00-wy-\xff]");
        assert_eq!(super::beginning_of(pattern.hir(), 1000), super::of(pattern.hir()));
    }

    #[test]
    fn optional_ends_are_cut_off() {
        assert_eq!(dialect("key-[a-z]{20,200}"), r"key\x2d(?:[a-z]){20,20}");
        assert_eq!(dialect(r"ab(?:c|de)?(?:$|[^a-z])"), "ab(?:c|de)?(?:$|[^a-z])".replace("(?:c|de)?(?:$|[^a-z])", ""));
        assert_eq!(dialect("(?i)k1"), "[Kk]1");
        assert_eq!(dialect("é"), r"\xc3\xa9");
    }
}
