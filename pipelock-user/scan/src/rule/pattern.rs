//! Patterns: one parsed form from which the confirming regex, vectorscan's pattern and the hold-back automaton are all
//! made, so that they cannot differ in what they mean. Called by `super::raw` and `crate::engine`.
//!
//! Promises: matches are between 1 and [`MAX_LENGTH`] bytes long. Patterns see bytes: case folds within ASCII, and a
//! class that is said by what it leaves out (`[^\n]`) takes any one byte outside ASCII, valid UTF-8 or not; so a secret
//! behind a broken character is found, and a repeat of such a class counts bytes.

use std::sync::{Arc, OnceLock};

use regex_automata::meta::Regex;
use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, ClassUnicode, Hir, HirKind, Look, Repetition};

/// The longest match, in bytes.
pub const MAX_LENGTH: usize = 2048;
const MAX_REPEAT: u32 = MAX_LENGTH as u32;

/// A checked pattern.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: Arc<str>,
    hir: Arc<OnceLock<Hir>>,
    regex: Arc<OnceLock<Option<Regex>>>,
    longest: usize,
    groups: usize,
}

impl Pattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// Says what is outside the language.
    pub fn new(source: &str) -> Result<Self, String> {
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
        let pattern = Self::stored(source, longest, groups);
        let _ = pattern.hir.set(hir);
        Ok(pattern)
    }

    /// A pattern that an earlier [`new`](Self::new) accepted: parsed only when it is needed.
    pub(crate) fn stored(source: &str, longest: usize, groups: usize) -> Self {
        Self { source: source.into(), hir: Arc::default(), regex: Arc::default(), longest, groups }
    }

    /// As it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Bytes of its longest match.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// How many capture groups it has.
    pub fn groups(&self) -> usize {
        self.groups
    }

    pub(crate) fn hir(&self) -> &Hir {
        self.hir.get_or_init(|| parse(&self.source).unwrap_or_else(|_| Hir::fail()))
    }

    /// The regex that says exactly where a match lies; made when it is first needed, as most rules never match.
    /// `None` is a pattern too large for the regex crate, which the tests of the shipped rules exclude.
    pub(crate) fn regex(&self) -> Option<&Regex> {
        self.regex.get_or_init(|| build(self.hir()).ok()).as_ref()
    }

    /// Checks that the regex can be built. Slow: for rules from outside and for tests.
    ///
    /// # Errors
    /// When the regex crate finds it too large.
    pub fn check_size(&self) -> Result<(), String> {
        self.regex().map(drop).ok_or_else(|| "the pattern is too large".into())
    }
}

fn build(hir: &Hir) -> Result<Regex, String> {
    let config = Regex::config()
        .utf8_empty(false)
        .nfa_size_limit(Some(16 << 20))
        .hybrid_cache_capacity(1 << 20)
        // One is built per rule: a full DFA would cost more than it gives.
        .dfa(false);
    Regex::builder().configure(config).build_from_hir(hir).map_err(|error| error.to_string())
}

fn parse(source: &str) -> Result<Hir, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_the_language_is_refused() {
        for wrong in ["a*", "a+?", "(?:a?){0,3}", "a{2,3000}", "(?:ab{1,1024}){3}", "x{2,3}?", r"\b{start}a", "("] {
            assert!(Pattern::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn classes_become_bytes() {
        let pattern = Pattern::new(r"(?i)sk[^\n]{2}\b").unwrap();
        assert_eq!(pattern.longest(), 4);
        let regex = pattern.regex().unwrap();
        assert!(regex.is_match(&b"SK\xff\xc3a"[..]) || regex.is_match(&b"SK\xffa "[..]));
        assert!(!regex.is_match("s\u{212a}ab"));
        assert!(Pattern::new("[忽略]{2}指令").unwrap().regex().unwrap().is_match("请忽略指令"));
    }
}
