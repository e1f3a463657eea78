//! How much of a text is given at once, so that others have their turn between. Asked by whoever reads bodies.
//!
//! Promises: of what deflates, a call unpacks two megabytes where it is seen before it is read, and sixteen where it is not; no text has
//! to be read in steps to be read the same.

use super::{Layer, Stream};

/// Bytes that are given at once, and where each of them may become a thousand.
const STEP: usize = 16 * 1024;
const SMALL_STEP: usize = 2 * 1024;
/// Bytes behind those that became many which may do so as well.
const COSTLY: usize = 64 * 1024;
/// How many a byte becomes that costs more than others.
const MANY: u64 = 64;
/// Bytes that tell where packed data begins.
const BEGINNING: usize = 3;

/// The first place in a text where packed data may begin.
fn may_begin(text: &[u8]) -> Option<usize> {
    let begins = |at: &usize| {
        let [first, second, third] = [0, 1, 2].map(|ahead| text.get(at + ahead).copied());
        match (first, second) {
            (Some(0x1f), Some(0x8b)) => third == Some(8),
            (Some(0x78), Some(0x01 | 0x5e | 0x9c | 0xda)) => true,
            (Some(0x28), Some(0xb5)) => third == Some(0x2f),
            _ => false,
        }
    };
    let zip = memchr::memmem::find(text, b"PK\x03");
    memchr::memchr3_iter(0x1f, 0x78, 0x28, text).find(begins).into_iter().chain(zip).min()
}

/// How many bytes are to be given in small steps, when `before` were and `read` of them became `made`.
pub(super) fn costly(before: usize, read: usize, made: u64) -> usize {
    if made > MANY * read as u64 { COSTLY } else { before.saturating_sub(read) }
}

impl Stream {
    /// How many of the bytes that come `next` are to be given at once to a text that is read [in steps](crate::Scanner::in_steps), so that
    /// no call takes long.
    ///
    /// Where data is unpacked, or begins, a byte may become a thousand: two megabytes at once. What is packed within another encoding
    /// is not seen before it is read: sixteen at once, and then two. Only Brotli and Zstandard can say more with the same bytes: all that
    /// [`Limits`](crate::Limits) leave of the text.
    pub fn step(&self, next: &[u8]) -> usize {
        if self.costly > 0 || self.root.as_ref().is_some_and(Layer::is_unpacking) {
            return next.len().min(SMALL_STEP);
        }
        let next = next.get(..STEP).unwrap_or(next);
        // A beginning may be cut: behind what was pushed last, and before what is pushed next.
        let before = self.root.as_ref().map_or(&[][..], |root| root.end_of(BEGINNING - 1));
        let mut seam = [before, next.get(..BEGINNING - 1).unwrap_or(next)].concat();
        seam.truncate(before.len() + BEGINNING - 1);
        if may_begin(&seam).is_some() {
            return next.len().min(SMALL_STEP);
        }
        match may_begin(next) {
            Some(at) if at < SMALL_STEP => next.len().min(SMALL_STEP),
            Some(at) => at,
            None => next.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use crate::{RuleSet, Scanner};

    #[test]
    fn no_step_unpacks_much() {
        let scanner = Scanner::new(RuleSet::shipped().unwrap(), &[1; 32]).unwrap().in_steps();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![0; 20 << 20]).unwrap();
        let packed = gzip.finish().unwrap();
        let coded: String = packed.iter().map(|byte| format!("{byte:02x}")).collect();
        let words = "some words ".repeat(900).into_bytes();
        for (name, text, most) in [
            ("at once", packed.clone(), 2200 << 10),
            ("behind words", [&words[..], &packed].concat(), 2200 << 10),
            ("coded", [&words[..], coded.as_bytes()].concat(), 16 << 20),
        ] {
            // However it comes.
            for size in [text.len(), words.len() + 1, words.len() + 2] {
                let mut stream = scanner.stream().unwrap();
                let (mut largest, mut last) = (0, 0);
                for mut rest in text.chunks(size) {
                    while !rest.is_empty() {
                        let count = stream.step(rest);
                        assert!(count > 0);
                        let (piece, behind) = rest.split_at(count);
                        rest = behind;
                        let _ = stream.push(piece).unwrap();
                        largest = largest.max(stream.work.unpacked - last);
                        last = stream.work.unpacked;
                    }
                }
                // But for its last bytes, which wait for more, and for longer behind a codec.
                assert!(last >= 17 << 20, "{name}, {size}: {last}");
                assert!(largest < most, "{name}, {size}: {largest}");
            }
        }
    }

    #[test]
    fn plain_text_goes_by_in_large_steps() {
        let scanner = Scanner::new(RuleSet::shipped().unwrap(), &[1; 32]).unwrap().in_steps();
        let mut stream = scanner.stream().unwrap();
        let text = "PK is no archive (and f(x) no zlib) ".repeat(2000);
        for piece in text.as_bytes().chunks(super::STEP) {
            assert_eq!(stream.step(piece), piece.len());
            let _ = stream.push(piece).unwrap();
        }
    }
}
