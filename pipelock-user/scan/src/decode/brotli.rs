//! Brotli streams (RFC 7932) that come in pieces. Called by [`super::inflate`].
//!
//! Nothing tells such a stream from other bytes. So it is decoded where a header says what it is, and guessed only by
//! [`looks_like`]: bytes that decode to text are no chance once they are a few.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::inflate::Progress;

type State = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

/// Fewest bytes of text that a guess needs.
const LEAST_TEXT: usize = 24;

/// A stream on its way.
pub(crate) struct Brotli(Box<State>);

impl std::fmt::Debug for Brotli {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Brotli")
    }
}

impl Brotli {
    pub(super) fn new() -> Self {
        let heap = StandardAlloc::default;
        Self(Box::new(BrotliState::new(heap(), heap(), heap())))
    }

    /// As [`super::inflate::Inflate::feed`].
    pub(super) fn feed(&mut self, text: &[u8], out: &mut dyn FnMut(&[u8]) -> bool) -> Progress {
        let (mut left, mut at) = (text.len(), 0);
        let mut buffer = [0; 4096];
        loop {
            let (mut room, mut made, mut total) = (buffer.len(), 0, 0);
            let state = &mut self.0;
            let result =
                BrotliDecompressStream(&mut left, &mut at, text, &mut room, &mut made, &mut buffer, &mut total, state);
            if made > 0 && !out(&buffer[..made]) {
                return Progress::Broken;
            }
            match result {
                BrotliResult::ResultSuccess => return Progress::Ended(at),
                BrotliResult::NeedsMoreInput => return Progress::Going,
                BrotliResult::NeedsMoreOutput if made > 0 => {}
                BrotliResult::NeedsMoreOutput | BrotliResult::ResultFailure => return Progress::Broken,
            }
        }
    }
}

/// Do these bytes begin a stream whose output is text, and when they are `whole`, are they one from the first to the last?
pub(crate) fn looks_like(bytes: &[u8], whole: bool) -> bool {
    // The window's size is the first thing in a stream (RFC 7932 §9.1). Every encoder takes 4 MiB unless told otherwise, 256
    // KiB, 16 MiB (the command) and 64 KiB are the others that are met: a third of all bytes, and what starts otherwise
    // need not be tried.
    let Some(first) = bytes.first() else { return false };
    if !(first & 1 == 0 || matches!(first & 15, 3 | 11 | 13 | 15)) || bytes.len() < LEAST_TEXT / 2 {
        return false;
    }
    let (mut length, mut text) = (0, true);
    let mut cut: Vec<u8> = Vec::new();
    let progress = Brotli::new().feed(bytes, &mut |out| {
        length += out.len();
        cut.extend_from_slice(out);
        text = readable(&cut);
        cut.clear();
        text && length < 1 << 16
    });
    let ends = match progress {
        Progress::Ended(used) => used == bytes.len(),
        Progress::Going => !whole,
        Progress::Broken | Progress::TooBig => text && length >= 1 << 16,
    };
    ends && text && length >= LEAST_TEXT
}

/// Text throughout: UTF-8 without control characters. A character may be cut at the end, or at the start.
fn readable(bytes: &[u8]) -> bool {
    let start = bytes.iter().take(3).take_while(|byte| (0x80..0xc0).contains(*byte)).count();
    let text = bytes.get(start..).unwrap_or_default();
    let valid = match std::str::from_utf8(text) {
        Ok(_) => text.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => return false,
    };
    text[..valid].iter().all(|&byte| byte >= 0x20 && byte != 0x7f || matches!(byte, b'\n' | b'\r' | b'\t'))
}
