//! Long runs of printable ASCII without a space, and what hides in them: base85, base64 in other alphabets, host names. Called
//! by [`super::layer`].
//!
//! A run is looked at through windows of [`WINDOW`] bytes that start every [`STEP`] bytes from its beginning, so what is seen does
//! not depend on how the text was cut. Base85 that goes beyond a window is decoded as it comes.

use std::ops::Range;

use super::layer::Hit;
use super::runs::{decoded, fits};
use super::sink::Sink;
use super::{Context, Window};
use crate::bits;
use crate::decode::base85::{Alphabet, DECIDES};
use crate::decode::codec::Variant;
use crate::decode::inflate::Format;
use crate::decode::names;
use crate::engine::EngineError;
use crate::finding::Step;

/// Least bytes of a run: 20 bytes in base85.
const LEAST: usize = 25;
const WINDOW: usize = 256;
const STEP: usize = WINDOW / 2;

/// The long runs of a text.
#[derive(Debug, Default)]
pub(crate) struct Graphic {
    /// Everything before is dealt with.
    at: u64,
    open: Option<Box<Open>>,
}

/// Base85 that is being decoded.
#[derive(Debug)]
struct Open {
    alphabet: Alphabet,
    /// Between `<~` and `~>`: line breaks and spaces are no part of it.
    framed: bool,
    /// Characters of a group that is not whole.
    group: Vec<u8>,
    /// Where it begins.
    group_at: u64,
    sink: Sink,
}

impl Graphic {
    pub(crate) fn push(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        last: bool,
        depth: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        let end = window.end();
        while self.at < end && !context.over() {
            if self.open.is_some() {
                self.go_on(context, window, hits)?;
                continue;
            }
            // Near the border both slices are needed.
            let fresh = window.fresh();
            let stop = if self.at < fresh { (fresh + WINDOW as u64).min(end) } else { end };
            let Some(skip) = window.with(self.at..stop, next_run) else {
                if last && stop == end {
                    self.at = end;
                    break;
                }
                // The last bytes may be the beginning of a run.
                let tail = stop.saturating_sub(LEAST as u64).max(self.at)..stop;
                let held = window.with(tail, |text| text.iter().rev().take_while(|byte| is_graphic(**byte)).count());
                self.at = stop - held as u64;
                if stop == end {
                    break;
                }
                continue;
            };
            self.at += skip as u64;
            let start = self.at;
            let joined;
            let text = match window.parts(start..start + WINDOW as u64) {
                [text, []] | [[], text] => text,
                both => {
                    joined = both.concat();
                    &joined
                }
            };
            let run = &text[..bits::position(text, |byte| !is_graphic(byte)).unwrap_or(text.len())];
            let cut = start + run.len() as u64 == end && run.len() < WINDOW;
            if cut && !last {
                break;
            }
            let before = start.checked_sub(1).and_then(|at| window.byte(at)).is_some_and(is_graphic);
            let part = Part { run, start, begins: !before, ends: run.len() < WINDOW };
            if self.look(context, &part, depth, hits)? {
                continue;
            }
            self.at += if part.ends { run.len() } else { STEP } as u64;
        }
        if last || context.over() {
            self.close(context, hits)?;
        }
        Ok(())
    }

    /// Looks at a window; true when base85 was opened, at which `self.at` then is.
    fn look(
        &mut self,
        context: &mut Context<'_>,
        part: &Part<'_>,
        depth: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<bool, EngineError> {
        part.names(context, depth, hits)?;
        part.variants(context, depth, hits)?;
        let Some((at, alphabet, framed)) = part.base85() else { return Ok(false) };
        if !context.deeper(depth) {
            return Ok(false);
        }
        self.at = part.start + at as u64;
        let sink = Sink::open(context, Step::Base85, depth + 1, self.at)?;
        self.open = Some(Box::new(Open { alphabet, framed, group: Vec::with_capacity(5), group_at: self.at, sink }));
        Ok(true)
    }

    /// Decodes more of what is open.
    fn go_on(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let [old, new] = window.parts(self.at..window.end());
        let part = if old.is_empty() { new } else { old };
        let mut over = false;
        for byte in part {
            let blank = open.framed && matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
            if !blank && !open.take(*byte, self.at) {
                over = true;
                break;
            }
            self.at += 1;
            if open.sink.is_full() {
                break;
            }
        }
        if over {
            return self.close(context, hits);
        }
        // A group that is not whole is decided with what follows.
        open.sink.flush(context, open.decided(self.at), false, hits)
    }

    fn close(&mut self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let rest = open.alphabet.rest(&open.group);
        if !rest.is_empty() {
            open.sink.add(&rest, open.group_at, open.group.len() as u32);
        }
        open.sink.close(context, self.at, hits)
    }

    /// As [`super::layer::Layer::hold`].
    pub(crate) fn hold(&self, context: &Context<'_>, window: &Window<'_>) -> u64 {
        let open = self.open.as_ref().map_or(self.at, |open| open.sink.hold(context).min(open.decided(self.at)));
        open.min(self.at).min(window.end())
    }

    pub(crate) fn memory(&self, matcher: usize) -> usize {
        self.open.as_ref().map_or(0, |open| size_of::<Open>() + open.sink.memory(matcher))
    }
}

impl Open {
    /// Takes a character; false when it is not of the alphabet, or ends the text.
    fn take(&mut self, byte: u8, at: u64) -> bool {
        if !self.alphabet.has(byte) {
            // `z` is a whole group of zeros (Ascii85).
            let zeros = byte == b'z' && self.alphabet == Alphabet::Ascii85 && self.group.is_empty();
            if zeros {
                self.sink.add(&[0; 4], at, 1);
            }
            return zeros;
        }
        if self.group.is_empty() {
            self.group_at = at;
        }
        self.group.push(byte);
        if self.group.len() == 5 {
            // What stands for no bytes must not join its neighbours.
            let bytes = self.alphabet.group(&self.group).unwrap_or([0xff; 4]);
            self.sink.add(&bytes, self.group_at, 5);
            self.group.clear();
        }
        true
    }

    /// How far the text is decoded when it is read up to `at`.
    fn decided(&self, at: u64) -> u64 {
        if self.group.is_empty() { at } else { self.group_at }
    }
}

/// A window on a run.
struct Part<'a> {
    run: &'a [u8],
    start: u64,
    /// The run begins, and ends, with the window.
    begins: bool,
    ends: bool,
}

impl Part<'_> {
    /// The stretches of bytes that `has`, but those that may go on beyond the window.
    fn whole(&self, has: impl Fn(u8) -> bool) -> impl Iterator<Item = (usize, &[u8])> {
        let mut at = 0;
        self.run.split(move |byte| !has(*byte)).filter_map(move |stretch| {
            let start = at;
            at += stretch.len() + 1;
            let inside = (start > 0 || self.begins) && (start + stretch.len() < self.run.len() || self.ends);
            inside.then_some((start, stretch))
        })
    }

    fn span(&self, at: usize, length: usize) -> Range<u64> {
        let start = self.start + at as u64;
        start..start + length as u64
    }

    fn names(&self, context: &mut Context<'_>, depth: usize, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        // A name of interest has three dots, or a label of another alphabet, `xn--`.
        let dots = bits::count(self.run, |byte| byte == b'.');
        if dots == 0 || (dots < 3 && !self.run.windows(2).any(|pair| pair == b"--")) {
            return Ok(());
        }
        for (at, name) in self.whole(names::in_name) {
            let span = self.span(at, name.len());
            if let Some(text) = names::shown(name) {
                decoded(context, text.as_bytes(), Step::Punycode, &span, depth, hits)?;
            }
            if let Some(text) = names::joined(name) {
                decoded(context, &text, Step::Joined, &span, depth, hits)?;
            }
        }
        Ok(())
    }

    /// Base64 in alphabets other than the usual ones.
    fn variants(&self, context: &mut Context<'_>, depth: usize, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() | (byte == b'/');
        if bits::run(self.run, LEAST, |byte| plain(byte) | (byte == b'+') | (byte == b',') | (byte == b'.')).is_none() {
            return Ok(());
        }
        // Without a comma it is the usual alphabet.
        if self.run.contains(&b',') {
            let has = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b',');
            self.variant(context, Variant::Imap, has, depth, hits)?;
        }
        for variant in [Variant::Bcrypt, Variant::Crypt] {
            self.variant(context, variant, |byte| plain(byte) || byte == b'.', depth, hits)?;
        }
        Ok(())
    }

    fn variant(
        &self,
        context: &mut Context<'_>,
        variant: Variant,
        has: impl Fn(u8) -> bool,
        depth: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        for (at, text) in self.whole(has).filter(|(_, text)| text.len() >= LEAST) {
            for skip in 0..4 {
                let Some(bytes) = variant.text_in(&text[skip..]) else { continue };
                let span = self.span(at, text.len());
                decoded(context, &bytes, Step::Base64, &span, depth, hits)?;
            }
        }
        Ok(())
    }

    /// Where base85 begins, and in which alphabet; framed when Adobe's `<~` stands before it.
    fn base85(&self) -> Option<(usize, Alphabet, bool)> {
        let mut frames = memchr::memchr_iter(b'<', self.run);
        if let Some(at) = frames.find(|at| self.run.get(at + 1) == Some(&b'~')) {
            return Some((at + 2, Alphabet::Ascii85, true));
        }
        // A quarter of the alphabet is no base64, and two thirds are no lower-case letters; URLs and paths have less of both.
        let fitting = bits::count(self.run, fits);
        let others = bits::count(self.run, |byte| (byte.wrapping_sub(b'A') < 26) | (byte.wrapping_sub(b'0') < 10));
        let odd = self.run.len() - fitting;
        if odd * 32 < self.run.len() || (odd + others) * 4 < self.run.len() {
            return None;
        }
        let mut first: Option<(usize, Alphabet, bool)> = None;
        for alphabet in Alphabet::ALL {
            let mut at = 0;
            for stretch in self.run.split(|byte| !alphabet.has(*byte)) {
                if stretch.len() >= 20
                    && let Some(skip) = packed(alphabet, stretch).or_else(|| alphabet.text_in(stretch))
                    && first.is_none_or(|(known, ..)| at + skip < known)
                {
                    first = Some((at + skip, alphabet, false));
                }
                at += stretch.len() + 1;
            }
        }
        // What begins at the window's end is left to the next one, which sees more of it.
        first.filter(|(at, ..)| self.ends || *at < STEP)
    }
}

/// Compressed data at the start.
fn packed(alphabet: Alphabet, text: &[u8]) -> Option<usize> {
    let start = [alphabet.group(text)?, alphabet.group(&text[5..])?].concat();
    Format::of(&start).map(|_| 0)
}

const _: () = assert!(DECIDES < STEP);

fn is_graphic(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e)
}

/// Where the next run of at least [`LEAST`] bytes begins.
fn next_run(text: &[u8]) -> Option<usize> {
    bits::run(text, LEAST, is_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_long_enough_run_is_found() {
        for before in 0..80 {
            for length in 0..60 {
                let text = format!("{}{} {}", "ab cd ".repeat(before / 6), " ".repeat(before % 6), "~".repeat(length));
                let start = text.len() - length;
                assert_eq!(next_run(text.as_bytes()), (length >= LEAST).then_some(start), "{text}");
            }
        }
    }
}
