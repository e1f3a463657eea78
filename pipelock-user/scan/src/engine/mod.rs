//! Engines: text in, hits out. [`vector`] is the fast one, [`oracle`] the plain one that keeps it honest: both must give the
//! same hits for the same text. Called by [`crate::stream`], which gives each text of the graph a [`Matcher`] of its own.
//!
//! What a hit is, is defined by the oracle: for each rule, the leftmost matches of its pattern that do not overlap, and
//! of those the ones that pass the rule's checks.

mod awaited;
pub(crate) mod cache;
mod confirm;
mod dialect;
mod heads;
pub(crate) mod holdback;
pub(crate) mod oracle;
mod sparse;
pub(crate) mod vector;

use std::ops::Range;

use crate::rule::RuleSet;
use crate::stream::Window;

/// A match of a rule that passed its checks. Offsets count from the start of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// Index of the rule in its set.
    pub(crate) rule: usize,
    /// The whole match.
    pub(crate) span: Range<u64>,
    /// The secret in it.
    pub(crate) secret: Range<u64>,
}

/// Finds the matches of one text that comes in pieces.
pub(crate) trait Matcher: Send + std::fmt::Debug {
    /// Looks at the new piece of `window`; `last` says that the text ends with it. What is certain is appended to
    /// `matches`; with `telling`, of the rules that are so alone.
    fn push(
        &mut self,
        rules: &RuleSet,
        telling: bool,
        window: &Window<'_>,
        last: bool,
        matches: &mut Vec<Match>,
    ) -> Result<(), EngineError>;

    /// Where the first match may start that has not been reported; the rest as in the last push.
    fn hold(&self, rules: &RuleSet, telling: bool, window: &Window<'_>) -> u64;

    /// How much at the end of an open text, of which nothing was pushed, may be the beginning of a match of a telling rule. With
    /// `pieces`, the text is made of some each of which may be the first of one.
    fn begun(&self, rules: &RuleSet, pieces: bool, text: &[u8]) -> Begun;

    /// Starts over with a new text.
    fn reset(&mut self);
}

/// How many bytes at the end of a text may be the beginning of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Begun {
    /// Whatever comes next.
    pub(crate) open: usize,
    /// When [`Engine::awaits`] nothing in what comes next; at most as many.
    pub(crate) sure: usize,
}

impl Begun {
    /// So many bytes, whatever comes next.
    pub(crate) fn all(bytes: usize) -> Self {
        Self { open: bytes, sure: bytes }
    }

    /// How many, where `awaits` tells whether something is awaited of what comes next.
    pub(crate) fn when(self, awaits: impl FnOnce() -> bool) -> usize {
        if self.open > self.sure && awaits() { self.open } else { self.sure }
    }

    /// The more of both.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { open: self.open.max(other.open), sure: self.sure.max(other.sure) }
    }
}

/// Makes matchers.
pub(crate) trait Engine: Send + Sync + std::fmt::Debug {
    /// A matcher at the start of a text.
    fn open(&self) -> Result<Box<dyn Matcher>, EngineError>;

    /// What a bare pass over `text` reports, without confirming anything.
    fn reports(&self, text: &[u8]) -> Result<u64, EngineError>;

    /// May a word that matches need which begin with anything be in `new`, or begin at the end of `old`?
    fn awaits(&self, _rules: &RuleSet, _telling: bool, _old: &[u8], _new: &[u8]) -> bool {
        true
    }

    /// Bytes one open matcher takes, apart from what it has pending.
    fn matcher_size(&self) -> usize;

    /// Does it report only at the text's end, so that all of the text must be kept until then?
    fn reports_last(&self) -> bool {
        false
    }
}

/// The engine could not run: whoever scans must take the text for dirty.
#[derive(Debug, thiserror::Error)]
#[error("the scan engine failed, so nothing may pass: {0}")]
pub struct EngineError(#[from] pub(crate) pipelock_hs::Error);
