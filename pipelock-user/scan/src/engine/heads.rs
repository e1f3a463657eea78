//! The words that patterns begin with, and where they are near a text's end: a match can have begun only where one is. Called by
//! [`super::holdback`].
//!
//! Promises: every beginning of a match either holds the first word of its pattern, which [`Finder::each`] reports, or is no
//! longer than [`Finder::begun`] says.

use aho_corasick::{AhoCorasick, MatchKind};
use regex_syntax::hir::literal::{ExtractKind, Extractor};
use regex_syntax::hir::{Class, Hir, HirKind};

/// Least bytes of a word, and the most that are looked for.
const LEAST: usize = 3;
const MOST: usize = 6;
/// Most words of a pattern, upper and lower case counted.
const WORDS: usize = 300;
/// Most groups that are told apart.
const GROUPS: usize = 127;

/// What a pattern begins with.
#[derive(Debug)]
pub(super) struct Head {
    /// Bytes that may stand before the word and are of the match: one, or none.
    guard: Option<[bool; 256]>,
    words: Vec<Vec<u8>>,
}

impl Head {
    /// Of a pattern; `None` when it begins with no word.
    pub(super) fn of(hir: &Hir) -> Option<Self> {
        let mut parts = Vec::new();
        flatten(hir, &mut parts);
        let mut guard = [false; 256];
        let mut guards = 0;
        while let Some(part) = parts.get(guards) {
            let mut bytes = [false; 256];
            if !is_guard(part, &mut bytes) {
                break;
            }
            let takes = bytes.contains(&true);
            if takes && guard.contains(&true) {
                break;
            }
            if takes {
                guard = bytes;
            }
            guards += 1;
        }
        let rest = Hir::concat(parts.get(guards..)?.iter().map(|part| (*part).clone()).collect());
        let mut extractor = Extractor::new();
        extractor.kind(ExtractKind::Prefix).limit_literal_len(MOST).limit_total(WORDS);
        let words: Vec<Vec<u8>> =
            extractor.extract(&rest).literals()?.iter().map(|word| word.as_bytes().to_vec()).collect();
        let long = !words.is_empty() && words.iter().all(|word| word.len() >= LEAST);
        long.then(|| Self { guard: Some(guard).filter(|guard| guard.contains(&true)), words })
    }
}

fn flatten<'h>(hir: &'h Hir, parts: &mut Vec<&'h Hir>) {
    match hir.kind() {
        HirKind::Concat(inner) => inner.iter().for_each(|part| flatten(part, parts)),
        HirKind::Capture(capture) => flatten(&capture.sub, parts),
        _ => parts.push(hir),
    }
}

/// Is it an assertion, one byte or either? Notes which bytes.
fn is_guard(hir: &Hir, bytes: &mut [bool; 256]) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        // One of few is a letter of a word.
        HirKind::Class(Class::Bytes(class)) if class.iter().map(|range| range.len()).sum::<usize>() > 8 => {
            class
                .iter()
                .for_each(|range| (range.start()..=range.end()).for_each(|byte| bytes[usize::from(byte)] = true));
            true
        }
        HirKind::Capture(capture) => is_guard(&capture.sub, bytes),
        HirKind::Repetition(repeat) if repeat.max == Some(1) => is_guard(&repeat.sub, bytes),
        HirKind::Alternation(parts) => parts.iter().all(|part| is_guard(part, bytes)),
        _ => false,
    }
}

/// Finds the words of many patterns.
#[derive(Debug)]
pub(super) struct Finder {
    words: AhoCorasick,
    /// Of each word the group of its pattern.
    groups: Vec<usize>,
    /// All words in order, with whether a byte before them may belong to the match.
    sorted: Vec<(Vec<u8>, bool)>,
    /// Bytes that may stand before a word.
    guards: [bool; 256],
}

impl Finder {
    /// For the heads of patterns of these groups; `None` when there are too many.
    pub(super) fn new(heads: &[(&Head, usize)]) -> Option<Self> {
        let mut words = Vec::new();
        let mut groups = Vec::new();
        let mut sorted = Vec::new();
        let mut guards = [false; 256];
        for (head, group) in heads {
            if *group >= GROUPS {
                return None;
            }
            for word in &head.words {
                words.push(word.clone());
                groups.push(*group);
                sorted.push((word.clone(), head.guard.is_some()));
            }
            for (known, own) in guards.iter_mut().zip(head.guard.iter().flatten()) {
                *known |= own;
            }
        }
        sorted.sort();
        sorted.dedup();
        let words = AhoCorasick::builder().match_kind(MatchKind::Standard).build(words).ok()?;
        Some(Self { words, groups, sorted, guards })
    }

    /// Calls `found` for each word in `text` with its group and how many bytes there are from it to the end.
    pub(super) fn each(&self, text: &[u8], mut found: impl FnMut(usize, usize)) {
        for word in self.words.find_overlapping_iter(text) {
            if let Some(group) = self.groups.get(word.pattern().as_usize()) {
                found(*group, text.len() - word.start());
            }
        }
    }

    /// Bytes at the end of `text` that may be the beginning of a match which has not all of its first word.
    pub(super) fn begun(&self, text: &[u8]) -> usize {
        let guard = usize::from(text.last().is_some_and(|byte| self.guards[usize::from(*byte)]));
        for length in (1..MOST.min(text.len() + 1)).rev() {
            let (before, end) = text.split_at(text.len() - length);
            let from = self.sorted.partition_point(|(word, _)| word.as_slice() < end);
            let begun = |(word, _): &&(Vec<u8>, bool)| word.starts_with(end);
            let mut begun = self.sorted.get(from..).unwrap_or_default().iter().take_while(begun).peekable();
            if begun.peek().is_some() {
                let guarded = before.last().is_some_and(|byte| self.guards[usize::from(*byte)]);
                return length + usize::from(guarded && begun.any(|(_, guarded)| *guarded));
            }
        }
        guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(pattern: &str) -> Option<Head> {
        Head::of(&regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern).unwrap())
    }

    #[test]
    fn patterns_begin_with_words() {
        let words = |pattern| head(pattern).map(|head| (head.words.len(), head.guard.is_some()));
        assert_eq!(words("(?:^|[^0-9a-z])(ghp_[0-9a-z]{36})"), Some((1, true)));
        assert_eq!(words("sk-(?:ant|or)-[a-z]+"), Some((2, false)));
        assert_eq!(words("(?i)send [^.]{0,40} password"), Some((16, false)));
        assert_eq!(words("[0-9]{3}-[0-9]{4}"), None);
        assert_eq!(words("x?abcd"), Some((2, false)));
    }

    #[test]
    fn words_and_their_beginnings_are_found() {
        let heads = ["(?:^|[^0-9a-z])ghp_[0-9a-z]{36}", "sk-ant[a-z]+"].map(|pattern| head(pattern).unwrap());
        let finder = Finder::new(&[(&heads[0], 0), (&heads[1], 1)]).unwrap();
        for (text, begun) in
            [("-gh", 3), ("xgh", 2), ("-sk-", 3), ("sk-ant", 0), ("a-", 1), ("ab", 0), ("", 0), ("g", 1)]
        {
            assert_eq!(finder.begun(text.as_bytes()), begun, "{text}");
        }
        let mut found = Vec::new();
        finder.each(b"ghp_sk-antx", |group, length| found.push((group, length)));
        assert_eq!(found, [(0, 11), (1, 7)]);
    }
}
