//! The fast engine: one vectorscan pass over the rules finds where matches are ([`super::sparse`] does for the few that would
//! cost vectorscan most), [`super::confirm`] says what they are. Called by [`crate::stream`].
//!
//! Promises: a text that comes whole goes through the block database, one in pieces through the stream database; both
//! give the oracle's matches. Scratch memory is pooled, and a matcher that is put back keeps its stream state.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pipelock_hs::{Database, Mode, Scratch, Stream};

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
    block: Database,
    stream: Arc<Database>,
    /// Rules that are in no database.
    sparse: Vec<Sparse>,
    /// The rules in the databases, in their order there.
    numbers: Vec<u32>,
    scratch: Mutex<Vec<Scratch>>,
    /// Of all rules, and of those that are telling: these are asked about what is put together from pieces.
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
        let patterns: Vec<String> = dense.iter().map(|rule| dialect::of(rule.pattern.hir())).collect();
        // Side by side: each takes a second or more.
        let (block, stream) = std::thread::scope(|scope| {
            let stream = || compile(&dense, patterns.clone(), Mode::Stream);
            let other = std::thread::Builder::new().name("compile".into()).spawn_scoped(scope, stream);
            let block = compile(&dense, patterns.clone(), Mode::Block)?;
            let stream = match other {
                // A panic of the other thread goes on in this one.
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
                // Where no thread can be had, one after the other.
                Err(_) => stream()?,
            };
            Ok::<_, EngineError>((block, stream))
        })?;
        Ok(Self::of(rules.len(), sparse, block, stream))
    }

    /// From databases that are there, over all of `count` rules but the sparse ones.
    pub(crate) fn of(count: usize, sparse: Vec<Sparse>, block: Database, stream: Database) -> Self {
        let numbers = (0u32..).take(count).filter(|rule| !sparse.iter().any(|sparse| sparse.rule == *rule)).collect();
        let stream = Arc::new(stream);
        let (scratch, holdback) = (Mutex::default(), [const { OnceLock::new() }; 3]);
        Self { shared: Arc::new(Shared { block, stream, sparse, numbers, scratch, holdback }) }
    }

    pub(crate) fn databases(&self) -> (&Database, &Database) {
        (&self.shared.block, &self.shared.stream)
    }

    pub(crate) fn sparse(&self) -> &[Sparse] {
        &self.shared.sparse
    }
}

/// The patterns as vectorscan gets them.
pub(crate) fn patterns(rules: &[Rule]) -> Vec<String> {
    rules.iter().map(|rule| dialect::of(rule.pattern.hir())).collect()
}

/// How much of a pattern is tried when vectorscan finds it too large, in bytes.
const BEGINNINGS: [usize; 4] = [300, 100, 32, 8];

fn compile(rules: &[&Rule], mut patterns: Vec<String>, mode: Mode) -> Result<Database, EngineError> {
    loop {
        let error = match Database::compile(&patterns, mode) {
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
            None => Scratch::new(&[&self.block, &self.stream])?,
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
            stream: None,
            started: false,
            start: 0,
            places: Vec::new(),
            confirm: Confirm::default(),
            near: Mutex::default(),
        }))
    }

    fn reports(&self, text: &[u8]) -> Result<u64, EngineError> {
        let mut count = 0;
        self.shared.with_scratch(|scratch| self.shared.block.scan(scratch, text, |_, _| count += 1))?;
        let window = Window { first: 0, old: &[], new: text };
        let mut runs = Runs::default();
        runs.look(&self.shared.sparse, text);
        self.shared.sparse.iter().for_each(|sparse| sparse.search(&window, &runs, &mut 0, |_, _| count += 1));
        Ok(count)
    }

    fn matcher_size(&self) -> usize {
        let near = self.shared.holdback.iter().filter_map(OnceLock::get).map(HoldBack::near_size).max();
        self.shared.stream.stream_size() + near.unwrap_or_default()
    }
}

#[derive(Debug)]
struct Fast {
    shared: Arc<Shared>,
    /// Opened by the first piece of a text that does not come whole, then kept.
    stream: Option<Stream>,
    started: bool,
    /// Offset of the text's first byte.
    start: u64,
    /// Where the search for each sparse rule goes on.
    places: Vec<u64>,
    confirm: Confirm,
    /// Locked by nobody else: whoever asks how much is to be held only looks.
    near: Mutex<Near>,
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
        let confirm = &mut self.confirm;
        if !self.started {
            self.start = window.end() - window.new.len() as u64;
            self.places.clear();
            self.places.resize(shared.sparse.len(), self.start);
        }
        let start = self.start;
        let mut runs = Runs::default();
        runs.look(&shared.sparse, window.new);
        let counts =
            |rule: u32| !telling || rules.rules().get(rule as usize).is_some_and(crate::rule::Rule::is_telling);
        for (sparse, at) in shared.sparse.iter().zip(&mut self.places).filter(|(sparse, _)| counts(sparse.rule)) {
            sparse.search(window, &runs, at, |first, last| confirm.note_all(rules, sparse.rule, first, last));
        }
        let number = |id: u32| shared.numbers.get(id as usize).copied().unwrap_or(u32::MAX);
        let note = |id: u32, end: u64| {
            let rule = number(id);
            if counts(rule) {
                confirm.note(rules, rule, start + end);
            }
        };
        if !self.started && last && window.new.len() < u32::MAX as usize {
            shared.with_scratch(|scratch| shared.block.scan(scratch, window.new, note))?;
        } else if !window.new.is_empty() {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                empty => empty.insert(Stream::open(&shared.stream)?),
            };
            self.started = true;
            shared.with_scratch(|scratch| stream.scan(scratch, window.new, note))?;
        }
        if !self.confirm.is_empty() {
            self.confirm.resolve(rules, window, last, matches);
        }
        Ok(())
    }

    fn hold(&self, rules: &RuleSet, telling: bool, window: &Window<'_>) -> u64 {
        let holdback = self.shared.holdback(rules, telling);
        let longest = rules.longest() as u64;
        let end = window.end();
        let from = end.saturating_sub(longest).max(window.start());
        let mut near = self.near.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = window.with(from..end, |text| end - holdback.of(text, end, &mut near) as u64);
        self.confirm.hold(rules).map_or(begun, |pending| pending.min(begun))
    }

    fn begun(&self, rules: &RuleSet, pieces: bool, text: &[u8]) -> Begun {
        let shared = &self.shared;
        let holdback = if pieces { shared.holdback(rules, true) } else { shared.holdback_of_piece(rules) };
        holdback.begun(&text[text.len() - rules.longest().min(text.len())..])
    }

    fn reset(&mut self) {
        self.confirm.clear();
        self.near.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        if self.started {
            self.started = false;
            // A stream that cannot be put back is not kept.
            if self.stream.as_mut().is_some_and(|stream| stream.reset().is_err()) {
                self.stream = None;
            }
        }
    }
}
