//! Words without which a match is none, of patterns that begin with no word: what their matches begin with stands anywhere, so
//! whoever knows what comes next asks for the words first. Called by [`super::holdback`].
//!
//! Promises: where neither [`Awaited::is_in`] the texts before and behind a place nor [`Awaited::joins`] them, no match of these
//! patterns holds bytes of both.

use aho_corasick::AhoCorasick;

use crate::bits::Pairs;
use crate::rule::Rule;

/// Least letters and digits of a word that does not stand in noise; one less will do with a sign among them.
const LEAST: usize = 3;

/// The words of some rules.
#[derive(Debug)]
pub(super) struct Awaited {
    words: AhoCorasick,
    /// Two bytes side by side in a word, in lower case.
    inside: Pairs,
}

impl Awaited {
    /// Has a rule [keywords](Rule::keywords), one of which is in every match in upper or lower case, and stand none of them in noise?
    pub(super) fn is_worth(rule: &Rule) -> bool {
        let is_rare = |word: &String| {
            let is_name = word.bytes().all(|byte| byte.is_ascii_alphanumeric());
            word.len() >= if is_name { LEAST } else { LEAST - 1 }
        };
        !rule.keywords.is_empty() && rule.keywords.iter().all(is_rare)
    }

    /// Of rules that are worth it.
    pub(super) fn of<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Option<Self> {
        let words: Vec<&str> = rules.into_iter().flat_map(|rule| &rule.keywords).map(String::as_str).collect();
        let inside = Pairs::of(words.iter().flat_map(|word| word.as_bytes().windows(2)).map(|pair| [pair[0], pair[1]]));
        let words = AhoCorasick::builder().ascii_case_insensitive(true).build(words).ok()?;
        Some(Self { words, inside })
    }

    /// Is a word in a text?
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        self.words.is_match(text)
    }

    /// May a word begin at the end of `old` and go on in `new`?
    pub(super) fn joins(&self, old: &[u8], new: &[u8]) -> bool {
        let (Some(last), Some(first)) = (old.last(), new.first()) else { return false };
        self.inside.has([last.to_ascii_lowercase(), first.to_ascii_lowercase()])
    }
}
