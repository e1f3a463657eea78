//! The fast engine: one vectorscan pass over the rules finds where matches are ([`super::sparse`] does for the few that would
//! cost vectorscan most), [`super::confirm`] says what they are. Called by [`crate::stream`].
//!
//! Promises: the oracle's matches, whether a text comes whole or in pieces. Each piece is searched by itself with what
//! [`super::holdback`] says may be the beginning of a match before it, which the text's reader has asked for anyway. Vectorscan has
//! streams for this, which do half again the work: they follow through every byte what may be going on, and are compiled apart.
//! Scratch memory is pooled.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pipelock_hs::{Database, Scratch};

use super::confirm::Confirm;
use super::holdback::{Asked, HoldBack, Near};
use super::sparse::{Runs, Sparse};
use super::{Begun, Engine, EngineError, Match, Matcher, dialect};
use crate::rule::{Rule, RuleSet};
use crate::stream::Window;

/// The compiled rules.
#[derive(Clone, Debug)]
pub(crate) struct Vector {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    /// Rules that are not in the database.
    sparse: Vec<Sparse>,
    /// The rules in the database, in their order there.
    numbers: Vec<u32>,
    scratch: Mutex<Vec<Scratch>>,
    /// Of all rules; of telling ones, for pieces put together; of these, for one.
    holdback: [OnceLock<HoldBack>; 3],
}

impl Vector {
    /// Compiles the rules: seconds. [`super::cache`] keeps the result.
    pub(crate) fn compile(rules: &[Rule]) -> Result<Self, EngineError> {
        let sparse: Vec<Sparse> =
            rules.iter().enumerate().filter_map(|(index, rule)| Sparse::of(index, rule)).collect();
        let dense = |rule: &u32| !sparse.iter().any(|sparse| sparse.rule == *rule);
        let dense: Vec<&Rule> = (0..).zip(rules).filter(|(index, _)| dense(index)).map(|(_, rule)| rule).collect();
        let database = compile(&dense)?;
        Ok(Self::of(rules.len(), sparse, database))
    }

    /// From a database that is there, over all of `count` rules but the sparse ones.
    pub(crate) fn of(count: usize, sparse: Vec<Sparse>, database: Database) -> Self {
        let numbers = (0u32..).take(count).filter(|rule| !sparse.iter().any(|sparse| sparse.rule == *rule)).collect();
        let (scratch, holdback) = (Mutex::default(), [const { OnceLock::new() }; 3]);
        Self { shared: Arc::new(Shared { database, sparse, numbers, scratch, holdback }) }
    }

    pub(crate) fn database(&self) -> &Database {
        &self.shared.database
    }

    pub(crate) fn sparse(&self) -> &[Sparse] {
        &self.shared.sparse
    }
}

/// The patterns as vectorscan gets them.
pub(crate) fn patterns<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> Vec<String> {
    rules.into_iter().map(|rule| dialect::of(rule.pattern.hir())).collect()
}

/// How much of a pattern is tried when vectorscan finds it too large, in bytes.
const BEGINNINGS: [usize; 4] = [300, 100, 32, 8];

fn compile(rules: &[&Rule]) -> Result<Database, EngineError> {
    let mut patterns = patterns(rules.iter().copied());
    loop {
        let error = match Database::compile(&patterns) {
            Ok(database) => return Ok(database),
            Err(error) => error,
        };
        let at = match &error {
            pipelock_hs::Error::Pattern { index, .. } => usize::try_from(*index).ok(),
            _ => None,
        };
        let smaller = at.and_then(|at| {
            let (rule, pattern) = (rules.get(at)?, patterns.get_mut(at)?);
            // Without assertions first: with them vectorscan may see that a pattern never matches, and refuse it.
            let bare = dialect::without_assertions(pattern);
            let shorter = BEGINNINGS.iter().map(|bytes| dialect::beginning_of(rule.pattern.hir(), *bytes));
            let mut tried = std::iter::once(bare).chain(shorter.map(|text| dialect::without_assertions(&text)));
            *pattern = tried.find(|shorter| shorter.len() < pattern.len())?;
            Some(())
        });
        if smaller.is_none() {
            return Err(error.into());
        }
    }
}

fn telling_of(rules: &RuleSet) -> impl Iterator<Item = &Rule> {
    rules.rules().iter().filter(|rule| rule.is_telling())
}

impl Shared {
    fn holdback(&self, rules: &RuleSet, telling: bool) -> &HoldBack {
        let [all, pieces, _] = &self.holdback;
        if telling {
            pieces.get_or_init(|| HoldBack::new(telling_of(rules), Asked::Pieces))
        } else {
            all.get_or_init(|| HoldBack::new(rules.rules(), Asked::Text))
        }
    }

    fn holdback_of_piece(&self, rules: &RuleSet) -> &HoldBack {
        let [_, _, piece] = &self.holdback;
        piece.get_or_init(|| HoldBack::new(telling_of(rules), Asked::Piece))
    }

    fn with_scratch<T>(
        &self,
        run: impl FnOnce(&mut Scratch) -> Result<T, pipelock_hs::Error>,
    ) -> Result<T, EngineError> {
        let pooled = self.scratch.lock().ok().and_then(|mut pool| pool.pop());
        let mut scratch = match pooled {
            Some(scratch) => scratch,
            None => Scratch::new(&self.database)?,
        };
        let result = run(&mut scratch);
        if let Ok(mut pool) = self.scratch.lock() {
            pool.push(scratch);
        }
        Ok(result?)
    }
}

impl Engine for Vector {
    fn awaits(&self, rules: &RuleSet, telling: bool, old: &[u8], new: &[u8]) -> bool {
        self.shared.holdback(rules, telling).awaits(old, new)
    }

    fn open(&self) -> Result<Box<dyn Matcher>, EngineError> {
        Ok(Box::new(Fast {
            shared: Arc::clone(&self.shared),
            started: false,
            places: Vec::new(),
            confirm: Confirm::default(),
            asked: Mutex::default(),
        }))
    }

    fn reports(&self, text: &[u8]) -> Result<u64, EngineError> {
        let mut count = 0;
        self.shared.with_scratch(|scratch| self.shared.database.scan(scratch, text, |_, _| count += 1))?;
        let window = Window { first: 0, old: &[], new: text };
        let mut runs = Runs::default();
        runs.look(&self.shared.sparse, text);
        self.shared.sparse.iter().for_each(|sparse| sparse.search(&window, &runs, &mut 0, |_, _| count += 1));
        Ok(count)
    }

    fn matcher_size(&self) -> usize {
        self.shared.holdback.iter().filter_map(OnceLock::get).map(HoldBack::near_size).max().unwrap_or_default()
    }
}

#[derive(Debug)]
struct Fast {
    shared: Arc<Shared>,
    started: bool,
    /// Where the search for each sparse rule goes on.
    places: Vec<u64>,
    confirm: Confirm,
    /// Locked by nobody else: whoever asks how much is to be held only looks.
    asked: Mutex<Open>,
}

/// What hold-back said last.
#[derive(Debug, Default)]
struct Open {
    near: Near,
    /// Matches that had begun in the text up to `end`, and may go on, begin at `from` or behind.
    from: u64,
    end: u64,
}

/// Bytes of a text since hold-back was asked about it, up to which it is not asked again.
const UNASKED: u64 = 2048;
/// Bytes of a piece up to which it is copied to stand behind what is open before it; of a longer one only the beginning is, and
/// searched twice.
const JOINED: usize = if cfg!(test) { 1 << 12 } else { 1 << 16 };
/// Bytes that vectorscan gets at a time: it takes less than 4 GiB.
const PASS: usize = if cfg!(test) { 1 << 14 } else { 1 << 30 };

impl Open {
    /// Where the first match may begin that goes on behind the end of `window`.
    fn at_end_of(&mut self, holdback: &HoldBack, longest: u64, window: &Window<'_>) -> u64 {
        let end = window.end();
        let from = end.saturating_sub(longest).max(window.start());
        self.from = window.with(from..end, |text| end - holdback.of(text, end, &mut self.near) as u64);
        self.end = end;
        self.from
    }
}

impl Fast {
    /// Where the first match may begin that goes on in the new piece of `window`.
    fn open_before(&mut self, rules: &RuleSet, telling: bool, window: &Window<'_>) -> u64 {
        let fresh = window.fresh();
        let longest = rules.longest() as u64;
        let asked = self.asked.get_mut().unwrap_or_else(PoisonError::into_inner);
        // A match that began before that end was open there.
        let from = if self.started && fresh >= asked.end && fresh - asked.end <= UNASKED {
            asked.from
        } else {
            let before = Window { new: &[], ..*window };
            asked.at_end_of(self.shared.holdback(rules, telling), longest, &before)
        };
        from.max(fresh.saturating_sub(longest)).max(window.start())
    }
}

impl Shared {
    /// Calls `note` with the reports of matches that end in the new piece of `window`, or at its beginning, and begin at `open` or
    /// behind: the number of the rule in the database, and the offset. There may be others.
    fn search(
        &self,
        longest: usize,
        window: &Window<'_>,
        open: u64,
        mut note: impl FnMut(u32, u64),
    ) -> Result<(), EngineError> {
        let (fresh, end) = (window.fresh(), window.end());
        // Every match that ends up to `to` and begins at `from`, if nothing looks around there, or behind. The end of what is searched
        // is taken for that of the text: at the text's true end it is, and elsewhere the match is open, and searched for again.
        let mut pass = |from: u64, to: u64| {
            let report = |id, end| {
                // All others were given for an earlier piece.
                if from + end >= fresh {
                    note(id, from + end);
                }
            };
            window.with(from..to, |text| self.with_scratch(|scratch| self.database.scan(scratch, text, report)))
        };
        let before = open.min(fresh).saturating_sub(1).max(window.start());
        if window.new.len() <= JOINED {
            return pass(before, end);
        }
        let longest = longest as u64 + 1;
        if before < fresh {
            pass(before, (fresh + longest).min(end))?;
        }
        let mut from = fresh;
        while from < end {
            let to = from.saturating_add(PASS as u64).min(end);
            pass(from.saturating_sub(longest).max(fresh), to)?;
            from = to;
        }
        Ok(())
    }
}

impl Matcher for Fast {
    fn push(
        &mut self,
        rules: &RuleSet,
        telling: bool,
        window: &Window<'_>,
        last: bool,
        matches: &mut Vec<Match>,
    ) -> Result<(), EngineError> {
        let shared = Arc::clone(&self.shared);
        let fresh = window.fresh();
        // What stands before a text's first piece is not of it.
        let open = if self.started { self.open_before(rules, telling, window) } else { fresh };
        if !self.started {
            self.places.clear();
            self.places.resize(shared.sparse.len(), fresh);
            let asked = self.asked.get_mut().unwrap_or_else(PoisonError::into_inner);
            (asked.from, asked.end) = (fresh, fresh);
            self.started = true;
        }
        let confirm = &mut self.confirm;
        let mut runs = Runs::default();
        runs.look(&shared.sparse, window.new);
        let counts =
            |rule: u32| !telling || rules.rules().get(rule as usize).is_some_and(crate::rule::Rule::is_telling);
        for (sparse, at) in shared.sparse.iter().zip(&mut self.places).filter(|(sparse, _)| counts(sparse.rule)) {
            sparse.search(window, &runs, at, |first, last| confirm.note_all(rules, sparse.rule, first, last));
        }
        if !window.new.is_empty() {
            shared.search(rules.longest(), window, open, |id, end| {
                let rule = shared.numbers.get(id as usize).copied().unwrap_or(u32::MAX);
                if counts(rule) {
                    confirm.note(rules, rule, end);
                }
            })?;
        }
        if !self.confirm.is_empty() {
            self.confirm.resolve(rules, window, last, matches);
        }
        Ok(())
    }

    fn hold(&self, rules: &RuleSet, telling: bool, window: &Window<'_>) -> u64 {
        let holdback = self.shared.holdback(rules, telling);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = asked.at_end_of(holdback, rules.longest() as u64, window);
        self.confirm.hold(rules).map_or(begun, |pending| pending.min(begun))
    }

    fn begun(&self, rules: &RuleSet, pieces: bool, text: &[u8]) -> Begun {
        let shared = &self.shared;
        let holdback = if pieces { shared.holdback(rules, true) } else { shared.holdback_of_piece(rules) };
        holdback.begun(&text[text.len() - rules.longest().min(text.len())..])
    }

    fn reset(&mut self) {
        self.confirm.clear();
        self.asked.get_mut().unwrap_or_else(PoisonError::into_inner).near.clear();
        self.started = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::oracle::Oracle;
    use super::*;

    /// The matches of a text in pieces of so many bytes, where hold-back is asked behind every so many of them.
    fn matches(engine: &dyn Engine, rules: &RuleSet, text: &[u8], size: usize, asked: usize) -> Vec<Match> {
        let mut matcher = engine.open().unwrap();
        let mut found = Vec::new();
        for (number, at) in (0..text.len()).step_by(size).enumerate() {
            let end = (at + size).min(text.len());
            let window = Window { first: 0, old: &text[..at], new: &text[at..end] };
            matcher.push(rules, false, &window, end == text.len(), &mut found).unwrap();
            if number % asked == asked - 1 {
                let window = Window { first: 0, old: &text[..end], new: &[] };
                assert!(matcher.hold(rules, false, &window) <= end as u64);
            }
        }
        found.sort_by_key(|found| (found.rule, found.span.start));
        found
    }

    #[test]
    fn pieces_have_the_matches_of_the_whole() {
        let rule = |id, pattern| {
            format!("{{id: {id}, name: a, kind: dlp, class: credential, severity: low, pattern: '{pattern}'}}")
        };
        let all = [
            rule("a", r"key-[a-z]{2,9}\b"),
            rule("b", r"\Bx[0-9]{3}\B"),
            rule("c", r"(?:^|[^a-z])ab{1,40}c(?:[^a-z]|$)"),
            rule("d", r"begin [a-z ]{200,1500} end"),
            rule("e", r"\b-q[0-9]{2}"),
        ];
        let rules = RuleSet::read(&[("test", &format!("rules: [{}]", all.join(",")))]).unwrap();
        let engine = Vector::compile(rules.rules()).unwrap();
        let mut text = Vec::new();
        let parts = [
            "key-abcdefghijk key-abc ax123b x123 x12 ax1234 abbbc\nabbc- abc",
            "k-q12 -q12 begin ",
            &"some words ".repeat(100),
            "end abbbbbbbbbbc",
            &". ".repeat(1500),
            "key-zz",
        ];
        for part in parts.iter().cycle().take(36) {
            text.extend_from_slice(part.as_bytes());
        }
        let wanted = matches(&Oracle, &rules, &text, text.len(), 1);
        let rules_found: std::collections::BTreeSet<_> = wanted.iter().map(|found| found.rule).collect();
        assert_eq!(rules_found.len(), all.len(), "each rule has one");
        for size in [1, 7, 64, 700, 2047, 4095, 4096, 4097, 5000, 16_385, text.len()] {
            for asked in [1, 3, usize::MAX] {
                assert_eq!(matches(&engine, &rules, &text, size, asked), wanted, "pieces of {size}, asked {asked}");
            }
        }
    }
}
