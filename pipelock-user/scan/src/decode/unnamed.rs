//! Compressed data that no first bytes tell: Brotli (RFC 7932), and deflate without a frame (RFC 1951), as SAML sends it. Called by
//! `stream::runs` and `stream::long` for what base64 gives.
//!
//! Promises: what is taken for one decodes to text throughout, which is no chance once that is a few bytes long.

use super::inflate::{Format, Inflate, Progress};

/// Fewest bytes of text that a guess needs.
const LEAST_TEXT: usize = 24;
/// Bytes of text that are enough for it.
const ENOUGH: usize = 1 << 16;

/// How these bytes are compressed, or what they are the beginning of unless they are `whole`; nothing when that gives
/// no text, or they are text as they are.
pub(crate) fn format(bytes: &[u8], whole: bool) -> Option<Format> {
    let first = *bytes.first().filter(|_| bytes.len() >= LEAST_TEXT / 2 && !readable(bytes))?;
    // The window's size is the first thing in Brotli (RFC 7932 §9.1). Every encoder takes 4 MiB unless told otherwise, 256
    // KiB, 16 MiB (the command) and 64 KiB are the others that are met: a third of all bytes, and what starts otherwise
    // need not be tried.
    let brotli = first & 1 == 0 || matches!(first & 15, 3 | 11 | 13 | 15);
    // A block of one of the two kinds that compress (RFC 1951 §3.2.3).
    let deflate = matches!(first >> 1 & 3, 1 | 2);
    let tried = [(Format::Brotli, brotli), (Format::Deflate, deflate)];
    let mut tried = tried.into_iter().filter(|(_, may_be)| *may_be).map(|(format, _)| format);
    tried.find(|format| is_text(*format, bytes, whole))
}

fn is_text(format: Format, bytes: &[u8], whole: bool) -> bool {
    let (mut length, mut text) = (0, true);
    let progress = Inflate::new(format).feed(bytes, whole, |out| {
        length += out.len();
        text = text && readable(out);
        text && length < ENOUGH
    });
    let ends = match progress {
        Progress::Ended(used) => used == bytes.len(),
        Progress::Going => !whole,
        Progress::Broken | Progress::TooBig | Progress::Unread(_) => text && length >= ENOUGH,
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn deflated(text: &[u8], level: u32) -> Vec<u8> {
        let mut to = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
        to.write_all(text).unwrap();
        to.finish().unwrap()
    }

    #[test]
    fn deflate_without_a_frame_is_told_by_its_text() {
        // Of less, an encoder makes a block that is not compressed.
        let text = "a text of some length, as it is sent, of some length, with more of the same text";
        for level in [1, 6, 9] {
            let bytes = deflated(text.as_bytes(), level);
            assert_eq!(format(&bytes, true), Some(Format::Deflate));
            assert_eq!(format(&[&bytes[..], b"x"].concat(), true), None);
            assert_eq!(format(&deflated(&[7; 100], level), true), None);
            let long = deflated(text.repeat(1000).as_bytes(), level);
            assert_eq!(format(&long, true), Some(Format::Deflate));
        }
    }

    #[test]
    fn noise_is_no_text() {
        let mut state = 1u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        for _ in 0..20_000 {
            let noise: Vec<u8> = (0..150).map(|_| byte()).collect();
            assert_eq!((format(&noise, true), format(&noise, false)), (None, None));
        }
    }
}
