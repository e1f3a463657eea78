//! The gate for folded text: the marked words of all anchors, for sentences with characters beyond ASCII. Used by
//! the detector, which folds what [`FoldedGate::stretch`] leaves of a text. Promises as [`super::gate`].

use std::ops::Range;

use super::anchors::Anchors;
use super::around::Around;
use super::packed::{Surrounded, WORDY, breaks, wordy};
use super::tables::{Table, Unread};
use super::trie::Vocabulary;
use crate::bits;

/// The gate for folded text of any script.
#[derive(Debug)]
pub(crate) struct FoldedGate {
    words: Vocabulary,
    /// The first anchor of each marked word.
    starts: Table<u32>,
    /// What is around the marked word of each anchor.
    around: Table<Surrounded>,
    /// Is [`breaks`] true, and are three wordy bytes in a row in every marked word?
    apart: bool,
}

impl FoldedGate {
    /// What [`super::packed`] wrote.
    pub(crate) fn read(from: &mut Unread) -> Option<Self> {
        let (words, starts, around) = (Vocabulary::read(from)?, from.table()?, from.table()?);
        Some(Self { words, starts, around, apart: from.next()?.first() == Some(&1) })
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

    /// Calls `found` with the marked word of every anchor of the folded `text`, in the order of their beginnings: an anchor is
    /// found even where one begins inside another.
    pub(crate) fn each(&self, anchors: &Anchors, text: &str, mut found: impl FnMut(Range<usize>)) {
        self.words.each(text, |place, word| {
            let start = |word: usize| self.starts.get(word).map_or(0, |start| start as usize);
            let numbers = start(word as usize)..start(word as usize + 1);
            // For one or two, the glance would cost as much as it saves.
            let around = (numbers.len() > 2)
                .then(|| text.as_bytes().split_at_checked(place.start).zip(text.as_bytes().get(place.end..)))
                .flatten()
                .map(|((before, _), behind)| Around::of(before, behind));
            let is_near = |number: &usize| match (around, self.around.get(*number)) {
                (Some(around), Some(wanted)) => around.is(wanted.around, wanted.reach),
                _ => true,
            };
            if numbers.filter(is_near).any(|number| anchors.stands(number, text, place.start)) {
                found(place);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::fold::fold;
    use super::super::plan::Anchor;
    use super::*;

    #[test]
    fn noise_is_passed_over() {
        let words = ["god", "user"].map(|text| Anchor { text: text.to_owned(), ..Anchor::default() });
        let (_, _, folded) = super::super::gates_of(words.to_vec());
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
