//! The detector on text that arrives in pieces. Called by whoever reads a body or a tool result bit by bit. Promises the
//! same findings, at the same places, as a scan of the whole, wherever the cuts fall, and to hold back no more than four
//! sentences of bounded length.

use super::score::Scratch;
use super::sentence::Piece;
use super::{Detector, Finding};

/// A text in progress.
#[derive(Debug)]
pub struct Stream<'d> {
    detector: &'d Detector,
    /// What may still be needed: from one sentence before the first that was not scored.
    held: String,
    /// Bytes of the text before `held`.
    base: usize,
    /// Position in `held` of the first sentence that was not scored.
    next: usize,
    scratch: Scratch,
}

impl<'d> Stream<'d> {
    /// The beginning of a text.
    pub fn new(detector: &'d Detector) -> Self {
        Self { detector, held: String::new(), base: 0, next: 0, scratch: Scratch::default() }
    }

    /// Takes the next piece and returns what is certain by now; positions count from the start of the text.
    pub fn push(&mut self, piece: &str) -> Vec<Finding<'d>> {
        self.held.push_str(piece);
        self.advance(false)
    }

    /// The text is over: the findings in what was held back.
    pub fn finish(mut self) -> Vec<Finding<'d>> {
        self.advance(true)
    }

    /// Bytes at the end of the text that no verdict covers yet.
    pub fn undecided(&self) -> usize {
        self.held.len() - self.next
    }

    fn advance(&mut self, last: bool) -> Vec<Finding<'d>> {
        let mut findings = Vec::new();
        let piece = Piece { text: &self.held, base: self.base, last };
        // A sentence is scored with the one behind it, so that one has to be complete as well.
        let stable = if last {
            self.held.len()
        } else {
            let complete = piece.boundary_before(self.held.len()).filter(|&at| at > self.next);
            match complete.and_then(|at| piece.boundary_before(at - 1)).filter(|&at| at > self.next) {
                Some(at) => at,
                None => return findings,
            }
        };
        self.detector.scan_piece(piece, self.next..stable, &mut self.scratch, &mut findings);
        let keep = if stable > 0 { piece.start_of(stable - 1) } else { 0 };
        self.held.drain(..keep);
        self.base += keep;
        self.next = stable - keep;
        findings
    }
}
