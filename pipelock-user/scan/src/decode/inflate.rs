//! Compressed data, recognised by its first bytes: gzip, zlib, Zstandard. Called by `stream::packed`, which feeds
//! pieces and counts what comes out.
//!
//! Brotli has no such bytes and cannot be recognised: who knows from a header that a body is brotli decodes it first.

use std::io::{self, Read};

use flate2::{Decompress, FlushDecompress, Status};

use crate::finding::Step;

/// How something is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Gzip,
    Zlib,
    Zstd,
}

impl Format {
    /// What the first bytes say. Sources: RFC 1952 §2.3, RFC 1950 §2.2, RFC 8878 §3.1.1.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        match text {
            [0x1f, 0x8b, 0x08, flags, ..] if flags & 0xe0 == 0 => Some(Self::Gzip),
            [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Some(Self::Zlib),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(crate) fn step(self) -> Step {
        match self {
            Self::Gzip => Step::Gzip,
            Self::Zlib => Step::Zlib,
            Self::Zstd => Step::Zstd,
        }
    }
}

/// Most bytes of a Zstandard frame that are kept to be decoded at once: its decoder cannot be fed in pieces.
const ZSTD_LONGEST: usize = 256 * 1024;

/// One compressed member on its way.
#[derive(Debug)]
pub(crate) enum Inflate {
    Deflate { state: Box<Decompress>, header: Option<GzipHeader> },
    Zstd { frame: Vec<u8> },
}

/// What became of the bytes fed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// All taken, more may come.
    Going,
    /// The member ends after so many of them.
    Ended(usize),
    /// Not what it seemed, or damaged.
    Broken,
}

impl Inflate {
    pub(crate) fn new(format: Format) -> Self {
        match format {
            Format::Gzip => {
                Self::Deflate { state: Box::new(Decompress::new(false)), header: Some(GzipHeader::default()) }
            }
            Format::Zlib => Self::Deflate { state: Box::new(Decompress::new(true)), header: None },
            Format::Zstd => Self::Zstd { frame: Vec::new() },
        }
    }

    /// Feeds bytes; `out` gets each piece of output, and says whether there may be more.
    pub(crate) fn feed(&mut self, mut text: &[u8], last: bool, mut out: impl FnMut(&[u8]) -> bool) -> Progress {
        let whole = text.len();
        match self {
            Self::Deflate { state, header } => {
                if let Some(waiting) = header {
                    match waiting.skip(text) {
                        None => return Progress::Going,
                        Some(used) => {
                            text = &text[used..];
                            *header = None;
                        }
                    }
                }
                let mut buffer = [0; 4096];
                loop {
                    let (taken, made) = (state.total_in(), state.total_out());
                    let Ok(status) = state.decompress(text, &mut buffer, FlushDecompress::None) else {
                        return Progress::Broken;
                    };
                    let taken = (state.total_in() - taken) as usize;
                    let made = (state.total_out() - made) as usize;
                    text = &text[taken..];
                    if made > 0 && !out(&buffer[..made]) {
                        return Progress::Broken;
                    }
                    match status {
                        Status::StreamEnd => return Progress::Ended(whole - text.len()),
                        _ if text.is_empty() && made < buffer.len() => return Progress::Going,
                        _ if taken == 0 && made == 0 => return Progress::Broken,
                        _ => {}
                    }
                }
            }
            Self::Zstd { frame } => {
                frame.extend_from_slice(text);
                if last || frame.len() > ZSTD_LONGEST {
                    let _ = unzstd(frame, &mut out);
                    return Progress::Broken;
                }
                Progress::Going
            }
        }
    }
}

fn unzstd(frame: &[u8], out: &mut impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(frame).map_err(io::Error::other)?;
    let mut buffer = [0; 4096];
    loop {
        let made = decoder.read(&mut buffer)?;
        if made == 0 || !out(&buffer[..made]) {
            return Ok(());
        }
    }
}

/// Where in the header of a gzip member (RFC 1952 §2.3) the next byte belongs.
#[derive(Debug, Default)]
pub(crate) struct GzipHeader {
    fixed: usize,
    flags: u8,
    extra: Option<(usize, usize)>,
    strings: u8,
    checksum: usize,
}

impl GzipHeader {
    /// Takes header bytes; says how many when the header is over.
    fn skip(&mut self, text: &[u8]) -> Option<usize> {
        for (at, &byte) in text.iter().enumerate() {
            if self.over() {
                return Some(at);
            }
            self.take(byte);
        }
        self.over().then_some(text.len())
    }

    fn over(&self) -> bool {
        let extra = self.flags & 4 == 0 || self.extra.is_some_and(|(read, size)| read >= 2 && read - 2 == size);
        let strings = (self.flags >> 3 & 1) + (self.flags >> 4 & 1);
        let checksum = if self.flags & 2 == 0 { 0 } else { 2 };
        self.fixed == 10 && extra && self.strings == strings && self.checksum == checksum
    }

    fn take(&mut self, byte: u8) {
        if self.fixed < 10 {
            if self.fixed == 3 {
                self.flags = byte;
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_was_compressed_comes_back_at_every_cut() {
        let text = b"the same words again and again, the same words again and again";
        let mut gzip =
            flate2::GzBuilder::new().filename("name").extra("ex").write(Vec::new(), flate2::Compression::best());
        gzip.write_all(text).unwrap();
        let gzip = gzip.finish().unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(text).unwrap();
        for packed in [gzip, zlib.finish().unwrap()] {
            for cut in 0..packed.len() {
                let mut inflate = Inflate::new(Format::of(&packed).unwrap());
                let mut plain = Vec::new();
                for piece in [&packed[..cut], &packed[cut..]] {
                    assert_ne!(
                        inflate.feed(piece, false, |out| {
                            plain.extend_from_slice(out);
                            true
                        }),
                        Progress::Broken
                    );
                }
                assert_eq!(plain, text, "{cut}");
            }
        }
    }
}
