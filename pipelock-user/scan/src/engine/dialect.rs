//! A checked pattern in vectorscan's dialect, shortened to what finds the same matches at less cost. Called by
//! [`super::vector`].
//!
//! Vectorscan only has to say *that* a match begins before some offset; the regex says where it lies. So optional ends are
//! cut off: of `key-[a-z]{20,200}` it gets `key-[a-z]{20}`, which ends once and not 181 times. For every match there is
//! then still a report inside it, which is all that [`super::confirm`] relies on.

use std::fmt::Write as _;

use regex_syntax::hir::{Class, Hir, HirKind, Look, Repetition};
use regex_syntax::utf8::Utf8Sequences;

/// The pattern text for vectorscan.
pub(super) fn of(hir: &Hir) -> String {
    let short = shortened(hir).filter(|hir| hir.properties().minimum_len().is_some_and(|least| least > 0));
    let mut text = String::new();
    print(short.as_ref().unwrap_or(hir), &mut text);
    text
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
            Look::Start => "^",
            Look::End => r"\z",
            Look::StartLF => "(?m:^)",
            Look::EndLF => "(?m:$)",
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
    fn optional_ends_are_cut_off() {
        assert_eq!(dialect("key-[a-z]{20,200}"), r"key\x2d(?:[a-z]){20,20}");
        assert_eq!(dialect(r"ab(?:c|de)?(?:$|[^a-z])"), "ab(?:c|de)?(?:$|[^a-z])".replace("(?:c|de)?(?:$|[^a-z])", ""));
        assert_eq!(dialect("(?i)k1"), "[Kk]1");
        assert_eq!(dialect("é"), r"\xc3\xa9");
    }
}
