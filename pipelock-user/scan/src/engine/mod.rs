//! Engines: text in, hits out. [`vector`] is the fast one, [`oracle`] the plain one that keeps it honest: both must give the
//! same hits for the same text. Called by [`crate::stream`], which gives each text of the graph a [`Matcher`] of its own.
//!
//! What a hit is, is defined by the oracle: for each rule, the leftmost matches of its pattern that do not overlap, and
//! of those the ones that pass the rule's checks.

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

    /// Starts over with a new text.
    fn reset(&mut self);
}

/// Makes matchers.
pub(crate) trait Engine: Send + Sync + std::fmt::Debug {
    /// A matcher at the start of a text.
    fn open(&self) -> Result<Box<dyn Matcher>, EngineError>;

    /// What a bare pass over `text` reports, without confirming anything.
    fn reports(&self, text: &[u8]) -> Result<u64, EngineError>;

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
