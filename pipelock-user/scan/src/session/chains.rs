//! Pieces that go on what earlier ones began though something else came between: chains of them, each of which may end in what
//! comes next. Called by [`super::fragments`], which keeps them for each lane; [`super::joined`] says what goes on.
//!
//! Promises: at most [`MOST`] chains of at most [`BYTES`] bytes, of which the latest are kept: more than pieces that began something, so
//! that as many of these as there may be hide none. A secret is found in as many pieces as anybody likes where what comes
//! between is no part of a token (blanks, words), and in six where all of it might be.

use std::collections::VecDeque;

/// Chains of a lane.
const MOST: usize = 96;
/// Bytes of a chain.
const BYTES: usize = 256;

/// Pieces that may be the beginning of one secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beginning {
    pub text: Vec<u8>,
    /// Where each piece but the first begins.
    pub cuts: Vec<usize>,
    /// Whatever comes next.
    pub is_sure: bool,
}

impl Beginning {
    /// The same with a piece behind it; `None` when that is too long.
    pub(super) fn with(&self, piece: &[u8]) -> Option<Self> {
        if self.text.len() + piece.len() > BYTES {
            return None;
        }
        let cuts = self.cuts.iter().copied().chain([self.text.len()]).collect();
        Some(Self { text: [&self.text, piece].concat(), cuts, is_sure: true })
    }
}

#[derive(Debug)]
struct Chain {
    /// Of its last piece.
    number: u64,
    time: u64,
    beginning: Beginning,
}

/// The chains of a lane.
#[derive(Debug, Default)]
pub(super) struct Chains {
    chains: VecDeque<Chain>,
}

impl Chains {
    /// Adds a chain that ends in the piece of this number.
    pub(super) fn push(&mut self, number: u64, time: u64, beginning: Beginning) {
        self.chains.drain(..(self.chains.len() + 1).saturating_sub(MOST));
        self.chains.push_back(Chain { number, time, beginning });
    }

    /// All of them, the latest first.
    pub(super) fn beginnings(&self) -> impl Iterator<Item = &Beginning> {
        self.chains.iter().rev().map(|chain| &chain.beginning)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    /// Forgets those that ended so long ago.
    pub(super) fn forget(&mut self, now: u64, window: u64) {
        self.chains.retain(|chain| chain.time.saturating_add(window) > now);
    }

    /// Forgets those that end in the piece of this number, which was not sent.
    pub(super) fn take_back(&mut self, number: u64) {
        self.chains.retain(|chain| chain.number != number);
    }
}
