//! Compressed data inside a text, and the text in it. Called by [`super::layer`] for the input and for what codecs gave.
//!
//! A member is recognised by its first bytes and fed to the decompressor in segments that count from its start, so that
//! where a damaged one is given up does not depend on how the text was cut.

use memchr::memchr3_iter;

use super::layer::{Hit, Layer};
use super::{Context, Window};
use crate::decode::gate::{self, Gate};
use crate::decode::inflate::{Format, Inflate, Progress};
use crate::engine::EngineError;

const SEGMENT: usize = 256;
/// Bytes that tell a format.
const MAGIC: u64 = 4;

/// The compressed members of a text, of which one is open at a time.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// Everything before is dealt with.
    at: u64,
    member: Option<Box<Member>>,
}

#[derive(Debug)]
struct Member {
    format: Format,
    start: u64,
    inflate: Inflate,
    layer: Layer,
}

impl Packed {
    pub(crate) fn push(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        last: bool,
        gate: &Gate,
        depth: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        let end = window.end();
        if self.member.is_none() && !gate.any(gate::UNICODE) {
            // Every format has such a byte among its first four.
            self.at = self.at.max(end.saturating_sub(MAGIC - 1));
            return Ok(());
        }
        while self.at < end && !context.over() {
            match &mut self.member {
                None => {
                    let Some((at, format)) = self.next(window, last) else { break };
                    self.at = at;
                    if !context.deeper(depth) {
                        self.at += 1;
                        continue;
                    }
                    let layer = Layer::open(context, depth + 1, None)?;
                    self.member = Some(Box::new(Member { format, start: at, inflate: Inflate::new(format), layer }));
                }
                Some(member) => {
                    let count = (end - self.at).min(SEGMENT as u64);
                    if count < SEGMENT as u64 && !last {
                        break;
                    }
                    let ends = last && self.at + count == end;
                    let stop = self.at + count;
                    let progress = window.with(self.at..stop, |text| member.feed(context, text, ends, hits))?;
                    match progress {
                        Progress::Going => self.at = stop,
                        Progress::Ended(used) => {
                            self.at += used as u64;
                            self.close(context, hits)?;
                        }
                        Progress::Broken => {
                            self.at = stop;
                            self.close(context, hits)?;
                        }
                    }
                }
            }
        }
        if last || context.over() {
            self.close(context, hits)?;
        }
        Ok(())
    }

    /// The next place where a member may start; without one, `self.at` moves on.
    fn next(&mut self, window: &Window<'_>, last: bool) -> Option<(u64, Format)> {
        let fresh = window.fresh();
        loop {
            let end = if self.at < fresh { (fresh + MAGIC).min(window.end()) } else { window.end() };
            let found = window.with(self.at..end, |text| {
                memchr3_iter(0x1f, 0x78, 0x28, text).find_map(|at| Some((at, Format::of(&text[at..])?)))
            });
            if let Some((at, format)) = found {
                return Some((self.at + at as u64, format));
            }
            self.at = self.at.max(if last && end == window.end() { end } else { end.saturating_sub(MAGIC - 1) });
            if end == window.end() {
                return None;
            }
        }
    }

    fn close(&mut self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        let Some(mut member) = self.member.take() else { return Ok(()) };
        member.look(context, &[], true, hits)?;
        member.layer.close(context);
        Ok(())
    }

    /// As [`Layer::hold`]: nothing of a member can be replaced, so all that is not known of it is held.
    pub(crate) fn hold(&self, window: &Window<'_>) -> u64 {
        self.at.min(window.end())
    }

    pub(crate) fn memory(&self, matcher: usize) -> usize {
        // miniz_oxide: a window of 32 KiB and the tables.
        self.member.as_ref().map_or(0, |member| member.layer.memory(matcher) + (43 << 10))
    }
}

impl Member {
    fn feed(
        &mut self,
        context: &mut Context<'_>,
        text: &[u8],
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<Progress, EngineError> {
        let mut result = Ok(());
        let Self { format, start, inflate, layer } = self;
        let progress = inflate.feed(text, last, |out| {
            result = look(context, *format, *start, layer, out, false, hits);
            result.is_ok() && !context.over()
        });
        result.map(|()| progress)
    }

    fn look(
        &mut self,
        context: &mut Context<'_>,
        out: &[u8],
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        look(context, self.format, self.start, &mut self.layer, out, last, hits)
    }
}

fn look(
    context: &mut Context<'_>,
    format: Format,
    start: u64,
    layer: &mut Layer,
    out: &[u8],
    last: bool,
    hits: &mut Vec<Hit>,
) -> Result<(), EngineError> {
    if !context.spend(out.len()) {
        return Ok(());
    }
    let mut found = Vec::new();
    layer.push(context, out, last, &mut found)?;
    for mut hit in found {
        hit.path.insert(0, format.step());
        hits.push(Hit { span: start..start + MAGIC, ..hit });
    }
    Ok(())
}
