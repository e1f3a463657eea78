//! UTF-16 inside a text, and the text it is. Called by [`super::layer`] for the input and for what codecs gave.
//!
//! It begins with a byte order mark or letters beyond ASCII at the text's start, or anywhere with four ASCII characters; it ends
//! where a unit is no text, or four in a row would be ASCII by themselves. Characters outside ASCII are read too, which
//! leaving out NULs would not give.

use super::layer::{AGAIN, Hit};
use super::sink::Sink;
use super::{Context, Window};
use crate::decode::gate::{self, Gate};
use crate::decode::utf16::{self, DECIDES, Order, START, Unit};
use crate::engine::EngineError;
use crate::finding::Step;

/// The UTF-16 of a text.
#[derive(Debug, Default)]
pub(crate) struct Wide {
    /// Everything before is dealt with.
    at: u64,
    /// The start was looked at.
    begun: bool,
    open: Option<Box<(Order, Sink)>>,
}

impl Wide {
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
        if !self.begun {
            if !self.begin(context, window, last, depth)? {
                return Ok(());
            }
            self.begun = true;
        }
        if self.open.is_none() && !gate.any(gate::NUL) && self.at + AGAIN as u64 >= window.fresh() {
            let waits = window.byte(end.saturating_sub(1)).is_some_and(|byte| !last && byte.is_ascii_graphic());
            self.at = self.at.max(end.saturating_sub(u64::from(waits)));
            return Ok(());
        }
        while self.at < end && !context.over() {
            if self.open.is_some() {
                if self.go_on(context, window, last, hits)? {
                    break;
                }
                continue;
            }
            let Some(nul) = self.find(window, last) else { break };
            // Whose NUL it is, the place tells: units lie at even distances from the start. The character beside the first or
            // the last NUL is taken in either case, so that for ASCII it makes no difference.
            let (order, at) = if nul % 2 == 1 { (Order::Little, nul - 1) } else { (Order::Big, nul) };
            if !context.deeper(depth) {
                self.at = nul + 1;
                continue;
            }
            let mut sink = Sink::open(context, Step::Utf16, depth + 1, at)?;
            if order == Order::Big
                && let Some(byte) = at.checked_sub(1).filter(|at| *at >= self.at).and_then(|at| window.byte(at))
                && byte.is_ascii_graphic()
            {
                sink.add(&[byte], at - 1, 1);
            }
            self.at = at;
            self.open = Some(Box::new((order, sink)));
        }
        if last || context.over() {
            self.close(context, hits)?;
        }
        Ok(())
    }

    /// Looks at the text's start; false when there is not enough of it.
    fn begin(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        last: bool,
        depth: usize,
    ) -> Result<bool, EngineError> {
        let (order, skip, known) = window.with(0..START as u64, |start| {
            let known = last || start.len() >= START || utf16::starts_ascii(start);
            let (mark, plain) = (utf16::mark(start), utf16::unmarked(start));
            (mark.or(plain), if mark.is_some() { 2 } else { 0 }, known)
        });
        if !known {
            return Ok(false);
        }
        if let Some(order) = order
            && context.deeper(depth)
        {
            self.at = skip;
            self.open = Some(Box::new((order, Sink::open(context, Step::Utf16, depth + 1, skip)?)));
        }
        Ok(true)
    }

    /// Where the first NUL of UTF-16 is; without one, `self.at` moves to where one may be.
    fn find(&mut self, window: &Window<'_>, last: bool) -> Option<u64> {
        let end = window.end();
        let start = self.at;
        let found = window.with(start..end, |text| {
            for at in memchr::memchr_iter(0, text) {
                if text.len() - at < DECIDES && !last {
                    // The character before is a part of it.
                    return Err(at.saturating_sub(1));
                }
                let first = at > 0 && text[at - 1].is_ascii_graphic();
                if utf16::begins(&text[at..]) && (first || (start + at as u64).is_multiple_of(2)) {
                    return Ok(at);
                }
            }
            // The last byte may be the character before a NUL.
            let waits = !last && text.last().is_some_and(u8::is_ascii_graphic);
            Err(text.len() - usize::from(waits))
        });
        match found {
            Ok(at) => Some(start + at as u64),
            Err(at) => {
                self.at = start + at as u64;
                None
            }
        }
    }

    /// Decodes more; true when later bytes are needed.
    fn go_on(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<bool, EngineError> {
        let Some(open) = &mut self.open else { return Ok(false) };
        let (order, sink) = &mut **open;
        let start = self.at;
        let (used, stop) = window.with(start..window.end(), |text| {
            let mut at = 0;
            while !sink.is_full() {
                let rest = &text[at..];
                if rest.len() < 8 && !last {
                    return (at, Unit::More);
                }
                if utf16::is_ascii(rest) {
                    return (at, Unit::End);
                }
                match utf16::next(*order, rest, last) {
                    Unit::Char(char, length) => {
                        sink.add(char.encode_utf8(&mut [0; 4]).as_bytes(), start + at as u64, length as u32);
                        at += length;
                    }
                    stop => return (at, stop),
                }
            }
            (at, Unit::Char(' ', 0))
        });
        self.at += used as u64;
        if stop != Unit::End {
            sink.flush(context, self.at, false, hits)?;
            return Ok(stop == Unit::More);
        }
        // The other half of the last character, if the bytes were read in the wrong order.
        if let Some(byte) = window.byte(self.at).filter(u8::is_ascii_graphic) {
            sink.add(&[byte], self.at, 1);
            self.at += 1;
        }
        self.close(context, hits)?;
        Ok(false)
    }

    fn close(&mut self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        let Some(open) = self.open.take() else { return Ok(()) };
        open.1.close(context, self.at, hits)
    }

    /// As [`super::layer::Layer::hold`].
    pub(crate) fn hold(&self, context: &Context<'_>, window: &Window<'_>) -> u64 {
        let open = self.open.as_ref().map_or(u64::MAX, |open| open.1.hold(context));
        open.min(self.at).min(window.end())
    }

    /// Does a text go on?
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(crate) fn memory(&self, matcher: usize) -> usize {
        self.open.as_ref().map_or(0, |open| open.1.memory(matcher))
    }
}
