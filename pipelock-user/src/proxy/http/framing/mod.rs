//! Where one request ends and the next begins: the only reading of it there is.
//!
//! Called by `guarded` with whatever the client sent; no sockets here. It promises that hyper is given nothing but heads
//! in one canonical spelling and bodies of the length those heads declare (RFC 9112 §6), and that bytes which two
//! parsers could frame differently are refused before any of the request is acted on. Header lines that break the
//! grammar and have nothing to do with framing or routing are left out, as RFC 9110 §5.5 allows; they do not leave, and are counted
//! for the receipt.

mod answer;
mod chunked;
mod fields;
mod head;
mod http2;

#[cfg(test)]
pub(super) mod tests;
#[cfg(any(test, fuzzing))]
mod whole;

#[cfg(any(test, fuzzing))]
pub(in crate::proxy) use self::whole::through;

use std::collections::VecDeque;

use bytes::{Buf as _, BytesMut};
use http::StatusCode;

pub(super) use self::answer::sound_answer;
use self::chunked::Chunked;
use self::head::{Body, canonical, end_of_head};
pub(super) use self::http2::sound;
use crate::flow::{Reason, Verdict};

/// Why a request is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct Refusal {
    /// The stable reason.
    pub(super) reason: Reason,
    /// The status of the answer.
    pub(super) status: StatusCode,
    /// What exactly is wrong; holds no byte of the request.
    pub(super) detail: &'static str,
}

impl Refusal {
    /// For what can be read in two ways, or not at all.
    pub(super) const fn malformed(detail: &'static str) -> Self {
        Self { reason: Reason::RequestMalformed, status: StatusCode::BAD_REQUEST, detail }
    }

    /// For a head, or a number of them, beyond the limits.
    pub(super) const fn too_large(detail: &'static str) -> Self {
        Self { reason: Reason::LimitExceeded, status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail }
    }

    /// For a path beyond what one may be.
    pub(super) const fn path_too_long(detail: &'static str) -> Self {
        Self { reason: Reason::LimitExceeded, status: StatusCode::URI_TOO_LONG, detail }
    }

    /// For a head that does not end in time.
    pub(super) const fn too_slow() -> Self {
        Self {
            reason: Reason::RequestTimeout,
            status: StatusCode::REQUEST_TIMEOUT,
            detail: "the request head did not arrive whole in time",
        }
    }

    /// For a first line that does not come in time, or nothing at all.
    pub(super) const fn no_line() -> Self {
        Self {
            reason: Reason::DetectTimeout,
            status: StatusCode::REQUEST_TIMEOUT,
            detail: "the first line of a request did not arrive whole in time",
        }
    }

    /// For a head within which the client has ended its side.
    pub(super) const fn broken_off() -> Self {
        Self::malformed("the connection ended within the head of a request")
    }

    /// For a first head that is not whole when another needs the place of its connection.
    pub(super) const fn makes_room() -> Self {
        Self {
            reason: Reason::LimitExceeded,
            status: StatusCode::TOO_MANY_REQUESTS,
            detail: "limits.max_connections: its first request was not whole, and it made room for another",
        }
    }

    /// The refusal of a request of which nothing has left.
    pub(super) fn verdict(&self) -> Verdict {
        Verdict::block(self.reason, self.detail)
    }
}

/// Why a request with this head would not be read; none for one that is sound.
pub fn refused(head: &[u8], max: usize) -> Option<Verdict> {
    let whole = end_of_head(head, &mut 0, max).and_then(|_| canonical(head));
    whole.err().map(|refusal| refusal.verdict())
}

/// What the next bytes are.
#[derive(Debug)]
enum State {
    /// A head, of which this many bytes are known to hold no end of it; whether an empty line went before.
    Head { scanned: usize, skipped: bool },
    /// A body with this many bytes to go.
    Length(u64),
    /// A chunked body.
    Chunked(Chunked),
    /// Not HTTP any more, after CONNECT.
    Opaque,
}

/// The framing of one connection's requests.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    max_head: usize,
    tunnels: bool,
    /// Lines that were left out of each head that was let through and not asked about.
    left_out: VecDeque<usize>,
}

impl Framing {
    /// For heads of at most `max_head` bytes. With `tunnels` what follows a CONNECT is not HTTP; otherwise CONNECT is
    /// refused by whoever answers, and more requests may follow.
    pub(super) fn new(max_head: usize, tunnels: bool) -> Self {
        Self { state: State::Head { scanned: 0, skipped: false }, max_head, tunnels, left_out: VecDeque::new() }
    }

    /// How many lines were left out of the first head that nobody has asked about yet.
    pub(super) fn left_out(&mut self) -> usize {
        self.left_out.pop_front().unwrap_or_default()
    }

    /// True while a head is awaited.
    pub(super) fn is_in_head(&self) -> bool {
        matches!(self.state, State::Head { .. })
    }

    /// True while the rest of a body is awaited.
    pub(super) fn is_in_body(&self) -> bool {
        matches!(self.state, State::Length(_) | State::Chunked(_))
    }

    /// How many bytes may be moved without being looked at.
    pub(super) fn unread(&self) -> u64 {
        match &self.state {
            State::Length(left) => *left,
            State::Opaque => u64::MAX,
            State::Head { .. } | State::Chunked(_) => 0,
        }
    }

    /// That many of the bytes which need not be looked at have been moved.
    pub(super) fn moved(&mut self, count: u64) {
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.state = State::Head { scanned: 0, skipped: false };
            }
        }
    }

    /// Takes what can be taken from `input` and appends what may be read to `output`. One call goes as far as the next
    /// thing that is incomplete, but not beyond one head: requests are released one at a time.
    ///
    /// # Errors
    /// [`Refusal`]: nothing after this point may be read.
    pub(super) fn advance(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<(), Refusal> {
        while !input.is_empty() && output.is_empty() {
            match &mut self.state {
                State::Head { scanned, skipped } => {
                    // RFC 9112 §2.2: an empty line before a request is to be ignored; more than one is no accident.
                    if input.starts_with(b"\r\n") && !*skipped {
                        input.advance(2);
                        *skipped = true;
                        continue;
                    }
                    let Some(end) = end_of_head(input, scanned, self.max_head)? else { return Ok(()) };
                    let head = canonical(input.get(..end).unwrap_or_default())?;
                    input.advance(end);
                    output.extend_from_slice(&head.bytes);
                    self.left_out.push_back(head.left_out);
                    self.state = match head.body {
                        _ if head.is_connect && self.tunnels => State::Opaque,
                        Body::Length(left) if left > 0 => State::Length(left),
                        Body::Length(_) | Body::None => State::Head { scanned: 0, skipped: false },
                        Body::Chunked => State::Chunked(Chunked::default()),
                    };
                }
                State::Length(_) | State::Opaque => {
                    let room = usize::try_from(self.unread()).unwrap_or(usize::MAX).min(input.len());
                    *output = input.split_to(room);
                    self.moved(room as u64);
                }
                State::Chunked(chunks) => {
                    let (count, is_done) = chunks.scan(input)?;
                    *output = input.split_to(count.min(input.len()));
                    if is_done {
                        self.state = State::Head { scanned: 0, skipped: false };
                    }
                }
            }
        }
        Ok(())
    }
}
