//! Seed phrases in a text that comes in pieces. Called by [`crate::detect`] and [`super::scan`].
//!
//! The detector reads only what may belong to a phrase: behind a word that is in no list it sleeps, and [`super::skip`] says
//! where it has to go on. Its findings are those it would make on the whole text, so cuts change nothing.

use super::chinese::Unspaced;
use super::stretch::Stretch;
use super::tagged::Tagged;
use super::{Detector, Phrase, skip};
use crate::stream::Window;

/// Bytes that the detector is given at once: it often sleeps again after a few, and what is not read must cost nothing.
const PIECE: usize = 128;

/// Where the piece from `at` ends: between characters, as far as there are any.
fn piece(bytes: &[u8], at: usize) -> usize {
    let end = bytes.len().min(at + PIECE);
    let inside = |end: &usize| bytes.get(*end).is_some_and(|byte| (0x80..0xc0).contains(byte));
    (end.saturating_sub(3)..=end).rev().find(|end| !inside(end)).unwrap_or(end).max(at + 1)
}

/// The seed phrases of one text.
#[derive(Debug, Default)]
pub(crate) struct Seeker {
    /// Kept while it sleeps: it is 5 KiB.
    detector: Option<Box<Detector>>,
    awake: bool,
    /// The beginning of a character that a later piece may complete: at most 3 bytes.
    cut: Vec<u8>,
    unspaced: Unspaced,
    tagged: Tagged,
}

impl Seeker {
    /// Takes the new piece of `window`; `last` says that the text ends with it.
    pub(crate) fn push(&mut self, window: &Window<'_>, last: bool, found: &mut Vec<Phrase>) {
        let base = window.fresh() - self.cut.len() as u64;
        if self.cut.is_empty() {
            self.take(window.new, base, last, found);
        } else {
            let mut joined = std::mem::take(&mut self.cut);
            joined.extend_from_slice(window.new);
            self.take(&joined, base, last, found);
        }
        if last
            && self.awake
            && let Some(detector) = &mut self.detector
        {
            detector.finish(found);
        }
        self.unspaced.push(window, last, found);
        self.tagged.push(window, last, found);
    }

    fn take(&mut self, bytes: &[u8], base: u64, last: bool, found: &mut Vec<Phrase>) {
        let mut text = Stretch::new(bytes);
        let mut at = 0;
        while at < bytes.len() {
            if !self.awake {
                at = skip::start(&mut text, at, last);
                if at == bytes.len() {
                    return;
                }
                self.detector.get_or_insert_default().restart(base + at as u64);
                self.awake = true;
            }
            let end = piece(bytes, at);
            at += self.read(&bytes[at..end], last || end < bytes.len(), found);
            if !self.cut.is_empty() {
                return;
            }
        }
    }

    /// Has the detector read on, until it may sleep; gives the bytes read.
    fn read(&mut self, bytes: &[u8], last: bool, found: &mut Vec<Phrase>) -> usize {
        let Some(detector) = &mut self.detector else { return bytes.len() };
        if let Ok(text) = std::str::from_utf8(bytes) {
            let read = detector.read(text, true, found);
            self.awake = read == text.len();
            return read;
        }
        let mut at = 0;
        for chunk in bytes.utf8_chunks() {
            let valid = chunk.valid();
            let read = detector.read(valid, true, found);
            at += read;
            if read < valid.len() {
                self.awake = false;
                return at;
            }
            let invalid = chunk.invalid();
            at += invalid.len();
            let unfinished = std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if !last && at == bytes.len() && unfinished {
                self.cut = invalid.to_vec();
            } else {
                // Whatever is no text separates words.
                invalid.iter().for_each(|_| {
                    detector.read("~", false, found);
                });
            }
        }
        at
    }

    /// Where the first phrase may start that is not over yet, in a text of which `end` bytes came.
    pub(crate) fn hold(&self, end: u64) -> u64 {
        let begun = self.detector.as_ref().filter(|_| self.awake).and_then(|detector| detector.begun());
        begun.unwrap_or(end).min(end - self.cut.len() as u64).min(self.unspaced.hold()).min(self.tagged.hold(end))
    }

    /// Bytes it takes beside itself.
    pub(crate) fn memory(&self) -> usize {
        self.detector.as_ref().map_or(0, |_| size_of::<Detector>()) + self.cut.capacity() + self.tagged.memory()
    }

    /// Starts over with a new text.
    pub(crate) fn clear(&mut self) {
        self.awake = false;
        self.cut.clear();
        self.unspaced = Unspaced::default();
        self.tagged = Tagged::default();
    }
}
