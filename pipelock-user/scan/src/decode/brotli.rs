//! Brotli streams (RFC 7932) that come in pieces. Called by [`super::inflate`].
//!
//! Nothing tells such a stream from other bytes. So it is decoded where a header says what it is, and where [`super::unnamed`]
//! guesses it.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::inflate::Progress;

type State = BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>;

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
