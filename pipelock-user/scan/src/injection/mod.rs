//! Prompt injection and state poisoning in text. Called by the engine on text that is already decoded and normalised,
//! and on the text as it came. A [`Detector`] holds the rules; [`Detector::scan`] looks at a whole text and
//! [`Stream`] at one that arrives in pieces, with the same findings. Promises no panic, bounded memory per stream and
//! work linear in the text.
//!
//! Two mechanisms share the classes: the patterns of `rules/injection/*.yaml`, which the engine runs together with all
//! other patterns, and the concept scorer in here. The scorer does not look for sentences that somebody wrote down; it
//! looks for the meeting of concepts (a verb of ignoring, earlier instructions) in one sentence, in any of its languages.

mod anchors;
mod around;
#[cfg(test)]
mod builtin;
mod class;
mod fold;
mod folded;
mod gate;
mod host;
mod lexicon;
mod own;
mod packed;
mod plan;
mod quote;
mod repeat;
mod rule;
mod score;
mod sentence;
mod stream;
mod tables;
mod trie;

use std::ops::Range;

pub use class::{Class, Confidence, Severity};
pub use lexicon::LexiconError;
pub use own::OwnText;
pub(crate) use repeat::Floods;
pub use rule::{ConceptRule, THRESHOLD};
pub use sentence::MAX_SENTENCE;
pub(crate) use stream::Held;
pub use stream::Stream;

use lexicon::Lexicon;
use score::{Computed, Scratch};
use sentence::Piece;

use crate::bits;

/// Bytes of the sentence before and of the one behind that are looked at together with a sentence.
const MAX_CONTEXT: usize = 360;

/// Longest anchor that is looked for across the end of a sentence, in bytes.
const MAX_ANCHOR: usize = 96;

/// The rules and words of the concept scorer, ready for use from any number of threads.
#[derive(Debug)]
pub struct Detector {
    lexicon: Lexicon,
    computed: Computed,
}

/// A place where a text tries to instruct its reader.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding<'d> {
    /// The rule that found it: id, class, severity and the rest.
    pub rule: &'d ConceptRule,
    /// Place in the text, in bytes, between characters.
    pub span: Range<usize>,
    /// Points; [`THRESHOLD`] and more make a finding.
    pub points: i32,
    /// Names of the concepts that spoke for it, in alphabetical order.
    pub concepts: Vec<&'d str>,
}

impl Detector {
    /// The detector with the rules and languages that ship with the crate.
    ///
    /// # Errors
    /// When the shipped files do not fit together, which the tests exclude.
    pub fn builtin() -> Result<Self, LexiconError> {
        Ok(Self::of(Lexicon::builtin()?))
    }

    /// A detector from a rules file and language files, each a pair of a name for messages and the YAML itself.
    ///
    /// # Errors
    /// Names the file and what is wrong with it: not YAML, an unknown concept, a rule that nothing could wake.
    pub fn load(rules: (&str, &str), languages: &[(&str, &str)]) -> Result<Self, LexiconError> {
        Ok(Self::of(Lexicon::load(rules, languages)?))
    }

    fn of(lexicon: Lexicon) -> Self {
        let computed = Computed::of(&lexicon);
        Self { lexicon, computed }
    }

    /// All rules of the scorer, in the order of the file.
    pub fn rules(&self) -> &[ConceptRule] {
        &self.lexicon.rules
    }

    /// The findings in a whole text, in the order of the sentences.
    pub fn scan(&self, text: &str) -> Vec<Finding<'_>> {
        let mut findings = Vec::new();
        let piece = Piece { text, base: 0, last: true };
        self.scan_piece(piece, 0..text.len(), &mut Scratch::default(), &mut findings);
        findings
    }

    /// The findings in a whole text, without those in words that the agent itself sent before.
    pub fn scan_foreign(&self, text: &str, own: &OwnText) -> Vec<Finding<'_>> {
        let mut findings = self.scan(text);
        findings.retain(|finding| !own.covers(text, &finding.span));
        findings
    }

    /// Where a token is repeated over and over in `text` (class [`Class::TokenFlooding`]), in bytes.
    pub fn floods(text: &str) -> Vec<Range<usize>> {
        let floods = repeat::floods(text.as_bytes()).into_iter();
        let bound = |at: u64| sentence::floor(text, at as usize);
        floods.map(|flood| bound(flood.start)..bound(flood.end)).collect()
    }

    /// The findings in the sentences that begin in `region` of `piece`. The sentences before and behind are context.
    fn scan_piece<'d>(
        &'d self,
        piece: Piece<'_>,
        region: Range<usize>,
        scratch: &mut Scratch,
        findings: &mut Vec<Finding<'d>>,
    ) {
        scratch.places.clear();
        self.anchors(piece, &region, scratch);
        let mut places = std::mem::take(&mut scratch.places);
        places.sort_unstable();
        let mut done = region.start;
        for &at in &places {
            if at < done || at >= region.end {
                continue;
            }
            let start = piece.start_of(at);
            let Some(end) = piece.end_of(start) else { break };
            let before = if start > 0 { piece.start_of(start - 1) } else { 0 };
            let before = before.max(sentence::floor(piece.text, start.saturating_sub(MAX_CONTEXT)));
            let behind = piece.end_of(end).unwrap_or(end).min(sentence::floor(piece.text, end + MAX_CONTEXT));
            done = end;
            let Some(window) = piece.text.get(before..behind) else { continue };
            score::score(&self.lexicon, &self.computed, window, start - before..end - before, scratch, |found| {
                let offset = piece.base + before;
                findings.push(Finding {
                    rule: &self.lexicon.rules[found.rule],
                    span: found.span.start + offset..found.span.end + offset,
                    points: found.points,
                    concepts: self.names(found.concepts),
                });
            });
        }
        scratch.places = places;
    }

    /// Puts the places of all anchors in the sentences of `region` into `scratch.places`.
    fn anchors(&self, piece: Piece<'_>, region: &Range<usize>, scratch: &mut Scratch) {
        let places = &mut scratch.places;
        let Lexicon { anchors, ascii_gate, folded_gate: gate, .. } = &self.lexicon;
        ascii_gate.each(anchors, piece.text, |at| places.push(at));
        // Everything else needs folding, which only sentences with other characters are worth.
        let bytes = piece.text.as_bytes();
        let mut wide = Wide::default();
        // What is before may say that the first sentence is read so.
        let mut from = region.start.checked_sub(1).map_or(0, |before| piece.start_of(before));
        while let Some(beyond) = beyond(bytes, from..region.end) {
            // The first is in a sentence that began earlier, and so may an anchor have.
            let start = sentence::floor(piece.text, piece.start_of(beyond.start).saturating_sub(2 * MAX_ANCHOR));
            let end = piece.end_of(piece.start_of(beyond.end - 1)).unwrap_or(bytes.len()).max(beyond.end);
            let stop = sentence::floor(piece.text, (end + MAX_ANCHOR).min(region.end) + MAX_ANCHOR);
            from = end;
            let mut at = start;
            while let Some(stretch) = gate.stretch(bytes, at..stop) {
                at = stretch.end;
                let Some(text) = piece.text.get(stretch.clone()) else { return };
                scratch.folded.fill(text);
                gate.each(anchors, &scratch.folded.text, |span| {
                    let place = stretch.start + scratch.folded.original(span.start);
                    let length = span.len();
                    if wide.covers(piece, place, length) {
                        places.push(place);
                    }
                });
            }
        }
    }

    fn names(&self, set: rule::ConceptSet) -> Vec<&str> {
        let names = self.lexicon.names.iter().enumerate();
        names.filter(|(id, _)| set >> id & 1 == 1).map(|(_, name)| name.as_str()).collect()
    }
}

/// Bytes in a row that are all ASCII, behind which it is worth to look for the end of a sentence and to leave out what follows.
const APART: usize = 256;

/// The next characters beyond ASCII in a range of `bytes`, up to the last that is not so far from the one before.
fn beyond(bytes: &[u8], range: Range<usize>) -> Option<Range<usize>> {
    let start = range.start + bits::position(bytes.get(range.clone())?, |byte| byte >= 0x80)?;
    let mut end = start + 1;
    while let Some(more) = bytes.get(end..range.end.min(end + APART))?.iter().rposition(|byte| *byte >= 0x80) {
        end += more + 1;
    }
    Some(start..end)
}

/// The sentences that are read folded: those with a character beyond ASCII, and the first bytes behind such, as an anchor may lie
/// across the place where a long sentence was cut. Keeps the last sentence it was asked about.
#[derive(Default)]
struct Wide {
    sentence: Range<usize>,
    own: bool,
    before: bool,
}

impl Wide {
    /// Is the word of so many bytes at `at` read folded?
    fn covers(&mut self, piece: Piece<'_>, at: usize, length: usize) -> bool {
        if !self.sentence.contains(&at) {
            let start = piece.start_of(at);
            let Some(end) = piece.end_of(start) else { return false };
            let wide = |range: Range<usize>| !piece.text.as_bytes().get(range).unwrap_or_default().is_ascii();
            self.own = wide(start..end);
            self.before = !self.own && start > 0 && wide(piece.start_of(start - 1)..start);
            self.sentence = start..end;
        }
        self.own || self.before && at + length <= self.sentence.start + MAX_ANCHOR
    }
}

/// The gates for these anchors.
#[cfg(test)]
fn gates_of(anchors: Vec<plan::Anchor>) -> (anchors::Anchors, gate::AsciiGate, folded::FoldedGate) {
    let packed = packed::pack(&plan::Plan { anchors, ..plan::Plan::default() }).unwrap();
    let mut unread = tables::Unread(packed.into());
    let _verb_final = unread.next();
    let anchors = anchors::Anchors::read(&mut unread).unwrap();
    (anchors, gate::AsciiGate::read(&mut unread).unwrap(), folded::FoldedGate::read(&mut unread).unwrap())
}
