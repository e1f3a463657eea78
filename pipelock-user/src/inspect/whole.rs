//! A body that is there before any of it is judged: read in steps, and judged at its end.
//!
//! Called by `proxy::http::reading`. It promises that the steps are those that [`Reader::push`] would be given, and that nothing is judged
//! twice.

use bytes::Bytes;

use super::counts::{COUNTS, Place, Timed};
use super::head::{closed, unread};
use super::reader::Reader;
use crate::flow::Verdict;

impl Reader {
    /// How many of the bytes that come `next` are to be given at once, so that others have their turn between.
    #[must_use]
    pub fn step(&self, next: &[u8]) -> usize {
        self.stream.as_ref().map_or(next.len(), |stream| stream.step(next))
    }

    /// Reads on in a body of which [`whole`](Self::whole) is to say something then, one [`step`](Self::step) of it; false when that
    /// has the rest to read, which is no more than one.
    ///
    /// # Errors
    /// As [`push`](Self::push), where it is read as it comes.
    pub fn read_ahead(&mut self, bytes: &Bytes) -> Result<bool, Verdict> {
        let left = bytes.get(self.ahead..).unwrap_or_default();
        let step = self.step(left);
        if step == left.len() {
            return Ok(false);
        }
        let from = self.ahead;
        self.ahead = from.saturating_add(step);
        if self.is_read_as_it_comes() {
            self.push(bytes.slice(from..self.ahead)).map_err(Verdict::for_good)?;
            return Ok(true);
        }
        let (Some(stream), Some(piece)) = (&mut self.stream, left.get(..step)) else { return Ok(false) };
        let _timed = Timed::new(Place::Body);
        let _ = stream.push(piece).map_err(|error| unread(&error))?;
        Ok(true)
    }

    /// Whether there is more to be done with it than to be scanned as one text.
    fn is_read_as_it_comes(&self) -> bool {
        self.events.is_some() || self.grpc.is_some()
    }

    /// Reads a body that is there from its beginning to its end, as [`push`](Self::push) and [`finish`](Self::finish) do, and
    /// faster.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn whole(&mut self, bytes: Bytes) -> Result<(), Verdict> {
        if self.is_read_as_it_comes() || self.end > 0 || bytes.is_empty() {
            // Who stops on the way has not read all, and nobody says yes to what is not read.
            let left = bytes.slice(self.ahead.min(bytes.len())..);
            return self.push(left).and_then(|()| self.finish()).map_err(Verdict::for_good);
        }
        let _timed = Timed::new(Place::Body);
        COUNTS.read(self.side, bytes.len());
        let Some(mut stream) = self.stream.take() else { return Err(closed()) };
        stream.last(bytes.get(self.ahead..).unwrap_or_default()).map_err(|error| unread(&error))?;
        self.end = bytes.len() as u64;
        let said = self.short.as_mut().map(|short| short.push(&bytes));
        self.held.push_back(bytes.clone());
        // Somebody may be asked about what is found, and only about all of it.
        let mut wanted: Option<Verdict> = None;
        let mut unless_asked = |judged: Result<(), Verdict>| match judged {
            Err(found) if found.is_askable() => {
                found.add_to(&mut wanted);
                Ok(())
            }
            judged => judged,
        };
        unless_asked(self.judge(&stream.findings()))?;
        self.note_unread(stream.unread());
        self.encoded.holds_for(stream.decoded(), true, self.side.is_outbound())?;
        if let Some(said) = said {
            unless_asked(self.judge_said(said, true))?;
        }
        unless_asked(self.judge_short(true))?;
        if let Some(wanted) = wanted {
            return Err(wanted);
        }
        self.remember(&bytes);
        self.free = self.end;
        Ok(())
    }
}
