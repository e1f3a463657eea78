//! Patterns: one parsed form from which the confirming regex, vectorscan's pattern and the hold-back automaton are all
//! made, so that they cannot differ in what they mean. Called by `super::raw` and `crate::engine`.
//!
//! Promises: matches are between 1 and [`MAX_LENGTH`] bytes long. Patterns see bytes: case folds within ASCII, and a
//! class that is said by what it leaves out (`[^\n]`) takes any one byte outside ASCII, valid UTF-8 or not; so a secret
//! behind a broken character is found, and a repeat of such a class counts bytes.

use std::sync::{Arc, OnceLock};

use regex_automata::meta::Regex;
use regex_syntax::hir::Hir;

use super::language;
pub use super::language::MAX_LENGTH;

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
        let (hir, longest, groups) = language::checked(source)?;
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
        self.hir.get_or_init(|| language::parse(&self.source).unwrap_or_else(|_| Hir::fail()))
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
