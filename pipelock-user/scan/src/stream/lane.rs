//! One way of decoding a long run: an alphabet and an alignment. Called by [`super::long`].
//!
//! What comes out is noise in most lanes. So only islands of it are looked at, each by a layer of its own: from a little
//! before the first sign of something ([`crate::decode::sense`]) to a little after the last, or to the end of compressed
//! data that began in it. Where islands lie follows from the characters fed at a time, which [`super::long`] counts from
//! the run's start.

use std::ops::Range;

use super::Context;
use super::layer::{Hit, Layer};
use super::places::Places;
use super::quiet::Quiet;
use crate::decode::codec::{Bits, Radix};
use crate::decode::inflate::Format;
use crate::decode::sense::{self, Sense};
use crate::decode::utf16;
use crate::engine::EngineError;

/// Bytes before a sign that are looked at with it.
const BEFORE: usize = 64;
const _: () = assert!(BEFORE > sense::REACH);
/// Feeds without a sign after which an island ends.
const QUIET: u32 = 3;
/// Feeds after which an island that compressed data keeps open is asked again.
const BUSY: u32 = 64;
/// Bytes that are collected before they are looked at.
const BUFFER: usize = 16 * 1024;

/// A decoder, and what it looks at.
#[derive(Debug)]
pub(crate) struct Lane {
    radix: Radix,
    bits: Bits,
    /// Number of the character that the first byte begins in.
    origin: u64,
    /// Bytes so far.
    made: u64,
    sense: Sense,
    /// The last bytes.
    before: Vec<u8>,
    out: Vec<u8>,
    island: Option<Island>,
    /// Only for the island it began with.
    once: bool,
}

#[derive(Debug)]
struct Island {
    layer: Quiet,
    /// Number of the byte it starts with.
    first: u64,
    /// What is still to be pushed to the layer.
    buffer: Vec<u8>,
    /// Feeds that may come without a sign.
    patience: u32,
}

impl Lane {
    /// Decodes a run from the character of that number on.
    pub(crate) fn new(radix: Radix, origin: u64) -> Self {
        Self {
            radix,
            bits: Bits::default(),
            origin,
            made: 0,
            sense: Sense::default(),
            before: Vec::with_capacity(2 * BEFORE),
            out: Vec::new(),
            island: None,
            once: false,
        }
    }

    /// Decodes a run of base64 that is compressed so from its beginning.
    pub(crate) fn packed(context: &mut Context<'_>, format: Format, depth: usize) -> Result<Self, EngineError> {
        let layer = Layer::named(context, depth + 1, format)?;
        let layer = Quiet::of(context, layer);
        let island = Island { layer, first: 0, buffer: Vec::new(), patience: BUSY };
        Ok(Self { island: Some(island), once: true, ..Self::new(Radix::Base64, 0) })
    }

    /// Decodes the next characters, all of which the alphabet has.
    pub(crate) fn feed(
        &mut self,
        context: &mut Context<'_>,
        chars: &[u8],
        places: &Places,
        depth: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        if self.once && self.island.is_none() {
            return Ok(());
        }
        self.out.clear();
        self.bits.decode(self.radix, chars, &mut self.out);
        let utf16 = self.made == 0 && utf16::mark(&self.out).or_else(|| utf16::unmarked(&self.out)).is_some();
        let sign = self.sense.look(&self.out) | utf16;
        if self.island.is_none() && sign && context.deeper(depth) {
            // What begins as UTF-16 shows nothing more of itself.
            let layer = if utf16 {
                let layer = Layer::open(context, depth + 1, None)?;
                Quiet::of(context, layer)
            } else {
                Quiet::open(context, depth + 1, None)
            };
            let first = self.made - self.before.len() as u64;
            self.island = Some(Island { layer, first, buffer: self.before.clone(), patience: QUIET });
        }
        self.made += self.out.len() as u64;
        let behind = (self.before.len() + self.out.len()).saturating_sub(BEFORE);
        self.before.drain(..behind.min(self.before.len()));
        self.before.extend_from_slice(&self.out[self.out.len().saturating_sub(BEFORE)..]);
        let Some(island) = &mut self.island else { return Ok(()) };
        island.buffer.extend_from_slice(&self.out);
        island.patience = if sign { island.patience.max(QUIET) } else { island.patience.saturating_sub(1) };
        if island.patience == 0 {
            self.flush(context, false, places, hits)?;
            match &mut self.island {
                Some(island) if island.layer.is_inside() => island.patience = BUSY,
                _ => self.close(context, places, hits)?,
            }
        } else if island.buffer.len() >= BUFFER {
            self.flush(context, false, places, hits)?;
        }
        Ok(())
    }

    /// Looks at what was decoded; `last` says that the island ends.
    pub(crate) fn flush(
        &mut self,
        context: &mut Context<'_>,
        last: bool,
        places: &Places,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        let Some(mut island) = self.island.take() else { return Ok(()) };
        let buffer = std::mem::take(&mut island.buffer);
        if context.spend(buffer.len()) {
            let mut found = Vec::new();
            island.layer.push(context, &buffer, last, &mut found)?;
            for mut hit in found {
                let place = |span: &Range<u64>| {
                    let (first, end) = (self.char(island.first + span.start), self.end(island.first + span.end));
                    places.of(first)..places.of(end - 1) + 1
                };
                hit.path.insert(0, self.radix.step());
                hits.push(Hit { span: place(&hit.span), seen: place(&hit.seen), ..hit });
            }
        }
        island.buffer = buffer;
        island.buffer.clear();
        self.island = Some(island);
        Ok(())
    }

    /// The rest is not decoded, and nothing ends here.
    pub(crate) fn give_up(
        &mut self,
        context: &mut Context<'_>,
        places: &Places,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        self.flush(context, false, places, hits)?;
        if let Some(island) = self.island.take() {
            island.layer.close(context);
        }
        Ok(())
    }

    /// The run, or the part of it that is of this alphabet, is over.
    pub(crate) fn close(
        &mut self,
        context: &mut Context<'_>,
        places: &Places,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        self.flush(context, true, places, hits)?;
        if let Some(island) = self.island.take() {
            island.layer.close(context);
        }
        Ok(())
    }

    /// Number of the character in which a byte begins.
    fn char(&self, byte: u64) -> u64 {
        self.origin + byte * 8 / u64::from(self.radix.bits())
    }

    /// Number of the character behind the one in which the byte before `byte` ends.
    fn end(&self, byte: u64) -> u64 {
        self.origin + (byte * 8).div_ceil(u64::from(self.radix.bits())).max(1)
    }

    /// As `Layer::hold`, in characters of the run: a sign that comes next may be of what came last.
    pub(crate) fn hold(&self, context: &Context<'_>) -> u64 {
        let open = self.island.as_ref().map_or(u64::MAX, |island| island.first + island.layer.hold(context));
        self.char(open.min(self.made - self.before.len() as u64))
    }

    pub(crate) fn memory(&self, matcher: usize) -> usize {
        let island = self.island.as_ref().map_or(0, |island| island.layer.memory(matcher) + island.buffer.capacity());
        size_of::<Self>() + self.before.capacity() + self.out.capacity() + island
    }
}
