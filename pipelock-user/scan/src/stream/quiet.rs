//! A text that was made of another and may be noise: what a codec or a view makes of pictures, archives and keys is, and a look at
//! all of it would cost many times what the bytes themselves cost. Called by [`super::view`] and [`super::lane`].
//!
//! The text is told block by block, from its own start: a block is passed over when much of it is no text and neither it nor its
//! neighbours show anything ([`crate::decode::shows`]). The others are looked at by a [`Layer`], a new one behind each gap.
//! A block is as long as a sentence may be, so that sentences end where they would without gaps.
//!
//! Promises: what is passed over depends on the bytes alone, not on how they were cut.

use super::Context;
use super::layer::{Hit, Layer};
use crate::decode::ViewKind;
use crate::decode::shows::{CELL, Shows};
use crate::engine::EngineError;
use crate::injection::MAX_SENTENCE;

const BLOCK: u64 = MAX_SENTENCE as u64;
const _: () = assert!(MAX_SENTENCE.is_multiple_of(CELL));
/// One byte of so many is no text in what may be passed over.
const NOISE: u64 = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Quiet {
    depth: usize,
    below: Option<ViewKind>,
    /// Nothing is passed over.
    always: bool,
    layer: Option<Layer>,
    /// Offset of the layer's first byte.
    base: u64,
    /// Bytes from `at` on, of which those before `fed` are only still to be judged.
    pending: Vec<u8>,
    at: u64,
    /// What lies before was looked at or passed over, …
    fed: u64,
    /// … and up to here it is to be looked at.
    ready: u64,
    /// Where the block begins that is being judged, and how far it is.
    block: u64,
    seen: u64,
    shows: Shows,
    /// Does it show something, and did the one before?
    here: bool,
    before: bool,
    noise: u64,
}

impl Quiet {
    /// An empty text, as [`Layer::open`] makes one.
    pub(crate) fn open(context: &Context<'_>, depth: usize, below: Option<ViewKind>) -> Self {
        Self {
            depth,
            below,
            always: !context.shared.shows(),
            layer: None,
            base: 0,
            pending: Vec::new(),
            at: 0,
            fed: 0,
            ready: 0,
            block: 0,
            seen: 0,
            shows: Shows::new(below.is_none_or(ViewKind::gives_bytes)),
            here: false,
            before: false,
            noise: 0,
        }
    }

    /// All of the text is for `layer`.
    pub(crate) fn of(context: &Context<'_>, layer: Layer) -> Self {
        Self { always: true, layer: Some(layer), ..Self::open(context, 0, None) }
    }

    /// As [`Layer::push`].
    pub(crate) fn push(
        &mut self,
        context: &mut Context<'_>,
        new: &[u8],
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        if self.always {
            return self.feed(context, new, last, hits);
        }
        self.pending.extend_from_slice(new);
        let end = self.at + self.pending.len() as u64;
        while self.block < end {
            let stop = end.min(self.block + BLOCK);
            let whole = stop == self.block + BLOCK || last;
            self.judge(stop, whole);
            if self.before || self.here {
                self.ready = stop;
            } else if whole {
                // With nothing on this side of it either, the block before is noise, if it was not for the layer.
                self.skip(context, self.block, hits)?;
            }
            if !whole {
                break;
            }
            (self.before, self.here, self.noise) = (self.here, false, 0);
            (self.block, self.seen) = (stop, stop);
        }
        if last && self.ready < end {
            self.skip(context, end, hits)?;
        }
        if self.fed < self.ready || last && self.layer.is_some() {
            self.catch_up(context, last, hits)?;
        }
        // What is not judged yet is needed once more.
        let done = if self.here { self.fed } else { self.fed.min(self.seen) };
        self.pending.drain(..(done - self.at) as usize);
        self.at = done;
        Ok(())
    }

    /// Gives the layer what is for it.
    fn catch_up(&mut self, context: &mut Context<'_>, last: bool, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        let pending = std::mem::take(&mut self.pending);
        let ready = (self.fed - self.at) as usize..(self.ready - self.at) as usize;
        self.feed(context, &pending[ready], last, hits)?;
        self.pending = pending;
        self.fed = self.ready;
        Ok(())
    }

    /// Looks at the block up to `stop`, which is its end or the text's when it is `whole`.
    fn judge(&mut self, stop: u64, whole: bool) {
        let part = |from: u64, to: u64| (from - self.at) as usize..(to - self.at) as usize;
        while !self.here && self.seen < stop {
            let next = stop.min(self.seen + CELL as u64);
            let cell = self.shows.cell(&self.pending[part(self.seen, next)]);
            self.here = cell.shows;
            if next - self.seen < CELL as u64 && !whole {
                // It is looked at again when it is whole.
                break;
            }
            self.noise += u64::from(cell.noise);
            (self.shows, self.seen) = (cell.next, next);
        }
        if whole {
            self.here |= self.noise * NOISE < stop - self.block;
            if self.here {
                self.shows = self.shows.again();
            }
        }
    }

    /// Leaves out what lies before `to` and is not for the layer, unless something goes on in it that shows no sign of itself.
    fn skip(&mut self, context: &mut Context<'_>, to: u64, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        if self.ready >= to {
            return Ok(());
        }
        if self.fed < self.ready {
            self.catch_up(context, false, hits)?;
        }
        self.ready = to;
        if self.is_inside() {
            return Ok(());
        }
        if self.layer.is_some() {
            self.feed(context, &[], true, hits)?;
        }
        if let Some(layer) = self.layer.take() {
            layer.close(context);
        }
        self.fed = to;
        Ok(())
    }

    fn feed(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        let layer = match &mut self.layer {
            Some(layer) => layer,
            empty => {
                self.base = self.fed;
                empty.insert(Layer::open(context, self.depth, self.below)?)
            }
        };
        let from = hits.len();
        layer.push(context, bytes, last, hits)?;
        for hit in hits.iter_mut().skip(from) {
            hit.span = hit.span.start + self.base..hit.span.end + self.base;
            hit.seen = hit.seen.start + self.base..hit.seen.end + self.base;
        }
        Ok(())
    }

    /// As `Layer::hold`.
    pub(crate) fn hold(&self, context: &Context<'_>) -> u64 {
        let layer = self.layer.as_ref().map(|layer| self.base + layer.hold(context));
        if self.always { layer.unwrap_or(0) } else { layer.map_or(self.fed, |hold| hold.min(self.fed)) }
    }

    /// As [`Layer::is_inside`].
    pub(crate) fn is_inside(&self) -> bool {
        self.layer.as_ref().is_some_and(Layer::is_inside)
    }

    /// As [`Layer::close`].
    pub(crate) fn close(self, context: &mut Context<'_>) {
        if let Some(layer) = self.layer {
            layer.close(context);
        }
    }

    /// As [`Layer::memory`].
    pub(crate) fn memory(&self, matcher: usize) -> usize {
        self.pending.capacity() + self.layer.as_ref().map_or(0, |layer| layer.memory(matcher))
    }
}
