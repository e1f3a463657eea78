//! Bounds how many frames of HTTP/2 an agent may send that carry nothing: PING and SETTINGS, which want an answer each,
//! PRIORITY, what nobody knows, empty DATA.
//!
//! Made by `http2` around the stream of a connection, below hyper, which answers them all. It promises that a connection
//! ends as if it were broken once there were too many of them ([`Pace::is_exceeded`]), and that such frames do not count
//! against a client which also asks or is answered, as often as that happens.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Such frames that may come at once; as many as others let wait (nghttp2, Envoy: 1,000).
const BURST: u32 = 1000;
/// And how many more in a second.
const PER_SECOND: u64 = 20;
/// The preface of the agent's side (RFC 9113 §3.4).
const PREFACE: u64 = 24;
/// Types of frames (RFC 9113 §6), the flags ACK and END_STREAM.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const RST_STREAM: u8 = 3;
const FLAG: u8 = 1;

/// What a connection has left, shared by both directions and whoever serves it.
#[derive(Debug)]
pub(super) struct Pace {
    left: AtomicU32,
    is_exceeded: AtomicBool,
}

impl Pace {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { left: AtomicU32::new(BURST), is_exceeded: AtomicBool::new(false) })
    }

    /// True once the connection was ended for it.
    pub(super) fn is_exceeded(&self) -> bool {
        self.is_exceeded.load(Ordering::Relaxed)
    }

    fn earn(&self, count: u32) {
        let left = self.left.load(Ordering::Relaxed);
        self.left.store(left.saturating_add(count).min(BURST), Ordering::Relaxed);
    }

    fn spend(&self) {
        match self.left.load(Ordering::Relaxed).checked_sub(1) {
            Some(left) => self.left.store(left, Ordering::Relaxed),
            None => self.is_exceeded.store(true, Ordering::Relaxed),
        }
    }
}

/// The frames of one direction, by their heads.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes to come that are no head of a frame.
    skip: u64,
    head: Vec<u8>,
}

impl Frames {
    /// Looks at bytes, cut anywhere; `seen` gets type, flags and length of each frame.
    fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8, u8, u64)) {
        while !bytes.is_empty() {
            let skip = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skip as u64;
            bytes = bytes.get(skip..).unwrap_or_default();
            let take = (9 - self.head.len()).min(bytes.len());
            let (head, rest) = bytes.split_at(take);
            self.head.extend_from_slice(head);
            bytes = rest;
            if let [a, b, c, kind, flags, ..] = self.head[..]
                && self.head.len() == 9
            {
                self.skip = u64::from(u32::from_be_bytes([0, a, b, c]));
                seen(kind, flags, self.skip);
                self.head.clear();
            }
        }
    }
}

/// The stream.
#[derive(Debug)]
pub(super) struct Paced<S> {
    stream: S,
    pace: Arc<Pace>,
    from_agent: Frames,
    to_agent: Frames,
    /// Until when seconds were counted.
    counted: Instant,
}

impl<S> Paced<S> {
    pub(super) fn new(stream: S, pace: &Arc<Pace>) -> Self {
        Self {
            stream,
            pace: pace.clone(),
            from_agent: Frames { skip: PREFACE, head: Vec::new() },
            to_agent: Frames::default(),
            counted: Instant::now(),
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        let tenths = self.counted.elapsed().as_millis() as u64 / 100;
        if tenths > 0 {
            let earned = tenths.saturating_mul(PER_SECOND) / 10;
            self.pace.earn(u32::try_from(earned).unwrap_or(u32::MAX));
            self.counted = Instant::now();
        }
        let pace = &self.pace;
        self.from_agent.feed(bytes, |kind, flags, length| match kind {
            HEADERS => pace.earn(1),
            DATA if length > 0 => pace.earn(1),
            // The end of a body, at most one for each HEADERS.
            DATA if flags & FLAG != 0 => {}
            // Answers to ours, and what is bounded elsewhere: the length of heads, streams that were reset; windows do nothing.
            PING | SETTINGS if flags & FLAG != 0 => {}
            CONTINUATION | RST_STREAM | WINDOW_UPDATE | GOAWAY => {}
            _ => pace.spend(),
        });
    }

    fn wrote(&mut self, bytes: &[u8]) {
        let pace = &self.pace;
        self.to_agent.feed(bytes, |kind, _, _| {
            // Clients measure the way with a PING for what they are sent.
            if matches!(kind, DATA | HEADERS) {
                pace.earn(1);
            }
        });
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.stream).poll_write(cx, buf))?;
        this.wrote(buf.get(..count).unwrap_or_default());
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs))?;
        let mut left = count;
        for buf in bufs {
            let here = left.min(buf.len());
            this.wrote(buf.get(..here).unwrap_or_default());
            left -= here;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![0, 0, u8::try_from(length).expect("short"), kind, flags, 0, 0, 0, 0];
        bytes.extend(std::iter::repeat_n(9, length));
        bytes
    }

    /// Reads frames from an agent that has sent the preface; false once the connection is ended.
    async fn is_read(
        paced: &mut Paced<tokio::io::DuplexStream>,
        far: &mut tokio::io::DuplexStream,
        bytes: &[u8],
    ) -> bool {
        let mut rest = bytes.to_vec();
        far.write_all(bytes).await.expect("write");
        paced.read_exact(&mut rest).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_ends_the_connection_and_what_a_client_needs_does_not() {
        for (kind, flags, length) in [(PING, 0, 8), (SETTINGS, 0, 6), (2, 0, 5), (77, 0, 3), (DATA, 0, 0)] {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let pace = Pace::new();
            let mut paced = Paced::new(near, &pace);
            let mut bytes = vec![b'x'; 24];
            bytes.extend((0..BURST).flat_map(|_| frame(kind, flags, length)));
            assert!(is_read(&mut paced, &mut far, &bytes).await, "{kind}");
            // Time makes room for a few.
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            let few: Vec<u8> = (0..PER_SECOND).flat_map(|_| frame(kind, flags, length)).collect();
            assert!(is_read(&mut paced, &mut far, &few).await && !pace.is_exceeded(), "{kind}");
            assert!(!is_read(&mut paced, &mut far, &frame(kind, flags, length)).await && pace.is_exceeded(), "{kind}");
        }
        // One for each thing that was asked, and for each that was answered, and what counts nothing.
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let pace = Pace::new();
        let mut paced = Paced::new(near, &pace);
        assert!(is_read(&mut paced, &mut far, &[b'x'; 24]).await);
        for _ in 0..3 * BURST {
            let asked = [frame(HEADERS, 4, 3), frame(DATA, 1, 0), frame(PING, 0, 8), frame(PING, 1, 8)].concat();
            assert!(is_read(&mut paced, &mut far, &asked).await);
            paced.write_all(&frame(DATA, 0, 100)).await.expect("write");
            let answered = [frame(PING, 0, 8), frame(WINDOW_UPDATE, 0, 4), frame(RST_STREAM, 0, 4)].concat();
            assert!(is_read(&mut paced, &mut far, &answered).await);
            far.read_exact(&mut [0; 109]).await.expect("read");
        }
        assert!(!pace.is_exceeded());
    }

    proptest! {
        #[test]
        fn frames_are_seen_however_the_bytes_are_cut(lengths in proptest::collection::vec(0usize..200, 1..20), step in 1usize..50) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|length| frame(DATA, 0, *length)).collect();
            let (mut frames, mut seen) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(step) {
                frames.feed(piece, |_, _, length| seen.push(usize::try_from(length).expect("small")));
            }
            prop_assert_eq!(seen, lengths);
        }
    }
}
