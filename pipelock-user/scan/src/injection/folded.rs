//! The gate for folded text: an automaton over the words of all anchors, for sentences with characters beyond ASCII. Used by
//! the detector, which folds what [`FoldedGate::stretch`] leaves of a text. Promises as [`super::gate`].

use std::collections::BTreeMap;
use std::ops::Range;

use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous;
use aho_corasick::{Anchored, BuildError, MatchKind};

use super::gate::{Around, Reach};
use super::plan::Anchor;
use crate::bits;

/// The gate for folded text of any script: an automaton over the marked words of all anchors.
#[derive(Debug)]
pub(crate) struct FoldedGate {
    automaton: contiguous::NFA,
    /// The anchors of each marked word, with what is around it.
    anchors: Vec<Vec<(Around, Reach, Anchor)>>,
    /// Is [`breaks`] true, and are three wordy bytes in a row in every marked word?
    apart: bool,
}

/// Bytes that no anchor holds, and that stay what they are when text is folded: what stands between them is read by itself.
fn breaks(byte: u8) -> bool {
    (byte == b'~') | (byte == 0x7f) | (byte < b'\t') | (byte.wrapping_sub(0x0e) < 0x12)
}

/// What words are made of, in ASCII and beyond: those of anchors have three bytes of it in a row, whatever they are folded from.
fn wordy(byte: u8) -> bool {
    ((byte | 0x20).wrapping_sub(b'a') < 26) | (byte.wrapping_sub(b'0') < 10) | (byte == b'_') | (byte >= 0x80)
}

/// Least wordy bytes in a row.
const WORDY: usize = 3;

impl FoldedGate {
    /// The gate for `anchors`.
    ///
    /// # Errors
    /// When the automaton would be too large.
    pub(crate) fn new(anchors: Vec<Anchor>) -> Result<Self, BuildError> {
        let mut by_word: BTreeMap<String, Vec<(Around, Reach, Anchor)>> = BTreeMap::new();
        let apart = anchors.iter().all(|anchor| {
            let word = anchor.word().as_bytes();
            !anchor.text.bytes().any(breaks) && bits::run(word, WORDY, wordy).is_some()
        });
        for anchor in anchors {
            let around = anchor.around(anchor.word().len());
            by_word.entry(anchor.word().to_owned()).or_default().push((around, around.reach(), anchor));
        }
        let automaton =
            contiguous::NFA::builder().match_kind(MatchKind::Standard).prefilter(false).build(by_word.keys())?;
        Ok(Self { automaton, anchors: by_word.into_values().collect(), apart })
    }

    /// Does [`stretch`](Self::stretch) leave anything out?
    #[cfg(test)]
    pub(crate) fn is_apart(&self) -> bool {
        self.apart
    }

    /// The next part of `bytes`, in `range`, that may hold an anchor, from a byte that none holds to the next such: noise has few
    /// letters in a row.
    pub(crate) fn stretch(&self, bytes: &[u8], range: Range<usize>) -> Option<Range<usize>> {
        if !self.apart {
            return (!range.is_empty()).then_some(range);
        }
        let rest = bytes.get(range.clone())?;
        let word = bits::run(rest, WORDY, wordy)?;
        let start = rest.get(..word)?.iter().rposition(|byte| breaks(*byte)).map_or(0, |at| at + 1);
        let end = bits::position(rest.get(word..)?, breaks).map_or(rest.len(), |at| word + at);
        Some(range.start + start..range.start + end)
    }

    /// Calls `found` with the marked word of every anchor of the folded `text`, in the order of their ends. The walk never
    /// restarts, so an anchor is found even where one begins inside another.
    pub(crate) fn each(&self, text: &str, mut found: impl FnMut(Range<usize>)) {
        let Ok(mut state) = self.automaton.start_state(Anchored::No) else { return };
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            state = self.automaton.next_state(Anchored::No, state, byte);
            if !(self.automaton.is_special(state) && self.automaton.is_match(state)) {
                continue;
            }
            for index in 0..self.automaton.match_len(state) {
                let pattern = self.automaton.match_pattern(state, index);
                let start = at + 1 - self.automaton.pattern_len(pattern);
                let anchors = self.anchors.get(pattern.as_usize()).map_or(&[][..], Vec::as_slice);
                // For one or two, the glance would cost as much as it saves.
                let around =
                    (anchors.len() > 2).then(|| Around::of(&text.as_bytes()[..start], &text.as_bytes()[at + 1..]));
                let near = |wanted, reach| around.is_none_or(|around| around.is(wanted, reach));
                if anchors.iter().any(|(wanted, reach, anchor)| near(*wanted, *reach) && anchor.stands(text, start)) {
                    found(start..at + 1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fold::fold;
    use super::*;

    #[test]
    fn noise_is_passed_over() {
        let words = ["god", "user"].map(|text| Anchor { text: text.to_owned(), ..Anchor::default() });
        let folded = FoldedGate::new(words.to_vec()).unwrap();
        let text = "~a~bc god~\u{7f}\u{1}xy~ab\u{e9} the user~ x \u{1}\u{2}";
        let mut parts = Vec::new();
        let mut at = 0;
        while let Some(part) = folded.stretch(text.as_bytes(), at..text.len()) {
            parts.push(&text[part.clone()]);
            at = part.end;
        }
        assert_eq!(parts, ["bc god", "ab\u{e9} the user"]);
    }

    /// No character of two bytes is three letters of ASCII, so those are three bytes before folding too.
    #[test]
    fn few_letters_are_folded_from_one() {
        for char in '\u{80}'..'\u{800}' {
            let folded = fold(&char.to_string());
            assert!(bits::run(folded.as_bytes(), WORDY, |byte| byte < 0x80 && wordy(byte)).is_none(), "{char}");
        }
    }
}
