//! What comes out of compressed data: a text of its own, and where in the text around it each part came from. Called by
//! [`super::packed`], which finds the data and feeds it.
//!
//! Promises: a part of the output is never said to come from later bytes than it did; what only says again what was read costs
//! little (see [`super::period`]).

use std::collections::VecDeque;
use std::ops::Range;

use super::Context;
use super::layer::{Hit, Layer};
use super::period::Periods;
use crate::decode::inflate::Format;
use crate::engine::EngineError;
use crate::session::Readings;

/// Bytes at either side of where two members meet that are read by themselves too, and bytes at the start of a cut part that
/// are only there for what follows.
const ALONE: usize = 4096;
const CUT: u64 = 64;
/// Bytes that only say again what was read count as one of those.
const REPEATED: u64 = 16;

/// What comes out of a member, and where it came from.
#[derive(Debug)]
pub(super) struct Output {
    format: Format,
    /// Of the member that came last.
    pub(super) latest: Format,
    layer: Layer,
    /// Of a whole text: what is remembered of what came out.
    readings: Option<Readings>,
    /// Bytes that were read of what came out so far.
    made: u64,
    /// What only says again what was read, and how much of it was counted.
    periods: Option<Periods>,
    counted: u64,
    /// Bytes of output, and of the text, before each segment that may still be asked for.
    segments: VecDeque<(u64, u64)>,
    /// Where the segment ends that is being fed.
    end: u64,
    /// Where in the output the member begins that is being fed.
    begins: u64,
    /// Bytes behind it that are still to come.
    pub(super) trailer: usize,
    alone: Option<Alone>,
}

/// The beginning of a member that follows another, as a text of its own.
#[derive(Debug)]
struct Alone {
    layer: Layer,
    /// Where in the output it begins, and up to where it was given.
    first: u64,
    end: u64,
}

impl Output {
    /// Of data of this format that begins at `start`.
    pub(super) fn open(
        context: &mut Context<'_>,
        format: Format,
        start: u64,
        depth: usize,
    ) -> Result<Self, EngineError> {
        Ok(Self {
            format,
            latest: format,
            layer: Layer::open(context, depth, None)?,
            readings: None,
            made: 0,
            // As pictures and documents hold theirs. What is sent packed as a whole has no such excuse.
            periods: (format == Format::Zlib && start > 0).then(Periods::default),
            counted: 0,
            segments: VecDeque::from([(0, start)]),
            end: start,
            begins: 0,
            trailer: 0,
            alone: None,
        })
    }

    /// What comes out is remembered, if it is said so.
    pub(super) fn remember(&mut self, it_is: bool) {
        self.readings = it_is.then(Readings::default);
    }

    /// Bytes that came out so far.
    pub(super) fn came_out(&self) -> u64 {
        self.made + self.left_out()
    }

    /// Another member of this format goes on with the text.
    pub(super) fn follow(
        &mut self,
        context: &mut Context<'_>,
        format: Format,
        depth: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        self.ends_repeating(context, hits)?;
        self.ends_alone(context, depth, hits)?;
        self.begins = self.made;
        self.latest = format;
        let layer = Layer::open(context, depth, None)?;
        self.alone = Some(Alone { layer, first: self.made, end: self.made });
        Ok(())
    }

    /// Nothing more comes out.
    pub(super) fn close(mut self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        self.ends_repeating(context, hits)?;
        self.alone_ends(context, hits)?;
        self.look(context, &[], true, hits)?;
        self.layer.close(context);
        Ok(())
    }

    /// Bytes of memory it takes.
    pub(super) fn memory(&self, matcher: usize) -> usize {
        let alone = self.alone.as_ref().map_or(0, |alone| alone.layer.memory(matcher));
        self.layer.memory(matcher) + alone + self.periods.as_ref().map_or(0, Periods::memory)
    }

    /// What comes now came from the segment at `at`. Segments whose output lies more than `keep` bytes back are forgotten.
    pub(super) fn starts(&mut self, at: u64, end: u64, keep: u64) {
        self.end = end;
        if self.segments.back().is_some_and(|(made, _)| *made == self.made) {
            return;
        }
        self.segments.push_back((self.made, at));
        let behind = self.made.saturating_sub(keep);
        while self.segments.get(1).is_some_and(|(made, _)| *made <= behind) {
            self.segments.pop_front();
        }
    }

    /// Takes what came out, and reads what of it is new.
    pub(super) fn take(
        &mut self,
        context: &mut Context<'_>,
        out: &[u8],
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        let Some(mut periods) = self.periods.take() else { return self.look(context, out, false, hits) };
        let taken = periods.take(out, |part| {
            self.look(context, part, false, hits)?;
            Ok(self.layer.is_inside())
        });
        self.periods = Some(periods);
        // Less than what is read, and not nothing: a bomb is still one.
        let more = (self.left_out() / REPEATED).saturating_sub(self.counted);
        self.counted += more;
        context.unpack(usize::try_from(more).unwrap_or(usize::MAX), |_| Ok(()))?;
        taken
    }

    /// The member is over, in whatever it said again.
    fn ends_repeating(&mut self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        let Some(mut periods) = self.periods.take() else { return Ok(()) };
        let ended = periods.end(|part| self.look(context, part, false, hits).map(|()| false));
        self.periods = Some(periods);
        ended
    }

    fn left_out(&self) -> u64 {
        self.periods.as_ref().map_or(0, Periods::left_out)
    }

    fn look(
        &mut self,
        context: &mut Context<'_>,
        out: &[u8],
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        let mut found = Vec::new();
        let read = context.unpack(out.len(), |context| {
            if let (Some(readings), Some(given)) = (&mut self.readings, context.given) {
                readings.push(given, out, last);
            }
            self.layer.push(context, out, last, &mut found)
        })?;
        if read.is_none() {
            return Ok(());
        }
        self.made += out.len() as u64;
        self.tell(found, 0, hits);
        if self.alone.is_some() && !out.is_empty() {
            self.look_alone(context, out, hits)?;
        }
        Ok(())
    }

    /// Hands on what was found in a text that begins at `first` of the output.
    fn tell(&self, found: Vec<Hit>, first: u64, hits: &mut Vec<Hit>) {
        for mut hit in found {
            hit.path.insert(0, self.format.step());
            let source = |span: &Range<u64>| self.source(&(first + span.start..first + span.end));
            hits.push(Hit { span: source(&hit.span), seen: source(&hit.seen), ..hit });
        }
    }

    /// Gives the beginning of a member to who reads it by itself.
    fn look_alone(&mut self, context: &mut Context<'_>, out: &[u8], hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        let Some(mut alone) = self.alone.take() else { return Ok(()) };
        let given = usize::try_from(alone.end - alone.first).unwrap_or(ALONE);
        let part = &out[..out.len().min(ALONE.saturating_sub(given))];
        let mut found = Vec::new();
        context.unpack(part.len(), |context| alone.layer.push(context, part, false, &mut found))?;
        alone.end += part.len() as u64;
        self.tell(found, alone.first, hits);
        if part.len() < out.len() {
            // It goes on, and does not end here.
            alone.layer.close(context);
        } else {
            self.alone = Some(alone);
        }
        Ok(())
    }

    /// The member is over which was read by itself to its end.
    fn alone_ends(&mut self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<bool, EngineError> {
        let Some(mut alone) = self.alone.take() else { return Ok(false) };
        let mut found = Vec::new();
        context.unpack(0, |context| alone.layer.push(context, &[], true, &mut found))?;
        alone.layer.close(context);
        self.tell(found, alone.first, hits);
        Ok(true)
    }

    /// Reads the end of the member as the end of a text.
    fn ends_alone(&mut self, context: &mut Context<'_>, depth: usize, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        if self.alone_ends(context, hits)? {
            return Ok(());
        }
        let whole = self.made - self.begins;
        let text = self.layer.end_of(usize::try_from(whole).unwrap_or(ALONE).min(ALONE)).to_vec();
        let mut found = Vec::new();
        let mut layer = Layer::open(context, depth, None)?;
        context.unpack(text.len(), |context| layer.push(context, &text, true, &mut found))?;
        layer.close(context);
        if (text.len() as u64) < whole {
            found.retain(|hit| hit.seen.start >= CUT);
        }
        self.tell(found, self.made - text.len() as u64, hits);
        Ok(())
    }

    /// May another member go on with the text? Files of an archive are texts of their own.
    pub(super) fn joins(&self) -> bool {
        matches!(self.format, Format::Gzip | Format::Zlib | Format::Zstd)
    }

    /// The segments that a part of the output came from.
    fn source(&self, span: &Range<u64>) -> Range<u64> {
        let after = |made: u64| self.segments.partition_point(|(before, _)| *before <= made);
        let start = self.segments.get(after(span.start).saturating_sub(1)).map_or(0, |(_, at)| *at);
        let end = self.segments.get(after(span.end.saturating_sub(1))).map_or(self.end, |(_, at)| *at);
        start..end
    }

    pub(super) fn hold(&self, context: &Context<'_>) -> u64 {
        let alone = self.alone.as_ref().map(|alone| alone.first + alone.layer.hold(context));
        let hold = self.layer.hold(context).min(alone.unwrap_or(u64::MAX));
        self.source(&(hold..hold + 1)).start
    }
}
