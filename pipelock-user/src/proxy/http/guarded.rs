//! The agent's side of an HTTP connection as hyper sees it: heads in canonical spelling, bodies, and nothing refused.
//!
//! Made by `converse`. It promises that a refusal looks like the end of the stream to hyper, which then finishes the
//! answer it is at, and that a head that does not arrive in time is a refusal too, or one that another needs the place of.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::framing::{Framing, Refusal};
use super::headers::without;
use crate::flow::Found;
use crate::proxy::presence::poll_gone;
use crate::proxy::silent::Silent;
use crate::proxy::through::write_through;

/// What hyper is told in each head, so that it sends the trailers of an answer, which it does only to who asks for them.
const TAKES_TRAILERS: &[u8] = b"te:pipelock, trailers\r\n";
/// The value of that.
const TOLD: &str = "pipelock, trailers";
/// The end of a head.
const END: &[u8] = b"\r\n\r\n";
/// Header lines that hyper takes: with more, nothing is added.
const MAX_LINES: usize = 100;
/// Bytes read at a time.
const CHUNK: usize = 16 * 1024;

/// Why the requests of a connection ended, if they were refused: seen by the stream, the requests and the connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Refused(Arc<OnceLock<(Refusal, bool)>>);

impl Refused {
    /// The refusal of what came after the last request.
    pub(super) fn of_head(&self) -> Option<Refusal> {
        self.0.get().filter(|(_, in_head)| *in_head).map(|(refusal, _)| *refusal)
    }

    /// The refusal of a body that was on its way.
    pub(super) fn of_body(&self) -> Option<Refusal> {
        self.0.get().filter(|(_, in_head)| !*in_head).map(|(refusal, _)| *refusal)
    }
}

/// How many header lines of a request break the grammar, decide nothing, and were left out of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct LeftOut(usize);

impl LeftOut {
    /// What the receipt says of it, if there is anything.
    pub(super) fn found(self) -> Option<Found> {
        let plural = if self.0 == 1 { "" } else { "s" };
        (self.0 > 0).then(|| Found {
            is_order: false,
            rule: "header-left-out".into(),
            name: "Header line that breaks the grammar".into(),
            class: "protocol".into(),
            severity: "low",
            confidence: "high",
            place: format!("{} header line{plural} left out of the request", self.0),
            decoded: Vec::new(),
            mitre: Vec::new(),
            action: "warn",
        })
    }
}

/// The guarded stream.
pub(super) struct Guarded<S> {
    stream: S,
    framing: Framing,
    /// Read, and not looked at.
    input: BytesMut,
    /// Looked at, and not read by hyper.
    output: BytesMut,
    refused: Refused,
    head_timeout: Duration,
    /// Runs while a head is on its way, and from the start.
    head_due: Option<Pin<Box<Sleep>>>,
    /// Until the first head is whole: among those that make room.
    silent: Option<Silent>,
    /// Until its first line is.
    line_due: Option<Pin<Box<Sleep>>>,
}

/// What is known of a client that has begun to speak: its place among those that make room, and when the first line of its first
/// request has to be there.
pub(super) type Begun = (Silent, Instant);

impl<S> Guarded<S> {
    /// The stream, with the bytes that were read before in front; a head may take `head_timeout`.
    pub(super) fn new(
        (prefix, begun): (BytesMut, Option<Begun>),
        stream: S,
        framing: Framing,
        head_timeout: Duration,
        refused: Refused,
    ) -> Self {
        let head_due = Some(Box::pin(tokio::time::sleep(head_timeout)));
        let (silent, due) = begun.unzip();
        let line_due = due.map(|due| Box::pin(tokio::time::sleep_until(due)));
        let (input, output) = (prefix, BytesMut::new());
        Self { stream, framing, input, output, refused, head_timeout, head_due, silent, line_due }
    }

    /// The stream again, with the bytes that hyper has not taken.
    pub(super) fn into_parts(mut self) -> (S, BytesMut) {
        self.output.unsplit(self.input);
        (self.stream, self.output)
    }

    /// What was left out of the head of the request that hyper has given out last: it does so in their order, one by one.
    pub(super) fn left_out(&mut self) -> LeftOut {
        LeftOut(self.framing.left_out())
    }

    /// Whether hyper has had no end of the last body.
    pub(super) fn is_in_body(&self) -> bool {
        self.framing.is_in_body()
    }

    fn refuse(&mut self, refusal: Refusal) {
        let _ = self.refused.0.set((refusal, self.framing.is_in_head()));
    }

    fn is_over(&self) -> bool {
        self.refused.0.get().is_some()
    }

    /// Ready when what has come of the head is too late.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        // The framing has taken away an empty line before it (RFC 9112 §2.2).
        if self.line_due.is_some() && self.input.contains(&b'\n') {
            self.line_due = None;
        }
        if self.line_due.as_mut().is_some_and(|due| due.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Refusal::no_line());
        }
        self.poll_head_due(cx).map(|()| Refusal::too_slow())
    }

    fn poll_head_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.framing.is_in_head() {
            self.head_due = None;
        } else if self.head_due.is_none() && !self.input.is_empty() {
            self.head_due = Some(Box::pin(tokio::time::sleep_until(Instant::now() + self.head_timeout)));
        }
        match &mut self.head_due {
            Some(due) => due.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> Guarded<S> {
    /// Ready when the agent's side has ended; what comes before is kept for whoever reads.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        poll_gone(&mut self.stream, &mut self.input, cx)
    }

    /// Bytes of a body that need no look, straight from the stream.
    fn poll_unread(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let room = usize::try_from(self.framing.unread()).unwrap_or(usize::MAX).min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buf.advance(count);
        self.framing.moved(count as u64);
        Poll::Ready(Ok(()))
    }
}

/// Says in a whole head that trailers are taken, in its last line; [`untold`] takes it out again.
fn take_trailers(head: &mut BytesMut) {
    // The request line and the empty one are no header lines.
    let has_room = head.iter().filter(|byte| **byte == b'\n').count().saturating_sub(2) < MAX_LINES;
    if has_room && head.ends_with(END) {
        head.truncate(head.len() - END.len() / 2);
        head.extend_from_slice(TAKES_TRAILERS);
        head.extend_from_slice(&END[END.len() / 2..]);
    }
}

/// A request as it was before [`TAKES_TRAILERS`] was added.
pub(super) fn untold(headers: &mut HeaderMap) {
    let values: Vec<HeaderValue> = headers.get_all(header::TE).iter().cloned().collect();
    if values.iter().eq([TOLD]) {
        // The last one, so that no other takes its place.
        headers.remove(header::TE);
        return;
    }
    without(headers, |name| *name == header::TE);
    for value in values.into_iter().filter(|value| value != TOLD) {
        headers.append(header::TE, value);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.output.is_empty() {
                let take = this.output.len().min(buf.remaining());
                buf.put_slice(this.output.get(..take).unwrap_or_default());
                this.output.advance(take);
                return Poll::Ready(Ok(()));
            }
            if this.is_over() {
                return Poll::Ready(Ok(()));
            }
            let was_in_head = this.framing.is_in_head();
            if let Err(refusal) = this.framing.advance(&mut this.input, &mut this.output) {
                this.refuse(refusal);
                continue;
            }
            if !this.output.is_empty() {
                if was_in_head {
                    take_trailers(&mut this.output);
                }
                // The next head has a time of its own.
                this.head_due = None;
                this.silent = None;
                this.line_due = None;
                continue;
            }
            if this.input.is_empty() && this.framing.unread() > 0 {
                return this.poll_unread(cx, buf);
            }
            if let Poll::Ready(late) = this.poll_late(cx) {
                this.refuse(late);
                continue;
            }
            let mut chunk = [std::mem::MaybeUninit::uninit(); CHUNK];
            let mut read = ReadBuf::uninit(&mut chunk);
            match Pin::new(&mut this.stream).poll_read(cx, &mut read) {
                Poll::Ready(read) => read?,
                // Asked only when all that has come was looked at.
                Poll::Pending => {
                    let silent = this.silent.as_mut();
                    ready!(silent.map_or(Poll::Pending, |silent| silent.poll_dismissed(cx)));
                    this.refuse(Refusal::makes_room());
                    continue;
                }
            }
            if read.filled().is_empty() {
                if !this.framing.is_in_head() || this.input.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                this.refuse(Refusal::broken_off());
                continue;
            }
            this.input.extend_from_slice(read.filled());
        }
    }
}

write_through!(Guarded);
