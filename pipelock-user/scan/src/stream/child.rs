//! A long run that is decoded as it comes: its decoder, and the layer of what comes out. Called by [`super::runs`].

use std::collections::VecDeque;

use super::Context;
use super::layer::{Hit, Layer};
use crate::decode::codec::{Bits, Radix};
use crate::engine::EngineError;

/// Characters that are decoded before the result is looked at.
const PIECE: usize = 16 * 1024;

/// One way of decoding a long run.
#[derive(Debug)]
pub(crate) struct Child {
    radix: Radix,
    bits: Bits,
    /// Characters at the run's start that this alignment leaves out.
    skip: usize,
    /// Characters so far, the left out ones included.
    chars: u64,
    /// False once a character came that the codec has not.
    alive: bool,
    layer: Layer,
    /// Stretches without line breaks: number of the first character, and its place in the text.
    stretches: VecDeque<(u64, u64)>,
    out: Vec<u8>,
}

impl Child {
    /// Decodes a run that begins at `start`, and has `layer` look at it.
    pub(crate) fn new(layer: Layer, radix: Radix, skip: usize, start: u64) -> Self {
        Self {
            radix,
            bits: Bits::default(),
            skip,
            chars: 0,
            alive: true,
            layer,
            stretches: VecDeque::from([(0, start)]),
            out: Vec::new(),
        }
    }

    /// Decodes characters of the run that lie at `at` of the text.
    pub(crate) fn feed(
        &mut self,
        context: &mut Context<'_>,
        text: &[u8],
        at: u64,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        if !self.alive {
            return Ok(());
        }
        if self.place(self.chars) != at {
            self.stretches.push_back((self.chars, at));
            let behind = self.chars.saturating_sub(4 * context.keep() as u64);
            while self.stretches.get(1).is_some_and(|(chars, _)| *chars < behind) {
                self.stretches.pop_front();
            }
        }
        let own = text.iter().take_while(|byte| self.radix.has(**byte)).count();
        let (mut rest, mut left_out) = (&text[..own], self.skip as u64);
        left_out = left_out.saturating_sub(self.chars).min(rest.len() as u64);
        self.chars += rest.len() as u64;
        rest = &rest[left_out as usize..];
        for piece in rest.chunks(PIECE) {
            self.out.clear();
            self.bits.decode(self.radix, piece, &mut self.out);
            self.look(context, false, hits)?;
        }
        if own < text.len() {
            self.out.clear();
            self.look(context, true, hits)?;
            self.alive = false;
        }
        Ok(())
    }

    /// The run is over.
    pub(crate) fn close(mut self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        if self.alive {
            self.out.clear();
            self.look(context, true, hits)?;
        }
        self.layer.close(context);
        Ok(())
    }

    fn look(&mut self, context: &mut Context<'_>, last: bool, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        if !context.spend(self.out.len()) {
            return Ok(());
        }
        let mut found = Vec::new();
        self.layer.push(context, &self.out, last, &mut found)?;
        for mut hit in found {
            let bits = u64::from(self.radix.bits());
            let first = hit.span.start * 8 / bits + self.skip as u64;
            let end = (hit.span.end * 8).div_ceil(bits) + self.skip as u64;
            hit.path.insert(0, self.radix.step());
            hits.push(Hit { span: self.place(first)..self.place(end - 1) + 1, ..hit });
        }
        Ok(())
    }

    /// Where the character of that number is in the text.
    fn place(&self, char: u64) -> u64 {
        let after = self.stretches.partition_point(|(first, _)| *first <= char);
        self.stretches.get(after.saturating_sub(1)).map_or(0, |(first, at)| at + char.saturating_sub(*first))
    }

    /// As [`Layer::hold`], in the offsets of the text with the run.
    pub(crate) fn hold(&self, context: &Context<'_>) -> u64 {
        if !self.alive {
            return u64::MAX;
        }
        let hold = self.layer.hold(context) * 8 / u64::from(self.radix.bits()) + self.skip as u64;
        self.place(hold.min(self.chars))
    }

    pub(crate) fn memory(&self, matcher: usize) -> usize {
        size_of::<Self>() + self.layer.memory(matcher) + self.out.capacity() + self.stretches.capacity() * 16
    }
}
