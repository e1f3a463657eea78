//! The local header of a file in a ZIP archive (APPNOTE 6.3.10 §4.3.7), which may come in pieces: of wheels, jars, office
//! documents. Called by [`super::inflate`].

use super::unread::{Unread, zip_method};

/// Bytes that every header has.
const FIXED: usize = 30;
/// The method that is decoded. What is stored needs none. Zstandard and xz are told by their data; the others are rare, and not read.
const DEFLATE: u16 = 8;

/// Where in a header the next byte belongs.
#[derive(Debug, Default)]
pub(crate) struct ZipHeader {
    read: usize,
    method: u16,
    is_encrypted: bool,
    /// Bytes of the name and of what else follows the fixed part.
    more: usize,
}

/// What became of a piece of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Skipped {
    /// All of it was header.
    All,
    /// Deflated data begins behind so many bytes.
    Some(usize),
    /// What follows is not deflated.
    Other,
    /// What follows is packed in this way, which is not undone.
    Unread(Unread),
}

impl ZipHeader {
    /// Takes header bytes.
    pub(super) fn skip(&mut self, text: &[u8]) -> Skipped {
        for (at, &byte) in text.iter().enumerate() {
            if self.read == FIXED {
                if let Some(how) = zip_method(self.method, self.is_encrypted) {
                    return Skipped::Unread(how);
                }
                if self.method != DEFLATE {
                    return Skipped::Other;
                }
            }
            if self.read >= FIXED + self.more {
                return Skipped::Some(at);
            }
            match self.read {
                6 => self.is_encrypted = byte & 1 == 1,
                8 => self.method = u16::from(byte),
                9 => self.method |= u16::from(byte) << 8,
                26 | 28 => self.more += usize::from(byte),
                27 | 29 => self.more += usize::from(byte) << 8,
                _ => {}
            }
            self.read += 1;
        }
        Skipped::All
    }
}
