//! Chains of numbers that are bytes, with something between them ([`crate::decode::pairs`]), and what they decode to. Called by
//! [`super::layer`].

use super::layer::Hit;
use super::search::{STRETCH, find};
use super::sink::Sink;
use super::{Context, Window};
use crate::decode::codec::is_hex;
use crate::decode::gate::{self, Gate};
use crate::decode::pairs::{Begun, Between, DECIDES, Read, begins};
use crate::engine::EngineError;

/// The chains of a text, of decimal numbers or of hexadecimal ones.
#[derive(Debug)]
pub(crate) struct Pairs {
    decimal: bool,
    /// Everything before is dealt with.
    at: u64,
    open: Option<Box<(Between, Sink)>>,
}

impl Pairs {
    pub(crate) fn new(decimal: bool) -> Self {
        Self { decimal, at: 0, open: None }
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
        let end = window.end();
        while self.at < end && !context.over() {
            if let Some(open) = &mut self.open {
                let (between, sink) = &mut **open;
                let (start, mut used) = (self.at, 0);
                let more = window.with(start..end, |text| {
                    loop {
                        match between.next(&text[used..], last) {
                            Read::Yes((byte, length, digits)) => {
                                used += length;
                                sink.add(&[byte], start + (used - digits) as u64, length as u32);
                            }
                            Read::No => return false,
                            Read::More => return true,
                        }
                        if sink.is_full() {
                            return true;
                        }
                    }
                });
                self.at += used as u64;
                if !more {
                    self.close(context, hits)?;
                    continue;
                }
                let full = sink.is_full();
                sink.flush(context, self.at, false, hits)?;
                if full {
                    continue;
                }
                break;
            }
            let (decimal, flag) = (self.decimal, if self.decimal { gate::NUMBERS } else { gate::PAIRS });
            let look = |before: Option<u8>, text: &[u8], last| look(decimal, before, text, last);
            let found = find(&mut self.at, (window, last), (gate, flag), DECIDES, look);
            let Some(Begun { value, digits, between }) = found else { break };
            if !context.deeper(depth) {
                self.at += digits as u64;
                continue;
            }
            let mut sink = Sink::open(context, between.step(), depth + 1, self.at)?;
            sink.add(&[value], self.at, digits as u32);
            self.at += digits as u64;
            self.open = Some(Box::new((between, sink)));
        }
        if last || context.over() {
            self.close(context, hits)?;
        }
        Ok(())
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

    pub(crate) fn memory(&self, matcher: usize) -> usize {
        self.open.as_ref().map_or(0, |open| open.1.memory(matcher))
    }
}

/// Where in the first [`STRETCH`] bytes of `text` a chain begins, or may begin once more is there.
fn look(decimal: bool, before: Option<u8>, text: &[u8], last: bool) -> (usize, Read<Begun>) {
    let mut before = before;
    for (at, &byte) in text.iter().enumerate().take(STRETCH) {
        let starts = before.is_none_or(|byte| !byte.is_ascii_alphanumeric() || matches!(byte, b'x' | b'X'));
        before = Some(byte);
        if !starts || !(if decimal { byte.is_ascii_digit() } else { is_hex(byte) }) {
            continue;
        }
        match begins(decimal, &text[at..], last) {
            Read::No => {}
            read => return (at, read),
        }
    }
    (text.len().min(STRETCH), Read::No)
}
