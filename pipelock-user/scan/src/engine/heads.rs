//! The words that patterns begin with, or have near their beginning, and where they are near a text's end: a match can have begun
//! only where one is. Called by [`super::holdback`].
//!
//! Promises: every beginning of a match either holds a word of its pattern, which [`Finder::each`] reports, or is no longer than
//! [`Finder::begun`] says, or than [`Head::before`] where the word is not the first thing.

use std::collections::BTreeMap;

use regex_syntax::hir::literal::{ExtractKind, Extractor};
use regex_syntax::hir::{Class, ClassBytes, ClassBytesRange, Hir, HirKind, Repetition};

use crate::bits;

/// Least bytes of a word of letters, and the most that are looked for.
const LEAST: usize = 3;
pub(super) const MOST: usize = 6;
/// Most bytes that may stand before a word.
const BEFORE: usize = 512;
/// Most alternatives that are looked into one by one, each of which may have more.
const WAYS: usize = 32;
/// Most words of a pattern, upper and lower case counted.
const WORDS: usize = 300;

/// What a pattern begins with.
#[derive(Debug)]
pub(super) struct Head {
    /// What may stand before the word and is of the match, where that is little.
    guard: Guard,
    /// Most bytes that stand before it where that is more.
    inside: Option<usize>,
    words: Vec<Vec<u8>>,
    /// The words are in lower case and stand for those in any.
    any_case: bool,
}

impl Head {
    /// Of a pattern; `None` when it begins with no word.
    pub(super) fn of(hir: &Hir) -> Option<Self> {
        let mut parts = Vec::new();
        flatten(hir, &mut parts);
        let (mut guard, mut guards) = (Guard::default(), 0);
        while let Some(part) = parts.get(guards) {
            let mut next = Guard::default();
            if !next.add(part) {
                break;
            }
            if next.takes() && guard.takes() {
                break;
            }
            if next.takes() {
                guard = next;
            }
            guards += 1;
        }
        let (words, any_case) = words(parts.get(guards..)?)?;
        Some(Self { guard, inside: None, words, any_case })
    }

    /// Of a pattern that has a word near its beginning.
    pub(super) fn within(hir: &Hir) -> Option<Self> {
        let mut parts = Vec::new();
        flatten(hir, &mut parts);
        Inside::of(&parts, &mut { WAYS }).map(|Inside { before, words, any_case }| Self {
            guard: Guard::default(),
            inside: Some(before),
            words,
            any_case,
        })
    }

    /// Most bytes of a beginning that has not all of the word, where [`Finder::begun`] does not tell.
    pub(super) fn before(&self) -> usize {
        self.inside.map_or(0, |before| before + MOST - 1)
    }
}

/// The words that each match of some parts has, and how many bytes are before them at most.
struct Inside {
    before: usize,
    words: Vec<Vec<u8>>,
    any_case: bool,
}

impl Inside {
    fn of(parts: &[&Hir], ways: &mut usize) -> Option<Self> {
        let mut before = 0;
        for (at, part) in parts.iter().enumerate() {
            if let Some((words, any_case)) = parts.get(at..).and_then(words) {
                return Some(Self { before, words, any_case });
            }
            before += part.properties().maximum_len()?;
            if before > BEFORE {
                break;
            }
        }
        // Each alternative may have one in another place.
        let mut before = 0;
        for (at, part) in parts.iter().enumerate() {
            if let HirKind::Alternation(alternatives) = part.kind() {
                *ways = ways.checked_sub(alternatives.len())?;
                let mut all = Self { before, words: Vec::new(), any_case: false };
                for alternative in alternatives {
                    let mut own = Vec::new();
                    flatten(alternative, &mut own);
                    own.extend(parts.get(at + 1..).unwrap_or_default());
                    let one = Self::of(&own, ways)?;
                    all.before = all.before.max(before + one.before);
                    all.words.extend(one.words);
                    all.any_case |= one.any_case;
                }
                if all.any_case {
                    all.words.iter_mut().for_each(|word| word.make_ascii_lowercase());
                }
                return (all.before <= BEFORE && all.words.len() <= WORDS).then_some(all);
            }
            before += part.properties().maximum_len()?;
        }
        None
    }
}

/// What all that these parts take begins with, and whether in any case; `None` where that is nothing which tells it from most texts.
fn words(parts: &[&Hir]) -> Option<(Vec<Vec<u8>>, bool)> {
    let rest = Hir::concat(parts.iter().map(|part| (*part).clone()).collect());
    // Of a word in any case there are dozens; one stands for all.
    let mut any_case = false;
    let lower = lowered(&rest, &mut any_case);
    let rest = if any_case { lower } else { rest };
    let mut extractor = Extractor::new();
    extractor.kind(ExtractKind::Prefix).limit_literal_len(MOST).limit_total(WORDS);
    let words: Vec<Vec<u8>> =
        extractor.extract(&rest).literals()?.iter().map(|word| word.as_bytes().to_vec()).collect();
    (!words.is_empty() && words.iter().all(|word| is_word(word))).then_some((words, any_case))
}

/// Is it long enough, or of signs that are rare in prose?
fn is_word(word: &[u8]) -> bool {
    let is_sign = |byte: &u8| b"!#$%&*;<>?@[\\]^{|}~+".contains(byte) || !byte.is_ascii() || byte.is_ascii_control();
    let is_rare = |byte: &u8| is_sign(byte) && !byte.is_ascii_whitespace();
    match word {
        [] => false,
        [one] => is_rare(one),
        [one, two] => is_rare(one) || is_rare(two) || *two == b':',
        _ => true,
    }
}

/// The pattern in lower case; notes whether it takes a letter in either.
fn lowered(hir: &Hir, any_case: &mut bool) -> Hir {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => hir.clone(),
        HirKind::Literal(literal) => Hir::literal(literal.0.to_ascii_lowercase()),
        HirKind::Class(Class::Bytes(class)) => {
            *any_case |= class.iter().count() == 2 && (b'a'..=b'z').any(|letter| is_pair(class, letter));
            Hir::class(Class::Bytes(ClassBytes::new(class.iter().flat_map(lowered_range))))
        }
        // Only ASCII folds.
        HirKind::Class(Class::Unicode(_)) => hir.clone(),
        HirKind::Repetition(repeat) => {
            Hir::repetition(Repetition { sub: Box::new(lowered(&repeat.sub, any_case)), ..*repeat })
        }
        HirKind::Capture(capture) => lowered(&capture.sub, any_case),
        HirKind::Concat(parts) => Hir::concat(parts.iter().map(|part| lowered(part, any_case)).collect()),
        HirKind::Alternation(parts) => Hir::alternation(parts.iter().map(|part| lowered(part, any_case)).collect()),
    }
}

/// What is before capitals in a range, the capitals as small letters, and what is behind.
fn lowered_range(range: &ClassBytesRange) -> impl Iterator<Item = ClassBytesRange> {
    let part = |from: u8, to: u8| {
        let (start, end) = (range.start().max(from), range.end().min(to));
        (start <= end).then_some((start, end))
    };
    let capitals = part(b'A', b'Z').map(|(start, end)| (start.to_ascii_lowercase(), end.to_ascii_lowercase()));
    let parts = [part(0, b'A' - 1), capitals, part(b'Z' + 1, u8::MAX)];
    parts.into_iter().flatten().map(|(start, end)| ClassBytesRange::new(start, end))
}

/// Is it this letter in either case, and nothing else?
fn is_pair(class: &ClassBytes, letter: u8) -> bool {
    let mut ranges = class.iter().map(|range| (range.start(), range.end()));
    let upper = letter.to_ascii_uppercase();
    ranges.next() == Some((upper, upper)) && ranges.next() == Some((letter, letter))
}

fn flatten<'h>(hir: &'h Hir, parts: &mut Vec<&'h Hir>) {
    match hir.kind() {
        HirKind::Concat(inner) => inner.iter().for_each(|part| flatten(part, parts)),
        HirKind::Capture(capture) => flatten(&capture.sub, parts),
        _ => parts.push(hir),
    }
}

/// What may stand before a word: nothing, one byte, or two.
#[derive(Debug)]
struct Guard {
    bytes: [bool; 256],
    /// An escaped line end, such as `\\n`.
    pairs: Vec<[u8; 2]>,
}

/// Most pairs of a guard.
const PAIRS: usize = 8;

impl Default for Guard {
    fn default() -> Self {
        Self { bytes: [false; 256], pairs: Vec::new() }
    }
}

impl Guard {
    fn takes(&self) -> bool {
        self.bytes.contains(&true) || !self.pairs.is_empty()
    }

    /// Adds an assertion, one byte, two or any of them; false when it is something else.
    fn add(&mut self, hir: &Hir) -> bool {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => true,
            // One of few is a letter of a word.
            HirKind::Class(Class::Bytes(class)) if class.iter().map(|range| range.len()).sum::<usize>() > 8 => {
                each(class, |byte| self.bytes[usize::from(byte)] = true);
                true
            }
            HirKind::Capture(capture) => self.add(&capture.sub),
            HirKind::Repetition(repeat) if repeat.max == Some(1) => self.add(&repeat.sub),
            HirKind::Alternation(parts) => parts.iter().all(|part| self.add(part) || self.add_pairs(part)),
            _ => false,
        }
    }

    /// Adds what are two bytes, of which the first is known.
    fn add_pairs(&mut self, hir: &Hir) -> bool {
        let HirKind::Concat(parts) = hir.kind() else { return false };
        let [first, second] = parts.as_slice() else { return false };
        let (HirKind::Literal(first), HirKind::Class(Class::Bytes(second))) = (first.kind(), second.kind()) else {
            return false;
        };
        let &[first] = &*first.0 else { return false };
        each(second, |second| self.pairs.push([first, second]));
        self.pairs.len() <= PAIRS
    }

    /// How many bytes of it `text` ends with, and how many of its beginning.
    fn at_end_of(&self, text: &[u8]) -> (usize, usize) {
        let Some(&last) = text.last() else { return (0, 0) };
        let pair = text.last_chunk().is_some_and(|last| self.pairs.contains(last));
        let whole = if pair { 2 } else { usize::from(self.bytes[usize::from(last)]) };
        (whole, whole.max(usize::from(self.pairs.iter().any(|[first, _]| *first == last))))
    }
}

fn each(class: &ClassBytes, then: impl FnMut(u8)) {
    class.iter().flat_map(|range| range.start()..=range.end()).for_each(then);
}

/// Bits of a hash of the first bytes of a word.
const FIRST: u32 = 16;

/// A word that is looked for.
#[derive(Debug)]
struct Word {
    leading: u64,
    length: usize,
    /// What may have begun with it.
    of: Vec<OfWord>,
}

/// The group of a pattern, with the word itself where it is none in another case.
type OfWord = (usize, Option<Vec<u8>>);

/// Finds the words of many patterns.
#[derive(Debug)]
pub(super) struct Finder {
    /// In lower case, as [`leading`] has their bytes, in order; those of fewer than [`LEAST`] bytes apart.
    words: Vec<Word>,
    short: Vec<Word>,
    /// One bit for each hash of the first [`LEAST`] bytes of a word.
    first: bits::Set<{ 1 << (FIRST - 6) }>,
    /// Of words that are no longer than that, and of the first four bytes of the others.
    whole: bits::Set<{ 1 << (FIRST - 6) }>,
    four: bits::Set<{ 1 << (FIRST - 6) }>,
    /// The [first two bytes](pair) of what begins with a short one.
    pairs: bits::Pairs,
    /// What a word begins with that is not whole, [`packed`] and in order, with whether a byte before it may belong to the match:
    /// as it stands, and in lower case for those in any.
    begun: [Vec<(u64, bool)>; 2],
    /// What may stand before any word.
    guard: Guard,
}

/// Fewer than eight bytes as a number.
fn packed(bytes: &[u8]) -> u64 {
    bytes.iter().fold(bytes.len() as u64, |number, byte| number << 8 | u64::from(*byte))
}

/// The first bytes in lower case, as many as a word has at most, the first one highest.
fn leading(bytes: &[u8]) -> u64 {
    let mut leading = [0; 8];
    leading.iter_mut().zip(bytes).take(MOST).for_each(|(to, byte)| *to = byte.to_ascii_lowercase());
    u64::from_be_bytes(leading)
}

/// A hash of the first bytes of a word without regard to case: other pairs of characters fall together as well, which costs a look.
fn first_bit(bytes: &[u8; LEAST]) -> usize {
    let [one, two, three] = *bytes;
    let number = u32::from_le_bytes([one, two, three, 0]) | 0x20_2020;
    (number.wrapping_mul(0x9E37_79B1) >> (u32::BITS - FIRST)) as usize
}

/// The same of one byte more.
fn four_bit(bytes: &[u8; 4]) -> usize {
    ((u32::from_le_bytes(*bytes) | 0x2020_2020).wrapping_mul(0x9E37_79B1) >> (u32::BITS - FIRST)) as usize
}

/// Two bytes without regard to case, as [`first_bit`] does it.
fn pair(one: u8, two: u8) -> [u8; 2] {
    [one | 0x20, two | 0x20]
}

impl Finder {
    /// For the heads of patterns of these groups.
    pub(super) fn new(heads: &[(&Head, usize)]) -> Self {
        let mut words: BTreeMap<Vec<u8>, Vec<OfWord>> = BTreeMap::new();
        let mut begun = [BTreeMap::new(), BTreeMap::new()];
        let mut guard = Guard::default();
        for (head, group) in heads {
            for word in &head.words {
                let lower = word.to_ascii_lowercase();
                let word = if head.any_case { &lower } else { word };
                let of_word = words.entry(lower.clone()).or_default();
                let one = (*group, (!head.any_case).then(|| word.clone()));
                if !of_word.contains(&one) {
                    of_word.push(one);
                }
                for length in (1..word.len()).filter(|_| head.inside.is_none()) {
                    let [as_it_is, lower] = &mut begun;
                    let begun = if head.any_case { lower } else { as_it_is };
                    let beginning = word.get(..length).unwrap_or_default();
                    *begun.entry(packed(beginning)).or_insert(false) |= head.guard.takes();
                }
            }
            for (known, own) in guard.bytes.iter_mut().zip(&head.guard.bytes) {
                *known |= own;
            }
            guard.pairs.extend(&head.guard.pairs);
        }
        guard.pairs.sort_unstable();
        guard.pairs.dedup();
        let begun = begun.map(|begun| begun.into_iter().collect());
        let first = bits::Set::of(words.keys().filter_map(|word| word.first_chunk()).map(first_bit));
        let is_whole = |word: &&Vec<u8>| word.len() == LEAST;
        let whole = words.keys().filter(is_whole).filter_map(|word| word.first_chunk()).map(first_bit);
        let whole = bits::Set::of(whole);
        let four = bits::Set::of(words.keys().filter_map(|word| word.first_chunk()).map(four_bit));
        let second = |word: &[u8]| word.get(1).map_or(0..=u8::MAX, |second| *second..=*second);
        let short = words.keys().filter(|word| word.len() < LEAST);
        let pairs = bits::Pairs::of(short.flat_map(|word| second(word).map(|second| pair(word[0], second))));
        debug_assert!(words.keys().all(|word| (1..=MOST).contains(&word.len())), "`words` gives no others");
        let words = words.into_iter().map(|(word, of)| Word { leading: leading(&word), length: word.len(), of });
        let (short, words) = words.partition(|word| word.length < LEAST);
        Self { words, short, first, whole, four, pairs, begun, guard }
    }

    /// Calls `found` for each word in `text` with its group and where it begins.
    pub(super) fn each(&self, text: &[u8], mut found: impl FnMut(usize, usize)) {
        let long = |at: usize, found: &mut dyn FnMut(usize, usize)| {
            here::<LEAST>(&self.words, text.get(at..).unwrap_or_default(), |group| found(group, at));
        };
        let short = |at: usize, found: &mut dyn FnMut(usize, usize)| {
            here::<1>(&self.short, text.get(at..).unwrap_or_default(), |group| found(group, at));
        };
        for (at, bytes) in text.array_windows().enumerate() {
            let &[one, two, three, _] = bytes;
            let first = first_bit(&[one, two, three]);
            if self.first.has(first) && (self.four.has(four_bit(bytes)) || self.whole.has(first)) {
                long(at, &mut found);
            }
            if self.pairs.has(pair(one, two)) {
                short(at, &mut found);
            }
        }
        // Too few bytes for a window.
        for at in text.len().saturating_sub(LEAST)..text.len() {
            long(at, &mut found);
            short(at, &mut found);
        }
    }

    /// Bytes at the end of `text` that may be the beginning of a match which has not all of its first word.
    pub(super) fn begun(&self, text: &[u8]) -> usize {
        let mut end = [[0; MOST]; 2];
        // A shorter one may have more before it: `\\n` is of the match, where `n` alone begins a word.
        let mut most = self.guard.at_end_of(text).1;
        for length in (1..MOST.min(text.len() + 1)).rev() {
            let (before, tail) = text.split_at(text.len() - length);
            let [as_it_is, lower] = &mut end;
            let (Some(as_it_is), Some(lower)) = (as_it_is.get_mut(..length), lower.get_mut(..length)) else { continue };
            as_it_is.copy_from_slice(tail);
            lower.copy_from_slice(tail);
            lower.make_ascii_lowercase();
            let begun = [&*as_it_is, &*lower].into_iter().zip(&self.begun).filter_map(|(end, begun)| {
                let place = begun.binary_search_by_key(&packed(end), |(begun, _)| *begun).ok()?;
                begun.get(place).map(|(_, guarded)| *guarded)
            });
            if let Some(guarded) = begun.reduce(|one, other| one | other) {
                let (before, _) = self.guard.at_end_of(before);
                most = most.max(length + if guarded { before } else { 0 });
            }
        }
        most
    }
}

/// Calls `found` with the group of each word that `text` begins with, of words that have so many bytes at least.
fn here<const AT_LEAST: usize>(words: &[Word], text: &[u8], mut found: impl FnMut(usize)) {
    let here = leading(text);
    // Every word that stands here lies between its first bytes, with zeros behind them, and all of it.
    let least = here & !(u64::MAX >> (AT_LEAST * 8));
    let start = words.partition_point(|word| word.leading < least);
    for word in words.iter().skip(start).take_while(|word| word.leading <= here) {
        let Some(there) = text.get(..word.length) else { continue };
        if (word.leading ^ here) >> (u64::BITS as usize - 8 * word.length) != 0 {
            continue;
        }
        for (group, exact) in &word.of {
            if exact.as_deref().is_none_or(|exact| exact == there) {
                found(*group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pattern: &str) -> Hir {
        regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern).unwrap()
    }

    fn head(pattern: &str) -> Option<Head> {
        Head::of(&parsed(pattern))
    }

    #[test]
    fn patterns_begin_with_words() {
        let words = |pattern| head(pattern).map(|head| (head.words.len(), head.guard.takes()));
        assert_eq!(words(r"(?:^|[^0-9a-z]|\\[nrt])(ghp_[0-9a-z]{36})"), Some((1, true)));
        assert_eq!(words(r"(?:^|[^0-9a-z]|ab[nrt])(ghp_[0-9a-z]{36})"), None);
        assert_eq!(words("(?:^|[^0-9a-z])(ghp_[0-9a-z]{36})"), Some((1, true)));
        assert_eq!(words("sk-(?:ant|or)-[a-z]+"), Some((2, false)));
        assert_eq!(words("(?i)send [^.]{0,40} password"), Some((1, false)));
        assert_eq!(words("[0-9]{3}-[0-9]{4}"), None);
        assert_eq!(words("x?abcd"), Some((2, false)));
        assert_eq!(words(r"!\[[a-z]{3}"), Some((1, false)));
        assert_eq!(words(", ?[a-z]{3}"), None);
    }

    #[test]
    fn words_near_the_beginning_are_known_with_what_may_be_before_them() {
        let within = |pattern| {
            Head::within(&parsed(pattern)).map(|head| {
                let words: Vec<_> = head.words.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect();
                (head.inside.unwrap(), words.join(" "), head.any_case)
            })
        };
        let told = |before, words: &str, any_case| Some((before, words.to_owned(), any_case));
        assert_eq!(within(r"[0-9a-z]{9}(?:AZDO)[0-9a-z]{4}"), told(9, "AZDO", false));
        assert_eq!(within(r"(?:^|[\n'])[a-z]{0,60}(?:pass|word)="), told(61, "pass= word=", false));
        assert_eq!(within(r"(?:[a-z]{2}_login|[a-z]{9}(?i:Basic)_)x"), told(9, "_login basic_", true));
        assert_eq!(within(r"(?:[0-9a-z]{3,}|[a-z]{9}Basic)x"), None);
        assert_eq!(within(r"[a-z]+key="), None);
        assert_eq!(within(r"[a-z]{0,600}key="), None);
    }

    #[test]
    fn words_and_their_beginnings_are_found() {
        let heads = ["(?:^|[^0-9a-z])ghp_[0-9a-z]{36}", "sk-ant[a-z]+"].map(|pattern| head(pattern).unwrap());
        let finder = Finder::new(&[(&heads[0], 0), (&heads[1], 1)]);
        for (text, begun) in [
            ("-gh", 3),
            ("-GH", 1),
            ("xGh", 0),
            ("xgh", 2),
            ("-sk-", 3),
            ("sk-ant", 0),
            ("a-", 1),
            ("ab", 0),
            ("", 0),
            ("g", 1),
        ] {
            assert_eq!(finder.begun(text.as_bytes()), begun, "{text}");
        }
        let both =
            [r"(?:^|[^0-9a-z]|\\[nrt])sk-or-[0-9a-z]{36}", "nsec1[a-z]{58}"].map(|pattern| head(pattern).unwrap());
        let both = Finder::new(&[(&both[0], 0), (&both[1], 1)]);
        for (text, begun) in [(r"a\n", 2), (r"a\ns", 3), ("ans", 2), ("an", 1)] {
            assert_eq!(both.begun(text.as_bytes()), begun, "{text}");
        }
        let escaped = head(r"(?:^|[^0-9a-z]|\\[nrt])ghp_[0-9a-z]{36}").unwrap();
        let escaped = Finder::new(&[(&escaped, 0)]);
        for (text, begun) in [(r"a\", 1), (r"a\n", 2), (r"a\ngh", 4), (r"\ng", 3), (r"\xg", 1), (r"\x", 0), ("n", 0)] {
            assert_eq!(escaped.begun(text.as_bytes()), begun, "{text}");
        }
        let mut found = Vec::new();
        finder.each(b"ghp_sk-antx", |group, start| found.push((group, start)));
        assert_eq!(found, [(0, 0), (1, 4)]);
    }

    proptest::proptest! {
        /// As a search at every place for every word.
        #[test]
        fn words_are_found_as_one_by_one(
            text in "(ghp_|GHP_|sk-|sk-an|ant|ABC|abc|abcd|abCdef|Send| |é|\\x00|-|0|00|eyJ|ey|!|\\[|a|<|;|Q:|q:){0,20}"
        ) {
            let patterns = ["ghp_[0-9]{9}", "sk-ant[a-z]{9}", "(?i)abc-[a-z]{9}", "(?i)abcd-", "(?i)abcdef", "(?i)send [a-z]{3}", "sk-[0-9]{9}", "eyJ[^a-z]{9}", r"!\[[a-z]{3}", "<[a-z]{9}", "(?i)q:[a-z]{9}"];
            let within = [Head::within(&parsed("[a-z]![a-z]{3}")).unwrap()];
            let heads: Vec<Head> = patterns.iter().map(|pattern| head(pattern).unwrap()).chain(within).collect();
            let numbered: Vec<(&Head, usize)> = heads.iter().zip(0..).collect();
            let mut found = Vec::new();
            Finder::new(&numbered).each(text.as_bytes(), |group, at| found.push((at, group)));
            let mut wanted = Vec::new();
            for at in 0..text.len() {
                let rest = &text.as_bytes()[at..];
                for (head, group) in &numbered {
                    for word in &head.words {
                        let there = rest.get(..word.len());
                        let same = |there: &[u8]| if head.any_case { there.eq_ignore_ascii_case(word) } else { there == &word[..] };
                        if there.is_some_and(same) {
                            wanted.push((at, *group));
                        }
                    }
                }
            }
            for all in [&mut found, &mut wanted] {
                all.sort_unstable();
                all.dedup();
            }
            proptest::prop_assert_eq!(found, wanted);
        }
    }
}
