//! Rules without a word in them, such as card numbers: vectorscan would walk an automaton over every byte for each, at half of
//! the whole cost. But their matches hold a long run of few kinds of characters, which a search that looks at every
//! tenth byte or so finds. Called by [`super::vector`], which leaves these rules out of its database.
//!
//! Promises what vectorscan promises ([`super::confirm`]): every match has a report inside. Work is linear.

use std::ops::Range;

use regex_syntax::hir::{Class, Hir, HirKind};

use crate::bits;
use crate::rule::Rule;
use crate::stream::Window;

/// Bytes looked at for each byte of prose, above which vectorscan is as good.
const DEAR: f64 = 0.095;
/// Bytes of one word that make a pattern cheap for vectorscan.
const WORD: usize = 2;

/// How one rule is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sparse {
    /// Index of the rule.
    pub(crate) rule: u32,
    /// Every match holds a run of at least so many bytes, at least 1, …
    pub(crate) least: u32,
    /// … of these, …
    pub(crate) bytes: [bool; 256],
    /// … among them so many letters and digits: indentation and rules of dashes are none.
    pub(crate) solid: u32,
    /// The first group that has all of `bytes`.
    group: Option<usize>,
}

/// Bytes that the runs of most sparse rules are made of. No table: the compiler makes vector instructions of it.
const GROUPS: [fn(u8) -> bool; 2] = [
    |byte| {
        let mark = (byte == b' ') | (byte == b'-') | (byte == b'.') | (byte == b'/') | (byte == b'^');
        mark | (byte.wrapping_sub(b'0') < 10) | (byte.wrapping_sub(b'A') < 26)
    },
    |byte| (byte.wrapping_sub(b'0') < 10) | ((byte | 0x20).wrapping_sub(b'a') < 26),
];

/// Where runs of the bytes of each group are in a piece, as far as they are long enough for a rule: prose has none, which one look
/// for all rules tells.
#[derive(Debug, Default)]
pub(crate) struct Runs([Vec<Range<usize>>; GROUPS.len()]);

impl Runs {
    /// Looks at the piece `text` for all of `rules`.
    pub(crate) fn look(&mut self, rules: &[Sparse], text: &[u8]) {
        for (number, runs) in self.0.iter_mut().enumerate() {
            runs.clear();
            let Some(least) = rules.iter().filter(|rule| rule.group == Some(number)).map(|rule| rule.least).min()
            else {
                continue;
            };
            // Longer ones are found by their beginning.
            let least = (least as usize).min(bits::BLOCK);
            match number {
                0 => list(text, least, |byte| GROUPS[0](byte), runs),
                _ => list(text, least, |byte| GROUPS[1](byte), runs),
            }
        }
    }
}

fn list(text: &[u8], least: usize, has: impl Fn(u8) -> bool + Copy, runs: &mut Vec<Range<usize>>) {
    let mut at = 0;
    while let Some(ahead) = bits::run(&text[at..], least, has) {
        let start = at + ahead;
        let end = bits::position(&text[start..], |byte| !has(byte)).map_or(text.len(), |length| start + length);
        runs.push(start..end);
        at = end;
    }
}

/// A run that every match of some pattern holds.
#[derive(Clone, Copy, Debug)]
struct Run {
    least: usize,
    bytes: [bool; 256],
    solid: usize,
}

impl Run {
    const EMPTY: Self = Self { least: 0, bytes: [false; 256], solid: 0 };

    fn and_then(self, other: Self) -> Self {
        Self { least: self.least + other.least, bytes: self.with(other), solid: self.solid + other.solid }
    }

    fn or(self, other: Self) -> Self {
        Self { least: self.least.min(other.least), bytes: self.with(other), solid: self.solid.min(other.solid) }
    }

    fn with(self, other: Self) -> [bool; 256] {
        std::array::from_fn(|byte| self.bytes[byte] | other.bytes[byte])
    }

    /// Bytes that the search looks at for each byte of prose: after `least` bytes back to the first that is none of the run's.
    fn cost(&self) -> f64 {
        // Shares of characters in prose, in thousandths.
        let share = |byte: u8| match byte {
            b'a'..=b'z' => 30,
            b' ' => 165,
            b'A'..=b'Z' | b'0'..=b'9' => 1,
            b'.' | b',' | b'-' | b'\n' | 0x80.. => 9,
            _ => 0,
        };
        let inside: u32 = (0..=255u8).filter(|byte| self.bytes[usize::from(*byte)]).map(share).sum();
        1.0 / (1.0 - f64::from(inside.min(990)) / 1000.0) / self.least.max(1) as f64
    }
}

impl Sparse {
    /// How to find `rule`, the one at `index`; `None` when vectorscan does it as well.
    pub(crate) fn of(index: usize, rule: &Rule) -> Option<Self> {
        let mut parts = Vec::new();
        flatten(rule.pattern.hir(), &mut parts);
        if parts.iter().any(|part| has_word(part, WORD)) || longest_word(&parts) >= WORD {
            return None;
        }
        let runs: Vec<Run> = parts.iter().map(|part| whole(part)).collect();
        let best = (0..runs.len())
            .flat_map(|from| {
                runs.get(from..).unwrap_or_default().iter().scan(Run::EMPTY, |run, next| {
                    *run = run.and_then(*next);
                    Some(*run)
                })
            })
            .min_by(|one, other| one.cost().total_cmp(&other.cost()))?;
        let number = |count: usize| u32::try_from(count).ok();
        (best.least > 0 && best.cost() <= DEAR).then_some(())?;
        Some(Self::new(number(index)?, number(best.least)?, best.bytes, number(best.solid)?))
    }

    fn new(rule: u32, least: u32, bytes: [bool; 256], solid: u32) -> Self {
        let inside = |has: &fn(u8) -> bool| (0..=255).all(|byte| has(byte) || !bytes[usize::from(byte)]);
        Self { rule, least, bytes, solid, group: GROUPS.iter().position(inside) }
    }

    /// Bytes of one in [`store`](Self::store).
    pub(crate) const STORED: usize = 4 + 4 + 4 + 32;

    /// Appends it to a file.
    pub(crate) fn store(&self, to: &mut Vec<u8>) {
        to.extend(self.rule.to_le_bytes());
        to.extend(self.least.to_le_bytes());
        to.extend(self.solid.to_le_bytes());
        to.extend(self.bytes.chunks(8).map(|bits| bits.iter().rev().fold(0u8, |byte, bit| byte << 1 | u8::from(*bit))));
    }

    /// Reads what [`store`](Self::store) wrote.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (rule, rest) = bytes.split_first_chunk()?;
        let (least, rest) = rest.split_first_chunk()?;
        let (solid, bits) = rest.split_first_chunk()?;
        let least = u32::from_le_bytes(*least);
        let bits: &[u8; 32] = bits.try_into().ok()?;
        let bytes = std::array::from_fn(|byte| bits[byte / 8] >> (byte % 8) & 1 == 1);
        (least > 0).then_some(Self::new(u32::from_le_bytes(*rule), least, bytes, u32::from_le_bytes(*solid)))
    }

    /// Reports the runs of the new piece, of which `runs` are those of the groups: `found` gets the range of places that lie inside
    /// matches. `at` is where the search goes on, 0 at first.
    pub(crate) fn search(&self, window: &Window<'_>, runs: &Runs, at: &mut u64, mut found: impl FnMut(u64, u64)) {
        let least = u64::from(self.least);
        *at = (*at).max(window.start());
        let fresh = window.fresh();
        if *at < fresh {
            // Both slices are needed for the runs that cross the border.
            let end = (fresh + least).min(window.end());
            let from = *at;
            let next = window.with(from..end, |text| self.runs(text, from, true, &mut found));
            *at = next;
        }
        // Still before the border: the piece was too short for more, and the next one goes on from there.
        if !(fresh..window.end()).contains(at) {
            return;
        }
        let (text, from) = (window.new, (*at - fresh) as usize);
        let Some(runs) = self.group.and_then(|group| runs.0.get(group)) else {
            *at = self.runs(&text[from..], *at, true, &mut found);
            return;
        };
        for run in runs.iter().filter(|run| run.end > from) {
            let start = run.start.max(from);
            self.runs(&text[start..run.end], fresh + start as u64, run.end == text.len(), &mut found);
        }
        *at = (*at).max((window.end() + 1).saturating_sub(least));
    }

    /// The runs in `text`, which lies at `start` and may be `open`, that is go on; says where to go on.
    fn runs(&self, text: &[u8], start: u64, open: bool, found: &mut impl FnMut(u64, u64)) -> u64 {
        let inside = |byte: &u8| self.bytes[usize::from(*byte)];
        let least = self.least as usize;
        let mut at = 0;
        while let Some(part) = text.get(at..at + least) {
            // Most often this one look decides.
            if part.last().is_some_and(|byte| !inside(byte)) {
                at += least;
                continue;
            }
            if let Some(out) = part.iter().rposition(|byte| !inside(byte)) {
                at += out + 1;
                continue;
            }
            let more = text[at + least..].iter().take_while(|byte| inside(byte)).count();
            let end = at + least + more;
            let solid =
                text[at..end].iter().filter(|byte| byte.is_ascii_alphanumeric()).take(self.solid as usize).count();
            // At the end, the piece to come may bring what lacks.
            if solid >= self.solid as usize || open && end == text.len() {
                found(start + (at + least) as u64, start + end as u64);
            }
            if end == text.len() {
                // It may go on in the next piece.
                return start + (end + 1 - least) as u64;
            }
            at = end + 1;
        }
        start + (text.len() + 1).saturating_sub(least).max(at.min(text.len())) as u64
    }
}

/// The parts of a pattern that follow one another.
fn flatten<'h>(hir: &'h Hir, parts: &mut Vec<&'h Hir>) {
    match hir.kind() {
        HirKind::Concat(inner) => inner.iter().for_each(|part| flatten(part, parts)),
        HirKind::Capture(capture) => flatten(&capture.sub, parts),
        _ => parts.push(hir),
    }
}

/// The whole of `hir` as one run.
fn whole(hir: &Hir) -> Run {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Run::EMPTY,
        HirKind::Literal(literal) => literal.0.iter().fold(Run::EMPTY, |run, &byte| run.and_then(one([byte..=byte]))),
        HirKind::Class(Class::Bytes(class)) => one(class.iter().map(|range| range.start()..=range.end())),
        HirKind::Class(Class::Unicode(class)) => {
            let ascii = class.iter().filter(|range| range.start() < '\u{80}');
            let ascii = ascii.map(|range| range.start() as u8..=(range.end() as u32).min(0x7f) as u8);
            one(ascii.chain([0x80..=0xff]))
        }
        HirKind::Repetition(repeat) => {
            let each = whole(&repeat.sub);
            Run { least: each.least * repeat.min as usize, solid: each.solid * repeat.min as usize, ..each }
        }
        HirKind::Capture(capture) => whole(&capture.sub),
        HirKind::Concat(parts) => parts.iter().map(whole).fold(Run::EMPTY, Run::and_then),
        HirKind::Alternation(parts) => parts.iter().map(whole).reduce(Run::or).unwrap_or(Run::EMPTY),
    }
}

fn one(ranges: impl IntoIterator<Item = std::ops::RangeInclusive<u8>>) -> Run {
    let mut bytes = [false; 256];
    ranges.into_iter().flatten().for_each(|byte| bytes[usize::from(byte)] = true);
    let solid = (0..=255u8).all(|byte| !bytes[usize::from(byte)] || byte.is_ascii_alphanumeric());
    Run { least: 1, bytes, solid: usize::from(solid) }
}

/// Does every match of `hir` hold a word of so many bytes, in one of its branches each?
pub(super) fn has_word(hir: &Hir, bytes: usize) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.len() >= bytes,
        HirKind::Repetition(repeat) => repeat.min > 0 && has_word(&repeat.sub, bytes),
        HirKind::Capture(capture) => has_word(&capture.sub, bytes),
        HirKind::Concat(parts) => {
            parts.iter().any(|part| has_word(part, bytes)) || longest_word(&parts.iter().collect::<Vec<_>>()) >= bytes
        }
        HirKind::Alternation(parts) => parts.iter().all(|part| has_word(part, bytes)),
        _ => false,
    }
}

/// Bytes in a row of which each is one letter, in either case.
fn longest_word(parts: &[&Hir]) -> usize {
    let (mut longest, mut word) = (0, 0);
    for part in parts {
        word += match part.kind() {
            HirKind::Literal(literal) => literal.0.len(),
            HirKind::Class(Class::Bytes(class)) if class.iter().map(|range| range.len()).sum::<usize>() <= 2 => 1,
            _ => {
                word = 0;
                continue;
            }
        };
        longest = longest.max(word);
    }
    longest
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rule::RuleSet;

    fn sparse(pattern: &str) -> Option<Sparse> {
        let file =
            format!("rules: [{{id: a, name: a, kind: dlp, class: credential, severity: low, pattern: '{pattern}'}}]");
        Sparse::of(0, RuleSet::read(&[("test", &file)]).unwrap().rules().first().unwrap())
    }

    #[test]
    fn rules_without_a_word_are_found_by_a_run() {
        let card = sparse("(?:^|[^0-9])([0-9]{15}|[0-9]{3}-[0-9]{12})(?:$|[^0-9])").unwrap();
        assert_eq!(card.least, 15);
        assert!(card.bytes[usize::from(b'7')] && card.bytes[usize::from(b'-')] && !card.bytes[usize::from(b'a')]);
        let mut stored = Vec::new();
        card.store(&mut stored);
        assert_eq!(stored.len(), Sparse::STORED);
        assert_eq!(Sparse::read(&stored), Some(card));
        assert_eq!(sparse("sk-ant-[0-9]{20}"), None, "it has a word");
        assert_eq!(sparse("(?i)key[0-9]{20}"), None, "it has a word in either case");
        assert_eq!(sparse("[a-z ]{2}[0-9]{2}"), None, "too short");
    }

    proptest! {
        #[test]
        fn every_run_is_reported_however_it_is_cut(text in "([0-9]{0,9}[a -]{0,1}){0,12}", cuts in prop::collection::vec(0usize..100, 0..5)) {
            let sparse = sparse("[0-9]{5}-[0-9]{6}").unwrap();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut at, mut reported) = (0, vec![false; text.len() + 1]);
            for pair in cuts.windows(2) {
                let [from, to] = *pair else { continue };
                let window = Window { first: 0, old: &text.as_bytes()[..from], new: &text.as_bytes()[from..to] };
                let mut runs = Runs::default();
                runs.look(std::slice::from_ref(&sparse), window.new);
                sparse.search(&window, &runs, &mut at, |first, last| {
                    (first..=last).for_each(|place| reported[place as usize] = true);
                });
            }
            for (part, reported) in text.as_bytes().windows(12).zip(reported.iter().skip(12)) {
                let solid = part.iter().filter(|byte| byte.is_ascii_digit()).count() >= 11;
                let run = solid && part.iter().all(|byte| sparse.bytes[usize::from(*byte)]);
                prop_assert!(*reported || !run, "{:?}", part);
            }
        }
    }
}
