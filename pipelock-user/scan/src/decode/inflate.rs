//! Compressed data. gzip, zlib, Zstandard and files of ZIP archives are recognised by their first bytes; raw deflate and brotli have none and are
//! named by who knows. Called by `stream::packed`, which feeds pieces and counts what comes out.
//!
//! Promises: what was decoded before data turns out to be damaged or cut short is handed on; memory is bounded whatever the
//! data asks for.

use flate2::{Decompress, FlushDecompress, Status};

use super::brotli::Brotli;
use super::gzip::GzipHeader;
use super::unread::Unread;
use super::zip::{Skipped, ZipHeader};
use super::zstd::Zstd;
use crate::finding::Step;

/// How something is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Gzip,
    Zlib,
    Zstd,
    Zip,
    Deflate,
    Brotli,
}

impl Format {
    /// What the first bytes say. Sources: RFC 1952 §2.3, RFC 1950 §2.2, RFC 8878 §3.1.1, APPNOTE
    /// 6.3.10 §4.3.7.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        match text {
            [0x1f, 0x8b, 0x08, flags, ..] if flags & 0xe0 == 0 => Some(Self::Gzip),
            [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Some(Self::Zlib),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [b'P', b'K', 3, 4, ..] => Some(Self::Zip),
            _ => None,
        }
    }

    /// As [`of`](Self::of), of what follows a member of a text: there two bytes are no chance, whatever window they ask for. Files
    /// of ZIP archives follow nothing.
    pub(crate) fn following(text: &[u8]) -> Option<Self> {
        match text {
            &[first, second, ..] if is_zlib(first, second) => Some(Self::Zlib),
            _ => Self::of(text).filter(|format| *format != Self::Zip),
        }
    }

    pub(crate) fn step(self) -> Step {
        match self {
            Self::Gzip => Step::Gzip,
            Self::Zlib => Step::Zlib,
            Self::Zstd => Step::Zstd,
            Self::Zip => Step::Zip,
            Self::Deflate => Step::Deflate,
            Self::Brotli => Step::Brotli,
        }
    }
}

/// The two bytes in front of deflated data: method, window, check digits, no dictionary (RFC 1950 §2.2).
pub(crate) fn is_zlib(first: u8, second: u8) -> bool {
    let check = u16::from_be_bytes([first, second]).is_multiple_of(31);
    first & 0x0f == 8 && first >> 4 <= 7 && second & 0x20 == 0 && check
}

/// How a whole text is compressed, as a header of its sender says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// gzip
    Gzip,
    /// zlib, or deflate without its frame: both are sent under this name.
    Deflate,
    /// Brotli
    Brotli,
    /// Zstandard
    Zstd,
}

impl Coding {
    /// What a token of `Content-Encoding` means (RFC 9110 §8.4.1, RFC 7932, RFC 8878); `None` for `identity` and for what
    /// is not known.
    pub fn of(token: &str) -> Option<Self> {
        let is = |name: &str| token.trim().eq_ignore_ascii_case(name);
        if is("gzip") || is("x-gzip") {
            Some(Self::Gzip)
        } else if is("deflate") {
            Some(Self::Deflate)
        } else if is("br") {
            Some(Self::Brotli)
        } else if is("zstd") {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    pub(crate) fn format(self) -> Format {
        match self {
            Self::Gzip => Format::Gzip,
            Self::Deflate => Format::Deflate,
            Self::Brotli => Format::Brotli,
            Self::Zstd => Format::Zstd,
        }
    }
}

/// What precedes deflated data.
#[derive(Debug)]
pub(crate) enum Header {
    Gzip(GzipHeader),
    Zip(ZipHeader),
}

impl Header {
    fn skip(&mut self, text: &[u8]) -> Skipped {
        match self {
            Self::Gzip(header) => header.skip(text),
            Self::Zip(header) => header.skip(text),
        }
    }
}

/// One compressed member on its way.
#[derive(Debug)]
pub(crate) enum Inflate {
    Deflate { state: Box<Decompress>, header: Option<Header> },
    Zstd(Box<Zstd>),
    Brotli(Brotli),
}

/// What became of the bytes fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All taken, more may come.
    Going,
    /// The member ends after so many of them.
    Ended(usize),
    /// Not what it seemed, or damaged.
    Broken,
    /// It asks for more memory than is given.
    TooBig,
    /// It is packed in this way, which is not undone.
    Unread(Unread),
}

impl Inflate {
    pub(crate) fn new(format: Format) -> Self {
        let deflate = |zlib, header| Self::Deflate { state: Box::new(Decompress::new(zlib)), header };
        match format {
            Format::Gzip => deflate(false, Some(Header::Gzip(GzipHeader::default()))),
            Format::Zip => deflate(false, Some(Header::Zip(ZipHeader::default()))),
            Format::Zlib => deflate(true, None),
            Format::Deflate => deflate(false, None),
            Format::Zstd => Self::Zstd(Box::new(Zstd::new())),
            Format::Brotli => Self::Brotli(Brotli::new()),
        }
    }

    /// Feeds bytes; `out` gets each piece of output, and says whether there may be more.
    pub(crate) fn feed(&mut self, text: &[u8], last: bool, mut out: impl FnMut(&[u8]) -> bool) -> Progress {
        match self {
            Self::Deflate { state, header } => {
                let mut start = 0;
                if let Some(waiting) = header {
                    match waiting.skip(text) {
                        Skipped::All => return Progress::Going,
                        Skipped::Other => return Progress::Broken,
                        Skipped::Unread(how) => return Progress::Unread(how),
                        Skipped::Some(used) => {
                            start = used;
                            *header = None;
                        }
                    }
                }
                match inflate(state, &text[start..], &mut out) {
                    Progress::Ended(used) => Progress::Ended(start + used),
                    progress => progress,
                }
            }
            Self::Zstd(zstd) => zstd.feed(text, last, &mut out),
            Self::Brotli(brotli) => brotli.feed(text, &mut out),
        }
    }

    /// Bytes it takes beside itself, about.
    pub(crate) fn memory(&self) -> usize {
        match self {
            // miniz_oxide: a window of 32 KiB and the tables.
            Self::Deflate { .. } => 43 << 10,
            Self::Zstd(zstd) => zstd.memory(),
            // What the usual window takes when it is full.
            Self::Brotli(_) => 4 << 20,
        }
    }
}

fn inflate(state: &mut Decompress, mut text: &[u8], out: &mut dyn FnMut(&[u8]) -> bool) -> Progress {
    let whole = text.len();
    let mut buffer = [0; 4096];
    loop {
        let (taken, made) = (state.total_in(), state.total_out());
        let status = state.decompress(text, &mut buffer, FlushDecompress::None);
        let taken = (state.total_in() - taken) as usize;
        let made = (state.total_out() - made) as usize;
        text = &text[taken..];
        // Also when it ends in an error: what came before is decoded.
        if made > 0 && !out(&buffer[..made]) {
            return Progress::Broken;
        }
        match status {
            Err(_) => return Progress::Broken,
            Ok(Status::StreamEnd) => return Progress::Ended(whole - text.len()),
            _ if text.is_empty() && made < buffer.len() => return Progress::Going,
            _ if taken == 0 && made == 0 => return Progress::Broken,
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "inflate_tests.rs"]
mod tests;
