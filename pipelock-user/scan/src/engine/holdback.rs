//! How much of a text's end must be held back: the longest end that is the beginning of a match that is still to come.
//! Called by [`crate::stream`] after each piece.
//!
//! The beginnings of all patterns are a regular language themselves. Its automaton is run backwards from the end of the
//! text and stops as soon as no beginning can fit. Repeats are taken without their bounds, to keep the automata small; so that
//! this does not hold back too much, patterns are grouped by the length of their longest match, and a group is asked about no
//! more bytes than that. Most groups are not asked at all, nor made: their patterns begin with words ([`super::heads`]) of which
//! none is near the end. Others have words near their beginning, and while none is near they are asked about no more than what may
//! stand before one and all but its last byte.

use std::sync::{Mutex, OnceLock};

use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::{Anchored, Input, MatchKind, nfa::thompson};
use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, Hir, HirKind, Look, Repetition};

use super::Begun;
use super::awaited::Awaited;
use super::heads::{Finder, Head, MOST};
use crate::rule::{Pattern, Rule};

/// Most patterns of a group, of those that are asked about every text: the fewer groups, the fewer searches. The states of its automaton
/// are the sets of beginnings that may be going on: of patterns with long parts of anything there are so many, in noise and source code,
/// that none comes again, and each takes microseconds to make. Four of those that begin with words, together, made a stream of JavaScript
/// in pieces of 512 bytes take twice as long.
const MEMBERS: usize = 4;
/// Bytes of an automaton's cache, at most. One that is full is emptied and made anew: a quarter of this made streams 1.5 times as slow.
const CACHE: usize = 1 << 20;

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// A text that goes on.
    Text,
    /// A text that is put together from pieces, each of which may be the first of one.
    Pieces,
    /// A piece by itself.
    Piece,
}

/// The automata of a set of rules.
#[derive(Debug)]
pub(crate) struct HoldBack {
    /// Those of patterns that begin with their words first, of which there are so many.
    groups: Vec<Group>,
    headed: usize,
    finder: Finder,
    /// The longest match of those that words were found for.
    longest: usize,
    /// For pieces, of patterns that begin with no word and need one, and the words; without them nothing is known.
    late: Vec<Group>,
    awaited: Option<Awaited>,
}

/// A pattern with its words.
type Headed<'p> = (&'p Pattern, Option<Head>);

#[derive(Debug)]
struct Group {
    longest: usize,
    /// Bytes that it is asked about while none of its words is near: all, where there are none.
    unheaded: usize,
    patterns: Vec<Pattern>,
    in_pieces: bool,
    automaton: OnceLock<Option<DFA>>,
    /// In boxes, as each is hundreds of bytes that would be moved out and in with every search.
    #[allow(clippy::vec_box, reason = "as said")]
    caches: Mutex<Vec<Box<Cache>>>,
}

impl HoldBack {
    pub(crate) fn new<'r>(rules: impl IntoIterator<Item = &'r Rule>, asked: Asked) -> Self {
        let in_pieces = asked == Asked::Pieces;
        let mut rules: Vec<&Rule> = rules.into_iter().filter(|rule| rule.pattern.longest() > 0).collect();
        rules.sort_by_key(|rule| rule.pattern.longest());
        let (mut headed, mut inside, mut others): (Vec<Headed<'_>>, Vec<Headed<'_>>, Vec<Headed<'_>>) =
            Default::default();
        let mut late = Vec::new();
        for rule in rules {
            let pattern = &rule.pattern;
            if let Some(head) = Head::of(pattern.hir()) {
                headed.push((pattern, Some(head)));
            } else if asked != Asked::Text && Awaited::is_worth(rule) {
                late.push(rule);
            } else if let Some(head) = Head::within(pattern.hir()).filter(|head| head.before() < pattern.longest()) {
                inside.push((pattern, Some(head)));
            } else {
                others.push((pattern, None));
            }
        }
        let mut heads = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        // Those with words are hardly ever asked.
        let begin_so = headed.len();
        let members = headed.chunks(1).chain(inside.chunks(MEMBERS)).chain(others.chunks(MEMBERS));
        for members in members {
            let patterns: Vec<&Pattern> = members.iter().map(|(pattern, _)| *pattern).collect();
            let before = members.iter().map(|(_, head)| head.as_ref().map_or(usize::MAX, Head::before)).max();
            heads.extend(members.iter().filter_map(|(_, head)| Some((head.as_ref()?, groups.len()))));
            groups.push(Group { unheaded: before.unwrap_or(usize::MAX), ..Group::of(&patterns, in_pieces) });
        }
        let longest = groups.iter().filter(|group| group.unheaded < group.longest).map(|group| group.longest).max();
        // Only `begun` and `awaits` ask for them, which are for pieces.
        let awaited = (asked != Asked::Text).then(|| Awaited::of(late.iter().copied())).flatten();
        let late: Vec<&Pattern> = late.iter().map(|rule| &rule.pattern).collect();
        let late = late.chunks(MEMBERS).map(|members| Group::of(members, in_pieces)).collect();
        Self { groups, headed: begin_so, finder: Finder::new(&heads), longest: longest.unwrap_or(0), late, awaited }
    }

    /// How many bytes at the end of `text` may be the beginning of a match; never more than the longest match. The text ends at
    /// `end` of one whose words are noted in `near`, as far as they were read.
    pub(crate) fn of(&self, text: &[u8], end: u64, near: &mut Near) -> usize {
        self.open(text, self.sure(text, end, near))
    }

    /// The same of a text that is not part of another, with what is sure when [nothing is awaited](Self::awaits) of what comes next.
    pub(crate) fn begun(&self, text: &[u8]) -> Begun {
        let sure = self.sure(text, text.len() as u64, &mut Near::default());
        let open = self.open(text, sure);
        let is_there = |awaited: &Awaited| awaited.is_in(&text[text.len() - open..]);
        if open > sure && self.awaited.as_ref().is_none_or(is_there) { Begun::all(open) } else { Begun { open, sure } }
    }

    /// May a word that the patterns need which begin with none be in `new`, or begin at the end of `old`? Yes, unless these are
    /// pieces.
    pub(crate) fn awaits(&self, old: &[u8], new: &[u8]) -> bool {
        self.awaited.as_ref().is_none_or(|awaited| awaited.joins(old, new) || awaited.is_in(new))
    }

    /// How many bytes with those patterns, when it is so many without.
    fn open(&self, text: &[u8], sure: usize) -> usize {
        self.late.iter().fold(sure, |most, group| group.more(text, most))
    }

    /// How many bytes without those patterns.
    fn sure(&self, text: &[u8], end: u64, near: &mut Near) -> usize {
        self.note(text, end, near);
        let mut most = self.finder.begun(text);
        let last = |limit: usize| &text[text.len() - limit.min(text.len())..];
        near.keep(|at, place| {
            let Some(group) = self.groups.get(at) else { return false };
            let is_near = end < place.saturating_add(group.longest as u64);
            if is_near {
                most = group.more(last(group.longest), most);
            }
            is_near
        });
        // Those that begin with their words are none of these.
        for (at, group) in self.groups.iter().enumerate().skip(self.headed) {
            if !near.has(at) {
                most = group.more(last(group.unheaded.min(group.longest)), most);
            }
        }
        most
    }

    /// Bytes of memory that each text's [`Near`] takes.
    pub(crate) fn near_size(&self) -> usize {
        size_of::<u64>() * (self.groups.len() + self.groups.len().div_ceil(WORD))
    }

    /// Looks for words in what was not read yet.
    fn note(&self, text: &[u8], end: u64, near: &mut Near) {
        let start = end - text.len() as u64;
        if near.latest.len() != self.groups.len() || end < near.end {
            near.clear();
            near.latest.resize(self.groups.len(), 0);
            near.groups.resize(self.groups.len().div_ceil(WORD), 0);
            near.end = start;
        }
        // A word may have begun before.
        let from = near.end.saturating_sub(MOST as u64).max(end.saturating_sub(self.longest as u64)).max(start);
        let unread = text.get((from - start) as usize..).unwrap_or_default();
        self.finder.each(unread, |group, at| {
            near.see(group, from + at as u64 + 1);
        });
        near.end = end;
    }
}

/// Where the words of each group were seen last in a text that goes on, so that each byte is searched once.
#[derive(Debug, Default)]
pub(crate) struct Near {
    /// As far as the text was read.
    end: u64,
    /// By group, one more than the place, for those of the set.
    latest: Vec<u64>,
    /// The set of groups that have one, which are hardly any of hundreds: a bit for each.
    groups: Vec<u64>,
}

/// Groups of a word of [`Near::groups`].
const WORD: usize = u64::BITS as usize;

impl Near {
    /// Forgets a text.
    pub(crate) fn clear(&mut self) {
        self.end = 0;
        self.latest.clear();
        self.groups.clear();
    }

    fn has(&self, group: usize) -> bool {
        self.groups.get(group / WORD).is_some_and(|word| word >> (group % WORD) & 1 == 1)
    }

    fn see(&mut self, group: usize, place: u64) {
        let (Some(latest), Some(word)) = (self.latest.get_mut(group), self.groups.get_mut(group / WORD)) else {
            return;
        };
        let bit = 1 << (group % WORD);
        *latest = if *word & bit == 0 { place } else { place.max(*latest) };
        *word |= bit;
    }

    /// Forgets the groups for which `is_near` says no, given the group and one more than the place.
    fn keep(&mut self, mut is_near: impl FnMut(usize, u64) -> bool) {
        for (number, word) in self.groups.iter_mut().enumerate() {
            let mut rest = *word;
            while rest != 0 {
                let bit = rest.trailing_zeros() as usize;
                let group = number * WORD + bit;
                if !self.latest.get(group).is_some_and(|place| is_near(group, *place)) {
                    *word &= !(1 << bit);
                }
                rest &= rest - 1;
            }
        }
    }
}

impl Group {
    fn of(patterns: &[&Pattern], in_pieces: bool) -> Self {
        let longest = patterns.iter().map(|pattern| pattern.longest()).max().unwrap_or(0);
        let patterns = patterns.iter().map(|pattern| (*pattern).clone()).collect();
        Self { longest, unheaded: longest, patterns, in_pieces, automaton: OnceLock::new(), caches: Mutex::default() }
    }

    /// How many bytes, when they are more than `known`.
    fn more(&self, text: &[u8], known: usize) -> usize {
        let limit = self.longest.min(text.len());
        if limit <= known { known } else { known.max(self.begun(&text[text.len() - limit..])) }
    }

    fn begun(&self, text: &[u8]) -> usize {
        let beginning = |pattern: &Pattern| {
            let beginning = beginning(pattern.hir());
            if self.in_pieces { without_start(&beginning) } else { beginning }
        };
        let make = || reversed(&Hir::alternation(self.patterns.iter().map(beginning).collect()));
        // Without it nothing is known, and all is held.
        let Some(automaton) = self.automaton.get_or_init(make) else { return text.len() };
        let cached = self.caches.lock().ok().and_then(|mut caches| caches.pop());
        let mut cache = cached.unwrap_or_else(|| Box::new(automaton.create_cache()));
        let input = Input::new(text).anchored(Anchored::Yes);
        let held = match automaton.try_search_rev(&mut cache, &input) {
            Ok(Some(found)) => text.len() - found.offset(),
            Ok(None) => 0,
            // As above.
            Err(_) => text.len(),
        };
        if let Ok(mut caches) = self.caches.lock() {
            caches.push(cache);
        }
        held
    }
}

fn reversed(hir: &Hir) -> Option<DFA> {
    let nfa = thompson::Compiler::new()
        .configure(thompson::Config::new().reverse(true).utf8(false).which_captures(thompson::WhichCaptures::None))
        .build_from_hir(hir)
        .ok()?;
    let config = DFA::config().match_kind(MatchKind::All).cache_capacity(CACHE).skip_cache_capacity_check(true);
    DFA::builder().configure(config).build_from_nfa(nfa).ok()
}

/// The language of all beginnings of matches, the empty one and whole matches included.
fn beginning(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => Hir::empty(),
        HirKind::Literal(literal) => {
            let bytes: Vec<Hir> = literal.0.iter().map(|&byte| Hir::literal([byte])).collect();
            beginning_of_all(&bytes)
        }
        HirKind::Class(_) => optional(loose(hir)),
        HirKind::Repetition(repeat) if repeat.max == Some(1) => beginning(&repeat.sub),
        HirKind::Repetition(repeat) => Hir::concat(vec![many(loose(&repeat.sub), 0), beginning(&repeat.sub)]),
        HirKind::Capture(capture) => beginning(&capture.sub),
        HirKind::Concat(parts) => beginning_of_all(parts),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(beginning).collect()),
    }
}

/// begin(ab) = begin(a) | a begin(b).
fn beginning_of_all(parts: &[Hir]) -> Hir {
    let mut whole = Hir::empty();
    for part in parts.iter().rev() {
        whole = Hir::alternation(vec![beginning_of_one(part), Hir::concat(vec![loose(part), whole])]);
    }
    whole
}

fn beginning_of_one(part: &Hir) -> Hir {
    match part.kind() {
        // A byte is whole or not there; without this, the recursion over literals would not end.
        HirKind::Literal(literal) if literal.0.len() == 1 => optional(part.clone()),
        _ => beginning(part),
    }
}

/// The pattern without bounds of repeats, assertions but that of the text's beginning, and the form of characters outside ASCII: it
/// takes more, never less.
fn loose(hir: &Hir) -> Hir {
    match hir.kind() {
        // Where what is asked about begins more may have stood before, but no match begins like this behind.
        HirKind::Look(Look::Start) => hir.clone(),
        HirKind::Empty | HirKind::Look(_) => Hir::empty(),
        HirKind::Literal(_) | HirKind::Class(Class::Bytes(_)) => hir.clone(),
        HirKind::Class(Class::Unicode(class)) => {
            let mut bytes = ClassBytes::new([ClassBytesRange::new(0x80, 0xff)]);
            for range in class.iter().filter(|range| range.start() < '\u{80}') {
                bytes.push(ClassBytesRange::new(range.start() as u8, (range.end() as u32).min(0x7f) as u8));
            }
            many(Hir::class(Class::Bytes(bytes)), 0)
        }
        HirKind::Repetition(repeat) if repeat.max == Some(1) => {
            Hir::repetition(Repetition { sub: Box::new(loose(&repeat.sub)), ..*repeat })
        }
        HirKind::Repetition(repeat) => many(loose(&repeat.sub), repeat.min.min(1)),
        HirKind::Capture(capture) => loose(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(loose).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(loose).collect()),
    }
}

/// The same without the assertion of the text's beginning.
fn without_start(hir: &Hir) -> Hir {
    match hir.kind() {
        HirKind::Look(_) => Hir::empty(),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) => hir.clone(),
        HirKind::Repetition(repeat) => {
            Hir::repetition(Repetition { sub: Box::new(without_start(&repeat.sub)), ..*repeat })
        }
        HirKind::Capture(capture) => without_start(&capture.sub),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(without_start).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(without_start).collect()),
    }
}

fn many(sub: Hir, min: u32) -> Hir {
    Hir::repetition(Repetition { min, max: None, greedy: true, sub: Box::new(sub) })
}

fn optional(sub: Hir) -> Hir {
    Hir::repetition(Repetition { min: 0, max: Some(1), greedy: true, sub: Box::new(sub) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::RuleSet;

    fn held(pattern: &str, text: &str) -> usize {
        let file =
            format!("rules: [{{id: a, name: a, kind: dlp, class: credential, severity: low, pattern: '{pattern}'}}]");
        let holdback = HoldBack::new(RuleSet::read(&[("test", &file)]).unwrap().rules(), Asked::Text);
        let end = text.len() as u64;
        let whole = holdback.of(text.as_bytes(), end, &mut Near::default());
        let mut near = Near::default();
        for cut in 0..=text.len() {
            let held = holdback.of(&text.as_bytes()[..cut], cut as u64, &mut near);
            assert_eq!(held, holdback.of(&text.as_bytes()[..cut], cut as u64, &mut Near::default()), "{text}, {cut}");
        }
        whole
    }

    #[test]
    fn exactly_a_beginning_is_held() {
        assert_eq!(held("key-[a-z]{2,9}", "my ke"), 2);
        assert_eq!(held("key-[a-z]{2,9}", "my key-abc"), 7);
        assert_eq!(held("key-[a-z]{2,9}", "my key- "), 0);
        assert_eq!(held("(?:^|[^a-z])ab{1,2}c", "xabb"), 0);
        assert_eq!(held("(?:^|[^a-z])ab{1,2}c", "abb"), 3);
        // Other assertions are not looked at: a little more is held than needed.
        assert_eq!(held(r"\bab{1,2}c", "xabb"), 3);
        assert_eq!(held("(?:^|[^a-z])ab{1,2}c", "-abb"), 4);
        assert_eq!(held("(?i)send [^.]{0,40} password", "SEND me the "), 12);
        assert_eq!(held("忽略", "请\u{5ffd}"), 3);
    }

    #[test]
    fn what_stands_before_a_word_is_held_with_all_but_the_end_of_the_word() {
        for pattern in ["[0-9]{9}azdo-x[0-9]{4}", "(?:[0-9]{9}azdo-x|[a-z]{3}_login)[0-9]{4}"] {
            assert_eq!(held(pattern, "x 123456789"), 9);
            assert_eq!(held(pattern, "x 123456789azdo-"), 14);
            assert_eq!(held(pattern, "x 123456789azdo-x12"), 17);
            assert_eq!(held(pattern, "x 123456789azdo-y12"), 2);
        }
        assert_eq!(held("[(][a-z]{0,4}<[a-z]{1,9}>", "((abcd<efghij"), 12);
        assert_eq!(held("[a-z]![a-z]{1,9}-", "x-a!bcd"), 5);
    }

    #[test]
    fn words_hide_no_beginning_of_what_shipped_rules_find() {
        let rules = RuleSet::shipped().unwrap();
        let mut tried = 0;
        for rule in rules.rules() {
            let all = [Asked::Text, Asked::Piece, Asked::Pieces].map(|asked| (asked, HoldBack::new([rule], asked)));
            for (asked, (before, example)) in all
                .iter()
                .zip(["Of it: ", "\n", "\\n"])
                .flat_map(|(asked, before)| rule.examples.iter().map(move |example| (asked, (before, example))))
            {
                let text = format!("{before}{example}");
                let Some(found) = rule.pattern.regex().unwrap().find(text.as_bytes()) else { continue };
                tried += 1;
                let mut near = Near::default();
                for cut in found.start()..=found.end() {
                    let text = &text.as_bytes()[..cut];
                    for near in [&mut near, &mut Near::default()] {
                        let held = asked.1.of(text, cut as u64, near);
                        let shown = String::from_utf8_lossy(text);
                        assert!(held >= cut - found.start(), "{} {:?} {held} of {shown}", rule.id, asked.0);
                    }
                }
            }
        }
        assert!(tried > 1000, "{tried}");
    }
}
