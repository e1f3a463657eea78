//! A chunked body (RFC 9112 §7.1), followed byte by byte so that its end is known.
//!
//! Called by [`super::Framing`]. It promises to accept only what hyper accepts too and to see the end where hyper sees
//! it, and to refuse what others could read differently: sizes beyond 64 bits, lines without CR, trailers that frame.

use http::header;

use super::Refusal;
use super::fields::{Field, field};

/// Bytes of chunk extensions in one body; below hyper's own limit. Nobody uses them.
const MAX_EXTENSIONS: usize = 8 * 1024;
/// Bytes of trailers in one body; below hyper's own limit.
const MAX_TRAILERS: usize = 8 * 1024;
/// Trailer lines in one body.
const MAX_TRAILER_LINES: usize = 64;
/// Digits of a chunk size: 64 bits.
const MAX_DIGITS: u8 = 16;

#[derive(Debug)]
enum State {
    Size { size: u64, digits: u8 },
    Extension(u64),
    SizeLf(u64),
    Data(u64),
    DataCr,
    DataLf,
    Trailer(Vec<u8>),
    TrailerLf(Vec<u8>),
}

/// Where in the body we are.
#[derive(Debug)]
pub(super) struct Chunked {
    state: State,
    extensions: usize,
    trailers: usize,
    trailer_lines: usize,
}

impl Default for Chunked {
    fn default() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, extensions: 0, trailers: 0, trailer_lines: 0 }
    }
}

impl Chunked {
    /// How many of the bytes belong to the body, and whether it ends with them.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            if let State::Data(left) = &mut self.state {
                let here = (bytes.len() - at) as u64;
                let take = here.min(*left);
                *left -= take;
                at += usize::try_from(take).unwrap_or(bytes.len() - at);
                if *left == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            at += 1;
            if self.step(byte)? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Takes one byte outside of data; true when the body is over.
    fn step(&mut self, byte: u8) -> Result<bool, Refusal> {
        let next = match (std::mem::replace(&mut self.state, State::DataCr), byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits >= MAX_DIGITS {
                    return Err(Refusal::malformed("a chunk size is beyond 64 bits"));
                }
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { size, digits: 1.. }, b'\r') => State::SizeLf(size),
            (State::Size { size, digits: 1.. }, b';') => State::Extension(size),
            (State::Extension(size), b'\r') => State::SizeLf(size),
            (State::Extension(size), b'\t' | b' '..=b'~') => {
                self.extensions += 1;
                if self.extensions > MAX_EXTENSIONS {
                    return Err(Refusal::too_large("the chunk extensions are longer than any client's"));
                }
                State::Extension(size)
            }
            (State::SizeLf(0), b'\n') => State::Trailer(Vec::new()),
            (State::SizeLf(size), b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::Trailer(line), b'\r') => State::TrailerLf(line),
            (State::Trailer(mut line), _) => {
                self.trailers += 1;
                if self.trailers > MAX_TRAILERS {
                    return Err(Refusal::too_large("the trailers are longer than any client's"));
                }
                line.push(byte);
                State::Trailer(line)
            }
            (State::TrailerLf(line), b'\n') if line.is_empty() => return Ok(true),
            (State::TrailerLf(line), b'\n') => {
                self.trailer(&line)?;
                State::Trailer(Vec::new())
            }
            _ => return Err(Refusal::malformed("the chunks of the body cannot be read")),
        };
        self.state = next;
        Ok(false)
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.trailer_lines += 1;
        if self.trailer_lines > MAX_TRAILER_LINES {
            return Err(Refusal::too_large("more trailers than any client sends"));
        }
        // RFC 9110 §6.5.1: nothing that frames or routes comes after the body.
        match field(line)? {
            Field::Sound(name, _)
                if ![header::TRANSFER_ENCODING, header::CONTENT_LENGTH, header::HOST, header::CONNECTION]
                    .contains(&name) =>
            {
                Ok(())
            }
            _ => Err(Refusal::malformed("a trailer that cannot be one")),
        }
    }
}
