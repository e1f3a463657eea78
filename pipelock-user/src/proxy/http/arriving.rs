//! A body as it comes from its sender, with one thing mended that hyper lets pass.
//!
//! Made by `serve` and `reading` of what hyper hands over, and by `errand` of nothing; `pushing` reads its beginning and puts it
//! back. It promises that a body of HTTP/2
//! whose stream ended before the body did is broken off: hyper takes the stream's end without an error (GOAWAY or
//! RST_STREAM with NO_ERROR, RFC 9113 §7) for the end of the body, and who is sent on such a body would take it for whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::call::Call;
use super::passing::Failure;

/// The body.
pub(super) struct Arriving {
    /// Read before, and to be read again.
    before: Bytes,
    body: Source,
    is_http2: bool,
    /// The last frame has come, or the failure was told.
    is_over: bool,
}

/// Where it comes from.
enum Source {
    /// A message.
    Own(Incoming),
    /// A message that may be a call, which is to be answered as one.
    Call(Call),
    /// A request of our own, which has none.
    None,
}

impl Source {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self {
            Self::Own(body) => Pin::new(body).poll_frame(cx),
            Self::Call(call) => call.poll_frame(cx),
            Self::None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Call(call) => call.is_end_stream(),
            Self::None => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Call(call) => call.size_hint(),
            Self::None => SizeHint::with_exact(0),
        }
    }
}

impl Arriving {
    /// The body of a message of this version.
    pub(super) fn new(body: Incoming, version: Version) -> Self {
        Self::from(Source::Own(body), version)
    }

    /// The body of a request that may be a call.
    pub(super) fn called(call: Call, version: Version) -> Self {
        Self::from(Source::Call(call), version)
    }

    fn from(body: Source, version: Version) -> Self {
        Self { before: Bytes::new(), body, is_http2: version == Version::HTTP_2, is_over: false }
    }

    /// No body.
    pub(super) fn none() -> Self {
        Self { before: Bytes::new(), body: Source::None, is_http2: false, is_over: true }
    }

    /// The rest of a body behind its beginning, which was read before.
    pub(super) fn after(self, before: Bytes) -> Self {
        Self { before, ..self }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        if !this.before.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.before)))));
        }
        if this.is_over {
            return Poll::Ready(None);
        }
        let frame = ready!(this.body.poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                this.is_over |= frame.is_trailers();
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(error.into())),
            None if !this.is_http2 || this.body.is_end_stream() => {
                this.is_over = true;
                None
            }
            None => {
                this.is_over = true;
                Some(Err("the stream ended before the body did".into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.before.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let before = self.before.len() as u64;
        let left = self.body.size_hint();
        match left.exact() {
            Some(left) => SizeHint::with_exact(left.saturating_add(before)),
            None => left,
        }
    }
}
