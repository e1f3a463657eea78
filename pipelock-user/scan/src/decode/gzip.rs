//! The header of a gzip member (RFC 1952 §2.3), which may come in pieces. Called by [`super::inflate`].

use super::zip::Skipped;

/// Where in the header of a gzip member (RFC 1952 §2.3) the next byte belongs.
#[derive(Debug, Default)]
pub(crate) struct GzipHeader {
    fixed: usize,
    flags: u8,
    extra: Option<(usize, usize)>,
    strings: u8,
    checksum: usize,
    /// It does not begin as one.
    wrong: bool,
}

/// What every one begins with, and the flags that none has.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
const RESERVED: u8 = 0xe0;

impl GzipHeader {
    /// Takes header bytes; says how many when the header is over.
    pub(super) fn skip(&mut self, text: &[u8]) -> Skipped {
        for (at, &byte) in text.iter().enumerate() {
            if self.over() {
                return Skipped::Some(at);
            }
            self.take(byte);
            if self.wrong {
                return Skipped::Other;
            }
        }
        if self.over() { Skipped::Some(text.len()) } else { Skipped::All }
    }

    fn over(&self) -> bool {
        let extra = self.flags & 4 == 0 || self.extra.is_some_and(|(read, size)| read >= 2 && read - 2 == size);
        let strings = (self.flags >> 3 & 1) + (self.flags >> 4 & 1);
        let checksum = if self.flags & 2 == 0 { 0 } else { 2 };
        self.fixed == 10 && extra && self.strings == strings && self.checksum == checksum
    }

    fn take(&mut self, byte: u8) {
        if self.fixed < 10 {
            if self.fixed == MAGIC.len() {
                self.flags = byte;
                self.wrong = byte & RESERVED != 0;
            } else if let Some(magic) = MAGIC.get(self.fixed) {
                self.wrong = byte != *magic;
            }
            self.fixed += 1;
            return;
        }
        let strings = (self.flags >> 3 & 1) + (self.flags >> 4 & 1);
        let (read, size) = self.extra.unwrap_or((0, 0));
        if self.flags & 4 != 0 && (read < 2 || read - 2 < size) {
            let size = if read < 2 { size | usize::from(byte) << (8 * read) } else { size };
            self.extra = Some((read + 1, size));
        } else if self.strings < strings {
            self.strings += u8::from(byte == 0);
        } else {
            self.checksum += 1;
        }
    }
}
