//! Secrets in one value whose pieces nothing but separators parts: two cookies, two lines, a list. Called by [`super::door`]; what is
//! found in pieces put together is judged in [`super::joined`].
//!
//! Whoever sends the value chooses what stands between the pieces and before them, so no word is left out for its place: all that may be
//! noise is put together once, and what begins as a token does once more by itself, since tokens begin at the beginning of a word.
//! Promises: what is put together is at most three times as long as the value.

use std::ops::Range;

use super::joined::is_mixed;
use crate::bits::Pairs;
use crate::engine::EngineError;
use crate::finding::Finding;
use crate::rule::{Rule, shows};
use crate::scanner::Scanner;
use crate::stream::Stream;

/// Least bytes of a word that may be a piece whatever stands around it, and of one that stands right behind another.
const LEAST: usize = 5;
const LEAST_BEHIND: usize = 3;
/// Bytes of the shortest prefix that is looked for, and of the longest.
const SHORTEST: usize = 3;
const LONGEST: usize = 24;

/// What tokens begin with.
#[derive(Debug)]
pub(crate) struct Prefixes {
    /// In lower case and in order.
    words: Vec<String>,
    /// The first two bytes of each: most words have others.
    first: Pairs,
}

impl Prefixes {
    fn of(rules: &[Rule]) -> Self {
        let telling = rules.iter().filter(|rule| rule.is_telling()).flat_map(|rule| &rule.keywords);
        let mut words: Vec<String> =
            telling.filter(|word| (SHORTEST..=LONGEST).contains(&word.len())).cloned().collect();
        words.sort_unstable();
        words.dedup();
        let first = Pairs::of(words.iter().filter_map(|word| word.as_bytes().first_chunk().copied()));
        Self { words, first }
    }

    /// Does a text begin as tokens do?
    fn begin(&self, text: &[u8]) -> bool {
        let Some([first, second]) = text.first_chunk() else { return false };
        if !self.first.has([first.to_ascii_lowercase(), second.to_ascii_lowercase()]) {
            return false;
        }
        let lower: String = text.iter().take(LONGEST).map(|byte| char::from(byte.to_ascii_lowercase())).collect();
        let known = |length: usize| lower.get(..length).is_some_and(|word| self.has(word) && shows(text, word));
        (SHORTEST..=lower.len()).any(known)
    }

    fn has(&self, word: &str) -> bool {
        self.words.binary_search_by(|known| known.as_str().cmp(word)).is_ok()
    }
}

/// A word of a value, between separators.
struct Word<'v> {
    text: &'v [u8],
    /// `part1: `, `"key": `, `a=`.
    is_label: bool,
}

impl Word<'_> {
    /// May it be a piece of a token? Words of a language are none: noise has digits, or capitals within.
    fn is_noise(&self) -> bool {
        self.text.iter().any(u8::is_ascii_digit) || self.text.iter().skip(1).any(u8::is_ascii_uppercase)
    }

    fn is_piece(&self) -> bool {
        self.text.len() >= LEAST && self.text.is_ascii() && self.is_noise()
    }

    /// Is it a piece of what a word before it began, with nothing between? There shorter ones are, though no numbers and dates.
    fn goes_on(&self) -> bool {
        let in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-./+=~".contains(byte);
        self.text.len() >= LEAST_BEHIND
            && self.text.iter().all(in_token)
            && self.text.iter().any(u8::is_ascii_alphabetic)
            && self.is_noise()
    }
}

fn is_apart(byte: &u8) -> bool {
    byte.is_ascii_whitespace() || b"\"'`=:,;<>()[]{}|&".contains(byte)
}

fn words(value: &[u8]) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.get(rest.iter().take_while(|byte| is_apart(byte)).count()..).unwrap_or_default();
        let (text, behind) = rest.split_at(rest.iter().position(is_apart).unwrap_or(rest.len()));
        if text.is_empty() {
            return words;
        }
        let mark = behind.iter().find(|byte| !b" \t\"'`".contains(byte));
        words.push(Word { text, is_label: mark.is_some_and(|mark| matches!(mark, b':' | b'=')) });
        rest = behind;
    }
}

/// Texts put together from words, each followed by a line end.
#[derive(Debug, Default)]
struct Texts {
    text: Vec<u8>,
    /// Where each word lies, and in which of the texts.
    places: Vec<(Range<usize>, usize)>,
    count: usize,
}

impl Texts {
    fn add<'v>(&mut self, words: impl Iterator<Item = &'v Word<'v>>) {
        let from = (self.text.len(), self.places.len());
        for word in words {
            let start = self.text.len();
            self.text.extend_from_slice(word.text);
            self.places.push((start..self.text.len(), self.count));
        }
        let latest = self.places.get(from.1..).unwrap_or_default().iter().map(|(place, _)| place.len());
        let before = self.places.get(..from.1).unwrap_or_default();
        let last = before.last().map_or(0, |(_, number)| *number);
        let others = before.iter().rev().take_while(|(_, number)| *number == last).map(|(place, _)| place.len());
        // A word by itself was read already, and what the last text is as well.
        if latest.len() < 2 || latest.rev().eq(others) && self.same_as_last(from.0) {
            self.text.truncate(from.0);
            self.places.truncate(from.1);
            return;
        }
        self.text.push(b'\n');
        self.count += 1;
    }

    /// Is the text from a place on the same as the one before it?
    fn same_as_last(&self, from: usize) -> bool {
        let new = self.text.get(from..).unwrap_or_default();
        self.text.get(..from).is_some_and(|old| old.strip_suffix(b"\n").is_some_and(|old| old.ends_with(new)))
    }

    /// The places of the words that a finding is in, if they are several.
    fn crosses(&self, finding: &Range<usize>) -> Option<Vec<Range<usize>>> {
        let first = self.places.partition_point(|(place, _)| place.end <= finding.start);
        let inside = self.places.get(first..).unwrap_or_default();
        let inside = inside.iter().take_while(|(place, _)| place.start < finding.end);
        let number = inside.clone().next().map(|(_, number)| *number);
        let is_one = inside.clone().all(|(_, other)| Some(*other) == number);
        let parts: Vec<Range<usize>> = inside.map(|(place, _)| place.clone()).collect();
        (is_one && parts.len() > 1).then_some(parts)
    }
}

impl Scanner {
    /// What words make that stand side by side in a value but for separators, where several of them are part of it.
    pub(super) fn scan_apart(&self, value: &[u8]) -> Result<Vec<Finding>, EngineError> {
        let mut findings = Vec::new();
        let words = words(value);
        if words.len() < 2 {
            return Ok(findings);
        }
        let prefixes = self.core.prefixes.get_or_init(|| Prefixes::of(self.rules().rules()));
        let mut texts = Texts::default();
        texts.add(words.iter().filter(|word| word.is_piece()));
        let begins = |at: &usize| begins(prefixes, words.get(*at..).unwrap_or_default());
        let starts: Vec<(usize, usize)> =
            (0..words.len()).filter_map(|at| begins(&at).map(|count| (at, count))).collect();
        for (number, (start, count)) in starts.iter().enumerate() {
            // What begins a token itself goes on none.
            let end = starts.get(number + 1).map_or(words.len(), |(next, _)| *next);
            let Some((first, rest)) =
                words.get(*start..end.max(start + count)).and_then(|it| it.split_at_checked(*count))
            else {
                continue;
            };
            let first =
                || first.iter().enumerate().filter(|(at, word)| *at == 0 || !word.is_label).map(|(_, word)| word);
            let behind = rest.iter().filter(|word| !word.is_label).take_while(|word| word.goes_on());
            texts.add(first().chain(behind));
            // With words between, which stand in every text, the rest must be noise beyond doubt.
            texts.add(first().chain(rest.iter().filter(|word| word.is_piece() && is_mixed(word.text))));
        }
        if !texts.text.is_empty() {
            let found = Stream::plainly(&self.core)?.finish_with(&texts.text)?;
            let crosses = |place: &Range<usize>| texts.crosses(place);
            self.add_crossing(&texts.text, found, crosses, &(0..value.len() as u64), &mut findings)?;
        }
        Ok(findings)
    }
}

/// How many words are what a token begins with, if the first of them begins one: `glpat-x`, or `gl` and `pat-x`.
fn begins(prefixes: &Prefixes, words: &[Word<'_>]) -> Option<usize> {
    let mut head: Vec<u8> = Vec::with_capacity(LONGEST);
    for (at, word) in words.iter().enumerate().filter(|(at, word)| *at == 0 || !word.is_label) {
        head.extend(word.text.iter().take(LONGEST - head.len()));
        if prefixes.begin(&head) {
            return Some(at + 1);
        }
        let can_begin = match *head {
            [] => false,
            [_] => true,
            [first, second, ..] => prefixes.first.has([first.to_ascii_lowercase(), second.to_ascii_lowercase()]),
        };
        if !can_begin || head.len() >= LONGEST {
            break;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use crate::{RuleSet, Scanner};

    static SCANNER: LazyLock<Scanner> = LazyLock::new(|| Scanner::new(RuleSet::shipped().unwrap(), &[1; 32]).unwrap());

    fn found(value: &str) -> Vec<String> {
        SCANNER.scan_apart(value.as_bytes()).unwrap().iter().map(|found| found.rule.to_string()).collect()
    }

    const GITHUB: [&str; 2] = ["ghp_Pl7kQw2ZnR5tXc9VbM3s", "Jh8DfG1yUa2ya2Qq"];

    #[test]
    fn pieces_are_found_whatever_stands_before_them() {
        let [one, two] = GITHUB;
        for before in
            [String::new(), "a1b2c ".repeat(64), "a1b2c ".repeat(600), "ghp_x1 ".repeat(80), "gh p_x1y ".repeat(99)]
        {
            for value in [
                format!("{before}{one} {two}"),
                format!("{before}\na={one}; b={two}\n"),
                format!("{before}{one}, {two} Zz9"),
            ] {
                assert_eq!(found(&value), ["github-token"], "{value}");
            }
        }
    }

    #[test]
    fn a_word_that_begins_a_token_is_a_piece_however_it_looks() {
        for value in [
            "a: glpat-xk\nb: Zx8Kq1LmN2p3Qw4Er5",
            "part1: glpat-xk\npart2: Zx8Kq1LmN2p3Qw4Er5",
            "{\"x\": \"glpat-xk\", \"y\": \"Zx8Kq1LmN\", \"z\": \"2p3Qw4Er5\"}",
            "glpat-xk Zx8 Kq1L mN2p 3Qw4 Er5t",
            "note, gl pat-xkZx8Kq1L mN2p3Qw4Er5",
            "v1.2.3 glpat-xkZx8Kq1L and then mN2p3Qw4Er5",
        ] {
            assert_eq!(found(value), ["gitlab-token"], "{value}");
        }
    }

    #[test]
    fn what_is_said_of_prefixes_makes_no_token() {
        for value in [
            "Tokens begin with glpat-, ghp_ or xoxb- and some noise, and AKIA is one of keys.",
            "glpat-xyz 2024-01-02 2024-01-03 2024-01-04",
            "a token like glpat-abc and then you may see it on x86_64 and python3 with utf8",
            "glpat-example v12 x86_64 2nd utf8 amd64 win32",
            "keys: sk-ant-, sk-proj-, gsk_; hosts: a1b2c3.example.org, 10.0.0.1; id 3f2a9c1e-77b0-4d51-9a3e-0c5d8e6f1a2b",
            "AKIA 3F2504E04F8941D3 9A0C0305E82C3301",
            "dop_v1_ 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "ghp_ da39a3ee5e6b4b0d3255bfef95601890afd8 2024",
        ] {
            assert_eq!(found(value), [] as [&str; 0], "{value}");
        }
    }

    #[test]
    fn what_is_put_together_is_bounded() {
        for part in ["a1b2c ", "ghp_x1 ", "gh p_x1y ", "g h p _ ", "glpat- x1Y2z ", "=", "é1a2B "] {
            let value = part.repeat(4096 / part.len());
            let words = super::words(value.as_bytes());
            let prefixes = super::Prefixes::of(SCANNER.rules().rules());
            let begun = (0..words.len()).filter_map(|at| super::begins(&prefixes, &words[at..])).sum::<usize>();
            assert!(begun <= 2 * words.len(), "{part} {begun}");
            found(&value);
        }
    }
}
