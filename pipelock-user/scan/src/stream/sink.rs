//! What a codec gives as it comes, the layer that looks at it, and where each byte of it came from. Called by
//! [`super::pairs`], [`super::dumps`], [`super::graphic`] and [`super::wide`].

use std::collections::VecDeque;
use std::ops::Range;

use super::Context;
use super::layer::{Hit, Layer};
use crate::engine::EngineError;
use crate::finding::Step;

/// Bytes that are collected before they are looked at.
const BUFFER: usize = 16 * 1024;

/// The output of one codec.
#[derive(Debug)]
pub(crate) struct Sink {
    step: Step,
    layer: Layer,
    marks: VecDeque<Mark>,
    buffer: Vec<u8>,
    /// Bytes of output so far, those in the buffer included.
    made: u64,
    /// Where what was decoded so far ends in the text.
    end: u64,
}

/// From `out` on, each `to` bytes of output came from `from` bytes of the text, the first of them at `source`.
#[derive(Clone, Copy, Debug)]
struct Mark {
    out: u64,
    source: u64,
    from: u32,
    to: u32,
    /// Where the text ends that the bytes came from together: that they came from all of it.
    whole: Option<u64>,
}

impl Sink {
    pub(crate) fn open(context: &mut Context<'_>, step: Step, depth: usize, start: u64) -> Result<Self, EngineError> {
        let layer = Layer::open(context, depth, None)?;
        Ok(Self { step, layer, marks: VecDeque::new(), buffer: Vec::new(), made: 0, end: start })
    }

    /// Adds `bytes` that the `from` bytes at `at` of the text, and what belongs to them, decode to.
    pub(crate) fn add(&mut self, bytes: &[u8], at: u64, from: u32) {
        let to = bytes.len() as u32;
        let goes_on = self.marks.back().is_some_and(|mark| {
            mark.whole.is_none()
                && mark.from == from
                && mark.to == to
                && mark.source + (self.made - mark.out) / u64::from(to.max(1)) * u64::from(from) == at
        });
        if !goes_on && to > 0 {
            self.marks.push_back(Mark { out: self.made, source: at, from, to, whole: None });
        }
        self.buffer.extend_from_slice(bytes);
        self.made += u64::from(to);
    }

    /// Adds `bytes` that a part of the text decodes to together: each of them came from all of it.
    pub(crate) fn add_whole(&mut self, bytes: &[u8], span: Range<u64>) {
        let to = bytes.len() as u32;
        self.marks.push_back(Mark { out: self.made, source: span.start, from: 0, to, whole: Some(span.end) });
        self.buffer.extend_from_slice(bytes);
        self.made += u64::from(to);
    }

    /// Looks at what was added; `end` is how far the text is decoded.
    pub(crate) fn flush(
        &mut self,
        context: &mut Context<'_>,
        end: u64,
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        self.end = end;
        let buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        if context.spend(buffer.len()) {
            let mut found = Vec::new();
            result = self.layer.push(context, &buffer, last, &mut found);
            for mut hit in found {
                hit.path.insert(0, self.step);
                let place = |span: &Range<u64>| self.start(span.start)..self.stop(span.end);
                hits.push(Hit { span: place(&hit.span), seen: place(&hit.seen), ..hit });
            }
        }
        self.buffer = buffer;
        self.buffer.clear();
        let behind = self.made.saturating_sub(2 * context.keep() as u64);
        while self.marks.get(1).is_some_and(|mark| mark.out <= behind) {
            self.marks.pop_front();
        }
        result
    }

    /// Is there enough for a look?
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.len() >= BUFFER
    }

    /// The codec's text is over.
    pub(crate) fn close(mut self, context: &mut Context<'_>, end: u64, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        self.flush(context, end, true, hits)?;
        self.layer.close(context);
        Ok(())
    }

    fn mark(&self, at: u64) -> Option<&Mark> {
        let after = self.marks.partition_point(|mark| mark.out <= at);
        self.marks.get(after.saturating_sub(1))
    }

    /// Where the byte begins in the text.
    fn start(&self, at: u64) -> u64 {
        let place = |mark: &Mark| mark.source + at.saturating_sub(mark.out) * u64::from(mark.from) / u64::from(mark.to);
        self.mark(at).map_or(self.end, place).min(self.end)
    }

    /// Where the byte before `end` ends in the text.
    fn stop(&self, end: u64) -> u64 {
        let place = |mark: &Mark| match mark.whole {
            Some(end) => end,
            None => mark.source + (end.saturating_sub(mark.out) * u64::from(mark.from)).div_ceil(u64::from(mark.to)),
        };
        self.mark(end.saturating_sub(1)).map_or(self.end, place).min(self.end)
    }

    /// As `Layer::hold`, in the offsets of the text.
    pub(crate) fn hold(&self, context: &Context<'_>) -> u64 {
        let hold = self.layer.hold(context);
        if hold >= self.made { self.end } else { self.start(hold) }
    }

    pub(crate) fn memory(&self, matcher: usize) -> usize {
        size_of::<Self>()
            + self.layer.memory(matcher)
            + self.buffer.capacity()
            + self.marks.capacity() * size_of::<Mark>()
    }
}
