//! A body as it comes from its sender, with one thing mended that hyper lets pass.
//!
//! Made by `serve` and `reading` of what hyper hands over, and by `errand` of nothing. It promises that a body of HTTP/2
//! whose stream ended before the body did is broken off: hyper takes the stream's end without an error (GOAWAY or
//! RST_STREAM with NO_ERROR, RFC 9113 §7) for the end of the body, and who is sent on such a body would take it for whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::passing::Failure;

/// The body.
pub(super) struct Arriving {
    /// None of a request of our own, which has none.
    body: Option<Incoming>,
    is_http2: bool,
    /// The last frame has come, or the failure was told.
    is_over: bool,
}

impl Arriving {
    /// The body of a message of this version.
    pub(super) fn new(body: Incoming, version: Version) -> Self {
        Self { body: Some(body), is_http2: version == Version::HTTP_2, is_over: false }
    }

    /// No body.
    pub(super) fn none() -> Self {
        Self { body: None, is_http2: false, is_over: true }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                this.is_over |= frame.is_trailers();
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(error.into())),
            None if this.is_over || !this.is_http2 || body.is_end_stream() => None,
            None => {
                this.is_over = true;
                Some(Err("the stream ended before the body did".into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
