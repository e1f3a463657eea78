//! One text through the scanner, in pieces: memory does not grow with it. Called by the verb for files, and by `diff`.

use std::io::Read;

use pipelock_scan::{EngineError, Finding, Scanner, Stream};

use super::place::{Place, Places};

/// A finding with its place, and where it ends as far as that is known.
pub(super) type Placed = (Place, Option<Place>, Finding);

/// Bytes that are read at once; what is not longer is scanned whole, which is faster.
const PIECE: usize = 1 << 20;

/// Why a text was not looked at to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Engine(#[from] EngineError),
    #[error("{0}")]
    Form(&'static str),
    #[error("it holds what is packed as {0}, which is not unpacked here")]
    Packed(String),
}

impl Unread {
    /// Of what a text held that was read to its end.
    fn packed(how: pipelock_scan::Unread) -> Option<Self> {
        let names: Vec<&str> = how.names().collect();
        (!names.is_empty()).then(|| Self::Packed(names.join(" and ")))
    }
}

/// A text on its way through the scanner.
#[derive(Debug)]
pub(super) struct Text {
    stream: Stream,
    places: Places,
    noted: usize,
}

impl Text {
    pub(super) fn new(scanner: &Scanner) -> Result<Self, EngineError> {
        Ok(Self { stream: scanner.in_steps().stream()?, places: Places::new(), noted: 0 })
    }

    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), EngineError> {
        let progress = self.stream.push(piece)?;
        self.places.push(piece);
        self.note();
        self.places.release(progress.released);
        Ok(())
    }

    /// Takes the last piece; gives the findings that no comment says to ignore, with their places, and what was not looked at.
    pub(super) fn last(mut self, piece: &[u8]) -> Result<(Vec<Placed>, Option<Unread>), EngineError> {
        self.stream.last(piece)?;
        let unread = Unread::packed(self.stream.unread());
        self.places.push(piece);
        self.note();
        self.places.end();
        let findings = self.stream.findings().into_iter();
        let place = |finding: &Finding| self.places.of(finding.span.start).unwrap_or(Place::FIRST);
        let placed = findings.map(|finding| (place(&finding), self.places.of(finding.span.end), finding));
        Ok((placed.filter(|(place, _, finding)| !self.places.ignored(place.line, &finding.rule)).collect(), unread))
    }

    fn note(&mut self) {
        for span in self.stream.spans(self.noted) {
            self.places.note(span.start);
            self.places.note(span.end);
            self.noted += 1;
        }
    }
}

/// What is in everything that `source` gives, and what of it was not looked at; `read` hears how many bytes came.
pub(super) fn scan(
    scanner: &Scanner,
    mut source: impl Read,
    buffer: &mut Vec<u8>,
    mut read: impl FnMut(u64),
) -> Result<(Vec<Placed>, Option<Unread>), Unread> {
    let mut text = Text::new(scanner)?;
    loop {
        let ended = fill(&mut source, buffer)?;
        read(buffer.len() as u64);
        if ended {
            return Ok(text.last(buffer)?);
        }
        text.push(buffer)?;
    }
}

/// Reads the next [`PIECE`] bytes; true when the source ends with them.
pub(super) fn fill(source: &mut impl Read, buffer: &mut Vec<u8>) -> std::io::Result<bool> {
    buffer.clear();
    source.take(PIECE as u64).read_to_end(buffer)?;
    Ok(buffer.len() < PIECE)
}
