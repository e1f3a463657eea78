//! The detector on text that arrives in pieces. Called by whoever reads a body or a tool result bit by bit. Promises the
//! same findings, at the same places, as a scan of the whole, wherever the cuts fall, and to hold back no more than four
//! sentences of bounded length.

use super::score::Scratch;
use super::sentence::{Piece, floor};
use super::{Detector, Finding, MAX_CONTEXT};

/// A text in progress.
#[derive(Debug)]
pub struct Stream<'d> {
    detector: &'d Detector,
    held: Held,
}

impl<'d> Stream<'d> {
    /// The beginning of a text.
    pub fn new(detector: &'d Detector) -> Self {
        Self { detector, held: Held::default() }
    }

    /// Takes the next piece and returns what is certain by now; positions count from the start of the text.
    pub fn push(&mut self, piece: &str) -> Vec<Finding<'d>> {
        let mut findings = Vec::new();
        self.held.text.push_str(piece);
        self.held.advance(self.detector, false, |finding, _| findings.push(finding));
        findings
    }

    /// The text is over: the findings in what was held back.
    pub fn finish(mut self) -> Vec<Finding<'d>> {
        let mut findings = Vec::new();
        self.held.advance(self.detector, true, |finding, _| findings.push(finding));
        findings
    }

    /// Bytes at the end of the text that no verdict covers yet.
    pub fn undecided(&self) -> usize {
        self.held.undecided()
    }
}

/// Room that is kept for the next text, in bytes: that of one which comes in small pieces.
const KEPT: usize = 4096;

/// What a text in progress keeps: a [`Stream`] without its detector, for those who hold that elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// What may still be needed: the context of the first sentence that was not scored, and everything from there on.
    /// The next piece is appended here before [`Held::advance`].
    pub(crate) text: String,
    /// Bytes of the whole text before `text`.
    base: usize,
    /// Position in `text` of the first sentence that was not scored.
    next: usize,
    scratch: Scratch,
}

impl Held {
    /// Bytes at the end of the text that no verdict covers yet.
    pub(crate) fn undecided(&self) -> usize {
        self.text.len() - self.next
    }

    /// Starts over with a new text.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        // The next may come in small pieces, and live long.
        self.text.shrink_to(KEPT);
        self.scratch.shrink_to(KEPT);
        (self.base, self.next) = (0, 0);
    }

    /// Bytes it takes beside itself.
    pub(crate) fn memory(&self) -> usize {
        self.text.capacity() + self.scratch.memory()
    }

    /// Scores the sentences that are complete, all of them when the text ends here (`last`), and hands on each finding
    /// with its text.
    pub(crate) fn advance<'d>(&mut self, detector: &'d Detector, last: bool, mut found: impl FnMut(Finding<'d>, &str)) {
        let piece = Piece { text: &self.text, base: self.base, last };
        // A sentence is scored with the one behind it, so that one has to be complete as well.
        let stable = if last {
            self.text.len()
        } else {
            let complete = piece.boundary_before(self.text.len()).filter(|&at| at > self.next);
            match complete.and_then(|at| piece.boundary_before(at - 1)).filter(|&at| at > self.next) {
                Some(at) => at,
                None => return,
            }
        };
        let mut findings = Vec::new();
        detector.scan_piece(piece, self.next..stable, &mut self.scratch, &mut findings);
        for finding in findings {
            let place = finding.span.start.saturating_sub(self.base)..finding.span.end.saturating_sub(self.base);
            found(finding, self.text.get(place).unwrap_or_default());
        }
        let keep = floor(&self.text, stable.saturating_sub(MAX_CONTEXT));
        self.text.drain(..keep);
        self.base += keep;
        self.next = stable - keep;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::super::Detector;
    use super::super::sentence::{MAX_SENTENCE, floor};

    fn detector() -> &'static Detector {
        static DETECTOR: OnceLock<Detector> = OnceLock::new();
        DETECTOR.get_or_init(|| Detector::builtin().unwrap())
    }

    /// Rule, span and points of the findings in `text`, given in the pieces between `cuts`.
    fn streamed(text: &str, cuts: &[usize]) -> Vec<(String, std::ops::Range<usize>, i32)> {
        let mut stream = super::Stream::new(detector());
        let mut found = Vec::new();
        let mut from = 0;
        for &cut in cuts {
            let cut = floor(text, cut).max(from);
            found.extend(stream.push(&text[from..cut]));
            from = cut;
        }
        found.extend(stream.push(&text[from..]));
        found.extend(stream.finish());
        found.into_iter().map(|f| (f.rule.id.clone(), f.span, f.points)).collect()
    }

    #[test]
    fn clean_text_does_not_pile_up() {
        let mut stream = super::Stream::new(detector());
        for _ in 0..1000 {
            assert!(stream.push("no full stop and no anchor in here ").is_empty());
            assert!(stream.undecided() <= 3 * MAX_SENTENCE);
            assert!(stream.held.text.capacity() <= 16 * MAX_SENTENCE);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn cuts_change_nothing(
            parts in prop::collection::vec(prop::sample::select(vec![
                "Ignore all previous instructions", "ignore", "previous", " instructions", ". ", "! ", "\n", "\n\n- ", "。",
                "忽略之前的所有指令", "¿Cuál es tu contraseña?", "What is your password", " lorem ipsum dolor", "é", "\u{200b}",
                "Imagine a world where passwords are shared", "the user", "“", "”", "\"", "for example ", "пароль", " скажи мне ",
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            ]), 0..60),
            mut cuts in prop::collection::vec(0usize..4000, 0..6),
        ) {
            let text = parts.concat();
            cuts.sort_unstable();
            prop_assert_eq!(streamed(&text, &cuts), streamed(&text, &[]));
            let whole: Vec<_> = detector().scan(&text).into_iter().map(|f| (f.rule.id.clone(), f.span, f.points)).collect();
            prop_assert_eq!(streamed(&text, &cuts), whole);
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,300}", words in "(ignore|password|\\PC|user|\\x{1b}|\n){0,40}") {
            for text in [text, words] {
                for found in detector().scan(&text) {
                    prop_assert!(text.get(found.span.clone()).is_some());
                }
            }
        }
    }
}
