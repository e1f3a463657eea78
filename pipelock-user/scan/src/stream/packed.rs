//! Compressed data inside a text, and the text in it. Called by [`super::layer`] for the input and for what codecs gave.
//!
//! A member is recognised by its first bytes, or named by who opened the text, and fed to the decompressor in segments that count
//! from its start, so that where a damaged one is given up does not depend on how the text was cut. Two bytes are enough to
//! look like zlib: what breaks in its first segment was no member, and a real one may begin in that segment.
//!
//! Members that follow each other at once are one text to who unpacks them (RFC 1952 §2.2, RFC 8878 §3.1), so they are read as
//! one; and by themselves too, where they meet, for who takes them apart. What such a reader passes over between them is
//! searched as any text.

use memchr::{memchr3_iter, memmem};

use super::follower::{Follower, LOOK};
use super::layer::Hit;
use super::output::Output;
use super::{Context, Decoded, Window};
use crate::decode::gate::{self, Gate};
use crate::decode::inflate::{Format, Inflate, Progress, is_zlib};
use crate::decode::unread::{self, LONGEST};
use crate::engine::EngineError;

const SEGMENT: usize = 256;
/// Bytes that tell a format.
const MAGIC: u64 = 4;
/// Those of a file in a ZIP archive.
const ZIP: &[u8; MAGIC as usize] = b"PK\x03\x04";
/// Bytes between the end of deflated data and the next gzip member: checksum and length.
const TRAILER: usize = 8;
/// Bytes of a text for each time that a segment is searched once more, and how often that may be at its start.
const AGAIN: u64 = 128;
const AT_FIRST: u64 = 16;

/// The compressed members of a text, of which one is open at a time.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    /// Everything before is dealt with.
    at: u64,
    member: Option<Box<Member>>,
    /// Of which bytes are being passed over.
    waiting: Option<Waiting>,
    /// What the text is as a whole.
    named: Option<Format>,
    /// Where the open member begins, if nobody named it and no segment of it went by.
    doubted: Option<u64>,
    /// How many segments were searched once more.
    again: u64,
    /// What became of what the text was said to be.
    decoded: Decoded,
    /// The text is a view's, which says itself what is not unpacked in it.
    is_written: bool,
}

#[derive(Debug)]
struct Member {
    /// None when it is over and another may follow.
    inflate: Option<Inflate>,
    output: Output,
}

/// A member that goes on behind bytes that mean nothing to it, but are a part of the text.
#[derive(Debug)]
struct Waiting {
    member: Box<Member>,
    /// Where it does.
    until: u64,
}

impl Packed {
    /// Of a text that is compressed as a whole.
    pub(crate) fn named(format: Format) -> Self {
        Self { named: Some(format), decoded: Decoded::Going { made: 0 }, ..Self::default() }
    }

    /// Of what a view made of a text.
    pub(crate) fn written() -> Self {
        Self { is_written: true, ..Self::default() }
    }

    pub(crate) fn push(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        last: bool,
        gate: &Gate,
        depth: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        if !self.is_written && gate.any(unread::SIGNS) && !window.new.is_empty() {
            let from = window.fresh().saturating_sub(LONGEST as u64 - 1);
            window.with(from..window.end(), |text| context.leave(unread::find(text)));
            if from == 0 {
                window.with(0..3, |text| context.leave(unread::at_start(text)));
            }
        }
        if !self.is_open() && !gate.any(gate::UNICODE) {
            // Every format has such a byte among its first four.
            self.at = self.at.max(window.end().saturating_sub(MAGIC - 1));
            return Ok(());
        }
        let text_ends = last;
        while !context.over() {
            // What is passed over is a text with an end of its own.
            let until = self.waiting.as_ref().map(|waiting| waiting.until).filter(|until| *until <= window.end());
            let (end, last) = (until.unwrap_or(window.end()), text_ends || until.is_some());
            if self.at >= end {
                if until.is_none() {
                    break;
                }
                self.close(context, hits)?;
                self.member = self.waiting.take().map(|waiting| waiting.member);
                continue;
            }
            match &mut self.member {
                None => {
                    let named = match self.named {
                        // Two bytes tell zlib from what has no frame.
                        Some(Format::Deflate) if end < 2 && !last => break,
                        Some(Format::Deflate) => {
                            let zlib = window.with(
                                0..end.min(2),
                                |start| matches!(start, &[first, second] if is_zlib(first, second)),
                            );
                            Some((self.at, if zlib { Format::Zlib } else { Format::Deflate }))
                        }
                        format => format.map(|format| (self.at, format)),
                    };
                    let named_so = self.named.take().is_some();
                    let Some((at, format)) = named.or_else(|| self.next(window, end, last)) else {
                        if self.at < end {
                            break;
                        }
                        continue;
                    };
                    self.at = at;
                    if !context.deeper(depth) {
                        self.at += 1;
                        continue;
                    }
                    self.doubted = (!named_so).then_some(at);
                    let mut member = Member::open(context, format, at, depth + 1)?;
                    member.output.remember(named_so);
                    self.member = Some(Box::new(member));
                }
                Some(member) if member.inflate.is_none() => {
                    if end - self.at < LOOK as u64 && !last {
                        break;
                    }
                    let trailer = std::mem::take(&mut member.output.trailer);
                    let stop = end.min(self.at + LOOK as u64);
                    match window.with(self.at..stop, |text| Follower::of(text, trailer)) {
                        Follower::After(used) => self.at += used as u64,
                        Follower::At(used, format) => {
                            self.at += used as u64;
                            member.follow(context, format, depth + 1, hits)?;
                            self.doubted = Some(self.at);
                        }
                        Follower::Frame(used, length) if self.waiting.is_none() => {
                            self.at += used as u64;
                            let until = self.at + u64::from(length);
                            self.waiting = self.member.take().map(|member| Waiting { member, until });
                        }
                        // One in another is nothing that anybody passes over.
                        Follower::Frame(..) | Follower::None => self.close(context, hits)?,
                    }
                }
                Some(member) => {
                    let count = (end - self.at).min(SEGMENT as u64);
                    if count < SEGMENT as u64 && !last {
                        break;
                    }
                    let ends = last && self.at + count == end;
                    let stop = self.at + count;
                    let progress =
                        window.with(self.at..stop, |text| member.feed(context, text, self.at, ends, hits))?;
                    self.at = match progress {
                        Progress::Ended(used) => self.at + used as u64,
                        Progress::Going | Progress::Broken | Progress::TooBig | Progress::Unread(_) => stop,
                    };
                    match progress {
                        Progress::TooBig => context.exceed(),
                        Progress::Unread(how) => context.leave(how),
                        _ => {}
                    }
                    if let Decoded::Going { made } = &mut self.decoded {
                        *made = member.output.came_out();
                        match progress {
                            Progress::Going => {}
                            // What is over budget is a finding.
                            Progress::Broken if !context.over() => self.decoded = Decoded::Broken,
                            Progress::Ended(_) | Progress::TooBig | Progress::Broken | Progress::Unread(_) => {
                                self.decoded = Decoded::Whole;
                            }
                        }
                    }
                    let failed = matches!(progress, Progress::Broken | Progress::Unread(_))
                        || (progress == Progress::Going && ends);
                    let again = self.doubted.take().filter(|at| failed && self.again < AT_FIRST + at / AGAIN);
                    let may_go_on = matches!(progress, Progress::Ended(_)) && member.output.joins();
                    if may_go_on {
                        member.inflate = None;
                        member.output.trailer = if member.output.latest == Format::Gzip { TRAILER } else { 0 };
                    } else if progress != Progress::Going || again.is_some() {
                        self.close(context, hits)?;
                    }
                    if let Some(start) = again {
                        self.again += 1;
                        self.at = start + 1;
                    }
                }
            }
        }
        if text_ends || context.over() {
            self.close(context, hits)?;
            self.member = self.waiting.take().map(|waiting| waiting.member);
            self.close(context, hits)?;
        }
        Ok(())
    }

    /// The next place before `stop` where a member may start; without one, `self.at` moves on.
    fn next(&mut self, window: &Window<'_>, stop: u64, last: bool) -> Option<(u64, Format)> {
        let fresh = window.fresh();
        loop {
            let end = if self.at < fresh { (fresh + MAGIC).min(stop) } else { stop };
            let found = window.with(self.at..end, |text| {
                let named = memchr3_iter(0x1f, 0x78, 0x28, text).find_map(|at| Some((at, Format::of(&text[at..])?)));
                // The fourth has a beginning that is in every text.
                let zip = memmem::find(text, ZIP).map(|at| (at, Format::Zip));
                named.into_iter().chain(zip).min_by_key(|(at, _)| *at)
            });
            if let Some((at, format)) = found {
                return Some((self.at + at as u64, format));
            }
            self.at = self.at.max(if last && end == stop { end } else { end.saturating_sub(MAGIC - 1) });
            if end == stop {
                return None;
            }
        }
    }

    /// The members that are not over.
    fn open(&self) -> impl Iterator<Item = &Member> {
        self.member.as_deref().into_iter().chain(self.waiting.as_ref().map(|waiting| &*waiting.member))
    }

    fn close(&mut self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        let Some(member) = self.member.take() else { return Ok(()) };
        member.output.close(context, hits)
    }

    /// As `Layer::hold`: nothing of a member can be replaced, so all that is not known of it is held.
    pub(crate) fn hold(&self, context: &Context<'_>, window: &Window<'_>) -> u64 {
        self.open().map(|member| member.output.hold(context)).fold(self.at, u64::min).min(window.end())
    }

    /// Whether the text is what it was said to be.
    pub(crate) fn decoded(&self) -> Decoded {
        self.decoded
    }

    /// Does a member go on?
    pub(crate) fn is_open(&self) -> bool {
        self.member.is_some() || self.waiting.is_some() || self.named.is_some()
    }

    pub(crate) fn memory(&self, matcher: usize) -> usize {
        let of = |member: &Member| member.output.memory(matcher) + member.inflate.as_ref().map_or(0, Inflate::memory);
        self.open().map(of).sum()
    }
}

impl Member {
    fn open(context: &mut Context<'_>, format: Format, start: u64, depth: usize) -> Result<Self, EngineError> {
        let output = Output::open(context, format, start, depth)?;
        Ok(Self { inflate: Some(Inflate::new(format)), output })
    }

    /// Another member goes on with the text.
    fn follow(
        &mut self,
        context: &mut Context<'_>,
        format: Format,
        depth: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        self.output.follow(context, format, depth, hits)?;
        self.inflate = Some(Inflate::new(format));
        Ok(())
    }

    /// Feeds a segment that lies at `at` of the text.
    fn feed(
        &mut self,
        context: &mut Context<'_>,
        text: &[u8],
        at: u64,
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<Progress, EngineError> {
        self.output.starts(at, at + text.len() as u64, 4 * context.keep() as u64);
        let mut result = Ok(());
        let Some(inflate) = &mut self.inflate else { return Ok(Progress::Broken) };
        let progress = inflate.feed(text, last, |out| {
            result = self.output.take(context, out, hits);
            result.is_ok() && !context.over()
        });
        result.map(|()| progress)
    }
}
