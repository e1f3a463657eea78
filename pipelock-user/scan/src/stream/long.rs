//! A long run that is decoded as it comes, in all the ways it may be meant, and in more than one of them at once: what is
//! glued to base64 may be base64 in another alignment, hex or base32. Called by [`super::runs`].
//!
//! Characters are fed to the lanes in blocks that count from the run's start, so that nothing depends on how it was cut.

use super::Context;
use super::lane::Lane;
use super::layer::Hit;
use super::places::Places;
use crate::bits;
use crate::decode::codec::{Alphabet, Bits, Radix};
use crate::decode::unnamed;
use crate::engine::EngineError;

/// Characters that are decoded at a time.
const BLOCK: usize = bits::BLOCK;

/// All alignments of every alphabet, of which base32 has the most.
pub(crate) const ANY_PHASE: usize = 8;
/// Deepest text in which what stands between two breaks is also read by itself. Below, that would double the work at each
/// depth.
pub(crate) const APART: usize = 1;

/// Most characters of a line that are read by themselves: a secret that ends with a longer one is found by its beginning.
const LINE: u64 = 512;

/// A long run.
#[derive(Debug)]
pub(crate) struct Long {
    depth: usize,
    places: Places,
    /// Characters so far.
    count: u64,
    /// All of it as one.
    whole: Reading,
    /// What came since the last break by itself, while it is no longer than [`LINE`]: a list has one word a line, and each begins
    /// and ends with its line.
    line: Option<Reading>,
}

/// Lanes that are fed together.
#[derive(Debug)]
struct Reading {
    /// Codecs between the input and the text with the run.
    depth: usize,
    /// Number of its first character, and of the first that the lanes do not have.
    start: u64,
    next: u64,
    /// Characters that wait for their block to be full.
    block: Vec<u8>,
    base64: Vec<Lane>,
    /// Most alignments that are tried.
    phases: usize,
    parts: [Part; Alphabet::ALL.len()],
}

/// What of the run is of another alphabet than base64, without others between.
#[derive(Debug)]
struct Part {
    alphabet: Alphabet,
    /// Characters that are too few yet.
    waiting: Vec<u8>,
    /// One for each alignment.
    lanes: Vec<Lane>,
}

impl Long {
    /// Of a run that begins at `start` with the characters `head`.
    pub(crate) fn open(context: &mut Context<'_>, head: &[u8], start: u64, depth: usize) -> Result<Self, EngineError> {
        let mut whole = Reading::new(0, ANY_PHASE, depth);
        let mut out = Vec::new();
        Bits::default().decode(Radix::Base64, head, &mut out);
        if let Some(format) = unnamed::format(&out, false)
            && context.deeper(depth)
        {
            whole.base64.push(Lane::packed(context, format, depth)?);
        }
        let line = (depth <= APART).then(|| Reading::new(0, 1, depth));
        Ok(Self { depth, places: Places::new(start), count: 0, whole, line })
    }

    /// Takes the next characters, which lie side by side from `at` on.
    pub(crate) fn feed(
        &mut self,
        context: &mut Context<'_>,
        chars: &[u8],
        at: u64,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        self.places.note(self.count, at, 4 * context.keep() as u64);
        self.whole.feed(context, chars, &self.places, hits)?;
        if let Some(mut line) = self.line.take() {
            let left = (line.start + LINE - self.count).min(chars.len() as u64) as usize;
            line.feed(context, &chars[..left], &self.places, hits)?;
            if left < chars.len() {
                line.give_up(context, &self.places, hits)?;
            } else {
                self.line = Some(line);
            }
        }
        self.count += chars.len() as u64;
        Ok(())
    }

    /// A break comes, and then more of the run.
    pub(crate) fn wrap(&mut self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        if let Some(line) = self.line.take() {
            line.close(context, &self.places, hits)?;
        }
        self.line = (self.depth <= APART).then(|| Reading::new(self.count, 1, self.depth));
        Ok(())
    }

    /// No more is there for now: looks at what there is.
    pub(crate) fn pause(&mut self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        let mut readings = [Some(&mut self.whole), self.line.as_mut()].into_iter().flatten();
        readings
            .try_for_each(|reading| reading.lanes().try_for_each(|lane| lane.flush(context, false, &self.places, hits)))
    }

    /// The run is over.
    pub(crate) fn close(self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        self.whole.close(context, &self.places, hits)?;
        self.line.map_or(Ok(()), |line| line.close(context, &self.places, hits))
    }

    /// As [`super::layer::Layer::hold`].
    pub(crate) fn hold(&self, context: &Context<'_>) -> u64 {
        let line = self.line.as_ref().map_or(u64::MAX, |line| line.hold(context));
        self.places.of(self.whole.hold(context).min(line))
    }

    pub(crate) fn memory(&self, matcher: usize) -> usize {
        let line = self.line.as_ref().map_or(0, |line| line.memory(matcher));
        size_of::<Self>() + self.places.memory() + self.whole.memory(matcher) + line
    }
}

impl Reading {
    fn new(start: u64, phases: usize, depth: usize) -> Self {
        Self {
            depth,
            start,
            next: start,
            block: Vec::new(),
            base64: (0..4.min(phases as u64)).map(|skip| Lane::new(Radix::Base64, start + skip)).collect(),
            phases,
            parts: Alphabet::ALL.map(|alphabet| Part { alphabet, waiting: Vec::new(), lanes: Vec::new() }),
        }
    }

    fn feed(
        &mut self,
        context: &mut Context<'_>,
        mut chars: &[u8],
        places: &Places,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        while !chars.is_empty() && !context.over() {
            let count = (BLOCK - self.block.len()).min(chars.len());
            self.block.extend_from_slice(&chars[..count]);
            chars = &chars[count..];
            if self.block.len() == BLOCK {
                self.decode(context, places, hits)?;
            }
        }
        Ok(())
    }

    fn decode(&mut self, context: &mut Context<'_>, places: &Places, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        for (skip, lane) in self.base64.iter_mut().enumerate() {
            // The first block of an alignment has fewer characters.
            let skip = if self.next == self.start && skip < 4 { skip.min(self.block.len()) } else { 0 };
            lane.feed(context, &self.block[skip..], places, self.depth, hits)?;
        }
        for part in &mut self.parts {
            part.decode(context, (self.next, &self.block), places, (self.phases, self.depth), hits)?;
        }
        self.next += self.block.len() as u64;
        self.block.clear();
        Ok(())
    }

    fn lanes(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.base64.iter_mut().chain(self.parts.iter_mut().flat_map(|part| &mut part.lanes))
    }

    fn close(mut self, context: &mut Context<'_>, places: &Places, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        self.decode(context, places, hits)?;
        self.lanes().try_for_each(|lane| lane.close(context, places, hits))
    }

    /// What was read so far is looked at, and it is left at that.
    fn give_up(mut self, context: &mut Context<'_>, places: &Places, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        self.lanes().try_for_each(|lane| lane.give_up(context, places, hits))
    }

    /// As [`super::layer::Layer::hold`], in characters of the run.
    fn hold(&self, context: &Context<'_>) -> u64 {
        let base64 = self.base64.iter().map(|lane| lane.hold(context));
        let parts = self.parts.iter().flat_map(|part| {
            let waiting = self.next - part.waiting.len() as u64;
            part.lanes.iter().map(|lane| lane.hold(context)).chain([waiting])
        });
        base64.chain(parts).fold(self.next, u64::min)
    }

    fn memory(&self, matcher: usize) -> usize {
        let lanes = self.base64.iter().chain(self.parts.iter().flat_map(|part| &part.lanes));
        BLOCK + lanes.map(|lane| lane.memory(matcher)).sum::<usize>()
    }
}

impl Part {
    /// Takes a block, with the number of its first character; in at most so many alignments, at that depth.
    fn decode(
        &mut self,
        context: &mut Context<'_>,
        (mut number, block): (u64, &[u8]),
        places: &Places,
        (phases, depth): (usize, usize),
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        if self.lanes.is_empty() && self.waits_on(block) {
            return Ok(());
        }
        let mut rest = block;
        while !rest.is_empty() {
            let own = rest.iter().take_while(|byte| self.alphabet.has(**byte)).count();
            let (chars, other) = rest.split_at(own);
            number += own as u64;
            if !self.lanes.is_empty() {
                for lane in &mut self.lanes {
                    lane.feed(context, chars, places, depth, hits)?;
                }
            } else {
                self.waiting.extend_from_slice(chars);
                if self.waiting.len() >= self.alphabet.least() {
                    let start = number - self.waiting.len() as u64;
                    for skip in 0..self.alphabet.phases().min(phases) {
                        let mut lane = Lane::new(self.alphabet.radix(), start + skip as u64);
                        lane.feed(context, &self.waiting[skip..], places, depth, hits)?;
                        self.lanes.push(lane);
                    }
                    self.waiting.clear();
                }
            }
            if other.is_empty() {
                break;
            }
            self.waiting.clear();
            for mut lane in self.lanes.drain(..) {
                lane.close(context, places, hits)?;
            }
            let foreign = other.iter().take_while(|byte| !self.alphabet.has(**byte)).count();
            number += foreign as u64;
            rest = &other[foreign..];
        }
        Ok(())
    }

    /// Takes a block with too few characters in a row for a lane, as most have: without a branch for each. False when there are enough.
    fn waits_on(&mut self, block: &[u8]) -> bool {
        let Some(padded) = bits::blocks(block).next() else { return true };
        let (own, least) = (self.alphabet.bits(&padded), self.alphabet.least());
        if bits::rows(own, least) != 0 || self.waiting.len() + (!own).trailing_zeros() as usize >= least {
            return false;
        }
        let behind = (!(own << (BLOCK - block.len()))).leading_zeros() as usize;
        if behind < block.len() {
            self.waiting.clear();
        }
        self.waiting.extend_from_slice(&block[block.len() - behind.min(block.len())..]);
        true
    }
}
