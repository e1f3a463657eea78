//! The language of patterns: regex syntax without what vectorscan or a stream could not follow, turned into bytes. Called by
//! [`super::pattern`], and by the build script for the shipped rules.

use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, ClassUnicode, Hir, HirKind, Look, Repetition};

/// The longest match, in bytes.
pub const MAX_LENGTH: usize = 2048;
const MAX_REPEAT: u32 = MAX_LENGTH as u32;

/// The pattern over bytes, the length of its longest match and the number of its groups.
///
/// # Errors
/// Says what is outside the language.
pub(crate) fn checked(source: &str) -> Result<(Hir, usize, usize), String> {
    let hir = parse(source)?;
    let properties = hir.properties();
    if properties.minimum_len().is_none_or(|least| least == 0) {
        return Err("the pattern matches the empty text".into());
    }
    let longest = properties.maximum_len().ok_or("a repeat has no upper bound: write {m,n}")?;
    if longest > MAX_LENGTH {
        return Err(format!("a match may be {longest} bytes long, more than {MAX_LENGTH}"));
    }
    let groups = properties.explicit_captures_len();
    Ok((hir, longest, groups))
}

/// The pattern over bytes.
pub(crate) fn parse(source: &str) -> Result<Hir, String> {
    let hir =
        regex_syntax::ParserBuilder::new().utf8(false).build().parse(source).map_err(|error| error.to_string())?;
    bytes_of(&hir)
}

/// The same pattern over bytes, or why it is outside the language.
fn bytes_of(hir: &Hir) -> Result<Hir, String> {
    Ok(match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) => hir.clone(),
        HirKind::Class(Class::Bytes(_)) => hir.clone(),
        HirKind::Class(Class::Unicode(class)) => Hir::class(class_of(class)),
        HirKind::Look(look) => Hir::look(match look {
            Look::Start | Look::End | Look::StartLF | Look::EndLF | Look::WordAscii | Look::WordAsciiNegate => *look,
            Look::WordUnicode => Look::WordAscii,
            Look::WordUnicodeNegate => Look::WordAsciiNegate,
            _ => return Err("of the assertions only ^ $ \\b \\B are in the language".into()),
        }),
        HirKind::Repetition(repeat) => {
            if repeat.max.is_none_or(|max| max > MAX_REPEAT) {
                return Err(format!("every repeat is bounded: {{m,n}} with n at most {MAX_REPEAT}"));
            }
            if !repeat.greedy {
                return Err("lazy repeats are outside the language".into());
            }
            Hir::repetition(Repetition { sub: Box::new(bytes_of(&repeat.sub)?), ..repeat.clone() })
        }
        HirKind::Capture(capture) => {
            let mut capture = capture.clone();
            capture.sub = Box::new(bytes_of(&capture.sub)?);
            Hir::capture(capture)
        }
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(bytes_of).collect::<Result<_, _>>()?),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(bytes_of).collect::<Result<_, _>>()?),
    })
}

fn class_of(class: &ClassUnicode) -> Class {
    let mut class = class.clone();
    // Case folding adds the Kelvin sign to k and the long s to s; the folding view maps both, patterns stay in ASCII.
    for (ascii, other) in [('k', '\u{212a}'), ('s', '\u{17f}')] {
        let has = |wanted: char| class.iter().any(|range| (range.start()..=range.end()).contains(&wanted));
        if has(ascii) && class.iter().any(|range| range.start() == other && range.end() == other) {
            class.difference(&ClassUnicode::new([regex_syntax::hir::ClassUnicodeRange::new(other, other)]));
        }
    }
    let all_others = class.ranges().last().is_some_and(|range| range.end() == char::MAX);
    let ascii_only = class.iter().all(|range| range.end() < '\u{80}');
    if !all_others && !ascii_only {
        return Class::Unicode(class);
    }
    let mut bytes = ClassBytes::empty();
    for range in class.iter().filter(|range| range.start() < '\u{80}') {
        let end = (range.end() as u32).min(0x7f) as u8;
        bytes.push(ClassBytesRange::new(range.start() as u8, end));
    }
    if all_others {
        bytes.push(ClassBytesRange::new(0x80, 0xff));
    }
    Class::Bytes(bytes)
}
