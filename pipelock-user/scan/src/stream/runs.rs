//! Runs of base64, base32 and hex characters, and what they decode to. Called by [`super::layer`].
//!
//! A run is as long as it can be; a line break after at least 32 characters does not end it, whatever blanks are around
//! it, or marks of quoted mail and of comments before the next line, nor does a single blank when enough characters follow. Runs below [`SHORT`] characters are decoded when they are
//! over, in every alignment that base64 can have; only what is [`interesting`] is looked at. Longer ones are decoded as
//! they come ([`super::long`]). What a run is depends on its own characters, not on cuts.

use std::ops::Range;

use super::layer::Hit;
use super::long::{ANY_PHASE, APART, Long};
use super::{Context, Layer, Window};
use crate::bits;
use crate::decode::codec::{Alphabet, BASE58_LONGEST, Bits, Radix, base58, in_run, interesting, is_hex};
use crate::decode::inflate::Format;
use crate::decode::unnamed;
use crate::engine::EngineError;
use crate::finding::Step;
use crate::seed;

/// Least characters of a run.
const LEAST: usize = 16;
/// From so many on, a run is decoded as it comes.
const SHORT: usize = 256;
/// Least characters of a line before a break that goes on.
const LINE: usize = 32;
/// Most bytes of a line break with the blanks around it.
const BREAK: usize = 40;
/// Of the signs of a comment, one more than count.
const MARKS: usize = 4;
/// How far back a short run may reach, line breaks included.
pub(crate) const LOOK_BACK: usize = SHORT + BREAK * (SHORT / LINE + 1) + LEAST;

/// The runs of a text.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// Everything before is dealt with; a run may start here.
    at: u64,
    long: Option<Box<Long>>,
    /// Characters of the long run since its last break.
    line: usize,
}

enum Break {
    /// The run goes on after so many bytes.
    Wrap(usize),
    End,
    More,
}

impl Runs {
    pub(crate) fn push(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        last: bool,
        depth: usize,
        hits: &mut Vec<Hit>,
    ) -> Result<(), EngineError> {
        while self.at < window.end() && !context.over() {
            if self.long.is_some() {
                if !self.go_on(context, window, last, hits)? {
                    break;
                }
                continue;
            }
            // Near the border both slices are needed.
            let fresh = window.fresh();
            let end = if self.at < fresh { (fresh + LOOK_BACK as u64).min(window.end()) } else { window.end() };
            let from = self.at;
            let ends = last && end == window.end();
            let mut chars = Vec::new();
            let (skip, run) = window.with(from..end, |text| {
                let Some(start) = next_run(text) else {
                    let tail = text.iter().rev().take(LEAST).take_while(|byte| in_run(**byte)).count();
                    return (text.len() - if ends { 0 } else { tail }, None);
                };
                match extent(&text[start..], ends, &mut chars) {
                    Ok(length) if length < LOOK_BACK => (start, Some(text[start..start + length].to_vec())),
                    // Long, or not over yet.
                    _ => (start, None),
                }
            });
            self.at += skip as u64;
            if let Some(run) = run
                && chars.len() < SHORT
            {
                let start = self.at;
                self.at += run.len() as u64;
                glued(context, &chars, start..self.at, hits);
                short(context, &chars, start..self.at, ANY_PHASE, depth, hits)?;
                if chars.len() < run.len() && depth <= APART {
                    lines(context, &run, start, depth, hits)?;
                }
                continue;
            }
            if self.at < end && self.open(context, window, last, depth)? {
                continue;
            }
            if end == window.end() {
                break;
            }
        }
        if last || context.over() {
            self.close(context, hits)?;
        }
        self.long.as_mut().map_or(Ok(()), |long| long.pause(context, hits))
    }

    /// Starts decoding the run at `self.at` when enough of it is there.
    fn open(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        last: bool,
        depth: usize,
    ) -> Result<bool, EngineError> {
        let start = self.at;
        let head = window.with(start..start + LOOK_BACK as u64, |text| {
            // Behind a blank that may end the run, nothing counts yet.
            let mut chars = Vec::new();
            let (Ok(_) | Err(_)) = extent(text, last, &mut chars);
            chars
        });
        if head.len() >= SHORT {
            self.long = Some(Box::new(Long::open(context, &head, start, depth)?));
        }
        Ok(self.long.is_some())
    }

    /// Decodes more of the long run; false when later bytes are needed.
    fn go_on(
        &mut self,
        context: &mut Context<'_>,
        window: &Window<'_>,
        last: bool,
        hits: &mut Vec<Hit>,
    ) -> Result<bool, EngineError> {
        let Some(long) = &mut self.long else { return Ok(true) };
        let end = window.end();
        let [old, new] = window.parts(self.at..end);
        let part = if old.is_empty() { new } else { old };
        let count = part.iter().take_while(|byte| in_run(**byte)).count();
        if count > 0 {
            long.feed(context, &part[..count], self.at, hits)?;
            self.line += count;
            self.at += count as u64;
            return Ok(true);
        }
        match wrap(&|at| window.byte(self.at + at as u64), self.line, last) {
            Break::Wrap(length) => {
                self.at += length as u64;
                self.line = 0;
                long.wrap(context, hits)?;
                Ok(true)
            }
            Break::More => Ok(false),
            Break::End => {
                self.close(context, hits)?;
                Ok(true)
            }
        }
    }

    fn close(&mut self, context: &mut Context<'_>, hits: &mut Vec<Hit>) -> Result<(), EngineError> {
        self.line = 0;
        self.long.take().map_or(Ok(()), |long| long.close(context, hits))
    }

    /// As `Layer::hold`.
    pub(crate) fn hold(&self, context: &Context<'_>, window: &Window<'_>) -> u64 {
        match &self.long {
            None => self.at.min(window.end()),
            Some(long) => long.hold(context).min(window.end()),
        }
    }

    pub(crate) fn memory(&self, matcher: usize) -> usize {
        self.long.as_ref().map_or(0, |long| long.memory(matcher))
    }
}

/// Where the next run of at least [`LEAST`] characters begins.
fn next_run(text: &[u8]) -> Option<usize> {
    bits::run(text, LEAST, fits)
}

/// As [`in_run`], but without a table: the compiler makes vector instructions of it.
pub(super) fn fits(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let digit = byte.wrapping_sub(b'0') < 10;
    letter | digit | (byte == b'+') | (byte == b'/') | (byte == b'-') | (byte == b'_')
}

/// Bytes of the run at the start of `text`, when it ends within it; otherwise, as far as it certainly goes. Its characters, without
/// what is between its lines, are added to `chars`, until these are [`SHORT`].
fn extent(text: &[u8], last: bool, chars: &mut Vec<u8>) -> Result<usize, usize> {
    let (mut at, mut line) = (0, 0);
    loop {
        let count = text[at..].iter().take_while(|byte| in_run(**byte)).count();
        let few = count.min(SHORT.saturating_sub(chars.len()));
        chars.extend_from_slice(&text[at..at + few]);
        line += count;
        at += count;
        match wrap(&|ahead| text.get(at + ahead).copied(), line, last) {
            Break::Wrap(length) => {
                at += length;
                line = 0;
            }
            Break::End => return Ok(at),
            Break::More => return Err(at),
        }
    }
}

/// What follows the characters of a line: a break, with blanks before it, and after it an indent and what quoted mail or a comment
/// begins with; or one blank, when what follows is long enough to be no word.
fn wrap(byte: &dyn Fn(usize) -> Option<u8>, line: usize, last: bool) -> Break {
    let missing = if last { Break::End } else { Break::More };
    let mut length = 0;
    if byte(0).is_some_and(|byte| line < LINE || !matches!(byte, b'\n' | b'\r' | b' ' | b'\t')) {
        return Break::End;
    }
    let mut broken = false;
    let next = loop {
        match byte(length) {
            None => return missing,
            Some(b'\n') if !broken => broken = true,
            Some(b'\n') => return Break::End,
            Some(b'\r' | b' ' | b'\t') if length < BREAK => {}
            Some(b'>' | b'#' | b'*' | b';' | b'%' | b'|') if broken && length < BREAK => {}
            // Two or three of them with a blank behind, where a run has no blank so early.
            Some(mark @ (b'/' | b'-')) if broken && length < BREAK - MARKS => {
                let mut count = 1;
                while count < MARKS && byte(length + count) == Some(mark) {
                    count += 1;
                }
                match byte(length + count) {
                    None if !last && count < MARKS => return Break::More,
                    Some(b' ') if matches!(count, 2 | 3) => length += count,
                    _ => break mark,
                }
            }
            Some(next) => break next,
        }
        length += 1;
    };
    if !in_run(next) || (!broken && length > 1) {
        return Break::End;
    }
    if broken {
        return Break::Wrap(length);
    }
    for ahead in 0..LEAST {
        match byte(length + ahead) {
            None => return missing,
            Some(byte) if in_run(byte) => {}
            Some(_) => return Break::End,
        }
    }
    Break::Wrap(length)
}

/// A seed phrase without anything between its words looks like any other run.
fn glued(context: &Context<'_>, run: &[u8], span: Range<u64>, hits: &mut Vec<Hit>) {
    if let (Some(rule), Some(phrase)) = (context.shared.seed(), seed::glued(run)) {
        let fingerprint = context.key.fingerprint(&run[phrase.start as usize..phrase.end as usize]);
        let excerpt = phrase.excerpt();
        hits.push(Hit { rule, seen: span.clone(), span, path: Vec::new(), fingerprint, excerpt });
    }
}

/// What stands between the breaks of a run at `start`, each by itself: in a list, a word begins and ends with its line.
fn lines(
    context: &mut Context<'_>,
    run: &[u8],
    start: u64,
    depth: usize,
    hits: &mut Vec<Hit>,
) -> Result<(), EngineError> {
    let mut at = start;
    for line in run.split(|byte| !in_run(*byte)) {
        let span = at..at + line.len() as u64;
        at = span.end + 1;
        if line.len() >= LEAST {
            short(context, line, span, 1, depth, hits)?;
        }
    }
    Ok(())
}

/// Decodes a run that is over in every way it can be meant, with at most so many characters tried as the first.
fn short(
    context: &mut Context<'_>,
    run: &[u8],
    span: Range<u64>,
    phases: usize,
    depth: usize,
    hits: &mut Vec<Hit>,
) -> Result<(), EngineError> {
    let mut out = Vec::with_capacity(SHORT);
    // Of base64 and base32 each byte that begins a group of digits is beyond ASCII: identifiers are no text in these.
    let is_number = run.iter().all(u8::is_ascii_digit);
    for skip in 0..if is_number { 0 } else { 4.min(phases) } {
        out.clear();
        Bits::default().decode(Radix::Base64, &run[skip..], &mut out);
        if skip == 0
            && let Some(format) = unnamed_format(run, &out)
        {
            compressed(context, format, &out, &span, depth, hits)?;
        }
        decoded(context, &out, Step::Base64, &span, depth, hits)?;
    }
    if bits::run(run, LEAST, |byte| byte.is_ascii_alphanumeric()).is_none() {
        return Ok(());
    }
    for alphabet in Alphabet::ALL.into_iter().filter(|alphabet| !is_number || *alphabet == Alphabet::Hex) {
        for part in run.split(|byte| !alphabet.has(*byte)).filter(|part| part.len() >= LEAST) {
            for skip in 0..alphabet.phases().min(phases) {
                out.clear();
                Bits::default().decode(alphabet.radix(), &part[skip..], &mut out);
                decoded(context, &out, alphabet.radix().step(), &span, depth, hits)?;
            }
        }
    }
    let mixed = |part: &&[u8]| {
        (LEAST..=BASE58_LONGEST).contains(&part.len())
            && part.iter().any(u8::is_ascii_uppercase)
            && part.iter().any(u8::is_ascii_lowercase)
            && !part.iter().all(|byte| is_hex(*byte))
    };
    for part in run.split(|byte| !byte.is_ascii_alphanumeric()).filter(mixed) {
        if let Some(bytes) = base58(part) {
            decoded(context, &bytes, Step::Base58, &span, depth, hits)?;
        }
    }
    Ok(())
}

/// How it is compressed from the first byte to the last, when nothing names it. Fewer bytes are not worth the look, nor are the
/// paths and words that many a run is.
fn unnamed_format(run: &[u8], bytes: &[u8]) -> Option<Format> {
    let has = |kind: fn(&u8) -> bool| run.iter().any(kind);
    let is_worth =
        bytes.len() >= 20 && has(u8::is_ascii_digit) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase);
    is_worth.then(|| unnamed::format(bytes, true)).flatten()
}

fn compressed(
    context: &mut Context<'_>,
    format: Format,
    bytes: &[u8],
    span: &Range<u64>,
    depth: usize,
    hits: &mut Vec<Hit>,
) -> Result<(), EngineError> {
    if !context.deeper(depth) || !context.spend(bytes.len()) {
        return Ok(());
    }
    let layer = Layer::named(context, depth + 1, format)?;
    run(context, layer, bytes, Step::Base64, span, hits)
}

/// Looks at bytes that a codec gave for the text at `span`, when they may hold something.
pub(crate) fn decoded(
    context: &mut Context<'_>,
    bytes: &[u8],
    step: Step,
    span: &Range<u64>,
    depth: usize,
    hits: &mut Vec<Hit>,
) -> Result<(), EngineError> {
    if !interesting(bytes) || !context.deeper(depth) || !context.spend(bytes.len()) {
        return Ok(());
    }
    let layer = Layer::open(context, depth + 1, None)?;
    run(context, layer, bytes, step, span, hits)
}

fn run(
    context: &mut Context<'_>,
    mut layer: Layer,
    bytes: &[u8],
    step: Step,
    span: &Range<u64>,
    hits: &mut Vec<Hit>,
) -> Result<(), EngineError> {
    let mut found = Vec::new();
    layer.push(context, bytes, true, &mut found)?;
    layer.close(context);
    for mut hit in found {
        hit.path.insert(0, step);
        hits.push(Hit { span: span.clone(), seen: span.clone(), ..hit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As [`extent`], without the characters.
    fn reach(text: &[u8], last: bool) -> Result<usize, usize> {
        extent(text, last, &mut Vec::new())
    }

    #[test]
    fn the_table_and_its_comparisons_say_the_same() {
        assert!((0..=255).all(|byte| fits(byte) == in_run(byte)));
    }

    #[test]
    fn every_long_enough_run_is_found() {
        for before in 0..70 {
            for length in 0..40 {
                let text = format!("{}{} {}", "ab cd ".repeat(before / 6), " ".repeat(before % 6), "x".repeat(length));
                let start = text.len() - length;
                let found = next_run(text.as_bytes());
                assert_eq!(found, (length >= LEAST).then_some(start), "{text}");
            }
        }
    }

    #[test]
    fn a_long_line_goes_on_after_a_break() {
        let line = "A".repeat(64);
        let run = format!("{line}\n{line}\r\nBBBB\nCC");
        assert_eq!(reach(run.as_bytes(), true), Ok(64 + 1 + 64 + 2 + 4));
        assert_eq!(reach(format!("{line}\n").as_bytes(), false), Err(64));
        assert_eq!(reach(format!("{line} {line} {}", "A".repeat(LEAST - 1)).as_bytes(), false), Err(129));
        assert_eq!(reach(format!("{line}\n  x.").as_bytes(), false), Ok(67 + 1));
        assert_eq!(reach(format!("{line} \r\n\t> {line}.").as_bytes(), false), Ok(64 + 6 + 64));
        for marks in ["# ", "// ", " * ", "/// ", "-- ", "; ", "   # "] {
            let marked = format!("{line}\n{marks}{line}.");
            assert_eq!(reach(marked.as_bytes(), false), Ok(marked.len() - 1), "{marks}");
            let mut chars = Vec::new();
            extent(marked.as_bytes(), true, &mut chars).unwrap();
            assert_eq!(chars, [line.as_bytes(), line.as_bytes()].concat());
        }
        assert_eq!(reach(format!("{line}\n////").as_bytes(), false), Err(69));
        assert_eq!(reach(format!("{line}\n//").as_bytes(), false), Err(64));
        assert_eq!(reach(format!("{line}\n// {line}").as_bytes(), false), Err(132));
        assert_eq!(reach(format!("{line} {line} and so on").as_bytes(), false), Ok(64 + 1 + 64));
        assert_eq!(reach(format!("{line} words").as_bytes(), true), Ok(64));
        assert_eq!(reach(format!("{line}\n\nwords").as_bytes(), false), Ok(64));
        assert_eq!(reach(format!("{line}\n . x").as_bytes(), false), Ok(64));
    }
}
