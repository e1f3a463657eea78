//! What hyper refuses of HTTP/2 by itself, told from the frames that pass (RFC 9113 §4.1).
//!
//! Put by `http2` around the agent's connection. It promises that each stream which the agent opened is given to whoever
//! answers requests, or told here when hyper answered or reset it instead, and so the connection when hyper broke that off
//! for what the agent sent; that the agent reads the reason in the head of such an answer, which without it is a status alone, or nothing
//! before the reset; and that the connection ends when `pace` says that too many frames carried nothing. What the agent
//! may ask again as if it had not (REFUSED_STREAM) is no request.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::Refusal;
use super::pace::Pace;

/// Bytes of the head of a frame, and before the first frame of the agent (RFC 9113 §3.4).
const HEAD: usize = 9;
const PREFACE: usize = 24;
/// Types of frames (RFC 9113 §6), the flag that is PADDED.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 8;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 5;
/// `:status 400` (RFC 7541 §A).
const BAD_REQUEST: &[u8] = &[0x8c];
/// Bytes of a block that hold a path of more than 65,534 bytes at the least, five bits for each (RFC 7541 §B): hyper takes none that is
/// longer, and no table holds one.
const LONG_PATH: usize = 65_535 * 5 / 8;
/// Where the reason stands in each denial.
const REASON: &[u8] = b"x-pipelock-reason";
/// Bytes of SETTINGS that are looked at: all that clients send, six for each. The one that is the table's size (RFC 9113 §6.5.2).
const MOST_SETTINGS: usize = 60;
const TABLE_SIZE: u16 = 1;
/// What that is unless it is said (RFC 9113 §6.5.2).
const TABLE: u32 = 4096;
/// Bytes that are taken from hyper before those of before have gone out.
const MOST_WAITING: usize = 64 * 1024;
/// Most bytes of a head that is a status only: the change of a table's size, a name, a length and three digits.
const BARE: usize = 7;
/// Error codes (RFC 9113 §7).
const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// How many streams the agent has opened that nobody has taken and that were not told of. hyper gives requests out without the
/// number of their stream, and not only after what it refused before them has gone out, so they can only be counted.
#[derive(Clone, Default)]
pub(super) struct Untaken(Arc<AtomicUsize>);

impl Untaken {
    /// hyper gave one out, or refused it.
    pub(super) fn take(&self) {
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1));
    }

    fn opened(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

/// The connection.
pub(super) struct Witness<S, T> {
    stream: S,
    incoming: Frames,
    outgoing: Frames,
    /// The last stream that the agent opened.
    last: u32,
    /// Those that have had no answer, and the bytes of their heads.
    open: BTreeMap<u32, usize>,
    untaken: Untaken,
    pace: Arc<Pace>,
    /// Taken from hyper, to be written.
    waiting: BytesMut,
    /// The agent's table of headers is smaller than usual: its next head has to begin with that (RFC 7541 §4.2), which only hyper can write.
    is_table_small: bool,
    tell: T,
}

impl<S, T: FnMut(Refusal, bool)> Witness<S, T> {
    /// The connection from its preface on; `tell` hears what was refused, and whether it was answered.
    pub(super) fn new(stream: S, untaken: Untaken, pace: &Arc<Pace>, tell: T) -> Self {
        let incoming = Frames { skip: PREFACE, ..Frames::default() };
        Self {
            stream,
            incoming,
            outgoing: Frames::default(),
            last: 0,
            open: BTreeMap::new(),
            untaken,
            pace: pace.clone(),
            waiting: BytesMut::new(),
            is_table_small: false,
            tell,
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        self.incoming.pass(bytes, |frame, _| {
            let Some(frame) = frame else { return };
            self.is_table_small |= frame.is_table_small;
            self.pace.received(frame.kind, frame.flags, frame.length);
            // Trailers come on a stream that is open already.
            if frame.kind == HEADERS && frame.stream > self.last {
                self.last = frame.stream;
                self.open.insert(frame.stream, frame.length);
                self.untaken.opened();
            }
            if frame.kind == CONTINUATION
                && let Some(length) = self.open.get_mut(&frame.stream)
            {
                *length = length.saturating_add(frame.length);
            }
            if frame.kind == RST_STREAM {
                self.open.remove(&frame.stream);
            }
        });
    }

    /// Takes what hyper writes.
    fn written(&mut self, bytes: &[u8]) {
        self.outgoing.pass(bytes, |frame, raw| {
            let begun = self.waiting.len();
            self.waiting.extend_from_slice(raw);
            let Some(frame) = frame else { return };
            self.pace.sent(frame.kind);
            let head = self.open.get(&frame.stream).copied().filter(|_| matches!(frame.kind, HEADERS | RST_STREAM));
            let is_first = head.is_some();
            if is_first {
                self.open.remove(&frame.stream);
            }
            let may_have_long_path = head.is_some_and(|length| length >= LONG_PATH);
            // Whether it is surely this one that nobody took, since nobody took any.
            let mut is_untaken = false;
            let refusal = match (frame.kind, frame.code) {
                (HEADERS, _) if is_first && frame.is_bare => {
                    self.untaken.take();
                    Refusal::too_large("the request head is longer than allowed")
                }
                (RST_STREAM, code) if is_first && self.untaken.count() > 0 => {
                    is_untaken = self.untaken.count() > self.open.len();
                    self.untaken.take();
                    if code == REFUSED_STREAM {
                        return;
                    }
                    // Which of both, only who unpacks the head could say.
                    match may_have_long_path {
                        true => {
                            Refusal::malformed("the request head breaks HTTP/2, or its path is longer than 65534 bytes")
                        }
                        false => Refusal::malformed("the request head breaks HTTP/2"),
                    }
                }
                (GOAWAY, ENHANCE_YOUR_CALM) => Refusal::too_large("more of HTTP/2 than a connection may ask for"),
                (GOAWAY, code) if code != NO_ERROR => Refusal::malformed("what was sent breaks HTTP/2"),
                _ => return,
            };
            let block = match frame.kind {
                HEADERS => raw.get(HEAD..).unwrap_or_default(),
                // A request that is on its way has not been refused.
                RST_STREAM if is_untaken && !self.is_table_small => BAD_REQUEST,
                _ => return (self.tell)(refusal, false),
            };
            let answer = answer(frame.stream, block, refusal.reason.code());
            self.waiting.truncate(begun);
            self.waiting.extend_from_slice(&answer);
            if frame.kind == RST_STREAM {
                self.waiting.extend_from_slice(raw);
            }
            (self.tell)(refusal, true);
        });
    }
}

/// The head of an answer without a body: this block, and the reason behind it, which no table takes note of (RFC 7541 §6.2.2).
fn answer(stream: u32, block: &[u8], reason: &str) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, HEADERS, WHOLE];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(block);
    frame.push(0);
    for text in [REASON, reason.as_bytes()] {
        // Below 127, as all of them are: one byte.
        frame.push(u8::try_from(text.len()).unwrap_or_default() & 0x7f);
        frame.extend_from_slice(text);
    }
    // Far below 255.
    let count = u8::try_from(frame.len().saturating_sub(HEAD));
    if let (Some(length), Ok(count)) = (frame.get_mut(2), count) {
        *length = count;
    }
    frame
}

/// Whether SETTINGS make the table of headers smaller than it is, or may.
fn makes_table_small(settings: &[u8], length: usize) -> bool {
    let (each, _) = settings.as_chunks::<6>();
    let small = |[a, b, c, d, e, f]: &[u8; 6]| {
        u16::from_be_bytes([*a, *b]) == TABLE_SIZE && u32::from_be_bytes([*c, *d, *e, *f]) < TABLE
    };
    length > settings.len() || each.iter().any(small)
}

/// Whether the block of an answer's head is a status and nothing more (RFC 7541 §6). hyper answers so itself; what is answered for us
/// has a date.
fn is_bare(mut block: &[u8]) -> bool {
    // A change of the table's size may stand before it, a number of one byte or more.
    while let Some((first, rest)) = block.split_first().filter(|(first, _)| **first & 0xe0 == 0x20) {
        let more = if first & 0x1f == 0x1f { rest.iter().take_while(|byte| **byte >= 0x80).count() + 1 } else { 0 };
        block = rest.get(more..).unwrap_or_default();
    }
    match block {
        [indexed] => *indexed >= 0x80,
        // With an indexed name that is below 15, and a value in plain or Huffman's letters.
        [name, length, value @ ..] if *name & 0x80 == 0 => value.len() == usize::from(*length & 0x7f),
        _ => false,
    }
}

/// A frame, as far as it is of interest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Frame {
    /// Without padding.
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
    /// The error code, of the two types that have one.
    code: u32,
    /// Of the head of an answer: whether it is a status only.
    is_bare: bool,
    /// Of settings.
    is_table_small: bool,
}

/// Finds frames in a stream of bytes, however it is cut.
struct Frames {
    /// Bytes that are not looked at.
    skip: usize,
    /// The head of a frame, and the beginning of what is behind it.
    head: [u8; HEAD + MOST_SETTINGS],
    have: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Self { skip: 0, head: [0; HEAD + MOST_SETTINGS], have: 0 }
    }
}

impl Frames {
    /// Gives all bytes on in their order: the beginning of each frame once it is there, and what is not looked at.
    fn pass(&mut self, mut bytes: &[u8], mut each: impl FnMut(Option<Frame>, &[u8])) {
        loop {
            let (skipped, rest) = bytes.split_at(self.skip.min(bytes.len()));
            if !skipped.is_empty() {
                each(None, skipped);
            }
            bytes = rest;
            self.skip -= skipped.len();
            let Some((byte, rest)) = bytes.split_first() else { return };
            if let Some(place) = self.head.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            bytes = rest;
            if let Some((frame, left)) = self.whole() {
                each(Some(frame), self.head.get(..self.have).unwrap_or_default());
                (self.have, self.skip) = (0, left);
            }
        }
    }

    /// The frame, once as much of it is there as is of interest, and how much of it is left.
    fn whole(&self) -> Option<(Frame, usize)> {
        let [a, b, c, kind, flags, s0, s1, s2, s3, payload @ ..] = self.head;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        // The code of GOAWAY stands behind the number of a stream (RFC 9113 §6.8), how much is padding before what is none (§6.1).
        let (wanted, at) = match kind {
            DATA if flags & PADDED != 0 => (1, 0),
            HEADERS => (BARE + 1, 0),
            RST_STREAM => (4, 0),
            GOAWAY => (8, 4),
            SETTINGS => (MOST_SETTINGS, 0),
            _ => (0, 0),
        };
        let wanted = length.min(wanted);
        if self.have < HEAD + wanted {
            return None;
        }
        let payload = payload.get(..wanted).unwrap_or_default();
        let is_code = matches!(kind, RST_STREAM | GOAWAY);
        let code = payload.get(at..).and_then(|code| code.first_chunk()).filter(|_| is_code);
        let padding = payload.first().filter(|_| kind == DATA).map_or(0, |padding| 1 + usize::from(*padding));
        let frame = Frame {
            length: length.saturating_sub(padding),
            kind,
            flags,
            // The first bit is reserved (RFC 9113 §4.1).
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
            code: code.map_or(0, |code| u32::from_be_bytes(*code)),
            is_bare: kind == HEADERS && length <= BARE && is_bare(payload),
            is_table_small: kind == SETTINGS && makes_table_small(payload, length),
        };
        Some((frame, length - wanted))
    }
}

impl<S: AsyncRead + Unpin, T: FnMut(Refusal, bool) + Unpin> AsyncRead for Witness<S, T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.read(buf.filled().get(before..).unwrap_or_default());
        if this.pace.is_exceeded() {
            return Poll::Ready(Err(io::Error::other("too many frames that carry nothing")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, T: FnMut(Refusal, bool) + Unpin> Witness<S, T> {
    /// Writes what was taken.
    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(count);
        }
        // Not held while nothing goes out.
        self.waiting = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, T: FnMut(Refusal, bool) + Unpin> AsyncWrite for Witness<S, T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_written(cx))?;
        let mut left = MOST_WAITING;
        for buf in bufs {
            let part = buf.get(..left.min(buf.len())).unwrap_or_default();
            this.written(part);
            left -= part.len();
        }
        // Whoever writes flushes too, if this does not get through at once.
        if let Poll::Ready(Err(error)) = this.poll_written(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(MOST_WAITING - left))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_written(cx))?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_written(cx))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
    }

    proptest! {
        #[test]
        fn frames_are_found_however_the_bytes_are_cut(
            frames in prop::collection::vec((any::<u8>(), 0..1_u32 << 31, prop::collection::vec(any::<u8>(), 0..40)), 0..20),
            cut in 1..60_usize,
        ) {
            let bytes = frames.iter().flat_map(|(kind, stream, payload)| frame(*kind, *stream, payload)).collect::<Vec<_>>();
            let mut found = Vec::new();
            let mut all = Frames::default();
            bytes.chunks(cut).for_each(|chunk| all.pass(chunk, |frame, _| found.extend(frame.map(|frame| (frame.kind, frame.stream)))));
            prop_assert_eq!(found, frames.iter().map(|(kind, stream, _)| (*kind, *stream)).collect::<Vec<_>>());
        }
    }

    /// The head of an answer of ours, and of hyper's own.
    const OURS: &[u8] = &[0x88, 0xbe, 0xbf];
    const BARE_431: &[u8] = &[0x48, 0x83, 0x64, 0x11, 0xff];

    #[test]
    fn what_nobody_took_is_told_and_what_was_taken_is_not() {
        let (untaken, mut told) = (Untaken::default(), Vec::new());
        let mut witness =
            Witness::new((), untaken.clone(), &Arc::default(), |refusal: Refusal, _| told.push(refusal.reason.code()));
        witness.read(&[0; PREFACE]);
        for stream in [1, 3, 5, 7] {
            witness.read(&frame(HEADERS, stream, b"head"));
        }
        witness.read(&frame(HEADERS, 1, b"trailers"));
        // The second is malformed, the third too long, the fourth to be asked again.
        untaken.take();
        witness.written(&frame(RST_STREAM, 3, &[0, 0, 0, 1]));
        witness.written(&frame(HEADERS, 5, BARE_431));
        witness.written(&frame(RST_STREAM, 7, &[0, 0, 0, 7]));
        witness.written(&frame(HEADERS, 1, OURS));
        witness.written(&frame(RST_STREAM, 1, &[0, 0, 0, 1]));
        witness.written(&frame(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, 0]));
        witness.written(&frame(GOAWAY, 0, &[0, 0, 0, 1, 0, 0, 0, 9]));
        assert_eq!(told, ["request_malformed", "limit_exceeded", "request_malformed"]);
    }

    #[test]
    fn what_is_taken_before_a_refusal_goes_out_is_not_told_instead_of_it() {
        let (untaken, mut told) = (Untaken::default(), Vec::new());
        let mut witness =
            Witness::new((), untaken.clone(), &Arc::default(), |refusal: Refusal, _| told.push(refusal.reason.code()));
        witness.read(&[0; PREFACE]);
        // The agent reads slowly: the second is given out before the first, which is malformed, was reset.
        [1, 3].iter().for_each(|stream| witness.read(&frame(HEADERS, *stream, b"head")));
        untaken.take();
        witness.written(&frame(RST_STREAM, 1, &[0, 0, 0, 1]));
        witness.written(&frame(HEADERS, 3, OURS));
        witness.written(&frame(RST_STREAM, 3, &[0, 0, 0, 2]));
        assert_eq!(told, ["request_malformed"]);
    }

    #[test]
    fn what_hyper_refuses_by_itself_goes_out_with_the_reason() {
        let sent = |settings: &[u8], bytes: &[u8], cut: usize| {
            let mut witness = Witness::new((), Untaken::default(), &Arc::default(), |_: Refusal, _| ());
            witness.read(&[&[0; PREFACE][..], &frame(SETTINGS, 0, settings)].concat());
            [1, 3].iter().for_each(|stream| witness.read(&frame(HEADERS, *stream, b"head")));
            bytes.chunks(cut).for_each(|piece| witness.written(piece));
            witness.waiting.to_vec()
        };
        let whole = |stream: u32, block: &[u8]| {
            let mut frame = frame(HEADERS, stream, block);
            frame[4] = WHOLE;
            frame
        };
        let reason = |text: &str| {
            [b"\0\x11x-pipelock-reason", &[u8::try_from(text.len()).expect("short")][..], text.as_bytes()].concat()
        };
        let (reset, data) = (frame(RST_STREAM, 1, &[0, 0, 0, 1]), frame(DATA, 9, &[7; 300]));
        let bytes = [&data[..], &reset, &whole(3, BARE_431), &data].concat();
        let long = whole(3, &[BARE_431, &reason("limit_exceeded")].concat());
        let answered = whole(1, &[BAD_REQUEST, &reason("request_malformed")].concat());
        for cut in [1, 5, 13, 1000] {
            assert_eq!(sent(&[], &bytes, cut), [&data[..], &answered, &reset, &long, &data].concat(), "{cut}");
        }
        // Its next head would have to say that the table is smaller now.
        for small in [&[0, 1, 0, 0, 0x0f, 0xff][..], &[0, 3, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0], &[0; MOST_SETTINGS + 6]] {
            assert_eq!(sent(small, &bytes, 1000), [&data[..], &reset, &long, &data].concat(), "{small:?}");
        }
        assert_eq!(
            sent(&[0, 1, 0, 1, 0, 0], &bytes, 1000).len(),
            bytes.len() + answered.len() + long.len() - whole(3, BARE_431).len()
        );
    }

    #[test]
    fn a_bare_status_is_told_from_more() {
        for (block, expected) in [
            (BARE_431, true),
            (&[0x48, 3, b'4', b'3', b'1'], true),
            (&[0x20, 0x48, 3, b'4', b'3', b'1'], true),
            (&[0x3f, 0xe1, 0x1f, 0xbe], true),
            (&[0xbe], true),
            (OURS, false),
            (&[0x88, 0xbe], false),
            (&[0x48, 3, b'4', b'3', b'1', 0xbe], false),
            (&[], false),
        ] {
            assert_eq!(is_bare(block), expected, "{block:x?}");
        }
    }

    #[test]
    fn padding_is_no_content() {
        let mut lengths = Vec::new();
        let mut frames = Frames::default();
        let mut padded = frame(DATA, 1, &[5, 0, 0, 0, 0, 0]);
        padded[4] = PADDED;
        let mut more = frame(DATA, 1, &[2, b'x', 0, 0]);
        more[4] = PADDED;
        for byte in [padded, more, frame(DATA, 1, b"xyz")].concat() {
            frames.pass(&[byte], |frame, _| lengths.extend(frame.map(|frame| frame.length)));
        }
        assert_eq!(lengths, [0, 1, 3]);
    }
}
