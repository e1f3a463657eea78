//! Dumps ([`crate::decode::dump`]), and the bytes that they print. Called by [`super::layer`].

use super::layer::Hit;
use super::search::{STRETCH, find};
use super::sink::Sink;
use super::{Context, Window};
use crate::decode::dump::{LINE, Line, Next};
use crate::decode::gate::{self, Gate};
use crate::decode::pairs::Read;
use crate::engine::EngineError;
use crate::finding::Step;

/// Bytes that decide whether a dump begins.
pub(crate) const DECIDES: usize = 2 * LINE;
/// The dumps of a text.
#[derive(Debug, Default)]
pub(crate) struct Dumps {
    /// Everything before is dealt with.
    at: u64,
    open: Option<Box<(Next, Sink)>>,
}

impl Dumps {
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
                let (next, sink) = &mut **open;
                let start = self.at;
                let stop = end.min(start + LINE as u64);
                let read = window.with(start..stop, |text| {
                    let mut line = match Line::read(text, last && stop == end) {
                        Read::Yes(line) => line,
                        Read::No => return Read::No,
                        Read::More => return Read::More,
                    };
                    let Some(after) = next.after(&line) else { return Read::No };
                    *next = after;
                    // With what stands behind the groups, which may be the same in letters.
                    let end = start + text.get(..line.length).unwrap_or(text).trim_ascii_end().len() as u64;
                    line.groups(text, |bytes, at| sink.add_whole(bytes, start + at as u64..end));
                    Read::Yes(line.length)
                });
                match read {
                    Read::Yes(length) => self.at += length as u64,
                    Read::No => {
                        self.close(context, hits)?;
                        continue;
                    }
                    Read::More => {}
                }
                if read == Read::More || sink.is_full() || self.at >= end {
                    sink.flush(context, self.at, false, hits)?;
                }
                if read == Read::More {
                    break;
                }
                continue;
            }
            let found = find(&mut self.at, (window, last), (gate, gate::DUMPS), DECIDES, look);
            let Some(next) = found else { break };
            if !context.deeper(depth) {
                self.at += 1;
                continue;
            }
            let sink = Sink::open(context, Step::Hex, depth + 1, self.at)?;
            self.open = Some(Box::new((next, sink)));
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

/// Where in the first [`STRETCH`] bytes of `text`, behind `before`, a dump begins, or may begin once more is there: with a line, or
/// within one at the offset 0.
fn look(before: Option<u8>, text: &[u8], last: bool) -> (usize, Read<Next>) {
    let starts = |before: Option<u8>| before.is_none_or(|byte| byte == b'\n');
    let found = memchr::memchr2_iter(b'\n', b'0', text).filter_map(|at| {
        let before = at.checked_sub(1).map_or(before, |at| text.get(at).copied());
        let is_apart = before.is_some_and(|byte| !byte.is_ascii_alphanumeric() && byte != b'\n');
        match text.get(at) {
            Some(b'\n') => Some(at + 1),
            _ => (is_apart && text.iter().skip(at).take(4).all(|byte| *byte == b'0')).then_some(at),
        }
    });
    let places = starts(before).then_some(0).into_iter().chain(found);
    for at in places.take_while(|at| *at < STRETCH.min(text.len())) {
        let rest = text.get(at..).unwrap_or_default();
        let first = match Line::read(rest, last) {
            Read::Yes(first) => first,
            Read::More => return (at, Read::More),
            Read::No => continue,
        };
        let second = match Line::read(rest.get(first.length..).unwrap_or_default(), last) {
            Read::Yes(second) => second,
            Read::More => return (at, Read::More),
            Read::No => continue,
        };
        if let Some(next) = first.begins(&second) {
            return (at, Read::Yes(next));
        }
    }
    (text.len().min(STRETCH), Read::No)
}
