//! Zstandard frames (RFC 8878) that come in pieces. Called by [`super::inflate`].
//!
//! The decoder takes whole blocks, so pieces are collected until a block is there: at most 128 KiB. It gives back what lies
//! further behind than the window, and the rest when the frame is over; a frame that is cut short or damaged is ended by an
//! empty last block, so that what was decoded so far comes out.

use std::io::Read as _;

use ruzstd::decoding::FrameDecoder;
use ruzstd::decoding::errors::FrameDecoderError;

use super::inflate::Progress;

/// Largest window that a frame may ask for, in bytes: what RFC 8878 §3.1.1.1.2 recommends to support. All of it is memory.
const MOST_WINDOW: u64 = 8 << 20;
/// Longest frame without data that is passed over in front of others (RFC 8878 §3.1.2): more may hide something.
const LONGEST_SKIPPED: u8 = 128;
/// What a frame begins with, and one that is passed over behind its first byte (RFC 8878 §3.1).
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const SKIPPED: [u8; 3] = [0x2a, 0x4d, 0x18];
/// Largest block (RFC 8878 §3.1.1.2.4).
const MOST_BLOCK: usize = 128 << 10;
/// A raw block of no bytes, marked as the last.
const LAST_BLOCK: [u8; 3] = [1, 0, 0];

/// A frame on its way.
pub(crate) struct Zstd {
    decoder: FrameDecoder,
    /// Bytes that are not yet a header or a block.
    pending: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Blocks {
        checksum: bool,
    },
    /// So many bytes of checksum are to be passed over.
    Checksum,
}

impl std::fmt::Debug for Zstd {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Zstd").field("pending", &self.pending.len()).field("state", &self.state).finish()
    }
}

impl Zstd {
    pub(super) fn new() -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MOST_WINDOW);
        Self { decoder, pending: Vec::new(), state: State::Header }
    }

    /// As [`super::inflate::Inflate::feed`].
    pub(super) fn feed(&mut self, text: &[u8], last: bool, out: &mut dyn FnMut(&[u8]) -> bool) -> Progress {
        self.pending.extend_from_slice(text);
        let (mut at, mut is_cut) = (0, false);
        let progress = loop {
            let rest = self.pending.get(at..).unwrap_or_default();
            let part = match self.state {
                State::Header => header(rest),
                State::Blocks { .. } => block(rest),
                State::Checksum => Part::Whole(4),
            };
            let length = match part {
                Part::Whole(length) if length <= rest.len() => length,
                Part::Wrong => break Progress::Broken,
                // Cut short: a checksum that is missing changes nothing.
                Part::Whole(_) | Part::More if last => {
                    is_cut = true;
                    break Progress::Going;
                }
                Part::Whole(_) | Part::More => break Progress::Going,
            };
            match self.state {
                State::Header if rest[0] != MAGIC[0] => {}
                State::Header => {
                    match self.decoder.reset(&rest[..length]) {
                        Ok(()) => {}
                        Err(FrameDecoderError::WindowSizeTooBig { .. }) => break Progress::TooBig,
                        Err(_) => break Progress::Broken,
                    }
                    self.state = State::Blocks { checksum: rest[4] & 4 != 0 };
                }
                State::Blocks { checksum } => {
                    let ends = rest[0] & 1 != 0;
                    if self.decoder.decode_from_to(&rest[..length], &mut []).is_err() {
                        break Progress::Broken;
                    }
                    if !drain(&mut self.decoder, out) {
                        break Progress::Broken;
                    }
                    if ends && !checksum {
                        break Progress::Ended(at + length);
                    }
                    if ends {
                        self.state = State::Checksum;
                    }
                }
                State::Checksum => break Progress::Ended(at + length),
            }
            at += length;
        };
        match progress {
            Progress::Going if !is_cut => {
                self.pending.drain(..at);
            }
            // Counted in `text`, which is the end of what is pending.
            Progress::Ended(end) => return Progress::Ended((end + text.len()).saturating_sub(self.pending.len())),
            Progress::Broken | Progress::Going if matches!(self.state, State::Blocks { .. }) => {
                if self.decoder.decode_from_to(&LAST_BLOCK, &mut []).is_ok() {
                    drain(&mut self.decoder, out);
                }
            }
            Progress::Broken | Progress::Going | Progress::TooBig | Progress::Unread(_) => {}
        }
        progress
    }

    /// Bytes it takes beside itself, at most.
    pub(super) fn memory(&self) -> usize {
        self.pending.capacity() + self.decoder.can_collect() + MOST_BLOCK
    }
}

enum Part {
    /// So many bytes, if they are there.
    Whole(usize),
    More,
    Wrong,
}

/// How long the header is: magic number, descriptor, window, dictionary, size (RFC 8878 §3.1.1.1).
fn header(text: &[u8]) -> Part {
    let &[first, second, third, fourth, descriptor, ..] = text else { return Part::More };
    if [second, third, fourth] == SKIPPED && first & 0xf0 == 0x50 {
        return match text {
            [_, _, _, _, length, 0, 0, 0, ..] if *length <= LONGEST_SKIPPED => Part::Whole(8 + usize::from(*length)),
            [_, _, _, _, _, _, _, _, ..] => Part::Wrong,
            _ => Part::More,
        };
    }
    if [first, second, third, fourth] != MAGIC {
        return Part::Wrong;
    }
    if descriptor & 8 != 0 {
        return Part::Wrong;
    }
    let single = descriptor & 0x20 != 0;
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let size = [usize::from(single), 2, 4, 8][usize::from(descriptor >> 6)];
    Part::Whole(5 + usize::from(!single) + dictionary + size)
}

/// How long the block is: three bytes that say so, and its contents (RFC 8878 §3.1.1.2).
fn block(text: &[u8]) -> Part {
    let &[first, second, third, ..] = text else { return Part::More };
    let word = usize::from(first) | usize::from(second) << 8 | usize::from(third) << 16;
    match word >> 1 & 3 {
        1 => Part::Whole(4),
        0 | 2 if word >> 3 <= MOST_BLOCK => Part::Whole(3 + (word >> 3)),
        _ => Part::Wrong,
    }
}

/// Hands on what the decoder gives; false when nothing more is wanted.
fn drain(decoder: &mut FrameDecoder, out: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let mut buffer = [0; 4096];
    while let Ok(made) = decoder.read(&mut buffer)
        && made > 0
    {
        if !out(&buffer[..made]) {
            return false;
        }
    }
    true
}
